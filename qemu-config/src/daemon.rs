//! `tdispd` as a child process: started, awaited, stopped with its owner.

use crate::child::OwnedChild;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The first start generates keys and certificates.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It did not start.
    #[error("cannot run {program}: {source}")]
    NotRun {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its log cannot be written.
    #[error("cannot write {path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before its sockets were there.
    #[error("tdispd ended ({status}):\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it logged.
        log: String,
    },
    /// No socket in time.
    #[error("tdispd has not created {} in {} s", .0.display(), START_TIMEOUT.as_secs())]
    NoSocket(PathBuf),
    /// It ignores SIGTERM.
    #[error("tdispd is still running {} s after SIGTERM", STOP_TIMEOUT.as_secs())]
    StillRunning,
    /// Waiting for it failed.
    #[error("waiting for tdispd: {0}")]
    Wait(#[from] io::Error),
}

/// A running `tdispd`. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: OwnedChild,
    log: PathBuf,
}

impl Daemon {
    /// Starts `tdispd` with one `--socket` for each path and further arguments; returns when all sockets are there.
    /// What it logs goes to the file `log`.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        program: &Path,
        sockets: &[PathBuf],
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self, DaemonError> {
        Self::start_with("--socket", program, sockets, arguments, log)
    }

    /// Starts `tdispd` as a disk only, with `--vhost-user` and further arguments; returns when its socket is there.
    pub fn disk<A: AsRef<std::ffi::OsStr>>(
        program: &Path,
        socket: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self, DaemonError> {
        Self::start_with("--vhost-user", program, &[socket.to_owned()], arguments, log)
    }

    fn start_with<A: AsRef<std::ffi::OsStr>>(
        option: &str,
        program: &Path,
        sockets: &[PathBuf],
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self, DaemonError> {
        let log_error = |source| DaemonError::Log { path: log.to_owned(), source };
        let file = File::create(log).map_err(log_error)?;
        let copy = file.try_clone().map_err(log_error)?;
        let mut command = Command::new(program);
        for socket in sockets {
            command.arg(option).arg(socket);
        }
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .spawn()
            .map_err(|source| DaemonError::NotRun { program: program.to_owned(), source })?;
        let mut daemon = Self { child: OwnedChild::new(child), log: log.to_owned() };
        for socket in sockets {
            daemon.wait_for(socket)?;
        }
        Ok(daemon)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.ended(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    pub fn stop(mut self) -> Result<ExitStatus, DaemonError> {
        self.child.terminate()?;
        self.child.wait(STOP_TIMEOUT)?.ok_or(DaemonError::StillRunning)
    }

    fn wait_for(&mut self, socket: &Path) -> Result<(), DaemonError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !socket.exists() {
            if let Some(status) = self.child.ended()? {
                return Err(DaemonError::Ended { status, log: self.log() });
            }
            if Instant::now() >= deadline {
                return Err(DaemonError::NoSocket(socket.to_owned()));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
