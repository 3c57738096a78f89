//! Answers that wait until DMA is drained, and clients and requesters that do not play along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod vfio_user_support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use spdm::doe::{DiscoveryRequest, DiscoveryResponse, Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::{Driver, Requester, Response as SpdmResponse, Transport as SpdmTransport};
use tdisp::wire::{FunctionId, LockFlags, LockRequest, Request, RequestMessage, TdiState};
use tdispctl::pci::Width;
use tdispctl::transport::Transport as _;
use tdispd_proto::frame::{Command as FrameCommand, Frame, Transport};
use tdispd_proto::vfio_user::{Command, DmaAccess, DmaMap, put_reply};
use tests::control::Client as Watcher;
use tests::host::{Host, STREAM};
use tests::rig::Rig;
use tests::spdm_socket::ask;
use vfio_user_support::{Client, Message};
use zerocopy::IntoBytes;

const COMMAND: u16 = 0x04;

/// What the devices of this process have warned of.
static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// From now on they are noted.
    fn note() {
        // Another test of this process may have been first.
        let _ = log::set_logger(&WARNINGS);
        log::set_max_level(log::LevelFilter::Warn);
    }

    /// Those about `function`: of one device, if each test here has a number of its own.
    fn about(function: usize) -> Vec<String> {
        let about = format!("function {function}: ");
        WARNINGS.0.lock().unwrap().iter().filter(|line| line.starts_with(&about)).cloned().collect()
    }
}

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// A client of `function` whose memory has no file, so that DMA is a message it may sit on; its FILL is under way.
fn client_with_dma_under_way(rig: &Rig, function: usize) -> (Client, Message) {
    let mut client = Client::connect(rig.socket(function));
    client.request(Command::VERSION, &[0; 4]).unwrap();
    let map = DmaMap { readable: true, writable: true, offset: 0, address: 0x10_0000, size: 0x1000 };
    client.request(Command::DMA_MAP, &map.encode()).unwrap();
    client.write(7, 0x10, &0xC000_0000_u32.to_le_bytes()).unwrap();
    client.write(7, 0x18, &0x80_0000_0000_u64.to_le_bytes()).unwrap();
    client.write(7, 0x20, &0xC001_0000_u32.to_le_bytes()).unwrap();
    client.write(7, COMMAND.into(), &6_u16.to_le_bytes()).unwrap();
    // DMA_DESTINATION, DMA_LENGTH, DMA_COMMAND = FILL, DMA_START.
    client.write(0, 0x108, &0x10_0000_u64.to_le_bytes()).unwrap();
    client.write(0, 0x110, &64_u64.to_le_bytes()).unwrap();
    client.write(0, 0x120, &2_u32.to_le_bytes()).unwrap();
    client.write(0, 0x124, &1_u32.to_le_bytes()).unwrap();
    let message = client.receive().unwrap();
    assert_eq!(message.header.command, Command::DMA_WRITE);
    (client, message)
}

fn acknowledge(client: &mut Client, message: &Message) {
    let mut reply = Vec::new();
    put_reply(&mut reply, &message.header, &[DmaAccess::new(0x10_0000, 64).as_bytes()]);
    client.send(&reply, &[]);
}

/// Until the registers of the client's function are private: LOCK was carried out, whether or not it is answered.
fn wait_until_locked(client: &mut Client) {
    for _ in 0..10_000 {
        if client.read(0, 0, 4).unwrap() == [0xFF; 4] {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("LOCK was not carried out");
}

#[test]
fn lock_is_not_answered_before_dma_is_drained() {
    const BUSY: usize = 2;
    Warnings::note();
    let rig = Rig::with("", BUSY + 1);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let (mut client, message) = client_with_dma_under_way(&rig, BUSY);
    let locked = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&locked);
    let thread = std::thread::spawn(move || {
        host.lock(BUSY as u16);
        told.store(true, Ordering::SeqCst);
        host
    });
    wait_until_locked(&mut client);
    // An answer that does not wait for DMA would be here soon; one that gave up waiting was warned of first.
    std::thread::sleep(Duration::from_millis(20));
    let answered = locked.load(Ordering::SeqCst);
    assert!(!answered || !Warnings::about(BUSY).is_empty(), "answered while DMA was in flight");
    acknowledge(&mut client, &message);
    let mut host = thread.join().unwrap();
    assert_eq!(host.state(BUSY as u16), TdiState::CONFIG_LOCKED);
    host.stop(BUSY as u16);
    let status = client.read(0, 0x128, 4).unwrap();
    assert_eq!(status, [0; 4], "scrubbed");
}

#[test]
fn a_client_that_never_answers_does_not_hold_the_device_for_ever() {
    let rig = Rig::with("", 2);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let (mut client, _message) = client_with_dma_under_way(&rig, 1);
    let thread = std::thread::spawn(move || {
        let answer = host.try_lock(1, LockFlags::new(), 0);
        (host, answer)
    });
    // It leaves: nobody is there to answer, and what it had is gone.
    wait_until_locked(&mut client);
    drop(client);
    let (mut host, answer) = thread.join().unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(host.state(1), TdiState::CONFIG_UNLOCKED, "its reset came after LOCK");
}

#[test]
fn a_client_that_stays_silent_delays_one_answer_and_no_other() {
    const SILENT: usize = 3;
    Warnings::note();
    let rig = Rig::with("", SILENT + 1);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let (mut client, message) = client_with_dma_under_way(&rig, SILENT);
    assert!(Warnings::about(SILENT).is_empty());
    host.lock(SILENT as u16);
    let given_up = ["function 3: the client did not answer DMA that had to be drained"];
    assert_eq!(Warnings::about(SILENT), given_up, "answered only once the device has given the client up");
    assert_eq!(host.state(SILENT as u16), TdiState::CONFIG_LOCKED);
    // Its answer comes too late to count for anything.
    acknowledge(&mut client, &message);
    host.stop(SILENT as u16);
    assert_eq!(client.read(0, 0x128, 4).unwrap(), [0; 4], "scrubbed");
    assert_eq!(Warnings::about(SILENT), given_up, "nothing else had to wait for it");
}

/// Hands data objects over, and brings nothing back.
struct Deaf<F>(F);

impl<F: FnMut(&[u8])> SpdmTransport for Deaf<F> {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<SpdmResponse, Self::Error> {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let mut object = Vec::new();
        Object { vendor: VENDOR_PCI_SIG, kind, payload: message }.encode(&mut object).unwrap();
        (self.0)(&object);
        Err("nobody listens")
    }

    fn wait(&mut self, _delay: Duration) {}
}

/// LOCK of function 1 in the requester's session; nobody waits for its answer.
fn lock_unheard(requester: &mut Requester, send: impl FnMut(&[u8])) {
    let lock = LockRequest { default_stream_id: STREAM, ..LockRequest::default() };
    let message = [&[1], &tdisp(Request::Lock(lock))[..]].concat();
    Driver::new(requester, Deaf(send)).vendor(3, &VENDOR_PCI_SIG.to_le_bytes(), &message).unwrap_err();
}

/// A TDISP request to function 1.
fn tdisp(request: Request<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    RequestMessage { interface: FunctionId::new(1, None).into(), request }.encode(&mut message);
    message
}

#[test]
fn an_abort_overtakes_an_answer_that_waits_for_dma() {
    let rig = Rig::with("", 2);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let (mut client, message) = client_with_dma_under_way(&rig, 1);
    let doe = host.inventory.doe[0].offset;
    let (control, status, write) = (doe + 0x08, doe + 0x0C, doe + 0x10);
    let config = host.device.config().unwrap();
    lock_unheard(&mut host.requester, |object| {
        for dword in object.as_chunks().0 {
            config.write(write, Width::Dword, u32::from_le_bytes(*dword)).unwrap();
        }
        config.write(control, Width::Dword, 1 << 31).unwrap();
    });
    wait_until_locked(&mut client);
    host.config_write(control, Width::Dword, 1);
    assert_eq!(host.config_read(status, Width::Dword), 0);
    acknowledge(&mut client, &message);
    // The next answer is that to the next object, and behind it there is no other.
    let mut discovery = Vec::new();
    let payload = &DiscoveryRequest { index: 2, version: 0 }.encode();
    Object { vendor: VENDOR_PCI_SIG, kind: ObjectType::DISCOVERY, payload }.encode(&mut discovery).unwrap();
    let answer = host.object(&discovery).unwrap();
    assert_eq!(DiscoveryResponse::parse(Object::parse(&answer).unwrap().payload).unwrap().kind.0, 2);
    assert_eq!(host.config_read(status, Width::Dword), 0);
    host.session();
    assert_eq!(host.state(1), TdiState::ERROR, "it was locked by a session that is gone");
}

#[test]
fn a_requester_that_breaks_off_while_its_answer_is_held_is_gone_and_holds_nothing_up() {
    let (rig, address) = Rig::with_spdm_socket("", 2);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let (mut client, message) = client_with_dma_under_way(&rig, 1);
    let mut watcher = Watcher::watch(rig.control());
    // The session knows no transport: LOCK comes over TCP, and is answered once DMA is drained.
    let mut stream = TcpStream::connect(address).unwrap();
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    lock_unheard(&mut host.requester, |payload| {
        let mut bytes = Vec::new();
        Frame { command: FrameCommand::NORMAL, transport: Transport::PCI_DOE, payload }
            .encode(&mut bytes)
            .unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let told = watcher.story("transition");
    assert_eq!(told, ["client-connected", "1: CONFIG_UNLOCKED CONFIG_LOCKED locked"]);
    drop(stream);
    assert_eq!(watcher.story("client-disconnected"), ["client-disconnected"]);
    acknowledge(&mut client, &message);
    // The requester is out of step with the session and cannot read what answers this, but the device tells of refusals:
    // a request whose answer nobody waits for is not outstanding (PCIe 6.1 §11.2.4).
    host.vendor(1, &tdisp(Request::GetState)).unwrap_err();
    host.session();
    assert_eq!(watcher.story("session-ended"), ["session-ended restarted"]);
    assert_eq!(host.state(1), TdiState::ERROR);
    // And the seat at the socket is free.
    let mut next = TcpStream::connect(address).unwrap();
    let hello = ask(&mut next, FrameCommand::TEST, b"Client Hello!\0");
    assert_eq!(hello, (FrameCommand::TEST, b"Server Hello!\0".to_vec()));
}
