//! One 4-byte REGION_READ against a bare socketpair ping-pong of the same sizes: through the server to a device that does nothing,
//! and through the whole daemon with its gate to a register of a BAR.
//!
//! Both ends of both run on one CPU: across CPUs the scheduler's wake-ups hide what the server itself costs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../tests/vfio_user_support/mod.rs"]
mod vfio_user_support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
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

/// The medians of many short runs by turns, so that whatever else the machine does meets all of them.
fn medians<const N: usize>(mut streams: [&mut UnixStream; N], request: &[u8]) -> [Duration; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..400 {
        for (stream, times) in streams.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..100 {
                round_trip(stream, request);
            }
            times.push(start.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2] / 100
    })
}

fn main() {
    pin_to_one_cpu();
    let request = request();
    let mut bare = echo();
    let host = Host::start();
    let mut server = host.client().stream;
    let (_rig, mut device) = device();
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    criterion.bench_function("bare ping-pong", |b| b.iter(|| round_trip(&mut bare, &request)));
    criterion.bench_function("region read", |b| b.iter(|| round_trip(&mut server, &request)));
    criterion.bench_function("BAR register read", |b| b.iter(|| round_trip(&mut device, &request)));
    let [bare, server, device] = medians([&mut bare, &mut server, &mut device], &request);
    println!("bare {bare:?}, server {server:?}, device {device:?}");
    let ratio = |time: Duration| time.as_secs_f64() / bare.as_secs_f64();
    println!("region read / bare ping-pong = {:.3}", ratio(server));
    println!("BAR register read / bare ping-pong = {:.3}", ratio(device));
    criterion.final_summary();
}
