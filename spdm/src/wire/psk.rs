//! PSK_EXCHANGE, PSK_EXCHANGE_RSP, PSK_FINISH and PSK_FINISH_RSP
//! (DSP0274 1.4 "PSK_EXCHANGE request and PSK_EXCHANGE_RSP response messages", "PSK_FINISH request and PSK_FINISH_RSP
//! response messages").

use super::finish::{handshake_opaque, put_handshake_opaque};
use super::key_exchange::policy_bits;
use super::{Code, Header, MAX_OPAQUE_SIZE, NONCE_SIZE, SummaryType, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// A context is a nonce of at least this many bytes, and whatever else its sender puts behind it.
pub const MIN_PSK_CONTEXT_SIZE: usize = NONCE_SIZE;

fn length16(bytes: &[u8], field: &'static str) -> Result<u16, EncodeError> {
    u16::try_from(bytes.len()).map_err(|_| EncodeError(field))
}

/// The length of opaque data, which both messages have in front of other fields.
fn opaque_length(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let length = usize::from(reader.u16("opaque data length")?);
    if length > MAX_OPAQUE_SIZE { Err(DecodeError::illegal("opaque data length")) } else { Ok(length) }
}

/// PSK_EXCHANGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PskExchange<'a> {
    /// Version of the message.
    pub version: Version,
    /// Summary hash asked for.
    pub summary: SummaryType,
    /// Session policy; 0 before 1.2.
    pub policy: u8,
    /// The requester's half of the session id.
    pub session_id: u16,
    /// `PSKHint`: which key to use; empty if the responder knows that already.
    pub hint: &'a [u8],
    /// `RequesterContext`, at least [`MIN_PSK_CONTEXT_SIZE`] bytes.
    pub context: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
}

impl<'a> PskExchange<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::PSK_EXCHANGE)?;
        let summary = SummaryType::parse(header.param1)?;
        let session_id = reader.u16("session id")?;
        let hint = usize::from(reader.u16("hint length")?);
        let context = usize::from(reader.u16("context length")?);
        if context < MIN_PSK_CONTEXT_SIZE {
            return Err(DecodeError::illegal("context length"));
        }
        let opaque = opaque_length(reader)?;
        Ok(Self {
            version: header.version,
            summary,
            policy: header.param2 & policy_bits(header.version),
            session_id,
            hint: reader.bytes(hint, "hint")?,
            context: reader.bytes(context, "context")?,
            opaque: reader.bytes(opaque, "opaque data")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let policy = self.policy & policy_bits(self.version);
        Header::new(self.version, Code::PSK_EXCHANGE, self.summary.value(), policy).encode(out);
        out.put_u16(self.session_id);
        out.put_u16(length16(self.hint, "hint")?);
        out.put_u16(length16(self.context, "context")?);
        out.put_u16(length16(self.opaque, "opaque data")?);
        out.put(self.hint);
        out.put(self.context);
        out.put(self.opaque);
        Ok(())
    }
}

/// PSK_EXCHANGE_RSP. An encoder may leave the verify data empty and append it afterwards: the transcript ends before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PskExchangeRsp<'a> {
    /// Version of the message.
    pub version: Version,
    /// Heartbeat period in seconds; 0 if no heartbeat is wanted.
    pub heartbeat_period: u8,
    /// The responder's half of the session id.
    pub session_id: u16,
    /// Summary hash; empty if none was asked for.
    pub summary: &'a [u8],
    /// `ResponderContext`: at least [`MIN_PSK_CONTEXT_SIZE`] bytes, or empty if the responder does without, in which
    /// case the session is established by this message.
    pub context: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
    /// `ResponderVerifyData`: HMAC over the transcript.
    pub verify_data: &'a [u8],
}

impl<'a> PskExchangeRsp<'a> {
    /// Parses the message; `summary_size` is 0 if no summary was asked for.
    pub fn parse(
        reader: &mut Reader<'a>,
        summary_size: usize,
        hash_size: usize,
    ) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::PSK_EXCHANGE_RSP)?;
        let session_id = reader.u16("session id")?;
        reader.u16("reserved")?;
        let context = usize::from(reader.u16("context length")?);
        if (1..MIN_PSK_CONTEXT_SIZE).contains(&context) {
            return Err(DecodeError::illegal("context length"));
        }
        let opaque = opaque_length(reader)?;
        Ok(Self {
            version: header.version,
            heartbeat_period: header.param1,
            session_id,
            summary: reader.bytes(summary_size, "measurement summary hash")?,
            context: reader.bytes(context, "context")?,
            opaque: reader.bytes(opaque, "opaque data")?,
            verify_data: reader.bytes(hash_size, "verify data")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::PSK_EXCHANGE_RSP, self.heartbeat_period, 0).encode(out);
        out.put_u16(self.session_id);
        out.put_u16(0);
        out.put_u16(length16(self.context, "context")?);
        out.put_u16(length16(self.opaque, "opaque data")?);
        out.put(self.summary);
        out.put(self.context);
        out.put(self.opaque);
        out.put(self.verify_data);
        Ok(())
    }
}

/// PSK_FINISH. An encoder may leave the verify data empty and append it afterwards: the transcript ends before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PskFinish<'a> {
    /// Version of the message.
    pub version: Version,
    /// Opaque data, from 1.4 on; earlier versions have none.
    pub opaque: &'a [u8],
    /// `RequesterVerifyData`: HMAC over the transcript.
    pub verify_data: &'a [u8],
}

impl<'a> PskFinish<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>, hash_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::PSK_FINISH)?;
        let opaque = handshake_opaque(reader, header.version)?;
        Ok(Self { version: header.version, opaque, verify_data: reader.bytes(hash_size, "verify data")? })
    }

    /// Appends the message; fails for more opaque data than its length field can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::PSK_FINISH, 0, 0).encode(out);
        put_handshake_opaque(self.version, self.opaque, out)?;
        out.put(self.verify_data);
        Ok(())
    }
}

/// PSK_FINISH_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PskFinishRsp<'a> {
    /// Version of the message.
    pub version: Version,
    /// Opaque data, from 1.4 on; earlier versions have none.
    pub opaque: &'a [u8],
}

impl<'a> PskFinishRsp<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::PSK_FINISH_RSP)?;
        Ok(Self { version: header.version, opaque: handshake_opaque(reader, header.version)? })
    }

    /// Appends the message; fails for more opaque data than its length field can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::PSK_FINISH_RSP, 0, 0).encode(out);
        put_handshake_opaque(self.version, self.opaque, out)
    }
}
