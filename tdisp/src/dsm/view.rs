//! What the DSM has to know of a function: a plain description that the owner gives when a message needs one, and the
//! configuration writes it reports in between.

use core::fmt;

use crate::wire::{InterfaceInfo, MmioRange};

/// The last 4 KiB page of 2^64 bytes.
const LAST_PAGE: u64 = u64::MAX >> 12;

/// The functions of a device, described on demand: most messages need no description, and one of 256 functions costs
/// what the only one does.
pub trait Functions {
    /// Function `number` as it is configured right now; `None` if it is not hosted.
    fn view(&self, number: usize) -> Option<FunctionView>;

    /// Whether function `number` is hosted.
    fn hosted(&self, number: usize) -> bool {
        self.view(number).is_some()
    }
}

impl Functions for Vec<FunctionView> {
    fn view(&self, number: usize) -> Option<FunctionView> {
        self.iter().find(|view| view.number == number).cloned()
    }

    fn hosted(&self, number: usize) -> bool {
        self.iter().any(|view| view.number == number)
    }
}

/// A function as it is configured right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionView {
    /// Function number, 0 to 7, or to 255 with ARI.
    pub number: usize,
    /// Its BARs, in any order; I/O BARs are left out, a TDI does not depend on them.
    pub bars: Vec<BarView>,
    /// Expansion ROM, if it has one.
    pub rom: Option<RomView>,
    /// Phantom functions are enabled (Device Control bit 9).
    pub phantom_functions: bool,
    /// MSI-X message control register, if it has the capability.
    pub msix_message_control: Option<u16>,
    /// LN requester control register, zero if absent.
    pub lnr_control: u16,
    /// TPH requester control register, zero if absent.
    pub tph_control: u32,
    /// TPH requester capability register, zero if absent: which steering tag modes the function has.
    pub tph_capability: u32,
    /// The ST table lies in the MSI-X table, so that TPH control is reported only when that is locked.
    pub tph_table_in_msix: bool,
    /// How it does DMA: the PASID, ATS and PRS bits of INTERFACE_INFO. ATS must be enabled for a P2P stream to be bound.
    /// The firmware-update bit follows from LOCK's flags and is ignored here.
    pub interface_info: InterfaceInfo,
    /// Device-specific info of the report.
    pub device_info: Vec<u8>,
}

impl FunctionView {
    /// The BAR that a range of an interface report lies in from its first page to its last, and that page counted from the start of
    /// the BAR; `mmio_reporting_offset` is LOCK's. BARs without an address all begin at 0: the one that the range is named after
    /// is preferred.
    #[must_use]
    pub fn locate(&self, range: &MmioRange, mmio_reporting_offset: u64) -> Option<(u8, u32)> {
        let mut bars: Vec<_> = self.bars.iter().collect();
        bars.sort_by_key(|bar| (u16::from(bar.index) != range.range_id, bar.index));
        bars.into_iter().filter(|_| range.first_page <= LAST_PAGE).find_map(|bar| {
            let start = bar.address.unwrap_or(0).wrapping_add(mmio_reporting_offset) >> 12;
            let first_page = u32::try_from(range.first_page.wrapping_sub(start) & LAST_PAGE).ok()?;
            let end = u64::from(first_page) + u64::from(range.pages);
            (end <= bar.size.div_ceil(4096)).then_some((bar.index, first_page))
        })
    }
}

/// A memory BAR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BarView {
    /// Index of its (lower) register, 0 to 5.
    pub index: u8,
    /// Address that was programmed, or `None` if none was yet.
    pub address: Option<u64>,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// It decodes as much again behind itself: the same pages, for requesters that tell T by address. Not in the report.
    pub aliased: bool,
    /// For a resizable BAR: whether the selected size is one of those offered. True for any other BAR.
    pub size_supported: bool,
    /// Every page of it, range by range, ascending.
    pub ranges: Vec<RangeView>,
}

/// Pages of a BAR that share their attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeView {
    /// First 4 KiB page, counted from the start of the BAR.
    pub first_page: u32,
    /// Number of 4 KiB pages.
    pub pages: u32,
    /// IS_NON_TEE_MEM: shared. MSI-X table and PBA pages are private as soon as they are locked, whatever stands here;
    /// where it is clear, they are locked by every LOCK.
    pub non_tee: bool,
    /// IS_MEM_ATTR_UPDATABLE.
    pub updatable: bool,
    /// Holds the MSI-X table.
    pub msix_table: bool,
    /// Holds the MSI-X PBA.
    pub msix_pba: bool,
    /// RANGE_ID, or `None` for the BAR index.
    pub id: Option<u16>,
}

/// The expansion ROM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RomView {
    /// Address that was programmed.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// Its enable bit.
    pub enabled: bool,
}

/// A write to configuration space that LOCK may have frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConfigWrite {
    /// What was written.
    pub register: LockedRegister,
    /// Whether its value is another one now.
    pub changed: bool,
}

/// Registers and fields whose write leads a locked or running TDI to ERROR (PCIe 6.1 §11.2.6). Everything
/// that is not here may be written at any time. The IDE capability is not here: [`super::Dsm::ide_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockedRegister {
    /// A base address register, by its index.
    Bar(u8),
    /// Expansion ROM base address.
    ExpansionRom,
    /// BIST.
    Bist,
    /// Memory Space Enable written as zero.
    MemorySpaceCleared,
    /// Bus Master Enable written as zero.
    BusMasterCleared,
    /// Device Control, 2 or 3: extended tag, phantom functions, no-snoop, 10-bit or 14-bit tags.
    DeviceControl,
    /// A power management transition that loses state.
    PowerState,
    /// MSI-X capability; frozen by LOCK_MSIX only.
    MsiX,
    /// Resizable BAR.
    ResizableBar,
    /// VF Resizable BAR.
    VfResizableBar,
    /// Enhanced Allocation.
    EnhancedAllocation,
    /// ARI control.
    Ari,
    /// PASID control.
    Pasid,
    /// Multicast.
    Multicast,
    /// Page Request control.
    PageRequest,
    /// SR-IOV control.
    SrIov,
}

impl fmt::Display for LockedRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(index) => write!(f, "BAR {index}"),
            Self::ExpansionRom => f.write_str("expansion ROM base"),
            Self::Bist => f.write_str("BIST"),
            Self::MemorySpaceCleared => f.write_str("Memory Space Enable = 0"),
            Self::BusMasterCleared => f.write_str("Bus Master Enable = 0"),
            Self::DeviceControl => f.write_str("Device Control"),
            Self::PowerState => f.write_str("power state"),
            Self::MsiX => f.write_str("MSI-X capability"),
            Self::ResizableBar => f.write_str("Resizable BAR"),
            Self::VfResizableBar => f.write_str("VF Resizable BAR"),
            Self::EnhancedAllocation => f.write_str("Enhanced Allocation"),
            Self::Ari => f.write_str("ARI control"),
            Self::Pasid => f.write_str("PASID control"),
            Self::Multicast => f.write_str("Multicast"),
            Self::PageRequest => f.write_str("Page Request control"),
            Self::SrIov => f.write_str("SR-IOV control"),
        }
    }
}
