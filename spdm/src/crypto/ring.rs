//! The provider on top of `ring`.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, agreement, digest, hkdf, hmac, signature};

use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, Digest, HashAlgorithm, Hasher, IV_SIZE,
    KeyAgreement, Provider, Secret, Signer, TAG_SIZE,
};

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

const fn digest_algorithm(hash: HashAlgorithm) -> &'static digest::Algorithm {
    match hash {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
    }
}

const fn hmac_algorithm(hash: HashAlgorithm) -> hmac::Algorithm {
    match hash {
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    }
}

const fn hkdf_algorithm(hash: HashAlgorithm) -> hkdf::Algorithm {
    match hash {
        HashAlgorithm::Sha256 => hkdf::HKDF_SHA256,
        HashAlgorithm::Sha384 => hkdf::HKDF_SHA384,
        HashAlgorithm::Sha512 => hkdf::HKDF_SHA512,
    }
}

const fn group_algorithm(group: DheGroup) -> &'static agreement::Algorithm {
    match group {
        DheGroup::P256 => &agreement::ECDH_P256,
        DheGroup::P384 => &agreement::ECDH_P384,
    }
}

/// `ring` verifies more pairs than it signs; offering only those it signs keeps both roles alike.
const fn signing_pair(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
    matches!(
        (algorithm, hash),
        (AsymAlgorithm::EcdsaP256, HashAlgorithm::Sha256) | (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384)
    )
}

struct Length(usize);

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
        signing_pair(algorithm, hash)
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
        Ok(Box::new(RingHasher(digest::Context::new(digest_algorithm(hash)))))
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        let tag = hmac::sign(&hmac::Key::new(hmac_algorithm(hash), key), data);
        Secret::new(tag.as_ref()).ok_or(CryptoError::Failed)
    }

    fn hmac_verify(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        hmac::verify(&hmac::Key::new(hmac_algorithm(hash), key), data, tag).map_err(|_| CryptoError::Mismatch)
    }

    fn hkdf_expand(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<Secret, CryptoError> {
        let mut secret = Secret::zeros(length);
        hkdf::Prk::new_less_safe(hkdf_algorithm(hash), key)
            .expand(&[info], Length(length))
            .and_then(|output| output.fill(secret.as_mut()))
            .map_err(|_| CryptoError::Failed)?;
        Ok(secret)
    }

    fn verify(
        &self,
        algorithm: AsymAlgorithm,
        hash: HashAlgorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let verification: &'static dyn signature::VerificationAlgorithm = match (algorithm, hash) {
            (AsymAlgorithm::EcdsaP256, HashAlgorithm::Sha256) => &signature::ECDSA_P256_SHA256_FIXED,
            (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384) => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return Err(CryptoError::Unavailable),
        };
        signature::UnparsedPublicKey::new(verification, public_key)
            .verify(message, signature)
            .map_err(|_| CryptoError::Mismatch)
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
        let algorithm = match aead {
            Aead::Aes128Gcm => &aead::AES_128_GCM,
            Aead::Aes256Gcm => &aead::AES_256_GCM,
        };
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Malformed)?;
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
        let private = agreement::EphemeralPrivateKey::generate(group_algorithm(group), random)
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
        let size = self.group.size();
        let (Some([_, xy @ ..]), true) = (point.get_mut(..=size), peer.len() == size) else {
            return Err(CryptoError::Malformed);
        };
        xy.copy_from_slice(peer);
        let peer = agreement::UnparsedPublicKey::new(
            group_algorithm(self.group),
            point.get(..=size).unwrap_or_default(),
        );
        agreement::agree_ephemeral(self.private, &peer, Secret::new)
            .map_err(|_| CryptoError::Malformed)?
            .ok_or(CryptoError::Failed)
    }
}

/// An ECDSA key held by `ring`.
pub struct RingSigner {
    key: signature::EcdsaKeyPair,
    algorithm: AsymAlgorithm,
    random: SystemRandom,
}

impl RingSigner {
    /// From a PKCS#8 document (version 1 or 2, with the public key inside, as `ring` and `rcgen` write it).
    pub fn from_pkcs8(algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Self, CryptoError> {
        let random = SystemRandom::new();
        let signing = match algorithm {
            AsymAlgorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            AsymAlgorithm::EcdsaP384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        let key = signature::EcdsaKeyPair::from_pkcs8(signing, pkcs8, &random)
            .map_err(|_| CryptoError::Malformed)?;
        Ok(Self { key, algorithm, random })
    }

    /// The public key, 0x04‖X‖Y.
    pub fn public_key(&self) -> &[u8] {
        use ring::signature::KeyPair;
        self.key.public_key().as_ref()
    }
}

impl core::fmt::Debug for RingSigner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "RingSigner({:?})", self.algorithm)
    }
}

impl Signer for RingSigner {
    fn algorithm(&self) -> AsymAlgorithm {
        self.algorithm
    }

    fn supports(&self, hash: HashAlgorithm) -> bool {
        signing_pair(self.algorithm, hash)
    }

    fn sign(&self, hash: HashAlgorithm, message: &[u8], signature: &mut Vec<u8>) -> Result<(), CryptoError> {
        if !self.supports(hash) {
            return Err(CryptoError::Unavailable);
        }
        let made = self.key.sign(&self.random, message).map_err(|_| CryptoError::Failed)?;
        signature.extend_from_slice(made.as_ref());
        Ok(())
    }
}
