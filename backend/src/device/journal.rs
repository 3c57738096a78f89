//! What happens to a device, for its log and for whoever watches it.

use std::collections::VecDeque;

use tdispd_proto::control::Happening;

/// Logs what happens, and keeps it while somebody wants it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Kept only if there is somebody to take it, so that it cannot grow without end.
    kept: Option<VecDeque<Happening>>,
}

impl Journal {
    /// From now on what happens is kept for [`Self::take`].
    pub(super) fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The oldest thing that nobody has taken yet.
    pub(super) fn take(&mut self) -> Option<Happening> {
        self.kept.as_mut()?.pop_front()
    }

    pub(super) fn tell(&mut self, what: Happening) {
        // A target of its own for each kind: none takes another's share of the log (`log_limit`).
        let target = format!("tdispd::{}", what.kind());
        let warned = matches!(
            what,
            Happening::LockedWithoutKeys { .. }
                | Happening::SlotChanged { lost: Some(_), .. }
                | Happening::KeyPairChanged { lost: Some(_), .. }
        );
        let level = if warned {
            log::Level::Warn
        } else if matches!(what, Happening::GateRejected { .. }) {
            log::Level::Debug
        } else {
            log::Level::Info
        };
        log::log!(target: target.as_str(), level, "{what}");
        if let Some(kept) = &mut self.kept {
            kept.push_back(what);
        }
    }
}
