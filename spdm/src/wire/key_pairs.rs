//! GET_KEY_PAIR_INFO and SET_KEY_PAIR_INFO with their responses (DSP0274 1.3, sections of these names; 1.4 adds the
//! post-quantum algorithms).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::{Code, Header, KeyUsage, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader};
use crate::crypto::AsymAlgorithm;

/// Signature algorithms as key pairs name them: RSA by its size alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPairAlgorithms {
    /// `AsymAlgoCapabilities` and its like.
    pub classic: u32,
    /// `PqcAsymAlgoCapabilities` and its like, from 1.4 on. Bytes of it beyond the fourth say nothing yet.
    pub post_quantum: u32,
}

impl KeyPairAlgorithms {
    /// The bit of one algorithm.
    pub const fn of(algorithm: AsymAlgorithm) -> Self {
        use AsymAlgorithm as A;
        let bit = match algorithm {
            A::RsaSsa2048 | A::RsaPss2048 => 0,
            A::RsaSsa3072 | A::RsaPss3072 => 1,
            A::RsaSsa4096 | A::RsaPss4096 => 2,
            A::EcdsaP256 => 3,
            A::EcdsaP384 => 4,
            A::EcdsaP521 => 5,
            A::Ed25519 => 7,
            A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => {
                return Self { classic: 0, post_quantum: algorithm.pqc_bit() };
            }
        };
        Self { classic: 1 << bit, post_quantum: 0 }
    }

    /// Both masks together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { classic: self.classic | other.classic, post_quantum: self.post_quantum | other.post_quantum }
    }

    /// Whether all of `other` is in here.
    pub const fn has(self, other: Self) -> bool {
        self.classic & other.classic == other.classic
            && self.post_quantum & other.post_quantum == other.post_quantum
    }

    /// Number of algorithms.
    pub const fn count(self) -> u32 {
        self.classic.count_ones() + self.post_quantum.count_ones()
    }
}

/// Bytes that a post-quantum mask has when this crate sends it.
const MASK_SIZE: u8 = 4;

/// A post-quantum mask with its length in bytes before it, from 1.4 on.
pub(super) fn post_quantum(reader: &mut Reader<'_>, version: Version) -> Result<u32, DecodeError> {
    if version < Version::V1_4 {
        return Ok(0);
    }
    let length = reader.u8("post-quantum algorithm length")?;
    let bytes = reader.bytes(length.into(), "post-quantum algorithms")?;
    Ok(bytes.iter().zip(0_u32..4).fold(0, |mask, (byte, at)| mask | u32::from(*byte) << (8 * at)))
}

pub(super) fn put_post_quantum(mask: u32, version: Version, out: &mut Vec<u8>) {
    if version >= Version::V1_4 {
        out.put(&[MASK_SIZE]);
        out.put_u32(mask);
    }
}

/// What can be changed about a key pair (`Capabilities` of KEY_PAIR_INFO); unknown bits are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyPairCapabilities(pub u16);

impl KeyPairCapabilities {
    /// A new key can be generated.
    pub const GENERATE: Self = Self(1 << 0);
    /// The key can be erased.
    pub const ERASE: Self = Self(1 << 1);
    /// Slots can be associated with it.
    pub const ASSOCIATE: Self = Self(1 << 2);
    /// Its use can be changed.
    pub const USAGE: Self = Self(1 << 3);
    /// Its algorithm can be changed.
    pub const ALGORITHM: Self = Self(1 << 4);
    /// Several slots can share it.
    pub const SHARE: Self = Self(1 << 5);

    /// Whether all of `other` is in here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for KeyPairCapabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::fmt::Debug for KeyPairCapabilities {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// GET_KEY_PAIR_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetKeyPairInfo {
    /// Version of the message.
    pub version: Version,
    /// `KeyPairID`, from 1 on.
    pub key_pair: u8,
}

impl GetKeyPairInfo {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_KEY_PAIR_INFO)?;
        Ok(Self { version: header.version, key_pair: reader.u8("key pair")? })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_KEY_PAIR_INFO, 0, 0).encode(out);
        out.put(&[self.key_pair]);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct InfoBody {
    total: u8,
    key_pair: u8,
    capabilities: U16,
    usage_capabilities: U16,
    usage: U16,
    algorithm_capabilities: U32,
    algorithm: U32,
    public_key_info_length: U16,
    slots: u8,
}
const _: () = assert!(size_of::<InfoBody>() == 19);

/// KEY_PAIR_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPairInfo<'a> {
    /// Version of the message.
    pub version: Version,
    /// Number of key pairs; ids go from 1 to this.
    pub total: u8,
    /// The key pair described.
    pub key_pair: u8,
    /// What SET_KEY_PAIR_INFO can change.
    pub capabilities: KeyPairCapabilities,
    /// Uses that can be configured.
    pub usage_capabilities: KeyUsage,
    /// Uses that are configured.
    pub usage: KeyUsage,
    /// Algorithms that can be configured.
    pub algorithm_capabilities: KeyPairAlgorithms,
    /// The algorithm that is configured; none while there is no key.
    pub algorithm: KeyPairAlgorithms,
    /// Slots whose key this is, bit per slot.
    pub slots: u8,
    /// AlgorithmIdentifier of the public key in DER; empty while there is no key.
    pub public_key_info: &'a [u8],
}

impl<'a> KeyPairInfo<'a> {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::KEY_PAIR_INFO)?;
        let body: InfoBody = reader.read("key pair")?;
        let public_key_info = reader.bytes(body.public_key_info_length.get().into(), "public key info")?;
        let capable = post_quantum(reader, header.version)?;
        let current = post_quantum(reader, header.version)?;
        Ok(Self {
            version: header.version,
            total: body.total,
            key_pair: body.key_pair,
            capabilities: KeyPairCapabilities(body.capabilities.get()),
            usage_capabilities: KeyUsage(body.usage_capabilities.get()),
            usage: KeyUsage(body.usage.get()),
            algorithm_capabilities: KeyPairAlgorithms {
                classic: body.algorithm_capabilities.get(),
                post_quantum: capable,
            },
            algorithm: KeyPairAlgorithms { classic: body.algorithm.get(), post_quantum: current },
            slots: body.slots,
            public_key_info,
        })
    }

    /// Appends the message; fails for information over 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.public_key_info.len()).map_err(|_| EncodeError("public key info"))?;
        Header::new(self.version, Code::KEY_PAIR_INFO, 0, 0).encode(out);
        out.put_fixed(&InfoBody {
            total: self.total,
            key_pair: self.key_pair,
            capabilities: self.capabilities.0.into(),
            usage_capabilities: self.usage_capabilities.0.into(),
            usage: self.usage.0.into(),
            algorithm_capabilities: self.algorithm_capabilities.classic.into(),
            algorithm: self.algorithm.classic.into(),
            public_key_info_length: length.into(),
            slots: self.slots,
        });
        out.put(self.public_key_info);
        put_post_quantum(self.algorithm_capabilities.post_quantum, self.version, out);
        put_post_quantum(self.algorithm.post_quantum, self.version, out);
        Ok(())
    }
}

/// SET_KEY_PAIR_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetKeyPairInfo {
    /// Version of the message.
    pub version: Version,
    /// `KeyPairID`, from 1 on.
    pub key_pair: u8,
    /// What to do with it.
    pub operation: KeyPairOperation,
}

/// What SET_KEY_PAIR_INFO does with a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPairOperation {
    /// Its parameters become these.
    Change(KeyPairParameters),
    /// The key is erased.
    Erase,
    /// A new key is generated with these parameters.
    Generate(KeyPairParameters),
}

/// What a key pair is to be. Zero in a field, slots apart, asks for no change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPairParameters {
    /// `DesiredKeyUsage`.
    pub usage: KeyUsage,
    /// `DesiredAsymAlgo`, and `DesiredPqcAsymAlgo` from 1.4 on.
    pub algorithm: KeyPairAlgorithms,
    /// `DesiredAssocCertSlotMask`.
    pub slots: u8,
}

const CHANGE: u8 = 0;
const ERASE: u8 = 1;
const GENERATE: u8 = 2;

impl KeyPairParameters {
    fn parse(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        reader.u8("reserved")?;
        let usage = KeyUsage(reader.u16("key usage")?);
        let classic = reader.u32("algorithm")?;
        let slots = reader.u8("slots")?;
        let post_quantum = post_quantum(reader, version)?;
        Ok(Self { usage, algorithm: KeyPairAlgorithms { classic, post_quantum }, slots })
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.put(&[0]);
        out.put_u16(self.usage.0);
        out.put_u32(self.algorithm.classic);
        out.put(&[self.slots]);
        put_post_quantum(self.algorithm.post_quantum, version, out);
    }
}

impl SetKeyPairInfo {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SET_KEY_PAIR_INFO)?;
        let key_pair = reader.u8("key pair")?;
        let operation = match header.param1 {
            CHANGE => KeyPairOperation::Change(KeyPairParameters::parse(reader, header.version)?),
            ERASE => KeyPairOperation::Erase,
            GENERATE => KeyPairOperation::Generate(KeyPairParameters::parse(reader, header.version)?),
            _ => return Err(DecodeError::illegal("key pair operation")),
        };
        Ok(Self { version: header.version, key_pair, operation })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (operation, parameters) = match &self.operation {
            KeyPairOperation::Change(parameters) => (CHANGE, Some(parameters)),
            KeyPairOperation::Erase => (ERASE, None),
            KeyPairOperation::Generate(parameters) => (GENERATE, Some(parameters)),
        };
        Header::new(self.version, Code::SET_KEY_PAIR_INFO, operation, 0).encode(out);
        out.put(&[self.key_pair]);
        if let Some(parameters) = parameters {
            parameters.encode(self.version, out);
        }
    }
}

/// SET_KEY_PAIR_INFO_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetKeyPairInfoAck {
    /// Version of the message.
    pub version: Version,
}

impl SetKeyPairInfoAck {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::SET_KEY_PAIR_INFO_ACK)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::SET_KEY_PAIR_INFO_ACK, 0, 0).encode(out);
    }
}
