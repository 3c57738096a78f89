//! ECDSA with any hash. AWS-LC binds each curve to some hashes, but takes ready-made digests; and of a digest, ECDSA
//! uses a number that does not say where it is from.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm};

use super::digest_algorithm;
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, MAX_HASH_SIZE};

/// A curve, with the hash whose size is the curve's (512 bits for P-521).
pub(super) struct Curve {
    pub(super) signing: &'static EcdsaSigningAlgorithm,
    pub(super) verification: &'static EcdsaVerificationAlgorithm,
    carrier: &'static digest::Algorithm,
}

impl Curve {
    pub(super) fn new(algorithm: AsymAlgorithm) -> Option<Self> {
        if algorithm == AsymAlgorithm::EcdsaP256 {
            Some(Self {
                signing: &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                verification: &signature::ECDSA_P256_SHA256_FIXED,
                carrier: &digest::SHA256,
            })
        } else if algorithm == AsymAlgorithm::EcdsaP384 {
            Some(Self {
                signing: &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                verification: &signature::ECDSA_P384_SHA384_FIXED,
                carrier: &digest::SHA384,
            })
        } else if algorithm == AsymAlgorithm::EcdsaP521 {
            Some(Self {
                signing: &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
                verification: &signature::ECDSA_P521_SHA512_FIXED,
                carrier: &digest::SHA512,
            })
        } else {
            None
        }
    }

    /// The number that ECDSA makes of a message, as a digest of the curve's own hash: the leftmost bits of a longer
    /// digest, a shorter one behind zeros (FIPS 186-5 §6.4.1, steps 1 and 2).
    pub(super) fn digest(&self, hash: HashAlgorithm, message: &[u8]) -> Result<digest::Digest, CryptoError> {
        let hashed = digest::digest(digest_algorithm(hash), message);
        let size = self.carrier.output_len();
        let mut number = [0; MAX_HASH_SIZE];
        let padding = size.saturating_sub(hashed.as_ref().len());
        number.iter_mut().skip(padding).zip(hashed.as_ref()).for_each(|(to, from)| *to = *from);
        let number = number.get(..size).unwrap_or_default();
        digest::Digest::import_less_safe(number, self.carrier).map_err(|_| CryptoError::Failed)
    }
}
