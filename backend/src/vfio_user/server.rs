//! One function's server: the listener, at most one client, and what the event loop does for them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::connection::{Connection, Progress};
use super::device::{Device, Errno};
use super::dma::DmaTable;
use super::engine::{DmaCompletion, DmaId};
use super::irqs::Irqs;
use super::listener::Listener;
use super::memory::ClientMemory;
use super::peer::Peer;
use super::socket::{receive, transmit};
use super::watch::{Source, Token, Watcher};

/// Messages that one client gets answered before others have their turn.
const MESSAGES_PER_TURN: u32 = 32;
/// What is awaited of a client that takes its output. By edge: by level the kernel would look at a socket once more before it sleeps, which
/// is a twentieth of the time that a short message takes.
const INPUT: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
/// How long a client may hold the seat without having negotiated, once another one wants it.
const SILENCE: Duration = Duration::from_secs(1);
/// How long to leave the listener alone after the host had no descriptor for a client.
const PAUSE: Duration = Duration::from_secs(1);

/// One function's vfio-user server.
///
/// The event loop owns the epoll instance of the [`Watcher`]. It takes each [`Token`](super::Token) there to [`Self::on_ready`],
/// calls [`Self::go_on`] as long as [`Self::is_waiting`], and [`Self::resume`] when [`Self::next_deadline`] has come. After that it hands over the device's work: [`Self::dma_read`], [`Self::dma_write`], [`Self::irqs`]; and takes
/// what has ended from [`Self::poll_dma`]. None of these block.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    watcher: Watcher,
    /// When to listen again, if the host could not accept.
    paused: Option<Instant>,
    client: Option<Client>,
    connection: Connection,
    /// As registered with epoll.
    intx_unmask: Option<Arc<OwnedFd>>,
    waiting: bool,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    peer: Option<Peer>,
    since: Instant,
    /// As registered with epoll: whether output waits, instead of input.
    blocked: bool,
    /// Nothing will come after what is there, and no event tells of that again.
    leaving: bool,
}

impl Server {
    /// Serves who connects to `listener`.
    ///
    /// # Errors
    /// The epoll instance takes no more descriptors.
    pub fn new(listener: Listener, watcher: Watcher) -> Result<Self, Errno> {
        watcher.add(&listener, Source::Listener, EventFlags::IN)?;
        Ok(Self {
            listener,
            watcher,
            paused: None,
            client: None,
            connection: Connection::default(),
            intx_unmask: None,
            waiting: false,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Whether a client has negotiated a version.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_negotiated()
    }

    /// Does what can be done now: answers messages that have arrived, a bounded number of them, so that several servers can
    /// share a thread; accepts or refuses a client; notices that one left.
    pub fn on_ready(&mut self, token: Token, device: &mut dyn Device) {
        match token.source {
            Source::Client => {
                if let Some(client) = &mut self.client {
                    client.leaving |= token.last;
                }
                self.serve(device);
            }
            Source::Listener => self.accept(device),
            Source::IntxUnmask => self.connection.irqs().poll_intx_unmask(),
        }
        self.watch();
    }

    /// The client's next turn, if it [waits](Self::is_waiting) for one.
    pub fn go_on(&mut self, device: &mut dyn Device) {
        if self.waiting {
            self.serve(device);
            self.watch();
        }
    }

    /// Whether the client waits for its next turn, of which no event will tell: there are messages, or may be.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// When [`Self::resume`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.paused
    }

    /// Listens again, if the pause is over.
    pub fn resume(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now)
            && self.watcher.modify(&self.listener, Source::Listener, EventFlags::IN).is_ok()
        {
            self.paused = None;
        }
    }

    /// Client memory, for direct access.
    #[must_use]
    pub fn dma(&self) -> &DmaTable {
        self.connection.dma()
    }

    /// Client memory as it is now, to be worked on in place before the next message is handled.
    #[must_use]
    pub fn memory(&self) -> ClientMemory {
        self.connection.memory()
    }

    /// Sends a signal to the process that is connected.
    ///
    /// # Errors
    /// ESRCH where that is not known or there is none, EPERM if it is somebody else's.
    pub fn signal_client(&self, signal: Signal) -> Result<(), Errno> {
        self.client.as_ref().and_then(|client| client.peer.as_ref()).ok_or(Errno::SRCH)?.signal(signal)
    }

    /// The function's interrupts.
    pub fn irqs(&mut self) -> &mut Irqs {
        self.connection.irqs()
    }

    /// Starts reading `length` bytes of client memory, at most 1 MiB. Not while a message is being handled: a client does not
    /// answer before it has its reply. The end comes from [`Self::poll_dma`]; give up on it with [`Self::cancel_dma`].
    pub fn dma_read(&mut self, id: DmaId, address: u64, length: usize) {
        self.connection.dma_read(id, address, length);
        self.push();
    }

    /// Starts writing at most 1 MiB of client memory; see [`Self::dma_read`].
    pub fn dma_write(&mut self, id: DmaId, address: u64, data: Vec<u8>) {
        self.connection.dma_write(id, address, data);
        self.push();
    }

    /// Gives up on an access. Its end is not reported and a late reply does no harm.
    pub fn cancel_dma(&mut self, id: DmaId) {
        self.connection.cancel_dma(id);
        self.push();
    }

    /// Gives up on all accesses: the device may not do DMA any more, and what has not left for the client does not leave.
    pub fn abandon_dma(&mut self) {
        self.connection.abandon_dma();
        self.watch();
    }

    /// Marks what the client is working on now as to be waited for.
    pub fn drain_dma(&mut self) {
        self.connection.drain_dma();
    }

    /// Whether an access that was abandoned or is being drained may yet happen.
    pub fn draining_dma(&self) -> bool {
        self.connection.draining_dma()
    }

    /// Gives up waiting for that.
    pub fn stop_draining_dma(&mut self) {
        self.connection.stop_draining_dma();
    }

    /// The next access that has ended.
    pub fn poll_dma(&mut self) -> Option<DmaCompletion> {
        self.connection.poll_dma()
    }

    /// Sends what the device's own work has produced. An error will show again when the client is served next.
    fn push(&mut self) {
        let _ = self.flush();
        self.watch();
    }

    fn serve(&mut self, device: &mut dyn Device) {
        self.waiting = false;
        if let Err(errno) = self.exchange(device) {
            if errno != Errno::PIPE {
                log::debug!("{}: client dropped: {errno}", self.path().display());
            }
            self.hang_up(device);
        }
    }

    /// # Errors
    /// EPIPE when the client is gone, EPROTO when it was sent away, else why the socket is broken.
    fn exchange(&mut self, device: &mut dyn Device) -> Result<(), Errno> {
        if self.client.is_none() {
            return Ok(());
        }
        self.flush()?;
        let mut turns = MESSAGES_PER_TURN;
        self.handle(device, &mut turns)?;
        // What is left over comes first; and who does not take answers is not asked for questions.
        if self.waiting || self.connection.chunk().is_some() {
            return Ok(());
        }
        let Some(client) = &self.client else { return Ok(()) };
        let space = self.connection.space();
        let room = space.len();
        let (count, fds) = match receive(client.socket.as_fd(), space) {
            Err(Errno::AGAIN) => return Ok(()),
            other => other?,
        };
        if count == 0 {
            return Err(Errno::PIPE);
        }
        // Events come by edge, and a read that was not cut short has left nothing for the next. Descriptors cut one short, too.
        let drained = count < room && fds.is_empty() && !client.leaving;
        self.connection.received(count, fds);
        self.handle(device, &mut turns)?;
        // With output left, its going out is an event, and input is looked at anew after that.
        self.waiting |= !drained && self.connection.chunk().is_none();
        Ok(())
    }

    /// Answers the whole messages at hand, as long as the client takes the answers and its turn lasts.
    fn handle(&mut self, device: &mut dyn Device, turns: &mut u32) -> Result<(), Errno> {
        while *turns > 0 {
            *turns -= 1;
            match self.connection.handle_next(device) {
                Progress::Idle => return Ok(()),
                Progress::Handled => self.flush()?,
                Progress::Close => {
                    self.flush()?;
                    return Err(Errno::PROTO);
                }
            }
        }
        // With output left, its going out is an event.
        self.waiting = self.connection.chunk().is_none();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let Some(client) = &self.client else { return Ok(()) };
        while let Some(chunk) = self.connection.chunk() {
            match transmit(client.socket.as_fd(), &chunk) {
                Err(Errno::AGAIN) => break,
                sent => self.connection.sent(sent?),
            }
        }
        Ok(())
    }

    fn hang_up(&mut self, device: &mut dyn Device) {
        self.waiting = false;
        if let Some(client) = self.client.take() {
            self.watcher.remove(&client.socket);
        }
        self.connection.disconnect(device);
    }

    /// Takes a new client, or refuses it at once if there is one: it would wait for an answer that never comes.
    fn accept(&mut self, device: &mut dyn Device) {
        // A client that has left is dealt with first, by an event of its own: its successor must not be refused because of it.
        // One that owes us its attention cannot be waited for, though: it may have closed only its sending side.
        let owes = self.connection.chunk().is_some();
        if !owes && self.client.as_ref().is_some_and(Client::has_left) {
            return;
        }
        match self.listener.accept() {
            Ok(socket) => self.seat(socket, device),
            Err(Errno::AGAIN) => {}
            Err(errno) => {
                // It stays in the queue, and the listener ready: without a pause we would do nothing else.
                log::warn!("{}: cannot accept: {errno}", self.path().display());
                if self.watcher.modify(&self.listener, Source::Listener, EventFlags::empty()).is_ok() {
                    self.paused = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    fn seat(&mut self, socket: OwnedFd, device: &mut dyn Device) {
        if let Some(client) = &self.client {
            if self.is_connected() || client.since.elapsed() < SILENCE {
                log::warn!("{}: refused a second client", self.path().display());
                return;
            }
            log::warn!("{}: a client that said nothing gives way to another", self.path().display());
            self.hang_up(device);
        }
        if let Err(errno) = self.watcher.add(&socket, Source::Client, INPUT) {
            log::warn!("{}: cannot watch a client: {errno}", self.path().display());
            return;
        }
        let peer = Peer::of(&socket);
        device.client_is(peer.as_ref().map(Peer::process));
        self.client = Some(Client { socket, peer, since: Instant::now(), blocked: false, leaving: false });
    }

    /// Brings what epoll watches in line with what is awaited.
    fn watch(&mut self) {
        let blocked = self.connection.chunk().is_some();
        if let Some(client) = &mut self.client
            && client.blocked != blocked
        {
            // A client that does not read its replies gets no further message read.
            let events = if blocked { EventFlags::OUT | EventFlags::ET } else { INPUT };
            if self.watcher.modify(&client.socket, Source::Client, events).is_ok() {
                client.blocked = blocked;
            }
        }
        let wanted = self.connection.irqs().intx_unmask_fd();
        if wanted.map(Arc::as_ptr) != self.intx_unmask.as_ref().map(Arc::as_ptr) {
            let wanted = wanted.cloned();
            if let Some(old) = self.intx_unmask.take() {
                self.watcher.remove(&old);
            }
            // By edge: its counter is the client's, who may keep it above zero for ever.
            if let Some(new) = &wanted
                && let Err(errno) = self.watcher.add(new, Source::IntxUnmask, EventFlags::IN | EventFlags::ET)
            {
                log::warn!("{}: cannot watch the INTx unmask descriptor: {errno}", self.path().display());
            }
            self.intx_unmask = wanted;
        }
    }
}

impl Client {
    fn has_left(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok()
            && fds
                .iter()
                .any(|fd| fd.revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }
}
