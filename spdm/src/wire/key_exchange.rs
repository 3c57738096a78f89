//! KEY_EXCHANGE and KEY_EXCHANGE_RSP
//! (DSP0274 1.3 "KEY_EXCHANGE request and KEY_EXCHANGE_RSP response messages").

use super::{Code, Header, Nonce, SummaryType, Version, opaque_field};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// `SessionPolicy` bit 0 (TerminationPolicy), from 1.2 on: where it is clear, the session ends when an update at run time
/// changes a measurement of the responder; where it is set, the responder decides.
pub const POLICY_RESPONDER_DECIDES: u8 = 1;
/// `SessionPolicy` bit 1, from 1.3 on: the requester subscribes to all events.
pub const POLICY_ALL_EVENTS: u8 = 2;

/// Bits of `SessionPolicy` that are not reserved.
pub(super) const fn policy_bits(version: Version) -> u8 {
    match version.0 {
        ..=0x11 => 0,
        0x12.. => 0xFF,
    }
}

/// `MutAuthRequested`: whether and how the responder asks the requester to authenticate itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MutualAuth {
    /// It does not.
    #[default]
    None,
    /// FINISH is to be signed by a key the responder knows already.
    Known,
    /// The responder asks for the certificate chain, with GET_ENCAPSULATED_REQUEST to begin with.
    Encapsulated,
    /// The responder asks for the certificate chain, and has asked for digests with this very message.
    Digests,
}

impl MutualAuth {
    /// From its wire value, of which three bits are not reserved; at most one may be set.
    pub const fn parse(value: u8) -> Result<Self, DecodeError> {
        match value & 7 {
            0 => Ok(Self::None),
            1 => Ok(Self::Known),
            2 => Ok(Self::Encapsulated),
            4 => Ok(Self::Digests),
            _ => Err(DecodeError::illegal("mutual authentication")),
        }
    }

    /// Its wire value.
    pub const fn value(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Known => 1,
            Self::Encapsulated => 2,
            Self::Digests => 4,
        }
    }
}

/// KEY_EXCHANGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchange<'a> {
    /// Version of the message.
    pub version: Version,
    /// Summary hash asked for.
    pub summary: SummaryType,
    /// Slot 0 to 7, or 0xFF for the public key without a certificate.
    pub slot: u8,
    /// The requester's half of the session id.
    pub session_id: u16,
    /// Session policy; 0 before 1.2.
    pub policy: u8,
    /// Random data.
    pub random: Nonce,
    /// Exchange data: X‖Y of the requester's ephemeral public key.
    pub exchange: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
}

impl<'a> KeyExchange<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>, exchange_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::KEY_EXCHANGE)?;
        let summary = SummaryType::parse(header.param1)?;
        let session_id = reader.u16("session id")?;
        let policy = reader.u8("session policy")? & policy_bits(header.version);
        reader.u8("reserved")?;
        Ok(Self {
            version: header.version,
            summary,
            slot: header.param2,
            session_id,
            policy,
            random: reader.array("random data")?,
            exchange: reader.bytes(exchange_size, "exchange data")?,
            opaque: opaque_field(reader)?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::KEY_EXCHANGE, self.summary.value(), self.slot).encode(out);
        out.put_u16(self.session_id);
        out.put(&[self.policy & policy_bits(self.version), 0]);
        out.put(&self.random);
        out.put(self.exchange);
        out.put_sized16(self.opaque, "opaque data")
    }
}

/// KEY_EXCHANGE_RSP. An encoder may leave signature and verify data empty and append them afterwards: parts of the
/// transcript end before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchangeRsp<'a> {
    /// Version of the message.
    pub version: Version,
    /// Heartbeat period in seconds; 0 if no heartbeat is wanted.
    pub heartbeat_period: u8,
    /// The responder's half of the session id.
    pub session_id: u16,
    /// Whether the requester is to be authenticated.
    pub mutual_auth: MutualAuth,
    /// `SlotIDParam`: the requester's slot if its key is known already, 0xF for its public key; otherwise 0.
    pub requester_slot: u8,
    /// Random data.
    pub random: Nonce,
    /// Exchange data: X‖Y of the responder's ephemeral public key.
    pub exchange: &'a [u8],
    /// Summary hash; empty if none was asked for.
    pub summary: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
    /// Signature over the transcript.
    pub signature: &'a [u8],
    /// `ResponderVerifyData`: HMAC over the transcript; empty if the handshake is in the clear.
    pub verify_data: &'a [u8],
}

/// Sizes of the variable fields of KEY_EXCHANGE_RSP, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchangeSizes {
    /// Exchange data.
    pub exchange: usize,
    /// Summary hash; 0 if none was asked for.
    pub summary: usize,
    /// Signature.
    pub signature: usize,
    /// Verify data; 0 if the handshake is in the clear.
    pub verify_data: usize,
}

impl<'a> KeyExchangeRsp<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>, sizes: &KeyExchangeSizes) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::KEY_EXCHANGE_RSP)?;
        Ok(Self {
            version: header.version,
            heartbeat_period: header.param1,
            session_id: reader.u16("session id")?,
            mutual_auth: MutualAuth::parse(reader.u8("mutual authentication")?)?,
            requester_slot: reader.u8("requester slot")? & 0xF,
            random: reader.array("random data")?,
            exchange: reader.bytes(sizes.exchange, "exchange data")?,
            summary: reader.bytes(sizes.summary, "measurement summary hash")?,
            opaque: opaque_field(reader)?,
            signature: reader.bytes(sizes.signature, "signature")?,
            verify_data: reader.bytes(sizes.verify_data, "verify data")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::KEY_EXCHANGE_RSP, self.heartbeat_period, 0).encode(out);
        out.put_u16(self.session_id);
        out.put(&[self.mutual_auth.value(), self.requester_slot & 0xF]);
        out.put(&self.random);
        out.put(self.exchange);
        out.put(self.summary);
        out.put_sized16(self.opaque, "opaque data")?;
        out.put(self.signature);
        out.put(self.verify_data);
        Ok(())
    }
}
