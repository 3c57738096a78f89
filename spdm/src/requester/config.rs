//! What a requester offers, whom it trusts and how long it waits.

use core::time::Duration;

use crate::chains::ChainsError;
use crate::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, Provider};
use crate::psk::{self, PreSharedKey};
use crate::trust::{KnownKey, TrustPolicy};
use crate::wire::{DeviceClass, MIN_DATA_TRANSFER_SIZE, RequesterFlags, Version};

/// Settings of a requester. The default offers everything the crate can do and trusts on first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequesterConfig {
    /// SPDM versions to choose the highest common one from, any of [`Version::IMPLEMENTED`]. 1.0 has no sessions.
    pub versions: Vec<Version>,
    /// Versions of secured messages (DSP0277) to offer in KEY_EXCHANGE, in any order.
    pub secured_versions: Vec<Version>,
    /// Hashes to offer.
    pub hashes: Vec<HashAlgorithm>,
    /// Signature algorithms to offer. A responder chooses signature and hash independently; a pair the provider
    /// cannot verify is refused when it is chosen.
    pub signatures: Vec<AsymAlgorithm>,
    /// Key exchange groups to offer.
    pub groups: Vec<DheGroup>,
    /// AEAD suites to offer.
    pub aeads: Vec<Aead>,
    /// Keys shared with the responder beforehand, each with a hint of its own; the first alone may be without. Sessions
    /// from such a key are offered if there is one.
    pub psks: Vec<PreSharedKey>,
    /// Whether to offer heartbeats.
    pub heartbeat: bool,
    /// Whether to offer key updates.
    pub key_update: bool,
    /// Whether to offer that FINISH travels unprotected, for responders that want to see it.
    pub handshake_in_the_clear: bool,
    /// Whether to use several keys of a responder that lets us choose, from 1.3 on.
    pub multiple_keys: bool,
    /// Whether to ask, from 1.3 on, which algorithms the responder supports before one of them is negotiated. Takes
    /// `chunks`.
    pub ask_algorithms: bool,
    /// Whether to take requests from the responder. Who has an identity does in any case.
    pub encapsulated: bool,
    /// What this endpoint is, for a responder that asks, from 1.3 on; signed if there is an identity. None: it does not
    /// tell.
    pub device_classes: Vec<DeviceClass>,
    /// CTExponent: 2^this microseconds is what our cryptography may take.
    pub ct_exponent: u8,
    /// Whether to offer messages larger than one transfer in chunks, from 1.2 on.
    pub chunks: bool,
    /// Largest single transfer we receive, in bytes; at least 42.
    pub data_transfer_size: u32,
    /// Largest message we receive in chunks, in bytes; at least `data_transfer_size`.
    pub max_message_size: u32,
    /// First sequence number that no record may have; smaller values are for tests of the limit.
    pub sequence_limit: u64,
    /// Which root certificates to trust.
    pub trust: TrustPolicy,
    /// Key of a responder that has no certificates; slot 0xFF stands for it.
    pub responder_key: Option<KnownKey>,
    /// Seconds since 1970 at which certificates have to be valid; `None` does not check.
    pub time: Option<i64>,
    /// How often a request is sent again when the responder is busy or not ready.
    pub retries: u32,
    /// How long to wait before a busy responder is asked again.
    pub busy_delay: Duration,
    /// Longest wait a responder may ask for.
    pub max_delay: Duration,
}

impl Default for RequesterConfig {
    fn default() -> Self {
        Self {
            versions: vec![Version::V1_2, Version::V1_3, Version::V1_4],
            secured_versions: vec![Version::V1_0, Version::V1_1, Version::V1_2],
            hashes: vec![HashAlgorithm::Sha384, HashAlgorithm::Sha256],
            signatures: vec![AsymAlgorithm::EcdsaP384, AsymAlgorithm::EcdsaP256],
            groups: vec![DheGroup::P384, DheGroup::P256],
            aeads: vec![Aead::Aes256Gcm, Aead::Aes128Gcm],
            psks: Vec::new(),
            heartbeat: true,
            key_update: true,
            handshake_in_the_clear: false,
            multiple_keys: false,
            ask_algorithms: false,
            encapsulated: false,
            device_classes: Vec::new(),
            ct_exponent: 14,
            chunks: true,
            data_transfer_size: 0x1200,
            max_message_size: 0x2_0000,
            sequence_limit: u64::MAX,
            trust: TrustPolicy::FirstUse,
            responder_key: None,
            time: None,
            retries: 20,
            busy_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(10),
        }
    }
}

impl RequesterConfig {
    /// The default, with everything that `provider` can do, what the default prefers first.
    #[must_use]
    pub fn offering(provider: &dyn Provider) -> Self {
        let mut config = Self::default();
        let verifies = |signature: &AsymAlgorithm| {
            HashAlgorithm::ALL.iter().any(|&hash| provider.supports_signature(*signature, hash))
        };
        extend(&mut config.hashes, HashAlgorithm::ALL, |hash| provider.supports_hash(*hash));
        extend(&mut config.signatures, AsymAlgorithm::ALL, verifies);
        extend(&mut config.groups, DheGroup::ALL, |group| provider.supports_group(*group));
        extend(&mut config.aeads, Aead::ALL, |aead| provider.supports_aead(*aead));
        config
    }
}

/// Adds those of `all` that are available and not there yet.
fn extend<T: Copy + PartialEq>(list: &mut Vec<T>, all: &[T], available: impl Fn(&T) -> bool) {
    for one in all {
        if available(one) && !list.contains(one) {
            list.push(*one);
        }
    }
}

/// Settings that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequesterConfigError {
    /// Nothing is offered.
    #[error("no {0} is offered")]
    Nothing(&'static str),
    /// A version this crate does not speak.
    #[error("SPDM {0} is not implemented")]
    Version(Version),
    /// The cryptographic provider does not have what is offered.
    #[error("the cryptographic provider cannot do every {0} that is offered")]
    Unavailable(&'static str),
    /// A pre-shared key is empty, or cannot be told from another.
    #[error("pre-shared keys need a hint each and must not be empty")]
    PreSharedKeys,
    /// The requester's own identity cannot be used.
    #[error("the requester's {0}")]
    Identity(&'static str),
    /// DSP0274 wants room for at least 42 bytes.
    #[error("a data transfer size of {0} is below 42")]
    DataTransferSize(u32),
    /// A message has to be allowed to be as large as a transfer.
    #[error("a maximum message size of {0} is below the data transfer size")]
    MaxMessageSize(u32),
}

impl From<ChainsError> for RequesterConfigError {
    fn from(error: ChainsError) -> Self {
        match error {
            ChainsError::Hash => Self::Unavailable("hash"),
            ChainsError::TooLong(_) => Self::Identity("certificate chain is longer than 65535 bytes"),
        }
    }
}

impl RequesterConfig {
    /// Checks the settings against the crate and the provider.
    pub(super) fn check(&self, provider: &dyn Provider) -> Result<(), RequesterConfigError> {
        use RequesterConfigError::{DataTransferSize, MaxMessageSize, Nothing, Unavailable};
        let offers = [
            ("version", self.versions.is_empty()),
            ("version of secured messages", self.secured_versions.is_empty()),
            ("hash", self.hashes.is_empty()),
            ("signature algorithm", self.signatures.is_empty()),
            ("key exchange group", self.groups.is_empty()),
            ("AEAD suite", self.aeads.is_empty()),
        ];
        if let Some((what, _)) = offers.iter().find(|(_, empty)| *empty) {
            return Err(Nothing(what));
        }
        if let Some(version) = self.versions.iter().find(|version| !Version::IMPLEMENTED.contains(version)) {
            return Err(RequesterConfigError::Version(*version));
        }
        let verifiable = |signature: &AsymAlgorithm| {
            self.hashes.iter().any(|hash| provider.supports_signature(*signature, *hash))
        };
        let available = [
            ("hash", self.hashes.iter().all(|hash| provider.supports_hash(*hash))),
            ("signature algorithm", self.signatures.iter().all(verifiable)),
            ("key exchange group", self.groups.iter().all(|group| provider.supports_group(*group))),
            ("AEAD suite", self.aeads.iter().all(|aead| provider.supports_aead(*aead))),
        ];
        if let Some((what, _)) = available.iter().find(|(_, available)| !*available) {
            return Err(Unavailable(what));
        }
        if !psk::usable(&self.psks) {
            return Err(RequesterConfigError::PreSharedKeys);
        }
        if self.data_transfer_size < MIN_DATA_TRANSFER_SIZE {
            return Err(DataTransferSize(self.data_transfer_size));
        }
        if self.chunks && self.max_message_size < self.data_transfer_size {
            return Err(MaxMessageSize(self.max_message_size));
        }
        Ok(())
    }

    /// Largest message we receive, in bytes: without chunks there is none larger than a transfer.
    pub(super) const fn longest_message(&self) -> u32 {
        if self.chunks { self.max_message_size } else { self.data_transfer_size }
    }

    /// The capability flags that go with the settings.
    pub(super) fn flags(&self) -> RequesterFlags {
        let mut flags = RequesterFlags::ENCRYPT
            | RequesterFlags::MAC
            | RequesterFlags::KEY_EX
            | RequesterFlags::LARGE_RESP;
        if !self.psks.is_empty() {
            flags |= RequesterFlags::PSK;
        }
        if self.heartbeat {
            flags |= RequesterFlags::HBEAT;
        }
        if self.key_update {
            flags |= RequesterFlags::KEY_UPD;
        }
        if self.encapsulated || !self.device_classes.is_empty() {
            flags |= RequesterFlags::ENCAP;
        }
        if self.handshake_in_the_clear {
            flags |= RequesterFlags::HANDSHAKE_IN_THE_CLEAR;
        }
        if self.chunks {
            flags |= RequesterFlags::CHUNK;
        }
        RequesterFlags(flags)
    }
}
