//! A child process that does not outlive its owner.

use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct OwnedChild(Child);

impl OwnedChild {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Waits for the end; `None` if the time is up first.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM). No error if it has ended already.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        // Not yet waited for, so the id cannot have been given to another process.
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        }
        Ok(())
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Nothing is left to do about a failure: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
