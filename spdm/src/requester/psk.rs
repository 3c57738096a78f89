//! PSK_EXCHANGE and PSK_FINISH: from a connection to a session by a key that both sides were given before.

use super::attest::{found, summary_size};
use super::command::{Reply, SessionInfo};
use super::error::{Misuse, RequesterError, Violation};
use super::events::session_policy;
use super::handshake::{
    check_verify_data, heartbeat_allowed, offered_versions, protection, selected_version, session_id_half,
};
use super::negotiate::both;
use super::sessions::ActiveSession;
use super::state::{Core, Flow, Message, Next, Request};
use crate::crypto::Aead;
use crate::key_schedule::Shared;
use crate::psk::{self, PreSharedKey};
use crate::session::{Role, Session, SessionParameters};
use crate::transcript::Transcript;
use crate::wire::{
    NONCE_SIZE, PskExchange, PskExchangeRsp, PskFinish, PskFinishRsp, RequesterFlags, ResponderFlags,
    SummaryType,
};

/// PSK_EXCHANGE on its way.
pub(super) struct PendingPskExchange {
    key: PreSharedKey,
    id: u16,
    aead: Aead,
    summary_size: usize,
}

/// PSK_FINISH on its way.
pub(super) struct PendingPskFinish {
    /// TH up to and including PSK_FINISH.
    transcript: Transcript,
}

impl PendingPskExchange {
    /// PSK_EXCHANGE.
    pub(super) fn start(
        core: &Core,
        hint: &[u8],
        summary: SummaryType,
        end_on_update: bool,
    ) -> Result<Next, RequesterError> {
        let info = &core.connected()?.info;
        if core.in_session() {
            return Err(Misuse::InSession.into());
        }
        let aead = capable(core)?;
        let key = psk::find(&core.config.psks, hint).ok_or(Misuse::NoKey)?.clone();
        let summary_size = summary_size(core, summary)?;
        let id = session_id_half(core)?;
        let context: [u8; NONCE_SIZE] = core.random()?;
        let mut bytes = Vec::new();
        PskExchange {
            version: info.version,
            summary,
            policy: session_policy(core, end_on_update)?,
            session_id: id,
            hint: key.hint(),
            context: &context,
            opaque: &offered_versions(core)?,
        }
        .encode(&mut bytes)?;
        let flow = Flow::PskExchange(Self { key, id, aead, summary_size });
        Ok(Next::Send(Request::clear(info.version, bytes, flow)))
    }

    /// PSK_EXCHANGE_RSP, if it proves that the responder has the key: the session is established by it, or PSK_FINISH
    /// follows.
    pub(super) fn exchanged(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let (info, hash) = (&connection.info, connection.hash());
        let (response, exact) =
            message.parse(|reader| PskExchangeRsp::parse(reader, self.summary_size, hash.size()))?;
        heartbeat_allowed(core, message, response.heartbeat_period)?;
        let with_context = info.capabilities.has(ResponderFlags::PSK_WITH_CONTEXT);
        message.require(response.context.is_empty() != with_context, Violation::PskContext)?;
        let secured_version = selected_version(core, message, response.version, response.opaque)?;

        let provider = &*core.provider;
        let mut transcript = connection.basis(provider).psk_th()?;
        transcript.append(message.request);
        let proved = exact.len() - response.verify_data.len();
        transcript.append(exact.get(..proved).unwrap_or_default());
        let parameters = SessionParameters {
            id: u32::from(self.id) | u32::from(response.session_id) << 16,
            role: Role::Requester,
            version: info.version.0,
            hash,
            aead: self.aead,
            protection: protection(info),
            sequence_limit: core.config.sequence_limit,
        };
        let shared = Shared::Psk(self.key.secret());
        let mut session = Session::new(provider, parameters, shared, &transcript.digest())?;
        check_verify_data(core, message, &session, &transcript, response.verify_data)?;
        transcript.append(response.verify_data);

        let session_info = SessionInfo {
            id: parameters.id,
            heartbeat_period: response.heartbeat_period,
            secured_version,
            summary: found(response.summary),
            authenticated_as: None,
        };
        let next = if with_context {
            PendingPskFinish::start(core, &session, transcript)?
        } else {
            session.establish(provider, &transcript.digest())?;
            Next::Done(Reply::SessionStarted(session_info.clone()))
        };
        core.sessions.begin(ActiveSession::new(session, session_info));
        Ok(next)
    }
}

impl PendingPskFinish {
    /// PSK_FINISH: inside the session, under the keys of the handshake.
    fn start(core: &Core, session: &Session, mut transcript: Transcript) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let mut bytes = Vec::new();
        PskFinish { version, opaque: &[], verify_data: &[] }.encode(&mut bytes)?;
        transcript.append(&bytes);
        let verify_data = session.verify_data(&*core.provider, Role::Requester, &transcript.digest())?;
        transcript.append(verify_data.as_ref());
        bytes.extend_from_slice(verify_data.as_ref());
        let flow = Flow::PskFinish(Self { transcript });
        Ok(Next::Send(Request { version, bytes, secured: true, flow }))
    }

    /// PSK_FINISH_RSP: the session is established.
    pub(super) fn finished(mut self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (_, exact) = message.parse(PskFinishRsp::parse)?;
        self.transcript.append(exact);
        let active = core.sessions.current_mut().ok_or(Misuse::NoSession)?;
        active.session.establish(&*core.provider, &self.transcript.digest())?;
        Ok(Next::Done(Reply::SessionStarted(active.info.clone())))
    }
}

/// What a session from a pre-shared key needs of both sides.
fn capable(core: &Core) -> Result<Aead, Misuse> {
    let info = &core.connected()?.info;
    let announced = [ResponderFlags::PSK_WITHOUT_CONTEXT, ResponderFlags::PSK_WITH_CONTEXT]
        .iter()
        .any(|kind| both(core.config.flags(), RequesterFlags::PSK, info.capabilities, *kind));
    info.algorithms.aead.filter(|_| announced).ok_or(Misuse::NotCapable("sessions from pre-shared keys"))
}
