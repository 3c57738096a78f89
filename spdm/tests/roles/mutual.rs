//! The requester authenticates itself, too: after CHALLENGE, before FINISH, and what happens if it does not.

use std::sync::OnceLock;
use std::time::Duration;

use spdm::crypto::{AsymAlgorithm, RingProvider};
use spdm::identity::{Material, generate_requester};
use spdm::requester::{
    Command, Driver, DriverError, Misuse, Reply, Requester, RequesterError, Response, Transport,
};
use spdm::responder::{
    Event, MutualAuthentication, Origin, Responder, ResponderConfig, RootPin, SessionAuthentication,
    TrustPolicy,
};
use spdm::slot::{Slot, Slots};
use spdm::wire::{Code, ErrorCode, SummaryType, Version};

use super::pair::*;

const P256: AsymAlgorithm = AsymAlgorithm::EcdsaP256;
const START: Command = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
const CHALLENGE: Command = Command::Challenge { slot: 0, summary: SummaryType::None };
const END: Command = Command::EndSession { clear_negotiated_state: false };
const FORMS: [SessionAuthentication; 2] =
    [SessionAuthentication::Encapsulated, SessionAuthentication::Digests];

fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| generate_requester("a requester", P256).unwrap())
}

fn slot() -> Slot {
    material().slot()
}

/// Every requester has slot 0; `also` is another.
fn identity(also: Option<usize>) -> Slots {
    let mut slots = Slots::single(slot());
    if let Some(number) = also {
        slots.slots[number] = Some(slot());
    }
    slots
}

/// Versions whose CHALLENGE_AUTH can ask for the requester.
fn challenging() -> impl Iterator<Item = Version> {
    VERSIONS.into_iter().filter(|version| *version < Version::V1_4)
}

fn asks(version: Version, mutual: MutualAuthentication) -> ResponderConfig {
    let trust = TrustPolicy::Pinned(vec![RootPin::Certificate(material().certificates()[0].clone())]);
    ResponderConfig { mutual: MutualAuthentication { trust, ..mutual }, ..responder_config(version) }
}

fn in_sessions(version: Version, session: SessionAuthentication) -> ResponderConfig {
    asks(version, MutualAuthentication { session, ..MutualAuthentication::default() })
}

fn clear(mut config: ResponderConfig, clear: bool) -> ResponderConfig {
    config.capabilities.handshake_in_the_clear = clear;
    config
}

/// Connected, with the responder's certificate; the requester is known by `identity`.
fn pair(responder: ResponderConfig, identity: Slots) -> Pair {
    let version = responder.versions[0];
    let mut config = requester_config(version);
    config.handshake_in_the_clear = responder.capabilities.handshake_in_the_clear;
    let requester = Requester::with_identity(config, Box::new(RingProvider::new()), identity).unwrap();
    let responder = Responder::new(responder, slots(), Box::new(RingProvider::new())).unwrap();
    let mut pair = Pair { requester, device: Device { responder, now: Duration::ZERO } };
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

/// Starts a session and tells as whom the requester signed, by its own account and the responder's.
fn start(pair: &mut Pair) -> (Option<u8>, Option<u8>) {
    pair.requester.select(None).unwrap();
    pair.events();
    let Reply::SessionStarted(info) = pair.run(START).unwrap() else { panic!() };
    let mut told = None;
    for event in pair.events() {
        if let Event::RequesterAuthenticated { session, slot } = event {
            assert_eq!(session, Some(info.id));
            told = Some(slot);
        }
    }
    pair.exercise(info.id);
    (info.authenticated_as, told)
}

fn error(code: Code, expected: ErrorCode) -> impl Fn(&RequesterError) -> bool {
    move |error| matches!(error, RequesterError::Refused { request, code: found, .. } if *request == code && *found == expected)
}

#[test]
fn sessions_ask_for_the_requester_in_both_forms() {
    for version in VERSIONS {
        for session in FORMS {
            for in_the_clear in [false, true] {
                for wanted in [0, 3] {
                    let mutual = MutualAuthentication { session, slot: wanted, ..Default::default() };
                    let config = clear(asks(version, mutual), in_the_clear);
                    let mut pair = pair(config, identity(Some(3)));
                    for _ in 0..3 {
                        assert_eq!(start(&mut pair), (Some(wanted), Some(wanted)), "{version} {session:?}");
                    }
                }
            }
        }
    }
}

/// A chain that was learned once is not fetched again, and can then be asked for without any question.
#[test]
fn what_is_known_is_not_asked_again() {
    for version in challenging() {
        let mutual = MutualAuthentication {
            challenge: true,
            session: SessionAuthentication::Known,
            ..MutualAuthentication::default()
        };
        let mut pair = pair(asks(version, mutual), identity(None));
        assert_eq!(start(&mut pair), (None, None), "nothing is known yet");
        pair.requester.select(None).unwrap();
        let Reply::Challenged(proof) = pair.run(CHALLENGE).unwrap() else { panic!() };
        assert_eq!(proof.authenticated_as, Some(0));
        assert_eq!(start(&mut pair), (Some(0), Some(0)));
    }
}

#[test]
fn a_challenge_is_returned() {
    for version in challenging() {
        let mutual = MutualAuthentication { challenge: true, slot: 5, ..MutualAuthentication::default() };
        let mut pair = pair(asks(version, mutual), identity(Some(2)));
        for _ in 0..3 {
            for command in [Command::Digests, Command::Certificate { slot: 0 }] {
                pair.run(command).unwrap();
            }
            let Reply::Challenged(proof) = pair.run(CHALLENGE).unwrap() else { panic!() };
            assert_eq!(proof.authenticated_as, Some(0), "slot 5 is empty");
            assert_eq!(pair.events(), [Event::RequesterAuthenticated { session: None, slot: 0 }]);
        }
        assert_eq!(start(&mut pair), (None, None));
    }
}

#[test]
fn whoever_cannot_prove_anything_is_not_asked() {
    for version in VERSIONS {
        for session in FORMS {
            let mutual = MutualAuthentication { challenge: true, session, ..Default::default() };
            let mut pair = pair(asks(version, mutual), Slots::default());
            assert_eq!(start(&mut pair), (None, None));
            pair.requester.select(None).unwrap();
            let Reply::Challenged(proof) = pair.run(CHALLENGE).unwrap() else { panic!() };
            assert_eq!(proof.authenticated_as, None);
        }
        // A responder that does not ask.
        let mut pair = pair(responder_config(version), identity(None));
        assert_eq!(start(&mut pair), (None, None));
    }
}

#[test]
fn a_requester_under_another_root_gets_no_session() {
    for version in VERSIONS {
        for in_the_clear in [false, true] {
            for session in FORMS {
                let mut config = clear(in_sessions(version, session), in_the_clear);
                config.mutual.trust = TrustPolicy::Pinned(vec![RootPin::Digest(vec![7; 32])]);
                let mut pair = pair(config, identity(None));
                let failure = pair.fail(START);
                let refused = error(Code::DELIVER_ENCAPSULATED_RESPONSE, ErrorCode::INVALID_RESPONSE_CODE);
                assert!(refused(&failure), "{failure:?}");
                assert!(pair.requester.session().is_none());
                assert_eq!(pair.events(), []);
                assert_eq!(pair.seen_in(), None, "the connection goes on");
            }
        }
    }
    for version in challenging() {
        let mutual = MutualAuthentication { challenge: true, ..MutualAuthentication::default() };
        let mut config = asks(version, mutual);
        config.mutual.trust = TrustPolicy::Pinned(vec![RootPin::Digest(vec![7; 32])]);
        let mut pair = pair(config, identity(None));
        let failure = pair.fail(CHALLENGE);
        let refused = error(Code::DELIVER_ENCAPSULATED_RESPONSE, ErrorCode::INVALID_RESPONSE_CODE);
        assert!(refused(&failure), "{failure:?}");
        assert_eq!(pair.seen_in(), None, "the conversation is over");
    }
}

/// The responder renews its key when it likes, told by whoever drives it, and the requester lets it ask.
#[test]
fn the_responder_renews_its_key() {
    for version in VERSIONS {
        let mut pair = pair(in_sessions(version, SessionAuthentication::Digests), identity(None));
        let idle = |pair: &mut Pair| {
            if version >= Version::V1_3 {
                let Reply::Served(served) = pair.run(Command::Serve).unwrap() else { panic!() };
                assert!(!served.key_renewed);
            } else {
                let failure = pair.fail(Command::Serve);
                assert!(error(Code::GET_ENCAPSULATED_REQUEST, ErrorCode::UNEXPECTED_REQUEST)(&failure));
            }
        };
        idle(&mut pair);
        let one = pair.start_any();
        let two = pair.start_any();
        assert!(!pair.device.responder.renew_key(one ^ 0xFFFF));
        for id in [one, two, one] {
            pair.requester.select(Some(id)).unwrap();
            idle(&mut pair);
            for _ in 0..3 {
                assert!(pair.device.responder.renew_key(id));
                let Reply::Served(served) = pair.run(Command::Serve).unwrap() else { panic!() };
                assert!(served.key_renewed);
                assert_eq!(pair.seen_in(), Some(id));
            }
            pair.exercise(id);
            idle(&mut pair);
        }
    }
    // Neither side announced it.
    let mut pair = pair(responder_config(Version::V1_3), Slots::default());
    let id = pair.start_any();
    assert!(!pair.device.responder.renew_key(id));
    assert_eq!(
        pair.fail(Command::Serve),
        RequesterError::Misuse(Misuse::NotCapable("the responder's requests"))
    );
}

/// A certificate is judged by the time there is when it is shown, not when the responder was made.
#[test]
fn certificates_have_to_be_valid_now() {
    let mut pair = pair(in_sessions(Version::V1_3, SessionAuthentication::Digests), identity(None));
    for (time, good) in [(-1, false), (4_000_000_000, true), (253_402_300_800, false)] {
        pair.device.responder.set_time(Some(time));
        pair.run(Command::Connect).unwrap();
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        assert_eq!(pair.run(START).is_ok(), good, "{time}");
    }
}

/// Changes or repeats what the requester delivers.
struct Tampering<'d> {
    device: &'d mut Device,
    /// Number of the message to change, and how.
    at: usize,
    change: fn(&mut Vec<u8>),
    count: usize,
}

impl Transport for &mut Tampering<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let mut message = message.to_vec();
        if self.count == self.at {
            (self.change)(&mut message);
        }
        self.count += 1;
        (&mut *self.device).exchange(secured, &message)
    }

    fn wait(&mut self, delay: Duration) {
        (&mut *self.device).wait(delay);
    }
}

/// In the clear anyone can change what the requester delivers: no session comes of it, and no panic.
#[test]
fn what_is_delivered_cannot_be_changed() {
    let changes: [fn(&mut Vec<u8>); 5] = [
        |message| message.truncate(6),
        |message| message[2] ^= 1,
        |message| {
            if let Some(byte) = message.get_mut(40) {
                *byte ^= 1;
            }
        },
        |message| message.extend_from_slice(&[0; 40]),
        |message| *message.last_mut().unwrap() ^= 0x80,
    ];
    for version in VERSIONS {
        for session in FORMS {
            for change in changes {
                for at in 1..6 {
                    let mut pair = pair(clear(in_sessions(version, session), true), identity(None));
                    let mut way = Tampering { device: &mut pair.device, at, change, count: 0 };
                    let result = Driver::new(&mut pair.requester, &mut way).run(START);
                    // Surplus bytes count as padding; everything else is noticed.
                    let established =
                        pair.events().iter().any(|event| matches!(event, Event::SessionEstablished { .. }));
                    assert_eq!(established, result.is_ok(), "{version} {session:?} {at} {result:?}");
                }
            }
        }
    }
}

/// A session whose requester breaks off the interview is not established without it.
#[test]
fn finish_waits_for_the_interview() {
    for version in VERSIONS {
        for session in FORMS {
            let mut pair = pair(clear(in_sessions(version, session), true), identity(None));
            let mut way = Tampering { device: &mut pair.device, at: 1, change: |_| (), count: 0 };
            // The requester's first message behind KEY_EXCHANGE never arrives.
            struct Lost<'a, 'd>(&'a mut Tampering<'d>);
            impl Transport for &mut Lost<'_, '_> {
                type Error = &'static str;
                fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
                    if self.0.count == 1 { Err("lost") } else { (&mut *self.0).exchange(secured, message) }
                }
                fn wait(&mut self, _: Duration) {}
            }
            let result = Driver::new(&mut pair.requester, &mut Lost(&mut way)).run(START);
            assert_eq!(result, Err(DriverError::Transport("lost")));
            // What comes instead outside the session is in the way of the conversation, until it starts anew.
            let failure = pair.fail(Command::Digests);
            assert!(error(Code::GET_DIGESTS, ErrorCode::REQUEST_IN_FLIGHT)(&failure), "{failure:?}");
            pair.run(Command::Connect).unwrap();
            pair.run(Command::Certificate { slot: 0 }).unwrap();
            assert_eq!(start(&mut pair), (Some(0), Some(0)));
            pair.run(END).unwrap();
        }
    }
}

/// Both know each other's public key and have no certificates at all.
#[test]
fn keys_that_are_known_beforehand_need_no_certificate() {
    use spdm::crypto::encode_public_key;
    use spdm::requester::{KnownKey, MeasurementQuery};
    use spdm::slot::PublicKey;
    use spdm::wire::MeasurementOperation;

    const BARE: u8 = 0xFF;
    let bare = |slot: Slot| {
        let info = encode_public_key(slot.algorithm(), slot.key.public_key());
        (Slots::known(PublicKey { info: info.clone(), key: slot.key }), KnownKey::from_der(&info).unwrap())
    };
    let (device, device_key) = bare(slots().slots[0].take().unwrap());
    let (requester, requester_key) = bare(slot());
    let challenge = Command::Challenge { slot: BARE, summary: SummaryType::All };
    let start = Command::StartSession { slot: BARE, summary: SummaryType::None, end_on_update: false };
    for version in VERSIONS {
        for in_the_clear in [false, true] {
            for (asked, known) in [(false, true), (true, true), (true, false)] {
                let mut mutual = MutualAuthentication { challenge: asked, ..Default::default() };
                if asked {
                    mutual.session = SessionAuthentication::Digests;
                }
                mutual.public_key = known.then(|| requester_key.clone());
                let proves = asked && known;
                let responder = clear(asks(version, mutual), in_the_clear);
                let mut config = requester_config(version);
                config.handshake_in_the_clear = in_the_clear;
                config.responder_key = Some(device_key.clone());
                let provider = || Box::new(RingProvider::new());
                let requester = Requester::with_identity(config, provider(), requester.clone()).unwrap();
                let responder = Responder::new(responder, device.clone(), provider()).unwrap();
                let mut pair = Pair { requester, device: Device { responder, now: Duration::ZERO } };
                pair.run(Command::Connect).unwrap();
                assert_eq!(pair.fail(Command::Digests), Misuse::NotCapable("certificates").into());
                for _ in 0..2 {
                    let Reply::Challenged(proof) = pair.run(challenge.clone()).unwrap() else { panic!() };
                    let returned = proves && version < Version::V1_4;
                    assert_eq!(proof.authenticated_as, returned.then_some(BARE), "{version}");
                    let (operation, raw, signed_by) = (MeasurementOperation::All, false, Some(BARE));
                    pair.run(Command::Measurements(MeasurementQuery { operation, raw, signed_by })).unwrap();
                    pair.events();
                    let Reply::SessionStarted(info) = pair.run(start.clone()).unwrap() else { panic!() };
                    assert_eq!(info.authenticated_as, proves.then_some(BARE));
                    let told = Event::RequesterAuthenticated { session: Some(info.id), slot: BARE };
                    assert_eq!(pair.events().contains(&told), proves);
                    let view = pair.device.responder.sessions().find(|view| view.id == info.id).unwrap();
                    assert_eq!((view.origin, view.requester), (Origin::PublicKey, proves.then_some(BARE)));
                    pair.exercise(info.id);
                    pair.requester.select(None).unwrap();
                }
            }
        }
    }
    // Another key than the one that is known.
    let mut config = requester_config(Version::V1_3);
    config.responder_key = Some(requester_key);
    let mut pair = Pair::with(responder_config(Version::V1_3), device, config);
    pair.run(Command::Connect).unwrap();
    for command in [challenge, start] {
        assert!(matches!(pair.fail(command), RequesterError::Violation { .. }));
    }
}
