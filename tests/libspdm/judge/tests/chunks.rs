//! Messages in chunks, in both roles: everything through transfers of many sizes, down to the smallest.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{Case, Device, Peer, Reference, Tally, cases, material, responder_config};
use spdm::crypto::RingProvider;
use spdm::requester::{Command, Driver, MeasurementQuery, Reply, Requester, RequesterConfig, UpdateKeys};
use spdm::responder::ResponderConfig;
use spdm::slot::Slots;
use spdm::wire::{MeasurementOperation, SummaryType, Version};

/// DSP0274 1.3 CHUNK_CAP, the same bit in both directions.
const CHUNK: u32 = 1 << 17;
/// Largest message of both sides.
const MESSAGE: u32 = 0x1200;
/// Largest transfers to the responder and to the requester.
const SIZES: [(u32, u32); 7] =
    [(42, 42), (48, 64), (64, 48), (100, 1000), (1000, 100), (42, MESSAGE), (MESSAGE, 42)];

/// Every version that has chunks, algorithm and protection once.
fn chosen() -> Vec<Case> {
    let encrypted_or_clear = |case: &Case| case.encrypt || case.clear;
    let plain = |case: &Case| {
        case.version >= Version::V1_2 && case.secured == 0 && case.measurement_hash == Some(case.hash)
    };
    cases().into_iter().filter(|case| plain(case) && encrypted_or_clear(case)).collect()
}

/// libspdm's requester, for whom its buffers are both what it sends and what it receives at a time.
fn to_our_responder(case: &Case, to_responder: u32, to_requester: u32) {
    let mut settings = ResponderConfig {
        data_transfer_size: to_responder,
        max_message_size: MESSAGE,
        ..responder_config(case)
    };
    settings.capabilities.chunks = true;
    let mut offer = case.reference(false);
    offer.flags |= CHUNK;
    offer.data_transfer_size = to_requester;
    offer.max_message_size = MESSAGE;
    let material = material(case.asym);
    let device = Device::with(settings, Slots::single(material.slot()));
    let mut reference = Reference::new(&offer, device, &material.certificates()[0]);
    reference.connect();
    reference.digests(None);
    let chain = reference.certificate(None, 0);
    reference.challenge(0, 0xFF);
    let all = |reference: &mut Reference, session| {
        for attributes in [0, 1, 2, 3] {
            assert_eq!(reference.measurements(session, attributes, 0xFF, 0).blocks, 6);
        }
    };
    all(&mut reference, None);
    for _ in 0..2 {
        let (id, ..) = reference.start_session(0, 0xFF, 0);
        for length in [0, 20, 40, 100, 3000] {
            let request = vec![0x5A; length];
            assert_eq!(reference.vendor(Some(id), &request), request);
        }
        reference.heartbeat(id);
        reference.key_update(id, false);
        all(&mut reference, Some(id));
        assert_eq!(reference.certificate(Some(id), 0), chain);
        reference.stop_session(id, 0);
    }
}

/// Our requester at libspdm's responder.
fn to_their_responder(case: &Case, to_responder: u32, to_requester: u32) {
    let mut reference = case.reference(true);
    reference.flags |= CHUNK;
    // libspdm 3.6 counts the padding of a data object as part of the chunk and finds it too long.
    reference.data_transfer_size = to_responder.next_multiple_of(4);
    reference.max_message_size = MESSAGE;
    let mut peer = Peer::new(&reference);
    let settings = RequesterConfig {
        versions: vec![case.version],
        data_transfer_size: to_requester,
        max_message_size: MESSAGE,
        handshake_in_the_clear: case.clear,
        ..RequesterConfig::default()
    };
    let mut requester = Requester::new(settings, Box::new(RingProvider::new())).unwrap();
    let mut run = |command: Command| {
        let result = Driver::new(&mut requester, &mut peer).run(command.clone());
        result.unwrap_or_else(|error| panic!("{command:?}: {error:?}\n{}", peer.recent()))
    };
    let measure = |operation, signed: bool| {
        Command::Measurements(MeasurementQuery { operation, raw: false, signed_by: signed.then_some(0) })
    };
    run(Command::Connect);
    run(Command::Digests);
    run(Command::Certificate { slot: 0 });
    run(Command::Challenge { slot: 0, summary: SummaryType::All });
    for signed in [false, true] {
        run(measure(MeasurementOperation::All, signed));
    }
    for _ in 0..2 {
        run(Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: false });
        for length in [0, 20, 40, 100, 3000] {
            let payload = vec![0x5A; length];
            let vendor = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.clone() };
            assert_eq!(run(vendor), Reply::Vendor(payload));
        }
        run(Command::Heartbeat);
        run(Command::UpdateKeys(UpdateKeys::Both));
        for signed in [false, true] {
            run(measure(MeasurementOperation::All, signed));
        }
        run(Command::Certificate { slot: 0 });
        run(Command::EndSession { clear_negotiated_state: false });
    }
}

type Converse = fn(&Case, u32, u32);

fn every_size(role: &'static str, converse: Converse) {
    let mut tally = Tally::new(role, "chunks");
    for case in chosen() {
        for (to_responder, to_requester) in SIZES {
            tally.check(&case, &format!("{to_responder} {to_requester}"), || {
                converse(&case, to_responder, to_requester);
            });
        }
    }
    tally.finish();
}

#[test]
fn chunks_at_our_responder() {
    every_size("responder", to_our_responder);
}

#[test]
fn chunks_at_their_responder() {
    every_size("requester", to_their_responder);
}
