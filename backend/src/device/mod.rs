//! The device: functions, mailbox, responder and DSM put together. Sans-IO but for the memory behind its BARs: accesses
//! and time in, bytes and work out.

mod bars;
mod build;
mod contents;
mod dsm_config;
mod exports;
mod firmware;
mod held;
mod identity;
mod in_memory;
mod inspect;
mod journal;
mod keeper;
mod protocol;
mod responder;
mod rules;
mod unit;
pub(crate) mod words;

use core::time::Duration;

pub use bars::BarRegion;
use mmio::{Attribute, TdiPhase};
use spdm::responder::Responder;
use tdisp::dsm::{ConfigWrite, Effect, Fault, FunctionView, Functions, LockedRegister, P2pAccess};
use tdisp::wire::TdiState;
use tdispd_proto::control::{Happening, ResetKind};
use tdispd_proto::vfio_user::WINDOW_REGION;

pub use build::BuildError;
pub use exports::NotExported;
pub use firmware::FirmwareUpdate;
pub use identity::slots;
use journal::Journal;
use protocol::Protocol;
pub use unit::DmaOrder;
use unit::Unit;

use crate::config::{DmaFault, MachineCheck};
use crate::doe::Mailbox;
use crate::function::{DmaError, DmaId, Work};
use crate::pci::registers::{Command, DeviceControl};
use crate::pci::{Window, WriteEffect};
use crate::vfio_user::{Region, RegionType};

/// Bytes of the extended capability header that precedes a [`Window`].
const EXTENDED_HEADER: u16 = 4;
/// `VFIO_PCI_NUM_REGIONS`, six BARs, ROM, configuration space, VGA, and then the six windows.
const REGIONS: u32 = WINDOW_REGION + 6;
/// `VFIO_PCI_CONFIG_REGION_INDEX`.
pub(crate) const CONFIG_REGION: usize = 7;

/// A TDISP device of one or more functions, one DSM.
pub struct Device {
    units: Vec<Unit>,
    regions: Vec<Vec<Region>>,
    mailbox: Mailbox,
    protocol: Protocol,
    response: Vec<u8>,
    /// An answer for the mailbox that is not readable yet.
    held: Option<held::Held>,
    /// Functions whose DMA an answer waits for.
    draining: Vec<usize>,
    dma_fault: DmaFault,
    /// What a VMM does out of order takes the TDI to ERROR.
    strict: bool,
    /// If a T = 0 access to a private page of a bound TDI is a machine check: what that does.
    machine_checks: Option<MachineCheck>,
    /// The function whose client met one.
    machine_check: Option<usize>,
    /// Accesses that the gate refused, of all functions.
    refusals: u64,
    /// When exports may be looked at again.
    next_look: Duration,
    /// When files behind functions are to be looked at, if there are any that change.
    next_follow: Option<Duration>,
    firmware: firmware::Firmware,
    journal: Journal,
}

/// The functions, described to the DSM when it asks.
struct Views<'a>(&'a [Unit]);

impl Functions for Views<'_> {
    fn view(&self, number: usize) -> Option<FunctionView> {
        self.0.get(number).map(Unit::view)
    }

    fn hosted(&self, number: usize) -> bool {
        number < self.0.len()
    }
}

impl Device {
    /// Number of functions.
    pub fn functions(&self) -> usize {
        self.units.len()
    }

    /// The vfio regions of `function`.
    pub fn regions(&self, function: usize) -> &[Region] {
        self.regions.get(function).map_or(&[], Vec::as_slice)
    }

    /// MSI-X vectors of `function`; 0 means INTA#.
    pub fn vectors(&self, function: usize) -> u16 {
        self.units.get(function).map_or(0, Unit::vectors)
    }

    /// State of the TDI behind `function`.
    pub fn tdi_state(&self, function: usize) -> TdiState {
        self.protocol.dsm.state(function)
    }

    /// Reads configuration space; `offset` and `data` lie inside it.
    pub fn config_read(&mut self, function: usize, offset: u16, data: &mut [u8]) {
        let Some(unit) = self.units.get(function) else { return data.fill(0xFF) };
        unit.space.read(offset, data);
        for (at, lane, bytes) in dwords(offset, data.len()) {
            let Some(unit) = self.units.get(function) else { return };
            let Some((window, register)) = unit.space.window(at) else { continue };
            let mut value = [0; 4];
            match window {
                Window::Doe => value = self.mailbox.read(register).to_le_bytes(),
                Window::Ide => self.protocol.dsm.ide_read(register + EXTENDED_HEADER, &mut value),
                Window::VirtioData => value = self.config_data_read(function),
            }
            for (slot, byte) in
                data.iter_mut().skip(bytes.start).take(bytes.len()).zip(value.iter().skip(lane))
            {
                *slot = *byte;
            }
        }
    }

    /// Writes configuration space; `offset` and `data` lie inside it.
    pub fn config_write(&mut self, function: usize, offset: u16, data: &[u8]) {
        for (at, lane, bytes) in dwords(offset, data.len()) {
            let Some(unit) = self.units.get_mut(function) else { return };
            let Some(bytes) = data.get(bytes) else { return };
            match unit.space.window(at) {
                Some((Window::Doe, register)) => self.mailbox.write(register, lane, bytes),
                Some((Window::Ide, register)) => {
                    self.protocol.dsm.ide_write(register + EXTENDED_HEADER + lane as u16, bytes);
                }
                Some((Window::VirtioData, register)) => {
                    unit.space.write(at + lane as u16, bytes);
                    // What is written first is what counts (virtio 1.2 §4.1.4.9.1).
                    if register == 0 && lane == 0 {
                        self.config_data_written(function);
                    }
                }
                None => {
                    for effect in unit.space.write(at + lane as u16, bytes) {
                        self.register_written(function, effect);
                    }
                }
            }
        }
        self.apply_effects();
    }

    /// Reads a BAR or its window, through the gate.
    pub fn bar_read(&mut self, function: usize, region: u32, offset: u64, data: &mut [u8]) {
        let phase = self.phase(function);
        let (Some(unit), Some(region)) = (self.units.get_mut(function), BarRegion::from_index(region)) else {
            return data.fill(0xFF);
        };
        let rejected = unit.bar_read(region, phase, offset, data);
        self.note_rejected(function, &rejected, false);
    }

    /// Writes a BAR or its window, through the gate.
    pub fn bar_write(&mut self, function: usize, region: u32, offset: u64, data: &[u8]) {
        let phase = self.phase(function);
        let (Some(unit), Some(region)) = (self.units.get_mut(function), BarRegion::from_index(region)) else {
            return;
        };
        let rejected = unit.bar_write(region, phase, offset, data);
        self.note_rejected(function, &rejected, true);
    }

    /// DEVICE_RESET, or the client has gone: of function 0 a conventional reset of the whole device, of any other the
    /// end of that TDI only.
    pub fn reset(&mut self, function: usize) {
        let (kind, one) = (ResetKind::Conventional, (function != 0).then_some(function));
        self.tell(Happening::Reset { kind, function: one });
        if function == 0 {
            self.protocol.reset(&mut self.journal);
            self.mailbox.abort();
        } else {
            self.protocol.dsm.function_conventional_reset(function);
        }
        self.apply_effects();
        let units = if function == 0 { 0..self.units.len() } else { function..function + 1 };
        for unit in self.units.get_mut(units).unwrap_or_default() {
            unit.reset_function();
            unit.space.reset();
        }
    }

    /// Answers an object that came past the mailbox, over a socket, into `response`; false means silence.
    pub fn exchange(&mut self, now: Duration, object: &[u8], response: &mut Vec<u8>) -> bool {
        let answered = self.protocol.answer(now, object, &Views(&self.units), response, &mut self.journal);
        self.apply_effects();
        answered
    }

    /// Answers a TDISP message from somebody who only looks on into `response`; false means silence. Nothing changes.
    pub fn observe(&self, message: &[u8], response: &mut Vec<u8>) -> bool {
        response.clear();
        let (answer, refusal) = self.protocol.dsm.observe(message, &Views(&self.units), response);
        if let Some(refusal) = refusal {
            log::info!("TDISP in the clear refused: {refusal}");
        }
        answer == tdisp::Answer::Respond
    }

    /// The responder asks for a new key of its own, in one session or all, when the requester lets it.
    pub fn renew_key(&mut self, session: Option<u32>) {
        let responder = &mut self.protocol.responder;
        let sessions: Vec<u32> = match session {
            Some(session) => vec![session],
            None => session_ids(responder),
        };
        for session in sessions {
            if !responder.renew_key(session) {
                log::warn!(
                    "SPDM session {session:#010x} gets no new key: it is none, or its requester cannot do that"
                );
            }
        }
    }

    /// The responder asks the requester what kind of device it is, wherever that lets it.
    pub fn ask_endpoint_info(&mut self) {
        let responder = &mut self.protocol.responder;
        let sessions = session_ids(responder).into_iter().map(Some).chain([None]);
        let asked = sessions.filter(|session| responder.ask_endpoint_info(*session, None));
        if asked.count() == 0 {
            log::warn!("the SPDM requester is not asked what it is: it does not tell");
        }
    }

    /// The time of day, in seconds since 1970, at which requesters' certificates have to be valid from now on; without it
    /// that is not checked.
    pub fn set_time(&mut self, time: Option<i64>) {
        self.protocol.responder.set_time(time);
    }

    /// When [`Device::tick`] is due next.
    pub fn next_deadline(&self) -> Option<Duration> {
        let looks = self.next_look().into_iter().chain(self.next_follow);
        self.protocol.responder.next_deadline().into_iter().chain(looks).min()
    }

    /// Lets time pass: sessions whose heartbeat stopped end, and exports that nobody holds any more are noticed.
    pub fn tick(&mut self, now: Duration) {
        self.protocol.tick(now, &mut self.journal);
        self.apply_effects();
        self.look_for_dropped(now);
        self.follow_backing(now);
    }

    /// The next thing `function` wants done; DMA that its TDI's state forbids is refused before it gets here.
    pub fn poll_work(&mut self, function: usize) -> Option<Work> {
        let work = loop {
            let phase = self.phase(function);
            let unit = self.units.get_mut(function)?;
            let work = unit.poll_work(phase);
            let Some(address) = unit.take_mixed_dma() else { break work? };
            self.note_mixed_dma(function, address);
            // It may have cost the TDI its state, and with it the work.
            if self.phase(function) == phase {
                break work?;
            }
        };
        if let Some((access, what)) = dma_access(&work) {
            // vfio-user has no place for either, so the log has to say it.
            match self.protocol.dsm.stream_of(function, access) {
                Some(stream) => log::trace!(
                    "function {function}: DMA {what} of {} bytes at {:#x}, T = 1, on {stream}",
                    access.length,
                    access.address
                ),
                None => log::trace!(
                    "function {function}: DMA {what} of {} bytes at {:#x}, T = 0",
                    access.length,
                    access.address
                ),
            }
        }
        Some(work)
    }

    /// What has to become of DMA of a function that was handed out before (PCIe 6.1 §11.3.9, §11.3.16, §11.3.20), and which.
    pub fn take_dma_order(&mut self) -> Option<(usize, DmaOrder)> {
        let orders = self.units.iter_mut().enumerate();
        orders.filter_map(|(function, unit)| Some((function, unit.take_dma_order()?))).next()
    }

    /// The outcome of DMA work. One that failed may cost a TDI in RUN its state (PCIe 6.1 §11.4.3).
    pub fn dma_done(&mut self, function: usize, id: DmaId, result: Result<&[u8], DmaError>) {
        if let Some(unit) = self.units.get_mut(function) {
            unit.dma_done(id, result);
        }
        if result == Err(DmaError::Fault) {
            self.dma_failed(function);
        }
    }

    pub(super) fn dma_failed(&mut self, function: usize) {
        if self.dma_fault == DmaFault::Error && self.tdi_state(function) == TdiState::RUN {
            self.protocol.dsm.fault(function, Fault::UnrecoverableCompletion);
            self.apply_effects();
        }
    }

    /// Whether `function` asserts INTA#.
    pub fn intx_asserted(&self, function: usize) -> bool {
        self.units.get(function).is_some_and(Unit::intx_asserted)
    }

    fn phase(&self, function: usize) -> TdiPhase {
        phase(self.tdi_state(function))
    }

    /// Tells the DSM what a configuration write did. Power states are not told: the function keeps its state over all
    /// of them (No_Soft_Reset).
    fn register_written(&mut self, function: usize, effect: WriteEffect) {
        let mut report = |register, changed| {
            self.protocol.dsm.config_written(function, ConfigWrite { register, changed });
        };
        match effect {
            WriteEffect::Command { before, after } => {
                for (register, enabled) in [
                    (LockedRegister::MemorySpaceCleared, Command::memory_space as fn(&Command) -> bool),
                    (LockedRegister::BusMasterCleared, Command::bus_master),
                ] {
                    if !enabled(&after) {
                        report(register, enabled(&before));
                    }
                }
            }
            WriteEffect::Bar { index, changed } => report(LockedRegister::Bar(index), changed),
            WriteEffect::Rom => report(LockedRegister::ExpansionRom, false),
            WriteEffect::Bist => report(LockedRegister::Bist, false),
            WriteEffect::DeviceControl { before, after } => {
                let frozen = |control: DeviceControl| {
                    (control.extended_tag(), control.phantom_functions(), control.no_snoop())
                };
                report(LockedRegister::DeviceControl, frozen(before) != frozen(after));
            }
            WriteEffect::Msix { before, after } => report(LockedRegister::MsiX, before != after),
            WriteEffect::Power { .. } => {}
            WriteEffect::Ari => report(LockedRegister::Ari, false),
            WriteEffect::Flr => self.function_level_reset(function),
        }
    }

    /// PCIe 6.1 §6.6.2, §11.2: SPDM sessions and IDE streams outlive it, the TDI does not.
    fn function_level_reset(&mut self, function: usize) {
        self.tell(Happening::Reset { kind: ResetKind::FunctionLevel, function: Some(function) });
        self.protocol.dsm.function_reset(function);
        self.apply_effects();
        if let Some(unit) = self.units.get_mut(function) {
            unit.reset_function();
            unit.space.function_reset();
        }
        if function == 0 {
            self.mailbox.abort();
        }
    }

    /// Carries out what the DSM asks for, in its order.
    fn apply_effects(&mut self) {
        while let Some(effect) = self.protocol.dsm.poll_effect() {
            if let Some(what) = words::effect(&effect) {
                self.tell(what);
            }
            match effect {
                Effect::Scrub { function } => {
                    if let Some(unit) = self.units.get_mut(function) {
                        unit.scrub();
                    }
                }
                Effect::StopDma { function } => {
                    if let Some(unit) = self.units.get_mut(function) {
                        unit.stop();
                    }
                }
                Effect::DrainDma { function } => {
                    if let Some(unit) = self.units.get_mut(function) {
                        unit.drain();
                    }
                }
                Effect::MmioAttribute { function, bar, first_page, pages, non_tee } => {
                    let attribute = if non_tee { Attribute::Shared } else { Attribute::Private };
                    if let Some(unit) = self.units.get_mut(function) {
                        unit.set_attribute(bar, first_page, pages, attribute);
                    }
                    self.note_revoked(function, self.tdi_state(function));
                }
                Effect::StateChanged { function, from, to, .. } => {
                    if let Some(unit) = self.units.get_mut(function) {
                        unit.enter(phase(from), phase(to));
                        // In another state than RUN that is a VMM's right.
                        drop(unit.take_dropped());
                    }
                    self.note_revoked(function, to);
                    if to == TdiState::RUN {
                        self.note_start(function);
                    }
                }
                // Told already, and nothing to do.
                Effect::P2pStream { .. }
                | Effect::StreamSecure { .. }
                | Effect::LockedWithoutKeys { .. }
                | Effect::Refused { .. } => {}
            }
        }
    }
}

/// A TDI's state, as far as MMIO cares.
fn phase(state: TdiState) -> TdiPhase {
    match state {
        TdiState::CONFIG_UNLOCKED => TdiPhase::Unlocked,
        TdiState::CONFIG_LOCKED => TdiPhase::Locked,
        TdiState::RUN => TdiPhase::Run,
        // ERROR, where nothing private is shown.
        _ => TdiPhase::Error,
    }
}

/// Every session there is.
fn session_ids(responder: &Responder) -> Vec<u32> {
    responder.sessions().map(|session| session.id).collect()
}

/// DMA work as the DSM looks at it, and which way the data goes.
fn dma_access(work: &Work) -> Option<(P2pAccess, &'static str)> {
    match work {
        Work::DmaRead { address, length, translated, .. } => {
            let access = P2pAccess { address: *address, length: *length as u64, translated: *translated };
            Some((access, "read"))
        }
        Work::DmaWrite { address, data, translated, .. } => {
            let access = P2pAccess { address: *address, length: data.len() as u64, translated: *translated };
            Some((access, "write"))
        }
        Work::Interrupt { .. } | Work::IntxLevel(_) => None,
    }
}

/// Splits `length` bytes at `offset` into pieces that each lie in one dword: the dword's offset, the first byte lane,
/// and which of the bytes.
fn dwords(offset: u16, length: usize) -> impl Iterator<Item = (u16, usize, core::ops::Range<usize>)> {
    let start = usize::from(offset);
    let end = start + length;
    (start / 4..end.div_ceil(4)).map(move |dword| {
        let first = (dword * 4).max(start);
        let last = (dword * 4 + 4).min(end);
        ((dword * 4) as u16, first % 4, first - start..last - start)
    })
}

fn unit_regions(unit: &Unit, vendor: u16) -> Vec<Region> {
    let region = |index| match BarRegion::from_index(index) {
        Some(bar) => {
            let size = unit.bars().region_size(bar);
            let kind = (bar.window && size > 0).then(|| RegionType::window(vendor, bar.bar));
            if size > 0 { Region { kind, ..Region::trapped(size) } } else { Region::default() }
        }
        None if index as usize == CONFIG_REGION => Region::trapped(crate::pci::SPACE_BYTES as u64),
        None => Region::default(),
    };
    (0..REGIONS).map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_in_one_dword() {
        let pieces = |offset, length| dwords(offset, length).collect::<Vec<_>>();
        assert_eq!(pieces(0, 0), []);
        assert_eq!(pieces(4, 4), [(4, 0, 0..4)]);
        assert_eq!(pieces(6, 1), [(4, 2, 0..1)]);
        assert_eq!(pieces(3, 6), [(0, 3, 0..1), (4, 0, 1..5), (8, 0, 5..6)]);
    }
}
