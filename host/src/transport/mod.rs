//! Ways to a device, and what each can do beyond exchanging DOE objects.

use std::time::Duration;

use crate::error::Result;
use crate::pci::{Bdf, ConfigSpace};

/// A way to one function.
///
/// What a transport cannot do, it answers with `None`: a TCP socket has no configuration space.
pub trait Transport {
    /// The target, for people.
    fn describe(&self) -> String;
    /// The function's address, where it is known.
    fn address(&self) -> Option<Bdf>;
    /// Segment and requester id of the port above it, the other end of an IDE stream.
    fn port_above(&self) -> Option<Bdf>;
    /// Whether closing the connection resets the device.
    fn resets_on_close(&self) -> bool;
    /// Configuration space.
    fn config(&mut self) -> Option<&mut dyn ConfigSpace>;
    /// BAR memory.
    fn bars(&mut self) -> Option<&mut dyn BarAccess>;
    /// A DOE data object exchange that goes past the mailbox registers.
    fn objects(&mut self) -> Option<&mut dyn ObjectExchange>;
    /// Memory the device can reach, or the reason why there is none.
    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String>;
}

/// Whole DOE objects in, whole DOE objects out.
pub trait ObjectExchange {
    /// Sends one object and returns the one that answers it; an empty answer means the peer kept silent.
    fn exchange(&mut self, object: &[u8], timeout: Duration) -> Result<Vec<u8>>;
}

/// BAR memory accesses; what the device does not complete reads as all ones.
pub trait BarAccess {
    /// The BAR's size in bytes; 0 if there is no such memory BAR.
    fn size(&mut self, bar: u8) -> Result<u64>;
    /// Reads `data.len()` bytes, in accesses of up to 8 bytes, naturally aligned.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) -> Result<()>;
    /// Writes `data`, in accesses of up to 8 bytes, naturally aligned.
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Result<()>;
}

/// Memory of the host's that a device may read and write, in pages that need not be neighbours.
pub trait HostMemory {
    /// Pages of 4 KiB.
    fn pages(&self) -> usize;
    /// Address of a page as the device must name it. May change between calls: see [`Self::settled`].
    fn address(&mut self, page: usize) -> Result<u64>;
    /// Copies out of a page, from its start.
    fn read(&mut self, page: usize, data: &mut [u8]) -> Result<()>;
    /// Copies into a page, from its start.
    fn write(&mut self, page: usize, data: &[u8]) -> Result<()>;
}
