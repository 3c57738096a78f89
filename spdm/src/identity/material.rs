//! A chain together with the private key of its leaf, in memory and as PEM text.

use core::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::crypto::{AsymAlgorithm, RingSigner, Signer};
use crate::slot::Slot;

use super::{ChainError, Policy, verify_certificates};

/// A responder's certificates, root first, and the leaf's private key. The key is wiped when dropped and never
/// shown by `Debug`.
#[derive(Clone)]
pub struct Material {
    slot: Slot,
    pkcs8: Zeroizing<Vec<u8>>,
    pci_name: Option<String>,
}

/// Why certificates and key do not make an identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// Making new keys or certificates failed.
    #[error("cannot generate certificates: {0}")]
    Generate(String),
    /// No keys or certificates of this algorithm can be made.
    #[error("cannot generate {0:?} certificates")]
    Unavailable(AsymAlgorithm),
    /// The text is not PEM.
    #[error("{what} is not PEM: {reason}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A PEM block of another kind than expected.
    #[error("{what} contains a PEM block {found:?}, expected {expected:?}")]
    Block {
        /// Which text.
        what: &'static str,
        /// The block's label.
        found: String,
        /// The label that belongs there.
        expected: &'static str,
    },
    /// Not exactly one private key.
    #[error("expected one private key, found {0}")]
    KeyCount(usize),
    /// The chain fails the checks a requester would make.
    #[error("the certificate chain is not usable: {0}")]
    Chain(#[from] ChainError),
    /// The key is no PKCS#8 key of the leaf's algorithm.
    #[error("the private key is not a PKCS#8 key of the leaf certificate's algorithm")]
    Key,
    /// The key is fine but not the leaf's.
    #[error("the private key does not belong to the leaf certificate")]
    KeyMismatch,
}

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

impl Material {
    /// Joins DER `certificates` (root first, leaf last) with the leaf's PKCS#8 private key.
    ///
    /// # Errors
    /// [`MaterialError`] unless the chain is complete and valid in every way except time, and the key is the
    /// leaf's.
    pub fn new(certificates: Vec<Vec<u8>>, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, MaterialError> {
        let policy = Policy { leaf_constraints_required: true, ..Policy::default() };
        let verified = verify_certificates(&certificates.concat(), &policy)?;
        let algorithm = verified.algorithm;
        let key = RingSigner::from_pkcs8(algorithm, &pkcs8).map_err(|_| MaterialError::Key)?;
        if key.public_key() != verified.public_key {
            return Err(MaterialError::KeyMismatch);
        }
        let slot = Slot::new(verified.certificates, Arc::new(key));
        Ok(Self { slot, pkcs8, pci_name: verified.pci_name })
    }

    /// Reads what [`Self::chain_pem`] and [`Self::key_pem`] wrote, or a chain and a PKCS#8 key from elsewhere.
    ///
    /// # Errors
    /// As [`Self::new`], and [`MaterialError`] for text that is not PEM of the right kind.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, MaterialError> {
        let certificates = blocks("the certificate chain", chain, CERTIFICATE)?;
        let mut keys = blocks("the private key", key, PRIVATE_KEY)?.into_iter().map(Zeroizing::new);
        match (keys.next(), keys.len()) {
            (Some(key), 0) => Self::new(certificates, key),
            (None, _) => Err(MaterialError::KeyCount(0)),
            (Some(_), more) => Err(MaterialError::KeyCount(1 + more)),
        }
    }

    /// The certificates as PEM text, root first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        let blocks: Vec<_> =
            self.certificates().iter().map(|der| pem::Pem::new(CERTIFICATE, der.as_slice())).collect();
        pem::encode_many(&blocks)
    }

    /// The private key as PEM text. Whoever stores it keeps others from reading it.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode(&pem::Pem::new(PRIVATE_KEY, self.pkcs8.as_slice())))
    }

    /// What a responder needs of it.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot.clone()
    }

    /// The certificates in DER, root first, leaf last.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.slot.certificates
    }

    /// The leaf's private key, PKCS#8.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key's algorithm.
    #[must_use]
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.slot.algorithm()
    }

    /// Text of the leaf's PCIe subject alternative name, if it has one.
    #[must_use]
    pub fn pci_name(&self) -> Option<&str> {
        self.pci_name.as_deref()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("slot", &self.slot)
            .field("pci_name", &self.pci_name)
            .finish_non_exhaustive()
    }
}

fn blocks(what: &'static str, text: &str, expected: &'static str) -> Result<Vec<Vec<u8>>, MaterialError> {
    let blocks =
        pem::parse_many(text).map_err(|error| MaterialError::Pem { what, reason: error.to_string() })?;
    blocks
        .into_iter()
        .map(|block| {
            if block.tag() == expected {
                Ok(block.into_contents())
            } else {
                Err(MaterialError::Block { what, found: block.tag().to_owned(), expected })
            }
        })
        .collect()
}
