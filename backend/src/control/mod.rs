//! The control socket: who asks is told everything but keys, who watches hears of everything that happens to TDIs, streams,
//! sessions, certificates, firmware, exports and clients; and it gives out memory of BARs.
//!
//! Clients are served by the event loop, a step at a time, with bounded buffers; none of them can hold up the device. What
//! they can change is what reports say from the next LOCK on, and nothing else.

mod answers;
mod client;
mod clients;
mod recorder;
mod report;

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::device::Device;
use crate::vfio_user::Listener;

pub use answers::{Answered, answer};
use clients::Clients;
pub use recorder::Recorder;

/// The socket with its clients, and the record of what happened.
#[derive(Debug)]
pub struct Control {
    clients: Clients,
    recorder: Recorder,
}

impl Control {
    /// Serves who connects to `listener`. What happens to `device` is recorded from now on.
    ///
    /// # Errors
    /// The host has no epoll instance to give.
    pub fn new(listener: Listener, device: &mut Device) -> io::Result<Self> {
        Ok(Self { clients: Clients::new(listener)?, recorder: Recorder::new(device) })
    }

    /// Serves what is ready: of each client at most one request, so that others have their turn.
    pub fn on_ready(&mut self, now: Duration, device: &mut Device) {
        // What an answer is about must have been told before it.
        self.follow(now, device);
        let recorder = &self.recorder;
        self.clients.on_ready(&mut |command| answer(now, command, recorder, device));
        self.follow(now, device);
    }

    /// Tells watchers what has happened since the last call.
    pub fn follow(&mut self, now: Duration, device: &mut Device) {
        for event in self.recorder.follow(now, device) {
            self.clients.tell(&event);
        }
    }

    /// When [`Self::follow`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.recorder.next_deadline()
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.clients.as_fd()
    }
}
