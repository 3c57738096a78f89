//! The requester between a hostile responder, a hostile network and a hostile session file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]
#![allow(clippy::wildcard_enum_match_arm, reason = "only some replies matter to a check")]

use std::time::Duration;

use spdm::requester::{
    Command, CsrQuery, Driver, MeasurementQuery, Reply, Requester, Response, SlotCommand, Step, Transport,
    UpdateKeys,
};
use spdm::responder::Responder;
use spdm::session::Session;
use spdm::wire::{
    Code, DMTF_EVENT_GROUP_VERSION, EventGroup, EventGroupId, MeasurementOperation, SlotAddress, SummaryType,
    Version,
};
use tdispctl::session_file::Saved;

use super::peer::{Echo, ask, in_session, requester, responder, responders_end, version};
use super::script::Script;

/// Larger than any message the requester takes.
const MOST: usize = 6000;

fn commands() -> [Command; 20] {
    let address = SlotAddress { bank: 0, slot: 0 };
    let measure =
        |operation, signed_by| Command::Measurements(MeasurementQuery { operation, raw: false, signed_by });
    [
        Command::Connect,
        Command::Digests,
        Command::Certificate { slot: 0 },
        Command::Challenge { slot: 0, summary: SummaryType::All },
        measure(MeasurementOperation::All, Some(0)),
        Command::StartSession { slot: 0, summary: SummaryType::Tcb, end_on_update: true },
        Command::Heartbeat,
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: vec![0; 9] },
        measure(MeasurementOperation::One(1), None),
        Command::EndSession { clear_negotiated_state: false },
        Command::StartPskSession { hint: Vec::new(), summary: SummaryType::All, end_on_update: false },
        Command::EventTypes,
        Command::Subscribe { groups: vec![all_events()] },
        Command::Serve,
        Command::Slots(SlotCommand::SubCodes),
        Command::Slots(SlotCommand::Banks),
        Command::Slots(SlotCommand::Bank { bank: 0 }),
        Command::Slots(SlotCommand::Certificate { address }),
        Command::Slots(SlotCommand::Csr { bank: 0, query: CsrQuery::default() }),
    ]
}

fn all_events() -> EventGroup {
    EventGroup { id: EventGroupId::DMTF, version: DMTF_EVENT_GROUP_VERSION, all: true, types: Vec::new() }
}

/// What a script says, whatever is asked. Without a session the bytes go out as they are.
struct Hostile<'s, 'b> {
    script: &'s mut Script<'b>,
    seal: Option<Session>,
}

impl Transport for Hostile<'_, '_> {
    type Error = ();

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, ()> {
        let how = self.script.event().ok_or(())?;
        let mut bytes = self.script.sized(MOST).to_vec();
        if how & 1 == 1
            && let Some(code) = bytes.get_mut(1)
        {
            // Answers what was asked, for inputs that do not know it.
            *code = message.get(1).map_or(0, |code| code & 0x7F);
        }
        if let Some(session) = &mut self.seal {
            let mut request = Vec::new();
            if how & 2 == 0 && secured && session.open(message, &mut request).is_ok() {
                let mut record = Vec::new();
                session.seal(&bytes, &mut record).map_err(drop)?;
                bytes = record;
            }
        }
        Ok(Response { secured: secured ^ (how & 4 != 0), bytes })
    }

    fn wait(&mut self, delay: Duration) {
        assert!(delay <= Duration::from_secs(10), "told to wait for {delay:?}");
    }
}

/// Responses that nobody signed: no peer is authenticated by them and no session comes of them. Inside a session, where they
/// are sealed by its true keys, nothing panics and the peer still signs nothing.
pub fn spdm_requester(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (mut requester, seal) = match script.byte() % 4 {
        0 => (requester(false), None),
        n => {
            let version = match n {
                1 => Version::V1_2,
                2 => Version::V1_3,
                _ => Version::V1_4,
            };
            let (_, requester, saved) = in_session(version);
            (requester, Some(responders_end(&saved)))
        }
    };
    let inside = seal.is_some();
    let skip = if inside { usize::from(script.byte()) % commands().len() } else { 0 };
    let mut driver = Driver::new(&mut requester, Hostile { script: &mut script, seal });
    for command in commands().into_iter().skip(skip) {
        match driver.run(command) {
            Ok(Reply::Challenged(_)) => panic_with("a challenge was answered without the key"),
            Ok(Reply::SessionStarted(_)) => panic_with("a session with nobody"),
            Ok(Reply::Measurements(report)) => {
                assert!(report.signed.is_none(), "measurements signed by nobody")
            }
            Ok(_) | Err(_) => {}
        }
        assert!(inside || driver.requester().session().is_none(), "half a session is none");
    }
}

#[allow(clippy::panic, reason = "what fails here is the test")]
fn panic_with(what: &str) -> ! {
    panic!("{what}")
}

/// What passes between an honest requester and an honest responder, some of it altered.
struct Middle<'s, 'b> {
    script: &'s mut Script<'b>,
    responder: Responder,
    /// Codes of this command's requests whose exchange was altered and did not end with an ERROR.
    altered: Vec<Code>,
    /// Whether anything protected was altered since the command began.
    secured: bool,
}

impl Middle<'_, '_> {
    /// Alters bytes as the script wants it; true if their meaning may be another one now.
    fn alter(&mut self, bytes: &mut Vec<u8>) -> bool {
        let before = bytes.clone();
        match self.script.byte() % 8 {
            0..=2 => {}
            3 | 4 => {
                let (at, mask) = (usize::from(self.script.u16()), self.script.byte());
                let at = at % bytes.len().max(1);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
            }
            5 => bytes.truncate(usize::from(self.script.u16())),
            6 => bytes.extend_from_slice(self.script.sized(64)),
            _ => *bytes = self.script.sized(MOST).to_vec(),
        }
        // What follows a message is padding.
        !bytes.starts_with(&before)
    }
}

impl Transport for Middle<'_, '_> {
    type Error = ();

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, ()> {
        let mut request = message.to_vec();
        let mut altered = self.alter(&mut request);
        let answer = ask(&mut self.responder, Duration::ZERO, secured, &request, &mut Echo::default());
        while self.responder.poll_event().is_some() {}
        let (as_record, mut response) = answer.ok_or(())?;
        altered |= self.alter(&mut response);
        let refused = !secured && response.get(1) == Some(&Code::ERROR.0);
        if altered && !refused {
            self.secured |= secured;
            self.altered.extend(message.get(1).filter(|_| !secured).map(|code| Code(*code)));
        }
        Ok(Response { secured: as_record, bytes: response })
    }

    fn wait(&mut self, _delay: Duration) {}
}

/// Somebody in the middle: what was altered on the way is never what the two agree on. A session, a challenge and a signature
/// vouch for every byte of the negotiation and of their own exchange.
pub fn spdm_man_in_the_middle(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let options = script.byte();
    let version = version(options);
    let clear = options & 2 != 0;
    let middle = Middle {
        responder: responder(version, clear),
        script: &mut script,
        altered: Vec::new(),
        secured: false,
    };
    let mut requester = requester(clear);
    let mut driver = Driver::new(&mut requester, middle);
    let negotiation = [Code::GET_VERSION, Code::GET_CAPABILITIES, Code::NEGOTIATE_ALGORITHMS];
    // What the requester refused is no part of anything; what it took, altered or not, is what it goes on with.
    let mut taken = Vec::new();
    for command in commands() {
        driver.transport().secured = false;
        let reply = driver.run(command.clone());
        let middle = driver.transport();
        let altered = std::mem::take(&mut middle.altered);
        if reply.is_ok() {
            taken.extend(altered);
        }
        let altered = |codes: &[Code]| {
            taken.iter().find(|code| negotiation.contains(code) || codes.contains(code)).copied()
        };
        let vouched = match &reply {
            Ok(Reply::Challenged(_)) => altered(&[Code::GET_DIGESTS, Code::GET_CERTIFICATE, Code::CHALLENGE]),
            Ok(Reply::SessionStarted(_)) => {
                altered(&[Code::KEY_EXCHANGE, Code::FINISH, Code::PSK_EXCHANGE, Code::PSK_FINISH])
            }
            Ok(Reply::Measurements(report)) if report.signed.is_some() => altered(&[Code::GET_MEASUREMENTS]),
            _ => None,
        };
        assert_eq!(vouched, None, "{command:?} vouches for what was altered");
        assert!(!middle.secured || reply.is_err(), "{command:?} took an altered record");
    }
}

/// A session file: one that can be taken up is the same when it is put down, and every command of it can be started.
pub fn session_file(bytes: &[u8]) {
    let Ok(saved) = serde_json::from_slice::<Saved>(bytes) else { return };
    let mut requester = requester(false);
    if requester.restore(&saved.session).is_err() {
        assert!(requester.session().is_none() && requester.connection().is_none());
        return;
    }
    assert_eq!(requester.session().map(|session| session.id), Some(saved.session.id()));
    let again = requester.save().unwrap();
    // Digests longer than any are cut, and peers are listed once each and in order; the secrets must be what they were.
    let json = |session| serde_json::to_value(session).unwrap()["session"].clone();
    assert_eq!(json(&again), json(&saved.session));
    for command in commands().into_iter().skip(3) {
        if let Ok(Step::Send { secured, bytes }) = requester.begin(command) {
            assert!(!secured || bytes.first_chunk() == Some(&saved.session.id().to_le_bytes()));
            let _ = requester.receive(secured, &bytes);
        }
        requester.cancel();
    }
}

/// The saved session of a real one, for seeds.
pub(super) fn a_session(version: Version) -> Saved {
    let (_, _, session): (Responder, Requester, _) = in_session(version);
    let binding = tdispctl::session_file::Binding {
        stream_id: 5,
        stream_index: Some(0),
        function_id: 0x0100,
        mmio_offset: 0,
        nonce: None,
        second_set: false,
    };
    Saved { target: "seed".into(), session, binding }
}
