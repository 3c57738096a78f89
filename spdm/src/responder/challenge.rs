//! CHALLENGE: proves possession of a slot's key (DSP0274 1.3 "CHALLENGE request and CHALLENGE_AUTH response messages").

use crate::transcript::{SigningContext, sign};
use crate::wire::{BASIC_MUTUAL_AUTH, Challenge, ChallengeAuth, KeyUsage, NONCE_SIZE, SummaryType};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, continued};

impl Core {
    pub(super) fn challenge(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(Challenge::parse)?;
        let provider = self.provider.as_ref();
        let negotiated = self.connection.negotiated()?;
        let suite = negotiated.suite;
        let (key, digest) = negotiated.own_identity(&self.chains, body.slot, KeyUsage::CHALLENGE)?;
        if body.summary != SummaryType::None && suite.measurements.is_none() {
            return Err(Reject::INVALID);
        }
        let mutual = self.config.mutual.after_challenge(self.flags, negotiated);
        let asks = if mutual.is_some() { BASIC_MUTUAL_AUTH } else { 0 };
        let summary = self.measured.summary(provider, suite.hash, body.summary)?;
        let mut nonce = [0; NONCE_SIZE];
        provider.random(&mut nonce)?;
        ChallengeAuth {
            version: body.version,
            // 0xF stands for the public key from 1.1 on; 1.0 has neither that nor more than 8 slots.
            attributes: body.slot & 0xF | asks,
            slot_mask: self.chains.mask(suite.asym()?),
            chain_hash: digest.as_ref(),
            nonce,
            summary: summary.as_ref().map(AsRef::as_ref).unwrap_or_default(),
            opaque: &[],
            context: body.context,
            signature: &[],
        }
        .encode(out)?;

        let mut m1m2 = negotiated.m1m2.take();
        let transcript = continued(&mut m1m2, || negotiated.basis(provider).m1m2())?;
        transcript.append(message);
        transcript.append(out);
        sign(key, suite.hash, SigningContext::ChallengeAuth, transcript, out)?;
        self.fits(out)?;
        let negotiated = self.connection.negotiated()?;
        negotiated.authenticated = true;
        negotiated.conversation = mutual;
        Ok(Next::Stay)
    }
}
