//! Several sessions on one connection.

use spdm::requester::{Command, MeasurementQuery, Misuse, RequesterError};
use spdm::responder::{EndReason, Event};
use spdm::wire::{Code, ErrorCode, MeasurementOperation, SummaryType, Version};

use super::pair::*;

const END: Command = Command::EndSession { clear_negotiated_state: false };

fn measure(operation: MeasurementOperation, signed: bool) -> Command {
    Command::Measurements(MeasurementQuery { operation, raw: false, signed_by: signed.then_some(0) })
}

#[test]
fn commands_travel_in_the_selected_session() {
    for version in VERSIONS {
        let mut pair = Pair::identified(version);
        let ids: Vec<_> = (0..4).map(|_| pair.start()).collect();
        let listed: Vec<_> = pair.requester.sessions().map(|info| info.id).collect();
        assert_eq!(listed, ids);
        assert_eq!(pair.requester.session().map(|info| info.id), Some(ids[3]), "the last one started");
        for at in [2, 0, 3, 1] {
            pair.exercise(ids[at]);
        }
        pair.requester.select(None).unwrap();
        assert_eq!(pair.seen_in(), None);
        pair.run(Command::Challenge { slot: 0, summary: SummaryType::All }).unwrap();

        pair.requester.select(Some(ids[1])).unwrap();
        pair.run(END).unwrap();
        assert!(pair.requester.session().is_none(), "nothing is selected behind an end");
        assert_eq!(pair.requester.select(Some(ids[1])), Err(Misuse::NoSession));
        let five = pair.start();
        for id in [ids[0], five, ids[3]] {
            pair.exercise(id);
        }
    }
}

#[test]
fn the_responders_limit_leaves_the_sessions_there_are() {
    let mut pair = Pair::identified(Version::V1_3);
    let ids: Vec<_> = (0..4).map(|_| pair.start()).collect();
    pair.requester.select(None).unwrap();
    let start = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
    let (request, code) = (Code::KEY_EXCHANGE, ErrorCode::SESSION_LIMIT_EXCEEDED);
    assert_eq!(pair.fail(start.clone()), RequesterError::Refused { request, code, data: 0 });
    for id in &ids {
        pair.exercise(*id);
    }
    assert_eq!(pair.fail(start), RequesterError::Misuse(Misuse::InSession));
}

#[test]
fn measurements_are_signed_per_session() {
    use MeasurementOperation::{All, Count, One};
    for version in VERSIONS {
        let mut pair = Pair::identified(version);
        let (one, two) = (pair.start(), pair.start());
        // Every place gathers a log of its own, while the others go on with theirs.
        for id in [Some(one), Some(two), None] {
            pair.requester.select(id).unwrap();
            pair.run(measure(Count, false)).unwrap();
        }
        for id in [Some(two), None, Some(one)] {
            pair.requester.select(id).unwrap();
            pair.run(measure(One(1), false)).unwrap();
        }
        for id in [None, Some(one), Some(two)] {
            pair.requester.select(id).unwrap();
            pair.run(measure(All, true)).unwrap();
        }
    }
}

#[test]
fn a_forgotten_session_is_the_only_one_that_ends() {
    let mut pair = Pair::identified(Version::V1_2);
    let (one, two) = (pair.start(), pair.start());
    for second in 1..=12 {
        pair.device.now = std::time::Duration::from_secs(second);
        pair.requester.select(Some(two)).unwrap();
        pair.run(Command::Heartbeat).unwrap();
    }
    assert_eq!(pair.events(), [Event::SessionEnded { id: one, reason: EndReason::HeartbeatLost }]);
    pair.exercise(two);
    pair.requester.select(Some(one)).unwrap();
    assert_eq!(pair.run(Command::Heartbeat), Err(Failure::Transport("silence")));
    pair.requester.select(Some(two)).unwrap();
    assert_eq!(pair.seen_in(), Some(two));
}

#[test]
fn the_selection_waits_for_the_command_under_way() {
    let mut pair = Pair::identified(Version::V1_3);
    let one = pair.start();
    pair.requester.begin(Command::Heartbeat).unwrap();
    assert_eq!(pair.requester.select(None), Err(Misuse::CommandInProgress));
    pair.requester.cancel();
    pair.requester.select(None).unwrap();
    assert_eq!(pair.fail(Command::Heartbeat), RequesterError::Misuse(Misuse::NoSession));
    assert!(pair.requester.save().is_none());
    pair.requester.select(Some(one)).unwrap();
    let saved = pair.requester.save().unwrap();
    assert_eq!(saved.id(), one);
}
