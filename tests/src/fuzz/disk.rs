//! A ring full of anything, and guest memory behind it, against a disk.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails here is the test"
)]

use std::sync::Arc;

use disk::{Backing, Disk, Gate, GateState, Geometry, Runner};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::script::{Script, put_sized};

/// Descriptors of the queue.
const QUEUE_SIZE: u16 = 16;
/// Where descriptor table, available and used ring are; everything behind them is buffers.
const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;
const BUFFERS: u16 = 0x300;
/// Bytes of guest memory: two regions with a hole of one page between them.
const REGIONS: [(u64, usize); 2] = [(0, 0x4000), (0x5000, 0x1000)];
/// Bytes of the disk.
const SIZE: u64 = 16 * 512;

/// A guest with a disk.
struct Guest {
    memory: Arc<GuestMemoryMmap>,
    queue: Queue,
    runner: Runner<Arc<GuestMemoryMmap>>,
    gate: Arc<Gate>,
}

impl Guest {
    fn new(read_only: bool, features: u64) -> Self {
        let backing = Backing::memory(SIZE, read_only).unwrap();
        for sector in 0..SIZE / 512 {
            backing.write(sector * 512, &[sector as u8 + 1; 512]).unwrap();
        }
        let disk = Disk::new(backing, Geometry { serial: "fuzz".into(), ..Geometry::default() }).unwrap();
        disk.negotiate(features);
        let ranges = REGIONS.map(|(start, bytes)| (GuestAddress(start), bytes));
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(TABLE)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_ready(true);
        let gate = Arc::new(Gate::default());
        let runner = Runner::new(Arc::new(disk), Arc::clone(&gate));
        Self { memory, queue, runner, gate }
    }

    fn put(&self, at: u16, bytes: &[u8]) {
        // What does not fit is left out.
        let _ = self.memory.write(bytes, GuestAddress(at.into()));
    }

    fn memory(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (start, bytes) in REGIONS {
            let mut region = vec![0; bytes];
            self.memory.read_slice(&mut region, GuestAddress(start)).unwrap();
            all.append(&mut region);
        }
        all
    }

    fn disk(&self) -> Vec<u8> {
        let mut all = vec![0; SIZE as usize];
        self.runner.disk().backing().read(0, &mut all).unwrap();
        all
    }

    fn used_index(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }
}

/// Pieces of memory, then rounds through the ring. Whatever is in them, a round takes no more than there can be, a closed gate keeps
/// everything out of memory, a read-only disk stays as it was, and carrying the same chains out from their heads alone comes
/// to the same.
pub fn disk_queue(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (mode, features) = (script.byte(), u64::from(script.u16()));
    let read_only = mode & 1 == 1;
    let mut guest = Guest::new(read_only, features);
    let mut twin = Guest::new(read_only, features);
    let event_idx = mode & 2 == 2;
    guest.queue.set_event_idx(event_idx);
    let before = guest.disk();
    for _ in 0..16 {
        let Some(low) = script.event() else { break };
        let at = u16::from_le_bytes([low, script.byte()]);
        let bytes = script.sized(1024);
        guest.put(at, bytes);
        twin.put(at, bytes);
        if script.byte() & 1 == 0 {
            continue;
        }
        guest.gate.set(GateState::Hold);
        let held = guest.memory();
        assert!(guest.runner.run(&mut guest.queue, &guest.memory, 64).unwrap().held);
        assert!(guest.memory() == held, "a closed gate lets something through");
        guest.gate.set(GateState::Open);

        let heads = heads(&mut twin);
        match guest.runner.run(&mut guest.queue, &guest.memory, 64) {
            Ok(progress) => {
                assert!(
                    progress.taken <= usize::from(QUEUE_SIZE) + 1 && progress.taken == progress.completed
                );
                // Requests that overwrite their own ring come to something else, and may.
                if heads.len() == progress.taken && !touches_itself(&twin) {
                    twin.runner.resume(&mut twin.queue, &twin.memory, &heads).unwrap();
                    assert_eq!(twin.used_index(), guest.used_index());
                    assert!(twin.disk() == guest.disk(), "the disks differ");
                    assert!(
                        twin.memory()[usize::from(BUFFERS)..] == guest.memory()[usize::from(BUFFERS)..],
                        "memory differs"
                    );
                } else {
                    return;
                }
            }
            Err(_) => return,
        }
        if read_only {
            assert!(guest.disk() == before, "a read-only disk was written");
        }
    }
}

/// The heads that are available, without taking them from the other guest's ring.
fn heads(twin: &mut Guest) -> Vec<u16> {
    let Ok(chains) = twin.queue.iter(Arc::clone(&twin.memory)) else { return Vec::new() };
    chains.map(|chain| chain.head_index()).filter(|head| *head < QUEUE_SIZE).collect()
}

/// Whether some descriptor in the table, or something that may be one elsewhere, leads to the rings: anything that is below
/// the buffers, or an indirect table, whose place a request could write.
fn touches_itself(twin: &Guest) -> bool {
    (0..QUEUE_SIZE).any(|index| {
        let mut raw = [0; 16];
        twin.memory.read_slice(&mut raw, GuestAddress(TABLE + u64::from(index) * 16)).unwrap();
        let [address @ .., _, _, _, _, flags, _, _, _] = raw;
        let [a, b, c, d, e, f, g, h] = address;
        let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // A request that overwrites the header or the ranges of another depends on nothing but their order, which is the same.
        flags & 4 == 4 || (flags & 2 == 2 && address < BUFFERS.into())
    })
}

/// Seeds: requests of every kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    const ALL: u16 = 0x7E46;
    let descriptor = |address: u16, length: u32, flags: u16, next: u16| {
        [
            &u64::from(address).to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ]
        .concat()
    };
    let header = |kind: u32, sector: u64| [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let seed = |mode: u8, parts: &[(u16, Vec<u8>)]| {
        let mut out = vec![mode];
        out.extend_from_slice(&ALL.to_le_bytes());
        for (n, (at, bytes)) in parts.iter().enumerate() {
            out.extend_from_slice(&at.to_le_bytes());
            put_sized(&mut out, bytes);
            out.push((n + 1 == parts.len()).into());
        }
        out
    };
    let available = |heads: &[u16]| {
        let mut ring = vec![0, 0, heads.len() as u8, 0];
        heads.iter().for_each(|head| ring.extend_from_slice(&head.to_le_bytes()));
        (AVAILABLE as u16, ring)
    };
    let request = |kind: u32, sector: u64, data: Vec<u8>, write: u16| {
        let length = data.len() as u32;
        let table = [
            descriptor(0x300, 16, 1, 1),
            descriptor(0x400, length, 1 | write, 2),
            descriptor(0x310, 1, 2, 0),
        ];
        let table = (TABLE as u16, table.concat());
        [table, (0x300, header(kind, sector)), (0x400, data), available(&[0])]
    };
    let range = [&2u64.to_le_bytes()[..], &3u32.to_le_bytes(), &1u32.to_le_bytes()].concat();
    let two = [
        descriptor(0x300, 9, 1, 1),
        descriptor(0x309, 7, 1, 2),
        descriptor(0x3FF0, 0x200, 3, 3),
        descriptor(0x310, 1, 2, 0),
        descriptor(0x500, 48, 4, 0),
    ];
    let indirect = [descriptor(0x320, 16, 1, 1), descriptor(0x5000, 0x400, 1, 2), descriptor(0x330, 1, 2, 0)];
    vec![
        seed(0, &request(0, 3, vec![0; 512], 2)),
        seed(2, &request(1, 3, vec![7; 512], 0)),
        seed(1, &request(1, 3, vec![7; 512], 0)),
        seed(0, &request(8, 0, vec![0; 20], 2)),
        seed(0, &request(13, 0, range.clone(), 0)),
        seed(0, &request(11, 0, [&range[..12], &[0; 4]].concat(), 0)),
        seed(
            2,
            &[
                (TABLE as u16, two.concat()),
                (0x300, header(0, 1)),
                (0x320, header(1, 4)),
                (0x500, indirect.concat()),
                available(&[0, 4]),
            ],
        ),
        seed(0, &[(TABLE as u16, descriptor(0x300, 16, 1, 0)), (0x300, header(4, 0)), available(&[0, 0, 0])]),
    ]
}
