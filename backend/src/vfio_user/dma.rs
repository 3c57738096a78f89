//! The client's memory as the device sees it: ranges of DMA addresses, each in a file or behind messages.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use tdispd_proto::vfio_user::{DmaMap, DmaUnmap, MAX_DMA_MAPS};
use thiserror::Error;
use vm_memory::VolatileSlice;

use super::backing::{Backing, FileKey, on_huge_pages};
use super::device::Errno;

/// Most distinct files of one client. Each costs a descriptor and a mapping, of which a process has few;
/// a machine's memory is a handful of files, however many pages are mapped from them.
const MAX_FILES: usize = 128;

/// Why an access to client memory failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DmaError {
    /// No mapping covers all of the range.
    #[error("address {0:#x} is not mapped")]
    Unmapped(u64),
    /// The mapping does not allow this direction.
    #[error("address {0:#x} may not be accessed that way")]
    Permission(u64),
    /// The file behind the mapping failed.
    #[error("the memory behind the mapping failed: {0}")]
    Memory(Errno),
    /// The range needs messages to the client; see [`Server::dma_read`](super::Server::dma_read).
    #[error("address {0:#x} is only reachable through the client")]
    Remote(u64),
    /// The client answered with this errno, which may be zero.
    #[error("the client refused with errno {0}")]
    Refused(u32),
    /// The client's answer does not fit the question.
    #[error("the client's answer is malformed")]
    BadReply,
    /// The client is gone, or none is connected.
    #[error("no client")]
    Disconnected,
    /// Too many or too large accesses at once.
    #[error("too much at once")]
    Busy,
}

/// The direction of an access, from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

#[derive(Clone, Debug)]
enum Source {
    File {
        backing: Arc<Backing>,
        offset: u64,
    },
    /// No descriptor came along: DMA_READ and DMA_WRITE messages.
    Client,
}

impl Source {
    fn advanced(&self, by: u64) -> Self {
        match self {
            // The sum is below offset + size, which was checked when the mapping was made.
            Self::File { backing, offset } => {
                Self::File { backing: Arc::clone(backing), offset: offset.wrapping_add(by) }
            }
            Self::Client => Self::Client,
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    /// Last address, inclusive: a range may end at 2^64.
    last: u64,
    readable: bool,
    writable: bool,
    source: Source,
}

impl Entry {
    fn allows(&self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.readable,
            Direction::Write => self.writable,
        }
    }
}

/// A stretch of a range that lies in one mapping.
pub(super) enum Piece {
    /// In a file; its length in bytes.
    Local(usize),
    /// Behind messages; its length in bytes.
    Remote(usize),
}

/// The mappings of one client, by first address. They never overlap.
#[derive(Clone, Debug, Default)]
pub struct DmaTable {
    entries: BTreeMap<u64, Entry>,
    files: HashMap<FileKey, Weak<Backing>>,
}

impl DmaTable {
    /// Number of mappings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no mapping at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The mappings in ascending order: first address and size in bytes (0 for all 2^64).
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(|(first, entry)| (*first, (entry.last - first).wrapping_add(1)))
    }

    /// Adds a mapping, of a file or, without one, of memory behind messages.
    ///
    /// # Errors
    /// EEXIST if it overlaps another, ENOSPC if there are too many, EINVAL for an unusable file or an offset that wraps.
    pub fn map(&mut self, map: &DmaMap, file: Option<OwnedFd>) -> Result<(), Errno> {
        let last = map.size.checked_sub(1).and_then(|rest| map.address.checked_add(rest));
        let last = last.ok_or(Errno::INVAL)?;
        if self.overlapping(map.address, last).next().is_some() {
            return Err(Errno::EXIST);
        }
        if self.entries.len() >= MAX_DMA_MAPS {
            return Err(Errno::NOSPC);
        }
        let source = match file {
            None => Source::Client,
            Some(fd) if on_huge_pages(&fd) => Source::Client,
            Some(fd) => {
                map.offset.checked_add(map.size).ok_or(Errno::INVAL)?;
                Source::File { backing: self.backing(fd)?, offset: map.offset }
            }
        };
        let entry = Entry { last, readable: map.readable, writable: map.writable, source };
        self.entries.insert(map.address, entry);
        Ok(())
    }

    /// Takes memory back. What lies in the range goes, in as many mappings as it may be; a mapping that only overlaps keeps
    /// the rest. Nothing in the range is a success: a client with an IOMMU invalidates more than it mapped.
    ///
    /// # Errors
    /// ENOSPC if a hole would make one mapping too many out of one; nothing has changed then.
    pub fn unmap(&mut self, unmap: DmaUnmap) -> Result<(), Errno> {
        let (first, last) = match unmap {
            DmaUnmap::All => (0, u64::MAX),
            // Both were checked when the message was parsed.
            DmaUnmap::Range { address, size } => (address, address.saturating_add(size.saturating_sub(1))),
        };
        let hit: Vec<u64> = self.overlapping(first, last).collect();
        let hole =
            |start: &u64| *start < first && self.entries.get(start).is_some_and(|entry| entry.last > last);
        if self.entries.len() >= MAX_DMA_MAPS && hit.iter().any(hole) {
            return Err(Errno::NOSPC);
        }
        for start in hit {
            let Some(entry) = self.entries.remove(&start) else { continue };
            if let Some(after) = last.checked_add(1).filter(|after| *after <= entry.last) {
                let source = entry.source.advanced(after - start);
                self.entries.insert(after, Entry { source, ..entry.clone() });
            }
            if start < first {
                self.entries.insert(start, Entry { last: first - 1, ..entry });
            }
        }
        self.files.retain(|_, backing| backing.strong_count() > 0);
        Ok(())
    }

    /// Reads client memory, across mappings if they adjoin.
    ///
    /// # Errors
    /// [`DmaError::Unmapped`], [`DmaError::Permission`], [`DmaError::Remote`] before anything is read;
    /// [`DmaError::Memory`] if a file is shorter than its mapping said.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.check_local(address, data.len(), Direction::Read)?;
        let (mut at, mut rest) = (address, data);
        while !rest.is_empty() {
            let (backing, offset, length) = self.local(at, rest.len())?;
            let (now, later) = rest.split_at_mut_checked(length).ok_or(DmaError::Unmapped(at))?;
            backing.read(offset, now).map_err(DmaError::Memory)?;
            (at, rest) = (at.wrapping_add(length as u64), later);
        }
        Ok(())
    }

    /// Writes client memory, across mappings if they adjoin.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.check_local(address, data.len(), Direction::Write)?;
        let (mut at, mut rest) = (address, data);
        while !rest.is_empty() {
            let (backing, offset, length) = self.local(at, rest.len())?;
            let (now, later) = rest.split_at_checked(length).ok_or(DmaError::Unmapped(at))?;
            backing.write(offset, now).map_err(DmaError::Memory)?;
            (at, rest) = (at.wrapping_add(length as u64), later);
        }
        Ok(())
    }

    /// The first stretch of a range that lies in one mapping, in place; at most `length` bytes of it.
    ///
    /// # Errors
    /// [`DmaError::Unmapped`], [`DmaError::Permission`]; [`DmaError::Remote`] if it is not mapped into this process.
    pub(super) fn slice(
        &self,
        address: u64,
        length: usize,
        direction: Direction,
    ) -> Result<VolatileSlice<'_>, DmaError> {
        let (entry, within, here) = self.entry(address)?;
        if !entry.allows(direction) {
            return Err(DmaError::Permission(address));
        }
        match &entry.source {
            Source::File { backing, offset } => {
                backing.slice(offset.wrapping_add(within), here.min(length)).ok_or(DmaError::Remote(address))
            }
            Source::Client => Err(DmaError::Remote(address)),
        }
    }

    /// Whether all of a range is mapped and allows the direction.
    pub(super) fn check(&self, address: u64, length: usize, direction: Direction) -> Result<(), DmaError> {
        let mut done = 0;
        while done < length {
            let at = address.checked_add(done as u64).ok_or(DmaError::Unmapped(address))?;
            let (entry, _, here) = self.entry(at)?;
            if !entry.allows(direction) {
                return Err(DmaError::Permission(at));
            }
            done += here.min(length - done);
        }
        Ok(())
    }

    /// What the next stretch of a range is, at most `length` bytes of it.
    pub(super) fn piece(&self, address: u64, length: usize) -> Result<Piece, DmaError> {
        let (entry, _, here) = self.entry(address)?;
        let length = here.min(length);
        Ok(match entry.source {
            Source::File { .. } => Piece::Local(length),
            Source::Client => Piece::Remote(length),
        })
    }

    fn check_local(&self, address: u64, length: usize, direction: Direction) -> Result<(), DmaError> {
        self.check(address, length, direction)?;
        let mut done = 0;
        while done < length {
            let at = address.wrapping_add(done as u64);
            done += self.local(at, length - done)?.2;
        }
        Ok(())
    }

    fn local(&self, address: u64, length: usize) -> Result<(&Backing, u64, usize), DmaError> {
        let (entry, within, here) = self.entry(address)?;
        match &entry.source {
            Source::File { backing, offset } => Ok((backing, offset.wrapping_add(within), here.min(length))),
            Source::Client => Err(DmaError::Remote(address)),
        }
    }

    /// The mapping at an address, how far into it that is, and how many bytes it has from there.
    fn entry(&self, address: u64) -> Result<(&Entry, u64, usize), DmaError> {
        let (first, entry) = self.entries.range(..=address).next_back().ok_or(DmaError::Unmapped(address))?;
        let rest = entry.last.checked_sub(address).ok_or(DmaError::Unmapped(address))?;
        Ok((entry, address - first, usize::try_from(rest).unwrap_or(usize::MAX).saturating_add(1)))
    }

    fn overlapping(&self, first: u64, last: u64) -> impl Iterator<Item = u64> {
        let before = self.entries.range(..first).next_back().filter(move |(_, entry)| entry.last >= first);
        before.into_iter().chain(self.entries.range(first..=last)).map(|(start, _)| *start)
    }

    fn backing(&mut self, fd: OwnedFd) -> Result<Arc<Backing>, Errno> {
        let key = Backing::key(&fd)?;
        if let Some(backing) = self.files.get(&key).and_then(Weak::upgrade) {
            return Ok(backing);
        }
        if self.files.len() >= MAX_FILES {
            return Err(Errno::NOSPC);
        }
        let backing = Arc::new(Backing::new(fd));
        self.files.insert(key, Arc::downgrade(&backing));
        Ok(backing)
    }
}

#[cfg(test)]
mod tests;
