//! Sessions from pre-shared keys, with libspdm in either role.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{
    Case, Device, Peer, REQUESTER_FLAGS, RESPONDER_FLAGS, Reference, Tally, cases, material,
    responder_config, with_psk,
};
use spdm::crypto::{HashAlgorithm, RingProvider};
use spdm::psk::PreSharedKey;
use spdm::requester::{Command, Driver, MeasurementQuery, Reply, Requester, RequesterConfig, UpdateKeys};
use spdm::responder::{MeasurementSupport, PskSupport, ResponderConfig};
use spdm::slot::Slots;
use spdm::wire::{MeasurementOperation, SummaryType};

/// The key of libspdm's samples, by name or by default; the C strings' ends belong to both.
const HINT: &[u8] = b"TestPskHint\0";
/// PSK_CAP.
const PSK: u32 = 1 << 10;

fn keys() -> Vec<PreSharedKey> {
    vec![PreSharedKey::new(HINT.to_vec(), b"TestPskData\0".to_vec())]
}

/// Every version with sessions, hash and suite, encrypted and not.
fn psk_cases() -> Vec<Case> {
    let mut chosen = Vec::new();
    for case in cases() {
        let key = |case: &Case| (case.version, case.hash, case.aead, case.encrypt);
        let plain = case.has_sessions() && !case.clear && case.secured == 0;
        if plain
            && case.measurement_hash == Some(case.hash)
            && chosen.iter().all(|other| key(other) != key(&case))
        {
            chosen.push(case);
        }
    }
    chosen
}

fn requester(case: &Case) -> Requester {
    let config = RequesterConfig { versions: vec![case.version], psks: keys(), ..RequesterConfig::default() };
    Requester::new(config, Box::new(RingProvider::new())).unwrap()
}

/// With certificates beside the key, or without.
fn responder(case: &Case, support: PskSupport, certificates: bool) -> Device {
    let mut config = ResponderConfig { psks: keys(), ..responder_config(case) };
    config.capabilities.psk = support;
    if certificates {
        return Device::with(config, Slots::single(material(case.asym).slot()));
    }
    config.capabilities.challenge = false;
    config.capabilities.key_exchange = false;
    config.capabilities.measurements = MeasurementSupport::Unsigned;
    Device::with(config, Slots::default())
}

fn exercise(reference: &mut Reference, id: u32) {
    reference.heartbeat(id);
    for single in [true, false, false, true] {
        reference.key_update(id, single);
        assert_eq!(reference.vendor(Some(id), b"abc"), b"cba");
    }
    assert_eq!(reference.measurements(Some(id), 0, 0xFF, 0).blocks, 6);
}

/// libspdm's requester, our responder.
fn served(case: &Case, support: PskSupport, certificates: bool) {
    let mut config = case.reference(false);
    config.flags = REQUESTER_FLAGS | PSK;
    if !case.encrypt {
        config.flags &= !(1 << 6);
    }
    let root = material(case.asym).certificates()[0].clone();
    let mut reference = Reference::new(&config, responder(case, support, certificates), &root);
    for _ in 0..2 {
        reference.connect();
        let (one, heartbeat, _) = reference.start_psk_session(HINT, 0, 0);
        assert_eq!(heartbeat, 10);
        exercise(&mut reference, one);
        let (two, _, tcb) = reference.start_psk_session(&[], 1, 1);
        let (three, _, all) = reference.start_psk_session(HINT, 0xFF, 0);
        assert!(tcb != [0; 64] && all != [0; 64] && tcb != all);
        let mut ids = vec![one, two, three];
        if certificates {
            reference.digests(None);
            reference.certificate(None, 0);
            let (four, _, summary) = reference.start_session(0, 1, 0);
            assert_eq!(summary, tcb);
            ids.push(four);
        }
        for id in &ids {
            exercise(&mut reference, *id);
        }
        reference.stop_session(two, 0);
        let (five, ..) = reference.start_psk_session(HINT, 0, 0);
        for id in [one, five, three] {
            exercise(&mut reference, id);
        }
    }
}

#[test]
fn psk_responder() {
    let mut tally = Tally::new("responder", "psk");
    for case in psk_cases() {
        for support in [PskSupport::WithoutContext, PskSupport::WithContext] {
            for certificates in [true, false] {
                let what = format!("{support:?} {certificates}");
                tally.check(&case, &what, || with_psk(|| served(&case, support, certificates)));
            }
        }
    }
    tally.finish();
}

struct Run<'r> {
    requester: &'r mut Requester,
    peer: &'r mut Peer,
}

impl Run<'_> {
    fn run(&mut self, command: Command) -> Reply {
        let result = Driver::new(self.requester, &mut *self.peer).run(command.clone());
        result.unwrap_or_else(|error| panic!("{command:?}: {error:?}\n{}", self.peer.recent()))
    }

    fn start(&mut self, hint: &[u8], summary: SummaryType) -> (u32, Option<Vec<u8>>) {
        self.requester.select(None).unwrap();
        let reply = self.run(Command::StartPskSession { hint: hint.to_vec(), summary, end_on_update: false });
        let Reply::SessionStarted(info) = reply else { panic!("{reply:?}") };
        assert_eq!(info.heartbeat_period, 10);
        (info.id, info.summary)
    }

    fn exercise(&mut self, id: u32) {
        self.requester.select(Some(id)).unwrap();
        self.run(Command::Heartbeat);
        for keys in [UpdateKeys::Requests, UpdateKeys::Both, UpdateKeys::Both, UpdateKeys::Requests] {
            self.run(Command::UpdateKeys(keys));
            let vendor = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: vec![1, 2, 3] };
            assert_eq!(self.run(vendor), Reply::Vendor(vec![3, 2, 1]));
        }
        let operation = MeasurementOperation::All;
        self.run(Command::Measurements(MeasurementQuery { operation, raw: false, signed_by: None }));
    }
}

/// Our requester, libspdm's responder.
fn asked(case: &Case, with_context: bool, certificates: bool) {
    let mut config = case.reference(true);
    config.flags = RESPONDER_FLAGS | if with_context { PSK << 1 } else { PSK };
    if !case.encrypt {
        config.flags &= !(1 << 6);
    }
    if !certificates {
        // Neither certificates, challenges nor KEY_EXCHANGE; measurements are not signed.
        config.flags = config.flags & !(1 << 1 | 1 << 2 | 1 << 9 | 2 << 3) | 1 << 3;
    }
    let mut peer = Peer::new(&config);
    let mut requester = requester(case);
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    for _ in 0..2 {
        r.run(Command::Connect);
        let (one, none) = r.start(HINT, SummaryType::None);
        assert_eq!(none, None);
        r.exercise(one);
        let (two, all) = r.start(b"", SummaryType::All);
        assert_eq!(all.unwrap().len(), case.hash.size());
        let mut ids = vec![one, two];
        if certificates {
            r.requester.select(None).unwrap();
            r.run(Command::Digests);
            r.run(Command::Certificate { slot: 0 });
            let summary = SummaryType::None;
            r.run(Command::StartSession { slot: 0, summary, end_on_update: false });
            ids.push(r.requester.session().unwrap().id);
        }
        for id in &ids {
            r.exercise(*id);
        }
        r.requester.select(Some(one)).unwrap();
        r.run(Command::EndSession { clear_negotiated_state: false });
        let (three, _) = r.start(HINT, SummaryType::Tcb);
        for id in [three, two] {
            r.exercise(id);
        }
    }
}

#[test]
fn psk_requester() {
    let mut tally = Tally::new("requester", "psk");
    for case in psk_cases() {
        for with_context in [false, true] {
            for certificates in [true, false] {
                let what = format!("{with_context} {certificates}");
                tally.check(&case, &what, || with_psk(|| asked(&case, with_context, certificates)));
            }
        }
    }
    tally.finish();
}

/// As many of our requester's sessions as libspdm's responder has room for.
fn several(case: &Case) {
    let mut peer = Peer::new(&case.reference(true));
    let mut requester = requester(case);
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    r.run(Command::Connect);
    r.run(Command::Digests);
    r.run(Command::Certificate { slot: 0 });
    let start = Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false };
    let mut ids = Vec::new();
    for _ in 0..4 {
        r.requester.select(None).unwrap();
        r.run(start.clone());
        ids.push(r.requester.session().unwrap().id);
    }
    for at in [3, 0, 2, 1, 0] {
        r.exercise(ids[at]);
    }
    r.requester.select(None).unwrap();
    Driver::new(r.requester, &mut *r.peer).run(start.clone()).unwrap_err();
    r.requester.select(Some(ids[1])).unwrap();
    r.run(Command::EndSession { clear_negotiated_state: false });
    r.run(start);
    let five = r.requester.session().unwrap().id;
    for id in [ids[0], five, ids[3], ids[2]] {
        r.exercise(id);
    }
}

#[test]
fn several_sessions() {
    let mut tally = Tally::new("requester", "several");
    for case in cases().iter().filter(|case| case.hash == HashAlgorithm::Sha256).step_by(5) {
        if case.has_sessions() && case.measurement_hash.is_some() {
            tally.check(case, "several", || several(case));
        }
    }
    tally.finish();
}
