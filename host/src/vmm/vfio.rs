//! A device of vfio-pci, through a group and a container of the type 1 IOMMU (`<linux/vfio.h>`; Debian's kernels have no iommufd).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use vfio_bindings::bindings::vfio as abi;

/// A range of a BAR, in bytes; the kernel is to judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins in the BAR.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of vfio's, or the device's link to its group.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A step that the kernel refused.
    #[error("{what}: {errno}")]
    Kernel {
        /// The step.
        what: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// Somebody else could make DMA beside the device.
    #[error("a device of its IOMMU group has a driver that is not vfio's")]
    NotViable,
    /// Not a PCI address.
    #[error("not an address: '{0}'")]
    Address(String),
}

mod ioctl {
    use super::abi;
    use nix::libc::{c_char, c_int};

    /// Numbers of vfio carry no size (`_IO(VFIO_TYPE, VFIO_BASE + …)`).
    macro_rules! number {
        ($offset:expr) => {
            nix::request_code_none!(abi::VFIO_TYPE, abi::VFIO_BASE + $offset)
        };
    }

    nix::ioctl_write_int_bad!(
        /// `VFIO_SET_IOMMU`
        set_iommu,
        number!(2)
    );
    nix::ioctl_read_bad!(
        /// `VFIO_GROUP_GET_STATUS`
        group_get_status,
        number!(3),
        abi::vfio_group_status
    );
    nix::ioctl_write_ptr_bad!(
        /// `VFIO_GROUP_SET_CONTAINER`
        group_set_container,
        number!(4),
        c_int
    );
    nix::ioctl_write_ptr_bad!(
        /// `VFIO_GROUP_GET_DEVICE_FD`; returns the device.
        group_get_device_fd,
        number!(6),
        c_char
    );
    nix::ioctl_read_bad!(
        /// `VFIO_DEVICE_GET_REGION_INFO`
        device_get_region_info,
        number!(8),
        abi::vfio_region_info
    );
    nix::ioctl_none_bad!(
        /// `VFIO_DEVICE_RESET`
        device_reset,
        number!(11)
    );
    nix::ioctl_write_ptr_bad!(
        /// `VFIO_DEVICE_FEATURE`; with DMA_BUF and GET it returns the dma-buf.
        device_feature,
        number!(17),
        u64
    );
}

/// An open device. Dropping it closes the device before its group.
#[derive(Debug)]
pub struct Device {
    device: File,
    _group: File,
    _container: File,
}

impl Device {
    /// Opens the device at a PCI address, which makes vfio-pci enable and reset it.
    pub fn open(address: &str) -> Result<Self, OpenError> {
        let name: Vec<_> = address.bytes().map(u8::cast_signed).chain([0]).collect();
        if !address.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return Err(OpenError::Address(address.to_owned()));
        }
        let link = Path::new("/sys/bus/pci/devices").join(address).join("iommu_group");
        let group = fs::read_link(&link).map_err(|source| OpenError::File { path: link.clone(), source })?;
        let group = group.file_name().ok_or_else(|| OpenError::Address(address.to_owned()))?;
        let group = open(&Path::new("/dev/vfio").join(group))?;
        let container = open(Path::new("/dev/vfio/vfio"))?;

        let mut status =
            abi::vfio_group_status { argsz: size_of::<abi::vfio_group_status>() as u32, flags: 0 };
        // SAFETY: the pointer is to a `struct vfio_group_status` of ours, which says its size and outlives the call.
        #[allow(unsafe_code)]
        kernel("the group's status", unsafe { ioctl::group_get_status(group.as_raw_fd(), &raw mut status) })?;
        if status.flags & abi::VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(OpenError::NotViable);
        }
        let number = container.as_raw_fd();
        // SAFETY: the kernel reads one int, the container's descriptor, which is open.
        #[allow(unsafe_code)]
        let joined = unsafe { ioctl::group_set_container(group.as_raw_fd(), &raw const number) };
        kernel("joining a container", joined)?;
        // SAFETY: the argument is a number, not a pointer.
        #[allow(unsafe_code)]
        let set = unsafe { ioctl::set_iommu(container.as_raw_fd(), abi::VFIO_TYPE1v2_IOMMU.cast_signed()) };
        kernel("the type 1 IOMMU", set)?;
        // SAFETY: the pointer is to a string that ends with a zero byte, which the kernel only reads.
        #[allow(unsafe_code)]
        let device = unsafe { ioctl::group_get_device_fd(group.as_raw_fd(), name.as_ptr()) };
        let device = File::from(owned(kernel("opening the device", device)?));
        Ok(Self { device, _group: group, _container: container })
    }

    /// Whether the kernel exports dma-bufs.
    pub fn probe(&self) -> Result<(), Errno> {
        let flags =
            abi::VFIO_DEVICE_FEATURE_PROBE | abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_DMA_BUF;
        self.feature(flags, 0, &[]).map(drop)
    }

    /// A dma-buf of ranges of a BAR. Nothing is checked here: the kernel's answer is what is wanted.
    pub fn export(
        &self,
        region: u32,
        open_flags: u32,
        flags: u32,
        ranges: &[Range],
    ) -> Result<OwnedFd, Errno> {
        let count = u32::try_from(ranges.len()).map_err(|_| Errno::E2BIG)?;
        let mut data = vec![pair(region, open_flags), pair(flags, count)];
        data.extend(ranges.iter().flat_map(|range| [range.offset, range.length]));
        let get = abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_DMA_BUF;
        // `argsz` covers the ranges as well, as every vfio structure's does.
        self.feature(get, ranges.len(), &data).map(owned)
    }

    /// `struct vfio_device_feature` with these data behind it.
    fn feature(&self, flags: u32, ranges: usize, data: &[u64]) -> Result<RawFd, Errno> {
        let bytes =
            (1 + data.len()).checked_mul(size_of::<u64>()).and_then(|bytes| u32::try_from(bytes).ok());
        debug_assert!(data.is_empty() || data.len() == 2 + 2 * ranges);
        let mut argument = vec![pair(bytes.ok_or(Errno::E2BIG)?, flags)];
        argument.extend(data);
        // SAFETY: the kernel reads as much as `argsz` says, which is the vector's length, and for DMA_BUF as many ranges as the
        // header counts, which are in it; it writes nothing.
        #[allow(unsafe_code)]
        unsafe {
            ioctl::device_feature(self.device.as_raw_fd(), argument.as_ptr())
        }
    }

    /// VFIO_DEVICE_RESET.
    pub fn reset(&self) -> Result<(), Errno> {
        // SAFETY: it takes no argument.
        #[allow(unsafe_code)]
        unsafe { ioctl::device_reset(self.device.as_raw_fd()) }.map(drop)
    }

    /// Reads a region through the kernel: accesses of at most 8 bytes, aligned.
    pub fn read(&self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let at = self.place(region, offset, bytes.len())?;
        self.device.read_exact_at(bytes, at).map_err(errno)
    }

    /// Writes a region through the kernel.
    pub fn write(&self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let at = self.place(region, offset, bytes.len())?;
        self.device.write_all_at(bytes, at).map_err(errno)
    }

    /// The device file's offset of a place in a region.
    fn place(&self, region: u32, offset: u64, length: usize) -> Result<u64, Errno> {
        let region = self.region(region)?;
        let end = offset.checked_add(length as u64).ok_or(Errno::EINVAL)?;
        if end > region.size {
            Err(Errno::EINVAL)
        } else {
            region.start.checked_add(offset).ok_or(Errno::EINVAL)
        }
    }

    /// Where a region lies in the device file.
    pub fn region(&self, index: u32) -> Result<Region, Errno> {
        let mut info = abi::vfio_region_info {
            argsz: size_of::<abi::vfio_region_info>() as u32,
            index,
            ..Default::default()
        };
        // SAFETY: the pointer is to a `struct vfio_region_info` of ours, which says its size and outlives the call.
        #[allow(unsafe_code)]
        unsafe { ioctl::device_get_region_info(self.device.as_raw_fd(), &raw mut info) }?;
        let mappable = info.flags & abi::VFIO_REGION_INFO_FLAG_MMAP != 0;
        Ok(Region { start: info.offset, size: info.size, mappable })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// A region of the device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it begins in the file.
    pub start: u64,
    /// Its length; 0 where the device has none.
    pub size: u64,
    /// Whether all of it can be mapped.
    pub mappable: bool,
}

/// Two 32-bit fields, the first at the lower address.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

fn open(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|source| OpenError::File { path: path.to_owned(), source })
}

fn kernel<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, OpenError> {
    result.map_err(|errno| OpenError::Kernel { what, errno })
}

/// The kernel's error behind one of the standard library's; what has none is a file that ended early.
pub fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass what an ioctl has just returned: a new descriptor, and nobody else's.
    #[allow(unsafe_code)]
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_as_in_c() {
        assert_eq!(pair(1, 2).to_ne_bytes(), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(nix::request_code_none!(abi::VFIO_TYPE, abi::VFIO_BASE + 17), 0x3b75);
    }

    #[test]
    fn only_addresses_become_paths() {
        for address in ["../../etc", "0000:01:00.0/..", "x"] {
            assert!(matches!(Device::open(address), Err(OpenError::Address(_))), "{address}");
        }
        assert!(matches!(Device::open("ffff:ff:1f.7"), Err(OpenError::File { .. })));
    }
}
