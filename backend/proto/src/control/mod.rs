//! The control socket: JSON lines over a Unix stream socket.
//!
//! A client sends one request a line, and each is answered by one [`Reply`] in the same order. After [`Command::Watch`] the
//! device's [`Event`]s are sent as well, one a line, between replies. The last line a client gets when it is sent away is a
//! [`Farewell`].
//!
//! ```text
//! → {"id":1,"command":"watch"}
//! ← {"id":1,"result":{"sequence":4}}
//! ← {"sequence":5,"milliseconds":8125,"event":"transition","function":0,"from":"CONFIG_UNLOCKED",…}
//! → {"id":2,"command":"report-get","function":9}
//! ← {"id":2,"error":{"code":"no-such-function","message":"there is no function 9; there are 1"}}
//! ```
//!
//! The reply to [`Command::Dmabuf`] comes with a descriptor (SCM_RIGHTS), attached to its first byte.
//!
//! Nothing here can change the state of a TDI: that is the host's right. With `strict = true` in the device's configuration, an
//! export at the wrong time does, as it would over vfio-user.

mod event;
mod number;
mod report;
mod state;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use event::{ByteRange, Event, Happening, Peer, Process, ResetKind, Sequence};
pub use number::{Hex, HexBytes};
pub use report::{
    Bits, FieldError, InfoFlags, OverrideForm, RangeFields, Report, ReportFields, ReportSource, ReportText,
};
pub use state::{
    Binding, GateCell, GateCounts, KeyUse, Keys, LastTransition, Origin, Session, State, Stream, StreamKind,
    StreamName, Tdi, TdiState,
};

/// Longest request, in bytes, its newline not counted. The longest report as edited fields fits.
pub const MAX_REQUEST: usize = 1024 * 1024;

/// What a client may call its request, to find the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
}

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// [`State`] of everything there is.
    State {},
    /// From now on, events: the reply is [`Watching`].
    Watch {},
    /// The [`Report`] of a function.
    ReportGet {
        /// Function number.
        function: usize,
        /// LOCK flags to assume while the function is not locked.
        #[serde(default)]
        lock_flags: Hex<u16>,
        /// MMIO_REPORTING_OFFSET to assume while the function is not locked, bytes.
        #[serde(default)]
        mmio_reporting_offset: Hex<u64>,
    },
    /// From the next LOCK on, the report of a function says this. The reply is the [`Report`] as that LOCK would give it.
    ReportSet {
        /// Function number.
        function: usize,
        /// What it says.
        report: ReportText,
    },
    /// From the next LOCK on, the report of a function says what is so. The reply is that [`Report`].
    ReportReset {
        /// Function number.
        function: usize,
    },
    /// A descriptor of a BAR's memory, as DEVICE_FEATURE with DMA_BUF gives it over vfio-user: the reply is a [`Dmabuf`].
    Dmabuf {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// T = 1: private. Otherwise T = 0.
        #[serde(default)]
        tee: bool,
        /// Whole pages, one range behind the other in the descriptor's file.
        ranges: Vec<ByteRange>,
        /// The descriptor is for reading only.
        #[serde(default)]
        read_only: bool,
    },
}

/// What [`Command`] knows, as it is spelt.
const COMMANDS: [&str; 6] = ["state", "watch", "report-get", "report-set", "report-reset", "dmabuf"];

/// A request: a command, and what the client calls it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// Comes back in the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// What is asked for.
    #[serde(flatten)]
    pub command: Command,
}

impl Request {
    /// A request from its line, without the newline.
    ///
    /// # Errors
    /// The reply that is due instead.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let fail =
            |id, code, message: String| Reply { id, outcome: Outcome::Error(Failure { code, message }) };
        let value = serde_json::from_slice(line)
            .map_err(|error| fail(None, FailureCode::BadJson, format!("not a line of JSON: {error}")))?;
        let Value::Object(mut fields) = value else {
            return Err(fail(None, FailureCode::BadRequest, "a request is a JSON object".into()));
        };
        let id = match fields.remove("id").map(serde_json::from_value).transpose() {
            Ok(id) => id,
            Err(_) => {
                let wrong = "id: neither a string nor a number from 0 to 2^64 - 1".into();
                return Err(fail(None, FailureCode::BadRequest, wrong));
            }
        };
        let code = match fields.get("command").and_then(Value::as_str) {
            None => {
                return Err(fail(id, FailureCode::BadRequest, "command: there is none, as a string".into()));
            }
            Some(name) if COMMANDS.contains(&name) => FailureCode::BadRequest,
            Some(_) => FailureCode::UnknownCommand,
        };
        match serde_json::from_value(Value::Object(fields)) {
            Ok(command) => Ok(Self { id, command }),
            Err(error) => Err(fail(id, code, error.to_string())),
        }
    }
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's, if it had one that could be read.
    #[serde(default)]
    pub id: Option<Id>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What was asked for.
    Result(Value),
    /// Why there is none; nothing has changed.
    Error(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people; names the field.
    pub message: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The line is no JSON.
    BadJson,
    /// A field is missing, unknown or has a wrong value.
    BadRequest,
    /// There is no such command.
    UnknownCommand,
    /// The line is longer than [`MAX_REQUEST`]. The connection ends, for what follows cannot be told from its rest.
    TooLong,
    /// There is no such function.
    NoSuchFunction,
    /// No such report can be handed out.
    BadReport,
    /// These pages cannot be exported, or not now.
    NotExported,
    /// The device could not put its answer together.
    Internal,
}

/// The result of [`Command::Watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// Sequence number of the last event before those that will be sent; 0 if there was none.
    pub sequence: u64,
}

/// The result of [`Command::Dmabuf`], with which a descriptor comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dmabuf {
    /// Size of what it is a descriptor of, in bytes.
    pub size: u64,
    /// What that is: `memfd` or `udmabuf`.
    pub file: String,
}

/// The last line to a client that is sent away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// Why.
    pub closed: String,
}

/// A line from the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Answers a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
    /// The end.
    Farewell(Farewell),
}

#[cfg(test)]
mod tests;
