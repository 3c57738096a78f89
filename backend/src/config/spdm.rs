//! `[spdm]`: what the responder offers, which keys and certificates it has, what it measures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spdm::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use spdm::responder::{
    Capability, EndpointInfoSupport, MeasurementSupport, Provisioning, PskSupport, ResponderConfig,
    SessionAuthentication, Wait,
};
use spdm::slot::SLOT_COUNT;
use spdm::wire::{CertificateModel, Code, Version};

use super::ConfigError;
use crate::spdm_socket::Silence;

/// `[spdm]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spdm {
    /// Offered versions of SPDM, any of "1.0" (which has no sessions) to "1.4". If it is not said, those that TDISP can be
    /// used with, 1.2 and later; without any --socket, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<Version>>,
    /// Offered versions of secured messages (DSP0277), "1.0" to "1.2".
    pub secured_versions: Vec<Version>,
    /// Who does the cryptography; AWS-LC if it is in this build.
    pub provider: ProviderKind,
    /// Hashes, most preferred first; those that the provider cannot do are left out, here and below.
    pub hashes: Vec<HashAlgorithm>,
    /// Signature algorithms, most preferred first; offered are those a slot has a key for.
    pub signatures: Vec<AsymAlgorithm>,
    /// Key exchanges, most preferred first.
    pub groups: Vec<DheGroup>,
    /// AEAD suites of sessions, most preferred first.
    pub aeads: Vec<Aead>,
    /// Hashes of measurements: the first is used. None: measurements are raw bit streams.
    pub measurement_hashes: Vec<HashAlgorithm>,
    /// Heartbeat period in seconds; 0 offers none. If it is not said: none; without any --socket, 240, as spdm-emu has it,
    /// unless `capabilities.heartbeat` is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<u8>,
    /// Sessions at the same time, 1–64.
    pub sessions: u16,
    /// Bytes of the largest SPDM message in one piece, 1024–65,535.
    pub transfer_size: u32,
    /// What an object that gets no answer looks like on `--spdm-socket`: an `empty` frame, or `nothing`.
    pub silence: Silence,
    /// Bytes of the largest SPDM message in pieces, if `capabilities.chunks` is on; at most 1 MiB.
    pub message_size: u32,
    /// What can be switched on and off. If the table is not there: what TDISP needs; without any --socket, all that needs
    /// no further configuration. What is on by default is off all the same where there is nothing to it: `heartbeat`
    /// without a period, `measurements` and `fresh_measurements` without a `[[spdm.measurement]]`. `alias_certificates`
    /// is on with a slot of that model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capability>,
    /// Certificate slots. If there is none in the file, slot 0 with an ECDSA P-384 key.
    #[serde(rename = "slot")]
    pub slots: Vec<Slot>,
    /// Pre-shared keys.
    pub psk: Vec<Psk>,
    /// Whether requesters have to say who they are.
    pub mutual: Mutual,
    /// Requests that take their time.
    #[serde(rename = "delay")]
    pub delays: Vec<Delay>,
    /// What GET_MEASUREMENTS tells.
    #[serde(rename = "measurement")]
    pub measurements: Vec<Measurement>,
}

impl Default for Spdm {
    fn default() -> Self {
        let responder = ResponderConfig::default();
        Self {
            versions: None,
            secured_versions: responder.secured_versions,
            provider: ProviderKind::default(),
            hashes: all(responder.hashes, HashAlgorithm::ALL),
            signatures: all(responder.asym, AsymAlgorithm::ALL),
            groups: all(responder.groups, DheGroup::ALL),
            aeads: all(responder.aeads, Aead::ALL),
            measurement_hashes: all(responder.measurement_hashes, HashAlgorithm::ALL),
            heartbeat_seconds: None,
            sessions: 4,
            transfer_size: 4608,
            silence: Silence::default(),
            message_size: 65_536,
            capabilities: None,
            slots: Vec::new(),
            psk: Vec::new(),
            mutual: Mutual::default(),
            delays: Vec::new(),
            measurements: vec![
                Measurement::text(1, MeasurementKind::ImmutableRom, "tdispd boot code"),
                Measurement::text(
                    2,
                    MeasurementKind::MutableFirmware,
                    concat!("tdispd ", env!("CARGO_PKG_VERSION")),
                ),
                Measurement::text(3, MeasurementKind::HardwareConfiguration, "tdispd hardware"),
                Measurement::text(4, MeasurementKind::FirmwareConfiguration, "tdispd configuration"),
            ],
        }
    }
}

/// The preferred algorithms first, then the others.
fn all<T: Copy + PartialEq>(mut preferred: Vec<T>, others: &[T]) -> Vec<T> {
    for other in others {
        if !preferred.contains(other) {
            preferred.push(*other);
        }
    }
    preferred
}

/// A cryptographic library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// `ring`.
    #[cfg_attr(not(feature = "aws-lc"), default)]
    Ring,
    /// AWS-LC: P-521, every curve with every hash, post-quantum. Needs a build with `--features aws-lc`.
    #[cfg_attr(feature = "aws-lc", default)]
    AwsLc,
}

/// `[[spdm.slot]]`: a certificate chain and the key of its leaf, made by tdispd or read from files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slot {
    /// Slot number, 0–7.
    pub number: u8,
    /// Algorithm of the key to make, with a chain for this device, at the first start with a state directory; ECDSA P-384
    /// if nothing else is said. With `chain`, what an RSA key is used for: RSASSA or RSAPSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<AsymAlgorithm>,
    /// File with the certificates, root first, as PEM or DER. Relative paths start where the configuration file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<PathBuf>,
    /// File with the private key of the last certificate, as PEM or DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// File with the private key of the device certificate authority, a certificate of `chain` above the last, as PEM or DER: with it
    /// requesters can write a slot with `model = "alias"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_key: Option<PathBuf>,
    /// Only a key is made; the slot waits for SET_CERTIFICATE. Not with `chain`.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub empty: bool,
    /// What the certificates say of the device.
    pub model: CertificateModel,
}

impl Slot {
    /// Key type of a slot whose chain is made here.
    pub fn algorithm(&self) -> AsymAlgorithm {
        self.key.unwrap_or(AsymAlgorithm::EcdsaP384)
    }
}

/// `[[spdm.psk]]`: a key that a requester shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Psk {
    /// `PSKHint` that selects it; text, a zero byte at its end included if there is one.
    pub hint: String,
    /// File with the key, all of its bytes.
    pub file: PathBuf,
}

/// `[spdm.mutual]`: mutual authentication.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mutual {
    /// CHALLENGE_AUTH asks for the requester's challenge (SPDM 1.1 to 1.3).
    pub challenge: bool,
    /// What KEY_EXCHANGE_RSP asks for: `never`, `known`, `encapsulated` or `digests`.
    pub session: SessionAuthentication,
    /// The requester's slot, 0–7.
    pub slot: u8,
    /// Root certificates of requesters, PEM or DER. None: any root is believed.
    pub roots: Vec<PathBuf>,
}

/// `[[spdm.delay]]`: a request that is not answered at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// Name of the request, such as `GET_MEASUREMENTS`.
    pub request: String,
    /// It takes 2^this microseconds, 0–31.
    pub exponent: u8,
    /// What the requester is told meanwhile: `busy` or `not-ready`.
    pub wait: Wait,
}

/// DMTF measurement value type (DSP0274 1.3 "DMTFSpecMeasurementValueType").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasurementKind {
    /// Immutable ROM.
    ImmutableRom,
    /// Mutable firmware.
    MutableFirmware,
    /// Hardware configuration.
    HardwareConfiguration,
    /// Firmware configuration.
    FirmwareConfiguration,
    /// Freeform measurement manifest; may have index 253.
    Manifest,
    /// Device mode, always a raw bit stream; may have index 254.
    DeviceMode,
    /// Version of mutable firmware, always a raw bit stream.
    FirmwareVersion,
    /// Security version number of mutable firmware, always a raw bit stream.
    SecurityVersion,
    /// Hash-extended measurement (1.3).
    HashExtended,
    /// Informational, always a raw bit stream (1.3).
    Informational,
    /// Structured measurement manifest (1.3).
    StructuredManifest,
}

/// `[[spdm.measurement]]`: exactly one of `value`, `hex`, `digest` and `file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Measurement index, 1–239, 253 for the manifest, 254 for the device mode.
    pub index: u8,
    /// What is measured.
    pub kind: MeasurementKind,
    /// The text that is measured: its digest is reported, and the text itself when raw values are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same as bytes in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// A digest under the first measurement hash, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// A file whose digest is reported, read at the start and again at SIGHUP (a firmware update).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Part of the trusted computing base: counts for that summary hash.
    #[serde(default = "yes")]
    pub tcb: bool,
}

const fn yes() -> bool {
    true
}

/// What a measurement reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A bit stream.
    Bytes(Vec<u8>),
    /// A digest.
    Digest(Vec<u8>),
    /// The digest of a file.
    File(PathBuf),
}

/// Bytes of the longest literal measurement.
const MAX_VALUE: usize = 1024;

impl Measurement {
    fn text(index: u8, kind: MeasurementKind, value: &str) -> Self {
        Self { index, kind, value: Some(value.into()), hex: None, digest: None, file: None, tcb: true }
    }

    /// What it reports; `None` unless exactly one of the four fields is there and can be read.
    pub fn source(&self) -> Option<Value> {
        match (&self.value, &self.hex, &self.digest, &self.file) {
            (Some(text), None, None, None) => Some(Value::Bytes(text.clone().into_bytes())),
            (None, Some(hex), None, None) => bytes(hex).map(Value::Bytes),
            (None, None, Some(digest), None) => bytes(digest).map(Value::Digest),
            (None, None, None, Some(file)) => Some(Value::File(file.clone())),
            _ => None,
        }
    }
}

/// Bytes from pairs of hexadecimal digits.
pub(super) fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u32; 2]| u8::try_from(high << 4 | low).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

impl Spdm {
    /// The versions offered by a device that is `standalone` or plugged into a VMM.
    pub fn versions(&self, standalone: bool) -> Vec<Version> {
        let first = if standalone { Version::V1_0 } else { Version::V1_2 };
        let usual = || Version::IMPLEMENTED.into_iter().filter(|version| *version >= first).collect();
        self.versions.clone().unwrap_or_else(usual)
    }

    /// The heartbeat period, in seconds, of a device that is `standalone` or plugged into a VMM.
    pub fn heartbeat(&self, standalone: bool) -> u8 {
        let wanted = self.capabilities.is_none_or(|switches| switches.heartbeat);
        self.heartbeat_seconds.unwrap_or(if standalone && wanted { 240 } else { 0 })
    }

    /// Everything that depends on the profile, as it is for a device that is `standalone` or plugged into a VMM.
    pub(super) fn effective(self, standalone: bool) -> Self {
        Self {
            versions: Some(self.versions(standalone)),
            heartbeat_seconds: Some(self.heartbeat(standalone)),
            capabilities: Some(self.capabilities(standalone)),
            ..self
        }
    }

    fn has_alias_slot(&self) -> bool {
        self.slots.iter().any(|slot| slot.model == CertificateModel::Alias)
    }

    /// The switches of a device that is `standalone` or plugged into a VMM, by the file or the profile, and by what the
    /// rest of the file leaves of them.
    pub fn capabilities(&self, standalone: bool) -> Capability {
        let switches = self.capabilities.unwrap_or_else(|| self.profile(standalone));
        let measured = !self.measurements.is_empty();
        Capability {
            // A responder that advertises measurements, or a log of them, has some.
            measurements: if measured { switches.measurements } else { MeasurementSupport::None },
            fresh_measurements: switches.fresh_measurements && measured,
            measurement_log: switches.measurement_log && measured,
            // libspdm's requester refuses to send HEARTBEAT where the period is 0.
            heartbeat: switches.heartbeat && self.heartbeat(standalone) > 0,
            psk: if self.psk.is_empty() { PskSupport::None } else { switches.psk },
            alias_certificates: self.has_alias_slot(),
            ..switches
        }
    }

    fn profile(&self, standalone: bool) -> Capability {
        let plugged = Capability { psk: PskSupport::WithContext, ..Capability::default() };
        // SET_CERTIFICATE needs the key of the authority that has issued alias certificates.
        let fixed = |slot: &Slot| slot.model == CertificateModel::Alias && slot.authority_key.is_none();
        let writable = !self.slots.iter().any(fixed);
        if standalone {
            Capability {
                chunks: true,
                events: true,
                encapsulated: true,
                measurement_log: true,
                endpoint_info: EndpointInfoSupport::Signed,
                provisioning: Provisioning {
                    set_certificate: writable,
                    csr: writable,
                    slot_management: true,
                    trusted_environment: true,
                    key_pair_info: true,
                    ..plugged.provisioning
                },
                ..plugged
            }
        } else {
            plugged
        }
    }

    /// Switches that the file sets and the rest of it does not go with. What `Capability::default` says counts as not set.
    fn check_switches(&self) -> Result<(), ConfigError> {
        let Some(switches) = &self.capabilities else { return Ok(()) };
        let shares = switches.psk != PskSupport::None;
        let period = self.heartbeat_seconds.unwrap_or(0) > 0;
        for (contradiction, name, problem) in [
            (
                shares && self.psk.is_empty(),
                "psk",
                "there is no [[spdm.psk]]; set it to \"none\", or name a key",
            ),
            (
                !shares && !self.psk.is_empty(),
                "psk",
                "\"none\", but there is a [[spdm.psk]]; \"with-context\" or \"without-context\" makes use of it",
            ),
            (
                switches.alias_certificates && !self.has_alias_slot(),
                "alias_certificates",
                "no [[spdm.slot]] has model = \"alias\"; that alone switches it on",
            ),
            (
                switches.measurement_log && self.measurements.is_empty(),
                "measurement_log",
                "there is no [[spdm.measurement]] to log",
            ),
            (
                !switches.heartbeat && period,
                "heartbeat",
                "off, but spdm.heartbeat_seconds is not 0; leave one of the two out",
            ),
        ] {
            if contradiction {
                return Err(ConfigError::value(format!("spdm.capabilities.{name}"), problem));
            }
        }
        Ok(())
    }

    /// Files are named from where the configuration file is.
    pub(super) fn locate(&mut self, directory: &Path) {
        let slots = self.slots.iter_mut();
        let slots = slots.flat_map(|slot| [&mut slot.chain, &mut slot.private_key, &mut slot.authority_key]);
        let measured = self.measurements.iter_mut().map(|measurement| &mut measurement.file);
        let keys = self.psk.iter_mut().map(|psk| &mut psk.file);
        for file in slots.chain(measured).flatten().chain(keys).chain(&mut self.mutual.roots) {
            *file = directory.join(&*file);
        }
    }

    /// Limits that the types do not express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        super::within("spdm.sessions", self.sessions.into(), 1, 64)?;
        super::within("spdm.transfer_size", self.transfer_size.into(), 1024, 65_535)?;
        super::within("spdm.message_size", self.message_size.into(), self.transfer_size.into(), 1 << 20)?;
        if self.versions.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::value("spdm.versions", "at least one of \"1.0\" to \"1.4\""));
        }
        self.check_slots()?;
        self.check_switches()?;
        let mut hints = BTreeSet::new();
        for (place, psk) in self.psk.iter().enumerate() {
            let field = format!("spdm.psk[{place}].hint");
            // Who names none gets the first.
            super::within(&field, psk.hint.len() as u64, u64::from(place > 0), 128)?;
            if !hints.insert(&psk.hint) {
                return Err(ConfigError::value(field, format!("{:?} is there twice", psk.hint)));
            }
        }
        super::within("spdm.mutual.slot", self.mutual.slot.into(), 0, SLOT_COUNT as u64 - 1)?;
        for (place, delay) in self.delays.iter().enumerate() {
            let field = |name: &str| format!("spdm.delay[{place}].{name}");
            super::within(&field("exponent"), delay.exponent.into(), 0, 31)?;
            if !Code::from_name(&delay.request).is_some_and(|code| code.is_request()) {
                return Err(ConfigError::value(
                    field("request"),
                    "the name of an SPDM request, such as CHALLENGE",
                ));
            }
        }
        let mut seen = BTreeSet::new();
        for (place, measurement) in self.measurements.iter().enumerate() {
            let field = |name: &str| format!("spdm.measurement[{place}].{name}");
            check_measurement(measurement, &field)?;
            if !seen.insert(measurement.index) {
                return Err(ConfigError::value(
                    field("index"),
                    format!("{} is there twice", measurement.index),
                ));
            }
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (place, slot) in self.slots.iter().enumerate() {
            let field = |name: &str| format!("spdm.slot[{place}].{name}");
            super::within(&field("number"), slot.number.into(), 0, SLOT_COUNT as u64 - 1)?;
            if !seen.insert(slot.number) {
                return Err(ConfigError::value(field("number"), format!("{} is there twice", slot.number)));
            }
            if slot.empty && slot.chain.is_some() {
                return Err(ConfigError::value(field("empty"), "a slot with a chain is not empty"));
            }
            if slot.authority_key.is_some() && (slot.chain.is_none() || slot.model != CertificateModel::Alias)
            {
                let problem = "is for a slot with a chain and model = \"alias\"";
                return Err(ConfigError::value(field("authority_key"), problem));
            }
            let missing = match (&slot.chain, &slot.private_key) {
                (Some(_), Some(_)) | (None, None) => continue,
                (Some(_), None) => "private_key",
                (None, Some(_)) => "chain",
            };
            return Err(ConfigError::value(field(missing), "chain and private_key go together"));
        }
        Ok(())
    }
}

fn check_measurement(measurement: &Measurement, field: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    let special = matches!(
        (measurement.kind, measurement.index),
        (MeasurementKind::Manifest | MeasurementKind::StructuredManifest, 0xFD)
            | (MeasurementKind::DeviceMode, 0xFE)
    );
    if !special {
        super::within(&field("index"), measurement.index.into(), 1, 239)?;
    }
    match measurement.source() {
        Some(Value::Bytes(bytes)) => super::within(&field("value"), bytes.len() as u64, 1, MAX_VALUE as u64),
        Some(Value::Digest(_) | Value::File(_)) => Ok(()),
        None => Err(ConfigError::value(
            field("value"),
            "exactly one of value (text), hex (bytes), digest (bytes in hexadecimal) and file",
        )),
    }
}
