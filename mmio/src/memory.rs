//! The memory behind a BAR: memfds, written and read by system call, so that it can be mapped elsewhere and zeroed at once.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

/// The host refused something it should not: creating, reading, writing or zeroing the memory behind a BAR.
#[derive(Debug, thiserror::Error)]
#[error("memory behind BAR {bar}: {action} failed")]
pub struct MemoryError {
    /// The BAR.
    pub bar: u8,
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// One memfd as large as its BAR, in which a byte has the offset it has in the BAR.
///
/// Client and server name a place in a region by one file and one offset, so file offsets that equal BAR offsets need no
/// translation on either side. The file is sparse: pages nobody touched cost nothing.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    fd: OwnedFd,
    bar: u8,
}

impl MemoryFile {
    /// Creates `size` bytes of zeroes whose size nobody can change any more: a client that holds the descriptor can
    /// neither cut pages away under another's mapping nor forbid us writing.
    pub(crate) fn new(bar: u8, name: &str, size: u64) -> Result<Self, MemoryError> {
        let fail = |action| move |errno: Errno| MemoryError { bar, action, source: errno.into() };
        let fd = create(name).map_err(fail("memfd_create"))?;
        rustix::fs::ftruncate(&fd, size).map_err(fail("sizing"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(fail("sealing"))?;
        Ok(Self { fd, bar })
    }

    pub(crate) fn read(&self, mut offset: u64, mut data: &mut [u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            match rustix::io::pread(&self.fd, &mut *data, offset) {
                Ok(0) => return Err(self.fail("reading", io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    data = data.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.fail("reading", errno.into())),
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            match rustix::io::pwrite(&self.fd, data, offset) {
                Ok(0) => return Err(self.fail("writing", io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    data = data.get(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.fail("writing", errno.into())),
            }
        }
        Ok(())
    }

    /// Zeroes a range by giving its pages back: the cost is that of the pages in use, and existing mappings see zeroes.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), MemoryError> {
        loop {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.fd, flags, offset, length) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.fail("zeroing", errno.into())),
            }
        }
    }

    fn fail(&self, action: &'static str, source: io::Error) -> MemoryError {
        MemoryError { bar: self.bar, action, source }
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A sealable memfd; not executable where the kernel can say so (Linux 6.3), which also spares its log a complaint.
fn create(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 0x4000;

    #[test]
    fn new_memory_is_zero_and_keeps_what_is_written() {
        let memory = MemoryFile::new(2, "test", SIZE).unwrap();
        let mut data = [0xa5; SIZE as usize];
        memory.read(0, &mut data).unwrap();
        assert_eq!(data, [0; SIZE as usize]);
        memory.write(0xfff, &[1, 2, 3]).unwrap();
        let mut back = [0; 5];
        memory.read(0xffe, &mut back).unwrap();
        assert_eq!(back, [0, 1, 2, 3, 0]);
    }

    #[test]
    fn its_size_and_seals_are_final() {
        let memory = MemoryFile::new(2, "test", SIZE).unwrap();
        for size in [0, SIZE - 0x1000, SIZE + 0x1000] {
            assert_eq!(rustix::fs::ftruncate(&memory, size), Err(Errno::PERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn beyond_the_end_is_an_error_and_not_a_loop() {
        let memory = MemoryFile::new(3, "test", SIZE).unwrap();
        let error = memory.read(SIZE - 1, &mut [0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "memory behind BAR 3: reading failed");
        assert!(memory.write(SIZE - 1, &[0; 2]).is_err());
        assert!(memory.write(u64::MAX, &[0; 2]).is_err());
    }

    #[test]
    fn zeroing_gives_the_pages_back() {
        let memory = MemoryFile::new(2, "test", SIZE).unwrap();
        memory.write(0, &[0xff; SIZE as usize]).unwrap();
        memory.zero(0x1000, 0x2000).unwrap();
        let mut data = [0; SIZE as usize];
        memory.read(0, &mut data).unwrap();
        for (page, byte) in [(0, 0xff), (1, 0), (2, 0), (3, 0xff)] {
            assert_eq!(data[page * 0x1000..][..0x1000], [byte; 0x1000], "page {page}");
        }
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_blocks, 2 * 8);
    }
}
