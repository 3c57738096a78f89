//! A vhost-user client of ours: the `vhost` crate's messages, and queues whose driver's side is [`Ring`].
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: what fails here is the test"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::ring::{MEMORY, QUEUE_SIZE, Ring};

/// Where the client says that it has guest memory: nobody but us knows that it is not so.
pub const USER: u64 = 0x7F00_0000_0000;
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Guest memory for so many queues, and the file it is in.
pub fn memory(queues: usize, flags: MemfdFlags) -> (Arc<GuestMemoryMmap>, File) {
    let bytes = MEMORY * queues as u64;
    let fd = memfd_create("guest", flags | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    let file = File::from(fd);
    let range = (GuestAddress(0), bytes as usize, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
    (Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap()), file)
}

/// One queue.
pub struct ClientQueue {
    /// What the driver does.
    pub ring: Ring,
    /// Notifies the server.
    pub kick: EventFd,
    /// The server notifies us.
    pub call: EventFd,
    /// The server says that the ring makes no sense.
    pub error: EventFd,
}

/// A client whose queues are running.
pub struct Client {
    /// Messages.
    pub frontend: Frontend,
    /// Feature bits that were accepted.
    pub features: u64,
    /// The queues.
    pub queues: Vec<ClientQueue>,
    /// The file that guest memory is in.
    pub file: File,
}

impl Client {
    /// Connects. The server may not be listening yet, or still be busy with the end of another client: it is tried again.
    pub fn connect(path: &Path, queues: usize) -> Self {
        Self::connect_with(path, queues, !0)
    }

    /// The same, accepting only these features of those that are offered.
    pub fn connect_with(path: &Path, queues: usize, wanted: u64) -> Self {
        let frontend = hello(path, queues);
        let (memory, file) = memory(queues, MemfdFlags::ALLOW_SEALING);
        let offered = frontend.get_features().unwrap();
        let features = offered & (wanted | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
        frontend.set_features(features).unwrap();
        frontend.set_mem_table(&[region(&file, queues)]).unwrap();
        let queues = (0..queues)
            .map(|n| ClientQueue {
                ring: Ring::new(Arc::clone(&memory), n as u64 * MEMORY),
                kick: EventFd::new(EFD_NONBLOCK).unwrap(),
                call: EventFd::new(EFD_NONBLOCK).unwrap(),
                error: EventFd::new(EFD_NONBLOCK).unwrap(),
            })
            .collect();
        Self { frontend, features, queues, file }
    }

    /// Starts all queues from this index of the available ring on.
    pub fn start(&mut self, base: u16) {
        for n in 0..self.queues.len() {
            self.start_queue(n, base);
        }
    }

    /// Starts one queue.
    pub fn start_queue(&mut self, n: usize, base: u16) {
        let queue = &self.queues[n];
        self.frontend.set_vring_num(n, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_addr(n, &vring(&queue.ring)).unwrap();
        self.frontend.set_vring_base(n, base).unwrap();
        self.frontend.set_vring_call(n, &queue.call).unwrap();
        self.frontend.set_vring_err(n, &queue.error).unwrap();
        self.frontend.set_vring_kick(n, &queue.kick).unwrap();
        self.frontend.set_vring_enable(n, true).unwrap();
    }

    /// Notifies the server and waits until so many requests were used.
    pub fn finish(&mut self, n: usize, count: usize) -> Vec<(u16, u32)> {
        let queue = &mut self.queues[n];
        queue.kick.write(1).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut used = Vec::new();
        while used.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} requests were used", used.len());
            wait(&queue.call);
            used.extend(queue.ring.used());
        }
        used
    }

    /// A write of `data`; its status.
    pub fn write(&mut self, n: usize, sector: u64, data: &[u8]) -> u8 {
        let ring = &mut self.queues[n].ring;
        let (header, at, status) =
            (ring.header(crate::ring::OUT, sector), ring.buffer(data.len() as u64), ring.status());
        ring.put(at, data);
        ring.offer(&[(header, 16, false), (at, data.len() as u32, false), (status, 1, true)]);
        self.finish(n, 1);
        self.queues[n].ring.get(status, 1)[0]
    }

    /// A read; its status and what was read.
    pub fn read(&mut self, n: usize, sector: u64, length: u32) -> (u8, Vec<u8>) {
        let ring = &mut self.queues[n].ring;
        let (header, at, status) =
            (ring.header(crate::ring::IN, sector), ring.buffer(length.into()), ring.status());
        ring.offer(&[(header, 16, false), (at, length, true), (status, 1, true)]);
        self.finish(n, 1);
        let ring = &self.queues[n].ring;
        (ring.get(status, 1)[0], ring.get(at, length as usize))
    }
}

/// Waits a moment for an eventfd, and takes what is in it; whether there was something.
pub fn wait(event: &EventFd) -> bool {
    for _ in 0..50 {
        if event.read().is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// Where a ring is, in the client's own addresses.
pub fn vring(ring: &Ring) -> VringConfigData {
    let [table, available, used] = ring.addresses().map(|address| USER + address);
    VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: table,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    }
}

/// All of guest memory as one region.
pub fn region(file: &File, queues: usize) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY * queues as u64,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

/// A connection on which the first features were exchanged, so that every message is acknowledged.
pub fn hello(path: &Path, queues: usize) -> Frontend {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(frontend) = try_hello(path, queues) {
            return frontend;
        }
        assert!(Instant::now() < deadline, "nobody serves {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`hello`], once; `None` if the server sends us away.
pub fn try_hello(path: &Path, queues: usize) -> Option<Frontend> {
    let stream = UnixStream::connect(path).ok()?;
    let mut frontend = Frontend::from_stream(stream, queues as u64);
    frontend.set_owner().ok()?;
    let features = frontend.get_features().ok()?;
    let protocol = frontend.get_protocol_features().ok()?;
    frontend.set_protocol_features(protocol & protocol_features()).ok()?;
    frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    // libvhost-user ends at once if VERSION_1 is not accepted.
    frontend.set_features(features & (VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() | 1 << 32)).ok()?;
    Some(frontend)
}

fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::RESET_DEVICE
}
