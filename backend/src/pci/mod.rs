//! Configuration space of one function: typed registers, the image with its write masks, BAR registers.
//!
//! Sans-IO: bytes in, bytes and [`WriteEffect`]s out. The DOE and IDE capabilities are only *placed* here; their
//! registers live with the mailbox and with the IDE streams, and the device routes accesses by [`Window`].

mod bars;
mod capabilities;
pub mod registers;
mod space;
mod virtio;

pub use bars::BarDecoder;
pub use capabilities::{Identity, Msix, Plan};
pub use space::{ConfigSpace, SPACE_BYTES, Window, WriteEffect};
pub use virtio::{ConfigAccess, VirtioLocation, VirtioStructures};
