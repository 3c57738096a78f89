//! A firmware update without a reset: what is measured from files is read again, and the DSM and the responder are told
//! (PCIe 6.1 §11.4.2).

use std::path::{Path, PathBuf};

use spdm::crypto::{HashAlgorithm, Provider};
use spdm::responder::MeasurementValue;
use tdispd_proto::control::Happening;

use super::Device;
use super::responder::{file_digest, provider};
use crate::config::{Config, ConfigError, Value};

/// What came of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareUpdate {
    /// No measured file is another one now.
    Unchanged,
    /// The TDI of this function was locked with NO_FW_UPDATE: nothing was updated.
    Forbidden(usize),
    /// These measurements have new values.
    Done(Vec<u8>),
}

/// The measured files, and what they were at the last look.
pub(super) struct Firmware {
    provider: Box<dyn Provider>,
    /// Index of the measurement, file, digest.
    files: Vec<(u8, PathBuf, Vec<u8>)>,
    hash: Option<HashAlgorithm>,
    at_run_time: bool,
}

impl Firmware {
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let spdm = &config.spdm;
        let provider = provider(spdm.provider)?;
        let hash = spdm.measurement_hashes.iter().copied().find(|&hash| provider.supports_hash(hash));
        let at_run_time = config.tdisp.runtime_update;
        let mut firmware = Self { provider, files: Vec::new(), hash, at_run_time };
        for measurement in &spdm.measurements {
            if let Some(Value::File(path)) = measurement.source() {
                let digest = firmware.digest(&path).map_err(|error| {
                    ConfigError::value(format!("spdm.measurement {}", measurement.index), error)
                })?;
                firmware.files.push((measurement.index, path, digest));
            }
        }
        Ok(firmware)
    }

    fn digest(&self, path: &Path) -> Result<Vec<u8>, String> {
        let hash = self.hash.ok_or("there is no measurement hash")?;
        file_digest(path, self.provider.as_ref(), hash)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Files whose digest is another one now, as positions in the list, with that digest.
    fn changed(&self) -> Result<Vec<(usize, Vec<u8>)>, String> {
        let mut changed = Vec::new();
        for (place, (_, path, before)) in self.files.iter().enumerate() {
            let now = self.digest(path)?;
            if now != *before {
                changed.push((place, now));
            }
        }
        Ok(changed)
    }
}

impl Device {
    /// Reads the measured files again. Where one has changed and no TDI forbids it, that is a firmware update.
    ///
    /// # Errors
    /// A file that cannot be read; nothing was updated.
    pub fn update_firmware(&mut self) -> Result<FirmwareUpdate, String> {
        let changed = self.firmware.changed()?;
        if changed.is_empty() {
            return Ok(FirmwareUpdate::Unchanged);
        }
        if let Err(function) = self.protocol.dsm.update_firmware(self.firmware.at_run_time) {
            self.tell(Happening::FirmwareUpdateForbidden { function });
            return Ok(FirmwareUpdate::Forbidden(function));
        }
        self.apply_effects();
        let mut updated = Vec::new();
        for (place, digest) in changed {
            let Some((index, _, known)) = self.firmware.files.get_mut(place) else { continue };
            let value = MeasurementValue::Digest(digest.clone());
            self.protocol
                .change_measurement(*index, &value, &mut self.journal)
                .map_err(|error| format!("measurement {index}: {error}"))?;
            *known = digest;
            updated.push(*index);
        }
        if !self.firmware.at_run_time {
            self.protocol.firmware_updated(&mut self.journal);
        }
        self.apply_effects();
        self.tell(Happening::FirmwareUpdated { measurements: updated.clone() });
        Ok(FirmwareUpdate::Done(updated))
    }
}
