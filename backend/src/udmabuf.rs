//! dma-bufs of memfds, made by the kernel's /dev/udmabuf (Linux `drivers/dma-buf/udmabuf.c`).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use mmio::DmaBufMaker;

/// The driver's device.
pub const DEVICE: &str = "/dev/udmabuf";
/// Where the driver says how large a dma-buf may be, in MiB.
const SIZE_LIMIT: &str = "/sys/module/udmabuf/parameters/size_limit_mb";

/// `UDMABUF_FLAGS_CLOEXEC` (include/uapi/linux/udmabuf.h).
const CLOEXEC: u32 = 1;

/// `struct udmabuf_create`.
#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

mod ioctl {
    nix::ioctl_write_ptr!(
        /// `UDMABUF_CREATE`; returns the dma-buf.
        create,
        b'u',
        0x42,
        super::Create
    );
}

/// The open driver.
#[derive(Debug)]
pub struct Udmabuf(File);

impl Udmabuf {
    /// Opens the driver.
    ///
    /// # Errors
    /// It is not there, or not ours to use.
    pub fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(Path::new(DEVICE)).map(Self)
    }
}

impl DmaBufMaker for Udmabuf {
    fn make(&self, memfd: BorrowedFd<'_>, bytes: u64) -> io::Result<OwnedFd> {
        // A descriptor that is open is not negative.
        let create =
            Create { memfd: memfd.as_raw_fd().cast_unsigned(), flags: CLOEXEC, offset: 0, size: bytes };
        // SAFETY: the pointer is to a `struct udmabuf_create`, which the kernel only reads, and only while this call lasts.
        #[allow(unsafe_code)]
        let made = unsafe { ioctl::create(self.0.as_raw_fd(), &raw const create) };
        let fd = made.map_err(|errno| explain(errno.into(), bytes))?;
        // SAFETY: the ioctl succeeded, so this is a new descriptor, and nobody else's.
        #[allow(unsafe_code)]
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The kernel counts the references to a dma-buf: descriptors, mappings, and importers.
    fn is_held(&self, dmabuf: BorrowedFd<'_>) -> bool {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", dmabuf.as_raw_fd()));
        info.ok().as_deref().and_then(references).is_none_or(|count| count > 1)
    }
}

/// `dma_buf_show_fdinfo` (drivers/dma-buf/dma-buf.c): a line of its own, without the reference that the reader takes.
fn references(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("count:"))?.trim().parse().ok()
}

/// The driver says EINVAL to whatever is more than its parameters allow.
fn explain(error: io::Error, bytes: u64) -> io::Error {
    let limit = std::fs::read_to_string(SIZE_LIMIT).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match limit {
        Some(limit) if error.kind() == ErrorKind::InvalidInput && bytes > limit << 20 => {
            io::Error::other(format!(
                "{bytes:#x} bytes are more than the {limit} MiB that udmabuf makes; raise its parameter size_limit_mb, export less at \
             a time, or say dmabuf = \"memfd\" in [mmio]"
            ))
        }
        Some(_) | None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_count_is_found() {
        // From Linux 6.12, a dma-buf with two descriptors.
        let info = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t7\nsize:\t4096\ncount:\t2\nexp_name:\tudmabuf\nname:\tcount:9\n";
        assert_eq!(references(info), Some(2));
        assert_eq!(references("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(references("count:\tmany\n"), None);
    }

    #[test]
    fn its_ioctl_has_the_kernel_s_number() {
        // `_IOW('u', 0x42, struct udmabuf_create)`: direction 1, 24 bytes.
        assert_eq!(nix::request_code_write!(b'u', 0x42, size_of::<Create>()), 0x4018_7542);
    }
}
