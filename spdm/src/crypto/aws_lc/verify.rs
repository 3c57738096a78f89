//! Signatures that AWS-LC verifies.

use aws_lc_rs::signature::{self, RsaParameters, UnparsedPublicKey};

use super::ecdsa::Curve;
use crate::crypto::public_key::modulus_size;
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, SignedMessage, ml_dsa};

/// Whether signatures of this pair can be verified, and made.
pub(super) fn supports(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
    use AsymAlgorithm as A;
    match algorithm {
        A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 => true,
        // These hash by themselves; the negotiated hash is at work in the transcript only.
        A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => true,
        A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => {
            rsa(algorithm, hash).is_some()
        }
    }
}

fn rsa(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> Option<&'static RsaParameters> {
    use AsymAlgorithm as A;
    let pss = matches!(algorithm, A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096);
    Some(match hash {
        HashAlgorithm::Sha256 if pss => &signature::RSA_PSS_2048_8192_SHA256,
        HashAlgorithm::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::Sha384 if pss => &signature::RSA_PSS_2048_8192_SHA384,
        HashAlgorithm::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        HashAlgorithm::Sha512 if pss => &signature::RSA_PSS_2048_8192_SHA512,
        HashAlgorithm::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => return None,
    })
}

pub(super) fn verify(
    algorithm: AsymAlgorithm,
    hash: HashAlgorithm,
    public_key: &[u8],
    message: SignedMessage<'_>,
    signature: &[u8],
) -> Result<(), CryptoError> {
    use AsymAlgorithm as A;
    if !supports(algorithm, hash) {
        return Err(CryptoError::Unavailable);
    }
    let size = algorithm.signature_size();
    if signature.len() != size {
        return Err(CryptoError::Mismatch);
    }
    let verified = match algorithm {
        A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 => {
            let curve = Curve::new(algorithm).ok_or(CryptoError::Unavailable)?;
            let digest = curve.digest(hash, message.bytes)?;
            UnparsedPublicKey::new(curve.verification, public_key).verify_digest(&digest, signature)
        }
        A::Ed25519 => {
            UnparsedPublicKey::new(&signature::ED25519, public_key).verify(message.bytes, signature)
        }
        A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => {
            return ml_dsa::verify(algorithm, public_key, message, signature);
        }
        A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => {
            if modulus_size(public_key) != Some(size) {
                return Err(CryptoError::Malformed);
            }
            let parameters = rsa(algorithm, hash).ok_or(CryptoError::Unavailable)?;
            UnparsedPublicKey::new(parameters, public_key).verify(message.bytes, signature)
        }
    };
    verified.map_err(|_| CryptoError::Mismatch)
}
