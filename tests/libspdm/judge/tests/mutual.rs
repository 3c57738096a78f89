//! The requester authenticates itself, with libspdm in either role.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{
    Case, Device, Peer, REQUESTER_FLAGS, RESPONDER_FLAGS, Reference, Tally, cases, material,
    responder_config, sample_key, sample_root,
};
use spdm::crypto::{AsymAlgorithm, RingProvider, encode_public_key};
use spdm::identity::{Material, generate_requester};
use spdm::requester::{Command, Driver, Reply, Requester, RequesterConfig, UpdateKeys};
use spdm::responder::{
    KnownKey, MutualAuthentication, ResponderConfig, RootPin, SessionAuthentication, TrustPolicy,
};
use spdm::slot::{PUBLIC_KEY_SLOT, PublicKey, Slots};
use spdm::wire::{SummaryType, Version};

/// MUT_AUTH_CAP and ENCAP_CAP.
const MUTUAL: u32 = 1 << 8 | 1 << 12;

/// Every version with sessions, signature and place of the handshake.
fn mutual_cases() -> Vec<Case> {
    let mut chosen: Vec<Case> = Vec::new();
    for case in cases() {
        let key = |case: &Case| (case.version, case.asym, case.hash, case.clear);
        let ecdsa = [AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384].contains(&case.asym);
        let plain = case.has_sessions() && ecdsa && case.secured == 0 && case.encrypt;
        if plain
            && case.measurement_hash == Some(case.hash)
            && chosen.iter().all(|other| key(other) != key(&case))
        {
            chosen.push(case);
        }
    }
    chosen
}

fn reference(case: &Case, responder: bool) -> libspdm_sys::Config {
    let flags = if responder { RESPONDER_FLAGS } else { REQUESTER_FLAGS };
    let clear = if case.clear { 1 << 15 } else { 0 };
    libspdm_sys::Config {
        flags: flags | MUTUAL | clear,
        requester_asym: case.asym.requester_bit(),
        ..case.reference(responder)
    }
}

/// libspdm's requester, our responder.
fn served(case: &Case, challenge: bool, session: SessionAuthentication, slot: u8) {
    let trust = TrustPolicy::Pinned(vec![RootPin::Certificate(sample_root(case.asym))]);
    let asym = vec![case.asym];
    let config = ResponderConfig {
        mutual: MutualAuthentication { challenge, session, slot, asym, trust, ..Default::default() },
        ..responder_config(case)
    };
    let device = Device::with(config, Slots::single(material(case.asym).slot()));
    let root = material(case.asym).certificates()[0].clone();
    let mut libspdm = Reference::new(&reference(case, false), device, &root);
    libspdm.identify(case.hash, case.asym, slot);
    for _ in 0..2 {
        libspdm.connect();
        for _ in 0..2 {
            libspdm.digests(None);
            libspdm.certificate(None, 0);
            libspdm.challenge(0, 0);
            let expected = if challenge { vec![(None, slot)] } else { Vec::new() };
            assert_eq!(core::mem::take(&mut libspdm.device().authenticated), expected);
        }
        let (one, ..) = libspdm.start_session(0, 0, 0);
        let (two, ..) = libspdm.start_session(0, 1, 0);
        let expected = match session {
            SessionAuthentication::Never => Vec::new(),
            SessionAuthentication::Known
            | SessionAuthentication::Encapsulated
            | SessionAuthentication::Digests => vec![(Some(one), slot), (Some(two), slot)],
        };
        assert_eq!(core::mem::take(&mut libspdm.device().authenticated), expected);
        for id in [one, two, one] {
            for _ in 0..2 {
                assert_eq!(libspdm.vendor(Some(id), b"abc"), b"cba");
                libspdm.device().renew_key(id);
                libspdm.serve(id);
                libspdm.heartbeat(id);
                libspdm.key_update(id, false);
            }
        }
    }
}

#[test]
fn our_responder() {
    let mut tally = Tally::new("responder", "mutual");
    for case in mutual_cases() {
        for slot in [0, 4] {
            for (challenge, session) in [
                (true, SessionAuthentication::Never),
                (true, SessionAuthentication::Known),
                (false, SessionAuthentication::Encapsulated),
                (false, SessionAuthentication::Digests),
                (true, SessionAuthentication::Digests),
            ] {
                let what = format!("slot {slot} {challenge} {session:?}");
                tally.check(&case, &what, || served(&case, challenge, session, slot));
            }
        }
    }
    tally.finish();
}

/// Our key and certificates as a requester.
fn identity(asym: AsymAlgorithm) -> Material {
    static MADE: std::sync::Mutex<Vec<(AsymAlgorithm, Material)>> = std::sync::Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, known)) = made.iter().find(|(algorithm, _)| *algorithm == asym) {
        return known.clone();
    }
    let new = generate_requester("a requester", asym).unwrap();
    made.push((asym, new.clone()));
    new
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

    fn challenge(&mut self) -> Option<u8> {
        let reply = self.run(Command::Challenge { slot: 0, summary: SummaryType::None });
        let Reply::Challenged(proof) = reply else { panic!("{reply:?}") };
        proof.authenticated_as
    }

    fn start(&mut self) -> Option<u8> {
        self.requester.select(None).unwrap();
        let reply =
            self.run(Command::StartSession { slot: 0, summary: SummaryType::None, end_on_update: false });
        let Reply::SessionStarted(info) = reply else { panic!("{reply:?}") };
        for keys in [UpdateKeys::Requests, UpdateKeys::Both] {
            self.run(Command::Heartbeat);
            self.run(Command::UpdateKeys(keys));
        }
        info.authenticated_as
    }
}

/// Our requester, libspdm's responder, which asks as `session` says (MutAuthRequested).
fn asked(case: &Case, basic: bool, session: u8, slot: u8) {
    let mut peer = Peer::new(&reference(case, true));
    let material = identity(case.asym);
    let root = material.certificates()[0].clone();
    let mut slots = Slots::single(material.slot());
    slots.slots[usize::from(slot)] = Some(material.slot());
    let config = RequesterConfig {
        versions: vec![case.version],
        handshake_in_the_clear: case.clear,
        ..RequesterConfig::default()
    };
    let mut requester = Requester::with_identity(config, Box::new(RingProvider::new()), slots).unwrap();
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    for _ in 0..2 {
        r.run(Command::Connect);
        for _ in 0..2 {
            r.run(Command::Digests);
            r.run(Command::Certificate { slot: 0 });
            r.peer.ask(basic, session, slot, &root);
            assert_eq!(r.challenge(), basic.then_some(slot));
        }
        for _ in 0..2 {
            r.peer.ask(basic, session, slot, &root);
            assert_eq!(r.start(), (session != 0).then_some(slot));
            for _ in 0..2 {
                r.peer.renew_key();
                let reply = r.run(Command::Serve);
                assert!(matches!(&reply, Reply::Served(served) if served.key_renewed), "{reply:?}");
                r.run(Command::Heartbeat);
            }
            r.run(Command::EndSession { clear_negotiated_state: false });
        }
    }
}

#[test]
fn our_requester() {
    let mut tally = Tally::new("requester", "mutual");
    for case in mutual_cases() {
        // In 1.1 libspdm's last ENCAPSULATED_RESPONSE_ACK says slot 0 whatever it means.
        for slot in if case.version == Version::V1_1 { vec![0] } else { vec![0, 4] } {
            for (basic, session) in [(true, 0), (true, 1), (false, 2), (false, 4), (true, 4)] {
                let what = format!("slot {slot} {basic} {session}");
                tally.check(&case, &what, || asked(&case, basic, session, slot));
            }
        }
    }
    tally.finish();
}

/// A key without its certificates.
fn bare(material: &Material) -> PublicKey {
    let key = material.slot().key;
    PublicKey { info: encode_public_key(key.algorithm(), key.public_key()), key }
}

/// PUB_KEY_ID_CAP instead of CERT_CAP.
fn without_certificates(case: &Case, responder: bool) -> libspdm_sys::Config {
    let config = reference(case, responder);
    libspdm_sys::Config { flags: config.flags & !(1 << 1) | 1 << 16, ..config }
}

/// libspdm's requester and our responder, who know each other's keys.
fn bare_served(case: &Case, challenge: bool) {
    let session = if challenge { SessionAuthentication::Never } else { SessionAuthentication::Known };
    let public_key = Some(KnownKey::from_der(&sample_key(case.asym, false)).unwrap());
    let asym = vec![case.asym];
    let mutual = MutualAuthentication { challenge, session, asym, public_key, ..Default::default() };
    let ours = bare(&material(case.asym));
    let info = ours.info.clone();
    let config = ResponderConfig { mutual, ..responder_config(case) };
    let root = material(case.asym).certificates()[0].clone();
    let device = Device::with(config, Slots::known(ours));
    let mut libspdm = Reference::new(&without_certificates(case, false), device, &root);
    libspdm.know_keys(case.asym, &info);
    for _ in 0..2 {
        libspdm.connect();
        libspdm.challenge(PUBLIC_KEY_SLOT, 0xFF);
        let (id, ..) = libspdm.start_session(PUBLIC_KEY_SLOT, 1, 0);
        let proved = if challenge { None } else { Some(id) };
        let expected = vec![(proved, PUBLIC_KEY_SLOT)];
        assert_eq!(core::mem::take(&mut libspdm.device().authenticated), expected);
        libspdm.key_update(id, false);
        assert_eq!(libspdm.vendor(Some(id), b"abc"), b"cba");
    }
}

/// Our requester and libspdm's responder, who know each other's keys.
fn bare_asked(case: &Case, basic: bool) {
    let mut peer = Peer::new(&without_certificates(case, true));
    let identity = bare(&identity(case.asym));
    peer.know_keys(case.asym, &identity.info);
    let config = RequesterConfig {
        versions: vec![case.version],
        handshake_in_the_clear: case.clear,
        responder_key: Some(KnownKey::from_der(&sample_key(case.asym, true)).unwrap()),
        ..RequesterConfig::default()
    };
    let provider = Box::new(RingProvider::new());
    let mut requester = Requester::with_identity(config, provider, Slots::known(identity)).unwrap();
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    for _ in 0..2 {
        r.run(Command::Connect);
        r.peer.ask(basic, u8::from(!basic), PUBLIC_KEY_SLOT, &sample_root(case.asym));
        let reply = r.run(Command::Challenge { slot: PUBLIC_KEY_SLOT, summary: SummaryType::All });
        let Reply::Challenged(proof) = reply else { panic!("{reply:?}") };
        assert_eq!(proof.authenticated_as, basic.then_some(PUBLIC_KEY_SLOT));
        r.requester.select(None).unwrap();
        let (slot, summary) = (PUBLIC_KEY_SLOT, SummaryType::None);
        let reply = r.run(Command::StartSession { slot, summary, end_on_update: false });
        let Reply::SessionStarted(info) = reply else { panic!("{reply:?}") };
        assert_eq!(info.authenticated_as, (!basic).then_some(PUBLIC_KEY_SLOT));
        r.run(Command::UpdateKeys(UpdateKeys::Both));
        r.run(Command::EndSession { clear_negotiated_state: false });
    }
}

#[test]
fn keys_without_certificates() {
    let (mut responder, mut requester) = (Tally::new("responder", "keys"), Tally::new("requester", "keys"));
    for case in mutual_cases() {
        for challenge in [true, false] {
            responder.check(&case, &format!("{challenge}"), || bare_served(&case, challenge));
            requester.check(&case, &format!("{challenge}"), || bare_asked(&case, challenge));
        }
    }
    responder.finish();
    requester.finish();
}
