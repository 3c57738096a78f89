//! DEVICE_FEATURE, and of the features DMA_BUF (`VFIO_DEVICE_FEATURE_DMA_BUF` of `<linux/vfio.h>`).

use core::mem::size_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, abi};

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

impl FeatureFlags {
    /// Reading the data of a feature.
    #[must_use]
    pub const fn get(index: u16) -> Self {
        Self { index, get: true, set: false, probe: false }
    }

    /// Asking whether that would work.
    #[must_use]
    pub const fn probe_get(index: u16) -> Self {
        Self { probe: true, ..Self::get(index) }
    }

    fn bits(self) -> u32 {
        let mut bits = u32::from(self.index);
        for (set, flag) in [
            (self.get, abi::VFIO_DEVICE_FEATURE_GET),
            (self.set, abi::VFIO_DEVICE_FEATURE_SET),
            (self.probe, abi::VFIO_DEVICE_FEATURE_PROBE),
        ] {
            if set {
                bits |= flag;
            }
        }
        bits
    }
}

/// DEVICE_FEATURE, request and reply (`struct vfio_device_feature`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature<'a> {
    /// Request: room for the reply's payload; reply: its full size. Bytes.
    pub argsz: u32,
    /// Which feature, and what of it.
    pub flags: FeatureFlags,
    /// The feature's own data; of no meaning to a probe.
    pub data: &'a [u8],
}

/// Size of `struct vfio_device_feature` without data, in bytes.
const FIXED: usize = size_of::<[U32; 2]>();

impl<'a> Feature<'a> {
    /// A request whose reply carries no more data than itself.
    #[must_use]
    pub fn new(flags: FeatureFlags, data: &'a [u8]) -> Self {
        Self { argsz: u32::try_from(FIXED + data.len()).unwrap_or(u32::MAX), flags, data }
    }

    /// Parses a payload with the checks the kernel makes before it looks at the feature (`vfio_ioctl_device_feature`).
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Argsz`], or [`DecodeError::Flags`] for unknown flags and for GET with SET outside a probe.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (fixed, data) = <[U32; 2]>::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let (argsz, flags) = (fixed[0].get(), fixed[1].get());
        if (argsz as usize) < FIXED {
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

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let fixed = [U32::new(self.argsz), U32::new(self.flags.bits())];
        [fixed.as_bytes(), self.data].concat()
    }

    /// Room for the reply's data, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        (self.argsz as usize).saturating_sub(FIXED)
    }
}

/// A slice of a region (`struct vfio_region_dma_range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DmaRange {
    /// From the start of the region, in bytes.
    pub offset: U64,
    /// In bytes.
    pub length: U64,
}
const _: () = assert!(size_of::<DmaRange>() == 16);

impl DmaRange {
    /// `length` bytes from `offset` into the region.
    #[must_use]
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset: U64::new(offset), length: U64::new(length) }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDmaBuf {
    region: U32,
    open_flags: U32,
    flags: U32,
    nr_ranges: U32,
}
const _: () = assert!(size_of::<RawDmaBuf>() == 16);

/// The data of DMA_BUF, request and reply (`struct vfio_device_feature_dma_buf`): the descriptor goes beside the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaBuf<'a> {
    /// The region's index.
    pub region: u32,
    /// As for open(2): `O_RDWR`, `O_CLOEXEC`, ...
    pub open_flags: u32,
    /// None are defined.
    pub flags: u32,
    /// What the descriptor is to cover, in this order.
    pub ranges: &'a [DmaRange],
}

impl<'a> DmaBuf<'a> {
    /// The feature's index.
    pub const INDEX: u16 = abi::VFIO_DEVICE_FEATURE_DMA_BUF as u16;

    /// Size of the data without ranges, in bytes.
    pub const FIXED: usize = size_of::<RawDmaBuf>();

    /// Parses the data. What lies behind the ranges is ignored, as the kernel does not read it; what the ranges say is not checked.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the fixed part is not whole, [`DecodeError::Count`] if ranges are missing.
    pub fn parse(data: &'a [u8]) -> Result<Self, DecodeError> {
        let (raw, tail) = RawDmaBuf::ref_from_prefix(data).map_err(|_| DecodeError::Length)?;
        let (ranges, _) = <[DmaRange]>::ref_from_prefix_with_elems(tail, raw.nr_ranges.get() as usize)
            .map_err(|_| DecodeError::Count)?;
        Ok(Self {
            region: raw.region.get(),
            open_flags: raw.open_flags.get(),
            flags: raw.flags.get(),
            ranges,
        })
    }

    /// The data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = RawDmaBuf {
            region: U32::new(self.region),
            open_flags: U32::new(self.open_flags),
            flags: U32::new(self.flags),
            nr_ranges: U32::new(u32::try_from(self.ranges.len()).unwrap_or(u32::MAX)),
        };
        [raw.as_bytes(), self.ranges.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests;
