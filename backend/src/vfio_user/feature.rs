//! DEVICE_FEATURE, with the checks of the kernel's VFIO_DEVICE_FEATURE in their order, and its errno values.
//!
//! The only feature is DMA_BUF. QEMU 11.1 does not ask a vfio-user device for it, and has no place for a descriptor in this
//! command's reply: it is for VMMs that do. What is quoted is Linux's `drivers/vfio/pci/vfio_pci_dmabuf.c` unless another
//! file is named.

use std::sync::Arc;

use rustix::fs::OFlags;
use tdispd_proto::vfio_user::{DmaBuf, Feature, FeatureFlags, Header, WINDOW_REGION, abi};

use super::device::{Errno, FileAccess, Region};
use super::handler::Handler;

/// Ranges are whole pages of this size: `PAGE_ALIGNED` on x86, and the `pgsizes` of our VERSION reply.
const PAGE: u64 = 4096;

/// What `vfio_check_feature` makes of a request.
enum Ask {
    /// Whether GET would work.
    Probe,
    /// The data.
    Get,
}

impl Handler<'_> {
    pub(super) fn feature(
        &mut self,
        header: &Header,
        payload: &[u8],
        request: &Feature<'_>,
    ) -> Result<(), Errno> {
        // `default: return -ENOTTY;` in `vfio_pci_core_ioctl_feature` (vfio_pci_core.c), and `return -ENOTTY;` for DMA_BUF in a kernel
        // without it (vfio_pci_priv.h). To a client that takes no descriptors we are such a kernel: a probe that succeeds
        // would promise a GET that cannot.
        if request.flags.index != DmaBuf::INDEX || !self.device.exports() || !self.takes_descriptors() {
            return Err(Errno::NOTTY);
        }
        match check_get(request.flags, request.room(), DmaBuf::FIXED)? {
            Ask::Probe => {
                self.out.reply(header, &[payload]);
                Ok(())
            }
            Ask::Get => self.dma_buf(header, request),
        }
    }

    fn dma_buf(&mut self, header: &Header, request: &Feature<'_>) -> Result<(), Errno> {
        // `copy_from_user` fails with EFAULT here. A message that lacks what it announces is malformed, which is EINVAL in any command.
        let wanted = DmaBuf::parse(request.data).map_err(|_| Errno::INVAL)?;
        let ranges = check_ranges(&wanted, self.device.regions())?;
        let data = wanted.encode();
        // The kernel has a return value for the descriptor and needs no room. Our reply does, and one cut short would
        // leave its client with a descriptor and the advice to ask again, so nothing has happened yet.
        if data.len() > request.room() {
            return Err(Errno::INVAL);
        }
        // Nobody would get it.
        if header.no_reply() {
            return Err(Errno::INVAL);
        }
        let fd = self.device.export(wanted.region, &ranges, access(wanted.open_flags))?;
        let reply = Feature::new(request.flags, &data).encode();
        self.out.reply_with_fd(header, &reply, Arc::new(fd));
        Ok(())
    }
}

/// `vfio_check_feature` (include/linux/vfio.h) for a feature that has GET and no SET, with at least `least` bytes of data.
fn check_get(flags: FeatureFlags, room: usize, least: usize) -> Result<Ask, Errno> {
    // `if ((flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET)) & ~supported_ops) return -EINVAL;`, probe or not.
    if flags.set {
        return Err(Errno::INVAL);
    }
    // `if (flags & VFIO_DEVICE_FEATURE_PROBE) return 0;`, whatever else the request has.
    if flags.probe {
        return Ok(Ask::Probe);
    }
    // `if (!(flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET))) return -EINVAL;` and `if (argsz < minsz) return -EINVAL;`
    if !flags.get || room < least {
        return Err(Errno::INVAL);
    }
    Ok(Ask::Get)
}

/// `vfio_pci_core_feature_dma_buf` between the copies from user space and the export. `open_flags` are not checked there either:
/// `dma_buf_getfile` and `get_unused_fd_flags` pick the bits they know.
fn check_ranges(wanted: &DmaBuf<'_>, regions: &[Region]) -> Result<Vec<(u64, u64)>, Errno> {
    // `if (!get_dma_buf.nr_ranges || get_dma_buf.flags) return -EINVAL;`
    if wanted.ranges.is_empty() || wanted.flags != 0 {
        return Err(Errno::INVAL);
    }
    // `if (get_dma_buf.region_index >= VFIO_PCI_ROM_REGION_INDEX) return -ENODEV;` The kernel has no windows. From 7.3 on a BAR that is
    // not mapped, as one that is not there, is answered alike, also before the ranges are looked at.
    let region = exportable(regions, wanted.region).filter(|region| region.size != 0).ok_or(Errno::NODEV)?;
    // `validate_dmabuf_input`, to its end before any range is compared with the region.
    let mut total = 0_u64;
    let mut ranges = Vec::with_capacity(wanted.ranges.len());
    for range in wanted.ranges {
        let (offset, length) = (range.offset.get(), range.length.get());
        // `if (!len || !PAGE_ALIGNED(offset) || !PAGE_ALIGNED(len)) return -EINVAL;`
        if length == 0 || !offset.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
            return Err(Errno::INVAL);
        }
        // `if (check_add_overflow(length, len, &length)) return -EINVAL;`
        total = total.checked_add(length).ok_or(Errno::INVAL)?;
        ranges.push((offset, length));
    }
    // `if ((u64)(length) & DMA_IOVA_USE_SWIOTLB) return -EINVAL;`, the highest bit.
    if total >> 63 != 0 {
        return Err(Errno::INVAL);
    }
    // `vfio_pci_core_fill_phys_vec`: `return -EOVERFLOW;` if the end does not fit, `if (end > max_addr) return -EINVAL;` The kernel adds
    // the BAR's physical address first, so that its sums overflow by that much earlier.
    for (offset, length) in &ranges {
        let end = offset.checked_add(*length).ok_or(Errno::OVERFLOW)?;
        if end > region.size {
            return Err(Errno::INVAL);
        }
    }
    Ok(ranges)
}

/// A BAR, or the window of one.
fn exportable(regions: &[Region], index: u32) -> Option<&Region> {
    let bar = if index < WINDOW_REGION { index } else { index - WINDOW_REGION };
    if bar >= abi::VFIO_PCI_ROM_REGION_INDEX {
        return None;
    }
    regions.get(usize::try_from(index).ok()?)
}

/// The access mode in `open_flags`, the only part of them that means something here: O_CLOEXEC is for the receiver to ask of
/// recvmsg(2), and what is exported has nothing to block on. The kernel opens a dma-buf as it was asked to (`dma_buf_getfile` in
/// drivers/dma-buf/dma-buf.c). Whoever holds a memfd can open it anew himself, so the mode guards against mistakes only.
fn access(open_flags: u32) -> FileAccess {
    let mode = OFlags::from_bits_retain(open_flags) & OFlags::ACCMODE;
    if mode == OFlags::RDONLY { FileAccess::ReadOnly } else { FileAccess::ReadWrite }
}

#[cfg(test)]
mod tests;
