//! What configuration space says a function has: identity, capabilities, DOE mailboxes, IDE.
//!
//! The lists come from the device, so they may loop, run out of bounds or read as all ones.

use std::collections::BTreeSet;

use super::{CONFIG_SIZE, ConfigSpace, Width};
use crate::error::{Error, Result};

/// Capability id of PCI Express (PCIe 6.1 §7.5.3).
const CAP_EXPRESS: u8 = 0x10;
/// Capability id of MSI-X (PCIe 6.1 §7.7.2).
const CAP_MSIX: u8 = 0x11;
/// Extended capability id of the serial number (PCIe 6.1 §7.9.3).
const EXT_DSN: u16 = 0x0003;
/// Extended capability id of Data Object Exchange (PCIe 6.1 §7.9.24).
const EXT_DOE: u16 = 0x002e;
/// Extended capability id of Integrity and Data Encryption (PCIe 6.1 §7.9.26).
const EXT_IDE: u16 = 0x0030;

/// Where the extended list starts; the capabilities before it are in the first 256 bytes.
const EXT_START: u16 = 0x100;
/// Status: a capability list is there.
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// Device Capabilities: TEE-IO supported.
const TEE_IO: u32 = 1 << 30;

/// A DOE extended capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoeCapability {
    /// Byte offset of the capability.
    pub offset: u16,
    /// Capability version; 2 and later change discovery.
    pub version: u8,
}

/// What a walk over configuration space found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// Device Capabilities says TEE-IO.
    pub tee_io: bool,
    /// PCI Express capability's offset.
    pub express: Option<u8>,
    /// MSI-X: BARs that hold the table and the PBA.
    pub msix_bars: Option<(u8, u8)>,
    /// Serial number.
    pub serial: Option<u64>,
    /// IDE extended capability's offset.
    pub ide: Option<u16>,
    /// DOE mailboxes, in the list's order.
    pub doe: Vec<DoeCapability>,
    /// Every capability seen: id, offset.
    pub capabilities: Vec<(u8, u8)>,
    /// Every extended capability seen: id, version, offset.
    pub extended: Vec<(u16, u8, u16)>,
}

/// Reads the inventory of a type 0 function.
///
/// # Errors
/// [`Error::NoDevice`] if nothing answers, [`Error::Protocol`] for a list that loops or leaves its space.
pub fn read(config: &mut dyn ConfigSpace) -> Result<Inventory> {
    let id = config.read32(0)?;
    if id == u32::MAX || id == 0 {
        return Err(Error::NoDevice(format!("configuration space reads {id:#010x}: nothing answers")));
    }
    let class = config.read32(0x08)?;
    let mut found = Inventory {
        vendor: low16(id),
        device: low16(id >> 16),
        class: class >> 8,
        revision: low8(class),
        ..Inventory::default()
    };
    walk_capabilities(config, &mut found)?;
    walk_extended(config, &mut found)?;
    Ok(found)
}

fn walk_capabilities(config: &mut dyn ConfigSpace, found: &mut Inventory) -> Result<()> {
    if config.read(0x06, Width::Word)? & STATUS_CAPABILITIES == 0 {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    let mut offset = low8(config.read(0x34, Width::Byte)?) & !3;
    while offset != 0 {
        if offset < 0x40 || !seen.insert(offset) {
            return Err(Error::Protocol(format!(
                "capability list loops or leaves its space at {offset:#04x}"
            )));
        }
        let header = config.read32(u16::from(offset))?;
        if header == u32::MAX {
            return Err(Error::Protocol(format!("capability at {offset:#04x} reads all ones")));
        }
        let id = low8(header);
        found.capabilities.push((id, offset));
        match id {
            CAP_EXPRESS if found.express.is_none() && offset <= 0xf8 => {
                found.express = Some(offset);
                found.tee_io = config.read32(u16::from(offset) + 4)? & TEE_IO != 0;
            }
            CAP_MSIX if found.msix_bars.is_none() && offset <= 0xf4 => {
                let table = config.read32(u16::from(offset) + 4)?;
                let pba = config.read32(u16::from(offset) + 8)?;
                found.msix_bars = Some((low8(table & 7), low8(pba & 7)));
            }
            _ => {}
        }
        offset = low8(header >> 8) & !3;
    }
    Ok(())
}

fn walk_extended(config: &mut dyn ConfigSpace, found: &mut Inventory) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut offset = EXT_START;
    while offset != 0 {
        if !(EXT_START..=CONFIG_SIZE - 4).contains(&offset) || !seen.insert(offset) {
            return Err(Error::Protocol(format!(
                "extended capability list loops or leaves its space at {offset:#05x}"
            )));
        }
        let header = config.read32(offset)?;
        if header == u32::MAX || header == 0 {
            // At the head of the list both mean "none": a function without extended space, or an empty list.
            if offset == EXT_START {
                return Ok(());
            }
            return Err(Error::Protocol(format!(
                "extended capability at {offset:#05x} reads {header:#010x}"
            )));
        }
        let (id, version) = (low16(header), low8(header >> 16 & 0xf));
        found.extended.push((id, version, offset));
        let fits = |size: u16| offset <= CONFIG_SIZE - size;
        match id {
            EXT_DOE if fits(0x18) => found.doe.push(DoeCapability { offset, version }),
            EXT_IDE if found.ide.is_none() && fits(0x0c) => found.ide = Some(offset),
            EXT_DSN if found.serial.is_none() && fits(0x0c) => {
                let low = u64::from(config.read32(offset + 4)?);
                found.serial = Some(u64::from(config.read32(offset + 8)?) << 32 | low);
            }
            _ => {}
        }
        offset = low16(header >> 20) & !3;
    }
    Ok(())
}

fn low8(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

fn low16(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    fn image() -> Image {
        let mut image = Image::new();
        image.put(0, 0x1234_1b36);
        image.put(4, STATUS_CAPABILITIES << 16);
        image.put(8, 0x1200_0001);
        image.put(0x34, 0x40);
        image
    }

    fn ext(id: u16, version: u32, next: u32) -> u32 {
        u32::from(id) | version << 16 | next << 20
    }

    #[test]
    fn a_sound_function_is_read_whole() {
        let mut image = image();
        image.put(0x40, 0x0002_6010);
        image.put(0x44, TEE_IO);
        image.put(0x60, 0x0011);
        image.put(0x64, 4);
        image.put(0x68, 0x1005);
        image.put(0x100, ext(EXT_DSN, 1, 0x110));
        image.put(0x104, 0x89ab_cdef);
        image.put(0x108, 0x0123_4567);
        image.put(0x110, ext(EXT_DOE, 2, 0x130));
        image.put(0x130, ext(EXT_IDE, 1, 0x200));
        image.put(0x200, ext(EXT_DOE, 1, 0));
        let found = read(&mut image).unwrap();
        assert_eq!((found.vendor, found.device, found.class, found.revision), (0x1b36, 0x1234, 0x12_0000, 1));
        assert!(found.tee_io);
        assert_eq!((found.express, found.msix_bars, found.ide), (Some(0x40), Some((4, 5)), Some(0x130)));
        assert_eq!(found.serial, Some(0x0123_4567_89ab_cdef));
        assert_eq!(
            found.doe,
            [DoeCapability { offset: 0x110, version: 2 }, DoeCapability { offset: 0x200, version: 1 }]
        );
    }

    #[test]
    fn nothing_there_is_no_device() {
        for fill in [0, 0xff] {
            let mut image = Image(vec![fill; 4096]);
            assert!(matches!(read(&mut image), Err(Error::NoDevice(_))));
        }
    }

    #[test]
    fn loops_and_wild_pointers_end_the_walk() {
        for (offset, value) in [(0x40, 0x4010), (0x40, 0x2010), (0x34, 0x3c), (0x40, u32::MAX)] {
            let mut image = image();
            image.put(offset, value);
            if offset == 0x34 {
                image.put(0x3c, 0x3c10);
            }
            assert!(matches!(read(&mut image), Err(Error::Protocol(_))), "{offset:#x} {value:#x}");
        }
        for (next, at_next) in
            [(0x100, 0), (0x0fc, 0), (0x200, u32::MAX), (0x200, 0), (0x200, ext(5, 1, 0x200))]
        {
            let mut image = image();
            image.put(0x40, 0x0010);
            image.put(0x100, ext(EXT_DSN, 1, next));
            if next == 0x200 {
                image.put(0x200, at_next);
            }
            assert!(matches!(read(&mut image), Err(Error::Protocol(_))), "{next:#x} {at_next:#x}");
        }
    }

    #[test]
    fn a_capability_cut_off_by_the_end_of_space_is_not_used() {
        let mut image = image();
        image.put(0x40, 0xfc10);
        image.put(0xfc, 0x0011);
        image.put(0x100, ext(EXT_DSN, 1, 0xff8));
        image.put(0xff8, ext(EXT_DOE, 2, 0));
        let found = read(&mut image).unwrap();
        assert_eq!((found.msix_bars, found.doe.len()), (None, 0));
        assert_eq!(found.extended.len(), 2);
    }

    #[test]
    fn the_longest_possible_lists_are_walked_once() {
        let mut image = image();
        for offset in (0x40..0xfc).step_by(4) {
            image.put(offset, u32::from(offset + 4) << 8 | 0x09);
        }
        image.put(0xfc, 0x09);
        for offset in (0x100..0xffc).step_by(4) {
            image.put(offset, ext(0x0b, 1, u32::from(offset + 4)));
        }
        image.put(0xffc, ext(0x0b, 1, 0));
        let found = read(&mut image).unwrap();
        assert_eq!((found.capabilities.len(), found.extended.len()), (48, 960));
    }
}
