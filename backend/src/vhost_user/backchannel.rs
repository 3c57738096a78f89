//! The channel on which a client hears that configuration space changed (vhost-user, `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`).
//!
//! The `vhost` crate takes the channel's descriptor out of its message and has no way to say this on it. So the message is
//! looked at before the library reads it, and the descriptor kept a second time.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};

/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;
/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.
const CONFIG_CHANGE: u32 = 2;
/// Flags of a message: version 1, no reply wanted.
const VERSION: u32 = 1;
/// Request, flags, size of the payload; 32 bits each, in the host's byte order.
const HEADER: usize = 12;

/// The way back to a client, if it wanted one.
#[derive(Debug, Default)]
pub(super) struct Backchannel(Option<OwnedFd>);

impl Backchannel {
    /// Says that configuration space changed. A client that does not read its channel is not told again.
    pub(super) fn config_changed(&mut self) {
        let Some(channel) = &self.0 else { return };
        let mut message = [0; HEADER];
        for (to, from) in
            message.iter_mut().zip([CONFIG_CHANGE, VERSION, 0].into_iter().flat_map(u32::to_ne_bytes))
        {
            *to = from;
        }
        let sent = send(channel, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if sent != Ok(HEADER) {
            log::warn!("vhost-user: the client cannot be told that the disk changed: {sent:?}");
            self.0 = None;
        }
    }
}

/// Waits for a message, and keeps its descriptor if it is the channel. The message stays to be read.
pub(super) fn look(stream: BorrowedFd<'_>, back: &Mutex<Backchannel>) {
    let mut header = [0u8; HEADER];
    // Without room for descriptors the kernel gives none, so nothing is left behind for other messages.
    match recv(stream, header.as_mut_slice(), RecvFlags::PEEK) {
        Ok((HEADER, _)) => {}
        Ok(_) | Err(_) => return,
    }
    let [a, b, c, d, ..] = header;
    if u32::from_ne_bytes([a, b, c, d]) != SET_BACKEND_REQ_FD {
        return;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC;
    if recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut ancillary, flags).is_err() {
        return;
    }
    let channel = ancillary.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message { fds.next() } else { None }
    });
    *back.lock().unwrap_or_else(PoisonError::into_inner) = Backchannel(channel);
}
