//! What was taken from a ring and not yet put back, for whoever has to know it after this process is gone.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

/// Hears of each request of a queue before and after it is used, as vhost-user's in-flight tracking wants it.
pub trait Ledger: Send {
    /// The chain at this descriptor was taken from the ring.
    fn taken(&mut self, head: u16);
    /// It is about to be put into the used ring.
    fn completing(&mut self, head: u16);
    /// It is there; the used index is this now.
    fn completed(&mut self, head: u16, used: u16);
}

/// The descriptors of a chain that is in no available ring any more: one that was in flight when a process before this one
/// ended. As virtio-queue's own iterator, it just ends where the chain makes no sense.
pub(crate) struct Resumed<'a, M> {
    memory: &'a M,
    table: GuestAddress,
    size: u16,
    next: Option<u16>,
    /// Descriptors that may still come: a chain that goes in circles ends, too.
    left: u16,
    indirect: bool,
}

impl<'a, M: GuestMemory> Resumed<'a, M> {
    pub(crate) fn new(queue: &Queue, memory: &'a M, head: u16) -> Self {
        Self {
            memory,
            table: GuestAddress(queue.desc_table()),
            size: queue.size(),
            next: Some(head),
            left: queue.size(),
            indirect: false,
        }
    }
}

impl<M: GuestMemory> Iterator for Resumed<'_, M> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        const BYTES: u64 = size_of::<Descriptor>() as u64;
        loop {
            let index = self.next.take().filter(|index| *index < self.size)?;
            self.left = self.left.checked_sub(1)?;
            let at = self.table.checked_add(u64::from(index) * BYTES)?;
            let descriptor: Descriptor = self.memory.read_obj(at).ok()?;
            if !descriptor.refers_to_indirect_table() {
                self.next = descriptor.has_next().then(|| descriptor.next());
                return Some(descriptor);
            }
            let length = u64::from(descriptor.len());
            if self.indirect || !length.is_multiple_of(BYTES) {
                return None;
            }
            let size = u16::try_from(length.checked_div(BYTES)?).ok()?;
            (self.table, self.size, self.left) = (descriptor.addr(), size, size);
            (self.next, self.indirect) = (Some(0), true);
        }
    }
}
