//! HEARTBEAT, KEY_UPDATE and END_SESSION: the requests that steer an established session
//! (DSP0274 1.3, sections of these names).

use crate::wire::{EndSession, EndSessionAck, Heartbeat, HeartbeatAck, KeyOperation, KeyUpdate};

use super::reject::{Handled, Next, Reject};
use super::sessions::{Entry, Stage};
use super::state::Request;
use super::{Core, EndReason};

impl Core {
    /// The session's deadline has moved already: any record moves it.
    pub(super) fn heartbeat(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let entry = self.entry(request)?;
        // With period 0 the responder said that it wants none.
        if entry.heartbeat.is_zero() {
            return Err(Reject::UNEXPECTED);
        }
        let body = request.parse_exact(Heartbeat::parse)?;
        HeartbeatAck { version: body.version }.encode(out);
        Ok(Next::Stay)
    }

    /// The new request key is accepted beside the old one until VerifyNewKey arrives under it; a new response key
    /// protects the acknowledgement already.
    pub(super) fn key_update(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let body = request.parse_exact(KeyUpdate::parse)?;
        let provider = self.provider.as_ref();
        let index = request.session.ok_or(Reject::SESSION_REQUIRED)?;
        let entry = self.sessions.get_mut(index).ok_or(Reject::SESSION_REQUIRED)?;
        let Stage::Application { update, .. } = &mut entry.stage else { return Err(Reject::UNEXPECTED) };
        match (body.operation, *update) {
            // The acknowledgement was lost: no further key, only another acknowledgement.
            (KeyOperation::UpdateKey | KeyOperation::UpdateAllKeys, Some(pending)) if pending == body => {}
            (KeyOperation::UpdateKey | KeyOperation::UpdateAllKeys, None) => {
                entry.session.update_inbound(provider)?;
                if body.operation == KeyOperation::UpdateAllKeys {
                    entry.session.update_outbound(provider)?;
                }
                *update = Some(body);
            }
            (KeyOperation::VerifyNewKey, Some(_)) if entry.session.inbound_used() => {
                entry.session.confirm_inbound();
                *update = None;
            }
            (KeyOperation::UpdateKey | KeyOperation::UpdateAllKeys | KeyOperation::VerifyNewKey, _) => {
                return Err(Reject::INVALID);
            }
        }
        body.encode_ack(out);
        Ok(Next::Stay)
    }

    pub(super) fn end_session(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let body = request.parse_exact(EndSession::parse)?;
        EndSessionAck { version: body.version }.encode(out);
        Ok(Next::End(EndReason::Requested))
    }

    fn entry(&self, request: &Request<'_>) -> Result<&Entry, Reject> {
        let index = request.session.ok_or(Reject::SESSION_REQUIRED)?;
        self.sessions.get(index).ok_or(Reject::SESSION_REQUIRED)
    }
}
