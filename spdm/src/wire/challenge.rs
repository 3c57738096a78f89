//! CHALLENGE and CHALLENGE_AUTH (DSP0274 1.3 "CHALLENGE request and CHALLENGE_AUTH response messages").

use super::{Code, Header, Nonce, RequesterContext, Version, opaque_field};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Which measurements a summary hash covers (`MeasurementSummaryHashType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummaryType {
    /// No summary hash.
    None,
    /// Measurements of the trusted computing base.
    Tcb,
    /// All measurements.
    All,
}

impl SummaryType {
    /// From its wire value.
    pub const fn parse(value: u8) -> Result<Self, DecodeError> {
        match value {
            0 => Ok(Self::None),
            1 => Ok(Self::Tcb),
            0xFF => Ok(Self::All),
            _ => Err(DecodeError::illegal("measurement summary hash type")),
        }
    }

    /// Its wire value.
    pub const fn value(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tcb => 1,
            Self::All => 0xFF,
        }
    }
}

/// `RequesterContext`, present from 1.3 on.
pub(super) fn context(
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<Option<RequesterContext>, DecodeError> {
    if version >= Version::V1_3 { reader.array("requester context").map(Some) } else { Ok(None) }
}

/// Appends `RequesterContext` from 1.3 on; zeros if there is none.
pub(super) fn put_context(version: Version, context: Option<RequesterContext>, out: &mut Vec<u8>) {
    if version >= Version::V1_3 {
        out.put(&context.unwrap_or_default());
    }
}

/// CHALLENGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Version of the message.
    pub version: Version,
    /// Slot 0 to 7, or 0xFF for the public key without a certificate.
    pub slot: u8,
    /// Summary hash asked for.
    pub summary: SummaryType,
    /// The requester's nonce.
    pub nonce: Nonce,
    /// Echoed by the responder; `Some` from 1.3 on.
    pub context: Option<RequesterContext>,
}

impl Challenge {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CHALLENGE)?;
        Ok(Self {
            version: header.version,
            slot: header.param1,
            summary: SummaryType::parse(header.param2)?,
            nonce: reader.array("nonce")?,
            context: context(reader, header.version)?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::CHALLENGE, self.slot, self.summary.value()).encode(out);
        out.put(&self.nonce);
        put_context(self.version, self.context, out);
    }
}

/// `BasicMutAuthReq` in the attributes of CHALLENGE_AUTH.
pub const BASIC_MUTUAL_AUTH: u8 = 1 << 7;

/// CHALLENGE_AUTH. An encoder may leave the signature empty and append it afterwards: the transcript ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeAuth<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slot in bits 3:0; from 1.1 on bit 7 asks for basic mutual authentication, see [`Self::asks_for_requester`].
    pub attributes: u8,
    /// Provisioned slots.
    pub slot_mask: u8,
    /// Hash of the certificate chain of the slot.
    pub chain_hash: &'a [u8],
    /// The responder's nonce.
    pub nonce: Nonce,
    /// Summary hash; empty if none was asked for.
    pub summary: &'a [u8],
    /// Opaque data.
    pub opaque: &'a [u8],
    /// The requester's context; `Some` from 1.3 on.
    pub context: Option<RequesterContext>,
    /// Signature over M1/M2.
    pub signature: &'a [u8],
}

impl<'a> ChallengeAuth<'a> {
    /// The slot it is about. In 1.0 the attributes are the slot and nothing else.
    pub const fn slot(&self) -> u8 {
        match self.version.0 {
            ..=0x10 => self.attributes,
            0x11.. => self.attributes & 0xF,
        }
    }

    /// Whether the requester is to authenticate itself too (`BasicMutAuthReq`).
    pub const fn asks_for_requester(&self) -> bool {
        self.version.0 >= Version::V1_1.0 && self.attributes & BASIC_MUTUAL_AUTH != 0
    }

    /// Parses the message; `summary_size` is the hash size if a summary was asked for, otherwise 0.
    pub fn parse(
        reader: &mut Reader<'a>,
        hash_size: usize,
        summary_size: usize,
        signature_size: usize,
    ) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CHALLENGE_AUTH)?;
        Ok(Self {
            version: header.version,
            attributes: header.param1,
            slot_mask: header.param2,
            chain_hash: reader.bytes(hash_size, "chain hash")?,
            nonce: reader.array("nonce")?,
            summary: reader.bytes(summary_size, "measurement summary hash")?,
            opaque: opaque_field(reader)?,
            context: context(reader, header.version)?,
            signature: reader.bytes(signature_size, "signature")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::CHALLENGE_AUTH, self.attributes, self.slot_mask).encode(out);
        out.put(self.chain_hash);
        out.put(&self.nonce);
        out.put(self.summary);
        out.put_sized16(self.opaque, "opaque data")?;
        put_context(self.version, self.context, out);
        out.put(self.signature);
        Ok(())
    }
}
