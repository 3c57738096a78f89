//! What a VMM should not do, or not then: found out, told once in each state of the TDI, and with `strict` punished.

use core::time::Duration;

use mmio::{Attribute, Kind, Rejection, TdiPhase, Tee};
use tdisp::dsm::Fault;
use tdisp::wire::InterfaceReport;
use tdispd_proto::control::{Happening, Hex, Process, Sequence};

use super::Device;
use crate::config::MachineCheck;

/// How often exports of a TDI in RUN are looked at: nobody tells when the last holder of a file is gone.
const LOOK: Duration = Duration::from_millis(100);

/// What was told of a TDI in its present state.
#[derive(Debug, Default)]
pub(super) struct Told {
    rules: Vec<Sequence>,
    machine_check: bool,
}

impl Told {
    /// Whether this has not been told yet; it has now.
    fn rule(&mut self, rule: Sequence) -> bool {
        let new = !self.rules.contains(&rule);
        if new {
            self.rules.push(rule);
        }
        new
    }

    fn machine_check(&mut self) -> bool {
        !core::mem::replace(&mut self.machine_check, true)
    }
}

impl Device {
    /// Who has connected to `function`.
    pub fn client_is(&mut self, function: usize, process: Option<Process>) {
        if let Some(unit) = self.units.get_mut(function) {
            unit.client = process;
        }
    }

    /// Who is connected to `function`, or was so last.
    pub fn client(&self, function: usize) -> Option<&Process> {
        self.units.get(function)?.client.as_ref()
    }

    /// The function whose client has met a machine check since the last call, and what is to be done about it.
    pub fn take_machine_check(&mut self) -> Option<(usize, MachineCheck)> {
        self.machine_checks.and_then(|what| Some((self.machine_check.take()?, what)))
    }

    /// Looks at accesses that the gate refused.
    pub(super) fn note_rejected(&mut self, function: usize, rejected: &[Rejection], write: bool) {
        for Rejection { bar, cell, offset, length } in rejected {
            self.refusals += 1;
            if cell.attribute != Attribute::Private {
                continue;
            }
            if cell.phase == TdiPhase::Locked {
                self.out_of_order(function, Sequence::PrivateBeforeRun, format!("BAR {bar} + {offset:#x}"));
            }
            let bound = matches!(cell.phase, TdiPhase::Locked | TdiPhase::Run);
            let Some(unit) = self.units.get_mut(function) else { return };
            if self.machine_checks.is_some() && bound && cell.tee == Tee::NonTee && unit.told.machine_check()
            {
                let by = unit.client.clone();
                self.machine_check = Some(function);
                let (bar, offset, length) = (*bar, Hex(*offset), *length);
                self.tell(Happening::MachineCheck { function, bar, offset, length, write, by });
            }
        }
    }

    /// An export was made of a BAR.
    pub(super) fn note_export(&mut self, function: usize, bar: u8) {
        match self.phase(function) {
            TdiPhase::Run => self.out_of_order(function, Sequence::ExportWhileRunning, format!("BAR {bar}")),
            TdiPhase::Unlocked | TdiPhase::Locked | TdiPhase::Error => {}
        }
        if let Some(place) = self.exported_otherwise(function) {
            self.out_of_order(function, Sequence::MappingUnlikeReport, place);
        }
    }

    /// The TDI is in RUN: what its TVM has validated is what it can use from now on.
    pub(super) fn note_start(&mut self, function: usize) {
        let place = self.exported_otherwise(function).or_else(|| self.left_out(function));
        if let Some(place) = place {
            self.out_of_order(function, Sequence::MappingUnlikeReport, place);
        }
    }

    /// When [`Self::look_for_dropped`] is due, if there is anything to look at.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let watched = |(function, unit): (usize, &super::Unit)| {
            self.phase(function) == TdiPhase::Run
                && unit.bars().iter().any(|bar| bar.exports().next().is_some())
        };
        self.units.iter().enumerate().any(watched).then_some(self.next_look)
    }

    /// Looks for exports that nobody holds any more.
    pub(super) fn look_for_dropped(&mut self, now: Duration) {
        if now < self.next_look {
            return;
        }
        self.next_look = now.saturating_add(LOOK);
        for function in 0..self.units.len() {
            if self.phase(function) == TdiPhase::Run
                && let Some(unit) = self.units.get_mut(function)
            {
                unit.sweep();
                self.note_dropped(function);
            }
        }
    }

    /// Tells of exports that were found dropped in RUN. At any other time a VMM may do so.
    pub(super) fn note_dropped(&mut self, function: usize) {
        let Some(unit) = self.units.get_mut(function) else { return };
        let dropped = unit.take_dropped();
        if self.phase(function) == TdiPhase::Run
            && let Some((bar, side)) = dropped.first()
        {
            let side = if *side == Tee::Tee { "T = 1" } else { "T = 0" };
            self.out_of_order(function, Sequence::DropWhileRunning, format!("BAR {bar}, {side}"));
        }
    }

    /// The device makes DMA with T = 1 that was asked for with T = 0.
    pub(super) fn note_mixed_dma(&mut self, function: usize, address: u64) {
        self.out_of_order(function, Sequence::MixedDma, format!("address {address:#x}"));
    }

    /// A page that is exported with one T while the interface report that LOCK fixed gives it the other: a report may lie.
    fn exported_otherwise(&self, function: usize) -> Option<String> {
        let unit = self.units.get(function)?;
        self.reported(function)?.into_iter().find_map(|reported| {
            let bar = unit.bars().iter().find(|bar| bar.layout().index() == reported.bar)?;
            bar.exports().find_map(|(side, pages)| {
                let both = pages.overlap(&reported.pages)?;
                let (t, says) = match (side, reported.shared) {
                    (Tee::NonTee, false) if !reported.updatable => (0, "private"),
                    (Tee::Tee, true) if !reported.updatable => (1, "shared"),
                    (Tee::NonTee | Tee::Tee, _) => return None,
                };
                let (bar, offset) = (reported.bar, both.offset());
                Some(format!("BAR {bar} + {offset:#x} is exported with T = {t}, and {says} in the report"))
            })
        })
    }

    /// A page of memory that is private in the report and in no export, in a BAR whose private memory is exported otherwise.
    fn left_out(&self, function: usize) -> Option<String> {
        let unit = self.units.get(function)?;
        self.reported(function)?.into_iter().filter(|reported| !reported.shared).find_map(|reported| {
            let bar = unit.bars().iter().find(|bar| bar.layout().index() == reported.bar)?;
            let mut exported: Vec<_> =
                bar.exports().filter(|(side, _)| *side == Tee::Tee).map(|(_, pages)| pages).collect();
            exported.sort_by_key(|pages| pages.first);
            exported.first()?;
            let memory = bar.ranges().filter(|range| range.kind == Kind::Memory);
            let wanted = memory.filter_map(|range| range.page_range().overlap(&reported.pages));
            let page = wanted.into_iter().find_map(|wanted| {
                // The first page behind all exports that begin where the last one ended.
                let covered = exported.iter().fold(wanted.first, |next, pages| {
                    if pages.first <= next { next.max(pages.end()) } else { next }
                });
                (covered < wanted.end()).then_some(covered)
            })?;
            let offset = u64::from(page) * mmio::PAGE_SIZE;
            Some(format!("BAR {} + {offset:#x} is private in the report, and not exported", reported.bar))
        })
    }

    /// The report's ranges, as pages of BARs.
    fn reported(&self, function: usize) -> Option<Vec<Reported>> {
        let dsm = self.dsm();
        let report = InterfaceReport::decode(dsm.report(function)?).ok()?;
        let offset = dsm.binding(function)?.lock.mmio_reporting_offset;
        let view = self.view(function)?;
        let place = |range: &tdisp::wire::MmioRange| {
            let (bar, first) = view.locate(range, offset)?;
            let pages = mmio::PageRange { first, pages: range.pages };
            Some(Reported {
                bar,
                pages,
                shared: range.attributes.non_tee(),
                updatable: range.attributes.updatable(),
            })
        };
        Some(report.ranges.iter().filter_map(place).collect())
    }

    /// A VMM did something that it should not do, or not now. The same is told once in each state.
    pub(super) fn out_of_order(&mut self, function: usize, rule: Sequence, place: String) {
        let Some(unit) = self.units.get_mut(function) else { return };
        if !unit.told.rule(rule) {
            return;
        }
        self.tell(Happening::OutOfOrder { function, rule, place });
        if self.strict {
            self.protocol.dsm.fault(function, Fault::HostSequence);
            self.apply_effects();
        }
    }
}

/// A range of the interface report.
struct Reported {
    bar: u8,
    pages: mmio::PageRange,
    shared: bool,
    /// SET_MMIO_ATTRIBUTE may have moved it meanwhile.
    updatable: bool,
}
