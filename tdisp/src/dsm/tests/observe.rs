//! Messages in the clear: they ask, and change nothing.

use proptest::prelude::*;

use super::properties::{World, actions};
use super::*;

/// Everything that a message could change.
fn snapshot(dsm: &Dsm) -> impl PartialEq + std::fmt::Debug + use<> {
    let functions = 0..dsm.config().functions;
    let tdis: Vec<_> = functions
        .map(|function| {
            (dsm.state(function), dsm.binding(function), dsm.report(function).map(<[u8]>::to_vec))
        })
        .collect();
    let streams: Vec<_> = dsm.ide().streams().collect();
    (tdis, streams, dsm.key_manager())
}

fn ask(device: &Device, bytes: &[u8]) -> (Response<'static>, Option<Refusal>) {
    let mut response = vec![0xA5; 3];
    let (answer, refusal) = device.dsm.observe(bytes, &device.functions, &mut response);
    assert_eq!(answer, Answer::Respond);
    let message = ResponseMessage::decode(&response[3..]).unwrap();
    if let Ok((header, _)) = crate::wire::Header::decode(bytes) {
        assert_eq!(message.interface, header.interface, "INTERFACE_ID is echoed");
    }
    let told = match message.response {
        Response::Version(versions) => {
            assert_eq!(versions, [0x10]);
            Response::Version(&[0x10])
        }
        Response::Capabilities(capabilities) => Response::Capabilities(capabilities),
        Response::State(state) => Response::State(state),
        Response::Error { code, data, extended: None } => Response::error(code, data),
        other @ (Response::Error { .. }
        | Response::Lock(_)
        | Response::Report { .. }
        | Response::Start
        | Response::Stop
        | Response::BindP2p
        | Response::UnbindP2p
        | Response::SetMmioAttribute
        | Response::Vdm(_)) => panic!("{other:?}"),
    };
    assert_eq!(matches!(told, Response::Error { .. }), refusal.is_some());
    (told, refusal)
}

fn request(code: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..2].copy_from_slice(&[0x10, code]);
    bytes
}

#[test]
fn every_code_in_every_state() {
    for state in STATES {
        let mut device = Device::in_state(state);
        let before = snapshot(&device.dsm);
        for code in 0..=u8::MAX {
            let length = match code {
                0x82 | 0x84 => 20,
                0x83 => 36,
                0x86 => 48,
                _ => 16,
            };
            let unsupported = Response::error(ErrorCode::UNSUPPORTED_REQUEST, code.into());
            let code_name = crate::wire::MessageCode(code);
            let (told, refusal) = ask(&device, &request(code, length));
            match code {
                0x81 => assert_eq!((told, refusal), (Response::Version(&[0x10]), None)),
                0x82 => assert!(matches!(told, Response::Capabilities(_))),
                0x85 => assert_eq!((told, refusal), (Response::State(state), None)),
                0x83 | 0x84 | 0x86 | 0x87 => {
                    assert_eq!((told, refusal), (unsupported, Some(Refusal::InTheClear(code_name))));
                }
                _ => assert_eq!((told, refusal), (unsupported, Some(Refusal::Unsupported(code_name)))),
            }
        }
        assert_eq!(snapshot(&device.dsm), before);
        assert_eq!(device.effects(), []);
    }
}

/// The bytes of QEMU's `pcie_tdisp_get_device_interface_state` for bus 1, device 0, function 0, in Linaro's tree that
/// emulates Arm CCA device assignment, and the length and fields that it wants in the answer.
#[test]
fn golden_an_emulator_asks_for_the_state() {
    let device = Device::in_state(RUN);
    let request = [0x10, 0x85, 0, 0, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut response = Vec::new();
    let _ = device.dsm.observe(&request, &device.functions, &mut response);
    assert_eq!(response, [0x10, 0x05, 0, 0, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn what_is_not_in_order_is_refused_as_in_a_session() {
    let device = Device::in_state(LOCKED);
    for length in 0..16 {
        let (told, _) = ask(&device, &request(0x85, 16)[..length]);
        assert_eq!(told, Response::error(ErrorCode::INVALID_REQUEST, 0));
    }
    let (told, _) = ask(&device, &request(0x85, 17));
    assert_eq!(told, Response::error(ErrorCode::INVALID_REQUEST, 0));
    let mut other = request(0x85, 16);
    other[0] = 0x11;
    assert_eq!(ask(&device, &other).0, Response::error(ErrorCode::VERSION_MISMATCH, 0));
    let mut other = request(0x85, 16);
    other[4] = 1;
    assert_eq!(ask(&device, &other).0, Response::error(ErrorCode::INVALID_INTERFACE, 0));
}

#[test]
fn a_tdi_of_a_session_is_told_of_whatever_other_sessions_hear() {
    let config = DsmConfig { foreign_state_query: ForeignStateQuery::Reject, ..DsmConfig::default() };
    let mut device = Device::with_stream(config);
    device.bring(0, LOCKED);
    assert_eq!(ask(&device, &request(0x85, 16)).0, Response::State(LOCKED));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_changes_whatever_is_asked(
        life in proptest::collection::vec(actions(), 0..30),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
        sensible: bool,
    ) {
        let mut world = World::new(KeysAtLock::Rehearsed);
        life.into_iter().for_each(|action| world.act(action));
        world.device.effects();
        if let ([version, code, ..], true) = (bytes.as_mut_slice(), sensible) {
            (*version, *code) = (0x10, *code & 7 | 0x80);
        }
        let before = snapshot(&world.device.dsm);
        ask(&world.device, &bytes);
        prop_assert_eq!(snapshot(&world.device.dsm), before);
        prop_assert_eq!(world.device.effects(), []);
    }
}
