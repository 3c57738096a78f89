//! The disk against qemu-storage-daemon's vhost-user-blk export, each in its best configuration, on the same file, with the same
//! client, in one run: requests a second, the server's CPU time for each, and its memory.
//!
//! Rounds alternate between the two, so that whatever else the machine does meets both; figures are medians. The client has the
//! first CPU for itself, each server the others. `TDISPD` names a release build of `tdispd`, `QSD` a qemu-storage-daemon;
//! `DIRECTORY` is where the file is made.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use tests::ring::{IN, OK, OUT};
use tests::vhost_client::{Client, vring};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VringConfigData};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const FILE_SIZE: u64 = 256 << 20;
const QUEUE_SIZE: u16 = 128;
/// Where headers and status bytes, and then data, begin in the client's memory.
const HEADERS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;
/// Rounds of each workload and server, and how long each is.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);
/// VERSION_1, EVENT_IDX, INDIRECT_DESC, FLUSH, BLK_SIZE, SEG_MAX.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 9 | 1 << 6 | 1 << 2;

struct Workload {
    name: &'static str,
    kind: u32,
    bytes: u32,
    depth: u16,
    random: bool,
}

const fn workload(name: &'static str, kind: u32, bytes: u32, depth: u16, random: bool) -> Workload {
    Workload { name, kind, bytes, depth, random }
}

const WORKLOADS: [Workload; 6] = [
    workload("4 KiB random read,  QD 1", IN, 4096, 1, true),
    workload("4 KiB random read,  QD 32", IN, 4096, 32, true),
    workload("4 KiB random write, QD 1", OUT, 4096, 1, true),
    workload("4 KiB random write, QD 32", OUT, 4096, 32, true),
    workload("128 KiB seq. read,  QD 8", IN, 128 << 10, 8, false),
    workload("128 KiB seq. write, QD 8", OUT, 128 << 10, 8, false),
];

/// A server process, and a client of it.
struct Server {
    child: Child,
    client: Client,
    call: EventFd,
    /// Watches `call`.
    epoll: Epoll,
    kick: EventFd,
    available: u16,
    used: u16,
    random: u64,
    next: u64,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(mut command: Command, socket: &Path) -> Self {
        // A terminal would stop one that reads from it in the background.
        command.stdin(std::process::Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        while !socket.exists() {
            assert!(child.try_wait().unwrap().is_none(), "{command:?} ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut client = Client::connect_with(socket, 1, FEATURES);
        // qemu-storage-daemon switches blocking off for everybody who has the eventfd.
        let (call, kick) = (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(0).unwrap());
        let epoll = Epoll::new().unwrap();
        epoll.ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        let at = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            ..vring(&client.queues[0].ring)
        };
        client.frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
        client.frontend.set_vring_addr(0, &at).unwrap();
        client.frontend.set_vring_base(0, 0).unwrap();
        client.frontend.set_vring_call(0, &call).unwrap();
        client.frontend.set_vring_kick(0, &kick).unwrap();
        client.frontend.set_vring_enable(0, true).unwrap();
        let server = Self {
            child,
            client,
            call,
            epoll,
            kick,
            available: 0,
            used: 0,
            random: 88172645463325252,
            next: 0,
        };
        server.pin();
        server
    }

    /// All threads of the server to every CPU but the client's.
    fn pin(&self) {
        let mut others = sched_getaffinity(None).unwrap();
        if others.count() > 1 {
            others.unset(first_cpu());
        }
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let task: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
            let _ = sched_setaffinity(Pid::from_raw(task), &others);
        }
    }

    /// CPU time of all its threads.
    fn cpu(&self) -> Duration {
        // From the scheduler, in nanoseconds; the ticks of `stat` are too coarse.
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Resident memory in KiB that is its own, not shared.
    fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        field("Private_Clean:") + field("Private_Dirty:")
    }

    fn place(&mut self, work: &Workload) -> u64 {
        let places = FILE_SIZE / u64::from(work.bytes);
        let place = if work.random {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % places
        } else {
            self.next = (self.next + 1) % places;
            self.next
        };
        place * u64::from(work.bytes) / 512
    }

    /// Requests, and the CPU time and time they took.
    fn round(&mut self, work: &Workload) -> (u64, Duration, Duration) {
        let memory = std::sync::Arc::clone(&self.client.queues[0].ring.memory);
        let area = memory.get_slice(GuestAddress(0), 0x1_0000).unwrap();
        let [table, available, used] = self.client.queues[0].ring.addresses().map(|at| at as usize);
        let write = if work.kind == IN { 2u16 } else { 0 };
        for slot in 0..work.depth {
            let (header, data) = (header(slot), DATA + u64::from(slot) * u64::from(work.bytes));
            let chain = [
                (header, 16u32, 1u16, slot * 3 + 1),
                (data, work.bytes, 1 | write, slot * 3 + 2),
                (header + 16, 1, 2, 0),
            ];
            for (n, (address, length, flags, next)) in chain.into_iter().enumerate() {
                let at = table + (usize::from(slot) * 3 + n) * 16;
                area.write_obj(address, at).unwrap();
                area.write_obj(length, at + 8).unwrap();
                area.write_obj(flags, at + 12).unwrap();
                area.write_obj(next, at + 14).unwrap();
            }
        }
        let ring = Rings { area, available, used };
        let (cpu, start) = (self.cpu(), Instant::now());
        let (mut sent, mut done) = (0u64, 0u64);
        let mut fresh: Vec<u16> = (0..work.depth).collect();
        loop {
            let old = self.available;
            if start.elapsed() < ROUND {
                for slot in fresh.drain(..) {
                    let sector = self.place(work);
                    let at = header(slot) as usize;
                    ring.area.write_obj(u64::from(work.kind), at).unwrap();
                    ring.area.write_obj(sector, at + 8).unwrap();
                    ring.area.write_obj(0xFFu8, at + 16).unwrap();
                    let place = ring.available + 4 + usize::from(self.available % QUEUE_SIZE) * 2;
                    ring.area.write_obj(slot * 3, place).unwrap();
                    self.available = self.available.wrapping_add(1);
                    sent += 1;
                }
            }
            if old != self.available {
                ring.area.store(self.available, ring.available + 2, Ordering::Release).unwrap();
                fence(Ordering::SeqCst);
                let event: u16 =
                    ring.area.load(ring.used + 4 + usize::from(QUEUE_SIZE) * 8, Ordering::Relaxed).unwrap();
                let new = self.available;
                if new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old) {
                    self.kick.write(1).unwrap();
                }
            }
            if done == sent {
                break;
            }
            // Tell us of the next one, and look once more before sleeping.
            let event = ring.available + 4 + usize::from(QUEUE_SIZE) * 2;
            ring.area.store(self.used, event, Ordering::Relaxed).unwrap();
            fence(Ordering::SeqCst);
            if ring.used_index() == self.used {
                self.epoll.wait(-1, &mut [EpollEvent::default()]).unwrap();
                self.call.read().unwrap();
            }
            let index = ring.used_index();
            while self.used != index {
                let place = ring.used + 4 + usize::from(self.used % QUEUE_SIZE) * 8;
                let head: u32 = ring.area.read_obj(place).unwrap();
                let slot = head as u16 / 3;
                let status: u8 = ring.area.read_obj(header(slot) as usize + 16).unwrap();
                assert_eq!(status, OK, "{}", work.name);
                fresh.push(slot);
                self.used = self.used.wrapping_add(1);
                done += 1;
            }
        }
        (done, self.cpu().saturating_sub(cpu), start.elapsed())
    }
}

struct Rings<'a> {
    area: VolatileSlice<'a>,
    available: usize,
    used: usize,
}

impl Rings<'_> {
    fn used_index(&self) -> u16 {
        self.area.load(self.used + 2, Ordering::Acquire).unwrap()
    }
}

fn header(slot: u16) -> u64 {
    HEADERS + u64::from(slot) * 32
}

fn first_cpu() -> usize {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn tdispd(directory: &Path, image: &Path, direct: bool, poll_us: u32) -> Server {
    let program = env::var_os("TDISPD").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/tdispd")),
        PathBuf::from,
    );
    let (config, socket) = (directory.join("disk.toml"), directory.join("tdispd"));
    let block = if direct { 4096 } else { 512 };
    let text = format!(
        "[disk]\npath = {:?}\ndirect = {direct}\nblock_size = {block}\npoll_us = {poll_us}\n",
        image.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.env("RUST_LOG", "warn").arg("--vhost-user").arg(&socket).arg("--config").arg(&config);
    Server::start(command, &socket)
}

fn storage_daemon(directory: &Path, image: &Path, direct: bool, poll_us: u32) -> Server {
    let program = env::var_os("QSD").unwrap_or_else(|| "qemu-storage-daemon".into());
    let socket = directory.join("qsd");
    let cache = if direct { "on" } else { "off" };
    let mut command = Command::new(program);
    command
        .arg("--object")
        .arg(format!("iothread,id=io,poll-max-ns={}", u64::from(poll_us) * 1000))
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=disk,filename={},aio=io_uring,cache.direct={cache},discard=unmap",
            image.display()
        ))
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={},writable=on,num-queues=1,iothread=io",
            socket.display()
        ));
    Server::start(command, &socket)
}

fn main() {
    let place =
        env::var_os("DIRECTORY").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let directory = tempfile::tempdir_in(place).unwrap();
    let image = directory.path().join("image");
    let file = File::create(&image).unwrap();
    for part in 0..FILE_SIZE >> 20 {
        file.write_all_at(&vec![part as u8 | 1; 1 << 20], part << 20).unwrap();
    }
    file.sync_all().unwrap();

    let mut first = CpuSet::new();
    first.set(first_cpu());
    for (direct, poll_us) in [(false, 0), (false, 32), (true, 0), (true, 32)] {
        let sockets = tempfile::tempdir().unwrap();
        let mut servers = [
            tdispd(sockets.path(), &image, direct, poll_us),
            storage_daemon(sockets.path(), &image, direct, poll_us),
        ];
        let all = sched_getaffinity(None).unwrap();
        if all.count() > 1 {
            sched_setaffinity(None, &first).unwrap();
        }
        let cache = if direct { "past the page cache" } else { "through the page cache" };
        println!("\n{cache}, polling for {poll_us} µs: tdispd | qemu-storage-daemon | ratio");
        for work in &WORKLOADS {
            let mut figures = [const { (Vec::new(), Vec::new()) }; 2];
            for _ in 0..ROUNDS {
                for (server, figures) in servers.iter_mut().zip(&mut figures) {
                    let (requests, cpu, time) = server.round(work);
                    figures.0.push(requests as f64 / time.as_secs_f64());
                    figures.1.push(cpu.as_secs_f64() * 1e6 / requests as f64);
                }
            }
            let [(ours, our_cpu), (theirs, their_cpu)] =
                figures.map(|(rates, cpu)| (median(rates), median(cpu)));
            println!(
                "{:26} {ours:8.0}/s {our_cpu:6.2} µs CPU | {theirs:8.0}/s {their_cpu:6.2} µs CPU | {:5.2}× as many, {:5.2}× the CPU",
                work.name,
                ours / theirs,
                our_cpu / their_cpu,
            );
        }
        let [ours, theirs] = [servers[0].memory(), servers[1].memory()];
        println!("memory of its own: {ours} KiB | {theirs} KiB");
        sched_setaffinity(None, &all).unwrap();
    }
}
