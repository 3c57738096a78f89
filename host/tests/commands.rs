//! Commands against a device in the same process: a real SPDM responder, and a DSM that can be told to misbehave.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use spdm::crypto::{AsymAlgorithm, RingProvider};
use spdm::doe::{DiscoveryResponse, Object, ObjectType};
use spdm::identity::{PciName, generate};
use spdm::responder::{
    Answer, Measurement, MeasurementValue, Responder, ResponderConfig, VendorAnswer, VendorHandler,
    VendorRequest,
};
use spdm::slot::Slots;
use tdisp::wire::ide_km::{self, KeyHead, KpAckStatus, QueryResponse};
use tdisp::wire::{
    Capabilities, ErrorCode, FunctionId, InterfaceReport, LockFlags, MmioRange, Nonce, Request,
    RequestBitmap, RequestMessage, Response, ResponseMessage, TdiState,
};
use tdispctl::cli::Cli;
use tdispctl::error::{Error, Result};
use tdispctl::output::Output;
use tdispctl::transport::{HostMemory, ObjectExchange, Transport};
use tdispctl::walk::Walk;

const STREAM: u8 = 5;

/// How the DSM misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    KeyRefused,
    AckForAnotherKey,
    BusyOnce,
    BusyForever,
    OtherInterface,
    OtherProtocol,
    OtherResponse,
    LockRefused,
    StaysUnlocked,
    NoVersion,
    EndlessReport,
    EmptyPortion,
    InconsistentReport,
    TornReport,
    Silent,
}

struct Dsm {
    fault: Fault,
    state: TdiState,
    busy: u32,
}

impl Dsm {
    fn ide_km(&self, object: &[u8]) -> ide_km::Object<'static> {
        use ide_km::Object;
        // Capability, control, then one selective block without address association.
        const REGISTERS: [u8; 28] = {
            let mut registers = [0; 28];
            registers[0] = 0b10;
            registers[15] = STREAM;
            registers
        };
        match Object::decode(object).unwrap() {
            Object::Query(port_index) => Object::QueryResponse(QueryResponse {
                port_index,
                dev_func: 0,
                bus: 1,
                segment: 0,
                max_port_index: 0,
                registers: &REGISTERS,
            }),
            Object::KeyProg(head, material) => {
                assert_eq!((head.stream_id, material.ifv), (STREAM, [0, 1]));
                assert_ne!(material.key, [0; 32]);
                let status =
                    KpAckStatus(if self.fault == Fault::KeyRefused { 3 } else { KpAckStatus::SUCCESS.0 });
                Object::KpAck(KeyHead { status, ..head })
            }
            Object::KSetGo(head) if self.fault == Fault::AckForAnotherKey => {
                Object::KGoStopAck(KeyHead { stream_id: head.stream_id ^ 1, ..head })
            }
            Object::KSetGo(head) => Object::KGoStopAck(head),
            other => panic!("{other:?}"),
        }
    }

    fn tdisp(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let RequestMessage { mut interface, request } = RequestMessage::decode(message).unwrap();
        if self.fault == Fault::OtherInterface {
            interface.function = FunctionId(0x55);
        }
        let busy = match self.fault {
            Fault::BusyOnce => self.busy < 1,
            Fault::BusyForever => true,
            _ => false,
        };
        self.busy += 1;
        let report = self.report();
        let response = match request {
            _ if busy => Response::error(ErrorCode::BUSY, 0),
            _ if self.fault == Fault::OtherResponse => Response::Start,
            Request::GetVersion if self.fault == Fault::NoVersion => Response::Version(&[0x20]),
            Request::GetVersion => Response::Version(&[0x10]),
            Request::GetCapabilities { .. } => Response::Capabilities(Capabilities {
                dsm_caps: 0,
                requests: RequestBitmap::REQUIRED,
                lock_flags: LockFlags::new(),
                dev_addr_width: 52,
                num_req_this: 1,
                num_req_all: 1,
            }),
            Request::Lock(_) if self.fault == Fault::LockRefused => {
                Response::error(ErrorCode::INVALID_REQUEST, 0)
            }
            Request::Lock(lock) => {
                assert_eq!(lock.default_stream_id, STREAM);
                if self.fault != Fault::StaysUnlocked {
                    self.state = TdiState::CONFIG_LOCKED;
                }
                Response::Lock(Nonce::new([0x5a; 32]))
            }
            Request::GetReport { offset, length } => self.portion(&report, offset, length),
            Request::GetState => Response::State(self.state),
            Request::Start(nonce) if *nonce.as_bytes() == [0x5a; 32] => {
                self.state = TdiState::RUN;
                Response::Start
            }
            Request::Start(_) => Response::error(ErrorCode::INVALID_NONCE, 0),
            Request::Stop => {
                self.state = TdiState::CONFIG_UNLOCKED;
                Response::Stop
            }
            other => panic!("{other:?}"),
        };
        ResponseMessage { interface, response }.encode(out).unwrap();
    }

    fn report(&self) -> Vec<u8> {
        let range = MmioRange { first_page: 0x8_0000, pages: 4, ..MmioRange::default() };
        let report = InterfaceReport { ranges: vec![range; 8], ..InterfaceReport::default() };
        let mut bytes = report.encode().unwrap();
        if self.fault == Fault::TornReport {
            bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        bytes
    }

    fn portion<'a>(&self, report: &'a [u8], offset: u16, length: u16) -> Response<'a> {
        let rest = &report[usize::from(offset).min(report.len())..];
        let portion = &rest[..rest.len().min(usize::from(length))];
        let remainder = u16::try_from(rest.len() - portion.len()).unwrap();
        match self.fault {
            Fault::EndlessReport => Response::Report { portion: &report[..64], remainder: 64 },
            Fault::EmptyPortion => Response::Report { portion: &[], remainder: 64 },
            Fault::InconsistentReport => Response::Report { portion, remainder: remainder ^ 1 },
            _ => Response::Report { portion, remainder },
        }
    }
}

impl VendorHandler for Dsm {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        assert!(request.session.is_some(), "nothing of this belongs outside a session");
        assert_eq!((request.standard_id, request.vendor_id), (3, [1, 0].as_slice()));
        let (protocol, message) = request.payload.split_first().unwrap();
        response.push(if self.fault == Fault::OtherProtocol { 9 } else { *protocol });
        match protocol {
            _ if self.fault == Fault::Silent => return VendorAnswer::Silent,
            0 => self.ide_km(message).encode(response),
            1 => self.tdisp(message, response),
            other => panic!("protocol {other}"),
        }
        VendorAnswer::Respond
    }
}

struct Device {
    responder: Responder,
    dsm: Dsm,
}

impl Device {
    fn new(fault: Fault) -> Arc<Mutex<Self>> {
        let name = PciName {
            vendor: 0x1234,
            device: 0x7d15,
            class: 0x12_0000,
            revision: 1,
            subsystem_vendor: 0,
            subsystem: 0,
            serial: None,
        };
        let material = generate(&name, AsymAlgorithm::EcdsaP384).unwrap();
        let value = MeasurementValue::Raw(b"firmware".to_vec());
        let measurements = vec![Measurement { index: 1, kind: 1, tcb: true, value }];
        let config = ResponderConfig { measurements, ..ResponderConfig::default() };
        let slots = Slots::single(material.slot());
        let provider = Box::new(RingProvider::default());
        let responder = Responder::new(config, slots, provider).unwrap();
        let dsm = Dsm { fault, state: TdiState::CONFIG_UNLOCKED, busy: 0 };
        Arc::new(Mutex::new(Self { responder, dsm }))
    }
}

/// Objects straight into the device; nothing else.
struct Direct(Arc<Mutex<Device>>);

impl ObjectExchange for Direct {
    fn exchange(&mut self, object: &[u8], timeout: Duration) -> Result<Vec<u8>> {
        let object = Object::parse(object).unwrap();
        let mut device = self.0.lock().unwrap();
        let Device { responder, dsm } = &mut *device;
        let mut payload = vec![];
        let answer = match object.kind {
            ObjectType::DISCOVERY => {
                let protocols = [ObjectType::DISCOVERY, ObjectType::SPDM, ObjectType::SECURED_SPDM];
                let protocols = protocols.map(|kind| (1, kind));
                payload = DiscoveryResponse::answer(&protocols, object.payload[0]).encode().to_vec();
                Answer::Respond
            }
            ObjectType::SPDM => responder.handle_clear(Duration::ZERO, object.payload, dsm, &mut payload),
            _ => responder.handle_secured(Duration::ZERO, object.payload, dsm, &mut payload),
        };
        if answer == Answer::Silent {
            return Err(Error::TimedOut { what: "the device".into(), after: timeout });
        }
        let mut out = vec![];
        Object { vendor: 1, kind: object.kind, payload: &payload }.encode(&mut out).unwrap();
        Ok(out)
    }
}

impl Transport for Direct {
    fn describe(&self) -> String {
        "direct".into()
    }
    fn objects(&mut self) -> Option<&mut dyn ObjectExchange> {
        Some(self)
    }
    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String> {
        Err("none".into())
    }
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One invocation of the program: its exit code and what it printed.
fn invoke(device: &Arc<Mutex<Device>>, line: &str) -> (u8, String) {
    let cli = Cli::try_parse_from(std::iter::once("tdispctl").chain(line.split_whitespace())).unwrap();
    let text = Text::default();
    let output = Output::json(Box::new(text.clone()));
    let mut walk = Walk::new(Box::new(Direct(device.clone())), cli.options, output).unwrap();
    let code = walk.command(&cli.command);
    walk.close();
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    (code, text)
}

fn in_session(device: &Arc<Mutex<Device>>, file: &Path, command: &str) -> (u8, String) {
    invoke(device, &format!("--session {} {command}", file.display()))
}

#[test]
fn one_session_spans_commands_until_stop() {
    let device = Device::new(Fault::None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("session");
    for (command, code, text) in [
        ("state", 2, "begin with lock"),
        ("lock", 0, "CONFIG_LOCKED"),
        ("report --portion 7", 0, "8 ranges"),
        ("start", 0, "RUN"),
        ("start", 2, "no nonce"),
        ("state", 0, "RUN"),
        ("stop --keep-session", 0, "CONFIG_UNLOCKED"),
        ("lock", 0, "CONFIG_LOCKED"),
        ("stop", 0, "session ended"),
        ("state", 2, "begin with lock"),
    ] {
        let (seen, output) = in_session(&device, &file, command);
        assert_eq!(seen, code, "{command}: {output}");
        assert!(output.contains(text), "{command}: {output}");
    }
    assert!(!file.exists());
}

#[test]
fn end_takes_the_session_and_its_file_away() {
    let device = Device::new(Fault::None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("session");
    assert_eq!(in_session(&device, &file, "lock").0, 0);
    assert_eq!(in_session(&device, &file, "end").0, 0);
    assert!(!file.exists());
}

#[test]
fn the_whole_walk_works_without_configuration_space() {
    let device = Device::new(Fault::None);
    let (code, text) = invoke(&device, "run --provoke-error");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("signature verified"));
    let (code, text) = invoke(&device, "run");
    assert_eq!(code, 0, "a second walk: {text}");
}

#[test]
fn a_command_without_a_session_file_says_why() {
    let (code, text) = invoke(&Device::new(Fault::None), "lock");
    assert_eq!(code, 2);
    assert!(text.contains("--session"), "{text}");
}

#[test]
fn every_fault_ends_the_walk_with_its_exit_code() {
    for (fault, code) in [
        (Fault::KeyRefused, 4),
        (Fault::AckForAnotherKey, 4),
        (Fault::BusyOnce, 0),
        (Fault::BusyForever, 7),
        (Fault::OtherInterface, 4),
        (Fault::OtherProtocol, 4),
        (Fault::OtherResponse, 4),
        (Fault::LockRefused, 4),
        (Fault::StaysUnlocked, 6),
        (Fault::NoVersion, 6),
        (Fault::EndlessReport, 4),
        (Fault::EmptyPortion, 4),
        (Fault::InconsistentReport, 4),
        (Fault::TornReport, 4),
        (Fault::Silent, 7),
    ] {
        let (seen, text) = invoke(&Device::new(fault), "run");
        assert_eq!(seen, code, "{fault:?}: {text}");
    }
}

#[test]
fn a_failed_lock_leaves_no_session_behind() {
    let device = Device::new(Fault::LockRefused);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("session");
    assert_eq!(in_session(&device, &file, "lock").0, 4);
    assert!(!file.exists());
}

#[test]
fn another_root_than_the_pinned_one_is_not_trusted() {
    let device = Device::new(Fault::None);
    let (_, text) = invoke(&device, "identify");
    let root = text.split("root hash (384 bits)\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (code, text) = invoke(&device, &format!("identify --root-hash {root}"));
    assert_eq!(code, 0, "{text}");
    let wrong: String = root.chars().rev().collect();
    assert_ne!(wrong, root);
    let (code, text) = invoke(&device, &format!("identify --root-hash {wrong}"));
    assert_eq!(code, 5, "{text}");
}
