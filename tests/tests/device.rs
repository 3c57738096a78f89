//! The whole device in this process, message by message: what each state shows, what moves it, what outlives what.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use tdisp::wire::{ErrorCode, LockFlags, Request, Response, TdiState};
use tdispctl::pci::Width;
use tests::host::Host;
use tests::rig::Rig;

const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const SCRATCH: u64 = 0x10;
const MEMORY_BAR: u8 = 2;
const PRIVATE: u64 = 0;
const SHARED: u64 = 128 * 4096;
const ONES: [u8; 8] = [0xFF; 8];
const PATTERN: [u8; 8] = *b"tdispd!?";

/// What a private and a shared place show: (registers, private memory, shared memory).
fn look(host: &mut Host) -> ([u8; 8], [u8; 8], [u8; 8]) {
    (host.bar_read(0, SCRATCH), host.bar_read(MEMORY_BAR, PRIVATE), host.bar_read(MEMORY_BAR, SHARED))
}

fn fill(host: &mut Host, pattern: &[u8; 8]) {
    host.bar_write(0, SCRATCH, pattern);
    host.bar_write(MEMORY_BAR, PRIVATE, pattern);
    host.bar_write(MEMORY_BAR, SHARED, pattern);
}

#[test]
fn each_state_shows_what_it_should() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    fill(&mut host, &PATTERN);
    assert_eq!(look(&mut host), (PATTERN, PATTERN, PATTERN), "CONFIG_UNLOCKED");
    host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    assert_eq!(host.state(0), TdiState::CONFIG_LOCKED);
    assert_eq!(look(&mut host), (ONES, ONES, PATTERN), "CONFIG_LOCKED");
    let other = [7; 8];
    fill(&mut host, &other);
    assert_eq!(look(&mut host), (ONES, ONES, other));
    host.start(0, nonce);
    assert_eq!(host.state(0), TdiState::RUN);
    assert_eq!(look(&mut host), ([0; 8], [0; 8], other), "RUN: what the host wrote went nowhere");
    fill(&mut host, &other);
    assert_eq!(look(&mut host), (other, other, other));
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    assert_eq!(host.state(0), TdiState::ERROR, "Bus Master Enable was cleared");
    assert_eq!(look(&mut host), (ONES, ONES, other), "ERROR");
    host.stop(0);
    assert_eq!(host.state(0), TdiState::CONFIG_UNLOCKED);
    assert_eq!(look(&mut host), ([0; 8], [0; 8], other), "scrubbed");
}

#[test]
fn the_report_has_the_addresses_that_were_programmed() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let offset = 0xD000_0000_u64.wrapping_neg();
    host.try_lock(0, LockFlags::new(), offset).unwrap();
    let whole = host.report(0, 4096);
    assert_eq!(whole, host.report(0, 7), "in pieces");
    let low = u64::from(host.config_read(0x18, Width::Dword) & !0xF);
    let memory = low | u64::from(host.config_read(0x1C, Width::Dword)) << 32;
    assert_ne!(memory, 0);
    let ranges: Vec<_> =
        whole.ranges.iter().filter(|range| range.range_id == u16::from(MEMORY_BAR)).collect();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[0].first_page, memory.wrapping_add(offset) >> 12);
    assert_eq!((ranges[0].pages, ranges[0].attributes.non_tee()), (128, false));
    assert_eq!(ranges[1].first_page, (memory + SHARED).wrapping_add(offset) >> 12);
    assert_eq!((ranges[1].pages, ranges[1].attributes.non_tee()), (128, true));
}

#[test]
fn configuration_writes_take_a_locked_interface_to_error() {
    const FLR: u32 = 1 << 15;
    // (offset, width, value) and the state after it, from CONFIG_LOCKED.
    let device_control = 0x58;
    let writes: [(u16, Width, u32, TdiState); 9] = [
        (COMMAND, Width::Word, MEMORY_SPACE, TdiState::ERROR),
        (COMMAND, Width::Word, BUS_MASTER, TdiState::ERROR),
        (COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER | 1 << 10, TdiState::CONFIG_LOCKED),
        (0x10, Width::Dword, 0xE000_0000, TdiState::ERROR),
        (0x1C, Width::Dword, 0x7F, TdiState::ERROR),
        (0x0C, Width::Byte, 0x10, TdiState::CONFIG_LOCKED),
        (0x3C, Width::Byte, 11, TdiState::CONFIG_LOCKED),
        (device_control, Width::Word, 0x2010, TdiState::ERROR),
        (device_control, Width::Word, FLR, TdiState::ERROR),
    ];
    for (offset, width, value, expected) in writes {
        let rig = Rig::new();
        let mut host = Host::plug(rig.socket(0));
        host.session();
        host.secure_stream();
        host.lock(0);
        host.config_write(offset, width, value);
        assert_eq!(host.state(0), expected, "{value:#x} to {offset:#x}");
        host.stop(0);
    }
}

#[test]
fn a_stream_that_is_disabled_takes_its_interface_along() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    let stream = host.stream();
    stream.set_enabled(tdispctl::transport::Transport::config(&mut host.device).unwrap(), false).unwrap();
    assert_eq!(host.state(0), TdiState::ERROR);
    host.stop(0);
    host.tdisp(0, Request::GetReport { offset: 0, length: 64 }, |answer| {
        assert_eq!(answer, Response::error(ErrorCode::INVALID_INTERFACE_STATE, 0));
    });
    assert_eq!(host.try_lock(0, LockFlags::new(), 0).unwrap_err(), ErrorCode::INVALID_REQUEST);
}

#[test]
fn the_end_of_the_session_is_the_end_of_the_interface() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    host.bar_write(0, SCRATCH, &PATTERN);
    host.end_session();
    assert_eq!(host.bar_read(0, SCRATCH), ONES);
    let first = host.session();
    assert_eq!(host.state(0), TdiState::ERROR, "seen from session {first:#x}");
    host.stop(0);
    assert_eq!(host.bar_read(0, SCRATCH), [0; 8]);
    host.secure_stream();
    let nonce = host.lock(0);
    host.start(0, nonce);
}

#[test]
fn a_function_level_reset_leaves_session_and_stream() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    let control = host.config_read(0x58, Width::Word);
    host.config_write(0x58, Width::Word, control | 1 << 15);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER);
    assert_eq!(host.state(0), TdiState::ERROR, "the session still answers");
    host.stop(0);
    let nonce = host.lock(0);
    host.start(0, nonce);
    assert_eq!(host.state(0), TdiState::RUN, "on the same keys");
}

#[test]
fn a_new_client_finds_a_device_as_after_power_on() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    fill(&mut host, &PATTERN);
    drop(host);
    let mut host = Host::plug(rig.socket(0));
    assert_eq!(look(&mut host), ([0; 8], [0; 8], [0; 8]));
    host.run();
}

#[test]
fn functions_have_states_of_their_own() {
    let rig = Rig::with("", 2);
    let mut host = Host::plug(rig.socket(0));
    let mut other = Host::plug(rig.socket(1));
    assert!(other.inventory.doe.is_empty() && other.inventory.ide.is_none(), "function 0 speaks for both");
    host.session();
    host.secure_stream();
    let nonce = host.lock(1);
    host.start(1, nonce);
    assert_eq!((host.state(0), host.state(1)), (TdiState::CONFIG_UNLOCKED, TdiState::RUN));
    let nonce = host.lock(0);
    host.start(0, nonce);
    other.bar_write(0, SCRATCH, &PATTERN);
    drop(other);
    assert_eq!((host.state(0), host.state(1)), (TdiState::RUN, TdiState::CONFIG_UNLOCKED));
    let mut other = Host::plug(rig.socket(1));
    assert_eq!(other.bar_read(0, SCRATCH), [0; 8]);
    let nonce = host.lock(1);
    host.start(1, nonce);
    drop(host);
    // Function 0 was reset, and with it the device: the other function is back in CONFIG_UNLOCKED and its BARs are gone.
    assert_eq!(other.config_read(0x10, Width::Dword), 0);
}
