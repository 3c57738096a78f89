//! What every message has in common, and the contents of the answers.

use super::*;
use crate::wire::{InterfaceReport, MmioRange, RangeAttributes, RequestBitmap};

fn interface(id: u32) -> InterfaceId {
    InterfaceId { function: FunctionId(id), reserved: 0 }
}

#[test]
fn outside_of_a_session_there_is_no_answer() {
    let mut device = Device::secure();
    let mut bytes = Vec::new();
    for request in [Request::GetVersion, Request::GetState, lock_request(), Request::Stop] {
        bytes.clear();
        RequestMessage { interface: interface(0), request }.encode(&mut bytes);
        assert_eq!(device.send_bytes(None, &bytes), Got::Nothing);
    }
    assert_eq!(device.send_bytes(None, &[]), Got::Nothing);
    assert_eq!((device.dsm.state(0), device.effects()), (UNLOCKED, vec![]));
}

#[test]
fn version_and_capabilities() {
    let mut device = Device::secure();
    assert_eq!(device.send(Request::GetVersion), Got::Version(vec![0x10]));
    let expected = crate::wire::Capabilities {
        dsm_caps: 0,
        requests: RequestBitmap::REQUIRED,
        lock_flags: LockFlags::new().with_no_fw_update(true).with_lock_msix(true),
        dev_addr_width: 52,
        num_req_this: 1,
        num_req_all: 1,
    };
    for tsm_caps in [0, 1, u32::MAX] {
        assert_eq!(device.send(Request::GetCapabilities { tsm_caps }), Got::Capabilities(expected));
    }
}

#[test]
fn a_header_of_another_version_is_a_mismatch() {
    for version in [0x00, 0x0F, 0x11, 0x1F, 0x20, 0xFF] {
        for code in [0x81, 0x83, 0x87, 0xFF].into_iter().filter(|code| *code != 0x81 || version >> 4 != 1) {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&[version, code]);
            let got = Device::secure().send_bytes(Some(SESSION), &bytes);
            assert_eq!(got, Got::Error(ErrorCode::VERSION_MISMATCH, 0));
        }
    }
}

#[test]
fn a_version_query_of_any_minor_version_is_answered() {
    for version in [0x11, 0x1F] {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[version, 0x81]);
        assert_eq!(Device::secure().send_bytes(Some(SESSION), &bytes), Got::Version(vec![0x10]));
    }
}

#[test]
fn codes_that_are_not_supported_come_back_as_data() {
    for code in (0..=0xFF_u8).filter(|code| !(0x81..=0x87).contains(code)) {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0x10, code]);
        let got = Device::in_state(RUN).send_bytes(Some(SESSION), &bytes);
        assert_eq!(got, Got::Error(ErrorCode::UNSUPPORTED_REQUEST, u32::from(code)));
    }
}

#[test]
fn every_length_but_the_right_one_is_invalid() {
    let sizes = [(0x81, 16), (0x82, 20), (0x83, 36), (0x84, 20), (0x85, 16), (0x86, 48), (0x87, 16)];
    for (code, size) in sizes {
        for length in (16..70).filter(|length| *length != size) {
            let mut bytes = vec![0; length];
            bytes[..2].copy_from_slice(&[0x10, code]);
            let mut device = Device::in_state(LOCKED);
            assert_eq!(device.send_bytes(Some(SESSION), &bytes), INVALID_REQUEST, "{code:#x} of {length}");
            assert_eq!(device.dsm.state(0), LOCKED);
        }
    }
    for length in 0..16 {
        assert_eq!(Device::secure().send_bytes(Some(SESSION), &vec![0x10; length]), INVALID_REQUEST);
    }
}

#[test]
fn reserved_bits() {
    let mut bytes = Vec::new();
    RequestMessage { interface: interface(0), request: Request::GetState }.encode(&mut bytes);
    let cases = [(2, ErrorCode::INVALID_REQUEST), (3, ErrorCode::INVALID_REQUEST)]
        .into_iter()
        .chain((8..16).chain([6, 7]).map(|byte| (byte, ErrorCode::INVALID_INTERFACE)));
    for (byte, code) in cases {
        let mut dirty = bytes.clone();
        dirty[byte] = 0x80;
        let got = Device::secure().send_bytes(Some(SESSION), &dirty);
        assert_eq!(got, Got::State(UNLOCKED), "byte {byte}, ignored");
        let config = DsmConfig { reserved_fields: ReservedFields::Reject, ..DsmConfig::default() };
        let got = Device::with_stream(config).send_bytes(Some(SESSION), &dirty);
        assert_eq!(got, Got::Error(code, 0), "byte {byte}");
    }
}

#[test]
fn functions_are_matched_by_number_pinned_or_not_at_all() {
    let pinned = FunctionMatch::Pinned { requester_id: 0x0308, segment: 2 };
    // (match, functions, FUNCTION_ID, hosted)
    let table = [
        (FunctionMatch::Number, 2, 0x0000, true),
        (FunctionMatch::Number, 2, 0xBEE9, true),
        (FunctionMatch::Number, 2, 0xBEEA, false),
        (FunctionMatch::Number, 2, 0x01AB_0001, true),
        (FunctionMatch::Number, 2, 0x00AB_0001, true),
        (FunctionMatch::Number, 2, 0x0200_0000, true),
        (FunctionMatch::Number, 9, 0x0008, true),
        (FunctionMatch::Number, 9, 0x0009, false),
        (FunctionMatch::Number, 256, 0x12FF, true),
        (pinned, 2, 0x0308, true),
        (pinned, 2, 0x0309, true),
        (pinned, 2, 0x030A, false),
        (pinned, 2, 0x0307, false),
        (pinned, 2, 0x0102_0308, true),
        (pinned, 2, 0x0103_0308, false),
        (FunctionMatch::Any, 1, 0xBEEF, true),
    ];
    for (function_match, functions, id, hosted) in table {
        let mut device = Device::new(DsmConfig { function_match, functions, ..DsmConfig::default() });
        let expected = if hosted { Got::State(UNLOCKED) } else { INVALID_INTERFACE };
        assert_eq!(device.send_as(SESSION, interface(id), Request::GetState), expected, "{id:#x}");
    }
}

#[test]
fn a_locked_tdi_answers_to_the_name_that_lock_used() {
    let mut device = Device::in_state(LOCKED);
    // LOCK came for ab:00.0 and stated no segment.
    for (id, hosted) in [(0xAB00, true), (0x0112_AB00, true), (0xAC00, false), (0xAB08, false), (0, false)] {
        let expected = if hosted { Got::State(LOCKED) } else { INVALID_INTERFACE };
        assert_eq!(device.send_as(SESSION, interface(id), Request::GetState), expected, "{id:#x}");
    }
    assert_eq!(device.send(Request::Stop), Got::Stopped);
    assert_eq!(device.send_as(SESSION, interface(0), Request::GetState), Got::State(UNLOCKED));

    let request = || lock_request();
    assert!(matches!(device.send_as(SESSION, interface(0x0112_AB00), request()), Got::Locked(_)));
    for (id, hosted) in [(0xAB00, true), (0x0112_AB00, true), (0x0113_AB00, false)] {
        let expected = if hosted { Got::State(LOCKED) } else { INVALID_INTERFACE };
        assert_eq!(device.send_as(SESSION, interface(id), Request::GetState), expected, "{id:#x}");
    }
}

#[test]
fn requests_beyond_those_that_may_wait_are_busy() {
    let config = DsmConfig { functions: 2, num_req_this: 1, num_req_all: 2, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    let busy = Got::Error(ErrorCode::BUSY, 0);
    device.dsm.hold(0);
    assert_eq!(device.send_to(0, Request::GetState), busy);
    assert_eq!(device.send_to(1, Request::GetState), Got::State(UNLOCKED));
    device.dsm.hold(1);
    assert_eq!(device.send_to(1, lock_request()), busy);
    assert_eq!(device.dsm.state(1), UNLOCKED);
    device.dsm.release(0);
    device.dsm.release(0);
    assert_eq!(device.send_to(0, Request::GetState), Got::State(UNLOCKED));
    assert_eq!(device.send_to(1, Request::GetState), busy);
    device.dsm.conventional_reset();
    assert_eq!(device.send_to(1, Request::GetState), Got::State(UNLOCKED));
}

#[test]
fn a_function_without_a_description_is_not_hosted() {
    let mut device = Device::secure();
    device.functions.clear();
    for request in [Request::GetVersion, lock_request(), Request::Stop] {
        assert_eq!(device.send(request), INVALID_INTERFACE);
    }
}

#[test]
fn another_session_changes_nothing_and_learns_little() {
    for state in [LOCKED, RUN, ERROR] {
        let mut device = Device::in_state(state);
        let requests =
            [Request::GetState, lock_request(), REPORT, Request::Start(Nonce::new([1; 32])), Request::Stop];
        for request in requests {
            assert_eq!(device.send_as(OTHER, interface(0xAB00), request), INVALID_REQUEST);
            assert_eq!((device.dsm.state(0), device.refusal()), (state, Refusal::ForeignSession));
        }
        assert_eq!(device.send_as(OTHER, interface(0xAB00), Request::GetVersion), Got::Version(vec![0x10]));
        let capabilities = device.send_as(OTHER, interface(0xAB00), Request::GetCapabilities { tsm_caps: 0 });
        assert!(matches!(capabilities, Got::Capabilities(_)));
        assert_eq!(device.dsm.state(0), state);
    }
}

#[test]
fn a_foreign_state_query_can_be_allowed() {
    let config = DsmConfig { foreign_state_query: ForeignStateQuery::Answer, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    device.bring(0, RUN);
    assert_eq!(device.send_as(OTHER, interface(0xAB00), Request::GetState), Got::State(RUN));
    assert_eq!(device.send_as(OTHER, interface(0xAB00), Request::Stop), INVALID_REQUEST);
}

#[test]
fn once_the_session_is_gone_anyone_may_stop_what_it_left_in_error() {
    let mut device = Device::in_state(RUN);
    device.dsm.session_ended(SESSION);
    assert_eq!(device.send_as(OTHER, interface(0), Request::GetState), Got::State(ERROR));
    assert_eq!(device.send_as(OTHER, interface(0), Request::Stop), Got::Stopped);
    assert_eq!(device.dsm.state(0), UNLOCKED);
}

fn decode_report(device: &mut Device) -> InterfaceReport {
    let Got::Report(portion, 0) = device.send(REPORT) else { panic!("no whole report") };
    InterfaceReport::decode(&portion).unwrap()
}

#[test]
fn the_report_lists_pages_by_bar_and_address() {
    let record = |first_page, pages, non_tee, updatable, range_id| MmioRange {
        first_page,
        pages,
        attributes: RangeAttributes::new().with_non_tee(non_tee).with_updatable(updatable),
        range_id,
    };
    let expected = [
        record(0x100_0100, 1, false, false, 0),
        record(0x100_0200, 12, false, false, 2),
        record(0x100_020C, 4, true, true, 2),
        // MSI-X, which is not locked.
        record(0x100_0300, 1, true, false, 4),
        record(0x100_0301, 1, true, false, 4),
    ];
    let config = DsmConfig { unlocked_msix: UnlockedMsix::Plain, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    device.bring(0, LOCKED);
    assert_eq!(decode_report(&mut device).ranges, expected);

    let mut device = Device::in_state(LOCKED);
    let report = decode_report(&mut device);
    assert_eq!(report.ranges, expected[..3], "what is not locked must not be reported");
    assert_eq!(report.info.into_bits(), 0b10, "reserved bits of the owner do not get through");
    assert_eq!((report.msix_message_control, report.tph_control), (0, 0));
    assert_eq!(report.device_info, b"info");
}

#[test]
fn lock_flags_show_in_the_report() {
    let mut device = Device::secure();
    let flags = LockFlags::new().with_no_fw_update(true).with_lock_msix(true);
    assert!(matches!(device.send(lock_with(flags)), Got::Locked(_)));
    let effects = device.effects();
    let report = decode_report(&mut device);
    assert_eq!(report.info.into_bits(), 0b11);
    assert_eq!((report.msix_message_control, report.tph_control), (0x8003, 0x11));
    let attributes: Vec<u16> = report.ranges.iter().map(|range| range.attributes.into_bits()).collect();
    assert_eq!(attributes, [0, 0, 0xC, 0x1, 0x2]);
    let private =
        |first_page| Effect::MmioAttribute { function: 0, bar: 4, first_page, pages: 1, non_tee: false };
    assert_eq!(effects[2..], [private(0), private(1)], "locked pages are private (PCIe 6.1 §11.3.8)");
}

#[test]
fn a_private_msix_table_is_locked_by_every_lock() {
    let mut device = Device::secure();
    for range in &mut device.functions[0].bars[2].ranges {
        range.non_tee = false;
    }
    device.bring(0, LOCKED);
    let report = decode_report(&mut device);
    let attributes: Vec<u16> = report.ranges.iter().map(|range| range.attributes.into_bits()).collect();
    assert_eq!(attributes, [0, 0, 0xC, 0x1, 0x2]);
    assert_eq!(report.msix_message_control, 0x8003);
}

#[test]
fn the_reporting_offset_is_added_modulo_2_to_the_64() {
    for (offset, first_page) in [
        (0xD000_0000, 0x10D_0100),
        (0x0000_0000_0000_1000, 0x100_0101),
        (0xFFFF_FFFF_FFFF_F000, 0x100_00FF),
        (0_u64.wrapping_sub(0x10_0010_0000), 0),
        (0_u64.wrapping_sub(0x10_0010_1000), 0x000F_FFFF_FFFF_FFFF),
    ] {
        let mut device = Device::secure();
        let request = LockRequest {
            default_stream_id: STREAM_ID,
            mmio_reporting_offset: offset,
            ..LockRequest::default()
        };
        assert!(matches!(device.send(Request::Lock(request)), Got::Locked(_)));
        assert_eq!(decode_report(&mut device).ranges[0].first_page, first_page, "{offset:#x}");
    }
}

#[test]
fn range_ids_can_be_chosen() {
    let mut device = Device::secure();
    device.functions[0].bars[1].ranges[0].id = Some(0x99);
    device.bring(0, LOCKED);
    assert_eq!(decode_report(&mut device).ranges[0].range_id, 0x99);
}

#[test]
fn the_report_is_what_lock_saw() {
    let mut device = Device::in_state(LOCKED);
    let before = decode_report(&mut device);
    device.functions[0].bars.clear();
    device.functions[0].device_info = b"other".to_vec();
    assert_eq!(decode_report(&mut device), before);
}

#[test]
fn a_report_can_be_read_in_any_portions() {
    let mut device = Device::in_state(RUN);
    let whole = device.dsm.report(0).unwrap().to_vec();
    for step in [1, 7, 16, 1000] {
        let mut bytes = Vec::new();
        loop {
            let offset = bytes.len() as u16;
            let Got::Report(portion, remainder) = device.send(Request::GetReport { offset, length: step })
            else {
                panic!("at {offset}");
            };
            bytes.extend_from_slice(&portion);
            assert_eq!(bytes.len() + usize::from(remainder), whole.len());
            if remainder == 0 {
                break;
            }
            assert_eq!(portion.len(), usize::from(step));
        }
        assert_eq!(bytes, whole);
    }
    let end = whole.len() as u16;
    for offset in [end, end + 1, u16::MAX] {
        assert_eq!(device.send(Request::GetReport { offset, length: 1 }), INVALID_REQUEST, "{offset}");
    }
    let got = device.send(Request::GetReport { offset: 4, length: 0 });
    assert_eq!(got, Got::Report(vec![], end - 4));
}

#[test]
fn a_portion_has_an_upper_bound() {
    let mut device = Device::with_stream(DsmConfig { max_report_portion: 8, ..DsmConfig::default() });
    device.bring(0, LOCKED);
    let rest = device.dsm.report(0).unwrap().len() as u16 - 8;
    let got = device.send(Request::GetReport { offset: 0, length: u16::MAX });
    assert!(matches!(got, Got::Report(portion, remainder) if portion.len() == 8 && remainder == rest));
}

#[test]
fn configurations_that_no_dsm_can_have() {
    let base = DsmConfig::default;
    let fails = |config| Dsm::new(config).err();
    assert_eq!(fails(DsmConfig { functions: 0, ..base() }), Some(ConfigError::Functions(0)));
    assert_eq!(fails(DsmConfig { functions: 257, ..base() }), Some(ConfigError::Functions(257)));
    assert_eq!(fails(DsmConfig { num_req_this: 0, ..base() }), Some(ConfigError::Zero("NUM_REQ_THIS")));
    assert_eq!(fails(DsmConfig { num_req_all: 0, ..base() }), Some(ConfigError::Zero("NUM_REQ_ALL")));
    assert_eq!(
        fails(DsmConfig { max_report_portion: 0, ..base() }),
        Some(ConfigError::Zero("the report portion"))
    );
    let flags = LockFlags::from_bits(0x20);
    assert_eq!(fails(DsmConfig { lock_flags: flags, ..base() }), Some(ConfigError::LockFlags(0x20)));
}
