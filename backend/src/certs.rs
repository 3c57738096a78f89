//! `tdispd certs`: shows, exports and checks the certificates that a device has or would have.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use spdm::crypto::{HashAlgorithm, RingProvider, hash};
use spdm::identity::{
    Material, MaterialError, Policy, VerifiedCertificates, read_chain, verify_certificates,
};
use spdm::slot::Slots;
use spdm::wire::CertificateChain;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::cli::CertsCommand;
use crate::device::{BuildError, slots};
use crate::state_dir::{StateError, chain_pem, make_directory, write};

/// Why a `certs` command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The configuration or the state directory.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The directory to write to.
    #[error(transparent)]
    Write(#[from] StateError),
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A chain that requesters refuse, or a key that is not its leaf's.
    #[error("{path}: {source}")]
    Unusable {
        /// The file.
        path: String,
        /// Why.
        source: MaterialError,
    },
}

/// Carries out `command` and returns what to print.
///
/// # Errors
/// [`CertsError`], with the file or field at fault.
pub fn run(command: &CertsCommand) -> Result<String, CertsError> {
    match command {
        CertsCommand::Show { device, json } => {
            let config = device.config().map_err(BuildError::from)?;
            let reports = reports(&slots(&config, device.state_dir.as_deref())?);
            if *json {
                // Nothing in a report can fail to be written.
                return Ok(serde_json::to_string_pretty(&reports).unwrap_or_default() + "\n");
            }
            Ok(reports.iter().map(Report::text).collect::<Vec<_>>().join("\n"))
        }
        CertsCommand::Export { device, directory } => {
            let config = device.config().map_err(BuildError::from)?;
            export(&slots(&config, device.state_dir.as_deref())?, directory)
        }
        CertsCommand::Check { chain, key } => check(chain, key.as_deref()),
    }
}

/// One slot.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u8>,
    algorithm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    pci_name: Option<String>,
    certificates: Vec<Certificate>,
    /// Of the chain in the form SPDM transfers, by hash, as DIGESTS reports it.
    digests: Vec<Digest>,
}

/// One certificate.
#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    issuer: String,
    not_before: String,
    not_after: String,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct Digest {
    hash: &'static str,
    chain: String,
    root: String,
}

fn reports(slots: &Slots) -> Vec<Report> {
    slots
        .existing()
        .map(|(number, slot)| Report {
            slot: Some(number),
            algorithm: slot.algorithm().to_string(),
            model: Some(slot.model.name()),
            pci_name: verified(&slot.certificates).and_then(|verified| verified.pci_name),
            certificates: slot.certificates.iter().map(|der| certificate(der)).collect(),
            digests: digests(&slot.certificates),
        })
        .collect()
}

fn verified(certificates: &[Vec<u8>]) -> Option<VerifiedCertificates> {
    verify_certificates(&certificates.concat(), &Policy::default()).ok()
}

fn certificate(der: &[u8]) -> Certificate {
    let unknown = || "(unreadable)".to_owned();
    let parsed = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
    let text = |get: &dyn Fn(&X509Certificate<'_>) -> String| parsed.as_ref().map_or_else(unknown, get);
    Certificate {
        subject: text(&|one| one.subject().to_string()),
        issuer: text(&|one| one.issuer().to_string()),
        not_before: text(&|one| one.validity().not_before.to_string()),
        not_after: text(&|one| one.validity().not_after.to_string()),
        bytes: der.len(),
    }
}

fn digests(certificates: &[Vec<u8>]) -> Vec<Digest> {
    let provider = RingProvider::new();
    let Some(root) = certificates.first() else { return Vec::new() };
    let digest = |algorithm: HashAlgorithm| {
        let root = hash(&provider, algorithm, root).ok()?;
        let mut chain = Vec::new();
        CertificateChain::encode(root.as_ref(), certificates, &mut chain).ok()?;
        let chain = hash(&provider, algorithm, &chain).ok()?;
        Some(Digest { hash: algorithm.name(), chain: format!("{chain:?}"), root: format!("{root:?}") })
    };
    [HashAlgorithm::Sha256, HashAlgorithm::Sha384].into_iter().filter_map(digest).collect()
}

impl Report {
    fn text(&self) -> String {
        let mut out = String::new();
        let title = self.slot.map_or_else(|| "chain".to_owned(), |slot| format!("slot {slot}"));
        let model = self.model.map(|model| format!(", {model} certificates")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{title}: {}{model}", self.algorithm);
        if self.certificates.is_empty() {
            let _ = writeln!(out, "  no certificate yet");
        }
        for (place, one) in self.certificates.iter().enumerate() {
            let _ = writeln!(out, "  {place}  {}", one.subject);
            let _ = writeln!(out, "     issued by {}, {} bytes", one.issuer, one.bytes);
            let _ = writeln!(out, "     valid {} to {}", one.not_before, one.not_after);
        }
        if let Some(name) = &self.pci_name {
            let _ = writeln!(out, "  name    {name}");
        }
        for digest in &self.digests {
            let _ = writeln!(out, "  {:7} {}", digest.hash, digest.chain);
            let _ = writeln!(out, "  {:7} {}", "root", digest.root);
        }
        out
    }
}

/// Writes chains and roots; private keys stay where they are.
fn export(slots: &Slots, directory: &Path) -> Result<String, CertsError> {
    make_directory(directory)?;
    let mut out = String::new();
    for (number, slot) in slots.iter() {
        let blocks = |certificates: &[Vec<u8>]| chain_pem(certificates).into_bytes();
        let root = slot.certificates.get(..1).unwrap_or_default();
        for (name, bytes) in [
            (format!("slot{number}.chain.pem"), blocks(&slot.certificates)),
            (format!("slot{number}.chain.der"), slot.certificates.concat()),
            (format!("slot{number}.root.pem"), blocks(root)),
        ] {
            let path = directory.join(name);
            write(&path, &bytes, 0o644)?;
            let _ = writeln!(out, "{}", path.display());
        }
    }
    Ok(out)
}

/// The checks a requester of SPDM 1.3 makes, whether the key is the leaf's, and what the chain says.
fn check(chain_path: &Path, key_path: Option<&Path>) -> Result<String, CertsError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|source| CertsError::Read { path: path.display().to_string(), source })
    };
    let unusable = |source| CertsError::Unusable { path: chain_path.display().to_string(), source };
    let chain = read(chain_path)?;
    let certificates = read_chain(&chain).map_err(unusable)?;
    let policy = Policy { leaf_constraints_required: true, ..Policy::default() };
    let verified = verify_certificates(&certificates.concat(), &policy)
        .map_err(|error| unusable(MaterialError::Chain(error)))?;
    if let Some(key_path) = key_path {
        Material::load(&chain, &read(key_path)?, None)
            .map_err(|source| CertsError::Unusable { path: key_path.display().to_string(), source })?;
    }
    let report = Report {
        slot: None,
        algorithm: verified.algorithm.to_string(),
        model: None,
        pci_name: verified.pci_name,
        certificates: certificates.iter().map(|der| certificate(der)).collect(),
        digests: digests(&certificates),
    };
    let key = if key_path.is_some() {
        "The chain is in order, and the key is its leaf's.\n"
    } else {
        "The chain is in order.\n"
    };
    Ok(report.text() + key)
}
