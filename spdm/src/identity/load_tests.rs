//! Chains and keys that OpenSSL wrote (`tests/identities`), in all the forms it has for them.

use super::*;
use crate::crypto::{
    AsymAlgorithm, CryptoError, DefaultProvider, PrivateKey, encode_public_key, parse_public_key,
};
use crate::der::element;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/identities/", $name)) as &[u8]
    };
}

/// Chain, key, the algorithm the key is loaded with if none is asked for, others it can be asked for.
type Case = (&'static [u8], &'static [u8], AsymAlgorithm, &'static [AsymAlgorithm]);

const CASES: [Case; 6] = [
    (
        file!("rsa2048.chain.pem"),
        file!("rsa2048.key.pem"),
        AsymAlgorithm::RsaSsa2048,
        &[AsymAlgorithm::RsaPss2048],
    ),
    (
        file!("rsa3072.chain.pem"),
        file!("rsa3072.key.pem"),
        AsymAlgorithm::RsaSsa3072,
        &[AsymAlgorithm::RsaPss3072],
    ),
    (
        file!("rsa4096.chain.der"),
        file!("rsa4096.key.der"),
        AsymAlgorithm::RsaSsa4096,
        &[AsymAlgorithm::RsaPss4096],
    ),
    (file!("p256.chain.der"), file!("p256.key.pem"), AsymAlgorithm::EcdsaP256, &[]),
    (file!("p384.chain.pem"), file!("p384.key.der"), AsymAlgorithm::EcdsaP384, &[]),
    (file!("ed25519.chain.pem"), file!("ed25519.key.der"), AsymAlgorithm::Ed25519, &[]),
];
const P521: (&[u8], &[u8]) = (file!("p521.chain.pem"), file!("p521.key.pem"));

#[test]
fn every_form_of_file_loads() {
    for (chain, key, usual, others) in CASES {
        let material = Material::load(chain, key, None).unwrap();
        assert_eq!(material.algorithm(), usual);
        assert_eq!(material.certificates().len(), 2);
        for &algorithm in AsymAlgorithm::ALL {
            let asked = Material::load(chain, key, Some(algorithm)).map(|material| material.algorithm());
            let possible = algorithm == usual || others.contains(&algorithm);
            assert_eq!(asked, if possible { Ok(algorithm) } else { Err(MaterialError::Key) });
        }
        let again = Material::from_pem(&material.chain_pem(), &material.key_pem()).unwrap();
        assert_eq!(again.certificates(), material.certificates());
        assert_eq!(again.pkcs8(), material.pkcs8());
    }
}

#[test]
fn what_no_provider_has_is_not_loaded() {
    let loaded = Material::load(P521.0, P521.1, None).map(|material| material.algorithm());
    let ours = PrivateKey::generate(&DefaultProvider::new(), AsymAlgorithm::EcdsaP521);
    match ours {
        Ok(_) => assert_eq!(loaded, Ok(AsymAlgorithm::EcdsaP521)),
        Err(_) => assert_eq!(
            loaded,
            Err(MaterialError::Chain(ChainError::SignatureAlgorithm { index: 0 })),
            "and certificates cannot be checked either"
        ),
    }
    // The key itself is read.
    let key = pem::parse(P521.1).unwrap();
    let key = PrivateKey::from_der(key.contents(), None).unwrap();
    assert_eq!(key.algorithm(), AsymAlgorithm::EcdsaP521);
}

#[test]
fn keys_of_others_are_refused() {
    for (chain, key, usual, _) in CASES {
        for (_, other, algorithm, _) in CASES {
            if key != other {
                let loaded = Material::load(chain, other, None).map(|_| ());
                // A key without its public half takes it from the certificate, and then does not fit it.
                assert!(matches!(loaded, Err(MaterialError::Key)), "{usual} {algorithm}: {loaded:?}");
            }
        }
    }
    let foreign = generate(&NAME, AsymAlgorithm::EcdsaP384).unwrap();
    let (chain, key) = (foreign.certificates().concat(), file!("p384.key.der"));
    assert_eq!(Material::load(&chain, key, None).map(|_| ()), Err(MaterialError::Key));
    let with_public_half = generate(&NAME, AsymAlgorithm::EcdsaP384).unwrap();
    let loaded = Material::load(&chain, with_public_half.pkcs8(), None).map(|_| ());
    assert_eq!(loaded, Err(MaterialError::KeyMismatch));
}

const NAME: PciName =
    PciName { vendor: 1, device: 2, class: 3, revision: 4, subsystem_vendor: 5, subsystem: 6, serial: None };

#[test]
fn files_of_another_kind_are_refused() {
    let (chain, key, ..) = CASES[0];
    let load = |chain: &[u8], key: &[u8]| Material::load(chain, key, None).map(|_| ());
    assert!(matches!(load(key, key), Err(MaterialError::Block { .. })));
    assert!(matches!(load(chain, chain), Err(MaterialError::Block { .. })));
    assert_eq!(load(&[], key), Err(MaterialError::Chain(ChainError::Empty)));
    assert_eq!(load(chain, &[]), Err(MaterialError::KeyCount(0)));
    assert_eq!(load(chain, &[key, key].concat()), Err(MaterialError::KeyCount(2)));
    assert!(matches!(load(b"\xff", key), Err(MaterialError::Chain(ChainError::Empty))));
    let (der, ..) = CASES[2];
    for end in [1, 3, 700, der.len() - 1] {
        assert!(load(&der[..end], key).is_err());
    }
}

#[test]
fn every_truncation_of_a_key_is_refused() {
    for (_, key, usual, _) in CASES {
        let der = pem::parse(key).map_or(key.to_vec(), |block| block.into_contents());
        let der = if key.starts_with(b"-----BEGIN EC P") {
            pem::parse_many(key).unwrap()[1].contents().to_vec()
        } else {
            der
        };
        let public = [4; 97];
        let read = |der: &[u8]| PrivateKey::from_der(der, Some(&public)).map(|key| key.algorithm());
        assert_eq!(read(&der), Ok(usual));
        for end in 0..der.len() {
            assert_eq!(read(&der[..end]), Err(CryptoError::Malformed), "{usual} {end}");
        }
        assert_eq!(read(&[&der[..], &[0]].concat()), Err(CryptoError::Malformed));
    }
}

/// SubjectPublicKeyInfo read out of OpenSSL's certificates is what is written, and nothing else is read.
#[test]
fn public_keys_round_trip() {
    for (chain, key, usual, _) in CASES {
        let material = Material::load(chain, key, None).unwrap();
        let slot = material.slot();
        let leaf = material.certificates().last().unwrap();
        let info = encode_public_key(usual, slot.key.public_key());
        assert!(leaf.windows(info.len()).any(|window| window == info), "{usual}");
        assert_eq!(parse_public_key(&info), Ok((usual, slot.key.public_key())));
        for end in 0..info.len() {
            assert_eq!(parse_public_key(&info[..end]), Err(CryptoError::Malformed));
        }
        assert!(parse_public_key(&[&info[..], &[0]].concat()).is_err());
    }
    for &algorithm in AsymAlgorithm::ALL {
        assert!(parse_public_key(&encode_public_key(algorithm, &[])).is_err());
        assert!(parse_public_key(&encode_public_key(algorithm, &[4; 31])).is_err());
    }
}

#[test]
fn a_changed_certificate_of_any_algorithm_is_refused() {
    for (chain, key, usual, _) in CASES {
        let certificates = Material::load(chain, key, None).unwrap().certificates().to_vec();
        let whole = certificates.concat();
        let policy = Policy::default();
        assert_eq!(verify_certificates(&whole, &policy).map(|chain| chain.algorithm), Ok(usual));
        // RSA with large keys takes its time: every byte of the leaf's tail, which has the signature, and a sample.
        let (leaf, _) = element(&certificates[1]).unwrap();
        let step = if usual == AsymAlgorithm::RsaSsa4096 { 17 } else { 7 };
        for position in (0..whole.len()).step_by(step).chain(whole.len() - 64..whole.len()) {
            let mut bad = whole.clone();
            bad[position] ^= 1;
            assert!(verify_certificates(&bad, &policy).is_err(), "{usual}: {position} of {}", leaf.raw.len());
        }
    }
}
