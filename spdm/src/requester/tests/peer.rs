//! A responder for tests: straight-line, trusting, and open to tampering before it signs, seals or sends.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec::Reader;
use crate::crypto::{
    Aead, AsymAlgorithm, DheGroup, Digest, HashAlgorithm, Provider, RingProvider, RingSigner, hash,
};
use crate::identity::{Material, PciName, generate};
use crate::key_schedule::Shared;
use crate::requester::{Driver, Requester, RequesterConfig, Response, Transport};
use crate::secured::Protection;
use crate::session::{Role, Session, SessionParameters};
use crate::transcript::{Basis, SigningContext, Transcript, Vca, sign};
use crate::wire::*;

pub(super) const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};

/// One choice of algorithms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) version: Version,
    pub(super) hash: HashAlgorithm,
    pub(super) asym: AsymAlgorithm,
    pub(super) group: DheGroup,
    pub(super) aead: Aead,
}

impl Suite {
    pub(super) const SMALL: Self = Self {
        version: Version::V1_3,
        hash: HashAlgorithm::Sha256,
        asym: AsymAlgorithm::EcdsaP256,
        group: DheGroup::P256,
        aead: Aead::Aes128Gcm,
    };

    /// Every combination of version, strength and AEAD.
    pub(super) fn all() -> Vec<Self> {
        let small = Self::SMALL;
        let large = Self {
            hash: HashAlgorithm::Sha384,
            asym: AsymAlgorithm::EcdsaP384,
            group: DheGroup::P384,
            ..small
        };
        let mut all = Vec::new();
        for version in [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4] {
            for strength in [small, large] {
                for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm] {
                    all.push(Self { version, aead, ..strength });
                }
            }
        }
        all
    }

    /// A requester that offers this and nothing else.
    pub(super) fn config(&self) -> RequesterConfig {
        RequesterConfig {
            versions: vec![self.version],
            hashes: vec![self.hash],
            signatures: vec![self.asym],
            groups: vec![self.group],
            aeads: vec![self.aead],
            ..RequesterConfig::default()
        }
    }

    pub(super) fn requester(&self) -> Requester {
        Requester::new(self.config(), Box::new(RingProvider::new())).unwrap()
    }
}

/// Bytes of a response that can be changed, at a point where the responder still vouches for them.
pub(super) type Tamper = Box<dyn FnMut(Code, &mut Vec<u8>)>;

pub(super) struct Peer {
    pub(super) suite: Suite,
    pub(super) flags: u32,
    pub(super) provider: RingProvider,
    pub(super) signer: Arc<RingSigner>,
    /// What GET_CERTIFICATE serves.
    pub(super) chain: Vec<u8>,
    pub(super) measurements: Vec<(u8, Vec<u8>)>,
    pub(super) session: Option<Session>,
    /// Changes a response before signature, verify data and encryption.
    pub(super) tamper: Tamper,
    /// Changes what goes out, after everything.
    pub(super) corrupt: Tamper,
    /// Sent instead of answers, in clear or in the session as the request came.
    pub(super) interject: VecDeque<Vec<u8>>,
    /// Waits that the requester asked for.
    pub(super) waits: Vec<Duration>,
    /// Codes of the requests that came.
    pub(super) seen: Vec<Code>,
    /// DELIVER_ENCAPSULATED_RESPONSE as it came.
    pub(super) delivered: Vec<Vec<u8>>,
    /// Whether UpdateAllKeys keeps the old key for its acknowledgement.
    pub(super) stale: bool,
    vca: Vca,
    m1m2: Option<Transcript>,
    l1l2: Option<Transcript>,
    th: Option<Transcript>,
}

impl Peer {
    pub(super) fn new(suite: Suite) -> Self {
        let material = generate(&NAME, suite.asym).unwrap();
        Self::with(suite, &material)
    }

    pub(super) fn with(suite: Suite, material: &Material) -> Self {
        use ResponderFlags as F;
        let provider = RingProvider::new();
        let root_hash = hash(&provider, suite.hash, &material.certificates()[0]).unwrap();
        let mut chain = Vec::new();
        CertificateChain::encode(root_hash.as_ref(), material.certificates(), &mut chain).unwrap();
        Self {
            suite,
            flags: F::CERT | F::CHAL | F::MEAS_SIG | F::ENCRYPT | F::MAC | F::KEY_EX | F::HBEAT | F::KEY_UPD,
            provider,
            signer: Arc::new(RingSigner::from_pkcs8(suite.asym, material.pkcs8()).unwrap()),
            chain,
            measurements: vec![(1, vec![0x11; 32]), (2, vec![0x22; 48])],
            session: None,
            tamper: Box::new(|_, _| ()),
            corrupt: Box::new(|_, _| ()),
            interject: VecDeque::new(),
            waits: Vec::new(),
            seen: Vec::new(),
            delivered: Vec::new(),
            stale: false,
            vca: Vca::new(),
            m1m2: None,
            l1l2: None,
            th: None,
        }
    }

    pub(super) fn drive<'r>(&'r mut self, requester: &'r mut Requester) -> Driver<'r, &'r mut Self> {
        Driver::new(requester, self)
    }

    pub(super) fn chain_hash(&self) -> Digest {
        hash(&self.provider, self.suite.hash, &self.chain).unwrap()
    }

    fn basis(&self) -> Basis<'_> {
        let Suite { hash, version, .. } = self.suite;
        Basis { provider: &self.provider, version, hash, vca: &self.vca }
    }

    fn signature(&self, context: SigningContext, transcript: &Transcript) -> Vec<u8> {
        let mut signature = Vec::new();
        sign(&*self.signer, self.suite.hash, context, transcript, &mut signature).unwrap();
        signature
    }

    /// The response to one request, both as they travel.
    pub(super) fn answer(&mut self, secured: bool, bytes: &[u8]) -> Response {
        let mut request = bytes.to_vec();
        if secured {
            self.session.as_mut().expect("a session").open(bytes, &mut request).expect("a good record");
        }
        let code = Code(request[1]);
        self.seen.push(code);
        if code == Code::DELIVER_ENCAPSULATED_RESPONSE {
            self.delivered.push(request.clone());
        }
        let mut out = match self.interject.pop_front() {
            Some(response) => {
                if response[2] != ErrorCode::RESPONSE_NOT_READY.0 {
                    self.l1l2 = None;
                }
                response
            }
            None => self.respond(code, &request),
        };
        if secured {
            let plain = std::mem::take(&mut out);
            self.session.as_mut().unwrap().seal(&plain, &mut out).unwrap();
        }
        match code {
            Code::FINISH => {
                let th2 = self.th.as_ref().unwrap().digest();
                self.session.as_mut().unwrap().establish(&self.provider, &th2).unwrap();
            }
            Code::END_SESSION => self.session = None,
            Code::KEY_UPDATE if self.stale => {
                self.session.as_mut().unwrap().update_outbound(&self.provider).unwrap();
            }
            _ => {}
        }
        let response = Code(code.0 & 0x7f);
        (self.corrupt)(response, &mut out);
        Response { secured, bytes: out }
    }

    fn respond(&mut self, code: Code, request: &[u8]) -> Vec<u8> {
        let version = self.suite.version;
        let mut out = Vec::new();
        match code {
            Code::GET_VERSION => {
                self.vca.clear();
                self.session = None;
                (self.m1m2, self.l1l2) = (None, None);
                VersionResponse { entries: &[VersionNumber::new(version)] }.encode(&mut out).unwrap();
            }
            Code::GET_CAPABILITIES => Capabilities {
                version,
                ct_exponent: 10,
                flags: ResponderFlags(self.flags),
                data_transfer_size: 0x1000,
                max_message_size: 0x1000,
                extended_flags: ResponderExtendedFlags::default(),
                supported_algorithms: None,
            }
            .encode(&mut out),
            Code::NEGOTIATE_ALGORITHMS => Algorithms {
                version,
                measurement_specification: 1,
                other_params: OPAQUE_FORMAT_GENERAL,
                measurement_hash: self.suite.hash.measurement_bit(),
                base_asym: self.suite.asym.base_bit(),
                base_hash: self.suite.hash.bit(),
                pqc_asym: self.suite.asym.pqc_bit(),
                mel_specification: 0,
                tables: AlgorithmTables {
                    dhe: Some(self.suite.group.dhe_bit()),
                    aead: Some(self.suite.aead.bit()),
                    requester_asym: None,
                    key_schedule: Some(KEY_SCHEDULE_SPDM),
                    requester_pqc_asym: None,
                    kem: None,
                },
            }
            .encode(&mut out),
            Code::GET_DIGESTS => {
                self.m1m2 = None;
                let digest = self.chain_hash();
                let digests = digest.as_ref();
                Digests { version, supported_slots: 1, provisioned_slots: 1, digests, keys: Vec::new() }
                    .encode(&mut out);
            }
            Code::GET_CERTIFICATE => {
                let asked = GetCertificate::parse(&mut Reader::new(request)).unwrap();
                let rest = &self.chain[asked.offset.try_into().unwrap()..];
                let portion = &rest[..rest.len().min(asked.length.try_into().unwrap())];
                let remainder = u32::try_from(rest.len() - portion.len()).unwrap();
                Certificate { version, slot: asked.slot, model: 0, large: false, portion, remainder }
                    .encode(&mut out)
                    .unwrap();
            }
            Code::CHALLENGE => return self.challenge(request),
            Code::GET_MEASUREMENTS => return self.measure(request),
            Code::KEY_EXCHANGE => return self.key_exchange(request),
            Code::FINISH => {
                let (message, verify_data) = request.split_at(request.len() - self.suite.hash.size());
                let mut th = self.th.clone().unwrap();
                th.append(message);
                let session = self.session.as_ref().unwrap();
                session
                    .check_verify_data(&self.provider, Role::Requester, &th.digest(), verify_data)
                    .expect("good verify data");
                th.append(verify_data);
                FinishRsp { version, opaque: &[], verify_data: &[] }.encode(&mut out).unwrap();
                (self.tamper)(Code::FINISH_RSP, &mut out);
                th.append(&out);
                self.th = Some(th);
                return out;
            }
            Code::HEARTBEAT => HeartbeatAck { version }.encode(&mut out),
            Code::KEY_UPDATE => self.key_update(request, &mut out),
            Code::END_SESSION => EndSessionAck { version }.encode(&mut out),
            Code::VENDOR_DEFINED_REQUEST => {
                VendorDefined::parse_request(&mut Reader::new(request))
                    .unwrap()
                    .encode_response(&mut out)
                    .unwrap();
            }
            other => panic!("{other:?} from our requester"),
        }
        (self.tamper)(Code(code.0 & 0x7f), &mut out);
        match code {
            Code::GET_VERSION | Code::GET_CAPABILITIES | Code::NEGOTIATE_ALGORITHMS => {
                self.vca.append(request);
                self.vca.append(&out);
            }
            Code::GET_DIGESTS | Code::GET_CERTIFICATE if self.session.is_none() => {
                let mut log = self.m1m2.take();
                let transcript = log.get_or_insert_with(|| self.basis().m1m2().unwrap());
                transcript.append(request);
                transcript.append(&out);
                self.m1m2 = log;
            }
            _ => {}
        }
        out
    }

    fn summary(&self, asked: SummaryType) -> Vec<u8> {
        let size = if asked == SummaryType::None { 0 } else { self.suite.hash.size() };
        vec![0x5a; size]
    }

    fn challenge(&mut self, request: &[u8]) -> Vec<u8> {
        let asked = Challenge::parse(&mut Reader::new(request)).unwrap();
        let mut out = Vec::new();
        ChallengeAuth {
            version: self.suite.version,
            attributes: asked.slot,
            slot_mask: 1,
            chain_hash: self.chain_hash().as_ref(),
            nonce: [7; 32],
            summary: &self.summary(asked.summary),
            opaque: &[],
            context: asked.context,
            signature: &[],
        }
        .encode(&mut out)
        .unwrap();
        (self.tamper)(Code::CHALLENGE_AUTH, &mut out);
        let mut log = self.m1m2.take();
        let transcript = log.get_or_insert_with(|| self.basis().m1m2().unwrap());
        transcript.append(request);
        transcript.append(&out);
        out.extend(self.signature(SigningContext::ChallengeAuth, transcript));
        out
    }

    fn measure(&mut self, request: &[u8]) -> Vec<u8> {
        let asked = GetMeasurements::parse(&mut Reader::new(request)).unwrap();
        self.m1m2 = None;
        let chosen: Vec<_> = self
            .measurements
            .iter()
            .filter(|(index, _)| match asked.operation {
                MeasurementOperation::Count => false,
                MeasurementOperation::One(one) => *index == one,
                MeasurementOperation::All => true,
            })
            .collect();
        let mut record = Vec::new();
        for (index, value) in &chosen {
            MeasurementBlock { index: *index, kind: 1, raw: asked.raw, value }.encode(&mut record).unwrap();
        }
        let counted = asked.operation == MeasurementOperation::Count;
        let mut out = Vec::new();
        Measurements {
            version: self.suite.version,
            total: if counted { u8::try_from(self.measurements.len()).unwrap() } else { 0 },
            slot: asked.signature.map_or(0, |signature| signature.slot),
            changed: if asked.signature.is_some() {
                ContentChanged::Unchanged
            } else {
                ContentChanged::NotDetected
            },
            blocks: u8::try_from(chosen.len()).unwrap(),
            record: &record,
            nonce: [9; 32],
            opaque: &[],
            context: asked.context,
            signature: &[],
        }
        .encode(&mut out)
        .unwrap();
        (self.tamper)(Code::MEASUREMENTS, &mut out);
        let mut log = self.l1l2.take();
        let transcript = log.get_or_insert_with(|| self.basis().l1l2().unwrap());
        transcript.append(request);
        transcript.append(&out);
        if asked.signature.is_some() {
            out.extend(self.signature(SigningContext::Measurements, transcript));
        } else {
            self.l1l2 = log;
        }
        out
    }

    fn key_exchange(&mut self, request: &[u8]) -> Vec<u8> {
        let Suite { version, hash, group, aead, .. } = self.suite;
        let asked = KeyExchange::parse(&mut Reader::new(request), group.request_size()).unwrap();
        let mut exchange = Vec::new();
        let shared = self.provider.answer_exchange(group, asked.exchange, &mut exchange).unwrap();
        let mut opaque = Vec::new();
        SelectedSecuredVersion(VersionNumber::new(Version::V1_1)).encode(version, &mut opaque).unwrap();
        let mut out = Vec::new();
        KeyExchangeRsp {
            version,
            heartbeat_period: 30,
            session_id: 0xbeef,
            mutual_auth: MutualAuth::None,
            requester_slot: 0,
            random: [3; 32],
            exchange: &exchange,
            summary: &self.summary(asked.summary),
            opaque: &opaque,
            signature: &[],
            verify_data: &[],
        }
        .encode(&mut out)
        .unwrap();
        (self.tamper)(Code::KEY_EXCHANGE_RSP, &mut out);
        let mut th = self.basis().th(&self.chain_hash()).unwrap();
        th.append(request);
        th.append(&out);
        let signature = self.signature(SigningContext::KeyExchangeRsp, &th);
        th.append(&signature);
        out.extend(signature);
        let parameters = SessionParameters {
            id: u32::from(asked.session_id) | 0xbeef << 16,
            role: Role::Responder,
            version: version.0,
            hash,
            aead,
            protection: if self.flags & ResponderFlags::ENCRYPT == 0 {
                Protection::MacOnly
            } else {
                Protection::EncryptAndMac
            },
            sequence_limit: u64::MAX,
        };
        let session =
            Session::new(&self.provider, parameters, Shared::Exchanged(&shared), &th.digest()).unwrap();
        let verify_data = session.verify_data(&self.provider, Role::Responder, &th.digest()).unwrap();
        th.append(verify_data.as_ref());
        out.extend_from_slice(verify_data.as_ref());
        self.session = Some(session);
        self.th = Some(th);
        out
    }

    fn key_update(&mut self, request: &[u8], out: &mut Vec<u8>) {
        let asked = KeyUpdate::parse(&mut Reader::new(request)).unwrap();
        let session = self.session.as_mut().unwrap();
        match asked.operation {
            KeyOperation::UpdateKey => session.update_inbound(&self.provider).unwrap(),
            KeyOperation::UpdateAllKeys => {
                session.update_inbound(&self.provider).unwrap();
                if !self.stale {
                    session.update_outbound(&self.provider).unwrap();
                }
            }
            KeyOperation::VerifyNewKey => {
                assert!(session.inbound_used(), "verified with the old key");
                session.confirm_inbound();
            }
        }
        asked.encode_ack(out);
    }
}

impl Transport for &mut Peer {
    type Error = core::convert::Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        Ok(self.answer(secured, message))
    }

    fn wait(&mut self, delay: Duration) {
        self.waits.push(delay);
    }
}

/// Fetches what sessions and signatures need.
pub(super) fn identify(driver: &mut Driver<'_, &mut Peer>) {
    driver.connect().unwrap();
    driver.digests().unwrap();
    driver.certificate(0).unwrap();
}
