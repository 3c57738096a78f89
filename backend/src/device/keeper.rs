//! What becomes of certificates and keys that requesters change: kept in the state directory where that is possible.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spdm::responder::Event;
use spdm::slot::Slots;
use spdm::wire::CertificateModel;

use crate::config::Config;
use crate::key_pairs::{Generated, store};
use crate::state_dir::keep_chain;

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

    /// Follows one event; those of sessions, and who is at their other end, are not its business.
    pub(super) fn follow(&self, event: &Event, slots: &Slots) {
        match event {
            Event::SlotChanged { slot } => self.slot_changed(*slot, slots),
            Event::KeyPairChanged { key_pair } => self.key_pair_changed(*key_pair, slots),
            Event::SessionEstablished { .. }
            | Event::RequesterAuthenticated { .. }
            | Event::RequesterDescribed { .. }
            | Event::SessionEnded { .. } => {}
        }
    }

    fn key_pair_changed(&self, id: u8, slots: &Slots) {
        let Some(directory) = &self.directory else {
            return log::warn!(
                "SPDM key pair {id} was changed until the next start: there is no --state-dir"
            );
        };
        match store(directory, slots, &self.foreign, &self.generated) {
            Ok(()) => log::info!("SPDM key pair {id} was changed"),
            Err(error) => log::error!("SPDM key pair {id} was changed, but not kept: {error}"),
        }
    }

    fn slot_changed(&self, number: u8, slots: &Slots) {
        let found = slots.existing().find(|(existing, _)| *existing == number);
        let (certificates, model) = found.map_or((&[][..], CertificateModel::default()), |(_, slot)| {
            (slot.certificates.as_slice(), slot.model)
        });
        let what = if certificates.is_empty() { "erased" } else { "written" };
        let lost = match &self.directory {
            None => "there is no --state-dir",
            Some(_) if self.foreign.contains(&number) => "its files are those of the configuration",
            Some(directory) => match keep_chain(directory, number, certificates, model) {
                Ok(()) => {
                    log::info!("SPDM certificate slot {number} was {what}");
                    return;
                }
                Err(error) => {
                    log::error!("SPDM certificate slot {number} was {what}, but not kept: {error}");
                    return;
                }
            },
        };
        log::warn!("SPDM certificate slot {number} was {what} until the next start: {lost}");
    }
}
