//! Requests against the SPDM responder, in the clear and inside a session.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use std::time::Duration;

use spdm::codec::Reader;
use spdm::crypto::RingProvider;
use spdm::responder::{Event, Responder};
use spdm::session::Session;
use spdm::wire::{Code, KeyOperation, KeyUpdate};

use super::peer::{Echo, ask, in_session, requesters_end, responder, version};
use super::script::Script;

/// Larger than any message the responder takes.
const MOST: usize = 5000;
/// Larger than any message it sends.
const MOST_SENT: usize = 65_535;

/// A response answers its request: that request's response code, or ERROR.
fn check_response(request: &[u8], response: &[u8]) {
    assert!((4..=MOST_SENT).contains(&response.len()), "{response:02x?}");
    assert_eq!(response[0] >> 4, 1, "SPDM 1.x");
    let code = request.get(1).map_or(0, |code| code & 0x7F);
    assert!(response[1] == code || response[1] == Code::ERROR.0, "{:#04x} answers {code:#04x}", response[1]);
}

/// Clear messages, records and time, in any order: every message is answered as its kind wants it, and no session comes of
/// what is not authenticated.
pub fn spdm_responder_clear(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let options = script.byte();
    let mut responder = responder(version(options), options & 2 != 0);
    let mut now = Duration::ZERO;
    while let Some(event) = script.event() {
        let mut vendor = Echo::default();
        match event % 8 {
            0 => now += Duration::from_millis(script.u16().into()),
            1 => responder.tick(now),
            2 => {
                let record = script.sized(MOST);
                assert_eq!(
                    ask(&mut responder, now, true, record, &mut vendor),
                    None,
                    "a record of no session"
                );
            }
            _ => {
                let request = script.sized(MOST);
                let answer = ask(&mut responder, now, false, request, &mut vendor);
                assert_eq!(answer.is_some(), request.len() >= 4 && !vendor.silent);
                if let Some((secured, response)) = answer {
                    assert!(!secured);
                    check_response(request, &response);
                }
            }
        }
        assert!(vendor.sessions.iter().all(Option::is_none), "a clear request in a session");
        while let Some(event) = responder.poll_event() {
            assert!(!matches!(event, Event::SessionEstablished { .. }), "{event:?} of clear messages");
        }
    }
}

/// A session from its requester's end.
struct Client {
    responder: Responder,
    session: Session,
    now: Duration,
    alive: bool,
    /// The KEY_UPDATE that is not verified yet, and whether requests use the new key.
    update: Option<(KeyOperation, bool)>,
    vendor: Echo,
}

impl Client {
    fn events(&mut self) {
        while let Some(event) = self.responder.poll_event() {
            match event {
                Event::SessionEnded { id, .. } if id == self.session.id() => {
                    assert!(self.alive, "ended twice");
                    self.alive = false;
                }
                Event::SessionEnded { .. } => {}
                Event::SessionEstablished { .. }
                | Event::RequesterAuthenticated { .. }
                | Event::RequesterDescribed { .. } => {
                    panic!("a session or requester of nowhere")
                }
                Event::SlotChanged { slot } => assert!(slot < 8),
                Event::KeyPairChanged { .. } => panic!("a key pair was changed that cannot be"),
            }
        }
    }

    fn ask(&mut self, secured: bool, message: &[u8]) -> Option<Vec<u8>> {
        self.vendor = Echo::default();
        let answer = ask(&mut self.responder, self.now, secured, message, &mut self.vendor);
        assert!(answer.iter().all(|(as_record, _)| *as_record == secured));
        answer.map(|(_, bytes)| bytes)
    }

    /// One message in the session: answered in the session, until the session is over.
    fn request(&mut self, message: &[u8]) {
        let operation = KeyUpdate::parse(&mut Reader::new(message)).ok().map(|update| update.operation);
        let provider = RingProvider::new();
        let renews_both = operation == Some(KeyOperation::UpdateAllKeys) && self.update.is_none();
        if renews_both {
            self.session.update_inbound(&provider).unwrap();
        }
        let mut record = Vec::new();
        self.session.seal(message, &mut record).unwrap();
        self.responder.tick(self.now);
        self.events();
        let alive = self.alive;
        let answer = self.ask(true, &record);
        assert!(self.vendor.sessions.iter().all(|session| *session == Some(self.session.id())));
        assert_eq!(answer.is_some(), alive && !self.vendor.silent);
        let Some(response) = answer else { return self.events() };
        let mut plain = Vec::new();
        self.session.open(&response, &mut plain).unwrap();
        check_response(message, &plain);
        self.events();
        let acknowledged = plain[1] == Code::KEY_UPDATE_ACK.0;
        match (acknowledged, operation) {
            (true, Some(KeyOperation::VerifyNewKey)) => {
                assert!(matches!(self.update, Some((_, true))), "verified a key that was not used");
                self.update = None;
            }
            (true, Some(operation)) if self.update.is_none() => {
                if renews_both {
                    assert!(self.session.inbound_used(), "the acknowledgement came under the old key");
                    self.session.confirm_inbound();
                }
                self.update = Some((operation, false));
            }
            (true, Some(_)) => {}
            (true, None) => panic!("acknowledged what is no KEY_UPDATE"),
            (false, _) if renews_both => self.session.revert_inbound(),
            (false, _) => {}
        }
        if plain[1] == Code::END_SESSION_ACK.0 {
            assert!(!self.alive, "END_SESSION left the session");
        }
    }

    /// A record that the session did not make: answered with an end at most, and never acted upon.
    fn forged(&mut self, record: &[u8]) {
        let alive = self.alive;
        let meant = record.first_chunk() == Some(&self.session.id().to_le_bytes());
        let answer = self.ask(true, record);
        assert!(self.vendor.sessions.is_empty(), "a forged record was obeyed");
        assert_eq!(answer.is_some(), alive && meant);
        self.events();
        assert_eq!(self.alive, alive && !meant, "a forged record ends its session, and only that");
    }
}

/// Plain text sealed into records of a real session, forged records, clear messages and time, in any order.
pub fn spdm_responder_in_session(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let version = version(script.byte());
    let (responder, _, saved) = in_session(version);
    let mut client = Client {
        responder,
        session: requesters_end(&saved),
        now: Duration::ZERO,
        alive: true,
        update: None,
        vendor: Echo::default(),
    };
    while let Some(event) = script.event() {
        match event % 8 {
            0 => {
                client.now += Duration::from_millis(script.u16().into());
                client.responder.tick(client.now);
                client.events();
            }
            1 => {
                let mut record = client.session.id().to_le_bytes().to_vec();
                record.extend_from_slice(script.sized(MOST));
                client.responder.tick(client.now);
                client.events();
                client.forged(&record);
            }
            2 => {
                let request = script.sized(MOST);
                if let Some(response) = client.ask(false, request) {
                    check_response(request, &response);
                }
                assert!(client.vendor.sessions.iter().all(Option::is_none));
                client.events();
            }
            3 => {
                let code = Code::KEY_UPDATE.0;
                client.request(&[version.0, code, 1 + script.byte() % 3, script.byte() & 1]);
            }
            4 => {
                if let Some((_, used @ false)) = &mut client.update {
                    *used = true;
                    client.session.update_outbound(&RingProvider::new()).unwrap();
                }
            }
            _ => client.request(script.sized(MOST)),
        }
    }
}
