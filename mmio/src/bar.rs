//! A BAR at work: cuts an access into pieces, asks the gate about each, and serves it from registers or memory.
use std::os::fd::OwnedFd;

use crate::memory::each;
use crate::pages::PageRange;
use crate::sides::{Revocation, Sides};
use crate::{Attribute, BarLayout, Gate, Kind, MemoryError, Range, TdiPhase, Tee, TeeSource, Verdict};

mod counters;
mod export;
mod load;

use counters::Cells;
pub use counters::{Cell, Counters};
pub use export::{ExportError, Exporting};
pub use load::LoadError;

/// What a requester reads where no one answers or where it may not.
const REJECTED: u8 = 0xff;

/// Who accesses a BAR, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The TDI's phase now.
    pub phase: TdiPhase,
    /// Where T comes from.
    pub tee: TeeSource,
}

/// Where in a BAR a piece of an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the BAR.
    pub bar: u8,
    /// What stands there; never [`Kind::Memory`].
    pub kind: Kind,
    /// Byte offset in the BAR.
    pub offset: u64,
    /// Byte offset in the range.
    pub offset_in_range: u64,
    /// The T attribute of the access.
    pub tee: Tee,
}

/// Everything in a BAR that is not memory. Called only for what the gate has let through.
pub trait RegisterBlock {
    /// Fills all of `data`, which lies in one range.
    fn read(&mut self, place: Place, data: &mut [u8]);
    /// Takes `data`, which lies in one range.
    fn write(&mut self, place: Place, data: &[u8]);
}

/// A piece of an access that the gate refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Number of the BAR.
    pub bar: u8,
    /// The cell of the gate that says so.
    pub cell: Cell,
    /// Byte offset of the piece in the BAR.
    pub offset: u64,
    /// Bytes in the piece.
    pub length: usize,
}

/// What became of an access. Whatever it says, a read has filled its whole buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Completion {
    /// The first piece the gate refused, if any. Other pieces of the same access may have been served: on a link they
    /// would be requests of their own.
    pub rejected: Option<Rejection>,
    /// Bytes that lay beyond the BAR: read as ones, written to nowhere.
    pub outside: usize,
}

/// Pages of a BAR that a client may map once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedArea {
    /// Byte offset in the BAR. Page-aligned.
    pub offset: u64,
    /// Bytes, whole pages.
    pub size: u64,
}

/// What a region's sparse mmap consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMapping {
    /// Where the BAR begins in the file that [`Bar::hand_out_shared`] gives, in bytes.
    pub offset: u64,
    /// The areas by ascending offset; neighbours are joined.
    pub areas: Vec<SharedArea>,
}

/// Pages of one range of the layout that have their attribute in common at the moment.
#[derive(Clone, Debug)]
struct Slot {
    /// The pages as they are now.
    range: Range,
    /// The whole range as the layout has it.
    origin: Range,
}

impl Slot {
    /// The same pages from `first` to before `end`, if there are any.
    fn cut(&self, first: u32, end: u32) -> Option<Self> {
        let first = first.max(self.range.first_page);
        let end = end.min(self.range.first_page + self.range.pages);
        let pages = end.checked_sub(first).filter(|pages| *pages > 0)?;
        Some(Self { range: Range { first_page: first, pages, ..self.range }, ..self.clone() })
    }

    fn pages(&self) -> PageRange {
        self.range.page_range()
    }

    fn is_memory(&self) -> bool {
        self.range.kind == Kind::Memory
    }
}

/// One BAR with its gate, memory and counters.
#[derive(Debug)]
pub struct Bar {
    layout: BarLayout,
    gate: Gate,
    exporting: Exporting,
    slots: Vec<Slot>,
    sides: Sides,
    counters: Cells,
}

impl Bar {
    /// A BAR whose memory is all zero.
    ///
    /// # Errors
    /// The host has no memory file to give.
    pub fn new(layout: BarLayout, gate: Gate, exporting: Exporting) -> Result<Self, MemoryError> {
        let slots = layout.ranges().iter().map(|&range| Slot { range, origin: range }).collect();
        let shift = if exporting.behind_itself { layout.pages() } else { 0 };
        let sides = Sides::new(layout.index(), layout.pages(), shift, exporting.maker.clone())?;
        Ok(Self { layout, gate, exporting, slots, sides, counters: Cells::new() })
    }

    /// What the BAR consists of.
    #[must_use]
    pub const fn layout(&self) -> &BarLayout {
        &self.layout
    }

    /// Pieces counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters.total()
    }

    /// The same by cell of the gate, for those that were met.
    pub fn cells(&self) -> impl Iterator<Item = (Cell, Counters)> {
        self.counters.used()
    }

    /// Serves a read of any length at any offset. All of `data` is filled: with ones where the gate refuses, beyond the
    /// BAR, and where memory fails.
    ///
    /// # Errors
    /// The first failure of the memory behind the BAR; the rest of the access was still carried out.
    pub fn read(
        &mut self,
        access: Access,
        offset: u64,
        data: &mut [u8],
        registers: &mut dyn RegisterBlock,
    ) -> Result<Completion, MemoryError> {
        let mut completion = Completion::default();
        let mut failure = Ok(());
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let Some((slot, length)) = piece(&self.slots, at, rest.len()) else {
                rest.fill(REJECTED);
                completion.outside = rest.len();
                break;
            };
            let (data, tail) = rest.split_at_mut(length);
            let cell = cell(access, &slot.range);
            let served = self.gate.verdict(cell.phase, cell.tee, cell.attribute) == Verdict::Allow;
            self.counters.count(cell, false, served);
            if !served {
                let rejection = Rejection { bar: self.layout.index(), cell, offset: at, length };
                completion.rejected.get_or_insert(rejection);
                data.fill(REJECTED);
            } else if slot.is_memory() {
                let side = side(access.phase, slot.range.attribute);
                if let Err(error) = self.sides.pages(side).read(at, data) {
                    data.fill(REJECTED);
                    failure = failure.and(Err(error));
                }
            } else {
                registers.read(place(self.layout.index(), &slot.origin, at, cell.tee), data);
            }
            at += length as u64;
            rest = tail;
        }
        failure.map(|()| completion)
    }

    /// Serves a write of any length at any offset; what the gate refuses and what lies beyond the BAR is dropped.
    ///
    /// # Errors
    /// The first failure of the memory behind the BAR; the rest of the access was still carried out.
    pub fn write(
        &mut self,
        access: Access,
        offset: u64,
        data: &[u8],
        registers: &mut dyn RegisterBlock,
    ) -> Result<Completion, MemoryError> {
        let mut completion = Completion::default();
        let mut failure = Ok(());
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let Some((slot, length)) = piece(&self.slots, at, rest.len()) else {
                completion.outside = rest.len();
                break;
            };
            let (data, tail) = rest.split_at(length);
            let cell = cell(access, &slot.range);
            let served = self.gate.verdict(cell.phase, cell.tee, cell.attribute) == Verdict::Allow;
            self.counters.count(cell, true, served);
            if !served {
                let rejection = Rejection { bar: self.layout.index(), cell, offset: at, length };
                completion.rejected.get_or_insert(rejection);
            } else if slot.is_memory() {
                let side = side(access.phase, slot.range.attribute);
                if let Err(error) = self.sides.pages(side).write(at, data) {
                    failure = failure.and(Err(error));
                }
            } else {
                registers.write(place(self.layout.index(), &slot.origin, at, cell.tee), data);
            }
            at += length as u64;
            rest = tail;
        }
        failure.map(|()| completion)
    }

    /// The ranges as they are now, cut where [`Bar::set_attribute`] did so.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        self.slots.iter().map(|slot| slot.range)
    }

    /// Gives `pages` pages from `first_page` on to the other side, until [`Bar::scrub_private`]. Memory among them is
    /// zeroed, because it changes hands, and exports of it are revoked; pages that had the attribute already stay as they
    /// are. Pages beyond the BAR are not looked at.
    ///
    /// # Errors
    /// The first failure; all pages have their new attribute nevertheless. Data of the former side may then be left: the
    /// TDI must not go on.
    pub fn set_attribute(
        &mut self,
        first_page: u32,
        pages: u32,
        attribute: Attribute,
    ) -> Result<(), MemoryError> {
        let end = first_page.saturating_add(pages);
        let mut result = Ok(());
        let mut slots = Vec::with_capacity(self.slots.len() + 2);
        for slot in core::mem::take(&mut self.slots) {
            slots.extend(slot.cut(0, first_page));
            if let Some(mut moved) = slot.cut(first_page, end) {
                if moved.range.attribute != attribute {
                    if moved.is_memory() {
                        let from = owner(moved.range.attribute);
                        result = result.and(self.change_hands(&moved.range, &[from]));
                    }
                    moved.range.attribute = attribute;
                }
                slots.push(moved);
            }
            slots.extend(slot.cut(end, u32::MAX));
        }
        self.slots = slots;
        result
    }

    /// LOCK: private memory goes from the host to nobody, zeroed, and the host's exports of it are revoked.
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn lock(&mut self) -> Result<(), MemoryError> {
        let private = self.memory(Range::is_private);
        let swept = self.sides.sweep_but(Tee::NonTee, &pages(&private));
        let empty = each(private.iter().map(|range| self.change_hands(range, &[Tee::NonTee])));
        // What was exported early shows ones again.
        swept.and(empty).and(self.sides.darken())
    }

    /// START: private memory goes to the TVM, zeroed; exports of it made before are good now.
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn start(&mut self) -> Result<(), MemoryError> {
        let private = self.memory(Range::is_private);
        let swept = self.sides.sweep_but(Tee::Tee, &pages(&private));
        self.sides.start();
        swept.and(each(private.iter().map(|range| self.sides.pages(Tee::Tee).zero(range.page_range()))))
    }

    /// ERROR: private memory is nobody's, zeroed, and exports of it are revoked. Pages keep their attributes.
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn fail(&mut self) -> Result<(), MemoryError> {
        let private = self.memory(Range::is_private);
        let swept = self.sides.sweep_but(Tee::Tee, &pages(&private));
        swept.and(each(private.iter().map(|range| self.change_hands(range, &[Tee::Tee]))))
    }

    /// Back in CONFIG_UNLOCKED, all memory is the host's; mappings that were only refused are good again. Comes after
    /// [`Bar::scrub_private`].
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn unlock(&mut self) -> Result<(), MemoryError> {
        let swept = self.sides.sweep();
        swept.and(self.sides.revive())
    }

    /// Zeroes all memory that is private or may become so, revokes exports of what was private, and gives every page the
    /// attribute of its layout again.
    ///
    /// # Errors
    /// The first failure; the other ranges were still zeroed. Confidential data may then be left: the TDI must not be
    /// given to anyone else.
    pub fn scrub_private(&mut self) -> Result<(), MemoryError> {
        let tee = self.memory(Range::may_be_private);
        let mut result = self.sides.sweep_but(Tee::Tee, &pages(&tee));
        for slot in self.slots.clone() {
            if slot.is_memory() && slot.origin.may_be_private() {
                let lost: &[Tee] = if slot.range.attribute == Attribute::Shared && slot.origin.is_private() {
                    &[Tee::NonTee, Tee::Tee]
                } else {
                    &[Tee::Tee]
                };
                result = result.and(self.change_hands(&slot.range, lost));
            }
        }
        self.slots.retain_mut(|slot| {
            let first = slot.range.first_page == slot.origin.first_page;
            slot.range = slot.origin;
            first
        });
        result
    }

    /// Zeroes all memory, as a reset does. Pages keep their attributes.
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn scrub_all(&mut self) -> Result<(), MemoryError> {
        let memory = self.memory(|_| true);
        each(memory.iter().map(|range| self.zero(range.page_range())))
    }

    /// The host that had the BAR is gone: another one gets memory that the former cannot reach, zeroed. Comes after
    /// [`Bar::scrub_private`].
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn change_host(&mut self) -> Result<(), MemoryError> {
        let parted = self.sides.part();
        parted.and(self.scrub_all())
    }

    /// The memory pages that never become TEE memory, for a mapping that cannot be taken back. `None` if there are none, or
    /// if some of them are in an export at the moment.
    #[must_use]
    pub fn shared_mapping(&self) -> Option<SharedMapping> {
        let mut areas: Vec<SharedArea> = Vec::new();
        for Slot { range, .. } in self.slots.iter().filter(|slot| slot.is_memory()) {
            if range.may_be_private() {
                continue;
            }
            if self.sides.is_exported(Tee::NonTee, range.page_range()) {
                return None;
            }
            match areas.last_mut().filter(|last| last.offset + last.size == range.offset()) {
                Some(last) => last.size += range.size(),
                None => areas.push(SharedArea { offset: range.offset(), size: range.size() }),
            }
        }
        let offset = if self.exporting.behind_itself { self.layout.size() } else { 0 };
        (!areas.is_empty()).then_some(SharedMapping { offset, areas })
    }

    /// The one file of all areas of [`Bar::shared_mapping`], as a region has room for one descriptor. All of it is T = 0: nothing
    /// that was ever private is in it. As long as somebody holds it, the pages of the areas are not exported.
    ///
    /// # Errors
    /// The host has no descriptor to give.
    pub fn hand_out_shared(&mut self) -> Result<OwnedFd, MemoryError> {
        // Pages of exports that nobody holds any more have to be in it.
        self.sides.sweep()?;
        self.sides.hand_out(Tee::NonTee)
    }

    /// Memory ranges that are like this now.
    fn memory(&self, which: impl Fn(&Range) -> bool) -> Vec<Range> {
        self.slots.iter().filter(|slot| slot.is_memory()).map(|slot| slot.range).filter(which).collect()
    }

    /// Exports of the sides that lose the pages are revoked; then the pages are zero on both.
    fn change_hands(&mut self, range: &Range, lost: &[Tee]) -> Result<(), MemoryError> {
        let pages = range.page_range();
        let how = self.revocation(range);
        let revoked = each(lost.iter().map(|side| self.sides.revoke(*side, pages, how)));
        revoked.and(self.zero(pages))
    }

    /// What becomes of exports of a range.
    fn revocation(&self, range: &Range) -> Revocation {
        range.revocation.unwrap_or(self.exporting.revocation)
    }

    fn zero(&self, pages: PageRange) -> Result<(), MemoryError> {
        self.sides.pages(Tee::NonTee).zero(pages).and(self.sides.pages(Tee::Tee).zero(pages))
    }
}

fn pages(ranges: &[Range]) -> Vec<PageRange> {
    ranges.iter().map(Range::page_range).collect()
}

/// The side that a page's memory belongs to while the TDI is locked.
const fn owner(attribute: Attribute) -> Tee {
    match attribute {
        Attribute::Private => Tee::Tee,
        Attribute::Shared => Tee::NonTee,
    }
}

/// The side that a page's memory belongs to now: in CONFIG_UNLOCKED all of it is the host's.
const fn side(phase: TdiPhase, attribute: Attribute) -> Tee {
    match phase {
        TdiPhase::Unlocked => Tee::NonTee,
        TdiPhase::Locked | TdiPhase::Run | TdiPhase::Error => owner(attribute),
    }
}

/// The range at `at` and how much of the next `remaining` bytes it covers; `None` beyond the BAR.
fn piece(slots: &[Slot], at: u64, remaining: usize) -> Option<(&Slot, usize)> {
    let behind = slots.partition_point(|slot| slot.range.end() <= at);
    let slot = slots.get(behind)?;
    let left = usize::try_from(slot.range.end() - at).unwrap_or(usize::MAX);
    Some((slot, remaining.min(left)))
}

/// Which cell of the gate an access to a range meets.
const fn cell(access: Access, range: &Range) -> Cell {
    let Access { phase, tee } = access;
    let Range { kind, attribute, .. } = *range;
    Cell { kind, phase, tee: tee.resolve(phase, attribute), attribute }
}

const fn place(bar: u8, origin: &Range, offset: u64, tee: Tee) -> Place {
    Place { bar, kind: origin.kind, offset, offset_in_range: offset - origin.offset(), tee }
}

#[cfg(test)]
mod tests;
