//! Bytes and descriptors from the client, cut into messages.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;

use tdispd_proto::vfio_user::{Command, HEADER_SIZE, Header, MAX_MESSAGE_SIZE, MAX_MSG_FDS};

/// Buffer of an idle connection, in bytes; a message larger than this grows it as its bytes arrive.
const INITIAL: usize = 16 * 1024;

/// Descriptors that came with a message.
#[derive(Debug, Default)]
pub struct Fds {
    /// In the order sent.
    pub fds: Vec<OwnedFd>,
    /// Some were lost: more were sent than we take, or the process has no room for them.
    pub truncated: bool,
}

impl Fds {
    /// Whether none were sent.
    pub(super) fn is_empty(&self) -> bool {
        self.fds.is_empty() && !self.truncated
    }
}

/// Descriptors that arrived with the bytes of a range of the buffer.
#[derive(Debug)]
struct Batch {
    bytes: Range<usize>,
    fds: Fds,
}

/// What is at the front of the input.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing whole.
    Incomplete,
    /// A message; its payload is at this range.
    Message(Header, Range<usize>, Fds),
    /// A header whose size is below its own; only the header has been consumed.
    Undersize(Header),
    /// A header that announces more than we take.
    Oversize(Header),
}

#[derive(Debug)]
pub(super) struct Input {
    /// Fully initialised; valid bytes are `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    batches: VecDeque<Batch>,
}

impl Default for Input {
    fn default() -> Self {
        Self { buffer: vec![0; INITIAL], start: 0, end: 0, batches: VecDeque::new() }
    }
}

impl Input {
    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        self.batches.clear();
        self.buffer.truncate(INITIAL);
        self.buffer.shrink_to_fit();
    }

    /// Room for the next bytes, never empty. Not for more than the rest of a message in progress, or [`INITIAL`] bytes: of small
    /// messages there are never many here, however large one before them was.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end && self.batches.is_empty() {
            if self.buffer.len() > INITIAL {
                self.clear();
            }
            self.start = 0;
            self.end = 0;
        } else if self.end == self.buffer.len() {
            self.make_room();
        }
        let have = self.end - self.start;
        let announced = self.header(self.start).map_or(0, |header| header.message_size.get() as usize);
        let room = announced.saturating_sub(have).max(INITIAL);
        let end = self.buffer.len().min(self.end.saturating_add(room));
        self.buffer.get_mut(self.end..end).unwrap_or_default()
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            for batch in &mut self.batches {
                batch.bytes.start = batch.bytes.start.saturating_sub(self.start);
                batch.bytes.end = batch.bytes.end.saturating_sub(self.start);
            }
            self.end -= self.start;
            self.start = 0;
        } else {
            // Whole messages are taken out before more is read, so one at most MAX_MESSAGE_SIZE long fills the buffer.
            self.buffer.resize((self.buffer.len() * 2).min(MAX_MESSAGE_SIZE as usize), 0);
        }
    }

    /// `count` bytes were put into [`Self::space`], and `fds` came with them.
    pub(super) fn received(&mut self, count: usize, mut fds: Fds) {
        let bytes = self.end..(self.end + count).min(self.buffer.len());
        self.end = bytes.end;
        if fds.is_empty() {
            return;
        }
        // All that waits belongs to the message in progress: more than one message may carry is too much.
        let waiting: usize = self.batches.iter().map(|batch| batch.fds.fds.len()).sum();
        if waiting + fds.fds.len() > MAX_MSG_FDS {
            fds.fds.truncate(MAX_MSG_FDS.saturating_sub(waiting));
            fds.truncated = true;
        }
        if fds.fds.is_empty()
            && let Some(last) = self.batches.back_mut()
        {
            last.fds.truncated = true;
            return;
        }
        self.batches.push_back(Batch { bytes, fds });
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Takes the message at the front, if it is whole.
    pub(super) fn next(&mut self) -> Next {
        let Some(header) = self.header(self.start) else { return Next::Incomplete };
        let size = header.message_size.get();
        if size > MAX_MESSAGE_SIZE {
            return Next::Oversize(header);
        }
        let body = self.start + HEADER_SIZE;
        let undersize = (size as usize) < HEADER_SIZE;
        let end = if undersize { body } else { self.start + size as usize };
        if end > self.end {
            return Next::Incomplete;
        }
        let fds = if self.batches.is_empty() { Fds::default() } else { self.take_fds(self.start, end) };
        self.start = end;
        if undersize { Next::Undersize(header) } else { Next::Message(header, body..end, fds) }
    }

    fn header(&self, at: usize) -> Option<Header> {
        self.buffer.get(at..self.end).and_then(Header::parse)
    }

    /// The descriptors of the message at `start..end`.
    ///
    /// The kernel ends a read behind the bytes descriptors came with, but may put earlier bytes in front of them. So they belong to the
    /// last message that begins in what was read; if a sender put several messages into one call, to the last that can carry any.
    fn take_fds(&mut self, start: usize, end: usize) -> Fds {
        let mut taken = Fds::default();
        while let Some(batch) = self.batches.front() {
            if batch.bytes.start >= end && !batch.bytes.is_empty() || self.owner(batch, start, end) != start {
                break;
            }
            let Some(batch) = self.batches.pop_front() else { break };
            taken.fds.extend(batch.fds.fds);
            taken.truncated |= batch.fds.truncated;
        }
        taken
    }

    fn owner(&self, batch: &Batch, start: usize, end: usize) -> usize {
        let mut owner = start;
        let mut found = start >= batch.bytes.start && self.carries_fds(start);
        let mut at = end;
        while at < batch.bytes.end {
            let carries = self.carries_fds(at);
            if carries || !found {
                owner = at;
                found |= carries;
            }
            let size = self.header(at).map_or(HEADER_SIZE, |header| header.message_size.get() as usize);
            at = at.saturating_add(size.max(HEADER_SIZE));
        }
        owner
    }

    fn carries_fds(&self, at: usize) -> bool {
        // A header that is not whole yet may turn out to be one.
        self.header(at)
            .is_none_or(|header| matches!(header.command, Command::DMA_MAP | Command::DEVICE_SET_IRQS))
    }
}

#[cfg(test)]
mod tests;
