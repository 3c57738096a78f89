//! The framing that SPDM puts around a certificate chain.

/// Length and reserved fields before the root hash.
const HEADER: usize = 4;

/// DSP0274 1.3 "Certificate chain format", borrowed from received bytes: two bytes of length (of the whole,
/// little-endian), two reserved bytes, the digest of the root certificate, the DER certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainView<'a> {
    /// Digest of the root certificate under the negotiated hash, whether or not the chain contains the root.
    pub root_hash: &'a [u8],
    /// The DER certificates, root side first, leaf last.
    pub certificates: &'a [u8],
}

/// The bytes are not framed as a certificate chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFormatError {
    /// Shorter than its header and root hash.
    #[error("certificate chain is cut off in its header")]
    Truncated,
    /// The length field counts something else than what is there.
    #[error("certificate chain says it has {stated} bytes and has {actual}")]
    Length {
        /// The length field.
        stated: usize,
        /// The bytes present.
        actual: usize,
    },
    /// A reserved byte is not zero (SPDM 1.4 gives the field a meaning; 1.2 and 1.3 do not).
    #[error("certificate chain has a reserved bit set")]
    Reserved,
    /// The chain does not fit a 16-bit length.
    #[error("certificate chain of {0} bytes is longer than 65535")]
    TooLong(usize),
}

impl<'a> ChainView<'a> {
    /// Splits `bytes` into its parts. `hash_len` is the size of the negotiated hash.
    ///
    /// # Errors
    /// [`ChainFormatError`] unless the length field counts exactly `bytes` and the reserved field is zero.
    pub fn parse(bytes: &'a [u8], hash_len: usize) -> Result<Self, ChainFormatError> {
        let ([l0, l1, r0, r1], rest) =
            bytes.split_first_chunk::<HEADER>().ok_or(ChainFormatError::Truncated)?;
        let stated = usize::from(u16::from_le_bytes([*l0, *l1]));
        if stated != bytes.len() {
            return Err(ChainFormatError::Length { stated, actual: bytes.len() });
        }
        if (*r0, *r1) != (0, 0) {
            return Err(ChainFormatError::Reserved);
        }
        let (root_hash, certificates) =
            rest.split_at_checked(hash_len).ok_or(ChainFormatError::Truncated)?;
        Ok(Self { root_hash, certificates })
    }
}

/// Frames `certificates` (DER, root first) under `root_hash`.
///
/// # Errors
/// [`ChainFormatError::TooLong`] beyond what the 16-bit length field of SPDM 1.2 and 1.3 can say.
pub fn encode_chain<C: AsRef<[u8]>>(
    root_hash: &[u8],
    certificates: &[C],
) -> Result<Vec<u8>, ChainFormatError> {
    let len = HEADER + root_hash.len() + certificates.iter().map(|c| c.as_ref().len()).sum::<usize>();
    let stated = u16::try_from(len).map_err(|_| ChainFormatError::TooLong(len))?;
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&stated.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(root_hash);
    for certificate in certificates {
        out.extend_from_slice(certificate.as_ref());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 11] = [11, 0, 0, 0, 0xaa, 0xbb, 1, 2, 3, 4, 5];

    #[test]
    fn encodes_and_parses_the_golden_bytes() {
        assert_eq!(encode_chain(&[0xaa, 0xbb], &[&[1u8, 2][..], &[3, 4, 5]]), Ok(GOLDEN.to_vec()));
        let view = ChainView { root_hash: &[0xaa, 0xbb], certificates: &[1, 2, 3, 4, 5] };
        assert_eq!(ChainView::parse(&GOLDEN, 2), Ok(view));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        for end in 0..GOLDEN.len() {
            assert!(ChainView::parse(&GOLDEN[..end], 2).is_err(), "{end}");
        }
        let longer = [GOLDEN.as_slice(), &[0]].concat();
        assert_eq!(
            ChainView::parse(&longer, 2),
            Err(ChainFormatError::Length { stated: 11, actual: 12 })
        );
    }

    #[test]
    fn reserved_bits_and_a_long_hash_are_refused() {
        for byte in [2, 3] {
            let mut bad = GOLDEN;
            bad[byte] = 1;
            assert_eq!(ChainView::parse(&bad, 2), Err(ChainFormatError::Reserved));
        }
        assert_eq!(ChainView::parse(&GOLDEN, 8), Err(ChainFormatError::Truncated));
    }

    #[test]
    fn a_chain_beyond_16_bits_is_refused() {
        assert_eq!(encode_chain(&[], &[vec![0; 65_532]]), Err(ChainFormatError::TooLong(65_536)));
    }
}
