//! A device that exports, and clients that ask for it in every way.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, ftruncate, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use tdispd_proto::vfio_user::{
    Command, DmaBuf, DmaRange, Feature, FeatureFlags, HEADER_SIZE, Header, IrqKind, RegionInfoReply,
    RegionType, WINDOW_REGION, put_request,
};

use super::super::device::FileAccess;
use super::super::{Connection, Device, Errno, Fds, Mmap, MmapArea, Progress, Region};

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;
const DMA_BUF: u32 = 11;
const RDWR: u32 = OFlags::RDWR.bits();

const BAR: u64 = 0x4000;
const WINDOW: RegionType = RegionType { id: 0x8000_1234, subtype: 0x7D15_0000 };

/// What the device hands out.
#[derive(Clone, Copy)]
enum Kind {
    /// The writing end of a pipe, whose other end tells when all copies are closed.
    Pipe,
    Nothing,
}

struct Exporter {
    regions: Vec<Region>,
    kind: Kind,
    exported: Vec<(u32, Vec<(u64, u64)>)>,
    access: Option<FileAccess>,
    mapping: Option<Mmap>,
    witnesses: Vec<OwnedFd>,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn memory() -> OwnedFd {
    let file = memfd_create("export", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, BAR).unwrap();
    file
}

/// Whether nobody has the other end of a pipe any more.
fn is_closed(witness: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(witness, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

impl Device for Exporter {
    fn regions(&self) -> &[Region] {
        &self.regions
    }
    fn irq_count(&self, _: IrqKind) -> u32 {
        0
    }
    fn region_read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn mapping(&mut self, region: u32) -> Option<Mmap> {
        self.mapping.clone().filter(|_| region == 2)
    }
    fn reset(&mut self) {}
    fn exports(&self) -> bool {
        true
    }
    fn export(&mut self, region: u32, ranges: &[(u64, u64)], access: FileAccess) -> Result<OwnedFd, Errno> {
        self.access = Some(access);
        self.exported.push((region, ranges.to_vec()));
        match self.kind {
            Kind::Pipe => {
                let (witness, fd) = pipe();
                self.witnesses.push(witness);
                Ok(fd)
            }
            Kind::Nothing => Err(Errno::BUSY),
        }
    }
}

struct Rig {
    connection: Connection,
    device: Exporter,
}

/// The payload of a reply and its descriptor, or its errno.
type Reply = Result<(Vec<u8>, Option<Arc<OwnedFd>>), u32>;

impl Rig {
    fn with_version(version: &[u8]) -> Self {
        let mut regions = vec![Region::default(); 10];
        regions[0] = Region::trapped(BAR);
        let file = Arc::new(memory());
        let areas = vec![MmapArea::new(0, 0x1000)];
        regions[2] = Region::trapped(0x1000);
        let mapping = Some(Mmap { file, offset: 0, areas });
        regions[6] = Region::trapped(BAR);
        regions[7] = Region::trapped(0x1000);
        regions[9] = Region { kind: Some(WINDOW), ..Region::trapped(BAR) };
        let device = Exporter {
            regions,
            kind: Kind::Pipe,
            exported: Vec::new(),
            access: None,
            mapping,
            witnesses: Vec::new(),
        };
        let mut rig = Self { connection: Connection::default(), device };
        rig.send(Command::VERSION, version, false, Vec::new());
        rig.take().unwrap();
        rig
    }

    fn new() -> Self {
        Self::with_version(&[0; 4])
    }

    fn send(&mut self, command: Command, payload: &[u8], no_reply: bool, fds: Vec<OwnedFd>) {
        let mut out = Vec::new();
        put_request(&mut out, 7, command, no_reply, &[payload]);
        self.connection.space()[..out.len()].copy_from_slice(&out);
        self.connection.received(out.len(), Fds { fds, truncated: false });
        assert_eq!(self.connection.handle_next(&mut self.device), Progress::Handled);
    }

    /// The one reply that waits.
    fn take(&mut self) -> Reply {
        let chunk = self.connection.chunk().expect("a reply");
        let (header, payload) = (Header::parse(chunk.bytes).unwrap(), chunk.bytes[HEADER_SIZE..].to_vec());
        assert_eq!(header.message_size.get() as usize, chunk.bytes.len());
        let (count, fd) = (chunk.bytes.len(), chunk.fd.cloned());
        self.connection.sent(count);
        assert!(self.connection.chunk().is_none(), "more than a reply");
        match header.failure() {
            Some(errno) => {
                assert!(payload.is_empty() && fd.is_none());
                Err(errno)
            }
            None => Ok((payload, fd)),
        }
    }

    fn ask(&mut self, payload: &[u8]) -> Reply {
        self.send(Command::DEVICE_FEATURE, payload, false, Vec::new());
        self.take()
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A GET of DMA_BUF as a client ought to write it.
fn get(region: u32, open_flags: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
    let ranges: Vec<_> = ranges.iter().map(|(offset, length)| DmaRange::new(*offset, *length)).collect();
    let data = DmaBuf { region, open_flags, flags: 0, ranges: &ranges }.encode();
    Feature::new(FeatureFlags::get(DmaBuf::INDEX), &data).encode()
}

fn errno(reply: Reply) -> Option<Errno> {
    reply.err().map(|errno| Errno::from_raw_os_error(errno as i32))
}

const PAGE_0: &[(u64, u64)] = &[(0, 0x1000)];

#[test]
fn a_probe_tells_what_would_work_and_is_echoed() {
    let mut rig = Rig::new();
    for (flags, expected) in [
        (PROBE, None),
        (PROBE | GET, None),
        (PROBE | SET, Some(Errno::INVAL)),
        (PROBE | GET | SET, Some(Errno::INVAL)),
    ] {
        // Whatever follows is no data, be it nothing, nonsense, or more than there is room for.
        for data in [&[][..], &[0xFF], &[0xFF; 16], &[0xA5; 100]] {
            let request = [&words(&[8, flags | DMA_BUF]), data].concat();
            let reply = rig.ask(&request);
            if expected.is_none() {
                assert!(reply.as_ref().is_ok_and(|(echo, fd)| *echo == request && fd.is_none()));
            }
            assert_eq!(errno(reply), expected, "{flags:#x}");
        }
    }
    for feature in [0, 1, 2, 10, 12, 0xFFFF] {
        for flags in [PROBE, PROBE | GET, PROBE | SET, GET, SET, 0] {
            assert_eq!(errno(rig.ask(&words(&[64, flags | feature]))), Some(Errno::NOTTY), "{feature}");
        }
    }
    assert!(rig.device.exported.is_empty());
}

#[test]
fn a_descriptor_comes_with_the_echo_of_the_request() {
    let mut rig = Rig::new();
    let ranges = [(0x1000, 0x2000), (0, 0x1000), (0x2000, 0x2000)];
    for region in [0, WINDOW_REGION] {
        let request = get(region, RDWR, &ranges);
        let (echo, fd) = rig.ask(&request).unwrap();
        assert_eq!(echo, request);
        assert!(fd.is_some());
        assert_eq!(rig.device.exported.pop(), Some((region, ranges.to_vec())));
        drop(fd);
        assert!(is_closed(&rig.device.witnesses.pop().unwrap()), "the client has the only one");
    }
    // More room than it takes, and bytes that the kernel does not read: the reply has the size of what it says.
    let mut request = get(0, RDWR, &ranges);
    let expected = request.clone();
    request[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    request.extend([0xA5; 33]);
    let (echo, fd) = rig.ask(&request).unwrap();
    assert_eq!(echo, expected);
    assert!(fd.is_some());
}

#[test]
fn every_refusal_has_the_kernels_errno() {
    const NONE: u64 = 0;
    const LAST: u64 = u64::MAX - 0xFFF;
    const HALF: u64 = 1 << 63;
    /// What is wrong, with which region, which ranges of it, and how it is called.
    type Refusal = (&'static str, u32, &'static [(u64, u64)], Errno);
    let cases: &[Refusal] = &[
        ("no ranges", 0, &[], Errno::INVAL),
        ("no ranges of no BAR", 6, &[], Errno::INVAL),
        ("the ROM", 6, PAGE_0, Errno::NODEV),
        ("configuration space", 7, PAGE_0, Errno::NODEV),
        ("VGA", 8, PAGE_0, Errno::NODEV),
        ("a window that is not there", 10, PAGE_0, Errno::NODEV),
        ("behind the last window", 15, PAGE_0, Errno::NODEV),
        ("any region", u32::MAX, PAGE_0, Errno::NODEV),
        ("no BAR before bad ranges", 6, &[(1, NONE)], Errno::NODEV),
        ("a BAR that is not there", 5, PAGE_0, Errno::NODEV),
        ("nor is it before bad ranges", 5, &[(LAST, 0x1000), (1, NONE)], Errno::NODEV),
        ("zero length", 0, &[(0, NONE)], Errno::INVAL),
        ("half a page", 0, &[(0, 0x800)], Errno::INVAL),
        ("within a page", 0, &[(0x800, 0x1000)], Errno::INVAL),
        ("the second one", 0, &[(0, 0x1000), (0x1000, 1)], Errno::INVAL),
        ("beyond the region", 0, &[(0x3000, 0x2000)], Errno::INVAL),
        ("behind the region", 0, &[(BAR, 0x1000)], Errno::INVAL),
        ("far behind it", 0, &[(HALF, 0x1000)], Errno::INVAL),
        ("beyond the window", WINDOW_REGION, &[(0, BAR + 0x1000)], Errno::INVAL),
        ("to the end of everything", 0, &[(LAST, 0x1000)], Errno::OVERFLOW),
        ("and beyond", 0, &[(LAST, HALF - 0x1000)], Errno::OVERFLOW),
        ("the highest bit", 0, &[(0, HALF)], Errno::INVAL),
        ("the highest bit in sum", 0, &[(0, HALF / 2), (0, HALF / 2)], Errno::INVAL),
        ("more than 64 bits in sum", 0, &[(0, HALF), (0, HALF)], Errno::INVAL),
        ("the form of all before the place of any", 0, &[(LAST, 0x1000), (0, NONE)], Errno::INVAL),
        ("the first bad place, too far", 0, &[(BAR, 0x1000), (LAST, 0x1000)], Errno::INVAL),
        ("the first bad place, wrapping", 0, &[(LAST, 0x1000), (BAR, 0x1000)], Errno::OVERFLOW),
    ];
    let mut rig = Rig::new();
    for (name, region, ranges, expected) in cases {
        let request = get(*region, RDWR, ranges);
        assert_eq!(errno(rig.ask(&request)), Some(*expected), "{name}");
        assert!(rig.device.exported.is_empty(), "{name}");
    }
    for (name, flags) in [("neither", 0), ("set", SET), ("both", GET | SET), ("unknown", GET | 1 << 19)] {
        let mut request = get(0, RDWR, PAGE_0);
        request[4..8].copy_from_slice(&(flags | DMA_BUF).to_le_bytes());
        assert_eq!(errno(rig.ask(&request)), Some(Errno::INVAL), "{name}");
    }
    for flag in 0..32 {
        let mut request = get(6, RDWR, PAGE_0);
        request[16..20].copy_from_slice(&(1_u32 << flag).to_le_bytes());
        assert_eq!(errno(rig.ask(&request)), Some(Errno::INVAL), "flags before the region");
    }
    rig.device.kind = Kind::Nothing;
    assert_eq!(errno(rig.ask(&get(0, RDWR, PAGE_0))), Some(Errno::BUSY), "the device's own");
}

#[test]
fn a_request_that_is_not_whole_or_lies_exports_nothing() {
    let mut rig = Rig::new();
    let request = get(0, RDWR, &[(0, 0x1000), (0x1000, 0x1000)]);
    for end in 0..request.len() {
        assert_eq!(errno(rig.ask(&request[..end])), Some(Errno::INVAL), "cut at {end}");
    }
    for argsz in (0..request.len() as u32).chain([1 << 31 | 7]).filter(|argsz| *argsz < 56) {
        let mut request = request.clone();
        request[..4].copy_from_slice(&argsz.to_le_bytes());
        assert_eq!(errno(rig.ask(&request)), Some(Errno::INVAL), "argsz {argsz}");
    }
    for count in [3, 0xFFFF, 1 << 28, u32::MAX] {
        let mut request = request.clone();
        request[20..24].copy_from_slice(&u32::to_le_bytes(count));
        assert_eq!(errno(rig.ask(&request)), Some(Errno::INVAL), "{count} ranges");
    }
    assert!(rig.device.exported.is_empty());
    assert!(rig.ask(&request).is_ok(), "in step");
}

#[test]
fn hundreds_of_ranges_in_one_request() {
    let mut rig = Rig::new();
    let ranges = vec![(0x1000, 0x1000); 900];
    let (echo, fd) = rig.ask(&get(0, RDWR, &ranges)).unwrap();
    assert_eq!((echo.len(), fd.is_some()), (24 + 900 * 16, true));
    assert_eq!(rig.device.exported, [(0, ranges)]);
}

#[test]
fn nothing_is_exported_for_a_client_that_wants_no_reply() {
    let mut rig = Rig::new();
    rig.send(Command::DEVICE_FEATURE, &get(0, RDWR, PAGE_0), true, Vec::new());
    assert!(rig.connection.chunk().is_none() && rig.device.exported.is_empty());
    assert!(rig.ask(&get(0, RDWR, PAGE_0)).is_ok(), "in step");
}

#[test]
fn a_descriptor_that_has_not_left_goes_with_its_client() {
    let mut rig = Rig::new();
    rig.send(Command::DEVICE_FEATURE, &get(0, RDWR, PAGE_0), false, Vec::new());
    assert!(!is_closed(&rig.device.witnesses[0]));
    rig.connection.disconnect(&mut rig.device);
    assert!(is_closed(&rig.device.witnesses[0]));
}

#[test]
fn descriptors_with_a_request_are_closed() {
    let mut rig = Rig::new();
    for request in [get(0, RDWR, PAGE_0), get(6, RDWR, PAGE_0), words(&[8, PROBE | DMA_BUF]), vec![]] {
        let (witnesses, fds): (Vec<_>, Vec<_>) = (0..16).map(|_| pipe()).unzip();
        rig.send(Command::DEVICE_FEATURE, &request, false, fds);
        assert!(witnesses.iter().all(is_closed));
        let _ = rig.take();
    }
}

#[test]
fn a_client_that_takes_no_descriptors_gets_none() {
    let capabilities = |fds: &str| {
        let text = format!("\0\0\0\0{{\"capabilities\":{{\"max_msg_fds\":{fds}}}}}\0");
        text.into_bytes()
    };
    let info = |rig: &mut Rig| {
        rig.send(Command::DEVICE_GET_REGION_INFO, &words(&[64, 0, 2, 0, 0, 0, 0, 0]), false, Vec::new());
        let (payload, fd) = rig.take().unwrap();
        let reply = RegionInfoReply::parse(&payload).unwrap();
        (reply.info.flags.get(), reply.areas.len(), fd.is_some())
    };
    let mut rig = Rig::with_version(&capabilities("0"));
    for request in [words(&[8, PROBE | GET | DMA_BUF]), get(0, RDWR, PAGE_0)] {
        assert_eq!(errno(rig.ask(&request)), Some(Errno::NOTTY));
    }
    assert!(rig.device.exported.is_empty());
    assert_eq!(info(&mut rig), (3, 0, false), "nor can it map anything");
    for fds in ["1", "16", "null"] {
        let mut rig = Rig::with_version(&capabilities(fds));
        assert!(rig.ask(&get(0, RDWR, PAGE_0)).is_ok(), "{fds}");
        assert_eq!(info(&mut rig), (15, 1, true), "{fds}");
    }
}

#[test]
fn a_descriptor_is_asked_for_in_the_mode_the_client_wants() {
    let mut rig = Rig::new();
    for (mode, expected) in [
        (OFlags::RDONLY, FileAccess::ReadOnly),
        (OFlags::WRONLY, FileAccess::ReadWrite),
        (OFlags::RDWR, FileAccess::ReadWrite),
        (OFlags::ACCMODE, FileAccess::ReadWrite),
    ] {
        for others in [OFlags::empty(), OFlags::CLOEXEC, OFlags::NONBLOCK, OFlags::TRUNC | OFlags::CREATE] {
            rig.ask(&get(0, (mode | others).bits(), PAGE_0)).unwrap();
            assert_eq!(rig.device.access.take(), Some(expected), "{mode:?} {others:?}");
        }
    }
    rig.ask(&get(0, u32::MAX, PAGE_0)).expect("no flag is refused");
}

#[test]
fn a_window_says_what_it_is() {
    let mut rig = Rig::new();
    let mut info = |argsz, index| {
        rig.send(
            Command::DEVICE_GET_REGION_INFO,
            &words(&[argsz, 0, index, 0, 0, 0, 0, 0]),
            false,
            Vec::new(),
        );
        let (payload, fd) = rig.take().unwrap();
        assert!(fd.is_none());
        let reply = RegionInfoReply::parse(&payload).unwrap();
        (reply.info.argsz.get(), payload.len(), reply.kind)
    };
    assert_eq!(info(32, WINDOW_REGION), (48, 32, None), "no room");
    assert_eq!(info(48, WINDOW_REGION), (48, 48, Some(WINDOW)));
    assert_eq!(info(48, 0), (32, 32, None), "a BAR has none");
}

#[test]
fn a_device_that_exports_nothing_has_no_such_feature() {
    struct Plain(Vec<Region>);
    impl Device for Plain {
        fn regions(&self) -> &[Region] {
            &self.0
        }
        fn irq_count(&self, _: IrqKind) -> u32 {
            0
        }
        fn region_read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<(), Errno> {
            Ok(())
        }
        fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), Errno> {
            Ok(())
        }
        fn reset(&mut self) {}
    }
    let mut device = Plain(vec![Region::trapped(BAR)]);
    assert_eq!(device.export(0, PAGE_0, FileAccess::ReadWrite).err(), Some(Errno::NOTTY));
    let mut connection = Connection::default();
    let mut out = Vec::new();
    put_request(&mut out, 0, Command::VERSION, false, &[&[0; 4]]);
    for (id, payload) in [(1, words(&[8, PROBE | DMA_BUF])), (2, get(0, RDWR, PAGE_0))] {
        put_request(&mut out, id, Command::DEVICE_FEATURE, false, &[&payload]);
    }
    connection.space()[..out.len()].copy_from_slice(&out);
    connection.received(out.len(), Fds::default());
    for expected in [None, Some(25), Some(25)] {
        assert_eq!(connection.handle_next(&mut device), Progress::Handled);
        let reply = connection.chunk().unwrap().bytes.to_vec();
        assert_eq!(Header::parse(&reply).unwrap().failure(), expected);
        connection.sent(reply.len());
    }
}
