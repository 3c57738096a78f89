//! GET_DIGESTS and GET_CERTIFICATE: who the responder says it is, and whether that holds.

use super::command::{PeerCertificate, Reply, SlotDigests};
use super::error::{Misuse, RequesterError, Violation};
use super::state::{Core, Flow, Message, Next, Request};
use crate::crypto::AsymAlgorithm;
use crate::identity::Purpose;
use crate::slot::SLOT_COUNT;
use crate::trust::{Disapproval, Judge, PeerKey};
use crate::wire::{
    Certificate, CertificateModel, Digests, GetCertificate, GetDigests, ResponderFlags, Version,
};

/// Longest chain that is fetched in the form with 32-bit lengths, in bytes; the other form limits itself.
const LONGEST_CHAIN: usize = 1 << 20;
/// The smallest transfer there is, in bytes.
const SMALLEST_TRANSFER: usize = 42;

/// GET_DIGESTS.
pub(super) fn get_digests(core: &Core) -> Result<Next, RequesterError> {
    let version = capable(core)?;
    let mut bytes = Vec::new();
    GetDigests { version }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::Digests)))
}

/// DIGESTS.
pub(super) fn digests(core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
    let connection = core.connected()?;
    let (size, several) = (connection.hash().size(), connection.info.algorithms.multiple_keys);
    let (response, exact) = message.parse(|reader| Digests::parse(reader, size, several))?;
    // Slot 0 speaks for the device itself.
    let generic = response.key(0).is_some_and(|key| key.model == Some(CertificateModel::Generic));
    message.require(!generic, Violation::Selection("model of slot 0"))?;
    let slots = (0_u8..8).filter_map(|slot| Some((slot, response.digest(slot)?.to_vec())));
    let digests = SlotDigests {
        supported: response.supported_slots,
        provisioned: response.provisioned_slots,
        digests: slots.collect(),
        keys: (0_u8..8).filter_map(|slot| Some((slot, *response.key(slot)?))).collect(),
    };
    log(core, message, exact)?;
    let connection = core.connected_mut()?;
    if several && !message.secured && connection.first_digests.is_empty() {
        connection.first_digests = exact.to_vec();
    }
    core.connected_mut()?.digests = Some(digests.clone());
    Ok(Next::Done(Reply::Digests(digests)))
}

fn capable(core: &Core) -> Result<Version, Misuse> {
    let info = &core.connected()?.info;
    if info.capabilities.has(ResponderFlags::CERT) {
        Ok(info.version)
    } else {
        Err(Misuse::NotCapable("certificates"))
    }
}

/// Exchanges in the clear are part of what CHALLENGE signs.
fn log(core: &mut Core, message: &Message<'_>, exact: &[u8]) -> Result<(), RequesterError> {
    if !message.secured {
        let connection = core.connected()?;
        let log = connection.identity_with(&*core.provider, [message.request, exact])?;
        core.connected_mut()?.identity_log = Some(log);
    }
    Ok(())
}

/// A certificate chain on its way.
pub(super) struct Fetch {
    slot: u8,
    chain: Vec<u8>,
    /// Length of the whole, once the first portion told it.
    total: Option<usize>,
    /// Length asked for in the request under way.
    asked: u32,
    /// Whether it goes in the form with 32-bit lengths.
    large: bool,
}

impl Fetch {
    /// The first GET_CERTIFICATE.
    pub(super) fn start(core: &Core, slot: u8) -> Result<Next, RequesterError> {
        capable(core)?;
        if usize::from(slot) >= SLOT_COUNT {
            return Err(Misuse::OutOfRange("slot").into());
        }
        Self { slot, chain: Vec::new(), total: None, asked: 0, large: core.large_forms()? }.ask(core)
    }

    fn ask(mut self, core: &Core) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let room = core.longest_response();
        let missing = self.total.map_or(usize::MAX, |total| total - self.chain.len());
        let length = missing.min(room - Certificate::overhead(self.large)).min(self.longest());
        self.asked = u32::try_from(length).unwrap_or(u32::MAX);
        let offset = u32::try_from(self.chain.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        let (slot, large, length) = (self.slot, self.large, self.asked);
        GetCertificate { version, slot, slot_size: false, large, offset, length }.encode(&mut bytes)?;
        Ok(Next::Send(Request::new(core, version, bytes, Flow::Certificate(self))))
    }

    /// CERTIFICATE: the next portion, or the end.
    pub(super) fn portion(mut self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, exact) = message.parse(Certificate::parse)?;
        message.require(response.slot == self.slot, Violation::Slot)?;
        let length = response.portion.len();
        let behind = usize::try_from(response.remainder).unwrap_or(usize::MAX);
        let total = self.chain.len().saturating_add(length).saturating_add(behind);
        // A responder that sends less than the smallest transfer holds, and has more, wants to keep us busy.
        let enough = length >= SMALLEST_TRANSFER - Certificate::overhead(self.large) || behind == 0;
        let adds_up = response.large == self.large
            && (1..=self.asked).contains(&u32::try_from(length).unwrap_or(u32::MAX))
            && enough
            && total <= self.longest()
            && self.total.is_none_or(|earlier| earlier == total);
        message.require(adds_up, Violation::Portion)?;
        self.total = Some(total);
        self.chain.extend_from_slice(response.portion);
        log(core, message, exact)?;
        if response.remainder == 0 { self.finish(core, message) } else { self.ask(core) }
    }

    /// Bytes that a chain may have.
    fn longest(&self) -> usize {
        if self.large { LONGEST_CHAIN } else { usize::from(u16::MAX) }
    }

    /// Checks the whole chain and remembers the leaf's key.
    fn finish(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let judge = judge(core, Some(connection.signature()?))?;
        let announced = connection.digests.as_ref().and_then(|digests| digests.of(self.slot));
        let digest = core.digest(&self.chain)?;
        let agrees = announced.is_none_or(|announced| announced == digest.as_ref());
        message.require(agrees, Violation::Digest("chain"))?;
        let found = judge.approve(&self.chain).map_err(|reason| disapproved(self.slot, message, reason))?;

        let peer = PeerKey { public_key: found.certificates.public_key.clone(), digest };
        if let Some(known) = core.connected_mut()?.peers.get_mut(usize::from(self.slot)) {
            *known = Some(peer);
        }
        Ok(Next::Done(Reply::Certificate(PeerCertificate {
            slot: self.slot,
            chain: found.certificates,
            chain_digest: digest.as_ref().to_vec(),
            root_digest: found.root_digest.as_ref().to_vec(),
            trust: found.trust,
        })))
    }
}

/// What a chain for a key of this algorithm, or of any, is judged by.
pub(super) fn judge(core: &Core, algorithm: Option<AsymAlgorithm>) -> Result<Judge<'_>, Misuse> {
    let connection = core.connected()?;
    Ok(Judge {
        provider: &*core.provider,
        policy: &core.config.trust,
        time: core.config.time,
        version: connection.info.version,
        hash: connection.hash(),
        algorithm,
        purpose: Purpose::Responder,
    })
}

/// Why the chain of a slot is refused.
pub(super) fn disapproved(slot: u8, message: &Message<'_>, reason: Disapproval) -> RequesterError {
    match reason {
        Disapproval::Malformed(error) => message.malformed(error),
        Disapproval::Chain(error) => RequesterError::Chain { slot, error },
        Disapproval::RootDigest => message.violation(Violation::Digest("root")),
        Disapproval::KeyAlgorithm => message.violation(Violation::KeyAlgorithm),
        Disapproval::Untrusted => message.violation(Violation::Untrusted),
        Disapproval::Crypto(error) => error.into(),
    }
}

impl SlotDigests {
    /// Digest of this slot's chain, if the slot is provisioned.
    #[must_use]
    pub fn of(&self, slot: u8) -> Option<&[u8]> {
        let (_, digest) = self.digests.iter().find(|(number, _)| *number == slot)?;
        Some(digest)
    }
}
