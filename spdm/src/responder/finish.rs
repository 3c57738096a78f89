//! FINISH: completes the handshake (DSP0274 1.3 "FINISH request and FINISH_RSP response messages").

use crate::crypto::AsymAlgorithm;
use crate::session::Role;
use crate::transcript::{SigningContext, Verifier};
use crate::wire::{ErrorCode, Finish, FinishRsp};

use super::Core;
use super::key_exchange::handshake_in_the_clear;
use super::mutual::Proof;
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
        let suite = negotiated.suite;
        let (hash, signer) = (suite.hash, suite.requester_asym);
        let hash_size = hash.size();
        let entry = self.sessions.get_mut(index).ok_or(Reject::SESSION_REQUIRED)?;
        let Stage::Handshake { transcript, proof } = &mut entry.stage else {
            return Err(Reject::UNEXPECTED);
        };
        let key = match proof {
            Proof::Nothing => None,
            Proof::Untold => return Err(Reject::UNEXPECTED),
            Proof::Key { slot, key, digests } => Some((*slot, &*key, &*digests)),
        };
        let signature_size = signer.map_or(0, AsymAlgorithm::signature_size);
        let (body, message) = request.parse(|reader| Finish::parse(reader, signature_size, hash_size))?;
        suite.check_opaque(body.version, body.opaque)?;
        // Whoever was asked to authenticate itself does, with the key it was asked for; nobody else.
        let expected = key.map(|(slot, ..)| slot);
        if body.signature.map(|_| body.requester_slot) != expected {
            return Err(Reject::INVALID);
        }

        let provider = self.provider.as_ref();
        // A response that does not fit leaves the handshake where it is.
        let mut transcript = transcript.clone();
        let (signed, verify_data) =
            message.split_at_checked(message.len() - hash_size).ok_or(Reject::INVALID)?;
        match (key, body.signature, signer) {
            (Some((_, key, digests)), Some(signature), Some(algorithm)) => {
                let unsigned = signed.get(..signed.len() - signature.len()).unwrap_or_default();
                [digests.as_slice(), key.digest.as_ref(), unsigned]
                    .iter()
                    .for_each(|part| transcript.append(part));
                let verifier = Verifier { algorithm, hash, public_key: &key.public_key };
                if verifier.verify(provider, SigningContext::Finish, &transcript, signature).is_err() {
                    return Err(self.fail_handshake(request, index, ErrorCode::DECRYPT_ERROR));
                }
                transcript.append(signature);
            }
            _ => transcript.append(signed),
        }
        let th = transcript.digest();
        if entry.session.check_verify_data(provider, Role::Requester, &th, verify_data).is_err() {
            return Err(self.fail_handshake(request, index, ErrorCode::DECRYPT_ERROR));
        }
        transcript.append(verify_data);
        FinishRsp { version: body.version, opaque: &[], verify_data: &[] }.encode(out)?;
        transcript.append(out);
        if clear {
            let verify_data = entry.session.verify_data(provider, Role::Responder, &transcript.digest())?;
            out.extend_from_slice(verify_data.as_ref());
            transcript.append(verify_data.as_ref());
        }
        entry.provenance.requester = expected;
        let (id, th2) = (entry.session.id(), transcript.digest());
        if let Some(slot) = expected {
            self.sessions.events.requester_authenticated(Some(id), slot);
        }
        Ok(Next::Establish(index, th2))
    }

    /// The session is gone, and `code` says so.
    pub(super) fn fail_handshake(&mut self, request: &Request<'_>, index: usize, code: ErrorCode) -> Reject {
        if request.session.is_none() {
            self.sessions.end(index, super::EndReason::Unauthentic);
            return Reject::error(code);
        }
        Reject::Fatal(code)
    }
}
