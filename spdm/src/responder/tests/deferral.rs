//! Answers that take their time.

use core::time::Duration;

use super::device::*;
use crate::codec::Reader;
use crate::responder::*;
use crate::transcript::SigningContext;
use crate::wire::*;

/// 1,024 microseconds.
const EXPONENT: u8 = 10;
const TIME: Duration = Duration::from_micros(1 << EXPONENT);

fn device(version: Version, delays: &[(Code, Wait)]) -> Device {
    let delay = |&(request, wait): &(Code, Wait)| Delay { request, wait, exponent: EXPONENT };
    let delays = delays.iter().map(delay).collect();
    let mut device = Device::with(ResponderConfig { versions: vec![version], delays, ..config() }, version);
    device.negotiate();
    device
}

/// The token of ERROR ResponseNotReady for this request.
fn token(response: &[u8], request: Code) -> u8 {
    let error = ErrorResponse::parse(&mut Reader::new(response)).unwrap();
    assert_eq!((error.code, error.data, response.len()), (ErrorCode::RESPONSE_NOT_READY, 0, 8));
    let not_ready = error.not_ready().unwrap();
    assert_eq!((not_ready.exponent, not_ready.request, not_ready.multiplier), (EXPONENT, request, 255));
    not_ready.token
}

fn fetch(version: Version, request: Code, token: u8) -> Vec<u8> {
    encoded(|out| RespondIfReady { version, request, token }.encode(out))
}

#[test]
fn a_busy_responder_answers_when_its_time_has_come() {
    let version = Version::V1_2;
    let mut device = device(version, &[(Code::GET_DIGESTS, Wait::Busy)]);
    let digests = device.simple(Code::GET_DIGESTS);
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(device.error(&digests), (ErrorCode::BUSY, 0));
        }
        device.now += TIME - Duration::from_nanos(1);
        assert_eq!(device.error(&digests), (ErrorCode::BUSY, 0));
        let other = vendor_message(version, b"x");
        assert_eq!(device.send(&other)[1], Code::VENDOR_DEFINED_RESPONSE.0, "busy with one request only");
        device.now += Duration::from_nanos(1);
        assert_eq!(device.send(&digests)[1], Code::DIGESTS.0, "and busy anew when it comes again");
    }
    device.send(&digests);
    device.negotiate();
    assert_eq!(device.error(&digests), (ErrorCode::BUSY, 0), "GET_VERSION begins anew");
}

#[test]
fn negotiation_may_meet_a_busy_responder() {
    let wait = |request| Delay { request, wait: Wait::Busy, exponent: EXPONENT };
    let delays = vec![wait(Code::GET_CAPABILITIES), wait(Code::NEGOTIATE_ALGORITHMS)];
    let mut device = Device::with(ResponderConfig { delays, ..config() }, Version::V1_2);
    device.get_version();
    for request in [device.capabilities_request(), device.algorithms_request()] {
        assert_eq!(device.error(&request), (ErrorCode::BUSY, 0));
        device.now += TIME;
        assert_eq!(device.send(&request)[1], request[1] & 0x7F);
    }
}

#[test]
fn a_deferred_response_is_fetched_with_its_token() {
    let version = Version::V1_3;
    let code = Code::GET_DIGESTS;
    let mut device = device(version, &[(code, Wait::NotReady)]);
    assert_eq!(device.error(&fetch(version, code, 0)), (ErrorCode::UNEXPECTED_REQUEST, 0), "nothing yet");
    let digests = device.simple(code);
    for _ in 0..2 {
        let response = device.send(&digests);
        let first = token(&response, code);
        assert_eq!(device.send(&fetch(version, code, first)), response, "too early");
        let invalid = (ErrorCode::INVALID_REQUEST, 0);
        assert_eq!(device.error(&fetch(version, code, first + 1)), invalid);
        assert_eq!(device.error(&fetch(version, Code::CHALLENGE, first)), invalid);
        assert_eq!(device.error(&fetch(Version::V1_2, code, first)), (ErrorCode::VERSION_MISMATCH, 0));
        device.now += TIME;
        assert_eq!(device.error(&fetch(version, code, first + 1)), invalid, "still there");
        assert_eq!(device.send(&fetch(version, code, first))[1], Code::DIGESTS.0);
        let unexpected = (ErrorCode::UNEXPECTED_REQUEST, 0);
        assert_eq!(device.error(&fetch(version, code, first)), unexpected, "once");
    }
}

#[test]
fn another_request_is_not_kept_waiting() {
    let (version, code) = (Version::V1_2, Code::GET_DIGESTS);
    let mut device = device(version, &[(code, Wait::NotReady)]);
    let digests = device.simple(code);
    let unexpected = (ErrorCode::UNEXPECTED_REQUEST, 0);
    let first = token(&device.send(&digests), code);
    assert_eq!(device.send(&vendor_message(version, b"x"))[1], Code::VENDOR_DEFINED_RESPONSE.0);
    device.now += TIME;
    assert_eq!(device.error(&fetch(version, code, first)), unexpected, "forgotten");

    let first = token(&device.send(&digests), code);
    let second = token(&device.send(&digests), code);
    assert_ne!(first, second);
    device.now += TIME;
    assert_eq!(device.error(&fetch(version, code, first)), (ErrorCode::INVALID_REQUEST, 0));
    assert_eq!(device.send(&fetch(version, code, second))[1], Code::DIGESTS.0);

    let third = token(&device.send(&digests), code);
    device.negotiate();
    device.now += TIME;
    assert_eq!(device.error(&fetch(version, code, third)), unexpected, "GET_VERSION forgets it");
    let fourth = token(&device.send(&digests), code);
    let mut client = device.establish();
    device.now += TIME;
    let request = fetch(version, code, fourth);
    assert_eq!(client.error(&mut device, &request), unexpected, "another session's");
}

#[test]
fn what_is_out_of_order_does_not_wait() {
    let delays = [Code::HEARTBEAT, Code::KEY_EXCHANGE].map(|code| (code, Wait::NotReady));
    let mut device = device(Version::V1_2, &delays);
    assert_eq!(device.error(&device.simple(Code::HEARTBEAT).clone()), (ErrorCode::SESSION_REQUIRED, 0));
    assert_eq!(device.error(&[0x13, 0xE4, 0, 0]), (ErrorCode::VERSION_MISMATCH, 0));
}

/// In the transcript stands the request as it came first, in front of the response that came last.
#[test]
fn a_challenge_may_wait() {
    let version = Version::V1_2;
    let mut device = device(version, &[(Code::CHALLENGE, Wait::NotReady)]);
    let challenge = encoded(|out| {
        Challenge { version, slot: 0, summary: SummaryType::None, nonce: [1; 32], context: None }.encode(out);
    });
    let token = token(&device.send(&challenge), Code::CHALLENGE);
    device.now += TIME;
    let response = device.send(&fetch(version, Code::CHALLENGE, token));
    let (unsigned, signature) = response.split_at(response.len() - SIGNATURE_SIZE);
    assert!(device.verify(SigningContext::ChallengeAuth, &[&challenge, unsigned], signature));
}

#[test]
fn some_requests_never_wait() {
    let legal = |request, wait, exponent| {
        let delays = vec![Delay { request, wait, exponent }];
        Device::try_with(ResponderConfig { delays, ..config() }).is_ok()
    };
    for code in [Code::GET_VERSION, Code::RESPOND_IF_READY, Code::CHUNK_SEND, Code::CHUNK_GET] {
        assert!(!legal(code, Wait::Busy, 0) && !legal(code, Wait::NotReady, 0), "{code:?}");
    }
    for code in [Code::GET_CAPABILITIES, Code::NEGOTIATE_ALGORITHMS] {
        assert!(legal(code, Wait::Busy, 0) && !legal(code, Wait::NotReady, 0), "{code:?}");
    }
    assert!(legal(Code::FINISH, Wait::NotReady, 31) && !legal(Code::FINISH, Wait::NotReady, 32));
}
