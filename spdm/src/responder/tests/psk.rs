//! Sessions from pre-shared keys: PSK_EXCHANGE field by field, PSK_FINISH, and every request in every state of such a session.

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{Aead, RingProvider};
use crate::key_schedule::Shared;
use crate::psk::PreSharedKey;
use crate::responder::*;
use crate::secured::Protection;
use crate::session::{Role, Session, SessionParameters};
use crate::wire::*;

const ALL: [Version; 3] = [Version::V1_1, Version::V1_2, Version::V1_3];
const SECRET: &[u8] = b"a key both sides have";

fn with(version: Version, psk: PskSupport, change: impl FnOnce(&mut ResponderConfig)) -> Device {
    let mut config = config();
    config.versions = vec![version];
    config.capabilities.psk = psk;
    config.psks = vec![
        PreSharedKey::new(b"one".to_vec(), SECRET.to_vec()),
        PreSharedKey::new(b"two".to_vec(), vec![2; 70]),
    ];
    change(&mut config);
    let mut device = Device::with(config, version);
    device.flags |= RequesterFlags::PSK;
    device.negotiate();
    device
}

fn negotiated(version: Version, psk: PskSupport) -> Device {
    with(version, psk, |_| ())
}

fn exchange_request(device: &Device) -> Vec<u8> {
    let mut opaque = Vec::new();
    let versions = [VersionNumber::new(Version::V1_1)];
    SupportedSecuredVersions(&versions).encode(device.version, &mut opaque).unwrap();
    encoded(|out| {
        PskExchange {
            version: device.version,
            summary: SummaryType::All,
            policy: 1,
            session_id: 0x4321,
            hint: b"one",
            context: &[0x77; 32],
            opaque: &opaque,
        }
        .encode(out)
        .unwrap();
    })
}

/// PSK_EXCHANGE, its response checked to the last byte: established without context, waiting for PSK_FINISH with one.
fn begin(device: &mut Device) -> Client {
    let provider = RingProvider::new();
    let request = exchange_request(device);
    let response = device.send(&request);
    let mut reader = Reader::new(&response);
    let parsed = PskExchangeRsp::parse(&mut reader, 32, 32).unwrap();
    reader.finish(0).unwrap();
    let selected = SelectedSecuredVersion::find(device.version, parsed.opaque).unwrap().unwrap();
    assert_eq!(selected.version(), Version::V1_1);

    let mut transcript = device.basis(&provider).psk_th().unwrap();
    transcript.append(&request);
    transcript.append(&response[..response.len() - 32]);
    let th1 = transcript.digest();
    let parameters = SessionParameters {
        id: u32::from(parsed.session_id) << 16 | 0x4321,
        role: Role::Requester,
        version: device.version.0,
        hash: HASH,
        aead: Aead::Aes256Gcm,
        protection: Protection::EncryptAndMac,
        sequence_limit: u64::MAX,
    };
    let mut session = Session::new(&provider, parameters, Shared::Psk(SECRET), &th1).unwrap();
    session.check_verify_data(&provider, Role::Responder, &th1, parsed.verify_data).unwrap();
    transcript.append(parsed.verify_data);
    if parsed.context.is_empty() {
        session.establish(&provider, &transcript.digest()).unwrap();
        let id = session.id();
        assert_eq!(device.responder.poll_event(), Some(Event::SessionEstablished { id }));
    }
    Client { session, transcript, heartbeat: parsed.heartbeat_period }
}

/// PSK_FINISH as it has to be.
fn finish_request(device: &Device, client: &mut Client) -> Vec<u8> {
    let mut request = device.simple(Code::PSK_FINISH);
    client.transcript.append(&request);
    let th = client.transcript.digest();
    let data = client.session.verify_data(&RingProvider::new(), Role::Requester, &th).unwrap();
    client.transcript.append(data.as_ref());
    request.extend_from_slice(data.as_ref());
    request
}

fn finish(device: &mut Device, client: &mut Client) {
    let request = finish_request(device, client);
    let response = client.send(device, &request);
    assert_eq!(response, [device.version.0, Code::PSK_FINISH_RSP.0, 0, 0]);
    client.transcript.append(&response);
    client.session.establish(&RingProvider::new(), &client.transcript.digest()).unwrap();
    let id = client.session.id();
    assert_eq!(device.responder.poll_event(), Some(Event::SessionEstablished { id }));
}

#[test]
fn a_session_begins_works_and_ends() {
    for version in ALL {
        for psk in [PskSupport::WithoutContext, PskSupport::WithContext] {
            let mut device = negotiated(version, psk);
            let mut client = begin(&mut device);
            assert_eq!(client.heartbeat, 5);
            let view = device.responder.sessions().next().unwrap();
            assert_eq!((view.id, view.origin), (client.session.id(), Origin::Psk { hint: b"one".to_vec() }));
            assert_eq!(view.established, psk == PskSupport::WithoutContext);
            assert_eq!((view.secured_version, view.requester), (Some(Version::V1_1), None));
            if psk == PskSupport::WithContext {
                assert_eq!(device.responder.poll_event(), None);
                finish(&mut device, &mut client);
            }
            assert_eq!(client.simple(&mut device, Code::HEARTBEAT), [version.0, 0x68, 0, 0]);
            let response = client.send(&mut device, &vendor_message(version, b"abc"));
            assert_eq!(response[11..], *b"cba");
            assert_eq!(client.simple(&mut device, Code::END_SESSION), [version.0, 0x6C, 0, 0]);
            let ended = Event::SessionEnded { id: client.session.id(), reason: EndReason::Requested };
            assert_eq!(device.responder.poll_event(), Some(ended));
        }
    }
}

#[test]
fn psk_exchange_checks_every_field() {
    for version in ALL {
        let mut device = negotiated(version, PskSupport::WithContext);
        let request = exchange_request(&device);
        // Offsets: summary 2, policy 3, hint length 6, context length 8, opaque length 10, hint 12, context 15, opaque 47.
        let element = if version < Version::V1_2 { 55 } else { 51 };
        let mut cases: Vec<(&str, usize, &[u8])> = vec![
            ("summary", 2, &[2]),
            ("hint length", 6, &[0xFF, 0xFF]),
            ("context length", 8, &[31]),
            ("context length", 9, &[0x10]),
            ("opaque length", 11, &[5]),
            ("hint", 12, b"ONE"),
            ("hint", 14, b"f"),
            ("secured version", element + 8, &[0x13]),
            ("opaque element", element + 2, &[0xFF]),
        ];
        if version >= Version::V1_3 {
            cases.push(("all events", 3, &[2]));
        }
        for (field, offset, bytes) in cases {
            let mut changed = request.clone();
            changed[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(device.error(&changed), (ErrorCode::INVALID_REQUEST, 0), "{version} {field}");
        }
        for length in 4..request.len() {
            assert_eq!(device.error(&request[..length]), (ErrorCode::INVALID_REQUEST, 0), "{length}");
        }
        // Nothing of all that took one of the four places.
        for _ in 0..4 {
            begin(&mut device);
        }
        assert_eq!(device.error(&request), (ErrorCode::SESSION_LIMIT_EXCEEDED, 0));
    }
}

#[test]
fn no_summary_and_no_opaque_data_are_fine() {
    let mut device = negotiated(Version::V1_2, PskSupport::WithContext);
    let mut request = exchange_request(&device);
    request.truncate(47);
    (request[2], request[10]) = (0, 0);
    let response = device.send(&request);
    let mut reader = Reader::new(&response);
    let parsed = PskExchangeRsp::parse(&mut reader, 0, 32).unwrap();
    reader.finish(0).unwrap();
    assert_eq!((parsed.context.len(), parsed.opaque.len()), (32, 0));

    let mut device = with(Version::V1_2, PskSupport::WithContext, |config| {
        config.capabilities.measurements = MeasurementSupport::None;
        config.capabilities.fresh_measurements = false;
    });
    let request = exchange_request(&device);
    assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "no summary to be had");
}

#[test]
fn a_malformed_psk_finish_waits_for_a_proper_one_a_wrong_one_does_not() {
    for version in ALL {
        let mut device = negotiated(version, PskSupport::WithContext);
        let mut client = begin(&mut device);
        let request = finish_request(&device, &mut client);
        for length in 4..request.len() {
            let refused = client.error(&mut device, &request[..length]);
            assert_eq!(refused, (ErrorCode::INVALID_REQUEST, 0));
        }
        let surplus = [&request[..], &[0]].concat();
        assert_eq!(client.error(&mut device, &surplus), (ErrorCode::INVALID_REQUEST, 0));
        let response = client.send(&mut device, &request);
        assert_eq!(response, [version.0, Code::PSK_FINISH_RSP.0, 0, 0]);

        let mut client = begin(&mut device);
        let mut request = finish_request(&device, &mut client);
        *request.last_mut().unwrap() ^= 1;
        assert_eq!(client.error(&mut device, &request), (ErrorCode::DECRYPT_ERROR, 0));
        assert_eq!(client.try_send(&mut device, &request), None, "it is gone");
    }
}

/// It is refused before its HMAC, which would end the session, is looked at.
#[test]
fn malformed_opaque_data_of_psk_finish_is_refused() {
    let version = Version::V1_4;
    let mut device = negotiated(version, PskSupport::WithContext);
    let mut client = begin(&mut device);
    for (opaque, error) in
        [(&[1, 0, 0, 0][..], ErrorCode::INVALID_REQUEST), (&[0, 0, 0, 0], ErrorCode::DECRYPT_ERROR)]
    {
        let request =
            encoded(|out| PskFinish { version, opaque, verify_data: &[0; 32] }.encode(out).unwrap());
        assert_eq!(client.error(&mut device, &request), (error, 0));
    }
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Waits for FINISH.
    Handshake,
    /// Waits for PSK_FINISH.
    PskHandshake,
    /// Established.
    Application,
}

/// Every request of sessions in every state of one: the kind of handshake decides which end it may have.
#[test]
fn every_request_in_every_state_of_a_session() {
    use State::{Application, Handshake, PskHandshake};
    let unexpected = Some(ErrorCode::UNEXPECTED_REQUEST);
    let wrong_hmac = Some(ErrorCode::DECRYPT_ERROR);
    for version in ALL {
        for state in [Handshake, PskHandshake, Application] {
            let only = |wanted, outcome| if state == wanted { outcome } else { unexpected };
            let table = [
                (Code::GET_DIGESTS, only(Application, None)),
                (Code::GET_MEASUREMENTS, only(Application, None)),
                (Code::CHALLENGE, unexpected),
                (Code::KEY_EXCHANGE, unexpected),
                (Code::PSK_EXCHANGE, unexpected),
                (Code::FINISH, only(Handshake, wrong_hmac)),
                (Code::PSK_FINISH, only(PskHandshake, wrong_hmac)),
                (Code::HEARTBEAT, only(Application, None)),
                (Code::KEY_UPDATE, only(Application, None)),
                (Code::END_SESSION, only(Application, None)),
                (Code::GET_VERSION, unexpected),
                (Code::GET_CAPABILITIES, unexpected),
                (Code::NEGOTIATE_ALGORITHMS, unexpected),
            ];
            for (code, outcome) in table {
                let mut device = negotiated(version, PskSupport::WithContext);
                let mut client = match state {
                    Handshake => device.begin(),
                    PskHandshake | Application => begin(&mut device),
                };
                if state == Application {
                    finish(&mut device, &mut client);
                }
                let mut request = device.simple(code);
                match code {
                    Code::PSK_EXCHANGE => request = exchange_request(&device),
                    Code::FINISH | Code::PSK_FINISH | Code::CHALLENGE => request.resize(36, 0),
                    Code::KEY_UPDATE => request[2] = 1,
                    // The requester's context, from 1.3 on.
                    Code::GET_MEASUREMENTS => request.resize(12, 0),
                    _ => {}
                }
                let response = client.send(&mut device, &request);
                match outcome {
                    None => assert_eq!(response[1], code.0 & 0x7F, "{version} {state:?} {code:?}"),
                    Some(error) => {
                        let expected = [version.0, 0x7F, error.0, 0];
                        assert_eq!(response, expected, "{version} {state:?} {code:?}");
                    }
                }
                // What was refused left the session as it was, except for a wrong HMAC.
                if outcome == unexpected && state == PskHandshake {
                    finish(&mut device, &mut client);
                }
            }
        }
    }
}

#[test]
fn requests_that_were_not_advertised_are_unsupported() {
    let unsupported = |code: Code| (ErrorCode::UNSUPPORTED_REQUEST, code.0);
    for version in ALL {
        let mut device = negotiated(version, PskSupport::None);
        for code in [Code::PSK_EXCHANGE, Code::PSK_FINISH] {
            let request = device.simple(code);
            assert_eq!(device.error(&request), unsupported(code));
        }
        // Without a context there is nothing to finish.
        let mut device = negotiated(version, PskSupport::WithoutContext);
        let mut client = begin(&mut device);
        let request = device.simple(Code::PSK_FINISH);
        assert_eq!(device.error(&request), unsupported(Code::PSK_FINISH));
        assert_eq!(client.error(&mut device, &request), unsupported(Code::PSK_FINISH));
        assert_eq!(client.simple(&mut device, Code::HEARTBEAT)[1], Code::HEARTBEAT_ACK.0);

        // With one, it belongs into the session.
        let mut device = negotiated(version, PskSupport::WithContext);
        let _client = begin(&mut device);
        let code = if version < Version::V1_2 { ErrorCode::UNSPECIFIED } else { ErrorCode::SESSION_REQUIRED };
        let request = device.simple(Code::PSK_FINISH);
        assert_eq!(device.error(&request), (code, 0));

        // A requester that did not say it has keys is not given a session by one.
        device.flags &= !RequesterFlags::PSK;
        device.negotiate();
        let request = exchange_request(&device);
        assert_eq!(device.error(&request), unsupported(Code::PSK_EXCHANGE));
        // One that has nothing but keys needs no group, and can end its session.
        let mut device = with(version, PskSupport::WithContext, |config| config.groups.reverse());
        device.flags = RequesterFlags::PSK | RequesterFlags::MAC | RequesterFlags::ENCRYPT;
        device.negotiate();
        let mut client = begin(&mut device);
        finish(&mut device, &mut client);
        assert_eq!(client.simple(&mut device, Code::END_SESSION)[1], Code::END_SESSION_ACK.0);
    }
}

#[test]
fn a_handshake_in_the_clear_is_not_for_pre_shared_keys() {
    let mut device = with(Version::V1_3, PskSupport::WithContext, |config| {
        config.capabilities.handshake_in_the_clear = true;
    });
    device.flags |= RequesterFlags::HANDSHAKE_IN_THE_CLEAR;
    device.negotiate();
    let mut client = begin(&mut device);
    let mut request = device.simple(Code::FINISH);
    request.resize(36, 0);
    assert_eq!(
        device.error(&request),
        (ErrorCode::UNEXPECTED_REQUEST, 0),
        "there is no handshake it could end"
    );
    finish(&mut device, &mut client);
}
