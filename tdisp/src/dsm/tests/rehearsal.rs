//! LOCK where keys need only have been rehearsed: what counts as that, what does not, and what ends such a binding.

use super::*;
use crate::ide::{IdeConfig, InsecureCause, SecureOrder};

fn rehearsing() -> DsmConfig {
    DsmConfig { keys_at_lock: KeysAtLock::Rehearsed, ..DsmConfig::default() }
}

/// A device that takes a rehearsal, its stream enabled, without any key yet.
fn device() -> Device {
    let mut device = Device::new(rehearsing());
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    device.effects();
    device
}

fn program(slot: KeySlot) -> Object<'static> {
    Object::KeyProg(KeyHead::new(0, STREAM_ID, slot), KeyMaterial::new([7; 32]))
}

fn start(slot: KeySlot) -> Object<'static> {
    Object::KSetGo(KeyHead::new(0, STREAM_ID, slot))
}

fn stop(slot: KeySlot) -> Object<'static> {
    Object::KSetStop(KeyHead::new(0, STREAM_ID, slot))
}

/// A LOCK that is refused for want of keys.
fn refused(device: &mut Device, what: &str) {
    device.effects();
    assert_eq!(device.send(lock_request()), INVALID_REQUEST, "{what}");
    assert_eq!(device.refusal(), Refusal::Keys(STREAM), "{what}");
    assert_eq!(device.dsm.state(0), UNLOCKED);
}

fn locked(device: &mut Device) {
    device.effects();
    device.lock(0);
    assert_eq!(device.dsm.binding(0).unwrap().keys, KeysAtLock::Rehearsed);
    let told = Effect::LockedWithoutKeys { function: 0, stream: STREAM };
    assert_eq!(
        device.effects(),
        [Effect::StopDma { function: 0 }, changed(0, UNLOCKED, LOCKED, Cause::Locked), told]
    );
}

#[test]
fn a_rehearsal_counts_only_where_it_is_asked_for() {
    let mut device = device();
    device.rehearse(SESSION);
    locked(&mut device);

    let mut strict = Device::new(DsmConfig::default());
    strict.rehearse(SESSION);
    refused(&mut strict, "keys have to be in use by default");
}

#[test]
fn keys_in_use_count_as_ever() {
    let mut device = Device::with_stream(rehearsing());
    device.lock(0);
    assert_eq!(device.dsm.binding(0).unwrap().keys, KeysAtLock::InUse);
    assert!(!device.effects().iter().any(|effect| matches!(effect, Effect::LockedWithoutKeys { .. })));
}

#[test]
fn every_step_of_the_rehearsal_has_to_be_there() {
    let [rx, tx] = pair();
    let mut device = device();
    refused(&mut device, "no key was ever programmed");
    for (object, what) in [
        (program(rx), "programmed, not started"),
        (program(tx), "two programmed, not started"),
        (start(rx), "one started"),
        (start(tx), "both in use"),
        (stop(rx), "one still in use"),
    ] {
        assert!(device.ide_km(SESSION, &object).is_some());
        refused(&mut device, what);
    }
    assert!(device.ide_km(SESSION, &stop(tx)).is_some());
    locked(&mut device);
}

#[test]
fn a_key_that_was_never_started_or_came_later_spoils_it() {
    let [rx, tx] = pair();
    let mut device = device();
    device.rehearse(SESSION);
    for object in [program(rx), stop(rx)] {
        assert!(device.ide_km(SESSION, &object).is_some());
        refused(&mut device, "this key was not started");
    }
    for object in [program(rx), start(rx), program(tx), start(tx), stop(tx)] {
        assert!(device.ide_km(SESSION, &object).is_some());
        refused(&mut device, "not everything is stopped");
    }
    assert!(device.ide_km(SESSION, &stop(rx)).is_some());
    locked(&mut device);
}

#[test]
fn five_keys_in_use_are_neither() {
    let mut device = device();
    let slots: Vec<KeySlot> = KeySlot::of_set(KeySet::One).collect();
    for slot in &slots[..5] {
        device.ide_km(SESSION, &program(*slot));
        device.ide_km(SESSION, &start(*slot));
        refused(&mut device, "fewer than six");
    }
    for slot in &slots[..5] {
        refused(&mut device, "fewer than six, and not all stopped");
        device.ide_km(SESSION, &stop(*slot));
    }
    locked(&mut device);
}

#[test]
fn all_six_can_be_rehearsed_though_the_first_stop_wipes_them() {
    let mut device = Device::with_stream(rehearsing());
    for slot in KeySlot::of_set(KeySet::Zero) {
        assert!(device.ide_km(SESSION, &stop(slot)).is_some());
        if slot != KeySlot::of_set(KeySet::Zero).last().unwrap() {
            refused(&mut device, "the others were not stopped by the requester");
        }
    }
    locked(&mut device);
}

#[test]
fn another_session_inherits_nothing() {
    let mut device = device();
    device.rehearse(OTHER);
    refused(&mut device, "rehearsed by another session");
    device.dsm.session_ended(OTHER);
    refused(&mut device, "that session is gone");
    let [rx, _] = pair();
    assert!(device.ide_km(SESSION, &program(rx)).is_some());
    refused(&mut device, "not started");
    device.rehearse(SESSION);
    locked(&mut device);
}

#[test]
fn a_session_that_ended_has_rehearsed_nothing() {
    let mut device = device();
    device.rehearse(SESSION);
    device.dsm.session_ended(SESSION);
    refused(&mut device, "the id was given to a new session");
}

#[test]
fn the_stream_has_to_be_enabled() {
    let mut device = device();
    device.rehearse(SESSION);
    device.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
    device.effects();
    assert_eq!(device.send(lock_request()), INVALID_REQUEST);
    assert_eq!(device.refusal(), Refusal::StreamInsecure(STREAM));
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    locked(&mut device);
}

#[test]
fn a_stream_that_was_renamed_or_reset_starts_from_nothing() {
    let mut device = device();
    device.rehearse(SESSION);
    device.dsm.ide_write(CONTROL, &(ENABLED ^ 0x0100_0000).to_le_bytes());
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    refused(&mut device, "the keys were another stream's");
    device.rehearse(SESSION);
    device.dsm.conventional_reset();
    device.dsm.ide_write(CONTROL, &ENABLED.to_le_bytes());
    refused(&mut device, "reset");
}

#[test]
fn what_ends_the_stream_ends_the_binding_though_no_key_was_in_use() {
    type End = fn(&mut Dsm);
    let table: [(End, Option<InsecureCause>); 7] = [
        (|dsm| dsm.ide_write(CONTROL, &SET_UP.to_le_bytes()), Some(InsecureCause::RegisterWritten)),
        (|dsm| dsm.ide_write(CONTROL, &0x0640_0001_u32.to_le_bytes()), Some(InsecureCause::RegisterWritten)),
        (|dsm| dsm.ide_write(0x18, &[0, 1, 0, 0]), Some(InsecureCause::RegisterWritten)),
        (|dsm| dsm.link_down(), Some(InsecureCause::LinkDown)),
        (
            |dsm| dsm.stream_failed(STREAM, InsecureCause::IntegrityFailure),
            Some(InsecureCause::IntegrityFailure),
        ),
        (|dsm| dsm.ide_write(CONTROL, &ENABLED.to_le_bytes()), None),
        (|dsm| dsm.stream_failed(StreamIndex::Selective(1), InsecureCause::IntegrityFailure), None),
    ];
    for (number, (end, cause)) in table.into_iter().enumerate() {
        let ide = IdeConfig { selective_streams: 2, ..IdeConfig::default() };
        let mut device = Device::new(DsmConfig { ide, ..rehearsing() });
        device.rehearse(SESSION);
        locked(&mut device);
        end(&mut device.dsm);
        let expected =
            cause.map_or(Vec::new(), |cause| fell(0, LOCKED, Cause::StreamInsecure(STREAM, cause)));
        assert_eq!(device.effects(), expected, "{number}");
        assert_eq!(device.dsm.state(0), if cause.is_some() { ERROR } else { LOCKED }, "{number}");
    }
}

#[test]
fn keys_that_come_after_the_lock_bind_it_again() {
    let ide = IdeConfig { secure_order: SecureOrder::AtLastGo, ..IdeConfig::default() };
    let mut device = Device::new(DsmConfig { ide, ..rehearsing() });
    device.rehearse(SESSION);
    locked(&mut device);
    device.key_all(SESSION, KeySet::Zero);
    assert!(device.dsm.ide().view(STREAM).unwrap().secure);
    assert_eq!(device.dsm.state(0), LOCKED);
    device.ide_km(SESSION, &stop(pair()[0]));
    assert_eq!(device.dsm.state(0), ERROR);
}
