//! What `state` tells: every TDI, IDE stream and SPDM session. Never a key.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::number::Hex;
use super::report::OverrideForm;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of the program.
    pub tdispd: String,
    /// Everything up to the event with this sequence number is accounted for; 0 if there was none.
    pub sequence: u64,
    /// Milliseconds since the device was started.
    pub milliseconds: u64,
    /// By function number.
    pub tdis: Vec<Tdi>,
    /// Link streams, then selective streams.
    pub streams: Vec<Stream>,
    /// SPDM sessions, oldest first; those in their handshakes included.
    pub sessions: Vec<Session>,
    /// The session that IDE_KM belongs to.
    pub key_manager: Option<Hex<u32>>,
}

/// State of a TDI (PCIe 6.1 §11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the specification's names")]
pub enum TdiState {
    ConfigUnlocked,
    ConfigLocked,
    Run,
    Error,
}

impl TdiState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ConfigUnlocked, Self::ConfigLocked, Self::Run, Self::Error];

    /// The specification's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConfigUnlocked => "CONFIG_UNLOCKED",
            Self::ConfigLocked => "CONFIG_LOCKED",
            Self::Run => "RUN",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for TdiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TdiState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or("none of CONFIG_UNLOCKED, CONFIG_LOCKED, RUN, ERROR")
    }
}

/// One TDI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tdi {
    /// Function number.
    pub function: usize,
    /// Its FUNCTION_ID, as far as the device knows its own address.
    pub function_id: Hex<u32>,
    /// State.
    pub state: TdiState,
    /// What it is bound to, in CONFIG_LOCKED and RUN.
    pub binding: Option<Binding>,
    /// How it came into its state; `None` if it has not left CONFIG_UNLOCKED yet.
    pub last_transition: Option<LastTransition>,
    /// What its report says from the next LOCK on, if not what is so.
    pub report_override: Option<OverrideForm>,
    /// Accesses that the gate refused since the device was started.
    pub gate: GateCounts,
    /// Accesses to BARs by cell of the gate, without those that were never met.
    #[serde(default)]
    pub gate_cells: Vec<GateCell>,
}

/// What a TDI is bound to since LOCK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The SPDM session that carried LOCK.
    pub session: Hex<u32>,
    /// The IDE stream.
    pub stream: StreamName,
    /// Its id.
    pub stream_id: u8,
    /// Streams to peers, bound by BIND_P2P_STREAM.
    pub p2p_streams: Vec<StreamName>,
    /// Whether its keys are in use.
    pub keys: KeyUse,
    /// FLAGS.
    pub lock_flags: Hex<u16>,
    /// MMIO_REPORTING_OFFSET, bytes.
    pub mmio_reporting_offset: Hex<u64>,
    /// Length of the report that LOCK fixed, bytes.
    pub report_length: usize,
}

/// Whether the keys of a bound stream were in use at LOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// All six of one set.
    InUse,
    /// They were programmed, started and stopped: nothing protects the TDI.
    Rehearsed,
}

/// How a TDI came into its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTransition {
    /// Of its event.
    pub sequence: u64,
    /// When, in milliseconds since the device was started.
    pub milliseconds: u64,
    /// The state before.
    pub from: TdiState,
    /// Why, for programs.
    pub cause: String,
    /// Why, in words.
    pub text: String,
}

/// Accesses that the gate refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateCounts {
    /// Reads.
    pub rejected_reads: u64,
    /// Writes.
    pub rejected_writes: u64,
}

/// Accesses to BARs that met one cell of the gate. What a client has mapped, it accesses without being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateCell {
    /// State of the TDI.
    pub state: TdiState,
    /// T = 1.
    pub tee: bool,
    /// The pages were private.
    pub private: bool,
    /// Reads served.
    pub reads: u64,
    /// Writes served.
    pub writes: u64,
    /// Reads that got ones.
    pub rejected_reads: u64,
    /// Writes that were dropped.
    pub rejected_writes: u64,
}

/// The two kinds of IDE stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// From port to port.
    Link,
    /// From end to end.
    Selective,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamName {
    /// Its kind.
    pub kind: StreamKind,
    /// Its index among those of its kind.
    pub index: u8,
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StreamKind::Link => "link",
            StreamKind::Selective => "selective",
        };
        write!(f, "{kind} stream {}", self.index)
    }
}

/// One IDE stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Which one.
    #[serde(flatten)]
    pub name: StreamName,
    /// Stream id in its control register.
    pub stream_id: u8,
    /// Enable.
    pub enabled: bool,
    /// Whether its status is secure.
    pub secure: bool,
    /// Default stream.
    pub default_stream: bool,
    /// Traffic class.
    pub traffic_class: u8,
    /// TEE-limited stream.
    pub tee_limited: bool,
    /// How many of its twelve slots hold a key.
    pub keys_programmed: usize,
    /// The keys in use.
    pub keys: Keys,
    /// Their key set, where all are of one.
    pub key_set: Option<u8>,
}

/// The keys in use of a stream, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Not every sub-stream of both directions has one.
    Incomplete,
    /// All six, of both sets.
    Mixed,
    /// All six, of one set.
    Complete,
}

/// One SPDM session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Session id.
    pub session: Hex<u32>,
    /// Whether its handshake is done.
    pub established: bool,
    /// SPDM version.
    pub version: String,
    /// DSP0277 version; `None` if the requester offered none.
    pub secured_version: Option<String>,
    /// Hash of the key schedule.
    pub hash: String,
    /// AEAD suite.
    pub aead: String,
    /// Whether records are encrypted, or only authenticated.
    pub encrypted: bool,
    /// Key exchange of the connection.
    pub exchange: Option<String>,
    /// The device's signature algorithm on the connection.
    pub signature: Option<String>,
    /// What the device began it with.
    pub origin: Origin,
    /// Slot of the key with which the requester proved who it is, 255 for its public key; `None` if it did not.
    pub requester_slot: Option<u8>,
    /// Heartbeat period; 0 if it needs none.
    pub heartbeat_seconds: u64,
}

/// What a session began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The certificate of a slot.
    Slot(u8),
    /// The device's public key.
    PublicKey,
    /// The pre-shared key with this hint.
    Psk(String),
}
