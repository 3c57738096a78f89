//! Key pairs that requesters may change: where their private keys are, and what the state directory keeps of them.
//!
//! Everything that SET_KEY_PAIR_INFO changed is in one file, so that it is there as a whole or not at all. A key pair that
//! still has the key it was made with has it in the file of its slot, where it stays, unused, when it is erased.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spdm::crypto::{AsymAlgorithm, CryptoError, PrivateKey, Provider, Signer};
use spdm::slot::{KeyGenerator, KeyPair, Slots};
use spdm::wire::{KeyPairCapabilities, KeyUsage};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::state_dir::{StateError, parse_key, read, write};

/// What can be changed about a key pair that was made here.
pub const CHANGEABLE: KeyPairCapabilities = KeyPairCapabilities(
    KeyPairCapabilities::GENERATE.0
        | KeyPairCapabilities::ERASE.0
        | KeyPairCapabilities::ASSOCIATE.0
        | KeyPairCapabilities::USAGE.0
        | KeyPairCapabilities::ALGORITHM.0
        | KeyPairCapabilities::SHARE.0,
);

/// The keys that were generated for requesters, by key pair. Signers do not give their private keys away, so they are kept
/// here until they are written.
pub struct Generated {
    provider: Mutex<Box<dyn Provider>>,
    keys: Mutex<BTreeMap<u8, PrivateKey>>,
}

impl Generated {
    /// None yet; `provider` will make them and sign with them.
    pub fn new(provider: Box<dyn Provider>) -> Self {
        Self { provider: Mutex::new(provider), keys: Mutex::default() }
    }

    /// A key that was generated for a key pair.
    pub fn insert(&self, key_pair: u8, key: PrivateKey) {
        self.keys().insert(key_pair, key);
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<u8, PrivateKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl core::fmt::Debug for Generated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Generated").field(&self.keys().keys()).finish()
    }
}

impl KeyGenerator for Generated {
    fn generate(&self, key_pair: u8, algorithm: AsymAlgorithm) -> Result<Arc<dyn Signer>, CryptoError> {
        let provider = self.provider.lock().unwrap_or_else(PoisonError::into_inner);
        let key = PrivateKey::generate(provider.as_ref(), algorithm)?;
        let signer = key.signer(provider.as_ref(), algorithm)?;
        self.insert(key_pair, key);
        Ok(signer)
    }
}

/// Algorithms that `provider` can generate keys for.
pub fn algorithms(provider: &dyn Provider) -> Vec<AsymAlgorithm> {
    let makes = |algorithm: &AsymAlgorithm| PrivateKey::generate(provider, *algorithm).is_ok();
    AsymAlgorithm::ALL.iter().copied().filter(makes).collect()
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "key_pair", default)]
    key_pairs: Vec<Entry>,
}

/// One key pair in the file.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// `KeyPairID`.
    id: u8,
    /// Uses, as KEY_PAIR_INFO has them.
    usage: u16,
    /// Slots that have its key.
    slots: Vec<u8>,
    /// `first`, the key it was made with; `none` if that was erased; or a generated one, in PEM.
    key: String,
    /// Algorithm of a generated key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[zeroize(skip)]
    algorithm: Option<AsymAlgorithm>,
}

const FIRST: &str = "first";
const NONE: &str = "none";

fn path(directory: &Path) -> PathBuf {
    directory.join("key-pairs.toml")
}

/// A key pair as it was kept.
#[derive(Debug)]
pub struct Kept {
    /// Uses.
    pub usage: KeyUsage,
    /// Slots that have its key.
    pub slots: Vec<u8>,
    /// Where the key is.
    pub key: KeptKey,
}

/// The key of a key pair that was kept.
#[derive(Debug)]
pub enum KeptKey {
    /// In the file of the slot that it was made for.
    First,
    /// Nowhere.
    Erased,
    /// Here.
    Generated(AsymAlgorithm, PrivateKey),
}

/// What is kept in `directory` about key pairs, by id; nothing if none was ever changed. `made` are the key pairs whose keys
/// are made here, by their ids, with their slots.
///
/// # Errors
/// [`StateError::KeyPairs`] for a file that does not fit them, or says nothing.
pub fn load(
    directory: &Path,
    made: &BTreeMap<u8, u8>,
    provider: &dyn Provider,
) -> Result<Option<BTreeMap<u8, Kept>>, StateError> {
    let path = path(directory);
    let Some(text) = read(&path)?.map(Zeroizing::new) else { return Ok(None) };
    let failed = |problem: String| StateError::KeyPairs { path: path.clone(), problem };
    let text = std::str::from_utf8(&text).map_err(|error| failed(error.to_string()))?;
    // Without what the parser shows of the text, which has keys in it.
    let file: File = toml::from_str(text).map_err(|error| failed(error.message().to_owned()))?;
    let mut kept = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for entry in &file.key_pairs {
        let id = entry.id;
        if !made.contains_key(&id) || kept.contains_key(&id) {
            return Err(failed(format!("key pair {id} is there twice, or is none that is made here")));
        }
        for slot in &entry.slots {
            if !made.values().any(|made| made == slot) || !seen.insert(*slot) {
                return Err(failed(format!(
                    "slot {slot} is there twice, or has a key that is not made here"
                )));
            }
        }
        let key = match (entry.key.as_str(), entry.algorithm) {
            (FIRST, None) => KeptKey::First,
            (NONE, None) if entry.slots.is_empty() => KeptKey::Erased,
            (NONE, None) => return Err(failed(format!("key pair {id} has slots, and no key"))),
            (pem, Some(algorithm)) => {
                let key = parse_key(pem.as_bytes()).filter(|key| key.signer(provider, algorithm).is_ok());
                KeptKey::Generated(
                    algorithm,
                    key.ok_or_else(|| failed(format!("the key of key pair {id} is no {algorithm} key")))?,
                )
            }
            (_, None) => return Err(failed(format!("the key of key pair {id} has no algorithm"))),
        };
        kept.insert(id, Kept { usage: KeyUsage(entry.usage), slots: entry.slots.clone(), key });
    }
    match made.keys().find(|id| !kept.contains_key(id)) {
        Some(missing) => Err(failed(format!("key pair {missing} is missing"))),
        None => Ok(Some(kept)),
    }
}

/// Keeps the key pairs of `slots` as they are now. `foreign` slots are the user's, and will be as their files say.
///
/// # Errors
/// [`StateError`] if that cannot be written.
pub fn store(
    directory: &Path,
    slots: &Slots,
    foreign: &[u8],
    generated: &Generated,
) -> Result<(), StateError> {
    let path = path(directory);
    let keys = generated.keys();
    let changeable = (1_u8..).zip(&slots.key_pairs).filter(|(_, pair)| pair.capabilities == CHANGEABLE);
    let entry = |(id, pair): (u8, &KeyPair)| {
        let (key, algorithm) = match (&pair.key, keys.get(&id)) {
            (None, _) => (NONE.to_owned(), None),
            (Some(_), None) => (FIRST.to_owned(), None),
            (Some(signer), Some(key)) => {
                (pem::encode(&pem::Pem::new("PRIVATE KEY", key.pkcs8())), Some(signer.algorithm()))
            }
        };
        let mask = slots.associated(id);
        let slots = (0..8).filter(|slot| mask >> slot & 1 == 1 && !foreign.contains(slot)).collect();
        Entry { id, usage: pair.usage.0, slots, key, algorithm }
    };
    let file = File { key_pairs: changeable.map(entry).collect() };
    let text = toml::to_string(&file)
        .map(Zeroizing::new)
        .map_err(|error| StateError::KeyPairs { path: path.clone(), problem: error.to_string() })?;
    write(&path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdm::crypto::RingProvider;
    use spdm::slot::Slot;
    use std::os::unix::fs::PermissionsExt;

    /// Slots 0 and 3 with key pairs 1 and 2, both changeable, and slot 5 with key pair 3 of the user's.
    fn slots(generated: &Generated) -> Slots {
        let mut slots = Slots::default();
        for (id, number) in [(1, 0), (2, 3), (3, 5)] {
            let key = PrivateKey::generate(&provider(), AsymAlgorithm::EcdsaP256).unwrap();
            let signer = key.signer(&provider(), AsymAlgorithm::EcdsaP256).unwrap();
            let pair = KeyPair::fixed(Arc::clone(&signer), KeyUsage::ALL);
            let capabilities = if id == 3 { pair.capabilities } else { CHANGEABLE };
            slots.key_pairs.push(KeyPair { capabilities, ..pair });
            slots.slots[number] = Some(Slot { key_pair: id, ..Slot::new(Vec::new(), signer) });
        }
        let signer = generated.generate(2, AsymAlgorithm::Ed25519).unwrap();
        slots.key_pairs[1].key = Some(signer);
        slots.key_pairs[1].usage = KeyUsage::CHALLENGE;
        slots
    }

    fn provider() -> RingProvider {
        RingProvider::new()
    }

    fn made() -> BTreeMap<u8, u8> {
        BTreeMap::from([(1, 0), (2, 3)])
    }

    #[test]
    fn what_was_changed_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path(), &made(), &provider()).unwrap().is_none(), "nothing was changed");
        let generated = Generated::new(Box::new(provider()));
        let mut slots = slots(&generated);
        // Both slots have the new key, and so does the user's, until the next start.
        for number in [0, 3, 5] {
            slots.slots[number].as_mut().unwrap().key_pair = 2;
        }
        store(directory.path(), &slots, &[5], &generated).unwrap();
        let mode = std::fs::metadata(path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = load(directory.path(), &made(), &provider()).unwrap().unwrap();
        assert!(matches!(kept[&1], Kept { key: KeptKey::First, usage: KeyUsage::ALL, .. }));
        assert!(kept[&1].slots.is_empty());
        assert_eq!((kept[&2].usage, kept[&2].slots.as_slice()), (KeyUsage::CHALLENGE, &[0, 3][..]));
        let KeptKey::Generated(algorithm, key) = &kept[&2].key else { panic!("{kept:?}") };
        let signer = key.signer(&provider(), *algorithm).unwrap();
        assert_eq!(signer.public_key(), slots.key_pairs[1].key.as_ref().unwrap().public_key());

        slots.key_pairs[0].key = None;
        store(directory.path(), &slots, &[5], &generated).unwrap();
        assert!(matches!(
            load(directory.path(), &made(), &provider()).unwrap().unwrap()[&1].key,
            KeptKey::Erased
        ));
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name_and_show_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let generated = Generated::new(Box::new(provider()));
        store(directory.path(), &slots(&generated), &[5], &generated).unwrap();
        let text = std::fs::read_to_string(path(directory.path())).unwrap();
        let secret = text.lines().find(|line| line.starts_with("MC") || line.starts_with("MF")).unwrap();
        let first = "[[key_pair]]\nid = 1\nusage = 15\nslots = [0]\nkey = \"first\"\n";
        let second = |rest: &str| format!("{first}[[key_pair]]\nid = 2\nusage = 15\n{rest}\n");
        for (text, expected) in [
            (String::new(), "key pair 1 is missing"),
            (first.to_owned(), "key pair 2 is missing"),
            (format!("{first}{first}"), "key pair 1 is there twice"),
            (second("slots = [0]\nkey = \"first\""), "slot 0 is there twice"),
            (second("slots = [5]\nkey = \"first\""), "slot 5"),
            (second("slots = [3]\nkey = \"none\""), "has slots, and no key"),
            (second("slots = [3]\nkey = \"nonsense\""), "no algorithm"),
            (second("slots = [3]\nkey = \"nonsense\"\nalgorithm = \"ed25519\""), "no ed25519 key"),
            (second("slots = [3]\nkey = \"first\"\ncolour = 1"), "colour"),
            (text.replace("ed25519", "ecdsa-p384"), "no ecdsa-p384 key"),
            (text.replace(secret, &format!("{secret}\"\"\"")), ""),
            (format!("{text}[[key_pair]]\nid = 3\nusage = 15\nslots = []\nkey = \"none\"\n"), "key pair 3"),
        ] {
            std::fs::write(path(directory.path()), &text).unwrap();
            let error = load(directory.path(), &made(), &provider()).unwrap_err().to_string();
            assert!(error.contains("key-pairs.toml") && error.contains(expected), "{text}: {error}");
            assert!(!error.contains(secret), "{error}");
        }
    }
}
