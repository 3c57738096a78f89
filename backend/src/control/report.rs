//! Reports between what the DSM hands out and what the control socket says of them.

use tdisp::dsm::{FunctionView, RangeEdit, RangeStart, ReportEdit, ReportOverride};
use tdisp::wire::{InterfaceInfo, InterfaceReport, LockRequest, MmioRange, RangeAttributes};
use tdispd_proto::control::{
    Bits, Failure, FailureCode, Hex, HexBytes, InfoFlags, RangeFields, Report, ReportFields, ReportSource,
    ReportText,
};

use crate::device::{Device, words};

/// The report that LOCK fixed, or that a LOCK with these parameters would fix.
pub(super) fn get(device: &Device, function: usize, lock: &LockRequest) -> Result<Report, Failure> {
    let view = view(device, function)?;
    match (device.dsm().report(function), device.dsm().binding(function)) {
        (Some(bytes), Some(binding)) => {
            Ok(describe(device, &view, &binding.lock, ReportSource::Locked, bytes.to_vec()))
        }
        _ => next(device, &view, lock),
    }
}

/// What the next LOCK will give, locked now or not.
fn next(device: &Device, view: &FunctionView, lock: &LockRequest) -> Result<Report, Failure> {
    let bytes = device.dsm().report_at_lock(view, lock).map_err(bad)?;
    Ok(describe(device, view, lock, ReportSource::NextLock, bytes))
}

pub(super) fn set(device: &mut Device, function: usize, text: &ReportText) -> Result<Report, Failure> {
    let view = view(device, function)?;
    let says = match text {
        ReportText::Exact { hex } => ReportOverride::Exact(hex.0.clone()),
        ReportText::Edited(fields) => {
            fields.check().map_err(bad)?;
            ReportOverride::Edited(edit(fields))
        }
    };
    device.override_report(&view, Some(says)).map_err(bad)?;
    next(device, &view, &LockRequest::default())
}

pub(super) fn reset(device: &mut Device, function: usize) -> Result<Report, Failure> {
    let view = view(device, function)?;
    device.override_report(&view, None).map_err(bad)?;
    next(device, &view, &LockRequest::default())
}

fn view(device: &Device, function: usize) -> Result<FunctionView, Failure> {
    device.view(function).ok_or_else(|| Failure {
        code: FailureCode::NoSuchFunction,
        message: format!("there is no function {function}; there are {}", device.functions()),
    })
}

fn bad(error: impl core::fmt::Display) -> Failure {
    Failure { code: FailureCode::BadReport, message: error.to_string() }
}

fn describe(
    device: &Device,
    view: &FunctionView,
    lock: &LockRequest,
    source: ReportSource,
    bytes: Vec<u8>,
) -> Report {
    let (report, undecodable) = match InterfaceReport::decode(&bytes) {
        Ok(report) => (Some(fields(&report, view, lock)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let report_override = device.dsm().report_override(view.number).map(words::override_form);
    Report { function: view.number, source, report_override, report, undecodable, hex: HexBytes(bytes) }
}

/// The whole report, as `report-set` takes it.
fn fields(report: &InterfaceReport, view: &FunctionView, lock: &LockRequest) -> ReportFields {
    let info = report.info;
    let interface_info = if info.reserved() == 0 {
        Bits::Named(InfoFlags {
            no_fw_update: info.no_fw_update(),
            dma_without_pasid: info.dma_without_pasid(),
            dma_with_pasid: info.dma_with_pasid(),
            ats: info.ats(),
            prs: info.prs(),
        })
    } else {
        Bits::Raw(Hex(info.into_bits()))
    };
    ReportFields {
        interface_info: Some(interface_info),
        msix_message_control: Some(Hex(report.msix_message_control)),
        lnr_control: Some(Hex(report.lnr_control)),
        tph_control: Some(Hex(report.tph_control)),
        ranges: Some(report.ranges.iter().map(|range| range_fields(range, view, lock)).collect()),
        device_info: Some(HexBytes(report.device_info.clone())),
    }
}

fn range_fields(range: &MmioRange, view: &FunctionView, lock: &LockRequest) -> RangeFields {
    let attributes = range.attributes;
    let odd = attributes.reserved() != 0;
    let named = |bit: bool| (!odd).then_some(bit);
    let place = view.locate(range, lock.mmio_reporting_offset);
    RangeFields {
        bar: place.map(|(bar, _)| bar),
        first_page: place.map(|(_, first_page)| first_page),
        page: place.is_none().then_some(Hex(range.first_page)),
        pages: range.pages,
        attributes: odd.then_some(Hex(attributes.into_bits())),
        non_tee: named(attributes.non_tee()),
        updatable: named(attributes.updatable()),
        msix_table: named(attributes.msix_table()),
        msix_pba: named(attributes.msix_pba()),
        range_id: Some(range.range_id),
    }
}

/// The fields of an edit; they have been checked.
fn edit(fields: &ReportFields) -> ReportEdit {
    ReportEdit {
        info: fields.interface_info.as_ref().map(|info| match info {
            Bits::Raw(Hex(bits)) => InterfaceInfo::from_bits(*bits),
            Bits::Named(flags) => InterfaceInfo::new()
                .with_no_fw_update(flags.no_fw_update)
                .with_dma_without_pasid(flags.dma_without_pasid)
                .with_dma_with_pasid(flags.dma_with_pasid)
                .with_ats(flags.ats)
                .with_prs(flags.prs),
        }),
        msix_message_control: fields.msix_message_control.map(|value| value.0),
        lnr_control: fields.lnr_control.map(|value| value.0),
        tph_control: fields.tph_control.map(|value| value.0),
        ranges: fields.ranges.as_ref().map(|ranges| ranges.iter().map(range_edit).collect()),
        device_info: fields.device_info.as_ref().map(|bytes| bytes.0.clone()),
    }
}

fn range_edit(range: &RangeFields) -> RangeEdit {
    let set = |bit: Option<bool>| bit.unwrap_or(false);
    RangeEdit {
        start: match range.page {
            Some(Hex(page)) => RangeStart::Page(page),
            None => RangeStart::Bar {
                index: range.bar.unwrap_or_default(),
                first_page: range.first_page.unwrap_or_default(),
            },
        },
        pages: range.pages,
        attributes: range.attributes.map_or_else(
            || {
                RangeAttributes::new()
                    .with_non_tee(set(range.non_tee))
                    .with_updatable(set(range.updatable))
                    .with_msix_table(set(range.msix_table))
                    .with_msix_pba(set(range.msix_pba))
            },
            |Hex(bits)| RangeAttributes::from_bits(bits),
        ),
        range_id: range.range_id.unwrap_or_else(|| range.bar.map_or(0, u16::from)),
    }
}
