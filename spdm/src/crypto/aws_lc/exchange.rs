//! Key exchange by AWS-LC: elliptic curves, and ML-KEM, where the requester's public value is an encapsulation key
//! and the responder's a cipher text (DSP0274 1.4 "KEY_EXCHANGE").

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{agreement, kem};

use crate::crypto::{CryptoError, DheGroup, KeyAgreement, Secret};

/// First byte of an uncompressed point, which SPDM leaves out.
const UNCOMPRESSED: u8 = 4;

enum Method {
    Curve(&'static agreement::Algorithm),
    Kem(&'static kem::Algorithm),
}

const fn method(group: DheGroup) -> Method {
    match group {
        DheGroup::P256 => Method::Curve(&agreement::ECDH_P256),
        DheGroup::P384 => Method::Curve(&agreement::ECDH_P384),
        DheGroup::P521 => Method::Curve(&agreement::ECDH_P521),
        DheGroup::MlKem512 => Method::Kem(&kem::ML_KEM_512),
        DheGroup::MlKem768 => Method::Kem(&kem::ML_KEM_768),
        DheGroup::MlKem1024 => Method::Kem(&kem::ML_KEM_1024),
    }
}

pub(super) fn start(random: &SystemRandom, group: DheGroup) -> Result<Box<dyn KeyAgreement>, CryptoError> {
    Ok(match method(group) {
        Method::Curve(curve) => Box::new(Point::generate(random, curve, group)?),
        Method::Kem(algorithm) => Box::new(Decapsulation::generate(algorithm)?),
    })
}

pub(super) fn answer(
    random: &SystemRandom,
    group: DheGroup,
    peer: &[u8],
    public: &mut Vec<u8>,
) -> Result<Secret, CryptoError> {
    match method(group) {
        Method::Curve(curve) => {
            let point = Box::new(Point::generate(random, curve, group)?);
            let start = public.len();
            public.extend_from_slice(point.public());
            point.agree(peer).inspect_err(|_| public.truncate(start))
        }
        Method::Kem(algorithm) => {
            // The check of FIPS 203 §7.2 is in both steps: the size in the first, the numbers in the second.
            let key = kem::EncapsulationKey::new(algorithm, peer).map_err(|_| CryptoError::Malformed)?;
            let (cipher_text, secret) = key.encapsulate().map_err(|_| CryptoError::Malformed)?;
            let secret = Secret::new(secret.as_ref()).ok_or(CryptoError::Failed)?;
            public.extend_from_slice(cipher_text.as_ref());
            Ok(secret)
        }
    }
}

struct Point {
    curve: &'static agreement::Algorithm,
    size: usize,
    private: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl Point {
    fn generate(
        random: &SystemRandom,
        curve: &'static agreement::Algorithm,
        group: DheGroup,
    ) -> Result<Self, CryptoError> {
        let private =
            agreement::EphemeralPrivateKey::generate(curve, random).map_err(|_| CryptoError::Failed)?;
        let public = private.compute_public_key().map_err(|_| CryptoError::Failed)?;
        Ok(Self { curve, size: group.request_size(), private, public })
    }
}

impl KeyAgreement for Point {
    fn public(&self) -> &[u8] {
        self.public.as_ref().split_first().map(|(_, point)| point).unwrap_or_default()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError> {
        if peer.len() != self.size {
            return Err(CryptoError::Malformed);
        }
        let mut point = Vec::with_capacity(1 + self.size);
        point.push(UNCOMPRESSED);
        point.extend_from_slice(peer);
        let peer = agreement::UnparsedPublicKey::new(self.curve, point);
        agreement::agree_ephemeral(self.private, peer, CryptoError::Malformed, |secret| {
            Secret::new(secret).ok_or(CryptoError::Failed)
        })
    }
}

struct Decapsulation {
    key: kem::DecapsulationKey,
    public: Vec<u8>,
}

impl Decapsulation {
    fn generate(algorithm: &'static kem::Algorithm) -> Result<Self, CryptoError> {
        let key = kem::DecapsulationKey::generate(algorithm).map_err(|_| CryptoError::Failed)?;
        let public = key
            .encapsulation_key()
            .and_then(|public| Ok(public.key_bytes()?.as_ref().to_vec()))
            .map_err(|_| CryptoError::Failed)?;
        Ok(Self { key, public })
    }
}

impl KeyAgreement for Decapsulation {
    fn public(&self) -> &[u8] {
        &self.public
    }

    /// A cipher text of the right size that was not made for this key gives another secret, by design: the peer's
    /// HMAC will not hold.
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, CryptoError> {
        let secret = self.key.decapsulate(peer.into()).map_err(|_| CryptoError::Malformed)?;
        Secret::new(secret.as_ref()).ok_or(CryptoError::Failed)
    }
}
