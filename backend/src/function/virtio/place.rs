//! Where the structures of virtio 1.2 §4.1.4 lie in a function's BARs, wherever the configuration has their ranges.

use mmio::{BarSet, Kind, Place};

use super::MAX_QUEUES;
use crate::pci::{VirtioLocation, VirtioStructures};

/// Bytes of `struct virtio_pci_common_cfg` with `queue_notify_data` and `queue_reset` (virtio 1.2 §4.1.4.3).
pub(super) const COMMON_BYTES: u32 = 0x3C;
/// Offsets in the range of the registers. All of it fits one page, so that a range of 4 KiB is enough.
const COMMON: u32 = 0;
const ISR: u32 = 0x200;
const ISR_BYTES: u32 = 1;
const DEVICE: u32 = 0x400;
/// Bytes of device configuration: what virtio 1.2 §5.2.4 defines, and room behind it that reads zero.
const DEVICE_BYTES: u32 = 0x100;
/// Notify addresses where no range of doorbells is there for them.
const NOTIFY: u32 = 0xC00;
/// Bytes from one queue's notify address to the next.
pub(super) const NOTIFY_STRIDE: u32 = 4;

/// A structure, and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Common(u64),
    Isr(u64),
    Device(u64),
    Notify(u64),
}

/// Where everything lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structures {
    registers: (u8, u64),
    /// BAR and offset, if they are a range of their own.
    doorbells: Option<(u8, u64)>,
}

impl Structures {
    /// `None`: the BARs have no registers, or they lie beyond what a virtio capability can say (4 GiB).
    #[must_use]
    pub fn new(bars: &BarSet) -> Option<Self> {
        let find = |kind| {
            bars.bars().iter().find_map(|bar| {
                let range = bar.ranges().iter().find(|range| range.kind == kind)?;
                u32::try_from(range.end()).ok().map(|_| (bar.index(), range.offset()))
            })
        };
        Some(Self { registers: find(Kind::Registers)?, doorbells: find(Kind::Doorbells) })
    }

    /// What stands at a place, if anything does.
    pub(super) fn locate(&self, place: Place) -> Option<Part> {
        let offset = place.offset_in_range;
        match place.kind {
            Kind::Doorbells => Some(Part::Notify(offset)),
            Kind::Registers => {
                let within = |start: u32, bytes: u32| {
                    offset.checked_sub(start.into()).filter(|offset| *offset < u64::from(bytes))
                };
                within(COMMON, COMMON_BYTES)
                    .map(Part::Common)
                    .or_else(|| within(ISR, ISR_BYTES).map(Part::Isr))
                    .or_else(|| within(DEVICE, DEVICE_BYTES).map(Part::Device))
                    .or_else(|| {
                        let here = self.doorbells.is_none();
                        within(NOTIFY, notify_bytes(MAX_QUEUES)).filter(|_| here).map(Part::Notify)
                    })
            }
            Kind::Memory | Kind::MsixTable | Kind::MsixPba | Kind::Reserved => None,
        }
    }

    /// Where the structure after `offset` in the registers begins: an access that crosses it is cut there.
    pub(super) fn next_boundary(offset: u64) -> Option<u64> {
        [COMMON, COMMON + COMMON_BYTES, ISR, ISR + ISR_BYTES, DEVICE, DEVICE + DEVICE_BYTES, NOTIFY]
            .into_iter()
            .map(u64::from)
            .find(|boundary| *boundary > offset)
    }

    /// What the capabilities say. `half` is added to offsets, by the number of the BAR: with aliases, it is where the half begins
    /// that they shall point at.
    #[must_use]
    pub fn capabilities(&self, queues: u16, half: impl Fn(u8) -> u64) -> Option<VirtioStructures> {
        let at = |(bar, base): (u8, u64), offset: u32, length: u32| {
            let offset = base.checked_add(offset.into())?.checked_add(half(bar))?;
            Some(VirtioLocation { bar, offset: u32::try_from(offset).ok()?, length })
        };
        let (notify, first) = self.doorbells.map_or((self.registers, NOTIFY), |doorbells| (doorbells, 0));
        Some(VirtioStructures {
            common: at(self.registers, COMMON, COMMON_BYTES)?,
            isr: at(self.registers, ISR, ISR_BYTES)?,
            device: at(self.registers, DEVICE, DEVICE_BYTES)?,
            notify: at(notify, first, notify_bytes(queues))?,
            notify_stride: NOTIFY_STRIDE,
        })
    }
}

const fn notify_bytes(queues: u16) -> u32 {
    NOTIFY_STRIDE * queues as u32
}

const _: () = assert!(NOTIFY + notify_bytes(MAX_QUEUES) <= mmio::PAGE_SIZE as u32);
