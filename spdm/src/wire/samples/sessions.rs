//! From KEY_EXCHANGE to END_SESSION, and the opaque data of the handshake.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
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
        sample(
            "FINISH 1.4",
            "14e50102 0300 010203 cc*64 ee*32",
            again!(|reader| Finish::parse(reader, SIGNATURE, HASH)),
        ),
        sample(
            "FINISH_RSP 1.4",
            "14650000 0300 010203 ee*32",
            again!(|reader| FinishRsp::parse(reader, HASH)),
        ),
        sample("FINISH_RSP", "12650000", again!(|reader| FinishRsp::parse(reader, 0))),
        sample("FINISH_RSP in the clear", "12650000 ee*32", again!(|reader| FinishRsp::parse(reader, HASH))),
        sample("PSK_EXCHANGE 1.1", "11e6ff00 3412 0000 2000 0000 22*32", again!(PskExchange::parse)),
        sample(
            "PSK_EXCHANGE",
            "12e60101 3412 0400 2100 1000 70736b00 22*33 01000000 00000500 0101 01 0011 000000",
            again!(PskExchange::parse),
        ),
        sample(
            "PSK_EXCHANGE_RSP",
            "12660a00 7856 0000 2000 0c00 aa*32 33*32 01000000 00000400 0100 0011 ee*32",
            again!(|reader| PskExchangeRsp::parse(reader, HASH, HASH)),
        ),
        sample(
            "PSK_EXCHANGE_RSP without context",
            "11660000 7856 0000 0000 0000 ee*32",
            again!(|reader| PskExchangeRsp::parse(reader, 0, HASH)),
        ),
        sample("PSK_FINISH", "12e70000 ee*32", again!(|reader| PskFinish::parse(reader, HASH))),
        sample("PSK_FINISH_RSP", "12670000", again!(PskFinishRsp::parse)),
        sample(
            "PSK_FINISH 1.4",
            "14e70000 0300 010203 ee*32",
            again!(|reader| PskFinish::parse(reader, HASH)),
        ),
        sample("PSK_FINISH_RSP 1.4", "14670000 0300 010203", again!(PskFinishRsp::parse)),
        sample("GET_ENCAPSULATED_REQUEST", "12ea0000", again!(GetEncapsulatedRequest::parse)),
        sample("HEARTBEAT", "12e80000", again!(Heartbeat::parse)),
        sample("HEARTBEAT_ACK", "12680000", again!(HeartbeatAck::parse)),
        sample("KEY_UPDATE", "12e90207", again!(KeyUpdate::parse)),
        sample("KEY_UPDATE_ACK", "12690307", again!(KeyUpdate::parse_ack, encode_ack)),
        sample("END_SESSION", "12ec0100", again!(EndSession::parse)),
        sample("END_SESSION_ACK", "126c0000", again!(EndSessionAck::parse)),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[
        ("KEY_EXCHANGE", "measurement summary hash type", 2, 2),
        ("KEY_EXCHANGE", "opaque data", 105, 0xFF),
        ("FINISH 1.4", "opaque data", 5, 4),
        ("PSK_EXCHANGE", "measurement summary hash type", 2, 2),
        ("PSK_EXCHANGE", "hint", 7, 0xFF),
        ("PSK_EXCHANGE", "context length", 8, 0x1F),
        ("PSK_EXCHANGE", "context", 9, 0xFF),
        ("PSK_EXCHANGE", "opaque data", 10, 0x11),
        ("PSK_EXCHANGE", "opaque data length", 11, 5),
        ("PSK_EXCHANGE_RSP", "context length", 8, 0x1F),
        ("PSK_EXCHANGE_RSP", "opaque data length", 11, 5),
        ("PSK_FINISH 1.4", "opaque data", 5, 4),
        ("PSK_FINISH_RSP 1.4", "opaque data", 5, 5),
        ("KEY_UPDATE", "key operation", 2, 0),
        ("KEY_UPDATE", "key operation", 2, 4),
    ]);
}

#[test]
fn fields_of_later_versions_do_not_travel() {
    let tail = "00 11*32 dd*64 0000";
    let message = format!("11e4ff00 3412 ff {tail}");
    rewritten("KEY_EXCHANGE 1.1", &message, &format!("11e4ff00 3412 00 {tail}"));
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
