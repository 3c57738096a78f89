//! One vfio-user connection as a client: requests with their replies, and the server's own DMA served meanwhile.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno as SystemErrno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tdispd_proto::vfio_user::{
    Command, DmaAccess, HEADER_SIZE, Header, MAX_MESSAGE_SIZE, MAX_MSG_FDS, MessageType, put_error,
    put_reply, put_request,
};
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::transport::socket_error;

/// EINVAL, for a server's DMA that leaves what was mapped.
const EINVAL: u32 = 22;

/// Memory the server may use, by DMA address.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) file: File,
    pub(super) address: u64,
    pub(super) size: u64,
}

/// A connected socket.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    window: Window,
    timeout: Duration,
    next_id: u16,
    broken: bool,
}

/// What a reply brings.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) payload: Vec<u8>,
    /// Descriptors, in the order sent.
    pub(super) fds: Vec<OwnedFd>,
}

/// A server's refusal: the errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u32);

impl Connection {
    pub(super) fn new(stream: UnixStream, window: Window, timeout: Duration) -> Self {
        Self { stream, window, timeout, next_id: 1, broken: false }
    }

    /// The memory that was or will be mapped.
    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Sends a request, with the window's file if `with_file`, and returns its reply's payload. Descriptors with it are closed.
    ///
    /// The outer error is the connection's end, the inner one a refusal.
    pub(super) fn request(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        with_file: bool,
    ) -> Result<Result<Vec<u8>, Errno>> {
        Ok(self.exchange(command, parts, with_file)?.map(|reply| reply.payload))
    }

    fn exchange(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        with_file: bool,
    ) -> Result<Result<Reply, Errno>> {
        if self.broken {
            return Err(Error::Protocol(
                "the vfio-user connection is out of step after an earlier failure".into(),
            ));
        }
        self.broken = true;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let mut message = Vec::new();
        put_request(&mut message, id, command, false, parts);
        let deadline = Instant::now() + self.timeout;
        self.send(&message, with_file)?;
        loop {
            let (header, reply) = self.receive(deadline)?;
            match header.message_type() {
                MessageType::Command => self.serve(&header, &reply.payload)?,
                MessageType::Reply if header.message_id.get() == id && header.command == command => {
                    self.broken = false;
                    return Ok(header.failure().map_or(Ok(reply), |errno| Err(Errno(errno))));
                }
                MessageType::Reply | MessageType::Other(_) => {
                    return Err(Error::Protocol(format!(
                        "{command:?} {id} was answered with {:?} {}",
                        header.command, header.message_id
                    )));
                }
            }
        }
    }

    /// Like [`Self::request`], where a refusal is an error too.
    pub(super) fn demand(&mut self, command: Command, parts: &[&[u8]], with_file: bool) -> Result<Vec<u8>> {
        Ok(self.demand_reply(command, parts, with_file)?.payload)
    }

    /// Like [`Self::demand`], with the descriptors of the reply.
    pub(super) fn demand_reply(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        with_file: bool,
    ) -> Result<Reply> {
        self.exchange(command, parts, with_file)?.map_err(|Errno(errno)| Error::Refused {
            request: format!("vfio-user {command:?}"),
            reason: std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0)).to_string(),
        })
    }

    fn send(&mut self, message: &[u8], with_file: bool) -> Result<()> {
        let what = "vfio-user request";
        self.stream.set_write_timeout(Some(self.timeout)).map_err(Error::io(what))?;
        let file: [BorrowedFd<'_>; 1] = [self.window.file.as_fd()];
        let mut rest = message;
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // The descriptor goes with the first byte, whatever becomes of the others.
            if with_file && rest.len() == message.len() {
                control.push(SendAncillaryMessage::ScmRights(&file));
            }
            let sent =
                rustix::net::sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)
                    .map_err(|e| socket_error(what, self.timeout, e.into()))?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<(Header, Reply)> {
        let mut head = [0; HEADER_SIZE];
        let mut fds = Vec::new();
        self.fill(&mut head, &mut fds, deadline)?;
        let header =
            Header::parse(&head).ok_or_else(|| Error::Protocol("vfio-user: a short header".into()))?;
        let size = header.message_size.get();
        let payload = usize::try_from(size).ok().and_then(|size| size.checked_sub(HEADER_SIZE));
        let Some(length) = payload.filter(|_| size <= MAX_MESSAGE_SIZE) else {
            return Err(Error::Protocol(format!("vfio-user: a message of {size} bytes")));
        };
        let mut payload = vec![0; length];
        self.fill(&mut payload, &mut fds, deadline)?;
        Ok((header, Reply { payload, fds }))
    }

    /// Fills `buffer` from the stream; descriptors that come with its bytes are added to `fds`.
    fn fill(&mut self, mut buffer: &mut [u8], fds: &mut Vec<OwnedFd>, deadline: Instant) -> Result<()> {
        let what = "vfio-user reply";
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TimedOut { what: what.into(), after: self.timeout });
            }
            self.stream.set_read_timeout(Some(left)).map_err(Error::io(what))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let pieces = &mut [IoSliceMut::new(buffer)];
            let received = rustix::net::recvmsg(&self.stream, pieces, &mut control, RecvFlags::CMSG_CLOEXEC);
            let (count, lost) = match received {
                Ok(message) if message.bytes == 0 => {
                    return Err(Error::Transport {
                        what: "the device closed the vfio-user connection".into(),
                        source: std::io::ErrorKind::UnexpectedEof.into(),
                    });
                }
                Ok(message) => (message.bytes, message.flags.contains(ReturnFlags::CTRUNC)),
                Err(SystemErrno::INTR) => continue,
                Err(e) => return Err(socket_error(what, self.timeout, e.into())),
            };
            for ancillary in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
                    fds.extend(rights);
                }
            }
            if lost || fds.len() > MAX_MSG_FDS {
                return Err(Error::Protocol("vfio-user: more descriptors than there is room for".into()));
            }
            buffer = buffer.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Carries out a server's DMA on the window; refuses anything else.
    fn serve(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        let mut reply = Vec::new();
        match self.dma(header.command, payload) {
            Some((access, data)) => put_reply(&mut reply, header, &[access.as_bytes(), &data]),
            None => put_error(&mut reply, header, EINVAL),
        }
        if header.no_reply() { Ok(()) } else { self.send(&reply, false) }
    }

    fn dma(&self, command: Command, payload: &[u8]) -> Option<(DmaAccess, Vec<u8>)> {
        match command {
            Command::DMA_READ => {
                let access = DmaAccess::parse_read(payload).ok()?;
                let (at, length) = self.locate(access)?;
                let mut data = vec![0; length];
                self.window.file.read_exact_at(&mut data, at).ok()?;
                Some((access, data))
            }
            Command::DMA_WRITE => {
                let (access, data) = DmaAccess::parse_write(payload).ok()?;
                let (at, _) = self.locate(access)?;
                self.window.file.write_all_at(data, at).ok()?;
                Some((access, Vec::new()))
            }
            _ => None,
        }
    }

    /// Where an access lies in the window's file, and its length, which the window bounds.
    fn locate(&self, access: DmaAccess) -> Option<(u64, usize)> {
        let at = access.address.get().checked_sub(self.window.address)?;
        let end = at.checked_add(access.count.get())?;
        (end <= self.window.size).then_some(())?;
        Some((at, usize::try_from(access.count.get()).ok()?))
    }
}
