//! Event types, subscriptions and events: in every state, malformed, delivered, refused, lost.

use super::device::*;
use crate::codec::Reader;
use crate::responder::notifier::QUEUE_LIMIT;
use crate::responder::*;
use crate::wire::*;

fn notifying() -> ResponderConfig {
    let mut config = config();
    config.versions = Version::IMPLEMENTED.to_vec();
    config.capabilities.events = true;
    config
}

fn device(version: Version) -> Device {
    let mut device = Device::with(notifying(), version);
    device.flags |= RequesterFlags::ENCAP;
    device.negotiate();
    device
}

fn group(all: bool, types: &[u16]) -> EventGroup {
    EventGroup { id: EventGroupId::DMTF, version: 1, all, types: types.to_vec() }
}

fn subscription(version: Version, groups: Vec<EventGroup>) -> Vec<u8> {
    encoded(|out| SubscribeEventTypes { version, groups }.encode(out).unwrap())
}

/// A session that has subscribed to everything.
fn subscribed(version: Version) -> (Device, Client) {
    let mut device = device(version);
    let mut client = device.establish();
    let request = subscription(version, vec![group(true, &[])]);
    assert_eq!(client.send(&mut device, &request), device.simple(Code::SUBSCRIBE_EVENT_TYPES_ACK));
    (device, client)
}

fn value(text: &str) -> MeasurementValue {
    MeasurementValue::Raw(text.into())
}

/// The events of ENCAPSULATED_REQUEST, and its number.
fn asked(client: &mut Client, device: &mut Device) -> (u8, Vec<EventData>) {
    let response = client.simple(device, Code::GET_ENCAPSULATED_REQUEST);
    let request = EncapsulatedRequest::parse(&mut Reader::new(&response)).unwrap();
    (request.id, events(request.request))
}

fn events(message: &[u8]) -> Vec<EventData> {
    let mut reader = Reader::new(message);
    let body = SendEvent::parse(&mut reader).unwrap();
    reader.finish(0).unwrap();
    body.events
}

fn deliver(client: &mut Client, device: &mut Device, id: u8, response: &[u8]) -> Vec<u8> {
    let version = device.version;
    let request = encoded(|out| DeliverEncapsulatedResponse { version, id, response }.encode(out));
    client.send(device, &request)
}

/// All events that wait, acknowledged.
fn drain(client: &mut Client, device: &mut Device) -> Vec<Vec<EventData>> {
    let ack = device.simple(Code::EVENT_ACK);
    let (mut id, first) = asked(client, device);
    let mut messages = vec![first];
    loop {
        let response = deliver(client, device, id, &ack);
        let body = EncapsulatedResponseAck::parse(&mut Reader::new(&response)).unwrap();
        assert_eq!(body.acknowledged, id);
        match body.next {
            Continuation::Done => return messages,
            Continuation::Request { id: next, request } => {
                id = next;
                messages.push(events(request));
            }
            Continuation::Slot(_) => panic!(),
        }
    }
}

/// From now on the requester takes no more than this at once.
fn shrink(device: &mut Device, transfer: u32) {
    device.responder.core.connection.negotiated().unwrap().peer.data_transfer_size = transfer;
}

fn nothing_waits(client: &mut Client, device: &mut Device) {
    let request = device.simple(Code::GET_ENCAPSULATED_REQUEST);
    assert_eq!(client.error(device, &request), (ErrorCode::NO_PENDING_REQUESTS, 0));
}

#[test]
fn requests_belong_into_sessions_of_responders_that_have_events() {
    const V1_3: Version = Version::V1_3;
    for version in [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4] {
        let all = subscription(version, vec![group(true, &[])]);
        let requests = |device: &Device| [device.simple(Code::GET_SUPPORTED_EVENT_TYPES), all.clone()];
        for notifies in [true, false] {
            let mut config = notifying();
            config.capabilities.events = notifies;
            let mut device = Device::with(config, version);
            device.negotiate();
            let works = notifies && version >= V1_3;
            for request in requests(&device) {
                let unsupported = (ErrorCode::UNSUPPORTED_REQUEST, request[1]);
                let expected = |error| if works { (error, 0) } else { unsupported };
                assert_eq!(device.error(&request), expected(ErrorCode::SESSION_REQUIRED), "{version}");
                let mut client = device.begin();
                let early = client.error(&mut device, &request);
                assert_eq!(early, expected(ErrorCode::UNEXPECTED_REQUEST), "{version}");
                client.finish(&mut device);
                let response = client.send(&mut device, &request);
                if works {
                    assert_eq!(response[1], request[1] & 0x7F, "{version}");
                } else {
                    assert_eq!(response, [version.0, 0x7F, 7, request[1]], "{version}");
                }
                let wrong = [&[version.0 ^ 1], &request[1..]].concat();
                if works {
                    assert_eq!(client.error(&mut device, &wrong), (ErrorCode::VERSION_MISMATCH, 0));
                }
            }
            // A requester that notifies us is none we advertised to listen to.
            let mut client = device.begin();
            client.finish(&mut device);
            let event = encoded(|out| {
                let detail = EventDetail::CertificateChanged(1);
                SendEvent { version, events: vec![EventData { instance: 0, detail }] }.encode(out).unwrap();
            });
            assert_eq!(client.error(&mut device, &event), (ErrorCode::UNSUPPORTED_REQUEST, 0xF1));
        }
    }
}

#[test]
fn the_list_has_what_the_responder_can_tell() {
    let (mut device, mut client) = subscribed(Version::V1_3);
    let request = device.simple(Code::GET_SUPPORTED_EVENT_TYPES);
    let list = [
        0x13, 0x62, 1, 0, 26, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4,
        0, 0, 0,
    ];
    assert_eq!(client.send(&mut device, &request), list);
    assert_eq!(client.error(&mut device, &[&request[..], &[0]].concat()), (ErrorCode::INVALID_REQUEST, 0));

    let mut config = notifying();
    config.capabilities.measurements = MeasurementSupport::None;
    config.capabilities.fresh_measurements = false;
    let mut device = Device::with(config, Version::V1_4);
    device.negotiate();
    let mut client = device.establish_with(SummaryType::None);
    let response = client.send(&mut device, &[0x14, 0xE2, 0, 0]);
    let body = SupportedEventTypes::parse(&mut Reader::new(&response)).unwrap();
    assert_eq!(body.groups, [group(false, &[EventDetail::EVENT_LOST, EventDetail::CERTIFICATE_CHANGED])]);
    for unknown in [EventDetail::MEASUREMENT_CHANGED, EventDetail::MEASUREMENT_PRE_UPDATE] {
        let request = subscription(Version::V1_4, vec![group(false, &[unknown])]);
        assert_eq!(client.error(&mut device, &request), (ErrorCode::INVALID_REQUEST, 0));
    }
}

/// What cannot be subscribed to, and what is no list, leaves the subscription as it was.
#[test]
fn malformed_and_unknown_subscriptions_are_refused() {
    for version in [Version::V1_3, Version::V1_4] {
        let (mut device, mut client) = subscribed(version);
        let vendor = EventGroupId { registry: 3, vendor_id: vec![1, 0] };
        let named = EventGroupId { registry: 0, vendor_id: vec![0] };
        let groups = [
            EventGroup { id: vendor, ..group(true, &[]) },
            EventGroup { id: named, ..group(true, &[]) },
            EventGroup { version: 0, ..group(true, &[]) },
            EventGroup { version: 2, ..group(false, &[1]) },
            group(false, &[0]),
            group(false, &[1, 5]),
            group(false, &[0x8001]),
            group(true, &[7]),
        ];
        let mut cases: Vec<_> = groups
            .iter()
            .flat_map(|bad| {
                [vec![bad.clone()], vec![group(true, &[]), bad.clone()], vec![bad.clone(), group(true, &[])]]
            })
            .map(|list| subscription(version, list))
            .collect();
        let good = subscription(version, vec![group(false, &[1, 4]), group(false, &[2])]);
        cases.extend((4..good.len()).map(|length| good[..length].to_vec()));
        cases.push([&good[..], &[0]].concat());
        // Groups that are not there, and groups more than the list has.
        cases.push([&[version.0, 0xF0, 0, 0], &good[4..]].concat());
        cases.push([&[version.0, 0xF0, 3, 0], &good[4..]].concat());
        cases.push([&[version.0, 0xF0, 1, 0], &good[4..]].concat());
        cases.push(vec![version.0, 0xF0, 1, 0, 0, 0, 0, 0]);
        cases.push(vec![version.0, 0xF0, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        for request in cases {
            let error = client.error(&mut device, &request);
            assert_eq!(error, (ErrorCode::INVALID_REQUEST, 0), "{version} {request:02x?}");
        }
        device.responder.announce_measurement(1, &MeasurementValue::Digest(vec![1; 32])).unwrap();
        assert_eq!(drain(&mut client, &mut device).len(), 1, "the old subscription stands");
    }
}

#[test]
fn events_come_in_order_and_go_when_they_are_acknowledged() {
    for version in [Version::V1_3, Version::V1_4] {
        let (mut device, mut client) = subscribed(version);
        nothing_waits(&mut client, &mut device);
        device.responder.change_measurement(2, &value("another")).unwrap();
        device.responder.announce_measurement(0xFE, &MeasurementValue::RawOnly(b"soon".to_vec())).unwrap();
        let expected = [
            EventData { instance: 0, detail: EventDetail::MeasurementChanged([2].into_iter().collect()) },
            EventData {
                instance: 1,
                detail: EventDetail::MeasurementPreUpdate([0xFE].into_iter().collect()),
            },
        ];
        let (id, events) = asked(&mut client, &mut device);
        assert_eq!(events, expected);
        // Meanwhile nothing else is answered, and the same question is asked of a requester that missed it.
        let busy = device.simple(Code::GET_SUPPORTED_EVENT_TYPES);
        assert_eq!(client.error(&mut device, &busy), (ErrorCode::REQUEST_IN_FLIGHT, 0));
        assert_eq!(asked(&mut client, &mut device), (id, expected.to_vec()));

        // A requester that refuses is asked again, with whatever has come since.
        let refusal = [version.0, 0x7F, ErrorCode::BUSY.0, 0];
        let response = deliver(&mut client, &mut device, id, &refusal);
        assert_eq!(response[3], 0, "the conversation is over");
        device.responder.change_measurement(2, &value("a third")).unwrap();
        let (id, events) = asked(&mut client, &mut device);
        assert_eq!(events[..2], expected);
        assert_eq!(events[2].instance, 2);

        // What is no EVENT_ACK acknowledges nothing.
        for wrong in [&[version.0, 0x71, 0, 0, 0][..], &[version.0, 0x70, 0, 0], &[version.0 ^ 1, 0x71, 0, 0]]
        {
            let response = deliver(&mut client, &mut device, id, wrong);
            assert_eq!(response, [version.0, 0x7F, ErrorCode::INVALID_RESPONSE_CODE.0, 0], "{wrong:02x?}");
            let (next, again) = asked(&mut client, &mut device);
            assert_eq!(again, events);
            assert_eq!(next, 1, "a conversation of its own");
        }
        assert_eq!(deliver(&mut client, &mut device, 1, &[version.0, 0x71, 0, 0])[3], 0);
        nothing_waits(&mut client, &mut device);
    }
}

#[test]
fn only_who_has_subscribed_is_told() {
    let version = Version::V1_3;
    let (mut device, mut all) = subscribed(version);
    let mut none = device.establish();
    let mut some = device.establish();
    let request = subscription(version, vec![group(false, &[EventDetail::MEASUREMENT_PRE_UPDATE])]);
    some.send(&mut device, &request);
    device.responder.change_measurement(2, &value("x")).unwrap();
    nothing_waits(&mut none, &mut device);
    nothing_waits(&mut some, &mut device);
    device.responder.announce_measurement(2, &value("y")).unwrap();
    nothing_waits(&mut none, &mut device);
    // Instance ids are the session's own, and one session's conversation is none of another's business.
    assert_eq!(asked(&mut some, &mut device).1[0].instance, 0);
    let instances: Vec<_> =
        drain(&mut all, &mut device).concat().iter().map(|event| event.instance).collect();
    assert_eq!(instances, [0, 1]);

    // Another subscription drops what it does not want.
    device.responder.change_measurement(2, &value("x")).unwrap();
    device.responder.announce_measurement(2, &value("y")).unwrap();
    all.send(&mut device, &request);
    let [message] = drain(&mut all, &mut device).try_into().unwrap();
    assert_eq!((message.len(), message[0].instance), (1, 3));
    all.send(&mut device, &subscription(version, Vec::new()));
    device.responder.announce_measurement(2, &value("y")).unwrap();
    nothing_waits(&mut all, &mut device);
}

/// Neither more memory than the queue's limit, nor a loss that nobody is told of.
#[test]
fn what_is_too_much_is_lost_and_the_loss_is_told() {
    let version = Version::V1_3;
    let limit = u32::try_from(QUEUE_LIMIT).unwrap();
    let (mut device, mut client) = subscribed(version);
    let change = |device: &mut Device| device.responder.change_measurement(2, &value("x")).unwrap();
    for _ in 0..limit + 5 {
        change(&mut device);
    }
    let mut messages = drain(&mut client, &mut device);
    let last = messages.pop().unwrap();
    let first = messages.concat();
    assert_eq!(first.iter().map(|event| event.instance).collect::<Vec<_>>(), Vec::from_iter(0..limit));
    let lost = EventDetail::EventLost { last_acknowledged: limit - 1, last_lost: limit + 4 };
    assert_eq!(last, [EventData { instance: limit + 5, detail: lost }]);
    change(&mut device);
    assert_eq!(drain(&mut client, &mut device)[0][0].instance, limit + 6);

    // Who does not want to hear of losses sees them in the instance ids.
    client.send(&mut device, &subscription(version, vec![group(false, &[2])]));
    for _ in 0..=limit {
        change(&mut device);
    }
    drain(&mut client, &mut device);
    nothing_waits(&mut client, &mut device);
    change(&mut device);
    assert_eq!(drain(&mut client, &mut device)[0][0].instance, 2 * limit + 8);
}

/// Transfers that hold one event, or none.
#[test]
fn as_many_events_travel_at_once_as_fit() {
    const ONE: u32 = 8 + 8 + 46;
    for (transfer, most) in [(ONE, 1), (ONE + 45, 1), (ONE + 46, 2)] {
        let mut device = Device::with(notifying(), Version::V1_3);
        device.flags |= RequesterFlags::ENCAP;
        device.negotiate();
        let mut client = device.establish();
        client.send(&mut device, &subscription(Version::V1_3, vec![group(true, &[])]));
        shrink(&mut device, transfer);
        for _ in 0..3 {
            device.responder.change_measurement(2, &value("x")).unwrap();
        }
        let lengths: Vec<_> = drain(&mut client, &mut device).iter().map(Vec::len).collect();
        assert_eq!(lengths, if most == 1 { vec![1, 1, 1] } else { vec![2, 1] }, "{transfer}");
    }
    let (mut device, mut client) = subscribed(Version::V1_3);
    shrink(&mut device, ONE - 1);
    let request = subscription(Version::V1_3, vec![group(true, &[])]);
    assert_eq!(client.error(&mut device, &request), (ErrorCode::INVALID_REQUEST, 0));
    let nothing = subscription(Version::V1_3, Vec::new());
    assert_eq!(client.send(&mut device, &nothing)[1], 0x70);
}

/// `SessionPolicy` bit 1.
#[test]
fn a_session_may_begin_with_a_subscription() {
    for (version, notifies) in [(Version::V1_2, true), (Version::V1_3, true), (Version::V1_3, false)] {
        let mut config = notifying();
        config.capabilities.events = notifies;
        let mut device = Device::with(config, version);
        device.flags |= RequesterFlags::ENCAP;
        device.policy = POLICY_ALL_EVENTS | POLICY_RESPONDER_DECIDES;
        device.negotiate();
        if !notifies {
            let refused = device.try_begin(SummaryType::None).err();
            assert_eq!(refused, Some((ErrorCode::INVALID_REQUEST, 0)));
            continue;
        }
        let mut client = device.begin();
        device.responder.change_measurement(2, &value("x")).unwrap();
        client.finish(&mut device);
        if version < Version::V1_3 {
            let request = device.simple(Code::GET_ENCAPSULATED_REQUEST);
            assert_eq!(client.error(&mut device, &request), (ErrorCode::UNEXPECTED_REQUEST, 0), "reserved");
            continue;
        }
        assert_eq!(drain(&mut client, &mut device).concat().len(), 1);
    }
}

#[test]
fn a_change_shows_in_the_next_signature() {
    let mut device = device(Version::V1_3);
    let ask = |device: &mut Device, attributes: u8| {
        let mut request = vec![0x13, 0xE0, attributes, 2];
        if attributes & 1 != 0 {
            request.extend([7; 33]);
            request[36] = 0;
        }
        request.extend([0; 8]);
        let response = device.send(&request);
        let size = if attributes & 1 != 0 { SIGNATURE_SIZE } else { 0 };
        let body = Measurements::parse(&mut Reader::new(&response), size).unwrap();
        (body.changed, body.record[body.record.len() - 5..].to_vec())
    };
    device.responder.change_measurement(2, &value("one 1")).unwrap();
    assert_eq!(ask(&mut device, 2), (ContentChanged::NotDetected, b"one 1".to_vec()));
    assert_eq!(ask(&mut device, 3), (ContentChanged::Unchanged, b"one 1".to_vec()));
    assert_eq!(ask(&mut device, 2).1, b"one 1");
    device.responder.change_measurement(2, &value("two 2")).unwrap();
    assert_eq!(ask(&mut device, 3), (ContentChanged::Changed, b"two 2".to_vec()));
    assert_eq!(ask(&mut device, 3).0, ContentChanged::Unchanged, "that was told");

    // What is to come is told to those who ask for it, until it has come.
    device.responder.announce_measurement(2, &value("three")).unwrap();
    assert_eq!(ask(&mut device, 2).1, b"two 2");
    assert_eq!(ask(&mut device, 2 | 4).1, b"three");
    device.responder.change_measurement(2, &value("three")).unwrap();
    device.responder.change_measurement(2, &value("after")).unwrap();
    assert_eq!(ask(&mut device, 2 | 4).1, b"after");

    for (index, bad) in [(3, value("x")), (1, MeasurementValue::Digest(vec![0; 31]))] {
        assert!(device.responder.change_measurement(index, &bad).is_err());
        assert!(device.responder.announce_measurement(index, &bad).is_err());
    }
    assert_eq!(ask(&mut device, 3).0, ContentChanged::Changed);
}
