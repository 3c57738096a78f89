//! SHA-3 with its HMAC and HKDF, by RustCrypto: `ring` has none of them, AWS-LC no HMAC.

use hmac::{KeyInit, Mac, SimpleHmac};
use sha3::digest::common::BlockSizeUser;
use sha3::{Sha3_256, Sha3_384, Sha3_512};

use super::{CryptoError, Digest, Hasher, Secret, hkdf_expand};

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
            Self::Bits256 => mac::<Sha3_256>(key, data),
            Self::Bits384 => mac::<Sha3_384>(key, data),
            Self::Bits512 => mac::<Sha3_512>(key, data),
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

    pub(super) fn hkdf_expand(
        self,
        key: &[u8],
        infos: &[&[u8]],
        outputs: &mut [Secret],
    ) -> Result<(), CryptoError> {
        match self {
            Self::Bits256 => expand::<Sha3_256>(key, infos, outputs),
            Self::Bits384 => expand::<Sha3_384>(key, infos, outputs),
            Self::Bits512 => expand::<Sha3_512>(key, infos, outputs),
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

fn keyed<H: Algorithm>(key: &[u8]) -> Result<SimpleHmac<H>, CryptoError> {
    SimpleHmac::new_from_slice(key).map_err(|_| CryptoError::Failed)
}

fn mac<H: Algorithm>(key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
    let mac = keyed::<H>(key)?.chain_update(data);
    Secret::new(&mac.finalize().into_bytes()).ok_or(CryptoError::Failed)
}

fn mac_verify<H: Algorithm>(key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
    keyed::<H>(key)?.chain_update(data).verify_slice(tag).map_err(|_| CryptoError::Mismatch)
}

fn expand<H: Algorithm>(key: &[u8], infos: &[&[u8]], outputs: &mut [Secret]) -> Result<(), CryptoError> {
    let key = keyed::<H>(key)?;
    hkdf_expand(infos, outputs, |parts| {
        let mac = parts.iter().fold(key.clone(), |mac, part| mac.chain_update(part));
        mac.finalize().into_bytes()
    })
}
