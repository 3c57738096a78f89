//! GET_MEASUREMENT_EXTENSION_LOG, MEASUREMENT_EXTENSION_LOG, and the log they transfer (DSP0274 1.3, sections of these
//! names and "DMTF Measurement Extension Log Format").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// `MELspecification`: the DMTF format.
pub const MEL_SPECIFICATION_DMTF: u8 = 1;

/// GET_MEASUREMENT_EXTENSION_LOG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetMeasurementLog {
    /// Version of the message.
    pub version: Version,
    /// First byte of the log asked for.
    pub offset: u32,
    /// Number of bytes asked for; `u32::MAX` for as much as fits.
    pub length: u32,
}

impl GetMeasurementLog {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_MEASUREMENT_EXTENSION_LOG)?;
        Ok(Self { version: header.version, offset: reader.u32("offset")?, length: reader.u32("length")? })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_MEASUREMENT_EXTENSION_LOG, 0, 0).encode(out);
        out.put_u32(self.offset);
        out.put_u32(self.length);
    }
}

/// MEASUREMENT_EXTENSION_LOG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurementLogPortion<'a> {
    /// Version of the message.
    pub version: Version,
    /// Bytes of the log.
    pub portion: &'a [u8],
    /// Bytes of the log behind this portion.
    pub remainder: u32,
}

impl<'a> MeasurementLogPortion<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::MEASUREMENT_EXTENSION_LOG)?;
        let length = usize::try_from(reader.u32("portion length")?).unwrap_or(usize::MAX);
        let remainder = reader.u32("remainder length")?;
        Ok(Self { version: header.version, portion: reader.bytes(length, "portion")?, remainder })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u32::try_from(self.portion.len()).map_err(|_| EncodeError("portion"))?;
        Header::new(self.version, Code::MEASUREMENT_EXTENSION_LOG, 0, 0).encode(out);
        out.put_u32(length);
        out.put_u32(self.remainder);
        out.put(self.portion);
        Ok(())
    }
}

/// Raw bit stream, in the type of a value.
const RAW: u8 = 0x80;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LogHeader {
    entries: U32,
    length: U32,
    reserved: [u8; 8],
}
const _: () = assert!(size_of::<LogHeader>() == 16);

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// Number of the entry, ascending.
    pub number: u32,
    /// Index of the measurement that it extended, or is part of.
    pub index: u8,
    /// `DMTFSpecMeasurementValueType` without the raw bit.
    pub kind: u8,
    /// The value is a bit stream and not a digest.
    pub raw: bool,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> LogEntry<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let number = reader.u32("log entry number")?;
        let index = reader.u8("measurement index")?;
        reader.bytes(3, "reserved")?;
        let kind = reader.u8("value type")?;
        let value = reader.sized16("value")?;
        Ok(Self { number, index, kind: kind & !RAW, raw: kind & RAW != 0, value })
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put_u32(self.number);
        out.put(&[self.index, 0, 0, 0, self.kind & !RAW | if self.raw { RAW } else { 0 }]);
        out.put_sized16(self.value, "value")
    }
}

/// The log as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurementLog;

impl MeasurementLog {
    /// Parses a whole log: `NumberOfEntries` and `MELEntriesLen` have to be right.
    pub fn parse(log: &[u8]) -> Result<Vec<LogEntry<'_>>, DecodeError> {
        let mut reader = Reader::new(log);
        let header: LogHeader = reader.read("log header")?;
        if usize::try_from(header.length.get()) != Ok(reader.remaining()) {
            return Err(DecodeError::illegal("log length"));
        }
        let mut entries = Vec::new();
        while reader.remaining() != 0 {
            entries.push(LogEntry::parse(&mut reader)?);
        }
        if u32::try_from(entries.len()) != Ok(header.entries.get()) {
            return Err(DecodeError::illegal("number of log entries"));
        }
        Ok(entries)
    }

    /// Appends a whole log.
    pub fn encode(entries: &[LogEntry<'_>], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut body = Vec::new();
        for entry in entries {
            entry.encode(&mut body)?;
        }
        let number = u32::try_from(entries.len()).map_err(|_| EncodeError("log"))?;
        let length = u32::try_from(body.len()).map_err(|_| EncodeError("log"))?;
        out.put_fixed(&LogHeader { entries: number.into(), length: length.into(), reserved: [0; 8] });
        out.put(&body);
        Ok(())
    }
}
