//! GET_DIGESTS and GET_CERTIFICATE: who the responder says it is, and whether that holds.

use super::command::{PeerCertificate, Reply, SlotDigests};
use super::error::{Misuse, RequesterError, Violation};
use super::state::{Core, Flow, Message, Next, Request};
use crate::identity::Purpose;
use crate::slot::SLOT_COUNT;
use crate::trust::{Disapproval, Judge, PeerKey};
use crate::wire::{Certificate, Digests, GetCertificate, GetDigests, ResponderFlags, Version};

/// Bytes of CERTIFICATE before the portion.
const CERTIFICATE_OVERHEAD: usize = 8;

/// A responder that sends less than the smallest transfer holds, and has more, wants to keep us busy.
const SMALLEST_PORTION: usize = 42 - CERTIFICATE_OVERHEAD;

/// GET_DIGESTS.
pub(super) fn get_digests(core: &Core) -> Result<Next, RequesterError> {
    let version = capable(core)?;
    let mut bytes = Vec::new();
    GetDigests { version }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::Digests)))
}

/// DIGESTS.
pub(super) fn digests(core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
    let size = core.connected()?.hash().size();
    let (response, exact) = message.parse(|reader| Digests::parse(reader, size, false))?;
    let slots = (0_u8..8).filter_map(|slot| Some((slot, response.digest(slot)?.to_vec())));
    let digests = SlotDigests {
        supported: response.supported_slots,
        provisioned: response.provisioned_slots,
        digests: slots.collect(),
    };
    log(core, message, exact)?;
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
    asked: u16,
}

impl Fetch {
    /// The first GET_CERTIFICATE.
    pub(super) fn start(core: &Core, slot: u8) -> Result<Next, RequesterError> {
        capable(core)?;
        if usize::from(slot) >= SLOT_COUNT {
            return Err(Misuse::OutOfRange("slot").into());
        }
        Self { slot, chain: Vec::new(), total: None, asked: 0 }.ask(core)
    }

    fn ask(mut self, core: &Core) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let room = usize::try_from(core.config.data_transfer_size).unwrap_or(usize::MAX);
        let missing = self.total.map_or(usize::MAX, |total| total - self.chain.len());
        let length = missing.min(room - CERTIFICATE_OVERHEAD);
        self.asked = u16::try_from(length).unwrap_or(u16::MAX);
        // A chain of 65535 bytes at most: the offset of a missing byte fits.
        let offset = u16::try_from(self.chain.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        GetCertificate { version, slot: self.slot, slot_size: false, offset, length: self.asked }
            .encode(&mut bytes);
        Ok(Next::Send(Request::new(core, version, bytes, Flow::Certificate(self))))
    }

    /// CERTIFICATE: the next portion, or the end.
    pub(super) fn portion(mut self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, exact) = message.parse(Certificate::parse)?;
        message.require(response.slot == self.slot, Violation::Slot)?;
        let length = response.portion.len();
        let total = self.chain.len() + length + usize::from(response.remainder);
        let enough = length >= SMALLEST_PORTION || response.remainder == 0;
        let adds_up = (1..=usize::from(self.asked)).contains(&length)
            && enough
            && total <= usize::from(u16::MAX)
            && self.total.is_none_or(|earlier| earlier == total);
        message.require(adds_up, Violation::Portion)?;
        self.total = Some(total);
        self.chain.extend_from_slice(response.portion);
        log(core, message, exact)?;
        if response.remainder == 0 { self.finish(core, message) } else { self.ask(core) }
    }

    /// Checks the whole chain and remembers the leaf's key.
    fn finish(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let judge = Judge {
            provider: &*core.provider,
            policy: &core.config.trust,
            time: core.config.time,
            version: connection.info.version,
            hash: connection.hash(),
            algorithm: connection.info.algorithms.signature,
            purpose: Purpose::Responder,
        };
        let announced = connection.digests.as_ref().and_then(|digests| digests.of(self.slot));
        let digest = core.digest(&self.chain)?;
        let agrees = announced.is_none_or(|announced| announced == digest.as_ref());
        message.require(agrees, Violation::Digest("chain"))?;
        let found = judge.approve(&self.chain).map_err(|reason| self.disapproved(message, reason))?;

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

    fn disapproved(&self, message: &Message<'_>, reason: Disapproval) -> RequesterError {
        match reason {
            Disapproval::Malformed(error) => message.malformed(error),
            Disapproval::Chain(error) => RequesterError::Chain { slot: self.slot, error },
            Disapproval::RootDigest => message.violation(Violation::Digest("root")),
            Disapproval::KeyAlgorithm => message.violation(Violation::KeyAlgorithm),
            Disapproval::Untrusted => message.violation(Violation::Untrusted),
            Disapproval::Crypto(error) => error.into(),
        }
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
