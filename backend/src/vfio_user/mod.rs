//! The vfio-user server: one socket, one client, one function of the device.
//!
//! [`Listener`] is where clients connect, [`Server`] has the one that is served. It moves bytes and descriptors between a client and a [`Connection`], which is the whole
//! protocol without any I/O: messages in, calls on a [`Device`], replies out. Guest memory is a [`DmaTable`], interrupts
//! are [`Irqs`]; both belong to the client and go with it.

mod backing;
mod connection;
mod device;
mod dma;
mod engine;
mod feature;
mod handler;
mod input;
mod irqs;
mod listener;
mod memory;
mod output;
mod peer;
mod server;
mod socket;
mod watch;

pub(crate) use backing::on_huge_pages;
pub use connection::{Connection, Progress};
pub use device::{Device, Errno, FileAccess, Mmap, Region};
pub use dma::{DmaError, DmaTable};
pub use engine::{DmaCompletion, DmaId};
pub use input::Fds;
pub use irqs::Irqs;
pub use listener::{BindError, Listener};
pub use memory::ClientMemory;
pub use output::Chunk;
pub use server::Server;
pub(crate) use socket::transmit;
pub use tdispd_proto::vfio_user::{IrqKind, MmapArea, RegionType, WINDOW_REGION};
pub use watch::{Source, Token, Watcher};
