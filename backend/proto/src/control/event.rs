//! What happens in a device, as watchers and its log are told.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::number::Hex;
use super::report::OverrideForm;
use super::state::{StreamName, TdiState};

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// Milliseconds since the device was started.
    pub milliseconds: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen. `cause`, `reason` and `code` are for programs and stay as they are; `text` is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A TDI is in another state.
    Transition {
        /// Function number.
        function: usize,
        /// The state it was in.
        from: TdiState,
        /// The state it is in.
        to: TdiState,
        /// Why: `locked`, `started`, `stopped`, `stream-insecure`, `session-ended`, `configuration-written`,
        /// `function-reset`, `conventional-reset`, `fault`.
        cause: String,
        /// The same in words, with what it was about.
        text: String,
    },
    /// LOCK was accepted although no key of the stream is in use.
    LockedWithoutKeys {
        /// Function number.
        function: usize,
        /// The stream it is bound to.
        stream: StreamName,
    },
    /// A stream became secure.
    StreamSecure {
        /// The stream.
        stream: StreamName,
        /// Its id.
        stream_id: u8,
    },
    /// A secure stream is not secure any more; its keys are gone.
    StreamInsecure {
        /// The stream.
        stream: StreamName,
        /// The id it had.
        stream_id: u8,
        /// Why: `disabled`, `key-stopped`, `key-replaced`, `session-ended`, `integrity-failure`, `link-down`,
        /// `register-written`, `reset`, `firmware-updated`.
        cause: String,
        /// The same in words.
        text: String,
    },
    /// An SPDM session's handshake is done.
    SessionEstablished {
        /// Session id.
        session: Hex<u32>,
    },
    /// A requester has proved who it is.
    RequesterAuthenticated {
        /// The session that is about to be established with it; `None` outside sessions.
        session: Option<Hex<u32>>,
        /// Slot of its key, 255 for its public key.
        slot: u8,
    },
    /// An SPDM session that was established is over.
    SessionEnded {
        /// Session id.
        session: Hex<u32>,
        /// Why: `requested`, `heartbeat-lost`, `restarted`, `reset`, `firmware-updated`, `unauthentic`, `exhausted`.
        reason: String,
        /// The same in words.
        text: String,
    },
    /// SET_CERTIFICATE wrote or erased a certificate slot.
    SlotChanged {
        /// The slot.
        slot: u8,
        /// Whether it has no certificates now.
        erased: bool,
        /// Why the next start will not know of it, in words; `None` if it is kept in the state directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<String>,
    },
    /// SET_KEY_PAIR_INFO changed, erased or generated a key pair.
    KeyPairChanged {
        /// Its id.
        key_pair: u8,
        /// Why the next start will not know of it, in words; `None` if it is kept in the state directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<String>,
    },
    /// A TDISP request was refused.
    Refused {
        /// Name of the request, or its code if it has none.
        request: String,
        /// ERROR_CODE of the response.
        code: String,
        /// Why, in words.
        text: String,
    },
    /// Accesses to BARs were refused by the gate since the last event of this kind. Told about once a second.
    GateRejected {
        /// Function number.
        function: usize,
        /// Reads.
        reads: u64,
        /// Writes.
        writes: u64,
    },
    /// A reset. The transitions it causes follow.
    Reset {
        /// Which.
        kind: ResetKind,
        /// Function number; `None` for the whole device.
        #[serde(skip_serializing_if = "Option::is_none")]
        function: Option<usize>,
    },
    /// A client connected.
    ClientConnected {
        /// Who.
        #[serde(flatten)]
        peer: Peer,
    },
    /// A client has gone.
    ClientDisconnected {
        /// Who.
        #[serde(flatten)]
        peer: Peer,
    },
    /// Pages of a BAR became private or shared: MSI-X by LOCK, others by SET_MMIO_ATTRIBUTE.
    MmioAttribute {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// First 4 KiB page, counted from the start of the BAR.
        first_page: u32,
        /// Number of 4 KiB pages.
        pages: u32,
        /// Shared from now on.
        non_tee: bool,
    },
    /// A P2P stream was bound to a running TDI, or unbound.
    P2pStream {
        /// Function number.
        function: usize,
        /// The stream.
        stream: StreamName,
        /// Whether it is bound now.
        bound: bool,
    },
    /// Firmware was updated.
    FirmwareUpdated {
        /// Indices of the measurements that have other values now.
        measurements: Vec<u8>,
    },
    /// A firmware update was forbidden by a TDI that is locked with NO_FW_UPDATE.
    FirmwareUpdateForbidden {
        /// Function number.
        function: usize,
    },
    /// Memory of a BAR was exported.
    ExportMade {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// T = 1: private.
        tee: bool,
        /// The pages, as they follow each other in the export.
        ranges: Vec<ByteRange>,
        /// State of the TDI at that moment.
        state: TdiState,
        /// What it is: `memfd` or `udmabuf`.
        #[serde(default)]
        file: String,
    },
    /// Memory of a BAR was asked for, and not exported.
    ExportRefused {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// T = 1: private.
        tee: bool,
        /// Why, in words.
        text: String,
    },
    /// Pages of an export went to the other side.
    ExportRevoked {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// T = 1: private.
        tee: bool,
        /// All pages of the export.
        ranges: Vec<ByteRange>,
        /// What became of those that went: `orphan`, `sigbus`, `keep`.
        how: String,
        /// Whether somebody still had it.
        held: bool,
    },
    /// A VMM did something that it should not have done, or not then. Told once in each state of the TDI.
    OutOfOrder {
        /// Function number.
        function: usize,
        /// What.
        rule: Sequence,
        /// Where.
        place: String,
    },
    /// With `arch = "tdx"`: an access with T = 0 met a private page of a bound TDI, which would have been a machine check. Told
    /// once in each state of the TDI.
    MachineCheck {
        /// Function number, by whose client it was made.
        function: usize,
        /// BAR index.
        bar: u8,
        /// In the BAR, in bytes.
        offset: Hex<u64>,
        /// Bytes.
        length: usize,
        /// Whether it was a write.
        write: bool,
        /// Who made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Process>,
    },
    /// What a report says from the next LOCK on was changed over the control socket.
    ReportOverridden {
        /// Function number.
        function: usize,
        /// What it says instead of what is so; `None` if that again.
        says: Option<OverrideForm>,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The kinds of reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetKind {
    /// Conventional reset of the device, or of one function's TDI.
    Conventional,
    /// Function level reset.
    FunctionLevel,
}

/// Who connects to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "client", rename_all = "kebab-case")]
pub enum Peer {
    /// The VMM that a function is plugged into.
    VfioUser {
        /// Function number.
        function: usize,
        /// The process, where the kernel tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<Process>,
    },
    /// A requester on the SPDM socket.
    Spdm {
        /// Its address.
        address: core::net::SocketAddr,
    },
}

/// A process of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// What it called itself when it connected (`/proc/PID/comm`); empty if it was gone by then.
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name.escape_debug())
    }
}

/// Bytes of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// From the start of the BAR.
    pub offset: Hex<u64>,
    /// How many.
    pub length: Hex<u64>,
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.offset.0, self.length.0)
    }
}

/// What a VMM should not do, or not then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sequence {
    /// Everything shared is unmapped before LOCK.
    SharedExportAtLock,
    /// Private pages are touched in RUN only.
    PrivateBeforeRun,
    /// What a TVM is to use is mapped before START, when it can validate it.
    ExportWhileRunning,
    /// What a TVM uses stays mapped until it is stopped.
    DropWhileRunning,
    /// What is mapped is what the interface report says.
    MappingUnlikeReport,
    /// In RUN, what a device does with T = 1 is asked for with T = 1.
    MixedDma,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedExportAtLock => {
                "a T = 0 export of pages that become TEE memory was still held at LOCK"
            }
            Self::PrivateBeforeRun => "a private page was touched before RUN",
            Self::ExportWhileRunning => "an export was made while the TDI was in RUN",
            Self::DropWhileRunning => "an export was dropped while the TDI was in RUN",
            Self::MappingUnlikeReport => "what is mapped of a BAR and the interface report disagree",
            Self::MixedDma => "an access with T = 0 asked for DMA with T = 1",
        })
    }
}

impl Happening {
    /// A short name of its kind: its `event` in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Transition { .. } => "transition",
            Self::LockedWithoutKeys { .. } => "locked-without-keys",
            Self::StreamSecure { .. } => "stream-secure",
            Self::StreamInsecure { .. } => "stream-insecure",
            Self::SessionEstablished { .. } => "session-established",
            Self::RequesterAuthenticated { .. } => "requester-authenticated",
            Self::SessionEnded { .. } => "session-ended",
            Self::SlotChanged { .. } => "slot-changed",
            Self::KeyPairChanged { .. } => "key-pair-changed",
            Self::Refused { .. } => "refused",
            Self::GateRejected { .. } => "gate-rejected",
            Self::Reset { .. } => "reset",
            Self::ClientConnected { .. } => "client-connected",
            Self::ClientDisconnected { .. } => "client-disconnected",
            Self::MmioAttribute { .. } => "mmio-attribute",
            Self::P2pStream { .. } => "p2p-stream",
            Self::FirmwareUpdated { .. } => "firmware-updated",
            Self::FirmwareUpdateForbidden { .. } => "firmware-update-forbidden",
            Self::ExportMade { .. } => "export-made",
            Self::ExportRefused { .. } => "export-refused",
            Self::ExportRevoked { .. } => "export-revoked",
            Self::OutOfOrder { .. } => "out-of-order",
            Self::MachineCheck { .. } => "machine-check",
            Self::ReportOverridden { .. } => "report-overridden",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VfioUser { function, process: None } => write!(f, "function {function}"),
            Self::VfioUser { function, process: Some(process) } => {
                write!(f, "function {function}, {process}")
            }
            Self::Spdm { address } => write!(f, "SPDM socket, {address}"),
        }
    }
}

/// How long a change lasts, as the end of its line; nothing where it is kept.
struct Lost<'a>(Option<&'a str>);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |why| write!(f, " until the next start: {why}"))
    }
}

const fn side(tee: bool) -> &'static str {
    if tee { "T = 1" } else { "T = 0" }
}

/// The line of the log.
impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition { function, from, to, text, .. } => {
                write!(f, "function {function}: {from} → {to}: {text}")
            }
            Self::LockedWithoutKeys { function, stream } => write!(
                f,
                "function {function}: locked though {stream} has no key in use: the session has rehearsed its keys, and \
                 nothing protects this interface"
            ),
            Self::StreamSecure { stream, stream_id } => write!(f, "{stream}, id {stream_id}: secure"),
            Self::StreamInsecure { stream, stream_id, text, .. } => {
                write!(f, "{stream}, id {stream_id}: insecure: {text}")
            }
            Self::SessionEstablished { session } => write!(f, "SPDM session {session} established"),
            Self::RequesterAuthenticated { session: Some(session), slot } => {
                write!(f, "SPDM session {session}: the requester has proved to be the one of slot {slot}")
            }
            Self::RequesterAuthenticated { session: None, slot } => {
                write!(f, "the SPDM requester has proved to be the one of slot {slot}")
            }
            Self::SessionEnded { session, text, .. } => write!(f, "SPDM session {session} ended: {text}"),
            Self::SlotChanged { slot, erased, lost } => {
                let what = if *erased { "erased" } else { "written" };
                write!(f, "SPDM certificate slot {slot} was {what}{}", Lost(lost.as_deref()))
            }
            Self::KeyPairChanged { key_pair, lost } => {
                write!(f, "SPDM key pair {key_pair} was changed{}", Lost(lost.as_deref()))
            }
            Self::Refused { request, text, .. } => write!(f, "TDISP {request} refused: {text}"),
            Self::GateRejected { function, reads, writes } => {
                write!(f, "function {function}: the gate refused {reads} reads and {writes} writes")
            }
            Self::Reset { kind: ResetKind::Conventional, function: None } => {
                f.write_str("conventional reset")
            }
            Self::Reset { kind: ResetKind::Conventional, function: Some(function) } => {
                write!(f, "function {function}: reset")
            }
            Self::Reset { kind: ResetKind::FunctionLevel, function } => {
                write!(f, "function {}: function level reset", function.unwrap_or_default())
            }
            Self::ClientConnected { peer } => write!(f, "{peer}: client connected"),
            Self::ClientDisconnected { peer } => write!(f, "{peer}: client disconnected"),
            Self::MmioAttribute { function, bar, first_page, pages, non_tee } => {
                let side = if *non_tee { "shared" } else { "private" };
                write!(f, "function {function}: BAR {bar}, {pages} pages from {first_page} on are {side}")
            }
            Self::P2pStream { function, stream, bound } => {
                write!(
                    f,
                    "function {function}: {stream} {} a peer",
                    if *bound { "is for" } else { "is no more for" }
                )
            }
            Self::FirmwareUpdated { measurements } => {
                write!(f, "firmware updated: measurements {measurements:?} have changed")
            }
            Self::FirmwareUpdateForbidden { function } => {
                write!(f, "firmware update forbidden: function {function} is locked with NO_FW_UPDATE")
            }
            Self::ExportMade { function, bar, tee, ranges, state, file } => {
                write!(f, "function {function}: {} of BAR {bar} exported in {state} as {file}:", side(*tee))?;
                ranges.iter().try_for_each(|range| write!(f, " {range}"))
            }
            Self::ExportRefused { function, bar, tee, text } => {
                write!(f, "function {function}: {} of BAR {bar} not exported: {text}", side(*tee))
            }
            Self::ExportRevoked { function, bar, tee, ranges, how, held } => {
                write!(f, "function {function}: {} export of BAR {bar} revoked ({how}", side(*tee))?;
                f.write_str(if *held { "):" } else { ", held by nobody):" })?;
                ranges.iter().try_for_each(|range| write!(f, " {range}"))
            }
            Self::OutOfOrder { function, rule, place } => {
                write!(f, "function {function}: out of order: {rule}: {place}")
            }
            Self::MachineCheck { function, bar, offset, length, write, by } => {
                write!(f, "function {function}: machine check: ")?;
                match by {
                    Some(process) => write!(f, "{process}")?,
                    None => f.write_str("its client")?,
                }
                let what = if *write { "wrote" } else { "read" };
                write!(f, " {what} {length} bytes of the private BAR {bar} + {:#x} with T = 0", offset.0)
            }
            Self::ReportOverridden { function, says: Some(form) } => {
                write!(f, "function {function}: from the next LOCK on its report lies: {form}")
            }
            Self::ReportOverridden { function, says: None } => {
                write!(f, "function {function}: from the next LOCK on its report says what is so")
            }
            Self::Unknown => f.write_str("something that this version does not know"),
        }
    }
}
