//! Whether an interface report describes the function that the guest sees, and whether its policy agrees with that.

use tdisp::wire::{InterfaceReport, MmioRange};

use super::policy::{Flag, Place, Policy};
use super::view::{Structure, View};
use crate::pci::bars::Half;

/// Bytes in a page of the report.
const PAGE: u64 = 4096;

/// One question about a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) what: &'static str,
    /// What it has to be.
    pub(super) expected: String,
    /// What it is, or what is wrong.
    pub(super) seen: Result<String, String>,
}

/// A range in its BAR.
#[derive(Debug, Clone, Copy)]
struct Laid<'a> {
    bar: u8,
    first: u64,
    end: u64,
    range: &'a MmioRange,
}

impl Laid<'_> {
    fn private(&self) -> bool {
        !self.range.attributes.non_tee()
    }
}

/// Everything that is asked about a report. What comes after ranges that lie nowhere would be about nothing, and is left out.
pub(super) fn judge(report: &InterfaceReport, view: &View, policy: &Policy) -> Vec<Finding> {
    let mut findings = vec![flags(report, policy)];
    let (laid, seen) = match lay(report, view, policy.tee_half) {
        Ok(laid) => {
            let seen = format!("{} ranges", laid.len());
            (Some(laid), Ok(seen))
        }
        Err(why) => (None, Err(why)),
    };
    let expected = "each range in a BAR, no page twice".into();
    findings.push(Finding { what: "ranges against BARs", expected, seen });
    if let Some(laid) = laid {
        findings.push(msix(report, view, &laid));
        findings.extend(virtio(view, policy, &laid));
        findings.extend(policy.private.iter().map(|place| wanted(place, view, &laid)));
    }
    findings
}

fn flags(report: &InterfaceReport, policy: &Policy) -> Finding {
    let names = |flags: &[Flag]| flags.iter().map(|flag| flag.name()).collect::<Vec<_>>().join(" ");
    let (required, allowed) = (&policy.report.required, &policy.report.allowed);
    let set: Vec<_> = Flag::ALL.into_iter().filter(|flag| flag.of(report.info)).collect();
    let missing = required.iter().find(|flag| !set.contains(flag));
    let excess = set.iter().find(|flag| !required.contains(flag) && !allowed.contains(flag));
    let seen = match (missing, excess, report.info.reserved()) {
        (Some(flag), _, _) => Err(format!("without {}", flag.name())),
        (_, Some(flag), _) => Err(format!("{}, which the policy does not allow", flag.name())),
        (_, _, 1..) => Err(format!("reserved bits {:#x}", report.info.reserved())),
        (None, None, 0) => Ok(if set.is_empty() { "none".into() } else { names(&set) }),
    };
    let expected = format!("{} of {}", names(required), names(allowed));
    let expected = if required.is_empty() { format!("none but {}", names(allowed)) } else { expected };
    Finding { what: "INTERFACE_INFO", expected, seen }
}

/// Finds each range's place. A guest has other addresses than its host, whatever the reporting offset makes of them; what holds for
/// both is the number of the BAR, and the offset in it, since a BAR lies at a multiple of its size.
fn lay<'a>(report: &'a InterfaceReport, view: &View, half: Option<Half>) -> Result<Vec<Laid<'a>>, String> {
    let mut laid: Vec<Laid<'a>> = Vec::with_capacity(report.ranges.len());
    for (number, range) in report.ranges.iter().enumerate() {
        let wrong = |why: &str| Err(format!("range {number}: {why}"));
        if range.attributes.reserved() != 0 {
            return wrong("reserved attributes are set");
        }
        let Some((bar, size)) = u8::try_from(range.range_id).ok().and_then(|bar| Some((bar, view.bar(bar)?)))
        else {
            return wrong(&format!("id {} is no memory BAR of the function", range.range_id));
        };
        // With halves, the report describes the lower one.
        let room = if half.is_some() { size / 2 } else { size };
        let first = range.first_page.wrapping_mul(PAGE) & (size - 1);
        let end = first + u64::from(range.pages) * PAGE;
        if range.pages == 0 {
            return wrong("no pages");
        }
        if end > room {
            return wrong(&format!("{first:#x} to {end:#x} is not in BAR{bar}, which has {room:#x} bytes"));
        }
        if let Some(other) =
            laid.iter().find(|other| other.bar == bar && other.first < end && first < other.end)
        {
            return wrong(&format!("BAR{bar} offset {:#x} is in two ranges", first.max(other.first)));
        }
        laid.push(Laid { bar, first, end, range });
    }
    Ok(laid)
}

/// MSI-X is behind the host's emulation unless the report says that it is locked, and then it has to be where the capability says.
fn msix(report: &InterfaceReport, view: &View, laid: &[Laid<'_>]) -> Finding {
    let flagged =
        [|range: &MmioRange| range.attributes.msix_table(), |range: &MmioRange| range.attributes.msix_pba()];
    let locked = laid.iter().any(|l| flagged.iter().any(|flag| flag(l.range)));
    let check = |structure: &Structure, flag: fn(&MmioRange) -> bool| {
        let name = structure.name;
        match laid.iter().find(|l| flag(l.range)) {
            Some(l) if l.bar != structure.bar || l.first > structure.offset || l.end < end_of(structure) => {
                Err(format!("the range of the {name} is not where the {name} is"))
            }
            None if locked => Err(format!("the {name} is not locked, and the other part is")),
            None if side(structure.bar, structure.offset, end_of(structure), laid)
                .is_some_and(|private| private) =>
            {
                Err(format!("the {name} is private, and not locked"))
            }
            Some(_) | None => Ok(()),
        }
    };
    let [table_flag, pba_flag] = flagged;
    let seen = match &view.msix {
        None if locked || report.msix_message_control != 0 => Err("locked, and the function has none".into()),
        None => Ok("the function has none".into()),
        Some([table, pba]) => check(table, table_flag)
            .and_then(|()| check(pba, pba_flag))
            .map(|()| if locked { "locked".into() } else { "not locked: interrupts are the host's".into() }),
    };
    Finding { what: "MSI-X", expected: "locked as a whole or not at all".into(), seen }
}

/// A driver trusts what it reads in virtio's structures.
fn virtio(view: &View, policy: &Policy, laid: &[Laid<'_>]) -> Option<Finding> {
    if view.virtio.is_empty() {
        return None;
    }
    let place = |structure: &Structure| {
        let size = view.bar(structure.bar).ok_or_else(|| format!("the {} is in no BAR", structure.name))?;
        let start = match policy.tee_half {
            None | Some(Half::Low) => 0,
            Some(Half::High) => size / 2,
        };
        let room = if policy.tee_half.is_some() { size / 2 } else { size };
        let offset =
            structure.offset.checked_sub(start).filter(|offset| *offset + structure.size.max(1) <= room);
        let offset = offset.ok_or_else(|| format!("the {} is not where T = 1", structure.name))?;
        match side(structure.bar, offset, offset + structure.size.max(1), laid) {
            Some(true) => Ok(()),
            Some(false) => Err(format!("the {} is in shared memory", structure.name)),
            None => Err(format!("the {} is in no range", structure.name)),
        }
    };
    let seen = view.virtio.iter().try_for_each(place);
    let seen = seen.map(|()| format!("all {} structures", view.virtio.len()));
    Some(Finding { what: "virtio's structures", expected: "private".into(), seen })
}

fn wanted(place: &Place, view: &View, laid: &[Laid<'_>]) -> Finding {
    let end = place.offset.saturating_add(place.size);
    let seen = match side(place.bar, place.offset, end, laid) {
        Some(true) => Ok("private".into()),
        Some(false) => Err("shared, at least a part".into()),
        None if view.bar(place.bar).is_none() => Err("the function has no such BAR".into()),
        None => Err("in no range, at least a part".into()),
    };
    let expected = format!("BAR{} {:#x} to {end:#x} private", place.bar, place.offset);
    Finding { what: "the policy's memory", expected, seen }
}

/// Whether bytes are all private (`true`), or some are shared; `None` if some are in no range.
fn side(bar: u8, first: u64, end: u64, laid: &[Laid<'_>]) -> Option<bool> {
    let mut at = first;
    let mut private = true;
    while at < end {
        let found = laid.iter().find(|l| l.bar == bar && (l.first..l.end).contains(&at))?;
        private &= found.private();
        at = found.end;
    }
    Some(private)
}

fn end_of(structure: &Structure) -> u64 {
    structure.offset.saturating_add(structure.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdm::identity::PciName;
    use tdisp::wire::{InterfaceInfo, RangeAttributes};

    /// BAR 0: 32 KiB twice, BAR 2: 64 KiB twice, BAR 4: MSI-X, 8 KiB twice.
    fn view() -> View {
        let name = PciName {
            vendor: 0x1af4,
            device: 0x1042,
            class: 0x01_0000,
            revision: 1,
            subsystem_vendor: 0x1af4,
            subsystem: 1,
            serial: None,
        };
        let structure = |name, bar, offset, size| Structure { name, bar, offset, size };
        View {
            name,
            bars: vec![(0, 0x1_0000), (2, 0x2_0000), (4, 0x4000)],
            msix: Some([structure("MSI-X table", 4, 0, 32), structure("MSI-X PBA", 4, 0x1000, 8)]),
            virtio: vec![
                structure("virtio common configuration", 0, 0x8000, 0x3c),
                structure("virtio notifications", 0, 0xC000, 8),
            ],
        }
    }

    fn policy(more: &str) -> Policy {
        Policy::parse(&format!("root = ['r']\ntee_half = 'high'\n{more}")).unwrap()
    }

    fn range(bar: u16, page: u64, pages: u32, attributes: RangeAttributes) -> MmioRange {
        // Wherever the host has the BAR.
        MmioRange { first_page: 0xfe80_0000 / PAGE * 16 + page, pages, attributes, range_id: bar }
    }

    const PRIVATE: RangeAttributes = RangeAttributes::new();
    const SHARED: RangeAttributes = RangeAttributes::new().with_non_tee(true);

    fn report() -> InterfaceReport {
        InterfaceReport {
            info: InterfaceInfo::new().with_dma_without_pasid(true),
            ranges: vec![
                range(0, 0, 4, PRIVATE),
                range(0, 4, 4, PRIVATE),
                range(2, 0, 8, PRIVATE),
                range(2, 8, 8, SHARED),
            ],
            ..InterfaceReport::default()
        }
    }

    /// What the first wrong finding says.
    fn refusal(report: &InterfaceReport, view: &View, policy: &Policy) -> Option<String> {
        judge(report, view, policy)
            .into_iter()
            .find_map(|f| f.seen.err().map(|why| format!("{}: {why}", f.what)))
    }

    #[test]
    fn a_report_that_describes_the_function_is_good() {
        let policy = policy("[[private]]\nbar = 2\nsize = 0x8000\n");
        let findings = judge(&report(), &view(), &policy);
        assert!(findings.iter().all(|finding| finding.seen.is_ok()), "{findings:#?}");
        assert_eq!(findings.len(), 5);
        // A machine that knows T by itself has no halves.
        let mut whole = view();
        whole.bars = vec![(0, 0x8000), (2, 0x1_0000), (4, 0x2000)];
        whole.virtio.iter_mut().for_each(|structure| structure.offset -= 0x8000);
        let implicit = Policy::parse("root = ['r']").unwrap();
        assert_eq!(refusal(&report(), &whole, &implicit), None);
    }

    #[test]
    fn every_lie_has_its_reason() {
        let with = |change: fn(&mut InterfaceReport)| {
            let mut report = report();
            change(&mut report);
            refusal(&report, &view(), &policy("[[private]]\nbar = 2\noffset = 0x1000\nsize = 0x7000\n"))
        };
        for (change, reason) in [
            (
                (|r| r.info.set_ats(true)) as fn(&mut InterfaceReport),
                "INTERFACE_INFO: ats, which the policy does not allow",
            ),
            (|r| r.info.set_reserved(1), "INTERFACE_INFO: reserved bits"),
            (|r| r.ranges[0].pages = 0, "ranges against BARs: range 0: no pages"),
            (|r| r.ranges[0].range_id = 1, "range 0: id 1 is no memory BAR"),
            (|r| r.ranges[0].range_id = 300, "range 0: id 300 is no memory BAR"),
            (|r| r.ranges[2].pages = 17, "range 2: 0x0 to 0x11000 is not in BAR2"),
            (|r| r.ranges[2].pages = u32::MAX, "is not in BAR2"),
            (|r| r.ranges[3].first_page += 16, "is not in BAR2, which has 0x10000 bytes"),
            (|r| r.ranges[3].first_page -= 1, "range 3: BAR2 offset 0x7000 is in two ranges"),
            (|r| r.ranges[1].attributes.set_reserved(2), "range 1: reserved attributes"),
            (
                |r| r.ranges[0].attributes = SHARED,
                "virtio's structures: the virtio common configuration is in shared",
            ),
            (
                |r| r.ranges.retain(|range| range.first_page % 16 != 4 || range.range_id != 0),
                "virtio's structures: the virtio notifications is in no range",
            ),
            (|r| r.ranges[2].attributes = SHARED, "the policy's memory: shared"),
            (|r| r.ranges[2].pages = 7, "the policy's memory: in no range"),
            (|r| r.ranges.push(range(4, 0, 1, PRIVATE)), "MSI-X: the MSI-X table is private, and not locked"),
            (
                |r| r.ranges.push(range(4, 0, 1, PRIVATE.with_msix_table(true))),
                "MSI-X: the MSI-X PBA is not locked, and the other part is",
            ),
            (
                |r| r.ranges[3].attributes = SHARED.with_msix_table(true).with_msix_pba(true),
                "MSI-X: the range of the MSI-X table is not where",
            ),
        ] {
            let seen = with(change);
            assert!(seen.as_ref().is_some_and(|seen| seen.contains(reason)), "{reason}: {seen:?}");
        }
    }

    #[test]
    fn what_the_function_says_of_itself_has_to_fit_as_well() {
        let good = policy("");
        let mut plain = view();
        plain.virtio[0].offset = 0;
        assert!(refusal(&report(), &plain, &good).unwrap().contains("not where T = 1"));
        plain.virtio[0] =
            Structure { offset: u64::from(u32::MAX), size: u64::from(u32::MAX), ..plain.virtio[0].clone() };
        assert!(refusal(&report(), &plain, &good).unwrap().contains("not where T = 1"));
        plain.virtio[0].bar = 7;
        assert!(refusal(&report(), &plain, &good).unwrap().contains("in no BAR"));
        let mut none = view();
        none.msix = None;
        assert_eq!(refusal(&report(), &none, &good), None);
        let locked = InterfaceReport { msix_message_control: 1, ..report() };
        assert!(refusal(&locked, &none, &good).unwrap().contains("the function has none"));
        let strict = policy("[report]\nrequired = ['no-fw-update']\n");
        assert_eq!(refusal(&report(), &view(), &strict).unwrap(), "INTERFACE_INFO: without no-fw-update");
        let nowhere = policy("[[private]]\nbar = 3\nsize = 1\n");
        assert!(refusal(&report(), &view(), &nowhere).unwrap().contains("no such BAR"));
    }

    #[test]
    fn locked_msix_is_where_the_capability_says() {
        let mut report = report();
        report.msix_message_control = 1;
        report.ranges.push(range(4, 0, 1, PRIVATE.with_msix_table(true)));
        report.ranges.push(range(4, 1, 1, PRIVATE.with_msix_pba(true)));
        assert_eq!(refusal(&report, &view(), &policy("")), None);
    }
}
