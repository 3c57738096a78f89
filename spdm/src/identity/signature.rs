//! Signatures in certificates and certificate requests: their algorithm identifiers, RFC 5758 and RFC 9688 (ECDSA),
//! RFC 4055 (RSA), RFC 8410 (Ed25519) and RFC 9881 (ML-DSA), and ECDSA's DER form.

use crate::crypto::public_key::key_identifier;
use crate::crypto::{AsymAlgorithm, CryptoError, HashAlgorithm, Provider, SignedMessage, Signer, ecdsa};
use crate::der::{INTEGER, OBJECT_IDENTIFIER, SEQUENCE, context, encode};

const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
const NULL: &[u8] = &[5, 0];

/// The AlgorithmIdentifier, in DER, of signatures of this pair; `None` where nobody has defined one.
pub(super) fn identifier(algorithm: AsymAlgorithm, hash: HashAlgorithm) -> Option<Vec<u8>> {
    use AsymAlgorithm as A;
    use HashAlgorithm as H;
    let plain = |oid: &[u8]| encode(SEQUENCE, &[&encode(OBJECT_IDENTIFIER, &[oid])]);
    Some(match (algorithm, hash) {
        (A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521, _) => match hash {
            H::Sha256 => plain(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
            H::Sha384 => plain(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
            H::Sha512 => plain(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4]),
            H::Sha3_256 => plain(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 10]),
            H::Sha3_384 => plain(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 11]),
            H::Sha3_512 => plain(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 12]),
        },
        (A::RsaSsa2048 | A::RsaSsa3072 | A::RsaSsa4096, _) => {
            let last = [10 + sha2_number(hash)?];
            let oid = encode(OBJECT_IDENTIFIER, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1], &last]);
            encode(SEQUENCE, &[&oid, NULL])
        }
        (A::RsaPss2048 | A::RsaPss3072 | A::RsaPss4096, _) => pss(hash)?,
        // These hash by themselves and name their signatures as their keys.
        (A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87, _) => key_identifier(algorithm),
    })
}

/// How the object identifiers count SHA-256, SHA-384 and SHA-512.
const fn sha2_number(hash: HashAlgorithm) -> Option<u8> {
    match hash {
        HashAlgorithm::Sha256 => Some(1),
        HashAlgorithm::Sha384 => Some(2),
        HashAlgorithm::Sha512 => Some(3),
        HashAlgorithm::Sha3_256 | HashAlgorithm::Sha3_384 | HashAlgorithm::Sha3_512 => None,
    }
}

/// RSASSA-PSS as SPDM has it: MGF1 with the same hash, a salt as long as a digest.
fn pss(hash: HashAlgorithm) -> Option<Vec<u8>> {
    let (number, salt) = (sha2_number(hash)?, u8::try_from(hash.size()).ok()?);
    let oid = encode(OBJECT_IDENTIFIER, &[&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2], &[number]]);
    let hash_identifier = encode(SEQUENCE, &[&oid, NULL]);
    let mgf1 = encode(SEQUENCE, &[&encode(OBJECT_IDENTIFIER, &[MGF1]), &hash_identifier]);
    let parameters = encode(
        SEQUENCE,
        &[
            &encode(context(0), &[&hash_identifier]),
            &encode(context(1), &[&mgf1]),
            &encode(context(2), &[&encode(INTEGER, &[&[salt]])]),
        ],
    );
    let oid = encode(OBJECT_IDENTIFIER, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]]);
    Some(encode(SEQUENCE, &[&oid, &parameters]))
}

/// The hash that goes with a key's algorithm where nothing else decides.
pub(super) const fn usual_hash(algorithm: AsymAlgorithm) -> HashAlgorithm {
    use AsymAlgorithm as A;
    match algorithm {
        A::RsaSsa2048 | A::RsaPss2048 | A::EcdsaP256 | A::Ed25519 | A::MlDsa44 => HashAlgorithm::Sha256,
        A::RsaSsa3072 | A::RsaPss3072 | A::EcdsaP384 | A::MlDsa65 => HashAlgorithm::Sha384,
        A::RsaSsa4096 | A::RsaPss4096 | A::EcdsaP521 | A::MlDsa87 => HashAlgorithm::Sha512,
    }
}

/// Whether a signature is DER in certificates and r‖s in SPDM.
const fn is_ecdsa(algorithm: AsymAlgorithm) -> bool {
    matches!(algorithm, AsymAlgorithm::EcdsaP256 | AsymAlgorithm::EcdsaP384 | AsymAlgorithm::EcdsaP521)
}

/// Signs as certificates do.
pub(super) fn sign(signer: &dyn Signer, hash: HashAlgorithm, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut signature = Vec::new();
    signer.sign(hash, SignedMessage::plain(message), &mut signature)?;
    Ok(if is_ecdsa(signer.algorithm()) { ecdsa::to_der(&signature) } else { signature })
}

/// Checks a certificate's signature: the algorithm identifier, in DER, has to go with the signer's key.
///
/// # Errors
/// [`CryptoError::Unavailable`] for algorithms that nobody here knows, or that do not go with the key.
pub(super) fn verify(
    provider: &dyn Provider,
    (key, public_key): (AsymAlgorithm, &[u8]),
    identified: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    let served = AsymAlgorithm::ALL.iter().filter(|other| key.serves(**other));
    let mut pairs =
        served.flat_map(|&algorithm| HashAlgorithm::ALL.iter().map(move |&hash| (algorithm, hash)));
    let (algorithm, hash) = pairs
        .find(|&(algorithm, hash)| identifier(algorithm, hash).is_some_and(|known| known == identified))
        .ok_or(CryptoError::Unavailable)?;
    let message = SignedMessage::plain(message);
    if is_ecdsa(algorithm) {
        let fixed = ecdsa::to_fixed(signature, algorithm.signature_size()).ok_or(CryptoError::Mismatch)?;
        return provider.verify(algorithm, hash, public_key, message, &fixed);
    }
    provider.verify(algorithm, hash, public_key, message, signature)
}
