//! Evidence: measurements that somebody without a connection verifies.

use super::peer::{Peer, Suite, identify};
use crate::crypto::RingProvider;
use crate::requester::{Command, Evidence, EvidenceError, MeasurementQuery, Misuse, RequesterError};
use crate::wire::{MeasurementOperation, SummaryType, Version};

const NONCE: [u8; 32] = [0x5A; 32];

/// Evidence from a session of its own, and the key that signed it.
fn evidence(suite: Suite) -> (Evidence, Vec<u8>) {
    let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
    let mut driver = peer.drive(&mut requester);
    driver.connect().unwrap();
    driver.digests().unwrap();
    let key = driver.certificate(0).unwrap().chain.public_key;
    driver.start_session(0, SummaryType::None, false).unwrap();
    (driver.evidence(0, NONCE).unwrap(), key)
}

#[test]
fn whoever_made_up_the_nonce_can_verify_it() {
    for suite in Suite::all().into_iter().filter(|suite| suite.version >= Version::V1_2) {
        let (evidence, key) = evidence(suite);
        let measurements = evidence.verify(&RingProvider::new(), &key, &NONCE).unwrap();
        assert_eq!(measurements.len(), 2, "{suite:?}");
        let mut bytes = Vec::new();
        evidence.encode(&mut bytes).unwrap();
        assert_eq!(Evidence::decode(&bytes), Ok(evidence), "{suite:?}");
    }
}

#[test]
fn every_byte_of_it_counts() {
    let (evidence, key) = evidence(Suite::SMALL);
    let mut bytes = Vec::new();
    evidence.encode(&mut bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(Evidence::decode(&bytes[..length]).is_err(), "{length}");
    }
    assert!(Evidence::decode(&[&bytes[..], &[0]].concat()).is_err());
    let provider = RingProvider::new();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let verified = Evidence::decode(&altered).map(|evidence| evidence.verify(&provider, &key, &NONCE));
        assert!(!matches!(verified, Ok(Ok(_))), "byte {at}");
    }
}

#[test]
fn it_is_for_one_nonce_and_one_key() {
    let (evidence, key) = evidence(Suite::SMALL);
    let provider = RingProvider::new();
    let other = EvidenceError::Request("with another nonce");
    assert_eq!(evidence.verify(&provider, &key, &[0; 32]), Err(other));
    let mut wrong = key.clone();
    wrong[40] ^= 1;
    assert_eq!(evidence.verify(&provider, &wrong, &NONCE), Err(EvidenceError::Signature));
    let old = Evidence { version: Version::V1_1, ..evidence };
    assert_eq!(old.verify(&provider, &key, &NONCE), Err(EvidenceError::Request("its version")));
}

#[test]
fn nothing_unsigned_may_hide_before_it() {
    let (mut peer, mut requester) = (Peer::new(Suite::SMALL), Suite::SMALL.requester());
    let mut driver = peer.drive(&mut requester);
    identify(&mut driver);
    driver.start_session(0, SummaryType::None, false).unwrap();
    let count = MeasurementQuery { operation: MeasurementOperation::Count, raw: false, signed_by: None };
    driver.measurements(count).unwrap();
    let refused = requester.begin(Command::Evidence { slot: 0, nonce: NONCE });
    assert!(matches!(refused, Err(RequesterError::Misuse(Misuse::Unsigned))), "{refused:?}");
}
