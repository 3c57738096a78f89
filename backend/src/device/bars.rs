//! The BARs of a function as vfio-user regions: where T comes from, and what is exported of them.

use core::ops::Range;
use std::sync::Arc;

use mmio::{
    Access, AddressWidth, Bar, Completion, DmaBufMaker, ExportError, Exported, Exporting, FileAccess, Gate,
    MemoryError, RegisterBlock, Rejection, Revoked, TdiPhase, Tee,
};
use tdispd_proto::vfio_user::{MmapArea, WINDOW_REGION};

use crate::config::{AliasHalf, ConfigError, Mmio, PrivateEarly, TeeSource};
use crate::vfio_user::Mmap;

/// Base address registers of a function.
const BAR_SLOTS: u8 = 6;
/// Bytes a 32-bit BAR can decode (PCIe 6.1 §7.5.1.2.1: at least one address bit is left).
const MAX_32: u64 = 1 << 31;

/// A BAR as a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRegion {
    /// BAR number.
    pub(super) bar: u8,
    /// Its T = 1 window.
    pub(super) window: bool,
}

impl BarRegion {
    /// A BAR's own region, or its T = 1 window; `None` for those that no function has.
    #[must_use]
    pub fn new(bar: u8, window: bool) -> Option<Self> {
        (bar < BAR_SLOTS).then_some(Self { bar, window })
    }

    /// From the index of a vfio region; `None` for those that are no BAR.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        match index.checked_sub(WINDOW_REGION) {
            Some(bar) => Self::new(u8::try_from(bar).ok()?, true),
            None => Self::new(u8::try_from(index).ok()?, false),
        }
    }
}

/// All BARs of a function.
pub(super) struct Bars {
    bars: Vec<Bar>,
    source: TeeSource,
    /// With an alias: the upper half is T = 1.
    private_high: bool,
}

impl Bars {
    /// BARs of zeroes.
    ///
    /// # Errors
    /// The host has no memory to give.
    pub(super) fn new(
        layouts: &[mmio::BarLayout],
        config: &Mmio,
        maker: Option<&Arc<dyn DmaBufMaker>>,
    ) -> Result<Self, MemoryError> {
        let private_high = config.alias_private == AliasHalf::High;
        let exporting = Exporting {
            revocation: config.revocation().into(),
            early: config.private_early == PrivateEarly::Allow,
            behind_itself: config.tee == TeeSource::Alias && !private_high,
            maker: maker.cloned(),
        };
        let bars = layouts.iter().map(|layout| Bar::new(layout.clone(), Gate::default(), exporting.clone()));
        Ok(Self { bars: bars.collect::<Result<_, _>>()?, source: config.tee, private_high })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter()
    }

    /// Does something to every BAR, whatever fails.
    pub(super) fn each(
        &mut self,
        act: impl FnMut(&mut Bar) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let results: Vec<_> = self.bars.iter_mut().map(act).collect();
        results.into_iter().collect()
    }

    pub(super) fn get_mut(&mut self, index: u8) -> Option<&mut Bar> {
        self.bars.iter_mut().find(|bar| bar.layout().index() == index)
    }

    fn get(&self, index: u8) -> Option<&Bar> {
        self.bars.iter().find(|bar| bar.layout().index() == index)
    }

    /// Bytes of a region: a BAR's with its alias, or a window's.
    pub(super) fn region_size(&self, region: BarRegion) -> u64 {
        let Some(bar) = self.get(region.bar) else { return 0 };
        let size = bar.layout().size();
        if region.window { size } else { decoded(size, self.source) }
    }

    /// What a region offers for mapping: pages of the T = 0 side that never become TEE memory.
    pub(super) fn mapping(&mut self, region: BarRegion) -> Result<Option<Mmap>, MemoryError> {
        let Some(bar) = self.get_mut(region.bar).filter(|_| !region.window) else { return Ok(None) };
        let Some(shared) = bar.shared_mapping() else { return Ok(None) };
        // Where T = 0 begins in the region, and the BAR in the file.
        let areas = shared
            .areas
            .iter()
            .map(|area| MmapArea { offset: (shared.offset + area.offset).into(), size: area.size.into() });
        Ok(Some(Mmap { file: bar.hand_out_shared()?.into(), offset: 0, areas: areas.collect() }))
    }

    /// Reads; returns what the gate refused.
    pub(super) fn read(
        &mut self,
        requester: Requester,
        region: BarRegion,
        phase: TdiPhase,
        offset: u64,
        data: &mut [u8],
        registers: &mut dyn RegisterBlock,
    ) -> Result<Vec<Rejection>, MemoryError> {
        self.access(requester, region, phase, offset, data.len(), |bar, access, offset, bytes| {
            bar.read(access, offset, data.get_mut(bytes).unwrap_or_default(), registers)
        })
    }

    /// Writes; returns what the gate refused.
    pub(super) fn write(
        &mut self,
        requester: Requester,
        region: BarRegion,
        phase: TdiPhase,
        offset: u64,
        data: &[u8],
        registers: &mut dyn RegisterBlock,
    ) -> Result<Vec<Rejection>, MemoryError> {
        self.access(requester, region, phase, offset, data.len(), |bar, access, offset, bytes| {
            bar.write(access, offset, data.get(bytes).unwrap_or_default(), registers)
        })
    }

    /// Whether a region has all of these bytes.
    pub(super) fn covers(&self, region: BarRegion, offset: u64, length: usize) -> bool {
        offset.checked_add(length as u64).is_some_and(|end| end <= self.region_size(region))
    }

    /// Has `act` do each piece of an access, whatever fails: with its offset in the layout, and which bytes of the access it is.
    fn access(
        &mut self,
        requester: Requester,
        region: BarRegion,
        phase: TdiPhase,
        offset: u64,
        length: usize,
        mut act: impl FnMut(&mut Bar, Access, u64, Range<usize>) -> Result<Completion, MemoryError>,
    ) -> Result<Vec<Rejection>, MemoryError> {
        let mut rejected = Vec::new();
        let pieces = self.pieces(region, offset, length);
        let Some(bar) = self.get_mut(region.bar) else { return Ok(rejected) };
        let mut result = Ok(());
        for Piece { tee, offset, bytes } in pieces.into_iter().filter(|piece| !piece.bytes.is_empty()) {
            let tee = match requester {
                Requester::Memory => tee,
                Requester::Config => mmio::TeeSource::Known(Tee::NonTee),
            };
            match act(bar, Access { phase, tee }, offset, bytes) {
                Ok(done) => rejected.extend(done.rejected),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| rejected)
    }

    /// A descriptor of memory: see [`Bar::export`].
    pub(super) fn export(
        &mut self,
        region: BarRegion,
        phase: TdiPhase,
        ranges: &[(u64, u64)],
        access: FileAccess,
    ) -> Result<Exported, ExportError> {
        let side = if region.window { Tee::Tee } else { Tee::NonTee };
        match self.get_mut(region.bar) {
            Some(bar) => bar.export(phase, side, ranges, access),
            None => {
                let (offset, length) = ranges.first().copied().unwrap_or_default();
                Err(ExportError::Outside { offset, length, size: 0 })
            }
        }
    }

    /// Exports that lost pages since the last call, each with its BAR.
    pub(super) fn take_revoked(&mut self) -> Vec<(u8, Revoked)> {
        let of = |bar: &mut Bar| {
            let index = bar.layout().index();
            bar.take_revoked().into_iter().map(move |revoked| (index, revoked))
        };
        self.bars.iter_mut().flat_map(of).collect()
    }

    /// The BARs and sides of exports that were found to be held by nobody, since the last call.
    pub(super) fn take_dropped(&mut self) -> Vec<(u8, Tee)> {
        let of = |bar: &mut Bar| {
            let index = bar.layout().index();
            bar.take_dropped().into_iter().map(move |side| (index, side))
        };
        self.bars.iter_mut().flat_map(of).collect()
    }

    /// An access to a region, cut where T changes.
    fn pieces(&self, region: BarRegion, offset: u64, length: usize) -> [Piece; 2] {
        let whole =
            |tee| [Piece { tee, offset, bytes: 0..length }, Piece { tee, offset, bytes: length..length }];
        let known = mmio::TeeSource::Known;
        if region.window {
            return whole(known(Tee::Tee));
        }
        match self.source {
            TeeSource::Implicit => whole(mmio::TeeSource::Implicit),
            TeeSource::Region => whole(known(Tee::NonTee)),
            TeeSource::Alias => {
                let size = self.get(region.bar).map_or(0, |bar| bar.layout().size());
                let (low, high) =
                    if self.private_high { (Tee::NonTee, Tee::Tee) } else { (Tee::Tee, Tee::NonTee) };
                let in_low = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
                // The region ends where the alias does.
                let in_high = offset.saturating_add(in_low as u64).saturating_sub(size);
                [
                    Piece { tee: known(low), offset, bytes: 0..in_low },
                    Piece { tee: known(high), offset: in_high, bytes: in_low..length },
                ]
            }
        }
    }
}

/// Whose request an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    /// A memory request: its T is what the region or the address says.
    Memory,
    /// A configuration request, which no TVM makes: T = 0, wherever it points.
    Config,
}

/// A part of an access that has one T; it may be empty.
struct Piece {
    tee: mmio::TeeSource,
    /// In the BAR's layout.
    offset: u64,
    /// Of the access.
    bytes: Range<usize>,
}

/// Bytes that a BAR of `size` takes in the address space.
pub(super) fn decoded(size: u64, source: TeeSource) -> u64 {
    match source {
        TeeSource::Alias => size * 2,
        TeeSource::Implicit | TeeSource::Region => size,
    }
}

/// Whether every BAR has room for its alias.
pub(super) fn check_alias(
    number: usize,
    layouts: &[mmio::BarLayout],
    source: TeeSource,
) -> Result<(), ConfigError> {
    for bar in layouts {
        if bar.width() == AddressWidth::Bits32 && decoded(bar.size(), source) > MAX_32 {
            let problem = format!(
                "BAR {} is 32 bits wide and has {} bytes, which leaves no room for an alias; make it 64 bits wide",
                bar.index(),
                bar.size()
            );
            return Err(ConfigError::value(format!("function[{number}].bar"), problem));
        }
    }
    Ok(())
}
