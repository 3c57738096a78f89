use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde_json::json;
use tdispd_proto::control::{Happening, Line, Outcome};
use tempfile::TempDir;

use super::*;
use crate::control::Answered;

/// Clients without a device.
struct Room {
    clients: Clients,
    path: PathBuf,
    sequence: u64,
    _directory: TempDir,
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let clients = Clients::new(Listener::bind(&path).unwrap()).unwrap();
        Self { clients, path, sequence: 0, _directory: directory }
    }

    /// Serves until nothing is ready any more.
    fn serve(&mut self) {
        loop {
            let mut fds = [rustix::event::PollFd::new(&self.clients, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0 {
                return;
            }
            self.clients
                .on_ready(&mut |_| Answered { outcome: Outcome::Result(json!({})), descriptor: None });
        }
    }

    fn watcher(&mut self) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(b"{\"command\":\"watch\"}\n").unwrap();
        self.serve();
        stream
    }

    fn tell(&mut self) {
        self.sequence += 1;
        let what = Happening::SessionEnded {
            session: tdispd_proto::control::Hex(1),
            reason: "requested".into(),
            text: "x".repeat(1000),
        };
        self.clients.tell(&Event { sequence: self.sequence, milliseconds: 0, what });
    }
}

fn lines(stream: UnixStream) -> Vec<Line> {
    stream.set_nonblocking(true).unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
}

/// The sequence numbers of all events, and the last line if that is none.
fn told(lines: Vec<Line>) -> (Vec<u64>, Option<String>) {
    let (mut events, mut end) = (Vec::new(), None);
    for line in lines {
        assert_eq!(end, None, "nothing follows the last line");
        match line {
            Line::Reply(_) => {}
            Line::Event(event) => events.push(event.sequence),
            Line::Farewell(farewell) => end = Some(farewell.closed),
        }
    }
    (events, end)
}

#[test]
fn a_watcher_that_is_too_slow_is_told_so_and_costs_no_more() {
    let mut room = Room::new();
    let slow = room.watcher();
    // Some 2 MiB here and some hundred kilobytes in the socket.
    while room.clients.seats[0].watches() {
        room.tell();
        assert!(room.sequence < 10_000);
    }
    for _ in 0..1000 {
        room.tell();
    }
    let refused = room.sequence - 1000;
    let reader = std::thread::spawn(move || {
        slow.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let lines = BufReader::new(slow).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        told(lines.collect())
    });
    while !room.clients.seats.is_empty() {
        room.serve();
    }
    let (events, end) = reader.join().unwrap();
    assert_eq!(events, (1..refused).collect::<Vec<_>>(), "every event before that one, and none twice");
    let end = end.unwrap();
    assert!(end.contains("too slow") && end.contains(&refused.to_string()), "{end}");
}

#[test]
fn who_is_sent_away_and_does_not_leave_gives_its_seat_to_the_next() {
    let mut room = Room::new();
    let slow = room.watcher();
    while room.clients.seats[0].watches() {
        room.tell();
    }
    let others: Vec<_> = (1..SEATS).map(|_| room.watcher()).collect();
    assert_eq!(room.clients.seats.len(), SEATS);
    let next = room.watcher();
    assert_eq!(room.clients.seats.len(), SEATS, "it has the seat of the slow one");
    room.tell();
    let mut refused = String::new();
    BufReader::new(room.watcher()).read_line(&mut refused).unwrap();
    assert!(refused.contains("closed"), "nobody else has to leave: {refused}");
    for stream in others.into_iter().chain([next]) {
        assert_eq!(told(lines(stream)), (vec![room.sequence], None));
    }
    drop(slow);
}

#[test]
fn who_asks_to_watch_twice_is_told_once() {
    let mut room = Room::new();
    let mut stream = room.watcher();
    stream.write_all(b"{\"command\":\"watch\"}\n").unwrap();
    room.serve();
    room.tell();
    assert_eq!(told(lines(stream)), (vec![1], None));
}
