//! What a BAR consists of: ranges in order, checked once, so that everything after can rely on it.
use core::fmt;

use crate::{Attribute, PAGE_SIZE};

/// Base address registers of a type 0 header (PCIe 6.1 §7.5.1.2.1).
const BAR_SLOTS: u8 = 6;
/// Pages a 32-bit BAR can hold: 2 GiB, as the register keeps at least one address bit.
const MAX_PAGES_32: u64 = 1 << 19;
/// Pages a 64-bit BAR can hold here: 8 TiB. A reported range counts its pages in 32 bits.
const MAX_PAGES_64: u64 = 1 << 31;
/// Bytes of one MSI-X table entry (PCIe 6.1 §7.7.2.6).
const MSIX_ENTRY: u64 = 16;

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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registers => "registers",
            Self::Memory => "memory",
            Self::MsixTable => "MSI-X table",
            Self::MsixPba => "MSI-X PBA",
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

/// A layout that cannot be a BAR, or BARs that cannot be a function's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// There are six base address registers, and a 64-bit BAR needs two of them.
    #[error("BAR {bar}: a {} BAR cannot start there, a function has BAR 0 to 5", width_name(*.width))]
    NoSuchBar {
        /// The number asked for.
        bar: u8,
        /// The width asked for.
        width: AddressWidth,
    },
    /// Two BARs want the same register.
    #[error("BAR {bar}: its register already belongs to BAR {other}")]
    Occupied {
        /// The later one.
        bar: u8,
        /// The one that has the register.
        other: u8,
    },
    /// A BAR without ranges.
    #[error("BAR {bar}: has no ranges")]
    Empty {
        /// The BAR.
        bar: u8,
    },
    /// A range without pages.
    #[error("BAR {bar} range {range} ({kind}): has no pages")]
    NoPages {
        /// The BAR.
        bar: u8,
        /// Position of the range in the BAR, from 0.
        range: usize,
        /// What it should have been.
        kind: Kind,
    },
    /// The ranges do not add up to a power of two.
    #[error("BAR {bar}: its ranges add up to {pages} pages of 4 KiB, not to a power of two")]
    NotPowerOfTwo {
        /// The BAR.
        bar: u8,
        /// The sum.
        pages: u64,
    },
    /// More pages than a BAR of this width can have.
    #[error("BAR {bar} range {range}: ends at page {pages}, a {} BAR has at most {max}", width_name(*.width))]
    TooLarge {
        /// The BAR.
        bar: u8,
        /// Position of the range that goes over the limit, from 0.
        range: usize,
        /// Pages up to its end.
        pages: u64,
        /// The width asked for.
        width: AddressWidth,
        /// Most pages at this width.
        max: u64,
    },
    /// A function has one MSI-X table and one pending bit array.
    #[error("BAR {bar} range {range} ({kind}): the function already has one in BAR {other}")]
    SecondMsix {
        /// The BAR.
        bar: u8,
        /// Position of the range, from 0.
        range: usize,
        /// Table or PBA.
        kind: Kind,
        /// Where the first is.
        other: u8,
    },
    /// Of table and PBA one is missing.
    #[error("BAR {bar} range {range} ({kind}): MSI-X needs both a table and a PBA, the other is missing")]
    LoneMsix {
        /// The BAR.
        bar: u8,
        /// Position of the range, from 0.
        range: usize,
        /// The one that is there.
        kind: Kind,
    },
}

const fn width_name(width: AddressWidth) -> &'static str {
    match width {
        AddressWidth::Bits32 => "32-bit",
        AddressWidth::Bits64 => "64-bit",
    }
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
        if index > last_slot {
            return Err(LayoutError::NoSuchBar { bar: index, width });
        }
        if ranges.is_empty() {
            return Err(LayoutError::Empty { bar: index });
        }
        let mut placed = Vec::with_capacity(ranges.len());
        let mut next = 0_u32;
        for (range, &RangeLayout { kind, pages, attribute, updatable }) in ranges.iter().enumerate() {
            if pages == 0 {
                return Err(LayoutError::NoPages { bar: index, range, kind });
            }
            let end = u64::from(next) + u64::from(pages);
            let too_large = LayoutError::TooLarge { bar: index, range, pages: end, width, max };
            if end > max {
                return Err(too_large);
            }
            placed.push(Range { kind, first_page: next, pages, attribute, updatable });
            next = u32::try_from(end).map_err(|_| too_large)?;
        }
        if !next.is_power_of_two() {
            return Err(LayoutError::NotPowerOfTwo { bar: index, pages: u64::from(next) });
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
    /// Checks that the BARs share no register and that there is MSI-X once and whole, or not at all.
    ///
    /// # Errors
    /// [`LayoutError::Occupied`], [`LayoutError::SecondMsix`], [`LayoutError::LoneMsix`].
    pub fn new(mut bars: Vec<BarLayout>) -> Result<Self, LayoutError> {
        bars.sort_by_key(BarLayout::index);
        for (first, second) in bars.iter().zip(bars.iter().skip(1)) {
            let slots = match first.width {
                AddressWidth::Bits32 => 1,
                AddressWidth::Bits64 => 2,
            };
            if second.index < first.index + slots {
                return Err(LayoutError::Occupied { bar: second.index, other: first.index });
            }
        }
        let table = only(&bars, Kind::MsixTable)?;
        let pba = only(&bars, Kind::MsixPba)?;
        let msix = match (table, pba) {
            (None, None) => None,
            (Some((bar, range, placed)), None) | (None, Some((bar, range, placed))) => {
                return Err(LayoutError::LoneMsix { bar, range, kind: placed.kind });
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
                return Err(LayoutError::SecondMsix { bar: bar.index, range, kind, other });
            }
            found = Some((bar.index, range, placed));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use AddressWidth::{Bits32, Bits64};
    use Attribute::{Private, Shared};

    fn range(kind: Kind, pages: u32, attribute: Attribute) -> RangeLayout {
        RangeLayout { kind, pages, attribute, updatable: false }
    }

    fn memory(pages: u32) -> RangeLayout {
        range(Kind::Memory, pages, Shared)
    }

    fn bar(index: u8, width: AddressWidth, ranges: &[RangeLayout]) -> Result<BarLayout, LayoutError> {
        BarLayout::new(index, width, false, ranges)
    }

    #[test]
    fn ranges_are_placed_one_behind_the_other() {
        let bar = BarLayout::new(
            2,
            Bits64,
            true,
            &[range(Kind::Registers, 1, Private), memory(2), range(Kind::Memory, 5, Private)],
        )
        .unwrap();
        assert_eq!((bar.index(), bar.width(), bar.prefetchable(), bar.size()), (2, Bits64, true, 0x8000));
        let places: Vec<_> = bar.ranges().iter().map(|r| (r.first_page, r.pages, r.is_private())).collect();
        assert_eq!(places, [(0, 1, true), (1, 2, false), (3, 5, true)]);
        for (offset, page) in [(0, 0), (0xfff, 0), (0x1000, 1), (0x2fff, 1), (0x3000, 3), (0x7fff, 3)] {
            assert_eq!(bar.locate(offset).unwrap().first_page, page, "{offset:#x}");
        }
        assert_eq!(bar.locate(0x8000), None);
        assert_eq!(bar.locate(u64::MAX), None);
    }

    #[test]
    fn a_bar_is_refused_with_a_reason_that_names_it() {
        let table = [
            (
                bar(6, Bits32, &[memory(1)]),
                "BAR 6: a 32-bit BAR cannot start there, a function has BAR 0 to 5",
            ),
            (
                bar(5, Bits64, &[memory(1)]),
                "BAR 5: a 64-bit BAR cannot start there, a function has BAR 0 to 5",
            ),
            (bar(0, Bits32, &[]), "BAR 0: has no ranges"),
            (
                bar(1, Bits32, &[memory(1), range(Kind::Registers, 0, Private)]),
                "BAR 1 range 1 (registers): has no pages",
            ),
            (
                bar(1, Bits32, &[memory(1), memory(2)]),
                "BAR 1: its ranges add up to 3 pages of 4 KiB, not to a power of two",
            ),
            (
                bar(0, Bits32, &[memory(1 << 19), memory(1 << 19)]),
                "BAR 0 range 1: ends at page 1048576, a 32-bit BAR has at most 524288",
            ),
            (
                bar(0, Bits64, &[memory(u32::MAX), memory(u32::MAX)]),
                "BAR 0 range 0: ends at page 4294967295, a 64-bit BAR has at most 2147483648",
            ),
        ];
        for (result, text) in table {
            assert_eq!(result.unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn the_largest_bars_are_accepted() {
        assert_eq!(bar(5, Bits32, &[memory(1 << 19)]).unwrap().size(), 1 << 31);
        assert_eq!(bar(4, Bits64, &[memory(1 << 31)]).unwrap().size(), 1 << 43);
    }

    #[test]
    fn bars_may_not_share_a_register() {
        let set = |bars: &[(u8, AddressWidth)]| {
            BarSet::new(bars.iter().map(|&(index, width)| bar(index, width, &[memory(1)]).unwrap()).collect())
        };
        assert!(set(&[(4, Bits64), (2, Bits64), (0, Bits64)]).is_ok());
        assert!(set(&[(0, Bits32), (1, Bits32), (2, Bits32), (3, Bits32), (4, Bits32), (5, Bits32)]).is_ok());
        assert_eq!(set(&[(1, Bits32), (0, Bits64)]), Err(LayoutError::Occupied { bar: 1, other: 0 }));
        assert_eq!(set(&[(3, Bits32), (3, Bits32)]), Err(LayoutError::Occupied { bar: 3, other: 3 }));
        assert_eq!(set(&[]).unwrap().msix(), None);
    }

    #[test]
    fn msix_comes_once_and_whole() {
        let table = range(Kind::MsixTable, 1, Shared);
        let pba = range(Kind::MsixPba, 1, Shared);
        let whole = BarSet::new(vec![bar(4, Bits32, &[table, pba]).unwrap()]).unwrap();
        assert_eq!(
            whole.msix(),
            Some(MsixLocation {
                table_bar: 4,
                table_offset: 0,
                pba_bar: 4,
                pba_offset: 0x1000,
                capacity: 256
            })
        );
        let large = BarSet::new(vec![
            bar(0, Bits32, &[range(Kind::MsixTable, 64, Shared)]).unwrap(),
            bar(1, Bits32, &[pba]).unwrap(),
        ])
        .unwrap();
        assert_eq!(large.msix().unwrap().capacity, 2048);

        let lone = BarSet::new(vec![bar(4, Bits32, &[memory(1), pba]).unwrap()]).unwrap_err();
        assert_eq!(
            lone.to_string(),
            "BAR 4 range 1 (MSI-X PBA): MSI-X needs both a table and a PBA, the other is missing"
        );
        let twice = BarSet::new(vec![
            bar(0, Bits32, &[table, pba]).unwrap(),
            bar(1, Bits32, &[memory(1), table]).unwrap(),
        ])
        .unwrap_err();
        assert_eq!(twice.to_string(), "BAR 1 range 1 (MSI-X table): the function already has one in BAR 0");
    }
}
