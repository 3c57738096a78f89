//! The device as the control socket sees it: to look at, and what its reports say. Nothing here changes the state of a TDI.

use mmio::{Attribute, Bar, Tee};
use spdm::responder::Responder;
use tdisp::dsm::{Dsm, FunctionView, ReportOverride};
use tdisp::wire::ReportTooLong;
use tdispd_proto::control::{GateCell, GateCounts, Happening};

use super::Device;
use super::unit::Unit;
use super::words;

impl Device {
    /// The device security manager, to look at.
    pub fn dsm(&self) -> &Dsm {
        &self.protocol.dsm
    }

    /// The SPDM responder, to look at.
    pub fn responder(&self) -> &Responder {
        &self.protocol.responder
    }

    /// A function as it is configured now.
    pub fn view(&self, function: usize) -> Option<FunctionView> {
        self.units.get(function).map(Unit::view)
    }

    /// Accesses to BARs that the gate refused, of all functions: whether [`Self::gate_counts`] have changed, for those who ask often.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Accesses to BARs of `function` that the gate refused.
    pub fn gate_counts(&self, function: usize) -> GateCounts {
        let mut counts = GateCounts::default();
        for bar in self.units.get(function).into_iter().flat_map(|unit| unit.bars().iter()) {
            let counters = bar.counters();
            counts.rejected_reads += counters.rejected_reads;
            counts.rejected_writes += counters.rejected_writes;
        }
        counts
    }

    /// Accesses to BARs of `function` by cell of the gate, where there were any.
    pub fn gate_cells(&self, function: usize) -> Vec<GateCell> {
        let mut cells: Vec<GateCell> = Vec::new();
        for (cell, counters) in
            self.units.get(function).into_iter().flat_map(|unit| unit.bars().iter()).flat_map(Bar::cells)
        {
            let state = words::phase(cell.phase);
            let (tee, private) = (cell.tee == Tee::Tee, cell.attribute == Attribute::Private);
            let known =
                cells.iter_mut().find(|one| (one.state, one.tee, one.private) == (state, tee, private));
            let (reads, writes) = (counters.reads, counters.writes);
            let (rejected_reads, rejected_writes) = (counters.rejected_reads, counters.rejected_writes);
            match known {
                None => cells.push(GateCell {
                    state,
                    tee,
                    private,
                    reads,
                    writes,
                    rejected_reads,
                    rejected_writes,
                }),
                Some(one) => {
                    one.reads += reads;
                    one.writes += writes;
                    one.rejected_reads += rejected_reads;
                    one.rejected_writes += rejected_writes;
                }
            }
        }
        cells
    }

    /// From the next LOCK on the report of the function that `view` describes is `says`, or with `None` what is so.
    ///
    /// # Errors
    /// [`ReportTooLong`] if nobody could read it; nothing has changed then.
    pub fn override_report(
        &mut self,
        view: &FunctionView,
        says: Option<ReportOverride>,
    ) -> Result<(), ReportTooLong> {
        let form = says.as_ref().map(words::override_form);
        self.protocol.dsm.override_report(view, says)?;
        self.tell(Happening::ReportOverridden { function: view.number, says: form });
        Ok(())
    }

    /// Somebody will [`Device::take_happening`] from now on.
    pub fn keep_happenings(&mut self) {
        self.journal.keep();
    }

    /// The oldest thing that has happened and was not taken yet.
    pub fn take_happening(&mut self) -> Option<Happening> {
        self.journal.take()
    }

    /// Notes something that happened around the device.
    pub fn tell(&mut self, what: Happening) {
        self.journal.tell(what);
    }
}
