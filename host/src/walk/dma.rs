//! Using the device: its DMA engine copies, fills and checks memory of the host's while the TDI is in RUN.

use super::test_function::{self, Operation};
use super::{Seen, Walk};
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::transport::{HostMemory, PAGE};

/// Pages of host memory used.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
/// How often a copy is repeated because the host moved a page under it.
const ATTEMPTS: u32 = 3;
/// What FILL writes and CHECK looks for.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

impl Walk {
    /// Copies a page by DMA and compares, then fills and checks one.
    pub(super) fn use_device(&mut self) -> Result<()> {
        if !self.has_test_function {
            return self.step(Layer::Dma, "use", "", |_| {
                Ok(Seen::skipped((), "not the test function: only MMIO was used"))
            });
        }
        let mut memory = match self.transport.memory() {
            Ok(memory) => memory,
            Err(reason) => return self.step(Layer::Dma, "use", "", |_| Ok(Seen::skipped((), reason))),
        };
        let memory = &mut *memory;
        self.step(Layer::Dma, "COPY, 4096 bytes", "destination equals source", |walk| {
            let source: Vec<u8> = (0..PAGE).map(|n| (n * 7 + n / 256 + 13).to_le_bytes()[0]).collect();
            memory.write(SOURCE, &source)?;
            memory.write(DESTINATION, &vec![0; PAGE])?;
            let text = walk.settled(memory, |walk, source, destination| {
                walk.engine(Operation::Copy { source, destination, length: PAGE as u64 })?;
                Ok(format!("{source:#x} to {destination:#x}"))
            })?;
            let mut copy = vec![0; PAGE];
            memory.read(DESTINATION, &mut copy)?;
            let wrong = source.iter().zip(&copy).position(|(a, b)| a != b);
            Ok(match wrong {
                None => Seen::good((), text),
                Some(at) => Seen::checked((), format!("{text}, byte {at} differs"), false),
            })
        })?;
        self.step(Layer::Dma, "FILL and CHECK, 4096 bytes", "the pattern, found by both sides", |walk| {
            let length = PAGE as u64;
            walk.settled(memory, |walk, _, destination| {
                walk.engine(Operation::Fill { destination, length, pattern: PATTERN })?;
                walk.engine(Operation::Check { source: destination, length, pattern: PATTERN })
            })?;
            let mut page = vec![0; PAGE];
            memory.read(DESTINATION, &mut page)?;
            let good = page.as_chunks::<8>().0.iter().all(|chunk| u64::from_le_bytes(*chunk) == PATTERN);
            Ok(Seen::checked((), if good { "pattern in place" } else { "other bytes" }, good))
        })
    }

    fn engine(&mut self, operation: Operation) -> Result<()> {
        let timeout = self.timeout();
        test_function::dma(self.bar_access()?, &SystemClock::new(), timeout, operation)
    }

    /// Does something with the pages' addresses, again if they were not the same before and after.
    fn settled<T>(
        &mut self,
        memory: &mut dyn HostMemory,
        mut act: impl FnMut(&mut Self, u64, u64) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let before = (memory.address(SOURCE)?, memory.address(DESTINATION)?);
            let value = act(self, before.0, before.1)?;
            if before == (memory.address(SOURCE)?, memory.address(DESTINATION)?) {
                return Ok(value);
            }
            log::debug!("the kernel moved a page during DMA; again");
        }
        Err(Error::NoDevice(format!("the kernel moved the memory for DMA {ATTEMPTS} times")))
    }
}
