//! What LOCK_INTERFACE_REQUEST checks before anything changes (PCIe 6.1 §11.3.8), in the order in which a
//! requester learns of it: flags, stream and keys, configuration, entropy.

use crate::SessionId;
use crate::ide::{Ide, KeyState, StreamIndex};
use crate::wire::{FunctionId, LockRequest, NONCE_LENGTH, Nonce};

use super::config::{DefaultStream, DsmConfig, KeysAtLock, ReservedFields};
use super::refusal::Refusal;
use super::report;
use super::report_override::{ReportOverride, report_bytes};
use super::tdi::Binding;
use super::view::{BarView, FunctionView};

/// Who asks for LOCK, what for, and how.
pub(super) struct Asked<'a> {
    pub(super) request: &'a LockRequest,
    pub(super) function_id: FunctionId,
    pub(super) session: SessionId,
}

/// Everything that LOCK needs, or the first reason to refuse it.
pub(super) fn prepare(
    config: &DsmConfig,
    ide: &Ide,
    view: &FunctionView,
    says: Option<&ReportOverride>,
    asked: &Asked<'_>,
    random: &mut dyn FnMut(&mut [u8]) -> bool,
) -> Result<(Box<Binding>, Nonce), Refusal> {
    let Asked { request, function_id, session } = *asked;
    let unsupported = request.flags.beyond(config.lock_flags);
    if !unsupported.is_empty() {
        return Err(Refusal::LockFlags(unsupported.into_bits()));
    }
    if request.reserved != 0 && config.reserved_fields == ReservedFields::Reject {
        return Err(Refusal::Reserved("LOCK_INTERFACE_REQUEST"));
    }
    let (stream, keys) = check_stream(config, ide, request.default_stream_id, session)?;
    check_configuration(view, config)?;
    check_modes(view, request)?;
    let ranges = report::ranges(view, request, config.unlocked_msix);
    let report = report_bytes(says, view, request, &ranges)?;
    let mut bytes = zeroize::Zeroizing::new([0; NONCE_LENGTH]);
    if !random(bytes.as_mut_slice()) {
        return Err(Refusal::Entropy);
    }
    let binding =
        Binding { session, stream, keys, lock: *request, function_id, ranges, report, p2p: Vec::new() };
    Ok((Box::new(binding), Nonce::new(*bytes)))
}

/// The stream must be the default one, a selective one with traffic class 0, secure, all six keys of one set in use, and
/// those programmed through the session that carries LOCK; and no two streams may claim to be the default. Where
/// the configuration says so, keys that were rehearsed stand in for keys in use.
fn check_stream(
    config: &DsmConfig,
    ide: &Ide,
    stream_id: u8,
    session: SessionId,
) -> Result<(StreamIndex, KeysAtLock), Refusal> {
    let stream = ide.find(stream_id).ok_or(Refusal::NoStream(stream_id))?;
    let view = ide.view(stream).ok_or(Refusal::NoStream(stream_id))?;
    if matches!(stream, StreamIndex::Link(_)) {
        return Err(Refusal::NotSelective(stream));
    }
    let defaults = ide.streams().filter(|view| view.control.default_stream());
    if defaults.count() > 1 {
        return Err(Refusal::SeveralDefaultStreams);
    }
    if !view.control.default_stream() && config.default_stream == DefaultStream::Required {
        return Err(Refusal::NotDefault(stream));
    }
    let traffic_class = view.control.traffic_class();
    if traffic_class != 0 {
        return Err(Refusal::TrafficClass(stream, traffic_class));
    }
    match view.keys {
        KeyState::Complete(_) => {}
        KeyState::Mixed | KeyState::Incomplete => {
            let rehearsed = config.keys_at_lock == KeysAtLock::Rehearsed && ide.rehearsed(stream, session);
            return match (rehearsed, view.control.enable()) {
                (true, true) => Ok((stream, KeysAtLock::Rehearsed)),
                (true, false) => Err(Refusal::StreamInsecure(stream)),
                (false, _) => Err(Refusal::Keys(stream)),
            };
        }
    }
    if !ide.keys_from(stream, session) {
        return Err(Refusal::KeysOfAnotherSession(stream));
    }
    if !view.secure {
        return Err(Refusal::StreamInsecure(stream));
    }
    Ok((stream, KeysAtLock::InUse))
}

fn check_configuration(view: &FunctionView, config: &DsmConfig) -> Result<(), Refusal> {
    if view.phantom_functions {
        return Err(Refusal::PhantomFunctions);
    }
    for bar in &view.bars {
        if bar.address.is_none() && config.bars_must_be_assigned {
            return Err(Refusal::BarUnassigned(bar.index));
        }
        if !bar.size_supported {
            return Err(Refusal::BarSize(bar.index));
        }
        if bar.address.is_some() && span(bar).is_none() {
            return Err(Refusal::BarRange(bar.index));
        }
        check_ranges(bar)?;
    }
    for (position, bar) in view.bars.iter().enumerate() {
        for other in view.bars.iter().skip(position + 1) {
            if overlap(span(bar), span(other)) {
                return Err(Refusal::BarsOverlap(bar.index, other.index));
            }
        }
    }
    if let Some(rom) = view.rom.filter(|rom| rom.enabled) {
        let rom = last_byte(rom.address, rom.size).map(|last| (rom.address, last));
        if let Some(bar) = view.bars.iter().find(|bar| overlap(rom, span(bar))) {
            return Err(Refusal::RomOverlap(bar.index));
        }
    }
    Ok(())
}

/// The LN requester's cache lines must be the host's, and the steering tag mode one that there is.
fn check_modes(view: &FunctionView, request: &LockRequest) -> Result<(), Refusal> {
    const LN_ENABLE: u16 = 1 << 0;
    const LN_128_BYTES: u16 = 1 << 1;
    const TPH_ENABLE: u32 = 0b11 << 8;
    const TPH_MODE: u32 = 0b111;
    let lines_of_128 = view.lnr_control & LN_128_BYTES != 0;
    if view.lnr_control & LN_ENABLE != 0 && lines_of_128 != request.flags.system_cache_line_size() {
        return Err(Refusal::CacheLineSize(if lines_of_128 { 128 } else { 64 }));
    }
    // Bit n of the capability register says that mode n is there (PCIe 6.1 §7.9.13.2, §7.9.13.3).
    let mode = view.tph_control & TPH_MODE;
    if view.tph_control & TPH_ENABLE != 0 && (mode > 2 || view.tph_capability & (1 << mode) == 0) {
        return Err(Refusal::TphMode(mode as u8));
    }
    Ok(())
}

/// Ranges must follow each other without a gap from the first page of the BAR to its last.
fn check_ranges(bar: &BarView) -> Result<(), Refusal> {
    let wrong = Refusal::RangeLayout(bar.index);
    let mut next = 0_u64;
    for range in &bar.ranges {
        if range.pages == 0 || u64::from(range.first_page) != next {
            return Err(wrong);
        }
        next += u64::from(range.pages);
    }
    if next == bar.size.div_ceil(4096) { Ok(()) } else { Err(wrong) }
}

fn last_byte(address: u64, size: u64) -> Option<u64> {
    address.checked_add(size.checked_sub(1)?)
}

fn span(bar: &BarView) -> Option<(u64, u64)> {
    let address = bar.address?;
    let decoded = if bar.aliased { bar.size.checked_mul(2)? } else { bar.size };
    Some((address, last_byte(address, decoded)?))
}

fn overlap(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> bool {
    match (one, other) {
        (Some((first, last)), Some((other_first, other_last))) => first <= other_last && other_first <= last,
        (None, _) | (_, None) => false,
    }
}
