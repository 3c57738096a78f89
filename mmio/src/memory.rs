//! The memory behind a BAR: memfds, written and read by system call, so that it can be mapped elsewhere and zeroed at once.
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;

/// Bytes moved between files by one system call.
const CHUNK: usize = 64 * 1024;

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

/// Does everything, whatever fails, and says what failed first.
pub(crate) fn each(results: impl Iterator<Item = Result<(), MemoryError>>) -> Result<(), MemoryError> {
    let mut first = Ok(());
    for result in results {
        first = first.and(result);
    }
    first
}

/// Makes dma-bufs, which a kernel's drivers import, of memfds, which they do not.
pub trait DmaBufMaker: Debug + Send + Sync {
    /// A dma-buf of all `bytes` bytes of `memfd`, which is sealed against shrinking. Both are the same pages from now on.
    ///
    /// # Errors
    /// Why there is none, for people.
    fn make(&self, memfd: BorrowedFd<'_>, bytes: u64) -> io::Result<OwnedFd>;

    /// Whether somebody has a descriptor or a mapping of `dmabuf` besides this descriptor, or has imported it. Where that cannot be
    /// found out, somebody has.
    fn is_held(&self, dmabuf: BorrowedFd<'_>) -> bool;
}

/// What is given away of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// The file itself.
    Memfd,
    /// A dma-buf of its pages.
    DmaBuf,
}

/// A dma-buf of a file's pages.
#[derive(Debug)]
struct DmaBuf {
    fd: OwnedFd,
    maker: Arc<dyn DmaBufMaker>,
}

/// What a descriptor is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// Whether a file can be cut under the mappings of those who hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Never: whoever maps it is safe from SIGBUS.
    Final,
    /// By [`MemoryFile::cut`], and by whoever holds it.
    Cuttable,
}

/// One memfd. It is sparse: pages nobody touched cost nothing, unless there is a dma-buf of it.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    fd: OwnedFd,
    bar: u8,
    size: Size,
    dmabuf: Option<DmaBuf>,
}

impl MemoryFile {
    /// Creates `bytes` bytes of zeroes. A holder can neither make it grow nor forbid us writing, and only a [`Size::Cuttable`]
    /// one can be made to shrink.
    pub(crate) fn new(bar: u8, name: &str, bytes: u64, size: Size) -> Result<Self, MemoryError> {
        let fail = |action| move |errno: Errno| MemoryError { bar, action, source: errno.into() };
        let fd = create(name).map_err(fail("memfd_create"))?;
        rustix::fs::ftruncate(&fd, bytes).map_err(fail("sizing"))?;
        let seals = match size {
            Size::Final => SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
            Size::Cuttable => SealFlags::GROW | SealFlags::SEAL,
        };
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(fail("sealing"))?;
        Ok(Self { fd, bar, size, dmabuf: None })
    }

    /// From now on a dma-buf is what is handed out. `bytes` is the size of the file, which is [`Size::Final`].
    pub(crate) fn make_dmabuf(
        &mut self,
        maker: &Arc<dyn DmaBufMaker>,
        bytes: u64,
    ) -> Result<(), MemoryError> {
        let fd = maker
            .make(self.fd.as_fd(), bytes)
            .map_err(|source| self.fail("making a dma-buf of it", source))?;
        self.dmabuf = Some(DmaBuf { fd, maker: Arc::clone(maker) });
        Ok(())
    }

    /// What is handed out.
    pub(crate) const fn kind(&self) -> FileKind {
        match self.dmabuf {
            Some(_) => FileKind::DmaBuf,
            None => FileKind::Memfd,
        }
    }

    /// Reads; where the file was cut there are ones.
    pub(crate) fn read(&self, mut offset: u64, mut data: &mut [u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            match rustix::io::pread(&self.fd, &mut *data, offset) {
                Ok(0) if self.size == Size::Cuttable => {
                    data.fill(0xff);
                    return Ok(());
                }
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

    /// Writes; what would lie where the file was cut is lost.
    pub(crate) fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            match rustix::io::pwrite(&self.fd, data, offset) {
                Ok(0) => return Err(self.fail("writing", io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    data = data.get(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                // The seal against growing.
                Err(Errno::PERM) if self.size == Size::Cuttable => return Ok(()),
                Err(errno) => return Err(self.fail("writing", errno.into())),
            }
        }
        Ok(())
    }

    /// Writes ones, as somebody reads who may not.
    pub(crate) fn fill_with_ones(&self, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.fill(&[0xff; CHUNK], offset, length)
    }

    fn fill(&self, pattern: &[u8; CHUNK], mut offset: u64, mut length: u64) -> Result<(), MemoryError> {
        while length > 0 {
            let count = length.min(CHUNK as u64);
            self.write(offset, pattern.get(..count as usize).unwrap_or_default())?;
            offset += count;
            length -= count;
        }
        Ok(())
    }

    /// Copies `length` bytes to `target`, which is zero there: pages nobody touched are left out.
    pub(crate) fn copy(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        length: u64,
    ) -> Result<(), MemoryError> {
        let mut buffer = vec![0; CHUNK];
        let end = offset + length;
        let mut at = offset;
        loop {
            at = match rustix::fs::seek(&self.fd, SeekFrom::Data(at)) {
                Ok(data) if data < end => data,
                // No more data, or the file was cut.
                Ok(_) | Err(Errno::NXIO) => return Ok(()),
                Err(errno) => return Err(self.fail("seeking", errno.into())),
            };
            let hole = match rustix::fs::seek(&self.fd, SeekFrom::Hole(at)) {
                Ok(hole) => hole.min(end),
                Err(Errno::NXIO) => return Ok(()),
                Err(errno) => return Err(self.fail("seeking", errno.into())),
            };
            while at < hole {
                let count = (hole - at).min(CHUNK as u64);
                let chunk = buffer.get_mut(..count as usize).unwrap_or_default();
                self.read(at, chunk)?;
                target.write(target_offset + (at - offset), chunk)?;
                at += count;
            }
        }
    }

    /// Takes all its pages away: who has it mapped gets SIGBUS from now on.
    pub(crate) fn cut(&self) -> Result<(), MemoryError> {
        rustix::fs::ftruncate(&self.fd, 0).map_err(|errno| self.fail("cutting", errno.into()))
    }

    /// A descriptor for somebody else, of whom [`Self::is_held`] knows until the last copy and the last mapping of it are gone.
    pub(crate) fn hand_out(&self, access: FileAccess) -> Result<OwnedFd, MemoryError> {
        let fail = |action| move |errno: Errno| self.fail(action, errno.into());
        if let Some(dmabuf) = &self.dmabuf {
            return dmabuf.fd.try_clone().map_err(|error| self.fail("copying a descriptor", error));
        }
        let fd = self.reopen(access).map_err(fail("opening"))?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared).map_err(fail("locking"))?;
        Ok(fd)
    }

    /// Whether somebody holds what [`Self::hand_out`] gave. The lock of a descriptor lives as long as whatever keeps the open
    /// file alive, mappings among them. Where that cannot be found out, somebody does.
    pub(crate) fn is_held(&self) -> bool {
        if let Some(DmaBuf { fd, maker }) = &self.dmabuf {
            return maker.is_held(fd.as_fd());
        }
        let Ok(probe) = self.reopen(FileAccess::ReadWrite) else { return true };
        rustix::fs::flock(&probe, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// An open file of its own, unlike a duplicate.
    fn reopen(&self, access: FileAccess) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let mode = match access {
            FileAccess::ReadWrite => OFlags::RDWR,
            FileAccess::ReadOnly => OFlags::RDONLY,
        };
        rustix::fs::open(path, mode | OFlags::CLOEXEC, Mode::empty())
    }

    /// Zeroes a range by giving its pages back: the cost is that of the pages in use, and existing mappings see zeroes. A dma-buf keeps
    /// the pages it was made of, so these are written to.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), MemoryError> {
        if self.dmabuf.is_some() {
            return self.fill(&[0; CHUNK], offset, length);
        }
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
        let memory = MemoryFile::new(2, "test", SIZE, Size::Final).unwrap();
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
        let memory = MemoryFile::new(2, "test", SIZE, Size::Final).unwrap();
        for size in [0, SIZE - 0x1000, SIZE + 0x1000] {
            assert_eq!(rustix::fs::ftruncate(&memory, size), Err(Errno::PERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn beyond_the_end_is_an_error_and_not_a_loop() {
        let memory = MemoryFile::new(3, "test", SIZE, Size::Final).unwrap();
        let error = memory.read(SIZE - 1, &mut [0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "memory behind BAR 3: reading failed");
        assert!(memory.write(SIZE - 1, &[0; 2]).is_err());
        assert!(memory.write(u64::MAX, &[0; 2]).is_err());
    }

    #[test]
    fn zeroing_gives_the_pages_back() {
        let memory = MemoryFile::new(2, "test", SIZE, Size::Final).unwrap();
        memory.write(0, &[0xff; SIZE as usize]).unwrap();
        memory.zero(0x1000, 0x2000).unwrap();
        let mut data = [0; SIZE as usize];
        memory.read(0, &mut data).unwrap();
        for (page, byte) in [(0, 0xff), (1, 0), (2, 0), (3, 0xff)] {
            assert_eq!(data[page * 0x1000..][..0x1000], [byte; 0x1000], "page {page}");
        }
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_blocks, 2 * 8);
    }

    #[test]
    fn copying_takes_what_is_there() {
        let (from, to) = (
            MemoryFile::new(2, "from", SIZE, Size::Final).unwrap(),
            MemoryFile::new(2, "to", 0x3000, Size::Cuttable).unwrap(),
        );
        from.write(0x2ffe, &[1, 2, 3, 4]).unwrap();
        from.copy(0x1000, &to, 0, 0x3000).unwrap();
        let mut data = [0xa5; 0x3000];
        to.read(0, &mut data).unwrap();
        let mut expected = [0; 0x3000];
        expected[0x1ffe..0x2002].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(data, expected);
        assert_eq!(rustix::fs::fstat(&to).unwrap().st_blocks, 2 * 8);
        from.copy(0x2000, &to, 0, 0).unwrap();
    }

    #[test]
    fn what_was_cut_reads_ones_and_loses_writes() {
        let memory = MemoryFile::new(2, "test", SIZE, Size::Cuttable).unwrap();
        let other = MemoryFile::new(2, "other", SIZE, Size::Final).unwrap();
        memory.write(0, &[1; 0x1800]).unwrap();
        memory.cut().unwrap();
        let mut data = [0xa5; 0x2000];
        memory.read(0x800, &mut data).unwrap();
        assert_eq!(data, [0xff; 0x2000]);
        memory.write(0, &[1]).unwrap();
        memory.fill_with_ones(0, SIZE).unwrap();
        memory.zero(0, SIZE).unwrap();
        memory.copy(0, &other, 0, SIZE).unwrap();
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_size, 0);
        assert!(MemoryFile::new(2, "final", SIZE, Size::Final).unwrap().cut().is_err());
    }

    #[test]
    fn a_holder_is_known_until_its_last_mapping_is_gone() {
        use std::fs::File;
        use vm_memory::FileOffset;
        use vm_memory::mmap::MmapRegion;

        let memory = MemoryFile::new(2, "test", SIZE, Size::Final).unwrap();
        assert!(!memory.is_held());
        let handed = memory.hand_out(FileAccess::ReadWrite).unwrap();
        let copy = handed.try_clone().unwrap();
        drop(handed);
        assert!(memory.is_held());
        let mapping: MmapRegion =
            MmapRegion::from_file(FileOffset::new(File::from(copy), 0), SIZE as usize).unwrap();
        assert!(memory.is_held());
        drop(mapping);
        assert!(!memory.is_held());
    }
}
