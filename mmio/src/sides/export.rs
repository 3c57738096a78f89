//! One export: which of its pages are the device's memory, and where they are in its file.
use std::sync::Arc;

use crate::Tee;
use crate::memory::MemoryFile;
use crate::pages::PageRange;

/// Pages that are next to each other in the BAR and in the export's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) pages: PageRange,
    /// Where they begin in the file.
    pub(super) file_page: u32,
}

impl Piece {
    /// The pages of it that are in `range`.
    fn within(&self, range: &PageRange) -> Option<Self> {
        let pages = self.pages.overlap(range)?;
        Some(Self { pages, file_page: self.file_page + (pages.first - self.pages.first) })
    }
}

/// A file that stands in for pages of a BAR.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) side: Tee,
    /// As asked for: one behind the other in the file.
    pub(super) ranges: Vec<PageRange>,
    pub(super) file: Arc<MemoryFile>,
    /// Pages that are the device's, by their first.
    live: Vec<Piece>,
    /// Pages that come back to it.
    kept: Vec<Piece>,
    /// Its holder may not see anything yet: ones until `Sides::start`.
    pub(super) dark: bool,
}

impl Export {
    /// `ranges`, which do not overlap and which the file has room for.
    pub(super) fn new(side: Tee, ranges: Vec<PageRange>, file: Arc<MemoryFile>, dark: bool) -> Self {
        let mut file_page = 0;
        let mut live = Vec::with_capacity(ranges.len());
        for &pages in &ranges {
            live.push(Piece { pages, file_page });
            file_page += pages.pages;
        }
        live.sort_by_key(|piece| piece.pages.first);
        Self { side, ranges, file, live, kept: Vec::new(), dark }
    }

    /// The pages that are the device's memory.
    pub(super) fn live(&self) -> &[Piece] {
        &self.live
    }

    /// Whether pages of it are or may become the device's.
    pub(super) fn is_alive(&self) -> bool {
        !self.live.is_empty() || !self.kept.is_empty()
    }

    /// Bytes of its file.
    pub(super) fn size(&self) -> u64 {
        self.ranges.iter().map(PageRange::size).sum()
    }

    /// Whether all of its pages are the device's.
    pub(super) fn is_whole(&self) -> bool {
        size(&self.live) == self.size()
    }

    /// Bytes that neither are nor may become the device's.
    pub(super) fn lost(&self) -> u64 {
        self.size().saturating_sub(size(&self.live) + size(&self.kept))
    }

    /// The first page of `sorted`, ranges in ascending order, that is or may become this export's.
    pub(super) fn first_common(&self, sorted: &[PageRange]) -> Option<PageRange> {
        [&self.live, &self.kept].into_iter().flatten().find_map(|piece| {
            let behind = sorted.partition_point(|range| range.end() <= piece.pages.first);
            sorted.get(behind)?.overlap(&piece.pages)
        })
    }

    /// Takes the pages of `range` away from the device, and returns them; if they are kept, [`Self::revive`] brings them back.
    pub(super) fn lose(&mut self, range: PageRange, keep: bool) -> Vec<Piece> {
        let before = PageRange { first: 0, pages: range.first };
        let after = PageRange { first: range.end(), pages: u32::MAX - range.end() };
        let lost: Vec<_> = self.live.iter().filter_map(|piece| piece.within(&range)).collect();
        if !lost.is_empty() {
            let rest = |piece: &Piece| [piece.within(&before), piece.within(&after)].into_iter().flatten();
            self.live = self.live.iter().flat_map(rest).collect();
        }
        if keep {
            self.kept.extend(&lost);
        }
        lost
    }

    /// The pages that were kept are the device's again; returns them.
    pub(super) fn revive(&mut self) -> Vec<Piece> {
        let kept = core::mem::take(&mut self.kept);
        self.live.extend(&kept);
        self.live.sort_by_key(|piece| piece.pages.first);
        kept
    }
}

fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.pages.size()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Size;

    const fn range(first: u32, pages: u32) -> PageRange {
        PageRange { first, pages }
    }

    fn export() -> Export {
        let file = MemoryFile::new(0, "test", 5 * 4096, Size::Final).unwrap();
        // Pages 8 and 9 come first in the file, 2 to 4 behind them.
        Export::new(Tee::NonTee, vec![range(8, 2), range(2, 3)], Arc::new(file), false)
    }

    fn places(pieces: &[Piece]) -> Vec<(u32, u32, u32)> {
        pieces.iter().map(|piece| (piece.pages.first, piece.pages.pages, piece.file_page)).collect()
    }

    #[test]
    fn pages_are_lost_wherever_the_cut_falls() {
        for (cut, lost, left) in [
            (range(0, 2), vec![], vec![(2, 3, 2), (8, 2, 0)]),
            (range(3, 1), vec![(3, 1, 3)], vec![(2, 1, 2), (4, 1, 4), (8, 2, 0)]),
            (range(4, 5), vec![(4, 1, 4), (8, 1, 0)], vec![(2, 2, 2), (9, 1, 1)]),
            (range(0, 16), vec![(2, 3, 2), (8, 2, 0)], vec![]),
            (range(5, 3), vec![], vec![(2, 3, 2), (8, 2, 0)]),
            (range(0, u32::MAX), vec![(2, 3, 2), (8, 2, 0)], vec![]),
        ] {
            let mut export = export();
            assert_eq!(places(&export.lose(cut, false)), lost, "{cut:?}");
            assert_eq!(places(export.live()), left, "{cut:?}");
            assert_eq!(export.is_whole(), lost.is_empty(), "{cut:?}");
            assert_eq!(export.is_alive(), !left.is_empty(), "{cut:?}");
            assert_eq!(
                export.lost(),
                lost.iter().map(|(_, pages, _)| u64::from(*pages) * 4096).sum::<u64>(),
                "{cut:?}"
            );
        }
    }

    #[test]
    fn kept_pages_come_back() {
        let mut export = export();
        export.lose(range(3, 6), true);
        assert!(export.is_alive() && !export.is_whole());
        assert_eq!(export.lost(), 0, "they come back");
        assert_eq!(export.first_common(&[range(8, 1)]), Some(range(8, 1)), "nobody else can have them");
        assert_eq!(places(&export.revive()), [(3, 2, 3), (8, 1, 0)]);
        assert_eq!(places(export.live()), [(2, 1, 2), (3, 2, 3), (8, 1, 0), (9, 1, 1)]);
        assert!(export.is_whole());
    }

    #[test]
    fn common_pages_are_found() {
        let export = export();
        for (ranges, common) in [
            (vec![range(0, 2), range(5, 3), range(10, 9)], None),
            (vec![range(0, 2), range(4, 9)], Some(range(4, 1))),
            (vec![range(0, 1), range(1, 1), range(9, 1), range(11, 2)], Some(range(9, 1))),
        ] {
            assert_eq!(export.first_common(&ranges), common, "{ranges:?}");
        }
    }
}
