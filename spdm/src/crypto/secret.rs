//! Digests and secrets: short byte strings without a heap allocation; secrets are wiped and never printed.

use zerocopy::IntoBytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Size of the longest digest, in bytes.
pub const MAX_HASH_SIZE: usize = 64;
/// Room for the longest shared secret, P-521's 66 bytes rounded up.
const MAX_SECRET_SIZE: usize = 72;
/// The same in the units in which secrets are wiped: byte by byte it takes longer than much of what is done with them.
const MAX_SECRET_WORDS: usize = MAX_SECRET_SIZE / size_of::<u64>();

/// A digest of any algorithm.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; MAX_HASH_SIZE],
    length: usize,
}

impl Digest {
    /// Copies a digest; what exceeds [`MAX_HASH_SIZE`] is cut off.
    pub fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; MAX_HASH_SIZE];
        let length = digest.len().min(MAX_HASH_SIZE);
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Digest {}

impl core::fmt::Debug for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_ref().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A secret of at most 72 bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    words: [u64; MAX_SECRET_WORDS],
    length: usize,
}

impl Secret {
    /// A secret of `length` zeros, at most 72, to be filled.
    pub fn zeros(length: usize) -> Self {
        Self { words: [0; MAX_SECRET_WORDS], length: length.min(MAX_SECRET_SIZE) }
    }

    /// Copies a secret; `None` if it is longer than any this crate knows.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let mut new = Self::zeros(secret.len());
        if new.length != secret.len() {
            return None;
        }
        new.as_mut().iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        Some(new)
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.words.as_bytes().get(..self.length).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Secret {
    fn as_mut(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes().get_mut(..self.length).unwrap_or_default()
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secret({} bytes)", self.length)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.as_ref())
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = zeroize::Zeroizing::new(Vec::<u8>::deserialize(deserializer)?);
        Self::new(&bytes).ok_or_else(|| serde::de::Error::invalid_length(bytes.len(), &"at most 72 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(&[0xC5; 48]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(48 bytes)");
        assert_eq!(secret.as_ref(), [0xC5; 48]);
        assert!(Secret::new(&[0; 73]).is_none());
    }
}
