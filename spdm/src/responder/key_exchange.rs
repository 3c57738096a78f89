//! KEY_EXCHANGE: begins a session (DSP0274 1.3 "KEY_EXCHANGE request and KEY_EXCHANGE_RSP response messages").

use core::time::Duration;

use crate::SessionId;
use crate::crypto::CryptoError;
use crate::key_schedule::Shared;
use crate::session::{Role, Session, SessionParameters};
use crate::transcript::{SigningContext, sign};
use crate::wire::{
    ErrorCode, KeyExchange, KeyExchangeRsp, KeyUsage, NONCE_SIZE, POLICY_RESPONDER_DECIDES, RequesterFlags,
    ResponderFlags, SelectedSecuredVersion, SummaryType, SupportedSecuredVersions, Version, VersionNumber,
};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::sessions::{Entry, Stage};
use super::state::{Negotiated, Request};
use super::view::{Origin, Provenance};

impl Core {
    pub(super) fn key_exchange(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let suite = self.connection.negotiated()?.suite;
        let session_suite = suite.session.ok_or(Reject::UNEXPECTED)?;
        let group = session_suite.group.ok_or(Reject::UNEXPECTED)?;
        let (body, message) = request.parse(|reader| KeyExchange::parse(reader, group.request_size()))?;
        let events = self.subscribed(body.version, body.policy)?;
        let negotiated = self.connection.negotiated()?;
        let (key, digest) = negotiated.own_identity(&self.chains, body.slot, KeyUsage::KEY_EX)?;
        if body.summary != SummaryType::None && suite.measurements.is_none() {
            return Err(Reject::INVALID);
        }
        let (opaque, secured_version) =
            select_secured_version(&self.config.secured_versions, body.version, body.opaque)?;
        if self.sessions.is_full() {
            return Err(Reject::error(ErrorCode::SESSION_LIMIT_EXCEEDED));
        }

        let provider = self.provider.as_ref();
        let summary = self.measured.summary(provider, suite.hash, body.summary)?;
        let mut exchange = Vec::with_capacity(group.response_size());
        let shared = provider
            .answer_exchange(group, body.exchange, &mut exchange)
            .map_err(|error| if error == CryptoError::Malformed { Reject::INVALID } else { error.into() })?;
        let mut random = [0; NONCE_SIZE];
        provider.random(&mut random)?;
        let heartbeat_period =
            if heartbeat(self.flags, negotiated) { self.config.heartbeat_period } else { 0 };
        let half = self.sessions.allocate_half();
        let demand = self.config.mutual.demand(self.flags, negotiated);
        KeyExchangeRsp {
            version: body.version,
            heartbeat_period,
            session_id: half,
            mutual_auth: demand.form,
            requester_slot: demand.slot,
            random,
            exchange: &exchange,
            summary: summary.as_ref().map(AsRef::as_ref).unwrap_or_default(),
            opaque: &opaque,
            signature: &[],
            verify_data: &[],
        }
        .encode(out)?;

        let mut transcript = negotiated.basis(provider).th_of_keys(&negotiated.first_digests, &digest)?;
        transcript.append(message);
        transcript.append(out);
        let unsigned = out.len();
        sign(key, suite.hash, SigningContext::KeyExchangeRsp, &transcript, out)?;
        transcript.append(out.get(unsigned..).unwrap_or_default());

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
        let session = Session::new(provider, parameters, Shared::Exchanged(&shared), &th1)?;
        if !handshake_in_the_clear(self.flags, negotiated) {
            let verify_data = session.verify_data(provider, Role::Responder, &th1)?;
            out.extend_from_slice(verify_data.as_ref());
            transcript.append(verify_data.as_ref());
        }
        self.fits(out)?;
        let heartbeat = Duration::from_secs(heartbeat_period.into());
        let stage = Stage::Handshake { transcript, proof: demand.proof };
        let provenance = Provenance::new(Origin::of_slot(body.slot), secured_version);
        let mut entry = Entry::new(session, stage, heartbeat, events, provenance);
        entry.conversation = demand.conversation;
        entry.ends_on_update = ends_on_update(body.version, body.policy);
        self.sessions.insert(entry);
        Ok(Next::Stay)
    }
}

/// TerminationPolicy of `SessionPolicy`, which is there from 1.2 on.
pub(super) fn ends_on_update(version: Version, policy: u8) -> bool {
    version >= Version::V1_2 && policy & POLICY_RESPONDER_DECIDES == 0
}

/// Opaque data of the response: which version of secured messages is chosen, of `ours` and of those that a request's
/// opaque data offers, and that version. A request without any gets none.
pub(super) fn select_secured_version(
    ours: &[Version],
    version: Version,
    offered: &[u8],
) -> Result<(Vec<u8>, Option<Version>), Reject> {
    let mut opaque = Vec::with_capacity(SelectedSecuredVersion::MAX_SIZE);
    let mut chosen = None;
    if !offered.is_empty() {
        let theirs = SupportedSecuredVersions::find(version, offered)?;
        let selected = select_version(ours, theirs)?;
        SelectedSecuredVersion(VersionNumber::new(selected)).encode(version, &mut opaque)?;
        chosen = Some(selected);
    }
    Ok((opaque, chosen))
}

/// The highest secured message version both sides have.
fn select_version(ours: &[Version], theirs: Option<SupportedSecuredVersions<'_>>) -> Result<Version, Reject> {
    let theirs = theirs.ok_or(Reject::INVALID)?;
    let common = theirs.0.iter().map(|version| version.version()).filter(|version| ours.contains(version));
    common.max().ok_or(Reject::INVALID)
}

/// HEARTBEAT is in use if both sides have it.
pub(super) fn heartbeat(flags: ResponderFlags, negotiated: &Negotiated) -> bool {
    flags.has(ResponderFlags::HBEAT) && negotiated.peer.flags.has(RequesterFlags::HBEAT)
}

/// FINISH travels in the clear if both sides want it to.
pub(super) fn handshake_in_the_clear(flags: ResponderFlags, negotiated: &Negotiated) -> bool {
    flags.has(ResponderFlags::HANDSHAKE_IN_THE_CLEAR)
        && negotiated.peer.flags.has(RequesterFlags::HANDSHAKE_IN_THE_CLEAR)
}
