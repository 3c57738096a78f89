//! Conversations recorded from libspdm, held again without it: our requester and our responder say what they said
//! then, byte for byte, given the secrets they had.
//!
//! A recording is lines of a word and hexadecimal values. What the role under test drew or computed comes first,
//! each kind in the order of use: `certificate`, `random`, `exchange` (own public value, the peer's, the shared
//! secret) and `signature`. The conversation follows: `request` or `response`, `clear` or `secured`, the message or
//! record with the padding it had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use spdm::crypto::*;
use spdm::identity::{Policy, verify_certificates};
use spdm::psk::PreSharedKey;
use spdm::requester::{
    Command, Driver, MeasurementQuery, Reply, Requester, RequesterConfig, Response, Transport, UpdateKeys,
};
use spdm::responder::{
    Answer, Measurement, MeasurementValue, Responder, ResponderConfig, VendorAnswer, VendorHandler,
    VendorRequest,
};
use spdm::slot::{Slot, Slots};
use spdm::wire::{MeasurementOperation, SummaryType, Version};

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |digits| u8::from_str_radix(core::str::from_utf8(digits).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// The values of one kind that are still to be used.
type Values = VecDeque<Vec<Vec<u8>>>;

/// What the role under test had.
#[derive(Clone)]
struct Secrets(Arc<Mutex<HashMap<String, Values>>>);

impl Secrets {
    fn next(&self, kind: &str) -> Vec<Vec<u8>> {
        let mut kinds = self.0.lock().unwrap();
        kinds.get_mut(kind).and_then(VecDeque::pop_front).unwrap_or_else(|| panic!("no further {kind}"))
    }

    fn exchange(&self) -> [Vec<u8>; 3] {
        self.next("exchange").try_into().unwrap()
    }

    fn is_used_up(&self) -> bool {
        self.0.lock().unwrap().values().all(VecDeque::is_empty)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    request: bool,
    secured: bool,
    bytes: Vec<u8>,
}

struct Recording {
    secrets: Secrets,
    messages: VecDeque<Message>,
}

impl Recording {
    fn parse(text: &str) -> Self {
        let (mut secrets, mut messages) = (HashMap::<_, Values>::new(), VecDeque::new());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [direction @ ("request" | "response"), protection, message] => messages.push_back(Message {
                    request: direction == "request",
                    secured: protection == "secured",
                    bytes: bytes(message),
                }),
                [kind, ..] => {
                    let values = words[1..].iter().map(|hex| bytes(hex)).collect();
                    secrets.entry(kind.to_owned()).or_default().push_back(values);
                }
                [] => {}
            }
        }
        Self { secrets: Secrets(Arc::new(Mutex::new(secrets))), messages }
    }

    fn provider(&self) -> Box<dyn Provider> {
        Box::new(Replay { ring: RingProvider::new(), secrets: self.secrets.clone() })
    }

    fn message(&mut self, request: bool) -> Message {
        let message = self.messages.pop_front().expect("the conversation is over");
        assert_eq!(message.request, request);
        message
    }

    fn finish(self) {
        assert!(self.messages.is_empty() && self.secrets.is_used_up());
    }
}

/// A provider that draws what was drawn then.
struct Replay {
    ring: RingProvider,
    secrets: Secrets,
}

struct Agreement {
    public: Vec<u8>,
    peer: Vec<u8>,
    secret: Vec<u8>,
}

impl KeyAgreement for Agreement {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError> {
        assert_eq!(peer, self.peer);
        Secret::new(&self.secret).ok_or(CryptoError::Failed)
    }
}

impl Provider for Replay {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        out.copy_from_slice(&self.secrets.next("random")[0]);
        Ok(())
    }

    fn start_exchange(&self, _group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError> {
        let [public, peer, secret] = self.secrets.exchange();
        Ok(Box::new(Agreement { public, peer, secret }))
    }

    fn answer_exchange(
        &self,
        _group: DheGroup,
        peer: &[u8],
        public: &mut Vec<u8>,
    ) -> Result<Secret, CryptoError> {
        let [ours, theirs, secret] = self.secrets.exchange();
        assert_eq!(peer, theirs);
        public.extend_from_slice(&ours);
        Secret::new(&secret).ok_or(CryptoError::Failed)
    }

    fn supports_hash(&self, hash: HashAlgorithm) -> bool {
        self.ring.supports_hash(hash)
    }

    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
        self.ring.supports_signature(algorithm, hash)
    }

    fn supports_group(&self, group: DheGroup) -> bool {
        self.ring.supports_group(group)
    }

    fn supports_aead(&self, aead: Aead) -> bool {
        self.ring.supports_aead(aead)
    }

    fn hasher(&self, hash: HashAlgorithm) -> Result<Box<dyn Hasher>, CryptoError> {
        self.ring.hasher(hash)
    }

    fn verify(
        &self,
        algorithm: AsymAlgorithm,
        hash: HashAlgorithm,
        public_key: &[u8],
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.ring.verify(algorithm, hash, public_key, message, signature)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError> {
        self.ring.aead_key(aead, key)
    }
}

/// Signs with the recorded signatures, which have to fit what is signed.
struct ReplaySigner {
    algorithm: AsymAlgorithm,
    public_key: Vec<u8>,
    secrets: Secrets,
}

impl Signer for ReplaySigner {
    fn algorithm(&self) -> AsymAlgorithm {
        self.algorithm
    }

    fn supports(&self, hash: HashAlgorithm) -> bool {
        RingProvider::new().supports_signature(self.algorithm, hash)
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(
        &self,
        hash: HashAlgorithm,
        message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let recorded = &self.secrets.next("signature")[0];
        RingProvider::new().verify(self.algorithm, hash, &self.public_key, message, recorded)?;
        signature.extend_from_slice(recorded);
        Ok(())
    }
}

impl Transport for &mut Recording {
    type Error = core::convert::Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        assert_eq!(Message { request: true, secured, bytes: message.to_vec() }, self.message(true));
        let answer = self.message(false);
        Ok(Response { secured: answer.secured, bytes: answer.bytes })
    }

    fn wait(&mut self, _delay: Duration) {
        panic!("libspdm asked for time");
    }
}

fn hold_requester(text: &str, version: Version) {
    let mut recording = Recording::parse(text);
    // Recorded before there were chunks.
    let config = RequesterConfig { versions: vec![version], chunks: false, ..RequesterConfig::default() };
    let mut requester = Requester::new(config, recording.provider()).unwrap();
    let measure =
        |operation, raw, signed_by| Command::Measurements(MeasurementQuery { operation, raw, signed_by });
    let attestation = [
        Command::Connect,
        Command::Digests,
        Command::Certificate { slot: 0 },
        Command::Challenge { slot: 0, summary: SummaryType::All },
        measure(MeasurementOperation::Count, false, None),
        measure(MeasurementOperation::One(1), true, None),
        measure(MeasurementOperation::All, false, Some(0)),
    ];
    let session = [
        Command::StartSession { slot: 0, summary: SummaryType::Tcb, end_on_update: false },
        Command::Heartbeat,
        Command::UpdateKeys(UpdateKeys::Requests),
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: b"some payload".to_vec() },
        measure(MeasurementOperation::One(2), false, Some(0)),
        Command::EndSession { clear_negotiated_state: false },
    ];
    // 1.0 has no sessions.
    let session = (version > Version::V1_0).then_some(session);
    for command in attestation.into_iter().chain(session.into_iter().flatten()) {
        let reply = Driver::new(&mut requester, &mut recording).run(command.clone());
        match reply.unwrap_or_else(|error| panic!("{command:?}: {error}")) {
            Reply::Vendor(payload) => assert_eq!(payload, b"daolyap emos"),
            Reply::Measurements(report) if report.total.is_some() => assert_eq!(report.total, Some(8)),
            Reply::SessionStarted(info) => assert_eq!(info.heartbeat_period, 10),
            Reply::Connected(_)
            | Reply::Digests(_)
            | Reply::Certificate(_)
            | Reply::Challenged(_)
            | Reply::Measurements(_)
            | Reply::Evidence(_)
            | Reply::Served(_)
            | Reply::Alive
            | Reply::KeysUpdated
            | Reply::SessionEnded => {}
            other @ (Reply::CertificateSet
            | Reply::Csr(_)
            | Reply::KeyPair(_)
            | Reply::KeyPairSet
            | Reply::Slots(_)
            | Reply::MeasurementLog(_)
            | Reply::EndpointInfo(_)
            | Reply::EventTypes(_)
            | Reply::Subscribed) => panic!("{command:?}: {other:?}"),
        }
    }
    recording.finish();
}

/// The responder has no certificates: the key is what both know each other by.
fn hold_psk_requester(text: &str, version: Version) {
    let mut recording = Recording::parse(text);
    let hint = b"TestPskHint\0".to_vec();
    let psks = vec![PreSharedKey::new(hint.clone(), b"TestPskData\0".to_vec())];
    let config =
        RequesterConfig { versions: vec![version], psks, chunks: false, ..RequesterConfig::default() };
    let mut requester = Requester::new(config, recording.provider()).unwrap();
    let payload = b"some payload".to_vec();
    for command in [
        Command::Connect,
        Command::StartPskSession { hint, summary: SummaryType::All, end_on_update: false },
        Command::Heartbeat,
        Command::UpdateKeys(UpdateKeys::Requests),
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload },
        Command::EndSession { clear_negotiated_state: false },
    ] {
        let reply = Driver::new(&mut requester, &mut recording).run(command.clone());
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }
    recording.finish();
}

/// The payload backwards, as the recorded device answered.
struct Backwards;

impl VendorHandler for Backwards {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend(request.payload.iter().rev());
        VendorAnswer::Respond
    }
}

/// The configuration of the recorded device.
fn device(version: Version, hash: HashAlgorithm, aead: Aead) -> ResponderConfig {
    let measurement = |index, kind, tcb, value| Measurement { index, kind, tcb, value };
    let raw = |value: &[u8]| MeasurementValue::Raw(value.to_vec());
    let raw_only = |value: &[u8]| MeasurementValue::RawOnly(value.to_vec());
    ResponderConfig {
        versions: vec![version],
        hashes: vec![hash],
        aeads: vec![aead],
        measurement_hashes: vec![hash],
        heartbeat_period: 10,
        measurements: vec![
            measurement(1, 0, true, MeasurementValue::Digest(vec![0x11; hash.size()])),
            measurement(2, 1, true, raw(b"firmware image")),
            measurement(4, 3, false, raw(b"configuration")),
            measurement(0x10, 7, true, raw_only(&5_u64.to_le_bytes())),
            measurement(0xFD, 4, false, raw_only(b"a manifest")),
            measurement(0xFE, 5, false, raw_only(&[0x3F, 0, 0, 0, 1, 0, 0, 0])),
        ],
        ..ResponderConfig::default()
    }
}

fn hold_responder(text: &str, config: ResponderConfig) {
    let mut recording = Recording::parse(text);
    let certificates: Vec<Vec<u8>> =
        (0..3).map(|_| recording.secrets.next("certificate").remove(0)).collect();
    let verified = verify_certificates(&certificates.concat(), &Policy::default()).unwrap();
    let key = Arc::new(ReplaySigner {
        algorithm: verified.algorithm,
        public_key: verified.public_key,
        secrets: recording.secrets.clone(),
    });
    let slots = Slots::single(Slot::new(certificates, key));
    let mut responder = Responder::new(config, slots, recording.provider()).unwrap();
    while !recording.messages.is_empty() {
        let Message { secured, bytes, .. } = recording.message(true);
        let mut response = Vec::new();
        let answer = if secured {
            responder.handle_secured(Duration::ZERO, &bytes, &mut Backwards, &mut response)
        } else {
            responder.handle_clear(Duration::ZERO, &bytes, &mut Backwards, &mut response)
        };
        assert_eq!(answer, Answer::Respond);
        assert_eq!(Message { request: false, secured, bytes: response }, recording.message(false));
    }
    recording.finish();
}

#[test]
fn the_requester_talks_to_libspdm_in_1_0() {
    hold_requester(include_str!("golden/requester-1.0.txt"), Version::V1_0);
}

#[test]
fn the_requester_talks_to_libspdm_in_1_1() {
    hold_requester(include_str!("golden/requester-1.1.txt"), Version::V1_1);
}

#[test]
fn the_requester_talks_to_libspdm_in_1_2() {
    hold_requester(include_str!("golden/requester-1.2.txt"), Version::V1_2);
}

#[test]
fn the_requester_talks_to_libspdm_in_1_3() {
    hold_requester(include_str!("golden/requester-1.3.txt"), Version::V1_3);
}

#[test]
fn the_requester_shares_a_key_with_libspdm() {
    hold_psk_requester(include_str!("golden/requester-psk-1.1.txt"), Version::V1_1);
    hold_psk_requester(include_str!("golden/requester-psk-1.2.txt"), Version::V1_2);
    hold_psk_requester(include_str!("golden/requester-psk-1.3.txt"), Version::V1_3);
}

#[test]
fn the_responder_answers_libspdm_in_1_0() {
    let config = device(Version::V1_0, HashAlgorithm::Sha256, Aead::Aes128Gcm);
    hold_responder(include_str!("golden/responder-1.0.txt"), config);
}

#[test]
fn the_responder_answers_libspdm_in_1_1() {
    let config = device(Version::V1_1, HashAlgorithm::Sha384, Aead::Aes256Gcm);
    hold_responder(include_str!("golden/responder-1.1.txt"), config);
}

#[test]
fn the_responder_answers_libspdm_in_1_2() {
    let config = device(Version::V1_2, HashAlgorithm::Sha256, Aead::Aes128Gcm);
    hold_responder(include_str!("golden/responder-1.2.txt"), config);
}

#[test]
fn the_responder_answers_libspdm_in_1_3() {
    let config = device(Version::V1_3, HashAlgorithm::Sha384, Aead::Aes256Gcm);
    hold_responder(include_str!("golden/responder-1.3.txt"), config);
}
