//! FINISH: completes the handshake (DSP0274 1.3 "FINISH request and FINISH_RSP response messages").

use crate::session::Role;
use crate::wire::{ErrorCode, Finish, FinishRsp};

use super::Core;
use super::key_exchange::handshake_in_the_clear;
use super::reject::{Handled, Next, Reject};
use super::sessions::Stage;
use super::state::Request;

impl Core {
    /// A wrong HMAC ends the session; a malformed FINISH leaves it waiting for a proper one.
    pub(super) fn finish(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let negotiated = self.connection.negotiated()?;
        let clear = handshake_in_the_clear(self.flags, negotiated);
        let index = match request.session {
            Some(index) if !clear => index,
            // Every session there is has finished already, or there is none.
            None if clear && !self.sessions.is_empty() => {
                self.sessions.last_handshake().ok_or(Reject::UNEXPECTED)?
            }
            Some(_) | None => return Err(Reject::SESSION_REQUIRED),
        };
        let hash_size = negotiated.suite.hash.size();
        let entry = self.sessions.get_mut(index).ok_or(Reject::SESSION_REQUIRED)?;
        let Stage::Handshake { transcript } = &mut entry.stage else { return Err(Reject::UNEXPECTED) };
        let (body, message) = request.parse(|reader| Finish::parse(reader, 0, hash_size))?;
        // The requester was not asked to authenticate itself.
        if body.signature.is_some() {
            return Err(Reject::INVALID);
        }

        let provider = self.provider.as_ref();
        let mut transcript = transcript.clone();
        let (signed, verify_data) =
            message.split_at_checked(message.len() - hash_size).ok_or(Reject::INVALID)?;
        transcript.append(signed);
        let th = transcript.digest();
        if entry.session.check_verify_data(provider, Role::Requester, &th, verify_data).is_err() {
            return Err(self.fail_handshake(request, index));
        }
        transcript.append(verify_data);
        FinishRsp { version: body.version, opaque: &[], verify_data: &[] }.encode(out)?;
        transcript.append(out);
        if clear {
            let verify_data = entry.session.verify_data(provider, Role::Responder, &transcript.digest())?;
            out.extend_from_slice(verify_data.as_ref());
            transcript.append(verify_data.as_ref());
        }
        Ok(Next::Establish(index, transcript.digest()))
    }

    fn fail_handshake(&mut self, request: &Request<'_>, index: usize) -> Reject {
        if request.session.is_none() {
            self.sessions.end(index, super::EndReason::Unauthentic);
            return Reject::error(ErrorCode::DECRYPT_ERROR);
        }
        Reject::Fatal(ErrorCode::DECRYPT_ERROR)
    }
}
