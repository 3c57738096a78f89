//! Random sequences of messages and events, against what must hold whatever comes.

use proptest::prelude::*;

use super::*;
use crate::ide::KeyState;
use crate::wire::{MmioRange, RangeAttributes};

/// One step of a random life. Small numbers choose among few sessions, functions and streams, so that
/// sequences get somewhere.
#[derive(Clone, Debug)]
pub(super) enum Action {
    SetUp {
        session: u8,
    },
    Rehearse {
        session: u8,
    },
    Lock {
        session: u8,
        function: u8,
        flags: u8,
    },
    /// Start with the n-th last nonce that was ever handed out.
    Start {
        session: u8,
        function: u8,
        age: u8,
    },
    Stop {
        session: u8,
        function: u8,
    },
    /// Bind or unbind a stream, by its id.
    P2p {
        session: u8,
        function: u8,
        stream_id: u8,
        bind: bool,
    },
    /// Enable a stream for peers, with keys or without.
    Peer,
    /// An attribute for pages of BAR 2.
    Attribute {
        session: u8,
        function: u8,
        page: u8,
        non_tee: bool,
    },
    Report {
        session: u8,
        function: u8,
        offset: u16,
        length: u16,
    },
    IdeWrite {
        offset: u8,
        data: Vec<u8>,
    },
    Key {
        session: u8,
        object: u8,
        bits: u8,
    },
    ConfigWritten {
        function: u8,
        changed: bool,
    },
    SessionEnded {
        session: u8,
    },
    FunctionReset {
        function: u8,
    },
    FunctionGone {
        function: u8,
    },
    LinkDown,
    Reset,
    Bytes {
        session: Option<u8>,
        tdisp: bool,
        bytes: Vec<u8>,
    },
}

pub(super) fn actions() -> impl Strategy<Value = Action> {
    let (session, function) = (0..3_u8, 0..3_u8);
    prop_oneof![
        3 => session.clone().prop_map(|session| Action::SetUp { session }),
        2 => session.clone().prop_map(|session| Action::Rehearse { session }),
        6 => (session.clone(), function.clone(), 0..16_u8)
            .prop_map(|(session, function, flags)| Action::Lock { session, function, flags }),
        2 => Just(Action::Peer),
        3 => (session.clone(), function.clone(), STREAM_ID..PEER_ID + 1, any::<bool>()).prop_map(
            |(session, function, stream_id, bind)| Action::P2p { session, function, stream_id, bind }
        ),
        2 => (session.clone(), function.clone(), 0..18_u8, any::<bool>()).prop_map(
            |(session, function, page, non_tee)| Action::Attribute { session, function, page, non_tee }
        ),
        6 => (session.clone(), function.clone(), 0..3_u8)
            .prop_map(|(session, function, age)| Action::Start { session, function, age }),
        2 => (session.clone(), function.clone()).prop_map(|(session, function)| Action::Stop { session, function }),
        2 => (session.clone(), function.clone(), 0..200_u16, any::<u16>()).prop_map(
            |(session, function, offset, length)| Action::Report { session, function, offset, length }
        ),
        1 => (0..0x40_u8, proptest::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(offset, data)| Action::IdeWrite { offset, data }),
        2 => (session.clone(), 2..6_u8, any::<u8>())
            .prop_map(|(session, object, bits)| Action::Key { session, object, bits: bits & 0x33 }),
        1 => (function.clone(), any::<bool>())
            .prop_map(|(function, changed)| Action::ConfigWritten { function, changed }),
        1 => session.prop_map(|session| Action::SessionEnded { session }),
        1 => function.clone().prop_map(|function| Action::FunctionReset { function }),
        1 => function.prop_map(|function| Action::FunctionGone { function }),
        1 => Just(Action::LinkDown),
        1 => Just(Action::Reset),
        1 => (proptest::option::of(0..3_u8), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(session, tdisp, bytes)| Action::Bytes { session, tdisp, bytes }),
    ]
}

fn session(number: u8) -> SessionId {
    0x1000 + u32::from(number)
}

fn interface(function: u8) -> InterfaceId {
    FunctionId::new(u16::from(function), None).into()
}

pub(super) struct World {
    pub(super) device: Device,
    /// Nonce and function of every LOCK, oldest first.
    nonces: Vec<(Nonce, usize)>,
    /// Which of them is the one of the function's present LOCK.
    valid: [Option<usize>; 3],
}

impl World {
    pub(super) fn new(keys_at_lock: KeysAtLock) -> Self {
        Self {
            device: Device::able(DsmConfig { functions: 3, keys_at_lock, ..DsmConfig::default() }),
            nonces: Vec::new(),
            valid: [None; 3],
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        let device = &mut self.device;
        match action {
            Action::SetUp { session: number } => {
                let free = device.dsm.key_manager().is_none_or(|owner| owner == session(number));
                if free {
                    device.set_up_stream(session(number));
                }
            }
            Action::Rehearse { session: number } => {
                let free = device.dsm.key_manager().is_none_or(|owner| owner == session(number));
                if free {
                    device.rehearse(session(number));
                }
            }
            Action::Lock { session: number, function, flags } => {
                let flags = LockFlags::from_bits(u16::from(flags));
                let streams = device.dsm.ide().streams();
                let rehearsed: Vec<_> = streams
                    .map(|stream| stream.index)
                    .filter(|stream| device.dsm.ide().rehearsed(*stream, session(number)))
                    .collect();
                let got = device.send_as(session(number), interface(function), lock_with(flags));
                if let (Got::Locked(_), Some(binding)) = (&got, device.dsm.binding(function.into())) {
                    let expected = binding.keys == KeysAtLock::InUse || rehearsed.contains(&binding.stream);
                    assert!(expected, "neither keys nor a rehearsal");
                }
                if let Got::Locked(nonce) = got {
                    self.valid[usize::from(function)] = Some(self.nonces.len());
                    self.nonces.push((nonce, usize::from(function)));
                }
            }
            Action::Start { session: number, function, age } => {
                let Some(index) = self.nonces.len().checked_sub(1 + usize::from(age)) else { return };
                let nonce = self.nonces[index].0.clone();
                let before = device.dsm.state(usize::from(function));
                let got = device.send_as(session(number), interface(function), Request::Start(nonce));
                if got == Got::Started {
                    assert_eq!(before, LOCKED);
                    assert_eq!(
                        self.valid[usize::from(function)],
                        Some(index),
                        "no RUN without its own nonce"
                    );
                }
            }
            Action::Stop { session: number, function } => {
                device.send_as(session(number), interface(function), Request::Stop);
            }
            Action::Peer => {
                // Only the session that owns key management can; the enable bit anyone may set.
                if device.dsm.key_manager().is_none_or(|owner| owner == SESSION) {
                    device.set_up_peer();
                } else {
                    device.dsm.ide_write(PEER_CONTROL, &(u32::from(PEER_ID) << 24 | 1).to_le_bytes());
                }
            }
            Action::P2p { session: number, function, stream_id, bind } => {
                let request = if bind { Request::BindP2p(stream_id) } else { Request::UnbindP2p(stream_id) };
                let before = device.dsm.state(function.into());
                let got = device.send_as(session(number), interface(function), request);
                assert!(!matches!(got, Got::Bound | Got::Unbound) || before == RUN);
            }
            Action::Attribute { session: number, function, page, non_tee } => {
                let range = MmioRange {
                    first_page: (0x10_0000_0000 * (u64::from(function) + 1) + 0x20_0000) / 4096
                        + u64::from(page),
                    pages: 1,
                    attributes: RangeAttributes::new().with_non_tee(non_tee),
                    range_id: 2,
                };
                let before = device.dsm.state(function.into());
                let request = Request::SetMmioAttribute(range);
                let got = device.send_as(session(number), interface(function), request);
                let updatable = (12..16).contains(&page);
                assert!(got != Got::AttributeSet || (before == RUN && updatable), "page {page}");
            }
            Action::Report { session: number, function, offset, length } => {
                let request = Request::GetReport { offset, length };
                device.send_as(session(number), interface(function), request);
            }
            Action::IdeWrite { offset, data } => device.dsm.ide_write(offset.into(), &data),
            Action::Key { session: number, object, bits } => {
                let mut bytes = vec![object, 0, 0, STREAM_ID, 0, bits, 0];
                if object == 2 {
                    bytes.extend_from_slice(&[bits; 32]);
                    bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
                }
                device.ide_km_bytes(Some(session(number)), &bytes);
            }
            Action::ConfigWritten { function, changed } => {
                let register = LockedRegister::Bar(1);
                device.dsm.config_written(function.into(), ConfigWrite { register, changed });
            }
            Action::SessionEnded { session: number } => device.dsm.session_ended(session(number)),
            Action::FunctionReset { function } => device.dsm.function_reset(function.into()),
            Action::FunctionGone { function } => device.dsm.function_conventional_reset(function.into()),
            Action::LinkDown => device.dsm.link_down(),
            Action::Reset => device.dsm.conventional_reset(),
            Action::Bytes { session: number, tdisp: true, mut bytes } => {
                if let [version, code, ..] = bytes.as_mut_slice() {
                    (*version, *code) = (*version & 1 | 0x10, *code | 0x80);
                }
                device.send_bytes(number.map(session), &bytes);
            }
            Action::Bytes { session: number, tdisp: false, bytes } => {
                device.ide_km_bytes(number.map(session), &bytes);
            }
        }
    }

    fn check(&mut self, before: [TdiState; 3], action: &Action) {
        let mut told = before;
        let mut scrubbed = [false; 3];
        let effects = self.device.effects();
        let refused = effects.iter().any(|effect| matches!(effect, Effect::Refused { .. }));
        for effect in effects {
            match effect {
                Effect::StateChanged { function, from, to, .. } => {
                    assert_eq!(told[function], from, "transitions are told without a gap");
                    assert!(to != UNLOCKED || scrubbed[function], "scrubbed before anyone can read");
                    let leaves_error = from == ERROR && to != UNLOCKED;
                    assert!(!leaves_error, "ERROR is left by STOP or reset only");
                    assert!(to != RUN || from == LOCKED);
                    assert!(to != LOCKED || from == UNLOCKED);
                    told[function] = to;
                }
                Effect::Scrub { function } => scrubbed[function] = true,
                Effect::LockedWithoutKeys { function, stream } => {
                    assert_eq!(told[function], LOCKED);
                    let binding = self.device.dsm.binding(function).unwrap();
                    assert_eq!((binding.keys, binding.stream), (KeysAtLock::Rehearsed, stream));
                }
                Effect::MmioAttribute { function, .. } => {
                    assert_eq!(told[function], RUN, "moves pages in RUN only")
                }
                Effect::P2pStream { function, stream, .. } => {
                    assert_eq!((told[function], stream), (RUN, PEER));
                }
                Effect::StopDma { .. }
                | Effect::DrainDma { .. }
                | Effect::StreamSecure { .. }
                | Effect::Refused { .. } => {}
            }
        }
        let dsm = &self.device.dsm;
        assert_eq!(told, [0, 1, 2].map(|function| dsm.state(function)), "every transition is told");
        if refused {
            assert_eq!(told, before, "a refused request changes nothing: {action:?}");
        }
        for function in 0..3 {
            let state = dsm.state(function);
            if state != LOCKED {
                self.valid[function] = None;
            }
            let bound = state == LOCKED || state == RUN;
            assert_eq!(dsm.binding(function).is_some(), bound);
            if let Some(binding) = dsm.binding(function) {
                let stream = dsm.ide().view(binding.stream).unwrap();
                assert!(stream.control.enable(), "bound to a stream that is off");
                assert!(dsm.ide().keys_from(binding.stream, binding.session), "keys of another session");
                assert_eq!(dsm.key_manager(), Some(binding.session));
                for stream in binding.p2p {
                    let stream = dsm.ide().view(stream).unwrap();
                    assert!(
                        stream.secure && !stream.control.default_stream(),
                        "a P2P stream that is not secure"
                    );
                    assert!(dsm.ide().keys_from(stream.index, binding.session), "keys of another session");
                    assert_eq!(state, RUN);
                }
                match binding.keys {
                    KeysAtLock::InUse => {
                        assert!(stream.secure, "bound to an insecure stream");
                        assert_ne!(stream.keys, KeyState::Incomplete);
                    }
                    KeysAtLock::Rehearsed => assert_eq!(dsm.config().keys_at_lock, KeysAtLock::Rehearsed),
                }
            }
        }
        for stream in dsm.ide().streams() {
            assert!(!stream.secure || stream.control.enable());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn invariants_hold_over_any_sequence(rehearsed: bool, actions in proptest::collection::vec(actions(), 1..60)) {
        let mut world = World::new(if rehearsed { KeysAtLock::Rehearsed } else { KeysAtLock::InUse });
        for action in actions {
            let before = [0, 1, 2].map(|function| world.device.dsm.state(function));
            world.act(action.clone());
            world.check(before, &action);
        }
    }

    #[test]
    fn no_key_of_an_ended_session_secures_a_stream(number in 0..3_u8, others in proptest::collection::vec(actions(), 0..20)) {
        let mut world = World::new(KeysAtLock::Rehearsed);
        for action in others {
            world.act(action);
        }
        world.device.dsm.session_ended(session(number));
        for stream in world.device.dsm.ide().streams() {
            prop_assert!(!stream.secure || !world.device.dsm.ide().keys_from(stream.index, session(number)));
        }
    }
}
