//! What memory costs: a mapped page against memory of our own, DMA mappings one page each, and the change-over of a large BAR.
//! Everything is a ratio to the same work without a device, or to itself at another size, measured in this run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::File;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use tdispd_proto::vfio_user::{Command, DmaMap, DmaUnmap};
use tests::host::Host;
use tests::rig::Rig;
use vfio_user_support::Client;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

#[path = "../tests/vfio_user_support/mod.rs"]
mod vfio_user_support;

const PAGE: u64 = 4096;
const MAPS: u64 = 65_000;
const GIB: u64 = 1 << 30;

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn memfd(bytes: u64) -> File {
    let fd = memfd_create("bench", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    File::from(fd)
}

fn map(file: File, bytes: u64) -> MmapRegion {
    MmapRegion::from_file(FileOffset::new(file, 0), bytes as usize).unwrap()
}

/// Reads of four bytes, one after the other.
fn read(region: &MmapRegion) {
    let slice = region.as_volatile_slice();
    for offset in (0..PAGE as usize).step_by(4) {
        black_box(slice.read_obj::<u32>(offset).unwrap());
    }
}

/// A shared page, exported and mapped, against a page of our own; run by turns, so that whatever else the machine does meets both.
fn mapped_read() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    let export = host.device.dma_buf(2, &[(0x8_0000, PAGE)]).unwrap();
    let (ours, theirs) = (map(memfd(PAGE), PAGE), map(File::from(export), PAGE));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..400 {
        for (region, times) in [&ours, &theirs].into_iter().zip(&mut times) {
            times.push(seconds(|| (0..200).for_each(|_| read(region))));
        }
    }
    let [ours, theirs] = times.map(median);
    println!("mapped shared page / memory of our own: {:.3}", theirs / ours);
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE
}

/// Each mapping a page, as behind a vIOMMU, of one file or of memory behind messages; then one unmap for all.
fn dma_maps(with_file: bool) {
    const STEP: u64 = 5_000;
    let rig = Rig::new();
    let mut client = Client::connect(rig.socket(0));
    client.request(Command::VERSION, &[0; 4]).unwrap();
    let file = OwnedFd::from(memfd(MAPS * PAGE));
    let before = resident();
    let mut steps = Vec::new();
    for first in (0..MAPS).step_by(STEP as usize) {
        steps.push(seconds(|| {
            for page in first..first + STEP {
                let map = DmaMap {
                    readable: true,
                    writable: true,
                    offset: page * PAGE,
                    // No two of them adjoin.
                    address: page * 2 * PAGE,
                    size: PAGE,
                };
                let fds: &[_] = if with_file { &[&file] } else { &[] };
                client.request_with_fds(Command::DMA_MAP, &map.encode(), fds).unwrap();
            }
        }));
    }
    let grown = resident().saturating_sub(before);
    let unmap = DmaUnmap::Range { address: 0, size: MAPS * 2 * PAGE };
    let all = seconds(|| drop(client.request(Command::DMA_UNMAP, &unmap.encode()).unwrap()));
    let total: f64 = steps.iter().sum();
    println!(
        "{MAPS} DMA maps of a page {}: the last {STEP} / the first {STEP}: {:.2}; {} bytes each; one unmap of all / one map: {:.0}",
        if with_file { "of a file" } else { "behind messages" },
        steps[steps.len() - 1] / steps[0],
        grown / MAPS,
        all / (total / MAPS as f64)
    );
}

/// Private memory of one GiB goes from the host to nobody, to the TVM and back.
fn change_over(written: bool, exported: bool, policy: &str) {
    let toml = format!(
        "[mmio]\ntee = \"region\"\nrevoke = \"{policy}\"\n[[function]]\nmsix = false\n[[function.bar]]\nindex = 0\nwidth = 64\n\
         [[function.bar.range]]\nkind = \"memory\"\nsize = \"1G\"\nside = \"private\"\n"
    );
    let rig = Rig::with(&toml, 1);
    let mut host = Host::plug(rig.socket(0));
    let fill = |host: &mut Host, region: u32| {
        let file = File::from(host.device.dma_buf(region, &[(0, GIB)]).unwrap());
        if written {
            write_all(&file);
        }
        file
    };
    host.session();
    host.secure_stream();
    let shared = fill(&mut host, 0);
    let shared = exported.then_some(shared);
    let mut nonce = None;
    let lock = seconds(|| nonce = Some(host.lock(0)));
    let start = seconds(|| host.start(0, nonce.take().unwrap()));
    let private = fill(&mut host, 9);
    let private = exported.then_some(private);
    let stop = seconds(|| host.stop(0));
    drop((shared, private));
    let (memset, punch) = bare();
    println!(
        "1 GiB {}, {}, {policy}: LOCK / punching a hole of 1 GiB: {:.2}; START: {:.4}; STOP: {:.2} (writing 1 GiB: {:.2})",
        if written { "written" } else { "untouched" },
        if exported { "exports held" } else { "no exports" },
        lock / punch,
        start / punch,
        stop / punch,
        memset / punch
    );
}

fn write_all(file: &File) {
    use std::os::unix::fs::FileExt;
    let chunk = vec![0x5A; 1 << 20];
    for offset in (0..GIB).step_by(chunk.len()) {
        file.write_all_at(&chunk, offset).unwrap();
    }
}

/// Writing a GiB of a memfd, and giving it back.
fn bare() -> (f64, f64) {
    let file = memfd(GIB);
    let memset = seconds(|| write_all(&file));
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punch = seconds(|| fallocate(&file, flags, 0, GIB).unwrap());
    (memset, punch)
}

fn main() {
    mapped_read();
    for with_file in [true, false] {
        dma_maps(with_file);
    }
    for (written, exported, policy) in [
        (false, false, "orphan"),
        (true, false, "orphan"),
        (true, true, "orphan"),
        (true, true, "sigbus"),
        (true, true, "keep"),
    ] {
        change_over(written, exported, policy);
    }
}
