//! The vfio-user server: one socket, one client, one function of the device.
//!
//! [`Server`] owns the sockets. It moves bytes and descriptors between a client and a [`Connection`], which is the whole
//! protocol without any I/O: messages in, calls on a [`Device`], replies out. Guest memory is a [`DmaTable`], interrupts
//! are [`Irqs`]; both belong to the client and go with it.

mod backing;
mod connection;
mod device;
mod dma;
mod engine;
mod handler;
mod input;
mod irqs;
mod output;
mod server;
mod socket;

pub use connection::{Connection, Progress};
pub use device::{Device, Errno, Mmap, Region};
pub use dma::{DmaError, DmaTable};
pub use engine::{DmaCompletion, DmaId};
pub use input::Fds;
pub use irqs::Irqs;
pub use output::Chunk;
pub use server::{BindError, Server};
pub use tdispd_proto::vfio_user::{IrqKind, MmapArea};
