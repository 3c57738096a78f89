//! The state machine without sockets: order, backpressure, and the device's own accesses.

use tdispd_proto::vfio_user::{
    DmaAccess, DmaMap, HEADER_SIZE, RegionAccess, put_error, put_reply, put_request,
};
use zerocopy::IntoBytes;

use super::super::device::Region;
use super::super::dma::DmaError;
use super::*;
use tdispd_proto::vfio_user::IrqKind;

struct Mock {
    regions: Vec<Region>,
    connected: i32,
    resets: u32,
}

impl Device for Mock {
    fn regions(&self) -> &[Region] {
        &self.regions
    }
    fn irq_count(&self, _: IrqKind) -> u32 {
        1
    }
    fn region_read(&mut self, _: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if offset == 0xFC {
            return Err(Errno::IO);
        }
        data.fill(0x5A);
        Ok(())
    }
    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
    fn client_connected(&mut self) {
        self.connected += 1;
    }
    fn client_disconnected(&mut self) {
        self.connected -= 1;
    }
}

struct Rig {
    connection: Connection,
    device: Mock,
}

impl Rig {
    fn new() -> Self {
        let device = Mock { regions: vec![Region::trapped(0x100)], connected: 0, resets: 0 };
        let mut rig = Self { connection: Connection::default(), device };
        rig.send(Command::VERSION, &[0; 4]);
        rig.take();
        rig
    }

    fn raw(&mut self, bytes: &[u8]) -> Progress {
        self.connection.space()[..bytes.len()].copy_from_slice(bytes);
        self.connection.received(bytes.len(), Fds::default());
        self.connection.handle_next(&mut self.device)
    }

    fn send(&mut self, command: Command, payload: &[u8]) -> Progress {
        let mut out = Vec::new();
        put_request(&mut out, 7, command, false, &[payload]);
        self.raw(&out)
    }

    fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = self.connection.chunk() {
            out.extend_from_slice(chunk.bytes);
            let count = chunk.bytes.len();
            self.connection.sent(count);
        }
        out
    }

    /// Memory behind messages at 0x1000..0x41000.
    fn map_remote(&mut self) {
        let map = DmaMap { readable: true, writable: true, offset: 0, address: 0x1000, size: 0x4_0000 };
        self.send(Command::DMA_MAP, &map.encode());
        assert_eq!(Header::parse(&self.take()).unwrap().failure(), None);
    }

    /// Takes the one message to the client and answers it.
    fn answer(&mut self, payload: impl FnOnce(&Header, &[u8]) -> Result<Vec<u8>, u32>) {
        let request = self.take();
        let header = Header::parse(&request).unwrap();
        let mut out = Vec::new();
        match payload(&header, &request[HEADER_SIZE..]) {
            Ok(payload) => put_reply(&mut out, &header, &[&payload]),
            Err(errno) => put_error(&mut out, &header, errno),
        }
        for part in out.chunks(4096) {
            self.raw(part);
        }
    }
}

#[test]
fn no_message_is_handled_while_a_reply_waits() {
    let mut rig = Rig::new();
    let read = RegionAccess::new(0, 0, 4);
    assert_eq!(rig.send(Command::REGION_READ, read.as_bytes()), Progress::Handled);
    assert_eq!(rig.send(Command::DEVICE_RESET, &[]), Progress::Idle);
    assert_eq!(rig.device.resets, 0);
    assert_eq!(rig.take().len(), HEADER_SIZE + 16 + 4);
    assert_eq!(rig.connection.handle_next(&mut rig.device), Progress::Handled);
    assert_eq!(rig.device.resets, 1);
}

#[test]
fn a_failed_read_is_a_header_alone_with_the_devices_errno() {
    let mut rig = Rig::new();
    rig.send(Command::REGION_READ, RegionAccess::new(0, 0xFC, 4).as_bytes());
    let reply = rig.take();
    assert_eq!(reply.len(), HEADER_SIZE);
    assert_eq!(Header::parse(&reply).unwrap().failure(), Some(5));
}

#[test]
fn the_device_hears_only_of_clients_that_negotiated() {
    let mut rig = Rig::new();
    assert_eq!(rig.device.connected, 1);
    rig.connection.disconnect(&mut rig.device);
    rig.connection.disconnect(&mut rig.device);
    assert_eq!(rig.device.connected, 0);
    assert_eq!(rig.send(Command::DEVICE_RESET, &[]), Progress::Close);
    assert_eq!((rig.device.connected, rig.device.resets), (0, 0));
}

#[test]
fn remote_reads_come_in_chunks_and_end_in_order() {
    let mut rig = Rig::new();
    rig.map_remote();
    rig.connection.dma_read(1, 0x1000, 0x1_8000);
    rig.connection.dma_write(2, 0x2000, vec![9; 3]);
    let mut lengths = Vec::new();
    for _ in 0..2 {
        rig.answer(|header, payload| {
            assert_eq!(header.command, Command::DMA_READ);
            let access = DmaAccess::parse_read(payload).unwrap();
            lengths.push((access.address.get(), access.count.get()));
            Ok([access.as_bytes(), &vec![0xEE; access.count.get() as usize]].concat())
        });
    }
    assert_eq!(lengths, [(0x1000, 0x1_0000), (0x1_1000, 0x8000)]);
    let done = rig.connection.poll_dma().unwrap();
    assert_eq!((done.id, done.result), (1, Ok(vec![0xEE; 0x1_8000])));
    rig.answer(|header, payload| {
        assert_eq!(header.command, Command::DMA_WRITE);
        let (access, data) = DmaAccess::parse_write(payload).unwrap();
        assert_eq!(data, [9; 3]);
        Ok(access.as_bytes().to_vec())
    });
    assert_eq!(rig.connection.poll_dma().unwrap().result, Ok(Vec::new()));
    assert_eq!(rig.connection.poll_dma(), None);
}

#[test]
fn bad_answers_end_the_access_and_nothing_else() {
    type Answer = fn(&Header, &[u8]) -> Result<Vec<u8>, u32>;
    let cases: [(&str, Answer, DmaError); 6] = [
        ("refused", |_, _| Err(19), DmaError::Refused(19)),
        ("refused without an errno", |_, _| Err(0), DmaError::Refused(0)),
        ("empty", |_, _| Ok(Vec::new()), DmaError::BadReply),
        ("other address", |_, _| Ok([DmaAccess::new(0, 4).as_bytes(), &[0; 4]].concat()), DmaError::BadReply),
        (
            "more than asked",
            |_, _| Ok([DmaAccess::new(0x1000, 8).as_bytes(), &[0; 8]].concat()),
            DmaError::BadReply,
        ),
        (
            "less than it says",
            |_, _| Ok([DmaAccess::new(0x1000, 4).as_bytes(), &[0; 3]].concat()),
            DmaError::BadReply,
        ),
    ];
    for (name, answer, expected) in cases {
        let mut rig = Rig::new();
        rig.map_remote();
        rig.connection.dma_read(5, 0x1000, 4);
        rig.answer(answer);
        let done = rig.connection.poll_dma().unwrap();
        assert_eq!((done.id, done.result), (5, Err(expected)), "{name}");
        assert_eq!(rig.send(Command::DEVICE_RESET, &[]), Progress::Handled, "{name}");
        assert_eq!(rig.take().len(), HEADER_SIZE, "{name}");
    }
}

#[test]
fn a_late_answer_to_a_cancelled_access_does_no_harm() {
    let mut rig = Rig::new();
    rig.map_remote();
    rig.connection.dma_read(1, 0x1000, 4);
    let late = rig.take();
    rig.connection.cancel_dma(1);
    rig.connection.dma_read(2, 0x1000, 4);
    let current = rig.take();
    for request in [late, current] {
        let header = Header::parse(&request).unwrap();
        let mut out = Vec::new();
        put_reply(
            &mut out,
            &header,
            &[DmaAccess::new(0x1000, 4).as_bytes(), &[header.message_id.get() as u8; 4]],
        );
        assert_eq!(rig.raw(&out), Progress::Handled);
        assert!(rig.take().is_empty(), "a reply is not answered");
    }
    let done = rig.connection.poll_dma().unwrap();
    assert_eq!((done.id, done.result), (2, Ok(vec![1; 4])));
    assert_eq!(rig.connection.poll_dma(), None);
}

#[test]
fn accesses_fail_without_client_mapping_or_room() {
    let mut rig = Rig::new();
    rig.map_remote();
    rig.connection.dma_read(1, 0x4_0FFF, 2);
    rig.connection.dma_read(2, 0x1000, usize::MAX);
    rig.connection.dma_read(3, 0x1000, 4);
    rig.connection.disconnect(&mut rig.device);
    rig.connection.dma_write(4, 0x1000, vec![1]);
    let ends: Vec<_> =
        core::iter::from_fn(|| rig.connection.poll_dma()).map(|end| (end.id, end.result)).collect();
    let expected = [
        (1, Err(DmaError::Unmapped(0x4_1000))),
        (2, Err(DmaError::Busy)),
        (3, Err(DmaError::Disconnected)),
        (4, Err(DmaError::Disconnected)),
    ];
    assert_eq!(ends, expected);
    for id in 0..200 {
        rig.connection.dma_read(id, 0, 1);
    }
    assert!(rig.take().is_empty());
}

#[test]
fn memory_taken_back_between_chunks_ends_the_access() {
    let mut rig = Rig::new();
    rig.map_remote();
    rig.connection.dma_read(1, 0x1000, 0x1_8000);
    let first = rig.take();
    rig.send(Command::DMA_UNMAP, &[&24u32.to_le_bytes()[..], &2u32.to_le_bytes(), &[0; 16]].concat());
    rig.take();
    let header = Header::parse(&first).unwrap();
    let mut out = Vec::new();
    put_reply(&mut out, &header, &[DmaAccess::new(0x1000, 0x1_0000).as_bytes(), &vec![0; 0x1_0000]]);
    for part in out.chunks(4096) {
        rig.raw(part);
    }
    assert_eq!(rig.connection.poll_dma().unwrap().result, Err(DmaError::Unmapped(0x1_1000)));
}

#[test]
fn data_of_abandoned_accesses_does_not_leave_any_more() {
    const SECRET: u8 = 0x5E;
    let write = |rig: &mut Rig| {
        rig.map_remote();
        rig.connection.dma_write(1, 0x1000, vec![SECRET; 1000]);
    };
    // Nothing of it has left: it never was.
    let mut rig = Rig::new();
    write(&mut rig);
    rig.connection.abandon_dma();
    assert!(rig.take().is_empty());
    // Behind a reply that waits: the reply alone is left.
    let mut rig = Rig::new();
    rig.map_remote();
    rig.send(Command::REGION_READ, RegionAccess::new(0, 0, 4).as_bytes());
    rig.connection.sent(5);
    rig.connection.dma_write(1, 0x1000, vec![SECRET; 1000]);
    rig.connection.cancel_dma(1);
    rig.connection.dma_write(2, 0x1000, vec![SECRET; 1000]);
    rig.connection.abandon_dma();
    assert_eq!(rig.take().len(), HEADER_SIZE + 16 + 4 - 5);
    // Some of it has: the client waits for the rest, and gets zeroes.
    for left in [1, HEADER_SIZE + 16, HEADER_SIZE + 16 + 1, HEADER_SIZE + 16 + 999] {
        let mut rig = Rig::new();
        write(&mut rig);
        let mut message = rig.connection.chunk().unwrap().bytes[..left].to_vec();
        rig.connection.sent(left);
        rig.connection.abandon_dma();
        rig.connection.dma_read(2, 0x1000, 4);
        let rest = rig.take();
        let data = HEADER_SIZE + 16;
        assert!(
            rest[data.saturating_sub(left)..HEADER_SIZE + 16 + 1000 - left].iter().all(|byte| *byte == 0)
        );
        message.extend(rest);
        let header = Header::parse(&message).unwrap();
        assert_eq!((header.command, header.message_size.get()), (Command::DMA_WRITE, data as u32 + 1000));
        let next = Header::parse(&message[data + 1000..]).unwrap();
        assert_eq!(next.command, Command::DMA_READ, "the stream keeps its step");
        assert_eq!(rig.connection.poll_dma(), None);
    }
}

#[test]
fn what_has_left_is_drained_and_what_has_not_is_not_waited_for() {
    let answer = |rig: &mut Rig, request: &[u8]| {
        let header = Header::parse(request).unwrap();
        let mut out = Vec::new();
        put_reply(&mut out, &header, &[DmaAccess::new(0x1000, 4).as_bytes()]);
        rig.raw(&out);
    };
    let started = || {
        let mut rig = Rig::new();
        rig.map_remote();
        rig.connection.dma_write(1, 0x1000, vec![1; 4]);
        rig
    };
    let mut rig = started();
    rig.connection.abandon_dma();
    assert!(!rig.connection.draining_dma(), "it never left");

    let mut rig = started();
    let request = rig.take();
    rig.connection.abandon_dma();
    assert!(rig.connection.draining_dma());
    rig.connection.dma_write(2, 0x1000, vec![2; 4]);
    let next = rig.take();
    assert!(rig.connection.draining_dma(), "a later access is not waited for");
    answer(&mut rig, &request);
    assert!(!rig.connection.draining_dma());
    answer(&mut rig, &next);
    assert_eq!(
        rig.connection.poll_dma().map(|end| end.id),
        Some(2),
        "and the first one's end is not reported"
    );

    // Drained, but not given up.
    let mut rig = started();
    let request = rig.take();
    rig.connection.drain_dma();
    assert!(rig.connection.draining_dma());
    answer(&mut rig, &request);
    assert!(!rig.connection.draining_dma());
    assert_eq!(rig.connection.poll_dma().map(|end| end.id), Some(1));

    // Late or gone.
    for end in [
        |rig: &mut Rig| rig.connection.stop_draining_dma(),
        |rig: &mut Rig| {
            rig.connection.disconnect(&mut rig.device);
        },
    ] {
        let mut rig = started();
        rig.take();
        rig.connection.cancel_dma(1);
        assert!(rig.connection.draining_dma(), "given up, and yet it may happen");
        end(&mut rig);
        assert!(!rig.connection.draining_dma());
    }
}
