//! One command: parse it, do it, answer it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tdispd_proto::vfio_user::{
    Capabilities, Command, DecodeError, DeviceInfo, DmaMap, Header, IrqInfo, IrqKind, IrqSet, MAJOR,
    MAX_DATA_XFER_SIZE, MINOR, RegionAccess, RegionInfo, RegionInfoReply, RegionIoFds, Request, Version,
    WriteMulti, abi,
};
use zerocopy::IntoBytes;

use super::connection::Progress;
use super::device::{Device, Errno, Mmap, Region};
use super::dma::DmaTable;
use super::input::Fds;
use super::irqs::Irqs;
use super::output::Output;

/// What the client said of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiated {
    /// Most data it takes in one message, in bytes.
    pub(super) data: u32,
    /// Whether a message to it may carry a descriptor; none of ours carries two.
    pub(super) descriptors: bool,
}

/// What a command may touch.
pub(super) struct Handler<'a> {
    pub(super) negotiated: &'a mut Option<Negotiated>,
    pub(super) out: &'a mut Output,
    pub(super) dma: &'a mut Arc<DmaTable>,
    pub(super) irqs: &'a mut Irqs,
    pub(super) device: &'a mut dyn Device,
}

impl Handler<'_> {
    /// Every command ends here with one reply, an error or not, or with none if the client wants none.
    pub(super) fn handle(&mut self, header: &Header, payload: &[u8], fds: Fds) -> Progress {
        let mark = self.out.mark();
        let negotiated = self.negotiated.is_some();
        let result = if negotiated == (header.command != Command::VERSION) {
            Request::parse(header.command, payload)
                .map_err(errno)
                .and_then(|request| self.execute(header, payload, request, fds))
        } else {
            Err(Errno::INVAL)
        };
        if header.no_reply() {
            self.out.rewind(mark);
        } else if let Err(errno) = result {
            self.out.error(header, errno);
        }
        // A client that could not even negotiate will not do better.
        if self.negotiated.is_some() { Progress::Handled } else { Progress::Close }
    }

    fn execute(
        &mut self,
        header: &Header,
        payload: &[u8],
        request: Request<'_>,
        fds: Fds,
    ) -> Result<(), Errno> {
        match request {
            Request::RegionRead(access) => return self.region_read(header, access),
            Request::RegionWrite(access, data) => {
                self.region_write(access, data)?;
                self.out.reply(header, &[access.as_bytes()]);
            }
            Request::RegionWriteMulti(writes) => self.write_multi(header, writes)?,
            Request::Version(proposal) => self.version(header, &proposal)?,
            Request::DmaMap(map) => {
                self.dma_map(&map, fds)?;
                self.out.reply(header, &[]);
            }
            Request::DmaUnmap(unmap) => {
                Arc::make_mut(self.dma).unmap(unmap)?;
                self.out.reply(header, &[payload]);
            }
            Request::DeviceInfo => self.device_info(header),
            Request::RegionInfo { argsz, index } => self.region_info(header, argsz, index)?,
            Request::RegionIoFds { index } => self.region_io_fds(header, index)?,
            Request::IrqInfo { index } => self.irq_info(header, index)?,
            Request::SetIrqs(set) => {
                self.set_irqs(&set, fds)?;
                self.out.reply(header, &[]);
            }
            Request::Reset => {
                self.device.reset();
                self.out.reply(header, &[]);
            }
            Request::Feature(feature) => self.feature(header, payload, &feature)?,
        }
        Ok(())
    }

    fn version(&mut self, header: &Header, proposal: &Version) -> Result<(), Errno> {
        if proposal.major != MAJOR {
            return Err(Errno::INVAL);
        }
        let theirs = proposal.capabilities.max_data_xfer_size.unwrap_or(u64::from(MAX_DATA_XFER_SIZE));
        *self.negotiated = Some(Negotiated {
            data: u32::try_from(theirs).unwrap_or(u32::MAX).min(MAX_DATA_XFER_SIZE),
            descriptors: proposal.capabilities.max_msg_fds != Some(0),
        });
        let capabilities = Capabilities::answer(&proposal.capabilities);
        // No client can propose a lower minor.
        let answer = Version { major: MAJOR, minor: MINOR, capabilities };
        self.out.reply(header, &[&answer.encode()]);
        self.device.client_connected();
        Ok(())
    }

    /// Whether the client takes a descriptor with a reply.
    pub(super) fn takes_descriptors(&self) -> bool {
        self.negotiated.is_some_and(|client| client.descriptors)
    }

    fn dma_map(&mut self, map: &DmaMap, fds: Fds) -> Result<(), Errno> {
        if fds.truncated || fds.fds.len() > 1 {
            return Err(Errno::INVAL);
        }
        Arc::make_mut(self.dma).map(map, fds.fds.into_iter().next())
    }

    fn device_info(&mut self, header: &Header) {
        let regions = u32::try_from(self.device.regions().len()).unwrap_or(u32::MAX);
        let info = DeviceInfo {
            argsz: (size_of::<DeviceInfo>() as u32).into(),
            flags: (abi::VFIO_DEVICE_FLAGS_PCI | abi::VFIO_DEVICE_FLAGS_RESET).into(),
            num_regions: regions.into(),
            num_irqs: (IrqKind::ALL.len() as u32).into(),
        };
        self.out.reply(header, &[info.as_bytes()]);
    }

    fn region_info(&mut self, header: &Header, room: u32, index: u32) -> Result<(), Errno> {
        let region = self.region(index)?.clone();
        // What cannot be handed over cannot be mapped.
        let mmap = if self.takes_descriptors() { self.device.mapping(index) } else { None };
        let mut flags = 0;
        for (set, flag) in [
            (region.readable, abi::VFIO_REGION_INFO_FLAG_READ),
            (region.writable, abi::VFIO_REGION_INFO_FLAG_WRITE),
            (mmap.is_some(), abi::VFIO_REGION_INFO_FLAG_MMAP),
        ] {
            if set {
                flags |= flag;
            }
        }
        let info = RegionInfo {
            flags: flags.into(),
            index: index.into(),
            size: region.size.into(),
            offset: mmap.as_ref().map_or(0, |mmap| mmap.offset).into(),
            ..RegionInfo::default()
        };
        match mmap {
            Some(Mmap { file, areas, .. }) => {
                let payload = RegionInfoReply { info, kind: region.kind, areas }.encode(room);
                self.out.reply_with_fd(header, &payload, file);
            }
            None => {
                let payload = RegionInfoReply { info, kind: region.kind, areas: Vec::new() }.encode(room);
                self.out.reply(header, &[&payload]);
            }
        }
        Ok(())
    }

    /// No part of a region has a descriptor of its own: the list is empty, and EINVAL for a region that does not exist.
    fn region_io_fds(&mut self, header: &Header, index: u32) -> Result<(), Errno> {
        if self.region(index)?.size == 0 {
            return Err(Errno::INVAL);
        }
        let argsz = size_of::<RegionIoFds>() as u32;
        let none = RegionIoFds { argsz: argsz.into(), index: index.into(), ..RegionIoFds::default() };
        self.out.reply(header, &[none.as_bytes()]);
        Ok(())
    }

    fn irq_info(&mut self, header: &Header, index: u32) -> Result<(), Errno> {
        let kind = IrqKind::from_index(index).ok_or(Errno::INVAL)?;
        // NORESIZE is left out on purpose: vectors may be armed one by one, and QEMU then does not re-arm all of them for each new one.
        let flags = abi::VFIO_IRQ_INFO_EVENTFD
            | match kind {
                IrqKind::Intx => abi::VFIO_IRQ_INFO_MASKABLE | abi::VFIO_IRQ_INFO_AUTOMASKED,
                // As the kernel has it, although vectors can be masked here.
                IrqKind::Msi | IrqKind::Msix | IrqKind::Err | IrqKind::Req => 0,
            };
        let info = IrqInfo {
            argsz: (size_of::<IrqInfo>() as u32).into(),
            flags: flags.into(),
            index: index.into(),
            count: self.device.irq_count(kind).into(),
        };
        self.out.reply(header, &[info.as_bytes()]);
        Ok(())
    }

    fn set_irqs(&mut self, set: &IrqSet<'_>, fds: Fds) -> Result<(), Errno> {
        if fds.truncated {
            return Err(Errno::INVAL);
        }
        let fds: Vec<OwnedFd> = fds.fds;
        self.irqs.set(set, self.device.irq_count(set.kind), fds)
    }

    fn region_read(&mut self, header: &Header, access: RegionAccess) -> Result<(), Errno> {
        let region = self.region(access.region.get())?;
        inside(region, access, region.readable)?;
        let device = &mut *self.device;
        self.out.reply_filled(header, access.as_bytes(), access.count.get() as usize, |data| {
            if data.is_empty() {
                return Ok(());
            }
            device.region_read(access.region.get(), access.offset.get(), data)
        })
    }

    fn region_write(&mut self, access: RegionAccess, data: &[u8]) -> Result<(), Errno> {
        let region = self.region(access.region.get())?;
        inside(region, access, region.writable)?;
        if data.is_empty() {
            return Ok(());
        }
        self.device.region_write(access.region.get(), access.offset.get(), data)
    }

    /// The writes take effect in order up to the first that fails; its errno is the answer.
    fn write_multi(&mut self, header: &Header, writes: WriteMulti<'_>) -> Result<(), Errno> {
        for entry in writes.entries {
            self.region_write(entry.access, entry.data())?;
        }
        self.out.reply(header, &[&(writes.entries.len() as u64).to_le_bytes()]);
        Ok(())
    }

    fn region(&self, index: u32) -> Result<&Region, Errno> {
        usize::try_from(index).ok().and_then(|index| self.device.regions().get(index)).ok_or(Errno::INVAL)
    }
}

fn inside(region: &Region, access: RegionAccess, allowed: bool) -> Result<(), Errno> {
    let end = access.offset.get().checked_add(u64::from(access.count.get()));
    if allowed && end.is_some_and(|end| end <= region.size) { Ok(()) } else { Err(Errno::INVAL) }
}

fn errno(error: DecodeError) -> Errno {
    match error {
        DecodeError::Unsupported => Errno::NOTSUP,
        DecodeError::Command
        | DecodeError::Length
        | DecodeError::Argsz
        | DecodeError::Flags
        | DecodeError::Range
        | DecodeError::Index
        | DecodeError::Count
        | DecodeError::VersionData
        | DecodeError::CapabilityChain => Errno::INVAL,
    }
}
