//! SET_CERTIFICATE, GET_CSR, key pairs, the measurement log and endpoint information in every state, cut and malformed.

use super::device::*;
use crate::responder::*;
use crate::wire::*;

pub(super) fn managed() -> ResponderConfig {
    let mut config = config();
    config.versions = Version::IMPLEMENTED.to_vec();
    config.capabilities.measurement_log = true;
    config.capabilities.endpoint_info = EndpointInfoSupport::Signed;
    config.capabilities.provisioning = Provisioning {
        set_certificate: true,
        csr: true,
        slot_management: true,
        trusted_environment: true,
        key_pair_info: true,
        set_key_pair_info: true,
        ..Provisioning::default()
    };
    config
}

/// One well-formed request of each kind, with its code and the version that brought it. The log was not negotiated, and
/// the key pair cannot be changed.
fn requests(version: Version) -> Vec<(Code, Version, Vec<u8>, Option<ErrorCode>)> {
    let erase = SetCertificate { version, slot: 0, key_pair: 0, action: SlotAction::Erase };
    let empty = SetCertificate {
        version,
        slot: 0,
        key_pair: 0,
        action: SlotAction::Store { model: None, chain: &[4, 0, 0, 0] },
    };
    let csr = GetCsr {
        version,
        key_pair: 0,
        model: None,
        tracking_tag: 0,
        overwrite: false,
        requester_info: &[],
        opaque: &[],
    };
    let parameters = KeyPairParameters { usage: KeyUsage(1), ..KeyPairParameters::default() };
    let operation = KeyPairOperation::Change(parameters);
    let signed = GetEndpointInfo { version, sub_code: 1, slot: 0, nonce: Some([7; 32]) };
    let (v1_2, v1_3) = (Version::V1_2, Version::V1_3);
    let invalid = Some(ErrorCode::INVALID_REQUEST);
    let mut list = vec![
        (Code::SET_CERTIFICATE, v1_2, encoded(|out| empty.encode(out)), invalid),
        (Code::GET_CSR, v1_2, encoded(|out| csr.encode(out).unwrap()), None),
        (
            Code::GET_KEY_PAIR_INFO,
            v1_3,
            encoded(|out| GetKeyPairInfo { version, key_pair: 1 }.encode(out)),
            None,
        ),
        (
            Code::SET_KEY_PAIR_INFO,
            v1_3,
            encoded(|out| SetKeyPairInfo { version, key_pair: 1, operation }.encode(out)),
            invalid,
        ),
        (
            Code::GET_MEASUREMENT_EXTENSION_LOG,
            v1_3,
            encoded(|out| GetMeasurementLog { version, offset: 0, length: 9 }.encode(out)),
            Some(ErrorCode::UNEXPECTED_REQUEST),
        ),
        (Code::GET_ENDPOINT_INFO, v1_3, encoded(|out| signed.encode(out)), None),
    ];
    let address = SlotAddress::default();
    for (operation, refused) in [
        (SlotOperation::SupportedSubCodes, None),
        (SlotOperation::BankInfo, None),
        (SlotOperation::BankDetails { bank: 0 }, None),
        (SlotOperation::CertificateChain(address), None),
        (SlotOperation::Csr { address, query: csr }, None),
        (SlotOperation::Erase(address), None),
        (SlotOperation::SetCertificate { address, key_pair: 0, model: None, chain: &[4, 0, 0, 0] }, invalid),
    ] {
        let request = encoded(|out| SlotManagement { version, operation }.encode(out).unwrap());
        list.push((Code::SLOT_MANAGEMENT, Version::V1_4, request, refused));
    }
    if version >= v1_3 {
        list.push((Code::SET_CERTIFICATE, v1_3, encoded(|out| erase.encode(out)), None));
    }
    list
}

fn check(response: &[u8], version: Version, code: Code, expected: Option<(ErrorCode, u8)>, what: &str) {
    match expected {
        None => assert_eq!(response[..2], [version.0, code.0 & 0x7F], "{code:?} {what}"),
        Some((error, data)) => {
            assert_eq!(response, [version.0, Code::ERROR.0, error.0, data], "{code:?} {what}");
        }
    }
}

#[test]
fn every_request_of_provisioning_in_every_state() {
    const UNEXPECTED: Option<(ErrorCode, u8)> = Some((ErrorCode::UNEXPECTED_REQUEST, 0));
    for version in Version::IMPLEMENTED {
        for (code, since, request, refused) in requests(version) {
            let answer = if version < since {
                Some((ErrorCode::UNSUPPORTED_REQUEST, code.0))
            } else {
                refused.map(|error| (error, 0))
            };
            let fresh = || Device::with(managed(), version);
            let mut device = fresh();
            check(&device.send(&request), Version::V1_0, code, UNEXPECTED, "at the start");
            device.get_version();
            check(&device.send(&request), Version::V1_0, code, UNEXPECTED, "behind VERSION");
            device.send(&device.capabilities_request());
            let early = if version < since { answer } else { UNEXPECTED };
            check(&device.send(&request), version, code, early, "behind CAPABILITIES");
            let mut device = fresh();
            device.negotiate();
            check(&device.send(&request), version, code, answer, "negotiated");
            if version < Version::V1_1 {
                continue;
            }
            let mut device = fresh();
            device.negotiate();
            let mut client = device.begin();
            let early = if version < since { answer } else { UNEXPECTED };
            check(&client.send(&mut device, &request), version, code, early, "in a handshake");
            client.finish(&mut device);
            check(&client.send(&mut device, &request), version, code, answer, "in a session");
        }
    }
}

#[test]
fn truncated_requests_of_provisioning_change_nothing() {
    for version in [Version::V1_2, Version::V1_3, Version::V1_4] {
        let mut device = Device::with(managed(), version);
        device.negotiate();
        for (code, since, request, _) in requests(version) {
            for length in 4..request.len() {
                let (error, _) = device.error(&request[..length]);
                let expected = match code {
                    _ if version < since => ErrorCode::UNSUPPORTED_REQUEST,
                    Code::GET_MEASUREMENT_EXTENSION_LOG => ErrorCode::UNEXPECTED_REQUEST,
                    _ => ErrorCode::INVALID_REQUEST,
                };
                assert_eq!(error, expected, "{code:?} cut to {length}");
            }
        }
        device.establish();
    }
}

/// Fields that belong to several keys, in a connection with one.
#[test]
fn fields_of_several_keys_are_refused_where_there_is_one() {
    let mut device = Device::with(managed(), Version::V1_3);
    device.negotiate();
    for request in [
        vec![0x13, 0xEE, 0x80, 1],
        vec![0x13, 0xEE, 0x10, 0, 4, 0, 0, 0],
        vec![0x13, 0xED, 1, 0, 0, 0, 0, 0],
        vec![0x13, 0xED, 0, 1, 0, 0, 0, 0],
        // A tag, though nothing has to wait for a reset.
        vec![0x13, 0xED, 0, 0x08, 0, 0, 0, 0],
        // Another kind of endpoint information.
        vec![0x13, 0x87, 2, 0, 0, 0, 0, 0],
        vec![0x13, 0x87, 0, 0, 0, 0, 0, 0],
        // A slot that is not there, and the public key that is not.
        [&[0x13, 0x87, 1, 3, 1, 0, 0, 0][..], &[0; 32]].concat(),
        [&[0x13, 0x87, 1, 15, 1, 0, 0, 0][..], &[0; 32]].concat(),
    ] {
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{request:02x?}");
    }
    assert!(device.responder.poll_event().is_none());
}

/// Nothing in opaque data is understood, but it is opaque data.
#[test]
fn malformed_opaque_data_is_refused() {
    let version = Version::V1_4;
    let mut device = Device::with(managed(), version);
    device.negotiate();
    let mut fine = Vec::new();
    SupportedSecuredVersions(&[VersionNumber::new(version)]).encode(version, &mut fine).unwrap();
    let invalid = (ErrorCode::INVALID_REQUEST, 0);
    for malformed in [&[1, 0, 0, 0][..], &[0], &[&fine[..], &[0; 4]].concat(), &fine[..fine.len() - 1]] {
        let csr = |opaque| {
            let (requester_info, model) = (&[][..], None);
            let (key_pair, tracking_tag, overwrite) = (0, 0, false);
            let csr = GetCsr { version, key_pair, model, tracking_tag, overwrite, requester_info, opaque };
            encoded(|out| csr.encode(out).unwrap())
        };
        assert_eq!(device.error(&csr(malformed)), invalid, "{malformed:?}");
        assert_eq!(device.send(&csr(&fine))[1], Code::CSR.0);
        let mut client = device.begin();
        let finish = encoded(|out| {
            let verify_data = &[0; 32];
            Finish { version, requester_slot: 0, opaque: malformed, signature: None, verify_data }
                .encode(out)
                .unwrap();
        });
        assert_eq!(client.error(&mut device, &finish), invalid, "{malformed:?}");
        client.finish(&mut device);
        client.simple(&mut device, Code::END_SESSION);
    }
}

#[test]
fn contradictory_switches_are_refused() {
    let off = Provisioning::default();
    for (field, provisioning) in [
        ("csr", Provisioning { csr: true, ..off }),
        ("at_reset", Provisioning { at_reset: true, ..off }),
        ("set_key_pair_info", Provisioning { set_key_pair_info: true, ..off }),
        ("multiple_keys", Provisioning { multiple_keys: MultipleKeys::Always, ..off }),
    ] {
        let mut config = config();
        config.capabilities.provisioning = provisioning;
        let error = Device::try_with(config).unwrap_err();
        assert!(matches!(error, ConfigError::OutOfRange { field: found, .. } if found == field), "{field}");
    }
    let mut log = config();
    log.capabilities.measurement_log = true;
    log.measurement_log =
        vec![MeasurementLogItem { index: 0, kind: 1, value: MeasurementValue::Raw(vec![]) }];
    assert!(Device::try_with(log).is_err());
    let mut classes = config();
    classes.device_classes = vec![DeviceClass { registry: 0, vendor_id: vec![0; 300], subordinates: vec![] }];
    assert!(Device::try_with(classes).is_err());
}
