//! `tdispd`: command line, logging, exit codes. Everything else is in the library.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tdispd::bars;
use tdispd::certs::{self, CertsError};
use tdispd::cli::{Arguments, Command};
use tdispd::config::Config;
use tdispd::daemon::{Daemon, End};
use tdispd::device::{BuildError, Device};
use tdispd::log_limit::Limited;
use tdispd::spdm_socket::SpdmSocket;
use tdispd::vfio_user::Listener;
use tdispd::vhost_user::{self, VhostUser};

/// The host failed.
const EXIT_HOST: u8 = 1;
/// The command line or the configuration is wrong.
const EXIT_USAGE: u8 = 2;

/// The host met a machine check.
const EXIT_MACHINE_CHECK: u8 = 3;

/// A message for the user, and the exit code.
struct Failure(String, u8);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    start_log(level);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message, code)) => {
            eprintln!("tdispd: {message}");
            ExitCode::from(code)
        }
    }
}

/// RUST_LOG has the last word.
fn start_log(level: &str) {
    let logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).build();
    let most = logger.filter();
    if log::set_boxed_logger(Box::new(Limited::new(logger))).is_ok() {
        log::set_max_level(most);
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure(error.to_string(), EXIT_USAGE);
    let host = |error: &dyn std::fmt::Display| Failure(error.to_string(), EXIT_HOST);
    if let Some(command) = &arguments.command {
        let text = match command {
            Command::Certs(command) => certs::run(command).map_err(|error| match error {
                CertsError::Build(BuildError::Config(_)) => usage(&error),
                CertsError::Build(_)
                | CertsError::Write(_)
                | CertsError::Read { .. }
                | CertsError::Unusable { .. } => host(&error),
            })?,
            Command::Bars(command) => bars::run(command, bars::colours()).map_err(|error| usage(&error))?,
        };
        print!("{text}");
        return Ok(());
    }
    let config = arguments.device.config().map_err(|error| usage(&error))?;
    // Without sockets it is one function, or those of the file.
    let functions =
        if arguments.sockets.is_empty() { config.functions.len().max(1) } else { arguments.sockets.len() };
    let config = config.for_sockets(functions).map_err(|error| usage(&error))?;
    if arguments.print_config {
        let standalone = arguments.sockets.is_empty() && arguments.spdm_socket.is_some();
        print!("{}", config.effective(standalone).to_toml().map_err(|error| host(&error))?);
        return Ok(());
    }
    let disk = match &arguments.vhost_user {
        Some(path) => Some(serve_disk(path, &config)?),
        None => None,
    };
    if arguments.sockets.is_empty() && arguments.spdm_socket.is_none() {
        // Only a disk: there is no device to make.
        let stop = signals(&[SIGTERM, SIGINT]).map_err(|error| host(&error))?;
        wait_for(&stop).map_err(|error| host(&error))?;
        drop(disk);
        log::info!("ended as asked");
        return Ok(());
    }
    let build = if arguments.sockets.is_empty() { Device::standalone } else { Device::new };
    let device = build(&config, arguments.device.state_dir.as_deref()).map_err(|error| match error {
        BuildError::Config(_) => usage(&error),
        BuildError::State(_) | BuildError::Memory(_) | BuildError::Udmabuf(_) => host(&error),
    })?;
    // First, so that whoever finds a function's socket finds this one.
    let control =
        arguments.control.as_deref().map(Listener::bind).transpose().map_err(|error| host(&error))?;
    let listeners = arguments
        .sockets
        .iter()
        .map(|path| Listener::bind(path))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| host(&error))?;
    let spdm = match arguments.spdm_socket {
        Some(address) => {
            let cannot = |error| host(&format!("--spdm-socket {address}: {error}"));
            let socket = SpdmSocket::bind(address, config.spdm.silence).map_err(cannot)?;
            log::info!("SPDM socket: waiting on {}", socket.address().map_err(cannot)?);
            Some(socket)
        }
        None => None,
    };
    raise_descriptor_limit();
    let stop = signals(&[SIGTERM, SIGINT]).map_err(|error| host(&error))?;
    let firmware = signals(&[SIGHUP]).map_err(|error| host(&error))?;
    let mut daemon = Daemon::new(device, listeners, spdm, stop).map_err(|error| host(&error))?;
    daemon.follow_firmware(firmware).map_err(|error| host(&error))?;
    if let Some(listener) = control {
        daemon.control(listener).map_err(|error| host(&error))?;
    }
    for (number, path) in arguments.sockets.iter().enumerate() {
        log::info!("function {number}: waiting on {}", path.display());
    }
    match daemon.run().map_err(|error| host(&error))? {
        End::Asked => {
            log::info!("ended as asked");
            Ok(())
        }
        End::MachineCheck => {
            let message = "ended by a machine check (machine_check = \"exit\")".into();
            Err(Failure(message, EXIT_MACHINE_CHECK))
        }
    }
}

/// Opens the disk and serves it.
fn serve_disk(path: &Path, config: &Config) -> Result<VhostUser, Failure> {
    let disk = config.disk.open("disk").map_err(|error| Failure(error.to_string(), EXIT_USAGE))?;
    let host = |error: &dyn std::fmt::Display| Failure(error.to_string(), EXIT_HOST);
    let listener = Listener::bind(path).map_err(|error| host(&error))?;
    let settings = vhost_user::Settings {
        client_memory: config.disk.client_memory,
        poll: Duration::from_micros(config.disk.poll_us.into()),
    };
    raise_descriptor_limit();
    let served = VhostUser::start(listener, Arc::new(disk), settings).map_err(|error| host(&error))?;
    log::info!("disk: waiting on {}", path.display());
    Ok(served)
}

/// Waits until `stop` is readable.
fn wait_for(stop: &OwnedFd) -> io::Result<()> {
    let mut waiting = [PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(drop).map_err(io::Error::from),
        }
    }
}

/// A descriptor that is readable once one of these signals came.
fn signals(signals: &[i32]) -> io::Result<OwnedFd> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader.into())
}

/// A client may pass a file for each piece of its memory and an eventfd for each vector: more than the usual soft limit.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {errno}");
    }
}
