//! GET_DIGESTS and GET_CERTIFICATE (DSP0274 1.3, sections of these names).

use crate::wire::{Certificate, Digests, GetCertificate, GetDigests};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, continued};

/// Bytes of CERTIFICATE before the portion.
const CERTIFICATE_OVERHEAD: usize = 8;

impl Core {
    pub(super) fn get_digests(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetDigests::parse)?;
        let negotiated = self.connection.negotiated()?;
        let (asym, hash) = (negotiated.suite.asym, negotiated.suite.hash);
        let (supported_slots, provisioned_slots) = (self.chains.supported(asym), self.chains.mask(asym));
        Digests { version: body.version, supported_slots, provisioned_slots, digests: &[], keys: Vec::new() }
            .encode(out);
        for slot in 0..8 {
            if let Some((_, chain)) = self.chains.get(slot, asym, hash) {
                out.extend_from_slice(chain.digest.as_ref());
            }
        }
        self.record_authentication(request, message, out)
    }

    pub(super) fn get_certificate(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetCertificate::parse)?;
        let longest = self.longest_response();
        let negotiated = self.connection.negotiated()?;
        let room = longest.saturating_sub(CERTIFICATE_OVERHEAD);
        let (_, chain) = self
            .chains
            .get(body.slot, negotiated.suite.asym, negotiated.suite.hash)
            .ok_or(Reject::INVALID)?;
        // Who asks for the size gets an empty portion from the start.
        let (offset, length) =
            if body.slot_size { (0, 0) } else { (usize::from(body.offset), usize::from(body.length)) };
        if offset >= chain.bytes.len() {
            return Err(Reject::INVALID);
        }
        let rest = chain.bytes.get(offset..).unwrap_or_default();
        let (portion, remainder) = rest.split_at(length.min(room).min(rest.len()));
        let remainder = u16::try_from(remainder.len()).map_err(|_| Reject::INVALID)?;
        Certificate { version: body.version, slot: body.slot, model: 0, portion, remainder }.encode(out)?;
        self.record_authentication(request, message, out)
    }

    /// Request and response become part of M1/M2, unless they travelled in a session.
    fn record_authentication(&mut self, request: &Request<'_>, message: &[u8], response: &[u8]) -> Handled {
        self.fits(response)?;
        if request.session.is_none() {
            let negotiated = self.connection.negotiated()?;
            let mut m1m2 = negotiated.m1m2.take();
            let transcript = continued(&mut m1m2, || negotiated.basis(self.provider.as_ref()).m1m2())?;
            transcript.append(message);
            transcript.append(response);
            negotiated.m1m2 = m1m2;
        }
        Ok(Next::Stay)
    }
}
