//! What a responder remembers of a connection: each phase holds exactly what has been agreed on by then.

use crate::chains::Chains;
use crate::codec::{DecodeError, Reader};
use crate::crypto::{Aead, AsymAlgorithm, CryptoError, DheGroup, Digest, HashAlgorithm, Provider, Signer};
use crate::secured::Protection;
use crate::slot::PUBLIC_KEY_SLOT;
use crate::transcript::{Basis, Transcript, Vca};
use crate::trust::PeerKey;
use crate::wire::{Header, KeyUsage, OpaqueElements, RequesterFlags, Version};

use super::encapsulated::Conversation;
use super::reject::Reject;
use super::requester_info::Endpoint;

/// One request as it came in.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) header: Header,
    pub(super) bytes: &'a [u8],
    /// Index of the session it came in, if any.
    pub(super) session: Option<usize>,
}

impl<'a> Request<'a> {
    /// Parses the body; returns it with the message itself, which is what transcripts hold.
    ///
    /// What follows the message is ignored: transport padding, or surplus. Requesters that always send a request's
    /// longest form exist, and libspdm's responder lets them, for example with GET_MEASUREMENTS that has a nonce
    /// and a slot although it asks for no signature.
    pub(super) fn parse<T>(
        &self,
        parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<(T, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(self.bytes);
        let body = parse(&mut reader)?;
        Ok((body, self.bytes.get(..reader.consumed()).unwrap_or_default()))
    }

    /// Parses a message that steers a session: its record says where it ends, and it ends there.
    pub(super) fn parse_exact<T>(
        &self,
        parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Reader::new(self.bytes);
        let body = parse(&mut reader)?;
        reader.finish(0)?;
        Ok(body)
    }
}

/// L1/L2 under way.
#[derive(Debug)]
pub(super) struct MeasurementTranscript {
    pub(super) transcript: Transcript,
    /// How often measurements had changed when it began.
    pub(super) changes: u64,
}

/// The transcript in `slot`, begun anew if there is none.
pub(super) fn continued(
    slot: &mut Option<Transcript>,
    begin: impl FnOnce() -> Result<Transcript, CryptoError>,
) -> Result<&mut Transcript, CryptoError> {
    let transcript = match slot.take() {
        Some(transcript) => transcript,
        None => begin()?,
    };
    Ok(slot.insert(transcript))
}

/// How far the requester and this responder have come.
#[derive(Debug)]
pub(super) enum Connection {
    /// Nothing happened since reset.
    Start,
    /// VERSION was sent.
    Version { vca: Vca },
    /// CAPABILITIES was sent: the version is chosen.
    Capabilities { vca: Vca, peer: Peer },
    /// ALGORITHMS was sent.
    Negotiated(Box<Negotiated>),
}

/// The requester, as GET_CAPABILITIES describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) version: Version,
    pub(super) flags: RequesterFlags,
    /// [`UNLIMITED_SIZE`](crate::wire::UNLIMITED_SIZE) before 1.2.
    pub(super) data_transfer_size: u32,
    /// As [`Peer::data_transfer_size`], for messages in chunks.
    pub(super) max_message_size: u32,
}

/// Algorithms of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionSuite {
    /// `None` where only PSK_EXCHANGE begins sessions.
    pub(super) group: Option<DheGroup>,
    pub(super) aead: Aead,
    pub(super) protection: Protection,
}

/// How measurements are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeasurementForm {
    RawOnly,
    Hashed(HashAlgorithm),
}

/// What NEGOTIATE_ALGORITHMS settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) hash: HashAlgorithm,
    /// `None` for a responder that signs nothing.
    pub(super) asym: Option<AsymAlgorithm>,
    /// Signature of the requester, if it can be asked for one.
    pub(super) requester_asym: Option<AsymAlgorithm>,
    /// The requester may use several keys.
    pub(super) requester_keys: bool,
    pub(super) session: Option<SessionSuite>,
    pub(super) measurements: Option<MeasurementForm>,
    /// Opaque data may be sent in the general form. Before 1.2 that is not negotiated.
    pub(super) general_opaque: bool,
    /// The responder's slots have keys of their own.
    pub(super) multiple_keys: bool,
    /// The measurement extension log may be asked for.
    pub(super) measurement_log: bool,
}

impl Suite {
    /// Who signs for a slot or the public key alone, if it may for this purpose, and the hash by which transcripts know
    /// it. A connection with one key uses it for everything.
    pub(super) fn identity<'c>(
        &self,
        chains: &'c Chains,
        number: u8,
        usage: KeyUsage,
    ) -> Result<(&'c dyn Signer, &'c Digest), Reject> {
        let allowed = match chains.slots().get(number) {
            Some(slot) if self.multiple_keys => slot.usage.has(usage),
            Some(_) | None => true,
        };
        chains.identity(number, self.asym()?, self.hash).filter(|_| allowed).ok_or(Reject::INVALID)
    }
}

impl Suite {
    /// A request's opaque data is in the general form, if there may be any. Nothing in it is understood.
    pub(super) fn check_opaque(&self, version: Version, opaque: &[u8]) -> Result<(), Reject> {
        if !(self.general_opaque || opaque.is_empty()) {
            return Err(Reject::INVALID);
        }
        for element in OpaqueElements::new(version, opaque)? {
            element?;
        }
        Ok(())
    }

    /// The signature algorithm; a responder without one does not advertise what needs it.
    pub(super) fn asym(&self) -> Result<AsymAlgorithm, Reject> {
        self.asym.ok_or(Reject::UNEXPECTED)
    }
}

/// Everything behind ALGORITHMS.
#[derive(Debug)]
pub(super) struct Negotiated {
    pub(super) peer: Peer,
    pub(super) suite: Suite,
    pub(super) vca: Vca,
    /// M1/M2 without CHALLENGE; `None` if nothing has come behind its beginning.
    pub(super) m1m2: Option<Transcript>,
    /// L1/L2 of measurements outside sessions; `None` if nothing has come behind its beginning.
    pub(super) l1l2: Option<MeasurementTranscript>,
    /// CHALLENGE was completed.
    pub(super) authenticated: bool,
    /// The first DIGESTS outside a session if the responder has several keys, otherwise empty.
    pub(super) first_digests: Vec<u8>,
    /// The requester's keys whose chains hold, by slot.
    pub(super) identities: BySlot<PeerKey>,
    /// The key of a requester without certificates.
    pub(super) known: Option<PeerKey>,
    /// What the responder asks outside sessions.
    pub(super) conversation: Option<Conversation>,
    /// What kind of device the requester says it is outside sessions.
    pub(super) endpoint: Endpoint,
    /// Digests of the chains that the requester has read to their ends, by slot.
    pub(super) read: BySlot<Digest>,
    /// Digests that it was shown last, by GET_DIGESTS or with a whole chain, by slot.
    pub(super) shown: BySlot<Digest>,
}

/// What is known of some slots; mostly of one, if of any.
#[derive(Debug)]
pub(super) struct BySlot<T>(Vec<(u8, T)>);

impl<T> BySlot<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn get(&self, slot: u8) -> Option<&T> {
        self.0.iter().find(|(number, _)| *number == slot).map(|(_, known)| known)
    }

    /// Replaces what was known of the slot.
    pub(super) fn insert(&mut self, slot: u8, new: T) {
        match self.0.iter_mut().find(|(number, _)| *number == slot) {
            Some((_, known)) => *known = new,
            None => self.0.push((slot, new)),
        }
    }
}

impl Negotiated {
    /// The requester's key of this slot, if it is known to hold.
    pub(super) fn identity(&self, slot: u8) -> Option<&PeerKey> {
        match slot {
            PUBLIC_KEY_SLOT => self.known.as_ref(),
            _ => self.identities.get(slot),
        }
    }

    /// [`Suite::identity`], by the chain that the requester has: SET_CERTIFICATE may have written the slot since it read
    /// it, perhaps through another session, and its transcripts have the old chain until it reads again. spdm-emu's
    /// requester writes a slot and then uses it without reading. CHALLENGE may do with a digest, so that there it is the
    /// one that the requester was shown last.
    pub(super) fn own_identity<'c>(
        &self,
        chains: &'c Chains,
        number: u8,
        usage: KeyUsage,
    ) -> Result<(&'c dyn Signer, Digest), Reject> {
        let (key, current) = self.suite.identity(chains, number, usage)?;
        let known = if usage == KeyUsage::CHALLENGE { &self.shown } else { &self.read };
        Ok((key, *known.get(number).unwrap_or(current)))
    }

    /// What transcripts begin from.
    pub(super) fn basis<'a>(&'a self, provider: &'a dyn Provider) -> Basis<'a> {
        Basis { provider, version: self.peer.version, hash: self.suite.hash, vca: &self.vca }
    }
}

impl Connection {
    /// Version in which an ERROR is written: 1.0 until one is chosen.
    pub(super) fn error_version(&self) -> Version {
        self.peer().map_or(Version::V1_0, |peer| peer.version)
    }

    /// The requester, once it has described itself.
    pub(super) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Start | Self::Version { .. } => None,
            Self::Capabilities { peer, .. } => Some(peer),
            Self::Negotiated(negotiated) => Some(&negotiated.peer),
        }
    }

    /// The negotiation so far, on the way to the next step of it.
    pub(super) fn take_vca(&mut self) -> Vca {
        match self {
            Self::Start => Vca::new(),
            Self::Version { vca } | Self::Capabilities { vca, .. } => core::mem::take(vca),
            Self::Negotiated(negotiated) => core::mem::take(&mut negotiated.vca),
        }
    }

    pub(super) fn negotiated(&mut self) -> Result<&mut Negotiated, Reject> {
        match self {
            Self::Negotiated(negotiated) => Ok(negotiated),
            Self::Start | Self::Version { .. } | Self::Capabilities { .. } => Err(Reject::UNEXPECTED),
        }
    }
}
