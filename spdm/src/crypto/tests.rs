//! Every provider in this build, against vectors and against itself.

use std::sync::Arc;

use super::*;
use crate::wire::samples::hex;

fn providers() -> Vec<Box<dyn Provider>> {
    vec![
        Box::new(RingProvider::new()),
        #[cfg(feature = "aws-lc")]
        Box::new(AwsLcProvider::new()),
    ]
}

/// An RSA key made by OpenSSL, or a new key of our own; `None` where nothing here has keys of the algorithm.
fn key(algorithm: AsymAlgorithm) -> Option<PrivateKey> {
    use AsymAlgorithm as A;
    let pem = |text: &str| pem::parse(text).unwrap().into_contents();
    let der = match algorithm {
        A::RsaSsa2048 | A::RsaPss2048 => pem(include_str!("../../tests/identities/rsa2048.key.pem")),
        A::RsaSsa3072 | A::RsaPss3072 => pem(include_str!("../../tests/identities/rsa3072.key.pem")),
        A::RsaSsa4096 | A::RsaPss4096 => include_bytes!("../../tests/identities/rsa4096.key.der").to_vec(),
        A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 | A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => {
            return PrivateKey::generate(&DefaultProvider::new(), algorithm).ok();
        }
    };
    let key = PrivateKey::from_der(&der, None).unwrap();
    assert!(key.algorithm().serves(algorithm));
    Some(key)
}

fn signers(algorithm: AsymAlgorithm) -> Vec<Arc<dyn Signer>> {
    let Some(key) = key(algorithm) else { return Vec::new() };
    let ring = RingSigner::from_pkcs8(algorithm, key.pkcs8());
    let signers = ring.into_iter().map(|signer| Arc::new(signer) as Arc<dyn Signer>);
    #[cfg(feature = "aws-lc")]
    let signers = signers
        .chain([Arc::new(AwsLcSigner::from_pkcs8(algorithm, key.pkcs8()).unwrap()) as Arc<dyn Signer>]);
    signers.collect()
}

#[test]
fn an_agreement_gives_both_sides_one_secret() {
    for provider in providers() {
        for &group in DheGroup::ALL {
            let Ok(requester) = provider.start_exchange(group) else {
                assert!(!provider.supports_group(group), "{group}");
                let answer = provider.answer_exchange(group, &vec![0; group.request_size()], &mut Vec::new());
                assert_eq!(answer.unwrap_err(), CryptoError::Unavailable);
                continue;
            };
            assert!(provider.supports_group(group), "{group}");
            assert_eq!(requester.public().len(), group.request_size());
            let mut public = vec![0xA5];
            let theirs = provider.answer_exchange(group, requester.public(), &mut public).unwrap();
            assert_eq!(public.len(), 1 + group.response_size());
            let ours = requester.agree(&public[1..]).unwrap();
            assert_eq!(ours.as_ref(), theirs.as_ref());
            assert_eq!(ours.as_ref().len(), group.secret_size());
        }
    }
}

#[test]
fn public_values_that_are_none_are_malformed() {
    for provider in providers() {
        for &group in DheGroup::ALL.iter().filter(|group| provider.supports_group(**group)) {
            let size = group.request_size();
            for peer in [vec![0xFF; size], vec![], vec![1; size - 1], vec![1; size + 1]] {
                let mut public = vec![0xA5];
                let error = provider.answer_exchange(group, &peer, &mut public).unwrap_err();
                assert_eq!((error, public), (CryptoError::Malformed, vec![0xA5]), "{group}");
            }
            let size = group.response_size();
            for peer in [vec![], vec![1; size - 1], vec![1; size + 1]] {
                let error = provider.start_exchange(group).unwrap().agree(&peer).unwrap_err();
                assert_eq!(error, CryptoError::Malformed, "{group}");
            }
        }
    }
}

fn expanded<const N: usize>(
    provider: &dyn Provider,
    hash: HashAlgorithm,
    key: &[u8],
    wanted: [(&[u8], usize); N],
) -> [Secret; N] {
    let mut outputs = wanted.map(|(_, length)| Secret::zeros(length));
    provider.hkdf_expand(hash, key, &wanted.map(|(info, _)| info), &mut outputs).unwrap();
    outputs
}

/// RFC 4231 §4.3 and RFC 5869 A.1 (its PRK and info).
#[test]
fn hmac_and_hkdf_follow_their_rfcs() {
    for provider in providers() {
        let (hash, data) = (HashAlgorithm::Sha256, b"what do ya want for nothing?");
        let tag = provider.hmac(hash, b"Jefe", data).unwrap();
        let expected = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(tag.as_ref(), expected);

        let key = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let [output] = expanded(&*provider, hash, &key, [(&info, 42)]);
        let expected =
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
        assert_eq!(output.as_ref(), expected);
    }
}

/// Digest of "abc" (FIPS 180-4 and FIPS 202 examples), HMAC of RFC 4231 §4.3's input, and HKDF-Expand of the key
/// 00..1f to 64 bytes, the last two by CPython's hmac module where no RFC has them.
#[test]
fn every_hash_has_its_vectors() {
    let vectors = [
        (
            HashAlgorithm::Sha3_256,
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
            "c7d4072e788877ae3596bbb0da73b887c9171f93095b294ae857fbe2645e1ba5",
            "096683b0edd27507d02bb18c8860f793cf9cec03fe73c25a8ebd954fad72cb9a\
             4dc2765c81c7f480eb4d64a7688093fc8232d44011024d3c96f62a2d35e10eb7",
        ),
        (
            HashAlgorithm::Sha3_384,
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
            "f1101f8cbf9766fd6764d2ed61903f21ca9b18f57cf3e1a23ca13508a93243ce48c045dc007f26a21b3f5e0e9df4c20a",
            "fe84ba14c9a5d2cc8174cf59ab53010a241d4c643923ccc64fc91b5c66d84c20\
             f7331085af40c9371577aba392fc87a899fd4eae6d07e5b4584e6082f5fd5753",
        ),
        (
            HashAlgorithm::Sha3_512,
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e\
             10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
            "5a4bfeab6166427c7a3647b747292b8384537cdb89afb3bf5665e4c5e709350b\
             287baec921fd7ca0ee7a0c31d022a95e1fc92ba9d77df883960275beb4e62024",
            "b6c6545b11b89b4a1e907bf7cd8e5696300e6f989bf4d8f22c1370de23e6e9bc\
             31ccc496f1b25f91345ab2e154aeb10c413d73ba19fa212c49723032d88e6a86",
        ),
        (
            HashAlgorithm::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "f2296e08976a3a1ed881e5020d327a8bfa81be9bf92df529c44c2c426844550c\
             cf35ebf3ce825ec387f075946e02252e9802fb8484e561c3e356289f5e95ac44",
        ),
        (
            HashAlgorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            "79045b69bced1f18f7a02a8bd9be354e85d8574b5257350e44d2a09873e159a7\
             7e0b9ce9d0affcb8ee4f6e3784f78a5ca2ff2aceab6d9a8c9043b524242a29d2",
        ),
    ];
    for provider in providers() {
        for (hash, digest, tag, output) in vectors {
            assert_eq!(super::hash(&*provider, hash, b"abc").unwrap().as_ref(), hex(digest), "{hash}");
            let data = b"what do ya want for nothing?";
            assert_eq!(provider.hmac(hash, b"Jefe", data).unwrap().as_ref(), hex(tag), "{hash}");
            let key: [u8; 32] = core::array::from_fn(|i| i as u8);
            let info = hex("f0f1f2f3f4f5f6f7f8f9");
            let [made, other, short] =
                expanded(&*provider, hash, &key, [(&info, 64), (b"other", 64), (&info, 12)]);
            assert_eq!(made.as_ref(), hex(output), "{hash}");
            assert_eq!(short.as_ref(), &hex(output)[..12], "{hash}");
            let [alone] = expanded(&*provider, hash, &key, [(b"other", 64)]);
            assert_eq!(other.as_ref(), alone.as_ref(), "{hash}");
            assert!(provider.hkdf_expand(hash, &key, &[], &mut [made]).is_err());
        }
    }
}

#[test]
fn a_wrong_tag_is_a_mismatch() {
    for provider in providers() {
        for &hash in HashAlgorithm::ALL {
            let tag = provider.hmac(hash, b"key", b"data").unwrap();
            let check = |key: &[u8], tag: &[u8]| provider.hmac_verify(hash, key, b"data", tag);
            assert_eq!(check(b"key", tag.as_ref()), Ok(()));
            assert_eq!(check(b"kez", tag.as_ref()), Err(CryptoError::Mismatch));
            assert_eq!(check(b"key", &tag.as_ref()[1..]), Err(CryptoError::Mismatch));
            assert_eq!(check(b"key", &[]), Err(CryptoError::Mismatch));
        }
    }
}

/// "abc" in one piece and in two, with a fork in between.
#[test]
fn hashes_fork() {
    for provider in providers() {
        for &algorithm in HashAlgorithm::ALL {
            assert!(provider.supports_hash(algorithm));
            let mut hasher = provider.hasher(algorithm).unwrap();
            assert_eq!(hasher.digest().as_ref().len(), algorithm.size());
            hasher.update(b"a");
            let mut fork = hasher.fork();
            hasher.update(b"bc");
            assert_ne!(fork.digest(), hasher.digest());
            fork.update(b"bc");
            assert_eq!(fork.digest(), hasher.digest());
            assert_eq!(hash(&*provider, algorithm, b"abc").unwrap(), hasher.digest());
        }
    }
}

/// What a signer says it can do verifies with every provider that says it can, and nothing else does.
#[test]
fn what_is_offered_is_done() {
    for &algorithm in AsymAlgorithm::ALL {
        for signer in signers(algorithm) {
            assert_eq!(signer.algorithm(), algorithm);
            for &hash in HashAlgorithm::ALL {
                let mut signature = vec![0xA5];
                let message = SignedMessage { bytes: b"message", context: b"context" };
                let signed = signer.sign(hash, message, &mut signature);
                if !signer.supports(hash) {
                    assert_eq!((signed, signature), (Err(CryptoError::Unavailable), vec![0xA5]));
                    continue;
                }
                assert_eq!(signed, Ok(()));
                let signature = &signature[1..];
                assert_eq!(signature.len(), algorithm.signature_size());
                for provider in providers() {
                    check_signature(&*provider, &*signer, hash, message, signature);
                }
            }
        }
    }
}

fn check_signature(
    provider: &dyn Provider,
    signer: &dyn Signer,
    hash: HashAlgorithm,
    message: SignedMessage<'_>,
    signature: &[u8],
) {
    let algorithm = signer.algorithm();
    let verify =
        |message, signature: &[u8]| provider.verify(algorithm, hash, signer.public_key(), message, signature);
    if !provider.supports_signature(algorithm, hash) {
        assert_eq!(verify(message, signature), Err(CryptoError::Unavailable));
        return;
    }
    assert_eq!(verify(message, signature), Ok(()), "{algorithm} {hash}");
    let mismatch = Err(CryptoError::Mismatch);
    assert_eq!(verify(SignedMessage { bytes: b"massage", ..message }, signature), mismatch);
    let without = verify(SignedMessage::plain(message.bytes), signature);
    assert_eq!(without, if algorithm.is_post_quantum() { mismatch } else { Ok(()) }, "{algorithm}");
    assert_eq!(verify(message, &signature[1..]), mismatch);
    assert_eq!(verify(message, &[signature, &[0]].concat()), mismatch);
    assert_eq!(verify(message, &vec![0; signature.len()]), mismatch);
    assert_eq!(verify(message, &vec![0xFF; signature.len()]), mismatch);
    for key in [&[][..], &[0], &signer.public_key()[1..], &[0xFF; 4000]] {
        assert!(provider.verify(algorithm, hash, key, message, signature).is_err(), "{algorithm}");
    }
}

/// The hashes that something is good for.
fn hashes(usable: impl Fn(HashAlgorithm) -> bool) -> Vec<HashAlgorithm> {
    HashAlgorithm::ALL.iter().copied().filter(|&hash| usable(hash)).collect()
}

/// What ring signs and verifies, so that an offer is not lost unnoticed.
#[test]
fn ring_signs_and_verifies_what_it_should() {
    use AsymAlgorithm as A;
    use HashAlgorithm as H;
    let provider = RingProvider::new();
    for &algorithm in A::ALL {
        let verified = hashes(|hash| provider.supports_signature(algorithm, hash));
        let signed = key(algorithm)
            .and_then(|key| RingSigner::from_pkcs8(algorithm, key.pkcs8()).ok())
            .map(|signer| hashes(|hash| signer.supports(hash)));
        let sha2 = vec![H::Sha256, H::Sha384, H::Sha512];
        let expected = match algorithm {
            A::EcdsaP256 => (vec![H::Sha256, H::Sha384], Some(vec![H::Sha256])),
            A::EcdsaP384 => (vec![H::Sha256, H::Sha384], Some(vec![H::Sha384])),
            A::Ed25519 => (H::ALL.to_vec(), Some(H::ALL.to_vec())),
            A::EcdsaP521 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => (vec![], None),
            A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096 => (sha2.clone(), Some(sha2)),
            A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096 => (sha2.clone(), Some(sha2)),
        };
        assert_eq!((verified, signed), expected, "{algorithm}");
    }
}

/// AWS-LC signs and verifies everything but RSA over SHA-3.
#[cfg(feature = "aws-lc")]
#[test]
fn aws_lc_signs_and_verifies_what_it_should() {
    let provider = AwsLcProvider::new();
    for &algorithm in AsymAlgorithm::ALL {
        let signer = AwsLcSigner::from_pkcs8(algorithm, key(algorithm).unwrap().pkcs8()).unwrap();
        let rsa = format!("{algorithm:?}").starts_with("Rsa");
        let expected = hashes(|hash| !rsa || hash.bit() <= HashAlgorithm::Sha512.bit());
        assert_eq!(hashes(|hash| signer.supports(hash)), expected, "{algorithm}");
        assert_eq!(hashes(|hash| provider.supports_signature(algorithm, hash)), expected, "{algorithm}");
        assert!(
            PrivateKey::generate(&DefaultProvider::new(), algorithm).unwrap().algorithm().serves(algorithm)
        );
    }
    assert!(DheGroup::ALL.iter().all(|group| provider.supports_group(*group)));
}

/// Without a context, AWS-LC's own ML-DSA and ours accept each other's signatures and make the same keys of a seed.
#[cfg(feature = "aws-lc")]
#[test]
fn two_implementations_of_ml_dsa_agree() {
    use aws_lc_rs::signature::{self as aws, KeyPair as _};
    for (algorithm, signing, verification) in [
        (AsymAlgorithm::MlDsa44, &aws::ML_DSA_44_SIGNING, &aws::ML_DSA_44),
        (AsymAlgorithm::MlDsa65, &aws::ML_DSA_65_SIGNING, &aws::ML_DSA_65),
        (AsymAlgorithm::MlDsa87, &aws::ML_DSA_87_SIGNING, &aws::ML_DSA_87),
    ] {
        let key = PrivateKey::generate(&DefaultProvider::new(), algorithm).unwrap();
        let ours = key.signer(&DefaultProvider::new(), algorithm).unwrap();
        let theirs = aws::PqdsaKeyPair::from_seed(signing, &key.pkcs8()[key.pkcs8().len() - 32..]).unwrap();
        assert_eq!(theirs.public_key().as_ref(), ours.public_key());
        let message = SignedMessage::plain(b"message");
        let mut signature = Vec::new();
        ours.sign(HashAlgorithm::Sha256, message, &mut signature).unwrap();
        let public = aws::UnparsedPublicKey::new(verification, ours.public_key());
        public.verify(message.bytes, &signature).unwrap();
        theirs.sign(message.bytes, &mut signature).unwrap();
        let provider = AwsLcProvider::new();
        provider.verify(algorithm, HashAlgorithm::Sha256, ours.public_key(), message, &signature).unwrap();
    }
}

/// An RSA key of another size than the algorithm says is refused, though ring could use it.
#[test]
fn rsa_keys_have_their_size() {
    use AsymAlgorithm as A;
    let key = key(A::RsaSsa2048).unwrap();
    assert_eq!(key.algorithm(), A::RsaSsa2048);
    assert!(key.signer(&DefaultProvider::new(), A::RsaPss2048).is_ok());
    assert_eq!(key.signer(&DefaultProvider::new(), A::RsaSsa3072).map(|_| ()), Err(CryptoError::Malformed));
    assert!(RingSigner::from_pkcs8(A::RsaPss3072, key.pkcs8()).is_err());
    for provider in providers() {
        let signer = key.signer(&DefaultProvider::new(), A::RsaSsa2048).unwrap();
        let message = SignedMessage::plain(b"message");
        let mut signature = Vec::new();
        signer.sign(HashAlgorithm::Sha256, message, &mut signature).unwrap();
        signature.resize(384, 0);
        let public = signer.public_key();
        let verified = provider.verify(A::RsaSsa3072, HashAlgorithm::Sha256, public, message, &signature);
        assert_eq!(verified, Err(CryptoError::Malformed));
    }
}

/// RFC 8032 §7.1 TEST 2.
#[test]
fn ed25519_follows_its_rfc() {
    let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let pkcs8 = [hex("302e020100300506032b657004220420"), seed].concat();
    let key = PrivateKey::from_der(&pkcs8, None).unwrap();
    let signer = key.signer(&DefaultProvider::new(), AsymAlgorithm::Ed25519).unwrap();
    let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    assert_eq!(signer.public_key(), public);
    let mut signature = Vec::new();
    signer.sign(HashAlgorithm::Sha384, SignedMessage::plain(&[0x72]), &mut signature).unwrap();
    let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                    085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(signature, hex(expected));
}

/// RFC 8439 §2.8.2 (ChaCha20-Poly1305) and NIST's AES-GCM test cases 4 and 16.
#[test]
fn aead_suites_follow_their_vectors() {
    for provider in providers() {
        let key: [u8; 32] = core::array::from_fn(|i| 0x80 + i as u8);
        let iv: [u8; IV_SIZE] = hex("070000004041424344454647").try_into().unwrap();
        let mut data =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                         future, sunscreen would be it."
                .to_vec();
        let aead = provider.aead_key(Aead::ChaCha20Poly1305, &key).unwrap();
        let tag = aead.seal(&iv, &hex("50515253c0c1c2c3c4c5c6c7"), &mut data).unwrap();
        assert_eq!(tag.to_vec(), hex("1ae10b594f09e26a7e902ecbd0600691"));
        assert_eq!(data[..16], hex("d31a8d34648e60db7b86afbc53ef7ec2"));

        let iv: [u8; IV_SIZE] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        for (suite, tag) in [
            (Aead::Aes128Gcm, "5bc94fbc3221a5db94fae95ae7121a47"),
            (Aead::Aes256Gcm, "76fc6ece0f4e1768cddf8853bb2d551b"),
        ] {
            let aead = provider.aead_key(suite, &key[..suite.key_size()]).unwrap();
            let mut data = plain.clone();
            assert_eq!(aead.seal(&iv, &associated, &mut data).unwrap().to_vec(), hex(tag), "{suite}");
        }
    }
}

#[test]
fn aead_keys_have_their_size_and_open_what_they_sealed() {
    for provider in providers() {
        for &suite in Aead::ALL {
            assert!(provider.supports_aead(suite));
            assert!(provider.aead_key(suite, &vec![0; suite.key_size() + 1]).is_err());
            let key = provider.aead_key(suite, &vec![0; suite.key_size()]).unwrap();
            let mut data = b"data".to_vec();
            let tag = key.seal(&[1; IV_SIZE], b"associated", &mut data).unwrap();
            data.extend_from_slice(&tag);
            let mut opened = data.clone();
            assert_eq!(key.open(&[1; IV_SIZE], b"associated", &mut opened).unwrap(), b"data");
            for position in 0..data.len() {
                let mut bad = data.clone();
                bad[position] ^= 1;
                let error = key.open(&[1; IV_SIZE], b"associated", &mut bad).unwrap_err();
                assert_eq!(error, CryptoError::Mismatch);
            }
            assert_eq!(key.open(&[1; IV_SIZE], b"", &mut data), Err(CryptoError::Mismatch));
            assert_eq!(key.open(&[1; IV_SIZE], b"", &mut [0; 3]), Err(CryptoError::Mismatch));
        }
    }
}
