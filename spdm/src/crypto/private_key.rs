//! Private keys as files carry them: PKCS#8 (RFC 5958) for every algorithm, and the older PKCS#1 (RFC 8017) for RSA
//! and SEC1 (RFC 5915) for elliptic curves.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::public_key::{KeyType, key_identifier};
use super::{AsymAlgorithm, CryptoError, Provider, Signer};
use crate::der::{BIT_STRING, OCTET_STRING, SEQUENCE, context, encode, encode_bits, only, tagged, unsigned};

type Bytes = Zeroizing<Vec<u8>>;

/// A private key, in the one form that all signers take. Wiped when dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct PrivateKey {
    algorithm: AsymAlgorithm,
    pkcs8: Bytes,
}

impl PrivateKey {
    /// Reads a key in DER, of any of the three kinds. A file may leave out the public half of an elliptic curve
    /// key; then `public_key` has to have it, as the content of the SubjectPublicKeyInfo bit string.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] if it is no key of an algorithm this crate knows. Whether its numbers fit each
    /// other shows when a signer is made of it.
    pub fn from_der(der: &[u8], public_key: Option<&[u8]>) -> Result<Self, CryptoError> {
        parse(der, public_key).ok_or(CryptoError::Malformed)
    }

    /// Has `provider` make a new key.
    ///
    /// # Errors
    /// [`CryptoError::Unavailable`] if it makes no keys of this algorithm.
    pub fn generate(provider: &dyn Provider, algorithm: AsymAlgorithm) -> Result<Self, CryptoError> {
        Self::from_der(&provider.generate_pkcs8(algorithm)?, None)
    }

    /// Its algorithm; an RSA key that is good for both paddings says RSASSA-PKCS1-v1_5.
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.algorithm
    }

    /// PKCS#8, with the public key inside for elliptic curves and the seed for ML-DSA.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// A signer of `provider` with this key.
    ///
    /// # Errors
    /// [`CryptoError::Unavailable`] if it has none of this algorithm, [`CryptoError::Malformed`] if the key is not valid or
    /// does not serve it.
    pub fn signer(
        &self,
        provider: &dyn Provider,
        algorithm: AsymAlgorithm,
    ) -> Result<Arc<dyn Signer>, CryptoError> {
        if !self.algorithm.serves(algorithm) {
            return Err(CryptoError::Malformed);
        }
        provider.signer(algorithm, &self.pkcs8)
    }
}

impl core::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PrivateKey({:?})", self.algorithm)
    }
}

fn parse(der: &[u8], public_key: Option<&[u8]>) -> Option<PrivateKey> {
    let (version, rest) = unsigned(only(der, SEQUENCE)?)?;
    // After the version comes an identifier in PKCS#8, the private number in SEC1, the modulus in PKCS#1.
    match (version, rest.first()) {
        ([0 | 1], Some(&SEQUENCE)) => pkcs8(rest, public_key),
        ([1], Some(&OCTET_STRING)) => {
            let (_, attributes) = tagged(rest, OCTET_STRING)?;
            let (curve, _) = tagged(attributes, context(0))?;
            elliptic(KeyType::curve(curve)?.algorithm(None)?, der, public_key)
        }
        ([0], Some(_)) => rsa(KeyType::Rsa { pss_only: false }, der),
        _ => None,
    }
}

/// What follows the version.
fn pkcs8(rest: &[u8], public_key: Option<&[u8]>) -> Option<PrivateKey> {
    use AsymAlgorithm as A;
    let (identifier, rest) = tagged(rest, SEQUENCE)?;
    let (key, _attributes_and_public_key) = tagged(rest, OCTET_STRING)?;
    match KeyType::parse(identifier)? {
        kind @ KeyType::Rsa { .. } => rsa(kind, key),
        KeyType::Other(curve @ (A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521)) => {
            elliptic(curve, key, public_key)
        }
        KeyType::Other(A::Ed25519) => {
            let seed = only(key, OCTET_STRING).filter(|seed| seed.len() == 32)?;
            Some(wrap(A::Ed25519, &Zeroizing::new(encode(OCTET_STRING, &[seed]))))
        }
        KeyType::Other(algorithm) => {
            Some(wrap(algorithm, &Zeroizing::new(encode(0x80, &[ml_dsa_seed(key)?]))))
        }
    }
}

/// The seed of an ML-DSA-PrivateKey: alone, or before the expanded key (RFC 9881 §6). The expanded key alone is not
/// taken: nothing can make the seed of it.
fn ml_dsa_seed(key: &[u8]) -> Option<&[u8]> {
    let seed = match key.first()? {
        0x80 => only(key, 0x80)?,
        &SEQUENCE => tagged(only(key, SEQUENCE)?, OCTET_STRING)?.0,
        _ => return None,
    };
    Some(seed).filter(|seed| seed.len() == 32)
}

/// From an ECPrivateKey.
fn elliptic(algorithm: AsymAlgorithm, key: &[u8], public_key: Option<&[u8]>) -> Option<PrivateKey> {
    let (_version, rest) = unsigned(only(key, SEQUENCE)?)?;
    let (number, rest) = tagged(rest, OCTET_STRING)?;
    let rest = tagged(rest, context(0)).map_or(rest, |(_curve, rest)| rest);
    let inside = tagged(rest, context(1)).and_then(|(bits, _)| only(bits, BIT_STRING)?.strip_prefix(&[0]));
    let public = encode(context(1), &[&encode_bits(inside.or(public_key)?)]);
    let number = Zeroizing::new(encode(OCTET_STRING, &[number]));
    let key = Zeroizing::new(encode(SEQUENCE, &[&[2, 1, 1], &number, &public]));
    Some(wrap(algorithm, &key))
}

/// From an RSAPrivateKey.
fn rsa(kind: KeyType, key: &[u8]) -> Option<PrivateKey> {
    let (_version, rest) = unsigned(only(key, SEQUENCE)?)?;
    let (modulus, _) = unsigned(rest)?;
    Some(wrap(kind.algorithm(Some(modulus.len()))?, key))
}

fn wrap(algorithm: AsymAlgorithm, key: &[u8]) -> PrivateKey {
    let key = Zeroizing::new(encode(OCTET_STRING, &[key]));
    let pkcs8 = encode(SEQUENCE, &[&[2, 1, 0], &key_identifier(algorithm), &key]);
    PrivateKey { algorithm, pkcs8: Zeroizing::new(pkcs8) }
}
