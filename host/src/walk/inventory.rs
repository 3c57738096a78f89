//! What a responder tells about itself beside its identity: endpoint information, the measurement extension log, key pairs,
//! Banks of certificate slots.

use spdm::requester::{
    BankReport, BankSlot, ConnectionInfo, EndpointReport, KeyPairReport, MeasurementLogReport,
};
use spdm::wire::{KeyPairAlgorithms, ResponderExtendedFlags, ResponderFlags, Version};

use super::link::failed;
use super::{Seen, Walk};
use crate::error::Result;
use crate::output::record::{Fact, Layer};
use crate::output::{Item, hex};

impl Walk {
    /// Asks for what the responder offers of it, and shows that.
    pub(super) fn show_inventory(&mut self, info: &ConnectionInfo) -> Result<()> {
        let has = |flag| info.version >= Version::V1_3 && info.capabilities.has(flag);
        if has(ResponderFlags::EP_INFO_NO_SIG) || has(ResponderFlags::EP_INFO_SIG) {
            let signed_by = has(ResponderFlags::EP_INFO_SIG).then_some(self.options.slot);
            let report = self.step(Layer::Spdm, "ENDPOINT_INFO", "what the device is", |walk| {
                let report = walk.spdm()?.endpoint_info(signed_by).map_err(failed)?;
                let signed = if report.signed { "signature verified" } else { "not signed" };
                Ok(Seen::good(report.clone(), format!("{} identifiers, {signed}", report.classes.len())))
            })?;
            self.output.tell(&Item::Facts("endpoint", &endpoint_facts(&report)));
        }
        if info.algorithms.measurement_log {
            let log = self.step(Layer::Spdm, "MEASUREMENT_EXTENSION_LOG", "all of it", |walk| {
                let log = walk.spdm()?.measurement_log().map_err(failed)?;
                Ok(Seen::good(log.clone(), format!("{} entries", log.entries.len())))
            })?;
            self.output.tell(&Item::Facts("measurement log", &log_facts(&log)));
        }
        if has(ResponderFlags::GET_KEY_PAIR_INFO) {
            let pairs = self.step(Layer::Spdm, "KEY_PAIR_INFO", "every key pair", |walk| {
                let mut pairs = vec![walk.spdm()?.key_pair(1).map_err(failed)?];
                for id in 2..=pairs.first().map_or(0, |pair| pair.total) {
                    pairs.push(walk.spdm()?.key_pair(id).map_err(failed)?);
                }
                let text = format!("{} key pairs", pairs.len());
                Ok(Seen::good(pairs, text))
            })?;
            self.output.tell(&Item::Facts("key pairs", &key_pair_facts(&pairs)));
        }
        if info.extended_capabilities.of(info.version).has(ResponderExtendedFlags::SLOT_MGMT) {
            self.show_banks()?;
        }
        Ok(())
    }

    fn show_banks(&mut self) -> Result<()> {
        let banks = self.step(Layer::Spdm, "SLOT_MANAGEMENT", "every Bank", |walk| {
            let mut banks = Vec::new();
            for element in walk.spdm()?.banks().map_err(failed)? {
                banks.push((element.bank, walk.spdm()?.bank(element.bank).map_err(failed)?));
            }
            let text = format!("{} Banks", banks.len());
            Ok(Seen::good(banks, text))
        })?;
        self.output.tell(&Item::Facts("banks", &bank_facts(&banks)));
        Ok(())
    }
}

fn endpoint_facts(report: &EndpointReport) -> Vec<Fact> {
    let fact = |(place, class): (usize, &spdm::wire::DeviceClass)| {
        let parts: Vec<_> = class.subordinates.iter().map(|part| hex(part)).collect();
        let text =
            format!("registry {}, vendor {}: {}", class.registry, hex(&class.vendor_id), parts.join(" "));
        (format!("identifier {place}"), text)
    };
    report.classes.iter().enumerate().map(fact).collect()
}

fn log_facts(log: &MeasurementLogReport) -> Vec<Fact> {
    log.entries
        .iter()
        .map(|entry| {
            let name = format!("entry {}, index {}", entry.number, entry.measurement.index);
            let form = if entry.measurement.raw { "raw " } else { "" };
            (name, format!("{form}{}", hex(&entry.measurement.value)))
        })
        .collect()
}

fn key_pair_facts(pairs: &[KeyPairReport]) -> Vec<Fact> {
    let fact = |(id, pair): (usize, &KeyPairReport)| {
        let slots: Vec<_> =
            (0..8).filter(|slot| pair.slots >> slot & 1 == 1).map(|slot: u8| slot.to_string()).collect();
        let slots = if slots.is_empty() { "no slot".into() } else { format!("slots {}", slots.join(" ")) };
        let text = format!(
            "{}, {slots}, usage {:#06x} of {:#06x}, can change {:#06x}",
            algorithm(pair.algorithm),
            pair.usage.0,
            pair.usage_capabilities.0,
            pair.capabilities.0
        );
        (format!("{id}"), text)
    };
    (1..).zip(pairs).map(fact).collect()
}

/// A Bank, then its slots.
fn bank_facts(banks: &[(u8, BankReport)]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (id, bank) in banks {
        let mut text = algorithm(bank.current);
        if bank.selected {
            text += ", selected";
        }
        if bank.configurable {
            text += &format!(", can have {}", algorithms(bank.available));
        }
        facts.push((format!("bank {id}"), text));
        facts
            .extend(bank.slots.iter().map(|slot| (format!("bank {id} slot {}", slot.slot), slot_text(slot))));
    }
    facts
}

fn slot_text(slot: &BankSlot) -> String {
    let mut text = slot.digest.as_ref().map_or_else(|| "empty".into(), |digest| hex(digest));
    if slot.key_pair != 0 {
        text += &format!(", key pair {}", slot.key_pair);
    }
    if let Some(model) = slot.model {
        text += &format!(", {}", model.name());
    }
    if slot.write_protected {
        text += ", write-protected";
    }
    format!("{text}, usage {:#06x}, room for {} bytes", slot.usage.0, slot.size)
}

/// Each algorithm by its name.
fn algorithms(of: KeyPairAlgorithms) -> String {
    let mut names: Vec<String> = Vec::new();
    for one in spdm::crypto::AsymAlgorithm::ALL.iter().map(|one| KeyPairAlgorithms::of(*one)) {
        let name = algorithm(one);
        // RSA has one bit for two of them.
        if of.has(one) && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" or ")
}

/// The algorithm by its name; RSA is told apart by its size alone.
fn algorithm(of: KeyPairAlgorithms) -> String {
    if of.count() == 0 {
        return "no key".into();
    }
    let found = spdm::crypto::AsymAlgorithm::ALL.iter().find(|one| KeyPairAlgorithms::of(**one) == of);
    found.map_or_else(|| format!("algorithm {of:?}"), ToString::to_string)
}
