//! A responder in this process, and a real session with it whose keys the test has, so that any plain text gets behind the AEAD.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use spdm::SessionId;
use spdm::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, RingProvider};
use spdm::identity::{Material, PciName, generate};
use spdm::psk::PreSharedKey;
use spdm::requester::{Driver, Requester, RequesterConfig, Response, SavedSession, Transport};
use spdm::responder::{
    Answer, Capability, EndpointInfoSupport, Measurement, MeasurementValue, MultipleKeys, Provisioning,
    PskSupport, Responder, ResponderConfig, VendorAnswer, VendorHandler, VendorRequest,
};
use spdm::session::{self, Session};
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};
use tdispd::config::Pci;

/// The identity of [`tdispd`]'s default device on P-256; made once in a process.
pub(super) fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        let pci = Pci::default();
        let name = PciName {
            vendor: pci.vendor,
            device: pci.device,
            class: pci.class,
            revision: pci.revision,
            subsystem_vendor: pci.subsystem_vendor,
            subsystem: pci.subsystem,
            serial: Some(pci.serial),
        };
        generate(&name, AsymAlgorithm::EcdsaP256).unwrap()
    })
}

/// Notes the session of every vendor-defined request and sends the payload back; `silent` gets no answer.
#[derive(Default)]
pub(super) struct Echo {
    pub(super) sessions: Vec<Option<SessionId>>,
    pub(super) silent: bool,
}

impl VendorHandler for Echo {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        self.sessions.push(request.session);
        if request.payload == b"silent" {
            self.silent = true;
            return VendorAnswer::Silent;
        }
        response.extend_from_slice(request.payload);
        VendorAnswer::Respond
    }
}

/// What both sides share.
fn psks() -> Vec<PreSharedKey> {
    vec![PreSharedKey::new(b"hint".to_vec(), b"secret".to_vec())]
}

/// The version that the first byte of an input stands for, with bits 0 and 4: corpora began with the first two.
pub(super) const fn version(options: u8) -> Version {
    match options & 0x11 {
        0 => Version::V1_2,
        1 => Version::V1_3,
        _ => Version::V1_4,
    }
}

/// A responder that has just been reset.
pub(super) fn responder(version: Version, handshake_in_the_clear: bool) -> Responder {
    let measurement = |index, kind, value| Measurement { index, kind, tcb: true, value };
    let config = ResponderConfig {
        versions: vec![version],
        hashes: vec![HashAlgorithm::Sha256],
        groups: vec![DheGroup::P256],
        aeads: vec![Aead::Aes128Gcm],
        measurement_hashes: vec![HashAlgorithm::Sha256],
        measurements: vec![
            measurement(1, 0, MeasurementValue::Digest(vec![0x11; 32])),
            measurement(2, 1, MeasurementValue::Raw(b"firmware".to_vec())),
            measurement(0xFE, 5, MeasurementValue::RawOnly(b"mode".to_vec())),
        ],
        heartbeat_period: 5,
        psks: psks(),
        ..ResponderConfig::default()
    };
    // With context: a pre-shared key alone makes no session of a message that anyone may have sent before.
    let psk = PskSupport::WithContext;
    let provisioning = Provisioning {
        set_certificate: true,
        csr: true,
        slot_management: true,
        trusted_environment: true,
        key_pair_info: true,
        set_key_pair_info: true,
        multiple_keys: MultipleKeys::Negotiated,
        ..Provisioning::default()
    };
    let capabilities = Capability {
        handshake_in_the_clear,
        psk,
        events: true,
        measurement_log: true,
        endpoint_info: EndpointInfoSupport::Signed,
        provisioning,
        ..config.capabilities
    };
    let config = ResponderConfig { capabilities, ..config };
    Responder::new(config, Slots::single(material().slot()), Box::new(RingProvider::new())).unwrap()
}

/// A requester for [`responder`].
pub(super) fn requester(handshake_in_the_clear: bool) -> Requester {
    let config = RequesterConfig {
        handshake_in_the_clear,
        psks: psks(),
        encapsulated: true,
        retries: 3,
        ..RequesterConfig::default()
    };
    Requester::new(config, Box::new(RingProvider::new())).unwrap()
}

/// Straight to the responder.
struct Direct<'a>(&'a mut Responder);

impl Transport for Direct<'_> {
    type Error = Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Infallible> {
        let (secured, bytes) = ask(self.0, Duration::ZERO, secured, message, &mut Echo::default()).unwrap();
        Ok(Response { secured, bytes })
    }

    fn wait(&mut self, _delay: Duration) {
        panic!("our responder has nothing to wait for");
    }
}

/// One message to the responder; what it answers, and whether as a record.
pub(super) fn ask(
    responder: &mut Responder,
    now: Duration,
    secured: bool,
    message: &[u8],
    vendor: &mut Echo,
) -> Option<(bool, Vec<u8>)> {
    let mut response = vec![0xA5; 5];
    let answer = match secured {
        true => responder.handle_secured(now, message, vendor, &mut response),
        false => responder.handle_clear(now, message, vendor, &mut response),
    };
    (answer == Answer::Respond).then_some((secured, response))
}

/// Negotiates and opens a session over `transport`; the requester is left in it.
pub(super) fn open<T: Transport>(requester: &mut Requester, transport: T) -> SavedSession
where
    T::Error: core::fmt::Debug,
{
    let mut driver = Driver::new(requester, transport);
    driver.connect().unwrap();
    driver.digests().unwrap();
    driver.certificate(0).unwrap();
    driver.start_session(0, SummaryType::None, false).unwrap();
    requester.save().unwrap()
}

/// A responder with a session, and the requester in it.
pub(super) fn in_session(version: Version) -> (Responder, Requester, SavedSession) {
    let mut responder = responder(version, false);
    let mut requester = requester(false);
    let saved = open(&mut requester, Direct(&mut responder));
    while responder.poll_event().is_some() {}
    (responder, requester, saved)
}

/// The requester's end of a saved session, which seals whatever it is given.
pub(super) fn requesters_end(saved: &SavedSession) -> Session {
    let value = serde_json::to_value(saved).unwrap()["session"].clone();
    let saved: session::SavedSession = serde_json::from_value(value).unwrap();
    Session::restore(&RingProvider::new(), &saved).unwrap()
}

/// The responder's end of it.
pub(super) fn responders_end(saved: &SavedSession) -> Session {
    let mut value = serde_json::to_value(saved).unwrap()["session"].clone();
    value["parameters"]["role"] = "Responder".into();
    for (ours, theirs) in [("outbound", "inbound"), ("outbound_sequence", "inbound_sequence")] {
        let swapped = value[ours].take();
        value[ours] = value[theirs].take();
        value[theirs] = swapped;
    }
    let saved: session::SavedSession = serde_json::from_value(value).unwrap();
    Session::restore(&RingProvider::new(), &saved).unwrap()
}
