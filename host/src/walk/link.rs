//! SPDM over whatever carries DOE objects: the transport the requester's driver uses.

use std::time::Duration;

use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::{Command, Driver, DriverError, RequesterError, Response, Transport, Violation};
use spdm::wire::Code;

use super::Walk;
use crate::clock::{Clock, SystemClock};
use crate::doe::{Mailbox, discovery};
use crate::error::{Error, Result};
use crate::transport;

/// Where DOE objects go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Through a mailbox's registers.
    Mailbox(Mailbox),
    /// Through a socket, or a kernel, that takes whole objects.
    Socket(Duration),
}

/// A device as far as objects are concerned.
pub(super) struct Link<'a> {
    transport: &'a mut dyn transport::Transport,
    way: Way,
    clock: SystemClock,
}

impl<'a> Link<'a> {
    pub(super) fn new(transport: &'a mut dyn transport::Transport, way: Way) -> Self {
        Self { transport, way, clock: SystemClock::new() }
    }

    /// Sends an object and returns the one that answers it.
    pub(super) fn object(&mut self, object: &[u8]) -> Result<Vec<u8>> {
        trace("->", object);
        let answer = match self.way {
            Way::Mailbox(mailbox) => {
                let config = self.transport.config().ok_or_else(no_way)?;
                mailbox.exchange(config, &self.clock, object)?
            }
            Way::Socket(timeout) => self.transport.objects().ok_or_else(no_way)?.exchange(object, timeout)?,
        };
        trace("<-", &answer);
        Ok(answer)
    }
}

/// One line for an object that travels: its type, length and, of a clear message, its name. What is in clear on the wire is
/// no secret, and what is secured is not shown.
fn trace(direction: &str, object: &[u8]) {
    let Ok(parsed) = Object::parse(object) else {
        log::debug!("DOE {direction} {} bytes that are no object", object.len());
        return;
    };
    let name = match (parsed.kind, parsed.payload.get(1)) {
        (ObjectType::SPDM, Some(code)) => Code(*code).name().unwrap_or("unknown message"),
        (ObjectType::SECURED_SPDM, _) => "secured",
        (ObjectType::DISCOVERY, _) => "discovery",
        _ => "",
    };
    log::debug!("DOE {direction} {:04x}:{:02x} {} bytes {name}", parsed.vendor, parsed.kind.0, object.len());
    log::trace!("DOE {direction} {}", crate::output::hex(object));
}

fn no_way() -> Error {
    Error::NoDevice("this target carries no DOE objects".into())
}

impl Transport for Link<'_> {
    type Error = Error;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response> {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let answer = self.object(&discovery::wrap(kind, message)?)?;
        let object = Object::parse(&answer).map_err(|e| Error::Protocol(format!("DOE answer: {e}")))?;
        let secured = match (object.vendor, object.kind) {
            (VENDOR_PCI_SIG, ObjectType::SPDM) => false,
            (VENDOR_PCI_SIG, ObjectType::SECURED_SPDM) => true,
            (vendor, kind) => {
                return Err(Error::Protocol(format!(
                    "an SPDM message was answered with a DOE object of type {vendor:04x}:{:02x}",
                    kind.0
                )));
            }
        };
        Ok(Response { secured, bytes: object.payload.to_vec() })
    }

    fn wait(&mut self, delay: Duration) {
        log::debug!("the responder asks for {delay:?}");
        self.clock.sleep(delay);
    }
}

impl Walk {
    /// The SPDM requester over this device's link. The way has to be known.
    pub(super) fn spdm(&mut self) -> Result<Driver<'_, Link<'_>>> {
        let way = self.found()?.way;
        let link = Link::new(&mut *self.transport, way);
        Ok(Driver::new(&mut self.requester, link))
    }

    /// Runs a vendor-defined request of PCI-SIG's inside the session.
    pub(super) fn vendor(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        const VENDOR_ID: [u8; 2] = [1, 0];
        if self.requester.session().is_none() {
            return Err(Error::Usage("there is no session; begin with lock".into()));
        }
        self.spdm()?.vendor(spdm::wire::STANDARD_PCI_SIG, &VENDOR_ID, payload).map_err(failed)
    }

    /// Runs a command for which there is no method with a reply of its own.
    pub(super) fn spdm_command(&mut self, command: Command) -> Result<()> {
        self.spdm()?.run(command).map(|_| ()).map_err(failed)
    }
}

/// Whose doing a failure is.
pub(super) fn failed(error: DriverError<Error>) -> Error {
    let error = match error {
        DriverError::Transport(error) => return error,
        DriverError::Requester(error) => error,
    };
    let text = error.to_string();
    match error {
        RequesterError::Refused { request, code, data } => Error::Refused {
            request: format!("SPDM {}", request.name().unwrap_or("request")),
            reason: match code.name() {
                Some(name) => format!("{name} (data {data:#04x})"),
                None => format!("error {:#04x} (data {data:#04x})", code.0),
            },
        },
        RequesterError::OutOfPatience { .. } => Error::Protocol(text),
        RequesterError::Chain { .. } | RequesterError::Record(_) => Error::Verification(text),
        RequesterError::Violation { violation, .. } if is_forgery(&violation) => Error::Verification(text),
        RequesterError::Violation { .. }
        | RequesterError::Misuse(_)
        | RequesterError::Malformed { .. }
        | RequesterError::Crypto(_)
        | RequesterError::Encode(_) => Error::Protocol(text),
    }
}

/// Whether what broke is a proof and not merely a rule.
fn is_forgery(violation: &Violation) -> bool {
    matches!(
        violation,
        Violation::Digest(_)
            | Violation::KeyAlgorithm
            | Violation::Untrusted
            | Violation::Signature
            | Violation::VerifyData
    )
}
