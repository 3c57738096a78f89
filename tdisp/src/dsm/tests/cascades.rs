//! What follows from what: sessions, streams, configuration writes, resets, over several TDIs.

use super::*;
use crate::ide::{IdeConfig, InsecureCause};

/// Four functions in RUN, LOCKED, UNLOCKED and ERROR, all on one stream.
fn four() -> Device {
    let mut device = Device::with_stream(DsmConfig { functions: 4, ..DsmConfig::default() });
    for (function, state) in [RUN, LOCKED, UNLOCKED, ERROR].into_iter().enumerate() {
        device.bring(function, state);
    }
    device
}

fn states(device: &Device) -> Vec<TdiState> {
    (0..4).map(|function| device.dsm.state(function)).collect()
}

const FALLEN: [TdiState; 4] = [ERROR, ERROR, UNLOCKED, ERROR];

fn insecure(cause: InsecureCause) -> Effect {
    Effect::StreamSecure { stream: STREAM, stream_id: STREAM_ID, lost: Some(cause) }
}

#[test]
fn the_end_of_the_session_is_the_end_of_its_tdis() {
    let mut device = four();
    device.dsm.session_ended(SESSION);
    assert_eq!(states(&device), FALLEN);
    let mut expected = fell(0, RUN, Cause::SessionEnded);
    expected.extend(fell(1, LOCKED, Cause::SessionEnded));
    expected.push(insecure(InsecureCause::SessionEnded));
    assert_eq!(device.effects(), expected);
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 0);
    device.set_up_stream(OTHER);
    assert_eq!(states(&device), FALLEN, "new keys heal nothing");
}

#[test]
fn a_stream_that_fails_takes_every_tdi_along_that_is_bound_to_it() {
    let causes = [InsecureCause::IntegrityFailure, InsecureCause::LinkDown];
    for cause in causes {
        let mut device = four();
        device.dsm.stream_failed(STREAM, cause);
        assert_eq!(states(&device), FALLEN);
        let why = Cause::StreamInsecure(STREAM, cause);
        let expected = [vec![insecure(cause)], fell(0, RUN, why), fell(1, LOCKED, why)].concat();
        assert_eq!(device.effects(), expected);
    }
    let mut device = four();
    device.dsm.link_down();
    assert_eq!(states(&device), FALLEN);
}

#[test]
fn stopping_or_replacing_a_key_in_use_is_a_failure_of_the_stream() {
    let head = KeyHead::new(0, STREAM_ID, KeySlot::of_set(KeySet::Zero).last().unwrap());
    for object in [Object::KSetStop(head), Object::KeyProg(head, KeyMaterial::new([1; 32]))] {
        let mut device = four();
        assert!(device.ide_km(SESSION, &object).is_some());
        assert_eq!(states(&device), FALLEN);
    }
}

#[test]
fn a_key_refresh_disturbs_nobody() {
    let mut device = four();
    let before = states(&device);
    device.key_all(SESSION, KeySet::One);
    for slot in KeySlot::of_set(KeySet::Zero) {
        device.ide_km(SESSION, &Object::KSetStop(KeyHead::new(0, STREAM_ID, slot)));
    }
    assert_eq!((states(&device), device.effects()), (before, vec![]));
}

#[test]
fn writes_to_the_ide_registers_of_a_bound_stream() {
    // (offset, value, does it fall)
    let table: [(u16, u32, bool); 12] = [
        (CONTROL, ENABLED, false),
        (CONTROL, ENABLED | 2 << 19, true),
        (CONTROL, ENABLED & !0x0040_0000, true),
        (CONTROL, SET_UP, true),
        (0x0C, u32::MAX, false),
        (0x14, 0x8000_0000, false),
        (0x18, 0x0000_0100, true),
        (0x1C, 0x0000_0001, true),
        (0x20, 0x0000_0001, true),
        (0x24, 0x0000_0001, true),
        (0x28, 0x0000_0001, true),
        (0x18, 0, false),
    ];
    for (offset, value, falls) in table {
        let mut device = four();
        let before = states(&device);
        device.dsm.ide_write(offset, &value.to_le_bytes());
        let expected = if falls { FALLEN.to_vec() } else { before };
        assert_eq!(states(&device), expected, "{value:#010x} at {offset:#x}");
    }
    let config = DsmConfig { same_value_write: SameValueWrite::Error, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    device.bring(0, RUN);
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    assert_eq!(device.dsm.state(0), ERROR, "the stricter reading of a write that changes nothing");
}

#[test]
fn another_stream_may_be_written_and_may_fail() {
    let ide = IdeConfig { selective_streams: 2, link_streams: 1, ..IdeConfig::default() };
    let mut device = Device::new(DsmConfig { ide, ..DsmConfig::default() });
    let control = |device: &Device, index| {
        device.dsm.ide().config().stream_control_offset(StreamIndex::Selective(index)).unwrap()
    };
    let (bound, other) = (control(&device, 0), control(&device, 1));
    device.dsm.ide_write(bound, &ENABLED.to_le_bytes());
    device.key_all(SESSION, KeySet::Zero);
    device.bring(0, RUN);
    for offset in (other..other + 0x20).step_by(4) {
        device.dsm.ide_write(offset, &0x0900_0001_u32.to_le_bytes());
    }
    device.dsm.ide_write(0x0C, &u32::MAX.to_le_bytes());
    device.dsm.ide_write(0x08, &u32::MAX.to_le_bytes());
    device.dsm.stream_failed(StreamIndex::Selective(1), InsecureCause::IntegrityFailure);
    device.dsm.stream_failed(StreamIndex::Selective(9), InsecureCause::IntegrityFailure);
    assert_eq!((device.dsm.state(0), device.effects()), (RUN, vec![]));
}

#[test]
fn writes_to_frozen_registers() {
    use LockedRegister::*;
    let always = [
        Bar(3),
        ExpansionRom,
        Bist,
        DeviceControl,
        PowerState,
        ResizableBar,
        VfResizableBar,
        EnhancedAllocation,
        Ari,
        Pasid,
        Multicast,
        PageRequest,
        SrIov,
        MemorySpaceCleared,
        BusMasterCleared,
    ];
    for state in [LOCKED, RUN] {
        for register in always {
            let mut device = Device::in_state(state);
            device.dsm.config_written(0, ConfigWrite { register, changed: true });
            assert_eq!(device.effects(), fell(0, state, Cause::ConfigurationWritten(register)));
        }
    }
}

#[test]
fn the_settings_for_writes() {
    let write = |config: DsmConfig, flags, write| {
        let mut device = Device::with_stream(config);
        assert!(matches!(device.send(lock_with(flags)), Got::Locked(_)));
        device.dsm.config_written(0, write);
        device.dsm.state(0)
    };
    let (none, msix) = (LockFlags::new(), LockFlags::new().with_lock_msix(true));
    let (strict, lenient) = (
        || DsmConfig { same_value_write: SameValueWrite::Error, ..DsmConfig::default() },
        || DsmConfig { command_clear: CommandClear::Lenient, ..DsmConfig::default() },
    );
    let of = |register, changed| ConfigWrite { register, changed };
    let bar = LockedRegister::Bar(0);
    assert_eq!(write(DsmConfig::default(), none, of(bar, false)), LOCKED);
    assert_eq!(write(strict(), none, of(bar, false)), ERROR);
    assert_eq!(write(DsmConfig::default(), none, of(LockedRegister::MsiX, true)), LOCKED);
    assert_eq!(write(DsmConfig::default(), msix, of(LockedRegister::MsiX, true)), ERROR);
    for register in [LockedRegister::MemorySpaceCleared, LockedRegister::BusMasterCleared] {
        assert_eq!(write(lenient(), none, of(register, true)), LOCKED);
        assert_eq!(write(lenient(), none, of(register, true)), LOCKED);
    }
    assert_eq!(write(lenient(), none, of(bar, true)), ERROR);
}

#[test]
fn events_of_one_function_leave_the_others_alone() {
    let mut device = four();
    device.dsm.function_reset(1);
    assert_eq!(states(&device), [RUN, ERROR, UNLOCKED, ERROR]);
    device.dsm.config_written(2, ConfigWrite { register: LockedRegister::Bist, changed: true });
    device.dsm.fault(3, Fault::TranslationT);
    device.dsm.function_reset(99);
    device.dsm.config_written(99, ConfigWrite { register: LockedRegister::Bist, changed: true });
    device.dsm.function_conventional_reset(99);
    assert_eq!(states(&device), [RUN, ERROR, UNLOCKED, ERROR]);
    device.effects();
    device.dsm.function_conventional_reset(3);
    let expected = [
        Effect::StopDma { function: 3 },
        Effect::Scrub { function: 3 },
        changed(3, ERROR, UNLOCKED, Cause::ConventionalReset),
    ];
    assert_eq!(device.effects(), expected);
    assert_eq!(states(&device), [RUN, ERROR, UNLOCKED, UNLOCKED]);
}

#[test]
fn a_function_level_reset_leaves_session_and_stream_alive() {
    let mut device = Device::in_state(RUN);
    device.dsm.function_reset(0);
    assert_eq!(device.effects(), fell(0, RUN, Cause::FunctionReset));
    assert!(device.dsm.ide().view(STREAM).unwrap().secure);
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    device.bring(0, RUN);
}

#[test]
fn a_conventional_reset_leaves_nothing() {
    let mut device = four();
    let fresh = Device::new(DsmConfig::default());
    device.dsm.conventional_reset();
    assert_eq!(states(&device), [UNLOCKED; 4]);
    assert_eq!(device.dsm.ide().image(), fresh.dsm.ide().image());
    assert_eq!(device.dsm.key_manager(), None);
    let effects = device.effects();
    for (function, from) in [(0, RUN), (1, LOCKED), (3, ERROR)] {
        let scrub = effects.iter().position(|effect| *effect == Effect::Scrub { function }).unwrap();
        let told = changed(function, from, UNLOCKED, Cause::ConventionalReset);
        assert!(effects.iter().position(|effect| *effect == told).unwrap() > scrub);
    }
    assert!(!effects.contains(&Effect::Scrub { function: 2 }), "it never held anything of a TVM");
    assert_eq!(effects.last(), Some(&insecure(InsecureCause::Reset)));
}

#[test]
fn many_tdis_are_locked_started_and_stopped_on_their_own() {
    let mut device = Device::with_stream(DsmConfig { functions: 256, ..DsmConfig::default() });
    let nonces: Vec<Nonce> = (0..256).map(|function| device.lock(function)).collect();
    for (function, nonce) in nonces.iter().enumerate().rev() {
        assert_eq!(device.send_to(function, Request::Start(nonce.clone())), Got::Started);
    }
    assert_eq!(device.send_to(77, Request::Stop), Got::Stopped);
    for function in 0..256 {
        assert_eq!(device.dsm.state(function), if function == 77 { UNLOCKED } else { RUN });
    }
    device.dsm.session_ended(SESSION);
    assert!(
        (0..256).all(|function| device.dsm.state(function) == if function == 77 { UNLOCKED } else { ERROR })
    );
}

#[test]
fn effects_of_a_whole_life() {
    let mut device = Device::new(DsmConfig::default());
    device.set_up_stream(SESSION);
    let nonce = device.lock(0);
    assert_eq!(device.send(Request::Start(nonce)), Got::Started);
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    let expected = [
        Effect::StreamSecure { stream: STREAM, stream_id: STREAM_ID, lost: None },
        Effect::StopDma { function: 0 },
        changed(0, UNLOCKED, LOCKED, Cause::Locked),
        changed(0, LOCKED, RUN, Cause::Started),
        Effect::StopDma { function: 0 },
        Effect::Scrub { function: 0 },
        changed(0, RUN, UNLOCKED, Cause::Stopped),
    ];
    assert_eq!(device.effects(), expected);
    assert!(device.dsm.ide().view(STREAM).unwrap().secure, "STOP unbinds the stream, it does not end it");
}

#[test]
fn causes_read_like_sentences() {
    let cause = Cause::StreamInsecure(STREAM, InsecureCause::KeyStopped);
    assert_eq!(cause.to_string(), "selective stream 0 became insecure: K_SET_STOP");
    let cause = Cause::ConfigurationWritten(LockedRegister::Bar(2));
    assert_eq!(cause.to_string(), "BAR 2 written while locked");
}

#[test]
fn lock_tells_where_the_device_is() {
    let query = |device: &mut Device| {
        let response = device.ide_km(SESSION, &Object::Query(0)).unwrap();
        (u16::from_be_bytes([response[4], response[3]]), response[5])
    };
    let lock = |device: &mut Device, id: u32| {
        let got = device.send_as(SESSION, FunctionId(id).into(), lock_request());
        assert!(matches!(got, Got::Locked(_)), "{id:#x}");
    };
    let mut device = Device::with_stream(DsmConfig { functions: 4, ..DsmConfig::default() });
    assert_eq!(query(&mut device), (0, 0));
    lock(&mut device, 0x0312);
    assert_eq!(query(&mut device), (0x0310, 0), "function 2 is at 3:2.2");
    lock(&mut device, 0x0102_0311);
    assert_eq!(query(&mut device), (0x0310, 2), "and in segment 2");
    assert_eq!((device.dsm.state(1), device.dsm.state(2)), (LOCKED, LOCKED), "nobody contradicted that");
    device.effects();
    // The device was moved: whoever was locked at its old place is not there any more.
    lock(&mut device, 0x0400);
    assert_eq!(query(&mut device), (0x0400, 2));
    assert_eq!([0, 1, 2, 3].map(|function| device.dsm.state(function)), [LOCKED, ERROR, ERROR, UNLOCKED]);
    let cause = Cause::Fault(Fault::RequesterIdChanged);
    let told: Vec<_> =
        device.effects().into_iter().filter(|effect| !matches!(effect, Effect::StopDma { .. })).collect();
    assert_eq!(
        told,
        [
            changed(0, UNLOCKED, LOCKED, Cause::Locked),
            changed(1, LOCKED, ERROR, cause),
            changed(2, LOCKED, ERROR, cause)
        ]
    );

    // What the configuration tells stands.
    let ports = PortConfig { address: Some((0x0800, 7)), ..PortConfig::default() };
    let mut device = Device::with_stream(DsmConfig { ports, ..DsmConfig::default() });
    lock(&mut device, 0x0300);
    assert_eq!(query(&mut device), (0x0800, 7));
}

#[test]
fn all_of_256_interfaces_live_their_own_lives() {
    let mut device = Device::with_stream(DsmConfig { functions: 256, ..DsmConfig::default() });
    let state_of = |function: usize| [UNLOCKED, LOCKED, RUN, ERROR][function % 4];
    for function in 0..256 {
        device.bring(function, state_of(function));
    }
    for function in 0..256 {
        assert_eq!(device.send_to(function, Request::GetState), Got::State(state_of(function)));
        let bound = matches!(function % 4, 1 | 2);
        assert_eq!(device.dsm.report(function).is_some(), bound, "{function}");
    }
    let addresses: std::collections::BTreeSet<_> =
        (0..256).filter_map(|function| device.dsm.report(function)).map(<[u8]>::to_vec).collect();
    assert_eq!(addresses.len(), 128, "each reports its own pages");
    device.dsm.session_ended(SESSION);
    for function in 0..256 {
        let expected = if function % 4 == 0 { UNLOCKED } else { ERROR };
        assert_eq!(device.dsm.state(function), expected, "{function}");
    }
}

#[test]
fn a_firmware_update_ends_what_is_locked_unless_that_forbids_it() {
    let no_update = LockFlags::new().with_no_fw_update(true);
    for state in STATES {
        for (flags, at_run_time) in
            [(LockFlags::new(), false), (LockFlags::new(), true), (no_update, false), (no_update, true)]
        {
            let mut device = Device::secure();
            device.flags = flags;
            device.bring(0, state);
            let bound = state == LOCKED || state == RUN;
            let result = device.dsm.update_firmware(at_run_time);
            let forbidden = bound && flags == no_update;
            assert_eq!(result, if forbidden { Err(0) } else { Ok(()) }, "{state}, {at_run_time}");
            let falls = bound && !forbidden && !at_run_time;
            assert_eq!(device.dsm.state(0), if falls { ERROR } else { state });
            let secure = device.dsm.ide().view(STREAM).unwrap().secure;
            assert_eq!(secure, forbidden || at_run_time, "{state}, {at_run_time}");
        }
    }
}
