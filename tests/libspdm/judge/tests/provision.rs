//! Slots and keys that are managed, the measurement extension log, and several keys, with libspdm in either role.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::OnceLock;

use judge::{
    Case, Device, KeyPair, NAME, Peer, RESET_REQUIRED, RESPONDER_FLAGS, Reference, Tally, cases, material,
    responder_config,
};
use spdm::crypto::{AsymAlgorithm, RingProvider, hash};
use spdm::identity::{Material, generate};
use spdm::requester::{Command, CsrQuery, Driver, Reply, Requester, RequesterConfig, SlotContent};
use spdm::responder::{MeasurementLogItem, MeasurementValue, MultipleKeys, Provisioning, ResponderConfig};
use spdm::slot::{KeyPair as OurPair, Slot, Slots};
use spdm::wire::{CertificateChain, CertificateModel, KeyPairCapabilities, KeyUsage, SummaryType, Version};

/// DSP0274 1.3 "CAPABILITIES": SET_CERT, CSR, MEL, MULTI_KEY (negotiated), GET_KEY_PAIR_INFO, SET_KEY_PAIR_INFO.
const MANAGED: u32 = 1 << 19 | 1 << 20 | 1 << 24 | 2 << 26 | 1 << 28 | 1 << 29;
/// `OtherParamsSupport`: general opaque data, multiple keys.
const SEVERAL: u8 = 2 | 1 << 4;
const MODEL_GENERIC: u8 = 3 << 4;
const ERASE: u8 = 1 << 7;

/// An identity of another key.
fn other(asym: AsymAlgorithm) -> Material {
    static P256: OnceLock<Material> = OnceLock::new();
    static P384: OnceLock<Material> = OnceLock::new();
    let cell = if asym == AsymAlgorithm::EcdsaP256 { &P256 } else { &P384 };
    cell.get_or_init(|| generate(&NAME, asym).unwrap()).clone()
}

/// 1.2 and 1.3 with either signature, once each.
fn managed_cases() -> Vec<Case> {
    let mut chosen: Vec<Case> = Vec::new();
    for case in cases() {
        let key = |case: &Case| (case.version, case.asym);
        let plain = case.encrypt && !case.clear && case.secured == 0;
        if case.version >= Version::V1_2
            && plain
            && case.measurement_hash == Some(case.hash)
            && chosen.iter().all(|other| key(other) != key(&case))
        {
            chosen.push(case);
        }
    }
    chosen
}

fn wire_chain(case: &Case, material: &Material) -> Vec<u8> {
    let root = hash(&RingProvider::new(), case.hash, &material.certificates()[0]).unwrap();
    let mut chain = Vec::new();
    CertificateChain::encode(root.as_ref(), material.certificates(), &mut chain).unwrap();
    chain
}

/// Slot 0 with a chain, slot 1 empty; a key pair each, and a third one that is free.
fn slots(case: &Case) -> Slots {
    let (first, second) = (material(case.asym).slot(), other(case.asym).slot());
    let empty = Slot { certificates: Vec::new(), key_pair: 2, ..second.clone() };
    let mut slots = Slots::single(first.clone());
    slots.slots[1] = Some(empty);
    slots.slots[2] = Some(Slot { certificates: Vec::new(), key_pair: 0, ..second.clone() });
    let free = OurPair {
        capabilities: KeyPairCapabilities::ASSOCIATE
            | KeyPairCapabilities::USAGE
            | KeyPairCapabilities::ERASE,
        usage_capabilities: KeyUsage::ALL,
        ..OurPair::fixed(second.key.clone(), KeyUsage::CHALLENGE)
    };
    slots.key_pairs =
        vec![OurPair::fixed(first.key, KeyUsage::ALL), OurPair::fixed(second.key, KeyUsage::ALL), free];
    slots
}

fn config(case: &Case, at_reset: bool) -> ResponderConfig {
    let mut config = responder_config(case);
    config.capabilities.provisioning = Provisioning {
        set_certificate: true,
        csr: true,
        // Of 1.4, which this libspdm does not know.
        slot_management: false,
        at_reset,
        trusted_environment: false,
        key_pair_info: true,
        set_key_pair_info: true,
        multiple_keys: MultipleKeys::Negotiated,
    };
    config.capabilities.measurement_log = true;
    let item = |index, value| MeasurementLogItem { index, kind: 1, value };
    config.measurement_log = vec![
        item(1, MeasurementValue::RawOnly(vec![1; 3000])),
        item(2, MeasurementValue::RawOnly(vec![2; 3000])),
    ];
    config
}

/// libspdm's requester trusts one root; the chains of both identities end in one of their own.
fn reference(case: &Case, several: bool, at_reset: bool, root: &Material) -> Reference {
    let mut offer = case.reference(false);
    offer.other_params = if several { SEVERAL } else { 2 };
    offer.mel_specification = 1;
    Reference::new(&offer, Device::with(config(case, at_reset), slots(case)), &root.certificates()[0])
}

/// libspdm's requester, our responder.
fn served(case: &Case, several: bool) {
    let v1_3 = case.version >= Version::V1_3;
    let several = several && v1_3;
    let (key_pair, model) = if several { (2, MODEL_GENERIC) } else { (0, 0) };
    let chain = wire_chain(case, &other(case.asym));

    let mut run = reference(case, several, false, &material(case.asym));
    run.connect();
    assert_eq!(run.digests(None).0, 1);
    run.certificate(None, 0);
    run.challenge(0, 0xFF);
    assert_ne!(run.try_set_certificate(None, 1, Some(&chain), model, key_pair), 0, "without a session");
    let (id, ..) = run.start_session(0, 0xFF, 0);
    run.set_certificate(Some(id), 1, Some(&chain), model, key_pair);
    assert_eq!(run.digests(Some(id)).0, 3);
    let csr_model = if several { 1 } else { 0 };
    for session in [None, Some(id)] {
        let csr = run.csr(session, &[], csr_model, key_pair);
        let csr_key = if several { other(case.asym) } else { material(case.asym) };
        let slot = csr_key.slot();
        let key = slot.key.public_key();
        assert!(csr.windows(key.len()).any(|window| window == key));
    }
    if v1_3 {
        for session in [None, Some(id)] {
            let log = run.measurement_log(session);
            assert_eq!((log[0], log.len()), (2, 16 + 2 * (11 + 3000)));
        }
        let KeyPair { total, capabilities, usage, slots, .. } = run.key_pair(None, 3);
        assert_eq!((total, capabilities, usage, slots), (3, 0xE, 2, 0));
        run.set_key_pair(Some(id), 3, 0, 0xF, 0, 4);
        let KeyPair { usage, slots, .. } = run.key_pair(Some(id), 3);
        assert_eq!((usage, slots), (0xF, 4));
        run.set_key_pair(Some(id), 3, 0, 0, 0, 0);
        run.set_key_pair(Some(id), 3, 1, 0, 0, 0);
        assert_eq!(run.key_pair(None, 3).algorithm, 0);
    }
    // The other chain proves itself to a requester that trusts its root.
    run.stop_session(id, 0);
    if v1_3 {
        let (id, ..) = run.start_session(0, 0, 0);
        run.set_certificate(Some(id), 1, None, ERASE, key_pair);
        assert_eq!(run.digests(Some(id)).0, 1);
    }

    let mut filled = slots(case);
    let (generic, usage) = (CertificateModel::Generic, KeyUsage::ALL);
    filled.slots[1] = Some(Slot { key_pair: 2, model: generic, usage, ..other(case.asym).slot() });
    let mut offer = case.reference(false);
    offer.other_params = if several { SEVERAL } else { 2 };
    let device = Device::with(config(case, false), filled);
    let mut run = Reference::new(&offer, device, &other(case.asym).certificates()[0]);
    run.connect();
    assert_eq!(run.digests(None).0, 3);
    assert_eq!(run.certificate(None, 1), chain);
    run.challenge(1, 0xFF);
    let (id, ..) = run.start_session(1, 0xFF, 0);
    assert_eq!(run.vendor(Some(id), b"abc"), b"cba");
    run.stop_session(id, 0);
}

/// libspdm's requester hears that a reset is needed, with the tag of its request from 1.3 on.
fn waiting(case: &Case) {
    let chain = wire_chain(case, &other(case.asym));
    let mut run = reference(case, false, true, &material(case.asym));
    run.connect();
    run.digests(None);
    run.certificate(None, 0);
    let (status, tag, _) = run.try_csr(None, &[], 0, 0);
    let expected = u8::from(case.version >= Version::V1_3);
    assert_eq!((status, tag), (RESET_REQUIRED, expected));
    let (id, ..) = run.start_session(0, 0, 0);
    assert_eq!(run.try_set_certificate(Some(id), 1, Some(&chain), 0, 0), RESET_REQUIRED);
}

#[test]
fn managed_by_libspdm() {
    let mut tally = Tally::new("responder", "provision");
    for case in managed_cases() {
        tally.check(&case, "one key", || served(&case, false));
        tally.check(&case, "several keys", || served(&case, true));
        tally.check(&case, "at reset", || waiting(&case));
    }
    tally.finish();
}

/// Our requester, libspdm's responder with its samples: one slot, one key pair.
fn asked(case: &Case, several: bool) {
    // Its sample stores chains as files where it runs.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut offer = case.reference(true);
    let v1_3 = case.version >= Version::V1_3;
    offer.flags = RESPONDER_FLAGS | MANAGED & if v1_3 { u32::MAX } else { (1 << 22) - 1 };
    offer.mel_specification = 1;
    let mut peer = Peer::new(&offer);
    let settings = RequesterConfig {
        versions: vec![case.version],
        multiple_keys: several,
        ..RequesterConfig::default()
    };
    let mut requester = Requester::new(settings, Box::new(RingProvider::new())).unwrap();
    let mut run = |command: Command| {
        let result = Driver::new(&mut requester, &mut peer).run(command.clone());
        result.unwrap_or_else(|error| panic!("{command:?}: {error:?}\n{}", peer.recent()))
    };
    run(Command::Connect);
    let Reply::Digests(digests) = run(Command::Digests) else { panic!() };
    assert_eq!(digests.keys.len(), usize::from(several && v1_3));
    run(Command::Certificate { slot: 0 });
    run(Command::Challenge { slot: 0, summary: SummaryType::All });
    let content = || SlotContent::Chain {
        certificates: other(case.asym).certificates().to_vec(),
        model: CertificateModel::Device,
    };
    for session in [false, true] {
        if session {
            run(Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: false });
        }
        let query = CsrQuery { key_pair: 1, model: Some(CertificateModel::Device), ..CsrQuery::default() };
        let Reply::Csr(csr) = run(Command::Csr(query)) else { panic!() };
        assert_eq!(csr[0], 0x30);
        let slot = u8::from(session);
        run(Command::SetCertificate { slot, key_pair: 1, content: content() });
        if !v1_3 {
            continue;
        }
        run(Command::SetCertificate { slot, key_pair: 1, content: SlotContent::Nothing });
        let Reply::KeyPair(report) = run(Command::KeyPair { key_pair: 1 }) else { panic!() };
        assert_eq!(report.total, 1);
        let Reply::MeasurementLog(log) = run(Command::MeasurementLog) else { panic!() };
        assert!(!log.entries.is_empty());
    }
}

#[test]
fn managing_libspdm() {
    let mut tally = Tally::new("requester", "provision");
    for case in managed_cases() {
        tally.check(&case, "one key", || asked(&case, false));
        tally.check(&case, "several keys", || asked(&case, true));
    }
    tally.finish();
}
