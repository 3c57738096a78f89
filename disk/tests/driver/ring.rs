//! A driver's side of a split virtqueue (virtio 1.2 §2.7) in guest memory, and requests of virtio-blk in it.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, of which not every one needs all of it")]
#![allow(missing_docs, clippy::unwrap_used, reason = "test support: what fails here is the test")]

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const QUEUE_SIZE: u16 = 64;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const INDIRECT: u64 = 0x4000;
/// Where buffers may be, from a queue's base on.
pub const BUFFERS: u64 = 0x1_0000;
/// Bytes of guest memory that a queue has for itself.
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

/// `struct virtq_desc`: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// A queue as its driver sees it.
pub struct Ring {
    pub memory: Arc<GuestMemoryMmap>,
    base: u64,
    available: u16,
    used: u16,
    next: u16,
    room: u64,
}

impl Ring {
    /// A queue in the [`MEMORY`] bytes from `base` on.
    pub fn new(memory: Arc<GuestMemoryMmap>, base: u64) -> Self {
        Self { memory, base, available: 0, used: 0, next: 0, room: base + BUFFERS }
    }

    /// Descriptor table, available ring, used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [TABLE, AVAILABLE, USED].map(|offset| self.base + offset)
    }

    /// Room for a buffer. It is reused once all of memory was.
    pub fn buffer(&mut self, bytes: u64) -> u64 {
        if self.room + bytes > self.base + MEMORY {
            self.room = self.base + BUFFERS;
        }
        self.room += bytes;
        self.room - bytes
    }

    fn table(&self, table: u64, first: u16, size: u16, pieces: &[Piece]) {
        for (n, (address, length, write)) in pieces.iter().enumerate() {
            let index = (first + n as u16) % size;
            let more = n + 1 < pieces.len();
            let flags = if *write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.descriptor(table, index, (*address, *length, flags, (index + 1) % size));
        }
    }

    fn descriptor(&self, table: u64, index: u16, (address, length, flags, next): Descriptor) {
        let mut bytes = [0; 16];
        let fields =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        for (to, from) in bytes.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        self.memory.write_slice(&bytes, GuestAddress(table + u64::from(index) * 16)).unwrap();
    }

    pub fn in_table(&self, index: u16, descriptor: Descriptor) {
        self.descriptor(self.base + TABLE, index, descriptor);
    }

    /// Makes a chain of these pieces available; returns its head.
    pub fn offer(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next;
        self.table(self.base + TABLE, head, QUEUE_SIZE, pieces);
        self.next = (self.next + pieces.len() as u16) % QUEUE_SIZE;
        self.offer_head(head);
        head
    }

    /// The same behind one indirect descriptor.
    pub fn offer_indirect(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next;
        let table = self.base + INDIRECT + u64::from(head) * 0x200;
        self.table(table, 0, pieces.len() as u16, pieces);
        let whole = (table, pieces.len() as u32 * 16, FLAG_INDIRECT, 0);
        self.descriptor(self.base + TABLE, head, whole);
        self.next = (self.next + 1) % QUEUE_SIZE;
        self.offer_head(head);
        head
    }

    /// Makes available whatever is at this descriptor.
    pub fn offer_head(&mut self, head: u16) {
        let slot = self.base + AVAILABLE + 4 + u64::from(self.available % QUEUE_SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        self.memory.store(index.to_le(), GuestAddress(self.base + AVAILABLE + 2), Ordering::Release).unwrap();
        fence(Ordering::SeqCst);
    }

    pub fn set_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(self.base + AVAILABLE)).unwrap();
    }

    /// The `used_event` field: signal when the used index passes this.
    pub fn set_used_event(&self, event: u16) {
        self.memory
            .write_obj(event, GuestAddress(self.base + AVAILABLE + 4 + u64::from(QUEUE_SIZE) * 2))
            .unwrap();
    }

    /// The `avail_event` field: notify when the available index passes this.
    pub fn avail_event(&self) -> u16 {
        self.memory.read_obj(GuestAddress(self.base + USED + 4 + u64::from(QUEUE_SIZE) * 8)).unwrap()
    }

    /// What was used since the last call: head and length.
    pub fn used(&mut self) -> Vec<(u16, u32)> {
        let index: u16 = self.memory.load(GuestAddress(self.base + USED + 2), Ordering::Acquire).unwrap();
        let mut out = Vec::new();
        while self.used != index {
            let slot = self.base + USED + 4 + u64::from(self.used % QUEUE_SIZE) * 8;
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
        let fields = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        self.put(at, &bytes);
        at
    }

    /// A status byte nobody has written yet.
    pub fn status(&mut self) -> u64 {
        let at = self.buffer(1);
        self.put(at, &[UNTOUCHED]);
        at
    }
}
