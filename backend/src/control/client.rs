//! One client of the control socket: lines in, lines out, neither without a bound.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use serde::Serialize;
use tdispd_proto::control::{Command, Failure, FailureCode, Farewell, MAX_REQUEST, Outcome, Reply, Request};

use super::answers::Answered;
use crate::vfio_user::{Chunk, transmit};

/// Bytes that may wait for a client when an event comes. Larger than any reply.
const QUEUE: usize = 2 * 1024 * 1024;
/// Bytes taken from a socket in one turn.
const READ: usize = 16 * 1024;

/// Answers a command.
pub(super) type Answer<'a> = dyn FnMut(&Command) -> Answered + 'a;

/// Whoever is at the other end of one connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Its epoll data.
    pub(super) number: u64,
    stream: UnixStream,
    input: Vec<u8>,
    /// How much of `input` is known to hold no newline.
    searched: usize,
    output: Vec<u8>,
    /// What goes with a byte of `output`, and which that is. There is one at most: who has not read a reply is not answered again.
    descriptor: Option<(usize, Arc<OwnedFd>)>,
    watches: bool,
    /// Nothing more comes from it.
    ended: bool,
    /// It is sent away once `output` has left.
    leaving: bool,
    /// The socket is broken.
    broken: bool,
    /// What the epoll instance waits for.
    interest: EventFlags,
}

/// A line of the protocol.
pub(super) fn line(what: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(what) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            bytes
        }
        Err(error) => {
            // Strings, numbers and lists of them: there is nothing that JSON could not say.
            log::error!("control socket: a line was lost: {error}");
            Vec::new()
        }
    }
}

impl Client {
    pub(super) const fn new(number: u64, stream: UnixStream) -> Self {
        Self {
            number,
            stream,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            descriptor: None,
            watches: false,
            ended: false,
            leaving: false,
            broken: false,
            interest: EventFlags::IN,
        }
    }

    pub(super) const fn watches(&self) -> bool {
        self.watches
    }

    /// Whether it has been sent its last line.
    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether nothing is left to do for it. A watcher that sends nothing more may still listen.
    pub(super) fn is_gone(&self) -> bool {
        let silent = self.ended && !self.watches && !self.has_line();
        self.broken || self.output.is_empty() && (self.leaving || silent)
    }

    /// Does what `flags` say can be done; at most one request is answered.
    pub(super) fn serve(&mut self, flags: EventFlags, answer: &mut Answer<'_>) {
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.broken = true;
            return;
        }
        self.flush();
        // Who does not read its replies is not read from.
        if !self.output.is_empty() || self.leaving {
            return;
        }
        if !self.has_line() && !self.ended && flags.contains(EventFlags::IN) {
            self.receive();
        }
        self.answer_next(answer);
        self.flush();
    }

    /// Queues an event, or the last line if there is no room for it.
    pub(super) fn tell(&mut self, sequence: u64, bytes: &[u8]) {
        self.flush();
        if self.output.len() + bytes.len() > QUEUE {
            log::warn!("control socket: client {} is too slow", self.number);
            self.send_away(format!("too slow: event {sequence} found {} bytes unread", self.output.len()));
        } else {
            self.output.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Waits for bytes, or for room. False: the kernel will not.
    pub(super) fn watch(&mut self, epoll: &OwnedFd) -> bool {
        let interest = if !self.output.is_empty() || self.has_line() {
            EventFlags::OUT
        } else if self.ended {
            // Only for its end, of which the kernel always tells.
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        if interest == self.interest {
            return true;
        }
        self.interest = interest;
        epoll::modify(epoll, &self.stream, EventData::new_u64(self.number), interest).is_ok()
    }

    fn send_away(&mut self, closed: String) {
        self.output.extend(line(&Farewell { closed }));
        (self.leaving, self.watches) = (true, false);
        self.input = Vec::new();
        self.searched = 0;
    }

    fn has_line(&self) -> bool {
        self.input.get(self.searched) == Some(&b'\n')
    }

    fn receive(&mut self) {
        let mut buffer = [0; READ];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                self.input.extend(buffer.iter().take(count));
                self.search();
            }
            Err(error) => self.broken |= !is_temporary(&error),
        }
    }

    /// Moves `searched` to the next newline, or to the end.
    fn search(&mut self) {
        let rest = self.input.get(self.searched..).unwrap_or_default();
        self.searched += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }

    fn answer_next(&mut self, answer: &mut Answer<'_>) {
        if self.searched > MAX_REQUEST {
            let message = format!("a request has at most {MAX_REQUEST} bytes");
            let outcome = Outcome::Error(Failure { code: FailureCode::TooLong, message: message.clone() });
            self.output.extend(line(&Reply { id: None, outcome }));
            return self.send_away(message);
        }
        if !self.has_line() {
            return;
        }
        let request = self.input.get(..self.searched).unwrap_or_default();
        let reply = match Request::parse(request) {
            Ok(Request { id, command }) => {
                let Answered { outcome, descriptor } = answer(&command);
                self.descriptor = descriptor.map(|fd| (self.output.len(), Arc::new(fd)));
                self.watches |= command == Command::Watch {};
                Reply { id, outcome }
            }
            Err(reply) => reply,
        };
        self.output.extend(line(&reply));
        self.input.drain(..=self.searched);
        self.searched = 0;
        if self.input.is_empty() {
            // A long request must not be paid for for ever.
            self.input = Vec::new();
        }
        self.search();
    }

    fn flush(&mut self) {
        if self.output.is_empty() || self.broken {
            return;
        }
        let (bytes, fd) = match &self.descriptor {
            Some((0, fd)) => (self.output.as_slice(), Some(fd)),
            Some((at, _)) => (self.output.get(..*at).unwrap_or_default(), None),
            None => (self.output.as_slice(), None),
        };
        match transmit(self.stream.as_fd(), &Chunk { bytes, fd }) {
            Ok(count) => {
                self.output.drain(..count);
                self.output.shrink_to(READ);
                self.descriptor = self
                    .descriptor
                    .take()
                    .filter(|(at, _)| count == 0 || *at > 0)
                    .map(|(at, fd)| (at - count, fd));
            }
            Err(errno) => self.broken |= !is_temporary(&errno.into()),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
