//! What signatures and HMACs are computed over: running hashes of the messages both sides saw
//! (DSP0274 1.3 "Transcript and transcript hash calculation rules") and the signing rules on top
//! (DSP0274 1.3 "General ordering rules", "Signature generation").
//!
//! A transcript is never kept as bytes, except VCA: it begins before a hash algorithm is negotiated.

use crate::crypto::{AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Hasher, Provider, Signer};
use crate::wire::Version;

/// VCA: GET_VERSION to ALGORITHMS, the beginning of every transcript. All six messages are short by construction:
/// the peer's are at most 4, 20 and 128 bytes when a responder records, and VERSION at most 516 for a requester.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vca(Vec<u8>);

impl Vca {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Starts again; memory is kept.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds one message, without transport padding.
    pub fn append(&mut self, message: &[u8]) {
        self.0.extend_from_slice(message);
    }

    /// Cuts back to an earlier [`Vca::size`].
    pub fn truncate(&mut self, size: usize) {
        self.0.truncate(size);
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl AsRef<[u8]> for Vca {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A running hash over messages: M1/M2, L1/L2 and TH are this with different content.
pub struct Transcript(Box<dyn Hasher>);

impl Transcript {
    /// Starts with VCA.
    pub fn new(provider: &dyn Provider, hash: HashAlgorithm, vca: &Vca) -> Result<Self, CryptoError> {
        let mut hasher = provider.hasher(hash)?;
        hasher.update(vca.as_ref());
        Ok(Self(hasher))
    }

    /// Starts TH: VCA, then the hash of the responder's certificate chain.
    pub fn session(
        provider: &dyn Provider,
        hash: HashAlgorithm,
        vca: &Vca,
        chain_hash: &Digest,
    ) -> Result<Self, CryptoError> {
        let mut transcript = Self::new(provider, hash, vca)?;
        transcript.append(chain_hash.as_ref());
        Ok(transcript)
    }

    /// Adds a message or a part of one, without transport padding.
    pub fn append(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Hash of everything so far.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }
}

impl Clone for Transcript {
    fn clone(&self) -> Self {
        Self(self.0.fork())
    }
}

impl core::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Transcript({:?})", self.digest())
    }
}

/// What a signature is for; the words go into it from SPDM 1.2 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningContext {
    /// CHALLENGE_AUTH of a responder.
    ChallengeAuth,
    /// MEASUREMENTS.
    Measurements,
    /// KEY_EXCHANGE_RSP.
    KeyExchangeRsp,
    /// FINISH of a requester that authenticates itself.
    Finish,
}

impl SigningContext {
    const fn words(self) -> &'static str {
        match self {
            Self::ChallengeAuth => "responder-challenge_auth signing",
            Self::Measurements => "responder-measurements signing",
            Self::KeyExchangeRsp => "responder-key_exchange_rsp signing",
            Self::Finish => "requester-finish signing",
        }
    }
}

/// Size of the combined prefix, in bytes.
const PREFIX_SIZE: usize = 100;

/// The message that is signed: combined prefix, then the transcript hash (DSP0274 1.3 "Signature generation").
fn signed_message(version: Version, context: SigningContext, transcript: &Digest) -> Vec<u8> {
    let words = context.words();
    let mut message = Vec::with_capacity(PREFIX_SIZE + transcript.as_ref().len());
    for _ in 0..4 {
        message.extend_from_slice(b"dmtf-spdm-v");
        message.extend_from_slice(&[
            b'0' + version.major() % 10,
            b'.',
            b'0' + version.minor() % 10,
            b'.',
            b'*',
        ]);
    }
    message.resize(PREFIX_SIZE.saturating_sub(words.len()), 0);
    message.extend_from_slice(words.as_bytes());
    message.extend_from_slice(transcript.as_ref());
    message
}

/// Signs a transcript hash; appends the signature.
pub fn sign(
    signer: &dyn Signer,
    hash: HashAlgorithm,
    version: Version,
    context: SigningContext,
    transcript: &Digest,
    signature: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    signer.sign(hash, &signed_message(version, context, transcript), signature)
}

/// Who signed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// Signature algorithm.
    pub algorithm: AsymAlgorithm,
    /// Hash algorithm.
    pub hash: HashAlgorithm,
    /// Negotiated version.
    pub version: Version,
    /// Public key, the content of the certificate's SubjectPublicKeyInfo bit string.
    pub public_key: &'a [u8],
}

impl Verifier<'_> {
    /// Checks the signature over a transcript hash.
    pub fn verify(
        &self,
        provider: &dyn Provider,
        context: SigningContext,
        transcript: &Digest,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let message = signed_message(self.version, context, transcript);
        provider.verify(self.algorithm, self.hash, self.public_key, &message, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_combined_prefix_has_a_hundred_bytes() {
        // DSP0274 1.2 and 1.3 print this table for "responder-challenge_auth signing": 64 bytes of version,
        // 4 zeros, 32 bytes of context.
        let digest = Digest::new(&[0xDD; 32]);
        let message = signed_message(Version::V1_2, SigningContext::ChallengeAuth, &digest);
        assert_eq!(message[..64], *"dmtf-spdm-v1.2.*".repeat(4).as_bytes());
        assert_eq!(message[64..68], [0; 4]);
        assert_eq!(message[68..100], *b"responder-challenge_auth signing");
        assert_eq!(message[100..], [0xDD; 32]);
        for context in [SigningContext::Measurements, SigningContext::KeyExchangeRsp, SigningContext::Finish]
        {
            let message = signed_message(Version::V1_3, context, &digest);
            assert_eq!(message.len(), 132);
            assert!(message[..100].ends_with(b" signing"));
            assert_eq!(message[..16], *b"dmtf-spdm-v1.3.*");
        }
    }
}
