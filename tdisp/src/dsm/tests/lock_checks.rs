//! Each check of LOCK, the reason it gives, and that a refused LOCK leaves everything as it was.

use super::*;
use crate::wire::ErrorCode as Code;

/// Refuses LOCK for `reason`, with `code`, and takes a LOCK again once the cause is gone.
fn refused(device: &mut Device, request: Request<'_>, reason: Refusal, code: Code) {
    device.effects();
    assert_eq!(device.send(request), Got::Error(code, 0), "{reason}");
    assert_eq!(device.refusal(), reason);
    assert_eq!((device.dsm.state(0), device.dsm.binding(0)), (UNLOCKED, None));
}

#[test]
fn flags_that_are_not_offered() {
    for bit in (0..16).filter(|bit| ![0, 2].contains(bit)) {
        let flags = LockFlags::from_bits(1 << bit);
        let mut device = Device::secure();
        refused(&mut device, lock_with(flags), Refusal::LockFlags(1 << bit), Code::INVALID_REQUEST);
    }
    let all = LockFlags::new()
        .with_no_fw_update(true)
        .with_system_cache_line_size(true)
        .with_lock_msix(true)
        .with_bind_p2p(true)
        .with_all_request_redirect(true);
    let mut device = Device::with_stream(DsmConfig { lock_flags: all, ..DsmConfig::default() });
    assert!(matches!(device.send(lock_with(all)), Got::Locked(_)));
    assert_eq!(device.dsm.binding(0).unwrap().lock.flags, all);
}

#[test]
fn the_reserved_byte() {
    let request = LockRequest { reserved: 1, default_stream_id: STREAM_ID, ..LockRequest::default() };
    assert!(matches!(Device::secure().send(Request::Lock(request)), Got::Locked(_)));
    let config = DsmConfig { reserved_fields: ReservedFields::Reject, ..DsmConfig::default() };
    let reason = Refusal::Reserved("LOCK_INTERFACE_REQUEST");
    refused(&mut Device::with_stream(config), Request::Lock(request), reason, Code::INVALID_REQUEST);
}

#[test]
fn a_stream_id_that_no_stream_has() {
    let request = Request::Lock(LockRequest { default_stream_id: 9, ..LockRequest::default() });
    refused(&mut Device::secure(), request, Refusal::NoStream(9), Code::INVALID_REQUEST);
}

#[test]
fn a_link_stream() {
    let ide = crate::ide::IdeConfig { link_streams: 1, ..Default::default() };
    let mut device = Device::new(DsmConfig { ide, ..DsmConfig::default() });
    device.dsm.ide_write(0x0C, &ENABLED.to_le_bytes());
    device.key_all(SESSION, KeySet::Zero);
    let reason = Refusal::NotSelective(StreamIndex::Link(0));
    refused(&mut device, lock_request(), reason, Code::INVALID_REQUEST);
}

#[test]
fn two_default_streams() {
    let ide = crate::ide::IdeConfig { selective_streams: 2, ..Default::default() };
    let mut device = Device::with_stream(DsmConfig { ide, ..DsmConfig::default() });
    device.dsm.ide_write(0x30, &0x0640_0000_u32.to_le_bytes());
    refused(&mut device, lock_request(), Refusal::SeveralDefaultStreams, Code::INVALID_REQUEST);
    device.dsm.ide_write(0x30, &0x0600_0000_u32.to_le_bytes());
    device.lock(0);
}

#[test]
fn a_stream_that_is_not_the_default_one() {
    const OTHERWISE: u32 = ENABLED & !(1 << 22);
    let set_up = |default_stream| {
        let mut device = Device::new(DsmConfig { default_stream, ..DsmConfig::default() });
        device.dsm.ide_write(CONTROL, &OTHERWISE.to_le_bytes());
        device.key_all(SESSION, KeySet::Zero);
        device
    };
    let mut device = set_up(DefaultStream::Required);
    refused(&mut device, lock_request(), Refusal::NotDefault(STREAM), Code::INVALID_REQUEST);
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    device.lock(0);
    set_up(DefaultStream::Any).lock(0);
}

#[test]
fn a_traffic_class_other_than_0() {
    let mut device = Device::secure();
    device.dsm.ide_write(CONTROL, &(ENABLED | 3 << 19).to_le_bytes());
    refused(&mut device, lock_request(), Refusal::TrafficClass(STREAM, 3), Code::INVALID_REQUEST);
}

#[test]
fn keys_that_are_missing_waiting_or_of_two_sets() {
    let reason = Refusal::Keys(STREAM);
    let mut device = Device::new(DsmConfig::default());
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    refused(&mut device, lock_request(), reason, Code::INVALID_REQUEST);

    let slots: Vec<KeySlot> = KeySlot::of_set(KeySet::One).collect();
    for (count, slot) in slots.iter().enumerate() {
        refused(&mut device, lock_request(), reason, Code::INVALID_REQUEST);
        let head = KeyHead::new(0, STREAM_ID, *slot);
        device.ide_km(SESSION, &Object::KeyProg(head, KeyMaterial::new([1; 32])));
        refused(&mut device, lock_request(), reason, Code::INVALID_REQUEST);
        device.ide_km(SESSION, &Object::KSetGo(head)).unwrap_or_else(|| panic!("key {count}"));
    }
    device.key_all(SESSION, KeySet::Zero);
    let head = KeyHead::new(0, STREAM_ID, slots[0]);
    device.ide_km(SESSION, &Object::KSetGo(head)).unwrap();
    refused(&mut device, lock_request(), reason, Code::INVALID_REQUEST);
    for slot in &slots {
        device.ide_km(SESSION, &Object::KSetGo(KeyHead::new(0, STREAM_ID, *slot))).unwrap();
    }
    device.lock(0);
}

#[test]
fn keys_of_another_session() {
    let mut device = Device::new(DsmConfig::default());
    device.set_up_stream(OTHER);
    refused(&mut device, lock_request(), Refusal::KeysOfAnotherSession(STREAM), Code::INVALID_REQUEST);
    device.dsm.session_ended(OTHER);
    device.set_up_stream(SESSION);
    device.lock(0);
}

#[test]
fn a_stream_that_is_not_enabled() {
    let mut device = Device::new(DsmConfig::default());
    device.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
    device.key_all(SESSION, KeySet::Zero);
    refused(&mut device, lock_request(), Refusal::StreamInsecure(STREAM), Code::INVALID_REQUEST);
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    device.lock(0);
}

#[test]
fn configurations_that_cannot_be_locked() {
    type Spoil = fn(&mut FunctionView);
    let table: [(Spoil, Refusal); 19] = [
        (|f| f.lnr_control = 0b11, Refusal::CacheLineSize(128)),
        (|f| f.tph_control = 0x100, Refusal::TphMode(0)),
        (|f| (f.tph_control, f.tph_capability) = (0x301, 0b101), Refusal::TphMode(1)),
        (|f| (f.tph_control, f.tph_capability) = (0x102, 0b011), Refusal::TphMode(2)),
        (|f| (f.tph_control, f.tph_capability) = (0x103, 0b1111), Refusal::TphMode(3)),
        (|f| f.phantom_functions = true, Refusal::PhantomFunctions),
        (|f| f.bars[1].address = None, Refusal::BarUnassigned(0)),
        (|f| f.bars[0].size_supported = false, Refusal::BarSize(2)),
        (|f| f.bars[0].address = Some(0xFFFF_FFFF_FFFF_1000), Refusal::BarRange(2)),
        (|f| f.bars[1].address = f.bars[0].address, Refusal::BarsOverlap(2, 0)),
        (|f| f.bars[1].address = f.bars[0].address.map(|a| a + 0xF000), Refusal::BarsOverlap(2, 0)),
        (|f| f.bars[2].address = f.bars[1].address, Refusal::BarsOverlap(0, 4)),
        (|f| f.bars[2].address = f.bars[1].address.map(|a| a + 0xFFF), Refusal::BarsOverlap(0, 4)),
        (|f| f.rom.as_mut().unwrap().address = f.bars[2].address.unwrap() + 0x1000, Refusal::RomOverlap(4)),
        (|f| f.rom.as_mut().unwrap().address = f.bars[1].address.unwrap() - 0xF000, Refusal::RomOverlap(0)),
        (|f| f.bars[0].ranges[1].first_page = 13, Refusal::RangeLayout(2)),
        (|f| f.bars[0].ranges[1].pages = 5, Refusal::RangeLayout(2)),
        (|f| f.bars[0].ranges.clear(), Refusal::RangeLayout(2)),
        (|f| f.device_info = vec![0; 0x1_0000], Refusal::ReportTooLong(crate::wire::ReportTooLong(65_604))),
    ];
    for (spoil, reason) in table {
        let mut device = Device::secure();
        spoil(&mut device.functions[0]);
        refused(&mut device, lock_request(), reason, Code::INVALID_DEVICE_CONFIGURATION);
        device.functions[0] = function(0);
        device.lock(0);
    }
}

#[test]
fn modes_that_fit() {
    let flags = LockFlags::new().with_system_cache_line_size(true);
    let config = DsmConfig { lock_flags: flags, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    device.functions[0].lnr_control = 0b01;
    refused(&mut device, lock_with(flags), Refusal::CacheLineSize(64), Code::INVALID_DEVICE_CONFIGURATION);
    device.functions[0].lnr_control = 0b11;
    let view = &mut device.functions[0];
    (view.tph_control, view.tph_capability) = (0x101, 0b010);
    assert!(matches!(device.send(lock_with(flags)), Got::Locked(_)));
}

#[test]
fn what_is_close_but_does_not_overlap() {
    let mut device = Device::secure();
    let view = &mut device.functions[0];
    let end = view.bars[0].address.map(|address| address + view.bars[0].size);
    view.bars[1].address = end;
    view.rom.as_mut().unwrap().address = end.unwrap() + 0x1000;
    device.lock(0);

    let mut device = Device::secure();
    let view = &mut device.functions[0];
    *view.rom.as_mut().unwrap() =
        RomView { address: view.bars[0].address.unwrap(), size: 0x1000, enabled: false };
    device.lock(0);
}

#[test]
fn bars_need_no_address_where_there_is_no_configuration_space() {
    let mut device = Device::with_stream(DsmConfig { bars_must_be_assigned: false, ..DsmConfig::default() });
    for bar in &mut device.functions[0].bars {
        bar.address = None;
    }
    device.lock(0);
}

#[test]
fn no_entropy() {
    let mut device = Device::secure();
    device.entropy = false;
    refused(&mut device, lock_request(), Refusal::Entropy, Code::INSUFFICIENT_ENTROPY);
    device.entropy = true;
    device.lock(0);
}

#[test]
fn the_state_is_judged_before_anything_else_of_lock() {
    for state in [LOCKED, RUN, ERROR] {
        let mut device = Device::in_state(state);
        device.functions[0].phantom_functions = true;
        device.entropy = false;
        assert_eq!(device.send(lock_with(LockFlags::from_bits(0xFFFF))), INVALID_STATE);
        assert_eq!(device.dsm.state(0), state);
    }
}

#[test]
fn lock_drains_dma_before_its_answer() {
    let mut device = Device::secure();
    device.lock(0);
    assert_eq!(
        device.effects(),
        [Effect::StopDma { function: 0 }, changed(0, UNLOCKED, LOCKED, Cause::Locked)]
    );
}
