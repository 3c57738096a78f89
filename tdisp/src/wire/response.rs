//! TDISP responses, both directions (PCIe 6.1 §11.3).

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{ErrorCode, MessageCode, TdiState, VERSION_1_0};
use super::header::{Header, InterfaceId};
use super::lock::{LockFlags, Nonce};
use super::reader::{DecodeError, FieldTooLong, Reader};
use super::request::Vdm;

/// REQ_MSGS_SUPPORTED: bit n stands for request code 0x80 + n.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestBitmap(pub [u8; 16]);

impl RequestBitmap {
    /// Exactly the seven requests that every DSM must answer.
    pub const REQUIRED: Self = Self([0xFE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    /// These, and the request `code`. What is no request has no bit here.
    #[must_use]
    pub fn with(mut self, code: MessageCode) -> Self {
        let bit = code.0 & 0x7F;
        if let Some(byte) = self.0.get_mut(usize::from(bit / 8)).filter(|_| code.is_request()) {
            *byte |= 1 << (bit % 8);
        }
        self
    }

    /// Whether the request `code` is offered.
    pub fn contains(&self, code: MessageCode) -> bool {
        let bit = code.0 & 0x7F;
        code.is_request() && self.0.get(usize::from(bit / 8)).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// The codes offered, ascending.
    pub fn codes(&self) -> impl Iterator<Item = MessageCode> + '_ {
        (0x80..=0xFF).map(MessageCode).filter(|code| self.contains(*code))
    }
}

impl fmt::Debug for RequestBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.codes()).finish()
    }
}

/// Body of TDISP_CAPABILITIES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// DSM_CAPS, reserved in 1.0.
    pub dsm_caps: u32,
    /// Requests that are answered.
    pub requests: RequestBitmap,
    /// Flags that LOCK may carry.
    pub lock_flags: LockFlags,
    /// Number of address bits the device uses.
    pub dev_addr_width: u8,
    /// Requests that may be outstanding for this TDI.
    pub num_req_this: u8,
    /// Requests that may be outstanding for all TDIs of the DSM together.
    pub num_req_all: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCapabilities {
    dsm_caps: U32,
    requests: [u8; 16],
    lock_flags: U16,
    reserved: [u8; 3],
    dev_addr_width: u8,
    num_req_this: u8,
    num_req_all: u8,
}
const _: () = assert!(size_of::<RawCapabilities>() == 28);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawReport {
    portion: U16,
    remainder: U16,
}
const _: () = assert!(size_of::<RawReport>() == 4);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawError {
    code: U32,
    data: U32,
}
const _: () = assert!(size_of::<RawError>() == 8);

/// Extended error data of a vendor-specific error: registry, vendor id, and the vendor's bytes.
pub type ExtendedError<'a> = Vdm<'a>;

/// A response's body, by its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// TDISP_VERSION: the versions offered, 0x10 for 1.0.
    Version(&'a [u8]),
    /// TDISP_CAPABILITIES.
    Capabilities(Capabilities),
    /// LOCK_INTERFACE_RESPONSE.
    Lock(Nonce),
    /// DEVICE_INTERFACE_REPORT.
    Report {
        /// The bytes asked for, or as many of them as fit.
        portion: &'a [u8],
        /// Bytes of the report after this portion.
        remainder: u16,
    },
    /// DEVICE_INTERFACE_STATE.
    State(TdiState),
    /// START_INTERFACE_RESPONSE.
    Start,
    /// STOP_INTERFACE_RESPONSE.
    Stop,
    /// BIND_P2P_STREAM_RESPONSE.
    BindP2p,
    /// UNBIND_P2P_STREAM_RESPONSE.
    UnbindP2p,
    /// SET_MMIO_ATTRIBUTE_RESPONSE.
    SetMmioAttribute,
    /// VDM_RESPONSE.
    Vdm(Vdm<'a>),
    /// TDISP_ERROR.
    Error {
        /// ERROR_CODE.
        code: ErrorCode,
        /// ERROR_DATA: the offending code for UNSUPPORTED_REQUEST, else zero.
        data: u32,
        /// Only with VENDOR_SPECIFIC_ERROR.
        extended: Option<ExtendedError<'a>>,
    },
}

impl<'a> Response<'a> {
    /// An error without extended data.
    pub const fn error(code: ErrorCode, data: u32) -> Self {
        Self::Error { code, data, extended: None }
    }

    /// The code that stands in the header.
    pub const fn code(&self) -> MessageCode {
        match self {
            Self::Version(_) => MessageCode::VERSION,
            Self::Capabilities(_) => MessageCode::CAPABILITIES,
            Self::Lock(_) => MessageCode::LOCK_INTERFACE_RESPONSE,
            Self::Report { .. } => MessageCode::DEVICE_INTERFACE_REPORT,
            Self::State(_) => MessageCode::DEVICE_INTERFACE_STATE,
            Self::Start => MessageCode::START_INTERFACE_RESPONSE,
            Self::Stop => MessageCode::STOP_INTERFACE_RESPONSE,
            Self::BindP2p => MessageCode::BIND_P2P_STREAM_RESPONSE,
            Self::UnbindP2p => MessageCode::UNBIND_P2P_STREAM_RESPONSE,
            Self::SetMmioAttribute => MessageCode::SET_MMIO_ATTRIBUTE_RESPONSE,
            Self::Vdm(_) => MessageCode::VDM_RESPONSE,
            Self::Error { .. } => MessageCode::TDISP_ERROR,
        }
    }

    fn decode_body(code: MessageCode, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let response = match code {
            MessageCode::VERSION => {
                let count = reader.byte("VERSION_NUM_COUNT")?;
                Self::Version(reader.bytes(usize::from(count), "VERSION_NUM_ENTRY")?)
            }
            MessageCode::CAPABILITIES => {
                let raw: &RawCapabilities = reader.structure("TDISP_CAPABILITIES")?;
                Self::Capabilities(Capabilities {
                    dsm_caps: raw.dsm_caps.get(),
                    requests: RequestBitmap(raw.requests),
                    lock_flags: LockFlags::from_bits(raw.lock_flags.get()),
                    dev_addr_width: raw.dev_addr_width,
                    num_req_this: raw.num_req_this,
                    num_req_all: raw.num_req_all,
                })
            }
            MessageCode::LOCK_INTERFACE_RESPONSE => Self::Lock(Nonce::read(&mut reader)?),
            MessageCode::DEVICE_INTERFACE_REPORT => {
                let raw: &RawReport = reader.structure("DEVICE_INTERFACE_REPORT")?;
                let portion = reader.bytes(usize::from(raw.portion.get()), "REPORT_BYTES")?;
                Self::Report { portion, remainder: raw.remainder.get() }
            }
            MessageCode::DEVICE_INTERFACE_STATE => Self::State(TdiState(reader.byte("TDI_STATE")?)),
            MessageCode::START_INTERFACE_RESPONSE => Self::Start,
            MessageCode::STOP_INTERFACE_RESPONSE => Self::Stop,
            MessageCode::BIND_P2P_STREAM_RESPONSE => Self::BindP2p,
            MessageCode::UNBIND_P2P_STREAM_RESPONSE => Self::UnbindP2p,
            MessageCode::SET_MMIO_ATTRIBUTE_RESPONSE => Self::SetMmioAttribute,
            MessageCode::VDM_RESPONSE => Self::Vdm(Vdm::read(&mut reader)?),
            MessageCode::TDISP_ERROR => {
                let raw: &RawError = reader.structure("TDISP_ERROR")?;
                let code = ErrorCode(raw.code.get());
                let extended = match code {
                    ErrorCode::VENDOR_SPECIFIC_ERROR => Some(Vdm::read(&mut reader)?),
                    _ => None,
                };
                Self::Error { code, data: raw.data.get(), extended }
            }
            unknown => return Err(DecodeError::UnknownCode(unknown)),
        };
        reader.finish()?;
        Ok(response)
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        match self {
            Self::Version(versions) => {
                let length = versions.len();
                let count =
                    u8::try_from(length).map_err(|_| FieldTooLong { field: "VERSION_NUM_ENTRY", length })?;
                out.push(count);
                out.extend_from_slice(versions);
            }
            Self::Capabilities(capabilities) => {
                let raw = RawCapabilities {
                    dsm_caps: capabilities.dsm_caps.into(),
                    requests: capabilities.requests.0,
                    lock_flags: capabilities.lock_flags.into_bits().into(),
                    reserved: [0; 3],
                    dev_addr_width: capabilities.dev_addr_width,
                    num_req_this: capabilities.num_req_this,
                    num_req_all: capabilities.num_req_all,
                };
                out.extend_from_slice(raw.as_bytes());
            }
            Self::Lock(nonce) => out.extend_from_slice(nonce.as_bytes()),
            Self::Report { portion, remainder } => {
                let length = portion.len();
                let count =
                    u16::try_from(length).map_err(|_| FieldTooLong { field: "REPORT_BYTES", length })?;
                let raw = RawReport { portion: count.into(), remainder: (*remainder).into() };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(portion);
            }
            Self::State(state) => out.push(state.0),
            Self::Start | Self::Stop | Self::BindP2p | Self::UnbindP2p | Self::SetMmioAttribute => {}
            Self::Vdm(vdm) => vdm.write(out),
            Self::Error { code, data, extended } => {
                let raw = RawError { code: code.0.into(), data: (*data).into() };
                out.extend_from_slice(raw.as_bytes());
                if let Some(extended) = extended {
                    extended.write(out);
                }
            }
        }
        Ok(())
    }
}

/// A whole response: from which interface, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseMessage<'a> {
    /// The interface of the request.
    pub interface: InterfaceId,
    /// What it answers.
    pub response: Response<'a>,
}

impl<'a> ResponseMessage<'a> {
    /// Decodes a response.
    ///
    /// # Errors
    /// A short header, another version than 1.0, an unknown code, a wrong length.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, body) = Header::decode(message)?;
        if header.version != VERSION_1_0 {
            return Err(DecodeError::Version(header.version));
        }
        let response = Response::decode_body(header.code, body)?;
        Ok(Self { interface: header.interface, response })
    }

    /// Appends the response to `out`.
    ///
    /// # Errors
    /// [`FieldTooLong`] if a variable part is longer than its length field can say; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        let start = out.len();
        Header::new(self.response.code(), self.interface).encode(out);
        self.response.encode_body(out).inspect_err(|_| out.truncate(start))
    }
}
