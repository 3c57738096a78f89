//! The responder's GET_ENDPOINT_INFO: what kind of device the requester is
//! (DSP0274 1.3 "GET_ENDPOINT_INFO request and ENDPOINT_INFO response messages", "Encapsulated requests").

use crate::SessionId;
use crate::codec::Reader;
use crate::slot::slot_of_field;
use crate::transcript::{SigningContext, Verifier};
use crate::wire::{
    DEVICE_CLASS_IDENTIFIER, DeviceClass, EndpointInfo, ErrorCode, GetEndpointInfo, NONCE_SIZE,
    RequesterFlags, encapsulates,
};

use super::encapsulated::{Channel, Heard};
use super::reject::Reject;
use super::sessions::Stage;
use super::{Core, Responder};

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// What a requester says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequesterEndpoint {
    /// Device classes.
    pub classes: Vec<DeviceClass>,
    /// Slot of the requester whose key vouches for them, or 0xFF for its public key.
    pub signed_by: Option<u8>,
}

/// What is to be asked on one channel, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    pub(super) wanted: Option<Question>,
    known: Option<RequesterEndpoint>,
}

/// How it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    signed_by: Option<u8>,
}

impl Responder {
    /// Asks what kind of device the requester is when it comes with GET_ENCAPSULATED_REQUEST next, in this session or
    /// outside any; [`Self::requester_endpoint`] has the answer then. `signed_by` is the requester's slot whose key is
    /// to sign, or 0xFF for its public key: one that is known from authentication before.
    ///
    /// `false` if there is no such session, or the requester cannot answer that (`EP_INFO_CAP`, `ENCAP_CAP`).
    pub fn ask_endpoint_info(&mut self, session: Option<SessionId>, signed_by: Option<u8>) -> bool {
        let core = &mut self.core;
        let ours = core.flags;
        let Some(channel) = core.channel_of(session) else { return false };
        let Ok(negotiated) = core.connection.negotiated() else { return false };
        let peer = negotiated.peer;
        let needed =
            if signed_by.is_some() { RequesterFlags::EP_INFO_SIG } else { RequesterFlags::EP_INFO_MASK };
        let able = encapsulates(peer.version, peer.flags, ours)
            && peer.flags.any(needed)
            && signed_by.is_none_or(|slot| negotiated.identity(slot).is_some());
        if !able {
            return false;
        }
        let endpoint = core.endpoint(channel);
        endpoint.map(|endpoint| endpoint.wanted = Some(Question { signed_by })).is_ok()
    }

    /// What the requester has answered last, in this session or outside any.
    pub fn requester_endpoint(&mut self, session: Option<SessionId>) -> Option<&RequesterEndpoint> {
        let channel = self.core.channel_of(session)?;
        self.core.endpoint(channel).ok()?.known.as_ref()
    }
}

impl Core {
    /// The established session of this id, or the outside.
    fn channel_of(&self, session: Option<SessionId>) -> Option<Channel> {
        let Some(id) = session else { return Some(Channel::Outside) };
        let index = self.sessions.find(id)?;
        let established = matches!(self.sessions.get(index)?.stage, Stage::Application { .. });
        established.then_some(Channel::Session(index))
    }

    pub(super) fn endpoint(&mut self, channel: Channel) -> Result<&mut Endpoint, Reject> {
        match channel {
            Channel::Outside => Ok(&mut self.connection.negotiated()?.endpoint),
            Channel::Session(index) => {
                Ok(&mut self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?.endpoint)
            }
        }
    }

    /// Appends the question.
    pub(super) fn ask_endpoint(&self, question: Question, out: &mut Vec<u8>) -> Result<(), Reject> {
        let mut nonce = [0; NONCE_SIZE];
        self.provider.random(&mut nonce)?;
        GetEndpointInfo {
            version: self.connection.error_version(),
            sub_code: DEVICE_CLASS_IDENTIFIER,
            slot: question.signed_by.unwrap_or(0),
            nonce: question.signed_by.map(|_| nonce),
        }
        .encode(out);
        Ok(())
    }

    /// Takes the answer to `request`.
    pub(super) fn endpoint_heard(
        &mut self,
        channel: Channel,
        question: Question,
        request: &[u8],
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let negotiated = self.connection.negotiated()?;
        let suite = negotiated.suite;
        let size = match question.signed_by {
            Some(_) => suite.requester_asym.ok_or(BAD_RESPONSE)?.signature_size(),
            None => 0,
        };
        let mut reader = Reader::new(response);
        let body = EndpointInfo::parse(&mut reader, size).map_err(|_| BAD_RESPONSE)?;
        if let Some(slot) = question.signed_by {
            let key = negotiated.identity(slot).ok_or(BAD_RESPONSE)?;
            let algorithm = suite.requester_asym.ok_or(BAD_RESPONSE)?;
            let mut transcript = negotiated.basis(self.provider.as_ref()).endpoint_info()?;
            transcript.append(request);
            let unsigned = reader.consumed() - body.signature.len();
            transcript.append(response.get(..unsigned).unwrap_or_default());
            let verifier = Verifier { algorithm, hash: suite.hash, public_key: &key.public_key };
            let context = SigningContext::RequesterEndpointInfo;
            let genuine =
                verifier.verify(self.provider.as_ref(), context, &transcript, body.signature).is_ok();
            if slot_of_field(body.slot) != slot || !genuine {
                return Err(BAD_RESPONSE);
            }
        }
        let classes = DeviceClass::parse_list(body.info).map_err(|_| BAD_RESPONSE)?;
        let session = match channel {
            Channel::Outside => None,
            Channel::Session(index) => self.sessions.get(index).map(|entry| entry.session.id()),
        };
        self.endpoint(channel)?.known = Some(RequesterEndpoint { classes, signed_by: question.signed_by });
        self.sessions.events.requester_described(session);
        Ok(Heard::Enough)
    }
}
