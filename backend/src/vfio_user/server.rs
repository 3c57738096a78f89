//! The sockets of one function: a listener, at most one client, and an epoll instance that stands for both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, fchmod, lstat, unlink};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use thiserror::Error;

use super::connection::{Connection, Progress};
use super::device::{Device, Errno};
use super::dma::DmaTable;
use super::engine::{DmaCompletion, DmaId};
use super::irqs::Irqs;
use super::socket::{receive, transmit};

/// How often a busy client lets the listener have a look, in messages' worth of readiness.
const PATIENCE: u32 = 32;

/// Why a server cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{0}: another process is serving this socket")]
    InUse(PathBuf),
    /// The path exists and is no socket.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// Anything else, such as a missing directory or a path too long for a socket (107 bytes).
    #[error("{path}: {source}")]
    Io {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// One function's vfio-user server.
///
/// The event loop watches [`AsFd::as_fd`] for readability, level-triggered, and calls [`Self::on_ready`]. Descriptors behind it come and
/// go without the loop noticing. After that it hands over the device's work: [`Self::dma_read`], [`Self::dma_write`],
/// [`Self::irqs`]; and takes what has ended from [`Self::poll_dma`]. None of these block.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Device and inode of the socket file, to remove no other.
    file: Option<(u64, u64)>,
    listener: OwnedFd,
    epoll: OwnedFd,
    client: Option<Client>,
    connection: Connection,
    /// As registered with epoll.
    intx_unmask: Option<Arc<OwnedFd>>,
    patience: u32,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// As registered with epoll: whether output waits, instead of input.
    blocked: bool,
}

impl Server {
    /// Listens at `path`, mode 0600. A socket file nobody listens at is replaced.
    ///
    /// # Errors
    /// [`BindError`]; a socket that is being served is left alone.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source: Errno| BindError::Io { path: path.to_owned(), source: source.into() };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let listener = new_socket().map_err(fail)?;
        // Before binding, so that the file never has another mode; the process's umask stays out of it.
        fchmod(&listener, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        match bind(&listener, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&listener, &address).map_err(fail)?;
            }
            bound => bound.map_err(fail)?,
        }
        let file = lstat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let server = Self::new(path.to_owned(), file, listener).map_err(fail)?;
        listen(&server.listener, 8).map_err(fail)?;
        Ok(server)
    }

    fn new(path: PathBuf, file: Option<(u64, u64)>, listener: OwnedFd) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN)?;
        Ok(Self {
            path,
            file,
            listener,
            epoll,
            client: None,
            connection: Connection::default(),
            intx_unmask: None,
            patience: PATIENCE,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a client has negotiated a version.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_negotiated()
    }

    /// Does what can be done now: answers the messages that have arrived, accepts or refuses clients, notices that one left.
    /// At most one read's worth of messages, so that several servers can share a thread.
    pub fn on_ready(&mut self, device: &mut dyn Device) {
        let busy = self.serve(device);
        self.patience = self.patience.saturating_sub(1);
        if !busy || self.patience == 0 {
            self.patience = PATIENCE;
            self.connection.irqs().poll_intx_unmask();
            self.accept();
        }
        self.watch();
    }

    /// Client memory, for direct access.
    #[must_use]
    pub fn dma(&self) -> &DmaTable {
        self.connection.dma()
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

    /// The next access that has ended.
    pub fn poll_dma(&mut self) -> Option<DmaCompletion> {
        self.connection.poll_dma()
    }

    /// Sends what the device's own work has produced. An error will show again when the client is served next.
    fn push(&mut self) {
        let _ = self.flush();
        self.watch();
    }

    /// Whether anything arrived.
    fn serve(&mut self, device: &mut dyn Device) -> bool {
        match self.exchange(device) {
            Ok(busy) => busy,
            Err(errno) => {
                if errno != Errno::PIPE {
                    log::debug!("{}: client dropped: {errno}", self.path.display());
                }
                self.hang_up(device);
                false
            }
        }
    }

    /// # Errors
    /// EPIPE when the client is gone, EPROTO when it was sent away, else why the socket is broken.
    fn exchange(&mut self, device: &mut dyn Device) -> Result<bool, Errno> {
        if self.client.is_none() {
            return Ok(false);
        }
        self.flush()?;
        self.handle(device)?;
        if self.connection.chunk().is_some() {
            return Ok(false);
        }
        let Some(client) = &self.client else { return Ok(false) };
        let (count, fds) = match receive(client.socket.as_fd(), self.connection.space()) {
            Err(Errno::AGAIN) => return Ok(false),
            other => other?,
        };
        if count == 0 {
            return Err(Errno::PIPE);
        }
        self.connection.received(count, fds);
        self.handle(device)?;
        Ok(true)
    }

    /// Answers the whole messages at hand, as long as the client takes the answers.
    fn handle(&mut self, device: &mut dyn Device) -> Result<(), Errno> {
        loop {
            match self.connection.handle_next(device) {
                Progress::Idle => return Ok(()),
                Progress::Handled => self.flush()?,
                Progress::Close => {
                    self.flush()?;
                    return Err(Errno::PROTO);
                }
            }
        }
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
        if let Some(client) = self.client.take() {
            // Closing alone would not do while the kernel still has another reference.
            let _ = epoll::delete(&self.epoll, &client.socket);
        }
        self.connection.disconnect(device);
    }

    /// Takes a new client, or refuses it at once if there is one: it would wait for an answer that never comes.
    fn accept(&mut self) {
        // A client that has left is dealt with first; its successor must not be refused because of it. One that owes us its
        // attention cannot be waited for, though: it may have closed only its sending side.
        let blocked = self.connection.chunk().is_some();
        while blocked || !self.client.as_ref().is_some_and(Client::has_left) {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => {
                    log::warn!("{}: cannot accept: {errno}", self.path.display());
                    return;
                }
            };
            if self.client.is_some() {
                log::warn!("{}: refused a second client", self.path.display());
            } else if epoll::add(&self.epoll, &socket, EventData::new_u64(1), EventFlags::IN).is_ok() {
                self.client = Some(Client { socket, blocked: false });
            }
        }
    }

    /// Brings what epoll watches in line with what is awaited.
    fn watch(&mut self) {
        let blocked = self.connection.chunk().is_some();
        if let Some(client) = &mut self.client
            && client.blocked != blocked
        {
            // A client that does not read its replies gets no further message read.
            let events = if blocked { EventFlags::OUT } else { EventFlags::IN };
            if epoll::modify(&self.epoll, &client.socket, EventData::new_u64(1), events).is_ok() {
                client.blocked = blocked;
            }
        }
        let wanted = self.connection.irqs().intx_unmask_fd();
        if wanted.map(Arc::as_ptr) != self.intx_unmask.as_ref().map(Arc::as_ptr) {
            let wanted = wanted.cloned();
            if let Some(old) = self.intx_unmask.take() {
                let _ = epoll::delete(&self.epoll, &old);
            }
            if let Some(new) = &wanted
                && let Err(errno) = epoll::add(&self.epoll, new, EventData::new_u64(2), EventFlags::IN)
            {
                log::warn!("{}: cannot watch the INTx unmask descriptor: {errno}", self.path.display());
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

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.file.is_some() && lstat(&self.path).ok().map(|stat| (stat.st_dev, stat.st_ino)) == self.file {
            let _ = unlink(&self.path);
        }
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes a socket file whose server is gone.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let fail = |source: Errno| BindError::Io { path: path.to_owned(), source: source.into() };
    let stat = lstat(path).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match connect(new_socket().map_err(fail)?, address) {
        Err(Errno::CONNREFUSED) => unlink(path).map_err(fail),
        // EAGAIN is a full queue: somebody listens.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(other) => Err(fail(other)),
    }
}
