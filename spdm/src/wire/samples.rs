//! One list of sample messages with their bytes: each is decoded and encoded back, cut at every length, extended.

use super::*;
use crate::codec::Reader;

/// Sizes that SHA-256, ECDSA P-256 and ECDHE P-256 give the variable fields.
const HASH: usize = 32;
const SIGNATURE: usize = 64;
const EXCHANGE: usize = 64;

/// A message, and how to decode it and encode it back.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) again: fn(&mut Reader<'_>) -> Result<Vec<u8>, DecodeError>,
}

macro_rules! again {
    ($parse:expr) => {
        again!($parse, encode)
    };
    ($parse:expr, $encode:ident) => {
        |reader| {
            let mut out = Vec::new();
            let _ = $parse(reader)?.$encode(&mut out);
            Ok(out)
        }
    };
}

/// Bytes from hexadecimal text, `xx*n` repeating one byte.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let byte = |digits: &[u8]| u8::from_str_radix(core::str::from_utf8(digits).unwrap(), 16).unwrap();
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        match word.split_once('*') {
            Some((digits, count)) => {
                bytes.extend(std::iter::repeat_n(byte(digits.as_bytes()), count.parse().unwrap()));
            }
            None => bytes.extend(word.as_bytes().chunks(2).map(byte)),
        }
    }
    bytes
}

/// Every message this crate knows, written out from the tables of DSP0274.
pub(crate) fn samples() -> Vec<Sample> {
    let sample = |name, text: &str, again| Sample { name, bytes: hex(text), again };
    vec![
        sample("GET_VERSION", "10840000", again!(GetVersion::parse)),
        sample("VERSION", "10040000 0002 0012 0013", again!(VersionResponse::parse)),
        sample("GET_CAPABILITIES 1.0", "10e10000", again!(GetCapabilities::parse)),
        sample("GET_CAPABILITIES 1.1", "11e10000 00 0c 0000 c6620100", again!(GetCapabilities::parse)),
        sample(
            "GET_CAPABILITIES 1.2",
            "12e10000 00 0c 0000 c6420000 00120000 00120000",
            again!(GetCapabilities::parse),
        ),
        sample(
            "GET_CAPABILITIES 1.3",
            "13e10100 00 00 0000 c6420200 00120000 00240000",
            again!(GetCapabilities::parse),
        ),
        sample("CAPABILITIES 1.0", "10610000 00 0e 0000 36000000", again!(Capabilities::parse)),
        sample("CAPABILITIES 1.1", "11610000 00 0e 0000 f6620100", again!(Capabilities::parse)),
        sample("CAPABILITIES", "12610000 00 0e 0000 f6620000 00120000 00120000", again!(Capabilities::parse)),
        sample(
            "NEGOTIATE_ALGORITHMS 1.0",
            "10e30000 2000 01 00 90000000 03000000 00*12 00 00 00 00",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "NEGOTIATE_ALGORITHMS 1.1",
            "11e30400 3000 01 00 90000000 03000000 00*12 00 00 00 00 \
             02201800 03200300 04209000 05200100",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.0",
            "10630000 2400 01 00 04000000 80000000 02000000 00*11 00 00 00 0000",
            again!(Algorithms::parse),
        ),
        sample(
            "ALGORITHMS 1.1",
            "11630400 3400 01 00 04000000 80000000 02000000 00*11 00 00 00 0000 \
             02201000 03200200 04200000 05200100",
            again!(Algorithms::parse),
        ),
        sample(
            "NEGOTIATE_ALGORITHMS",
            "13e30400 3000 01 02 90000000 03000000 00*12 00 00 00 00 \
             02201800 03200300 04209000 05200100",
            again!(NegotiateAlgorithms::parse),
        ),
        sample(
            "ALGORITHMS",
            "13630400 3400 01 02 04000000 80000000 02000000 00*11 00 00 00 0000 \
             02201000 03200200 04200000 05200100",
            again!(Algorithms::parse),
        ),
        sample("GET_DIGESTS", "12810000", again!(GetDigests::parse)),
        sample("DIGESTS 1.2", "12010005 aa*32 bb*32", again!(|reader| Digests::parse(reader, HASH))),
        sample("DIGESTS 1.3", "13010701 aa*32", again!(|reader| Digests::parse(reader, HASH))),
        sample("GET_CERTIFICATE", "12820300 0001 ffff", again!(GetCertificate::parse)),
        sample("GET_CERTIFICATE 1.3", "13820001 0000 0000", again!(GetCertificate::parse)),
        sample("CERTIFICATE", "12020300 0300 0102 aabbcc", again!(Certificate::parse)),
        sample("CHALLENGE 1.0", "108300ff 11*32", again!(Challenge::parse)),
        sample("CHALLENGE 1.2", "128300ff 11*32", again!(Challenge::parse)),
        sample("CHALLENGE 1.3", "13830201 11*32 22*8", again!(Challenge::parse)),
        sample(
            "CHALLENGE_AUTH 1.0",
            "10030001 aa*32 11*32 0300 eeeeee cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, 0, SIGNATURE)),
        ),
        sample(
            "CHALLENGE_AUTH 1.2",
            "12030001 aa*32 11*32 bb*32 0000 cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, HASH, SIGNATURE)),
        ),
        sample(
            "CHALLENGE_AUTH 1.3",
            "13030001 aa*32 11*32 0200 eeee 22*8 cc*64",
            again!(|reader| ChallengeAuth::parse(reader, HASH, 0, SIGNATURE)),
        ),
        sample("GET_MEASUREMENTS 1.2", "12e00000", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.0 signed", "10e001ff 11*32", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.1 signed", "11e001ff 11*32 02", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.2 signed", "12e001ff 11*32 02", again!(GetMeasurements::parse)),
        sample("GET_MEASUREMENTS 1.3 signed", "13e00705 11*32 0f 22*8", again!(GetMeasurements::parse)),
        sample(
            "MEASUREMENTS 1.2 count",
            "12600500 00 000000 11*32 0000",
            again!(|reader| Measurements::parse(reader, 0)),
        ),
        sample(
            "MEASUREMENTS 1.0 signed",
            "10600000 01 0b0000 01010700 810400 deadbeef 11*32 0000 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
        sample(
            "MEASUREMENTS 1.1 signed",
            "11600003 01 0b0000 01010700 810400 deadbeef 11*32 0000 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
        sample(
            "MEASUREMENTS 1.3 signed",
            "13600023 01 0b0000 01010700 810400 deadbeef 11*32 0000 22*8 cc*64",
            again!(|reader| Measurements::parse(reader, SIGNATURE)),
        ),
        sample(
            "KEY_EXCHANGE 1.1",
            "11e4ff00 3412 00 00 11*32 dd*64 1400 \
             46544d44 01 01 0000 00000500 0101 01 0011 000000",
            again!(|reader| KeyExchange::parse(reader, EXCHANGE)),
        ),
        sample(
            "KEY_EXCHANGE",
            "12e4ff00 3412 01 00 11*32 dd*64 1400 \
             01000000 00000900 0101 03 0010 0011 0012 000000",
            again!(|reader| KeyExchange::parse(reader, EXCHANGE)),
        ),
        sample(
            "KEY_EXCHANGE_RSP",
            "13640a00 7856 00 00 11*32 dd*64 aa*32 0c00 \
             01000000 00000400 0100 0012 cc*64 ee*32",
            again!(|reader| KeyExchangeRsp::parse(
                reader,
                &KeyExchangeSizes {
                    exchange: EXCHANGE,
                    summary: HASH,
                    signature: SIGNATURE,
                    verify_data: HASH
                }
            )),
        ),
        sample("FINISH", "12e50000 ee*32", again!(|reader| Finish::parse(reader, SIGNATURE, HASH))),
        sample(
            "FINISH signed",
            "12e50102 cc*64 ee*32",
            again!(|reader| Finish::parse(reader, SIGNATURE, HASH)),
        ),
        sample("FINISH_RSP", "12650000", again!(|reader| FinishRsp::parse(reader, 0))),
        sample("FINISH_RSP in the clear", "12650000 ee*32", again!(|reader| FinishRsp::parse(reader, HASH))),
        sample("HEARTBEAT", "12e80000", again!(Heartbeat::parse)),
        sample("HEARTBEAT_ACK", "12680000", again!(HeartbeatAck::parse)),
        sample("KEY_UPDATE", "12e90207", again!(KeyUpdate::parse)),
        sample("KEY_UPDATE_ACK", "12690307", again!(KeyUpdate::parse_ack, encode_ack)),
        sample("END_SESSION", "12ec0100", again!(EndSession::parse)),
        sample("END_SESSION_ACK", "126c0000", again!(EndSessionAck::parse)),
        sample(
            "VENDOR_DEFINED_REQUEST",
            "12fe0000 0300 02 0100 0300 01aabb",
            again!(VendorDefined::parse_request, encode_request),
        ),
        sample(
            "VENDOR_DEFINED_RESPONSE",
            "127e0000 0300 02 0100 0100 00",
            again!(VendorDefined::parse_response, encode_response),
        ),
        sample("ERROR", "127f0100", again!(ErrorResponse::parse)),
        sample("ERROR ResponseNotReady", "127f4200 05 83 09 02", again!(ErrorResponse::parse)),
        sample("ERROR ResponseTooLarge", "127f0d00 00100000", again!(ErrorResponse::parse)),
        sample("RESPOND_IF_READY", "12ff8309", again!(RespondIfReady::parse)),
    ]
}

#[test]
fn every_sample_survives_a_round_trip() {
    for Sample { name, bytes, again } in samples() {
        let mut reader = Reader::new(&bytes);
        assert_eq!(again(&mut reader).as_deref(), Ok(bytes.as_slice()), "{name}");
        assert_eq!(reader.finish(0), Ok(()), "{name}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for Sample { name, bytes, again } in samples() {
        for length in 0..bytes.len() {
            assert!(again(&mut Reader::new(&bytes[..length])).is_err(), "{name} cut to {length}");
        }
    }
}

#[test]
fn what_follows_a_message_is_left_over() {
    for Sample { name, bytes, again } in samples() {
        let mut long = bytes.clone();
        long.extend_from_slice(&[0xA5; 3]);
        let mut reader = Reader::new(&long);
        assert_eq!(again(&mut reader).as_deref(), Ok(bytes.as_slice()), "{name}");
        assert_eq!(reader.consumed(), bytes.len(), "{name}");
        assert!(reader.finish(2).is_err(), "{name}");
        assert!(reader.finish(3).is_ok(), "{name}");
    }
}

#[test]
fn a_message_is_not_taken_for_another() {
    for Sample { name, bytes, again } in samples() {
        let mut other = bytes;
        other[1] ^= 0x40;
        let error = again(&mut Reader::new(&other)).unwrap_err();
        assert_eq!(error.reason, Reason::WrongCode, "{name}");
    }
}

#[test]
fn illegal_fields_are_named() {
    let cases: &[(&str, &str, usize, u8)] = &[
        ("VERSION", "version", 0, 0x12),
        ("VERSION", "entry count", 5, 0),
        ("NEGOTIATE_ALGORITHMS 1.0", "length", 4, 0x41),
        ("NEGOTIATE_ALGORITHMS 1.0", "extended algorithm count", 29, 9),
        ("NEGOTIATE_ALGORITHMS 1.1", "length", 4, 0x81),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x2F),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x31),
        ("NEGOTIATE_ALGORITHMS", "length", 4, 0x81),
        ("NEGOTIATE_ALGORITHMS", "extended algorithm count", 28, 21),
        ("NEGOTIATE_ALGORITHMS", "extended algorithm count", 29, 21),
        ("NEGOTIATE_ALGORITHMS", "algorithm count", 33, 0x10),
        ("NEGOTIATE_ALGORITHMS", "algorithm count", 33, 0x30),
        ("NEGOTIATE_ALGORITHMS", "extended algorithms", 33, 0x2F),
        ("NEGOTIATE_ALGORITHMS", "algorithm type", 36, 2),
        ("NEGOTIATE_ALGORITHMS", "algorithm type", 44, 6),
        ("ALGORITHMS", "selection", 12, 0x90),
        ("ALGORITHMS", "selection", 16, 0x03),
        ("ALGORITHMS", "selection", 38, 0x18),
        ("ALGORITHMS", "length", 4, 0x30),
        ("DIGESTS 1.3", "slot mask", 3, 0x08),
        ("CHALLENGE 1.2", "measurement summary hash type", 3, 2),
        ("CHALLENGE 1.2", "measurement summary hash type", 3, 0xFE),
        ("KEY_EXCHANGE", "measurement summary hash type", 2, 2),
        ("KEY_EXCHANGE", "opaque data", 105, 0xFF),
        ("MEASUREMENTS 1.3 signed", "content changed", 3, 0x30),
        ("KEY_UPDATE", "key operation", 2, 0),
        ("KEY_UPDATE", "key operation", 2, 4),
    ];
    let samples = samples();
    for &(name, field, offset, value) in cases {
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        let mut bytes = sample.bytes.clone();
        bytes[offset] = value;
        let error = (sample.again)(&mut Reader::new(&bytes)).unwrap_err();
        assert_eq!(error.field, field, "{name} with {value:#x} at {offset}");
    }
}

#[test]
fn secured_versions_are_found_among_foreign_elements() {
    let foreign = hex("02000000 0302 0100 0200 aabb 0000 0500 0101 01 0011 000000");
    let found = SupportedSecuredVersions::find(Version::V1_2, &foreign).unwrap().unwrap();
    assert_eq!(found.0, [VersionNumber::new(Version::V1_1)]);
    assert_eq!(SelectedSecuredVersion::find(Version::V1_2, &foreign), Ok(None));
    assert_eq!(SupportedSecuredVersions::find(Version::V1_2, &[]), Ok(None));
    let mut out = vec![0xA5];
    SelectedSecuredVersion(VersionNumber::new(Version::V1_2)).encode(Version::V1_2, &mut out).unwrap();
    assert_eq!(out, hex("a5 01000000 00000400 0100 0012"));
    assert_eq!(out.len(), 1 + SelectedSecuredVersion::MAX_SIZE - 4);
    let selected = SelectedSecuredVersion::find(Version::V1_2, &out[1..]).unwrap().unwrap();
    assert_eq!(selected.version(), Version::V1_2);
    for length in 1..foreign.len() {
        assert!(SupportedSecuredVersions::find(Version::V1_2, &foreign[..length]).is_err(), "{length}");
    }
    for padding in foreign.len() - 3..foreign.len() {
        let mut filled = foreign.clone();
        filled[padding] = 1;
        assert!(SupportedSecuredVersions::find(Version::V1_2, &filled).is_err(), "padding is zero");
    }
    let mut twice = hex("02000000");
    for _ in 0..2 {
        twice.extend_from_slice(&out[5..]);
    }
    assert!(SelectedSecuredVersion::find(Version::V1_2, &twice).is_err(), "two selections");
    twice.extend_from_slice(&[0]);
    assert!(
        OpaqueElements::new(Version::V1_2, &twice).unwrap().any(|element| element.is_err()),
        "trailing byte"
    );
}

#[test]
fn secured_versions_before_1_2_have_a_header_of_their_own() {
    let opaque = hex("46544d44 01 01 0000 00000500 0101 01 0011 000000");
    let versions = [VersionNumber::new(Version::V1_1)];
    let mut out = Vec::new();
    SupportedSecuredVersions(&versions).encode(Version::V1_1, &mut out).unwrap();
    assert_eq!(out, opaque);
    let found = SupportedSecuredVersions::find(Version::V1_1, &opaque).unwrap().unwrap();
    assert_eq!(found.0, versions);
    for (offset, field) in [(0, "opaque data specification"), (4, "opaque data version")] {
        let mut wrong = opaque.clone();
        wrong[offset] ^= 1;
        let error = SupportedSecuredVersions::find(Version::V1_1, &wrong).unwrap_err();
        assert_eq!(error, DecodeError::illegal(field));
    }
    for length in 1..opaque.len() {
        assert!(SupportedSecuredVersions::find(Version::V1_1, &opaque[..length]).is_err(), "{length}");
    }
    let mut out = Vec::new();
    SelectedSecuredVersion(versions[0]).encode(Version::V1_1, &mut out).unwrap();
    assert_eq!(out, hex("46544d44 01 01 0000 00000400 0100 0011"));
    assert_eq!(out.len(), SelectedSecuredVersion::MAX_SIZE);
    let selected = SelectedSecuredVersion::find(Version::V1_1, &out).unwrap();
    assert_eq!(selected, Some(SelectedSecuredVersion(versions[0])));
}

/// Fields that a version does not have are neither sent nor believed.
#[test]
fn fields_of_later_versions_do_not_travel() {
    let rewritten = |name: &str, bytes: &str, expected: &str| {
        let samples = samples();
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        let again = (sample.again)(&mut Reader::new(&hex(bytes)));
        assert_eq!(again, Ok(hex(expected)), "{name}");
    };
    let set = "ffffffff";
    rewritten("GET_CAPABILITIES 1.0", "10e1ffff", "10e10000");
    rewritten("GET_CAPABILITIES 1.1", &format!("11e10100 00 0c 0000 {set}"), "11e10000 00 0c 0000 ffff0100");
    rewritten("CAPABILITIES 1.0", &format!("10610000 00 0e 0000 {set}"), "10610000 00 0e 0000 3f000000");
    rewritten("CAPABILITIES 1.1", &format!("11610000 00 0e 0000 {set}"), "11610000 00 0e 0000 ffff0100");
    let tail = "90000000 03000000 00*16";
    let message = format!("10e304ff 2000 01 ff {tail}");
    rewritten("NEGOTIATE_ALGORITHMS 1.0", &message, &format!("10e30000 2000 01 00 {tail}"));
    let message = format!("11e30000 2000 01 ff {tail}");
    rewritten("NEGOTIATE_ALGORITHMS 1.1", &message, &format!("11e30000 2000 01 00 {tail}"));
    let tail = "04000000 80000000 02000000 00*16";
    let message = format!("10630400 2400 01 03 {tail}");
    rewritten("ALGORITHMS 1.0", &message, &format!("10630000 2400 01 00 {tail}"));
    rewritten("MEASUREMENTS 1.2 count", "106005ff 00 000000 11*32 0000", "10600500 00 000000 11*32 0000");
    rewritten("MEASUREMENTS 1.2 count", "116005ff 00 000000 11*32 0000", "1160050f 00 000000 11*32 0000");
    let tail = "00 11*32 dd*64 0000";
    let message = format!("11e4ff00 3412 ff {tail}");
    rewritten("KEY_EXCHANGE 1.1", &message, &format!("11e4ff00 3412 00 {tail}"));
}

#[test]
fn the_slot_of_a_challenge_is_a_whole_byte_in_1_0() {
    for (version, slot) in [(0x10, 0xF2), (0x11, 2), (0x12, 2)] {
        let bytes = hex("1203f204 aa*32 11*32 0000 cc*64");
        let bytes = [&[version], &bytes[1..]].concat();
        let parsed = ChallengeAuth::parse(&mut Reader::new(&bytes), HASH, 0, SIGNATURE).unwrap();
        assert_eq!(parsed.slot(), slot);
    }
}

#[test]
fn errors_are_worded_as_their_version_can() {
    let extended = [0, 0x10, 0, 0];
    let table = [
        (ErrorCode::INVALID_REQUEST, Version::V1_0),
        (ErrorCode::UNSUPPORTED_REQUEST, Version::V1_0),
        (ErrorCode::RESPONSE_NOT_READY, Version::V1_0),
        (ErrorCode::VENDOR_DEFINED, Version::V1_0),
        (ErrorCode::DECRYPT_ERROR, Version::V1_1),
        (ErrorCode::SESSION_LIMIT_EXCEEDED, Version::V1_1),
        (ErrorCode::SESSION_REQUIRED, Version::V1_2),
        (ErrorCode::RESPONSE_TOO_LARGE, Version::V1_2),
        (ErrorCode::DATA_TOO_LARGE, Version::V1_2),
        (ErrorCode::OPERATION_FAILED, Version::V1_3),
    ];
    for (code, since) in table {
        for version in Version::IMPLEMENTED {
            let error = ErrorResponse { version, code, data: 7, extended: &extended };
            let unspecified = ErrorResponse::new(version, ErrorCode::UNSPECIFIED, 0);
            let expected = if version < since { unspecified } else { error };
            assert_eq!(error.worded(), expected, "{version} {code:?}");
        }
    }
}

#[test]
fn measurement_blocks_are_walked_to_the_first_error() {
    let record = hex("01010700 810400 deadbeef 02010400 050100 77");
    let measurements = |record| Measurements {
        version: Version::V1_2,
        total: 0,
        slot: 0,
        changed: ContentChanged::NotDetected,
        blocks: 2,
        record,
        nonce: [0; NONCE_SIZE],
        opaque: &[],
        context: None,
        signature: &[],
    };
    let blocks: Result<Vec<_>, _> = measurements(&record).iter().collect();
    assert_eq!(
        blocks.unwrap(),
        [
            MeasurementBlock { index: 1, kind: 1, raw: true, value: &[0xDE, 0xAD, 0xBE, 0xEF] },
            MeasurementBlock { index: 2, kind: 5, raw: false, value: &[0x77] },
        ]
    );
    let cut = measurements(&record[..13]);
    let results: Vec<_> = cut.iter().collect();
    assert_eq!(results.len(), 2);
    assert!(results[0].is_ok() && results[1].is_err());
}

#[test]
fn chains_say_their_length() {
    let mut chain = Vec::new();
    let root = [0x11; HASH];
    CertificateChain::encode(&root, &[vec![1, 2, 3], vec![4]], &mut chain).unwrap();
    assert_eq!(chain[..4], [40, 0, 0, 0]);
    let parsed = CertificateChain::parse(&chain, HASH).unwrap();
    assert_eq!((parsed.root_hash, parsed.certificates), (&root[..], &[1, 2, 3, 4][..]));
    assert!(CertificateChain::parse(&chain[..39], HASH).is_err());
    assert!(CertificateChain::encode(&root, &[vec![0; 65_500]], &mut chain).is_err());
}

proptest::proptest! {
    /// Whatever a decoder accepts, it writes back: nothing it understood gets lost, nothing it refused panicked.
    #[test]
    fn arbitrary_bytes_never_panic(
        choice in 0_usize..1024,
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256),
    ) {
        let samples = samples();
        let sample = &samples[choice % samples.len()];
        let mut bytes = bytes;
        if let Some(code) = bytes.get_mut(1) {
            *code = sample.bytes[1];
        }
        if let Ok(first) = (sample.again)(&mut Reader::new(&bytes)) {
            proptest::prop_assert_eq!((sample.again)(&mut Reader::new(&first)), Ok(first));
        }
    }

    #[test]
    fn flipped_samples_never_panic(choice in 0_usize..1024, at in 0_usize..1024, bits in 1_u8..) {
        let samples = samples();
        let sample = &samples[choice % samples.len()];
        let mut bytes = sample.bytes.clone();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        let _ = (sample.again)(&mut Reader::new(&bytes));
        let _ = OpaqueElements::new(Version::V1_2, &bytes).map(|elements| elements.count());
    }
}
