//! `tdispctl guest`: the agent of a guest that has a function. It knows its TSM by a key, the device by its certificates, and its host
//! by nothing: what the host carries is checked at this end.

mod agent;
mod arguments;
mod judge;
pub mod policy;
pub mod port;
pub mod sealed;
mod view;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use spdm::crypto::{DefaultProvider, Provider};
use tdisp::wire::TdiState;

use self::agent::Agent;
pub use self::arguments::{AcceptArgs, GuestArgs, GuestCommand};
use self::policy::Policy;
use self::port::Port;
use self::sealed::Key;
use self::view::View;
use crate::cli::Options;
use crate::error::{Error, Result};
use crate::output::Output;

/// Virtio-serial ports in sysfs, and the name of the agent's.
const PORTS: &str = "/sys/class/virtio-ports";
const PORT_NAME: &str = "tdispd.guest";
/// A question goes through guest, host, TSM and device; the host's kernel gives the TSM 30 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// Carries out `guest`, tells its end, and returns the exit code.
pub fn run(command: &GuestCommand, options: &Options, mut output: Output) -> u8 {
    let result = check(options).and_then(|()| carry_out(command, options, &mut output));
    output.finish(result)
}

fn carry_out(command: &GuestCommand, options: &Options, output: &mut Output) -> Result<()> {
    match command {
        GuestCommand::Accept(args) => {
            // What is wrong in the guest itself is told before the host hears of anything.
            let (policy, roots) = Policy::read(&args.policy)?;
            let view = View::look(args.function)?;
            agent(&args.guest, options, output)?.accept(&view, &policy, &roots)
        }
        GuestCommand::State(args) => agent(args, options, output)?.expect_state(TdiState::RUN),
        GuestCommand::Release(args) => agent(args, options, output)?.release(),
    }
}

fn agent<'a>(args: &GuestArgs, options: &Options, output: &'a mut Output) -> Result<Agent<'a, File>> {
    let key = Key::read(&args.key)?;
    let path = args.port.clone().map_or_else(find_port, Ok)?;
    // Linux opens a virtio-serial port once at a time.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .map_err(Error::io(path.display().to_string()))?;
    let mut first = [0; 4];
    DefaultProvider::new().random(&mut first).map_err(|e| Error::Verification(format!("a number: {e}")))?;
    let patience = options.timeout.map_or(PATIENCE, Duration::from_secs_f64);
    Ok(Agent::new(Port::new(file, u32::from_le_bytes(first), patience), key, output))
}

fn find_port() -> Result<PathBuf> {
    let missing = |e: Option<io::Error>| {
        let why = e.map(|e| format!(": {e}")).unwrap_or_default();
        Error::NoDevice(format!("no virtio-serial port with the name {PORT_NAME}{why}; --port names another"))
    };
    for entry in std::fs::read_dir(PORTS).map_err(|e| missing(Some(e)))? {
        let entry = entry.map_err(|e| missing(Some(e)))?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(missing(None))
}

/// The function is the guest's own, and its host's sessions are none of its business.
fn check(options: &Options) -> Result<()> {
    let why = "guest takes no target, no --session and no root: the policy has them";
    if options.root_cert.is_some() || options.root_hash.is_some() {
        return Err(Error::Usage(why.into()));
    }
    options.without_target(why)
}
