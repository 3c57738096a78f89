//! A client that sends what it may not, over a real socket: after each offence the server must be in step, or have closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vfio_user_support;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tdispd_proto::vfio_user::{
    Command, IrqAction, IrqData, IrqKind, MAX_DATA_XFER_SIZE, MAX_DMA_MAPS, MAX_MESSAGE_SIZE, RegionAccess,
    Version, WriteMulti, WriteMultiEntry, put_request,
};
use vfio_user_support::{
    BAR0_SIZE, BAR2_SIZE, Host, MSIX_VECTORS, REGIONS, header, new_eventfd, reg, set_irqs, words,
};
use zerocopy::IntoBytes;

const EIO: u32 = 5;
const ENODEV: u32 = 19;
const EINVAL: u32 = 22;
const ENOTTY: u32 = 25;
const ENOTSUP: u32 = 95;

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
    add("dma-buf: no such window", C::DEVICE_FEATURE, export(40, 1, 9, 1), 0, ENODEV);
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
