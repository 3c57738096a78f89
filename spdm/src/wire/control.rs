//! The messages that are a header and nothing else and steer a session: HEARTBEAT, KEY_UPDATE, END_SESSION
//! (DSP0274 1.3, sections of these names).

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Reader};

macro_rules! bare {
    ($($(#[$doc:meta])* $name:ident = $code:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// Version of the message.
            pub version: Version,
        }

        impl $name {
            /// Parses the message.
            pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let header = Header::expect(reader, Code::$code)?;
                Ok(Self { version: header.version })
            }

            /// Appends the message.
            pub fn encode(&self, out: &mut Vec<u8>) {
                Header::new(self.version, Code::$code, 0, 0).encode(out);
            }
        }
    )*};
}

bare! {
    /// HEARTBEAT.
    Heartbeat = HEARTBEAT;
    /// HEARTBEAT_ACK.
    HeartbeatAck = HEARTBEAT_ACK;
    /// END_SESSION_ACK.
    EndSessionAck = END_SESSION_ACK;
}

/// What KEY_UPDATE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    /// New key for requests.
    UpdateKey,
    /// New keys in both directions.
    UpdateAllKeys,
    /// Proof that the new key works.
    VerifyNewKey,
}

impl KeyOperation {
    const fn parse(value: u8) -> Result<Self, DecodeError> {
        match value {
            1 => Ok(Self::UpdateKey),
            2 => Ok(Self::UpdateAllKeys),
            3 => Ok(Self::VerifyNewKey),
            _ => Err(DecodeError::illegal("key operation")),
        }
    }

    /// Its wire value.
    pub const fn value(self) -> u8 {
        match self {
            Self::UpdateKey => 1,
            Self::UpdateAllKeys => 2,
            Self::VerifyNewKey => 3,
        }
    }
}

/// KEY_UPDATE or KEY_UPDATE_ACK: the acknowledgement echoes operation and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUpdate {
    /// Version of the message.
    pub version: Version,
    /// What is asked for.
    pub operation: KeyOperation,
    /// Tells this update from another.
    pub tag: u8,
}

impl KeyUpdate {
    /// Parses KEY_UPDATE.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::KEY_UPDATE)
    }

    /// Parses KEY_UPDATE_ACK.
    pub fn parse_ack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::KEY_UPDATE_ACK)
    }

    fn parse_as(reader: &mut Reader<'_>, code: Code) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, code)?;
        Ok(Self {
            version: header.version,
            operation: KeyOperation::parse(header.param1)?,
            tag: header.param2,
        })
    }

    /// Appends KEY_UPDATE.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::KEY_UPDATE, self.operation.value(), self.tag).encode(out);
    }

    /// Appends KEY_UPDATE_ACK.
    pub fn encode_ack(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::KEY_UPDATE_ACK, self.operation.value(), self.tag).encode(out);
    }
}

/// END_SESSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSession {
    /// Version of the message.
    pub version: Version,
    /// Param1 bit 0: a responder that caches its negotiated state is to drop it.
    pub clear_negotiated_state: bool,
}

impl EndSession {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::END_SESSION)?;
        Ok(Self { version: header.version, clear_negotiated_state: header.param1 & 1 != 0 })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::END_SESSION, self.clear_negotiated_state.into(), 0).encode(out);
    }
}
