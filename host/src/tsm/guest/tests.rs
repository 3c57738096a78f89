//! What the TSM refuses before it asks the device anything, and to whom it says so.

use clap::Parser;
use spdm::wire::Nonce;

use super::*;
use crate::cli::Cli;
use crate::output::Output;
use crate::session_file::Binding;
use crate::transport::{HostMemory, Transport};

const NONCE: Nonce = [9; 32];

/// No way to any device.
struct Nowhere;

impl Transport for Nowhere {
    fn describe(&self) -> String {
        "nowhere".into()
    }
    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String> {
        Err("none".into())
    }
}

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).unwrap()
}

fn tdi(told: Told) -> Tdi {
    let binding = Binding {
        stream_id: 1,
        stream_index: None,
        function_id: 0x100,
        mmio_offset: 0,
        nonce: None,
        second_set: false,
    };
    Tdi { binding, told }
}

fn ask(tdi: &mut Tdi, key: Option<&Key>, scope: u32, payload: &[u8]) -> Result<Answered> {
    let options = Cli::parse_from(["tdispctl", "discover"]).options;
    let output = Output::json(Box::new(std::io::sink()));
    let mut walk = Walk::new(Box::new(Nowhere), options, output).unwrap();
    answer(&mut walk, tdi, key, scope, payload)
}

/// What the guest hears to its question, if the TSM answers that at all.
fn sealed(tdi: &mut Tdi, scope: u32, question: &Ask) -> Result<Vec<u8>, String> {
    let (request, tag) = sealed::request(&key(1), question, &NONCE);
    let payload = [&GUEST_SEALED.to_ne_bytes()[..], &request].concat();
    let answered = ask(tdi, Some(&key(1)), scope, &payload).unwrap();
    let told = sealed::open_answer(&key(1), &tag, &answered.response).unwrap();
    assert_eq!(told.is_ok(), answered.result.is_ok(), "the log and the guest hear the same");
    told
}

#[test]
fn the_host_may_not_start_what_has_a_guest() {
    let start = GUEST_START.to_ne_bytes();
    for (key, scope, kind) in [(None, 0, "usage"), (Some(key(1)), 0, "usage"), (Some(key(1)), 1, "refused")] {
        let error = ask(&mut tdi(Told::default()), key.as_ref(), scope, &start).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn what_is_no_request_is_refused_to_the_host() {
    let (good, _) = sealed::request(&key(1), &Ask::State, &NONCE);
    let sealed = |bytes: &[u8]| [&GUEST_SEALED.to_ne_bytes()[..], bytes].concat();
    let mut altered = sealed(&good);
    altered[20] ^= 1;
    for (key, payload, kind) in [
        (Some(key(1)), vec![], "usage"),
        (Some(key(1)), vec![1, 0, 0], "usage"),
        (Some(key(1)), 5u32.to_ne_bytes().to_vec(), "usage"),
        (Some(key(1)), [GUEST_STATE.to_ne_bytes(), [0; 4]].concat(), "usage"),
        (None, sealed(&good), "usage"),
        (Some(key(2)), sealed(&good), "verification"),
        (Some(key(1)), sealed(&[]), "verification"),
        (Some(key(1)), altered, "verification"),
    ] {
        let error = ask(&mut tdi(Told::default()), key.as_ref(), 0, &payload).err().unwrap();
        assert_eq!(error.kind(), kind, "{payload:x?}: {error}");
    }
}

#[test]
fn only_what_was_told_since_lock_is_started() {
    let told = || Told {
        certificates: Some(b"chain".to_vec()),
        evidence: Some(b"evidence".to_vec()),
        report: Some(b"report".to_vec()),
    };
    let right = Ask::Start(Judged::new(b"chain", b"evidence", b"report"));
    let other = Ask::Start(Judged::new(b"chain", b"evidence", b"other"));
    let refused = "not what it was told after this LOCK";
    assert!(sealed(&mut tdi(told()), 1, &other).unwrap_err().contains(refused));
    assert!(sealed(&mut tdi(Told::default()), 1, &right).unwrap_err().contains(refused));
    assert!(sealed(&mut tdi(Told { evidence: None, ..told() }), 1, &right).unwrap_err().contains(refused));
    assert!(sealed(&mut tdi(told()), 0, &right).unwrap_err().contains("scope"));
    // What is in order goes to the device, to which there is no way here.
    let why = sealed(&mut tdi(told()), 1, &right).unwrap_err();
    assert!(!why.contains(refused) && !why.contains("scope"), "{why}");
}

#[test]
fn what_a_device_cannot_be_asked_is_told_to_the_guest() {
    for question in [Ask::State, Ask::Report, Ask::Certificates, Ask::Measurements] {
        let mut tdi = tdi(Told::default());
        assert!(!sealed(&mut tdi, 0, &question).unwrap_err().is_empty());
        assert!(tdi.told.judged().is_none());
    }
}
