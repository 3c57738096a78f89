//! `tdispctl tsm relay`: what a VMM does for a guest with an agent. It binds the function to the machine's VM when the guest wants
//! that, and passes questions and answers on, whose content is none of its business.
//!
//! To the guest it is the host, and so it can be told to do what a host might try.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

use super::arguments::Misbehaviour;
use super::channel::Binder;
use super::{RelayArgs, abi};
use crate::error::{Error, Result};
use crate::guest::port::{Op, Request, receive, send};
use crate::guest::sealed;
use crate::output::{Item, Output};

/// Descriptors of a process are looked at up to this number.
const MAX_DESCRIPTOR: i32 = 65536;

struct Relay<'a> {
    args: &'a RelayArgs,
    binder: Binder,
    output: Output,
    /// An old answer, to be given again.
    kept: Option<Vec<u8>>,
}

/// Relays until the machine closes its end. The binding ends with it.
///
/// # Errors
/// [`Error::NoDevice`] without the module or the machine, [`Error::Transport`] if the port fails.
pub(super) fn run(args: &RelayArgs, output: Output) -> Result<u8> {
    let binder = Binder::open(&args.file)?;
    // Better now than at the first LOCK.
    vm_of(args.vm)?;
    let mut relay = Relay { args, binder, output, kept: None };
    let told = json!({ "function": args.function.to_string(), "vm": args.vm });
    relay.output.tell(&Item::Told("ready", &told, "waiting for the guest"));
    while relay.connection()? {
        log::warn!("the guest's end has been opened anew");
    }
    Ok(0)
}

impl Relay<'_> {
    /// Serves one connection; whether there has to be another one, since nobody knows where the next request begins.
    fn connection(&mut self) -> Result<bool> {
        let path = &self.args.socket;
        let mut stream = UnixStream::connect(path).map_err(Error::io(path.display().to_string()))?;
        loop {
            let request = match receive(&mut stream) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(false),
                Err(error @ Error::Protocol(_)) => {
                    self.output.finish(Err(error));
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            self.output.begin();
            let op = format!("{:?}", request.op).to_lowercase();
            let told = json!({ "op": op, "bytes": request.body.len() });
            self.output.tell(&Item::Told("request", &told, &op));
            let result = self.carry_out(&request);
            let answer = result.as_ref().map(Vec::as_slice).map_err(errno);
            let sent = send(&mut stream, &request, answer);
            self.output.finish(result.map(drop));
            match sent {
                Err(Error::Transport { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(false);
                }
                sent => sent?,
            }
        }
    }

    fn carry_out(&mut self, request: &Request) -> Result<Vec<u8>> {
        match request.op {
            Op::Lock => {
                let id = self.args.tdi_id.unwrap_or_else(|| self.args.function.requester_id().into());
                self.binder.bind(&vm_of(self.args.vm)?, self.args.function, id).map(|()| Vec::new())
            }
            Op::Unlock => self.binder.unbind().map(|()| Vec::new()),
            Op::Ask => self.pass_on(0, &request.body),
            Op::Change => self.pass_on(1, &request.body),
        }
    }

    fn pass_on(&mut self, scope: u32, sealed: &[u8]) -> Result<Vec<u8>> {
        let request = [&abi::GUEST_SEALED.to_ne_bytes()[..], sealed].concat();
        let asks_report = sealed::is_report(sealed);
        match self.args.misbehave.filter(|_| asks_report) {
            None => self.binder.guest(scope, &request, abi::MAX),
            Some(Misbehaviour::AlterReport) => {
                let mut answer = self.binder.guest(scope, &request, abi::MAX)?;
                let middle = answer.len() / 2;
                answer.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
                Ok(answer)
            }
            Some(Misbehaviour::ReplayReport) => match &self.kept {
                Some(old) => Ok(old.clone()),
                None => {
                    let answer = self.binder.guest(scope, &request, abi::MAX)?;
                    Ok(self.kept.insert(answer).clone())
                }
            },
        }
    }
}

/// The VM of a machine's process, shared with it: a descriptor that the kernel calls `kvm-vm`.
fn vm_of(process: u32) -> Result<OwnedFd> {
    let missing = |why: String| Error::NoDevice(format!("process {process}: {why}"));
    let failed = |errno: rustix::io::Errno| missing(errno.to_string());
    let pid =
        i32::try_from(process).ok().and_then(Pid::from_raw).ok_or_else(|| missing("no process id".into()))?;
    let process_fd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    for entry in fs::read_dir(format!("/proc/{process}/fd")).map_err(|e| missing(e.to_string()))? {
        let path = entry.map_err(|e| missing(e.to_string()))?.path();
        // One that has just been closed is not the VM.
        let is_vm = fs::read_link(&path).is_ok_and(|target| target.as_os_str() == "anon_inode:kvm-vm");
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        if let Some(number) = number.filter(|number| is_vm && *number < MAX_DESCRIPTOR) {
            return pidfd_getfd(process_fd, number, PidfdGetfdFlags::empty()).map_err(failed);
        }
    }
    Err(missing("it has no VM of KVM's".into()))
}

fn errno(error: &Error) -> Errno {
    let number = match error {
        Error::Transport { source, .. } => source.raw_os_error(),
        Error::Usage(_)
        | Error::NoDevice(_)
        | Error::Protocol(_)
        | Error::Refused { .. }
        | Error::Verification(_)
        | Error::Check(_)
        | Error::TimedOut { .. }
        | Error::Session(_) => None,
    };
    number.map(Errno::from_raw).filter(|errno| *errno != Errno::UnknownErrno).unwrap_or(Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_vm_is_told() {
        for (process, why) in
            [(std::process::id(), "no VM"), (0, "no process id"), (u32::MAX, "no process id")]
        {
            let error = vm_of(process).unwrap_err();
            assert!(matches!(&error, Error::NoDevice(text) if text.contains(why)), "{error}");
        }
    }
}
