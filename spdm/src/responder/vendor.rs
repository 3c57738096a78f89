//! VENDOR_DEFINED_REQUEST: handed to whoever knows its payload
//! (DSP0274 1.3 "VENDOR_DEFINED_REQUEST and VENDOR_DEFINED_RESPONSE messages").

use crate::SessionId;
use crate::wire::{ErrorCode, RequesterFlags, ResponderFlags, VendorDefined};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::Request;

/// A vendor-defined request.
#[derive(Clone, Copy, Debug)]
pub struct VendorRequest<'a> {
    /// The session it came in; `None` if it came in the clear.
    pub session: Option<SessionId>,
    /// Registry that assigned the vendor id, 3 for PCI-SIG.
    pub standard_id: u16,
    /// Vendor id.
    pub vendor_id: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// What becomes of a vendor-defined request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorAnswer {
    /// The response's payload is in the buffer; standard and vendor id are the request's.
    Respond,
    /// No response at all.
    Silent,
    /// ERROR.
    Error {
        /// SPDM error code.
        code: u8,
        /// SPDM error data.
        data: u8,
    },
}

/// Answers vendor-defined requests.
pub trait VendorHandler {
    /// Handles one request. `response` is empty and takes the payload.
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer;
}

impl Core {
    pub(super) fn vendor_defined(
        &mut self,
        request: &Request<'_>,
        vendor: &mut dyn VendorHandler,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (body, _) = request.parse(VendorDefined::parse_request)?;
        // DSP0274 1.4 has an error of its own for GET_CERTIFICATE only.
        if body.large && !self.large_responses() {
            return Err(Reject::INVALID);
        }
        let session =
            request.session.and_then(|index| self.sessions.get(index)).map(|entry| entry.session.id());
        self.payload.clear();
        let answer = vendor.vendor_request(
            &VendorRequest {
                session,
                standard_id: body.standard_id,
                vendor_id: body.vendor_id,
                payload: body.payload,
            },
            &mut self.payload,
        );
        match answer {
            VendorAnswer::Silent => Err(Reject::Silent),
            VendorAnswer::Error { code, data } => Err(Reject::Error { code: ErrorCode(code), data }),
            VendorAnswer::Respond => {
                let response = VendorDefined { payload: &self.payload, ..body };
                if response.encode_response(out).is_err() {
                    let size = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
                    return Err(Reject::TooLarge(size));
                }
                Ok(Next::Stay)
            }
        }
    }

    /// Whether both sides have the forms with 32-bit lengths.
    fn large_responses(&self) -> bool {
        let peer = self.connection.peer().is_some_and(|peer| peer.flags.has(RequesterFlags::LARGE_RESP));
        peer && self.flags.has(ResponderFlags::LARGE_RESP)
    }
}
