//! TDISP and IDE_KM messages, and the events between them, against the DSM.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "only some messages matter to a check")]

use tdisp::dsm::{BarView, Fault, KeysAtLock, LockedRegister, OptionalRequests, RangeView};
use tdisp::ide::{InsecureCause, StreamIndex};
use tdisp::wire::ide_km::{KeyHead, KeyMaterial, KeySet, KeySlot, Object};
use tdisp::wire::{
    Header, InterfaceInfo, LockRequest, MessageCode, Request, RequestMessage, Response, ResponseMessage,
};
use tdisp::{
    Answer, ConfigWrite, Dsm, DsmConfig, Effect, FunctionId, FunctionView, IdeConfig, LockFlags, Nonce,
    SessionId, TdiState,
};

use super::script::Script;

const FUNCTIONS: usize = 2;
pub(super) const STREAM_ID: u8 = 5;
/// Control register of the first selective stream: id 5, default; and Enable.
const CONTROL: u16 = 0x10;
const SET_UP: u32 = 0x0540_0000;
const UNLOCKED: TdiState = TdiState::CONFIG_UNLOCKED;
const LOCKED: TdiState = TdiState::CONFIG_LOCKED;
const RUN: TdiState = TdiState::RUN;
const ERROR: TdiState = TdiState::ERROR;

/// A DSM whose every message and effect is checked.
struct Machine {
    dsm: Dsm,
    views: Vec<FunctionView>,
    random: u8,
    /// Nonce of the LOCK that a function is in.
    nonces: [Option<Nonce>; FUNCTIONS],
    told: [TdiState; FUNCTIONS],
}

fn view(number: usize) -> FunctionView {
    let range = |first_page, pages, non_tee| RangeView { first_page, pages, non_tee, ..RangeView::default() };
    let base = 0x10_0000_0000 * (number as u64 + 1);
    let bar = |index, offset, pages: u64, ranges| BarView {
        index,
        address: Some(base + offset),
        size: pages * 4096,
        aliased: false,
        size_supported: true,
        ranges,
    };
    FunctionView {
        number,
        bars: vec![
            bar(0, 0, 4, vec![range(0, 4, false)]),
            bar(
                2,
                0x10_0000,
                16,
                vec![range(0, 8, false), RangeView { updatable: true, ..range(8, 8, true) }],
            ),
        ],
        device_info: b"info".to_vec(),
        interface_info: InterfaceInfo::new().with_ats(true),
        ..FunctionView::default()
    }
}

fn interface(function: u8) -> tdisp::InterfaceId {
    FunctionId::new(u16::from(function), None).into()
}

fn lock_request() -> Request<'static> {
    let flags = LockFlags::new().with_bind_p2p(true);
    Request::Lock(LockRequest { flags, default_stream_id: STREAM_ID, ..LockRequest::default() })
}

impl Machine {
    fn new(keys_at_lock: KeysAtLock) -> Self {
        let ide = IdeConfig { selective_streams: 2, ..IdeConfig::default() };
        let config = DsmConfig {
            functions: FUNCTIONS,
            ide,
            keys_at_lock,
            optional: OptionalRequests { p2p: true, mmio_attribute: true, vdm: Some(0x1234) },
            lock_flags: LockFlags::new().with_bind_p2p(true),
            ..DsmConfig::default()
        };
        Self {
            dsm: Dsm::new(config).unwrap(),
            views: (0..FUNCTIONS).map(view).collect(),
            random: 0,
            nonces: [const { None }; FUNCTIONS],
            told: [UNLOCKED; FUNCTIONS],
        }
    }

    /// Function 0 in `state`, by the messages that lead there, its keys from session 1.
    fn in_state(state: TdiState, keys_at_lock: KeysAtLock) -> Self {
        let mut machine = Self::new(keys_at_lock);
        match keys_at_lock {
            KeysAtLock::InUse => machine.secure_stream(1),
            KeysAtLock::Rehearsed => machine.rehearse(1),
        }
        if state != UNLOCKED {
            machine.request(1, 0, lock_request());
        }
        if state == RUN {
            machine.start(1, 0);
        } else if state == ERROR {
            machine.dsm.function_reset(0);
            machine.check();
        }
        assert_eq!(machine.dsm.state(0), state);
        machine
    }

    fn secure_stream(&mut self, session: SessionId) {
        self.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
        self.check();
        let slots: Vec<_> = KeySlot::of_set(KeySet::Zero).collect();
        self.keys(session, &slots, |head| Object::KeyProg(head, KeyMaterial::new([3; 32])));
        self.keys(session, &slots, Object::KSetGo);
        self.dsm.ide_write(CONTROL, &(SET_UP | 1).to_le_bytes());
        self.check();
    }

    /// Programs, starts and stops two keys of the stream, which is enabled.
    fn rehearse(&mut self, session: SessionId) {
        self.dsm.ide_write(CONTROL, &(SET_UP | 1).to_le_bytes());
        self.check();
        let slots: Vec<_> = KeySlot::of_set(KeySet::Zero).take(2).collect();
        self.keys(session, &slots, |head| Object::KeyProg(head, KeyMaterial::new([3; 32])));
        self.keys(session, &slots, Object::KSetGo);
        self.keys(session, &slots, Object::KSetStop);
    }

    fn keys(&mut self, session: SessionId, slots: &[KeySlot], object: impl Fn(KeyHead) -> Object<'static>) {
        for slot in slots {
            let mut message = Vec::new();
            object(KeyHead::new(0, STREAM_ID, *slot)).encode(&mut message);
            self.ide_km(Some(session), &message);
        }
    }

    fn start(&mut self, session: SessionId, function: u8) {
        let nonce = self.nonces.get(usize::from(function)).cloned().flatten();
        self.request(session, function, Request::Start(nonce.unwrap_or(Nonce::new([0x77; 32]))));
    }

    fn request(&mut self, session: SessionId, function: u8, request: Request<'_>) {
        let mut message = Vec::new();
        RequestMessage { interface: interface(function), request }.encode(&mut message);
        self.tdisp(Some(session), &message);
    }

    /// One TDISP message: its answer is legal, belongs to it, and moves only what such a message may move.
    fn tdisp(&mut self, session: Option<SessionId>, message: &[u8]) {
        let before = self.told;
        let Self { dsm, views, random, .. } = self;
        let mut fill = |out: &mut [u8]| {
            *random = random.wrapping_add(1);
            out.fill(*random);
            true
        };
        let mut response = vec![0xA5; 3];
        let answer = dsm.tdisp(session, message, views, &mut fill, &mut response);
        assert_eq!(
            answer == Answer::Silent,
            session.is_none(),
            "answered outside of a session, or not inside"
        );
        if answer == Answer::Silent {
            assert_eq!(response, [0xA5; 3]);
            self.check();
            assert_eq!(self.told, before);
            return;
        }
        let answer = ResponseMessage::decode(&response[3..]).unwrap();
        let header = Header::decode(message).ok().map(|(header, _)| header);
        if let Some(header) = header {
            assert_eq!(answer.interface, header.interface, "INTERFACE_ID comes back");
        }
        let function = usize::from(answer.interface.function.requester_id() & 7);
        let code = header.map_or(MessageCode(0), |header| header.code);
        if let Response::Lock(nonce) = &answer.response {
            assert_eq!((code, before[function]), (MessageCode::LOCK_INTERFACE_REQUEST, UNLOCKED));
            self.nonces[function] = Some(nonce.clone());
        }
        if answer.response == Response::Start {
            let nonce = self.nonces[function].as_ref().unwrap();
            assert_eq!((code, before[function]), (MessageCode::START_INTERFACE_REQUEST, LOCKED));
            assert_eq!(&message[16..], nonce.as_bytes(), "START without the nonce of LOCK");
        }
        let moves = match answer.response {
            Response::Lock(_) => Some(LOCKED),
            Response::Start => Some(RUN),
            Response::Stop => Some(UNLOCKED),
            Response::State(state) => {
                assert_eq!(state, before[function]);
                None
            }
            _ => None,
        };
        self.check();
        for (number, before) in before.into_iter().enumerate() {
            let expected = moves.filter(|_| number == function).unwrap_or(before);
            assert_eq!(self.told[number], expected, "{code:?} moved function {number}");
        }
    }

    /// One TDISP message in the clear: its answer is legal and true, and nothing moves.
    fn observe(&mut self, message: &[u8]) {
        let before = self.told;
        let mut response = Vec::new();
        let (answer, refusal) = self.dsm.observe(message, &self.views, &mut response);
        assert_eq!(answer, Answer::Respond);
        let answer = ResponseMessage::decode(&response).unwrap();
        let function = usize::from(answer.interface.function.requester_id() & 7);
        match answer.response {
            Response::Error { code, .. } => assert_eq!(Some(code), refusal.map(|refusal| refusal.code())),
            Response::State(state) => assert_eq!(state, before[function]),
            Response::Version(_) | Response::Capabilities(_) => {}
            other => panic!("{other:?} in the clear"),
        }
        self.check();
        assert_eq!(self.told, before);
    }

    /// One IDE_KM object: its answer is of the kind that belongs to it.
    fn ide_km(&mut self, session: Option<SessionId>, message: &[u8]) {
        let owner = self.dsm.key_manager();
        let mut response = vec![0xA5; 3];
        match self.dsm.ide_km(session, message, &mut response) {
            Answer::Silent => assert_eq!(response, [0xA5; 3]),
            Answer::Respond => {
                assert!(session.is_some() && (owner.is_none() || owner == session), "not the key manager");
                let kind = message[0];
                match Object::decode(&response[3..]).unwrap() {
                    Object::QueryResponse(_) => assert_eq!(kind, 0),
                    Object::KpAck(head) => assert_eq!((kind, head.stream_id), (2, message[3])),
                    Object::KGoStopAck(_) => assert!(kind == 4 || kind == 5),
                    other => panic!("{other:?} as an answer"),
                }
            }
        }
        self.check();
    }

    /// What holds after everything.
    fn check(&mut self) {
        let mut scrubbed = [false; FUNCTIONS];
        while let Some(effect) = self.dsm.poll_effect() {
            match effect {
                Effect::StateChanged { function, from, to, .. } => {
                    assert_eq!(self.told[function], from, "transitions are told without a gap");
                    assert!(to != UNLOCKED || scrubbed[function], "scrubbed before anyone can read");
                    assert!(to != RUN || from == LOCKED);
                    assert!(to != LOCKED || from == UNLOCKED);
                    self.told[function] = to;
                }
                Effect::Scrub { function } => scrubbed[function] = true,
                Effect::MmioAttribute { function, .. } | Effect::P2pStream { function, .. } => {
                    assert_eq!(self.told[function], RUN, "MSI-X is shared here, and the rest is for RUN");
                }
                Effect::StopDma { .. }
                | Effect::DrainDma { .. }
                | Effect::StreamSecure { .. }
                | Effect::LockedWithoutKeys { .. }
                | Effect::Refused { .. } => {}
            }
        }
        for function in 0..FUNCTIONS {
            let state = self.dsm.state(function);
            assert_eq!(self.told[function], state, "every transition is told");
            if state != LOCKED {
                self.nonces[function] = None;
            }
            assert_eq!(self.dsm.binding(function).is_some(), state == LOCKED || state == RUN);
            if let Some(binding) = self.dsm.binding(function) {
                let stream = self.dsm.ide().view(binding.stream).unwrap();
                let expected = stream.secure || binding.keys == KeysAtLock::Rehearsed;
                assert!(expected, "bound to an insecure stream");
                assert!(stream.control.enable() && self.dsm.key_manager() == Some(binding.session));
                assert!(
                    binding.keys == KeysAtLock::InUse
                        || self.dsm.config().keys_at_lock == KeysAtLock::Rehearsed
                );
                assert!(self.dsm.ide().keys_from(binding.stream, binding.session), "keys of another session");
            }
        }
        for stream in self.dsm.ide().streams() {
            assert!(!stream.secure || stream.control.enable());
        }
    }

    fn event(&mut self, event: u8, script: &mut Script<'_>) {
        let session = 1 + SessionId::from(script.byte() & 1);
        let function = script.byte() & 3;
        match event % 16 {
            0 => self.tdisp(Some(session), script.sized(512)),
            1 => {
                let mut message = Vec::new();
                Header::new(MessageCode(script.byte()), interface(function)).encode(&mut message);
                message.extend_from_slice(script.sized(512));
                self.tdisp(Some(session), &message);
            }
            2 => self.start(session, function),
            3 => self.request(session, function, lock_request()),
            4 => self.request(session, function, Request::Stop),
            5 => self.ide_km(Some(session), script.sized(128)),
            6 => {
                let object = 2 + script.byte() % 4;
                let mut message = vec![object, 0, 0, STREAM_ID, 0, script.byte(), 0];
                if object == 2 {
                    message.extend_from_slice(&[3; 32]);
                    message.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
                }
                self.ide_km(Some(session), &message);
            }
            7 => self.dsm.ide_write(script.u16(), script.sized(16)),
            8 => {
                let register = match script.byte() % 4 {
                    0 => LockedRegister::MsiX,
                    1 => LockedRegister::MemorySpaceCleared,
                    2 => LockedRegister::DeviceControl,
                    _ => LockedRegister::Bar(2),
                };
                let changed = script.byte() & 1 == 1;
                self.dsm.config_written(function.into(), ConfigWrite { register, changed });
            }
            9 => self.dsm.session_ended(session),
            10 => self.dsm.function_reset(function.into()),
            11 => self.dsm.function_conventional_reset(function.into()),
            12 => match script.byte() % 3 {
                0 => self.dsm.link_down(),
                1 => self.dsm.fault(function.into(), Fault::DataIntegrity),
                _ => {
                    self.dsm.stream_failed(StreamIndex::Selective(function), InsecureCause::IntegrityFailure)
                }
            },
            13 => self.dsm.conventional_reset(),
            14 if event & 0x80 != 0 => self.rehearse(session),
            14 => self.secure_stream(session),
            _ => {
                self.tdisp(None, script.sized(64));
                self.ide_km(None, script.sized(64));
            }
        }
        self.check();
    }
}

/// One TDISP message: requests are written again as they were read, responses mean the same again, and in every state of a TDI
/// the answer is legal and moves only what the message may move.
pub fn tdisp_message(bytes: &[u8]) {
    if let Ok(request) = RequestMessage::decode(bytes) {
        let mut again = Vec::new();
        request.encode(&mut again);
        assert_eq!((&again[..2], &again[4..]), (&bytes[..2], &bytes[4..]));
    }
    if let Ok(response) = ResponseMessage::decode(bytes) {
        let mut again = Vec::new();
        response.encode(&mut again).unwrap();
        assert_eq!(again.len(), bytes.len());
        assert_eq!(ResponseMessage::decode(&again).unwrap(), response);
    }
    for state in [UNLOCKED, LOCKED, RUN, ERROR] {
        for keys in [KeysAtLock::InUse, KeysAtLock::Rehearsed] {
            for session in [None, Some(1), Some(2)] {
                Machine::in_state(state, keys).tdisp(session, bytes);
            }
            Machine::in_state(state, keys).observe(bytes);
        }
    }
}

/// IDE_KM objects, TDISP messages and events in any order, from any state: nothing runs without a secure stream of its own
/// session, or a rehearsal where that is allowed, and without the nonce of its own LOCK.
pub fn ide_km_object(bytes: &[u8]) {
    if let Ok(object) = Object::decode(bytes) {
        let mut again = Vec::new();
        object.encode(&mut again);
        assert_eq!(again.len(), bytes.len());
        match (Object::decode(&again).unwrap(), object) {
            (Object::KeyProg(again, key), Object::KeyProg(head, as_read)) => {
                assert!(key == as_read && (again.stream_id, again.key) == (head.stream_id, head.key));
            }
            (Object::KpAck(again), Object::KpAck(head)) => assert_eq!(again, head),
            (again, object) => assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&object)),
        }
    }
    let mut script = Script::new(bytes);
    let start = script.byte();
    let keys = if (start / 5).is_multiple_of(2) { KeysAtLock::InUse } else { KeysAtLock::Rehearsed };
    let mut machine = match start % 5 {
        0 => Machine::new(keys),
        1 => Machine::in_state(UNLOCKED, keys),
        2 => Machine::in_state(LOCKED, keys),
        3 => Machine::in_state(RUN, keys),
        _ => Machine::in_state(ERROR, keys),
    };
    while let Some(event) = script.event() {
        machine.event(event, &mut script);
    }
}
