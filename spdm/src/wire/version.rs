//! GET_VERSION and VERSION (DSP0274 1.3 "GET_VERSION request and VERSION response messages").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

use super::{Code, Header, Version};
use crate::codec::{DecodeError, EncodeError, Put, Reader, Reason};

/// One entry of VERSION: bits 15:12 major, 11:8 minor, 7:4 update, 3:0 alpha. DSP0277 versions use the same form.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct VersionNumber(pub U16);

impl VersionNumber {
    /// Released version `version` with update and alpha zero.
    pub const fn new(version: Version) -> Self {
        Self(U16::new((version.0 as u16) << 8))
    }

    /// Major and minor number.
    pub const fn version(self) -> Version {
        Version((self.0.get() >> 8) as u8)
    }
}

impl core::fmt::Debug for VersionNumber {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#06x}", self.0.get())
    }
}

/// GET_VERSION. Its header says 1.0 whatever the peers speak afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetVersion {
    /// Version in the header; a responder refuses all but 1.0.
    pub version: Version,
}

impl GetVersion {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::GET_VERSION)?;
        Ok(Self { version: header.version })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::GET_VERSION, 0, 0).encode(out);
    }
}

/// VERSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionResponse<'a> {
    /// Versions the responder speaks.
    pub entries: &'a [VersionNumber],
}

impl<'a> VersionResponse<'a> {
    /// Parses the message. An empty list or a header other than 1.0 is an error.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::VERSION)?;
        if header.version != Version::V1_0 {
            return Err(DecodeError::illegal("version"));
        }
        reader.u8("reserved")?;
        let count = usize::from(reader.u8("entry count")?);
        if count == 0 {
            return Err(DecodeError::illegal("entry count"));
        }
        let bytes = reader.bytes(count * size_of::<VersionNumber>(), "entries")?;
        let entries = <[VersionNumber]>::ref_from_bytes(bytes)
            .map_err(|_| DecodeError::new("entries", Reason::Truncated))?;
        Ok(Self { entries })
    }

    /// Appends the message; fails for more than 255 entries.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = u8::try_from(self.entries.len()).map_err(|_| EncodeError("entries"))?;
        Header::new(Version::V1_0, Code::VERSION, 0, 0).encode(out);
        out.put(&[0, count]);
        out.put_fixed(self.entries);
        Ok(())
    }
}
