//! The algorithms this crate can name, with their SPDM bits and sizes
//! (DSP0274 1.3 "NEGOTIATE_ALGORITHMS request and ALGORITHMS response messages").

macro_rules! algorithms {
    ($(#[$doc:meta])* $name:ident: $mask:ty { $($(#[$variant_doc:meta])* $variant:ident = $bit:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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

algorithms! {
    /// Hash algorithm (`BaseHashAlgo`).
    HashAlgorithm: u32 {
        /// SHA-256.
        Sha256 = 0,
        /// SHA-384.
        Sha384 = 1,
        /// SHA-512.
        Sha512 = 2,
    }
}

algorithms! {
    /// Signature algorithm (`BaseAsymAlgo`).
    AsymAlgorithm: u32 {
        /// ECDSA over NIST P-256.
        EcdsaP256 = 4,
        /// ECDSA over NIST P-384.
        EcdsaP384 = 7,
    }
}

algorithms! {
    /// Key exchange group (`DHE`).
    DheGroup: u16 {
        /// NIST P-256.
        P256 = 3,
        /// NIST P-384.
        P384 = 4,
    }
}

algorithms! {
    /// AEAD cipher suite (`AEAD`).
    Aead: u16 {
        /// AES-128-GCM.
        Aes128Gcm = 0,
        /// AES-256-GCM.
        Aes256Gcm = 1,
    }
}

impl HashAlgorithm {
    /// Size of a digest, in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
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
    /// Size of a signature, in bytes.
    pub const fn signature_size(self) -> usize {
        match self {
            Self::EcdsaP256 => 64,
            Self::EcdsaP384 => 96,
        }
    }
}

impl DheGroup {
    /// Size of the exchange data, in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 64,
            Self::P384 => 96,
        }
    }
}

impl Aead {
    /// Size of a key, in bytes.
    pub const fn key_size(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }
}
