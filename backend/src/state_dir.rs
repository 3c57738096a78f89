//! The state directory: what stays the same from one start to the next, today the certificate chain and key of slot 0.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use spdm::crypto::AsymAlgorithm;
use spdm::identity::{Material, MaterialError, PciName, generate};

const CHAIN: &str = "slot0.chain.pem";
const KEY: &str = "slot0.key.pem";

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
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: MaterialError,
    },
    /// The stored chain names another device than the configuration.
    #[error(
        "{path} holds the certificates of another device ({stored}; the configuration says {configured}): \
         use another --state-dir, or remove {CHAIN} and {KEY} there to have new ones made"
    )]
    OtherDevice {
        /// The directory.
        path: PathBuf,
        /// Name in the leaf certificate and key type.
        stored: String,
        /// Name and key type that the configuration asks for.
        configured: String,
    },
}

/// The identity of the device: from `directory`, made there on first use, or made for this run only without one.
pub fn identity(
    directory: Option<&Path>,
    name: &PciName,
    algorithm: AsymAlgorithm,
) -> Result<Material, StateError> {
    let make = || {
        generate(name, algorithm).map_err(|source| StateError::Material {
            path: directory.unwrap_or(Path::new("(memory)")).into(),
            source,
        })
    };
    let Some(directory) = directory else { return make() };
    let (chain_path, key_path) = (directory.join(CHAIN), directory.join(KEY));
    if let Some(chain) = read(&chain_path)? {
        let key = read(&key_path)?.unwrap_or_default();
        let material = Material::from_pem(&chain, &key)
            .map_err(|source| StateError::Material { path: directory.into(), source })?;
        return check(material, directory, name, algorithm);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| StateError::Io { path: directory.into(), source })?;
    let material = make()?;
    // The chain comes last: where it exists, the key does, too.
    write(&key_path, material.key_pem().as_bytes(), 0o600)?;
    write(&chain_path, material.chain_pem().as_bytes(), 0o644)?;
    log::info!("made a new certificate chain in {}", directory.display());
    Ok(material)
}

fn check(
    material: Material,
    directory: &Path,
    name: &PciName,
    algorithm: AsymAlgorithm,
) -> Result<Material, StateError> {
    // A chain without a PCIe name is the user's own choice.
    let other = material.pci_name().is_some_and(|stored| stored != name.to_string());
    if other || material.algorithm() != algorithm {
        return Err(StateError::OtherDevice {
            path: directory.into(),
            stored: format!("{} {:?}", material.pci_name().unwrap_or("no PCIe name"), material.algorithm()),
            configured: format!("{name} {algorithm:?}"),
        });
    }
    Ok(material)
}

fn read(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.into(), source }),
    }
}

/// Whole or not at all: written beside and renamed.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let io = |source| StateError::Io { path: path.into(), source };
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(parent).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_identity_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = identity(Some(&path), &name(), AsymAlgorithm::EcdsaP256).unwrap();
        let second = identity(Some(&path), &name(), AsymAlgorithm::EcdsaP256).unwrap();
        assert_eq!(first.certificates(), second.certificates());
        assert_eq!(first.pkcs8(), second.pkcs8());
        let mode = fs::metadata(path.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let third = identity(None, &name(), AsymAlgorithm::EcdsaP256).unwrap();
        assert_ne!(first.certificates(), third.certificates());
    }

    #[test]
    fn another_device_is_refused_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let first = identity(Some(path), &name(), AsymAlgorithm::EcdsaP256).unwrap();
        let other = PciName { serial: Some(8), ..name() };
        let error = identity(Some(path), &other, AsymAlgorithm::EcdsaP256).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        let error = identity(Some(path), &name(), AsymAlgorithm::EcdsaP384).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        fs::write(path.join(KEY), "nonsense").unwrap();
        let error = identity(Some(path), &name(), AsymAlgorithm::EcdsaP256).unwrap_err();
        assert!(matches!(error, StateError::Material { .. }), "{error}");
        assert_eq!(fs::read_to_string(path.join(CHAIN)).unwrap(), first.chain_pem());
    }
}
