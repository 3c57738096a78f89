//! DMA_MAP, DMA_UNMAP, and the server's own DMA_READ and DMA_WRITE.

use core::mem::size_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, MAX_DATA_XFER_SIZE, abi};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMap {
    argsz: U32,
    flags: U32,
    offset: U64,
    address: U64,
    size: U64,
}
const _: () = assert!(size_of::<RawMap>() == 32);

/// DMA_MAP's request: memory the server may use from now on. The reply is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    /// The server may read it.
    pub readable: bool,
    /// The server may write it.
    pub writable: bool,
    /// Where it begins in the file that comes along; meaningless without one.
    pub offset: u64,
    /// First DMA address.
    pub address: u64,
    /// In bytes; never zero, and `address + size` is at most 2^64.
    pub size: u64,
}

impl DmaMap {
    /// Parses a payload.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Argsz`], [`DecodeError::Flags`] for unknown flags or no permission at all,
    /// [`DecodeError::Range`] for an empty range or one that wraps.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let raw = RawMap::ref_from_bytes(payload).map_err(|_| DecodeError::Length)?;
        if (raw.argsz.get() as usize) < size_of::<RawMap>() {
            return Err(DecodeError::Argsz);
        }
        let flags = raw.flags.get();
        let (read, write) = (abi::VFIO_DMA_MAP_FLAG_READ, abi::VFIO_DMA_MAP_FLAG_WRITE);
        if flags & !(read | write) != 0 || flags == 0 {
            return Err(DecodeError::Flags);
        }
        let map = Self {
            readable: flags & read != 0,
            writable: flags & write != 0,
            offset: raw.offset.get(),
            address: raw.address.get(),
            size: raw.size.get(),
        };
        check_range(map.address, map.size)?;
        Ok(map)
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.readable { abi::VFIO_DMA_MAP_FLAG_READ } else { 0 }
            | if self.writable { abi::VFIO_DMA_MAP_FLAG_WRITE } else { 0 };
        let raw = RawMap {
            argsz: U32::new(size_of::<RawMap>() as u32),
            flags: U32::new(flags),
            offset: U64::new(self.offset),
            address: U64::new(self.address),
            size: U64::new(self.size),
        };
        raw.as_bytes().to_vec()
    }
}

/// A range is legal if it is not empty and its last byte has an address.
fn check_range(address: u64, size: u64) -> Result<(), DecodeError> {
    size.checked_sub(1).and_then(|rest| address.checked_add(rest)).map(|_| ()).ok_or(DecodeError::Range)
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawUnmap {
    argsz: U32,
    flags: U32,
    address: U64,
    size: U64,
}
const _: () = assert!(size_of::<RawUnmap>() == 24);

/// DMA_UNMAP's request. The reply repeats its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaUnmap {
    /// Everything.
    All,
    /// What lies in a range; `address + size` is at most 2^64.
    Range {
        /// First DMA address.
        address: u64,
        /// In bytes, never zero.
        size: u64,
    },
}

impl DmaUnmap {
    /// Parses a payload.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Argsz`] for room that is too small or larger than any message,
    /// [`DecodeError::Flags`] for flags other than ALL, [`DecodeError::Range`] for an empty or wrapping range and for ALL with a range.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let raw = RawUnmap::ref_from_bytes(payload).map_err(|_| DecodeError::Length)?;
        if !(size_of::<RawUnmap>() as u32..=MAX_DATA_XFER_SIZE).contains(&raw.argsz.get()) {
            return Err(DecodeError::Argsz);
        }
        let (address, size) = (raw.address.get(), raw.size.get());
        match raw.flags.get() {
            0 => check_range(address, size).map(|()| Self::Range { address, size }),
            abi::VFIO_DMA_UNMAP_FLAG_ALL if address == 0 && size == 0 => Ok(Self::All),
            abi::VFIO_DMA_UNMAP_FLAG_ALL => Err(DecodeError::Range),
            // Dirty bitmaps among them: nobody has asked for dirty pages to be tracked.
            _ => Err(DecodeError::Flags),
        }
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (flags, address, size) = match *self {
            Self::All => (abi::VFIO_DMA_UNMAP_FLAG_ALL, 0, 0),
            Self::Range { address, size } => (0, address, size),
        };
        let raw = RawUnmap {
            argsz: U32::new(size_of::<RawUnmap>() as u32),
            flags: U32::new(flags),
            address: U64::new(address),
            size: U64::new(size),
        };
        raw.as_bytes().to_vec()
    }
}

/// The fixed part of DMA_READ and DMA_WRITE. Data follows a write's request and a read's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DmaAccess {
    /// First DMA address.
    pub address: U64,
    /// Bytes of data.
    pub count: U64,
}
const _: () = assert!(size_of::<DmaAccess>() == 16);

impl DmaAccess {
    /// An access of `count` bytes.
    #[must_use]
    pub const fn new(address: u64, count: u64) -> Self {
        Self { address: U64::new(address), count: U64::new(count) }
    }

    /// A read's request as the client receives it.
    ///
    /// # Errors
    /// [`DecodeError::Length`] unless the payload is exactly the structure.
    pub fn parse_read(payload: &[u8]) -> Result<Self, DecodeError> {
        Self::read_from_bytes(payload).map_err(|_| DecodeError::Length)
    }

    /// A write's request as the client receives it.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the payload is too short, [`DecodeError::Count`] if `count` and the data disagree.
    pub fn parse_write(payload: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (access, data) = Self::read_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        if usize::try_from(access.count.get()) != Ok(data.len()) {
            return Err(DecodeError::Count);
        }
        Ok((access, data))
    }
}

/// A client's reply to DMA_READ or DMA_WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaAccessReply<'a> {
    /// Repeats the request.
    pub address: u64,
    /// Bytes transferred.
    pub count: u64,
    /// What was read; empty for a write.
    pub data: &'a [u8],
}

impl<'a> DmaAccessReply<'a> {
    /// The reply to a read.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the payload is too short, [`DecodeError::Count`] if `count` and the data disagree.
    pub fn parse_read(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (access, data) = DmaAccess::parse_write(payload)?;
        Ok(Self { address: access.address.get(), count: access.count.get(), data })
    }

    /// The reply to a write. The protocol's text gives `count` 4 bytes here, its implementations 8: both are read.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the payload has neither form.
    pub fn parse_write(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (address, count) = U64::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let count = match *count {
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => return Err(DecodeError::Length),
        };
        Ok(Self { address: address.get(), count, data: &[] })
    }
}
