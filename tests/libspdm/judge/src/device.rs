//! Our responder behind DOE objects.

use std::time::{Duration, Instant};

use spdm::SessionId;
use spdm::crypto::{HashAlgorithm, Provider, RingProvider};
use spdm::doe::{Object, ObjectType};
use spdm::responder::{
    Answer, Capability, Event, Measurement, MeasurementValue, Responder, ResponderConfig, VendorAnswer,
    VendorHandler, VendorRequest,
};
use spdm::slot::Slots;

use crate::{Case, hex};

/// Reverses payloads.
struct Reverse;

impl VendorHandler for Reverse {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend(request.payload.iter().rev());
        VendorAnswer::Respond
    }
}

/// A responder that offers what the case says, with one measurement of every kind.
pub fn responder_config(case: &Case) -> ResponderConfig {
    let first = match case.measurement_hash {
        Some(hash) => MeasurementValue::Digest(vec![0x11; hash.size()]),
        None => MeasurementValue::Raw(vec![0x11; 16]),
    };
    let defaults = ResponderConfig::default();
    let measurement = |index, kind, tcb, value| Measurement { index, kind, tcb, value };
    ResponderConfig {
        versions: vec![case.version],
        hashes: vec![case.hash],
        asym: vec![case.asym],
        groups: vec![case.group],
        aeads: vec![case.aead],
        measurement_hashes: case.measurement_hash.into_iter().collect::<Vec<HashAlgorithm>>(),
        capabilities: Capability {
            encrypt: case.encrypt,
            handshake_in_the_clear: case.clear,
            ..defaults.capabilities
        },
        heartbeat_period: 10,
        measurements: vec![
            measurement(1, 0, true, first),
            measurement(2, 1, true, MeasurementValue::Raw(b"firmware image".to_vec())),
            measurement(4, 3, false, MeasurementValue::Raw(b"configuration".to_vec())),
            measurement(16, 7, true, MeasurementValue::RawOnly(5_u64.to_le_bytes().to_vec())),
            measurement(0xFD, 4, false, MeasurementValue::RawOnly(b"a manifest".to_vec())),
            measurement(0xFE, 5, false, MeasurementValue::RawOnly(vec![0x3F, 0, 0, 0, 1, 0, 0, 0])),
        ],
        ..defaults
    }
}

/// Our responder, fed with DOE objects.
pub struct Device {
    responder: Responder,
    /// Where time passes for the responder, since when.
    clock: Option<Instant>,
    log: Vec<String>,
    /// Sessions and slots of requesters that have proved who they are, oldest first.
    pub authenticated: Vec<(Option<SessionId>, u8)>,
}

impl Device {
    /// One with a single chain, of the case's algorithm.
    pub fn new(case: &Case) -> Self {
        Self::with(responder_config(case), Slots::single(crate::material(case.asym).slot()))
    }

    /// One of these settings.
    pub fn with(config: ResponderConfig, slots: Slots) -> Self {
        Self::by(Box::new(RingProvider::new()), config, slots)
    }

    /// One of these settings, with cryptography by this provider.
    pub fn by(provider: Box<dyn Provider>, config: ResponderConfig, slots: Slots) -> Self {
        Self {
            responder: Responder::new(config, slots, provider).unwrap(),
            clock: None,
            log: Vec::new(),
            authenticated: Vec::new(),
        }
    }

    /// The same, for whom time passes as it does.
    pub fn timed(self) -> Self {
        Self { clock: Some(Instant::now()), ..self }
    }

    /// One SPDM object in, the answer out, if there is one.
    pub fn object(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let object = Object::parse(request).expect("a DOE object");
        self.log.push(format!("> {:?} {}", object.kind, hex(object.payload)));
        let mut response = Vec::new();
        let now = self.clock.map_or(Duration::ZERO, |since| since.elapsed());
        let answer = if object.kind == ObjectType::SECURED_SPDM {
            self.responder.handle_secured(now, object.payload, &mut Reverse, &mut response)
        } else {
            assert_eq!(object.kind, ObjectType::SPDM);
            self.responder.handle_clear(now, object.payload, &mut Reverse, &mut response)
        };
        while let Some(event) = self.responder.poll_event() {
            if let Event::RequesterAuthenticated { session, slot } = event {
                self.authenticated.push((session, slot));
            }
        }
        if answer == Answer::Silent {
            self.log.push("< silence".into());
            return None;
        }
        self.log.push(format!("< {}", hex(&response)));
        let mut out = Vec::new();
        Object { vendor: 1, kind: object.kind, payload: &response }.encode(&mut out).unwrap();
        Some(out)
    }

    /// The responder wants a new key for what it sends in this session.
    pub fn renew_key(&mut self, session: SessionId) {
        assert!(self.responder.renew_key(session));
    }

    /// The responder itself, for what its owner does.
    pub fn responder(&mut self) -> &mut Responder {
        &mut self.responder
    }

    /// The last few objects, for a failure's message.
    pub fn recent(&self) -> String {
        self.log[self.log.len().saturating_sub(8)..].join("\n")
    }
}
