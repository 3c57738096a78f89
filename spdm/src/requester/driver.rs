//! The loop around a requester, for hosts that can block: one method and one reply type per command.

use core::time::Duration;

use super::{
    BankReport, Challenged, Command, ConnectionInfo, CsrQuery, EndpointReport, Evidence, KeyPairReport,
    MeasurementLogReport, MeasurementQuery, MeasurementReport, Misuse, PeerCertificate, Reply, Requester,
    RequesterError, Served, SessionInfo, SlotCommand, SlotContent, SlotDigests, SlotReply, Step, UpdateKeys,
};
use crate::wire::{
    BankElement, EventGroup, KeyPairAlgorithms, KeyPairOperation, Nonce, SlotAddress, SubCodes, SummaryType,
};

/// How a host carries messages and spends time.
pub trait Transport {
    /// What can go wrong in it.
    type Error;

    /// Sends one message, as a secured record or in clear, and waits for the one that answers it.
    ///
    /// # Errors
    /// Whatever keeps the answer from coming; the command is dropped then.
    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error>;

    /// Lets time pass.
    fn wait(&mut self, delay: Duration);
}

/// What answered a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Whether it came as a secured record.
    pub secured: bool,
    /// The record or message, which may have up to three bytes of padding.
    pub bytes: Vec<u8>,
}

/// A command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError<E> {
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(E),
    /// The responder refused, or the protocol failed.
    #[error(transparent)]
    Requester(#[from] RequesterError),
}

/// A requester and the transport it uses.
#[derive(Debug)]
pub struct Driver<'r, T> {
    requester: &'r mut Requester,
    transport: T,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty, $command:expr, $pattern:pat => $value:expr;)*) => {
        impl<T: Transport> Driver<'_, T> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`DriverError`] of the transport or the requester.
                pub fn $name(&mut self, $($argument: $type),*) -> Result<$reply, DriverError<T::Error>> {
                    match self.run($command)? {
                        $pattern => Ok($value),
                        _ => Err(DriverError::Requester(Misuse::WrongTurn.into())),
                    }
                }
            )*
        }
    };
}

commands! {
    /// [`Command::Connect`].
    connect() -> ConnectionInfo, Command::Connect, Reply::Connected(info) => info;
    /// [`Command::Digests`].
    digests() -> SlotDigests, Command::Digests, Reply::Digests(digests) => digests;
    /// [`Command::Certificate`].
    certificate(slot: u8) -> PeerCertificate, Command::Certificate { slot }, Reply::Certificate(found) => found;
    /// [`Command::Challenge`].
    challenge(slot: u8, summary: SummaryType) -> Challenged,
        Command::Challenge { slot, summary }, Reply::Challenged(proof) => proof;
    /// [`Command::Measurements`].
    measurements(query: MeasurementQuery) -> MeasurementReport,
        Command::Measurements(query), Reply::Measurements(report) => report;
    /// [`Command::Evidence`].
    evidence(slot: u8, nonce: Nonce) -> Evidence, Command::Evidence { slot, nonce }, Reply::Evidence(evidence) => evidence;
    /// [`Command::StartSession`].
    start_session(slot: u8, summary: SummaryType, end_on_update: bool) -> SessionInfo,
        Command::StartSession { slot, summary, end_on_update }, Reply::SessionStarted(info) => info;
    /// [`Command::StartPskSession`].
    start_psk_session(hint: &[u8], summary: SummaryType, end_on_update: bool) -> SessionInfo,
        Command::StartPskSession { hint: hint.to_vec(), summary, end_on_update }, Reply::SessionStarted(info) => info;
    /// [`Command::Serve`].
    serve() -> Served, Command::Serve, Reply::Served(served) => served;
    /// [`Command::Heartbeat`].
    heartbeat() -> (), Command::Heartbeat, Reply::Alive => ();
    /// [`Command::UpdateKeys`].
    update_keys(keys: UpdateKeys) -> (), Command::UpdateKeys(keys), Reply::KeysUpdated => ();
    /// [`Command::EndSession`].
    end_session(clear_negotiated_state: bool) -> (),
        Command::EndSession { clear_negotiated_state }, Reply::SessionEnded => ();
    /// [`Command::Vendor`].
    vendor(standard_id: u16, vendor_id: &[u8], payload: &[u8]) -> Vec<u8>,
        Command::Vendor { standard_id, vendor_id: vendor_id.to_vec(), payload: payload.to_vec() },
        Reply::Vendor(payload) => payload;
    /// [`Command::SetCertificate`].
    set_certificate(slot: u8, key_pair: u8, content: SlotContent) -> (),
        Command::SetCertificate { slot, key_pair, content }, Reply::CertificateSet => ();
    /// [`Command::Csr`].
    csr(query: CsrQuery) -> Vec<u8>, Command::Csr(query), Reply::Csr(csr) => csr;
    /// [`Command::KeyPair`].
    key_pair(key_pair: u8) -> KeyPairReport, Command::KeyPair { key_pair }, Reply::KeyPair(report) => report;
    /// [`Command::SetKeyPair`].
    set_key_pair(key_pair: u8, operation: KeyPairOperation) -> (),
        Command::SetKeyPair { key_pair, operation }, Reply::KeyPairSet => ();
    /// [`SlotCommand::SubCodes`].
    sub_codes() -> SubCodes, Command::Slots(SlotCommand::SubCodes), Reply::Slots(SlotReply::SubCodes(codes)) => codes;
    /// [`SlotCommand::Banks`].
    banks() -> Vec<BankElement>, Command::Slots(SlotCommand::Banks), Reply::Slots(SlotReply::Banks(banks)) => banks;
    /// [`SlotCommand::Bank`].
    bank(bank: u8) -> BankReport,
        Command::Slots(SlotCommand::Bank { bank }), Reply::Slots(SlotReply::Bank(report)) => report;
    /// [`SlotCommand::Certificate`].
    bank_certificate(address: SlotAddress) -> PeerCertificate,
        Command::Slots(SlotCommand::Certificate { address }), Reply::Slots(SlotReply::Certificate(found)) => found;
    /// [`SlotCommand::Csr`].
    bank_csr(bank: u8, query: CsrQuery) -> Vec<u8>,
        Command::Slots(SlotCommand::Csr { bank, query }), Reply::Slots(SlotReply::Csr(csr)) => csr;
    /// [`SlotCommand::Configure`].
    configure_bank(bank: u8, algorithm: KeyPairAlgorithms) -> (),
        Command::Slots(SlotCommand::Configure { bank, algorithm }), Reply::Slots(SlotReply::Done) => ();
    /// [`SlotCommand::Write`].
    write_slot(address: SlotAddress, key_pair: u8, content: SlotContent) -> (),
        Command::Slots(SlotCommand::Write { address, key_pair, content }), Reply::Slots(SlotReply::Done) => ();
    /// [`Command::MeasurementLog`].
    measurement_log() -> MeasurementLogReport, Command::MeasurementLog, Reply::MeasurementLog(log) => log;
    /// [`Command::EndpointInfo`].
    endpoint_info(signed_by: Option<u8>) -> EndpointReport,
        Command::EndpointInfo { signed_by }, Reply::EndpointInfo(report) => report;
    /// [`Command::EventTypes`].
    event_types() -> Vec<EventGroup>, Command::EventTypes, Reply::EventTypes(groups) => groups;
    /// [`Command::Subscribe`].
    subscribe(groups: Vec<EventGroup>) -> (), Command::Subscribe { groups }, Reply::Subscribed => ();
}

impl<'r, T: Transport> Driver<'r, T> {
    /// Puts the two together.
    pub fn new(requester: &'r mut Requester, transport: T) -> Self {
        Self { requester, transport }
    }

    /// The requester.
    #[must_use]
    pub fn requester(&self) -> &Requester {
        self.requester
    }

    /// The transport.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Runs any command.
    ///
    /// # Errors
    /// [`DriverError`] of the transport or the requester.
    pub fn run(&mut self, command: Command) -> Result<Reply, DriverError<T::Error>> {
        let mut step = self.requester.begin(command)?;
        loop {
            step = match step {
                Step::Send { secured, bytes } => match self.transport.exchange(secured, &bytes) {
                    Ok(response) => self.requester.receive(response.secured, &response.bytes)?,
                    Err(error) => {
                        self.requester.cancel();
                        return Err(DriverError::Transport(error));
                    }
                },
                Step::RetryAfter(delay) => {
                    self.transport.wait(delay);
                    self.requester.retry()?
                }
                Step::Done(reply) => return Ok(reply),
            }
        }
    }
}
