//! What an endpoint is known by: certificate slots, their keys, and the public key it may have instead of them.

use std::sync::Arc;

use crate::crypto::{AsymAlgorithm, Signer};
use crate::wire::{CertificateModel, KeyUsage};

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
    /// `KeyPairID` of the key, from 1 on. Slots with the same id have the same key.
    pub key_pair: u8,
    /// What the key may be used for, where the connection has several keys.
    pub usage: KeyUsage,
}

impl Slot {
    /// A slot of the device certificate model whose key, number 1, may be used for everything.
    #[must_use]
    pub fn new(certificates: Vec<Vec<u8>>, key: Arc<dyn Signer>) -> Self {
        Self { certificates, key, model: CertificateModel::Device, key_pair: 1, usage: KeyUsage::ALL }
    }

    /// Algorithm of the leaf's key.
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.key.algorithm()
    }

    /// Whether it holds a chain.
    pub fn is_provisioned(&self) -> bool {
        !self.certificates.is_empty()
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

/// The eight slots, most of them absent, or a public key without certificate.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// The slots that exist, by number.
    pub slots: [Option<Slot>; SLOT_COUNT],
    /// The key that stands without a certificate.
    pub public_key: Option<PublicKey>,
}

impl From<[Option<Slot>; SLOT_COUNT]> for Slots {
    fn from(slots: [Option<Slot>; SLOT_COUNT]) -> Self {
        Self { slots, public_key: None }
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

    /// The slot with this number, if it exists and is provisioned.
    pub fn get(&self, number: u8) -> Option<&Slot> {
        self.slots.get(usize::from(number))?.as_ref().filter(|slot| slot.is_provisioned())
    }

    /// Slots that exist, provisioned or not, with their numbers.
    pub fn existing(&self) -> impl Iterator<Item = (u8, &Slot)> {
        (0_u8..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Provisioned slots with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Slot)> {
        self.existing().filter(|(_, slot)| slot.is_provisioned())
    }

    /// Provisioned slots whose key has this algorithm, bit per slot.
    pub fn mask(&self, algorithm: AsymAlgorithm) -> u8 {
        mask(self.iter().filter(|(_, slot)| slot.algorithm() == algorithm))
    }

    /// Slots that exist and whose key has this algorithm, bit per slot.
    pub fn supported(&self, algorithm: AsymAlgorithm) -> u8 {
        mask(self.existing().filter(|(_, slot)| slot.algorithm() == algorithm))
    }
}

fn mask<'a>(slots: impl Iterator<Item = (u8, &'a Slot)>) -> u8 {
    slots.fold(0, |mask, (number, _)| mask | 1 << number)
}
