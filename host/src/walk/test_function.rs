//! The test function's registers as a driver sees them. `backend/src/function/REGISTERS.md` is the contract.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::pci::bars::Bar;
use crate::transport::BarAccess;

/// BAR of the registers.
pub(super) const BAR: u8 = 0;
const MAGIC: u64 = 0x000;
const VERSION: u64 = 0x004;
/// A register that keeps what is written.
pub(super) const SCRATCH: u64 = 0x010;
const DMA_SOURCE: u64 = 0x100;
const DMA_DESTINATION: u64 = 0x108;
const DMA_LENGTH: u64 = 0x110;
const DMA_PATTERN: u64 = 0x118;
const DMA_COMMAND: u64 = 0x120;
const DMA_START: u64 = 0x124;
const DMA_STATUS: u64 = 0x128;
/// Bytes the registers take.
const SIZE: u64 = 0x208;

/// "TDSP" as it lies in memory.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"TDSP");
const MAJOR_VERSION: u32 = 1;
const STATUS_DONE: u32 = 1 << 1;
const STATUS_ERROR: u32 = 1 << 2;

/// What the DMA engine can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// From source to destination, bytes.
    Copy { source: u64, destination: u64, length: u64 },
    /// A pattern, repeated.
    Fill { destination: u64, length: u64, pattern: u64 },
    /// Compares with a pattern, repeated.
    Check { source: u64, length: u64, pattern: u64 },
}

/// Whether the registers are there: by magic and major version.
pub(super) fn is_present(bars: &mut dyn BarAccess, layout: &[Bar]) -> Result<bool> {
    if !layout.iter().any(|bar| bar.index == BAR && bar.size >= SIZE) {
        return Ok(false);
    }
    let (magic, version) = (read32(bars, MAGIC)?, read32(bars, VERSION)?);
    Ok(magic == MAGIC_VALUE && version >> 16 == MAJOR_VERSION)
}

/// The magic number's register as it reads now: the right value, all ones where the page refuses.
pub(super) fn magic(bars: &mut dyn BarAccess) -> Result<(u32, bool)> {
    let magic = read32(bars, MAGIC)?;
    Ok((magic, magic == MAGIC_VALUE))
}

/// Starts an operation and waits for its end.
///
/// # Errors
/// [`Error::TimedOut`] if it never ends, [`Error::Check`] with the engine's own reason if it fails.
pub(super) fn dma(
    bars: &mut dyn BarAccess,
    clock: &dyn Clock,
    timeout: Duration,
    operation: Operation,
) -> Result<()> {
    let (code, fields) = match operation {
        Operation::Copy { source, destination, length } => {
            (1, [(DMA_SOURCE, source), (DMA_DESTINATION, destination), (DMA_LENGTH, length)])
        }
        Operation::Fill { destination, length, pattern } => {
            (2, [(DMA_DESTINATION, destination), (DMA_LENGTH, length), (DMA_PATTERN, pattern)])
        }
        Operation::Check { source, length, pattern } => {
            (3, [(DMA_SOURCE, source), (DMA_LENGTH, length), (DMA_PATTERN, pattern)])
        }
    };
    for (register, value) in fields {
        bars.write(BAR, register, &u64::to_le_bytes(value))?;
    }
    bars.write(BAR, DMA_COMMAND, &u32::to_le_bytes(code))?;
    bars.write(BAR, DMA_START, &u32::to_le_bytes(1))?;
    let start = clock.now();
    loop {
        let status = read32(bars, DMA_STATUS)?;
        if status == u32::MAX {
            return Err(Error::Check("the DMA engine's registers read all ones".into()));
        }
        if status & STATUS_DONE != 0 {
            let [_, reason, ..] = status.to_le_bytes();
            return if status & STATUS_ERROR == 0 {
                Ok(())
            } else {
                Err(Error::Check(format!("the DMA engine says: {}", failure(reason))))
            };
        }
        if clock.now().saturating_sub(start) > timeout {
            return Err(Error::TimedOut { what: "the DMA engine".into(), after: timeout });
        }
        clock.sleep(Duration::from_millis(1));
    }
}

fn failure(code: u8) -> &'static str {
    match code {
        1 => "bad command",
        2 => "bad length",
        3 => "bad address",
        4 => "source and destination overlap",
        5 => "not allowed",
        6 => "no memory at the address",
        7 => "mismatch",
        8 => "aborted",
        _ => "unknown error",
    }
}

fn read32(bars: &mut dyn BarAccess, offset: u64) -> Result<u32> {
    let mut value = [0; 4];
    bars.read(BAR, offset, &mut value)?;
    Ok(u32::from_le_bytes(value))
}
