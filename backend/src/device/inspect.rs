//! The device as the control socket sees it: to look at, and what its reports say. Nothing here changes the state of a TDI.

use mmio::Kind;
use spdm::responder::Responder;
use tdisp::dsm::{Dsm, FunctionView, ReportOverride};
use tdisp::wire::ReportTooLong;
use tdispd_proto::control::{GateCounts, Happening};

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

    /// Accesses to BARs of `function` that the gate refused.
    pub fn gate_counts(&self, function: usize) -> GateCounts {
        let mut counts = GateCounts::default();
        for bar in self.units.get(function).into_iter().flat_map(|unit| unit.bars().iter()) {
            for counters in Kind::ALL.map(|kind| bar.counters(kind)) {
                counts.rejected_reads += counters.rejected_reads;
                counts.rejected_writes += counters.rejected_writes;
            }
        }
        counts
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
