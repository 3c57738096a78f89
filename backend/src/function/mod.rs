//! What a function is to the device that carries it: registers behind BARs, and work to be done for it.
//!
//! A function never does DMA or raises an interrupt inside a register access, because the other side of the socket serves
//! neither before it has its reply: it notes what is to be done, and [`Function::poll_work`] hands it out afterwards.

mod dma_engine;
mod doorbells;
mod test_function;
pub mod virtio;

use std::sync::Arc;

use mmio::{BarSet, Place, TdiPhase, Tee};

pub use dma_engine::{CHUNK, LIMIT};
pub use test_function::TestFunction;

use crate::vfio_user::ClientMemory;

/// Names one DMA request of a function; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DmaId(pub u64);

/// Something a function wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read guest memory; answered by [`Function::dma_done`] with exactly `length` bytes, or an error.
    DmaRead {
        /// Names the request in the answer.
        id: DmaId,
        /// Bus address.
        address: u64,
        /// Bytes, at most [`CHUNK`].
        length: usize,
        /// The address was translated by ATS.
        translated: bool,
        /// The T attribute of the access that asked for it.
        asked: Tee,
    },
    /// Write guest memory; answered by [`Function::dma_done`] with no bytes, or an error.
    DmaWrite {
        /// Names the request in the answer.
        id: DmaId,
        /// Bus address.
        address: u64,
        /// What to write, at most [`CHUNK`] bytes.
        data: Vec<u8>,
        /// The address was translated by ATS.
        translated: bool,
        /// The T attribute of the access that asked for it.
        asked: Tee,
    },
    /// Send one MSI-X message.
    Interrupt {
        /// Number of the vector, less than [`Function::vectors`].
        vector: u16,
    },
    /// Assert or deassert INTx.
    IntxLevel(bool),
}

/// That a function has something to do in client memory itself, without [`Work`] for each access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryWork {
    /// The T attribute of the access that asked for it.
    pub asked: Tee,
    /// A bus address that it begins at.
    pub address: u64,
}

/// Why a DMA request was not carried out, as far as a function can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The device may not: Bus Master Enable is clear, the TDI's phase allows no DMA, the address claims a translation while ATS is
    /// off, or it was asked for from the other side.
    #[error("the device may not do DMA now")]
    NotAllowed,
    /// No memory answers at that address, or not in that direction.
    #[error("no memory answers at this address")]
    Fault,
}

/// A function of the device, without configuration space, gate or memory: those are the device's.
pub trait Function: Send {
    /// A short name for logs.
    fn name(&self) -> &'static str;

    /// The BARs it has.
    fn bars(&self) -> &BarSet;

    /// MSI-X vectors it uses; 0 if it has no MSI-X and uses INTx.
    fn vectors(&self) -> u16;

    /// Reads registers or doorbells, past the gate already. `place` lies with all of `data` in one range, wherever the BARs have
    /// it. Fills all of `data`.
    fn read(&mut self, place: Place, data: &mut [u8]);

    /// Writes registers or doorbells; `place` as for [`Function::read`].
    fn write(&mut self, place: Place, data: &[u8]);

    /// The next thing to do, once the reply to the access that caused it has left. Call until `None`, and again after
    /// every [`Function::dma_done`], [`Function::stop`], [`Function::scrub`] and [`Function::reset`].
    fn poll_work(&mut self) -> Option<Work>;

    /// The answer to a DMA request. Answers to requests that were abandoned meanwhile are ignored.
    fn dma_done(&mut self, id: DmaId, result: Result<&[u8], DmaError>);

    /// What it would do in client memory now. It waits until it may.
    fn memory_work(&self) -> Option<MemoryWork> {
        None
    }

    /// That was asked for from the wrong side: it is not done, unless somebody asks again.
    fn refuse_memory_work(&mut self) {}

    /// Does a bounded part of [`Function::memory_work`], with DMA that is over when this returns. `memory` is not kept.
    fn do_memory_work(&mut self, memory: &Arc<ClientMemory>) {
        let _ = memory;
    }

    /// The TDI is in this phase now. What that means for memory and registers was told before, by [`Function::stop`] and
    /// [`Function::scrub`].
    fn enter(&mut self, phase: TdiPhase) {
        let _ = phase;
    }

    /// Looks whether what is behind the function has another size now. False: it never will.
    fn follow_backing(&mut self) -> bool {
        false
    }

    /// Abandons work in progress and asks for none (PCIe 6.1 §11.3: before the answer to LOCK, on STOP and on entry to
    /// ERROR). Registers stay.
    fn stop(&mut self);

    /// Forgets everything confidential; what is behind shared pages only may stay. Implies [`Function::stop`].
    fn scrub(&mut self);

    /// Back to power-on state, as function-level and conventional reset ask for.
    fn reset(&mut self);
}
