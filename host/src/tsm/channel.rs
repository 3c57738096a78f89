//! The module's character device: the file that serves, and files that bind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use tdisp::wire::{InterfaceReport, TdiState};
use zerocopy::{FromBytes, IntoBytes};

use super::abi::{
    ABI, Answer, Bind, Doe, GUEST_REPORT, GUEST_START, GUEST_STATE, Guest, MAX, Request, STATE_CHANGE, ioctl,
};
use crate::error::{Error, Result};
use crate::pci::Bdf;

/// The file that serves. Closing it ends every request that has no answer.
#[derive(Debug)]
pub struct Server(File);

/// What the kernel thinks of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// It was waited for.
    InTime,
    /// The kernel had given up, and undone its part.
    TooLate,
}

impl Server {
    /// Opens the device and begins to serve.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without the module, or if somebody else serves.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open(path)?;
        // SAFETY: it takes no argument.
        #[allow(unsafe_code)]
        let served = unsafe { ioctl::serve(file.as_raw_fd()) };
        match served {
            Ok(_) => Ok(Self(file)),
            Err(Errno::EBUSY) => Err(Error::NoDevice(format!("somebody serves {} already", path.display()))),
            Err(errno) => Err(failed("serving", errno)),
        }
    }

    /// Waits for a request; what is behind it belongs to it.
    pub(super) fn next(&self) -> Result<(Request, Vec<u8>)> {
        let mut bytes = vec![0; size_of::<Request>() + MAX];
        let length = loop {
            match (&self.0).read(&mut bytes) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("waiting for the kernel's requests")(error)),
            }
        };
        bytes.truncate(length);
        let short = || Error::Protocol(format!("the kernel's request has {length} bytes"));
        let (request, payload) = Request::read_from_prefix(&bytes).map_err(|_| short())?;
        if usize::try_from(request.payload_len) == Ok(payload.len()) {
            Ok((request, payload.to_vec()))
        } else {
            Err(short())
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, cookie: u64, result: Result<&[u8], Errno>, code: u64) -> Result<Received> {
        let (error, payload) = match result {
            Ok(payload) => (0, payload),
            Err(errno) => ((errno as i32).saturating_neg(), &[][..]),
        };
        let payload_len =
            u32::try_from(payload.len()).map_err(|_| Error::Protocol("a response without end".into()))?;
        let mut bytes = Answer { cookie, code, error, payload_len }.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        match (&self.0).write(&bytes) {
            Ok(_) => Ok(Received::InTime),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Received::TooLate),
            Err(error) => Err(Error::io("answering the kernel")(error)),
        }
    }

    /// Has the kernel exchange DOE objects of a type, by their payloads, for a request that waits for its answer.
    ///
    /// # Errors
    /// [`Error::Transport`] if the exchange fails, or the kernel waits no longer.
    pub fn doe(&self, cookie: u64, kind: u8, request: &[u8]) -> Result<Vec<u8>> {
        let mut response = vec![0; MAX];
        let mut doe = Doe {
            cookie,
            request: request.as_ptr().expose_provenance() as u64,
            response: response.as_mut_ptr().expose_provenance() as u64,
            request_len: length(request)?,
            response_len: length(&response)?,
            r#type: kind.into(),
            reserved: 0,
        };
        // SAFETY: the kernel reads and writes one `struct tdispd_tsm_doe`, reads what `request` borrows and writes into `response`, each
        // within the length that goes with it; all of them outlive the call.
        #[allow(unsafe_code)]
        let done = unsafe { ioctl::doe(self.0.as_raw_fd(), &raw mut doe) };
        match done {
            Ok(_) => {}
            Err(errno) => return Err(failed("DOE exchange by the kernel", errno)),
        }
        response.truncate(usize::try_from(doe.response_len).unwrap_or(0));
        Ok(response)
    }
}

/// A file that can bind one function. Closing it unbinds.
#[derive(Debug)]
pub(crate) struct Binder(File);

impl Binder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        open(path).map(Self)
    }

    /// `vm` need not be one: then the kernel refuses it.
    pub(crate) fn bind(&self, vm: &impl AsRawFd, function: Bdf, tdi_id: u32) -> Result<()> {
        let argument = Bind {
            vm_fd: vm.as_raw_fd(),
            tdi_id,
            segment: function.segment,
            function: function.requester_id(),
            reserved: 0,
        };
        // SAFETY: the kernel reads one `struct tdispd_tsm_bind`, which outlives the call, and takes its descriptor for what it
        // finds there.
        #[allow(unsafe_code)]
        let done = unsafe { ioctl::bind_vm(self.0.as_raw_fd(), &raw const argument) };
        done.map(drop).map_err(|errno| failed("bind", errno))
    }

    pub(crate) fn unbind(&self) -> Result<()> {
        // SAFETY: it takes no argument.
        #[allow(unsafe_code)]
        let done = unsafe { ioctl::unbind_vm(self.0.as_raw_fd()) };
        done.map(drop).map_err(|errno| failed("unbind", errno))
    }

    /// The TDI's state.
    pub(crate) fn state(&self) -> Result<TdiState> {
        let response = self.guest(0, &GUEST_STATE.to_ne_bytes(), size_of::<u32>())?;
        let code = response.as_slice().try_into().map(u32::from_ne_bytes).ok();
        let code = code.and_then(|code| u8::try_from(code).ok());
        code.map(TdiState).ok_or_else(|| Error::Protocol("the TSM's state is none".into()))
    }

    /// The interface report, and its bytes, for which there is so much room.
    pub(crate) fn report(&self, room: usize) -> Result<(InterfaceReport, Vec<u8>)> {
        let bytes = self.guest(0, &GUEST_REPORT.to_ne_bytes(), room)?;
        let report = InterfaceReport::decode(&bytes)
            .map_err(|e| Error::Protocol(format!("interface report from the TSM: {e}")))?;
        Ok((report, bytes))
    }

    /// START_INTERFACE.
    pub(crate) fn start(&self) -> Result<()> {
        self.guest(STATE_CHANGE, &GUEST_START.to_ne_bytes(), 0).map(drop)
    }

    /// A request of the guest's, and the response, for which there are `room` bytes.
    pub(super) fn guest(&self, scope: u32, request: &[u8], room: usize) -> Result<Vec<u8>> {
        let mut response = vec![0; room.min(MAX)];
        let mut guest = Guest {
            request: request.as_ptr().expose_provenance() as u64,
            response: response.as_mut_ptr().expose_provenance() as u64,
            code: 0,
            request_len: length(request)?,
            response_len: length(&response)?,
            scope,
            reserved: 0,
        };
        // SAFETY: the kernel reads and writes one `struct tdispd_tsm_guest`, reads what `request` borrows and writes into `response`, each
        // within the length that goes with it; all of them outlive the call.
        #[allow(unsafe_code)]
        let done = unsafe { ioctl::guest_req(self.0.as_raw_fd(), &raw mut guest) };
        if let Err(errno) = done {
            return Err(failed(&format!("guest request (result {})", guest.code), errno));
        }
        response.truncate(usize::try_from(guest.response_len).unwrap_or(0));
        Ok(response)
    }
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound { " (is tdispd_tsm.ko loaded?)" } else { "" };
        Error::Transport { what: format!("{}{hint}", path.display()), source: error }
    })?;
    // SAFETY: it takes no argument.
    #[allow(unsafe_code)]
    let version = unsafe { ioctl::version(file.as_raw_fd()) };
    match version {
        Ok(ABI) => Ok(file),
        Ok(other) => {
            Err(Error::NoDevice(format!("the module has version {other}, this program needs {ABI}")))
        }
        Err(_) => Err(Error::NoDevice(format!("{} is not the module's device", path.display()))),
    }
}

fn length(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| Error::Usage(format!("{} bytes are too many", bytes.len())))
}

fn failed(what: &str, errno: Errno) -> Error {
    Error::Transport { what: what.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_told_from_the_modules_device() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let missing = Server::open(&file).unwrap_err().to_string();
        assert!(missing.contains("is tdispd_tsm.ko loaded?"), "{missing}");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(Server::open(&file), Err(Error::NoDevice(why)) if why.contains("not the module's")));
        assert!(matches!(Binder::open(Path::new("/dev/null")), Err(Error::NoDevice(_))));
    }
}
