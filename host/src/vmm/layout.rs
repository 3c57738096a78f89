//! Where BARs lie in the guest's address space, and what of them is private: the interface report in the words of KVM.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::output::record::RangeRow;
use crate::pci::bars::{Bar, Half};

/// Guest-physical addresses for BARs: what firmware leaves for them below 4 GiB.
const ROOM: (u64, u64) = (0xc000_0000, 0xfec0_0000);
/// Bytes in a page of the report.
const PAGE: u64 = 4096;

/// A BAR in the guest's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) bar: u8,
    pub(super) gpa: u64,
    pub(super) size: u64,
    /// Where in the BAR's own addresses T = 0 begins, and T = 1.
    pub(super) plain: u64,
    pub(super) tee: u64,
    /// Reading and writing it has no side effects: memory, as far as one can tell.
    pub(super) memory: bool,
}

impl Window {
    /// All of it, shared, as before a bind.
    pub(super) fn whole(&self) -> Piece {
        Piece { gpa: self.gpa, size: self.size, private: false, bar: self.bar, offset: 0 }
    }

    /// Where a piece lies in the BAR's own addresses, with this T.
    pub(super) fn start(&self, piece: &Piece, tee: bool) -> u64 {
        piece.offset + if tee { self.tee } else { self.plain }
    }
}

/// Pages of a BAR on one side: what KVM_SET_MEMORY_ATTRIBUTES takes, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Piece {
    pub(super) gpa: u64,
    pub(super) size: u64,
    pub(super) private: bool,
    pub(super) bar: u8,
    pub(super) offset: u64,
}

/// Gives every BAR a place. Where T is a bit of the address, the guest sees one half of the BAR's addresses.
pub(super) fn place(bars: &[Bar], alias: Option<Half>) -> Result<Vec<Window>> {
    let mut next = ROOM.0;
    let windows = bars.iter().map(|bar| {
        let (size, plain, tee) = match alias {
            None => (bar.size, 0, 0),
            Some(Half::High) => (bar.size / 2, 0, bar.size / 2),
            Some(Half::Low) => (bar.size / 2, bar.size / 2, 0),
        };
        let too_small =
            || Error::Usage(format!("BAR{} of {:#x} bytes has no two halves", bar.index, bar.size));
        let too_large = || Error::Usage(format!("BAR{} does not fit below the guest's 4 GiB", bar.index));
        if size < PAGE {
            return Err(too_small());
        }
        let gpa = next.checked_next_multiple_of(size).ok_or_else(too_large)?;
        next = gpa.checked_add(size).filter(|end| *end <= ROOM.1).ok_or_else(too_large)?;
        Ok(Window { bar: bar.index, gpa, size, plain, tee, memory: bar.prefetchable })
    });
    windows.collect()
}

/// The report's ranges, which have been found to lie in their BARs and not on each other, in the guest's address space and its order.
///
/// The report speaks of the lower half of a BAR, whichever that is: offsets are the same in both.
pub(super) fn cut(windows: &[Window], rows: &[RangeRow]) -> Result<Vec<Piece>> {
    let pieces = rows.iter().map(|row| {
        let outside =
            || Error::Check(format!("{:#x} of the report is not in the guest's part of a BAR", row.address));
        let (bar, offset) = row.bar.zip(row.offset).ok_or_else(outside)?;
        let window = windows.iter().find(|window| window.bar == bar).ok_or_else(outside)?;
        let size = u64::from(row.pages) * PAGE;
        let end = offset.checked_add(size).filter(|end| *end <= window.size);
        let gpa = end.and(window.gpa.checked_add(offset)).ok_or_else(outside)?;
        Ok(Piece { gpa, size, private: row.private, bar, offset })
    });
    let mut pieces = pieces.collect::<Result<Vec<_>>>()?;
    pieces.sort_by_key(|piece| piece.gpa);
    Ok(pieces)
}

/// The table for people.
pub(super) fn table(pieces: &[Piece]) -> String {
    let head = "  guest address          size  side     BAR + offset".to_owned();
    let line = |piece: &Piece| {
        let side = if piece.private { "private" } else { "shared " };
        format!("  {:>#13x} {:>#13x}  {side}  {} + {:#x}", piece.gpa, piece.size, piece.bar, piece.offset)
    };
    [head].into_iter().chain(pieces.iter().map(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(index: u8, size: u64) -> Bar {
        Bar { index, address: 0x80_0000_0000, size, wide: true, prefetchable: index == 2 }
    }

    fn row(bar: Option<u8>, offset: u64, pages: u32, private: bool) -> RangeRow {
        RangeRow { range_id: 2, bar, offset: Some(offset), address: 0, pages, private, notes: vec![] }
    }

    #[test]
    fn bars_are_aligned_to_their_size_and_do_not_touch() {
        let windows = place(&[bar(0, 0x2000), bar(2, 0x1_0000)], Some(Half::High)).unwrap();
        let found: Vec<_> = windows.iter().map(|w| (w.gpa, w.size, w.plain, w.tee, w.memory)).collect();
        assert_eq!(found, [(0xc000_0000, 0x1000, 0, 0x1000, false), (0xc000_8000, 0x8000, 0, 0x8000, true)]);
        let low = place(&[bar(2, 0x1_0000)], Some(Half::Low)).unwrap();
        assert_eq!((low[0].plain, low[0].tee), (0x8000, 0));
        let same = place(&[bar(2, 0x1_0000)], None).unwrap();
        assert_eq!((same[0].size, same[0].plain, same[0].tee), (0x1_0000, 0, 0));
    }

    #[test]
    fn bars_without_room_are_refused() {
        for (size, alias) in [(0x1000, Some(Half::High)), (1 << 31, None), (1 << 63, None)] {
            assert!(matches!(place(&[bar(2, size)], alias), Err(Error::Usage(_))), "{size:#x}");
        }
    }

    #[test]
    fn a_report_becomes_a_layout_in_the_guests_order() {
        let windows = place(&[bar(0, 0x2000), bar(2, 0x1_0000)], Some(Half::Low)).unwrap();
        let rows = [row(Some(2), 0x2000, 2, false), row(Some(2), 0, 2, true), row(Some(0), 0, 1, true)];
        let pieces = cut(&windows, &rows).unwrap();
        let found: Vec<_> = pieces.iter().map(|p| (p.gpa, p.size, p.private)).collect();
        let expected =
            [(0xc000_0000, 0x1000, true), (0xc000_8000, 0x2000, true), (0xc000_a000, 0x2000, false)];
        assert_eq!(found, expected);
        assert_eq!(windows[1].start(&pieces[2], false), 0xa000);
        assert_eq!(windows[1].start(&pieces[1], true), 0);
        assert!(table(&pieces).lines().nth(3).unwrap().ends_with("shared   2 + 0x2000"));
    }

    #[test]
    fn ranges_beyond_the_guests_half_are_refused() {
        let windows = place(&[bar(2, 0x1_0000)], Some(Half::High)).unwrap();
        for wrong in [row(None, 0, 1, true), row(Some(4), 0, 1, true), row(Some(2), 0x7000, 2, true)] {
            assert!(matches!(cut(&windows, &[wrong]), Err(Error::Check(_))));
        }
        assert!(matches!(cut(&windows, &[row(Some(2), u64::MAX, 1, true)]), Err(Error::Check(_))));
    }
}
