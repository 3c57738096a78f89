//! One system call per direction: bytes and descriptors of a non-blocking Unix socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use tdispd_proto::vfio_user::MAX_MSG_FDS;

use super::device::Errno;
use super::input::Fds;
use super::output::Chunk;

/// Reads what is there; zero bytes mean that the client is gone.
///
/// # Errors
/// EAGAIN if nothing is there, else why the socket is broken.
pub(super) fn receive(socket: BorrowedFd<'_>, space: &mut [u8]) -> Result<(usize, Fds), Errno> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(space)], &mut control, flags) {
            Err(Errno::INTR) => {}
            done => break done?,
        }
    };
    let mut fds = Fds { fds: Vec::new(), truncated: message.flags.contains(ReturnFlags::CTRUNC) };
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.fds.extend(rights);
        }
    }
    Ok((message.bytes, fds))
}

/// Writes as much of a chunk as the socket takes.
///
/// # Errors
/// EAGAIN if it takes nothing, else why the socket is broken.
pub(crate) fn transmit(socket: BorrowedFd<'_>, chunk: &Chunk<'_>) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let sent = match chunk.fd {
            None => send(socket, chunk.bytes, flags),
            Some(fd) => send_with_fd(socket, chunk.bytes, fd, flags),
        };
        match sent {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn send_with_fd(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: &OwnedFd,
    flags: SendFlags,
) -> Result<usize, Errno> {
    let fds = [fd.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}
