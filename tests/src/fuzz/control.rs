//! A request of the control socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here is the test")]

use core::time::Duration;

use tdisp::wire::TdiState;
use tdispd::config::Config;
use tdispd::control::{Answered, Recorder, answer};
use tdispd::device::Device;
use tdispd_proto::control::{Command, Line, Outcome, Reply, Report, ReportText, Request};

/// Bytes that may wait for a client; no reply may have more.
const LONGEST_REPLY: usize = 2 * 1024 * 1024;

/// Whatever a line says, it is answered by one line; the state of no TDI changes; exact bytes are those that are reported, and
/// a report that was got can be set.
pub fn control_request(bytes: &[u8]) {
    let request = match Request::parse(bytes) {
        Ok(request) => request,
        Err(reply) => {
            assert!(matches!(reply.outcome, Outcome::Error(_)));
            return check_line(&reply);
        }
    };
    let again = serde_json::to_vec(&request).unwrap();
    assert_eq!(Request::parse(&again).unwrap(), request);
    let config = Config::default().for_sockets(2).unwrap();
    let mut device = Device::new(&config, None).unwrap();
    let recorder = Recorder::new(&mut device);
    let mut ask = |command: &Command| {
        let Answered { outcome, descriptor } = answer(Duration::ZERO, command, &recorder, &mut device);
        assert_eq!(
            descriptor.is_some(),
            matches!((command, &outcome), (Command::Dmabuf { .. }, Outcome::Result(_)))
        );
        for function in 0..2 {
            assert_eq!(device.tdi_state(function), TdiState::CONFIG_UNLOCKED);
        }
        check_line(&Reply { id: request.id.clone(), outcome: outcome.clone() });
        outcome
    };
    let Outcome::Result(result) = ask(&request.command) else { return };
    let Command::ReportSet { function, report } = &request.command else { return };
    let told: Report = serde_json::from_value(result).unwrap();
    if let ReportText::Exact { hex } = report {
        assert_eq!(told.hex, *hex);
    }
    let Some(fields) = told.report else { return };
    let report = ReportText::Edited(fields);
    let Outcome::Result(again) = ask(&Command::ReportSet { function: *function, report }) else {
        panic!("what was told is refused")
    };
    let again: Report = serde_json::from_value(again).unwrap();
    // Two reserved bytes of the head have no field.
    assert_eq!((again.hex.0.get(..2), again.hex.0.get(4..)), (told.hex.0.get(..2), told.hex.0.get(4..)));
}

fn check_line(reply: &Reply) {
    let line = serde_json::to_vec(reply).unwrap();
    assert!(!line.contains(&b'\n') && line.len() < LONGEST_REPLY);
    assert_eq!(serde_json::from_slice::<Line>(&line).unwrap(), Line::Reply(reply.clone()));
}
