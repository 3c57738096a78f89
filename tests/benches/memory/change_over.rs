//! Private memory of one GiB goes from the host to nobody, to the TVM, and back; beside writing a GiB and giving it back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{FallocateFlags, SealFlags, fallocate};
use tdispd_proto::vfio_user::Command;
use tests::host::Host;
use tests::rig::Rig;

use super::support::{Spread, seconds};
use super::vfio_user_support::{Client, memfd};

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 3;
const WINDOW_OF_BAR0: u32 = 9;

/// What is done to the memory.
#[derive(Clone, Copy)]
struct Case {
    /// The host writes all of it before LOCK, and the TVM in RUN.
    written: bool,
    /// Exports of all of it, T = 0 before LOCK and T = 1 between LOCK and START, are alive when they are revoked.
    held: bool,
    policy: &'static str,
}

/// Seconds, and bytes.
#[derive(Default)]
struct Measured {
    lock: f64,
    /// The T = 1 export of CONFIG_LOCKED, if there is one.
    export: f64,
    start: f64,
    stop: f64,
    /// How long another function's client waited for a register at most.
    wait: f64,
    /// Memory in files at most, beyond what it was.
    memory: f64,
    write: f64,
    punch: f64,
}

fn write_all(file: &File) {
    let chunk = vec![0x5A; 1 << 20];
    for offset in (0..GIB).step_by(chunk.len()) {
        file.write_all_at(&chunk, offset).unwrap();
    }
}

/// Memory in files of memory on this machine, in bytes.
fn in_files() -> f64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Shmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Calls `look` again and again, and keeps the largest of what it returns.
struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Observer {
    fn of(mut look: impl FnMut() -> f64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut most = 0_f64;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(look());
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        Self { stop, thread }
    }

    fn most(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The longest read of the second function.
fn neighbour(socket: &Path) -> Observer {
    let mut client = Client::connect(socket);
    client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.request(Command::VERSION, &[0; 4]).unwrap();
    Observer::of(move || seconds(|| drop(client.read(7, 0, 4).unwrap())))
}

impl Case {
    fn words(self) -> String {
        let Self { written, held, policy } = self;
        let written = if written { "written" } else { "untouched" };
        let held = if held { "exports held" } else { "no exports" };
        format!("{written}, {held}, {policy}")
    }

    fn measure(self) -> Measured {
        let toml = format!(
            "[mmio]\ntee = \"region\"\nrevoke = \"{}\"\ndmabuf = \"memfd\"\n[[function]]\nmsix = false\n[[function.bar]]\nindex = 0\n\
             width = 64\n[[function.bar.range]]\nkind = \"memory\"\nsize = \"1G\"\nside = \"private\"\n[[function]]\n",
            self.policy
        );
        let rig = Rig::with(&toml, 2);
        let mut host = Host::plug(rig.socket(0));
        let mut all = Measured::default();
        (all.write, all.punch) = bare();
        let before = in_files();
        let memory = Observer::of(in_files);
        let neighbour = neighbour(rig.socket(1));
        host.session();
        host.secure_stream();
        let export =
            |host: &mut Host, region: u32| File::from(host.device.dma_buf(region, &[(0, GIB)]).unwrap());
        let shared = export(&mut host, 0);
        if self.written {
            write_all(&shared);
        }
        let shared = self.held.then_some(shared);
        let mut nonce = None;
        all.lock = seconds(|| nonce = Some(host.lock(0)));
        let mut private = None;
        if self.held {
            all.export = seconds(|| private = Some(export(&mut host, WINDOW_OF_BAR0)));
        }
        all.start = seconds(|| host.start(0, nonce.take().unwrap()));
        let private = private.unwrap_or_else(|| export(&mut host, WINDOW_OF_BAR0));
        if self.written {
            write_all(&private);
        }
        let private = self.held.then_some(private);
        all.stop = seconds(|| host.stop(0));
        drop((shared, private));
        all.wait = neighbour.most();
        all.memory = memory.most() - before;
        drop(rig);
        let (write, punch) = bare();
        all.write = f64::midpoint(all.write, write);
        all.punch = f64::midpoint(all.punch, punch);
        all
    }

    /// In units of writing a GiB, but for memory.
    fn report(self) {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| self.measure()).collect();
        let column = |of: Column| Spread::of(rounds.iter().map(of).collect());
        println!("{}:", self.words());
        let columns: [(&str, Column); 7] = [
            ("  LOCK", |all| all.lock / all.write),
            ("  T = 1 export before RUN", |all| all.export / all.write),
            ("  START", |all| all.start / all.write),
            ("  STOP", |all| all.stop / all.write),
            ("  the longest wait of another function's client", |all| all.wait / all.write),
            ("  (giving a GiB back)", |all| all.punch / all.write),
            ("  memory in use at most, in GiB", |all| all.memory / GIB as f64),
        ];
        for (name, of) in columns {
            if self.held || !name.contains("export") {
                println!("{name:<52} {}", column(of));
            }
        }
    }
}

/// What a column of the report has of each round.
type Column = fn(&Measured) -> f64;

/// Writing a GiB of a memfd, and giving it back.
fn bare() -> (f64, f64) {
    let file = File::from(memfd(GIB, SealFlags::empty()));
    let write = seconds(|| write_all(&file));
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punch = seconds(|| fallocate(&file, flags, 0, GIB).unwrap());
    (write, punch)
}

pub(super) fn run() {
    println!("change-over of 1 GiB / writing 1 GiB:");
    for (written, held, policy) in [
        (false, false, "orphan"),
        (true, false, "orphan"),
        (true, true, "orphan"),
        (true, true, "sigbus"),
        (false, true, "keep"),
        (true, true, "keep"),
    ] {
        Case { written, held, policy }.report();
    }
}
