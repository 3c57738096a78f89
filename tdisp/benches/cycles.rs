//! LOCK, the whole report, START and STOP of one TDI after another, in a DSM of 1, 8 and 256 TDIs. Prints what a cycle costs
//! beside others as a ratio to a cycle of the only one: 1.0 is a cost that does not grow with their number.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use criterion::Criterion;
use tdisp::dsm::{BarView, FunctionView, Functions, RangeView};
use tdisp::wire::ide_km::{KeyHead, KeyMaterial, KeySet, KeySlot, Object};
use tdisp::wire::{FunctionId, LockRequest, Request, RequestMessage, Response, ResponseMessage};
use tdisp::{Answer, Dsm, DsmConfig, SessionId};

const SESSION: SessionId = 1;
const STREAM_ID: u8 = 5;
const CONTROL: u16 = 0x10;

/// Functions that all look alike but for their addresses.
struct Alike(usize);

impl Functions for Alike {
    fn view(&self, number: usize) -> Option<FunctionView> {
        let bar = |index: u8, pages: u32| BarView {
            index,
            address: Some(0x10_0000_0000 * (number as u64 + 1) + 0x100_0000 * u64::from(index)),
            size: u64::from(pages) * 4096,
            aliased: false,
            size_supported: true,
            ranges: vec![
                RangeView { pages: pages / 2, ..RangeView::default() },
                RangeView { first_page: pages / 2, pages: pages / 2, non_tee: true, ..RangeView::default() },
            ],
        };
        self.hosted(number).then(|| FunctionView {
            number,
            bars: vec![bar(0, 4), bar(2, 256), bar(4, 2)],
            ..FunctionView::default()
        })
    }

    fn hosted(&self, number: usize) -> bool {
        number < self.0
    }
}

struct Machine {
    dsm: Dsm,
    functions: Alike,
    next: usize,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Machine {
    fn new(functions: usize) -> Self {
        let mut dsm = Dsm::new(DsmConfig { functions, ..DsmConfig::default() }).unwrap();
        dsm.ide_write(CONTROL, &(u32::from(STREAM_ID) << 24 | 1 << 22).to_le_bytes());
        let mut message = Vec::new();
        let mut answer = Vec::new();
        let heads = || KeySlot::of_set(KeySet::Zero).map(|slot| KeyHead::new(0, STREAM_ID, slot));
        let programmed = heads().map(|head| Object::KeyProg(head, KeyMaterial::new([3; 32])));
        for object in programmed.chain(heads().map(Object::KSetGo)) {
            message.clear();
            object.encode(&mut message);
            assert_eq!(dsm.ide_km(Some(SESSION), &message, &mut answer), Answer::Respond);
        }
        dsm.ide_write(CONTROL, &[1]);
        Self { dsm, functions: Alike(functions), next: 0, request: Vec::new(), response: Vec::new() }
    }

    fn send(&mut self, request: Request<'_>) -> Response<'_> {
        self.request.clear();
        self.response.clear();
        let interface = FunctionId::new(self.next as u16, None).into();
        RequestMessage { interface, request }.encode(&mut self.request);
        let mut random = |bytes: &mut [u8]| {
            bytes.fill(7);
            true
        };
        let answer =
            self.dsm.tdisp(Some(SESSION), &self.request, &self.functions, &mut random, &mut self.response);
        assert_eq!(answer, Answer::Respond);
        while self.dsm.poll_effect().is_some() {}
        ResponseMessage::decode(&self.response).unwrap().response
    }

    fn cycle(&mut self) {
        let lock = LockRequest { default_stream_id: STREAM_ID, ..LockRequest::default() };
        let Response::Lock(nonce) = self.send(Request::Lock(lock)) else { panic!("LOCK was refused") };
        let report = self.send(Request::GetReport { offset: 0, length: u16::MAX });
        assert!(matches!(report, Response::Report { remainder: 0, .. }));
        assert_eq!(self.send(Request::Start(nonce)), Response::Start);
        assert_eq!(self.send(Request::Stop), Response::Stop);
        self.next = (self.next + 1) % self.functions.0;
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let counts = [1, 8, 256];
    for count in counts {
        let mut machine = Machine::new(count);
        criterion.bench_function(&format!("LOCK/REPORT/START/STOP of {count} TDIs"), |bencher| {
            bencher.iter(|| machine.cycle());
        });
    }
    let mut machines = counts.map(Machine::new);
    let mut times = counts.map(|_| Vec::new());
    // Alternating, so that whatever else the machine does meets all of them.
    for _ in 0..300 {
        for (machine, times) in machines.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..256 {
                machine.cycle();
            }
            times.push(start.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or(Duration::MAX).as_secs_f64() / 256.0
    });
    let [alone, ..] = medians;
    for (count, median) in counts.into_iter().zip(medians) {
        println!(
            "{count:>3} TDIs: {:.0} cycles/s, {:.2} x a cycle of the only one",
            1.0 / median,
            median / alone
        );
    }
    criterion.final_summary();
}
