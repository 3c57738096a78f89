//! A virtio block device (virtio 1.2 §5.2) without a transport: what a disk is, what its configuration space says, and how
//! the requests of a queue are carried out on a file or on memory.
//!
//! A transport (virtio-pci, vhost-user) owns the queues' registers, memory, threads and interrupts. It gives each queue
//! a [`Runner`] and calls [`Runner::run`] when it was notified. The crate has no sockets, no threads and no clock.
//!
//! Everything in guest memory is hostile: a request that makes no sense gets IOERR or UNSUPP, a ring that makes no
//! sense is reported as [`RingError`], and neither costs more than its own time.

mod backing;
mod config;
mod disk;
mod gate;
mod iovec;
mod ledger;
mod request;
mod runner;
mod uring;

pub use backing::{Alignment, Backing, BackingOptions, OpenError};
pub use config::{CONFIG_SIZE, Config, Geometry, GeometryError};
pub use disk::Disk;
pub use gate::{Gate, GateState, Pass};
pub use ledger::Ledger;
pub use request::{Scratch, process};
pub use runner::{Progress, RingError, Runner};

/// Bytes in the sector that virtio-blk counts in, whatever the block size (virtio 1.2 §5.2.4, `capacity`).
pub const SECTOR: u64 = 512;

/// Most data segments of a request, beside header and status (virtio 1.2 §5.2.4, `seg_max`).
pub const SEG_MAX: u32 = 126;

/// Most bytes in one segment (virtio 1.2 §5.2.4, `size_max`): what bounds the time and memory that one request costs.
pub const SIZE_MAX: u32 = 1 << 20;
