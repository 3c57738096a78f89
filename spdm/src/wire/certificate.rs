//! GET_CERTIFICATE and CERTIFICATE, and the certificate chain they carry
//! (DSP0274 1.4 "GET_CERTIFICATE request and CERTIFICATE response messages", "Certificates and certificate chains").

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Bytes before the root hash of a chain.
pub const CHAIN_HEADER_SIZE: usize = 4;

/// What a chain vouches for (DSP0274 1.3 "Certificate models", `CertModel`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateModel {
    /// The leaf is the hardware's own and does not change.
    #[default]
    Device,
    /// The leaf is issued by the hardware for what runs on it, firmware for example.
    Alias,
    /// The leaf says nothing about the hardware.
    Generic,
}

impl CertificateModel {
    /// The model of this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Device, Self::Alias, Self::Generic].into_iter().find(|model| model.name().as_bytes() == name)
    }

    /// Its name in configuration files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Alias => "alias",
            Self::Generic => "generic",
        }
    }

    /// The code on the wire. 0 there stands for none: an empty slot, or a connection with one key.
    pub const fn code(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::Alias => 2,
            Self::Generic => 3,
        }
    }

    /// The model of a code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Device),
            2 => Some(Self::Alias),
            3 => Some(Self::Generic),
            _ => None,
        }
    }
}

/// What a key may be used for (DSP0274 1.3 "Key usage bit mask"); unknown bits are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyUsage(pub u16);

impl KeyUsage {
    /// KEY_EXCHANGE and FINISH.
    pub const KEY_EX: Self = Self(1 << 0);
    /// CHALLENGE.
    pub const CHALLENGE: Self = Self(1 << 1);
    /// Signed measurements.
    pub const MEASUREMENT: Self = Self(1 << 2);
    /// Signed endpoint information.
    pub const ENDPOINT_INFO: Self = Self(1 << 3);
    /// What other standards define.
    pub const STANDARDS: Self = Self(1 << 14);
    /// What the vendor defines.
    pub const VENDOR: Self = Self(1 << 15);
    /// Everything SPDM itself signs.
    pub const ALL: Self = Self(0xF);

    /// Whether all of `usage` is allowed.
    pub const fn has(self, usage: Self) -> bool {
        self.0 & usage.0 == usage.0
    }
}

impl core::fmt::Debug for KeyUsage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// GET_CERTIFICATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCertificate {
    /// Version of the message.
    pub version: Version,
    /// Slot, 0 to 7; a parsed message may hold up to 15.
    pub slot: u8,
    /// 1.3, param2 bit 0: the size of the slot is asked for instead of a portion.
    pub slot_size: bool,
    /// The form with 32-bit offset and length, from 1.4 on: `LargeCertChain`. The response has the same form.
    pub large: bool,
    /// First byte of the chain asked for.
    pub offset: u32,
    /// Number of bytes asked for; the largest value of the form for as much as fits.
    pub length: u32,
}

impl GetCertificate {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_CERTIFICATE)?;
        let large = is_large(&header);
        let [offset, length] = parse_pair(reader, large, ["offset", "length"])?;
        Ok(Self {
            version: header.version,
            slot: header.param1 & 0xF,
            slot_size: header.version >= Version::V1_3 && header.param2 & 1 != 0,
            large,
            offset,
            length,
        })
    }

    /// Appends the message; fails if offset or length do not fit its form.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let size = u8::from(self.version >= Version::V1_3 && self.slot_size);
        let large = self.large && self.version >= Version::V1_4;
        Header::new(self.version, Code::GET_CERTIFICATE, param1(self.slot, large), size).encode(out);
        put_pair(large, [(self.offset, "offset"), (self.length, "length")], out)
    }
}

/// CERTIFICATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Version of the message.
    pub version: Version,
    /// Slot, 0 to 7.
    pub slot: u8,
    /// 1.3, param2: certificate model of the slot (0 when there is one key only).
    pub model: u8,
    /// The form with 32-bit lengths, from 1.4 on: `LargeCertChain`.
    pub large: bool,
    /// Bytes of the chain.
    pub portion: &'a [u8],
    /// Bytes of the chain behind this portion.
    pub remainder: u32,
}

impl<'a> Certificate<'a> {
    /// Bytes of the message before the portion.
    pub const fn overhead(large: bool) -> usize {
        if large { 16 } else { 8 }
    }

    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CERTIFICATE)?;
        let large = is_large(&header);
        let [length, remainder] = parse_pair(reader, large, ["portion length", "remainder length"])?;
        let length = usize::try_from(length).map_err(|_| DecodeError::illegal("portion length"))?;
        let portion = reader.bytes(length, "portion")?;
        let model = if header.version >= Version::V1_3 { header.param2 } else { 0 };
        Ok(Self { version: header.version, slot: header.param1 & 0xF, model, large, portion, remainder })
    }

    /// Appends the message; fails if portion or remainder do not fit its form.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u32::try_from(self.portion.len()).map_err(|_| EncodeError("portion"))?;
        let large = self.large && self.version >= Version::V1_4;
        Header::new(self.version, Code::CERTIFICATE, param1(self.slot, large), self.model).encode(out);
        put_pair(large, [(length, "portion"), (self.remainder, "remainder")], out)?;
        out.put(self.portion);
        Ok(())
    }
}

/// `LargeCertChain`, param1 bit 7 from 1.4 on.
const LARGE: u8 = 1 << 7;

const fn is_large(header: &Header) -> bool {
    header.version.0 >= Version::V1_4.0 && header.param1 & LARGE != 0
}

const fn param1(slot: u8, large: bool) -> u8 {
    slot & 0xF | if large { LARGE } else { 0 }
}

/// Two numbers: 16 bits each or, in the large form behind what are zeros then, 32.
fn parse_pair(
    reader: &mut Reader<'_>,
    large: bool,
    fields: [&'static str; 2],
) -> Result<[u32; 2], DecodeError> {
    let [first, second] = fields;
    let small = [reader.u16(first)?.into(), reader.u16(second)?.into()];
    if large { Ok([reader.u32(first)?, reader.u32(second)?]) } else { Ok(small) }
}

fn put_pair(large: bool, values: [(u32, &'static str); 2], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for (value, field) in values {
        out.put_u16(if large { 0 } else { u16::try_from(value).map_err(|_| EncodeError(field))? });
    }
    if large {
        values.iter().for_each(|(value, _)| out.put_u32(*value));
    }
    Ok(())
}

/// A whole certificate chain as SPDM transfers it: length, root hash, DER certificates from the root to the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateChain<'a> {
    /// Hash of the root certificate.
    pub root_hash: &'a [u8],
    /// Concatenated DER certificates.
    pub certificates: &'a [u8],
}

impl<'a> CertificateChain<'a> {
    /// Parses a chain whose root hash has `hash_size` bytes. Its length field must be its length. The field's upper
    /// half is reserved before 1.4, where no chain is long enough to need it.
    pub fn parse(chain: &'a [u8], hash_size: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(chain);
        let (low, high) = (reader.u16("chain length")?, reader.u16("chain length")?);
        let high = if chain.len() > usize::from(u16::MAX) { high } else { 0 };
        if usize::try_from(u32::from(high) << 16 | u32::from(low)) != Ok(chain.len()) {
            return Err(DecodeError::illegal("chain length"));
        }
        let root_hash = reader.bytes(hash_size, "root hash")?;
        Ok(Self { root_hash, certificates: reader.rest() })
    }

    /// Appends the chain; fails if it is longer than 4 GiB. Before 1.4 there is no way to transfer one of more than
    /// 65,535 bytes.
    pub fn encode(root_hash: &[u8], certificates: &[Vec<u8>], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = CHAIN_HEADER_SIZE + root_hash.len() + certificates.iter().map(Vec::len).sum::<usize>();
        out.put_u32(u32::try_from(length).map_err(|_| EncodeError("chain"))?);
        out.put(root_hash);
        certificates.iter().for_each(|certificate| out.put(certificate.as_slice()));
        Ok(())
    }
}
