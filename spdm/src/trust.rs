//! Whether a certificate chain that the peer sent holds, and whether its root deserves trust: the same for both roles.

use crate::codec::DecodeError;
use crate::crypto::{AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Provider, hash, parse_public_key};
use crate::identity::{ChainError, Policy, Purpose, VerifiedCertificates, verify_certificates};
use crate::wire::{CertificateChain, Version};

/// Which root certificates to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustPolicy {
    /// Any root. The reply says so, and the caller may pin what it saw.
    #[default]
    FirstUse,
    /// These and no others.
    Pinned(Vec<RootPin>),
}

/// One trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPin {
    /// The certificate, in DER. It may be missing from the chain.
    Certificate(Vec<u8>),
    /// Digest of the certificate, under the hash of that length: SHA-256, SHA-384 or SHA-512.
    Digest(Vec<u8>),
}

impl RootPin {
    /// Whether this root, a certificate in DER, is the pinned one.
    ///
    /// # Errors
    /// [`CryptoError`] if it cannot be hashed.
    pub fn matches(&self, provider: &dyn Provider, root: &[u8]) -> Result<bool, CryptoError> {
        match self {
            Self::Certificate(certificate) => Ok(certificate == root),
            Self::Digest(digest) => {
                let algorithm = HashAlgorithm::ALL.iter().find(|hash| hash.size() == digest.len());
                let Some(algorithm) = algorithm else { return Ok(false) };
                Ok(hash(provider, *algorithm, root)? == Digest::new(digest))
            }
        }
    }
}

/// How the root of a chain came to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is one of the roots the caller pinned.
    Pinned,
    /// It is trusted because nothing else was known. Whoever can put itself in the middle now, stays there.
    FirstUse,
}

/// A public key of the peer that was learned beforehand (`PUB_KEY_ID_CAP`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// SubjectPublicKeyInfo in DER, which transcripts hash.
    info: Vec<u8>,
    algorithm: AsymAlgorithm,
    public_key: Vec<u8>,
}

impl KnownKey {
    /// The key of a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`CryptoError`] if that is malformed or of an algorithm this crate does not know.
    pub fn from_der(info: &[u8]) -> Result<Self, CryptoError> {
        let (algorithm, public_key) = parse_public_key(info)?;
        Ok(Self { info: info.to_vec(), algorithm, public_key: public_key.to_vec() })
    }

    /// The key, if it is good for signatures of this algorithm.
    pub(crate) fn for_algorithm(
        &self,
        provider: &dyn Provider,
        hash_algorithm: HashAlgorithm,
        algorithm: AsymAlgorithm,
    ) -> Result<Option<PeerKey>, CryptoError> {
        if !self.algorithm.serves(algorithm) {
            return Ok(None);
        }
        let digest = hash(provider, hash_algorithm, &self.info)?;
        Ok(Some(PeerKey { public_key: self.public_key.clone(), digest }))
    }
}

/// A key of the peer, and the hash by which transcripts know it: of its certificate chain, or of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerKey {
    /// Content of the SubjectPublicKeyInfo bit string.
    pub(crate) public_key: Vec<u8>,
    pub(crate) digest: Digest,
}

/// What a chain is judged by.
pub(crate) struct Judge<'a> {
    pub(crate) provider: &'a dyn Provider,
    pub(crate) policy: &'a TrustPolicy,
    /// Seconds since 1970, if certificates have to be valid now.
    pub(crate) time: Option<i64>,
    /// Version and hash of the connection.
    pub(crate) version: Version,
    pub(crate) hash: HashAlgorithm,
    /// What the leaf's key has to serve, if that matters.
    pub(crate) algorithm: Option<AsymAlgorithm>,
    /// What the peer is to do with its key.
    pub(crate) purpose: Purpose,
}

/// A chain that holds.
pub(crate) struct Approved {
    pub(crate) certificates: VerifiedCertificates,
    /// Digest of the root certificate.
    pub(crate) root_digest: Digest,
    pub(crate) trust: Trust,
}

/// Why a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disapproval {
    /// It is no chain in SPDM's form.
    Malformed(DecodeError),
    /// One of its certificates is not acceptable.
    Chain(ChainError),
    /// Its root hash is not that of its root.
    RootDigest,
    /// The leaf's key is not of the negotiated algorithm.
    KeyAlgorithm,
    /// The root is none of those to trust.
    Untrusted,
    /// Our own cryptography failed.
    Crypto(CryptoError),
}

impl From<CryptoError> for Disapproval {
    fn from(error: CryptoError) -> Self {
        Self::Crypto(error)
    }
}

impl Judge<'_> {
    fn digest(&self, data: &[u8]) -> Result<Digest, CryptoError> {
        hash(self.provider, self.hash, data)
    }

    /// Checks a whole chain in the form SPDM transfers it.
    pub(crate) fn approve(&self, chain: &[u8]) -> Result<Approved, Disapproval> {
        let view = CertificateChain::parse(chain, self.hash.size()).map_err(Disapproval::Malformed)?;
        let root = self.pinned_certificate(view.root_hash)?;
        let policy = Policy {
            time: self.time,
            root,
            leaf_constraints_required: self.version >= Version::V1_3,
            purpose: self.purpose,
        };
        let certificates = verify_certificates(view.certificates, &policy).map_err(Disapproval::Chain)?;
        let root_digest = self.digest(&certificates.root)?;
        if root_digest.as_ref() != view.root_hash {
            return Err(Disapproval::RootDigest);
        }
        if self.algorithm.is_some_and(|algorithm| !certificates.algorithm.serves(algorithm)) {
            return Err(Disapproval::KeyAlgorithm);
        }
        let trust = self.trust(&certificates.root)?.ok_or(Disapproval::Untrusted)?;
        Ok(Approved { certificates, root_digest, trust })
    }

    /// The pinned certificate that the chain hangs from, in case the chain leaves it out.
    fn pinned_certificate(&self, root_hash: &[u8]) -> Result<Option<&[u8]>, CryptoError> {
        let TrustPolicy::Pinned(pins) = self.policy else { return Ok(None) };
        for pin in pins {
            if let RootPin::Certificate(certificate) = pin
                && self.digest(certificate)?.as_ref() == root_hash
            {
                return Ok(Some(certificate));
            }
        }
        Ok(None)
    }

    /// Whether, and why, the root deserves trust.
    fn trust(&self, root: &[u8]) -> Result<Option<Trust>, CryptoError> {
        let pins = match self.policy {
            TrustPolicy::FirstUse => return Ok(Some(Trust::FirstUse)),
            TrustPolicy::Pinned(pins) => pins,
        };
        for pin in pins {
            if pin.matches(self.provider, root)? {
                return Ok(Some(Trust::Pinned));
            }
        }
        Ok(None)
    }
}
