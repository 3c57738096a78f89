//! What the requester answers when the responder asks: GET_DIGESTS, GET_CERTIFICATE, CHALLENGE, KEY_UPDATE,
//! GET_ENDPOINT_INFO (DSP0274 1.3 "Encapsulated requests").

use super::encapsulated::{Conversation, Goal};
use super::error::{Misuse, RequesterError};
use super::state::Core;
use crate::codec::{DecodeError, EncodeError, Reader};
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm};
use crate::slot::{SLOT_COUNT, slot_of_field};
use crate::transcript::{SigningContext, sign};
use crate::wire::{
    Algorithms, Certificate, Challenge, ChallengeAuth, Code, DEVICE_CLASS_IDENTIFIER, DeviceClass, Digests,
    ENCAPSULATION_SIZE, EndpointInfo, ErrorCode, GetCertificate, GetDigests, GetEndpointInfo, Header,
    KeyOperation, KeyUpdate, NONCE_SIZE, RequesterFlags, ResponderFlags, SummaryType, Version,
};

/// Why the responder gets no answer.
pub(super) enum Refusal {
    /// It gets this ERROR instead.
    Error(ErrorCode, u8),
    /// The command is over.
    Failed(RequesterError),
}

pub(super) const INVALID: Refusal = Refusal::Error(ErrorCode::INVALID_REQUEST, 0);
pub(super) const UNEXPECTED: Refusal = Refusal::Error(ErrorCode::UNEXPECTED_REQUEST, 0);

impl From<DecodeError> for Refusal {
    fn from(_: DecodeError) -> Self {
        INVALID
    }
}

impl From<EncodeError> for Refusal {
    fn from(error: EncodeError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CryptoError> for Refusal {
    fn from(error: CryptoError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Misuse> for Refusal {
    fn from(error: Misuse) -> Self {
        Self::Failed(error.into())
    }
}

impl From<RequesterError> for Refusal {
    fn from(error: RequesterError) -> Self {
        Self::Failed(error)
    }
}

/// Parses a request; also gives it without the padding of the message it came in.
fn parse<'a, T>(
    request: &'a [u8],
    parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<(T, &'a [u8]), DecodeError> {
    let mut reader = Reader::new(request);
    let body = parse(&mut reader)?;
    Ok((body, request.get(..reader.consumed()).unwrap_or_default()))
}

impl Conversation {
    /// The response to one of the responder's requests.
    pub(super) fn respond(&mut self, core: &mut Core, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let header = Header::parse(&mut Reader::new(request))?;
        let connection = core.connected()?;
        if header.version != connection.info.version {
            return Err(Refusal::Error(ErrorCode::VERSION_MISMATCH, 0));
        }
        let code = header.code;
        let unsupported = || Refusal::Error(ErrorCode::UNSUPPORTED_REQUEST, code.0);
        let asym = connection.info.algorithms.requester_signature;
        match code {
            Code::GET_DIGESTS => self.digests(core, asym.ok_or_else(unsupported)?, request),
            Code::GET_CERTIFICATE => self.certificate(core, asym.ok_or_else(unsupported)?, request),
            Code::CHALLENGE => self.challenge(core, asym.ok_or_else(unsupported)?, request),
            Code::KEY_UPDATE => {
                let ours = core.config.flags().has(RequesterFlags::KEY_UPD);
                if !ours || !connection.info.capabilities.has(ResponderFlags::KEY_UPD) {
                    return Err(unsupported());
                }
                self.key_update(core, request)
            }
            Code::SEND_EVENT => self.events(core, request),
            Code::GET_ENDPOINT_INFO if core.offers_endpoint_info()? => self.endpoint_info(core, request),
            _ => Err(unsupported()),
        }
    }

    fn digests(&mut self, core: &Core, asym: AsymAlgorithm, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (body, exact) = parse(request, GetDigests::parse)?;
        let hash = core.connected()?.hash();
        let provisioned_slots = core.chains.mask(asym);
        if provisioned_slots == 0 {
            return Err(Refusal::Error(ErrorCode::UNSUPPORTED_REQUEST, Code::GET_DIGESTS.0));
        }
        let mut digests = Vec::new();
        for slot in 0..8 {
            if let Some((_, chain)) = core.chains.get(slot, asym, hash) {
                digests.extend_from_slice(chain.digest.as_ref());
            }
        }
        let mut response = Vec::new();
        Digests {
            version: body.version,
            supported_slots: core.chains.supported(asym),
            provisioned_slots,
            digests: &digests,
            keys: Vec::new(),
        }
        .encode(&mut response);
        self.record(core, exact, &response)?;
        Ok(response)
    }

    fn certificate(&mut self, core: &Core, asym: AsymAlgorithm, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (body, exact) = parse(request, GetCertificate::parse)?;
        let connection = core.connected()?;
        let (_, chain) = core.chains.get(body.slot, asym, connection.hash()).ok_or(INVALID)?;
        let room = usize::try_from(connection.info.data_transfer_size)
            .unwrap_or(usize::MAX)
            .saturating_sub(ENCAPSULATION_SIZE + Certificate::overhead(body.large));
        let (offset, length) = if body.slot_size { (0, 0) } else { (body.offset, body.length) };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let rest = chain.bytes.get(offset..).filter(|rest| !rest.is_empty()).ok_or(INVALID)?;
        let (portion, remainder) = rest.split_at(length.min(room).min(rest.len()));
        let mut response = Vec::new();
        Certificate {
            version: body.version,
            slot: body.slot,
            large: body.large,
            model: 0,
            portion,
            remainder: u32::try_from(remainder.len()).unwrap_or(u32::MAX),
        }
        .encode(&mut response)?;
        self.record(core, exact, &response)?;
        Ok(response)
    }

    /// Only what follows CHALLENGE_AUTH may challenge us; in sessions FINISH proves who we are.
    fn challenge(&mut self, core: &Core, asym: AsymAlgorithm, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !matches!(self.goal, Goal::Challenged(_)) {
            return Err(UNEXPECTED);
        }
        let (body, exact) = parse(request, Challenge::parse)?;
        // A requester has no measurements.
        if body.summary != SummaryType::None {
            return Err(INVALID);
        }
        let hash = core.connected()?.hash();
        let (key, digest) = core.chains.identity(body.slot, asym, hash).ok_or(INVALID)?;
        let mut response = Vec::new();
        ChallengeAuth {
            version: body.version,
            attributes: body.slot & 0xF,
            slot_mask: core.chains.mask(asym),
            chain_hash: digest.as_ref(),
            nonce: core.random::<NONCE_SIZE>()?,
            summary: &[],
            opaque: &[],
            context: body.context,
            signature: &[],
        }
        .encode(&mut response)?;
        self.record(core, exact, &response)?;
        let m1m2 = self.log.take().ok_or(UNEXPECTED)?;
        sign(key, hash, SigningContext::RequesterChallengeAuth, &m1m2, &mut response)?;
        self.challenged = Some(body.slot);
        Ok(response)
    }

    /// Another key for responses: both are accepted until the responder shows that it uses the new one.
    fn key_update(&mut self, core: &mut Core, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (body, exact) = parse(request, KeyUpdate::parse)?;
        if !matches!(self.goal, Goal::Serve) || exact.len() != request.len() {
            return Err(INVALID);
        }
        let session = &mut core.sessions.current_mut().ok_or(INVALID)?.session;
        match body.operation {
            KeyOperation::UpdateKey if !session.inbound_pending() => {
                session.update_inbound(&*core.provider)?;
            }
            KeyOperation::VerifyNewKey if session.inbound_used() => {
                session.confirm_inbound();
                self.served.key_renewed = true;
            }
            // The responder may not replace the requester's key.
            KeyOperation::UpdateKey | KeyOperation::UpdateAllKeys | KeyOperation::VerifyNewKey => {
                return Err(INVALID);
            }
        }
        let mut response = Vec::new();
        body.encode_ack(&mut response);
        Ok(response)
    }

    /// What kind of device we are, signed by the key that the responder names if it wants that.
    fn endpoint_info(&mut self, core: &Core, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !matches!(self.goal, Goal::Serve) {
            return Err(UNEXPECTED);
        }
        let (body, exact) = parse(request, GetEndpointInfo::parse)?;
        if body.sub_code != DEVICE_CLASS_IDENTIFIER {
            return Err(INVALID);
        }
        let connection = core.connected()?;
        let hash = connection.hash();
        let signer = match (body.nonce, connection.info.algorithms.requester_signature) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Refusal::Error(ErrorCode::UNSUPPORTED_REQUEST, Code::GET_ENDPOINT_INFO.0));
            }
            (Some(_), Some(asym)) => {
                let identity = core.chains.identity(slot_of_field(body.slot), asym, hash);
                let (key, _) = identity.ok_or(INVALID)?;
                Some((key, core.random::<NONCE_SIZE>()?))
            }
        };
        let mut info = Vec::new();
        DeviceClass::encode_list(&core.config.device_classes, &mut info)?;
        let nonce = signer.map(|(_, nonce)| nonce);
        let mut response = Vec::new();
        EndpointInfo { version: body.version, slot: body.slot, nonce, info: &info, signature: &[] }
            .encode(&mut response)?;
        if let Some((key, _)) = signer {
            let mut transcript = connection.basis(&*core.provider).endpoint_info()?;
            transcript.append(exact);
            transcript.append(&response);
            sign(key, hash, SigningContext::RequesterEndpointInfo, &transcript, &mut response)?;
        }
        self.served.described = true;
        Ok(response)
    }

    /// What a challenge would sign.
    fn record(&mut self, core: &Core, request: &[u8], response: &[u8]) -> Result<(), Refusal> {
        if !matches!(self.goal, Goal::Challenged(_)) {
            return Ok(());
        }
        let mut log = match self.log.take() {
            Some(log) => log,
            None => core.connected()?.basis(&*core.provider).requester_m1m2()?,
        };
        log.append(request);
        log.append(response);
        self.log = Some(log);
        Ok(())
    }
}

impl Core {
    fn offers_endpoint_info(&self) -> Result<bool, Misuse> {
        let version = self.connected()?.info.version;
        Ok(version >= Version::V1_3 && self.flags(version).any(RequesterFlags::EP_INFO_MASK))
    }

    /// `ReqBaseAsymAlg` and `ReqPqcAsymAlg`: what we can sign with, if a responder asks.
    pub(super) fn requester_offer(&self) -> Option<[u16; 2]> {
        let known = self.chains.has_certificates() || self.chains.has_public_key();
        let able =
            |asym: &&AsymAlgorithm| self.config.hashes.iter().any(|hash| self.chains.can_sign(**asym, *hash));
        let offer = |[base, pqc]: [u16; 2], asym: &AsymAlgorithm| {
            [base | asym.requester_bit(), pqc | asym.requester_pqc_bit()]
        };
        known.then(|| AsymAlgorithm::ALL.iter().filter(able).fold([0; 2], offer))
    }

    /// What the responder selected of it. Where one side cannot do mutual authentication, it means nothing.
    pub(super) fn requester_selection(
        &self,
        selected: &Algorithms,
        responder: ResponderFlags,
        hash: HashAlgorithm,
    ) -> Result<Option<AsymAlgorithm>, &'static str> {
        const FAULT: &str = "requester's signature algorithm";
        let base = selected.tables.requester_asym.unwrap_or(0);
        let pqc = selected.tables.requester_pqc_asym.unwrap_or(0);
        let Some([base_offered, pqc_offered]) = self.requester_offer() else {
            return if base | pqc == 0 { Ok(None) } else { Err(FAULT) };
        };
        if base & !base_offered | pqc & !pqc_offered != 0 {
            return Err(FAULT);
        }
        if !responder.has(ResponderFlags::MUT_AUTH) {
            return Ok(None);
        }
        let asym =
            AsymAlgorithm::from_base_bit(base.into()).or_else(|| AsymAlgorithm::from_pqc_bit(pqc.into()));
        asym.filter(|asym| self.chains.can_sign(*asym, hash)).map(Some).ok_or(FAULT)
    }

    /// Whether FINISH can be signed for this slot.
    pub(super) fn has_identity(&self, slot: u8) -> Result<bool, Misuse> {
        let connection = self.connected()?;
        let Some(asym) = connection.info.algorithms.requester_signature else { return Ok(false) };
        let slot_exists = usize::from(slot) < SLOT_COUNT || slot == crate::slot::PUBLIC_KEY_SLOT;
        Ok(slot_exists && self.chains.identity(slot, asym, connection.hash()).is_some())
    }
}
