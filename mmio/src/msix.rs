//! The MSI-X table and pending bits as registers (PCIe 6.1 §7.7.2.6 to §7.7.2.10).
//!
//! Whether a vector fires is not decided here: a VMM keeps the real table to itself and hands the device one eventfd per
//! vector, so what stands in this table is what a client without one wrote.

/// Bytes of one entry: message address (8), message data (4), vector control (4).
const ENTRY: usize = 16;
/// Vector control, byte offset in an entry.
const CONTROL: usize = 12;
/// Mask bit of vector control; the only one of its bits that is not reserved here. Set at reset.
const MASKED: u8 = 1;
/// The low bits of the message address are always 0: messages are dwords.
const ADDRESS_LOW: u8 = 0xfc;

/// Table and pending bits of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsixTable {
    table: Vec<u8>,
    /// Whole quadwords.
    pending: Vec<u8>,
}

impl MsixTable {
    /// All vectors masked, nothing pending.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors);
        let mut msix = Self { table: vec![0; vectors * ENTRY], pending: vec![0; vectors.div_ceil(64) * 8] };
        msix.reset();
        msix
    }

    /// Back to what [`MsixTable::new`] made.
    pub fn reset(&mut self) {
        self.table.fill(0);
        for control in self.table.iter_mut().skip(CONTROL).step_by(ENTRY) {
            *control = MASKED;
        }
        self.pending.fill(0);
    }

    /// Reads the table range; zero behind the last entry.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        copy_from(&self.table, offset, data);
    }

    /// Writes the table range; reserved bits stay 0.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let Ok(offset) = usize::try_from(offset) else { return };
        for ((at, byte), value) in self.table.iter_mut().enumerate().skip(offset).zip(data) {
            *byte = match at % ENTRY {
                0 => value & ADDRESS_LOW,
                CONTROL => value & MASKED,
                13..ENTRY => 0,
                _ => *value,
            };
        }
    }

    /// Reads the PBA range, which software cannot write; zero behind the last quadword.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) {
        copy_from(&self.pending, offset, data);
    }

    /// Sets or clears a vector's pending bit. A vector beyond the table is ignored.
    pub fn set_pending(&mut self, vector: u16, pending: bool) {
        if usize::from(vector) * ENTRY >= self.table.len() {
            return;
        }
        if let Some(byte) = self.pending.get_mut(usize::from(vector / 8)) {
            let bit = 1 << (vector % 8);
            *byte = if pending { *byte | bit } else { *byte & !bit };
        }
    }
}

fn copy_from(bytes: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = rest.get(at).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_masked_and_returns_to_it() {
        let mut msix = MsixTable::new(3);
        let fresh = msix.clone();
        let mut data = [0xa5; 64];
        msix.read_table(0, &mut data);
        let mut expected = [0; 64];
        for vector in 0..3 {
            expected[vector * 16 + 12] = 1;
        }
        assert_eq!(data, expected);
        msix.write_table(0, &[0xff; 64]);
        msix.set_pending(2, true);
        msix.reset();
        assert_eq!(msix, fresh);
    }

    #[test]
    fn reserved_bits_and_bytes_behind_the_table_are_not_writable() {
        let mut msix = MsixTable::new(2);
        msix.write_table(0, &[0xff; 64]);
        let mut data = [0xa5; 64];
        msix.read_table(0, &mut data);
        for entry in [0, 16] {
            let mut expected = [0xff; 16];
            expected[0] = 0xfc;
            expected[12] = 1;
            expected[13..].fill(0);
            assert_eq!(data[entry..entry + 16], expected);
        }
        assert_eq!(data[32..], [0; 32]);
        for offset in [31, 32, 4095, u64::MAX] {
            msix.write_table(offset, &[0xff; 8]);
            msix.read_table(offset, &mut data);
        }
        assert_eq!(data, [0; 64]);
    }

    #[test]
    fn partial_writes_touch_their_bytes_only() {
        let mut msix = MsixTable::new(2);
        msix.write_table(17, &[0x12, 0x34]);
        let mut data = [0xa5; 16];
        msix.read_table(16, &mut data);
        assert_eq!(data, [0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn pending_bits_are_one_per_vector() {
        let mut msix = MsixTable::new(65);
        for vector in [0, 9, 64, 65, u16::MAX] {
            msix.set_pending(vector, true);
        }
        let mut data = [0xa5; 24];
        msix.read_pba(0, &mut data);
        let mut expected = [0; 24];
        (expected[0], expected[1], expected[8]) = (1, 2, 1);
        assert_eq!(data, expected);
        msix.set_pending(9, false);
        msix.read_pba(1, &mut data[..1]);
        assert_eq!(data[0], 0);
        msix.read_pba(u64::MAX, &mut data);
        assert_eq!(data, [0; 24]);
    }
}
