//! Every request in every state: what is answered, and with which ERROR.

use super::device::*;
use crate::responder::*;
use crate::wire::*;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Start,
    Version,
    Capabilities,
    Negotiated,
    Handshake,
    Application,
}

const STATES: [State; 6] = [
    State::Start,
    State::Version,
    State::Capabilities,
    State::Negotiated,
    State::Handshake,
    State::Application,
];

fn device_in(state: State) -> (Device, Option<Client>) {
    let mut device = Device::new(Version::V1_2);
    match state {
        State::Start => {}
        State::Version => device.get_version(),
        State::Capabilities => {
            device.get_version();
            device.send(&device.capabilities_request());
        }
        State::Negotiated => device.negotiate(),
        State::Handshake => {
            device.negotiate();
            let client = device.begin();
            return (device, Some(client));
        }
        State::Application => {
            device.negotiate();
            let client = device.establish();
            return (device, Some(client));
        }
    }
    (device, None)
}

/// A well-formed request of each kind.
fn requests(device: &Device) -> Vec<(Code, Vec<u8>)> {
    let simple = |code: Code| (code, device.simple(code));
    let mut challenge = device.simple(Code::CHALLENGE);
    challenge.extend_from_slice(&[0; 32]);
    let mut finish = device.simple(Code::FINISH);
    finish.extend_from_slice(&[0; 32]);
    vec![
        (Code::GET_CAPABILITIES, device.capabilities_request()),
        (Code::NEGOTIATE_ALGORITHMS, device.algorithms_request()),
        simple(Code::GET_DIGESTS),
        (Code::GET_CERTIFICATE, vec![0x12, 0x82, 0, 0, 0, 0, 16, 0]),
        (Code::CHALLENGE, challenge),
        simple(Code::GET_MEASUREMENTS),
        (Code::KEY_EXCHANGE, device.key_exchange_request(&point(), SummaryType::None)),
        (Code::FINISH, finish),
        simple(Code::HEARTBEAT),
        (Code::KEY_UPDATE, vec![0x12, 0xE9, 1, 1]),
        simple(Code::END_SESSION),
        (Code::VENDOR_DEFINED_REQUEST, vendor_message(Version::V1_2, b"x")),
        simple(Code::CHUNK_GET),
        simple(Code::GET_CSR),
        simple(Code::PSK_EXCHANGE),
        simple(Code::RESPOND_IF_READY),
        simple(Code::DIGESTS),
        simple(Code(0xA0)),
        simple(Code(0)),
    ]
}

fn point() -> Vec<u8> {
    use crate::crypto::{DheGroup, Provider, RingProvider};
    RingProvider::new().start_exchange(DheGroup::P256).unwrap().public().to_vec()
}

/// What a request gets in clear: `None` for its response.
fn expected_clear(code: Code, state: State) -> Option<(ErrorCode, u8)> {
    const UNEXPECTED: Option<(ErrorCode, u8)> = Some((ErrorCode::UNEXPECTED_REQUEST, 0));
    let negotiated = !matches!(state, State::Start | State::Version | State::Capabilities);
    match code {
        Code::GET_CAPABILITIES => {
            if state == State::Version {
                None
            } else {
                UNEXPECTED
            }
        }
        Code::NEGOTIATE_ALGORITHMS => {
            if state == State::Capabilities {
                None
            } else {
                UNEXPECTED
            }
        }
        Code::GET_DIGESTS
        | Code::GET_CERTIFICATE
        | Code::CHALLENGE
        | Code::GET_MEASUREMENTS
        | Code::KEY_EXCHANGE
        | Code::VENDOR_DEFINED_REQUEST => {
            if negotiated {
                None
            } else {
                UNEXPECTED
            }
        }
        Code::FINISH | Code::HEARTBEAT | Code::KEY_UPDATE | Code::END_SESSION => {
            if negotiated {
                Some((ErrorCode::SESSION_REQUIRED, 0))
            } else {
                UNEXPECTED
            }
        }
        _ => Some((ErrorCode::UNSUPPORTED_REQUEST, code.0)),
    }
}

/// What a request gets inside a record.
fn expected_secured(code: Code, state: State) -> Option<(ErrorCode, u8)> {
    let unsupported =
        expected_clear(code, State::Start).filter(|error| error.0 == ErrorCode::UNSUPPORTED_REQUEST);
    if unsupported.is_some() {
        return unsupported;
    }
    let application = state == State::Application;
    match code {
        Code::GET_DIGESTS
        | Code::GET_CERTIFICATE
        | Code::GET_MEASUREMENTS
        | Code::HEARTBEAT
        | Code::KEY_UPDATE
        | Code::END_SESSION
        | Code::VENDOR_DEFINED_REQUEST
            if application =>
        {
            None
        }
        // The HMAC is wrong.
        Code::FINISH if !application => Some((ErrorCode::DECRYPT_ERROR, 0)),
        _ => Some((ErrorCode::UNEXPECTED_REQUEST, 0)),
    }
}

#[test]
fn every_request_in_the_clear_in_every_state() {
    let codes = requests(&Device::new(Version::V1_2)).len();
    for state in STATES {
        for at in 0..codes {
            let (mut device, _client) = device_in(state);
            let (code, request) = requests(&device).swap_remove(at);
            let response = device.send(&request);
            match expected_clear(code, state) {
                None => assert_eq!(response[1], code.0 & 0x7F, "{code:?} in {state:?}"),
                Some((error, data)) => {
                    let early = matches!(state, State::Start | State::Version);
                    let version = if early { 0x10 } else { 0x12 };
                    assert_eq!(response, [version, 0x7F, error.0, data], "{code:?} in {state:?}");
                }
            }
        }
    }
}

#[test]
fn every_request_in_a_session_in_both_phases() {
    let codes = requests(&Device::new(Version::V1_2)).len();
    for state in [State::Handshake, State::Application] {
        for at in 0..codes {
            let (mut device, client) = device_in(state);
            let mut client = client.unwrap();
            let (code, request) = requests(&device).swap_remove(at);
            let response = client.send(&mut device, &request);
            match expected_secured(code, state) {
                None => assert_eq!(response[1], code.0 & 0x7F, "{code:?} in {state:?}"),
                Some((error, data)) => {
                    assert_eq!(response, [0x12, 0x7F, error.0, data], "{code:?} in {state:?}");
                }
            }
        }
    }
}

#[test]
fn another_version_is_a_mismatch_wherever_one_is_agreed_on() {
    for state in [State::Negotiated, State::Handshake, State::Application] {
        let (mut device, mut client) = device_in(state);
        for (code, mut request) in requests(&device) {
            let known = expected_clear(code, State::Negotiated);
            let setup = matches!(code, Code::GET_CAPABILITIES | Code::NEGOTIATE_ALGORITHMS);
            if setup || known.is_some_and(|error| error.0 == ErrorCode::UNSUPPORTED_REQUEST) {
                continue;
            }
            for version in [0x11, 0x13] {
                request[0] = version;
                let mismatch = [0x12, 0x7F, ErrorCode::VERSION_MISMATCH.0, 0];
                assert_eq!(device.send(&request), mismatch, "{code:?} in {state:?}");
                if let Some(client) = &mut client {
                    assert_eq!(client.send(&mut device, &request), mismatch, "{code:?} in {state:?}");
                }
            }
        }
    }
}

#[test]
fn every_truncation_of_every_request_is_refused_and_harmless() {
    let (mut device, _) = device_in(State::Negotiated);
    for (code, request) in requests(&device) {
        for length in 4..request.len() {
            let response = device.send(&request[..length]);
            assert_eq!(response[1], Code::ERROR.0, "{code:?} cut to {length}");
        }
        for length in 0..4 {
            assert_eq!(device.try_send(&request[..length]), None);
        }
    }
    device.establish();
}

#[test]
fn a_request_beyond_the_transfer_size_is_too_large() {
    let (mut device, _) = device_in(State::Negotiated);
    let fits = vendor_message(Version::V1_2, &[0; 4608 - VendorDefined::OVERHEAD - 2]);
    device.transfer = 4608;
    assert_eq!(fits.len(), 4608);
    assert_ne!(device.error(&fits).0, ErrorCode::REQUEST_TOO_LARGE, "only the response is too large");
    let large = vendor_message(Version::V1_2, &[0; 4608 - VendorDefined::OVERHEAD - 1]);
    assert_eq!(device.error(&large), (ErrorCode::REQUEST_TOO_LARGE, 0));
}

#[test]
fn what_is_not_configured_is_not_supported() {
    type Change = fn(&mut Capability);
    let cases: &[(Change, &[Code])] = &[
        (|switch| switch.challenge = false, &[Code::CHALLENGE]),
        (
            |switch| switch.key_exchange = false,
            &[Code::KEY_EXCHANGE, Code::FINISH, Code::END_SESSION, Code::HEARTBEAT, Code::KEY_UPDATE],
        ),
        (|switch| switch.heartbeat = false, &[Code::HEARTBEAT]),
        (|switch| switch.key_update = false, &[Code::KEY_UPDATE]),
    ];
    for (change, codes) in cases {
        let mut config = config();
        change(&mut config.capabilities);
        let mut device = Device::with(config, Version::V1_2);
        device.negotiate();
        for &code in *codes {
            let request = device.simple(code);
            assert_eq!(device.error(&request), (ErrorCode::UNSUPPORTED_REQUEST, code.0));
        }
    }
    let mut device = Device::new(Version::V1_2);
    device.flags &= !(RequesterFlags::HBEAT | RequesterFlags::KEY_UPD);
    device.negotiate();
    let mut client = device.establish();
    assert_eq!(client.heartbeat, 0);
    for code in [Code::HEARTBEAT, Code::KEY_UPDATE] {
        let request = device.simple(code);
        assert_eq!(client.error(&mut device, &request), (ErrorCode::UNSUPPORTED_REQUEST, code.0));
    }
}

proptest::proptest! {
    /// Arbitrary messages, clear and in a session, get an answer of the agreed version or none, and never panic.
    #[test]
    fn arbitrary_messages_are_survived(
        messages in proptest::collection::vec(
            (0_usize..19, proptest::collection::vec((0_usize..160, 0_u8..), 0..4), 0_usize..8),
            1..12,
        ),
    ) {
        let (mut device, client) = device_in(State::Application);
        let mut client = client.unwrap();
        for (at, changes, cut) in messages {
            let mut request = requests(&device).swap_remove(at).1;
            for (offset, value) in changes {
                let length = request.len();
                request[offset % length] = value;
            }
            request.truncate(request.len().saturating_sub(cut));
            if let Some(response) = device.try_send(&request) {
                proptest::prop_assert!(response.len() >= 4 && response.len() <= 4096);
            }
            let record = client.seal(&request);
            let mut response = Vec::new();
            let _ = device.responder.handle_secured(device.now, &record, &mut device.vendor, &mut response);
        }
    }

    /// Arbitrary bytes as records.
    #[test]
    fn arbitrary_records_are_survived(record in proptest::collection::vec(0_u8.., 0..64), known in proptest::bool::ANY) {
        let (mut device, client) = device_in(State::Application);
        let client = client.unwrap();
        let mut record = record;
        if known && record.len() >= 4 {
            record[..4].copy_from_slice(&client.session.id().to_le_bytes());
        }
        let mut response = Vec::new();
        let answer = device.responder.handle_secured(device.now, &record, &mut device.vendor, &mut response);
        let expected = if known && record.len() >= 4 { Answer::Respond } else { Answer::Silent };
        proptest::prop_assert_eq!(answer, expected);
    }
}
