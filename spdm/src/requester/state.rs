//! What outlives a command, and how a command's requests and responses travel through it.

use super::attest::{PendingChallenge, PendingMeasurements};
use super::certificate::Fetch;
use super::command::{ConnectionInfo, Reply, SlotDigests};
use super::config::RequesterConfig;
use super::encapsulated::{Conversation, PendingDelivery};
use super::error::{Misuse, RequesterError, Violation};
use super::handshake::{PendingFinish, PendingKeyExchange};
use super::inventory::{FetchLog, PendingEndpointInfo};
use super::negotiate::{Capable, Negotiation, Versioned, both};
use super::operate::{PendingKeyUpdate, PendingVendor};
use super::psk::{PendingPskExchange, PendingPskFinish};
use super::sessions::Sessions;
use super::slots::PendingSlots;
use crate::chains::Chains;
use crate::codec::{DecodeError, Reader};
use crate::crypto::{AsymAlgorithm, CryptoError, Digest, HashAlgorithm, Provider, hash};
use crate::slot::{PUBLIC_KEY_SLOT, SLOT_COUNT};
use crate::transcript::{Basis, SigningContext, Transcript, Vca, Verifier};
use crate::trust::PeerKey;
use crate::wire::{Code, Header, RequesterFlags, ResponderFlags, Version};

/// DOE pads messages to whole double words; what lies in the padding is of no interest.
pub(super) const MAX_PADDING: usize = 3;

/// Everything but the command under way.
pub(super) struct Core {
    pub(super) config: RequesterConfig,
    pub(super) provider: Box<dyn Provider>,
    pub(super) connection: Option<Connection>,
    pub(super) sessions: Sessions,
    /// Who we are, for responders that ask.
    pub(super) chains: Chains,
}

/// The result of a negotiation, and what was learned over it.
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    pub(super) vca: Vca,
    pub(super) digests: Option<SlotDigests>,
    pub(super) peers: [Option<PeerKey>; SLOT_COUNT],
    /// The key of a responder without certificates.
    pub(super) known: Option<PeerKey>,
    /// Whether a challenge has succeeded.
    pub(super) authenticated: bool,
    /// M1/M2 without the challenge itself, since the last GET_DIGESTS or CHALLENGE.
    pub(super) identity_log: Option<Transcript>,
    /// L1/L2 outside sessions since the last signature.
    pub(super) measurement_log: Option<Transcript>,
    /// The first DIGESTS outside a session if the responder has several keys, otherwise empty.
    pub(super) first_digests: Vec<u8>,
}

impl Connection {
    pub(super) fn new(info: ConnectionInfo, vca: Vca) -> Self {
        Self {
            info,
            vca,
            digests: None,
            peers: Default::default(),
            known: None,
            authenticated: false,
            identity_log: None,
            measurement_log: None,
            first_digests: Vec::new(),
        }
    }

    pub(super) fn hash(&self) -> HashAlgorithm {
        self.info.algorithms.hash
    }

    /// Signature algorithm of a responder that signs.
    pub(super) fn signature(&self) -> Result<AsymAlgorithm, Misuse> {
        self.info.algorithms.signature.ok_or(Misuse::NotCapable("signatures"))
    }

    /// The slot's key, if its chain has been verified.
    pub(super) fn peer(&self, slot: u8) -> Result<&PeerKey, Misuse> {
        let peer = match slot {
            PUBLIC_KEY_SLOT => &self.known,
            _ => self.peers.get(usize::from(slot)).ok_or(Misuse::OutOfRange("slot"))?,
        };
        peer.as_ref().ok_or(Misuse::NoCertificate(slot))
    }

    /// Checks a signature over a transcript; `false` if it is wrong.
    pub(super) fn verify(
        &self,
        provider: &dyn Provider,
        peer: &PeerKey,
        context: SigningContext,
        transcript: &Transcript,
        signature: &[u8],
    ) -> bool {
        let Some(algorithm) = self.info.algorithms.signature else { return false };
        let verifier = Verifier { algorithm, hash: self.hash(), public_key: &peer.public_key };
        verifier.verify(provider, context, transcript, signature).is_ok()
    }

    /// What transcripts begin from.
    pub(super) fn basis<'a>(&'a self, provider: &'a dyn Provider) -> Basis<'a> {
        Basis { provider, version: self.info.version, hash: self.hash(), vca: &self.vca }
    }

    /// M1/M2 with another exchange.
    pub(super) fn identity_with(
        &self,
        provider: &dyn Provider,
        exchange: [&[u8]; 2],
    ) -> Result<Transcript, CryptoError> {
        let log = self.identity_log.clone().map_or_else(|| self.basis(provider).m1m2(), Ok)?;
        Ok(extended(log, exchange))
    }
}

fn extended(mut log: Transcript, exchange: [&[u8]; 2]) -> Transcript {
    exchange.iter().for_each(|part| log.append(part));
    log
}

impl Core {
    /// The negotiated connection.
    pub(super) fn connected(&self) -> Result<&Connection, Misuse> {
        self.connection.as_ref().ok_or(Misuse::NotConnected)
    }

    /// As [`Self::connected`], for use while a response is handled.
    pub(super) fn connected_mut(&mut self) -> Result<&mut Connection, Misuse> {
        self.connection.as_mut().ok_or(Misuse::NotConnected)
    }

    /// Whether a session is selected, which then carries every request.
    pub(super) fn in_session(&self) -> bool {
        self.sessions.current().is_some()
    }

    /// L1/L2 of where commands travel: the selected session, or outside any.
    pub(super) fn measurement_log(&mut self) -> Result<&mut Option<Transcript>, Misuse> {
        match self.sessions.current_mut() {
            Some(active) => Ok(&mut active.measurement_log),
            None => Ok(&mut self.connection.as_mut().ok_or(Misuse::NotConnected)?.measurement_log),
        }
    }

    /// L1/L2 of there with another exchange.
    pub(super) fn measurements_with(&mut self, exchange: [&[u8]; 2]) -> Result<Transcript, RequesterError> {
        let log = self.measurement_log()?.clone();
        let begin = || self.connected().map(|connection| connection.basis(&*self.provider).l1l2());
        let log = match log {
            Some(log) => log,
            None => begin()??,
        };
        Ok(extended(log, exchange))
    }

    /// Whether both sides have the forms with 32-bit lengths (`LARGE_RESP_CAP`, from 1.4 on).
    pub(super) fn large_forms(&self) -> Result<bool, Misuse> {
        let (ours, theirs) = (self.config.flags(), self.connected()?.info.capabilities);
        Ok(both(ours, RequesterFlags::LARGE_RESP, theirs, ResponderFlags::LARGE_RESP))
    }

    /// The capability flags of settings and identity, as `version` has them.
    pub(super) fn flags(&self, version: Version) -> RequesterFlags {
        let proves = RequesterFlags::MUT_AUTH | RequesterFlags::ENCAP;
        // 1.4 knows no challenge of a requester any more.
        let proves = if version < Version::V1_4 { proves | RequesterFlags::CHAL } else { proves };
        let identity = match (self.chains.has_certificates(), self.chains.has_public_key()) {
            (true, _) => RequesterFlags::CERT | proves,
            (false, true) => RequesterFlags::PUB_KEY_ID | proves,
            (false, false) => 0,
        };
        let info = match (self.config.device_classes.is_empty(), identity) {
            (true, _) => 0,
            (false, 0) => RequesterFlags::EP_INFO_NO_SIG,
            (false, _) => RequesterFlags::EP_INFO_SIG,
        };
        RequesterFlags(self.config.flags().0 | identity | info)
    }

    /// The key the settings know of a responder without certificates, if it fits what was negotiated.
    pub(super) fn known_key(&self, info: &ConnectionInfo) -> Result<Option<PeerKey>, CryptoError> {
        let announced = info.capabilities.has(ResponderFlags::PUB_KEY_ID);
        match (&self.config.responder_key, info.algorithms.signature) {
            (Some(known), Some(signature)) if announced => {
                known.for_algorithm(&*self.provider, info.algorithms.hash, signature)
            }
            _ => Ok(None),
        }
    }

    /// Whether both sides want the handshake unprotected.
    pub(super) fn handshakes_in_the_clear(&self) -> Result<bool, Misuse> {
        let (ours, theirs) = (self.config.flags(), self.connected()?.info.capabilities);
        let (requester, responder) =
            (RequesterFlags::HANDSHAKE_IN_THE_CLEAR, ResponderFlags::HANDSHAKE_IN_THE_CLEAR);
        Ok(both(ours, requester, theirs, responder))
    }

    /// Digest under the negotiated hash.
    pub(super) fn digest(&self, data: &[u8]) -> Result<Digest, RequesterError> {
        Ok(hash(&*self.provider, self.connected()?.hash(), data)?)
    }

    /// Random bytes.
    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], RequesterError> {
        let mut bytes = [0; N];
        self.provider.random(&mut bytes)?;
        Ok(bytes)
    }

    /// Forgets connection and sessions.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.sessions.clear();
    }

    /// What a request of this code does to the logs before it leaves (DSP0274 1.3 "CHALLENGE_AUTH signature
    /// generation", "MEASUREMENTS signature generation"). The specification leaves open what happens to M1/M2 once
    /// a challenge has succeeded; from then on only GET_DIGESTS starts it again, as in the reference implementation.
    pub(super) fn note_request(&mut self, code: Code) {
        if code != Code::GET_MEASUREMENTS
            && let Ok(log) = self.measurement_log()
        {
            *log = None;
        }
        let Some(connection) = &mut self.connection else { return };
        let leaves_challenge_behind = [
            Code::GET_MEASUREMENTS,
            Code::GET_MEASUREMENT_EXTENSION_LOG,
            Code::KEY_EXCHANGE,
            Code::FINISH,
            Code::PSK_EXCHANGE,
            Code::PSK_FINISH,
            Code::KEY_UPDATE,
            Code::HEARTBEAT,
            Code::END_SESSION,
            Code::GET_ENCAPSULATED_REQUEST,
            Code::DELIVER_ENCAPSULATED_RESPONSE,
        ];
        let skipped = !connection.authenticated && leaves_challenge_behind.contains(&code);
        if code == Code::GET_DIGESTS || skipped {
            connection.identity_log = None;
        }
    }
}

/// A request ready to leave, and what handles its response.
pub(super) struct Request {
    /// Version of the request and of its response.
    pub(super) version: Version,
    /// The message in clear.
    pub(super) bytes: Vec<u8>,
    /// Whether it travels inside the selected session.
    pub(super) secured: bool,
    pub(super) flow: Flow,
}

impl Request {
    /// A request outside any session.
    pub(super) fn clear(version: Version, bytes: Vec<u8>, flow: Flow) -> Self {
        Self { version, bytes, secured: false, flow }
    }

    /// A request that uses the selected session if there is one.
    pub(super) fn new(core: &Core, version: Version, bytes: Vec<u8>, flow: Flow) -> Self {
        Self { version, bytes, secured: core.in_session(), flow }
    }

    /// Its code.
    pub(super) fn code(&self) -> Code {
        Code(self.bytes.get(1).copied().unwrap_or_default())
    }
}

/// The response a command waits for, with what has to be remembered until it comes.
pub(super) enum Flow {
    Version(Negotiation),
    Capabilities(Versioned),
    Algorithms(Capable),
    Digests,
    Certificate(Fetch),
    Challenge(PendingChallenge),
    Measurements(PendingMeasurements),
    KeyExchange(PendingKeyExchange),
    Finish(PendingFinish),
    PskExchange(PendingPskExchange),
    PskFinish(PendingPskFinish),
    Heartbeat,
    KeyUpdate(PendingKeyUpdate),
    EndSession,
    EncapsulatedRequest(Conversation),
    Delivery(PendingDelivery),
    Vendor(PendingVendor),
    SetCertificate { slot: u8 },
    Csr,
    KeyPair(u8),
    SetKeyPair,
    Slots(PendingSlots),
    MeasurementLog(FetchLog),
    EndpointInfo(PendingEndpointInfo),
    EventTypes,
    Subscription,
}

/// What follows a response.
pub(super) enum Next {
    Send(Request),
    Done(Reply),
}

/// A response of the right code and version, with the request it answers.
pub(super) struct Message<'a> {
    /// The request in clear.
    pub(super) request: &'a [u8],
    pub(super) code: Code,
    /// The response in clear, with padding unless it came in a record.
    pub(super) response: &'a [u8],
    pub(super) secured: bool,
}

impl<'a> Message<'a> {
    /// Parses the whole response; also gives it without its padding, as transcripts want it.
    pub(super) fn parse<T>(
        &self,
        parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<(T, &'a [u8]), RequesterError> {
        let mut reader = Reader::new(self.response);
        let padding = if self.secured { 0 } else { MAX_PADDING };
        let parsed = parse(&mut reader).and_then(|parsed| reader.finish(padding).map(|()| parsed));
        let parsed = parsed.map_err(|error| self.malformed(error))?;
        let exact = self.response.get(..reader.consumed()).unwrap_or_default();
        Ok((parsed, exact))
    }

    /// Checks version and code, and that the message is no ERROR.
    pub(super) fn expect(&self, header: Header, version: Version, code: Code) -> Result<(), RequesterError> {
        let (expected, received) = (version, header.version);
        self.require(received == expected, Violation::Version { expected, received })?;
        self.require(header.code == code, Violation::Code(header.code))
    }

    pub(super) fn malformed(&self, error: DecodeError) -> RequesterError {
        RequesterError::Malformed { request: self.code, error }
    }

    pub(super) fn violation(&self, violation: Violation) -> RequesterError {
        RequesterError::Violation { request: self.code, violation }
    }

    /// Fails with `violation` unless `holds`.
    pub(super) fn require(&self, holds: bool, violation: Violation) -> Result<(), RequesterError> {
        if holds { Ok(()) } else { Err(self.violation(violation)) }
    }
}
