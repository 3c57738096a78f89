//! What holds a disk's bytes: a raw file, a block device, or memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, MemfdFlags, SealFlags, StatxFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::iovec::{self, MAX_PIECES, Piece};

/// Bytes of zeroes that are written at once where the file cannot make them itself.
const ZEROES: usize = 1 << 16;

/// Where a disk's bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackingOptions {
    /// The file or block device; `None`: memory.
    pub path: Option<PathBuf>,
    /// Size in bytes. A file that is shorter is made longer, or made at all, without taking space for it; of a longer one, this is
    /// what is shown. `None`: as large as the file, also when it grows or shrinks later. Memory needs a size.
    pub size: Option<u64>,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
}

/// Why there is no disk.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be opened or made.
    #[error("cannot open it: {0}")]
    Open(#[source] io::Error),
    /// Neither a file nor a block device.
    #[error("it is neither a file nor a block device")]
    Kind,
    /// Another process writes it, or this one would write what another reads.
    #[error("another process uses it")]
    InUse,
    /// `O_DIRECT` is not possible there.
    #[error("its file system cannot go past the page cache: {0}")]
    Direct(#[source] io::Error),
    /// Memory without a size.
    #[error("a disk in memory needs a size")]
    NoSize,
    /// A size that cannot be had.
    #[error("it cannot have {bytes} bytes: {source}")]
    Size {
        /// What was asked for.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// Its state cannot be read.
    #[error("its state cannot be read: {0}")]
    State(#[source] io::Error),
}

/// What direct I/O needs, in bytes; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Of addresses and lengths of memory.
    pub memory: usize,
    /// Of positions and lengths in the file. A disk's logical block is at least this.
    pub file: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    File,
    Device,
}

/// The bytes of a disk. All methods can be called from several threads at once.
#[derive(Debug)]
pub struct Backing {
    file: File,
    kind: Kind,
    read_only: bool,
    direct: Option<Alignment>,
    /// Fixed size in bytes.
    fixed: Option<u64>,
    /// Size in bytes as last seen.
    size: AtomicU64,
    /// A flush of a file in the page cache failed: the kernel forgot what was lost, so no later flush can be believed.
    lost: AtomicBool,
}

impl Backing {
    /// Opens a file, or takes memory.
    ///
    /// A file that the guest may write is locked (`flock`) against every other program that does that; one that it may only
    /// read, against those that write.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(options: &BackingOptions) -> Result<Self, OpenError> {
        let Some(path) = &options.path else {
            return Self::memory(options.size.ok_or(OpenError::NoSize)?, options.read_only);
        };
        let make = options.size.is_some() && !options.read_only;
        let flags = rustix::fs::OFlags::CLOEXEC.bits();
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .create(make)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(path)
            .map_err(OpenError::Open)?;
        let kind = file.metadata().map_err(OpenError::State)?.file_type();
        let kind = match (kind.is_file(), kind.is_block_device()) {
            (true, _) => Kind::File,
            (false, true) => Kind::Device,
            (false, false) => return Err(OpenError::Kind),
        };
        let lock = if options.read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        rustix::fs::flock(&file, lock).map_err(|errno| match errno {
            Errno::WOULDBLOCK => OpenError::InUse,
            other => OpenError::Open(other.into()),
        })?;
        let direct = if options.direct { Some(go_direct(&file).map_err(OpenError::Direct)?) } else { None };
        let now = length(&file, kind).map_err(OpenError::State)?;
        if let Some(bytes) = options.size.filter(|bytes| *bytes > now) {
            let cannot = |source| OpenError::Size { bytes, source };
            if options.read_only || kind == Kind::Device {
                return Err(cannot(io::Error::other(format!("it has {now}"))));
            }
            file.set_len(bytes).map_err(cannot)?;
        }
        let size = AtomicU64::new(options.size.unwrap_or(now));
        let lost = AtomicBool::new(false);
        Ok(Self { file, kind, read_only: options.read_only, direct, fixed: options.size, size, lost })
    }

    /// Memory, all zeroes. It takes space only where it was written.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn memory(bytes: u64, read_only: bool) -> Result<Self, OpenError> {
        let cannot = |errno: Errno| OpenError::Size { bytes, source: errno.into() };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory: OwnedFd = rustix::fs::memfd_create("disk", flags).map_err(cannot)?;
        rustix::fs::ftruncate(&memory, bytes).map_err(cannot)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).map_err(cannot)?;
        Ok(Self {
            file: memory.into(),
            kind: Kind::Memory,
            read_only,
            direct: None,
            fixed: Some(bytes),
            size: AtomicU64::new(bytes),
            lost: AtomicBool::new(false),
        })
    }

    /// Size in bytes as last seen.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether the guest may not write.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What direct I/O needs, if it is direct.
    #[must_use]
    pub fn direct(&self) -> Option<Alignment> {
        self.direct
    }

    /// Whether it is as large as a file that may grow or shrink. Otherwise its size stays, and nobody has to look.
    #[must_use]
    pub fn resizable(&self) -> bool {
        self.fixed.is_none()
    }

    /// Looks how large the file is now, in bytes. A fixed size is only held to what is really there.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn refresh(&self) -> io::Result<u64> {
        let now = length(&self.file, self.kind)?;
        let now = self.fixed.map_or(now, |fixed| fixed.min(now));
        self.size.store(now, Ordering::Relaxed);
        Ok(now)
    }

    /// Whether a file's contents are worth nothing to a process after this one.
    pub(crate) fn volatile(&self) -> bool {
        self.kind == Kind::Memory
    }

    /// Whether some of these pieces are not as direct I/O needs them.
    pub(crate) fn misaligned(&self, pieces: &[Piece]) -> bool {
        self.direct.is_some_and(|need| !pieces.iter().all(|piece| piece.aligned(need.memory)))
    }

    /// Reads what is in the page cache of the first pieces, from `offset` on: bytes. Nothing is an answer.
    pub(crate) fn read_cached(&self, pieces: &mut [Piece], offset: u64) -> usize {
        let now = pieces.len().min(MAX_PIECES);
        let now = pieces.get_mut(..now).unwrap_or_default();
        iovec::read_at(self.file.as_fd(), now, offset, true).unwrap_or(0)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether reads and writes may take a while, so that others should go on meanwhile.
    pub(crate) fn slow(&self) -> bool {
        self.kind != Kind::Memory
    }

    /// Whether a flush cannot be believed any more.
    pub(crate) fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Reads all of `pieces` from `offset` on. The memory has to be mapped.
    pub(crate) fn read_pieces(&self, mut pieces: &mut [Piece], mut offset: u64) -> io::Result<()> {
        while !pieces.is_empty() {
            let now = pieces.len().min(MAX_PIECES);
            let now = pieces.get_mut(..now).unwrap_or_default();
            match iovec::read_at(self.file.as_fd(), now, offset, false) {
                // Shorter than it was a moment ago.
                Ok(0) if now.iter().any(|piece| piece.length() > 0) => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(done) => {
                    pieces = iovec::advance(pieces, done);
                    offset = offset.saturating_add(done as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `pieces` from `offset` on; `stable`: for good. The memory has to be mapped.
    pub(crate) fn write_pieces(
        &self,
        mut pieces: &mut [Piece],
        mut offset: u64,
        stable: bool,
    ) -> io::Result<()> {
        let stable = stable && !self.volatile();
        while !pieces.is_empty() {
            let now = pieces.len().min(MAX_PIECES);
            let now = pieces.get_mut(..now).unwrap_or_default();
            match iovec::write_at(self.file.as_fd(), now, offset, stable) {
                Ok(0) if now.iter().any(|piece| piece.length() > 0) => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(done) => {
                    pieces = iovec::advance(pieces, done);
                    offset = offset.saturating_add(done as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if stable {
                        self.stable_write_failed(&error);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads into `out`, which is as direct I/O needs it.
    ///
    /// # Errors
    /// The file's.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Writes `data`, which is as direct I/O needs it.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Everything that was written is stable when this returns.
    ///
    /// # Errors
    /// The file's. What could not be written may be lost; then no later flush of a file in the page cache succeeds.
    pub fn flush(&self) -> io::Result<()> {
        if self.volatile() || self.read_only {
            return Ok(());
        }
        if self.lost() {
            return Err(io::Error::from_raw_os_error(Errno::IO.raw_os_error()));
        }
        self.file.sync_data().inspect_err(|_| self.flush_failed())
    }

    /// Notes that a flush failed.
    pub(crate) fn flush_failed(&self) {
        if self.direct.is_none() {
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Notes that a write failed which was to be stable. Only EIO comes from after it was in the page cache.
    pub(crate) fn stable_write_failed(&self, error: &io::Error) {
        if error.raw_os_error() == Some(Errno::IO.raw_os_error()) {
            self.flush_failed();
        }
    }

    /// Gives space back. What is read there afterwards is not said; where space cannot be given back, it is as before.
    ///
    /// # Errors
    /// The file's.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.punch(offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Makes everything there read as zeroes; `unmap`: preferably without space for them.
    ///
    /// # Errors
    /// The file's.
    pub fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        // Memory has no reservation that could be kept.
        let first = if unmap || self.volatile() {
            self.punch(offset, length)
        } else {
            rustix::fs::fallocate(
                &self.file,
                FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                offset,
                length,
            )
        };
        match first {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.plain_zeroes(offset, length),
            other => Ok(other?),
        }
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        if length == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, offset, length)
    }

    fn plain_zeroes(&self, mut offset: u64, mut length: u64) -> io::Result<()> {
        let zeroes = Bounce::new(ZEROES, self.direct);
        while length > 0 {
            let now = length.min(ZEROES as u64);
            let piece = usize::try_from(now).ok().and_then(|now| zeroes.bytes().get(..now));
            self.write(offset, piece.unwrap_or_default())?;
            offset = offset.saturating_add(now);
            length -= now;
        }
        Ok(())
    }
}

/// Memory that direct I/O can use, all zeroes at first.
pub(crate) struct Bounce {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Bounce {
    pub(crate) fn new(length: usize, need: Option<Alignment>) -> Self {
        let alignment = need.map_or(1, |need| need.memory.max(1));
        let memory = vec![0; length.saturating_add(alignment)];
        let start = memory.as_ptr().align_offset(alignment).min(alignment);
        Self { memory, start, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start.saturating_add(self.length)).unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start.saturating_add(self.length)).unwrap_or_default()
    }
}

fn length(file: &File, kind: Kind) -> io::Result<u64> {
    match kind {
        Kind::Memory | Kind::File => Ok(file.metadata()?.len()),
        Kind::Device => (&*file).seek(SeekFrom::End(0)),
    }
}

/// Turns the page cache off, and asks what that costs.
fn go_direct(file: &File) -> io::Result<Alignment> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::DIRECT)?;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // A kernel before 6.1, or a file system that does not say: what suits all disks there are.
        return Ok(Alignment { memory: 4096, file: 4096 });
    }
    if stat.stx_dio_mem_align == 0 || stat.stx_dio_offset_align == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Alignment {
        memory: stat.stx_dio_mem_align.next_power_of_two() as usize,
        file: u64::from(stat.stx_dio_offset_align.next_power_of_two()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that cannot be flushed, and the file that it turns into afterwards: as with a page cache that lost its pages and
    /// has no more to write.
    fn failing(direct: Option<Alignment>) -> (Backing, File) {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let backing = Backing {
            file: OwnedFd::from(socket).into(),
            kind: Kind::File,
            read_only: false,
            direct,
            fixed: None,
            size: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        };
        (backing, tempfile::tempfile().unwrap())
    }

    #[test]
    fn after_a_flush_that_failed_none_can_be_believed() {
        let (mut backing, good) = failing(None);
        assert!(!backing.lost());
        let first = backing.flush().unwrap_err();
        assert_ne!(first.raw_os_error(), Some(Errno::IO.raw_os_error()), "the file's own error, at first");
        backing.file = good;
        assert_eq!(backing.flush().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert!(backing.lost());
        // Reads and writes go on: what is there is there.
        backing.write(0, b"data").unwrap();
        assert!(backing.flush().is_err());
    }

    #[test]
    fn past_the_page_cache_each_flush_speaks_for_itself() {
        let (mut backing, good) = failing(Some(Alignment { memory: 1, file: 1 }));
        backing.flush().unwrap_err();
        backing.file = good;
        backing.flush().unwrap();
        assert!(!backing.lost());
    }

    #[test]
    fn of_stable_writes_only_those_that_reached_the_page_cache_count() {
        let (backing, _) = failing(None);
        for (error, lost) in
            [(Errno::NOSPC, false), (Errno::INVAL, false), (Errno::IO, true), (Errno::NOSPC, true)]
        {
            backing.stable_write_failed(&error.into());
            assert_eq!(backing.lost(), lost, "{error}");
        }
    }
}
