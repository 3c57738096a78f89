//! GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS, and configurations that cannot work.

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, RingProvider};
use crate::responder::*;
use crate::slot::Slots;
use crate::wire::*;

const RECENT: [Version; 3] = [Version::V1_2, Version::V1_3, Version::V1_4];

#[test]
fn version_lists_what_is_configured() {
    let mut device = Device::new(Version::V1_2);
    assert_eq!(device.send(&[0x10, 0x84, 0, 0]), [0x10, 4, 0, 0, 0, 3, 0, 0x12, 0, 0x13, 0, 0x14]);
    assert_eq!(device.send(&[0x10, 0x84, 0, 0, 9, 9, 9]).len(), 12, "padding is ignored");
    assert_eq!(device.error(&[0x11, 0x84, 0, 0]), (ErrorCode::VERSION_MISMATCH, 0));
    for length in 0..4 {
        assert_eq!(device.try_send(&[0x10, 0x84, 0, 0][..length]), None);
    }
}

#[test]
fn get_version_forgets_everything() {
    for version in RECENT {
        let mut device = Device::negotiated(version);
        let mut client = device.establish();
        let other = device.begin();
        drop(other);
        device.get_version();
        let id = client.session.id();
        let ended = Event::SessionEnded { id, reason: EndReason::Restarted };
        assert_eq!(device.responder.poll_event(), Some(ended));
        assert_eq!(device.responder.poll_event(), None, "a handshake ends without notice");
        let heartbeat = device.simple(Code::HEARTBEAT);
        assert_eq!(client.try_send(&mut device, &heartbeat), None);
        assert_eq!(device.error(&[version.0, 0x81, 0, 0]), (ErrorCode::UNEXPECTED_REQUEST, 0));
        device.negotiate();
        device.establish();
    }
}

#[test]
fn after_a_firmware_update_only_get_version_leads_on() {
    for version in RECENT {
        let mut device = Device::negotiated(version);
        let mut client = device.establish();
        device.responder.firmware_updated();
        let ended = Event::SessionEnded { id: client.session.id(), reason: EndReason::FirmwareUpdated };
        assert_eq!(device.responder.poll_event(), Some(ended));
        let heartbeat = device.simple(Code::HEARTBEAT);
        assert_eq!(client.try_send(&mut device, &heartbeat), None);
        for code in [Code::GET_CAPABILITIES, Code::GET_DIGESTS, Code::CHUNK_GET, Code::KEY_EXCHANGE] {
            assert_eq!(device.error(&[version.0, code.0, 0, 0]), (ErrorCode::REQUEST_RESYNCH, 0), "{code:?}");
        }
        device.get_version();
        device.negotiate();
        device.establish();
    }
}

#[test]
fn a_refused_get_version_changes_nothing() {
    let mut device = Device::negotiated(Version::V1_2);
    let mut client = device.establish();
    let mismatch = [0x10, 0x7F, ErrorCode::VERSION_MISMATCH.0, 0];
    assert_eq!(device.send(&[0x12, 0x84, 0, 0]), mismatch, "written in 1.0, as every answer to GET_VERSION");
    assert_eq!(client.error(&mut device, &[0x10, 0x84, 0, 0]), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert_eq!(client.simple(&mut device, Code::HEARTBEAT), [0x12, 0x68, 0, 0]);
}

#[test]
fn capabilities_say_what_is_configured() {
    for version in RECENT {
        let mut device = Device::new(version);
        device.get_version();
        let response = device.send(&device.capabilities_request());
        let parsed = Capabilities::parse(&mut Reader::new(&response)).unwrap();
        let flags = ResponderFlags::CERT
            | ResponderFlags::CHAL
            | ResponderFlags::MEAS_SIG
            | ResponderFlags::MEAS_FRESH
            | ResponderFlags::ENCRYPT
            | ResponderFlags::MAC
            | ResponderFlags::KEY_EX
            | ResponderFlags::HBEAT
            | ResponderFlags::KEY_UPD
            | ResponderFlags::LARGE_RESP;
        assert_eq!(parsed.flags, ResponderFlags(flags).of(version));
        assert_eq!((parsed.version, parsed.data_transfer_size), (version, 4608));
        assert_eq!(response.len(), 20);
        let again = device.capabilities_request();
        assert_eq!(device.error(&again), (ErrorCode::UNEXPECTED_REQUEST, 0));
    }
}

#[test]
fn a_version_that_is_not_offered_is_a_mismatch_written_in_1_0() {
    for version in [0x10, 0x11, 0x15, 0x20, 0xFF] {
        let mut device = Device::with(config(), Version(version));
        device.get_version();
        let response = device.send(&device.capabilities_request());
        assert_eq!(response, [0x10, 0x7F, 0x41, 0]);
        device.version = Version::V1_2;
        assert_eq!(device.send(&device.capabilities_request())[1], Code::CAPABILITIES.0);
    }
}

#[test]
fn illegal_flag_combinations_are_refused_in_the_version_they_came_in() {
    use RequesterFlags as F;
    let v1_2: &[u32] = &[
        ALL_FLAGS & !F::MAC,
        ALL_FLAGS & !F::KEY_EX,
        ALL_FLAGS | F::PUB_KEY_ID,
        ALL_FLAGS | 2 << 10,
        ALL_FLAGS | 3 << 10,
        ALL_FLAGS & !F::CERT,
        F::CERT,
        F::HBEAT,
        F::KEY_UPD,
        F::MAC,
        F::ENCRYPT,
        F::HANDSHAKE_IN_THE_CLEAR,
        F::MUT_AUTH,
        F::PSK | F::MAC | F::HANDSHAKE_IN_THE_CLEAR,
    ];
    let v1_3: &[u32] =
        &[F::EVENT, 2 << 22, ALL_FLAGS | 3 << 22, ALL_FLAGS | 3 << 26, F::PUB_KEY_ID | F::CHAL | 1 << 26];
    for version in RECENT {
        let newer = if version >= Version::V1_3 { v1_3 } else { &[] };
        for &flags in v1_2.iter().chain(newer) {
            let mut device = Device::new(version);
            device.get_version();
            device.flags = flags;
            let response = device.send(&device.capabilities_request());
            assert_eq!(response, [version.0, 0x7F, 1, 0], "{flags:#x}");
            device.flags = ALL_FLAGS;
            assert_eq!(device.send(&device.capabilities_request())[1], Code::CAPABILITIES.0);
        }
    }
    for flags in [0, F::CERT | F::CHAL, F::KEY_EX | F::MAC, F::PSK | F::MAC, ALL_FLAGS | F::MUT_AUTH] {
        let mut device = Device::new(Version::V1_2);
        device.flags = flags;
        device.get_version();
        assert_eq!(device.send(&device.capabilities_request())[1], Code::CAPABILITIES.0, "{flags:#x}");
    }
}

#[test]
fn transfer_sizes_have_to_make_sense() {
    let mut device = Device::new(Version::V1_2);
    device.get_version();
    let sized = |transfer: u32, message: u32, exponent: u8| {
        let mut request = vec![0x12, 0xE1, 0, 0, 0, exponent, 0, 0, 0, 0, 0, 0];
        request.extend_from_slice(&transfer.to_le_bytes());
        request.extend_from_slice(&message.to_le_bytes());
        request
    };
    for (transfer, message, exponent) in [(41, 41, 0), (42, 41, 0), (4096, 8192, 0), (42, 42, 32)] {
        let request = sized(transfer, message, exponent);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{transfer} {message}");
    }
    for length in 4..20 {
        let request = sized(42, 42, 31);
        assert_eq!(device.error(&request[..length]), (ErrorCode::INVALID_REQUEST, 0));
    }
    assert_eq!(device.send(&sized(42, 42, 31))[1], Code::CAPABILITIES.0);
}

#[test]
fn algorithms_are_selected_by_the_responder() {
    for version in RECENT {
        let mut device = Device::new(version);
        device.get_version();
        device.send(&device.capabilities_request());
        let response = device.send(&device.algorithms_request());
        let mut reader = Reader::new(&response);
        let parsed = Algorithms::parse(&mut reader).unwrap();
        reader.finish(0).unwrap();
        let expected = Algorithms {
            version,
            measurement_specification: MEASUREMENT_SPECIFICATION_DMTF,
            other_params: OPAQUE_FORMAT_GENERAL,
            measurement_hash: HASH.measurement_bit(),
            base_asym: AsymAlgorithm::EcdsaP256.base_bit(),
            base_hash: HashAlgorithm::Sha256.bit(),
            pqc_asym: 0,
            mel_specification: 0,
            tables: AlgorithmTables {
                dhe: Some(DheGroup::P256.dhe_bit()),
                aead: Some(Aead::Aes256Gcm.bit()),
                requester_asym: Some(0),
                key_schedule: Some(KEY_SCHEDULE_SPDM),
                requester_pqc_asym: None,
                kem: None,
            },
        };
        assert_eq!(parsed, expected);
        let again = device.algorithms_request();
        assert_eq!(device.error(&again), (ErrorCode::UNEXPECTED_REQUEST, 0));
    }
}

#[test]
fn nothing_in_common_is_an_invalid_request_and_may_be_tried_again() {
    let mut device = Device::new(Version::V1_2);
    device.get_version();
    device.send(&device.capabilities_request());
    // Offsets: specification 6, asymmetric 8, hash 12, then tables from 32.
    let cases: &[(usize, &[u8])] = &[
        (0, &[0x13]),
        (6, &[2]),
        (7, &[0]),
        (7, &[OPAQUE_FORMAT_NONE]),
        (8, &[0x80, 0, 0, 0]),
        (12, &[0x08, 0, 0, 0]),
        (34, &[0x07, 0]),
        (38, &[0x0C, 0]),
        (46, &[0x02, 0]),
        // Tables that name nothing; the third is of no use without mutual authentication.
        (34, &[0, 0]),
        (38, &[0, 0]),
        (42, &[0, 0]),
        (46, &[0, 0]),
        (4, &[47]),
        (4, &[49]),
        (28, &[21]),
        (33, &[0x30]),
        (36, &[2]),
        (44, &[6]),
    ];
    for &(offset, bytes) in cases {
        let mut request = device.algorithms_request();
        request[offset..offset + bytes.len()].copy_from_slice(bytes);
        let expected = if offset == 0 { ErrorCode::VERSION_MISMATCH } else { ErrorCode::INVALID_REQUEST };
        assert_eq!(device.error(&request), (expected, 0), "{offset}");
    }
    let request = device.algorithms_request();
    for length in 4..request.len() {
        assert_eq!(device.error(&request[..length]), (ErrorCode::INVALID_REQUEST, 0), "{length}");
    }
    assert_eq!(device.send(&request)[1], Code::ALGORITHMS.0);
}

#[test]
fn several_keys_of_the_responder_are_not_to_be_had_those_of_the_requester_are_its_business() {
    for (version, own) in
        [(Version::V1_2, 0), (Version::V1_3, MULTI_KEY_CONNECTION), (Version::V1_4, MULTI_KEY_CONNECTION)]
    {
        let mut device = Device::new(version);
        device.flags |= RequesterFlags::MULTI_KEY_ONLY;
        device.get_version();
        device.send(&device.capabilities_request());
        let mut request = device.algorithms_request();
        request[7] |= MULTI_KEY_CONNECTION;
        if version >= Version::V1_3 {
            assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0));
            request[7] = OPAQUE_FORMAT_GENERAL;
        }
        let response = device.send(&request);
        assert_eq!(response[1], Code::ALGORITHMS.0);
        assert_eq!(response[7], OPAQUE_FORMAT_GENERAL | own);
    }
}

#[test]
fn a_requester_without_sessions_and_measurements_needs_no_algorithms_for_them() {
    let mut device = Device::new(Version::V1_2);
    device.flags = RequesterFlags::CERT | RequesterFlags::CHAL;
    device.get_version();
    device.send(&device.capabilities_request());
    let mut request = device.algorithms_request();
    request.truncate(32);
    request[2] = 0;
    request[4] = 32;
    request[6] = 0;
    let response = device.send(&request);
    let parsed = Algorithms::parse(&mut Reader::new(&response)).unwrap();
    assert_eq!(parsed.tables, AlgorithmTables::default());
    assert_eq!((parsed.measurement_specification, parsed.measurement_hash), (0, 0));
    assert_eq!(device.error(&[0x12, 0xE0, 0, 0]), (ErrorCode::UNEXPECTED_REQUEST, 0));
    let key_exchange = device.key_exchange_request(&[1; 64], SummaryType::None);
    assert_eq!(device.error(&key_exchange), (ErrorCode::UNSUPPORTED_REQUEST, 0xE4));
    let mut challenge = vec![0x12, 0x83, 0, 0xFF];
    challenge.extend_from_slice(&[0; 32]);
    assert_eq!(device.error(&challenge), (ErrorCode::INVALID_REQUEST, 0), "no summary to be had");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    type Change = fn(&mut ResponderConfig);
    let cases: &[(&str, Change)] = &[
        ("versions", |config| config.versions.clear()),
        ("versions", |config| config.versions = vec![Version(0x15)]),
        ("secured_versions", |config| config.secured_versions = vec![Version::V1_3]),
        ("ct_exponent", |config| config.ct_exponent = 32),
        ("data_transfer_size", |config| config.data_transfer_size = 41),
        ("max_message_size", |config| config.max_message_size = 9000),
        ("session_limit", |config| config.session_limit = 0),
        ("session_limit", |config| config.session_limit = 256),
        ("measurements", |config| config.measurements.reverse()),
        ("measurements", |config| config.measurements[0].index = 0),
        ("measurements", |config| config.measurements[2].index = 0xFF),
        ("measurements", |config| config.measurements[0].kind = 0x80),
        ("measurements", |config| {
            config.measurements[0].value = MeasurementValue::Digest(vec![0; 48]);
        }),
        ("measurements", |config| {
            config.measurements[1].value = MeasurementValue::Raw(vec![0; 65_533]);
        }),
        ("signature algorithm", |config| config.asym = vec![AsymAlgorithm::EcdsaP384]),
        ("key exchange group", |config| config.groups.clear()),
        ("AEAD suite", |config| config.aeads.clear()),
        ("fresh_measurements", |config| {
            config.capabilities.measurements = MeasurementSupport::None;
        }),
    ];
    for (field, change) in cases {
        let mut config = config();
        change(&mut config);
        let error = Device::try_with(config).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    let none = Responder::new(config(), Slots::default(), Box::new(RingProvider::new()));
    assert_eq!(none.unwrap_err(), ConfigError::NoCertificate);
}
