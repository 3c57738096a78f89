//! The control socket of a device in this process: what it tells of a device that is used, and what reports can be made to
//! say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};
use spdm::requester::SlotContent;
use spdm::wire::{CertificateModel, KeyPairAlgorithms, KeyPairOperation, KeyPairParameters, KeyUsage};
use tdisp::wire::{ErrorCode, InterfaceReport, LockFlags, TdiState};
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::pci::Width;
use tdispctl::transport::vfio_user::VfioUser;
use tdispctl::walk::Walk;
use tdispd_proto::control::{FailureCode, Happening, Outcome, State};
use tests::control::Client;
use tests::host::Host;
use tests::rig::Rig;

const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;

fn failure(outcome: Outcome) -> (FailureCode, String) {
    match outcome {
        Outcome::Error(failure) => (failure.code, failure.message),
        Outcome::Result(value) => panic!("{value}"),
    }
}

fn state(client: &mut Client) -> State {
    serde_json::from_value(client.ask("state", json!({}))).unwrap()
}

#[test]
fn a_watcher_sees_a_whole_life_with_its_causes_in_order() {
    let rig = Rig::new();
    let mut watcher = Client::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    assert_eq!(host.try_lock(0, LockFlags::new().with_reserved(1), 0), Err(ErrorCode::INVALID_REQUEST));
    let nonce = host.lock(0);
    host.start(0, nonce);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    host.stop(0);
    host.end_session();
    drop(host);
    assert_eq!(
        watcher.story("client-disconnected"),
        [
            "client-connected",
            "session-established",
            "stream-secure",
            "refused LOCK_INTERFACE_REQUEST INVALID_REQUEST",
            "0: CONFIG_UNLOCKED CONFIG_LOCKED locked",
            "0: CONFIG_LOCKED RUN started",
            "0: RUN ERROR configuration-written",
            "0: ERROR CONFIG_UNLOCKED stopped",
            "session-ended requested",
            "stream-insecure session-ended",
            "client-disconnected",
        ]
    );
    assert_eq!(watcher.story("reset"), ["reset Conventional None"]);
}

#[test]
fn the_walk_over_vfio_user_is_seen_transition_by_transition() {
    let rig = Rig::new();
    let mut watcher = Client::watch(rig.control());
    let socket = rig.socket(0).to_str().unwrap();
    let cli = Cli::try_parse_from(["tdispctl", "--vfio-user", socket, "run", "--provoke-error"]).unwrap();
    let transport = VfioUser::open(rig.socket(0), Duration::from_secs(10)).unwrap();
    let mut walk =
        Walk::new(Box::new(transport), cli.options.clone(), Output::json(Box::new(std::io::sink()))).unwrap();
    assert_eq!(walk.command(&cli.command), 0);
    walk.close();
    drop(walk);
    let story = watcher.story("client-disconnected");
    let transitions: Vec<_> = story.iter().filter(|line| line.starts_with("0: ")).collect();
    assert_eq!(
        transitions,
        [
            "0: CONFIG_UNLOCKED CONFIG_LOCKED locked",
            "0: CONFIG_LOCKED RUN started",
            "0: RUN CONFIG_UNLOCKED stopped",
            "0: CONFIG_UNLOCKED CONFIG_LOCKED locked",
            "0: CONFIG_LOCKED RUN started",
            "0: RUN ERROR configuration-written",
            "0: ERROR CONFIG_UNLOCKED stopped",
        ]
    );
    let rejected = story.iter().filter(|line| line.starts_with("gate-rejected 0 ")).count();
    assert!(rejected > 0, "the walk looks at private pages while it is locked: {story:?}");
}

#[test]
fn state_tells_everything_but_keys() {
    let rig = Rig::with("", 2);
    let mut client = Client::connect(rig.control());
    let before = state(&mut client);
    assert_eq!((before.sequence, before.tdis.len(), before.streams.len()), (0, 2, 1));
    assert_eq!((before.sessions.len(), before.key_manager), (0, None));
    assert!(before.tdis.iter().all(|tdi| tdi.last_transition.is_none() && tdi.binding.is_none()));

    let mut host = Host::plug(rig.socket(0));
    let id = host.session();
    host.secure_stream();
    let offset = 0xD000_0000_u64.wrapping_neg();
    let nonce = host.try_lock(0, LockFlags::new().with_lock_msix(true), offset).unwrap();
    host.start(0, nonce.clone());
    let text = client.ask("state", json!({})).to_string();
    let hex = |bytes: &[u8]| tdispctl::output::hex(bytes);
    for secret in [hex(&[0x5A; 4]), hex(&nonce.as_bytes()[..4])] {
        assert!(!text.contains(&secret), "{text}");
    }
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["tdis"][0],
        json!({
            "function": 0,
            "function_id": "0x00000000",
            "state": "RUN",
            "binding": {
                "session": format!("{id:#010x}"),
                "stream": {"kind": "selective", "index": 0},
                "stream_id": 7,
                "p2p_streams": [],
                "keys": "in-use",
                "lock_flags": "0x0004",
                "mmio_reporting_offset": format!("{offset:#018x}"),
                "report_length": value["tdis"][0]["binding"]["report_length"],
            },
            "last_transition": {
                "sequence": value["sequence"],
                "milliseconds": value["tdis"][0]["last_transition"]["milliseconds"],
                "from": "CONFIG_LOCKED",
                "cause": "started",
                "text": "START_INTERFACE_REQUEST with the right nonce",
            },
            "report_override": null,
            "gate": {"rejected_reads": 0, "rejected_writes": 0},
            "gate_cells": [],
        })
    );
    assert_eq!(value["tdis"][1]["state"], "CONFIG_UNLOCKED");
    assert_eq!(
        value["streams"],
        json!([{
            "kind": "selective", "index": 0, "stream_id": 7, "enabled": true, "secure": true,
            "default_stream": true, "traffic_class": 0, "tee_limited": false,
            "keys_programmed": 6, "keys": "complete", "key_set": 0,
        }])
    );
    assert_eq!(
        value["sessions"],
        json!([{
            "session": format!("{id:#010x}"), "established": true, "version": "1.4",
            "secured_version": "1.2", "hash": "sha384", "aead": "aes-256-gcm", "encrypted": true,
            "exchange": "p384", "signature": "ecdsa-p384", "origin": {"slot": 0},
            "requester_slot": null, "heartbeat_seconds": 0,
        }])
    );
    assert_eq!(value["key_manager"], format!("{id:#010x}"));
    host.end_session();
    let after = state(&mut client);
    assert_eq!((after.sessions.len(), after.key_manager), (0, None));
    assert_eq!(after.tdis[0].last_transition.as_ref().unwrap().cause, "session-ended");
}

#[test]
fn what_requesters_write_into_the_device_is_told() {
    let rig = Rig::with(
        "[spdm.capabilities.provisioning]\nset_certificate = true\nkey_pair_info = true\nset_key_pair_info = true\n\
         [[spdm.slot]]\n[[spdm.slot]]\nnumber = 3\nempty = true\n",
        1,
    );
    let mut watcher = Client::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    watcher.story("session-established");
    let certificates = host.spdm(|driver| driver.certificate(0)).unwrap().chain.certificates;
    let own = SlotContent::Chain { certificates, model: CertificateModel::Device };
    host.spdm(|driver| driver.set_certificate(0, 0, own)).unwrap();
    host.spdm(|driver| driver.set_certificate(3, 0, SlotContent::Nothing)).unwrap();
    let nobodys =
        KeyPairParameters { usage: KeyUsage::default(), algorithm: KeyPairAlgorithms::default(), slots: 0 };
    host.spdm(|driver| driver.set_key_pair(2, KeyPairOperation::Change(nobodys))).unwrap();
    host.end_session();
    let lost = r#"Some("there is no --state-dir")"#;
    assert_eq!(
        watcher.story("session-ended"),
        [
            format!("slot-changed 0 false {lost}"),
            format!("slot-changed 3 true {lost}"),
            format!("key-pair-changed 2 {lost}"),
            "session-ended requested".into(),
        ]
    );
}

#[test]
fn refused_accesses_are_summed_up() {
    let rig = Rig::new();
    let mut watcher = Client::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    host.lock(0);
    watcher.story("transition");
    for _ in 0..1000 {
        assert_eq!(host.bar_read::<8>(2, 0), [0xFF; 8]);
        host.bar_write(2, 0, &[0; 4]);
    }
    let (mut reads, mut writes, mut events) = (0, 0, 0);
    while reads < 1000 || writes < 1000 {
        let what = watcher.event().what;
        if let Happening::GateRejected { function: 0, reads: r, writes: w } = what {
            (reads, writes, events) = (reads + r, writes + w, events + 1);
        } else {
            // The first of them, and no other.
            assert!(matches!(what, Happening::OutOfOrder { .. }) && events == 0, "{what}");
        }
    }
    assert_eq!((reads, writes), (1000, 1000));
    assert!(events < 100, "{events} events for 2000 accesses");
    let gate = state(&mut watcher).tdis[0].gate;
    assert_eq!((gate.rejected_reads, gate.rejected_writes), (1000, 1000));
}

/// The report as LOCK without flags gives it, in full.
fn locked_report(host: &mut Host) -> InterfaceReport {
    host.lock(0);
    let report = host.report(0, 64);
    host.stop(0);
    report
}

#[test]
fn what_a_report_says_can_be_looked_at_edited_and_put_back() {
    let rig = Rig::new();
    let mut client = Client::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    client.story("stream-secure");

    let truth = locked_report(&mut host);
    let got = client.ask("report-get", json!({"function": 0}));
    assert_eq!((&got["source"], &got["report_override"]), (&json!("next-lock"), &Value::Null));
    let mut bytes = truth.encode().unwrap();
    assert_eq!(got["hex"], tdispctl::output::hex(&bytes));
    let ranges = got["report"]["ranges"].as_array().unwrap();
    assert_eq!(
        ranges[2],
        json!({
            "bar": 2, "first_page": 128, "pages": 128, "range_id": 2,
            "non_tee": true, "updatable": false, "msix_table": false, "msix_pba": false,
        }),
        "{ranges:?}"
    );
    // What was got can be set, and says the same: with another reporting offset and LOCK flags, too.
    client.ask("report-set", json!({"function": 0, "report": got["report"]}));
    assert_eq!(locked_report(&mut host), truth);
    let offset = 0x1000_0000_u64.wrapping_neg();
    host.try_lock(0, LockFlags::new(), offset).unwrap();
    let moved = host.report(0, 64);
    let page = |page: u64| (page << 12).wrapping_add(offset) >> 12;
    assert_eq!(moved.ranges[2].first_page, page(truth.ranges[2].first_page));
    let locked = client.ask("report-get", json!({"function": 0}));
    assert_eq!(
        (&locked["source"], &locked["report"]["ranges"]),
        (&json!("locked"), &got["report"]["ranges"])
    );

    // A lie, from the next LOCK on and not before.
    let lie = json!({
        "interface_info": "0xffff",
        "ranges": [{"page": "0xabc", "pages": 1, "attributes": "0x8004"}, {"bar": 2, "pages": 256}],
        "device_info": "c0ffee",
    });
    let said = client.ask("report-set", json!({"function": 0, "report": lie}));
    assert_eq!((&said["source"], &said["report_override"]), (&json!("next-lock"), &json!("edited")));
    assert_eq!(host.report(0, 64), moved);
    host.stop(0);
    let lying = locked_report(&mut host);
    assert_eq!((lying.info.into_bits(), lying.device_info.as_slice()), (0xFFFF, &[0xC0, 0xFF, 0xEE][..]));
    assert_eq!((lying.ranges[0].first_page, lying.ranges[0].attributes.into_bits()), (0xABC, 0x8004));
    assert_eq!((lying.ranges[1].first_page, lying.ranges[1].pages), (truth.ranges[1].first_page, 256));
    assert_eq!(lying.msix_message_control, truth.msix_message_control, "what is not named is what is so");

    // The device is what it is: the report says that all of BAR 2 is private, half of it is shared.
    host.lock(0);
    host.bar_write(2, 128 * 4096, b"shared!!");
    assert_eq!(host.bar_read::<8>(2, 128 * 4096), *b"shared!!");
    host.stop(0);

    // Bytes that are no report at all.
    bytes.truncate(7);
    let said =
        client.ask("report-set", json!({"function": 0, "report": {"hex": tdispctl::output::hex(&bytes)}}));
    assert_eq!((&said["report"], &said["report_override"]), (&Value::Null, &json!("exact")));
    assert!(said["undecodable"].as_str().unwrap().contains("report"), "{said}");
    let said = client.ask("report-reset", json!({"function": 0}));
    assert_eq!((&said["report"], &said["report_override"]), (&got["report"], &Value::Null));
    assert_eq!(locked_report(&mut host), truth);

    drop(host);
    let story = client.story("client-disconnected");
    let overridden: Vec<_> = story.iter().filter(|line| line.starts_with("report-")).collect();
    assert_eq!(
        overridden,
        [
            "report-overridden 0 Some(Edited)",
            "report-overridden 0 Some(Edited)",
            "report-overridden 0 Some(Exact)",
            "report-overridden 0 None",
        ]
    );
}

#[test]
fn reports_that_nobody_could_read_and_functions_that_are_not_there_are_refused() {
    let rig = Rig::new();
    let mut client = Client::connect(rig.control());
    for (function, report, code) in [
        (0, json!({"hex": "00".repeat(0x1_0000)}), FailureCode::BadReport),
        (0, json!({"device_info": "00".repeat(0x1_0000)}), FailureCode::BadReport),
        (0, json!({"ranges": [{"pages": 1}]}), FailureCode::BadReport),
        (0, json!({"ranges": {}}), FailureCode::BadRequest),
        (1, json!({"hex": ""}), FailureCode::NoSuchFunction),
    ] {
        let fields = json!({"function": function, "report": report});
        assert_eq!(failure(client.try_ask("report-set", fields)).0, code);
    }
    for command in ["report-get", "report-reset"] {
        let refused = failure(client.try_ask(command, json!({"function": 9})));
        assert_eq!(refused, (FailureCode::NoSuchFunction, "there is no function 9; there are 1".into()));
    }
    assert_eq!(state(&mut client).tdis[0].report_override, None, "nothing has changed");
    client.ask("report-set", json!({"function": 0, "report": {"hex": "00".repeat(0xFFFF)}}));
}

#[test]
fn nothing_it_takes_changes_the_state_of_a_tdi() {
    let rig = Rig::new();
    let mut client = Client::connect(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.run();
    for command in
        ["lock", "start", "stop", "end", "reset", "run", "key-prog", "config-write", "state-set", ""]
    {
        let (code, message) = failure(client.try_ask(command, json!({"function": 0})));
        assert_eq!(code, FailureCode::UnknownCommand, "{message}");
        assert!(message.contains("expected one of `state`, `watch`"), "{message}");
    }
    for (command, fields) in [
        ("state", json!({})),
        ("watch", json!({})),
        ("report-get", json!({"function": 0})),
        ("report-set", json!({"function": 0, "report": {"hex": ""}})),
        ("report-reset", json!({"function": 0})),
    ] {
        client.ask(command, fields);
        assert_eq!(host.state(0), TdiState::RUN, "{command}");
    }
}
