//! The IDE extended capability seen from the host: finding a stream's registers and programming them.

use super::{CONFIG_SIZE, ConfigSpace};
use crate::error::{Error, Result};

/// Capability: link streams supported.
const CAP_LINK: u32 = 1 << 0;
/// Capability: selective streams supported.
const CAP_SELECTIVE: u32 = 1 << 1;
/// Stream control: enable.
const CTL_ENABLE: u32 = 1 << 0;
/// Stream control: default stream.
const CTL_DEFAULT: u32 = 1 << 22;
/// Stream status: state field.
const STATUS_STATE: u32 = 0xf;
/// Stream status: secure.
const STATE_SECURE: u32 = 2;

/// Offsets of one selective stream's registers in configuration space (PCIe 6.1 §7.9.26.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectiveStream {
    /// Position among the selective streams.
    pub index: u8,
    /// Address association blocks it has.
    pub address_blocks: u8,
    base: u16,
}

/// What a stream is to be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Stream id.
    pub id: u8,
    /// Partner's segment, and the first and last requester id on its side.
    pub partner: (u8, u16, u16),
}

/// The registers of every selective stream.
///
/// # Errors
/// [`Error::NoDevice`] if there is none, [`Error::Protocol`] if the blocks leave configuration space.
pub fn selective_streams(config: &mut dyn ConfigSpace, capability: u16) -> Result<Vec<SelectiveStream>> {
    let caps = config.read32(capability.saturating_add(4))?;
    if caps == u32::MAX || caps & CAP_SELECTIVE == 0 {
        return Err(Error::NoDevice(format!("IDE capability {caps:#010x} has no selective stream")));
    }
    let [_, links, count, _] = caps.to_le_bytes();
    let links = if caps & CAP_LINK != 0 { u16::from(links >> 5) + 1 } else { 0 };
    let mut base = capability.saturating_add(0x0c).saturating_add(links * 8);
    let mut streams = Vec::new();
    for index in 0..=count {
        if base > CONFIG_SIZE - 20 {
            return Err(Error::Protocol(format!("IDE stream block {index} leaves configuration space")));
        }
        let blocks = config.read32(base)?.to_le_bytes()[0] & 0xf;
        let size = 20 + u16::from(blocks) * 12;
        if base > CONFIG_SIZE - size {
            return Err(Error::Protocol(format!("IDE stream block {index} leaves configuration space")));
        }
        streams.push(SelectiveStream { index, address_blocks: blocks, base });
        base += size;
    }
    Ok(streams)
}

impl SelectiveStream {
    /// Programs id, default, requester-id and address association; the stream stays disabled.
    ///
    /// All addresses are associated if there is a block for it: the stream is the function's only one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device does not take the values.
    pub fn program(&self, config: &mut dyn ConfigSpace, settings: StreamSettings) -> Result<()> {
        let (segment, first, last) = settings.partner;
        self.set_enabled(config, false)?;
        self.write(config, 12, u32::from(last) << 8)?;
        self.write(config, 16, u32::from(segment) << 24 | u32::from(first) << 8 | 1)?;
        if self.address_blocks > 0 {
            self.write(config, 24, u32::MAX)?;
            self.write(config, 28, 0)?;
            // Valid last, with limit bits 31:20 in the top and base bits 31:20 (zero) below.
            self.write(config, 20, 0xfff0_0001)?;
        }
        self.write_control(config, u32::from(settings.id) << 24 | CTL_DEFAULT)
    }

    /// Programs id and requester-id association for a peer, as a stream that is not the default one; it stays disabled.
    /// Without a requester id nothing is associated.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device does not take the id.
    pub fn program_peer(
        &self,
        config: &mut dyn ConfigSpace,
        id: u8,
        requester: Option<(u16, u16)>,
    ) -> Result<()> {
        self.set_enabled(config, false)?;
        let (first, last) = requester.unwrap_or_default();
        self.write(config, 12, u32::from(last) << 8)?;
        self.write(config, 16, u32::from(first) << 8 | u32::from(requester.is_some()))?;
        for block in 0..u16::from(self.address_blocks) {
            self.write(config, 20 + 12 * block, 0)?;
        }
        self.write_control(config, u32::from(id) << 24)
    }

    /// Writes id and default bit, and finds that they stick.
    fn write_control(&self, config: &mut dyn ConfigSpace, control: u32) -> Result<()> {
        self.write(config, 4, control)?;
        let seen = self.read(config, 4)?;
        if seen & (0xff << 24 | CTL_DEFAULT | CTL_ENABLE) == control {
            Ok(())
        } else {
            Err(Error::Protocol(format!(
                "IDE stream control reads {seen:#010x} after writing {control:#010x}"
            )))
        }
    }

    /// Sets or clears the enable bit.
    pub fn set_enabled(&self, config: &mut dyn ConfigSpace, enabled: bool) -> Result<()> {
        let control = self.read(config, 4)?;
        self.write(config, 4, if enabled { control | CTL_ENABLE } else { control & !CTL_ENABLE })
    }

    /// The stream id it has.
    pub fn id(&self, config: &mut dyn ConfigSpace) -> Result<u8> {
        let [.., id] = self.read(config, 4)?.to_le_bytes();
        Ok(id)
    }

    /// Whether the enable bit is set.
    pub fn enabled(&self, config: &mut dyn ConfigSpace) -> Result<bool> {
        Ok(self.read(config, 4)? & CTL_ENABLE != 0)
    }

    /// Whether the status register says secure, and the register itself.
    pub fn secure(&self, config: &mut dyn ConfigSpace) -> Result<(bool, u32)> {
        let status = self.read(config, 8)?;
        Ok((status != u32::MAX && status & STATUS_STATE == STATE_SECURE, status))
    }

    fn read(&self, config: &mut dyn ConfigSpace, offset: u16) -> Result<u32> {
        config.read32(self.base + offset)
    }

    fn write(&self, config: &mut dyn ConfigSpace, offset: u16, value: u32) -> Result<()> {
        config.write32(self.base + offset, value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn link_blocks_are_stepped_over_and_streams_of_any_shape_found() {
        let mut image = Image::new();
        image.put(0x204, CAP_LINK | CAP_SELECTIVE | 1 << 13 | 1 << 16);
        image.put(0x21c, 2);
        let streams = selective_streams(&mut image, 0x200).unwrap();
        let shape: Vec<_> = streams.iter().map(|s| (s.index, s.address_blocks, s.base)).collect();
        assert_eq!(shape, [(0, 2, 0x21c), (1, 0, 0x21c + 44)]);
    }

    #[test]
    fn blocks_past_the_end_are_refused() {
        let mut image = Image::new();
        image.put(0xff4, CAP_SELECTIVE);
        assert!(matches!(selective_streams(&mut image, 0xff0), Err(Error::Protocol(_))));
        image.put(0x104, CAP_SELECTIVE | 0xff << 16);
        assert!(matches!(selective_streams(&mut image, 0x100), Err(Error::Protocol(_))));
        image.put(0x104, u32::MAX);
        assert!(matches!(selective_streams(&mut image, 0x100), Err(Error::NoDevice(_))));
    }

    #[test]
    fn a_stream_is_programmed_disabled_then_enabled() {
        let mut image = Image::new();
        image.put(0x104, CAP_SELECTIVE);
        image.put(0x10c, 1);
        let stream = selective_streams(&mut image, 0x100).unwrap()[0];
        stream.program(&mut image, StreamSettings { id: 7, partner: (0, 8, 9) }).unwrap();
        let mut at = |offset: u16| image.read32(0x10c + offset).unwrap();
        assert_eq!((at(4), at(12), at(16)), (0x0740_0000, 0x900, 0x801));
        assert_eq!((at(20), at(24), at(28)), (0xfff0_0001, u32::MAX, 0));
        stream.set_enabled(&mut image, true).unwrap();
        assert!(stream.enabled(&mut image).unwrap());
        stream.program_peer(&mut image, 9, Some((0x300, 0x307))).unwrap();
        let mut at = |offset: u16| image.read32(0x10c + offset).unwrap();
        assert_eq!((at(4), at(12), at(16)), (0x0900_0000, 0x3_0700, 0x3_0001));
        stream.program_peer(&mut image, 9, None).unwrap();
        let mut at = |offset: u16| image.read32(0x10c + offset).unwrap();
        assert_eq!((at(16), at(20)), (0, 0), "nothing is associated");
        stream.set_enabled(&mut image, true).unwrap();
        assert_eq!(stream.secure(&mut image).unwrap(), (false, 0));
        image.put(0x10c + 8, 0x8000_0002);
        assert!(stream.secure(&mut image).unwrap().0);
    }
}
