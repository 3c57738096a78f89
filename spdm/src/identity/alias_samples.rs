//! Devices of the alias certificate model for tests: they keep their certificate authority's key, and can be certified again.

use std::sync::Arc;

use rcgen::Issuer;

use super::PciName;
use super::generate::{authority, leaf};
use super::issue::IssuingKey;
use crate::crypto::{AsymAlgorithm, DefaultProvider};
use crate::slot::{Alias, Slot};
use crate::wire::CertificateModel;

const ALGORITHM: AsymAlgorithm = AsymAlgorithm::EcdsaP256;
/// Name of the device certificate authority.
pub(crate) const AUTHORITY: &str = "tdispd device CA";

/// A device and what its vendor can do with it.
pub(crate) struct Device {
    pub(crate) slot: Slot,
    authority: IssuingKey,
}

impl Device {
    pub(crate) fn new(name: &PciName) -> Self {
        let key = IssuingKey::generate(&DefaultProvider::new(), ALGORITHM).unwrap();
        // The alias key is no hardware identity.
        let mut alias = leaf(name).unwrap();
        alias.custom_extensions.clear();
        let leaf_key = IssuingKey::generate(&DefaultProvider::new(), ALGORITHM).unwrap();
        let issuer = authority(AUTHORITY, 0).unwrap();
        let certificate = alias.signed_by(&leaf_key, &Issuer::from_params(&issuer, &key)).unwrap();
        let aliases = vec![certificate.der().to_vec()];
        let certificates = [certified(&key, AUTHORITY), aliases.clone()].concat();
        let slot = Slot {
            model: CertificateModel::Alias,
            alias: Some(Alias { certificates: aliases, authority: Arc::clone(&key.signer) }),
            ..Slot::new(certificates, Arc::clone(&leaf_key.signer))
        };
        Self { slot, authority: key }
    }

    /// A root of its own, and a certificate of this name for the device certificate authority.
    pub(crate) fn certify(&self, name: &str) -> Vec<Vec<u8>> {
        certified(&self.authority, name)
    }
}

fn certified(key: &IssuingKey, name: &str) -> Vec<Vec<u8>> {
    let root_key = IssuingKey::generate(&DefaultProvider::new(), ALGORITHM).unwrap();
    let root = authority("a vendor's root", 1).unwrap();
    let certificate = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_params(&root, &root_key);
    let device = authority(name, 0).unwrap().signed_by(key, &issuer).unwrap();
    vec![certificate.der().to_vec(), device.der().to_vec()]
}
