//! What a device without a CXL link and without memory answers to CXL's own protocols: IDE_KM for the link's keys (CXL 3.1
//! "CXL_IDE_KM") and TSP for the memory behind it (CXL 3.1 "TEE Security Protocol").
//!
//! Requesters that go through the messages find every one of them here, with a state behind it; nothing is claimed that is
//! not there. QUERY_RESP shows an IDE capability whose "CXL IDE Capable" bit is clear, TSP's capabilities are all zero,
//! and whatever a configuration asks for stays off, as GET_TARGET_CONFIGURATION then tells. Both protocols are of a session:
//! outside of one there is no answer, and what a session did ends with it.
//!
//! Key material is not kept: no link would use it. What is kept is that there is a key.
//!
//! The TSP state, by request; a test executes this table and checks that it is printed here. The session that asked for the
//! version first is the primary one until it ends, and its end unlocks the configuration again.
//!
//! | Request | CONFIG_UNLOCKED | CONFIG_LOCKED | another session |
//! |---|---|---|---|
//! | GET_TARGET_TSP_VERSION | answered | answered | answered |
//! | GET_TARGET_CAPABILITIES | answered | answered | NO_PRIVILEGE |
//! | SET_TARGET_CONFIGURATION | answered | INVALID_SECURITY_STATE | NO_PRIVILEGE |
//! | GET_TARGET_CONFIGURATION | answered | answered | NO_PRIVILEGE |
//! | GET_TARGET_CONFIGURATION_REPORT | answered | answered | NO_PRIVILEGE |
//! | LOCK_TARGET_CONFIGURATION | **CONFIG_LOCKED** | ALREADY_LOCKED | NO_PRIVILEGE |

mod ide_km;
mod keys;
mod security;
mod tsp;

use core::fmt;

pub use tsp::{ErrorCode, TspState};

use crate::dsm::Answer;
use crate::{SessionId, cxl::keys::Keys, cxl::security::Security};

/// Something that its owner may want to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// SET_TARGET_CONFIGURATION asked for what is not supported; it stays off.
    LeftOff,
    /// LOCK_TARGET_CONFIGURATION was accepted.
    Locked,
    /// The primary session is over, and the configuration not locked any more.
    Unlocked,
    /// A TSP request was refused.
    Refused(ErrorCode),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOff => f.write_str("SET_TARGET_CONFIGURATION asks for what is not there: it stays off"),
            Self::Locked => f.write_str("target configuration locked: there is nothing in it"),
            Self::Unlocked => f.write_str("the session that locked the target configuration ended"),
            Self::Refused(code) => write!(f, "request refused: {code}"),
        }
    }
}

/// A CXL target without a link and without memory.
#[derive(Default)]
pub struct Target {
    keys: Keys,
    security: Security,
    note: Option<Note>,
}

impl Target {
    /// A target after a conventional reset.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One CXL IDE_KM object, without the protocol-id byte. The answer is appended to `response`.
    ///
    /// Discarded without an answer, as PCIe's IDE_KM has it: objects outside of a session; objects of a session while another
    /// one owns key management (the first QUERY, KEY_PROG or GET_KEY claims it until that session ends); unknown objects and
    /// wrong lengths other than KEY_PROG's; what names a port or key that is not there and has no status to say so;
    /// K_SET_GO without a key.
    pub fn ide_km(&mut self, session: Option<SessionId>, message: &[u8], response: &mut Vec<u8>) -> Answer {
        match session.and_then(|session| self.keys.handle(session, message, response)) {
            Some(()) => Answer::Respond,
            None => Answer::Silent,
        }
    }

    /// One TSP message, without the protocol-id byte. The answer is appended to `response`; outside of a session there is
    /// none.
    pub fn tsp(&mut self, session: Option<SessionId>, message: &[u8], response: &mut Vec<u8>) -> Answer {
        let Some(session) = session else { return Answer::Silent };
        self.note = self.security.handle(session, message, response);
        Answer::Respond
    }

    /// State of the configuration.
    #[must_use]
    pub fn state(&self) -> TspState {
        self.security.state()
    }

    /// An SPDM session is over, however it ended.
    pub fn session_ended(&mut self, session: SessionId) {
        self.keys.session_ended(session);
        if let Some(note) = self.security.session_ended(session) {
            self.note = Some(note);
        }
    }

    /// Conventional reset.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What the last call gives reason to record.
    pub fn take_note(&mut self) -> Option<Note> {
        self.note.take()
    }
}

#[cfg(test)]
mod tests;
