//! ERROR, and RESPOND_IF_READY that answers one kind of it (DSP0274 1.4 "ERROR response message").

use core::time::Duration;

use super::{Code, Header, Version};
use crate::codec::{DecodeError, Put, Reader};

/// `Error code`; any value a peer may send.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u8);

macro_rules! error_codes {
    ($($name:ident = $value:literal,)*) => {
        #[allow(missing_docs, reason = "the names are those of DSP0274")]
        impl ErrorCode {
            $(pub const $name: Self = Self($value);)*

            /// Name in DSP0274, if the code is one of those this crate knows.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    INVALID_REQUEST = 0x01,
    BUSY = 0x03,
    UNEXPECTED_REQUEST = 0x04,
    UNSPECIFIED = 0x05,
    DECRYPT_ERROR = 0x06,
    UNSUPPORTED_REQUEST = 0x07,
    REQUEST_IN_FLIGHT = 0x08,
    INVALID_RESPONSE_CODE = 0x09,
    SESSION_LIMIT_EXCEEDED = 0x0A,
    SESSION_REQUIRED = 0x0B,
    RESET_REQUIRED = 0x0C,
    RESPONSE_TOO_LARGE = 0x0D,
    REQUEST_TOO_LARGE = 0x0E,
    LARGE_RESPONSE = 0x0F,
    MESSAGE_LOST = 0x10,
    INVALID_POLICY = 0x11,
    DATA_TOO_LARGE = 0x12,
    VERSION_MISMATCH = 0x41,
    RESPONSE_NOT_READY = 0x42,
    REQUEST_RESYNCH = 0x43,
    OPERATION_FAILED = 0x44,
    NO_PENDING_REQUESTS = 0x45,
    REQUEST_SESSION_TERMINATED = 0x46,
    INVALID_STATE = 0x47,
    VENDOR_DEFINED = 0xFF,
}

impl ErrorCode {
    /// The version that brought the code.
    const fn since(self) -> Version {
        match self.0 {
            0x06 | 0x08..=0x0A => Version::V1_1,
            0x0B..=0x12 => Version::V1_2,
            0x44..=0x47 => Version::V1_3,
            _ => Version::V1_0,
        }
    }
}

impl core::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}

/// ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse<'a> {
    /// Version of the message.
    pub version: Version,
    /// What went wrong.
    pub code: ErrorCode,
    /// Detail, its meaning depends on the code.
    pub data: u8,
    /// `ExtendedErrorData`, its meaning depends on the code.
    pub extended: &'a [u8],
}

impl<'a> ErrorResponse<'a> {
    /// An error without extended data.
    pub const fn new(version: Version, code: ErrorCode, data: u8) -> Self {
        Self { version, code, data, extended: &[] }
    }

    /// The error in the words of its version: Unspecified, and nothing beside it, where the code came later.
    pub fn worded(self) -> Self {
        if self.version < self.code.since() {
            return Self::new(self.version, ErrorCode::UNSPECIFIED, 0);
        }
        self
    }

    /// Parses the message. Only five codes define extended data; behind the others everything is padding. DataTooLarge
    /// has it from 1.4 on and for certificate chains only: their size.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::ERROR)?;
        let code = ErrorCode(header.param1);
        let extended = match code {
            ErrorCode::RESPONSE_NOT_READY => reader.bytes(NotReady::SIZE, "extended error data")?,
            ErrorCode::RESPONSE_TOO_LARGE => reader.bytes(4, "extended error data")?,
            ErrorCode::LARGE_RESPONSE => reader.bytes(1, "extended error data")?,
            ErrorCode::DATA_TOO_LARGE if header.version >= Version::V1_4 && reader.remaining() >= 4 => {
                reader.bytes(4, "extended error data")?
            }
            ErrorCode::VENDOR_DEFINED => reader.rest(),
            _ => &[],
        };
        Ok(Self { version: header.version, code, data: header.param2, extended })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::ERROR, self.code.0, self.data).encode(out);
        out.put(self.extended);
    }

    /// Extended data of ResponseNotReady.
    pub fn not_ready(&self) -> Option<NotReady> {
        if self.code != ErrorCode::RESPONSE_NOT_READY {
            return None;
        }
        NotReady::parse(&mut Reader::new(self.extended)).ok()
    }
}

/// Extended data of ResponseNotReady.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// `RDTExponent`: the response is ready after 2^this microseconds.
    pub exponent: u8,
    /// Request it is the answer to.
    pub request: Code,
    /// Goes into RESPOND_IF_READY.
    pub token: u8,
    /// `RDTM`: multiplier of the time after which the response is gone.
    pub multiplier: u8,
}

impl NotReady {
    const SIZE: usize = 4;

    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [exponent, request, token, multiplier] = reader.array("extended error data")?;
        Ok(Self { exponent, request: Code(request), token, multiplier })
    }

    /// The extended error data.
    pub const fn bytes(&self) -> [u8; 4] {
        [self.exponent, self.request.0, self.token, self.multiplier]
    }

    /// How long to wait before asking again. Exponents beyond 2^31 µs (36 minutes) count as that.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(1 << self.exponent.min(31))
    }
}

/// RESPOND_IF_READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RespondIfReady {
    /// Version of the message.
    pub version: Version,
    /// Request whose response is fetched.
    pub request: Code,
    /// Token of the ERROR message.
    pub token: u8,
}

impl RespondIfReady {
    /// Parses the message.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::expect(reader, Code::RESPOND_IF_READY)?;
        Ok(Self { version: header.version, request: Code(header.param1), token: header.param2 })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.version, Code::RESPOND_IF_READY, self.request.0, self.token).encode(out);
    }
}
