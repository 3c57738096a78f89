//! One file of client memory: mapped if nothing can take its pages away, read and written through the kernel if not.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fcntl_getfl, fstat, fstatfs};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::device::Errno;

/// Which file a descriptor refers to, and how it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    mode: u32,
}

/// `HUGETLBFS_MAGIC` of `<linux/magic.h>`.
const HUGETLBFS: u32 = 0x9584_58F6;

/// Whether `fd` is a file of huge pages, which only its owner can use safely: a mapping of it kills whoever touches a page
/// that the host has run out of, seal or not, and the kernel does not write to it for us.
pub(crate) fn on_huge_pages(fd: &OwnedFd) -> bool {
    // Only memory files have seals; no other file system is asked anything.
    fcntl_get_seals(fd).is_ok() && fstatfs(fd).is_ok_and(|stat| stat.f_type as u32 == HUGETLBFS)
}

/// A file of client memory, shared by all mappings of it.
#[derive(Debug)]
pub(super) struct Backing {
    file: Arc<File>,
    /// Present only for memory whose pages cannot vanish: a page beyond the end of a truncated file kills whoever touches it.
    mapping: Option<MmapRegion>,
}

impl Backing {
    /// Which file `fd` is.
    ///
    /// # Errors
    /// EINVAL for anything but a regular file: no pipe or socket is memory.
    pub(super) fn key(fd: &OwnedFd) -> Result<FileKey, Errno> {
        let stat = fstat(fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        Ok(FileKey { device: stat.st_dev, inode: stat.st_ino, mode: fcntl_getfl(fd)?.bits() })
    }

    /// Takes over a file. If it cannot be mapped safely, or at all, accesses go through the kernel.
    pub(super) fn new(fd: OwnedFd) -> Self {
        let file = Arc::new(File::from(fd));
        let mapping = Self::map(&file);
        Self { file, mapping }
    }

    fn map(file: &Arc<File>) -> Option<MmapRegion> {
        let seals = fcntl_get_seals(file.as_ref()).ok()?;
        if !seals.contains(SealFlags::SHRINK) {
            return None;
        }
        let size = usize::try_from(file.metadata().ok()?.len()).ok().filter(|size| *size > 0)?;
        MmapRegion::from_file(FileOffset::from_arc(Arc::clone(file), 0), size).ok()
    }

    /// The range as an offset into the mapping, if all of it is mapped.
    fn mapped(&self, offset: u64, length: usize) -> Option<(&MmapRegion, usize)> {
        let mapping = self.mapping.as_ref()?;
        let offset = usize::try_from(offset).ok()?;
        (offset.checked_add(length)? <= mapping.size()).then_some((mapping, offset))
    }

    /// The range in place, if all of it is mapped.
    pub(super) fn slice(&self, offset: u64, length: usize) -> Option<VolatileSlice<'_>> {
        let (mapping, at) = self.mapped(offset, length)?;
        mapping.get_slice(at, length).ok()
    }

    /// Reads at `offset`.
    ///
    /// # Errors
    /// EFAULT beyond the end of the file, else what the kernel says.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        match self.mapped(offset, data.len()) {
            Some((mapping, at)) => mapping.as_volatile_slice().read_slice(data, at).map_err(|_| Errno::FAULT),
            None => self.file.read_exact_at(data, offset).map_err(|error| errno(&error)),
        }
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// EFAULT beyond the end of the file, else what the kernel says.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if let Some((mapping, at)) = self.mapped(offset, data.len()) {
            return mapping.as_volatile_slice().write_slice(data, at).map_err(|_| Errno::FAULT);
        }
        // Writing behind the end would grow the client's file.
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::FAULT)?;
        if end > self.file.metadata().map_err(|error| errno(&error))?.len() {
            return Err(Errno::FAULT);
        }
        self.file.write_all_at(data, offset).map_err(|error| errno(&error))
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::FAULT)
}
