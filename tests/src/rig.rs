//! A device in this process: built from a configuration, served by the real daemon in a thread of its own, gone with the
//! test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tdispd::config::{Config, DmaBuf};
use tdispd::daemon::{Daemon, End};
use tdispd::device::Device;
use tdispd::spdm_socket::{Silence, SpdmSocket};
use tdispd::vfio_user::Listener;
use tempfile::TempDir;

/// A running device.
pub struct Rig {
    stop: UnixStream,
    firmware: UnixStream,
    thread: Option<JoinHandle<End>>,
    sockets: Vec<PathBuf>,
    control: PathBuf,
    _directory: TempDir,
}

impl Rig {
    /// The default device.
    pub fn new() -> Self {
        Self::with("", 1)
    }

    /// The device of a configuration file's text, with this many functions.
    pub fn with(toml: &str, functions: usize) -> Self {
        Self::of(parsed(toml, functions))
    }

    /// The same, with data objects over TCP at this address, too.
    pub fn with_spdm_socket(toml: &str, functions: usize) -> (Self, SocketAddr) {
        let socket = SpdmSocket::bind(([127, 0, 0, 1], 0).into(), Silence::Empty).unwrap();
        let address = socket.address().unwrap();
        (Self::start(parsed(toml, functions), Some(socket)), address)
    }

    /// The device of a configuration, with a socket for each function that it has.
    pub fn of(config: Config) -> Self {
        Self::start(config, None)
    }

    fn start(mut config: Config, spdm: Option<SpdmSocket>) -> Self {
        // The same on every machine. Tests also read(2) what they are given, which a dma-buf cannot.
        if config.mmio.dmabuf == DmaBuf::Auto {
            config.mmio.dmabuf = DmaBuf::Memfd;
        }
        let directory = tempfile::Builder::new().prefix("tdispd-rig-").tempdir().unwrap();
        let functions = config.functions.len();
        config.check().unwrap();
        let device = Device::new(&config, None).unwrap();
        let sockets: Vec<_> = (0..functions).map(|n| directory.path().join(format!("f{n}"))).collect();
        let listeners = sockets.iter().map(|path| Listener::bind(path).unwrap()).collect();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let control = directory.path().join("control");
        let mut daemon = Daemon::new(device, listeners, spdm, stopped.into()).unwrap();
        let (firmware, updated) = UnixStream::pair().unwrap();
        daemon.follow_firmware(updated.into()).unwrap();
        daemon.control(Listener::bind(&control).unwrap()).unwrap();
        let thread = std::thread::spawn(move || daemon.run().unwrap());
        Self { stop, firmware, thread: Some(thread), sockets, control, _directory: directory }
    }

    /// Has the device look for a firmware update, as SIGHUP does.
    pub fn update_firmware(&mut self) {
        self.firmware.write_all(&[0]).unwrap();
    }

    /// Waits until the device ends by itself, and returns why it did.
    pub fn wait(mut self) -> End {
        self.thread.take().unwrap().join().unwrap()
    }

    /// The control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The socket of a function.
    pub fn socket(&self, function: usize) -> &Path {
        &self.sockets[function]
    }
}

fn parsed(toml: &str, functions: usize) -> Config {
    let config: Config = toml::from_str(toml).unwrap();
    config.for_sockets(functions).unwrap()
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.stop.write_all(&[0]);
        if let Some(thread) = self.thread.take() {
            let served = thread.join();
            // A panic of the device is a failure of the test, unless the test fails already.
            assert!(served.is_ok() || std::thread::panicking(), "the device panicked");
        }
    }
}
