//! vfio-user messages in both directions, after QEMU's `docs/interop/vfio-user.rst`.
//!
//! Every message is a [`Header`] and a payload. A server parses payloads with [`Request::parse`]; a client encodes
//! requests and parses replies with the types of the submodules. Integers are little-endian: the protocol says host order,
//! and no big-endian host is supported.

mod device;
mod dma;
mod feature;
mod header;
mod irqs;
mod region;
mod request;
#[cfg(test)]
mod tests;
mod version;

pub use device::{DeviceInfo, IrqInfo};
pub use dma::{DmaAccess, DmaAccessReply, DmaMap, DmaUnmap};
pub use feature::{DmaBuf, DmaRange, Feature, FeatureFlags};
pub use header::{Command, HEADER_SIZE, Header, MessageType, put_error, put_reply, put_request};
pub use irqs::{IrqAction, IrqData, IrqKind, IrqSet};
pub use region::{
    MmapArea, RegionAccess, RegionInfo, RegionInfoReply, RegionIoFds, RegionType, WINDOW_REGION, WriteMulti,
    WriteMultiEntry,
};
pub use request::{DecodeError, Request};
pub use version::{Capabilities, Version};

/// Kernel ABI constants (`<linux/vfio.h>`) that payloads carry.
pub use vfio_bindings::bindings::vfio as abi;

/// The protocol version spoken here; QEMU 11.1 proposes 0.0 and refuses any other minor.
pub const MAJOR: u16 = 0;
/// See [`MAJOR`].
pub const MINOR: u16 = 0;

/// Most data bytes of one read or write, the protocol's default for `max_data_xfer_size`.
pub const MAX_DATA_XFER_SIZE: u32 = 1 << 20;

/// Largest message accepted, in bytes: a [`RegionAccess`] with [`MAX_DATA_XFER_SIZE`] of data behind it.
pub const MAX_MESSAGE_SIZE: u32 = 16 + 16 + MAX_DATA_XFER_SIZE;

/// Most descriptors with one message; QEMU refuses servers that claim to take more.
pub const MAX_MSG_FDS: usize = 16;

/// Most DMA mappings at once, the protocol's default for `max_dma_maps`.
pub const MAX_DMA_MAPS: usize = 65_535;
