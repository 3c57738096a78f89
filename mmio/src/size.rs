//! Numbers of bytes as people write them.
use core::fmt;
use core::str::FromStr;

/// Units of 1024, the largest first.
const UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// A number of bytes that is read and written as 16K, 1M, 8G or 2T; any other number is that of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Text that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number of bytes below 2^64, or one with K, M, G or T behind it, such as 16K")]
pub struct NotASize;

impl fmt::Display for ByteSize {
    /// In the largest unit that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let text = match UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit)) {
            Some((name, unit)) => format!("{}{name}", bytes / unit),
            None => bytes.to_string(),
        };
        // So that a width in the format string counts.
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(*name)?, *unit)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        // `parse` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotASize);
        }
        let number = digits.parse::<u64>().map_err(|_| NotASize)?;
        number.checked_mul(unit).map(Self).ok_or(NotASize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("4096", 4096),
            ("16K", 16 << 10),
            ("1M", 1 << 20),
            ("8G", 8 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        for (bytes, text) in [(0, "0"), (1000, "1000"), (4096, "4K"), (3 << 19, "1536K"), (1 << 43, "8T")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(format!("[{:>6}]", ByteSize(4096)), "[    4K]");
    }

    #[test]
    fn other_text_is_no_size() {
        for text in [
            "",
            "K",
            "16k",
            "16 K",
            "1.5M",
            "-1",
            "+1",
            "0x1000",
            "16KB",
            "16777216T",
            "99999999999999999999",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(NotASize), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes in any::<u64>(), shift in 0_u32..64) {
            let size = ByteSize(bytes.wrapping_shl(shift));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
