//! Our responder and libspdm's, both fed with data objects by our requester in one process: whole handshakes and secured
//! round trips. Prints the responders' own times and their ratios; fails where ours is not ahead, or, in secured round
//! trips, not five times as fast. Run it as `cargo bench`: both are then built as for use.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use judge::{Case, Peer, cases, material, responder_config};
use spdm::crypto::{Aead, AsymAlgorithm, RingProvider};
use spdm::doe::{Object, ObjectType};
use spdm::requester::{Command, Driver, Requester, RequesterConfig, Response, Step, Transport};
use spdm::responder::{Answer, Responder, VendorAnswer, VendorHandler, VendorRequest};
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};

/// How many times as fast a secured round trip has to be.
const SECURED: f64 = 5.0;

/// As libspdm's side of the bench does.
struct Reverse;

impl VendorHandler for Reverse {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend(request.payload.iter().rev());
        VendorAnswer::Respond
    }
}

/// A responder that takes a data object and gives one.
trait Device {
    fn object(&mut self, request: &[u8], response: &mut Vec<u8>);
}

struct Ours {
    responder: Responder,
    message: Vec<u8>,
}

impl Device for Ours {
    fn object(&mut self, request: &[u8], response: &mut Vec<u8>) {
        let Object { kind, payload, .. } = Object::parse(request).unwrap();
        let (responder, out) = (&mut self.responder, &mut self.message);
        let answer = match kind {
            ObjectType::SECURED_SPDM => responder.handle_secured(Duration::ZERO, payload, &mut Reverse, out),
            _ => responder.handle_clear(Duration::ZERO, payload, &mut Reverse, out),
        };
        assert_eq!(answer, Answer::Respond);
        while responder.poll_event().is_some() {}
        response.clear();
        Object { vendor: 1, kind, payload: out }.encode(response).unwrap();
    }
}

impl Device for Peer {
    fn object(&mut self, request: &[u8], response: &mut Vec<u8>) {
        response.resize(0x2000, 0);
        let size = self.handle(request, response);
        response.truncate(size);
    }
}

/// A responder with the time it has taken.
struct Timed<D> {
    device: D,
    response: Vec<u8>,
    spent: Duration,
}

impl<D: Device> Timed<D> {
    fn handle(&mut self, secured: bool, message: &[u8]) -> Response {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let mut request = Vec::new();
        Object { vendor: 1, kind, payload: message }.encode(&mut request).unwrap();
        let start = Instant::now();
        self.device.object(&request, &mut self.response);
        self.spent += start.elapsed();
        let object = Object::parse(&self.response).unwrap();
        Response { secured: object.kind == ObjectType::SECURED_SPDM, bytes: object.payload.to_vec() }
    }
}

impl<D: Device> Transport for &mut Timed<D> {
    type Error = std::convert::Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        Ok(self.handle(secured, message))
    }

    fn wait(&mut self, _delay: Duration) {}
}

/// A responder and our requester at it.
struct Side<D> {
    device: Timed<D>,
    requester: Requester,
}

impl<D: Device> Side<D> {
    fn new(device: D, case: &Case) -> Self {
        let config = RequesterConfig { versions: vec![case.version], ..RequesterConfig::default() };
        let requester = Requester::new(config, Box::new(RingProvider::new())).unwrap();
        Self { device: Timed { device, response: Vec::new(), spent: Duration::ZERO }, requester }
    }

    /// VERSION to FINISH; the responder's part of the time.
    fn handshake(&mut self) -> Duration {
        self.device.spent = Duration::ZERO;
        let mut driver = Driver::new(&mut self.requester, &mut self.device);
        driver.connect().unwrap();
        driver.digests().unwrap();
        driver.certificate(0).unwrap();
        driver.start_session(0, SummaryType::None, false).unwrap();
        self.device.spent
    }

    /// One vendor-defined request and its response in the session; the responder's part of the time.
    fn round_trip(&mut self, payload: &[u8]) -> Duration {
        self.device.spent = Duration::ZERO;
        let command = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.to_vec() };
        let Step::Send { secured, bytes } = self.requester.begin(command).unwrap() else { panic!() };
        let response = self.device.handle(secured, &bytes);
        let step = self.requester.receive(response.secured, &response.bytes).unwrap();
        assert!(matches!(step, Step::Done(_)), "{step:?}");
        self.device.spent
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Medians of both, one after the other, so that whatever else the machine does meets both; whether ours is `wanted` times
/// as fast.
fn compare(
    what: &str,
    rounds: usize,
    wanted: f64,
    mut ours: impl FnMut() -> Duration,
    mut theirs: impl FnMut() -> Duration,
) -> bool {
    let times: Vec<_> = (0..rounds).map(|_| (ours(), theirs())).collect();
    let ours = median(times.iter().map(|pair| pair.0).collect());
    let theirs = median(times.iter().map(|pair| pair.1).collect());
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    let verdict = if ratio >= wanted { "" } else { "  NOT ENOUGH" };
    println!("{what:<44} ours {ours:>12?}  libspdm {theirs:>12?}  libspdm / ours {ratio:>6.2}{verdict}");
    ratio >= wanted
}

/// Everything with one signature algorithm.
fn measure(case: &Case) -> bool {
    let slots = Slots::single(material(case.asym).slot());
    let responder = Responder::new(responder_config(case), slots, Box::new(RingProvider::new())).unwrap();
    let mut ours = Side::new(Ours { responder, message: Vec::new() }, case);
    let mut theirs = Side::new(Peer::new(&case.reference(true)), case);
    let what = format!("handshake {case}");
    let mut good = compare(&what, 200, 1.0, || ours.handshake(), || theirs.handshake());
    for length in [16, 256, 4000] {
        let payload = vec![0x5A; length];
        let what = format!("secured round trip, {length} bytes");
        good &= compare(&what, 5000, SECURED, || ours.round_trip(&payload), || theirs.round_trip(&payload));
    }
    good
}

fn main() -> ExitCode {
    let strongest = |asym: AsymAlgorithm| {
        cases().into_iter().find(|case| {
            case.version == Version::V1_3
                && case.asym == asym
                && case.group.dhe_bit() == if asym == AsymAlgorithm::EcdsaP256 { 1 << 3 } else { 1 << 4 }
                && case.aead == Aead::Aes256Gcm
                && (case.encrypt, case.clear, case.secured) == (true, false, 0)
                && case.measurement_hash == Some(case.hash)
        })
    };
    let cases = [AsymAlgorithm::EcdsaP256, AsymAlgorithm::EcdsaP384].map(|asym| strongest(asym).unwrap());
    let failed = cases.iter().filter(|case| !measure(case)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
