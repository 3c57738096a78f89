//! DEVICE_GET_REGION_INFO with its sparse-mmap and type capabilities, REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.

use core::mem::size_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, MAX_DATA_XFER_SIZE, abi};

/// The fixed part of DEVICE_GET_REGION_INFO, request and reply (`struct vfio_region_info`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RegionInfo {
    /// Request: room for the reply's payload; reply: its full size, capabilities included. Bytes.
    pub argsz: U32,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: U32,
    /// The region asked for.
    pub index: U32,
    /// Where the first capability begins, from the start of this structure; zero for none.
    pub cap_offset: U32,
    /// Size of the region in bytes.
    pub size: U64,
    /// Offset of the region in the file that comes with a mappable one.
    pub offset: U64,
}
const _: () = assert!(size_of::<RegionInfo>() == 32);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CapHeader {
    id: U16,
    version: U16,
    next: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SparseMmap {
    header: CapHeader,
    nr_areas: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<SparseMmap>() == 16);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CapType {
    header: CapHeader,
    id: U32,
    subtype: U32,
}
const _: () = assert!(size_of::<CapType>() == 16);

/// The first region behind those of every PCI device (`VFIO_PCI_NUM_REGIONS`). Region `WINDOW_REGION + n` of ours is the T = 1
/// window of BAR n, if the device has windows; what it is, its [`RegionType`] says.
pub const WINDOW_REGION: u32 = abi::VFIO_PCI_NUM_REGIONS;

/// `subtype` of a T = 1 window, without the BAR's number.
const WINDOW_SUBTYPE: u32 = 0x7D15_0000;

/// What a region of no standard meaning is (`struct vfio_region_info_cap_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionType {
    /// `type`: for a vendor's own, `VFIO_REGION_TYPE_PCI_VENDOR_TYPE` with the PCI vendor ID.
    pub id: u32,
    /// Whatever `id` makes of it.
    pub subtype: u32,
}

impl RegionType {
    /// The type of the T = 1 window of a BAR of a device with this vendor ID.
    #[must_use]
    pub fn window(vendor: u16, bar: u8) -> Self {
        Self {
            id: abi::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | u32::from(vendor),
            subtype: WINDOW_SUBTYPE | u32::from(bar),
        }
    }

    /// The BAR whose T = 1 window this is, if it is one of a device with this vendor ID.
    #[must_use]
    pub fn window_of(self, vendor: u16) -> Option<u8> {
        (0..6).find(|bar| self == Self::window(vendor, *bar))
    }
}

/// One area of a region that the client may map (`struct vfio_region_sparse_mmap_area`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MmapArea {
    /// From the start of the region, in bytes; page-aligned.
    pub offset: U64,
    /// In bytes; whole pages.
    pub size: U64,
}
const _: () = assert!(size_of::<MmapArea>() == 16);

impl MmapArea {
    /// `size` bytes from `offset` into the region.
    #[must_use]
    pub const fn new(offset: u64, size: u64) -> Self {
        Self { offset: U64::new(offset), size: U64::new(size) }
    }
}

impl RegionInfo {
    /// A request with room for at least the fixed part of the reply.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the payload is shorter than the structure, [`DecodeError::Argsz`] if the reply would not fit.
    pub fn parse_request(payload: &[u8]) -> Result<Self, DecodeError> {
        let (info, _) = Self::read_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        if (info.argsz.get() as usize) < size_of::<Self>() {
            return Err(DecodeError::Argsz);
        }
        Ok(info)
    }
}

/// A whole reply to DEVICE_GET_REGION_INFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfoReply {
    /// The fixed part. `argsz`, `cap_offset` and the CAPS flag are filled in by [`Self::encode`].
    pub info: RegionInfo,
    /// The type capability.
    pub kind: Option<RegionType>,
    /// Areas of the sparse-mmap capability; none means there is no such capability.
    pub areas: Vec<MmapArea>,
}

impl RegionInfoReply {
    /// The payload for a client with `room` bytes. If that is too little for the capabilities, the fixed part alone says how much is needed.
    #[must_use]
    pub fn encode(&self, room: u32) -> Vec<u8> {
        let caps = self.capabilities();
        let mut info = self.info;
        info.argsz = U32::new(u32::try_from(size_of::<RegionInfo>() + caps.len()).unwrap_or(u32::MAX));
        info.cap_offset = U32::ZERO;
        info.flags = U32::new(info.flags.get() & !abi::VFIO_REGION_INFO_FLAG_CAPS);
        if caps.is_empty() || info.argsz.get() > room {
            return info.as_bytes().to_vec();
        }
        info.cap_offset = U32::new(size_of::<RegionInfo>() as u32);
        info.flags = U32::new(info.flags.get() | abi::VFIO_REGION_INFO_FLAG_CAPS);
        [info.as_bytes(), &caps].concat()
    }

    /// The chain of capabilities as it follows the fixed part. The type is first, as vfio-pci has it for its own such regions.
    fn capabilities(&self) -> Vec<u8> {
        let header = |id: u32, next: usize| CapHeader {
            id: U16::new(id as u16),
            version: U16::new(1),
            next: U32::new(next as u32),
        };
        let mut out = Vec::new();
        if let Some(RegionType { id, subtype }) = self.kind {
            let next = size_of::<RegionInfo>() + size_of::<CapType>();
            let next = if self.areas.is_empty() { 0 } else { next };
            let header = header(abi::VFIO_REGION_INFO_CAP_TYPE, next);
            out.extend_from_slice(CapType { header, id: id.into(), subtype: subtype.into() }.as_bytes());
        }
        if !self.areas.is_empty() {
            let sparse = SparseMmap {
                header: header(abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0),
                nr_areas: U32::new(u32::try_from(self.areas.len()).unwrap_or(u32::MAX)),
                reserved: U32::ZERO,
            };
            out.extend_from_slice(sparse.as_bytes());
            out.extend_from_slice(self.areas.as_bytes());
        }
        out
    }

    /// A server's reply. Capabilities of other kinds are skipped.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if something announced is missing, [`DecodeError::CapabilityChain`] if offsets do not ascend.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let (info, _) = RegionInfo::read_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let mut reply = Self { info, kind: None, areas: Vec::new() };
        let mut previous = 0;
        let mut next =
            if info.flags.get() & abi::VFIO_REGION_INFO_FLAG_CAPS != 0 { info.cap_offset.get() } else { 0 };
        while next != 0 {
            if next <= previous || (next as usize) < size_of::<RegionInfo>() {
                return Err(DecodeError::CapabilityChain);
            }
            previous = next;
            let bytes = payload.get(next as usize..).ok_or(DecodeError::Length)?;
            let (header, _) = CapHeader::ref_from_prefix(bytes).map_err(|_| DecodeError::Length)?;
            next = header.next.get();
            match u32::from(header.id.get()) {
                abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP => {
                    let (sparse, tail) =
                        SparseMmap::ref_from_prefix(bytes).map_err(|_| DecodeError::Length)?;
                    let count = sparse.nr_areas.get() as usize;
                    let (found, _) = <[MmapArea]>::ref_from_prefix_with_elems(tail, count)
                        .map_err(|_| DecodeError::Length)?;
                    reply.areas.extend_from_slice(found);
                }
                abi::VFIO_REGION_INFO_CAP_TYPE => {
                    let (kind, _) = CapType::ref_from_prefix(bytes).map_err(|_| DecodeError::Length)?;
                    reply.kind = Some(RegionType { id: kind.id.get(), subtype: kind.subtype.get() });
                }
                _ => {}
            }
        }
        Ok(reply)
    }
}

/// DEVICE_GET_REGION_IO_FDS, request and the fixed part of the reply. Descriptions of sub-regions would follow in the reply.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RegionIoFds {
    /// Request: room for the reply's payload; reply: its full size. Bytes.
    pub argsz: U32,
    /// Zero.
    pub flags: U32,
    /// The region asked for.
    pub index: U32,
    /// Reply: number of sub-regions.
    pub count: U32,
}
const _: () = assert!(size_of::<RegionIoFds>() == 16);

impl RegionIoFds {
    /// A request with room for the fixed part of the reply.
    ///
    /// # Errors
    /// [`DecodeError::Length`] unless the payload is exactly the structure, [`DecodeError::Argsz`] for room that is too small
    /// or larger than any message, [`DecodeError::Flags`] and [`DecodeError::Count`] for anything but zero there.
    pub fn parse_request(payload: &[u8]) -> Result<Self, DecodeError> {
        let request = Self::read_from_bytes(payload).map_err(|_| DecodeError::Length)?;
        if !(size_of::<Self>() as u32..=MAX_DATA_XFER_SIZE).contains(&request.argsz.get()) {
            return Err(DecodeError::Argsz);
        }
        if request.flags.get() != 0 {
            return Err(DecodeError::Flags);
        }
        if request.count.get() != 0 {
            return Err(DecodeError::Count);
        }
        Ok(request)
    }
}

/// The fixed part of REGION_READ and REGION_WRITE, request and reply. Data follows a write request and a read reply.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RegionAccess {
    /// Into the region, in bytes.
    pub offset: U64,
    /// The region's index.
    pub region: U32,
    /// Bytes of data.
    pub count: U32,
}
const _: () = assert!(size_of::<RegionAccess>() == 16);

impl RegionAccess {
    /// An access of `count` bytes.
    #[must_use]
    pub const fn new(region: u32, offset: u64, count: u32) -> Self {
        Self { offset: U64::new(offset), region: U32::new(region), count: U32::new(count) }
    }

    /// A read's request or a write's reply: no data.
    ///
    /// # Errors
    /// [`DecodeError::Length`] unless the payload is exactly the structure.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        Self::read_from_bytes(payload).map_err(|_| DecodeError::Length)
    }

    /// A write's request or a read's reply: `count` bytes of data follow.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if the payload is too short, [`DecodeError::Count`] if `count` and the data disagree.
    pub fn parse_with_data(payload: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (access, data) = Self::read_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        if access.count.get() as usize != data.len() {
            return Err(DecodeError::Count);
        }
        Ok((access, data))
    }
}

/// One write of a REGION_WRITE_MULTI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WriteMultiEntry {
    /// Where, and how many of the data bytes count: at most 8.
    pub access: RegionAccess,
    data: [u8; 8],
}
const _: () = assert!(size_of::<WriteMultiEntry>() == 24);

impl WriteMultiEntry {
    /// A write of `data`; `None` if that is more than 8 bytes.
    #[must_use]
    pub fn new(region: u32, offset: u64, data: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        Some(Self { access: RegionAccess::new(region, offset, u32::try_from(data.len()).ok()?), data: bytes })
    }

    /// The bytes to write.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..self.access.count.get() as usize).unwrap_or_default()
    }
}

/// REGION_WRITE_MULTI's request: several writes, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteMulti<'a> {
    /// The writes.
    pub entries: &'a [WriteMultiEntry],
}

impl<'a> WriteMulti<'a> {
    /// Parses a payload.
    ///
    /// # Errors
    /// [`DecodeError::Length`] if it is too short, [`DecodeError::Count`] if the number of writes and the payload disagree
    /// or a write is longer than 8 bytes.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (count, tail) = U64::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let entries = <[WriteMultiEntry]>::ref_from_bytes(tail).map_err(|_| DecodeError::Count)?;
        if count.get() != entries.len() as u64 || entries.iter().any(|entry| entry.access.count.get() > 8) {
            return Err(DecodeError::Count);
        }
        Ok(Self { entries })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = (self.entries.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(self.entries.as_bytes());
        out
    }
}
