//! DEVICE_GET_INFO, DEVICE_GET_IRQ_INFO and DEVICE_FEATURE.

use core::mem::size_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, abi};

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

/// What a DEVICE_FEATURE request wants of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureFlags {
    /// The feature's index (`VFIO_DEVICE_FEATURE_*`).
    pub index: u16,
    /// Read its data.
    pub get: bool,
    /// Write its data.
    pub set: bool,
    /// Only ask whether the above would work.
    pub probe: bool,
}

/// DEVICE_FEATURE (`struct vfio_device_feature`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRequest<'a> {
    /// Room for the reply's payload, in bytes.
    pub argsz: u32,
    /// Which feature, and what of it.
    pub flags: FeatureFlags,
    /// The feature's own data.
    pub data: &'a [u8],
}

impl<'a> FeatureRequest<'a> {
    /// Parses a payload with the checks the kernel makes before it looks at the feature.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Argsz`], or [`DecodeError::Flags`] for unknown flags and for GET with SET outside a probe.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (fixed, data) = <[U32; 2]>::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let (argsz, flags) = (fixed[0].get(), fixed[1].get());
        if argsz < 8 {
            return Err(DecodeError::Argsz);
        }
        let known = abi::VFIO_DEVICE_FEATURE_MASK
            | abi::VFIO_DEVICE_FEATURE_GET
            | abi::VFIO_DEVICE_FEATURE_SET
            | abi::VFIO_DEVICE_FEATURE_PROBE;
        let get = flags & abi::VFIO_DEVICE_FEATURE_GET != 0;
        let set = flags & abi::VFIO_DEVICE_FEATURE_SET != 0;
        let probe = flags & abi::VFIO_DEVICE_FEATURE_PROBE != 0;
        if flags & !known != 0 || (get && set && !probe) {
            return Err(DecodeError::Flags);
        }
        let bytes = flags.to_le_bytes();
        let index = u16::from_le_bytes([bytes[0], bytes[1]]);
        Ok(Self { argsz, flags: FeatureFlags { index, get, set, probe }, data })
    }
}
