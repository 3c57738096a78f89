//! BARs: reading where they are and, when nobody else has, sizing and placing them as firmware would.

use clap::ValueEnum;
use serde::Deserialize;

use super::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, Width};
use crate::error::{Error, Result};

/// Offset of BAR0.
const BAR0: u16 = 0x10;
/// BARs of a type 0 header.
const COUNT: u8 = 6;

/// Where 32-bit BARs go: below 4 GiB, above any memory we map.
const LOW_WINDOW: (u64, u64) = (0xc000_0000, 0xfec0_0000);
/// Where 64-bit BARs go: 512 GiB and up, 512 GiB of room.
const HIGH_WINDOW: (u64, u64) = (0x80_0000_0000, 0x100_0000_0000);

/// A memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// BAR number, 0 to 5.
    pub index: u8,
    /// Address programmed into it.
    pub address: u64,
    /// Size, bytes; a power of two.
    pub size: u64,
    /// Takes two registers.
    pub wide: bool,
    /// Reads have no side effects.
    pub prefetchable: bool,
}

impl Bar {
    /// Whether an address lies in it; then its offset.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.address).filter(|offset| *offset < self.size)
    }
}

/// One half of a BAR that is twice as large as what is in it: T is a bit of the address there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// The lower one.
    Low,
    /// The upper one.
    High,
}

/// Sizes the memory BARs by writing ones and reading back, and leaves what was there.
///
/// Memory decoding is switched off meanwhile. Not for a device that a kernel or a TDI's user holds.
///
/// # Errors
/// [`Error::Protocol`] for a BAR that decodes no size or runs past the last register.
pub fn size(config: &mut dyn ConfigSpace) -> Result<Vec<Bar>> {
    let command = config.read(COMMAND, Width::Word)?;
    config.write(COMMAND, Width::Word, command & !(COMMAND_MEMORY | 1))?;
    let mut bars = Vec::new();
    let mut index = 0;
    while index < COUNT {
        let at = register(index);
        let old = config.read32(at)?;
        let mask = probe(config, at, old)?;
        // An I/O BAR, or none.
        if mask == 0 || mask & 1 != 0 {
            index += 1;
            continue;
        }
        let wide = mask & 0x6 == 0x4;
        let (mut address, mut decoded) = (u64::from(old & !0xf), u64::from(mask & !0xf));
        if wide {
            if index + 1 >= COUNT {
                return Err(Error::Protocol(format!("BAR{index} is 64-bit but has no second register")));
            }
            let old = config.read32(at + 4)?;
            address |= u64::from(old) << 32;
            decoded |= u64::from(probe(config, at + 4, old)?) << 32;
        } else {
            decoded |= 0xffff_ffff_0000_0000;
        }
        let size = decoded.wrapping_neg();
        if !size.is_power_of_two() {
            return Err(Error::Protocol(format!("BAR{index} decodes {decoded:#x}: no power of two")));
        }
        bars.push(Bar { index, address, size, wide, prefetchable: mask & 8 != 0 });
        index += if wide { 2 } else { 1 };
    }
    config.write(COMMAND, Width::Word, command)?;
    Ok(bars)
}

/// Gives every BAR an address, as firmware does, and programs it.
///
/// # Errors
/// [`Error::NoDevice`] if they do not fit the windows.
pub fn assign(config: &mut dyn ConfigSpace, bars: &mut [Bar]) -> Result<()> {
    let (mut low, mut high) = (LOW_WINDOW.0, HIGH_WINDOW.0);
    // Largest first wastes no room to alignment.
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.size));
    for bar in bars.iter_mut() {
        let (next, end) = if bar.wide { (&mut high, HIGH_WINDOW.1) } else { (&mut low, LOW_WINDOW.1) };
        let fits = next
            .checked_next_multiple_of(bar.size)
            .filter(|start| start.checked_add(bar.size).is_some_and(|stop| stop <= end));
        let Some(start) = fits else {
            return Err(Error::NoDevice(format!("BAR{} of {:#x} bytes does not fit", bar.index, bar.size)));
        };
        *next = start + bar.size;
        bar.address = start;
        let at = register(bar.index);
        let [a, b, c, d, e, f, g, h] = start.to_le_bytes();
        config.write32(at, u32::from_le_bytes([a, b, c, d]))?;
        if bar.wide {
            config.write32(at + 4, u32::from_le_bytes([e, f, g, h]))?;
        }
    }
    bars.sort_by_key(|bar| bar.index);
    Ok(())
}

/// Sets Memory Space Enable and Bus Master Enable, and reads them back.
///
/// # Errors
/// [`Error::Protocol`] if they do not stick.
pub fn enable(config: &mut dyn ConfigSpace) -> Result<()> {
    let wanted = COMMAND_MEMORY | COMMAND_MASTER;
    let command = config.read(COMMAND, Width::Word)?;
    if command & wanted == wanted {
        return Ok(());
    }
    config.write(COMMAND, Width::Word, command | wanted)?;
    let seen = config.read(COMMAND, Width::Word)?;
    if seen & wanted == wanted {
        Ok(())
    } else {
        Err(Error::Protocol(format!("Command reads {seen:#06x} after enabling memory and bus mastering")))
    }
}

fn register(index: u8) -> u16 {
    BAR0 + u16::from(index) * 4
}

fn probe(config: &mut dyn ConfigSpace, at: u16, old: u32) -> Result<u32> {
    config.write32(at, u32::MAX)?;
    let mask = config.read32(at)?;
    config.write32(at, old)?;
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    /// BAR registers that decode; every other register is memory.
    struct Decoder {
        image: Image,
        masks: [u32; 6],
    }

    impl Decoder {
        fn new(masks: [u32; 6]) -> Self {
            let mut image = Image::new();
            for (n, mask) in masks.iter().enumerate() {
                image.put(BAR0 + u16::try_from(n).unwrap() * 4, mask & 0xf);
            }
            Self { image, masks }
        }
    }

    impl ConfigSpace for Decoder {
        fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
            self.image.read(offset, width)
        }

        fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()> {
            let value = match offset.checked_sub(BAR0) {
                Some(n) if n < 24 => {
                    let mask = self.masks[usize::from(n / 4)];
                    // Of a 64-bit BAR's upper half every bit of the mask is address.
                    let upper = n > 0 && self.masks[usize::from(n / 4) - 1] & 7 == 4;
                    if upper { value & mask } else { value & mask & !0xf | mask & 0xf }
                }
                _ => value,
            };
            self.image.write(offset, width, value)
        }
    }

    #[test]
    fn sizes_are_found_and_addresses_given() {
        let mut config = Decoder::new([0xffff_f000, 0, 0xffff_000c, u32::MAX, 0xffff_0004, u32::MAX]);
        config.image.put(COMMAND, 0x0002);
        let mut bars = size(&mut config).unwrap();
        assert_eq!(config.image.read(COMMAND, Width::Word).unwrap(), 2, "restored");
        let shape: Vec<_> = bars.iter().map(|b| (b.index, b.size, b.wide, b.prefetchable)).collect();
        assert_eq!(shape, [(0, 0x1000, false, false), (2, 0x1_0000, true, true), (4, 0x1_0000, true, false)]);
        assign(&mut config, &mut bars).unwrap();
        let addresses: Vec<_> = bars.iter().map(|b| b.address).collect();
        assert_eq!(addresses, [0xc000_0000, 0x80_0000_0000, 0x80_0001_0000]);
        assert_eq!(config.image.read32(0x1c).unwrap(), 0x80);
        let again = size(&mut config).unwrap();
        assert_eq!(again, bars);
    }

    #[test]
    fn impossible_bars_are_refused() {
        for masks in [[0, 0, 0, 0, 0, 0xffff_0004], [0xff0f_0000, 0, 0, 0, 0, 0]] {
            assert!(matches!(size(&mut Decoder::new(masks)), Err(Error::Protocol(_))), "{masks:x?}");
        }
        let mut config = Decoder::new([0x8000_0000, 0, 0, 0, 0, 0]);
        let mut bars = size(&mut config).unwrap();
        assert!(matches!(assign(&mut config, &mut bars), Err(Error::NoDevice(_))));
    }

    #[test]
    fn all_ones_are_no_memory_bars() {
        struct Dead;
        impl ConfigSpace for Dead {
            fn read(&mut self, _: u16, _: Width) -> Result<u32> {
                Ok(u32::MAX)
            }
            fn write(&mut self, _: u16, _: Width, _: u32) -> Result<()> {
                Ok(())
            }
        }
        assert_eq!(size(&mut Dead).unwrap(), []);
        assert!(
            enable(&mut Dead).is_ok(),
            "all ones read as enabled: the caller has looked at the vendor id"
        );
    }

    #[test]
    fn enabling_is_checked() {
        let mut image = Image::new();
        enable(&mut image).unwrap();
        assert_eq!(image.read(COMMAND, Width::Word).unwrap(), 6);
    }
}
