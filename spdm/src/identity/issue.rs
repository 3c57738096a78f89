//! A signing key of ours as `rcgen` takes it, so that certificates are signed by whatever signs messages.

use std::sync::Arc;

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::crypto::{AsymAlgorithm, CryptoError, PrivateKey, Provider, Signer};

use super::MaterialError;
use super::signature::{sign, usual_hash};

/// A key that signs certificates.
pub(super) struct IssuingKey {
    key: PrivateKey,
    pub(super) signer: Arc<dyn Signer>,
    algorithm: &'static SignatureAlgorithm,
}

impl IssuingKey {
    /// A new key of `provider` that serves this algorithm.
    pub(super) fn generate(provider: &dyn Provider, algorithm: AsymAlgorithm) -> Result<Self, MaterialError> {
        let unavailable = MaterialError::Unavailable(algorithm);
        let (certifying, identifier) = certifying(algorithm).ok_or(unavailable)?;
        let failed = |error: CryptoError| {
            if error == CryptoError::Unavailable {
                MaterialError::Unavailable(algorithm)
            } else {
                MaterialError::Generate(error.to_string())
            }
        };
        let key = PrivateKey::generate(provider, certifying).map_err(failed)?;
        let signer = key.signer(provider, certifying).map_err(failed)?;
        Ok(Self { key, signer, algorithm: identifier })
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        self.key.pkcs8()
    }
}

/// What a key of this algorithm signs certificates with: RSA keys with the padding that every verifier knows.
fn certifying(algorithm: AsymAlgorithm) -> Option<(AsymAlgorithm, &'static SignatureAlgorithm)> {
    use AsymAlgorithm as A;
    match algorithm {
        A::EcdsaP256 => Some((algorithm, &rcgen::PKCS_ECDSA_P256_SHA256)),
        A::EcdsaP384 => Some((algorithm, &rcgen::PKCS_ECDSA_P384_SHA384)),
        A::Ed25519 => Some((algorithm, &rcgen::PKCS_ED25519)),
        A::RsaSsa2048 | A::RsaPss2048 => Some((A::RsaSsa2048, &rcgen::PKCS_RSA_SHA256)),
        A::RsaSsa3072 | A::RsaPss3072 => Some((A::RsaSsa3072, &rcgen::PKCS_RSA_SHA384)),
        A::RsaSsa4096 | A::RsaPss4096 => Some((A::RsaSsa4096, &rcgen::PKCS_RSA_SHA512)),
        #[cfg(feature = "aws-lc")]
        A::EcdsaP521 => Some((algorithm, &rcgen::PKCS_ECDSA_P521_SHA512)),
        #[cfg(feature = "aws-lc")]
        A::MlDsa44 => Some((algorithm, &rcgen::PKCS_ML_DSA_44)),
        #[cfg(feature = "aws-lc")]
        A::MlDsa65 => Some((algorithm, &rcgen::PKCS_ML_DSA_65)),
        #[cfg(feature = "aws-lc")]
        A::MlDsa87 => Some((algorithm, &rcgen::PKCS_ML_DSA_87)),
        #[cfg(not(feature = "aws-lc"))]
        A::EcdsaP521 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => None,
    }
}

impl PublicKeyData for IssuingKey {
    fn der_bytes(&self) -> &[u8] {
        self.signer.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for IssuingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        sign(&*self.signer, usual_hash(self.signer.algorithm()), message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
