//! Our requester against libspdm's responder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use judge::{Case, Dice, Peer, RESPONDER_FLAGS, Tally, cases, only_case, walks};
use spdm::crypto::RingProvider;
use spdm::requester::{
    Command, Driver, MeasurementQuery, MeasurementReport, Reply, Requester, RequesterConfig, UpdateKeys,
};
use spdm::wire::{MeasurementOperation, SummaryType, Version};

fn config(case: &Case) -> RequesterConfig {
    RequesterConfig {
        versions: vec![case.version],
        secured_versions: match case.secured {
            0 => vec![Version::V1_0, Version::V1_1, Version::V1_2],
            version => vec![Version(version)],
        },
        handshake_in_the_clear: case.clear,
        ..RequesterConfig::default()
    }
}

fn requester(case: &Case) -> Requester {
    Requester::new(config(case), Box::new(RingProvider::new())).unwrap()
}

struct Run<'r> {
    requester: &'r mut Requester,
    peer: &'r mut Peer,
}

impl Run<'_> {
    fn run(&mut self, command: Command) -> Reply {
        let result = Driver::new(self.requester, &mut *self.peer).run(command.clone());
        match result {
            Ok(reply) => reply,
            Err(error) => {
                let recent = self.peer.recent();
                panic!("{command:?}: {error:?}\n{recent}");
            }
        }
    }

    fn measure(&mut self, operation: MeasurementOperation, raw: bool, signed: bool) -> MeasurementReport {
        let query = MeasurementQuery { operation, raw, signed_by: signed.then_some(0) };
        let reply = self.run(Command::Measurements(query));
        let Reply::Measurements(report) = reply else { panic!("{reply:?}") };
        assert_eq!(report.signed.is_some(), signed);
        report
    }

    fn measure_all(&mut self, hashed: bool) {
        use MeasurementOperation::{All, Count, One};
        for signed in [false, true] {
            for raw in [false, true] {
                let total = self.measure(Count, raw, false).total.unwrap();
                // The sample's "hardware error" block is a digest in any case, which raw bit stream only forbids.
                for index in [1, 2, 16, 0xFD, 0xFE] {
                    let report = self.measure(One(index), raw, signed && index == 0xFE);
                    assert_eq!(report.measurements.len(), 1);
                    assert_eq!(report.measurements[0].index, index);
                }
                if hashed {
                    let report = self.measure(All, raw, signed);
                    assert_eq!(report.measurements.len(), usize::from(total));
                }
                self.measure(One(2), raw, true);
                self.measure(Count, raw, true);
            }
        }
    }

    fn vendor(&mut self, length: usize) {
        let payload: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
        let reply =
            self.run(Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.clone() });
        assert_eq!(reply, Reply::Vendor(payload.into_iter().rev().collect()));
    }

    fn session(&mut self, summary: SummaryType, end_on_update: bool, case: &Case) {
        let reply = self.run(Command::StartSession { slot: 0, summary, end_on_update });
        let Reply::SessionStarted(info) = reply else { panic!("{reply:?}") };
        let expected = (summary != SummaryType::None).then_some(case.hash.size());
        assert_eq!(info.summary.map(|digest| digest.len()), expected);
        assert_eq!(info.heartbeat_period, 10);
        if case.secured != 0 {
            assert_eq!(info.secured_version.0, case.secured);
        }
    }
}

fn whole(case: &Case) {
    let hashed = case.measurement_hash.is_some();
    let mut peer = Peer::new(&case.reference(true));
    let mut requester = requester(case);
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    for _ in 0..2 {
        let Reply::Connected(info) = r.run(Command::Connect) else { panic!() };
        assert_eq!(info.version, case.version);
        assert_eq!((info.algorithms.hash, info.algorithms.signature), (case.hash, Some(case.asym)));
        let session = case.has_sessions().then_some((case.group, case.aead));
        assert_eq!(info.algorithms.group.zip(info.algorithms.aead), session);
        assert_eq!(info.algorithms.measurement_hash, case.measurement_hash);
        r.run(Command::Digests);
        let Reply::Certificate(certificate) = r.run(Command::Certificate { slot: 0 }) else { panic!() };
        let Reply::Digests(digests) = r.run(Command::Digests) else { panic!() };
        assert_eq!(digests.digests, [(0, certificate.chain_digest)]);
        for summary in [SummaryType::None, SummaryType::Tcb, SummaryType::All] {
            if !hashed && summary != SummaryType::None {
                continue;
            }
            let Reply::Challenged(proof) = r.run(Command::Challenge { slot: 0, summary }) else { panic!() };
            assert_eq!(proof.summary.is_some(), summary != SummaryType::None);
        }
        r.measure_all(hashed);
        r.vendor(20);
        if !case.has_sessions() {
            continue;
        }
        for (summary, end_on_update) in
            [(SummaryType::None, false), (SummaryType::Tcb, true), (SummaryType::All, false)]
        {
            let summary = if hashed { summary } else { SummaryType::None };
            r.session(summary, end_on_update, case);
            r.run(Command::Heartbeat);
            for keys in [
                UpdateKeys::Requests,
                UpdateKeys::Both,
                UpdateKeys::Both,
                UpdateKeys::Requests,
                UpdateKeys::Requests,
            ] {
                r.run(Command::UpdateKeys(keys));
                r.vendor(33);
                r.run(Command::Heartbeat);
            }
            r.vendor(0);
            r.vendor(1500);
            r.measure_all(hashed);
            r.vendor(1);
            // A saved session goes on.
            let saved = r.requester.save().unwrap();
            r.requester.restore(&saved).unwrap();
            r.vendor(2);
            r.run(Command::EndSession { clear_negotiated_state: end_on_update });
        }
        r.session(SummaryType::None, false, case);
        r.vendor(3);
    }
}

#[test]
fn matrix() {
    let mut tally = Tally::new("requester", "matrix");
    for (number, case) in cases().iter().enumerate() {
        if only_case().is_none_or(|only| only == number) {
            tally.check(case, &format!("case {number}"), || whole(case));
        }
    }
    tally.finish();
}

/// One step of a random walk; `live` says whether there is a session.
fn step(r: &mut Run<'_>, case: &Case, dice: &mut Dice, live: &mut bool) {
    use MeasurementOperation::{All, Count, One};
    let summary = dice.pick(&[SummaryType::None, SummaryType::Tcb, SummaryType::All]);
    match dice.roll(12) {
        0 => drop(r.run(Command::Digests)),
        1 => drop(r.run(Command::Certificate { slot: 0 })),
        2 if !*live => drop(r.run(Command::Challenge { slot: 0, summary })),
        3..=6 => {
            let operation = dice.pick(&[Count, One(1), One(2), One(16), One(0xFD), All]);
            drop(r.measure(operation, dice.roll(2) == 0, dice.roll(2) == 0));
        }
        7 if !*live && case.has_sessions() => {
            r.session(summary, false, case);
            *live = true;
        }
        8 if *live && dice.roll(2) == 0 => {
            r.run(Command::EndSession { clear_negotiated_state: false });
            *live = false;
        }
        9 => {
            // libspdm's responder does not start L1/L2 of a session again here, though DSP0274 says so.
            r.vendor(5);
            r.run(Command::Digests);
        }
        10 if *live => drop(r.run(Command::UpdateKeys(dice.pick(&[UpdateKeys::Requests, UpdateKeys::Both])))),
        11 if *live => drop(r.run(Command::Heartbeat)),
        _ => {}
    }
}

/// Any order of requests that our requester lets its user make.
#[test]
fn random_walks() {
    let mut tally = Tally::new("requester", "walks");
    // libspdm's responder makes no summaries of raw measurements.
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.measurement_hash.is_some()).collect();
    for seed in 0..walks() {
        let mut dice = Dice::new(seed);
        let case = dice.pick(&cases);
        tally.check(&case, &format!("seed {seed}"), || {
            let mut peer = Peer::new(&case.reference(true));
            let mut requester = requester(&case);
            let mut r = Run { requester: &mut requester, peer: &mut peer };
            r.run(Command::Connect);
            r.run(Command::Digests);
            r.run(Command::Certificate { slot: 0 });
            let mut live = false;
            for _ in 0..60 {
                step(&mut r, &case, &mut dice, &mut live);
            }
        });
    }
    tally.finish();
}

/// Everything with a responder that offers `flags`, moves `transfer` bytes at a time (0: the most) and meets a requester of
/// `mine` bytes.
fn meet(base: &Case, flags: u32, transfer: u32, mine: u32, heartbeat: bool) {
    let mut reference = base.reference(true);
    reference.flags = flags;
    reference.data_transfer_size = transfer;
    if flags & 3 << 3 == 0 {
        reference.measurement_specification = 0;
        reference.measurement_hash = 0;
    }
    reference.requester_asym = if flags & 1 << 8 != 0 { 0x10 } else { 0 };
    let mut peer = Peer::new(&reference);
    let settings = RequesterConfig {
        data_transfer_size: mine,
        heartbeat,
        key_update: heartbeat,
        handshake_in_the_clear: !heartbeat,
        ..config(base)
    };
    let mut requester = Requester::new(settings, Box::new(RingProvider::new())).unwrap();
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    r.run(Command::Connect);
    r.run(Command::Digests);
    r.run(Command::Certificate { slot: 0 });
    r.run(Command::Challenge { slot: 0, summary: SummaryType::None });
    let (measured, signed) = (flags & 3 << 3 != 0, flags & 2 << 3 != 0);
    if measured {
        r.measure(MeasurementOperation::Count, false, false);
        r.measure(MeasurementOperation::One(1), false, signed);
    }
    if flags & 1 << 9 == 0 || mine == 300 || !base.has_sessions() {
        return;
    }
    let summary = if measured { SummaryType::All } else { SummaryType::None };
    r.run(Command::StartSession { slot: 0, summary, end_on_update: false });
    r.vendor(40);
    if heartbeat && flags & 1 << 13 != 0 {
        r.run(Command::Heartbeat);
        r.run(Command::UpdateKeys(UpdateKeys::Both));
    }
    if measured {
        r.measure(MeasurementOperation::One(2), true, signed);
    }
    r.run(Command::EndSession { clear_negotiated_state: false });
}

/// Responders that can do more than the requester asks for, or less, or that move little at a time.
#[test]
fn variety() {
    let mut tally = Tally::new("requester", "variety");
    let emu = RESPONDER_FLAGS | 1 << 8 | 2 << 10 | 1 << 12 | 1 << 15 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 21;
    let emu13 = emu | 1 << 24 | 1 << 25 | 2 << 26 | 1 << 28;
    let quiet = RESPONDER_FLAGS & !(1 << 13 | 1 << 14 | 2 << 3 | 1 << 5);
    let unsigned = RESPONDER_FLAGS & !(2 << 3) | 1 << 3;
    let attest = 1 << 1 | 1 << 2 | 2 << 3;
    for version in [Version::V1_0, Version::V1_1, Version::V1_2, Version::V1_3] {
        let base = Case { version, ..cases()[0] };
        for flags in [RESPONDER_FLAGS, emu, emu13, quiet, unsigned, attest] {
            if flags == emu13 && version < Version::V1_3 {
                continue;
            }
            for (transfer, mine) in [(0, 0x1200), (0x600, 0x1200), (0x600, 0x600), (0, 300)] {
                for heartbeat in [true, false] {
                    let what = format!("{flags:x} {transfer} {mine} {heartbeat}");
                    tally.check(&base, &what, || meet(&base, flags, transfer, mine, heartbeat));
                }
            }
        }
    }
    tally.finish();
}

/// Every request is answered by `state` first: 1 BUSY, 2 RESPONSE_NOT_READY.
fn wait_for(case: &Case, state: u32) {
    let mut peer = Peer::new(&case.reference(true));
    let mut requester = requester(case);
    let mut r = Run { requester: &mut requester, peer: &mut peer };
    let measure =
        |operation, signed_by| Command::Measurements(MeasurementQuery { operation, raw: false, signed_by });
    let commands = [
        Command::Connect,
        Command::Digests,
        Command::Certificate { slot: 0 },
        Command::Challenge { slot: 0, summary: SummaryType::All },
        measure(MeasurementOperation::Count, None),
        measure(MeasurementOperation::All, Some(0)),
        Command::StartSession { slot: 0, summary: SummaryType::All, end_on_update: false },
        measure(MeasurementOperation::Count, None),
        measure(MeasurementOperation::All, Some(0)),
        Command::UpdateKeys(UpdateKeys::Requests),
        Command::Heartbeat,
        Command::UpdateKeys(UpdateKeys::Both),
        Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: vec![1, 2, 3] },
        Command::EndSession { clear_negotiated_state: false },
    ];
    for command in commands {
        if matches!(command, Command::StartSession { .. }) && !case.has_sessions() {
            break;
        }
        // GET_VERSION has to be answered at once, GET_CAPABILITIES and NEGOTIATE_ALGORITHMS cannot be deferred.
        let secured = r.requester.session().is_some();
        if command != Command::Connect
            && !(state == 2 && (secured || matches!(command, Command::StartSession { .. })))
        {
            r.peer.state(state);
        }
        r.run(command);
        r.peer.state(0);
    }
}

#[test]
fn patience() {
    let mut tally = Tally::new("requester", "patience");
    for case in cases().iter().filter(|case| case.secured == 0 && case.measurement_hash == Some(case.hash)) {
        for state in [1, 2] {
            tally.check(case, &format!("state {state}"), || wait_for(case, state));
        }
    }
    tally.finish();
}
