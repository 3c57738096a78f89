//! The "newc" cpio format, as much of it as an initramfs needs: directories, files and symbolic links, all owned by root.
//! (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.)

const MAGIC: &str = "070701";
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const PERMISSIONS: u32 = 0o7777;

/// The file is too large for the format's 32-bit sizes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {size} bytes do not fit into a cpio archive")]
pub struct TooLarge {
    /// The member's path.
    pub path: String,
    /// Its size in bytes.
    pub size: usize,
}

/// An archive being written. Paths are relative to the root, without a leading slash; parents come before children.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, permissions: u32) -> Result<(), TooLarge> {
        self.member(path, DIRECTORY | (permissions & PERMISSIONS), &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<(), TooLarge> {
        self.member(path, REGULAR | (permissions & PERMISSIONS), content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), TooLarge> {
        self.member(path, SYMLINK | 0o777, target.as_bytes())
    }

    /// Closes the archive and returns its bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        self.inode = 0;
        self.member("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn member(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), TooLarge> {
        let too_large = |size| TooLarge { path: path.to_owned(), size };
        let size = u32::try_from(content.len()).map_err(|_| too_large(content.len()))?;
        let name_size = u32::try_from(path.len() + 1).map_err(|_| too_large(path.len()))?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        for field in [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        self.inode += 1;
        Ok(())
    }

    /// Names and contents each end on a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_laid_out_as_the_format_says() {
        let mut archive = Archive::new();
        archive.file("ab", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let header = "070701\
            00000000000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
            0000000300000000";
        assert_eq!(header.len(), 110);
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..116], b"ab\0\0\0\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], MAGIC.as_bytes());
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn every_name_length_keeps_the_alignment() {
        for length in 1..9 {
            let mut archive = Archive::new();
            archive.directory(&"d".repeat(length), 0o755).unwrap();
            archive.symlink(&"l".repeat(length), "target").unwrap();
            let bytes = archive.finish().unwrap();
            let members = bytes.windows(6).enumerate().filter(|(_, w)| w == b"070701");
            let offsets: Vec<_> = members.map(|(offset, _)| offset).collect();
            assert_eq!(offsets.len(), 3, "{length}");
            assert!(offsets.iter().all(|offset| offset % 4 == 0), "{length}: {offsets:?}");
        }
    }
}
