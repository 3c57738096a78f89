//! Who is at the other end of a Unix socket, and a signal for it.

use std::os::fd::{AsFd, OwnedFd};

// rustix has no value for the process id 0, which the kernel gives for a process of another PID namespace.
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tdispd_proto::control::Process;

use super::device::Errno;

/// The process that connected.
#[derive(Debug)]
pub(super) struct Peer {
    pid: Pid,
    /// It and no other, should its number be used again; absent if it has ended already.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// `None` where the kernel does not say: a process that we cannot see has no number here.
    pub(super) fn of(socket: &impl AsFd) -> Option<Self> {
        let pid = Pid::from_raw(getsockopt(socket, PeerCredentials).ok()?.pid())?;
        Some(Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok() })
    }

    /// For the log and for events.
    pub(super) fn process(&self) -> Process {
        let pid = self.pid.as_raw_pid();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Process { pid, name: name.trim_end().to_owned() }
    }

    /// # Errors
    /// It is not there any more, or not ours to send signals to.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(self.pidfd.as_ref().ok_or(Errno::SRCH)?, signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_is_known_by_number_and_name() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        let process = peer.process();
        assert_eq!(process.pid, std::process::id().cast_signed());
        assert_eq!(process.name, std::fs::read_to_string("/proc/self/comm").unwrap().trim_end());
    }
}
