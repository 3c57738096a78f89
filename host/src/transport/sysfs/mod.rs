//! A PCI function through Linux's sysfs: configuration space, BARs, and memory for DMA. For root, usually in a guest.

mod pages;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use self::pages::PhysicalPages;
use super::{BarAccess, HostMemory, ObjectExchange, Transport, check_access};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::pci::bars::Bar;
use crate::pci::{Bdf, CONFIG_SIZE, ConfigSpace, Width, capabilities};

/// Where Linux shows PCI functions.
pub const DEVICES: &str = "/sys/bus/pci/devices";

/// `IORESOURCE_IO` and `IORESOURCE_MEM`, `_PREFETCH`, `_MEM_64` of a resource's flags (include/linux/ioport.h).
const RESOURCE_MEM: u64 = 0x200;
const RESOURCE_PREFETCH: u64 = 0x2000;
const RESOURCE_MEM_64: u64 = 0x10_0000;

/// A function in sysfs.
#[derive(Debug)]
pub struct Sysfs {
    address: Bdf,
    directory: PathBuf,
    config: File,
    bars: Vec<Bar>,
    mappings: BTreeMap<u8, Mapping>,
}

impl Sysfs {
    /// Opens a function under `devices`, usually [`DEVICES`].
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is none, [`Error::Transport`] without the right to it.
    pub fn open(devices: &Path, address: Bdf) -> Result<Self> {
        let directory = devices.join(address.to_string());
        if !directory.exists() {
            return Err(Error::NoDevice(format!("there is no PCI function {address}")));
        }
        let file = directory.join("config");
        let config = File::options()
            .read(true)
            .write(true)
            .open(&file)
            .map_err(Error::io(format!("{} (root is needed)", file.display())))?;
        let text = fs::read_to_string(directory.join("resource")).unwrap_or_default();
        Ok(Self { address, directory, config, bars: parse_resources(&text), mappings: BTreeMap::new() })
    }

    /// Opens the only function that has TEE-IO and a DOE mailbox.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is none or more than one; the message lists what was found.
    pub fn find(devices: &Path) -> Result<Self> {
        let mut found = Vec::new();
        let mut seen = 0;
        let entries =
            fs::read_dir(devices).map_err(|e| Error::NoDevice(format!("{}: {e}", devices.display())))?;
        for entry in entries.flatten() {
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse::<Bdf>().ok()) else {
                continue;
            };
            seen += 1;
            let Ok(mut device) = Self::open(devices, address) else { continue };
            match capabilities::read(&mut device) {
                Ok(inventory) if inventory.tee_io && !inventory.doe.is_empty() => found.push(address),
                Ok(_) => {}
                Err(e) => log::debug!("{address}: {e}"),
            }
        }
        found.sort();
        match found.as_slice() {
            [only] => Self::open(devices, *only),
            [] => Err(Error::NoDevice(format!(
                "none of {seen} PCI functions has TEE-IO and a DOE mailbox (is this root?); name a target with \
                 --device, --tcp or --vfio-user"
            ))),
            many => {
                let list: Vec<_> = many.iter().map(Bdf::to_string).collect();
                Err(Error::NoDevice(format!(
                    "several functions have TEE-IO: {}; choose with --device",
                    list.join(", ")
                )))
            }
        }
    }

    fn mapping(&mut self, bar: u8, offset: u64, length: usize) -> Result<&Mapping> {
        check_access(&self.bars, bar, offset, length)?;
        if !self.mappings.contains_key(&bar) {
            let size = self.bars.iter().find(|b| b.index == bar).map_or(0, |b| b.size);
            let size =
                usize::try_from(size).map_err(|_| Error::Usage(format!("BAR{bar} is too large to map")))?;
            let path = self.directory.join(format!("resource{bar}"));
            let file = File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(Error::io(path.display().to_string()))?;
            self.mappings.insert(bar, Mapping::of_file(&file, size, true, "mapping a BAR")?);
        }
        self.mappings.get(&bar).ok_or_else(|| Error::Usage(format!("there is no memory BAR{bar}")))
    }

    /// Why a physical address is not a DMA address here, if so.
    fn translation(&self) -> Option<String> {
        let group = self.directory.join("iommu_group");
        if !group.exists() {
            return None;
        }
        let kind = fs::read_to_string(group.join("type")).unwrap_or_default();
        match kind.trim() {
            "identity" => None,
            kind => Some(format!(
                "an IOMMU translates this device's addresses ({}/type is {kind:?}); boot with iommu=pt or write \
                 \"identity\" there",
                group.display()
            )),
        }
    }
}

/// The memory BARs of a sysfs `resource` file: start, end and flags, one line a BAR.
fn parse_resources(text: &str) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (index, line) in (0u8..6).zip(text.lines()) {
        let mut fields =
            line.split_whitespace().map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok());
        let (Some(Some(start)), Some(Some(end)), Some(Some(flags))) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let size = end.checked_sub(start).and_then(|last| last.checked_add(1)).filter(|size| *size > 1);
        if let Some(size) = size.filter(|_| flags & RESOURCE_MEM != 0) {
            bars.push(Bar {
                index,
                address: start,
                size,
                wide: flags & RESOURCE_MEM_64 != 0,
                prefetchable: flags & RESOURCE_PREFETCH != 0,
            });
        }
    }
    bars
}

impl ConfigSpace for Sysfs {
    fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
        let mut value = [0; 4];
        let (bytes, _) = value.split_at_mut(width.bytes());
        let n = self.config.read_at(bytes, offset.into()).map_err(Error::io("configuration space"))?;
        if n == bytes.len() {
            return Ok(u32::from_le_bytes(value));
        }
        if (0x40..CONFIG_SIZE).contains(&offset) {
            // The kernel shows the first 64 bytes to everybody, the rest to root, and 256 bytes of conventional functions.
            return Ok(u32::MAX);
        }
        Err(Error::Usage(format!("configuration space ends before {offset:#x}")))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()> {
        let value = value.to_le_bytes();
        let (bytes, _) = value.split_at(width.bytes());
        self.config.write_all_at(bytes, offset.into()).map_err(Error::io("configuration space"))
    }
}

impl BarAccess for Sysfs {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) -> Result<()> {
        self.mapping(bar, offset, data.len())?.read(offset, data)
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Result<()> {
        self.mapping(bar, offset, data.len())?.write(offset, data)
    }
}

impl Transport for Sysfs {
    fn describe(&self) -> String {
        format!("device {}", self.address)
    }

    fn address(&self) -> Option<Bdf> {
        Some(self.address)
    }

    fn port_above(&self) -> Option<Bdf> {
        let path = fs::canonicalize(&self.directory).ok()?;
        path.parent()?.file_name()?.to_str()?.parse().ok()
    }

    fn config(&mut self) -> Option<&mut dyn ConfigSpace> {
        Some(self)
    }

    fn memory_bars(&self) -> &[Bar] {
        &self.bars
    }

    fn bars(&mut self) -> Option<&mut dyn BarAccess> {
        Some(self)
    }

    fn objects(&mut self) -> Option<&mut dyn ObjectExchange> {
        None
    }

    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String> {
        if let Some(reason) = self.translation() {
            return Err(reason);
        }
        let mut pages = PhysicalPages::new(4).map_err(|e| e.to_string())?;
        // Asking once tells whether the kernel answers at all.
        pages.address(0).map_err(|e| e.to_string())?;
        Ok(Box::new(pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "\
0x00000000fe800000 0x00000000fe800fff 0x0000000000040200
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000008000000000 0x000000800000ffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000c000 0x000000000000c01f 0x0000000000040101
0x0000000000000000 0x0000000000000000 0x0000000000000000
";

    /// A sysfs of one or more functions with 4 KiB of configuration space each.
    fn tree(functions: &[(&str, bool)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("devices");
        fs::create_dir(&devices).unwrap();
        for (name, tee_io) in functions {
            let real = root.path().join("0000:00:02.0").join(name);
            fs::create_dir_all(&real).unwrap();
            let mut config = vec![0; 4096];
            let mut put = |at: usize, value: u32| config[at..at + 4].copy_from_slice(&value.to_le_bytes());
            put(0, 0x7d15_1234);
            put(4, 0x10_0000);
            put(0x34, 0x40);
            put(0x40, 0x10);
            put(0x44, u32::from(*tee_io) << 30);
            put(0x100, 0x0002_002e);
            fs::write(real.join("config"), config).unwrap();
            fs::write(real.join("resource"), RESOURCE).unwrap();
            let bar = File::create(real.join("resource2")).unwrap();
            bar.set_len(0x1_0000).unwrap();
            std::os::unix::fs::symlink(&real, devices.join(name)).unwrap();
        }
        root
    }

    #[test]
    fn memory_resources_become_bars() {
        let shape: Vec<_> = parse_resources(RESOURCE)
            .iter()
            .map(|b| (b.index, b.address, b.size, b.wide, b.prefetchable))
            .collect();
        assert_eq!(
            shape,
            [(0, 0xfe80_0000, 0x1000, false, false), (2, 0x80_0000_0000, 0x1_0000, true, true)]
        );
        assert_eq!(parse_resources("0x0 0xffffffffffffffff 0x200\nx y z\n\n"), []);
    }

    #[test]
    fn the_only_capable_function_is_found_and_used() {
        let root = tree(&[("0000:01:00.0", false), ("0000:02:00.0", true)]);
        let mut device = Sysfs::find(&root.path().join("devices")).unwrap();
        assert_eq!(device.describe(), "device 0000:02:00.0");
        assert_eq!(device.port_above().unwrap().to_string(), "0000:00:02.0");
        ConfigSpace::write(&mut device, 4, Width::Word, 6).unwrap();
        assert_eq!(ConfigSpace::read(&mut device, 4, Width::Dword).unwrap(), 0x0010_0006);
        assert_eq!(ConfigSpace::read(&mut device, 0xfff, Width::Dword).unwrap(), u32::MAX);
        BarAccess::write(&mut device, 2, 0x1001, &[1, 2, 3]).unwrap();
        let mut back = [0; 3];
        BarAccess::read(&mut device, 2, 0x1001, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3]);
        assert!(BarAccess::read(&mut device, 0, 0, &mut back).is_err(), "no resource0 file");
        assert!(BarAccess::read(&mut device, 2, 0xffff, &mut back).is_err());
    }

    #[test]
    fn none_or_several_are_named() {
        let root = tree(&[("0000:01:00.0", false)]);
        let none = Sysfs::find(&root.path().join("devices")).unwrap_err();
        assert!(matches!(&none, Error::NoDevice(text) if text.contains("none of 1")), "{none}");
        let root = tree(&[("0000:01:00.0", true), ("0000:02:00.0", true)]);
        let many = Sysfs::find(&root.path().join("devices")).unwrap_err();
        assert!(many.to_string().contains("0000:01:00.0, 0000:02:00.0"), "{many}");
        let missing = Sysfs::open(&root.path().join("devices"), "0000:09:00.0".parse().unwrap());
        assert!(matches!(missing, Err(Error::NoDevice(_))));
    }

    #[test]
    fn a_translating_iommu_is_told_from_a_transparent_one() {
        let root = tree(&[("0000:01:00.0", true)]);
        let device = Sysfs::find(&root.path().join("devices")).unwrap();
        assert_eq!(device.translation(), None);
        let group = device.directory.join("iommu_group");
        fs::create_dir(&group).unwrap();
        for (kind, translated) in [("identity\n", false), ("DMA-FQ\n", true), ("DMA\n", true), ("", true)] {
            fs::write(group.join("type"), kind).unwrap();
            assert_eq!(device.translation().is_some(), translated, "{kind}");
        }
    }
}
