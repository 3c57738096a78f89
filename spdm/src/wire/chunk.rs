//! CHUNK_SEND, CHUNK_GET and their responses, which carry messages larger than one transfer
//! (DSP0274 1.3 "Large SPDM message transfer mechanism").

use super::{Code, Header, MIN_DATA_TRANSFER_SIZE, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Param1 bit 0 of CHUNK_SEND and CHUNK_RESPONSE: nothing follows this chunk.
const LAST_CHUNK: u8 = 1 << 0;
/// Param1 bit 0 of CHUNK_SEND_ACK: the large request was given up, and the response says why.
const EARLY_ERROR_DETECTED: u8 = 1 << 0;

/// `ChunkSeqNo`, followed by two reserved bytes where a size follows: 1.4 makes one longer number of them.
fn parse_sequence(reader: &mut Reader<'_>, version: Version, padded: bool) -> Result<u32, DecodeError> {
    if version >= Version::V1_4 {
        return reader.u32("chunk sequence number");
    }
    let sequence = reader.u16("chunk sequence number")?;
    if padded {
        reader.u16("reserved")?;
    }
    Ok(sequence.into())
}

fn put_sequence(version: Version, sequence: u32, padded: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if version >= Version::V1_4 {
        out.put_u32(sequence);
        return Ok(());
    }
    out.put_u16(u16::try_from(sequence).map_err(|_| EncodeError("chunk sequence number"))?);
    if padded {
        out.put_u16(0);
    }
    Ok(())
}

/// Which chunk of which transfer: what CHUNK_SEND and CHUNK_RESPONSE begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// Version of the message.
    pub version: Version,
    /// Nothing follows this chunk.
    pub last: bool,
    /// Tells this transfer from another.
    pub handle: u8,
    /// Number of the chunk, from 0; 16 bits before 1.4.
    pub sequence: u32,
    /// Bytes in this chunk.
    pub size: u32,
}

impl ChunkHead {
    /// Parses the head of CHUNK_SEND.
    pub fn parse_request(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::CHUNK_SEND)
    }

    fn parse_as(reader: &mut Reader<'_>, code: Code) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, code)?;
        Ok(Self {
            version: header.version,
            last: header.param1 & LAST_CHUNK != 0,
            handle: header.param2,
            sequence: parse_sequence(reader, header.version, true)?,
            size: reader.u32("chunk size")?,
        })
    }
}

/// CHUNK_SEND or CHUNK_RESPONSE: one piece of a large message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Version of the message.
    pub version: Version,
    /// Nothing follows this chunk.
    pub last: bool,
    /// Tells this transfer from another.
    pub handle: u8,
    /// Number of the chunk, from 0; 16 bits before 1.4.
    pub sequence: u32,
    /// Size of the whole message, in bytes: in the chunk with the number 0 and in no other.
    pub message_size: Option<u32>,
    /// The piece.
    pub bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Bytes of the message beside the piece, in any chunk but the first.
    pub const OVERHEAD: usize = 12;
    /// Bytes of the message beside the piece, in the first chunk.
    pub const FIRST_OVERHEAD: usize = Self::OVERHEAD + 4;

    /// Bytes beside the piece in the chunk with this number.
    pub const fn overhead(sequence: u32) -> usize {
        if sequence == 0 { Self::FIRST_OVERHEAD } else { Self::OVERHEAD }
    }

    /// Parses CHUNK_SEND.
    pub fn parse_request(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::CHUNK_SEND)
    }

    /// Parses CHUNK_RESPONSE.
    pub fn parse_response(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::CHUNK_RESPONSE)
    }

    fn parse_as(reader: &mut Reader<'a>, code: Code) -> Result<Self, DecodeError> {
        let ChunkHead { version, last, handle, sequence, size } = ChunkHead::parse_as(reader, code)?;
        let message_size = if sequence == 0 { Some(reader.u32("large message size")?) } else { None };
        let size = usize::try_from(size).map_err(|_| DecodeError::illegal("chunk size"))?;
        let bytes = reader.bytes(size, "chunk")?;
        Ok(Self { version, last, handle, sequence, message_size, bytes })
    }

    /// Whether the piece has the least size: only the last chunk may be shorter than the smallest transfer.
    pub fn is_long_enough(&self) -> bool {
        let smallest = usize::try_from(MIN_DATA_TRANSFER_SIZE).unwrap_or(usize::MAX);
        self.last || self.bytes.len() + Self::overhead(self.sequence) >= smallest
    }

    /// Appends CHUNK_SEND; fails if the number or the size does not fit.
    pub fn encode_request(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_as(Code::CHUNK_SEND, out)
    }

    /// Appends CHUNK_RESPONSE; fails if the number or the size does not fit.
    pub fn encode_response(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_as(Code::CHUNK_RESPONSE, out)
    }

    fn encode_as(&self, code: Code, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let size = u32::try_from(self.bytes.len()).map_err(|_| EncodeError("chunk"))?;
        let attributes = if self.last { LAST_CHUNK } else { 0 };
        Header::new(self.version, code, attributes, self.handle).encode(out);
        put_sequence(self.version, self.sequence, true, out)?;
        out.put_u32(size);
        if let Some(message_size) = self.message_size {
            out.put_u32(message_size);
        }
        out.put(self.bytes);
        Ok(())
    }
}

/// CHUNK_SEND_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSendAck<'a> {
    /// Version of the message.
    pub version: Version,
    /// The large request was given up; `response` is the ERROR that says why.
    pub early_error: bool,
    /// Handle of the chunk it answers.
    pub handle: u8,
    /// Number of the chunk it answers.
    pub sequence: u32,
    /// The response to the large request, after its last chunk; empty before.
    pub response: &'a [u8],
}

impl<'a> ChunkSendAck<'a> {
    /// Bytes of the message beside the response.
    pub const fn overhead(version: Version) -> usize {
        if version.0 >= Version::V1_4.0 { 8 } else { 6 }
    }

    /// Parses the message. The response does not say how long it is: transport padding becomes part of it.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CHUNK_SEND_ACK)?;
        Ok(Self {
            version: header.version,
            early_error: header.param1 & EARLY_ERROR_DETECTED != 0,
            handle: header.param2,
            sequence: parse_sequence(reader, header.version, false)?,
            response: reader.rest(),
        })
    }

    /// Appends the message; fails if the number does not fit.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let attributes = if self.early_error { EARLY_ERROR_DETECTED } else { 0 };
        Header::new(self.version, Code::CHUNK_SEND_ACK, attributes, self.handle).encode(out);
        put_sequence(self.version, self.sequence, false, out)?;
        out.put(self.response);
        Ok(())
    }
}

/// CHUNK_GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkGet {
    /// Version of the message.
    pub version: Version,
    /// Handle of the transfer, from the ERROR LargeResponse.
    pub handle: u8,
    /// Number of the chunk wanted.
    pub sequence: u32,
}

impl ChunkGet {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CHUNK_GET)?;
        let sequence = parse_sequence(reader, header.version, false)?;
        Ok(Self { version: header.version, handle: header.param2, sequence })
    }

    /// Appends the message; fails if the number does not fit.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::CHUNK_GET, 0, self.handle).encode(out);
        put_sequence(self.version, self.sequence, false, out)
    }
}

/// Most bytes that chunks in transfers of this size can carry before their numbers run out.
pub fn longest_chunked(version: Version, transfer_size: usize) -> usize {
    let chunks = if version >= Version::V1_4 { 1_u64 << 32 } else { 1 << 16 };
    let each = u64::try_from(transfer_size.saturating_sub(Chunk::OVERHEAD)).unwrap_or(u64::MAX);
    let total = chunks.saturating_mul(each).saturating_sub(4);
    usize::try_from(total).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::hex;

    /// It takes all there is, so that the list of samples cannot hold it.
    #[test]
    fn an_acknowledgement_carries_whatever_follows() {
        for (version, bytes) in [
            (Version::V1_2, "12050107 0300"),
            (Version::V1_3, "13050107 0300 137f0100"),
            (Version::V1_4, "14050107 03000000 147f0100 0000"),
        ] {
            let bytes = hex(bytes);
            let parsed = ChunkSendAck::parse(&mut Reader::new(&bytes)).unwrap();
            let overhead = ChunkSendAck::overhead(version);
            let response = &bytes[overhead..];
            let expected = ChunkSendAck { version, early_error: true, handle: 7, sequence: 3, response };
            assert_eq!(parsed, expected);
            let mut again = vec![0xA5];
            parsed.encode(&mut again).unwrap();
            assert_eq!(again[1..], bytes);
            for length in 0..overhead {
                assert!(ChunkSendAck::parse(&mut Reader::new(&bytes[..length])).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn numbers_end_at_16_bits_before_1_4() {
        for (version, fits) in [(Version::V1_2, false), (Version::V1_3, false), (Version::V1_4, true)] {
            let (sequence, handle) = (0x1_0000, 1);
            let mut out = Vec::new();
            assert_eq!(ChunkGet { version, handle, sequence }.encode(&mut out).is_ok(), fits);
            let chunk = Chunk { version, last: false, handle, sequence, message_size: None, bytes: &[] };
            assert_eq!(chunk.encode_request(&mut out).is_ok(), fits);
            assert_eq!(longest_chunked(version, 42) > 0x1_0000 * 30 - 4, fits);
        }
        assert_eq!(longest_chunked(Version::V1_2, 42), 0x1_0000 * 30 - 4);
    }

    #[test]
    fn only_the_last_chunk_may_be_short() {
        let bytes = [0; 30];
        for (sequence, length, last, enough) in [
            (0, 26, false, true),
            (0, 25, false, false),
            (1, 30, false, true),
            (1, 29, false, false),
            (1, 1, true, true),
        ] {
            let bytes = &bytes[..length];
            let chunk =
                Chunk { version: Version::V1_2, last, handle: 0, sequence, message_size: None, bytes };
            assert_eq!(chunk.is_long_enough(), enough, "{sequence} {length}");
        }
    }
}
