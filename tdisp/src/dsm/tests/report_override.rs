//! Reports that lie: from the next LOCK on, in exactly what they were told to say, and nowhere else.

use super::*;
use crate::wire::{InterfaceReport, MmioRange, RangeAttributes, ReportTooLong};

fn whole_report(device: &mut Device) -> Vec<u8> {
    let got = device.send(Request::GetReport { offset: 0, length: 0xFFFF });
    let Got::Report(bytes, 0) = got else { panic!("{got:?}") };
    bytes
}

fn says(device: &mut Device, says: ReportOverride) {
    device.dsm.override_report(&device.functions[0], Some(says)).unwrap();
}

fn edit(device: &mut Device, edit: ReportEdit) {
    says(device, ReportOverride::Edited(edit));
}

#[test]
fn exact_bytes_are_handed_out_from_the_next_lock_on() {
    let mut device = Device::secure();
    device.lock(0);
    let truth = whole_report(&mut device);
    says(&mut device, ReportOverride::Exact(vec![0xEE; 5]));
    assert_eq!(whole_report(&mut device), truth, "what LOCK fixed stays");
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    device.lock(0);
    assert_eq!(whole_report(&mut device), [0xEE; 5]);
    assert_eq!(device.send(Request::GetReport { offset: 3, length: 1 }), Got::Report(vec![0xEE], 1));
    assert_eq!(device.dsm.report(0), Some(&[0xEE; 5][..]));
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    device.dsm.conventional_reset();
    device.set_up_stream(SESSION);
    device.lock(0);
    assert_eq!(whole_report(&mut device), [0xEE; 5], "no reset makes it honest");
    device.dsm.override_report(&device.functions[0], None).unwrap();
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    device.lock(0);
    assert_eq!(whole_report(&mut device), truth);
}

#[test]
fn a_report_of_no_bytes_cannot_be_read() {
    let mut device = Device::secure();
    says(&mut device, ReportOverride::Exact(Vec::new()));
    device.lock(0);
    assert_eq!(device.send(REPORT), INVALID_REQUEST);
}

#[test]
fn an_edit_changes_the_fields_it_names_and_no_other() {
    let mut device = Device::secure();
    let request = LockRequest { default_stream_id: STREAM_ID, ..LockRequest::default() };
    let at_lock = |device: &Device| {
        InterfaceReport::decode(&device.dsm.report_at_lock(&device.functions[0], &request).unwrap()).unwrap()
    };
    let truth = at_lock(&device);
    let info = InterfaceInfo::from_bits(0xFFFF);
    let record = MmioRange {
        first_page: u64::MAX,
        pages: 0,
        attributes: RangeAttributes::from_bits(0xFFF5),
        range_id: 0x7777,
    };
    let range = RangeEdit {
        start: RangeStart::Page(u64::MAX),
        pages: 0,
        attributes: record.attributes,
        range_id: record.range_id,
    };
    let edits = [
        (ReportEdit::default(), truth.clone()),
        (ReportEdit { info: Some(info), ..ReportEdit::default() }, InterfaceReport { info, ..truth.clone() }),
        (
            ReportEdit { msix_message_control: Some(0xABCD), ..ReportEdit::default() },
            InterfaceReport { msix_message_control: 0xABCD, ..truth.clone() },
        ),
        (
            ReportEdit { lnr_control: Some(1), tph_control: Some(2), ..ReportEdit::default() },
            InterfaceReport { lnr_control: 1, tph_control: 2, ..truth.clone() },
        ),
        (
            ReportEdit { device_info: Some(b"lies".to_vec()), ..ReportEdit::default() },
            InterfaceReport { device_info: b"lies".to_vec(), ..truth.clone() },
        ),
        (
            ReportEdit { ranges: Some(vec![range]), ..ReportEdit::default() },
            InterfaceReport { ranges: vec![record], ..truth.clone() },
        ),
    ];
    for (change, expected) in edits {
        edit(&mut device, change);
        assert_eq!(at_lock(&device), expected);
        device.lock(0);
        assert_eq!(InterfaceReport::decode(&whole_report(&mut device)).unwrap(), expected);
        assert_eq!(device.send(Request::Stop), Got::Stopped);
    }
}

#[test]
fn a_range_of_a_bar_moves_with_it_and_with_the_reporting_offset() {
    let mut device = Device::secure();
    let range = |index, first_page| RangeEdit {
        start: RangeStart::Bar { index, first_page },
        pages: 1,
        attributes: RangeAttributes::new(),
        range_id: 0,
    };
    // Function 0 has BAR 2 at 0x10_0020_0000; there is no BAR 5.
    edit(&mut device, ReportEdit { ranges: Some(vec![range(2, 3), range(5, 3)]), ..ReportEdit::default() });
    let offset = 0x1000_0000_u64.wrapping_neg();
    let request = LockRequest { mmio_reporting_offset: offset, ..LockRequest::default() };
    let pages = |device: &Device| {
        let bytes = device.dsm.report_at_lock(&device.functions[0], &request).unwrap();
        InterfaceReport::decode(&bytes)
            .unwrap()
            .ranges
            .iter()
            .map(|range| range.first_page)
            .collect::<Vec<_>>()
    };
    let page = |address: u64| address.wrapping_add(offset) >> 12;
    assert_eq!(pages(&device), [page(0x10_0020_3000), page(0x3000)]);
    device.functions[0].bars[0].address = Some(0x80_0000_0000);
    assert_eq!(pages(&device), [page(0x80_0000_3000), page(0x3000)]);
}

#[test]
fn what_cannot_be_read_to_its_end_is_refused() {
    let mut device = Device::secure();
    let view = device.functions[0].clone();
    let fits = ReportOverride::Exact(vec![1; 0xFFFF]);
    device.dsm.override_report(&view, Some(fits.clone())).unwrap();
    for too_long in [
        ReportOverride::Exact(vec![0; 0x1_0000]),
        ReportOverride::Edited(ReportEdit { device_info: Some(vec![0; 0xFFFF]), ..ReportEdit::default() }),
    ] {
        let refused: Result<(), ReportTooLong> = device.dsm.override_report(&view, Some(too_long));
        assert!(refused.is_err());
        assert_eq!(device.dsm.report_override(0), Some(&fits), "nothing has changed");
    }
    device.lock(0);
    assert_eq!(device.dsm.report(0).unwrap().len(), 0xFFFF);
}

#[test]
fn a_function_lies_for_itself_only() {
    let mut device = Device::with_stream(DsmConfig { functions: 2, ..DsmConfig::default() });
    says(&mut device, ReportOverride::Exact(vec![1]));
    device.lock(0);
    device.lock(1);
    assert_eq!(device.dsm.report(0), Some(&[1][..]));
    assert_ne!(device.dsm.report(1), Some(&[1][..]));
    assert_eq!(device.dsm.report_override(1), None);
    assert_eq!(device.dsm.function_id(1), FunctionId::new(0xAB01, None), "what LOCK called it");
    device.dsm.conventional_reset();
    device.dsm.learn_address(0x0100, 2);
    assert_eq!(device.dsm.function_id(1), FunctionId::new(0x0101, Some(2)));
}

#[test]
fn a_function_that_is_pinned_has_that_id() {
    let function_match = FunctionMatch::Pinned { requester_id: 0x4500, segment: 3 };
    let device = Device::new(DsmConfig { functions: 2, function_match, ..DsmConfig::default() });
    assert_eq!(device.dsm.function_id(1), FunctionId::new(0x4501, Some(3)));
}

#[test]
fn a_lie_changes_no_check_of_lock() {
    let mut device = Device::secure();
    says(&mut device, ReportOverride::Exact(vec![1]));
    device.functions[0].bars[0].address = None;
    assert_eq!(device.send(lock_request()), Got::Error(ErrorCode::INVALID_DEVICE_CONFIGURATION, 0));
    assert_eq!(device.refusal(), Refusal::BarUnassigned(2));
}
