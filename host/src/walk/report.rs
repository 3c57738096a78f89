//! The interface report: read in portions, put together, and laid over the BARs.

use tdisp::wire::{InterfaceReport, MmioRange, Request, Response};

use super::{Seen, Walk};
use crate::cli::ReportArgs;
use crate::error::{Error, Result};
use crate::output::record::{Fact, Layer, RangeRow};
use crate::output::{Item, hex};
use crate::pci::bars::Bar;

/// Bytes in a page of the report.
const PAGE: u64 = 4096;

impl Walk {
    /// Reads and shows the report.
    pub(super) fn read_report(&mut self, args: &ReportArgs) -> Result<Vec<RangeRow>> {
        let report = self.step(
            Layer::Tdisp,
            "GET_DEVICE_INTERFACE_REPORT",
            "portions that add up to a report",
            |walk| {
                let (bytes, portions) = walk.report_bytes(args.portion)?;
                let report = InterfaceReport::decode(&bytes)
                    .map_err(|e| Error::Protocol(format!("interface report: {e}")))?;
                let text =
                    format!("{} ranges, {} bytes in {portions} portions", report.ranges.len(), bytes.len());
                Ok(Seen::good(report, text))
            },
        )?;
        let (offset, function) = (self.bound()?.mmio_offset, self.bound()?.function_id);
        // Another function's report says nothing about this one's BARs.
        let own = self.transport.address().is_none() || function == self.own_function_id();
        let bars = if own { self.transport.memory_bars().to_vec() } else { Vec::new() };
        let rows: Vec<_> = report.ranges.iter().map(|range| resolve(range, offset, &bars)).collect();
        if !bars.is_empty() {
            self.step(Layer::Tdisp, "report against BARs", "every range in a BAR, none twice", |_| {
                let problem = misfit(&rows);
                let good = problem.is_none();
                Ok(Seen::checked((), problem.unwrap_or_else(|| coverage(&rows, &bars)), good))
            })?;
        }
        self.output.tell(&Item::Ranges(&rows));
        self.output.tell(&Item::Facts("interface report", &facts(&report)));
        Ok(rows)
    }

    /// The whole report and the number of portions it came in.
    pub(super) fn report_bytes(&mut self, portion: u16) -> Result<(Vec<u8>, usize)> {
        let mut report = Vec::new();
        let mut portions = 0;
        let mut total = None;
        loop {
            let offset = u16::try_from(report.len())
                .map_err(|_| Error::Protocol("the interface report never ends".into()))?;
            let request = Request::GetReport { offset, length: portion };
            let (bytes, remainder) = self.ask(request, |response| {
                if let Response::Report { portion, remainder } = response {
                    Some((portion.to_vec(), remainder))
                } else {
                    None
                }
            })?;
            if bytes.len() > usize::from(portion) {
                return Err(Error::Protocol(format!("{} bytes of report for {portion} asked", bytes.len())));
            }
            if bytes.is_empty() && remainder > 0 {
                return Err(Error::Protocol("an empty portion of a report that goes on".into()));
            }
            report.extend_from_slice(&bytes);
            portions += 1;
            let sum = report.len() + usize::from(remainder);
            if *total.get_or_insert(sum) != sum {
                return Err(Error::Protocol("portions and remainders of the report do not add up".into()));
            }
            if remainder == 0 {
                return Ok((report, portions));
            }
        }
    }
}

/// Finds the BAR a range lies in.
pub(crate) fn resolve(range: &MmioRange, reporting_offset: u64, bars: &[Bar]) -> RangeRow {
    let address = range.first_page.wrapping_mul(PAGE);
    let real = address.wrapping_sub(reporting_offset);
    let size = u64::from(range.pages) * PAGE;
    let place = bars.iter().find_map(|bar| {
        let offset = bar.offset_of(real)?;
        (size <= bar.size - offset).then_some((bar.index, offset))
    });
    let attributes = range.attributes;
    let flags = [
        (attributes.msix_table(), "MSI-X table"),
        (attributes.msix_pba(), "MSI-X PBA"),
        (attributes.updatable(), "updatable"),
        (attributes.reserved() != 0, "reserved bits set"),
        (place.is_some_and(|(bar, _)| u16::from(bar) != range.range_id), "id is not the BAR's"),
    ];
    RangeRow {
        range_id: range.range_id,
        bar: place.map(|(bar, _)| bar),
        offset: place.map(|(_, offset)| offset),
        address,
        pages: range.pages,
        private: !attributes.non_tee(),
        notes: flags.iter().filter(|(set, _)| *set).map(|(_, note)| *note).collect(),
    }
}

/// Why the ranges cannot describe the BARs, if they cannot.
pub(crate) fn misfit(rows: &[RangeRow]) -> Option<String> {
    let mut spans = Vec::new();
    for row in rows {
        let (Some(bar), Some(offset)) = (row.bar, row.offset) else {
            return Some(format!("{:#x} with {} pages lies in no BAR", row.address, row.pages));
        };
        if row.pages == 0 {
            return Some(format!("a range without pages at {:#x}", row.address));
        }
        spans.push((bar, offset, offset + u64::from(row.pages) * PAGE));
    }
    spans.sort_unstable();
    let overlap = spans.iter().zip(spans.iter().skip(1)).find(|(a, b)| a.0 == b.0 && a.2 > b.1);
    overlap.map(|(_, b)| format!("BAR{} offset {:#x} is in two ranges", b.0, b.1))
}

fn coverage(rows: &[RangeRow], bars: &[Bar]) -> String {
    let covered = |bar: &&Bar| {
        let pages: u64 =
            rows.iter().filter(|row| row.bar == Some(bar.index)).map(|row| u64::from(row.pages)).sum();
        pages.saturating_mul(PAGE) == bar.size
    };
    format!("{} of {} BARs covered whole", bars.iter().filter(covered).count(), bars.len())
}

pub(crate) fn facts(report: &InterfaceReport) -> Vec<Fact> {
    let info = report.info;
    let flags = [
        (info.no_fw_update(), "no firmware update"),
        (info.dma_without_pasid(), "DMA without PASID"),
        (info.dma_with_pasid(), "DMA with PASID"),
        (info.ats(), "ATS"),
        (info.prs(), "PRS"),
    ];
    let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let mut facts = vec![
        ("interface".into(), if flags.is_empty() { "nothing said".into() } else { flags.join(", ") }),
        ("MSI-X message control".into(), format!("{:#06x}", report.msix_message_control)),
        ("LNR control".into(), format!("{:#06x}", report.lnr_control)),
        ("TPH control".into(), format!("{:#010x}", report.tph_control)),
    ];
    if !report.device_info.is_empty() {
        facts.push(("device-specific information".into(), hex(&report.device_info)));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdisp::wire::RangeAttributes;

    const BAR: Bar =
        Bar { index: 2, address: 0x80_0000_0000, size: 0x10_0000, wide: true, prefetchable: true };

    fn range(first_page: u64, pages: u32) -> MmioRange {
        MmioRange { first_page, pages, attributes: RangeAttributes::new().with_non_tee(true), range_id: 2 }
    }

    #[test]
    fn addresses_lead_back_to_bars() {
        for offset in [0u64, 0xd000_0000, 0xffff_ffff_8000_0000] {
            let first = (BAR.address + 0x8_0000).wrapping_add(offset) >> 12;
            let row = resolve(&range(first, 128), offset, &[BAR]);
            assert_eq!((row.bar, row.offset, row.private), (Some(2), Some(0x8_0000), false), "{offset:#x}");
            assert_eq!(row.notes, [""; 0]);
        }
    }

    #[test]
    fn ranges_that_leave_their_bar_do_not_fit() {
        let first = BAR.address >> 12;
        for (page, pages) in [(first + 255, 2), (first - 1, 1), (first, u32::MAX), (u64::MAX, 1)] {
            let row = resolve(&range(page, pages), 0, &[BAR]);
            assert_eq!(row.bar, None);
            assert!(misfit(&[row]).is_some());
        }
        let twice = [resolve(&range(first, 2), 0, &[BAR]), resolve(&range(first + 1, 1), 0, &[BAR])];
        assert!(misfit(&twice).unwrap().contains("two ranges"));
        let empty = resolve(&range(first, 0), 0, &[BAR]);
        assert!(misfit(&[empty]).is_some());
        let sound = [resolve(&range(first + 128, 128), 0, &[BAR]), resolve(&range(first, 128), 0, &[BAR])];
        assert_eq!(misfit(&sound), None);
        assert_eq!(coverage(&sound, &[BAR]), "1 of 1 BARs covered whole");
        assert_eq!(coverage(&sound[..1], &[BAR]), "0 of 1 BARs covered whole");
    }

    #[test]
    fn oddities_are_noted() {
        let odd = MmioRange {
            attributes: RangeAttributes::new().with_msix_table(true).with_reserved(1),
            range_id: 7,
            ..range(BAR.address >> 12, 1)
        };
        let row = resolve(&odd, 0, &[BAR]);
        assert!(row.private);
        assert_eq!(row.notes, ["MSI-X table", "reserved bits set", "id is not the BAR's"]);
    }
}
