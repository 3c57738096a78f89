//! What a server makes of a command's payload, and why it may refuse to.

use thiserror::Error;

use super::{
    Command, DeviceInfo, DmaMap, DmaUnmap, Feature, IrqInfo, IrqSet, MAX_DATA_XFER_SIZE, RegionAccess,
    RegionInfo, RegionIoFds, Version, WriteMulti,
};

/// Why a payload cannot be used. Nothing of it has taken effect.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A command no version of the protocol defines, or one that goes the other way.
    #[error("unknown command")]
    Command,
    /// A command or flag the protocol defines but this side does not offer.
    #[error("not supported")]
    Unsupported,
    /// Shorter or longer than its structure.
    #[error("payload has the wrong length")]
    Length,
    /// `argsz` below the size of the fixed structure.
    #[error("argsz is too small")]
    Argsz,
    /// Unknown or contradictory flags.
    #[error("bad flags")]
    Flags,
    /// A range that is empty, wraps, or is not allowed here.
    #[error("bad range")]
    Range,
    /// An index without anything behind it.
    #[error("bad index")]
    Index,
    /// A count that disagrees with the data, or exceeds the limit.
    #[error("bad count")]
    Count,
    /// Version data that is not NUL-terminated JSON of the right types.
    #[error("bad version data")]
    VersionData,
    /// Capability offsets that do not ascend.
    #[error("bad capability chain")]
    CapabilityChain,
}

/// A command a client sends, legal as far as the message alone can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// VERSION.
    Version(Version),
    /// DMA_MAP.
    DmaMap(DmaMap),
    /// DMA_UNMAP.
    DmaUnmap(DmaUnmap),
    /// DEVICE_GET_INFO.
    DeviceInfo,
    /// DEVICE_GET_REGION_INFO.
    RegionInfo {
        /// Room for the reply's payload in bytes, at least the fixed part.
        argsz: u32,
        /// The region.
        index: u32,
    },
    /// DEVICE_GET_REGION_IO_FDS.
    RegionIoFds {
        /// The region.
        index: u32,
    },
    /// DEVICE_GET_IRQ_INFO.
    IrqInfo {
        /// The interrupt type; may be unknown.
        index: u32,
    },
    /// DEVICE_SET_IRQS.
    SetIrqs(IrqSet<'a>),
    /// REGION_READ of at most [`MAX_DATA_XFER_SIZE`] bytes.
    RegionRead(RegionAccess),
    /// REGION_WRITE of at most [`MAX_DATA_XFER_SIZE`] bytes.
    RegionWrite(RegionAccess, &'a [u8]),
    /// REGION_WRITE_MULTI.
    RegionWriteMulti(WriteMulti<'a>),
    /// DEVICE_RESET.
    Reset,
    /// DEVICE_FEATURE. Its data is not parsed: what it means, the feature says, and to a probe it means nothing.
    Feature(Feature<'a>),
}

impl<'a> Request<'a> {
    /// Parses the payload of `command`.
    ///
    /// # Errors
    /// A [`DecodeError`] that says what is wrong with it.
    pub fn parse(command: Command, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let limited = |access: RegionAccess| {
            if access.count.get() > MAX_DATA_XFER_SIZE { Err(DecodeError::Count) } else { Ok(access) }
        };
        Ok(match command {
            Command::REGION_READ => Self::RegionRead(limited(RegionAccess::parse(payload)?)?),
            Command::REGION_WRITE => {
                let (access, data) = RegionAccess::parse_with_data(payload)?;
                Self::RegionWrite(limited(access)?, data)
            }
            Command::REGION_WRITE_MULTI => Self::RegionWriteMulti(WriteMulti::parse(payload)?),
            Command::VERSION => Self::Version(Version::parse(payload)?),
            Command::DMA_MAP => Self::DmaMap(DmaMap::parse(payload)?),
            Command::DMA_UNMAP => Self::DmaUnmap(DmaUnmap::parse(payload)?),
            Command::DEVICE_GET_INFO => {
                DeviceInfo::parse_request(payload)?;
                Self::DeviceInfo
            }
            Command::DEVICE_GET_REGION_INFO => {
                let info = RegionInfo::parse_request(payload)?;
                Self::RegionInfo { argsz: info.argsz.get(), index: info.index.get() }
            }
            Command::DEVICE_GET_REGION_IO_FDS => {
                Self::RegionIoFds { index: RegionIoFds::parse_request(payload)?.index.get() }
            }
            Command::DEVICE_GET_IRQ_INFO => {
                Self::IrqInfo { index: IrqInfo::parse_request(payload)?.index.get() }
            }
            Command::DEVICE_SET_IRQS => Self::SetIrqs(IrqSet::parse(payload)?),
            Command::DEVICE_RESET if payload.is_empty() => Self::Reset,
            Command::DEVICE_RESET => return Err(DecodeError::Length),
            Command::DEVICE_FEATURE => Self::Feature(Feature::parse(payload)?),
            Command::MIG_DATA_READ | Command::MIG_DATA_WRITE => {
                return Err(DecodeError::Unsupported);
            }
            _ => return Err(DecodeError::Command),
        })
    }
}
