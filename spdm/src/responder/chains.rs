//! The certificate chains of all slots in the form SPDM transfers, with their digests.

use crate::crypto::{AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Provider, hash};
use crate::slot::{Slot, Slots};
use crate::wire::CertificateChain;

use super::ConfigError;

/// One slot's chain for one hash algorithm.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

#[derive(Debug)]
struct Built {
    slot: u8,
    hash: HashAlgorithm,
    chain: Chain,
}

/// Slots and the chains built from them. A chain begins with its root's hash, so there is one per hash algorithm;
/// they are built once, when the responder is made.
#[derive(Debug)]
pub(super) struct Chains {
    slots: Slots,
    built: Vec<Built>,
}

impl Chains {
    pub(super) fn new(
        provider: &dyn Provider,
        slots: Slots,
        hashes: &[HashAlgorithm],
    ) -> Result<Self, ConfigError> {
        if slots.get(0).is_none() {
            return Err(ConfigError::NoCertificate);
        }
        let mut built = Vec::new();
        for (number, slot) in slots.iter() {
            for &algorithm in hashes {
                let chain = build(provider, slot, algorithm)
                    .map_err(|_| ConfigError::NoAlgorithm("hash"))?
                    .ok_or(ConfigError::ChainTooLong(number))?;
                built.push(Built { slot: number, hash: algorithm, chain });
            }
        }
        Ok(Self { slots, built })
    }

    /// The slot and its chain, if the slot is provisioned with a key of this algorithm.
    pub(super) fn get(
        &self,
        number: u8,
        asym: AsymAlgorithm,
        algorithm: HashAlgorithm,
    ) -> Option<(&Slot, &Chain)> {
        let slot = self.slots.get(number).filter(|slot| slot.algorithm() == asym)?;
        let built = self.built.iter().find(|built| built.slot == number && built.hash == algorithm)?;
        Some((slot, &built.chain))
    }

    /// Slots with a chain for this algorithm, bit per slot.
    pub(super) fn mask(&self, asym: AsymAlgorithm) -> u8 {
        self.slots.mask(asym)
    }

    /// Slots that hold or could hold a chain for this algorithm, bit per slot.
    pub(super) fn supported(&self, asym: AsymAlgorithm) -> u8 {
        self.slots.supported(asym)
    }

    /// Whether a slot can sign with this pair.
    pub(super) fn can_sign(&self, asym: AsymAlgorithm, algorithm: HashAlgorithm) -> bool {
        self.slots.iter().any(|(_, slot)| slot.algorithm() == asym && slot.key.supports(algorithm))
    }
}

fn build(
    provider: &dyn Provider,
    slot: &Slot,
    algorithm: HashAlgorithm,
) -> Result<Option<Chain>, CryptoError> {
    let root = slot.certificates.first().map(Vec::as_slice).unwrap_or_default();
    let root_hash = hash(provider, algorithm, root)?;
    let mut bytes = Vec::new();
    if CertificateChain::encode(root_hash.as_ref(), &slot.certificates, &mut bytes).is_err() {
        return Ok(None);
    }
    let digest = hash(provider, algorithm, &bytes)?;
    Ok(Some(Chain { bytes, digest }))
}
