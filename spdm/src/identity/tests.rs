//! Chains of every shape against the verifier.

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyUsagePurpose, date_time_ymd};

use super::generate::{authority, leaf};
use super::issue::IssuingKey;
use super::*;
use crate::crypto::{AsymAlgorithm, DefaultProvider, HashAlgorithm, RingProvider};

const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x0011,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: Some(0x0123_4567_89ab_cdef),
};
const STRICT: Policy<'static> =
    Policy { time: None, root: None, leaf_constraints_required: true, purpose: Purpose::Responder };
/// 2026-01-01.
const NOW: i64 = 1_767_225_600;

/// A chain like `generate`'s, with each certificate's parameters open to change.
fn chain(
    change: impl FnOnce(&mut CertificateParams, &mut CertificateParams, &mut CertificateParams),
) -> Vec<Vec<u8>> {
    let mut root = authority("root", 1).unwrap();
    let mut intermediate = authority("intermediate", 0).unwrap();
    let mut end = leaf(&NAME).unwrap();
    change(&mut root, &mut intermediate, &mut end);
    let keys =
        [(); 3].map(|()| IssuingKey::generate(&DefaultProvider::new(), AsymAlgorithm::EcdsaP256).unwrap());
    let [root_key, intermediate_key, leaf_key] = &keys;
    let root_issuer = Issuer::from_params(&root, root_key);
    let intermediate_issuer = Issuer::from_params(&intermediate, intermediate_key);
    vec![
        root.self_signed(root_key).unwrap().der().to_vec(),
        intermediate.signed_by(intermediate_key, &root_issuer).unwrap().der().to_vec(),
        end.signed_by(leaf_key, &intermediate_issuer).unwrap().der().to_vec(),
    ]
}

fn verify(certificates: &[Vec<u8>]) -> Result<VerifiedCertificates, ChainError> {
    verify_certificates(&certificates.concat(), &STRICT)
}

#[test]
fn generated_chains_verify_and_name_the_device() {
    for algorithm in [AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384] {
        let material = generate(&NAME, algorithm).unwrap();
        let verified = verify(material.certificates()).unwrap();
        assert_eq!(verified.algorithm, algorithm);
        assert_eq!(verified.root, material.certificates()[0]);
        assert_eq!(verified.certificates, material.certificates());
        assert_eq!(verified.pci_name.as_deref().map(str::parse), Some(Ok(NAME)));
        assert_eq!(material.pci_name(), verified.pci_name.as_deref());
    }
}

/// A signer of `ring` is known by what it cannot do: sign with a curve and another curve's hash.
#[test]
fn the_provider_that_is_named_signs() {
    let p256 = AsymAlgorithm::EcdsaP256;
    let is_ring = |material: &Material| !material.slot().key.supports(HashAlgorithm::Sha384);
    let made = generate_by(&RingProvider::new(), &NAME, p256).unwrap();
    assert!(is_ring(&made));
    verify(made.certificates()).unwrap();
    let (chain, key) = (made.chain_pem(), made.key_pem());
    let loaded = || Material::from_pem(&chain, &key).unwrap();
    assert!(is_ring(&loaded().by(&RingProvider::new()).unwrap()));
    #[cfg(feature = "aws-lc")]
    {
        let aws_lc = crate::crypto::AwsLcProvider::new();
        assert!(!is_ring(&generate_by(&aws_lc, &NAME, p256).unwrap()));
        assert!(!is_ring(&loaded().by(&aws_lc).unwrap()));
        let p521 = AsymAlgorithm::EcdsaP521;
        let other = generate_by(&aws_lc, &NAME, p521).unwrap();
        assert_eq!(other.by(&RingProvider::new()).unwrap_err(), MaterialError::Unavailable(p521));
    }
    let p521 = generate_by(&RingProvider::new(), &NAME, AsymAlgorithm::EcdsaP521);
    assert_eq!(p521.unwrap_err(), MaterialError::Unavailable(AsymAlgorithm::EcdsaP521));
}

#[test]
fn generated_chains_are_valid_at_any_time_and_never_the_same() {
    let material = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    for time in [0, NOW, 253_402_300_799] {
        let policy = Policy { time: Some(time), ..STRICT };
        assert!(verify_certificates(&material.certificates().concat(), &policy).is_ok(), "{time}");
    }
    let other = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    assert_ne!(material.certificates()[0], other.certificates()[0]);
    assert_ne!(material.pkcs8(), other.pkcs8());
}

#[test]
fn pem_round_trips_and_debug_is_silent() {
    for algorithm in [AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384] {
        let material = generate(&NAME, algorithm).unwrap();
        let again = Material::from_pem(&material.chain_pem(), &material.key_pem()).unwrap();
        assert_eq!(again.certificates(), material.certificates());
        assert_eq!(again.pkcs8(), material.pkcs8());
        assert_eq!(again.algorithm(), algorithm);
        assert!(!format!("{material:?}").contains("pkcs8"));
    }
}

#[test]
fn keys_and_chains_that_do_not_belong_together_are_refused() {
    let one = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let two = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap();
    let three = generate(&NAME, AsymAlgorithm::EcdsaP384).unwrap();
    let load = |chain: &str, key: &str| Material::from_pem(chain, key).map(|_| ());
    assert_eq!(load(&one.chain_pem(), &two.key_pem()), Err(MaterialError::KeyMismatch));
    assert_eq!(load(&one.chain_pem(), &three.key_pem()), Err(MaterialError::Key));
    assert_eq!(load("", &one.key_pem()), Err(MaterialError::Chain(ChainError::Empty)));
    assert_eq!(load(&one.chain_pem(), ""), Err(MaterialError::KeyCount(0)));
    let twice = format!("{}{}", *one.key_pem(), *two.key_pem());
    assert_eq!(load(&one.chain_pem(), &twice), Err(MaterialError::KeyCount(2)));
    assert!(matches!(load(&one.key_pem(), &one.key_pem()), Err(MaterialError::Block { .. })));
    let torn = one.chain_pem().replace("-----END", "-----");
    assert!(load(&torn, &one.key_pem()).is_err());
    let not_base64 = one.chain_pem().replace('M', "?");
    assert!(matches!(load(&not_base64, &one.key_pem()), Err(MaterialError::Pem { .. })));
}

#[test]
fn every_truncation_is_refused() {
    let certificates = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap().certificates().to_vec();
    let whole = certificates.concat();
    for end in 0..whole.len() {
        let result = verify_certificates(&whole[..end], &STRICT);
        assert!(result.is_err(), "accepted the first {end} of {} bytes", whole.len());
    }
    let longer = [whole.as_slice(), &[0x30]].concat();
    assert!(matches!(verify_certificates(&longer, &STRICT), Err(ChainError::Malformed { index: 3, .. })));
}

#[test]
fn a_change_of_any_byte_is_refused() {
    let certificates = generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap().certificates().to_vec();
    let whole = certificates.concat();
    for position in 0..whole.len() {
        let mut bad = whole.clone();
        bad[position] ^= 1;
        assert!(verify_certificates(&bad, &STRICT).is_err(), "accepted a changed byte {position}");
    }
}

#[test]
fn order_and_completeness_matter() {
    let [root, intermediate, leaf] = <[_; 3]>::try_from(chain(|_, _, _| {})).unwrap();
    let check = |list: &[&Vec<u8>]| verify(&list.iter().map(|c| (*c).clone()).collect::<Vec<_>>());
    assert!(check(&[&root, &intermediate, &leaf]).is_ok());
    assert_eq!(check(&[]), Err(ChainError::Empty));
    assert_eq!(check(&[&root, &leaf, &intermediate]), Err(ChainError::Issuer { index: 1 }));
    assert_eq!(check(&[&leaf, &intermediate, &root]), Err(ChainError::RootMissing));
    assert_eq!(check(&[&root, &leaf]), Err(ChainError::Issuer { index: 1 }));
    assert_eq!(check(&[&intermediate, &leaf]), Err(ChainError::RootMissing));
    assert_eq!(check(&[&root, &root, &intermediate, &leaf]), Err(ChainError::PathLength { index: 0 }));
    assert_eq!(check(&[&root, &intermediate]), Err(ChainError::LeafConstraints));
    assert_eq!(check(&[&root; MAX_CERTIFICATES + 1]), Err(ChainError::TooMany));
}

#[test]
fn a_chain_may_leave_its_root_out_if_the_verifier_has_it() {
    let certificates = chain(|_, _, _| {});
    let foreign = chain(|_, _, _| {});
    let short = certificates[1..].concat();
    let with = |root| verify_certificates(&short, &Policy { root: Some(root), ..STRICT });
    let verified = with(&certificates[0]).unwrap();
    assert_eq!(verified.root, certificates[0]);
    assert_eq!(verified.certificates.len(), 2);
    assert_eq!(with(&foreign[0]), Err(ChainError::Signature { index: 0 }));
    assert_eq!(with(&certificates[1]), Err(ChainError::PathLength { index: 0 }));
    assert_eq!(with(&certificates[2]), Err(ChainError::NotAuthority { index: 0 }));
    assert_eq!(with(&[]), Err(ChainError::Malformed { index: 0, reason: "root" }));
}

#[test]
fn signatures_of_other_keys_are_refused() {
    let [root, intermediate, leaf] = <[_; 3]>::try_from(chain(|_, _, _| {})).unwrap();
    let [other_root, other_intermediate, _] = <[_; 3]>::try_from(chain(|_, _, _| {})).unwrap();
    assert_eq!(verify(&[other_root, intermediate, leaf.clone()]), Err(ChainError::Signature { index: 1 }));
    let result = verify(&[root, other_intermediate, leaf]);
    assert_eq!(result, Err(ChainError::Signature { index: 1 }));
}

#[test]
fn names_have_to_join_up() {
    let mut certificates = chain(|_, i, _| i.distinguished_name = rcgen::DistinguishedName::new());
    assert!(verify(&certificates).is_ok());
    certificates[2] = chain(|_, _, _| {})[2].clone();
    assert_eq!(verify(&certificates), Err(ChainError::Issuer { index: 2 }));
}

type Change = fn(&mut CertificateParams, &mut CertificateParams, &mut CertificateParams);

#[test]
fn wrong_contents_are_refused_by_name() {
    let cases: [(&str, Change, ChainError); 12] = [
        ("root is no CA", |r, _, _| r.is_ca = IsCa::ExplicitNoCa, ChainError::NotAuthority { index: 0 }),
        ("intermediate is no CA", |_, i, _| i.is_ca = IsCa::NoCa, ChainError::NotAuthority { index: 1 }),
        (
            "root allows no authority below",
            |r, _, _| r.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            ChainError::PathLength { index: 0 },
        ),
        (
            "intermediate may not sign",
            |_, i, _| i.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            ChainError::KeyUsage { index: 1 },
        ),
        (
            "leaf is a CA",
            |_, _, l| l.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            ChainError::LeafConstraints,
        ),
        ("leaf says nothing of CA", |_, _, l| l.is_ca = IsCa::NoCa, ChainError::LeafConstraints),
        (
            "leaf may not sign",
            |_, _, l| l.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            ChainError::KeyUsage { index: 2 },
        ),
        ("leaf has no key usage", |_, _, l| l.key_usages.clear(), ChainError::KeyUsage { index: 2 }),
        (
            "leaf is a requester's",
            |_, _, l| {
                l.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::Other(oid::EKU_REQUESTER_AUTH.to_vec())];
            },
            ChainError::LeafPurpose,
        ),
        (
            "critical extension nobody knows",
            |_, _, l| {
                let mut extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
                extension.set_criticality(true);
                l.custom_extensions.push(extension);
            },
            ChainError::UnknownCritical { index: 2, oid: "1.2.3".into() },
        ),
        (
            "extension twice",
            |_, i, _| {
                let extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
                i.custom_extensions = vec![extension.clone(), extension];
            },
            ChainError::Malformed { index: 1, reason: "an extension appears twice" },
        ),
        (
            "ends before it begins",
            |_, i, _| i.not_after = date_time_ymd(1969, 1, 1),
            ChainError::Validity { index: 1 },
        ),
    ];
    for (what, change, expected) in cases {
        assert_eq!(verify(&chain(change)), Err(expected), "{what}");
    }
}

#[test]
fn version_1_2_leaves_may_omit_basic_constraints() {
    let certificates = chain(|_, _, l| l.is_ca = IsCa::NoCa);
    assert!(verify_certificates(&certificates.concat(), &Policy::default()).is_ok());
}

#[test]
fn time_is_checked_when_there_is_one() {
    let certificates = chain(|_, _, l| {
        l.not_before = date_time_ymd(2020, 1, 1);
        l.not_after = date_time_ymd(2030, 1, 1);
    })
    .concat();
    let at = |time| verify_certificates(&certificates, &Policy { time: Some(time), ..STRICT }).map(|_| ());
    assert_eq!(at(NOW), Ok(()));
    assert_eq!(at(0), Err(ChainError::Validity { index: 2 }));
    assert_eq!(at(2_000_000_000), Err(ChainError::Validity { index: 2 }));
    assert_eq!(at(i64::MAX), Err(ChainError::Validity { index: 0 }));
    assert!(verify_certificates(&certificates, &STRICT).is_ok());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = verify_certificates(&bytes, &STRICT);
    }
}
