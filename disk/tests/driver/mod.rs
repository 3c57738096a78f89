//! A driver of one queue, and the runner that serves it.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, of which not every one needs all of it")]

mod ring;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use disk::{Backing, BackingOptions, Disk, Gate, Geometry, Progress, RingError, Runner};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub use ring::*;

pub struct Driver {
    ring: Ring,
    pub queue: Queue,
    pub runner: Runner<Arc<GuestMemoryMmap>>,
    pub gate: Arc<Gate>,
}

impl Deref for Driver {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.ring
    }
}

impl DerefMut for Driver {
    fn deref_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }
}

pub fn features() -> u64 {
    [1, 2, 6, 9, 10, 11, 12, 13, 14].iter().fold(0, |set, bit| set | 1 << bit)
}

/// A disk in memory with everything negotiated but CONFIG_WCE.
pub fn memory_disk(bytes: u64) -> Arc<Disk> {
    let disk = Disk::new(Backing::memory(bytes, false).unwrap(), Geometry::default()).unwrap();
    disk.negotiate(features() & !(1 << 11));
    Arc::new(disk)
}

pub fn file_disk(path: &std::path::Path, bytes: u64, direct: bool) -> Arc<Disk> {
    let options = BackingOptions {
        path: Some(path.to_owned()),
        size: Some(bytes),
        direct,
        ..BackingOptions::default()
    };
    let disk = Disk::new(Backing::open(&options).unwrap(), Geometry::default()).unwrap();
    disk.negotiate(features() & !(1 << 11));
    Arc::new(disk)
}

impl Driver {
    pub fn new(disk: Arc<Disk>) -> Self {
        let gate = Arc::new(Gate::default());
        let runner = Runner::new(disk, Arc::clone(&gate));
        Self::with(runner, gate)
    }

    pub fn with(runner: Runner<Arc<GuestMemoryMmap>>, gate: Arc<Gate>) -> Self {
        let ranges = [(GuestAddress(0), MEMORY as usize)];
        let ring = Ring::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()), 0);
        let [table, available, used] = ring.addresses().map(GuestAddress);
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue.try_set_desc_table_address(table).unwrap();
        queue.try_set_avail_ring_address(available).unwrap();
        queue.try_set_used_ring_address(used).unwrap();
        queue.set_ready(true);
        Self { ring, queue, runner, gate }
    }

    pub fn disk(&self) -> Arc<Disk> {
        Arc::clone(self.runner.disk())
    }

    pub fn run(&mut self) -> Progress {
        self.step(1024).unwrap()
    }

    pub fn step(&mut self, budget: usize) -> Result<Progress, RingError> {
        self.runner.run(&mut self.queue, &self.ring.memory, budget)
    }

    pub fn quietly(&mut self) -> Result<Progress, RingError> {
        self.runner.run_quietly(&mut self.queue, &self.ring.memory, 64)
    }

    pub fn waiting(&self) -> bool {
        self.runner.waiting(&self.queue, &self.ring.memory)
    }

    pub fn drain(&mut self) -> Result<bool, RingError> {
        self.runner.drain(&mut self.queue, &self.ring.memory)
    }

    pub fn resume(&mut self, heads: &[u16]) -> Result<bool, RingError> {
        self.runner.resume(&mut self.queue, &self.ring.memory, heads)
    }

    /// Runs until nothing is at work any more.
    pub fn finish(&mut self) {
        while self.run().more {}
        self.drain().unwrap();
    }

    /// A request that reads guest memory; its status.
    pub fn send(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let (header, at, status) = (self.header(kind, sector), self.buffer(data.len() as u64), self.status());
        self.put(at, data);
        let mut pieces = vec![(header, 16, false)];
        if !data.is_empty() {
            pieces.push((at, data.len() as u32, false));
        }
        pieces.push((status, 1, true));
        self.offer(&pieces);
        self.finish();
        assert_eq!(self.used().len(), 1);
        self.get(status, 1)[0]
    }

    /// A request that writes guest memory; its status and what it wrote.
    pub fn receive(&mut self, kind: u32, sector: u64, length: u32) -> (u8, Vec<u8>) {
        let (header, at, status) = (self.header(kind, sector), self.buffer(length.into()), self.status());
        self.offer(&[(header, 16, false), (at, length, true), (status, 1, true)]);
        self.finish();
        assert_eq!(self.used().len(), 1);
        (self.get(status, 1)[0], self.get(at, length as usize))
    }
}
