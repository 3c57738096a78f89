//! HMAC (RFC 2104) and HKDF-Expand (RFC 5869 §2.3) of every hash, by RustCrypto. `ring` and AWS-LC have neither with SHA-3; with SHA-2
//! theirs prepare and copy states that take longer than the hash itself, and a handshake has twenty of them.

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use sha2::{Sha256, Sha384, Sha512};
use sha3::{Sha3_256, Sha3_384, Sha3_512};

use super::{CryptoError, HashAlgorithm, Secret};

/// Calls a function with the HMAC of a hash as its type.
macro_rules! of {
    ($hash:expr, $function:ident($($argument:expr),*)) => {
        match $hash {
            HashAlgorithm::Sha256 => $function::<Hmac<Sha256>>($($argument),*),
            HashAlgorithm::Sha384 => $function::<Hmac<Sha384>>($($argument),*),
            HashAlgorithm::Sha512 => $function::<Hmac<Sha512>>($($argument),*),
            HashAlgorithm::Sha3_256 => $function::<SimpleHmac<Sha3_256>>($($argument),*),
            HashAlgorithm::Sha3_384 => $function::<SimpleHmac<Sha3_384>>($($argument),*),
            HashAlgorithm::Sha3_512 => $function::<SimpleHmac<Sha3_512>>($($argument),*),
        }
    };
}

/// The HMAC of `data`.
pub(super) fn sign(hash: HashAlgorithm, key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
    of!(hash, sign_by(key, data))
}

/// Checks one in constant time.
pub(super) fn verify(hash: HashAlgorithm, key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
    of!(hash, verify_by(key, data, tag))
}

/// Every output by the info in its place. The key is prepared once, which is half of the work of a key schedule.
pub(super) fn hkdf_expand(
    hash: HashAlgorithm,
    key: &[u8],
    infos: &[&[u8]],
    outputs: &mut [Secret],
) -> Result<(), CryptoError> {
    if infos.len() != outputs.len() {
        return Err(CryptoError::Failed);
    }
    of!(hash, expand_by(key, infos, outputs))
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> Result<M, CryptoError> {
    <M as KeyInit>::new_from_slice(key).map_err(|_| CryptoError::Failed)
}

fn sign_by<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Result<Secret, CryptoError> {
    let tag = keyed::<M>(key)?.chain_update(data).finalize();
    Secret::new(tag.as_bytes()).ok_or(CryptoError::Failed)
}

fn verify_by<M: Mac + KeyInit>(key: &[u8], data: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
    keyed::<M>(key)?.chain_update(data).verify_slice(tag).map_err(|_| CryptoError::Mismatch)
}

fn expand_by<M: Mac + KeyInit + Clone>(
    key: &[u8],
    infos: &[&[u8]],
    outputs: &mut [Secret],
) -> Result<(), CryptoError> {
    let key = keyed::<M>(key)?;
    for (info, output) in infos.iter().zip(outputs) {
        let mut rest = output.as_mut();
        let mut block: Option<CtOutput<M>> = None;
        let mut counter = 0_u8;
        while !rest.is_empty() {
            counter = counter.checked_add(1).ok_or(CryptoError::Failed)?;
            let mut mac = key.clone();
            if let Some(before) = &block {
                mac.update(CtOutput::as_bytes(before));
            }
            mac.update(info);
            mac.update(&[counter]);
            let next = mac.finalize();
            let (filled, after) = rest.split_at_mut(rest.len().min(next.as_bytes().len()));
            filled.iter_mut().zip(next.as_bytes()).for_each(|(to, from)| *to = *from);
            rest = after;
            block = Some(next);
        }
    }
    Ok(())
}
