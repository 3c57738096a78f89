//! In-flight tracking: which requests were taken and not yet put back, in memory that the client keeps for the next
//! server (vhost-user, "Inflight I/O tracking", split virtqueues).

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use disk::Ledger;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::memory::map_file;

/// Bytes of `QueueRegionSplit` before its descriptor states, and of one `DescStateSplit`.
const STATE: usize = 16;
/// Offsets in `QueueRegionSplit`.
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_INDEX: usize = 14;
/// Offsets in `DescStateSplit`.
const INFLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;
/// What `version` is once a region is in use.
const THE_VERSION: u16 = 1;
/// Queues' regions begin at multiples of this, so that two threads share no cache line.
const ALIGNMENT: usize = 64;

/// The region of all queues.
#[derive(Debug, Clone)]
pub(super) struct Inflight {
    memory: Arc<MmapRegion>,
    queues: u16,
    queue_size: u16,
}

impl Inflight {
    /// A fresh region, and the file to give to the client.
    ///
    /// # Errors
    /// The host has no memory.
    pub(super) fn new(queues: u16, queue_size: u16) -> io::Result<(Self, File)> {
        let bytes = Self::bytes(queues, queue_size);
        let fd = memfd_create("vhost-user in-flight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, bytes as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = File::from(fd);
        let region = Self::from_file(file.try_clone()?, 0, queues, queue_size)?;
        Ok((region, file))
    }

    /// A region that a client kept. The file is one that can be mapped safely.
    ///
    /// # Errors
    /// It is too short, or cannot be mapped.
    pub(super) fn from_file(file: File, offset: u64, queues: u16, queue_size: u16) -> io::Result<Self> {
        let memory = map_file(file, offset, Self::bytes(queues, queue_size)).map_err(io::Error::other)?;
        Ok(Self { memory: Arc::new(memory), queues, queue_size })
    }

    /// Bytes of the region.
    pub(super) fn bytes(queues: u16, queue_size: u16) -> usize {
        usize::from(queues).saturating_mul(stride(queue_size))
    }

    /// The record of one queue, if the region has room for it.
    pub(super) fn queue(&self, index: u16, size: u16) -> Option<QueueLedger> {
        if index >= self.queues || size > self.queue_size {
            return None;
        }
        let base = usize::from(index).checked_mul(stride(self.queue_size))?;
        Some(QueueLedger { memory: Arc::clone(&self.memory), base, size, counter: 0 })
    }
}

fn stride(queue_size: u16) -> usize {
    (STATE + usize::from(queue_size) * STATE).next_multiple_of(ALIGNMENT)
}

/// The record of one queue.
#[derive(Debug)]
pub(super) struct QueueLedger {
    memory: Arc<MmapRegion>,
    base: usize,
    size: u16,
    /// Counts requests, so that the next server knows their order.
    counter: u64,
}

impl QueueLedger {
    // Offsets are within the region, whose size follows from the same numbers: these do not fail.
    fn read<T: vm_memory::AtomicAccess + Default>(&self, at: usize) -> T {
        self.memory.as_volatile_slice().load(self.base + at, Ordering::SeqCst).unwrap_or_default()
    }

    fn write<T: vm_memory::AtomicAccess>(&self, at: usize, value: T) {
        let _ = self.memory.as_volatile_slice().store(value, self.base + at, Ordering::Release);
    }

    fn state(head: u16, field: usize) -> usize {
        STATE + usize::from(head) * STATE + field
    }

    /// What was in flight when the last server ended, in the order it was taken, given the used index of the ring; and makes the
    /// record good for going on.
    pub(super) fn recover(&mut self, used: u16) -> Vec<u16> {
        if self.read::<u16>(VERSION) != THE_VERSION {
            for head in 0..self.size {
                self.write(Self::state(head, INFLIGHT), 0u8);
            }
            self.write(DESC_NUM, self.size);
            self.write(USED_INDEX, used);
            self.write(VERSION, THE_VERSION);
            return Vec::new();
        }
        // What reached the used ring is done, though nobody had the time to say so here.
        let unsaid = used.wrapping_sub(self.read(USED_INDEX)).min(self.size);
        let mut head = self.read::<u16>(LAST_BATCH_HEAD);
        for _ in 0..unsaid {
            if head >= self.size {
                break;
            }
            self.write(Self::state(head, INFLIGHT), 0u8);
            head = self.read(Self::state(head, NEXT));
        }
        self.write(USED_INDEX, used);
        let mut open: Vec<(u64, u16)> = (0..self.size)
            .filter(|head| self.read::<u8>(Self::state(*head, INFLIGHT)) == 1)
            .map(|head| (self.read(Self::state(head, COUNTER)), head))
            .collect();
        open.sort_unstable();
        self.counter = open.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        open.into_iter().map(|(_, head)| head).collect()
    }
}

impl Ledger for QueueLedger {
    fn taken(&mut self, head: u16) {
        if head < self.size {
            self.write(Self::state(head, COUNTER), self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.write(Self::state(head, INFLIGHT), 1u8);
        }
    }

    fn completing(&mut self, head: u16) {
        if head < self.size {
            // A batch of one.
            self.write(Self::state(head, NEXT), u16::MAX);
            self.write(LAST_BATCH_HEAD, head);
        }
    }

    fn completed(&mut self, head: u16, used: u16) {
        if head < self.size {
            self.write(Self::state(head, INFLIGHT), 0u8);
            self.write(USED_INDEX, used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(region: &Inflight) -> QueueLedger {
        region.queue(1, 8).unwrap()
    }

    #[test]
    fn what_was_not_put_back_is_found_in_the_order_it_was_taken() {
        let (region, _file) = Inflight::new(2, 8).unwrap();
        let mut ledger = again(&region);
        assert!(ledger.recover(100).is_empty());
        for head in [5, 2, 7, 0] {
            ledger.taken(head);
        }
        ledger.completing(2);
        ledger.completed(2, 101);
        assert_eq!(again(&region).recover(101), [5, 7, 0]);
        // Taken again after that, the order goes on.
        let mut next = again(&region);
        next.recover(101);
        next.taken(2);
        assert_eq!(again(&region).recover(101), [5, 7, 0, 2]);
        assert!(region.queue(0, 8).unwrap().recover(0).is_empty(), "the other queue has a record of its own");
    }

    #[test]
    fn what_reached_the_used_ring_is_not_done_twice() {
        let (region, _file) = Inflight::new(2, 8).unwrap();
        let mut ledger = again(&region);
        ledger.recover(0xFFFF);
        ledger.taken(3);
        ledger.taken(4);
        ledger.completing(3);
        // Killed here, with the used index moved on.
        assert_eq!(again(&region).recover(0), [4]);
        // Killed before it moved: both are open.
        let (region, _file) = Inflight::new(2, 8).unwrap();
        let mut ledger = again(&region);
        ledger.recover(0xFFFF);
        ledger.taken(3);
        ledger.taken(4);
        ledger.completing(3);
        assert_eq!(again(&region).recover(0xFFFF), [3, 4]);
    }

    #[test]
    fn a_region_full_of_anything_ends() {
        let (region, _file) = Inflight::new(2, 8).unwrap();
        let bytes = Inflight::bytes(2, 8);
        region.memory.as_volatile_slice().write_slice(&vec![1; bytes], 0).unwrap();
        let mut ledger = again(&region);
        ledger.write(VERSION, THE_VERSION);
        // Heads of 0x0101 are beyond the queue.
        assert_eq!(ledger.recover(0x4242).len(), 8);
        assert!(region.queue(2, 8).is_none() && region.queue(0, 16).is_none());
    }

    #[test]
    fn the_layout_is_that_of_the_specification() {
        let (region, file) = Inflight::new(1, 4).unwrap();
        let mut ledger = region.queue(0, 4).unwrap();
        ledger.recover(0x0102);
        ledger.taken(1);
        ledger.taken(2);
        let mut bytes = vec![0; Inflight::bytes(1, 4)];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        // features, version 1, 4 descriptors, last_batch_head, used_idx; then the states of 16 bytes each.
        assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 2, 1]);
        assert_eq!(bytes[32..48], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[48..64], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes.len(), 128);
    }
}
