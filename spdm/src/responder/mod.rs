//! The responder: clear messages and records in, responses and session events out (DSP0274 1.0 to 1.4).
//!
//! One file per request; this one checks what is common to all of them, and turns what a handler refuses into an
//! ERROR in one place.

mod algorithms;
mod capabilities;
mod certificates;
mod challenge;
mod config;
mod csr;
mod deferral;
mod encapsulated;
mod endpoint_info;
mod events;
mod finish;
mod interview;
mod key_exchange;
mod key_pairs;
mod keys;
mod measured;
mod measurement_log;
mod measurements;
mod mutual;
mod notifier;
mod provision;
mod provisioning;
mod psk;
mod reject;
mod requester_info;
mod rules;
mod session_control;
mod sessions;
mod slot_management;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod vendor;
mod version;
mod view;

pub use crate::trust::{KnownKey, RootPin, TrustPolicy};
pub use config::*;
pub use deferral::{Delay, Wait};
pub use events::{EndReason, Event};
pub use mutual::{MutualAuthentication, SessionAuthentication};
pub use provisioning::{EndpointInfoSupport, MeasurementLogItem, MultipleKeys, Provisioning};
pub use requester_info::RequesterEndpoint;
pub use vendor::{VendorAnswer, VendorHandler, VendorRequest};
pub use view::{Origin, SessionView};

use core::time::Duration;

use crate::chains::Chains;
use crate::codec::Reader;
use crate::crypto::Provider;
use crate::secured::{self, RecordError};
use crate::slot::Slots;
use crate::wire::{Code, ErrorCode, ErrorResponse, Header, ResponderFlags, Version};

use csr::PendingCsr;
use deferral::Deferrals;
use measured::Measured;
use provision::Pending;
use reject::{Handled, Next, Reject};
use sessions::Sessions;
use slot_management::Banks;
use state::{Connection, MeasurementForm, Request};
use transfer::Transfers;

/// Whether there is a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// Send what is in the response buffer.
    Respond,
    /// Send nothing at all.
    Silent,
}

/// One responder with one connection and its sessions.
///
/// After every call drain [`Responder::poll_event`].
pub struct Responder {
    core: Core,
    /// Message of the record being handled.
    request: Vec<u8>,
    /// Response before it is protected.
    plain: Vec<u8>,
}

/// Everything a handler works on.
struct Core {
    config: ResponderConfig,
    flags: ResponderFlags,
    provider: Box<dyn Provider>,
    chains: Chains,
    banks: Banks,
    measured: Measured,
    /// The measurement extension log as it is transferred.
    measurement_log: Vec<u8>,
    /// The answer to GET_ENDPOINT_INFO.
    device_classes: Vec<u8>,
    /// What SET_CERTIFICATE does to slots at the next reset.
    pending: Pending,
    /// A GET_CSR that waits for a reset.
    pending_csr: Option<PendingCsr>,
    connection: Connection,
    sessions: Sessions,
    transfers: Transfers,
    deferrals: Deferrals,
    /// Firmware was updated: only GET_VERSION leads on.
    resynch: bool,
    /// Payload of a vendor's response.
    payload: Vec<u8>,
}

impl core::fmt::Debug for Responder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Responder")
            .field("connection", &self.core.connection)
            .field("sessions", &self.core.sessions)
            .finish_non_exhaustive()
    }
}

impl Responder {
    /// A responder that has just been reset. Algorithms that the provider or the slots cannot do are dropped from
    /// the configuration's lists; it is an error if none is left.
    pub fn new(
        mut config: ResponderConfig,
        slots: Slots,
        provider: Box<dyn Provider>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        config.hashes.retain(|&hash| provider.supports_hash(hash));
        config.measurement_hashes.retain(|&hash| provider.supports_hash(hash));
        config.groups.retain(|&group| provider.supports_group(group));
        config.aeads.retain(|&aead| provider.supports_aead(aead));
        let listed = config.capabilities.provisioning.key_pair_info;
        let slots = if listed { key_pairs::numbered(slots)? } else { slots };
        let writable = config.capabilities.provisioning.set_certificate;
        let chains = Chains::new(provider.as_ref(), slots, &config.hashes)?.writable(writable);
        config.check_identity(&chains)?;
        config.check_slots(chains.slots())?;
        config.mutual.settle(provider.as_ref(), &config.hashes)?;
        let flags = config.capabilities.flags(&chains, &config.mutual);
        let signs = |asym, hash| chains.can_sign(asym, hash) || chains.could_sign(asym, hash);
        config.asym.retain(|&asym| config.hashes.iter().any(|&hash| signs(asym, hash)));
        let key_exchange = flags.has(ResponderFlags::KEY_EX);
        for (missing, what) in [
            (config.hashes.is_empty(), "hash"),
            (!chains.is_empty() && config.asym.is_empty(), "signature algorithm"),
            (key_exchange && config.groups.is_empty(), "key exchange group"),
            (flags.has(ResponderFlags::MAC) && config.aeads.is_empty(), "AEAD suite"),
        ] {
            if missing {
                return Err(ConfigError::NoAlgorithm(what));
            }
        }
        let form = config
            .measurement_hashes
            .first()
            .map_or(MeasurementForm::RawOnly, |&hash| MeasurementForm::Hashed(hash));
        let measured = Measured::new(provider.as_ref(), &config.measurements, form)?;
        let measurement_log = measurement_log::encode(&config.measurement_log)?;
        let device_classes = endpoint_info::encode(&config.device_classes)?;
        let banks = Banks::of(chains.slots());
        let sessions = Sessions::new(config.session_limit, config.handshake_timeout);
        let core = Core {
            config,
            flags,
            provider,
            chains,
            banks,
            measured,
            measurement_log,
            device_classes,
            pending: Pending::default(),
            pending_csr: None,
            connection: Connection::Start,
            sessions,
            transfers: Transfers::default(),
            deferrals: Deferrals::default(),
            resynch: false,
            payload: Vec::new(),
        };
        Ok(Self { core, request: Vec::new(), plain: Vec::new() })
    }

    /// Handles one clear SPDM message. What follows it, such as DOE padding, is ignored. `response` is
    /// replaced. Fewer than 4 bytes are no message and get no answer.
    pub fn handle_clear(
        &mut self,
        now: Duration,
        request: &[u8],
        vendor: &mut dyn VendorHandler,
        response: &mut Vec<u8>,
    ) -> Answer {
        self.core.sessions.expire(now);
        self.core.deferrals.now = now;
        response.clear();
        let Ok(header) = Header::parse(&mut Reader::new(request)) else { return Answer::Silent };
        let request = Request { header, bytes: request, session: None };
        match self.core.respond(&request, vendor, response) {
            Next::Silent => return Answer::Silent,
            Next::Establish(index, th2) => self.core.establish(index, &th2, now),
            Next::Stay | Next::End(_) => {}
        }
        Answer::Respond
    }

    /// Handles one secured record, which may be followed by up to 3 bytes of DOE padding. `response` is replaced.
    /// A record of an unknown session gets no answer; one that cannot be opened gets DECRYPT_ERROR and ends its
    /// session.
    pub fn handle_secured(
        &mut self,
        now: Duration,
        record: &[u8],
        vendor: &mut dyn VendorHandler,
        response: &mut Vec<u8>,
    ) -> Answer {
        self.core.sessions.expire(now);
        self.core.deferrals.now = now;
        response.clear();
        let Some(index) = secured::session_id(record).ok().and_then(|id| self.core.sessions.find(id)) else {
            return Answer::Silent;
        };
        self.plain.clear();
        let next = match self.core.open(index, record, now, &mut self.request) {
            Ok(()) => self.core.respond_in_session(index, &self.request, vendor, &mut self.plain),
            Err(RecordError::Exhausted) => {
                self.core.sessions.end(index, EndReason::Exhausted);
                Next::Silent
            }
            Err(RecordError::Malformed(_) | RecordError::Crypto(_) | RecordError::TooLong) => {
                let version = self.core.connection.error_version();
                ErrorResponse::new(version, ErrorCode::DECRYPT_ERROR, 0).encode(&mut self.plain);
                Next::End(EndReason::Unauthentic)
            }
        };
        // Requests may carry keys. The buffer stays, so that nothing can leave out what is written to it.
        self.request.fill(0);
        self.request.clear();
        if matches!(next, Next::Silent) {
            return Answer::Silent;
        }
        let sealed = match self.core.sessions.get_mut(index) {
            Some(entry) => entry.session.seal(&self.plain, response),
            None => return Answer::Silent,
        };
        match next {
            _ if sealed.is_err() => self.core.sessions.end(index, EndReason::Exhausted),
            Next::Establish(index, th2) => self.core.establish(index, &th2, now),
            Next::End(reason) => self.core.sessions.end(index, reason),
            Next::Stay | Next::Silent => {}
        }
        if sealed.is_ok() { Answer::Respond } else { Answer::Silent }
    }

    /// The next thing that the device has to know, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.sessions.events.pop()
    }

    /// The slots and key pairs as they are now: those it was made with, and what requesters did to them.
    pub fn slots(&self) -> &Slots {
        self.core.chains.slots()
    }

    /// The time of day, in seconds since 1970: requesters' certificates are judged by the last one that was told, at first
    /// by [`MutualAuthentication::time`]. `None` does not check their validity.
    pub fn set_time(&mut self, time: Option<i64>) {
        self.core.config.mutual.time = time;
    }

    /// What can be said of every session there is, those in their handshakes included.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.core.session_views()
    }

    /// When [`Responder::tick`] has to be called next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.core.sessions.next_deadline()
    }

    /// Ends the sessions that have been silent for twice their heartbeat period, and handshakes that take too long.
    pub fn tick(&mut self, now: Duration) {
        self.core.sessions.expire(now);
    }

    /// Conventional reset: all sessions and everything negotiated is gone.
    pub fn reset(&mut self) {
        self.core.sessions.end_all(EndReason::Reset);
        self.core.install();
        self.core.transfers.clear();
        self.core.deferrals.clear();
        self.core.connection = Connection::Start;
        self.core.resynch = false;
    }

    /// The device runs other firmware now, without a reset: sessions end, what was negotiated holds no more, and until
    /// GET_VERSION every request in the clear is answered with RequestResynch (DSP0274 1.3 "ERROR response message").
    pub fn firmware_updated(&mut self) {
        self.core.sessions.end_all(EndReason::FirmwareUpdated);
        self.core.transfers.clear();
        self.core.deferrals.clear();
        self.core.resynch = true;
    }
}

impl Core {
    fn open(
        &mut self,
        index: usize,
        record: &[u8],
        now: Duration,
        message: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let Some(entry) = self.sessions.get_mut(index) else { return Err(RecordError::Exhausted) };
        entry.session.open(record, message)?;
        entry.touch(now);
        Ok(())
    }

    fn establish(&mut self, index: usize, th2: &crate::crypto::Digest, now: Duration) {
        let Some(entry) = self.sessions.get_mut(index) else { return };
        match entry.session.establish(self.provider.as_ref(), th2) {
            Ok(()) => self.sessions.establish(index, now),
            Err(_) => self.sessions.end(index, EndReason::Exhausted),
        }
    }

    fn respond_in_session(
        &mut self,
        index: usize,
        message: &[u8],
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Next {
        let Ok(header) = Header::parse(&mut Reader::new(message)) else {
            return self.refuse(Reject::INVALID, out);
        };
        self.respond(&Request { header, bytes: message, session: Some(index) }, vendor, out)
    }

    /// Handles one request as it was transferred: what is in `out` fits one transfer.
    fn respond(&mut self, request: &Request<'_>, vendor: &mut dyn VendorHandler, out: &mut Vec<u8>) -> Next {
        let largest = usize::try_from(self.config.data_transfer_size).unwrap_or(usize::MAX);
        // Padding to a whole DW is not part of the message.
        if request.bytes.len() > largest.next_multiple_of(4) {
            self.forget_measurements(request);
            return self.refuse(Reject::error(ErrorCode::REQUEST_TOO_LARGE), out);
        }
        let next = self.answer(request, vendor, out);
        self.offer_chunks(request, out);
        next
    }

    /// Handles one request of any size: a response or an ERROR is in `out` unless the result is [`Next::Silent`].
    fn answer(&mut self, request: &Request<'_>, vendor: &mut dyn VendorHandler, out: &mut Vec<u8>) -> Next {
        let handled = self.dispatch(request, vendor, out).and_then(|next| self.fits(out).map(|()| next));
        match handled {
            Ok(next) => next,
            Err(reject) => {
                log::debug!("{:?} refused: {reject:?}", request.header.code);
                if !matches!(reject, Reject::NotReady(_)) {
                    self.forget_measurements(request);
                }
                self.refuse(reject, out)
            }
        }
    }

    /// The one place where a refusal becomes an ERROR.
    fn refuse(&self, reject: Reject, out: &mut Vec<u8>) -> Next {
        out.clear();
        let agreed = self.connection.error_version();
        let (error, next) = match reject {
            Reject::Silent => return Next::Silent,
            Reject::Error { code, data } => (ErrorResponse::new(agreed, code, data), Next::Stay),
            Reject::InVersion(version, code) => (ErrorResponse::new(version, code, 0), Next::Stay),
            Reject::Fatal(code) => (ErrorResponse::new(agreed, code, 0), Next::End(EndReason::Unauthentic)),
            Reject::TooLarge(size) => {
                let code = ErrorCode::RESPONSE_TOO_LARGE;
                let extended = &size.to_le_bytes();
                ErrorResponse { version: agreed, code, data: 0, extended }.worded().encode(out);
                return Next::Stay;
            }
            Reject::NotReady(not_ready) => {
                let code = ErrorCode::RESPONSE_NOT_READY;
                ErrorResponse { version: agreed, code, data: 0, extended: &not_ready.bytes() }.encode(out);
                return Next::Stay;
            }
            Reject::ChainTooLong(_) if agreed < Version::V1_4 => {
                (ErrorResponse::new(agreed, ErrorCode::UNSPECIFIED, 0), Next::Stay)
            }
            Reject::ChainTooLong(size) => {
                let code = ErrorCode::DATA_TOO_LARGE;
                ErrorResponse { version: agreed, code, data: 0, extended: &size.to_le_bytes() }.encode(out);
                return Next::Stay;
            }
        };
        error.worded().encode(out);
        next
    }

    fn dispatch(
        &mut self,
        request: &Request<'_>,
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Handled {
        let code = request.header.code;
        if self.resynch && code != Code::GET_VERSION {
            return Err(Reject::RESYNCH);
        }
        self.check_supported(code)?;
        if code == Code::GET_VERSION {
            return self.get_version(request, out);
        }
        self.check_transfer(request)?;
        match code {
            Code::CHUNK_SEND => return self.chunk_send(request, vendor, out),
            Code::CHUNK_GET => return self.chunk_get(request, out),
            _ => self.check_busy(request)?,
        }
        match code {
            Code::GET_CAPABILITIES => return self.get_capabilities(request, out),
            Code::NEGOTIATE_ALGORITHMS => return self.negotiate_algorithms(request, out),
            _ => {}
        }
        self.check_version(request.header.version)?;
        self.connection.negotiated()?;
        if code == Code::RESPOND_IF_READY {
            return self.respond_if_ready(request, vendor, out);
        }
        self.check_phase(request)?;
        self.check_conversation(request)?;
        self.check_ready(request)?;
        self.handle(request, vendor, out)
    }

    /// A request that is in order.
    fn handle(
        &mut self,
        request: &Request<'_>,
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Handled {
        let code = request.header.code;
        self.reset_transcripts(request);
        match code {
            Code::GET_DIGESTS => self.get_digests(request, out),
            Code::GET_CERTIFICATE => self.get_certificate(request, out),
            Code::CHALLENGE => self.challenge(request, out),
            Code::GET_MEASUREMENTS => self.get_measurements(request, out),
            Code::KEY_EXCHANGE => self.key_exchange(request, out),
            Code::FINISH => self.finish(request, out),
            Code::PSK_EXCHANGE => self.psk_exchange(request, out),
            Code::PSK_FINISH => self.psk_finish(request, out),
            Code::HEARTBEAT => self.heartbeat(request, out),
            Code::KEY_UPDATE => self.key_update(request, out),
            Code::END_SESSION => self.end_session(request, out),
            Code::GET_ENCAPSULATED_REQUEST => self.get_encapsulated_request(request, out),
            Code::DELIVER_ENCAPSULATED_RESPONSE => self.deliver_encapsulated_response(request, out),
            Code::VENDOR_DEFINED_REQUEST => self.vendor_defined(request, vendor, out),
            Code::SET_CERTIFICATE => self.set_certificate(request, out),
            Code::GET_CSR => self.get_csr(request, out),
            Code::GET_KEY_PAIR_INFO => self.get_key_pair_info(request, out),
            Code::SET_KEY_PAIR_INFO => self.set_key_pair_info(request, out),
            Code::SLOT_MANAGEMENT => self.slot_management(request, out),
            Code::GET_MEASUREMENT_EXTENSION_LOG => self.get_measurement_log(request, out),
            Code::GET_ENDPOINT_INFO => self.get_endpoint_info(request, out),
            Code::GET_SUPPORTED_EVENT_TYPES => self.get_supported_event_types(request, out),
            Code::SUBSCRIBE_EVENT_TYPES => self.subscribe_event_types(request, out),
            _ => Err(Reject::unsupported(code)),
        }
    }
}
