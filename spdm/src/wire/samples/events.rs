//! Event types, subscriptions and events. The lists have the layout of what libspdm's tests make
//! (`unit_test/spdm_unit_test_common/event_support.c`, `unit_test/test_spdm_requester/encap_event_ack.c`).

use super::*;

pub(super) fn samples() -> Vec<Sample> {
    vec![
        sample("GET_SUPPORTED_EVENT_TYPES", "13e20000", again!(GetSupportedEventTypes::parse)),
        sample(
            "SUPPORTED_EVENT_TYPES",
            "13620100 1a000000 0000 0400 0100 00000000 01000000 02000000 03000000 04000000",
            again!(SupportedEventTypes::parse),
        ),
        sample(
            "SUPPORTED_EVENT_TYPES of two groups",
            "13620200 1e000000 0000 0100 0100 00000000 01000000 0302b41a 0100 0700 00000000 09000000",
            again!(SupportedEventTypes::parse),
        ),
        sample("SUBSCRIBE_EVENT_TYPES to none", "13f00000", again!(SubscribeEventTypes::parse)),
        sample(
            "SUBSCRIBE_EVENT_TYPES to all of a group",
            "13f00100 0a000000 0000 0000 0100 01000000",
            again!(SubscribeEventTypes::parse),
        ),
        sample(
            "SUBSCRIBE_EVENT_TYPES",
            "13f00100 12000000 0000 0200 0100 00000000 01000000 04000000",
            again!(SubscribeEventTypes::parse),
        ),
        sample("SUBSCRIBE_EVENT_TYPES_ACK", "13700000", again!(SubscribeEventTypesAck::parse)),
        sample(
            "SEND_EVENT of EventLost",
            "13f10000 01000000 44332211 00000000 0000 0100 0800 ccddeeff 88776655",
            again!(SendEvent::parse),
        ),
        sample(
            "SEND_EVENT",
            "13f10000 04000000 07000000 00000000 0000 0400 0100 05 \
             06000000 00000000 0000 0200 2000 02 00*31 05000000 00000000 0000 0300 2000 00*31 40 \
             08000000 00000000 0302b41a 0900 0300 aabbcc",
            again!(SendEvent::parse),
        ),
        sample("EVENT_ACK", "13710000", again!(EventAck::parse)),
    ]
}

#[test]
fn illegal_fields_are_named() {
    names_illegal_fields(&[
        ("SUPPORTED_EVENT_TYPES", "number of event groups", 2, 0),
        ("SUPPORTED_EVENT_TYPES", "event group registry", 2, 2),
        // One type fewer than the list has room for.
        ("SUPPORTED_EVENT_TYPES", "end of message", 10, 3),
        ("SUPPORTED_EVENT_TYPES", "event type", 10, 5),
        ("SUPPORTED_EVENT_TYPES", "event group list", 4, 0x1b),
        ("SUBSCRIBE_EVENT_TYPES", "event group vendor id", 9, 0x20),
        ("SUBSCRIBE_EVENT_TYPES", "reserved", 4, 0x11),
        ("SEND_EVENT of EventLost", "number of events", 4, 0),
        ("SEND_EVENT of EventLost", "event instance id", 4, 2),
        ("SEND_EVENT of EventLost", "event instance id", 7, 0xFF),
        ("SEND_EVENT of EventLost", "event type", 18, 0),
        ("SEND_EVENT of EventLost", "event type", 18, 5),
        ("SEND_EVENT of EventLost", "event type", 19, 1),
        ("SEND_EVENT of EventLost", "last lost event", 20, 7),
        ("SEND_EVENT of EventLost", "event detail", 20, 9),
        ("SEND_EVENT of EventLost", "event detail length", 18, 4),
        // A gap in the instance ids, and one id twice.
        ("SEND_EVENT", "event instance id", 8, 9),
        ("SEND_EVENT", "event instance id", 8, 6),
    ]);
}

/// DSP0274 1.3 "Registry or standards body ID": DMTF assigns none.
#[test]
fn dmtf_has_no_vendor_id() {
    let bytes = hex("13f10000 01000000 00000000 00000000 0002aabb 0400 0100 05");
    let error = SendEvent::parse(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.field, "event group vendor id");
}

#[test]
fn instance_ids_do_not_wrap_within_a_message() {
    let event = |id: &str| format!("{id} 00000000 0000 0400 0100 05 ");
    let bytes = hex(&format!("13f10000 02000000 {}{}", event("ffffffff"), event("00000000")));
    let error = SendEvent::parse(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.field, "event instance id");
}

/// A count of four billion costs nothing.
#[test]
fn the_message_bounds_the_list() {
    let mut bytes = hex("13f10000 ffffffff");
    bytes.extend(hex("00000000 00000000 0000 0400 0100 05"));
    assert!(SendEvent::parse(&mut Reader::new(&bytes)).is_err());
}

#[test]
fn sets_of_measurements_have_a_bit_each() {
    let set = MeasurementSet::from_iter([1, 254, 8]);
    assert_eq!(set.iter().collect::<Vec<_>>(), [1, 8, 254]);
    assert_eq!((set.0[0], set.0[1], set.0[31]), (2, 1, 0x40));
    assert!(set.contains(254) && !set.contains(0) && !set.contains(255));
    assert_eq!(format!("{set:?}"), "{1, 8, 254}");
}

#[test]
fn an_unwieldy_list_is_not_written() {
    let group = EventGroup { id: EventGroupId::DMTF, version: 1, all: false, types: Vec::new() };
    let mut out = Vec::new();
    let many = vec![group.clone(); 256];
    let error = SubscribeEventTypes { version: Version::V1_3, groups: many }.encode(&mut out);
    assert_eq!(error, Err(EncodeError("event groups")));
    let vendor_id = vec![0; 256];
    let long = EventGroup { id: EventGroupId { registry: 3, vendor_id }, ..group };
    let error = SubscribeEventTypes { version: Version::V1_3, groups: vec![long] }.encode(&mut out);
    assert_eq!(error, Err(EncodeError("event group vendor id")));
}
