//! Functions that work in client memory themselves, and are reached through configuration space, too: virtio's ways.

use core::time::Duration;
use std::sync::Arc;

use tdisp::dsm::P2pAccess;

use super::Device;
use super::unit::Unit;
use crate::function::MemoryWork;
use crate::vfio_user::ClientMemory;

/// How often files behind functions are looked at: nobody tells when one has another size.
const FOLLOW: Duration = Duration::from_secs(1);

impl Device {
    /// Has `function` do what it wants in client memory, if its TDI's state allows that. True: something was done, and may have
    /// more to it.
    pub fn do_memory_work(&mut self, function: usize, memory: impl FnOnce() -> ClientMemory) -> bool {
        let phase = self.phase(function);
        let Some(unit) = self.units.get_mut(function) else { return false };
        let work = unit.memory_work(phase);
        if let Some(address) = unit.take_mixed_dma() {
            self.note_mixed_dma(function, address);
        }
        // Telling of it may have cost the TDI its state.
        let Some(MemoryWork { address, .. }) = work.filter(|_| self.phase(function) == phase) else {
            return false;
        };
        let access = P2pAccess { address, length: 1, translated: false };
        match self.protocol.dsm.stream_of(function, access) {
            Some(stream) => log::trace!("function {function}: DMA from {address:#x} on, T = 1, on {stream}"),
            None => log::trace!("function {function}: DMA from {address:#x} on, T = 0"),
        }
        let memory = Arc::new(memory());
        if let Some(unit) = self.units.get_mut(function) {
            unit.do_memory_work(&memory);
        }
        if memory.failed() {
            self.dma_failed(function);
        }
        true
    }

    pub(super) fn config_data_read(&mut self, function: usize) -> [u8; 4] {
        let phase = self.phase(function);
        let mut value = [0; 4];
        if let Some(unit) = self.units.get_mut(function) {
            let rejected = unit.config_data_read(phase, &mut value);
            self.note_rejected(function, &rejected, false);
        }
        value
    }

    pub(super) fn config_data_written(&mut self, function: usize) {
        let phase = self.phase(function);
        if let Some(unit) = self.units.get_mut(function) {
            let rejected = unit.config_data_written(phase);
            self.note_rejected(function, &rejected, true);
        }
    }

    /// Looks at the files behind functions, if it is time to.
    pub(super) fn follow_backing(&mut self, now: Duration) {
        if self.next_follow.is_some_and(|next| next <= now) {
            // All of them, whatever the first says.
            let follows = self.units.iter_mut().map(Unit::follow_backing).fold(false, |any, one| any | one);
            self.next_follow = follows.then(|| now.saturating_add(FOLLOW));
        }
    }
}
