//! Clients of the control socket that mean harm or have accidents; the device must not notice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tdispd_proto::control::{FailureCode, Line, MAX_REQUEST, Outcome, Reply};
use tests::control::Client;
use tests::host::Host;
use tests::rig::Rig;

const SEATS: usize = 16;

fn code(reply: Reply) -> FailureCode {
    match reply.outcome {
        Outcome::Error(failure) => failure.code,
        Outcome::Result(value) => panic!("{value}"),
    }
}

/// Somebody else is still served.
fn others_are_served(socket: &Path) {
    let mut client = Client::connect(socket);
    assert_eq!(client.ask("state", json!({}))["tdis"][0]["function"], 0);
}

#[test]
fn nonsense_gets_an_error_and_the_next_line_its_answer() {
    let rig = Rig::new();
    let mut client = Client::connect(rig.control());
    for nonsense in [
        &b"nonsense\n"[..],
        b"\n",
        b"\r\n",
        b"\0\xFF\xFE\x80binary\x1b[2J\n",
        b"{\"id\":1,\"command\":\"state\"\n",
        b"\"\xF0\x28\x8C\x28\"\n",
    ] {
        client.send(nonsense);
        assert_eq!(code(client.reply()), FailureCode::BadJson, "{nonsense:?}");
    }
    client.send(&[b"[".repeat(100_000), b"\n".to_vec()].concat());
    assert_eq!(code(client.reply()), FailureCode::BadJson);
    assert_eq!(client.ask("state", json!({}))["sequence"], 0);
}

#[test]
fn requests_come_in_pieces_and_in_heaps() {
    let rig = Rig::new();
    let mut client = Client::connect(rig.control());
    for byte in b"{\"id\":1,\"command\":\"state\"}\n" {
        client.send(&[*byte]);
    }
    assert!(matches!(client.reply().outcome, Outcome::Result(_)));
    // More than a socket holds of answers: who does not read is not read from.
    let count = 2000;
    let heap: String = (0..count).map(|id| format!("{{\"id\":{id},\"command\":\"state\"}}\n")).collect();
    let mut stream = client.stream().try_clone().unwrap();
    let writer = std::thread::spawn(move || stream.write_all(heap.as_bytes()).unwrap());
    for id in 0..count {
        assert_eq!(serde_json::to_value(client.reply().id).unwrap(), id);
    }
    writer.join().unwrap();
}

#[test]
fn a_line_without_end_is_cut_off() {
    let rig = Rig::new();
    let mut client = Client::connect(rig.control());
    let mut stream = client.stream().try_clone().unwrap();
    // The device hangs up before it has read all of this.
    let writer = std::thread::spawn(move || stream.write_all(&vec![b'x'; 4 * MAX_REQUEST]));
    assert_eq!(code(client.reply()), FailureCode::TooLong);
    let Some(Line::Farewell(farewell)) = client.line() else { panic!("no last line") };
    assert!(farewell.closed.contains("1048576"), "{farewell:?}");
    assert!(writer.join().unwrap().is_err());
    others_are_served(rig.control());
    // The longest line that is allowed is read to its end.
    let mut client = Client::connect(rig.control());
    let mut line = vec![b' '; MAX_REQUEST - 19];
    line.extend_from_slice(b"{\"command\":\"state\"}\n");
    client.send(&line);
    assert!(matches!(client.reply().outcome, Outcome::Result(_)));
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let rig = Rig::new();
    for _ in 0..4 * SEATS {
        drop(UnixStream::connect(rig.control()).unwrap());
        let mut half = UnixStream::connect(rig.control()).unwrap();
        half.write_all(b"{\"command\":").unwrap();
        drop(half);
        let mut unread = UnixStream::connect(rig.control()).unwrap();
        unread.write_all(b"{\"command\":\"state\"}\n{\"command\":\"watch\"}\n").unwrap();
        drop(unread);
        others_are_served(rig.control());
    }
    let mut host = Host::plug(rig.socket(0));
    host.run();
}

#[test]
fn who_sends_nothing_more_still_gets_its_answers_and_events() {
    let rig = Rig::new();
    let mut asks = UnixStream::connect(rig.control()).unwrap();
    asks.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    asks.write_all(b"{\"command\":\"state\"}\n{\"command\":\"state\"}\n{\"command\":").unwrap();
    asks.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    asks.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 2, "half a line is none: {text}");

    let mut watcher = Client::watch(rig.control());
    watcher.stream().shutdown(Shutdown::Write).unwrap();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    assert!(watcher.story("transition").contains(&"stream-secure".to_owned()));
}

#[test]
fn there_are_so_many_seats_and_the_next_one_is_told() {
    let rig = Rig::new();
    let mut clients: Vec<_> = (0..SEATS).map(|_| Client::watch(rig.control())).collect();
    let mut late = Client::connect(rig.control());
    let Some(Line::Farewell(farewell)) = late.line() else { panic!("no last line") };
    assert!(farewell.closed.contains("16"), "{farewell:?}");
    assert_eq!(late.line(), None);
    let mut host = Host::plug(rig.socket(0));
    host.run();
    for client in &mut clients {
        assert!(client.story("transition").contains(&"0: CONFIG_UNLOCKED CONFIG_LOCKED locked".to_owned()));
    }
    clients.pop();
    // The device learns of that in its own time.
    while Client::connect(rig.control()).line_after_state().is_none() {}
}

trait AfterState {
    fn line_after_state(&mut self) -> Option<Reply>;
}

impl AfterState for Client {
    /// The reply to `state`, or nothing if there is no seat.
    fn line_after_state(&mut self) -> Option<Reply> {
        let _ = self.stream().write_all(b"{\"command\":\"state\"}\n");
        match self.line() {
            Some(Line::Reply(reply)) => Some(reply),
            _ => None,
        }
    }
}

#[test]
fn a_watcher_that_does_not_read_holds_up_nobody() {
    let rig = Rig::new();
    let _asleep = Client::watch(rig.control());
    let mut awake = Client::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    for _ in 0..50 {
        let nonce = host.lock(0);
        host.start(0, nonce);
        host.stop(0);
    }
    let mut seen = 0;
    while seen < 150 {
        seen += usize::from(awake.event().what.kind() == "transition");
    }
    others_are_served(rig.control());
}
