//! Memory of a BAR, and everywhere it is mapped: in this process, in the VM, for a peer. All of it goes with it.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use rustix::fs::OFlags;

use super::importer::Import;
use super::kvm::{Machine, Slot};
use super::layout::{Piece, Window};
use super::vfio::{Device, OpenError, Range};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::pci::{Bdf, COMMAND, COMMAND_MASTER, COMMAND_MEMORY};

/// vfio's region of configuration space (`VFIO_PCI_CONFIG_REGION_INDEX`).
const CONFIG_SPACE: u32 = 7;

/// The device as vfio has it, and whoever maps its memory.
pub(super) struct Desk {
    device: Device,
    pub(super) machine: Machine,
    import: bool,
}

impl Desk {
    /// Opens the device, which resets it.
    pub(super) fn open(function: Bdf, import: bool) -> Result<Self> {
        let device = Device::open(&function.to_string()).map_err(|error| match error {
            OpenError::File { path, source } => {
                Error::Transport { what: format!("{} (is it vfio-pci's?)", path.display()), source }
            }
            OpenError::Kernel { what, errno } => kernel(what)(errno),
            OpenError::NotViable | OpenError::Address(_) => Error::NoDevice(error.to_string()),
        })?;
        device.probe().map_err(kernel("VFIO_DEVICE_FEATURE_DMA_BUF"))?;
        Ok(Self { device, machine: Machine::new()?, import })
    }

    /// Memory accesses and DMA, for which vfio leaves the switches to the guest.
    pub(super) fn enable(&self) -> Result<()> {
        let mut command = [0; 2];
        self.device.read(CONFIG_SPACE, COMMAND.into(), &mut command).map_err(kernel("Command"))?;
        let command = u32::from(u16::from_le_bytes(command)) | COMMAND_MEMORY | COMMAND_MASTER;
        let [low, high, _, _] = command.to_le_bytes();
        self.device.write(CONFIG_SPACE, COMMAND.into(), &[low, high]).map_err(kernel("Command"))
    }

    /// Maps a piece in this process, as a DMABUF and for the peer if there is one.
    pub(super) fn map(&self, window: &Window, piece: &Piece, tee: bool) -> Result<Mapped> {
        let bar = u32::from(window.bar);
        let start = window.start(piece, tee);
        let range = Range { offset: start, length: piece.size };
        let open_flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
        let dmabuf = self.device.export(bar, open_flags, 0, &[range]).map_err(kernel("a DMABUF"))?;
        let import = self.import.then(|| {
            let import = Import::attach(dmabuf.as_fd())?;
            import.map()?;
            Ok(import)
        });
        let import = import.transpose().map_err(kernel("the peer's import"))?;
        let region = self.device.region(bar).map_err(kernel("VFIO_DEVICE_GET_REGION_INFO"))?;
        if !region.mappable {
            return Err(Error::NoDevice(format!("vfio does not map BAR{bar}")));
        }
        let size = usize::try_from(piece.size).map_err(|_| Error::Usage(format!("BAR{bar} is too large")))?;
        let memory = Mapping::of_part(&self.device, region.start + start, size, true, "mapping a BAR")?;
        Ok(Mapped { slot: None, import, memory: Rc::new(memory), _dmabuf: dmabuf, piece: *piece })
    }
}

/// A mapped piece. Dropping it unmaps it everywhere.
pub(super) struct Mapped {
    // Dropped in this order: whoever uses memory goes before the memory.
    slot: Option<Slot>,
    import: Option<Import>,
    memory: Rc<Mapping>,
    _dmabuf: OwnedFd,
    pub(super) piece: Piece,
}

impl Mapped {
    /// Has the guest see it.
    pub(super) fn show(&mut self, machine: &Machine) -> Result<()> {
        self.slot = Some(machine.map(self.piece.gpa, self.piece.size, &self.memory, 0)?);
        Ok(())
    }

    /// Takes it from the guest, and nobody else.
    pub(super) fn hide(&mut self) -> Result<()> {
        self.slot.take().map_or(Ok(()), Slot::remove)
    }

    /// Whether this guest-physical address is in it.
    pub(super) fn has(&self, gpa: u64) -> bool {
        gpa.checked_sub(self.piece.gpa).is_some_and(|offset| offset < self.piece.size)
    }

    /// 32 bits at a guest-physical address, by this process's processor.
    pub(super) fn read(&self, gpa: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.memory.read(gpa.wrapping_sub(self.piece.gpa), &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The same, stored.
    pub(super) fn write(&self, gpa: u64, value: u32) -> Result<()> {
        self.memory.write(gpa.wrapping_sub(self.piece.gpa), &value.to_le_bytes())
    }

    /// 32 bits at a guest-physical address, by the peer's DMA.
    pub(super) fn peer_read(&self, gpa: u64) -> Result<u32> {
        let import = self.import.as_ref().ok_or_else(|| Error::NoDevice("there is no peer".into()))?;
        let mut bytes = [0; 4];
        let offset = gpa.wrapping_sub(self.piece.gpa);
        import.read(offset, &mut bytes).map_err(kernel("the peer's DMA"))?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn kernel(what: &str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::io(what)(errno.into())
}
