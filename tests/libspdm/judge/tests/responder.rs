//! libspdm's requester against our responder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{
    Case, Device, Dice, REQUESTER_FLAGS, Reference, Tally, cases, material, only_case, responder_config,
    walks,
};
use spdm::crypto::{AsymAlgorithm, HashAlgorithm, RingProvider, hash};
use spdm::responder::{Delay, MeasurementSupport, ResponderConfig, Wait};
use spdm::slot::Slots;
use spdm::wire::{Code, Version};

/// One run: libspdm's requester and what it negotiated.
struct Run {
    reference: Reference,
    case: Case,
}

impl Run {
    fn new(case: &Case) -> Self {
        let root = material(case.asym).certificates()[0].clone();
        Self { reference: Reference::new(&case.reference(false), Device::new(case), &root), case: *case }
    }

    fn digest_of(&self, data: &[u8]) -> Vec<u8> {
        hash(&RingProvider::new(), self.case.hash, data).unwrap().as_ref().to_vec()
    }

    fn digests(&mut self, session: Option<u32>) -> Vec<u8> {
        let (mask, digests) = self.reference.digests(session);
        assert_eq!(mask, 1);
        digests[..self.case.hash.size()].to_vec()
    }

    fn challenge(&mut self, summary: u8) -> Vec<u8> {
        let (mask, digest) = self.reference.challenge(0, summary);
        assert_eq!(mask, 1);
        digest[..self.case.hash.size()].to_vec()
    }

    fn start(&mut self, summary: u8, policy: u8) -> (u32, Vec<u8>) {
        let (id, heartbeat, digest) = self.reference.start_session(0, summary, policy);
        assert_eq!(heartbeat, 10);
        (id, digest[..self.case.hash.size()].to_vec())
    }

    fn vendor(&mut self, session: Option<u32>, length: u16) {
        let request: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
        let mut response = self.reference.vendor(session, &request);
        response.reverse();
        assert_eq!(response, request);
        // As spdm-emu sends TDISP: the whole message.
        let version = self.case.version.0;
        let message = [version, 0xFE, 0, 0, 3, 0, 2, 1, 0, 3, 0, 1, 2, 3];
        let response = self.reference.message(session, &message);
        assert_eq!(response[..14], [version, 0x7E, 0, 0, 3, 0, 2, 1, 0, 3, 0, 3, 2, 1]);
    }

    fn measurements(&mut self, session: Option<u32>, attributes: u8, operation: u8) -> (u8, Vec<u8>) {
        let measured = self.reference.measurements(session, attributes, operation, 0);
        if operation != 0 {
            let told = attributes & 1 != 0 && self.case.tells_changes();
            assert_eq!(measured.changed, if told { 0x20 } else { 0 });
        }
        (measured.blocks, measured.record)
    }

    fn all_measurements(&mut self, session: Option<u32>) -> Vec<u8> {
        for signed in [0, 1] {
            for raw in [0, 2] {
                assert_eq!(self.measurements(session, raw, 0).0, 6);
                for index in [1, 2, 4, 16, 0xFD, 0xFE] {
                    let last = if index == 0xFE { signed } else { 0 };
                    let (blocks, record) = self.measurements(session, raw | last, index);
                    assert_eq!((blocks, record[0]), (1, index));
                }
                // All at once after several, one alone with a signature, and the number with a signature.
                assert_eq!(self.measurements(session, raw | signed, 0xFF).0, 6);
                self.measurements(session, raw | 1, 4);
                assert_eq!(self.measurements(session, 1, 0).0, 6);
            }
        }
        self.measurements(session, 0, 0xFF).1
    }
}

/// The blocks that belong to the TCB.
fn tcb(record: &[u8]) -> Vec<u8> {
    let (mut rest, mut chosen) = (record, Vec::new());
    while !rest.is_empty() {
        let length = 4 + usize::from(u16::from_le_bytes([rest[2], rest[3]]));
        let (block, tail) = rest.split_at(length);
        if [1, 2, 16].contains(&block[0]) {
            chosen.extend_from_slice(block);
        }
        rest = tail;
    }
    chosen
}

fn whole(case: &Case) {
    let mut run = Run::new(case);
    for round in 0..2 {
        run.reference.connect();
        let digest = run.digests(None);
        let chain = run.reference.certificate(None, 0);
        assert_eq!(digest, run.digest_of(&chain));
        assert!(chain.ends_with(&material(case.asym).certificates().concat()));
        run.challenge(0);
        let record = run.all_measurements(None);
        let (all, trusted) = (run.digest_of(&record), run.digest_of(&tcb(&record)));
        assert_eq!(run.challenge(1), trusted);
        assert_eq!(run.challenge(0xFF), all);
        run.vendor(None, 20);
        if !case.has_sessions() {
            continue;
        }

        let (one, _) = run.start(0, 0);
        run.reference.heartbeat(one);
        for single in [true, false, true, true, false, false] {
            run.reference.key_update(one, single);
            run.vendor(Some(one), 33);
        }
        run.vendor(Some(one), 0);
        run.vendor(Some(one), 1500);
        assert_eq!(run.all_measurements(Some(one)), record);
        assert_eq!(run.digests(Some(one)), digest);
        assert_eq!(run.reference.certificate(Some(one), 0), chain);

        // More sessions beside it.
        let (two, summary) = run.start(1, 1);
        assert_eq!(summary, trusted);
        let (three, summary) = run.start(0xFF, 0);
        assert_eq!(summary, all);
        let (four, _) = run.start(0, 0);
        for id in [one, four, two, three, one] {
            run.vendor(Some(id), 16);
            assert_eq!(run.measurements(Some(id), 1, 0xFF).0, 6);
            run.reference.heartbeat(id);
        }
        run.reference.stop_session(two, 0);
        run.reference.stop_session(four, 0);
        let (five, _) = run.start(0, 0);
        run.vendor(Some(five), 16);
        run.vendor(Some(three), 16);
        if round == 1 {
            for id in [one, three, five] {
                run.reference.stop_session(id, 1);
            }
        }
    }
}

#[test]
fn matrix() {
    let mut tally = Tally::new("responder", "matrix");
    for (number, case) in cases().iter().enumerate() {
        if only_case().is_none_or(|only| only == number) {
            tally.check(case, &format!("case {number}"), || whole(case));
        }
    }
    tally.finish();
}

/// One step of a random walk; `session` is one of `sessions` or none.
fn step(run: &mut Run, dice: &mut Dice, sessions: &mut Vec<u32>) {
    let session = if sessions.is_empty() || dice.roll(2) == 0 { None } else { Some(dice.pick(sessions)) };
    match (dice.roll(12), session) {
        (0, _) => drop(run.digests(session)),
        (1, _) => drop(run.reference.certificate(session, 0)),
        (2, _) => drop(run.challenge(dice.pick(&[0, 1, 0xFF]))),
        (3..=6, _) => {
            let operation = dice.pick(&[0, 1, 2, 16, 0xFD, 0xFF]);
            drop(run.measurements(session, dice.pick(&[0, 1, 2, 3]), operation));
        }
        (7, _) if sessions.len() < 4 && run.case.has_sessions() => {
            sessions.push(run.start(dice.pick(&[0, 1, 0xFF]), 0).0)
        }
        (8, Some(id)) => {
            sessions.retain(|&other| other != id);
            run.reference.stop_session(id, 0);
        }
        (9, _) => {
            // libspdm's requester does not start L1/L2 again here, though DSP0274 says so for any other request.
            run.vendor(session, 5);
            run.digests(session);
        }
        (10, Some(id)) => run.reference.key_update(id, dice.roll(2) == 0),
        (11, Some(id)) => run.reference.heartbeat(id),
        _ => {}
    }
}

/// Any order of requests that libspdm's requester lets its user make.
#[test]
fn random_walks() {
    let (cases, mut tally) = (cases(), Tally::new("responder", "walks"));
    for seed in 0..walks() {
        let mut dice = Dice::new(seed);
        let case = dice.pick(&cases);
        tally.check(&case, &format!("seed {seed}"), || {
            let (mut run, mut sessions) = (Run::new(&case), Vec::new());
            run.reference.connect();
            run.reference.certificate(None, 0);
            for _ in 0..60 {
                step(&mut run, &mut dice, &mut sessions);
            }
        });
    }
    tally.finish();
}

/// Everything a requester that offers `config` can do with a responder of these measurements.
fn meet(config: &libspdm_sys::Config, case: &Case, support: MeasurementSupport, slots: Slots) {
    let mut settings = ResponderConfig {
        versions: Version::IMPLEMENTED.to_vec(),
        measurements: responder_config(case).measurements,
        measurement_hashes: vec![HashAlgorithm::Sha256],
        heartbeat_period: 10,
        ..ResponderConfig::default()
    };
    settings.capabilities.measurements = support;
    settings.capabilities.fresh_measurements = support != MeasurementSupport::None;
    if support == MeasurementSupport::None {
        settings.measurements.clear();
    }
    let root = material(case.asym).certificates()[0].clone();
    let mut reference = Reference::new(config, Device::with(settings, slots), &root);
    reference.connect();
    let (mask, _) = reference.digests(None);
    for slot in (0..8).filter(|slot| mask & 1 << slot != 0) {
        reference.certificate(None, slot);
        reference.challenge(slot, 0);
        if support != MeasurementSupport::None {
            reference.challenge(slot, 1);
            reference.challenge(slot, 0xFF);
            for attributes in [0, 2] {
                reference.measurements(None, attributes, 0xFF, slot);
                if support == MeasurementSupport::Signed {
                    reference.measurements(None, attributes | 1, 0xFF, slot);
                }
            }
        }
        if config.flags & 1 << 9 != 0 && config.version != Version::V1_0.0 {
            let (id, ..) = reference.start_session(slot, 0, 0);
            assert_eq!(reference.vendor(Some(id), b"abc"), b"cba");
            reference.stop_session(id, 0);
        }
    }
}

/// Requesters that offer more than they need, and responders that have less or more.
#[test]
fn variety() {
    let mut tally = Tally::new("responder", "variety");
    // What spdm-emu's requester says by default: also mutual authentication, PSK, encapsulation, chunks, events, keys.
    let emu = REQUESTER_FLAGS | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 15 | 1 << 17 | 2 << 22 | 1 << 25 | 2 << 26;
    let offers = [
        REQUESTER_FLAGS,
        emu,
        REQUESTER_FLAGS | 1 << 26,
        REQUESTER_FLAGS | 1 << 8 | 1 << 12,
        1 << 1 | 1 << 2,
        0,
    ];
    let slot = |asym| Some(material(asym).slot());
    let (p256, p384) = (AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384);
    let several = || Slots::from([slot(p384), slot(p256), None, slot(p384), None, None, None, slot(p384)]);
    let two = || Slots::from([slot(p384), slot(p384), None, None, None, None, None, None]);
    for case in cases().iter().filter(|case| case.secured == 0 && case.encrypt && !case.clear) {
        if (case.asym, case.hash) != (p256, HashAlgorithm::Sha256) && case.asym != p384
            || case.measurement_hash != Some(HashAlgorithm::Sha256)
            || case.group.dhe_bit() != 1 << 3
            || case.aead.bit() != 1 << 0
        {
            continue;
        }
        for (flags, transfer) in
            offers.iter().flat_map(|&flags| [0, 0x1000, 512].map(|transfer| (flags, transfer)))
        {
            // Nobody can say before 1.2 that so little fits.
            if transfer == 512 && case.version < Version::V1_2 {
                continue;
            }
            for version in [case.version.0, 0] {
                let config = libspdm_sys::Config {
                    version,
                    flags,
                    data_transfer_size: transfer,
                    base_asym: 0xFFF & !0x200,
                    base_hash: 0x3F,
                    dhe: 0x3F,
                    aead: 7,
                    requester_asym: 0x90,
                    ..case.reference(false)
                };
                let what = format!("{version:x} {flags:x} {transfer}");
                tally.check(case, &what, || {
                    if case.asym == p256 {
                        meet(&config, case, MeasurementSupport::Signed, Slots::single(material(p256).slot()));
                    } else {
                        meet(&config, case, MeasurementSupport::Unsigned, several());
                        meet(&config, case, MeasurementSupport::None, two());
                    }
                });
            }
        }
    }
    tally.finish();
}

/// Every request has to wait.
fn wait_for(case: &Case, wait: Wait) {
    let delay = |request: Code| {
        // libspdm asks a busy responder again at once, three times.
        let exponent = if wait == Wait::Busy { 0 } else { 6 };
        Delay { request, wait, exponent }
    };
    let delays = [
        Code::GET_DIGESTS,
        Code::GET_CERTIFICATE,
        Code::CHALLENGE,
        Code::GET_MEASUREMENTS,
        Code::KEY_EXCHANGE,
        Code::FINISH,
        Code::HEARTBEAT,
        Code::KEY_UPDATE,
        Code::END_SESSION,
    ];
    // Where a busy responder interrupts GET_CERTIFICATE, libspdm begins with the first portion again, and again.
    let delays = delays.iter().filter(|&&code| wait == Wait::NotReady || code != Code::GET_CERTIFICATE);
    let delays = delays.map(|&code| delay(code)).collect();
    let settings = ResponderConfig { delays, ..responder_config(case) };
    let material = material(case.asym);
    let device = Device::with(settings, Slots::single(material.slot())).timed();
    let mut reference = Reference::new(&case.reference(false), device, &material.certificates()[0]);
    reference.connect();
    reference.digests(None);
    reference.certificate(None, 0);
    reference.challenge(0, 0xFF);
    reference.measurements(None, 1, 0xFF, 0);
    if !case.has_sessions() {
        return;
    }
    let (id, ..) = reference.start_session(0, 0xFF, 0);
    reference.heartbeat(id);
    reference.key_update(id, true);
    reference.key_update(id, false);
    reference.measurements(Some(id), 0, 0xFF, 0);
    reference.measurements(Some(id), 1, 0xFF, 0);
    reference.stop_session(id, 0);
}

#[test]
fn patience() {
    let mut tally = Tally::new("responder", "patience");
    for case in cases().iter().filter(|case| case.secured == 0 && case.measurement_hash == Some(case.hash)) {
        for wait in [Wait::Busy, Wait::NotReady] {
            tally.check(case, &format!("{wait:?}"), || wait_for(case, wait));
        }
    }
    tally.finish();
}
