//! FINISH and FINISH_RSP (DSP0274 1.4 "FINISH request and FINISH_RSP response messages").

use super::{Code, Header, Version, opaque_field};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

const SIGNATURE_INCLUDED: u8 = 1;

/// FINISH. An encoder may leave the verify data empty and append it afterwards: the transcript ends before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish<'a> {
    /// Version of the message.
    pub version: Version,
    /// The requester's slot, if it authenticates itself; otherwise 0.
    pub requester_slot: u8,
    /// Opaque data, from 1.4 on; earlier versions have none.
    pub opaque: &'a [u8],
    /// The requester's signature, if it authenticates itself.
    pub signature: Option<&'a [u8]>,
    /// `RequesterVerifyData`: HMAC over the transcript.
    pub verify_data: &'a [u8],
}

impl<'a> Finish<'a> {
    /// Parses the message; `signature_size` is that of the requester's algorithm, 0 if there is none.
    pub fn parse(
        reader: &mut Reader<'a>,
        signature_size: usize,
        hash_size: usize,
    ) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::FINISH)?;
        let opaque = handshake_opaque(reader, header.version)?;
        let signature = if header.param1 & SIGNATURE_INCLUDED != 0 {
            Some(reader.bytes(signature_size, "signature")?)
        } else {
            None
        };
        Ok(Self {
            version: header.version,
            requester_slot: header.param2,
            opaque,
            signature,
            verify_data: reader.bytes(hash_size, "verify data")?,
        })
    }

    /// Appends the message; fails for more opaque data than its length field can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let attributes = if self.signature.is_some() { SIGNATURE_INCLUDED } else { 0 };
        Header::new(self.version, Code::FINISH, attributes, self.requester_slot).encode(out);
        put_handshake_opaque(self.version, self.opaque, out)?;
        out.put(self.signature.unwrap_or_default());
        out.put(self.verify_data);
        Ok(())
    }
}

/// FINISH_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishRsp<'a> {
    /// Version of the message.
    pub version: Version,
    /// Opaque data, from 1.4 on; earlier versions have none.
    pub opaque: &'a [u8],
    /// `ResponderVerifyData`; empty unless the handshake is in the clear.
    pub verify_data: &'a [u8],
}

impl<'a> FinishRsp<'a> {
    /// Parses the message; `verify_size` is the hash size if the handshake is in the clear, otherwise 0.
    pub fn parse(reader: &mut Reader<'a>, verify_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::FINISH_RSP)?;
        let opaque = handshake_opaque(reader, header.version)?;
        Ok(Self { version: header.version, opaque, verify_data: reader.bytes(verify_size, "verify data")? })
    }

    /// Appends the message; fails for more opaque data than its length field can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Header::new(self.version, Code::FINISH_RSP, 0, 0).encode(out);
        put_handshake_opaque(self.version, self.opaque, out)?;
        out.put(self.verify_data);
        Ok(())
    }
}

/// The opaque data that the last messages of a handshake, whichever began it, have from 1.4 on.
pub(super) fn handshake_opaque<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<&'a [u8], DecodeError> {
    if version >= Version::V1_4 { opaque_field(reader) } else { Ok(&[]) }
}

pub(super) fn put_handshake_opaque(
    version: Version,
    opaque: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if version >= Version::V1_4 { out.put_sized16(opaque, "opaque data") } else { Ok(()) }
}
