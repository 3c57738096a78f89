//! PSK_EXCHANGE and PSK_FINISH: a session from a pre-shared key (DSP0274 1.3, sections of these names).

use core::time::Duration;

use crate::SessionId;
use crate::key_schedule::Shared;
use crate::psk;
use crate::session::{Role, Session, SessionParameters};
use crate::wire::{
    ErrorCode, NONCE_SIZE, PskExchange, PskExchangeRsp, PskFinish, PskFinishRsp, ResponderFlags, SummaryType,
};

use super::Core;
use super::key_exchange::{ends_on_update, heartbeat, select_secured_version};
use super::reject::{Handled, Next, Reject};
use super::sessions::{Entry, Stage};
use super::state::Request;
use super::view::{Origin, Provenance};

impl Core {
    /// With a context of our own the session waits for PSK_FINISH; without, it is established by the response.
    pub(super) fn psk_exchange(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let suite = self.connection.negotiated()?.suite;
        let session_suite = suite.session.ok_or(Reject::UNEXPECTED)?;
        let (body, message) = request.parse(PskExchange::parse)?;
        let events = self.subscribed(body.version, body.policy)?;
        let negotiated = self.connection.negotiated()?;
        if body.summary != SummaryType::None && suite.measurements.is_none() {
            return Err(Reject::INVALID);
        }
        let (opaque, secured_version) =
            select_secured_version(&self.config.secured_versions, body.version, body.opaque)?;
        // DSP0274 has no error for a hint that means nothing here.
        let key = psk::find(&self.config.psks, body.hint).ok_or(Reject::INVALID)?;
        if self.sessions.is_full() {
            return Err(Reject::error(ErrorCode::SESSION_LIMIT_EXCEEDED));
        }

        let provider = self.provider.as_ref();
        let summary = self.measured.summary(provider, suite.hash, body.summary)?;
        let with_context = self.flags.has(ResponderFlags::PSK_WITH_CONTEXT);
        let mut nonce = [0; NONCE_SIZE];
        let context: &[u8] = if with_context {
            provider.random(&mut nonce)?;
            &nonce
        } else {
            &[]
        };
        let heartbeat_period =
            if heartbeat(self.flags, negotiated) { self.config.heartbeat_period } else { 0 };
        let half = self.sessions.allocate_half();
        PskExchangeRsp {
            version: body.version,
            heartbeat_period,
            session_id: half,
            summary: summary.as_ref().map(AsRef::as_ref).unwrap_or_default(),
            context,
            opaque: &opaque,
            verify_data: &[],
        }
        .encode(out)?;

        let mut transcript = negotiated.basis(provider).psk_th()?;
        transcript.append(message);
        transcript.append(out);
        let th1 = transcript.digest();
        let parameters = SessionParameters {
            id: SessionId::from(half) << 16 | SessionId::from(body.session_id),
            role: Role::Responder,
            version: body.version.0,
            hash: suite.hash,
            aead: session_suite.aead,
            protection: session_suite.protection,
            sequence_limit: self.config.sequence_limit,
        };
        let session = Session::new(provider, parameters, Shared::Psk(key.secret()), &th1)?;
        let verify_data = session.verify_data(provider, Role::Responder, &th1)?;
        out.extend_from_slice(verify_data.as_ref());
        transcript.append(verify_data.as_ref());
        self.fits(out)?;
        let th2 = transcript.digest();
        let heartbeat = Duration::from_secs(heartbeat_period.into());
        let provenance = Provenance::new(Origin::Psk { hint: key.hint().to_vec() }, secured_version);
        let stage = Stage::PskHandshake { transcript };
        let mut entry = Entry::new(session, stage, heartbeat, events, provenance);
        entry.ends_on_update = ends_on_update(body.version, body.policy);
        let index = self.sessions.insert(entry);
        Ok(if with_context { Next::Stay } else { Next::Establish(index, th2) })
    }

    /// A wrong HMAC ends the session; a malformed PSK_FINISH leaves it waiting for a proper one.
    pub(super) fn psk_finish(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let index = request.session.ok_or(Reject::SESSION_REQUIRED)?;
        let suite = self.connection.negotiated()?.suite;
        let hash_size = suite.hash.size();
        let entry = self.sessions.get_mut(index).ok_or(Reject::SESSION_REQUIRED)?;
        let Stage::PskHandshake { transcript } = &entry.stage else { return Err(Reject::UNEXPECTED) };
        let body = request.parse_exact(|reader| PskFinish::parse(reader, hash_size))?;
        suite.check_opaque(body.version, body.opaque)?;

        let mut transcript = transcript.clone();
        let signed = request.bytes.len() - body.verify_data.len();
        transcript.append(request.bytes.get(..signed).unwrap_or_default());
        let th = transcript.digest();
        let provider = self.provider.as_ref();
        if entry.session.check_verify_data(provider, Role::Requester, &th, body.verify_data).is_err() {
            return Err(Reject::Fatal(ErrorCode::DECRYPT_ERROR));
        }
        transcript.append(body.verify_data);
        PskFinishRsp { version: body.version, opaque: &[] }.encode(out)?;
        transcript.append(out);
        Ok(Next::Establish(index, transcript.digest()))
    }
}
