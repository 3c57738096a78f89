//! The client against a small device in a thread, honest and not.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tdispd_proto::vfio_user::{
    DmaAccess, HEADER_SIZE, Header, MmapArea, WINDOW_REGION, put_error, put_reply, put_request,
};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);
/// The mock's only BAR: 32 bits, 4 KiB.
const BAR_SIZE: u32 = 0x1000;

/// What the mock does once BAR accesses start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Honest,
    RefusesReads,
    DmaFirst,
    WrongId,
    Oversize,
    Undersize,
    ShortData,
    Silent,
    HangsUp,
    /// DMA_BUF comes with that many descriptors.
    Descriptors(usize),
    /// DMA_BUF's reply names another region.
    OtherRegion,
    /// DMA_BUF's reply ends before its ranges.
    NoRanges,
}

/// How many bytes the memory has that the mock exports.
const EXPORTED: u64 = 0x3000;

struct Mock {
    stream: UnixStream,
    config: Vec<u8>,
    bar: Vec<u8>,
    mode: Mode,
    dma: Vec<Vec<u8>>,
}

impl Mock {
    fn message(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head).ok()?;
        let header = Header::parse(&head)?;
        let mut payload = vec![0; header.message_size.get() as usize - HEADER_SIZE];
        self.stream.read_exact(&mut payload).ok()?;
        Some((header, payload))
    }

    fn serve(mut self) -> Vec<Vec<u8>> {
        while let Some((header, payload)) = self.message() {
            let mut out = vec![];
            if !self.answer(&header, &payload, &mut out) {
                break;
            }
            self.send(&out, if header.command == Command::DEVICE_FEATURE { self.descriptors() } else { 0 });
        }
        self.dma
    }

    fn descriptors(&self) -> usize {
        if let Mode::Descriptors(count) = self.mode { count } else { 1 }
    }

    fn send(&self, bytes: &[u8], descriptors: usize) {
        let file = rustix::fs::memfd_create("exported", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, EXPORTED).unwrap();
        let fds = vec![file.as_fd(); descriptors];
        let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if descriptors > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// What the mock knows of DMA_BUF: the first region only.
    fn export(&self, header: &Header, payload: &[u8], out: &mut Vec<u8>) {
        let feature = Feature::parse(payload).unwrap();
        let mut wanted = DmaBuf::parse(feature.data).unwrap();
        assert_eq!((feature.flags, wanted.flags), (FeatureFlags::get(DmaBuf::INDEX), 0));
        if wanted.region != 0 {
            return put_error(out, header, 19);
        }
        if self.mode == Mode::OtherRegion {
            wanted.region = 1;
        }
        if self.mode == Mode::NoRanges {
            wanted.ranges = &[];
        }
        put_reply(out, header, &[&Feature::new(feature.flags, &wanted.encode()).encode()]);
    }

    fn answer(&mut self, header: &Header, payload: &[u8], out: &mut Vec<u8>) -> bool {
        match header.command {
            Command::VERSION => put_reply(out, header, &[payload]),
            Command::DEVICE_GET_INFO => {
                let mut info = DeviceInfo::parse_reply(payload).unwrap();
                info.num_regions = U32::new(9);
                put_reply(out, header, &[info.as_bytes()]);
            }
            Command::DEVICE_GET_REGION_INFO => {
                let mut info = RegionInfo::parse_request(payload).unwrap();
                let (room, index) = (info.argsz.get(), info.index.get());
                info.size = match index {
                    0 => u64::from(BAR_SIZE).into(),
                    7 => 4096.into(),
                    _ => 0.into(),
                };
                let kind = (index == WINDOW_REGION).then(|| RegionType::window(0x1234, 0));
                let areas = if index == WINDOW_REGION { vec![MmapArea::new(0, 0x1000)] } else { vec![] };
                put_reply(out, header, &[&RegionInfoReply { info, kind, areas }.encode(room)]);
            }
            Command::DEVICE_FEATURE => self.export(header, payload, out),
            Command::REGION_READ => {
                let access = RegionAccess::parse(payload).unwrap();
                if access.region.get() == 0 && self.mode != Mode::Honest {
                    return self.misbehave(header, &access, out);
                }
                let data = self.slice(&access).to_vec();
                put_reply(out, header, &[access.as_bytes(), &data]);
            }
            Command::REGION_WRITE => {
                let (access, data) = RegionAccess::parse_with_data(payload).unwrap();
                let bar0 = access.region.get() == 7 && access.offset.get() == 0x10;
                self.slice(&access).copy_from_slice(data);
                if bar0 {
                    let value = u32::from_le_bytes(data.try_into().unwrap()) & !(BAR_SIZE - 1);
                    self.slice(&access).copy_from_slice(&value.to_le_bytes());
                } else if access.region.get() == 7 && (0x14..0x28).contains(&access.offset.get()) {
                    self.slice(&access).fill(0);
                }
                put_reply(out, header, &[access.as_bytes()]);
            }
            _ => put_reply(out, header, &[]),
        }
        true
    }

    fn slice(&mut self, access: &RegionAccess) -> &mut [u8] {
        let (at, count) = (access.offset.get() as usize, access.count.get() as usize);
        let memory = if access.region.get() == 7 { &mut self.config } else { &mut self.bar };
        &mut memory[at..at + count]
    }

    fn misbehave(&mut self, header: &Header, access: &RegionAccess, out: &mut Vec<u8>) -> bool {
        let count = access.count.get() as usize;
        match self.mode {
            Mode::RefusesReads => put_error(out, header, 22),
            Mode::DmaFirst => {
                self.do_dma();
                put_reply(out, header, &[access.as_bytes(), &vec![1; count]]);
            }
            Mode::WrongId => {
                let header = Header { message_id: (header.message_id.get() ^ 1).into(), ..*header };
                put_reply(out, &header, &[access.as_bytes(), &vec![1; count]]);
            }
            Mode::Oversize | Mode::Undersize => {
                put_reply(out, header, &[]);
                let size = if self.mode == Mode::Oversize { u32::MAX } else { 15 };
                out[4..8].copy_from_slice(&size.to_le_bytes());
            }
            Mode::ShortData => {
                let short = RegionAccess::new(0, access.offset.get(), 1);
                put_reply(out, header, &[short.as_bytes(), &[1]]);
            }
            Mode::Silent => {}
            Mode::HangsUp => return false,
            Mode::Honest | Mode::Descriptors(_) | Mode::OtherRegion | Mode::NoRanges => panic!("honest"),
        }
        true
    }

    /// A read, a write, and three that leave what was mapped.
    fn do_dma(&mut self) {
        let end = MEMORY_ADDRESS + (MEMORY_PAGES * PAGE) as u64;
        let requests = [
            (Command::DMA_READ, DmaAccess::new(MEMORY_ADDRESS + 4096, 4), vec![]),
            (Command::DMA_WRITE, DmaAccess::new(MEMORY_ADDRESS + 8192, 2), vec![0xaa, 0xbb]),
            (Command::DMA_READ, DmaAccess::new(0, 4), vec![]),
            (Command::DMA_READ, DmaAccess::new(end - 2, 4), vec![]),
            (Command::DMA_READ, DmaAccess::new(MEMORY_ADDRESS, u64::MAX), vec![]),
        ];
        for (command, access, data) in requests {
            let mut out = vec![];
            put_request(&mut out, 0x4242, command, false, &[access.as_bytes(), &data]);
            self.stream.write_all(&out).unwrap();
            let (header, payload) = self.message().unwrap();
            self.dma.push(header.failure().map_or(payload, |errno| vec![errno as u8]));
        }
    }
}

/// A device on a socket in a directory of its own, served for one connection.
fn device(mode: Mode) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<Vec<u8>>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&0x7d15_1234_u32.to_le_bytes());
        Mock { stream, config, bar: vec![0; BAR_SIZE as usize], mode, dma: vec![] }.serve()
    });
    (dir, path, server)
}

#[test]
fn opening_places_bars_and_enables_the_device() {
    let (_dir, path, server) = device(Mode::Honest);
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    assert_eq!(device.memory_bars().len(), 1);
    let bar = device.memory_bars()[0];
    assert_eq!((bar.index, bar.size, bar.address), (0, 0x1000, 0xc000_0000));
    assert_eq!(ConfigSpace::read(&mut device, 0x10, Width::Dword).unwrap(), 0xc000_0000);
    assert_eq!(ConfigSpace::read(&mut device, 4, Width::Word).unwrap(), 6);
    BarAccess::write(&mut device, 0, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    let mut back = [0; 9];
    BarAccess::read(&mut device, 0, 3, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(matches!(BarAccess::read(&mut device, 0, 0xfff, &mut back), Err(Error::Usage(_))));
    drop(device);
    server.join().unwrap();
}

#[test]
fn a_refused_read_is_all_ones() {
    let (_dir, path, _server) = device(Mode::RefusesReads);
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    let mut data = [0; 8];
    BarAccess::read(&mut device, 0, 0, &mut data).unwrap();
    assert_eq!(data, [0xff; 8]);
}

#[test]
fn the_devices_own_dma_is_served_in_between_and_bounded() {
    let (_dir, path, server) = device(Mode::DmaFirst);
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    let mut memory = device.memory().unwrap();
    memory.write(1, &[9, 8, 7, 6]).unwrap();
    assert_eq!(memory.address(1).unwrap(), MEMORY_ADDRESS + 4096);
    assert!(memory.address(memory.pages()).is_err() && memory.write(0, &[0; PAGE + 1]).is_err());
    let mut data = [0; 4];
    BarAccess::read(&mut device, 0, 0, &mut data).unwrap();
    assert_eq!(data, [1; 4]);
    let mut written = [0; 2];
    memory.read(2, &mut written).unwrap();
    assert_eq!(written, [0xaa, 0xbb]);
    drop(device);
    let dma = server.join().unwrap();
    assert_eq!(dma[0], [DmaAccess::new(MEMORY_ADDRESS + 4096, 4).as_bytes(), &[9, 8, 7, 6]].concat());
    assert_eq!(&dma[2..], [vec![22], vec![22], vec![22]]);
}

#[test]
fn a_region_tells_its_type_and_exports_its_ranges() {
    let (_dir, path, _server) = device(Mode::Honest);
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    let kind = device.region_type(WINDOW_REGION).unwrap();
    assert_eq!(kind.and_then(|kind| kind.window_of(0x1234)), Some(0));
    assert_eq!(device.region_type(0).unwrap(), None);
    let fd = device.dma_buf(0, &[(0, 0x1000), (0x2000, 0x2000)]).unwrap();
    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, EXPORTED as i64);
    assert!(matches!(device.dma_buf(1, &[(0, 0x1000)]), Err(Error::Refused { .. })));
    assert!(device.dma_buf(0, &[(0, 0x1000)]).is_ok(), "in step");
}

#[test]
fn an_export_without_its_one_descriptor_or_its_echo_is_none() {
    for mode in [
        Mode::Descriptors(0),
        Mode::Descriptors(2),
        Mode::Descriptors(MAX_MSG_FDS),
        Mode::OtherRegion,
        Mode::NoRanges,
    ] {
        let (_dir, path, _server) = device(mode);
        let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
        let result = device.dma_buf(0, &[(0, 0x1000)]);
        assert!(matches!(result, Err(Error::Protocol(_))), "{mode:?}: {result:?}");
        assert_eq!(
            ConfigSpace::read(&mut device, 0, Width::Dword).unwrap(),
            0x7d15_1234,
            "{mode:?}: in step"
        );
    }
    let (_dir, path, _server) = device(Mode::Descriptors(MAX_MSG_FDS + 1));
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    for _ in 0..2 {
        assert!(matches!(device.dma_buf(0, &[(0, 0x1000)]), Err(Error::Protocol(_))), "lost ones");
    }
}

#[test]
fn replies_that_answer_nothing_end_the_connection() {
    for (mode, timed_out) in [
        (Mode::WrongId, false),
        (Mode::Oversize, false),
        (Mode::Undersize, false),
        (Mode::ShortData, false),
        (Mode::Silent, true),
    ] {
        let (_dir, path, _server) = device(mode);
        let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
        let mut data = [0; 4];
        let result = BarAccess::read(&mut device, 0, 0, &mut data);
        assert!(matches!(result, Err(Error::Protocol(_))) != timed_out, "{result:?}");
        assert!(matches!(result, Err(Error::TimedOut { .. })) == timed_out, "{result:?}");
        if mode != Mode::ShortData {
            let again = BarAccess::read(&mut device, 0, 0, &mut data);
            assert!(matches!(again, Err(Error::Protocol(_))), "out of step: {again:?}");
        }
    }
}

#[test]
fn a_device_that_dies_and_one_that_is_not_there() {
    let (_dir, path, _server) = device(Mode::HangsUp);
    let mut device = VfioUser::open(&path, TIMEOUT).unwrap();
    let result = BarAccess::read(&mut device, 0, 0, &mut [0; 4]);
    assert!(matches!(result, Err(Error::Transport { .. })), "{result:?}");
    let result = VfioUser::open(Path::new("/nonexistent/socket"), TIMEOUT);
    assert!(matches!(result, Err(Error::Transport { .. })), "{result:?}");
}
