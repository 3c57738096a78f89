//! The responder's own KEY_UPDATE: a new key for responses, at the responder's wish
//! (DSP0274 1.3 "KEY_UPDATE request and KEY_UPDATE_ACK response messages").

use crate::SessionId;
use crate::codec::Reader;
use crate::wire::{ErrorCode, KeyOperation, KeyUpdate, ResponderFlags, encapsulates};

use super::encapsulated::{Channel, Heard};
use super::reject::Reject;
use super::sessions::Stage;
use super::{Core, Responder};

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// How far the renewal is. The requester is asked to expect another key, then that key is used.
#[derive(Debug)]
pub(super) enum KeyRenewal {
    Wanted,
    Asked(KeyUpdate),
}

impl KeyRenewal {
    /// The acknowledgement echoes operation and tag.
    pub(super) fn acknowledged(&self, response: &[u8]) -> Result<Heard, Reject> {
        let mut reader = Reader::new(response);
        let ack = KeyUpdate::parse_ack(&mut reader);
        let exact = reader.finish(0).is_ok();
        match self {
            Self::Asked(asked) if exact && ack == Ok(*asked) => Ok(match asked.operation {
                KeyOperation::VerifyNewKey => Heard::Enough,
                KeyOperation::UpdateKey | KeyOperation::UpdateAllKeys => Heard::More,
            }),
            Self::Asked(_) | Self::Wanted => Err(BAD_RESPONSE),
        }
    }
}

impl Responder {
    /// Asks for a new key for what the responder sends in this session, when the requester comes with
    /// GET_ENCAPSULATED_REQUEST next. `false` if there is no such session, or the requester cannot do that.
    pub fn renew_key(&mut self, session: SessionId) -> bool {
        let core = &mut self.core;
        let Some(peer) = core.connection.peer() else { return false };
        // The bit is the same in both directions.
        let able = encapsulates(peer.version, peer.flags, core.flags)
            && core.flags.has(ResponderFlags::KEY_UPD)
            && peer.flags.has(ResponderFlags::KEY_UPD);
        let entry = core.sessions.find(session).and_then(|index| core.sessions.get_mut(index));
        match entry.map(|entry| &mut entry.stage) {
            Some(Stage::Application { renew_key, .. }) if able => {
                *renew_key = true;
                true
            }
            _ => false,
        }
    }
}

impl Core {
    /// Appends the question that is due. That the new key is to be verified is said under the new key.
    pub(super) fn renew(
        &mut self,
        channel: Channel,
        renewal: &mut KeyRenewal,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let Channel::Session(index) = channel else { return Err(Reject::UNEXPECTED) };
        let version = self.connection.error_version();
        let operation = match renewal {
            KeyRenewal::Wanted => KeyOperation::UpdateKey,
            KeyRenewal::Asked(_) => {
                let entry = self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?;
                entry.session.update_outbound(self.provider.as_ref())?;
                KeyOperation::VerifyNewKey
            }
        };
        let mut tag = [0];
        self.provider.random(&mut tag)?;
        let asked = KeyUpdate { version, operation, tag: tag.into_iter().sum() };
        asked.encode(out);
        *renewal = KeyRenewal::Asked(asked);
        Ok(())
    }
}
