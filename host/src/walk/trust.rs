//! Which roots to trust, from the command line to the requester's settings.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use spdm::crypto::Provider;
use spdm::requester::{RequesterConfig, RootPin, TrustPolicy};
use x509_parser::pem::parse_x509_pem;

use crate::cli::{Options, parse_hex};
use crate::error::{Error, Result};

/// A certificate is a few kilobytes.
const MAX_CERTIFICATE: u64 = 1 << 20;
/// 2024-01-01: a clock that says less has not been set, as in an initramfs without a real-time clock.
const CLOCK_IS_SET: i64 = 1_704_067_200;

/// The requester's settings for these options.
///
/// # Errors
/// [`Error::Usage`] for a root certificate or hash that cannot be read.
pub fn requester_config(options: &Options, provider: &dyn Provider) -> Result<RequesterConfig> {
    let trust = match (&options.root_cert, &options.root_hash) {
        (Some(path), _) => TrustPolicy::Pinned(vec![RootPin::Certificate(read_certificate(path)?)]),
        (None, Some(digits)) => TrustPolicy::Pinned(vec![RootPin::Digest(read_hash(digits)?)]),
        (None, None) => TrustPolicy::FirstUse,
    };
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    let time = now.filter(|now| *now >= CLOCK_IS_SET);
    if time.is_none() {
        log::warn!("the clock is not set: validity periods of certificates are not checked");
    }
    let offered = RequesterConfig::offering(provider);
    let versions = if options.spdm_versions.is_empty() {
        offered.versions.clone()
    } else {
        options.spdm_versions.clone()
    };
    Ok(RequesterConfig { trust, time, versions, ..offered })
}

fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if length > MAX_CERTIFICATE {
        return Err(failed(format!("{length} bytes are no certificate")));
    }
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
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
