//! The test function's doorbells: a register for each interrupt vector that raises it when it is written.

use mmio::{Register, RegisterHandler, RegisterMap, RegisterWidth};

use super::test_function::VECTORS;

const COUNT: usize = VECTORS as usize;
/// In the order of the vectors. What is behind them reads 0 and ignores writes, as everywhere between registers.
const BELLS: [Register<usize>; COUNT] = [bell(0), bell(1), bell(2), bell(3)];
const MAP: RegisterMap<usize> = RegisterMap::new(&BELLS);

const fn bell(vector: usize) -> Register<usize> {
    Register { offset: 4 * vector as u64, width: RegisterWidth::Bits32, id: vector }
}

/// How often each was rung.
#[derive(Debug, Default)]
pub(super) struct Doorbells {
    rung: [u32; COUNT],
}

impl Doorbells {
    /// `offset` counts from the start of the doorbells' range.
    pub(super) fn read(&mut self, offset: u64, data: &mut [u8]) {
        MAP.read(offset, data, &mut Handler { rung: &mut self.rung, raise: &mut |_| {} });
    }

    /// `raise` is told every vector that was rung.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], raise: &mut dyn FnMut(u32)) {
        MAP.write(offset, data, &mut Handler { rung: &mut self.rung, raise });
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Counts, and whom to tell, for one access.
struct Handler<'a> {
    rung: &'a mut [u32; COUNT],
    raise: &'a mut dyn FnMut(u32),
}

impl RegisterHandler for Handler<'_> {
    type Id = usize;

    fn read(&mut self, vector: usize) -> u64 {
        self.rung.get(vector).copied().unwrap_or_default().into()
    }

    /// Whatever is written rings.
    fn untouched(&self, _: usize) -> u64 {
        0
    }

    fn write(&mut self, vector: usize, _: u64) {
        if let Some(rung) = self.rung.get_mut(vector) {
            *rung = rung.wrapping_add(1);
            (self.raise)(vector as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(doorbells: &mut Doorbells, offset: u64, data: &[u8]) -> Vec<u32> {
        let mut raised = Vec::new();
        doorbells.write(offset, data, &mut |vector| raised.push(vector));
        raised
    }

    fn image(doorbells: &mut Doorbells) -> [u8; 24] {
        let mut image = [0xa5; 24];
        doorbells.read(0, &mut image);
        image
    }

    #[test]
    fn a_write_rings_what_it_touches_and_nothing_else() {
        let mut doorbells = Doorbells::default();
        assert_eq!(ring(&mut doorbells, 8, &0_u32.to_le_bytes()), [2], "whatever is written");
        assert_eq!(ring(&mut doorbells, 4, &[0xff; 8]), [1, 2], "each register of a wide access");
        assert_eq!(ring(&mut doorbells, 15, &[1]), [3], "a byte of it");
        assert_eq!(ring(&mut doorbells, 16, &[1; 4096]), [] as [u32; 0], "there are no more");
        assert_eq!(ring(&mut doorbells, u64::MAX, &[1; 4]), [] as [u32; 0]);
        let counts = [0_u32, 1, 2, 1, 0, 0].map(u32::to_le_bytes).concat();
        assert_eq!(image(&mut doorbells)[..], counts);
        doorbells.reset();
        assert_eq!(image(&mut doorbells), [0; 24]);
    }

    #[test]
    fn counts_begin_anew_behind_the_last() {
        let mut doorbells = Doorbells { rung: [u32::MAX, 0, 0, 0] };
        assert_eq!(ring(&mut doorbells, 0, &[1]), [0]);
        assert_eq!(image(&mut doorbells), [0; 24]);
    }
}
