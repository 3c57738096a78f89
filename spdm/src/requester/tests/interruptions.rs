//! Responders that are busy, late, or refuse.

use core::time::Duration;

use super::peer::{Peer, Suite, identify};
use crate::requester::{
    Command, DriverError, MeasurementQuery, Reply, Requester, RequesterError, Step, UpdateKeys, Violation,
};
use crate::wire::{
    Code, ErrorCode, ErrorResponse, MeasurementOperation, NotReady, STANDARD_PCI_SIG, SummaryType, Version,
};

const VERSION: Version = Suite::SMALL.version;

fn error(code: ErrorCode, extended: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ErrorResponse { version: VERSION, code, data: 0, extended }.encode(&mut out);
    out
}

fn not_ready(request: Code, exponent: u8, multiplier: u8) -> Vec<u8> {
    let not_ready = NotReady { exponent, request, token: 5, multiplier };
    error(ErrorCode::RESPONSE_NOT_READY, &not_ready.bytes())
}

fn identified() -> (Peer, Requester) {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    identify(&mut peer.drive(&mut requester));
    (peer, requester)
}

fn in_session() -> (Peer, Requester) {
    let (mut peer, mut requester) = identified();
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    (peer, requester)
}

#[test]
fn a_busy_responder_is_asked_again() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    let busy = || error(ErrorCode::BUSY, &[]);
    peer.interject.extend([busy(), busy()]);
    identify(&mut peer.drive(&mut requester));
    peer.interject.push_back(busy());
    peer.drive(&mut requester).challenge(0, SummaryType::None).unwrap();
    peer.interject.push_back(busy());
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    peer.interject.push_back(busy());
    peer.drive(&mut requester).heartbeat().unwrap();
    for keys in [UpdateKeys::Requests, UpdateKeys::Both] {
        peer.interject.push_back(busy());
        peer.drive(&mut requester).update_keys(keys).unwrap();
    }
    assert_eq!(peer.waits, [Duration::from_millis(50); 7]);
}

#[test]
fn patience_ends() {
    let (mut peer, mut requester) = identified();
    peer.interject.extend((0..21).map(|_| error(ErrorCode::BUSY, &[])));
    let result = peer.drive(&mut requester).digests();
    let expected = RequesterError::OutOfPatience { request: Code::GET_DIGESTS };
    assert_eq!(result, Err(DriverError::Requester(expected)));
    assert_eq!(peer.waits.len(), 20);
    peer.drive(&mut requester).digests().unwrap();
}

#[test]
fn a_late_response_is_fetched() {
    let (mut peer, mut requester) = identified();
    // In clear: what is fetched counts as the answer to the original request, in the transcript too.
    let Step::Send { bytes, .. } =
        requester.begin(Command::Challenge { slot: 0, summary: SummaryType::None }).unwrap()
    else {
        panic!()
    };
    let step = requester.receive(false, &not_ready(Code::CHALLENGE, 3, 2)).unwrap();
    assert_eq!(step, Step::RetryAfter(Duration::from_micros(8)));
    assert!(requester.receive(false, &[]).is_err(), "received in the middle of a wait");
    let fetch = vec![VERSION.0, Code::RESPOND_IF_READY.0, Code::CHALLENGE.0, 5];
    assert_eq!(requester.retry(), Ok(Step::Send { secured: false, bytes: fetch.clone() }));
    let step = requester.receive(false, &not_ready(Code::CHALLENGE, 4, 2)).unwrap();
    assert_eq!(step, Step::RetryAfter(Duration::from_micros(16)));
    requester.retry().unwrap();
    let response = peer.answer(false, &bytes).bytes;
    assert!(matches!(requester.receive(false, &response), Ok(Step::Done(Reply::Challenged(_)))));

    // In a session the question travels secured, too.
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    let Step::Send { secured: true, bytes } = requester.begin(Command::Heartbeat).unwrap() else { panic!() };
    peer.interject.push_back(not_ready(Code::HEARTBEAT, 3, 2));
    let response = peer.answer(true, &bytes).bytes;
    assert!(matches!(requester.receive(true, &response), Ok(Step::RetryAfter(_))));
    let Ok(Step::Send { secured: true, bytes }) = requester.retry() else { panic!() };
    peer.interject.push_back(vec![VERSION.0, Code::HEARTBEAT_ACK.0, 0, 0]);
    let response = peer.answer(true, &bytes).bytes;
    assert_eq!(peer.seen.last(), Some(&Code::RESPOND_IF_READY));
    assert_eq!(requester.receive(true, &response), Ok(Step::Done(Reply::Alive)));
}

#[test]
fn not_ready_has_rules() {
    for (response, expected) in [
        (not_ready(Code::CHALLENGE, 3, 2), Violation::NotReady),
        (not_ready(Code::GET_DIGESTS, 3, 1), Violation::NotReady),
        (not_ready(Code::GET_DIGESTS, 32, 2), Violation::NotReady),
        (not_ready(Code::GET_DIGESTS, 255, 2), Violation::NotReady),
        (not_ready(Code::GET_DIGESTS, 31, 2), Violation::Delay(Duration::from_micros(1 << 31))),
    ] {
        let (mut peer, mut requester) = identified();
        peer.interject.push_back(response);
        let result = peer.drive(&mut requester).digests();
        let error = RequesterError::Violation { request: Code::GET_DIGESTS, violation: expected };
        assert_eq!(result, Err(DriverError::Requester(error)));
        peer.drive(&mut requester).digests().unwrap();
    }
    let (mut peer, mut requester) = identified();
    let request = Code::GET_VERSION;
    peer.interject.push_back(not_ready(request, 3, 2));
    let result = peer.drive(&mut requester).connect();
    let error = RequesterError::Violation { request, violation: Violation::NotReady };
    assert_eq!(result, Err(DriverError::Requester(error)));
}

#[test]
fn a_refusal_names_the_code_and_ends_the_command_only() {
    for code in [ErrorCode::UNEXPECTED_REQUEST, ErrorCode::UNSUPPORTED_REQUEST, ErrorCode(0xab)] {
        let (mut peer, mut requester) = in_session();
        peer.interject.push_back(error(code, &[]));
        let result = peer.drive(&mut requester).vendor(STANDARD_PCI_SIG, &[1, 0], b"");
        let request = Code::VENDOR_DEFINED_REQUEST;
        let expected = RequesterError::Refused { request, code, data: 0 };
        assert_eq!(result, Err(DriverError::Requester(expected)));
        peer.drive(&mut requester).heartbeat().unwrap();
    }
}

#[test]
fn some_refusals_end_more() {
    let (mut peer, mut requester) = in_session();
    peer.interject.push_back(error(ErrorCode::DECRYPT_ERROR, &[]));
    peer.drive(&mut requester).heartbeat().unwrap_err();
    assert!(requester.session().is_none());
    assert!(requester.connection().is_some());

    let (mut peer, mut requester) = in_session();
    peer.interject.push_back(error(ErrorCode::REQUEST_RESYNCH, &[]));
    peer.drive(&mut requester).heartbeat().unwrap_err();
    assert!(requester.session().is_none());
    assert!(requester.connection().is_none());
}

#[test]
fn a_refused_key_update_leaves_the_old_keys_in_use() {
    for keys in [UpdateKeys::Requests, UpdateKeys::Both] {
        let (mut peer, mut requester) = in_session();
        peer.interject.push_back(error(ErrorCode::UNSPECIFIED, &[]));
        peer.drive(&mut requester).update_keys(keys).unwrap_err();
        peer.drive(&mut requester).heartbeat().unwrap();
        assert!(requester.save().is_some());
        peer.drive(&mut requester).update_keys(keys).unwrap();
        peer.drive(&mut requester).heartbeat().unwrap();
    }
}

#[test]
fn an_unprotected_error_cannot_end_a_session() {
    let (mut peer, mut requester) = in_session();
    let Step::Send { bytes, .. } = requester.begin(Command::Heartbeat).unwrap() else { panic!() };
    let code = ErrorCode::DECRYPT_ERROR;
    let result = requester.receive(false, &error(code, &[]));
    let expected =
        RequesterError::Violation { request: Code::HEARTBEAT, violation: Violation::UnprotectedError(code) };
    assert_eq!(result, Err(expected));
    assert!(requester.session().is_some());
    // The genuine answer comes later than the forged one and is lost with its command: nothing waits for it.
    let late = peer.answer(true, &bytes).bytes;
    assert!(requester.receive(true, &late).is_err());
}

#[test]
fn a_refused_measurement_starts_the_log_again() {
    let (mut peer, mut requester) = identified();
    let query = |operation, signed_by| MeasurementQuery { operation, raw: false, signed_by };
    let mut driver = peer.drive(&mut requester);
    driver.measurements(query(MeasurementOperation::Count, None)).unwrap();
    driver.transport().interject.push_back(error(ErrorCode::UNSPECIFIED, &[]));
    driver.measurements(query(MeasurementOperation::One(77), None)).unwrap_err();
    driver.measurements(query(MeasurementOperation::All, Some(0))).unwrap();
}

/// Found with libspdm 3.6: BUSY is an error like any other to L1/L2, although the command goes on.
#[test]
fn a_busy_responder_forgets_the_measurements_before() {
    let (mut peer, mut requester) = identified();
    let query = |operation, signed_by| MeasurementQuery { operation, raw: false, signed_by };
    let mut driver = peer.drive(&mut requester);
    driver.measurements(query(MeasurementOperation::Count, None)).unwrap();
    driver.transport().interject.push_back(error(ErrorCode::BUSY, &[]));
    driver.measurements(query(MeasurementOperation::All, Some(0))).unwrap();
}

#[test]
fn an_abandoned_handshake_leaves_no_session() {
    let (mut peer, mut requester) = identified();
    let start = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
    let Step::Send { bytes, .. } = requester.begin(start).unwrap() else { panic!() };
    let response = peer.answer(false, &bytes).bytes;
    assert!(matches!(requester.receive(false, &response), Ok(Step::Send { secured: true, .. })));
    assert!(requester.session().is_none());
    requester.cancel();
    peer.drive(&mut requester).challenge(0, SummaryType::None).unwrap_err();
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
}
