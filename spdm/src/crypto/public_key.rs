//! Public keys as certificates carry them: SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) with the algorithms of RFC 3279
//! and RFC 4055 (RSA), RFC 5480 (elliptic curves), RFC 8410 (Ed25519) and RFC 9881 (ML-DSA).

use super::{AsymAlgorithm, CryptoError};
use crate::der::{BIT_STRING, OBJECT_IDENTIFIER, SEQUENCE, encode, encode_bits, only, tagged, unsigned};

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// A key that may be used with RSASSA-PSS only.
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 4, 0, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ML_DSA_44: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17];
const ML_DSA_65: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18];
const ML_DSA_87: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19];
const NULL: &[u8] = &[5, 0];

/// What an algorithm identifier of a key says; the size of RSA keys is in the key only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa { pss_only: bool },
    Other(AsymAlgorithm),
}

impl KeyType {
    /// From the contents of an AlgorithmIdentifier.
    pub(super) fn parse(identifier: &[u8]) -> Option<Self> {
        let (oid, parameters) = tagged(identifier, OBJECT_IDENTIFIER)?;
        let plain = |algorithm| parameters.is_empty().then_some(Self::Other(algorithm));
        match oid {
            RSA_ENCRYPTION => (parameters == NULL).then_some(Self::Rsa { pss_only: false }),
            RSASSA_PSS => Some(Self::Rsa { pss_only: true }),
            EC_PUBLIC_KEY => Self::curve(parameters),
            ED25519 => plain(AsymAlgorithm::Ed25519),
            ML_DSA_44 => plain(AsymAlgorithm::MlDsa44),
            ML_DSA_65 => plain(AsymAlgorithm::MlDsa65),
            ML_DSA_87 => plain(AsymAlgorithm::MlDsa87),
            _ => None,
        }
    }

    /// From the object identifier of a named curve.
    pub(super) fn curve(parameters: &[u8]) -> Option<Self> {
        Some(Self::Other(match only(parameters, OBJECT_IDENTIFIER)? {
            P256 => AsymAlgorithm::EcdsaP256,
            P384 => AsymAlgorithm::EcdsaP384,
            P521 => AsymAlgorithm::EcdsaP521,
            _ => return None,
        }))
    }

    /// The algorithm of a key of this type, whose RSA modulus has this size in bytes.
    pub(super) const fn algorithm(self, modulus_size: Option<usize>) -> Option<AsymAlgorithm> {
        use AsymAlgorithm as A;
        match (self, modulus_size) {
            (Self::Other(algorithm), None) => Some(algorithm),
            (Self::Rsa { pss_only: false }, Some(256)) => Some(A::RsaSsa2048),
            (Self::Rsa { pss_only: true }, Some(256)) => Some(A::RsaPss2048),
            (Self::Rsa { pss_only: false }, Some(384)) => Some(A::RsaSsa3072),
            (Self::Rsa { pss_only: true }, Some(384)) => Some(A::RsaPss3072),
            (Self::Rsa { pss_only: false }, Some(512)) => Some(A::RsaSsa4096),
            (Self::Rsa { pss_only: true }, Some(512)) => Some(A::RsaPss4096),
            _ => None,
        }
    }
}

/// The AlgorithmIdentifier of a key; RSA keys are not bound to one padding by it.
pub(crate) fn key_identifier(algorithm: AsymAlgorithm) -> Vec<u8> {
    use AsymAlgorithm as A;
    let oid = |oid: &[u8]| encode(OBJECT_IDENTIFIER, &[oid]);
    let (algorithm, parameters) = match algorithm {
        A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => {
            (RSA_ENCRYPTION, NULL.to_vec())
        }
        A::EcdsaP256 => (EC_PUBLIC_KEY, oid(P256)),
        A::EcdsaP384 => (EC_PUBLIC_KEY, oid(P384)),
        A::EcdsaP521 => (EC_PUBLIC_KEY, oid(P521)),
        A::Ed25519 => (ED25519, Vec::new()),
        A::MlDsa44 => (ML_DSA_44, Vec::new()),
        A::MlDsa65 => (ML_DSA_65, Vec::new()),
        A::MlDsa87 => (ML_DSA_87, Vec::new()),
    };
    encode(SEQUENCE, &[&oid(algorithm), &parameters])
}

/// Size of the modulus in an RSAPublicKey (RFC 8017 §A.1.1), in bytes.
pub(super) fn modulus_size(public_key: &[u8]) -> Option<usize> {
    let (modulus, _) = unsigned(only(public_key, SEQUENCE)?)?;
    Some(modulus.len())
}

/// The SubjectPublicKeyInfo, in DER, of a key as [`Signer::public_key`](super::Signer::public_key) shows it.
#[must_use]
pub fn encode_public_key(algorithm: AsymAlgorithm, public_key: &[u8]) -> Vec<u8> {
    encode(SEQUENCE, &[&key_identifier(algorithm), &encode_bits(public_key)])
}

/// Algorithm and key of a SubjectPublicKeyInfo in DER. A plain RSA key, which is good for both paddings, is reported
/// as RSASSA-PKCS1-v1_5; [`AsymAlgorithm::serves`] knows.
///
/// # Errors
/// [`CryptoError::Malformed`] if it is none, of an algorithm this crate does not know, or of a wrong size. Whether a
/// point is on its curve shows when it is used.
pub fn parse_public_key(info: &[u8]) -> Result<(AsymAlgorithm, &[u8]), CryptoError> {
    parse(info).ok_or(CryptoError::Malformed)
}

fn parse(info: &[u8]) -> Option<(AsymAlgorithm, &[u8])> {
    use AsymAlgorithm as A;
    let (identifier, rest) = tagged(only(info, SEQUENCE)?, SEQUENCE)?;
    let key_type = KeyType::parse(identifier)?;
    let [0, key @ ..] = only(rest, BIT_STRING)? else { return None };
    let algorithm = match key_type {
        KeyType::Rsa { .. } => key_type.algorithm(Some(modulus_size(key)?))?,
        KeyType::Other(algorithm) => algorithm,
    };
    let point = |size| key.first() == Some(&4) && key.len() == size;
    let well_formed = match algorithm {
        A::EcdsaP256 => point(65),
        A::EcdsaP384 => point(97),
        A::EcdsaP521 => point(133),
        A::Ed25519 => key.len() == 32,
        A::MlDsa44 => key.len() == 1312,
        A::MlDsa65 => key.len() == 1952,
        A::MlDsa87 => key.len() == 2592,
        // Its size decided the algorithm.
        A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => true,
    };
    well_formed.then_some((algorithm, key))
}
