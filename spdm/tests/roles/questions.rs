//! Requests of the responder that nobody should answer, and answers that nobody should believe.

use std::collections::VecDeque;
use std::time::Duration;

use spdm::crypto::{AsymAlgorithm, RingProvider};
use spdm::identity::generate_requester;
use spdm::requester::{
    Command, Driver, DriverError, Requester, RequesterConfig, RequesterError, Response, Transport, Violation,
};
use spdm::responder::{MutualAuthentication, Responder, ResponderConfig, SessionAuthentication};
use spdm::slot::Slots;
use spdm::wire::{Code, ErrorCode, Version};

use super::pair::*;

/// What the responder asks in its place, and what came back.
struct Asks<'d> {
    device: &'d mut Device,
    /// Answers to GET_ENCAPSULATED_REQUEST and DELIVER_ENCAPSULATED_RESPONSE; the last one repeats itself.
    script: VecDeque<Vec<u8>>,
    delivered: Vec<Vec<u8>>,
}

impl Transport for &mut Asks<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        if message[1] == Code::DELIVER_ENCAPSULATED_RESPONSE.0 {
            self.delivered.push(message.to_vec());
        } else if message[1] != Code::GET_ENCAPSULATED_REQUEST.0 {
            return (&mut *self.device).exchange(secured, message);
        }
        let bytes =
            if self.script.len() > 1 { self.script.pop_front() } else { self.script.front().cloned() };
        Ok(Response { secured, bytes: bytes.unwrap() })
    }

    fn wait(&mut self, _: Duration) {}
}

fn identity() -> Slots {
    static SLOTS: std::sync::OnceLock<Slots> = std::sync::OnceLock::new();
    SLOTS
        .get_or_init(|| {
            Slots::single(generate_requester("a requester", AsymAlgorithm::EcdsaP256).unwrap().slot())
        })
        .clone()
}

/// Connected, both able to converse; nobody asks anything yet.
fn pair(version: Version, identity: Slots) -> Pair {
    let mutual = MutualAuthentication { session: SessionAuthentication::Encapsulated, ..Default::default() };
    let mut config = ResponderConfig { mutual, ..responder_config(version) };
    config.capabilities.handshake_in_the_clear = true;
    let responder = Responder::new(config, slots(), Box::new(RingProvider::new())).unwrap();
    let config =
        RequesterConfig { handshake_in_the_clear: true, encapsulated: true, ..requester_config(version) };
    let requester = Requester::with_identity(config, Box::new(RingProvider::new()), identity).unwrap();
    let mut pair = Pair { requester, device: Device { responder, now: Duration::ZERO } };
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

/// Runs SERVE against a script: the result, and what was delivered.
fn serve(pair: &mut Pair, script: Vec<Vec<u8>>) -> (Result<(), RequesterError>, Vec<Vec<u8>>) {
    let mut asks = Asks { device: &mut pair.device, script: script.into(), delivered: Vec::new() };
    let result = match Driver::new(&mut pair.requester, &mut asks).run(Command::Serve) {
        Ok(_) => Ok(()),
        Err(DriverError::Requester(error)) => Err(error),
        Err(DriverError::Transport(error)) => panic!("{error}"),
    };
    (result, asks.delivered)
}

fn asked(version: Version, id: u8, request: &[u8]) -> Vec<u8> {
    [&[version.0, Code::ENCAPSULATED_REQUEST.0, id, 0], request].concat()
}

/// ENCAPSULATED_RESPONSE_ACK of `kind` with its payload.
fn acknowledged(version: Version, acknowledged: u8, id: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut ack = vec![version.0, Code::ENCAPSULATED_RESPONSE_ACK.0, id, kind];
    if version >= Version::V1_2 {
        ack.extend_from_slice(&[acknowledged, 0, 0, 0]);
    }
    ack.extend_from_slice(payload);
    ack
}

#[test]
fn the_requester_answers_what_it_should_and_nothing_else() {
    for version in VERSIONS {
        let v = version.0;
        let mut challenge = vec![v, 0x83, 0, 0];
        challenge.resize(4 + 32 + if version >= Version::V1_3 { 8 } else { 0 }, 0x11);
        let error = |code: ErrorCode, data| vec![v, Code::ERROR.0, code.0, data];
        let unsupported = |code| error(ErrorCode::UNSUPPORTED_REQUEST, code);
        let invalid = || error(ErrorCode::INVALID_REQUEST, 0);
        let table: Vec<(Slots, Vec<u8>, Vec<u8>)> = vec![
            (identity(), vec![v, 0x81, 0, 0], vec![v, 0x01]),
            (identity(), vec![v, 0x82, 0, 0, 0, 0, 16, 0], vec![v, 0x02, 0]),
            (identity(), vec![v, 0x82, 7, 0, 0, 0, 16, 0], invalid()),
            (identity(), vec![v, 0x82, 0, 0, 0xFF, 0xFF, 16, 0], invalid()),
            (identity(), vec![v, 0x82, 0, 0], invalid()),
            // Only what follows CHALLENGE_AUTH may challenge, and only a session has keys.
            (identity(), challenge.clone(), error(ErrorCode::UNEXPECTED_REQUEST, 0)),
            (identity(), vec![v, 0xE9, 1, 7], invalid()),
            (identity(), vec![v, 0xE0, 0, 0], unsupported(0xE0)),
            // Neither endpoint information nor events were announced.
            (identity(), vec![v, 0x87, 1, 0, 0, 0, 0, 0], unsupported(0x87)),
            (identity(), vec![v, 0xF1, 0, 0, 1, 0, 0, 0], unsupported(0xF1)),
            (identity(), vec![v, 0xE4, 0, 0], unsupported(0xE4)),
            (identity(), vec![v, 0x7F, 0, 0], unsupported(0x7F)),
            (identity(), vec![v ^ 1, 0x81, 0, 0], error(ErrorCode::VERSION_MISMATCH, 0)),
            (Slots::default(), vec![v, 0x81, 0, 0], unsupported(0x81)),
            (Slots::default(), vec![v, 0x82, 0, 0, 0, 0, 16, 0], unsupported(0x82)),
            (Slots::default(), challenge, unsupported(0x83)),
        ];
        for (slots, request, expected) in table {
            let mut pair = pair(version, slots);
            let script = vec![asked(version, 9, &request), acknowledged(version, 9, 0, 0, &[])];
            let (result, delivered) = serve(&mut pair, script);
            assert_eq!(result, Ok(()), "{version} {request:02x?}");
            let [message] = delivered.as_slice() else { panic!("{delivered:?}") };
            assert_eq!(message[..4], [v, Code::DELIVER_ENCAPSULATED_RESPONSE.0, 9, 0]);
            assert!(message[4..].starts_with(&expected), "{version} {request:02x?}: {message:02x?}");
            assert_eq!(pair.seen_in(), None, "the connection goes on");
        }
    }
}

#[test]
fn the_requester_ends_a_conversation_that_makes_no_sense() {
    for version in VERSIONS {
        let digests = [version.0, 0x81, 0, 0];
        let first = asked(version, 1, &digests);
        let cut = |length: usize| vec![first[..length].to_vec()];
        let unknown = acknowledged(version, 1, 0, 3, &[]);
        let empty = acknowledged(version, 1, 2, 1, &digests[..3]);
        for script in
            [cut(4), cut(7), vec![first.clone(), unknown], vec![first.clone(), empty], vec![digests.to_vec()]]
        {
            let mut pair = pair(version, identity());
            let (result, _) = serve(&mut pair, script);
            assert!(
                matches!(result, Err(RequesterError::Malformed { .. } | RequesterError::Violation { .. })),
                "{result:?}"
            );
            assert_eq!(pair.seen_in(), None);
        }
        let violation = |result, expected: Violation| {
            let Err(RequesterError::Violation { violation, .. }) = result else { panic!("{result:?}") };
            assert_eq!(violation, expected);
        };
        let mut pair = pair(version, identity());
        if version >= Version::V1_2 {
            let other = acknowledged(version, 2, 0, 0, &[]);
            let (result, _) = serve(&mut pair, vec![first.clone(), other]);
            violation(result, Violation::Echo("the number of the encapsulated request"));
        }
        let for_ever = acknowledged(version, 1, 1, 1, &digests);
        let (result, delivered) = serve(&mut pair, vec![first, for_ever]);
        violation(result, Violation::Questions);
        assert_eq!(delivered.len(), 4096);
    }
}

/// Sends clear messages to the responder; the answer's code and first parameter.
fn say(pair: &mut Pair, message: &[u8]) -> (Code, u8) {
    let response = (&mut pair.device).exchange(false, message).unwrap().bytes;
    (Code(response[1]), response[2])
}

#[test]
fn the_responder_believes_no_answer_to_what_it_did_not_ask() {
    for version in VERSIONS {
        let v = version.0;
        let mut pair = pair(version, identity());
        let idle = if version >= Version::V1_3 {
            ErrorCode::NO_PENDING_REQUESTS
        } else {
            ErrorCode::UNEXPECTED_REQUEST
        };
        let unexpected = (Code::ERROR, ErrorCode::UNEXPECTED_REQUEST.0);
        let digests = [v, 0xEB, 0, 0, v, 0x01, 1, 1];
        assert_eq!(say(&mut pair, &[v, 0xEA, 0, 0]), (Code::ERROR, idle.0));
        assert_eq!(say(&mut pair, &digests), unexpected);
        assert_eq!(say(&mut pair, &digests[..7]), (Code::ERROR, ErrorCode::INVALID_REQUEST.0));
        assert_eq!(say(&mut pair, &[v ^ 1, 0xEA, 0, 0]), (Code::ERROR, ErrorCode::VERSION_MISMATCH.0));
        assert_eq!(pair.seen_in(), None);
    }
    // Who does not have the capability is told so.
    let mut plain = Pair::identified(Version::V1_3);
    for code in [0xEA, 0xEB] {
        let response = (&mut plain.device).exchange(false, &[0x13, code, 0, 0, 0x13, 1, 0, 0]).unwrap();
        assert_eq!(response.bytes, [0x13, 0x7F, ErrorCode::UNSUPPORTED_REQUEST.0, code]);
    }
}
