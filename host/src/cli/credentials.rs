//! What the host proves itself with, and which of the responder's keys it uses.

use std::path::PathBuf;

use clap::Args;

/// The host's own secrets.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Credentials")]
pub struct Credentials {
    /// Begin sessions with the pre-shared key in this file, all of its bytes (PSK_EXCHANGE instead of KEY_EXCHANGE)
    #[arg(long, global = true, value_name = "FILE")]
    pub psk_file: Option<PathBuf>,
    /// Name the responder knows that key by; \0, \\ and \xNN stand for bytes (default: none, which is its first key)
    #[arg(long, global = true, value_name = "TEXT", value_parser = unescape)]
    pub psk_hint: Option<Hint>,
    /// Certificates to show a responder that asks who we are, root or leaf first, as PEM or DER
    #[arg(long, global = true, value_name = "FILE")]
    pub identity_chain: Option<PathBuf>,
    /// Private key of that chain's leaf: PKCS#8, PKCS#1 or SEC1, as PEM or DER
    #[arg(long, global = true, value_name = "FILE")]
    pub identity_key: Option<PathBuf>,
    /// Use several keys of a responder that has them, if it lets us choose (SPDM 1.3 and later)
    #[arg(long, global = true)]
    pub multiple_keys: bool,
}

/// PSKHint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint(pub Vec<u8>);

fn unescape(text: &str) -> Result<Hint, String> {
    const EXPECTED: &str = "a backslash is followed by 0, \\ or xNN";
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok().filter(|digits| !digits.starts_with('+'));
                (digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(EXPECTED)?, after)
            }
            (b'\\', _) => return Err(EXPECTED.into()),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(Hint(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_may_have_any_bytes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("TestPskHint\\0", b"TestPskHint\0"),
            ("a\\\\b", b"a\\b"),
            ("\\xfF\\x00ü", b"\xff\0\xc3\xbc"),
        ] {
            assert_eq!(unescape(text), Ok(Hint(bytes.to_vec())), "{text}");
        }
        for text in ["\\", "\\n", "\\x", "\\x1", "\\xgg", "\\x+1", "\\xüü"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
