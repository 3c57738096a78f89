//! Private keys held by `ring`.

use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, SignedMessage, Signer};

/// A private key held by `ring`: RSA, Ed25519, ECDSA over P-256 with SHA-256 or over P-384 with SHA-384.
pub struct RingSigner {
    algorithm: AsymAlgorithm,
    key: Key,
    random: SystemRandom,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl RingSigner {
    /// From a PKCS#8 document, one with the public key inside for elliptic curves, as
    /// [`PrivateKey`](crate::crypto::PrivateKey) holds it.
    ///
    /// # Errors
    /// [`CryptoError::Unavailable`] if `ring` does not sign with this algorithm, [`CryptoError::Malformed`] if the
    /// document holds no valid key for it.
    pub fn from_pkcs8(algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Self, CryptoError> {
        use AsymAlgorithm as A;
        let random = SystemRandom::new();
        let key = match algorithm {
            A::EcdsaP256 | A::EcdsaP384 => {
                EcdsaKeyPair::from_pkcs8(ecdsa(algorithm)?, pkcs8, &random).ok().map(Key::Ecdsa)
            }
            A::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok().map(Key::Ed25519),
            A::RsaSsa2048 | A::RsaPss2048 | A::RsaSsa3072 | A::RsaPss3072 | A::RsaSsa4096 | A::RsaPss4096 => {
                RsaKeyPair::from_pkcs8(pkcs8)
                    .ok()
                    .filter(|key| key.public().modulus_len() == algorithm.signature_size())
                    .map(Key::Rsa)
            }
            A::EcdsaP521 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => return Err(CryptoError::Unavailable),
        };
        Ok(Self { algorithm, key: key.ok_or(CryptoError::Malformed)?, random })
    }

    /// A new private key, as PKCS#8; `ring` makes no RSA keys.
    ///
    /// # Errors
    /// [`CryptoError::Unavailable`] for algorithms that it makes no keys of, [`CryptoError::Failed`] for want of entropy.
    pub fn generate_pkcs8(algorithm: AsymAlgorithm) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let random = SystemRandom::new();
        let document = if algorithm == AsymAlgorithm::Ed25519 {
            Ed25519KeyPair::generate_pkcs8(&random)
        } else {
            EcdsaKeyPair::generate_pkcs8(ecdsa(algorithm)?, &random)
        };
        Ok(Zeroizing::new(document.map_err(|_| CryptoError::Failed)?.as_ref().to_vec()))
    }

    /// How an RSA key of this algorithm signs.
    fn padding(&self, hash: HashAlgorithm) -> Option<&'static dyn RsaEncoding> {
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

fn ecdsa(algorithm: AsymAlgorithm) -> Result<&'static EcdsaSigningAlgorithm, CryptoError> {
    if algorithm == AsymAlgorithm::EcdsaP256 {
        Ok(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)
    } else if algorithm == AsymAlgorithm::EcdsaP384 {
        Ok(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)
    } else {
        Err(CryptoError::Unavailable)
    }
}

impl Signer for RingSigner {
    fn algorithm(&self) -> AsymAlgorithm {
        self.algorithm
    }

    fn supports(&self, hash: HashAlgorithm) -> bool {
        match self.key {
            // `ring` binds each curve to one hash when it signs.
            Key::Ecdsa(_) => {
                let bound = if self.algorithm == AsymAlgorithm::EcdsaP256 {
                    HashAlgorithm::Sha256
                } else {
                    HashAlgorithm::Sha384
                };
                hash == bound
            }
            // It hashes by itself; the negotiated hash is at work in the transcript only.
            Key::Ed25519(_) => true,
            Key::Rsa(_) => self.padding(hash).is_some(),
        }
    }

    fn public_key(&self) -> &[u8] {
        match &self.key {
            Key::Ecdsa(key) => key.public_key().as_ref(),
            Key::Ed25519(key) => key.public_key().as_ref(),
            Key::Rsa(key) => key.public_key().as_ref(),
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
            Key::Ecdsa(key) => {
                let made = key.sign(&self.random, message.bytes).map_err(|_| CryptoError::Failed)?;
                signature.extend_from_slice(made.as_ref());
            }
            Key::Ed25519(key) => signature.extend_from_slice(key.sign(message.bytes).as_ref()),
            Key::Rsa(key) => {
                let padding = self.padding(hash).ok_or(CryptoError::Unavailable)?;
                let start = signature.len();
                signature.resize(start + self.algorithm.signature_size(), 0);
                let made = signature.get_mut(start..).unwrap_or_default();
                key.sign(padding, &self.random, message.bytes, made).map_err(|_| CryptoError::Failed)?;
            }
        }
        Ok(())
    }
}

impl core::fmt::Debug for RingSigner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RingSigner({:?})", self.algorithm)
    }
}
