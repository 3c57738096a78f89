//! What an endpoint proves itself with: the certificate chains of its slots in the form SPDM transfers, with their
//! digests, and the public key that stands without one.

use crate::crypto::{AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Provider, Signer, hash};
use crate::slot::{PUBLIC_KEY_SLOT, Slot, Slots};
use crate::wire::CertificateChain;

/// One slot's chain for one hash algorithm.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

#[derive(Debug)]
struct Built {
    slot: u8,
    hash: HashAlgorithm,
    chain: Chain,
}

/// Slots and the chains built from them. A chain begins with its root's hash, so there is one per hash algorithm;
/// they are built once, when the endpoint is made.
#[derive(Debug)]
pub(crate) struct Chains {
    slots: Slots,
    hashes: Vec<HashAlgorithm>,
    built: Vec<Built>,
    /// Hashes of the public key that stands without a certificate.
    key_digests: Vec<(HashAlgorithm, Digest)>,
    /// Slots get chains from the peer: one with a key counts, though it holds none yet or any more.
    writable: bool,
}

/// Slots that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainsError {
    /// The provider cannot do one of the hashes.
    Hash,
    /// The chain of this slot does not fit SPDM's 65,535 bytes.
    TooLong(u8),
}

/// The chain of one slot for every hash.
fn build_all(
    provider: &dyn Provider,
    number: u8,
    slot: &Slot,
    hashes: &[HashAlgorithm],
) -> Result<Vec<Built>, ChainsError> {
    let build = |&algorithm| {
        let chain = build(provider, slot, algorithm)
            .map_err(|_| ChainsError::Hash)?
            .ok_or(ChainsError::TooLong(number))?;
        Ok(Built { slot: number, hash: algorithm, chain })
    };
    hashes.iter().map(build).collect()
}

impl Chains {
    pub(crate) fn new(
        provider: &dyn Provider,
        slots: Slots,
        hashes: &[HashAlgorithm],
    ) -> Result<Self, ChainsError> {
        let mut built = Vec::new();
        for (number, slot) in slots.iter() {
            built.append(&mut build_all(provider, number, slot, hashes)?);
        }
        let mut key_digests = Vec::new();
        for (key, &algorithm) in
            slots.public_key.iter().flat_map(|key| hashes.iter().map(move |hash| (key, hash)))
        {
            let digest = hash(provider, algorithm, &key.info).map_err(|_| ChainsError::Hash)?;
            key_digests.push((algorithm, digest));
        }
        Ok(Self { slots, hashes: hashes.to_vec(), built, key_digests, writable: false })
    }

    /// Whether the peer can write slots.
    pub(crate) const fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    pub(crate) const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// For changes of keys. A chain is changed with [`Self::replace`].
    pub(crate) const fn slots_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }

    /// Puts another slot in the place of one that exists. Nothing has changed if its chain is too long.
    pub(crate) fn replace(
        &mut self,
        provider: &dyn Provider,
        number: u8,
        slot: Slot,
    ) -> Result<(), ChainsError> {
        let mut built = if slot.is_provisioned() {
            build_all(provider, number, &slot, &self.hashes)?
        } else {
            Vec::new()
        };
        self.built.retain(|old| old.slot != number);
        self.built.append(&mut built);
        if let Some(Some(old)) = self.slots.slots.get_mut(usize::from(number)) {
            *old = slot;
        }
        Ok(())
    }

    /// Whether there is nothing to be known by.
    pub(crate) fn is_empty(&self) -> bool {
        self.built.is_empty() && !self.has_public_key() && self.to_write().next().is_none()
    }

    /// Whether slot 0 holds a chain or can be given one, as it has to where certificates are used.
    pub(crate) fn has_certificates(&self) -> bool {
        self.slots.get(0).is_some() || self.to_write().any(|(number, _)| number == 0)
    }

    /// Slots whose key waits for a chain from the peer, and those that have one.
    fn to_write(&self) -> impl Iterator<Item = (u8, &Slot)> {
        self.slots.existing().filter(|(_, slot)| self.writable && slot.key_pair != 0)
    }

    /// Whether there is a public key that stands without a certificate.
    pub(crate) fn has_public_key(&self) -> bool {
        self.slots.public_key.is_some()
    }

    /// Who signs for a slot or, as [`PUBLIC_KEY_SLOT`], with the public key alone; and the hash by which transcripts
    /// know it: of the chain, or of the key.
    pub(crate) fn identity(
        &self,
        number: u8,
        asym: AsymAlgorithm,
        algorithm: HashAlgorithm,
    ) -> Option<(&dyn Signer, &Digest)> {
        if number != PUBLIC_KEY_SLOT {
            let (slot, chain) = self.get(number, asym, algorithm)?;
            return Some((slot.key.as_ref(), &chain.digest));
        }
        let key = self.slots.public_key.as_ref().filter(|key| key.key.algorithm() == asym)?;
        let (_, digest) = self.key_digests.iter().find(|(hash, _)| *hash == algorithm)?;
        Some((key.key.as_ref(), digest))
    }

    /// The slot and its chain, if the slot is provisioned with a key of this algorithm.
    pub(crate) fn get(
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
    pub(crate) fn mask(&self, asym: AsymAlgorithm) -> u8 {
        self.slots.mask(asym)
    }

    /// Slots that hold or could hold a chain for this algorithm, bit per slot.
    pub(crate) fn supported(&self, asym: AsymAlgorithm) -> u8 {
        self.slots.supported(asym)
    }

    /// Whether a slot or the public key can sign with this pair.
    pub(crate) fn can_sign(&self, asym: AsymAlgorithm, algorithm: HashAlgorithm) -> bool {
        let slots = self.slots.iter().map(|(_, slot)| &slot.key);
        let mut keys = slots.chain(self.slots.public_key.as_ref().map(|public| &public.key));
        keys.any(|key| key.algorithm() == asym && key.supports(algorithm))
    }

    /// Whether a slot could sign with this pair if it had a chain, which the peer can give it.
    pub(crate) fn could_sign(&self, asym: AsymAlgorithm, algorithm: HashAlgorithm) -> bool {
        self.to_write().any(|(_, slot)| slot.algorithm() == asym && slot.key.supports(algorithm))
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
