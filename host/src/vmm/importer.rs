//! An import of a dma-buf by QEMU's edu device, a peer of the device (`tests/vfio-export/importer/edu_dmabuf.h`).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::vfio::errno;

/// The module's device.
const DEVICE: &str = "/dev/edu-dmabuf";

/// `struct edu_dmabuf_state`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Bus address of the first segment; 0 while nothing is mapped.
    pub address: u64,
    /// Bytes mapped.
    pub length: u64,
    /// Segments that are contiguous on the bus.
    pub segments: u32,
    /// How often the exporter has taken the mapping back.
    pub invalidations: u32,
}

mod ioctl {
    nix::ioctl_write_ptr!(
        /// `EDU_DMABUF_ATTACH`
        attach,
        0xed,
        0,
        i32
    );
    nix::ioctl_none!(
        /// `EDU_DMABUF_MAP`
        map,
        0xed,
        1
    );
    nix::ioctl_none!(
        /// `EDU_DMABUF_UNMAP`
        unmap,
        0xed,
        2
    );
    nix::ioctl_read!(
        /// `EDU_DMABUF_STATE`
        state,
        0xed,
        3,
        super::State
    );
}

/// One import. Dropping it unmaps and detaches the buffer.
#[derive(Debug)]
pub struct Import(File);

impl Import {
    /// Has the device attach a buffer.
    pub fn attach(dmabuf: BorrowedFd<'_>) -> Result<Self, Errno> {
        let file = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(errno)?;
        let number = dmabuf.as_raw_fd();
        // SAFETY: the kernel reads one int, the buffer's descriptor, which is open while it is borrowed.
        #[allow(unsafe_code)]
        unsafe { ioctl::attach(file.as_raw_fd(), &raw const number) }?;
        Ok(Self(file))
    }

    /// Maps the buffer for the device.
    pub fn map(&self) -> Result<(), Errno> {
        // SAFETY: it takes no argument.
        #[allow(unsafe_code)]
        unsafe { ioctl::map(self.0.as_raw_fd()) }.map(drop)
    }

    /// Takes the mapping away; none is fine, too.
    pub fn unmap(&self) -> Result<(), Errno> {
        // SAFETY: it takes no argument.
        #[allow(unsafe_code)]
        unsafe { ioctl::unmap(self.0.as_raw_fd()) }.map(drop)
    }

    /// What has become of it.
    pub fn state(&self) -> Result<State, Errno> {
        let mut state = State::default();
        // SAFETY: the kernel writes one `struct edu_dmabuf_state`, which this is, and which outlives the call.
        #[allow(unsafe_code)]
        unsafe { ioctl::state(self.0.as_raw_fd(), &raw mut state) }?;
        Ok(state)
    }

    /// Has the device read the buffer.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.0.read_exact_at(bytes, offset).map_err(errno)
    }

    /// Has the device write the buffer.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(bytes, offset).map_err(errno)
    }
}
