//! Exports of a BAR's memory: which may be made when.
use std::sync::Arc;

use super::{Bar, Slot};
use crate::memory::{DmaBufMaker, FileAccess, Size};
use crate::pages::PageRange;
use crate::sides::{Exported, MAX_EXPORTS, Refused, Revocation, Revoked};
use crate::{Attribute, Kind, MemoryError, PAGE_SIZE, TdiPhase, Tee};

/// How a BAR's memory is given away.
#[derive(Clone, Debug, Default)]
pub struct Exporting {
    /// What becomes of exports whose pages go to the other side, unless their range says so itself.
    pub revocation: Revocation,
    /// Whether T = 1 exports may be made in CONFIG_UNLOCKED already; they show ones until RUN as those of CONFIG_LOCKED do.
    pub early: bool,
    /// Whether the file of [`Bar::shared_mapping`] has the BAR in its second half.
    pub behind_itself: bool,
    /// What makes dma-bufs of exports that are never cut. Without it, and of those that may be, the memfd is given away itself.
    pub maker: Option<Arc<dyn DmaBufMaker>>,
}

/// Why memory of a BAR is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Nothing asked for.
    #[error("there are no ranges")]
    Empty,
    /// Not whole pages.
    #[error("{offset:#x} and {length:#x} bytes: not whole pages of 4096")]
    Unaligned {
        /// As asked for.
        offset: u64,
        /// As asked for.
        length: u64,
    },
    /// Beyond the BAR.
    #[error("{offset:#x} and {length:#x} bytes: beyond the BAR, which has {size:#x}")]
    Outside {
        /// As asked for.
        offset: u64,
        /// As asked for.
        length: u64,
        /// Of the BAR.
        size: u64,
    },
    /// Two ranges of one request have a page in common.
    #[error("page {page} is asked for twice")]
    Twice {
        /// Counted from the start of the BAR.
        page: u32,
    },
    /// There is no memory behind it.
    #[error("page {page} is {kind}, not memory")]
    NotMemory {
        /// Counted from the start of the BAR.
        page: u32,
        /// What is there.
        kind: Kind,
    },
    /// Private and shared pages in one export.
    #[error("private and shared pages in one export: page {page} is {attribute:?}, the first is not")]
    Mixed {
        /// The first page unlike the others, counted from the start of the BAR.
        page: u32,
        /// Its attribute.
        attribute: Attribute,
    },
    /// Pages of the other side.
    #[error("{attribute:?} pages are not exported with {}", if matches!(side, Tee::Tee) { "T = 1" } else { "T = 0" })]
    OtherSide {
        /// Theirs.
        attribute: Attribute,
        /// As asked for.
        side: Tee,
    },
    /// Not in this phase.
    #[error("there is no T = 1 export in {phase:?}")]
    Phase {
        /// Now.
        phase: TdiPhase,
    },
    /// Pages that somebody has already.
    #[error("page {page} is in another export, which somebody holds")]
    Overlap {
        /// Counted from the start of the BAR.
        page: u32,
    },
    /// Pages that are in the mapping of the region.
    #[error(
        "page {page} is in what the region offered for mapping, somebody holds that, and it cannot be in another file as well"
    )]
    Mapped {
        /// Counted from the start of the BAR.
        page: u32,
    },
    /// A dma-buf of /dev/udmabuf can be written to by whoever has it.
    #[error("a dma-buf is for reading and writing, not for reading only")]
    ReadOnly,
    /// Each costs descriptors.
    #[error("{most} exports of the BAR are held already")]
    TooMany {
        /// The most there may be.
        most: usize,
    },
    /// What was revoked stays in use as long as its holders do not let go.
    #[error(
        "{bytes:#x} bytes of exports that lost their pages are still held, which leaves no room for more"
    )]
    Lingering {
        /// Theirs.
        bytes: u64,
    },
    /// The host.
    #[error("{}: {}", .0, .0.source)]
    Memory(#[from] MemoryError),
}

impl Bar {
    /// A descriptor of memory, `ranges` (offset and length in bytes) one behind the other, as the `side` sees it.
    ///
    /// In CONFIG_UNLOCKED all memory is the host's, T = 0; from LOCK on, private pages are T = 1 and shared ones T = 0. What is
    /// exported with T = 1 before RUN is full of ones, and what is written there is gone in RUN. The export lasts as long as
    /// somebody holds the descriptor or a mapping of it, or until it is revoked.
    ///
    /// # Errors
    /// See [`ExportError`]; nothing has changed then.
    pub fn export(
        &mut self,
        phase: TdiPhase,
        side: Tee,
        ranges: &[(u64, u64)],
        access: FileAccess,
    ) -> Result<Exported, ExportError> {
        let pages = self.page_ranges(ranges)?;
        if side == Tee::Tee {
            match phase {
                TdiPhase::Unlocked if !self.exporting.early => return Err(ExportError::Phase { phase }),
                TdiPhase::Error => return Err(ExportError::Phase { phase }),
                TdiPhase::Unlocked | TdiPhase::Locked | TdiPhase::Run => {}
            }
        }
        self.check_attributes(phase, side, &pages)?;
        let size = if self.can_be_cut(&pages) { Size::Cuttable } else { Size::Final };
        let dark = side == Tee::Tee && phase != TdiPhase::Run;
        self.sides.export(side, &pages, dark, size, access).map_err(|refused| match refused {
            Refused::Overlap(taken) => ExportError::Overlap { page: taken.first },
            Refused::ReadOnly => ExportError::ReadOnly,
            Refused::TooMany => ExportError::TooMany { most: MAX_EXPORTS },
            Refused::Lingering(bytes) => ExportError::Lingering { bytes },
            Refused::Memory(error) => error.into(),
        })
    }

    /// Takes back exports that nobody holds any more, with what is in them. The same happens with every change-over.
    ///
    /// # Errors
    /// The first failure.
    pub fn sweep(&mut self) -> Result<(), MemoryError> {
        self.sides.sweep()
    }

    /// The sides of exports that were taken back because nobody held them any more, since the last call.
    pub fn take_dropped(&mut self) -> Vec<Tee> {
        self.sides.take_dropped()
    }

    /// The pages that are in exports, each run with its side. Of some of them the last holder may be gone.
    pub fn exports(&self) -> impl Iterator<Item = (Tee, PageRange)> {
        self.sides.exports()
    }

    /// Whether pages of these are in a range whose exports lose their pages.
    fn can_be_cut(&self, pages: &[PageRange]) -> bool {
        let cut = |slot: &&Slot| self.revocation(&slot.range) == Revocation::Sigbus;
        let mut slots = self.slots.iter().filter(cut);
        slots.any(|slot| pages.iter().any(|range| range.overlap(&slot.pages()).is_some()))
    }

    /// Exports that lost pages since the last call.
    pub fn take_revoked(&mut self) -> Vec<Revoked> {
        self.sides.take_revoked()
    }

    fn page_ranges(&self, ranges: &[(u64, u64)]) -> Result<Vec<PageRange>, ExportError> {
        let size = self.layout.size();
        let mut pages: Vec<PageRange> = Vec::with_capacity(ranges.len());
        for &(offset, length) in ranges {
            if length == 0 || !offset.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
                return Err(ExportError::Unaligned { offset, length });
            }
            if offset.checked_add(length).is_none_or(|end| end > size) {
                return Err(ExportError::Outside { offset, length, size });
            }
            // A BAR counts its pages in 32 bits.
            pages.push(PageRange { first: (offset / PAGE_SIZE) as u32, pages: (length / PAGE_SIZE) as u32 });
        }
        let mut sorted = pages.clone();
        sorted.sort_by_key(|range| range.first);
        for (one, next) in sorted.iter().zip(sorted.iter().skip(1)) {
            if let Some(twice) = one.overlap(next) {
                return Err(ExportError::Twice { page: twice.first });
            }
        }
        if pages.is_empty() { Err(ExportError::Empty) } else { Ok(pages) }
    }

    fn check_attributes(&self, phase: TdiPhase, side: Tee, pages: &[PageRange]) -> Result<(), ExportError> {
        let mut first = None;
        let mapped = side == Tee::NonTee && self.sides.is_handed_out(Tee::NonTee);
        for asked in pages {
            for slot in &self.slots {
                let Some(both) = slot.pages().overlap(asked) else { continue };
                if !slot.is_memory() {
                    return Err(ExportError::NotMemory { page: both.first, kind: slot.range.kind });
                }
                if mapped && !slot.range.may_be_private() {
                    return Err(ExportError::Mapped { page: both.first });
                }
                // Before LOCK, the host's view knows no sides.
                if side == Tee::NonTee && phase == TdiPhase::Unlocked {
                    continue;
                }
                let attribute = slot.range.attribute;
                if *first.get_or_insert(attribute) != attribute {
                    return Err(ExportError::Mixed { page: both.first, attribute });
                }
            }
        }
        let fitting = match side {
            Tee::NonTee => Attribute::Shared,
            Tee::Tee => Attribute::Private,
        };
        match first.filter(|attribute| *attribute != fitting) {
            Some(attribute) => Err(ExportError::OtherSide { attribute, side }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
