//! Names of the algorithms, as configuration files, messages and saved sessions write them.

use core::fmt;
use core::str::FromStr;

use super::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm};

/// A name that no algorithm of the kind has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is none of {}", known.join(", "))]
pub struct UnknownName {
    /// What was given.
    pub name: String,
    /// What there is.
    pub known: &'static [&'static str],
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal,)* }) => {
        impl $type {
            /// Its name in configuration files and messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(UnknownName { name: name.to_owned(), known: &[$($name,)*] }),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

names! { HashAlgorithm {
    Sha256 = "sha256",
    Sha384 = "sha384",
    Sha512 = "sha512",
    Sha3_256 = "sha3-256",
    Sha3_384 = "sha3-384",
    Sha3_512 = "sha3-512",
} }

names! { Aead {
    Aes128Gcm = "aes-128-gcm",
    Aes256Gcm = "aes-256-gcm",
    ChaCha20Poly1305 = "chacha20-poly1305",
} }

names! { AsymAlgorithm {
    RsaSsa2048 = "rsassa-2048",
    RsaPss2048 = "rsapss-2048",
    RsaSsa3072 = "rsassa-3072",
    RsaPss3072 = "rsapss-3072",
    EcdsaP256 = "ecdsa-p256",
    RsaSsa4096 = "rsassa-4096",
    RsaPss4096 = "rsapss-4096",
    EcdsaP384 = "ecdsa-p384",
    EcdsaP521 = "ecdsa-p521",
    Ed25519 = "ed25519",
    MlDsa44 = "ml-dsa-44",
    MlDsa65 = "ml-dsa-65",
    MlDsa87 = "ml-dsa-87",
} }

names! { DheGroup {
    P256 = "p256",
    P384 = "p384",
    P521 = "p521",
    MlKem512 = "ml-kem-512",
    MlKem768 = "ml-kem-768",
    MlKem1024 = "ml-kem-1024",
} }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        fn check<T>(all: &[T])
        where
            T: Copy + PartialEq + fmt::Debug + fmt::Display + FromStr<Err = UnknownName>,
            T: serde::Serialize + serde::de::DeserializeOwned,
        {
            for &one in all {
                assert_eq!(one.to_string().parse(), Ok(one));
                let json = serde_json::to_string(&one).unwrap();
                assert_eq!(json, format!("\"{one}\""));
                assert_eq!(serde_json::from_str::<T>(&json).unwrap(), one);
            }
        }
        check(HashAlgorithm::ALL);
        check(Aead::ALL);
        check(AsymAlgorithm::ALL);
        check(DheGroup::ALL);
        let error = "sha1".parse::<HashAlgorithm>().unwrap_err();
        assert!(error.to_string().starts_with("\"sha1\" is none of sha256, sha384,"), "{error}");
    }
}
