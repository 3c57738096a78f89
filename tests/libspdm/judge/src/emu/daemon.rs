//! The real `tdispd --spdm-socket`, as a process: where it listens, what it logs, how it ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// What its log says before the address.
const WAITING: &str = "SPDM socket: waiting on ";

/// A running device, and the directory with its files; both are gone when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    directory: PathBuf,
}

/// The program: `ci/interop` builds it and says where it is.
fn program() -> PathBuf {
    std::env::var_os("TDISPD").expect("TDISPD names the program; ci/interop sets it").into()
}

impl Daemon {
    /// Starts a device of this configuration on a port of its own.
    pub fn start(configuration: impl FnOnce(&Path) -> String) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("judge-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let (file, state) = (directory.join("device.toml"), directory.join("state"));
        std::fs::write(&file, configuration(&directory)).unwrap();
        let mut child = Command::new(program())
            .args(["--spdm-socket", "0", "-v", "--config"])
            .arg(&file)
            .arg("--state-dir")
            .arg(&state)
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG")
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = follow(&mut child, Arc::clone(&log));
        let address = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("tdispd does not say where it listens:\n{}", log.lock().unwrap());
        });
        Self { child, address, log, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root of a slot's chain, as DER.
    pub fn root(&self, slot: u8) -> Vec<u8> {
        let out = self.directory.join("certificates");
        let exported = Command::new(program())
            .args(["certs", "export", "--config"])
            .arg(self.directory.join("device.toml"))
            .arg("--state-dir")
            .arg(self.directory.join("state"))
            .arg(&out)
            .status()
            .unwrap();
        assert!(exported.success());
        let chain = std::fs::read(out.join(format!("slot{slot}.chain.der"))).unwrap();
        // A DER certificate is a SEQUENCE with a two-byte length.
        assert_eq!(chain[..2], [0x30, 0x82]);
        let length = 4 + usize::from(u16::from_be_bytes([chain[2], chain[3]]));
        chain[..length].to_vec()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for its end: its exit code, if it has one.
    pub fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

/// Collects the log; the address arrives once it is in there.
fn follow(child: &mut Child, log: Arc<Mutex<String>>) -> Receiver<SocketAddr> {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (found, address) = channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if let Some((_, text)) = line.split_once(WAITING) {
                let _ = found.send(text.trim().parse().unwrap());
            }
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    address
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
