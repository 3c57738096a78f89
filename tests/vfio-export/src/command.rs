//! The lines that the program takes.

use rustix::fs::OFlags;
use tdispctl::vmm::Range;

/// The most bytes that one command moves: a page, which is also what the importer's device moves at once.
pub(crate) const MAX_BYTES: u64 = 4096;

/// The commands, for people.
pub(crate) const HELP: &str = "\
probe                                       is there VFIO_DEVICE_FEATURE_DMA_BUF?
export NAME REGION RANGES [flags=N] [open-flags=N]
                                            a dma-buf of OFFSET:LENGTH[,OFFSET:LENGTH…] of a BAR, or of - (no range)
mmap NAME                                   maps it, and unmaps it again
attach NAME                                 the edu device imports it
map NAME | unmap NAME                       maps it for that device
state NAME                                  bus address, length, segments, and how often it was taken back
get NAME OFFSET LENGTH | put NAME OFFSET HEX
                                            that device reads or writes it, peer to peer
close NAME                                  import and descriptor go
read REGION OFFSET LENGTH | write REGION OFFSET HEX
                                            the processor reads or writes a BAR; region 7 is configuration space
reset                                       VFIO_DEVICE_RESET
leave                                       closes the device and keeps the dma-bufs
quit";

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Probe,
    Export { name: String, region: u32, flags: u32, open_flags: u32, ranges: Vec<Range> },
    Mmap { name: String },
    Attach { name: String },
    Map { name: String },
    Unmap { name: String },
    State { name: String },
    Get { name: String, offset: u64, length: u64 },
    Put { name: String, offset: u64, bytes: Vec<u8> },
    Close { name: String },
    Read { region: u32, offset: u64, length: u64 },
    Write { region: u32, offset: u64, bytes: Vec<u8> },
    Reset,
    Leave,
    Quit,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misunderstood {
    #[error("usage: not a command: '{0}'")]
    Command(String),
    #[error("usage: not a number: '{0}'")]
    Number(String),
    #[error("usage: not OFFSET:LENGTH: '{0}'")]
    Range(String),
    #[error("usage: not 1 to {MAX_BYTES} bytes: '{0}'")]
    Bytes(String),
}

impl Command {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Result<Self, Misunderstood> {
        let words: Vec<_> = line.split_whitespace().collect();
        let named = |name: &str| name.to_owned();
        Ok(match *words.as_slice() {
            ["probe"] => Self::Probe,
            ["export", name, region, list, ref options @ ..] => {
                let ranges = if list == "-" { Ok(Vec::new()) } else { list.split(',').map(range).collect() };
                let mut flags = 0;
                let mut open_flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
                for option in options {
                    match option.split_once('=') {
                        Some(("flags", value)) => flags = small(value)?,
                        Some(("open-flags", value)) => open_flags = small(value)?,
                        Some(_) | None => return Err(Misunderstood::Command(named(option))),
                    }
                }
                Self::Export { name: named(name), region: small(region)?, flags, open_flags, ranges: ranges? }
            }
            ["mmap", name] => Self::Mmap { name: named(name) },
            ["attach", name] => Self::Attach { name: named(name) },
            ["map", name] => Self::Map { name: named(name) },
            ["unmap", name] => Self::Unmap { name: named(name) },
            ["state", name] => Self::State { name: named(name) },
            ["get", name, offset, length] => {
                Self::Get { name: named(name), offset: number(offset)?, length: count(length)? }
            }
            ["put", name, offset, hex] => {
                Self::Put { name: named(name), offset: number(offset)?, bytes: bytes(hex)? }
            }
            ["close", name] => Self::Close { name: named(name) },
            ["read", region, offset, length] => {
                Self::Read { region: small(region)?, offset: number(offset)?, length: count(length)? }
            }
            ["write", region, offset, hex] => {
                Self::Write { region: small(region)?, offset: number(offset)?, bytes: bytes(hex)? }
            }
            ["reset"] => Self::Reset,
            ["leave"] => Self::Leave,
            ["quit"] => Self::Quit,
            _ => return Err(Misunderstood::Command(line.trim().chars().take(80).collect())),
        })
    }
}

fn number(word: &str) -> Result<u64, Misunderstood> {
    let parsed =
        word.strip_prefix("0x").map_or_else(|| word.parse(), |digits| u64::from_str_radix(digits, 16));
    parsed.map_err(|_| Misunderstood::Number(word.to_owned()))
}

fn small(word: &str) -> Result<u32, Misunderstood> {
    u32::try_from(number(word)?).map_err(|_| Misunderstood::Number(word.to_owned()))
}

fn count(word: &str) -> Result<u64, Misunderstood> {
    let count = number(word)?;
    if (1..=MAX_BYTES).contains(&count) { Ok(count) } else { Err(Misunderstood::Bytes(word.to_owned())) }
}

fn range(word: &str) -> Result<Range, Misunderstood> {
    let (offset, length) = word.split_once(':').ok_or_else(|| Misunderstood::Range(word.to_owned()))?;
    Ok(Range { offset: number(offset)?, length: number(length)? })
}

/// Pairs of hexadecimal digits.
fn bytes(word: &str) -> Result<Vec<u8>, Misunderstood> {
    let wrong = || Misunderstood::Bytes(word.chars().take(80).collect());
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.is_empty() || pairs.len() as u64 > MAX_BYTES {
        return Err(wrong());
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_has_ranges_and_flags() {
        let expected = Command::Export {
            name: "a".into(),
            region: 2,
            flags: 1,
            open_flags: 0x8_0002,
            ranges: vec![Range { offset: 0, length: 0x1000 }, Range { offset: 0x2000, length: 8192 }],
        };
        assert_eq!(Command::parse("export a 2 0:0x1000,0x2000:8192 flags=1\n"), Ok(expected));
        let none = Command::parse("export a 9 - open-flags=0x40");
        let expected =
            Command::Export { name: "a".into(), region: 9, flags: 0, open_flags: 0x40, ranges: Vec::new() };
        assert_eq!(none, Ok(expected));
    }

    #[test]
    fn bytes_are_pairs_of_digits_and_no_more_than_a_page() {
        let expected = Command::Put { name: "a".into(), offset: 16, bytes: vec![0, 0xaf] };
        assert_eq!(Command::parse("put a 0x10 00aF"), Ok(expected));
        let page = "00".repeat(4096);
        assert!(Command::parse(&format!("write 2 0 {page}")).is_ok());
        for hex in ["0", "0g", "é0", &format!("{page}00")] {
            assert!(
                matches!(Command::parse(&format!("put a 0 {hex}")), Err(Misunderstood::Bytes(_))),
                "{hex}"
            );
        }
        for length in ["0", "4097"] {
            let line = format!("read 2 0 {length}");
            assert_eq!(Command::parse(&line), Err(Misunderstood::Bytes(length.to_owned())));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for line in ["", "exports", "map", "map a b", "export a 2", "export a 2 - flag=1", "quit now"] {
            assert!(matches!(Command::parse(line), Err(Misunderstood::Command(_))), "{line}");
        }
        assert_eq!(Command::parse("export a 2 0"), Err(Misunderstood::Range("0".into())));
        for (line, word) in
            [("export a x 0:1", "x"), ("get a -1 1", "-1"), ("read 0x100000000 0 1", "0x100000000")]
        {
            assert_eq!(Command::parse(line), Err(Misunderstood::Number(word.to_owned())));
        }
    }
}
