//! Slots without a chain, and slots without a key.

use spdm::crypto::AsymAlgorithm;
use spdm::identity::generate;
use spdm::requester::{Command, CsrQuery, Reply, SlotContent};
use spdm::responder::{MultipleKeys, Provisioning};
use spdm::slot::{KeyPair, Slot, Slots};
use spdm::wire::{ErrorCode, KeyPairOperation, KeyPairParameters, KeyUsage, Version};

use super::pair::*;
use super::provision::*;

fn challenge(version: Version) -> Vec<u8> {
    let mut request = vec![version.0, 0x83, 0, 0];
    request.resize(4 + 32 + 8, 7);
    request
}

/// Whoever may write the slots of a device can erase its only one and write it again, whether or not it starts anew in
/// between.
#[test]
fn an_erased_device_is_provisioned_again() {
    for version in [Version::V1_3, Version::V1_4] {
        for restarted in [false, true] {
            let slots = Slots::single(material(0).slot());
            let mut pair = managed(version, WRITABLE, slots, requester_config(version));
            let erase = || store(0, SlotContent::Nothing);
            assert_eq!(refusal(&mut pair, erase()), (ErrorCode::UNEXPECTED_REQUEST, 0), "in the clear");
            assert_eq!(digests(&mut pair).provisioned, 1);
            pair.start();
            pair.run(erase()).unwrap();
            assert_eq!(digests(&mut pair).provisioned, 0);
            if restarted {
                let mut config = responder_config(version);
                config.capabilities.provisioning = WRITABLE;
                let slots = pair.device.responder.slots().clone();
                pair = Pair::with(config, slots, requester_config(version));
            }
            pair.run(Command::Connect).unwrap();
            let left = digests(&mut pair);
            assert_eq!((left.supported, left.provisioned), (1, 0));
            let (_, response) = pair.device.ask(false, &challenge(version)).unwrap();
            assert_eq!(response, [version.0, 0x7F, 1, 0], "nothing to be proved");
            let csr = pair.run(Command::Csr(CsrQuery::default())).unwrap();
            assert!(matches!(csr, Reply::Csr(_)));
            pair.run(store(0, chain(0))).unwrap();
            assert_eq!(digests(&mut pair).provisioned, 1);
            pair.run(Command::Certificate { slot: 0 }).unwrap();
            let id = pair.start_any();
            pair.exercise(id);
        }
    }
}

fn set(key_pair: u8, slots: u8) -> Command {
    let operation = KeyPairOperation::Change(KeyPairParameters { slots, ..KeyPairParameters::default() });
    Command::SetKeyPair { key_pair, operation }
}

/// Key pair 3 is taken from slot 2 and erased: the slot's old key neither gets a chain nor signs, though the connection
/// has one key only and does not name key pairs.
#[test]
fn a_key_that_was_taken_away_is_not_certified() {
    let failed = (ErrorCode::OPERATION_FAILED, 0);
    let mut slots = several_keys();
    slots.slots[0] = None;
    slots.slots[1] = None;
    let provisioning = Provisioning { trusted_environment: true, ..SEVERAL };
    let mut config = responder_config(Version::V1_3);
    config.capabilities.provisioning = provisioning;
    // The slot that has to be there, for a key of another algorithm.
    let other = generate(&NAME, AsymAlgorithm::EcdsaP384).unwrap();
    slots.slots[0] = Some(other.slot());
    slots.key_pairs[0] = KeyPair::fixed(other.slot().key, KeyUsage::ALL);
    config.asym = vec![AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384];
    slots.slots[2] = slots.slots[2].take().map(|slot| Slot { key_pair: 3, ..slot });
    let mut requester = requester_config(Version::V1_3);
    requester.signatures = vec![AsymAlgorithm::EcdsaP256];
    let mut pair = Pair::with(config, slots, requester);
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Csr(CsrQuery::default())).unwrap();
    pair.run(set(3, 0)).unwrap();
    let erase = KeyPairOperation::Erase;
    pair.run(Command::SetKeyPair { key_pair: 3, operation: erase }).unwrap();
    assert_eq!(refusal(&mut pair, Command::Csr(CsrQuery::default())), failed);
    assert_eq!(refusal(&mut pair, store(2, chain(2))), failed);
    let left = digests(&mut pair);
    assert_eq!((left.supported, left.provisioned), (4, 0));
}

/// Such a slot comes from the outside only; its chain is not shown.
#[test]
fn a_chain_without_its_key_is_not_used() {
    let mut slots = one_empty();
    slots.slots[1] = Some(Slot { key_pair: 0, ..material(1).slot() });
    assert!(slots.get(1).is_none());
    let mut pair = managed(Version::V1_3, WRITABLE, slots, requester_config(Version::V1_3));
    assert_eq!(digests(&mut pair).provisioned, 1);
    assert_eq!(refusal(&mut pair, Command::Certificate { slot: 1 }), (ErrorCode::INVALID_REQUEST, 0));
}

/// The chain was checked against the key that the slot had; it would be installed over another.
#[test]
fn a_slot_keeps_its_key_until_its_chain_is_installed() {
    let mut slots = several_keys();
    slots.slots[2] = slots.slots[2].take().map(|slot| Slot { key_pair: 3, ..slot });
    let provisioning = Provisioning { at_reset: true, multiple_keys: MultipleKeys::No, ..SEVERAL };
    let mut pair = managed(Version::V1_3, provisioning, slots, requester_config(Version::V1_3));
    pair.start();
    assert_eq!(refusal(&mut pair, store(2, chain(2))), (ErrorCode::RESET_REQUIRED, 0));
    assert_eq!(refusal(&mut pair, set(3, 0)), (ErrorCode::OPERATION_FAILED, 0));
    pair.device.responder.reset();
    pair.run(Command::Connect).unwrap();
    assert_eq!(digests(&mut pair).provisioned, 7);
}
