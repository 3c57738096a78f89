//! The requests of one queue.

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory};

use crate::gate::OwnedPass;
use crate::ledger::{Ledger, Resumed};
use crate::request::{
    Chain, Kind, Request, Scratch, Status, carry_out, execute, fail, finish, parse, pieces, place, refuse,
};
use crate::uring::{Engine, Job, MAX_AT_WORK, Operation};
use crate::{Disk, Gate, GateState};

/// `VRING_AVAIL_F_NO_INTERRUPT` (virtio 1.2 §2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A ring that makes no sense: the driver broke it, and only a reset mends it (virtio 1.2 §2.1.2, DEVICE_NEEDS_RESET).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The queue is not set up.
    #[error("the queue is not ready")]
    NotReady,
    /// More chains are available than there are descriptors.
    #[error("the available index is {0} ahead of a queue of {1}")]
    Index(u16, u16),
    /// A chain begins at a descriptor that there is not.
    #[error("descriptor {0} of a queue of {1}")]
    Descriptor(u16, u16),
    /// The ring is not in guest memory.
    #[error("the ring is not in guest memory")]
    Memory,
}

/// What a call of [`Runner::run`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests that were taken from the ring.
    pub taken: usize,
    /// Requests that were completed.
    pub completed: usize,
    /// The driver wants to hear of it.
    pub signal: bool,
    /// There is more in the ring: call again, without waiting for a notification.
    pub more: bool,
    /// The gate is closed; the ring was not looked at. Call again when it is open.
    pub held: bool,
    /// Requests that were taken and are still at work: call again when [`Runner::completions`] is readable.
    pub outstanding: usize,
}

/// What to say to the driver once the ring is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// It shall notify us of the next request.
    Ask,
    /// Nothing: somebody looks by himself.
    Quiet,
}

/// Carries out the requests of one queue.
pub struct Runner<S: GuestAddressSpace> {
    disk: Arc<Disk>,
    gate: Arc<Gate>,
    ledger: Option<Box<dyn Ledger>>,
    scratch: Scratch,
    engine: Option<Engine<S::T>>,
}

impl<S: GuestAddressSpace> Runner<S> {
    /// A runner for one queue of `disk`. It does one request after the other.
    #[must_use]
    pub fn new(disk: Arc<Disk>, gate: Arc<Gate>) -> Self {
        Self { disk, gate, ledger: None, scratch: Scratch::default(), engine: None }
    }

    /// A runner for one queue of `disk` that has the kernel work on several requests at once where that helps (io_uring).
    ///
    /// # Errors
    /// The kernel has no io_uring, or none for this process: [`Self::new`] always works.
    pub fn concurrent(disk: Arc<Disk>, gate: Arc<Gate>) -> io::Result<Self> {
        let engine = if disk.backing().slow() { Some(Engine::new()?) } else { None };
        Ok(Self { engine, ..Self::new(disk, gate) })
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Goes on with another disk. Requests that are at work end on the one they began on.
    pub fn set_disk(&mut self, disk: Arc<Disk>) {
        self.disk = disk;
    }

    /// Tells `ledger` of each request from now on.
    pub fn set_ledger(&mut self, ledger: Option<Box<dyn Ledger>>) {
        self.ledger = ledger;
    }

    /// Readable when requests that are at work were done. `None`: [`Self::run`] never leaves any.
    #[must_use]
    pub fn completions(&self) -> Option<BorrowedFd<'_>> {
        self.engine.as_ref().map(Engine::completions)
    }

    /// Requests that are at work.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.engine.as_ref().map_or(0, Engine::at_work)
    }

    /// Waits until no request is at work any more, and completes them all. True: signal the driver.
    ///
    /// # Errors
    /// The used ring is not in guest memory.
    pub fn drain(&mut self, queue: &mut Queue, memory: &S) -> Result<bool, RingError> {
        let mut progress = Progress::default();
        let mut result = Ok(());
        let gate = Arc::clone(&self.gate);
        let _pass = gate.beside();
        while let Some(engine) = self.engine.as_mut().filter(|engine| engine.at_work() > 0) {
            engine.wait();
            // Whatever becomes of the ring, nothing may be at work in the end.
            result = result.and(self.reap(queue, &mut progress));
        }
        result?;
        if progress.completed > 0 { wants_signal(queue, memory.memory().deref()) } else { Ok(false) }
    }

    /// Takes up to `budget` requests from the ring and carries them out, asks for notifications again once it is empty, and says
    /// whether to signal the driver (virtio 1.2 §2.7.7 and §2.7.10).
    ///
    /// # Errors
    /// The ring makes no sense. What was completed before is in the used ring.
    pub fn run(&mut self, queue: &mut Queue, memory: &S, budget: usize) -> Result<Progress, RingError> {
        self.round(queue, memory, budget, AtEnd::Ask)
    }

    /// As [`Self::run`], but does not ask for notifications, for who looks again by himself: [`Self::waiting`] says whether there
    /// is something. Who stops looking calls [`Self::run`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_quietly(
        &mut self,
        queue: &mut Queue,
        memory: &S,
        budget: usize,
    ) -> Result<Progress, RingError> {
        self.round(queue, memory, budget, AtEnd::Quiet)
    }

    /// Whether there is something to [`Self::run`] for. It looks at the ring, unless the gate holds requests.
    #[must_use]
    pub fn waiting(&self, queue: &Queue, memory: &S) -> bool {
        let Some(_pass) = self.gate.enter() else { return false };
        let snapshot = memory.memory();
        // A ring that cannot be read is for `run` to report.
        queue.avail_idx(snapshot.deref(), Ordering::Acquire).is_ok_and(|index| index.0 != queue.next_avail())
    }

    /// Carries out requests that a process before this one took from the ring and did not put back, by the descriptor that
    /// each begins at. True: signal the driver. While the gate holds requests, nothing is done, and it has to be called again.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn resume(&mut self, queue: &mut Queue, memory: &S, heads: &[u16]) -> Result<bool, RingError> {
        let gate = Arc::clone(&self.gate);
        let Some((_pass, state)) = gate.enter() else { return Ok(false) };
        let snapshot = memory.memory();
        let memory = snapshot.deref();
        for head in heads.iter().copied() {
            if head >= queue.size() {
                return Err(RingError::Descriptor(head, queue.size()));
            }
            let chain = Resumed::new(queue, memory, head);
            let used = match state {
                GateState::Fail => refuse(chain, memory, &mut self.scratch),
                GateState::Open | GateState::Hold => carry_out(&self.disk, chain, memory, &mut self.scratch),
            };
            self.complete(queue, memory, head, used)?;
        }
        if heads.is_empty() { Ok(false) } else { wants_signal(queue, memory) }
    }

    fn round(
        &mut self,
        queue: &mut Queue,
        memory: &S,
        budget: usize,
        at_end: AtEnd,
    ) -> Result<Progress, RingError> {
        let mut progress = Progress::default();
        // Inside until the last look at the ring, which is DMA, too.
        let gate = Arc::clone(&self.gate);
        let Some(_inside) = gate.enter() else {
            progress.held = true;
            if self.outstanding() > 0 {
                // What was let in before goes out.
                let _pass = gate.beside();
                self.reap(queue, &mut progress)?;
                progress.signal = progress.completed > 0 && wants_signal(queue, memory.memory().deref())?;
                progress.outstanding = self.outstanding();
            }
            return Ok(progress);
        };
        let snapshot = memory.memory();
        let mut result = self.reap(queue, &mut progress);
        if result.is_ok() {
            result = self.take(queue, &snapshot, budget, at_end, &mut progress);
        }
        progress.outstanding = self.outstanding();
        if progress.completed > 0 {
            progress.signal = wants_signal(queue, snapshot.deref())?;
        }
        result.map(|()| progress)
    }

    fn take(
        &mut self,
        queue: &mut Queue,
        snapshot: &S::T,
        budget: usize,
        at_end: AtEnd,
        progress: &mut Progress,
    ) -> Result<(), RingError> {
        let memory = snapshot.deref();
        loop {
            queue.disable_notification(memory).map_err(|_| RingError::Memory)?;
            let full = loop {
                // A driver that offers the same descriptors again and again has no more at work than an honest one.
                let full = self.outstanding() >= MAX_AT_WORK.min(queue.size().into());
                if progress.taken >= budget || full {
                    break full;
                }
                let state = self.gate.state();
                if state == GateState::Hold {
                    progress.held = true;
                    self.submit();
                    return Ok(());
                }
                let Some((chain, waiting)) = next(queue, snapshot)? else { break false };
                let head = chain.head_index();
                if head >= queue.size() {
                    return Err(RingError::Descriptor(head, queue.size()));
                }
                progress.taken += 1;
                if let Some(ledger) = &mut self.ledger {
                    ledger.taken(head);
                }
                let used = match state {
                    GateState::Fail => Some(refuse(chain, memory, &mut self.scratch)),
                    GateState::Open | GateState::Hold => self.begin(head, chain, snapshot, waiting),
                };
                if let Some(used) = used {
                    self.complete(queue, memory, head, used)?;
                    progress.completed += 1;
                }
            };
            self.submit();
            self.reap(queue, progress)?;
            if progress.taken >= budget {
                progress.more = true;
                return Ok(());
            }
            if full {
                // There is more, but room for it only when something is done.
                progress.more = self.outstanding() < MAX_AT_WORK.min(queue.size().into());
                return Ok(());
            }
            if at_end == AtEnd::Quiet || !queue.enable_notification(memory).map_err(|_| RingError::Memory)? {
                return Ok(());
            }
        }
    }

    /// Carries a request out, or has the kernel begin it: then there is no used length yet.
    fn begin(
        &mut self,
        head: u16,
        chain: impl Iterator<Item = Descriptor>,
        snapshot: &S::T,
        waiting: u16,
    ) -> Option<u32> {
        let memory = snapshot.deref();
        // One that is alone is done sooner, and for less, if we wait for it.
        let alone = waiting <= 1 && self.outstanding() == 0;
        let Some(engine) = self.engine.as_mut().filter(|_| !alone) else {
            return Some(carry_out(&self.disk, chain, memory, &mut self.scratch));
        };
        let request = match parse(chain, memory, &mut self.scratch) {
            Chain::Request(request) => request,
            Chain::Malformed(at, used) => return Some(fail(memory, at, used)),
            Chain::Hopeless => return Some(0),
        };
        let Some((operation, offset, done)) = plan(&self.disk, &request, memory, &mut self.scratch) else {
            let status = execute(&self.disk, &request, memory, &mut self.scratch);
            return Some(finish(&request, memory, status));
        };
        if done {
            return Some(finish(&request, memory, Status::Ok));
        }
        let pieces = std::mem::replace(&mut self.scratch.pieces, engine.vector());
        engine.begin(Job {
            head,
            request,
            operation,
            offset,
            pieces,
            done: 0,
            memory: snapshot.clone(),
            disk: Arc::clone(&self.disk),
            _pass: OwnedPass::beside(&self.gate),
        });
        None
    }

    fn submit(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.submit();
        }
    }

    /// Completes what the kernel has done.
    fn reap(&mut self, queue: &mut Queue, progress: &mut Progress) -> Result<(), RingError> {
        if self.outstanding() == 0 {
            return Ok(());
        }
        while let Some((mut job, result)) = self.engine.as_mut().and_then(Engine::next_finished) {
            let status = match result {
                Ok(()) => Status::Ok,
                Err(error) => {
                    match job.operation {
                        Operation::Flush => job.disk.backing().flush_failed(),
                        Operation::Write { stable: true } => job.disk.backing().stable_write_failed(&error),
                        Operation::Write { stable: false } | Operation::Read => {}
                    }
                    Status::IoError
                }
            };
            let used = finish(&job.request, job.memory.deref(), status);
            let pieces = std::mem::take(&mut job.pieces);
            if let Some(engine) = &mut self.engine {
                engine.give_back(pieces);
            }
            self.complete(queue, job.memory.deref(), job.head, used)?;
            progress.completed += 1;
        }
        Ok(())
    }

    fn complete(&mut self, queue: &mut Queue, memory: &S::M, head: u16, used: u32) -> Result<(), RingError> {
        if let Some(ledger) = &mut self.ledger {
            ledger.completing(head);
        }
        queue.add_used(memory, head, used).map_err(|_| RingError::Memory)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.completed(head, queue.next_used());
        }
        Ok(())
    }
}

/// What to ask of the kernel for a request: the operation, where in the file, and whether it is already done. `None`: it is to
/// be carried out right here.
fn plan<M: GuestMemory>(
    disk: &Disk,
    request: &Request,
    memory: &M,
    scratch: &mut Scratch,
) -> Option<(Operation, u64, bool)> {
    let backing = disk.backing();
    let write = match request.kind {
        Kind::Read => false,
        Kind::Write => true,
        Kind::Flush => {
            scratch.pieces.clear();
            let can = !backing.read_only() && !backing.lost();
            return can.then_some((Operation::Flush, 0, false));
        }
        Kind::GetId | Kind::Discard | Kind::WriteZeroes | Kind::Other => return None,
    };
    // What is wrong with it is found again by who carries it out.
    let offset = place(disk, request).ok()?;
    let stable = disk.write_through();
    if write && !stable && backing.direct().is_none() {
        // Into the page cache is only a copy.
        return None;
    }
    if request.bytes == 0 || !pieces(memory, scratch, write) || backing.misaligned(&scratch.pieces) {
        return None;
    }
    if write {
        return Some((Operation::Write { stable }, offset, false));
    }
    if backing.direct().is_some() {
        return Some((Operation::Read, offset, false));
    }
    let cached = backing.read_cached(&mut scratch.pieces, offset) as u64;
    // Some of it may be there and the rest not; the kernel reads all of it then.
    Some((Operation::Read, offset, cached == request.bytes))
}

/// The next available chain, and how many wait with it.
fn next<T>(
    queue: &mut Queue,
    snapshot: &T,
) -> Result<Option<(virtio_queue::DescriptorChain<T>, u16)>, RingError>
where
    T: Clone + Deref,
    T::Target: GuestMemory + Sized,
{
    if !queue.ready() {
        return Err(RingError::NotReady);
    }
    let available = queue.avail_idx(snapshot.deref(), Ordering::Acquire).map_err(|_| RingError::Memory)?.0;
    let waiting = available.wrapping_sub(queue.next_avail());
    if waiting == 0 {
        return Ok(None);
    }
    if waiting > queue.size() {
        return Err(RingError::Index(waiting, queue.size()));
    }
    let mut chains = queue.iter(snapshot.clone()).map_err(|_| RingError::NotReady)?;
    // There is one, so nothing means that the ring cannot be read.
    chains.next().map(|chain| Some((chain, waiting))).ok_or(RingError::Memory)
}

/// Whether the driver wants to hear of what was completed since this was last asked.
fn wants_signal<M: GuestMemory>(queue: &mut Queue, memory: &M) -> Result<bool, RingError> {
    let wants = queue.needs_notification(memory).map_err(|_| RingError::Memory)?;
    if queue.event_idx_enabled() {
        return Ok(wants);
    }
    // virtio-queue leaves the flag to us.
    let flags: u16 =
        memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed).map_err(|_| RingError::Memory)?;
    Ok(u16::from_le(flags) & NO_INTERRUPT == 0)
}
