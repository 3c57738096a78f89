//! TDISP in the clear, for whoever plays the platform around the device: an emulator has to know the state of a TDI to
//! tell which memory it may reach, and sees only records of the session in which that is settled.
//!
//! No secured session is behind such a message, so it may ask, and nothing else. That it changes nothing is not a matter
//! of care: `self` is borrowed shared.

use crate::wire::{Header, InterfaceId, Request, Response, VERSION_1_0};

use super::dispatch::{refuse, reply};
use super::refusal::Refusal;
use super::view::Functions;
use super::{Answer, Dsm};

impl Dsm {
    /// One TDISP message without the protocol-id byte, as [`Dsm::tdisp`] takes it, from somebody who only looks on. The
    /// answer is appended to `response`; if it is TDISP_ERROR, the reason is returned, too.
    ///
    /// GET_TDISP_VERSION, GET_TDISP_CAPABILITIES and GET_DEVICE_INTERFACE_STATE are answered, the last whoever owns the
    /// TDI. Every other request gets UNSUPPORTED_REQUEST, with its code as the data. INVALID_REQUEST would say that the
    /// message is wrong, and INVALID_INTERFACE_STATE that it may be sent later; it is this way that does not carry it.
    pub fn observe(
        &self,
        message: &[u8],
        functions: &dyn Functions,
        response: &mut Vec<u8>,
    ) -> (Answer, Option<Refusal>) {
        let start = response.len();
        match self.look(message, functions, response) {
            Ok(()) => (Answer::Respond, None),
            Err(refusal) => {
                response.truncate(start);
                let interface =
                    Header::decode(message).map_or(InterfaceId::default(), |(header, _)| header.interface);
                (refuse(interface, refusal, response), Some(refusal))
            }
        }
    }

    fn look(&self, message: &[u8], functions: &dyn Functions, response: &mut Vec<u8>) -> Result<(), Refusal> {
        let (interface, request, function) = self.admit(message, functions)?;
        reply(interface, self.tell(&request, function)?, response)
    }

    /// The answer to a request that only asks.
    pub(super) fn tell(&self, request: &Request<'_>, function: usize) -> Result<Response<'static>, Refusal> {
        match request {
            Request::GetVersion => Ok(Response::Version(&[VERSION_1_0])),
            Request::GetCapabilities { .. } => Ok(Response::Capabilities(self.capabilities())),
            Request::GetState => Ok(Response::State(self.state(function))),
            Request::Lock(_)
            | Request::GetReport { .. }
            | Request::Start(_)
            | Request::Stop
            | Request::BindP2p(_)
            | Request::UnbindP2p(_)
            | Request::SetMmioAttribute(_)
            | Request::Vdm(_) => Err(Refusal::InTheClear(request.code())),
        }
    }
}
