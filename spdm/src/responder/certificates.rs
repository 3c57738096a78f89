//! GET_DIGESTS and GET_CERTIFICATE (DSP0274 1.4, sections of these names).

use crate::slot::SLOT_COUNT;
use crate::wire::{Certificate, Code, Digests, GetCertificate, GetDigests, ResponderFlags, SlotKey};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, continued};

impl Core {
    pub(super) fn get_digests(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetDigests::parse)?;
        self.check_installed(None)?;
        let negotiated = self.connection.negotiated()?;
        let (asym, hash) = (negotiated.suite.asym()?, negotiated.suite.hash);
        let (supported_slots, provisioned_slots) = (self.chains.supported(asym), self.chains.mask(asym));
        let (mut digests, mut keys) = (Vec::new(), Vec::new());
        for number in (0_u8..).take(SLOT_COUNT) {
            let Some((slot, chain)) = self.chains.get(number, asym, hash) else { continue };
            digests.extend_from_slice(chain.digest.as_ref());
            negotiated.shown.insert(number, chain.digest);
            if negotiated.suite.multiple_keys {
                keys.push(SlotKey { key_pair: slot.key_pair, model: Some(slot.model), usage: slot.usage });
            }
        }
        Digests { version: body.version, supported_slots, provisioned_slots, digests: &digests, keys }
            .encode(out);
        if negotiated.suite.multiple_keys && request.session.is_none() && negotiated.first_digests.is_empty()
        {
            negotiated.first_digests.clone_from(out);
        }
        self.record_authentication(request, message, out)
    }

    pub(super) fn get_certificate(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetCertificate::parse)?;
        if body.large && !self.flags.has(ResponderFlags::LARGE_RESP) {
            return Err(Reject::unsupported(Code::GET_CERTIFICATE));
        }
        self.check_installed(Some(body.slot))?;
        let longest = self.longest_response();
        let negotiated = self.connection.negotiated()?;
        let room = longest.saturating_sub(Certificate::overhead(body.large));
        let (slot, chain) = self
            .chains
            .get(body.slot, negotiated.suite.asym()?, negotiated.suite.hash)
            .ok_or(Reject::INVALID)?;
        let size = u32::try_from(chain.bytes.len()).unwrap_or(u32::MAX);
        if !body.large && size > u16::MAX.into() {
            return Err(Reject::ChainTooLong(size));
        }
        // Who asks for the size gets an empty portion from the start.
        let (offset, length) = if body.slot_size { (0, 0) } else { (body.offset, body.length) };
        let (offset, length) = (index(offset), index(length));
        if offset >= chain.bytes.len() {
            return Err(Reject::INVALID);
        }
        let rest = chain.bytes.get(offset..).unwrap_or_default();
        let (portion, remainder) = rest.split_at(length.min(room).min(rest.len()));
        let remainder = u32::try_from(remainder.len()).unwrap_or(u32::MAX);
        let model = if negotiated.suite.multiple_keys { slot.model.code() } else { 0 };
        if remainder == 0 {
            negotiated.read.insert(body.slot, chain.digest);
            negotiated.shown.insert(body.slot, chain.digest);
        }
        let (version, slot, large) = (body.version, body.slot, body.large);
        Certificate { version, slot, model, large, portion, remainder }.encode(out)?;
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

/// What does not fit lies behind every chain.
fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
