//! GET_CERTIFICATE and CERTIFICATE, and the certificate chain they carry
//! (DSP0274 1.3 "GET_CERTIFICATE request and CERTIFICATE response messages", "Certificates and certificate chains").

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};

/// Bytes before the root hash of a chain.
pub const CHAIN_HEADER_SIZE: usize = 4;

/// What a chain vouches for (DSP0274 1.3 "Certificate models", `CertModel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CertificateModel {
    /// The leaf is the hardware's own and does not change.
    Device,
    /// The leaf is issued by the hardware for what runs on it, firmware for example.
    Alias,
    /// The leaf says nothing about the hardware.
    Generic,
}

impl CertificateModel {
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
    /// First byte of the chain asked for.
    pub offset: u16,
    /// Number of bytes asked for; `0xFFFF` for as much as fits.
    pub length: u16,
}

impl GetCertificate {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_CERTIFICATE)?;
        Ok(Self {
            version: header.version,
            slot: header.param1 & 0xF,
            slot_size: header.version >= Version::V1_3 && header.param2 & 1 != 0,
            offset: reader.u16("offset")?,
            length: reader.u16("length")?,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let size = u8::from(self.version >= Version::V1_3 && self.slot_size);
        Header::new(self.version, Code::GET_CERTIFICATE, self.slot & 0xF, size).encode(out);
        out.put_u16(self.offset);
        out.put_u16(self.length);
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
    /// Bytes of the chain.
    pub portion: &'a [u8],
    /// Bytes of the chain behind this portion.
    pub remainder: u16,
}

impl<'a> Certificate<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CERTIFICATE)?;
        let length = reader.u16("portion length")?;
        let remainder = reader.u16("remainder length")?;
        let portion = reader.bytes(length.into(), "portion")?;
        let model = if header.version >= Version::V1_3 { header.param2 } else { 0 };
        Ok(Self { version: header.version, slot: header.param1 & 0xF, model, portion, remainder })
    }

    /// Appends the message; fails for a portion over 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.portion.len()).map_err(|_| EncodeError("portion"))?;
        Header::new(self.version, Code::CERTIFICATE, self.slot & 0xF, self.model).encode(out);
        out.put_u16(length);
        out.put_u16(self.remainder);
        out.put(self.portion);
        Ok(())
    }
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
    /// Parses a chain whose root hash has `hash_size` bytes. Its length field must be its length.
    pub fn parse(chain: &'a [u8], hash_size: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(chain);
        if usize::from(reader.u16("chain length")?) != chain.len() {
            return Err(DecodeError::illegal("chain length"));
        }
        reader.u16("reserved")?;
        let root_hash = reader.bytes(hash_size, "root hash")?;
        Ok(Self { root_hash, certificates: reader.rest() })
    }

    /// Appends the chain; fails if it is longer than 65,535 bytes.
    pub fn encode(root_hash: &[u8], certificates: &[Vec<u8>], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = CHAIN_HEADER_SIZE + root_hash.len() + certificates.iter().map(Vec::len).sum::<usize>();
        out.put_u16(u16::try_from(length).map_err(|_| EncodeError("chain"))?);
        out.put_u16(0);
        out.put(root_hash);
        certificates.iter().for_each(|certificate| out.put(certificate.as_slice()));
        Ok(())
    }
}
