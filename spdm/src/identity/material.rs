//! A chain together with the private key of its leaf, in memory and as PEM text.

use core::fmt;
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::crypto::{
    AsymAlgorithm, CryptoError, DefaultProvider, PrivateKey, Provider, Signer, parse_public_key,
};
use crate::der::{SEQUENCE, element};
use crate::slot::{Alias, Slot};

use super::{ChainError, Policy, Purpose, verify_certificates};

/// A responder's certificates, root first, and the leaf's private key. The key is wiped when dropped and never
/// shown by `Debug`.
#[derive(Clone)]
pub struct Material {
    slot: Slot,
    key: PrivateKey,
    pci_name: Option<String>,
}

/// Why certificates and key do not make an identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// Making new keys or certificates failed.
    #[error("cannot generate certificates: {0}")]
    Generate(String),
    /// The provider does not make or use private keys of this algorithm.
    #[error("the cryptographic library in use has no private keys for {0}")]
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
    #[error("{what} contains a PEM block {found:?}, expected {}", expected.join(" or "))]
    Block {
        /// Which text.
        what: &'static str,
        /// The block's label.
        found: String,
        /// The labels that belong there.
        expected: &'static [&'static str],
    },
    /// Not exactly one private key.
    #[error("expected one private key, found {0}")]
    KeyCount(usize),
    /// The chain fails the checks a requester would make.
    #[error("the certificate chain is not usable: {0}")]
    Chain(#[from] ChainError),
    /// The key is no key of the leaf's algorithm, or that is not the algorithm asked for.
    #[error("the private key is not a PKCS#8, PKCS#1 or SEC1 key of the leaf certificate's algorithm")]
    Key,
    /// The key is fine but not the leaf's.
    #[error("the private key does not belong to the leaf certificate")]
    KeyMismatch,
    /// The authority's key is not that of any certificate above the leaf.
    #[error("the authority's key belongs to none of the certificates above the leaf")]
    Authority,
}

const CERTIFICATE: &str = "CERTIFICATE";
/// PKCS#8, which is also what is written, then SEC1 and PKCS#1.
const PRIVATE_KEYS: &[&str] = &["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];
/// A curve's name, which some tools put before the key that says it, too.
const EC_PARAMETERS: &str = "EC PARAMETERS";

impl Material {
    /// Joins DER `certificates` (root first, leaf last) with the leaf's private key in DER: PKCS#8, PKCS#1 or SEC1.
    /// `algorithm` says what to use an RSA key with; without it, the key's own algorithm is used, which for plain RSA
    /// keys is RSASSA-PKCS1-v1_5.
    ///
    /// # Errors
    /// [`MaterialError`] unless the chain is complete and valid in every way except time, and the key is the
    /// leaf's and can be used with the algorithm. Basic constraints, which SPDM wants in a leaf from 1.3 on, are not
    /// insisted on: a chain that a requester of 1.2 has written has to be loaded again.
    pub fn new(
        certificates: Vec<Vec<u8>>,
        key: &[u8],
        algorithm: Option<AsymAlgorithm>,
    ) -> Result<Self, MaterialError> {
        let policy = Policy { purpose: Purpose::Any, ..Policy::default() };
        let verified = verify_certificates(&certificates.concat(), &policy)?;
        let algorithm = algorithm.unwrap_or(verified.algorithm);
        if !verified.algorithm.serves(algorithm) {
            return Err(MaterialError::Key);
        }
        let key = PrivateKey::from_der(key, Some(&verified.public_key)).map_err(|_| MaterialError::Key)?;
        let signer = signer(&key, &DefaultProvider::new(), algorithm)?;
        if signer.public_key() != verified.public_key {
            return Err(MaterialError::KeyMismatch);
        }
        let slot = Slot::new(verified.certificates, signer);
        Ok(Self { slot, key, pci_name: verified.pci_name })
    }

    /// The same, with `provider` as the one that signs: without this it is the build's own, [`DefaultProvider`].
    ///
    /// # Errors
    /// [`MaterialError::Unavailable`] if it does not sign with the algorithm.
    pub fn by(mut self, provider: &dyn Provider) -> Result<Self, MaterialError> {
        self.slot.key = signer(&self.key, provider, self.algorithm())?;
        Ok(self)
    }

    /// Reads a chain and a key from files, each PEM text or DER. Certificates may come root first, as SPDM has them,
    /// or leaf first, as TLS has them. `algorithm` as in [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`], and [`MaterialError`] for what is neither DER nor PEM of the right kind.
    pub fn load(chain: &[u8], key: &[u8], algorithm: Option<AsymAlgorithm>) -> Result<Self, MaterialError> {
        Self::new(read_chain(chain)?, &read_key(key)?, algorithm)
    }

    /// The same for the alias certificate model, with the private key of the device certificate authority, in a file like that of
    /// [`Self::load`]: requesters can certify the authority anew, and what it issued, the certificates below it, stays. `provider`
    /// signs with it.
    ///
    /// # Errors
    /// [`MaterialError::Authority`] if no certificate above the leaf has this key, else as [`Self::load`] and [`Self::by`].
    pub fn with_authority(mut self, key: &[u8], provider: &dyn Provider) -> Result<Self, MaterialError> {
        let key = read_key(key)?;
        let authorities = self.slot.certificates.len().saturating_sub(1);
        for (number, certificate) in self.slot.certificates.iter().enumerate().take(authorities) {
            let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { continue };
            let Ok((algorithm, public_key)) = parse_public_key(certificate.public_key().raw) else {
                continue;
            };
            let Ok(key) = PrivateKey::from_der(&key, Some(public_key)) else { continue };
            let signer = signer(&key, provider, algorithm)?;
            if signer.public_key() == public_key {
                let aliases = self.slot.certificates.iter().skip(number + 1).cloned().collect();
                self.slot.alias = Some(Alias { certificates: aliases, authority: signer });
                return Ok(self);
            }
        }
        Err(MaterialError::Authority)
    }

    /// Reads what [`Self::chain_pem`] and [`Self::key_pem`] wrote, or a chain and a key from elsewhere.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, MaterialError> {
        Self::load(chain.as_bytes(), key.as_bytes(), None)
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
        Zeroizing::new(pem::encode(&pem::Pem::new("PRIVATE KEY", self.pkcs8())))
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
        self.key.pkcs8()
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

fn signer(
    key: &PrivateKey,
    provider: &dyn Provider,
    algorithm: AsymAlgorithm,
) -> Result<Arc<dyn Signer>, MaterialError> {
    key.signer(provider, algorithm).map_err(|error| match error {
        CryptoError::Unavailable => MaterialError::Unavailable(algorithm),
        CryptoError::Malformed | CryptoError::Mismatch | CryptoError::Failed => MaterialError::Key,
    })
}

/// The certificates of a file, PEM text or DER, in DER and root first: files may have the leaf first, as TLS wants it.
///
/// # Errors
/// [`MaterialError`] for what is neither DER nor PEM with certificates only.
pub fn read_chain(chain: &[u8]) -> Result<Vec<Vec<u8>>, MaterialError> {
    let mut certificates = if chain.first() == Some(&SEQUENCE) {
        let mut certificates = Vec::new();
        let mut rest = chain;
        while !rest.is_empty() {
            // What is not an element goes on to the verifier, which says what is wrong with it.
            let (certificate, after) = element(rest).map_or((rest, &[][..]), |(one, rest)| (one.raw, rest));
            certificates.push(certificate.to_vec());
            rest = after;
        }
        certificates
    } else {
        blocks("the certificate chain", chain, &[CERTIFICATE])?
    };
    if certificates.is_empty() {
        return Err(ChainError::Empty.into());
    }
    if certificates.first().is_some_and(|first| is_leaf(first)) {
        certificates.reverse();
    }
    Ok(certificates)
}

/// The private key of a file, PEM text or DER, in DER.
fn read_key(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
    if key.first() == Some(&SEQUENCE) {
        return Ok(Zeroizing::new(key.to_vec()));
    }
    let mut keys = blocks("the private key", key, PRIVATE_KEYS)?.into_iter().map(Zeroizing::new);
    match (keys.next(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(MaterialError::KeyCount(0)),
        (Some(_), more) => Err(MaterialError::KeyCount(1 + more)),
    }
}

/// Whether this certificate cannot stand at the front of a chain: it is neither self-signed nor an authority.
fn is_leaf(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
        certificate.issuer().as_raw() != certificate.subject().as_raw() && !certificate.is_ca()
    })
}

fn blocks(
    what: &'static str,
    text: &[u8],
    expected: &'static [&'static str],
) -> Result<Vec<Vec<u8>>, MaterialError> {
    let blocks =
        pem::parse_many(text).map_err(|error| MaterialError::Pem { what, reason: error.to_string() })?;
    blocks
        .into_iter()
        .filter(|block| block.tag() != EC_PARAMETERS)
        .map(|block| {
            if expected.contains(&block.tag()) {
                Ok(block.into_contents())
            } else {
                Err(MaterialError::Block { what, found: block.tag().to_owned(), expected })
            }
        })
        .collect()
}
