//! What the responder takes from the heap: nothing for a secured message in a session that is in use, and little for
//! the session itself.
//!
//! AWS-LC's C code asks the C library itself, which is not counted here: with it the size of a session leaves out its keys.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

#[cfg(feature = "aws-lc")]
use spdm::crypto::AwsLcProvider;
use spdm::crypto::{AsymAlgorithm, Provider, RingProvider};
use spdm::identity::{PciName, generate_by};
use spdm::requester::{Command, Driver, Requester, RequesterConfig, Response, Step, Transport};
use spdm::responder::{Answer, Responder, ResponderConfig, VendorAnswer, VendorHandler, VendorRequest};
use spdm::slot::Slots;
use spdm::wire::{SummaryType, Version};

/// The system's allocator, counting per thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that are in use.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(allocations: usize, bytes: isize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    HELD.set(HELD.get() + bytes);
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: the pointer came from `alloc` or `realloc` below with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, signed(size) - signed(layout.size()));
        // SAFETY: as for `dealloc`, and the caller promises that the new size is legal.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NAME: PciName = PciName {
    vendor: 0x1b36,
    device: 0x11,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: None,
};

type MakeProvider = fn() -> Box<dyn Provider>;

/// Every provider of this build.
const PROVIDERS: &[(&str, MakeProvider)] = &[
    ("ring", || Box::new(RingProvider::new())),
    #[cfg(feature = "aws-lc")]
    ("aws-lc", || Box::new(AwsLcProvider::new())),
];

/// Sends the payload back.
struct Echo;

impl VendorHandler for Echo {
    fn vendor_request(&mut self, request: &VendorRequest<'_>, response: &mut Vec<u8>) -> VendorAnswer {
        response.extend_from_slice(request.payload);
        VendorAnswer::Respond
    }
}

/// The responder, and what it took and kept.
struct Device {
    responder: Responder,
    response: Vec<u8>,
    allocations: usize,
    held: isize,
}

impl Device {
    fn handle(&mut self, secured: bool, message: &[u8]) {
        let before = (ALLOCATIONS.get(), HELD.get());
        let answer = match secured {
            true => self.responder.handle_secured(Duration::ZERO, message, &mut Echo, &mut self.response),
            false => self.responder.handle_clear(Duration::ZERO, message, &mut Echo, &mut self.response),
        };
        while self.responder.poll_event().is_some() {}
        self.allocations += ALLOCATIONS.get() - before.0;
        self.held += HELD.get() - before.1;
        assert_eq!(answer, Answer::Respond);
    }
}

impl Transport for &mut Device {
    type Error = core::convert::Infallible;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        self.handle(secured, message);
        Ok(Response { secured, bytes: self.response.clone() })
    }

    fn wait(&mut self, _delay: Duration) {}
}

fn pair(provider: MakeProvider, encrypt: bool) -> (Requester, Device) {
    let slots = Slots::single(generate_by(&*provider(), &NAME, AsymAlgorithm::EcdsaP256).unwrap().slot());
    let mut settings = ResponderConfig {
        versions: vec![Version::V1_3],
        data_transfer_size: 0x8000,
        max_message_size: 0x8000,
        heartbeat_period: 5,
        ..ResponderConfig::default()
    };
    settings.capabilities.encrypt = encrypt;
    let responder = Responder::new(settings, slots, provider()).unwrap();
    let config = RequesterConfig { data_transfer_size: 0x8000, ..RequesterConfig::default() };
    let mut requester = Requester::new(config, provider()).unwrap();
    let mut device = Device { responder, response: Vec::new(), allocations: 0, held: 0 };
    let mut driver = Driver::new(&mut requester, &mut device);
    driver.connect().unwrap();
    driver.digests().unwrap();
    driver.certificate(0).unwrap();
    (requester, device)
}

fn start(requester: &mut Requester, device: &mut Device) {
    requester.select(None).unwrap();
    Driver::new(requester, device).start_session(0, SummaryType::None, false).unwrap();
}

/// One command of one exchange; the responder alone is counted.
fn exchange(requester: &mut Requester, device: &mut Device, command: Command) {
    let Step::Send { secured: true, bytes } = requester.begin(command).unwrap() else { panic!() };
    device.handle(true, &bytes);
    let step = requester.receive(true, &device.response).unwrap();
    assert!(matches!(step, Step::Done(_)), "{step:?}");
}

#[test]
fn secured_messages_take_nothing_from_the_heap() {
    for (name, provider, encrypt) in
        PROVIDERS.iter().flat_map(|&(name, new)| [(name, new, true), (name, new, false)])
    {
        let (mut requester, mut device) = pair(provider, encrypt);
        start(&mut requester, &mut device);
        start(&mut requester, &mut device);
        let sessions: Vec<_> = requester.sessions().map(|info| info.id).collect();
        let vendor = |length: usize| {
            let payload = vec![0x5A; length];
            Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload }
        };
        // Buffers grow to the longest message once.
        for id in &sessions {
            requester.select(Some(*id)).unwrap();
            exchange(&mut requester, &mut device, vendor(0x7000));
        }
        device.allocations = 0;
        for round in 0..100 {
            requester.select(Some(sessions[round % 2])).unwrap();
            // 17 is TDISP's header with the protocol id, 48 an IDE_KM KEY_PROG, 4096 a report in one piece.
            for length in [0, 1, 17, 48, 256, 4096, 0x7000] {
                exchange(&mut requester, &mut device, vendor(length));
            }
            exchange(&mut requester, &mut device, Command::Heartbeat);
        }
        assert_eq!(device.allocations, 0, "{name}, encrypted: {encrypt}");
    }
}

#[test]
fn a_session_takes_little_and_gives_it_back() {
    for &(name, provider) in PROVIDERS {
        let (mut requester, mut device) = pair(provider, true);
        start(&mut requester, &mut device);
        Driver::new(&mut requester, &mut device).end_session(false).unwrap();
        let empty = device.held;
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let before = device.held;
            start(&mut requester, &mut device);
            sizes.push(device.held - before);
        }
        println!("{name}: heap of a session beside its place in the table: {} bytes", sizes[0]);
        assert!(sizes.iter().all(|size| (0..=3072).contains(size)), "{name}: {sizes:?}");
        let ids: Vec<_> = requester.sessions().map(|info| info.id).collect();
        for id in ids {
            requester.select(Some(id)).unwrap();
            Driver::new(&mut requester, &mut device).end_session(false).unwrap();
        }
        assert_eq!(device.held, empty, "{name}");
    }
}
