//! Reports that say something else than what is so: what a host is told about a TDI can be replaced or edited, so that its
//! own checks of a report can be tested.
//!
//! Only the report lies. LOCK's checks, the access rules and everything else a function does follow its real layout; and a
//! TDI that is locked already keeps the report that its LOCK fixed.

use crate::wire::{InterfaceInfo, InterfaceReport, LockRequest, MmioRange, RangeAttributes, ReportTooLong};

use super::Dsm;
use super::report::{self, LockedRange};
use super::view::FunctionView;

/// What a function's report says from the next LOCK on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportOverride {
    /// These bytes, whatever they are. With none at all GET_DEVICE_INTERFACE_REPORT has nothing to answer and is refused.
    Exact(Vec<u8>),
    /// The true report with other values in some of its fields.
    Edited(ReportEdit),
}

/// Fields of a report that are not to say what is so; `None` leaves one as it is. Nothing is masked: reserved bits and
/// MSI-X attributes are reported as given, whatever LOCK's flags are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportEdit {
    /// INTERFACE_INFO.
    pub info: Option<InterfaceInfo>,
    /// MSI-X message control.
    pub msix_message_control: Option<u16>,
    /// LNR control.
    pub lnr_control: Option<u16>,
    /// TPH control.
    pub tph_control: Option<u32>,
    /// All ranges, in this order.
    pub ranges: Option<Vec<RangeEdit>>,
    /// Device-specific info.
    pub device_info: Option<Vec<u8>>,
}

/// One range of an edited report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEdit {
    /// Where it begins.
    pub start: RangeStart,
    /// Number of 4 KiB pages.
    pub pages: u32,
    /// Attributes, reserved bits included.
    pub attributes: RangeAttributes,
    /// RANGE_ID.
    pub range_id: u16,
}

/// Where a range of an edited report begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeStart {
    /// At a page of a BAR: the BAR's address and MMIO_REPORTING_OFFSET are added at LOCK. A BAR that the function does not
    /// have, or that has no address, counts as being at address 0.
    Bar {
        /// Index of the BAR.
        index: u8,
        /// The page, counted from the start of the BAR.
        first_page: u32,
    },
    /// At this page number, as it is to be reported.
    Page(u64),
}

impl RangeEdit {
    fn record(&self, view: &FunctionView, request: &LockRequest) -> MmioRange {
        let first_page = match self.start {
            RangeStart::Page(page) => page,
            RangeStart::Bar { index, first_page } => {
                let bar = view.bars.iter().find(|bar| bar.index == index);
                report::page_number(bar.and_then(|bar| bar.address), first_page, request)
            }
        };
        MmioRange { first_page, pages: self.pages, attributes: self.attributes, range_id: self.range_id }
    }
}

impl ReportEdit {
    fn apply(&self, report: &mut InterfaceReport, view: &FunctionView, request: &LockRequest) {
        fn replace<T: Clone>(field: &mut T, edit: Option<&T>) {
            if let Some(value) = edit {
                *field = value.clone();
            }
        }
        replace(&mut report.info, self.info.as_ref());
        replace(&mut report.msix_message_control, self.msix_message_control.as_ref());
        replace(&mut report.lnr_control, self.lnr_control.as_ref());
        replace(&mut report.tph_control, self.tph_control.as_ref());
        replace(&mut report.device_info, self.device_info.as_ref());
        if let Some(ranges) = &self.ranges {
            report.ranges = ranges.iter().map(|range| range.record(view, request)).collect();
        }
    }
}

/// The bytes that LOCK fixes.
pub(super) fn report_bytes(
    says: Option<&ReportOverride>,
    view: &FunctionView,
    request: &LockRequest,
    ranges: &[LockedRange],
) -> Result<Vec<u8>, ReportTooLong> {
    match says {
        Some(ReportOverride::Exact(bytes)) if bytes.len() > usize::from(u16::MAX) => {
            Err(ReportTooLong(bytes.len()))
        }
        Some(ReportOverride::Exact(bytes)) => Ok(bytes.clone()),
        Some(ReportOverride::Edited(edit)) => {
            let mut report = report::build(view, request, ranges);
            edit.apply(&mut report, view, request);
            report.encode()
        }
        None => report::build(view, request, ranges).encode(),
    }
}

impl Dsm {
    /// The report that a LOCK with these parameters would fix if it were accepted now.
    ///
    /// # Errors
    /// [`ReportTooLong`]: such a LOCK is refused.
    pub fn report_at_lock(
        &self,
        view: &FunctionView,
        request: &LockRequest,
    ) -> Result<Vec<u8>, ReportTooLong> {
        let ranges = report::ranges(view, request, self.config.unlocked_msix);
        report_bytes(self.report_override(view.number), view, request, &ranges)
    }

    /// What the report of a function says instead of what is so, if anything.
    pub fn report_override(&self, function: usize) -> Option<&ReportOverride> {
        self.report_overrides.get(&function)
    }

    /// From the next LOCK on the report of the function that `view` describes is `says`, and with `None` what is so again. No
    /// reset changes that.
    ///
    /// # Errors
    /// [`ReportTooLong`] if no LOCK could fix such a report; nothing has changed then.
    pub fn override_report(
        &mut self,
        view: &FunctionView,
        says: Option<ReportOverride>,
    ) -> Result<(), ReportTooLong> {
        match says {
            Some(says) => {
                let request = LockRequest::default();
                let ranges = report::ranges(view, &request, self.config.unlocked_msix);
                report_bytes(Some(&says), view, &request, &ranges)?;
                self.report_overrides.insert(view.number, says);
            }
            None => {
                self.report_overrides.remove(&view.number);
            }
        }
        Ok(())
    }
}
