//! Events, from what happens in the device to the requester that has subscribed to it.

use spdm::psk::PreSharedKey;
use spdm::requester::{Command, Misuse, Reply, RequesterConfig, RequesterError, Served};
use spdm::responder::{EndReason, Event, MeasurementValue, PskSupport, ResponderConfig};
use spdm::slot::Slots;
use spdm::wire::{
    ErrorCode, EventData, EventDetail, EventGroup, EventGroupId, KeyPairAlgorithms, KeyPairOperation,
    KeyPairParameters, KeyUsage, SummaryType, Version,
};

use super::pair::*;
use super::provision::{SEVERAL, WRITABLE, chain, one_empty, refusal, several_keys, store};

const NEW: [Version; 2] = [Version::V1_3, Version::V1_4];

fn notifying(version: Version) -> ResponderConfig {
    let mut config = responder_config(version);
    config.capabilities.events = true;
    config.capabilities.provisioning = WRITABLE;
    config
}

fn listening(version: Version) -> RequesterConfig {
    RequesterConfig { encapsulated: true, ..requester_config(version) }
}

fn connected(responder: ResponderConfig, slots: Slots, requester: RequesterConfig) -> Pair {
    let mut pair = Pair::with(responder, slots, requester);
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

fn all() -> Vec<EventGroup> {
    vec![EventGroup { id: EventGroupId::DMTF, version: 1, all: true, types: Vec::new() }]
}

fn heard(pair: &mut Pair) -> Vec<EventData> {
    let Reply::Served(Served { key_renewed: false, described: false, events }) =
        pair.run(Command::Serve).unwrap()
    else {
        panic!()
    };
    events
}

fn change(pair: &mut Pair, text: &str) {
    let value = MeasurementValue::Raw(text.as_bytes().to_vec());
    pair.device.responder.change_measurement(2, &value).unwrap();
}

#[test]
fn a_requester_asks_subscribes_and_hears() {
    for version in NEW {
        let mut pair = connected(notifying(version), one_empty(), listening(version));
        assert_eq!(pair.fail(Command::EventTypes), Misuse::NoSession.into());
        pair.start();
        let Reply::EventTypes(groups) = pair.run(Command::EventTypes).unwrap() else { panic!() };
        let types = EventDetail::DMTF_TYPES.to_vec();
        assert_eq!(groups, [EventGroup { id: EventGroupId::DMTF, version: 1, all: false, types }]);
        change(&mut pair, "unheard");
        assert_eq!(pair.run(Command::Subscribe { groups }).unwrap(), Reply::Subscribed);
        assert_eq!(heard(&mut pair), []);

        change(&mut pair, "heard");
        pair.run(store(1, chain(1))).unwrap();
        let changed = EventDetail::MeasurementChanged([2].into_iter().collect());
        let stored = EventDetail::CertificateChanged(2);
        let expected =
            [EventData { instance: 0, detail: changed }, EventData { instance: 1, detail: stored }];
        assert_eq!(heard(&mut pair), expected);
        assert_eq!(heard(&mut pair), []);

        // A key of the responder's own comes first, then the events.
        change(&mut pair, "again");
        let id = pair.requester.session().unwrap().id;
        assert!(pair.device.responder.renew_key(id));
        let Reply::Served(served) = pair.run(Command::Serve).unwrap() else { panic!() };
        assert_eq!((served.key_renewed, served.events.len()), (true, 0));
        assert_eq!(heard(&mut pair)[0].instance, 2);

        pair.run(Command::Subscribe { groups: Vec::new() }).unwrap();
        change(&mut pair, "unheard");
        assert_eq!(heard(&mut pair), []);
        let unknown = EventGroup { version: 2, ..all().remove(0) };
        let refused = refusal(&mut pair, Command::Subscribe { groups: vec![unknown] });
        assert_eq!(refused, (ErrorCode::INVALID_REQUEST, 0));
    }
}

#[test]
fn sessions_of_both_kinds_can_begin_with_a_subscription() {
    for (version, notifies) in [(Version::V1_2, true), (Version::V1_3, true), (Version::V1_4, false)] {
        let mut responder = notifying(version);
        responder.capabilities.events = notifies;
        responder.capabilities.encapsulated = true;
        responder.capabilities.psk = PskSupport::WithContext;
        responder.psks = vec![PreSharedKey::new(b"one".to_vec(), vec![7; 32])];
        let mut requester = RequesterConfig { all_events: true, ..requester_config(version) };
        requester.psks = responder.psks.clone();
        let mut pair = connected(responder, slots(), requester);
        let psk = Command::StartPskSession {
            hint: b"one".to_vec(),
            summary: SummaryType::None,
            end_on_update: false,
        };
        for start in [None, Some(psk)] {
            match start {
                None => _ = pair.start(),
                Some(command) => {
                    pair.requester.select(None).unwrap();
                    pair.run(command).unwrap();
                }
            }
            change(&mut pair, "x");
            if version < Version::V1_3 {
                assert_eq!(refusal(&mut pair, Command::Serve), (ErrorCode::UNEXPECTED_REQUEST, 0));
                assert_eq!(pair.fail(Command::EventTypes), Misuse::NotCapable("events").into());
            } else {
                assert_eq!(heard(&mut pair).len(), usize::from(notifies), "{version}");
            }
        }
    }
}

/// What a requester changes is told to all, itself included: the slots of which GET_DIGESTS says something else.
#[test]
fn slots_and_key_pairs_that_change_are_told() {
    for version in NEW {
        let mut responder = notifying(version);
        responder.capabilities.provisioning = SEVERAL;
        let requester =
            RequesterConfig { all_events: true, multiple_keys: true, ..requester_config(version) };
        let mut pair = connected(responder, several_keys(), requester);
        let sessions = [pair.start(), pair.start()];
        let set = |usage, slots| {
            let algorithm = KeyPairAlgorithms::default();
            let parameters = KeyPairParameters { usage: KeyUsage(usage), algorithm, slots };
            Command::SetKeyPair { key_pair: 3, operation: KeyPairOperation::Change(parameters) }
        };
        pair.run(set(5, 4)).unwrap();
        pair.run(set(0, 4)).unwrap();
        pair.run(set(1, 4)).unwrap();
        pair.run(set(1, 0)).unwrap();
        pair.run(Command::SetKeyPair { key_pair: 3, operation: KeyPairOperation::Erase }).unwrap();
        for id in sessions {
            pair.requester.select(Some(id)).unwrap();
            let told: Vec<_> = heard(&mut pair).into_iter().map(|event| event.detail).collect();
            assert_eq!(told, vec![EventDetail::CertificateChanged(4); 3], "joined, used otherwise, left");
        }
    }
}

/// Events for a requester that takes none wait until it is gone.
#[test]
fn who_takes_no_requests_of_the_responder_hears_nothing() {
    let version = Version::V1_3;
    let mut pair = connected(notifying(version), slots(), requester_config(version));
    pair.start();
    pair.run(Command::Subscribe { groups: all() }).unwrap();
    for _ in 0..100 {
        change(&mut pair, "x");
    }
    assert_eq!(pair.fail(Command::Serve), Misuse::NotCapable("the responder's requests").into());
    pair.run(Command::EndSession { clear_negotiated_state: false }).unwrap();
}

/// A responder that announces no events may not ask about them, nor deliver any.
#[test]
fn events_are_for_responders_that_announce_them() {
    let version = Version::V1_3;
    let mut responder = notifying(version);
    responder.capabilities.events = false;
    let mut pair = connected(responder, slots(), listening(version));
    pair.start();
    for command in [Command::EventTypes, Command::Subscribe { groups: all() }] {
        let error: RequesterError = pair.fail(command);
        assert_eq!(error, Misuse::NotCapable("events").into());
    }
}

#[test]
fn a_changed_measurement_ends_the_sessions_whose_requester_wants_that() {
    for version in [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4] {
        for end_on_update in [false, true] {
            let mut pair = connected(notifying(version), slots(), listening(version));
            let id =
                pair.started(Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update });
            while pair.device.responder.poll_event().is_some() {}
            change(&mut pair, "x");
            let ended = Event::SessionEnded { id, reason: EndReason::FirmwareUpdated };
            let expected = (end_on_update && version >= Version::V1_2).then_some(ended);
            assert_eq!(pair.device.responder.poll_event(), expected, "{version}");
        }
    }
}
