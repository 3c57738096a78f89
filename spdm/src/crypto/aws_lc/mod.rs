//! The provider on top of AWS-LC (feature `aws-lc`). HMAC and ML-DSA come from elsewhere: AWS-LC has no context strings
//! for the latter in its safe interface.

mod ecdsa;
mod exchange;
mod signer;
#[allow(clippy::duplicate_mod, reason = "it is another module for another library")]
#[path = "../symmetric.rs"]
mod symmetric;
mod verify;

use std::sync::Arc;

use aws_lc_rs as library;
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, HashAlgorithm, Hasher, KeyAgreement, Provider,
    Secret, SignedMessage, Signer,
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
        Ok(symmetric::hasher(digest_algorithm(hash)))
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
        symmetric::aead_key(aead, key)
    }

    fn signer(&self, algorithm: AsymAlgorithm, pkcs8: &[u8]) -> Result<Arc<dyn Signer>, CryptoError> {
        Ok(Arc::new(AwsLcSigner::from_pkcs8(algorithm, pkcs8)?))
    }

    fn generate_pkcs8(&self, algorithm: AsymAlgorithm) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        AwsLcSigner::generate_pkcs8(algorithm)
    }
}
