//! The disk for vhost-user clients: QEMU's `vhost-user-blk-pci`, and any other.
//!
//! Messages are taken apart by the `vhost` crate; what they do is in `handler`. We do not use `vhost-user-backend`, which sits
//! on top of it, because it has no in-flight tracking, maps whatever memory it is given, and reads a client's descriptors
//! where that can block. The virtio block logic is the `disk` crate's, the same that a TDI has.
//!
//! One client at a time: a second one is sent away. Each running queue has a thread; messages have one, too, for the library
//! reads them blocking. Nobody waits for these threads but each other, so a client can only hold up itself.

mod backchannel;
mod handler;
mod inflight;
mod memory;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use disk::{Disk, Gate};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::config::ClientMemory;
use crate::vfio_user::{Errno, Listener};
use backchannel::Backchannel;
use handler::Handler;

/// How often the file behind the disk is asked for its size.
const SIZE_PERIOD: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long the end of the program waits for a client's requests that are at work.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the configuration says about clients.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What memory of theirs is mapped.
    pub client_memory: ClientMemory,
    /// How long a queue's thread looks for requests before it sleeps.
    pub poll: Duration,
}

/// A disk that is being served. Dropping it ends that.
#[derive(Debug)]
pub struct VhostUser {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl VhostUser {
    /// Serves `disk` to clients of `listener`.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn start(listener: Listener, disk: Arc<Disk>, settings: Settings) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let server = Server { listener, disk, settings, stop: Arc::clone(&stop), client: None };
        let thread = std::thread::Builder::new().name("vhost-user".into()).spawn(move || server.serve())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for VhostUser {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client, as the server sees it.
struct Client {
    /// Shut down to end it.
    stream: UnixStream,
    back: Arc<Mutex<Backchannel>>,
    /// Disconnected once its threads have ended.
    ended: Receiver<()>,
}

impl Client {
    fn gone(&self) -> bool {
        self.ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
    }
}

struct Server {
    listener: Listener,
    disk: Arc<Disk>,
    settings: Settings,
    stop: Arc<OwnedFd>,
    client: Option<Client>,
}

impl Server {
    fn serve(mut self) {
        loop {
            let mut waiting =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(self.stop.as_ref(), PollFlags::IN)];
            let polled = poll(&mut waiting, Some(&SIZE_PERIOD));
            let [listener, stop] = waiting.map(|fd| !fd.revents().is_empty());
            match polled {
                Ok(_) if stop => break,
                Ok(_) if listener => self.accept(),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    log::error!("vhost-user: waiting for clients failed: {errno}");
                    break;
                }
            }
            self.look_at_size();
        }
        if let Some(client) = self.client.take() {
            let _ = client.stream.shutdown(std::net::Shutdown::Both);
            // What is at work still reaches the file; a client that does not let its thread end does not keep us.
            let _ = client.ended.recv_timeout(PATIENCE);
        }
    }

    /// Follows the file behind the disk, and tells the client.
    fn look_at_size(&self) {
        match self.disk.refresh() {
            Ok(false) => {}
            Ok(true) => {
                log::info!("vhost-user: the disk has {} bytes now", self.disk.size());
                if let Some(client) = &self.client {
                    client.back.lock().unwrap_or_else(PoisonError::into_inner).config_changed();
                }
            }
            Err(error) => log::warn!("vhost-user: the disk's size cannot be read: {error}"),
        }
    }

    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok(stream) => UnixStream::from(stream),
            Err(Errno::AGAIN) => return,
            Err(errno) => {
                log::error!("vhost-user: a client cannot be accepted: {errno}");
                // Out of descriptors, most likely: it is still there, and would be reported as fast as we can.
                std::thread::sleep(Duration::from_millis(100));
                return;
            }
        };
        if self.client.as_ref().is_some_and(|client| !client.gone()) {
            log::warn!("vhost-user: a second client is sent away");
            return;
        }
        match self.begin(stream) {
            Ok(client) => {
                log::info!("vhost-user: a client is there");
                self.client = Some(client);
            }
            Err(error) => log::error!("vhost-user: a client cannot be served: {error}"),
        }
    }

    fn begin(&self, stream: UnixStream) -> io::Result<Client> {
        // The library waits in its reads.
        stream.set_nonblocking(false)?;
        let back = Arc::new(Mutex::new(Backchannel::default()));
        let (end, ended) = channel();
        let client = Client { stream: stream.try_clone()?, back: Arc::clone(&back), ended };
        let handler = Handler::new(Arc::clone(&self.disk), Arc::new(Gate::default()), self.settings);
        std::thread::Builder::new()
            .name("vhost-user client".into())
            .spawn(move || converse(stream, handler, &back, end))?;
        Ok(client)
    }
}

/// Answers a client until it is gone, and ends its queues.
fn converse(stream: UnixStream, handler: Handler, back: &Mutex<Backchannel>, end: Sender<()>) {
    // The library wants the handler shared; nobody else has it.
    let handler = Arc::new(Mutex::new(handler));
    let watched = stream.try_clone();
    let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&handler));
    let why = loop {
        if let Ok(watched) = &watched {
            backchannel::look(watched.as_fd(), back);
        }
        if let Err(error) = messages.handle_request() {
            break error;
        }
    };
    if matches!(why, Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_)) {
        log::info!("vhost-user: the client is gone");
    } else {
        log::warn!("vhost-user: the client is sent away: {why}");
    }
    // The server has the socket, too: nobody would hear that we are gone.
    if let Ok(watched) = &watched {
        let _ = watched.shutdown(std::net::Shutdown::Both);
    }
    drop(messages);
    // With the handler end the queues. What they took is completed first.
    drop(handler);
    *back.lock().unwrap_or_else(PoisonError::into_inner) = Backchannel::default();
    drop(end);
}
