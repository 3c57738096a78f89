//! What stands in memory before anyone has written to it.
use std::io::{self, Read};

use super::Bar;
use crate::{ByteSize, Kind, MemoryError, Tee};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Why a memory range did not get its contents.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such range, or it is no memory.
    #[error("range {0} is no memory")]
    NotMemory(usize),
    /// The contents end behind the range.
    #[error("more than the {} of the range", ByteSize(*.0))]
    TooLarge(u64),
    /// Reading the contents failed.
    #[error(transparent)]
    Source(#[from] io::Error),
    /// Writing them failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl Bar {
    /// Fills a memory range from its first byte on, as one side sees it; behind the end of `contents` it is zero. `range`
    /// counts the ranges of the layout.
    ///
    /// # Errors
    /// [`LoadError`]; the range is zero then, unless the memory itself fails.
    pub fn load(&mut self, range: usize, contents: &mut dyn Read, side: Tee) -> Result<(), LoadError> {
        let at = *self.layout.ranges().get(range).ok_or(LoadError::NotMemory(range))?;
        if at.kind != Kind::Memory {
            return Err(LoadError::NotMemory(range));
        }
        let memory = self.sides.pages(side);
        memory.zero(at.page_range())?;
        let filled = fill(at.size(), contents, |offset, piece| memory.write(at.offset() + offset, piece));
        if filled.is_err() {
            memory.zero(at.page_range())?;
        }
        filled
    }
}

/// Hands `contents` to `write` in pieces, with the offset of each.
fn fill(
    size: u64,
    contents: &mut dyn Read,
    write: impl Fn(u64, &[u8]) -> Result<(), MemoryError>,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let count = match contents.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if count as u64 > size - offset {
            return Err(LoadError::TooLarge(size));
        }
        let piece = buffer.get(..count).unwrap_or_default();
        // Zeroes are there already: the memory stays as sparse as the file.
        if piece.iter().any(|byte| *byte != 0) {
            write(offset, piece)?;
        }
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddressWidth, Attribute, BarLayout, Exporting, Gate, RangeLayout};

    const PAGE: usize = 4096;

    /// Registers, private memory of two pages, shared memory of one.
    fn bar() -> Bar {
        let range = |kind, pages, attribute| RangeLayout {
            kind,
            pages,
            attribute,
            updatable: attribute == Attribute::Private,
            revocation: None,
        };
        let ranges = [
            range(Kind::Registers, 1, Attribute::Shared),
            range(Kind::Memory, 2, Attribute::Private),
            range(Kind::Memory, 1, Attribute::Shared),
        ];
        Bar::new(
            BarLayout::new(0, AddressWidth::Bits32, false, &ranges).unwrap(),
            Gate::default(),
            Exporting::default(),
        )
        .unwrap()
    }

    fn memory(bar: &Bar, page: usize, pages: usize) -> Vec<u8> {
        let mut data = vec![0xa5; pages * PAGE];
        bar.sides.pages(Tee::NonTee).read((page * PAGE) as u64, &mut data).unwrap();
        data
    }

    /// Gives one byte at a time, and fails or is interrupted where it says so.
    struct Slow(Vec<Result<u8, io::ErrorKind>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.0.remove(0)?;
            Ok(1)
        }
    }

    #[test]
    fn contents_begin_the_range_and_zeroes_end_it() {
        let mut bar = bar();
        bar.load(1, &mut &[0xff; 2 * PAGE][..], Tee::NonTee).unwrap();
        bar.load(2, &mut &[7; PAGE][..], Tee::NonTee).unwrap();
        bar.load(1, &mut &[1, 2, 3][..], Tee::NonTee).unwrap();
        let mut expected = vec![0; 2 * PAGE];
        expected[..3].copy_from_slice(&[1, 2, 3]);
        assert_eq!(memory(&bar, 1, 2), expected);
        assert_eq!(memory(&bar, 3, 1), [7; PAGE], "its neighbour");
        bar.load(1, &mut Slow(vec![Ok(9), Err(io::ErrorKind::Interrupted), Ok(0), Ok(8)]), Tee::NonTee)
            .unwrap();
        assert_eq!(memory(&bar, 1, 1)[..4], [9, 0, 8, 0]);
    }

    #[test]
    fn what_cannot_be_loaded_leaves_zeroes() {
        let mut bar = bar();
        let failing = [Ok(1), Err(io::ErrorKind::PermissionDenied)];
        for (mut contents, expected) in [
            (
                Box::new(io::Cursor::new(vec![1_u8; 2 * PAGE + 1])) as Box<dyn Read>,
                "more than the 8K of the range",
            ),
            (Box::new(Slow(failing.to_vec())), "permission denied"),
        ] {
            bar.load(1, &mut &[5; PAGE][..], Tee::NonTee).unwrap();
            let error = bar.load(1, &mut contents, Tee::NonTee).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(memory(&bar, 1, 2), [0; 2 * PAGE]);
        }
        for range in [0, 3, usize::MAX] {
            let error = bar.load(range, &mut io::empty(), Tee::NonTee).unwrap_err();
            assert!(matches!(error, LoadError::NotMemory(at) if at == range), "{error}");
        }
    }

    #[test]
    fn each_side_is_filled_on_its_own() {
        let mut bar = bar();
        bar.load(1, &mut &[6; 2 * PAGE][..], Tee::Tee).unwrap();
        assert_eq!(memory(&bar, 1, 2), [0; 2 * PAGE]);
        let mut data = [0; 1];
        bar.sides.pages(Tee::Tee).read(3 * PAGE as u64 - 1, &mut data).unwrap();
        assert_eq!(data, [6]);
    }
}
