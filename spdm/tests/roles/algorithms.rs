//! Every algorithm that a provider in this build has, from the certificate chain to the end of a session: each signature
//! algorithm with each hash that it goes with, while exchanges, suites and versions turn beside them.

use spdm::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, Provider, RingProvider};
use spdm::identity::{Material, MaterialError, generate};
use spdm::requester::{Command, MeasurementQuery, Reply, RequesterConfig, UpdateKeys};
use spdm::responder::ResponderConfig;
use spdm::slot::Slots;
use spdm::wire::{MeasurementOperation, SummaryType, Version};

use crate::pair::{NAME, Pair, VERSIONS, requester_config, responder_config};

const PROVIDERS: &[fn() -> Box<dyn Provider>] = &[
    || Box::new(RingProvider::new()),
    #[cfg(feature = "aws-lc")]
    || Box::new(spdm::crypto::AwsLcProvider::new()),
];

/// Larger than a chain of ML-DSA-87, so that every message is one transfer.
const TRANSFER_SIZE: u32 = 0x1_0000;

/// Made here, or OpenSSL's for RSA, of which ring makes no keys; `None` where nothing here has keys.
fn material(algorithm: AsymAlgorithm) -> Option<Material> {
    use AsymAlgorithm as A;
    macro_rules! load {
        ($chain:literal, $key:literal) => {{
            let chain = include_bytes!(concat!("../identities/", $chain));
            let key = include_bytes!(concat!("../identities/", $key));
            Some(Material::load(chain, key, Some(algorithm)).unwrap())
        }};
    }
    match algorithm {
        A::RsaSsa2048 | A::RsaPss2048 => load!("rsa2048.chain.pem", "rsa2048.key.pem"),
        A::RsaSsa3072 | A::RsaPss3072 => load!("rsa3072.chain.pem", "rsa3072.key.pem"),
        A::RsaSsa4096 | A::RsaPss4096 => load!("rsa4096.chain.der", "rsa4096.key.der"),
        A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 | A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => {
            match generate(&NAME, algorithm) {
                Ok(material) => Some(material),
                Err(error) => {
                    assert_eq!(error, MaterialError::Unavailable(algorithm));
                    None
                }
            }
        }
    }
}

struct Suite {
    version: Version,
    asym: AsymAlgorithm,
    hash: HashAlgorithm,
    group: DheGroup,
    aead: Aead,
}

/// Everything a connection and a session sign, verify, exchange and derive.
fn converse(provider: fn() -> Box<dyn Provider>, slots: Slots, suite: &Suite) {
    let responder = ResponderConfig {
        hashes: vec![suite.hash],
        asym: vec![suite.asym],
        groups: vec![suite.group],
        aeads: vec![suite.aead],
        measurement_hashes: vec![suite.hash],
        data_transfer_size: TRANSFER_SIZE,
        max_message_size: TRANSFER_SIZE,
        ..responder_config(suite.version)
    };
    let requester = RequesterConfig {
        hashes: vec![suite.hash],
        signatures: vec![suite.asym],
        groups: vec![suite.group],
        aeads: vec![suite.aead],
        data_transfer_size: TRANSFER_SIZE,
        max_message_size: TRANSFER_SIZE,
        ..requester_config(suite.version)
    };
    let mut pair = Pair::by(provider, responder, slots, requester);
    let Reply::Connected(info) = pair.run(Command::Connect).unwrap() else { panic!() };
    let algorithms = info.algorithms;
    assert_eq!((algorithms.hash, algorithms.signature), (suite.hash, Some(suite.asym)));
    assert_eq!((algorithms.group, algorithms.aead), (Some(suite.group), Some(suite.aead)));
    let signed = MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by: Some(0) };
    for command in [
        Command::Digests,
        Command::Certificate { slot: 0 },
        Command::Challenge { slot: 0, summary: SummaryType::All },
        Command::Measurements(signed),
        Command::StartSession { slot: 0, summary: SummaryType::Tcb, end_on_update: false },
        Command::Measurements(signed),
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Heartbeat,
        Command::EndSession { clear_negotiated_state: false },
    ] {
        pair.run(command).unwrap();
    }
}

#[test]
fn every_algorithm_carries_a_session() {
    for &provider in PROVIDERS {
        let can = provider();
        let groups: Vec<_> = DheGroup::ALL.iter().filter(|&&group| can.supports_group(group)).collect();
        let mut turn = 0;
        for &asym in AsymAlgorithm::ALL {
            let Some(material) = material(asym) else { continue };
            for &hash in HashAlgorithm::ALL {
                let slot = material.slot();
                if !can.supports_signature(asym, hash) || !slot.key.supports(hash) {
                    continue;
                }
                turn += 1;
                let group = *groups[turn % groups.len()];
                let version = VERSIONS[turn / groups.len() % VERSIONS.len()];
                let new = asym.is_post_quantum() || group.is_kem();
                let suite = Suite {
                    version: if new { Version::V1_4 } else { version },
                    asym,
                    hash,
                    group,
                    aead: Aead::ALL[turn % Aead::ALL.len()],
                };
                converse(provider, Slots::single(slot), &suite);
            }
        }
        assert!(turn >= 6 * 3 + 2 + 6, "{turn}");
    }
}
