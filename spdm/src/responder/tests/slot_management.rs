//! SLOT_MANAGEMENT byte by byte: who has it, what is supported, malformed structures, and where it may be used.

use proptest::prelude::*;

use super::device::*;
use super::provision::managed;
use crate::codec::Reader;
use crate::crypto::RingProvider;
use crate::responder::*;
use crate::slot::{PublicKey, Slots};
use crate::wire::*;

const VERSION: Version = Version::V1_4;
const INVALID: (ErrorCode, u8) = (ErrorCode::INVALID_REQUEST, 0);
const UNSUPPORTED: (ErrorCode, u8) = (ErrorCode::UNSUPPORTED_REQUEST, Code::SLOT_MANAGEMENT.0);
const UNEXPECTED: (ErrorCode, u8) = (ErrorCode::UNEXPECTED_REQUEST, 0);

fn request(operation: SlotOperation<'_>) -> Vec<u8> {
    encoded(|out| SlotManagement { version: VERSION, operation }.encode(out).unwrap())
}

fn device(change: impl FnOnce(&mut Provisioning)) -> Device {
    let mut config = managed();
    change(&mut config.capabilities.provisioning);
    let mut device = Device::with(config, VERSION);
    device.negotiate();
    device
}

fn csr() -> GetCsr<'static> {
    GetCsr {
        version: VERSION,
        key_pair: 0,
        model: None,
        tracking_tag: 0,
        overwrite: false,
        requester_info: &[],
        opaque: &[],
    }
}

#[test]
fn the_capability_is_that_of_1_4_and_of_the_configuration() {
    for version in Version::IMPLEMENTED {
        for on in [false, true] {
            let mut config = managed();
            config.capabilities.provisioning.slot_management = on;
            let mut device = Device::with(config, version);
            device.get_version();
            let response = device.send(&device.capabilities_request());
            let capabilities = Capabilities::parse(&mut Reader::new(&response)).unwrap();
            let expected = on && version >= VERSION;
            assert_eq!(capabilities.extended_flags.0, u16::from(expected), "{version}");
            // Reserved bytes before 1.4.
            assert_eq!(response[6..8], [u8::from(expected), 0], "{version}");
        }
    }
    let mut device = device(|provisioning| provisioning.slot_management = false);
    assert_eq!(device.error(&request(SlotOperation::BankInfo)), UNSUPPORTED);
}

/// What is listed and not there is unsupported, whatever else is wrong with it; what is not listed is invalid.
#[test]
fn sub_codes_are_those_of_the_configuration() {
    let sub_codes = |device: &mut Device| {
        let response = device.send(&request(SlotOperation::SupportedSubCodes));
        let response = SlotManagementResp::parse(&mut Reader::new(&response)).unwrap();
        let SlotReport::SupportedSubCodes(codes) = response.content else { panic!() };
        codes
    };
    use SubCode as S;
    let reading = [S::SUPPORTED_SUB_CODES, S::GET_BANK_INFO, S::GET_BANK_DETAILS, S::GET_CERTIFICATE_CHAIN];
    let writing = [S::MANAGE_SLOT, S::SET_CERTIFICATE];
    for (set_certificate, csr) in [(false, false), (true, false), (true, true)] {
        let mut device = device(|provisioning| {
            provisioning.set_certificate = set_certificate;
            provisioning.csr = csr;
        });
        let codes = sub_codes(&mut device);
        let expected = reading.iter().chain(csr.then_some(&S::GET_CSR)).chain(if set_certificate {
            writing.iter()
        } else {
            [].iter()
        });
        assert!(codes.iter().eq(expected.copied()), "{codes:?}");
        for code in 0..=u8::MAX {
            let bytes = [0x14, Code::SLOT_MANAGEMENT.0, code, 0, 9, 0, 0, 0];
            let listed = S::LISTED.contains(&SubCode(code));
            let expected = if listed && !codes.has(SubCode(code)) { UNSUPPORTED } else { INVALID };
            assert_eq!(device.error(&bytes), expected, "{code:#04x}");
        }
    }
}

#[test]
fn malformed_structures_are_invalid() {
    let mut device = device(|_| ());
    let details = request(SlotOperation::BankDetails { bank: 0 });
    let erase = request(SlotOperation::Erase(SlotAddress::default()));
    let change = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    for bytes in [
        // No structure where there has to be one, and one where there must be none.
        change(&details, 4, 0),
        change(&request(SlotOperation::BankInfo), 4, 8),
        change(&request(SlotOperation::SupportedSubCodes), 4, 8),
        // Within the head, and behind the end.
        change(&details, 4, 7),
        change(&details, 4, 9),
        change(&details, 5, 0xFF),
        // ReqLength.
        change(&details, 8, 7),
        change(&details, 9, 1),
        // No such Bank, no such slot.
        change(&details, 10, 1),
        change(&details, 10, 0xFF),
        change(&request(SlotOperation::CertificateChain(SlotAddress::default())), 11, 1),
        change(&request(SlotOperation::CertificateChain(SlotAddress::default())), 11, 0xF),
        change(&erase, 10, 1),
        change(&erase, 11, 1),
        // Operations there are not.
        change(&erase, 16, 0),
        change(&erase, 16, 2),
        // Fields of several keys.
        request(SlotOperation::Csr {
            address: SlotAddress::default(),
            query: GetCsr { key_pair: 1, ..csr() },
        }),
        request(SlotOperation::Csr {
            address: SlotAddress::default(),
            query: GetCsr { model: Some(CertificateModel::Device), ..csr() },
        }),
        request(SlotOperation::Csr { address: SlotAddress { bank: 1, slot: 0 }, query: csr() }),
        request(SlotOperation::Csr {
            address: SlotAddress::default(),
            query: GetCsr { tracking_tag: 1, ..csr() },
        }),
        request(SlotOperation::SetCertificate {
            address: SlotAddress::default(),
            key_pair: 1,
            model: None,
            chain: &device.chain(),
        }),
        request(SlotOperation::SetCertificate {
            address: SlotAddress::default(),
            key_pair: 0,
            model: Some(CertificateModel::Device),
            chain: &device.chain(),
        }),
    ] {
        assert_eq!(device.error(&bytes), INVALID, "{bytes:02x?}");
    }
    assert!(device.responder.poll_event().is_none());
    assert!(device.responder.slots().get(0).is_some());
}

/// Neither the offset nor the reserved fields have to be what our requester makes of them.
#[test]
fn a_structure_may_be_further_behind() {
    let mut device = device(|_| ());
    let details = request(SlotOperation::BankDetails { bank: 0 });
    let expected = device.send(&details);
    let mut other = details.clone();
    other[4] += 3;
    other.splice(8..8, [0xA5; 3]);
    *other.last_mut().unwrap() = 0xA5;
    other[6] = 0xA5;
    assert_eq!(device.send(&other), expected);
}

/// Slots but the first are written in sessions or in a trusted environment, and erasing takes that for any.
#[test]
fn writing_takes_a_session_or_a_trusted_environment() {
    let erase = request(SlotOperation::Erase(SlotAddress::default()));
    let mut device = device(|provisioning| provisioning.trusted_environment = false);
    assert_eq!(device.error(&erase), UNEXPECTED);
    let store = request(SlotOperation::SetCertificate {
        address: SlotAddress::default(),
        key_pair: 0,
        model: None,
        chain: &device.chain(),
    });
    assert_eq!(device.send(&store), [0x14, 0x08, 0x22, 0, 0, 0, 0, 0]);
    assert_eq!(device.responder.poll_event(), Some(Event::SlotChanged { slot: 0 }));
    let mut client = device.establish();
    assert_eq!(client.send(&mut device, &erase), [0x14, 0x08, 0x21, 0, 0, 0, 0, 0]);
    assert_eq!(device.responder.poll_event(), Some(Event::SlotChanged { slot: 0 }));
    // There is nothing left to erase, or to read.
    assert_eq!(client.error(&mut device, &erase), INVALID);
    let chain = request(SlotOperation::CertificateChain(SlotAddress::default()));
    assert_eq!(client.error(&mut device, &chain), INVALID);
}

/// The whole chain has to fit what the requester receives.
#[test]
fn a_chain_too_long_for_the_requester_is_announced() {
    let mut device = device(|_| ());
    let chain = device.chain();
    let ask = request(SlotOperation::CertificateChain(SlotAddress::default()));
    let response = device.send(&ask);
    assert_eq!(response[..8], [0x14, 0x08, 3, 0, 8, 0, 0, 0]);
    assert_eq!(response[8..16], [&u32::try_from(chain.len()).unwrap().to_le_bytes()[..], &[0; 4]].concat());
    assert_eq!(response[16..], chain);
}

#[test]
fn it_needs_slots() {
    let mut config = managed();
    config.capabilities.provisioning = Provisioning { slot_management: true, ..Provisioning::default() };
    config.versions.retain(|version| *version > Version::V1_0);
    let key = Device::new(VERSION).responder.slots().get(0).unwrap().key.clone();
    let slots = Slots::known(PublicKey { info: key.public_key().to_vec(), key });
    let error = Responder::new(config, slots, Box::new(RingProvider::new())).unwrap_err();
    assert!(matches!(error, ConfigError::OutOfRange { field: "slot_management", .. }));
}

proptest! {
    /// Whatever follows the head, there is an answer in the protocol, and in the clear outside a trusted environment no
    /// slot is erased.
    #[test]
    fn arbitrary_structures_never_erase(
        code in prop_oneof![0_u8..5, 0x20_u8..0x23, any::<u8>()],
        offset in prop_oneof![Just(8_u16), Just(0), any::<u16>()],
        head in prop_oneof![Just(vec![8, 0, 0, 0, 0, 0, 0, 0]), prop::collection::vec(any::<u8>(), 0..8)],
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut device = device(|provisioning| provisioning.trusted_environment = false);
        let [low, high] = offset.to_le_bytes();
        let start = [0x14, Code::SLOT_MANAGEMENT.0, code, 0, low, high, 0, 0];
        let response = device.send(&[&start[..], &head, &tail].concat());
        prop_assert!([Code::SLOT_MANAGEMENT_RESP.0, Code::ERROR.0].contains(&response[1]));
        if response[1] != Code::ERROR.0 {
            let parsed = SlotManagementResp::parse(&mut Reader::new(&response)).unwrap();
            prop_assert_eq!(parsed.content.sub_code(), SubCode(code));
        }
        prop_assert!(device.responder.slots().get(0).is_some());
        prop_assert!(device.responder.poll_event().is_none());
    }
}
