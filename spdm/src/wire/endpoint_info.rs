//! GET_ENDPOINT_INFO and ENDPOINT_INFO, and the device class identifiers they transfer
//! (DSP0274 1.3 "GET_ENDPOINT_INFO request and ENDPOINT_INFO response messages").

use super::{Code, Header, NONCE_SIZE, Nonce, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// `SubCode`: device class identifiers, the only kind of information there is in 1.3 and 1.4.
pub const DEVICE_CLASS_IDENTIFIER: u8 = 1;

const SIGNATURE_REQUESTED: u8 = 1;

/// GET_ENDPOINT_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetEndpointInfo {
    /// Version of the message.
    pub version: Version,
    /// What is asked for, such as [`DEVICE_CLASS_IDENTIFIER`].
    pub sub_code: u8,
    /// Slot whose key is to sign, 0 to 7, or 0xF for the public key without a certificate; 0 without a signature.
    pub slot: u8,
    /// Present if a signature is asked for.
    pub nonce: Option<Nonce>,
}

impl GetEndpointInfo {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_ENDPOINT_INFO)?;
        let attributes = reader.u8("attributes")?;
        reader.bytes(3, "reserved")?;
        let signed = attributes & SIGNATURE_REQUESTED != 0;
        let nonce = if signed { Some(reader.array("nonce")?) } else { None };
        let slot = if signed { header.param2 & 0xF } else { 0 };
        Ok(Self { version: header.version, sub_code: header.param1, slot, nonce })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let slot = if self.nonce.is_some() { self.slot & 0xF } else { 0 };
        Header::new(self.version, Code::GET_ENDPOINT_INFO, self.sub_code, slot).encode(out);
        out.put(&[if self.nonce.is_some() { SIGNATURE_REQUESTED } else { 0 }, 0, 0, 0]);
        if let Some(nonce) = &self.nonce {
            out.put(nonce);
        }
    }
}

/// ENDPOINT_INFO. An encoder may leave the signature empty and append it afterwards: the transcript ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointInfo<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slot whose key signs; 0 without a signature.
    pub slot: u8,
    /// Present if there is a signature.
    pub nonce: Option<Nonce>,
    /// The information.
    pub info: &'a [u8],
    /// Signature over the transcript, if one was asked for.
    pub signature: &'a [u8],
}

impl<'a> EndpointInfo<'a> {
    /// Parses the message; a signature has `signature_size` bytes, 0 if none was asked for.
    pub fn parse(reader: &mut Reader<'a>, signature_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::ENDPOINT_INFO)?;
        reader.u32("reserved")?;
        let nonce = if signature_size == 0 { None } else { Some(reader.array::<NONCE_SIZE>("nonce")?) };
        let length = usize::try_from(reader.u32("information length")?).unwrap_or(usize::MAX);
        let info = reader.bytes(length, "information")?;
        let signature = reader.bytes(signature_size, "signature")?;
        Ok(Self { version: header.version, slot: header.param2 & 0xF, nonce, info, signature })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u32::try_from(self.info.len()).map_err(|_| EncodeError("information"))?;
        Header::new(self.version, Code::ENDPOINT_INFO, 0, self.slot & 0xF).encode(out);
        out.put_u32(0);
        if let Some(nonce) = &self.nonce {
            out.put(nonce);
        }
        out.put_u32(length);
        out.put(self.info);
        out.put(self.signature);
        Ok(())
    }
}

/// One device class identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClass {
    /// Registry that assigned the vendor id (DSP0274 1.3 "Registry or standards body ID").
    pub registry: u8,
    /// Vendor id, as long as its registry wants it.
    pub vendor_id: Vec<u8>,
    /// Identifiers below the vendor's, for example device and subsystem.
    pub subordinates: Vec<Vec<u8>>,
}

impl DeviceClass {
    /// Parses the information of [`DEVICE_CLASS_IDENTIFIER`].
    pub fn parse_list(info: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(info);
        let count = reader.u8("number of identifiers")?;
        reader.bytes(3, "reserved")?;
        let list = (0..count).map(|_| Self::parse(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish(0)?;
        Ok(list)
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = reader.u8("identifier length")?;
        let mut element = Reader::new(reader.bytes(length.into(), "identifier")?);
        let registry = element.u8("registry")?;
        let vendor_id = sized8(&mut element, "vendor id")?;
        let count = element.u8("number of subordinate identifiers")?;
        let subordinates =
            (0..count).map(|_| sized8(&mut element, "subordinate identifier")).collect::<Result<_, _>>()?;
        element.finish(0)?;
        Ok(Self { registry, vendor_id, subordinates })
    }

    /// Appends the information of [`DEVICE_CLASS_IDENTIFIER`]; fails where a length does not fit its byte.
    pub fn encode_list(list: &[Self], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.put(&[length8(list.len(), "identifiers")?, 0, 0, 0]);
        list.iter().try_for_each(|class| class.encode(out))
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut element = vec![self.registry, length8(self.vendor_id.len(), "vendor id")?];
        element.put(&self.vendor_id);
        element.put(&[length8(self.subordinates.len(), "subordinate identifiers")?]);
        for subordinate in &self.subordinates {
            element.put(&[length8(subordinate.len(), "subordinate identifier")?]);
            element.put(subordinate);
        }
        out.put(&[length8(element.len(), "identifier")?]);
        out.put(&element);
        Ok(())
    }
}

fn sized8(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<u8>, DecodeError> {
    let length = reader.u8(field)?;
    Ok(reader.bytes(length.into(), field)?.to_vec())
}

fn length8(length: usize, field: &'static str) -> Result<u8, EncodeError> {
    u8::try_from(length).map_err(|_| EncodeError(field))
}
