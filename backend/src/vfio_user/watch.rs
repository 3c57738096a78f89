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

/// How epoll says that nothing follows what is there.
const LAST: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// An epoll event of one descriptor of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The server, by the number its [`Watcher`] was made with.
    pub server: u32,
    /// The descriptor.
    pub source: Source,
    /// Whoever is at its other end sends nothing any more.
    pub last: bool,
}

impl Token {
    /// From an event's flags and data; `None` if no server's look like this, data of `u64::MAX` for one.
    #[must_use]
    pub fn from_event(flags: u32, data: u64) -> Option<Self> {
        let source = match data & 3 {
            0 => Source::Listener,
            1 => Source::Client,
            2 => Source::IntxUnmask,
            _ => return None,
        };
        let last = EventFlags::from_bits_retain(flags).intersects(LAST);
        Some(Self { server: u32::try_from(data >> 2).ok()?, source, last })
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
        EventData::new_u64(data(self.server, source))
    }
}

/// What an event carries.
fn data(server: u32, source: Source) -> u64 {
    let source = match source {
        Source::Listener => 0,
        Source::Client => 1,
        Source::IntxUnmask => 2,
    };
    u64::from(server) << 2 | source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_which_descriptor_and_whether_anything_follows() {
        for server in [0, 1, 7, u32::MAX] {
            for source in [Source::Listener, Source::Client, Source::IntxUnmask] {
                for (flags, last) in [
                    (EventFlags::IN, false),
                    (EventFlags::OUT, false),
                    (EventFlags::IN | EventFlags::RDHUP, true),
                    (EventFlags::HUP, true),
                    (EventFlags::ERR, true),
                ] {
                    let token = Token::from_event(flags.bits(), data(server, source));
                    assert_eq!(token, Some(Token { server, source, last }));
                }
            }
        }
        assert_eq!(Token::from_event(1, u64::MAX), None);
        assert_eq!(Token::from_event(1, 1 << 40), None);
    }
}
