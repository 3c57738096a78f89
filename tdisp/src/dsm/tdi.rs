//! The state machine of one TDI (PCIe 6.1 §11.2). A nonce exists in CONFIG_LOCKED and nowhere else.

use std::collections::VecDeque;

use crate::SessionId;
use crate::ide::StreamIndex;
use crate::wire::{FunctionId, LockRequest, Nonce, TdiState};

use super::BindingView;
use super::config::KeysAtLock;
use super::effect::{Cause, Effect};
use super::refusal::Refusal;
use super::report::LockedRange;

/// What LOCK recorded. The report is fixed here: what LOCK saw is what the TVM is told.
pub(super) struct Binding {
    pub(super) session: SessionId,
    pub(super) stream: StreamIndex,
    pub(super) keys: KeysAtLock,
    pub(super) lock: LockRequest,
    /// What LOCK called the function; it answers to no other name while it is locked.
    pub(super) function_id: FunctionId,
    pub(super) ranges: Vec<LockedRange>,
    pub(super) report: Vec<u8>,
    /// P2P streams, in the order in which they were bound.
    pub(super) p2p: Vec<StreamIndex>,
}

impl Binding {
    pub(super) fn view(&self) -> BindingView {
        BindingView {
            session: self.session,
            stream: self.stream,
            keys: self.keys,
            lock: self.lock,
            function_id: self.function_id,
            p2p: self.p2p.clone(),
        }
    }
}

/// A TDI in one of its four states.
pub(super) enum Tdi {
    Unlocked,
    Locked {
        binding: Box<Binding>,
        nonce: Nonce,
    },
    Run {
        binding: Box<Binding>,
    },
    Error {
        /// The session that locked, while it lives: until then no other may meddle.
        owner: Option<SessionId>,
    },
}

/// What can happen to a TDI.
pub(super) enum Event<'a> {
    /// LOCK_INTERFACE_REQUEST; the checks run only where the state allows it.
    Lock(&'a mut dyn FnMut() -> Result<(Box<Binding>, Nonce), Refusal>),
    /// GET_DEVICE_INTERFACE_REPORT.
    Report,
    /// START_INTERFACE_REQUEST.
    Start(&'a Nonce),
    /// One of the requests that are for a TDI in RUN: BIND_P2P_STREAM, UNBIND_P2P_STREAM, SET_MMIO_ATTRIBUTE.
    Adjust,
    /// STOP_INTERFACE_REQUEST.
    Stop,
    /// Trust is lost: stream, session, frozen register, function level reset, internal fault.
    Fall(Cause),
    /// Conventional reset.
    Reset,
}

impl Event<'_> {
    /// What a transition on this event is put down to.
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Lock(_) => Some(Cause::Locked),
            Self::Report | Self::Adjust => None,
            Self::Start(_) => Some(Cause::Started),
            Self::Stop => Some(Cause::Stopped),
            Self::Fall(cause) => Some(*cause),
            Self::Reset => Some(Cause::ConventionalReset),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Another state than before.
    Moved,
    /// Legal, and nothing to change.
    Stays,
    /// Refused, and nothing changed.
    Refused(Refusal),
}

impl Tdi {
    pub(super) fn state(&self) -> TdiState {
        match self {
            Self::Unlocked => TdiState::CONFIG_UNLOCKED,
            Self::Locked { .. } => TdiState::CONFIG_LOCKED,
            Self::Run { .. } => TdiState::RUN,
            Self::Error { .. } => TdiState::ERROR,
        }
    }

    pub(super) fn binding(&self) -> Option<&Binding> {
        match self {
            Self::Locked { binding, .. } | Self::Run { binding } => Some(binding),
            Self::Unlocked | Self::Error { .. } => None,
        }
    }

    /// The same, to bind and unbind P2P streams.
    pub(super) fn binding_mut(&mut self) -> Option<&mut Binding> {
        match self {
            Self::Locked { binding, .. } | Self::Run { binding } => Some(binding),
            Self::Unlocked | Self::Error { .. } => None,
        }
    }

    /// The session that alone may talk to this TDI, if there is one.
    pub(super) fn owner(&self) -> Option<SessionId> {
        match self {
            Self::Unlocked => None,
            Self::Locked { binding, .. } | Self::Run { binding } => Some(binding.session),
            Self::Error { owner } => *owner,
        }
    }

    /// The transition function. Consumes the old state; a refused event puts it back as it was.
    pub(super) fn step(&mut self, event: Event<'_>) -> Outcome {
        let (next, outcome) = core::mem::replace(self, Self::Unlocked).next(event);
        *self = next;
        outcome
    }

    fn next(self, event: Event<'_>) -> (Self, Outcome) {
        match (self, event) {
            (Self::Unlocked, Event::Lock(check)) => match check() {
                Ok((binding, nonce)) => (Self::Locked { binding, nonce }, Outcome::Moved),
                Err(refusal) => (Self::Unlocked, Outcome::Refused(refusal)),
            },
            (Self::Unlocked, Event::Stop | Event::Fall(_) | Event::Reset) => (Self::Unlocked, Outcome::Stays),
            (state @ Self::Unlocked, Event::Report | Event::Start(_) | Event::Adjust) => state.refuse(),

            (state @ Self::Locked { .. }, Event::Lock(_) | Event::Adjust) => state.refuse(),
            (state @ Self::Locked { .. }, Event::Report) => (state, Outcome::Stays),
            (Self::Locked { binding, nonce }, Event::Start(offered)) => {
                if nonce == *offered {
                    (Self::Run { binding }, Outcome::Moved)
                } else {
                    (Self::Locked { binding, nonce }, Outcome::Refused(Refusal::Nonce))
                }
            }
            (Self::Locked { .. }, Event::Stop | Event::Reset) => (Self::Unlocked, Outcome::Moved),
            (Self::Locked { binding, .. }, Event::Fall(_)) => Self::fall(&binding),

            (state @ Self::Run { .. }, Event::Lock(_) | Event::Start(_)) => state.refuse(),
            (state @ Self::Run { .. }, Event::Report | Event::Adjust) => (state, Outcome::Stays),
            (Self::Run { .. }, Event::Stop | Event::Reset) => (Self::Unlocked, Outcome::Moved),
            (Self::Run { binding }, Event::Fall(_)) => Self::fall(&binding),

            (
                state @ Self::Error { .. },
                Event::Lock(_) | Event::Report | Event::Start(_) | Event::Adjust,
            ) => state.refuse(),
            (Self::Error { .. }, Event::Stop | Event::Reset) => (Self::Unlocked, Outcome::Moved),
            (state @ Self::Error { .. }, Event::Fall(_)) => (state, Outcome::Stays),
        }
    }

    fn fall(binding: &Binding) -> (Self, Outcome) {
        (Self::Error { owner: Some(binding.session) }, Outcome::Moved)
    }

    fn refuse(self) -> (Self, Outcome) {
        let refusal = Refusal::State(self.state());
        (self, Outcome::Refused(refusal))
    }
}

/// All TDIs of a DSM, and the effects that their transitions have.
pub(super) struct Tdis {
    tdis: Vec<Tdi>,
    pub(super) effects: VecDeque<Effect>,
}

impl Tdis {
    pub(super) fn new(functions: usize) -> Self {
        Self { tdis: (0..functions).map(|_| Tdi::Unlocked).collect(), effects: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.tdis.len()
    }

    pub(super) fn get(&self, function: usize) -> Option<&Tdi> {
        self.tdis.get(function)
    }

    pub(super) fn get_mut(&mut self, function: usize) -> Option<&mut Tdi> {
        self.tdis.get_mut(function)
    }

    /// Lets an event happen to a TDI, and queues what has to follow a transition. Nothing happens to a
    /// function that is not hosted.
    pub(super) fn step(&mut self, function: usize, event: Event<'_>) -> Outcome {
        let Some(tdi) = self.tdis.get_mut(function) else { return Outcome::Refused(Refusal::Interface) };
        let from = tdi.state();
        let cause = event.cause();
        let outcome = tdi.step(event);
        let to = tdi.state();
        if let (Outcome::Moved, Some(cause)) = (outcome, cause) {
            if to != TdiState::RUN {
                self.effects.push_back(Effect::StopDma { function });
            }
            if to == TdiState::CONFIG_UNLOCKED {
                self.effects.push_back(Effect::Scrub { function });
            }
            self.effects.push_back(Effect::StateChanged { function, from, to, cause });
        }
        outcome
    }

    /// A session is over: an ERROR that it left behind is anyone's to stop now.
    pub(super) fn disown(&mut self, session: SessionId) {
        for tdi in &mut self.tdis {
            match tdi {
                Tdi::Error { owner } if *owner == Some(session) => *owner = None,
                Tdi::Unlocked | Tdi::Locked { .. } | Tdi::Run { .. } | Tdi::Error { .. } => {}
            }
        }
    }
}
