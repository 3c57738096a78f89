//! Requests as virtio 1.2 §5.2.6 has them, and as it does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod driver;

use std::os::unix::fs::MetadataExt;

use disk::{Backing, BackingOptions, Disk, Geometry};
use driver::*;

const SIZE: u64 = 1 << 20;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed) ^ (n >> 8) as u8).collect()
}

fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn what_is_written_is_read_however_it_is_spread_over_descriptors() {
    let mut driver = Driver::new(memory_disk(SIZE));
    // Header, data and status in any legal split: the header in two, data in pieces of odd sizes, the status with data.
    for (n, cut) in [1, 5, 8, 15, 16].into_iter().enumerate() {
        let data = pattern(1536, n as u8);
        let (header, at, status) = (driver.header(OUT, 7), driver.buffer(1536), driver.status());
        driver.put(at, &data);
        let mut pieces = vec![(header, cut, false)];
        if cut < 16 {
            // The rest of the header, and the first bytes of data behind it in the same descriptor.
            let joined = driver.buffer(16 + 100);
            let rest = driver.get(header + u64::from(cut), (16 - cut) as usize);
            driver.put(joined, &[&rest[..], &data[..100]].concat());
            pieces.push((joined, 16 - cut + 100, false));
        } else {
            pieces.push((at, 100, false));
        }
        pieces.extend([(at + 100, 1, false), (at + 101, 0, false), (at + 101, 1435, false)]);
        pieces.push((status, 1, true));
        driver.offer_indirect(&pieces);
        driver.finish();
        assert_eq!(driver.used().last().unwrap().1, 1);
        assert_eq!(driver.get(status, 1), [OK], "cut {cut}");

        // The status byte directly behind the data, in one descriptor.
        let (header, at) = (driver.header(IN, 7), driver.buffer(1537));
        driver.offer(&[(header, 16, false), (at, 700, true), (at + 700, 837, true)]);
        driver.finish();
        assert_eq!(driver.used().last().unwrap().1, 1537);
        assert_eq!(driver.get(at, 1537), [&data[..], &[OK]].concat());
    }
}

#[test]
fn a_request_that_is_not_on_the_disk_fails_and_touches_nothing() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let last = SIZE / 512 - 1;
    assert_eq!(driver.send(OUT, last, &[1; 512]), OK);
    for sector in [last + 1, last + 2, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
        assert_eq!(driver.send(OUT, sector, &[2; 512]), IOERR, "{sector}");
        let (status, data) = driver.receive(IN, sector, 512);
        assert_eq!((status, data), (IOERR, vec![0; 512]), "{sector}");
    }
    assert_eq!(driver.send(OUT, last, &[2; 1024]), IOERR);
    assert_eq!(driver.send(OUT, 0, &[2; 511]), IOERR);
    assert_eq!(driver.receive(IN, 0, 513).0, IOERR);
    assert_eq!(driver.receive(IN, last, 512), (OK, vec![1; 512]));
    assert_eq!(driver.receive(IN, 0, 512), (OK, vec![0; 512]));
    assert_eq!(driver.disk().backing().refresh().unwrap(), SIZE);
}

#[test]
fn unknown_types_and_features_nobody_accepted_are_unsupported() {
    let mut driver = Driver::new(memory_disk(SIZE));
    for kind in [2, 3, 5, 7, 10, 14, 15, 24, 0x8000_0000, u32::MAX] {
        assert_eq!(driver.send(kind, 0, &[]), UNSUPP, "{kind}");
        assert_eq!(driver.send(kind, 0, &[0; 512]), UNSUPP, "{kind}");
    }
    driver.disk().negotiate(0);
    assert_eq!(driver.send(DISCARD, 0, &range(0, 1, 0)), UNSUPP);
    assert_eq!(driver.send(WRITE_ZEROES, 0, &range(0, 1, 0)), UNSUPP);
    assert_eq!(driver.send(FLUSH, 0, &[]), OK);
}

#[test]
fn the_serial_number_is_20_bytes_or_what_there_is_room_for() {
    let geometry = Geometry { serial: "tdispd-0123456789".into(), ..Geometry::default() };
    let disk = Disk::new(Backing::memory(SIZE, false).unwrap(), geometry).unwrap();
    let mut driver = Driver::new(disk.into());
    assert_eq!(driver.receive(GET_ID, 0, 20), (OK, b"tdispd-0123456789\0\0\0".to_vec()));
    assert_eq!(driver.receive(GET_ID, 99, 6), (OK, b"tdispd".to_vec()));
    let (status, id) = driver.receive(GET_ID, 0, 64);
    assert_eq!((status, &id[..17], &id[20..]), (OK, &b"tdispd-0123456789"[..], &[0; 44][..]));
}

#[test]
fn chains_that_make_no_sense_get_an_error_where_there_is_room_for_one() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let mut check = |pieces: &dyn Fn(&mut Driver, u64) -> Vec<Piece>, expected: u8, length: u32| {
        let status = driver.status();
        let pieces = pieces(&mut driver, status);
        driver.offer(&pieces);
        driver.finish();
        assert_eq!(driver.used().last().unwrap().1, length, "{pieces:x?}");
        assert_eq!(driver.get(status, 1), [expected], "{pieces:x?}");
    };
    // A header that is too short, or not in memory.
    check(&|driver, status| vec![(driver.header(IN, 0), 15, false), (status, 1, true)], IOERR, 1);
    check(&|_, status| vec![(status, 1, true)], IOERR, 1);
    check(&|_, status| vec![(MEMORY - 8, 16, false), (status, 1, true)], IOERR, 1);
    check(&|_, status| vec![(u64::MAX - 8, 16, false), (status, 1, true)], IOERR, 1);
    // What the device reads behind what it writes.
    check(&|driver, status| vec![(status, 1, true), (driver.header(OUT, 0), 16, false)], IOERR, 1);
    // Data in the wrong direction.
    let wrong = |kind| {
        move |driver: &mut Driver, status| {
            let (header, data) = (driver.header(kind, 0), driver.buffer(512));
            vec![(header, 16, false), (data, 512, kind != IN), (status, 1, true)]
        }
    };
    check(&wrong(OUT), IOERR, 513);
    check(&wrong(FLUSH), IOERR, 513);
    check(&wrong(IN), IOERR, 1);
    // Data that is not in memory, or only half of it.
    for at in [MEMORY, MEMORY - 512, u64::MAX - 511] {
        let data = move |driver: &mut Driver, status| {
            vec![(driver.header(OUT, 0), 16, false), (at, 1024, false), (status, 1, true)]
        };
        check(&data, IOERR, 1);
    }
    // No room for a status at all: used with length 0, and the next one is served.
    type Pieces = fn(&mut Driver) -> Vec<Piece>;
    let nowhere: [Pieces; 3] = [
        |driver| vec![(driver.header(FLUSH, 0), 16, false)],
        |driver| vec![(driver.header(FLUSH, 0), 16, false), (BUFFERS, 0, true)],
        |driver| vec![(driver.header(FLUSH, 0), 16, false), (MEMORY, 1, true)],
    ];
    for pieces in nowhere {
        let pieces = pieces(&mut driver);
        driver.offer(&pieces);
        driver.finish();
        assert_eq!(driver.used().last().unwrap().1, 0, "{pieces:x?}");
    }
    assert_eq!(driver.send(FLUSH, 0, &[]), OK);
}

#[test]
fn chains_without_an_end_end() {
    const NEXT: u16 = 1;
    let mut driver = Driver::new(memory_disk(SIZE));
    let (header, status) = (driver.header(FLUSH, 0), driver.status());
    let mut check = |descriptors: &[Descriptor]| {
        for (n, descriptor) in descriptors.iter().enumerate() {
            driver.in_table(n as u16, *descriptor);
        }
        driver.offer_head(0);
        driver.finish();
        driver.used().last().unwrap().1
    };
    // In a circle, to itself, to nowhere; with a status in it and without.
    assert_eq!(check(&[(header, 16, NEXT, 0)]), 0);
    assert_eq!(
        check(&[(header, 16, NEXT, 1), (status, 1, NEXT | 2, 0)]),
        32,
        "every time round it counts as room"
    );
    assert_eq!(check(&[(header, 16, NEXT, QUEUE_SIZE)]), 0);
    assert_eq!(check(&[(header, 16, NEXT, 1), (status, 1, 3, 9999)]), 1);
    // Indirect tables: of no length, of half a descriptor, within themselves, outside of memory.
    for (at, length) in [(header, 0), (header, 17), (MEMORY, 32), (u64::MAX, 32)] {
        assert_eq!(check(&[(at, length, 4, 0)]), 0);
    }
    let table = 0x1000;
    assert_eq!(check(&[(table, 16, 4, 0)]), 0, "the table is itself");
    assert_eq!(driver.get(status, 1), [IOERR]);
}

#[test]
fn more_data_than_a_request_may_have_is_refused() {
    let mut driver = Driver::new(memory_disk(1 << 30));
    // 63 times the same 3 MiB: more than seg_max times size_max, as one request.
    let (header, status) = (driver.header(OUT, 0), driver.status());
    let mut pieces = vec![(header, 16, false)];
    pieces.extend([(BUFFERS, 3 << 20, false); 45]);
    pieces.push((status, 1, true));
    driver.offer(&pieces);
    driver.finish();
    assert_eq!(driver.get(status, 1), [IOERR]);
    let status = driver.status();
    let mut pieces = vec![(driver.header(OUT, 0), 16, false)];
    pieces.extend([(BUFFERS, 3 << 20, false); 40]);
    pieces.push((status, 1, true));
    driver.offer(&pieces);
    driver.finish();
    assert_eq!(driver.get(status, 1), [OK]);
}

#[test]
fn a_read_only_disk_is_only_read() {
    let disk = Disk::new(Backing::memory(SIZE, true).unwrap(), Geometry::default()).unwrap();
    disk.negotiate(u64::MAX);
    let mut driver = Driver::new(disk.into());
    assert_eq!(driver.send(OUT, 0, &[1; 512]), IOERR);
    assert_eq!(driver.send(OUT, 0, &[]), IOERR);
    assert_eq!(driver.send(WRITE_ZEROES, 0, &range(0, 1, 0)), UNSUPP);
    assert_eq!(driver.send(DISCARD, 0, &range(0, 1, 0)), UNSUPP);
    assert_eq!(driver.send(FLUSH, 0, &[]), OK);
    assert_eq!(driver.receive(IN, 0, 512), (OK, vec![0; 512]));
}

#[test]
fn discard_gives_space_back_and_zeroes_are_zeroes() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("disk");
    let mut driver = Driver::new(file_disk(&path, SIZE, false));
    let blocks = || std::fs::metadata(&path).unwrap().blocks();
    assert_eq!(blocks(), 0, "a file that was made takes no space");
    let full = vec![7; 128 << 10];
    for part in 0..8 {
        assert_eq!(driver.send(OUT, part * 256, &full), OK);
    }
    let all = blocks();
    assert!(all >= SIZE / 512);
    assert_eq!(driver.send(DISCARD, 0, &range(0, 512, 0)), OK);
    assert!(blocks() <= all - 512);
    // Several segments; zeroes with and without unmap.
    let segments = [range(512, 8, 1), range(600, 3, 0), range(1000, 0, 0)].concat();
    assert_eq!(driver.send(WRITE_ZEROES, 0, &segments), OK);
    for (sector, count) in [(512, 8), (600, 3)] {
        assert_eq!(driver.receive(IN, sector, count * 512), (OK, vec![0; count as usize * 512]));
    }
    assert_eq!(driver.receive(IN, 520, 512), (OK, vec![7; 512]));
    assert_eq!(driver.receive(IN, 603, 512), (OK, vec![7; 512]));
    // All segments are checked before the first is done.
    let last = SIZE / 512;
    for (data, expected) in [
        ([range(700, 1, 0), range(last, 1, 0)].concat(), IOERR),
        ([range(700, 1, 0), range(u64::MAX, 1, 0)].concat(), IOERR),
        ([range(700, 1, 0), range(0, u32::MAX, 0)].concat(), IOERR),
        ([range(700, 1, 0), range(0, 1, 2)].concat(), UNSUPP),
        (vec![0; 15], IOERR),
        (vec![0; 16 * 17], IOERR),
        (vec![], IOERR),
    ] {
        assert_eq!(driver.send(WRITE_ZEROES, 0, &data), expected, "{data:?}");
    }
    assert_eq!(driver.send(DISCARD, 0, &range(0, 1, 1)), UNSUPP, "a discard has no unmap flag");
    assert_eq!(driver.receive(IN, 700, 512), (OK, vec![7; 512]));
}

#[test]
fn direct_io_takes_guest_memory_that_is_not_aligned() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = BackingOptions {
        path: Some(directory.path().join("disk")),
        size: Some(SIZE),
        direct: true,
        ..BackingOptions::default()
    };
    let Ok(backing) = Backing::open(&options) else {
        // A file system that has none says so; there is nothing to test then.
        assert!(matches!(Backing::open(&options), Err(disk::OpenError::Direct(_))));
        return;
    };
    let need = backing.direct().unwrap();
    assert!(need.memory.is_power_of_two() && need.file.is_power_of_two());
    let disk = Disk::new(backing, Geometry { block_size: 4096, ..Geometry::default() }).unwrap();
    disk.negotiate(features());
    let mut driver = Driver::new(disk.into());
    let data = pattern(16384, 3);
    let (header, at, status) = (driver.header(OUT, 8), driver.buffer(20000), driver.status());
    let odd = (at | 7) + 4;
    driver.put(odd, &data);
    driver.offer(&[(header, 16, false), (odd, 5, false), (odd + 5, 16379, false), (status, 1, true)]);
    driver.finish();
    assert_eq!(driver.get(status, 1), [OK]);
    driver.used();
    let (header, status) = (driver.header(IN, 8), driver.status());
    let at = driver.buffer(20000);
    let odd = (at | 7) + 2;
    driver.offer(&[(header, 16, false), (odd, 9999, true), (odd + 9999, 6385, true), (status, 1, true)]);
    driver.finish();
    assert_eq!((driver.get(odd, 16384), driver.get(status, 1)), (data, vec![OK]));
}

#[test]
fn a_file_that_grows_is_a_larger_disk_and_one_that_shrinks_fails_requests() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE + 700).unwrap();
    let options = BackingOptions { path: Some(file.path().into()), ..BackingOptions::default() };
    let disk = Disk::new(Backing::open(&options).unwrap(), Geometry::default()).unwrap();
    disk.negotiate(features());
    let mut driver = Driver::new(disk.into());
    let disk = driver.disk();
    assert_eq!(disk.size(), SIZE + 512, "whole sectors");
    assert!(!disk.refresh().unwrap());
    file.as_file().set_len(2 * SIZE).unwrap();
    let last = 2 * SIZE / 512 - 1;
    assert_eq!(driver.receive(IN, last, 512).0, IOERR);
    assert!(disk.refresh().unwrap());
    let mut capacity = [0; 8];
    disk.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 2 * SIZE / 512);
    assert_eq!(driver.receive(IN, last, 512).0, OK);
    // Shrunk, and nobody has noticed yet.
    file.as_file().set_len(SIZE).unwrap();
    assert_eq!(driver.receive(IN, last, 512).0, IOERR);
    assert!(disk.refresh().unwrap());
    assert_eq!(driver.send(OUT, last, &[1; 512]), IOERR);
    assert_eq!(file.as_file().metadata().unwrap().len(), SIZE, "a write does not make the file longer");
}

#[test]
fn the_cache_is_written_through_unless_the_driver_can_flush() {
    const WCE: u64 = 1 << 11;
    const FLUSH_BIT: u64 = 1 << 9;
    let disk = memory_disk(SIZE);
    let writeback = |disk: &Disk| {
        let mut byte = [0];
        disk.read_config(32, &mut byte);
        byte[0]
    };
    for (accepted, through) in [(0, true), (FLUSH_BIT, false), (WCE, false), (FLUSH_BIT | WCE, false)] {
        disk.reset();
        disk.negotiate(accepted);
        assert_eq!(disk.write_through(), through, "{accepted:#x}");
        disk.write_config(32, &[0]).unwrap();
        assert_eq!(disk.write_through(), through || accepted & WCE != 0, "{accepted:#x}");
        if accepted & WCE != 0 {
            assert_eq!(writeback(&disk), 0);
            // In the middle of a longer write, and beside it.
            disk.write_config(30, &[0, 0, 1, 0]).unwrap();
            assert_eq!((disk.write_through(), writeback(&disk)), (false, 1));
            disk.write_config(33, &[0]).unwrap();
            disk.write_config(0, &[0; 8]).unwrap();
            disk.write_config(usize::MAX, &[0]).unwrap();
            assert!(!disk.write_through());
        }
    }
    disk.reset();
    assert_eq!(writeback(&disk), 1);
    let mut all = [0xFF; 80];
    disk.read_config(40, &mut all);
    assert_eq!(all[20..], [0; 60], "zeroes beyond the end");
    disk.read_config(usize::MAX, &mut all);
    assert_eq!(all, [0; 80]);
}
