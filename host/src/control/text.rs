//! What the control socket tells, for people.

use std::fmt::{Display, Write};

use serde_json::Value;
use tdisp::wire::{FunctionId, InterfaceReport, LockFlags};
use tdispd_proto::control::{
    Event, Happening, KeyUse, Keys, Origin, RangeFields, Report, ReportSource, Session, State, Stream, Tdi,
};

/// One line.
pub(super) fn event(event: &Event, value: &Value) -> String {
    let what = if event.what == Happening::Unknown {
        let name = value.get("event").and_then(Value::as_str).unwrap_or("?");
        format!("{name}, which this tdispctl does not know")
    } else {
        event.what.to_string()
    };
    format!("{:>10}  {what}", seconds(event.milliseconds))
}

pub(super) fn state(state: &State) -> String {
    let mut out = Text::default();
    out.line(format_args!(
        "tdispd {}, {} after its start, {} events",
        state.tdispd,
        seconds(state.milliseconds),
        state.sequence
    ));
    for it in &state.tdis {
        tdi(&mut out, it);
    }
    for it in &state.streams {
        out.line(stream(it));
    }
    for it in &state.sessions {
        out.line(session(it));
    }
    if let Some(owner) = &state.key_manager {
        out.line(format_args!("key management belongs to session {owner}"));
    }
    out.0
}

fn tdi(out: &mut Text, tdi: &Tdi) {
    out.line(format_args!(
        "function {}: {}, FUNCTION_ID {}",
        tdi.function,
        tdi.state,
        FunctionId(tdi.function_id.0)
    ));
    if let Some(last) = &tdi.last_transition {
        out.line(format_args!("    since {}: {} (was {})", seconds(last.milliseconds), last.text, last.from));
    }
    if let Some(binding) = &tdi.binding {
        let keys = match binding.keys {
            KeyUse::InUse => "keys in use",
            KeyUse::Rehearsed => "keys only rehearsed",
        };
        out.line(format_args!(
            "    bound to session {} and {} (id {}), {keys}",
            binding.session, binding.stream, binding.stream_id
        ));
        for stream in &binding.p2p_streams {
            out.line(format_args!("    bound to {stream} for a peer"));
        }
        let flags = LockFlags::from_bits(binding.lock_flags.0);
        let names = named(&[
            (flags.no_fw_update(), "no firmware update"),
            (flags.system_cache_line_size(), "cache line 128 B"),
            (flags.lock_msix(), "MSI-X"),
            (flags.bind_p2p(), "P2P"),
            (flags.all_request_redirect(), "redirect"),
        ]);
        out.line(format_args!(
            "    LOCK flags {} ({names}), reporting offset {}, report of {} bytes",
            binding.lock_flags, binding.mmio_reporting_offset, binding.report_length
        ));
    }
    let gate = &tdi.gate;
    if gate.rejected_reads + gate.rejected_writes != 0 {
        out.line(format_args!(
            "    the gate refused {} reads and {} writes",
            gate.rejected_reads, gate.rejected_writes
        ));
    }
    if let Some(form) = &tdi.report_override {
        out.line(format_args!("    from the next LOCK on its report lies: {form}"));
    }
}

fn stream(stream: &Stream) -> String {
    let keys = match (stream.keys, stream.key_set) {
        (Keys::Complete, Some(set)) => format!("all of set {set} in use"),
        (Keys::Complete, None) => "all of one set in use".into(),
        (Keys::Mixed, _) => "both sets in use".into(),
        (Keys::Incomplete, _) => "not all in use".into(),
    };
    let flags = named(&[
        (stream.enabled, "enabled"),
        (!stream.enabled, "disabled"),
        (stream.secure, "secure"),
        (!stream.secure, "insecure"),
        (stream.default_stream, "default"),
        (stream.tee_limited, "TEE-limited"),
    ]);
    format!(
        "{}, id {}: {flags}, TC {}; {} keys, {keys}",
        stream.name, stream.stream_id, stream.traffic_class, stream.keys_programmed
    )
}

fn session(session: &Session) -> String {
    let origin = match &session.origin {
        Origin::Slot(slot) => format!("slot {slot}"),
        Origin::PublicKey => "public key".into(),
        Origin::Psk(hint) => format!("pre-shared key {hint:?}"),
    };
    let requester = match session.requester_slot {
        Some(0xFF) => "requester authenticated by its public key".into(),
        Some(slot) => format!("requester authenticated by slot {slot}"),
        None => "requester not authenticated".to_owned(),
    };
    let secured = session.secured_version.as_deref().unwrap_or("of no version");
    let algorithms = [
        Some(session.hash.as_str()),
        Some(session.aead.as_str()),
        session.exchange.as_deref(),
        session.signature.as_deref(),
        (!session.encrypted).then_some("authenticated only"),
        (!session.established).then_some("in its handshake"),
    ];
    let algorithms: Vec<_> = algorithms.into_iter().flatten().collect();
    let heartbeat = match session.heartbeat_seconds {
        0 => "no heartbeat".into(),
        seconds => format!("heartbeat {seconds} s"),
    };
    format!(
        "session {}: SPDM {}, secured messages {secured}; {}; {origin}, {requester}, {heartbeat}",
        session.session,
        session.version,
        algorithms.join(", ")
    )
}

pub(super) fn report(report: &Report) -> String {
    let mut out = Text::default();
    let source = match report.source {
        ReportSource::Locked => "fixed at LOCK",
        ReportSource::NextLock => "as the next LOCK gives it",
    };
    out.line(format_args!("report of function {}, {source}: {} bytes", report.function, report.hex.0.len()));
    if let Some(form) = &report.report_override {
        out.line(format_args!("    from the next LOCK on it lies: {form}"));
    }
    match (InterfaceReport::decode(&report.hex.0), &report.report) {
        (Ok(decoded), Some(fields)) => {
            for (name, value) in crate::walk::report_facts(&decoded) {
                out.line(format_args!("  {name:<28}{value}"));
            }
            out.line(format_args!("  {:<28}{:>18} {:>10}  id  access", "range", "address", "pages"));
            let places = fields.ranges.as_deref().unwrap_or_default();
            for (range, fields) in decoded.ranges.iter().zip(places) {
                let bits = range.attributes;
                let access = named(&[
                    (!bits.non_tee(), "private"),
                    (bits.non_tee(), "shared"),
                    (bits.updatable(), "updatable"),
                    (bits.msix_table(), "MSI-X table"),
                    (bits.msix_pba(), "MSI-X PBA"),
                    (bits.reserved() != 0, "reserved bits set"),
                ]);
                out.line(format_args!(
                    "  {:<28}{:>#18x} {:>10}  {:>2}  {access}",
                    place(fields),
                    range.first_page.wrapping_mul(4096),
                    range.pages,
                    range.range_id
                ));
            }
        }
        (Err(error), _) => out.line(format_args!("  no report: {error}")),
        (Ok(_), None) => out.line("  a report whose fields the device does not tell"),
    }
    out.line(format_args!("  {}", crate::output::hex(&report.hex.0)));
    out.0
}

fn place(fields: &RangeFields) -> String {
    match (fields.bar, fields.first_page) {
        (Some(bar), first) => format!("BAR {bar}, page {}", first.unwrap_or(0)),
        (None, _) => "in no BAR".into(),
    }
}

/// Lines, without the last newline.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: impl Display) {
        let separator = if self.0.is_empty() { "" } else { "\n" };
        // A String takes whatever is written.
        let _ = write!(self.0, "{separator}{line}");
    }
}

fn named(flags: &[(bool, &'static str)]) -> String {
    let names: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}
