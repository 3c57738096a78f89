//! A client that does everything wrong, over a real socket. After each offence the server must be in step, or have closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vfio_user_support;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::SealFlags;
use tdispd::vfio_user::{BindError, Listener};
use tdispd_proto::vfio_user::{
    Command, DmaMap, DmaUnmap, IrqAction, IrqData, IrqKind, IrqSet, MAX_DATA_XFER_SIZE, MAX_DMA_MAPS,
    MAX_MESSAGE_SIZE, MessageType, RegionAccess, RegionInfoReply, Version, WriteMulti, WriteMultiEntry,
    put_reply, put_request,
};
use vfio_user_support::{
    BAR0_SIZE, BAR2_SIZE, Client, Host, MSIX_VECTORS, REGIONS, memfd, new_eventfd, reg, signals,
};
use zerocopy::IntoBytes;

const EIO: u32 = 5;
const EEXIST: u32 = 17;
const ENODEV: u32 = 19;
const EINVAL: u32 = 22;
const ENOTTY: u32 = 25;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn map(address: u64, size: u64) -> DmaMap {
    DmaMap { readable: true, writable: true, offset: 0, address, size }
}

fn unmap(address: u64, size: u64) -> Vec<u8> {
    DmaUnmap::Range { address, size }.encode()
}

fn set_irqs(kind: IrqKind, action: IrqAction, data: IrqData<'_>, start: u32, count: u32) -> Vec<u8> {
    IrqSet { kind, action, data, start, count }.encode()
}

fn header(id: u16, command: u16, size: u32, flags: u32) -> Vec<u8> {
    let mut out = [id.to_le_bytes(), command.to_le_bytes()].concat();
    out.extend(words(&[size, flags, 0]));
    out
}

#[test]
fn negotiation_that_fails_is_answered_and_ends_the_connection() {
    let json = |text: &str| [&[0; 4], text.as_bytes(), b"\0"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing at all", vec![]),
        ("half a version", vec![0; 3]),
        ("wrong major", vec![0xE7, 3, 0, 0]),
        ("no NUL", b"\0\0\0\0{}".to_vec()),
        ("NUL alone", vec![0; 5]),
        ("open brace", json("{")),
        ("open quote", json("\"")),
        ("capabilities are text", json(r#"{"capabilities":"23"}"#)),
        ("too many descriptors", json(r#"{"capabilities":{"max_msg_fds":1025}}"#)),
        ("migration is text", json(r#"{"capabilities":{"migration":"23"}}"#)),
        ("page size is text", json(r#"{"capabilities":{"migration":{"pgsize":"foo"}}}"#)),
        ("max_msg_fds is text", json(r#"{"capabilities":{"max_msg_fds":"foo"}}"#)),
        ("max_msg_fds is negative", json(r#"{"capabilities":{"max_msg_fds":-1}}"#)),
        ("not UTF-8", [&[0; 4][..], b"{\"\xFF\":1}\0"].concat()),
    ];
    let host = Host::start();
    for (name, payload) in cases {
        let mut client = host.connect();
        assert_eq!(client.request(Command::VERSION, &payload), Err(EINVAL), "{name}");
        client.assert_closed(name);
    }
    for (name, code) in [("a real command first", 9), ("an unknown command first", 999), ("a reply first", 1)]
    {
        let mut client = host.connect();
        client.send(&header(1, code, 16, u32::from(code == 1)), &[]);
        assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL), "{name}");
        client.assert_closed(name);
    }
    let mut client = host.connect();
    client.send(&header(1, 1, MAX_MESSAGE_SIZE + 1, 0), &[]);
    assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL));
    client.assert_closed("an endless version");
    assert_eq!(host.events.lock().unwrap().connected, 0, "the device never heard of them");
    host.client().assert_alive("the next client");
}

#[test]
fn negotiation_that_works() {
    let host = Host::start();
    for text in [
        "",
        "{}\0",
        "{\"capabilities\":{}}\0",
        "{\"capabilities\":{\"max_msg_fds\":8,\"unknown\":{}},\"x\":1}\0",
    ] {
        let mut client = host.connect();
        let reply = client.request(Command::VERSION, &[&[0; 4], text.as_bytes()].concat()).unwrap();
        let version = Version::parse(&reply).unwrap();
        assert_eq!((version.major, version.minor), (0, 0));
        assert_eq!(version.capabilities.max_msg_fds, Some(16));
        assert_eq!(version.capabilities.max_data_xfer_size, Some(u64::from(MAX_DATA_XFER_SIZE)));
        assert_eq!(version.capabilities.max_dma_maps, Some(MAX_DMA_MAPS as u64));
        client.assert_alive(text);
        assert_eq!(client.request(Command::VERSION, &[0; 4]), Err(EINVAL), "twice");
        client.assert_alive("after the second");
    }
    let mut newer = host.connect();
    let reply = newer.request(Command::VERSION, &[0, 0, 9, 0]).unwrap();
    assert_eq!(Version::parse(&reply).unwrap().minor, 0);
}

/// A bad request that must be answered with an errno and leave the connection in step.
struct Offence {
    name: &'static str,
    command: Command,
    payload: Vec<u8>,
    fds: usize,
    errno: u32,
}

#[rustfmt::skip]
fn offences() -> Vec<Offence> {
    use Command as C;
    use IrqAction::*;
    let mut list = Vec::new();
    let mut add = |name, command, payload: Vec<u8>, fds, errno| list.push(Offence { name, command, payload, fds, errno });
    let access = |region, offset, count| RegionAccess::new(region, offset, count).as_bytes().to_vec();
    let irqs = |argsz: u32, flags: u32, index: u32, start: u32, count: u32| words(&[argsz, flags, index, start, count]);
    let info = |argsz: u32, index: u32| words(&[argsz, 0, index, 0, 0, 0, 0, 0]);

    add("unknown command", Command::new(999), vec![0], 0, EINVAL);
    add("command zero", Command::new(0), vec![], 0, EINVAL);
    add("a command of the server", C::DMA_READ, vec![0; 16], 0, EINVAL);
    add("io fds: short", C::DEVICE_GET_REGION_IO_FDS, words(&[16, 0, 0]), 0, EINVAL);
    add("io fds: argsz", C::DEVICE_GET_REGION_IO_FDS, words(&[15, 0, 0, 0]), 0, EINVAL);
    add("io fds: huge argsz", C::DEVICE_GET_REGION_IO_FDS, words(&[MAX_DATA_XFER_SIZE + 1, 0, 0, 0]), 0, EINVAL);
    add("io fds: flags", C::DEVICE_GET_REGION_IO_FDS, words(&[512, 1, 0, 0]), 0, EINVAL);
    add("io fds: count", C::DEVICE_GET_REGION_IO_FDS, words(&[512, 0, 0, 1]), 0, EINVAL);
    add("io fds: index", C::DEVICE_GET_REGION_IO_FDS, words(&[512, 0, 512, 0]), 0, EINVAL);
    add("io fds: no region", C::DEVICE_GET_REGION_IO_FDS, words(&[512, 0, 8, 0]), 0, EINVAL);
    add("migration data", C::MIG_DATA_READ, vec![0; 8], 0, ENOTSUP);

    add("device info: short", C::DEVICE_GET_INFO, words(&[16, 0]), 0, EINVAL);
    add("device info: argsz", C::DEVICE_GET_INFO, words(&[8, 0, 0, 0]), 0, EINVAL);
    add("region info: none", C::DEVICE_GET_REGION_INFO, vec![], 0, EINVAL);
    add("region info: short", C::DEVICE_GET_REGION_INFO, words(&[0, 0]), 0, EINVAL);
    add("region info: argsz", C::DEVICE_GET_REGION_INFO, info(8, 1), 0, EINVAL);
    add("region info: index", C::DEVICE_GET_REGION_INFO, info(32, REGIONS as u32), 0, EINVAL);
    add("irq info: short", C::DEVICE_GET_IRQ_INFO, words(&[16, 0]), 0, EINVAL);
    add("irq info: argsz", C::DEVICE_GET_IRQ_INFO, words(&[8, 0, 0, 0]), 0, EINVAL);
    add("irq info: index", C::DEVICE_GET_IRQ_INFO, words(&[16, 0, 5, 0]), 0, EINVAL);

    add("read: none", C::REGION_READ, vec![], 0, EINVAL);
    add("read: short", C::REGION_READ, vec![0; 15], 0, EINVAL);
    add("read: trailing", C::REGION_READ, vec![0; 17], 0, EINVAL);
    add("read: index", C::REGION_READ, access(REGIONS as u32, 0, 4), 0, EINVAL);
    add("read: huge", C::REGION_READ, access(2, 0, MAX_DATA_XFER_SIZE + 1), 0, EINVAL);
    add("read: 4 GiB", C::REGION_READ, access(2, 0, u32::MAX), 0, EINVAL);
    add("read: across the end", C::REGION_READ, access(0, BAR0_SIZE - 2, 4), 0, EINVAL);
    add("read: wraps", C::REGION_READ, access(0, u64::MAX - 1, 4), 0, EINVAL);
    add("read: empty region", C::REGION_READ, access(8, 0, 4), 0, EINVAL);
    add("read: the device fails", C::REGION_READ, access(0, reg::BROKEN, 4), 0, EIO);
    add("write: short", C::REGION_WRITE, vec![0; 15], 0, EINVAL);
    add("write: no data", C::REGION_WRITE, access(0, 0, 4), 0, EINVAL);
    add("write: more data", C::REGION_WRITE, [access(0, 0, 4), vec![0; 5]].concat(), 0, EINVAL);
    add("write: read-only", C::REGION_WRITE, [access(2, 0, 4), vec![0; 4]].concat(), 0, EINVAL);
    add("write: wraps", C::REGION_WRITE, [access(0, u64::MAX, 4), vec![0; 4]].concat(), 0, EINVAL);
    add("write: the device fails", C::REGION_WRITE, [access(0, reg::BROKEN, 4), vec![0; 4]].concat(), 0, EIO);
    add("multi: short", C::REGION_WRITE_MULTI, vec![0; 7], 0, EINVAL);
    add("multi: count", C::REGION_WRITE_MULTI, vec![1, 0, 0, 0, 0, 0, 0, 0], 0, EINVAL);
    add("multi: count wraps", C::REGION_WRITE_MULTI, vec![0xFF; 8], 0, EINVAL);

    add("set irqs: none", C::DEVICE_SET_IRQS, vec![], 0, EINVAL);
    add("set irqs: short", C::DEVICE_SET_IRQS, words(&[0, 0]), 0, EINVAL);
    add("set irqs: argsz", C::DEVICE_SET_IRQS, irqs(3, 0x21, 4, 0, 0), 0, EINVAL);
    add("set irqs: index", C::DEVICE_SET_IRQS, irqs(20, 0x21, 5, 0, 0), 0, EINVAL);
    add("set irqs: mask and unmask", C::DEVICE_SET_IRQS, irqs(20, 0x18, 2, 0, 0), 0, EINVAL);
    add("set irqs: two data types", C::DEVICE_SET_IRQS, irqs(20, 0x0B, 2, 0, 0), 0, EINVAL);
    add("set irqs: no flags", C::DEVICE_SET_IRQS, irqs(20, 0, 2, 0, 1), 0, EINVAL);
    add("set irqs: unknown flags", C::DEVICE_SET_IRQS, irqs(20, 0x61, 2, 0, 1), 0, EINVAL);
    add("set irqs: range", C::DEVICE_SET_IRQS, set_irqs(IrqKind::Msix, Trigger, IrqData::None, MSIX_VECTORS - 1, 2), 0, EINVAL);
    add("set irqs: start", C::DEVICE_SET_IRQS, set_irqs(IrqKind::Msix, Trigger, IrqData::None, MSIX_VECTORS + 1, 1), 0, EINVAL);
    add("set irqs: wraps", C::DEVICE_SET_IRQS, irqs(20, 0x21, 2, u32::MAX, 2), 0, EINVAL);
    add("set irqs: mask of ERR", C::DEVICE_SET_IRQS, set_irqs(IrqKind::Err, Mask, IrqData::None, 0, 1), 0, EINVAL);
    add("set irqs: range of REQ", C::DEVICE_SET_IRQS, set_irqs(IrqKind::Req, Trigger, IrqData::None, 0, 2), 0, EINVAL);
    add("set irqs: a type without any", C::DEVICE_SET_IRQS, set_irqs(IrqKind::Msi, Trigger, IrqData::None, 0, 1), 0, EINVAL);
    add("set irqs: start for none", C::DEVICE_SET_IRQS, irqs(20, 0x21, 2, 1, 0), 0, EINVAL);
    add("set irqs: mask none", C::DEVICE_SET_IRQS, irqs(20, 0x09, 2, 0, 0), 0, EINVAL);
    add("set irqs: booleans for none", C::DEVICE_SET_IRQS, irqs(20, 0x22, 2, 0, 0), 0, EINVAL);
    add("set irqs: too few booleans", C::DEVICE_SET_IRQS, [irqs(21, 0x22, 2, 0, 2), vec![0]].concat(), 0, EINVAL);
    add("set irqs: too many booleans", C::DEVICE_SET_IRQS, [irqs(23, 0x22, 2, 0, 2), vec![0; 3]].concat(), 0, EINVAL);
    add("set irqs: descriptor with booleans", C::DEVICE_SET_IRQS, [irqs(21, 0x22, 2, 0, 1), vec![0]].concat(), 1, EINVAL);
    add("set irqs: descriptor with none", C::DEVICE_SET_IRQS, irqs(20, 0x21, 2, 0, 1), 1, EINVAL);
    add("set irqs: too few descriptors", C::DEVICE_SET_IRQS, irqs(20, 0x24, 2, 0, 2), 1, EINVAL);
    add("set irqs: too many descriptors", C::DEVICE_SET_IRQS, irqs(20, 0x24, 2, 0, 1), 2, EINVAL);
    add("set irqs: more than a message carries", C::DEVICE_SET_IRQS, irqs(20, 0x24, 2, 0, 20), 20, EINVAL);

    let dma_map = |argsz: u32, flags: u32, address: u64, size: u64| {
        let mut payload = words(&[argsz, flags]);
        for field in [0, address, size] { payload.extend(u64::to_le_bytes(field)); }
        payload
    };
    let dma_unmap = |argsz: u32, flags: u32, address: u64, size: u64| {
        let mut payload = words(&[argsz, flags]);
        for field in [address, size] { payload.extend(u64::to_le_bytes(field)); }
        payload
    };
    add("map: short", C::DMA_MAP, words(&[0, 0]), 0, EINVAL);
    add("map: argsz", C::DMA_MAP, dma_map(8, 3, 0, 0x1000), 0, EINVAL);
    add("map: flags", C::DMA_MAP, dma_map(32, 0x2323, 0, 0x1000), 0, EINVAL);
    add("map: empty", C::DMA_MAP, dma_map(32, 3, 0, 0), 0, EINVAL);
    add("map: wraps", C::DMA_MAP, dma_map(32, 3, u64::MAX - 0xFFF, 0x2000), 0, EINVAL);
    add("map: an eventfd", C::DMA_MAP, dma_map(32, 3, 0, 0x1000), 1, EINVAL);
    add("map: two descriptors", C::DMA_MAP, dma_map(32, 3, 0, 0x1000), 2, EINVAL);
    add("unmap: short", C::DMA_UNMAP, words(&[0, 0]), 0, EINVAL);
    add("unmap: argsz", C::DMA_UNMAP, dma_unmap(8, 0, 0x1000, 0x1000), 0, EINVAL);
    add("unmap: huge argsz", C::DMA_UNMAP, dma_unmap(MAX_DATA_XFER_SIZE + 8, 0, 0x1000, 0x1000), 0, EINVAL);
    add("unmap: unknown flags", C::DMA_UNMAP, dma_unmap(24, 4, 0x1000, 0x1000), 0, EINVAL);
    add("unmap: dirty bitmap", C::DMA_UNMAP, dma_unmap(24, 1, 0x1000, 0x1000), 0, EINVAL);
    add("unmap: all and dirty", C::DMA_UNMAP, dma_unmap(24, 3, 0, 0), 0, EINVAL);
    add("unmap: all of a range", C::DMA_UNMAP, dma_unmap(24, 2, 0x1_0000, 0x1000), 0, EINVAL);
    add("unmap: wraps", C::DMA_UNMAP, dma_unmap(24, 0, 0x1000, u64::MAX), 0, EINVAL);
    add("unmap: empty", C::DMA_UNMAP, dma_unmap(24, 0, 0x1000, 0), 0, EINVAL);

    add("reset: payload", C::DEVICE_RESET, vec![0], 0, EINVAL);
    add("feature: short", C::DEVICE_FEATURE, words(&[8]), 0, EINVAL);
    add("feature: argsz", C::DEVICE_FEATURE, words(&[7, 1 << 16]), 0, EINVAL);
    add("feature: get and set", C::DEVICE_FEATURE, words(&[8, 3 << 16]), 0, EINVAL);
    add("feature: unknown flags", C::DEVICE_FEATURE, words(&[8, 1 << 20]), 0, EINVAL);
    add("feature: probe", C::DEVICE_FEATURE, words(&[8, 7 << 16 | 2]), 0, ENOTTY);
    add("feature: get", C::DEVICE_FEATURE, words(&[64, 1 << 16 | 1]), 0, ENOTTY);
    add("feature: set", C::DEVICE_FEATURE, words(&[8, 1 << 17 | 2, 1, 0]), 0, ENOTTY);
    let export = |argsz: u32, flags: u32, region: u32, ranges: u32| {
        words(&[argsz, flags << 16 | 11, region, 2, 0, ranges, 0, 0, 0x1000, 0])
    };
    add("dma-buf: no data", C::DEVICE_FEATURE, words(&[64, 1 << 16 | 11]), 0, EINVAL);
    add("dma-buf: set", C::DEVICE_FEATURE, export(40, 2, 0, 1), 0, EINVAL);
    add("dma-buf: get and set", C::DEVICE_FEATURE, export(40, 3, 0, 1), 0, EINVAL);
    add("dma-buf: probe of set", C::DEVICE_FEATURE, export(40, 6, 0, 1), 0, EINVAL);
    add("dma-buf: neither", C::DEVICE_FEATURE, export(40, 0, 0, 1), 0, EINVAL);
    add("dma-buf: argsz", C::DEVICE_FEATURE, export(39, 1, 0, 1), 0, EINVAL);
    add("dma-buf: no ranges", C::DEVICE_FEATURE, export(40, 1, 0, 0), 0, EINVAL);
    add("dma-buf: more ranges", C::DEVICE_FEATURE, export(u32::MAX, 1, 0, 2), 0, EINVAL);
    add("dma-buf: any number of ranges", C::DEVICE_FEATURE, export(u32::MAX, 1, 0, u32::MAX), 0, EINVAL);
    add("dma-buf: configuration space", C::DEVICE_FEATURE, export(40, 1, 7, 1), 0, ENODEV);
    add("dma-buf: no such region", C::DEVICE_FEATURE, export(40, 1, REGIONS as u32, 1), 0, ENODEV);
    add("dma-buf: no such window", C::DEVICE_FEATURE, export(40, 1, 9, 1), 0, EINVAL);
    add("dma-buf: descriptors", C::DEVICE_FEATURE, export(40, 1, 7, 1), 16, ENODEV);
    list
}

/// A pipe tells whether the server still holds its other end.
fn assert_all_closed(witness: &OwnedFd, context: &str) {
    let mut fds = [PollFd::new(witness, PollFlags::IN)];
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    poll(&mut fds, Some(&patience)).unwrap();
    assert!(fds[0].revents().contains(PollFlags::HUP), "{context}: descriptors are still open");
}

#[test]
fn every_offence_gets_its_errno_and_keeps_the_step() {
    let host = Host::start();
    let mut client = host.client();
    for Offence { name, command, payload, fds, errno } in offences() {
        let eventfds: Vec<_> = (0..fds).map(|_| new_eventfd()).collect();
        let borrowed: Vec<_> = eventfds.iter().collect();
        let result = client.request_with_fds(command, &payload, &borrowed).map(|message| message.payload);
        assert_eq!(result, Err(errno), "{name}");
        client.assert_alive(name);
        // Without a reply nothing may be said, errors included.
        client.command(command, &payload, &borrowed, true);
        client.assert_alive(name);
    }
    assert_eq!(host.events.lock().unwrap().resets, 0);
}

#[test]
fn descriptors_of_any_request_are_closed_if_nobody_wants_them() {
    let host = Host::start();
    let mut client = host.client();
    for Offence { name, command, payload, .. } in offences() {
        for count in [1, 17] {
            let (witness, end) = rustix::pipe::pipe().unwrap();
            let _ = client.request_with_fds(command, &payload, &vec![&end; count]);
            drop(end);
            assert_all_closed(&witness, name);
        }
    }
    let (witness, end) = rustix::pipe::pipe().unwrap();
    client.send(&header(1, 8, 1000, 0), &[&end]);
    drop(end);
    // So that the server has read it before the connection goes.
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    assert_all_closed(&witness, "of an unfinished message");
}

#[test]
fn sizes_that_lie_and_messages_that_are_none() {
    let host = Host::start();
    let mut client = host.client();
    for size in [0, 1, 15] {
        client.send(&header(0xBAD1, 8, size, 0), &[]);
        assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL), "{size}");
        client.assert_alive("size below the header");
    }
    client.send(&header(0xBAD2, 8, 16, 1), &[]);
    assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL), "unsolicited reply");
    client.send(&header(0xBAD3, 8, 16, 7), &[]);
    assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL), "neither command nor reply");
    // Late answers to DMA happen to honest clients.
    client.send(&header(0xBAD4, 11, 16, 1), &[]);
    client.send(&[header(0xBAD5, 12, 16 + 300, 0x21), vec![0; 300]].concat(), &[]);
    client.assert_alive("unsolicited DMA replies");
    drop(client);
    for size in [MAX_MESSAGE_SIZE + 1, u32::MAX] {
        let mut client = host.client();
        client.send(&header(0xBAD6, 10, size, 0), &[]);
        assert_eq!(client.receive().unwrap().header.failure(), Some(EINVAL), "{size}");
        client.assert_closed("oversize");
    }
}

#[test]
fn the_largest_transfers_work_and_zero_is_legal() {
    let host = Host::start();
    let mut client = host.client();
    assert_eq!(client.read(2, 0, MAX_DATA_XFER_SIZE), Ok(vec![2; MAX_DATA_XFER_SIZE as usize]));
    assert_eq!(client.read(2, BAR2_SIZE - 4, 4), Ok(vec![2; 4]));
    assert_eq!(client.read(0, 0, 0), Ok(vec![]));
    assert_eq!(client.write(0, BAR0_SIZE, &[]), Ok(()));
    assert_eq!(host.events.lock().unwrap().writes, 0, "an empty write is none");
    assert_eq!(client.write(0, 0, &[3; 0x100]), Ok(()));
    let too_far = vec![0; MAX_DATA_XFER_SIZE as usize];
    assert_eq!(client.write(0, 0, &too_far), Err(EINVAL));
    client.assert_alive("a megabyte refused");
}

#[test]
fn split_and_pipelined_messages_are_the_same_messages() {
    let host = Host::start();
    let mut client = host.client();
    let mut bytes = Vec::new();
    for id in 0..40u16 {
        let access = RegionAccess::new(0, u64::from(id) * 4, 4);
        put_request(
            &mut bytes,
            id,
            Command::REGION_WRITE,
            id % 2 == 1,
            &[access.as_bytes(), &words(&[u32::from(id)])],
        );
    }
    for id in 100..140u16 {
        let access = RegionAccess::new(0, u64::from(id - 100) * 4, 4);
        put_request(&mut bytes, id, Command::REGION_READ, false, &[access.as_bytes()]);
    }
    for step in [1, 7, 16, 33, bytes.len()] {
        for part in bytes.chunks(step) {
            client.send(part, &[]);
            if step < 16 {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        for id in (0..40).step_by(2).chain(100..140) {
            let reply = client.receive().unwrap();
            assert_eq!((reply.header.message_id.get(), reply.header.failure()), (id, None), "step {step}");
            if id >= 100 {
                assert_eq!(reply.payload[16..], words(&[u32::from(id) - 100]), "step {step}");
            }
        }
    }
    client.assert_alive("afterwards");
}

#[test]
fn several_writes_in_one_message_are_done_in_order_up_to_the_first_failure() {
    let host = Host::start();
    let mut client = host.client();
    let entry = |offset, data: &[u8]| WriteMultiEntry::new(0, offset, data).unwrap();
    let good = [entry(0x20, &[1; 8]), entry(0x24, &[2; 2]), entry(0x40, &[3])];
    let reply = client.request(Command::REGION_WRITE_MULTI, &WriteMulti { entries: &good }.encode()).unwrap();
    assert_eq!(reply, 3u64.to_le_bytes());
    assert_eq!(client.read(0, 0x20, 8), Ok(vec![1, 1, 1, 1, 2, 2, 1, 1]));
    let bad = [entry(0x50, &[4]), entry(BAR0_SIZE, &[5]), entry(0x51, &[6])];
    let bad = WriteMulti { entries: &bad }.encode();
    assert_eq!(client.request(Command::REGION_WRITE_MULTI, &bad), Err(EINVAL));
    assert_eq!(client.read(0, 0x50, 2), Ok(vec![4, 0]));
    client.command(Command::REGION_WRITE_MULTI, &bad, &[], true);
    client.assert_alive("no reply");
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
