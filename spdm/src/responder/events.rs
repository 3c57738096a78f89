//! What a device has to hear of from its responder, and the queue it waits in.

use std::collections::VecDeque;

use crate::SessionId;

/// Something a device has to know, or to keep beyond its next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session's handshake succeeded: FINISH, PSK_FINISH, or PSK_EXCHANGE where that is all.
    SessionEstablished {
        /// The session.
        id: SessionId,
    },
    /// A requester has proved who it is, with the key of one of its slots.
    RequesterAuthenticated {
        /// The session that is about to be established with it; `None` outside sessions, after CHALLENGE.
        session: Option<SessionId>,
        /// The requester's slot, or 0xFF for its public key.
        slot: u8,
    },
    /// A requester has said what kind of device it is:
    /// [`Responder::requester_endpoint`](super::Responder::requester_endpoint) has that.
    RequesterDescribed {
        /// The session in which it was asked; `None` outside sessions.
        session: Option<SessionId>,
    },
    /// A session that was established is gone.
    SessionEnded {
        /// The session.
        id: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// A certificate slot was written or erased: [`Responder::slots`](super::Responder::slots) has what it holds now.
    SlotChanged {
        /// The slot.
        slot: u8,
    },
    /// A key pair was changed, erased or generated: [`Responder::slots`](super::Responder::slots) has what is left.
    KeyPairChanged {
        /// The key pair's id.
        key_pair: u8,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// END_SESSION.
    Requested,
    /// No traffic for twice the heartbeat period.
    HeartbeatLost,
    /// GET_VERSION started the connection again.
    Restarted,
    /// The device was reset.
    Reset,
    /// The device's firmware was updated.
    FirmwareUpdated,
    /// A record could not be opened, or FINISH or PSK_FINISH was wrong.
    Unauthentic,
    /// A key has protected as many records as it may, or could not be used.
    Exhausted,
}

impl core::fmt::Display for EndReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Requested => "END_SESSION",
            Self::HeartbeatLost => "no traffic for twice the heartbeat period",
            Self::Restarted => "GET_VERSION started the connection again",
            Self::Reset => "the device was reset",
            Self::FirmwareUpdated => "the device's firmware was updated",
            Self::Unauthentic => "a record or FINISH was not authentic",
            Self::Exhausted => "a key has protected as many records as it may, or could not be used",
        })
    }
}

/// Events nobody has seen yet. It stays small even if it is never read: a few per session that can live at
/// once, and one per slot and key pair.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

impl Events {
    pub(super) fn session_established(&mut self, id: SessionId) {
        self.0.push_back(Event::SessionEstablished { id });
    }

    pub(super) fn requester_authenticated(&mut self, session: Option<SessionId>, slot: u8) {
        let event = Event::RequesterAuthenticated { session, slot };
        if !self.0.contains(&event) {
            self.0.push_back(event);
        }
    }

    /// A beginning that nobody has seen yet is taken back instead.
    pub(super) fn session_ended(&mut self, id: SessionId, reason: EndReason) {
        let unseen = self.0.iter().rposition(|event| *event == Event::SessionEstablished { id });
        match unseen {
            Some(position) => {
                self.0.remove(position);
                let of_session = Some(id);
                self.0.retain(|event| {
                    !matches!(event, Event::RequesterAuthenticated { session, .. } if *session == of_session)
                });
            }
            None => self.0.push_back(Event::SessionEnded { id, reason }),
        }
    }

    pub(super) fn requester_described(&mut self, session: Option<SessionId>) {
        self.once(Event::RequesterDescribed { session });
    }

    pub(super) fn slot_changed(&mut self, slot: u8) {
        self.once(Event::SlotChanged { slot });
    }

    pub(super) fn key_pair_changed(&mut self, key_pair: u8) {
        self.once(Event::KeyPairChanged { key_pair });
    }

    /// An event that says the same however often it happened.
    fn once(&mut self, event: Event) {
        if !self.0.contains(&event) {
            self.0.push_back(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
