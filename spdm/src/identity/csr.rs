//! Requests for certificates (PKCS#10, RFC 2986) of keys that are ours.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::signature::{identifier, sign};
use crate::crypto::{CryptoError, HashAlgorithm, Signer, encode_public_key};
use crate::der::{SEQUENCE, context, encode, encode_bits, encode_unsigned, tagged, unsigned};

/// What the requester wants in a certificate: a CertificationRequestInfo, of which its key is not taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CsrWishes<'a> {
    /// Contents of the subject name; empty for the device's own.
    name: &'a [u8],
    /// Contents of the attributes.
    attributes: &'a [u8],
}

impl<'a> CsrWishes<'a> {
    /// Parses a CertificationRequestInfo in DER; nothing at all wishes for nothing.
    pub(crate) fn parse(info: &'a [u8]) -> Option<Self> {
        if info.is_empty() {
            return Some(Self::default());
        }
        let (info, rest) = tagged(info, SEQUENCE)?;
        let ([0], info) = unsigned(info).filter(|_| rest.is_empty())? else { return None };
        let (name, info) = tagged(info, SEQUENCE)?;
        let (_key, info) = tagged(info, SEQUENCE)?;
        let (attributes, rest) = tagged(info, context(0))?;
        rest.is_empty().then_some(Self { name, attributes })
    }
}

/// Subject of a certificate, as a Name in DER.
pub(crate) fn subject_name(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.subject().as_raw().to_vec())
}

/// Issuer of a certificate, as a Name in DER.
pub(crate) fn issuer_name(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.issuer().as_raw().to_vec())
}

/// A CertificationRequest in DER for the signer's key. Without a name in the wishes its subject is `name`, the one that the
/// key has in certificates already.
///
/// # Errors
/// [`CryptoError`] if the key cannot sign with this hash in a way that certificates can name.
pub(crate) fn certificate_signing_request(
    signer: &dyn Signer,
    hash: HashAlgorithm,
    wishes: CsrWishes<'_>,
    name: Option<&[u8]>,
) -> Result<Vec<u8>, CryptoError> {
    let own = name.filter(|_| wishes.name.is_empty());
    let subject = own.map_or_else(|| encode(SEQUENCE, &[wishes.name]), <[u8]>::to_vec);
    let info = encode(
        SEQUENCE,
        &[
            &encode_unsigned(&[]),
            &subject,
            &encode_public_key(signer.algorithm(), signer.public_key()),
            &encode(context(0), &[wishes.attributes]),
        ],
    );
    let algorithm = identifier(signer.algorithm(), hash).ok_or(CryptoError::Unavailable)?;
    let signature = sign(signer, hash, &info)?;
    Ok(encode(SEQUENCE, &[&info, &algorithm, &encode_bits(&signature)]))
}

#[cfg(test)]
mod tests {
    use super::super::{PciName, generate, signature};
    use super::*;
    use crate::crypto::{AsymAlgorithm, RingProvider};
    use x509_parser::certification_request::X509CertificationRequest;

    const NAME: PciName = PciName {
        vendor: 0x1b36,
        device: 0x11,
        class: 0x08_8000,
        revision: 1,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        serial: None,
    };

    /// A CertificationRequestInfo with this name and these attributes, both in DER.
    fn info(name: &[u8], attributes: &[u8]) -> Vec<u8> {
        let (name, key) = (encode(SEQUENCE, &[name]), encode(SEQUENCE, &[]));
        let parts = [&encode_unsigned(&[])[..], &name, &key, &encode(context(0), &[attributes])];
        encode(SEQUENCE, &parts)
    }

    /// Read by another parser than wrote it.
    #[test]
    fn a_request_is_signed_by_the_key_it_is_for() {
        let provider = RingProvider::new();
        for (algorithm, hash) in [
            (AsymAlgorithm::EcdsaP256, HashAlgorithm::Sha256),
            (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384),
        ] {
            let material = generate(&NAME, algorithm).unwrap();
            let (slot, leaf) = (material.slot(), material.certificates().last().unwrap());
            // CN=x, and an attribute challengePassword.
            let name = [&[0x31, 0x0C, 0x30, 0x0A, 6, 3, 0x55, 4, 3, 0x0C, 3][..], b"one"].concat();
            let attribute =
                [&[0x30, 0x12, 6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 13, 1, 9, 7, 0x31, 5, 12, 3][..], b"two"]
                    .concat();
            let own = subject_name(leaf);
            let wanted = info(&name, &attribute);
            for (wishes, subject) in [(&[][..], "CN=tdispd device 1b36:0011"), (&wanted, "CN=one")] {
                let wishes = CsrWishes::parse(wishes).unwrap();
                let csr =
                    certificate_signing_request(slot.key.as_ref(), hash, wishes, own.as_deref()).unwrap();
                let (rest, parsed) = X509CertificationRequest::from_der(&csr).unwrap();
                assert!(rest.is_empty());
                let body = &parsed.certification_request_info;
                assert_eq!(body.subject.to_string(), subject);
                assert_eq!(&*body.subject_pki.subject_public_key.data, slot.key.public_key());
                let (identifier, signed) = crate::der::signed_parts(&csr).unwrap();
                let key = (algorithm, slot.key.public_key());
                let bits = &*parsed.signature_value.data;
                assert_eq!(signature::verify(&provider, key, identifier, signed, bits), Ok(()));
            }
            let csr = certificate_signing_request(
                slot.key.as_ref(),
                hash,
                CsrWishes::parse(&wanted).unwrap(),
                None,
            );
            let csr = csr.unwrap();
            assert!(csr.windows(attribute.len()).any(|window| window == attribute));
        }
    }

    #[test]
    fn wishes_are_a_certification_request_info() {
        let good = info(&[], &[]);
        assert!(CsrWishes::parse(&good).is_some());
        for length in 1..good.len() {
            assert!(CsrWishes::parse(&good[..length]).is_none(), "{length}");
        }
        for at in [0, 2, 4, 5, 7, 9] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(CsrWishes::parse(&bad).is_none(), "{at}");
        }
        assert!(CsrWishes::parse(&[&good[..], &[0]].concat()).is_none());
    }
}
