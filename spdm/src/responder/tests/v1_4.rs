//! What 1.4 brought to the responder: forms with 32-bit lengths, algorithms in two masks, and (since 1.3) the supported
//! algorithms block.

use std::sync::Arc;

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{
    AsymAlgorithm, CryptoError, DheGroup, HashAlgorithm, RingProvider, SignedMessage, Signer, hash,
};
use crate::responder::*;
use crate::slot::{Slot, Slots};
use crate::wire::*;

/// A key that signs nonsense of the right size.
struct Pretended(AsymAlgorithm);

impl Signer for Pretended {
    fn algorithm(&self) -> AsymAlgorithm {
        self.0
    }

    fn supports(&self, _hash: HashAlgorithm) -> bool {
        true
    }

    fn public_key(&self) -> &[u8] {
        &[]
    }

    fn sign(
        &self,
        _hash: HashAlgorithm,
        _message: SignedMessage<'_>,
        signature: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        signature.resize(signature.len() + self.0.signature_size(), 0x5A);
        Ok(())
    }
}

fn slot(asym: AsymAlgorithm, certificate: usize) -> Slot {
    Slot::new(vec![vec![0x30; certificate]], Arc::new(Pretended(asym)))
}

/// A device with these slots, of this version alone.
fn with_slots(mut config: ResponderConfig, slots: [Option<Slot>; 2], version: Version) -> Device {
    config.versions = vec![version];
    config.hashes = vec![HASH];
    config.asym = vec![AsymAlgorithm::MlDsa65, AsymAlgorithm::EcdsaP256, AsymAlgorithm::MlDsa44];
    let mut device =
        Device::with(ResponderConfig { versions: vec![version], ..super::device::config() }, version);
    let [first, second] = slots;
    let slots = Slots::from([first, second, None, None, None, None, None, None]);
    device.responder = Responder::new(config, slots, Box::new(RingProvider::new())).unwrap();
    device
}

fn ask(device: &Device, large: bool, offset: u32, length: u32) -> Vec<u8> {
    let version = device.version;
    encoded(|out| {
        GetCertificate { version, slot: 0, slot_size: false, large, offset, length }.encode(out).unwrap();
    })
}

#[test]
fn a_chain_can_be_read_in_the_large_form() {
    let mut device = Device::negotiated(Version::V1_4);
    device.transfer = 200;
    device.negotiate();
    let mut chain = Vec::new();
    loop {
        let request = ask(&device, true, chain.len().try_into().unwrap(), u32::MAX);
        let response = device.send(&request);
        let mut reader = Reader::new(&response);
        let parsed = Certificate::parse(&mut reader).unwrap();
        reader.finish(0).unwrap();
        assert!(parsed.large && parsed.slot == 0);
        chain.extend_from_slice(parsed.portion);
        if parsed.remainder == 0 {
            break;
        }
        assert_eq!(response.len(), 200, "as much as fits");
    }
    assert_eq!(chain, device.chain());
    let small = device.send(&ask(&device, false, 0, 10));
    assert_eq!(Certificate::parse(&mut Reader::new(&small)).unwrap().portion, &chain[..10]);
    let beyond = ask(&device, true, chain.len().try_into().unwrap(), 1);
    assert_eq!(device.error(&beyond), (ErrorCode::INVALID_REQUEST, 0));
    let cut = &ask(&device, true, 0, 1)[..15];
    assert_eq!(device.error(cut), (ErrorCode::INVALID_REQUEST, 0));
}

#[test]
fn forms_that_are_not_advertised_are_refused() {
    let mut config = config();
    config.capabilities.large_responses = false;
    let mut device = Device::with(config, Version::V1_4);
    device.negotiate();
    let unsupported = (ErrorCode::UNSUPPORTED_REQUEST, Code::GET_CERTIFICATE.0);
    assert_eq!(device.error(&ask(&device, true, 0, 1)), unsupported);
    let mut vendor = vendor_message(Version::V1_4, b"abc");
    assert_eq!(device.send(&vendor)[1], Code::VENDOR_DEFINED_RESPONSE.0);
    vendor[2] = 0x80;
    assert_eq!(device.error(&vendor), (ErrorCode::INVALID_REQUEST, 0));

    // Before 1.4 the bit is reserved, and what it would mean is not looked for.
    let mut device = Device::negotiated(Version::V1_3);
    let response = device.send(&[0x13, 0x82, 0x80, 0, 0, 0, 2, 0]);
    assert_eq!(Certificate::parse(&mut Reader::new(&response)).unwrap().portion, &device.chain()[..2]);
    let mut vendor = vendor_message(Version::V1_3, b"abc");
    vendor[2] = 0x80;
    assert_eq!(device.send(&vendor)[1], Code::VENDOR_DEFINED_RESPONSE.0);
}

/// The large form has to be advertised on both sides for vendor-defined messages.
#[test]
fn vendor_messages_are_answered_in_their_form() {
    let request = encoded(|out| {
        let (version, vendor_id) = (Version::V1_4, [1, 0]);
        VendorDefined { version, large: true, standard_id: 3, vendor_id: &vendor_id, payload: b"abc" }
            .encode_request(out)
            .unwrap();
    });
    let mut device = Device::negotiated(Version::V1_4);
    assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0));
    device.flags |= RequesterFlags::LARGE_RESP;
    device.negotiate();
    let response = device.send(&request);
    let parsed = VendorDefined::parse_response(&mut Reader::new(&response)).unwrap();
    assert_eq!((parsed.large, parsed.payload), (true, &b"cba"[..]));
    let mut client = device.establish();
    let response = client.send(&mut device, &request);
    assert!(VendorDefined::parse_response(&mut Reader::new(&response)).unwrap().large);
}

#[test]
fn a_chain_too_long_for_its_form_says_how_long_it_is() {
    let chain = || [Some(slot(AsymAlgorithm::EcdsaP256, 70_000)), None];
    let size = 70_000 + 4 + HASH.size();
    for version in [Version::V1_3, Version::V1_4] {
        let mut device = with_slots(config(), chain(), version);
        device.negotiate();
        let response = device.send(&ask(&device, false, 0, 100));
        let error = ErrorResponse::parse(&mut Reader::new(&response)).unwrap();
        if version < Version::V1_4 {
            assert_eq!(error, ErrorResponse::new(version, ErrorCode::UNSPECIFIED, 0));
            continue;
        }
        assert_eq!(error.code, ErrorCode::DATA_TOO_LARGE);
        assert_eq!(error.extended, u32::try_from(size).unwrap().to_le_bytes());
        let response = device.send(&ask(&device, true, 69_999, u32::MAX));
        let parsed = Certificate::parse(&mut Reader::new(&response)).unwrap();
        assert_eq!((parsed.portion.len(), parsed.remainder), (size - 69_999, 0));
    }
}

/// What is offered in both masks and both tables, and what is selected from it.
type Row = ((u32, u32, u16, u16), Option<(u32, u32, u16, u16)>);

#[test]
fn one_algorithm_is_selected_from_both_masks() {
    use AsymAlgorithm::{EcdsaP256, MlDsa44, MlDsa65};
    let (classic, quantum, other) = (EcdsaP256.base_bit(), MlDsa65.pqc_bit(), MlDsa44.pqc_bit());
    let dhe = DheGroup::P256.dhe_bit();
    let kem = DheGroup::MlKem768.kem_bit();
    let rows: &[Row] = &[
        ((classic, quantum, dhe, kem), Some((0, quantum, dhe, 0))),
        ((classic, 0, dhe, kem), Some((classic, 0, dhe, 0))),
        // No slot has a key of this kind.
        ((classic, other, dhe, kem), Some((classic, 0, dhe, 0))),
        ((0, other, dhe, kem), None),
        ((0, quantum | other, dhe, 0), Some((0, quantum, dhe, 0))),
        // The provider of these tests has no KEM, which is therefore never selected.
        ((0, quantum, 0, kem), None),
        ((0, 0, dhe, kem), None),
    ];
    for version in [Version::V1_3, Version::V1_4] {
        for &(offered, selected) in rows {
            let slots = [Some(slot(EcdsaP256, 500)), Some(slot(MlDsa65, 500))];
            let mut config = config();
            config.groups = vec![DheGroup::MlKem768, DheGroup::P256];
            let mut device = with_slots(config, slots, version);
            device.get_version();
            device.send(&device.capabilities_request());
            let template = device.algorithms_request();
            let mut offer = NegotiateAlgorithms::parse(&mut Reader::new(&template)).unwrap();
            (offer.base_asym, offer.pqc_asym) = (offered.0, offered.1);
            (offer.tables.dhe, offer.tables.kem) = (Some(offered.2), Some(offered.3));
            offer.tables.requester_pqc_asym = Some(7);
            let request = encoded(|out| offer.encode(out));
            // 1.3 knows the first mask and the first table only.
            let selected = if version < Version::V1_4 {
                (offered.0 != 0 && offered.2 != 0).then_some((classic, 0, dhe, 0))
            } else {
                selected
            };
            let Some((base, pqc, group, mechanism)) = selected else {
                assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "{version} {offered:?}");
                continue;
            };
            let response = device.send(&request);
            let parsed = Algorithms::parse(&mut Reader::new(&response)).unwrap();
            assert_eq!((parsed.base_asym, parsed.pqc_asym), (base, pqc), "{version} {offered:?}");
            let kem = (version >= Version::V1_4).then_some(mechanism);
            assert_eq!((parsed.tables.dhe, parsed.tables.kem), (Some(group), kem), "{version} {offered:?}");
            assert_eq!(parsed.tables.requester_pqc_asym, kem.map(|_| 0));
            // Only slots with that kind of key count from now on.
            let digests = device.send(&device.simple(Code::GET_DIGESTS));
            assert_eq!(digests[3], if pqc != 0 { 2 } else { 1 });
        }
    }
}

#[test]
fn post_quantum_signatures_have_their_size() {
    let slots = [Some(slot(AsymAlgorithm::MlDsa65, 500)), None];
    let mut device = with_slots(config(), slots, Version::V1_4);
    device.get_version();
    device.send(&device.capabilities_request());
    let template = device.algorithms_request();
    let mut offer = NegotiateAlgorithms::parse(&mut Reader::new(&template)).unwrap();
    offer.pqc_asym = u32::MAX;
    device.send(&encoded(|out| offer.encode(out)));
    let challenge = Challenge {
        version: Version::V1_4,
        slot: 0,
        summary: SummaryType::None,
        nonce: [1; 32],
        context: Some([2; 8]),
    };
    let response = device.send(&encoded(|out| challenge.encode(out)));
    let size = AsymAlgorithm::MlDsa65.signature_size();
    let mut reader = Reader::new(&response);
    let parsed = ChallengeAuth::parse(&mut reader, HASH.size(), 0, size).unwrap();
    reader.finish(0).unwrap();
    assert!(parsed.signature.iter().all(|&byte| byte == 0x5A));
    let chain = device.send(&ask(&device, true, 0, u32::MAX));
    let chain = Certificate::parse(&mut Reader::new(&chain)).unwrap().portion;
    assert_eq!(parsed.chain_hash, hash(&RingProvider::new(), HASH, chain).unwrap().as_ref());
}

#[test]
fn supported_algorithms_are_told_who_asks_and_has_chunks() {
    let question = |device: &Device, chunks: bool| {
        let flags = RequesterFlags(device.flags | if chunks { RequesterFlags::CHUNK } else { 0 });
        encoded(|out| {
            GetCapabilities {
                version: device.version,
                supported_algorithms: true,
                ct_exponent: 14,
                flags,
                data_transfer_size: 4096,
                max_message_size: 4096,
            }
            .encode(out);
        })
    };
    for version in [Version::V1_3, Version::V1_4] {
        for ours in [false, true] {
            let mut config = config();
            config.versions = vec![version];
            config.capabilities.chunks = ours;
            let mut device = Device::with(config, version);
            device.get_version();
            let request = question(&device, false);
            assert_eq!(device.error(&request), (ErrorCode::INVALID_REQUEST, 0), "chunks are missing");
            let response = device.send(&question(&device, true));
            let mut reader = Reader::new(&response);
            let parsed = Capabilities::parse(&mut reader).unwrap();
            reader.finish(0).unwrap();
            assert_eq!((parsed.supported_algorithms.is_some(), response[2]), (ours, ours.into()));
            let Some(block) = parsed.supported_algorithms else { continue };
            let expected = NegotiateAlgorithms {
                version,
                measurement_specification: MEASUREMENT_SPECIFICATION_DMTF,
                other_params: OPAQUE_FORMAT_GENERAL,
                base_asym: AsymAlgorithm::EcdsaP256.base_bit(),
                base_hash: 7,
                pqc_asym: 0,
                mel_specification: 0,
                tables: AlgorithmTables {
                    dhe: Some(0x18),
                    aead: Some(3),
                    requester_asym: None,
                    key_schedule: Some(KEY_SCHEDULE_SPDM),
                    requester_pqc_asym: None,
                    kem: None,
                },
            };
            assert_eq!(block, expected);
            // The block is an offer: whoever sends it back gets what the responder likes best.
            let response = device.send(&encoded(|out| block.encode(out)));
            assert_eq!(response[1], Code::ALGORITHMS.0);
        }
    }
    let mut device = Device::new(Version::V1_2);
    device.get_version();
    let response = device.send(&question(&device, false));
    assert_eq!((response[1], response[2]), (Code::CAPABILITIES.0, 0), "the bit is reserved before 1.3");
}
