//! TDISP messages: header, interface and session are judged here, in this order, for all of them alike.

use crate::SessionId;
use crate::wire::{
    Capabilities, FunctionId, Header, InterfaceId, MessageCode, Nonce, RegistryId, Request, Response,
    ResponseMessage, VERSION_1_0, Vdm,
};

use super::config::{ForeignStateQuery, FunctionMatch, KeysAtLock, ReservedFields};
use super::effect::Effect;
use super::lock::Asked;
use super::refusal::Refusal;
use super::tdi::{Event, Outcome, Tdi};
use super::view::Functions;
use super::{Answer, Dsm, lock, vendor};

impl Dsm {
    /// One TDISP message, without the protocol-id byte. `functions` describes a function as it is configured now; one
    /// that it does not know is not hosted. `random` fills its argument, or returns false. The answer is appended to
    /// `response`.
    ///
    /// Outside of a secured session TDISP is discarded without an answer (PCIe 6.1 §11.3).
    pub fn tdisp(
        &mut self,
        session: Option<SessionId>,
        message: &[u8],
        functions: &dyn Functions,
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
            self.tdis.effects.push_back(Effect::Refused { request: code, refusal });
            return refuse(interface, refusal, response);
        }
        Answer::Respond
    }

    fn handle(
        &mut self,
        session: SessionId,
        message: &[u8],
        functions: &dyn Functions,
        random: &mut dyn FnMut(&mut [u8]) -> bool,
        response: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (interface, request, function) = self.admit(message, functions)?;
        self.check_name(function, interface.function)?;
        self.check_session(session, function, &request)?;
        self.check_outstanding(function)?;
        let view = || functions.view(function).ok_or(Refusal::Interface);

        match request {
            Request::GetVersion | Request::GetCapabilities { .. } | Request::GetState => {
                reply(interface, self.tell(&request, function)?, response)
            }
            Request::GetReport { offset, length } => {
                self.happen(function, Event::Report)?;
                let report = self.report(function).unwrap_or_default();
                let length = length.min(self.config.max_report_portion);
                let (portion, remainder) = portion(report, offset, length)?;
                reply(interface, Response::Report { portion, remainder }, response)
            }
            Request::Lock(lock) => {
                let asked = Asked { request: &lock, function_id: interface.function, session };
                let nonce = self.lock(function, &asked, functions, random)?;
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
            Request::BindP2p(stream_id) => {
                self.bind_p2p(session, &view()?, stream_id)?;
                reply(interface, Response::BindP2p, response)
            }
            Request::UnbindP2p(stream_id) => {
                self.unbind_p2p(function, stream_id)?;
                reply(interface, Response::UnbindP2p, response)
            }
            Request::SetMmioAttribute(range) => {
                self.set_mmio_attribute(function, &range)?;
                reply(interface, Response::SetMmioAttribute, response)
            }
            Request::Vdm(vdm) => reply(interface, vendor::answer(self.config.optional.vdm, &vdm)?, response),
        }
    }

    /// What any message has to be: of our version, a request that is supported, whole, and about a function that is hosted.
    pub(super) fn admit<'m>(
        &self,
        message: &'m [u8],
        functions: &dyn Functions,
    ) -> Result<(InterfaceId, Request<'m>, usize), Refusal> {
        let (header, body) = Header::decode(message)?;
        check_version(&header)?;
        if !self.config.optional.bitmap().contains(header.code) {
            return Err(Refusal::Unsupported(header.code));
        }
        let request = Request::decode_body(header.code, body)?;
        if header.reserved != 0 && self.config.reserved_fields == ReservedFields::Reject {
            return Err(Refusal::Reserved("header"));
        }
        let function = self.find_function(header.interface, functions)?;
        Ok((header.interface, request, function))
    }

    /// The function that an INTERFACE_ID names, if it is hosted.
    fn find_function(&self, interface: InterfaceId, functions: &dyn Functions) -> Result<usize, Refusal> {
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
        if number >= self.tdis.len() || !functions.hosted(number) {
            return Err(Refusal::Interface);
        }
        Ok(number)
    }

    /// A locked TDI keeps the name that LOCK used: bus and segment "must not be changed" (PCIe 6.1 §11.2).
    fn check_name(&self, function: usize, id: FunctionId) -> Result<(), Refusal> {
        let binding = self.tdis.get(function).and_then(Tdi::binding);
        let same = match (self.config.function_match, binding) {
            (FunctionMatch::Number, Some(binding)) => {
                let segments = binding.function_id.segment().zip(id.segment());
                binding.function_id.requester_id() == id.requester_id()
                    && segments.is_none_or(|(locked, stated)| locked == stated)
            }
            (FunctionMatch::Pinned { .. } | FunctionMatch::Any, _) | (FunctionMatch::Number, None) => true,
        };
        if same { Ok(()) } else { Err(Refusal::Interface) }
    }

    /// Requests beyond NUM_REQ_THIS or NUM_REQ_ALL are not worked on (PCIe 6.1 §11.2.4).
    fn check_outstanding(&self, function: usize) -> Result<(), Refusal> {
        let this = self.held.iter().filter(|held| **held == function).count();
        let many = this >= usize::from(self.config.num_req_this)
            || self.held.len() >= usize::from(self.config.num_req_all);
        if many { Err(Refusal::Busy) } else { Ok(()) }
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

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            dsm_caps: self.config.dsm_caps,
            requests: self.config.optional.bitmap(),
            lock_flags: self.config.lock_flags,
            dev_addr_width: self.config.dev_addr_width,
            num_req_this: self.config.num_req_this,
            num_req_all: self.config.num_req_all,
        }
    }

    fn lock(
        &mut self,
        function: usize,
        asked: &Asked<'_>,
        functions: &dyn Functions,
        random: &mut dyn FnMut(&mut [u8]) -> bool,
    ) -> Result<Nonce, Refusal> {
        let Self { config, ide, tdis, report_overrides, .. } = self;
        let says = report_overrides.get(&function);
        let mut given = None;
        let mut check = || {
            let view = functions.view(function).ok_or(Refusal::Interface)?;
            let (binding, nonce) = lock::prepare(config, ide, &view, says, asked, random)?;
            given = Some(nonce.clone());
            Ok((binding, nonce))
        };
        if let Outcome::Refused(refusal) = tdis.step(function, Event::Lock(&mut check)) {
            return Err(refusal);
        }
        self.tell_locked(function);
        given.ok_or(Refusal::Interface)
    }

    /// What a LOCK brings besides the transition: MSI-X pages change sides, keys may be missing, and the TSM has told where
    /// the device is.
    fn tell_locked(&mut self, function: usize) {
        let Some(binding) = self.tdis.get(function).and_then(Tdi::binding) else { return };
        let id = binding.function_id;
        let keyless = (binding.keys == KeysAtLock::Rehearsed)
            .then_some(Effect::LockedWithoutKeys { function, stream: binding.stream });
        let msix = binding.ranges.iter().filter(|range| range.locked_msix);
        let effects: Vec<Effect> = msix
            .map(|range| Effect::MmioAttribute {
                function,
                bar: range.bar,
                first_page: range.first_page,
                pages: range.reported.pages,
                non_tee: false,
            })
            .chain(keyless)
            .collect();
        self.tdis.effects.extend(effects);
        if self.config.function_match == FunctionMatch::Number && self.config.ports.address.is_none() {
            let first = u16::try_from(function).map_or(0, |number| id.requester_id().wrapping_sub(number));
            let known = self.address.map(|(_, segment)| segment);
            self.learn_address(first, id.segment().or(known).unwrap_or(0));
        }
    }

    /// Lets a message's event happen; a refusal becomes the message's error.
    pub(super) fn happen(&mut self, function: usize, event: Event<'_>) -> Result<(), Refusal> {
        match self.tdis.step(function, event) {
            Outcome::Moved | Outcome::Stays => Ok(()),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }
}

/// "All Responders must always support" GET_TDISP_VERSION of major version 1, whatever its minor version (PCIe 6.1
/// §11.3.4); anything else is 1.0.
fn check_version(header: &Header) -> Result<(), Refusal> {
    let compatible = header.code == MessageCode::GET_TDISP_VERSION && header.version >> 4 == VERSION_1_0 >> 4;
    if header.version == VERSION_1_0 || compatible { Ok(()) } else { Err(Refusal::Version(header.version)) }
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
pub(super) fn reply(
    interface: InterfaceId,
    body: Response<'_>,
    response: &mut Vec<u8>,
) -> Result<(), Refusal> {
    Ok(ResponseMessage { interface, response: body }.encode(response)?)
}

/// Appends the TDISP_ERROR that a refusal becomes.
pub(super) fn refuse(interface: InterfaceId, refusal: Refusal, response: &mut Vec<u8>) -> Answer {
    // Cannot fail: no error has a field that is too long.
    error(interface, refusal, response).map_or(Answer::Silent, |()| Answer::Respond)
}

fn error(interface: InterfaceId, refusal: Refusal, response: &mut Vec<u8>) -> Result<(), Refusal> {
    let Refusal::VendorMessage { vendor, message } = refusal else {
        return reply(interface, Response::error(refusal.code(), refusal.data()), response);
    };
    let (vendor, data) = (vendor.to_le_bytes(), [message]);
    let extended = Vdm::new(RegistryId::PCI_SIG, &vendor, &data)?;
    let length = u32::try_from(extended.length()).unwrap_or(u32::MAX);
    let error = Response::Error { code: refusal.code(), data: length, extended: Some(extended) };
    reply(interface, error, response)
}
