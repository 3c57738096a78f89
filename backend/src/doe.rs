//! The DOE mailbox's registers (PCIe 6.1 §6.30, §7.9.24): dwords in, whole data objects to the device and back.
//!
//! The write that sets GO only queues the object: the device takes it with [`Mailbox::take_request`] after the
//! configuration write was answered, and BUSY reads 1 until it calls [`Mailbox::respond`].

use bitfield_struct::bitfield;
use spdm::doe::{HEADER_SIZE, MAX_OBJECT_SIZE, object_size};

/// Register offsets inside the capability, after its 4-byte header.
mod offset {
    pub(super) const CAPABILITIES: u16 = 0x00;
    pub(super) const CONTROL: u16 = 0x04;
    pub(super) const STATUS: u16 = 0x08;
    pub(super) const WRITE_MAILBOX: u16 = 0x0C;
    pub(super) const READ_MAILBOX: u16 = 0x10;
}

/// DOE Control (PCIe 6.1 §7.9.24.3). Abort and Go are write-only; there is no interrupt to enable.
#[bitfield(u32)]
struct Control {
    abort: bool,
    interrupt_enable: bool,
    #[bits(29)]
    __: u32,
    go: bool,
}

/// DOE Status (PCIe 6.1 §7.9.24.4).
#[bitfield(u32)]
struct Status {
    busy: bool,
    interrupt_status: bool,
    error: bool,
    #[bits(28)]
    __: u32,
    data_object_ready: bool,
}

/// What becomes of an object whose length field does not match the dwords written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Malformed {
    /// Discarded: no response, the requester times out.
    #[default]
    Silent,
    /// DOE Error is set.
    Error,
}

#[derive(Debug)]
enum State {
    /// Collecting dwords.
    Idle,
    /// GO was written; the object waits for the device.
    Queued,
    /// The device works on it.
    Working,
    /// A response stands in the read mailbox; the cursor is in bytes.
    Ready { cursor: usize },
    /// DOE Error: only an abort helps.
    Failed,
}

/// One DOE instance.
#[derive(Debug)]
pub struct Mailbox {
    state: State,
    request: Vec<u8>,
    response: Vec<u8>,
    malformed: Malformed,
}

impl Mailbox {
    /// An idle mailbox.
    pub fn new(malformed: Malformed) -> Self {
        Self { state: State::Idle, request: Vec::new(), response: Vec::new(), malformed }
    }

    /// Reads the register at `at`, the dword's offset after the capability header.
    pub fn read(&self, at: u16) -> u32 {
        match at {
            offset::STATUS => Status::new()
                .with_busy(matches!(self.state, State::Queued | State::Working))
                .with_error(matches!(self.state, State::Failed))
                .with_data_object_ready(matches!(self.state, State::Ready { .. }))
                .into_bits(),
            offset::READ_MAILBOX => match self.state {
                State::Ready { cursor } => dword(&self.response, cursor),
                State::Idle | State::Queued | State::Working | State::Failed => 0,
            },
            // No interrupt support; Abort, Go and the write mailbox read 0.
            offset::CAPABILITIES | offset::CONTROL | offset::WRITE_MAILBOX => 0,
            _ => 0,
        }
    }

    /// Writes `bytes` at lane `lane` (0–3) of the register at `at`.
    pub fn write(&mut self, at: u16, lane: usize, bytes: &[u8]) {
        let mut value = [0; 4];
        for (slot, byte) in value.iter_mut().skip(lane).zip(bytes) {
            *slot = *byte;
        }
        let value = u32::from_le_bytes(value);
        match at {
            offset::CONTROL => {
                let control = Control::from_bits(value);
                if control.abort() {
                    self.abort();
                } else if control.go() {
                    self.go();
                }
            }
            // "Software must write whole dwords": a partial write carries no dword (PCIe 6.1 §7.9.24.5).
            offset::WRITE_MAILBOX if bytes.len() == 4 => self.push(value),
            offset::READ_MAILBOX => self.pop(),
            _ => {}
        }
    }

    /// The object that GO handed over, once.
    pub fn take_request(&mut self) -> Option<Vec<u8>> {
        if !matches!(self.state, State::Queued) {
            return None;
        }
        self.state = State::Working;
        Some(core::mem::take(&mut self.request))
    }

    /// Whether the object taken last still has a right to an answer.
    pub fn is_working(&self) -> bool {
        matches!(self.state, State::Working)
    }

    /// The device's answer to the object taken last: an object of whole dwords, or `None` for silence. An answer
    /// that an abort overtook is dropped. The request's buffer comes back to be used again.
    pub fn respond(&mut self, request: Vec<u8>, response: Option<&[u8]>) {
        if self.request.capacity() == 0 {
            self.request = request;
            self.request.clear();
        }
        if !matches!(self.state, State::Working) {
            return;
        }
        self.response.clear();
        self.state = match response {
            Some(object) if !object.is_empty() => {
                self.response.extend_from_slice(object);
                State::Ready { cursor: 0 }
            }
            _ => State::Idle,
        };
    }

    /// Abort, or any reset: within the same write, as nothing here takes time.
    pub fn abort(&mut self) {
        self.state = State::Idle;
        self.request.clear();
        self.response.clear();
    }

    fn push(&mut self, value: u32) {
        match self.state {
            State::Idle | State::Ready { .. } => {
                if self.request.len() < MAX_OBJECT_SIZE {
                    self.request.extend_from_slice(&value.to_le_bytes());
                } else {
                    self.fail("more dwords written than an object can have");
                }
            }
            // BUSY says that nothing can be received; after an Error only an abort helps.
            State::Queued | State::Working | State::Failed => {}
        }
    }

    fn go(&mut self) {
        match self.state {
            State::Idle => {}
            State::Ready { .. } => return self.fail("GO while a response waits to be read"),
            State::Queued | State::Working | State::Failed => return,
        }
        let declared = self.request.first_chunk::<HEADER_SIZE>().and_then(|header| object_size(*header));
        if declared == Some(self.request.len()) {
            self.state = State::Queued;
            return;
        }
        log::warn!("DOE: object of {} bytes does not match its header ({declared:?})", self.request.len());
        match self.malformed {
            Malformed::Silent => self.request.clear(),
            Malformed::Error => self.fail("length mismatch"),
        }
    }

    fn pop(&mut self) {
        match &mut self.state {
            State::Ready { cursor } => {
                *cursor += 4;
                if *cursor >= self.response.len() {
                    self.response.clear();
                    self.state = State::Idle;
                }
            }
            State::Idle | State::Queued | State::Working | State::Failed => {}
        }
    }

    fn fail(&mut self, why: &str) {
        log::warn!("DOE Error: {why}");
        self.request.clear();
        self.response.clear();
        self.state = State::Failed;
    }
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    for (slot, byte) in value.iter_mut().zip(bytes.iter().skip(at)) {
        *slot = *byte;
    }
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUSY: u32 = 1;
    const ERROR: u32 = 4;
    const READY: u32 = 1 << 31;
    const GO: [u8; 4] = [0, 0, 0, 0x80];

    fn mailbox() -> Mailbox {
        Mailbox::new(Malformed::Silent)
    }

    fn send(mailbox: &mut Mailbox, dwords: &[u32]) {
        for value in dwords {
            mailbox.write(offset::WRITE_MAILBOX, 0, &value.to_le_bytes());
        }
        mailbox.write(offset::CONTROL, 0, &GO);
    }

    fn status(mailbox: &Mailbox) -> u32 {
        mailbox.read(offset::STATUS)
    }

    #[test]
    fn one_object_there_and_back() {
        let mut mailbox = mailbox();
        send(&mut mailbox, &[0x0000_0001, 3, 0]);
        assert_eq!(status(&mailbox), BUSY);
        let request = mailbox.take_request().unwrap();
        assert_eq!(request, [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(status(&mailbox), BUSY, "busy until it is answered");
        assert!(mailbox.take_request().is_none());
        mailbox.respond(request, Some(&[0x11, 0x22, 0x33, 0x44, 5, 6, 7, 8]));
        assert_eq!(status(&mailbox), READY);
        assert_eq!(mailbox.read(offset::READ_MAILBOX), 0x4433_2211);
        mailbox.write(offset::READ_MAILBOX, 2, &[0]);
        assert_eq!((status(&mailbox), mailbox.read(offset::READ_MAILBOX)), (READY, 0x0807_0605));
        mailbox.write(offset::READ_MAILBOX, 0, &[0; 4]);
        assert_eq!((status(&mailbox), mailbox.read(offset::READ_MAILBOX)), (0, 0));
        mailbox.write(offset::READ_MAILBOX, 0, &[0; 4]);
        assert_eq!(status(&mailbox), 0, "a pop too many is nothing");
    }

    #[test]
    fn silence_leaves_ready_clear() {
        let mut mailbox = mailbox();
        send(&mut mailbox, &[1, 2]);
        let request = mailbox.take_request().unwrap();
        mailbox.respond(request, None);
        assert_eq!(status(&mailbox), 0);
    }

    #[test]
    fn a_length_that_lies_is_discarded_or_an_error() {
        for dwords in [&[][..], &[1], &[1, 0], &[1, 1], &[1, 3], &[1, 2, 0], &[1, 0x3_FFFF, 0]] {
            let mut silent = mailbox();
            send(&mut silent, dwords);
            assert_eq!(status(&silent), 0, "{dwords:?}");
            assert!(silent.take_request().is_none());
            send(&mut silent, &[1, 2]);
            assert_eq!(status(&silent), BUSY, "and the next object is a new one");

            let mut loud = Mailbox::new(Malformed::Error);
            send(&mut loud, dwords);
            assert_eq!(status(&loud), ERROR, "{dwords:?}");
            send(&mut loud, &[1, 2]);
            assert_eq!(status(&loud), ERROR, "until an abort");
            loud.write(offset::CONTROL, 0, &[1, 0, 0, 0]);
            assert_eq!(status(&loud), 0);
        }
    }

    #[test]
    fn an_abort_wins_over_work_under_way() {
        let mut mailbox = mailbox();
        send(&mut mailbox, &[1, 2]);
        let request = mailbox.take_request().unwrap();
        mailbox.write(offset::CONTROL, 0, &[1]);
        assert_eq!(status(&mailbox), 0);
        send(&mut mailbox, &[1, 3, 7]);
        mailbox.respond(request, Some(&[0; 8]));
        assert_eq!(status(&mailbox), BUSY, "the late answer belongs to nobody");
        assert_eq!(mailbox.take_request().unwrap().len(), 12);
    }

    #[test]
    fn go_over_an_unread_response_is_an_error() {
        let mut mailbox = mailbox();
        send(&mut mailbox, &[1, 2]);
        let request = mailbox.take_request().unwrap();
        mailbox.respond(request, Some(&[0; 8]));
        send(&mut mailbox, &[1, 2]);
        assert_eq!(status(&mailbox), ERROR);
    }

    #[test]
    fn partial_writes_carry_no_dword() {
        let mut mailbox = mailbox();
        mailbox.write(offset::WRITE_MAILBOX, 0, &[1, 0]);
        mailbox.write(offset::WRITE_MAILBOX, 3, &[1]);
        send(&mut mailbox, &[1, 2]);
        assert_eq!(mailbox.take_request().unwrap().len(), 8);
    }

    proptest! {
        #[test]
        fn any_register_traffic_is_survived(writes in prop::collection::vec(
            (0_u16..8, 0_usize..4, prop::collection::vec(any::<u8>(), 0..4), any::<bool>()), 0..200)) {
            let mut mailbox = mailbox();
            for (register, lane, bytes, answer) in writes {
                mailbox.write(register * 4, lane, &bytes);
                if answer && let Some(request) = mailbox.take_request() {
                    mailbox.respond(request, Some(&[0; 12]));
                }
                let status = status(&mailbox);
                prop_assert!([0, BUSY, ERROR, READY].contains(&status));
            }
        }
    }
}
