//! CXL IDE_KM and TSP messages, and the ends of their sessions, against a target without a link.
#![allow(clippy::panic, clippy::indexing_slicing, reason = "what fails here is the test")]

use tdisp::cxl::{Note, Target, TspState};
use tdisp::{Answer, SessionId};

use super::script::Script;

/// Messages and session ends in any order: every answer has the shape of its request, claims nothing, and the configuration is
/// locked by the primary session only, for as long as that lives.
pub fn cxl_message(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut target = Target::new();
    let mut locked_by: Option<SessionId> = None;
    while let Some(event) = script.event() {
        let session = 1 + SessionId::from(event >> 2 & 1);
        match event % 4 {
            0 => tsp(&mut target, session, script.sized(400), &mut locked_by),
            1 => ide_km(&mut target, session, script.sized(64)),
            2 => {
                target.session_ended(session);
                if locked_by == Some(session) {
                    assert_eq!(target.take_note(), Some(Note::Unlocked));
                    locked_by = None;
                }
            }
            _ => {
                let (message, mut out) = (script.sized(400), vec![0xA5]);
                assert_eq!(target.tsp(None, message, &mut out), Answer::Silent);
                assert_eq!(target.ide_km(None, message, &mut out), Answer::Silent);
                assert_eq!(out, [0xA5]);
            }
        }
        assert_eq!(target.take_note(), None);
        assert_eq!(target.state() == TspState::ConfigLocked, locked_by.is_some());
    }
}

fn tsp(target: &mut Target, session: SessionId, message: &[u8], locked_by: &mut Option<SessionId>) {
    let before = target.state();
    let mut out = vec![0xA5];
    assert_eq!(target.tsp(Some(session), message, &mut out), Answer::Respond);
    let answer = &out[1..];
    assert_eq!(answer[0], 0x10);
    let note = target.take_note();
    if answer[1] == 0x7F {
        assert_eq!((answer.len(), matches!(note, Some(Note::Refused(_)))), (12, true));
        assert_eq!(target.state(), before, "a refused request changes nothing");
        return;
    }
    assert_eq!(answer[1] | 0x80, message[1]);
    let length = match answer[1] {
        1 => 6,
        2 => 52,
        3 | 6 => 4,
        4 => 192,
        _ => 8 + usize::from(answer[4]),
    };
    assert_eq!(answer.len(), length);
    if answer[1] == 2 || answer[1] == 4 {
        assert!(answer[2..36].iter().all(|byte| *byte == 0), "claims a feature");
    }
    if answer[1] == 6 {
        assert_eq!((before, note), (TspState::ConfigUnlocked, Some(Note::Locked)));
        *locked_by = Some(session);
    }
}

fn ide_km(target: &mut Target, session: SessionId, message: &[u8]) {
    let mut out = vec![0xA5];
    if target.ide_km(Some(session), message, &mut out) == Answer::Silent {
        assert_eq!(out, [0xA5]);
        return;
    }
    let (answer, length) = match message[0] {
        0 => (1, 44),
        2 => (3, 7),
        4 | 5 => (6, 7),
        7 => (8, 51),
        other => panic!("object {other} was answered"),
    };
    assert_eq!((out[1], out.len() - 1), (answer, length));
    if message[0] != 0 {
        let head = |bytes: &[u8]| (bytes[3], bytes[5], bytes[6]);
        assert_eq!(head(&out[1..]), head(message), "stream, key and port come back");
    }
}
