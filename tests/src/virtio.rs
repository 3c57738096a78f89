//! A driver for a virtio block device behind a [`Host`]: finds the structures by their capabilities, as a kernel does, and
//! does one request at a time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use tdispctl::pci::Width;

use crate::host::Host;

/// Features without which the device does not work: VERSION_1 and ACCESS_PLATFORM.
pub const MUST: u64 = 1 << 32 | 1 << 33;
/// `VIRTIO_BLK_F_FLUSH`.
pub const FLUSH: u64 = 1 << 9;
/// `DEVICE_NEEDS_RESET`.
pub const NEEDS_RESET: u8 = 0x40;

/// Request types (virtio 1.2 §5.2.6).
pub mod request {
    /// VIRTIO_BLK_T_IN
    pub const IN: u32 = 0;
    /// VIRTIO_BLK_T_OUT
    pub const OUT: u32 = 1;
    /// VIRTIO_BLK_T_FLUSH
    pub const FLUSH: u32 = 4;
    /// VIRTIO_BLK_T_GET_ID
    pub const GET_ID: u32 = 8;
}

/// What the status byte holds until the device writes it.
pub const PENDING: u8 = 0xA5;
/// Descriptors in the driver's ring.
pub const QUEUE_SIZE: u16 = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Offsets in the driver's memory: its ring, and the request.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const HEADER: u64 = 0x1000;
const STATUS: u64 = 0x1010;
const DATA: u64 = 0x2000;

/// A structure's place: BAR and offset.
type At = (u8, u64);

/// A driver of queue 0, with a ring in the host's memory.
pub struct Driver {
    /// Common configuration.
    pub common: At,
    /// ISR status.
    pub isr: At,
    /// Device configuration.
    pub device: At,
    /// Notify address of queue 0.
    pub notify: At,
    /// Offset of the PCI configuration access capability.
    pub pci_cfg: u16,
    memory: File,
    base: u64,
    offered: u16,
}

impl Driver {
    /// Finds the structures; nothing is written yet.
    pub fn find(host: &mut Host) -> Self {
        let mut found = [None; 5];
        let mut pci_cfg = 0;
        let mut at = host.config_read(0x34, Width::Byte) as u16;
        while at != 0 {
            let head = host.config_read(at, Width::Dword).to_le_bytes();
            if head[0] == 9 {
                let bar = host.config_read(at + 4, Width::Byte) as u8;
                let offset = host.config_read(at + 8, Width::Dword);
                // The first of each type counts.
                found[usize::from(head[3]) - 1].get_or_insert((bar, u64::from(offset)));
                if head[3] == 5 {
                    pci_cfg = at;
                }
            }
            at = head[1].into();
        }
        let (memory, base) = host.device.dma_memory().unwrap();
        let [common, notify, isr, device, _] = found;
        Self {
            common: common.unwrap(),
            isr: isr.unwrap(),
            device: device.unwrap(),
            notify: notify.unwrap(),
            pci_cfg,
            memory,
            base,
            offered: 0,
        }
    }

    /// Finds the structures and begins.
    pub fn new(host: &mut Host, features: u64) -> Self {
        let mut driver = Self::find(host);
        driver.begin(host, features);
        driver
    }

    /// Writes to common configuration.
    pub fn write(&self, host: &mut Host, offset: u64, data: &[u8]) {
        host.bar_write(self.common.0, self.common.1 + offset, data);
    }

    /// Reads common configuration.
    pub fn read<const N: usize>(&self, host: &mut Host, offset: u64) -> [u8; N] {
        host.bar_read(self.common.0, self.common.1 + offset)
    }

    /// Device status.
    pub fn status(&self, host: &mut Host) -> u8 {
        self.read::<1>(host, 0x14)[0]
    }

    /// Capacity in sectors.
    pub fn capacity(&self, host: &mut Host) -> u64 {
        u64::from_le_bytes(host.bar_read(self.device.0, self.device.1))
    }

    /// Reset, features, queue 0, ready.
    pub fn begin(&mut self, host: &mut Host, features: u64) {
        self.write(host, 0x14, &[0]);
        assert_eq!(self.status(host), 0, "reset");
        self.write(host, 0x14, &[1]);
        self.write(host, 0x14, &[3]);
        for (select, half) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            self.write(host, 0x08, &select.to_le_bytes());
            self.write(host, 0x0C, &half.to_le_bytes());
        }
        self.write(host, 0x14, &[0x0B]);
        assert_eq!(self.status(host), 0x0B, "features");
        self.set_up(host);
        self.write(host, 0x14, &[0x0F]);
        assert_eq!(self.status(host), 0x0F);
    }

    /// Queue 0, from the beginning.
    pub fn set_up(&mut self, host: &mut Host) {
        self.put(DESCRIPTORS, &[0; 0x1000]);
        self.offered = 0;
        self.write(host, 0x16, &[0, 0]);
        self.write(host, 0x18, &QUEUE_SIZE.to_le_bytes());
        for (register, offset) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
            self.write(host, register, &(self.base + offset).to_le_bytes());
        }
        self.write(host, 0x1C, &[1, 0]);
    }

    /// Writes to the memory that it shares with the device.
    pub fn put(&self, offset: u64, data: &[u8]) {
        self.memory.write_all_at(data, offset).unwrap();
    }

    /// Reads that memory.
    pub fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory.read_exact_at(&mut data, offset).unwrap();
        data
    }

    /// Writes a descriptor.
    pub fn descriptor(&self, index: u16, offset: u64, length: u32, flags: u16, next: u16) {
        let address = self.base + offset;
        let bytes =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.put(DESCRIPTORS + 16 * u64::from(index), &bytes.concat());
    }

    /// Makes the chain that begins at `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.offered % QUEUE_SIZE);
        self.offered = self.offered.wrapping_add(1);
        self.put(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
        self.put(AVAILABLE + 2, &self.offered.to_le_bytes());
    }

    /// How many requests are used.
    pub fn used(&self) -> u16 {
        u16::from_le_bytes(self.get(USED + 2))
    }

    /// How many requests were offered.
    pub fn offered(&self) -> u16 {
        self.offered
    }

    /// Tells the device of them.
    pub fn ring(&self, host: &mut Host) {
        host.bar_write(self.notify.0, self.notify.1, &[0, 0]);
    }

    /// Offers a request; `data` is what it writes, or as much as it reads.
    pub fn submit(&mut self, host: &mut Host, kind: u32, sector: u64, data: &[u8]) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.put(HEADER, &header);
        self.put(STATUS, &[PENDING]);
        let reads = matches!(kind, request::IN | request::GET_ID);
        self.put(DATA, data);
        if data.is_empty() {
            self.descriptor(0, HEADER, 16, 1, 2);
        } else {
            self.descriptor(0, HEADER, 16, 1, 1);
            self.descriptor(1, DATA, data.len() as u32, if reads { 3 } else { 1 }, 2);
        }
        self.descriptor(2, STATUS, 1, 2, 0);
        self.offer(0);
        self.ring(host);
    }

    /// The status of the request, which may be [`PENDING`]. Whatever the device was to do about it, it has done: its answer to
    /// something else has come since.
    pub fn settled(&self, host: &mut Host) -> u8 {
        host.config_read(0, Width::Dword);
        self.get::<1>(STATUS)[0]
    }

    /// Waits for what was offered; the status of the last request.
    pub fn wait(&self) -> u8 {
        let began = Instant::now();
        while self.used() != self.offered {
            assert!(began.elapsed() < PATIENCE, "the device never uses the request");
            std::thread::sleep(Duration::from_micros(100));
        }
        self.get::<1>(STATUS)[0]
    }

    /// Reads; the status where it fails.
    ///
    /// # Errors
    /// The status byte.
    pub fn read_disk<const N: usize>(&mut self, host: &mut Host, sector: u64) -> Result<[u8; N], u8> {
        self.submit(host, request::IN, sector, &[0; N]);
        match self.wait() {
            0 => Ok(self.get(DATA)),
            status => Err(status),
        }
    }

    /// Writes; the status.
    pub fn write_disk(&mut self, host: &mut Host, sector: u64, data: &[u8]) -> u8 {
        self.submit(host, request::OUT, sector, data);
        self.wait()
    }
}
