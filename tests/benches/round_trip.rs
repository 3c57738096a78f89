//! One 4-byte REGION_READ against a bare socketpair ping-pong of the same sizes: through the server to a device that does nothing,
//! and through the whole daemon with its gate to a register of a BAR. And a notification of a virtio disk, to the interrupt that says
//! that its request was carried out.
//!
//! Once as the scheduler likes, and once with both ends of everything on one CPU: across CPUs its wake-ups hide what the server itself
//! costs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/notifier.rs"]
mod notifier;
mod support;
#[path = "../tests/vfio_user_support/mod.rs"]
mod vfio_user_support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use criterion::Criterion;
use notifier::Notifier;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::{Spread, by_turns, row};
use tdispd_proto::vfio_user::{Command, RegionAccess, put_request};
use tests::rig::Rig;
use vfio_user_support::{Client, Host};
use zerocopy::IntoBytes;

const REPLY: usize = 16 + 16 + 4;

fn request() -> Vec<u8> {
    let mut out = Vec::new();
    put_request(&mut out, 1, Command::REGION_READ, false, &[RegionAccess::new(0, 0x40, 4).as_bytes()]);
    out
}

/// Threads started from here on inherit the CPU.
fn pin_to_one_cpu() {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}

fn round_trip(stream: &mut UnixStream, request: &[u8]) {
    stream.write_all(request).unwrap();
    stream.read_exact(&mut [0; REPLY]).unwrap();
}

fn echo() -> UnixStream {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut request = request();
    std::thread::spawn(
        move || {
            while far.read_exact(&mut request).is_ok() && far.write_all(&[0; REPLY]).is_ok() {}
        },
    );
    near
}

/// A device with its memory switched on, and a client of it.
fn device() -> (Rig, UnixStream) {
    let rig = Rig::new();
    let mut client = Client::connect(rig.socket(0));
    client.request(Command::VERSION, &[0; 4]).unwrap();
    let memory_space = 2_u16.to_le_bytes();
    client.write(7, 4, &memory_space).unwrap();
    assert_eq!(client.read(0, 0, 4).unwrap(), *b"TDSP");
    (rig, client.stream)
}

/// A bare server, one in front of a device that does nothing, and a whole device, each with a client.
struct Servers {
    bare: UnixStream,
    server: UnixStream,
    device: UnixStream,
    notifier: Notifier,
    _host: Host,
    _rig: Rig,
}

impl Servers {
    fn start() -> Self {
        let host = Host::start();
        let (rig, device) = device();
        let server = host.client().stream;
        Self { bare: echo(), server, device, notifier: Notifier::start(), _host: host, _rig: rig }
    }

    /// Many short runs by turns.
    fn compare(&mut self, request: &[u8], place: &str) {
        const EACH: usize = 100;
        let many = |stream: &mut UnixStream| (0..EACH).for_each(|_| round_trip(stream, request));
        let Self { bare, server, device, notifier, .. } = self;
        let [bare, server, device, interrupts] = by_turns(
            600,
            [&mut || many(bare), &mut || many(server), &mut || many(device), &mut || {
                (0..EACH).for_each(|_| notifier.once())
            }],
        );
        assert!(self.notifier.is_content());
        let micros = Spread::of(bare.iter().map(|seconds| seconds / EACH as f64 * 1e6).collect());
        row(&format!("bare ping-pong, {place}, in µs"), micros);
        row(
            &format!("REGION_READ, server alone / bare ping-pong, {place}"),
            Spread::of_ratios(&server, &bare),
        );
        row(
            &format!("REGION_READ of a BAR register / bare ping-pong, {place}"),
            Spread::of_ratios(&device, &bare),
        );
        row(
            &format!("notification of a disk to its interrupt / bare ping-pong, {place}"),
            Spread::of_ratios(&interrupts, &bare),
        );
    }
}

fn main() {
    let request = request();
    let mut anywhere = Servers::start();
    // Threads started before stay where they were.
    let everywhere = sched_getaffinity(None).unwrap();
    pin_to_one_cpu();
    let mut together = Servers::start();
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    for (name, stream) in [
        ("bare ping-pong", &mut together.bare),
        ("REGION_READ, server alone", &mut together.server),
        ("REGION_READ of a BAR register", &mut together.device),
    ] {
        criterion.bench_function(name, |b| b.iter(|| round_trip(stream, &request)));
    }
    together.compare(&request, "one CPU");
    sched_setaffinity(None, &everywhere).unwrap();
    anywhere.compare(&request, "any CPU");
    criterion.final_summary();
}
