//! What 1.0 and 1.1 do not have, and how the responder says so.

use super::device::*;
use crate::codec::Reader;
use crate::transcript::SigningContext;
use crate::wire::*;

#[test]
fn capabilities_are_those_of_the_version() {
    use ResponderFlags as F;
    let attestation = F::CERT | F::CHAL | F::MEAS_SIG | F::MEAS_FRESH;
    let sessions = F::ENCRYPT | F::MAC | F::KEY_EX | F::HBEAT | F::KEY_UPD;
    for (version, flags, requested) in
        [(Version::V1_0, attestation, 4), (Version::V1_1, attestation | sessions, 12)]
    {
        let mut configuration = config();
        configuration.versions = vec![version];
        configuration.capabilities.alias_certificates = true;
        let mut device = Device::with(configuration, version);
        device.get_version();
        let request = device.capabilities_request();
        assert_eq!(request.len(), requested);
        let response = device.send(&request);
        assert_eq!(response.len(), 12);
        let parsed = Capabilities::parse(&mut Reader::new(&response)).unwrap();
        assert_eq!(parsed.flags, ResponderFlags(flags), "{version}");
    }
}

#[test]
fn mutual_authentication_needs_encapsulation_in_1_1() {
    use RequesterFlags as F;
    for (version, flags, legal) in [
        (Version::V1_1, ALL_FLAGS | F::MUT_AUTH, false),
        (Version::V1_1, ALL_FLAGS | F::MUT_AUTH | F::ENCAP, true),
        (Version::V1_2, ALL_FLAGS | F::MUT_AUTH, true),
        (Version::V1_1, F::MAC, false),
        (Version::V1_1, 0, true),
    ] {
        let mut device = Device::new(version);
        device.get_version();
        device.flags = flags;
        let response = device.send(&device.capabilities_request());
        let expected = if legal { Code::CAPABILITIES } else { Code::ERROR };
        assert_eq!(response[1], expected.0, "{version} {flags:#x}");
    }
}

#[test]
fn algorithms_of_1_0_have_no_tables() {
    let mut device = Device::new(Version::V1_0);
    device.get_version();
    device.send(&device.capabilities_request());
    let request = device.algorithms_request();
    assert_eq!(request.len(), 32);
    let response = device.send(&request);
    assert_eq!(response.len(), 36);
    let parsed = Algorithms::parse(&mut Reader::new(&response)).unwrap();
    assert_eq!((parsed.tables, parsed.other_params), (AlgorithmTables::default(), 0));
}

#[test]
fn opaque_formats_are_not_negotiated_in_1_1() {
    let mut device = Device::negotiated(Version::V1_1);
    device.establish();
    // The general form of 1.2 is not that of 1.1.
    let point = vec![0x44; 64];
    let request = device.key_exchange_request(&point, SummaryType::None);
    let mut general = request[..104].to_vec();
    general.extend_from_slice(&[16, 0, 1, 0, 0, 0, 0, 0, 5, 0, 1, 1, 1, 0, 0x11, 0, 0, 0]);
    assert_eq!(device.error(&general), (ErrorCode::INVALID_REQUEST, 0));
}

#[test]
fn sessions_do_not_exist_in_1_0() {
    let mut device = Device::negotiated(Version::V1_0);
    for code in [Code::KEY_EXCHANGE, Code::FINISH, Code::HEARTBEAT, Code::KEY_UPDATE, Code::END_SESSION] {
        let request = device.simple(code);
        assert_eq!(device.error(&request), (ErrorCode::UNSUPPORTED_REQUEST, code.0));
    }
    let vendor = vendor_message(Version::V1_0, b"abc");
    assert_eq!(device.send(&vendor)[..2], [0x10, Code::VENDOR_DEFINED_RESPONSE.0]);
}

#[test]
fn errors_that_came_later_are_unspecified() {
    let unspecified = (ErrorCode::UNSPECIFIED, 0);
    let mut device = Device::negotiated(Version::V1_1);
    for code in [Code::HEARTBEAT, Code::END_SESSION, Code::FINISH] {
        let request = device.simple(code);
        assert_eq!(device.error(&request), unspecified, "{code:?} without a session");
    }
    let large = vec![0x11; 5000];
    assert_eq!(device.error(&large), unspecified, "no RequestTooLarge");
}

/// Before 1.2 nobody says how much it can receive.
#[test]
fn no_response_is_too_large_before_1_2() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::new(version);
        device.transfer = 64;
        device.negotiate();
        let offset_and_length = [0, 0, 0xFF, 0xFF];
        let request = [&device.simple(Code::GET_CERTIFICATE)[..], &offset_and_length].concat();
        let response = device.send(&request);
        let portion = Certificate::parse(&mut Reader::new(&response)).unwrap().portion.len();
        let expected = if version < Version::V1_2 { device.chain().len() } else { 64 - 8 };
        assert_eq!(portion, expected, "{version}");
    }
}

/// Signatures before 1.2 need all messages, which a requester may repeat as often as it likes.
#[test]
fn a_transcript_that_grows_without_end_cannot_be_signed_until_it_begins_again() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::negotiated(version);
        let portion = [&device.simple(Code::GET_CERTIFICATE)[..], &[0, 0, 0xFF, 0xFF]].concat();
        for _ in 0..0x2_0000 / device.chain().len() + 1 {
            device.send(&portion);
        }
        let mut challenge = [&device.simple(Code::CHALLENGE)[..], &[0x66; 32]].concat();
        if version >= Version::V1_3 {
            challenge.extend_from_slice(&[0x77; 8]);
        }
        let response = device.send(&challenge);
        if version < Version::V1_2 {
            assert_eq!(response, [version.0, Code::ERROR.0, ErrorCode::UNSPECIFIED.0, 0]);
        } else {
            assert_eq!(response[1], Code::CHALLENGE_AUTH.0);
        }
        let digests = device.simple(Code::GET_DIGESTS);
        let list = device.send(&digests);
        let response = device.send(&challenge);
        let (signed, signature) = response.split_at(response.len() - SIGNATURE_SIZE);
        let parts = [&digests[..], &list, &challenge, signed];
        assert!(device.verify(SigningContext::ChallengeAuth, &parts, signature), "{version}");
    }
}
