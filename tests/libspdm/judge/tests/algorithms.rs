//! Every algorithm that libspdm and a provider of ours have, in a covering design: each signature algorithm with each
//! hash it goes with at least once, and every group and AEAD suite, in both roles and every version with sessions.
//! libspdm 3.6 does not build its Edwards curves here and knows no post-quantum algorithms; `crypto.rs` judges those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use judge::{Case, Device, Peer, Reference, Tally, material, only_case, responder_config};
use spdm::crypto::{
    Aead, AsymAlgorithm, CryptoError, DheGroup, HashAlgorithm, Provider, RingProvider, RingSigner, Signer,
};
use spdm::requester::{Command, Driver, MeasurementQuery, Reply, Requester, RequesterConfig, UpdateKeys};
use spdm::slot::{Slot, Slots};
use spdm::wire::{MeasurementOperation, SummaryType, Version};

type Key = Result<Arc<dyn Signer>, CryptoError>;

/// A library of ours: its provider, and how it holds keys.
struct Library {
    name: &'static str,
    provider: fn() -> Box<dyn Provider>,
    signer: fn(AsymAlgorithm, &[u8]) -> Key,
}

const LIBRARIES: &[Library] = &[
    Library {
        name: "ring",
        provider: || Box::new(RingProvider::new()),
        signer: |algorithm, pkcs8| Ok(Arc::new(RingSigner::from_pkcs8(algorithm, pkcs8)?)),
    },
    #[cfg(feature = "aws-lc")]
    Library {
        name: "aws-lc",
        provider: || Box::new(spdm::crypto::AwsLcProvider::new()),
        signer: |algorithm, pkcs8| Ok(Arc::new(spdm::crypto::AwsLcSigner::from_pkcs8(algorithm, pkcs8)?)),
    },
];

/// Pairs of signature algorithm and hash, with groups and suites turning beside them.
fn cases() -> Vec<Case> {
    use HashAlgorithm as H;
    let groups = [DheGroup::P256, DheGroup::P384, DheGroup::P521];
    let aeads = [Aead::ChaCha20Poly1305, Aead::Aes256Gcm, Aead::Aes128Gcm, Aead::ChaCha20Poly1305];
    let versions = [Version::V1_3, Version::V1_2, Version::V1_1];
    let mut cases = Vec::new();
    for (row, &asym) in AsymAlgorithm::ALL.iter().enumerate() {
        if asym == AsymAlgorithm::Ed25519 || asym.is_post_quantum() {
            continue;
        }
        for (column, &hash) in H::ALL.iter().enumerate() {
            for (turn, &group) in (row + column..).zip(&groups) {
                cases.push(Case {
                    version: versions[turn % versions.len()],
                    asym,
                    hash,
                    group,
                    aead: aeads[turn % aeads.len()],
                    measurement_hash: Some(H::ALL[(turn + 1) % H::ALL.len()]),
                    encrypt: turn % 5 != 0,
                    clear: turn % 3 == 0,
                    secured: 0,
                });
            }
        }
    }
    cases
}

/// Runs a check with every library that has all of a case's algorithms.
fn each(role: &'static str, usable: fn(&Library, &Case) -> bool, check: fn(&Library, &Case)) {
    let mut tally = Tally::new(role, "algorithms");
    for (number, case) in cases().iter().enumerate() {
        if only_case().is_some_and(|only| only != number) {
            continue;
        }
        for library in LIBRARIES {
            let provider = (library.provider)();
            let hashes = [Some(case.hash), case.measurement_hash].into_iter().flatten();
            let available = provider.supports_group(case.group)
                && provider.supports_aead(case.aead)
                && hashes.into_iter().all(|hash| provider.supports_hash(hash));
            if available && usable(library, case) {
                tally.check(case, &format!("case {number} with {}", library.name), || check(library, case));
            }
        }
    }
    tally.finish();
}

#[test]
fn our_requester_with_every_algorithm() {
    each(
        "requester",
        |library, case| (library.provider)().supports_signature(case.asym, case.hash),
        |library, case| {
            let mut peer = Peer::new(&case.reference(true));
            let config = RequesterConfig {
                versions: vec![case.version],
                hashes: vec![case.hash],
                signatures: vec![case.asym],
                groups: vec![case.group],
                aeads: vec![case.aead],
                handshake_in_the_clear: case.clear,
                ..RequesterConfig::default()
            };
            let mut requester = Requester::new(config, (library.provider)()).unwrap();
            let mut run = |command: Command| {
                let result = Driver::new(&mut requester, &mut peer).run(command.clone());
                result.unwrap_or_else(|error| panic!("{command:?}: {error:?}\n{}", peer.recent()))
            };
            let Reply::Connected(info) = run(Command::Connect) else { panic!() };
            assert_eq!((info.algorithms.hash, info.algorithms.signature), (case.hash, Some(case.asym)));
            assert_eq!(info.algorithms.measurement_hash, case.measurement_hash);
            run(Command::Digests);
            run(Command::Certificate { slot: 0 });
            run(Command::Challenge { slot: 0, summary: SummaryType::All });
            let signed =
                MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by: Some(0) };
            run(Command::Measurements(signed));
            run(Command::StartSession { slot: 0, summary: SummaryType::Tcb, end_on_update: false });
            run(Command::Measurements(signed));
            run(Command::UpdateKeys(UpdateKeys::Both));
            run(Command::Heartbeat);
            run(Command::EndSession { clear_negotiated_state: false });
        },
    );
}

#[test]
fn our_responder_with_every_algorithm() {
    each(
        "responder",
        |library, case| {
            let signs = |signer: Arc<dyn Signer>| signer.supports(case.hash);
            // Some libraries have no keys of the algorithm at all, and then nobody may be able to make one.
            (library.provider)().supports_signature(case.asym, case.hash)
                && (library.signer)(case.asym, material(case.asym).pkcs8()).is_ok_and(signs)
        },
        |library, case| {
            let material = material(case.asym);
            let key = (library.signer)(case.asym, material.pkcs8()).unwrap();
            let slots = Slots::single(Slot::new(material.certificates().to_vec(), key));
            let device = Device::by((library.provider)(), responder_config(case), slots);
            let root = &material.certificates()[0];
            let mut reference = Reference::new(&case.reference(false), device, root);
            reference.connect();
            reference.digests(None);
            reference.certificate(None, 0);
            reference.challenge(0, 0xFF);
            assert_eq!(reference.measurements(None, 1, 0xFF, 0).blocks, 6);
            let (session, _, _) = reference.start_session(0, 1, 1);
            assert_eq!(reference.measurements(Some(session), 1, 0xFF, 0).blocks, 6);
            reference.key_update(session, false);
            let mut answer = reference.vendor(Some(session), b"payload");
            answer.reverse();
            assert_eq!(answer, b"payload");
            reference.stop_session(session, 0);
        },
    );
}
