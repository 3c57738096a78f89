//! A client of a device's control socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tdispd_proto::control::{Event, FailureCode, Happening, Line, Outcome, Reply};

/// A connection.
pub struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    last_id: u64,
    /// Events that came before replies.
    early: Vec<Event>,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines, last_id: 0, early: Vec::new() }
    }

    /// Connects and watches.
    pub fn watch(socket: &Path) -> Self {
        let mut client = Self::connect(socket);
        client.ask("watch", json!({}));
        client
    }

    /// The connection itself.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<Line> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        (length != 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// The next line, which has to be a reply.
    pub fn reply(&mut self) -> Reply {
        loop {
            match self.line() {
                Some(Line::Reply(reply)) => return reply,
                Some(Line::Event(event)) => self.early.push(event),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The outcome of a command with these fields.
    pub fn try_ask(&mut self, command: &str, fields: Value) -> Outcome {
        self.last_id += 1;
        let mut request = fields;
        request["id"] = self.last_id.into();
        request["command"] = command.into();
        self.send(format!("{request}\n").as_bytes());
        let reply = self.reply();
        assert_eq!(serde_json::to_value(reply.id).unwrap(), self.last_id);
        reply.outcome
    }

    /// The result of a command that has to succeed.
    pub fn ask(&mut self, command: &str, fields: Value) -> Value {
        match self.try_ask(command, fields) {
            Outcome::Result(value) => value,
            Outcome::Error(failure) => panic!("{failure:?}"),
        }
    }

    /// The result of `dmabuf` with these fields, and the file that came with it.
    pub fn dmabuf(&mut self, fields: Value) -> Result<File, (FailureCode, String)> {
        // Only its reply may come, or the descriptor would be lost with the bytes before it.
        assert!(self.lines.buffer().is_empty());
        let mut request = fields;
        request["command"] = "dmabuf".into();
        self.send(format!("{request}\n").as_bytes());
        let mut bytes = vec![0; 64 * 1024];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).unwrap();
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let line = String::from_utf8(bytes[..message.bytes].to_vec()).unwrap();
        match serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")) {
            Line::Reply(Reply { outcome: Outcome::Result(value), .. }) => {
                let [fd] = <[_; 1]>::try_from(fds).unwrap();
                let file = File::from(fd);
                assert_eq!(value["size"], file.metadata().unwrap().len());
                assert_eq!(value["file"], "memfd");
                Ok(file)
            }
            Line::Reply(Reply { outcome: Outcome::Error(failure), .. }) => {
                assert!(fds.is_empty());
                Err((failure.code, failure.message))
            }
            other @ (Line::Event(_) | Line::Farewell(_)) => panic!("{other:?}"),
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        match self.line() {
            Some(Line::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that happens up to what is looked for, itself as the last.
    pub fn until(&mut self, last: impl Fn(&Happening) -> bool) -> Vec<Happening> {
        let mut told = Vec::new();
        loop {
            told.push(self.event().what);
            if told.last().is_some_and(&last) {
                return told;
            }
        }
    }

    /// Events up to one of this kind, in words that tests can compare. Their sequence has no gap.
    pub fn story(&mut self, last: &str) -> Vec<String> {
        let mut told = Vec::new();
        let mut sequence = None;
        loop {
            let event = self.event();
            assert_eq!(*sequence.get_or_insert(event.sequence), event.sequence, "no event is lost");
            sequence = Some(event.sequence + 1);
            let kind = event.what.kind();
            told.push(word(event.what));
            if kind == last {
                return told;
            }
        }
    }
}

/// An event by its kind and what is for programs in it.
fn word(what: Happening) -> String {
    let kind = what.kind();
    match what {
        Happening::Transition { function, from, to, cause, .. } => format!("{function}: {from} {to} {cause}"),
        Happening::StreamInsecure { cause, .. } => format!("{kind} {cause}"),
        Happening::SessionEnded { reason, .. } => format!("{kind} {reason}"),
        Happening::SlotChanged { slot, erased, lost } => format!("{kind} {slot} {erased} {lost:?}"),
        Happening::KeyPairChanged { key_pair, lost } => format!("{kind} {key_pair} {lost:?}"),
        Happening::Refused { request, code, .. } => format!("{kind} {request} {code}"),
        Happening::GateRejected { function, reads, writes } => format!("{kind} {function} {reads} {writes}"),
        Happening::ReportOverridden { function, says } => format!("{kind} {function} {says:?}"),
        Happening::Reset { kind: reset, function } => format!("{kind} {reset:?} {function:?}"),
        Happening::MmioAttribute { function, bar, first_page, pages, non_tee } => {
            format!("{kind} {function} {bar} {first_page} {pages} {non_tee}")
        }
        Happening::P2pStream { function, bound, .. } => format!("{kind} {function} {bound}"),
        Happening::FirmwareUpdated { measurements } => format!("{kind} {measurements:?}"),
        Happening::FirmwareUpdateForbidden { function } => format!("{kind} {function}"),
        Happening::OutOfOrder { function, rule, .. } => format!("{kind} {function} {rule:?}"),
        Happening::ExportMade { function, bar, tee, .. }
        | Happening::ExportRefused { function, bar, tee, .. }
        | Happening::ExportRevoked { function, bar, tee, .. } => format!("{kind} {function} {bar} {tee}"),
        Happening::MachineCheck { function, bar, write, .. } => format!("{kind} {function} {bar} {write}"),
        Happening::ClientConnected { .. }
        | Happening::ClientDisconnected { .. }
        | Happening::LockedWithoutKeys { .. }
        | Happening::StreamSecure { .. }
        | Happening::SessionEstablished { .. }
        | Happening::RequesterAuthenticated { .. }
        | Happening::Unknown => kind.into(),
    }
}
