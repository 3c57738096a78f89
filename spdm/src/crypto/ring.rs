//! The provider on top of `ring`.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::KeyPair;
use ring::{aead, agreement, digest, hkdf, hmac, signature};

use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, Digest, HashAlgorithm, Hasher, IV_SIZE,
    KeyAgreement, Provider, Secret, SignedMessage, Signer, TAG_SIZE,
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

const fn digest_algorithm(hash: HashAlgorithm) -> Result<&'static digest::Algorithm, CryptoError> {
    Ok(match hash {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
        HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => {
            return Err(CryptoError::Unavailable);
        }
    })
}

const fn hmac_algorithm(hash: HashAlgorithm) -> Result<hmac::Algorithm, CryptoError> {
    Ok(match hash {
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
        HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => {
            return Err(CryptoError::Unavailable);
        }
    })
}

const fn hkdf_algorithm(hash: HashAlgorithm) -> Result<hkdf::Algorithm, CryptoError> {
    Ok(match hash {
        HashAlgorithm::Sha256 => hkdf::HKDF_SHA256,
        HashAlgorithm::Sha384 => hkdf::HKDF_SHA384,
        HashAlgorithm::Sha512 => hkdf::HKDF_SHA512,
        HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => {
            return Err(CryptoError::Unavailable);
        }
    })
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
    fn supports_hash(&self, hash: HashAlgorithm) -> bool {
        digest_algorithm(hash).is_ok()
    }

    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
        signing_pair(algorithm, hash)
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
        Ok(Box::new(RingHasher(digest::Context::new(digest_algorithm(hash)?))))
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        let tag = hmac::sign(&hmac::Key::new(hmac_algorithm(hash)?, key), data);
        Secret::new(tag.as_ref()).ok_or(CryptoError::Failed)
    }

    fn hmac_verify(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        hmac::verify(&hmac::Key::new(hmac_algorithm(hash)?, key), data, tag)
            .map_err(|_| CryptoError::Mismatch)
    }

    fn hkdf_expand(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<Secret, CryptoError> {
        let mut secret = Secret::zeros(length);
        hkdf::Prk::new_less_safe(hkdf_algorithm(hash)?, key)
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
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let verification: &'static dyn signature::VerificationAlgorithm = match (algorithm, hash) {
            (AsymAlgorithm::EcdsaP256, HashAlgorithm::Sha256) => &signature::ECDSA_P256_SHA256_FIXED,
            (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384) => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return Err(CryptoError::Unavailable),
        };
        signature::UnparsedPublicKey::new(verification, public_key)
            .verify(message.bytes, signature)
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
        let signing = if algorithm == AsymAlgorithm::EcdsaP256 {
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING
        } else if algorithm == AsymAlgorithm::EcdsaP384 {
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING
        } else {
            return Err(CryptoError::Unavailable);
        };
        let key = signature::EcdsaKeyPair::from_pkcs8(signing, pkcs8, &random)
            .map_err(|_| CryptoError::Malformed)?;
        Ok(Self { key, algorithm, random })
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

    fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
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
        let made = self.key.sign(&self.random, message.bytes).map_err(|_| CryptoError::Failed)?;
        signature.extend_from_slice(made.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::hex;

    #[test]
    fn the_agreement_leaves_out_the_form_byte() {
        let provider = RingProvider::new();
        for &group in DheGroup::ALL.iter().filter(|&&group| provider.supports_group(group)) {
            let requester = provider.start_exchange(group).unwrap();
            assert_eq!(requester.public().len(), group.request_size());
            let mut public = vec![0xA5];
            let theirs = provider.answer_exchange(group, requester.public(), &mut public).unwrap();
            assert_eq!(public.len(), 1 + group.response_size());
            let ours = requester.agree(&public[1..]).unwrap();
            assert_eq!(ours.as_ref(), theirs.as_ref());
            assert_eq!(ours.as_ref().len(), group.secret_size());
        }
    }

    #[test]
    fn public_values_off_the_curve_are_malformed() {
        let provider = RingProvider::new();
        for &group in DheGroup::ALL.iter().filter(|&&group| provider.supports_group(group)) {
            let size = group.request_size();
            for peer in [vec![0; size], vec![0xFF; size], vec![], vec![1; size - 1], vec![1; size + 1]] {
                let mut public = vec![0xA5];
                let error = provider.answer_exchange(group, &peer, &mut public).unwrap_err();
                assert_eq!((error, public), (CryptoError::Malformed, vec![0xA5]));
            }
        }
    }

    /// RFC 4231 §4.3 and RFC 5869 A.1 (its PRK and info).
    #[test]
    fn hmac_and_hkdf_follow_their_rfcs() {
        let provider = RingProvider::new();
        let (hash, data) = (HashAlgorithm::Sha256, b"what do ya want for nothing?");
        let tag = provider.hmac(hash, b"Jefe", data).unwrap();
        let expected = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(tag.as_ref(), expected);
        provider.hmac_verify(hash, b"Jefe", data, &expected).unwrap();
        let error = provider.hmac_verify(hash, b"jefe", data, &expected).unwrap_err();
        assert_eq!(error, CryptoError::Mismatch);

        let key = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let output = provider.hkdf_expand(hash, &key, &info, 42).unwrap();
        let expected =
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
        assert_eq!(output.as_ref(), expected);
    }

    /// FIPS 180-2 "abc", in one piece and in two, with a fork in between.
    #[test]
    fn hashes_fork() {
        let provider = RingProvider::new();
        let mut hasher = provider.hasher(HashAlgorithm::Sha256).unwrap();
        hasher.update(b"a");
        let mut fork = hasher.fork();
        hasher.update(b"bc");
        fork.update(b"bc");
        let expected = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hasher.digest().as_ref(), expected);
        assert_eq!(fork.digest(), hasher.digest());
        for &hash in HashAlgorithm::ALL.iter().filter(|&&hash| provider.supports_hash(hash)) {
            assert_eq!(provider.hasher(hash).unwrap().digest().as_ref().len(), hash.size());
        }
    }

    #[test]
    fn only_the_pairs_it_signs_are_supported() {
        let provider = RingProvider::new();
        let pairs: Vec<_> = AsymAlgorithm::ALL
            .iter()
            .flat_map(|&asym| HashAlgorithm::ALL.iter().map(move |&hash| (asym, hash)))
            .filter(|&(asym, hash)| provider.supports_signature(asym, hash))
            .collect();
        let (p256, p384) = (AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384);
        assert_eq!(pairs, [(p256, HashAlgorithm::Sha256), (p384, HashAlgorithm::Sha384)]);
        for (algorithm, hash) in pairs {
            let signing = if algorithm == AsymAlgorithm::EcdsaP256 {
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING
            } else {
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING
            };
            let random = SystemRandom::new();
            let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
            let signer = RingSigner::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
            let mut signature = vec![0xA5];
            signer.sign(hash, SignedMessage::plain(b"message"), &mut signature).unwrap();
            assert_eq!(signature.len(), 1 + algorithm.signature_size());
            let verify = |message, signature: &[u8]| {
                let message = SignedMessage::plain(message);
                provider.verify(algorithm, hash, signer.public_key(), message, signature)
            };
            verify(b"message", &signature[1..]).unwrap();
            assert_eq!(verify(b"massage", &signature[1..]), Err(CryptoError::Mismatch));
            assert_eq!(verify(b"message", &signature[2..]), Err(CryptoError::Mismatch));
            let mut untouched = vec![0xA5];
            let other = HashAlgorithm::Sha512;
            assert_eq!(
                signer.sign(other, SignedMessage::plain(b""), &mut untouched),
                Err(CryptoError::Unavailable)
            );
            assert_eq!(untouched, [0xA5]);
            assert!(RingSigner::from_pkcs8(algorithm, &pkcs8.as_ref()[1..]).is_err());
        }
    }

    #[test]
    fn aead_keys_have_their_size() {
        let provider = RingProvider::new();
        for &aead in Aead::ALL {
            assert!(provider.aead_key(aead, &vec![0; aead.key_size()]).is_ok());
            assert!(provider.aead_key(aead, &vec![0; aead.key_size() + 1]).is_err());
        }
    }
}
