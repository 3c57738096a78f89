//! What a requester can be told to do, what comes next, and what it brings back.

use core::time::Duration;

use super::evidence::Evidence;
use super::slots::{SlotCommand, SlotReply};
use crate::SessionId;
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use crate::identity::VerifiedCertificates;
use crate::trust::Trust;
use crate::wire::{
    CertificateModel, ContentChanged, DeviceClass, EventData, EventGroup, KeyPairAlgorithms,
    KeyPairCapabilities, KeyPairOperation, KeyUsage, LogEntry, MeasurementOperation, NegotiateAlgorithms,
    Nonce, ResponderExtendedFlags, ResponderFlags, SlotKey, SummaryType, Version,
};

/// One thing to do. Most take one exchange; some take several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS. Forgets whatever was known before, a session included.
    Connect,
    /// GET_DIGESTS.
    Digests,
    /// GET_CERTIFICATE in as many portions as it takes, then the checks of the whole chain.
    Certificate {
        /// Slot 0 to 7.
        slot: u8,
    },
    /// CHALLENGE of a slot whose certificate chain has been fetched.
    Challenge {
        /// Slot 0 to 7, or 0xFF for the responder's known key.
        slot: u8,
        /// Which measurements the responder is to summarise.
        summary: SummaryType,
    },
    /// GET_MEASUREMENTS, inside the session if there is one.
    Measurements(MeasurementQuery),
    /// GET_MEASUREMENTS of everything, signed, for somebody who is elsewhere and made up the nonce.
    Evidence {
        /// Slot whose key is to sign.
        slot: u8,
        /// The nonce.
        nonce: Nonce,
    },
    /// KEY_EXCHANGE and FINISH with a slot whose certificate chain has been fetched.
    StartSession {
        /// Slot 0 to 7, or 0xFF for the responder's known key.
        slot: u8,
        /// Which measurements the responder is to summarise.
        summary: SummaryType,
        /// Whether a firmware update of the responder ends the session whatever the responder would rather do
        /// (`SessionPolicy` bit 0 clear).
        end_on_update: bool,
    },
    /// PSK_EXCHANGE, and PSK_FINISH where the responder has a context.
    StartPskSession {
        /// Hint of a key in [`RequesterConfig::psks`](super::RequesterConfig::psks); empty for the first.
        hint: Vec<u8>,
        /// Which measurements the responder is to summarise.
        summary: SummaryType,
        /// Whether a firmware update of the responder ends the session whatever the responder would rather do
        /// (`SessionPolicy` bit 0 clear).
        end_on_update: bool,
    },
    /// GET_ENCAPSULATED_REQUEST, inside the session if there is one: answers what the responder wants to ask, if it
    /// wants anything.
    Serve,
    /// HEARTBEAT.
    Heartbeat,
    /// KEY_UPDATE and its verification with the new key.
    UpdateKeys(UpdateKeys),
    /// END_SESSION.
    EndSession {
        /// Whether a responder that caches negotiated state is to drop it.
        clear_negotiated_state: bool,
    },
    /// VENDOR_DEFINED_REQUEST, inside the session if there is one.
    Vendor {
        /// Registry that assigned the vendor id.
        standard_id: u16,
        /// Vendor id, as long as its registry wants it.
        vendor_id: Vec<u8>,
        /// Payload.
        payload: Vec<u8>,
    },
    /// SET_CERTIFICATE. A responder that needs a reset refuses with ResetRequired when it has accepted.
    SetCertificate {
        /// Slot 0 to 7.
        slot: u8,
        /// Key pair of the chain's leaf, where the connection has several keys.
        key_pair: u8,
        /// What the slot is to hold.
        content: SlotContent,
    },
    /// GET_CSR. A responder that needs a reset refuses with ResetRequired when it has accepted.
    Csr(CsrQuery),
    /// GET_KEY_PAIR_INFO.
    KeyPair {
        /// Key pair, from 1 on.
        key_pair: u8,
    },
    /// SET_KEY_PAIR_INFO.
    SetKeyPair {
        /// Key pair, from 1 on.
        key_pair: u8,
        /// What to do with it.
        operation: KeyPairOperation,
    },
    /// SLOT_MANAGEMENT.
    Slots(SlotCommand),
    /// GET_MEASUREMENT_EXTENSION_LOG in as many portions as it takes.
    MeasurementLog,
    /// GET_ENDPOINT_INFO.
    EndpointInfo {
        /// Slot whose key is to sign; `None` asks for no signature.
        signed_by: Option<u8>,
    },
    /// GET_SUPPORTED_EVENT_TYPES.
    EventTypes,
    /// SUBSCRIBE_EVENT_TYPES. The events come with [`Command::Serve`].
    Subscribe {
        /// What to hear of from now on, instead of what was; empty for nothing.
        groups: Vec<EventGroup>,
    },
}

/// What SET_CERTIFICATE puts into a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotContent {
    /// A certificate chain.
    Chain {
        /// DER certificates, from the root to the leaf.
        certificates: Vec<Vec<u8>>,
        /// Model of the chain, where the connection has several keys.
        model: CertificateModel,
    },
    /// The slot is erased, from 1.3 on.
    Nothing,
}

/// What GET_CSR asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsrQuery {
    /// Key pair to certify, where the connection has several keys.
    pub key_pair: u8,
    /// Model of the certificate to come, where the connection has several keys.
    pub model: Option<CertificateModel>,
    /// `CSRTrackingTag` of an earlier request that was refused with ResetRequired, its data; 0 for a new request.
    pub tracking_tag: u8,
    /// An earlier request that waits for a reset is to be forgotten.
    pub overwrite: bool,
    /// A PKCS#10 CertificationRequestInfo in DER whose subject and attributes are wanted, or nothing.
    pub requester_info: Vec<u8>,
}

/// Which measurements, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurementQuery {
    /// Count, one or all.
    pub operation: MeasurementOperation,
    /// Ask for raw bit streams where the responder has them.
    pub raw: bool,
    /// Slot whose key is to sign everything asked since the last signature; `None` asks for no signature.
    pub signed_by: Option<u8>,
}

/// Which keys KEY_UPDATE replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKeys {
    /// The key for requests (UpdateKey).
    Requests,
    /// The keys for both directions (UpdateAllKeys).
    Both,
}

/// What the host does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message, and give the answer to `receive`.
    Send {
        /// `true` for a secured record (DOE type 2), `false` for a clear message (DOE type 1).
        secured: bool,
        /// The message, without transport padding.
        bytes: Vec<u8>,
    },
    /// Wait this long, then call `retry`.
    RetryAfter(Duration),
    /// The command is done.
    Done(Reply),
}

/// What a command brought back. Everything in it has been verified as far as the message can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of [`Command::Connect`].
    Connected(ConnectionInfo),
    /// Of [`Command::Digests`].
    Digests(SlotDigests),
    /// Of [`Command::Certificate`].
    Certificate(PeerCertificate),
    /// Of [`Command::Challenge`].
    Challenged(Challenged),
    /// Of [`Command::Measurements`].
    Measurements(MeasurementReport),
    /// Of [`Command::Evidence`].
    Evidence(Evidence),
    /// Of [`Command::StartSession`] and [`Command::StartPskSession`].
    SessionStarted(SessionInfo),
    /// Of [`Command::Serve`].
    Served(Served),
    /// Of [`Command::Heartbeat`].
    Alive,
    /// Of [`Command::UpdateKeys`].
    KeysUpdated,
    /// Of [`Command::EndSession`].
    SessionEnded,
    /// Of [`Command::Vendor`]: the payload.
    Vendor(Vec<u8>),
    /// Of [`Command::SetCertificate`].
    CertificateSet,
    /// Of [`Command::Csr`]: a PKCS#10 CertificationRequest in DER, as the responder says.
    Csr(Vec<u8>),
    /// Of [`Command::KeyPair`].
    KeyPair(KeyPairReport),
    /// Of [`Command::SetKeyPair`].
    KeyPairSet,
    /// Of [`Command::Slots`].
    Slots(SlotReply),
    /// Of [`Command::MeasurementLog`].
    MeasurementLog(MeasurementLogReport),
    /// Of [`Command::EndpointInfo`].
    EndpointInfo(EndpointReport),
    /// Of [`Command::EventTypes`].
    EventTypes(Vec<EventGroup>),
    /// Of [`Command::Subscribe`].
    Subscribed,
}

/// What GET_VERSION, GET_CAPABILITIES and NEGOTIATE_ALGORITHMS agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// SPDM version of every message from now on.
    pub version: Version,
    /// What the responder can do.
    pub capabilities: ResponderFlags,
    /// What else it can do, from 1.4 on.
    pub extended_capabilities: ResponderExtendedFlags,
    /// What it would have selected from, if it was asked and told; `None` for a connection that was restored.
    pub supported_algorithms: Option<NegotiateAlgorithms>,
    /// CTExponent: 2^this microseconds is what the responder's cryptography may take.
    pub ct_exponent: u8,
    /// Largest single transfer the responder receives, in bytes.
    pub data_transfer_size: u32,
    /// Largest message the responder receives, in bytes; more than a transfer only in chunks.
    pub max_message_size: u32,
    /// Algorithms.
    pub algorithms: SelectedAlgorithms,
}

/// Algorithms the responder selected. Those it has no use for, given its capabilities, may be `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SelectedAlgorithms {
    /// Hash of transcripts, digests and the key schedule.
    pub hash: HashAlgorithm,
    /// Signature algorithm of the responder; `None` only if it has neither certificates nor a public key.
    pub signature: Option<AsymAlgorithm>,
    /// Signature algorithm of the requester, if the responder can ask for a signature.
    #[serde(default)]
    pub requester_signature: Option<AsymAlgorithm>,
    /// Hash that measurements were made with; `None` for raw bit streams only.
    pub measurement_hash: Option<HashAlgorithm>,
    /// Key exchange group.
    pub group: Option<DheGroup>,
    /// AEAD suite.
    pub aead: Option<Aead>,
    /// The responder's slots have keys of their own.
    #[serde(default)]
    pub multiple_keys: bool,
    /// The measurement extension log can be asked for.
    #[serde(default)]
    pub measurement_log: bool,
}

/// Digests of the provisioned slots. They are hearsay until a chain or a signature confirms them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotDigests {
    /// Slots that exist, bit per slot; 0 before SPDM 1.3, which does not tell.
    pub supported: u8,
    /// Slots that hold a chain, bit per slot.
    pub provisioned: u8,
    /// Slot number and digest, ascending.
    pub digests: Vec<(u8, Vec<u8>)>,
    /// Slot number and what is said of its key, ascending, where the connection has several keys.
    pub keys: Vec<(u8, SlotKey)>,
}

/// What a responder says of one key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairReport {
    /// Number of key pairs there are.
    pub total: u8,
    /// What SET_KEY_PAIR_INFO can change.
    pub capabilities: KeyPairCapabilities,
    /// Uses that can be configured.
    pub usage_capabilities: KeyUsage,
    /// Uses that are configured.
    pub usage: KeyUsage,
    /// Algorithms that can be configured.
    pub algorithm_capabilities: KeyPairAlgorithms,
    /// The algorithm that is configured; none while there is no key.
    pub algorithm: KeyPairAlgorithms,
    /// Slots whose key this is, bit per slot.
    pub slots: u8,
    /// AlgorithmIdentifier of the public key in DER; empty while there is no key.
    pub public_key_info: Vec<u8>,
}

/// The measurement extension log. Nothing vouches for it but the measurements that its entries extend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementLogReport {
    /// Oldest entry first.
    pub entries: Vec<MeasurementLogRecord>,
}

/// One entry of the measurement extension log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementLogRecord {
    /// Number of the entry.
    pub number: u32,
    /// The measurement it belongs to.
    pub measurement: Measurement,
}

impl From<LogEntry<'_>> for MeasurementLogRecord {
    fn from(entry: LogEntry<'_>) -> Self {
        let LogEntry { number, index, kind, raw, value } = entry;
        Self { number, measurement: Measurement { index, kind, raw, value: value.to_vec() } }
    }
}

/// What a responder says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// Device classes.
    pub classes: Vec<DeviceClass>,
    /// Whether a signature vouches for them.
    pub signed: bool,
}

/// A certificate chain that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Slot it came from.
    pub slot: u8,
    /// The certificates and what was found in them.
    pub chain: VerifiedCertificates,
    /// Digest of the whole chain under the negotiated hash, as DIGESTS reports it.
    pub chain_digest: Vec<u8>,
    /// Digest of the root certificate under the negotiated hash.
    pub root_digest: Vec<u8>,
    /// Why its root is trusted.
    pub trust: Trust,
}

/// A responder that proved it holds the key of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenged {
    /// The slot.
    pub slot: u8,
    /// Summary hash of the measurements, if one was asked for.
    pub summary: Option<Vec<u8>>,
    /// Opaque data.
    pub opaque: Vec<u8>,
    /// Slot with whose key we proved who we are in turn, because the responder asked.
    pub authenticated_as: Option<u8>,
}

/// What was done because the responder asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The responder uses another key now.
    pub key_renewed: bool,
    /// The responder was told what kind of device this endpoint is.
    pub described: bool,
    /// Events, in the order in which they happened. One that was sent again, because our acknowledgement did not arrive,
    /// has the instance id it had.
    pub events: Vec<EventData>,
}

/// Measurements, and whether a signature vouches for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementReport {
    /// Number of measurements there are, if that was asked.
    pub total: Option<u8>,
    /// The measurements, in the responder's order.
    pub measurements: Vec<Measurement>,
    /// What the signature said about changes while measuring; `None` if there is no signature.
    pub signed: Option<ContentChanged>,
    /// Opaque data.
    pub opaque: Vec<u8>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Index, 1 to 254.
    pub index: u8,
    /// `DMTFSpecMeasurementValueType` without the raw bit.
    pub kind: u8,
    /// Whether the value is a raw bit stream and not a digest.
    pub raw: bool,
    /// Digest or bit stream.
    pub value: Vec<u8>,
}

/// A session that both sides have confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id on the wire.
    pub id: SessionId,
    /// Seconds within which the responder wants to hear of us; 0 if it does not care.
    pub heartbeat_period: u8,
    /// Version of secured messages (DSP0277).
    pub secured_version: Version,
    /// Summary hash of the measurements, if one was asked for when the session was started here.
    pub summary: Option<Vec<u8>>,
    /// Slot with whose key we proved who we are when the session was started here, because the responder asked.
    pub authenticated_as: Option<u8>,
}
