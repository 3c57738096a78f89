//! TDISP messages: header, interface and session are judged here, in this order, for all of them alike.

use crate::SessionId;
use crate::wire::{
    Capabilities, Header, InterfaceId, LockRequest, MessageCode, Nonce, Request, RequestBitmap, Response,
    ResponseMessage, VERSION_1_0,
};

use super::config::{ForeignStateQuery, FunctionMatch, KeysAtLock, ReservedFields};
use super::effect::Effect;
use super::refusal::Refusal;
use super::tdi::{Event, Outcome, Tdi};
use super::view::FunctionView;
use super::{Answer, Dsm, lock};

/// Requests that are answered, as TDISP_CAPABILITIES tells.
const SUPPORTED: RequestBitmap = RequestBitmap::REQUIRED;

impl Dsm {
    /// One TDISP message, without the protocol-id byte. `functions` describes every function as it is
    /// configured now; one that is missing is not hosted. `random` fills its argument, or returns false.
    /// The answer is appended to `response`.
    ///
    /// Outside of a secured session TDISP is discarded without an answer (PCIe 6.1 §11.3).
    pub fn tdisp(
        &mut self,
        session: Option<SessionId>,
        message: &[u8],
        functions: &[FunctionView],
        random: &mut dyn FnMut(&mut [u8]) -> bool,
        response: &mut Vec<u8>,
    ) -> Answer {
        let Some(session) = session else { return Answer::Silent };
        let start = response.len();
        let (interface, code) = match Header::decode(message) {
            Ok((header, _)) => (header.interface, header.code),
            Err(_) => (InterfaceId::default(), MessageCode(0)),
        };
        if let Err(refusal) = self.handle(session, message, functions, random, response) {
            response.truncate(start);
            let error = Response::error(refusal.code(), refusal.data());
            // Cannot fail: an error without extended data has no length field.
            let answer = reply(interface, error, response).map(|()| Answer::Respond);
            self.tdis.effects.push_back(Effect::Refused { request: code, refusal });
            return answer.unwrap_or(Answer::Silent);
        }
        Answer::Respond
    }

    fn handle(
        &mut self,
        session: SessionId,
        message: &[u8],
        functions: &[FunctionView],
        random: &mut dyn FnMut(&mut [u8]) -> bool,
        response: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (header, body) = Header::decode(message)?;
        if header.version != VERSION_1_0 {
            return Err(Refusal::Version(header.version));
        }
        if !SUPPORTED.contains(header.code) {
            return Err(Refusal::Unsupported(header.code));
        }
        let request = Request::decode_body(header.code, body)?;
        if header.reserved != 0 && self.config.reserved_fields == ReservedFields::Reject {
            return Err(Refusal::Reserved("header"));
        }
        let view = self.find_function(header.interface, functions)?;
        let function = view.number;
        self.check_session(session, function, &request)?;

        let interface = header.interface;
        match request {
            Request::GetVersion => reply(interface, Response::Version(&[VERSION_1_0]), response),
            Request::GetCapabilities { .. } => {
                reply(interface, Response::Capabilities(self.capabilities()), response)
            }
            Request::GetState => reply(interface, Response::State(self.state(function)), response),
            Request::GetReport { offset, length } => {
                self.happen(function, Event::Report)?;
                let report = self.report(function).unwrap_or_default();
                let length = length.min(self.config.max_report_portion);
                let (portion, remainder) = portion(report, offset, length)?;
                reply(interface, Response::Report { portion, remainder }, response)
            }
            Request::Lock(lock) => {
                let nonce = self.lock(&lock, session, view, random)?;
                reply(interface, Response::Lock(nonce), response)
            }
            Request::Start(nonce) => {
                self.happen(function, Event::Start(&nonce))?;
                reply(interface, Response::Start, response)
            }
            Request::Stop => {
                self.happen(function, Event::Stop)?;
                reply(interface, Response::Stop, response)
            }
            Request::BindP2p(_) | Request::UnbindP2p(_) | Request::SetMmioAttribute(_) | Request::Vdm(_) => {
                Err(Refusal::Unsupported(header.code))
            }
        }
    }

    /// The function that an INTERFACE_ID names, if it is hosted.
    fn find_function<'f>(
        &self,
        interface: InterfaceId,
        functions: &'f [FunctionView],
    ) -> Result<&'f FunctionView, Refusal> {
        let id = interface.function;
        if self.config.reserved_fields == ReservedFields::Reject {
            let unstated_segment = id.segment().is_none() && id.segment_field() != 0;
            if interface.reserved != 0 || id.reserved() != 0 || unstated_segment {
                return Err(Refusal::ReservedInterface);
            }
        }
        let number = match self.config.function_match {
            FunctionMatch::Number if self.tdis.len() > 8 => usize::from(id.requester_id() & 0xFF),
            FunctionMatch::Number => usize::from(id.requester_id() & 0x7),
            FunctionMatch::Pinned { requester_id, segment } => {
                if id.segment().is_some_and(|stated| stated != segment) {
                    return Err(Refusal::Interface);
                }
                usize::from(id.requester_id().checked_sub(requester_id).ok_or(Refusal::Interface)?)
            }
            FunctionMatch::Any => 0,
        };
        if number >= self.tdis.len() {
            return Err(Refusal::Interface);
        }
        functions.iter().find(|view| view.number == number).ok_or(Refusal::Interface)
    }

    /// A TDI that a living session locked answers that session only. Version and capabilities are the
    /// DSM's, not the TDI's, and anyone may ask for them.
    fn check_session(
        &self,
        session: SessionId,
        function: usize,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        let foreign = self.tdis.get(function).and_then(Tdi::owner).is_some_and(|owner| owner != session);
        let allowed = match request {
            Request::GetVersion | Request::GetCapabilities { .. } => true,
            Request::GetState => self.config.foreign_state_query == ForeignStateQuery::Answer,
            Request::Lock(_)
            | Request::GetReport { .. }
            | Request::Start(_)
            | Request::Stop
            | Request::BindP2p(_)
            | Request::UnbindP2p(_)
            | Request::SetMmioAttribute(_)
            | Request::Vdm(_) => false,
        };
        if foreign && !allowed { Err(Refusal::ForeignSession) } else { Ok(()) }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dsm_caps: 0,
            requests: SUPPORTED,
            lock_flags: self.config.lock_flags,
            dev_addr_width: self.config.dev_addr_width,
            num_req_this: self.config.num_req_this,
            num_req_all: self.config.num_req_all,
        }
    }

    fn lock(
        &mut self,
        request: &LockRequest,
        session: SessionId,
        view: &FunctionView,
        random: &mut dyn FnMut(&mut [u8]) -> bool,
    ) -> Result<Nonce, Refusal> {
        let Self { config, ide, tdis, report_overrides, .. } = self;
        let report = report_overrides.get(&view.number);
        let mut given = None;
        let mut check = || {
            let (binding, nonce) = lock::prepare(config, ide, view, report, request, session, random)?;
            given = Some(nonce.clone());
            Ok((binding, nonce))
        };
        let outcome = tdis.step(view.number, Event::Lock(&mut check));
        if let Outcome::Refused(refusal) = outcome {
            return Err(refusal);
        }
        let binding = tdis.get(view.number).and_then(Tdi::binding);
        if let Some(binding) = binding.filter(|binding| binding.keys == KeysAtLock::Rehearsed) {
            let effect = Effect::LockedWithoutKeys { function: view.number, stream: binding.stream };
            tdis.effects.push_back(effect);
        }
        given.ok_or(Refusal::Interface)
    }

    /// Lets a message's event happen; a refusal becomes the message's error.
    fn happen(&mut self, function: usize, event: Event<'_>) -> Result<(), Refusal> {
        match self.tdis.step(function, event) {
            Outcome::Moved | Outcome::Stays => Ok(()),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }
}

/// The bytes of a report from `offset` on, and how many follow them.
fn portion(report: &[u8], offset: u16, length: u16) -> Result<(&[u8], u16), Refusal> {
    let rest = report
        .get(usize::from(offset)..)
        .filter(|rest| !rest.is_empty())
        .ok_or(Refusal::ReportOffset { offset, length: report.len() })?;
    let (portion, after) = rest.split_at(rest.len().min(usize::from(length)));
    Ok((portion, u16::try_from(after.len()).unwrap_or(u16::MAX)))
}

/// Appends a response that echoes the request's INTERFACE_ID.
fn reply(interface: InterfaceId, body: Response<'_>, response: &mut Vec<u8>) -> Result<(), Refusal> {
    Ok(ResponseMessage { interface, response: body }.encode(response)?)
}
