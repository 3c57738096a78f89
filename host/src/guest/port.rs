//! The way from the agent to whoever assigned the device to its VM: frames over a port of the guest's, a virtio-serial one or any other
//! that carries bytes. The other end is the host, so nothing that comes from there is believed.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Error, Result};

/// Most bytes of a frame's body: what the kernel module passes on.
pub const MAX_BODY: usize = 65536;

const MAGIC: [u8; 4] = *b"TGP1";

/// What the host is asked for, or how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    /// The agent's number of the request; the answer has the same.
    number: U32,
    /// The request's [`Op`]; in an answer zero, or an errno.
    word: U32,
    length: U32,
}

/// What the host can do for its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Bind the function to the VM: LOCK_INTERFACE.
    Lock,
    /// Undo that: STOP_INTERFACE.
    Unlock,
    /// Pass a question on to the TSM.
    Ask,
    /// The same for what may change the TDI's state.
    Change,
}

impl Op {
    const fn word(self) -> u32 {
        match self {
            Self::Lock => 1,
            Self::Unlock => 2,
            Self::Ask => 3,
            Self::Change => 4,
        }
    }

    const fn from_word(word: u32) -> Option<Self> {
        match word {
            1 => Some(Self::Lock),
            2 => Some(Self::Unlock),
            3 => Some(Self::Ask),
            4 => Some(Self::Change),
            _ => None,
        }
    }
}

/// A request as the relay got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    number: u32,
    /// What is asked for.
    pub op: Op,
    /// Bytes for the TSM.
    pub body: Vec<u8>,
}

/// The guest's end. Its file must not block.
#[derive(Debug)]
pub struct Port<F> {
    file: F,
    number: u32,
    timeout: Duration,
}

impl<F: AsFd + Read + Write> Port<F> {
    /// A port whose answers may take `timeout` each. `first` numbers its requests, so that answers to somebody who was there
    /// before are told apart.
    pub fn new(file: F, first: u32, timeout: Duration) -> Self {
        Self { file, number: first, timeout }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Transport`] with the host's errno, [`Error::Protocol`] for what is no answer, [`Error::TimedOut`].
    pub fn exchange(&mut self, op: Op, body: &[u8]) -> Result<Vec<u8>> {
        self.number = self.number.wrapping_add(1);
        let deadline = Instant::now() + self.timeout;
        let head = Head {
            magic: MAGIC,
            number: self.number.into(),
            word: op.word().into(),
            length: length(body)?.into(),
        };
        self.write(&[head.as_bytes(), body].concat(), deadline)?;
        loop {
            let mut bytes = [0; size_of::<Head>()];
            self.read(&mut bytes, deadline)?;
            let head = check(&bytes)?;
            let mut body = vec![0; usize::try_from(head.length.get()).unwrap_or(MAX_BODY)];
            self.read(&mut body, deadline)?;
            if head.number.get() != self.number {
                log::debug!("an answer to request {}, which nobody waits for", head.number.get());
                continue;
            }
            return match i32::try_from(head.word.get()) {
                Ok(0) => Ok(body),
                Ok(errno @ 1..=4095) => Err(Error::Transport {
                    what: "the host".into(),
                    source: io::Error::from_raw_os_error(errno),
                }),
                _ => Err(Error::Protocol("the host's answer is neither good nor an errno".into())),
            };
        }
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) => self.wait(error, PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, mut room: &mut [u8], deadline: Instant) -> Result<()> {
        while !room.is_empty() {
            match self.file.read(room) {
                // As virtio-serial ports do while nobody has the other end open.
                Ok(0) => return Err(Error::NoDevice("nobody is at the other end of the port".into())),
                Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
                Err(error) => self.wait(error, PollFlags::IN, deadline)?,
            }
        }
        Ok(())
    }

    fn wait(&self, error: io::Error, events: PollFlags, deadline: Instant) -> Result<()> {
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(Error::io("the port")(error));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::TimedOut { what: "the host".into(), after: self.timeout });
        }
        let left = Timespec::try_from(left).map_err(|_| Error::Usage("a time-out without end".into()))?;
        match poll(&mut [PollFd::new(&self.file, events)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::io("the port")(errno.into())),
        }
    }
}

/// The relay's end: the next request, or `None` when the guest's machine has closed it. Its file blocks.
///
/// # Errors
/// [`Error::Protocol`] for what is no request; there is no way to find the next one then. [`Error::Transport`] if reading fails.
pub fn receive(file: &mut impl Read) -> Result<Option<Request>> {
    let mut bytes = [0; size_of::<Head>()];
    let mut have = 0;
    while have < bytes.len() {
        match file.read(bytes.get_mut(have..).unwrap_or_default()) {
            Ok(0) => return Ok(None),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(Error::io("the guest's port")(error)),
        }
    }
    let head = check(&bytes)?;
    let op = Op::from_word(head.word.get()).ok_or_else(|| {
        Error::Protocol(format!("the guest asks for {}, which is unknown", head.word.get()))
    })?;
    let mut body = vec![0; usize::try_from(head.length.get()).unwrap_or(MAX_BODY)];
    match file.read_exact(&mut body) {
        Ok(()) => Ok(Some(Request { number: head.number.get(), op, body })),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::io("the guest's port")(error)),
    }
}

/// The answer to a request.
///
/// # Errors
/// [`Error::Transport`] if writing fails.
pub fn send(file: &mut impl Write, request: &Request, result: Result<&[u8], Errno>) -> Result<()> {
    let (word, body) = match result {
        Ok(body) => (0, body),
        Err(errno) => (u32::try_from(errno as i32).unwrap_or(u32::MAX), &[][..]),
    };
    let head =
        Head { magic: MAGIC, number: request.number.into(), word: word.into(), length: length(body)?.into() };
    file.write_all(&[head.as_bytes(), body].concat()).map_err(Error::io("the guest's port"))
}

fn length(body: &[u8]) -> Result<u32> {
    match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_BODY => Ok(length),
        Ok(_) | Err(_) => Err(Error::Protocol(format!("{} bytes are too many for a frame", body.len()))),
    }
}

fn check(bytes: &[u8; size_of::<Head>()]) -> Result<Head> {
    let head: Head = zerocopy::transmute!(*bytes);
    if head.magic != MAGIC {
        return Err(Error::Protocol("what comes from the port is no frame".into()));
    }
    if usize::try_from(head.length.get()).map_or(true, |length| length > MAX_BODY) {
        return Err(Error::Protocol(format!("a frame of {} bytes", head.length)));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const LONG: Duration = Duration::from_secs(30);

    fn pair(timeout: Duration) -> (Port<UnixStream>, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (Port::new(guest, 100, timeout), host)
    }

    #[test]
    fn what_is_asked_arrives_and_what_is_answered_too() {
        let (mut port, mut host) = pair(LONG);
        let relay = thread::spawn(move || {
            let first = receive(&mut host).unwrap().unwrap();
            send(&mut host, &first, Ok(b"certificates")).unwrap();
            let second = receive(&mut host).unwrap().unwrap();
            send(&mut host, &second, Err(Errno::EPERM)).unwrap();
            let end = receive(&mut host).unwrap();
            (first, second, end)
        });
        // More than a socket takes at once.
        let long = vec![0xAB; MAX_BODY];
        assert_eq!(port.exchange(Op::Ask, &long).unwrap(), b"certificates");
        let refused = port.exchange(Op::Change, b"start").unwrap_err();
        assert!(refused.to_string().contains("not permitted"), "{refused}");
        drop(port);
        let (first, second, end) = relay.join().unwrap();
        assert_eq!((first.op, first.body.len(), end), (Op::Ask, MAX_BODY, None));
        assert_eq!(second, Request { number: 102, op: Op::Change, body: b"start".to_vec() });
    }

    #[test]
    fn answers_to_somebody_before_are_left_alone() {
        let (mut port, mut host) = pair(LONG);
        let old = Request { number: 7, op: Op::Lock, body: Vec::new() };
        send(&mut host, &old, Ok(b"old")).unwrap();
        send(&mut host, &Request { number: 101, ..old }, Ok(b"new")).unwrap();
        assert_eq!(port.exchange(Op::Lock, &[]).unwrap(), b"new");
    }

    #[test]
    fn a_host_that_says_nothing_or_nonsense_is_an_error() {
        let (mut port, host) = pair(Duration::from_millis(20));
        assert!(matches!(port.exchange(Op::Lock, &[]), Err(Error::TimedOut { .. })));
        drop(host);
        let closed = port.exchange(Op::Lock, &[]).unwrap_err();
        assert!(matches!(closed, Error::Transport { .. } | Error::NoDevice(_)), "{closed}");

        let frame = |magic: &[u8; 4], word: u32, length: u32| {
            [&magic[..], &101u32.to_le_bytes(), &word.to_le_bytes(), &length.to_le_bytes()].concat()
        };
        for (bytes, kind) in [
            (frame(b"TGP2", 0, 0), "protocol"),
            (frame(b"TGP1", 0, 65537), "protocol"),
            (frame(b"TGP1", 0, u32::MAX), "protocol"),
            (frame(b"TGP1", 4096, 0), "protocol"),
            (frame(b"TGP1", u32::MAX, 0), "protocol"),
            (frame(b"TGP1", 5, 0), "no-device"),
            (frame(b"TGP1", 0, 5), "time-out"),
        ] {
            let (mut port, mut host) = pair(Duration::from_millis(20));
            host.write_all(&bytes).unwrap();
            let error = port.exchange(Op::Lock, &[]).unwrap_err();
            assert!(error.kind() == kind || matches!(error, Error::Transport { .. }), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn a_guest_that_says_nonsense_is_an_error_to_the_relay() {
        let frame = |word: u32, length: u32| {
            [&MAGIC[..], &[0; 4], &word.to_le_bytes(), &length.to_le_bytes()].concat()
        };
        for word in [0, 5, u32::MAX] {
            assert!(matches!(receive(&mut &frame(word, 0)[..]), Err(Error::Protocol(_))), "{word}");
        }
        assert!(matches!(receive(&mut &frame(1, 65537)[..]), Err(Error::Protocol(_))));
        assert!(matches!(receive(&mut &[0; 16][..]), Err(Error::Protocol(_))));
        let whole = [frame(3, 4), b"body".to_vec()].concat();
        for length in 0..whole.len() {
            assert_eq!(receive(&mut &whole[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(receive(&mut &whole[..]).unwrap().unwrap().body, b"body");
    }
}
