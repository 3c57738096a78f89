//! Signatures that `ring` verifies.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::crypto::public_key::modulus_size;
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, ecdsa};

type Algorithm = &'static dyn VerificationAlgorithm;

/// How `ring` verifies a signature.
pub(super) enum Verification {
    /// As it comes.
    Plain(Algorithm),
    /// ECDSA, in DER.
    EcdsaDer(Algorithm),
    /// RSA, which SPDM binds to one size of key.
    Rsa(Algorithm),
}

impl Verification {
    /// The way for this pair, if there is one.
    pub(super) fn new(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> Option<Self> {
        use AsymAlgorithm as A;
        use HashAlgorithm as H;
        Some(match (algorithm, hash) {
            (A::EcdsaP256, H::Sha256) => Self::Plain(&signature::ECDSA_P256_SHA256_FIXED),
            (A::EcdsaP256, H::Sha384) => Self::EcdsaDer(&signature::ECDSA_P256_SHA384_ASN1),
            (A::EcdsaP384, H::Sha256) => Self::EcdsaDer(&signature::ECDSA_P384_SHA256_ASN1),
            (A::EcdsaP384, H::Sha384) => Self::Plain(&signature::ECDSA_P384_SHA384_FIXED),
            (A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096, H::Sha256) => {
                Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256)
            }
            (A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096, H::Sha384) => {
                Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384)
            }
            (A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096, H::Sha512) => {
                Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512)
            }
            (A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096, H::Sha256) => {
                Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256)
            }
            (A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096, H::Sha384) => {
                Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384)
            }
            (A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096, H::Sha512) => {
                Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512)
            }
            // It hashes by itself; the negotiated hash is at work in the transcript only.
            (A::Ed25519, _) => Self::Plain(&signature::ED25519),
            _ => return None,
        })
    }

    pub(super) fn verify(
        &self,
        algorithm: AsymAlgorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let size = algorithm.signature_size();
        if signature.len() != size {
            return Err(CryptoError::Mismatch);
        }
        let check = |how: Algorithm, signature: &[u8]| {
            UnparsedPublicKey::new(how, public_key)
                .verify(message, signature)
                .map_err(|_| CryptoError::Mismatch)
        };
        match *self {
            Self::Plain(how) => check(how, signature),
            Self::EcdsaDer(how) => check(how, &ecdsa::to_der(signature)),
            Self::Rsa(how) if modulus_size(public_key) == Some(size) => check(how, signature),
            Self::Rsa(_) => Err(CryptoError::Malformed),
        }
    }
}
