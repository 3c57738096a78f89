//! The 16-byte header of every TDISP message, and the INTERFACE_ID in it (PCIe 6.1 §11.3 "TDISP Message Format").

use core::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{MessageCode, VERSION_1_0};
use super::reader::{DecodeError, Reader};

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 16;

/// FUNCTION_ID: bits 15:0 requester id, 23:16 segment, 24 segment valid, 31:25 reserved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FunctionId(pub u32);

impl FunctionId {
    /// The id of a function by its requester id, and by its segment where one is to be stated.
    pub const fn new(requester_id: u16, segment: Option<u8>) -> Self {
        let segment = match segment {
            Some(segment) => (1 << 24) | ((segment as u32) << 16),
            None => 0,
        };
        Self(segment | requester_id as u32)
    }

    /// Bus, device and function.
    pub const fn requester_id(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }

    /// The segment, if the valid bit says there is one.
    pub const fn segment(self) -> Option<u8> {
        if self.0 & (1 << 24) == 0 { None } else { Some(self.segment_field()) }
    }

    /// The segment field whether or not its valid bit is set; it is reserved when the bit is clear.
    pub const fn segment_field(self) -> u8 {
        ((self.0 >> 16) & 0xFF) as u8
    }

    /// Reserved bits 31:25.
    pub const fn reserved(self) -> u8 {
        (self.0 >> 25) as u8
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.requester_id();
        if let Some(segment) = self.segment() {
            write!(f, "{segment:02x}:")?;
        }
        write!(f, "{:02x}:{:02x}.{}", id >> 8, (id >> 3) & 0x1F, id & 7)
    }
}

impl fmt::Debug for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionId({:#010x})", self.0)
    }
}

/// INTERFACE_ID: FUNCTION_ID and eight reserved bytes. A response carries the request's, bit for bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct InterfaceId {
    /// The function meant.
    pub function: FunctionId,
    /// Reserved; zero from a conforming peer, and echoed whatever it is.
    pub reserved: u64,
}

impl From<FunctionId> for InterfaceId {
    fn from(function: FunctionId) -> Self {
        Self { function, reserved: 0 }
    }
}

/// The header as it stands in a message, any version, any code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// TDISP version, 0x10 for 1.0.
    pub version: u8,
    /// Message code.
    pub code: MessageCode,
    /// Two reserved bytes.
    pub reserved: u16,
    /// The interface meant.
    pub interface: InterfaceId,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    version: u8,
    code: u8,
    reserved: zerocopy::little_endian::U16,
    function: U32,
    interface_reserved: U64,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_LENGTH);

impl Header {
    /// A version 1.0 header with its reserved fields zero.
    pub const fn new(code: MessageCode, interface: InterfaceId) -> Self {
        Self { version: VERSION_1_0, code, reserved: 0, interface }
    }

    /// Splits a message into its header and its body.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer than 16 bytes. The version is not judged here.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::new(message);
        let raw: &RawHeader = reader.structure("header")?;
        let header = Self {
            version: raw.version,
            code: MessageCode(raw.code),
            reserved: raw.reserved.get(),
            interface: InterfaceId {
                function: FunctionId(raw.function.get()),
                reserved: raw.interface_reserved.get(),
            },
        };
        Ok((header, reader.rest()))
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let raw = RawHeader {
            version: self.version,
            code: self.code.0,
            reserved: self.reserved.into(),
            function: self.interface.function.0.into(),
            interface_reserved: self.interface.reserved.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}
