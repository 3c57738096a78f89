//! The little DER that is read by hand, where the X.509 parser is more lenient than a verifier should be.

/// One DER element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// Identifier octet; multi-byte tags do not occur in what is read here.
    pub(super) tag: u8,
    /// Identifier, length and contents.
    pub(super) raw: &'a [u8],
    /// Contents.
    pub(super) contents: &'a [u8],
}

/// Splits one element with a minimal, definite length off the front.
pub(super) fn element(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
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

/// Whether the algorithm identifier beside a certificate's signature is, byte for byte, the signed one
/// (RFC 5280 §4.1.1.2).
pub(super) fn algorithm_identifiers_agree(certificate: &[u8]) -> bool {
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

/// The text of an `[0] EXPLICIT UTF8String`, as an otherName carries it.
pub(super) fn explicit_utf8(input: &[u8]) -> Option<&str> {
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
