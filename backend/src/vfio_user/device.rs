//! What a vfio-user server needs of the function behind it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use mmio::FileAccess;
pub use rustix::io::Errno;
use tdispd_proto::control::Process;
use tdispd_proto::vfio_user::{IrqKind, MmapArea, RegionType};

/// One region. Fixed while a client is connected: the protocol has no message to say that it changed.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// In bytes; zero for a region that does not exist.
    pub size: u64,
    /// Whether reads are allowed.
    pub readable: bool,
    /// Whether writes are allowed.
    pub writable: bool,
    /// What it is, if it is behind those of every PCI device.
    pub kind: Option<RegionType>,
}

impl Region {
    /// A readable and writable region whose every access is a message.
    #[must_use]
    pub fn trapped(size: u64) -> Self {
        Self { size, readable: true, writable: true, kind: None }
    }
}

/// The mappable part of a region.
#[derive(Clone, Debug)]
pub struct Mmap {
    /// The file to map; sent to the client with the answer about the region.
    pub file: Arc<OwnedFd>,
    /// Where the region begins in the file, in bytes.
    pub offset: u64,
    /// The areas that may be mapped, page-aligned; none means the whole region.
    pub areas: Vec<MmapArea>,
}

/// A PCI function, as the server calls it while it answers a message.
///
/// None of these may block. DMA and interrupts come after the reply: collect them and hand them to the
/// [`Server`](super::Server) once [`Server::on_ready`](super::Server::on_ready) has returned.
pub trait Device {
    /// All regions, by index (`VFIO_PCI_*_REGION_INDEX`): at least 9 for QEMU.
    fn regions(&self) -> &[Region];

    /// What a client may map of a region instead of sending messages, as things are when it asks.
    fn mapping(&mut self, region: u32) -> Option<Mmap> {
        let _ = region;
        None
    }

    /// How many interrupts of this type there are.
    fn irq_count(&self, kind: IrqKind) -> u32;

    /// Reads `data.len()` bytes; the range is inside a readable region. `data` is zeroed.
    ///
    /// # Errors
    /// The errno the client is to see. A guest then reads all ones.
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Writes `data`; the range is inside a writable region.
    ///
    /// # Errors
    /// The errno the client is to see, unless it asked for no reply.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno>;

    /// DEVICE_RESET.
    fn reset(&mut self);

    /// Whether parts of regions can be exported at all: the feature DMA_BUF.
    fn exports(&self) -> bool {
        false
    }

    /// Makes a descriptor for ranges of a BAR or of a BAR's window ([`WINDOW_REGION`](tdispd_proto::vfio_user::WINDOW_REGION)).
    ///
    /// Each range is (offset, length) in bytes: whole pages inside the region. There is at least one; they may overlap, and come in
    /// any order. The client has asked for a descriptor that is open for `access`.
    ///
    /// # Errors
    /// The errno the client is to see.
    fn export(&mut self, region: u32, ranges: &[(u64, u64)], access: FileAccess) -> Result<OwnedFd, Errno> {
        let _ = (region, ranges, access);
        Err(Errno::NOTTY)
    }

    /// Somebody has connected, and has not said anything yet: this process, if the kernel tells which.
    fn client_is(&mut self, process: Option<Process>) {
        let _ = process;
    }

    /// A client has negotiated a version.
    fn client_connected(&mut self) {}

    /// The client that had negotiated is gone, and with it its memory and its interrupts.
    fn client_disconnected(&mut self) {}
}
