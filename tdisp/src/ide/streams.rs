//! One stream: its registers, its keys, and the two moments that decide whether it is secure.

use super::keys::{KeyState, StreamKeys};
use super::layout::{SecureOrder, StreamIndex};
use super::registers::{STATE_INSECURE, STATE_SECURE, StreamControl, StreamStatus};
use super::rehearsal::Rehearsal;
use super::{IdeEvent, InsecureCause, StreamView};

/// What may have completed the conditions of a secure stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A write of the control register.
    ControlWritten,
    /// A K_SET_GO.
    Go,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) control: StreamControl,
    pub(super) integrity_check_fail: bool,
    pub(super) keys: StreamKeys,
    pub(super) rehearsal: Rehearsal,
    secure: bool,
}

/// The association registers that only a selective stream has, as raw words.
#[derive(Default)]
pub(super) struct SelectiveRegisters {
    pub(super) rid_1: u32,
    pub(super) rid_2: u32,
    pub(super) addresses: Vec<Address>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Address {
    pub(super) one: u32,
    pub(super) limit_upper: u32,
    pub(super) base_upper: u32,
}

impl SelectiveRegisters {
    pub(super) fn new(blocks: usize) -> Self {
        Self { addresses: vec![Address::default(); blocks], ..Self::default() }
    }
}

impl Stream {
    pub(super) fn view(&self, index: StreamIndex) -> StreamView {
        StreamView {
            index,
            control: self.control,
            secure: self.secure,
            keys: self.keys.state(),
            programmed: self.keys.programmed(),
        }
    }

    pub(super) fn status(&self) -> StreamStatus {
        StreamStatus::new()
            .with_state(if self.secure { STATE_SECURE } else { STATE_INSECURE })
            .with_integrity_check_fail(self.integrity_check_fail)
    }

    pub(super) fn set_control(
        &mut self,
        index: StreamIndex,
        value: StreamControl,
        order: SecureOrder,
        events: &mut Vec<IdeEvent>,
    ) {
        let old = self.control;
        let renamed = old.stream_id() != value.stream_id();
        let disabled = old.enable() && !value.enable();
        if renamed || disabled {
            self.fall(index, InsecureCause::Disabled, events);
        }
        self.control = value;
        if renamed {
            // A key was programmed for a stream id, and this stream does not have it any more.
            self.keys.wipe();
            self.rehearsal = Rehearsal::default();
        }
        events.push(IdeEvent::Written { stream: index, changed: old != value });
        self.rise(index, Trigger::ControlWritten, order, events);
    }

    /// Turns secure if all there is to it is there and `trigger` is a moment at which the order allows it.
    pub(super) fn rise(
        &mut self,
        index: StreamIndex,
        trigger: Trigger,
        order: SecureOrder,
        events: &mut Vec<IdeEvent>,
    ) {
        let keyed = match self.keys.state() {
            KeyState::Complete(_) => true,
            // Reached by a refresh of a stream that is secure and stays so; no stream starts like that.
            KeyState::Mixed | KeyState::Incomplete => false,
        };
        let enabled = self.control.enable();
        let allowed = match order {
            SecureOrder::Either => enabled,
            SecureOrder::AtEnable => enabled && trigger == Trigger::ControlWritten,
            SecureOrder::AtLastGo => enabled && trigger == Trigger::Go,
            SecureOrder::WithoutEnable => trigger == Trigger::Go,
        };
        if keyed && allowed && !self.secure {
            self.secure = true;
            events.push(IdeEvent::Secure { stream: index, stream_id: self.control.stream_id() });
        }
    }

    /// Leaves secure. The keys go with it: their counters cannot be trusted to continue, and AES-GCM must
    /// never see an invocation field twice. Returns whether the stream was secure.
    pub(super) fn fall(
        &mut self,
        index: StreamIndex,
        cause: InsecureCause,
        events: &mut Vec<IdeEvent>,
    ) -> bool {
        let was_secure = core::mem::take(&mut self.secure);
        if was_secure {
            self.keys.wipe();
            events.push(IdeEvent::Insecure { stream: index, stream_id: self.control.stream_id(), cause });
        }
        was_secure
    }
}
