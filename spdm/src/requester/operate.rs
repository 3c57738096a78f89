//! What is done with a session, or beside one: HEARTBEAT, KEY_UPDATE, END_SESSION, VENDOR_DEFINED.

use super::command::{Reply, UpdateKeys};
use super::error::{Misuse, RequesterError, Violation};
use super::negotiate::both;
use super::sessions::ActiveSession;
use super::state::{Core, Flow, Message, Next, Request};
use crate::wire::{
    EndSession, EndSessionAck, Heartbeat, HeartbeatAck, KeyOperation, KeyUpdate, RequesterFlags,
    ResponderFlags, VendorDefined, Version,
};

/// The version, if there is a session and both sides have the capability.
fn capable(core: &Core, requester: u32, responder: u32, what: &'static str) -> Result<Version, Misuse> {
    let info = &core.connected()?.info;
    if !core.in_session() {
        return Err(Misuse::NoSession);
    }
    if both(core.config.flags(), requester, info.capabilities, responder) {
        Ok(info.version)
    } else {
        Err(Misuse::NotCapable(what))
    }
}

/// HEARTBEAT.
pub(super) fn heartbeat(core: &Core) -> Result<Next, RequesterError> {
    let version = capable(core, RequesterFlags::HBEAT, ResponderFlags::HBEAT, "heartbeats")?;
    let mut bytes = Vec::new();
    Heartbeat { version }.encode(&mut bytes);
    Ok(Next::Send(Request { version, bytes, secured: true, flow: Flow::Heartbeat }))
}

/// HEARTBEAT_ACK.
pub(super) fn alive(message: &Message<'_>) -> Result<Next, RequesterError> {
    message.parse(HeartbeatAck::parse)?;
    Ok(Next::Done(Reply::Alive))
}

/// END_SESSION.
pub(super) fn end_session(core: &Core, clear_negotiated_state: bool) -> Result<Next, RequesterError> {
    let version = core.connected()?.info.version;
    if !core.in_session() {
        return Err(Misuse::NoSession.into());
    }
    let mut bytes = Vec::new();
    EndSession { version, clear_negotiated_state }.encode(&mut bytes);
    Ok(Next::Send(Request { version, bytes, secured: true, flow: Flow::EndSession }))
}

/// END_SESSION_ACK.
pub(super) fn ended(core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
    message.parse(EndSessionAck::parse)?;
    core.sessions.end_current();
    Ok(Next::Done(Reply::SessionEnded))
}

/// KEY_UPDATE on its way.
pub(super) struct PendingKeyUpdate {
    operation: KeyOperation,
    tag: u8,
}

impl PendingKeyUpdate {
    /// KEY_UPDATE that asks for new keys. When both change, the acknowledgement already comes under the new one.
    pub(super) fn start(core: &mut Core, keys: UpdateKeys) -> Result<Next, RequesterError> {
        capable(core, RequesterFlags::KEY_UPD, ResponderFlags::KEY_UPD, "key updates")?;
        let operation = match keys {
            UpdateKeys::Requests => KeyOperation::UpdateKey,
            UpdateKeys::Both => KeyOperation::UpdateAllKeys,
        };
        let next = Self::ask(core, operation)?;
        if let (UpdateKeys::Both, Some(ActiveSession { session, .. })) = (keys, core.sessions.current_mut()) {
            session.update_inbound(&*core.provider)?;
        }
        Ok(next)
    }

    fn ask(core: &Core, operation: KeyOperation) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let [tag] = core.random()?;
        let mut bytes = Vec::new();
        KeyUpdate { version, operation, tag }.encode(&mut bytes);
        let flow = Flow::KeyUpdate(Self { operation, tag });
        Ok(Next::Send(Request { version, bytes, secured: true, flow }))
    }

    /// KEY_UPDATE_ACK: switches keys and proves that ours works, or is done.
    pub(super) fn acknowledged(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, _) = message.parse(KeyUpdate::parse_ack)?;
        let echoed = response.operation == self.operation && response.tag == self.tag;
        message.require(echoed, Violation::Echo("the key operation or tag"))?;
        let ActiveSession { session, .. } = core.sessions.current_mut().ok_or(Misuse::NoSession)?;
        match self.operation {
            KeyOperation::VerifyNewKey => return Ok(Next::Done(Reply::KeysUpdated)),
            KeyOperation::UpdateAllKeys => {
                message.require(session.inbound_used(), Violation::OldKey)?;
                session.confirm_inbound();
            }
            KeyOperation::UpdateKey => {}
        }
        session.update_outbound(&*core.provider)?;
        Self::ask(core, KeyOperation::VerifyNewKey)
    }
}

/// VENDOR_DEFINED_REQUEST on its way.
pub(super) struct PendingVendor {
    standard_id: u16,
    vendor_id: Vec<u8>,
}

impl PendingVendor {
    /// VENDOR_DEFINED_REQUEST.
    pub(super) fn start(
        core: &Core,
        standard_id: u16,
        vendor_id: Vec<u8>,
        payload: &[u8],
    ) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let mut bytes = Vec::new();
        let large = payload.len() > usize::from(u16::MAX) && core.large_forms()?;
        VendorDefined { version, large, standard_id, vendor_id: &vendor_id, payload }
            .encode_request(&mut bytes)?;
        let flow = Flow::Vendor(Self { standard_id, vendor_id });
        Ok(Next::Send(Request::new(core, version, bytes, flow)))
    }

    /// VENDOR_DEFINED_RESPONSE.
    pub(super) fn answered(self, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, _) = message.parse(VendorDefined::parse_response)?;
        let echoed = response.standard_id == self.standard_id && response.vendor_id == self.vendor_id;
        message.require(echoed, Violation::Echo("the registry or vendor id"))?;
        Ok(Next::Done(Reply::Vendor(response.payload.to_vec())))
    }
}
