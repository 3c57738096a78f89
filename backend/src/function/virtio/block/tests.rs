//! The block device with a small driver in front of it and a client's memory behind it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use disk::{Backing, Geometry};
use mmio::{AddressWidth, Attribute, BarLayout, RangeLayout};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tdispd_proto::vfio_user::DmaMap;

use super::super::{Structures, Unlocked};
use super::*;
use crate::vfio_user::DmaTable;

const MEMORY: u64 = 1 << 20;
/// Where the memory begins on the bus.
const BASE: u64 = 0x10_0000;
const SIZE: u16 = 8;
/// Where things lie in memory: each queue has 0x1000 for its rings, and data is behind.
const RINGS: u64 = 0;
const DATA: u64 = 0x8000;
const MUST: u64 = 1 << 32 | 1 << 33;
const EVENT_IDX: u64 = 1 << 29;
const RING_RESET: u64 = 1 << 40;
const FLUSH: u64 = 1 << 9;
const NEEDS_RESET: u8 = 0x40;
const OK: u8 = 0;
const IOERR: u8 = 1;
const PENDING: u8 = 0xA5;
const IN: u32 = 0;
const OUT: u32 = 1;

fn disk(fill: u8) -> Arc<Disk> {
    let backing = Backing::memory(64 << 10, false).unwrap();
    backing.write(0, &[fill; 512]).unwrap();
    Arc::new(Disk::new(backing, Geometry { queues: 2, ..Geometry::default() }).unwrap())
}

fn bars(doorbells: bool) -> BarSet {
    let range = |kind| RangeLayout {
        kind,
        pages: 1,
        attribute: Attribute::Private,
        updatable: false,
        revocation: None,
    };
    let second = if doorbells { Kind::Doorbells } else { Kind::Reserved };
    let layout = |index, kinds: [Kind; 2]| {
        BarLayout::new(index, AddressWidth::Bits32, false, &kinds.map(range)).unwrap()
    };
    let bars = [layout(0, [Kind::Registers, second]), layout(4, [Kind::MsixTable, Kind::MsixPba])];
    BarSet::new(bars.into()).unwrap()
}

/// A device, its memory, and a driver's place in each ring.
struct Bench {
    block: Block,
    memory: File,
    table: DmaTable,
    tee: Tee,
    offered: [u16; 2],
}

impl Bench {
    fn new(disks: BlockDisks, policy: Policy) -> Self {
        let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, MEMORY).unwrap();
        fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
        let memory = File::from(memory);
        let mut table = DmaTable::default();
        let map = DmaMap { readable: true, writable: true, offset: 0, address: BASE, size: MEMORY };
        table.map(&map, Some(memory.try_clone().unwrap().into())).unwrap();
        let block = Block::new(bars(true), 256, disks, policy).unwrap();
        Self { block, memory, table, tee: Tee::NonTee, offered: [0; 2] }
    }

    fn plain(fill: u8) -> Self {
        Self::new(BlockDisks { plain: disk(fill), private: None }, Policy::default())
    }

    fn place(&self, kind: Kind, offset: u64) -> Place {
        Place { bar: 0, kind, offset, offset_in_range: offset, tee: self.tee }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let place = self.place(Kind::Registers, offset);
        self.block.write(place, data);
    }

    fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0x5A; N];
        let place = self.place(Kind::Registers, offset);
        self.block.read(place, &mut data);
        data
    }

    fn status(&mut self) -> u8 {
        self.read::<1>(0x14)[0]
    }

    /// As a driver begins: reset, features, both queues with a vector each, ready.
    fn begin(&mut self, features: u64) {
        self.write(0x14, &[0]);
        self.write(0x14, &[3]);
        for (select, half) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            self.write(0x08, &select.to_le_bytes());
            self.write(0x0C, &half.to_le_bytes());
        }
        self.write(0x14, &[0x0B]);
        self.write(0x10, &2_u16.to_le_bytes());
        for queue in 0..2 {
            self.set_up(queue);
        }
        self.write(0x14, &[0x0F]);
        assert_eq!(self.status(), 0x0F);
    }

    fn set_up(&mut self, queue: u16) {
        let ring = RINGS + 0x1000 * u64::from(queue);
        self.memory.write_all_at(&[0; 0x1000], ring).unwrap();
        self.offered[usize::from(queue)] = 0;
        self.write(0x16, &queue.to_le_bytes());
        self.write(0x18, &SIZE.to_le_bytes());
        self.write(0x1A, &queue.to_le_bytes());
        for (register, offset) in [(0x20, 0), (0x28, 0x400), (0x30, 0x800)] {
            self.write(register, &(BASE + ring + offset).to_le_bytes());
        }
        self.write(0x1C, &[1, 0]);
    }

    fn put(&self, offset: u64, data: &[u8]) {
        self.memory.write_all_at(data, offset).unwrap();
    }

    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory.read_exact_at(&mut data, offset).unwrap();
        data
    }

    fn descriptor(&self, queue: u16, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let bytes =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.put(RINGS + 0x1000 * u64::from(queue) + 16 * index, &bytes.concat());
    }

    /// Makes the chain that begins at `head` available.
    fn offer(&mut self, queue: u16, head: u16) {
        let ring = RINGS + 0x1000 * u64::from(queue) + 0x400;
        let offered = &mut self.offered[usize::from(queue)];
        let slot = u64::from(*offered % SIZE);
        *offered = offered.wrapping_add(1);
        let index = offered.to_le_bytes();
        self.put(ring + 4 + 2 * slot, &head.to_le_bytes());
        self.put(ring + 2, &index);
    }

    /// Offers one request of a sector, without notifying; where its data lie.
    fn request(&mut self, queue: u16, kind: u32, sector: u64) -> u64 {
        let at = DATA + 0x1000 * u64::from(queue);
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.put(at, &header);
        self.put(at + 0x10, &[PENDING]);
        let data_flags = if kind == IN { 3 } else { 1 };
        self.descriptor(queue, 0, BASE + at, 16, 1, 1);
        self.descriptor(queue, 1, BASE + at + 0x200, 512, data_flags, 2);
        self.descriptor(queue, 2, BASE + at + 0x10, 1, 2, 0);
        self.offer(queue, 0);
        at + 0x200
    }

    fn request_status(&self, queue: u16) -> u8 {
        self.get::<1>(DATA + 0x1000 * u64::from(queue) + 0x10)[0]
    }

    fn notify(&mut self, queue: u16) {
        let place = self.place(Kind::Doorbells, 4 * u64::from(queue));
        self.block.write(place, &queue.to_le_bytes());
    }

    /// Lets the device do what it wants, as a device in a state that allows DMA does.
    fn work(&mut self) {
        for _ in 0..32 {
            if self.block.memory_work().is_none() {
                return;
            }
            self.block.do_memory_work(&Arc::new(ClientMemory::new(Arc::new(self.table.clone()))));
        }
        panic!("it never has enough");
    }

    fn interrupts(&mut self) -> Vec<u16> {
        core::iter::from_fn(|| self.block.poll_work())
            .map(|work| {
                let Work::Interrupt { vector } = work else { panic!("{work:?}") };
                vector
            })
            .collect()
    }

    /// The first byte of the disk, as a driver sees it; or the status.
    fn first_byte(&mut self) -> Result<u8, u8> {
        let at = self.request(0, IN, 0);
        self.notify(0);
        self.work();
        match self.request_status(0) {
            OK => Ok(self.get::<1>(at)[0]),
            status => Err(status),
        }
    }
}

#[test]
fn requests_are_carried_out_and_their_vectors_raised() {
    let mut bench = Bench::plain(7);
    bench.begin(MUST | FLUSH);
    let at = bench.request(0, OUT, 3);
    bench.put(at, &[0x33; 512]);
    bench.notify(0);
    assert_eq!(bench.request_status(0), PENDING, "not before the write's reply has left");
    bench.work();
    assert_eq!((bench.request_status(0), bench.interrupts()), (OK, vec![0]));
    let at = bench.request(1, IN, 3);
    bench.notify(1);
    bench.work();
    assert_eq!((bench.get::<512>(at), bench.interrupts()), ([0x33; 512], vec![1]));
    assert_eq!(bench.get::<4>(RINGS + 0x1000 + 0x800), [0, 0, 1, 0], "used.idx");
    assert_eq!(bench.get::<8>(RINGS + 0x1000 + 0x804), [0, 0, 0, 0, 1, 2, 0, 0], "512 bytes and a status");
}

#[test]
fn device_configuration_is_the_disk_s_and_reads_zero_behind_it() {
    let mut bench = Bench::plain(0);
    assert_eq!(bench.read::<8>(0x400), (128_u64).to_le_bytes(), "capacity in sectors");
    assert_eq!(bench.read::<2>(0x422), [2, 0], "num_queues");
    assert_eq!(bench.read::<16>(0x4F8), [0; 16], "behind its end");
    let whole = bench.read::<0x1000>(0);
    assert_eq!(whole[0x400..0x408], 128_u64.to_le_bytes(), "an access over everything is cut");
    assert_eq!(whole[0x18..0x1A], [0, 1]);
    bench.write(0x3FE, &[0xFF; 16]);
    assert_eq!(bench.read::<8>(0x400), (128_u64).to_le_bytes(), "read-only");
}

#[test]
fn event_idx_spares_interrupts_that_nobody_wants() {
    let mut bench = Bench::plain(0);
    bench.begin(MUST | EVENT_IDX);
    bench.put(RINGS + 0x400 + 4 + 2 * u64::from(SIZE), &1_u16.to_le_bytes());
    assert_eq!(bench.first_byte(), Ok(0));
    assert!(bench.interrupts().is_empty(), "the driver waits for the second");
    assert_eq!(bench.first_byte(), Ok(0));
    assert_eq!(bench.interrupts(), [0]);
}

#[test]
fn notifications_before_the_driver_is_ready_and_of_no_queue_do_nothing() {
    let mut bench = Bench::plain(0);
    for queue in [0, 1, 2, 255] {
        bench.notify(queue);
    }
    assert_eq!(bench.block.memory_work(), None);
    bench.begin(MUST);
    bench.work();
    for queue in [2, 255, 1023] {
        bench.notify(queue);
    }
    assert_eq!(bench.block.memory_work(), None);
    let place = bench.place(Kind::Doorbells, 0);
    bench.block.write(place, &[0; 4096]);
    assert!(bench.block.memory_work().is_some(), "a wide write touches all of them");
    bench.work();
}

/// What a request offered in each phase comes to, and then in RUN.
#[test]
fn requests_meet_the_phase_they_are_made_in() {
    use TdiPhase::{Error, Locked as L, Run, Unlocked as U};
    let serve = Policy::default();
    let wait = Policy { unlocked: Unlocked::Wait, ..serve };
    let fail = Policy { unlocked: Unlocked::Fail, ..serve };
    let break_ = Policy { locked: Locked::Break, ..serve };
    for (policy, phase, status, later) in [
        (serve, U, OK, OK),
        (wait, U, PENDING, OK),
        (fail, U, IOERR, IOERR),
        (serve, L, PENDING, OK),
        (break_, L, PENDING, PENDING),
        (serve, Run, OK, OK),
        (serve, Error, PENDING, OK),
    ] {
        let mut bench = Bench::new(BlockDisks { plain: disk(1), private: None }, policy);
        bench.begin(MUST);
        bench.work();
        bench.block.enter(phase);
        bench.request(0, IN, 0);
        bench.notify(0);
        bench.work();
        assert_eq!(bench.request_status(0), status, "{policy:?} {phase:?}");
        bench.block.enter(Run);
        bench.work();
        assert_eq!(bench.request_status(0), later, "{policy:?} {phase:?}, then RUN");
        let broken = policy == break_ && phase == L;
        assert_eq!(bench.status() & NEEDS_RESET != 0, broken);
        bench.begin(MUST);
        assert_eq!(bench.first_byte(), Ok(1), "it can always be begun anew");
    }
}

#[test]
fn what_asked_with_t_0_counts_as_such_until_it_is_done() {
    let mut bench = Bench::plain(0);
    bench.begin(MUST);
    bench.work();
    bench.notify(1);
    bench.tee = Tee::Tee;
    bench.notify(0);
    let address = BASE + RINGS + 0x1400;
    assert_eq!(bench.block.memory_work(), Some(MemoryWork { asked: Tee::NonTee, address }));
    bench.notify(1);
    assert_eq!(bench.block.memory_work(), Some(MemoryWork { asked: Tee::NonTee, address }));
    bench.block.refuse_memory_work();
    let address = BASE + RINGS + 0x400;
    assert_eq!(bench.block.memory_work(), Some(MemoryWork { asked: Tee::Tee, address }));
    bench.work();
    assert_eq!(bench.block.memory_work(), None);
}

#[test]
fn stop_and_reset_leave_no_ring_alive() {
    for (end, status) in [(Block::scrub as fn(&mut Block), NEEDS_RESET), (Block::reset, 0)] {
        let mut bench = Bench::plain(9);
        bench.begin(MUST);
        bench.work();
        bench.request(0, IN, 0);
        bench.notify(0);
        end(&mut bench.block);
        bench.work();
        bench.notify(0);
        bench.work();
        assert_eq!((bench.request_status(0), bench.status()), (PENDING, status));
        assert_eq!(bench.interrupts(), if status == 0 { vec![] } else { vec![2] }, "of the configuration");
        bench.begin(MUST);
        assert_eq!(bench.first_byte(), Ok(9));
    }
}

#[test]
fn a_private_disk_is_there_in_run_only_and_nobody_goes_from_one_to_the_other() {
    let private = Arc::new(
        Disk::new(Backing::memory(32 << 10, true).unwrap(), Geometry { queues: 2, ..Geometry::default() })
            .unwrap(),
    );
    let disks = BlockDisks { plain: disk(0x11), private: Some(private) };
    let mut bench = Bench::new(disks, Policy::default());
    bench.begin(MUST);
    assert_eq!(bench.first_byte(), Ok(0x11));
    assert_eq!(bench.interrupts(), [0]);
    bench.block.enter(TdiPhase::Locked);
    assert_eq!((bench.read::<8>(0x400), bench.status()), (128_u64.to_le_bytes(), 0x0F));
    bench.block.enter(TdiPhase::Run);
    assert_eq!((bench.read::<8>(0x400), bench.status()), (64_u64.to_le_bytes(), NEEDS_RESET));
    assert_eq!(bench.interrupts(), [2]);
    bench.write(0x00, &0_u32.to_le_bytes());
    assert_eq!(u32::from_le_bytes(bench.read(0x04)) >> 5 & 1, 1, "read-only");
    bench.begin(MUST);
    assert_eq!(bench.first_byte(), Ok(0));
    for phase in [TdiPhase::Error, TdiPhase::Unlocked] {
        bench.block.enter(phase);
        assert_eq!(bench.read::<8>(0x400), 128_u64.to_le_bytes(), "{phase:?}");
    }
    assert_eq!(bench.status(), NEEDS_RESET);
    bench.begin(MUST);
    assert_eq!(bench.first_byte(), Ok(0x11));
}

#[test]
fn a_ring_that_makes_no_sense_breaks_the_device_until_a_reset() {
    type Break = fn(&mut Bench);
    let ways: [(&str, Break); 6] = [
        ("an index too far ahead", |bench| bench.put(RINGS + 0x402, &(SIZE + 1).to_le_bytes())),
        ("a descriptor that there is not", |bench| bench.offer(0, SIZE)),
        ("an available ring that is not there", |bench| rings_at(bench, [0, 0x0, 0x800])),
        ("a used ring that is not there", |bench| rings_at(bench, [0, 0x400, 0])),
        ("a ring at the end of addresses", |bench| rings_at(bench, [0, u64::MAX - 1, 0x800])),
        ("rings that are not aligned", |bench| rings_at(bench, [8, 0x400, 0x800])),
    ];
    for (what, break_it) in ways {
        let mut bench = Bench::plain(4);
        bench.begin(MUST | RING_RESET);
        bench.work();
        bench.interrupts();
        break_it(&mut bench);
        bench.notify(0);
        bench.work();
        assert_eq!(bench.status(), 0x4F, "{what}");
        assert_eq!(bench.interrupts(), [2], "{what}: the driver hears of it");
        bench.notify(0);
        bench.notify(1);
        assert_eq!(bench.block.memory_work(), None, "{what}: no ring is touched any more");
        bench.begin(MUST);
        assert_eq!(bench.first_byte(), Ok(4), "{what}");
    }
}

/// Sets queue 0 up again, its parts at these offsets from its place; 0 is where no memory is.
fn rings_at(bench: &mut Bench, parts: [u64; 3]) {
    bench.write(0x16, &[0, 0]);
    bench.write(0x3A, &[1, 0]);
    for (at, part) in parts.into_iter().enumerate() {
        let address = match (at, part) {
            (0, part) => BASE + part,
            (_, 0) => 0x1000,
            (_, part) if part < 0x1000 => BASE + part,
            (_, part) => part,
        };
        bench.write(0x20 + 8 * at as u64, &address.to_le_bytes());
    }
    bench.write(0x1C, &[1, 0]);
}

#[test]
fn one_queue_is_reset_while_the_other_goes_on() {
    let mut bench = Bench::plain(5);
    bench.begin(MUST | RING_RESET);
    assert_eq!(bench.first_byte(), Ok(5));
    bench.request(0, IN, 0);
    bench.notify(0);
    bench.write(0x16, &[0, 0]);
    bench.write(0x3A, &[1, 0]);
    bench.request(1, IN, 0);
    bench.notify(1);
    bench.work();
    assert_eq!([0, 1].map(|queue| bench.request_status(queue)), [PENDING, OK]);
    bench.set_up(0);
    assert_eq!(bench.first_byte(), Ok(5), "from the beginning of its ring");
}

#[test]
fn a_disk_that_grows_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, [0; 8192]).unwrap();
    let options = disk::BackingOptions { path: Some(path.clone()), ..disk::BackingOptions::default() };
    let disk = Disk::new(Backing::open(&options).unwrap(), Geometry::default()).unwrap();
    let mut bench = Bench::new(BlockDisks { plain: Arc::new(disk), private: None }, Policy::default());
    bench.block.transport.write_common(0x10, &[1, 0]);
    bench.write(0x14, &[3]);
    bench.write(0x08, &[1]);
    bench.write(0x0C, &3_u32.to_le_bytes());
    bench.write(0x14, &[0x0F]);
    let generation = bench.read::<1>(0x15)[0];
    assert!(bench.block.follow_backing());
    assert!(bench.interrupts().is_empty());
    File::options().write(true).open(&path).unwrap().set_len(16384).unwrap();
    assert!(bench.block.follow_backing());
    assert_eq!((bench.interrupts(), bench.read::<1>(0x15)), (vec![1], [generation + 1]));
    assert_eq!(bench.read::<8>(0x400), 32_u64.to_le_bytes());
    assert!(!Bench::plain(0).block.follow_backing(), "memory stays as it is");
}

#[test]
fn without_doorbells_of_their_own_notify_addresses_are_among_the_registers() {
    let disks = BlockDisks { plain: disk(0), private: None };
    let block = Block::new(bars(false), 256, disks, Policy::default()).unwrap();
    let capabilities = block.structures().capabilities(2, |_| 0x4000).unwrap();
    assert_eq!(capabilities.notify, crate::pci::VirtioLocation { bar: 0, offset: 0x4C00, length: 8 });
    assert_eq!(capabilities.common.offset, 0x4000);
    let with = Structures::new(&bars(true)).unwrap();
    let capabilities = with.capabilities(2, |_| 0).unwrap();
    assert_eq!(capabilities.notify, crate::pci::VirtioLocation { bar: 0, offset: 0x1000, length: 8 });
    let at = |structures: &Structures, offset| {
        let kind = Kind::Registers;
        structures.locate(Place { bar: 0, kind, offset, offset_in_range: offset, tee: Tee::NonTee })
    };
    assert_eq!(at(block.structures(), 0xC04), Some(Part::Notify(4)));
    assert_eq!(at(&with, 0xC04), None);
    assert_eq!([0x3C, 0x1FF, 0x201, 0x500].map(|offset| at(&with, offset)), [None; 4]);
}
