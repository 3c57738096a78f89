//! Which roots to trust and what to prove ourselves with, from the command line to the requester's settings.

use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use spdm::crypto::Provider;
use spdm::identity::Material;
use spdm::psk::PreSharedKey;
use spdm::requester::{RequesterConfig, RootPin, TrustPolicy};
use spdm::slot::Slots;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use crate::cli::{Options, parse_hex};
use crate::error::{Error, Result};

/// Certificates and keys are a few kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// 2024-01-01: a clock that says less has not been set, as in an initramfs without a real-time clock.
const CLOCK_IS_SET: i64 = 1_704_067_200;

/// The requester's settings for these options.
///
/// # Errors
/// [`Error::Usage`] for a root certificate, hash or pre-shared key that cannot be read.
pub fn requester_config(options: &Options, provider: &dyn Provider) -> Result<RequesterConfig> {
    let trust = match (&options.root_cert, &options.root_hash) {
        (Some(path), _) => TrustPolicy::Pinned(vec![RootPin::Certificate(read_certificate(path)?)]),
        (None, Some(digits)) => TrustPolicy::Pinned(vec![RootPin::Digest(read_hash(digits)?)]),
        (None, None) => TrustPolicy::FirstUse,
    };
    let time = clock_time();
    let offered = RequesterConfig::offering(provider);
    let versions = if options.spdm_versions.is_empty() {
        offered.versions.clone()
    } else {
        options.spdm_versions.clone()
    };
    let psks = pre_shared_keys(options)?;
    let multiple_keys = options.credentials.multiple_keys;
    Ok(RequesterConfig { trust, time, versions, psks, multiple_keys, ..offered })
}

/// Seconds since 1970, if the clock has been set.
pub(crate) fn clock_time() -> Option<i64> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    let time = now.filter(|now| *now >= CLOCK_IS_SET);
    if time.is_none() {
        log::warn!("the clock is not set: validity periods of certificates are not checked");
    }
    time
}

fn pre_shared_keys(options: &Options) -> Result<Vec<PreSharedKey>> {
    let hint = options.credentials.psk_hint.clone();
    match (&options.credentials.psk_file, hint) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(Error::Usage("--psk-hint names the key of a --psk-file".into())),
        (Some(path), hint) => {
            let secret = read_file(path)?;
            if secret.is_empty() {
                return Err(Error::Usage(format!("{} is empty", path.display())));
            }
            Ok(vec![PreSharedKey::new(hint.unwrap_or_default().0, secret)])
        }
    }
}

/// What to say to a responder that asks who we are.
///
/// # Errors
/// [`Error::Usage`] for a chain or key that cannot be used.
pub(super) fn own_identity(options: &Options) -> Result<Slots> {
    let (chain, key) = match (&options.credentials.identity_chain, &options.credentials.identity_key) {
        (None, None) => return Ok(Slots::default()),
        (Some(chain), Some(key)) => (chain, key),
        (Some(_), None) | (None, Some(_)) => {
            return Err(Error::Usage("--identity-chain and --identity-key go together".into()));
        }
    };
    let files = format!("{} and {}", chain.display(), key.display());
    let material = Material::load(&read_file(chain)?, &Zeroizing::new(read_file(key)?), None)
        .map_err(|error| Error::Usage(format!("{files}: {error}")))?;
    Ok(Slots::single(material.slot()))
}

/// A file of a size that certificates and keys have.
///
/// # Errors
/// [`Error::Usage`] that names it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(format!("more than {MAX_FILE} bytes are no certificate or key")));
    }
    Ok(bytes)
}

pub(crate) fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
    let bytes = read_file(path)?;
    let der = if bytes.starts_with(b"-----") {
        parse_x509_pem(&bytes).map_err(|e| failed(format!("no PEM certificate: {e}")))?.1.contents
    } else {
        bytes
    };
    match x509_parser::parse_x509_certificate(&der) {
        Ok(([], _)) => Ok(der),
        Ok(_) => Err(failed("bytes follow the certificate".into())),
        Err(e) => Err(failed(format!("no certificate: {e}"))),
    }
}

fn read_hash(digits: &str) -> Result<Vec<u8>> {
    parse_hex(digits).filter(|bytes| matches!(bytes.len(), 32 | 48 | 64)).ok_or_else(|| {
        Error::Usage("--root-hash takes a SHA-256, SHA-384 or SHA-512 hash in hexadecimal".into())
    })
}
