//! What a BAR consists of: ranges in order, checked once, so that everything after can rely on it.
use core::fmt;

use crate::pages::PageRange;
use crate::{Attribute, PAGE_SIZE, Revocation};

mod error;

pub use error::{LayoutError, LayoutProblem};

/// Base address registers of a type 0 header (PCIe 6.1 §7.5.1.2.1).
const BAR_SLOTS: u8 = 6;
/// Pages a 32-bit BAR can hold: 2 GiB, as the register keeps at least one address bit.
const MAX_PAGES_32: u64 = 1 << 19;
/// Pages a 64-bit BAR can hold here: 8 TiB. A reported range counts its pages in 32 bits.
const MAX_PAGES_64: u64 = 1 << 31;
/// Bytes of one MSI-X table entry (PCIe 6.1 §7.7.2.6).
const MSIX_ENTRY: u64 = 16;
/// Table Offset and PBA Offset have 32 bits (PCIe 6.1 §7.7.2.3, §7.7.2.4).
const MSIX_REACH: u64 = 1 << 32;

/// What stands behind a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Registers of the function.
    Registers,
    /// Plain memory.
    Memory,
    /// The MSI-X table.
    MsixTable,
    /// The MSI-X pending bit array.
    MsixPba,
    /// Doorbells of the function: registers that do something when they are written.
    Doorbells,
    /// Nothing: reads zero, ignores writes. It fills a BAR up to its power of two.
    Reserved,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Registers, Self::Memory, Self::MsixTable, Self::MsixPba, Self::Doorbells, Self::Reserved];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registers => "registers",
            Self::Memory => "memory",
            Self::MsixTable => "MSI-X table",
            Self::MsixPba => "MSI-X PBA",
            Self::Doorbells => "doorbells",
            Self::Reserved => "reserved",
        })
    }
}

/// One range as somebody asks for it: its place follows from the ranges before it, so there are no gaps or overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLayout {
    /// What stands behind it.
    pub kind: Kind,
    /// Size in 4 KiB pages, at least one.
    pub pages: u32,
    /// Private or shared.
    pub attribute: Attribute,
    /// Its pages may change sides while the TDI runs (IS_MEM_ATTR_UPDATABLE).
    pub updatable: bool,
    /// What becomes of exports of its pages, if not what [`Exporting`](crate::Exporting) says.
    pub revocation: Option<Revocation>,
}

/// One range in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// What stands behind it.
    pub kind: Kind,
    /// First 4 KiB page, counted from the start of the BAR.
    pub first_page: u32,
    /// Size in 4 KiB pages.
    pub pages: u32,
    /// Private or shared.
    pub attribute: Attribute,
    /// Its pages may change sides while the TDI runs.
    pub updatable: bool,
    /// What becomes of exports of its pages, if not what [`Exporting`](crate::Exporting) says.
    pub revocation: Option<Revocation>,
}

impl Range {
    /// First byte, counted from the start of the BAR.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.first_page as u64 * PAGE_SIZE
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pages as u64 * PAGE_SIZE
    }

    /// The byte after the last, counted from the start of the BAR.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset() + self.size()
    }

    /// Its pages.
    #[must_use]
    pub const fn page_range(&self) -> PageRange {
        PageRange { first: self.first_page, pages: self.pages }
    }

    /// Whether its pages are TEE memory once the TDI is locked.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        matches!(self.attribute, Attribute::Private)
    }

    /// Whether its pages are TEE memory at some time, so that no mapping of them may be given away for good.
    #[must_use]
    pub const fn may_be_private(&self) -> bool {
        self.is_private() || self.updatable
    }
}

/// Address width of a memory BAR (PCIe 6.1 §7.5.1.2.1, bits 2:1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressWidth {
    /// Anywhere below 4 GiB; one register.
    Bits32,
    /// Anywhere; this register and the next.
    Bits64,
}

/// One BAR, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarLayout {
    index: u8,
    width: AddressWidth,
    prefetchable: bool,
    ranges: Vec<Range>,
    pages: u32,
}

impl BarLayout {
    /// Checks and places the ranges, the first at the start of the BAR and each next one behind the last.
    ///
    /// # Errors
    /// Names the BAR, and the range where one is at fault: see [`LayoutError`].
    pub fn new(
        index: u8,
        width: AddressWidth,
        prefetchable: bool,
        ranges: &[RangeLayout],
    ) -> Result<Self, LayoutError> {
        let (last_slot, max) = match width {
            AddressWidth::Bits32 => (BAR_SLOTS - 1, MAX_PAGES_32),
            AddressWidth::Bits64 => (BAR_SLOTS - 2, MAX_PAGES_64),
        };
        let fail = |range, problem| LayoutError { bar: index, range, problem };
        if index > last_slot {
            return Err(fail(None, LayoutProblem::NoSuchBar { width }));
        }
        if ranges.is_empty() {
            return Err(fail(None, LayoutProblem::Empty));
        }
        let mut placed = Vec::with_capacity(ranges.len());
        let mut next = 0_u32;
        for (range, &RangeLayout { kind, pages, attribute, updatable, revocation }) in
            ranges.iter().enumerate()
        {
            if pages == 0 {
                return Err(fail(Some(range), LayoutProblem::NoPages));
            }
            let end = u64::from(next) + u64::from(pages);
            let too_large = fail(
                Some(range),
                LayoutProblem::TooLarge { end: end * PAGE_SIZE, width, max: max * PAGE_SIZE },
            );
            if end > max {
                return Err(too_large);
            }
            placed.push(Range { kind, first_page: next, pages, attribute, updatable, revocation });
            next = u32::try_from(end).map_err(|_| too_large)?;
        }
        if !next.is_power_of_two() {
            return Err(fail(None, LayoutProblem::NotPowerOfTwo { size: u64::from(next) * PAGE_SIZE }));
        }
        Ok(Self { index, width, prefetchable, ranges: placed, pages: next })
    }

    /// Number of the (first) base address register, 0 to 5.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Address width.
    #[must_use]
    pub const fn width(&self) -> AddressWidth {
        self.width
    }

    /// Prefetchable bit.
    #[must_use]
    pub const fn prefetchable(&self) -> bool {
        self.prefetchable
    }

    /// Size in 4 KiB pages, a power of two.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Size in bytes, a power of two of at least 4 KiB.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pages as u64 * PAGE_SIZE
    }

    /// The ranges by ascending offset; together they cover the BAR without gap or overlap.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The range a byte belongs to; `None` beyond the BAR.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<&Range> {
        let behind = self.ranges.partition_point(|range| range.end() <= offset);
        self.ranges.get(behind)
    }
}

/// Where MSI-X lies, as its capability says it (PCIe 6.1 §7.7.2.3 and §7.7.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLocation {
    /// Table BIR.
    pub table_bar: u8,
    /// Byte offset of the table in its BAR, page-aligned.
    pub table_offset: u64,
    /// PBA BIR.
    pub pba_bar: u8,
    /// Byte offset of the PBA in its BAR, page-aligned.
    pub pba_offset: u64,
    /// Most vectors that table and PBA have room for (at most 2,048).
    pub capacity: u16,
}

/// All memory BARs of one function, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarSet {
    bars: Vec<BarLayout>,
    msix: Option<MsixLocation>,
}

impl BarSet {
    /// Checks that the BARs share no register, that there is MSI-X once and whole, or not at all, and at most one range
    /// each of registers and doorbells: a function finds them by kind, wherever they lie.
    ///
    /// # Errors
    /// [`LayoutProblem::Occupied`], [`LayoutProblem::Second`], [`LayoutProblem::LoneMsix`], [`LayoutProblem::MsixTooFar`].
    pub fn new(mut bars: Vec<BarLayout>) -> Result<Self, LayoutError> {
        bars.sort_by_key(BarLayout::index);
        for (first, second) in bars.iter().zip(bars.iter().skip(1)) {
            let slots = match first.width {
                AddressWidth::Bits32 => 1,
                AddressWidth::Bits64 => 2,
            };
            if second.index < first.index + slots {
                let problem = LayoutProblem::Occupied { other: first.index };
                return Err(LayoutError { bar: second.index, range: None, problem });
            }
        }
        only(&bars, Kind::Registers)?;
        only(&bars, Kind::Doorbells)?;
        let table = only(&bars, Kind::MsixTable)?;
        let pba = only(&bars, Kind::MsixPba)?;
        for (bar, range, placed) in table.iter().chain(&pba) {
            if placed.offset() >= MSIX_REACH {
                return Err(LayoutError {
                    bar: *bar,
                    range: Some(*range),
                    problem: LayoutProblem::MsixTooFar,
                });
            }
        }
        let msix = match (table, pba) {
            (None, None) => None,
            (Some((bar, range, placed)), None) | (None, Some((bar, range, placed))) => {
                let problem = LayoutProblem::LoneMsix { kind: placed.kind };
                return Err(LayoutError { bar, range: Some(range), problem });
            }
            (Some((table_bar, _, table)), Some((pba_bar, _, pba))) => Some(MsixLocation {
                table_bar,
                table_offset: table.offset(),
                pba_bar,
                pba_offset: pba.offset(),
                capacity: u16::try_from((table.size() / MSIX_ENTRY).min(pba.size() * 8).min(2048))
                    .unwrap_or(2048),
            }),
        };
        Ok(Self { bars, msix })
    }

    /// The BARs by ascending number.
    #[must_use]
    pub fn bars(&self) -> &[BarLayout] {
        &self.bars
    }

    /// The first range of a kind; the only one, but for memory and reserved ones.
    #[must_use]
    pub fn find(&self, kind: Kind) -> Option<&Range> {
        self.bars.iter().flat_map(BarLayout::ranges).find(|range| range.kind == kind)
    }

    /// Where MSI-X lies, if the function has it.
    #[must_use]
    pub const fn msix(&self) -> Option<MsixLocation> {
        self.msix
    }
}

/// The one range of a kind in all BARs, with its BAR and position.
fn only(bars: &[BarLayout], kind: Kind) -> Result<Option<(u8, usize, Range)>, LayoutError> {
    let mut found: Option<(u8, usize, Range)> = None;
    for bar in bars {
        for (range, &placed) in bar.ranges.iter().enumerate().filter(|(_, placed)| placed.kind == kind) {
            if let Some((other, _, _)) = found {
                let problem = LayoutProblem::Second { kind, other };
                return Err(LayoutError { bar: bar.index, range: Some(range), problem });
            }
            found = Some((bar.index, range, placed));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
