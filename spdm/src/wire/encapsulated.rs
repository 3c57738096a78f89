//! The four messages in which a responder's requests and a requester's responses travel: GET_ENCAPSULATED_REQUEST,
//! ENCAPSULATED_REQUEST, DELIVER_ENCAPSULATED_RESPONSE, ENCAPSULATED_RESPONSE_ACK (DSP0274 1.3, sections of these names).
//!
//! What is inside a message reaches to its end, transport padding included: whoever parses it decides about that.

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader, Reason};

const PAYLOAD_ABSENT: u8 = 0;
const PAYLOAD_REQUEST: u8 = 1;
const PAYLOAD_SLOT: u8 = 2;

/// Bytes before the request in ENCAPSULATED_REQUEST and before the response in DELIVER_ENCAPSULATED_RESPONSE.
pub const ENCAPSULATION_SIZE: usize = size_of::<Header>();
/// Most bytes before the request in ENCAPSULATED_RESPONSE_ACK.
pub const ACKNOWLEDGEMENT_SIZE: usize = size_of::<Header>() + 4;

/// Everything up to the end of the message, which is at least the header of another.
fn inner<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    if reader.remaining() < size_of::<Header>() {
        return Err(DecodeError::new(field, Reason::Truncated));
    }
    Ok(reader.rest())
}

/// GET_ENCAPSULATED_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetEncapsulatedRequest {
    /// Version of the message.
    pub version: Version,
}

impl GetEncapsulatedRequest {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_ENCAPSULATED_REQUEST)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_ENCAPSULATED_REQUEST, 0, 0).encode(out);
    }
}

/// ENCAPSULATED_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncapsulatedRequest<'a> {
    /// Version of the message.
    pub version: Version,
    /// Number that the response has to carry.
    pub id: u8,
    /// The responder's request.
    pub request: &'a [u8],
}

impl<'a> EncapsulatedRequest<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::ENCAPSULATED_REQUEST)?;
        Ok(Self {
            version: header.version,
            id: header.param1,
            request: inner(reader, "encapsulated request")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::ENCAPSULATED_REQUEST, self.id, 0).encode(out);
        out.put(self.request);
    }
}

/// DELIVER_ENCAPSULATED_RESPONSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverEncapsulatedResponse<'a> {
    /// Version of the message.
    pub version: Version,
    /// Number of the request it answers.
    pub id: u8,
    /// The requester's response.
    pub response: &'a [u8],
}

impl<'a> DeliverEncapsulatedResponse<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::DELIVER_ENCAPSULATED_RESPONSE)?;
        Ok(Self {
            version: header.version,
            id: header.param1,
            response: inner(reader, "encapsulated response")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::DELIVER_ENCAPSULATED_RESPONSE, self.id, 0).encode(out);
        out.put(self.response);
    }
}

/// What ENCAPSULATED_RESPONSE_ACK says comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation<'a> {
    /// Nothing: the responder has no more requests.
    Done,
    /// The responder's next request, and its number.
    Request {
        /// Number that the response has to carry.
        id: u8,
        /// The request.
        request: &'a [u8],
    },
    /// Nothing, and the requester is to sign FINISH with the key of this slot.
    Slot(u8),
}

/// ENCAPSULATED_RESPONSE_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncapsulatedResponseAck<'a> {
    /// Version of the message.
    pub version: Version,
    /// Number of the request whose response this acknowledges; from 1.2 on, otherwise 0.
    pub acknowledged: u8,
    /// What comes next.
    pub next: Continuation<'a>,
}

impl<'a> EncapsulatedResponseAck<'a> {
    /// Bytes before what comes next.
    #[must_use]
    pub const fn overhead(version: Version) -> usize {
        if version.0 >= Version::V1_2.0 { 8 } else { 4 }
    }

    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::ENCAPSULATED_RESPONSE_ACK)?;
        let acknowledged = if header.version >= Version::V1_2 {
            let [acknowledged, ..] = reader.array::<4>("acknowledged request")?;
            acknowledged
        } else {
            0
        };
        let next = match header.param2 {
            PAYLOAD_ABSENT => Continuation::Done,
            PAYLOAD_REQUEST => {
                Continuation::Request { id: header.param1, request: inner(reader, "encapsulated request")? }
            }
            PAYLOAD_SLOT => Continuation::Slot(reader.u8("requester slot")?),
            _ => return Err(DecodeError::illegal("payload type")),
        };
        Ok(Self { version: header.version, acknowledged, next })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (id, kind) = match self.next {
            Continuation::Done => (0, PAYLOAD_ABSENT),
            Continuation::Request { id, .. } => (id, PAYLOAD_REQUEST),
            Continuation::Slot(_) => (0, PAYLOAD_SLOT),
        };
        Header::new(self.version, Code::ENCAPSULATED_RESPONSE_ACK, id, kind).encode(out);
        if self.version >= Version::V1_2 {
            out.put(&[self.acknowledged, 0, 0, 0]);
        }
        match self.next {
            Continuation::Done => {}
            Continuation::Request { request, .. } => out.put(request),
            Continuation::Slot(slot) => out.put(&[slot]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::hex;

    /// Layouts from the tables of DSP0274 1.3, with the four-byte acknowledgement that 1.2 brought.
    #[test]
    fn the_layouts_are_those_of_the_specification() {
        let (v1_1, v1_3) = (Version::V1_1, Version::V1_3);
        let request: &[u8] = &[0x13, 0x81, 0, 0];
        let mut out = Vec::new();
        EncapsulatedRequest { version: v1_3, id: 7, request }.encode(&mut out);
        assert_eq!(out, hex("136a0700 13810000"));
        let parsed = EncapsulatedRequest::parse(&mut Reader::new(&out));
        assert_eq!(parsed, Ok(EncapsulatedRequest { version: v1_3, id: 7, request }));

        out.clear();
        DeliverEncapsulatedResponse { version: v1_3, id: 7, response: request }.encode(&mut out);
        assert_eq!(out, hex("13eb0700 13810000"));
        let parsed = DeliverEncapsulatedResponse::parse(&mut Reader::new(&out));
        assert_eq!(parsed, Ok(DeliverEncapsulatedResponse { version: v1_3, id: 7, response: request }));

        for (version, acknowledged, next, bytes) in [
            (v1_1, 0, Continuation::Done, "116b0000"),
            (v1_1, 0, Continuation::Request { id: 8, request }, "116b0801 13810000"),
            (v1_1, 0, Continuation::Slot(3), "116b0002 03"),
            (v1_3, 7, Continuation::Done, "136b0000 07000000"),
            (v1_3, 7, Continuation::Request { id: 8, request }, "136b0801 07000000 13810000"),
            (v1_3, 7, Continuation::Slot(3), "136b0002 07000000 03"),
        ] {
            let ack = EncapsulatedResponseAck { version, acknowledged, next };
            let mut out = vec![0xA5];
            ack.encode(&mut out);
            assert_eq!(out[1..], hex(bytes), "{bytes}");
            assert_eq!(EncapsulatedResponseAck::parse(&mut Reader::new(&out[1..])), Ok(ack));
            let start = EncapsulatedResponseAck::overhead(version);
            assert!(start < out.len());
            for length in 1..out.len() - 1 {
                let cut = EncapsulatedResponseAck::parse(&mut Reader::new(&out[1..=length]));
                assert!(cut.is_err(), "{bytes} cut to {length}");
            }
        }
        let mut out = hex("136b0003 07000000 03");
        assert_eq!(
            EncapsulatedResponseAck::parse(&mut Reader::new(&out)),
            Err(DecodeError::illegal("payload type"))
        );
        out[1] = 0x6A;
        assert!(EncapsulatedResponseAck::parse(&mut Reader::new(&out)).is_err());
    }

    #[test]
    fn what_is_inside_has_a_header_of_its_own() {
        for length in 0..8 {
            let request = &hex("126a0100 12810000")[..length];
            assert!(EncapsulatedRequest::parse(&mut Reader::new(request)).is_err());
            let response = &hex("12eb0100 12010000")[..length];
            assert!(DeliverEncapsulatedResponse::parse(&mut Reader::new(response)).is_err());
        }
    }
}
