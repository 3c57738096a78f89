//! Everything that can keep a command from finishing, kept apart by whose doing it is.

use core::time::Duration;

use crate::codec::{DecodeError, EncodeError};
use crate::crypto::CryptoError;
use crate::identity::ChainError;
use crate::secured::RecordError;
use crate::wire::{Code, ErrorCode, Version};

/// Why a command ended without its reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequesterError {
    /// The caller asked for something that cannot be done now. Nothing was sent and nothing changed.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// The responder answered with ERROR.
    #[error("{request:?} was refused with {code:?} (data {data:#04x})")]
    Refused {
        /// The request it answers.
        request: Code,
        /// The responder's error code.
        code: ErrorCode,
        /// The responder's error data.
        data: u8,
    },
    /// The responder stayed busy, or not ready, longer than the configuration allows.
    #[error("the responder did not answer {request:?} in time")]
    OutOfPatience {
        /// The request that was not answered.
        request: Code,
    },
    /// The response is not the message it claims to be.
    #[error("the response to {request:?} is malformed: {error}")]
    Malformed {
        /// The request it answers.
        request: Code,
        /// Where decoding stopped.
        error: DecodeError,
    },
    /// The response is well formed and breaks a rule of the protocol.
    #[error("the response to {request:?} is not acceptable: {violation}")]
    Violation {
        /// The request it answers.
        request: Code,
        /// Which rule.
        violation: Violation,
    },
    /// The certificate chain does not hold.
    #[error("the certificate chain of slot {slot} is not acceptable: {error}")]
    Chain {
        /// The slot it came from.
        slot: u8,
        /// What is wrong with it.
        error: ChainError,
    },
    /// A secured record cannot be made, or the one that came was damaged or forged.
    #[error("a secured record is not usable: {0}")]
    Record(#[from] RecordError),
    /// Our own cryptography or random number generator failed.
    #[error("cryptography failed: {0}")]
    Crypto(#[from] CryptoError),
    /// A field of the request does not fit its length on the wire.
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
}

/// What the caller got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A command is under way; it has to end, or be dropped with `cancel`.
    #[error("another command is under way")]
    CommandInProgress,
    /// There is no command that a response could belong to.
    #[error("no command is under way")]
    NoCommand,
    /// `retry` without a `RetryAfter` before it, or `receive` while a retry is due.
    #[error("the command waits for something else")]
    WrongTurn,
    /// The command needs a negotiated connection.
    #[error("there is no connection yet")]
    NotConnected,
    /// The command needs a session.
    #[error("there is no session")]
    NoSession,
    /// There is a session already, or the command is not for use inside one.
    #[error("there is a session already")]
    InSession,
    /// The command needs the certificate chain of this slot.
    #[error("the certificate chain of slot {0} has not been fetched")]
    NoCertificate(u8),
    /// Measurements have been asked for without a signature, which the next one would be over, too.
    #[error("measurements without a signature came before")]
    Unsigned,
    /// No pre-shared key in the configuration has this hint.
    #[error("no pre-shared key has this hint")]
    NoKey,
    /// A slot number above 7, or a measurement index of 0 or 255.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The responder does not have, or we did not announce, the capability.
    #[error("the connection has no capability for {0}")]
    NotCapable(&'static str),
    /// The request is longer than the responder takes.
    #[error("the request has {length} bytes and the responder takes {limit}")]
    TooLong {
        /// Length of the request.
        length: usize,
        /// The responder's DataTransferSize, or its MaxSPDMmsgSize where both sides have chunks.
        limit: usize,
    },
}

/// Rules of DSP0274 and DSP0277 that a response broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The message is written in another version than the request.
    #[error("written in version {received}, expected {expected}")]
    Version {
        /// The connection's version, or 1.0 for VERSION.
        expected: Version,
        /// The version in the message.
        received: Version,
    },
    /// Another message than the request's response.
    #[error("it is {0:?}")]
    Code(Code),
    /// A clear message answers a secured request, or the other way round. The content is not believed.
    #[error("it came {}", if *.secured { "secured for a clear request" } else { "in the clear for a secured request" })]
    Protection {
        /// How it came.
        secured: bool,
    },
    /// An ERROR in the clear answers a secured request. Anyone could have sent it, so the session stands.
    #[error("an unprotected ERROR {0:?} answers a secured request")]
    UnprotectedError(ErrorCode),
    /// A chunk of a large message that does not continue it.
    #[error("the transfer in chunks is broken: {0}")]
    Chunk(&'static str),
    /// None of the versions offered is spoken by the responder.
    #[error("no version in common")]
    NoCommonVersion,
    /// Capability flags that DSP0274 does not allow together.
    #[error("capability flags contradict each other: {0}")]
    Capabilities(&'static str),
    /// A size that DSP0274 does not allow.
    #[error("transfer sizes are illegal")]
    TransferSize,
    /// The message is longer than what we receive, which we declare from 1.2 on.
    #[error("{0} bytes are more than we receive")]
    TooLong(usize),
    /// The responder selected something that was not offered, or selected nothing where it has to.
    #[error("{0} was not selected from what was offered")]
    Selection(&'static str),
    /// Another slot than the one asked about, or one that is not provisioned.
    #[error("it is about another slot")]
    Slot,
    /// Portions of the certificate chain do not add up.
    #[error("portion and remainder do not add up")]
    Portion,
    /// The chain's digest is not the one DIGESTS or CHALLENGE_AUTH said, or the root's is not the chain's.
    #[error("{0} digest does not match")]
    Digest(&'static str),
    /// The leaf's key is not of the negotiated algorithm.
    #[error("the leaf's key is not of the negotiated algorithm")]
    KeyAlgorithm,
    /// The root is none of those the caller trusts.
    #[error("the root certificate is not trusted")]
    Untrusted,
    /// RequesterContext was not echoed.
    #[error("the requester context was not echoed")]
    Context,
    /// The signature over the transcript is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// The HMAC over the transcript is wrong.
    #[error("the verify data is wrong")]
    VerifyData,
    /// Number of blocks, indexes or total contradict the request or each other.
    #[error("the measurement record contradicts the request: {0}")]
    Measurements(&'static str),
    /// Something was asked of us that we did not announce, such as mutual authentication or a heartbeat.
    #[error("it asks for {0}, which was not announced")]
    NotAnnounced(&'static str),
    /// The responder asks and asks.
    #[error("the responder does not stop asking")]
    Questions,
    /// UpdateAllKeys was acknowledged under the key it replaces.
    #[error("the old key was used")]
    OldKey,
    /// A context where CAPABILITIES announced none, or none where it announced one.
    #[error("the responder's context is not what its capabilities announce")]
    PskContext,
    /// The responder's ephemeral key is no point on the curve.
    #[error("the exchange data is no valid public key")]
    ExchangeData,
    /// SLOT_MANAGEMENT_RESP contradicts itself or the connection.
    #[error("the description of the slots does not hold: {0}")]
    Slots(&'static str),
    /// Operation or tag of KEY_UPDATE, the vendor's ids or what SLOT_MANAGEMENT is about were not echoed.
    #[error("{0} was not echoed")]
    Echo(&'static str),
    /// ResponseNotReady for another request, for one that may not be deferred, or with an illegal time.
    #[error("ResponseNotReady is not legal here")]
    NotReady,
    /// The responder wants a longer wait than the configuration allows.
    #[error("it wants us to wait {0:?}")]
    Delay(Duration),
}
