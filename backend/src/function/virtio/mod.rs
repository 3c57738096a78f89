//! virtio over PCI (virtio 1.2 §4.1), and the block device behind it.
//!
//! `Transport` is the registers and what a driver may do to them: it has no memory, no queues that run and no disk, and says in
//! `Event`s what its owner has to do. [`Block`] is the function: it owns the transport, the rings and the disk, and is the
//! only part that touches guest memory, when the device lets it.

mod block;
mod interrupts;
mod place;
mod policy;
mod queue;
mod ring;
mod status;
mod transport;

pub use block::{Block, BlockDisks};
pub use place::Structures;
pub use policy::{Locked, Policy, Unlocked};

use place::Part;
use transport::{Event, Transport};

/// Queues a function can have at most: what their notify addresses leave room for in a page (virtio 1.2 §4.1.4.4).
pub const MAX_QUEUES: u16 = 256;

/// Descriptors of a queue at most (virtio 1.2 §2.7 allows 32768; QEMU's own devices, 1024).
pub const MAX_QUEUE_SIZE: u16 = 1024;
