//! TDISP requests, both directions (PCIe 6.1 §11.3).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::{MessageCode, RegistryId, VERSION_1_0};
use super::header::{Header, InterfaceId};
use super::lock::{LockRequest, Nonce};
use super::reader::{DecodeError, FieldTooLong, Reader};
use super::report::MmioRange;

/// A request's body, by its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// GET_TDISP_VERSION.
    GetVersion,
    /// GET_TDISP_CAPABILITIES.
    GetCapabilities {
        /// TSM_CAPS: reserved in 1.0; later revisions use bit 0 for XT mode, so nothing is refused for it.
        tsm_caps: u32,
    },
    /// LOCK_INTERFACE_REQUEST.
    Lock(LockRequest),
    /// GET_DEVICE_INTERFACE_REPORT.
    GetReport {
        /// First byte of the report that is wanted.
        offset: u16,
        /// How many bytes are wanted.
        length: u16,
    },
    /// GET_DEVICE_INTERFACE_STATE.
    GetState,
    /// START_INTERFACE_REQUEST with the nonce of LOCK.
    Start(Nonce),
    /// STOP_INTERFACE_REQUEST.
    Stop,
    /// BIND_P2P_STREAM_REQUEST with a stream id.
    BindP2p(u8),
    /// UNBIND_P2P_STREAM_REQUEST with a stream id.
    UnbindP2p(u8),
    /// SET_MMIO_ATTRIBUTE_REQUEST: the range with the IS_NON_TEE_MEM it is to have.
    SetMmioAttribute(MmioRange),
    /// VDM_REQUEST.
    Vdm(Vdm<'a>),
}

/// Body of VDM_REQUEST and VDM_RESPONSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vdm<'a> {
    /// Whose number space the vendor id is from.
    pub registry: RegistryId,
    vendor_id: &'a [u8],
    /// Everything after it.
    pub data: &'a [u8],
}

impl<'a> Vdm<'a> {
    /// A vendor's message.
    ///
    /// # Errors
    /// [`FieldTooLong`] if the vendor id has more than 255 bytes.
    pub fn new(registry: RegistryId, vendor_id: &'a [u8], data: &'a [u8]) -> Result<Self, FieldTooLong> {
        if vendor_id.len() > usize::from(u8::MAX) {
            return Err(FieldTooLong { field: "VENDOR_ID", length: vendor_id.len() });
        }
        Ok(Self { registry, vendor_id, data })
    }

    /// The vendor id, at most 255 bytes; two, little-endian, for PCI-SIG.
    pub const fn vendor_id(&self) -> &'a [u8] {
        self.vendor_id
    }

    /// Its length in a message, bytes.
    pub const fn length(&self) -> usize {
        2 + self.vendor_id.len() + self.data.len()
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let registry = RegistryId(reader.byte("REGISTRY_ID")?);
        let length = reader.byte("VENDOR_ID_LEN")?;
        let vendor_id = reader.bytes(usize::from(length), "VENDOR_ID")?;
        Ok(Self { registry, vendor_id, data: reader.rest() })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.registry.0, self.vendor_id.len() as u8]);
        out.extend_from_slice(self.vendor_id);
        out.extend_from_slice(self.data);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawGetReport {
    offset: U16,
    length: U16,
}
const _: () = assert!(size_of::<RawGetReport>() == 4);

impl<'a> Request<'a> {
    /// The code that stands in the header.
    pub const fn code(&self) -> MessageCode {
        match self {
            Self::GetVersion => MessageCode::GET_TDISP_VERSION,
            Self::GetCapabilities { .. } => MessageCode::GET_TDISP_CAPABILITIES,
            Self::Lock(_) => MessageCode::LOCK_INTERFACE_REQUEST,
            Self::GetReport { .. } => MessageCode::GET_DEVICE_INTERFACE_REPORT,
            Self::GetState => MessageCode::GET_DEVICE_INTERFACE_STATE,
            Self::Start(_) => MessageCode::START_INTERFACE_REQUEST,
            Self::Stop => MessageCode::STOP_INTERFACE_REQUEST,
            Self::BindP2p(_) => MessageCode::BIND_P2P_STREAM_REQUEST,
            Self::UnbindP2p(_) => MessageCode::UNBIND_P2P_STREAM_REQUEST,
            Self::SetMmioAttribute(_) => MessageCode::SET_MMIO_ATTRIBUTE_REQUEST,
            Self::Vdm(_) => MessageCode::VDM_REQUEST,
        }
    }

    /// Decodes the body that belongs to `code`.
    ///
    /// # Errors
    /// An unknown code, or a body of any other length than the code's own.
    pub fn decode_body(code: MessageCode, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let request = match code {
            MessageCode::GET_TDISP_VERSION => Self::GetVersion,
            MessageCode::GET_TDISP_CAPABILITIES => {
                Self::GetCapabilities { tsm_caps: reader.structure::<U32>("TSM_CAPS")?.get() }
            }
            MessageCode::LOCK_INTERFACE_REQUEST => Self::Lock(LockRequest::read(&mut reader)?),
            MessageCode::GET_DEVICE_INTERFACE_REPORT => {
                let raw: &RawGetReport = reader.structure("GET_DEVICE_INTERFACE_REPORT")?;
                Self::GetReport { offset: raw.offset.get(), length: raw.length.get() }
            }
            MessageCode::GET_DEVICE_INTERFACE_STATE => Self::GetState,
            MessageCode::START_INTERFACE_REQUEST => Self::Start(Nonce::read(&mut reader)?),
            MessageCode::STOP_INTERFACE_REQUEST => Self::Stop,
            MessageCode::BIND_P2P_STREAM_REQUEST => Self::BindP2p(reader.byte("P2P_STREAM_ID")?),
            MessageCode::UNBIND_P2P_STREAM_REQUEST => Self::UnbindP2p(reader.byte("P2P_STREAM_ID")?),
            MessageCode::SET_MMIO_ATTRIBUTE_REQUEST => Self::SetMmioAttribute(MmioRange::read(&mut reader)?),
            MessageCode::VDM_REQUEST => Self::Vdm(Vdm::read(&mut reader)?),
            unknown => return Err(DecodeError::UnknownCode(unknown)),
        };
        reader.finish()?;
        Ok(request)
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::GetVersion | Self::GetState | Self::Stop => {}
            Self::GetCapabilities { tsm_caps } => out.extend_from_slice(&tsm_caps.to_le_bytes()),
            Self::Lock(lock) => lock.write(out),
            Self::GetReport { offset, length } => {
                let raw = RawGetReport { offset: (*offset).into(), length: (*length).into() };
                out.extend_from_slice(raw.as_bytes());
            }
            Self::Start(nonce) => out.extend_from_slice(nonce.as_bytes()),
            Self::BindP2p(stream) | Self::UnbindP2p(stream) => out.push(*stream),
            Self::SetMmioAttribute(range) => range.write(out),
            Self::Vdm(vdm) => vdm.write(out),
        }
    }
}

/// A whole request: to which interface, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage<'a> {
    /// The interface meant.
    pub interface: InterfaceId,
    /// What is asked of it.
    pub request: Request<'a>,
}

impl<'a> RequestMessage<'a> {
    /// Decodes a request.
    ///
    /// # Errors
    /// A short header, another version than 1.0, an unknown code, a wrong length.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, body) = Header::decode(message)?;
        if header.version != VERSION_1_0 {
            return Err(DecodeError::Version(header.version));
        }
        let request = Request::decode_body(header.code, body)?;
        Ok(Self { interface: header.interface, request })
    }

    /// Appends the request to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Header::new(self.request.code(), self.interface).encode(out);
        self.request.encode_body(out);
    }
}
