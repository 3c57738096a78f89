//! Cryptography as the protocol sees it: algorithms, secrets, and the provider that does the work.
//!
//! Randomness, key agreement and signing are separate so that a recorded transcript can be replayed with the
//! recorded secrets.

mod algorithms;
#[cfg(feature = "aws-lc")]
mod aws_lc;
pub(crate) mod ecdsa;
mod hmac;
#[cfg(feature = "aws-lc")]
mod ml_dsa;
mod names;
mod private_key;
pub(crate) mod public_key;
mod ring;
mod secret;
mod sha3;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use zeroize::Zeroizing;

#[cfg(feature = "aws-lc")]
pub use self::aws_lc::AwsLcSigner;
#[cfg(feature = "aws-lc")]
pub use self::aws_lc::{AwsLcProvider, AwsLcProvider as DefaultProvider};
#[cfg(not(feature = "aws-lc"))]
pub use self::ring::RingProvider as DefaultProvider;
pub use self::ring::{RingProvider, RingSigner};
pub use algorithms::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
pub use names::UnknownName;
pub use private_key::PrivateKey;
pub use public_key::{encode_public_key, parse_public_key};
pub use secret::{Digest, MAX_HASH_SIZE, Secret};

/// Bytes of an AEAD tag, for every suite this crate knows.
pub const TAG_SIZE: usize = 16;
/// Bytes of an AEAD nonce, for every suite this crate knows.
pub const IV_SIZE: usize = 12;

/// A cryptographic operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The provider cannot do this algorithm or combination.
    #[error("algorithm not available")]
    Unavailable,
    /// A key, public value or encoding is not valid for its algorithm.
    #[error("malformed key or public value")]
    Malformed,
    /// A signature, tag or HMAC is wrong.
    #[error("verification failed")]
    Mismatch,
    /// The provider failed for a reason of its own, such as a lack of entropy.
    #[error("cryptographic provider failed")]
    Failed,
}

/// A hash in progress.
pub trait Hasher: Send {
    /// Adds bytes.
    fn update(&mut self, data: &[u8]);
    /// An independent copy of the state.
    fn fork(&self) -> Box<dyn Hasher>;
    /// The digest of everything so far; the hash can go on.
    fn digest(&self) -> Digest;
}

/// An AEAD key, ready for use.
pub trait AeadKey: Send {
    /// Encrypts `data` in place and returns the tag.
    fn seal(
        &self,
        iv: &[u8; IV_SIZE],
        associated: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_SIZE], CryptoError>;
    /// Decrypts in place `data`, which ends with the tag, and returns the plain text.
    fn open<'a>(
        &self,
        iv: &[u8; IV_SIZE],
        associated: &[u8],
        data: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError>;
}

/// The requester's half of a key exchange: an ephemeral key whose public part has been or will be sent.
pub trait KeyAgreement: Send {
    /// Exchange data to send, X‖Y for elliptic curves.
    fn public(&self) -> &[u8];
    /// The shared secret with the peer's exchange data. A key is used once.
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError>;
}

/// What a signature is over.
#[derive(Clone, Copy, Debug)]
pub struct SignedMessage<'a> {
    /// The bytes. Algorithms that sign a digest hash them first.
    pub bytes: &'a [u8],
    /// Context string, for algorithms that have one; others leave it out. In SPDM it says what a signature is for
    /// (DSP0274 1.4 "Signature generation"), in certificates it is empty.
    pub context: &'a [u8],
}

impl<'a> SignedMessage<'a> {
    /// A message without a context, as in certificates.
    pub const fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, context: &[] }
    }
}

/// A private signing key.
pub trait Signer: Send + Sync {
    /// Its algorithm.
    fn algorithm(&self) -> AsymAlgorithm;
    /// Whether it can sign with this hash.
    fn supports(&self, hash: HashAlgorithm) -> bool;
    /// The public key, as [`Provider::verify`] takes it.
    fn public_key(&self) -> &[u8];
    /// Appends the signature over `message`, hashed with `hash`, in SPDM's fixed-size form.
    fn sign(
        &self,
        hash: HashAlgorithm,
        message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;
}

/// Everything else. HMAC and HKDF are the same for all of them.
pub trait Provider: Send {
    /// Whether hashes, HMAC and HKDF of this algorithm work.
    fn supports_hash(&self, hash: HashAlgorithm) -> bool;
    /// Whether signatures of this algorithm over this hash can be verified.
    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool;
    /// Whether this key exchange group works.
    fn supports_group(&self, group: DheGroup) -> bool;
    /// Whether this AEAD suite works.
    fn supports_aead(&self, aead: Aead) -> bool;

    /// Fills `out` with random bytes.
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError>;
    /// Starts a hash.
    fn hasher(&self, hash: HashAlgorithm) -> Result<Box<dyn Hasher>, CryptoError>;
    /// HMAC over `data`.
    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        hmac::sign(hash, key, data)
    }
    /// Checks an HMAC over `data` in constant time.
    fn hmac_verify(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        hmac::verify(hash, key, data, tag)
    }
    /// HKDF-Expand with one key to several outputs, each as long as it is and from the info in its place: what a key
    /// schedule does, and cheaper together where preparing the key is half of the work.
    fn hkdf_expand(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        infos: &[&[u8]],
        outputs: &mut [Secret],
    ) -> Result<(), CryptoError> {
        hmac::hkdf_expand(hash, key, infos, outputs)
    }
    /// Checks a signature over `message`, hashed with `hash`. `public_key` is the content of the certificate's
    /// SubjectPublicKeyInfo bit string: 0x04‖X‖Y for ECDSA, an RSAPublicKey in DER for RSA, else the key itself.
    fn verify(
        &self,
        algorithm: AsymAlgorithm,
        hash: HashAlgorithm,
        public_key: &[u8],
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError>;
    /// Starts a key exchange, as a requester does.
    fn start_exchange(&self, group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError>;
    /// Answers a key exchange, as a responder does: exchange data to send (appended to `public`) and the secret.
    fn answer_exchange(
        &self,
        group: DheGroup,
        peer: &[u8],
        public: &mut Vec<u8>,
    ) -> Result<Secret, CryptoError>;
    /// Prepares an AEAD key.
    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError>;
    /// A signer with a private key, in the form that [`PrivateKey::pkcs8`] has. A provider whose signers come from elsewhere
    /// has none.
    fn signer(&self, _algorithm: AsymAlgorithm, _pkcs8: &[u8]) -> Result<Arc<dyn Signer>, CryptoError> {
        Err(CryptoError::Unavailable)
    }
    /// A new private key, as PKCS#8.
    fn generate_pkcs8(&self, _algorithm: AsymAlgorithm) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        Err(CryptoError::Unavailable)
    }
}

/// Hash of one piece of data.
pub fn hash(provider: &dyn Provider, hash: HashAlgorithm, data: &[u8]) -> Result<Digest, CryptoError> {
    let mut hasher = provider.hasher(hash)?;
    hasher.update(data);
    Ok(hasher.digest())
}
