//! The provider on top of `ring`. SHA-3 comes from elsewhere.

mod signer;
mod verify;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, agreement, digest, hkdf, hmac};

use super::sha3::Sha3;
use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, Digest, HashAlgorithm, Hasher, IV_SIZE,
    KeyAgreement, MAX_HASH_SIZE, Provider, Secret, SignedMessage, TAG_SIZE,
};

pub use signer::RingSigner;

/// First byte of an uncompressed point, which SPDM leaves out.
const UNCOMPRESSED: u8 = 4;
/// Room for an uncompressed P-384 point.
const MAX_POINT_SIZE: usize = 97;

/// Cryptography by `ring`, randomness by the operating system.
#[derive(Clone, Debug)]
pub struct RingProvider {
    random: SystemRandom,
}

impl RingProvider {
    /// A provider; it holds no state of its own.
    pub fn new() -> Self {
        Self { random: SystemRandom::new() }
    }
}

impl Default for RingProvider {
    fn default() -> Self {
        Self::new()
    }
}

/// A hash algorithm of `ring`, or who else has it.
enum Hash {
    Sha2(&'static digest::Algorithm, hkdf::Algorithm),
    Sha3(Sha3),
}

impl Hash {
    fn new(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Sha256 => Self::Sha2(&digest::SHA256, hkdf::HKDF_SHA256),
            HashAlgorithm::Sha384 => Self::Sha2(&digest::SHA384, hkdf::HKDF_SHA384),
            HashAlgorithm::Sha512 => Self::Sha2(&digest::SHA512, hkdf::HKDF_SHA512),
            HashAlgorithm::Sha3_256 => Self::Sha3(Sha3::Bits256),
            HashAlgorithm::Sha3_384 => Self::Sha3(Sha3::Bits384),
            HashAlgorithm::Sha3_512 => Self::Sha3(Sha3::Bits512),
        }
    }
}

const fn group_algorithm(group: DheGroup) -> Result<&'static agreement::Algorithm, CryptoError> {
    match group {
        DheGroup::P256 => Ok(&agreement::ECDH_P256),
        DheGroup::P384 => Ok(&agreement::ECDH_P384),
        DheGroup::P521 | DheGroup::MlKem512 | DheGroup::MlKem768 | DheGroup::MlKem1024 => {
            Err(CryptoError::Unavailable)
        }
    }
}

const fn aead_algorithm(aead: Aead) -> &'static aead::Algorithm {
    match aead {
        Aead::Aes128Gcm => &aead::AES_128_GCM,
        Aead::Aes256Gcm => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

struct Length(usize);

/// HKDF-Expand to the length that the output has.
fn expand(key: &hkdf::Prk, info: &[u8], output: &mut Secret) -> Result<(), CryptoError> {
    key.expand(&[info], Length(output.as_ref().len()))
        .and_then(|made| made.fill(output.as_mut()))
        .map_err(|_| CryptoError::Failed)
}

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Provider for RingProvider {
    fn supports_hash(&self, _hash: HashAlgorithm) -> bool {
        true
    }

    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
        verify::Verification::new(algorithm, hash).is_some()
    }

    fn supports_group(&self, group: DheGroup) -> bool {
        group_algorithm(group).is_ok()
    }

    fn supports_aead(&self, _aead: Aead) -> bool {
        true
    }

    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.random.fill(out).map_err(|_| CryptoError::Failed)
    }

    fn hasher(&self, hash: HashAlgorithm) -> Result<Box<dyn Hasher>, CryptoError> {
        Ok(match Hash::new(hash) {
            Hash::Sha2(algorithm, _) => Box::new(RingHasher(digest::Context::new(algorithm))),
            Hash::Sha3(sha3) => sha3.hasher(),
        })
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        match Hash::new(hash) {
            Hash::Sha2(_, algorithm) => {
                let tag = hmac::sign(&hmac::Key::new(algorithm.hmac_algorithm(), key), data);
                Secret::new(tag.as_ref()).ok_or(CryptoError::Failed)
            }
            Hash::Sha3(sha3) => sha3.hmac(key, data),
        }
    }

    fn hmac_verify(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        match Hash::new(hash) {
            Hash::Sha2(_, algorithm) => {
                hmac::verify(&hmac::Key::new(algorithm.hmac_algorithm(), key), data, tag)
                    .map_err(|_| CryptoError::Mismatch)
            }
            Hash::Sha3(sha3) => sha3.hmac_verify(key, data, tag),
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
        match Hash::new(hash) {
            Hash::Sha2(_, algorithm) => {
                let mut secret = Secret::zeros(length);
                expand(&hkdf::Prk::new_less_safe(algorithm, key), info, &mut secret)?;
                Ok(secret)
            }
            Hash::Sha3(sha3) => sha3.hkdf_expand(key, info, length),
        }
    }

    fn hkdf_expand_all(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        infos: &[&[u8]],
        outputs: &mut [Secret],
    ) -> Result<(), CryptoError> {
        let mut pairs = infos.iter().zip(outputs);
        match Hash::new(hash) {
            Hash::Sha2(_, algorithm) => {
                let key = hkdf::Prk::new_less_safe(algorithm, key);
                pairs.try_for_each(|(info, output)| expand(&key, info, output))
            }
            Hash::Sha3(sha3) => pairs.try_for_each(|(info, output)| {
                *output = sha3.hkdf_expand(key, info, output.as_ref().len())?;
                Ok(())
            }),
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
        verify::Verification::new(algorithm, hash).ok_or(CryptoError::Unavailable)?.verify(
            algorithm,
            public_key,
            message.bytes,
            signature,
        )
    }

    fn start_exchange(&self, group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError> {
        Ok(Box::new(RingAgreement::generate(&self.random, group)?))
    }

    fn answer_exchange(
        &self,
        group: DheGroup,
        peer: &[u8],
        public: &mut Vec<u8>,
    ) -> Result<Secret, CryptoError> {
        let agreement = Box::new(RingAgreement::generate(&self.random, group)?);
        let start = public.len();
        public.extend_from_slice(agreement.public());
        agreement.agree(peer).inspect_err(|_| public.truncate(start))
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError> {
        let key = aead::UnboundKey::new(aead_algorithm(aead), key).map_err(|_| CryptoError::Malformed)?;
        Ok(Box::new(RingAead(aead::LessSafeKey::new(key))))
    }
}

struct RingHasher(digest::Context);

impl Hasher for RingHasher {
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

struct RingAead(aead::LessSafeKey);

impl AeadKey for RingAead {
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

struct RingAgreement {
    group: DheGroup,
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl RingAgreement {
    fn generate(random: &SystemRandom, group: DheGroup) -> Result<Self, CryptoError> {
        let private = agreement::EphemeralPrivateKey::generate(group_algorithm(group)?, random)
            .map_err(|_| CryptoError::Failed)?;
        let public = private.compute_public_key().map_err(|_| CryptoError::Failed)?;
        Ok(Self { group, private, public })
    }
}

impl KeyAgreement for RingAgreement {
    fn public(&self) -> &[u8] {
        self.public.as_ref().split_first().map(|(_, point)| point).unwrap_or_default()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError> {
        let mut point = [UNCOMPRESSED; MAX_POINT_SIZE];
        let size = self.group.request_size();
        let (Some([_, xy @ ..]), true) = (point.get_mut(..=size), peer.len() == size) else {
            return Err(CryptoError::Malformed);
        };
        xy.copy_from_slice(peer);
        let peer = agreement::UnparsedPublicKey::new(
            group_algorithm(self.group)?,
            point.get(..=size).unwrap_or_default(),
        );
        agreement::agree_ephemeral(self.private, &peer, Secret::new)
            .map_err(|_| CryptoError::Malformed)?
            .ok_or(CryptoError::Failed)
    }
}
