//! Who owns the link's key management, and which of the two keys there is: one for each direction.

use crate::SessionId;

use super::ide_km::{self, ACK_INVALID, ACK_SUCCESS, Head, Request};

/// A direction's key.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Empty,
    /// KEY_PROG brought one.
    Programmed,
    /// K_SET_GO took it to use.
    InUse,
}

/// The keys of one port.
#[derive(Default)]
pub(super) struct Keys {
    owner: Option<SessionId>,
    receive: Slot,
    transmit: Slot,
}

impl Keys {
    /// Answers one object; `None` is silence.
    pub(super) fn handle(&mut self, session: SessionId, message: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if self.owner.is_some_and(|owner| owner != session) {
            return None;
        }
        let request = match Request::decode(message) {
            Ok(request) => request,
            Err(_) if message.first() == Some(&ide_km::KEY_PROG) => {
                // Of a wrong length, and acknowledged as such.
                let head = Head::peek(message).ok()?;
                self.owner = Some(session);
                ide_km::key_programmed(head, ACK_INVALID, out);
                return Some(());
            }
            Err(_) => return None,
        };
        match request {
            Request::Query(port_index) => {
                if port_index != 0 {
                    return None;
                }
                self.owner = Some(session);
                ide_km::query_response(out);
            }
            Request::KeyProg(head) => {
                self.owner = Some(session);
                let status = match self.slot(head) {
                    Some(slot) => {
                        *slot = Slot::Programmed;
                        ACK_SUCCESS
                    }
                    None => ACK_INVALID,
                };
                ide_km::key_programmed(head, status, out);
            }
            Request::KSetGo(head) => {
                let slot = self.slot(head).filter(|slot| **slot != Slot::Empty)?;
                *slot = Slot::InUse;
                ide_km::gone_or_stopped(head, out);
            }
            Request::KSetStop(head) => {
                *self.slot(head)? = Slot::Empty;
                ide_km::gone_or_stopped(head, out);
            }
            Request::GetKey(head) => {
                self.slot(head)?;
                self.owner = Some(session);
                ide_km::no_key(head, out);
            }
        }
        Some(())
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        if self.owner == Some(session) {
            *self = Self::default();
        }
    }

    /// The key that a head names, if there is one of that name.
    fn slot(&mut self, head: Head) -> Option<&mut Slot> {
        if head.port_index != 0 || !head.key.is_legal() {
            return None;
        }
        Some(if head.key.tx() { &mut self.transmit } else { &mut self.receive })
    }
}
