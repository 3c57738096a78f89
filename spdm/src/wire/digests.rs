//! GET_DIGESTS and DIGESTS (DSP0274 1.3 "GET_DIGESTS request and DIGESTS response messages").

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader};

/// GET_DIGESTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetDigests {
    /// Version of the message.
    pub version: Version,
}

impl GetDigests {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_DIGESTS)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_DIGESTS, 0, 0).encode(out);
    }
}

/// DIGESTS of a connection without multiple keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slots that exist, bit per slot; 1.3 on, otherwise 0.
    pub supported_slots: u8,
    /// Slots that hold a chain, bit per slot.
    pub provisioned_slots: u8,
    /// One digest per provisioned slot, ascending.
    pub digests: &'a [u8],
}

impl<'a> Digests<'a> {
    /// Parses the message; each digest has `hash_size` bytes.
    pub fn parse(reader: &mut Reader<'a>, hash_size: usize) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::DIGESTS)?;
        let supported_slots = if header.version >= Version::V1_3 { header.param1 } else { 0 };
        if header.version >= Version::V1_3 && header.param2 & !supported_slots != 0 {
            return Err(DecodeError::illegal("slot mask"));
        }
        let count = header.param2.count_ones() as usize;
        let digests = reader.bytes(count * hash_size, "digests")?;
        Ok(Self { version: header.version, supported_slots, provisioned_slots: header.param2, digests })
    }

    /// Digest of `slot`, if it is provisioned.
    pub fn digest(&self, slot: u8) -> Option<&'a [u8]> {
        let bit = 1_u8.checked_shl(slot.into())?;
        if self.provisioned_slots & bit == 0 {
            return None;
        }
        let size = self.digests.len() / self.provisioned_slots.count_ones() as usize;
        let before = (self.provisioned_slots & (bit - 1)).count_ones() as usize;
        self.digests.get(before * size..(before + 1) * size)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let supported = if self.version >= Version::V1_3 { self.supported_slots } else { 0 };
        Header::new(self.version, Code::DIGESTS, supported, self.provisioned_slots).encode(out);
        out.put(self.digests);
    }
}
