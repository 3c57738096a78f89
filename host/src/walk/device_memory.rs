//! BAR pages against the TDI's state: what works, what refuses, and what must not survive (PCIe 6.1 §11.2).

use super::{Seen, Walk, test_function};
use crate::error::{Error, Result};
use crate::output::record::{Layer, RangeRow};
use crate::pci::bars::Bar;
use crate::transport::BarAccess;

const PAGE: u64 = 4096;
/// Where in a page is looked: at its first and last eight bytes.
const SPOTS: [u64; 2] = [0, PAGE - 8];
const ALL_ONES: u64 = u64::MAX;
/// Written where it must get lost, so that it would be known again.
const LOST: u64 = 0xdead_10cc_dead_10cc;
/// Written where it must stay, and its complement.
const KEPT: u64 = 0x5ec2_e700_0bad_cafe;

/// States as pages see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// CONFIG_UNLOCKED before LOCK.
    Unlocked,
    /// CONFIG_LOCKED.
    Locked,
    /// RUN.
    Run,
    /// ERROR.
    Error,
    /// CONFIG_UNLOCKED after STOP: nothing confidential may be left.
    Stopped,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Unlocked => "CONFIG_UNLOCKED",
            Self::Locked => "CONFIG_LOCKED",
            Self::Run => "RUN",
            Self::Error => "ERROR",
            Self::Stopped => "after STOP",
        }
    }

    /// Whether a private page answers.
    fn private_works(self) -> bool {
        match self {
            Self::Unlocked | Self::Run | Self::Stopped => true,
            Self::Locked | Self::Error => false,
        }
    }
}

/// A page to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    bar: u8,
    offset: u64,
}

/// The pages the checks use.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    private: Option<Page>,
    shared: Option<Page>,
    /// The test function's registers, and whether they are private.
    registers: Option<bool>,
}

impl Walk {
    /// Before there is a report: pages of every memory-like BAR, and the test function's registers, all have to work.
    pub(super) fn check_unlocked(&mut self) -> Result<()> {
        if self.transport.bars().is_none() {
            return Ok(());
        }
        self.has_test_function = self.find_test_function()?;
        let inventory = self.found()?.inventory.clone().unwrap_or_default();
        let pages: Vec<_> = self
            .transport
            .memory_bars()
            .iter()
            .filter(|bar| is_memory(bar, inventory.msix_bars) && bar.size >= PAGE)
            .flat_map(|bar| {
                let last = Page { bar: bar.index, offset: bar.size - PAGE };
                [Some(Page { bar: bar.index, offset: 0 }), (last.offset != 0).then_some(last)]
            })
            .flatten()
            .collect();
        for page in pages {
            self.check_page("page", page, Phase::Unlocked, true)?;
        }
        if self.has_test_function {
            self.check_registers(Phase::Unlocked, true)?;
        }
        Ok(())
    }

    fn find_test_function(&mut self) -> Result<bool> {
        let layout = self.transport.memory_bars().to_vec();
        match self.transport.bars() {
            Some(bars) => test_function::is_present(bars, &layout),
            None => Ok(false),
        }
    }

    /// The pages that the report gives to choose from.
    pub(super) fn places(&mut self, rows: &[RangeRow]) -> Result<Places> {
        if self.transport.bars().is_none() {
            return Ok(Places::default());
        }
        let inventory = self.found()?.inventory.clone().unwrap_or_default();
        let memory: Vec<_> = self
            .transport
            .memory_bars()
            .iter()
            .filter(|bar| is_memory(bar, inventory.msix_bars))
            .map(|bar| bar.index)
            .collect();
        Ok(choose(rows, &memory, self.has_test_function))
    }

    /// Looks at one page of each sort.
    pub(super) fn check_places(&mut self, places: &Places, phase: Phase) -> Result<()> {
        if self.transport.bars().is_none() {
            return Ok(());
        }
        if let Some(page) = places.private {
            self.check_page("private page", page, phase, phase.private_works())?;
        } else {
            self.no_page("private page", phase)?;
        }
        if let Some(page) = places.shared {
            self.check_page("shared page", page, phase, true)?;
        } else {
            self.no_page("shared page", phase)?;
        }
        match places.registers {
            Some(private) => self.check_registers(phase, !private || phase.private_works()),
            None => Ok(()),
        }
    }

    fn no_page(&mut self, what: &str, phase: Phase) -> Result<()> {
        self.step(Layer::Mmio, &format!("{what}, {}", phase.name()), "", |_| {
            Ok(Seen::skipped((), "the report has none in a prefetchable BAR"))
        })
    }

    fn check_page(&mut self, what: &str, page: Page, phase: Phase, works: bool) -> Result<()> {
        let private = what.starts_with("private");
        let expected = match (works, private, phase) {
            (false, _, _) => "reads all ones, loses writes",
            (true, true, Phase::Run) => "keeps writes, none from CONFIG_LOCKED",
            (true, true, Phase::Stopped) => "reads zero, keeps writes",
            (true, ..) => "keeps writes",
        };
        self.step(Layer::Mmio, &format!("{what}, {}", phase.name()), expected, |walk| {
            let bars = walk.bar_access()?;
            let at = format!("BAR{} {:#x}", page.bar, page.offset);
            let mut problem = None;
            for spot in SPOTS {
                let offset = page.offset + spot;
                let mut access = |value| exchange(bars, page.bar, offset, value);
                problem = if works {
                    let before = access(None)?;
                    let stale = match phase {
                        Phase::Run => private && before == LOST,
                        Phase::Stopped => private && before != 0,
                        Phase::Unlocked | Phase::Locked | Phase::Error => false,
                    };
                    let kept = access(Some(!KEPT))? == !KEPT && access(Some(KEPT))? == KEPT;
                    if stale {
                        Some(format!("{at}: {before:#018x} was there"))
                    } else {
                        (!kept).then(|| format!("{at}: does not keep writes"))
                    }
                } else {
                    let (before, after) = (access(None)?, access(Some(LOST))?);
                    let refuses = before == ALL_ONES && after == ALL_ONES;
                    (!refuses).then(|| format!("{at}: reads {before:#018x}, after a write {after:#018x}"))
                };
                if problem.is_some() {
                    break;
                }
            }
            let good = problem.is_none();
            let text =
                problem.unwrap_or_else(|| format!("{at}: {}", if works { "works" } else { "refuses" }));
            Ok(Seen::checked((), text, good))
        })
    }

    fn check_registers(&mut self, phase: Phase, works: bool) -> Result<()> {
        let expected = match (works, phase) {
            (false, _) => "read all ones, lose writes",
            (true, Phase::Stopped) => "answer, back to reset values",
            (true, _) => "answer",
        };
        self.step(Layer::Mmio, &format!("registers, {}", phase.name()), expected, |walk| {
            let bars = walk.bar_access()?;
            let (magic, right) = test_function::magic(bars)?;
            let mut scratch = |value| exchange(bars, test_function::BAR, test_function::SCRATCH, value);
            let before = scratch(None)?;
            if !works {
                let after = scratch(Some(LOST))?;
                let refuse = magic == u32::MAX && before == ALL_ONES && after == ALL_ONES;
                let text = if refuse {
                    "refuse".into()
                } else {
                    format!("magic {magic:#010x}, scratch {before:#x}")
                };
                return Ok(Seen::checked((), text, refuse));
            }
            let stale = before == LOST || phase == Phase::Stopped && before != 0;
            let kept = scratch(Some(KEPT))? == KEPT;
            let text = match (right, stale, kept) {
                (true, false, true) => "answer".into(),
                (false, ..) => format!("magic reads {magic:#010x}"),
                (_, true, _) => format!("scratch had {before:#018x}"),
                (.., false) => "scratch does not keep writes".into(),
            };
            Ok(Seen::checked((), text, right && !stale && kept))
        })
    }

    /// BAR memory; a caller has seen that there is a way to it.
    pub(super) fn bar_access(&mut self) -> Result<&mut dyn BarAccess> {
        self.transport.bars().ok_or_else(|| Error::NoDevice("this target has no way to BAR memory".into()))
    }
}

/// Memory without side effects: prefetchable, and no MSI-X in it.
fn is_memory(bar: &Bar, msix: Option<(u8, u8)>) -> bool {
    bar.prefetchable && msix.is_none_or(|(table, pba)| bar.index != table && bar.index != pba)
}

fn choose(rows: &[RangeRow], memory: &[u8], test_function: bool) -> Places {
    let page = |private: bool| {
        let row = rows.iter().find(|row| {
            row.private == private && row.pages > 0 && row.bar.is_some_and(|bar| memory.contains(&bar))
        })?;
        Some(Page { bar: row.bar?, offset: row.offset? })
    };
    let registers = rows.iter().find(|row| row.bar == Some(test_function::BAR) && row.offset == Some(0));
    Places {
        private: page(true),
        shared: page(false),
        registers: registers.filter(|_| test_function).map(|row| row.private),
    }
}

/// Writes a value, if there is one, and reads what is there then.
fn exchange(bars: &mut dyn BarAccess, bar: u8, offset: u64, value: Option<u64>) -> Result<u64> {
    if let Some(value) = value {
        bars.write(bar, offset, &value.to_le_bytes())?;
    }
    let mut bytes = [0; 8];
    bars.read(bar, offset, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bar: Option<u8>, offset: u64, private: bool) -> RangeRow {
        RangeRow {
            range_id: 0,
            bar,
            offset: bar.map(|_| offset),
            address: 0,
            pages: 1,
            private,
            notes: vec![],
        }
    }

    #[test]
    fn pages_are_chosen_from_memory_only() {
        let rows = [
            row(None, 0, true),
            row(Some(0), 0, true),
            row(Some(2), 0x1000, true),
            row(Some(2), 0x2000, false),
            row(Some(4), 0, false),
        ];
        let places = choose(&rows, &[2], true);
        assert_eq!(places.private, Some(Page { bar: 2, offset: 0x1000 }));
        assert_eq!(places.shared, Some(Page { bar: 2, offset: 0x2000 }));
        assert_eq!(places.registers, Some(true));
        let places = choose(&rows, &[], false);
        assert_eq!((places.private, places.shared, places.registers), (None, None, None));
    }

    #[test]
    fn bars_with_side_effects_or_msix_are_left_alone() {
        let bar = |index, prefetchable| Bar { index, address: 0, size: 0x1000, wide: false, prefetchable };
        assert!(is_memory(&bar(2, true), Some((4, 4))));
        assert!(!is_memory(&bar(2, false), None));
        assert!(!is_memory(&bar(4, true), Some((4, 5))) && !is_memory(&bar(5, true), Some((4, 5))));
    }
}
