//! Sessions from KEY_EXCHANGE to their end: handshake, key update, heartbeat, limits, vendor messages.

use core::time::Duration;

use super::device::*;
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, RingProvider};
use crate::responder::*;
use crate::secured::Protection;
use crate::wire::*;

const ALL: [Version; 4] = [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4];

fn ended(client: &Client, reason: EndReason) -> Option<Event> {
    Some(Event::SessionEnded { id: client.session.id(), reason })
}

#[test]
fn a_session_begins_works_and_ends() {
    for version in ALL {
        for encrypt in [true, false] {
            let mut device = Device::new(version);
            if !encrypt {
                device.flags &= !RequesterFlags::ENCRYPT;
            }
            device.negotiate();
            let mut client = device.establish();
            assert_eq!(client.heartbeat, 5);
            let id = client.session.id();
            let response = client.send(&mut device, &vendor_message(version, b"abc"));
            let expected = [version.0, 0x7E, 0, 0, 3, 0, 2, 1, 0, 3, 0, b'c', b'b', b'a'];
            assert_eq!(response, expected);
            assert_eq!(device.vendor.sessions, [Some(id)]);
            let end = device.simple(Code::END_SESSION);
            assert_eq!(client.send(&mut device, &end), [version.0, 0x6C, 0, 0]);
            assert_eq!(device.responder.poll_event(), ended(&client, EndReason::Requested));
            assert_eq!(client.try_send(&mut device, &end), None, "the session is unknown now");
        }
    }
}

#[test]
fn a_session_can_be_looked_at_from_its_handshake_to_its_end() {
    for version in ALL {
        let mut device = Device::negotiated(version);
        assert_eq!(device.responder.sessions().count(), 0);
        let mut client = device.begin();
        let mut expected = SessionView {
            id: client.session.id(),
            established: false,
            version,
            secured_version: Some(Version::V1_1),
            hash: HASH,
            aead: Aead::Aes256Gcm,
            protection: Protection::EncryptAndMac,
            exchange: Some(DheGroup::P256),
            signature: Some(AsymAlgorithm::EcdsaP256),
            origin: Origin::Slot(0),
            requester: None,
            heartbeat: Duration::from_secs(5),
        };
        assert_eq!(device.responder.sessions().collect::<Vec<_>>(), [expected.clone()]);
        client.finish(&mut device);
        expected.established = true;
        assert_eq!(device.responder.sessions().collect::<Vec<_>>(), [expected]);
        client.simple(&mut device, Code::END_SESSION);
        assert_eq!(device.responder.sessions().count(), 0);
    }
}

#[test]
fn a_handshake_in_the_clear_ends_with_an_hmac_of_the_responder() {
    for version in ALL {
        let mut config = config();
        config.versions = vec![version];
        config.capabilities.handshake_in_the_clear = true;
        let mut device = Device::with(config, version);
        device.flags |= RequesterFlags::HANDSHAKE_IN_THE_CLEAR;
        device.negotiate();
        let mut client = device.begin();
        let request = client.finish_request(&device);
        let code = if version < Version::V1_2 { ErrorCode::UNSPECIFIED } else { ErrorCode::SESSION_REQUIRED };
        let required = (code, 0);
        assert_eq!(client.error(&mut device, &request), required, "not inside a record");
        let response = device.send(&request);
        let (head, verify_data) = response.split_at(response.len() - HASH.size());
        assert_eq!(head, finish_rsp(version));
        client.transcript.append(head);
        let provider = RingProvider::new();
        let th = client.transcript.digest();
        let role = crate::session::Role::Responder;
        client.session.check_verify_data(&provider, role, &th, verify_data).unwrap();
        client.transcript.append(verify_data);
        client.session.establish(&provider, &client.transcript.digest()).unwrap();
        assert_eq!(client.simple(&mut device, Code::HEARTBEAT)[1], Code::HEARTBEAT_ACK.0);

        let unexpected = (ErrorCode::UNEXPECTED_REQUEST, 0);
        assert_eq!(device.error(&request), unexpected, "every session has finished");
        client.simple(&mut device, Code::END_SESSION);

        let mut client = device.begin();
        let mut request = client.finish_request(&device);
        *request.last_mut().unwrap() ^= 1;
        assert_eq!(device.error(&request), (ErrorCode::DECRYPT_ERROR, 0));
        assert_eq!(device.error(&request), required, "it is gone");
    }
}

#[test]
fn a_malformed_finish_waits_for_a_proper_one_a_wrong_one_does_not() {
    for version in ALL {
        let mut device = Device::negotiated(version);
        let mut client = device.begin();
        let request = client.finish_request(&device);
        for length in 4..request.len() {
            let refused = client.error(&mut device, &request[..length]);
            assert_eq!(refused, (ErrorCode::INVALID_REQUEST, 0));
        }
        for slot in [1, 7, 8, 0xF, 0xFF] {
            let mut signed = request.clone();
            (signed[2], signed[3]) = (1, slot);
            assert_eq!(client.error(&mut device, &signed), (ErrorCode::INVALID_REQUEST, 0));
        }
        let response = client.send(&mut device, &request);
        assert_eq!(response, finish_rsp(version));

        let mut client = device.begin();
        let mut request = client.finish_request(&device);
        *request.last_mut().unwrap() ^= 1;
        assert_eq!(client.error(&mut device, &request), (ErrorCode::DECRYPT_ERROR, 0));
        assert_eq!(client.try_send(&mut device, &request), None, "it is gone");
    }
}

#[test]
fn key_exchange_checks_every_field() {
    let mut device = Device::negotiated(Version::V1_3);
    let point = {
        use crate::crypto::{DheGroup, Provider};
        RingProvider::new().start_exchange(DheGroup::P256).unwrap().public().to_vec()
    };
    let request = device.key_exchange_request(&point, SummaryType::None);
    // Offsets: summary 2, slot 3, policy 6, exchange 40, opaque length 104, opaque 106.
    let cases: &[(&str, usize, &[u8])] = &[
        ("summary", 2, &[2]),
        ("summary", 2, &[0xFE]),
        ("slot", 3, &[1]),
        ("slot", 3, &[8]),
        ("public key", 3, &[0xFF]),
        ("all events", 6, &[2]),
        ("not a point", 40, &[0xFF; 64]),
        ("zero", 40, &[0; 64]),
        ("opaque length", 104, &[0xFF, 0xFF]),
        ("element count", 106, &[2]),
        ("element count", 106, &[0]),
        ("not a version list", 115, &[0]),
        ("unknown versions", 117, &[0, 0x20, 0, 0x30]),
    ];
    for &(name, offset, bytes) in cases {
        let mut request = request.clone();
        request[offset..offset + bytes.len()].copy_from_slice(bytes);
        assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{name}");
    }
    assert_eq!(device.send(&request)[1], Code::KEY_EXCHANGE_RSP.0);
    // Who says nothing about secured messages gets nothing about them.
    let mut bare = request[..106].to_vec();
    bare[104..106].fill(0);
    let response = device.send(&bare);
    assert_eq!(response[1], Code::KEY_EXCHANGE_RSP.0);
    assert_eq!(response.len(), 40 + 64 + 2 + 64 + 32);
}

#[test]
fn sessions_are_limited_and_ids_differ() {
    let mut device = Device::negotiated(Version::V1_2);
    let mut clients: Vec<Client> = (0..4).map(|_| device.establish()).collect();
    let limit = Err((ErrorCode::SESSION_LIMIT_EXCEEDED, 0));
    assert_eq!(device.try_begin(SummaryType::None).map(drop), limit);
    let mut ids: Vec<_> = clients.iter().map(|client| client.session.id()).collect();
    assert!(ids.iter().all(|id| id & 0xFFFF == 0x1234 && id >> 16 != 0));
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let heartbeat = device.simple(Code::HEARTBEAT);
    for client in clients.iter_mut().rev() {
        assert_eq!(client.send(&mut device, &heartbeat)[1], Code::HEARTBEAT_ACK.0);
    }
    let end = device.simple(Code::END_SESSION);
    clients[1].send(&mut device, &end);
    clients.remove(1);
    clients.push(device.try_begin(SummaryType::None).ok().unwrap());
    assert_eq!(device.try_begin(SummaryType::None).map(drop), limit);
    clients[1].send(&mut device, &heartbeat);
}

#[test]
fn keys_are_updated_in_both_directions() {
    let provider = RingProvider::new();
    for version in ALL {
        let mut device = Device::negotiated(version);
        let mut client = device.establish();
        let heartbeat = device.simple(Code::HEARTBEAT);
        let update = |operation: u8, tag: u8| vec![version.0, 0xE9, operation, tag];
        for round in 0..3_u8 {
            for operation in [1, 2] {
                let tag = round * 4 + operation;
                let record = client.seal(&update(operation, tag));
                if operation == 2 {
                    client.session.update_inbound(&provider).unwrap();
                    client.session.confirm_inbound();
                }
                let response = client.deliver(&mut device, &record).unwrap();
                assert_eq!(response, [version.0, 0x69, operation, tag]);
                let retry = client.send(&mut device, &update(operation, tag));
                assert_eq!(retry, response, "a lost acknowledgement is repeated under the old key");
                let other = update(operation, tag + 1);
                assert_eq!(client.error(&mut device, &other), (ErrorCode::INVALID_REQUEST, 0));
                let verify = update(3, 0x80);
                let old = (ErrorCode::INVALID_REQUEST, 0);
                assert_eq!(client.error(&mut device, &verify), old, "proof under the old key");
                client.session.update_outbound(&provider).unwrap();
                assert_eq!(client.send(&mut device, &verify), [version.0, 0x69, 3, 0x80]);
                assert_eq!(client.error(&mut device, &verify), old, "nothing left to prove");
                assert_eq!(client.send(&mut device, &heartbeat)[1], Code::HEARTBEAT_ACK.0);
            }
        }
        for operation in [0, 4, 0xFF] {
            let request = update(operation, 0);
            assert_eq!(client.error(&mut device, &request), (ErrorCode::INVALID_REQUEST, 0));
        }
    }
}

#[test]
fn a_record_that_does_not_open_ends_its_session_alone() {
    let mut device = Device::negotiated(Version::V1_2);
    let (mut first, mut second) = (device.establish(), device.establish());
    let heartbeat = device.simple(Code::HEARTBEAT);
    let mut record = first.seal(&heartbeat);
    record[10] ^= 1;
    let response = first.deliver(&mut device, &record).unwrap();
    assert_eq!(response, [0x12, 0x7F, ErrorCode::DECRYPT_ERROR.0, 0]);
    assert_eq!(device.responder.poll_event(), ended(&first, EndReason::Unauthentic));
    assert_eq!(first.try_send(&mut device, &heartbeat), None);
    assert_eq!(second.send(&mut device, &heartbeat)[1], Code::HEARTBEAT_ACK.0);
    let record = second.seal(&heartbeat);
    second.deliver(&mut device, &record).unwrap();
    let replayed = second.deliver(&mut device, &record).unwrap();
    assert_eq!(replayed, [0x12, 0x7F, ErrorCode::DECRYPT_ERROR.0, 0]);
    assert_eq!(device.responder.poll_event(), ended(&second, EndReason::Unauthentic));
}

#[test]
fn an_empty_or_short_message_in_a_session_is_invalid() {
    let mut device = Device::negotiated(Version::V1_2);
    let mut client = device.establish();
    for length in 0..4 {
        let refused = client.error(&mut device, &[0x12, 0xE8, 0, 0][..length]);
        assert_eq!(refused, (ErrorCode::INVALID_REQUEST, 0));
    }
    for code in [Code::HEARTBEAT, Code::END_SESSION, Code::KEY_UPDATE] {
        let mut request = device.simple(code);
        request[2] = 1;
        request.push(0);
        let refused = client.error(&mut device, &request);
        assert_eq!(refused, (ErrorCode::INVALID_REQUEST, 0), "{code:?} has no padding in a record");
    }
}

#[test]
fn silence_for_two_heartbeat_periods_ends_a_session() {
    let mut device = Device::negotiated(Version::V1_2);
    device.now = Duration::from_secs(100);
    let mut quiet = device.establish();
    let mut alive = device.establish();
    assert_eq!(device.responder.next_deadline(), Some(Duration::from_secs(110)));
    device.now = Duration::from_secs(109);
    alive.send(&mut device, &vendor_message(Version::V1_2, b"any traffic counts"));
    device.responder.tick(Duration::from_millis(109_999));
    assert_eq!(device.responder.poll_event(), None);
    device.responder.tick(Duration::from_secs(110));
    assert_eq!(device.responder.poll_event(), ended(&quiet, EndReason::HeartbeatLost));
    assert_eq!(device.responder.next_deadline(), Some(Duration::from_secs(119)));
    assert_eq!(quiet.try_simple(&mut device, Code::HEARTBEAT), None);
    // A deadline counts even if nobody called tick.
    device.now = Duration::from_secs(119);
    assert_eq!(alive.try_simple(&mut device, Code::HEARTBEAT), None);
    assert_eq!(device.responder.poll_event(), ended(&alive, EndReason::HeartbeatLost));
    assert_eq!(device.responder.next_deadline(), None);
}

#[test]
fn a_handshake_that_nobody_finishes_makes_room() {
    let seconds = Duration::from_secs;
    for clear in [false, true] {
        let mut config = ResponderConfig { session_limit: 1, handshake_timeout: seconds(30), ..config() };
        config.capabilities.handshake_in_the_clear = clear;
        let mut device = Device::with(config, Version::V1_2);
        if clear {
            device.flags |= RequesterFlags::HANDSHAKE_IN_THE_CLEAR;
        }
        device.negotiate();
        device.now = seconds(100);
        let mut late = device.begin();
        assert_eq!(device.responder.next_deadline(), Some(seconds(130)));
        device.now = Duration::from_millis(129_999);
        let refused = device.try_begin(SummaryType::None).map(|_| ());
        assert_eq!(refused, Err((ErrorCode::SESSION_LIMIT_EXCEEDED, 0)));
        device.now = seconds(130);
        let request = late.finish_request(&device);
        if clear {
            assert_eq!(device.error(&request), (ErrorCode::SESSION_REQUIRED, 0));
        } else {
            assert_eq!(late.try_send(&mut device, &request), None);
        }
        assert_eq!(device.responder.poll_event(), None, "nothing was there that could end");

        // One that is finished has time as its heartbeat gives it.
        let mut client = device.begin();
        device.now = seconds(150);
        let request = client.finish_request(&device);
        if clear {
            assert_eq!(device.send(&request)[1], Code::FINISH_RSP.0);
        } else {
            assert_eq!(client.send(&mut device, &request)[1], Code::FINISH_RSP.0);
        }
        assert_eq!(device.responder.next_deadline(), Some(seconds(160)));
    }
}

#[test]
fn a_handshake_may_be_given_all_the_time_there_is() {
    let config = ResponderConfig { handshake_timeout: Duration::ZERO, heartbeat_period: 0, ..config() };
    let mut device = Device::with(config, Version::V1_2);
    device.negotiate();
    let mut client = device.begin();
    assert_eq!(device.responder.next_deadline(), None);
    device.now = Duration::MAX;
    client.finish(&mut device);
}

#[test]
fn without_a_period_there_is_no_heartbeat_and_no_deadline() {
    let config = ResponderConfig { heartbeat_period: 0, ..config() };
    let mut device = Device::with(config, Version::V1_2);
    device.negotiate();
    let mut client = device.establish();
    assert_eq!(device.responder.next_deadline(), None);
    let heartbeat = device.simple(Code::HEARTBEAT);
    assert_eq!(client.error(&mut device, &heartbeat), (ErrorCode::UNEXPECTED_REQUEST, 0));
    device.responder.tick(Duration::MAX);
    client.send(&mut device, &vendor_message(Version::V1_2, b"x"));
}

#[test]
fn a_key_that_is_used_up_ends_its_session_in_silence() {
    let config = ResponderConfig { sequence_limit: 2, ..config() };
    let mut device = Device::with(config, Version::V1_2);
    device.negotiate();
    let mut client = device.establish();
    let heartbeat = device.simple(Code::HEARTBEAT);
    client.send(&mut device, &heartbeat);
    client.send(&mut device, &heartbeat);
    assert_eq!(client.try_send(&mut device, &heartbeat), None);
    assert_eq!(device.responder.poll_event(), ended(&client, EndReason::Exhausted));
}

#[test]
fn a_vendor_may_answer_refuse_or_keep_silent() {
    let mut device = Device::negotiated(Version::V1_3);
    let mut client = device.establish();
    let message = |payload: &[u8]| vendor_message(Version::V1_3, payload);
    assert_eq!(client.try_send(&mut device, &message(b"silent")), None);
    assert_eq!(client.error(&mut device, &message(b"error")), (ErrorCode(0x47), 9));
    let large = client.send(&mut device, &message(b"large"));
    assert_eq!(large[..4], [0x13, 0x7F, ErrorCode::RESPONSE_TOO_LARGE.0, 0]);
    assert_eq!(client.send(&mut device, &message(b"")).len(), 11);
    assert_eq!(device.try_send(&message(b"silent")), None);
    assert_eq!(device.send(&message(b"ab"))[9..], [2, 0, b'b', b'a']);
    assert_eq!(device.vendor.sessions.last(), Some(&None));
    let mut lying = message(b"abc");
    lying[9] = 5;
    assert_eq!(client.error(&mut device, &lying), (ErrorCode::INVALID_REQUEST, 0));
}

#[test]
fn a_conventional_reset_leaves_nothing() {
    let mut device = Device::negotiated(Version::V1_3);
    let mut client = device.establish();
    device.responder.reset();
    assert_eq!(device.responder.poll_event(), ended(&client, EndReason::Reset));
    assert_eq!(client.try_simple(&mut device, Code::HEARTBEAT), None);
    let digests = device.simple(Code::GET_DIGESTS);
    assert_eq!(device.error(&digests), (ErrorCode::UNEXPECTED_REQUEST, 0));
    device.negotiate();
    device.establish();
}

#[test]
fn events_that_nobody_reads_do_not_pile_up() {
    let mut device = Device::negotiated(Version::V1_2);
    for _ in 0..20 {
        let mut client = device.begin();
        client.finish(&mut device);
        client.simple(&mut device, Code::END_SESSION);
    }
    assert_eq!(device.responder.poll_event(), None);
}

#[test]
fn debug_output_shows_no_secret() {
    let mut device = Device::negotiated(Version::V1_2);
    let client = device.establish();
    let text = format!("{:?} {:?}", device.responder, client.session);
    assert!(text.contains("sequence"), "{text}");
    assert!(!text.contains("key: ["), "{text}");
}
