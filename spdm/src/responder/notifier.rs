//! GET_SUPPORTED_EVENT_TYPES, SUBSCRIBE_EVENT_TYPES and SEND_EVENT: what requesters are told of without asking
//! (DSP0274 1.3 "Event mechanism").
//!
//! Every session has a subscription of its own. Its events wait until the requester comes with
//! GET_ENCAPSULATED_REQUEST, and go when it has acknowledged them.

use std::collections::VecDeque;

use crate::codec::Reader;
use crate::wire::{
    ACKNOWLEDGEMENT_SIZE, DMTF_EVENT_GROUP_VERSION, ErrorCode, EventAck, EventData, EventDetail, EventGroup,
    EventGroupId, GetSupportedEventTypes, POLICY_ALL_EVENTS, ResponderFlags, SendEvent, SubscribeEventTypes,
    SubscribeEventTypesAck, SupportedEventTypes, Version,
};

use super::Core;
use super::encapsulated::{Channel, Heard};
use super::reject::{Handled, Next, Reject};
use super::state::Request;

const BAD_RESPONSE: Reject = Reject::error(ErrorCode::INVALID_RESPONSE_CODE);

/// Most events that wait for one requester.
pub(super) const QUEUE_LIMIT: usize = 16;

/// Event types of the DMTF group, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EventTypes(u8);

impl EventTypes {
    fn of(kinds: impl IntoIterator<Item = u16>) -> Self {
        Self(kinds.into_iter().fold(0, |types, kind| types | 1_u8.checked_shl(kind.into()).unwrap_or(0)))
    }

    const fn has(self, kind: u16) -> bool {
        kind < 8 && self.0 >> kind & 1 == 1
    }

    fn list(self) -> Vec<u16> {
        EventDetail::DMTF_TYPES.into_iter().filter(|kind| self.has(*kind)).collect()
    }
}

/// What a session's requester wants to hear of, and what it has not acknowledged yet.
///
/// Once the queue is full, everything is lost until it has been acknowledged to its end; then EventLost says so. In
/// that order nothing lies between the last event that was acknowledged and the first that was lost.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    wanted: EventTypes,
    /// Instance id of the next event.
    next: u32,
    queue: VecDeque<EventData>,
    /// Instance id of the last event that was lost, if some were.
    lost: Option<u32>,
}

impl Subscription {
    pub(super) const fn to(wanted: EventTypes) -> Self {
        Self { wanted, next: 0, queue: VecDeque::new(), lost: None }
    }

    /// Other types from now on. What waits and is wanted no more is dropped.
    fn change(&mut self, wanted: EventTypes) {
        self.wanted = wanted;
        self.queue.retain(|event| wanted.has(event.detail.kind()));
        if self.queue.is_empty() {
            self.lost = None;
        }
    }

    /// Something happened.
    pub(super) fn push(&mut self, detail: &EventDetail) {
        if !self.wanted.has(detail.kind()) {
            return;
        }
        let instance = self.next;
        self.next = self.next.wrapping_add(1);
        if self.lost.is_some() || self.queue.len() >= QUEUE_LIMIT {
            self.lost = Some(instance);
        } else {
            self.queue.push_back(EventData { instance, detail: detail.clone() });
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The oldest events, as many as follow each other without a gap and are at most `limit`.
    fn oldest(&self, limit: usize) -> Vec<EventData> {
        let mut events: Vec<EventData> = Vec::new();
        for event in self.queue.iter().take(limit) {
            let follows = |last: &EventData| last.instance.checked_add(1) == Some(event.instance);
            if !events.last().is_none_or(follows) {
                break;
            }
            events.push(event.clone());
        }
        events
    }

    /// The oldest `count` events have arrived.
    fn acknowledge(&mut self, count: usize) {
        let last = self.queue.drain(..count.min(self.queue.len())).next_back();
        if let (true, Some(last), Some(last_lost)) = (self.queue.is_empty(), last, self.lost) {
            self.lost = None;
            self.push(&EventDetail::EventLost { last_acknowledged: last.instance, last_lost });
        }
    }
}

impl Core {
    /// The types this responder has, for any session of the connection.
    pub(super) fn event_types(&self) -> EventTypes {
        let version = self.connection.error_version();
        let flags = self.flags.of(version);
        let types = EventDetail::DMTF_TYPES.into_iter().filter(|kind| match *kind {
            EventDetail::MEASUREMENT_CHANGED | EventDetail::MEASUREMENT_PRE_UPDATE => {
                flags.any(ResponderFlags::MEAS_MASK)
            }
            EventDetail::CERTIFICATE_CHANGED => flags.has(ResponderFlags::CERT),
            _ => true,
        });
        if flags.has(ResponderFlags::EVENT) { EventTypes::of(types) } else { EventTypes::default() }
    }

    /// What `SessionPolicy` of KEY_EXCHANGE or PSK_EXCHANGE subscribes to: from 1.3 on its bit 1 means all events, and a
    /// responder without any refuses it.
    pub(super) fn subscribed(&self, version: Version, policy: u8) -> Result<Subscription, Reject> {
        if version < Version::V1_3 || policy & POLICY_ALL_EVENTS == 0 {
            return Ok(Subscription::default());
        }
        let types = self.event_types();
        if types == EventTypes::default() {
            return Err(Reject::INVALID);
        }
        self.check_room(types)?;
        Ok(Subscription::to(types))
    }

    pub(super) fn get_supported_event_types(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let body = request.parse_exact(GetSupportedEventTypes::parse)?;
        let group = EventGroup {
            id: EventGroupId::DMTF,
            version: DMTF_EVENT_GROUP_VERSION,
            all: false,
            types: self.event_types().list(),
        };
        SupportedEventTypes { version: body.version, groups: vec![group] }.encode(out)?;
        Ok(Next::Stay)
    }

    /// All groups and types have to be among those that are supported, otherwise the subscription stays as it was.
    pub(super) fn subscribe_event_types(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let body = request.parse_exact(SubscribeEventTypes::parse)?;
        let supported = self.event_types();
        let mut wanted = EventTypes::default();
        for group in &body.groups {
            if group.id != EventGroupId::DMTF || group.version != DMTF_EVENT_GROUP_VERSION {
                return Err(Reject::INVALID);
            }
            if !group.types.iter().all(|kind| supported.has(*kind)) {
                return Err(Reject::INVALID);
            }
            let types = if group.all { supported } else { EventTypes::of(group.types.iter().copied()) };
            wanted.0 |= types.0;
        }
        self.check_room(wanted)?;
        let index = request.session.ok_or(Reject::SESSION_REQUIRED)?;
        self.sessions.get_mut(index).ok_or(Reject::SESSION_REQUIRED)?.events.change(wanted);
        SubscribeEventTypesAck { version: body.version }.encode(out);
        Ok(Next::Stay)
    }

    /// Events that could never be sent, because the requester does not take messages of their size, are not promised.
    fn check_room(&self, wanted: EventTypes) -> Result<(), Reject> {
        let nothing = wanted == EventTypes::default();
        if nothing || self.event_room() != 0 { Ok(()) } else { Err(Reject::INVALID) }
    }

    /// Number of events that fit one SEND_EVENT.
    fn event_room(&self) -> usize {
        let room = self.longest_response().saturating_sub(ACKNOWLEDGEMENT_SIZE + SendEvent::OVERHEAD);
        room / SendEvent::LONGEST_DMTF_EVENT
    }

    /// Appends the oldest events that the session's requester has not acknowledged; returns their number.
    pub(super) fn send_event(&self, channel: Channel, out: &mut Vec<u8>) -> Result<usize, Reject> {
        let Channel::Session(index) = channel else { return Err(Reject::UNEXPECTED) };
        let entry = self.sessions.get(index).ok_or(Reject::UNEXPECTED)?;
        let events = entry.events.oldest(self.event_room());
        let count = events.len();
        SendEvent { version: self.connection.error_version(), events }.encode(out)?;
        Ok(count)
    }

    /// Takes EVENT_ACK, which is for the oldest `count` events.
    pub(super) fn event_acknowledged(
        &mut self,
        channel: Channel,
        count: usize,
        response: &[u8],
    ) -> Result<Heard, Reject> {
        let Channel::Session(index) = channel else { return Err(Reject::UNEXPECTED) };
        let entry = self.sessions.get_mut(index).ok_or(Reject::UNEXPECTED)?;
        let mut reader = Reader::new(response);
        EventAck::parse(&mut reader).and_then(|_| reader.finish(0)).map_err(|_| BAD_RESPONSE)?;
        entry.events.acknowledge(count);
        Ok(if entry.events.is_pending() { Heard::More } else { Heard::Enough })
    }
}
