//! The provider on top of `ring`. SHA-3 and every HMAC come from elsewhere.

mod signer;
#[allow(clippy::duplicate_mod, reason = "it is another module for another library")]
#[path = "../symmetric.rs"]
mod symmetric;
mod verify;

use std::sync::Arc;

use ::ring as library;
use ::sha3::{Sha3_256, Sha3_384, Sha3_512};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{agreement, digest};
use zeroize::Zeroizing;

use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, HashAlgorithm, Hasher, KeyAgreement, Provider,
    Secret, SignedMessage, Signer, sha3,
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

const fn group_algorithm(group: DheGroup) -> Result<&'static agreement::Algorithm, CryptoError> {
    match group {
        DheGroup::P256 => Ok(&agreement::ECDH_P256),
        DheGroup::P384 => Ok(&agreement::ECDH_P384),
        DheGroup::P521 | DheGroup::MlKem512 | DheGroup::MlKem768 | DheGroup::MlKem1024 => {
            Err(CryptoError::Unavailable)
        }
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
        Ok(match hash {
            HashAlgorithm::Sha256 => symmetric::hasher(&digest::SHA256),
            HashAlgorithm::Sha384 => symmetric::hasher(&digest::SHA384),
            HashAlgorithm::Sha512 => symmetric::hasher(&digest::SHA512),
            HashAlgorithm::Sha3_256 => sha3::hasher::<Sha3_256>(),
            HashAlgorithm::Sha3_384 => sha3::hasher::<Sha3_384>(),
            HashAlgorithm::Sha3_512 => sha3::hasher::<Sha3_512>(),
        })
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
        symmetric::aead_key(aead, key)
    }

    fn signer(&self, algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Arc<dyn Signer>, CryptoError> {
        Ok(Arc::new(RingSigner::from_pkcs8(algorithm, pkcs8)?))
    }

    fn generate_pkcs8(&self, algorithm: AsymAlgorithm) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        RingSigner::generate_pkcs8(algorithm)
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
