//! What a client has of the server beside answers: descriptors, interrupts, its memory. Over a real socket, with clients that
//! answer badly, do not read, say nothing, or leave at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vfio_user_support;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::SealFlags;
use tdispd::vfio_user::{BindError, Listener};
use tdispd_proto::vfio_user::{
    Command, DmaMap, DmaUnmap, IrqAction, IrqData, IrqKind, MAX_DMA_MAPS, MessageType, RegionAccess,
    RegionInfoReply, put_reply, put_request,
};
use vfio_user_support::{
    Client, Host, MSIX_VECTORS, header, memfd, new_eventfd, reg, set_irqs, signals, words,
};
use zerocopy::IntoBytes;

const EEXIST: u32 = 17;
const ENOSPC: u32 = 28;

fn map(address: u64, size: u64) -> DmaMap {
    DmaMap { readable: true, writable: true, offset: 0, address, size }
}

fn unmap(address: u64, size: u64) -> Vec<u8> {
    DmaUnmap::Range { address, size }.encode()
}

#[test]
fn region_info_follows_argsz() {
    let host = Host::start();
    let mut client = host.client();
    let ask = |client: &mut Client, argsz, index| {
        let payload = words(&[argsz, 0, index, 0, 0, 0, 0, 0]);
        let reply = client.request_with_fds(Command::DEVICE_GET_REGION_INFO, &payload, &[]).unwrap();
        (RegionInfoReply::parse(&reply.payload).unwrap(), reply.payload.len(), reply.fds.len())
    };
    let (plain, length, fds) = ask(&mut client, 40, 0);
    assert_eq!((plain.info.argsz.get(), plain.info.flags.get(), length, fds), (32, 3, 32, 0));
    let (short, length, fds) = ask(&mut client, 32, 1);
    assert_eq!((short.info.argsz.get(), short.info.flags.get(), length, fds), (80, 7, 32, 1));
    let (whole, length, fds) = ask(&mut client, 80, 1);
    assert_eq!((whole.areas.len(), whole.info.flags.get(), length, fds), (2, 15, 80, 1));
    assert_eq!(whole.info.offset.get(), 0x8000);
    let (none, _, _) = ask(&mut client, 32, 8);
    assert_eq!((none.info.size.get(), none.info.flags.get()), (0, 0));
    // Pipelined, each descriptor comes with its own reply.
    let mut bytes = Vec::new();
    for (id, index) in [(1, 1u32), (2, 0), (3, 1)] {
        put_request(
            &mut bytes,
            id,
            Command::DEVICE_GET_REGION_INFO,
            false,
            &[&words(&[80, 0, index, 0, 0, 0, 0, 0])],
        );
    }
    client.send(&bytes, &[]);
    let counts: Vec<_> = (0..3).map(|_| client.receive().unwrap().fds.len()).collect();
    assert_eq!(counts, [1, 0, 1]);
}

#[test]
fn no_part_of_a_region_has_a_descriptor() {
    let host = Host::start();
    let mut client = host.client();
    for region in [0, 1] {
        let ask = words(&[512, 0, region, 0]);
        let reply = client.request_with_fds(Command::DEVICE_GET_REGION_IO_FDS, &ask, &[]).unwrap();
        assert_eq!((reply.payload, reply.fds.len()), (words(&[16, 0, region, 0]), 0));
    }
}

#[test]
fn only_the_pin_says_that_it_can_be_masked() {
    let host = Host::start();
    let mut client = host.client();
    for (index, flags) in [(0, 7), (1, 1), (2, 1), (3, 1), (4, 1)] {
        let reply = client.request(Command::DEVICE_GET_IRQ_INFO, &words(&[32, 0, index, 0])).unwrap();
        assert_eq!(reply[..12], words(&[16, flags, index]), "{index}");
    }
}

#[test]
fn interrupts_come_through_and_survive_churn() {
    let host = Host::start();
    let mut client = host.client();
    let info = client.request(Command::DEVICE_GET_IRQ_INFO, &words(&[16, 0, 0, 0])).unwrap();
    assert_eq!(info, words(&[16, 7, 0, 1]), "eventfd, maskable, automasked");
    let arm = |client: &mut Client, kind, start, fds: &[&OwnedFd]| {
        let payload = set_irqs(kind, IrqAction::Trigger, IrqData::Eventfd, start, fds.len() as u32);
        client.request_with_fds(Command::DEVICE_SET_IRQS, &payload, fds).unwrap();
    };
    let fds: Vec<_> = (0..MSIX_VECTORS).map(|_| new_eventfd()).collect();
    for vectors in 1..=fds.len() {
        for first in (0..vectors).step_by(16) {
            let part: Vec<_> = fds[first..vectors.min(first + 16)].iter().collect();
            arm(&mut client, IrqKind::Msix, first as u32, &part);
        }
        let last = vectors as u32 - 1;
        client.write(0, reg::VECTOR, &last.to_le_bytes()).unwrap();
        assert_eq!(signals(&fds[last as usize]), 1);
        let disarm = set_irqs(IrqKind::Msix, IrqAction::Trigger, IrqData::None, 0, 0);
        client.request(Command::DEVICE_SET_IRQS, &disarm).unwrap();
    }
    let pin = new_eventfd();
    arm(&mut client, IrqKind::Intx, 0, &[&pin]);
    client.write(0, reg::LEVEL, &words(&[1])).unwrap();
    assert_eq!(signals(&pin), 1);
    let resample = new_eventfd();
    let unmask = set_irqs(IrqKind::Intx, IrqAction::Unmask, IrqData::Eventfd, 0, 1);
    client.request_with_fds(Command::DEVICE_SET_IRQS, &unmask, &[&resample]).unwrap();
    for _ in 0..3 {
        rustix::io::write(&resample, &1u64.to_ne_bytes()).unwrap();
        assert_eq!(signals(&pin), 1, "still asserted after the acknowledgement");
    }
    let unmask = set_irqs(IrqKind::Intx, IrqAction::Unmask, IrqData::None, 0, 1);
    client.request(Command::DEVICE_SET_IRQS, &unmask).unwrap();
    assert_eq!(signals(&pin), 1);
}

#[test]
fn a_storm_of_mappings_from_one_file() {
    let host = Host::start();
    let mut client = host.client();
    let memory = memfd(0x10_0000, SealFlags::SHRINK);
    let total = MAX_DMA_MAPS as u64 + 1;
    for batch in 0..total.div_ceil(64) {
        let range = batch * 64..total.min(batch * 64 + 64);
        for page in range.clone() {
            let map = DmaMap { offset: (page % 256) << 12, ..map(page << 12, 0x1000) };
            client.command(Command::DMA_MAP, &map.encode(), &[&memory], false);
        }
        for page in range {
            let errno = client.receive().unwrap().header.failure();
            assert_eq!(errno, (page == total - 1).then_some(ENOSPC), "{page}");
        }
    }
    rustix::io::pwrite(&memory, b"page 255", 0xF_F000).unwrap();
    client.write(0, reg::ADDRESS, &(0xFFu64 << 12).to_le_bytes()).unwrap();
    client.write(0, reg::READ, &words(&[8])).unwrap();
    assert_eq!(client.read(0, reg::DATA, 8).unwrap(), b"page 255");

    assert_eq!(client.request(Command::DMA_MAP, &map(0xFFFF, 1).encode()), Err(EEXIST));
    // What an IOMMU's invalidation sends: a range up to 2^64, one with nothing in it, one with everything.
    for (address, size) in [(0xFEF0_0000, 0xFFFF_FFFF_0110_0000), (1 << 40, 1 << 40), (0, 1 << 30)] {
        let payload = unmap(address, size);
        assert_eq!(client.request(Command::DMA_UNMAP, &payload), Ok(payload));
    }
    client.write(0, reg::READ, &words(&[8])).unwrap();
    assert_eq!(client.read(0, reg::STATUS, 4), Ok(words(&[2])));
    assert_eq!(client.request(Command::DMA_UNMAP, &DmaUnmap::All.encode()), Ok(DmaUnmap::All.encode()));
}

#[test]
fn pipelined_mappings_keep_their_descriptors() {
    let host = Host::start();
    let mut client = host.client();
    let memory = memfd(0x1000, SealFlags::SHRINK);
    rustix::io::pwrite(&memory, b"ram", 0).unwrap();
    // As QEMU does: ROM without, RAM with a descriptor, without waiting.
    client.command(
        Command::DMA_MAP,
        &DmaMap { writable: false, ..map(0xC_0000, 0x1000) }.encode(),
        &[],
        false,
    );
    client.command(Command::DMA_MAP, &map(0, 0x1000).encode(), &[&memory], false);
    client.command(Command::DMA_MAP, &map(0x1_0000, 0x1000).encode(), &[], false);
    for _ in 0..3 {
        assert_eq!(client.receive().unwrap().header.failure(), None);
    }
    client.write(0, reg::READ, &words(&[3])).unwrap();
    assert_eq!(client.read(0, reg::DATA, 3).unwrap(), b"ram");
}

#[test]
fn dma_during_register_accesses_and_bad_answers() {
    type Reply = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, u32, Reply, u32); 6] = [
        ("honest", 0, |question| [question, &[0xEE; 16]].concat(), 1),
        ("refused", 0x20, |_| vec![], 2),
        ("empty", 0, |_| vec![], 2),
        ("short", 0, |question| [question, &[0xEE; 15]].concat(), 2),
        ("long", 0, |question| [question, &[0xEE; 17]].concat(), 2),
        ("elsewhere", 0, |_| [&[0xFF; 8][..], &16u64.to_le_bytes(), &[0; 16]].concat(), 2),
    ];
    let host = Host::start();
    for (name, error, reply, status) in cases {
        let mut client = host.client();
        client.request(Command::DMA_MAP, &map(0x1000, 0x1000).encode()).unwrap();
        client.write(0, reg::ADDRESS, &0x1000u64.to_le_bytes()).unwrap();
        client.write(0, reg::READ, &words(&[16])).unwrap();
        let question = client.receive().unwrap();
        assert_eq!(
            (question.header.command, question.header.message_type()),
            (Command::DMA_READ, MessageType::Command)
        );
        assert_eq!(question.payload, [0x1000u64.to_le_bytes(), 16u64.to_le_bytes()].concat());
        client.assert_alive("a register access before the answer");
        let mut answer = Vec::new();
        put_reply(&mut answer, &question.header, &[&reply(&question.payload)]);
        answer[8] |= error as u8;
        client.send(&answer, &[]);
        // The device learns of the end between two messages, not necessarily before the next.
        let ended =
            (0..100).find_map(|_| client.read(0, reg::STATUS, 4).ok().filter(|status| status != &[0; 4]));
        assert_eq!(ended, Some(words(&[status])), "{name}");
        client.send(&answer, &[]);
        client.assert_alive("the same answer again");
        drop(client);
        host.wait_for("disconnect", |events| events.connected == events.disconnected);
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let host = Host::start();
    let mut client = host.client();
    let mut request = Vec::new();
    put_request(
        &mut request,
        1,
        Command::REGION_READ,
        false,
        &[RegionAccess::new(2, 0, 0x1_0000).as_bytes()],
    );
    client.stream.set_nonblocking(true).unwrap();
    let (mut sent, mut quiet) = (0usize, 0);
    // Until nothing has gone out for a while: the server has stopped reading, with megabytes of replies owed.
    while quiet < 10 {
        let at = sent % request.len();
        match rustix::io::write(&client.stream, &request[at..]) {
            Ok(count) => (sent, quiet) = (sent + count, 0),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    assert!(sent / request.len() < 20_000, "the server took {sent} bytes without an end");
    // Closing the sending side is not leaving, while replies are owed.
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    host.connect().assert_closed("a second client, meanwhile");
    client.stream.set_nonblocking(false).unwrap();
    for _ in 0..sent / request.len() {
        assert_eq!(client.receive().unwrap().payload.len(), 16 + 0x1_0000);
    }
}

#[test]
fn a_second_client_is_refused_at_once_and_the_first_stays() {
    let host = Host::start();
    let mut first = host.client();
    let mut second = host.connect();
    second.assert_closed("second");
    first.assert_alive("first");
    drop(first);
    // The seat is free as soon as the first is gone, however fast the next one comes.
    for _ in 0..200 {
        let mut next = host.client();
        next.command(Command::DEVICE_RESET, &[], &[], false);
    }
    host.wait_for("all gone", |events| events.connected == 201 && events.disconnected == 201);
}

#[test]
fn a_client_that_never_negotiates_gives_way_to_one_that_wants_its_seat() {
    let host = Host::start();
    let mut silent = host.connect();
    silent.send(&header(1, 1, 64, 0), &[]);
    host.connect().assert_closed("it may still be about to speak");
    std::thread::sleep(Duration::from_millis(1200));
    let mut next = host.client();
    silent.assert_closed("silent");
    std::thread::sleep(Duration::from_millis(1200));
    host.connect().assert_closed("who has negotiated may be silent as long as it likes");
    next.assert_alive("next");
}

#[test]
fn an_unmask_descriptor_that_stays_readable_is_read_once_per_signal() {
    let host = Host::start();
    let mut client = host.client();
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
    let unmask = eventfd(0, flags).unwrap();
    let request = set_irqs(IrqKind::Intx, IrqAction::Unmask, IrqData::Eventfd, 0, 1);
    client.request_with_fds(Command::DEVICE_SET_IRQS, &request, &[&unmask]).unwrap();
    rustix::io::write(&unmask, &1000u64.to_ne_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    client.assert_alive("meanwhile");
    let left = (0..).take_while(|_| rustix::io::read(&unmask, &mut [0; 8]).is_ok()).count();
    assert_eq!(left, 999);
}

#[test]
fn whoever_leaves_at_any_moment_is_followed_by_the_next() {
    let host = Host::start();
    let memory = memfd(0x1000, SealFlags::SHRINK);
    let interrupt = new_eventfd();
    let mut whole = Vec::new();
    put_request(
        &mut whole,
        1,
        Command::REGION_WRITE,
        false,
        &[RegionAccess::new(0, 0, 4).as_bytes(), &[1; 4]],
    );
    for end in 0..=whole.len() {
        let mut client = host.client();
        client.request_with_fds(Command::DMA_MAP, &map(0, 0x1000).encode(), &[&memory]).unwrap();
        let arm = set_irqs(IrqKind::Msix, IrqAction::Trigger, IrqData::Eventfd, 0, 1);
        client.request_with_fds(Command::DEVICE_SET_IRQS, &arm, &[&interrupt]).unwrap();
        client.send(&whole[..end], &[]);
    }
    let mut last = host.client();
    last.assert_alive("last");
    last.request(Command::DMA_MAP, &map(0, 0x1000).encode()).unwrap();
    last.write(0, reg::VECTOR, &words(&[0])).unwrap();
    last.assert_alive("an interrupt of somebody gone");
    assert_eq!(rustix::io::read(&interrupt, &mut [0; 8]), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn socket_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
    drop(listener);
    assert!(!path.exists(), "removed at the end");

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    let listener = Listener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let successor = Listener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists(), "another server's file is left alone");
    drop(successor);
    assert!(matches!(Listener::bind(&directory.path().join("no/where")), Err(BindError::Io { .. })));
    assert!(matches!(Listener::bind(&directory.path().join("x".repeat(200))), Err(BindError::Io { .. })));
}
