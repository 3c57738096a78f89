//! The host's half of a DOE mailbox: registers driven through configuration space (PCIe 6.1 §6.30).
//!
//! The device may answer anything at any time: every wait has an end and every length a limit.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::pci::ConfigSpace;
use crate::pci::capabilities::DoeCapability;

const CONTROL: u16 = 0x08;
const STATUS: u16 = 0x0c;
const WRITE: u16 = 0x10;
const READ: u16 = 0x14;

const ABORT: u32 = 1 << 0;
const GO: u32 = 1 << 31;
const BUSY: u32 = 1 << 0;
const ERROR: u32 = 1 << 2;
const READY: u32 = 1 << 31;

/// An abort has to take effect within one second (PCIe 6.1 §6.30.2).
const ABORT_TIME: Duration = Duration::from_secs(1);
/// Longest object accepted, in dwords: nothing the walk asks for comes near it, the format allows 1 MiB.
const MAX_DWORDS: u32 = 0x1_0000;
/// Polls without a pause before waiting between them.
const EAGER_POLLS: u32 = 16;
/// Pause between polls.
const PAUSE: Duration = Duration::from_millis(1);

/// A mailbox, by its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox {
    /// Offset and version of the extended capability.
    pub capability: DoeCapability,
    /// How long a response may take.
    pub timeout: Duration,
}

impl Mailbox {
    /// Aborts whatever is going on, as after finding the mailbox or after any error.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if BUSY or ERROR stay set.
    pub fn abort(&self, config: &mut dyn ConfigSpace, clock: &dyn Clock) -> Result<()> {
        self.write(config, CONTROL, ABORT)?;
        self.wait(config, clock, ABORT_TIME, "DOE abort: BUSY or ERROR stays set", |status| {
            Ok(status & (BUSY | ERROR) == 0)
        })
    }

    /// Sends one object, header and all, and reads the object that answers it.
    ///
    /// After any failure the mailbox is aborted, so that the next exchange starts clean.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it stays busy or never answers, [`Error::Protocol`] if it raises ERROR or breaks
    /// the transfer's rules.
    pub fn exchange(
        &self,
        config: &mut dyn ConfigSpace,
        clock: &dyn Clock,
        object: &[u8],
    ) -> Result<Vec<u8>> {
        let answer = self.send(config, clock, object).and_then(|()| self.receive(config, clock));
        if let Err(e) = &answer {
            log::debug!("DOE {:#x}: {e}; aborting", self.capability.offset);
            if let Err(e) = self.abort(config, clock) {
                log::warn!("DOE {:#x}: {e}", self.capability.offset);
            }
        }
        answer
    }

    fn send(&self, config: &mut dyn ConfigSpace, clock: &dyn Clock, object: &[u8]) -> Result<()> {
        if object.len() < 8 || !object.len().is_multiple_of(4) {
            return Err(Error::Protocol(format!("a DOE object of {} bytes cannot be sent", object.len())));
        }
        self.wait(config, clock, self.timeout, "DOE mailbox stays BUSY", |status| Ok(status & BUSY == 0))?;
        let status = self.status(config)?;
        if status & (ERROR | READY) != 0 {
            return Err(Error::Protocol(format!("DOE status reads {status:#010x} before a request")));
        }
        for dword in object.as_chunks().0 {
            self.write(config, WRITE, u32::from_le_bytes(*dword))?;
        }
        self.write(config, CONTROL, GO)?;
        self.wait(config, clock, self.timeout, "DOE response", |status| {
            if status & ERROR != 0 {
                return Err(Error::Protocol("the DOE mailbox raised ERROR after a request".into()));
            }
            Ok(status & READY != 0)
        })
    }

    fn receive(&self, config: &mut dyn ConfigSpace, clock: &dyn Clock) -> Result<Vec<u8>> {
        let first = self.pop(config)?;
        let second = self.pop(config)?;
        let dwords = match second & 0x3_ffff {
            0 => 0x4_0000,
            dwords => dwords,
        };
        if !(2..=MAX_DWORDS).contains(&dwords) {
            return Err(Error::Protocol(format!("a DOE response claims {dwords} dwords")));
        }
        let mut object = Vec::new();
        object.extend_from_slice(&first.to_le_bytes());
        object.extend_from_slice(&second.to_le_bytes());
        // The whole transfer may not outlast a response's time-out many times over, whatever its length says.
        let deadline = clock.now().saturating_add(self.timeout.saturating_mul(16));
        for _ in 2..dwords {
            if clock.now() > deadline {
                return Err(Error::TimedOut { what: "DOE transfer".into(), after: self.timeout * 16 });
            }
            object.extend_from_slice(&self.pop(config)?.to_le_bytes());
        }
        let status = self.status(config)?;
        if status & READY != 0 {
            return Err(Error::Protocol(format!("DOE READY is still set after {dwords} dwords")));
        }
        if status & ERROR != 0 {
            return Err(Error::Protocol("the DOE mailbox raised ERROR during the transfer".into()));
        }
        Ok(object)
    }

    /// One dword of the response; any write to the register removes it.
    fn pop(&self, config: &mut dyn ConfigSpace) -> Result<u32> {
        let status = self.status(config)?;
        if status & READY == 0 || status & ERROR != 0 {
            return Err(Error::Protocol(format!(
                "DOE status reads {status:#010x} before the end of a response"
            )));
        }
        let value = config.read32(self.at(READ))?;
        self.write(config, READ, 0)?;
        Ok(value)
    }

    fn wait(
        &self,
        config: &mut dyn ConfigSpace,
        clock: &dyn Clock,
        limit: Duration,
        what: &str,
        mut done: impl FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        let start = clock.now();
        let mut polls = 0;
        loop {
            // The clock is read first: a requester that was suspended still sees an answer that came in time.
            let late = clock.now().saturating_sub(start) > limit;
            if done(self.status(config)?)? {
                return Ok(());
            }
            if late {
                return Err(Error::TimedOut { what: what.into(), after: limit });
            }
            polls += 1;
            if polls > EAGER_POLLS {
                clock.sleep(PAUSE);
            }
        }
    }

    /// The status register; all ones means that nobody is there.
    fn status(&self, config: &mut dyn ConfigSpace) -> Result<u32> {
        match config.read32(self.at(STATUS))? {
            u32::MAX => Err(Error::NoDevice("DOE status reads all ones: the device is gone".into())),
            status => Ok(status),
        }
    }

    fn write(&self, config: &mut dyn ConfigSpace, register: u16, value: u32) -> Result<()> {
        config.write32(self.at(register), value)
    }

    fn at(&self, register: u16) -> u16 {
        self.capability.offset.saturating_add(register)
    }
}

#[cfg(test)]
pub(super) mod tests;
