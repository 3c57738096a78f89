//! What can go wrong on the host's side, and the exit code each kind has.

use std::io;
use std::time::Duration;

/// Result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, by who is at fault; the process's exit code follows from it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command cannot be carried out as given.
    #[error("{0}")]
    Usage(String),
    /// There is no such device, or it lacks what the command needs.
    #[error("{0}")]
    NoDevice(String),
    /// The way to the device failed.
    #[error("{what}: {source}")]
    Transport {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The device broke a protocol's rules.
    #[error("{0}")]
    Protocol(String),
    /// The device refused a request.
    #[error("{request} refused: {reason}")]
    Refused {
        /// The request.
        request: String,
        /// The device's error code, spelt out.
        reason: String,
    },
    /// A signature, chain, digest or HMAC did not verify.
    #[error("verification failed: {0}")]
    Verification(String),
    /// Something the walk expects of the device did not hold.
    #[error("{0}")]
    Check(String),
    /// The device did not answer in time.
    #[error("{what}: no answer within {after:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The session file cannot be used.
    #[error("session file: {0}")]
    Session(String),
}

impl Error {
    /// A transport failure while doing `what`; a time-out of the socket counts as a time-out.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Transport { what: what.into(), source }
    }

    /// The process's exit code, as documented in `--help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Session(_) => 2,
            Self::NoDevice(_) | Self::Transport { .. } => 3,
            Self::Protocol(_) | Self::Refused { .. } => 4,
            Self::Verification(_) => 5,
            Self::Check(_) => 6,
            Self::TimedOut { .. } => 7,
        }
    }

    /// A short, stable name of the kind, for JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Session(_) => "session",
            Self::NoDevice(_) => "no-device",
            Self::Transport { .. } => "transport",
            Self::Protocol(_) => "protocol",
            Self::Refused { .. } => "refused",
            Self::Verification(_) => "verification",
            Self::Check(_) => "check",
            Self::TimedOut { .. } => "time-out",
        }
    }
}
