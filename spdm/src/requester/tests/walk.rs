//! Against the crate's own responder.

use core::time::Duration;

use super::peer::{NAME, Suite};
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, RingProvider};
use crate::identity::{Material, generate};
use crate::requester::{
    Driver, DriverError, MeasurementQuery, Misuse, Requester, RequesterConfig, RequesterError, Response,
    RootPin, SavedSession, Transport, Trust, TrustPolicy, UpdateKeys, Violation,
};
use crate::responder::{
    Answer, Capability, EndReason, Event, Measurement, MeasurementValue, Responder, ResponderConfig,
    VendorAnswer, VendorHandler, VendorRequest,
};
use crate::slot::Slots;
use crate::wire::{
    Code, ContentChanged, ErrorCode, MeasurementOperation, STANDARD_PCI_SIG, SummaryType, Version,
};

const PCI_SIG: [u8; 2] = [1, 0];

/// The responder behind a mailbox, with a clock that stands still unless it is told.
struct Device {
    responder: Responder,
    now: Duration,
    events: Vec<Event>,
    /// A byte of clear responses with this code that is changed on the way.
    flip: Option<(Code, usize)>,
}

/// Answers with the payload backwards; refuses an empty one.
struct Backwards;

impl VendorHandler for Backwards {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        if request.payload.is_empty() {
            return VendorAnswer::Error { code: ErrorCode::INVALID_REQUEST.0, data: 0 };
        }
        response.extend(request.payload.iter().rev());
        VendorAnswer::Respond
    }
}

impl Transport for &mut Device {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let mut padded = message.to_vec();
        padded.resize(message.len().next_multiple_of(4), 0);
        let mut bytes = Vec::new();
        let answer = if secured {
            self.responder.handle_secured(self.now, &padded, &mut Backwards, &mut bytes)
        } else {
            self.responder.handle_clear(self.now, &padded, &mut Backwards, &mut bytes)
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.drain();
        if let Some((code, position)) = self.flip
            && !secured
            && bytes[1] == code.0
        {
            bytes[position] ^= 1;
        }
        match answer {
            Answer::Respond => Ok(Response { secured, bytes }),
            Answer::Silent => Err("no answer"),
        }
    }

    fn wait(&mut self, delay: Duration) {
        self.now += delay;
    }
}

impl Device {
    fn with(config: ResponderConfig, material: &Material) -> Self {
        let slots = Slots::single(material.slot());
        let responder = Responder::new(config, slots, Box::new(RingProvider::new())).unwrap();
        Self { responder, now: Duration::ZERO, events: Vec::new(), flip: None }
    }

    fn new(suite: Suite) -> (Self, Material) {
        let material = generate(&NAME, suite.asym).unwrap();
        (Self::with(config_up_to(suite.version), &material), material)
    }

    fn drive<'r>(&'r mut self, requester: &'r mut Requester) -> Driver<'r, &'r mut Self> {
        Driver::new(requester, self)
    }

    /// As a device does after every call.
    fn drain(&mut self) {
        self.events.extend(core::iter::from_fn(|| self.responder.poll_event()));
    }
}

fn config() -> ResponderConfig {
    let measurement = |index, tcb, value| Measurement { index, kind: index, tcb, value };
    ResponderConfig {
        measurements: vec![
            measurement(1, true, MeasurementValue::Raw(b"firmware".to_vec())),
            measurement(2, false, MeasurementValue::RawOnly(b"settings".to_vec())),
            measurement(5, true, MeasurementValue::Raw(vec![0x55; 300])),
        ],
        heartbeat_period: 10,
        ..ResponderConfig::default()
    }
}

/// Offers every version up to `newest`.
fn config_up_to(newest: Version) -> ResponderConfig {
    let versions = Version::IMPLEMENTED.into_iter().filter(|version| *version <= newest);
    ResponderConfig { versions: versions.collect(), ..config() }
}

fn query(operation: MeasurementOperation, raw: bool, signed_by: Option<u8>) -> MeasurementQuery {
    MeasurementQuery { operation, raw, signed_by }
}

#[test]
fn the_whole_walk_in_every_suite() {
    for suite in Suite::all() {
        let (mut device, material) = Device::new(suite);
        let root = material.certificates()[0].clone();
        let trust = TrustPolicy::Pinned(vec![RootPin::Certificate(root)]);
        let config = RequesterConfig { trust, ..suite.config() };
        let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
        let mut driver = device.drive(&mut requester);

        let info = driver.connect().unwrap();
        assert_eq!(info.version, suite.version);
        assert_eq!((info.algorithms.group, info.algorithms.aead), (Some(suite.group), Some(suite.aead)));
        let digests = driver.digests().unwrap();
        assert_eq!(digests.provisioned, 1);
        let found = driver.certificate(0).unwrap();
        assert_eq!(found.trust, Trust::Pinned);
        assert_eq!(found.chain.certificates, material.certificates());
        assert_eq!(found.chain.pci_name, Some(NAME.to_string()));
        for summary in [SummaryType::None, SummaryType::Tcb, SummaryType::All] {
            let proof = driver.challenge(0, summary).unwrap();
            assert_eq!(proof.summary.is_some(), summary != SummaryType::None);
        }

        let count = driver.measurements(query(MeasurementOperation::Count, false, None)).unwrap();
        assert_eq!(count.total, Some(3));
        let one = driver.measurements(query(MeasurementOperation::One(2), true, None)).unwrap();
        assert_eq!(one.measurements[0].value, b"settings");
        let all = driver.measurements(query(MeasurementOperation::All, false, Some(0))).unwrap();
        assert_eq!(all.measurements.len(), 3);
        assert!(matches!(all.signed, Some(ContentChanged::Unchanged | ContentChanged::NotDetected)));
        driver.challenge(0, SummaryType::None).unwrap();

        let session = driver.start_session(0, SummaryType::All, false).unwrap();
        assert_eq!(session.heartbeat_period, 10);
        driver.heartbeat().unwrap();
        assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"abc").unwrap(), b"cba");
        for keys in [UpdateKeys::Requests, UpdateKeys::Both, UpdateKeys::Both, UpdateKeys::Requests] {
            driver.update_keys(keys).unwrap();
            assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"abc").unwrap(), b"cba");
        }
        driver.measurements(query(MeasurementOperation::One(1), true, None)).unwrap();
        driver.measurements(query(MeasurementOperation::All, true, Some(0))).unwrap();
        driver.digests().unwrap();
        driver.certificate(0).unwrap();
        driver.end_session(false).unwrap();
        let id = session.id;
        let ended = Event::SessionEnded { id, reason: EndReason::Requested };
        assert_eq!(device.events, [Event::SessionEstablished { id }, ended]);
        let mut driver = device.drive(&mut requester);
        driver.challenge(0, SummaryType::None).unwrap();
    }
}

/// 1.0 attests and has no sessions.
#[test]
fn the_walk_in_1_0_ends_before_sessions() {
    let suite = Suite { version: Version::V1_0, ..Suite::SMALL };
    let (mut device, _) = Device::new(suite);
    // The requester would rather speak 1.3, the device has only 1.0.
    let config = RequesterConfig { versions: Version::IMPLEMENTED.to_vec(), ..suite.config() };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    let mut driver = device.drive(&mut requester);
    let info = driver.connect().unwrap();
    assert_eq!((info.version, info.algorithms.group, info.algorithms.aead), (Version::V1_0, None, None));
    driver.digests().unwrap();
    driver.certificate(0).unwrap();
    let proof = driver.challenge(0, SummaryType::All).unwrap();
    assert!(proof.summary.is_some());
    driver.measurements(query(MeasurementOperation::Count, false, None)).unwrap();
    let all = driver.measurements(query(MeasurementOperation::All, false, Some(0))).unwrap();
    assert_eq!(all.signed, Some(ContentChanged::NotDetected));
    assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"abc").unwrap(), b"cba");
    let other_slot = driver.measurements(query(MeasurementOperation::All, false, Some(1)));
    let Err(DriverError::Requester(RequesterError::Misuse(misuse))) = other_slot else {
        panic!("{other_slot:?}")
    };
    assert_eq!(misuse, Misuse::OutOfRange("slot"));
    let session = driver.start_session(0, SummaryType::None, false);
    let Err(DriverError::Requester(RequesterError::Misuse(misuse))) = session else { panic!("{session:?}") };
    assert_eq!(misuse, Misuse::NotCapable("sessions"));
}

#[test]
fn defaults_meet_at_the_strongest() {
    let (mut device, _) = Device::new(Suite { asym: AsymAlgorithm::EcdsaP384, ..Suite::SMALL });
    let mut requester = Requester::new(RequesterConfig::default(), Box::new(RingProvider::new())).unwrap();
    let info = device.drive(&mut requester).connect().unwrap();
    assert_eq!(info.version, Version::V1_3);
    assert_eq!(info.algorithms.hash, HashAlgorithm::Sha384);
    assert_eq!(info.algorithms.signature, Some(AsymAlgorithm::EcdsaP384));
    assert_eq!(info.algorithms.group, Some(DheGroup::P384));
    assert_eq!(info.algorithms.aead, Some(Aead::Aes256Gcm));
}

#[test]
fn a_key_of_another_strength_is_negotiated_around() {
    let (mut device, _) = Device::new(Suite::SMALL);
    let mut requester = Requester::new(RequesterConfig::default(), Box::new(RingProvider::new())).unwrap();
    let mut driver = device.drive(&mut requester);
    let info = driver.connect().unwrap();
    // The preferred hash, if the key's provider signs with it.
    let any_hash = cfg!(feature = "aws-lc");
    let hash = if any_hash { HashAlgorithm::Sha384 } else { HashAlgorithm::Sha256 };
    assert_eq!(info.algorithms.hash, hash);
    assert_eq!(info.algorithms.signature, Some(AsymAlgorithm::EcdsaP256));
    driver.certificate(0).unwrap();
    driver.start_session(0, SummaryType::None, false).unwrap();
}

#[test]
fn records_without_encryption_and_small_transfers() {
    let material = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let base = config();
    let capabilities = Capability { encrypt: false, ..base.capabilities };
    let mut device = Device::with(ResponderConfig { capabilities, ..base }, &material);
    let config = RequesterConfig { data_transfer_size: 384, ..Suite::SMALL.config() };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    let mut driver = device.drive(&mut requester);
    driver.connect().unwrap();
    driver.digests().unwrap();
    driver.certificate(0).unwrap();
    driver.challenge(0, SummaryType::All).unwrap();
    driver.start_session(0, SummaryType::None, false).unwrap();
    assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"xyz").unwrap(), b"zyx");
    // The responder has more than fits: it says so, and nothing is lost.
    let result = driver.measurements(query(MeasurementOperation::All, true, None));
    let Err(DriverError::Requester(RequesterError::Refused { code, .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!(code, ErrorCode::RESPONSE_TOO_LARGE);
    driver.heartbeat().unwrap();
}

/// Both sides keep M1/M2 by the same rules, whatever came before the challenge.
#[test]
fn challenges_follow_any_history() {
    type Act = fn(&mut Driver<'_, &mut Device>);
    let acts: [Act; 6] = [
        |driver| drop(driver.digests().unwrap()),
        |driver| drop(driver.certificate(0).unwrap()),
        |driver| drop(driver.challenge(0, SummaryType::None).unwrap()),
        |driver| drop(driver.measurements(query(MeasurementOperation::Count, false, None)).unwrap()),
        |driver| drop(driver.measurements(query(MeasurementOperation::All, false, Some(0))).unwrap()),
        |driver| {
            driver.start_session(0, SummaryType::None, false).unwrap();
            driver.digests().unwrap();
            driver.certificate(0).unwrap();
            driver.end_session(false).unwrap();
        },
    ];
    for version in [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4] {
        let suite = Suite { version, ..Suite::SMALL };
        let (mut device, _) = Device::new(suite);
        let mut requester = suite.requester();
        let mut driver = device.drive(&mut requester);
        driver.connect().unwrap();
        driver.certificate(0).unwrap();
        for number in 0..acts.len().pow(3) {
            for place in 0..3 {
                acts[number / acts.len().pow(place) % acts.len()](&mut driver);
            }
            driver.challenge(0, SummaryType::None).unwrap();
        }
    }
}

#[test]
fn the_handshake_may_be_in_the_clear() {
    for suite in Suite::all() {
        let material = generate(&NAME, suite.asym).unwrap();
        let base = config_up_to(suite.version);
        let capabilities = Capability { handshake_in_the_clear: true, ..base.capabilities };
        let mut device = Device::with(ResponderConfig { capabilities, ..base }, &material);
        for handshake_in_the_clear in [true, false] {
            let config = RequesterConfig { handshake_in_the_clear, ..suite.config() };
            let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
            let mut driver = device.drive(&mut requester);
            driver.connect().unwrap();
            driver.certificate(0).unwrap();
            driver.start_session(0, SummaryType::None, false).unwrap();
            assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"abc").unwrap(), b"cba");
            driver.end_session(false).unwrap();

            // Behind the opaque data of 1.4, which the same HMAC vouches for.
            driver.transport().flip = handshake_in_the_clear.then_some((Code::FINISH_RSP, 6));
            let result = driver.start_session(0, SummaryType::None, false);
            let (request, violation) = (Code::FINISH, Violation::VerifyData);
            let forged = RequesterError::Violation { request, violation };
            assert_eq!(result.is_err(), handshake_in_the_clear);
            assert!(result.is_ok() || result == Err(DriverError::Requester(forged)));
            driver.transport().flip = None;
        }
    }
}

#[test]
fn a_session_survives_the_process_that_began_it() {
    for suite in Suite::all() {
        let (mut device, _) = Device::new(suite);
        let mut requester = suite.requester();
        let mut driver = device.drive(&mut requester);
        driver.connect().unwrap();
        driver.certificate(0).unwrap();
        driver.start_session(0, SummaryType::None, false).unwrap();
        for _ in 0..4 {
            let text = serde_json::to_string(&requester.save().unwrap()).unwrap();
            drop(requester);
            requester = suite.requester();
            requester.restore(&serde_json::from_str::<SavedSession>(&text).unwrap()).unwrap();
            let mut driver = device.drive(&mut requester);
            assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"on").unwrap(), b"no");
            driver.update_keys(UpdateKeys::Both).unwrap();
            driver.measurements(query(MeasurementOperation::All, true, Some(0))).unwrap();
        }
        device.drive(&mut requester).end_session(false).unwrap();
    }
}

#[test]
fn a_session_that_is_not_kept_alive_ends() {
    let (mut device, _) = Device::new(Suite::SMALL);
    let mut requester = Suite::SMALL.requester();
    let mut driver = device.drive(&mut requester);
    driver.connect().unwrap();
    driver.certificate(0).unwrap();
    let id = driver.start_session(0, SummaryType::None, false).unwrap().id;
    for _ in 0..5 {
        driver.transport().now += Duration::from_secs(15);
        driver.heartbeat().unwrap();
    }
    driver.transport().now += Duration::from_secs(21);
    // The session is unknown now, and a record of an unknown session has no answer.
    assert_eq!(driver.heartbeat(), Err(DriverError::Transport("no answer")));
    let lost = Event::SessionEnded { id, reason: EndReason::HeartbeatLost };
    assert_eq!(device.events.last(), Some(&lost));
}

#[test]
fn a_vendor_refusal_arrives_with_its_code() {
    let (mut device, _) = Device::new(Suite::SMALL);
    let mut requester = Suite::SMALL.requester();
    let mut driver = device.drive(&mut requester);
    driver.connect().unwrap();
    assert_eq!(driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"clear").unwrap(), b"raelc");
    let result = driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"");
    let Err(DriverError::Requester(RequesterError::Refused { code, .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    driver.certificate(0).unwrap();
    driver.start_session(0, SummaryType::None, false).unwrap();
    driver.vendor(STANDARD_PCI_SIG, &PCI_SIG, b"").unwrap_err();
    driver.heartbeat().unwrap();
}

#[test]
fn a_reset_device_has_forgotten_the_session() {
    let (mut device, _) = Device::new(Suite::SMALL);
    let mut requester = Suite::SMALL.requester();
    let mut driver = device.drive(&mut requester);
    driver.connect().unwrap();
    driver.certificate(0).unwrap();
    let session = driver.start_session(0, SummaryType::None, false).unwrap();
    driver.transport().responder.reset();
    driver.transport().drain();
    assert_eq!(driver.heartbeat(), Err(DriverError::Transport("no answer")));
    driver.connect().unwrap();
    driver.certificate(0).unwrap();
    driver.start_session(0, SummaryType::None, false).unwrap();
    let reset = Event::SessionEnded { id: session.id, reason: EndReason::Reset };
    assert_eq!(device.events[1], reset);
}
