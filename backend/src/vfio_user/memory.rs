//! Client memory as queues are walked in it: in place, without a copy, wherever it is mapped here.

use core::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use super::dma::{Direction, DmaError, DmaTable};

/// The memory of a client as its mappings are now, by bus address. It stays as it is for as long as somebody has it: whoever does
/// must be done before a mapping's end is acknowledged.
///
/// What is only reachable by messages, or in a file that could be cut under a mapping, is not here: an access fails.
#[derive(Debug)]
pub struct ClientMemory {
    table: Arc<DmaTable>,
    failed: AtomicBool,
}

impl ClientMemory {
    /// The memory behind these mappings.
    #[must_use]
    pub fn new(table: Arc<DmaTable>) -> Self {
        Self { table, failed: AtomicBool::new(false) }
    }

    /// Whether an access failed since this was made: nothing there, not that way, or not mapped here.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn fail(&self, address: u64, error: DmaError) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        log::debug!("client memory: {error}");
        Error::InvalidGuestAddress(GuestAddress(address))
    }
}

impl GuestMemory for ClientMemory {
    /// There is none below: bus addresses are all that is known.
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        Slices { memory: self, address: address.0, left: count, access }.all(|slice| slice.is_ok())
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>> {
        Ok(Slices { memory: self, address: address.0, left: count, access })
    }
}

/// The stretches of a range, one for each mapping that it lies in; an error is the last.
struct Slices<'a> {
    memory: &'a ClientMemory,
    address: u64,
    /// Bytes.
    left: usize,
    access: Permissions,
}

impl<'a> Slices<'a> {
    fn step(&mut self) -> core::result::Result<VolatileSlice<'a, ()>, DmaError> {
        let (address, table) = (self.address, &self.memory.table);
        let mut slice = None;
        for (wanted, direction) in
            [(Permissions::Read, Direction::Read), (Permissions::Write, Direction::Write)]
        {
            if self.access.allow(wanted) {
                slice = Some(table.slice(address, self.left, direction)?);
            }
        }
        let slice = slice.ok_or(DmaError::Permission(address))?;
        self.left = self.left.saturating_sub(slice.len());
        // Behind the last address there is none.
        self.address = match address.checked_add(slice.len() as u64) {
            Some(next) => next,
            None if self.left == 0 => 0,
            None => return Err(DmaError::Unmapped(address)),
        };
        Ok(slice)
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a, ()>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let address = self.address;
        Some(self.step().map_err(|error| {
            self.left = 0;
            self.memory.fail(address, error)
        }))
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    use tdispd_proto::vfio_user::{DmaMap, DmaUnmap};
    use vm_memory::Bytes;

    use super::*;

    fn memfd(bytes: u64, sealed: bool) -> File {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, bytes).unwrap();
        if sealed {
            fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        }
        fd.into()
    }

    fn map(table: &mut DmaTable, address: u64, offset: u64, size: u64, file: Option<&File>, writable: bool) {
        let map = DmaMap { readable: true, writable, offset, address, size };
        table.map(&map, file.map(|file| file.try_clone().unwrap().into())).unwrap();
    }

    /// Pages in reverse order, as an IOMMU may have them, and what is not usable in place behind them.
    fn memory() -> (File, ClientMemory) {
        let file = memfd(0x4000, true);
        let mut table = DmaTable::default();
        for page in 0..4 {
            map(&mut table, page * 0x1000, (3 - page) * 0x1000, 0x1000, Some(&file), page != 3);
        }
        map(&mut table, 0x4000, 0, 0x1000, None, true);
        map(&mut table, 0x8000, 0, 0x1000, Some(&memfd(0x1000, false)), true);
        map(&mut table, 0xFFFF_FFFF_FFFF_F000, 0, 0x1000, Some(&file), true);
        (file, ClientMemory::new(Arc::new(table)))
    }

    #[test]
    fn a_range_goes_over_mappings_wherever_they_lie_in_the_file() {
        let (file, memory) = memory();
        memory.write_slice(&[7; 0x1800], GuestAddress(0x0C00)).unwrap();
        let mut seen = [0; 0x4000];
        file.read_exact_at(&mut seen, 0).unwrap();
        let written: Vec<_> = (0..0x4000).filter(|at| seen[*at] == 7).collect();
        let expected: Vec<_> = (0x1000..0x1400).chain(0x2000..0x3000).chain(0x3C00..0x4000).collect();
        assert_eq!(written, expected);
        let mut back = [0; 0x1800];
        memory.read_slice(&mut back, GuestAddress(0x0C00)).unwrap();
        assert_eq!(back, [7; 0x1800]);
        assert!(!memory.failed());
    }

    #[test]
    fn what_is_not_there_or_not_that_way_fails_and_is_noticed() {
        for (address, length, write) in [
            (0x3FFF_u64, 2, false), // into what is behind messages
            (0x4000, 1, true),
            (0x5000, 1, false), // nothing
            (0x8000, 1, false), // a file that can be cut
            (0x3000, 1, true),  // read-only
            (0x2FFF, 2, true),
            (u64::MAX, 2, false), // around the end
        ] {
            let (_file, memory) = memory();
            let at = GuestAddress(address);
            let result = if write {
                memory.write_slice(&[1; 2][..length], at)
            } else {
                memory.read_slice(&mut [0; 2][..length], at)
            };
            assert!(result.is_err() && memory.failed(), "{address:#x}");
        }
        let (_file, memory) = memory();
        assert!(memory.check_range(GuestAddress(0x3000), 0x1000, Permissions::Read));
        assert!(!memory.check_range(GuestAddress(0x3000), 0x1000, Permissions::ReadWrite));
        assert!(memory.check_range(GuestAddress(u64::MAX - 0xFFF), 0x1000, Permissions::ReadWrite));
        assert!(!memory.check_range(GuestAddress(0x3000), 0x1001, Permissions::Read));
    }

    #[test]
    fn who_has_the_memory_keeps_it_when_a_mapping_ends() {
        let file = memfd(0x1000, true);
        let mut table = Arc::new(DmaTable::default());
        map(Arc::make_mut(&mut table), 0, 0, 0x1000, Some(&file), true);
        let before = ClientMemory::new(Arc::clone(&table));
        Arc::make_mut(&mut table).unmap(DmaUnmap::All).unwrap();
        let after = ClientMemory::new(table);
        before.write_obj(7_u32, GuestAddress(0)).unwrap();
        assert!(after.write_obj(7_u32, GuestAddress(0)).is_err());
    }
}
