//! GET_ENDPOINT_INFO in both directions: what kind of device this is, and what the requester is
//! (DSP0274 1.3 "GET_ENDPOINT_INFO request and ENDPOINT_INFO response messages").

use crate::codec::Reader;
use crate::slot::{PUBLIC_KEY_SLOT, SLOT_COUNT, slot_of_field};
use crate::transcript::{SigningContext, Verifier, sign};
use crate::wire::{
    DEVICE_CLASS_IDENTIFIER, DeviceClass, EndpointInfo, ErrorCode, GetEndpointInfo, KeyUsage, NONCE_SIZE,
    RequesterFlags, ResponderFlags, Version, encapsulates,
};

use super::encapsulated::{Channel, Heard};
use super::reject::{Handled, Next, Reject};
use super::state::{Connection, Request};
use super::{ConfigError, Core, Responder};

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// The responder's own GET_ENDPOINT_INFO.
#[derive(Debug)]
pub(super) struct EndpointQuestion {
    /// The requester's slot that is to sign, if it signs such things and is known to have one.
    signed_by: Option<u8>,
}

impl Responder {
    /// Asks the requester what it is, when it comes with GET_ENCAPSULATED_REQUEST next, in a session or outside; the answer
    /// is signed if that can be had and checked. `false` if there is no requester, or none that tells.
    pub fn ask_endpoint_info(&mut self) -> bool {
        let core = &mut self.core;
        let Connection::Negotiated(negotiated) = &mut core.connection else { return false };
        let peer = &negotiated.peer;
        let able = peer.version >= Version::V1_3
            && encapsulates(peer.version, peer.flags, core.flags)
            && peer.flags.any(RequesterFlags::EP_INFO_MASK);
        negotiated.ask_endpoint_info |= able;
        able
    }

    /// What the requester of this connection said it is, if it was asked.
    pub fn requester_classes(&self) -> &[DeviceClass] {
        match &self.core.connection {
            Connection::Negotiated(negotiated) => &negotiated.classes,
            Connection::Start | Connection::Version { .. } | Connection::Capabilities { .. } => &[],
        }
    }
}

impl Core {
    pub(super) fn get_endpoint_info(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetEndpointInfo::parse)?;
        let negotiated = self.connection.negotiated()?;
        let suite = negotiated.suite;
        if body.sub_code != DEVICE_CLASS_IDENTIFIER {
            return Err(Reject::INVALID);
        }
        let provider = self.provider.as_ref();
        let signer = match body.nonce {
            None => None,
            Some(_) if !self.flags.has(ResponderFlags::EP_INFO_SIG) => {
                return Err(Reject::unsupported(request.header.code));
            }
            Some(_) => {
                let slot = slot_of_field(body.slot);
                let (key, _) = suite.identity(&self.chains, slot, KeyUsage::ENDPOINT_INFO)?;
                let mut nonce = [0; NONCE_SIZE];
                provider.random(&mut nonce)?;
                Some((key, nonce))
            }
        };
        let nonce = signer.map(|(_, nonce)| nonce);
        let info = &self.device_classes;
        EndpointInfo { version: body.version, slot: body.slot, nonce, info, signature: &[] }.encode(out)?;
        if let Some((key, _)) = signer {
            let mut transcript = negotiated.basis(provider).endpoint_info()?;
            transcript.append(message);
            transcript.append(out);
            sign(key, suite.hash, SigningContext::EndpointInfo, &transcript, out)?;
        }
        Ok(Next::Stay)
    }

    /// The question that waits to be asked, if one does.
    pub(super) fn endpoint_question(&mut self) -> Result<Option<EndpointQuestion>, Reject> {
        let negotiated = self.connection.negotiated()?;
        if !core::mem::take(&mut negotiated.ask_endpoint_info) {
            return Ok(None);
        }
        let known = |slot: &u8| negotiated.identity(*slot).is_some();
        let slot = (0..SLOT_COUNT as u8).chain([PUBLIC_KEY_SLOT]).find(known);
        Ok(Some(EndpointQuestion {
            signed_by: slot.filter(|_| negotiated.peer.flags.has(RequesterFlags::EP_INFO_SIG)),
        }))
    }

    pub(super) fn ask_what_it_is(
        &mut self,
        question: &EndpointQuestion,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let version = self.connection.error_version();
        let mut nonce = [0; NONCE_SIZE];
        self.provider.random(&mut nonce)?;
        GetEndpointInfo {
            version,
            sub_code: DEVICE_CLASS_IDENTIFIER,
            slot: question.signed_by.unwrap_or(0) & 0xF,
            nonce: question.signed_by.map(|_| nonce),
        }
        .encode(out);
        Ok(())
    }

    /// ENDPOINT_INFO of the requester.
    pub(super) fn endpoint_described(
        &mut self,
        channel: Channel,
        question: &EndpointQuestion,
        request: &[u8],
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let session = match channel {
            Channel::Outside => None,
            Channel::Session(index) => self.sessions.get(index).map(|entry| entry.session.id()),
        };
        let provider = self.provider.as_ref();
        let negotiated = self.connection.negotiated()?;
        let signer = match question.signed_by {
            None => None,
            Some(slot) => {
                let algorithm = negotiated.suite.requester_asym.ok_or(BAD_RESPONSE)?;
                Some((slot, algorithm, negotiated.identity(slot).ok_or(BAD_RESPONSE)?))
            }
        };
        let size = signer.map_or(0, |(_, algorithm, _)| algorithm.signature_size());
        let mut reader = Reader::new(response);
        let body = EndpointInfo::parse(&mut reader, size).map_err(|_| BAD_RESPONSE)?;
        if let Some((slot, algorithm, key)) = signer {
            let unsigned = response.get(..reader.consumed() - size).unwrap_or_default();
            let mut transcript = negotiated.basis(provider).endpoint_info()?;
            transcript.append(request);
            transcript.append(unsigned);
            let verifier = Verifier { algorithm, hash: negotiated.suite.hash, public_key: &key.public_key };
            let genuine = body.slot == slot & 0xF
                && verifier
                    .verify(provider, SigningContext::RequesterEndpointInfo, &transcript, body.signature)
                    .is_ok();
            if !genuine {
                return Err(BAD_RESPONSE);
            }
        }
        negotiated.classes = DeviceClass::parse_list(body.info).map_err(|_| BAD_RESPONSE)?;
        self.sessions.events.requester_described(session, question.signed_by.is_some());
        Ok(Heard::Enough)
    }
}

/// The answer, which is always the same.
pub(super) fn encode(classes: &[DeviceClass]) -> Result<Vec<u8>, ConfigError> {
    let mut info = Vec::new();
    DeviceClass::encode_list(classes, &mut info).map_err(|_| ConfigError::OutOfRange {
        field: "device_classes",
        expected: "at most 255, none longer than 255 bytes",
    })?;
    Ok(info)
}
