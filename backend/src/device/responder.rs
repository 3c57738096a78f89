//! From `[spdm]` and the state directory to a responder.

use std::io::Read;
use std::path::Path;

use spdm::crypto::{AsymAlgorithm, HashAlgorithm, Provider, RingProvider};
use spdm::identity::{Material, PciName};
use spdm::responder::{
    Capability, Measurement, MeasurementSupport, MeasurementValue, Responder, ResponderConfig,
};
use spdm::slot::{Slot, Slots};
use zeroize::Zeroizing;

use super::build::BuildError;
use crate::config::{self, Config, ConfigError, MeasurementKind, ProviderKind, Value};
use crate::state_dir;

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
    let measurements = spdm
        .measurements
        .iter()
        .enumerate()
        .map(|(place, configured)| measurement(place, configured, provider.as_ref(), hash))
        .collect::<Result<Vec<_>, _>>()?;
    let capabilities = Capability {
        // A responder that advertises measurements has some.
        measurements: if measurements.is_empty() {
            MeasurementSupport::None
        } else {
            spdm.capabilities.measurements
        },
        fresh_measurements: spdm.capabilities.fresh_measurements && !measurements.is_empty(),
        ..spdm.capabilities
    };
    let settings = ResponderConfig {
        versions: spdm.versions(standalone),
        secured_versions: spdm.secured_versions.clone(),
        capabilities,
        hashes: spdm.hashes.clone(),
        asym: spdm.signatures.clone(),
        groups: spdm.groups.clone(),
        aeads: spdm.aeads.clone(),
        measurement_hashes: spdm.measurement_hashes.clone(),
        data_transfer_size: spdm.transfer_size,
        max_message_size: spdm.transfer_size,
        measurements,
        heartbeat_period: spdm.heartbeat_seconds,
        session_limit: spdm.sessions.into(),
        ..ResponderConfig::default()
    };
    Responder::new(settings, slots, provider).map_err(|error| ConfigError::value("spdm", error).into())
}

/// The library that the configuration names, if this build has it.
pub(super) fn provider(kind: ProviderKind) -> Result<Box<dyn Provider>, ConfigError> {
    match kind {
        ProviderKind::Ring => Ok(Box::new(RingProvider::new())),
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

/// The certificate slots of the device that `config` describes.
///
/// # Errors
/// A file, the state directory, or an algorithm that this build has no keys for.
pub fn slots(config: &Config, state_dir: Option<&Path>) -> Result<Slots, BuildError> {
    let mut slots = Slots::default();
    // Without any [[spdm.slot]] there is one.
    let one = [config::Slot::default()];
    let configured = if config.spdm.slots.is_empty() { &one[..] } else { &config.spdm.slots };
    for (place, configured) in configured.iter().enumerate() {
        let material = match (&configured.chain, &configured.private_key) {
            (Some(chain), Some(key)) => load(place, chain, key, configured.key)?,
            _ => {
                state_dir::identity(state_dir, configured.number, &pci_name(config), configured.algorithm())?
            }
        };
        if let Some(slot) = slots.slots.get_mut(usize::from(configured.number)) {
            *slot =
                Some(Slot { model: configured.model, key_pair: configured.number + 1, ..material.slot() });
        }
    }
    Ok(slots)
}

fn load(
    place: usize,
    chain: &Path,
    key: &Path,
    algorithm: Option<AsymAlgorithm>,
) -> Result<Material, ConfigError> {
    let read = |name: &str, path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| {
            ConfigError::value(format!("spdm.slot[{place}].{name}"), format!("{}: {error}", path.display()))
        })
    };
    let (chain_bytes, key_bytes) = (read("chain", chain)?, read("private_key", key)?);
    Material::load(&chain_bytes, &key_bytes, algorithm).map_err(|error| {
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
