//! GET_DIGESTS, GET_CERTIFICATE, CHALLENGE and GET_MEASUREMENTS, with the transcripts they are signed over.

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{RingProvider, hash};
use crate::responder::*;
use crate::transcript::SigningContext;
use crate::wire::*;

fn get_certificate(device: &Device, slot: u8, offset: u32, length: u32) -> Vec<u8> {
    let version = device.version;
    encoded(|out| {
        GetCertificate { version, slot, slot_size: false, large: false, offset, length }.encode(out).unwrap();
    })
}

fn challenge(device: &Device, slot: u8, summary: SummaryType) -> Vec<u8> {
    let context = (device.version >= Version::V1_3).then_some([0xC7; 8]);
    let version = device.version;
    encoded(|out| Challenge { version, slot, summary, nonce: [0x66; 32], context }.encode(out))
}

fn measure(device: &Device, operation: MeasurementOperation, raw: bool, slot: Option<u8>) -> Vec<u8> {
    encoded(|out| {
        GetMeasurements {
            version: device.version,
            raw,
            new: false,
            operation,
            signature: slot.map(|slot| SignatureRequest { nonce: [0x99; 32], slot }),
            context: (device.version >= Version::V1_3).then_some([0xC8; 8]),
        }
        .encode(out);
    })
}

/// The blocks of [`config`], as digests where there are any.
fn blocks(raw: bool, indices: &[u8]) -> Vec<u8> {
    let firmware = hash(&RingProvider::new(), HASH, b"firmware").unwrap();
    let second: (bool, &[u8]) = if raw { (true, b"firmware") } else { (false, firmware.as_ref()) };
    let all = [(1, 0, false, &[0x11; 32][..]), (2, 1, second.0, second.1), (0xFE, 5, true, b"mode")];
    let mut out = Vec::new();
    for (index, kind, raw, value) in all.into_iter().filter(|block| indices.contains(&block.0)) {
        MeasurementBlock { index, kind, raw, value }.encode(&mut out).unwrap();
    }
    out
}

#[test]
fn digests_are_those_of_the_chain() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::negotiated(version);
        let response = device.send(&device.simple(Code::GET_DIGESTS));
        let parsed = Digests::parse(&mut Reader::new(&response), 32, false).unwrap();
        assert_eq!(parsed.provisioned_slots, 1);
        assert_eq!(parsed.supported_slots, u8::from(version >= Version::V1_3));
        assert_eq!(parsed.digest(0), Some(device.chain_digest().as_ref()));
        assert_eq!(parsed.digest(1), None);
    }
}

#[test]
fn a_chain_can_be_read_in_pieces_that_fit() {
    let mut device = Device::new(Version::V1_3);
    device.transfer = 200;
    device.negotiate();
    let mut chain = Vec::new();
    loop {
        let offset = u32::try_from(chain.len()).unwrap();
        let response = device.send(&get_certificate(&device, 0, offset, 0xFFFF));
        assert!(response.len() <= 200);
        let parsed = Certificate::parse(&mut Reader::new(&response)).unwrap();
        assert_eq!((parsed.slot, parsed.model), (0, 0));
        chain.extend_from_slice(parsed.portion);
        if parsed.remainder == 0 {
            break;
        }
        assert_eq!(response.len(), 200, "as much as fits");
    }
    assert_eq!(chain, device.chain());
    let response = device.send(&get_certificate(&device, 0, 2, 5));
    let parsed = Certificate::parse(&mut Reader::new(&response)).unwrap();
    assert_eq!(parsed.portion, &chain[2..7]);
    assert_eq!(parsed.remainder as usize, chain.len() - 7);

    let response = device.send(&[0x13, 0x82, 0, 1, 0xFF, 0xFF, 0x55, 0xAA]);
    let parsed = Certificate::parse(&mut Reader::new(&response)).unwrap();
    assert_eq!((parsed.portion.len(), parsed.remainder as usize), (0, chain.len()));
}

#[test]
fn slots_and_offsets_that_do_not_exist_are_refused() {
    let mut device = Device::negotiated(Version::V1_2);
    for slot in 1..16 {
        let request = get_certificate(&device, slot, 0, 64);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{slot}");
    }
    let end = u32::try_from(device.chain().len()).unwrap();
    for offset in [end, 0xFFFF] {
        let request = get_certificate(&device, 0, offset, 64);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0));
    }
    for slot in (1..=8).chain([0xF, 0x80, 0xFF]) {
        let request = challenge(&device, slot, SummaryType::None);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{slot}");
    }
    for summary in [2, 0xFE] {
        let mut request = challenge(&device, 0, SummaryType::None);
        request[3] = summary;
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0));
    }
}

/// A request, and whether it goes into M1/M2.
type Step = (Vec<u8>, bool);

/// Sends the steps, then CHALLENGE; says whether the signature is over exactly those.
fn challenge_after(device: &mut Device, requests: &[Step], summary: SummaryType) -> bool {
    let mut transcript: Vec<Vec<u8>> = Vec::new();
    for (request, counts) in requests {
        let response = device.send(request);
        assert_ne!(response[1], Code::ERROR.0);
        if *counts {
            transcript.extend([request.clone(), response]);
        }
    }
    let request = challenge(device, 0, summary);
    let response = device.send(&request);
    let size = if summary == SummaryType::None { 0 } else { 32 };
    let mut reader = Reader::new(&response);
    let parsed = ChallengeAuth::parse(&mut reader, 32, size, SIGNATURE_SIZE).unwrap();
    reader.finish(0).unwrap();
    assert_eq!((parsed.attributes, parsed.slot_mask, parsed.opaque), (0, 1, &[][..]));
    assert_eq!(parsed.chain_hash, device.chain_digest().as_ref());
    assert_eq!(parsed.context, (device.version >= Version::V1_3).then_some([0xC7; 8]));
    let summarised: &[u8] = match summary {
        SummaryType::None => &[],
        SummaryType::Tcb => &[1, 2],
        SummaryType::All => &[1, 2, 0xFE],
    };
    if summary != SummaryType::None {
        let expected = hash(&RingProvider::new(), HASH, &blocks(false, summarised)).unwrap();
        assert_eq!(parsed.summary, expected.as_ref());
    }
    transcript.extend([request, response[..response.len() - SIGNATURE_SIZE].to_vec()]);
    let parts: Vec<&[u8]> = transcript.iter().map(Vec::as_slice).collect();
    device.verify(SigningContext::ChallengeAuth, &parts, parsed.signature)
}

#[test]
fn challenge_signs_what_was_said_before_it() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::negotiated(version);
        let digests = device.simple(Code::GET_DIGESTS);
        let certificate = get_certificate(&device, 0, 0, 0xFFFF);
        let measurements = measure(&device, MeasurementOperation::Count, false, None);
        let table: &[(&str, &[Step])] = &[
            ("nothing (B2)", &[]),
            ("digests (B3)", &[(digests.clone(), true)]),
            ("both (B1)", &[(digests.clone(), true), (certificate.clone(), true)]),
            ("certificate alone", &[(certificate.clone(), true)]),
            ("digests begin again", &[(certificate.clone(), false), (digests.clone(), true)]),
            ("digests twice", &[(digests.clone(), false), (digests.clone(), true)]),
        ];
        for summary in [SummaryType::None, SummaryType::Tcb, SummaryType::All] {
            for (name, requests) in table {
                assert!(challenge_after(&mut device, requests, summary), "{version} {name}");
            }
        }
        // Only before the first CHALLENGE do measurements start M1/M2 again.
        let mut device = Device::negotiated(version);
        let left = [(digests.clone(), false), (measurements.clone(), false)];
        assert!(challenge_after(&mut device, &left, SummaryType::None));
        let kept = [(digests, true), (measurements, false)];
        assert!(challenge_after(&mut device, &kept, SummaryType::None));
    }
}

/// Where measurements are asked for.
enum Place<'a> {
    Clear,
    Session(&'a mut Client),
}

impl Place<'_> {
    fn send(&mut self, device: &mut Device, request: &[u8]) -> Vec<u8> {
        match self {
            Self::Clear => device.send(request),
            Self::Session(client) => client.send(device, request),
        }
    }
}

fn check_measurements(device: &mut Device, mut place: Place<'_>) {
    use MeasurementOperation::{All, Count, One};
    let mut l1l2: Vec<Vec<u8>> = Vec::new();
    let table = [
        (Count, false, None),
        (All, false, None),
        (One(2), true, None),
        (One(1), true, None),
        (One(0xFE), false, Some(0)),
        (Count, false, Some(0)),
        (All, true, None),
        (All, false, Some(0)),
    ];
    for (operation, raw, slot) in table {
        let request = measure(device, operation, raw, slot);
        let response = place.send(device, &request);
        let size = if slot.is_some() { SIGNATURE_SIZE } else { 0 };
        let mut reader = Reader::new(&response);
        let parsed = Measurements::parse(&mut reader, size).unwrap();
        reader.finish(0).unwrap();
        let (total, indices): (u8, &[u8]) = match operation {
            Count => (3, &[]),
            One(ref index) => (0, core::slice::from_ref(index)),
            All => (0, &[1, 2, 0xFE]),
        };
        assert_eq!((parsed.total, usize::from(parsed.blocks)), (total, indices.len()));
        assert_eq!(parsed.record, blocks(raw, indices), "{operation:?}");
        assert_eq!(parsed.context, (device.version >= Version::V1_3).then_some([0xC8; 8]));
        l1l2.push(request);
        l1l2.push(response[..response.len() - size].to_vec());
        if slot.is_some() {
            let says = device.version >= Version::V1_2;
            let changed = if says { ContentChanged::Unchanged } else { ContentChanged::NotDetected };
            assert_eq!((parsed.slot, parsed.changed), (0, changed));
            let parts: Vec<&[u8]> = l1l2.iter().map(Vec::as_slice).collect();
            assert!(device.verify(SigningContext::Measurements, &parts, parsed.signature));
            l1l2.clear();
        }
    }
}

#[test]
fn measurements_in_all_forms_inside_and_outside_sessions() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::negotiated(version);
        check_measurements(&mut device, Place::Clear);
        if version == Version::V1_0 {
            continue;
        }
        let (mut first, mut second) = (device.establish(), device.establish());
        check_measurements(&mut device, Place::Session(&mut first));
        check_measurements(&mut device, Place::Session(&mut second));
        check_measurements(&mut device, Place::Clear);
    }
}

#[test]
fn what_follows_a_request_is_not_part_of_it() {
    for version in Version::IMPLEMENTED {
        let mut device = Device::new(version);
        device.surplus = 33;
        device.negotiate();
        let digests = (device.simple(Code::GET_DIGESTS), true);
        let certificate = (get_certificate(&device, 0, 0, 0xFFFF), true);
        assert!(challenge_after(&mut device, &[digests, certificate], SummaryType::All));
        check_measurements(&mut device, Place::Clear);
        if version == Version::V1_0 {
            continue;
        }
        let mut client = device.establish();
        check_measurements(&mut device, Place::Session(&mut client));
    }
}

#[test]
fn l1l2_begins_again_after_other_requests_and_after_errors() {
    let breakers: [fn(&Device) -> Vec<u8>; 4] = [
        // Refused before anything in it is looked at.
        |device| {
            let request = measure(device, MeasurementOperation::Count, false, None);
            [&[Version::V1_3.0], &request[1..]].concat()
        },
        |device| device.simple(Code::GET_DIGESTS),
        |device| measure(device, MeasurementOperation::One(77), false, None),
        |device| vendor_message(device.version, b"x"),
    ];
    for in_session in [false, true] {
        for breaker in breakers {
            let mut device = Device::negotiated(Version::V1_2);
            let mut client = device.establish();
            let mut place = if in_session { Place::Session(&mut client) } else { Place::Clear };
            let count = measure(&device, MeasurementOperation::Count, false, None);
            place.send(&mut device, &count);
            let request = breaker(&device);
            place.send(&mut device, &request);
            let request = measure(&device, MeasurementOperation::All, false, Some(0));
            let response = place.send(&mut device, &request);
            let (signed, signature) = response.split_at(response.len() - SIGNATURE_SIZE);
            assert!(device.verify(SigningContext::Measurements, &[&request, signed], signature));
        }
    }
}

#[test]
fn measurements_that_do_not_exist_or_cannot_be_signed_are_refused() {
    let mut device = Device::negotiated(Version::V1_3);
    for index in (3..=0xFD).chain([0xFE + 1]).filter(|&index| index != 0xFF) {
        let request = measure(&device, MeasurementOperation::One(index), false, None);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{index}");
    }
    for slot in 1..16 {
        let request = measure(&device, MeasurementOperation::One(1), false, Some(slot));
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{slot}");
    }
    let request = measure(&device, MeasurementOperation::All, false, Some(0));
    for length in 4..request.len() {
        assert_eq!(device.error(&request[..length]), (ErrorCode::INVALID_REQUEST, 0), "{length}");
    }
    let mut unsigned = config();
    unsigned.capabilities.measurements = MeasurementSupport::Unsigned;
    let mut device = Device::with(unsigned, Version::V1_3);
    device.negotiate();
    assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0));
    let mut none = config();
    none.capabilities.measurements = MeasurementSupport::None;
    none.capabilities.fresh_measurements = false;
    let mut device = Device::with(none, Version::V1_3);
    device.negotiate();
    assert_eq!(device.error(&request), (ErrorCode::UNSUPPORTED_REQUEST, 0xE0));
}

#[test]
fn a_response_that_the_requester_cannot_receive_is_named_with_its_size() {
    let mut device = Device::new(Version::V1_2);
    device.transfer = 60;
    device.negotiate();
    let request = challenge(&device, 0, SummaryType::None);
    let size = 4 + 32 + 32 + 2 + 64;
    assert_eq!(device.send(&request), [0x12, 0x7F, 0x0D, 0, size, 0, 0, 0]);
    let request = device.key_exchange_request(&crate_point(), SummaryType::None);
    let response = device.send(&request);
    assert_eq!(response[2], ErrorCode::RESPONSE_TOO_LARGE.0);
    let request = measure(&device, MeasurementOperation::Count, false, None);
    assert_eq!(device.send(&request)[1], Code::MEASUREMENTS.0);
}

/// Any point of P-256.
fn crate_point() -> Vec<u8> {
    use crate::crypto::{DheGroup, Provider};
    RingProvider::new().start_exchange(DheGroup::P256).unwrap().public().to_vec()
}

/// SET_CERTIFICATE may come through another session: whoever has read a chain goes on with it until it reads again.
#[test]
fn a_slot_that_is_written_keeps_the_chain_that_was_read() {
    for version in [Version::V1_2, Version::V1_3] {
        let mut device = Device::negotiated(version);
        let old = device.chain_digest();
        let named = |device: &mut Device| {
            let request = challenge(device, 0, SummaryType::None);
            let response = device.send(&request);
            let digest = response[4..4 + old.as_ref().len()].to_vec();
            let known = if digest == old.as_ref() { "old" } else { "new" };
            assert_eq!(digest.len(), 32);
            known
        };
        let read = |device: &mut Device, length| device.send(&get_certificate(device, 0, 0, length));
        assert_eq!(named(&mut device), "old");
        read(&mut device, 0xFFFF);
        let slot = device.responder.core.chains.slots().get(0).unwrap().clone();
        let certificates = [slot.certificates.clone(), vec![slot.certificates[0].clone()]].concat();
        let written = crate::slot::Slot { certificates, ..slot };
        device.responder.core.chains.replace(&RingProvider::new(), 0, written).unwrap();
        assert_eq!(named(&mut device), "old");
        read(&mut device, 8);
        assert_eq!(named(&mut device), "old", "a piece is not the chain");
        device.send(&device.simple(Code::GET_DIGESTS));
        assert_eq!(named(&mut device), "new", "CHALLENGE takes the digest that was shown");
        let negotiated = device.responder.core.connection.negotiated().unwrap();
        assert_eq!(negotiated.read.get(0), Some(&old), "KEY_EXCHANGE the chain that was read");
        read(&mut device, 0xFFFF);
        let negotiated = device.responder.core.connection.negotiated().unwrap();
        assert_ne!(negotiated.read.get(0), Some(&old));
        device.get_version();
        device.negotiate();
        assert_eq!(named(&mut device), "new", "nothing was read in this connection");
    }
}
