//! From `[spdm]` and the state directory to a responder.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use spdm::crypto::{AsymAlgorithm, HashAlgorithm, Provider, RingProvider};
use spdm::identity::{Material, PciName, read_chain};
use spdm::psk::PreSharedKey;
use spdm::responder::{
    Capability, Delay, Measurement, MeasurementLogItem, MeasurementSupport, MeasurementValue,
    MutualAuthentication, PskSupport, Responder, ResponderConfig,
};
use spdm::slot::{Slot, Slots};
use spdm::trust::{RootPin, TrustPolicy};
use spdm::wire::{CertificateModel, Code, DeviceClass};
use zeroize::Zeroizing;

use super::build::BuildError;
use crate::config::{self, Config, ConfigError, MeasurementKind, ProviderKind, Spdm, Value};
use crate::state_dir::{self, Wanted};

/// Registry of standards bodies (DSP0274 1.3 "Registry or standards body ID").
const REGISTRY_PCI_SIG: u8 = 3;

/// The responder of the device that `config` describes.
pub(super) fn responder(
    config: &Config,
    state_dir: Option<&Path>,
    standalone: bool,
) -> Result<Responder, BuildError> {
    let spdm = &config.spdm;
    let provider = provider(spdm.provider)?;
    let slots = slots(config, state_dir)?;
    let hash = spdm.measurement_hashes.iter().copied().find(|&hash| provider.supports_hash(hash));
    let mut measurements = spdm
        .measurements
        .iter()
        .enumerate()
        .map(|(place, configured)| measurement(place, configured, provider.as_ref(), hash))
        .collect::<Result<Vec<_>, _>>()?;
    measurements.sort_by_key(|measurement| measurement.index);
    let profile = spdm.capabilities(standalone);
    let capabilities = Capability {
        // A responder that advertises measurements, or a log of them, has some.
        measurements: if measurements.is_empty() { MeasurementSupport::None } else { profile.measurements },
        fresh_measurements: profile.fresh_measurements && !measurements.is_empty(),
        measurement_log: profile.measurement_log && !measurements.is_empty(),
        // libspdm's requester refuses to send HEARTBEAT where the period is 0.
        heartbeat: profile.heartbeat && spdm.heartbeat(standalone) > 0,
        psk: if spdm.psk.is_empty() { PskSupport::None } else { profile.psk },
        alias_certificates: slots.iter().any(|(_, slot)| slot.model == CertificateModel::Alias),
        ..profile
    };
    // What was measured is what was extended: one entry for each.
    let log =
        |one: &Measurement| MeasurementLogItem { index: one.index, kind: one.kind, value: one.value.clone() };
    let settings = ResponderConfig {
        versions: spdm.versions(standalone),
        secured_versions: spdm.secured_versions.clone(),
        capabilities,
        hashes: spdm.hashes.clone(),
        asym: spdm.signatures.clone(),
        groups: spdm.groups.clone(),
        aeads: spdm.aeads.clone(),
        psks: psks(spdm)?,
        measurement_hashes: spdm.measurement_hashes.clone(),
        data_transfer_size: spdm.transfer_size,
        max_message_size: if capabilities.chunks { spdm.message_size } else { spdm.transfer_size },
        measurement_log: measurements.iter().map(log).collect(),
        measurements,
        device_classes: vec![device_class(config)],
        heartbeat_period: spdm.heartbeat(standalone),
        session_limit: spdm.sessions.into(),
        mutual: mutual(spdm)?,
        delays: spdm.delays.iter().filter_map(delay).collect(),
        ..ResponderConfig::default()
    };
    Responder::new(settings, slots, provider).map_err(|error| ConfigError::value("spdm", error).into())
}

/// The library that the configuration names, if this build has it.
pub(super) fn provider(kind: ProviderKind) -> Result<Box<dyn Provider>, ConfigError> {
    match kind {
        ProviderKind::Ring => Ok(Box::new(RingProvider::new())),
        #[cfg(feature = "aws-lc")]
        ProviderKind::AwsLc => Ok(Box::new(spdm::crypto::AwsLcProvider::new())),
        #[cfg(not(feature = "aws-lc"))]
        ProviderKind::AwsLc => Err(ConfigError::value(
            "spdm.provider",
            "this tdispd was built without AWS-LC; build it with --features aws-lc",
        )),
    }
}

/// The name of the device in its certificates.
pub(super) fn pci_name(config: &Config) -> PciName {
    let pci = &config.pci;
    PciName {
        vendor: pci.vendor,
        device: pci.device,
        class: pci.class,
        revision: pci.revision,
        subsystem_vendor: pci.subsystem_vendor,
        subsystem: pci.subsystem,
        serial: Some(pci.serial),
    }
}

fn mutual(spdm: &Spdm) -> Result<MutualAuthentication, ConfigError> {
    let root = |(place, path): (usize, &PathBuf)| {
        let problem = |error: &dyn core::fmt::Display| {
            ConfigError::value(format!("spdm.mutual.roots[{place}]"), format!("{}: {error}", path.display()))
        };
        let bytes = std::fs::read(path).map_err(|error| problem(&error))?;
        let certificates = read_chain(&bytes).map_err(|error| problem(&error))?;
        Ok(certificates.into_iter().map(RootPin::Certificate).collect::<Vec<_>>())
    };
    let pins: Vec<RootPin> =
        spdm.mutual.roots.iter().enumerate().map(root).collect::<Result<Vec<_>, _>>()?.concat();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|now| now.as_secs());
    Ok(MutualAuthentication {
        challenge: spdm.mutual.challenge,
        session: spdm.mutual.session,
        slot: spdm.mutual.slot,
        asym: spdm.signatures.clone(),
        public_key: None,
        trust: if spdm.mutual.roots.is_empty() { TrustPolicy::FirstUse } else { TrustPolicy::Pinned(pins) },
        time: now.and_then(|now| i64::try_from(now).ok()),
    })
}

/// Names were checked when the file was read.
fn delay(configured: &config::Delay) -> Option<Delay> {
    let request = Code::from_name(&configured.request)?;
    Some(Delay { request, exponent: configured.exponent, wait: configured.wait })
}

fn psks(spdm: &Spdm) -> Result<Vec<PreSharedKey>, ConfigError> {
    let key = |(place, psk): (usize, &config::Psk)| {
        let bytes = std::fs::read(&psk.file).map_err(|error| {
            ConfigError::value(format!("spdm.psk[{place}].file"), format!("{}: {error}", psk.file.display()))
        })?;
        if bytes.is_empty() {
            let empty = format!("{} is empty", psk.file.display());
            return Err(ConfigError::value(format!("spdm.psk[{place}].file"), empty));
        }
        Ok(PreSharedKey::new(psk.hint.clone().into_bytes(), bytes))
    };
    spdm.psk.iter().enumerate().map(key).collect()
}

/// The device among those of its vendor (DSP0274 1.3 "DeviceClassIdentifier"): device, subsystem vendor and subsystem.
fn device_class(config: &Config) -> DeviceClass {
    let pci = &config.pci;
    DeviceClass {
        registry: REGISTRY_PCI_SIG,
        vendor_id: pci.vendor.to_le_bytes().to_vec(),
        subordinates: [pci.device, pci.subsystem_vendor, pci.subsystem]
            .map(|id| id.to_le_bytes().to_vec())
            .to_vec(),
    }
}

/// The certificate slots of the device that `config` describes.
///
/// # Errors
/// A file, the state directory, or an algorithm that the configured library has no keys for.
pub fn slots(config: &Config, state_dir: Option<&Path>) -> Result<Slots, BuildError> {
    let provider = provider(config.spdm.provider)?;
    let mut slots = Slots::default();
    // Without any [[spdm.slot]] there is one.
    let one = [config::Slot::default()];
    let configured = if config.spdm.slots.is_empty() { &one[..] } else { &config.spdm.slots };
    for (place, configured) in configured.iter().enumerate() {
        let found = match (&configured.chain, &configured.private_key) {
            (Some(chain), Some(key)) => {
                Slot { model: configured.model, ..load(place, &*provider, chain, key, configured.key)? }
            }
            _ => {
                let wanted = Wanted {
                    provider: &*provider,
                    number: configured.number,
                    name: &pci_name(config),
                    algorithm: configured.algorithm(),
                    empty: configured.empty,
                    model: configured.model,
                };
                state_dir::slot(state_dir, &wanted)?
            }
        };
        if let Some(slot) = slots.slots.get_mut(usize::from(configured.number)) {
            *slot = Some(Slot { key_pair: u8::try_from(place + 1).unwrap_or(u8::MAX), ..found });
        }
    }
    Ok(slots)
}

fn load(
    place: usize,
    provider: &dyn Provider,
    chain: &Path,
    key: &Path,
    algorithm: Option<AsymAlgorithm>,
) -> Result<Slot, ConfigError> {
    let read = |name: &str, path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| {
            ConfigError::value(format!("spdm.slot[{place}].{name}"), format!("{}: {error}", path.display()))
        })
    };
    let (chain_bytes, key_bytes) = (read("chain", chain)?, read("private_key", key)?);
    let loaded = Material::load(&chain_bytes, &key_bytes, algorithm).and_then(|loaded| loaded.by(provider));
    loaded.map(|material| material.slot()).map_err(|error| {
        let files = format!("{} and {}: {error}", chain.display(), key.display());
        ConfigError::value(format!("spdm.slot[{place}]"), files)
    })
}

fn measurement(
    place: usize,
    configured: &config::Measurement,
    provider: &dyn Provider,
    hash: Option<HashAlgorithm>,
) -> Result<Measurement, ConfigError> {
    let field = |name: &str| format!("spdm.measurement[{place}].{name}");
    // DSP0274 1.3 "DMTFSpecMeasurementValueType".
    let (kind, raw_only) = match configured.kind {
        MeasurementKind::ImmutableRom => (0, false),
        MeasurementKind::MutableFirmware => (1, false),
        MeasurementKind::HardwareConfiguration => (2, false),
        MeasurementKind::FirmwareConfiguration => (3, false),
        MeasurementKind::Manifest => (4, false),
        MeasurementKind::DeviceMode => (5, true),
        MeasurementKind::FirmwareVersion => (6, true),
        MeasurementKind::SecurityVersion => (7, true),
        MeasurementKind::HashExtended => (8, false),
        MeasurementKind::Informational => (9, true),
        MeasurementKind::StructuredManifest => (10, false),
    };
    let value = match configured.source() {
        Some(Value::Bytes(bytes)) if raw_only => MeasurementValue::RawOnly(bytes),
        Some(Value::Bytes(bytes)) => MeasurementValue::Raw(bytes),
        Some(Value::Digest(digest)) => MeasurementValue::Digest(digest),
        Some(Value::File(path)) => {
            let hash = hash.ok_or_else(|| {
                ConfigError::value(
                    field("file"),
                    "a file is reported as a digest, and there is no measurement hash",
                )
            })?;
            let digest = file_digest(&path, provider, hash)
                .map_err(|error| ConfigError::value(field("file"), format!("{}: {error}", path.display())))?;
            MeasurementValue::Digest(digest)
        }
        None => return Err(ConfigError::value(field("value"), "cannot be read")),
    };
    Ok(Measurement { index: configured.index, kind, tcb: configured.tcb, value })
}

/// Digest of a whole file, of any size.
fn file_digest(path: &Path, provider: &dyn Provider, hash: HashAlgorithm) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = provider.hasher(hash).map_err(std::io::Error::other)?;
    let mut buffer = vec![0; 0x1_0000];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hasher.digest().as_ref().to_vec());
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signer of `ring` is known by what it cannot do: sign with a curve and another curve's hash.
    #[test]
    fn the_configured_library_signs() {
        let directory = tempfile::tempdir().unwrap();
        let key = Some(AsymAlgorithm::EcdsaP256);
        let made = config::Slot { key, ..config::Slot::default() };
        let file = |kind: &str| Some(directory.path().join(format!("slot0.{kind}.pem")));
        let (chain, private_key) = (file("chain"), file("key"));
        let read = config::Slot { number: 1, key: None, chain, private_key, ..config::Slot::default() };
        let mut config = Config::default();
        config.spdm.provider = ProviderKind::Ring;
        config.spdm.slots = vec![made, read];
        let is_ring = |config: &Config| {
            let slots = slots(config, Some(directory.path())).unwrap();
            [0, 1].map(|number| !slots.get(number).unwrap().key.supports(HashAlgorithm::Sha384))
        };
        for _made_and_restored in 0..2 {
            assert_eq!(is_ring(&config), [true; 2]);
        }
        config.spdm.provider = ProviderKind::AwsLc;
        if cfg!(feature = "aws-lc") {
            assert_eq!(is_ring(&config), [false; 2]);
        } else {
            let error = slots(&config, None).unwrap_err().to_string();
            assert!(error.contains("--features aws-lc"), "{error}");
        }
    }
}
