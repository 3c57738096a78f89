//! What becomes of certificates and keys that requesters change: kept in the state directory where that is possible.

use std::path::{Path, PathBuf};

use spdm::responder::Event;
use spdm::slot::Slots;
use spdm::wire::CertificateModel;

use crate::config::Config;
use crate::state_dir::keep_chain;

/// Keeps changed slots.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: Option<PathBuf>,
    /// Slots whose files are the user's: they are not written to.
    foreign: Vec<u8>,
}

impl Keeper {
    pub(super) fn new(config: &Config, state_dir: Option<&Path>) -> Self {
        let foreign = config.spdm.slots.iter().filter(|slot| slot.chain.is_some()).map(|slot| slot.number);
        Self { directory: state_dir.map(Into::into), foreign: foreign.collect() }
    }

    /// Follows one event; those of sessions, and who is at their other end, are not its business.
    pub(super) fn follow(&self, event: &Event, slots: &Slots) {
        match event {
            Event::SlotChanged { slot } => self.slot_changed(*slot, slots),
            Event::KeyPairChanged { key_pair } => {
                log::warn!(
                    "SPDM key pair {key_pair} was changed; at the next start it is what it was at this one"
                );
            }
            Event::SessionEstablished { .. }
            | Event::RequesterAuthenticated { .. }
            | Event::SessionEnded { .. } => {}
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
