//! Slots that requesters fill and erase, several keys, and what a device tells about itself.

use std::sync::{Arc, OnceLock};

use spdm::crypto::{AsymAlgorithm, CryptoError, RingSigner, Signer};
use spdm::identity::{Material, generate};
use spdm::requester::{
    Command, CsrQuery, EndpointReport, KeyPairReport, MeasurementLogReport, Misuse, Reply, RequesterConfig,
    RequesterError, SlotContent, SlotDigests,
};
use spdm::responder::{
    EndpointInfoSupport, Event, MeasurementLogItem, MeasurementValue, MultipleKeys, Provisioning,
    ResponderConfig,
};
use spdm::slot::{KeyGenerator, KeyPair, Slot, Slots};
use spdm::wire::{
    CertificateModel, Code, DeviceClass, ErrorCode, KeyPairAlgorithms, KeyPairCapabilities, KeyPairOperation,
    KeyPairParameters, KeyUsage, MeasurementOperation, SlotKey, SummaryType, Version,
};

use super::pair::*;

const P256: AsymAlgorithm = AsymAlgorithm::EcdsaP256;

/// Identities with different keys.
pub(super) fn material(number: usize) -> &'static Material {
    static MATERIAL: [OnceLock<Material>; 3] = [const { OnceLock::new() }; 3];
    MATERIAL[number].get_or_init(|| generate(&NAME, P256).unwrap())
}

pub(super) fn chain(number: usize) -> SlotContent {
    let certificates = material(number).certificates().to_vec();
    SlotContent::Chain { certificates, model: CertificateModel::Generic }
}

pub(super) fn store(slot: u8, content: SlotContent) -> Command {
    Command::SetCertificate { slot, key_pair: 0, content }
}

/// Slot 0 with the first identity, slot 1 empty with the key of the second.
pub(super) fn one_empty() -> Slots {
    let mut slots = Slots::single(material(0).slot());
    let empty = Slot { certificates: Vec::new(), key_pair: 2, ..material(1).slot() };
    slots.slots[1] = Some(empty);
    slots
}

pub(super) fn managed(
    version: Version,
    provisioning: Provisioning,
    slots: Slots,
    requester: RequesterConfig,
) -> Pair {
    let mut config = responder_config(version);
    config.capabilities.provisioning = provisioning;
    let mut pair = Pair::with(config, slots, requester);
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

pub(super) const WRITABLE: Provisioning = Provisioning {
    set_certificate: true,
    csr: true,
    slot_management: false,
    at_reset: false,
    trusted_environment: false,
    key_pair_info: false,
    set_key_pair_info: false,
    multiple_keys: MultipleKeys::No,
};

pub(super) fn refusal(pair: &mut Pair, command: Command) -> (ErrorCode, u8) {
    let error = pair.fail(command);
    let RequesterError::Refused { code, data, .. } = error else { panic!("{error:?}") };
    (code, data)
}

pub(super) fn digests(pair: &mut Pair) -> SlotDigests {
    let Reply::Digests(digests) = pair.run(Command::Digests).unwrap() else { panic!() };
    digests
}

#[test]
fn a_slot_is_filled_and_erased() {
    for version in [Version::V1_2, Version::V1_3, Version::V1_4] {
        let mut pair = managed(version, WRITABLE, one_empty(), requester_config(version));
        assert_eq!(digests(&mut pair).provisioned, 1);
        assert_eq!(refusal(&mut pair, store(1, chain(1))), (ErrorCode::UNEXPECTED_REQUEST, 0));
        let id = pair.start();
        let wrong =
            [(store(1, chain(0)), ErrorCode::UNSPECIFIED), (store(2, chain(1)), ErrorCode::INVALID_REQUEST)];
        for (command, code) in wrong {
            assert_eq!(refusal(&mut pair, command), (code, 0));
        }
        assert_eq!(pair.events(), []);
        pair.run(store(1, chain(1))).unwrap();
        assert_eq!(pair.events(), [Event::SlotChanged { slot: 1 }]);
        let kept = pair.device.responder.slots().get(1).unwrap();
        assert_eq!(kept.certificates, material(1).certificates());
        assert_eq!(kept.model, CertificateModel::Device, "one key: the model is not the requester's affair");

        pair.requester.select(None).unwrap();
        assert_eq!(digests(&mut pair).provisioned, 3);
        pair.run(Command::Certificate { slot: 1 }).unwrap();
        pair.run(Command::Challenge { slot: 1, summary: SummaryType::None }).unwrap();

        pair.requester.select(Some(id)).unwrap();
        if version < Version::V1_3 {
            let error = pair.fail(store(1, SlotContent::Nothing));
            assert_eq!(error, Misuse::NotCapable("erasing slots").into());
            continue;
        }
        pair.run(store(1, SlotContent::Nothing)).unwrap();
        assert_eq!(pair.events(), [Event::SlotChanged { slot: 1 }]);
        let left = digests(&mut pair);
        assert_eq!((left.supported, left.provisioned), (3, 1));
        let command = Command::Certificate { slot: 1 };
        assert_eq!(refusal(&mut pair, command), (ErrorCode::INVALID_REQUEST, 0));
        // Slot 0 is nobody's secret, and nothing can be proved without it.
        pair.run(store(0, SlotContent::Nothing)).unwrap();
        let left = digests(&mut pair);
        assert_eq!((left.supported, left.provisioned, left.digests.len()), (3, 0, 0));
    }
}

#[test]
fn a_trusted_environment_needs_no_session() {
    let provisioning = Provisioning { trusted_environment: true, ..WRITABLE };
    let mut pair = managed(Version::V1_3, provisioning, one_empty(), requester_config(Version::V1_3));
    pair.run(store(1, chain(1))).unwrap();
    pair.run(store(0, chain(0))).unwrap();
    let changed: Vec<_> = [1, 0].map(|slot| Event::SlotChanged { slot }).into();
    assert_eq!(pair.events(), changed);
}

#[test]
fn a_slot_may_wait_for_a_reset() {
    let provisioning = Provisioning { at_reset: true, ..WRITABLE };
    let mut pair = managed(Version::V1_3, provisioning, one_empty(), requester_config(Version::V1_3));
    pair.start();
    assert_eq!(refusal(&mut pair, store(1, chain(1))), (ErrorCode::RESET_REQUIRED, 0));
    assert_eq!(refusal(&mut pair, Command::Digests), (ErrorCode::RESET_REQUIRED, 0));
    assert_eq!(refusal(&mut pair, Command::Certificate { slot: 1 }), (ErrorCode::RESET_REQUIRED, 0));
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    assert_eq!(pair.events(), []);
    pair.device.responder.reset();
    assert_eq!(pair.events().last(), Some(&Event::SlotChanged { slot: 1 }));
    pair.run(Command::Connect).unwrap();
    assert_eq!(digests(&mut pair).provisioned, 3);
}

#[test]
fn requests_that_were_not_advertised_are_not_supported() {
    let mut pair = managed(Version::V1_1, WRITABLE, one_empty(), requester_config(Version::V1_1));
    let error = pair.fail(store(1, chain(1)));
    assert_eq!(error, Misuse::NotCapable("SET_CERTIFICATE").into());
    let none = Provisioning::default();
    let mut pair = managed(Version::V1_3, none, one_empty(), requester_config(Version::V1_3));
    let error = pair.fail(Command::Csr(CsrQuery::default()));
    assert_eq!(error, Misuse::NotCapable("GET_CSR").into());
    for command in [
        Command::MeasurementLog,
        Command::EndpointInfo { signed_by: None },
        Command::KeyPair { key_pair: 1 },
        Command::SetKeyPair { key_pair: 1, operation: KeyPairOperation::Erase },
    ] {
        assert!(matches!(pair.fail(command), RequesterError::Misuse(Misuse::NotCapable(_))));
    }
}

#[test]
fn a_csr_is_for_the_key_of_the_connection() {
    for version in [Version::V1_2, Version::V1_3, Version::V1_4] {
        let mut pair = managed(version, WRITABLE, one_empty(), requester_config(version));
        let Reply::Csr(csr) = pair.run(Command::Csr(CsrQuery::default())).unwrap() else { panic!() };
        let slot = material(0).slot();
        let key = slot.key.public_key();
        assert!(csr.windows(key.len()).any(|window| window == key));
        // Not a CertificationRequestInfo.
        let query = CsrQuery { requester_info: vec![0x30, 0x00], ..CsrQuery::default() };
        assert_eq!(refusal(&mut pair, Command::Csr(query)), (ErrorCode::INVALID_REQUEST, 0));
    }
}

/// The table of libspdm's `libspdm_gen_csr_ex`: a request waits under its tag, and one at a time.
#[test]
fn a_csr_may_wait_for_a_reset() {
    let provisioning = Provisioning { at_reset: true, ..WRITABLE };
    let mut pair = managed(Version::V1_3, provisioning, one_empty(), requester_config(Version::V1_3));
    let ask =
        |tracking_tag, overwrite| Command::Csr(CsrQuery { tracking_tag, overwrite, ..CsrQuery::default() });
    assert_eq!(refusal(&mut pair, ask(3, false)), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert_eq!(refusal(&mut pair, ask(0, false)), (ErrorCode::RESET_REQUIRED, 1));
    let busy = RequesterError::OutOfPatience { request: Code::GET_CSR };
    assert_eq!(pair.fail(ask(0, false)), busy);
    assert_eq!(pair.fail(ask(1, false)), busy);
    assert_eq!(refusal(&mut pair, ask(0, true)), (ErrorCode::RESET_REQUIRED, 2));
    assert_eq!(refusal(&mut pair, ask(1, false)), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert_eq!(pair.fail(ask(1, true)), Misuse::OutOfRange("CSR tracking tag").into());
    pair.device.responder.reset();
    pair.run(Command::Connect).unwrap();
    assert_eq!(refusal(&mut pair, ask(1, false)), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert!(matches!(pair.run(ask(2, false)), Ok(Reply::Csr(_))));
    assert_eq!(refusal(&mut pair, ask(2, false)), (ErrorCode::UNEXPECTED_REQUEST, 0), "it was fetched");
    assert_eq!(refusal(&mut pair, ask(0, false)), (ErrorCode::RESET_REQUIRED, 1));

    // Before 1.3 a request is known by its bytes.
    let mut pair = managed(Version::V1_2, provisioning, one_empty(), requester_config(Version::V1_2));
    assert_eq!(refusal(&mut pair, ask(0, false)), (ErrorCode::RESET_REQUIRED, 0));
    assert_eq!(refusal(&mut pair, ask(0, false)), (ErrorCode::RESET_REQUIRED, 0));
    pair.device.responder.reset();
    pair.run(Command::Connect).unwrap();
    assert!(matches!(pair.run(ask(0, false)), Ok(Reply::Csr(_))));
}

/// Three key pairs: of slot 0, of slot 1 for challenges only, and of no slot; slot 2 is empty and has no key.
pub(super) fn several_keys() -> Slots {
    let challenge = KeyUsage::CHALLENGE;
    let slot = |number: usize, key_pair, usage| Slot { key_pair, usage, ..material(number).slot() };
    let mut slots = Slots::single(slot(0, 1, KeyUsage::ALL));
    let generic = Slot { model: CertificateModel::Generic, ..slot(1, 2, challenge) };
    slots.slots[1] = Some(generic);
    slots.slots[2] = Some(Slot { certificates: Vec::new(), ..slot(2, 0, KeyUsage::ALL) });
    let free = KeyPair {
        capabilities: KeyPairCapabilities(0x3F),
        usage_capabilities: KeyUsage::ALL,
        algorithms: vec![P256, AsymAlgorithm::EcdsaP384],
        ..KeyPair::fixed(material(2).slot().key, KeyUsage::MEASUREMENT)
    };
    slots.key_pairs = vec![
        KeyPair::fixed(material(0).slot().key, KeyUsage::ALL),
        KeyPair::fixed(material(1).slot().key, challenge),
        free,
    ];
    slots.generator = Some(Arc::new(Ready));
    slots
}

/// Has P-256 keys only.
struct Ready;

impl KeyGenerator for Ready {
    fn generate(&self, _key_pair: u8, algorithm: AsymAlgorithm) -> Result<Arc<dyn Signer>, CryptoError> {
        if algorithm != P256 {
            return Err(CryptoError::Unavailable);
        }
        Ok(Arc::new(RingSigner::from_pkcs8(P256, material(2).pkcs8()).unwrap()))
    }
}

pub(super) const SEVERAL: Provisioning = Provisioning {
    key_pair_info: true,
    set_key_pair_info: true,
    multiple_keys: MultipleKeys::Negotiated,
    ..WRITABLE
};

fn several(version: Version, provisioning: Provisioning, wanted: bool) -> Pair {
    let requester = RequesterConfig { multiple_keys: wanted, ..requester_config(version) };
    managed(version, provisioning, several_keys(), requester)
}

fn pair_info(pair: &mut Pair, key_pair: u8) -> KeyPairReport {
    let reply = pair.run(Command::KeyPair { key_pair }).unwrap();
    let Reply::KeyPair(report) = reply else { panic!("{reply:?}") };
    report
}

#[test]
fn several_keys_are_negotiated() {
    let always = Provisioning { multiple_keys: MultipleKeys::Always, ..SEVERAL };
    for (provisioning, wanted, expected) in
        [(SEVERAL, true, true), (SEVERAL, false, false), (always, false, true), (always, true, true)]
    {
        let mut pair = several(Version::V1_3, provisioning, wanted);
        let chosen = pair.requester.connection().unwrap().algorithms.multiple_keys;
        assert_eq!(chosen, expected);
        assert_eq!(digests(&mut pair).keys.is_empty(), !expected);
    }
    let mut pair = several(Version::V1_2, always, true);
    assert_eq!(digests(&mut pair).keys, []);
}

/// The first DIGESTS of the connection is in the transcript of every session, and goes with one that is saved.
#[test]
fn a_restored_connection_begins_another_session() {
    for version in [Version::V1_3, Version::V1_4] {
        let mut pair = several(version, SEVERAL, true);
        digests(&mut pair);
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        pair.start();
        let saved = pair.requester.save().unwrap();
        pair.requester.restore(&saved).unwrap();
        pair.run(Command::EndSession { clear_negotiated_state: false }).unwrap();
        let id = pair.start();
        pair.exercise(id);
    }
}

#[test]
fn every_slot_has_a_key_and_a_use() {
    let mut pair = several(Version::V1_3, SEVERAL, true);
    let found = digests(&mut pair);
    let key = |key_pair, model, usage| SlotKey { key_pair, model: Some(model), usage };
    let expected = [
        (0, key(1, CertificateModel::Device, KeyUsage::ALL)),
        (1, key(2, CertificateModel::Generic, KeyUsage::CHALLENGE)),
    ];
    assert_eq!(found.keys, expected);
    assert_eq!((found.supported, found.provisioned), (7, 3));
    pair.run(Command::Certificate { slot: 1 }).unwrap();
    pair.run(Command::Challenge { slot: 1, summary: SummaryType::None }).unwrap();
    let measure = |slot| {
        let operation = MeasurementOperation::All;
        Command::Measurements(spdm::requester::MeasurementQuery {
            operation,
            raw: false,
            signed_by: Some(slot),
        })
    };
    assert_eq!(refusal(&mut pair, measure(1)), (ErrorCode::INVALID_REQUEST, 0));
    pair.run(measure(0)).unwrap();
    let session = |slot| Command::StartSession { slot, summary: SummaryType::All, end_on_update: false };
    assert_eq!(refusal(&mut pair, session(1)), (ErrorCode::INVALID_REQUEST, 0));
    // DIGESTS is part of the session's transcript, the first one only.
    let _ = digests(&mut pair);
    let id = pair.started(session(0));
    pair.exercise(id);
    assert_eq!(digests(&mut pair).keys, expected);
}

/// Without DIGESTS there is nothing of it in a session's transcript.
#[test]
fn a_session_with_several_keys_needs_no_digests() {
    let mut pair = several(Version::V1_3, SEVERAL, true);
    let id = pair.start();
    pair.exercise(id);
}

#[test]
fn key_pairs_are_shown() {
    let mut pair = several(Version::V1_3, SEVERAL, true);
    let first = pair_info(&mut pair, 1);
    assert_eq!((first.total, first.slots), (3, 1));
    assert_eq!(first.capabilities, KeyPairCapabilities::default());
    assert_eq!(first.algorithm, KeyPairAlgorithms::of(P256));
    // id-ecPublicKey with prime256v1, as libspdm's sample has it.
    let info = [
        0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
        0x3D, 0x03, 0x01, 0x07,
    ];
    assert_eq!(first.public_key_info, info);
    let third = pair_info(&mut pair, 3);
    assert_eq!((third.slots, third.usage, third.usage_capabilities.0), (0, KeyUsage::MEASUREMENT, 0xF));
    assert_eq!(third.algorithm_capabilities.classic, 0x18);
    for id in [0, 4] {
        let command = Command::KeyPair { key_pair: id };
        assert_eq!(refusal(&mut pair, command), (ErrorCode::INVALID_REQUEST, 0));
    }
    let shown = Provisioning { set_key_pair_info: false, ..SEVERAL };
    let mut pair = several(Version::V1_3, shown, true);
    assert_eq!(pair_info(&mut pair, 3).capabilities, KeyPairCapabilities::default());
}

#[test]
fn key_pairs_are_changed_erased_and_generated() {
    use KeyPairOperation::{Change, Erase, Generate};
    let mut pair = several(Version::V1_3, SEVERAL, true);
    let set = |key_pair, operation| Command::SetKeyPair { key_pair, operation };
    let wanted = |usage, algorithm, slots| KeyPairParameters { usage: KeyUsage(usage), algorithm, slots };
    let any = KeyPairAlgorithms::default();
    let (p256, p384) = (KeyPairAlgorithms::of(P256), KeyPairAlgorithms::of(AsymAlgorithm::EcdsaP384));
    let p521 = KeyPairAlgorithms::of(AsymAlgorithm::EcdsaP521);
    let (invalid, failed) = ((ErrorCode::INVALID_REQUEST, 0), (ErrorCode::OPERATION_FAILED, 0));
    let unsupported = (ErrorCode::UNSUPPORTED_REQUEST, Code::SET_KEY_PAIR_INFO.0);
    for (command, error) in [
        (set(0, Erase), invalid),
        (set(4, Erase), invalid),
        (set(1, Erase), invalid),
        (set(1, Generate(wanted(0, any, 0))), invalid),
        (set(1, Change(wanted(1, any, 1))), invalid),
        (set(1, Change(wanted(0, any, 4))), invalid),
        (set(3, Change(wanted(0x10, any, 0))), invalid),
        (set(3, Change(wanted(0, p256.union(p384), 0))), invalid),
        (set(3, Change(wanted(0, p521, 0))), unsupported),
        (set(3, Change(wanted(0, p384, 0))), failed),
        // Slot 1 holds a chain for another key; slot 3 does not exist.
        (set(3, Change(wanted(0, any, 2))), failed),
        (set(3, Change(wanted(0, any, 8))), invalid),
        (set(3, Generate(wanted(0, p384, 0))), failed),
    ] {
        assert_eq!(refusal(&mut pair, command.clone()), error, "{command:?}");
    }
    assert_eq!(pair.events(), []);
    pair.run(set(1, Change(wanted(0, any, 0)))).unwrap();
    assert_eq!(pair_info(&mut pair, 1).slots, 1, "what cannot be changed stays");
    assert_eq!(pair.events(), [Event::KeyPairChanged { key_pair: 1 }]);

    pair.run(set(3, Change(wanted(5, any, 4)))).unwrap();
    assert_eq!(pair.events(), [Event::KeyPairChanged { key_pair: 3 }]);
    let report = pair_info(&mut pair, 3);
    assert_eq!((report.slots, report.usage), (4, KeyUsage(5)));
    for operation in [Erase, Generate(wanted(0, any, 0))] {
        assert_eq!(refusal(&mut pair, set(3, operation)), failed, "a slot relies on it");
    }

    // The slot takes a chain for its new key, and keeps the key from then on.
    pair.start();
    let content = || SlotContent::Chain {
        certificates: material(2).certificates().to_vec(),
        model: CertificateModel::Generic,
    };
    let store = |key_pair, content| Command::SetCertificate { slot: 2, key_pair, content };
    assert_eq!(refusal(&mut pair, store(1, content())), invalid);
    pair.run(store(3, content())).unwrap();
    assert_eq!(pair.device.responder.slots().get(2).unwrap().model, CertificateModel::Generic);
    assert_eq!(refusal(&mut pair, set(3, Change(wanted(0, any, 0)))), failed);
    pair.run(store(3, SlotContent::Nothing)).unwrap();
    pair.run(set(3, Change(wanted(0, any, 0)))).unwrap();
    pair.run(set(3, Erase)).unwrap();
    let report = pair_info(&mut pair, 3);
    assert_eq!((report.slots, report.algorithm, report.public_key_info.len()), (0, any, 0));
    assert_eq!(refusal(&mut pair, set(3, Change(wanted(0, any, 4)))), failed, "there is no key to associate");
    assert_eq!(refusal(&mut pair, set(3, Generate(wanted(0, p256, 2)))), failed, "slot 1 has a key");
    assert_eq!(pair_info(&mut pair, 3).algorithm, any, "and no key was made");
    pair.run(set(3, Generate(wanted(2, p256, 4)))).unwrap();
    let report = pair_info(&mut pair, 3);
    assert_eq!((report.slots, report.algorithm, report.usage), (4, p256, KeyUsage(2)));
}

fn informed(support: EndpointInfoSupport) -> ResponderConfig {
    let item = |index, value| MeasurementLogItem { index, kind: 1, value };
    let mut config = responder_config(Version::V1_3);
    config.capabilities.measurement_log = true;
    config.capabilities.endpoint_info = support;
    config.measurement_log = vec![
        item(1, MeasurementValue::RawOnly(vec![7; 6000])),
        item(2, MeasurementValue::Digest(vec![8; 48])),
    ];
    config.device_classes = vec![DeviceClass {
        registry: 3,
        vendor_id: vec![0x36, 0x1B],
        subordinates: vec![vec![0x11, 0], vec![0, 0x11]],
    }];
    config
}

#[test]
fn the_measurement_log_comes_in_portions() {
    let mut pair = Pair::with(informed(EndpointInfoSupport::None), slots(), requester_config(Version::V1_3));
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    for session in [false, true] {
        if session {
            pair.start();
        }
        let reply = pair.run(Command::MeasurementLog).unwrap();
        let Reply::MeasurementLog(MeasurementLogReport { entries }) = reply else { panic!("{reply:?}") };
        let found: Vec<_> = entries
            .iter()
            .map(|entry| {
                (entry.number, entry.measurement.index, entry.measurement.raw, entry.measurement.value.len())
            })
            .collect();
        assert_eq!(found, [(1, 1, true, 6000), (2, 2, false, 48)]);
    }
}

#[test]
fn endpoint_information_is_signed_on_request() {
    for support in [EndpointInfoSupport::Unsigned, EndpointInfoSupport::Signed] {
        let classes = informed(support).device_classes;
        let mut pair = Pair::with(informed(support), slots(), requester_config(Version::V1_3));
        pair.run(Command::Connect).unwrap();
        let missing = pair.fail(Command::EndpointInfo { signed_by: Some(0) });
        assert!(matches!(missing, RequesterError::Misuse(_)));
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        for session in [false, true] {
            if session {
                pair.start();
            }
            let reply = pair.run(Command::EndpointInfo { signed_by: None }).unwrap();
            let expected = EndpointReport { classes: classes.clone(), signed: false };
            assert_eq!(reply, Reply::EndpointInfo(expected));
            if support == EndpointInfoSupport::Signed {
                let reply = pair.run(Command::EndpointInfo { signed_by: Some(0) }).unwrap();
                let expected = EndpointReport { classes: classes.clone(), signed: true };
                assert_eq!(reply, Reply::EndpointInfo(expected));
            }
        }
    }
}
