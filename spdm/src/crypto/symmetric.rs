//! Hashes and AEAD of a library with `ring`'s interface: of `ring` itself, and of AWS-LC, whose crate has the same
//! interface with types of its own. Each provider includes this file for the library that it calls `library`.

use super::library::{aead, digest};

use crate::crypto::{Aead, AeadKey, CryptoError, Digest, Hasher, IV_SIZE, TAG_SIZE};

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
