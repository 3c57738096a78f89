//! GET_CAPABILITIES and CAPABILITIES (DSP0274 1.3 "GET_CAPABILITIES request and CAPABILITIES response messages").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader};

/// DSP0274 1.3: the smallest DataTransferSize either side may declare, in bytes.
pub const MIN_DATA_TRANSFER_SIZE: u32 = 42;

macro_rules! flags {
    ($($name:ident = $bits:expr, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u32 = $bits;)*
    };
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
        EP_INFO_MASK = 3 << 22, "Two-bit endpoint information field; 3 is reserved.";
        EVENT = 1 << 25, "Delivers events.";
        MULTI_KEY_MASK = 3 << 26, "Two-bit multiple key field; 3 is reserved.";
        MULTI_KEY_ONLY = 1 << 26, "Value of the multiple key field: never a single key.";
    }

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
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
        PSK_MASK = 3 << 10, "Two-bit PSK field: 1 without, 2 with context.";
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
        EP_INFO_MASK = 3 << 22, "Two-bit endpoint information field.";
        MEL = 1 << 24, "Measurement extension log.";
        EVENT = 1 << 25, "Event types.";
        MULTI_KEY_MASK = 3 << 26, "Two-bit multiple key field.";
        GET_KEY_PAIR_INFO = 1 << 28, "GET_KEY_PAIR_INFO.";
        SET_KEY_PAIR_INFO = 1 << 29, "SET_KEY_PAIR_INFO.";
    }

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Whether any of `bits` is set.
    pub const fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
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

/// What follows the header in both directions from 1.2 on.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    reserved: u8,
    ct_exponent: u8,
    reserved2: [u8; 2],
    flags: U32,
    data_transfer_size: U32,
    max_message_size: U32,
}
const _: () = assert!(size_of::<Body>() == 16);

/// GET_CAPABILITIES of 1.2 and 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCapabilities {
    /// Version of the message, which becomes the connection's.
    pub version: Version,
    /// 1.3, param1 bit 0: the supported-algorithms block is asked for.
    pub supported_algorithms: bool,
    /// CTExponent: the requester needs at most 2^this microseconds for cryptography.
    pub ct_exponent: u8,
    /// What the requester can do.
    pub flags: RequesterFlags,
    /// Largest single transfer the requester receives, in bytes.
    pub data_transfer_size: u32,
    /// Largest message the requester receives, chunked or not, in bytes.
    pub max_message_size: u32,
}

impl GetCapabilities {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_CAPABILITIES)?;
        let body: Body = reader.read("capabilities")?;
        Ok(Self {
            version: header.version,
            supported_algorithms: header.version >= Version::V1_3 && header.param1 & 1 != 0,
            ct_exponent: body.ct_exponent,
            flags: RequesterFlags(body.flags.get()),
            data_transfer_size: body.data_transfer_size.get(),
            max_message_size: body.max_message_size.get(),
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let block = self.version >= Version::V1_3 && self.supported_algorithms;
        Header::new(self.version, Code::GET_CAPABILITIES, block.into(), 0).encode(out);
        out.put_fixed(&Body {
            reserved: 0,
            ct_exponent: self.ct_exponent,
            reserved2: [0; 2],
            flags: self.flags.0.into(),
            data_transfer_size: self.data_transfer_size.into(),
            max_message_size: self.max_message_size.into(),
        });
    }
}

/// CAPABILITIES of 1.2 and 1.3, without the supported-algorithms block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Version of the message.
    pub version: Version,
    /// CTExponent: the responder needs at most 2^this microseconds for cryptography.
    pub ct_exponent: u8,
    /// What the responder can do.
    pub flags: ResponderFlags,
    /// Largest single transfer the responder receives, in bytes.
    pub data_transfer_size: u32,
    /// Largest message the responder receives, chunked or not, in bytes.
    pub max_message_size: u32,
}

impl Capabilities {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::CAPABILITIES)?;
        let body: Body = reader.read("capabilities")?;
        Ok(Self {
            version: header.version,
            ct_exponent: body.ct_exponent,
            flags: ResponderFlags(body.flags.get()),
            data_transfer_size: body.data_transfer_size.get(),
            max_message_size: body.max_message_size.get(),
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::CAPABILITIES, 0, 0).encode(out);
        out.put_fixed(&Body {
            reserved: 0,
            ct_exponent: self.ct_exponent,
            reserved2: [0; 2],
            flags: self.flags.0.into(),
            data_transfer_size: self.data_transfer_size.into(),
            max_message_size: self.max_message_size.into(),
        });
    }
}
