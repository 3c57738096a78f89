//! How often a BAR was accessed, by cell of the gate.

use crate::{Attribute, Kind, TdiPhase, Tee};

/// A cell of the gate, and what stands at the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// What stands there.
    pub kind: Kind,
    /// The TDI's phase.
    pub phase: TdiPhase,
    /// The T attribute of the access.
    pub tee: Tee,
    /// The side the pages belonged to.
    pub attribute: Attribute,
}

const KINDS: usize = Kind::ALL.len();
const PHASES: [TdiPhase; 4] = [TdiPhase::Unlocked, TdiPhase::Locked, TdiPhase::Run, TdiPhase::Error];
const TEES: [Tee; 2] = [Tee::NonTee, Tee::Tee];
const ATTRIBUTES: [Attribute; 2] = [Attribute::Private, Attribute::Shared];
const CELLS: usize = KINDS * PHASES.len() * TEES.len() * ATTRIBUTES.len();

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().flat_map(|kind| {
            PHASES.into_iter().flat_map(move |phase| {
                TEES.into_iter().flat_map(move |tee| {
                    ATTRIBUTES.into_iter().map(move |attribute| Self { kind, phase, tee, attribute })
                })
            })
        })
    }

    /// Its place in [`Self::all`].
    const fn index(self) -> usize {
        ((self.kind as usize * PHASES.len() + self.phase as usize) * TEES.len() + self.tee as usize)
            * ATTRIBUTES.len()
            + self.attribute as usize
    }
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

/// The counters of one BAR.
#[derive(Debug)]
pub(super) struct Cells {
    cells: [Counters; CELLS],
    total: Counters,
}

impl Cells {
    pub(super) const fn new() -> Self {
        const NONE: Counters = Counters { reads: 0, writes: 0, rejected_reads: 0, rejected_writes: 0 };
        Self { cells: [NONE; CELLS], total: NONE }
    }

    /// Counts one piece.
    pub(super) fn count(&mut self, cell: Cell, write: bool, served: bool) {
        // Every cell has its place.
        for counters in self.cells.get_mut(cell.index()).into_iter().chain([&mut self.total]) {
            *match (write, served) {
                (false, true) => &mut counters.reads,
                (true, true) => &mut counters.writes,
                (false, false) => &mut counters.rejected_reads,
                (true, false) => &mut counters.rejected_writes,
            } += 1;
        }
    }

    pub(super) const fn total(&self) -> Counters {
        self.total
    }

    /// Those that are not zero.
    pub(super) fn used(&self) -> impl Iterator<Item = (Cell, Counters)> {
        Cell::all().zip(self.cells).filter(|(_, counters)| *counters != Counters::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_place_of_its_own() {
        let places: Vec<_> = Cell::all().map(Cell::index).collect();
        assert_eq!(places, (0..CELLS).collect::<Vec<_>>());
    }

    #[test]
    fn pieces_are_counted_where_they_belong_and_in_all() {
        let mut cells = Cells::new();
        let cell = Cell {
            kind: Kind::Doorbells,
            phase: TdiPhase::Run,
            tee: Tee::NonTee,
            attribute: Attribute::Shared,
        };
        let other = Cell { attribute: Attribute::Private, ..cell };
        for (cell, write, served) in
            [(cell, false, true), (cell, true, true), (cell, true, true), (other, false, false)]
        {
            cells.count(cell, write, served);
        }
        let counters = Counters { reads: 1, writes: 2, ..Counters::default() };
        let refused = Counters { rejected_reads: 1, ..Counters::default() };
        assert_eq!(cells.used().collect::<Vec<_>>(), [(other, refused), (cell, counters)]);
        assert_eq!(cells.total(), Counters { rejected_reads: 1, ..counters });
    }
}
