//! What requests are answered.

use core::time::Duration;
use std::os::fd::OwnedFd;

use mmio::{Exported, FileAccess};
use serde::Serialize;
use spdm::responder::{Origin as SpdmOrigin, SessionView};
use spdm::secured::Protection;
use tdisp::ide::{KeyState, StreamView};
use tdisp::wire::ide_km::KeySet;
use tdisp::wire::{LockFlags, LockRequest};
use tdispd_proto::control::{
    Binding, Command, Dmabuf, Failure, FailureCode, Hex, Keys, Origin, Outcome, Session, State, Stream, Tdi,
    Watching,
};

use super::recorder::{Recorder, milliseconds};
use super::report;
use crate::device::{BarRegion, Device, NotExported, words};

/// What a command is answered.
#[derive(Debug)]
pub struct Answered {
    /// The reply.
    pub outcome: Outcome,
    /// What goes with it.
    pub descriptor: Option<OwnedFd>,
}

/// Answers one command. Beginning to watch is the client's own business; here it only learns from where on.
pub fn answer(now: Duration, command: &Command, recorder: &Recorder, device: &mut Device) -> Answered {
    let mut descriptor = None;
    let answered = match command {
        Command::State {} => value(&state(now, recorder, device)),
        Command::Watch {} => value(&Watching { sequence: recorder.sequence() }),
        Command::ReportGet { function, lock_flags, mmio_reporting_offset } => {
            let lock = LockRequest {
                flags: LockFlags::from_bits(lock_flags.0),
                mmio_reporting_offset: mmio_reporting_offset.0,
                ..LockRequest::default()
            };
            report::get(device, *function, &lock).and_then(|report| value(&report))
        }
        Command::ReportSet { function, report } => {
            report::set(device, *function, report).and_then(|report| value(&report))
        }
        Command::ReportReset { function } => {
            report::reset(device, *function).and_then(|report| value(&report))
        }
        Command::Dmabuf { function, bar, tee, ranges, read_only } => {
            let asked: Vec<_> = ranges.iter().map(|range| (range.offset.0, range.length.0)).collect();
            let access = if *read_only { FileAccess::ReadOnly } else { FileAccess::ReadWrite };
            let region = BarRegion::new(*bar, *tee).ok_or(NotExported::NoBar);
            match region.and_then(|region| device.export(*function, region, &asked, access)) {
                Ok(Exported { fd, kind }) => {
                    descriptor = Some(fd);
                    let size = asked.iter().map(|(_, length)| length).sum();
                    value(&Dmabuf { size, file: words::file_kind(kind).into() })
                }
                Err(error) => Err(Failure { code: error.code(), message: error.to_string() }),
            }
        }
    };
    Answered { outcome: answered.map_or_else(Outcome::Error, Outcome::Result), descriptor }
}

fn value(value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure { code: FailureCode::Internal, message: error.to_string() })
}

fn state(now: Duration, recorder: &Recorder, device: &Device) -> State {
    State {
        tdispd: env!("CARGO_PKG_VERSION").into(),
        sequence: recorder.sequence(),
        milliseconds: milliseconds(now),
        tdis: (0..device.functions()).map(|function| tdi(function, recorder, device)).collect(),
        streams: device.dsm().ide().streams().map(|view| stream(&view)).collect(),
        sessions: device.responder().sessions().map(session).collect(),
        key_manager: device.dsm().key_manager().map(Hex),
    }
}

fn tdi(function: usize, recorder: &Recorder, device: &Device) -> Tdi {
    let dsm = device.dsm();
    let binding = dsm.binding(function).map(|binding| Binding {
        session: Hex(binding.session),
        stream: words::stream_name(binding.stream),
        stream_id: binding.lock.default_stream_id,
        p2p_streams: binding.p2p.iter().copied().map(words::stream_name).collect(),
        keys: words::key_use(binding.keys),
        lock_flags: Hex(binding.lock.flags.into_bits()),
        mmio_reporting_offset: Hex(binding.lock.mmio_reporting_offset),
        report_length: dsm.report(function).map_or(0, <[u8]>::len),
    });
    Tdi {
        function,
        function_id: Hex(dsm.function_id(function).0),
        state: words::state(dsm.state(function)),
        binding,
        last_transition: recorder.last_transition(function).cloned(),
        report_override: dsm.report_override(function).map(words::override_form),
        gate: device.gate_counts(function),
        gate_cells: device.gate_cells(function),
    }
}

fn stream(view: &StreamView) -> Stream {
    let (keys, key_set) = match view.keys {
        KeyState::Incomplete => (Keys::Incomplete, None),
        KeyState::Mixed => (Keys::Mixed, None),
        KeyState::Complete(KeySet::Zero) => (Keys::Complete, Some(0)),
        KeyState::Complete(KeySet::One) => (Keys::Complete, Some(1)),
    };
    Stream {
        name: words::stream_name(view.index),
        stream_id: view.control.stream_id(),
        enabled: view.control.enable(),
        secure: view.secure,
        default_stream: view.control.default_stream(),
        traffic_class: view.control.traffic_class(),
        tee_limited: view.control.tee_limited(),
        keys_programmed: view.programmed,
        keys,
        key_set,
    }
}

fn session(view: SessionView) -> Session {
    Session {
        session: Hex(view.id),
        established: view.established,
        version: view.version.to_string(),
        secured_version: view.secured_version.map(|version| version.to_string()),
        hash: view.hash.to_string(),
        aead: view.aead.to_string(),
        encrypted: view.protection == Protection::EncryptAndMac,
        exchange: view.exchange.map(|group| group.to_string()),
        signature: view.signature.map(|algorithm| algorithm.to_string()),
        origin: match view.origin {
            SpdmOrigin::Slot(slot) => Origin::Slot(slot),
            SpdmOrigin::PublicKey => Origin::PublicKey,
            SpdmOrigin::Psk { hint } => Origin::Psk(hint.escape_ascii().to_string()),
        },
        requester_slot: view.requester,
        heartbeat_seconds: view.heartbeat.as_secs(),
    }
}
