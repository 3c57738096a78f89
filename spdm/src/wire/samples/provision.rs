//! SET_CERTIFICATE, GET_CSR, key pairs, the measurement extension log and endpoint information.

use super::*;
use crate::crypto::AsymAlgorithm;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("SET_CERTIFICATE 1.2", "12ee0100 0700 0000 aabbcc", again!(SetCertificate::parse)),
        sample("SET_CERTIFICATE 1.3", "13ee3104 0700 0000 aabbcc", again!(SetCertificate::parse)),
        sample("SET_CERTIFICATE 1.4", "14ee1104 07000000 aabbcc", again!(SetCertificate::parse)),
        sample("SET_CERTIFICATE 1.3 erase", "13ee8104", again!(SetCertificate::parse)),
        sample("SET_CERTIFICATE_RSP", "126e0100", again!(SetCertificateRsp::parse)),
        sample("GET_CSR 1.2", "12ed0000 0200 0300 aabb cccccc", again!(GetCsr::parse)),
        sample("GET_CSR 1.3", "13ed0413 0200 0000 aabb", again!(GetCsr::parse)),
        sample("GET_CSR 1.3 overwrite", "13ed0083 0000 0000", again!(GetCsr::parse)),
        sample("CSR", "136d0000 0300 0000 aabbcc", again!(Csr::parse)),
        sample("GET_KEY_PAIR_INFO", "13fc0000 02", again!(GetKeyPairInfo::parse)),
        sample(
            "KEY_PAIR_INFO 1.3",
            "137c0000 04 02 3f00 0f00 0300 18000000 10000000 0300 05 aabbcc",
            again!(KeyPairInfo::parse),
        ),
        sample(
            "KEY_PAIR_INFO 1.4",
            "147c0000 04 02 3f00 0f00 0300 18000000 00000000 0300 05 aabbcc 04 07000000 04 02000000",
            again!(KeyPairInfo::parse),
        ),
        sample("SET_KEY_PAIR_INFO 1.3", "13fd0000 02 00 0300 10000000 05", again!(SetKeyPairInfo::parse)),
        sample("SET_KEY_PAIR_INFO 1.3 erase", "13fd0100 02", again!(SetKeyPairInfo::parse)),
        sample(
            "SET_KEY_PAIR_INFO 1.4 generate",
            "14fd0200 02 00 0300 00000000 05 04 02000000",
            again!(SetKeyPairInfo::parse),
        ),
        sample("SET_KEY_PAIR_INFO_ACK", "137d0000", again!(SetKeyPairInfoAck::parse)),
        sample(
            "GET_MEASUREMENT_EXTENSION_LOG",
            "13ef0000 10000000 ffffffff",
            again!(GetMeasurementLog::parse),
        ),
        sample(
            "MEASUREMENT_EXTENSION_LOG",
            "136f0000 03000000 04000000 aabbcc",
            again!(MeasurementLogPortion::parse),
        ),
        sample("GET_ENDPOINT_INFO", "13870100 00000000", again!(GetEndpointInfo::parse)),
        sample("GET_ENDPOINT_INFO signed", "13870102 01000000 11*32", again!(GetEndpointInfo::parse)),
        sample(
            "ENDPOINT_INFO",
            "13070000 00000000 03000000 aabbcc",
            again!(|reader| EndpointInfo::parse(reader, 0)),
        ),
        sample(
            "ENDPOINT_INFO signed",
            "13070002 00000000 11*32 03000000 aabbcc cc*64",
            again!(|reader| EndpointInfo::parse(reader, SIGNATURE)),
        ),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[
        ("SET_CERTIFICATE 1.3", "certificate model", 2, 0x41),
        ("SET_CERTIFICATE 1.3 erase", "certificate model", 2, 0x91),
        ("GET_CSR 1.3", "certificate model", 3, 4),
        ("GET_CSR 1.3", "CSR tracking tag", 3, 0x88),
        ("GET_CSR 1.2", "opaque data length", 7, 5),
        ("SET_KEY_PAIR_INFO 1.3", "key pair operation", 2, 3),
    ]);
}

#[test]
fn fields_of_later_versions_do_not_travel() {
    rewritten("SET_CERTIFICATE 1.2", "12eeb104 0700 0000 aabbcc", "12ee0100 0700 0000 aabbcc");
    rewritten("GET_CSR 1.2", "12ed0493 0000 0000", "12ed0000 0000 0000");
    rewritten("GET_ENDPOINT_INFO", "13870102 00000000", "13870100 00000000");
}

/// More bytes than anyone has algorithms for mean nothing yet; fewer mean zeros.
#[test]
fn a_post_quantum_mask_has_any_length() {
    rewritten(
        "SET_KEY_PAIR_INFO 1.4 generate",
        "14fd0200 02 00 0300 00000000 05 05 0200000001",
        "14fd0200 02 00 0300 00000000 05 04 02000000",
    );
    rewritten(
        "SET_KEY_PAIR_INFO 1.4 generate",
        "14fd0200 02 00 0300 00000000 05 01 02",
        "14fd0200 02 00 0300 00000000 05 04 02000000",
    );
}

#[test]
fn key_pairs_name_rsa_by_its_size() {
    let of = KeyPairAlgorithms::of;
    assert_eq!(of(AsymAlgorithm::RsaPss3072), of(AsymAlgorithm::RsaSsa3072));
    assert_eq!(of(AsymAlgorithm::EcdsaP384), KeyPairAlgorithms { classic: 0x10, post_quantum: 0 });
    assert_eq!(of(AsymAlgorithm::MlDsa87), KeyPairAlgorithms { classic: 0, post_quantum: 4 });
    let all = AsymAlgorithm::ALL.iter().fold(KeyPairAlgorithms::default(), |all, &one| all.union(of(one)));
    assert_eq!(all, KeyPairAlgorithms { classic: 0xBF, post_quantum: 7 });
    assert!(AsymAlgorithm::ALL.iter().all(|&one| of(one).count() == 1 && all.has(of(one))));
}

#[test]
fn a_log_says_how_many_entries_it_has() {
    let log = hex("02000000 1a000000 00*8 01000000 01 000000 81 0300 aabbcc 02000000 02 000000 08 0100 dd");
    let entries = [
        LogEntry { number: 1, index: 1, kind: 1, raw: true, value: &[0xAA, 0xBB, 0xCC] },
        LogEntry { number: 2, index: 2, kind: 8, raw: false, value: &[0xDD] },
    ];
    assert_eq!(MeasurementLog::parse(&log).as_deref(), Ok(&entries[..]));
    let mut again = Vec::new();
    MeasurementLog::encode(&entries, &mut again).unwrap();
    assert_eq!(again, log);
    for length in 0..log.len() {
        assert!(MeasurementLog::parse(&log[..length]).is_err());
    }
    for (offset, value) in [(0, 3), (0, 1), (4, 0x1B), (25, 4)] {
        let mut wrong = log.clone();
        wrong[offset] = value;
        assert!(MeasurementLog::parse(&wrong).is_err(), "{value} at {offset}");
    }
}

#[test]
fn device_classes_are_counted_and_sized() {
    let classes = [
        DeviceClass { registry: 3, vendor_id: vec![0x36, 0x1B], subordinates: vec![vec![1, 0], vec![]] },
        DeviceClass { registry: 0, vendor_id: vec![], subordinates: vec![] },
    ];
    let info = hex("02000000 09 03 02 361b 02 02 0100 00 03 00 00 00");
    let mut encoded = Vec::new();
    DeviceClass::encode_list(&classes, &mut encoded).unwrap();
    assert_eq!(encoded, info);
    assert_eq!(DeviceClass::parse_list(&info).as_deref(), Ok(&classes[..]));
    for length in 0..info.len() {
        assert!(DeviceClass::parse_list(&info[..length]).is_err());
    }
    for (offset, value) in [(0, 1), (4, 8), (4, 10), (9, 1), (9, 3)] {
        let mut wrong = info.clone();
        wrong[offset] = value;
        assert!(DeviceClass::parse_list(&wrong).is_err(), "{value} at {offset}");
    }
    let long = DeviceClass { registry: 0, vendor_id: vec![0; 254], subordinates: vec![] };
    assert!(DeviceClass::encode_list(&[long], &mut encoded).is_err());
}
