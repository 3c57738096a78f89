//! Random requests against a disk, and against an array of bytes that says what has to come of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod driver;

use std::sync::Arc;

use disk::{Disk, Gate, Runner};
use driver::*;
use proptest::prelude::*;

const SIZE: usize = 64 * 512;

#[derive(Clone, Debug)]
enum Request {
    Read { sector: u64, sectors: u32 },
    Write { sector: u64, data: Vec<u8> },
    Zeroes { sector: u64, sectors: u32, unmap: bool },
    Flush,
}

/// A request, where its data is cut, and whether it goes through an indirect table.
type Sent = (Request, Vec<u32>, bool);

fn request() -> impl Strategy<Value = Request> {
    // Some are beyond the end.
    let place = (0u64..66, 1u32..12);
    prop_oneof![
        place.clone().prop_map(|(sector, sectors)| Request::Read { sector, sectors }),
        (place.clone(), any::<u8>()).prop_map(|((sector, sectors), seed)| {
            let data = (0..sectors * 512).map(|n| (n as u8) ^ (n >> 9) as u8 ^ seed).collect();
            Request::Write { sector, data }
        }),
        (place, any::<bool>()).prop_map(|((sector, sectors), unmap)| Request::Zeroes {
            sector,
            sectors,
            unmap
        }),
        Just(Request::Flush),
    ]
}

fn batches() -> impl Strategy<Value = Vec<Vec<Sent>>> {
    let sent = (request(), prop::collection::vec(1u32..3000, 0..5), any::<bool>());
    prop::collection::vec(prop::collection::vec(sent, 1..5), 1..12)
}

/// `length` bytes at `at`, cut into descriptors.
fn cut(at: u64, length: u32, cuts: &[u32], write: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut done = 0;
    for cut in cuts {
        let now = (*cut).min(length - done);
        pieces.push((at + u64::from(done), now, write));
        done += now;
    }
    pieces.push((at + u64::from(done), length - done, write));
    pieces
}

fn inside(sector: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
    let start = sector as usize * 512;
    (start + bytes <= SIZE).then_some(start..start + bytes)
}

/// A sector of a request, for telling which of a batch touch each other.
fn extent(request: &Request) -> std::ops::Range<u64> {
    match request {
        Request::Read { sector, sectors } | Request::Zeroes { sector, sectors, .. } => {
            *sector..sector + u64::from(*sectors)
        }
        Request::Write { sector, data } => *sector..sector + data.len() as u64 / 512,
        Request::Flush => 0..0,
    }
}

/// Requests of a batch may be done in any order, so the ones that touch the same sectors are left out.
fn apart(batch: &[Sent]) -> Vec<&Sent> {
    let mut kept: Vec<&Sent> = Vec::new();
    for sent in batch {
        let this = extent(&sent.0);
        let touches = |other: &&Sent| {
            let other = extent(&other.0);
            this.start < other.end && other.start < this.end
        };
        if !kept.iter().any(touches) {
            kept.push(sent);
        }
    }
    kept
}

fn play(driver: &mut Driver, batches: &[Vec<Sent>]) {
    let mut model = vec![0u8; SIZE];
    for batch in batches {
        let mut expected = Vec::new();
        for (request, cuts, indirect) in apart(batch) {
            let status = driver.status();
            let header = match request {
                Request::Read { sector, .. } => driver.header(IN, *sector),
                Request::Write { sector, .. } => driver.header(OUT, *sector),
                Request::Zeroes { .. } => driver.header(WRITE_ZEROES, 0),
                Request::Flush => driver.header(FLUSH, 0),
            };
            let mut pieces = cut(header, 16, &cuts.iter().map(|cut| cut % 16).collect::<Vec<_>>(), false);
            let mut reads = None;
            let good = match request {
                Request::Read { sector, sectors } => {
                    let at = driver.buffer(u64::from(*sectors) * 512);
                    driver.put(at, &vec![0xEE; *sectors as usize * 512]);
                    pieces.extend(cut(at, sectors * 512, cuts, true));
                    let place = inside(*sector, *sectors as usize * 512);
                    reads = place.clone().map(|place| (at, model[place].to_vec()));
                    place.is_some()
                }
                Request::Write { sector, data } => {
                    let at = driver.buffer(data.len() as u64);
                    driver.put(at, data);
                    pieces.extend(cut(at, data.len() as u32, cuts, false));
                    let place = inside(*sector, data.len());
                    if let Some(place) = place.clone() {
                        model[place].copy_from_slice(data);
                    }
                    place.is_some()
                }
                Request::Zeroes { sector, sectors, unmap } => {
                    let at = driver.buffer(16);
                    let range =
                        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &u32::from(*unmap).to_le_bytes()];
                    driver.put(at, &range.concat());
                    pieces.extend(cut(at, 16, &cuts.iter().map(|cut| cut % 16).collect::<Vec<_>>(), false));
                    let place = inside(*sector, *sectors as usize * 512);
                    if let Some(place) = place.clone() {
                        model[place].fill(0);
                    }
                    place.is_some()
                }
                Request::Flush => true,
            };
            pieces.push((status, 1, true));
            let head = if *indirect { driver.offer_indirect(&pieces) } else { driver.offer(&pieces) };
            expected.push((head, status, if good { OK } else { IOERR }, reads));
        }
        driver.finish();
        let mut used: Vec<u16> = driver.used().iter().map(|used| used.0).collect();
        used.sort_unstable();
        let mut heads: Vec<u16> = expected.iter().map(|sent| sent.0).collect();
        heads.sort_unstable();
        assert_eq!(used, heads);
        for (_, status, wanted, reads) in expected {
            assert_eq!(driver.get(status, 1), [wanted]);
            if let Some((at, data)) = reads {
                assert!(driver.get(at, data.len()) == data, "what was read is not what was written");
            }
        }
    }
    let mut all = vec![0; SIZE];
    driver.disk().backing().read(0, &mut all).unwrap();
    assert!(all == model, "the disk is not what was written");
}

fn on(disk: Arc<Disk>, concurrent: bool) -> Option<Driver> {
    let gate = Arc::new(Gate::default());
    let runner = if concurrent {
        Runner::concurrent(disk, Arc::clone(&gate)).ok()?
    } else {
        Runner::new(disk, Arc::clone(&gate))
    };
    Some(Driver::with(runner, gate))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_in_memory_is_an_array_of_bytes(batches in batches()) {
        play(&mut Driver::new(memory_disk(SIZE as u64)), &batches);
    }

    #[test]
    fn a_file_is_an_array_of_bytes(batches in batches(), through: bool) {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = file_disk(&directory.path().join("disk"), SIZE as u64, false);
        if through {
            // Without FLUSH, each write goes through to the file, by way of the kernel's queue.
            disk.negotiate(features() & !(1 << 9 | 1 << 11));
        }
        if let Some(mut driver) = on(disk, true) {
            play(&mut driver, &batches);
        }
    }
}
