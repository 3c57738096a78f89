//! A virtio driver's fast path over vfio-user, without any check: a notification, and the interrupt that comes of it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::SealFlags;
use tdispd_proto::vfio_user::{Command, DmaMap, IrqAction, IrqData, IrqKind, RegionAccess, put_request};
use tests::rig::Rig;
use tests::virtio::{MUST, QUEUE_SIZE, request};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};
use zerocopy::IntoBytes;

use crate::vfio_user_support::{Client, memfd, set_irqs};

const CONFIG: u32 = 7;
/// Where the structures lie in BAR 0 (`tests/tests/virtio_blk.rs` holds the device to it).
const NOTIFY: u64 = 0x4000;
/// Bus address of the driver's memory, and what lies where in it.
const BASE: u64 = 0x10_0000;
const SIZE: u64 = 0x1_0000;
const TABLE: usize = 0;
const AVAILABLE: usize = 0x400;
const USED: usize = 0x800;
const HEADER: usize = 0x1000;
const STATUS: usize = 0x1010;
const DATA: usize = 0x2000;

/// A driver of queue 0 of a disk, whose request is always the same: VIRTIO_BLK_T_GET_ID, which is no business of the disk's backing.
pub(crate) struct Notifier {
    stream: UnixStream,
    notification: Vec<u8>,
    interrupt: OwnedFd,
    memory: MmapRegion,
    offered: u16,
    _rig: Rig,
}

impl Notifier {
    pub(crate) fn start() -> Self {
        let rig = Rig::with("[[function]]\nkind = \"virtio-blk\"\ndisk.size = \"1M\"\n", 1);
        let mut client = Client::connect(rig.socket(0));
        client.request(Command::VERSION, &[0; 4]).unwrap();
        let file = memfd(SIZE, SealFlags::SHRINK);
        let map = DmaMap { readable: true, writable: true, offset: 0, address: BASE, size: SIZE };
        client.request_with_fds(Command::DMA_MAP, &map.encode(), &[&file]).unwrap();
        // Vector 1, and one that blocks: who waits for it sleeps.
        let interrupt = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let arm = set_irqs(IrqKind::Msix, IrqAction::Trigger, IrqData::Eventfd, 1, 1);
        client.request_with_fds(Command::DEVICE_SET_IRQS, &arm, &[&interrupt]).unwrap();
        client.write(CONFIG, 4, &6_u16.to_le_bytes()).unwrap();
        let mut common = |offset, data: &[u8]| client.write(0, offset, data).unwrap();
        common(0x14, &[1]);
        common(0x14, &[3]);
        for (select, half) in [(0_u32, MUST as u32), (1, (MUST >> 32) as u32)] {
            common(0x08, &select.to_le_bytes());
            common(0x0C, &half.to_le_bytes());
        }
        common(0x14, &[0x0B]);
        common(0x16, &[0, 0]);
        common(0x18, &QUEUE_SIZE.to_le_bytes());
        common(0x1A, &1_u16.to_le_bytes());
        for (register, offset) in [(0x20, TABLE), (0x28, AVAILABLE), (0x30, USED)] {
            common(register, &(BASE + offset as u64).to_le_bytes());
        }
        common(0x1C, &[1, 0]);
        common(0x14, &[0x0F]);
        assert_eq!(client.read(0, 0x14, 1).unwrap(), [0x0F]);

        let memory = MmapRegion::from_file(FileOffset::new(file.into(), 0), SIZE as usize).unwrap();
        let area = memory.as_volatile_slice();
        area.write_obj(request::GET_ID, HEADER).unwrap();
        let chain = [(HEADER, 16_u32, 1_u16, 1_u16), (DATA, 20, 3, 2), (STATUS, 1, 2, 0)];
        for (at, (address, length, flags, next)) in (TABLE..).step_by(16).zip(chain) {
            area.write_obj(BASE + address as u64, at).unwrap();
            area.write_obj(length, at + 8).unwrap();
            area.write_obj(flags, at + 12).unwrap();
            area.write_obj(next, at + 14).unwrap();
        }
        let mut notification = Vec::new();
        let access = RegionAccess::new(0, NOTIFY, 2);
        put_request(&mut notification, 1, Command::REGION_WRITE, false, &[access.as_bytes(), &[0; 2]]);
        Self { stream: client.stream, notification, interrupt, memory, offered: 0, _rig: rig }
    }

    /// Offers the request again, tells the device, and waits for the interrupt. The answer to the notification came before that.
    pub(crate) fn once(&mut self) {
        self.offered = self.offered.wrapping_add(1);
        let area = self.memory.as_volatile_slice();
        area.store(self.offered, AVAILABLE + 2, Ordering::Release).unwrap();
        self.stream.write_all(&self.notification).unwrap();
        rustix::io::read(&self.interrupt, &mut [0; 8]).unwrap();
        self.stream.read_exact(&mut [0; 16 + 16]).unwrap();
    }

    /// Whether the last request was carried out.
    pub(crate) fn is_content(&self) -> bool {
        let area = self.memory.as_volatile_slice();
        let (used, status): (u16, u8) = (area.read_obj(USED + 2).unwrap(), area.read_obj(STATUS).unwrap());
        used == self.offered && status == 0
    }
}
