//! A responder with a vendor handler that echoes, and a requester of hand-written steps to drive it.

use core::time::Duration;

use crate::SessionId;
use crate::codec::Reader;
use crate::crypto::{
    Aead, AsymAlgorithm, DheGroup, Digest, HashAlgorithm, Provider, RingProvider, Signer, hash,
};
use crate::identity::{Material, PciName, generate};
use crate::key_schedule::Shared;
use crate::responder::*;
use crate::secured::Protection;
use crate::session::{Role, Session, SessionParameters};
use crate::slot::Slots;
use crate::transcript::{Basis, SigningContext, Transcript, Vca, Verifier};
use crate::wire::*;

use super::transfer::Chunked;

const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};
pub(super) const HASH: HashAlgorithm = HashAlgorithm::Sha256;
pub(super) const SIGNATURE_SIZE: usize = 64;
pub(super) const ALL_FLAGS: u32 = RequesterFlags::CERT
    | RequesterFlags::CHAL
    | RequesterFlags::ENCRYPT
    | RequesterFlags::MAC
    | RequesterFlags::KEY_EX
    | RequesterFlags::HBEAT
    | RequesterFlags::KEY_UPD;

/// Reverses the payload, except for three commands.
#[derive(Default)]
pub(super) struct Vendor {
    pub(super) sessions: Vec<Option<SessionId>>,
}

impl VendorHandler for Vendor {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        assert!(response.is_empty());
        self.sessions.push(request.session);
        match request.payload {
            b"silent" => VendorAnswer::Silent,
            b"error" => VendorAnswer::Error { code: 0x47, data: 9 },
            b"large" => {
                response.resize(70_000, 0);
                VendorAnswer::Respond
            }
            payload => {
                response.extend(payload.iter().rev());
                VendorAnswer::Respond
            }
        }
    }
}

/// Material is slow to make and the same for every test.
fn material() -> &'static Material {
    static MATERIAL: std::sync::OnceLock<Material> = std::sync::OnceLock::new();
    MATERIAL.get_or_init(|| generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap())
}

pub(super) fn config() -> ResponderConfig {
    let measurement = |index, kind, tcb, value| Measurement { index, kind, tcb, value };
    ResponderConfig {
        heartbeat_period: 5,
        // One order for all providers, though some of them sign with more pairs than others.
        hashes: vec![HASH, HashAlgorithm::Sha384, HashAlgorithm::Sha512],
        measurement_hashes: vec![HASH],
        measurements: vec![
            measurement(1, 0, true, MeasurementValue::Digest(vec![0x11; 32])),
            measurement(2, 1, true, MeasurementValue::Raw(b"firmware".to_vec())),
            measurement(0xFE, 5, false, MeasurementValue::RawOnly(b"mode".to_vec())),
        ],
        ..ResponderConfig::default()
    }
}

pub(super) struct Device {
    pub(super) responder: Responder,
    pub(super) vendor: Vendor,
    pub(super) now: Duration,
    pub(super) version: Version,
    pub(super) vca: Vca,
    pub(super) flags: u32,
    pub(super) transfer: u32,
    /// What goes beyond the two sizes travels in chunks.
    pub(super) chunked: Option<Chunked>,
    /// Bytes that every request has behind its end.
    pub(super) surplus: usize,
}

impl Device {
    pub(super) fn try_with(config: ResponderConfig) -> Result<Responder, ConfigError> {
        let slots = Slots::single(material().slot());
        Responder::new(config, slots, Box::new(RingProvider::new()))
    }

    pub(super) fn with(config: ResponderConfig, version: Version) -> Self {
        let responder = Self::try_with(config).unwrap();
        Self {
            responder,
            vendor: Vendor::default(),
            now: Duration::ZERO,
            version,
            vca: Vca::new(),
            flags: ALL_FLAGS,
            transfer: 4096,
            chunked: None,
            surplus: 0,
        }
    }

    /// Offers `version`, if need be beside the default ones.
    pub(super) fn new(version: Version) -> Self {
        let mut config = config();
        if !config.versions.contains(&version) {
            config.versions.push(version);
        }
        Self::with(config, version)
    }

    /// Negotiated, ready for everything.
    pub(super) fn negotiated(version: Version) -> Self {
        let mut device = Self::new(version);
        device.negotiate();
        device
    }

    /// Sends a clear message; the buffer is dirty before.
    pub(super) fn try_send(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let mut response = vec![0xA5; 7];
        let request = [request, &vec![0xEE; self.surplus]].concat();
        match self.responder.handle_clear(self.now, &request, &mut self.vendor, &mut response) {
            Answer::Respond => Some(response),
            Answer::Silent => None,
        }
    }

    pub(super) fn send(&mut self, request: &[u8]) -> Vec<u8> {
        match self.chunked {
            None => self.try_send(request).unwrap(),
            Some(chunked) => chunked.carry(self.version, request, |request| self.try_send(request).unwrap()),
        }
    }

    pub(super) fn error(&mut self, request: &[u8]) -> (ErrorCode, u8) {
        let response = self.send(request);
        let error = ErrorResponse::parse(&mut Reader::new(&response)).unwrap();
        (error.code, error.data)
    }

    fn record(&mut self, request: &[u8], expected: Code) {
        let response = self.send(request);
        assert_eq!(response[1], expected.0, "{response:02x?}");
        self.vca.append(request);
        self.vca.append(&response);
    }

    pub(super) fn get_version(&mut self) {
        self.vca.clear();
        self.record(&encoded(|out| GetVersion { version: Version::V1_0 }.encode(out)), Code::VERSION);
    }

    pub(super) fn capabilities_request(&self) -> Vec<u8> {
        encoded(|out| {
            GetCapabilities {
                version: self.version,
                supported_algorithms: false,
                ct_exponent: 14,
                flags: RequesterFlags(self.flags),
                data_transfer_size: self.transfer,
                max_message_size: self.chunked.as_ref().map_or(self.transfer, |chunked| chunked.message),
            }
            .encode(out);
        })
    }

    pub(super) fn algorithms_request(&self) -> Vec<u8> {
        encoded(|out| {
            NegotiateAlgorithms {
                version: self.version,
                measurement_specification: MEASUREMENT_SPECIFICATION_DMTF,
                other_params: OPAQUE_FORMAT_GENERAL,
                base_asym: u32::MAX,
                base_hash: u32::MAX,
                pqc_asym: 0,
                mel_specification: 0,
                tables: AlgorithmTables {
                    dhe: Some(DheGroup::P256.dhe_bit()),
                    aead: Some(u16::MAX),
                    requester_asym: Some(0x90),
                    key_schedule: Some(KEY_SCHEDULE_SPDM),
                    requester_pqc_asym: None,
                    kem: None,
                },
            }
            .encode(out);
        })
    }

    pub(super) fn negotiate(&mut self) {
        self.get_version();
        self.record(&self.capabilities_request(), Code::CAPABILITIES);
        self.record(&self.algorithms_request(), Code::ALGORITHMS);
    }

    pub(super) fn chain(&self) -> Vec<u8> {
        let certificates = material().certificates();
        let root = hash(&RingProvider::new(), HASH, &certificates[0]).unwrap();
        let mut chain = Vec::new();
        CertificateChain::encode(root.as_ref(), certificates, &mut chain).unwrap();
        chain
    }

    pub(super) fn chain_digest(&self) -> Digest {
        hash(&RingProvider::new(), HASH, &self.chain()).unwrap()
    }

    pub(super) fn verify(&self, context: SigningContext, transcript: &[&[u8]], signature: &[u8]) -> bool {
        let provider = RingProvider::new();
        let basis = self.basis(&provider);
        let running = match context {
            SigningContext::ChallengeAuth | SigningContext::RequesterChallengeAuth => basis.m1m2(),
            SigningContext::EndpointInfo | SigningContext::RequesterEndpointInfo => basis.endpoint_info(),
            SigningContext::Measurements => basis.l1l2(),
            SigningContext::KeyExchangeRsp | SigningContext::Finish => basis.th(&self.chain_digest()),
        };
        let mut running = running.unwrap();
        transcript.iter().for_each(|part| running.append(part));
        let signer = crate::crypto::RingSigner::from_pkcs8(AsymAlgorithm::EcdsaP256, material().pkcs8());
        let signer = signer.unwrap();
        Verifier { algorithm: AsymAlgorithm::EcdsaP256, hash: HASH, public_key: signer.public_key() }
            .verify(&provider, context, &running, signature)
            .is_ok()
    }

    pub(super) fn basis<'a>(&'a self, provider: &'a RingProvider) -> Basis<'a> {
        Basis { provider, version: self.version, hash: HASH, vca: &self.vca }
    }

    /// KEY_EXCHANGE, checked to the last byte; the session waits for FINISH.
    pub(super) fn begin(&mut self) -> Client {
        self.try_begin(SummaryType::All).unwrap()
    }

    pub(super) fn key_exchange_request(&self, exchange: &[u8], summary: SummaryType) -> Vec<u8> {
        let mut opaque = Vec::new();
        let versions = [VersionNumber::new(Version::V1_0), VersionNumber::new(Version::V1_1)];
        SupportedSecuredVersions(&versions).encode(self.version, &mut opaque).unwrap();
        encoded(|out| {
            KeyExchange {
                version: self.version,
                summary,
                slot: 0,
                session_id: 0x1234,
                policy: 1,
                random: [0x77; 32],
                exchange,
                opaque: &opaque,
            }
            .encode(out)
            .unwrap();
        })
    }

    pub(super) fn try_begin(&mut self, summary: SummaryType) -> Result<Client, (ErrorCode, u8)> {
        let provider = RingProvider::new();
        let agreement = provider.start_exchange(DheGroup::P256).unwrap();
        let request = self.key_exchange_request(agreement.public(), summary);
        let response = self.send(&request);
        if response[1] == Code::ERROR.0 {
            return Err((ErrorCode(response[2]), response[3]));
        }
        let clear = self.flags & RequesterFlags::HANDSHAKE_IN_THE_CLEAR != 0;
        let sizes = KeyExchangeSizes {
            exchange: 64,
            summary: if summary == SummaryType::None { 0 } else { 32 },
            signature: SIGNATURE_SIZE,
            verify_data: if clear { 0 } else { 32 },
        };
        let mut reader = Reader::new(&response);
        let parsed = KeyExchangeRsp::parse(&mut reader, &sizes).unwrap();
        reader.finish(0).unwrap();
        assert_eq!((parsed.mutual_auth, parsed.requester_slot), (MutualAuth::None, 0));
        let selected = SelectedSecuredVersion::find(self.version, parsed.opaque).unwrap().unwrap();
        assert_eq!(selected.version(), Version::V1_1);

        let unsigned = response.len() - sizes.verify_data - SIGNATURE_SIZE;
        let parts = [&request, &response[..unsigned]];
        assert!(self.verify(SigningContext::KeyExchangeRsp, &parts, parsed.signature));
        let mut transcript = self.basis(&provider).th(&self.chain_digest()).unwrap();
        transcript.append(&request);
        transcript.append(&response[..response.len() - sizes.verify_data]);
        let th1 = transcript.digest();
        let shared = agreement.agree(parsed.exchange).unwrap();
        let encrypt = self.flags & RequesterFlags::ENCRYPT != 0;
        let parameters = SessionParameters {
            id: SessionId::from(parsed.session_id) << 16 | 0x1234,
            role: Role::Requester,
            version: self.version.0,
            hash: HASH,
            aead: Aead::Aes256Gcm,
            protection: if encrypt { Protection::EncryptAndMac } else { Protection::MacOnly },
            sequence_limit: u64::MAX,
        };
        let session = Session::new(&provider, parameters, Shared::Exchanged(&shared), &th1).unwrap();
        if !clear {
            session.check_verify_data(&provider, Role::Responder, &th1, parsed.verify_data).unwrap();
            transcript.append(parsed.verify_data);
        }
        Ok(Client { session, transcript, heartbeat: parsed.heartbeat_period })
    }

    /// A session that is established.
    pub(super) fn establish(&mut self) -> Client {
        let mut client = self.begin();
        client.finish(self);
        let id = client.session.id();
        assert_eq!(self.responder.poll_event(), Some(Event::SessionEstablished { id }));
        client
    }

    pub(super) fn simple(&self, code: Code) -> Vec<u8> {
        vec![self.version.0, code.0, 0, 0]
    }
}

/// The requester's end of one session.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) transcript: Transcript,
    pub(super) heartbeat: u8,
}

/// FINISH_RSP without verify data.
pub(super) fn finish_rsp(version: Version) -> Vec<u8> {
    encoded(|out| FinishRsp { version, opaque: &[], verify_data: &[] }.encode(out).unwrap())
}

impl Client {
    pub(super) fn finish_request(&mut self, device: &Device) -> Vec<u8> {
        let provider = RingProvider::new();
        let mut request = encoded(|out| {
            Finish {
                version: device.version,
                requester_slot: 0,
                opaque: &[],
                signature: None,
                verify_data: &[],
            }
            .encode(out)
            .unwrap();
        });
        self.transcript.append(&request);
        let data = self.session.verify_data(&provider, Role::Requester, &self.transcript.digest()).unwrap();
        self.transcript.append(data.as_ref());
        request.extend_from_slice(data.as_ref());
        request
    }

    pub(super) fn finish(&mut self, device: &mut Device) {
        let request = self.finish_request(device);
        let response = self.send(device, &request);
        assert_eq!(response, finish_rsp(device.version));
        self.transcript.append(&response);
        self.session.establish(&RingProvider::new(), &self.transcript.digest()).unwrap();
    }

    pub(super) fn seal(&mut self, request: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        self.session.seal(request, &mut record).unwrap();
        record.resize(record.len().next_multiple_of(4), 0);
        record
    }

    pub(super) fn try_send(&mut self, device: &mut Device, request: &[u8]) -> Option<Vec<u8>> {
        let record = self.seal(&[request, &vec![0xEE; device.surplus]].concat());
        self.deliver(device, &record)
    }

    pub(super) fn deliver(&mut self, device: &mut Device, record: &[u8]) -> Option<Vec<u8>> {
        let mut response = vec![0xA5; 7];
        match device.responder.handle_secured(device.now, record, &mut device.vendor, &mut response) {
            Answer::Silent => None,
            Answer::Respond => {
                let mut message = Vec::new();
                self.session.open(&response, &mut message).unwrap();
                Some(message)
            }
        }
    }

    pub(super) fn send(&mut self, device: &mut Device, request: &[u8]) -> Vec<u8> {
        match device.chunked {
            None => self.try_send(device, request).unwrap(),
            Some(chunked) => {
                let version = device.version;
                let exchange = |request: &[u8]| self.try_send(device, request).unwrap();
                chunked.carry(version, request, exchange)
            }
        }
    }

    /// A request that is a header and nothing else.
    pub(super) fn try_simple(&mut self, device: &mut Device, code: Code) -> Option<Vec<u8>> {
        let request = device.simple(code);
        self.try_send(device, &request)
    }

    pub(super) fn simple(&mut self, device: &mut Device, code: Code) -> Vec<u8> {
        self.try_simple(device, code).unwrap()
    }

    pub(super) fn error(&mut self, device: &mut Device, request: &[u8]) -> (ErrorCode, u8) {
        let response = self.send(device, request);
        let error = ErrorResponse::parse(&mut Reader::new(&response)).unwrap();
        assert_eq!(error.version, device.version);
        (error.code, error.data)
    }
}

pub(super) fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

pub(super) fn vendor_message(version: Version, payload: &[u8]) -> Vec<u8> {
    encoded(|out| {
        VendorDefined { version, large: false, standard_id: STANDARD_PCI_SIG, vendor_id: &[1, 0], payload }
            .encode_request(out)
            .unwrap();
    })
}
