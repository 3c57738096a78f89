//! The driver against a mailbox that follows the rules, and against ones that break each of them.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::pci::Width;

/// Where the mock's capability is.
pub(crate) const BASE: u16 = 0x150;

/// A clock that every register access moves on.
#[derive(Clone, Default)]
pub(crate) struct FakeClock(Rc<Cell<Duration>>);

impl FakeClock {
    fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        self.0.get()
    }

    fn sleep(&self, time: Duration) {
        self.advance(time);
    }
}

/// How the mock misbehaves.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) busy_until: Option<Duration>,
    pub(crate) error_before_send: bool,
    pub(crate) error_after_go: bool,
    pub(crate) error_after_last: bool,
    pub(crate) answer_after: Duration,
    pub(crate) never_answers: bool,
    pub(crate) ready_drops_after: Option<usize>,
    pub(crate) ready_sticks: bool,
    pub(crate) abort_is_dead: bool,
    pub(crate) gone: bool,
}

/// Makes a response from a request, both in dwords.
type Answer = Box<dyn FnMut(&[u32]) -> Vec<u32>>;

/// A mailbox in registers.
pub(crate) struct Mock {
    pub(crate) clock: FakeClock,
    pub(crate) faults: Faults,
    answer: Answer,
    pub(crate) aborts: u32,
    written: Vec<u32>,
    response: Vec<u32>,
    popped: usize,
    ready_at: Option<Duration>,
    error: bool,
}

impl Mock {
    pub(crate) fn new(faults: Faults, answer: impl FnMut(&[u32]) -> Vec<u32> + 'static) -> Self {
        Self {
            clock: FakeClock::default(),
            error: faults.error_before_send,
            faults,
            answer: Box::new(answer),
            aborts: 0,
            written: vec![],
            response: vec![],
            popped: 0,
            ready_at: None,
        }
    }

    fn status(&self) -> u32 {
        let now = self.clock.now();
        let busy = self.faults.busy_until.is_some_and(|until| now < until);
        let more = self.popped < self.response.len() || self.faults.ready_sticks;
        let dropped = self.faults.ready_drops_after.is_some_and(|n| self.popped >= n);
        let ready = self.ready_at.is_some_and(|at| now >= at) && more && !dropped;
        let late_error = self.faults.error_after_last && !more && self.ready_at.is_some();
        u32::from(busy) | u32::from(self.error || late_error) << 2 | u32::from(ready) << 31
    }
}

impl ConfigSpace for Mock {
    fn read(&mut self, offset: u16, _: Width) -> Result<u32> {
        self.clock.advance(Duration::from_micros(5));
        if self.faults.gone {
            return Ok(u32::MAX);
        }
        Ok(match offset - BASE {
            STATUS => self.status(),
            READ => self.response.get(self.popped).copied().unwrap_or(0),
            _ => 0,
        })
    }

    fn write(&mut self, offset: u16, _: Width, value: u32) -> Result<()> {
        self.clock.advance(Duration::from_micros(5));
        match offset - BASE {
            WRITE => self.written.push(value),
            READ => self.popped += 1,
            CONTROL if value & ABORT != 0 => {
                self.aborts += 1;
                if !self.faults.abort_is_dead {
                    (self.error, self.ready_at) = (false, None);
                    self.written.clear();
                }
            }
            CONTROL if value & GO != 0 => {
                self.response = (self.answer)(&self.written);
                self.written.clear();
                self.popped = 0;
                self.error = self.faults.error_after_go;
                self.ready_at =
                    (!self.faults.never_answers).then(|| self.clock.now() + self.faults.answer_after);
            }
            _ => {}
        }
        Ok(())
    }
}

const REQUEST: [u8; 12] = [1, 0, 1, 0, 3, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd];

pub(crate) fn mailbox() -> Mailbox {
    Mailbox { capability: DoeCapability { offset: BASE, version: 2 }, timeout: Duration::from_secs(1) }
}

fn exchange(faults: Faults, answer: Vec<u32>) -> (Result<Vec<u8>>, Mock) {
    let mut mock = Mock::new(faults, move |_| answer.clone());
    let clock = mock.clock.clone();
    let result = mailbox().exchange(&mut mock, &clock, &REQUEST);
    (result, mock)
}

fn sound() -> Vec<u32> {
    vec![0x0001_0001, 3, 0x1122_3344]
}

#[test]
fn an_object_goes_and_one_comes_back() {
    let mut mock = Mock::new(Faults::default(), |request| {
        assert_eq!(request, [0x0001_0001, 3, 0xddcc_bbaa]);
        sound()
    });
    let clock = mock.clock.clone();
    let answer = mailbox().exchange(&mut mock, &clock, &REQUEST).unwrap();
    assert_eq!(answer, [1, 0, 1, 0, 3, 0, 0, 0, 0x44, 0x33, 0x22, 0x11]);
    assert_eq!(mock.aborts, 0);
}

#[test]
fn slow_is_not_silent() {
    let slow = Faults {
        busy_until: Some(Duration::from_millis(900)),
        answer_after: Duration::from_millis(900),
        ..Faults::default()
    };
    assert!(exchange(slow, sound()).0.is_ok());
}

#[test]
fn waits_end_and_the_mailbox_is_aborted() {
    for faults in [
        Faults { busy_until: Some(Duration::from_secs(9)), ..Faults::default() },
        Faults { never_answers: true, ..Faults::default() },
        Faults { answer_after: Duration::from_millis(1100), ..Faults::default() },
    ] {
        let (result, mock) = exchange(faults, sound());
        assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
        assert_eq!(mock.aborts, 1);
        assert!(mock.clock.now() < Duration::from_secs(3), "{:?}", mock.clock.now());
    }
}

#[test]
fn error_is_an_answer_too() {
    for faults in [
        Faults { error_before_send: true, ..Faults::default() },
        Faults { error_after_go: true, ..Faults::default() },
        Faults { error_after_last: true, ..Faults::default() },
        Faults { ready_drops_after: Some(0), never_answers: true, error_after_go: true, ..Faults::default() },
        Faults { ready_drops_after: Some(1), ..Faults::default() },
        Faults { ready_drops_after: Some(2), ..Faults::default() },
        Faults { ready_sticks: true, ..Faults::default() },
    ] {
        let (result, mock) = exchange(faults, sound());
        assert!(matches!(result, Err(Error::Protocol(_))), "{result:?}");
        assert_eq!(mock.aborts, 1);
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_reading_on() {
    // 0 stands for 2^18 dwords, 1 for less than the header; the third does not have what it claims.
    for claimed in [0, 1, 0x1_0001, 4, 0xffff] {
        let (result, mock) = exchange(Faults::default(), vec![0x0001_0001, claimed, 0x1122_3344]);
        assert!(matches!(result, Err(Error::Protocol(_))), "{claimed}: {result:?}");
        assert_eq!(mock.aborts, 1);
    }
    // More dwords than claimed leave READY set.
    let (result, _) = exchange(Faults::default(), vec![0x0001_0001, 2, 0x1122_3344]);
    assert!(matches!(result, Err(Error::Protocol(_))));
    // Reserved bits above the length do not count.
    assert!(exchange(Faults::default(), vec![0x0001_0001, 0x4000_0003, 0]).0.is_ok());
}

#[test]
fn a_failed_exchange_does_not_spoil_the_next() {
    let mut first = true;
    let mut mock =
        Mock::new(
            Faults::default(),
            move |_| {
                if std::mem::take(&mut first) { vec![0x0001_0001, 1] } else { sound() }
            },
        );
    let clock = mock.clock.clone();
    assert!(mailbox().exchange(&mut mock, &clock, &REQUEST).is_err());
    assert!(mailbox().exchange(&mut mock, &clock, &REQUEST).is_ok());
}

#[test]
fn a_device_that_vanished_is_named_as_such() {
    let (result, _) = exchange(Faults { gone: true, ..Faults::default() }, sound());
    assert!(matches!(result, Err(Error::NoDevice(_))), "{result:?}");
}

#[test]
fn an_abort_that_does_nothing_is_reported() {
    let faults = Faults { error_before_send: true, abort_is_dead: true, ..Faults::default() };
    let mut mock = Mock::new(faults, |_| vec![]);
    let clock = mock.clock.clone();
    assert!(matches!(mailbox().abort(&mut mock, &clock), Err(Error::TimedOut { .. })));
}

#[test]
fn objects_of_no_shape_are_not_sent() {
    for length in [0, 4, 7, 9] {
        let mut mock = Mock::new(Faults::default(), |_| panic!("sent"));
        let clock = mock.clock.clone();
        let object = vec![0; length];
        assert!(mailbox().exchange(&mut mock, &clock, &object).is_err());
    }
}
