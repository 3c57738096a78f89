//! Events as responders should not send them.

use super::peer::{Peer, Suite, identify};
use crate::crypto::RingProvider;
use crate::requester::{
    Command, DriverError, Reply, Requester, RequesterConfig, RequesterError, Served, Violation,
};
use crate::wire::*;

const VERSION: Version = Suite::SMALL.version;

/// In a session with a responder that has these capabilities beside the usual ones.
fn listening(flags: u32) -> (Peer, Requester) {
    let mut peer = Peer::new(Suite::SMALL);
    peer.flags |= flags | ResponderFlags::ENCAP;
    let config = RequesterConfig { encapsulated: true, ..Suite::SMALL.config() };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    (peer, requester)
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn event(instance: u32, size: usize) -> EventData {
    let group = EventGroupId { registry: 3, vendor_id: vec![1, 0] };
    EventData { instance, detail: EventDetail::Other { group, kind: 9, detail: vec![0xAB; size] } }
}

fn sent(events: Vec<EventData>) -> Vec<u8> {
    encoded(|out| SendEvent { version: VERSION, events }.encode(out).unwrap())
}

/// Lets the responder ask these one after another; what came of it, and what was delivered.
fn serve(peer: &mut Peer, requester: &mut Requester, requests: &[Vec<u8>]) -> (Served, Vec<Vec<u8>>) {
    let (first, more) = requests.split_first().unwrap();
    let version = VERSION;
    peer.interject
        .push_back(encoded(|out| EncapsulatedRequest { version, id: 1, request: first }.encode(out)));
    let next = more.iter().map(|request| Continuation::Request { id: 1, request });
    for next in next.chain([Continuation::Done]) {
        let ack = EncapsulatedResponseAck { version, acknowledged: 1, next };
        peer.interject.push_back(encoded(|out| ack.encode(out)));
    }
    peer.delivered.clear();
    let Reply::Served(served) = peer.drive(requester).run(Command::Serve).unwrap() else { panic!() };
    (served, peer.delivered.iter().map(|message| message[4..].to_vec()).collect())
}

#[test]
fn events_are_acknowledged_and_put_in_order() {
    let (mut peer, mut requester) = listening(ResponderFlags::EVENT);
    let requests = [sent(vec![event(7, 1), event(5, 0), event(6, 2)]), sent(vec![event(5, 0)])];
    let (served, delivered) = serve(&mut peer, &mut requester, &requests);
    assert_eq!(delivered, [[VERSION.0, 0x71, 0, 0], [VERSION.0, 0x71, 0, 0]]);
    // What was sent again is told again.
    assert_eq!(served.events, [event(5, 0), event(6, 2), event(7, 1), event(5, 0)]);
}

#[test]
fn events_that_make_no_sense_are_refused_whole() {
    let (mut peer, mut requester) = listening(ResponderFlags::EVENT);
    let good = sent(vec![event(0, 0), event(1, 3)]);
    let mut cases: Vec<_> = (4..good.len()).map(|length| good[..length].to_vec()).collect();
    cases.push([&good[..], &[0]].concat());
    cases.push(sent(vec![event(0, 0), event(2, 0)]));
    cases.push(sent(vec![event(1, 0), event(1, 0)]));
    cases.push(sent(Vec::new()));
    let many = [&good[..4], &[0xFF; 4], &good[8..]].concat();
    cases.push(many);
    for request in cases {
        let (served, delivered) = serve(&mut peer, &mut requester, std::slice::from_ref(&request));
        assert_eq!(served, Served::default(), "{request:02x?}");
        let refusal = [VERSION.0, 0x7F, ErrorCode::INVALID_REQUEST.0, 0];
        assert_eq!(delivered, [refusal], "{request:02x?}");
    }
    let (served, _) = serve(&mut peer, &mut requester, &[good]);
    assert_eq!(served.events.len(), 2, "the session goes on");
}

/// A responder can neither fill our memory nor keep what it did not get rid of from being sent later.
#[test]
fn one_conversation_takes_so_much_and_no_more() {
    let (mut peer, mut requester) = listening(ResponderFlags::EVENT);
    let requests: Vec<_> = (0..20).map(|instance| sent(vec![event(instance, 4000)])).collect();
    let (served, delivered) = serve(&mut peer, &mut requester, &requests);
    assert_eq!(served.events.len(), 16);
    let busy = [VERSION.0, 0x7F, ErrorCode::BUSY.0, 0];
    assert!(delivered[..16].iter().all(|response| response[1] == 0x71));
    assert!(delivered[16..].iter().all(|response| *response == busy));
    let (served, _) = serve(&mut peer, &mut requester, &requests[16..]);
    assert_eq!(served.events.len(), 4);
}

#[test]
fn events_come_in_sessions_from_those_who_announce_them() {
    let request = sent(vec![event(0, 0)]);
    let (mut peer, mut requester) = listening(0);
    let (served, delivered) = serve(&mut peer, &mut requester, std::slice::from_ref(&request));
    assert_eq!((served.events.len(), &delivered[0][..]), (0, &[VERSION.0, 0x7F, 7, 0xF1][..]));

    let (mut peer, mut requester) = listening(ResponderFlags::EVENT);
    requester.select(None).unwrap();
    let (served, delivered) = serve(&mut peer, &mut requester, std::slice::from_ref(&request));
    let refusal = [VERSION.0, 0x7F, ErrorCode::SESSION_REQUIRED.0, 0];
    assert_eq!((served.events.len(), &delivered[0][..]), (0, &refusal[..]));
}

/// Types and the acknowledgement are checked as every response is.
#[test]
fn responses_about_events_are_exact() {
    let (mut peer, mut requester) = listening(ResponderFlags::EVENT);
    let group = EventGroup { id: EventGroupId::DMTF, version: 1, all: false, types: vec![1, 2] };
    let groups = vec![group];
    let types =
        encoded(|out| SupportedEventTypes { version: VERSION, groups: groups.clone() }.encode(out).unwrap());
    let ack = encoded(|out| SubscribeEventTypesAck { version: VERSION }.encode(out));
    let subscribe = || Command::Subscribe { groups: groups.clone() };
    for (command, good) in [(Command::EventTypes, types), (subscribe(), ack)] {
        let bad = (4..good.len()).map(|length| good[..length].to_vec()).chain([[&good[..], &[0]].concat()]);
        for response in bad {
            peer.interject.push_back(response.clone());
            let result = peer.drive(&mut requester).run(command.clone());
            assert!(
                matches!(&result, Err(DriverError::Requester(RequesterError::Malformed { .. }))),
                "{response:02x?}: {result:?}"
            );
        }
        peer.interject.push_back([&[VERSION.0, 0x6F], &good[2..]].concat());
        let result = peer.drive(&mut requester).run(command.clone());
        let Err(DriverError::Requester(RequesterError::Violation { violation, .. })) = result else {
            panic!("{result:?}")
        };
        assert_eq!(violation, Violation::Code(Code(0x6F)));
        peer.interject.push_back(good);
        peer.drive(&mut requester).run(command).unwrap();
    }
}
