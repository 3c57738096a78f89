//! The interface report, from a function's configuration at the moment of LOCK (PCIe 6.1 §11.3.11).

use crate::wire::{InterfaceReport, LockRequest, MmioRange, RangeAttributes};

use super::view::{BarView, FunctionView, RangeView};

/// Builds the report. MSI-X is part of it only if LOCK_MSIX froze it.
pub(super) fn build(view: &FunctionView, request: &LockRequest) -> InterfaceReport {
    let lock_msix = request.flags.lock_msix();
    let mut bars: Vec<&BarView> = view.bars.iter().collect();
    bars.sort_by_key(|bar| bar.index);
    let ranges = bars
        .into_iter()
        .flat_map(|bar| bar.ranges.iter().map(move |range| record(bar, range, request)))
        .collect();
    InterfaceReport {
        info: view.interface_info.with_no_fw_update(request.flags.no_fw_update()).with_reserved(0),
        msix_message_control: view.msix_message_control.filter(|_| lock_msix).unwrap_or(0),
        lnr_control: view.lnr_control,
        tph_control: if view.tph_table_in_msix && !lock_msix { 0 } else { view.tph_control },
        ranges,
        device_info: view.device_info.clone(),
    }
}

fn record(bar: &BarView, range: &RangeView, request: &LockRequest) -> MmioRange {
    let lock_msix = request.flags.lock_msix();
    MmioRange {
        first_page: page_number(bar.address, range.first_page, request),
        pages: range.pages,
        attributes: RangeAttributes::new()
            .with_msix_table(range.msix_table && lock_msix)
            .with_msix_pba(range.msix_pba && lock_msix)
            .with_non_tee(range.non_tee)
            .with_updatable(range.updatable),
        range_id: range.id.unwrap_or_else(|| u16::from(bar.index)),
    }
}

/// The number under which a page of a BAR is reported: MMIO_REPORTING_OFFSET is added modulo 2^64.
pub(super) fn page_number(bar: Option<u64>, page: u32, request: &LockRequest) -> u64 {
    let address = bar.unwrap_or(0).wrapping_add(u64::from(page) << 12);
    address.wrapping_add(request.mmio_reporting_offset) >> 12
}
