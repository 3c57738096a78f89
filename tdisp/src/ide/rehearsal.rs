//! What a session has shown that it can do with the keys of a stream: which slots it filled, started and stopped again.
//! Kept apart from the keys, because it outlives them.

use crate::SessionId;
use crate::wire::ide_km::KeySlot;

use super::keys::slot_index;

/// How far a slot has come since its last KEY_PROG.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Programmed,
    Started,
    Stopped,
}

/// The record of one stream and of the last session that programmed a key of it.
#[derive(Default)]
pub(super) struct Rehearsal {
    session: Option<SessionId>,
    steps: [Option<Step>; 12],
}

impl Rehearsal {
    /// KEY_PROG filled a slot.
    pub(super) fn programmed(&mut self, slot: KeySlot, session: SessionId) {
        if self.session != Some(session) {
            *self = Self { session: Some(session), ..Self::default() };
        }
        self.set(slot, Step::Programmed);
    }

    /// K_SET_GO put the key in a slot to use.
    pub(super) fn started(&mut self, slot: KeySlot) {
        self.set(slot, Step::Started);
    }

    /// K_SET_STOP for a slot. A key that was never started has not been rehearsed by stopping it.
    pub(super) fn stopped(&mut self, slot: KeySlot) {
        if self.get(slot) == Some(Step::Started) {
            self.set(slot, Step::Stopped);
        }
    }

    /// Whether `session` programmed a key, and started and stopped every one that it did.
    pub(super) fn complete(&self, session: SessionId) -> bool {
        let mut steps = self.steps.iter().flatten().peekable();
        self.session == Some(session) && steps.peek().is_some() && steps.all(|step| *step == Step::Stopped)
    }

    /// The session is over, and what it showed with it.
    pub(super) fn forget(&mut self, session: SessionId) {
        if self.session == Some(session) {
            *self = Self::default();
        }
    }

    fn get(&self, slot: KeySlot) -> Option<Step> {
        self.steps.get(slot_index(slot)).copied().flatten()
    }

    fn set(&mut self, slot: KeySlot, step: Step) {
        if let Some(place) = self.steps.get_mut(slot_index(slot)) {
            *place = Some(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = 0x10;
    const OTHER: SessionId = 0x20;

    fn slots() -> Vec<KeySlot> {
        KeySlot::all().collect()
    }

    #[test]
    fn a_slot_counts_once_it_was_programmed_started_and_stopped() {
        type Act = fn(&mut Rehearsal, KeySlot);
        let program: Act = |rehearsal, slot| rehearsal.programmed(slot, SESSION);
        let (start, stop): (Act, Act) = (Rehearsal::started, Rehearsal::stopped);
        for (acts, complete) in [
            (&[][..], false),
            (&[program], false),
            (&[program, start], false),
            (&[program, stop], false),
            (&[program, start, stop], true),
            (&[program, start, stop, stop], true),
            (&[program, start, stop, program], false),
            (&[program, start, program, stop], false),
            (&[program, start, stop, program, start, stop], true),
            (&[stop], false),
        ] {
            for slot in slots() {
                let mut rehearsal = Rehearsal::default();
                for act in acts {
                    act(&mut rehearsal, slot);
                }
                assert_eq!(rehearsal.complete(SESSION), complete, "{} acts, {slot:?}", acts.len());
                assert!(!rehearsal.complete(OTHER));
            }
        }
    }

    #[test]
    fn every_slot_has_a_record_of_its_own() {
        let mut rehearsal = Rehearsal::default();
        for slot in slots() {
            rehearsal.programmed(slot, SESSION);
            rehearsal.started(slot);
        }
        for slot in slots() {
            assert!(!rehearsal.complete(SESSION));
            rehearsal.stopped(slot);
        }
        assert!(rehearsal.complete(SESSION));
    }

    #[test]
    fn another_session_starts_from_nothing() {
        let [one, two, ..] = slots()[..] else { panic!("twelve slots") };
        let mut rehearsal = Rehearsal::default();
        rehearsal.programmed(one, SESSION);
        rehearsal.started(one);
        rehearsal.stopped(one);
        rehearsal.forget(OTHER);
        assert!(rehearsal.complete(SESSION));
        rehearsal.programmed(two, OTHER);
        assert!(!rehearsal.complete(SESSION) && !rehearsal.complete(OTHER));
        rehearsal.started(two);
        rehearsal.stopped(two);
        assert!(!rehearsal.complete(SESSION) && rehearsal.complete(OTHER));
        rehearsal.forget(OTHER);
        assert!(!rehearsal.complete(OTHER));
    }
}
