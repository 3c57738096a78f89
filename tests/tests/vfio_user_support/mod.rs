//! A small device behind a real server in a thread, and a client that says exactly what it is told to.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tdispd::vfio_user::{
    Device, Errno, FileAccess, IrqKind, Listener, Mmap, MmapArea, Region, RegionType, Server, Token,
    WINDOW_REGION, Watcher,
};
use tdispd_proto::vfio_user::{
    Command, HEADER_SIZE, Header, IrqAction, IrqData, IrqSet, RegionAccess, put_request,
};
use tempfile::TempDir;
use zerocopy::IntoBytes;

/// How long an answer may take before the server counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Region 0 is plain memory but for these offsets.
pub mod reg {
    /// Write 8 bytes: DMA address.
    pub const ADDRESS: u64 = 0x100;
    /// Write 4 bytes: reads that many bytes from the address into offset 0x800.
    pub const READ: u64 = 0x108;
    /// Write 4 bytes: writes that many bytes of 0xC3 to the address.
    pub const WRITE: u64 = 0x10C;
    /// Write 4 bytes: raises that MSI-X vector.
    pub const VECTOR: u64 = 0x110;
    /// Write 4 bytes: the level of the pin.
    pub const LEVEL: u64 = 0x114;
    /// Read 4 bytes: 0 nothing ended yet, 1 the last DMA worked, 2 it failed.
    pub const STATUS: u64 = 0x118;
    /// Reads fail with EIO.
    pub const BROKEN: u64 = 0x11C;
    /// What DMA read.
    pub const DATA: u64 = 0x800;
}

/// Size of region 0; region 1 can be mapped in part and has a window, region 2 is larger than one message, regions 8 and 9 do not exist.
pub const BAR0_SIZE: u64 = 0x1000;
pub const BAR1_SIZE: u64 = 0x8000;
pub const BAR2_SIZE: u64 = 4 << 20;
pub const REGIONS: usize = 11;
pub const WINDOW_OF_BAR1: u32 = WINDOW_REGION + 1;
pub const VENDOR: u16 = 0x1234;
pub const MSIX_VECTORS: u32 = 64;

/// What a test wants to know of the device.
#[derive(Debug, Default)]
pub struct Events {
    pub connected: u32,
    pub disconnected: u32,
    pub resets: u32,
    pub writes: u32,
}

enum Work {
    Read(u64, usize),
    Write(u64, usize),
    Interrupt(u16),
    Level(bool),
}

pub struct TestDevice {
    regions: Vec<Region>,
    file: Arc<OwnedFd>,
    memory: Vec<u8>,
    work: VecDeque<Work>,
    events: Arc<Mutex<Events>>,
}

impl TestDevice {
    pub fn new(events: Arc<Mutex<Events>>) -> Self {
        let file = Arc::new(memfd(BAR1_SIZE * 2, SealFlags::SHRINK));
        let mut regions = vec![Region::default(); REGIONS];
        regions[0] = Region::trapped(BAR0_SIZE);
        regions[1] = Region::trapped(BAR1_SIZE);
        regions[2] = Region { writable: false, ..Region::trapped(BAR2_SIZE) };
        regions[7] = Region::trapped(0x1000);
        regions[WINDOW_OF_BAR1 as usize] =
            Region { kind: Some(RegionType::window(VENDOR, 1)), ..Region::trapped(BAR1_SIZE) };
        Self { regions, file, memory: vec![0; BAR0_SIZE as usize], work: VecDeque::new(), events }
    }

    fn ended(&mut self, result: Result<Vec<u8>, tdispd::vfio_user::DmaError>) {
        let status = match result {
            Ok(data) => {
                let count = data.len().min(0x800);
                self.memory[reg::DATA as usize..][..count].copy_from_slice(&data[..count]);
                1u32
            }
            Err(_) => 2,
        };
        self.memory[reg::STATUS as usize..][..4].copy_from_slice(&status.to_le_bytes());
    }

    fn u32_at(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.memory[offset as usize..][..4].try_into().unwrap())
    }

    /// What follows from a write once its reply has left.
    pub fn do_work(&mut self, server: &mut Server) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Read(address, length) => server.dma_read(1, address, length),
                Work::Write(address, length) => server.dma_write(1, address, vec![0xC3; length]),
                Work::Interrupt(vector) => server.irqs().trigger(IrqKind::Msix, vector),
                Work::Level(level) => server.irqs().set_intx_level(level),
            }
        }
        while let Some(end) = server.poll_dma() {
            self.ended(end.result);
        }
    }
}

impl Device for TestDevice {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn mapping(&mut self, region: u32) -> Option<Mmap> {
        let areas = vec![MmapArea::new(0x2000, 0x1000), MmapArea::new(0x4000, 0x2000)];
        let mapped = [1, WINDOW_OF_BAR1].contains(&region);
        mapped.then(|| Mmap { file: Arc::clone(&self.file), offset: BAR1_SIZE, areas })
    }

    fn irq_count(&self, kind: IrqKind) -> u32 {
        match kind {
            IrqKind::Intx | IrqKind::Err | IrqKind::Req => 1,
            IrqKind::Msi => 0,
            IrqKind::Msix => MSIX_VECTORS,
        }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if region == 0 {
            if offset == reg::BROKEN {
                return Err(Errno::IO);
            }
            data.copy_from_slice(&self.memory[offset as usize..][..data.len()]);
        } else {
            data.fill(region as u8);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.events.lock().unwrap().writes += 1;
        if region != 0 {
            return Ok(());
        }
        if offset == reg::BROKEN {
            return Err(Errno::IO);
        }
        self.memory[offset as usize..][..data.len()].copy_from_slice(data);
        let address = u64::from_le_bytes(self.memory[reg::ADDRESS as usize..][..8].try_into().unwrap());
        let value = self.u32_at(offset.min(BAR0_SIZE - 4));
        match offset {
            reg::READ | reg::WRITE => {
                self.memory[reg::STATUS as usize..][..4].fill(0);
                self.work.push_back(match offset {
                    reg::READ => Work::Read(address, value as usize),
                    _ => Work::Write(address, value as usize),
                });
            }
            reg::VECTOR => self.work.push_back(Work::Interrupt(value as u16)),
            reg::LEVEL => self.work.push_back(Work::Level(value != 0)),
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.events.lock().unwrap().resets += 1;
    }

    fn exports(&self) -> bool {
        true
    }

    /// Memory of the size asked for, with the region's number in front.
    fn export(&mut self, region: u32, ranges: &[(u64, u64)], access: FileAccess) -> Result<OwnedFd, Errno> {
        let memory = memfd(ranges.iter().map(|(_, length)| length).sum(), SealFlags::SHRINK);
        rustix::io::pwrite(&memory, &region.to_le_bytes(), 0)?;
        match access {
            FileAccess::ReadWrite => Ok(memory),
            FileAccess::ReadOnly => {
                let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            }
        }
    }

    fn client_connected(&mut self) {
        self.events.lock().unwrap().connected += 1;
    }

    fn client_disconnected(&mut self) {
        self.events.lock().unwrap().disconnected += 1;
    }
}

/// A server in a thread of its own; ends with it.
pub struct Host {
    pub path: PathBuf,
    pub events: Arc<Mutex<Events>>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Host {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("function");
        let events = Arc::new(Mutex::new(Events::default()));
        let mut device = TestDevice::new(Arc::clone(&events));
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let watcher = Watcher::new(Arc::clone(&epoll), 0);
        let mut server = Server::new(Listener::bind(&path).unwrap(), watcher).unwrap();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(u64::MAX), epoll::EventFlags::IN).unwrap();
        let thread = std::thread::spawn(move || {
            let mut ready = Vec::with_capacity(4);
            loop {
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                let timeout = server.is_waiting().then_some(&now);
                match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), timeout) {
                    // The process was stopped and goes on.
                    Err(Errno::INTR) => continue,
                    waited => waited.unwrap(),
                };
                for event in ready.drain(..) {
                    let Some(token) = Token::from_event({ event.flags }.bits(), event.data.u64()) else {
                        return;
                    };
                    server.on_ready(token, &mut device);
                    device.do_work(&mut server);
                }
                if server.is_waiting() {
                    server.go_on(&mut device);
                    device.do_work(&mut server);
                }
            }
        });
        Self { path, events, stop, thread: Some(thread), _directory: directory }
    }

    /// A client that has negotiated.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        client.request(Command::VERSION, &[0; 4]).unwrap();
        client
    }

    /// A client that has said nothing yet.
    pub fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    pub fn wait_for(&self, what: &str, condition: impl Fn(&Events) -> bool) {
        for _ in 0..500 {
            if condition(&self.events.lock().unwrap()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what} did not happen: {:?}", self.events.lock().unwrap());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.expect("the server must not panic");
        }
    }
}

/// What a client finds in its stream.
#[derive(Debug)]
pub struct Message {
    pub header: Header,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

pub struct Client {
    pub stream: UnixStream,
    next_id: u16,
    pending: Vec<OwnedFd>,
}

impl Client {
    /// A client of the function behind `path` that has said nothing yet.
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, next_id: 0, pending: Vec::new() }
    }

    /// Sends a command and takes its reply, or the errno of its reply.
    pub fn request(&mut self, command: Command, payload: &[u8]) -> Result<Vec<u8>, u32> {
        self.request_with_fds(command, payload, &[]).map(|reply| reply.payload)
    }

    pub fn request_with_fds(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[&OwnedFd],
    ) -> Result<Message, u32> {
        let id = self.command(command, payload, fds, false);
        let reply = self.receive().expect("the server closed the connection");
        assert_eq!(reply.header.message_id.get(), id);
        assert_eq!(reply.header.command, command);
        assert_eq!(reply.header.message_type(), tdispd_proto::vfio_user::MessageType::Reply);
        match reply.header.failure() {
            Some(errno) => {
                assert!(reply.payload.is_empty(), "an error is a header alone");
                assert_ne!(errno, 0, "QEMU takes an error without an errno for success");
                Err(errno)
            }
            None => Ok(reply),
        }
    }

    /// Sends a command and returns its id.
    pub fn command(&mut self, command: Command, payload: &[u8], fds: &[&OwnedFd], no_reply: bool) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        let mut out = Vec::new();
        put_request(&mut out, self.next_id, command, no_reply, &[payload]);
        self.send(&out, fds);
        self.next_id
    }

    pub fn send(&mut self, bytes: &[u8], fds: &[&OwnedFd]) {
        let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut sent = 0;
        while sent < bytes.len() {
            let mut control = SendAncillaryBuffer::new(&mut room);
            if sent == 0 && !borrowed.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
            }
            let iov = [IoSlice::new(&bytes[sent..])];
            sent += sendmsg(&self.stream, &iov, &mut control, SendFlags::NOSIGNAL).unwrap();
        }
    }

    /// The next message; `None` if the server closed the connection.
    pub fn receive(&mut self) -> Option<Message> {
        let header = self.bytes(HEADER_SIZE)?;
        let header = Header::parse(&header).unwrap();
        let size = header.message_size.get() as usize;
        let payload = self.bytes(size.checked_sub(HEADER_SIZE).unwrap())?;
        Some(Message { header, payload, fds: std::mem::take(&mut self.pending) })
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let iov = &mut [IoSliceMut::new(&mut bytes[have..])];
            match recvmsg(&self.stream, iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) if message.bytes == 0 => return None,
                Ok(message) => have += message.bytes,
                // Closed with bytes of ours unread.
                Err(Errno::CONNRESET) => return None,
                Err(errno) => panic!("no answer: {errno}"),
            }
            for ancillary in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = ancillary {
                    self.pending.extend(fds);
                }
            }
        }
        Some(bytes)
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let access = RegionAccess::new(region, offset, count);
        let reply = self.request(Command::REGION_READ, access.as_bytes())?;
        let (echo, data) = RegionAccess::parse_with_data(&reply).unwrap();
        assert_eq!(echo, access);
        Ok(data.to_vec())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let access = RegionAccess::new(region, offset, data.len() as u32);
        let reply = self.request(Command::REGION_WRITE, &[access.as_bytes(), data].concat())?;
        assert_eq!(RegionAccess::parse(&reply), Ok(access));
        Ok(())
    }

    /// The connection is in step and the device answers.
    pub fn assert_alive(&mut self, context: &str) {
        assert_eq!(self.read(7, 0, 4), Ok(vec![7; 4]), "{context}: out of step");
    }

    pub fn assert_closed(&mut self, context: &str) {
        assert!(self.receive().is_none(), "{context}: still open");
    }
}

pub fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

pub fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Waits until an eventfd was signalled and returns how often.
pub fn signals(fd: &OwnedFd) -> u64 {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "no interrupt");
    let mut bytes = [0; 8];
    rustix::io::read(fd, &mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn set_irqs(kind: IrqKind, action: IrqAction, data: IrqData<'_>, start: u32, count: u32) -> Vec<u8> {
    IrqSet { kind, action, data, start, count }.encode()
}

pub fn header(id: u16, command: u16, size: u32, flags: u32) -> Vec<u8> {
    let mut out = [id.to_le_bytes(), command.to_le_bytes()].concat();
    out.extend(words(&[size, flags, 0]));
    out
}
