//! What a session ends by beside END_SESSION: keys that are used up, and handshakes that nobody finishes.

use std::time::Duration;

use spdm::requester::{Command, RequesterError, Step, UpdateKeys};
use spdm::responder::{EndReason, Event};
use spdm::secured::RecordError;
use spdm::wire::{SummaryType, Version};

use super::pair::*;

const START: Command = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };

/// Connected; both sides stop a key at their limit.
fn limited(version: Version, theirs: u64, ours: u64) -> Pair {
    let mut responder = responder_config(version);
    let mut requester = requester_config(version);
    (responder.sequence_limit, requester.sequence_limit) = (theirs, ours);
    let mut pair = Pair::with(responder, slots(), requester);
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

#[test]
fn a_key_that_is_used_up_ends_its_session_at_the_requester() {
    for version in VERSIONS {
        let mut pair = limited(version, u64::MAX, 3);
        let (one, two) = (pair.start(), pair.start());
        for _ in 0..3 {
            pair.run(Command::Heartbeat).unwrap();
        }
        assert_eq!(pair.fail(Command::Heartbeat), RequesterError::Record(RecordError::Exhausted));
        assert!(pair.requester.session().is_none());
        assert_eq!(pair.requester.sessions().map(|info| info.id).collect::<Vec<_>>(), [one]);
        assert!(pair.requester.select(Some(two)).is_err());
        pair.requester.select(Some(one)).unwrap();
        assert_eq!(pair.seen_in(), Some(one));
    }
}

#[test]
fn a_key_that_is_used_up_ends_its_session_at_the_responder() {
    for version in VERSIONS {
        let mut pair = limited(version, 3, u64::MAX);
        let (one, two) = (pair.start(), pair.start());
        for _ in 0..3 {
            pair.run(Command::Heartbeat).unwrap();
        }
        assert_eq!(pair.run(Command::Heartbeat), Err(Failure::Transport("silence")));
        assert_eq!(pair.events(), [Event::SessionEnded { id: two, reason: EndReason::Exhausted }]);
        pair.requester.select(Some(one)).unwrap();
        assert_eq!(pair.seen_in(), Some(one));
    }
}

#[test]
fn new_keys_begin_anew() {
    for version in VERSIONS {
        let mut pair = limited(version, 4, 4);
        let id = pair.start();
        for _ in 0..20 {
            assert_eq!(pair.seen_in(), Some(id));
            pair.run(Command::UpdateKeys(UpdateKeys::Both)).unwrap();
        }
        // The responder's key is not renewed with the requester's: it is used up soon.
        pair.run(Command::UpdateKeys(UpdateKeys::Requests)).unwrap();
        assert_eq!(pair.run(Command::Heartbeat), Err(Failure::Transport("silence")));
        assert_eq!(pair.events(), [Event::SessionEnded { id, reason: EndReason::Exhausted }]);
    }
}

#[test]
fn abandoned_handshakes_make_room_in_time() {
    let mut pair = Pair::identified(Version::V1_3);
    for _ in 0..4 {
        let Step::Send { bytes, .. } = pair.requester.begin(START).unwrap() else { panic!() };
        let (secured, response) = pair.device.ask(false, &bytes).unwrap();
        assert!(matches!(pair.requester.receive(secured, &response), Ok(Step::Send { secured: true, .. })));
        pair.requester.cancel();
    }
    assert!(matches!(pair.fail(START), RequesterError::Refused { .. }));
    pair.device.now = Duration::from_secs(300);
    let id = pair.started(START);
    pair.exercise(id);
    assert_eq!(pair.requester.sessions().count(), 1);
}
