//! CXL's protocols as a requester meets them: golden bytes (by DMTF's `cxl_idekm.h` and `cxl_tsp.h`), every length, every
//! state, and whose session it is.

use super::*;

const SESSION: SessionId = 0x0001_FFFE;
const OTHER: SessionId = 0x0002_FFFD;

/// Receive and transmit keys of a CXL sub-stream.
const RX: u8 = 0x80;
const TX: u8 = 0x82;

fn tsp(target: &mut Target, session: SessionId, message: &[u8]) -> Vec<u8> {
    let mut response = vec![0xA5];
    assert_eq!(target.tsp(Some(session), message, &mut response), Answer::Respond);
    assert_eq!(response.remove(0), 0xA5);
    response
}

fn ide_km(target: &mut Target, session: SessionId, message: &[u8]) -> Option<Vec<u8>> {
    let mut response = vec![0xA5];
    let answer = target.ide_km(Some(session), message, &mut response);
    assert_eq!(response.remove(0), 0xA5);
    assert_eq!(answer == Answer::Silent, response.is_empty());
    (answer == Answer::Respond).then_some(response)
}

fn error(code: u8) -> Vec<u8> {
    vec![0x10, 0x7F, 0, 0, code, 0, 0, 0, 0, 0, 0, 0]
}

fn set_configuration() -> Vec<u8> {
    let mut message = vec![0; 352];
    message[..2].copy_from_slice(&[0x10, 0x83]);
    message
}

/// What spdm_requester_emu asks for: encryption with AES-XTS-256, read access control with implicit and explicit in-band
/// changes, firmware updates while locked.
fn ambitious() -> Vec<u8> {
    let mut message = set_configuration();
    message[2] = 1;
    message[4] = 2;
    message[12] = 0x02 | 0x04 | 0x10;
    message[24] = 1;
    for entry in 1..8 {
        message[48 + 16 * entry + 8] = 0xFF;
    }
    message
}

fn key_prog(key: u8, length: usize) -> Vec<u8> {
    let mut message = vec![2, 0, 0, 9, 0, key, 0];
    message.resize(length, 0x5A);
    message
}

/// A target whose primary session is [`SESSION`].
fn target() -> Target {
    let mut target = Target::new();
    tsp(&mut target, SESSION, &[0x10, 0x81, 0, 0]);
    target
}

fn locked() -> Target {
    let mut target = target();
    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x86, 0, 0]), [0x10, 0x06, 0, 0]);
    assert_eq!(target.take_note(), Some(Note::Locked));
    target
}

#[test]
fn tsp_says_that_nothing_is_there() {
    let mut target = Target::new();
    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x81, 0, 0]), [0x10, 0x01, 0, 0, 1, 0x10]);
    let capabilities = tsp(&mut target, SESSION, &[0x10, 0x82, 0, 0]);
    assert_eq!((capabilities.len(), &capabilities[..2]), (52, &[0x10, 0x02][..]));
    assert!(capabilities[2..].iter().all(|byte| *byte == 0));
    assert_eq!(target.take_note(), None);

    assert_eq!(tsp(&mut target, SESSION, &ambitious()), [0x10, 0x03, 0, 0]);
    assert_eq!(target.take_note(), Some(Note::LeftOff));
    let mut expected = vec![0; 192];
    expected[..2].copy_from_slice(&[0x10, 0x04]);
    for entry in 0..8 {
        expected[48 + 16 * entry + 8] = 0xFF;
    }
    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x84, 0, 0]), expected, "nothing of it is enabled");
    assert_eq!(tsp(&mut target, SESSION, &set_configuration()), [0x10, 0x03, 0, 0]);
    assert_eq!(target.take_note(), None, "nothing was asked for");

    let report = |offset, length| [0x10, 0x85, 0, 0, offset, 0, length, 0];
    let whole = [0x10, 0x05, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(tsp(&mut target, SESSION, &report(0, 0x40)), whole);
    assert_eq!(tsp(&mut target, SESSION, &report(1, 2)), [0x10, 0x05, 0, 0, 2, 0, 1, 0, 0, 0]);
    for (offset, length) in [(4, 1), (0xFF, 1), (0, 0)] {
        assert_eq!(tsp(&mut target, SESSION, &report(offset, length)), error(1), "{offset} {length}");
    }

    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x86, 0, 0]), [0x10, 0x06, 0, 0]);
    expected[36] = 1;
    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x84, 0, 0]), expected, "locked");
    assert_eq!(tsp(&mut target, SESSION, &report(0, 0x40)), whole);
}

#[test]
fn any_single_feature_is_noticed() {
    for (at, width) in [(2, 2), (4, 4), (12, 2), (16, 4), (24, 2), (28, 4), (32, 4)] {
        for bit in 0..8 * width {
            let mut message = set_configuration();
            message[at + bit / 8] = 1 << (bit % 8);
            let mut target = target();
            assert_eq!(tsp(&mut target, SESSION, &message), [0x10, 0x03, 0, 0]);
            assert_eq!(target.take_note(), Some(Note::LeftOff), "{at} {bit}");
        }
    }
}

#[test]
fn keys_for_secondary_sessions_are_refused() {
    for bit in 0..16 {
        let mut message = set_configuration();
        message[192 + bit / 8] = 1 << (bit % 8);
        let mut target = target();
        assert_eq!(tsp(&mut target, SESSION, &message), error(1));
        assert_eq!(target.take_note(), Some(Note::Refused(ErrorCode::INVALID_REQUEST)));
    }
}

#[test]
fn every_other_length_and_code_is_an_error_and_changes_nothing() {
    let requests = [
        vec![0x10, 0x81, 0, 0],
        vec![0x10, 0x82, 0, 0],
        ambitious(),
        vec![0x10, 0x84, 0, 0],
        vec![0x10, 0x85, 0, 0, 0, 0, 4, 0],
        vec![0x10, 0x86, 0, 0],
    ];
    for request in requests {
        let mut target = target();
        for length in (0..request.len() + 3).filter(|length| *length != request.len()) {
            let mut message = request.clone();
            message.resize(length, 0);
            assert_eq!(tsp(&mut target, SESSION, &message), error(1), "{:#x}, {length} bytes", request[1]);
        }
        for version in (0..=0xFF).filter(|version| *version != 0x10) {
            let message = [&[version], &request[1..]].concat();
            assert_eq!(tsp(&mut target, SESSION, &message), error(5));
        }
        assert_eq!(target.state(), TspState::ConfigUnlocked);
    }
    let mut target = target();
    for code in (0..=0xFF).filter(|code| !(0x81..=0x86).contains(code)) {
        assert_eq!(tsp(&mut target, SESSION, &[0x10, code, 0, 0]), error(4));
        assert_eq!(tsp(&mut target, SESSION, &[0x10, code]), error(4), "the code is judged first");
    }
}

/// What came back, in the words of the table.
fn words(response: &[u8]) -> String {
    match response {
        [0x10, 0x7F, 0, 0, code, ..] => ErrorCode((*code).into()).to_string(),
        _ => "answered".into(),
    }
}

#[test]
fn the_documentation_prints_this_table() {
    let documentation = include_str!("mod.rs");
    for (name, request) in [
        ("GET_TARGET_TSP_VERSION", vec![0x10, 0x81, 0, 0]),
        ("GET_TARGET_CAPABILITIES", vec![0x10, 0x82, 0, 0]),
        ("SET_TARGET_CONFIGURATION", ambitious()),
        ("GET_TARGET_CONFIGURATION", vec![0x10, 0x84, 0, 0]),
        ("GET_TARGET_CONFIGURATION_REPORT", vec![0x10, 0x85, 0, 0, 0, 0, 4, 0]),
        ("LOCK_TARGET_CONFIGURATION", vec![0x10, 0x86, 0, 0]),
    ] {
        let (mut unlocked, mut locked) = (target(), locked());
        let mut first = words(&tsp(&mut unlocked, SESSION, &request));
        if unlocked.state() == TspState::ConfigLocked {
            first = "**CONFIG_LOCKED**".into();
        }
        let second = words(&tsp(&mut locked, SESSION, &request));
        assert_eq!(locked.state(), TspState::ConfigLocked);
        let third = words(&tsp(&mut locked, OTHER, &request));
        assert_eq!(third, words(&tsp(&mut target(), OTHER, &request)), "in either state");
        let row = format!("//! | {name} | {first} | {second} | {third} |");
        assert!(documentation.contains(&row), "missing in cxl/mod.rs:\n{row}");
    }
}

#[test]
fn the_first_session_is_the_primary_one_until_it_ends() {
    let mut target = Target::new();
    assert_eq!(tsp(&mut target, OTHER, &[0x10, 0x82, 0, 0]), error(7), "nobody asked for the version yet");
    let mut target = locked();
    target.session_ended(OTHER);
    assert_eq!((target.state(), target.take_note()), (TspState::ConfigLocked, None));
    target.session_ended(SESSION);
    assert_eq!((target.state(), target.take_note()), (TspState::ConfigUnlocked, Some(Note::Unlocked)));
    assert_eq!(tsp(&mut target, SESSION, &[0x10, 0x82, 0, 0]), error(7), "the id is another session's now");
    assert_eq!(words(&tsp(&mut target, OTHER, &[0x10, 0x81, 0, 0])), "answered");
    assert_eq!(words(&tsp(&mut target, OTHER, &[0x10, 0x86, 0, 0])), "answered");
    target.reset();
    assert_eq!(target.state(), TspState::ConfigUnlocked);
    assert_eq!(words(&tsp(&mut target, SESSION, &[0x10, 0x81, 0, 0])), "answered");
}

#[test]
fn ide_km_goes_through_its_messages() {
    let mut target = Target::new();
    let query = ide_km(&mut target, SESSION, &[0, 0, 0]).unwrap();
    assert_eq!((query.len(), &query[..8]), (44, &[1, 0, 0, 0, 0, 0, 0, 0x41][..]));
    assert!(query[8..].iter().all(|byte| *byte == 0), "CXL IDE Capable is clear");
    let none = ide_km(&mut target, SESSION, &[7, 0, 0, 9, 0, RX, 0]).unwrap();
    assert_eq!((none.len(), &none[..7]), (51, &[8, 0, 0, 9, 0, RX, 0][..]));
    assert!(none[7..].iter().all(|byte| *byte == 0), "it makes no keys");
    for key in [RX, TX, RX | 8, TX | 8] {
        let head = |object, key| vec![object, 0, 0, 9, 0, key, 0];
        assert_eq!(ide_km(&mut target, SESSION, &head(4, key)), None, "no key yet");
        assert_eq!(ide_km(&mut target, SESSION, &key_prog(key, 51)), Some(head(3, key)));
        for object in [4, 4, 5, 5] {
            assert_eq!(ide_km(&mut target, SESSION, &head(object, key)), Some(head(6, key)));
        }
        assert_eq!(ide_km(&mut target, SESSION, &head(4, key)), None, "stopped");
    }
    // One direction does not speak for the other.
    ide_km(&mut target, SESSION, &key_prog(RX, 51)).unwrap();
    assert_eq!(ide_km(&mut target, SESSION, &[4, 0, 0, 9, 0, TX, 0]), None);
}

#[test]
fn what_names_no_key_gets_a_status_or_silence() {
    let mut target = Target::new();
    let bad = (0..=0xFF).filter(|key| key & 0xF5 != 0x80).map(|key| (key, 0));
    for (key, port) in bad.chain((1..=0xFF).map(|port| (RX, port))) {
        let mut message = key_prog(key, 51);
        message[6] = port;
        assert_eq!(ide_km(&mut target, SESSION, &message), Some(vec![3, 0, 0, 9, 1, key, port]));
        for object in [4, 5, 7] {
            assert_eq!(ide_km(&mut target, SESSION, &[object, 0, 0, 9, 0, key, port]), None);
        }
    }
    for port in 1..=0xFF {
        assert_eq!(ide_km(&mut target, SESSION, &[0, 0, port]), None);
    }
}

#[test]
fn every_other_length_of_an_object_is_silence_but_for_key_prog() {
    let mut target = Target::new();
    for length in (7..60).filter(|length| *length != 51) {
        let answer = ide_km(&mut target, SESSION, &key_prog(RX, length));
        assert_eq!(answer, Some(vec![3, 0, 0, 9, 1, RX, 0]), "{length}");
    }
    for length in 0..7 {
        assert_eq!(ide_km(&mut target, SESSION, &key_prog(RX, length)[..length]), None);
    }
    assert_eq!(ide_km(&mut target, SESSION, &[4, 0, 0, 9, 0, RX, 0]), None, "none of them brought a key");
    ide_km(&mut target, SESSION, &key_prog(RX, 51)).unwrap();
    for request in [&[0, 0, 0][..], &[4, 0, 0, 9, 0, RX, 0], &[5, 0, 0, 9, 0, RX, 0], &[7, 0, 0, 9, 0, RX, 0]]
    {
        for length in (0..request.len() + 3).filter(|length| *length != request.len()) {
            let mut message = request.to_vec();
            message.resize(length, 0);
            assert_eq!(ide_km(&mut target, SESSION, &message), None);
        }
    }
    for object in [1, 3, 6].into_iter().chain(8..=0xFF) {
        assert_eq!(ide_km(&mut target, SESSION, &[object, 0, 0, 9, 0, RX, 0]), None);
    }
}

#[test]
fn one_session_owns_the_keys_until_it_ends() {
    for claim in [vec![0, 0, 0], key_prog(RX, 51), key_prog(RX, 9), vec![7, 0, 0, 9, 0, RX, 0]] {
        let mut target = Target::new();
        ide_km(&mut target, SESSION, &claim).unwrap();
        assert_eq!(ide_km(&mut target, OTHER, &[0, 0, 0]), None);
        target.session_ended(OTHER);
        assert_eq!(ide_km(&mut target, OTHER, &[0, 0, 0]), None);
        target.session_ended(SESSION);
        assert_eq!(
            ide_km(&mut target, OTHER, &[4, 0, 0, 9, 0, RX, 0]),
            None,
            "the key went with its session"
        );
        assert!(ide_km(&mut target, OTHER, &[0, 0, 0]).is_some());
    }
    // What fails claims nothing.
    let mut target = Target::new();
    for message in [&[0, 0, 1][..], &[4, 0, 0, 9, 0, RX, 0], &[5, 0, 0, 9, 0, RX, 0], &[7, 0, 0, 9, 0, 0, 0]]
    {
        ide_km(&mut target, SESSION, message);
    }
    assert!(ide_km(&mut target, OTHER, &[0, 0, 0]).is_some());
}

#[test]
fn outside_of_a_session_there_is_no_answer() {
    let mut target = Target::new();
    let mut response = Vec::new();
    assert_eq!(target.ide_km(None, &[0, 0, 0], &mut response), Answer::Silent);
    assert_eq!(target.tsp(None, &[0x10, 0x81, 0, 0], &mut response), Answer::Silent);
    assert_eq!((response, target.take_note()), (vec![], None));
}
