//! What a virtio function has beside other functions: work in client memory, and BARs behind configuration space.

use std::sync::Arc;

use mmio::{Rejection, TdiPhase, Tee};

use super::{BarRegion, MixedDma, Registers, Requester, Unit, allows_dma};
use crate::function::MemoryWork;
use crate::pci::ConfigAccess;
use crate::vfio_user::ClientMemory;

impl Unit {
    /// Whether the function has something to do in client memory, and may: as [`Self::poll_work`] judges single DMA requests.
    /// What may not be done waits.
    pub(in crate::device) fn memory_work(&mut self, phase: TdiPhase) -> Option<MemoryWork> {
        let work = self.function.memory_work()?;
        if !allows_dma(phase) || !self.is_master() {
            return None;
        }
        if phase == TdiPhase::Run && work.asked == Tee::NonTee {
            self.mixed = Some(work.address);
            if self.mixed_dma == MixedDma::Refuse {
                self.function.refuse_memory_work();
                return None;
            }
        }
        Some(work)
    }

    /// Lets the function do what [`Self::memory_work`] told of.
    pub(in crate::device) fn do_memory_work(&mut self, memory: &Arc<ClientMemory>) {
        self.function.do_memory_work(memory);
    }

    /// Looks whether what is behind the function has another size now. False: it never will.
    pub(in crate::device) fn follow_backing(&mut self) -> bool {
        self.function.follow_backing()
    }

    /// A read of `pci_cfg_data`: of a BAR, through configuration space (virtio 1.2 §4.1.4.9). A configuration request has T = 0.
    /// Returns what the gate refused.
    pub(in crate::device) fn config_data_read(
        &mut self,
        phase: TdiPhase,
        data: &mut [u8; 4],
    ) -> Vec<Rejection> {
        *data = [0; 4];
        let Some(ConfigAccess { bar, offset, length }) = self.space.config_access() else {
            return Vec::new();
        };
        let Some(region) = BarRegion::new(bar, false) else { return Vec::new() };
        let (true, Some(data)) = (self.bars.covers(region, offset, length), data.get_mut(..length)) else {
            return Vec::new();
        };
        data.fill(0xFF);
        if !self.decodes_memory() {
            return Vec::new();
        }
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let done = self.bars.read(Requester::Config, region, phase, offset, data, &mut registers);
        self.rejected("read", done)
    }

    /// A write of `pci_cfg_data`, which configuration space has taken already: see [`Self::config_data_read`].
    pub(in crate::device) fn config_data_written(&mut self, phase: TdiPhase) -> Vec<Rejection> {
        let Some(ConfigAccess { bar, offset, length }) = self.space.config_access() else {
            return Vec::new();
        };
        let Some(region) = BarRegion::new(bar, false) else { return Vec::new() };
        let data = self.space.config_data();
        let (true, Some(data)) = (self.bars.covers(region, offset, length), data.get(..length)) else {
            return Vec::new();
        };
        if !self.decodes_memory() {
            return Vec::new();
        }
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let done = self.bars.write(Requester::Config, region, phase, offset, data, &mut registers);
        self.rejected("write", done)
    }
}
