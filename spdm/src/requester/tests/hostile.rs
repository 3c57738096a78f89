//! Responses that were changed, by the responder or on the way: none may be believed.

use super::peer::{NAME, Peer, Suite, Tamper, identify};
use crate::crypto::{AsymAlgorithm, HashAlgorithm, RingProvider, hash};
use crate::identity::{ChainError, generate};
use crate::requester::{
    DriverError, MeasurementQuery, Requester, RequesterConfig, RequesterError, RootPin, Trust, TrustPolicy,
    UpdateKeys, Violation,
};
use crate::wire::{CertificateChain, Code, MeasurementOperation, STANDARD_PCI_SIG, SummaryType, Version};

/// Everything a requester does, up to the first error.
fn walk(peer: &mut Peer, requester: &mut Requester) -> Result<(), RequesterError> {
    let query = |operation, signed_by| MeasurementQuery { operation, raw: false, signed_by };
    let mut driver = peer.drive(requester);
    let mut run = || {
        driver.connect()?;
        driver.digests()?;
        driver.certificate(0)?;
        driver.challenge(0, SummaryType::All)?;
        driver.measurements(query(MeasurementOperation::Count, None))?;
        driver.measurements(query(MeasurementOperation::One(2), None))?;
        driver.measurements(query(MeasurementOperation::All, Some(0)))?;
        driver.start_session(0, SummaryType::All, false)?;
        driver.heartbeat()?;
        driver.vendor(STANDARD_PCI_SIG, &[1, 0], b"payload")?;
        driver.update_keys(UpdateKeys::Both)?;
        driver.end_session(false)
    };
    match run() {
        Ok(()) => Ok(()),
        Err(DriverError::Requester(error)) => Err(error),
        Err(DriverError::Transport(error)) => match error {},
    }
}

fn walk_with(suite: Suite, tamper: Tamper, corrupt: Tamper) -> Result<(), RequesterError> {
    // One chain for all: making keys is what takes the time.
    thread_local! {
        static PEER: std::cell::RefCell<Option<(AsymAlgorithm, crate::identity::Material)>> =
            const { std::cell::RefCell::new(None) };
    }
    let material = PEER.with_borrow_mut(|cached| match cached {
        Some((asym, material)) if *asym == suite.asym => material.clone(),
        _ => cached.insert((suite.asym, generate(&NAME, suite.asym).unwrap())).1.clone(),
    });
    let mut peer = Peer::with(suite, &material);
    (peer.tamper, peer.corrupt) = (tamper, corrupt);
    let mut requester = suite.requester();
    let result = walk(&mut peer, &mut requester);
    if result.is_err() {
        assert!(requester.save().is_none() || requester.session().is_some());
    }
    result
}

const SUITES: [Suite; 3] = [
    Suite { version: Version::V1_1, ..Suite::SMALL },
    Suite { version: Version::V1_2, ..Suite::SMALL },
    Suite::SMALL,
];

/// The responses of the walk, in order, with their lengths as they travel.
fn responses(suite: Suite) -> Vec<(Code, usize)> {
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let recorder = std::rc::Rc::clone(&seen);
    let record: Tamper = Box::new(move |code, bytes| recorder.borrow_mut().push((code, bytes.len())));
    walk_with(suite, Box::new(|_, _| ()), record).unwrap();
    seen.take()
}

/// Applies `change` to the `number`-th response and to nothing else.
fn only(number: usize, mut change: impl FnMut(&mut Vec<u8>) + 'static) -> Tamper {
    let mut count = 0;
    Box::new(move |_, bytes| {
        if count == number {
            change(bytes);
        }
        count += 1;
    })
}

#[test]
fn every_truncation_of_every_response_is_refused() {
    for suite in SUITES {
        for (number, (code, length)) in responses(suite).into_iter().enumerate() {
            // A certificate portion is long and uniform; its ends are what matters.
            let ends: Vec<_> = if length > 400 {
                (0..40).chain(length - 40..length).collect()
            } else {
                (0..length).collect()
            };
            for end in ends {
                let result = walk_with(suite, Box::new(|_, _| ()), only(number, move |b| b.truncate(end)));
                assert!(result.is_err(), "{code:?} of {length} bytes cut to {end}");
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_every_response_is_refused() {
    for suite in SUITES {
        for (number, (code, length)) in responses(suite).into_iter().enumerate() {
            let step = if length > 400 { 13 } else { 1 };
            for position in (0..length).step_by(step) {
                let flip = only(number, move |bytes| bytes[position] ^= 0x41);
                let result = walk_with(suite, Box::new(|_, _| ()), flip);
                // A record says how long it is, and its padding is nobody's concern; in clear, everything is
                // signed or compared sooner or later.
                assert!(result.is_err(), "{code:?} with byte {position} of {length} changed");
            }
        }
    }
}

#[test]
fn padding_of_a_data_object_is_ignored_and_more_is_not() {
    for suite in SUITES {
        for (number, (code, _)) in responses(suite).into_iter().enumerate() {
            for extra in 0..8 {
                let pad = only(number, move |bytes| bytes.resize(bytes.len() + extra, 0xcc));
                let result = walk_with(suite, Box::new(|_, _| ()), pad);
                assert_eq!(result.is_ok(), extra <= 3, "{code:?} with {extra} bytes more");
            }
        }
    }
}

#[test]
fn messages_inside_records_have_no_padding() {
    for code in [Code::FINISH_RSP, Code::HEARTBEAT_ACK, Code::VENDOR_DEFINED_RESPONSE, Code::END_SESSION_ACK]
    {
        let tamper: Tamper = Box::new(move |this, bytes| {
            if this == code {
                bytes.push(0);
            }
        });
        let result = walk_with(Suite::SMALL, tamper, Box::new(|_, _| ()));
        assert!(matches!(result, Err(RequesterError::Malformed { .. })), "{code:?}: {result:?}");
    }
}

#[test]
fn other_versions_and_codes_are_refused() {
    for (code, _) in responses(Suite::SMALL) {
        let set = |at: usize, value: u8| -> Tamper {
            Box::new(move |this, bytes| {
                if this == code {
                    bytes[at] = value;
                }
            })
        };
        let result = walk_with(Suite::SMALL, set(0, 0x14), Box::new(|_, _| ()));
        let version = |error| {
            matches!(error, Err(RequesterError::Violation { violation: Violation::Version { .. }, .. }))
        };
        assert!(version(result), "{code:?}");
        let result = walk_with(Suite::SMALL, set(1, 0x6f), Box::new(|_, _| ()));
        let other = RequesterError::Violation {
            request: Code(code.0 | 0x80),
            violation: Violation::Code(Code::MEASUREMENT_EXTENSION_LOG),
        };
        assert_eq!(result, Err(other));
    }
}

/// A responder that means it: the change is signed, authenticated and in the transcript.
#[test]
fn what_a_responder_signs_still_has_to_follow_the_rules() {
    use Violation::{
        Context, Digest, Echo, Measurements, NotAnnounced, Portion, Selection, Slot, TransferSize,
    };
    type Change = fn(&mut Vec<u8>);
    let contradiction = Violation::Capabilities("MEAS_FRESH_CAP");
    let cases: Vec<(Code, Change, Violation)> = vec![
        (Code::VERSION, |b| b[7] = 0x14, Violation::NoCommonVersion),
        (Code::CAPABILITIES, |b| b[8] = b[8] & !0x18 | 0x20, contradiction),
        (Code::CAPABILITIES, |b| b[5] = 32, Violation::Capabilities("CTExponent")),
        (Code::CAPABILITIES, |b| b[12..20].fill(0), TransferSize),
        (Code::CAPABILITIES, |b| b[16] = 1, TransferSize),
        (Code::CAPABILITIES, |b| b[13] = 0x20, TransferSize),
        (Code::ALGORITHMS, |b| b[6] = 0, Selection("measurement specification")),
        (Code::ALGORITHMS, |b| b[7] = 0, Selection("opaque data format")),
        (Code::ALGORITHMS, |b| b[7] = 1, Selection("opaque data format")),
        (Code::ALGORITHMS, |b| b[7] |= 0x10, Selection("opaque data format")),
        (Code::ALGORITHMS, |b| b[8] = 0, Selection("measurement hash")),
        (Code::ALGORITHMS, |b| b[12] = 0x80, Selection("signature algorithm")),
        (Code::ALGORITHMS, |b| b[12] = 0, Selection("signature algorithm")),
        (Code::ALGORITHMS, |b| b[16] = 2, Selection("hash")),
        (Code::ALGORITHMS, |b| b[16] = 0, Selection("hash")),
        (Code::ALGORITHMS, |b| b[31] = 1, Selection("measurement extension log specification")),
        (Code::ALGORITHMS, |b| b[38] = 0x10, Selection("key exchange group")),
        (Code::ALGORITHMS, |b| b[38] = 0, Selection("key exchange group")),
        (Code::ALGORITHMS, |b| b[42] = 2, Selection("AEAD suite")),
        (Code::ALGORITHMS, |b| b[42] = 0, Selection("AEAD suite")),
        (Code::ALGORITHMS, |b| b[46] = 0, Selection("key schedule")),
        (Code::DIGESTS, |b| b[4] ^= 1, Digest("chain")),
        (Code::CERTIFICATE, |b| b[2] = 1, Slot),
        (Code::CERTIFICATE, |b| b[6] ^= 0x80, Portion),
        (Code::CHALLENGE_AUTH, |b| b[2] = 1, Slot),
        (Code::CHALLENGE_AUTH, |b| b[3] = 2, Slot),
        (Code::CHALLENGE_AUTH, |b| b[2] = 0x80, NotAnnounced("mutual authentication")),
        (Code::CHALLENGE_AUTH, |b| b[4] ^= 1, Digest("chain")),
        (Code::CHALLENGE_AUTH, |b| *b.last_mut().unwrap() ^= 1, Context),
        (Code::MEASUREMENTS, |b| *b.last_mut().unwrap() ^= 1, Context),
        (Code::MEASUREMENTS, |b| b[4] += 1, Measurements("the number of blocks")),
        (Code::KEY_EXCHANGE_RSP, |b| b[6] = 1, NotAnnounced("mutual authentication")),
        (Code::KEY_EXCHANGE_RSP, |b| b[40..104].fill(0x33), Violation::ExchangeData),
        (Code::KEY_EXCHANGE_RSP, |b| *b.last_mut().unwrap() = 0x17, Selection("secured message version")),
        (Code::KEY_UPDATE_ACK, |b| b[2] = 1, Echo("the key operation or tag")),
        (Code::KEY_UPDATE_ACK, |b| b[3] ^= 1, Echo("the key operation or tag")),
        (Code::VENDOR_DEFINED_RESPONSE, |b| b[4] = 4, Echo("the registry or vendor id")),
        (Code::VENDOR_DEFINED_RESPONSE, |b| b[7] = 2, Echo("the registry or vendor id")),
    ];
    for (code, change, expected) in cases {
        let tamper: Tamper = Box::new(move |this, bytes| {
            if this == code {
                change(bytes);
            }
        });
        match walk_with(Suite::SMALL, tamper, Box::new(|_, _| ())) {
            Err(RequesterError::Violation { violation, .. }) => assert_eq!(violation, expected, "{code:?}"),
            other => panic!("{code:?}, expected {expected:?}: {other:?}"),
        }
    }
}

/// What 1.4 lets a responder say, and what it may not say unasked.
#[test]
fn alternatives_that_were_not_offered_are_not_selected() {
    type Change = fn(&mut Vec<u8>);
    let suite = Suite { version: Version::V1_4, ..Suite::SMALL };
    let cases: [(Code, Change, Violation); 4] = [
        // ML-DSA-44 instead of ECDSA, ML-KEM-512 instead of ECDHE, a signature algorithm for the requester.
        (Code::ALGORITHMS, |b| (b[12], b[20]) = (0, 1), Violation::Selection("signature algorithm")),
        (Code::ALGORITHMS, |b| replace_table(b, [7, 0x20, 1, 0]), Violation::Selection("key exchange group")),
        (Code::ALGORITHMS, |b| replace_table(b, [6, 0x20, 1, 0]), Violation::Selection("key exchange group")),
        (
            Code::CAPABILITIES,
            |b| {
                b[2] = 1;
                b.extend([0, 0, 30, 0]);
                b.resize(20 + 30, 0);
            },
            Violation::NotAnnounced("supported algorithms"),
        ),
    ];
    for (code, change, expected) in cases {
        let tamper: Tamper = Box::new(move |this, bytes| {
            if this == code {
                change(bytes);
            }
        });
        match walk_with(suite, tamper, Box::new(|_, _| ())) {
            Err(RequesterError::Violation { violation, .. }) => assert_eq!(violation, expected, "{code:?}"),
            other => panic!("{code:?}, expected {expected:?}: {other:?}"),
        }
    }
}

/// Puts a table behind the others and takes away the selection of the first, the key exchange group.
fn replace_table(algorithms: &mut Vec<u8>, table: [u8; 4]) {
    algorithms[38] = 0;
    algorithms[2] += 1;
    algorithms[4] += 4;
    algorithms.extend(table);
}

#[test]
fn secured_versions_have_to_be_selected() {
    let tamper: Tamper = Box::new(|code, bytes| {
        if code == Code::KEY_EXCHANGE_RSP {
            let opaque = bytes.len() - 14;
            bytes.truncate(opaque);
            bytes.extend([0, 0]);
        }
    });
    let expected = RequesterError::Violation {
        request: Code::KEY_EXCHANGE,
        violation: Violation::Selection("secured message version"),
    };
    assert_eq!(walk_with(Suite::SMALL, tamper, Box::new(|_, _| ())), Err(expected));
}

#[test]
fn answers_in_the_wrong_protection_are_refused() {
    let suite = Suite::SMALL;
    let (mut peer, mut requester) = (Peer::new(suite), suite.requester());
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).start_session(0, SummaryType::None, false).unwrap();
    requester.begin(crate::requester::Command::Heartbeat).unwrap();
    let ack = [suite.version.0, Code::HEARTBEAT_ACK.0, 0, 0];
    let expected = |request, secured| {
        Err(RequesterError::Violation { request, violation: Violation::Protection { secured } })
    };
    assert_eq!(requester.receive(false, &ack), expected(Code::HEARTBEAT, false));
    let mut requester = suite.requester();
    requester.begin(crate::requester::Command::Connect).unwrap();
    let version = [0x10, 4, 0, 0, 0, 1, 0, 0x13];
    assert_eq!(requester.receive(true, &version), expected(Code::GET_VERSION, true));
}

#[test]
fn responses_longer_than_announced_are_refused() {
    let config = RequesterConfig { data_transfer_size: 600, ..Suite::SMALL.config() };
    let mut requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
    let mut peer = Peer::new(Suite::SMALL);
    identify(&mut peer.drive(&mut requester));
    assert!(peer.seen.iter().filter(|code| **code == Code::GET_CERTIFICATE).count() > 1);
    peer.measurements = vec![(1, vec![0; 700])];
    let query = MeasurementQuery { operation: MeasurementOperation::All, raw: true, signed_by: None };
    let result = peer.drive(&mut requester).measurements(query);
    assert!(matches!(
        result,
        Err(DriverError::Requester(RequesterError::Violation { violation: Violation::TooLong(_), .. }))
    ));
}

fn with_trust(trust: TrustPolicy) -> Requester {
    let config = RequesterConfig { trust, ..Suite::SMALL.config() };
    Requester::new(config, Box::new(RingProvider::new())).unwrap()
}

#[test]
fn pinned_roots_are_the_only_ones_trusted() {
    let material = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let foreign = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let digest = |algorithm, certificate| {
        RootPin::Digest(hash(&RingProvider::new(), algorithm, certificate).unwrap().as_ref().to_vec())
    };
    let certificate =
        |material: &crate::identity::Material| RootPin::Certificate(material.certificates()[0].clone());
    let root = &material.certificates()[0];
    for (pins, trusted) in [
        (vec![certificate(&material)], true),
        (vec![digest(HashAlgorithm::Sha256, root)], true),
        (vec![digest(HashAlgorithm::Sha512, root)], true),
        (vec![certificate(&foreign), digest(HashAlgorithm::Sha384, root)], true),
        (vec![certificate(&foreign)], false),
        (vec![digest(HashAlgorithm::Sha256, &material.certificates()[1])], false),
        (vec![RootPin::Digest(vec![])], false),
        (vec![], false),
    ] {
        let mut requester = with_trust(TrustPolicy::Pinned(pins));
        let mut peer = Peer::with(Suite::SMALL, &material);
        let mut driver = peer.drive(&mut requester);
        driver.connect().unwrap();
        let result = driver.certificate(0);
        if trusted {
            assert_eq!(result.unwrap().trust, Trust::Pinned);
        } else {
            let expected =
                RequesterError::Violation { request: Code::GET_CERTIFICATE, violation: Violation::Untrusted };
            assert_eq!(result, Err(DriverError::Requester(expected)));
        }
    }
}

#[test]
fn a_root_left_out_of_the_chain_has_to_be_pinned() {
    let material = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let mut peer = Peer::with(Suite::SMALL, &material);
    let root_hash = hash(&peer.provider, HashAlgorithm::Sha256, &material.certificates()[0]).unwrap();
    peer.chain.clear();
    CertificateChain::encode(root_hash.as_ref(), &material.certificates()[1..], &mut peer.chain).unwrap();
    let pinned = TrustPolicy::Pinned(vec![RootPin::Certificate(material.certificates()[0].clone())]);
    let mut requester = with_trust(pinned);
    identify(&mut peer.drive(&mut requester));
    peer.drive(&mut requester).challenge(0, SummaryType::None).unwrap();
    let mut requester = with_trust(TrustPolicy::FirstUse);
    let mut driver = peer.drive(&mut requester);
    driver.connect().unwrap();
    let expected = RequesterError::Chain { slot: 0, error: ChainError::RootMissing };
    assert_eq!(driver.certificate(0), Err(DriverError::Requester(expected)));
}

#[test]
fn chains_of_the_wrong_root_or_key_are_refused() {
    let material = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let refused = |chain: Vec<u8>, expected| {
        let mut peer = Peer::with(Suite::SMALL, &material);
        peer.chain = chain;
        let mut requester = Suite::SMALL.requester();
        let mut driver = peer.drive(&mut requester);
        driver.connect().unwrap();
        let expected = RequesterError::Violation { request: Code::GET_CERTIFICATE, violation: expected };
        assert_eq!(driver.certificate(0), Err(DriverError::Requester(expected)));
    };
    let mut chain = Vec::new();
    CertificateChain::encode(&[0xee; 32], material.certificates(), &mut chain).unwrap();
    refused(chain, Violation::Digest("root"));
    let large = generate(&NAME, AsymAlgorithm::EcdsaP384).unwrap();
    let root_hash = hash(&RingProvider::new(), HashAlgorithm::Sha256, &large.certificates()[0]).unwrap();
    let mut chain = Vec::new();
    CertificateChain::encode(root_hash.as_ref(), large.certificates(), &mut chain).unwrap();
    refused(chain, Violation::KeyAlgorithm);
}

#[test]
fn a_responder_without_the_key_is_found_out() {
    let other = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let mut peer = Peer::new(Suite::SMALL);
    peer.signer = Peer::with(Suite::SMALL, &other).signer;
    let mut requester = Suite::SMALL.requester();
    identify(&mut peer.drive(&mut requester));
    let mut driver = peer.drive(&mut requester);
    let signed = MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by: Some(0) };
    for (request, error) in [
        (Code::CHALLENGE, driver.challenge(0, SummaryType::None).unwrap_err()),
        (Code::GET_MEASUREMENTS, driver.measurements(signed).unwrap_err()),
        (Code::KEY_EXCHANGE, driver.start_session(0, SummaryType::None, false).unwrap_err()),
    ] {
        let expected = RequesterError::Violation { request, violation: Violation::Signature };
        assert_eq!(error, DriverError::Requester(expected));
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_first_answers_never_panic(bytes: Vec<u8>, secured: bool) {
        let mut requester = Suite::SMALL.requester();
        requester.begin(crate::requester::Command::Connect).unwrap();
        let _ = requester.receive(secured, &bytes);
    }

    #[test]
    fn arbitrary_answers_to_anything_never_panic(number in 0usize..30, garbage: Vec<u8>, keep in 0usize..64) {
        let change = only(number, move |bytes| {
            bytes.truncate(keep);
            bytes.extend(&garbage);
        });
        let _ = walk_with(Suite::SMALL, Box::new(|_, _| ()), change);
    }
}
