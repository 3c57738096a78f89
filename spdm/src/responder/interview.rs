//! Who the requester is: the responder's GET_DIGESTS, GET_CERTIFICATE and CHALLENGE
//! (DSP0274 1.3 "Mutual authentication").

use crate::codec::{EncodeError, Reader};
use crate::crypto::{CryptoError, hash};
use crate::identity::Purpose;
use crate::slot::PUBLIC_KEY_SLOT;
use crate::transcript::{SigningContext, Transcript, Verifier};
use crate::trust::{Judge, PeerKey};
use crate::wire::{
    Certificate, Challenge, ChallengeAuth, Digests, ENCAPSULATION_SIZE, ErrorCode, GetCertificate,
    GetDigests, NONCE_SIZE, RequesterContext, SummaryType, Version,
};

use super::Core;
use super::encapsulated::{Channel, Heard};
use super::mutual::Proof;
use super::reject::Reject;
use super::sessions::Stage;

/// Bytes of CERTIFICATE before the portion.
const CERTIFICATE_OVERHEAD: usize = 8;
/// A requester that sends less, and has more, wants to keep us busy.
const SMALLEST_PORTION: usize = 42 - ENCAPSULATION_SIZE - CERTIFICATE_OVERHEAD;

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// The questions about a requester, and what has been answered.
#[derive(Debug)]
pub(super) struct Interview {
    /// Whether CHALLENGE follows, because no FINISH does.
    challenge: bool,
    pub(super) step: Step,
    /// The requester's M1/M2 without CHALLENGE; nothing is kept unless that follows.
    log: Option<Transcript>,
    /// DIGESTS, where it becomes part of TH.
    digests: Vec<u8>,
}

/// The question that is out.
#[derive(Debug)]
pub(super) enum Step {
    /// None yet.
    Start,
    /// GET_DIGESTS.
    Digests,
    /// GET_CERTIFICATE.
    Certificate(Fetch),
    /// CHALLENGE.
    Challenge { slot: u8, context: Option<RequesterContext> },
}

/// A chain on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    slot: u8,
    /// What DIGESTS said.
    digest: Vec<u8>,
    chain: Vec<u8>,
    /// Length of the whole, once the first portion told it.
    total: Option<usize>,
    /// Length asked for in the request that is out.
    asked: u16,
}

impl Interview {
    pub(super) const fn new(challenge: bool) -> Self {
        Self { challenge, step: Step::Start, log: None, digests: Vec::new() }
    }

    /// The requester's key is known beforehand: it has to prove that it has it.
    pub(super) const fn known() -> Self {
        let step = Step::Challenge { slot: PUBLIC_KEY_SLOT, context: None };
        Self { challenge: true, step, log: None, digests: Vec::new() }
    }
}

impl Fetch {
    /// Takes a portion; whether it was the last.
    fn take(&mut self, response: &Certificate<'_>) -> Result<bool, Reject> {
        let length = response.portion.len();
        let remainder = usize::try_from(response.remainder).unwrap_or(usize::MAX);
        let total = (self.chain.len() + length).saturating_add(remainder);
        let enough = length >= SMALLEST_PORTION || response.remainder == 0;
        let adds_up = response.slot == self.slot
            && (1..=usize::from(self.asked)).contains(&length)
            && enough
            && total <= usize::from(u16::MAX)
            && self.total.is_none_or(|earlier| earlier == total);
        if !adds_up {
            return Err(BAD_RESPONSE);
        }
        self.total = Some(total);
        self.chain.extend_from_slice(response.portion);
        Ok(response.remainder == 0)
    }

    /// What is still missing, as far as it fits `room`.
    fn next(&mut self, version: Version, room: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let missing = self.total.map_or(usize::MAX, |total| total - self.chain.len());
        self.asked = u16::try_from(missing.min(room)).unwrap_or(u16::MAX);
        // A chain has 65,535 bytes at most: the offset of a missing one fits.
        let offset = u16::try_from(self.chain.len()).unwrap_or(u16::MAX);
        GetCertificate {
            version,
            slot: self.slot,
            slot_size: false,
            large: false,
            offset: offset.into(),
            length: self.asked.into(),
        }
        .encode(out)
    }
}

impl Core {
    /// Appends the question that is due.
    pub(super) fn question(&mut self, interview: &mut Interview, out: &mut Vec<u8>) -> Result<(), Reject> {
        let version = self.connection.error_version();
        match &mut interview.step {
            Step::Start => {
                interview.step = Step::Digests;
                GetDigests { version }.encode(out);
            }
            Step::Digests => GetDigests { version }.encode(out),
            Step::Certificate(fetch) => {
                let room = usize::try_from(self.config.data_transfer_size).unwrap_or(usize::MAX);
                fetch.next(version, room.saturating_sub(ENCAPSULATION_SIZE + CERTIFICATE_OVERHEAD), out)?;
            }
            Step::Challenge { slot, context } => {
                let mut nonce = [0; NONCE_SIZE];
                self.provider.random(&mut nonce)?;
                if version >= Version::V1_3 {
                    let mut bytes = RequesterContext::default();
                    self.provider.random(&mut bytes)?;
                    *context = Some(bytes);
                }
                let (slot, context) = (*slot, *context);
                Challenge { version, slot, summary: SummaryType::None, nonce, context }.encode(out);
            }
        }
        Ok(())
    }

    /// Takes the answer to `request`.
    pub(super) fn answered(
        &mut self,
        channel: Channel,
        interview: &mut Interview,
        request: &[u8],
        response: &[u8],
    ) -> Result<Heard, Reject> {
        match &mut interview.step {
            Step::Start => Err(BAD_RESPONSE),
            Step::Digests => self.digests_heard(channel, interview, request, response),
            Step::Certificate(fetch) => {
                let mut reader = Reader::new(response);
                let body = Certificate::parse(&mut reader).map_err(|_| BAD_RESPONSE)?;
                let last = fetch.take(&body)?;
                let exact = response.get(..reader.consumed()).unwrap_or_default();
                if !last {
                    self.log(interview, [request, exact])?;
                    return Ok(Heard::More);
                }
                let (slot, key) = self.judge(fetch)?;
                self.log(interview, [request, exact])?;
                self.identified(channel, interview, slot, key)
            }
            Step::Challenge { slot, context } => {
                let (slot, context) = (*slot, *context);
                self.challenged(interview, slot, context, request, response)
            }
        }
    }

    fn digests_heard(
        &mut self,
        channel: Channel,
        interview: &mut Interview,
        request: &[u8],
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let negotiated = self.connection.negotiated()?;
        let several = negotiated.suite.requester_keys;
        let mut reader = Reader::new(response);
        let body =
            Digests::parse(&mut reader, negotiated.suite.hash.size(), several).map_err(|_| BAD_RESPONSE)?;
        let wanted = self.config.mutual.slot;
        let lowest = u8::try_from(body.provisioned_slots.trailing_zeros()).unwrap_or(u8::MAX);
        let slot = if body.digest(wanted).is_some() { wanted } else { lowest };
        let digest = body.digest(slot).ok_or(BAD_RESPONSE)?;
        let known = negotiated.identity(slot);
        let known = known.filter(|key| key.digest.as_ref() == digest).cloned();
        let exact = response.get(..reader.consumed()).unwrap_or_default();
        if several {
            interview.digests = exact.to_vec();
        }
        self.log(interview, [request, exact])?;
        // A chain that was checked on this connection is not asked for again.
        if let Some(key) = known {
            return self.identified(channel, interview, slot, key);
        }
        let digest = digest.to_vec();
        interview.step = Step::Certificate(Fetch { slot, digest, chain: Vec::new(), total: None, asked: 0 });
        Ok(Heard::More)
    }

    /// Checks a whole chain.
    fn judge(&mut self, fetch: &Fetch) -> Result<(u8, PeerKey), Reject> {
        let negotiated = self.connection.negotiated()?;
        let provider = self.provider.as_ref();
        let judge = Judge {
            provider,
            policy: &self.config.mutual.trust,
            time: self.config.mutual.time,
            version: negotiated.peer.version,
            hash: negotiated.suite.hash,
            algorithm: Some(negotiated.suite.requester_asym.ok_or(BAD_RESPONSE)?),
            purpose: Purpose::Requester,
        };
        let digest = hash(provider, negotiated.suite.hash, &fetch.chain)?;
        if digest.as_ref() != fetch.digest {
            return Err(BAD_RESPONSE);
        }
        let approved = judge.approve(&fetch.chain).map_err(|reason| {
            log::debug!("the requester's certificate chain is not acceptable: {reason:?}");
            BAD_RESPONSE
        })?;
        let key = PeerKey { public_key: approved.certificates.public_key, digest };
        negotiated.identities.insert(fetch.slot, key.clone());
        Ok((fetch.slot, key))
    }

    /// The chain holds; that the requester has its key is still to be proved.
    fn identified(
        &mut self,
        channel: Channel,
        interview: &mut Interview,
        slot: u8,
        key: PeerKey,
    ) -> Result<Heard, Reject> {
        if interview.challenge {
            interview.step = Step::Challenge { slot, context: None };
            return Ok(Heard::More);
        }
        let Channel::Session(index) = channel else { return Ok(Heard::Enough) };
        let entry = self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?;
        if let Stage::Handshake { proof, .. } = &mut entry.stage {
            *proof = Proof::Key { slot, key, digests: core::mem::take(&mut interview.digests) };
        }
        Ok(Heard::Slot(slot))
    }

    /// CHALLENGE_AUTH of the requester.
    fn challenged(
        &mut self,
        interview: &mut Interview,
        slot: u8,
        context: Option<RequesterContext>,
        request: &[u8],
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let negotiated = self.connection.negotiated()?;
        let hash = negotiated.suite.hash;
        let algorithm = negotiated.suite.requester_asym.ok_or(BAD_RESPONSE)?;
        let size = algorithm.signature_size();
        let mut reader = Reader::new(response);
        let body = ChallengeAuth::parse(&mut reader, hash.size(), 0, size).map_err(|_| BAD_RESPONSE)?;
        let key = negotiated.identity(slot).cloned().ok_or(BAD_RESPONSE)?;
        let about_slot = match slot {
            PUBLIC_KEY_SLOT => body.slot() == 0xF && body.slot_mask == 0,
            slot => body.slot() == slot && body.slot_mask >> slot & 1 == 1,
        };
        let agrees = about_slot && body.chain_hash == key.digest.as_ref() && body.context == context;
        if !agrees {
            return Err(BAD_RESPONSE);
        }
        let unsigned = reader.consumed() - size;
        self.log(interview, [request, response.get(..unsigned).unwrap_or_default()])?;
        let m1m2 = interview.log.as_ref().ok_or(BAD_RESPONSE)?;
        let verifier = Verifier { algorithm, hash, public_key: &key.public_key };
        verifier
            .verify(self.provider.as_ref(), SigningContext::RequesterChallengeAuth, m1m2, body.signature)
            .map_err(|_| BAD_RESPONSE)?;
        self.sessions.events.requester_authenticated(None, slot);
        Ok(Heard::Enough)
    }

    /// Adds an exchange to the requester's M1/M2.
    fn log(&mut self, interview: &mut Interview, exchange: [&[u8]; 2]) -> Result<(), Reject> {
        if !interview.challenge {
            return Ok(());
        }
        let negotiated = self.connection.negotiated()?;
        let begun = interview.log.take();
        let begin = || negotiated.basis(self.provider.as_ref()).requester_m1m2();
        let mut log = begun.map_or_else(begin, Ok::<_, CryptoError>)?;
        exchange.iter().for_each(|message| log.append(message));
        interview.log = Some(log);
        Ok(())
    }
}
