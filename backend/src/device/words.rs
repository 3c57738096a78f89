//! What the cores say, in the words of the log and of the control socket.

use mmio::{FileKind, Revocation, TdiPhase};
use spdm::responder::EndReason;
use tdisp::dsm::{Cause, Effect, KeysAtLock, ReportOverride};
use tdisp::ide::{InsecureCause, StreamIndex};
use tdisp::wire::TdiState as State;
use tdispd_proto::control::{Happening, Hex, KeyUse, OverrideForm, StreamKind, StreamName, TdiState};

/// Every effect that is told; `None` for work that follows from one that is.
pub(crate) fn effect(effect: &Effect) -> Option<Happening> {
    Some(match effect {
        Effect::StateChanged { function, from, to, cause } => Happening::Transition {
            function: *function,
            from: state(*from),
            to: state(*to),
            cause: cause_name(*cause).into(),
            text: cause.to_string(),
        },
        Effect::Scrub { .. } | Effect::StopDma { .. } | Effect::DrainDma { .. } => return None,
        Effect::MmioAttribute { function, bar, first_page, pages, non_tee } => Happening::MmioAttribute {
            function: *function,
            bar: *bar,
            first_page: *first_page,
            pages: *pages,
            non_tee: *non_tee,
        },
        Effect::P2pStream { function, stream, bound } => {
            Happening::P2pStream { function: *function, stream: stream_name(*stream), bound: *bound }
        }
        Effect::StreamSecure { stream, stream_id, lost: None } => {
            Happening::StreamSecure { stream: stream_name(*stream), stream_id: *stream_id }
        }
        Effect::StreamSecure { stream, stream_id, lost: Some(cause) } => Happening::StreamInsecure {
            stream: stream_name(*stream),
            stream_id: *stream_id,
            cause: insecure_name(*cause).into(),
            text: cause.to_string(),
        },
        Effect::LockedWithoutKeys { function, stream } => {
            Happening::LockedWithoutKeys { function: *function, stream: stream_name(*stream) }
        }
        Effect::Refused { request, refusal } => Happening::Refused {
            request: request.to_string(),
            code: refusal.code().to_string(),
            text: refusal.to_string(),
        },
    })
}

/// The end of a session.
pub(crate) fn session_ended(id: u32, reason: EndReason) -> Happening {
    let name = match reason {
        EndReason::Requested => "requested",
        EndReason::HeartbeatLost => "heartbeat-lost",
        EndReason::Restarted => "restarted",
        EndReason::Reset => "reset",
        EndReason::FirmwareUpdated => "firmware-updated",
        EndReason::Unauthentic => "unauthentic",
        EndReason::Exhausted => "exhausted",
    };
    Happening::SessionEnded { session: Hex(id), reason: name.into(), text: reason.to_string() }
}

pub(crate) fn state(state: State) -> TdiState {
    match state {
        State::CONFIG_UNLOCKED => TdiState::ConfigUnlocked,
        State::CONFIG_LOCKED => TdiState::ConfigLocked,
        State::RUN => TdiState::Run,
        // The DSM knows no other.
        _ => TdiState::Error,
    }
}

/// The state that a phase is of.
pub(crate) const fn phase(phase: TdiPhase) -> TdiState {
    match phase {
        TdiPhase::Unlocked => TdiState::ConfigUnlocked,
        TdiPhase::Locked => TdiState::ConfigLocked,
        TdiPhase::Run => TdiState::Run,
        TdiPhase::Error => TdiState::Error,
    }
}

pub(crate) const fn stream_name(stream: StreamIndex) -> StreamName {
    match stream {
        StreamIndex::Link(index) => StreamName { kind: StreamKind::Link, index },
        StreamIndex::Selective(index) => StreamName { kind: StreamKind::Selective, index },
    }
}

pub(crate) const fn key_use(keys: KeysAtLock) -> KeyUse {
    match keys {
        KeysAtLock::InUse => KeyUse::InUse,
        KeysAtLock::Rehearsed => KeyUse::Rehearsed,
    }
}

pub(crate) const fn override_form(says: &ReportOverride) -> OverrideForm {
    match says {
        ReportOverride::Exact(_) => OverrideForm::Exact,
        ReportOverride::Edited(_) => OverrideForm::Edited,
    }
}

pub(crate) const fn revocation(how: Revocation) -> &'static str {
    match how {
        Revocation::Orphan => "orphan",
        Revocation::Sigbus => "sigbus",
        Revocation::Keep => "keep",
    }
}

pub(crate) const fn file_kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Memfd => "memfd",
        FileKind::DmaBuf => "udmabuf",
    }
}

const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Locked => "locked",
        Cause::Started => "started",
        Cause::Stopped => "stopped",
        Cause::StreamInsecure(..) => "stream-insecure",
        Cause::SessionEnded => "session-ended",
        Cause::ConfigurationWritten(_) => "configuration-written",
        Cause::FunctionReset => "function-reset",
        Cause::ConventionalReset => "conventional-reset",
        Cause::Fault(_) => "fault",
    }
}

const fn insecure_name(cause: InsecureCause) -> &'static str {
    match cause {
        InsecureCause::Disabled => "disabled",
        InsecureCause::KeyStopped => "key-stopped",
        InsecureCause::KeyReplaced => "key-replaced",
        InsecureCause::SessionEnded => "session-ended",
        InsecureCause::IntegrityFailure => "integrity-failure",
        InsecureCause::LinkDown => "link-down",
        InsecureCause::RegisterWritten => "register-written",
        InsecureCause::Reset => "reset",
        InsecureCause::FirmwareUpdated => "firmware-updated",
    }
}
