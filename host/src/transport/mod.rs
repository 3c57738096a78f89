//! Ways to a device, and what each can do beyond exchanging DOE objects.

pub mod kernel;
pub mod sysfs;
pub mod tcp;
pub mod vfio_user;

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::pci::bars::Bar;
use crate::pci::{Bdf, ConfigSpace};

/// A way to one function.
///
/// What a transport cannot do, it leaves out: a TCP socket has no configuration space.
pub trait Transport {
    /// The target, for people and for the session file.
    fn describe(&self) -> String;
    /// The function's address, where it is known.
    fn address(&self) -> Option<Bdf> {
        None
    }
    /// Address of the port above it, the other end of an IDE stream, where it is known.
    fn port_above(&self) -> Option<Bdf> {
        None
    }
    /// Whether nobody else drives the device: tdispctl was its firmware, and a disconnect resets it.
    fn is_bare(&self) -> bool {
        false
    }
    /// Configuration space.
    fn config(&mut self) -> Option<&mut dyn ConfigSpace> {
        None
    }
    /// The memory BARs, where they are and how large; none without a way to them.
    fn memory_bars(&self) -> &[Bar] {
        &[]
    }
    /// BAR memory.
    fn bars(&mut self) -> Option<&mut dyn BarAccess> {
        None
    }
    /// A DOE data object exchange that goes past the mailbox registers.
    fn objects(&mut self) -> Option<&mut dyn ObjectExchange> {
        None
    }
    /// Memory that the device can reach, or the reason why there is none.
    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String>;
    /// Takes leave of a peer that keeps its state for the next connection.
    fn close(&mut self) {}
}

/// Whole DOE objects in, whole DOE objects out.
pub trait ObjectExchange {
    /// Sends one object and returns the one that answers it.
    fn exchange(&mut self, object: &[u8], timeout: Duration) -> Result<Vec<u8>>;
}

/// BAR memory accesses; what the device does not complete reads as all ones.
///
/// Both split into naturally aligned accesses of at most 8 bytes.
pub trait BarAccess {
    /// Reads `data.len()` bytes.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) -> Result<()>;
    /// Writes all of `data`.
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Result<()>;
}

/// Bytes in a page of [`HostMemory`].
pub const PAGE: usize = 4096;

/// Memory of the host's that a device may read and write, in pages that need not be neighbours.
pub trait HostMemory {
    /// How many pages there are.
    fn pages(&self) -> usize;
    /// Address of a page as the device must name it. The host may move pages: ask again after use, and compare.
    fn address(&mut self, page: usize) -> Result<u64>;
    /// Copies out of a page, from its start.
    fn read(&mut self, page: usize, data: &mut [u8]) -> Result<()>;
    /// Copies into a page, from its start.
    fn write(&mut self, page: usize, data: &[u8]) -> Result<()>;
}

/// Refuses accesses outside the BARs there are.
///
/// # Errors
/// [`Error::Usage`] for another BAR or a range that leaves it.
pub fn check_access(bars: &[Bar], bar: u8, offset: u64, length: usize) -> Result<()> {
    let Some(found) = bars.iter().find(|b| b.index == bar) else {
        return Err(Error::Usage(format!("there is no memory BAR{bar}")));
    };
    let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
    if end.is_some_and(|end| end <= found.size) {
        Ok(())
    } else {
        Err(Error::Usage(format!(
            "{length} bytes at {offset:#x} leave BAR{bar}, which has {:#x}",
            found.size
        )))
    }
}

/// Bytes of the next naturally aligned access, at most 8, of `left` bytes from `offset`.
pub(crate) fn next_access(offset: u64, left: usize) -> usize {
    let aligned = 1usize << offset.trailing_zeros().min(3);
    let fits = left.checked_ilog2().map_or(0, |bits| 1usize << bits.min(3));
    aligned.min(fits)
}

/// A failed socket call: a time-out as such, everything else as a transport failure.
pub(crate) fn socket_error(what: &str, timeout: Duration, error: io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        Error::TimedOut { what: what.into(), after: timeout }
    } else {
        Error::Transport { what: what.into(), source: error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_aligned_and_cover_everything() {
        for start in 0..9u64 {
            for length in 0..20usize {
                let (mut at, mut left) = (start, length);
                while left > 0 {
                    let n = next_access(at, left);
                    assert!(matches!(n, 1 | 2 | 4 | 8) && at.is_multiple_of(n as u64) && n <= left);
                    at += n as u64;
                    left -= n;
                }
            }
        }
    }

    #[test]
    fn accesses_outside_a_bar_are_refused() {
        let bars = [Bar { index: 2, address: 0, size: 0x1000, wide: true, prefetchable: true }];
        assert!(check_access(&bars, 2, 0xffc, 4).is_ok());
        for (bar, offset, length) in [(0, 0, 4), (2, 0xffd, 4), (2, u64::MAX, 4), (2, 0, 0x1001)] {
            assert!(matches!(check_access(&bars, bar, offset, length), Err(Error::Usage(_))));
        }
    }
}
