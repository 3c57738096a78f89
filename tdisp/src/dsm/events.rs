//! Everything that moves TDIs without being a message: sessions, streams, configuration writes, resets,
//! faults; and the cascades from one to the next (PCIe 6.1 §11.2.1, §11.2.6).

use crate::SessionId;
use crate::ide::{IdeEvent, InsecureCause, StreamIndex};

use super::Dsm;
use super::config::{CommandClear, SameValueWrite};
use super::effect::{Cause, Effect, Fault};
use super::tdi::{Binding, Event, Tdi};
use super::view::{ConfigWrite, LockedRegister};

impl Dsm {
    /// An SPDM session is over, however it ended. The keys it programmed are wiped, their streams become
    /// insecure, and the TDIs bound to them or locked through it go to ERROR.
    pub fn session_ended(&mut self, session: SessionId) {
        for function in 0..self.tdis.len() {
            if self.binding(function).is_some_and(|binding| binding.session == session) {
                self.fall(function, Cause::SessionEnded);
            }
        }
        let mut events = Vec::new();
        self.ide.session_ended(session, &mut events);
        self.apply(events);
        self.tdis.disown(session);
        if self.key_manager == Some(session) {
            self.key_manager = None;
        }
    }

    /// Software wrote a register of a function that LOCK may have frozen.
    pub fn config_written(&mut self, function: usize, write: ConfigWrite) {
        let Some(binding) = self.binding(function) else { return };
        if !write.changed && self.config.same_value_write == SameValueWrite::Ignore {
            return;
        }
        let frozen = match write.register {
            LockedRegister::MemorySpaceCleared | LockedRegister::BusMasterCleared => {
                self.config.command_clear == CommandClear::Error
            }
            LockedRegister::MsiX => binding.lock.flags.lock_msix(),
            LockedRegister::Bar(_)
            | LockedRegister::ExpansionRom
            | LockedRegister::Bist
            | LockedRegister::DeviceControl
            | LockedRegister::PowerState
            | LockedRegister::ResizableBar
            | LockedRegister::VfResizableBar
            | LockedRegister::EnhancedAllocation
            | LockedRegister::Ari
            | LockedRegister::Pasid
            | LockedRegister::Multicast
            | LockedRegister::PageRequest
            | LockedRegister::SrIov => true,
        };
        if frozen {
            self.fall(function, Cause::ConfigurationWritten(write.register));
        }
    }

    /// Reads the IDE capability; `offset` counts from its start, and its 4-byte header reads as zero.
    pub fn ide_read(&self, offset: u16, data: &mut [u8]) {
        self.ide.read(offset, data);
    }

    /// Writes the IDE capability, any width at any offset from its start. A bound stream that is disabled,
    /// or whose control or association registers change, takes its TDIs to ERROR.
    pub fn ide_write(&mut self, offset: u16, data: &[u8]) {
        let mut events = Vec::new();
        self.ide.write(offset, data, &mut events);
        self.apply(events);
    }

    /// A stream failed outside of its registers: integrity check, link.
    pub fn stream_failed(&mut self, stream: StreamIndex, cause: InsecureCause) {
        let mut events = Vec::new();
        self.fail_stream(stream, cause, &mut events);
        self.apply(events);
    }

    /// The link went down: no stream survives it.
    pub fn link_down(&mut self) {
        let streams: Vec<StreamIndex> = self.ide.streams().map(|view| view.index).collect();
        for stream in streams {
            self.stream_failed(stream, InsecureCause::LinkDown);
        }
    }

    /// Something went wrong inside the device that a locked or running TDI does not survive.
    pub fn fault(&mut self, function: usize, fault: Fault) {
        self.fall(function, Cause::Fault(fault));
    }

    /// Firmware is about to be replaced while the device runs (PCIe 6.1 §11.4.2). A device that can do that at run time
    /// keeps its TDIs; one that cannot lets every stream with keys in use go, and the TDIs with them. The SPDM sessions
    /// are the owner's to end.
    ///
    /// # Errors
    /// The function of a TDI that was locked with NO_FW_UPDATE. The update must not happen; nothing has changed.
    pub fn update_firmware(&mut self, at_run_time: bool) -> Result<(), usize> {
        let forbids = |binding: &Binding| binding.lock.flags.no_fw_update();
        let forbidden =
            |function: &usize| self.tdis.get(*function).and_then(Tdi::binding).is_some_and(forbids);
        if let Some(function) = (0..self.tdis.len()).find(forbidden) {
            return Err(function);
        }
        if !at_run_time {
            for function in 0..self.tdis.len() {
                self.fault(function, Fault::DeviceCompromised);
            }
            let streams: Vec<StreamIndex> = self.ide.streams().map(|view| view.index).collect();
            for stream in streams {
                self.stream_failed(stream, InsecureCause::FirmwareUpdated);
            }
        }
        Ok(())
    }

    /// Function level reset. SPDM sessions and IDE streams survive it.
    pub fn function_reset(&mut self, function: usize) {
        self.fall(function, Cause::FunctionReset);
    }

    /// Conventional reset of one function other than function 0, or its removal: its TDI is unlocked.
    pub fn function_conventional_reset(&mut self, function: usize) {
        self.tdis.step(function, Event::Reset);
    }

    /// Conventional reset of the device: every TDI unlocked, every key gone, every IDE register at its
    /// default, no answer held back any more. SPDM sessions die with it, but ending those is the owner's to do.
    pub fn conventional_reset(&mut self) {
        for function in 0..self.tdis.len() {
            self.tdis.step(function, Event::Reset);
        }
        self.held.clear();
        let mut events = Vec::new();
        self.ide.reset(&mut events);
        self.apply(events);
        self.key_manager = None;
        self.address = self.config.ports.address;
    }

    /// Carries what happened to streams on to TDIs, until nothing follows any more.
    pub(super) fn apply(&mut self, events: Vec<IdeEvent>) {
        let mut pending = events;
        while !pending.is_empty() {
            let mut caused = Vec::new();
            for event in pending {
                match event {
                    IdeEvent::Secure { stream, stream_id } => self.stream_effect(stream, stream_id, None),
                    IdeEvent::Insecure { stream, stream_id, cause } => {
                        self.stream_effect(stream, stream_id, Some(cause));
                        self.fall_with(stream, cause);
                    }
                    IdeEvent::Written { stream, changed } => {
                        let counts = changed || self.config.same_value_write == SameValueWrite::Error;
                        if counts && !self.bound_to(stream).is_empty() {
                            self.fail_stream(stream, InsecureCause::RegisterWritten, &mut caused);
                        }
                    }
                }
            }
            pending = caused;
        }
    }

    /// Makes a stream insecure. A stream without keys in use is so already, and tells nobody; TDIs may be bound to it
    /// nevertheless.
    fn fail_stream(&mut self, stream: StreamIndex, cause: InsecureCause, events: &mut Vec<IdeEvent>) {
        let secure = self.ide.view(stream).is_some_and(|view| view.secure);
        self.ide.fail(stream, cause, events);
        if !secure {
            self.fall_with(stream, cause);
        }
    }

    /// Every TDI that is bound to the stream goes to ERROR.
    fn fall_with(&mut self, stream: StreamIndex, cause: InsecureCause) {
        for function in self.bound_to(stream) {
            self.fall(function, Cause::StreamInsecure(stream, cause));
        }
    }

    fn stream_effect(&mut self, stream: StreamIndex, stream_id: u8, lost: Option<InsecureCause>) {
        self.tdis.effects.push_back(Effect::StreamSecure { stream, stream_id, lost });
    }

    fn bound_to(&self, stream: StreamIndex) -> Vec<usize> {
        let uses = |binding: &Binding| binding.stream == stream || binding.p2p.contains(&stream);
        let bound = |function: &usize| self.tdis.get(*function).and_then(Tdi::binding).is_some_and(uses);
        (0..self.tdis.len()).filter(bound).collect()
    }

    fn fall(&mut self, function: usize, cause: Cause) {
        self.tdis.step(function, Event::Fall(cause));
    }
}
