//! A disk: what is behind it, what it looks like, and what its driver chose.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use virtio_bindings::virtio_blk as abi;
use zerocopy::IntoBytes;

use crate::backing::Backing;
use crate::config::{CONFIG_SIZE, Config, Geometry, GeometryError};

/// One block device, shared by all of its queues.
#[derive(Debug)]
pub struct Disk {
    backing: Backing,
    geometry: Geometry,
    /// Device-type features that the driver accepted.
    features: AtomicU64,
    /// The `writeback` field, which counts if CONFIG_WCE was accepted.
    writeback: AtomicBool,
    /// What is shown as the disk's size in bytes: whole blocks.
    bytes: AtomicU64,
}

impl Disk {
    /// A disk of whole blocks; what is left of the backing behind the last one is not shown.
    ///
    /// # Errors
    /// A geometry that makes no sense.
    pub fn new(backing: Backing, geometry: Geometry) -> Result<Self, GeometryError> {
        geometry.check()?;
        let bytes = whole_blocks(backing.size(), &geometry);
        Ok(Self {
            backing,
            geometry,
            features: AtomicU64::new(0),
            writeback: AtomicBool::new(true),
            bytes: AtomicU64::new(bytes),
        })
    }

    /// What is behind the disk.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// What is fixed about the disk.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Size in bytes, whole blocks.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Looks whether the file behind the disk has another size now. True: configuration space changed, which the driver has
    /// to hear of (virtio 1.2 §4.1.5.4 for PCI). Requests are held to the new size at once.
    ///
    /// # Errors
    /// The file's state cannot be read; the size stays.
    pub fn refresh(&self) -> io::Result<bool> {
        let bytes = whole_blocks(self.backing.refresh()?, &self.geometry);
        Ok(self.bytes.swap(bytes, Ordering::Relaxed) != bytes)
    }

    /// Device-type feature bits to offer (virtio 1.2 §5.2.3). The transport adds its own.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.geometry.features(self.backing.read_only())
    }

    /// What the driver accepted. Bits that were not offered do not count.
    pub fn negotiate(&self, accepted: u64) {
        self.features.store(accepted & self.features(), Ordering::Relaxed);
    }

    /// As after a reset of the device: nothing negotiated, write-back (virtio 1.2 §5.2.5).
    pub fn reset(&self) {
        self.features.store(0, Ordering::Relaxed);
        self.writeback.store(true, Ordering::Relaxed);
    }

    /// Whether the driver accepted this feature bit, by number.
    #[must_use]
    pub fn negotiated(&self, bit: u32) -> bool {
        self.features.load(Ordering::Relaxed).checked_shr(bit).unwrap_or(0) & 1 == 1
    }

    /// Whether each write has to be stable when it is completed: a driver without FLUSH cannot say when, and one with
    /// CONFIG_WCE may say that it always is (virtio 1.2 §5.2.6.2).
    #[must_use]
    pub fn write_through(&self) -> bool {
        if self.negotiated(abi::VIRTIO_BLK_F_CONFIG_WCE) {
            !self.writeback.load(Ordering::Relaxed)
        } else {
            !self.negotiated(abi::VIRTIO_BLK_F_FLUSH)
        }
    }

    /// Configuration space as it is now.
    #[must_use]
    pub fn config(&self) -> Config {
        // Without CONFIG_WCE the field says what FLUSH decided.
        let writeback = if self.negotiated(abi::VIRTIO_BLK_F_CONFIG_WCE) {
            self.writeback.load(Ordering::Relaxed)
        } else {
            self.features.load(Ordering::Relaxed) == 0 || !self.write_through()
        };
        self.geometry.config(self.size(), writeback)
    }

    /// Reads configuration space; zeroes beyond its end.
    pub fn read_config(&self, offset: usize, out: &mut [u8]) {
        let config = self.config();
        let bytes = config.as_bytes().get(offset..).unwrap_or_default();
        out.fill(0);
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Writes configuration space, of which only `writeback` can be written, and only with CONFIG_WCE (virtio 1.2 §5.2.5).
    /// Other bytes are ignored. Going over to write-through makes what was written before stable, too.
    ///
    /// # Errors
    /// The flush failed; the disk is in write-through mode all the same.
    pub fn write_config(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        const WRITEBACK: usize = std::mem::offset_of!(Config, writeback);
        const _: () = assert!(WRITEBACK < CONFIG_SIZE);
        let Some(value) = WRITEBACK.checked_sub(offset).and_then(|at| data.get(at)) else { return Ok(()) };
        if !self.negotiated(abi::VIRTIO_BLK_F_CONFIG_WCE) {
            return Ok(());
        }
        let writeback = value & 1 == 1;
        if self.writeback.swap(writeback, Ordering::Relaxed) && !writeback {
            return self.backing.flush();
        }
        Ok(())
    }
}

fn whole_blocks(bytes: u64, geometry: &Geometry) -> u64 {
    let block = u64::from(geometry.block_size);
    bytes.checked_div(block).unwrap_or(0).saturating_mul(block)
}
