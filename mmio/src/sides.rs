//! The two sides of a BAR's memory, T = 0 and T = 1, and what was exported of each.
//!
//! A side has files of its own, so that no byte gets from one to the other whatever anybody has mapped. An export is a file
//! that stands in for the BAR's own as long as somebody holds it; when its pages go to the other side, it goes the way of
//! its [`Revocation`].
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::memory::{FileAccess, MemoryFile, Size, each};
use crate::pages::{PageRange, Pages};
use crate::{MemoryError, PAGE_SIZE, Tee};

/// What becomes of an export whose pages go to the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The holder keeps dead pages, the device moves on.
    #[default]
    Orphan,
    /// All of the export's pages are taken away: the holder gets SIGBUS.
    Sigbus,
    /// The mapping stays but is refused: ones. One of the T = 0 side is good again when the pages come back, zeroed.
    Keep,
}

/// An export that lost pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its side.
    pub side: Tee,
    /// What it consisted of, in its own order.
    pub ranges: Vec<PageRange>,
    /// What became of it.
    pub how: Revocation,
    /// Whether somebody still had it.
    pub held: bool,
}

/// Why [`Sides::export`] has no descriptor to give.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another export has some of the pages.
    Overlap(PageRange),
    /// The host.
    Memory(MemoryError),
}

impl From<MemoryError> for Refused {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

#[derive(Debug)]
struct Export {
    side: Tee,
    ranges: Vec<PageRange>,
    file: Arc<MemoryFile>,
    /// Pages that are the device's.
    live: Vec<PageRange>,
    /// Pages that come back to it.
    kept: Vec<PageRange>,
    /// Its holder may not see anything yet: ones until [`Sides::start`].
    dark: bool,
}

impl Export {
    /// Whether all of its pages are the device's.
    fn is_whole(&self) -> bool {
        let count = |ranges: &[PageRange]| ranges.iter().map(|range| u64::from(range.pages)).sum::<u64>();
        count(&self.live) == count(&self.ranges)
    }

    /// The pages of `range` that it consists of, each run with its first page in the file.
    fn pieces(&self, range: PageRange) -> Vec<(PageRange, u32)> {
        let mut file_page = 0;
        let mut pieces = Vec::new();
        for own in &self.ranges {
            if let Some(both) = own.overlap(&range) {
                pieces.push((both, file_page + (both.first - own.first)));
            }
            file_page += own.pages;
        }
        pieces
    }
}

/// Removes `range` from a list of ranges.
fn subtract(list: &mut Vec<PageRange>, range: PageRange) {
    let cut = |own: &PageRange| {
        let before =
            PageRange { first: own.first, pages: range.first.min(own.end()).saturating_sub(own.first) };
        let first = range.end().max(own.first);
        let after = PageRange { first, pages: own.end().saturating_sub(first) };
        [before, after]
    };
    *list = list.iter().flat_map(cut).filter(|rest| rest.pages > 0).collect();
}

/// All memory of a BAR.
#[derive(Debug)]
pub(crate) struct Sides {
    bar: u8,
    non_tee: Pages,
    tee: Pages,
    exports: Vec<Export>,
    revoked: Vec<Revoked>,
}

impl Sides {
    /// `pages` pages of zeroes on each side; those of T = 0 begin at page `shift` of their file.
    pub(crate) fn new(bar: u8, pages: u32, shift: u32) -> Result<Self, MemoryError> {
        Ok(Self {
            bar,
            non_tee: Pages::new(bar, &format!("bar{bar}-t0"), pages, shift)?,
            tee: Pages::new(bar, &format!("bar{bar}-t1"), pages, 0)?,
            exports: Vec::new(),
            revoked: Vec::new(),
        })
    }

    /// A descriptor of a side's own file, without what is exported.
    pub(crate) fn hand_out(&self, side: Tee) -> Result<OwnedFd, MemoryError> {
        self.pages(side).base().hand_out(FileAccess::ReadWrite)
    }

    /// Whether somebody holds what [`Self::hand_out`] gave.
    pub(crate) fn is_handed_out(&self, side: Tee) -> bool {
        self.pages(side).base().is_held()
    }

    /// Whether a page of `range` is in an export that somebody holds.
    pub(crate) fn is_exported(&self, side: Tee, range: PageRange) -> bool {
        let own = self.exports.iter().filter(|export| export.side == side && export.file.is_held());
        own.flat_map(|export| &export.live).any(|live| live.overlap(&range).is_some())
    }

    pub(crate) const fn pages(&self, side: Tee) -> &Pages {
        match side {
            Tee::NonTee => &self.non_tee,
            Tee::Tee => &self.tee,
        }
    }

    const fn pages_mut(&mut self, side: Tee) -> &mut Pages {
        match side {
            Tee::NonTee => &mut self.non_tee,
            Tee::Tee => &mut self.tee,
        }
    }

    /// A descriptor of a file with `ranges` one behind the other, which do not overlap. It is the device's memory from now on; if it
    /// is `dark`, it is full of ones until [`Sides::start`]. Who asks for the same again gets the same.
    pub(crate) fn export(
        &mut self,
        side: Tee,
        ranges: &[PageRange],
        dark: bool,
        size: Size,
        access: FileAccess,
    ) -> Result<OwnedFd, Refused> {
        self.sweep()?;
        for export in self.exports.iter().filter(|export| export.side == side) {
            if export.ranges == ranges && export.is_whole() {
                return Ok(export.file.hand_out(access)?);
            }
            let mut taken = export.live.iter().chain(&export.kept);
            if let Some(taken) = taken.find_map(|own| ranges.iter().find_map(|range| own.overlap(range))) {
                return Err(Refused::Overlap(taken));
            }
        }
        let total: u64 = ranges.iter().map(PageRange::size).sum();
        let name = format!("bar{}-export", self.bar);
        let file = Arc::new(MemoryFile::new(self.bar, &name, total, size)?);
        let mut file_page = 0;
        for range in ranges {
            let at = u64::from(file_page) * PAGE_SIZE;
            if dark {
                file.fill_with_ones(at, range.size())?;
            } else {
                self.pages(side).copy(*range, &file, at)?;
            }
            file_page += range.pages;
        }
        let fd = file.hand_out(access)?;
        // Given back to the system, and what `take_back` finds.
        each(ranges.iter().map(|range| self.pages(side).zero(*range)))?;
        let mut file_page = 0;
        for range in ranges {
            self.pages_mut(side).send(*range, &file, file_page);
            file_page += range.pages;
        }
        let live = ranges.to_vec();
        self.exports.push(Export { side, ranges: ranges.to_vec(), file, live, kept: Vec::new(), dark });
        Ok(fd)
    }

    /// Takes back exports that nobody holds any more, with what is in them.
    pub(crate) fn sweep(&mut self) -> Result<(), MemoryError> {
        let (held, gone): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.exports).into_iter().partition(|export| export.file.is_held());
        self.exports = held;
        each(gone.iter().map(|export| self.take_back(export)))
    }

    /// The live pages of an export are in the BAR's own file again, with what was in them.
    fn take_back(&mut self, export: &Export) -> Result<(), MemoryError> {
        let mut result = Ok(());
        for (piece, file_page) in export.live.iter().flat_map(|range| export.pieces(*range)) {
            let pages = self.pages_mut(export.side);
            pages.call_back(piece);
            if !export.dark {
                let from = u64::from(file_page) * PAGE_SIZE;
                result = result.and(pages.fill_from(piece, &export.file, from));
            }
        }
        result
    }

    /// Pages that go to the other side are in no export any more. Those that are left are as the exports had them.
    ///
    /// # Errors
    /// The first failure; an export may then show its holder what it should not.
    pub(crate) fn revoke(&mut self, side: Tee, range: PageRange, how: Revocation) -> Result<(), MemoryError> {
        let mut result = Ok(());
        let mut left = Vec::new();
        for mut export in core::mem::take(&mut self.exports) {
            let pieces: Vec<_> = if export.side == side {
                let live = export.live.iter().filter_map(|live| live.overlap(&range));
                live.flat_map(|live| export.pieces(live)).collect()
            } else {
                Vec::new()
            };
            if pieces.is_empty() {
                left.push(export);
                continue;
            }
            // Pages of one export may go one by one.
            if !self.revoked.iter().any(|known| known.side == side && known.ranges == export.ranges) {
                let (ranges, held) = (export.ranges.clone(), export.file.is_held());
                self.revoked.push(Revoked { side, ranges, how, held });
            }
            for (piece, file_page) in &pieces {
                let at = u64::from(*file_page) * PAGE_SIZE;
                self.pages_mut(side).call_back(*piece);
                subtract(&mut export.live, *piece);
                result = result.and(match (how, side) {
                    // What the hypervisor wrote itself.
                    (Revocation::Orphan, Tee::NonTee) => Ok(()),
                    (Revocation::Orphan | Revocation::Sigbus, _) => export.file.zero(at, piece.size()),
                    (Revocation::Keep, _) => export.file.fill_with_ones(at, piece.size()),
                });
                if how == Revocation::Keep && side == Tee::NonTee {
                    export.kept.push(*piece);
                }
            }
            if how == Revocation::Sigbus {
                result = result.and(self.take_back(&export)).and(export.file.cut());
            } else if !export.live.is_empty() || !export.kept.is_empty() {
                left.push(export);
            }
        }
        self.exports = left;
        result
    }

    /// Exports that are dark are full of ones again.
    pub(crate) fn darken(&self) -> Result<(), MemoryError> {
        let dark = self.exports.iter().filter(|export| export.dark);
        each(dark.flat_map(|export| {
            let pieces = export.live.iter().flat_map(|live| export.pieces(*live));
            pieces.map(|(piece, file_page)| {
                export.file.fill_with_ones(u64::from(file_page) * PAGE_SIZE, piece.size())
            })
        }))
    }

    /// Exports of the T = 1 side are the device's memory now, not only by name. The pages are zeroed by the caller.
    pub(crate) fn start(&mut self) {
        for export in self.exports.iter_mut().filter(|export| export.side == Tee::Tee) {
            export.dark = false;
        }
    }

    /// Pages of the T = 0 side that were kept are the device's again, zeroed.
    pub(crate) fn revive(&mut self) -> Result<(), MemoryError> {
        let mut result = Ok(());
        for export in &mut self.exports {
            let kept = core::mem::take(&mut export.kept);
            let pieces: Vec<_> = kept.iter().flat_map(|range| export.pieces(*range)).collect();
            for (piece, file_page) in pieces {
                result = result.and(export.file.zero(u64::from(file_page) * PAGE_SIZE, piece.size()));
                self.non_tee.send(piece, &export.file, file_page);
                export.live.push(piece);
            }
        }
        result
    }

    /// The host changes: whatever the former one still holds or has mapped, of either side, is not the device's any more.
    /// Memory is as it was in the BAR's own files, for the caller to zero.
    pub(crate) fn part(&mut self) -> Result<(), MemoryError> {
        for export in core::mem::take(&mut self.exports) {
            for piece in export.live {
                self.pages_mut(export.side).call_back(piece);
            }
        }
        self.non_tee.renew()
    }

    /// Exports that lost pages since the last call.
    pub(crate) fn take_revoked(&mut self) -> Vec<Revoked> {
        core::mem::take(&mut self.revoked)
    }

    /// How many exports somebody holds.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.exports.iter().filter(|export| export.file.is_held()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut() {
        let range = |first, pages| PageRange { first, pages };
        for (cut, expected) in [
            (range(0, 2), vec![range(2, 3), range(8, 2)]),
            (range(3, 1), vec![range(2, 1), range(4, 1), range(8, 2)]),
            (range(4, 5), vec![range(2, 2), range(9, 1)]),
            (range(0, 16), vec![]),
            (range(5, 3), vec![range(2, 3), range(8, 2)]),
        ] {
            let mut list = vec![range(2, 3), range(8, 2)];
            subtract(&mut list, cut);
            assert_eq!(list, expected, "{cut:?}");
        }
    }
}
