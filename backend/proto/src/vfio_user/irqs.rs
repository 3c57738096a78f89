//! DEVICE_SET_IRQS.

use core::mem::size_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, abi};

/// A type of interrupt (`VFIO_PCI_*_IRQ_INDEX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqKind {
    /// The interrupt pin.
    Intx,
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
    /// An uncorrectable error: QEMU stops the machine.
    Err,
    /// The device asks to be unplugged.
    Req,
}

impl IrqKind {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 5] = [Self::Intx, Self::Msi, Self::Msix, Self::Err, Self::Req];

    /// The type with this index.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        usize::try_from(index).ok().and_then(|index| Self::ALL.get(index).copied())
    }

    /// Its index.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Intx => abi::VFIO_PCI_INTX_IRQ_INDEX,
            Self::Msi => abi::VFIO_PCI_MSI_IRQ_INDEX,
            Self::Msix => abi::VFIO_PCI_MSIX_IRQ_INDEX,
            Self::Err => abi::VFIO_PCI_ERR_IRQ_INDEX,
            Self::Req => abi::VFIO_PCI_REQ_IRQ_INDEX,
        }
    }
}

/// What to do with the interrupts of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Hold them back.
    Mask,
    /// Let them through again.
    Unmask,
    /// Raise them, or with descriptors: arm them.
    Trigger,
}

/// Which interrupts of the range are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// Every one. With a count of zero and `Trigger`: disarm the whole type.
    None,
    /// Those whose byte is not zero; exactly `count` bytes.
    Bool(&'a [u8]),
    /// Every one gets the descriptor that came along, or loses its own if none came.
    Eventfd,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIrqSet {
    argsz: U32,
    flags: U32,
    index: U32,
    start: U32,
    count: U32,
}
const _: () = assert!(size_of::<RawIrqSet>() == 20);

/// DEVICE_SET_IRQS' request (`struct vfio_irq_set`). The reply is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqSet<'a> {
    /// The type.
    pub kind: IrqKind,
    /// What to do.
    pub action: IrqAction,
    /// To which of the range.
    pub data: IrqData<'a>,
    /// First interrupt of the range.
    pub start: u32,
    /// How many; `start + count` fits in 32 bits. Zero only for disarming the whole type.
    pub count: u32,
}

impl<'a> IrqSet<'a> {
    /// Parses a payload. Whether the type has that many interrupts, only the device knows.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Argsz`], [`DecodeError::Index`] for an unknown type, [`DecodeError::Flags`] unless exactly one
    /// data and one action flag are set, [`DecodeError::Range`] for a wrapping range, [`DecodeError::Count`] for booleans that do not match the
    /// count and for a count of zero that does not mean "disarm all".
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (raw, tail) = RawIrqSet::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        if (raw.argsz.get() as usize) < size_of::<RawIrqSet>() {
            return Err(DecodeError::Argsz);
        }
        let kind = IrqKind::from_index(raw.index.get()).ok_or(DecodeError::Index)?;
        let flags = raw.flags.get();
        let action = match flags & !abi::VFIO_IRQ_SET_DATA_TYPE_MASK {
            abi::VFIO_IRQ_SET_ACTION_MASK => IrqAction::Mask,
            abi::VFIO_IRQ_SET_ACTION_UNMASK => IrqAction::Unmask,
            abi::VFIO_IRQ_SET_ACTION_TRIGGER => IrqAction::Trigger,
            _ => return Err(DecodeError::Flags),
        };
        let (start, count) = (raw.start.get(), raw.count.get());
        start.checked_add(count).ok_or(DecodeError::Range)?;
        let data = match flags & abi::VFIO_IRQ_SET_DATA_TYPE_MASK {
            abi::VFIO_IRQ_SET_DATA_NONE if tail.is_empty() => IrqData::None,
            abi::VFIO_IRQ_SET_DATA_BOOL if tail.len() == count as usize => IrqData::Bool(tail),
            // Descriptors travel beside the message; the kernel ABI's array of their numbers may still be there.
            abi::VFIO_IRQ_SET_DATA_EVENTFD
                if tail.is_empty() || tail.len() as u64 == u64::from(count) * 4 =>
            {
                IrqData::Eventfd
            }
            abi::VFIO_IRQ_SET_DATA_NONE | abi::VFIO_IRQ_SET_DATA_BOOL | abi::VFIO_IRQ_SET_DATA_EVENTFD => {
                return Err(DecodeError::Count);
            }
            _ => return Err(DecodeError::Flags),
        };
        let disarm_all = start == 0 && action == IrqAction::Trigger && data == IrqData::None;
        if count == 0 && !disarm_all {
            return Err(DecodeError::Count);
        }
        Ok(Self { kind, action, data, start, count })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (data_flag, tail): (u32, &[u8]) = match self.data {
            IrqData::None => (abi::VFIO_IRQ_SET_DATA_NONE, &[]),
            IrqData::Bool(bytes) => (abi::VFIO_IRQ_SET_DATA_BOOL, bytes),
            IrqData::Eventfd => (abi::VFIO_IRQ_SET_DATA_EVENTFD, &[]),
        };
        let action = match self.action {
            IrqAction::Mask => abi::VFIO_IRQ_SET_ACTION_MASK,
            IrqAction::Unmask => abi::VFIO_IRQ_SET_ACTION_UNMASK,
            IrqAction::Trigger => abi::VFIO_IRQ_SET_ACTION_TRIGGER,
        };
        let raw = RawIrqSet {
            argsz: U32::new(u32::try_from(size_of::<RawIrqSet>() + tail.len()).unwrap_or(u32::MAX)),
            flags: U32::new(data_flag | action),
            index: U32::new(self.kind.index()),
            start: U32::new(self.start),
            count: U32::new(self.count),
        };
        let mut out = raw.as_bytes().to_vec();
        out.extend_from_slice(tail);
        out
    }
}
