//! GET_CAPABILITIES and CAPABILITIES (DSP0274 1.4 "GET_CAPABILITIES request and CAPABILITIES response messages").

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::{Code, Header, NegotiateAlgorithms, Version};
use crate::codec::{DecodeError, Put, Reader};

/// DSP0274 1.3: the smallest DataTransferSize either side may declare, in bytes.
pub const MIN_DATA_TRANSFER_SIZE: u32 = 42;
/// DataTransferSize and MaxSPDMmsgSize of whoever declares none, as nobody does before 1.2.
pub const UNLIMITED_SIZE: u32 = u32::MAX;
/// Param1 bit 0 from 1.3 on: the supported algorithms block is asked for, or there.
const SUPPORTED_ALGORITHMS: u8 = 1;
/// The flags that 1.0 to 1.3 define; from 1.4 on every bit has a meaning in one of the directions.
const FLAGS_1_0: u32 = 0x0000_003F;
const FLAGS_1_1: u32 = 0x0001_FFFF;
const FLAGS_1_2: u32 = 0x003F_FFFF;
const FLAGS_1_3: u32 = 0x3FFF_FFFF;

macro_rules! flags {
    ($($name:ident = $bits:expr, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u32 = $bits;)*
    };
}

/// The flags among `flags` that `version` defines.
const fn defined(version: Version, flags: u32) -> u32 {
    match version.0 {
        ..=0x10 => flags & FLAGS_1_0,
        0x11 => flags & FLAGS_1_1,
        0x12 => flags & FLAGS_1_2,
        0x13 => flags & FLAGS_1_3,
        0x14.. => flags,
    }
}

/// Capability flags of a requester; unknown bits are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RequesterFlags(pub u32);

impl RequesterFlags {
    flags! {
        CERT = 1 << 1, "Has a certificate chain.";
        CHAL = 1 << 2, "Answers CHALLENGE (1.0 to 1.3).";
        ENCRYPT = 1 << 6, "Encrypts in sessions.";
        MAC = 1 << 7, "Authenticates in sessions.";
        MUT_AUTH = 1 << 8, "Can be authenticated.";
        KEY_EX = 1 << 9, "KEY_EXCHANGE.";
        PSK = 1 << 10, "PSK_EXCHANGE; the two-bit field's low bit.";
        PSK_MASK = 3 << 10, "Two-bit PSK field; 2 and 3 are illegal for a requester.";
        ENCAP = 1 << 12, "Encapsulated requests.";
        HBEAT = 1 << 13, "HEARTBEAT.";
        KEY_UPD = 1 << 14, "KEY_UPDATE.";
        HANDSHAKE_IN_THE_CLEAR = 1 << 15, "FINISH may travel unprotected.";
        PUB_KEY_ID = 1 << 16, "Public key known to the responder beforehand.";
        CHUNK = 1 << 17, "Large messages in chunks.";
        EP_INFO_NO_SIG = 1 << 22, "Endpoint information, unsigned only.";
        EP_INFO_SIG = 2 << 22, "Endpoint information, signed on request.";
        EP_INFO_MASK = 3 << 22, "Two-bit endpoint information field; 3 is reserved.";
        EVENT = 1 << 25, "Delivers events.";
        MULTI_KEY_MASK = 3 << 26, "Two-bit multiple key field; 3 is reserved.";
        MULTI_KEY_ONLY = 1 << 26, "Value of the multiple key field: never a single key.";
        LARGE_RESP = 1 << 31, "Forms with 32-bit lengths, from 1.4 on.";
    }

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Whether any of `bits` is set.
    pub const fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// The flags that `version` defines. A requester of 1.0 has none.
    pub const fn of(self, version: Version) -> Self {
        match version.0 {
            ..=0x10 => Self(0),
            0x11.. => Self(defined(version, self.0)),
        }
    }
}

/// Capability flags of a responder; unknown bits are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponderFlags(pub u32);

impl ResponderFlags {
    flags! {
        CACHE = 1 << 0, "Keeps negotiated state over a reset.";
        CERT = 1 << 1, "Has a certificate chain.";
        CHAL = 1 << 2, "CHALLENGE.";
        MEAS_NO_SIG = 1 << 3, "Measurements, unsigned only.";
        MEAS_SIG = 2 << 3, "Measurements, signed on request.";
        MEAS_MASK = 3 << 3, "Two-bit measurement field.";
        MEAS_FRESH = 1 << 5, "Measurements are computed anew on every request.";
        ENCRYPT = 1 << 6, "Encrypts in sessions.";
        MAC = 1 << 7, "Authenticates in sessions.";
        MUT_AUTH = 1 << 8, "Can authenticate the requester.";
        KEY_EX = 1 << 9, "KEY_EXCHANGE.";
        PSK_WITHOUT_CONTEXT = 1 << 10, "PSK_EXCHANGE without a context of the responder's.";
        PSK_WITH_CONTEXT = 2 << 10, "PSK_EXCHANGE with a context, and PSK_FINISH.";
        PSK_MASK = 3 << 10, "Two-bit PSK field.";
        ENCAP = 1 << 12, "Encapsulated requests.";
        HBEAT = 1 << 13, "HEARTBEAT.";
        KEY_UPD = 1 << 14, "KEY_UPDATE.";
        HANDSHAKE_IN_THE_CLEAR = 1 << 15, "FINISH may travel unprotected.";
        PUB_KEY_ID = 1 << 16, "Public key known to the requester beforehand.";
        CHUNK = 1 << 17, "Large messages in chunks.";
        ALIAS_CERT = 1 << 18, "Certificate chain of the alias model.";
        SET_CERT = 1 << 19, "SET_CERTIFICATE.";
        CSR = 1 << 20, "GET_CSR.";
        CERT_INSTALL_RESET = 1 << 21, "SET_CERTIFICATE may need a reset.";
        EP_INFO_NO_SIG = 1 << 22, "Endpoint information, unsigned only.";
        EP_INFO_SIG = 2 << 22, "Endpoint information, signed on request.";
        EP_INFO_MASK = 3 << 22, "Two-bit endpoint information field.";
        MEL = 1 << 24, "Measurement extension log.";
        EVENT = 1 << 25, "Event types.";
        MULTI_KEY_ONLY = 1 << 26, "Value of the multiple key field: never a single key.";
        MULTI_KEY_NEGOTIATED = 2 << 26, "Value of the multiple key field: as the requester chooses.";
        MULTI_KEY_MASK = 3 << 26, "Two-bit multiple key field.";
        GET_KEY_PAIR_INFO = 1 << 28, "GET_KEY_PAIR_INFO.";
        SET_KEY_PAIR_INFO = 1 << 29, "SET_KEY_PAIR_INFO.";
        SET_KEY_PAIR_RESET = 1 << 30, "SET_KEY_PAIR_INFO may need a reset, from 1.4 on.";
        LARGE_RESP = 1 << 31, "Forms with 32-bit lengths, from 1.4 on.";
    }

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Whether any of `bits` is set.
    pub const fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// The flags that `version` defines.
    pub const fn of(self, version: Version) -> Self {
        Self(defined(version, self.0))
    }
}

/// `ExtFlags` of a responder, from 1.4 on; unknown bits are kept. A requester's has no meaning yet.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponderExtendedFlags(pub u16);

impl ResponderExtendedFlags {
    /// SLOT_MANAGEMENT.
    pub const SLOT_MGMT: u16 = 1 << 0;

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// The flags that `version` defines.
    pub const fn of(self, version: Version) -> Self {
        match version.0 {
            ..=0x13 => Self(0),
            0x14.. => self,
        }
    }
}

impl core::fmt::Debug for RequesterFlags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl core::fmt::Debug for ResponderFlags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl core::fmt::Debug for ResponderExtendedFlags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// Whether both sides can have the responder ask (`ENCAP_CAP`). 1.2 deprecated the flag by mistake, so that there
/// `MUT_AUTH_CAP` says it too; 1.2.2 took that back.
pub const fn encapsulates(version: Version, requester: RequesterFlags, responder: ResponderFlags) -> bool {
    let (ours, theirs) = match version.0 {
        ..=0x10 => (0, 0),
        0x12 => (
            RequesterFlags::ENCAP | RequesterFlags::MUT_AUTH,
            ResponderFlags::ENCAP | ResponderFlags::MUT_AUTH,
        ),
        0x11 | 0x13.. => (RequesterFlags::ENCAP, ResponderFlags::ENCAP),
    };
    requester.any(ours) && responder.any(theirs)
}

/// What follows the header in CAPABILITIES, and in GET_CAPABILITIES from 1.1 on.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    reserved: u8,
    ct_exponent: u8,
    /// Reserved before 1.4.
    extended_flags: U16,
    flags: U32,
}
const _: () = assert!(size_of::<Body>() == 8);

/// What follows that from 1.2 on.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Sizes {
    data_transfer_size: U32,
    max_message_size: U32,
}
const _: () = assert!(size_of::<Sizes>() == 8);

/// The fields of both messages; each direction decides whether and with which flags its version has them.
struct Fields {
    ct_exponent: u8,
    extended_flags: u16,
    flags: u32,
    data_transfer_size: u32,
    max_message_size: u32,
}

impl Fields {
    /// GET_CAPABILITIES of 1.0 ends with its header.
    const NONE: Self = Self {
        ct_exponent: 0,
        extended_flags: 0,
        flags: 0,
        data_transfer_size: UNLIMITED_SIZE,
        max_message_size: UNLIMITED_SIZE,
    };

    fn parse(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let body: Body = reader.read("capabilities")?;
        let fields = Self {
            ct_exponent: body.ct_exponent,
            extended_flags: body.extended_flags.get(),
            flags: body.flags.get(),
            ..Self::NONE
        };
        if version < Version::V1_2 {
            return Ok(fields);
        }
        let sizes: Sizes = reader.read("transfer sizes")?;
        Ok(Self {
            data_transfer_size: sizes.data_transfer_size.get(),
            max_message_size: sizes.max_message_size.get(),
            ..fields
        })
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.put_fixed(&Body {
            reserved: 0,
            ct_exponent: self.ct_exponent,
            extended_flags: self.extended_flags.into(),
            flags: self.flags.into(),
        });
        if version >= Version::V1_2 {
            out.put_fixed(&Sizes {
                data_transfer_size: self.data_transfer_size.into(),
                max_message_size: self.max_message_size.into(),
            });
        }
    }
}

/// GET_CAPABILITIES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCapabilities {
    /// Version of the message, which becomes the connection's.
    pub version: Version,
    /// Param1 bit 0 from 1.3 on: the supported algorithms block is asked for.
    pub supported_algorithms: bool,
    /// CTExponent: the requester needs at most 2^this microseconds for cryptography. 0 in 1.0, which has none.
    pub ct_exponent: u8,
    /// What the requester can do. 1.0 has no flags; those that came after the version do not travel.
    pub flags: RequesterFlags,
    /// Largest single transfer the requester receives, in bytes; [`UNLIMITED_SIZE`] before 1.2.
    pub data_transfer_size: u32,
    /// Largest message the requester receives, chunked or not, in bytes; [`UNLIMITED_SIZE`] before 1.2.
    pub max_message_size: u32,
}

impl GetCapabilities {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_CAPABILITIES)?;
        let version = header.version;
        let asked = header.param1 & SUPPORTED_ALGORITHMS != 0;
        let fields = if version < Version::V1_1 { Fields::NONE } else { Fields::parse(reader, version)? };
        Ok(Self {
            version,
            supported_algorithms: version >= Version::V1_3 && asked,
            ct_exponent: fields.ct_exponent,
            flags: RequesterFlags(fields.flags).of(version),
            data_transfer_size: fields.data_transfer_size,
            max_message_size: fields.max_message_size,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let block = self.version >= Version::V1_3 && self.supported_algorithms;
        Header::new(self.version, Code::GET_CAPABILITIES, block.into(), 0).encode(out);
        if self.version >= Version::V1_1 {
            let (data_transfer_size, max_message_size) = (self.data_transfer_size, self.max_message_size);
            let flags = self.flags.of(self.version).0;
            let ct_exponent = self.ct_exponent;
            Fields { ct_exponent, extended_flags: 0, flags, data_transfer_size, max_message_size }
                .encode(self.version, out);
        }
    }
}

/// CAPABILITIES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Version of the message.
    pub version: Version,
    /// CTExponent: the responder needs at most 2^this microseconds for cryptography.
    pub ct_exponent: u8,
    /// What the responder can do; flags that came after the version do not travel.
    pub flags: ResponderFlags,
    /// What else it can do, from 1.4 on.
    pub extended_flags: ResponderExtendedFlags,
    /// Largest single transfer the responder receives, in bytes; [`UNLIMITED_SIZE`] before 1.2.
    pub data_transfer_size: u32,
    /// Largest message the responder receives, chunked or not, in bytes; [`UNLIMITED_SIZE`] before 1.2.
    pub max_message_size: u32,
    /// The supported algorithms block, from 1.3 on: what the responder selects from, in the form of an offer.
    pub supported_algorithms: Option<NegotiateAlgorithms>,
}

impl Capabilities {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CAPABILITIES)?;
        let version = header.version;
        let fields = Fields::parse(reader, version)?;
        let has_block = version >= Version::V1_3 && header.param1 & SUPPORTED_ALGORITHMS != 0;
        Ok(Self {
            version,
            ct_exponent: fields.ct_exponent,
            flags: ResponderFlags(fields.flags).of(version),
            extended_flags: ResponderExtendedFlags(fields.extended_flags).of(version),
            data_transfer_size: fields.data_transfer_size,
            max_message_size: fields.max_message_size,
            supported_algorithms: if has_block {
                Some(NegotiateAlgorithms::parse_block(reader, version)?)
            } else {
                None
            },
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let version = self.version;
        let block = self.supported_algorithms.filter(|_| version >= Version::V1_3);
        let param1 = if block.is_some() { SUPPORTED_ALGORITHMS } else { 0 };
        Header::new(version, Code::CAPABILITIES, param1, 0).encode(out);
        Fields {
            ct_exponent: self.ct_exponent,
            extended_flags: self.extended_flags.of(version).0,
            flags: self.flags.of(version).0,
            data_transfer_size: self.data_transfer_size,
            max_message_size: self.max_message_size,
        }
        .encode(version, out);
        if let Some(block) = &block {
            block.encode_block(out);
        }
    }
}
