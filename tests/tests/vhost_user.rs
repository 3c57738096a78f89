//! The vhost-user server as its clients see it, good ones and bad ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use disk::{Backing, BackingOptions, Disk, Geometry};
use rustix::fs::MemfdFlags;
use tdispd::config::ClientMemory;
use tdispd::vfio_user::Listener;
use tdispd::vhost_user::{Settings, VhostUser};
use tests::ring::{FLUSH, IN, IOERR, MEMORY, OK, OUT, QUEUE_SIZE, UNTOUCHED};
use tests::vhost_client::{Client, USER, hello, memory, region, try_hello, vring, wait};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

const SIZE: u64 = 1 << 20;
const QUEUES: u16 = 3;

/// A server in this process.
struct Serving {
    directory: tempfile::TempDir,
    disk: Arc<Disk>,
    server: Option<VhostUser>,
    settings: Settings,
}

impl Serving {
    /// A disk in memory.
    fn new() -> Self {
        Self::with(|_| Backing::memory(SIZE, false).unwrap(), Duration::ZERO)
    }

    fn with(backing: impl FnOnce(&Path) -> Backing, poll: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let geometry = Geometry { queues: QUEUES, serial: "serial".into(), ..Geometry::default() };
        let disk = Arc::new(Disk::new(backing(directory.path()), geometry).unwrap());
        let settings = Settings { client_memory: ClientMemory::Sealed, poll };
        let mut serving = Self { directory, disk, server: None, settings };
        serving.start();
        serving
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn start(&mut self) {
        let listener = Listener::bind(&self.path()).unwrap();
        self.server = Some(VhostUser::start(listener, Arc::clone(&self.disk), self.settings).unwrap());
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(&self.path(), QUEUES.into());
        client.start(0);
        client
    }
}

#[test]
fn every_queue_reaches_the_same_disk() {
    for poll in [Duration::ZERO, Duration::from_micros(200)] {
        let serving = Serving::with(|_| Backing::memory(SIZE, false).unwrap(), poll);
        let mut client = serving.client();
        for n in 0..3u8 {
            assert_eq!(client.write(n.into(), u64::from(n) * 9, &[n + 1; 1024]), OK);
        }
        for n in 0..3u8 {
            let other = usize::from(n + 1) % 3;
            assert_eq!(client.read(other, u64::from(n) * 9, 1024), (OK, vec![n + 1; 1024]));
        }
        assert_eq!(client.read(0, SIZE / 512, 512).0, IOERR);
    }
}

#[test]
fn a_batch_on_every_queue_at_once_is_done() {
    let serving = Serving::with(
        |directory| {
            let path = Some(directory.join("image"));
            Backing::open(&BackingOptions { path, size: Some(SIZE), ..BackingOptions::default() }).unwrap()
        },
        Duration::ZERO,
    );
    // Without FLUSH and CONFIG_WCE every write goes to the file at once, by way of the kernel's queue.
    let mut client = Client::connect_with(&serving.path(), QUEUES.into(), !(1 << 9 | 1 << 11));
    client.start(0);
    let mut statuses = Vec::new();
    for round in 0..8u64 {
        for n in 0..3usize {
            let ring = &mut client.queues[n].ring;
            for place in 0..16 {
                let sector = n as u64 * 500 + round * 40 + place * 2;
                let (header, at, status) = (ring.header(OUT, sector), ring.buffer(1024), ring.status());
                ring.put(at, &[sector as u8; 1024]);
                ring.offer(&[(header, 16, false), (at, 1024, false), (status, 1, true)]);
                statuses.push((n, status));
            }
        }
        for n in 0..3 {
            assert_eq!(client.finish(n, 16).len(), 16);
        }
    }
    for (n, status) in statuses {
        assert_eq!(client.queues[n].ring.get(status, 1), [OK]);
    }
    let mut sector = [0; 512];
    for at in [0, 500, 1000 + 7 * 40 + 31] {
        serving.disk.backing().read(at * 512, &mut sector).unwrap();
        assert_eq!(sector, [(at & !1) as u8; 512], "{at}");
    }
}

#[test]
fn configuration_space_is_the_disks() {
    let serving = Serving::new();
    let mut client = serving.client();
    let mut get = |offset, length: usize| {
        let flags = VhostUserConfigFlags::empty();
        client.frontend.get_config(offset, length as u32, flags, &vec![0; length]).map(|(_, bytes)| bytes)
    };
    assert_eq!(get(0, 8).unwrap(), (SIZE / 512).to_le_bytes());
    assert_eq!(get(34, 2).unwrap(), QUEUES.to_le_bytes());
    assert_eq!(get(56, 40).unwrap().len(), 40);
    assert_eq!(get(32, 1).unwrap(), [1]);
    client.frontend.set_config(32, VhostUserConfigFlags::WRITABLE, &[0]).unwrap();
    assert!(serving.disk.write_through());
}

#[test]
fn a_client_hears_that_the_disk_grew() {
    let serving = Serving::with(
        |directory| {
            let path = directory.join("image");
            File::create(&path).unwrap().set_len(SIZE).unwrap();
            Backing::open(&BackingOptions { path: Some(path), ..BackingOptions::default() }).unwrap()
        },
        Duration::ZERO,
    );
    let mut client = serving.client();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client.frontend.set_backend_request_fd(&theirs).unwrap();
    drop(theirs);
    File::options()
        .write(true)
        .open(serving.directory.path().join("image"))
        .unwrap()
        .set_len(2 * SIZE)
        .unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut message = [0; 12];
    ours.read_exact(&mut message).unwrap();
    // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1, no payload.
    let words: Vec<u32> = message.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    assert_eq!(words, [2, 1, 0]);
    assert_eq!(client.read(0, 2 * SIZE / 512 - 1, 512), (OK, vec![0; 512]));
}

#[test]
fn a_second_client_is_sent_away_and_the_first_goes_on() {
    let serving = Serving::new();
    let mut client = serving.client();
    assert_eq!(client.write(0, 1, &[7; 512]), OK);
    assert!(try_hello(&serving.path(), 1).is_none());
    assert_eq!(client.read(1, 1, 512), (OK, vec![7; 512]));
    drop(client);
    let mut next = serving.client();
    assert_eq!(next.read(2, 1, 512), (OK, vec![7; 512]));
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_room_for_the_next() {
    let serving = Serving::new();
    for _ in 0..5 {
        let mut client = serving.client();
        for n in 0..3 {
            let ring = &mut client.queues[n].ring;
            for _ in 0..16 {
                let (header, at, status) = (ring.header(IN, 0), ring.buffer(65536), ring.status());
                ring.offer(&[(header, 16, false), (at, 65536, true), (status, 1, true)]);
            }
            client.queues[n].kick.write(1).unwrap();
        }
        // Without its half of the ring, memory and sockets go together.
    }
    // And in the middle of a message.
    let mut stream = connect(&serving);
    stream.write_all(&[1, 0, 0]).unwrap();
    drop(stream);
    assert_eq!(serving.client().write(0, 0, &[1; 512]), OK);
}

/// A connection that the server does not close at once.
fn connect(serving: &Serving) -> UnixStream {
    // Whoever was there before may not be quite gone.
    drop(hello(&serving.path(), 1));
    std::thread::sleep(Duration::from_millis(20));
    UnixStream::connect(serving.path()).unwrap()
}

#[test]
fn a_ring_that_was_stopped_goes_on_where_it_was() {
    let serving = Serving::new();
    let mut client = serving.client();
    for n in 0..5 {
        assert_eq!(client.write(0, n, &[n as u8; 512]), OK);
    }
    assert_eq!(client.frontend.get_vring_base(0).unwrap(), 5);
    // Stopped, it serves nothing.
    let ring = &mut client.queues[0].ring;
    let (header, status) = (ring.header(FLUSH, 0), ring.status());
    ring.offer(&[(header, 16, false), (status, 1, true)]);
    client.queues[0].kick.write(1).unwrap();
    assert!(!wait(&client.queues[0].call));
    assert_eq!(client.queues[0].ring.get(status, 1), [UNTOUCHED]);
    client.start_queue(0, 5);
    client.finish(0, 1);
    assert_eq!(client.queues[0].ring.get(status, 1), [OK]);
    // Disabled, too.
    client.frontend.set_vring_enable(0, false).unwrap();
    let ring = &mut client.queues[0].ring;
    let (header, status) = (ring.header(FLUSH, 0), ring.status());
    ring.offer(&[(header, 16, false), (status, 1, true)]);
    client.queues[0].kick.write(1).unwrap();
    assert!(!wait(&client.queues[0].call));
    client.frontend.set_vring_enable(0, true).unwrap();
    client.finish(0, 1);
    assert_eq!(client.queues[0].ring.get(status, 1), [OK]);
}

#[test]
fn what_a_server_left_in_flight_is_carried_out_by_the_next() {
    let mut serving = Serving::new();
    let mut client = Client::connect(&serving.path(), QUEUES.into());
    let wanted = VhostUserInflight::new(0, 0, QUEUES, QUEUE_SIZE);
    let (region_of, kept) = client.frontend.get_inflight_fd(&wanted).unwrap();
    client.start(0);
    assert_eq!(client.write(1, 0, &[1; 512]), OK);
    // Two requests that the server took, and died: taken from the ring of queue 1, the second one first.
    let mut offered = Vec::new();
    for sector in [10u64, 11] {
        let ring = &mut client.queues[1].ring;
        let (header, at, status) = (ring.header(OUT, sector), ring.buffer(512), ring.status());
        ring.put(at, &[sector as u8; 512]);
        let head = ring.offer(&[(header, 16, false), (at, 512, false), (status, 1, true)]);
        offered.push((head, status));
    }
    drop(client.frontend);
    serving.server = None;
    let stride = region_of.mmap_size / u64::from(QUEUES);
    for (counter, (head, _)) in [2u64, 1].into_iter().zip(&offered) {
        // `DescStateSplit`: inflight, padding, next, counter.
        let state = stride + 16 + u64::from(*head) * 16;
        kept.write_all_at(&[1], region_of.mmap_offset + state).unwrap();
        kept.write_all_at(&counter.to_le_bytes(), region_of.mmap_offset + state + 8).unwrap();
    }
    serving.start();

    let mut frontend = hello(&serving.path(), QUEUES.into());
    frontend.set_features(client.features).unwrap();
    frontend.set_mem_table(&[region(&client.file, QUEUES.into())]).unwrap();
    frontend.set_inflight_fd(&region_of, kept.as_raw_fd()).unwrap();
    client.frontend = frontend;
    // The base is older than the record: what counts is the record.
    client.start_queue(1, 1);
    assert_eq!(client.finish(1, 2), [(offered[1].0, 1), (offered[0].0, 1)]);
    for (_, status) in &offered {
        assert_eq!(client.queues[1].ring.get(*status, 1), [OK]);
    }
    for sector in [10u64, 11] {
        assert_eq!(client.read(1, sector, 512), (OK, vec![sector as u8; 512]));
    }
}

#[test]
fn memory_that_comes_and_goes_is_followed() {
    let serving = Serving::new();
    let mut client = serving.client();
    let (extra, file) = memory(1, MemfdFlags::ALLOW_SEALING);
    let more =
        VhostUserMemoryRegionInfo { guest_phys_addr: 1 << 40, userspace_addr: USER * 2, ..region(&file, 1) };
    let read = |client: &mut Client| {
        let ring = &mut client.queues[0].ring;
        let (header, status) = (ring.header(IN, 0), ring.status());
        ring.offer(&[(header, 16, false), (1 << 40, 512, true), (status, 1, true)]);
        client.finish(0, 1);
        client.queues[0].ring.get(status, 1)[0]
    };
    assert_eq!(read(&mut client), IOERR);
    client.frontend.add_mem_region(&more).unwrap();
    vm_memory::Bytes::write_slice(&*extra, &[9; 512], vm_memory::GuestAddress(0)).unwrap();
    assert_eq!(read(&mut client), OK);
    let mut bytes = [9; 512];
    vm_memory::Bytes::read_slice(&*extra, &mut bytes, vm_memory::GuestAddress(0)).unwrap();
    assert_eq!(bytes, [0; 512]);
    client.frontend.remove_mem_region(&more).unwrap();
    assert_eq!(read(&mut client), IOERR);
    assert!(client.frontend.remove_mem_region(&more).is_err());
}

#[test]
fn a_ring_that_makes_no_sense_is_reported_and_mended_by_a_new_start() {
    let serving = Serving::new();
    let mut client = serving.client();
    client.queues[0].ring.set_available(QUEUE_SIZE + 7);
    client.queues[0].kick.write(1).unwrap();
    let error = client.queues[0].error.try_clone().unwrap();
    assert!((0..1000).any(|_| wait(&error)), "the error descriptor is not signalled");
    assert_eq!(client.write(1, 0, &[1; 512]), OK, "other queues go on");
    client.frontend.get_vring_base(0).unwrap();
    client.queues[0].ring.set_available(0);
    client.start_queue(0, 0);
    assert_eq!(client.write(0, 0, &[1; 512]), OK);
}

#[test]
fn what_a_client_gets_wrong_is_refused_and_the_next_one_is_served() {
    type Wrong = fn(&mut Client) -> bool;
    let wrongs: &[(&str, Wrong)] = &[
        ("features that were not offered", |client| client.frontend.set_features(1 << 60).is_err()),
        ("a queue of no size", |client| client.frontend.set_vring_num(0, 0).is_err()),
        ("a size that is no power of two", |client| client.frontend.set_vring_num(0, 100).is_err()),
        ("a size beyond the largest", |client| client.frontend.set_vring_num(0, 2048).is_err()),
        ("memory that can be truncated", |client| {
            let (_, file) = memory(1, MemfdFlags::empty());
            client.frontend.set_mem_table(&[region(&file, 1)]).is_err()
        }),
        ("memory longer than its file", |client| {
            let (_, file) = memory(1, MemfdFlags::ALLOW_SEALING);
            client.frontend.set_mem_table(&[region(&file, 2)]).is_err()
        }),
        ("memory in a device", |client| {
            let file = File::open("/dev/zero").unwrap();
            client.frontend.set_mem_table(&[region(&file, 1)]).is_err()
        }),
        ("regions that overlap", |client| {
            let (_, file) = memory(1, MemfdFlags::ALLOW_SEALING);
            client.frontend.set_mem_table(&[region(&file, 1), region(&file, 1)]).is_err()
        }),
        ("a ring that is nowhere", |client| {
            let nowhere = VringConfigData { desc_table_addr: 16, ..vring(&client.queues[0].ring) };
            client.frontend.set_vring_addr(0, &nowhere).is_err()
        }),
        ("a ring that is not aligned", |client| {
            let at = vring(&client.queues[0].ring);
            let crooked = VringConfigData { desc_table_addr: at.desc_table_addr + 1, ..at };
            let set = client.frontend.set_vring_addr(0, &crooked);
            set.and_then(|()| client.frontend.set_vring_kick(0, &client.queues[0].kick)).is_err()
        }),
        ("a ring at the end of memory", |client| {
            let at = vring(&client.queues[0].ring);
            let last = USER + MEMORY * u64::from(QUEUES) - 16;
            let set = client.frontend.set_vring_addr(0, &VringConfigData { desc_table_addr: last, ..at });
            set.and_then(|()| client.frontend.set_vring_kick(0, &client.queues[0].kick)).is_err()
        }),
        ("a ring that was never described", |client| {
            client.frontend.set_vring_kick(1, &client.queues[1].kick).is_err()
        }),
        ("in-flight tracking of more queues than there are", |client| {
            client.frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, QUEUES + 1, 64)).is_err()
        }),
        ("an in-flight record that is too short", |client| {
            let (_, file) = memory(1, MemfdFlags::ALLOW_SEALING);
            let claimed = VhostUserInflight::new(64, 0, QUEUES, 64);
            client.frontend.set_inflight_fd(&claimed, file.as_raw_fd()).is_err()
        }),
    ];
    let serving = Serving::new();
    for (what, wrong) in wrongs {
        let mut client = Client::connect(&serving.path(), QUEUES.into());
        assert!(wrong(&mut client), "{what}");
    }
    assert_eq!(serving.client().write(0, 0, &[1; 512]), OK);
}

#[test]
fn bytes_that_are_no_messages_end_the_connection_only() {
    let serving = Serving::new();
    let header = |request: u32, flags: u32, size: u32| {
        [request.to_ne_bytes(), flags.to_ne_bytes(), size.to_ne_bytes()].concat()
    };
    for bytes in [
        vec![0xFF; 64],
        vec![0; 64],
        // Sizes: longer than any message, longer than what comes, shorter than it should be.
        header(8, 1, u32::MAX),
        header(8, 1, 4096),
        [header(8, 1, 4), vec![1; 4]].concat(),
        // A table of more regions than fit, a configuration that is too long, an unknown request, a reply.
        [header(5, 1, 8), vec![0xFF; 8]].concat(),
        [header(24, 1, 12), vec![0xFF; 12]].concat(),
        header(9999, 1, 0),
        header(1, 5, 0),
        // The channel back, without its descriptor.
        header(21, 1, 0),
    ] {
        let mut stream = connect(&serving);
        stream.write_all(&bytes).unwrap();
        // Our half is closed: whatever it waits for does not come.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        assert!(
            end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
            "{bytes:x?}"
        );
    }
    assert_eq!(serving.client().write(0, 0, &[1; 512]), OK);
}
