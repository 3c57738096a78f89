//! A session from a pre-shared key with somebody in the middle: no byte of its handshake may be another one on the way.

use spdm::psk::PreSharedKey;
use spdm::requester::{Command, Reply, RequesterError, Step};
use spdm::responder::PskSupport;
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};

use super::pair::*;

fn connected(version: Version, psk: PskSupport) -> Pair {
    let keys = vec![PreSharedKey::new(b"hint".to_vec(), b"secret".to_vec())];
    let (mut responder, mut requester) = (responder_config(version), requester_config(version));
    responder.capabilities.psk = psk;
    (responder.psks, requester.psks) = (keys.clone(), keys);
    let mut pair = Pair::with(responder, slots(), requester);
    pair.run(Command::Connect).unwrap();
    pair
}

/// What to do with the message of this number: even numbers are requests, odd ones responses.
type Change<'c> = &'c mut dyn FnMut(usize, &mut Vec<u8>);

/// PSK_EXCHANGE and, if there is one, PSK_FINISH, each message changed on its way; fails as the requester does, or with
/// `None` if the responder keeps silent.
fn handshake(pair: &mut Pair, change: Change<'_>) -> Result<(), Option<RequesterError>> {
    let (hint, summary) = (b"hint".to_vec(), SummaryType::All);
    let start = Command::StartPskSession { hint, summary, end_on_update: false };
    let mut step = pair.requester.begin(start).map_err(Some)?;
    for exchange in 0.. {
        let (secured, mut message) = match step {
            Step::Send { secured, bytes } => (secured, bytes),
            Step::Done(Reply::SessionStarted(_)) => return Ok(()),
            Step::Done(_) | Step::RetryAfter(_) => panic!("neither a session nor a message"),
        };
        change(2 * exchange, &mut message);
        let Some((secured, mut answer)) = pair.device.ask(secured, &message) else {
            pair.requester.cancel();
            return Err(None);
        };
        change(2 * exchange + 1, &mut answer);
        step = pair.requester.receive(secured, &answer).map_err(Some)?;
    }
    Err(None)
}

/// Lengths of the handshake's messages.
fn lengths(version: Version, psk: PskSupport) -> Vec<usize> {
    let mut lengths = Vec::new();
    handshake(&mut connected(version, psk), &mut |_, bytes| lengths.push(bytes.len())).unwrap();
    lengths
}

/// The connection is none the worse for what was refused.
fn goes_on(pair: &mut Pair) {
    assert_eq!(pair.requester.sessions().count(), 0, "half a session is none");
    pair.run(Command::Connect).unwrap();
    handshake(pair, &mut |_, _| ()).unwrap();
    let id = pair.requester.session().unwrap().id;
    pair.exercise(id);
}

const KINDS: [PskSupport; 2] = [PskSupport::WithoutContext, PskSupport::WithContext];

#[test]
fn a_handshake_takes_one_exchange_or_two() {
    for version in VERSIONS {
        assert_eq!(KINDS.map(|psk| lengths(version, psk).len()), [2, 4]);
    }
}

#[test]
fn every_changed_byte_is_found() {
    for version in VERSIONS {
        for psk in KINDS {
            let mut pair = connected(version, psk);
            for (number, length) in lengths(version, psk).into_iter().enumerate() {
                for at in 0..length {
                    let result = handshake(&mut pair, &mut |this, bytes| {
                        if this == number {
                            bytes[at] ^= 0x41;
                        }
                    });
                    assert!(result.is_err(), "{version} {psk:?} message {number} byte {at}");
                    assert_eq!(pair.requester.sessions().count(), 0);
                    if at % 4 == 3 {
                        goes_on(&mut pair);
                        pair.run(Command::Connect).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for version in VERSIONS {
        for psk in KINDS {
            let mut pair = connected(version, psk);
            for (number, length) in lengths(version, psk).into_iter().enumerate() {
                for end in 0..length {
                    let result = handshake(&mut pair, &mut |this, bytes| {
                        if this == number {
                            bytes.truncate(end);
                        }
                    });
                    assert!(result.is_err(), "{version} {psk:?} message {number} cut to {end}");
                    pair.run(Command::Connect).unwrap();
                }
                goes_on(&mut pair);
                pair.run(Command::Connect).unwrap();
            }
        }
    }
}

#[test]
fn padding_of_a_data_object_is_no_part_of_it() {
    for version in VERSIONS {
        for psk in KINDS {
            let mut pair = connected(version, psk);
            handshake(&mut pair, &mut |_, bytes| bytes.resize(bytes.len().next_multiple_of(4), 0)).unwrap();
            let id = pair.requester.session().unwrap().id;
            pair.exercise(id);
        }
    }
}

#[test]
fn nothing_of_an_earlier_handshake_can_be_said_again() {
    for psk in KINDS {
        let version = Version::V1_3;
        let mut pair = connected(version, psk);
        let mut said = Vec::new();
        handshake(&mut pair, &mut |_, bytes| said.push(bytes.clone())).unwrap();
        pair.requester.select(None).unwrap();
        // To the requester: its own half of the session id and its context are new.
        for number in (1..said.len()).step_by(2) {
            let result = handshake(&mut pair, &mut |this, bytes| {
                if this == number {
                    *bytes = said[number].clone();
                }
            });
            assert!(result.is_err(), "{psk:?} message {number}");
        }
        // To the responder: a repeated PSK_EXCHANGE gets a session of its own id, whose keys nobody else can have made.
        let (_, answer) = pair.device.ask(false, &said[0]).unwrap();
        assert_ne!(answer, said[1]);
        if let Some(finish) = said.get(2) {
            let _ = pair.events();
            pair.device.ask(true, finish);
            assert!(
                pair.events()
                    .iter()
                    .all(|event| !matches!(event, spdm::responder::Event::SessionEstablished { .. }))
            );
        }
    }
}

#[test]
fn a_responder_without_a_key_in_common_is_found_out() {
    let version = Version::V1_3;
    for psk in KINDS {
        let mut ours = requester_config(version);
        ours.psks = vec![PreSharedKey::new(b"hint".to_vec(), b"ours".to_vec())];
        let mut theirs = responder_config(version);
        theirs.capabilities.psk = psk;
        theirs.capabilities.challenge = false;
        theirs.capabilities.key_exchange = false;
        theirs.capabilities.measurements = spdm::responder::MeasurementSupport::Unsigned;
        theirs.psks = vec![PreSharedKey::new(b"hint".to_vec(), b"theirs".to_vec())];
        let mut pair = Pair::with(theirs, Slots::default(), ours);
        pair.run(Command::Connect).unwrap();
        assert!(handshake(&mut pair, &mut |_, _| ()).is_err());
        assert_eq!(pair.requester.sessions().count(), 0);
    }
}
