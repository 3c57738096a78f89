//! What serves the kernel's requests: a session for each device that is connected, a binding for each function that is bound.
//!
//! The kernel waits for a limited time and then undoes its part. What was begun for it stays noted here, and is stopped at the next
//! chance: when the function is bound or unbound again, or at the disconnect.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::json;

use super::ServeArgs;
use super::abi::{BIND, CONNECT, DISCONNECT, GUEST, Request, STREAM, UNBIND};
use super::channel::{Received, Server};
use super::guest::{Answered, Told, answer};
use crate::cli::Options;
use crate::error::{Error, Result};
use crate::guest::sealed::Key;
use crate::output::{Item, Output};
use crate::pci::Bdf;
use crate::session_file::Binding;
use crate::transport::kernel::Kernel;
use crate::transport::sysfs::{DEVICES, Sysfs};
use crate::walk::{Walk, function_id};

/// A device that is connected.
struct Device {
    walk: Walk,
    /// The request that is being worked on.
    request: Rc<Cell<u64>>,
    /// Functions that are locked, or may be.
    tdis: BTreeMap<Bdf, Tdi>,
}

/// A function that is locked, or may be.
pub(super) struct Tdi {
    pub(super) binding: Binding,
    /// What its guest was told since.
    pub(super) told: Told,
}

struct Firmware<'a> {
    server: Rc<Server>,
    args: &'a ServeArgs,
    options: &'a Options,
    output: &'a dyn Fn() -> Output,
    devices: BTreeMap<Bdf, Device>,
    /// What guests ask under.
    key: Option<Key>,
}

/// Serves until the module's device fails.
///
/// # Errors
/// [`Error::NoDevice`] or [`Error::Transport`] if there is nothing to serve, [`Error::Usage`] for options that no session can begin with.
pub(super) fn serve(args: &ServeArgs, options: &Options, output: &dyn Fn() -> Output) -> Result<u8> {
    // Better now than at the first connect.
    crate::walk::requester_config(options, &spdm::crypto::DefaultProvider::new())?;
    let key = args.guest_key.as_deref().map(Key::read).transpose()?;
    let server = Rc::new(Server::open(&args.file)?);
    let mut firmware = Firmware { server, args, options, output, devices: BTreeMap::new(), key };
    let told = json!({ "file": args.file });
    let text = format!("serving {}", args.file.display());
    output().tell(&Item::Told("serving", &told, &text));
    loop {
        firmware.serve_one()?;
    }
}

impl Firmware<'_> {
    fn serve_one(&mut self) -> Result<()> {
        let (request, payload) = self.server.next()?;
        let dsm = address(request.segment, request.dsm);
        let function = address(request.segment, request.function);
        let name = name_of(request.op);
        log::debug!("{name} of {function}, {:?} to answer", Duration::from_millis(request.timeout_ms.into()));
        // A connect begins anew, whatever there was.
        let mut device = if request.op == CONNECT {
            self.devices.remove(&dsm);
            match self.open(dsm) {
                Ok(device) => Some(device),
                Err(error) => return self.refuse(&request, function, error),
            }
        } else {
            self.devices.remove(&dsm)
        };
        let Some(open) = &mut device else {
            // After a restart there is nothing to take down, and nothing to go on with.
            if matches!(request.op, UNBIND | DISCONNECT) {
                self.told(&request, function, Ok(()));
                return self.server.answer(request.cookie, Ok(&[]), 0).map(drop);
            }
            let why = format!("{dsm} has no session with this program; disconnect and connect it");
            return self.refuse(&request, function, Error::NoDevice(why));
        };

        open.request.set(request.cookie);
        open.walk.begin(&Item::Told("request", &describe(&request, function), &format!("{name} {function}")));
        let result = self.work(open, &request, function, &payload);
        let (answer, code, told) = match result {
            // A guest that is refused hears that from its TSM, not from its host.
            Ok(Answered { response, result }) => {
                (Ok(response), result.as_ref().err().map_or(0, |error| error.exit_code().into()), result)
            }
            Err(error) => (Err(errno(&error)), u64::from(error.exit_code()), Err(error)),
        };
        // The guest's room is the guest's business: no reason to fall silent.
        let answer = answer.and_then(|response: Vec<u8>| {
            let room = usize::try_from(request.response_len).unwrap_or(0);
            if response.len() > room { Err(Errno::EMSGSIZE) } else { Ok(response) }
        });
        let good = told.is_ok();
        open.walk.finish(told);
        let received = self.server.answer(request.cookie, answer.as_deref().map_err(|errno| *errno), code)?;
        if received == Received::TooLate {
            log::warn!("{name} of {function}: the kernel has not waited for the answer");
        }
        // A session that the kernel does not know of is of no use: its next request will be a connect.
        let keep = match request.op {
            CONNECT => good && received == Received::InTime,
            DISCONNECT => false,
            _ => true,
        };
        if let Some(device) = device.filter(|_| keep) {
            self.devices.insert(dsm, device);
        }
        Ok(())
    }

    fn open(&self, dsm: Bdf) -> Result<Device> {
        let sysfs = Sysfs::open(Path::new(DEVICES), dsm)?;
        let request = Rc::new(Cell::new(0));
        let transport = Kernel::new(sysfs, Rc::clone(&self.server), Rc::clone(&request));
        let walk = Walk::new(Box::new(transport), self.options.clone(), (self.output)())?;
        Ok(Device { walk, request, tdis: BTreeMap::new() })
    }

    fn work(
        &self,
        device: &mut Device,
        request: &Request,
        function: Bdf,
        payload: &[u8],
    ) -> Result<Answered> {
        match request.op {
            CONNECT => {
                let stream = (request.flags & STREAM != 0).then_some(request.stream_id);
                device.walk.tsm_connect(&self.args.lock(function_id(function)), stream)?;
            }
            BIND => {
                let id = function_id(function);
                let mut binding = device.walk.tsm_binding(id)?;
                let bound = device.walk.tsm_bind(&self.args.lock(id), &mut binding);
                // Also after an error: who knows how far it came.
                device.tdis.insert(function, Tdi { binding, told: Told::default() });
                bound?;
            }
            GUEST => {
                let tdi = device.tdis.get_mut(&function).ok_or_else(|| unbound(function))?;
                return answer(&mut device.walk, tdi, self.key.as_ref(), request.scope, payload);
            }
            UNBIND => {
                let tdi = device.tdis.get_mut(&function).ok_or_else(|| unbound(function))?;
                device.walk.tsm_unbind(&mut tdi.binding)?;
                device.tdis.remove(&function);
            }
            DISCONNECT => disconnect(device)?,
            other => return Err(Error::Usage(format!("the kernel asks for {other}, which is unknown"))),
        }
        Ok(Answered { response: Vec::new(), result: Ok(()) })
    }

    /// Tells of a request that no device could be asked about, and answers it.
    fn refuse(&self, request: &Request, function: Bdf, error: Error) -> Result<()> {
        let (errno, code) = (errno(&error), u64::from(error.exit_code()));
        self.told(request, function, Err(error));
        self.server.answer(request.cookie, Err(errno), code).map(drop)
    }

    fn told(&self, request: &Request, function: Bdf, result: Result<()>) {
        let mut output = (self.output)();
        let text = format!("{} {function}", name_of(request.op));
        output.tell(&Item::Told("request", &describe(request, function), &text));
        output.finish(result);
    }
}

/// Everything comes down, as far as the device answers; the first error is told.
fn disconnect(device: &mut Device) -> Result<()> {
    let mut result = Ok(());
    for (function, tdi) in &mut device.tdis {
        log::debug!("{function} is still bound");
        result = result.and(device.walk.tsm_unbind(&mut tdi.binding));
    }
    device.tdis.clear();
    result.and(device.walk.tsm_disconnect())
}

fn unbound(function: Bdf) -> Error {
    Error::NoDevice(format!("{function} is not bound by this program"))
}

/// What whoever asked the kernel gets to see.
fn errno(error: &Error) -> Errno {
    match error {
        Error::Usage(_) | Error::Session(_) => Errno::EINVAL,
        Error::NoDevice(_) => Errno::ENODEV,
        Error::Transport { source, .. } => source
            .raw_os_error()
            .map(Errno::from_raw)
            .filter(|e| *e != Errno::UnknownErrno)
            .unwrap_or(Errno::EIO),
        Error::Protocol(_) => Errno::EPROTO,
        Error::Refused { .. } | Error::Check(_) => Errno::EPERM,
        Error::Verification(_) => Errno::EKEYREJECTED,
        Error::TimedOut { .. } => Errno::ETIMEDOUT,
    }
}

fn name_of(op: u32) -> &'static str {
    match op {
        CONNECT => "connect",
        DISCONNECT => "disconnect",
        BIND => "bind",
        UNBIND => "unbind",
        GUEST => "guest",
        _ => "unknown",
    }
}

fn describe(request: &Request, function: Bdf) -> serde_json::Value {
    json!({ "op": name_of(request.op), "function": function.to_string(), "tdi_id": request.tdi_id })
}

/// The function with this requester id.
fn address(segment: u16, requester_id: u16) -> Bdf {
    let [devfn, bus] = requester_id.to_le_bytes();
    Bdf { segment, bus, device: devfn >> 3, function: devfn & 7 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requester_ids_are_addresses() {
        for text in ["0000:01:00.0", "0012:ff:1f.7"] {
            let bdf: Bdf = text.parse().unwrap();
            assert_eq!(address(bdf.segment, bdf.requester_id()), bdf);
        }
    }

    #[test]
    fn every_error_is_one_that_the_kernel_takes() {
        let io = |source| Error::Transport { what: "x".into(), source };
        let errors = [
            Error::Usage(String::new()),
            Error::Verification(String::new()),
            Error::Check(String::new()),
            io(Errno::ETIMEDOUT.into()),
            io(std::io::Error::other("no errno")),
            io(std::io::Error::from_raw_os_error(0)),
            io(std::io::Error::from_raw_os_error(100_000)),
        ];
        for error in errors {
            assert!((1..=511).contains(&(errno(&error) as i32)), "{error}");
        }
        assert_eq!(errno(&Error::Verification(String::new())), Errno::EKEYREJECTED);
    }
}
