//! Sessions from pre-shared keys.

use spdm::crypto::{Aead, HashAlgorithm, RingProvider};
use spdm::psk::PreSharedKey;
use spdm::requester::{Command, Misuse, Reply, RequesterConfig, RequesterError, Violation};
use spdm::responder::{
    ConfigError, EndReason, Event, MeasurementSupport, PskSupport, Responder, ResponderConfig,
};
use spdm::slot::Slots;
use spdm::wire::{Code, ErrorCode, ResponderFlags, SummaryType, Version};

use super::pair::*;

const BOTH: [PskSupport; 2] = [PskSupport::WithoutContext, PskSupport::WithContext];

fn keys() -> Vec<PreSharedKey> {
    vec![
        PreSharedKey::new(b"first".to_vec(), b"0123456789abcdef".to_vec()),
        PreSharedKey::new(b"second".to_vec(), vec![7; 200]),
    ]
}

fn responder(version: Version, psk: PskSupport) -> ResponderConfig {
    let mut config = ResponderConfig { psks: keys(), ..responder_config(version) };
    config.capabilities.psk = psk;
    config
}

fn requester(version: Version) -> RequesterConfig {
    RequesterConfig { psks: keys(), ..requester_config(version) }
}

/// A responder that knows its requester by the key alone.
fn nameless(version: Version, psk: PskSupport) -> ResponderConfig {
    let mut config = responder(version, psk);
    config.capabilities.challenge = false;
    config.capabilities.key_exchange = false;
    config.capabilities.measurements = MeasurementSupport::Unsigned;
    config
}

fn connected(version: Version, psk: PskSupport) -> Pair {
    let mut pair = Pair::with(responder(version, psk), slots(), requester(version));
    pair.run(Command::Connect).unwrap();
    pair
}

fn start_with(hint: &[u8]) -> Command {
    Command::StartPskSession { hint: hint.to_vec(), summary: SummaryType::None, end_on_update: false }
}

fn refused(code: ErrorCode) -> RequesterError {
    RequesterError::Refused { request: Code::PSK_EXCHANGE, code, data: 0 }
}

#[test]
fn every_key_makes_a_session() {
    for version in VERSIONS {
        for psk in BOTH {
            for (hash, aead) in
                [(HashAlgorithm::Sha256, Aead::Aes128Gcm), (HashAlgorithm::Sha384, Aead::Aes256Gcm)]
            {
                let config =
                    ResponderConfig { hashes: vec![hash], aeads: vec![aead], ..nameless(version, psk) };
                let mut pair = Pair::with(config, Slots::default(), requester(version));
                pair.run(Command::Connect).unwrap();
                for hint in [&b""[..], b"first", b"second"] {
                    pair.requester.select(None).unwrap();
                    let id = pair.started(start_with(hint));
                    pair.exercise(id);
                }
            }
        }
    }
}

#[test]
fn a_responder_without_certificates_needs_no_signature() {
    for version in VERSIONS {
        for psk in BOTH {
            let mut pair = Pair::with(nameless(version, psk), Slots::default(), requester(version));
            let Reply::Connected(info) = pair.run(Command::Connect).unwrap() else { panic!() };
            assert!(!info.capabilities.any(ResponderFlags::CERT | ResponderFlags::KEY_EX));
            assert_eq!((info.algorithms.signature, info.algorithms.group), (None, None));
            for command in [Command::Digests, Command::Certificate { slot: 0 }] {
                assert!(matches!(pair.fail(command), RequesterError::Misuse(Misuse::NotCapable(_))));
            }
            let summary = Command::StartPskSession {
                hint: Vec::new(),
                summary: SummaryType::All,
                end_on_update: false,
            };
            let Reply::SessionStarted(info) = pair.run(summary).unwrap() else { panic!() };
            assert_eq!(info.summary.unwrap().len(), 48);
            assert_eq!(info.heartbeat_period, 5);
        }
    }
}

#[test]
fn what_has_to_be_signed_needs_a_certificate() {
    let version = Version::V1_3;
    let refuse = |config: ResponderConfig| {
        Responder::new(config, Slots::default(), Box::new(RingProvider::new())).unwrap_err()
    };
    for change in [
        |config: &mut ResponderConfig| config.capabilities.challenge = true,
        |config: &mut ResponderConfig| config.capabilities.key_exchange = true,
        |config: &mut ResponderConfig| config.capabilities.measurements = MeasurementSupport::Signed,
    ] {
        let mut config = nameless(version, PskSupport::WithContext);
        change(&mut config);
        assert_eq!(refuse(config), ConfigError::NoCertificate);
    }
    let none = ResponderConfig { psks: Vec::new(), ..nameless(version, PskSupport::WithContext) };
    assert!(refuse(none).to_string().contains("psks"));
}

#[test]
fn sessions_of_both_kinds_live_side_by_side() {
    for version in VERSIONS {
        for psk in BOTH {
            let mut pair = connected(version, psk);
            pair.run(Command::Certificate { slot: 0 }).unwrap();
            let mut ids = Vec::new();
            for hint in [&b"first"[..], b"second"] {
                ids.push(pair.start());
                pair.requester.select(None).unwrap();
                ids.push(pair.started(start_with(hint)));
            }
            for id in &ids {
                pair.exercise(*id);
            }
            pair.requester.select(None).unwrap();
            assert_eq!(pair.fail(start_with(b"first")), refused(ErrorCode::SESSION_LIMIT_EXCEEDED));
            for id in [ids[2], ids[1]] {
                pair.requester.select(Some(id)).unwrap();
                pair.run(Command::EndSession { clear_negotiated_state: false }).unwrap();
                let ended = Event::SessionEnded { id, reason: EndReason::Requested };
                assert_eq!(pair.events(), [ended]);
            }
            pair.requester.select(None).unwrap();
            let id = pair.started(start_with(b"first"));
            for id in [id, ids[0], ids[3]] {
                pair.exercise(id);
            }
        }
    }
}

#[test]
fn both_sides_have_to_have_the_same_key() {
    for psk in BOTH {
        let version = Version::V1_2;
        let mut ours = requester(version);
        ours.psks[0] = PreSharedKey::new(b"first".to_vec(), b"another".to_vec());
        ours.psks.push(PreSharedKey::new(b"third".to_vec(), b"0123456789abcdef".to_vec()));
        let mut pair = Pair::with(responder(version, psk), slots(), ours);
        pair.run(Command::Connect).unwrap();
        let expected =
            RequesterError::Violation { request: Code::PSK_EXCHANGE, violation: Violation::VerifyData };
        assert_eq!(pair.fail(start_with(b"first")), expected);
        assert!(pair.requester.session().is_none());
        assert_eq!(pair.fail(start_with(b"third")), refused(ErrorCode::INVALID_REQUEST));
        assert_eq!(pair.fail(start_with(b"fourth")), RequesterError::Misuse(Misuse::NoKey));
        let _ = pair.events();
        let id = pair.started(start_with(b"second"));
        pair.exercise(id);
    }
}

#[test]
fn what_was_not_announced_is_not_used() {
    let version = Version::V1_3;
    let mut pair = Pair::with(responder(version, PskSupport::None), slots(), requester(version));
    pair.run(Command::Connect).unwrap();
    let not_capable = |error| matches!(error, RequesterError::Misuse(Misuse::NotCapable(_)));
    assert!(not_capable(pair.fail(start_with(b""))));
    let mut pair =
        Pair::with(responder(version, PskSupport::WithContext), slots(), requester_config(version));
    pair.run(Command::Connect).unwrap();
    assert!(not_capable(pair.fail(start_with(b""))));
}

#[test]
fn a_silent_session_ends_and_a_saved_one_goes_on() {
    for psk in BOTH {
        let mut pair = connected(Version::V1_3, psk);
        let id = pair.started(start_with(b"second"));
        let saved = pair.requester.save().unwrap();
        pair.requester.restore(&saved).unwrap();
        pair.exercise(id);
        assert_eq!(pair.device.responder.next_deadline(), Some(std::time::Duration::from_secs(10)));
        pair.device.now = std::time::Duration::from_secs(10);
        assert_eq!(pair.run(Command::Heartbeat), Err(Failure::Transport("silence")));
        assert_eq!(pair.events(), [Event::SessionEnded { id, reason: EndReason::HeartbeatLost }]);
    }
}
