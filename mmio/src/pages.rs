//! Which file a page of a BAR is in, as one side sees it: the BAR's own, or that of an export.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::memory::{MemoryFile, Size, each};
use crate::{MemoryError, PAGE_SIZE};

/// A run of 4 KiB pages of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// First page, counted from the start of the BAR.
    pub first: u32,
    /// Number of pages.
    pub pages: u32,
}

impl PageRange {
    /// The page after the last.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.first.saturating_add(self.pages)
    }

    /// First byte, counted from the start of the BAR.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.first as u64 * PAGE_SIZE
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pages as u64 * PAGE_SIZE
    }

    /// The pages that both have.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let pages = self.end().min(other.end()).checked_sub(first).filter(|pages| *pages > 0)?;
        Some(Self { first, pages })
    }
}

/// Pages that are not in the BAR's own file.
#[derive(Clone, Debug)]
struct Moved {
    pages: u32,
    file: Arc<MemoryFile>,
    /// Where they begin in it.
    file_page: u32,
}

/// All pages of a BAR, as one side sees them.
#[derive(Debug)]
pub(crate) struct Pages {
    bar: u8,
    name: String,
    base: Arc<MemoryFile>,
    pages: u32,
    /// Where page 0 lies in the BAR's own file.
    shift: u32,
    /// By their first page; they do not overlap.
    moved: BTreeMap<u32, Moved>,
}

impl Pages {
    /// `pages` pages of zeroes in one file, which begin at page `shift` of it.
    pub(crate) fn new(bar: u8, name: &str, pages: u32, shift: u32) -> Result<Self, MemoryError> {
        let base = Self::file(bar, name, pages, shift)?;
        Ok(Self { bar, name: name.into(), base, pages, shift, moved: BTreeMap::new() })
    }

    fn file(bar: u8, name: &str, pages: u32, shift: u32) -> Result<Arc<MemoryFile>, MemoryError> {
        let bytes = (u64::from(pages) + u64::from(shift)) * PAGE_SIZE;
        Ok(Arc::new(MemoryFile::new(bar, name, bytes, Size::Final)?))
    }

    /// Another file of zeroes as the BAR's own, if somebody holds the one that is.
    pub(crate) fn renew(&mut self) -> Result<(), MemoryError> {
        if self.base.is_held() {
            self.base = Self::file(self.bar, &self.name, self.pages, self.shift)?;
        }
        Ok(())
    }

    /// Bytes of the BAR.
    pub(crate) const fn size(&self) -> u64 {
        self.pages as u64 * PAGE_SIZE
    }

    /// The BAR's own file.
    pub(crate) fn base(&self) -> &MemoryFile {
        &self.base
    }

    /// Where `page` is, and how many pages follow it there, itself counted.
    fn run(&self, page: u32) -> (&Arc<MemoryFile>, u32, u32) {
        if let Some((&first, moved)) = self.moved.range(..=page).next_back()
            && page - first < moved.pages
        {
            return (&moved.file, moved.file_page + (page - first), moved.pages - (page - first));
        }
        let next = self.moved.range(page..).next().map_or(self.pages, |(&first, _)| first);
        (&self.base, self.shift + page, next.saturating_sub(page))
    }

    /// The pieces of `range`, each in one file at one byte offset: the file, the offset, and the pages.
    fn pieces(&self, range: PageRange) -> impl Iterator<Item = (&Arc<MemoryFile>, u64, PageRange)> {
        let mut page = range.first;
        core::iter::from_fn(move || {
            let left = range.end().checked_sub(page).filter(|left| *left > 0)?;
            let (file, file_page, run) = self.run(page);
            let piece = PageRange { first: page, pages: run.min(left) };
            page = piece.end();
            Some((file, u64::from(file_page) * PAGE_SIZE, piece))
        })
    }

    /// The file of the byte at `offset`, its place there, and how many bytes follow it there.
    fn locate(&self, offset: u64) -> (&MemoryFile, u64, u64) {
        let (page, skip) = (offset / PAGE_SIZE, offset % PAGE_SIZE);
        // A BAR counts its pages in 32 bits.
        let (file, file_page, run) = self.run(page as u32);
        (file, u64::from(file_page) * PAGE_SIZE + skip, u64::from(run) * PAGE_SIZE - skip)
    }

    /// Reads bytes that lie in the BAR.
    pub(crate) fn read(&self, mut offset: u64, mut data: &mut [u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            let (file, at, left) = self.locate(offset);
            let count = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, rest) = data.split_at_mut(count);
            file.read(at, now)?;
            offset += count as u64;
            data = rest;
        }
        Ok(())
    }

    /// Writes bytes that lie in the BAR.
    pub(crate) fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<(), MemoryError> {
        while !data.is_empty() {
            let (file, at, left) = self.locate(offset);
            let count = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, rest) = data.split_at(count);
            file.write(at, now)?;
            offset += count as u64;
            data = rest;
        }
        Ok(())
    }

    /// Zeroes pages wherever they are.
    ///
    /// # Errors
    /// The first failure; the rest was still zeroed.
    pub(crate) fn zero(&self, range: PageRange) -> Result<(), MemoryError> {
        each(self.pieces(range).map(|(file, at, piece)| file.zero(at, piece.size())))
    }

    /// Copies pages into `target`, which is zero there.
    pub(crate) fn copy(&self, range: PageRange, target: &MemoryFile, at: u64) -> Result<(), MemoryError> {
        self.pieces(range).try_for_each(|(file, from, piece)| {
            file.copy(from, target, at + (piece.offset() - range.offset()), piece.size())
        })
    }

    /// Puts what `file` has from `at` on into pages, which are zero.
    pub(crate) fn fill_from(&self, range: PageRange, file: &MemoryFile, at: u64) -> Result<(), MemoryError> {
        self.pieces(range).try_for_each(|(own, to, piece)| {
            file.copy(at + (piece.offset() - range.offset()), own, to, piece.size())
        })
    }

    /// From now on `range`, which is in the BAR's own file, is in `file` instead.
    pub(crate) fn send(&mut self, range: PageRange, file: &Arc<MemoryFile>, file_page: u32) {
        self.moved.insert(range.first, Moved { pages: range.pages, file: Arc::clone(file), file_page });
    }

    /// From now on `range` is in the BAR's own file again, with whatever that has there.
    pub(crate) fn call_back(&mut self, range: PageRange) {
        let before = self.moved.range(..range.first).next_back();
        let hit: Vec<u32> = before
            .filter(|(first, moved)| **first + moved.pages > range.first)
            .into_iter()
            .chain(self.moved.range(range.first..range.end()))
            .map(|(first, _)| *first)
            .collect();
        for first in hit {
            let Some(moved) = self.moved.remove(&first) else { continue };
            let end = first + moved.pages;
            if first < range.first {
                self.moved.insert(first, Moved { pages: range.first - first, ..moved.clone() });
            }
            if end > range.end() {
                let cut = range.end() - first;
                let rest = Moved { pages: end - range.end(), file_page: moved.file_page + cut, ..moved };
                self.moved.insert(range.end(), rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: u32 = 16;
    const ALL: PageRange = PageRange { first: 0, pages: PAGES };

    /// The first byte of every page.
    fn firsts(pages: &Pages) -> Vec<u8> {
        let mut bytes = vec![0xa5; PAGES as usize * PAGE_SIZE as usize];
        pages.read(0, &mut bytes).unwrap();
        bytes.chunks(PAGE_SIZE as usize).map(|page| page[0]).collect()
    }

    #[test]
    fn a_byte_lies_behind_the_shift_in_the_file() {
        let pages = Pages::new(2, "test", PAGES, 3).unwrap();
        pages.write(PAGE_SIZE + 1, &[7]).unwrap();
        let mut byte = [0];
        pages.base.read(4 * PAGE_SIZE + 1, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }

    proptest! {
        /// Against an array that notes for every page which file it is in.
        #[test]
        fn pages_are_where_they_were_sent(
            steps in proptest::collection::vec((0..PAGES, 1..PAGES, any::<bool>(), any::<u8>()), 1..24)
        ) {
            let mut pages = Pages::new(2, "test", PAGES, 0).unwrap();
            let mut model = [0_u8; PAGES as usize];
            let mut base = [0_u8; PAGES as usize];
            let mut moved = [false; PAGES as usize];
            for (first, count, send, byte) in steps {
                let range = PageRange { first, pages: count.min(PAGES - first) };
                let span = first as usize..range.end() as usize;
                if send && !moved[span.clone()].contains(&true) {
                    let file = Arc::new(MemoryFile::new(2, "export", range.size() + PAGE_SIZE, Size::Final).unwrap());
                    pages.copy(range, &file, PAGE_SIZE).unwrap();
                    pages.send(range, &file, 1);
                    moved[span].fill(true);
                } else if !send {
                    pages.call_back(range);
                    moved[span.clone()].fill(false);
                    model[span.clone()].copy_from_slice(&base[span]);
                }
                pages.write(range.offset(), &[byte]).unwrap();
                model[first as usize] = byte;
                if !moved[first as usize] {
                    base[first as usize] = byte;
                }
                prop_assert_eq!(firsts(&pages), model);
            }
            pages.zero(ALL).unwrap();
            prop_assert_eq!(firsts(&pages), [0; PAGES as usize]);
        }
    }
}
