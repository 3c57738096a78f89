//! What a responder is told before it starts: versions, sizes, algorithms in order of preference, measurements.

use core::time::Duration;

use super::deferral::Delay;
use crate::chains::{Chains, ChainsError};
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use crate::psk::{self, PreSharedKey};
use crate::slot::{Slot, Slots};
use crate::wire::{CertificateModel, DeviceClass, MIN_DATA_TRANSFER_SIZE, ResponderFlags, Version};

use super::provisioning::{EndpointInfoSupport, MeasurementLogItem, Provisioning};

use super::mutual::MutualAuthentication;

/// Configuration of a responder. `Default` is a device that a TEE security manager accepts.
#[derive(Clone, Debug)]
pub struct ResponderConfig {
    /// SPDM versions offered, any of [`Version::IMPLEMENTED`]. 1.0 has no sessions.
    pub versions: Vec<Version>,
    /// DSP0277 versions offered for sessions, 1.0 to 1.2, in the same form as SPDM versions.
    pub secured_versions: Vec<Version>,
    /// Capabilities that can be switched.
    pub capabilities: Capability,
    /// Cryptography takes at most 2^this microseconds; at most 31.
    pub ct_exponent: u8,
    /// Largest single transfer the responder receives, in bytes; at least 42.
    pub data_transfer_size: u32,
    /// Largest message the responder receives, in bytes: at most 1 MiB, which a requester can make it set aside;
    /// without chunks the same as `data_transfer_size`.
    pub max_message_size: u32,
    /// Hash algorithms, most preferred first.
    pub hashes: Vec<HashAlgorithm>,
    /// Signature algorithms, most preferred first. Only those that a slot has a key for are offered.
    pub asym: Vec<AsymAlgorithm>,
    /// Key exchange groups, most preferred first.
    pub groups: Vec<DheGroup>,
    /// AEAD suites, most preferred first.
    pub aeads: Vec<Aead>,
    /// Pre-shared keys that PSK_EXCHANGE may name, each by a hint of its own; one that names none gets the first, which
    /// alone may be without a hint.
    pub psks: Vec<PreSharedKey>,
    /// Hash algorithms of measurements, most preferred first; empty for raw bit streams only.
    pub measurement_hashes: Vec<HashAlgorithm>,
    /// Measurements, ascending by index.
    pub measurements: Vec<Measurement>,
    /// The measurement extension log, oldest entry first.
    pub measurement_log: Vec<MeasurementLogItem>,
    /// What GET_ENDPOINT_INFO says the device is.
    pub device_classes: Vec<DeviceClass>,
    /// Seconds between heartbeats that a session asks for; 0 for none. A session ends after twice this time.
    pub heartbeat_period: u8,
    /// How long a session may wait for FINISH or PSK_FINISH, until its place is free for another; zero for ever.
    pub handshake_timeout: Duration,
    /// Sessions at once; 1 to 255.
    pub session_limit: usize,
    /// Whether requesters have to authenticate themselves.
    pub mutual: MutualAuthentication,
    /// First sequence number that no record may have; smaller values are for tests of the limit.
    pub sequence_limit: u64,
    /// Requests whose answers take time.
    pub delays: Vec<Delay>,
}

/// Switches of [`ResponderConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capability {
    /// CHALLENGE.
    pub challenge: bool,
    /// GET_MEASUREMENTS.
    pub measurements: MeasurementSupport,
    /// `MEAS_FRESH_CAP`.
    pub fresh_measurements: bool,
    /// KEY_EXCHANGE.
    pub key_exchange: bool,
    /// PSK_EXCHANGE.
    pub psk: PskSupport,
    /// Records are encrypted; if not they are only authenticated.
    pub encrypt: bool,
    /// HEARTBEAT.
    pub heartbeat: bool,
    /// KEY_UPDATE.
    pub key_update: bool,
    /// FINISH may travel unprotected if the requester wants it too.
    pub handshake_in_the_clear: bool,
    /// Certificate chains are of the alias model.
    pub alias_certificates: bool,
    /// CHUNK_SEND and CHUNK_GET, from 1.2 on.
    pub chunks: bool,
    /// `ENCAP_CAP`: requests of the responder. Mutual authentication and events bring them in any case.
    pub encapsulated: bool,
    /// Events, from 1.3 on, for requesters that take requests in sessions: GET_SUPPORTED_EVENT_TYPES,
    /// SUBSCRIBE_EVENT_TYPES, SEND_EVENT.
    pub events: bool,
    /// Forms with 32-bit lengths in SPDM 1.4: GET_CERTIFICATE and vendor-defined messages.
    pub large_responses: bool,
    /// GET_MEASUREMENT_EXTENSION_LOG, from 1.3 on; needs measurements.
    pub measurement_log: bool,
    /// GET_ENDPOINT_INFO, from 1.3 on.
    pub endpoint_info: EndpointInfoSupport,
    /// Certificates and keys that a requester can manage.
    pub provisioning: Provisioning,
}

/// `MEAS_CAP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasurementSupport {
    /// No measurements.
    None,
    /// Measurements, never signed.
    Unsigned,
    /// Measurements, signed on request.
    Signed,
}

/// `PSK_CAP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PskSupport {
    /// No sessions from pre-shared keys.
    None,
    /// The session is established by PSK_EXCHANGE; nothing of ours goes into its keys.
    WithoutContext,
    /// A nonce of ours goes into the keys, and PSK_FINISH proves that the requester has them.
    WithContext,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Index, 1 to 239, or one of the reserved 0xFD (manifest) and 0xFE (mode).
    pub index: u8,
    /// `DMTFSpecMeasurementValueType`, 0 to 127, such as 0 for immutable ROM.
    pub kind: u8,
    /// Part of the trusted computing base: goes into that summary hash.
    pub tcb: bool,
    /// What it reports.
    pub value: MeasurementValue,
}

/// Value of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeasurementValue {
    /// A bit stream, reported as it is on request, otherwise as its digest.
    Raw(Vec<u8>),
    /// A bit stream that is always reported as it is.
    RawOnly(Vec<u8>),
    /// A digest, used where the negotiated measurement hash has its length.
    Digest(Vec<u8>),
}

/// A configuration that no responder can work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field has a value outside its range.
    #[error("{field} must be {expected}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// No algorithm of this kind is left that the provider, the slots and the configuration have in common.
    #[error("no usable {0}")]
    NoAlgorithm(&'static str),
    /// Slot 0 is empty, there is no public key either, and something is to be signed.
    #[error("slot 0 holds no certificate chain, and there is no public key without one")]
    NoCertificate,
    /// A certificate chain does not fit SPDM's 65,535 bytes.
    #[error("the certificate chain of slot {0} is too long")]
    ChainTooLong(u8),
}

impl Default for Capability {
    fn default() -> Self {
        Self {
            challenge: true,
            measurements: MeasurementSupport::Signed,
            fresh_measurements: true,
            key_exchange: true,
            psk: PskSupport::None,
            encrypt: true,
            heartbeat: true,
            key_update: true,
            handshake_in_the_clear: false,
            alias_certificates: false,
            chunks: false,
            encapsulated: false,
            events: false,
            large_responses: true,
            measurement_log: false,
            endpoint_info: EndpointInfoSupport::None,
            provisioning: Provisioning::default(),
        }
    }
}

impl Default for ResponderConfig {
    fn default() -> Self {
        Self {
            versions: vec![Version::V1_2, Version::V1_3, Version::V1_4],
            secured_versions: vec![Version::V1_0, Version::V1_1, Version::V1_2],
            capabilities: Capability::default(),
            ct_exponent: 14,
            data_transfer_size: 4608,
            max_message_size: 4608,
            hashes: vec![HashAlgorithm::Sha384, HashAlgorithm::Sha256, HashAlgorithm::Sha512],
            asym: vec![AsymAlgorithm::EcdsaP384, AsymAlgorithm::EcdsaP256],
            groups: vec![DheGroup::P384, DheGroup::P256],
            aeads: vec![Aead::Aes256Gcm, Aead::Aes128Gcm],
            psks: Vec::new(),
            measurement_hashes: vec![HashAlgorithm::Sha384, HashAlgorithm::Sha256, HashAlgorithm::Sha512],
            measurements: Vec::new(),
            measurement_log: Vec::new(),
            device_classes: Vec::new(),
            heartbeat_period: 0,
            handshake_timeout: Duration::from_secs(300),
            session_limit: 4,
            mutual: MutualAuthentication::default(),
            sequence_limit: u64::MAX,
            delays: Vec::new(),
        }
    }
}

impl Capability {
    /// Whether something has to be signed.
    pub(super) const fn signs(&self) -> bool {
        self.challenge || self.key_exchange || matches!(self.measurements, MeasurementSupport::Signed)
    }

    /// The flags to advertise. Who is known by a public key has no certificates (DSP0274 1.3 "CAPABILITIES"), and who
    /// is known by a pre-shared key alone has neither.
    pub(super) fn flags(&self, chains: &Chains, mutual: &MutualAuthentication) -> ResponderFlags {
        let sessions = self.key_exchange || self.psk != PskSupport::None;
        let psk = match self.psk {
            PskSupport::None => 0,
            PskSupport::WithoutContext => ResponderFlags::PSK_WITHOUT_CONTEXT,
            PskSupport::WithContext => ResponderFlags::PSK_WITH_CONTEXT,
        };
        let mutual = mutual.challenge && self.challenge || mutual.asks_in_sessions() && self.key_exchange;
        let measurements = match self.measurements {
            MeasurementSupport::None => 0,
            MeasurementSupport::Unsigned => ResponderFlags::MEAS_NO_SIG,
            MeasurementSupport::Signed => ResponderFlags::MEAS_SIG,
        };
        let switches = [
            (self.challenge, ResponderFlags::CHAL),
            (self.fresh_measurements, ResponderFlags::MEAS_FRESH),
            (self.key_exchange, ResponderFlags::KEY_EX),
            (sessions, ResponderFlags::MAC),
            (sessions && self.encrypt, ResponderFlags::ENCRYPT),
            (sessions && self.heartbeat, ResponderFlags::HBEAT),
            (sessions && self.key_update, ResponderFlags::KEY_UPD),
            (self.key_exchange && self.handshake_in_the_clear, ResponderFlags::HANDSHAKE_IN_THE_CLEAR),
            (chains.has_certificates(), ResponderFlags::CERT),
            (chains.has_public_key(), ResponderFlags::PUB_KEY_ID),
            (chains.has_certificates() && self.alias_certificates, ResponderFlags::ALIAS_CERT),
            (self.chunks, ResponderFlags::CHUNK),
            (self.encapsulated, ResponderFlags::ENCAP),
            (mutual, ResponderFlags::MUT_AUTH | ResponderFlags::ENCAP),
            (sessions && self.events, ResponderFlags::EVENT | ResponderFlags::ENCAP),
            (self.large_responses, ResponderFlags::LARGE_RESP),
            (self.measurement_log, ResponderFlags::MEL),
        ];
        let switched = switches.iter().filter(|(on, _)| *on).fold(0, |flags, (_, bits)| flags | bits);
        let more = self.provisioning.flags() | self.endpoint_info.flags();
        ResponderFlags(measurements | psk | switched | more)
    }
}

impl From<ChainsError> for ConfigError {
    fn from(error: ChainsError) -> Self {
        match error {
            ChainsError::Hash => Self::NoAlgorithm("hash"),
            ChainsError::TooLong(slot) => Self::ChainTooLong(slot),
        }
    }
}

impl ResponderConfig {
    /// Checks what the responder is to be known by.
    pub(super) fn check_identity(&self, chains: &Chains) -> Result<(), ConfigError> {
        match (chains.has_certificates(), chains.has_public_key()) {
            (true, false) => Ok(()),
            (false, false) if chains.is_empty() && !self.capabilities.signs() => Ok(()),
            (false, false) => Err(ConfigError::NoCertificate),
            (true, true) => {
                Err(ConfigError::OutOfRange { field: "public_key", expected: "absent beside certificates" })
            }
            // 1.0 knows certificates only.
            (false, true) if self.versions.contains(&Version::V1_0) => {
                Err(ConfigError::OutOfRange { field: "versions", expected: "above 1.0 without certificates" })
            }
            (false, true) if self.capabilities.alias_certificates => Err(ConfigError::OutOfRange {
                field: "alias_certificates",
                expected: "off without certificates",
            }),
            (false, true) => Ok(()),
        }
    }

    /// Checks what requesters are to do with the slots.
    pub(super) fn check_slots(&self, slots: &Slots) -> Result<(), ConfigError> {
        let fixed = |(_, slot): (u8, &Slot)| slot.model == CertificateModel::Alias && slot.alias.is_none();
        if self.capabilities.provisioning.set_certificate && slots.existing().any(fixed) {
            let expected = "off with alias certificates whose authority's key is not there";
            return Err(ConfigError::OutOfRange { field: "set_certificate", expected });
        }
        if self.capabilities.provisioning.slot_management && slots.existing().next().is_none() {
            let expected = "off without certificate slots";
            return Err(ConfigError::OutOfRange { field: "slot_management", expected });
        }
        Ok(())
    }

    /// Checks every range that does not depend on slots or provider.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError::OutOfRange { field, expected });
        let known = |version: &Version| Version::IMPLEMENTED.contains(version);
        if self.versions.is_empty() || !self.versions.iter().all(known) {
            return bad("versions", "a list of 1.0, 1.1, 1.2, 1.3 and 1.4");
        }
        let known = |version: &Version| (Version::V1_0..=Version::V1_2).contains(version);
        if self.secured_versions.is_empty() || !self.secured_versions.iter().all(known) {
            return bad("secured_versions", "a list of 1.0, 1.1 and 1.2");
        }
        if self.ct_exponent > MAX_CT_EXPONENT {
            return bad("ct_exponent", "at most 31");
        }
        if self.data_transfer_size < MIN_DATA_TRANSFER_SIZE {
            return bad("data_transfer_size", "at least 42");
        }
        let chunked = self.data_transfer_size..=MAX_CHUNKED_SIZE.max(self.data_transfer_size);
        if self.capabilities.chunks && !chunked.contains(&self.max_message_size) {
            return bad("max_message_size", "at least data_transfer_size, at most 1 MiB");
        }
        if !self.capabilities.chunks && self.max_message_size != self.data_transfer_size {
            return bad("max_message_size", "the same as data_transfer_size without chunks");
        }
        if !self.delays.iter().all(Delay::is_legal) {
            return bad("delays", "of requests that may wait, by an exponent of at most 31");
        }
        if !(1..=255).contains(&self.session_limit) {
            return bad("session_limit", "1 to 255");
        }
        if self.capabilities.fresh_measurements && self.capabilities.measurements == MeasurementSupport::None
        {
            return bad("fresh_measurements", "off without measurements");
        }
        if (self.capabilities.psk != PskSupport::None && self.psks.is_empty()) || !psk::usable(&self.psks) {
            return bad("psks", "keys with a hint each, one at least if PSK_EXCHANGE is to work");
        }
        if self.capabilities.measurement_log && self.capabilities.measurements == MeasurementSupport::None {
            return bad("measurement_log", "off without measurements");
        }
        if let Some((field, expected)) = self.capabilities.provisioning.contradiction() {
            return bad(field, expected);
        }
        Ok(())
    }
}

/// Longest message that is collected from chunks, in bytes.
const MAX_CHUNKED_SIZE: u32 = 1 << 20;
/// Larger exponents would mean more than 36 minutes.
pub(super) const MAX_CT_EXPONENT: u8 = 31;
