//! One small cursor over untrusted bytes, and the errors of decoding and encoding. The cursor never panics and
//! never allocates.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::codes::MessageCode;

/// Why bytes are not a legal message. Names the field, so that a log line says what the peer got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the field does.
    #[error("{0}: the message is too short")]
    Truncated(&'static str),
    /// Bytes follow where the message should have ended.
    #[error("{0} bytes after the end of the message")]
    TrailingBytes(usize),
    /// The header's version is not 1.0.
    #[error("TDISP version {0:#04x}")]
    Version(u8),
    /// A code that this decoder has no body for.
    #[error("unknown message code {0}")]
    UnknownCode(MessageCode),
    /// An IDE_KM object id that this decoder has no body for.
    #[error("unknown IDE_KM object {0:#04x}")]
    UnknownObject(u8),
    /// A field holds a value that its definition does not allow.
    #[error("{0}: illegal value {1:#x}")]
    Value(&'static str, u64),
}

/// A variable field is longer than the length field before it can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field}: {length} bytes do not fit its length field")]
pub struct FieldTooLong {
    /// The field that is too long.
    pub field: &'static str,
    /// Its length in bytes.
    pub length: usize,
}

/// Cursor over a message body.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn structure<T>(&mut self, field: &'static str) -> Result<&'a T, DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let (value, rest) = T::ref_from_prefix(self.0).map_err(|_| DecodeError::Truncated(field))?;
        self.0 = rest;
        Ok(value)
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.structure::<u8>(field).copied()
    }

    pub(crate) fn bytes(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated(field))?;
        self.0 = rest;
        Ok(value)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.0.len())) }
    }
}
