//! Event types and subscriptions, with libspdm in either role. libspdm 3.6 has no code for SEND_EVENT itself, only for
//! the flow it travels in, and never calls its own for GET_SUPPORTED_EVENT_TYPES.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{
    Case, Device, Peer, REQUESTER_FLAGS, RESPONDER_FLAGS, Reference, Subscribed, Tally, cases, material,
    responder_config,
};
use spdm::crypto::RingProvider;
use spdm::requester::{Command, Driver, Reply, Requester, RequesterConfig};
use spdm::responder::MeasurementValue;
use spdm::slot::Slots;
use spdm::wire::{EventDetail, EventGroup, EventGroupId, SummaryType, Version};

/// ENCAP_CAP and EVENT_CAP.
const ENCAP: u32 = 1 << 12;
const EVENT: u32 = 1 << 25;
/// `SessionPolicy` bit 0, TerminationPolicy: what an update ends is for the responder to decide.
const OUTLIVES_UPDATES: u8 = 1;
/// `SessionPolicy` bit 1.
const ALL_EVENTS: u8 = 2;

/// 1.3 with every signature, encryption and place of the handshake.
fn event_cases() -> Vec<Case> {
    let mut chosen: Vec<Case> = Vec::new();
    for case in cases() {
        let key = |case: &Case| (case.asym, case.encrypt, case.clear);
        let plain = case.version == Version::V1_3 && case.secured == 0;
        if plain && chosen.iter().all(|other| key(other) != key(&case)) {
            chosen.push(case);
        }
    }
    chosen
}

fn reference(case: &Case, responder: bool) -> libspdm_sys::Config {
    let own = if responder { RESPONDER_FLAGS | EVENT } else { REQUESTER_FLAGS };
    let mut config = case.reference(responder);
    config.flags |= ENCAP | own & EVENT;
    config
}

fn group(all: bool, types: &[u16]) -> EventGroup {
    EventGroup { id: EventGroupId::DMTF, version: 1, all, types: types.to_vec() }
}

/// One group as on the wire.
fn listed(all: bool, types: &[u8]) -> Vec<u8> {
    let count = u8::try_from(types.len()).unwrap();
    let mut bytes = vec![0, 0, count, 0, 1, 0, u8::from(all), 0, 0, 0];
    types.iter().for_each(|&kind| bytes.extend([kind, 0, 0, 0]));
    bytes
}

/// libspdm's requester, connected to our responder.
fn connected(case: &Case) -> Reference {
    let mut config = responder_config(case);
    config.capabilities.events = true;
    let device = Device::with(config, Slots::single(material(case.asym).slot()));
    let mut run = Reference::new(&reference(case, false), device, &material(case.asym).certificates()[0]);
    run.listen();
    run.connect();
    run.certificate(None, 0);
    run
}

/// Another measurement in block 2, as an update at run time brings it.
fn change(run: &mut Reference) {
    let value = MeasurementValue::Raw(b"other firmware".to_vec());
    run.device().responder().change_measurement(2, &value).unwrap();
}

/// A session that an update ends hears no event of it, and nothing else.
fn ended(case: &Case, policy: u8) {
    let mut run = connected(case);
    let (id, ..) = run.start_session(0, 0xFF, policy);
    assert_eq!(run.vendor(Some(id), b"abc"), b"cba");
    change(&mut run);
    assert!(run.event().is_empty());
    assert_ne!(run.try_subscribe(id, 1, &listed(true, &[])), 0);
}

/// libspdm's requester, our responder.
fn served(case: &Case, policy: u8) {
    let mut run = connected(case);
    let (id, ..) = run.start_session(0, 0xFF, policy);
    assert_eq!(run.event_types(id), (1, listed(false, &[1, 2, 3, 4])));
    change(&mut run);
    let all = policy & ALL_EVENTS != 0;
    if all {
        run.serve(id);
    } else {
        assert!(run.event().is_empty());
        run.subscribe(id, 1, &listed(true, &[]));
        change(&mut run);
        run.serve(id);
    }
    // SEND_EVENT, one event: number 0, MeasurementChanged, bit 2 of 256.
    let mut expected = vec![0x13, 0xF1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 32, 0, 4];
    expected.resize(54, 0);
    assert_eq!(run.event(), expected);
    assert_eq!(run.vendor(Some(id), b"abc"), b"cba");
    for (count, list, works) in [
        (1, listed(false, &[1, 4]), true),
        (2, [listed(false, &[1]), listed(true, &[])].concat(), true),
        (0, Vec::new(), true),
        (1, listed(false, &[5]), false),
        (2, listed(false, &[1]), false),
        (1, listed(false, &[1])[..12].to_vec(), false),
        (1, listed(false, &[1, 4]), true),
    ] {
        assert_eq!(run.try_subscribe(id, count, &list) == 0, works, "{count} {list:02x?}");
    }
    // Nobody has subscribed to this any more.
    change(&mut run);
    assert!(run.event().is_empty());
    assert_eq!(run.vendor(Some(id), b"abc"), b"cba");
    run.stop_session(id, 0);
}

#[test]
fn events_of_our_responder() {
    let mut tally = Tally::new("responder", "events");
    for case in event_cases() {
        for events in [0, ALL_EVENTS] {
            let policy = events | OUTLIVES_UPDATES;
            tally.check(&case, &format!("policy {policy}"), || served(&case, policy));
            tally.check(&case, &format!("policy {events}"), || ended(&case, events));
        }
    }
    tally.finish();
}

/// Our requester, libspdm's responder.
fn asked(case: &Case, all_events: bool) {
    let mut peer = Peer::new(&reference(case, true));
    peer.tell_events();
    let config = RequesterConfig {
        versions: vec![case.version],
        handshake_in_the_clear: case.clear,
        encapsulated: true,
        all_events,
        ..RequesterConfig::default()
    };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    let mut run = |command: Command, peer: &mut Peer| {
        let result = Driver::new(&mut requester, &mut *peer).run(command.clone());
        result.unwrap_or_else(|error| panic!("{command:?}: {error:?}\n{}", peer.recent()))
    };
    run(Command::Connect, &mut peer);
    run(Command::Certificate { slot: 0 }, &mut peer);
    let _ = peer.subscribed();
    let start = Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: true };
    run(start, &mut peer);
    let nothing = Subscribed { times: u8::from(all_events), kind: 0, groups: 0, list: Vec::new() };
    assert_eq!(peer.subscribed(), nothing);
    let Reply::EventTypes(groups) = run(Command::EventTypes, &mut peer) else { panic!() };
    assert_eq!(groups, [group(false, &EventDetail::DMTF_TYPES)]);
    for (groups, kind, list) in [
        (vec![group(false, &[1, 4])], 2, listed(false, &[1, 4])),
        (vec![group(true, &[]), group(false, &[2])], 2, [listed(true, &[]), listed(false, &[2])].concat()),
        (Vec::new(), 1, Vec::new()),
    ] {
        let count = u8::try_from(groups.len()).unwrap();
        assert_eq!(run(Command::Subscribe { groups }, &mut peer), Reply::Subscribed);
        assert_eq!(peer.subscribed(), Subscribed { times: 1, kind, groups: count, list });
        run(Command::Heartbeat, &mut peer);
    }
    run(Command::EndSession { clear_negotiated_state: false }, &mut peer);
}

#[test]
fn events_of_libspdm() {
    let mut tally = Tally::new("requester", "events");
    for case in event_cases() {
        for all in [false, true] {
            tally.check(&case, &format!("all {all}"), || asked(&case, all));
        }
    }
    tally.finish();
}
