//! IDE_KM: every KP_ACK status, the live registers in QUERY_RESP, ownership, and what is met with silence.

use super::*;
use crate::wire::ide_km::{KeySubStream, KpAckStatus};

fn slot() -> KeySlot {
    KeySlot { set: KeySet::Zero, direction: Direction::Rx, sub_stream: SubStream::Posted }
}

fn head() -> KeyHead {
    KeyHead::new(0, STREAM_ID, slot())
}

fn with_key(head: KeyHead) -> Object<'static> {
    Object::KeyProg(head, KeyMaterial::new([0x5A; 32]))
}

/// A device whose stream has its id but no keys.
fn device() -> Device {
    let mut device = Device::new(DsmConfig::default());
    device.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
    device
}

fn status(response: Option<Vec<u8>>, expected: KeyHead) -> KpAckStatus {
    let response = response.expect("KEY_PROG is always acknowledged");
    match Object::decode(&response) {
        Ok(Object::KpAck(head)) => {
            assert_eq!(KeyHead { status: KpAckStatus::SUCCESS, ..head }, expected, "the head is echoed");
            head.status
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_slot_takes_its_own_key() {
    let mut device = device();
    for (number, slot) in (0..).zip(KeySlot::all()) {
        let head = KeyHead::new(0, STREAM_ID, slot);
        let object = Object::KeyProg(head, KeyMaterial::new([number; 32]));
        assert_eq!(status(device.ide_km(SESSION, &object), head), KpAckStatus::SUCCESS);
    }
    for (number, slot) in (0..).zip(KeySlot::all()) {
        assert_eq!(device.dsm.ide().key(STREAM, slot).unwrap().key, [number; 32]);
    }
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 12);
}

#[test]
fn every_wrong_length_is_acknowledged_as_such() {
    let mut bytes = Vec::new();
    with_key(head()).encode(&mut bytes);
    bytes.extend_from_slice(&[0; 9]);
    for length in (7..bytes.len()).filter(|length| *length != 47) {
        let mut device = device();
        let response = device.ide_km_bytes(Some(SESSION), &bytes[..length]);
        assert_eq!(status(response, head()), KpAckStatus::INCORRECT_LENGTH, "{length}");
        assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 0);
    }
    for length in 0..7 {
        assert_eq!(device().ide_km_bytes(Some(SESSION), &bytes[..length]), None, "not even a head");
    }
}

#[test]
fn ports_streams_and_sub_streams_that_are_not_there() {
    let key = |bits| KeyHead { key: KeySubStream::from_bits(bits), ..head() };
    let cases = (1..=255)
        .map(|port_index| (KeyHead { port_index, ..head() }, KpAckStatus::UNSUPPORTED_PORT_INDEX))
        .chain((3..16).map(|sub| (key(sub << 4), KpAckStatus::UNSUPPORTED_VALUE)))
        .chain([0x04, 0x08, 0x0C].map(|bits| (key(bits), KpAckStatus::UNSUPPORTED_VALUE)))
        .chain(
            [0, 1, 4, 6, 255]
                .map(|stream_id| (KeyHead { stream_id, ..head() }, KpAckStatus::UNSUPPORTED_VALUE)),
        );
    let mut device = device();
    for (wrong, expected) in cases {
        assert_eq!(status(device.ide_km(SESSION, &with_key(wrong)), wrong), expected);
        assert_eq!(device.ide_km(SESSION, &Object::KSetGo(wrong)), None, "no status, no answer");
        assert_eq!(device.ide_km(SESSION, &Object::KSetStop(wrong)), None);
    }
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 0);
}

#[test]
fn the_invocation_field_must_start_at_one() {
    let mut device = device();
    for ifv in [[0, 0], [0, 2], [1, 1], [1, 0], [0, 0x0100_0000], [u32::MAX, 1]] {
        let mut material = KeyMaterial::new([1; 32]);
        material.ifv = ifv;
        let response = device.ide_km(SESSION, &Object::KeyProg(head(), material));
        assert_eq!(status(response, head()), KpAckStatus::UNSUPPORTED_VALUE, "{ifv:?}");
    }
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 0);
}

#[test]
fn further_port_indices_are_names_for_the_same_port() {
    let ports = PortConfig { max_port_index: 1, ..PortConfig::default() };
    let mut device = Device::new(DsmConfig { ports, ..DsmConfig::default() });
    for port_index in [0, 1] {
        let head = KeyHead { port_index, stream_id: 0, ..head() };
        assert_eq!(status(device.ide_km(SESSION, &with_key(head)), head), KpAckStatus::SUCCESS);
    }
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 1);
}

#[test]
fn go_and_stop_are_acknowledged_with_the_head_they_came_with() {
    let mut device = device();
    assert_eq!(device.ide_km(SESSION, &Object::KSetGo(head())), None, "no key yet");
    let ack = |device: &mut Device, object| {
        let response = device.ide_km(SESSION, &object).unwrap();
        assert_eq!(Object::decode(&response), Ok(Object::KGoStopAck(head())));
    };
    ack(&mut device, Object::KSetStop(head()));
    device.ide_km(SESSION, &with_key(head()));
    ack(&mut device, Object::KSetGo(head()));
    ack(&mut device, Object::KSetGo(head()));
    ack(&mut device, Object::KSetStop(head()));
    ack(&mut device, Object::KSetStop(head()));
    assert_eq!(device.dsm.ide().view(STREAM).unwrap().programmed, 0);
}

#[test]
fn a_stopped_stream_is_acknowledged_even_after_it_was_disabled() {
    let mut device = Device::secure();
    device.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
    for slot in KeySlot::of_set(KeySet::Zero) {
        assert!(device.ide_km(SESSION, &Object::KSetStop(KeyHead::new(0, STREAM_ID, slot))).is_some());
    }
}

#[test]
fn query_shows_the_live_registers_and_the_address() {
    let mut device = Device::secure();
    let query = |device: &mut Device| device.ide_km(SESSION, &Object::Query(0)).unwrap();
    let response = query(&mut device);
    assert_eq!(response[..7], [1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(response[7..], device.dsm.ide().image());
    assert_eq!(response[7 + 12..][..8], [1, 0, 0x40, 5, 2, 0, 0, 0], "enabled, default, id 5, secure");
    device.dsm.learn_address(0xAB18, 0x7E);
    assert_eq!(device.effects(), [], "known for the first time");
    device.dsm.ide_write(CONTROL, &[0; 4]);
    let response = query(&mut device);
    assert_eq!(response[..7], [1, 0, 0, 0x18, 0xAB, 0x7E, 0]);
    assert_eq!(response[7 + 12..][..8], [0; 8]);
    assert_eq!(device.ide_km(SESSION, &Object::Query(1)), None, "no such port");
    assert_eq!(device.ide_km_bytes(Some(SESSION), &[0, 0]), None);
    assert_eq!(device.ide_km_bytes(Some(SESSION), &[0, 0, 0, 0]), None);
}

/// Device and function number, bus and segment as QUERY_RESP has them.
fn queried_address(device: &mut Device, session: SessionId) -> [u8; 3] {
    let response = device.ide_km(session, &Object::Query(0)).unwrap();
    [response[3], response[4], response[5]]
}

#[test]
fn a_conventional_reset_forgets_the_address_that_lock_told() {
    let mut device = Device::in_state(RUN);
    assert_eq!(queried_address(&mut device, SESSION), [0, 0xAB, 0]);
    device.dsm.function_reset(0);
    assert_eq!(queried_address(&mut device, SESSION), [0, 0xAB, 0], "function level reset leaves the bus");
    device.dsm.conventional_reset();
    device.effects();
    assert_eq!(queried_address(&mut device, OTHER), [0, 0, 0]);
    assert_eq!(device.dsm.function_id(0), FunctionId::new(0, None));
    // On another bus now: that is no change of address that a TDI would have to fall for.
    device.set_up_stream(OTHER);
    let moved = FunctionId::new(0xCD18, Some(3));
    assert!(matches!(device.send_as(OTHER, moved.into(), lock_request()), Got::Locked(_)));
    assert_eq!(device.dsm.state(0), LOCKED);
    assert_eq!(queried_address(&mut device, OTHER), [0x18, 0xCD, 3]);
}

#[test]
fn a_conventional_reset_brings_the_configured_address_back() {
    let ports = PortConfig { address: Some((0x0108, 1)), ..PortConfig::default() };
    let mut device = Device::new(DsmConfig { ports, ..DsmConfig::default() });
    assert_eq!(queried_address(&mut device, SESSION), [8, 1, 1]);
    device.dsm.learn_address(0xAB18, 0x7E);
    assert_eq!(queried_address(&mut device, SESSION), [0x18, 0xAB, 0x7E]);
    device.dsm.conventional_reset();
    assert_eq!(queried_address(&mut device, SESSION), [8, 1, 1]);
}

#[test]
fn one_session_owns_key_management_until_it_ends() {
    for claim in [Object::Query(0), with_key(head())] {
        let mut device = device();
        assert!(device.ide_km(SESSION, &claim).is_some());
        let objects = [Object::Query(0), with_key(head()), Object::KSetGo(head()), Object::KSetStop(head())];
        for object in &objects {
            assert_eq!(device.ide_km(OTHER, object), None);
        }
        device.dsm.session_ended(OTHER);
        assert_eq!(device.ide_km(OTHER, &Object::Query(0)), None);
        device.dsm.session_ended(SESSION);
        for object in &objects {
            assert!(device.ide_km(OTHER, object).is_some());
        }
        assert_eq!(device.dsm.key_manager(), Some(OTHER));
    }
}

#[test]
fn outside_of_a_session_and_without_the_capability_there_is_no_answer() {
    let mut query = Vec::new();
    Object::Query(0).encode(&mut query);
    assert_eq!(device().ide_km_bytes(None, &query), None);
    let ide = crate::ide::IdeConfig { key_management: false, ..Default::default() };
    let mut device = Device::new(DsmConfig { ide, ..DsmConfig::default() });
    assert_eq!(device.ide_km_bytes(Some(SESSION), &query), None);
}

#[test]
fn responses_and_unknown_objects_are_not_answered() {
    let mut device = device();
    for object in [Object::KpAck(head()), Object::KGoStopAck(head())] {
        assert_eq!(device.ide_km(SESSION, &object), None);
    }
    for id in 7..=255 {
        assert_eq!(device.ide_km_bytes(Some(SESSION), &[id; 47]), None);
    }
    assert_eq!(device.dsm.key_manager(), None, "nothing of this claims key management");
}
