//! What the guest sees of the function by itself: BARs and capabilities, as its kernel has them in sysfs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use spdm::identity::PciName;

use crate::error::{Error, Result};
use crate::pci::capabilities::{Inventory, read};
use crate::pci::{Bdf, ConfigSpace, Width};
use crate::transport::sysfs::DEVICES;
use crate::walk::name_of;

/// Capability ids (PCI 3.0 appendix H).
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
/// Virtio's vendor id.
const VIRTIO: u16 = 0x1af4;
/// `cfg_type` of structures in BARs: common, notifications, ISR, device (virtio 1.2 §4.1.4).
const STRUCTURES: [(u8, &str); 4] = [
    (1, "virtio common configuration"),
    (2, "virtio notifications"),
    (3, "virtio ISR"),
    (4, "virtio device configuration"),
];
/// `IORESOURCE_MEM` of Linux.
const MEMORY: u64 = 0x200;
/// Bytes of an entry of the MSI-X table.
const VECTOR: u64 = 16;

/// Bytes of a BAR, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Structure {
    /// What it is.
    pub(super) name: &'static str,
    /// Number of the BAR.
    pub(super) bar: u8,
    /// First byte.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// The function as the guest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// What configuration space calls the function.
    pub(super) name: PciName,
    /// Memory BARs: number and bytes.
    pub(super) bars: Vec<(u8, u64)>,
    /// MSI-X table and PBA, if there are any.
    pub(super) msix: Option<[Structure; 2]>,
    /// Where virtio's structures lie, of a virtio function.
    pub(super) virtio: Vec<Structure>,
}

impl View {
    /// Looks at a function.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is none, [`Error::Protocol`] for one that contradicts itself.
    pub(super) fn look(function: Bdf) -> Result<Self> {
        Self::of(&Path::new(DEVICES).join(function.to_string()), function)
    }

    fn of(directory: &Path, function: Bdf) -> Result<Self> {
        let missing = |e: std::io::Error| Error::NoDevice(format!("no function {function}: {e}"));
        let mut config = Registers(File::open(directory.join("config")).map_err(missing)?);
        let resources = std::fs::read_to_string(directory.join("resource")).map_err(missing)?;
        Self::read(&mut config, &resources)
    }

    fn read(config: &mut dyn ConfigSpace, resources: &str) -> Result<Self> {
        let inventory = read(config)?;
        let name = name_of(config, &inventory)?;
        let bars = bars(resources)?;
        let msix = msix(config, &inventory)?;
        let virtio = if inventory.vendor == VIRTIO { virtio(config, &inventory)? } else { Vec::new() };
        Ok(Self { name, bars, msix, virtio })
    }

    /// Bytes of a memory BAR.
    pub(super) fn bar(&self, number: u8) -> Option<u64> {
        self.bars.iter().find(|(bar, _)| *bar == number).map(|(_, size)| *size)
    }
}

/// Lines of `resource` are `first last flags`; the first six are BARs.
fn bars(resources: &str) -> Result<Vec<(u8, u64)>> {
    let mut bars = Vec::new();
    for (number, line) in (0..6).zip(resources.lines()) {
        let mut words =
            line.split_whitespace().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
        let (Some(Ok(first)), Some(Ok(last)), Some(Ok(flags))) = (words.next(), words.next(), words.next())
        else {
            return Err(Error::Protocol(format!("BAR{number} of sysfs reads {line:?}")));
        };
        if flags & MEMORY != 0 {
            let size = last.checked_sub(first).and_then(|size| size.checked_add(1));
            let size = size.filter(|size| size.is_power_of_two());
            let size = size.ok_or_else(|| Error::Protocol(format!("BAR{number} has no size: {line:?}")))?;
            bars.push((number, size));
        }
    }
    Ok(bars)
}

fn msix(config: &mut dyn ConfigSpace, inventory: &Inventory) -> Result<Option<[Structure; 2]>> {
    let Some((_, at)) = inventory.capabilities.iter().find(|(id, _)| *id == CAP_MSIX) else {
        return Ok(None);
    };
    let at = u16::from(*at);
    let vectors = u64::from(config.read(at + 2, Width::Word)? & 0x7FF) + 1;
    let mut place = |register: u16, name, size| {
        let word = config.read32(at + register)?;
        Ok(Structure { name, bar: (word & 7) as u8, offset: u64::from(word & !7), size })
    };
    Ok(Some([place(4, "MSI-X table", vectors * VECTOR)?, place(8, "MSI-X PBA", vectors.div_ceil(64) * 8)?]))
}

fn virtio(config: &mut dyn ConfigSpace, inventory: &Inventory) -> Result<Vec<Structure>> {
    let mut structures = Vec::new();
    for (_, at) in inventory.capabilities.iter().filter(|(id, _)| *id == CAP_VENDOR) {
        let at = u16::from(*at);
        let kind = config.read(at + 3, Width::Byte)?;
        let Some((_, name)) = STRUCTURES.iter().find(|(known, _)| u32::from(*known) == kind) else {
            continue;
        };
        let bar = config.read(at + 4, Width::Byte)?;
        structures.push(Structure {
            name,
            bar: u8::try_from(bar).unwrap_or(u8::MAX),
            offset: config.read32(at + 8)?.into(),
            size: config.read32(at + 12)?.into(),
        });
    }
    Ok(structures)
}

/// Configuration space in sysfs, one register at a time: each is an exit to the host, so that all of it would take seconds. What is missing
/// reads zero: Linux shows the first 256 bytes of a function without more.
struct Registers<F>(F);

impl<F: FileExt> ConfigSpace for Registers<F> {
    fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
        let mut bytes = [0; 4];
        let wanted = bytes.get_mut(..width.bytes()).unwrap_or_default();
        self.0.read_at(wanted, offset.into()).map_err(Error::io("configuration space"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write(&mut self, offset: u16, _: Width, _: u32) -> Result<()> {
        Err(Error::Usage(format!("register {offset:#x} is only looked at")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in memory.
    struct Bytes(Vec<u8>);

    impl FileExt for Bytes {
        fn read_at(&self, room: &mut [u8], offset: u64) -> std::io::Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<usize> {
            panic!("it is only looked at")
        }
    }

    /// A virtio function with MSI-X at 0x40 and two structures.
    fn config() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[0xf4, 0x1a, 0x42, 0x10, 6, 0, 0x10, 0, 1, 0, 0, 1]);
        put(0x2c, &[0xf4, 0x1a, 0x42, 0x11]);
        put(0x34, &[0x40]);
        put(0x40, &[CAP_MSIX, 0x50, 1, 0, 4, 0, 0, 0, 4, 0x10, 0, 0]);
        put(0x50, &[CAP_VENDOR, 0x60, 16, 1, 0, 0, 0, 0, 0, 0x80, 0, 0, 0x3c, 0, 0, 0]);
        put(0x60, &[CAP_VENDOR, 0x78, 20, 2, 0, 0, 0, 0, 0, 0xC0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0]);
        put(0x78, &[CAP_VENDOR, 0, 20, 5, 0xFF]);
        bytes
    }

    const RESOURCES: &str = "0xfe800000 0xfe80ffff 0x40200\n0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n\
        0xfe810000 0xfe813fff 0x40200\n0x0 0x0 0x0\n0x0 0x0 0x0\n";

    #[test]
    fn structures_are_found_where_capabilities_say() {
        let view = View::read(&mut Registers(Bytes(config())), RESOURCES).unwrap();
        assert_eq!(view.bars, [(0, 0x1_0000), (4, 0x4000)]);
        assert_eq!((view.bar(4), view.bar(1)), (Some(0x4000), None));
        assert_eq!(view.name.to_string(), "Vendor=1af4:Device=1042:CC=010000:REV=01:SSVID=1af4:SSID=1142");
        let [table, pba] = view.msix.unwrap();
        assert_eq!((table.bar, table.offset, table.size), (4, 0, 32));
        assert_eq!((pba.bar, pba.offset, pba.size), (4, 0x1000, 8));
        let places: Vec<_> = view.virtio.iter().map(|s| (s.bar, s.offset, s.size)).collect();
        assert_eq!(places, [(0, 0x8000, 0x3c), (0, 0xC000, 8)]);
    }

    #[test]
    fn a_function_cut_short_or_gone_is_an_error_and_no_panic() {
        let whole = config();
        for length in 0..whole.len() {
            let _ = View::read(&mut Registers(Bytes(whole[..length].to_vec())), RESOURCES);
        }
        assert!(matches!(
            View::read(&mut Registers(Bytes(vec![0xFF; 256])), RESOURCES),
            Err(Error::NoDevice(_))
        ));
        let missing = View::of(Path::new("/nowhere"), "0000:01:00.0".parse().unwrap());
        assert!(matches!(missing, Err(Error::NoDevice(_))));
    }

    #[test]
    fn resources_that_are_none_are_told() {
        for text in ["0x0", "x y z", "0x10 0x1 0x200", "0x0 0x2fff 0x200", "0x0 0xffffffffffffffff 0x200"] {
            assert!(matches!(bars(text), Err(Error::Protocol(_))), "{text}");
        }
        assert_eq!(bars("0x0 0xff 0x100").unwrap(), []);
    }
}
