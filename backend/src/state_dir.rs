//! The state directory: what stays the same from one start to the next, the certificate chain and key of each slot. What
//! becomes of its keys is in [`key_pairs`](crate::key_pairs).

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spdm::crypto::{AsymAlgorithm, PrivateKey, Provider, Signer};
use spdm::identity::{Material, MaterialError, PciName, generate_by};
use spdm::slot::Slot;
use spdm::wire::CertificateModel;
use zeroize::Zeroizing;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or the directory cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The stored chain or key is no usable identity, or a new one could not be made.
    #[error("{path}: {source}")]
    Material {
        /// The file with the chain.
        path: PathBuf,
        /// What is wrong.
        source: MaterialError,
    },
    /// A key is there and its chain is not.
    #[error(
        "{chain} is missing and {key} is there: bring the chain back, or remove the key to have new ones made"
    )]
    Chainless {
        /// The file that is missing.
        chain: PathBuf,
        /// The file that is there.
        key: PathBuf,
    },
    /// What is kept of key pairs is damaged, or not of this configuration.
    #[error(
        "{path}: {problem}; bring file and configuration back together, or remove the directory's files to have new ones made"
    )]
    KeyPairs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The stored chain names another device than the configuration.
    #[error(
        "{path} is that of another device, made for {stored}; the configuration says {configured}: use another --state-dir, or remove this one's \
         files to have new ones made"
    )]
    OtherDevice {
        /// The file that says so.
        path: PathBuf,
        /// Name or key type that the files were made for.
        stored: String,
        /// Name or key type that the configuration asks for.
        configured: String,
    },
}

/// What a slot made by tdispd is to be.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Makes the key and signs with it.
    pub provider: &'a dyn Provider,
    /// Slot number.
    pub number: u8,
    /// The device's name in the leaf.
    pub name: &'a PciName,
    /// Algorithm of the key.
    pub algorithm: AsymAlgorithm,
    /// Only the key is made: the slot waits for SET_CERTIFICATE.
    pub empty: bool,
    /// Model of the chain that is made.
    pub model: CertificateModel,
    /// The key that a requester gave the slot, and what it is used for, instead of the one the slot was made with.
    pub key: Option<(&'a PrivateKey, AsymAlgorithm)>,
}

/// The files of one slot.
struct Files {
    /// PEM; without a certificate in it, the slot was erased or never written.
    chain: PathBuf,
    /// PEM, PKCS#8.
    key: PathBuf,
    /// Name of the chain's certificate model, if a requester wrote it.
    model: PathBuf,
}

impl Files {
    fn of(directory: &Path, number: u8) -> Self {
        let file = |kind: &str| directory.join(format!("slot{number}.{kind}"));
        Self { chain: file("chain.pem"), key: file("key.pem"), model: file("model") }
    }
}

/// One slot: from `directory`, made there on first use, or made for this run only without one.
///
/// # Errors
/// [`StateError`]; nothing that exists is overwritten.
pub fn slot(directory: Option<&Path>, wanted: &Wanted<'_>) -> Result<Slot, StateError> {
    let Some(directory) = directory else { return make(wanted, Path::new("(memory)")).map(|(slot, _)| slot) };
    check_name(directory, wanted.name)?;
    let files = Files::of(directory, wanted.number);
    let key = read(&files.key)?.map(Zeroizing::new);
    if let Some(chain) = read(&files.chain)? {
        let (key, algorithm) = match wanted.key {
            None => (key.unwrap_or_default(), wanted.algorithm),
            Some((key, algorithm)) => {
                let text = pem::encode(&pem::Pem::new("PRIVATE KEY", key.pkcs8()));
                (Zeroizing::new(text.into_bytes()), algorithm)
            }
        };
        let slot = restore(&chain, &key, algorithm, &files.chain, wanted)?;
        let stored = read(&files.model)?.and_then(|name| CertificateModel::from_name(name.trim_ascii()));
        return Ok(Slot { model: stored.unwrap_or(wanted.model), ..slot });
    }
    if key.is_some() {
        // Somebody may have a certificate for it.
        return Err(StateError::Chainless { chain: files.chain, key: files.key });
    }
    let (slot, key) = make(wanted, &files.chain)?;
    // The chain comes last: where it exists, the key does, too.
    write(&files.key, key.as_bytes(), 0o600)?;
    write(&files.chain, chain_pem(&slot.certificates).as_bytes(), 0o644)?;
    log::info!("made a new identity: {}", files.chain.display());
    Ok(slot)
}

/// Keeps the chain that a requester wrote into a slot, and its model; no certificates if it erased the slot.
///
/// # Errors
/// [`StateError::Io`].
pub fn keep_chain(
    directory: &Path,
    number: u8,
    certificates: &[Vec<u8>],
    model: CertificateModel,
) -> Result<(), StateError> {
    let files = Files::of(directory, number);
    write(&files.model, format!("{}\n", model.name()).as_bytes(), 0o644)?;
    write(&files.chain, chain_pem(certificates).as_bytes(), 0o644)
}

/// PEM text of DER certificates.
pub fn chain_pem(certificates: &[Vec<u8>]) -> String {
    let blocks: Vec<_> =
        certificates.iter().map(|der| pem::Pem::new("CERTIFICATE", der.as_slice())).collect();
    pem::encode_many(&blocks)
}

/// A new slot, and its key as PEM text.
fn make(wanted: &Wanted<'_>, path: &Path) -> Result<(Slot, Zeroizing<String>), StateError> {
    let failed = |source| StateError::Material { path: path.into(), source };
    let material = generate_by(wanted.provider, wanted.name, wanted.algorithm).map_err(failed)?;
    let mut slot = material.slot();
    slot.model = wanted.model;
    if wanted.empty {
        slot.certificates.clear();
    }
    Ok((slot, material.key_pem()))
}

fn restore(
    chain: &[u8],
    key: &[u8],
    algorithm: AsymAlgorithm,
    path: &Path,
    wanted: &Wanted<'_>,
) -> Result<Slot, StateError> {
    let failed = |source| StateError::Material { path: path.into(), source };
    if chain.iter().all(u8::is_ascii_whitespace) {
        let key = parse_key(key).and_then(|key| key.signer(wanted.provider, algorithm).ok());
        return Ok(Slot::new(Vec::new(), key.ok_or_else(|| failed(MaterialError::Key))?));
    }
    let material = Material::load(chain, key, Some(algorithm)).map_err(|source| {
        if source == MaterialError::Key { other_key(path, algorithm) } else { failed(source) }
    })?;
    material.by(wanted.provider).map(|material| material.slot()).map_err(failed)
}

/// The key of another algorithm is the sign of another configuration.
fn other_key(path: &Path, algorithm: AsymAlgorithm) -> StateError {
    let stored = "another kind of key".to_owned();
    StateError::OtherDevice { path: path.into(), stored, configured: algorithm.to_string() }
}

/// The key that a slot was made with.
///
/// # Errors
/// [`StateError`] if it is not there, or of another kind than configured.
pub fn first_key(
    directory: &Path,
    number: u8,
    algorithm: AsymAlgorithm,
    provider: &dyn Provider,
) -> Result<(PrivateKey, Arc<dyn Signer>), StateError> {
    let path = Files::of(directory, number).key;
    let text = read(&path)?.map(Zeroizing::new).unwrap_or_default();
    let key = parse_key(&text)
        .ok_or_else(|| StateError::Material { path: path.clone(), source: MaterialError::Key })?;
    let signer = key.signer(provider, algorithm).map_err(|_| other_key(&path, algorithm))?;
    Ok((key, signer))
}

/// A private key from PEM text.
pub fn parse_key(text: &[u8]) -> Option<PrivateKey> {
    let der = Zeroizing::new(pem::parse(text).ok()?.into_contents());
    PrivateKey::from_der(&der, None).ok()
}

/// One directory is one device's: its name is in a file, because certificates may be written that name none, or another.
fn check_name(directory: &Path, name: &PciName) -> Result<(), StateError> {
    let (path, name) = (directory.join("device"), name.to_string());
    let Some(stored) = read(&path)? else {
        make_directory(directory)?;
        return write(&path, format!("{name}\n").as_bytes(), 0o644);
    };
    let stored = String::from_utf8_lossy(&stored).trim().to_owned();
    if stored == name { Ok(()) } else { Err(StateError::OtherDevice { path, stored, configured: name }) }
}

/// The file's bytes; `None` if it is not there.
///
/// # Errors
/// [`StateError::Io`].
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.into(), source }),
    }
}

/// Makes a directory that nobody else can read, unless it is there.
///
/// # Errors
/// [`StateError::Io`].
pub fn make_directory(directory: &Path) -> Result<(), StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| StateError::Io { path: directory.into(), source })
}

/// Whole or not at all: written beside and renamed.
///
/// # Errors
/// [`StateError::Io`].
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let io = |source| StateError::Io { path: path.into(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(parent).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    // The name, too, has to survive a loss of power.
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use spdm::crypto::RingProvider;

    use super::*;

    fn name() -> PciName {
        PciName {
            vendor: 0x1234,
            device: 0x7D15,
            class: 0x12_0000,
            revision: 1,
            subsystem_vendor: 0x1234,
            subsystem: 1,
            serial: Some(7),
        }
    }

    fn wanted(name: &PciName, number: u8, algorithm: AsymAlgorithm) -> Wanted<'_> {
        static PROVIDER: LazyLock<RingProvider> = LazyLock::new(RingProvider::new);
        Wanted {
            provider: &*PROVIDER,
            number,
            name,
            algorithm,
            empty: false,
            model: CertificateModel::Device,
            key: None,
        }
    }

    #[test]
    fn the_identity_of_each_slot_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (name, p256, ed25519) = (name(), AsymAlgorithm::EcdsaP256, AsymAlgorithm::Ed25519);
        for (number, algorithm) in [(0, p256), (3, ed25519)] {
            let first = slot(Some(&path), &wanted(&name, number, algorithm)).unwrap();
            let second = slot(Some(&path), &wanted(&name, number, algorithm)).unwrap();
            assert_eq!(first.certificates, second.certificates);
            assert_eq!(first.key.public_key(), second.key.public_key());
            let unkept = slot(None, &wanted(&name, number, algorithm)).unwrap();
            assert_ne!(first.certificates, unkept.certificates);
        }
        let mode = fs::metadata(path.join("slot0.key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_requesters_write_and_erase_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, name) = (directory.path(), name());
        let empty = Wanted { empty: true, ..wanted(&name, 1, AsymAlgorithm::EcdsaP256) };
        let first = slot(Some(path), &empty).unwrap();
        assert!(!first.is_provisioned());
        let again = slot(Some(path), &empty).unwrap();
        assert!(!again.is_provisioned());
        assert_eq!(first.key.public_key(), again.key.public_key());
        let made = slot(Some(path), &wanted(&name, 0, AsymAlgorithm::EcdsaP256)).unwrap();
        keep_chain(path, 0, &[], CertificateModel::Device).unwrap();
        assert!(!slot(Some(path), &wanted(&name, 0, AsymAlgorithm::EcdsaP256)).unwrap().is_provisioned());
        keep_chain(path, 0, &made.certificates, CertificateModel::Generic).unwrap();
        let back = slot(Some(path), &wanted(&name, 0, AsymAlgorithm::EcdsaP256)).unwrap();
        assert_eq!((back.certificates, back.model), (made.certificates, CertificateModel::Generic));
        fs::remove_file(path.join("slot1.chain.pem")).unwrap();
        let error = slot(Some(path), &empty).unwrap_err().to_string();
        assert!(error.contains("slot1.chain.pem is missing"), "{error}: its key is not made anew");
    }

    #[test]
    fn another_device_is_refused_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let (path, name) = (directory.path(), name());
        let p256 = AsymAlgorithm::EcdsaP256;
        let first = slot(Some(path), &wanted(&name, 0, p256)).unwrap();
        let other = PciName { serial: Some(8), ..name };
        let error = slot(Some(path), &wanted(&other, 0, p256)).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        assert!(
            error.to_string().contains("/device is that of another device, made for Vendor=1234"),
            "{error}"
        );
        let error = slot(Some(path), &wanted(&name, 0, AsymAlgorithm::EcdsaP384)).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        assert!(error.to_string().contains("slot0.chain.pem"), "{error}");
        fs::write(path.join("slot0.key.pem"), "nonsense").unwrap();
        let error = slot(Some(path), &wanted(&name, 0, p256)).unwrap_err();
        assert!(matches!(error, StateError::Material { .. }), "{error}");
        assert_eq!(fs::read_to_string(path.join("slot0.chain.pem")).unwrap(), chain_pem(&first.certificates));
    }
}
