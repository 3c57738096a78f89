//! GET_DIGESTS and DIGESTS (DSP0274 1.3 "GET_DIGESTS request and DIGESTS response messages").

use super::{CertificateModel, Code, Header, KeyUsage, Version};
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

/// What DIGESTS says of one slot's key where the connection has several (1.3 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotKey {
    /// `KeyPairID`.
    pub key_pair: u8,
    /// Model of the chain; `None` if the slot holds a key only.
    pub model: Option<CertificateModel>,
    /// What the key may be used for.
    pub usage: KeyUsage,
}

/// DIGESTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slots that exist, bit per slot; 1.3 on, otherwise 0.
    pub supported_slots: u8,
    /// Slots that hold a chain, bit per slot.
    pub provisioned_slots: u8,
    /// One digest per provisioned slot, ascending.
    pub digests: &'a [u8],
    /// The keys of the provisioned slots, ascending, where the connection has several; otherwise empty.
    pub keys: Vec<SlotKey>,
}

/// `CertModel` in `CertificateInfo`.
const MODEL_MASK: u8 = 7;

impl<'a> Digests<'a> {
    /// Parses the message; each digest has `hash_size` bytes, and `multiple_keys` were negotiated or not.
    pub fn parse(
        reader: &mut Reader<'a>,
        hash_size: usize,
        multiple_keys: bool,
    ) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::DIGESTS)?;
        let supported_slots = if header.version >= Version::V1_3 { header.param1 } else { 0 };
        if header.version >= Version::V1_3 && header.param2 & !supported_slots != 0 {
            return Err(DecodeError::illegal("slot mask"));
        }
        let count = header.param2.count_ones() as usize;
        let digests = reader.bytes(count * hash_size, "digests")?;
        let keys = if multiple_keys { parse_keys(reader, count)? } else { Vec::new() };
        Ok(Self { version: header.version, supported_slots, provisioned_slots: header.param2, digests, keys })
    }

    /// Position of `slot` among the provisioned ones.
    fn position(&self, slot: u8) -> Option<usize> {
        let bit = 1_u8.checked_shl(slot.into())?;
        (self.provisioned_slots & bit != 0)
            .then(|| (self.provisioned_slots & (bit - 1)).count_ones() as usize)
    }

    /// Digest of `slot`, if it is provisioned.
    pub fn digest(&self, slot: u8) -> Option<&'a [u8]> {
        let before = self.position(slot)?;
        let size = self.digests.len() / self.provisioned_slots.count_ones() as usize;
        self.digests.get(before * size..(before + 1) * size)
    }

    /// The key of `slot`, if it is provisioned and the connection has several keys.
    pub fn key(&self, slot: u8) -> Option<&SlotKey> {
        self.keys.get(self.position(slot)?)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let supported = if self.version >= Version::V1_3 { self.supported_slots } else { 0 };
        Header::new(self.version, Code::DIGESTS, supported, self.provisioned_slots).encode(out);
        out.put(self.digests);
        self.keys.iter().for_each(|key| out.put(&[key.key_pair]));
        self.keys.iter().for_each(|key| out.put(&[key.model.map_or(0, CertificateModel::code)]));
        self.keys.iter().for_each(|key| out.put_u16(key.usage.0));
    }
}

/// All ids, then all models, then all usages.
fn parse_keys(reader: &mut Reader<'_>, count: usize) -> Result<Vec<SlotKey>, DecodeError> {
    let key_pairs = reader.bytes(count, "key pairs")?;
    let infos = reader.bytes(count, "certificate information")?;
    let mut keys = Vec::with_capacity(count);
    for (&key_pair, &info) in key_pairs.iter().zip(infos) {
        let model = match info & MODEL_MASK {
            0 => None,
            code => Some(CertificateModel::from_code(code).ok_or(DecodeError::illegal("certificate model"))?),
        };
        keys.push(SlotKey { key_pair, model, usage: KeyUsage(reader.u16("key usage")?) });
    }
    Ok(keys)
}
