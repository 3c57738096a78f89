//! What an endpoint is known by: certificate slots, their keys, and the public key it may have instead of them.

use std::sync::Arc;

use crate::crypto::{AsymAlgorithm, CryptoError, Signer};
use crate::wire::{CertificateModel, KeyPairCapabilities, KeyUsage};

/// Number of slots SPDM knows.
pub const SLOT_COUNT: usize = 8;
/// The number that stands for the public key without a certificate. Fields of four bits hold 0xF instead.
pub const PUBLIC_KEY_SLOT: u8 = 0xFF;

/// The slot that a field of four bits stands for.
pub(crate) const fn slot_of_field(field: u8) -> u8 {
    if field & 0xF == 0xF { PUBLIC_KEY_SLOT } else { field & 0xF }
}

/// One certificate slot that exists.
#[derive(Clone)]
pub struct Slot {
    /// DER certificates, from the root to the leaf; none while the slot waits for SET_CERTIFICATE.
    pub certificates: Vec<Vec<u8>>,
    /// Private key of the leaf, or of the leaf to come.
    pub key: Arc<dyn Signer>,
    /// What the chain vouches for (DSP0274 1.3 "Certificate models").
    pub model: CertificateModel,
    /// `KeyPairID` of the key, from 1 on. Slots with the same id have the same key. 0 if SET_KEY_PAIR_INFO has taken
    /// the slot's key pair away: `key` is of no use then.
    pub key_pair: u8,
    /// What the key may be used for, where the connection has several keys.
    pub usage: KeyUsage,
    /// What requesters need to certify a slot of the alias model; without it they cannot.
    pub alias: Option<Alias>,
}

/// The part of an alias chain that is the device's own (DSP0274 1.3 "Certificate models"): requesters certify the device
/// certificate authority, which certifies the rest.
#[derive(Clone)]
pub struct Alias {
    /// DER certificates from below the device certificate authority's to the leaf. What SET_CERTIFICATE brings, which ends
    /// with the authority's, comes before them.
    pub certificates: Vec<Vec<u8>>,
    /// Private key of the authority: GET_CSR asks for a certificate of this one.
    pub authority: Arc<dyn Signer>,
}

impl Slot {
    /// A slot of the device certificate model whose key, number 1, may be used for everything.
    #[must_use]
    pub fn new(certificates: Vec<Vec<u8>>, key: Arc<dyn Signer>) -> Self {
        Self {
            certificates,
            key,
            model: CertificateModel::Device,
            key_pair: 1,
            usage: KeyUsage::ALL,
            alias: None,
        }
    }

    /// Algorithm of the leaf's key.
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.key.algorithm()
    }

    /// Whether it holds a chain.
    pub fn is_provisioned(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Whether it holds a chain and the key that goes with it.
    fn can_prove(&self) -> bool {
        self.is_provisioned() && self.key_pair != 0
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slot")
            .field("certificates", &self.certificates.len())
            .field("algorithm", &self.algorithm())
            .field("model", &self.model)
            .field("key_pair", &self.key_pair)
            .field("usage", &self.usage)
            .finish()
    }
}

/// A key that the peer knows beforehand and asks for as slot 0xFF or 0xF (`PUB_KEY_ID_CAP`).
#[derive(Clone)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo in DER: the form in which the peer was given the key, which transcripts hash.
    pub info: Vec<u8>,
    /// The private key.
    pub key: Arc<dyn Signer>,
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PublicKey").field("algorithm", &self.key.algorithm()).finish_non_exhaustive()
    }
}

/// A key pair of a device that tells about them (DSP0274 1.3 "GET_KEY_PAIR_INFO").
#[derive(Clone)]
pub struct KeyPair {
    /// The key, unless it was erased or is still to be generated.
    pub key: Option<Arc<dyn Signer>>,
    /// What SET_KEY_PAIR_INFO can change about it.
    pub capabilities: KeyPairCapabilities,
    /// Uses that can be configured.
    pub usage_capabilities: KeyUsage,
    /// Uses that are configured.
    pub usage: KeyUsage,
    /// Algorithms that a generated key can have.
    pub algorithms: Vec<AsymAlgorithm>,
}

impl KeyPair {
    /// A key pair of which nothing can be changed.
    #[must_use]
    pub fn fixed(key: Arc<dyn Signer>, usage: KeyUsage) -> Self {
        Self {
            capabilities: KeyPairCapabilities::default(),
            usage_capabilities: usage,
            usage,
            algorithms: vec![key.algorithm()],
            key: Some(key),
        }
    }
}

impl core::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("KeyPair")
            .field("algorithm", &self.key.as_ref().map(|key| key.algorithm()))
            .field("capabilities", &self.capabilities)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

/// Makes the keys that SET_KEY_PAIR_INFO asks for, and keeps them beyond the next start if it wants to.
pub trait KeyGenerator: Send + Sync {
    /// A new key of `algorithm` for the key pair with this id.
    ///
    /// # Errors
    /// [`CryptoError`] if there can be none; the requester is told that the operation failed.
    fn generate(&self, key_pair: u8, algorithm: AsymAlgorithm) -> Result<Arc<dyn Signer>, CryptoError>;
}

/// The eight slots, most of them absent, or a public key without certificate.
#[derive(Clone, Default)]
pub struct Slots {
    /// The slots that exist, by number.
    pub slots: [Option<Slot>; SLOT_COUNT],
    /// The key that stands without a certificate.
    pub public_key: Option<PublicKey>,
    /// All key pairs, in the order of their ids from 1 on. If there are none here, they are those of the slots, and
    /// nothing can be changed about them.
    pub key_pairs: Vec<KeyPair>,
    /// Makes new keys; without it none can be generated.
    pub generator: Option<Arc<dyn KeyGenerator>>,
}

impl core::fmt::Debug for Slots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slots")
            .field("slots", &self.slots)
            .field("public_key", &self.public_key)
            .field("key_pairs", &self.key_pairs)
            .finish_non_exhaustive()
    }
}

impl From<[Option<Slot>; SLOT_COUNT]> for Slots {
    fn from(slots: [Option<Slot>; SLOT_COUNT]) -> Self {
        Self { slots, ..Self::default() }
    }
}

impl Slots {
    /// Slot 0 only.
    pub fn single(slot: Slot) -> Self {
        [Some(slot), None, None, None, None, None, None, None].into()
    }

    /// No slot at all, but a key that the peer knows.
    pub fn known(public_key: PublicKey) -> Self {
        Self { public_key: Some(public_key), ..Self::default() }
    }

    /// The slot with this number, if it exists, is provisioned and has its key.
    pub fn get(&self, number: u8) -> Option<&Slot> {
        self.at(number).filter(|slot| slot.can_prove())
    }

    /// The slot with this number, if it exists, provisioned or not.
    pub fn at(&self, number: u8) -> Option<&Slot> {
        self.slots.get(usize::from(number))?.as_ref()
    }

    /// Slots that exist, provisioned or not, with their numbers.
    pub fn existing(&self) -> impl Iterator<Item = (u8, &Slot)> {
        (0_u8..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Provisioned slots that have their key, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Slot)> {
        self.existing().filter(|(_, slot)| slot.can_prove())
    }

    /// Provisioned slots whose key has this algorithm, bit per slot.
    pub fn mask(&self, algorithm: AsymAlgorithm) -> u8 {
        mask(self.iter().filter(|(_, slot)| slot.algorithm() == algorithm))
    }

    /// Slots that exist and whose key has this algorithm, or that have no key, bit per slot.
    pub fn supported(&self, algorithm: AsymAlgorithm) -> u8 {
        mask(self.existing().filter(|(_, slot)| slot.key_pair == 0 || slot.algorithm() == algorithm))
    }

    /// Slots whose key is that of the key pair with this id, bit per slot.
    pub fn associated(&self, key_pair: u8) -> u8 {
        mask(self.existing().filter(|(_, slot)| slot.key_pair == key_pair))
    }
}

fn mask<'a>(slots: impl Iterator<Item = (u8, &'a Slot)>) -> u8 {
    slots.fold(0, |mask, (number, _)| mask | 1 << number)
}
