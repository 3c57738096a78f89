//! The state × event table as data, complete, and executed row by row (PCIe 6.1 §11.2).

use super::*;

/// Everything that can happen to a TDI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stimulus {
    GetVersion,
    GetCapabilities,
    GetState,
    Lock,
    LockRefused,
    Report,
    StartRight,
    StartWrong,
    Stop,
    BindP2p,
    UnbindP2p,
    SetMmioAttribute,
    Vdm,
    RequestNotOffered,
    OtherSession,
    FrozenWrite,
    AllowedWrite,
    StreamInsecure,
    SessionEnds,
    OtherSessionEnds,
    FunctionReset,
    RequesterIdChanges,
    InternalFault,
    ConventionalReset,
}

use Stimulus::*;

/// What comes of it: a state, or an error and the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result {
    To(TdiState),
    Refuse(ErrorCode),
}

const U: Result = Result::To(UNLOCKED);
const L: Result = Result::To(LOCKED);
const R: Result = Result::To(RUN);
const E: Result = Result::To(ERROR);
const STATE: Result = Result::Refuse(ErrorCode::INVALID_INTERFACE_STATE);
const NONCE: Result = Result::Refuse(ErrorCode::INVALID_NONCE);
const REQUEST: Result = Result::Refuse(ErrorCode::INVALID_REQUEST);
const UNSUPPORTED: Result = Result::Refuse(ErrorCode::UNSUPPORTED_REQUEST);

#[rustfmt::skip]
const TABLE: [(Stimulus, [Result; 4]); 24] = [
    //                   CONFIG_UNLOCKED  CONFIG_LOCKED  RUN          ERROR
    (GetVersion,        [U,               L,             R,           E]),
    (GetCapabilities,   [U,               L,             R,           E]),
    (GetState,          [U,               L,             R,           E]),
    (Lock,              [L,               STATE,         STATE,       STATE]),
    (LockRefused,       [REQUEST,         STATE,         STATE,       STATE]),
    (Report,            [STATE,           L,             R,           STATE]),
    (StartRight,        [STATE,           R,             STATE,       STATE]),
    (StartWrong,        [STATE,           NONCE,         STATE,       STATE]),
    (Stop,              [U,               U,             U,           U]),
    (BindP2p,           [STATE,           STATE,         R,           STATE]),
    (UnbindP2p,         [STATE,           STATE,         R,           STATE]),
    (SetMmioAttribute,  [STATE,           STATE,         R,           STATE]),
    (Vdm,               [U,               L,             R,           E]),
    (RequestNotOffered, [UNSUPPORTED,     UNSUPPORTED,   UNSUPPORTED, UNSUPPORTED]),
    (OtherSession,      [U,               REQUEST,       REQUEST,     REQUEST]),
    (FrozenWrite,       [U,               E,             E,           E]),
    (AllowedWrite,      [U,               L,             R,           E]),
    (StreamInsecure,    [U,               E,             E,           E]),
    (SessionEnds,       [U,               E,             E,           E]),
    (OtherSessionEnds,  [U,               L,             R,           E]),
    (FunctionReset,     [U,               E,             E,           E]),
    (RequesterIdChanges, [U,              E,             E,           E]),
    (InternalFault,     [U,               E,             E,           E]),
    (ConventionalReset, [U,               U,             U,           U]),
];

impl Stimulus {
    fn words(self) -> &'static str {
        match self {
            GetVersion => "GET_TDISP_VERSION",
            GetCapabilities => "GET_TDISP_CAPABILITIES",
            GetState => "GET_DEVICE_INTERFACE_STATE",
            Lock => "LOCK, every check passed",
            LockRefused => "LOCK, a check failed",
            Report => "GET_DEVICE_INTERFACE_REPORT",
            StartRight => "START, the nonce of LOCK",
            StartWrong => "START, another nonce",
            Stop => "STOP",
            BindP2p => "BIND_P2P_STREAM, where it is offered",
            UnbindP2p => "UNBIND_P2P_STREAM, where it is offered",
            SetMmioAttribute => "SET_MMIO_ATTRIBUTE, where it is offered",
            Vdm => "VDM, where it is offered",
            RequestNotOffered => "a request that is not offered",
            OtherSession => "STOP from another session",
            FrozenWrite => "frozen register changed",
            AllowedWrite => "frozen register rewritten as it was",
            StreamInsecure => "bound stream insecure",
            SessionEnds => "session that locked ends",
            OtherSessionEnds => "another session ends",
            FunctionReset => "function level reset",
            RequesterIdChanges => "requester id changed",
            InternalFault => "internal fault",
            ConventionalReset => "conventional reset",
        }
    }
}

/// The row of `stimulus` as it stands in the documentation: a state that is entered is printed bold.
fn document(stimulus: Stimulus, results: [Result; 4]) -> String {
    let cells = STATES.into_iter().zip(results).map(|(from, result)| match result {
        Result::To(to) if to == from => "stays".to_owned(),
        Result::To(to) => format!("**{to}**"),
        Result::Refuse(code) => code.to_string(),
    });
    format!("//! | {} | {} |", stimulus.words(), cells.collect::<Vec<_>>().join(" | "))
}

#[test]
fn no_stimulus_is_left_out() {
    assert!(TABLE.iter().enumerate().all(|(place, (stimulus, _))| *stimulus as usize == place));
    assert_eq!(TABLE.len(), ConventionalReset as usize + 1, "the last of them");
}

#[test]
fn the_documentation_prints_this_table() {
    let documentation = include_str!("../mod.rs");
    for (stimulus, results) in TABLE {
        let row = document(stimulus, results);
        assert!(documentation.contains(&row), "missing in dsm/mod.rs:\n{row}");
    }
}

/// Applies a stimulus; an error that came back, if any.
fn apply(device: &mut Device, nonce: &Nonce, stimulus: Stimulus) -> Option<ErrorCode> {
    let function = InterfaceId::from(FunctionId::new(0xAB00, None));
    let got = match stimulus {
        GetVersion => device.send(Request::GetVersion),
        GetCapabilities => device.send(Request::GetCapabilities { tsm_caps: 0 }),
        GetState => device.send(Request::GetState),
        Lock => device.send(lock_with(device.flags)),
        LockRefused => device.send(lock_with(LockFlags::from_bits(0x8000))),
        Report => device.send(REPORT),
        StartRight => device.send(Request::Start(nonce.clone())),
        StartWrong => device.send(Request::Start(Nonce::new([0xEE; 32]))),
        Stop => device.send(Request::Stop),
        BindP2p => device.send(Request::BindP2p(PEER_ID)),
        UnbindP2p => {
            let bound = device.send(Request::BindP2p(PEER_ID));
            device.effects();
            assert_eq!(bound == Got::Bound, device.dsm.state(0) == RUN);
            device.send(Request::UnbindP2p(PEER_ID))
        }
        SetMmioAttribute => device.send(Request::SetMmioAttribute(adjust::updatable(true))),
        Vdm => device.send(Request::Vdm(adjust::echo(&[0, 1, 2]))),
        RequestNotOffered => {
            let code = crate::wire::MessageCode(0x8C);
            let mut bytes = vec![0x10, code.0, 0, 0, 0, 0xAB];
            bytes.resize(16, 0);
            device.send_bytes(Some(SESSION), &bytes)
        }
        OtherSession => device.send_as(OTHER, function, Request::Stop),
        FrozenWrite | AllowedWrite => {
            let register = LockedRegister::Bar(0);
            device.dsm.config_written(0, ConfigWrite { register, changed: stimulus == FrozenWrite });
            Got::Nothing
        }
        StreamInsecure => {
            device.dsm.ide_write(CONTROL, &SET_UP.to_le_bytes());
            Got::Nothing
        }
        SessionEnds => {
            device.dsm.session_ended(SESSION);
            Got::Nothing
        }
        OtherSessionEnds => {
            device.dsm.session_ended(OTHER);
            Got::Nothing
        }
        FunctionReset => {
            device.dsm.function_reset(0);
            Got::Nothing
        }
        RequesterIdChanges => {
            device.dsm.learn_address(0xAB00, 0);
            device.dsm.learn_address(0xAC00, 0);
            Got::Nothing
        }
        InternalFault => {
            device.dsm.fault(0, Fault::DataIntegrity);
            Got::Nothing
        }
        ConventionalReset => {
            device.dsm.conventional_reset();
            Got::Nothing
        }
    };
    if let Got::Error(code, _) = got { Some(code) } else { None }
}

/// A device in `state`, and the nonce of the LOCK that led there.
fn start(state: TdiState) -> (Device, Nonce) {
    start_with(Device::secure(), state)
}

/// The same with any device.
fn start_with(mut device: Device, state: TdiState) -> (Device, Nonce) {
    let mut nonce = Nonce::new([0x77; 32]);
    if state != UNLOCKED {
        nonce = device.lock(0);
        match state {
            RUN => assert_eq!(device.send(Request::Start(nonce.clone())), Got::Started),
            ERROR => device.dsm.function_reset(0),
            _ => {}
        }
    }
    device.effects();
    (device, nonce)
}

#[test]
fn the_table_is_complete_and_true() {
    holds(Device::equipped);
}

#[test]
fn the_table_holds_for_a_tdi_that_was_locked_after_a_rehearsal() {
    holds(|| {
        let mut device =
            Device::able(DsmConfig { keys_at_lock: KeysAtLock::Rehearsed, ..DsmConfig::default() });
        device.rehearse(SESSION);
        device.set_up_peer();
        device.effects();
        device
    });
}

fn holds(ready: impl Fn() -> Device) {
    for (stimulus, results) in TABLE {
        for (from, expected) in STATES.into_iter().zip(results) {
            let (mut device, nonce) = start_with(ready(), from);
            let error = apply(&mut device, &nonce, stimulus);
            let row = format!("{stimulus:?} in {from}");
            let to = device.dsm.state(0);
            match expected {
                Result::To(state) => assert_eq!((to, error), (state, None), "{row}"),
                Result::Refuse(code) => assert_eq!((to, error), (from, Some(code)), "{row}"),
            }
            check_effects(&mut device, from, to, &row);
            assert_eq!(device.dsm.binding(0).is_some(), to == LOCKED || to == RUN, "{row}");
            assert_eq!(device.dsm.report(0).is_some(), to == LOCKED || to == RUN, "{row}");
        }
    }
}

/// A transition is told once; DMA stops with every one but START; what leads to UNLOCKED scrubs first.
fn check_effects(device: &mut Device, from: TdiState, to: TdiState, row: &str) {
    let effects: Vec<Effect> = device
        .effects()
        .into_iter()
        .filter(|effect| match effect {
            Effect::StateChanged { .. } | Effect::Scrub { .. } | Effect::StopDma { .. } => true,
            Effect::StreamSecure { .. }
            | Effect::LockedWithoutKeys { .. }
            | Effect::DrainDma { .. }
            | Effect::MmioAttribute { .. }
            | Effect::P2pStream { .. }
            | Effect::Refused { .. } => false,
        })
        .collect();
    if from == to {
        assert_eq!(effects, [], "{row}");
        return;
    }
    let told = effects.last().copied();
    assert!(
        matches!(told, Some(Effect::StateChanged { function: 0, from: f, to: t, .. }) if (f, t) == (from, to)),
        "{row}: {told:?}"
    );
    let mut before = Vec::new();
    if to != RUN {
        before.push(Effect::StopDma { function: 0 });
    }
    if to == UNLOCKED {
        before.push(Effect::Scrub { function: 0 });
    }
    assert_eq!(effects[..effects.len() - 1], before, "{row}");
}

#[test]
fn the_nonce_lives_from_lock_to_the_next_transition() {
    for end in [
        StartRight,
        Stop,
        FrozenWrite,
        StreamInsecure,
        SessionEnds,
        FunctionReset,
        InternalFault,
        ConventionalReset,
    ] {
        let (mut device, nonce) = start(LOCKED);
        apply(&mut device, &nonce, end);
        device.dsm.conventional_reset();
        device.dsm.session_ended(SESSION);
        device.set_up_stream(SESSION);
        let next = device.lock(0);
        assert_ne!(nonce, next, "{end:?}");
        assert_eq!(device.send(Request::Start(nonce)), Got::Error(ErrorCode::INVALID_NONCE, 0), "{end:?}");
        assert_eq!(device.send(Request::Start(next)), Got::Started, "{end:?}");
    }
}

#[test]
fn a_wrong_nonce_does_not_spoil_the_right_one() {
    let (mut device, nonce) = start(LOCKED);
    for _ in 0..3 {
        assert_eq!(apply(&mut device, &nonce, StartWrong), Some(ErrorCode::INVALID_NONCE));
    }
    assert_eq!(apply(&mut device, &nonce, StartRight), None);
    assert_eq!(device.dsm.state(0), RUN);
}
