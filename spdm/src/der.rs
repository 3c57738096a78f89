//! The little DER that is read and written by hand: keys and signatures, and what the X.509 parser is more lenient
//! about than a verifier should be.

/// One DER element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Identifier octet; multi-byte tags do not occur in what is read here.
    pub(crate) tag: u8,
    /// Identifier, length and contents.
    pub(crate) raw: &'a [u8],
    /// Contents.
    pub(crate) contents: &'a [u8],
}

/// Splits one element with a minimal, definite length off the front.
pub(crate) fn element(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&[tag, first], rest) = input.split_first_chunk()?;
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81 => (3, usize::from(*rest.first().filter(|&&length| length >= 0x80)?)),
        0x82 => {
            let length = u16::from_be_bytes(*rest.first_chunk()?);
            (4, usize::from(Some(length).filter(|&length| length >= 0x100)?))
        }
        _ => return None,
    };
    let (raw, rest) = input.split_at_checked(header + length)?;
    Some((Element { tag, raw, contents: raw.get(header..)? }, rest))
}

/// Tag of an INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// Tag of a BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// Tag of an OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// Tag of an OBJECT IDENTIFIER.
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
/// Tag of a SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// Tag of a context-specific constructed element with this number.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Splits an element with this tag off the front; its contents and what follows.
pub(crate) fn tagged(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = element(input).filter(|(found, _)| found.tag == tag)?;
    Some((found.contents, rest))
}

/// The contents of the element with this tag that is all there is.
pub(crate) fn only(input: &[u8], tag: u8) -> Option<&[u8]> {
    let (contents, rest) = tagged(input, tag)?;
    rest.is_empty().then_some(contents)
}

/// Splits a non-negative INTEGER in its shortest form off the front: its big-endian bytes without a sign byte, and
/// what follows.
pub(crate) fn unsigned(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (contents, rest) = tagged(input, INTEGER)?;
    let magnitude = match contents {
        [] | [0x80..=0xff, ..] => return None,
        [0, magnitude @ ..] if !magnitude.is_empty() => {
            Some(magnitude).filter(|magnitude| magnitude.first() >= Some(&0x80))?
        }
        _ => contents,
    };
    Some((magnitude, rest))
}

/// An element; none is written that is longer than [`element`] reads, 65,535 bytes.
pub(crate) fn encode(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length = contents.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length + 4);
    out.push(tag);
    let [.., high, low] = length.to_be_bytes();
    match (high, low) {
        (0, 0..=0x7f) => out.push(low),
        (0, _) => out.extend_from_slice(&[0x81, low]),
        _ => out.extend_from_slice(&[0x82, high, low]),
    }
    contents.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A BIT STRING of whole bytes.
pub(crate) fn encode_bits(bytes: &[u8]) -> Vec<u8> {
    encode(BIT_STRING, &[&[0], bytes])
}

/// A non-negative INTEGER from big-endian bytes, in its shortest form.
pub(crate) fn encode_unsigned(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let magnitude = bytes.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if magnitude.first().is_none_or(|&byte| byte >= 0x80) { &[0] } else { &[] };
    encode(INTEGER, &[sign, magnitude])
}

/// Whether the algorithm identifier beside a certificate's signature is, byte for byte, the signed one
/// (RFC 5280 §4.1.1.2).
pub(crate) fn algorithm_identifiers_agree(certificate: &[u8]) -> bool {
    fn pair(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
        let (certificate, _) = element(certificate)?;
        let (signed, rest) = element(certificate.contents)?;
        let (outer, _) = element(rest)?;
        let (_version, rest) = element(signed.contents)?;
        let (_serial, rest) = element(rest)?;
        let (inner, _) = element(rest)?;
        Some((outer.raw, inner.raw))
    }
    pair(certificate).is_some_and(|(outer, inner)| outer == inner)
}

/// The signature's algorithm identifier and the signed part of a certificate, both with their headers.
pub(crate) fn signed_parts(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (signed, rest) = element(only(certificate, SEQUENCE)?)?;
    let (algorithm, _) = element(rest)?;
    Some((algorithm.raw, signed.raw))
}

/// The text of an `[0] EXPLICIT UTF8String`, as an otherName carries it.
pub(crate) fn explicit_utf8(input: &[u8]) -> Option<&str> {
    let (outer, rest) = element(input).filter(|(outer, _)| outer.tag == 0xa0)?;
    let (inner, end) = element(outer.contents).filter(|(inner, _)| inner.tag == 0x0c)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    core::str::from_utf8(inner.contents).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_each_form() {
        for (length, header) in [
            (0, &[4, 0][..]),
            (127, &[4, 0x7f]),
            (128, &[4, 0x81, 0x80]),
            (255, &[4, 0x81, 0xff]),
            (256, &[4, 0x82, 1, 0]),
        ] {
            let raw = [header, &vec![7; length]].concat();
            let input = [raw.as_slice(), &[9]].concat();
            let (found, rest) = element(&input).unwrap();
            assert_eq!((found.tag, found.raw, found.contents.len(), rest), (4, &raw[..], length, &[9][..]));
            for end in 0..raw.len() {
                assert_eq!(element(&raw[..end]), None);
            }
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for length in [0, 127, 128, 255, 256, 65_535] {
            let contents = vec![7; length];
            let written = encode(OCTET_STRING, &[&contents[..length / 2], &contents[length / 2..]]);
            assert_eq!(only(&written, OCTET_STRING), Some(contents.as_slice()));
            assert_eq!(only(&written, SEQUENCE), None);
            assert_eq!(only(&[written.as_slice(), &[0]].concat(), OCTET_STRING), None);
        }
        assert_eq!(encode_bits(&[1, 2]), [3, 3, 0, 1, 2]);
    }

    #[test]
    fn integers_have_one_form() {
        for (magnitude, encoded) in [
            (&[0][..], &[2, 1, 0][..]),
            (&[1], &[2, 1, 1]),
            (&[0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[1, 0], &[2, 2, 1, 0]),
        ] {
            assert_eq!(encode_unsigned(magnitude), encoded);
            assert_eq!(encode_unsigned(&[&[0, 0], magnitude].concat()), encoded);
            assert_eq!(unsigned(encoded), Some((magnitude, &[][..])));
        }
        assert_eq!(encode_unsigned(&[]), [2, 1, 0]);
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0], &[2, 2, 0, 1], &[2, 2, 0xff, 0xff], &[4, 1, 1]]
        {
            assert_eq!(unsigned(bad), None, "{bad:02x?}");
        }
    }

    #[test]
    fn indefinite_and_padded_lengths_are_refused() {
        for header in [&[4, 0x80][..], &[4, 0x81, 0x7f], &[4, 0x82, 0, 0xff], &[4, 0x83, 1, 0, 0]] {
            assert_eq!(element(&[header, &[0; 300]].concat()), None, "{header:02x?}");
        }
    }

    #[test]
    fn explicit_strings_have_nothing_around_them() {
        assert_eq!(explicit_utf8(&[0xa0, 4, 0x0c, 2, b'h', b'i']), Some("hi"));
        for bad in [
            &[0xa0, 4, 0x0c, 2, b'h', b'i', 0][..],
            &[0xa0, 5, 0x0c, 2, b'h', b'i', 0],
            &[0xa0, 4, 0x0c, 3, b'h', b'i'],
            &[0xa0, 4, 0x16, 2, b'h', b'i'],
            &[0xa1, 4, 0x0c, 2, b'h', b'i'],
            &[0xa0, 4, 0x0c, 2, 0xff, 0xff],
        ] {
            assert_eq!(explicit_utf8(bad), None);
        }
    }
}
