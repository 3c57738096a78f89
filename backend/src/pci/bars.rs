//! BAR registers: which bits of the header's six dwords are address, and what address they hold.

use super::registers::header;

/// How one memory BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarDecoder {
    /// BAR index 0–5; a 64-bit BAR also occupies the next index.
    pub index: u8,
    /// Bytes, a power of two ≥ 4096.
    pub size: u64,
    /// 64-bit address.
    pub wide: bool,
    /// Prefetchable.
    pub prefetchable: bool,
}

impl BarDecoder {
    /// Offset of the (low) register in configuration space.
    pub fn offset(&self) -> u16 {
        header::BAR0 + 4 * u16::from(self.index)
    }

    /// Register bytes: 4 or 8.
    pub fn length(&self) -> u16 {
        if self.wide { 8 } else { 4 }
    }

    /// The read-only low bits (PCIe 6.1 §7.5.1.2.1): memory, type, prefetchable.
    pub fn flags(&self) -> u32 {
        (if self.wide { 0b100 } else { 0 }) | (if self.prefetchable { 0b1000 } else { 0 })
    }

    /// Writable bits: the address bits above the size.
    pub fn address_mask(&self) -> u64 {
        let mask = !(self.size.saturating_sub(1)) & !0xF;
        if self.wide { mask } else { mask & 0xFFFF_FFFF }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizing_masks() {
        let narrow = BarDecoder { index: 0, size: 0x4000, wide: false, prefetchable: false };
        assert_eq!(narrow.address_mask(), 0xFFFF_C000);
        assert_eq!((narrow.offset(), narrow.length(), narrow.flags()), (0x10, 4, 0));
        let wide = BarDecoder { index: 2, size: 0x10_0000_0000, wide: true, prefetchable: true };
        assert_eq!(wide.address_mask(), 0xFFFF_FFF0_0000_0000);
        assert_eq!((wide.offset(), wide.length(), wide.flags()), (0x18, 8, 0b1100));
    }
}
