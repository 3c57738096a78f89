//! DMA_BUF over a real socket: the descriptor comes with its reply, and no other is left open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vfio_user_support;

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fstat};
use rustix::io::{Errno, pread, pwrite};
use rustix::pipe::{PipeFlags, pipe_with};
use tdispd_proto::vfio_user::{
    Command, DmaBuf, DmaRange, Feature, FeatureFlags, HEADER_SIZE, MAX_MESSAGE_SIZE, RegionInfo,
    RegionInfoReply, RegionType, put_request,
};
use vfio_user_support::{Host, Message, VENDOR, WINDOW_OF_BAR1};
use zerocopy::IntoBytes;

fn request(region: u32, open_flags: OFlags, ranges: &[DmaRange]) -> Vec<u8> {
    let data = DmaBuf { region, open_flags: open_flags.bits(), flags: 0, ranges }.encode();
    Feature::new(FeatureFlags::get(DmaBuf::INDEX), &data).encode()
}

const PAGES: [DmaRange; 2] = [DmaRange::new(0x2000, 0x1000), DmaRange::new(0x4000, 0x2000)];

fn only_fd(mut message: Message) -> OwnedFd {
    assert_eq!(message.fds.len(), 1);
    message.fds.remove(0)
}

/// Which region the test device says an export is of.
fn region_of(fd: &OwnedFd) -> u32 {
    let mut number = [0; 4];
    assert_eq!(pread(fd, &mut number, 0), Ok(4));
    u32::from_le_bytes(number)
}

#[test]
fn a_bar_and_its_window_are_exported_apart() {
    let host = Host::start();
    let mut client = host.client();
    let probe = Feature::new(FeatureFlags::probe_get(DmaBuf::INDEX), &[]).encode();
    assert_eq!(client.request(Command::DEVICE_FEATURE, &probe), Ok(probe.clone()));
    for region in [1, WINDOW_OF_BAR1] {
        let request = request(region, OFlags::RDWR | OFlags::CLOEXEC, &PAGES);
        let reply = client.request_with_fds(Command::DEVICE_FEATURE, &request, &[]).unwrap();
        assert_eq!(reply.payload, request);
        let fd = only_fd(reply);
        assert_eq!((region_of(&fd), fstat(&fd).unwrap().st_size), (region, 0x3000));
        assert_eq!(pwrite(&fd, b"mine", 0x1000), Ok(4));
    }
    let info = RegionInfo { argsz: 1024.into(), index: WINDOW_OF_BAR1.into(), ..RegionInfo::default() };
    let reply = client.request(Command::DEVICE_GET_REGION_INFO, info.as_bytes()).unwrap();
    let kind = RegionInfoReply::parse(&reply).unwrap().kind;
    assert_eq!(kind.and_then(|kind: RegionType| kind.window_of(VENDOR)), Some(1));
}

#[test]
fn what_was_to_be_read_only_is() {
    let host = Host::start();
    let mut client = host.client();
    let request = request(1, OFlags::RDONLY, &PAGES);
    let fd = only_fd(client.request_with_fds(Command::DEVICE_FEATURE, &request, &[]).unwrap());
    assert_eq!(region_of(&fd), 1);
    assert_eq!(pwrite(&fd, b"mine", 0), Err(Errno::BADF));
}

#[test]
fn pipelined_exports_each_come_with_their_own_reply() {
    let host = Host::start();
    let mut client = host.client();
    let regions = [1, 0, 2, 7, 1, WINDOW_OF_BAR1];
    let mut bytes = Vec::new();
    for (id, region) in (0..).zip(regions) {
        let request = request(region, OFlags::RDWR, &PAGES[..1]);
        put_request(&mut bytes, id, Command::DEVICE_FEATURE, false, &[&request]);
        put_request(&mut bytes, 100, Command::DEVICE_FEATURE, true, &[&request]);
    }
    client.send(&bytes, &[]);
    for (id, region) in (0..).zip(regions) {
        let reply = client.receive().unwrap();
        assert_eq!(reply.header.message_id.get(), id);
        // Region 0 has no third page, and 7 is not a BAR.
        let errno = match region {
            0 => Some(22),
            7 => Some(19),
            _ => None,
        };
        assert_eq!(reply.header.failure(), errno, "{region}");
        let found: Vec<_> = reply.fds.iter().map(region_of).collect();
        assert_eq!(found, if errno.is_some() { vec![] } else { vec![region] });
    }
    client.assert_alive("afterwards");
}

#[test]
fn the_largest_request_is_answered_in_full() {
    let host = Host::start();
    let mut client = host.client();
    let most = (MAX_MESSAGE_SIZE as usize - HEADER_SIZE - 8 - DmaBuf::FIXED) / size_of::<DmaRange>();
    let ranges = vec![DmaRange::new(0x1000, 0x1000); most];
    let request = request(1, OFlags::RDWR, &ranges);
    let reply = client.request_with_fds(Command::DEVICE_FEATURE, &request, &[]).unwrap();
    assert!(reply.payload == request);
    assert_eq!(fstat(only_fd(reply)).unwrap().st_size as usize, most * 0x1000);
}

#[test]
fn descriptors_that_come_with_a_request_are_closed() {
    let host = Host::start();
    let mut client = host.client();
    let good = request(1, OFlags::RDWR, &PAGES);
    for (name, payload) in [("good", &good[..]), ("cut", &good[..30]), ("nothing", &[])] {
        for (count, no_reply) in [(1, false), (2, false), (16, false), (16, true), (20, false)] {
            let (witness, other) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            client.command(Command::DEVICE_FEATURE, payload, &vec![&other; count], no_reply);
            drop(other);
            if !no_reply {
                let reply = client.receive().unwrap();
                assert_eq!(reply.header.failure(), (name != "good").then_some(22), "{name} {count}");
                assert_eq!(reply.fds.len(), usize::from(name == "good"), "{name} {count}");
            }
            let mut fds = [PollFd::new(&witness, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
            assert!(fds[0].revents().contains(PollFlags::HUP), "{name} {count}: still open");
        }
    }
    client.assert_alive("afterwards");
}
