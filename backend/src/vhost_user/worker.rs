//! The thread of one queue.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disk::{Disk, Gate, RingError, Runner};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Requests that are carried out before messages of the client have their turn.
const BUDGET: usize = 64;
/// Turns through the ring between two looks at the clock while polling.
const LOOKS: u32 = 64;
/// How often a ring whose client gave no kick descriptor is looked at.
const NO_KICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

type Order = Box<dyn FnOnce(&mut Ring) + Send>;

/// A ring that is being served, and what the thread needs for it.
pub(super) struct Ring {
    pub(super) queue: Queue,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) runner: Runner<Arc<GuestMemoryMmap>>,
    pub(super) call: Option<File>,
    pub(super) error: Option<File>,
    pub(super) enabled: bool,
    /// All of it is in memory. A client may take memory away and give it back.
    placed: bool,
    /// The ring made no sense: it is left alone until it is set up anew.
    broken: bool,
    /// How long to look for requests before sleeping.
    poll: Duration,
}

impl Ring {
    /// Tells the client that requests were used.
    fn signal(&self) {
        if let Some(call) = &self.call {
            ring_bell(call);
        }
    }

    /// Carries out what an earlier server left behind.
    pub(super) fn resume(&mut self, heads: &[u16]) {
        match self.runner.resume(&mut self.queue, &self.memory, heads) {
            Ok(true) => self.signal(),
            Ok(false) => {}
            Err(error) => self.fail(error),
        }
    }

    /// Waits for what is at work, and puts it into the used ring.
    pub(super) fn drain(&mut self) {
        match self.runner.drain(&mut self.queue, &self.memory) {
            Ok(true) => self.signal(),
            Ok(false) => {}
            Err(error) => log::warn!("vhost-user: requests that were at work cannot be completed: {error}"),
        }
    }

    /// Goes on in other memory, where the ring is at these addresses if it is there at all: descriptor table, available ring,
    /// used ring.
    pub(super) fn move_to(&mut self, memory: Arc<GuestMemoryMmap>, places: Option<[u64; 3]>) {
        self.drain();
        self.memory = memory;
        self.placed = places.is_some_and(|places| place(&mut self.queue, places).is_some());
    }

    fn fail(&mut self, error: RingError) {
        log::warn!("vhost-user: the ring makes no sense, it is left alone: {error}");
        self.broken = true;
        self.drain();
        if let Some(bell) = &self.error {
            ring_bell(bell);
        }
    }

    fn idle(&self) -> bool {
        self.broken || !self.placed || !self.enabled
    }

    /// Carries requests out; whether there is more to do at once.
    fn turn(&mut self) -> bool {
        if self.idle() {
            return false;
        }
        if !self.poll.is_zero() {
            return self.turn_polling();
        }
        self.run(false)
    }

    fn run(&mut self, quietly: bool) -> bool {
        let result = if quietly {
            self.runner.run_quietly(&mut self.queue, &self.memory, BUDGET)
        } else {
            self.runner.run(&mut self.queue, &self.memory, BUDGET)
        };
        match result {
            Ok(progress) => {
                if progress.signal {
                    self.signal();
                }
                progress.more
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    /// Begins or ends taking requests.
    pub(super) fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.drain();
        }
    }

    /// As [`Self::turn`], but goes on looking for a while. Meanwhile the client sees no reason to notify us.
    fn turn_polling(&mut self) -> bool {
        if self.run(true) {
            return true;
        }
        if self.runner.outstanding() > 0 {
            // The kernel says when something is done.
            return self.run(false);
        }
        let until = Instant::now() + self.poll;
        loop {
            for _ in 0..LOOKS {
                if self.runner.waiting(&self.queue, &self.memory) {
                    return !self.broken;
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= until {
                return self.run(false);
            }
        }
    }
}

/// Tells a queue where its parts are; `None` if one is not aligned (virtio 1.2 §2.7).
pub(super) fn place(queue: &mut Queue, [table, available, used]: [u64; 3]) -> Option<()> {
    queue.try_set_desc_table_address(GuestAddress(table)).ok()?;
    queue.try_set_avail_ring_address(GuestAddress(available)).ok()?;
    queue.try_set_used_ring_address(GuestAddress(used)).ok()
}

/// Adds 1 to an eventfd. One that is full has been rung already.
fn ring_bell(bell: &File) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// A queue's thread, as the connection sees it.
pub(super) struct Worker {
    orders: Option<Sender<Order>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker is made of.
pub(super) struct Setup {
    pub(super) index: u16,
    pub(super) queue: Queue,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) disk: Arc<Disk>,
    pub(super) gate: Arc<Gate>,
    pub(super) kick: Option<File>,
    pub(super) call: Option<File>,
    pub(super) error: Option<File>,
    pub(super) enabled: bool,
    pub(super) poll: Duration,
}

impl Worker {
    /// Starts serving a ring.
    ///
    /// # Errors
    /// The kick descriptor cannot be waited for, or the host has no thread or descriptor left.
    pub(super) fn start(setup: Setup) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let runner = Runner::concurrent(Arc::clone(&setup.disk), Arc::clone(&setup.gate));
        let runner = runner.unwrap_or_else(|error| {
            log::info!(
                "queue {}: one request after the other, for there is no io_uring: {error}",
                setup.index
            );
            Runner::new(setup.disk, setup.gate)
        });
        let waiting = Waiting::new(Arc::clone(&wake), setup.kick, &runner)?;
        let ring = Ring {
            queue: setup.queue,
            memory: setup.memory,
            runner,
            call: setup.call,
            error: setup.error,
            enabled: setup.enabled,
            placed: true,
            broken: false,
            poll: setup.poll,
        };
        let (sender, receiver) = channel();
        let name = format!("queue {}", setup.index);
        let thread =
            std::thread::Builder::new().name(name).spawn(move || serve(ring, &receiver, &waiting))?;
        Ok(Self { orders: Some(sender), wake, thread: Some(thread) })
    }

    /// Has the thread do something to its ring, between two rounds of requests, and waits until it is done. `None`: the
    /// thread is gone.
    pub(super) fn with<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Ring) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, done) = channel();
        let order: Order = Box::new(move |ring| {
            let _ = answer.send(order(ring));
        });
        self.orders.as_ref()?.send(order).ok()?;
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        done.recv().ok()
    }

    /// Ends serving, and returns where the ring was: the index of the next request to take.
    pub(super) fn stop(mut self) -> u16 {
        let next = self.with(|ring| {
            ring.drain();
            ring.queue.next_avail()
        });
        self.end();
        next.unwrap_or(0)
    }

    fn end(&mut self) {
        drop(self.orders.take());
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread sleeps on.
struct Waiting {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    timeout: Option<Timespec>,
    /// Watched for as long as it is open.
    _kick: Option<File>,
}

const WAKE: u64 = 0;
const KICK: u64 = 1;
const DONE: u64 = 2;

impl Waiting {
    fn new(
        wake: Arc<OwnedFd>,
        kick: Option<File>,
        runner: &Runner<Arc<GuestMemoryMmap>>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake.as_fd(), EventData::new_u64(WAKE), EventFlags::IN)?;
        if let Some(kick) = &kick {
            // On its edge: it need not be read then, which saves a call for each notification, and nobody can make us wait
            // in reading it by reading it first.
            epoll::add(&epoll, kick, EventData::new_u64(KICK), EventFlags::IN | EventFlags::ET)?;
        }
        if let Some(completions) = runner.completions() {
            epoll::add(&epoll, completions, EventData::new_u64(DONE), EventFlags::IN)?;
        }
        let timeout = if kick.is_some() { None } else { Some(NO_KICK) };
        Ok(Self { epoll, wake, timeout, _kick: kick })
    }

    /// Sleeps until there is something to do.
    fn sleep(&self) {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(KICK) }; 4];
        match epoll::wait(&self.epoll, events.as_mut_slice(), self.timeout.as_ref()) {
            Ok(count) => {
                if events.iter().take(count).any(|event| event.data.u64() == WAKE) {
                    let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                }
            }
            Err(Errno::INTR) => {}
            // The descriptors are ours and open.
            Err(errno) => log::error!("vhost-user: waiting for a queue failed: {errno}"),
        }
    }
}

fn serve(mut ring: Ring, orders: &Receiver<Order>, waiting: &Waiting) {
    loop {
        loop {
            match orders.try_recv() {
                Ok(order) => order(&mut ring),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return ring.drain(),
            }
        }
        if !ring.turn() {
            waiting.sleep();
        }
    }
}
