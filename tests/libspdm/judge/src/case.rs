//! What a run negotiates: the matrix of versions, algorithms and protections that both sides can do.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use libspdm_sys as sys;
use spdm::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};
use spdm::identity::{Material, PciName, generate};
use spdm::wire::Version;

/// What one run offers, in both roles: exactly one of everything.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// SPDM version.
    pub version: Version,
    /// Signature of the responder.
    pub asym: AsymAlgorithm,
    /// Hash of the connection.
    pub hash: HashAlgorithm,
    /// Key exchange.
    pub group: DheGroup,
    /// Session protection.
    pub aead: Aead,
    /// Measurement hash; `None` is "raw bit stream only".
    pub measurement_hash: Option<HashAlgorithm>,
    /// Sessions encrypt; otherwise they only authenticate.
    pub encrypt: bool,
    /// Handshake in the clear.
    pub clear: bool,
    /// DSP0277 version (0x11 is 1.1); 0 for all.
    pub secured: u8,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{:?}+{:?}+{:?}", self.asym, self.hash, self.group, self.aead)
    }
}

/// The identity of the device in generated certificates.
pub const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: Some(7),
};

/// DSP0274 1.3 "GET_CAPABILITIES": CERT, CHAL, ENCRYPT, MAC, KEY_EX, HBEAT, KEY_UPD.
pub const REQUESTER_FLAGS: u32 = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 13 | 1 << 14;
/// DSP0274 1.3 "CAPABILITIES": as the requester's, with signed (2 << 3) and fresh measurements.
pub const RESPONDER_FLAGS: u32 = REQUESTER_FLAGS | 2 << 3 | 1 << 5;

impl Case {
    /// Whether the version has sessions.
    pub fn has_sessions(&self) -> bool {
        self.version > Version::V1_0
    }

    /// Whether the version says if measurements changed.
    pub fn tells_changes(&self) -> bool {
        self.version >= Version::V1_2
    }

    /// The same for libspdm.
    pub fn reference(&self, responder: bool) -> sys::Config {
        let mut flags = if responder { RESPONDER_FLAGS } else { REQUESTER_FLAGS };
        if !self.encrypt {
            flags &= !(1 << 6);
        }
        if self.clear {
            flags |= 1 << 15;
        }
        sys::Config {
            version: self.version.0,
            ct_exponent: 14,
            measurement_specification: 1,
            other_params: 2,
            flags,
            measurement_hash: self.measurement_hash.map_or(1, HashAlgorithm::measurement_bit),
            base_asym: self.asym.base_bit(),
            base_hash: self.hash.bit(),
            dhe: self.group.dhe_bit(),
            aead: self.aead.bit(),
            requester_asym: 0,
            key_schedule: 1,
            heartbeat_period: 10,
            secured_version: self.secured,
            data_transfer_size: 0,
            max_message_size: 0,
            mel_specification: 0,
        }
    }
}

/// Our key and certificates of this algorithm, the same ones for a whole process; OpenSSL's for RSA, whose keys ring
/// does not make.
pub fn material(asym: AsymAlgorithm) -> Material {
    use AsymAlgorithm as A;
    static MADE: Mutex<Vec<(AsymAlgorithm, Material)>> = Mutex::new(Vec::new());
    macro_rules! load {
        ($chain:literal, $key:literal) => {
            Material::load(
                include_bytes!(concat!("../../../../spdm/tests/identities/", $chain)),
                include_bytes!(concat!("../../../../spdm/tests/identities/", $key)),
                Some(asym),
            )
        };
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, material)) = made.iter().find(|(algorithm, _)| *algorithm == asym) {
        return material.clone();
    }
    let material = match asym {
        A::RsaSsa2048 | A::RsaPss2048 => load!("rsa2048.chain.pem", "rsa2048.key.pem"),
        A::RsaSsa3072 | A::RsaPss3072 => load!("rsa3072.chain.pem", "rsa3072.key.pem"),
        A::RsaSsa4096 | A::RsaPss4096 => load!("rsa4096.chain.der", "rsa4096.key.der"),
        A::EcdsaP256 | A::EcdsaP384 | A::EcdsaP521 | A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87 => {
            generate(&NAME, asym)
        }
    }
    .unwrap();
    made.push((asym, material.clone()));
    material
}

/// DSP0277 versions with measurement hashes. The two do not touch each other, so that beside "all versions" one hash each
/// suffices.
const SECURED_AND_MEASURED: [(u8, Option<HashAlgorithm>); 7] = [
    (0, Some(HashAlgorithm::Sha256)),
    (0, Some(HashAlgorithm::Sha384)),
    (0, Some(HashAlgorithm::Sha512)),
    (0, None),
    (0x10, Some(HashAlgorithm::Sha256)),
    (0x11, Some(HashAlgorithm::Sha384)),
    (0x12, Some(HashAlgorithm::Sha512)),
];

/// Every combination both sides can do. 1.0 has neither key exchange nor records, so that only one of each is left.
pub fn cases() -> Vec<Case> {
    let mut cases = all_cases();
    cases.retain(|case| {
        case.has_sessions()
            || case.group == DheGroup::P256
                && case.aead == Aead::Aes128Gcm
                && (case.encrypt, case.clear, case.secured) == (true, false, 0)
    });
    cases
}

fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [Version::V1_2, Version::V1_3, Version::V1_1, Version::V1_0] {
        for (asym, hash) in [
            (AsymAlgorithm::EcdsaP256, HashAlgorithm::Sha256),
            (AsymAlgorithm::EcdsaP384, HashAlgorithm::Sha384),
        ] {
            for group in [DheGroup::P256, DheGroup::P384] {
                for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm] {
                    for (encrypt, clear) in [(true, false), (true, true), (false, false), (false, true)] {
                        for (secured, measurement_hash) in SECURED_AND_MEASURED {
                            cases.push(Case {
                                version,
                                asym,
                                hash,
                                group,
                                aead,
                                measurement_hash,
                                encrypt,
                                clear,
                                secured,
                            });
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Deterministic choices.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The choices of one seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..8 {
            dice.roll(2);
        }
        dice
    }

    /// One of 0..sides (xorshift).
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).unwrap() % sides
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }
}
