//! GET_MEASUREMENTS and MEASUREMENTS, and the measurement blocks they carry
//! (DSP0274 1.3 "GET_MEASUREMENTS request and MEASUREMENTS response messages", "DMTF specification for the
//! Measurement field of a measurement block").

use super::challenge::{context, put_context};
use super::{Code, Header, MEASUREMENT_SPECIFICATION_DMTF, Nonce, RequesterContext, Version, opaque_field};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

const SIGNATURE_REQUESTED: u8 = 1 << 0;
const RAW_REQUESTED: u8 = 1 << 1;
const NEW_REQUESTED: u8 = 1 << 2;
/// Type bit that says the value is a raw bit stream and not a digest.
const RAW_VALUE: u8 = 1 << 7;

/// Which measurements are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasurementOperation {
    /// Only how many there are.
    Count,
    /// The one with this index, 1 to 254.
    One(u8),
    /// All of them.
    All,
}

impl MeasurementOperation {
    const fn parse(value: u8) -> Self {
        match value {
            0 => Self::Count,
            0xFF => Self::All,
            index => Self::One(index),
        }
    }

    /// Its wire value.
    pub const fn value(self) -> u8 {
        match self {
            Self::Count => 0,
            Self::One(index) => index,
            Self::All => 0xFF,
        }
    }
}

/// Nonce and slot that a request for a signature carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRequest {
    /// The requester's nonce.
    pub nonce: Nonce,
    /// Slot in bits 3:0; 0xF for the public key without a certificate. Not sent in 1.0, where it is slot 0.
    pub slot: u8,
}

impl SignatureRequest {
    fn parse(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let nonce = reader.array("nonce")?;
        let slot = if version >= Version::V1_1 { reader.u8("slot")? & 0xF } else { 0 };
        Ok(Self { nonce, slot })
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.put(&self.nonce);
        if version >= Version::V1_1 {
            out.put(&[self.slot & 0xF]);
        }
    }
}

/// GET_MEASUREMENTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetMeasurements {
    /// Version of the message.
    pub version: Version,
    /// Raw bit streams are asked for where the responder has them.
    pub raw: bool,
    /// 1.3: pending new measurements are asked for instead of the current ones.
    pub new: bool,
    /// Which measurements.
    pub operation: MeasurementOperation,
    /// Present if a signature is asked for.
    pub signature: Option<SignatureRequest>,
    /// Echoed by the responder; `Some` from 1.3 on.
    pub context: Option<RequesterContext>,
}

impl GetMeasurements {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_MEASUREMENTS)?;
        let signature = if header.param1 & SIGNATURE_REQUESTED != 0 {
            Some(SignatureRequest::parse(reader, header.version)?)
        } else {
            None
        };
        Ok(Self {
            version: header.version,
            raw: header.param1 & RAW_REQUESTED != 0,
            new: header.version >= Version::V1_3 && header.param1 & NEW_REQUESTED != 0,
            operation: MeasurementOperation::parse(header.param2),
            signature,
            context: context(reader, header.version)?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut attributes = 0;
        if self.signature.is_some() {
            attributes |= SIGNATURE_REQUESTED;
        }
        if self.raw {
            attributes |= RAW_REQUESTED;
        }
        if self.new && self.version >= Version::V1_3 {
            attributes |= NEW_REQUESTED;
        }
        Header::new(self.version, Code::GET_MEASUREMENTS, attributes, self.operation.value()).encode(out);
        if let Some(request) = &self.signature {
            request.encode(self.version, out);
        }
        put_context(self.version, self.context, out);
    }
}

/// `ContentChanged`: whether a measurement changed since the transcript began; reported with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentChanged {
    /// The responder does not detect it.
    NotDetected,
    /// At least one entry changed.
    Changed,
    /// None changed.
    Unchanged,
}

impl ContentChanged {
    const fn parse(param2: u8) -> Result<Self, DecodeError> {
        match param2 >> 4 & 3 {
            0 => Ok(Self::NotDetected),
            1 => Ok(Self::Changed),
            2 => Ok(Self::Unchanged),
            _ => Err(DecodeError::illegal("content changed")),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::NotDetected => 0,
            Self::Changed => 1 << 4,
            Self::Unchanged => 2 << 4,
        }
    }
}

/// Bits of param2 that are not reserved: the slot from 1.1 on, [`ContentChanged`] from 1.2 on.
const fn param2_bits(version: Version) -> u8 {
    match version.0 {
        ..=0x10 => 0,
        0x11 => 0x0F,
        0x12.. => 0x3F,
    }
}

/// MEASUREMENTS. An encoder may leave the signature empty and append it afterwards: the transcript ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements<'a> {
    /// Version of the message.
    pub version: Version,
    /// Number of measurements there are, if only the count was asked for, otherwise 0.
    pub total: u8,
    /// Slot whose key signs, if a signature was asked for; 0 in 1.0.
    pub slot: u8,
    /// Whether a measurement changed; before 1.2 not detected.
    pub changed: ContentChanged,
    /// Number of blocks in the record.
    pub blocks: u8,
    /// Concatenated measurement blocks.
    pub record: &'a [u8],
    /// The responder's nonce.
    pub nonce: Nonce,
    /// Opaque data.
    pub opaque: &'a [u8],
    /// The requester's context; `Some` from 1.3 on.
    pub context: Option<RequesterContext>,
    /// Signature over L1/L2; empty if none was asked for.
    pub signature: &'a [u8],
}

impl<'a> Measurements<'a> {
    /// Parses the message; `signature_size` is 0 if no signature was asked for.
    pub fn parse(reader: &mut Reader<'a>, signature_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::MEASUREMENTS)?;
        let param2 = header.param2 & param2_bits(header.version);
        let blocks = reader.u8("block count")?;
        let length = reader.u24("record length")?;
        let record = reader
            .bytes(usize::try_from(length).map_err(|_| DecodeError::illegal("record length"))?, "record")?;
        Ok(Self {
            version: header.version,
            total: header.param1,
            slot: param2 & 0xF,
            changed: ContentChanged::parse(param2)?,
            blocks,
            record,
            nonce: reader.array("nonce")?,
            opaque: opaque_field(reader)?,
            context: context(reader, header.version)?,
            signature: reader.bytes(signature_size, "signature")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let [low, middle, high, 0] =
            u32::try_from(self.record.len()).map_err(|_| EncodeError("record"))?.to_le_bytes()
        else {
            return Err(EncodeError("record"));
        };
        let param2 = (self.slot & 0xF | self.changed.bits()) & param2_bits(self.version);
        Header::new(self.version, Code::MEASUREMENTS, self.total, param2).encode(out);
        out.put(&[self.blocks, low, middle, high]);
        out.put(self.record);
        out.put(&self.nonce);
        out.put_sized16(self.opaque, "opaque data")?;
        put_context(self.version, self.context, out);
        out.put(self.signature);
        Ok(())
    }

    /// The blocks of the record; the last item is an error if the record is malformed.
    pub fn iter(&self) -> MeasurementBlocks<'a> {
        MeasurementBlocks { reader: Reader::new(self.record) }
    }
}

/// One DMTF measurement block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurementBlock<'a> {
    /// Index, 1 to 254.
    pub index: u8,
    /// `DMTFSpecMeasurementValueType` without the raw bit, such as 0 for immutable ROM.
    pub kind: u8,
    /// Whether the value is a raw bit stream and not a digest.
    pub raw: bool,
    /// Digest or bit stream.
    pub value: &'a [u8],
}

impl<'a> MeasurementBlock<'a> {
    /// Bytes the block takes beside its value.
    pub const OVERHEAD: usize = 7;

    /// Parses one block of the DMTF measurement specification.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let index = reader.u8("measurement index")?;
        if reader.u8("measurement specification")? != MEASUREMENT_SPECIFICATION_DMTF {
            return Err(DecodeError::illegal("measurement specification"));
        }
        let mut body = Reader::new(reader.sized16("measurement")?);
        let kind = body.u8("measurement type")?;
        let value = body.sized16("measurement value")?;
        body.finish(0)?;
        Ok(Self { index, kind: kind & !RAW_VALUE, raw: kind & RAW_VALUE != 0, value })
    }

    /// Appends the block.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.value.len() + 3).map_err(|_| EncodeError("measurement"))?;
        out.put(&[self.index, MEASUREMENT_SPECIFICATION_DMTF]);
        out.put_u16(length);
        out.put(&[self.kind | if self.raw { RAW_VALUE } else { 0 }]);
        out.put_sized16(self.value, "measurement value")
    }
}

/// Walks the blocks of a measurement record.
#[derive(Clone, Debug)]
pub struct MeasurementBlocks<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for MeasurementBlocks<'a> {
    type Item = Result<MeasurementBlock<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.remaining() == 0 {
            return None;
        }
        let block = MeasurementBlock::parse(&mut self.reader);
        if block.is_err() {
            self.reader.rest();
        }
        Some(block)
    }
}
