//! The device behind the SPDM socket only: a requester that programs no registers reaches RUN, and what it may not do there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Parser;
use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::RequesterConfig;
use spdm::wire::{DeviceClass, Version};
use tdisp::wire::ide_km::{
    Direction, KeyHead, KeyMaterial, KeySet, KeySlot, KpAckStatus, Object as IdeKm, SubStream,
};
use tdisp::wire::{
    ErrorCode, FunctionId, InterfaceReport, LockRequest, Nonce, Request, RequestMessage, Response as Tdisp,
    ResponseMessage, TdiState,
};
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::transport::tcp::Tcp;
use tdispctl::walk::Walk;
use tdispd_proto::frame::Command;
use tests::spdm_socket::{Client, ask, serve};

const VENDOR_CXL: u16 = 0x1E98;

#[test]
fn the_walk_needs_no_configuration_space() {
    let (address, _stop) = serve("");
    let target = address.to_string();
    // Twice: the second client finds the device as the first left it.
    for _ in 0..2 {
        let cli = Cli::try_parse_from(["tdispctl", "--json", "--tcp", &target, "run"]).unwrap();
        let transport = Tcp::connect(&target, true, Duration::from_secs(5)).unwrap();
        let mut walk =
            Walk::new(Box::new(transport), cli.options.clone(), Output::json(Box::new(std::io::sink())))
                .unwrap();
        assert_eq!(walk.command(&cli.command), 0);
        walk.close();
    }
}

#[test]
fn silence_is_an_empty_frame() {
    let (address, _stop) = serve("");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut unknown = Vec::new();
    Object { vendor: VENDOR_PCI_SIG, kind: ObjectType(9), payload: &[0; 4] }.encode(&mut unknown).unwrap();
    for silent in [unknown.as_slice(), &[1, 2, 3], &[]] {
        assert_eq!(ask(&mut stream, Command::NORMAL, silent), (Command::NORMAL, vec![]));
    }
}

/// What spdm_requester_emu sends in its session.
struct Emulated(Client);

impl core::ops::Deref for Emulated {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl core::ops::DerefMut for Emulated {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0
    }
}

impl Emulated {
    fn in_session(address: SocketAddr) -> Self {
        Self(Client::in_session(address))
    }

    /// A message of a protocol under a vendor id of the PCI-SIG's registry, and what answers it; `None` where that is an
    /// SPDM error or silence.
    fn vendor(&mut self, vendor: u16, protocol: u8, message: &[u8]) -> Option<Vec<u8>> {
        let payload = [&[protocol], message].concat();
        let answer = self.driver().vendor(3, &vendor.to_le_bytes(), &payload).ok()?;
        assert_eq!(answer[0], protocol);
        Some(answer[1..].to_vec())
    }

    fn cxl_ide_km(&mut self, message: &[u8]) -> Vec<u8> {
        self.vendor(VENDOR_CXL, 0, message).unwrap()
    }

    fn tsp(&mut self, message: &[u8]) -> Vec<u8> {
        self.vendor(VENDOR_CXL, 1, message).unwrap()
    }

    fn ide_km(&mut self, object: &IdeKm<'_>) -> Vec<u8> {
        let mut message = Vec::new();
        object.encode(&mut message);
        self.vendor(VENDOR_PCI_SIG, 0, &message).unwrap()
    }

    fn tdisp(&mut self, request: Request<'_>) -> ResponseMessageBytes {
        let mut message = Vec::new();
        RequestMessage { interface: FunctionId::new(0xBEEF, None).into(), request }.encode(&mut message);
        ResponseMessageBytes(self.vendor(VENDOR_PCI_SIG, 1, &message).unwrap())
    }

    /// What spdm_requester_emu does with PCI IDE_KM: two keys of six, for port 1 and stream 0, and both stopped again.
    fn rehearse_keys(&mut self) {
        let answer = self.ide_km(&IdeKm::Query(1));
        assert!(matches!(IdeKm::decode(&answer), Ok(IdeKm::QueryResponse(head)) if head.max_port_index == 7));
        let head = |direction| {
            KeyHead::new(1, 0, KeySlot { set: KeySet::Zero, direction, sub_stream: SubStream::Posted })
        };
        let heads = [Direction::Rx, Direction::Tx].map(head);
        for head in heads {
            let answer = self.ide_km(&IdeKm::KeyProg(head, KeyMaterial::new([0x5A; 32])));
            let ack = KeyHead { status: KpAckStatus::SUCCESS, ..head };
            assert_eq!(IdeKm::decode(&answer), Ok(IdeKm::KpAck(ack)));
        }
        for act in [IdeKm::KSetGo, IdeKm::KSetStop] {
            for head in heads {
                let answer = self.ide_km(&act(head));
                assert_eq!(IdeKm::decode(&answer), Ok(IdeKm::KGoStopAck(head)));
            }
        }
    }

    /// LOCK as spdm_requester_emu sends it: every flag there is, stream 0.
    fn lock(&mut self) -> Result<Nonce, ErrorCode> {
        let answer = self.tdisp(Request::GetCapabilities { tsm_caps: 0 });
        let Tdisp::Capabilities(capabilities) = answer.parse() else { panic!("{answer:?}") };
        let lock = LockRequest {
            flags: capabilities.lock_flags,
            default_stream_id: 0,
            mmio_reporting_offset: 0xD000_0000,
            ..LockRequest::default()
        };
        let answer = self.tdisp(Request::Lock(lock));
        match answer.parse() {
            Tdisp::Lock(nonce) => Ok(nonce),
            Tdisp::Error { code, .. } => Err(code),
            other => panic!("{other:?}"),
        }
    }

    fn expect_state(&mut self, state: TdiState) {
        assert_eq!(self.tdisp(Request::GetState).parse(), Tdisp::State(state));
    }

    /// The report, in portions of at most `length` bytes.
    fn report(&mut self, length: u16) -> InterfaceReport {
        let mut report = Vec::new();
        loop {
            let answer = self.tdisp(Request::GetReport { offset: report.len() as u16, length });
            let Tdisp::Report { portion, remainder } = answer.parse() else { panic!("{answer:?}") };
            report.extend_from_slice(portion);
            if remainder == 0 {
                return InterfaceReport::decode(&report).unwrap();
            }
        }
    }

    /// spdm_requester_emu's whole TDISP part.
    fn walk_tdisp(&mut self) {
        assert_eq!(self.tdisp(Request::GetVersion).parse(), Tdisp::Version(&[0x10]));
        self.expect_state(TdiState::CONFIG_UNLOCKED);
        let nonce = self.lock().unwrap();
        self.expect_state(TdiState::CONFIG_LOCKED);
        assert!(!self.report(0x40).ranges.is_empty());
        assert_eq!(self.tdisp(Request::Start(nonce)).parse(), Tdisp::Start);
        self.expect_state(TdiState::RUN);
        assert_eq!(self.tdisp(Request::Stop).parse(), Tdisp::Stop);
        self.expect_state(TdiState::CONFIG_UNLOCKED);
    }
}

impl Emulated {
    /// What spdm_requester_emu does with CXL IDE_KM: two keys for port 0, both stopped again.
    fn walk_cxl_ide_km(&mut self) {
        let query = self.cxl_ide_km(&[0, 0, 0]);
        assert_eq!(query[..8], [1, 0, 0, 0, 0, 0, 0, 0x41]);
        assert_eq!(query[8..], [0; 36], "no register says that CXL IDE is there");
        assert_eq!(self.cxl_ide_km(&[7, 0, 0, 0, 0, 0x80, 0])[..7], [8, 0, 0, 0, 0, 0x80, 0]);
        for key in [0x80, 0x82] {
            let message = [&[2, 0, 0, 0, 0, key, 0][..], &[0x5A; 44]].concat();
            assert_eq!(self.cxl_ide_km(&message), [3, 0, 0, 0, 0, key, 0]);
        }
        for (object, key) in [(4, 0x80), (4, 0x82), (5, 0x80), (5, 0x82)] {
            assert_eq!(self.cxl_ide_km(&[object, 0, 0, 0, 0, key, 0]), [6, 0, 0, 0, 0, key, 0]);
        }
    }

    /// What it does with CXL TSP.
    fn walk_tsp(&mut self) {
        assert_eq!(self.tsp(&[0x10, 0x81, 0, 0]), [0x10, 0x01, 0, 0, 1, 0x10]);
        let capabilities = self.tsp(&[0x10, 0x82, 0, 0]);
        assert_eq!((&capabilities[..2], &capabilities[2..]), (&[0x10, 0x02][..], &[0; 50][..]));
        let mut configuration = vec![0; 352];
        // Encryption, AES-XTS-256, three kinds of access control, firmware updates.
        for (at, value) in [(0, 0x10), (1, 0x83), (2, 1), (4, 2), (12, 0x16), (24, 1)] {
            configuration[at] = value;
        }
        assert_eq!(self.tsp(&configuration), [0x10, 0x03, 0, 0]);
        let read = self.tsp(&[0x10, 0x84, 0, 0]);
        assert_eq!((read.len(), &read[..2], &read[2..48]), (192, &[0x10, 0x04][..], &[0; 46][..]), "all off");
        let report = self.tsp(&[0x10, 0x85, 0, 0, 0, 0, 0x40, 0]);
        assert_eq!(report, [0x10, 0x05, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(self.tsp(&[0x10, 0x86, 0, 0]), [0x10, 0x06, 0, 0]);
        assert_eq!(self.tsp(&[0x10, 0x84, 0, 0])[36], 1, "locked");
    }
}

/// An answer that owns its bytes.
#[derive(Debug)]
struct ResponseMessageBytes(Vec<u8>);

impl ResponseMessageBytes {
    fn parse(&self) -> Tdisp<'_> {
        ResponseMessage::decode(&self.0).unwrap().response
    }
}

#[test]
fn spdm_requester_emu_finds_what_it_asks_for() {
    let (address, _stop) = serve("");
    let mut client = Emulated::in_session(address);
    assert_eq!(client.lock(), Err(ErrorCode::INVALID_REQUEST), "no key was ever programmed");
    // Session after session, as it opens one with a certificate, one with a PSK, and one with another certificate.
    for _ in 0..2 {
        client.rehearse_keys();
        client.walk_tdisp();
        client.walk_cxl_ide_km();
        client.walk_tsp();
        client.end();
        client.start();
        assert_eq!(client.lock(), Err(ErrorCode::INVALID_REQUEST), "the keys were another session's");
    }
}

/// An emulator around the device follows it: on the same connection, as QEMU's `spdm_port` has one, beside the session.
#[test]
fn clear_tdisp_shows_the_state_and_changes_nothing() {
    let (address, _stop) = serve("");
    let mut client = Emulated::in_session(address);
    client.rehearse_keys();
    let observed = |client: &mut Emulated, request: Request<'_>| {
        let mut message = Vec::new();
        RequestMessage { interface: FunctionId::new(0xBEEF, None).into(), request }.encode(&mut message);
        let (command, answer) = client.frame(Command::TDISP, &message);
        assert_eq!(command, Command::NORMAL);
        ResponseMessageBytes(answer)
    };
    let state = |client: &mut Emulated| match observed(client, Request::GetState).parse() {
        Tdisp::State(state) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(observed(&mut client, Request::GetVersion).parse(), Tdisp::Version(&[0x10]));
    assert_eq!(state(&mut client), TdiState::CONFIG_UNLOCKED);
    let nonce = client.lock().unwrap();
    assert_eq!(state(&mut client), TdiState::CONFIG_LOCKED);
    for request in [
        Request::Start(nonce.clone()),
        Request::Stop,
        Request::Lock(LockRequest::default()),
        Request::GetReport { offset: 0, length: 16 },
    ] {
        let code = u32::from(request.code().0);
        let refused = Tdisp::error(ErrorCode::UNSUPPORTED_REQUEST, code);
        assert_eq!(observed(&mut client, request).parse(), refused);
        client.expect_state(TdiState::CONFIG_LOCKED);
    }
    assert_eq!(client.tdisp(Request::Start(nonce)).parse(), Tdisp::Start);
    assert_eq!(state(&mut client), TdiState::RUN);
    client.end();
    assert_eq!(state(&mut client), TdiState::ERROR);
}

/// `--key_upd RSP` and what spdm_requester_emu asks for after endpoint information.
#[test]
fn the_responder_can_be_told_to_ask() {
    let (address, _stop) = serve("");
    let class = DeviceClass { registry: 3, vendor_id: vec![1, 0], subordinates: Vec::new() };
    let config = RequesterConfig {
        encapsulated: true,
        device_classes: vec![class],
        versions: vec![Version::V1_3],
        ..RequesterConfig::default()
    };
    let mut client = Client::new(address, config);
    client.driver().connect().unwrap();
    client.driver().certificate(0).unwrap();
    client.start();
    let id = client.requester.session().unwrap().id;
    for payload in [&id.to_le_bytes()[..], &[]] {
        let answer = client.frame(Command::ENCAPSULATED_KEY_UPDATE, payload);
        assert_eq!(answer, (Command::ENCAPSULATED_KEY_UPDATE, vec![]));
        let served = client.driver().serve().unwrap();
        assert_eq!((served.key_renewed, served.described), (true, false));
        client.driver().heartbeat().unwrap();
    }
    let answer = client.frame(Command::ENCAPSULATED_ENDPOINT_INFO, &[]);
    assert_eq!(answer, (Command::ENCAPSULATED_ENDPOINT_INFO, vec![]));
    assert!(client.driver().serve().unwrap().described);
    // A session that is none is acknowledged, and nothing comes of it.
    let answer = client.frame(Command::ENCAPSULATED_KEY_UPDATE, &(id ^ 1).to_le_bytes());
    assert_eq!(answer, (Command::ENCAPSULATED_KEY_UPDATE, vec![]));
    let served = client.driver().serve().unwrap();
    assert!(!served.key_renewed && !served.described);
    client.end();
}

#[test]
fn keys_at_lock_and_a_device_without_cxl_can_be_asked_for() {
    let (address, _stop) = serve("[tdisp]\nkeys_at_lock = \"in-use\"\n[cxl]\nrespond = \"never\"\n");
    let mut client = Emulated::in_session(address);
    client.rehearse_keys();
    assert_eq!(client.lock(), Err(ErrorCode::INVALID_REQUEST));
    client.expect_state(TdiState::CONFIG_UNLOCKED);
    for (protocol, message) in [(0, &[0, 0, 0][..]), (1, &[0x10, 0x81, 0, 0])] {
        let payload = [&[protocol], message].concat();
        let error = client.driver().vendor(3, &VENDOR_CXL.to_le_bytes(), &payload).unwrap_err();
        assert!(error.to_string().contains("UNSUPPORTED_REQUEST"), "{error}");
    }
}
