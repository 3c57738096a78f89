//! Messages cut and glued in every way, and whose the descriptors are.

use rustix::event::{EventfdFlags, eventfd};
use tdispd_proto::vfio_user::put_request;

use super::*;

fn message(command: Command, payload: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_request(&mut out, 1, command, false, &[&vec![7; payload]]);
    out
}

fn give(input: &mut Input, bytes: &[u8], fds: usize) {
    let fds = (0..fds).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect();
    let mut rest = bytes;
    let mut fds = Some(Fds { fds, truncated: false });
    while !rest.is_empty() {
        let space = input.space();
        let count = space.len().min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        input.received(count, fds.take().unwrap_or_default());
        rest = &rest[count..];
    }
}

/// The bytes and the number of descriptors of one read.
type Read = (Vec<u8>, usize);

/// A command and how many descriptors it has; -1 if some were lost.
type Taken = (Command, isize);

fn take(input: &mut Input) -> Vec<Taken> {
    let mut taken = Vec::new();
    while let Next::Message(header, _, fds) = input.next() {
        let count = if fds.truncated { -1 } else { fds.fds.len() as isize };
        taken.push((header.command, count));
    }
    taken
}

const MAP: Command = Command::DMA_MAP;
const IRQS: Command = Command::DEVICE_SET_IRQS;
const READ: Command = Command::REGION_READ;

#[test]
fn a_message_in_single_bytes_is_one_message() {
    let bytes = message(READ, 16);
    let mut input = Input::default();
    for byte in &bytes[..bytes.len() - 1] {
        give(&mut input, &[*byte], 0);
        assert!(matches!(input.next(), Next::Incomplete));
    }
    give(&mut input, &bytes[bytes.len() - 1..], 0);
    assert!(
        matches!(input.next(), Next::Message(header, range, _) if header.command == READ && range.len() == 16)
    );
    assert!(matches!(input.next(), Next::Incomplete));
}

#[test]
fn descriptors_belong_to_the_message_they_were_sent_with() {
    let (map, irqs, read) = (message(MAP, 32), message(IRQS, 20), message(READ, 16));
    let cases: Vec<(&str, Vec<Read>, Vec<Taken>)> = vec![
        ("alone", vec![(map.clone(), 1)], vec![(MAP, 1)]),
        ("behind one without", vec![([&map[..], &map].concat(), 1)], vec![(MAP, 0), (MAP, 1)]),
        ("glued by the sender", vec![([&map[..], &read].concat(), 1)], vec![(MAP, 1), (READ, 0)]),
        ("header first", vec![(map[..16].to_vec(), 1), (map[16..].to_vec(), 0)], vec![(MAP, 1)]),
        ("with the payload", vec![(map[..16].to_vec(), 0), (map[16..].to_vec(), 1)], vec![(MAP, 1)]),
        (
            "cut header",
            vec![([&map[..], &irqs[..3]].concat(), 2), (irqs[3..].to_vec(), 0)],
            vec![(MAP, 0), (IRQS, 2)],
        ),
        ("one nobody can use", vec![([&read[..], &read].concat(), 1)], vec![(READ, 0), (READ, 1)]),
        ("pieces", vec![(irqs[..20].to_vec(), 1), (irqs[20..].to_vec(), 1)], vec![(IRQS, 2)]),
        (
            "the end of one, then another with its own",
            vec![(irqs[..20].to_vec(), 2), ([&irqs[20..], &map].concat(), 1)],
            vec![(IRQS, 2), (MAP, 1)],
        ),
        (
            "more than a message carries",
            vec![(irqs[..20].to_vec(), 16), (irqs[20..].to_vec(), 1)],
            vec![(IRQS, -1)],
        ),
    ];
    for (name, reads, expected) in cases {
        let mut input = Input::default();
        let mut taken = Vec::new();
        for (bytes, fds) in reads {
            give(&mut input, &bytes, fds);
            taken.extend(take(&mut input));
        }
        assert_eq!(taken, expected, "{name}");
        assert!(input.batches.is_empty(), "{name}");
    }
}

#[test]
fn the_largest_message_fits_and_its_memory_is_given_back() {
    let mut input = Input::default();
    let bytes = message(Command::REGION_WRITE, MAX_MESSAGE_SIZE as usize - HEADER_SIZE);
    give(&mut input, &message(READ, 16), 0);
    give(&mut input, &bytes[..100], 0);
    assert_eq!(take(&mut input), [(READ, 0)]);
    give(&mut input, &bytes[100..], 0);
    assert_eq!(input.buffer.len(), MAX_MESSAGE_SIZE as usize);
    assert_eq!(take(&mut input), [(Command::REGION_WRITE, 0)]);
    input.space();
    assert_eq!(input.buffer.len(), INITIAL);
}

#[test]
fn sizes_are_judged_by_the_header_alone() {
    let mut long = message(READ, 0);
    long[4..8].copy_from_slice(&(MAX_MESSAGE_SIZE + 1).to_le_bytes());
    let mut input = Input::default();
    give(&mut input, &long, 0);
    assert!(matches!(input.next(), Next::Oversize(_)));
    assert_eq!(input.buffer.len(), INITIAL);

    let mut short = message(READ, 0);
    short[4..8].copy_from_slice(&15u32.to_le_bytes());
    let mut input = Input::default();
    give(&mut input, &[short, message(MAP, 32)].concat(), 0);
    assert!(matches!(input.next(), Next::Undersize(_)));
    assert_eq!(take(&mut input), [(MAP, 0)], "the step is kept");
}

/// Whose descriptors are whose is found by walking over messages: of small ones there must never be many.
#[test]
fn a_large_message_makes_no_room_for_many_small_ones() {
    let mut input = Input::default();
    let bytes = message(Command::REGION_WRITE, MAX_MESSAGE_SIZE as usize - HEADER_SIZE);
    give(&mut input, &bytes, 0);
    let Next::Message(..) = input.next() else { panic!("a whole message") };
    // One byte of another keeps the large buffer.
    input.start = 0;
    input.end = 1;
    input.buffer[0] = 1;
    assert_eq!(input.buffer.len(), MAX_MESSAGE_SIZE as usize);
    assert_eq!(input.space().len(), INITIAL);
}

#[test]
fn descriptors_that_nobody_keeps_cost_nothing() {
    let mut input = Input::default();
    for byte in message(IRQS, 4096) {
        input.space()[0] = byte;
        input.received(1, Fds { fds: Vec::new(), truncated: true });
    }
    assert_eq!(input.batches.len(), 1);
    assert_eq!(take(&mut input), [(IRQS, -1)]);
}
