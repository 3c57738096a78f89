//! What the event loop watches for a server, and how its events say so.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::device::Errno;

/// Which of a server's descriptors an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A client wants in.
    Listener,
    /// The client sent something, left, or takes output again.
    Client,
    /// The descriptor that unmasks INTx was signalled.
    IntxUnmask,
}

/// Names one descriptor of one server; the data of its epoll events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The server, by the number its [`Watcher`] was made with.
    pub server: u32,
    /// The descriptor.
    pub source: Source,
}

impl Token {
    /// As an event's data.
    #[must_use]
    pub fn to_data(self) -> u64 {
        let source = match self.source {
            Source::Listener => 0,
            Source::Client => 1,
            Source::IntxUnmask => 2,
        };
        u64::from(self.server) << 2 | source
    }

    /// From an event's data; `None` if no token looks like this, `u64::MAX` for one.
    #[must_use]
    pub fn from_data(data: u64) -> Option<Self> {
        let source = match data & 3 {
            0 => Source::Listener,
            1 => Source::Client,
            2 => Source::IntxUnmask,
            _ => return None,
        };
        Some(Self { server: u32::try_from(data >> 2).ok()?, source })
    }
}

/// The event loop's epoll instance, as one server sees it. Descriptors are in it directly: an instance of their own inside
/// the loop's would cost a quarter of the time that a short message takes.
#[derive(Clone, Debug)]
pub struct Watcher {
    epoll: Arc<OwnedFd>,
    server: u32,
}

impl Watcher {
    /// Server number `server` of the loop around `epoll`. Its events carry [`Token`]s.
    #[must_use]
    pub fn new(epoll: Arc<OwnedFd>, server: u32) -> Self {
        Self { epoll, server }
    }

    pub(super) fn add(&self, fd: impl AsFd, source: Source, events: EventFlags) -> Result<(), Errno> {
        epoll::add(&*self.epoll, fd, self.data(source), events)
    }

    pub(super) fn modify(&self, fd: impl AsFd, source: Source, events: EventFlags) -> Result<(), Errno> {
        epoll::modify(&*self.epoll, fd, self.data(source), events)
    }

    /// To be called before the descriptor is closed: that alone would not do while the kernel has another reference to it.
    pub(super) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&*self.epoll, fd);
    }

    fn data(&self, source: Source) -> EventData {
        EventData::new_u64(Token { server: self.server, source }.to_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_an_event() {
        for server in [0, 1, 7, u32::MAX] {
            for source in [Source::Listener, Source::Client, Source::IntxUnmask] {
                let token = Token { server, source };
                assert_eq!(Token::from_data(token.to_data()), Some(token));
            }
        }
        assert_eq!(Token::from_data(u64::MAX), None);
        assert_eq!(Token::from_data(1 << 40), None);
    }
}
