//! FINISH and FINISH_RSP (DSP0274 1.3 "FINISH request and FINISH_RSP response messages").

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader};

const SIGNATURE_INCLUDED: u8 = 1;

/// FINISH. An encoder may leave the verify data empty and append it afterwards: the transcript ends before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish<'a> {
    /// Version of the message.
    pub version: Version,
    /// The requester's slot, if it authenticates itself; otherwise 0.
    pub requester_slot: u8,
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
        let signature = if header.param1 & SIGNATURE_INCLUDED != 0 {
            Some(reader.bytes(signature_size, "signature")?)
        } else {
            None
        };
        Ok(Self {
            version: header.version,
            requester_slot: header.param2,
            signature,
            verify_data: reader.bytes(hash_size, "verify data")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let attributes = if self.signature.is_some() { SIGNATURE_INCLUDED } else { 0 };
        Header::new(self.version, Code::FINISH, attributes, self.requester_slot).encode(out);
        out.put(self.signature.unwrap_or_default());
        out.put(self.verify_data);
    }
}

/// FINISH_RSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishRsp<'a> {
    /// Version of the message.
    pub version: Version,
    /// `ResponderVerifyData`; empty unless the handshake is in the clear.
    pub verify_data: &'a [u8],
}

impl<'a> FinishRsp<'a> {
    /// Parses the message; `verify_size` is the hash size if the handshake is in the clear, otherwise 0.
    pub fn parse(reader: &mut Reader<'a>, verify_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::FINISH_RSP)?;
        Ok(Self { version: header.version, verify_data: reader.bytes(verify_size, "verify data")? })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::FINISH_RSP, 0, 0).encode(out);
        out.put(self.verify_data);
    }
}
