//! A BAR at work: cuts an access into pieces, asks the gate about each, and serves it from registers or memory.
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::memory::MemoryFile;
use crate::{Attribute, BarLayout, Gate, Kind, MemoryError, Range, TdiPhase, Tee, TeeSource, Verdict};

mod load;

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
    /// What stands there.
    pub kind: Kind,
    /// Byte offset of the piece in the BAR.
    pub offset: u64,
    /// Bytes in the piece.
    pub length: usize,
    /// The side the piece's pages belong to.
    pub attribute: Attribute,
    /// The T attribute of the access to them.
    pub tee: Tee,
    /// The TDI's phase at that moment.
    pub phase: TdiPhase,
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

/// Pieces of accesses since the BAR was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads served.
    pub reads: u64,
    /// Writes served.
    pub writes: u64,
    /// Reads refused by the gate.
    pub rejected_reads: u64,
    /// Writes refused by the gate.
    pub rejected_writes: u64,
}

#[derive(Debug, Default)]
struct KindCounters {
    registers: Counters,
    memory: Counters,
    msix_table: Counters,
    msix_pba: Counters,
    doorbells: Counters,
    reserved: Counters,
}

impl KindCounters {
    const fn of(&self, kind: Kind) -> &Counters {
        match kind {
            Kind::Registers => &self.registers,
            Kind::Memory => &self.memory,
            Kind::MsixTable => &self.msix_table,
            Kind::MsixPba => &self.msix_pba,
            Kind::Doorbells => &self.doorbells,
            Kind::Reserved => &self.reserved,
        }
    }

    const fn of_mut(&mut self, kind: Kind) -> &mut Counters {
        match kind {
            Kind::Registers => &mut self.registers,
            Kind::Memory => &mut self.memory,
            Kind::MsixTable => &mut self.msix_table,
            Kind::MsixPba => &mut self.msix_pba,
            Kind::Doorbells => &mut self.doorbells,
            Kind::Reserved => &mut self.reserved,
        }
    }
}

/// Pages of a BAR that a client may map once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedArea {
    /// Byte offset in the BAR, and in the file of [`SharedMapping::fd`]. Page-aligned.
    pub offset: u64,
    /// Bytes, whole pages.
    pub size: u64,
}

/// What a region's sparse mmap consists of.
#[derive(Debug)]
pub struct SharedMapping<'a> {
    /// One file for all areas, as a region has room for one descriptor; as large as the BAR, and private pages are not
    /// in it. Its offset 0 is the start of the BAR.
    pub fd: BorrowedFd<'a>,
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
    /// Present for memory ranges. Ranges that are always shared have one file in common, every other has its own.
    memory: Option<Arc<MemoryFile>>,
}

impl Slot {
    /// The same pages from `first` to before `end`, if there are any.
    fn cut(&self, first: u32, end: u32) -> Option<Self> {
        let first = first.max(self.range.first_page);
        let end = end.min(self.range.first_page + self.range.pages);
        let pages = end.checked_sub(first).filter(|pages| *pages > 0)?;
        Some(Self { range: Range { first_page: first, pages, ..self.range }, ..self.clone() })
    }
}

/// One BAR with its gate, memory and counters.
#[derive(Debug)]
pub struct Bar {
    layout: BarLayout,
    gate: Gate,
    slots: Vec<Slot>,
    counters: KindCounters,
}

impl Bar {
    /// A BAR whose memory is all zero.
    ///
    /// # Errors
    /// The host has no memory file to give.
    pub fn new(layout: BarLayout, gate: Gate) -> Result<Self, MemoryError> {
        let bar = layout.index();
        let mut shared: Option<Arc<MemoryFile>> = None;
        let mut slots = Vec::with_capacity(layout.ranges().len());
        for &range in layout.ranges() {
            let memory = match (range.kind, range.may_be_private()) {
                (Kind::Registers | Kind::MsixTable | Kind::MsixPba | Kind::Doorbells | Kind::Reserved, _) => {
                    None
                }
                (Kind::Memory, true) => {
                    let name = format!("bar{bar}-private-{:#x}", range.offset());
                    Some(Arc::new(MemoryFile::new(bar, &name, layout.size())?))
                }
                (Kind::Memory, false) => {
                    let file = match shared.take() {
                        Some(file) => file,
                        None => Arc::new(MemoryFile::new(bar, &format!("bar{bar}-shared"), layout.size())?),
                    };
                    shared = Some(Arc::clone(&file));
                    Some(file)
                }
            };
            slots.push(Slot { range, origin: range, memory });
        }
        Ok(Self { layout, gate, slots, counters: KindCounters::default() })
    }

    /// What the BAR consists of.
    #[must_use]
    pub const fn layout(&self) -> &BarLayout {
        &self.layout
    }

    /// Pieces counted so far at ranges of one kind.
    #[must_use]
    pub const fn counters(&self, kind: Kind) -> Counters {
        *self.counters.of(kind)
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
            let counters = self.counters.of_mut(slot.range.kind);
            if let Some(rejection) = judge(&self.gate, self.layout.index(), access, &slot.range, at, length) {
                counters.rejected_reads += 1;
                completion.rejected.get_or_insert(rejection);
                data.fill(REJECTED);
            } else {
                counters.reads += 1;
                if let Some(memory) = &slot.memory {
                    if let Err(error) = memory.read(at, data) {
                        data.fill(REJECTED);
                        failure = failure.and(Err(error));
                    }
                } else {
                    registers.read(place(self.layout.index(), &slot.origin, at), data);
                }
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
            let counters = self.counters.of_mut(slot.range.kind);
            if let Some(rejection) = judge(&self.gate, self.layout.index(), access, &slot.range, at, length) {
                counters.rejected_writes += 1;
                completion.rejected.get_or_insert(rejection);
            } else {
                counters.writes += 1;
                if let Some(memory) = &slot.memory {
                    if let Err(error) = memory.write(at, data) {
                        failure = failure.and(Err(error));
                    }
                } else {
                    registers.write(place(self.layout.index(), &slot.origin, at), data);
                }
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
    /// zeroed, because it changes hands; pages that had the attribute already stay as they are. Pages beyond the BAR are
    /// not looked at.
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
        for slot in &self.slots {
            slots.extend(slot.cut(0, first_page));
            if let Some(mut moved) = slot.cut(first_page, end) {
                if moved.range.attribute != attribute {
                    moved.range.attribute = attribute;
                    if let Some(memory) = &moved.memory {
                        result = result.and(memory.zero(moved.range.offset(), moved.range.size()));
                    }
                }
                slots.push(moved);
            }
            slots.extend(slot.cut(end, u32::MAX));
        }
        self.slots = slots;
        result
    }

    /// Zeroes all memory that is private or may become so, and gives every page the attribute of its layout again.
    ///
    /// # Errors
    /// The first failure; the other ranges were still zeroed. Confidential data may then be left: the TDI must not be
    /// given to anyone else.
    pub fn scrub_private(&mut self) -> Result<(), MemoryError> {
        self.slots.retain_mut(|slot| {
            let first = slot.range.first_page == slot.origin.first_page;
            slot.range = slot.origin;
            first
        });
        self.scrub(Range::may_be_private)
    }

    /// Zeroes all memory, as a reset does. Pages keep their attributes.
    ///
    /// # Errors
    /// As [`Bar::scrub_private`].
    pub fn scrub_all(&mut self) -> Result<(), MemoryError> {
        self.scrub(|_| true)
    }

    /// The memory pages that never become TEE memory, for a mapping that cannot be taken back. `None` if there are none.
    #[must_use]
    pub fn shared_mapping(&self) -> Option<SharedMapping<'_>> {
        let mut mapping: Option<SharedMapping<'_>> = None;
        for Slot { range, memory, .. } in &self.slots {
            let Some(memory) = memory.as_ref().filter(|_| !range.may_be_private()) else { continue };
            let mapping =
                mapping.get_or_insert_with(|| SharedMapping { fd: memory.as_fd(), areas: Vec::new() });
            match mapping.areas.last_mut().filter(|last| last.offset + last.size == range.offset()) {
                Some(last) => last.size += range.size(),
                None => mapping.areas.push(SharedArea { offset: range.offset(), size: range.size() }),
            }
        }
        mapping
    }

    fn scrub(&self, which: impl Fn(&Range) -> bool) -> Result<(), MemoryError> {
        let mut result = Ok(());
        for Slot { range, memory, .. } in &self.slots {
            if let Some(memory) = memory.as_ref().filter(|_| which(range)) {
                result = result.and(memory.zero(range.offset(), range.size()));
            }
        }
        result
    }
}

/// The range at `at` and how much of the next `remaining` bytes it covers; `None` beyond the BAR.
fn piece(slots: &[Slot], at: u64, remaining: usize) -> Option<(&Slot, usize)> {
    let behind = slots.partition_point(|slot| slot.range.end() <= at);
    let slot = slots.get(behind)?;
    let left = usize::try_from(slot.range.end() - at).unwrap_or(usize::MAX);
    Some((slot, remaining.min(left)))
}

fn judge(
    gate: &Gate,
    bar: u8,
    access: Access,
    range: &Range,
    offset: u64,
    length: usize,
) -> Option<Rejection> {
    let Access { phase, tee } = access;
    let Range { kind, attribute, .. } = *range;
    let tee = tee.resolve(phase, attribute);
    match gate.verdict(phase, tee, attribute) {
        Verdict::Allow => None,
        Verdict::Reject => Some(Rejection { bar, kind, offset, length, attribute, tee, phase }),
    }
}

const fn place(bar: u8, origin: &Range, offset: u64) -> Place {
    Place { bar, kind: origin.kind, offset, offset_in_range: offset - origin.offset() }
}

#[cfg(test)]
mod tests;
