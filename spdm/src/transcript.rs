//! What signatures and HMACs are computed over: running hashes of the messages both sides saw
//! (DSP0274 1.3 "Transcript and transcript hash calculation rules") and the signing rules on top
//! (DSP0274 1.3 "General ordering rules", "Signature generation").
//!
//! From 1.2 on a transcript is never kept as bytes, except VCA: it begins before a hash algorithm is negotiated.
//! Before, signatures are over the messages themselves, so that their bytes are kept up to a limit.

use std::borrow::Cow;

use crate::crypto::{
    AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Hasher, Provider, SignedMessage, Signer,
};
use crate::wire::Version;

/// What VCA mostly fits, so that it does not move with every message.
const USUAL_VCA_SIZE: usize = 256;

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
        if self.0.capacity() - self.0.len() < message.len() {
            self.0.reserve(message.len().max(USUAL_VCA_SIZE));
        }
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

/// The connection that transcripts belong to.
#[derive(Clone, Copy)]
pub struct Basis<'a> {
    /// Provider of the hash.
    pub provider: &'a dyn Provider,
    /// Negotiated version.
    pub version: Version,
    /// Negotiated hash algorithm.
    pub hash: HashAlgorithm,
    /// The negotiation itself.
    pub vca: &'a Vca,
}

impl Basis<'_> {
    fn begin(&self, messages: &[&[u8]]) -> Result<Transcript, CryptoError> {
        let hasher = self.provider.hasher(self.hash)?;
        let record = if signs_digest(self.version) { Record::Off } else { Record::Bytes(Vec::new()) };
        let mut transcript =
            Transcript { version: self.version, hasher, waiting: Vec::new(), most_waiting: 0, record };
        messages.iter().for_each(|message| transcript.append(message));
        Ok(transcript)
    }

    /// M1/M2, which CHALLENGE_AUTH signs: begins with VCA. The certificate chain goes through it whether CHALLENGE comes or
    /// not, so that its hashing waits.
    pub fn m1m2(&self) -> Result<Transcript, CryptoError> {
        let mut transcript = self.begin(&[])?;
        transcript.waiting.reserve(MAX_WAITING_SIZE);
        transcript.most_waiting = MAX_WAITING_SIZE;
        transcript.append(self.vca.as_ref());
        Ok(transcript)
    }

    /// M1/M2 of a requester, which its CHALLENGE_AUTH signs: begins with VCA from 1.2 on, with nothing before.
    pub fn requester_m1m2(&self) -> Result<Transcript, CryptoError> {
        self.l1l2()
    }

    /// L1/L2, which MEASUREMENTS signs: begins with VCA from 1.2 on, with nothing before.
    pub fn l1l2(&self) -> Result<Transcript, CryptoError> {
        let vca = if self.version >= Version::V1_2 { self.vca.as_ref() } else { &[] };
        self.begin(&[vca])
    }

    /// TH of a session from a pre-shared key: begins with VCA.
    pub fn psk_th(&self) -> Result<Transcript, CryptoError> {
        self.begin(&[self.vca.as_ref()])
    }

    /// What ENDPOINT_INFO signs: begins with VCA.
    pub fn endpoint_info(&self) -> Result<Transcript, CryptoError> {
        self.begin(&[self.vca.as_ref()])
    }

    /// TH of a session from KEY_EXCHANGE: begins with VCA and the hash of the responder's certificate chain.
    pub fn th(&self, chain_hash: &Digest) -> Result<Transcript, CryptoError> {
        self.th_of_keys(&[], chain_hash)
    }

    /// TH of a session with a responder that has several keys: the first DIGESTS outside a session is part of it.
    pub fn th_of_keys(&self, digests: &[u8], chain_hash: &Digest) -> Result<Transcript, CryptoError> {
        self.begin(&[self.vca.as_ref(), digests, chain_hash.as_ref()])
    }
}

/// Before 1.2 the signature algorithm hashes the transcript, from 1.2 on it hashes a prefix and the transcript's hash.
const fn signs_digest(version: Version) -> bool {
    version.0 >= Version::V1_2.0
}

/// Most bytes of one transcript that are kept for a signature: the longest chain in the smallest portions fits.
const MAX_RECORD_SIZE: usize = 0x2_0000;

/// Most bytes of M1/M2 that wait to be hashed: VCA and a chain of three certificates on an elliptic curve fit.
const MAX_WAITING_SIZE: usize = 0x1000;

/// The bytes of a transcript, where a signature needs them.
#[derive(Clone)]
enum Record {
    /// Nothing is kept.
    Off,
    /// Everything so far.
    Bytes(Vec<u8>),
    /// It was more than [`MAX_RECORD_SIZE`]: there can be no signature over this transcript any more.
    Lost,
}

impl Record {
    fn append(&mut self, bytes: &[u8]) {
        let Self::Bytes(kept) = self else { return };
        if bytes.len() > MAX_RECORD_SIZE.saturating_sub(kept.len()) {
            *self = Self::Lost;
        } else {
            kept.extend_from_slice(bytes);
        }
    }
}

/// A running hash over messages: M1/M2, L1/L2 and TH are this with different content.
pub struct Transcript {
    version: Version,
    hasher: Box<dyn Hasher>,
    /// What the hasher has still to take: at most `most_waiting` bytes, none where every transcript ends in a digest.
    waiting: Vec<u8>,
    most_waiting: usize,
    record: Record,
}

impl Transcript {
    /// Adds a message or a part of one, without transport padding.
    pub fn append(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.most_waiting.saturating_sub(self.waiting.len()) {
            self.waiting.extend_from_slice(bytes);
        } else {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
            self.hasher.update(bytes);
        }
        self.record.append(bytes);
    }

    /// Hash of everything so far.
    pub fn digest(&self) -> Digest {
        if self.waiting.is_empty() {
            return self.hasher.digest();
        }
        let mut hasher = self.hasher.fork();
        hasher.update(&self.waiting);
        hasher.digest()
    }

    /// The message whose signature stands for this transcript (DSP0274 1.3 "Signature generation").
    fn signed_message(&self, context: SigningContext) -> Result<Cow<'_, [u8]>, CryptoError> {
        match &self.record {
            Record::Off => Ok(Cow::Owned(prefixed(self.version, context, &self.digest()))),
            Record::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Record::Lost => Err(CryptoError::Unavailable),
        }
    }
}

impl Clone for Transcript {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            hasher: self.hasher.fork(),
            waiting: self.waiting.clone(),
            most_waiting: self.most_waiting,
            record: self.record.clone(),
        }
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
    /// ENDPOINT_INFO of a responder.
    EndpointInfo,
    /// ENDPOINT_INFO of a requester.
    RequesterEndpointInfo,
    /// KEY_EXCHANGE_RSP.
    KeyExchangeRsp,
    /// FINISH of a requester that authenticates itself.
    Finish,
    /// CHALLENGE_AUTH of a requester.
    RequesterChallengeAuth,
}

impl SigningContext {
    const fn words(self) -> &'static str {
        match self {
            Self::ChallengeAuth => "responder-challenge_auth signing",
            Self::EndpointInfo => "responder-endpoint_info signing",
            Self::RequesterEndpointInfo => "requester-endpoint_info signing",
            Self::Measurements => "responder-measurements signing",
            Self::KeyExchangeRsp => "responder-key_exchange_rsp signing",
            Self::Finish => "requester-finish signing",
            Self::RequesterChallengeAuth => "requester-challenge_auth signing",
        }
    }
}

/// Size of the combined prefix, in bytes.
const PREFIX_SIZE: usize = 100;

/// What is signed from 1.2 on: combined prefix, then the transcript hash.
fn prefixed(version: Version, context: SigningContext, transcript: &Digest) -> Vec<u8> {
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

/// Signs a transcript; appends the signature. Fails, before 1.2, if the transcript has grown beyond 128 KiB.
pub fn sign(
    signer: &dyn Signer,
    hash: HashAlgorithm,
    context: SigningContext,
    transcript: &Transcript,
    signature: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let bytes = transcript.signed_message(context)?;
    signer.sign(hash, SignedMessage { bytes: &bytes, context: context.words().as_bytes() }, signature)
}

/// Who signed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// Signature algorithm.
    pub algorithm: AsymAlgorithm,
    /// Hash algorithm.
    pub hash: HashAlgorithm,
    /// Public key, the content of the certificate's SubjectPublicKeyInfo bit string.
    pub public_key: &'a [u8],
}

impl Verifier<'_> {
    /// Checks the signature over a transcript. It does not hold, before 1.2, for one that has grown beyond 128 KiB.
    pub fn verify(
        &self,
        provider: &dyn Provider,
        context: SigningContext,
        transcript: &Transcript,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let bytes = transcript.signed_message(context)?;
        let message = SignedMessage { bytes: &bytes, context: context.words().as_bytes() };
        provider.verify(self.algorithm, self.hash, self.public_key, message, signature)
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
        let message = prefixed(Version::V1_2, SigningContext::ChallengeAuth, &digest);
        assert_eq!(message[..64], *"dmtf-spdm-v1.2.*".repeat(4).as_bytes());
        assert_eq!(message[64..68], [0; 4]);
        assert_eq!(message[68..100], *b"responder-challenge_auth signing");
        assert_eq!(message[100..], [0xDD; 32]);
        for context in [SigningContext::Measurements, SigningContext::KeyExchangeRsp, SigningContext::Finish]
        {
            let message = prefixed(Version::V1_3, context, &digest);
            assert_eq!(message.len(), 132);
            assert!(message[..100].ends_with(b" signing"));
            assert_eq!(message[..16], *b"dmtf-spdm-v1.3.*");
        }
    }

    /// What a transcript of one message begins with and what is signed of it, per version.
    #[test]
    fn what_is_signed_depends_on_the_version() {
        let provider = crate::crypto::RingProvider::new();
        let mut vca = Vca::new();
        vca.append(b"vca ");
        let hash = HashAlgorithm::Sha256;
        let digest = |data: &[u8]| crate::crypto::hash(&provider, hash, data).unwrap();
        let chain = Digest::new(b"chain ");
        for (version, raw) in
            [(Version::V1_0, true), (Version::V1_1, true), (Version::V1_2, false), (Version::V1_3, false)]
        {
            let basis = Basis { provider: &provider, version, hash, vca: &vca };
            let l1l2: &[u8] = if raw { b"message" } else { b"vca message" };
            for (transcript, context, content) in [
                (basis.m1m2(), SigningContext::ChallengeAuth, &b"vca message"[..]),
                (basis.l1l2(), SigningContext::Measurements, l1l2),
                (basis.th(&chain), SigningContext::KeyExchangeRsp, b"vca chain message"),
            ] {
                let mut transcript = transcript.unwrap();
                transcript.append(b"mess");
                let mut transcript = transcript.clone();
                transcript.append(b"age");
                assert_eq!(transcript.digest(), digest(content), "{version} {context:?}");
                let signed = transcript.signed_message(context).unwrap();
                if raw {
                    assert_eq!(signed.as_ref(), content, "{version} {context:?}");
                } else {
                    assert_eq!(signed.as_ref(), prefixed(version, context, &digest(content)));
                }
            }
        }
    }

    #[test]
    fn what_waits_is_bounded_and_never_missing_from_the_digest() {
        let provider = crate::crypto::RingProvider::new();
        let (hash, mut vca) = (HashAlgorithm::Sha256, Vca::new());
        vca.append(b"vca ");
        let basis = Basis { provider: &provider, version: Version::V1_3, hash, vca: &vca };
        for sizes in [&[1, 2, 3][..], &[MAX_WAITING_SIZE - 4, 1, 1], &[MAX_WAITING_SIZE + 1, 5], &[3000; 9]] {
            let (mut transcript, mut all) = (basis.m1m2().unwrap(), b"vca ".to_vec());
            for (byte, &size) in (0..).zip(sizes) {
                let message = vec![byte; size];
                transcript.append(&message);
                all.extend_from_slice(&message);
                assert!(transcript.waiting.len() <= MAX_WAITING_SIZE);
                let digest = crate::crypto::hash(&provider, hash, &all).unwrap();
                assert_eq!(transcript.digest(), digest, "{sizes:?}");
                assert_eq!(transcript.clone().digest(), digest, "{sizes:?}");
            }
        }
        assert!(basis.l1l2().unwrap().waiting.is_empty());
    }

    #[test]
    fn a_kept_transcript_is_bounded() {
        let provider = crate::crypto::RingProvider::new();
        for (version, bounded) in [(Version::V1_1, true), (Version::V1_2, false)] {
            let (hash, vca) = (HashAlgorithm::Sha256, Vca::new());
            let mut transcript = Basis { provider: &provider, version, hash, vca: &vca }.m1m2().unwrap();
            transcript.append(&[7; MAX_RECORD_SIZE]);
            assert!(transcript.signed_message(SigningContext::ChallengeAuth).is_ok());
            transcript.append(&[7]);
            let signed = transcript.signed_message(SigningContext::ChallengeAuth);
            assert_eq!(signed.is_err(), bounded, "{version}");
            transcript.append(&[7]);
            let all = crate::crypto::hash(&provider, hash, &[7; MAX_RECORD_SIZE + 2]).unwrap();
            assert_eq!(transcript.digest(), all, "the hash goes on");
        }
    }
}
