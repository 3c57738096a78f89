//! A driver of one queue: puts chains of descriptors into guest memory and takes used ones out.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, of which not every one needs all of it")]

use std::sync::Arc;

use disk::{Backing, BackingOptions, Disk, Gate, Geometry, Progress, Runner};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const QUEUE_SIZE: u16 = 64;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const INDIRECT: u64 = 0x4000;
/// Where buffers may be.
pub const BUFFERS: u64 = 0x1_0000;
/// Bytes of guest memory.
pub const MEMORY: u64 = 0x40_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// What a status byte is before the device wrote it.
pub const UNTOUCHED: u8 = 0xA5;

/// A descriptor: address, length, whether the device writes it.
pub type Piece = (u64, u32, bool);

pub struct Driver {
    pub memory: Arc<GuestMemoryMmap>,
    pub queue: Queue,
    pub runner: Runner<Arc<GuestMemoryMmap>>,
    pub gate: Arc<Gate>,
    available: u16,
    used: u16,
    next: u16,
    room: u64,
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
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(TABLE)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_ready(true);
        Self { memory, queue, runner, gate, available: 0, used: 0, next: 0, room: BUFFERS }
    }

    pub fn disk(&self) -> Arc<Disk> {
        Arc::clone(self.runner.disk())
    }

    /// Room for a buffer. It is reused once all of memory was.
    pub fn buffer(&mut self, bytes: u64) -> u64 {
        if self.room + bytes > MEMORY {
            self.room = BUFFERS;
        }
        self.room += bytes;
        self.room - bytes
    }

    fn table(&self, table: u64, first: u16, size: u16, pieces: &[Piece]) {
        for (n, (address, length, write)) in pieces.iter().enumerate() {
            let index = (first + n as u16) % size;
            let more = n + 1 < pieces.len();
            let flags = if *write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.descriptor(table, index, Descriptor::new(*address, *length, flags, (index + 1) % size));
        }
    }

    pub fn descriptor(&self, table: u64, index: u16, descriptor: Descriptor) {
        self.memory.write_obj(descriptor, GuestAddress(table + u64::from(index) * 16)).unwrap();
    }

    pub fn in_table(&self, index: u16, descriptor: Descriptor) {
        self.descriptor(TABLE, index, descriptor);
    }

    /// Makes a chain of these pieces available; returns its head.
    pub fn offer(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next;
        self.table(TABLE, head, QUEUE_SIZE, pieces);
        self.next = (self.next + pieces.len() as u16) % QUEUE_SIZE;
        self.offer_head(head);
        head
    }

    /// The same behind one indirect descriptor.
    pub fn offer_indirect(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next;
        let table = INDIRECT + u64::from(head) * 0x200;
        self.table(table, 0, pieces.len() as u16, pieces);
        let whole = Descriptor::new(table, pieces.len() as u32 * 16, FLAG_INDIRECT, 0);
        self.descriptor(TABLE, head, whole);
        self.next = (self.next + 1) % QUEUE_SIZE;
        self.offer_head(head);
        head
    }

    /// Makes available whatever is at this descriptor.
    pub fn offer_head(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + u64::from(self.available % QUEUE_SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        self.memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    pub fn set_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(AVAILABLE)).unwrap();
    }

    /// The `used_event` field: signal when the used index passes this.
    pub fn set_used_event(&self, event: u16) {
        self.memory.write_obj(event, GuestAddress(AVAILABLE + 4 + u64::from(QUEUE_SIZE) * 2)).unwrap();
    }

    /// The `avail_event` field: notify when the available index passes this.
    pub fn avail_event(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 4 + u64::from(QUEUE_SIZE) * 8)).unwrap()
    }

    pub fn run(&mut self) -> Progress {
        self.runner.run(&mut self.queue, &self.memory, 1024).unwrap()
    }

    /// Runs until nothing is at work any more.
    pub fn finish(&mut self) {
        while self.run().more {}
        self.runner.drain(&mut self.queue, &self.memory).unwrap();
    }

    /// What was used since the last call: head and length.
    pub fn used(&mut self) -> Vec<(u16, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(USED + 2)).unwrap();
        let mut out = Vec::new();
        while self.used != index {
            let slot = USED + 4 + u64::from(self.used % QUEUE_SIZE) * 8;
            let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
            let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
            out.push((head as u16, length));
            self.used = self.used.wrapping_add(1);
        }
        out
    }

    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// A header in memory.
    pub fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let at = self.buffer(16);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.put(at, &bytes);
        at
    }

    /// A status byte nobody has written yet.
    pub fn status(&mut self) -> u64 {
        let at = self.buffer(1);
        self.put(at, &[UNTOUCHED]);
        at
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
