//! TSP messages that are answered: requests parsed, responses written (CXL 3.1 "TEE Security Protocol"; layouts as in DMTF's
//! `cxl_tsp.h`).

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::Reader;

/// TSP 1.0.
pub(super) const VERSION_1_0: u8 = 0x10;

const GET_VERSION: u8 = 0x81;
const GET_CAPABILITIES: u8 = 0x82;
const SET_CONFIGURATION: u8 = 0x83;
const GET_CONFIGURATION: u8 = 0x84;
const GET_REPORT: u8 = 0x85;
const LOCK_CONFIGURATION: u8 = 0x86;
/// What a request's code has and its response's has not.
const REQUEST: u8 = 0x80;
const ERROR: u8 = 0x7F;
/// "No entry" in the granularities of in-band state changes.
const NO_LENGTH: u8 = 0xFF;

/// TSP error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// A length or value that the request cannot have.
    pub const INVALID_REQUEST: Self = Self(0x01);
    /// An unknown code, or a request for what is not there.
    pub const UNSUPPORTED_REQUEST: Self = Self(0x04);
    /// Not TSP 1.0.
    pub const VERSION_MISMATCH: Self = Self(0x05);
    /// Not the primary session.
    pub const NO_PRIVILEGE: Self = Self(0x07);
    /// Not in this state.
    pub const INVALID_SECURITY_STATE: Self = Self(0x0B);
    /// LOCK_TARGET_CONFIGURATION of a locked configuration.
    pub const ALREADY_LOCKED: Self = Self(0x0D);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::INVALID_REQUEST => f.write_str("INVALID_REQUEST"),
            Self::UNSUPPORTED_REQUEST => f.write_str("UNSUPPORTED_REQUEST"),
            Self::VERSION_MISMATCH => f.write_str("VERSION_MISMATCH"),
            Self::NO_PRIVILEGE => f.write_str("NO_PRIVILEGE"),
            Self::INVALID_SECURITY_STATE => f.write_str("INVALID_SECURITY_STATE"),
            Self::ALREADY_LOCKED => f.write_str("ALREADY_LOCKED"),
            Self(other) => write!(f, "error {other:#x}"),
        }
    }
}

/// State of a target's configuration, as GET_TARGET_CONFIGURATION tells it. There is nothing that could take this target to
/// TSP's third state, ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TspState {
    /// May be set.
    #[default]
    ConfigUnlocked,
    /// May not.
    ConfigLocked,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    version: u8,
    code: u8,
}
const _: () = assert!(size_of::<Header>() == 2);

/// A header and two reserved bytes: every request and response that has nothing to say beyond its code.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Plain {
    header: Header,
    reserved: U16,
}
const _: () = assert!(size_of::<Plain>() == 4);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Version {
    plain: Plain,
    count: u8,
    versions: [u8; 1],
}
const _: () = assert!(size_of::<Version>() == 6);

/// Every field of it says what is supported; here that is nothing.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Capabilities {
    header: Header,
    nothing: [u8; 50],
}
const _: () = assert!(size_of::<Capabilities>() == 52);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Granularity {
    granularity: U64,
    length_index: u8,
    reserved: [u8; 7],
}

/// The head that SET_TARGET_CONFIGURATION and GET_TARGET_CONFIGURATION's response share.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Features {
    header: Header,
    encryption: U16,
    algorithm: U32,
    reserved: U32,
    state_changes: U16,
    reserved_2: U16,
    out_of_band_granularity: U32,
    reserved_3: U32,
    configuration: U16,
    reserved_4: U16,
    ckid_base: U32,
    ckids: U32,
}
const _: () = assert!(size_of::<Features>() == 36);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SetConfiguration {
    features: Features,
    reserved: [u8; 12],
    in_band_granularities: [Granularity; 8],
    reserved_2: [u8; 16],
    secondary_sessions: U16,
    reserved_3: [u8; 14],
    secondary_ckid_type: u8,
    reserved_4: [u8; 15],
    /// Pre-shared keys of secondary sessions: looked at by nobody, and never copied.
    secondary_keys: [[u8; 32]; 4],
}
const _: () = assert!(size_of::<SetConfiguration>() == 352);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Configuration {
    features: Features,
    state: u8,
    reserved: [u8; 11],
    in_band_granularities: [Granularity; 8],
    reserved_2: [u8; 16],
}
const _: () = assert!(size_of::<Configuration>() == 192);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GetReport {
    plain: Plain,
    offset: U16,
    length: U16,
}
const _: () = assert!(size_of::<GetReport>() == 8);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReportHead {
    plain: Plain,
    portion: U16,
    remainder: U16,
}
const _: () = assert!(size_of::<ReportHead>() == 8);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Error {
    plain: Plain,
    code: U32,
    data: U32,
}
const _: () = assert!(size_of::<Error>() == 12);

/// A request, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    GetVersion,
    GetCapabilities,
    SetConfiguration {
        /// Whether any feature is to be enabled.
        features: bool,
        /// Whether it brings keys for secondary sessions.
        secondary_sessions: bool,
    },
    GetConfiguration,
    GetReport {
        offset: u16,
        length: u16,
    },
    Lock,
}

impl Request {
    /// Parses a message; its length must be that of its code. Reserved fields are not judged.
    pub(super) fn decode(message: &[u8]) -> Result<Self, ErrorCode> {
        let malformed = |_| ErrorCode::INVALID_REQUEST;
        let header: &Header = Reader::new(message).structure("header").map_err(malformed)?;
        if header.version != VERSION_1_0 {
            return Err(ErrorCode::VERSION_MISMATCH);
        }
        let mut reader = Reader::new(message);
        let mut plain = |request| reader.structure::<Plain>("request").map(|_| request);
        let request = match header.code {
            GET_VERSION => plain(Self::GetVersion),
            GET_CAPABILITIES => plain(Self::GetCapabilities),
            GET_CONFIGURATION => plain(Self::GetConfiguration),
            LOCK_CONFIGURATION => plain(Self::Lock),
            SET_CONFIGURATION => {
                reader.structure("configuration").map(|body: &SetConfiguration| Self::SetConfiguration {
                    features: body.features.any(),
                    secondary_sessions: body.secondary_sessions.get() != 0,
                })
            }
            GET_REPORT => reader.structure("report request").map(|body: &GetReport| Self::GetReport {
                offset: body.offset.get(),
                length: body.length.get(),
            }),
            _ => return Err(ErrorCode::UNSUPPORTED_REQUEST),
        }
        .map_err(malformed)?;
        reader.finish().map_err(malformed)?;
        Ok(request)
    }

    /// The code that answers it.
    fn response(self) -> Header {
        let code = match self {
            Self::GetVersion => GET_VERSION,
            Self::GetCapabilities => GET_CAPABILITIES,
            Self::SetConfiguration { .. } => SET_CONFIGURATION,
            Self::GetConfiguration => GET_CONFIGURATION,
            Self::GetReport { .. } => GET_REPORT,
            Self::Lock => LOCK_CONFIGURATION,
        };
        Header { version: VERSION_1_0, code: code & !REQUEST }
    }

    fn plain(self) -> Plain {
        Plain { header: self.response(), reserved: U16::ZERO }
    }
}

impl Features {
    fn any(&self) -> bool {
        let words = [self.encryption, self.state_changes, self.configuration];
        let longs = [self.algorithm, self.out_of_band_granularity, self.ckid_base, self.ckids];
        words.iter().any(|word| word.get() != 0) || longs.iter().any(|long| long.get() != 0)
    }
}

/// The one version there is.
pub(super) fn version(request: Request, out: &mut Vec<u8>) {
    let body = Version { plain: request.plain(), count: 1, versions: [VERSION_1_0] };
    out.extend_from_slice(body.as_bytes());
}

/// Nothing is supported.
pub(super) fn capabilities(request: Request, out: &mut Vec<u8>) {
    out.extend_from_slice(Capabilities { header: request.response(), nothing: [0; 50] }.as_bytes());
}

/// Nothing is enabled, in this state.
pub(super) fn configuration(request: Request, state: TspState, out: &mut Vec<u8>) {
    let unused = Granularity { length_index: NO_LENGTH, ..Granularity::new_zeroed() };
    let body = Configuration {
        features: Features { header: request.response(), ..Features::new_zeroed() },
        state: match state {
            TspState::ConfigUnlocked => 0,
            TspState::ConfigLocked => 1,
        },
        reserved: [0; 11],
        in_band_granularities: [unused; 8],
        reserved_2: [0; 16],
    };
    out.extend_from_slice(body.as_bytes());
}

/// A portion of the report.
pub(super) fn report(request: Request, portion: &[u8], remainder: u16, out: &mut Vec<u8>) {
    let length = u16::try_from(portion.len()).unwrap_or(u16::MAX);
    let head = ReportHead { plain: request.plain(), portion: length.into(), remainder: remainder.into() };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(portion);
}

/// Done.
pub(super) fn done(request: Request, out: &mut Vec<u8>) {
    out.extend_from_slice(request.plain().as_bytes());
}

/// Not done.
pub(super) fn error(code: ErrorCode, out: &mut Vec<u8>) {
    let plain = Plain { header: Header { version: VERSION_1_0, code: ERROR }, reserved: U16::ZERO };
    out.extend_from_slice(Error { plain, code: code.0.into(), data: U32::ZERO }.as_bytes());
}
