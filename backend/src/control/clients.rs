//! The listener of the control socket and everybody who connected to it.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tdispd_proto::control::{Event, Farewell};

use super::client::{Answer, Client, line};
use crate::vfio_user::Listener;

/// Clients at a time; each may cost a few megabytes if it means harm.
const SEATS: usize = 16;
/// Connections looked at in one turn.
const ACCEPTS: usize = 32;
/// Epoll data of the listener; clients have others.
const LISTENER: u64 = 0;

/// Whoever is connected.
#[derive(Debug)]
pub(super) struct Clients {
    listener: Listener,
    epoll: OwnedFd,
    seats: Vec<Client>,
    last: u64,
}

impl Clients {
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Edge-triggered: who cannot be accepted for want of descriptors makes no noise.
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { listener, epoll, seats: Vec::new(), last: LISTENER })
    }

    pub(super) fn on_ready(&mut self, answer: &mut Answer<'_>) {
        let none = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(LISTENER) };
        let mut events = [none; SEATS + 1];
        let count = epoll::wait(&self.epoll, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let mut ready = [LISTENER; SEATS + 1];
        for (ready, event) in ready.iter_mut().zip(&events).take(count.unwrap_or(0)) {
            *ready = event.data.u64();
            let flags = event.flags;
            if let Some(client) = self.seats.iter_mut().find(|client| client.number == *ready) {
                client.serve(flags, answer);
            }
        }
        self.settle(&ready);
        self.accept();
    }

    /// Sends an event to everybody who watches.
    pub(super) fn tell(&mut self, event: &Event) {
        if !self.seats.iter().any(Client::watches) {
            return;
        }
        let bytes = line(event);
        let mut told = [LISTENER; SEATS];
        for (client, told) in self.seats.iter_mut().filter(|client| client.watches()).zip(&mut told) {
            client.tell(event.sequence, &bytes);
            *told = client.number;
        }
        self.settle(&told);
    }

    /// Sees off those that are done among these, and waits for what the others wait for.
    fn settle(&mut self, numbers: &[u64]) {
        let epoll = &self.epoll;
        self.seats.retain_mut(|client| {
            if !numbers.contains(&client.number) {
                return true;
            }
            // Closing the stream takes it out of the epoll instance.
            let stays = !client.is_gone() && client.watch(epoll);
            if !stays {
                log::debug!("control socket: client {} gone", client.number);
            }
            stays
        });
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            let stream = match self.listener.accept() {
                Ok(socket) => UnixStream::from(socket),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(errno) => return log::warn!("control socket: cannot accept: {errno}"),
            };
            self.seat(stream);
        }
    }

    fn seat(&mut self, mut stream: UnixStream) {
        if self.seats.len() >= SEATS {
            // Somebody may only be here because it does not read its last line.
            let Some(place) = self.seats.iter().position(Client::is_leaving) else {
                let closed = format!("there are {SEATS} clients already");
                log::warn!("control socket: client refused: {closed}");
                // A new socket has room for a line; who has none of it loses nothing.
                let _ = stream.write(&line(&Farewell { closed }));
                return;
            };
            self.seats.remove(place);
        }
        self.last += 1;
        if let Err(errno) = epoll::add(&self.epoll, &stream, EventData::new_u64(self.last), EventFlags::IN) {
            return log::warn!("control socket: client refused: {errno}");
        }
        log::debug!("control socket: client {}", self.last);
        self.seats.push(Client::new(self.last, stream));
    }
}

impl AsFd for Clients {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests;
