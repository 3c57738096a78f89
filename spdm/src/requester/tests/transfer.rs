//! Transfers in chunks, by a responder that gets them wrong. Proper ones are in `tests/roles`.

use super::peer::{Peer, Suite};
use crate::crypto::RingProvider;
use crate::requester::{
    Command, Misuse, Reply, Requester, RequesterConfig, RequesterConfigError, RequesterError, Step, Violation,
};
use crate::wire::{
    Chunk, ChunkGet, ChunkSendAck, Code, ErrorCode, ErrorResponse, NotReady, ResponderFlags,
    STANDARD_PCI_SIG, VendorDefined, Version,
};

const VERSION: Version = Suite::SMALL.version;
const REQUEST: Code = Code::VENDOR_DEFINED_REQUEST;

fn encoded<E>(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(encode(&mut out).is_ok());
    out
}

fn vendor(payload: &[u8]) -> VendorDefined<'_> {
    VendorDefined {
        version: VERSION,
        standard_id: STANDARD_PCI_SIG,
        vendor_id: &[1, 0],
        payload,
        large: false,
    }
}

fn error(code: ErrorCode, extended: &[u8]) -> Vec<u8> {
    encoded(|out| {
        ErrorResponse { version: VERSION, code, data: 0, extended }.encode(out);
        Ok::<_, ()>(())
    })
}

fn large(handle: u8) -> Vec<u8> {
    error(ErrorCode::LARGE_RESPONSE, &[handle])
}

fn get(sequence: u32) -> Step {
    let bytes = encoded(|out| ChunkGet { version: VERSION, handle: 5, sequence }.encode(out));
    Step::Send { secured: false, bytes }
}

/// Connected to a responder that takes 64 bytes at a time and 1,000 in chunks.
fn connected(flags: u32, settings: RequesterConfig) -> Requester {
    let mut peer = Peer::new(Suite::SMALL);
    peer.flags |= flags;
    peer.tamper = Box::new(move |code, message| {
        if code == Code::CAPABILITIES && flags != 0 {
            message[12..16].copy_from_slice(&64_u32.to_le_bytes());
            message[16..20].copy_from_slice(&1000_u32.to_le_bytes());
        }
    });
    let mut requester = Requester::new(settings, Box::new(RingProvider::new())).unwrap();
    peer.drive(&mut requester).connect().unwrap();
    requester
}

/// With a vendor-defined request of `length` bytes under way, and its first transfer.
fn asking(length: usize) -> (Requester, Vec<u8>) {
    let mut requester = connected(ResponderFlags::CHUNK, Suite::SMALL.config());
    let payload = vec![7; length - 11];
    let command = Command::Vendor { standard_id: STANDARD_PCI_SIG, vendor_id: vec![1, 0], payload };
    let Step::Send { secured: false, bytes } = requester.begin(command).unwrap() else { panic!() };
    (requester, bytes)
}

fn violation(violation: Violation) -> Result<Step, RequesterError> {
    Err(RequesterError::Violation { request: REQUEST, violation })
}

fn response(last: bool, handle: u8, sequence: u32, size: Option<u32>, bytes: &[u8]) -> Vec<u8> {
    encoded(|out| {
        Chunk { version: VERSION, last, handle, sequence, message_size: size, bytes }.encode_response(out)
    })
}

#[test]
fn chunks_of_a_response_have_to_continue_each_other() {
    let whole = encoded(|out| vendor(&[3; 100]).encode_response(out));
    let size = Some(u32::try_from(whole.len()).unwrap());
    let (first, rest) = whole.split_at(60);
    let broken = Violation::Chunk;
    let cases = [
        (0, response(false, 6, 0, size, first), broken("another chunk was asked for")),
        (0, response(false, 5, 1, None, first), broken("another chunk was asked for")),
        (0, response(false, 5, 0, size, &first[..25]), broken("it is shorter than the smallest transfer")),
        (0, response(true, 5, 0, size, first), broken("the chunks do not add up")),
        (0, response(false, 5, 0, Some(60), first), broken("the chunks do not add up")),
        (0, response(false, 5, 0, Some(59), first), broken("the chunks do not add up")),
        (0, response(false, 5, 0, Some(0x2_0001), first), Violation::TooLong(0x2_0001)),
        (0, response(false, 5, 0, Some(u32::MAX), first), Violation::TooLong(0xFFFF_FFFF)),
        (1, response(true, 5, 0, size, rest), broken("another chunk was asked for")),
        (1, response(true, 5, 1, None, &rest[1..]), broken("the chunks do not add up")),
        (1, response(false, 5, 1, None, rest), broken("the chunks do not add up")),
        (1, response(true, 5, 1, None, first), broken("the chunks do not add up")),
        (1, vec![0x13, 0x7E, 0, 0], Violation::Code(Code::VENDOR_DEFINED_RESPONSE)),
        (0, vec![0x12, 0x06, 0, 0], Violation::Version { expected: VERSION, received: Version::V1_2 }),
    ];
    for (before, bad, expected) in cases {
        let (mut requester, _) = asking(30);
        assert_eq!(requester.receive(false, &large(5)), Ok(get(0)));
        if before == 1 {
            assert_eq!(requester.receive(false, &response(false, 5, 0, size, first)), Ok(get(1)));
        }
        assert_eq!(requester.receive(false, &bad), violation(expected));
        assert_eq!(requester.receive(false, &bad), Err(Misuse::NoCommand.into()), "the command is over");
    }

    let (mut requester, _) = asking(30);
    requester.receive(false, &large(5)).unwrap();
    // Padding of the transport does not matter.
    let padded = [response(false, 5, 0, size, first), vec![0; 3]].concat();
    assert_eq!(requester.receive(false, &padded), Ok(get(1)));
    let busy = error(ErrorCode::BUSY, &[]);
    assert!(matches!(requester.receive(false, &busy), Ok(Step::RetryAfter(_))));
    assert_eq!(requester.retry(), Ok(get(1)), "the same chunk again");
    let end = response(true, 5, 1, None, rest);
    for length in 0..end.len() {
        let (mut requester, _) = asking(30);
        requester.receive(false, &large(5)).unwrap();
        requester.receive(false, &padded).unwrap();
        assert!(requester.receive(false, &end[..length]).is_err(), "{length}");
    }
    assert_eq!(requester.receive(false, &end), Ok(Step::Done(Reply::Vendor(vec![3; 100]))));
}

#[test]
fn a_large_response_has_to_be_agreed_on() {
    let large = || large(5);
    let refused = |code| Err(RequesterError::Refused { request: REQUEST, code, data: 0 });
    let without = RequesterConfig { chunks: false, ..Suite::SMALL.config() };
    for (flags, settings) in [(0, Suite::SMALL.config()), (ResponderFlags::CHUNK, without)] {
        let mut requester = connected(flags, settings);
        let command = Command::Vendor { standard_id: 3, vendor_id: vec![1, 0], payload: vec![1; 20] };
        requester.begin(command).unwrap();
        assert_eq!(requester.receive(false, &large()), refused(ErrorCode::LARGE_RESPONSE));
    }
    let mut requester = Suite::SMALL.requester();
    requester.begin(Command::Connect).unwrap();
    assert!(requester.receive(false, &large()).is_err(), "VERSION is never large");

    // Neither in the middle of a request, nor in the middle of a response, nor as the response.
    let (mut requester, _) = asking(200);
    assert_eq!(requester.receive(false, &large()), refused(ErrorCode::LARGE_RESPONSE));
    let (mut requester, _) = asking(30);
    requester.receive(false, &large()).unwrap();
    assert_eq!(requester.receive(false, &large()), refused(ErrorCode::LARGE_RESPONSE));
    let (mut requester, _) = asking(30);
    requester.receive(false, &large()).unwrap();
    let nested = response(true, 5, 0, Some(5), &large());
    assert_eq!(
        requester.receive(false, &nested),
        violation(Violation::Chunk("there are chunks in the chunks"))
    );
}

fn ack(early_error: bool, handle: u8, sequence: u32, response: &[u8]) -> Vec<u8> {
    encoded(|out| ChunkSendAck { version: VERSION, early_error, handle, sequence, response }.encode(out))
}

fn sent(step: Result<Step, RequesterError>) -> Vec<u8> {
    let Ok(Step::Send { secured: false, bytes }) = step else { panic!("{step:?}") };
    bytes
}

#[test]
fn acknowledgements_answer_the_chunk_that_was_sent() {
    let invalid = error(ErrorCode::INVALID_REQUEST, &[]);
    let refused =
        || Err(RequesterError::Refused { request: REQUEST, code: ErrorCode::INVALID_REQUEST, data: 0 });
    let cases = [
        (ack(false, 2, 0, &[]), violation(Violation::Chunk("another chunk is acknowledged"))),
        (ack(false, 1, 1, &[]), violation(Violation::Chunk("another chunk is acknowledged"))),
        (ack(true, 1, 0, &[0x13, 0x7E]), violation(Violation::Chunk("an early error that is none"))),
        (ack(true, 1, 0, &[]), violation(Violation::Chunk("an early error that is none"))),
        (ack(true, 1, 0, &invalid), refused()),
        (invalid.clone(), refused()),
        (vec![0x13, 0x7E, 0, 0], violation(Violation::Code(Code::VENDOR_DEFINED_RESPONSE))),
    ];
    for (bad, expected) in cases {
        let (mut requester, first) = asking(100);
        let chunk = Chunk::parse_request(&mut crate::codec::Reader::new(&first)).unwrap();
        assert_eq!((first.len(), chunk.handle, chunk.message_size, chunk.last), (64, 1, Some(100), false));
        assert_eq!(requester.receive(false, &bad), expected);
    }
    let (mut requester, first) = asking(100);
    let second = sent(requester.receive(false, &ack(false, 1, 0, &[])));
    assert_eq!([&first[16..], &second[12..]].concat()[11..], [7; 89]);
    assert_eq!(second[2], 1, "the last");
    let answer = encoded(|out| vendor(&[9; 4]).encode_response(out));
    let done = requester.receive(false, &ack(false, 1, 1, &[&answer[..], &[0; 2]].concat()));
    assert_eq!(done, Ok(Step::Done(Reply::Vendor(vec![9; 4]))));
}

#[test]
fn a_chunk_is_repeated_and_a_large_request_begun_again() {
    let busy = error(ErrorCode::BUSY, &[]);
    let (mut requester, first) = asking(100);
    requester.receive(false, &busy).unwrap();
    assert_eq!(sent(requester.retry()), first, "busy before the chunk was taken");
    let second = sent(requester.receive(false, &ack(false, 1, 0, &[])));
    requester.receive(false, &busy).unwrap();
    assert_eq!(sent(requester.retry()), second);
    // Busy with the whole request.
    requester.receive(false, &ack(false, 1, 1, &busy)).unwrap();
    let again = sent(requester.retry());
    assert_eq!((again[3], &again[4..]), (2, &first[4..]), "another transfer");
    requester.receive(false, &ack(false, 2, 0, &[])).unwrap();

    // Not ready with it: fetched as any response, and that may be large.
    let wait = NotReady { exponent: 1, request: REQUEST, token: 7, multiplier: 2 };
    let wait = error(ErrorCode::RESPONSE_NOT_READY, &wait.bytes());
    requester.receive(false, &ack(false, 2, 1, &wait)).unwrap();
    assert_eq!(sent(requester.retry()), [0x13, 0xFF, REQUEST.0, 7]);
    assert_eq!(requester.receive(false, &large(5)), Ok(get(0)));

    // But a chunk itself is never deferred.
    for before in [0, 1] {
        let (mut requester, _) = asking(100);
        if before == 1 {
            requester.receive(false, &ack(false, 1, 0, &[])).unwrap();
        }
        assert_eq!(requester.receive(false, &wait), violation(Violation::NotReady));
    }
}

#[test]
fn limits_are_kept() {
    let (_, first) = asking(64);
    assert_eq!((first.len(), first[1]), (64, REQUEST.0), "one transfer");
    asking(1000);
    let mut requester = connected(ResponderFlags::CHUNK, Suite::SMALL.config());
    let command = |length: usize| Command::Vendor {
        standard_id: 3,
        vendor_id: vec![1, 0],
        payload: vec![0; length - 11],
    };
    let misuse = RequesterError::Misuse(Misuse::TooLong { length: 1001, limit: 1000 });
    assert_eq!(requester.begin(command(1001)), Err(misuse));
    assert!(requester.begin(command(1000)).is_ok(), "nothing had begun");

    let without = RequesterConfig { chunks: false, ..Suite::SMALL.config() };
    let mut requester = connected(ResponderFlags::CHUNK, without);
    let misuse = RequesterError::Misuse(Misuse::TooLong { length: 65, limit: 64 });
    assert_eq!(requester.begin(command(65)), Err(misuse));

    let settings = RequesterConfig { max_message_size: 4607, ..Suite::SMALL.config() };
    let result = Requester::new(settings, Box::new(RingProvider::new())).map(drop);
    assert_eq!(result, Err(RequesterConfigError::MaxMessageSize(4607)));
}
