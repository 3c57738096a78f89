//! The requester, without I/O: commands go in; messages to send, times to wait and verified replies come out.
//!
//! ```
//! # use spdm::requester::{Command, Reply, Requester, RequesterError, Step};
//! # use std::time::Duration;
//! # fn exchange(secured: bool, message: &[u8]) -> (bool, Vec<u8>) { (secured, message.to_vec()) }
//! fn run(requester: &mut Requester, command: Command) -> Result<Reply, RequesterError> {
//!     let mut step = requester.begin(command)?;
//!     loop {
//!         step = match step {
//!             Step::Send { secured, bytes } => {
//!                 let (secured, response) = exchange(secured, &bytes); // the transport's part
//!                 requester.receive(secured, &response)?
//!             }
//!             Step::RetryAfter(delay) => {
//!                 std::thread::sleep(delay);
//!                 requester.retry()?
//!             }
//!             Step::Done(reply) => return Ok(reply),
//!         }
//!     }
//! }
//! ```
//!
//! [`Driver`] is this loop over a [`Transport`], with one method and one reply type per command.

mod attest;
mod certificate;
mod command;
mod config;
mod driver;
mod encapsulated;
mod error;
mod events;
mod evidence;
mod handshake;
mod inventory;
mod negotiate;
mod operate;
mod provision;
mod psk;
mod respond;
mod saved;
mod sessions;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

pub use crate::trust::{KnownKey, RootPin, Trust, TrustPolicy};
pub use command::*;
pub use config::{RequesterConfig, RequesterConfigError};
pub use driver::{Driver, DriverError, Response, Transport};
pub use error::{Misuse, RequesterError, Violation};
pub use evidence::{Evidence, EvidenceError};
pub use saved::{RestoreError, SavedSession};
pub use slots::{BankReport, BankSlot, SlotCommand, SlotReply};

use self::sessions::Sessions;
use self::state::{Core, Flow, Message, Next, Request};
use self::transfer::Transfer;
use crate::SessionId;
use crate::chains::Chains;
use crate::codec::Reader;
use crate::crypto::Provider;
use crate::secured::RecordError;
use crate::slot::Slots;
use crate::wire::{Code, ErrorCode, ErrorResponse, Header, NotReady, RespondIfReady};

/// Longest ExtendedErrorData time exponent that is taken seriously: 2^31 µs.
const MAX_DELAY_EXPONENT: u8 = 31;
/// Bit that tells a response code from the code of its request.
const REQUEST_BIT: u8 = 0x80;

/// One requester's end of one connection and of the sessions on it.
///
/// Commands travel in the selected session: the one started last, until [`Self::select`] chooses another or none.
pub struct Requester {
    core: Core,
    pending: Option<Pending>,
    /// Handle of the last CHUNK_SEND.
    last_handle: u8,
}

/// The command under way.
struct Pending {
    request: Request,
    transfer: Transfer,
    turn: Turn,
    /// Retries left.
    patience: u32,
}

/// What a pending command waits for.
enum Turn {
    /// The response.
    Receive,
    /// The host's clock, then the same message again.
    Repeat,
    /// The host's clock, then RESPOND_IF_READY.
    Fetch(NotReady),
}

impl Requester {
    /// A requester without a connection.
    ///
    /// # Errors
    /// [`RequesterConfigError`] for settings that cannot work with this crate or this provider.
    pub fn new(config: RequesterConfig, provider: Box<dyn Provider>) -> Result<Self, RequesterConfigError> {
        Self::with_identity(config, provider, Slots::default())
    }

    /// A requester without a connection that can prove who it is, if a responder asks: by certificate chains, of
    /// which one is in slot 0, or else by a public key.
    ///
    /// # Errors
    /// As [`Self::new`], also for an identity that cannot be used.
    pub fn with_identity(
        config: RequesterConfig,
        provider: Box<dyn Provider>,
        identity: Slots,
    ) -> Result<Self, RequesterConfigError> {
        config.check(&*provider)?;
        let chains = Chains::new(&*provider, identity, &config.hashes)?;
        let core = Core { config, provider, connection: None, sessions: Sessions::default(), chains };
        Ok(Self { core, pending: None, last_handle: 0 })
    }

    /// Takes up a session that was saved. What the two sides remember for the next CHALLENGE and the next signed
    /// measurements is not saved: outside the session, GET_DIGESTS begins the first anew.
    ///
    /// # Errors
    /// [`RestoreError`] if the session was not saved by this crate or cannot be used with this provider. The
    /// requester is as before then, otherwise its earlier connection and sessions are forgotten.
    pub fn restore(&mut self, saved: &SavedSession) -> Result<(), RestoreError> {
        let (mut connection, session) = saved.revive(&*self.core.provider)?;
        connection.known = self.core.known_key(&connection.info)?;
        self.pending = None;
        self.core.connection = Some(connection);
        self.core.sessions.clear();
        self.core.sessions.begin(session);
        Ok(())
    }

    /// The selected session as it is now, for [`Self::restore`]; `None` without an established session, or while a
    /// command is under way.
    #[must_use]
    pub fn save(&self) -> Option<SavedSession> {
        if self.pending.is_some() {
            return None;
        }
        SavedSession::of(&self.core)
    }

    /// What was negotiated.
    #[must_use]
    pub fn connection(&self) -> Option<&ConnectionInfo> {
        self.core.connection.as_ref().map(|connection| &connection.info)
    }

    /// The session that commands travel in, once it is established.
    #[must_use]
    pub fn session(&self) -> Option<&SessionInfo> {
        let active = self.core.sessions.current()?;
        active.session.is_established().then_some(&active.info)
    }

    /// All established sessions, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionInfo> {
        self.core.sessions.established()
    }

    /// Chooses the session that commands travel in from now on; `None` for outside any, where the next session can be
    /// started.
    ///
    /// # Errors
    /// [`Misuse`] if there is no such session, or while a command is under way; the choice stays as it was then.
    pub fn select(&mut self, session: Option<SessionId>) -> Result<(), Misuse> {
        if self.pending.is_some() {
            return Err(Misuse::CommandInProgress);
        }
        self.core.sessions.select(session)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// [`RequesterError::Misuse`] if it cannot be started now; nothing has changed then, and no step follows.
    pub fn begin(&mut self, command: Command) -> Result<Step, RequesterError> {
        if self.pending.is_some() {
            return Err(Misuse::CommandInProgress.into());
        }
        let core = &mut self.core;
        let next = match command {
            Command::Connect => Ok(negotiate::Negotiation::start(core)),
            Command::Digests => certificate::get_digests(core),
            Command::Certificate { slot } => certificate::Fetch::start(core, slot),
            Command::Challenge { slot, summary } => attest::PendingChallenge::start(core, slot, summary),
            Command::Measurements(query) => attest::PendingMeasurements::start(core, query),
            Command::Evidence { slot, nonce } => {
                attest::PendingMeasurements::start_evidence(core, slot, nonce)
            }
            Command::StartSession { slot, summary, end_on_update } => {
                handshake::PendingKeyExchange::start(core, slot, summary, end_on_update)
            }
            Command::StartPskSession { hint, summary, end_on_update } => {
                psk::PendingPskExchange::start(core, &hint, summary, end_on_update)
            }
            Command::Serve => encapsulated::Conversation::serve(core),
            Command::Heartbeat => operate::heartbeat(core),
            Command::UpdateKeys(keys) => operate::PendingKeyUpdate::start(core, keys),
            Command::EndSession { clear_negotiated_state } => {
                operate::end_session(core, clear_negotiated_state)
            }
            Command::Vendor { standard_id, vendor_id, payload } => {
                operate::PendingVendor::start(core, standard_id, vendor_id, &payload)
            }
            Command::SetCertificate { slot, key_pair, content } => {
                provision::set_certificate(core, slot, key_pair, &content)
            }
            Command::Csr(query) => provision::get_csr(core, &query),
            Command::KeyPair { key_pair } => provision::get_key_pair_info(core, key_pair),
            Command::SetKeyPair { key_pair, operation } => {
                provision::set_key_pair_info(core, key_pair, operation)
            }
            Command::Slots(command) => slots::PendingSlots::start(core, &command),
            Command::MeasurementLog => inventory::FetchLog::start(core),
            Command::EventTypes => events::get_types(core),
            Command::Subscribe { groups } => events::subscribe(core, groups),
            Command::EndpointInfo { signed_by } => inventory::PendingEndpointInfo::start(core, signed_by),
        }?;
        self.proceed(next)
    }

    /// Takes the response to what [`Step::Send`] said. `secured` is how it came: as a secured record or in clear.
    ///
    /// # Errors
    /// Any [`RequesterError`]; the command is over then. The session stands unless it was being started, or the
    /// responder said that it ended.
    pub fn receive(&mut self, secured: bool, response: &[u8]) -> Result<Step, RequesterError> {
        let pending = match &self.pending {
            None => return Err(Misuse::NoCommand.into()),
            Some(Pending { turn: Turn::Receive, .. }) => self.pending.take(),
            Some(_) => return Err(Misuse::WrongTurn.into()),
        };
        let pending = pending.ok_or(Misuse::NoCommand)?;
        let result = self.handle(pending, secured, response);
        if result.is_err() {
            self.settle();
        }
        result
    }

    /// Goes on after the wait of [`Step::RetryAfter`].
    ///
    /// # Errors
    /// [`RequesterError::Misuse`] if no wait was asked for; other errors end the command.
    pub fn retry(&mut self) -> Result<Step, RequesterError> {
        let pending = match &self.pending {
            None => return Err(Misuse::NoCommand.into()),
            Some(Pending { turn: Turn::Receive, .. }) => return Err(Misuse::WrongTurn.into()),
            Some(_) => self.pending.take(),
        };
        let mut pending = pending.ok_or(Misuse::NoCommand)?;
        if let Turn::Fetch(NotReady { request, token, .. }) = pending.turn {
            let mut bytes = Vec::new();
            RespondIfReady { version: pending.request.version, request, token }.encode(&mut bytes);
            let step = self.protect(pending.request.secured, &bytes).inspect_err(|_| self.settle())?;
            pending.turn = Turn::Receive;
            self.pending = Some(pending);
            return Ok(step);
        }
        if matches!(pending.transfer, Transfer::Whole) {
            pending.transfer = Transfer::plan(&self.core, &pending.request, &mut self.last_handle)?;
        }
        self.resume(pending).inspect_err(|_| self.settle())
    }

    /// Drops the command under way, if there is one: no response came, or nobody waits for it any more. A session
    /// that was being started is gone. An established one may be out of step with the responder.
    pub fn cancel(&mut self) {
        self.pending = None;
        self.settle();
    }

    /// After a failed command: half a session is none.
    fn settle(&mut self) {
        if self.core.sessions.current().is_some_and(|active| !active.session.is_established()) {
            self.core.sessions.end_current();
        }
    }

    /// Turns what a command wants next into a step.
    fn proceed(&mut self, next: Next) -> Result<Step, RequesterError> {
        let request = match next {
            Next::Done(reply) => return Ok(Step::Done(reply)),
            Next::Send(request) => request,
        };
        let transfer = Transfer::plan(&self.core, &request, &mut self.last_handle)?;
        self.core.note_request(request.code());
        let patience = self.core.config.retries;
        self.resume(Pending { request, transfer, turn: Turn::Receive, patience })
    }

    /// Sends what the command's transfer wants next.
    fn resume(&mut self, mut pending: Pending) -> Result<Step, RequesterError> {
        let step = self.protect(pending.request.secured, &pending.transfer.message(&pending.request)?)?;
        pending.turn = Turn::Receive;
        self.pending = Some(pending);
        Ok(step)
    }

    /// A message as it leaves.
    fn protect(&mut self, secured: bool, message: &[u8]) -> Result<Step, RequesterError> {
        if !secured {
            return Ok(Step::Send { secured, bytes: message.to_vec() });
        }
        let active = self.core.sessions.current_mut().ok_or(Misuse::NoSession)?;
        let mut bytes = Vec::new();
        let sealed = active.session.seal(message, &mut bytes);
        self.usable(sealed)?;
        Ok(Step::Send { secured, bytes })
    }

    /// A key that has protected as many records as it may ends its session.
    fn usable(&mut self, record: Result<(), RecordError>) -> Result<(), RecordError> {
        if record == Err(RecordError::Exhausted) {
            self.core.sessions.end_current();
        }
        record
    }

    /// One transfer.
    fn handle(
        &mut self,
        mut pending: Pending,
        secured: bool,
        response: &[u8],
    ) -> Result<Step, RequesterError> {
        let code = pending.request.code();
        let mut plain = Vec::new();
        let response = if secured && pending.request.secured {
            let active = self.core.sessions.current_mut().ok_or(Misuse::NoSession)?;
            let opened = active.session.open(response, &mut plain);
            self.usable(opened)?;
            plain.as_slice()
        } else {
            response
        };
        let message = Message { request: &pending.request.bytes, code, response, secured };
        let header = Header::parse(&mut Reader::new(response)).map_err(|error| message.malformed(error))?;
        if secured != pending.request.secured {
            return Err(message.violation(match header.code {
                Code::ERROR if !secured => Violation::UnprotectedError(ErrorCode(header.param1)),
                _ => Violation::Protection { secured },
            }));
        }
        let limit = usize::try_from(self.core.config.data_transfer_size).unwrap_or(usize::MAX);
        if response.len() > limit.saturating_add(state::MAX_PADDING) {
            return Err(message.violation(Violation::TooLong(response.len())));
        }
        // ERROR ends a transfer, or lets it wait.
        if header.code == Code::ERROR || matches!(pending.transfer, Transfer::Whole) {
            return self.answer(pending, secured, response);
        }
        match pending.transfer.carried(&message, header, pending.request.version)? {
            Some(response) => self.answer(pending, secured, &response),
            None => self.resume(pending),
        }
    }

    /// One response, to the end.
    fn answer(&mut self, pending: Pending, secured: bool, response: &[u8]) -> Result<Step, RequesterError> {
        let code = pending.request.code();
        let message = Message { request: &pending.request.bytes, code, response, secured };
        let header = Header::parse(&mut Reader::new(response)).map_err(|error| message.malformed(error))?;
        if header.code == Code::ERROR {
            let mut reader = Reader::new(response);
            let error = ErrorResponse::parse(&mut reader).map_err(|error| message.malformed(error))?;
            return self.refused(pending, &error);
        }
        message.expect(header, pending.request.version, Code(code.0 & !REQUEST_BIT))?;

        let core = &mut self.core;
        let next = match pending.request.flow {
            Flow::Version(flow) => flow.version(core, &message),
            Flow::Capabilities(flow) => flow.capabilities(core, &message),
            Flow::Algorithms(flow) => flow.algorithms(core, &message),
            Flow::Digests => certificate::digests(core, &message),
            Flow::Certificate(flow) => flow.portion(core, &message),
            Flow::Challenge(flow) => flow.authenticate(core, &message),
            Flow::Measurements(flow) => flow.report(core, &message),
            Flow::KeyExchange(flow) => flow.exchanged(core, &message),
            Flow::Finish(flow) => flow.finished(core, &message),
            Flow::PskExchange(flow) => flow.exchanged(core, &message),
            Flow::PskFinish(flow) => flow.finished(core, &message),
            Flow::Heartbeat => operate::alive(&message),
            Flow::KeyUpdate(flow) => flow.acknowledged(core, &message),
            Flow::EndSession => operate::ended(core, &message),
            Flow::EncapsulatedRequest(flow) => flow.requested(core, &message),
            Flow::Delivery(flow) => flow.acknowledged(core, &message),
            Flow::Vendor(flow) => flow.answered(&message),
            Flow::SetCertificate { slot } => provision::certificate_set(slot, &message),
            Flow::Csr => provision::csr(&message),
            Flow::KeyPair(id) => provision::key_pair_info(id, &message),
            Flow::SetKeyPair => provision::key_pair_set(&message),
            Flow::Slots(flow) => flow.answered(core, &message),
            Flow::MeasurementLog(flow) => flow.portion(core, &message),
            Flow::EventTypes => events::types(&message),
            Flow::Subscription => events::subscribed(&message),
            Flow::EndpointInfo(flow) => flow.describe(core, &message),
        }?;
        self.proceed(next)
    }

    /// An ERROR: wait and try again, or give up.
    fn refused(&mut self, mut pending: Pending, error: &ErrorResponse<'_>) -> Result<Step, RequesterError> {
        let request = pending.request.code();
        let violation = |violation| RequesterError::Violation { request, violation };
        let whole = matches!(pending.transfer, Transfer::Whole);
        // DSP0274 1.3 "L1/L2": every ERROR but these begins them anew, on both sides, BUSY included.
        if request == Code::GET_MEASUREMENTS
            && whole
            && ![ErrorCode::RESPONSE_NOT_READY, ErrorCode::LARGE_RESPONSE].contains(&error.code)
            && let Ok(log) = self.core.measurement_log()
        {
            *log = None;
        }
        let (delay, turn) = match error.code {
            ErrorCode::BUSY => (self.core.config.busy_delay, Turn::Repeat),
            ErrorCode::RESPONSE_NOT_READY => {
                let not_ready = error.not_ready().filter(|not_ready| {
                    whole
                        && not_ready.request == request
                        && not_ready.exponent <= MAX_DELAY_EXPONENT
                        && not_ready.multiplier > 1
                        && request.may_be_deferred()
                });
                let not_ready = not_ready.ok_or_else(|| violation(Violation::NotReady))?;
                (not_ready.delay(), Turn::Fetch(not_ready))
            }
            ErrorCode::LARGE_RESPONSE if self.core.may_fetch(&pending.request, &pending.transfer) => {
                pending.transfer = Transfer::fetch(&self.core, error);
                return self.resume(pending);
            }
            code => {
                if let Flow::EncapsulatedRequest(flow) = &pending.request.flow
                    && let Some(reply) = flow.nothing_asked(code)
                {
                    return Ok(Step::Done(reply));
                }
                self.note_refusal(&pending.request, code);
                return Err(RequesterError::Refused { request, code, data: error.data });
            }
        };
        if delay > self.core.config.max_delay {
            return Err(violation(Violation::Delay(delay)));
        }
        pending.patience =
            pending.patience.checked_sub(1).ok_or(RequesterError::OutOfPatience { request })?;
        pending.turn = turn;
        self.pending = Some(pending);
        Ok(Step::RetryAfter(delay))
    }

    /// What a final ERROR means for connection, session and logs.
    fn note_refusal(&mut self, request: &Request, code: ErrorCode) {
        match code {
            // The responder ends a session whose record it could not open (DSP0277).
            ErrorCode::DECRYPT_ERROR if request.secured => self.core.sessions.end_current(),
            ErrorCode::REQUEST_RESYNCH => self.core.disconnect(),
            _ => {}
        }
        if let (Flow::KeyUpdate(_), Some(active)) = (&request.flow, self.core.sessions.current_mut()) {
            active.session.revert_inbound();
        }
    }
}

impl core::fmt::Debug for Requester {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Requester")
            .field("connection", &self.connection())
            .field("session", &self.core.sessions.current().map(|active| &active.session))
            .field("pending", &self.pending.as_ref().map(|pending| pending.request.code()))
            .finish_non_exhaustive()
    }
}
