//! Keys of one IDE stream: two sets of six slots, which of them are in use, and who put them there.

use crate::SessionId;
use crate::wire::ide_km::{Direction, KeyMaterial, KeySet, KeySlot, SubStream};

/// A key and the session that carried it. The material wipes itself when the slot is emptied.
struct Programmed {
    material: KeyMaterial,
    session: SessionId,
}

/// What a direction and sub-stream hold: a key per set, and the set that K_SET_GO put to use.
#[derive(Default)]
struct Lane {
    sets: [Option<Programmed>; 2],
    in_use: Option<KeySet>,
}

/// All keys of one stream.
#[derive(Default)]
pub(super) struct StreamKeys {
    lanes: [Lane; 6],
}

/// The keys in use, judged as a whole (PCIe 6.1 §11.3.8 asks LOCK to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Not every sub-stream of both directions has a key in use.
    Incomplete,
    /// All six are in use, but of both sets: a key refresh is under way.
    Mixed,
    /// All six of one set are in use.
    Complete(KeySet),
}

fn lane_index(slot: KeySlot) -> usize {
    let sub_stream = match slot.sub_stream {
        SubStream::Posted => 0,
        SubStream::NonPosted => 1,
        SubStream::Completion => 2,
    };
    match slot.direction {
        Direction::Rx => sub_stream,
        Direction::Tx => 3 + sub_stream,
    }
}

/// A number for each of the twelve slots, from 0.
pub(super) fn slot_index(slot: KeySlot) -> usize {
    6 * set_index(slot.set) + lane_index(slot)
}

fn set_index(set: KeySet) -> usize {
    match set {
        KeySet::Zero => 0,
        KeySet::One => 1,
    }
}

impl StreamKeys {
    /// Puts a key into its slot. A slot whose key was in use is taken out of use: the new key waits for its
    /// own K_SET_GO. Returns whether that happened.
    pub(super) fn program(&mut self, slot: KeySlot, material: KeyMaterial, session: SessionId) -> bool {
        let Some(lane) = self.lanes.get_mut(lane_index(slot)) else { return false };
        if let Some(place) = lane.sets.get_mut(set_index(slot.set)) {
            *place = Some(Programmed { material, session });
        }
        lane.release(slot.set)
    }

    /// Puts a programmed key to use; false if the slot is empty.
    pub(super) fn go(&mut self, slot: KeySlot) -> bool {
        let Some(lane) = self.lanes.get_mut(lane_index(slot)) else { return false };
        if lane.get(slot.set).is_none() {
            return false;
        }
        lane.in_use = Some(slot.set);
        true
    }

    /// Empties a slot. Returns whether its key was in use.
    pub(super) fn stop(&mut self, slot: KeySlot) -> bool {
        let Some(lane) = self.lanes.get_mut(lane_index(slot)) else { return false };
        lane.clear(slot.set)
    }

    /// Empties every slot that `session` filled. Returns whether any was in use.
    pub(super) fn forget(&mut self, session: SessionId) -> bool {
        let mut in_use = false;
        for slot in KeySlot::all() {
            let Some(lane) = self.lanes.get_mut(lane_index(slot)) else { continue };
            if lane.get(slot.set).is_some_and(|key| key.session == session) {
                in_use |= lane.clear(slot.set);
            }
        }
        in_use
    }

    /// Empties every slot.
    pub(super) fn wipe(&mut self) {
        *self = Self::default();
    }

    /// The keys in use, as a whole.
    pub(super) fn state(&self) -> KeyState {
        let mut sets = self.lanes.iter().map(|lane| lane.in_use);
        let Some(Some(first)) = sets.next() else { return KeyState::Incomplete };
        sets.try_fold(KeyState::Complete(first), |state, set| match set {
            None => None,
            Some(set) if set == first => Some(state),
            Some(_) => Some(KeyState::Mixed),
        })
        .unwrap_or(KeyState::Incomplete)
    }

    /// Whether every key in use came through `session`.
    pub(super) fn all_from(&self, session: SessionId) -> bool {
        self.lanes.iter().filter_map(|lane| lane.get(lane.in_use?)).all(|key| key.session == session)
    }

    /// Number of slots that hold a key, of twelve.
    pub(super) fn programmed(&self) -> usize {
        self.lanes.iter().flat_map(|lane| lane.sets.iter()).flatten().count()
    }

    /// The key in a slot.
    pub(super) fn material(&self, slot: KeySlot) -> Option<&KeyMaterial> {
        Some(&self.lanes.get(lane_index(slot))?.get(slot.set)?.material)
    }
}

impl Lane {
    fn get(&self, set: KeySet) -> Option<&Programmed> {
        self.sets.get(set_index(set))?.as_ref()
    }

    fn clear(&mut self, set: KeySet) -> bool {
        if let Some(place) = self.sets.get_mut(set_index(set)) {
            *place = None;
        }
        self.release(set)
    }

    fn release(&mut self, set: KeySet) -> bool {
        let was_in_use = self.in_use == Some(set);
        if was_in_use {
            self.in_use = None;
        }
        was_in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = 0x10;

    fn key(byte: u8) -> KeyMaterial {
        KeyMaterial::new([byte; 32])
    }

    fn fill(keys: &mut StreamKeys, set: KeySet) {
        for slot in KeySlot::of_set(set) {
            assert!(!keys.program(slot, key(1), SESSION));
            assert!(keys.go(slot));
        }
    }

    #[test]
    fn complete_only_with_the_sixth() {
        let mut keys = StreamKeys::default();
        for (count, slot) in KeySlot::of_set(KeySet::One).enumerate() {
            assert_eq!(keys.state(), KeyState::Incomplete, "{count} keys");
            assert!(!keys.go(slot), "nothing programmed yet");
            keys.program(slot, key(2), SESSION);
            assert!(keys.go(slot));
        }
        assert_eq!(keys.state(), KeyState::Complete(KeySet::One));
        assert_eq!(keys.programmed(), 6);
    }

    #[test]
    fn a_refresh_is_mixed_until_its_last_go() {
        let mut keys = StreamKeys::default();
        fill(&mut keys, KeySet::Zero);
        for slot in KeySlot::of_set(KeySet::One) {
            assert!(!keys.program(slot, key(2), SESSION), "the other set is in use");
        }
        for (count, slot) in KeySlot::of_set(KeySet::One).enumerate() {
            let expected = if count == 0 { KeyState::Complete(KeySet::Zero) } else { KeyState::Mixed };
            assert_eq!(keys.state(), expected);
            assert!(keys.go(slot));
        }
        assert_eq!(keys.state(), KeyState::Complete(KeySet::One));
        for slot in KeySlot::of_set(KeySet::Zero) {
            assert!(!keys.stop(slot), "the old set is no longer in use");
        }
        assert_eq!(keys.state(), KeyState::Complete(KeySet::One));
    }

    #[test]
    fn programming_over_a_key_in_use_takes_it_out_of_use() {
        let mut keys = StreamKeys::default();
        fill(&mut keys, KeySet::Zero);
        let slot = KeySlot { set: KeySet::Zero, direction: Direction::Tx, sub_stream: SubStream::Completion };
        assert!(keys.program(slot, key(9), SESSION));
        assert_eq!(keys.state(), KeyState::Incomplete);
        assert_eq!(keys.material(slot).unwrap().key, [9; 32]);
    }

    #[test]
    fn a_session_takes_only_its_own_keys_along() {
        let mut keys = StreamKeys::default();
        fill(&mut keys, KeySet::Zero);
        let slot = KeySlot { set: KeySet::One, direction: Direction::Rx, sub_stream: SubStream::Posted };
        keys.program(slot, key(3), SESSION + 1);
        assert!(keys.all_from(SESSION), "a key that is not in use does not count");
        assert!(!keys.forget(SESSION + 1));
        assert_eq!(keys.programmed(), 6);
        assert!(keys.forget(SESSION));
        assert_eq!((keys.programmed(), keys.state()), (0, KeyState::Incomplete));
    }
}
