//! What the DSM tells its owner: transitions with their causes, and the work that must follow them.

use core::fmt;

use crate::ide::{InsecureCause, StreamIndex};
use crate::wire::{MessageCode, TdiState};

use super::refusal::Refusal;
use super::view::LockedRegister;

/// Something the owner has to do or may want to record. Effects come in the order in which they must be
/// carried out; all of them are due before the answer leaves and before the next access is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A TDI is in another state. The access rules of the new state hold from here on.
    StateChanged {
        /// Function number.
        function: usize,
        /// State it was in.
        from: TdiState,
        /// State it is in.
        to: TdiState,
        /// Why.
        cause: Cause,
    },
    /// Wipe everything the function may hold of a TVM's data, registers included, and give every page the attribute of
    /// its layout again. Always precedes the [`Effect::StateChanged`] that makes private memory readable again.
    Scrub {
        /// Function number.
        function: usize,
    },
    /// Finish or abort work in flight and start no DMA before the next transition.
    StopDma {
        /// Function number.
        function: usize,
    },
    /// Let DMA in flight come to its end, or abort it, before the answer leaves; more may follow it.
    DrainDma {
        /// Function number.
        function: usize,
    },
    /// Pages become private or shared until the next [`Effect::Scrub`], which gives every page the attribute of its
    /// layout again. Memory among them is to be wiped: it changes hands.
    MmioAttribute {
        /// Function number.
        function: usize,
        /// BAR index.
        bar: u8,
        /// First 4 KiB page, counted from the start of the BAR.
        first_page: u32,
        /// Number of 4 KiB pages.
        pages: u32,
        /// IS_NON_TEE_MEM: shared from now on.
        non_tee: bool,
    },
    /// A P2P stream was bound to a TDI in RUN, or taken from it. For the record only.
    P2pStream {
        /// Function number.
        function: usize,
        /// The stream.
        stream: StreamIndex,
        /// Whether it is bound now.
        bound: bool,
    },
    /// An IDE stream became secure or insecure.
    StreamSecure {
        /// The stream.
        stream: StreamIndex,
        /// Its stream id at that moment.
        stream_id: u8,
        /// Why it is not secure any more; `None` if it is now.
        lost: Option<InsecureCause>,
    },
    /// LOCK was accepted although no key of the stream is in use ([`super::KeysAtLock::Rehearsed`]). For the record only.
    LockedWithoutKeys {
        /// Function number.
        function: usize,
        /// The stream that it is bound to.
        stream: StreamIndex,
    },
    /// A TDISP request was refused; the error is in the response. For the record only.
    Refused {
        /// Code of the request, 0 if there was not even a header.
        request: MessageCode,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a TDI changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// LOCK_INTERFACE_REQUEST was accepted.
    Locked,
    /// START_INTERFACE_REQUEST carried the right nonce.
    Started,
    /// STOP_INTERFACE_REQUEST.
    Stopped,
    /// The IDE stream the TDI is bound to is not secure any more.
    StreamInsecure(StreamIndex, InsecureCause),
    /// The SPDM session that locked the TDI is over, with its stream's keys.
    SessionEnded,
    /// Software wrote a register that LOCK froze.
    ConfigurationWritten(LockedRegister),
    /// Function level reset.
    FunctionReset,
    /// Conventional reset.
    ConventionalReset,
    /// Something inside the device, or on its link.
    Fault(Fault),
}

/// Faults that are not configuration writes (facts of PCIe 6.1 §11.2.1: events that lead to ERROR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The function was given another requester id.
    RequesterIdChanged,
    /// A poisoned TLP, or an internal integrity error, met TVM data.
    DataIntegrity,
    /// An unsupported request, completer abort or completion timeout that could not be recovered from.
    UnrecoverableCompletion,
    /// An ATS translation completion with an unexpected T bit.
    TranslationT,
    /// Firmware was updated, or debug unlocked.
    DeviceCompromised,
    /// The host did something that it should not do with a locked TDI, and the device is told to be strict.
    HostSequence,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("LOCK_INTERFACE_REQUEST accepted"),
            Self::Started => f.write_str("START_INTERFACE_REQUEST with the right nonce"),
            Self::Stopped => f.write_str("STOP_INTERFACE_REQUEST"),
            Self::StreamInsecure(stream, cause) => write!(f, "{stream} became insecure: {cause}"),
            Self::SessionEnded => f.write_str("the SPDM session that holds the stream's keys ended"),
            Self::ConfigurationWritten(register) => write!(f, "{register} written while locked"),
            Self::FunctionReset => f.write_str("function level reset"),
            Self::ConventionalReset => f.write_str("conventional reset"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequesterIdChanged => "the requester id changed",
            Self::DataIntegrity => "an integrity error met TVM data",
            Self::UnrecoverableCompletion => "a completion failed beyond recovery",
            Self::TranslationT => "an ATS completion had an unexpected T bit",
            Self::DeviceCompromised => "firmware was updated or debug unlocked",
            Self::HostSequence => "the host did something out of order",
        })
    }
}

impl fmt::Display for InsecureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled or renamed in its control register",
            Self::KeyStopped => "K_SET_STOP",
            Self::KeyReplaced => "KEY_PROG over a key in use",
            Self::SessionEnded => "the SPDM session that programmed its keys ended",
            Self::IntegrityFailure => "integrity check failed",
            Self::LinkDown => "link down",
            Self::RegisterWritten => "a register was rewritten while a TDI was bound",
            Self::Reset => "conventional reset",
            Self::FirmwareUpdated => "the device's firmware was updated",
        })
    }
}
