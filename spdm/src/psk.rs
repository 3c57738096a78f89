//! Pre-shared keys: what both ends of a connection were given beforehand, and the hint that tells one from another.

use zeroize::Zeroizing;

/// One pre-shared key. It is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PreSharedKey {
    hint: Vec<u8>,
    secret: Zeroizing<Vec<u8>>,
}

impl PreSharedKey {
    /// A key of any length, and the bytes that PSK_EXCHANGE names it by.
    #[must_use]
    pub fn new(hint: Vec<u8>, secret: Vec<u8>) -> Self {
        Self { hint, secret: Zeroizing::new(secret) }
    }

    /// `PSKHint`; empty for a key that needs no name.
    #[must_use]
    pub fn hint(&self) -> &[u8] {
        &self.hint
    }

    /// The key itself.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl core::fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PreSharedKey")
            .field("hint", &self.hint.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// The key that a hint means: the one of that name, or the first if there is no hint.
pub(crate) fn find<'k>(keys: &'k [PreSharedKey], hint: &[u8]) -> Option<&'k PreSharedKey> {
    if hint.is_empty() { keys.first() } else { keys.iter().find(|key| key.hint == hint) }
}

/// Whether every key can be found and used: none is empty, no hint is taken twice or too long for its length field, and
/// only the first may do without.
pub(crate) fn usable(keys: &[PreSharedKey]) -> bool {
    keys.iter().enumerate().all(|(at, key)| {
        !key.secret.is_empty()
            && u16::try_from(key.hint.len()).is_ok()
            && (at == 0 || !key.hint.is_empty())
            && keys.iter().take(at).all(|earlier| earlier.hint != key.hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hint: &str, secret: &str) -> PreSharedKey {
        PreSharedKey::new(hint.into(), secret.into())
    }

    #[test]
    fn a_key_is_never_printed() {
        let text = format!("{:?}", key("the\0hint", "the secret"));
        assert!(text.contains("the\\\\x00hint") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_hint_means_one_key() {
        let keys = [key("a", "1"), key("b", "2")];
        assert!(usable(&keys));
        assert_eq!(find(&keys, b"b"), Some(&keys[1]));
        assert_eq!(find(&keys, b""), Some(&keys[0]));
        assert_eq!(find(&keys, b"c"), None);
        assert_eq!(find(&[], b""), None);
        assert!(usable(&[key("", "1"), key("b", "2")]));
        for unusable in
            [vec![key("a", "")], vec![key("a", "1"), key("", "2")], vec![key("a", "1"), key("a", "2")]]
        {
            assert!(!usable(&unusable), "{unusable:?}");
        }
        assert!(!usable(&[PreSharedKey::new(vec![0; 0x1_0000], vec![1])]));
    }
}
