//! Reads, writes and flushes that are at work in the kernel while the queue goes on: io_uring.
//!
//! Everything unsafe about giving the kernel memory that it keeps using is here. An operation's memory is held in its slot:
//! the pieces, which are not touched before it is done, and the snapshot of guest memory that they point into.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::Disk;
use crate::gate::OwnedPass;
use crate::iovec::{MAX_PIECES, Piece, advance};
use crate::request::Request;

/// Most operations at work for one queue.
pub(crate) const MAX_AT_WORK: usize = 256;

/// What the kernel is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    /// `stable`: completed when it is on stable storage.
    Write {
        stable: bool,
    },
    Flush,
}

/// An operation, from the chain it came from to the memory it uses.
pub(crate) struct Job<T> {
    pub(crate) head: u16,
    pub(crate) request: Request,
    pub(crate) operation: Operation,
    /// Where in the file it goes on.
    pub(crate) offset: u64,
    pub(crate) pieces: Vec<Piece>,
    /// How many of the pieces are done.
    pub(crate) done: usize,
    /// Guest memory that the pieces are in.
    pub(crate) memory: T,
    pub(crate) disk: Arc<Disk>,
    /// Tells the gate that somebody is at work.
    pub(crate) _pass: OwnedPass,
}

/// A queue's operations in the kernel.
pub(crate) struct Engine<T> {
    ring: IoUring,
    slots: Vec<Option<Job<T>>>,
    free: Vec<usize>,
    /// Given to the ring, not yet to the kernel.
    unsubmitted: usize,
    finished: VecDeque<(Job<T>, io::Result<()>)>,
    /// Vectors of earlier jobs.
    spare: Vec<Vec<Piece>>,
}

impl<T> Engine<T> {
    /// An engine, if the kernel has io_uring and lets this process use it.
    pub(crate) fn new() -> io::Result<Self> {
        let entries = u32::try_from(MAX_AT_WORK).unwrap_or(u32::MAX);
        // The thread that reaps is the one that submits: it need not be interrupted for completions.
        let ring = IoUring::builder().setup_coop_taskrun().build(entries)?;
        Ok(Self {
            ring,
            slots: Vec::new(),
            free: Vec::new(),
            unsubmitted: 0,
            finished: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Readable while there are operations that were done and not yet reaped.
    pub(crate) fn completions(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring, and with it its descriptor, is there for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Operations that are not yet reaped.
    pub(crate) fn at_work(&self) -> usize {
        self.slots.len() - self.free.len() + self.finished.len()
    }

    /// An empty vector.
    pub(crate) fn vector(&mut self) -> Vec<Piece> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub(crate) fn give_back(&mut self, mut vector: Vec<Piece>) {
        vector.clear();
        // One request may have needed thousands; that is not kept.
        if vector.capacity() <= MAX_PIECES && self.spare.len() < MAX_AT_WORK {
            self.spare.push(vector);
        }
    }

    /// Prepares an operation. It begins with the next [`Self::submit`].
    pub(crate) fn begin(&mut self, job: Job<T>) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let Some(place) = self.slots.get_mut(slot) else { return };
        let entry = entry(place.insert(job), slot);
        self.queue(&entry);
    }

    fn queue(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the entry points to a job's pieces and the guest memory behind them. The job stays in its slot, and its
            // pieces untouched, until its completion was reaped; `Drop` waits for that, too.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.unsubmitted += 1;
                return;
            }
            // As many entries as jobs fit, so this makes room.
            self.submit();
        }
    }

    /// Has the kernel begin what was prepared.
    pub(crate) fn submit(&mut self) {
        while self.unsubmitted > 0 {
            match self.ring.submit() {
                Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken.max(1)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of memory for the moment, or completions have to be reaped first.
                Err(_) => {
                    self.reap();
                    std::thread::yield_now();
                }
            }
        }
    }

    /// The next operation that is done, with what came of it.
    pub(crate) fn next_finished(&mut self) -> Option<(Job<T>, io::Result<()>)> {
        if self.finished.is_empty() && self.slots.len() > self.free.len() {
            self.reap();
        }
        self.finished.pop_front()
    }

    fn reap(&mut self) {
        let mut again = Vec::new();
        let completions: Vec<cqueue::Entry> = self.ring.completion().collect();
        for completion in completions {
            let Ok(slot) = usize::try_from(completion.user_data()) else { continue };
            let Some(place) = self.slots.get_mut(slot) else { continue };
            let Some(job) = place else { continue };
            match step(job, completion.result()) {
                Step::Again => again.push(entry(job, slot)),
                Step::Done(result) => {
                    if let Some(job) = place.take() {
                        self.free.push(slot);
                        self.finished.push_back((job, result));
                    }
                }
            }
        }
        if !again.is_empty() {
            again.iter().for_each(|entry| self.queue(entry));
            self.submit();
        }
    }

    /// Waits until at least one operation is done.
    pub(crate) fn wait(&mut self) {
        if self.finished.is_empty() && self.slots.len() > self.free.len() {
            self.submit();
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                std::thread::yield_now();
            }
        }
    }
}

enum Step {
    /// There is more to do.
    Again,
    Done(io::Result<()>),
}

/// What a completion means for its job.
fn step<T>(job: &mut Job<T>, result: i32) -> Step {
    let Ok(bytes) = usize::try_from(result) else {
        let error = io::Error::from_raw_os_error(result.saturating_neg());
        let again = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
        return if again { Step::Again } else { Step::Done(Err(error)) };
    };
    if job.operation == Operation::Flush {
        return Step::Done(Ok(()));
    }
    let left = job.pieces.get_mut(job.done..).unwrap_or_default();
    let before = left.len();
    let after = advance(left, bytes).len();
    job.done += before - after;
    job.offset = job.offset.saturating_add(bytes as u64);
    if after == 0 {
        Step::Done(Ok(()))
    } else if bytes == 0 {
        Step::Done(Err(io::ErrorKind::UnexpectedEof.into()))
    } else {
        Step::Again
    }
}

fn entry<T>(job: &Job<T>, slot: usize) -> squeue::Entry {
    let file = types::Fd(job.disk.backing().fd().as_raw_fd());
    let left = job.pieces.get(job.done..).unwrap_or_default();
    let pieces: *const libc::iovec = left.as_ptr().cast();
    let count = u32::try_from(left.len().min(MAX_PIECES)).unwrap_or(0);
    let entry = match job.operation {
        Operation::Read => opcode::Readv::new(file, pieces, count).offset(job.offset).build(),
        Operation::Write { stable } => {
            let flags = if stable { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(file, pieces, count).offset(job.offset).rw_flags(flags).build()
        }
        Operation::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
    };
    entry.user_data(slot as u64)
}

impl<T> Drop for Engine<T> {
    fn drop(&mut self) {
        // The kernel uses the jobs' memory until they are done.
        while self.slots.len() > self.free.len() {
            self.wait();
            self.reap();
        }
    }
}
