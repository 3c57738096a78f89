//! The state directory: what stays the same from one start to the next, the certificate chain and key of each slot.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use spdm::crypto::AsymAlgorithm;
use spdm::identity::{Material, MaterialError, PciName, generate};
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
    /// The stored chain names another device than the configuration.
    #[error(
        "{path} belongs to another device ({stored}; the configuration says {configured}): use another --state-dir, or \
         remove this file and the .key.pem beside it to have new ones made"
    )]
    OtherDevice {
        /// The file with the chain.
        path: PathBuf,
        /// Name in the leaf certificate and key type.
        stored: String,
        /// Name and key type that the configuration asks for.
        configured: String,
    },
}

/// The identity of one slot: from `directory`, made there on first use, or made for this run only without one.
///
/// # Errors
/// [`StateError`]; nothing that exists is overwritten.
pub fn identity(
    directory: Option<&Path>,
    slot: u8,
    name: &PciName,
    algorithm: AsymAlgorithm,
) -> Result<Material, StateError> {
    let make = |path: &Path| {
        generate(name, algorithm).map_err(|source| StateError::Material { path: path.into(), source })
    };
    let Some(directory) = directory else { return make(Path::new("(memory)")) };
    let chain_path = directory.join(format!("slot{slot}.chain.pem"));
    let key_path = directory.join(format!("slot{slot}.key.pem"));
    if let Some(chain) = read(&chain_path)? {
        let key = Zeroizing::new(read(&key_path)?.unwrap_or_default());
        let material = Material::load(&chain, &key, Some(algorithm)).map_err(|source| {
            let path = chain_path.clone();
            // The key of another algorithm is the sign of another configuration.
            if source == MaterialError::Key {
                let configured = format!("{name} {algorithm}");
                return StateError::OtherDevice { path, stored: "another kind of key".into(), configured };
            }
            StateError::Material { path, source }
        })?;
        return check(material, &chain_path, name, algorithm);
    }
    make_directory(directory)?;
    let material = make(&chain_path)?;
    // The chain comes last: where it exists, the key does, too.
    write(&key_path, material.key_pem().as_bytes(), 0o600)?;
    write(&chain_path, material.chain_pem().as_bytes(), 0o644)?;
    log::info!("made a new certificate chain: {}", chain_path.display());
    Ok(material)
}

fn check(
    material: Material,
    path: &Path,
    name: &PciName,
    algorithm: AsymAlgorithm,
) -> Result<Material, StateError> {
    // A chain without a PCIe name is the user's own choice.
    if material.pci_name().is_some_and(|stored| stored != name.to_string()) {
        return Err(StateError::OtherDevice {
            path: path.into(),
            stored: format!("{} {}", material.pci_name().unwrap_or("no PCIe name"), material.algorithm()),
            configured: format!("{name} {algorithm}"),
        });
    }
    Ok(material)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
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
    fn the_identity_of_each_slot_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let p256 = AsymAlgorithm::EcdsaP256;
        let first = identity(Some(&path), 0, &name(), p256).unwrap();
        let other = identity(Some(&path), 3, &name(), AsymAlgorithm::Ed25519).unwrap();
        let second = identity(Some(&path), 0, &name(), p256).unwrap();
        assert_eq!(first.certificates(), second.certificates());
        assert_eq!(first.pkcs8(), second.pkcs8());
        let again = identity(Some(&path), 3, &name(), AsymAlgorithm::Ed25519).unwrap();
        assert_eq!(other.certificates(), again.certificates());
        let mode = fs::metadata(path.join("slot0.key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let third = identity(None, 0, &name(), p256).unwrap();
        assert_ne!(first.certificates(), third.certificates());
    }

    #[test]
    fn another_device_is_refused_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let p256 = AsymAlgorithm::EcdsaP256;
        let first = identity(Some(path), 0, &name(), p256).unwrap();
        let other = PciName { serial: Some(8), ..name() };
        let error = identity(Some(path), 0, &other, p256).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        let error = identity(Some(path), 0, &name(), AsymAlgorithm::EcdsaP384).unwrap_err();
        assert!(matches!(error, StateError::OtherDevice { .. }), "{error}");
        assert!(error.to_string().contains("slot0.chain.pem"), "{error}");
        fs::write(path.join("slot0.key.pem"), "nonsense").unwrap();
        let error = identity(Some(path), 0, &name(), p256).unwrap_err();
        assert!(matches!(error, StateError::Material { .. }), "{error}");
        assert_eq!(fs::read_to_string(path.join("slot0.chain.pem")).unwrap(), first.chain_pem());
    }
}
