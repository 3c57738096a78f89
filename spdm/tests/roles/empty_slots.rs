//! Slots without a chain, and slots without a key.

use spdm::requester::{Command, CsrQuery, Reply, SlotContent};
use spdm::slot::Slots;
use spdm::wire::{ErrorCode, Version};

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
