//! What becomes of requests outside RUN.

use mmio::TdiPhase;

/// What becomes of requests in CONFIG_UNLOCKED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unlocked {
    /// They are carried out, with T = 0: an ordinary device.
    #[default]
    Serve,
    /// They stay in the ring.
    Wait,
    /// They fail with IOERR.
    Fail,
}

/// What becomes of requests in CONFIG_LOCKED, where the device may do no DMA (PCIe 6.1 §11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Locked {
    /// They stay in the ring.
    #[default]
    Wait,
    /// The device needs a reset: nothing can be said to a driver in its memory, but that.
    Break,
}

/// Both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// In CONFIG_UNLOCKED.
    pub unlocked: Unlocked,
    /// In CONFIG_LOCKED.
    pub locked: Locked,
}

impl Policy {
    /// What requests meet in a phase.
    pub(super) const fn gate(self, phase: TdiPhase) -> disk::GateState {
        match (phase, self.unlocked) {
            (TdiPhase::Unlocked, Unlocked::Serve) | (TdiPhase::Run, _) => disk::GateState::Open,
            (TdiPhase::Unlocked, Unlocked::Fail) => disk::GateState::Fail,
            (TdiPhase::Unlocked, Unlocked::Wait) | (TdiPhase::Locked | TdiPhase::Error, _) => {
                disk::GateState::Hold
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::GateState::{Fail, Hold, Open};

    #[test]
    fn requests_are_carried_out_in_run_and_where_the_configuration_says_so() {
        const PHASES: [TdiPhase; 4] = [TdiPhase::Unlocked, TdiPhase::Locked, TdiPhase::Run, TdiPhase::Error];
        for (unlocked, first) in [(Unlocked::Serve, Open), (Unlocked::Wait, Hold), (Unlocked::Fail, Fail)] {
            for locked in [Locked::Wait, Locked::Break] {
                let policy = Policy { unlocked, locked };
                assert_eq!(PHASES.map(|phase| policy.gate(phase)), [first, Hold, Open, Hold]);
            }
        }
    }
}
