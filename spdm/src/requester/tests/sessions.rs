//! Sessions: started, used, updated, saved, ended.

use super::peer::{Peer, Suite, identify};
use crate::crypto::RingProvider;
use crate::requester::{
    Command, DriverError, MeasurementQuery, Misuse, Reply, Requester, RequesterError, RestoreError,
    SavedSession, Step, Trust, UpdateKeys, Violation,
};
use crate::wire::{
    Code, ContentChanged, MeasurementOperation, ResponderFlags, STANDARD_PCI_SIG, SummaryType, Version,
};

const ALL_SIGNED: MeasurementQuery =
    MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by: Some(0) };

#[test]
fn every_command_works_in_every_suite() {
    for suite in Suite::all() {
        let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
        let mut driver = peer.drive(&mut requester);
        let info = driver.connect().unwrap();
        assert_eq!(info.version, suite.version, "{suite:?}");
        assert_eq!((info.algorithms.hash, info.algorithms.signature), (suite.hash, Some(suite.asym)));
        let digests = driver.digests().unwrap();
        let found = driver.certificate(0).unwrap();
        assert_eq!(digests.of(0), Some(found.chain_digest.as_slice()));
        assert_eq!(found.trust, Trust::FirstUse);
        assert_eq!(found.chain.algorithm, suite.asym);
        let proof = driver.challenge(0, SummaryType::All).unwrap();
        assert_eq!(proof.summary.map(|summary| summary.len()), Some(suite.hash.size()));

        let report = driver.measurements(ALL_SIGNED).unwrap();
        assert_eq!(report.measurements.len(), 2);
        let says = suite.version >= Version::V1_2;
        let changed = if says { ContentChanged::Unchanged } else { ContentChanged::NotDetected };
        assert_eq!(report.signed, Some(changed));

        let session = driver.start_session(0, SummaryType::Tcb, true).unwrap();
        assert_eq!(session.id >> 16, 0xbeef);
        assert_eq!((session.heartbeat_period, session.secured_version), (30, Version::V1_1));
        assert!(session.summary.is_some());
        driver.heartbeat().unwrap();
        for keys in [UpdateKeys::Requests, UpdateKeys::Both, UpdateKeys::Both, UpdateKeys::Requests] {
            driver.update_keys(keys).unwrap();
            driver.heartbeat().unwrap();
        }
        assert_eq!(driver.vendor(STANDARD_PCI_SIG, &[1, 0], b"hello").unwrap(), b"hello");
        assert_eq!(driver.measurements(ALL_SIGNED).unwrap().measurements.len(), 2);
        driver.digests().unwrap();
        driver.certificate(0).unwrap();
        driver.end_session(false).unwrap();
        assert!(requester.session().is_none());
        assert!(requester.connection().is_some());
        // And once more on the same connection.
        let mut driver = peer.drive(&mut requester);
        driver.start_session(0, SummaryType::None, false).unwrap();
        driver.heartbeat().unwrap();
    }
}

#[test]
fn records_may_be_authenticated_only() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    peer.flags &= !ResponderFlags::ENCRYPT;
    let mut driver = peer.drive(&mut requester);
    identify(&mut driver);
    driver.start_session(0, SummaryType::None, false).unwrap();
    assert_eq!(driver.vendor(STANDARD_PCI_SIG, &[1, 0], b"plain to see").unwrap(), b"plain to see");
}

#[test]
fn one_signature_covers_the_measurements_before_it() {
    for suite in Suite::all() {
        let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
        let mut driver = peer.drive(&mut requester);
        identify(&mut driver);
        let query = |operation, signed_by| MeasurementQuery { operation, raw: true, signed_by };
        for _ in 0..2 {
            let count = driver.measurements(query(MeasurementOperation::Count, None)).unwrap();
            assert_eq!((count.total, count.signed), (Some(2), None));
            let one = driver.measurements(query(MeasurementOperation::One(1), None)).unwrap();
            assert_eq!(one.measurements[0].value, [0x11; 32]);
            driver.measurements(query(MeasurementOperation::One(2), Some(0))).unwrap();
        }
    }
}

#[test]
fn a_session_goes_on_where_it_was_saved() {
    for suite in Suite::all() {
        let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
        let mut driver = peer.drive(&mut requester);
        identify(&mut driver);
        let started = driver.start_session(0, SummaryType::None, false).unwrap();
        driver.update_keys(UpdateKeys::Both).unwrap();
        driver.heartbeat().unwrap();
        for _ in 0..3 {
            let text = serde_json::to_string(&requester.save().unwrap()).unwrap();
            let saved: SavedSession = serde_json::from_str(&text).unwrap();
            assert_eq!(saved.id(), started.id);
            requester = suite.requester();
            requester.restore(&saved).unwrap();
            assert_eq!(requester.session(), Some(&started));
            let mut driver = peer.drive(&mut requester);
            driver.vendor(STANDARD_PCI_SIG, &[1, 0], b"again").unwrap();
            driver.measurements(ALL_SIGNED).unwrap();
            driver.update_keys(UpdateKeys::Requests).unwrap();
        }
        peer.drive(&mut requester).end_session(true).unwrap();
        assert!(requester.save().is_none());
    }
}

#[test]
fn saved_sessions_show_no_keys_and_must_be_consistent() {
    let suite = Suite::SMALL;
    let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
    let mut driver = peer.drive(&mut requester);
    identify(&mut driver);
    driver.start_session(0, SummaryType::None, false).unwrap();
    let saved = requester.save().unwrap();
    assert!(format!("{saved:?}").contains("Secret(32 bytes)"));
    assert!(!format!("{requester:?}").contains("iv"));

    let json = serde_json::to_value(&saved).unwrap();
    for (pointer, value) in [
        ("/version", serde_json::json!(0x12)),
        ("/session/parameters/role", serde_json::json!("Responder")),
        ("/session/parameters/hash", serde_json::json!("sha384")),
        ("/algorithms/aead", serde_json::json!("aes-256-gcm")),
        ("/peers/0/slot", serde_json::json!(8)),
        ("/peers/0/chain_digest", serde_json::json!([1, 2, 3])),
    ] {
        let mut changed = json.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let changed: SavedSession = serde_json::from_value(changed).unwrap();
        let result = suite.requester().restore(&changed);
        assert!(matches!(result, Err(RestoreError::Inconsistent(_))), "{pointer}");
    }
}

#[test]
fn nothing_is_saved_in_the_middle_of_a_command() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    let mut driver = peer.drive(&mut requester);
    identify(&mut driver);
    assert!(requester.save().is_none());
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    let Step::Send { secured: true, bytes } = requester.begin(Command::Heartbeat).unwrap() else {
        panic!("not a secured message")
    };
    assert!(requester.save().is_none());
    let response = peer.answer(true, &bytes);
    assert_eq!(requester.receive(true, &response.bytes), Ok(Step::Done(Reply::Alive)));
    assert!(requester.save().is_some());
}

#[test]
fn an_acknowledgement_of_new_keys_under_the_old_one_is_refused() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    peer.stale = true;
    let error = peer.drive(&mut requester).update_keys(UpdateKeys::Both).unwrap_err();
    let expected = RequesterError::Violation { request: Code::KEY_UPDATE, violation: Violation::OldKey };
    assert_eq!(error, DriverError::Requester(expected));
}

#[test]
fn commands_out_of_turn_change_nothing() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    let misuse = |requester: &mut Requester, command| match requester.begin(command) {
        Err(RequesterError::Misuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let session = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
    let challenge = Command::Challenge { slot: 0, summary: SummaryType::None };
    let end = Command::EndSession { clear_negotiated_state: false };
    let vendor = |payload| Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload };
    for command in [Command::Digests, Command::Certificate { slot: 0 }, session.clone(), vendor(vec![])] {
        assert_eq!(misuse(&mut requester, command), Misuse::NotConnected);
    }
    assert_eq!(requester.receive(false, &[]), Err(Misuse::NoCommand.into()));
    assert_eq!(requester.retry(), Err(Misuse::NoCommand.into()));

    requester.begin(Command::Connect).unwrap();
    assert_eq!(misuse(&mut requester, Command::Connect), Misuse::CommandInProgress);
    assert_eq!(requester.retry(), Err(Misuse::WrongTurn.into()));
    requester.cancel();

    peer.drive(&mut requester).connect().unwrap();
    assert_eq!(misuse(&mut requester, session.clone()), Misuse::NoCertificate(0));
    assert_eq!(misuse(&mut requester, challenge.clone()), Misuse::NoCertificate(0));
    assert_eq!(misuse(&mut requester, Command::Measurements(ALL_SIGNED)), Misuse::NoCertificate(0));
    assert_eq!(misuse(&mut requester, Command::Certificate { slot: 8 }), Misuse::OutOfRange("slot"));
    assert_eq!(misuse(&mut requester, Command::Heartbeat), Misuse::NoSession);
    assert_eq!(misuse(&mut requester, end), Misuse::NoSession);
    for index in [0, 255] {
        let operation = MeasurementOperation::One(index);
        let query = MeasurementQuery { operation, raw: false, signed_by: None };
        assert!(matches!(misuse(&mut requester, Command::Measurements(query)), Misuse::OutOfRange(_)));
    }
    let long = misuse(&mut requester, vendor(vec![0; 0x1000]));
    assert_eq!(long, Misuse::TooLong { length: 0x1000 + 11, limit: 0x1000 });

    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    assert_eq!(misuse(&mut requester, session), Misuse::InSession);
    assert_eq!(misuse(&mut requester, challenge), Misuse::InSession);
    peer.drive(&mut requester).heartbeat().unwrap();
}

#[test]
fn capabilities_that_are_missing_are_not_used() {
    use ResponderFlags as F;
    let suite = Suite::SMALL;
    let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
    peer.flags &= !(F::CHAL | F::HBEAT | F::KEY_UPD);
    peer.tamper = Box::new(|code, response| {
        if code == Code::KEY_EXCHANGE_RSP {
            response[2] = 0;
        }
    });
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    for command in [Command::Heartbeat, Command::UpdateKeys(UpdateKeys::Both)] {
        assert!(matches!(requester.begin(command), Err(RequesterError::Misuse(Misuse::NotCapable(_)))));
    }
    let config = crate::requester::RequesterConfig { heartbeat: false, ..suite.config() };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    let mut peer = Peer::new(suite);
    identify(&mut peer.drive(&mut requester));
    let result = peer.drive(&mut requester).start_session(0, SummaryType::None, false);
    assert!(result.is_err(), "a heartbeat period for a requester without heartbeats");
    assert!(requester.session().is_none());
}
