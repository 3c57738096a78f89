//! A guest in a guest, as seen from outside: the QEMU that runs it is the outer guest's affair, but its command port may lead out
//! here, by a virtio-serial port of the outer guest.

use crate::shell::{Output, Shell, ShellError};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An inner kernel takes about five times as long as one alone.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);

/// The way into an inner guest whose init takes commands.
#[derive(Debug)]
pub struct Nested {
    shell: Shell,
    console: PathBuf,
}

impl Nested {
    /// The word that the inner kernel's command line has as `tdispd.mark=`.
    pub const MARK: &str = "@@nested@@";

    /// Connects to the socket that is the outer end of its command port. `console` is the file that its console is written to.
    ///
    /// # Errors
    /// Nobody listens on the socket.
    pub fn connect(socket: &Path, console: &Path) -> io::Result<Self> {
        let shell = Shell::new(UnixStream::connect(socket)?, Self::MARK)?;
        Ok(Self { shell, console: console.to_owned() })
    }

    /// Waits until it takes commands.
    ///
    /// # Errors
    /// It does not in time, or its kernel panics, which is told.
    pub fn wait_until_ready(&mut self) -> Result<(), ShellError> {
        let Self { shell, console } = self;
        shell.wait_until_ready(BOOT_TIMEOUT, &mut || panicked(console))
    }

    /// Runs a script for at most `timeout` (whole seconds); any exit code is an answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn run(&mut self, script: &str, timeout: Duration) -> Result<Output, ShellError> {
        let Self { shell, console } = self;
        shell.run(script, timeout, &mut || panicked(console), &mut |_| {})
    }
}

fn panicked(console: &Path) -> Option<String> {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.contains("Kernel panic - not syncing").then(|| format!("the inner guest's kernel panicked:\n{text}"))
}
