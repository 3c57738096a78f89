//! The table of sessions: ids, stages and heartbeat deadlines.

use core::time::Duration;

use crate::SessionId;
use crate::session::Session;
use crate::transcript::Transcript;
use crate::wire::{EventDetail, KeyUpdate};

use super::encapsulated::Conversation;
use super::events::{EndReason, Events};
use super::mutual::Proof;
use super::notifier::Subscription;
use super::requester_info::Endpoint;
use super::state::MeasurementTranscript;
use super::view::Provenance;

/// How far one session is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waits for FINISH; TH so far.
    Handshake { transcript: Transcript, proof: Proof },
    /// Waits for PSK_FINISH; TH so far.
    PskHandshake { transcript: Transcript },
    /// In use.
    Application {
        /// L1/L2 of measurements in this session; `None` if nothing has come behind its beginning.
        l1l2: Option<MeasurementTranscript>,
        /// The update that waits for its verification.
        update: Option<KeyUpdate>,
        /// The responder wants a new key for what it sends.
        renew_key: bool,
    },
}

/// One session.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Session,
    pub(super) stage: Stage,
    /// Zero if the session needs no heartbeat.
    pub(super) heartbeat: Duration,
    /// What the responder asks in it.
    pub(super) conversation: Option<Conversation>,
    /// What kind of device its requester says it is.
    pub(super) endpoint: Endpoint,
    /// What its requester is told of.
    pub(super) events: Subscription,
    /// It ends when an update changes a measurement.
    pub(super) ends_on_update: bool,
    /// What is told of it beside its keys.
    pub(super) provenance: Provenance,
    deadline: Option<Duration>,
}

impl Entry {
    pub(super) fn new(
        session: Session,
        stage: Stage,
        heartbeat: Duration,
        events: Subscription,
        provenance: Provenance,
    ) -> Self {
        Self {
            session,
            stage,
            heartbeat,
            conversation: None,
            endpoint: Endpoint::default(),
            events,
            ends_on_update: false,
            provenance,
            deadline: None,
        }
    }

    /// Traffic was seen: the session lives for another two periods (DSP0274 1.3 "HEARTBEAT").
    pub(super) fn touch(&mut self, now: Duration) {
        if !self.heartbeat.is_zero() && matches!(self.stage, Stage::Application { .. }) {
            self.deadline = Some(now.saturating_add(self.heartbeat.saturating_mul(2)));
        }
    }

    fn report_end(&self, events: &mut Events, reason: EndReason) {
        if matches!(self.stage, Stage::Application { .. }) {
            events.session_ended(self.session.id(), reason);
        }
    }
}

/// All sessions of a responder.
#[derive(Debug)]
pub(super) struct Sessions {
    entries: Vec<Entry>,
    limit: usize,
    /// How long a handshake may take; zero for ever.
    handshake_timeout: Duration,
    /// The present, as far as it is known.
    now: Duration,
    /// What the device has to hear of.
    pub(super) events: Events,
    last_half: u16,
}

impl Sessions {
    pub(super) fn new(limit: usize, handshake_timeout: Duration) -> Self {
        Self {
            entries: Vec::with_capacity(limit),
            limit,
            handshake_timeout,
            now: Duration::ZERO,
            events: Events::default(),
            last_half: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn find(&self, id: SessionId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.session.id() == id)
    }

    /// The session whose handshake began last, for FINISH in the clear.
    pub(super) fn last_handshake(&self) -> Option<usize> {
        self.entries.iter().rposition(|entry| matches!(entry.stage, Stage::Handshake { .. }))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    /// The responder's half of a new session id: never 0 or 0xFFFF, and of no live session.
    pub(super) fn allocate_half(&mut self) -> u16 {
        loop {
            self.last_half = match self.last_half {
                0..0xFFFE => self.last_half + 1,
                0xFFFE.. => 1,
            };
            let half = u32::from(self.last_half);
            if !self.entries.iter().any(|entry| entry.session.id() >> 16 == half) {
                return self.last_half;
            }
        }
    }

    /// Adds a session in its handshake; returns its index.
    pub(super) fn insert(&mut self, mut entry: Entry) -> usize {
        if !self.handshake_timeout.is_zero() {
            entry.deadline = Some(self.now.saturating_add(self.handshake_timeout));
        }
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// The session's handshake is done.
    pub(super) fn establish(&mut self, index: usize, now: Duration) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.stage = Stage::Application { l1l2: None, update: None, renew_key: false };
            entry.deadline = None;
            entry.touch(now);
            self.events.session_established(entry.session.id());
        }
    }

    pub(super) fn end(&mut self, index: usize, reason: EndReason) {
        if index < self.entries.len() {
            self.entries.remove(index).report_end(&mut self.events, reason);
        }
    }

    pub(super) fn end_all(&mut self, reason: EndReason) {
        let Self { entries, events, .. } = self;
        entries.iter().for_each(|entry| entry.report_end(events, reason));
        entries.clear();
    }

    /// An update at run time has changed a measurement: sessions whose requester left the responder no choice end.
    pub(super) fn end_outdated(&mut self) {
        while let Some(index) = self.entries.iter().position(|entry| entry.ends_on_update) {
            self.end(index, EndReason::FirmwareUpdated);
        }
    }

    /// Tells every requester that has subscribed to it of an event.
    pub(super) fn notify(&mut self, event: &EventDetail) {
        self.entries.iter_mut().for_each(|entry| entry.events.push(event));
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.entries.iter().filter_map(|entry| entry.deadline).min()
    }

    /// Time has passed. A handshake that took too long ends without notice, as any that fails.
    pub(super) fn expire(&mut self, now: Duration) {
        self.now = now;
        while let Some(index) =
            self.entries.iter().position(|entry| entry.deadline.is_some_and(|deadline| deadline <= now))
        {
            self.end(index, EndReason::HeartbeatLost);
        }
    }
}
