//! SHA-3 with its HMAC and HKDF, by RustCrypto: `ring` has none of them, AWS-LC no HMAC.

use hmac::{KeyInit, Mac, SimpleHmac};
use sha3::digest::common::BlockSizeUser;
use sha3::{Sha3_256, Sha3_384, Sha3_512};

use super::{CryptoError, Digest, Hasher, Secret};

/// A SHA-3 algorithm.
#[derive(Clone, Copy)]
pub(super) enum Sha3 {
    Bits256,
    Bits384,
    Bits512,
}

impl Sha3 {
    pub(super) fn hasher(self) -> Box<dyn Hasher> {
        match self {
            Self::Bits256 => Box::new(Running(Sha3_256::default())),
            Self::Bits384 => Box::new(Running(Sha3_384::default())),
            Self::Bits512 => Box::new(Running(Sha3_512::default())),
        }
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
        match self {
            Self::Bits256 => mac::<Sha3_256>(key, &[data]),
            Self::Bits384 => mac::<Sha3_384>(key, &[data]),
            Self::Bits512 => mac::<Sha3_512>(key, &[data]),
        }
    }

    /// In constant time.
    pub(super) fn hmac_verify(self, key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
        match self {
            Self::Bits256 => mac_verify::<Sha3_256>(key, data, tag),
            Self::Bits384 => mac_verify::<Sha3_384>(key, data, tag),
            Self::Bits512 => mac_verify::<Sha3_512>(key, data, tag),
        }
    }

    pub(super) fn hkdf_expand(self, key: &[u8], info: &[u8], length: usize) -> Result<Secret, CryptoError> {
        match self {
            Self::Bits256 => expand::<Sha3_256>(key, info, length),
            Self::Bits384 => expand::<Sha3_384>(key, info, length),
            Self::Bits512 => expand::<Sha3_512>(key, info, length),
        }
    }
}

trait Algorithm: sha3::Digest + BlockSizeUser + Clone + Send + 'static {}
impl<H: sha3::Digest + BlockSizeUser + Clone + Send + 'static> Algorithm for H {}

struct Running<H>(H);

impl<H: Algorithm> Hasher for Running<H> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.clone()))
    }

    fn digest(&self) -> Digest {
        Digest::new(&self.0.clone().finalize())
    }
}

fn keyed<H: Algorithm>(key: &[u8], parts: &[&[u8]]) -> Result<SimpleHmac<H>, CryptoError> {
    let mut mac = SimpleHmac::new_from_slice(key).map_err(|_| CryptoError::Failed)?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

fn mac<H: Algorithm>(key: &[u8], parts: &[&[u8]]) -> Result<Secret, CryptoError> {
    Secret::new(&keyed::<H>(key, parts)?.finalize().into_bytes()).ok_or(CryptoError::Failed)
}

fn mac_verify<H: Algorithm>(key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
    keyed::<H>(key, &[data])?.verify_slice(tag).map_err(|_| CryptoError::Mismatch)
}

/// RFC 5869 §2.3; at most as many bytes as a secret has.
fn expand<H: Algorithm>(key: &[u8], info: &[u8], length: usize) -> Result<Secret, CryptoError> {
    let mut secret = Secret::zeros(length);
    let mut block = Secret::zeros(0);
    for (counter, out) in (1_u8..).zip(secret.as_mut().chunks_mut(<H as sha3::Digest>::output_size())) {
        block = mac::<H>(key, &[block.as_ref(), info, &[counter]])?;
        out.iter_mut().zip(block.as_ref()).for_each(|(to, from)| *to = *from);
    }
    Ok(secret)
}
