//! DEVICE_GET_INFO and DEVICE_GET_IRQ_INFO.

use core::mem::size_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DecodeError;

/// DEVICE_GET_INFO, request and reply (`struct vfio_device_info`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DeviceInfo {
    /// Request: room for the reply's payload; reply: its full size. Bytes.
    pub argsz: U32,
    /// `VFIO_DEVICE_FLAGS_*`.
    pub flags: U32,
    /// Number of regions.
    pub num_regions: U32,
    /// Number of interrupt types.
    pub num_irqs: U32,
}
const _: () = assert!(size_of::<DeviceInfo>() == 16);

/// DEVICE_GET_IRQ_INFO, request and reply (`struct vfio_irq_info`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IrqInfo {
    /// Request: room for the reply's payload; reply: its full size. Bytes.
    pub argsz: U32,
    /// `VFIO_IRQ_INFO_*`.
    pub flags: U32,
    /// The interrupt type asked for (`VFIO_PCI_*_IRQ_INDEX`).
    pub index: U32,
    /// Number of interrupts of that type.
    pub count: U32,
}
const _: () = assert!(size_of::<IrqInfo>() == 16);

macro_rules! info {
    ($name:ident) => {
        impl $name {
            /// A request with room for the reply.
            ///
            /// # Errors
            /// [`DecodeError::Length`] if the payload is shorter than the structure, [`DecodeError::Argsz`] if the reply would not fit.
            pub fn parse_request(payload: &[u8]) -> Result<Self, DecodeError> {
                let info = Self::parse_reply(payload)?;
                if (info.argsz.get() as usize) < size_of::<Self>() {
                    return Err(DecodeError::Argsz);
                }
                Ok(info)
            }

            /// A reply.
            ///
            /// # Errors
            /// [`DecodeError::Length`] if the payload is shorter than the structure.
            pub fn parse_reply(payload: &[u8]) -> Result<Self, DecodeError> {
                Self::read_from_prefix(payload).map(|(info, _)| info).map_err(|_| DecodeError::Length)
            }
        }
    };
}
info!(DeviceInfo);
info!(IrqInfo);
