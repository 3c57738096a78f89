//! The protocol with one client, without I/O: bytes and descriptors in, calls on the device, bytes and descriptors out.

use std::sync::Arc;

use tdispd_proto::vfio_user::{Command, Header, MessageType};

use super::device::{Device, Errno};
use super::dma::DmaTable;
use super::engine::{DmaCompletion, DmaEngine, DmaId};
use super::handler::{Handler, Negotiated};
use super::input::{Fds, Input, Next};
use super::irqs::Irqs;
use super::memory::ClientMemory;
use super::output::{Chunk, Output};

/// What became of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do: no whole message, or output that has to be sent first.
    Idle,
    /// One message is dealt with.
    Handled,
    /// The stream cannot go on. Send what there is and close.
    Close,
}

/// One client after the other; [`Self::disconnect`] lies in between.
///
/// While output is waiting no further message is handled, so a client that does not read its replies
/// costs at most one reply and one DMA message.
#[derive(Debug, Default)]
pub struct Connection {
    /// Once the client has negotiated.
    negotiated: Option<Negotiated>,
    input: Input,
    output: Output,
    /// Copied if it changes while somebody has it: see [`Self::memory`].
    dma: Arc<DmaTable>,
    irqs: Irqs,
    engine: DmaEngine,
}

impl Connection {
    /// Room for bytes from the client, never empty. To be followed by [`Self::received`].
    pub fn space(&mut self) -> &mut [u8] {
        self.input.space()
    }

    /// `count` bytes have been put into [`Self::space`], together with `fds`.
    pub fn received(&mut self, count: usize, fds: Fds) {
        self.input.received(count, fds);
    }

    /// Handles the next message, if there is a whole one and no output is waiting.
    pub fn handle_next(&mut self, device: &mut dyn Device) -> Progress {
        if !self.output.is_empty() {
            return Progress::Idle;
        }
        match self.input.next() {
            Next::Incomplete => Progress::Idle,
            Next::Message(header, payload, fds) => {
                let payload = self.input.bytes(payload);
                match (header.message_type(), header.command) {
                    (MessageType::Command, _) => {
                        let mut handler = Handler {
                            negotiated: &mut self.negotiated,
                            out: &mut self.output,
                            dma: &mut self.dma,
                            irqs: &mut self.irqs,
                            device,
                        };
                        handler.handle(&header, payload, fds)
                    }
                    (MessageType::Reply, Command::DMA_READ | Command::DMA_WRITE) => {
                        self.engine.reply(&header, payload);
                        self.advance();
                        Progress::Handled
                    }
                    (MessageType::Reply | MessageType::Other(_), _) => self.refuse(&header),
                }
            }
            Next::Undersize(header) => self.refuse(&header),
            // Whether the announced bytes will ever come is unknown, so there is no step to keep.
            Next::Oversize(header) => {
                self.refuse(&header);
                Progress::Close
            }
        }
    }

    fn refuse(&mut self, header: &Header) -> Progress {
        if !header.no_reply() {
            self.output.error(header, Errno::INVAL);
        }
        if self.negotiated.is_some() { Progress::Handled } else { Progress::Close }
    }

    /// What to send next. To be followed by [`Self::sent`].
    #[must_use]
    pub fn chunk(&self) -> Option<Chunk<'_>> {
        self.output.chunk()
    }

    /// The socket took `count` bytes of [`Self::chunk`].
    pub fn sent(&mut self, count: usize) {
        self.output.sent(count);
    }

    /// The client is gone: its memory, interrupts and accesses go, the device is told if it ever knew it.
    pub fn disconnect(&mut self, device: &mut dyn Device) {
        self.input.clear();
        self.output.clear();
        self.irqs.clear();
        self.dma = Arc::default();
        self.engine.disconnect();
        if self.negotiated.take().is_some() {
            device.client_disconnected();
        }
    }

    /// Whether a client has negotiated a version.
    #[must_use]
    pub fn is_negotiated(&self) -> bool {
        self.negotiated.is_some()
    }

    /// The client's memory.
    #[must_use]
    pub fn dma(&self) -> &DmaTable {
        &self.dma
    }

    /// The client's memory as it is now, to be worked on in place.
    #[must_use]
    pub fn memory(&self) -> ClientMemory {
        ClientMemory::new(Arc::clone(&self.dma))
    }

    /// The function's interrupts.
    pub fn irqs(&mut self) -> &mut Irqs {
        &mut self.irqs
    }

    /// Starts reading `length` bytes of client memory, at most 1 MiB; the end comes from [`Self::poll_dma`].
    pub fn dma_read(&mut self, id: DmaId, address: u64, length: usize) {
        if self.negotiated.is_some() {
            self.engine.read(&self.dma, id, address, length);
            self.advance();
        } else {
            self.engine.refuse(id);
        }
    }

    /// Starts writing at most 1 MiB of client memory; the end comes from [`Self::poll_dma`].
    pub fn dma_write(&mut self, id: DmaId, address: u64, data: Vec<u8>) {
        if self.negotiated.is_some() {
            self.engine.write(&self.dma, id, address, data);
            self.advance();
        } else {
            self.engine.refuse(id);
        }
    }

    /// Gives up on an access. Its end is not reported and a late reply does no harm.
    pub fn cancel_dma(&mut self, id: DmaId) {
        self.engine.cancel(id);
        self.advance();
    }

    /// Gives up on all accesses: none is reported any more, and of data that has not left yet nothing leaves.
    pub fn abandon_dma(&mut self) {
        let withdrawn = self.output.withdraw_requests();
        self.engine.abandon(!withdrawn);
    }

    /// Marks what the client is working on now as to be waited for.
    pub fn drain_dma(&mut self) {
        self.engine.drain();
    }

    /// Whether the client has still to answer an access that was abandoned or is being drained: it may yet happen.
    pub fn draining_dma(&self) -> bool {
        self.engine.draining()
    }

    /// Gives up waiting for that answer.
    pub fn stop_draining_dma(&mut self) {
        self.engine.stop_draining();
    }

    /// The next access that has ended, in the order they were started unless one failed at once.
    pub fn poll_dma(&mut self) -> Option<DmaCompletion> {
        self.engine.poll()
    }

    fn advance(&mut self) {
        if let Some(client) = self.negotiated {
            self.engine.advance(&self.dma, client.data, &mut self.output);
        }
    }
}

#[cfg(test)]
mod tests;
