//! What kind of device the requester is, asked by the responder.

use std::time::Duration;

use spdm::crypto::{AsymAlgorithm, RingProvider};
use spdm::identity::generate_requester;
use spdm::requester::{
    Command, Driver, DriverError, Reply, Requester, RequesterConfig, RequesterConfigError, RequesterError,
    Response, Served, Transport,
};
use spdm::responder::{MutualAuthentication, RequesterEndpoint, Responder, SessionAuthentication};
use spdm::slot::Slots;
use spdm::wire::{Code, DeviceClass, ErrorCode, Version};

use super::pair::*;

const NEW: [Version; 2] = [Version::V1_3, Version::V1_4];

fn classes() -> Vec<DeviceClass> {
    let class = |vendor: u8| DeviceClass {
        registry: 3,
        vendor_id: vec![vendor, 0],
        subordinates: vec![vec![1], vec![2, 3]],
    };
    vec![class(1), class(2)]
}

fn identity() -> Slots {
    static SLOTS: std::sync::OnceLock<Slots> = std::sync::OnceLock::new();
    let make = || Slots::single(generate_requester("a requester", AsymAlgorithm::EcdsaP256).unwrap().slot());
    SLOTS.get_or_init(make).clone()
}

/// Connected, both able to converse; a requester with an identity has to prove it in sessions.
fn pair(version: Version, identity: Slots, classes: Vec<DeviceClass>) -> Pair {
    let mutual = MutualAuthentication { session: SessionAuthentication::Encapsulated, ..Default::default() };
    let mut config = responder_config(version);
    config.mutual = mutual;
    config.capabilities.encapsulated = true;
    let responder = Responder::new(config, slots(), Box::new(RingProvider::new())).unwrap();
    let config = RequesterConfig { device_classes: classes, encapsulated: true, ..requester_config(version) };
    let requester = Requester::with_identity(config, Box::new(RingProvider::new()), identity).unwrap();
    let mut pair = Pair { requester, device: Device { responder, now: Duration::ZERO } };
    pair.run(Command::Connect).unwrap();
    pair.run(Command::Certificate { slot: 0 }).unwrap();
    pair
}

#[test]
fn the_responder_learns_what_the_requester_is() {
    for version in NEW {
        for (identity, signed_by) in [(Slots::default(), None), (identity(), None), (identity(), Some(0))] {
            let mut pair = pair(version, identity, classes());
            // A session first: the requester's key is known from then on.
            let id = pair.start_any();
            for session in [Some(id), None] {
                pair.requester.select(session).unwrap();
                assert_eq!(pair.device.responder.requester_endpoint(session), None);
                assert!(pair.device.responder.ask_endpoint_info(session, signed_by), "{version}");
                let told = Served { described: true, ..Served::default() };
                assert_eq!(pair.run(Command::Serve).unwrap(), Reply::Served(told));
                let expected = RequesterEndpoint { classes: classes(), signed_by };
                assert_eq!(pair.device.responder.requester_endpoint(session), Some(&expected));
                assert_eq!(pair.run(Command::Serve).unwrap(), Reply::Served(Served::default()), "only once");
            }
        }
    }
}

#[test]
fn who_cannot_answer_is_not_asked() {
    for version in VERSIONS {
        let mut with = pair(version, Slots::default(), classes());
        let new = version >= Version::V1_3;
        assert_eq!(with.device.responder.ask_endpoint_info(None, None), new, "{version}");
        for slot in [0, 7, 9, 0xFF] {
            assert!(!with.device.responder.ask_endpoint_info(None, Some(slot)), "its key is not known");
        }
        assert!(!with.device.responder.ask_endpoint_info(Some(1), None), "there is no such session");
        assert_eq!(with.device.responder.requester_endpoint(Some(1)), None);
        let mut without = pair(version, Slots::default(), Vec::new());
        assert!(!without.device.responder.ask_endpoint_info(None, None));
    }
    let mut unconnected = pair(Version::V1_3, Slots::default(), classes());
    unconnected.device.responder.reset();
    assert!(!unconnected.device.responder.ask_endpoint_info(None, None));
}

/// Flips one bit of what the requester delivers.
struct Meddler<'d> {
    device: &'d mut Device,
    at: usize,
}

impl Transport for &mut Meddler<'_> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let mut message = message.to_vec();
        if message[1] == Code::DELIVER_ENCAPSULATED_RESPONSE.0 {
            message[self.at] ^= 1;
        }
        (&mut *self.device).exchange(secured, &message)
    }

    fn wait(&mut self, _: Duration) {}
}

#[test]
fn an_answer_that_was_altered_is_not_believed() {
    let mut pair = pair(Version::V1_3, identity(), classes());
    pair.start_any();
    pair.requester.select(None).unwrap();
    // The encapsulated header's slot, the information, the signature's last byte but some.
    for at in [4 + 1, 4 + 3, 4 + 4 + 4 + 32 + 4 + 4 + 2, 4 + 4 + 4 + 32 + 4 + 30] {
        assert!(pair.device.responder.ask_endpoint_info(None, Some(0)));
        let mut meddler = Meddler { device: &mut pair.device, at };
        let result = Driver::new(&mut pair.requester, &mut meddler).run(Command::Serve);
        let Err(DriverError::Requester(RequesterError::Refused { code, .. })) = result else {
            panic!("{at}: {result:?}")
        };
        assert_eq!(code, ErrorCode::INVALID_RESPONSE_CODE, "{at}");
        assert_eq!(pair.device.responder.requester_endpoint(None), None, "{at}");
    }
    assert!(pair.device.responder.ask_endpoint_info(None, Some(0)));
    pair.run(Command::Serve).unwrap();
    assert!(pair.device.responder.requester_endpoint(None).is_some());
}

#[test]
fn classes_that_cannot_be_written_are_no_settings() {
    let class = DeviceClass { registry: 3, vendor_id: vec![0; 256], subordinates: Vec::new() };
    let config = RequesterConfig { device_classes: vec![class], ..requester_config(Version::V1_3) };
    let result = Requester::new(config, Box::new(RingProvider::new()));
    assert_eq!(result.err(), Some(RequesterConfigError::DeviceClasses));
}
