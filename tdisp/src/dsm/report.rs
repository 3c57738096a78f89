//! The interface report, from a function's configuration at the moment of LOCK (PCIe 6.1 §11.3.11).

use crate::wire::{InterfaceReport, LockRequest, MmioRange, RangeAttributes};

use super::config::UnlockedMsix;
use super::view::{BarView, FunctionView, RangeView};

/// A range that LOCK reported, and where it lies in its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockedRange {
    pub(super) bar: u8,
    /// First page, counted from the start of the BAR.
    pub(super) first_page: u32,
    /// As it stands in the report.
    pub(super) reported: MmioRange,
    /// Its pages are private only because LOCK locked the MSI-X table or PBA in them.
    pub(super) locked_msix: bool,
}

/// Every range that the report has, in its order.
pub(super) fn ranges(view: &FunctionView, request: &LockRequest, unlocked: UnlockedMsix) -> Vec<LockedRange> {
    let mut bars: Vec<&BarView> = view.bars.iter().collect();
    bars.sort_by_key(|bar| bar.index);
    bars.into_iter()
        .flat_map(|bar| bar.ranges.iter().filter_map(move |range| record(bar, range, request, unlocked)))
        .collect()
}

/// Builds the report. MSI-X is part of it only if it is locked.
pub(super) fn build(view: &FunctionView, request: &LockRequest, ranges: &[LockedRange]) -> InterfaceReport {
    let attributes = ranges.iter().map(|range| range.reported.attributes);
    let msix = attributes.clone().any(|attributes| attributes.msix_table());
    InterfaceReport {
        info: view.interface_info.with_no_fw_update(request.flags.no_fw_update()).with_reserved(0),
        msix_message_control: view.msix_message_control.filter(|_| msix).unwrap_or(0),
        lnr_control: view.lnr_control,
        tph_control: if view.tph_table_in_msix && !msix { 0 } else { view.tph_control },
        ranges: ranges.iter().map(|range| range.reported).collect(),
        device_info: view.device_info.clone(),
    }
}

fn record(
    bar: &BarView,
    range: &RangeView,
    request: &LockRequest,
    unlocked: UnlockedMsix,
) -> Option<LockedRange> {
    let msix = range.msix_table || range.msix_pba;
    // "A TDI is permitted to lock the MSI-X table and PBA even if not directed to do so" (PCIe 6.1 §11.3.8).
    let locked = msix && (request.flags.lock_msix() || !range.non_tee);
    if msix && !locked && unlocked == UnlockedMsix::Omit {
        return None;
    }
    let reported = MmioRange {
        first_page: page_number(bar.address, range.first_page, request),
        pages: range.pages,
        attributes: RangeAttributes::new()
            .with_msix_table(range.msix_table && locked)
            .with_msix_pba(range.msix_pba && locked)
            .with_non_tee(range.non_tee && !locked)
            .with_updatable(range.updatable && !msix),
        range_id: range.id.unwrap_or_else(|| u16::from(bar.index)),
    };
    let locked_msix = locked && range.non_tee;
    Some(LockedRange { bar: bar.index, first_page: range.first_page, reported, locked_msix })
}

/// The number under which a page of a BAR is reported: MMIO_REPORTING_OFFSET is added modulo 2^64.
pub(super) fn page_number(bar: Option<u64>, page: u32, request: &LockRequest) -> u64 {
    let address = bar.unwrap_or(0).wrapping_add(u64::from(page) << 12);
    address.wrapping_add(request.mmio_reporting_offset) >> 12
}
