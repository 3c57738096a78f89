//! Mapped memory: BARs through sysfs, exports of a device process, and pages for DMA. The only place with unsafe code.

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Error, Result};
use crate::transport::next_access;

/// A shared mapping of a whole file, or of anonymous memory, accessed in volatile pieces.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes of a file; `what` says whose, for errors.
    pub(crate) fn of_file(file: impl AsFd, length: usize, writable: bool, what: &str) -> Result<Self> {
        Self::of_part(file, 0, length, writable, what)
    }

    /// Maps `length` bytes of a file, from a page on.
    pub(crate) fn of_part(
        file: impl AsFd,
        start: u64,
        length: usize,
        writable: bool,
        what: &str,
    ) -> Result<Self> {
        let write = if writable { ProtFlags::WRITE } else { ProtFlags::empty() };
        // SAFETY: a null hint lets the kernel choose, so no existing mapping of ours is replaced; what the file's pages hold is
        // only ever read and written through volatile accesses, never through references. Who writes to what is not writable gets
        // a signal, as does who reads what has been cut.
        #[allow(unsafe_code)]
        let mapped = unsafe {
            rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::READ | write, MapFlags::SHARED, file, start)
        };
        Self::of(mapped, length, what)
    }

    /// Anonymous memory, present and locked.
    pub(crate) fn anonymous(length: usize) -> Result<Self> {
        // SAFETY: as above: a null hint, and accesses through raw pointers only.
        #[allow(unsafe_code)]
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::LOCKED | MapFlags::POPULATE,
            )
        };
        Self::of(start, length, "locking memory for DMA")
    }

    fn of(start: rustix::io::Result<*mut std::ffi::c_void>, length: usize, what: &str) -> Result<Self> {
        let start = start.map_err(|e| Error::io(what)(e.into()))?;
        let start =
            NonNull::new(start.cast()).ok_or_else(|| Error::NoDevice(format!("{what}: at address 0")))?;
        Ok(Self { start, length })
    }

    pub(crate) fn address(&self) -> u64 {
        self.start.addr().get() as u64
    }

    /// The address of `size` bytes at `offset`, for the kernel; `None` if they are not all inside.
    pub(crate) fn holds(&self, offset: u64, size: u64) -> Option<u64> {
        let at = self.at(offset, usize::try_from(size).ok()?)?;
        Some(at.expose_provenance() as u64)
    }

    /// Pointer to `length` bytes at `offset`; `None` if they are not all inside.
    fn at(&self, offset: u64, length: usize) -> Option<*mut u8> {
        let offset = usize::try_from(offset).ok()?;
        (offset.checked_add(length)? <= self.length).then_some(())?;
        Some(self.start.as_ptr().wrapping_add(offset))
    }

    /// Copies out, in naturally aligned volatile accesses of at most 8 bytes.
    pub(crate) fn read(&self, mut offset: u64, mut data: &mut [u8]) -> Result<()> {
        while !data.is_empty() {
            let (now, rest) = data.split_at_mut(next_access(offset, data.len()));
            let at = self.at(offset, now.len()).ok_or_else(|| outside(offset))?;
            let value = match now.len() {
                8 => load::<u64>(at).to_ne_bytes(),
                4 => widen(&load::<u32>(at).to_ne_bytes()),
                2 => widen(&load::<u16>(at).to_ne_bytes()),
                _ => widen(&[load::<u8>(at)]),
            };
            for (to, from) in now.iter_mut().zip(value) {
                *to = from;
            }
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// Copies in, in naturally aligned volatile accesses of at most 8 bytes.
    pub(crate) fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (now, rest) = data.split_at(next_access(offset, data.len()));
            let at = self.at(offset, now.len()).ok_or_else(|| outside(offset))?;
            match *now {
                [a, b, c, d, e, f, g, h] => store(at, u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
                [a, b, c, d] => store(at, u32::from_ne_bytes([a, b, c, d])),
                [a, b] => store(at, u16::from_ne_bytes([a, b])),
                [a] => store(at, a),
                _ => return Err(outside(offset)),
            }
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of one mmap, which nobody else unmaps, and no pointer into it outlives self.
        #[allow(unsafe_code)]
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
        if let Err(e) = result {
            log::debug!("munmap: {e}");
        }
    }
}

fn outside(offset: u64) -> Error {
    Error::Usage(format!("offset {offset:#x} lies outside the mapping"))
}

fn widen(bytes: &[u8]) -> [u8; 8] {
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    wide
}

/// Integers that one access moves; every bit pattern is a value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

fn load<T: Plain>(at: *mut u8) -> T {
    // SAFETY: callers pass pointers from `Mapping::at` for the size of T: mapped readable while the mapping is borrowed, and
    // aligned because mappings start on a page and `next_access` aligns the offset. Plain has no invalid bit patterns.
    #[allow(unsafe_code)]
    unsafe {
        ptr::read_volatile(at.cast())
    }
}

fn store<T: Plain>(at: *mut u8, value: T) {
    // SAFETY: as for `load`, and mapped writable; no reference to these bytes exists.
    #[allow(unsafe_code)]
    unsafe {
        ptr::write_volatile(at.cast(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::transport::PAGE;

    #[test]
    fn what_is_written_is_read_back_at_any_alignment() {
        let mapping = Mapping::anonymous(PAGE).unwrap();
        let bytes: Vec<u8> = (0..31).collect();
        for offset in 0..9 {
            mapping.write(offset, &bytes).unwrap();
            let mut back = vec![0; bytes.len()];
            mapping.read(offset, &mut back).unwrap();
            assert_eq!(back, bytes);
        }
    }

    #[test]
    fn accesses_outside_are_refused() {
        let mapping = Mapping::anonymous(PAGE).unwrap();
        for offset in [PAGE as u64, PAGE as u64 - 4, u64::MAX - 3] {
            assert!(mapping.read(offset, &mut [0; 8]).is_err());
            assert!(mapping.write(offset, &[0; 8]).is_err());
        }
    }

    #[test]
    fn files_are_mapped_shared() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        let mapping = Mapping::of_file(&file, PAGE, true, "mapping a file").unwrap();
        mapping.write(8, &[1, 2, 3]).unwrap();
        let mut back = [0; 3];
        file.read_exact_at(&mut back, 8).unwrap();
        assert_eq!(back, [1, 2, 3]);
    }
}
