//! From `[spdm]` and the state directory to a responder.

use std::io::Read;
use std::path::{Path, PathBuf};

use spdm::crypto::{HashAlgorithm, Provider, RingProvider};
use spdm::identity::{PciName, read_chain};
use spdm::psk::PreSharedKey;
use spdm::responder::{
    Delay, Measurement, MeasurementLogItem, MeasurementValue, MutualAuthentication, Responder,
    ResponderConfig,
};
use spdm::slot::Slots;
use spdm::trust::{RootPin, TrustPolicy};
use spdm::wire::{Code, DeviceClass};

use super::build::{BuildError, identity_of};
use crate::config::{self, Config, ConfigError, Kind, MeasurementKind, ProviderKind, Spdm, Value};

/// Registry of standards bodies (DSP0274 1.3 "Registry or standards body ID").
const REGISTRY_PCI_SIG: u8 = 3;

/// The responder of the device that `config` describes, known by `slots`.
pub(super) fn responder(config: &Config, slots: Slots, standalone: bool) -> Result<Responder, BuildError> {
    let spdm = &config.spdm;
    let provider = provider(spdm.provider)?;
    let hash = spdm.measurement_hashes.iter().copied().find(|&hash| provider.supports_hash(hash));
    let mut measurements = spdm
        .measurements
        .iter()
        .enumerate()
        .map(|(place, configured)| measurement(place, configured, provider.as_ref(), hash))
        .collect::<Result<Vec<_>, _>>()?;
    measurements.sort_by_key(|measurement| measurement.index);
    let capabilities = spdm.capabilities(standalone);
    // What was measured is what was extended: one entry for each, and one more for every update.
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

/// The name of the device in its certificates: that of function 0, which has the mailbox.
pub(super) fn pci_name(config: &Config) -> PciName {
    let kind = config.functions.first().map_or(Kind::Test, |function| function.kind);
    let identity = identity_of(config, kind);
    PciName {
        vendor: identity.vendor,
        device: identity.device,
        class: identity.class,
        revision: identity.revision,
        subsystem_vendor: identity.subsystem_vendor,
        subsystem: identity.subsystem,
        serial: Some(identity.serial),
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
    Ok(MutualAuthentication {
        challenge: spdm.mutual.challenge,
        session: spdm.mutual.session,
        slot: spdm.mutual.slot,
        asym: spdm.signatures.clone(),
        public_key: None,
        trust: if spdm.mutual.roots.is_empty() { TrustPolicy::FirstUse } else { TrustPolicy::Pinned(pins) },
        // The device is told the time: `Device::set_time`.
        time: None,
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
pub(super) fn file_digest(
    path: &Path,
    provider: &dyn Provider,
    hash: HashAlgorithm,
) -> std::io::Result<Vec<u8>> {
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

    #[test]
    fn certificates_name_the_function_that_has_the_mailbox() {
        let name = |toml: &str| pci_name(&toml::from_str(toml).unwrap()).to_string();
        assert!(name("[pci]\ndevice = 0x7d99").starts_with("Vendor=1234:Device=7d99:"));
        let disk = name("[pci]\ndevice = 0x7d99\nserial = 5\n[[function]]\nkind = \"virtio-blk\"");
        assert_eq!(disk, "Vendor=1af4:Device=1042:CC=018000:REV=01:SSVID=1af4:SSID=1100:0000000000000005");
    }
}
