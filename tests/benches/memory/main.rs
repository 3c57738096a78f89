//! What memory costs: a mapped page against memory of our own, DMA mappings one page each, and the change-over of a large BAR.
//! Everything is a ratio to work of the same kind in this run: its median, and between what the middle half lies.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::File;
use std::hint::black_box;

use rustix::fs::SealFlags;
use tests::host::Host;
use tests::rig::Rig;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

mod change_over;
mod dma;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../tests/vfio_user_support/mod.rs"]
mod vfio_user_support;

use support::{Spread, by_turns, row};

const PAGE: u64 = 4096;

fn map(file: File, bytes: u64) -> MmapRegion {
    MmapRegion::from_file(FileOffset::new(file, 0), bytes as usize).unwrap()
}

/// All of a page, in reads of four bytes, 200 times.
fn read(region: &MmapRegion) {
    let slice = region.as_volatile_slice();
    for _ in 0..200 {
        for offset in (0..PAGE as usize).step_by(4) {
            black_box(slice.read_obj::<u32>(offset).unwrap());
        }
    }
}

/// A shared page, exported and mapped, against a page of our own.
fn mapped_read() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    let export = host.device.dma_buf(2, &[(0x8_0000, PAGE)]).unwrap();
    let ours = map(File::from(vfio_user_support::memfd(PAGE, SealFlags::empty())), PAGE);
    let theirs = map(File::from(export), PAGE);
    let [ours, theirs] = by_turns(400, [&mut || read(&ours), &mut || read(&theirs)]);
    row("mapped shared page, read / memory of our own", Spread::of_ratios(&theirs, &ours));
}

fn main() {
    mapped_read();
    dma::run();
    change_over::run();
}
