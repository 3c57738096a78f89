//! Whether requests may reach guest memory now. The transport turns it by the state of its TDI; runners ask it before
//! each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GateState {
    /// They are carried out.
    #[default]
    Open = 0,
    /// They stay in the ring, which is not even looked at: no DMA of any kind.
    Hold = 1,
    /// They are taken and completed with IOERR. That writes status and used ring: DMA, but none of data.
    Fail = 2,
}

/// A gate that any number of runners share.
///
/// Turning it is not yet quiet: a request that was let in before may still be at work. [`Gate::outstanding`] tells;
/// once it is 0 after the turn, no byte of guest memory is touched any more.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    inside: AtomicUsize,
}

impl Gate {
    /// A gate in this state.
    #[must_use]
    pub fn new(state: GateState) -> Self {
        Self { state: AtomicU8::new(state as u8), inside: AtomicUsize::new(0) }
    }

    /// What becomes of requests now.
    #[must_use]
    pub fn state(&self) -> GateState {
        match self.state.load(Ordering::SeqCst) {
            0 => GateState::Open,
            2 => GateState::Fail,
            _ => GateState::Hold,
        }
    }

    /// Turns the gate. Whoever opened it kicks the runners: they wait for a notification.
    pub fn set(&self, state: GateState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Requests, and rounds of runners through their rings, that were let in and are still at work.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Lets somebody in, to carry requests out or, with [`GateState::Fail`], to fail them. `None`: they have to wait.
    pub fn enter(&self) -> Option<(Pass<'_>, GateState)> {
        let pass = Pass::new(self);
        // In this order: whoever turns the gate and then sees nobody inside is right.
        match self.state() {
            GateState::Hold => None,
            state @ (GateState::Open | GateState::Fail) => Some((pass, state)),
        }
    }

    /// One more beside somebody who is inside already, whatever the state.
    pub(crate) fn beside(&self) -> Pass<'_> {
        Pass::new(self)
    }
}

/// Somebody who is inside; it is out when this is dropped.
#[derive(Debug)]
pub struct Pass<'a>(&'a Gate);

impl<'a> Pass<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.inside.fetch_add(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// As [`Pass`], for who is inside for longer than a call.
#[derive(Debug)]
pub(crate) struct OwnedPass(Arc<Gate>);

impl OwnedPass {
    /// Another one for somebody who is inside already.
    pub(crate) fn beside(gate: &Arc<Gate>) -> Self {
        gate.inside.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(gate))
    }
}

impl Drop for OwnedPass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_is_counted_and_a_held_request_is_not() {
        let gate = Gate::default();
        let inside = gate.enter();
        assert_eq!(inside.as_ref().map(|(_, state)| *state), Some(GateState::Open));
        gate.set(GateState::Hold);
        assert!(gate.enter().is_none());
        assert_eq!(gate.outstanding(), 1, "what was let in is still at work");
        drop(inside);
        assert_eq!(gate.outstanding(), 0);
        gate.set(GateState::Fail);
        assert_eq!(gate.enter().map(|(_, state)| state), Some(GateState::Fail));
        assert_eq!(gate.state(), GateState::Fail);
    }
}
