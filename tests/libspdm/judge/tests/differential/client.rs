//! A requester made of the crate's parts, to send any bytes at any stage of a conversation.

use judge::{Case, Device, Peer, REQUESTER_FLAGS, material, responder_config};
use spdm::SessionId;
use spdm::codec::Reader;
use spdm::crypto::{DheGroup, Digest, HashAlgorithm, Provider, RingProvider};
use spdm::doe::{Object, ObjectType};
use spdm::key_schedule::Shared;
use spdm::psk::PreSharedKey;
use spdm::requester::Transport;
use spdm::responder::PskSupport;
use spdm::secured::Protection;
use spdm::session::{Role, Session, SessionParameters};
use spdm::slot::Slots;
use spdm::transcript::{Basis, Transcript, Vca};
use spdm::wire::*;

enum Target {
    Ours(Box<Device>),
    Theirs(Box<Peer>),
}

impl Target {
    fn send(&mut self, secured: bool, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Target::Ours(device) => {
                let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
                let mut object = Vec::new();
                Object { vendor: 1, kind, payload: message }.encode(&mut object).unwrap();
                let answer = device.object(&object)?;
                Some(answer[8..].to_vec())
            }
            Target::Theirs(peer) => (&mut **peer).exchange(secured, message).ok().map(|answer| answer.bytes),
        }
    }
}

/// Where in a conversation a message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Start,
    Version,
    Capabilities,
    Negotiated,
    /// Clear message while a session's handshake is under way.
    ClearInHandshake,
    Handshake,
    /// Clear message while a session is established.
    ClearInApplication,
    Application,
    /// KEY_UPDATE(UpdateKey) was acknowledged.
    Updating,
}

pub(crate) const STAGES: [Stage; 9] = [
    Stage::Start,
    Stage::Version,
    Stage::Capabilities,
    Stage::Negotiated,
    Stage::ClearInHandshake,
    Stage::Handshake,
    Stage::ClearInApplication,
    Stage::Application,
    Stage::Updating,
];

/// A requester that keeps its transcript and keys itself.
pub(crate) struct Client {
    target: Target,
    case: Case,
    vca: Vca,
    session: Option<Session>,
    transcript: Option<Transcript>,
    finish: Vec<u8>,
}

/// That of the key in libspdm's samples.
const PSK_HINT: &[u8] = b"TestPskHint\0";

pub(crate) const HASH: HashAlgorithm = HashAlgorithm::Sha256;

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

impl Client {
    pub(crate) fn new(case: &Case, ours: bool) -> Self {
        let target = if ours {
            let mut config = responder_config(case);
            config.capabilities.psk = PskSupport::WithContext;
            config.psks = vec![PreSharedKey::new(PSK_HINT.to_vec(), b"TestPskData\0".to_vec())];
            Target::Ours(Box::new(Device::with(config, Slots::single(material(case.asym).slot()))))
        } else {
            let mut config = case.reference(true);
            config.flags |= ResponderFlags::PSK_WITH_CONTEXT;
            Target::Theirs(Box::new(Peer::new(&config)))
        };
        Self { target, case: *case, vca: Vca::new(), session: None, transcript: None, finish: Vec::new() }
    }

    /// One good example of every request.
    pub(crate) fn messages(&self) -> Vec<(&'static str, Vec<u8>)> {
        let version = self.case.version;
        let context = (version >= Version::V1_3).then_some([7; 8]);
        let agreement = RingProvider::new().start_exchange(DheGroup::P256).unwrap();
        let mut list = vec![
            ("GET_VERSION", vec![0x10, 0x84, 0, 0]),
            ("GET_CAPABILITIES", self.capabilities()),
            ("NEGOTIATE_ALGORITHMS", self.algorithms()),
            ("GET_DIGESTS", vec![version.0, 0x81, 0, 0]),
            ("GET_CERTIFICATE", vec![version.0, 0x82, 0, 0, 0, 0, 0, 4]),
            (
                "CHALLENGE",
                encoded(|out| {
                    Challenge { version, slot: 0, summary: SummaryType::All, nonce: [1; 32], context }
                        .encode(out)
                }),
            ),
            (
                "GET_MEASUREMENTS",
                encoded(|out| {
                    GetMeasurements {
                        version,
                        raw: false,
                        new: false,
                        operation: MeasurementOperation::One(1),
                        signature: None,
                        context,
                    }
                    .encode(out)
                }),
            ),
            (
                "GET_MEASUREMENTS signed",
                encoded(|out| {
                    GetMeasurements {
                        version,
                        raw: false,
                        new: false,
                        operation: MeasurementOperation::One(1),
                        signature: Some(SignatureRequest { nonce: [1; 32], slot: 0 }),
                        context,
                    }
                    .encode(out)
                }),
            ),
            ("KEY_EXCHANGE", self.key_exchange(agreement.public())),
            ("PSK_EXCHANGE", self.psk_exchange()),
            ("PSK_FINISH", [&[version.0, 0xE7, 0, 0][..], &[0x55; 32]].concat()),
            ("HEARTBEAT", vec![version.0, 0xE8, 0, 0]),
            ("KEY_UPDATE key", vec![version.0, 0xE9, 1, 5]),
            ("KEY_UPDATE all", vec![version.0, 0xE9, 2, 5]),
            ("KEY_UPDATE verify", vec![version.0, 0xE9, 3, 5]),
            ("END_SESSION", vec![version.0, 0xEC, 0, 0]),
            (
                "VENDOR",
                encoded(|out| {
                    VendorDefined {
                        version,
                        large: false,
                        standard_id: 3,
                        vendor_id: &[1, 0],
                        payload: b"abcd",
                    }
                    .encode_request(out)
                    .unwrap()
                }),
            ),
            ("RESPOND_IF_READY", vec![version.0, 0xFF, 0x84, 0]),
        ];
        let finish = if self.finish.is_empty() {
            let mut bytes = vec![version.0, 0xE5, 0, 0];
            bytes.extend([0x55; 32]);
            bytes
        } else {
            self.finish.clone()
        };
        list.push(("FINISH", finish));
        list
    }

    fn capabilities(&self) -> Vec<u8> {
        encoded(|out| {
            GetCapabilities {
                version: self.case.version,
                supported_algorithms: false,
                ct_exponent: 14,
                flags: RequesterFlags(
                    REQUESTER_FLAGS | RequesterFlags::PSK | if self.case.clear { 1 << 15 } else { 0 },
                ),
                data_transfer_size: 0x1200,
                max_message_size: 0x1200,
            }
            .encode(out);
        })
    }

    fn algorithms(&self) -> Vec<u8> {
        encoded(|out| {
            NegotiateAlgorithms {
                version: self.case.version,
                measurement_specification: 1,
                other_params: 2,
                base_asym: 0x90,
                base_hash: 0x7,
                pqc_asym: 0,
                mel_specification: 0,
                tables: AlgorithmTables {
                    dhe: Some(0x18),
                    aead: Some(3),
                    requester_asym: Some(0x90),
                    key_schedule: Some(1),
                    requester_pqc_asym: None,
                    kem: None,
                },
            }
            .encode(out);
        })
    }

    fn key_exchange(&self, exchange: &[u8]) -> Vec<u8> {
        let mut opaque = Vec::new();
        SupportedSecuredVersions(&[VersionNumber::new(Version::V1_1)])
            .encode(self.case.version, &mut opaque)
            .unwrap();
        encoded(|out| {
            KeyExchange {
                version: self.case.version,
                summary: SummaryType::All,
                slot: 0,
                session_id: 0x1234,
                policy: 0,
                random: [7; 32],
                exchange,
                opaque: &opaque,
            }
            .encode(out)
            .unwrap()
        })
    }

    fn psk_exchange(&self) -> Vec<u8> {
        let mut opaque = Vec::new();
        SupportedSecuredVersions(&[VersionNumber::new(Version::V1_1)])
            .encode(self.case.version, &mut opaque)
            .unwrap();
        encoded(|out| {
            PskExchange {
                version: self.case.version,
                summary: SummaryType::All,
                policy: 0,
                session_id: 0x1234,
                hint: PSK_HINT,
                context: &[7; 32],
                opaque: &opaque,
            }
            .encode(out)
            .unwrap()
        })
    }

    fn record(&mut self, request: &[u8]) {
        let response = self.target.send(false, request).unwrap();
        assert_ne!(response[1], 0x7F, "{request:02x?} {response:02x?}");
        self.vca.append(request);
        self.vca.append(&response);
    }

    /// Plain message in, plain answer out, through the session.
    fn secured(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let mut record = Vec::new();
        let session = self.session.as_mut().unwrap();
        session.seal(request, &mut record).unwrap();
        let answer = self.target.send(true, &record)?;
        let mut plain = Vec::new();
        if session.open(&answer, &mut plain).is_err() {
            return Some(vec![0xBA, 0xD0, 0, 0]);
        }
        Some(plain)
    }

    /// Goes to that stage.
    pub(crate) fn advance(&mut self, stage: Stage) {
        let provider = RingProvider::new();
        if stage == Stage::Start {
            return;
        }
        let chain = {
            self.record(&[0x10, 0x84, 0, 0]);
            if stage == Stage::Version {
                return;
            }
            self.record(&self.capabilities());
            if stage == Stage::Capabilities {
                return;
            }
            self.record(&self.algorithms());
            if stage == Stage::Negotiated {
                return;
            }
            let response = self.target.send(false, &[self.case.version.0, 0x81, 0, 0]).unwrap();
            Digest::new(&response[4..36])
        };
        let agreement = provider.start_exchange(DheGroup::P256).unwrap();
        let request = self.key_exchange(agreement.public());
        let response = self.target.send(false, &request).unwrap();
        let verify = if self.case.clear { 0 } else { 32 };
        let sizes = KeyExchangeSizes { exchange: 64, summary: 32, signature: 64, verify_data: verify };
        let mut reader = Reader::new(&response);
        let parsed = KeyExchangeRsp::parse(&mut reader, &sizes).unwrap();
        let length = reader.consumed();
        let basis = Basis { provider: &provider, version: self.case.version, hash: HASH, vca: &self.vca };
        let mut transcript = basis.th(&chain).unwrap();
        transcript.append(&request);
        transcript.append(&response[..length - verify]);
        let th1 = transcript.digest();
        let shared = agreement.agree(parsed.exchange).unwrap();
        let parameters = SessionParameters {
            id: SessionId::from(parsed.session_id) << 16 | 0x1234,
            role: Role::Requester,
            version: self.case.version.0,
            hash: HASH,
            aead: self.case.aead,
            protection: Protection::EncryptAndMac,
            sequence_limit: u64::MAX,
        };
        let session = Session::new(&provider, parameters, Shared::Exchanged(&shared), &th1).unwrap();
        transcript.append(parsed.verify_data);
        let mut finish = vec![self.case.version.0, 0xE5, 0, 0];
        transcript.append(&finish);
        let data = session.verify_data(&provider, Role::Requester, &transcript.digest()).unwrap();
        transcript.append(data.as_ref());
        finish.extend_from_slice(data.as_ref());
        self.session = Some(session);
        self.transcript = Some(transcript);
        self.finish = finish.clone();
        if matches!(stage, Stage::Handshake | Stage::ClearInHandshake) {
            return;
        }
        let response = if self.case.clear {
            let mut response = self.target.send(false, &finish).unwrap();
            response.truncate(36);
            response
        } else {
            self.secured(&finish).unwrap()
        };
        assert_eq!(response[1], 0x65, "{response:02x?}");
        let transcript = self.transcript.as_mut().unwrap();
        transcript.append(&response);
        let digest = transcript.digest();
        self.session.as_mut().unwrap().establish(&provider, &digest).unwrap();
        if stage == Stage::Updating {
            let response = self.secured(&[self.case.version.0, 0xE9, 1, 9]).unwrap();
            assert_eq!(response[1], 0x69);
            self.session.as_mut().unwrap().update_outbound(&provider).unwrap();
        }
    }

    /// What the responder makes of a message: version and name, or its error.
    pub(crate) fn try_message(&mut self, stage: Stage, message: &[u8]) -> String {
        let inside = matches!(stage, Stage::Handshake | Stage::Application | Stage::Updating);
        let answer = if inside { self.secured(message) } else { self.target.send(false, message) };
        match answer {
            None => "silence".into(),
            Some(answer) if answer[1] == 0x7F => {
                let name = ErrorCode(answer[2]).name().unwrap_or("?");
                format!("{:02x} ERROR {name} {:02x}", answer[0], answer[3])
            }
            Some(answer) if answer[..2] == [0xBA, 0xD0] => "unreadable".into(),
            Some(answer) => format!("{:02x} {}", answer[0], Code(answer[1]).name().unwrap_or("?")),
        }
    }
}
