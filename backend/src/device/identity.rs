//! The slots and keys that a device is known by: from the user's files, from the state directory, or made now.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use spdm::crypto::{AsymAlgorithm, PrivateKey, Provider, Signer};
use spdm::identity::Material;
use spdm::slot::{KeyGenerator, KeyPair, Slot, Slots};
use spdm::wire::{KeyPairCapabilities, KeyUsage};
use zeroize::Zeroizing;

use super::build::BuildError;
use super::responder::{pci_name, provider};
use crate::config::{self, Config, ConfigError};
use crate::key_pairs::{self, CHANGEABLE, Generated, Kept, KeptKey};
use crate::state_dir::{self, Wanted};

/// The key of a key pair that was kept, as what it is used for.
type Key = (PrivateKey, AsymAlgorithm, Arc<dyn Signer>);

/// The certificate slots of the device that `config` describes.
///
/// # Errors
/// A file, the state directory, or an algorithm that this build has no keys for.
pub fn slots(config: &Config, state_dir: Option<&Path>) -> Result<Slots, BuildError> {
    Ok(identity(config, state_dir)?.0)
}

/// The slots and key pairs, and the keys among them that requesters had made. The n-th slot of the configuration was made
/// with key pair n.
pub(super) fn identity(
    config: &Config,
    state_dir: Option<&Path>,
) -> Result<(Slots, Arc<Generated>), BuildError> {
    let provider = provider(config.spdm.provider)?;
    let provider = provider.as_ref();
    // Without any [[spdm.slot]] there is one.
    let one = [config::Slot::default()];
    let configured = if config.spdm.slots.is_empty() { &one[..] } else { &config.spdm.slots };
    let numbered = || (1_u8..).zip(configured);
    let made =
        numbered().filter(|(_, slot)| slot.chain.is_none()).map(|(id, slot)| (id, slot.number)).collect();
    let kept = match state_dir {
        Some(directory) => key_pairs::load(directory, &made, provider)?,
        None => None,
    };
    let mut keys = BTreeMap::new();
    for (id, kept) in kept.iter().flatten() {
        let slot = numbered().find(|(number, _)| number == id).map(|(_, slot)| slot);
        if let Some(key) = kept_key(state_dir, slot, &kept.key, provider)? {
            keys.insert(*id, key);
        }
    }

    let generated = Arc::new(Generated::new(super::responder::provider(config.spdm.provider)?));
    let generator: Arc<dyn KeyGenerator> = Arc::<Generated>::clone(&generated);
    let mut slots = Slots { generator: Some(generator), ..Slots::default() };
    let settable = config.spdm.capabilities.is_some_and(|switches| switches.provisioning.set_key_pair_info);
    for (place, (id, configured)) in numbered().enumerate() {
        let found = match (&configured.chain, &configured.private_key) {
            (Some(chain), Some(key)) => {
                let found = load(place, provider, chain, key, configured)?;
                Slot { model: configured.model, key_pair: id, ..found }
            }
            _ => kept_slot(config, state_dir, id, configured, kept.as_ref(), &keys, provider)?,
        };
        let pair = match kept.as_ref().and_then(|kept| kept.get(&id)) {
            Some(kept) => KeyPair {
                key: keys.get(&id).map(|(_, _, signer)| Arc::clone(signer)),
                capabilities: KeyPairCapabilities::default(),
                usage_capabilities: KeyUsage::ALL,
                usage: kept.usage,
                algorithms: keys.get(&id).map(|(_, algorithm, _)| *algorithm).into_iter().collect(),
            },
            None => KeyPair::fixed(Arc::clone(&found.key), found.usage),
        };
        slots.key_pairs.push(match configured.chain {
            None if settable => {
                KeyPair { capabilities: CHANGEABLE, algorithms: key_pairs::algorithms(provider), ..pair }
            }
            Some(_) | None => pair,
        });
        if let Some(slot) = slots.slots.get_mut(usize::from(configured.number)) {
            *slot = Some(found);
        }
    }
    for (id, (key, ..)) in keys {
        if matches!(
            kept.as_ref().and_then(|kept| kept.get(&id)),
            Some(Kept { key: KeptKey::Generated(..), .. })
        ) {
            generated.insert(id, key);
        }
    }
    Ok((slots, generated))
}

/// The key of a key pair that was kept.
fn kept_key(
    state_dir: Option<&Path>,
    slot: Option<&config::Slot>,
    kept: &KeptKey,
    provider: &dyn Provider,
) -> Result<Option<Key>, BuildError> {
    Ok(match (kept, state_dir, slot) {
        (KeptKey::Generated(algorithm, key), ..) => {
            let signer =
                key.signer(provider, *algorithm).map_err(|error| ConfigError::value("spdm.slot", error))?;
            Some((key.clone(), *algorithm, signer))
        }
        (KeptKey::First, Some(directory), Some(slot)) => {
            let (key, signer) = state_dir::first_key(directory, slot.number, slot.algorithm(), provider)?;
            Some((key, slot.algorithm(), signer))
        }
        (KeptKey::First | KeptKey::Erased, ..) => None,
    })
}

/// A slot that is made here, with the key of the key pair that has it.
fn kept_slot(
    config: &Config,
    state_dir: Option<&Path>,
    id: u8,
    configured: &config::Slot,
    kept: Option<&BTreeMap<u8, Kept>>,
    keys: &BTreeMap<u8, Key>,
    provider: &dyn Provider,
) -> Result<Slot, BuildError> {
    // Nothing was ever changed: every slot has the key that it was made with.
    let owner = match kept {
        None => Some(id),
        Some(kept) => {
            let owner = kept.iter().find(|(_, pair)| pair.slots.contains(&configured.number));
            owner.map(|(id, _)| *id)
        }
    };
    let key = owner.and_then(|owner| keys.get(&owner));
    let wanted = Wanted {
        provider,
        number: configured.number,
        name: &pci_name(config),
        algorithm: configured.algorithm(),
        empty: configured.empty,
        model: configured.model,
        key: key.map(|(key, algorithm, _)| (key, *algorithm)),
    };
    let slot = state_dir::slot(state_dir, &wanted)?;
    let usage = owner.and_then(|owner| kept?.get(&owner)).map_or(slot.usage, |pair| pair.usage);
    Ok(Slot {
        key: key.map_or_else(|| Arc::clone(&slot.key), |(_, _, signer)| Arc::clone(signer)),
        key_pair: owner.unwrap_or(0),
        usage,
        ..slot
    })
}

fn load(
    place: usize,
    provider: &dyn Provider,
    chain: &Path,
    key: &Path,
    configured: &config::Slot,
) -> Result<Slot, ConfigError> {
    let read = |name: &str, path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| {
            ConfigError::value(format!("spdm.slot[{place}].{name}"), format!("{}: {error}", path.display()))
        })
    };
    let (chain_bytes, key_bytes) = (read("chain", chain)?, read("private_key", key)?);
    let loaded =
        Material::load(&chain_bytes, &key_bytes, configured.key).and_then(|loaded| loaded.by(provider));
    let loaded = loaded.map_err(|error| {
        let files = format!("{} and {}: {error}", chain.display(), key.display());
        ConfigError::value(format!("spdm.slot[{place}]"), files)
    })?;
    let Some(path) = &configured.authority_key else { return Ok(loaded.slot()) };
    let authority = read("authority_key", path)?;
    loaded.with_authority(&authority, provider).map(|material| material.slot()).map_err(|error| {
        let file = format!("{}: {error}", path.display());
        ConfigError::value(format!("spdm.slot[{place}].authority_key"), file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderKind;
    use spdm::crypto::HashAlgorithm;

    /// A signer of `ring` is known by what it cannot do: sign with a curve and another curve's hash.
    #[test]
    fn the_configured_library_signs() {
        let directory = tempfile::tempdir().unwrap();
        let key = Some(AsymAlgorithm::EcdsaP256);
        let made = config::Slot { key, ..config::Slot::default() };
        let file = |kind: &str| Some(directory.path().join(format!("slot0.{kind}.pem")));
        let (chain, private_key) = (file("chain"), file("key"));
        let read = config::Slot { number: 1, key: None, chain, private_key, ..config::Slot::default() };
        let mut config = Config::default();
        config.spdm.provider = ProviderKind::Ring;
        config.spdm.slots = vec![made, read];
        let is_ring = |config: &Config| {
            let slots = slots(config, Some(directory.path())).unwrap();
            [0, 1].map(|number| !slots.get(number).unwrap().key.supports(HashAlgorithm::Sha384))
        };
        for _made_and_restored in 0..2 {
            assert_eq!(is_ring(&config), [true; 2]);
        }
        config.spdm.provider = ProviderKind::AwsLc;
        if cfg!(feature = "aws-lc") {
            assert_eq!(is_ring(&config), [false; 2]);
        } else {
            let error = slots(&config, None).unwrap_err().to_string();
            assert!(error.contains("--features aws-lc"), "{error}");
        }
    }
}
