//! A device process's vfio-user socket, without QEMU: this side is VMM and firmware at once.
//!
//! It negotiates, maps a piece of memory for DMA, looks at the regions, places the BARs and switches decoding and bus
//! mastering on, as a machine would have by the time a guest sees the device.

mod connection;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use tdispd_proto::vfio_user::{
    Capabilities, Command, DeviceInfo, DmaBuf, DmaMap, DmaRange, Feature, FeatureFlags, MAJOR,
    MAX_DATA_XFER_SIZE, MAX_MSG_FDS, MINOR, RegionAccess, RegionInfo, RegionInfoReply, RegionType, Version,
    abi,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use self::connection::{Connection, Errno, Window};
use super::{BarAccess, HostMemory, ObjectExchange, PAGE, Transport, check_access, next_access};
use crate::error::{Error, Result};
use crate::pci::bars::{self, Bar};
use crate::pci::{Bdf, CONFIG_SIZE, ConfigSpace, Width};

/// Memory offered for DMA: enough for copies in several pages.
const MEMORY_PAGES: usize = 64;
/// Its DMA address: above the first MiB, as RAM would be.
const MEMORY_ADDRESS: u64 = 0x10_0000;
/// The region that is configuration space.
const CONFIG_REGION: u32 = abi::VFIO_PCI_CONFIG_REGION_INDEX;

/// A vfio-user device, its BARs placed.
#[derive(Debug)]
pub struct VfioUser {
    path: PathBuf,
    connection: Connection,
    bars: Vec<Bar>,
    region_sizes: [u64; 6],
}

impl VfioUser {
    /// Connects, and brings the device to where firmware would leave it.
    ///
    /// # Errors
    /// [`Error::Transport`] if nobody listens, [`Error::Protocol`] and [`Error::Refused`] for a device that does not
    /// behave as one.
    pub fn open(path: &Path, timeout: Duration) -> Result<Self> {
        let what = || format!("connecting to {}", path.display());
        let stream = UnixStream::connect(path).map_err(Error::io(what()))?;
        let size = (MEMORY_PAGES * PAGE) as u64;
        let memory = rustix::fs::memfd_create("tdispctl", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map(File::from)
            .map_err(|e| Error::io("memory for DMA")(e.into()))?;
        memory.set_len(size).map_err(Error::io("memory for DMA"))?;
        // A device may map what nobody can cut off under it.
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK)
            .map_err(|e| Error::io("memory for DMA")(e.into()))?;
        let window = Window { file: memory, address: MEMORY_ADDRESS, size };
        let mut device = Self {
            path: path.into(),
            connection: Connection::new(stream, window, timeout),
            bars: Vec::new(),
            region_sizes: [0; 6],
        };
        device.negotiate()?;
        device.map_memory()?;
        device.look_at_regions()?;
        device.play_firmware()?;
        Ok(device)
    }

    fn negotiate(&mut self) -> Result<()> {
        let capabilities = Capabilities {
            max_msg_fds: Some(MAX_MSG_FDS as u64),
            max_data_xfer_size: Some(u64::from(MAX_DATA_XFER_SIZE)),
            pgsizes: Some(PAGE as u64),
            ..Capabilities::default()
        };
        let proposal = Version { major: MAJOR, minor: MINOR, capabilities }.encode();
        let reply = self.connection.demand(Command::VERSION, &[&proposal], false)?;
        let version = Version::parse(&reply).map_err(|e| malformed("VERSION", e))?;
        if (version.major, version.minor) == (MAJOR, MINOR) {
            Ok(())
        } else {
            Err(Error::Protocol(format!("the device speaks vfio-user {}.{}", version.major, version.minor)))
        }
    }

    fn map_memory(&mut self) -> Result<()> {
        let window = self.connection.window();
        let map =
            DmaMap { readable: true, writable: true, offset: 0, address: window.address, size: window.size };
        self.connection.demand(Command::DMA_MAP, &[&map.encode()], true).map(|_| ())
    }

    fn look_at_regions(&mut self) -> Result<()> {
        let argsz = U32::new(size_of::<DeviceInfo>() as u32);
        let request = DeviceInfo { argsz, ..DeviceInfo::default() };
        let reply = self.connection.demand(Command::DEVICE_GET_INFO, &[request.as_bytes()], false)?;
        let info = DeviceInfo::parse_reply(&reply).map_err(|e| malformed("DEVICE_GET_INFO", e))?;
        if info.num_regions.get() <= CONFIG_REGION {
            return Err(Error::Protocol(format!("the device has only {} regions", info.num_regions)));
        }
        for index in [0, 1, 2, 3, 4, 5, CONFIG_REGION] {
            let size = self.region_info(index, size_of::<RegionInfo>() as u32)?.info.size.get();
            if let Some(slot) = usize::try_from(index).ok().and_then(|i| self.region_sizes.get_mut(i)) {
                *slot = size;
            } else if size < u64::from(CONFIG_SIZE) {
                return Err(Error::Protocol(format!("configuration space has {size:#x} bytes")));
            }
        }
        Ok(())
    }

    fn region_info(&mut self, index: u32, argsz: u32) -> Result<RegionInfoReply> {
        let request = RegionInfo { argsz: argsz.into(), index: index.into(), ..RegionInfo::default() };
        let reply = self.connection.demand(Command::DEVICE_GET_REGION_INFO, &[request.as_bytes()], false)?;
        RegionInfoReply::parse(&reply).map_err(|e| malformed("DEVICE_GET_REGION_INFO", e))
    }

    /// All of the memory that the device may use, as a file, and its DMA address.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn dma_memory(&self) -> Result<(File, u64)> {
        let window = self.connection.window();
        Ok((window.file.try_clone().map_err(Error::io("memory for DMA"))?, window.address))
    }

    /// What a region says of itself: `None` for those that every PCI device has.
    ///
    /// # Errors
    /// [`Error::Refused`] for a region that the device does not have, and as for [`Self::open`].
    pub fn region_type(&mut self, region: u32) -> Result<Option<RegionType>> {
        let short = self.region_info(region, size_of::<RegionInfo>() as u32)?;
        // Its capabilities did not fit; their size is known now.
        Ok(self.region_info(region, short.info.argsz.get())?.kind)
    }

    /// A descriptor, for reading and writing, of ranges of a BAR or of a BAR's window: each (offset, length) in bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] with the errno that vfio-pci would have, and as for [`Self::open`].
    pub fn dma_buf(&mut self, region: u32, ranges: &[(u64, u64)]) -> Result<OwnedFd> {
        let ranges: Vec<_> = ranges.iter().map(|&(offset, length)| DmaRange::new(offset, length)).collect();
        let open_flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
        let data = DmaBuf { region, open_flags, flags: 0, ranges: &ranges }.encode();
        let request = Feature::new(FeatureFlags::get(DmaBuf::INDEX), &data);
        let reply = self.connection.demand_reply(Command::DEVICE_FEATURE, &[&request.encode()], false)?;
        if Feature::parse(&reply.payload).map_err(|e| malformed("DEVICE_FEATURE", e))? != request {
            return Err(Error::Protocol("DEVICE_FEATURE: the reply answers another request".into()));
        }
        let [fd] = <[OwnedFd; 1]>::try_from(reply.fds)
            .map_err(|fds| Error::Protocol(format!("DMA_BUF came with {} descriptors", fds.len())))?;
        Ok(fd)
    }

    fn play_firmware(&mut self) -> Result<()> {
        let mut found = bars::size(self)?;
        for bar in &found {
            let region = self.region_sizes.get(usize::from(bar.index)).copied().unwrap_or(0);
            if region != bar.size {
                return Err(Error::Protocol(format!(
                    "BAR{} decodes {:#x} bytes, its region has {region:#x}",
                    bar.index, bar.size
                )));
            }
        }
        bars::assign(self, &mut found)?;
        bars::enable(self)?;
        self.bars = found;
        Ok(())
    }

    /// Reads from a region; a refused read is all ones, as on a bus.
    pub fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let request = RegionAccess::new(region, offset, count);
        match self.connection.request(Command::REGION_READ, &[request.as_bytes()], false)? {
            Ok(reply) => {
                let (access, bytes) =
                    RegionAccess::parse_with_data(&reply).map_err(|e| malformed("REGION_READ", e))?;
                if access.region.get() != region || access.offset.get() != offset || bytes.len() != data.len()
                {
                    return Err(Error::Protocol("REGION_READ: the reply answers another access".into()));
                }
                data.copy_from_slice(bytes);
            }
            Err(Errno(errno)) => {
                log::debug!("REGION_READ {region} {offset:#x}: errno {errno}");
                data.fill(0xff);
            }
        }
        Ok(())
    }

    /// Writes to a region; a refused write is lost, as on a bus.
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let request = RegionAccess::new(region, offset, count);
        if let Err(Errno(errno)) =
            self.connection.request(Command::REGION_WRITE, &[request.as_bytes(), data], false)?
        {
            log::debug!("REGION_WRITE {region} {offset:#x}: errno {errno}");
        }
        Ok(())
    }
}

fn malformed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Protocol(format!("vfio-user {what} reply: {error}"))
}

impl ConfigSpace for VfioUser {
    fn read(&mut self, offset: u16, width: Width) -> Result<u32> {
        let mut value = [0; 4];
        let (bytes, _) = value.split_at_mut(width.bytes());
        self.region_read(CONFIG_REGION, offset.into(), bytes)?;
        Ok(u32::from_le_bytes(value))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<()> {
        let value = value.to_le_bytes();
        let (bytes, _) = value.split_at(width.bytes());
        self.region_write(CONFIG_REGION, offset.into(), bytes)
    }
}

impl BarAccess for VfioUser {
    fn read(&mut self, bar: u8, mut offset: u64, mut data: &mut [u8]) -> Result<()> {
        check_access(&self.bars, bar, offset, data.len())?;
        while !data.is_empty() {
            let (now, rest) = data.split_at_mut(next_access(offset, data.len()));
            self.region_read(bar.into(), offset, now)?;
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    fn write(&mut self, bar: u8, mut offset: u64, mut data: &[u8]) -> Result<()> {
        check_access(&self.bars, bar, offset, data.len())?;
        while !data.is_empty() {
            let (now, rest) = data.split_at(next_access(offset, data.len()));
            self.region_write(bar.into(), offset, now)?;
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }
}

impl Transport for VfioUser {
    fn describe(&self) -> String {
        format!("vfio-user {}", self.path.display())
    }

    fn address(&self) -> Option<Bdf> {
        None
    }

    fn port_above(&self) -> Option<Bdf> {
        None
    }

    fn is_bare(&self) -> bool {
        true
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
        let window = self.connection.window();
        let file = window.file.try_clone().map_err(|e| format!("memory for DMA: {e}"))?;
        Ok(Box::new(Memory { file, address: window.address }))
    }

    fn close(&mut self) {}
}

/// The mapped memory, page by page; its addresses are ours to choose and never move.
struct Memory {
    file: File,
    address: u64,
}

impl Memory {
    fn offset(page: usize, length: usize) -> Result<u64> {
        if page < MEMORY_PAGES && length <= PAGE {
            Ok((page * PAGE) as u64)
        } else {
            Err(Error::Usage(format!("DMA memory has no {length} bytes in page {page}")))
        }
    }
}

impl HostMemory for Memory {
    fn pages(&self) -> usize {
        MEMORY_PAGES
    }

    fn address(&mut self, page: usize) -> Result<u64> {
        Ok(self.address + Self::offset(page, 0)?)
    }

    fn read(&mut self, page: usize, data: &mut [u8]) -> Result<()> {
        let at = Self::offset(page, data.len())?;
        self.file.read_exact_at(data, at).map_err(Error::io("DMA memory"))
    }

    fn write(&mut self, page: usize, data: &[u8]) -> Result<()> {
        let at = Self::offset(page, data.len())?;
        self.file.write_all_at(data, at).map_err(Error::io("DMA memory"))
    }
}
