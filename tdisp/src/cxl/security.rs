//! TSP's state: the primary session, and whether it has locked the configuration.

use crate::SessionId;

use super::Note;
use super::tsp::{self, ErrorCode, Request, TspState};

/// The configuration report: no register of it is valid, for there is none.
const REPORT: [u8; 4] = [0; 4];

/// The configuration itself is not here: nothing can be enabled in it.
#[derive(Default)]
pub(super) struct Security {
    /// The session that may do more than ask for the version.
    primary: Option<SessionId>,
    state: TspState,
}

impl Security {
    pub(super) fn state(&self) -> TspState {
        self.state
    }

    /// Answers one message.
    pub(super) fn handle(&mut self, session: SessionId, message: &[u8], out: &mut Vec<u8>) -> Option<Note> {
        match self.answer(session, message, out) {
            Ok(note) => note,
            Err(code) => {
                tsp::error(code, out);
                Some(Note::Refused(code))
            }
        }
    }

    fn answer(
        &mut self,
        session: SessionId,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Note>, ErrorCode> {
        let request = Request::decode(message)?;
        let mut note = None;
        if request == Request::GetVersion {
            self.primary.get_or_insert(session);
        } else if self.primary != Some(session) {
            return Err(ErrorCode::NO_PRIVILEGE);
        }
        match request {
            Request::GetVersion => tsp::version(request, out),
            Request::GetCapabilities => tsp::capabilities(request, out),
            Request::SetConfiguration { features, secondary_sessions } => {
                if self.state != TspState::ConfigUnlocked {
                    return Err(ErrorCode::INVALID_SECURITY_STATE);
                }
                // Features that stay off can be read back; whether a key was taken could not.
                if secondary_sessions {
                    return Err(ErrorCode::INVALID_REQUEST);
                }
                note = features.then_some(Note::LeftOff);
                tsp::done(request, out);
            }
            Request::GetConfiguration => tsp::configuration(request, self.state, out),
            Request::GetReport { offset, length } => {
                let rest = REPORT.get(usize::from(offset)..).filter(|rest| !rest.is_empty() && length > 0);
                let rest = rest.ok_or(ErrorCode::INVALID_REQUEST)?;
                let (portion, after) = rest.split_at(rest.len().min(usize::from(length)));
                tsp::report(request, portion, u16::try_from(after.len()).unwrap_or(u16::MAX), out);
            }
            Request::Lock => {
                if self.state == TspState::ConfigLocked {
                    return Err(ErrorCode::ALREADY_LOCKED);
                }
                self.state = TspState::ConfigLocked;
                note = Some(Note::Locked);
                tsp::done(request, out);
            }
        }
        Ok(note)
    }

    pub(super) fn session_ended(&mut self, session: SessionId) -> Option<Note> {
        if self.primary != Some(session) {
            return None;
        }
        let was_locked = self.state == TspState::ConfigLocked;
        *self = Self::default();
        was_locked.then_some(Note::Unlocked)
    }
}
