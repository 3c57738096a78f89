//! Post-quantum algorithms of 1.4, negotiated and used: every signature and every mechanism that AWS-LC has.

use std::time::Duration;

use spdm::crypto::{AsymAlgorithm, DefaultProvider, DheGroup, HashAlgorithm};
use spdm::identity::{generate, generate_requester};
use spdm::requester::{Command, MeasurementQuery, Reply, Requester, RequesterConfig, RequesterError};
use spdm::responder::{
    MutualAuthentication, Responder, ResponderConfig, RootPin, SessionAuthentication, TrustPolicy,
};
use spdm::slot::Slots;
use spdm::wire::{ErrorCode, MeasurementOperation, SummaryType, Version};

use super::pair::*;

const SUITES: [(AsymAlgorithm, HashAlgorithm, DheGroup); 5] = [
    (AsymAlgorithm::MlDsa44, HashAlgorithm::Sha256, DheGroup::MlKem512),
    (AsymAlgorithm::MlDsa65, HashAlgorithm::Sha384, DheGroup::MlKem768),
    (AsymAlgorithm::MlDsa87, HashAlgorithm::Sha512, DheGroup::MlKem1024),
    // The two are chosen independently.
    (AsymAlgorithm::MlDsa44, HashAlgorithm::Sha384, DheGroup::P521),
    (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384, DheGroup::MlKem768),
];

/// Two slots, one classic and one of `asym`, if that is another.
fn slots_of(asym: AsymAlgorithm) -> Slots {
    let slot = |asym| Some(generate(&NAME, asym).unwrap().slot());
    let second = if asym.is_post_quantum() { slot(asym) } else { None };
    [slot(AsymAlgorithm::EcdsaP384), second, None, None, None, None, None, None].into()
}

fn pair(asym: AsymAlgorithm, hash: HashAlgorithm, group: DheGroup, chunks: bool) -> Pair {
    let version = Version::V1_4;
    let mut settings = ResponderConfig {
        hashes: vec![hash],
        asym: vec![asym, AsymAlgorithm::EcdsaP384],
        groups: vec![group, DheGroup::P384],
        max_message_size: if chunks { 0x1_0000 } else { 4608 },
        ..responder_config(version)
    };
    settings.capabilities.chunks = chunks;
    let config = RequesterConfig {
        hashes: vec![hash],
        signatures: vec![AsymAlgorithm::EcdsaP384, asym],
        groups: vec![DheGroup::P384, group],
        chunks,
        ..requester_config(version)
    };
    let provider = || Box::new(DefaultProvider::default());
    let responder = Responder::new(settings, slots_of(asym), provider()).unwrap();
    let requester = Requester::new(config, provider()).unwrap();
    Pair { requester, device: Device { responder, now: Duration::ZERO } }
}

fn measure(slot: u8) -> Command {
    Command::Measurements(MeasurementQuery {
        operation: MeasurementOperation::All,
        raw: true,
        signed_by: Some(slot),
    })
}

#[test]
fn everything_works_with_every_algorithm() {
    for (asym, hash, group) in SUITES {
        let slot = u8::from(asym.is_post_quantum());
        let mut pair = pair(asym, hash, group, true);
        let Reply::Connected(info) = pair.run(Command::Connect).unwrap() else { panic!() };
        assert_eq!((info.algorithms.signature, info.algorithms.group), (Some(asym), Some(group)));
        pair.run(Command::Digests).unwrap();
        pair.run(Command::Certificate { slot }).unwrap();
        pair.run(Command::Challenge { slot, summary: SummaryType::All }).unwrap();
        pair.run(measure(slot)).unwrap();
        for summary in [SummaryType::None, SummaryType::All] {
            pair.requester.select(None).unwrap();
            let id = pair.started(Command::StartSession { slot, summary, end_on_update: false });
            pair.exercise(id);
            pair.run(measure(slot)).unwrap();
            pair.run(Command::Certificate { slot }).unwrap();
        }
    }
}

/// A signature of ML-DSA-87 alone is longer than a transfer of 4608 bytes.
#[test]
fn without_chunks_a_signature_may_be_too_long() {
    let mut small = pair(AsymAlgorithm::MlDsa44, HashAlgorithm::Sha256, DheGroup::MlKem512, false);
    let mut large = pair(AsymAlgorithm::MlDsa87, HashAlgorithm::Sha256, DheGroup::MlKem512, false);
    for pair in [&mut small, &mut large] {
        pair.run(Command::Connect).unwrap();
        pair.run(Command::Certificate { slot: 1 }).unwrap();
    }
    let challenge = Command::Challenge { slot: 1, summary: SummaryType::None };
    small.run(challenge.clone()).unwrap();
    let error = large.fail(challenge);
    assert!(
        matches!(error, RequesterError::Refused { code: ErrorCode::RESPONSE_TOO_LARGE, .. }),
        "{error:?}"
    );
}

/// The requester's algorithm is selected from two masks, as the responder's is, and independently of it.
#[test]
fn a_requester_may_sign_with_a_post_quantum_key() {
    let (version, hash) = (Version::V1_4, HashAlgorithm::Sha384);
    for (asym, in_the_clear) in
        [(AsymAlgorithm::MlDsa44, false), (AsymAlgorithm::MlDsa65, true), (AsymAlgorithm::MlDsa87, false)]
    {
        let material = generate_requester("a requester", asym).unwrap();
        let trust = TrustPolicy::Pinned(vec![RootPin::Certificate(material.certificates()[0].clone())]);
        let mutual = MutualAuthentication {
            session: SessionAuthentication::Encapsulated,
            asym: vec![AsymAlgorithm::EcdsaP384, asym],
            trust,
            ..MutualAuthentication::default()
        };
        let mut settings = ResponderConfig {
            hashes: vec![hash],
            max_message_size: 0x1_0000,
            mutual,
            ..responder_config(version)
        };
        settings.capabilities.chunks = true;
        settings.capabilities.handshake_in_the_clear = in_the_clear;
        let config = RequesterConfig {
            hashes: vec![hash],
            handshake_in_the_clear: in_the_clear,
            ..requester_config(version)
        };
        let provider = || Box::new(DefaultProvider::default());
        let classic = AsymAlgorithm::EcdsaP384;
        let responder = Responder::new(settings, slots_of(classic), provider()).unwrap();
        let requester = Requester::with_identity(config, provider(), Slots::single(material.slot())).unwrap();
        let mut pair = Pair { requester, device: Device { responder, now: Duration::ZERO } };
        let Reply::Connected(info) = pair.run(Command::Connect).unwrap() else { panic!() };
        assert_eq!(
            (info.algorithms.signature, info.algorithms.requester_signature),
            (Some(classic), Some(asym))
        );
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        let start = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
        let Reply::SessionStarted(session) = pair.run(start).unwrap() else { panic!() };
        assert_eq!(session.authenticated_as, Some(0));
        pair.exercise(session.id);
    }
}
