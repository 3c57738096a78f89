//! What 1.4 brought to both roles: 32-bit lengths, key encapsulation; and the question for supported algorithms of 1.3.

use std::time::Duration;

use spdm::crypto::{
    Aead, AeadKey, AsymAlgorithm, CryptoError, DheGroup, HashAlgorithm, Hasher, KeyAgreement, Provider,
    RingProvider, Secret, SignedMessage, hash,
};
use spdm::requester::{Command, ConnectionInfo, Reply, Requester, RequesterConfig, RequesterError};
use spdm::responder::{Responder, ResponderConfig};
use spdm::wire::{KEY_SCHEDULE_SPDM, Version};

use super::pair::*;

/// The default provider with a key encapsulation mechanism that has the sizes of ML-KEM and nothing of its strength: so
/// the ways of the two roles are tested in builds that have no other.
struct WithKem(RingProvider);

/// Both halves of the exchange begin with 32 random bytes, of which the secret is made.
struct Halves {
    public: Vec<u8>,
    expected: usize,
}

fn secret(provider: &dyn Provider, ours: &[u8], theirs: &[u8]) -> Result<Secret, CryptoError> {
    let both = [&ours[..32], &theirs[..32]].concat();
    Secret::new(hash(provider, HashAlgorithm::Sha256, &both)?.as_ref()).ok_or(CryptoError::Failed)
}

impl KeyAgreement for Halves {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError> {
        if peer.len() != self.expected {
            return Err(CryptoError::Malformed);
        }
        secret(&RingProvider::new(), &self.public, peer)
    }
}

impl WithKem {
    fn half(&self, size: usize) -> Result<Vec<u8>, CryptoError> {
        let mut half = vec![0xE5; size];
        self.0.random(&mut half[..32])?;
        Ok(half)
    }
}

impl Provider for WithKem {
    fn supports_hash(&self, hash: HashAlgorithm) -> bool {
        self.0.supports_hash(hash)
    }

    fn supports_signature(&self, algorithm: AsymAlgorithm, hash: HashAlgorithm) -> bool {
        self.0.supports_signature(algorithm, hash)
    }

    fn supports_group(&self, group: DheGroup) -> bool {
        group.is_kem() || self.0.supports_group(group)
    }

    fn supports_aead(&self, aead: Aead) -> bool {
        self.0.supports_aead(aead)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.0.random(out)
    }

    fn hasher(&self, hash: HashAlgorithm) -> Result<Box<dyn Hasher>, CryptoError> {
        self.0.hasher(hash)
    }

    fn verify(
        &self,
        algorithm: AsymAlgorithm,
        hash: HashAlgorithm,
        public_key: &[u8],
        message: SignedMessage<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.0.verify(algorithm, hash, public_key, message, signature)
    }

    fn start_exchange(&self, group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError> {
        if !group.is_kem() {
            return self.0.start_exchange(group);
        }
        let public = self.half(group.request_size())?;
        Ok(Box::new(Halves { public, expected: group.response_size() }))
    }

    fn answer_exchange(
        &self,
        group: DheGroup,
        peer: &[u8],
        public: &mut Vec<u8>,
    ) -> Result<Secret, CryptoError> {
        if !group.is_kem() {
            return self.0.answer_exchange(group, peer, public);
        }
        assert_eq!(peer.len(), group.request_size());
        let half = self.half(group.response_size())?;
        public.extend_from_slice(&half);
        secret(&self.0, peer, &half)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoError> {
        self.0.aead_key(aead, key)
    }
}

fn with_kem(responder: ResponderConfig, requester: RequesterConfig) -> Pair {
    let provider = || Box::new(WithKem(RingProvider::new()));
    let responder = Responder::new(responder, slots(), provider()).unwrap();
    let requester = Requester::new(requester, provider()).unwrap();
    Pair { requester, device: Device { responder, now: Duration::ZERO } }
}

fn connected(pair: &mut Pair) -> ConnectionInfo {
    let Reply::Connected(info) = pair.run(Command::Connect).unwrap() else { panic!() };
    info
}

#[test]
fn sessions_begin_with_key_encapsulation() {
    for mechanism in [DheGroup::MlKem512, DheGroup::MlKem768, DheGroup::MlKem1024] {
        for clear in [false, true] {
            let version = Version::V1_4;
            let groups = vec![DheGroup::P256, mechanism];
            let mut settings = ResponderConfig { groups, ..responder_config(version) };
            settings.capabilities.handshake_in_the_clear = clear;
            let config = RequesterConfig {
                groups: vec![mechanism],
                handshake_in_the_clear: clear,
                ..requester_config(version)
            };
            let mut pair = with_kem(settings, config);
            assert_eq!(connected(&mut pair).algorithms.group, Some(mechanism));
            pair.run(Command::Certificate { slot: 0 }).unwrap();
            let (one, two) = (pair.start(), pair.start());
            for id in [one, two] {
                pair.exercise(id);
            }
        }
    }
}

/// The responder's order decides, over both kinds, and below 1.4 there is one kind only.
#[test]
fn groups_and_mechanisms_share_one_order_of_preference() {
    for (version, groups, selected) in [
        (Version::V1_4, vec![DheGroup::MlKem768, DheGroup::P384], DheGroup::MlKem768),
        (Version::V1_4, vec![DheGroup::P384, DheGroup::MlKem768], DheGroup::P384),
        (Version::V1_4, vec![DheGroup::MlKem1024, DheGroup::P256], DheGroup::P256),
        (Version::V1_3, vec![DheGroup::MlKem768, DheGroup::P384], DheGroup::P384),
    ] {
        let settings = ResponderConfig { groups, ..responder_config(version) };
        let groups = vec![DheGroup::P256, DheGroup::P384, DheGroup::MlKem512, DheGroup::MlKem768];
        let config = RequesterConfig { groups, ..requester_config(version) };
        let mut pair = with_kem(settings, config);
        assert_eq!(connected(&mut pair).algorithms.group, Some(selected), "{version}");
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        let id = pair.start();
        pair.exercise(id);
    }
}

#[test]
fn vendor_messages_beyond_16_bits_go_in_the_large_form() {
    let large = |version| {
        let mut settings = ResponderConfig { max_message_size: 0x4_0000, ..responder_config(version) };
        settings.capabilities.chunks = true;
        let config = RequesterConfig { max_message_size: 0x4_0000, ..requester_config(version) };
        let mut pair = Pair::with(settings, slots(), config);
        pair.run(Command::Connect).unwrap();
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        pair
    };
    let payload: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let vendor = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.clone() };
    let mut pair = large(Version::V1_4);
    for session in [false, true] {
        if session {
            pair.start();
        }
        let Reply::Vendor(echo) = pair.run(vendor.clone()).unwrap() else { panic!() };
        assert!(echo[4..] == payload);
    }
    let refused = large(Version::V1_3).fail(vendor);
    assert!(matches!(refused, RequesterError::Encode(_)), "{refused:?}");
}

#[test]
fn supported_algorithms_are_asked_for_and_told() {
    for (version, ours, theirs, told) in [
        (Version::V1_4, true, true, true),
        (Version::V1_3, true, true, true),
        (Version::V1_3, true, false, false),
        (Version::V1_3, false, true, false),
        (Version::V1_2, true, true, false),
    ] {
        let mut settings = responder_config(version);
        settings.capabilities.chunks = theirs;
        let config = RequesterConfig { ask_algorithms: true, chunks: ours, ..requester_config(version) };
        let mut pair = Pair::with(settings, slots(), config);
        let info = connected(&mut pair);
        assert_eq!(info.supported_algorithms.is_some(), told, "{version} {ours} {theirs}");
        if let Some(supported) = info.supported_algorithms {
            assert_eq!(supported.base_asym, AsymAlgorithm::EcdsaP256.base_bit());
            assert_eq!(supported.tables.key_schedule, Some(KEY_SCHEDULE_SPDM));
        }
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        let id = pair.start();
        pair.exercise(id);
    }
}
