//! Configuration space as a host sees it: addresses, capabilities, BARs and the IDE stream's registers.

pub mod bars;
pub mod capabilities;
pub mod ide;

use std::fmt;
use std::str::FromStr;

use crate::error::Result;

/// Command register (PCI 3.0 §6.2.2).
pub const COMMAND: u16 = 0x04;
/// Command: Memory Space Enable.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// Command: Bus Master Enable.
pub const COMMAND_MASTER: u32 = 1 << 2;

/// Bytes of a PCI Express function's configuration space.
pub const CONFIG_SIZE: u16 = 4096;

/// How wide a configuration access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Dword,
}

impl Width {
    /// Bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// Reads and writes of configuration space; values are little-endian, zero-extended.
///
/// An access that the device does not complete reads as all ones; an error means that there is no way to the device.
pub trait ConfigSpace {
    /// Reads a register of `width` at a byte `offset`.
    fn read(&mut self, offset: u16, width: Width) -> Result<u32>;
    /// Writes a register of `width` at a byte `offset`.
    fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()>;

    /// Reads a dword.
    fn read32(&mut self, offset: u16) -> Result<u32> {
        self.read(offset, Width::Dword)
    }

    /// Writes a dword.
    fn write32(&mut self, offset: u16, value: u32) -> Result<()> {
        self.write(offset, Width::Dword, value)
    }
}

/// Address of a function: segment, bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// PCI segment (Linux: domain).
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Bdf {
    /// The requester id: bus, device and function in 16 bits.
    pub fn requester_id(self) -> u16 {
        u16::from(self.bus) << 8 | u16::from(self.device & 0x1f) << 3 | u16::from(self.function & 7)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.segment, self.bus, self.device, self.function)
    }
}

/// A text that is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a PCI address such as 0000:01:00.0")]
pub struct NotABdf;

impl FromStr for Bdf {
    type Err = NotABdf;

    /// Reads `0000:01:00.0`, or `01:00.0` for segment 0.
    fn from_str(text: &str) -> Result<Self, NotABdf> {
        let hex = |text: &str, digits: usize| {
            let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u16::from_str_radix(text, 16).ok()).flatten().ok_or(NotABdf)
        };
        let (rest, function) = text.rsplit_once('.').ok_or(NotABdf)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(NotABdf)?;
        let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let bdf = Self {
            segment: hex(segment, 4)?,
            bus: u8::try_from(hex(bus, 2)?).map_err(|_| NotABdf)?,
            device: u8::try_from(hex(device, 2)?).map_err(|_| NotABdf)?,
            function: u8::try_from(hex(function, 1)?).map_err(|_| NotABdf)?,
        };
        if bdf.device > 31 || bdf.function > 7 { Err(NotABdf) } else { Ok(bdf) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Plain memory as a configuration space, for tests of its users.
    pub(crate) struct Image(pub(crate) Vec<u8>);

    impl Image {
        pub(crate) fn new() -> Self {
            Self(vec![0; usize::from(CONFIG_SIZE)])
        }

        pub(crate) fn put(&mut self, offset: u16, value: u32) {
            let at = usize::from(offset);
            self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    impl ConfigSpace for Image {
        fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
            let at = usize::from(offset);
            let mut value = [0; 4];
            value[..width.bytes()].copy_from_slice(&self.0[at..at + width.bytes()]);
            Ok(u32::from_le_bytes(value))
        }

        fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()> {
            let at = usize::from(offset);
            self.0[at..at + width.bytes()].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
            Ok(())
        }
    }

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["0000:01:00.0", "ffff:ff:1f.7"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        assert_eq!("01:02.3".parse::<Bdf>().unwrap().requester_id(), 0x0113);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "1", "01:00", "01:20.0", "01:00.8", "10000:01:00.0", "0000:100:00.0", "a:b:c:d.e", "01:+0.0"]
        {
            assert_eq!(text.parse::<Bdf>(), Err(NotABdf), "{text}");
        }
    }
}
