//! The provider on top of AWS-LC (feature `aws-lc`). HMAC with SHA-3 and ML-DSA come from elsewhere: AWS-LC has no
//! HMAC with the one, and no context strings for the other in its safe interface.

mod ecdsa;
mod exchange;
mod signer;
mod verify;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{aead, digest, hkdf, hmac};

use super::sha3::Sha3;
use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, Digest, HashAlgorithm, Hasher, IV_SIZE,
    KeyAgreement, MAX_HASH_SIZE, Provider, Secret, SignedMessage, TAG_SIZE,
};

pub use signer::AwsLcSigner;

/// Cryptography by AWS-LC, randomness by the operating system through it.
#[derive(Clone, Debug)]
pub struct AwsLcProvider {
    random: SystemRandom,
}

impl AwsLcProvider {
    /// A provider; it holds no state of its own.
    pub fn new() -> Self {
        Self { random: SystemRandom::new() }
    }
}

impl Default for AwsLcProvider {
    fn default() -> Self {
        Self::new()
    }
}

fn digest_algorithm(hash: HashAlgorithm) -> &'static digest::Algorithm {
    match hash {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
        HashAlgorithm::Sha3_256 => &digest::SHA3_256,
        HashAlgorithm::Sha3_384 => &digest::SHA3_384,
        HashAlgorithm::Sha3_512 => &digest::SHA3_512,
    }
}

/// Who has HMAC and HKDF with a hash.
enum Keyed {
    Sha2(hmac::Algorithm, hkdf::Algorithm),
    Sha3(Sha3),
}

impl Keyed {
    fn new(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Sha256 => Self::Sha2(hmac::HMAC_SHA256, hkdf::HKDF_SHA256),
            HashAlgorithm::Sha384 => Self::Sha2(hmac::HMAC_SHA384, hkdf::HKDF_SHA384),
            HashAlgorithm::Sha512 => Self::Sha2(hmac::HMAC_SHA512, hkdf::HKDF_SHA512),
            HashAlgorithm::Sha3_256 => Self::Sha3(Sha3::Bits256),
            HashAlgorithm::Sha3_384 => Self::Sha3(Sha3::Bits384),
            HashAlgorithm::Sha3_512 => Self::Sha3(Sha3::Bits512),
        }
    }
}

fn aead_algorithm(aead: Aead) -> &'static aead::Algorithm {
    match aead {
        Aead::Aes128Gcm => &aead::AES_128_GCM,
        Aead::Aes256Gcm => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Provider for AwsLcProvider {
    fn supports_hash(&self, _hash: HashAlgorithm) -> bool {
        true
    }

    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
        verify::supports(algorithm, hash)
    }

    fn supports_group(&self, _group: DheGroup) -> bool {
        true
    }

    fn supports_aead(&self, _aead: Aead) -> bool {
        true
    }

    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.random.fill(out).map_err(|_| CryptoError::Failed)
    }

    fn hasher(&self, hash: HashAlgorithm) -> Result<Box<dyn Hasher>, CryptoError> {
        Ok(Box::new(AwsLcHasher(digest::Context::new(digest_algorithm(hash)))))
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        match Keyed::new(hash) {
            Keyed::Sha2(algorithm, _) => {
                let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
                Secret::new(tag.as_ref()).ok_or(CryptoError::Failed)
            }
            Keyed::Sha3(sha3) => sha3.hmac(key, data),
        }
    }

    fn hmac_verify(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        match Keyed::new(hash) {
            Keyed::Sha2(algorithm, _) => {
                hmac::verify(&hmac::Key::new(algorithm, key), data, tag).map_err(|_| CryptoError::Mismatch)
            }
            Keyed::Sha3(sha3) => sha3.hmac_verify(key, data, tag),
        }
    }

    fn hkdf_expand(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<Secret, CryptoError> {
        if length > MAX_HASH_SIZE {
            return Err(CryptoError::Failed);
        }
        match Keyed::new(hash) {
            Keyed::Sha2(_, algorithm) => {
                let mut secret = Secret::zeros(length);
                hkdf::Prk::new_less_safe(algorithm, key)
                    .expand(&[info], Length(length))
                    .and_then(|output| output.fill(secret.as_mut()))
                    .map_err(|_| CryptoError::Failed)?;
                Ok(secret)
            }
            Keyed::Sha3(sha3) => sha3.hkdf_expand(key, info, length),
        }
    }

    fn verify(
        &self,
        algorithm: AsymAlgorithm,
        hash: HashAlgorithm,
        public_key: &[u8],
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        verify::verify(algorithm, hash, public_key, message, signature)
    }

    fn start_exchange(&self, group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError> {
        exchange::start(&self.random, group)
    }

    fn answer_exchange(
        &self,
        group: DheGroup,
        peer: &[u8],
        public: &mut Vec<u8>,
    ) -> Result<Secret, CryptoError> {
        exchange::answer(&self.random, group, peer, public)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError> {
        let key = aead::UnboundKey::new(aead_algorithm(aead), key).map_err(|_| CryptoError::Malformed)?;
        Ok(Box::new(AwsLcAead(aead::LessSafeKey::new(key))))
    }
}

struct AwsLcHasher(digest::Context);

impl Hasher for AwsLcHasher {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.clone()))
    }

    fn digest(&self) -> Digest {
        Digest::new(self.0.clone().finish().as_ref())
    }
}

struct AwsLcAead(aead::LessSafeKey);

impl AeadKey for AwsLcAead {
    fn seal(
        &self,
        iv: &[u8; IV_SIZE],
        associated: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_SIZE], CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(*iv);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, aead::Aad::from(associated), data)
            .map_err(|_| CryptoError::Failed)?;
        tag.as_ref().try_into().map_err(|_| CryptoError::Failed)
    }

    fn open<'a>(
        &self,
        iv: &[u8; IV_SIZE],
        associated: &[u8],
        data: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(*iv);
        self.0.open_in_place(nonce, aead::Aad::from(associated), data).map_err(|_| CryptoError::Mismatch)
    }
}
