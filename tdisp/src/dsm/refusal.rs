//! Why a request was refused. Every reason knows the error it becomes on the wire; the text is for people.

use thiserror::Error;

use crate::ide::StreamIndex;
use crate::wire::{DecodeError, ErrorCode, FieldTooLong, MessageCode, ReportTooLong, TdiState};

/// A protocol rejection (PCIe 6.1 §11.3 "TDISP_ERROR"; §11.3.8 for the checks of LOCK).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The header's version is not 1.0.
    #[error("TDISP version {0:#04x} is not offered")]
    Version(u8),
    /// The code is no request, is unknown, or is optional and not implemented.
    #[error("{0} is not supported")]
    Unsupported(MessageCode),
    /// The request came in the clear, where it is only possible to ask.
    #[error("{0} is taken in a secured session only")]
    InTheClear(MessageCode),
    /// The body does not have the length or the values that its code wants.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// A reserved field is not zero.
    #[error("{0}: reserved, but not zero")]
    Reserved(&'static str),
    /// INTERFACE_ID has reserved bits set, and so names nothing.
    #[error("reserved bits of INTERFACE_ID are set")]
    ReservedInterface,
    /// FUNCTION_ID names no function that is hosted here.
    #[error("no such interface")]
    Interface,
    /// Another session locked the TDI and still lives.
    #[error("the TDI belongs to another session")]
    ForeignSession,
    /// As many requests as may be are waiting for their answers.
    #[error("busy with an earlier request")]
    Busy,
    /// Not legal in this state.
    #[error("not legal in {0}")]
    State(TdiState),
    /// START's nonce is not the one that LOCK gave.
    #[error("wrong nonce")]
    Nonce,
    /// The report ends before the offset asked for.
    #[error("offset {offset} lies beyond the report's {length} bytes")]
    ReportOffset {
        /// Offset asked for.
        offset: u16,
        /// Length of the report in bytes.
        length: usize,
    },
    /// LOCK flags that are not offered.
    #[error("LOCK flags {0:#06x} are not supported")]
    LockFlags(u16),
    /// No stream has the stream id.
    #[error("no IDE stream has id {0}")]
    NoStream(u8),
    /// The stream is a link stream.
    #[error("{0} is not a selective stream")]
    NotSelective(StreamIndex),
    /// The stream is not marked as default.
    #[error("{0} is not the default stream")]
    NotDefault(StreamIndex),
    /// More than one stream is marked as default.
    #[error("several IDE streams are marked as default")]
    SeveralDefaultStreams,
    /// The stream's traffic class is not 0.
    #[error("{0} uses traffic class {1}")]
    TrafficClass(StreamIndex, u8),
    /// Not all six keys are in use, or not all of one set.
    #[error("{0} does not have six keys of one set in use")]
    Keys(StreamIndex),
    /// The keys came through another session than LOCK.
    #[error("the keys of {0} came through another session")]
    KeysOfAnotherSession(StreamIndex),
    /// The stream is not secure.
    #[error("{0} is not secure")]
    StreamInsecure(StreamIndex),
    /// The TDI was locked without BIND_P2P.
    #[error("the TDI was locked without BIND_P2P")]
    P2pNotLocked,
    /// P2P streams need address translation services.
    #[error("ATS is not enabled")]
    AtsDisabled,
    /// Several sets of stream registers hold the stream id.
    #[error("several IDE streams have id {0}")]
    SeveralStreams(u8),
    /// A P2P stream must not be the default one.
    #[error("{0} is the default stream")]
    DefaultStream(StreamIndex),
    /// RID or address associations of two streams overlap.
    #[error("the associations of {0} and {1} overlap")]
    AssociationsOverlap(StreamIndex, StreamIndex),
    /// The stream is bound to the TDI already, by LOCK or BIND_P2P_STREAM.
    #[error("{0} is bound to the TDI already")]
    StreamBound(StreamIndex),
    /// No P2P stream with this id is bound to the TDI.
    #[error("no P2P stream with id {0} is bound to the TDI")]
    P2pNotBound(u8),
    /// SET_MMIO_ATTRIBUTE names pages that the report does not have in one range.
    #[error("the TDI has no range with pages {first_page:#x}+{pages:#x} and range id {range_id}")]
    NoRange {
        /// First page, as it is reported.
        first_page: u64,
        /// Number of pages.
        pages: u32,
        /// Range id.
        range_id: u16,
    },
    /// The attributes of the range are fixed.
    #[error("the attributes of range {0} cannot be updated")]
    RangeFixed(u16),
    /// Attributes that SET_MMIO_ATTRIBUTE cannot change.
    #[error("attributes {0:#06x} cannot be set")]
    Attributes(u16),
    /// VDM of a vendor who is not known here.
    #[error("the vendor of the VDM is not known")]
    Vendor,
    /// VDM that this vendor does not define.
    #[error("VDM of vendor {vendor:#06x}: no message {message:#04x}")]
    VendorMessage {
        /// The vendor.
        vendor: u16,
        /// First byte of its data, 0 if there is none.
        message: u8,
    },
    /// Phantom functions are enabled.
    #[error("phantom functions are enabled")]
    PhantomFunctions,
    /// The LN requester is set to another cache line size than the host has.
    #[error("the LN requester is set to cache lines of {0} bytes")]
    CacheLineSize(u8),
    /// The steering tag mode selected is not one the function has.
    #[error("TPH steering tag mode {0} is selected, which the function does not have")]
    TphMode(u8),
    /// A BAR has no address.
    #[error("BAR {0} has no address")]
    BarUnassigned(u8),
    /// A BAR reaches beyond the address space.
    #[error("BAR {0} reaches beyond the address space")]
    BarRange(u8),
    /// A resizable BAR has a size it does not offer.
    #[error("BAR {0} is set to a size that is not offered")]
    BarSize(u8),
    /// Two BARs overlap.
    #[error("BAR {0} and BAR {1} overlap")]
    BarsOverlap(u8, u8),
    /// The enabled expansion ROM overlaps a BAR.
    #[error("the expansion ROM overlaps BAR {0}")]
    RomOverlap(u8),
    /// The ranges of a BAR do not cover it page by page: a fault of this device, not of the requester.
    #[error("the ranges of BAR {0} do not cover it in order")]
    RangeLayout(u8),
    /// The report could not be read to its end.
    #[error(transparent)]
    ReportTooLong(#[from] ReportTooLong),
    /// The answer does not fit its message: a fault of this device, not of the requester.
    #[error("the answer cannot be sent: {0}")]
    Answer(#[from] FieldTooLong),
    /// No random bytes for a nonce.
    #[error("no entropy for a nonce")]
    Entropy,
}

impl Refusal {
    /// ERROR_CODE.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Version(_) => ErrorCode::VERSION_MISMATCH,
            Self::Unsupported(_) | Self::InTheClear(_) => ErrorCode::UNSUPPORTED_REQUEST,
            Self::ReservedInterface | Self::Interface => ErrorCode::INVALID_INTERFACE,
            Self::Busy => ErrorCode::BUSY,
            Self::VendorMessage { .. } => ErrorCode::VENDOR_SPECIFIC_ERROR,
            Self::State(_) => ErrorCode::INVALID_INTERFACE_STATE,
            Self::Nonce => ErrorCode::INVALID_NONCE,
            Self::Entropy => ErrorCode::INSUFFICIENT_ENTROPY,
            Self::Answer(_) => ErrorCode::UNSPECIFIED,
            Self::Malformed(_)
            | Self::Reserved(_)
            | Self::ForeignSession
            | Self::ReportOffset { .. }
            | Self::LockFlags(_)
            | Self::NoStream(_)
            | Self::NotSelective(_)
            | Self::NotDefault(_)
            | Self::SeveralDefaultStreams
            | Self::TrafficClass(..)
            | Self::Keys(_)
            | Self::KeysOfAnotherSession(_)
            | Self::StreamInsecure(_)
            | Self::P2pNotLocked
            | Self::AtsDisabled
            | Self::SeveralStreams(_)
            | Self::DefaultStream(_)
            | Self::AssociationsOverlap(..)
            | Self::StreamBound(_)
            | Self::P2pNotBound(_)
            | Self::NoRange { .. }
            | Self::RangeFixed(_)
            | Self::Attributes(_)
            | Self::Vendor => ErrorCode::INVALID_REQUEST,
            Self::PhantomFunctions
            | Self::CacheLineSize(_)
            | Self::TphMode(_)
            | Self::BarUnassigned(_)
            | Self::BarRange(_)
            | Self::BarSize(_)
            | Self::BarsOverlap(..)
            | Self::RomOverlap(_)
            | Self::RangeLayout(_)
            | Self::ReportTooLong(_) => ErrorCode::INVALID_DEVICE_CONFIGURATION,
        }
    }

    /// ERROR_DATA: the offending code for UNSUPPORTED_REQUEST, else zero.
    pub fn data(self) -> u32 {
        if let Self::Unsupported(code) | Self::InTheClear(code) = self { u32::from(code.0) } else { 0 }
    }
}
