//! The device's own accesses to client memory, in order: through files at once, through the client one message at a time.

use std::collections::VecDeque;

use tdispd_proto::vfio_user::{Command, DmaAccess, DmaAccessReply, Header};
use zerocopy::IntoBytes;

use super::dma::{Direction, DmaError, DmaTable, Piece};
use super::output::Output;

/// Most bytes in one message: QEMU cuts off replies that do not fit its socket buffer.
const MAX_CHUNK: usize = 64 * 1024;

/// Most bytes of one access.
const MAX_LENGTH: usize = 1 << 20;

/// Most accesses waiting.
const MAX_QUEUE: usize = 64;

/// The caller's name for an access.
pub type DmaId = u64;

/// The end of an access.
#[derive(Debug, PartialEq, Eq)]
pub struct DmaCompletion {
    /// As given when it was started.
    pub id: DmaId,
    /// What was read; empty for a write.
    pub result: Result<Vec<u8>, DmaError>,
}

#[derive(Debug)]
struct Access {
    id: DmaId,
    direction: Direction,
    address: u64,
    data: Vec<u8>,
    done: usize,
}

/// A message to the client that awaits its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outstanding {
    message_id: u16,
    command: Command,
    address: u64,
    length: usize,
}

/// Accesses in progress.
#[derive(Debug, Default)]
pub(super) struct DmaEngine {
    queue: VecDeque<Access>,
    outstanding: Option<Outstanding>,
    /// A message whose reply somebody waits for, whether or not it is still of use.
    draining: Option<Outstanding>,
    done: VecDeque<DmaCompletion>,
    next_message_id: u16,
}

impl DmaEngine {
    pub(super) fn read(&mut self, table: &DmaTable, id: DmaId, address: u64, length: usize) {
        // Checked before anything is allocated for it.
        let data = if length > MAX_LENGTH { Err(DmaError::Busy) } else { Ok(vec![0; length]) };
        self.start(table, id, Direction::Read, address, data);
    }

    pub(super) fn write(&mut self, table: &DmaTable, id: DmaId, address: u64, data: Vec<u8>) {
        let data = if data.len() > MAX_LENGTH { Err(DmaError::Busy) } else { Ok(data) };
        self.start(table, id, Direction::Write, address, data);
    }

    fn start(
        &mut self,
        table: &DmaTable,
        id: DmaId,
        direction: Direction,
        address: u64,
        data: Result<Vec<u8>, DmaError>,
    ) {
        let checked = data.and_then(|data| {
            if self.queue.len() >= MAX_QUEUE {
                return Err(DmaError::Busy);
            }
            table.check(address, data.len(), direction).map(|()| data)
        });
        match checked {
            Ok(data) => self.queue.push_back(Access { id, direction, address, data, done: 0 }),
            Err(error) => self.done.push_back(DmaCompletion { id, result: Err(error) }),
        }
    }

    /// Goes on until the client has to answer or nothing is left. `limit` is the most data one message may carry.
    pub(super) fn advance(&mut self, table: &DmaTable, limit: u32, out: &mut Output) {
        while self.outstanding.is_none()
            && let Some(mut access) = self.queue.pop_front()
        {
            match self.step(&mut access, table, limit, out) {
                Ok(true) => self.finish(access),
                Ok(false) => self.queue.push_front(access),
                Err(error) => self.done.push_back(DmaCompletion { id: access.id, result: Err(error) }),
            }
        }
    }

    /// One stretch of an access; true once all of it is done.
    fn step(
        &mut self,
        access: &mut Access,
        table: &DmaTable,
        limit: u32,
        out: &mut Output,
    ) -> Result<bool, DmaError> {
        let rest = access.data.get_mut(access.done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(true);
        }
        let at = access.address.wrapping_add(access.done as u64);
        match table.piece(at, rest.len())? {
            Piece::Local(length) => {
                let stretch = rest.get_mut(..length).ok_or(DmaError::Unmapped(at))?;
                match access.direction {
                    Direction::Read => table.read(at, stretch)?,
                    Direction::Write => table.write(at, stretch)?,
                }
                access.done += length;
                Ok(access.done == access.data.len())
            }
            Piece::Remote(length) => {
                let length = length.min(MAX_CHUNK).min(limit as usize);
                let chunk = rest.get(..length).filter(|chunk| !chunk.is_empty()).ok_or(DmaError::Busy)?;
                let fixed = DmaAccess::new(at, length as u64);
                let (command, data) = match access.direction {
                    Direction::Read => (Command::DMA_READ, &[][..]),
                    Direction::Write => (Command::DMA_WRITE, chunk),
                };
                let message_id = self.next_message_id;
                self.next_message_id = message_id.wrapping_add(1);
                out.request(message_id, command, &[fixed.as_bytes(), data]);
                self.outstanding = Some(Outstanding { message_id, command, address: at, length });
                Ok(false)
            }
        }
    }

    fn finish(&mut self, access: Access) {
        let data = match access.direction {
            Direction::Read => access.data,
            Direction::Write => Vec::new(),
        };
        self.done.push_back(DmaCompletion { id: access.id, result: Ok(data) });
    }

    /// Takes a reply from the client. One that answers nothing outstanding is late, after a cancellation, or made up: ignored.
    pub(super) fn reply(&mut self, header: &Header, payload: &[u8]) {
        let matches = |outstanding: &mut Outstanding| {
            outstanding.message_id == header.message_id.get() && outstanding.command == header.command
        };
        self.draining.take_if(matches);
        let Some(outstanding) = self.outstanding.take_if(matches) else { return };
        let Some(mut access) = self.queue.pop_front() else { return };
        match Self::accept(&mut access, &outstanding, header, payload) {
            Ok(()) if access.done == access.data.len() => self.finish(access),
            Ok(()) => self.queue.push_front(access),
            Err(error) => self.done.push_back(DmaCompletion { id: access.id, result: Err(error) }),
        }
    }

    fn accept(
        access: &mut Access,
        asked: &Outstanding,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), DmaError> {
        if let Some(errno) = header.failure() {
            return Err(DmaError::Refused(errno));
        }
        let reply = match access.direction {
            Direction::Read => DmaAccessReply::parse_read(payload),
            Direction::Write => DmaAccessReply::parse_write(payload),
        };
        let reply = reply.map_err(|_| DmaError::BadReply)?;
        if (reply.address, reply.count) != (asked.address, asked.length as u64) {
            return Err(DmaError::BadReply);
        }
        if access.direction == Direction::Read {
            let end = access.done.saturating_add(asked.length);
            access.data.get_mut(access.done..end).ok_or(DmaError::BadReply)?.copy_from_slice(reply.data);
        }
        access.done += asked.length;
        Ok(())
    }

    /// Forgets an access, whose time may be up. Its end will not be reported, and a late reply is ignored.
    pub(super) fn cancel(&mut self, id: DmaId) {
        let front = self.queue.front().is_some_and(|access| access.id == id);
        self.queue.retain(|access| access.id != id);
        self.done.retain(|completion| completion.id != id);
        if front {
            // The client may yet carry it out: whoever drains has to wait for it.
            self.draining = self.outstanding.take().or(self.draining.take());
        }
    }

    /// Forgets all accesses, the ends not reported yet among them. A message that `left` for the client is drained.
    pub(super) fn abandon(&mut self, left: bool) {
        let outstanding = self.outstanding.take().filter(|_| left);
        self.draining = outstanding.or(self.draining.take());
        self.queue.clear();
        self.done.clear();
    }

    /// From now on the message under way is drained; accesses go on after it.
    pub(super) fn drain(&mut self) {
        self.draining = self.outstanding.clone().or(self.draining.take());
    }

    /// Whether a message that is to be drained has no reply yet.
    pub(super) fn draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Waits for no reply any more.
    pub(super) fn stop_draining(&mut self) {
        self.draining = None;
    }

    /// Fails everything unfinished: the client is gone.
    pub(super) fn disconnect(&mut self) {
        self.outstanding = None;
        self.draining = None;
        for access in self.queue.drain(..) {
            self.done.push_back(DmaCompletion { id: access.id, result: Err(DmaError::Disconnected) });
        }
    }

    pub(super) fn poll(&mut self) -> Option<DmaCompletion> {
        self.done.pop_front()
    }

    /// Refuses an access because there is no client to make it to.
    pub(super) fn refuse(&mut self, id: DmaId) {
        self.done.push_back(DmaCompletion { id, result: Err(DmaError::Disconnected) });
    }
}
