//! The two sides of a BAR's memory, T = 0 and T = 1, and what was exported of each.
//!
//! A side has files of its own, so that no byte gets from one to the other whatever anybody has mapped. An export is a file
//! that stands in for the BAR's own as long as somebody holds it; when its pages go to the other side, it goes the way of
//! its [`Revocation`].
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::memory::{DmaBufMaker, FileAccess, FileKind, MemoryFile, Size, each};
use crate::pages::{PageRange, Pages};
use crate::{MemoryError, PAGE_SIZE, Tee};

mod export;
mod former;

use export::{Export, Piece};
use former::Former;

/// Most exports of a BAR that somebody holds. Each costs a descriptor or two, of which a process has few, and a look at every sweep.
pub(crate) const MAX_EXPORTS: usize = 128;

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

/// Memory that is given away.
#[derive(Debug)]
pub struct Exported {
    /// The descriptor.
    pub fd: OwnedFd,
    /// What it is of.
    pub kind: FileKind,
}

/// Why [`Sides::export`] has no descriptor to give.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another export has some of the pages.
    Overlap(PageRange),
    /// A dma-buf can be written to.
    ReadOnly,
    /// There are [`MAX_EXPORTS`].
    TooMany,
    /// So many bytes of exports that lost their pages are in use by their holders.
    Lingering(u64),
    /// The host.
    Memory(MemoryError),
}

impl From<MemoryError> for Refused {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

/// All memory of a BAR.
#[derive(Debug)]
pub(crate) struct Sides {
    bar: u8,
    non_tee: Pages,
    tee: Pages,
    exports: Vec<Export>,
    former: Former,
    revoked: Vec<Revoked>,
    /// Exports that their holders gave up, since the last call of [`Self::take_dropped`].
    dropped: Vec<Tee>,
    /// What makes exports that cannot be cut.
    maker: Option<Arc<dyn DmaBufMaker>>,
}

impl Sides {
    /// `pages` pages of zeroes on each side; those of T = 0 begin at page `shift` of their file.
    pub(crate) fn new(
        bar: u8,
        pages: u32,
        shift: u32,
        maker: Option<Arc<dyn DmaBufMaker>>,
    ) -> Result<Self, MemoryError> {
        Ok(Self {
            bar,
            non_tee: Pages::new(bar, &format!("bar{bar}-t0"), pages, shift)?,
            tee: Pages::new(bar, &format!("bar{bar}-t1"), pages, 0)?,
            exports: Vec::new(),
            former: Former::default(),
            revoked: Vec::new(),
            dropped: Vec::new(),
            maker,
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
        own.flat_map(Export::live).any(|piece| piece.pages.overlap(&range).is_some())
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
    ) -> Result<Exported, Refused> {
        let maker = self.maker.clone().filter(|_| size == Size::Final);
        if maker.is_some() && access == FileAccess::ReadOnly {
            return Err(Refused::ReadOnly);
        }
        self.sweep()?;
        let mut sorted = ranges.to_vec();
        sorted.sort_by_key(|range| range.first);
        for export in self.exports.iter().filter(|export| export.side == side) {
            if export.ranges == ranges && export.is_whole() {
                return Ok(Exported { fd: export.file.hand_out(access)?, kind: export.file.kind() });
            }
            if let Some(taken) = export.first_common(&sorted) {
                return Err(Refused::Overlap(taken));
            }
        }
        let total: u64 = ranges.iter().map(PageRange::size).sum();
        self.check_room(total)?;
        let name = format!("bar{}-export", self.bar);
        let mut file = MemoryFile::new(self.bar, &name, total, size)?;
        if let Some(maker) = &maker {
            file.make_dmabuf(maker, total)?;
        }
        let kind = file.kind();
        let export = Export::new(side, ranges.to_vec(), Arc::new(file), dark);
        for &Piece { pages, file_page } in export.live() {
            let at = u64::from(file_page) * PAGE_SIZE;
            if dark {
                export.file.fill_with_ones(at, pages.size())?;
            } else {
                self.pages(side).copy(pages, &export.file, at)?;
            }
        }
        let fd = export.file.hand_out(access)?;
        // Given back to the system, and what `take_back` finds.
        each(ranges.iter().map(|range| self.pages(side).zero(*range)))?;
        for &Piece { pages, file_page } in export.live() {
            self.pages_mut(side).send(pages, &export.file, file_page);
        }
        self.exports.push(export);
        Ok(Exported { fd, kind })
    }

    /// Whether another export of `bytes` bytes may be made, as far as those go that somebody holds.
    fn check_room(&self, bytes: u64) -> Result<(), Refused> {
        if self.exports.len() + self.former.len() >= MAX_EXPORTS {
            return Err(Refused::TooMany);
        }
        let lost: u64 = self.exports.iter().map(Export::lost).sum();
        let lingering = lost + self.former.bytes();
        // All pages of an export are lost in the end.
        if lingering + bytes > Former::limit(self.non_tee.size()) {
            return Err(Refused::Lingering(lingering));
        }
        Ok(())
    }

    /// Takes back exports that nobody holds any more, with what is in them.
    pub(crate) fn sweep(&mut self) -> Result<(), MemoryError> {
        self.sweep_but(Tee::NonTee, &[])
    }

    /// The same, but what is in `doomed` pages of `side` is lost: they are to be zeroed next.
    pub(crate) fn sweep_but(&mut self, side: Tee, doomed: &[PageRange]) -> Result<(), MemoryError> {
        let (held, mut gone): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.exports).into_iter().partition(|export| export.file.is_held());
        self.exports = held;
        self.former.sweep();
        self.dropped.extend(gone.iter().map(|export| export.side));
        for export in gone.iter_mut().filter(|export| export.side == side) {
            for lost in doomed.iter().flat_map(|range| export.lose(*range, false)) {
                self.pages_mut(side).call_back(lost.pages);
            }
        }
        each(gone.iter().map(|export| self.take_back(export)))
    }

    /// The live pages of an export are in the BAR's own file again, with what was in them.
    fn take_back(&mut self, export: &Export) -> Result<(), MemoryError> {
        let mut result = Ok(());
        for &Piece { pages, file_page } in export.live() {
            let own = self.pages_mut(export.side);
            own.call_back(pages);
            if !export.dark {
                let from = u64::from(file_page) * PAGE_SIZE;
                result = result.and(own.fill_from(pages, &export.file, from));
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
            let keep = how == Revocation::Keep && side == Tee::NonTee;
            let lost = if export.side == side { export.lose(range, keep) } else { Vec::new() };
            if lost.is_empty() {
                left.push(export);
                continue;
            }
            // Pages of one export may go one by one.
            if !self.revoked.iter().any(|known| known.side == side && known.ranges == export.ranges) {
                let (ranges, held) = (export.ranges.clone(), export.file.is_held());
                self.revoked.push(Revoked { side, ranges, how, held });
            }
            for Piece { pages, file_page } in lost {
                let at = u64::from(file_page) * PAGE_SIZE;
                self.pages_mut(side).call_back(pages);
                result = result.and(match (how, side) {
                    // What the hypervisor wrote itself.
                    (Revocation::Orphan, Tee::NonTee) => Ok(()),
                    (Revocation::Orphan | Revocation::Sigbus, _) => export.file.zero(at, pages.size()),
                    (Revocation::Keep, _) => export.file.fill_with_ones(at, pages.size()),
                });
            }
            if how == Revocation::Sigbus {
                result = result.and(self.take_back(&export)).and(export.file.cut());
            } else if export.is_alive() {
                left.push(export);
            } else {
                self.former.push(Arc::clone(&export.file), export.size());
            }
        }
        self.exports = left;
        result
    }

    /// Exports that are dark are full of ones again.
    pub(crate) fn darken(&self) -> Result<(), MemoryError> {
        let dark = self.exports.iter().filter(|export| export.dark);
        each(dark.flat_map(|export| {
            let ones = |piece: &Piece| {
                export.file.fill_with_ones(u64::from(piece.file_page) * PAGE_SIZE, piece.pages.size())
            };
            export.live().iter().map(ones)
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
            for Piece { pages, file_page } in export.revive() {
                result = result.and(export.file.zero(u64::from(file_page) * PAGE_SIZE, pages.size()));
                self.non_tee.send(pages, &export.file, file_page);
            }
        }
        result
    }

    /// The host changes: whatever the former one still holds or has mapped, of either side, is not the device's any more.
    /// Memory is as it was in the BAR's own files, for the caller to zero.
    pub(crate) fn part(&mut self) -> Result<(), MemoryError> {
        for export in core::mem::take(&mut self.exports) {
            for piece in export.live() {
                self.pages_mut(export.side).call_back(piece.pages);
            }
            self.former.push(Arc::clone(&export.file), export.size());
        }
        self.non_tee.renew()
    }

    /// Exports that lost pages since the last call.
    pub(crate) fn take_revoked(&mut self) -> Vec<Revoked> {
        core::mem::take(&mut self.revoked)
    }

    /// The sides of exports that turned out to be held by nobody, since the last call.
    pub(crate) fn take_dropped(&mut self) -> Vec<Tee> {
        core::mem::take(&mut self.dropped)
    }

    /// The pages that are in exports, each run with its side. Of some of them the last holder may be gone.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (Tee, PageRange)> {
        self.exports
            .iter()
            .flat_map(|export| export.live().iter().map(move |piece| (export.side, piece.pages)))
    }

    /// How many exports somebody holds.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.exports.iter().filter(|export| export.file.is_held()).count()
    }
}
