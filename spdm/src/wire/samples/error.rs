//! ERROR and RESPOND_IF_READY.

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("ERROR", "127f0100", again!(ErrorResponse::parse)),
        sample("ERROR ResponseNotReady", "127f4200 05 83 09 02", again!(ErrorResponse::parse)),
        sample("ERROR ResponseTooLarge", "127f0d00 00100000", again!(ErrorResponse::parse)),
        sample("RESPOND_IF_READY", "12ff8309", again!(RespondIfReady::parse)),
    ]
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
fn the_size_of_a_chain_too_long_comes_from_1_4_on() {
    for (bytes, extended) in [("147f1200 00000100", "00000100"), ("147f1200", ""), ("137f1200 00000100", "")]
    {
        let bytes = hex(bytes);
        let error = ErrorResponse::parse(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((error.code, error.extended), (ErrorCode::DATA_TOO_LARGE, hex(extended).as_slice()));
    }
}
