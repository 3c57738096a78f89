//! `[[function.bar]]`: what a function's BARs consist of. A file without it has the layout of [`Function::bars_in_effect`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use mmio::{
    AddressWidth, Attribute, BarLayout, BarSet, ByteSize, LayoutError, LayoutProblem, PAGE_SIZE, RangeLayout,
    Revocation,
};
use serde::{Deserialize, Serialize};

use super::mmio::NOT_BOTH;
use super::{ConfigError, DmaBuf, Function, Kind, Mmio, Revoke, size};

/// Most ranges of one BAR. Each private one has a file descriptor of its own, and all of them have to fit into a report.
const MOST_RANGES: usize = 64;
/// Pages of private memory in the default layout, and as many of shared memory.
const DEFAULT_PAGES: u32 = 128;
/// Pages of a virtio function's registers in its default layout, and as many of its doorbells: both can be mapped with 16 KiB
/// host pages.
const VIRTIO_PAGES: u32 = 4;
/// Entries of an MSI-X table in a page.
const VECTORS_PER_PAGE: u32 = 256;

/// `[[function.bar]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// Number of the base address register, 0–5; the first of two for a 64-bit BAR.
    pub index: u8,
    /// Address bits, 32 or 64.
    #[serde(default)]
    pub width: Width,
    /// Prefetchable bit.
    #[serde(default)]
    pub prefetchable: bool,
    /// What the BAR consists of, from its first byte on; a power of two in all.
    #[serde(default, rename = "range")]
    pub ranges: Vec<Range>,
}

/// `[[function.bar.range]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// What stands there.
    pub kind: RangeKind,
    /// Bytes, a multiple of 4096: a number, or text such as "16K", "1M", "8G".
    #[serde(with = "size")]
    pub size: u64,
    /// Whose pages they are from LOCK on: `private` (TEE memory) or `shared`.
    pub side: Side,
    /// SET_MMIO_ATTRIBUTE may change the side of its pages. Memory only.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub updatable: bool,
    /// What becomes of exports of its pages when they go to the other side. By default as `[mmio]` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<Revoke>,
    /// A file with what the memory holds at the start and after each reset, from the first byte on; the rest is zero. It is
    /// never written to. Relative paths start where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Address width of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Width {
    /// Below 4 GiB.
    #[default]
    Bits32,
    /// Anywhere; the BAR takes two registers.
    Bits64,
}

impl TryFrom<i64> for Width {
    type Error = String;

    fn try_from(bits: i64) -> Result<Self, String> {
        match bits {
            32 => Ok(Self::Bits32),
            64 => Ok(Self::Bits64),
            _ => Err(format!("a BAR's width is 32 or 64, not {bits}")),
        }
    }
}

impl From<Width> for i64 {
    fn from(width: Width) -> Self {
        match width {
            Width::Bits32 => 32,
            Width::Bits64 => 64,
        }
    }
}

/// What stands behind a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeKind {
    /// The function's registers; once at most.
    Registers,
    /// Memory.
    Memory,
    /// The MSI-X table; once, together with the PBA.
    MsixTable,
    /// The MSI-X pending bit array.
    MsixPba,
    /// The function's doorbells; once at most.
    Doorbells,
    /// Nothing: reads zero, ignores writes.
    Reserved,
}

impl RangeKind {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Memory => "memory",
            Self::MsixTable => "msix-table",
            Self::MsixPba => "msix-pba",
            Self::Doorbells => "doorbells",
            Self::Reserved => "reserved",
        }
    }
}

/// Which side a range's pages belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// TEE memory: from LOCK on only the TVM reaches it, and only in RUN.
    Private,
    /// IS_NON_TEE_MEM: reachable all the time.
    Shared,
}

impl Side {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
        }
    }
}

impl Function {
    /// The BARs: those of the file, or by default the test function's private registers (BAR 0, 16 KiB, of which the first page
    /// is used), its memory, private and then as much shared, each large enough to be mapped with 64 KiB host pages (BAR 2,
    /// 1 MiB), and MSI-X (BAR 4). A virtio function has private registers and doorbells (BAR 0, 16 KiB each, of which the first
    /// page is used) and MSI-X (BAR 4).
    pub fn bars_in_effect(&self) -> Cow<'_, [Bar]> {
        if !self.bars.is_empty() {
            return Cow::Borrowed(&self.bars);
        }
        let range = |kind, pages: u32, side| Range {
            kind,
            size: u64::from(pages) * PAGE_SIZE,
            side,
            updatable: false,
            revoke: None,
            file: None,
        };
        let bar = |index, width, ranges| Bar { index, width, prefetchable: width == Width::Bits64, ranges };
        if self.kind == Kind::VirtioBlk {
            let registers = [RangeKind::Registers, RangeKind::Doorbells];
            let registers = registers.map(|kind| range(kind, VIRTIO_PAGES, Side::Private));
            let mut bars = vec![bar(0, Width::Bits32, registers.into())];
            if self.msix {
                // A vector for each queue, and one for the configuration.
                let vectors = u32::from(self.queues()) + 1;
                let pages = vectors.div_ceil(VECTORS_PER_PAGE).next_power_of_two();
                let msix = [RangeKind::MsixTable, RangeKind::MsixPba];
                bars.push(bar(4, Width::Bits32, msix.map(|kind| range(kind, pages, Side::Shared)).into()));
            }
            return Cow::Owned(bars);
        }
        let (registers, memory) = (RangeKind::Registers, RangeKind::Memory);
        let mut pages =
            vec![range(memory, DEFAULT_PAGES.saturating_sub(self.updatable_pages), Side::Private)];
        if self.updatable_pages > 0 {
            pages.push(Range { updatable: true, ..range(memory, self.updatable_pages, Side::Private) });
        }
        pages.push(range(memory, DEFAULT_PAGES, Side::Shared));
        let mut bars = vec![
            bar(0, Width::Bits32, vec![range(registers, 4, Side::Private)]),
            bar(2, Width::Bits64, pages),
        ];
        if self.msix {
            let msix = [RangeKind::MsixTable, RangeKind::MsixPba].map(|kind| range(kind, 1, Side::Shared));
            bars.push(bar(4, Width::Bits32, msix.into()));
        }
        Cow::Owned(bars)
    }

    /// The BARs in place; `number` is the function's, for errors.
    ///
    /// # Errors
    /// The field that makes it impossible, and what would be right.
    pub fn layout(&self, number: usize) -> Result<BarSet, ConfigError> {
        let bars = self.bars_in_effect();
        let mut layouts = Vec::with_capacity(bars.len());
        for (at, bar) in bars.iter().enumerate() {
            let field = format!("function[{number}].bar[{at}]");
            let ranges = bar.ranges.iter().enumerate().map(|(at, range)| {
                let field = format!("{field}.range[{at}]");
                range.layout(&field)
            });
            let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
            let width = match bar.width {
                Width::Bits32 => AddressWidth::Bits32,
                Width::Bits64 => AddressWidth::Bits64,
            };
            let layout = BarLayout::new(bar.index, width, bar.prefetchable, &ranges);
            layouts.push(layout.map_err(|error| at_field(&field, &error))?);
        }
        BarSet::new(layouts).map_err(|error| {
            // Of two with the same number, the later one is meant.
            let at = bars.iter().rposition(|bar| bar.index == error.bar).unwrap_or_default();
            at_field(&format!("function[{number}].bar[{at}]"), &error)
        })
    }

    /// Ranges with a file: number of the BAR, position of the range in it, the file, and the name of the field.
    pub(crate) fn files(&self, number: usize) -> impl Iterator<Item = (u8, usize, &Path, String)> {
        self.bars.iter().enumerate().flat_map(move |(at, bar)| {
            bar.ranges.iter().enumerate().filter_map(move |(range_at, Range { file, .. })| {
                let field = format!("function[{number}].bar[{at}].range[{range_at}].file");
                Some((bar.index, range_at, file.as_deref()?, field))
            })
        })
    }

    /// Has relative paths start at `directory`.
    pub(super) fn locate_files(&mut self, directory: &Path) {
        for file in
            self.bars.iter_mut().flat_map(|bar| &mut bar.ranges).filter_map(|range| range.file.as_mut())
        {
            *file = directory.join(&*file);
        }
    }

    /// No range takes away what /dev/udmabuf has to have for good.
    pub(super) fn check_revocation(&self, number: usize, mmio: &Mmio) -> Result<(), ConfigError> {
        if mmio.dmabuf != DmaBuf::Udmabuf {
            return Ok(());
        }
        for (at, bar) in self.bars.iter().enumerate() {
            if let Some(range) = bar.ranges.iter().position(|range| range.revoke == Some(Revoke::Sigbus)) {
                let field = format!("function[{number}].bar[{at}].range[{range}].revoke");
                return Err(ConfigError::value(
                    field,
                    format!("it does not go with mmio.dmabuf: {NOT_BOTH}"),
                ));
            }
        }
        Ok(())
    }

    /// Limits that the types do not express. `attributes`: SET_MMIO_ATTRIBUTE is there.
    pub(super) fn check_bars(&self, number: usize, attributes: bool) -> Result<(), ConfigError> {
        const WANTS: &str = "it wants \"mmio-attribute\" in tdisp.requests";
        if self.updatable_pages > 0 {
            let field = format!("function[{number}].updatable_pages");
            super::within(&field, self.updatable_pages.into(), 0, u64::from(DEFAULT_PAGES) - 1)?;
            if !self.bars.is_empty() {
                let problem = "it changes the default BARs, and the file has its own: say updatable = true in a \
                               [[function.bar.range]] instead";
                return Err(ConfigError::value(field, problem));
            }
            if !attributes {
                return Err(ConfigError::value(field, WANTS));
            }
        }
        for (at, bar) in self.bars.iter().enumerate() {
            let field = format!("function[{number}].bar[{at}].range");
            if bar.ranges.len() > MOST_RANGES {
                let problem = format!("{} ranges; a BAR can have {MOST_RANGES}", bar.ranges.len());
                return Err(ConfigError::value(field, problem));
            }
            for (at, range) in bar.ranges.iter().enumerate() {
                let wrong =
                    |name, problem: &str| Err(ConfigError::value(format!("{field}[{at}].{name}"), problem));
                let memory = range.kind == RangeKind::Memory;
                if range.updatable && !memory {
                    return wrong("updatable", "only memory can change sides");
                }
                if range.updatable && !attributes {
                    return wrong("updatable", WANTS);
                }
                if range.revoke.is_some() && !(memory && (range.updatable || range.side == Side::Private)) {
                    return wrong("revoke", "only memory that is or becomes private can be revoked");
                }
                if range.file.is_some() && !memory {
                    return wrong("file", "only memory can have contents");
                }
                if range.kind == RangeKind::MsixTable && !self.msix {
                    return wrong("kind", "the function has msix = false: leave out one or the other");
                }
            }
        }
        self.layout(number).map(drop)
    }
}

impl Range {
    /// The range as `mmio` takes it; `field` is its name.
    fn layout(&self, field: &str) -> Result<RangeLayout, ConfigError> {
        let wrong = |problem: String| ConfigError::value(format!("{field}.size"), problem);
        if self.size == 0 || !self.size.is_multiple_of(PAGE_SIZE) {
            return Err(wrong(format!(
                "{} bytes; it must be a multiple of {PAGE_SIZE}, and not 0",
                self.size
            )));
        }
        let pages = u32::try_from(self.size / PAGE_SIZE)
            .map_err(|_| wrong(format!("{}; no BAR can have that much", ByteSize(self.size))))?;
        let kind = match self.kind {
            RangeKind::Registers => mmio::Kind::Registers,
            RangeKind::Memory => mmio::Kind::Memory,
            RangeKind::MsixTable => mmio::Kind::MsixTable,
            RangeKind::MsixPba => mmio::Kind::MsixPba,
            RangeKind::Doorbells => mmio::Kind::Doorbells,
            RangeKind::Reserved => mmio::Kind::Reserved,
        };
        let attribute = match self.side {
            Side::Private => Attribute::Private,
            Side::Shared => Attribute::Shared,
        };
        let revocation = self.revoke.map(Revocation::from);
        Ok(RangeLayout { kind, pages, attribute, updatable: self.updatable, revocation })
    }
}

/// `error` with the name of the field that is to blame; `bar` is that of the BAR.
fn at_field(bar: &str, error: &LayoutError) -> ConfigError {
    let name = match error.problem {
        LayoutProblem::NoSuchBar { .. } | LayoutProblem::Occupied { .. } => "index",
        LayoutProblem::Empty | LayoutProblem::NotPowerOfTwo { .. } => "range",
        LayoutProblem::NoPages | LayoutProblem::TooLarge { .. } => "size",
        LayoutProblem::Second { .. } | LayoutProblem::LoneMsix { .. } | LayoutProblem::MsixTooFar => "kind",
    };
    let field = match error.range {
        Some(range) => format!("{bar}.range[{range}].{name}"),
        None => format!("{bar}.{name}"),
    };
    ConfigError::value(field, error.problem)
}

#[cfg(test)]
mod tests;
