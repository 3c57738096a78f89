//! SLOT_MANAGEMENT: slots of every algorithm in one connection.

use std::sync::OnceLock;

use spdm::crypto::AsymAlgorithm;
use spdm::identity::{Material, generate};
use spdm::requester::{
    BankReport, Command, CsrQuery, Driver, DriverError, Misuse, PeerCertificate, Reply, RequesterConfig,
    RequesterError, Response, SlotCommand, SlotContent, SlotReply, Transport, Violation,
};
use spdm::responder::{Event, MultipleKeys, Provisioning};
use spdm::slot::{Slot, Slots};
use spdm::wire::{
    BankElement, CertificateModel, Code, ErrorCode, KeyPairAlgorithms, KeyPairOperation, KeyPairParameters,
    KeyUsage, SlotAddress, SubCode, Version,
};

use super::pair::*;
use super::provision::{WRITABLE, digests, managed, material, refusal, several_keys};

const P384: AsymAlgorithm = AsymAlgorithm::EcdsaP384;
const V1_4: Version = Version::V1_4;
const MANAGED: Provisioning = Provisioning { slot_management: true, ..WRITABLE };

fn p384() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| generate(&NAME, P384).unwrap())
}

/// Slots 0 and 2 with P-256, of which the second is empty; slot 1 with P-384.
fn two_banks() -> Slots {
    let mut slots = Slots::single(material(0).slot());
    slots.slots[1] = Some(Slot { key_pair: 2, ..p384().slot() });
    slots.slots[2] = Some(Slot { certificates: Vec::new(), key_pair: 3, ..material(1).slot() });
    slots
}

/// Connected by P-256, so that the other Bank is out of reach of all other requests.
fn pair(provisioning: Provisioning, slots: Slots) -> Pair {
    let requester = requester_config(V1_4);
    let signatures = vec![AsymAlgorithm::EcdsaP256];
    managed(V1_4, provisioning, slots, RequesterConfig { signatures, ..requester })
}

fn slots(pair: &mut Pair, command: SlotCommand) -> SlotReply {
    let Reply::Slots(reply) = pair.run(Command::Slots(command)).unwrap() else { panic!() };
    reply
}

fn bank(pair: &mut Pair, bank: u8) -> BankReport {
    let SlotReply::Bank(report) = slots(pair, SlotCommand::Bank { bank }) else { panic!() };
    report
}

fn banks(pair: &mut Pair) -> Vec<BankElement> {
    let SlotReply::Banks(banks) = slots(pair, SlotCommand::Banks) else { panic!() };
    banks
}

fn certificate(bank: u8, slot: u8) -> SlotCommand {
    SlotCommand::Certificate { address: SlotAddress { bank, slot } }
}

fn write(bank: u8, slot: u8, content: SlotContent) -> SlotCommand {
    SlotCommand::Write { address: SlotAddress { bank, slot }, key_pair: 0, content }
}

fn chain(material: &Material) -> SlotContent {
    SlotContent::Chain { certificates: material.certificates().to_vec(), model: CertificateModel::Device }
}

fn fetched(pair: &mut Pair, command: SlotCommand) -> PeerCertificate {
    let SlotReply::Certificate(found) = slots(pair, command) else { panic!() };
    found
}

#[test]
fn every_bank_is_shown() {
    let mut pair = pair(MANAGED, two_banks());
    let SlotReply::SubCodes(codes) = slots(&mut pair, SlotCommand::SubCodes) else { panic!() };
    assert!(
        codes.has(SubCode::GET_CSR) && codes.has(SubCode::MANAGE_SLOT) && !codes.has(SubCode::MANAGE_BANK)
    );
    let element = |bank, slots| BankElement { bank, slots, modifiable: slots };
    assert_eq!(banks(&mut pair), [element(0, 0b101), element(1, 0b10)]);

    let first = bank(&mut pair, 0);
    assert_eq!((first.configurable, first.selected), (false, true));
    assert_eq!(first.current, KeyPairAlgorithms::of(AsymAlgorithm::EcdsaP256));
    assert_eq!((first.capabilities.count(), first.available.count()), (0, 0));
    let shown: Vec<_> =
        first.slots.iter().map(|slot| (slot.slot, slot.digest.is_some(), slot.write_protected)).collect();
    assert_eq!(shown, [(0, true, false), (2, false, false)]);
    let (_, digest) = &digests(&mut pair).digests[0];
    assert_eq!(first.slots[0].digest.as_ref(), Some(digest));
    assert!(first.slots[0].size > 4000);
    // One key: nothing of several is said.
    assert!(first.slots.iter().all(|slot| slot.key_pair == 0 && slot.model.is_none()));

    let second = bank(&mut pair, 1);
    assert!(!second.selected);
    assert_eq!(second.current, KeyPairAlgorithms::of(P384));
    let found = fetched(&mut pair, certificate(1, 1));
    assert_eq!(found.chain.certificates, p384().certificates());
    assert_eq!(second.slots[0].digest.as_ref(), Some(&found.chain_digest));
    let own = fetched(&mut pair, certificate(0, 0));
    assert_eq!(own.chain.certificates, material(0).certificates());

    for command in [
        SlotCommand::Bank { bank: 2 },
        certificate(0, 1),
        certificate(1, 0),
        certificate(2, 0),
        // It is empty.
        certificate(0, 2),
        certificate(0, 3),
    ] {
        assert_eq!(refusal(&mut pair, Command::Slots(command)), (ErrorCode::INVALID_REQUEST, 0));
    }
}

#[test]
fn slots_of_another_bank_are_certified_written_and_erased() {
    let mut pair = pair(MANAGED, two_banks());
    let csr = |bank| SlotCommand::Csr { bank, query: CsrQuery::default() };
    // The connection's hash is none that goes with the second key.
    for (bank, key) in [(0, material(0).slot().key), (1, p384().slot().key)] {
        let SlotReply::Csr(request) = slots(&mut pair, csr(bank)) else { panic!() };
        let key = key.public_key();
        assert!(request.windows(key.len()).any(|window| window == key), "Bank {bank}");
    }
    assert_eq!(refusal(&mut pair, Command::Slots(csr(2))), (ErrorCode::INVALID_REQUEST, 0));

    let erase = || Command::Slots(write(1, 1, SlotContent::Nothing));
    let store = |material| Command::Slots(write(1, 1, chain(material)));
    assert_eq!(refusal(&mut pair, erase()), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert_eq!(refusal(&mut pair, store(p384())), (ErrorCode::UNEXPECTED_REQUEST, 0));
    let id = pair.start();
    assert_eq!(pair.run(erase()).unwrap(), Reply::Slots(SlotReply::Done));
    assert_eq!(pair.events(), [Event::SlotChanged { slot: 1 }]);
    assert_eq!(refusal(&mut pair, erase()), (ErrorCode::INVALID_REQUEST, 0), "it is empty");
    assert_eq!(bank(&mut pair, 1).slots[0].digest, None);
    // A chain for another key, and the right one under the wrong Bank.
    assert_eq!(refusal(&mut pair, store(material(1))), (ErrorCode::UNSPECIFIED, 0));
    let misplaced = Command::Slots(write(0, 1, chain(p384())));
    assert_eq!(refusal(&mut pair, misplaced), (ErrorCode::INVALID_REQUEST, 0));
    assert_eq!(pair.events(), []);
    pair.run(store(p384())).unwrap();
    assert_eq!(pair.events(), [Event::SlotChanged { slot: 1 }]);
    assert_eq!(fetched(&mut pair, certificate(1, 1)).chain.certificates, p384().certificates());
    assert_eq!(pair.device.responder.slots().get(1).unwrap().certificates, p384().certificates());

    // What it writes into the connection's own Bank is what every other request sees.
    pair.run(Command::Slots(write(0, 2, chain(material(1))))).unwrap();
    assert_eq!(digests(&mut pair).provisioned, 0b101);
    pair.run(Command::Certificate { slot: 2 }).unwrap();
    pair.exercise(id);
}

#[test]
fn what_takes_a_reset_takes_it_here_too() {
    let mut pair = pair(Provisioning { at_reset: true, ..MANAGED }, two_banks());
    pair.start();
    let reset = (ErrorCode::RESET_REQUIRED, 0);
    assert_eq!(refusal(&mut pair, Command::Slots(write(1, 1, SlotContent::Nothing))), reset);
    // It is shown to nobody before.
    assert_eq!(refusal(&mut pair, Command::Slots(certificate(1, 1))), reset);
    assert_eq!(refusal(&mut pair, Command::Slots(SlotCommand::Bank { bank: 1 })), reset);
    assert_eq!(bank(&mut pair, 0).slots.len(), 2);
    // The last wish counts.
    assert_eq!(refusal(&mut pair, Command::Slots(write(1, 1, chain(p384())))), reset);
    assert_eq!(refusal(&mut pair, Command::Slots(write(1, 1, SlotContent::Nothing))), reset);
    let csr = |tracking_tag| {
        let query = CsrQuery { tracking_tag, ..CsrQuery::default() };
        Command::Slots(SlotCommand::Csr { bank: 1, query })
    };
    assert_eq!(refusal(&mut pair, csr(0)), (ErrorCode::RESET_REQUIRED, 1));
    pair.events();
    pair.device.responder.reset();
    assert!(pair.events().contains(&Event::SlotChanged { slot: 1 }));
    pair.run(Command::Connect).unwrap();
    assert_eq!(bank(&mut pair, 1).slots[0].digest, None);
    assert!(matches!(pair.run(csr(1)), Ok(Reply::Slots(SlotReply::Csr(_)))));
    assert_eq!(refusal(&mut pair, csr(1)), (ErrorCode::UNEXPECTED_REQUEST, 0), "it was fetched");
}

#[test]
fn several_keys_are_named() {
    let provisioning = Provisioning {
        slot_management: true,
        multiple_keys: MultipleKeys::Negotiated,
        key_pair_info: true,
        set_key_pair_info: true,
        ..WRITABLE
    };
    let requester = RequesterConfig { multiple_keys: true, ..requester_config(V1_4) };
    let mut pair = managed(V1_4, provisioning, several_keys(), requester);
    // The free key pair can have two algorithms; a slot without a key is empty in both Banks.
    let element = |bank, slots| BankElement { bank, slots, modifiable: slots };
    assert_eq!(banks(&mut pair), [element(0, 0b111), element(1, 0b100)]);
    let told: Vec<_> =
        bank(&mut pair, 0).slots.iter().map(|slot| (slot.key_pair, slot.model, slot.usage)).collect();
    let (device, generic) = (CertificateModel::Device, CertificateModel::Generic);
    let expected =
        [(1, Some(device), KeyUsage::ALL), (2, Some(generic), KeyUsage::CHALLENGE), (0, None, KeyUsage(0))];
    assert_eq!(told, expected);

    pair.start();
    let content = SlotContent::Chain { certificates: material(2).certificates().to_vec(), model: generic };
    let store = |key_pair| {
        let address = SlotAddress { bank: 0, slot: 2 };
        Command::Slots(SlotCommand::Write { address, key_pair, content: content.clone() })
    };
    assert_eq!(refusal(&mut pair, store(3)), (ErrorCode::INVALID_REQUEST, 0), "the slot has no key yet");
    let operation = KeyPairOperation::Change(KeyPairParameters { slots: 4, ..KeyPairParameters::default() });
    pair.run(Command::SetKeyPair { key_pair: 3, operation }).unwrap();
    assert_eq!(banks(&mut pair), [element(0, 0b111), element(1, 0)]);
    assert_eq!(refusal(&mut pair, store(1)), (ErrorCode::INVALID_REQUEST, 0));
    pair.run(store(3)).unwrap();
    assert_eq!(bank(&mut pair, 0).slots[2].model, Some(generic));

    let csr = |bank, key_pair, model| {
        let query = CsrQuery { key_pair, model, ..CsrQuery::default() };
        Command::Slots(SlotCommand::Csr { bank, query })
    };
    pair.run(csr(0, 3, Some(device))).unwrap();
    for (bank, key_pair, model) in
        [(1, 3, Some(device)), (0, 0, Some(device)), (0, 4, Some(device)), (0, 3, None)]
    {
        assert_eq!(refusal(&mut pair, csr(bank, key_pair, model)), (ErrorCode::INVALID_REQUEST, 0));
    }
}

#[test]
fn it_is_not_asked_of_those_who_do_not_have_it() {
    let command = || Command::Slots(SlotCommand::Banks);
    let missing = RequesterError::Misuse(Misuse::NotCapable("SLOT_MANAGEMENT"));
    let mut without = pair(WRITABLE, two_banks());
    assert_eq!(without.fail(command()), missing);
    let signatures = vec![AsymAlgorithm::EcdsaP256];
    let requester = RequesterConfig { signatures, ..requester_config(Version::V1_3) };
    let mut earlier = managed(Version::V1_3, MANAGED, two_banks(), requester);
    assert_eq!(earlier.fail(command()), missing);
    let mut pair = pair(MANAGED, two_banks());
    for (command, what) in [
        (certificate(0, 8), "slot"),
        (write(0, 8, SlotContent::Nothing), "slot"),
        (SlotCommand::Configure { bank: 0, algorithm: KeyPairAlgorithms::default() }, "number of algorithms"),
    ] {
        assert_eq!(pair.fail(Command::Slots(command)), Misuse::OutOfRange(what).into());
    }
    // Banks follow from the keys.
    let algorithm = KeyPairAlgorithms::of(P384);
    let configure = Command::Slots(SlotCommand::Configure { bank: 0, algorithm });
    let unsupported = (ErrorCode::UNSUPPORTED_REQUEST, Code::SLOT_MANAGEMENT.0);
    assert_eq!(refusal(&mut pair, configure), unsupported);
}

/// Changes what the responder answers.
struct Deceit<'a> {
    device: &'a mut Device,
    change: fn(&mut Vec<u8>),
}

impl Transport for Deceit<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let mut response = self.device.exchange(secured, message)?;
        (self.change)(&mut response.bytes);
        Ok(response)
    }

    fn wait(&mut self, delay: std::time::Duration) {
        self.device.wait(delay);
    }
}

/// The first slot of a Bank is described from byte 47 on, by 48 bytes.
#[test]
fn contradictions_are_found() {
    type Case = (SlotCommand, fn(&mut Vec<u8>), Option<Violation>);
    let details = || SlotCommand::Bank { bank: 0 };
    let told = |what| Some(Violation::Slots(what));
    let cases: Vec<Case> = vec![
        (SlotCommand::SubCodes, |b| b[12] &= !2, told("a required sub-code is missing")),
        (SlotCommand::SubCodes, |b| b[2] = 2, None),
        (SlotCommand::Banks, |b| b[17] = 0, told("the Banks are not in order")),
        (SlotCommand::Banks, |b| b[15] |= 2, None),
        (details(), |b| b[10] = 1, Some(Violation::Echo("the Bank"))),
        (details(), |b| b[20] |= 1, told("the Bank has several algorithms")),
        (details(), |b| b[24] |= 8, told("algorithms are available that the Bank cannot have")),
        (details(), |b| b[49] = 2, told("the slots are not in order")),
        (
            details(),
            |b| {
                // Behind the first slot, which is as long as the digest makes it.
                let second = 47 + usize::from(b[47]);
                b[second + 2] = 8;
            },
            told("there are eight slots"),
        ),
        (details(), |b| b[52] = 1, told("the connection has one key")),
        (details(), |b| b[53] = 1, told("the connection has one key")),
        (details(), |b| b[53] = 7, None),
        (
            details(),
            |b| {
                b.truncate(8 + 39 + 47);
                b[8] = 39 + 47;
                b[12] = 1;
                b[47] = 47;
            },
            told("a digest is not of the negotiated hash"),
        ),
        (certificate(0, 0), |b| b[8] = 1, None),
        (certificate(0, 0), |b| b[20] ^= 1, Some(Violation::Digest("root"))),
        (
            SlotCommand::Csr { bank: 0, query: CsrQuery::default() },
            |b| *b = [&[0x14, 8, 3, 0][..], &b[4..]].concat(),
            Some(Violation::Echo("the sub-code")),
        ),
    ];
    let mut pair = pair(MANAGED, two_banks());
    for (at, (command, change, expected)) in cases.into_iter().enumerate() {
        let transport = Deceit { device: &mut pair.device, change };
        let command = Command::Slots(command);
        let result = Driver::new(&mut pair.requester, transport).run(command.clone());
        let Err(DriverError::Requester(error)) = result else { panic!("case {at}, {command:?}: {result:?}") };
        match (error, expected) {
            (RequesterError::Violation { violation, .. }, Some(expected)) => {
                assert_eq!(violation, expected, "case {at}");
            }
            (RequesterError::Malformed { .. }, None) => {}
            (error, expected) => panic!("case {at}, {command:?}: {error:?}, not {expected:?}"),
        }
    }
    assert_eq!(bank(&mut pair, 0).slots.len(), 2);
}

/// A Bank that can be configured, as another responder may have one, answered by hand.
#[test]
fn a_bank_is_configured() {
    struct Other(Vec<u8>);
    impl Transport for &mut Other {
        type Error = ();

        fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, ()> {
            self.0 = message.to_vec();
            Ok(Response { secured, bytes: vec![0x14, 0x08, 0x20, 0, 0, 0, 0, 0] })
        }

        fn wait(&mut self, _delay: std::time::Duration) {}
    }
    let mut pair = pair(MANAGED, two_banks());
    let mut other = Other(Vec::new());
    let mut driver = Driver::new(&mut pair.requester, &mut other);
    driver.configure_bank(1, KeyPairAlgorithms::of(P384)).unwrap();
    let sent = [
        &[0x14, 0x88, 0x20, 0, 8, 0, 0, 0][..],
        &[8, 0, 1, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0x10, 0, 0, 0, 4, 0, 0, 0, 0],
    ];
    assert_eq!(other.0, sent.concat());
}
