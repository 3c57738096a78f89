//! The two roles in one process, with time that a test moves.

use std::sync::OnceLock;
use std::time::Duration;

use spdm::SessionId;
use spdm::crypto::{AsymAlgorithm, Provider, RingProvider};
use spdm::identity::{Material, PciName, generate};
use spdm::requester::{
    Command, Driver, DriverError, Reply, Requester, RequesterConfig, RequesterError, Response, Transport,
};
use spdm::responder::{
    Answer, Event, Measurement, MeasurementValue, Responder, ResponderConfig, VendorAnswer, VendorHandler,
    VendorRequest,
};
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};

pub(super) const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};

/// Versions that have sessions.
pub(super) const VERSIONS: [Version; 4] = [Version::V1_1, Version::V1_2, Version::V1_3, Version::V1_4];

pub(super) fn slots() -> Slots {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    Slots::single(MATERIAL.get_or_init(|| generate(&NAME, AsymAlgorithm::EcdsaP256).unwrap()).slot())
}

/// Sends back the session's id and the payload.
struct Echo;

impl VendorHandler for Echo {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend_from_slice(&request.session.unwrap_or(0).to_le_bytes());
        response.extend_from_slice(request.payload);
        VendorAnswer::Respond
    }
}

/// The responder's end, and the way to it.
pub(super) struct Device {
    pub(super) responder: Responder,
    pub(super) now: Duration,
}

impl Device {
    /// The answer to one message, and whether it is a record as the message was; `None` for silence.
    pub(super) fn ask(&mut self, secured: bool, message: &[u8]) -> Option<(bool, Vec<u8>)> {
        let mut bytes = Vec::new();
        let answer = match secured {
            true => self.responder.handle_secured(self.now, message, &mut Echo, &mut bytes),
            false => self.responder.handle_clear(self.now, message, &mut Echo, &mut bytes),
        };
        (answer == Answer::Respond).then_some((secured, bytes))
    }
}

impl Transport for &mut Device {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let (secured, bytes) = self.ask(secured, message).ok_or("silence")?;
        Ok(Response { secured, bytes })
    }

    fn wait(&mut self, delay: Duration) {
        self.now += delay;
    }
}

/// Both ends.
pub(super) struct Pair {
    pub(super) requester: Requester,
    pub(super) device: Device,
}

pub(super) type Failure = DriverError<&'static str>;

pub(super) fn responder_config(version: Version) -> ResponderConfig {
    let measurement = |index, value| Measurement { index, kind: 1, tcb: true, value };
    ResponderConfig {
        versions: vec![version],
        measurements: vec![
            measurement(1, MeasurementValue::RawOnly(b"one".to_vec())),
            measurement(2, MeasurementValue::Raw(b"two".to_vec())),
        ],
        heartbeat_period: 5,
        ..ResponderConfig::default()
    }
}

pub(super) fn requester_config(version: Version) -> RequesterConfig {
    RequesterConfig { versions: vec![version], ..RequesterConfig::default() }
}

impl Pair {
    pub(super) fn with(responder: ResponderConfig, slots: Slots, requester: RequesterConfig) -> Self {
        Self::by(|| Box::new(RingProvider::new()), responder, slots, requester)
    }

    /// With cryptography by this provider at both ends.
    pub(super) fn by(
        provider: fn() -> Box<dyn Provider>,
        responder: ResponderConfig,
        slots: Slots,
        requester: RequesterConfig,
    ) -> Self {
        let responder = Responder::new(responder, slots, provider()).unwrap();
        let requester = Requester::new(requester, provider()).unwrap();
        Self { requester, device: Device { responder, now: Duration::ZERO } }
    }

    /// Connected, with the certificate chain of slot 0.
    pub(super) fn identified(version: Version) -> Self {
        let mut pair = Self::with(responder_config(version), slots(), requester_config(version));
        pair.run(Command::Connect).unwrap();
        pair.run(Command::Certificate { slot: 0 }).unwrap();
        pair
    }

    pub(super) fn run(&mut self, command: Command) -> Result<Reply, Failure> {
        Driver::new(&mut self.requester, &mut self.device).run(command)
    }

    /// As [`Self::run`], for commands that the requester itself fails.
    pub(super) fn fail(&mut self, command: Command) -> RequesterError {
        let result = self.run(command);
        let Err(DriverError::Requester(error)) = result else { panic!("{result:?}") };
        error
    }

    /// KEY_EXCHANGE, beside the sessions there are.
    pub(super) fn start(&mut self) -> SessionId {
        self.requester.select(None).unwrap();
        self.started(Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false })
    }

    /// As [`Self::start`], whatever else the responder tells.
    pub(super) fn start_any(&mut self) -> SessionId {
        self.requester.select(None).unwrap();
        let command = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
        let Reply::SessionStarted(info) = self.run(command).unwrap() else { panic!() };
        self.events();
        info.id
    }

    /// A command that starts a session.
    pub(super) fn started(&mut self, command: Command) -> SessionId {
        let reply = self.run(command).unwrap();
        let Reply::SessionStarted(info) = reply else { panic!("{reply:?}") };
        assert_eq!(self.events().last(), Some(&Event::SessionEstablished { id: info.id }));
        info.id
    }

    /// What the responder told since it was asked last.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.device.responder.poll_event()).collect()
    }

    /// A vendor-defined exchange where commands travel now; the session that the responder saw it in.
    pub(super) fn seen_in(&mut self) -> Option<SessionId> {
        let payload = b"payload".to_vec();
        let command = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload };
        let Reply::Vendor(reply) = self.run(command).unwrap() else { panic!() };
        let (id, payload) = reply.split_first_chunk().unwrap();
        assert_eq!(payload, b"payload");
        Some(u32::from_le_bytes(*id)).filter(|id| *id != 0)
    }

    /// Everything that steers a session, in `id`.
    pub(super) fn exercise(&mut self, id: SessionId) {
        use spdm::requester::UpdateKeys::{Both, Requests};
        self.requester.select(Some(id)).unwrap();
        for keys in [Requests, Both, Both, Requests] {
            self.run(Command::Heartbeat).unwrap();
            self.run(Command::UpdateKeys(keys)).unwrap();
            assert_eq!(self.seen_in(), Some(id));
        }
    }
}
