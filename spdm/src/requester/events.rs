//! GET_SUPPORTED_EVENT_TYPES, SUBSCRIBE_EVENT_TYPES, and the SEND_EVENT that follows in the responder's conversations
//! (DSP0274 1.3 "Event mechanism").

use super::command::Reply;
use super::encapsulated::{Conversation, Goal};
use super::error::{Misuse, RequesterError};
use super::respond::{INVALID, Refusal, UNEXPECTED};
use super::state::{Core, Flow, Message, Next, Request};
use crate::codec::Reader;
use crate::wire::{
    ErrorCode, EventAck, EventGroup, GetSupportedEventTypes, POLICY_ALL_EVENTS, POLICY_RESPONDER_DECIDES,
    ResponderFlags, SendEvent, SubscribeEventTypes, SubscribeEventTypesAck, SupportedEventTypes, Version,
};

/// Most bytes of events that are taken in one conversation; what is left comes in the next.
const MOST_EVENT_BYTES: usize = 1 << 16;

/// The version, if there is a session with a responder that has events.
fn capable(core: &Core) -> Result<Version, Misuse> {
    let info = &core.connected()?.info;
    if !core.in_session() {
        return Err(Misuse::NoSession);
    }
    if has_events(core)? { Ok(info.version) } else { Err(Misuse::NotCapable("events")) }
}

fn has_events(core: &Core) -> Result<bool, Misuse> {
    let info = &core.connected()?.info;
    Ok(info.version >= Version::V1_3 && info.capabilities.has(ResponderFlags::EVENT))
}

/// `SessionPolicy` of KEY_EXCHANGE and PSK_EXCHANGE.
pub(super) fn session_policy(core: &Core, end_on_update: bool) -> Result<u8, Misuse> {
    let events = core.config.all_events && has_events(core)?;
    let bits = [(!end_on_update, POLICY_RESPONDER_DECIDES), (events, POLICY_ALL_EVENTS)];
    Ok(bits.iter().filter(|(on, _)| *on).fold(0, |policy, (_, bit)| policy | bit))
}

/// GET_SUPPORTED_EVENT_TYPES.
pub(super) fn get_types(core: &Core) -> Result<Next, RequesterError> {
    let version = capable(core)?;
    let mut bytes = Vec::new();
    GetSupportedEventTypes { version }.encode(&mut bytes);
    Ok(Next::Send(Request::new(core, version, bytes, Flow::EventTypes)))
}

/// SUPPORTED_EVENT_TYPES.
pub(super) fn types(message: &Message<'_>) -> Result<Next, RequesterError> {
    let (response, _) = message.parse(SupportedEventTypes::parse)?;
    Ok(Next::Done(Reply::EventTypes(response.groups)))
}

/// SUBSCRIBE_EVENT_TYPES.
pub(super) fn subscribe(core: &Core, groups: Vec<EventGroup>) -> Result<Next, RequesterError> {
    let version = capable(core)?;
    let mut bytes = Vec::new();
    SubscribeEventTypes { version, groups }.encode(&mut bytes)?;
    Ok(Next::Send(Request::new(core, version, bytes, Flow::Subscription)))
}

/// SUBSCRIBE_EVENT_TYPES_ACK.
pub(super) fn subscribed(message: &Message<'_>) -> Result<Next, RequesterError> {
    message.parse(SubscribeEventTypesAck::parse)?;
    Ok(Next::Done(Reply::Subscribed))
}

impl Conversation {
    /// SEND_EVENT: all of its events are taken, in the order of their instance ids, or none.
    pub(super) fn events(&mut self, core: &Core, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !has_events(core)? {
            let [_, code, ..] = request else { return Err(INVALID) };
            return Err(Refusal::Error(ErrorCode::UNSUPPORTED_REQUEST, *code));
        }
        if !matches!(self.goal, Goal::Serve) {
            return Err(UNEXPECTED);
        }
        if !core.in_session() {
            return Err(Refusal::Error(ErrorCode::SESSION_REQUIRED, 0));
        }
        let mut reader = Reader::new(request);
        let body = SendEvent::parse(&mut reader)?;
        reader.finish(0)?;
        let received = self.event_bytes.saturating_add(request.len());
        if self.event_bytes != 0 && received > MOST_EVENT_BYTES {
            return Err(Refusal::Error(ErrorCode::BUSY, 0));
        }
        self.event_bytes = received;
        let first = self.served.events.len();
        self.served.events.extend(body.events);
        if let Some(new) = self.served.events.get_mut(first..) {
            new.sort_by_key(|event| event.instance);
        }
        let mut response = Vec::new();
        EventAck { version: body.version }.encode(&mut response);
        Ok(response)
    }
}
