//! Hashes, HMAC, HKDF and AEAD of a library with `ring`'s interface: of `ring` itself, and of AWS-LC, whose crate has the same
//! interface with types of its own. Each provider includes this file for the library that it calls `library`.

use super::library::{aead, digest, hmac};

use crate::crypto::sha3::Sha3;
use crate::crypto::{
    Aead, AeadKey, CryptoError, Digest, HashAlgorithm, Hasher, IV_SIZE, Secret, TAG_SIZE, hkdf_expand,
};

/// A hash in progress.
pub(super) fn hasher(algorithm: &'static digest::Algorithm) -> Box<dyn Hasher> {
    Box::new(Running(digest::Context::new(algorithm)))
}

struct Running(digest::Context);

impl Hasher for Running {
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

/// Who has HMAC and HKDF with a hash: neither library does with SHA-3.
pub(super) enum Keyed {
    Sha2(hmac::Algorithm),
    Sha3(Sha3),
}

impl Keyed {
    pub(super) fn new(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Sha256 => Self::Sha2(hmac::HMAC_SHA256),
            HashAlgorithm::Sha384 => Self::Sha2(hmac::HMAC_SHA384),
            HashAlgorithm::Sha512 => Self::Sha2(hmac::HMAC_SHA512),
            HashAlgorithm::Sha3_256 => Self::Sha3(Sha3::Bits256),
            HashAlgorithm::Sha3_384 => Self::Sha3(Sha3::Bits384),
            HashAlgorithm::Sha3_512 => Self::Sha3(Sha3::Bits512),
        }
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        match self {
            Self::Sha2(algorithm) => {
                let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
                Secret::new(tag.as_ref()).ok_or(CryptoError::Failed)
            }
            Self::Sha3(sha3) => sha3.hmac(key, data),
        }
    }

    pub(super) fn hmac_verify(self, key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
        match self {
            Self::Sha2(algorithm) => {
                hmac::verify(&hmac::Key::new(algorithm, key), data, tag).map_err(|_| CryptoError::Mismatch)
            }
            Self::Sha3(sha3) => sha3.hmac_verify(key, data, tag),
        }
    }

    pub(super) fn hkdf_expand(
        self,
        key: &[u8],
        infos: &[&[u8]],
        outputs: &mut [Secret],
    ) -> Result<(), CryptoError> {
        match self {
            Self::Sha2(algorithm) => {
                let key = hmac::Key::new(algorithm, key);
                hkdf_expand(infos, outputs, |parts| {
                    let mut mac = hmac::Context::with_key(&key);
                    parts.iter().for_each(|part| mac.update(part));
                    mac.sign()
                })
            }
            Self::Sha3(sha3) => sha3.hkdf_expand(key, infos, outputs),
        }
    }
}

/// A prepared key.
pub(super) fn aead_key(aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError> {
    let algorithm = match aead {
        Aead::Aes128Gcm => &aead::AES_128_GCM,
        Aead::Aes256Gcm => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    let key = aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Malformed)?;
    Ok(Box::new(Prepared(aead::LessSafeKey::new(key))))
}

struct Prepared(aead::LessSafeKey);

impl AeadKey for Prepared {
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
