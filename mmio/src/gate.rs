//! The gate: which access to which page is served in which phase of a TDI's life, as a table.

/// The T attribute of an access: whether its originator is inside a TEE (PCIe 6.1 §11.2, T bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tee {
    /// T = 0: a host access, or a device that is no part of a TEE's world.
    NonTee,
    /// T = 1: a trusted virtual machine through its trusted root port and stream.
    Tee,
}

/// The phase of a TDI, as far as MMIO cares (PCIe 6.1 §11.3, TDI states).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdiPhase {
    /// CONFIG_UNLOCKED.
    Unlocked,
    /// CONFIG_LOCKED.
    Locked,
    /// RUN.
    Run,
    /// ERROR.
    Error,
}

/// Which side a page belongs to, as the interface report says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// TEE memory: from LOCK on only T = 1 accesses, and these only in RUN.
    Private,
    /// IS_NON_TEE_MEM: T = 0 always.
    Shared,
}

/// What the gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The access is served.
    Allow,
    /// A read returns all ones, a write is dropped.
    Reject,
}

/// Where the T attribute of an access comes from; vfio-user itself carries none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TeeSource {
    /// Derived from the page: in RUN an access to a private page counts as T = 1, every other as T = 0. A stock guest
    /// works with it, at the price that nobody is ever caught reaching for a private page in RUN.
    Implicit,
    /// The transport said it (a window, an alias, a test).
    Known(Tee),
}

impl TeeSource {
    /// The T attribute of one access to one page. The only place where it is derived.
    #[must_use]
    pub const fn resolve(self, phase: TdiPhase, attribute: Attribute) -> Tee {
        match (self, phase, attribute) {
            (Self::Known(tee), _, _) => tee,
            (Self::Implicit, TdiPhase::Run, Attribute::Private) => Tee::Tee,
            (Self::Implicit, _, _) => Tee::NonTee,
        }
    }
}

/// One row of the gate: the verdict for each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateRow {
    /// In CONFIG_UNLOCKED.
    pub unlocked: Verdict,
    /// In CONFIG_LOCKED.
    pub locked: Verdict,
    /// In RUN.
    pub run: Verdict,
    /// In ERROR.
    pub error: Verdict,
}

impl GateRow {
    /// The same verdict in every phase.
    #[must_use]
    pub const fn always(verdict: Verdict) -> Self {
        Self { unlocked: verdict, locked: verdict, run: verdict, error: verdict }
    }

    const fn verdict(&self, phase: TdiPhase) -> Verdict {
        match phase {
            TdiPhase::Unlocked => self.unlocked,
            TdiPhase::Locked => self.locked,
            TdiPhase::Run => self.run,
            TdiPhase::Error => self.error,
        }
    }
}

/// The whole gate, a row for each pair of page attribute and T.
///
/// The rows are open data so that a device can be made to misbehave by changing one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// T = 0 to a private page.
    pub private_non_tee: GateRow,
    /// T = 1 to a private page.
    pub private_tee: GateRow,
    /// T = 0 to a shared page.
    pub shared_non_tee: GateRow,
    /// T = 1 to a shared page.
    pub shared_tee: GateRow,
}

impl Gate {
    /// What the architecture asks for (PCIe 6.1 §11.2, §11.2.1). A shared page may be accessed "with T bit set to 0 or 1"
    /// (§11.3.22), but T = 1 is rejected in every state but RUN (§11.2); see [`Gate::with_tee_to_shared`].
    pub const ARCHITECTURE: Self = {
        use Verdict::{Allow, Reject};
        Self {
            private_non_tee: GateRow { unlocked: Allow, locked: Reject, run: Reject, error: Reject },
            private_tee: GateRow { unlocked: Reject, locked: Reject, run: Allow, error: Reject },
            shared_non_tee: GateRow::always(Allow),
            shared_tee: GateRow { unlocked: Reject, locked: Reject, run: Allow, error: Reject },
        }
    };

    /// The same gate with one answer to T = 1 on a shared page in every phase. `Allow` is a device that does not look at T
    /// there, `Reject` one that keeps the two worlds apart.
    #[must_use]
    pub const fn with_tee_to_shared(mut self, verdict: Verdict) -> Self {
        self.shared_tee = GateRow::always(verdict);
        self
    }

    /// The verdict on one access to one page.
    #[must_use]
    pub const fn verdict(&self, phase: TdiPhase, tee: Tee, attribute: Attribute) -> Verdict {
        let row = match (attribute, tee) {
            (Attribute::Private, Tee::NonTee) => &self.private_non_tee,
            (Attribute::Private, Tee::Tee) => &self.private_tee,
            (Attribute::Shared, Tee::NonTee) => &self.shared_non_tee,
            (Attribute::Shared, Tee::Tee) => &self.shared_tee,
        };
        row.verdict(phase)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::ARCHITECTURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Attribute::{Private, Shared};
    use TdiPhase::{Error, Locked, Run, Unlocked};
    use Tee::{NonTee, Tee as Trusted};

    const PHASES: [TdiPhase; 4] = [Unlocked, Locked, Run, Error];

    /// Every cell, written out a second time on purpose: by hand from the access rules, not from the constant.
    const EXPECTED: [(Attribute, Tee, [bool; 4]); 4] = [
        (Private, NonTee, [true, false, false, false]),
        (Private, Trusted, [false, false, true, false]),
        (Shared, NonTee, [true, true, true, true]),
        (Shared, Trusted, [false, false, true, false]),
    ];

    #[test]
    fn every_cell_of_the_architecture() {
        for (attribute, tee, row) in EXPECTED {
            for (phase, allowed) in PHASES.into_iter().zip(row) {
                let expected = if allowed { Verdict::Allow } else { Verdict::Reject };
                assert_eq!(
                    Gate::default().verdict(phase, tee, attribute),
                    expected,
                    "{phase:?} {tee:?} {attribute:?}"
                );
            }
        }
    }

    #[test]
    fn tee_to_shared_changes_its_row_and_nothing_else() {
        for verdict in [Verdict::Allow, Verdict::Reject] {
            let gate = Gate::default().with_tee_to_shared(verdict);
            for (attribute, tee, _) in EXPECTED {
                for phase in PHASES {
                    let expected = match (attribute, tee) {
                        (Shared, Trusted) => verdict,
                        _ => Gate::default().verdict(phase, tee, attribute),
                    };
                    assert_eq!(gate.verdict(phase, tee, attribute), expected);
                }
            }
        }
    }

    #[test]
    fn implicit_is_tee_exactly_on_private_pages_in_run() {
        for phase in PHASES {
            for attribute in [Private, Shared] {
                let expected = if phase == Run && attribute == Private { Trusted } else { NonTee };
                assert_eq!(TeeSource::Implicit.resolve(phase, attribute), expected);
                for tee in [NonTee, Trusted] {
                    assert_eq!(TeeSource::Known(tee).resolve(phase, attribute), tee);
                }
            }
        }
    }

    #[test]
    fn implicit_serves_shared_always_and_private_in_unlocked_and_run() {
        for (phase, private_allowed) in [(Unlocked, true), (Locked, false), (Run, true), (Error, false)] {
            let verdict = |attribute| {
                Gate::default().verdict(phase, TeeSource::Implicit.resolve(phase, attribute), attribute)
            };
            assert_eq!(verdict(Private) == Verdict::Allow, private_allowed, "{phase:?}");
            assert_eq!(verdict(Shared), Verdict::Allow, "{phase:?}");
        }
    }
}
