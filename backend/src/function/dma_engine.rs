//! A DMA engine without registers: takes one command at a time and carries it out in chunks, one request under way at once.
use mmio::Tee;

use super::{DmaError, DmaId, Work};

/// Most bytes in one DMA request: a larger answer would not fit the socket buffer of the other side.
pub const CHUNK: usize = 64 * 1024;
/// Most bytes in one command.
pub const LIMIT: u64 = 16 * 1024 * 1024;

/// Bytes of the repeated pattern; a chunk holds a whole number of them, so each chunk starts with its first byte.
const PATTERN: usize = 8;
const _: () = assert!(CHUNK.is_multiple_of(PATTERN));

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Source to destination.
    Copy,
    /// Pattern to destination.
    Fill,
    /// Source against pattern.
    Check,
}

/// A command as software gives it; nothing is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) operation: Operation,
    /// Bus address.
    pub(super) source: u64,
    /// Bus address.
    pub(super) destination: u64,
    /// Bytes.
    pub(super) length: u64,
    pub(super) pattern: [u8; PATTERN],
    /// Both addresses were translated by ATS.
    pub(super) translated: bool,
    /// The T attribute of the access that started it.
    pub(super) asked: Tee,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    BadLength,
    BadAddress,
    Overlap,
    NotAllowed,
    Fault,
    /// First wrong byte, counted from the start of the command.
    Mismatch(u64),
    Aborted,
}

/// Where the engine is.
#[derive(Debug)]
enum State {
    Idle,
    /// The next chunk's request can be made.
    Ready(Job),
    /// A read for COPY or CHECK is under way.
    Reading(Job, DmaId),
    /// COPY has read a chunk and can write it.
    Read(Job, Vec<u8>),
    /// A write of so many bytes is under way.
    Writing(Job, DmaId, usize),
}

/// A command that passed the checks, with the bytes it has finished. Always fewer than its length.
#[derive(Clone, Copy, Debug)]
struct Job {
    command: Command,
    finished: u64,
}

impl Job {
    /// Bytes in the chunk at hand.
    fn chunk(&self) -> usize {
        // The limit of a command fits every usize Linux has.
        CHUNK.min((self.command.length - self.finished) as usize)
    }
}

#[derive(Debug)]
pub(super) struct DmaEngine {
    state: State,
    next_id: u64,
    progress: u64,
}

impl DmaEngine {
    pub(super) const fn new() -> Self {
        Self { state: State::Idle, next_id: 0, progress: 0 }
    }

    pub(super) const fn busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Bytes of the last command that are finished.
    pub(super) const fn progress(&self) -> u64 {
        self.progress
    }

    /// Starts a command; not while busy.
    pub(super) fn start(&mut self, command: Command) -> Result<(), Failure> {
        self.progress = 0;
        check(&command)?;
        self.state = State::Ready(Job { command, finished: 0 });
        Ok(())
    }

    /// Forgets the command under way, if any. Answers to its requests are ignored from now on.
    pub(super) fn abort(&mut self) {
        self.state = State::Idle;
    }

    /// Back to the state of a new engine, except that request ids go on: old answers may still come.
    pub(super) fn reset(&mut self) {
        self.abort();
        self.progress = 0;
    }

    /// The next request, if one can be made now.
    pub(super) fn poll(&mut self) -> Option<Work> {
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Ready(job) => Some(self.request(job)),
            State::Read(job, data) => Some(self.write(job, data)),
            state @ (State::Idle | State::Reading(..) | State::Writing(..)) => {
                self.state = state;
                None
            }
        }
    }

    /// Takes the answer to a request. `Some` says that the command has ended with it, and how.
    pub(super) fn done(&mut self, id: DmaId, result: Result<&[u8], DmaError>) -> Option<Result<(), Failure>> {
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Reading(job, expected) if expected == id => match result {
                Ok(data) if data.len() == job.chunk() => self.received(job, data),
                // Fewer or more bytes than asked for: whoever answered did not read what was meant.
                Ok(_) => Some(Err(Failure::Fault)),
                Err(error) => Some(Err(error.into())),
            },
            State::Writing(job, expected, length) if expected == id => match result {
                Ok(_) => self.advance(job, length),
                Err(error) => Some(Err(error.into())),
            },
            state @ (State::Idle
            | State::Ready(_)
            | State::Reading(..)
            | State::Read(..)
            | State::Writing(..)) => {
                self.state = state;
                None
            }
        }
    }

    fn request(&mut self, job: Job) -> Work {
        let length = job.chunk();
        match job.command.operation {
            Operation::Copy | Operation::Check => {
                let id = self.take_id();
                self.state = State::Reading(job, id);
                let address = job.command.source + job.finished;
                let Command { translated, asked, .. } = job.command;
                Work::DmaRead { id, address, length, translated, asked }
            }
            Operation::Fill => {
                let data = job.command.pattern.iter().copied().cycle().take(length).collect();
                self.write(job, data)
            }
        }
    }

    fn write(&mut self, job: Job, data: Vec<u8>) -> Work {
        let id = self.take_id();
        self.state = State::Writing(job, id, data.len());
        let address = job.command.destination + job.finished;
        let Command { translated, asked, .. } = job.command;
        Work::DmaWrite { id, address, data, translated, asked }
    }

    fn received(&mut self, job: Job, data: &[u8]) -> Option<Result<(), Failure>> {
        if job.command.operation == Operation::Copy {
            self.state = State::Read(job, data.to_vec());
            return None;
        }
        let expected = job.command.pattern.iter().cycle();
        match data.iter().zip(expected).position(|(byte, expected)| byte != expected) {
            Some(at) => {
                self.progress = job.finished + at as u64;
                Some(Err(Failure::Mismatch(self.progress)))
            }
            None => self.advance(job, data.len()),
        }
    }

    fn advance(&mut self, mut job: Job, length: usize) -> Option<Result<(), Failure>> {
        job.finished += length as u64;
        self.progress = job.finished;
        if job.finished == job.command.length {
            return Some(Ok(()));
        }
        self.state = State::Ready(job);
        None
    }

    fn take_id(&mut self) -> DmaId {
        let id = DmaId(self.next_id);
        self.next_id += 1;
        id
    }
}

impl From<DmaError> for Failure {
    fn from(error: DmaError) -> Self {
        match error {
            DmaError::NotAllowed => Self::NotAllowed,
            DmaError::Fault => Self::Fault,
        }
    }
}

/// What must hold before the first request, so that no address computed later can overflow.
fn check(command: &Command) -> Result<(), Failure> {
    let &Command { operation, source, destination, length, .. } = command;
    if length == 0 || length > LIMIT {
        return Err(Failure::BadLength);
    }
    let (reads, writes) = match operation {
        Operation::Copy => (true, true),
        Operation::Fill => (false, true),
        Operation::Check => (true, false),
    };
    let wraps = |address: u64| address.checked_add(length - 1).is_none();
    if (reads && wraps(source)) || (writes && wraps(destination)) {
        return Err(Failure::BadAddress);
    }
    if reads && writes && source.abs_diff(destination) < length {
        return Err(Failure::Overlap);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
