//! How often a BAR was accessed.

use crate::Kind;

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

/// By what stands there.
#[derive(Debug, Default)]
pub(super) struct KindCounters {
    registers: Counters,
    memory: Counters,
    msix_table: Counters,
    msix_pba: Counters,
    doorbells: Counters,
    reserved: Counters,
}

impl KindCounters {
    pub(super) const fn of(&self, kind: Kind) -> &Counters {
        match kind {
            Kind::Registers => &self.registers,
            Kind::Memory => &self.memory,
            Kind::MsixTable => &self.msix_table,
            Kind::MsixPba => &self.msix_pba,
            Kind::Doorbells => &self.doorbells,
            Kind::Reserved => &self.reserved,
        }
    }

    pub(super) const fn of_mut(&mut self, kind: Kind) -> &mut Counters {
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
