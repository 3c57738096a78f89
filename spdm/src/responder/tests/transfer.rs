//! Messages in chunks: whole conversations in the smallest transfers, and everything that can go wrong in one.

use super::device::*;
use crate::codec::Reader;
use crate::crypto::{HashAlgorithm, RingProvider, hash};
use crate::responder::*;
use crate::wire::*;

/// Sizes of a conversation in chunks.
#[derive(Clone, Copy)]
pub(super) struct Chunked {
    /// Largest transfer of the responder.
    pub(super) limit: usize,
    /// Largest message of the requester.
    pub(super) message: u32,
}

const CHUNK_VERSIONS: [Version; 3] = [Version::V1_2, Version::V1_3, Version::V1_4];

/// The answer to a message in one transfer.
type Exchange<'a> = dyn FnMut(&[u8]) -> Vec<u8> + 'a;

impl Chunked {
    /// Sends a request as a requester does, in chunks if it has to be, and fetches the response so.
    pub(super) fn carry(
        self,
        version: Version,
        request: &[u8],
        mut exchange: impl FnMut(&[u8]) -> Vec<u8>,
    ) -> Vec<u8> {
        let response = if request.len() <= self.limit {
            exchange(request)
        } else {
            self.send(version, request, &mut exchange)
        };
        match ErrorResponse::parse(&mut Reader::new(&response)) {
            Ok(ErrorResponse { code: ErrorCode::LARGE_RESPONSE, extended: &[handle], .. }) => {
                self.fetch(version, handle, &mut exchange)
            }
            _ => response,
        }
    }

    fn send(self, version: Version, request: &[u8], exchange: &mut Exchange<'_>) -> Vec<u8> {
        let mut answer = Vec::new();
        for chunk in chunks(version, request, self.limit) {
            let response = exchange(&chunk);
            if response[1] == Code::ERROR.0 {
                return response;
            }
            let ack = ChunkSendAck::parse(&mut Reader::new(&response)).unwrap();
            assert_eq!((ack.version, ack.early_error, ack.handle), (version, false, 9));
            assert!(answer.is_empty(), "only the last chunk is answered");
            answer = ack.response.to_vec();
        }
        answer
    }

    fn fetch(self, version: Version, handle: u8, exchange: &mut Exchange<'_>) -> Vec<u8> {
        let (mut message, mut size) = (Vec::new(), 0);
        for sequence in 0.. {
            let response = exchange(&chunk_get(version, handle, sequence));
            let mut reader = Reader::new(&response);
            let chunk = Chunk::parse_response(&mut reader).unwrap();
            reader.finish(0).unwrap();
            assert_eq!((chunk.version, chunk.handle, chunk.sequence), (version, handle, sequence));
            assert!(chunk.is_long_enough());
            size = chunk.message_size.map_or(size, |size| usize::try_from(size).unwrap());
            message.extend_from_slice(chunk.bytes);
            assert_eq!(chunk.last, message.len() == size);
            if chunk.last {
                break;
            }
        }
        message
    }
}

/// CHUNK_SEND messages with handle 9 that carry `message`, none of them longer than `limit`.
fn chunks(version: Version, message: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let (mut chunks, mut rest) = (Vec::new(), message);
    for sequence in 0.. {
        let (bytes, behind) = rest.split_at(rest.len().min(limit - Chunk::overhead(sequence)));
        let last = behind.is_empty();
        let message_size = (sequence == 0).then(|| u32::try_from(message.len()).unwrap());
        let chunk = Chunk { version, last, handle: 9, sequence, message_size, bytes };
        chunks.push(encoded(|out| chunk.encode_request(out).unwrap()));
        rest = behind;
        if last {
            break;
        }
    }
    chunks
}

fn chunk_get(version: Version, handle: u8, sequence: u32) -> Vec<u8> {
    encoded(|out| ChunkGet { version, handle, sequence }.encode(out).unwrap())
}

/// Both sides move `transfer` bytes at a time, and 32 KiB in chunks.
fn device(version: Version, transfer: u32) -> Device {
    let mut settings = ResponderConfig {
        versions: vec![version],
        data_transfer_size: transfer,
        max_message_size: 0x8000,
        ..config()
    };
    settings.capabilities.chunks = true;
    let mut device = Device::with(settings, version);
    device.flags |= RequesterFlags::CHUNK;
    device.transfer = transfer;
    device.chunked = Some(Chunked { limit: transfer.try_into().unwrap(), message: 0x8000 });
    device
}

fn negotiated(version: Version, transfer: u32) -> Device {
    let mut device = device(version, transfer);
    device.negotiate();
    device
}

#[test]
fn every_message_travels_in_the_smallest_transfers() {
    for version in CHUNK_VERSIONS {
        for transfer in [42, 43, 64, 100, 4096] {
            // NEGOTIATE_ALGORITHMS, ALGORITHMS, KEY_EXCHANGE and its response are longer than 42 bytes.
            let mut device = negotiated(version, transfer);
            let chain = device.chain();
            let request = encoded(|out| {
                GetCertificate {
                    version,
                    slot: 0,
                    slot_size: false,
                    large: false,
                    offset: 0,
                    length: 0xFFFF,
                }
                .encode(out)
                .unwrap();
            });
            let response = device.send(&request);
            let mut reader = Reader::new(&response);
            let certificate = Certificate::parse(&mut reader).unwrap();
            assert_eq!((certificate.portion, certificate.remainder), (&chain[..], 0), "the whole at once");

            let mut client = device.establish();
            let payload = vec![0x3C; 5000];
            let response = client.send(&mut device, &vendor_message(version, &payload));
            assert_eq!(response[response.len() - 5000..], payload);
            assert_eq!(client.simple(&mut device, Code::HEARTBEAT)[1], Code::HEARTBEAT_ACK.0);
            assert_eq!(client.send(&mut device, &request)[8..], chain);
            assert_eq!(client.simple(&mut device, Code::END_SESSION)[1], Code::END_SESSION_ACK.0);
        }
    }
}

/// What is signed is the messages, whatever carried them: CHALLENGE_AUTH and MEASUREMENTS, in one run.
#[test]
fn transcripts_hold_the_messages_and_not_the_chunks() {
    for version in CHUNK_VERSIONS {
        let mut device = negotiated(version, 42);
        let digests = device.simple(Code::GET_DIGESTS);
        let digests_response = device.send(&digests);
        let context = (version >= Version::V1_3).then_some([5; 8]);
        let nonce = [3; 32];
        let challenge = encoded(|out| {
            Challenge { version, slot: 0, summary: SummaryType::None, nonce, context }.encode(out);
        });
        let response = device.send(&challenge);
        let (unsigned, signature) = response.split_at(response.len() - SIGNATURE_SIZE);
        let parts: [&[u8]; 4] = [&digests, &digests_response, &challenge, unsigned];
        assert!(device.verify(crate::transcript::SigningContext::ChallengeAuth, &parts, signature));

        let measure = |signature| {
            encoded(|out| {
                let operation = MeasurementOperation::All;
                GetMeasurements { version, raw: true, new: false, operation, signature, context }.encode(out);
            })
        };
        let first = measure(None);
        let first_response = device.send(&first);
        let second = measure(Some(SignatureRequest { nonce, slot: 0 }));
        let response = device.send(&second);
        assert!(second.len() > 36 && response.len() > 42);
        let (unsigned, signature) = response.split_at(response.len() - SIGNATURE_SIZE);
        let parts: [&[u8]; 4] = [&first, &first_response, &second, unsigned];
        assert!(device.verify(crate::transcript::SigningContext::Measurements, &parts, signature));
    }
}

#[test]
fn finish_in_the_clear_fits_no_small_transfer() {
    let mut device = device(Version::V1_2, 42);
    device.flags |= RequesterFlags::HANDSHAKE_IN_THE_CLEAR;
    let mut settings = ResponderConfig {
        versions: vec![Version::V1_2],
        data_transfer_size: 42,
        max_message_size: 0x8000,
        ..config()
    };
    settings.capabilities.chunks = true;
    settings.capabilities.handshake_in_the_clear = true;
    device.responder = Device::try_with(settings).unwrap();
    device.negotiate();
    let mut client = device.begin();
    let request = client.finish_request(&device);
    // 4 bytes and a digest: too long only beside CHUNK_SEND_ACK's own 6.
    let padded = [&request[..], &[0; 10]].concat();
    let response = device.send(&padded);
    assert_eq!((response.len(), response[1]), (36, Code::FINISH_RSP.0));
    assert!(matches!(device.responder.poll_event(), Some(Event::SessionEstablished { .. })));
}

#[test]
fn who_has_no_chunks_gets_none() {
    for (ours, theirs) in [(false, true), (true, false), (false, false)] {
        let mut settings = ResponderConfig { versions: vec![Version::V1_2], ..config() };
        settings.capabilities.chunks = ours;
        let mut device = Device::with(settings, Version::V1_2);
        device.transfer = 200;
        device.flags |= if theirs { RequesterFlags::CHUNK } else { 0 };
        device.negotiate();
        assert_eq!(device.error(&[0x12, 0x85, 0, 0]), (ErrorCode::UNSUPPORTED_REQUEST, 0x85));
        assert_eq!(device.error(&[0x12, 0x86, 0, 0, 0, 0]), (ErrorCode::UNSUPPORTED_REQUEST, 0x86));
        let response = device.send(&vendor_message(Version::V1_2, &[0; 200]));
        assert_eq!(response, [0x12, 0x7F, 0x0D, 0, 211, 0, 0, 0]);
        let response = device.send(&[0x12, 0x82, 0, 0, 0, 0, 0xFF, 0xFF]);
        assert_eq!(response.len(), 200, "a portion that fits");
    }
    let mut device = Device::new(Version::V1_1);
    device.flags |= RequesterFlags::CHUNK;
    device.negotiate();
    assert_eq!(
        device.error(&[0x11, 0x85, 0, 0]),
        (ErrorCode::UNSUPPORTED_REQUEST, 0x85),
        "chunks came with 1.2"
    );
}

#[test]
fn what_is_longer_than_the_requester_takes_is_too_large() {
    let mut device = device(Version::V1_2, 64);
    device.chunked = Some(Chunked { limit: 64, message: 1000 });
    device.negotiate();
    let response = device.send(&vendor_message(Version::V1_2, &[0; 989]));
    assert_eq!(response.len(), 1000);
    let response = device.send(&vendor_message(Version::V1_2, &[0; 990]));
    assert_eq!(response, [0x12, 0x7F, 0x0D, 0, 0xE9, 3, 0, 0]);
    let response = device.send(&[0x12, 0x82, 0, 0, 0, 0, 0xFF, 0xFF]);
    assert_eq!(response.len(), 1000.min(8 + device.chain().len()));
}

/// An ERROR within CHUNK_SEND_ACK, and the transfer is over.
fn early_error(device: &mut Device, request: &[u8]) -> ErrorCode {
    let response = device.try_send(request).unwrap();
    let ack = ChunkSendAck::parse(&mut Reader::new(&response)).unwrap();
    assert!(ack.early_error);
    let error = ErrorResponse::parse(&mut Reader::new(ack.response)).unwrap();
    assert_eq!((ack.version, error.version, error.data), (device.version, device.version, 0));
    error.code
}

#[test]
fn an_unfit_chunk_ends_the_transfer() {
    let version = Version::V1_2;
    let message = vendor_message(version, &[7; 100]);
    let good = chunks(version, &message, 64);
    assert_eq!(good.len(), 3);
    // What is sent properly before, which chunk is spoiled, where and how.
    let first: &[(&str, usize, u8)] = &[
        ("the number is not 0", 4, 1),
        ("it says it is the last", 2, 1),
        ("more than there is", 8, 49),
        ("shorter than the smallest transfer", 8, 25),
        ("a message that needs no chunks", 12, 42),
        ("a message of one chunk", 12, 48),
    ];
    let later: &[(&str, usize, u8)] = &[
        ("another transfer", 3, 8),
        ("the same number again", 4, 0),
        ("a number left out", 4, 2),
        ("more than there is", 8, 53),
        ("shorter than the smallest transfer", 8, 29),
        ("it says it is the last", 2, 1),
    ];
    let last: &[(&str, usize, u8)] =
        &[("it does not say it is the last", 2, 0), ("less than announced", 8, 10)];
    for (before, cases) in [(0, first), (1, later), (2, last)] {
        for &(what, offset, value) in cases {
            let mut device = negotiated(version, 64);
            for chunk in &good[..before] {
                assert_eq!(device.try_send(chunk).unwrap()[..3], [0x12, 0x05, 0]);
            }
            let mut bad = good[before].clone();
            bad[offset] = value;
            assert_eq!(early_error(&mut device, &bad), ErrorCode::INVALID_REQUEST, "{what}");
            // What would have come next is as lost as a transfer that never began.
            assert_eq!(early_error(&mut device, &good[1]), ErrorCode::INVALID_REQUEST, "{what}");
            assert_eq!(device.send(&message)[1], Code::VENDOR_DEFINED_RESPONSE.0, "{what}");
        }
    }
}

#[test]
fn a_request_beyond_the_message_size_is_not_begun() {
    let mut device = negotiated(Version::V1_3, 64);
    let chunk = &chunks(Version::V1_3, &[0; 0x8001], 64)[0];
    assert_eq!(early_error(&mut device, chunk), ErrorCode::REQUEST_TOO_LARGE);
    let chunk = &chunks(Version::V1_3, &[0; 0x8000], 64)[0];
    assert_eq!(device.try_send(chunk).unwrap(), [0x13, 0x05, 0, 9, 0, 0]);
    let long = &chunks(Version::V1_3, &[0; 0x8000], 100)[1];
    assert_eq!(device.try_send(long).unwrap()[..3], [0x13, 0x7F, 0x0E], "longer than a transfer");
}

#[test]
fn what_carries_chunks_is_not_carried_in_them() {
    let mut device = negotiated(Version::V1_2, 64);
    for code in [Code::GET_VERSION, Code::GET_CAPABILITIES, Code::CHUNK_SEND, Code::CHUNK_GET] {
        let mut message = device.simple(code);
        message.resize(70, 0);
        let [first, last] = chunks(Version::V1_2, &message, 64).try_into().unwrap();
        assert_eq!(device.try_send(&first).unwrap()[1], Code::CHUNK_SEND_ACK.0);
        let response = device.try_send(&last).unwrap();
        assert_eq!(response, [0x12, 0x05, 0, 9, 1, 0, 0x12, 0x7F, 1, 0], "{code:?}");
    }
    for (message, error) in [(vec![0x12, 0xED, 0, 0], [7, 0xED]), (vec![0x13, 0x81, 0, 0], [0x41, 0])] {
        let message = [message, vec![0; 60]].concat();
        let [first, last] = chunks(Version::V1_2, &message, 64).try_into().unwrap();
        device.try_send(&first).unwrap();
        assert_eq!(device.try_send(&last).unwrap()[8..], error, "as any request");
    }
}

/// What may come where a transfer is under way, in the clear and in a session: only the next chunk.
#[test]
fn nothing_comes_between_chunks() {
    for inbound in [true, false] {
        for secured in [false, true] {
            let version = Version::V1_3;
            let mut device = negotiated(version, 64);
            let mut client = device.establish();
            let mut other = device.establish();
            let message = vendor_message(version, &[7; 60]);
            let [first, last] = chunks(version, &message, 64).try_into().unwrap();
            let mut exchange = |device: &mut Device, request: &[u8]| {
                if secured {
                    client.try_send(device, request).unwrap()
                } else {
                    device.try_send(request).unwrap()
                }
            };
            let begun = exchange(&mut device, &first);
            assert_eq!(begun[1], Code::CHUNK_SEND_ACK.0);
            let mut handle = 0;
            if !inbound {
                let large = exchange(&mut device, &last);
                assert_eq!(large[..4], [0x13, 0x7F, 0x0F, 0]);
                handle = large[4];
            }
            let unexpected = [0x13, 0x7F, 4, 0];
            for code in
                [Code::GET_CAPABILITIES, Code::NEGOTIATE_ALGORITHMS, Code::GET_DIGESTS, Code::CHALLENGE]
            {
                let request = device.simple(code);
                assert_eq!(exchange(&mut device, &request), unexpected, "{code:?}");
            }
            let foreign = if inbound { chunk_get(version, 1, 0) } else { first.clone() };
            assert_eq!(exchange(&mut device, &foreign), unexpected);
            let same = if inbound { last.clone() } else { chunk_get(version, handle, 0) };
            assert_eq!(other.try_send(&mut device, &same).unwrap(), unexpected, "another session's");
            assert_eq!(exchange(&mut device, &[0x13, 0xED, 0, 0]), [0x13, 0x7F, 7, 0xED], "never supported");

            if inbound {
                assert_eq!(exchange(&mut device, &last)[..3], [0x13, 0x7F, 0x0F]);
            } else {
                let invalid = [0x13, 0x7F, 1, 0];
                assert_eq!(exchange(&mut device, &chunk_get(version, handle.wrapping_add(1), 0)), invalid);
                assert_eq!(exchange(&mut device, &chunk_get(version, handle, 1)), invalid);
                assert_eq!(exchange(&mut device, &chunk_get(Version::V1_2, handle, 0))[2], 0x41);
                assert_eq!(exchange(&mut device, &chunk_get(version, handle, 0)[..5]), invalid);
                assert_eq!(exchange(&mut device, &chunk_get(version, handle, 0))[1], Code::CHUNK_RESPONSE.0);
                assert_eq!(
                    exchange(&mut device, &chunk_get(version, handle, 0)),
                    invalid,
                    "chunks go forward"
                );
                let end = exchange(&mut device, &chunk_get(version, handle, 1));
                assert_eq!(end[..3], [0x13, 0x06, 1]);
                assert_eq!(exchange(&mut device, &chunk_get(version, handle, 2)), unexpected, "over");
            }
        }
    }
}

#[test]
fn get_version_reset_and_the_sessions_end_drop_a_transfer() {
    let version = Version::V1_2;
    let [first, _] = chunks(version, &vendor_message(version, &[7; 60]), 64).try_into().unwrap();
    let mut device = negotiated(version, 64);
    device.try_send(&first).unwrap();
    device.negotiate();
    assert_eq!(device.send(&device.simple(Code::GET_DIGESTS))[1], Code::DIGESTS.0);

    device.try_send(&first).unwrap();
    device.responder.reset();
    device.negotiate();

    let mut client = device.establish();
    client.try_send(&mut device, &first).unwrap();
    assert_eq!(device.try_send(&first).unwrap(), [0x12, 0x7F, 4, 0], "one transfer at a time");
    let mut forged = client.seal(&first);
    forged[10] ^= 1;
    client.deliver(&mut device, &forged).unwrap();
    assert_eq!(
        device.try_send(&first).unwrap()[1],
        Code::CHUNK_SEND_ACK.0,
        "DECRYPT_ERROR ended the session"
    );
}

/// Who leaves a transfer unfinished keeps nobody else waiting.
#[test]
fn a_request_from_elsewhere_drops_a_transfer() {
    let version = Version::V1_2;
    let message = vendor_message(version, &[7; 60]);
    let [first, last] = chunks(version, &message, 64).try_into().unwrap();
    let mut device = negotiated(version, 64);
    let (mut client, mut other) = (device.establish(), device.establish());
    let heartbeat = device.simple(Code::HEARTBEAT);
    let served = |response: Vec<u8>| assert_eq!(response[1], Code::HEARTBEAT_ACK.0);

    device.try_send(&first).unwrap();
    served(client.try_send(&mut device, &heartbeat).unwrap());
    assert_eq!(early_error(&mut device, &last), ErrorCode::INVALID_REQUEST, "it was dropped");

    client.try_send(&mut device, &first).unwrap();
    served(other.try_send(&mut device, &heartbeat).unwrap());
    client.try_send(&mut device, &first).unwrap();
    assert_eq!(device.try_send(&heartbeat).unwrap(), [0x12, 0x7F, 0x0B, 0], "refused for itself only");
    served(client.try_send(&mut device, &heartbeat).unwrap());

    // A response that is not fetched.
    device.try_send(&first).unwrap();
    let large = device.try_send(&last).unwrap();
    assert_eq!(large[..3], [0x12, 0x7F, 0x0F]);
    served(other.try_send(&mut device, &heartbeat).unwrap());
    assert_eq!(device.try_send(&chunk_get(version, large[4], 0)).unwrap(), [0x12, 0x7F, 4, 0]);
}

#[test]
fn chunks_wait_for_the_negotiation() {
    let version = Version::V1_2;
    let mut device = device(version, 64);
    assert_eq!(device.try_send(&chunk_get(version, 1, 0)).unwrap(), [0x10, 0x7F, 4, 0]);
    device.get_version();
    let request = chunks(version, &[0; 70], 64).remove(0);
    assert_eq!(device.try_send(&request).unwrap(), [0x10, 0x7F, 4, 0]);
}

/// Provider and chain are those of the device; the digest says that nothing was lost on the way.
#[test]
fn a_request_and_its_response_of_the_longest_size() {
    let mut device = negotiated(Version::V1_3, 4096);
    let payload: Vec<u8> =
        (0..0x8000 - 11).map(|at: usize| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let response = device.send(&vendor_message(Version::V1_3, &payload));
    let reversed: Vec<u8> = payload.into_iter().rev().collect();
    let digest = |data: &[u8]| hash(&RingProvider::new(), HashAlgorithm::Sha256, data).unwrap();
    assert_eq!(response.len(), 0x8000);
    assert_eq!(digest(&response[11..]), digest(&reversed));
}

proptest::proptest! {
    /// Arbitrary chunks neither break the responder nor make it forget how to answer.
    #[test]
    fn arbitrary_chunks_are_survived(
        chunks in proptest::collection::vec(
            (0_u8..2, 0_u8..3, 0_u16..4, 0_u32..64, 0_u32..100, 0_usize..64, proptest::bool::ANY),
            1..12,
        ),
    ) {
        let mut device = negotiated(Version::V1_2, 64);
        for (last, handle, sequence, size, message, length, get) in chunks {
            let code = if get { 0x86 } else { 0x85 };
            let mut request = vec![0x12, code, last, handle];
            request.extend_from_slice(&sequence.to_le_bytes());
            request.extend_from_slice(&[0; 2]);
            request.extend_from_slice(&size.to_le_bytes());
            request.extend_from_slice(&message.to_le_bytes());
            request.resize(request.len() + length, 0x81);
            let _ = device.try_send(&request);
        }
        device.negotiate();
    }
}
