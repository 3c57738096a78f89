//! VENDOR_DEFINED_REQUEST and VENDOR_DEFINED_RESPONSE (DSP0274 1.4, sections of these names).

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Registry `StandardID` of PCI-SIG (DSP0274 1.3 "Registry or standards body ID").
pub const STANDARD_PCI_SIG: u16 = 3;

/// A vendor-defined message in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorDefined<'a> {
    /// Version of the message.
    pub version: Version,
    /// The form with a 32-bit payload length, from 1.4 on: `LargeReq`, `LargeResp`.
    pub large: bool,
    /// Registry that assigned the vendor id.
    pub standard_id: u16,
    /// Vendor id, as long as its registry wants it.
    pub vendor_id: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> VendorDefined<'a> {
    /// Bytes the message takes beside vendor id and payload, unless it has the large form.
    pub const OVERHEAD: usize = 9;

    /// Param1 bit 7 from 1.4 on.
    const LARGE: u8 = 1 << 7;

    /// Parses a request.
    pub fn parse_request(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::VENDOR_DEFINED_REQUEST)
    }

    /// Parses a response.
    pub fn parse_response(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::parse_as(reader, Code::VENDOR_DEFINED_RESPONSE)
    }

    fn parse_as(reader: &mut Reader<'a>, code: Code) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, code)?;
        let standard_id = reader.u16("standard id")?;
        let length = reader.u8("vendor id length")?;
        let vendor_id = reader.bytes(length.into(), "vendor id")?;
        let large = header.version >= Version::V1_4 && header.param1 & Self::LARGE != 0;
        let payload = if large {
            reader.u16("reserved")?;
            let length = reader.u32("payload")?;
            reader.bytes(usize::try_from(length).map_err(|_| DecodeError::illegal("payload"))?, "payload")?
        } else {
            reader.sized16("payload")?
        };
        Ok(Self { version: header.version, large, standard_id, vendor_id, payload })
    }

    /// Appends a request.
    pub fn encode_request(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_as(Code::VENDOR_DEFINED_REQUEST, out)
    }

    /// Appends a response.
    pub fn encode_response(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_as(Code::VENDOR_DEFINED_RESPONSE, out)
    }

    fn encode_as(&self, code: Code, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u8::try_from(self.vendor_id.len()).map_err(|_| EncodeError("vendor id"))?;
        let large = self.large && self.version >= Version::V1_4;
        let param1 = if large { Self::LARGE } else { 0 };
        Header::new(self.version, code, param1, 0).encode(out);
        out.put_u16(self.standard_id);
        out.put(&[length]);
        out.put(self.vendor_id);
        if large {
            out.put_u16(0);
            out.put_u32(u32::try_from(self.payload.len()).map_err(|_| EncodeError("payload"))?);
            out.put(self.payload);
            return Ok(());
        }
        out.put_sized16(self.payload, "payload")
    }
}
