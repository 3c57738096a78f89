//! SPDM messages as bytes, in both directions: one file per message pair, parse and encode, no state.
//!
//! Every parser starts at the message header and stops behind the last field, so that a caller knows how long the
//! message was ([`Reader::consumed`]) and decides about transport padding ([`Reader::finish`]). Every encoder
//! appends to the buffer it is given.

mod algorithms;
mod capabilities;
mod certificate;
mod challenge;
mod chunk;
mod control;
mod digests;
mod encapsulated;
mod endpoint_info;
mod error;
mod events;
mod finish;
mod key_exchange;
mod key_pairs;
mod measurement_log;
mod measurements;
mod opaque;
mod provision;
mod psk;
#[cfg(test)]
pub(crate) mod samples;
mod slot_banks;
mod slot_management;
mod vendor;
mod version;

pub use algorithms::*;
pub use capabilities::*;
pub use certificate::*;
pub use challenge::*;
pub use chunk::*;
pub use control::*;
pub use digests::*;
pub use encapsulated::*;
pub use endpoint_info::*;
pub use error::*;
pub use events::*;
pub use finish::*;
pub use key_exchange::*;
pub use key_pairs::*;
pub use measurement_log::*;
pub use measurements::*;
pub use opaque::*;
pub use provision::*;
pub use psk::*;
pub use slot_banks::*;
pub use slot_management::*;
pub use vendor::*;
pub use version::*;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::codec::{DecodeError, Put, Reader, Reason};

/// Size in bytes of every nonce and of the random data in KEY_EXCHANGE.
pub const NONCE_SIZE: usize = 32;
/// A nonce, or the random data in KEY_EXCHANGE.
pub type Nonce = [u8; NONCE_SIZE];
/// `RequesterContext`, echoed by the responder from SPDM 1.3 on.
pub type RequesterContext = [u8; 8];
/// DSP0274 "Opaque data": no message may carry more, in bytes.
pub const MAX_OPAQUE_SIZE: usize = 1024;

/// SPDM version of one message, `0x12` for 1.2; any value a peer may send.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Version(pub u8);

impl Version {
    /// SPDM 1.0.
    pub const V1_0: Self = Self(0x10);
    /// SPDM 1.1.
    pub const V1_1: Self = Self(0x11);
    /// SPDM 1.2.
    pub const V1_2: Self = Self(0x12);
    /// SPDM 1.3.
    pub const V1_3: Self = Self(0x13);
    /// SPDM 1.4.
    pub const V1_4: Self = Self(0x14);
    /// The versions that both roles of this crate speak, ascending.
    pub const IMPLEMENTED: [Self; 5] = [Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3, Self::V1_4];

    /// Major version number.
    pub const fn major(self) -> u8 {
        self.0 >> 4
    }

    /// Minor version number.
    pub const fn minor(self) -> u8 {
        self.0 & 0xF
    }
}

impl core::fmt::Debug for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self}")
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// A version that this crate does not speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {all}", all = Version::IMPLEMENTED.map(|version| format!("\"{version}\"")).join(", "))]
pub struct UnknownVersion(pub String);

/// `1.2`, one of [`Version::IMPLEMENTED`], as configuration files and command lines write it.
impl core::str::FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let known = Self::IMPLEMENTED.into_iter().find(|version| version.to_string() == text);
        known.ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

impl<'de> serde::Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Request or response code (DSP0274 1.3 "SPDM request codes", "SPDM response codes"); any value a peer may send.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($name:ident = $value:literal,)*) => {
        #[allow(missing_docs, reason = "the names are those of DSP0274")]
        impl Code {
            $(pub const $name: Self = Self($value);)*

            /// Name in DSP0274, if the code is one of those this crate knows.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// Whether it is a request's.
            pub const fn is_request(self) -> bool {
                self.0 & 0x80 != 0
            }

            /// The code of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    DIGESTS = 0x01,
    CERTIFICATE = 0x02,
    CHALLENGE_AUTH = 0x03,
    VERSION = 0x04,
    CHUNK_SEND_ACK = 0x05,
    CHUNK_RESPONSE = 0x06,
    ENDPOINT_INFO = 0x07,
    SLOT_MANAGEMENT_RESP = 0x08,
    MEASUREMENTS = 0x60,
    CAPABILITIES = 0x61,
    SUPPORTED_EVENT_TYPES = 0x62,
    ALGORITHMS = 0x63,
    KEY_EXCHANGE_RSP = 0x64,
    FINISH_RSP = 0x65,
    PSK_EXCHANGE_RSP = 0x66,
    PSK_FINISH_RSP = 0x67,
    HEARTBEAT_ACK = 0x68,
    KEY_UPDATE_ACK = 0x69,
    ENCAPSULATED_REQUEST = 0x6A,
    ENCAPSULATED_RESPONSE_ACK = 0x6B,
    END_SESSION_ACK = 0x6C,
    CSR = 0x6D,
    SET_CERTIFICATE_RSP = 0x6E,
    MEASUREMENT_EXTENSION_LOG = 0x6F,
    SUBSCRIBE_EVENT_TYPES_ACK = 0x70,
    EVENT_ACK = 0x71,
    KEY_PAIR_INFO = 0x7C,
    SET_KEY_PAIR_INFO_ACK = 0x7D,
    VENDOR_DEFINED_RESPONSE = 0x7E,
    ERROR = 0x7F,
    GET_DIGESTS = 0x81,
    GET_CERTIFICATE = 0x82,
    CHALLENGE = 0x83,
    GET_VERSION = 0x84,
    CHUNK_SEND = 0x85,
    CHUNK_GET = 0x86,
    GET_ENDPOINT_INFO = 0x87,
    SLOT_MANAGEMENT = 0x88,
    GET_MEASUREMENTS = 0xE0,
    GET_CAPABILITIES = 0xE1,
    GET_SUPPORTED_EVENT_TYPES = 0xE2,
    NEGOTIATE_ALGORITHMS = 0xE3,
    KEY_EXCHANGE = 0xE4,
    FINISH = 0xE5,
    PSK_EXCHANGE = 0xE6,
    PSK_FINISH = 0xE7,
    HEARTBEAT = 0xE8,
    KEY_UPDATE = 0xE9,
    GET_ENCAPSULATED_REQUEST = 0xEA,
    DELIVER_ENCAPSULATED_RESPONSE = 0xEB,
    END_SESSION = 0xEC,
    GET_CSR = 0xED,
    SET_CERTIFICATE = 0xEE,
    GET_MEASUREMENT_EXTENSION_LOG = 0xEF,
    SUBSCRIBE_EVENT_TYPES = 0xF0,
    SEND_EVENT = 0xF1,
    GET_KEY_PAIR_INFO = 0xFC,
    SET_KEY_PAIR_INFO = 0xFD,
    VENDOR_DEFINED_REQUEST = 0xFE,
    RESPOND_IF_READY = 0xFF,
}

impl Code {
    /// Whether the response to this request may be deferred with ResponseNotReady
    /// (DSP0274 1.3 "ERROR response message").
    pub const fn may_be_deferred(self) -> bool {
        !matches!(
            self,
            Self::GET_VERSION
                | Self::GET_CAPABILITIES
                | Self::NEGOTIATE_ALGORITHMS
                | Self::RESPOND_IF_READY
                | Self::CHUNK_SEND
                | Self::CHUNK_GET
        )
    }
}

impl core::fmt::Debug for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

/// The four bytes that start every message (DSP0274 1.3 "Generic SPDM message format").
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version this message is written in.
    pub version: Version,
    /// Request or response code.
    pub code: Code,
    /// Meaning depends on the code.
    pub param1: u8,
    /// Meaning depends on the code.
    pub param2: u8,
}
const _: () = assert!(size_of::<Header>() == 4);

impl Header {
    /// A header with both parameters.
    pub const fn new(version: Version, code: Code, param1: u8, param2: u8) -> Self {
        Self { version, code, param1, param2 }
    }

    /// Reads any header.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.read("header")
    }

    /// Reads a header that must carry `code`.
    pub fn expect(reader: &mut Reader<'_>, code: Code) -> Result<Self, DecodeError> {
        let header = Self::parse(reader)?;
        if header.code != code {
            return Err(DecodeError::new("code", Reason::WrongCode));
        }
        Ok(header)
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_fixed(self);
    }
}

/// Opaque data preceded by its 16-bit length, at most [`MAX_OPAQUE_SIZE`].
fn opaque_field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let opaque = reader.sized16("opaque data")?;
    if opaque.len() > MAX_OPAQUE_SIZE {
        return Err(DecodeError::illegal("opaque data length"));
    }
    Ok(opaque)
}
