//! The TCP socket that speaks spdm-emu's framing: whole DOE data objects in, whole DOE data objects out, one client at a time.
//!
//! Everything that expects `spdm_responder_emu` can talk to it. Unlike that program it survives a client that vanishes, a
//! frame that is too long and a transport it does not speak, and a TDISP message in the clear may only ask.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tdispd_proto::frame::{Command, Frame, Transport};

const HELLO: &[u8] = b"Client Hello!\0";
const HELLO_ANSWER: &[u8] = b"Server Hello!\0";

/// What the client wants beyond an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    GoOn,
    /// SHUTDOWN was answered: spdm-emu would exit.
    Shutdown,
}

/// What an object that gets no answer looks like on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Silence {
    /// A frame without payload: the client knows at once.
    #[default]
    Empty,
    /// No frame: the client times out, if it can.
    Nothing,
}

/// What is behind the socket.
pub trait Behind {
    /// Answers one data object into `response`, which is replaced; false means silence.
    fn object(&mut self, object: &[u8], response: &mut Vec<u8>) -> bool;
    /// Answers a TDISP message that came without SPDM around it into `response`, which is replaced; false means silence.
    fn tdisp(&mut self, message: &[u8], response: &mut Vec<u8>) -> bool;
    /// The responder is to ask for a new key of its own in this session, or in every one.
    fn renew_key(&mut self, session: Option<u32>);
    /// The responder is to ask the requester what it is.
    fn ask_endpoint_info(&mut self);
}

/// The listener and its client.
#[derive(Debug)]
pub struct SpdmSocket {
    listener: TcpListener,
    epoll: OwnedFd,
    client: Option<Client>,
    silence: Silence,
    object: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    /// `output` does not leave before [`SpdmSocket::release`].
    held: bool,
    /// Close once `output` has left.
    closing: bool,
    /// What the epoll instance waits for.
    awaited: EventFlags,
}

impl SpdmSocket {
    /// Listens on `address`; port 0 lets the system choose one.
    ///
    /// # Errors
    /// The address is in use or not this machine's.
    pub fn bind(address: SocketAddr, silence: Silence) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Edge-triggered: a client that has to wait, or cannot be accepted for want of descriptors, makes no noise.
        epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { listener, epoll, client: None, silence, object: Vec::new() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Address of the client, if there is one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.client.as_ref().map(|client| client.peer)
    }

    /// Whether an answer waits for [`SpdmSocket::release`].
    pub fn holds_answer(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.held)
    }

    /// Sends the answer to a data object: whatever its request was to end has ended.
    pub fn release(&mut self) {
        let Some(client) = self.client.as_mut().filter(|client| client.held) else { return };
        client.held = false;
        let sent = client.flush();
        client.drop_if(sent);
        self.settle();
    }

    /// Serves what is ready: at most one frame, so that others have their turn. The answer to a data object stays here
    /// until [`SpdmSocket::release`].
    pub fn on_ready(&mut self, behind: &mut dyn Behind) -> Wish {
        // Takes the listener's edge, which would otherwise stand in the epoll instance for ever.
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 2];
        let _ = epoll::wait(&self.epoll, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let broken = events.iter().any(|event| {
            let flags = event.flags;
            flags.intersects(EventFlags::HUP | EventFlags::ERR)
        });
        let mut wish = Wish::GoOn;
        match &mut self.client {
            None => self.accept(),
            // Nothing else would notice, and epoll would not stop to say it.
            Some(client) if client.held && broken => {
                client.drop_if(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Some(client) => match client.serve(self.silence, &mut self.object, behind) {
                Ok(found) => wish = found,
                failed => client.drop_if(failed.map(|_| ())),
            },
        }
        self.settle();
        wish
    }

    /// Makes room for the next client where one has left, and waits for what is due next.
    fn settle(&mut self) {
        if self.client.as_ref().is_some_and(|client| client.closing && client.output.is_empty()) {
            // Closing the stream takes it out of the epoll instance; whoever waits in the listener is next.
            self.client = None;
            self.accept();
        }
        if let Some(client) = &mut self.client {
            client.watch(&self.epoll);
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, peer)) => {
                let prepared =
                    stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).and_then(|()| {
                        Ok(epoll::add(&self.epoll, &stream, EventData::new_u64(1), EventFlags::IN)?)
                    });
                if let Err(error) = prepared {
                    log::warn!("SPDM socket: client from {peer} dropped: {error}");
                    return;
                }
                self.client = Some(Client {
                    stream,
                    peer,
                    input: Vec::new(),
                    output: Vec::new(),
                    held: false,
                    closing: false,
                    awaited: EventFlags::IN,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => log::warn!("SPDM socket: cannot accept: {error}"),
        }
    }
}

impl AsFd for SpdmSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Client {
    fn serve(&mut self, silence: Silence, object: &mut Vec<u8>, behind: &mut dyn Behind) -> io::Result<Wish> {
        if self.held {
            return Ok(Wish::GoOn);
        }
        if !self.output.is_empty() {
            self.flush()?;
            return Ok(Wish::GoOn);
        }
        self.receive()?;
        let frame = match Frame::parse(&self.input) {
            Ok(Some((frame, length))) => {
                Some((frame.command, self.answer(&frame, silence, object, behind), length))
            }
            Ok(None) => None,
            Err(oversize) => return Err(io::Error::new(io::ErrorKind::InvalidData, oversize)),
        };
        let Some((command, output, length)) = frame else { return Ok(Wish::GoOn) };
        self.output = output?;
        self.input.drain(..length);
        self.held = command == Command::NORMAL && !self.output.is_empty();
        if !self.held {
            self.flush()?;
        }
        match command {
            Command::SHUTDOWN => {
                self.closing = true;
                Ok(Wish::Shutdown)
            }
            Command::CONTINUE => {
                self.closing = true;
                Ok(Wish::GoOn)
            }
            _ => Ok(Wish::GoOn),
        }
    }

    /// The bytes that answer a frame.
    fn answer(
        &self,
        frame: &Frame<'_>,
        silence: Silence,
        object: &mut Vec<u8>,
        behind: &mut dyn Behind,
    ) -> io::Result<Vec<u8>> {
        let (command, payload): (Command, &[u8]) = match frame.command {
            Command::TEST if frame.payload == HELLO => (Command::TEST, HELLO_ANSWER),
            Command::NORMAL | Command::TDISP if frame.transport == Transport::PCI_DOE => {
                let answered = match frame.command {
                    Command::TDISP => behind.tdisp(frame.payload, object),
                    _ => behind.object(frame.payload, object),
                };
                // spdm_responder_emu says NORMAL before the answer to a TDISP message, too, and its clients insist on it.
                match (answered, silence) {
                    (true, _) => (Command::NORMAL, object.as_slice()),
                    (false, Silence::Empty) => (Command::NORMAL, &[]),
                    (false, Silence::Nothing) => return Ok(Vec::new()),
                }
            }
            // Acknowledged whatever comes of it, as spdm_responder_emu does: the requester finds that out within SPDM.
            Command::ENCAPSULATED_KEY_UPDATE => {
                behind.renew_key(frame.payload.try_into().ok().map(u32::from_le_bytes));
                (frame.command, &[])
            }
            Command::ENCAPSULATED_ENDPOINT_INFO => {
                behind.ask_endpoint_info();
                (frame.command, &[])
            }
            Command::SHUTDOWN | Command::CONTINUE => (frame.command, &[]),
            other => {
                log::warn!(
                    "SPDM socket: command {:#x} over transport {} refused",
                    other.0,
                    frame.transport.0
                );
                (Command::UNKNOWN, &[])
            }
        };
        let mut bytes = Vec::new();
        Frame { command, transport: frame.transport, payload }
            .encode(&mut bytes)
            .map_err(|oversize| io::Error::new(io::ErrorKind::InvalidData, oversize))?;
        Ok(bytes)
    }

    /// Reads once; a frame is at most a few kilobytes, and no more than one is ever waited for.
    fn receive(&mut self) -> io::Result<()> {
        if matches!(Frame::parse(&self.input), Ok(Some(_)) | Err(_)) {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend(buffer.iter().take(count));
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stream.write(&self.output) {
            Ok(count) => {
                self.output.drain(..count);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A client whose socket fails is closed without another word.
    fn drop_if(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            log::debug!("SPDM socket: client dropped: {error}");
            self.closing = true;
            self.held = false;
            self.output.clear();
        }
    }

    /// Waits for nothing while the answer is held; else for room to write, or for bytes to read; for room at once if a whole
    /// frame is already here.
    fn watch(&mut self, epoll: &OwnedFd) {
        let events = if self.held {
            EventFlags::empty()
        } else if !self.output.is_empty() || matches!(Frame::parse(&self.input), Ok(Some(_))) {
            EventFlags::OUT
        } else {
            EventFlags::IN
        };
        if events != self.awaited {
            match epoll::modify(epoll, &self.stream, EventData::new_u64(1), events) {
                Ok(()) => self.awaited = events,
                Err(errno) => {
                    log::warn!("SPDM socket: cannot watch the client: {errno}");
                    self.closing = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
