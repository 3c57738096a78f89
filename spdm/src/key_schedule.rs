//! From the shared secret of KEY_EXCHANGE to keys (DSP0274 1.3 "Key schedule").

use crate::crypto::{Aead, CryptoError, Digest, HashAlgorithm, IV_SIZE, Provider, Secret};
use crate::wire::Version;

/// Longest input to HKDF-Expand: length, version, the longest label, a transcript hash.
const MAX_INFO_SIZE: usize = 2 + 8 + 12 + crate::crypto::MAX_HASH_SIZE;

/// Version and hash of a connection, which the whole schedule depends on.
#[derive(Clone, Copy)]
pub struct KeySchedule<'p> {
    provider: &'p dyn Provider,
    version: Version,
    hash: HashAlgorithm,
}

/// Secrets of the handshake phase.
#[derive(Clone, Debug)]
pub struct HandshakeSecrets {
    /// Salt of the application phase comes from it.
    pub handshake: Secret,
    /// Protects records from the requester.
    pub request: Secret,
    /// Protects records from the responder.
    pub response: Secret,
    /// Key of the HMAC in FINISH.
    pub request_finished: Secret,
    /// Key of the HMAC in KEY_EXCHANGE_RSP and, in the clear, FINISH_RSP.
    pub response_finished: Secret,
}

/// Secrets of the application phase.
#[derive(Clone, Debug)]
pub struct ApplicationSecrets {
    /// Protects records from the requester.
    pub request: Secret,
    /// Protects records from the responder.
    pub response: Secret,
    /// For keys that are used outside SPDM.
    pub export_master: Secret,
}

/// AEAD key and initial vector of one direction.
#[derive(Clone, Debug)]
pub struct TrafficKey {
    /// Key.
    pub key: Secret,
    /// Initial vector, before the sequence number goes in.
    pub iv: [u8; IV_SIZE],
}

impl Drop for TrafficKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.iv);
    }
}

impl<'p> KeySchedule<'p> {
    /// The schedule of a connection.
    pub const fn new(provider: &'p dyn Provider, version: Version, hash: HashAlgorithm) -> Self {
        Self { provider, version, hash }
    }

    /// HKDF-Expand(secret, BinConcat(length, version, label, context), length).
    fn expand(
        &self,
        secret: &Secret,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Secret, CryptoError> {
        let mut info = Vec::with_capacity(MAX_INFO_SIZE);
        let size = u16::try_from(length).map_err(|_| CryptoError::Failed)?;
        info.extend_from_slice(&size.to_le_bytes());
        info.extend_from_slice(b"spdm");
        info.extend_from_slice(&[
            b'0' + self.version.major() % 10,
            b'.',
            b'0' + self.version.minor() % 10,
            b' ',
        ]);
        info.extend_from_slice(label.as_bytes());
        info.extend_from_slice(context);
        self.provider.hkdf_expand(self.hash, secret.as_ref(), &info, length)
    }

    /// Handshake secrets from the shared secret and the transcript hash TH1.
    pub fn handshake(&self, shared: &Secret, th1: &Digest) -> Result<HandshakeSecrets, CryptoError> {
        let size = self.hash.size();
        let salt = Secret::zeros(size);
        let handshake = self.provider.hmac(self.hash, salt.as_ref(), shared.as_ref())?;
        let request = self.expand(&handshake, "req hs data", th1.as_ref(), size)?;
        let response = self.expand(&handshake, "rsp hs data", th1.as_ref(), size)?;
        let request_finished = self.expand(&request, "finished", &[], size)?;
        let response_finished = self.expand(&response, "finished", &[], size)?;
        Ok(HandshakeSecrets { handshake, request, response, request_finished, response_finished })
    }

    /// Application secrets from the handshake secret and the transcript hash TH2.
    pub fn application(&self, handshake: &Secret, th2: &Digest) -> Result<ApplicationSecrets, CryptoError> {
        let size = self.hash.size();
        let salt = self.expand(handshake, "derived", &[], size)?;
        let master = self.provider.hmac(self.hash, salt.as_ref(), Secret::zeros(size).as_ref())?;
        Ok(ApplicationSecrets {
            request: self.expand(&master, "req app data", th2.as_ref(), size)?,
            response: self.expand(&master, "rsp app data", th2.as_ref(), size)?,
            export_master: self.expand(&master, "exp master", th2.as_ref(), size)?,
        })
    }

    /// Key and initial vector from a direction's secret.
    pub fn traffic_key(&self, secret: &Secret, aead: Aead) -> Result<TrafficKey, CryptoError> {
        let key = self.expand(secret, "key", &[], aead.key_size())?;
        let iv = self.expand(secret, "iv", &[], IV_SIZE)?;
        Ok(TrafficKey { key, iv: iv.as_ref().try_into().map_err(|_| CryptoError::Failed)? })
    }

    /// The secret that follows `secret` after KEY_UPDATE.
    pub fn update(&self, secret: &Secret) -> Result<Secret, CryptoError> {
        self.expand(secret, "traffic upd", &[], self.hash.size())
    }

    /// `HMAC(finished key, transcript hash)`, the verify data of FINISH and KEY_EXCHANGE_RSP.
    pub fn verify_data(&self, finished: &Secret, transcript: &Digest) -> Result<Secret, CryptoError> {
        self.provider.hmac(self.hash, finished.as_ref(), transcript.as_ref())
    }

    /// Checks verify data in constant time.
    pub fn check_verify_data(
        &self,
        finished: &Secret,
        transcript: &Digest,
        verify_data: &[u8],
    ) -> Result<(), CryptoError> {
        self.provider.hmac_verify(self.hash, finished.as_ref(), transcript.as_ref(), verify_data)
    }
}

impl core::fmt::Debug for KeySchedule<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeySchedule({}, {:?})", self.version, self.hash)
    }
}
