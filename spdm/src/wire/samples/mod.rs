//! One list of sample messages with their bytes: each is decoded and encoded back, cut at every length, extended.
//! A file per group of messages, with what is checked beyond that.

use super::*;
use crate::codec::{EncodeError, Reader};

/// Sizes that SHA-256, ECDSA P-256 and ECDHE P-256 give the variable fields.
const HASH: usize = 32;
const SIGNATURE: usize = 64;
const EXCHANGE: usize = 64;

/// Decodes a message and encodes it back.
type Again = fn(&mut Reader<'_>) -> Result<Vec<u8>, DecodeError>;

/// A message, and how to decode it and encode it back.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) again: Again,
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

mod chunk;
mod error;
mod events;
mod identity;
mod measurements;
mod negotiate;
mod provision;
mod sessions;
mod slots;
mod vendor;

/// Every message this crate knows, written out from the tables of DSP0274.
pub(crate) fn samples() -> Vec<Sample> {
    [
        negotiate::samples(),
        identity::samples(),
        provision::samples(),
        measurements::samples(),
        sessions::samples(),
        slots::samples(),
        vendor::samples(),
        chunk::samples(),
        error::samples(),
        events::samples(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn sample(name: &'static str, text: &str, again: Again) -> Sample {
    Sample { name, bytes: hex(text), again }
}

fn find(name: &str) -> Sample {
    samples().into_iter().find(|sample| sample.name == name).unwrap()
}

/// Sample, field of the expected error, offset and value of the byte that is changed.
fn names_illegal_fields(cases: &[(&str, &str, usize, u8)]) {
    for &(name, field, offset, value) in cases {
        let Sample { mut bytes, again, .. } = find(name);
        bytes[offset] = value;
        let error = again(&mut Reader::new(&bytes)).unwrap_err();
        assert_eq!(error.field, field, "{name} with {value:#x} at {offset}");
    }
}

/// Decodes bytes as the sample of this name is decoded: fields that their version does not have are neither sent nor
/// believed.
fn rewritten(name: &str, bytes: &str, expected: &str) {
    let again = (find(name).again)(&mut Reader::new(&hex(bytes)));
    assert_eq!(again, Ok(hex(expected)), "{name}");
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
