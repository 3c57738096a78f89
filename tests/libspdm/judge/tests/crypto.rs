//! Our cryptography and certificates against OpenSSL's, with every algorithm that a provider of ours has: what libspdm
//! does not know, Ed25519, ML-DSA and ML-KEM, is judged here only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::CStr;

use judge::{NAME, material};
use libspdm_sys::crypto::{self as openssl, Message};
use spdm::crypto::{
    AsymAlgorithm, DefaultProvider, DheGroup, HashAlgorithm, PrivateKey, Provider, SignedMessage,
    encode_public_key,
};
use spdm::identity::{Material, MaterialError, generate};

const MESSAGE: &[u8] = b"a message";
const CONTEXT: &[u8] = b"responder-challenge_auth signing";

fn digest(hash: HashAlgorithm) -> &'static CStr {
    match hash {
        HashAlgorithm::Sha256 => c"SHA256",
        HashAlgorithm::Sha384 => c"SHA384",
        HashAlgorithm::Sha512 => c"SHA512",
        HashAlgorithm::Sha3_256 => c"SHA3-256",
        HashAlgorithm::Sha3_384 => c"SHA3-384",
        HashAlgorithm::Sha3_512 => c"SHA3-512",
    }
}

/// What an algorithm is to OpenSSL: name and curve of its keys; none for RSA, which has no sizes there.
fn name(algorithm: AsymAlgorithm) -> Option<(&'static CStr, Option<&'static CStr>)> {
    use AsymAlgorithm as A;
    Some(match algorithm {
        A::EcdsaP256 => (c"EC", Some(c"P-256")),
        A::EcdsaP384 => (c"EC", Some(c"P-384")),
        A::EcdsaP521 => (c"EC", Some(c"P-521")),
        A::Ed25519 => (c"ED25519", None),
        A::MlDsa44 => (c"ML-DSA-44", None),
        A::MlDsa65 => (c"ML-DSA-65", None),
        A::MlDsa87 => (c"ML-DSA-87", None),
        A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096 | A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096 => {
            return None;
        }
    })
}

fn is_ecdsa(algorithm: AsymAlgorithm) -> bool {
    name(algorithm).is_some_and(|(name, _)| name == c"EC")
}

/// The algorithms of which this build has keys.
fn ours() -> Vec<AsymAlgorithm> {
    let has_keys = |algorithm: &AsymAlgorithm| {
        name(*algorithm).is_none() || PrivateKey::generate(&DefaultProvider::new(), *algorithm).is_ok()
    };
    AsymAlgorithm::ALL.iter().copied().filter(has_keys).collect()
}

fn message(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> Message<'static> {
    use AsymAlgorithm as A;
    let hashes_itself = algorithm == A::Ed25519 || algorithm.is_post_quantum();
    Message {
        digest: (!hashes_itself).then(|| digest(hash)),
        pss: matches!(algorithm, A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096),
        context: if algorithm.is_post_quantum() { CONTEXT } else { &[] },
        bytes: MESSAGE,
    }
}

/// r‖s in DER.
fn to_der(fixed: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    for number in fixed.chunks(fixed.len() / 2) {
        let start = number.iter().position(|&byte| byte != 0).unwrap();
        let number = &number[start..];
        let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
        numbers.extend_from_slice(&[2, u8::try_from(sign.len() + number.len()).unwrap()]);
        numbers.extend_from_slice(sign);
        numbers.extend_from_slice(number);
    }
    let length = u8::try_from(numbers.len()).unwrap();
    let header: &[u8] = if length < 0x80 { &[0x30, length] } else { &[0x30, 0x81, length] };
    [header, &numbers].concat()
}

/// r‖s of a signature in DER.
fn to_fixed(der: &[u8], size: usize) -> Vec<u8> {
    let mut rest = &der[if der[1] == 0x81 { 3 } else { 2 }..];
    let mut fixed = Vec::new();
    while let [2, length, tail @ ..] = rest {
        let (number, tail) = tail.split_at(usize::from(*length));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        fixed.resize(fixed.len() + size / 2 - number.len(), 0);
        fixed.extend_from_slice(number);
        rest = tail;
    }
    fixed
}

#[test]
fn signatures_hold_on_the_other_side() {
    let provider = DefaultProvider::new();
    for algorithm in ours() {
        let material = material(algorithm);
        let signer = material.slot().key;
        let info = encode_public_key(algorithm, signer.public_key());
        for &hash in HashAlgorithm::ALL {
            let theirs = message(algorithm, hash);
            let ours = SignedMessage { bytes: MESSAGE, context: CONTEXT };
            if signer.supports(hash) {
                let mut signature = Vec::new();
                signer.sign(hash, ours, &mut signature).unwrap();
                let form = if is_ecdsa(algorithm) { to_der(&signature) } else { signature };
                assert!(openssl::verify(&info, &theirs, &form), "{algorithm} {hash}");
                let other = Message { bytes: b"another", ..theirs };
                assert!(!openssl::verify(&info, &other, &form), "{algorithm} {hash}");
            }
            if provider.supports_signature(algorithm, hash) {
                let signature = openssl::sign(material.pkcs8(), &theirs).unwrap();
                let size = algorithm.signature_size();
                let form = if is_ecdsa(algorithm) { to_fixed(&signature, size) } else { signature };
                let verified = provider.verify(algorithm, hash, signer.public_key(), ours, &form);
                assert_eq!(verified, Ok(()), "{algorithm} {hash}");
            }
        }
    }
}

#[test]
fn openssl_accepts_our_certificates() {
    for &algorithm in AsymAlgorithm::ALL {
        let material = match generate(&NAME, algorithm) {
            Ok(material) => material,
            Err(error) => {
                assert_eq!(error, MaterialError::Unavailable(algorithm));
                continue;
            }
        };
        let [root, intermediate, leaf] = material.certificates() else { panic!() };
        assert!(openssl::issued(root, root), "{algorithm}");
        assert!(openssl::issued(root, intermediate), "{algorithm}");
        assert!(openssl::issued(intermediate, leaf), "{algorithm}");
        assert!(!openssl::issued(root, leaf), "{algorithm}");
        let again = Material::load(&material.certificates().concat(), material.pkcs8(), None).unwrap();
        assert!(again.algorithm().serves(algorithm));
    }
}

#[test]
fn keys_of_openssl_are_read() {
    for algorithm in ours() {
        let Some((name, curve)) = name(algorithm) else { continue };
        let pkcs8 = openssl::generate(name, curve).unwrap();
        let key = PrivateKey::from_der(&pkcs8, None).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let signer = key.signer(&DefaultProvider::new(), algorithm).unwrap();
        let hash = HashAlgorithm::ALL.iter().copied().find(|&hash| signer.supports(hash)).unwrap();
        let theirs = openssl::sign(&pkcs8, &message(algorithm, hash)).unwrap();
        let form = if is_ecdsa(algorithm) { to_fixed(&theirs, algorithm.signature_size()) } else { theirs };
        let ours = SignedMessage { bytes: MESSAGE, context: CONTEXT };
        let verified = DefaultProvider::new().verify(algorithm, hash, signer.public_key(), ours, &form);
        assert_eq!(verified, Ok(()), "{algorithm}");
    }
}

#[test]
fn exchanges_give_both_sides_one_secret() {
    let provider = DefaultProvider::new();
    for &group in DheGroup::ALL.iter().filter(|&&group| provider.supports_group(group)) {
        let (name, curve) = match group {
            DheGroup::P256 => (c"EC", Some(c"P-256")),
            DheGroup::P384 => (c"EC", Some(c"P-384")),
            DheGroup::P521 => (c"EC", Some(c"P-521")),
            DheGroup::MlKem512 => (c"ML-KEM-512", None),
            DheGroup::MlKem768 => (c"ML-KEM-768", None),
            DheGroup::MlKem1024 => (c"ML-KEM-1024", None),
        };
        let theirs = openssl::generate(name, curve).unwrap();
        let requester = provider.start_exchange(group).unwrap();
        let public = openssl::public(&theirs).unwrap();
        let mut answer = Vec::new();
        if group.is_kem() {
            // OpenSSL as the responder, then as the requester.
            let (cipher_text, secret) = openssl::encapsulate(name, requester.public()).unwrap();
            assert_eq!(requester.agree(&cipher_text).unwrap().as_ref(), secret, "{group}");
            let secret = provider.answer_exchange(group, &public, &mut answer).unwrap();
            assert_eq!(openssl::decapsulate(&theirs, &answer).unwrap(), secret.as_ref(), "{group}");
        } else {
            let secret = openssl::derive(&theirs, &[&[4], requester.public()].concat()).unwrap();
            assert_eq!(requester.agree(&public[1..]).unwrap().as_ref(), secret, "{group}");
            let secret = provider.answer_exchange(group, &public[1..], &mut answer).unwrap();
            let theirs = openssl::derive(&theirs, &[&[4], &answer[..]].concat()).unwrap();
            assert_eq!(theirs, secret.as_ref(), "{group}");
        }
    }
}
