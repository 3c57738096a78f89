//! Answers that take their time, where the configuration says so: Busy, and ResponseNotReady with RESPOND_IF_READY
//! (DSP0274 1.3 "ERROR response message", "RESPOND_IF_READY").

use core::time::Duration;

use zeroize::Zeroizing;

use crate::SessionId;
use crate::codec::Reader;
use crate::wire::{Code, ErrorCode, Header, NotReady, RespondIfReady};

use super::Core;
use super::reject::{Handled, Reject};
use super::state::Request;
use super::vendor::VendorHandler;

/// A request whose answer takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The request.
    pub request: Code,
    /// How it is answered until the answer is there.
    pub wait: Wait,
    /// It takes 2^this microseconds, from the request on; at most 31.
    pub exponent: u8,
}

/// What a requester hears while it has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Busy: the request is ignored until the time is over, and answered when it comes again.
    Busy,
    /// ResponseNotReady: the request is kept, and answered when RESPOND_IF_READY comes after the time is over.
    NotReady,
}

impl Delay {
    /// Whether DSP0274 allows this request to wait so.
    pub(super) fn is_legal(&self) -> bool {
        let never = [Code::GET_VERSION, Code::RESPOND_IF_READY, Code::CHUNK_SEND, Code::CHUNK_GET];
        let legal = match self.wait {
            Wait::Busy => !never.contains(&self.request),
            Wait::NotReady => self.request.may_be_deferred(),
        };
        legal && self.exponent <= super::config::MAX_CT_EXPONENT
    }

    fn duration(&self) -> Duration {
        Duration::from_micros(1_u64.checked_shl(self.exponent.into()).unwrap_or(u64::MAX))
    }
}

/// How long a response is kept, in multiples of the time it takes: there is only one, so that it costs nothing.
const MULTIPLIER: u8 = u8::MAX;

/// What is being waited for.
#[derive(Default)]
pub(super) struct Deferrals {
    /// Time of the request being handled.
    pub(super) now: Duration,
    /// The request that was told to come again, and when it is served.
    busy: Option<(Code, Duration)>,
    deferred: Option<Deferred>,
    last_token: u8,
}

/// A request that RESPOND_IF_READY will ask about. It may be confidential.
struct Deferred {
    session: Option<SessionId>,
    not_ready: NotReady,
    ready: Duration,
    bytes: Zeroizing<Vec<u8>>,
}

impl Deferrals {
    pub(super) fn clear(&mut self) {
        (self.busy, self.deferred) = (None, None);
    }
}

impl Core {
    fn delay(&self, code: Code, wait: Wait) -> Option<Delay> {
        self.config.delays.iter().find(|delay| delay.request == code && delay.wait == wait).copied()
    }

    /// Whether any response is ever deferred.
    pub(super) fn defers(&self) -> bool {
        self.config.delays.iter().any(|delay| delay.wait == Wait::NotReady)
    }

    /// Busy, until the time is over. Whoever sends another request does not wait for a deferred one any more.
    pub(super) fn check_busy(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let code = request.header.code;
        if code != Code::RESPOND_IF_READY {
            self.deferrals.deferred = None;
        }
        let Some(delay) = self.delay(code, Wait::Busy) else { return Ok(()) };
        let now = self.deferrals.now;
        match self.deferrals.busy {
            Some((busy_with, until)) if busy_with == code && until <= now => {
                self.deferrals.busy = None;
                return Ok(());
            }
            Some((busy_with, _)) if busy_with == code => {}
            Some(_) | None => self.deferrals.busy = Some((code, now.saturating_add(delay.duration()))),
        }
        Err(Reject::error(ErrorCode::BUSY))
    }

    /// Keeps a request that is to be asked about again.
    pub(super) fn check_ready(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let Some(delay) = self.delay(request.header.code, Wait::NotReady) else { return Ok(()) };
        let session = self.session_of(request);
        let bytes = Zeroizing::new(request.bytes.to_vec());
        let deferrals = &mut self.deferrals;
        deferrals.last_token = deferrals.last_token.wrapping_add(1);
        let (request, token) = (request.header.code, deferrals.last_token);
        let not_ready = NotReady { exponent: delay.exponent, request, token, multiplier: MULTIPLIER };
        let ready = deferrals.now.saturating_add(delay.duration());
        deferrals.deferred = Some(Deferred { session, not_ready, ready, bytes });
        Err(Reject::NotReady(not_ready))
    }

    pub(super) fn respond_if_ready(
        &mut self,
        request: &Request<'_>,
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (body, _) = request.parse(RespondIfReady::parse)?;
        let session = self.session_of(request);
        let deferred = self.deferrals.deferred.take_if(|deferred| deferred.session == session);
        let deferred = deferred.ok_or(Reject::UNEXPECTED)?;
        let NotReady { request: code, token, .. } = deferred.not_ready;
        if (body.request, body.token) != (code, token) {
            self.deferrals.deferred = Some(deferred);
            return Err(Reject::INVALID);
        }
        if self.deferrals.now < deferred.ready {
            let not_ready = deferred.not_ready;
            self.deferrals.deferred = Some(deferred);
            return Err(Reject::NotReady(not_ready));
        }
        // Nothing has come in between, so that the request is still as acceptable as it was.
        let header = Header::parse(&mut Reader::new(&deferred.bytes))?;
        self.handle(&Request { header, bytes: &deferred.bytes, session: request.session }, vendor, out)
    }
}
