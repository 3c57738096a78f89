//! The algorithms this crate can name, with their SPDM bits and sizes
//! (DSP0274 1.3 "NEGOTIATE_ALGORITHMS request and ALGORITHMS response messages").

macro_rules! algorithms {
    ($(#[$doc:meta])* $name:ident: $mask:ty { $($(#[$variant_doc:meta])* $variant:ident = $bit:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every algorithm there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its bit in the SPDM mask.
            pub const fn bit(self) -> $mask {
                match self {
                    $(Self::$variant => 1 << $bit,)*
                }
            }

            /// The algorithm that a mask with one bit stands for.
            pub const fn from_bit(mask: $mask) -> Option<Self> {
                $(if mask == 1 << $bit {
                    return Some(Self::$variant);
                })*
                None
            }
        }
    };
}

/// The same for algorithms that SPDM spreads over two masks; `_` is no bit.
macro_rules! two_masks {
    (@bit _) => { 0 };
    (@bit $bit:literal) => { 1 << $bit };
    ($(#[$doc:meta])* $name:ident: $mask:ty, $first:ident, $from_first:ident, $second:ident, $from_second:ident {
        $($(#[$variant_doc:meta])* $variant:ident = ($first_bit:tt, $second_bit:tt),)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every algorithm there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its bit in the first mask, 0 if it has none there.
            pub const fn $first(self) -> $mask {
                match self {
                    $(Self::$variant => two_masks!(@bit $first_bit),)*
                }
            }

            /// Its bit in the second mask, 0 if it has none there.
            pub const fn $second(self) -> $mask {
                match self {
                    $(Self::$variant => two_masks!(@bit $second_bit),)*
                }
            }

            /// The algorithm that a first mask with one bit stands for.
            pub const fn $from_first(mask: $mask) -> Option<Self> {
                match mask {
                    0 => None,
                    $(mask if mask == Self::$variant.$first() => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The algorithm that a second mask with one bit stands for.
            pub const fn $from_second(mask: $mask) -> Option<Self> {
                match mask {
                    0 => None,
                    $(mask if mask == Self::$variant.$second() => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

algorithms! {
    /// Hash algorithm (`BaseHashAlgo`).
    HashAlgorithm: u32 {
        /// SHA-256.
        Sha256 = 0,
        /// SHA-384.
        Sha384 = 1,
        /// SHA-512.
        Sha512 = 2,
        /// SHA3-256.
        Sha3_256 = 3,
        /// SHA3-384.
        Sha3_384 = 4,
        /// SHA3-512.
        Sha3_512 = 5,
    }
}

algorithms! {
    /// AEAD cipher suite (`AEAD`).
    Aead: u16 {
        /// AES-128-GCM.
        Aes128Gcm = 0,
        /// AES-256-GCM.
        Aes256Gcm = 1,
        /// ChaCha20-Poly1305.
        ChaCha20Poly1305 = 2,
    }
}

two_masks! {
    /// Signature algorithm, with its bit in `BaseAsymAlgo` or, from SPDM 1.4 on, in `PqcAsymAlgo`.
    AsymAlgorithm: u32, base_bit, from_base_bit, pqc_bit, from_pqc_bit {
        /// RSASSA-PKCS1-v1_5 with a 2048-bit key.
        RsaSsa2048 = (0, _),
        /// RSASSA-PSS with a 2048-bit key.
        RsaPss2048 = (1, _),
        /// RSASSA-PKCS1-v1_5 with a 3072-bit key.
        RsaSsa3072 = (2, _),
        /// RSASSA-PSS with a 3072-bit key.
        RsaPss3072 = (3, _),
        /// ECDSA over NIST P-256.
        EcdsaP256 = (4, _),
        /// RSASSA-PKCS1-v1_5 with a 4096-bit key.
        RsaSsa4096 = (5, _),
        /// RSASSA-PSS with a 4096-bit key.
        RsaPss4096 = (6, _),
        /// ECDSA over NIST P-384.
        EcdsaP384 = (7, _),
        /// ECDSA over NIST P-521.
        EcdsaP521 = (8, _),
        /// Ed25519.
        Ed25519 = (10, _),
        /// ML-DSA-44.
        MlDsa44 = (_, 0),
        /// ML-DSA-65.
        MlDsa65 = (_, 1),
        /// ML-DSA-87.
        MlDsa87 = (_, 2),
    }
}

two_masks! {
    /// Key exchange, with its bit in `DHE` or, from SPDM 1.4 on, in `KEMAlg`.
    DheGroup: u16, dhe_bit, from_dhe_bit, kem_bit, from_kem_bit {
        /// NIST P-256.
        P256 = (3, _),
        /// NIST P-384.
        P384 = (4, _),
        /// NIST P-521.
        P521 = (5, _),
        /// ML-KEM-512.
        MlKem512 = (_, 0),
        /// ML-KEM-768.
        MlKem768 = (_, 1),
        /// ML-KEM-1024.
        MlKem1024 = (_, 2),
    }
}

impl HashAlgorithm {
    /// Size of a digest, in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 | Self::Sha3_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }

    /// Its bit in `MeasurementHashAlgo`, where bit 0 stands for raw bit streams.
    pub const fn measurement_bit(self) -> u32 {
        self.bit() << 1
    }

    /// The algorithm of a `MeasurementHashAlgo`; `None` for raw bit streams only.
    pub const fn from_measurement_bit(mask: u32) -> Option<Self> {
        Self::from_bit(mask >> 1)
    }
}

impl AsymAlgorithm {
    /// Its bit in `ReqBaseAsymAlg`, which is that of `BaseAsymAlgo` in 16 bits; 0 if there is none.
    pub const fn requester_bit(self) -> u16 {
        let [low, high, ..] = self.base_bit().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Its bit in `ReqPqcAsymAlg`, which is that of `PqcAsymAlgo` in 16 bits; 0 if there is none.
    pub const fn requester_pqc_bit(self) -> u16 {
        let [low, high, ..] = self.pqc_bit().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Size of a signature, in bytes. That of RSA is also the size of the modulus.
    pub const fn signature_size(self) -> usize {
        match self {
            Self::EcdsaP256 | Self::Ed25519 => 64,
            Self::EcdsaP384 => 96,
            Self::EcdsaP521 => 132,
            Self::RsaSsa2048 | Self::RsaPss2048 => 256,
            Self::RsaSsa3072 | Self::RsaPss3072 => 384,
            Self::RsaSsa4096 | Self::RsaPss4096 => 512,
            Self::MlDsa44 => 2420,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }

    /// Whether a key whose certificate says this algorithm may be used with `other`: a plain RSA key is good for
    /// both paddings, and counts as RSASSA-PKCS1-v1_5.
    pub fn serves(self, other: Self) -> bool {
        self == other
            || matches!(
                (self, other),
                (Self::RsaSsa2048, Self::RsaPss2048)
                    | (Self::RsaSsa3072, Self::RsaPss3072)
                    | (Self::RsaSsa4096, Self::RsaPss4096)
            )
    }

    /// Whether it is negotiated in `PqcAsymAlgo`, which exists from SPDM 1.4 on.
    pub const fn is_post_quantum(self) -> bool {
        self.pqc_bit() != 0
    }
}

impl DheGroup {
    /// Size of the exchange data that a requester sends, in bytes: X‖Y, or the encapsulation key of a KEM.
    pub const fn request_size(self) -> usize {
        match self {
            Self::P256 => 64,
            Self::P384 => 96,
            Self::P521 => 132,
            Self::MlKem512 => 800,
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
        }
    }

    /// Size of the exchange data that a responder sends, in bytes: X‖Y, or the cipher text of a KEM.
    pub const fn response_size(self) -> usize {
        match self {
            Self::P256 => 64,
            Self::P384 => 96,
            Self::P521 => 132,
            Self::MlKem512 => 768,
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
        }
    }

    /// Size of the shared secret, in bytes.
    pub const fn secret_size(self) -> usize {
        match self {
            Self::P256 | Self::MlKem512 | Self::MlKem768 | Self::MlKem1024 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Whether it is negotiated in `KEMAlg`, which exists from SPDM 1.4 on.
    pub const fn is_kem(self) -> bool {
        self.kem_bit() != 0
    }
}

impl Aead {
    /// Size of a key, in bytes.
    pub const fn key_size(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every algorithm has exactly one bit, and every bit at most one algorithm.
    #[test]
    fn bits_and_algorithms_are_one_to_one() {
        for &hash in HashAlgorithm::ALL {
            assert_eq!(HashAlgorithm::from_bit(hash.bit()), Some(hash));
            assert_eq!(HashAlgorithm::from_measurement_bit(hash.measurement_bit()), Some(hash));
        }
        for &asym in AsymAlgorithm::ALL {
            assert_eq!((asym.base_bit() | asym.pqc_bit()).count_ones(), 1);
            let (base, pqc) = (asym.base_bit(), asym.pqc_bit());
            assert_eq!(AsymAlgorithm::from_base_bit(base), Some(asym).filter(|_| pqc == 0));
            assert_eq!(AsymAlgorithm::from_pqc_bit(pqc), Some(asym).filter(|_| base == 0));
            assert_eq!(asym.is_post_quantum(), base == 0);
        }
        for &group in DheGroup::ALL {
            assert_eq!((group.dhe_bit() | group.kem_bit()).count_ones(), 1);
            let (dhe, kem) = (group.dhe_bit(), group.kem_bit());
            assert_eq!(DheGroup::from_dhe_bit(dhe), Some(group).filter(|_| kem == 0));
            assert_eq!(DheGroup::from_kem_bit(kem), Some(group).filter(|_| dhe == 0));
            assert_eq!(group.is_kem(), dhe == 0);
        }
    }

    #[test]
    fn masks_without_exactly_one_known_bit_name_nothing() {
        for mask in [0, 3, 1 << 9, 1 << 11, 1 << 12, u32::MAX] {
            assert_eq!(AsymAlgorithm::from_base_bit(mask), None, "{mask:#x}");
        }
        for mask in [0, 3, 1 << 3, u32::MAX] {
            assert_eq!(AsymAlgorithm::from_pqc_bit(mask), None, "{mask:#x}");
        }
        for mask in [0, 1, 1 << 6, 0x18, u16::MAX] {
            assert_eq!(DheGroup::from_dhe_bit(mask), None, "{mask:#x}");
        }
        for mask in [0, 3, 1 << 3, u16::MAX] {
            assert_eq!(DheGroup::from_kem_bit(mask), None, "{mask:#x}");
        }
        for mask in [0, 3, 1 << 6, u32::MAX] {
            assert_eq!(HashAlgorithm::from_bit(mask), None, "{mask:#x}");
        }
    }
}
