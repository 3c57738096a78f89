//! From bytes at an offset to whole registers: what a function needs so that its handlers never see a partial access.

/// Size of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterWidth {
    /// One byte.
    Bits8,
    /// Two bytes.
    Bits16,
    /// Four bytes.
    Bits32,
    /// Eight bytes.
    Bits64,
}

impl RegisterWidth {
    const fn bytes(self) -> u64 {
        match self {
            Self::Bits8 => 1,
            Self::Bits16 => 2,
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }
}

/// One register in a map.
#[derive(Clone, Copy, Debug)]
pub struct Register<Id> {
    /// Byte offset, a multiple of the width.
    pub offset: u64,
    /// Size.
    pub width: RegisterWidth,
    /// The function's name for it.
    pub id: Id,
}

/// Whole registers, as the function sees them. Values are little-endian on the wire and zero-extended here.
pub trait RegisterHandler {
    /// The function's name for a register.
    type Id: Copy + 'static;

    /// What a read returns.
    fn read(&mut self, id: Self::Id) -> u64;

    /// The value of the bytes that a partial write does not cover. For a plain register what is stored; for one whose
    /// set bits act when written (a doorbell, write-1-to-clear) 0, so that nothing acts that was not written.
    fn untouched(&self, id: Self::Id) -> u64;

    /// Takes a write of the whole register.
    fn write(&mut self, id: Self::Id, value: u64);
}

/// Registers by ascending offset. Bytes between them read as zero and ignore writes.
#[derive(Debug)]
pub struct RegisterMap<Id: 'static> {
    registers: &'static [Register<Id>],
}

impl<Id: Copy> RegisterMap<Id> {
    /// Takes the map as it stands.
    ///
    /// # Panics
    /// Unless registers are aligned, in order and apart. Make it a constant, and this is an error of the compiler.
    #[must_use]
    pub const fn new(registers: &'static [Register<Id>]) -> Self {
        let mut free = 0;
        let mut rest = registers;
        while let [register, tail @ ..] = rest {
            assert!(register.offset.is_multiple_of(register.width.bytes()), "a register is not aligned");
            assert!(register.offset >= free, "registers overlap or are out of order");
            free = register.offset + register.width.bytes();
            rest = tail;
        }
        Self { registers }
    }

    /// The registers, by ascending offset.
    #[must_use]
    pub const fn registers(&self) -> &'static [Register<Id>] {
        self.registers
    }

    /// Reads any bytes: every register touched is read once, whole.
    pub fn read(&self, offset: u64, data: &mut [u8], handler: &mut (impl RegisterHandler<Id = Id> + ?Sized)) {
        data.fill(0);
        for (register, overlap) in self.touched(offset, data.len()) {
            let value = handler.read(register.id).to_le_bytes();
            for (byte, value) in overlap.of_mut(data).iter_mut().zip(value.iter().skip(overlap.skip)) {
                *byte = *value;
            }
        }
    }

    /// Writes any bytes: every register touched is written once, whole, in ascending order.
    pub fn write(&self, offset: u64, data: &[u8], handler: &mut (impl RegisterHandler<Id = Id> + ?Sized)) {
        for (register, overlap) in self.touched(offset, data.len()) {
            let mut value = handler.untouched(register.id).to_le_bytes();
            for (value, byte) in value.iter_mut().skip(overlap.skip).zip(overlap.of(data)) {
                *value = *byte;
            }
            handler.write(register.id, u64::from_le_bytes(value));
        }
    }

    fn touched(&self, offset: u64, length: usize) -> impl Iterator<Item = (&'static Register<Id>, Overlap)> {
        let end = offset.saturating_add(length as u64);
        let first =
            self.registers.partition_point(|register| register.offset + register.width.bytes() <= offset);
        let registers = self.registers.get(first..).unwrap_or_default();
        registers.iter().take_while(move |register| register.offset < end).map(move |register| {
            let from = register.offset.max(offset);
            let to = (register.offset + register.width.bytes()).min(end);
            // All three fit: they are less than the length of a slice, or of a register.
            let overlap = Overlap {
                skip: (from - register.offset) as usize,
                start: (from - offset) as usize,
                end: (to - offset) as usize,
            };
            (register, overlap)
        })
    }
}

/// Which bytes of an access and of a register meet.
struct Overlap {
    /// Bytes of the register before the first one touched.
    skip: usize,
    /// First byte in the access.
    start: usize,
    /// The byte behind the last one in the access.
    end: usize,
}

impl Overlap {
    fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(self.start..self.end).unwrap_or_default()
    }

    fn of_mut<'a>(&self, data: &'a mut [u8]) -> &'a mut [u8] {
        data.get_mut(self.start..self.end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegisterWidth::{Bits32, Bits64};
    use proptest::prelude::*;

    const fn register(offset: u64, width: RegisterWidth, id: usize) -> Register<usize> {
        Register { offset, width, id }
    }

    const MAP: RegisterMap<usize> = RegisterMap::new(&[
        register(0, Bits32, 0),
        register(4, Bits32, 1),
        register(8, Bits64, 2),
        register(24, Bits64, 3),
        register(32, Bits32, DOORBELL),
    ]);
    const DOORBELL: usize = 4;

    #[derive(Default)]
    struct Values {
        values: [u64; 5],
        reads: Vec<usize>,
        writes: Vec<(usize, u64)>,
    }

    impl RegisterHandler for Values {
        type Id = usize;
        fn read(&mut self, id: usize) -> u64 {
            self.reads.push(id);
            self.values[id]
        }
        fn untouched(&self, id: usize) -> u64 {
            if id == DOORBELL { 0 } else { self.values[id] }
        }
        fn write(&mut self, id: usize, value: u64) {
            self.writes.push((id, value));
            self.values[id] = value;
        }
    }

    #[test]
    fn every_register_touched_is_visited_once_and_in_order() {
        let mut values =
            Values { values: [0x1111_1111, 0x2222_2222, 3, 4, 0xffff_ffff], ..Values::default() };
        MAP.read(3, &mut [0; 30], &mut values);
        assert_eq!(values.reads, [0, 1, 2, 3, 4]);
        MAP.write(3, &[0xee; 2], &mut values);
        assert_eq!(values.writes, [(0, 0xee11_1111), (1, 0x2222_22ee)]);
        MAP.read(16, &mut [0; 8], &mut values);
        MAP.write(16, &[0; 8], &mut values);
        MAP.read(8, &mut [], &mut values);
        assert_eq!((values.reads.len(), values.writes.len()), (5, 2));
    }

    #[test]
    fn narrow_registers_side_by_side_are_told_apart() {
        use RegisterWidth::{Bits8, Bits16};
        const NARROW: RegisterMap<usize> = RegisterMap::new(&[
            register(0, Bits16, 0),
            register(2, Bits8, 1),
            register(3, Bits8, 2),
            register(4, Bits16, 3),
        ]);
        let mut values = Values { values: [0xABCD, 1, 2, 3, 0], ..Values::default() };
        NARROW.write(2, &[7], &mut values);
        NARROW.write(1, &[8], &mut values);
        NARROW.write(3, &[9, 10, 11], &mut values);
        assert_eq!(values.writes, [(1, 7), (0, 0x08CD), (2, 9), (3, 0x0B0A)]);
        let mut read = [0xA5; 8];
        NARROW.read(0, &mut read, &mut values);
        assert_eq!(read, [0xCD, 8, 7, 9, 10, 11, 0, 0]);
    }

    #[test]
    fn a_partial_write_of_a_doorbell_rings_only_what_was_written() {
        let mut values = Values { values: [0, 0, 0, 0, 0xffff_ffff], ..Values::default() };
        MAP.write(33, &[0x80], &mut values);
        assert_eq!(values.writes, [(DOORBELL, 0x8000)]);
    }

    proptest! {
        /// Against plain bytes, with holes.
        #[test]
        fn any_traffic_is_as_with_an_array_of_bytes(
            accesses in proptest::collection::vec(
                (0_u64..44, proptest::collection::vec(any::<u8>(), 0..44)), 0..32)
        ) {
            let mut values = Values::default();
            let mut model = [0_u8; 96];
            for (offset, data) in accesses {
                let start = offset as usize;
                // Bytes next to the one written read 0 in the doorbell, so the model stops before it.
                let data = &data[..data.len().min(32_usize.saturating_sub(start))];
                MAP.write(offset, data, &mut values);
                model[start..start + data.len()].copy_from_slice(data);
                model[16..24].fill(0);
                model[32..].fill(0);
                let mut read = vec![0xa5; data.len() + 8];
                MAP.read(offset, &mut read, &mut values);
                prop_assert_eq!(&read, &model[start..start + read.len()]);
            }
        }

        #[test]
        fn no_offset_or_length_is_too_strange(offset in any::<u64>(), length in 0_usize..4096) {
            let mut values = Values::default();
            let mut data = vec![0xa5; length];
            MAP.write(offset, &data, &mut values);
            MAP.read(offset, &mut data, &mut values);
        }
    }
}
