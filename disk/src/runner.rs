//! The requests of one queue.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use crate::ledger::{Ledger, Resumed};
use crate::request::{Scratch, carry_out, refuse};
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
    memory: PhantomData<fn(S)>,
}

impl<S: GuestAddressSpace> Runner<S> {
    /// A runner for one queue of `disk`.
    #[must_use]
    pub fn new(disk: Arc<Disk>, gate: Arc<Gate>) -> Self {
        Self { disk, gate, ledger: None, scratch: Scratch::default(), memory: PhantomData }
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
        None
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
    /// each begins at. True: signal the driver.
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
        let Some(_pass) = gate.enter() else {
            progress.held = true;
            return Ok(progress);
        };
        let snapshot = memory.memory();
        let result = self.take(queue, &snapshot, budget, at_end, &mut progress);
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
            while progress.taken < budget {
                let state = self.gate.state();
                if state == GateState::Hold {
                    progress.held = true;
                    return Ok(());
                }
                let Some(chain) = next(queue, snapshot)? else { break };
                let head = chain.head_index();
                if head >= queue.size() {
                    return Err(RingError::Descriptor(head, queue.size()));
                }
                progress.taken += 1;
                if let Some(ledger) = &mut self.ledger {
                    ledger.taken(head);
                }
                let used = match state {
                    GateState::Fail => refuse(chain, memory, &mut self.scratch),
                    GateState::Open | GateState::Hold => {
                        carry_out(&self.disk, chain, memory, &mut self.scratch)
                    }
                };
                self.complete(queue, memory, head, used)?;
                progress.completed += 1;
            }
            if progress.taken >= budget {
                progress.more = true;
                return Ok(());
            }
            if at_end == AtEnd::Quiet || !queue.enable_notification(memory).map_err(|_| RingError::Memory)? {
                return Ok(());
            }
        }
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

/// The next available chain.
fn next<T>(queue: &mut Queue, snapshot: &T) -> Result<Option<virtio_queue::DescriptorChain<T>>, RingError>
where
    T: Clone + Deref,
    T::Target: vm_memory::GuestMemory + Sized,
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
    chains.next().map(Some).ok_or(RingError::Memory)
}

/// Whether the driver wants to hear of what was completed since this was last asked.
fn wants_signal<M: vm_memory::GuestMemory>(queue: &mut Queue, memory: &M) -> Result<bool, RingError> {
    let wants = queue.needs_notification(memory).map_err(|_| RingError::Memory)?;
    if queue.event_idx_enabled() {
        return Ok(wants);
    }
    // virtio-queue leaves the flag to us.
    let flags: u16 =
        memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed).map_err(|_| RingError::Memory)?;
    Ok(u16::from_le(flags) & NO_INTERRUPT == 0)
}
