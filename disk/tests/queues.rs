//! Rings: notifications, what makes no sense in them, the gate, and what an earlier process left behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod driver;

use std::sync::{Arc, Mutex};

use disk::{Gate, GateState, Ledger, Progress, RingError, Runner};
use driver::*;
use virtio_queue::QueueT;

const SIZE: u64 = 1 << 20;

fn flush(driver: &mut Driver) -> (u16, u64) {
    let (header, status) = (driver.header(FLUSH, 0), driver.status());
    (driver.offer(&[(header, 16, false), (status, 1, true)]), status)
}

#[test]
fn all_that_waits_is_done_at_once_and_signalled_once() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let heads: Vec<u16> = (0..10).map(|_| flush(&mut driver).0).collect();
    let progress = driver.run();
    assert_eq!(progress, Progress { taken: 10, completed: 10, signal: true, ..Progress::default() });
    assert_eq!(driver.used().iter().map(|used| used.0).collect::<Vec<_>>(), heads);
    assert_eq!(driver.run(), Progress::default());
}

#[test]
fn a_call_does_no_more_than_it_was_told() {
    let mut driver = Driver::new(memory_disk(SIZE));
    for _ in 0..5 {
        flush(&mut driver);
    }
    let step = |driver: &mut Driver| driver.step(2).unwrap();
    for (taken, more) in [(2, true), (2, true), (1, false)] {
        let progress = step(&mut driver);
        assert_eq!((progress.taken, progress.more), (taken, more));
    }
}

#[test]
fn the_driver_hears_what_it_wants_to_hear() {
    // By flag.
    let mut driver = Driver::new(memory_disk(SIZE));
    driver.set_flags(1);
    flush(&mut driver);
    assert!(!driver.run().signal);
    driver.set_flags(0);
    flush(&mut driver);
    assert!(driver.run().signal);
    // By index: only when the used index passes the event.
    let mut driver = Driver::new(memory_disk(SIZE));
    driver.queue.set_event_idx(true);
    driver.set_used_event(2);
    let mut signals = Vec::new();
    for _ in 0..5 {
        flush(&mut driver);
        signals.push(driver.run().signal);
    }
    assert_eq!(signals, [false, false, true, false, false]);
    driver.set_used_event(6);
    for _ in 0..4 {
        flush(&mut driver);
    }
    assert!(driver.run().signal, "passed in the middle of a batch");
}

#[test]
fn a_notification_is_asked_for_only_by_who_will_wait_for_it() {
    let mut driver = Driver::new(memory_disk(SIZE));
    driver.queue.set_event_idx(true);
    for _ in 0..3 {
        flush(&mut driver);
    }
    driver.quietly().unwrap();
    assert_eq!(driver.avail_event(), 0);
    assert!(!driver.waiting());
    flush(&mut driver);
    assert!(driver.waiting());
    driver.run();
    assert_eq!(driver.avail_event(), 4);
}

#[test]
fn rings_that_make_no_sense_are_reported() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let run = |driver: &mut Driver| driver.step(64);
    driver.set_available(QUEUE_SIZE + 1);
    assert_eq!(run(&mut driver), Err(RingError::Index(QUEUE_SIZE + 1, QUEUE_SIZE)));
    driver.set_available(0);
    driver.offer_head(QUEUE_SIZE);
    assert_eq!(run(&mut driver), Err(RingError::Descriptor(QUEUE_SIZE, QUEUE_SIZE)));

    let mut driver = Driver::new(memory_disk(SIZE));
    driver.queue.set_ready(false);
    assert_eq!(run(&mut driver), Err(RingError::NotReady));
    for set in [0, 1, 2] {
        let mut driver = Driver::new(memory_disk(SIZE));
        flush(&mut driver);
        let nowhere = vm_memory::GuestAddress(MEMORY);
        match set {
            0 => driver.queue.try_set_avail_ring_address(nowhere).unwrap(),
            1 => driver.queue.try_set_used_ring_address(nowhere).unwrap(),
            // The table: each chain is then empty, which is the driver's own loss.
            _ => driver.queue.try_set_desc_table_address(nowhere).unwrap(),
        }
        let result = run(&mut driver);
        if set == 2 {
            assert_eq!(result.map(|progress| progress.completed), Ok(1));
        } else {
            assert_eq!(result, Err(RingError::Memory), "{set}");
        }
    }
}

#[test]
fn a_closed_gate_keeps_everything_out_of_memory() {
    let mut driver = Driver::new(memory_disk(SIZE));
    driver.queue.set_event_idx(true);
    driver.gate.set(GateState::Hold);
    let (_, status) = flush(&mut driver);
    let before = driver.get(0, MEMORY as usize);
    let progress = driver.run();
    assert_eq!(progress, Progress { held: true, ..Progress::default() });
    assert!(!driver.waiting());
    assert!(driver.get(0, MEMORY as usize) == before, "not a byte of memory was written");
    driver.gate.set(GateState::Fail);
    assert_eq!(driver.run().completed, 1);
    assert_eq!(driver.get(status, 1), [IOERR]);
    driver.gate.set(GateState::Open);
    let (_, status) = flush(&mut driver);
    driver.run();
    assert_eq!((driver.get(status, 1), driver.gate.outstanding()), (vec![OK], 0));
}

/// A record that can be looked at.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(&'static str, u16)>>>);

impl Ledger for Notes {
    fn taken(&mut self, head: u16) {
        self.0.lock().unwrap().push(("taken", head));
    }
    fn completing(&mut self, head: u16) {
        self.0.lock().unwrap().push(("completing", head));
    }
    fn completed(&mut self, head: u16, used: u16) {
        self.0.lock().unwrap().extend([("completed", head), ("used", used)]);
    }
}

#[test]
fn what_is_taken_and_put_back_is_recorded_in_order() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let notes = Notes::default();
    driver.runner.set_ledger(Some(Box::new(notes.clone())));
    let (head, _) = flush(&mut driver);
    driver.run();
    let expected = [("taken", head), ("completing", head), ("completed", head), ("used", 1)];
    assert_eq!(*notes.0.lock().unwrap(), expected);
}

#[test]
fn requests_that_an_earlier_process_took_are_carried_out_from_their_descriptors() {
    let mut driver = Driver::new(memory_disk(SIZE));
    let write = |driver: &mut Driver, sector: u64, indirect: bool| {
        let (header, data, status) = (driver.header(OUT, sector), driver.buffer(512), driver.status());
        driver.put(data, &[sector as u8; 512]);
        let pieces = [(header, 16, false), (data, 512, false), (status, 1, true)];
        (if indirect { driver.offer_indirect(&pieces) } else { driver.offer(&pieces) }, status)
    };
    let (first, first_status) = write(&mut driver, 1, false);
    let (second, second_status) = write(&mut driver, 2, true);
    // The earlier process took both: they are not available any more.
    driver.queue.set_next_avail(2);
    let signal = driver.resume(&[second, first]).unwrap();
    assert!(signal);
    assert_eq!(driver.used(), [(second, 1), (first, 1)]);
    for status in [first_status, second_status] {
        assert_eq!(driver.get(status, 1), [OK]);
    }
    for sector in [1, 2] {
        assert_eq!(driver.receive(IN, sector, 512).1, [sector as u8; 512]);
    }
    let wrong = driver.resume(&[QUEUE_SIZE]);
    assert_eq!(wrong, Err(RingError::Descriptor(QUEUE_SIZE, QUEUE_SIZE)));
    assert_eq!(driver.resume(&[]), Ok(false));
}

/// A queue on a file past the page cache, worked on concurrently; `None` where this machine has no such thing.
fn concurrent() -> Option<(tempfile::TempDir, Driver)> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = file_disk_if_direct(&directory.path().join("disk"))?;
    let gate = Arc::new(Gate::default());
    let runner = Runner::concurrent(disk, Arc::clone(&gate)).ok()?;
    Some((directory, Driver::with(runner, gate)))
}

fn file_disk_if_direct(path: &std::path::Path) -> Option<Arc<disk::Disk>> {
    use disk::{Backing, BackingOptions, Disk, Geometry, OpenError};
    let options = BackingOptions {
        path: Some(path.into()),
        size: Some(SIZE),
        direct: true,
        ..BackingOptions::default()
    };
    let backing = match Backing::open(&options) {
        Err(OpenError::Direct(_)) => return None,
        opened => opened.unwrap(),
    };
    let disk = Disk::new(backing, Geometry { block_size: 4096, ..Geometry::default() }).unwrap();
    disk.negotiate(features() & !(1 << 11));
    Some(Arc::new(disk))
}

#[test]
fn requests_that_are_at_work_go_out_through_a_closed_gate_and_nothing_comes_in() {
    let Some((_directory, mut driver)) = concurrent() else { return };
    let write = |driver: &mut Driver, sector: u64| {
        let (header, at, status) = (driver.header(OUT, sector), driver.buffer(8192), driver.status());
        let at = (at | 4095) + 1;
        driver.put(at, &[sector as u8 + 1; 4096]);
        driver.offer(&[(header, 16, false), (at, 4096, false), (status, 1, true)]);
        status
    };
    let inside: Vec<u64> = (0..4).map(|n| write(&mut driver, n * 8)).collect();
    let mut completed = driver.run().completed;
    driver.gate.set(GateState::Hold);
    let outside = write(&mut driver, 100);
    while driver.gate.outstanding() > 0 {
        let progress = driver.run();
        assert!(progress.held && progress.taken == 0);
        completed += progress.completed;
        std::thread::yield_now();
    }
    assert_eq!(completed, 4);
    for status in inside {
        assert_eq!(driver.get(status, 1), [OK]);
    }
    assert_eq!(driver.get(outside, 1), [UNTOUCHED]);
    driver.gate.set(GateState::Open);
    driver.finish();
    assert_eq!(driver.get(outside, 1), [OK]);
}

#[test]
fn a_descriptor_that_is_offered_again_and_again_takes_no_more_than_its_share() {
    let Some((_directory, mut driver)) = concurrent() else { return };
    let (header, at, status) = (driver.header(IN, 0), driver.buffer(8192), driver.status());
    let at = (at | 4095) + 1;
    let head = driver.offer(&[(header, 16, false), (at, 4096, true), (status, 1, true)]);
    let mut completed = 0;
    for _ in 0..20 {
        for _ in 0..QUEUE_SIZE / 2 {
            driver.offer_head(head);
        }
        let progress = driver.run();
        completed += progress.completed;
        assert!(progress.outstanding <= QUEUE_SIZE.into());
        driver.drain().unwrap();
    }
    assert!(completed <= 20 * usize::from(QUEUE_SIZE));
    assert_eq!(driver.runner.outstanding(), 0);
}
