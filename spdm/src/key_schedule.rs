//! From what both ends share to keys (DSP0274 1.3 "Key schedule").

use std::io::Write;

use crate::crypto::{Aead, CryptoError, Digest, HashAlgorithm, IV_SIZE, Provider, Secret};
use crate::wire::Version;

/// Longest input to HKDF-Expand: length, version, the longest label, a transcript hash.
const MAX_INFO_SIZE: usize = 2 + 8 + 12 + crate::crypto::MAX_HASH_SIZE;

/// What goes into one HKDF-Expand.
struct Info {
    bytes: [u8; MAX_INFO_SIZE],
    length: usize,
}

impl AsRef<[u8]> for Info {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Version and hash of a connection, which the whole schedule depends on.
#[derive(Clone, Copy)]
pub struct KeySchedule<'p> {
    provider: &'p dyn Provider,
    version: Version,
    hash: HashAlgorithm,
}

/// What both ends of a session share before it has keys.
#[derive(Clone, Copy)]
pub enum Shared<'a> {
    /// What KEY_EXCHANGE agreed on.
    Exchanged(&'a Secret),
    /// The pre-shared key of PSK_EXCHANGE, of any length.
    Psk(&'a [u8]),
}

impl core::fmt::Debug for Shared<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Exchanged(_) => "Exchanged",
            Self::Psk(_) => "Psk",
        })
    }
}

/// Secrets of the handshake phase.
#[derive(Clone, Debug)]
pub struct HandshakeSecrets {
    /// `Salt_1`, from which the application phase begins.
    pub salt: Secret,
    /// For what the requester sends.
    pub request: HandshakeDirection,
    /// For what the responder sends.
    pub response: HandshakeDirection,
}

/// Secrets of one direction of the handshake phase.
#[derive(Clone, Debug)]
pub struct HandshakeDirection {
    /// Secret of the direction, which the others come from.
    pub secret: Secret,
    /// Key of the HMAC in the sender's messages.
    pub finished: Secret,
    /// Protects records.
    pub traffic: TrafficKey,
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
#[derive(Clone)]
pub struct TrafficKey {
    /// Key.
    pub key: Secret,
    /// Initial vector, before the sequence number goes in.
    pub iv: [u8; IV_SIZE],
}

impl TrafficKey {
    fn new(key: Secret, iv: &Secret) -> Result<Self, CryptoError> {
        Ok(Self { key, iv: iv.as_ref().try_into().map_err(|_| CryptoError::Failed)? })
    }
}

/// What the key and the initial vector of a direction are derived with.
const fn key_and_iv(aead: Aead) -> [(&'static str, &'static [u8], usize); 2] {
    [("key", &[], aead.key_size()), ("iv", &[], IV_SIZE)]
}

/// The initial vector is as secret as the key.
impl core::fmt::Debug for TrafficKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TrafficKey").finish_non_exhaustive()
    }
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

    /// BinConcat(length, version, label, context).
    fn info(&self, label: &str, context: &[u8], length: usize) -> Result<Info, CryptoError> {
        let size = u16::try_from(length).map_err(|_| CryptoError::Failed)?;
        let version = [b'0' + self.version.major() % 10, b'.', b'0' + self.version.minor() % 10, b' '];
        let mut info = Info { bytes: [0; MAX_INFO_SIZE], length: 0 };
        let mut room = info.bytes.as_mut_slice();
        for part in [&size.to_le_bytes()[..], b"spdm", &version, label.as_bytes(), context] {
            room.write_all(part).map_err(|_| CryptoError::Failed)?;
        }
        info.length = MAX_INFO_SIZE - room.len();
        Ok(info)
    }

    /// HKDF-Expand(secret, BinConcat(length, version, label, context), length) of every label, context and length.
    fn expand<const N: usize>(
        &self,
        secret: &Secret,
        labels: [(&str, &[u8], usize); N],
    ) -> Result<[Secret; N], CryptoError> {
        let mut outputs = labels.map(|(_, _, length)| Secret::zeros(length));
        let mut infos = [const { Info { bytes: [0; MAX_INFO_SIZE], length: 0 } }; N];
        for (info, (label, context, length)) in infos.iter_mut().zip(labels) {
            *info = self.info(label, context, length)?;
        }
        let infos = infos.each_ref().map(AsRef::as_ref);
        self.provider.hkdf_expand(self.hash, secret.as_ref(), &infos, &mut outputs)?;
        Ok(outputs)
    }

    /// Handshake secrets from what is shared and the transcript hash TH1. `Salt_0` is zeros, and from 1.3 on ones for
    /// a pre-shared key, so that a key can serve for one of the two purposes only.
    pub fn handshake(
        &self,
        shared: Shared<'_>,
        th1: &Digest,
        aead: Aead,
    ) -> Result<HandshakeSecrets, CryptoError> {
        let size = self.hash.size();
        let mut salt = Secret::zeros(size);
        let secret = match shared {
            Shared::Exchanged(secret) => secret.as_ref(),
            Shared::Psk(secret) => {
                if self.version >= Version::V1_3 {
                    salt.as_mut().fill(0xFF);
                }
                secret
            }
        };
        let handshake = self.provider.hmac(self.hash, salt.as_ref(), secret)?;
        let th1 = th1.as_ref();
        let labels = [("req hs data", th1, size), ("rsp hs data", th1, size), ("derived", &[], size)];
        let [request, response, salt] = self.expand(&handshake, labels)?;
        let direction = |secret: Secret| {
            let [key, iv] = key_and_iv(aead);
            let [finished, key, iv] = self.expand(&secret, [("finished", &[], size), key, iv])?;
            Ok(HandshakeDirection { secret, finished, traffic: TrafficKey::new(key, &iv)? })
        };
        Ok(HandshakeSecrets { salt, request: direction(request)?, response: direction(response)? })
    }

    /// Application secrets from `Salt_1` and the transcript hash TH2.
    pub fn application(&self, salt: &Secret, th2: &Digest) -> Result<ApplicationSecrets, CryptoError> {
        let size = self.hash.size();
        let master = self.provider.hmac(self.hash, salt.as_ref(), Secret::zeros(size).as_ref())?;
        let labels = ["req app data", "rsp app data", "exp master"].map(|label| (label, th2.as_ref(), size));
        let [request, response, export_master] = self.expand(&master, labels)?;
        Ok(ApplicationSecrets { request, response, export_master })
    }

    /// Key and initial vector from a direction's secret.
    pub fn traffic_key(&self, secret: &Secret, aead: Aead) -> Result<TrafficKey, CryptoError> {
        let [key, iv] = self.expand(secret, key_and_iv(aead))?;
        TrafficKey::new(key, &iv)
    }

    /// The secret that follows `secret` after KEY_UPDATE.
    pub fn update(&self, secret: &Secret) -> Result<Secret, CryptoError> {
        let [next] = self.expand(secret, [("traffic upd", &[], self.hash.size())])?;
        Ok(next)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RingProvider;
    use crate::wire::samples::hex;

    /// Debug output of libspdm's unit test `libspdm_test_responder_key_exchange_case1` with SHA-384, as Caliptra's
    /// `test_aes_gcm_spdm_mode` quotes it: response_handshake_secret, then key and iv. It speaks SPDM 1.1.
    #[test]
    fn keys_are_those_of_libspdm() {
        let provider = RingProvider::new();
        let schedule = KeySchedule::new(&provider, Version::V1_1, HashAlgorithm::Sha384);
        let secret = Secret::new(&hex("edc06197770f538cb25085b0bc98c04954db9ca64b2c782850f2ca5ad337162f
             2f244285702ab0749b6e1b43c30adbc4"))
        .unwrap();
        let traffic = schedule.traffic_key(&secret, Aead::Aes256Gcm).unwrap();
        let key = hex("2382fc62b2e82ad4d6296e3fc7388f484ef7fd27d5c7664c6f388497bb9fcb53");
        assert_eq!(traffic.key.as_ref(), key);
        assert_eq!(traffic.iv.as_slice(), hex("862b00c958445f37e886a4a0"));
        assert_eq!(format!("{traffic:?}"), "TrafficKey { .. }");
    }

    /// Every step written out by hand over HMAC alone: HKDF-Expand of at most one block is HMAC(secret, info ‖ 1).
    #[test]
    fn the_schedule_is_that_of_the_specification() {
        let provider = RingProvider::new();
        let hash = HashAlgorithm::Sha256;
        for (version, name) in
            [(Version::V1_1, "spdm1.1 "), (Version::V1_2, "spdm1.2 "), (Version::V1_3, "spdm1.3 ")]
        {
            let schedule = KeySchedule::new(&provider, version, hash);
            let mac = |key: &[u8], data: &[u8]| provider.hmac(hash, key, data).unwrap().as_ref().to_vec();
            let expand = |secret: &[u8], length: u8, label: &str, context: &[u8]| {
                let mut info = vec![length, 0];
                info.extend_from_slice(name.as_bytes());
                info.extend_from_slice(label.as_bytes());
                info.extend_from_slice(context);
                info.push(1);
                let mut block = mac(secret, &info);
                block.truncate(length.into());
                block
            };
            let (th1, th2) = (Digest::new(&[0x11; 32]), Digest::new(&[0x22; 32]));
            let shared = Secret::new(&[0x5A; 32]).unwrap();
            let handshake = schedule.handshake(Shared::Exchanged(&shared), &th1, Aead::Aes128Gcm).unwrap();
            let secret = mac(&[0; 32], &[0x5A; 32]);
            let request = expand(&secret, 32, "req hs data", &[0x11; 32]);
            assert_eq!(handshake.request.secret.as_ref(), request);
            let response = expand(&secret, 32, "rsp hs data", &[0x11; 32]);
            assert_eq!(handshake.response.secret.as_ref(), response);
            for (direction, secret) in [(&handshake.request, &request), (&handshake.response, &response)] {
                assert_eq!(direction.finished.as_ref(), expand(secret, 32, "finished", &[]));
                assert_eq!(direction.traffic.key.as_ref(), expand(secret, 16, "key", &[]));
                assert_eq!(direction.traffic.iv.as_slice(), expand(secret, 12, "iv", &[]));
            }

            let application = schedule.application(&handshake.salt, &th2).unwrap();
            let salt = expand(&secret, 32, "derived", &[]);
            assert_eq!(handshake.salt.as_ref(), salt);
            let master = mac(&salt, &[0; 32]);
            assert_eq!(application.request.as_ref(), expand(&master, 32, "req app data", &[0x22; 32]));
            assert_eq!(application.response.as_ref(), expand(&master, 32, "rsp app data", &[0x22; 32]));
            assert_eq!(application.export_master.as_ref(), expand(&master, 32, "exp master", &[0x22; 32]));
            let update = schedule.update(&application.request).unwrap();
            assert_eq!(update.as_ref(), expand(application.request.as_ref(), 32, "traffic upd", &[]));
            // A pre-shared key, here longer than any hash: the salt alone tells it from what was exchanged.
            let salt = if version >= Version::V1_3 { [0xFF; 32] } else { [0; 32] };
            let psk = schedule.handshake(Shared::Psk(&[0x5A; 100]), &th1, Aead::Aes128Gcm).unwrap();
            let secret = mac(&salt, &[0x5A; 100]);
            let response = expand(&secret, 32, "rsp hs data", &[0x11; 32]);
            assert_eq!(psk.response.secret.as_ref(), response);
            assert_eq!(psk.response.finished.as_ref(), expand(&response, 32, "finished", &[]));

            let traffic = schedule.traffic_key(&update, Aead::Aes128Gcm).unwrap();
            assert_eq!(traffic.key.as_ref(), expand(update.as_ref(), 16, "key", &[]));
            assert_eq!(traffic.iv.as_slice(), expand(update.as_ref(), 12, "iv", &[]));
        }
    }
}
