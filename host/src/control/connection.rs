//! A client of the control socket.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use tdispd_proto::control::{Command, Event, Id, Line, Outcome, Reply, Request};

use crate::error::{Error, Result};

/// Longest line taken from a device, in bytes. No reply is that long.
const MAX_LINE: usize = 4 * 1024 * 1024;
const WHAT: &str = "control socket";

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    patience: Duration,
    input: Vec<u8>,
    last_id: u64,
    /// Events that came before a reply.
    events: VecDeque<(Event, Value)>,
    /// The descriptor that came last.
    descriptor: Option<OwnedFd>,
}

impl Connection {
    pub(super) fn open(path: &Path, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(Error::io(format!("{WHAT} {}", path.display())))?;
        stream.set_write_timeout(Some(patience)).map_err(Error::io(WHAT))?;
        Ok(Self {
            stream,
            patience,
            input: Vec::new(),
            last_id: 0,
            events: VecDeque::new(),
            descriptor: None,
        })
    }

    /// Asks, and waits for the result.
    pub(super) fn ask(&mut self, command: Command) -> Result<Value> {
        self.last_id += 1;
        let id = Some(Id::Number(self.last_id));
        let name = name(&command);
        let mut line = serde_json::to_vec(&Request { id: id.clone(), command })
            .map_err(|error| Error::Usage(format!("{WHAT}: {error}")))?;
        line.push(b'\n');
        // Who is sent away cannot write any more, but it can read why.
        let written = self.stream.write_all(&line);
        let deadline = Instant::now() + self.patience;
        loop {
            let (line, value) = match self.next_line(Some(deadline)) {
                Ok(Some(line)) => line,
                Ok(None) => return Err(Error::TimedOut { what: name.into(), after: self.patience }),
                Err(error) => {
                    written.map_err(Error::io(WHAT))?;
                    return Err(error);
                }
            };
            match line {
                Line::Event(event) => self.events.push_back((event, value)),
                Line::Reply(Reply { id: found, outcome }) if found == id => {
                    return match outcome {
                        Outcome::Result(value) => Ok(value),
                        Outcome::Error(failure) => {
                            Err(Error::Refused { request: name.into(), reason: failure.message })
                        }
                    };
                }
                Line::Reply(Reply { id: None, outcome: Outcome::Error(failure) }) => {
                    return Err(Error::Refused { request: name.into(), reason: failure.message });
                }
                Line::Reply(reply) => {
                    return Err(Error::Protocol(format!("{WHAT}: a reply to {:?}, not to {id:?}", reply.id)));
                }
                Line::Farewell(farewell) => return Err(sent_away(farewell.closed)),
            }
        }
    }

    /// The descriptor that came with the last result.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// The next event, as it is understood and as it came; `None` at the deadline.
    pub(super) fn event(&mut self, deadline: Option<Instant>) -> Result<Option<(Event, Value)>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        match self.next_line(deadline)? {
            None => Ok(None),
            Some((Line::Event(event), value)) => Ok(Some((event, value))),
            Some((Line::Farewell(farewell), _)) => Err(sent_away(farewell.closed)),
            Some((Line::Reply(_), _)) => Err(Error::Protocol(format!("{WHAT}: a reply to nothing"))),
        }
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<Option<(Line, Value)>> {
        let mut searched = 0;
        loop {
            let rest = self.input.get(searched..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=searched + length).collect();
                return understand(&line).map(Some);
            }
            searched = self.input.len();
            if searched > MAX_LINE {
                return Err(Error::Protocol(format!("{WHAT}: a line of more than {MAX_LINE} bytes")));
            }
            if !self.receive(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits for more input; false if there is none until the deadline.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        self.stream.set_read_timeout(left).map_err(Error::io(WHAT))?;
        let mut buffer = [0; 64 * 1024];
        match self.take(&mut buffer) {
            Ok(0) => Err(sent_away("the device has gone".into())),
            Ok(count) => {
                self.input.extend(buffer.iter().take(count));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Error::io(WHAT)(error)),
        }
    }

    /// Bytes, and the descriptor that is with them if there is one.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let message =
            recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.descriptor = rights.last().or(self.descriptor.take());
            }
        }
        Ok(message.bytes)
    }
}

fn understand(line: &[u8]) -> Result<(Line, Value)> {
    let understood = serde_json::from_slice::<Value>(line)
        .and_then(|value| serde_json::from_value(value.clone()).map(|line| (line, value)));
    understood.map_err(|error| Error::Protocol(format!("{WHAT}: a line that is none: {error}")))
}

fn sent_away(closed: String) -> Error {
    Error::io(WHAT)(io::Error::new(io::ErrorKind::UnexpectedEof, closed))
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::State {} => "state",
        Command::Watch {} => "watch",
        Command::ReportGet { .. } => "report get",
        Command::ReportSet { .. } => "report set",
        Command::ReportReset { .. } => "report reset",
        Command::Dmabuf { .. } => "dmabuf",
    }
}
