//! The sessions of a connection, and which of them commands travel in.

use super::command::SessionInfo;
use super::error::Misuse;
use crate::SessionId;
use crate::session::Session;
use crate::transcript::Transcript;

/// A session from the first message that its keys protect.
pub(super) struct ActiveSession {
    pub(super) session: Session,
    pub(super) info: SessionInfo,
    /// L1/L2 of this session since the last signature.
    pub(super) measurement_log: Option<Transcript>,
}

impl ActiveSession {
    pub(super) const fn new(session: Session, info: SessionInfo) -> Self {
        Self { session, info, measurement_log: None }
    }
}

/// Every session there is. At most one is in its handshake, and that is the selected one.
#[derive(Default)]
pub(super) struct Sessions {
    all: Vec<ActiveSession>,
    selected: Option<SessionId>,
}

impl Sessions {
    /// The session that commands travel in.
    pub(super) fn current(&self) -> Option<&ActiveSession> {
        let selected = self.selected?;
        self.all.iter().find(|active| active.info.id == selected)
    }

    /// As [`Self::current`].
    pub(super) fn current_mut(&mut self) -> Option<&mut ActiveSession> {
        let selected = self.selected?;
        self.all.iter_mut().find(|active| active.info.id == selected)
    }

    /// The established ones, oldest first.
    pub(super) fn established(&self) -> impl Iterator<Item = &SessionInfo> {
        self.all.iter().filter(|active| active.session.is_established()).map(|active| &active.info)
    }

    /// Whether one of them has this number as our half of its id.
    pub(super) fn uses_half(&self, half: u16) -> bool {
        self.all.iter().any(|active| active.info.id & 0xFFFF == u32::from(half))
    }

    /// Adds a session and selects it.
    pub(super) fn begin(&mut self, active: ActiveSession) {
        self.selected = Some(active.info.id);
        self.all.push(active);
    }

    /// Chooses where commands travel; `None` is outside any session.
    pub(super) fn select(&mut self, id: Option<SessionId>) -> Result<(), Misuse> {
        if id.is_some_and(|id| self.established().all(|info| info.id != id)) {
            return Err(Misuse::NoSession);
        }
        self.selected = id;
        Ok(())
    }

    /// The selected session is gone; nothing is selected then.
    pub(super) fn end_current(&mut self) {
        if let Some(ended) = self.selected.take() {
            self.all.retain(|active| active.info.id != ended);
        }
    }

    /// All are gone.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.selected = None;
    }
}
