//! One queue that is set up: the ring in guest memory, who walks it, and whether there is a reason to.

use std::sync::Arc;

use disk::{Disk, Gate, Progress, RingError, Runner};
use mmio::Tee;
use virtio_queue::{Queue, QueueT};

use crate::vfio_user::ClientMemory;

pub(super) struct Ring {
    queue: Queue,
    runner: Runner<Arc<ClientMemory>>,
    /// Somebody rang, or there was more than fit a turn: the T attribute of whoever did.
    asked: Option<Tee>,
}

impl Ring {
    pub(super) fn new(queue: Queue, disk: Arc<Disk>, gate: Arc<Gate>) -> Self {
        Self { queue, runner: Runner::new(disk, gate), asked: None }
    }

    /// There is a reason to look. Who asks with T = 0 and with T = 1 before that happens asks with T = 0.
    pub(super) fn ring(&mut self, tee: Tee) {
        self.asked = match (self.asked, tee) {
            (Some(Tee::NonTee), _) | (_, Tee::NonTee) => Some(Tee::NonTee),
            (None | Some(Tee::Tee), Tee::Tee) => Some(Tee::Tee),
        };
    }

    pub(super) fn asked(&self) -> Option<Tee> {
        self.asked
    }

    /// There is none any more.
    pub(super) fn refuse(&mut self) {
        self.asked = None;
    }

    /// Bus address of the available ring.
    pub(super) fn address(&self) -> u64 {
        self.queue.avail_ring()
    }

    /// Carries out up to `budget` requests.
    ///
    /// # Errors
    /// The ring makes no sense, or is not there.
    pub(super) fn run(&mut self, memory: &Arc<ClientMemory>, budget: usize) -> Result<Progress, RingError> {
        let asked = self.asked.take();
        let progress = self.runner.run(&mut self.queue, memory, budget)?;
        if progress.more || progress.held {
            self.asked = asked;
        }
        Ok(progress)
    }
}
