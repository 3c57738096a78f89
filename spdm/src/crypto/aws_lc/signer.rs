//! Private keys held by AWS-LC, and ML-DSA's beside them.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaSignatureEncoding,
};
use zeroize::Zeroizing;

use super::ecdsa::Curve;
use super::verify::supports;
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, SignedMessage, Signer, ml_dsa};

/// A private key of any algorithm.
pub struct AwsLcSigner {
    algorithm: AsymAlgorithm,
    key: Key,
    random: SystemRandom,
}

enum Key {
    Ecdsa(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    MlDsa(Box<dyn ml_dsa::Key>),
}

impl AwsLcSigner {
    /// From a PKCS#8 document, as [`PrivateKey`](crate::crypto::PrivateKey) holds it.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] if the document holds no valid key for this algorithm.
    pub fn from_pkcs8(algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Self, CryptoError> {
        use AsymAlgorithm as A;
        let key = match algorithm {
            A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 => {
                let curve = Curve::new(algorithm).ok_or(CryptoError::Unavailable)?;
                EcdsaKeyPair::from_pkcs8(curve.signing, pkcs8).ok().map(|key| Key::Ecdsa(curve, key))
            }
            A::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok().map(Key::Ed25519),
            A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => {
                RsaKeyPair::from_pkcs8(pkcs8)
                    .ok()
                    .filter(|key| key.public_modulus_len() == algorithm.signature_size())
                    .map(Key::Rsa)
            }
            A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => Some(Key::MlDsa(ml_dsa::from_pkcs8(algorithm, pkcs8)?)),
        };
        Ok(Self { algorithm, key: key.ok_or(CryptoError::Malformed)?, random: SystemRandom::new() })
    }

    /// A new private key, as PKCS#8.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] for want of entropy.
    pub fn generate_pkcs8(algorithm: AsymAlgorithm) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        use AsymAlgorithm as A;
        let random = SystemRandom::new();
        let rsa = |size| RsaKeyPair::generate(size).and_then(|key| AsDer::<Pkcs8V1Der<'_>>::as_der(&key));
        let document = match algorithm {
            A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 => {
                let curve = Curve::new(algorithm).ok_or(CryptoError::Unavailable)?;
                EcdsaKeyPair::generate_pkcs8(curve.signing, &random).map(|key| key.as_ref().to_vec())
            }
            A::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random).map(|key| key.as_ref().to_vec()),
            A::RsaSsa2048 | A::RsaPss2048 => rsa(KeySize::Rsa2048).map(|key| key.as_ref().to_vec()),
            A::RsaSsa3072 | A::RsaPss3072 => rsa(KeySize::Rsa3072).map(|key| key.as_ref().to_vec()),
            A::RsaSsa4096 | A::RsaPss4096 => rsa(KeySize::Rsa4096).map(|key| key.as_ref().to_vec()),
            A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => return ml_dsa::generate_pkcs8(algorithm, &random),
        };
        document.map(Zeroizing::new).map_err(|_| CryptoError::Failed)
    }

    /// How an RSA key of this algorithm signs.
    fn padding(&self, hash: HashAlgorithm) -> Option<&'static RsaSignatureEncoding> {
        use AsymAlgorithm as A;
        let pss = matches!(self.algorithm, A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096);
        Some(match hash {
            HashAlgorithm::Sha256 if pss => &signature::RSA_PSS_SHA256,
            HashAlgorithm::Sha256 => &signature::RSA_PKCS1_SHA256,
            HashAlgorithm::Sha384 if pss => &signature::RSA_PSS_SHA384,
            HashAlgorithm::Sha384 => &signature::RSA_PKCS1_SHA384,
            HashAlgorithm::Sha512 if pss => &signature::RSA_PSS_SHA512,
            HashAlgorithm::Sha512 => &signature::RSA_PKCS1_SHA512,
            HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => return None,
        })
    }
}

impl Signer for AwsLcSigner {
    fn algorithm(&self) -> AsymAlgorithm {
        self.algorithm
    }

    fn supports(&self, hash: HashAlgorithm) -> bool {
        supports(self.algorithm, hash)
    }

    fn public_key(&self) -> &[u8] {
        match &self.key {
            Key::Ecdsa(_, key) => key.public_key().as_ref(),
            Key::Ed25519(key) => key.public_key().as_ref(),
            Key::Rsa(key) => key.public_key().as_ref(),
            Key::MlDsa(key) => key.public_key(),
        }
    }

    fn sign(
        &self,
        hash: HashAlgorithm,
        message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if !self.supports(hash) {
            return Err(CryptoError::Unavailable);
        }
        match &self.key {
            Key::Ecdsa(curve, key) => {
                let digest = curve.digest(hash, message.bytes)?;
                let made = key.sign_digest(&digest).map_err(|_| CryptoError::Failed)?;
                signature.extend_from_slice(made.as_ref());
            }
            Key::Ed25519(key) => {
                let made = key.try_sign(message.bytes).map_err(|_| CryptoError::Failed)?;
                signature.extend_from_slice(made.as_ref());
            }
            Key::Rsa(key) => {
                let padding = self.padding(hash).ok_or(CryptoError::Unavailable)?;
                let start = signature.len();
                signature.resize(start + self.algorithm.signature_size(), 0);
                let made = signature.get_mut(start..).unwrap_or_default();
                if key.sign(padding, &self.random, message.bytes, made).is_err() {
                    signature.truncate(start);
                    return Err(CryptoError::Failed);
                }
            }
            Key::MlDsa(key) => key.sign(&self.random, message, signature)?,
        }
        Ok(())
    }
}

impl core::fmt::Debug for AwsLcSigner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AwsLcSigner({:?})", self.algorithm)
    }
}
