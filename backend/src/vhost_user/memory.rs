//! A client's memory: mapped regions, and where its own addresses lie in them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};
use thiserror::Error;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::config::ClientMemory;
use crate::vfio_user::on_huge_pages;

/// Most regions of one client: QEMU's own limit for vhost-user is 509 (`VHOST_USER_MAX_RAM_SLOTS`).
pub(super) const MAX_REGIONS: usize = 512;

/// Why a region cannot be used.
#[derive(Debug, Error)]
pub(super) enum MemoryError {
    /// Its pages can be taken away.
    #[error(
        "the file can be truncated under its mapping, which would end this process: let the client use sealed memory \
         (QEMU: memory-backend-memfd,share=on), or say disk.client_memory = \"any\""
    )]
    NotSealed,
    /// Huge pages.
    #[error(
        "a mapping of huge pages can fail for want of a page, which would end this process: use other memory, or say \
         disk.client_memory = \"any\""
    )]
    Huge,
    /// Not a regular file.
    #[error("it is not a file")]
    NotAFile,
    /// It cannot be mapped.
    #[error("it cannot be mapped: {0}")]
    Map(String),
    /// Regions overlap.
    #[error("regions overlap")]
    Overlap,
    /// One too many.
    #[error("there can be {MAX_REGIONS} regions")]
    TooMany,
    /// It is not there.
    #[error("there is no such region")]
    Missing,
    /// Its state cannot be read.
    #[error("its state cannot be read: {0}")]
    State(#[from] io::Error),
}

/// One region as its client describes it.
#[derive(Debug, Clone)]
struct Region {
    /// In the client's address space, which ring addresses are in.
    user: u64,
    /// In the guest's, which descriptors are in.
    guest: u64,
    size: u64,
    mapping: Arc<GuestRegionMmap>,
}

/// All regions of a client.
#[derive(Debug, Default, Clone)]
pub(super) struct Regions {
    regions: Vec<Region>,
    map: Arc<GuestMemoryMmap>,
}

impl Regions {
    /// Guest memory as descriptors address it.
    pub(super) fn map(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.map)
    }

    /// Whether there is none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Where an address of the client's own lies in guest memory.
    pub(super) fn translate(&self, user: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.user).filter(|offset| *offset < region.size)?;
            region.guest.checked_add(offset)
        })
    }

    /// All regions at once.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn new(
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        policy: ClientMemory,
    ) -> Result<Self, MemoryError> {
        let regions = regions
            .iter()
            .zip(files)
            .map(|(region, file)| map_region(region, file, policy))
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(regions)
    }

    /// These regions and one more.
    ///
    /// # Errors
    /// It cannot be used, or overlaps another.
    pub(super) fn with(
        &self,
        region: &VhostUserMemoryRegion,
        file: File,
        policy: ClientMemory,
    ) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        regions.push(map_region(region, file, policy)?);
        Self::of(regions)
    }

    /// These regions without one.
    ///
    /// # Errors
    /// There is no region like that.
    pub(super) fn without(&self, gone: &VhostUserMemoryRegion) -> Result<Self, MemoryError> {
        let (guest, user, size) = (gone.guest_phys_addr, gone.user_addr, gone.memory_size);
        let mut regions = self.regions.clone();
        let at = regions
            .iter()
            .position(|region| region.guest == guest && region.user == user && region.size == size)
            .ok_or(MemoryError::Missing)?;
        regions.remove(at);
        Self::of(regions)
    }

    fn of(mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        regions.sort_by_key(|region| region.guest);
        let mappings = regions.iter().map(|region| Arc::clone(&region.mapping)).collect();
        let map = if regions.is_empty() {
            GuestMemoryMmap::default()
        } else {
            GuestMemoryMmap::from_arc_regions(mappings).map_err(|_| MemoryError::Overlap)?
        };
        Ok(Self { regions, map: Arc::new(map) })
    }
}

fn map_region(
    region: &VhostUserMemoryRegion,
    file: File,
    policy: ClientMemory,
) -> Result<Region, MemoryError> {
    let file = safe(file, policy)?;
    let (guest, user, size) = (region.guest_phys_addr, region.user_addr, region.memory_size);
    let length = usize::try_from(size).map_err(|_| MemoryError::Map("too large".into()))?;
    let mapping = map_file(file, region.mmap_offset, length)?;
    let mapping = GuestRegionMmap::new(mapping, GuestAddress(guest))
        .ok_or_else(|| MemoryError::Map("it ends beyond the last address".into()))?;
    Ok(Region { user, guest, size, mapping: Arc::new(mapping) })
}

/// Maps a part of a file that is there: a page beyond its end would be there in the mapping, too, and end whoever touches it.
pub(super) fn map_file(file: File, offset: u64, length: usize) -> Result<MmapRegion, MemoryError> {
    let end = offset.checked_add(length as u64);
    if end.is_none_or(|end| file.metadata().map_or(true, |file| file.len() < end)) {
        return Err(MemoryError::Map("it is longer than its file".into()));
    }
    MmapRegion::from_file(FileOffset::new(file, offset), length)
        .map_err(|error| MemoryError::Map(error.to_string()))
}

/// A file whose pages stay, unless the configuration trusts the client with that.
pub(super) fn safe(file: File, policy: ClientMemory) -> Result<File, MemoryError> {
    let stat = fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(MemoryError::NotAFile);
    }
    match policy {
        ClientMemory::Any => Ok(file),
        ClientMemory::Sealed => {
            let sealed =
                |file: &File| fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
            // A memfd that allows seals gets the one that matters to us.
            if !sealed(&file) && fcntl_add_seals(&file, SealFlags::SHRINK).is_err() {
                return Err(MemoryError::NotSealed);
            }
            let fd = OwnedFd::from(file);
            if on_huge_pages(&fd) { Err(MemoryError::Huge) } else { Ok(fd.into()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use vm_memory::{Bytes, GuestMemoryBackend};

    fn memfd(flags: MemfdFlags, bytes: u64) -> File {
        let fd = memfd_create("test", flags | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, bytes).unwrap();
        fd.into()
    }

    fn region(guest: u64, size: u64, user: u64, offset: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, size, user, offset)
    }

    #[test]
    fn addresses_are_translated_within_their_region_only() {
        let files = vec![memfd(MemfdFlags::ALLOW_SEALING, 0x3000), memfd(MemfdFlags::ALLOW_SEALING, 0x1000)];
        let table = [region(0x10_0000, 0x2000, 0x7000_0000, 0x1000), region(0, 0x1000, 0x6000_0000, 0)];
        let regions = Regions::new(&table, files, ClientMemory::Sealed).unwrap();
        assert_eq!(regions.translate(0x7000_0000), Some(0x10_0000));
        assert_eq!(regions.translate(0x7000_1FFF), Some(0x10_1FFF));
        assert_eq!(regions.translate(0x7000_2000), None);
        assert_eq!(regions.translate(0x5FFF_FFFF), None);
        assert_eq!(regions.map().num_regions(), 2);
        regions.map().write_obj(7u32, GuestAddress(0x10_1FFC)).unwrap();
        assert!(regions.map().write_obj(7u32, GuestAddress(0x10_1FFD)).is_err());
    }

    #[test]
    fn what_overlaps_or_is_too_short_is_refused_and_nothing_changes() {
        let empty = Regions::default();
        let sealed = || memfd(MemfdFlags::ALLOW_SEALING, 0x2000);
        let one = empty.with(&region(0, 0x2000, 0, 0), sealed(), ClientMemory::Sealed).unwrap();
        let again = one.with(&region(0x1000, 0x1000, 0x9000, 0), sealed(), ClientMemory::Sealed);
        assert!(matches!(again, Err(MemoryError::Overlap)));
        let long = one.with(&region(0x8000, 0x3000, 0x9000, 0), sealed(), ClientMemory::Sealed);
        assert!(matches!(long, Err(MemoryError::Map(_))));
        let crooked = one.with(&region(0x8000, 0x1000, 0x9000, 1), sealed(), ClientMemory::Sealed);
        assert!(matches!(crooked, Err(MemoryError::Map(_))));
        let top = one.with(&region(u64::MAX - 0xFFF, 0x1000, 0, 0), sealed(), ClientMemory::Sealed);
        assert!(matches!(top, Err(MemoryError::Map(_)) | Ok(_)));
        assert!(matches!(one.without(&region(0, 0x1000, 0, 0)), Err(MemoryError::Missing)));
        assert!(one.without(&region(0, 0x2000, 0, 0)).unwrap().is_empty());
    }

    #[test]
    fn memory_that_can_be_truncated_needs_trust() {
        let plain = || memfd(MemfdFlags::empty(), 0x1000);
        let refused = Regions::default().with(&region(0, 0x1000, 0, 0), plain(), ClientMemory::Sealed);
        assert!(matches!(refused, Err(MemoryError::NotSealed)));
        assert!(Regions::default().with(&region(0, 0x1000, 0, 0), plain(), ClientMemory::Any).is_ok());
        let sealed = memfd(MemfdFlags::ALLOW_SEALING, 0x1000);
        let kept = sealed.try_clone().unwrap();
        Regions::default().with(&region(0, 0x1000, 0, 0), sealed, ClientMemory::Sealed).unwrap();
        assert!(ftruncate(&kept, 0).is_err(), "the client cannot take it away any more");
        let directory = File::open("/").unwrap();
        let refused = Regions::default().with(&region(0, 0x1000, 0, 0), directory, ClientMemory::Any);
        assert!(matches!(refused, Err(MemoryError::NotAFile)));
    }
}
