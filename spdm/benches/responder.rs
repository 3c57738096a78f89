//! What the responder costs beside its cryptography: a whole handshake against the asymmetric operations in it, and a
//! secured round trip against the AEAD operations in it, with each provider that the build has. Prints the ratios; the times
//! are those of the responder alone. `SUITE="P-256 with ring"` measures only that one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::env;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use criterion::Criterion;
#[cfg(feature = "aws-lc")]
use spdm::crypto::AwsLcProvider;
use spdm::crypto::{Aead, AsymAlgorithm, DheGroup, HashAlgorithm, Provider, RingProvider, SignedMessage};
use spdm::identity::{PciName, generate_by};
use spdm::requester::{Command, Driver, Requester, RequesterConfig, Response, Step, Transport};
use spdm::responder::{Answer, Responder, ResponderConfig, VendorAnswer, VendorHandler, VendorRequest};
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};

const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};

/// One strength of everything.
#[derive(Clone, Copy)]
struct Suite {
    name: &'static str,
    asym: AsymAlgorithm,
    hash: HashAlgorithm,
    group: DheGroup,
}

const SUITES: [Suite; 2] = [
    Suite {
        name: "P-256",
        asym: AsymAlgorithm::EcdsaP256,
        hash: HashAlgorithm::Sha256,
        group: DheGroup::P256,
    },
    Suite {
        name: "P-384",
        asym: AsymAlgorithm::EcdsaP384,
        hash: HashAlgorithm::Sha384,
        group: DheGroup::P384,
    },
];

/// A library, which does everything of both ends.
#[derive(Clone, Copy)]
struct Library {
    name: &'static str,
    provider: fn() -> Box<dyn Provider>,
}

const LIBRARIES: &[Library] = &[
    Library { name: "ring", provider: || Box::new(RingProvider::new()) },
    #[cfg(feature = "aws-lc")]
    Library { name: "aws-lc", provider: || Box::new(AwsLcProvider::new()) },
];

/// Sends the payload back.
struct Echo;

impl VendorHandler for Echo {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend_from_slice(request.payload);
        VendorAnswer::Respond
    }
}

/// What a look at the clock takes, which is not the responder's time: a handshake has seven of them.
static CLOCK: LazyLock<Duration> =
    LazyLock::new(|| undisturbed((0..10_000).map(|_| Instant::now().elapsed()).collect()));

/// The time since `start` without that of measuring it.
fn elapsed(start: Instant) -> Duration {
    start.elapsed().saturating_sub(*CLOCK)
}

/// A responder, and the time it has taken.
struct Timed {
    responder: Responder,
    response: Vec<u8>,
    spent: Duration,
}

impl Timed {
    fn handle(&mut self, secured: bool, message: &[u8]) {
        let start = Instant::now();
        let answer = match secured {
            true => self.responder.handle_secured(Duration::ZERO, message, &mut Echo, &mut self.response),
            false => self.responder.handle_clear(Duration::ZERO, message, &mut Echo, &mut self.response),
        };
        self.spent += elapsed(start);
        assert_eq!(answer, Answer::Respond);
        while self.responder.poll_event().is_some() {}
    }
}

impl Transport for &mut Timed {
    type Error = core::convert::Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        self.handle(secured, message);
        Ok(Response { secured, bytes: self.response.clone() })
    }

    fn wait(&mut self, _delay: Duration) {}
}

/// Both ends of one suite.
struct Bench {
    suite: Suite,
    slots: Slots,
    device: Timed,
    requester: Requester,
}

impl Bench {
    fn new(library: Library, suite: Suite) -> Self {
        let provider = (library.provider)();
        let slots = Slots::single(generate_by(&*provider, &NAME, suite.asym).unwrap().slot());
        let settings = ResponderConfig { versions: vec![Version::V1_3], ..ResponderConfig::default() };
        let responder = Responder::new(settings, slots.clone(), provider).unwrap();
        let config = RequesterConfig {
            hashes: vec![suite.hash],
            groups: vec![suite.group],
            aeads: vec![Aead::Aes256Gcm],
            ..RequesterConfig::default()
        };
        let requester = Requester::new(config, (library.provider)()).unwrap();
        let device = Timed { responder, response: Vec::new(), spent: Duration::ZERO };
        Self { suite, slots, device, requester }
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

    /// The asymmetric operations of the responder in a handshake: a key pair, an agreement and a signature.
    fn bare(&self, provider: &dyn Provider, peer: &[u8]) -> Duration {
        let slot = self.slots.get(0).unwrap();
        let (mut public, mut signature) = (Vec::new(), Vec::new());
        let start = Instant::now();
        black_box(provider.answer_exchange(self.suite.group, peer, &mut public).unwrap());
        let message = [0x5A; 132];
        slot.key.sign(self.suite.hash, SignedMessage::plain(&message), &mut signature).unwrap();
        let spent = elapsed(start);
        black_box((public, signature));
        spent
    }

    /// One vendor-defined request and its response in the session; the responder's part of the time.
    fn round_trip(&mut self, payload: &[u8]) -> Duration {
        self.device.spent = Duration::ZERO;
        let command = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: payload.to_vec() };
        let Step::Send { secured, bytes } = self.requester.begin(command).unwrap() else { panic!() };
        self.device.handle(secured, &bytes);
        self.requester.receive(secured, &self.device.response).unwrap();
        self.device.spent
    }
}

/// AES-256-GCM over a request and a response with this payload, in place.
fn bare_records(key: &dyn spdm::crypto::AeadKey, length: usize) -> Duration {
    // A VENDOR_DEFINED message around the payload, and the length field of the record.
    let mut record = vec![0; length + 11 + 2];
    let tag = key.seal(&[0; 12], &[0; 6], &mut record).unwrap();
    record.extend_from_slice(&tag);
    let start = Instant::now();
    let message = key.open(&[0; 12], &[0; 6], &mut record).unwrap();
    black_box(key.seal(&[1; 12], &[0; 6], message).unwrap());
    elapsed(start)
}

/// What a run takes that nobody interrupts: the first decile, because whatever else the machine does only adds.
fn undisturbed(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 10).copied().unwrap()
}

/// Many runs of both, one after the other, so that a slower machine is slower for both.
fn compare(rounds: usize, mut ours: impl FnMut() -> Duration, mut bare: impl FnMut() -> Duration) -> f64 {
    let (mut our_times, mut bare_times) = (Vec::new(), Vec::new());
    for round in 0..rounds + rounds / 10 {
        let times = (ours(), bare());
        if round >= rounds / 10 {
            our_times.push(times.0);
            bare_times.push(times.1);
        }
    }
    let (ours, bare) = (undisturbed(our_times), undisturbed(bare_times));
    print!("{ours:?} / {bare:?} = ");
    ours.as_secs_f64() / bare.as_secs_f64()
}

fn measure(criterion: &mut Criterion, library: Library, suite: Suite) {
    let provider = (library.provider)();
    let name = format!("{} with {}", suite.name, library.name);
    if env::var("SUITE").is_ok_and(|wanted| wanted != name) {
        return;
    }
    let mut bench = Bench::new(library, suite);
    criterion.bench_function(&format!("handshake {name}"), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| bench.handshake()).sum());
    });
    let peer = provider.start_exchange(suite.group).unwrap().public().to_vec();
    criterion.bench_function(&format!("asymmetric operations {name}"), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| bench.bare(&*provider, &peer)).sum());
    });
    let other = Bench::new(library, suite);
    let ratio = compare(1000, || bench.handshake(), || other.bare(&*provider, &peer));
    println!("handshake {name}, responder / its asymmetric operations: {ratio:.3}");
    let key = provider.aead_key(Aead::Aes256Gcm, &[7; 32]).unwrap();
    for length in [16, 256, 4096] {
        let payload = vec![0x5A; length];
        criterion.bench_function(&format!("secured round trip {name}, {length} bytes"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| bench.round_trip(&payload)).sum());
        });
        let ratio = compare(5000, || bench.round_trip(&payload), || bare_records(&*key, length));
        println!("secured round trip {name}, {length} bytes, responder / AES-256-GCM alone: {ratio:.3}");
    }
}

fn main() {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(2)).configure_from_args();
    for &library in LIBRARIES {
        for suite in SUITES {
            measure(&mut criterion, library, suite);
        }
    }
    criterion.final_summary();
}
