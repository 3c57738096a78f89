//! A running guest: starts QEMU, runs scripts in the guest, resets it, plugs devices in and out, and ends with its owner.

use crate::child::OwnedChild;
use crate::console::{Console, tail};
use crate::machine::{Machine, RunFiles};
use crate::qmp::{Qmp, QmpError};
use crate::shell::{Output, Shell, ShellError};
use crate::testbed::Testbed;
use serde_json::json;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// From start to init; about 6 s alone on a current machine under TCG, many times that on a busy one.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
const UNPLUG_TIMEOUT: Duration = Duration::from_secs(30);
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 25;

/// Why a guest does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A file of the run cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU did not start.
    #[error("cannot run {qemu}: {source}")]
    NotRun {
        /// The program.
        qemu: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU ended, or the guest's kernel panicked.
    #[error("{0}")]
    Gone(String),
    /// The command port failed.
    #[error("{error}\n--- QEMU is {state}\n{said}\n--- the console's last lines:\n{console}")]
    Shell {
        /// How.
        error: ShellError,
        /// QEMU's own word for the guest's state: `running`, `internal-error`, …
        state: String,
        /// The end of what QEMU printed.
        said: String,
        /// The end of the console's text.
        console: String,
    },
    /// A script that had to succeed did not.
    #[error("in the guest, '{script}' ended with {}\n{}{}", .output.code, .output.stdout, .output.stderr)]
    Script {
        /// The script.
        script: String,
        /// Its output and exit code.
        output: Output,
    },
    /// A QMP command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Waiting for something failed.
    #[error("waiting for QEMU: {0}")]
    Wait(#[from] io::Error),
    /// QEMU did not end in time.
    #[error("QEMU is still running after {} s", .0.as_secs())]
    StillRunning(Duration),
}

/// A guest whose init takes commands. QEMU is killed when it is dropped.
#[derive(Debug)]
pub struct Guest {
    // Dropped in this order: QEMU ends before its sockets' directory goes.
    child: OwnedChild,
    shell: Shell,
    qmp: Qmp,
    console: Console,
    errors: PathBuf,
    _sockets: TempDir,
}

impl Guest {
    /// Boots a guest and returns when it takes commands. `directory` receives `console.log` and `qemu.log`.
    pub fn start(
        testbed: &Testbed,
        initramfs: &[u8],
        machine: &Machine,
        directory: &Path,
    ) -> Result<Self, GuestError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| GuestError::File { path, source }
        };
        fs::create_dir_all(directory).map_err(file_error(directory))?;
        let errors = directory.join("qemu.log");
        let error_file = File::create(&errors).map_err(file_error(&errors))?;
        let console_path = directory.join("console.log");
        let console_file = File::create(&console_path).map_err(file_error(&console_path))?;
        // A socket's path may have 107 bytes; the caller's directory may be deeper.
        let sockets = tempfile::Builder::new().prefix("tdispd-guest-").tempdir()?;
        // Large and soon of no use: it goes when the guest goes.
        let image = sockets.path().join("initramfs");
        fs::write(&image, initramfs).map_err(file_error(&image))?;
        let shell_path = sockets.path().join("shell");
        let qmp_path = sockets.path().join("qmp");
        let mark = mark(sockets.path());

        let run = RunFiles {
            kernel: &testbed.kernel,
            initramfs: &image,
            shell: &shell_path,
            qmp: &qmp_path,
            mark: &mark,
        };
        let mut child = Command::new(&testbed.qemu)
            .args(machine.arguments(&run))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(error_file)
            .spawn()
            .map_err(|source| GuestError::NotRun { qemu: testbed.qemu.clone(), source })?;
        let console =
            child.stdout.take().map(|stream| Console::follow(stream, console_file)).unwrap_or_default();
        let mut child = OwnedChild::new(child);

        let qmp = Qmp::new(connect(&qmp_path, &mut child, &console, &errors)?)?;
        let shell = Shell::new(connect(&shell_path, &mut child, &console, &errors)?, &mark)?;
        let mut guest = Self { child, shell, qmp, console, errors, _sockets: sockets };
        guest.wait_until_ready()?;
        Ok(guest)
    }

    /// Runs a script with the guest's shell for at most a minute; any exit code is an answer.
    pub fn run(&mut self, script: &str) -> Result<Output, GuestError> {
        self.run_with(script, SCRIPT_TIMEOUT, &mut |_| {})
    }

    /// Runs a script for at most `timeout` (whole seconds). `line` gets each line of standard output as it comes.
    pub fn run_with(
        &mut self,
        script: &str,
        timeout: Duration,
        line: &mut dyn FnMut(&str),
    ) -> Result<Output, GuestError> {
        let Self { child, shell, console, errors, .. } = self;
        let mut watch = || gone(child, console, errors);
        let result = shell.run(script, timeout, &mut watch, line);
        result.map_err(|error| self.shell_error(error))
    }

    /// Runs a script that has to succeed and returns its standard output.
    pub fn check(&mut self, script: &str) -> Result<String, GuestError> {
        let output = self.run(script)?;
        if output.code == 0 {
            Ok(output.stdout)
        } else {
            Err(GuestError::Script { script: script.to_owned(), output })
        }
    }

    /// The guest's kernel restarts the machine; returns when the new boot takes commands.
    pub fn reboot(&mut self) -> Result<(), GuestError> {
        // In the background, so that this script ends before the machine does.
        self.check("(sleep 1; reboot -f) >/dev/null 2>&1 &")?;
        self.wait_until_ready()
    }

    /// Presses the reset button; returns when the new boot takes commands.
    pub fn reset(&mut self) -> Result<(), GuestError> {
        self.qmp.execute("system_reset", json!({}))?;
        self.wait_until_ready()
    }

    /// Plugs a function into an empty slot.
    pub fn plug(&mut self, slot: usize, socket: &Path) -> Result<(), GuestError> {
        self.qmp.execute("device_add", Machine::device(slot, 0, false, socket))?;
        Ok(())
    }

    /// Asks the guest to give up function 0 of a slot and returns when it is gone.
    pub fn unplug(&mut self, slot: usize) -> Result<(), GuestError> {
        let id = format!("slot{slot}-function0");
        self.qmp.execute("device_del", json!({ "id": &id }))?;
        let ours =
            |data: &serde_json::Value| data.get("device").and_then(|device| device.as_str()) == Some(&id);
        self.qmp.wait_for_event("DEVICE_DELETED", UNPLUG_TIMEOUT, ours)?;
        Ok(())
    }

    /// QEMU's machine protocol, for everything else.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the console has shown.
    pub fn console(&self) -> String {
        self.console.copy()
    }

    /// Ends QEMU in order.
    pub fn quit(mut self) -> Result<(), GuestError> {
        self.qmp.execute("quit", json!({}))?;
        match self.child.wait(QUIT_TIMEOUT)? {
            Some(status) if status.success() => Ok(()),
            Some(_) => {
                Err(GuestError::Gone(gone(&mut self.child, &self.console, &self.errors).unwrap_or_default()))
            }
            None => Err(GuestError::StillRunning(QUIT_TIMEOUT)),
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), GuestError> {
        let Self { child, shell, console, errors, .. } = self;
        let mut watch = || gone(child, console, errors);
        let result = shell.wait_until_ready(BOOT_TIMEOUT, &mut watch);
        result.map_err(|error| self.shell_error(error))
    }

    fn shell_error(&mut self, error: ShellError) -> GuestError {
        if let ShellError::Gone(reason) = error {
            return GuestError::Gone(reason);
        }
        // A guest that QEMU has stopped (a device's error, an instruction KVM cannot emulate) just falls silent.
        let status = self.qmp.execute("query-status", json!({})).ok();
        let state =
            status.as_ref().and_then(|status| status.get("status")?.as_str()).unwrap_or("unresponsive");
        GuestError::Shell {
            error,
            state: state.to_owned(),
            said: tail(&fs::read_to_string(&self.errors).unwrap_or_default(), TAIL_LINES),
            console: self.console.tail(TAIL_LINES),
        }
    }
}

/// Connects to a socket that QEMU creates while it starts.
fn connect(
    path: &Path,
    child: &mut OwnedChild,
    console: &Console,
    errors: &Path,
) -> Result<UnixStream, GuestError> {
    let deadline = Instant::now() + SOCKET_TIMEOUT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                if let Some(reason) = gone(child, console, errors) {
                    return Err(GuestError::Gone(reason));
                }
                if Instant::now() >= deadline {
                    return Err(error.into());
                }
            }
        }
        sleep(Duration::from_millis(20));
    }
}

/// Why the guest cannot answer any more, if so.
fn gone(child: &mut OwnedChild, console: &Console, errors: &Path) -> Option<String> {
    if console.panicked() {
        return Some(format!("the guest's kernel panicked:\n{}", console.tail(TAIL_LINES)));
    }
    let status = child.ended().ok()??;
    let said = fs::read_to_string(errors).unwrap_or_default();
    Some(format!("QEMU ended ({status}):\n{}\n{}", tail(&said, TAIL_LINES), console.tail(TAIL_LINES)))
}

/// A word no program in the guest prints by chance: the random part of a temporary directory's name.
fn mark(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let random: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("@@{random}@@")
}
