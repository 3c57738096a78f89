//! Slots of the alias certificate model: what comes from outside ends with the device certificate authority.

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{RingProvider, hash};
use crate::identity::alias_samples::{self, AUTHORITY};
use crate::identity::{PciName, generate};
use crate::responder::*;
use crate::slot::Slots;
use crate::wire::*;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};

fn managed() -> ResponderConfig {
    let mut config = config();
    config.capabilities.alias_certificates = true;
    config.capabilities.provisioning =
        Provisioning { set_certificate: true, csr: true, trusted_environment: true, ..Default::default() };
    config
}

fn device(version: Version, sample: &alias_samples::Device) -> Device {
    let slots = Slots::single(sample.slot.clone());
    let responder = Responder::new(managed(), slots, Box::new(RingProvider::new())).unwrap();
    let mut device = Device::with(config(), version);
    device.responder = responder;
    device.negotiate();
    device
}

fn store(version: Version, certificates: &[Vec<u8>]) -> Vec<u8> {
    let root = hash(&RingProvider::new(), HASH, &certificates[0]).unwrap();
    let mut chain = Vec::new();
    CertificateChain::encode(root.as_ref(), certificates, &mut chain).unwrap();
    let action = SlotAction::Store { model: None, chain: &chain };
    encoded(|out| SetCertificate { version, slot: 0, key_pair: 0, action }.encode(out))
}

fn csr(device: &mut Device) -> Vec<u8> {
    let request = encoded(|out| {
        GetCsr {
            version: device.version,
            key_pair: 0,
            model: None,
            tracking_tag: 0,
            overwrite: false,
            requester_info: &[],
            opaque: &[],
        }
        .encode(out)
        .unwrap();
    });
    let response = device.send(&request);
    Csr::parse(&mut Reader::new(&response)).unwrap().csr.to_vec()
}

/// The request is for the authority, under the name that its certificates below have for it.
#[test]
fn a_vendor_certifies_the_authority_and_the_aliases_stay() {
    for version in [Version::V1_2, Version::V1_3, Version::V1_4] {
        let sample = alias_samples::Device::new(&NAME);
        let alias = sample.slot.alias.clone().unwrap();
        let mut device = device(version, &sample);
        for erased in [false, true] {
            if erased {
                let erase = SetCertificate { version, slot: 0, key_pair: 0, action: SlotAction::Erase };
                if version < Version::V1_3 {
                    continue;
                }
                assert_eq!(device.send(&encoded(|out| erase.encode(out)))[1], 0x6E);
                assert!(device.responder.slots().get(0).is_none());
            }
            let request = csr(&mut device);
            let (_, parsed) = X509CertificationRequest::from_der(&request).unwrap();
            let info = &parsed.certification_request_info;
            assert_eq!(info.subject.to_string(), format!("CN={AUTHORITY}"));
            assert_eq!(&*info.subject_pki.subject_public_key.data, alias.authority.public_key());

            let certified = sample.certify(AUTHORITY);
            assert_eq!(device.send(&store(version, &certified))[1], 0x6E, "{version}");
            let slot = device.responder.slots().get(0).unwrap();
            assert_eq!(slot.certificates, [certified, alias.certificates.clone()].concat());
            assert_eq!(slot.model, CertificateModel::Alias);
        }
    }
}

#[test]
fn chains_that_do_not_end_with_the_authority_change_nothing() {
    let version = Version::V1_3;
    let sample = alias_samples::Device::new(&NAME);
    let mut device = device(version, &sample);
    let before = sample.slot.certificates.clone();
    let whole = [sample.certify(AUTHORITY), sample.slot.alias.clone().unwrap().certificates].concat();
    let root = sample.certify(AUTHORITY)[..1].to_vec();
    let foreign = generate(&NAME, crate::crypto::AsymAlgorithm::EcdsaP256).unwrap().certificates().to_vec();
    let others = alias_samples::Device::new(&NAME).certify(AUTHORITY);
    for (what, chain) in [
        ("another device's authority", others),
        ("another name", sample.certify("another name")),
        ("the aliases, too", whole),
        ("no authority", root),
        ("a leaf", foreign),
    ] {
        assert_eq!(device.error(&store(version, &chain)), (ErrorCode::UNSPECIFIED, 0), "{what}");
        assert_eq!(device.responder.slots().get(0).unwrap().certificates, before, "{what}");
    }
}

/// Without the authority's key and certificates there is nothing to come before.
#[test]
fn what_cannot_be_certified_is_no_setting() {
    let mut sample = alias_samples::Device::new(&NAME).slot;
    sample.alias = None;
    let result = Responder::new(managed(), Slots::single(sample), Box::new(RingProvider::new()));
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error, ConfigError::OutOfRange { field: "set_certificate", .. }), "{error}");
}
