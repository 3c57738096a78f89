//! The two forms of an ECDSA signature: r‖s with fixed sizes in SPDM, a DER sequence in certificates.

use crate::der::{SEQUENCE, encode, encode_unsigned, only, unsigned};

/// The DER form of r‖s.
pub(crate) fn to_der(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    encode(SEQUENCE, &[&encode_unsigned(r), &encode_unsigned(s)])
}

/// r‖s in `size` bytes of a signature in DER; `None` if it is not the one DER form or does not fit.
pub(crate) fn to_fixed(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let (r, rest) = unsigned(only(der, SEQUENCE)?)?;
    let (s, rest) = unsigned(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut fixed = Vec::with_capacity(size);
    for part in [r, s] {
        let padding = (size / 2).checked_sub(part.len())?;
        fixed.resize(fixed.len() + padding, 0);
        fixed.extend_from_slice(part);
    }
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_one_to_one() {
        for fixed in [[1; 64], [0x80; 64], [0; 64], core::array::from_fn(|i| u8::from(i == 63))] {
            let der = to_der(&fixed);
            assert_eq!(to_fixed(&der, 64).as_deref(), Some(&fixed[..]));
            assert_eq!(to_fixed(&[der.as_slice(), &[0]].concat(), 64), None);
            for end in 0..der.len() {
                assert_eq!(to_fixed(&der[..end], 64), None);
            }
        }
        let long = to_der(&[1; 66]);
        assert_eq!(to_fixed(&long, 64), None);
        assert_eq!(to_fixed(&[0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1], 64), None, "three numbers");
    }
}
