//! What a responder holds per certificate slot: a chain and the key of its leaf.

use std::sync::Arc;

use crate::crypto::{AsymAlgorithm, Signer};

/// Number of slots SPDM knows.
pub const SLOT_COUNT: usize = 8;

/// One provisioned certificate slot.
#[derive(Clone)]
pub struct Slot {
    /// DER certificates, from the root to the leaf.
    pub certificates: Vec<Vec<u8>>,
    /// Private key of the leaf.
    pub key: Arc<dyn Signer>,
}

impl Slot {
    /// Algorithm of the leaf's key.
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.key.algorithm()
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Slot({} certificates, {:?})", self.certificates.len(), self.algorithm())
    }
}

/// The eight slots, most of them empty.
#[derive(Clone, Debug, Default)]
pub struct Slots(pub [Option<Slot>; SLOT_COUNT]);

impl Slots {
    /// Slot 0 only.
    pub fn single(slot: Slot) -> Self {
        Self([Some(slot), None, None, None, None, None, None, None])
    }

    /// The slot with this number, if it exists and is provisioned.
    pub fn get(&self, number: u8) -> Option<&Slot> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// Provisioned slots with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Slot)> {
        (0_u8..).zip(&self.0).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Provisioned slots whose key has this algorithm, bit per slot.
    pub fn mask(&self, algorithm: AsymAlgorithm) -> u8 {
        self.iter()
            .filter(|(_, slot)| slot.algorithm() == algorithm)
            .fold(0, |mask, (number, _)| mask | 1 << number)
    }
}
