//! What the registers say of one queue (virtio 1.2 §4.1.4.3).

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::interrupts::NO_VECTOR;

/// The registers of one queue. Addresses are bus addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    /// Descriptors.
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Descriptor table.
    pub(super) descriptors: u64,
    /// Available ring.
    pub(super) driver: u64,
    /// Used ring.
    pub(super) device: u64,
}

impl QueueRegisters {
    /// As after a reset: the largest size, no vector, nothing set up.
    pub(super) const fn new(max_size: u16) -> Self {
        Self { size: max_size, vector: NO_VECTOR, enabled: false, descriptors: 0, driver: 0, device: 0 }
    }

    /// The queue that these registers describe, at its beginning. `None`: they are not aligned as virtio 1.2 §2.7 asks for.
    pub(super) fn build(&self, max_size: u16, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(max_size).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver)).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.device)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Some(queue)
    }
}
