//! Pages for DMA, where only their physical address will do.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::transport::{HostMemory, PAGE};

/// Locked pages whose physical addresses the kernel tells root.
#[derive(Debug)]
pub(super) struct PhysicalPages {
    mapping: Mapping,
    pagemap: File,
    pages: usize,
}

impl PhysicalPages {
    /// Allocates and locks pages.
    pub(super) fn new(pages: usize) -> Result<Self> {
        let pagemap = File::open("/proc/self/pagemap").map_err(Error::io("/proc/self/pagemap"))?;
        let mapping = Mapping::anonymous(pages * PAGE)?;
        Ok(Self { mapping, pagemap, pages })
    }

    fn offset(&self, page: usize, length: usize) -> Result<u64> {
        if page < self.pages && length <= PAGE {
            Ok((page * PAGE) as u64)
        } else {
            Err(Error::Usage(format!("DMA memory has no {length} bytes in page {page}")))
        }
    }
}

impl HostMemory for PhysicalPages {
    fn pages(&self) -> usize {
        self.pages
    }

    /// The frame number from the kernel's pagemap (Documentation/admin-guide/mm/pagemap.rst).
    fn address(&mut self, page: usize) -> Result<u64> {
        const PRESENT: u64 = 1 << 63;
        const FRAME: u64 = (1 << 55) - 1;
        let offset = self.offset(page, 0)?;
        let mut entry = [0; 8];
        let at = (self.mapping.address() + offset) / PAGE as u64 * 8;
        self.pagemap.read_exact_at(&mut entry, at).map_err(Error::io("/proc/self/pagemap"))?;
        let entry = u64::from_ne_bytes(entry);
        match entry & FRAME {
            frame if entry & PRESENT != 0 && frame != 0 => Ok(frame * PAGE as u64),
            _ => Err(Error::NoDevice(
                "the kernel hides physical addresses: root (CAP_SYS_ADMIN) is needed".into(),
            )),
        }
    }

    fn read(&mut self, page: usize, data: &mut [u8]) -> Result<()> {
        self.mapping.read(self.offset(page, data.len())?, data)
    }

    fn write(&mut self, page: usize, data: &[u8]) -> Result<()> {
        self.mapping.write(self.offset(page, data.len())?, data)
    }
}
