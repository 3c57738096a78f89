use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(line: &str) -> Result<Request, (FailureCode, String)> {
    Request::parse(line.as_bytes()).map_err(|reply| match reply.outcome {
        Outcome::Error(Failure { code, message }) => (code, message),
        Outcome::Result(value) => panic!("{value}"),
    })
}

fn failure(line: &str) -> (FailureCode, String) {
    parse(line).unwrap_err()
}

#[test]
fn every_command_has_its_line() {
    let id = Some(Id::Number(1));
    let commands = [
        (r#"{"id":1,"command":"state"}"#, Command::State {}),
        (r#"{"id":1,"command":"watch"}"#, Command::Watch {}),
        (
            r#"{"id":1,"command":"report-get","function":2,"lock_flags":4,"mmio_reporting_offset":"0x1000"}"#,
            Command::ReportGet { function: 2, lock_flags: Hex(4), mmio_reporting_offset: Hex(0x1000) },
        ),
        (
            r#"{"id":1,"command":"report-set","function":0,"report":{"hex":"00fF"}}"#,
            Command::ReportSet { function: 0, report: ReportText::Exact { hex: HexBytes(vec![0, 0xFF]) } },
        ),
        (
            r#"{"id":1,"command":"report-set","function":0,"report":{"device_info":"aa","interface_info":{"ats":true},"ranges":[{"bar":2,"pages":1}]}}"#,
            Command::ReportSet {
                function: 0,
                report: ReportText::Edited(ReportFields {
                    interface_info: Some(Bits::Named(InfoFlags { ats: true, ..InfoFlags::default() })),
                    device_info: Some(HexBytes(vec![0xAA])),
                    ranges: Some(vec![RangeFields { bar: Some(2), pages: 1, ..RangeFields::default() }]),
                    ..ReportFields::default()
                }),
            },
        ),
        (r#"{"id":1,"command":"report-reset","function":0}"#, Command::ReportReset { function: 0 }),
        (
            r#"{"id":1,"command":"dmabuf","function":1,"bar":2,"ranges":[{"offset":"0x3000","length":4096}]}"#,
            Command::Dmabuf {
                function: 1,
                bar: 2,
                tee: false,
                ranges: vec![ByteRange { offset: Hex(0x3000), length: Hex(0x1000) }],
                read_only: false,
            },
        ),
        (
            r#"{"id":1,"command":"dmabuf","function":0,"bar":0,"tee":true,"ranges":[],"read_only":true}"#,
            Command::Dmabuf { function: 0, bar: 0, tee: true, ranges: vec![], read_only: true },
        ),
    ];
    let mut seen = Vec::new();
    for (line, command) in commands {
        let request = Request { id: id.clone(), command };
        assert_eq!(parse(line), Ok(request.clone()), "{line}");
        let value = serde_json::to_value(&request).unwrap();
        seen.push(value["command"].as_str().unwrap().to_owned());
        assert_eq!(parse(&value.to_string()), Ok(request), "what a client writes is what a device reads");
    }
    seen.dedup();
    assert_eq!(seen, COMMANDS);
    assert_eq!(parse(r#"{"command":"state","id":"a"}"#).unwrap().id, Some(Id::Text("a".into())));
    assert_eq!(parse(r#"{"command":"state"}"#).unwrap().id, None);
}

#[test]
fn what_is_wrong_is_named() {
    for (line, code, part) in [
        ("", FailureCode::BadJson, "EOF"),
        ("{", FailureCode::BadJson, "EOF"),
        ("\u{0}\u{1}", FailureCode::BadJson, "expected value"),
        (r#"{"command":"state"} {}"#, FailureCode::BadJson, "trailing"),
        ("[]", FailureCode::BadRequest, "object"),
        ("7", FailureCode::BadRequest, "object"),
        ("{}", FailureCode::BadRequest, "command"),
        (r#"{"command":7}"#, FailureCode::BadRequest, "command"),
        (r#"{"id":-1,"command":"state"}"#, FailureCode::BadRequest, "id"),
        (r#"{"id":[1],"command":"state"}"#, FailureCode::BadRequest, "id"),
        (r#"{"command":"lock","function":0}"#, FailureCode::UnknownCommand, "`lock`"),
        (r#"{"command":"stop","function":0}"#, FailureCode::UnknownCommand, "`stop`"),
        (r#"{"command":"state","function":0}"#, FailureCode::BadRequest, "`function`"),
        (r#"{"command":"watch","count":0}"#, FailureCode::BadRequest, "`count`"),
        (r#"{"command":"report-get"}"#, FailureCode::BadRequest, "`function`"),
        (r#"{"command":"report-get","function":-1}"#, FailureCode::BadRequest, "-1"),
        (r#"{"command":"report-get","function":0,"lock_flags":65536}"#, FailureCode::BadRequest, "16 bits"),
        (r#"{"command":"report-set","function":0}"#, FailureCode::BadRequest, "`report`"),
        (
            r#"{"command":"report-set","function":0,"report":{"hex":"0"}}"#,
            FailureCode::BadRequest,
            "even number of hexadecimal",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"hex":"+1"}}"#,
            FailureCode::BadRequest,
            "even number of hexadecimal",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"hex":"00","ranges":[]}}"#,
            FailureCode::BadRequest,
            "`ranges`",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"range":[]}}"#,
            FailureCode::BadRequest,
            "`range`",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"ranges":[{"bar":0,"pages":1,"tee":true}]}}"#,
            FailureCode::BadRequest,
            "`tee`",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"interface_info":{"atz":true}}}"#,
            FailureCode::BadRequest,
            "`atz`",
        ),
        (
            r#"{"command":"report-set","function":0,"report":{"interface_info":"0x10000"}}"#,
            FailureCode::BadRequest,
            "16 bits",
        ),
    ] {
        let (found, message) = failure(line);
        assert_eq!(found, code, "{line}: {message}");
        assert!(message.contains(part), "{line}: {message}");
    }
    // The id comes back whatever else is wrong.
    let reply = Request::parse(br#"{"id":"x","command":"lock"}"#).unwrap_err();
    assert_eq!(reply.id, Some(Id::Text("x".into())));
}

#[test]
fn nesting_without_end_is_refused() {
    let line = format!(r#"{{"command":"state","x":{}"#, "[".repeat(MAX_REQUEST / 2));
    assert_eq!(failure(&line).0, FailureCode::BadJson);
}

#[test]
fn a_range_begins_in_one_place_and_has_its_attributes_once() {
    let check = |range: Value| {
        let fields: ReportFields =
            serde_json::from_value(json!({ "ranges": [{"page": 0, "pages": 1}, range] })).unwrap();
        fields.check().map_err(|error| error.field)
    };
    for good in [
        json!({"bar": 2, "pages": 1}),
        json!({"bar": 2, "first_page": 7, "pages": 1, "non_tee": true}),
        json!({"page": "0xfffffffffffff", "pages": 1, "attributes": "0xfff0"}),
    ] {
        assert_eq!(check(good), Ok(()));
    }
    for (bad, field) in [
        (json!({"pages": 1}), "ranges[1].bar"),
        (json!({"first_page": 1, "pages": 1}), "ranges[1].bar"),
        (json!({"bar": 1, "page": 1, "pages": 1}), "ranges[1].page"),
        (json!({"page": 1, "first_page": 1, "pages": 1}), "ranges[1].first_page"),
        (json!({"bar": 1, "pages": 1, "attributes": 0, "non_tee": false}), "ranges[1].attributes"),
    ] {
        assert_eq!(check(bad), Err(field.into()));
    }
}

fn happenings() -> Vec<Happening> {
    let stream = StreamName { kind: StreamKind::Selective, index: 0 };
    let text = || "in words".to_owned();
    vec![
        Happening::Transition {
            function: 1,
            from: TdiState::ConfigUnlocked,
            to: TdiState::ConfigLocked,
            cause: "locked".into(),
            text: text(),
        },
        Happening::LockedWithoutKeys { function: 0, stream },
        Happening::StreamSecure { stream, stream_id: 7 },
        Happening::StreamInsecure { stream, stream_id: 7, cause: "disabled".into(), text: text() },
        Happening::SessionEstablished { session: Hex(0x1_0001) },
        Happening::RequesterAuthenticated { session: Some(Hex(1)), slot: 3 },
        Happening::RequesterAuthenticated { session: None, slot: 255 },
        Happening::SessionEnded { session: Hex(1), reason: "requested".into(), text: text() },
        Happening::Refused {
            request: "LOCK_INTERFACE_REQUEST".into(),
            code: "INVALID_REQUEST".into(),
            text: text(),
        },
        Happening::GateRejected { function: 0, reads: u64::MAX, writes: 1 },
        Happening::Reset { kind: ResetKind::Conventional, function: None },
        Happening::Reset { kind: ResetKind::Conventional, function: Some(1) },
        Happening::Reset { kind: ResetKind::FunctionLevel, function: Some(0) },
        Happening::ClientConnected { peer: Peer::VfioUser { function: 2, process: None } },
        Happening::ClientConnected {
            peer: Peer::VfioUser { function: 0, process: Some(Process { pid: 7, name: "qemu".into() }) },
        },
        Happening::MachineCheck {
            function: 0,
            bar: 2,
            offset: Hex(0x40),
            length: 4,
            write: false,
            by: Some(Process { pid: 7, name: "qemu".into() }),
        },
        Happening::OutOfOrder { function: 0, rule: Sequence::MappingUnlikeReport, place: text() },
        Happening::ClientDisconnected { peer: Peer::Spdm { address: ([127, 0, 0, 1], 2323).into() } },
        Happening::MmioAttribute { function: 1, bar: 4, first_page: 0, pages: 2, non_tee: true },
        Happening::P2pStream { function: 1, stream, bound: false },
        Happening::FirmwareUpdated { measurements: vec![1, 239] },
        Happening::FirmwareUpdateForbidden { function: 7 },
        Happening::ReportOverridden { function: 0, says: Some(OverrideForm::Exact) },
        Happening::ReportOverridden { function: 0, says: None },
        Happening::SlotChanged { slot: 3, erased: false, lost: None },
        Happening::SlotChanged { slot: 0, erased: true, lost: Some("a reason".into()) },
        Happening::KeyPairChanged { key_pair: 2, lost: None },
        Happening::KeyPairChanged { key_pair: 255, lost: Some("a reason".into()) },
        Happening::Unknown,
    ]
}

#[test]
fn every_event_survives_its_line_under_its_name() {
    for (sequence, what) in (1..).zip(happenings()) {
        let event = Event { sequence, milliseconds: 5, what };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&line).unwrap(), Line::Event(event.clone()), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], event.what.kind(), "{line}");
        assert!(!event.what.to_string().is_empty());
    }
}

#[test]
fn the_lines_are_these() {
    let line = |what| serde_json::to_string(&Event { sequence: 5, milliseconds: 8125, what }).unwrap();
    let all = happenings();
    assert_eq!(
        line(all[0].clone()),
        r#"{"sequence":5,"milliseconds":8125,"event":"transition","function":1,"from":"CONFIG_UNLOCKED","to":"CONFIG_LOCKED","cause":"locked","text":"in words"}"#
    );
    assert_eq!(
        line(all[2].clone()),
        r#"{"sequence":5,"milliseconds":8125,"event":"stream-secure","stream":{"kind":"selective","index":0},"stream_id":7}"#
    );
    assert_eq!(
        line(all[13].clone()),
        r#"{"sequence":5,"milliseconds":8125,"event":"client-connected","client":"vfio-user","function":2}"#
    );
    assert_eq!(
        line(Happening::SlotChanged { slot: 3, erased: false, lost: None }),
        r#"{"sequence":5,"milliseconds":8125,"event":"slot-changed","slot":3,"erased":false}"#
    );
    assert_eq!(
        line(Happening::KeyPairChanged { key_pair: 2, lost: Some("there is no --state-dir".into()) }),
        r#"{"sequence":5,"milliseconds":8125,"event":"key-pair-changed","key_pair":2,"lost":"there is no --state-dir"}"#
    );
    let reply = Reply { id: Some(Id::Number(1)), outcome: Outcome::Result(json!({"sequence": 4})) };
    assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"id":1,"result":{"sequence":4}}"#);
    let failure = Failure { code: FailureCode::NoSuchFunction, message: "none".into() };
    let reply = Reply { id: None, outcome: Outcome::Error(failure) };
    assert_eq!(
        serde_json::to_string(&reply).unwrap(),
        r#"{"id":null,"error":{"code":"no-such-function","message":"none"}}"#
    );
}

#[test]
fn the_log_says_what_is_lost_at_the_next_start() {
    let lost = || Some("there is no --state-dir".to_owned());
    for (what, line) in [
        (
            Happening::SlotChanged { slot: 3, erased: false, lost: None },
            "SPDM certificate slot 3 was written",
        ),
        (
            Happening::SlotChanged { slot: 3, erased: true, lost: lost() },
            "SPDM certificate slot 3 was erased until the next start: there is no --state-dir",
        ),
        (Happening::KeyPairChanged { key_pair: 2, lost: None }, "SPDM key pair 2 was changed"),
        (
            Happening::KeyPairChanged { key_pair: 2, lost: lost() },
            "SPDM key pair 2 was changed until the next start: there is no --state-dir",
        ),
    ] {
        assert_eq!(what.to_string(), line);
    }
}

#[test]
fn lines_of_later_versions_are_still_lines() {
    let line = r#"{"sequence":1,"milliseconds":2,"event":"spdm-message","bytes":"00","new":[1]}"#;
    let Line::Event(event) = serde_json::from_str(line).unwrap() else { panic!() };
    assert_eq!(event.what, Happening::Unknown);
    let line = r#"{"closed":"the end"}"#;
    assert_eq!(
        serde_json::from_str::<Line>(line).unwrap(),
        Line::Farewell(Farewell { closed: "the end".into() })
    );
}

#[test]
fn numbers_come_in_both_bases_and_fit() {
    for (text, value) in [("7", 7), (r#""7""#, 7), (r#""0x2A""#, 0x2A), (r#""0xffff""#, 0xFFFF)] {
        assert_eq!(serde_json::from_str::<Hex<u16>>(text).unwrap(), Hex(value), "{text}");
    }
    for text in ["-1", "65536", "1.5", r#""0x10000""#, r#""""#, r#""0x""#, r#""+1""#, r#""0x+1""#, "null"] {
        assert!(serde_json::from_str::<Hex<u16>>(text).is_err(), "{text}");
    }
    assert_eq!(Hex(0x2A_u8).to_string(), "0x2a");
    assert_eq!(serde_json::to_string(&Hex(0x2A_u64)).unwrap(), r#""0x000000000000002a""#);
}

#[test]
fn the_longest_report_that_can_be_edited_fits_a_request() {
    let range = RangeFields {
        page: Some(Hex(u64::MAX)),
        pages: u32::MAX,
        attributes: Some(Hex(u16::MAX)),
        range_id: Some(u16::MAX),
        ..RangeFields::default()
    };
    // 20 bytes of report are no ranges, each range has 16.
    let report = ReportFields { ranges: Some(vec![range; (0xFFFF - 20) / 16]), ..ReportFields::default() };
    let command = Command::ReportSet { function: usize::MAX, report: ReportText::Edited(report) };
    let line = serde_json::to_string(&Request { id: Some(Id::Number(u64::MAX)), command }).unwrap();
    assert!(line.len() <= MAX_REQUEST, "{}", line.len());
}

proptest! {
    #[test]
    fn whatever_comes_is_a_request_or_a_failure(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(reply) = Request::parse(&bytes) {
            prop_assert!(matches!(reply.outcome, Outcome::Error(_)));
        }
    }

    #[test]
    fn bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = serde_json::to_string(&HexBytes(bytes.clone())).unwrap();
        prop_assert_eq!(serde_json::from_str::<HexBytes>(&text).unwrap(), HexBytes(bytes));
    }
}
