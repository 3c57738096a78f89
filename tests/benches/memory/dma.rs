//! DMA mappings of one page each, as behind a vIOMMU: what one costs when there are many, in time and memory, and one unmap for all.

use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;
use tdispd_proto::vfio_user::{Command, DmaMap, DmaUnmap};
use tests::rig::Rig;

use super::PAGE;
use super::support::{Spread, by_turns, row, seconds};
use super::vfio_user_support::{Client, memfd};

const MOST: u64 = 65_000;
/// Mapped and unmapped in one run.
const FEW: u64 = 50;

/// What a mapping comes with.
#[derive(Clone, Copy)]
enum Behind {
    /// A descriptor of a file that the device maps, once.
    Sealed,
    /// A descriptor of one that it reaches with system calls.
    Unsealed,
    /// No descriptor: DMA_READ and DMA_WRITE.
    Messages,
}

impl Behind {
    fn words(self) -> &'static str {
        match self {
            Self::Sealed => "of a sealed file",
            Self::Unsealed => "of a file that may shrink",
            Self::Messages => "behind messages",
        }
    }

    fn file(self) -> Option<OwnedFd> {
        match self {
            Self::Sealed => Some(memfd(MOST * PAGE, SealFlags::SHRINK)),
            Self::Unsealed => Some(memfd(MOST * PAGE, SealFlags::empty())),
            Self::Messages => None,
        }
    }
}

struct Mapper {
    client: Client,
    file: Option<OwnedFd>,
}

impl Mapper {
    fn new(rig: &Rig, function: usize, behind: Behind) -> Self {
        let mut client = Client::connect(rig.socket(function));
        client.request(Command::VERSION, &[0; 4]).unwrap();
        Self { client, file: behind.file() }
    }

    /// No two mappings adjoin.
    fn address(page: u64) -> u64 {
        page * 2 * PAGE
    }

    fn map(&mut self, page: u64) {
        let (offset, address) = (page * PAGE, Self::address(page));
        let map = DmaMap { readable: true, writable: true, offset, address, size: PAGE };
        let fds: Vec<_> = self.file.iter().collect();
        self.client.request_with_fds(Command::DMA_MAP, &map.encode(), &fds).unwrap();
    }

    fn unmap(&mut self, unmap: DmaUnmap) {
        self.client.request(Command::DMA_UNMAP, &unmap.encode()).unwrap();
    }

    /// [`FEW`] pages, mapped and unmapped one by one.
    fn few(&mut self, first: u64) {
        for page in first..first + FEW {
            self.map(page);
        }
        for page in first..first + FEW {
            self.unmap(DmaUnmap::Range { address: Self::address(page), size: PAGE });
        }
    }
}

/// Anonymous memory of this process, in which the device is, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Mappings of this process, of which the kernel allows 65,530.
fn kernel_mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Beside a table of the same server that is empty.
fn grow(behind: Behind) {
    let rig = Rig::with("", 2);
    let (mut large, mut empty) = (Mapper::new(&rig, 0, behind), Mapper::new(&rig, 1, behind));
    let (resident_before, mappings_before) = (resident(), kernel_mappings());
    let mut mapped = 0;
    for (size, rounds) in [(1_000, 100), (8_000, 100), (MOST, 100)] {
        (mapped..size - FEW).for_each(|page| large.map(page));
        mapped = size - FEW;
        let [theirs, ours] = by_turns(rounds, [&mut || large.few(mapped), &mut || empty.few(0)]);
        let words = behind.words();
        row(
            &format!("a DMA map and unmap {words} beside {size} others / beside none"),
            Spread::of_ratios(&theirs, &ours),
        );
    }
    (mapped..MOST).for_each(|page| large.map(page));
    let grown = resident().saturating_sub(resident_before);
    let new_mappings = kernel_mappings().saturating_sub(mappings_before);
    let [ours] = by_turns(100, [&mut || empty.few(0)]);
    let pair = Spread::of(ours).median / FEW as f64;
    let all = seconds(|| large.unmap(DmaUnmap::All));
    (0..MOST).for_each(|page| large.map(page));
    let range = DmaUnmap::Range { address: 0, size: Mapper::address(MOST) };
    let covering = seconds(|| large.unmap(range));
    println!(
        "{MOST} DMA maps {}: {} bytes each, {new_mappings} mappings of the process; unmapping all of them at once / a map and unmap: {:.0}, \
         by a range: {:.0}",
        behind.words(),
        grown / MOST,
        all / pair,
        covering / pair
    );
}

pub(super) fn run() {
    for behind in [Behind::Sealed, Behind::Unsealed, Behind::Messages] {
        grow(behind);
    }
}
