//! What becomes of certificates and keys that requesters change: kept in the state directory where that is possible.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spdm::responder::Event;
use spdm::slot::Slots;
use spdm::wire::CertificateModel;
use tdispd_proto::control::Happening;

use crate::config::Config;
use crate::key_pairs::{Generated, store};
use crate::state_dir::keep_chain;

const NO_DIRECTORY: &str = "there is no --state-dir";

/// Keeps changed slots.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: Option<PathBuf>,
    /// Slots whose files are the user's: they are not written to.
    foreign: Vec<u8>,
    /// The keys that requesters had made.
    generated: Arc<Generated>,
}

impl Keeper {
    pub(super) fn new(config: &Config, state_dir: Option<&Path>, generated: Arc<Generated>) -> Self {
        let foreign = config.spdm.slots.iter().filter(|slot| slot.chain.is_some()).map(|slot| slot.number);
        Self { directory: state_dir.map(Into::into), foreign: foreign.collect(), generated }
    }

    /// Follows one event, and says what is to be told of it; those of sessions, and who is at their other end, are not its
    /// business.
    pub(super) fn follow(&self, event: &Event, slots: &Slots) -> Option<Happening> {
        match event {
            Event::SlotChanged { slot } => Some(self.slot_changed(*slot, slots)),
            Event::KeyPairChanged { key_pair } => {
                let key_pair = *key_pair;
                Some(Happening::KeyPairChanged { key_pair, lost: self.keep_key_pairs(slots).err() })
            }
            Event::SessionEstablished { .. }
            | Event::RequesterAuthenticated { .. }
            | Event::RequesterDescribed { .. }
            | Event::SessionEnded { .. } => None,
        }
    }

    fn slot_changed(&self, slot: u8, slots: &Slots) -> Happening {
        let found = slots.existing().find(|(existing, _)| *existing == slot);
        let (certificates, model) = found.map_or((&[][..], CertificateModel::default()), |(_, slot)| {
            (slot.certificates.as_slice(), slot.model)
        });
        let lost = self.keep_slot(slot, certificates, model).err();
        Happening::SlotChanged { slot, erased: certificates.is_empty(), lost }
    }

    /// # Errors
    /// Why the next start will not have these certificates.
    fn keep_slot(&self, slot: u8, certificates: &[Vec<u8>], model: CertificateModel) -> Result<(), String> {
        let directory = self.directory.as_deref().ok_or(NO_DIRECTORY)?;
        if self.foreign.contains(&slot) {
            return Err("its files are those of the configuration".into());
        }
        keep_chain(directory, slot, certificates, model).map_err(|error| error.to_string())
    }

    /// # Errors
    /// Why the next start will not have these key pairs.
    fn keep_key_pairs(&self, slots: &Slots) -> Result<(), String> {
        let directory = self.directory.as_deref().ok_or(NO_DIRECTORY)?;
        store(directory, slots, &self.foreign, &self.generated).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdm::crypto::RingProvider;

    fn keeper(directory: Option<&Path>) -> Keeper {
        let generated = Arc::new(Generated::new(Box::new(RingProvider::new())));
        Keeper { directory: directory.map(Into::into), foreign: vec![5], generated }
    }

    /// Why changes of slots 3 and 5 and of key pair 2 are lost.
    fn lost(keeper: &Keeper) -> [Option<String>; 3] {
        let events = [
            Event::SlotChanged { slot: 3 },
            Event::SlotChanged { slot: 5 },
            Event::KeyPairChanged { key_pair: 2 },
        ];
        events.map(|event| match keeper.follow(&event, &Slots::default()) {
            Some(Happening::SlotChanged { slot: 3 | 5, erased: true, lost }) => lost,
            Some(Happening::KeyPairChanged { key_pair: 2, lost }) => lost,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_is_told_of_a_change_says_whether_it_lasts() {
        let none = || Some(NO_DIRECTORY.to_owned());
        assert_eq!(lost(&keeper(None)), [none(), none(), none()]);
        let directory = tempfile::tempdir().unwrap();
        let foreign = Some("its files are those of the configuration".to_owned());
        assert_eq!(lost(&keeper(Some(directory.path()))), [None, foreign.clone(), None]);
        let gone = directory.path().join("gone");
        let [slot, users, key_pair] = lost(&keeper(Some(&gone)));
        assert_eq!(users, foreign);
        for why in [slot, key_pair] {
            assert!(why.as_deref().is_some_and(|why| why.contains("gone")), "{why:?}");
        }
    }

    #[test]
    fn sessions_are_not_its_to_tell_of() {
        let event = Event::SessionEstablished { id: 1 };
        assert_eq!(keeper(None).follow(&event, &Slots::default()), None);
    }
}
