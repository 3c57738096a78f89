//! One list of sample messages drives golden bytes, round trips, truncation at every length and a trailing byte.

use proptest::prelude::*;

use super::ide_km::{self, KeyHead, KeyMaterial, KeySet, KeySlot, KpAckStatus, Object, QueryResponse};
use super::*;

const INTERFACE: InterfaceId = InterfaceId { function: FunctionId::new(0xBEEF, Some(0x12)), reserved: 0 };

/// Version, code, reserved, FUNCTION_ID, reserved.
fn header(code: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, code, 0, 0, 0xEF, 0xBE, 0x12, 0x01];
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(code);
    bytes.extend_from_slice(body);
    bytes
}

fn range() -> MmioRange {
    MmioRange {
        first_page: 0x1_2345_6789,
        pages: 0x0102_0304,
        attributes: RangeAttributes::new().with_non_tee(true).with_updatable(true),
        range_id: 4,
    }
}

const RANGE_BYTES: [u8; 16] = [0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0, 4, 3, 2, 1, 0x0C, 0, 4, 0];

/// Golden bytes, the request, and whether the body has an open end that swallows trailing bytes.
fn requests() -> Vec<(Vec<u8>, Request<'static>, bool)> {
    let lock = LockRequest {
        flags: LockFlags::new().with_no_fw_update(true).with_lock_msix(true),
        default_stream_id: 7,
        reserved: 0,
        mmio_reporting_offset: 0x1122_3344_5566_7788,
        bind_p2p_address_mask: 0x99AA_BBCC_DDEE_FF00,
    };
    let lock_bytes = [
        5, 0, 7, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA,
        0x99,
    ];
    let vdm = Vdm::new(RegistryId::PCI_SIG, &[0xF4, 0x1A], &[9, 8, 7]).unwrap();
    vec![
        (header(0x81), Request::GetVersion, false),
        (message(0x82, &[4, 3, 2, 1]), Request::GetCapabilities { tsm_caps: 0x0102_0304 }, false),
        (message(0x83, &lock_bytes), Request::Lock(lock), false),
        (
            message(0x84, &[0x34, 0x12, 0x78, 0x56]),
            Request::GetReport { offset: 0x1234, length: 0x5678 },
            false,
        ),
        (header(0x85), Request::GetState, false),
        (message(0x86, &[0x5C; 32]), Request::Start(Nonce::new([0x5C; 32])), false),
        (header(0x87), Request::Stop, false),
        (message(0x88, &[3]), Request::BindP2p(3), false),
        (message(0x89, &[4]), Request::UnbindP2p(4), false),
        (message(0x8A, &RANGE_BYTES), Request::SetMmioAttribute(range()), false),
        (message(0x8B, &[0, 2, 0xF4, 0x1A, 9, 8, 7]), Request::Vdm(vdm), true),
    ]
}

fn responses() -> Vec<(Vec<u8>, Response<'static>, bool)> {
    let capabilities = Capabilities {
        dsm_caps: 0,
        requests: RequestBitmap::REQUIRED,
        lock_flags: LockFlags::from_bits(0x1F),
        dev_addr_width: 52,
        num_req_this: 1,
        num_req_all: 2,
    };
    let mut capability_bytes = vec![0, 0, 0, 0, 0xFE];
    capability_bytes.extend_from_slice(&[0; 15]);
    capability_bytes.extend_from_slice(&[0x1F, 0, 0, 0, 0, 52, 1, 2]);
    let vendor = Vdm::new(RegistryId::CXL, &[1], &[2]).unwrap();
    vec![
        (message(0x01, &[1, 0x10]), Response::Version(&[0x10]), false),
        (message(0x02, &capability_bytes), Response::Capabilities(capabilities), false),
        (message(0x03, &[0xC5; 32]), Response::Lock(Nonce::new([0xC5; 32])), false),
        (
            message(0x04, &[3, 0, 0x34, 0x12, 1, 2, 3]),
            Response::Report { portion: &[1, 2, 3], remainder: 0x1234 },
            false,
        ),
        (message(0x05, &[2]), Response::State(TdiState::RUN), false),
        (header(0x06), Response::Start, false),
        (header(0x07), Response::Stop, false),
        (header(0x08), Response::BindP2p, false),
        (header(0x09), Response::UnbindP2p, false),
        (header(0x0A), Response::SetMmioAttribute, false),
        (message(0x0B, &[0, 0, 1]), Response::Vdm(Vdm::new(RegistryId(0), &[], &[1]).unwrap()), true),
        (
            message(0x7F, &[7, 0, 0, 0, 0x8B, 0, 0, 0]),
            Response::error(ErrorCode::UNSUPPORTED_REQUEST, 0x8B),
            false,
        ),
        (
            message(0x7F, &[4, 1, 0, 0, 0, 0, 0, 0]),
            Response::error(ErrorCode::INVALID_DEVICE_CONFIGURATION, 0),
            false,
        ),
        (
            message(0x7F, &[0xFF, 0, 0, 0, 4, 0, 0, 0, 1, 1, 1, 2]),
            Response::Error { code: ErrorCode::VENDOR_SPECIFIC_ERROR, data: 4, extended: Some(vendor) },
            true,
        ),
    ]
}

fn objects() -> Vec<(Vec<u8>, Object<'static>, bool)> {
    let slot = KeySlot {
        set: KeySet::One,
        direction: ide_km::Direction::Tx,
        sub_stream: ide_km::SubStream::Completion,
    };
    let head = KeyHead::new(1, 0x55, slot);
    let mut key_prog = vec![2, 0, 0, 0x55, 0, 0x23, 1];
    key_prog.extend_from_slice(&[0xDF; 32]);
    key_prog.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    let refused = KeyHead { status: KpAckStatus::UNSUPPORTED_VALUE, ..head };
    let answer = QueryResponse {
        port_index: 0,
        dev_func: 0x08,
        bus: 0xAB,
        segment: 2,
        max_port_index: 1,
        registers: &[1, 2, 3, 4],
    };
    vec![
        (vec![0, 0, 5], Object::Query(5), false),
        (vec![1, 0, 0, 0x08, 0xAB, 2, 1, 1, 2, 3, 4], Object::QueryResponse(answer), true),
        (key_prog, Object::KeyProg(head, KeyMaterial::new([0xDF; 32])), false),
        (vec![3, 0, 0, 0x55, 3, 0x23, 1], Object::KpAck(refused), false),
        (vec![4, 0, 0, 0x55, 0, 0x23, 1], Object::KSetGo(head), false),
        (vec![5, 0, 0, 0x55, 0, 0x23, 1], Object::KSetStop(head), false),
        (vec![6, 0, 0, 0x55, 0, 0x23, 1], Object::KGoStopAck(head), false),
    ]
}

/// Encodes behind bytes that must stay, into memory that held something else.
fn encode_dirty(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0xA5; 512];
    out.truncate(5);
    encode(&mut out);
    assert_eq!(out[..5], [0xA5; 5]);
    out.split_off(5)
}

#[test]
fn requests_encode_and_decode_to_the_golden_bytes() {
    for (golden, request, _) in requests() {
        let message = RequestMessage { interface: INTERFACE, request };
        assert_eq!(encode_dirty(|out| message.encode(out)), golden, "{message:?}");
        assert_eq!(RequestMessage::decode(&golden), Ok(message));
    }
}

#[test]
fn responses_encode_and_decode_to_the_golden_bytes() {
    for (golden, response, _) in responses() {
        let message = ResponseMessage { interface: INTERFACE, response };
        assert_eq!(encode_dirty(|out| message.encode(out).unwrap()), golden, "{message:?}");
        assert_eq!(ResponseMessage::decode(&golden), Ok(message));
    }
}

#[test]
fn objects_encode_and_decode_to_the_golden_bytes() {
    for (golden, object, _) in objects() {
        assert_eq!(encode_dirty(|out| object.encode(out)), golden, "{object:?}");
        assert_eq!(Object::decode(&golden), Ok(object));
    }
}

/// Every shorter message is refused, unless only its open end got shorter; so is every longer one.
fn truncations_and_trailing<T: PartialEq + std::fmt::Debug>(
    golden: &[u8],
    open_end: Option<usize>,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    for length in 0..golden.len() {
        let refused = decode(&golden[..length]).is_err();
        assert_eq!(refused, open_end.is_none_or(|fixed| length < fixed), "{length} of {golden:02x?}");
    }
    let mut longer = golden.to_vec();
    longer.push(0);
    match open_end {
        None => assert_eq!(decode(&longer).unwrap_err(), DecodeError::TrailingBytes(1)),
        Some(_) => assert!(decode(&longer).is_ok()),
    }
}

#[test]
fn every_truncation_and_a_trailing_byte_are_refused() {
    for (golden, request, open) in requests() {
        let fixed = open.then_some(20).filter(|_| matches!(request, Request::Vdm(_)));
        truncations_and_trailing(&golden, fixed, |bytes| RequestMessage::decode(bytes).map(|_| ()));
    }
    for (golden, response, open) in responses() {
        let fixed = if matches!(response, Response::Vdm(_)) { 18 } else { 27 };
        truncations_and_trailing(&golden, open.then_some(fixed), |bytes| {
            ResponseMessage::decode(bytes).map(|_| ())
        });
    }
    for (golden, _, open) in objects() {
        truncations_and_trailing(&golden, open.then_some(7), |bytes| Object::decode(bytes).map(|_| ()));
    }
}

#[test]
fn versions_and_codes_are_judged_by_name() {
    let mut bytes = header(0x81);
    bytes[0] = 0x20;
    assert_eq!(RequestMessage::decode(&bytes), Err(DecodeError::Version(0x20)));
    assert_eq!(RequestMessage::decode(&header(0x8C)), Err(DecodeError::UnknownCode(MessageCode(0x8C))));
    assert_eq!(
        RequestMessage::decode(&header(0x01)),
        Err(DecodeError::UnknownCode(MessageCode::VERSION)),
        "a response is no request"
    );
    assert_eq!(Object::decode(&[7]), Err(DecodeError::UnknownObject(7)));
    assert_eq!(Object::decode(&[]), Err(DecodeError::Truncated("IDE_KM object id")));
}

#[test]
fn a_response_that_does_not_fit_its_length_leaves_nothing_behind() {
    let mut out = vec![1];
    let response = Response::Report { portion: &[0; 0x1_0000], remainder: 0 };
    let message = ResponseMessage { interface: INTERFACE, response };
    assert_eq!(message.encode(&mut out), Err(FieldTooLong { field: "REPORT_BYTES", length: 0x1_0000 }));
    assert_eq!(out, [1]);
}

#[test]
fn a_vendor_id_fits_its_length_byte() {
    assert!(Vdm::new(RegistryId::PCI_SIG, &[0; 255], &[]).is_ok());
    let error = FieldTooLong { field: "VENDOR_ID", length: 256 };
    assert_eq!(Vdm::new(RegistryId::PCI_SIG, &[0; 256], &[]), Err(error));
}

#[test]
fn the_required_requests_and_no_others() {
    let codes: Vec<u8> = RequestBitmap::REQUIRED.codes().map(|code| code.0).collect();
    assert_eq!(codes, [0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87]);
    assert!(!RequestBitmap::REQUIRED.contains(MessageCode::VERSION));
}

#[test]
fn function_ids() {
    let id = FunctionId(0x0112_BEEF);
    assert_eq!((id.requester_id(), id.segment(), id.reserved()), (0xBEEF, Some(0x12), 0));
    assert_eq!(id, FunctionId::new(0xBEEF, Some(0x12)));
    assert_eq!(id.to_string(), "12:be:1d.7");
    let unstated = FunctionId(0xFE12_0108);
    assert_eq!((unstated.segment(), unstated.segment_field(), unstated.reserved()), (None, 0x12, 0x7F));
    assert_eq!(unstated.to_string(), "01:01.0");
}

#[test]
fn key_sub_stream_bytes() {
    for (bits, slot) in
        (0..=0xFF_u8).map(|bits| (bits, KeySlot::try_from(ide_km::KeySubStream::from_bits(bits))))
    {
        let legal = bits & 0x0C == 0 && bits >> 4 <= 2;
        assert_eq!(slot.is_ok(), legal, "{bits:#04x}");
        if let Ok(slot) = slot {
            assert_eq!(ide_km::KeySubStream::from(slot).into_bits(), bits);
        }
    }
    assert_eq!(KeySlot::all().count(), 12);
}

fn report() -> InterfaceReport {
    InterfaceReport {
        info: InterfaceInfo::new().with_no_fw_update(true).with_dma_without_pasid(true),
        msix_message_control: 0x800F,
        lnr_control: 0x0102,
        tph_control: 0x0304_0506,
        ranges: vec![range(), MmioRange { range_id: 2, ..MmioRange::default() }],
        device_info: b"abc".to_vec(),
    }
}

#[test]
fn a_report_has_the_layout_of_the_specification() {
    let mut golden = vec![3, 0, 0, 0, 0x0F, 0x80, 2, 1, 6, 5, 4, 3, 2, 0, 0, 0];
    golden.extend_from_slice(&RANGE_BYTES);
    golden.extend_from_slice(&[0; 14]);
    golden.extend_from_slice(&[2, 0, 3, 0, 0, 0, b'a', b'b', b'c']);
    assert_eq!(report().encode(), Ok(golden.clone()));
    assert_eq!(InterfaceReport::decode(&golden), Ok(report()));
    truncations_and_trailing(&golden, None, |bytes| InterfaceReport::decode(bytes).map(|_| ()));
}

#[test]
fn an_empty_report_is_twenty_zero_bytes() {
    assert_eq!(InterfaceReport::default().encode(), Ok(vec![0; 20]));
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused_without_allocating() {
    let mut bytes = InterfaceReport::default().encode().unwrap();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(InterfaceReport::decode(&bytes), Err(DecodeError::Truncated("MMIO_RANGE")));
    let mut bytes = InterfaceReport::default().encode().unwrap();
    bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(InterfaceReport::decode(&bytes), Err(DecodeError::Truncated("DEVICE_SPECIFIC_INFO")));
}

#[test]
fn a_report_that_nobody_could_read_is_an_error() {
    let fits = InterfaceReport { device_info: vec![0; 65_515], ..InterfaceReport::default() };
    assert_eq!(fits.encode().map(|bytes| bytes.len()), Ok(65_535));
    let longer = InterfaceReport { device_info: vec![0; 65_516], ..InterfaceReport::default() };
    assert_eq!(longer.encode(), Err(ReportTooLong(65_536)));
}

#[test]
fn secrets_do_not_print() {
    let object =
        Object::KeyProg(KeyHead::new(0, 0, KeySlot::all().next().unwrap()), KeyMaterial::new([0xAB; 32]));
    let text = format!("{object:?}");
    assert!(
        text.contains("KeyMaterial(..)") && !text.to_lowercase().contains("ab, ab") && !text.contains("171")
    );
}

proptest! {
    #[test]
    fn whatever_decodes_encodes_to_the_same_body(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), code in 0x80..0x8D_u8) {
        if let Some([version, place, ..]) = bytes.get_mut(..2) {
            (*version, *place) = (0x10, code);
        }
        if let Ok(message) = RequestMessage::decode(&bytes) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(&again[4..], &bytes[4..], "all but the header's reserved bytes");
        }
    }

    #[test]
    fn arbitrary_responses_objects_and_reports_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), code: u8) {
        let mut response = header(code & 0x7F);
        response.extend_from_slice(&bytes);
        if let Ok(message) = ResponseMessage::decode(&response) {
            let mut again = Vec::new();
            prop_assert!(message.encode(&mut again).is_ok());
            prop_assert_eq!(again.len(), response.len());
        }
        let mut object = bytes.clone();
        if let Some(id) = object.first_mut() {
            *id = code & 7;
        }
        let _ = Object::decode(&object);
        if let Ok(report) = InterfaceReport::decode(&bytes) {
            prop_assert_eq!(report.encode().unwrap().len(), bytes.len());
        }
    }
}
