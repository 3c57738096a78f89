//! KEY_EXCHANGE and FINISH: from a connection to a session.

use super::attest::{check_opaque, found, summary_size};
use super::command::{ConnectionInfo, Reply, SessionInfo};
use super::encapsulated::{Conversation, Goal};
use super::error::{Misuse, RequesterError, Violation};
use super::events::session_policy;
use super::negotiate::both;
use super::sessions::ActiveSession;
use super::state::{Core, Flow, Message, Next, Request};
use crate::crypto::{Aead, DheGroup, KeyAgreement};
use crate::key_schedule::Shared;
use crate::secured::Protection;
use crate::session::{Role, Session, SessionParameters};
use crate::slot::slot_of_field;
use crate::transcript::{SigningContext, Transcript, sign};
use crate::wire::{
    Finish, FinishRsp, KeyExchange, KeyExchangeRsp, KeyExchangeSizes, MutualAuth, RequesterFlags,
    ResponderFlags, SelectedSecuredVersion, SummaryType, SupportedSecuredVersions, Version, VersionNumber,
    encapsulates,
};

/// KEY_EXCHANGE on its way.
pub(super) struct PendingKeyExchange {
    slot: u8,
    id: u16,
    sizes: KeyExchangeSizes,
    aead: Aead,
    agreement: Box<dyn KeyAgreement>,
}

/// FINISH on its way.
pub(super) struct PendingFinish {
    /// TH up to and including FINISH.
    transcript: Transcript,
}

impl PendingKeyExchange {
    /// KEY_EXCHANGE.
    pub(super) fn start(
        core: &Core,
        slot: u8,
        summary: SummaryType,
        end_on_update: bool,
    ) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        if core.in_session() {
            return Err(Misuse::InSession.into());
        }
        let (group, aead) = capable(core)?;
        connection.peer(slot)?;
        let hash_size = connection.hash().size();
        let sizes = KeyExchangeSizes {
            exchange: group.response_size(),
            summary: summary_size(core, summary)?,
            signature: connection.signature()?.signature_size(),
            // In the clear, the responder proves its secret in FINISH_RSP instead.
            verify_data: if core.handshakes_in_the_clear()? { 0 } else { hash_size },
        };
        let agreement = core.provider.start_exchange(group)?;
        let id = session_id_half(core)?;
        let version = connection.info.version;
        let mut bytes = Vec::new();
        KeyExchange {
            version,
            summary,
            slot,
            session_id: id,
            policy: session_policy(core, end_on_update)?,
            random: core.random()?,
            exchange: agreement.public(),
            opaque: &offered_versions(core)?,
        }
        .encode(&mut bytes)?;
        let flow = Flow::KeyExchange(Self { slot, id, sizes, aead, agreement });
        Ok(Next::Send(Request::clear(version, bytes, flow)))
    }

    /// KEY_EXCHANGE_RSP, and FINISH if it proves that the responder has the slot's key and our secret.
    pub(super) fn exchanged(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, exact) = message.parse(|reader| KeyExchangeRsp::parse(reader, &self.sizes))?;
        let connection = core.connected()?;
        let info = &connection.info;
        let announced = match response.mutual_auth {
            MutualAuth::None => true,
            MutualAuth::Known => core.has_identity(slot_of_field(response.requester_slot))?,
            MutualAuth::Encapsulated | MutualAuth::Digests => {
                info.algorithms.requester_signature.is_some()
                    && core.chains.has_certificates()
                    && encapsulates(info.version, core.flags(info.version), info.capabilities)
            }
        };
        message.require(announced, Violation::NotAnnounced("mutual authentication"))?;
        heartbeat_allowed(core, message, response.heartbeat_period)?;
        let secured_version = selected_version(core, message, response.version, response.opaque)?;

        let peer = connection.peer(self.slot)?;
        let provider = &*core.provider;
        let hash = connection.hash();
        let mut transcript =
            connection.basis(provider).th_of_keys(&connection.first_digests, &peer.digest)?;
        transcript.append(message.request);
        let signed = exact.len() - response.signature.len() - response.verify_data.len();
        transcript.append(exact.get(..signed).unwrap_or_default());
        let context = SigningContext::KeyExchangeRsp;
        let genuine = connection.verify(provider, peer, context, &transcript, response.signature);
        message.require(genuine, Violation::Signature)?;
        transcript.append(response.signature);

        let parameters = SessionParameters {
            id: u32::from(self.id) | u32::from(response.session_id) << 16,
            role: Role::Requester,
            version: info.version.0,
            hash,
            aead: self.aead,
            protection: protection(info),
            sequence_limit: core.config.sequence_limit,
        };
        let shared = self
            .agreement
            .agree(response.exchange)
            .map_err(|_| message.violation(Violation::ExchangeData))?;
        let th1 = transcript.digest();
        let session = Session::new(provider, parameters, Shared::Exchanged(&shared), &th1)?;
        if self.sizes.verify_data != 0 {
            check_verify_data(core, message, &session, &transcript, response.verify_data)?;
            transcript.append(response.verify_data);
        }

        let session_info = SessionInfo {
            id: parameters.id,
            heartbeat_period: response.heartbeat_period,
            secured_version,
            summary: found(response.summary),
            authenticated_as: None,
        };
        core.sessions.begin(ActiveSession::new(session, session_info));
        match response.mutual_auth {
            MutualAuth::None => PendingFinish::start(core, transcript, None),
            MutualAuth::Known => {
                PendingFinish::start(core, transcript, Some(slot_of_field(response.requester_slot)))
            }
            MutualAuth::Encapsulated => Conversation::start(core, Goal::Finish(transcript)),
            MutualAuth::Digests => Conversation::start_with_digests(core, Goal::Finish(transcript)),
        }
    }
}

impl PendingFinish {
    /// FINISH: inside the session, under the keys of the handshake, unless both sides want it in the clear.
    ///
    /// Signed with the key of slot `signer` if the responder asked for that.
    pub(super) fn start(
        core: &mut Core,
        mut transcript: Transcript,
        signer: Option<u8>,
    ) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let (version, hash) = (connection.info.version, connection.hash());
        let mut bytes = Vec::new();
        let signature = signer.map(|_| &[][..]);
        let requester_slot = signer.unwrap_or(0);
        Finish { version, requester_slot, opaque: &[], signature, verify_data: &[] }.encode(&mut bytes)?;
        if let Some(slot) = signer {
            let asym = connection.info.algorithms.requester_signature;
            let identity = asym.and_then(|asym| core.chains.identity(slot, asym, hash));
            let (key, digest) = identity.ok_or(Misuse::NoCertificate(slot))?;
            transcript.append(digest.as_ref());
            transcript.append(&bytes);
            let unsigned = bytes.len();
            sign(key, hash, SigningContext::Finish, &transcript, &mut bytes)?;
            transcript.append(bytes.get(unsigned..).unwrap_or_default());
        } else {
            transcript.append(&bytes);
        }
        let active = core.sessions.current_mut().ok_or(Misuse::NoSession)?;
        active.info.authenticated_as = signer;
        let verify_data =
            active.session.verify_data(&*core.provider, Role::Requester, &transcript.digest())?;
        transcript.append(verify_data.as_ref());
        bytes.extend_from_slice(verify_data.as_ref());
        let secured = !core.handshakes_in_the_clear()?;
        let flow = Flow::Finish(Self { transcript });
        Ok(Next::Send(Request { version, bytes, secured, flow }))
    }

    /// FINISH_RSP: the session is established.
    pub(super) fn finished(mut self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let size = if message.secured { 0 } else { core.connected()?.hash().size() };
        let (response, exact) = message.parse(|reader| FinishRsp::parse(reader, size))?;
        check_opaque(message, response.version, response.opaque)?;
        let unproved = exact.get(..exact.len() - size).unwrap_or_default();
        self.transcript.append(unproved);
        if !message.secured {
            let active = core.sessions.current().ok_or(Misuse::NoSession)?;
            check_verify_data(core, message, &active.session, &self.transcript, response.verify_data)?;
            self.transcript.append(response.verify_data);
        }
        let active = core.sessions.current_mut().ok_or(Misuse::NoSession)?;
        active.session.establish(&*core.provider, &self.transcript.digest())?;
        Ok(Next::Done(Reply::SessionStarted(active.info.clone())))
    }
}

/// A heartbeat is something both sides have to announce.
pub(super) fn heartbeat_allowed(
    core: &Core,
    message: &Message<'_>,
    period: u8,
) -> Result<(), RequesterError> {
    let theirs = core.connected()?.info.capabilities;
    let allowed = both(core.config.flags(), RequesterFlags::HBEAT, theirs, ResponderFlags::HBEAT);
    message.require(allowed || period == 0, Violation::NotAnnounced("a heartbeat"))
}

/// Opaque data of the request: the versions of secured messages that we have.
pub(super) fn offered_versions(core: &Core) -> Result<Vec<u8>, RequesterError> {
    let versions: Vec<_> =
        core.config.secured_versions.iter().map(|version| VersionNumber::new(*version)).collect();
    let mut opaque = Vec::new();
    SupportedSecuredVersions(&versions).encode(core.connected()?.info.version, &mut opaque)?;
    Ok(opaque)
}

/// The one of them that the response's opaque data selects.
pub(super) fn selected_version(
    core: &Core,
    message: &Message<'_>,
    version: Version,
    opaque: &[u8],
) -> Result<Version, RequesterError> {
    check_opaque(message, version, opaque)?;
    let selected = SelectedSecuredVersion::find(version, opaque).map_err(|error| message.malformed(error))?;
    let offered = |selected: &SelectedSecuredVersion| {
        core.config.secured_versions.iter().any(|version| selected.0 == VersionNumber::new(*version))
    };
    let selected = selected.filter(offered);
    let selected =
        selected.ok_or_else(|| message.violation(Violation::Selection("secured message version")))?;
    Ok(selected.version())
}

/// What records protect: we always can encrypt.
pub(super) const fn protection(info: &ConnectionInfo) -> Protection {
    if info.capabilities.has(ResponderFlags::ENCRYPT) {
        Protection::EncryptAndMac
    } else {
        Protection::MacOnly
    }
}

/// The responder's proof that it has our secret.
pub(super) fn check_verify_data(
    core: &Core,
    message: &Message<'_>,
    session: &Session,
    transcript: &Transcript,
    verify_data: &[u8],
) -> Result<(), RequesterError> {
    session
        .check_verify_data(&*core.provider, Role::Responder, &transcript.digest(), verify_data)
        .map_err(|_| message.violation(Violation::VerifyData))
}

/// What a session needs of both sides.
fn capable(core: &Core) -> Result<(DheGroup, Aead), Misuse> {
    let info = &core.connected()?.info;
    let algorithms = &info.algorithms;
    match (algorithms.group, algorithms.aead) {
        (Some(group), Some(aead)) if info.capabilities.has(ResponderFlags::KEY_EX | ResponderFlags::MAC) => {
            Ok((group, aead))
        }
        _ => Err(Misuse::NotCapable("sessions")),
    }
}

/// Our half of the session id: never 0 so that the whole is not either, and of no other session.
pub(super) fn session_id_half(core: &Core) -> Result<u16, RequesterError> {
    loop {
        let half = u16::from_le_bytes(core.random()?).max(1);
        if !core.sessions.uses_half(half) {
            return Ok(half);
        }
    }
}
