//! Reads and writes of BARs and configuration space, as the user asks for them.

use super::Walk;
use crate::cli::{ConfigCommand, HexBytes, MmioCommand};
use crate::error::{Error, Result};
use crate::output::Item;
use crate::pci::{CONFIG_SIZE, Width};

/// Most bytes of one read.
const MAX_READ: u32 = 1 << 20;

impl Walk {
    pub(super) fn mmio(&mut self, command: &MmioCommand) -> Result<()> {
        match command {
            MmioCommand::Read { bar, offset, length } => {
                let length = usize::try_from(*length).ok().filter(|_| (1..=MAX_READ).contains(length));
                let length =
                    length.ok_or_else(|| Error::Usage(format!("a read has 1 to {MAX_READ} bytes")))?;
                let mut data = vec![0; length];
                self.bar_access()?.read(*bar, *offset, &mut data)?;
                self.output.tell(&Item::Value(&format!("BAR{bar}"), *offset, &data));
            }
            MmioCommand::Write { bar, offset, bytes: HexBytes(bytes) } => {
                self.bar_access()?.write(*bar, *offset, bytes)?;
            }
        }
        Ok(())
    }

    pub(super) fn config_command(&mut self, command: &ConfigCommand) -> Result<()> {
        let (offset, width) = match command {
            ConfigCommand::Read { offset, width } | ConfigCommand::Write { offset, width, .. } => {
                (*offset, width_of(*width))
            }
        };
        let length = u16::try_from(width.bytes()).unwrap_or(u16::MAX);
        if !offset.is_multiple_of(length) || offset > CONFIG_SIZE - length {
            return Err(Error::Usage(format!("{offset:#x} is no aligned offset in configuration space")));
        }
        let config = self
            .transport
            .config()
            .ok_or_else(|| Error::NoDevice("this target has no configuration space".into()))?;
        match command {
            ConfigCommand::Read { .. } => {
                let value = config.read(offset, width)?.to_le_bytes();
                let bytes = value.get(..width.bytes()).unwrap_or(&value);
                self.output.tell(&Item::Value("config", offset.into(), bytes));
            }
            ConfigCommand::Write { value, .. } => {
                if width.bytes() < 4 && value >> (8 * width.bytes()) != 0 {
                    return Err(Error::Usage(format!("{value:#x} does not fit {} bytes", width.bytes())));
                }
                config.write(offset, width, *value)?;
            }
        }
        Ok(())
    }
}

fn width_of(bytes: u8) -> Width {
    match bytes {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}
