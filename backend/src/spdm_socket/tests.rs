use super::*;
use std::time::Duration;

fn frame(command: u32, transport: u32, payload: &[u8]) -> Vec<u8> {
    let words = [command, transport, payload.len() as u32];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend_from_slice(payload);
    bytes
}

/// A socket whose objects come back reversed, and are met with silence when they begin with 0.
struct Peer {
    socket: SpdmSocket,
    wishes: Vec<Wish>,
    mirror: Mirror,
    /// Answers to objects stay until [`SpdmSocket::release`] is called by hand.
    hold: bool,
}

/// What was asked for besides answers: sessions that want a new key, and the number of questions about the requester.
#[derive(Default)]
struct Mirror {
    renewed: Vec<Option<u32>>,
    asked: usize,
}

impl Behind for Mirror {
    fn object(&mut self, object: &[u8], response: &mut Vec<u8>) -> bool {
        response.clear();
        response.extend(object.iter().rev());
        object.first() != Some(&0)
    }

    fn tdisp(&mut self, message: &[u8], response: &mut Vec<u8>) -> bool {
        response.clear();
        response.extend(message.iter().map(|byte| !byte));
        !message.is_empty()
    }

    fn renew_key(&mut self, session: Option<u32>) {
        self.renewed.push(session);
    }

    fn ask_endpoint_info(&mut self) {
        self.asked += 1;
    }
}

impl Peer {
    fn new(silence: Silence) -> Self {
        Self {
            socket: SpdmSocket::bind(([127, 0, 0, 1], 0).into(), silence).unwrap(),
            wishes: Vec::new(),
            mirror: Mirror::default(),
            hold: false,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.socket.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// Serves until nothing is ready any more.
    fn serve(&mut self) {
        loop {
            let mut fds = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if rustix::event::poll(&mut fds, Some(&soon)).unwrap() == 0 {
                return;
            }
            self.wishes.push(self.socket.on_ready(&mut self.mirror));
            if !self.hold {
                self.socket.release();
            }
        }
    }

    fn ask(&mut self, stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
        stream.write_all(request).unwrap();
        self.serve();
        stream.set_nonblocking(true).unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        stream.set_nonblocking(false).unwrap();
        assert!(end.is_ok() || end.unwrap_err().kind() == io::ErrorKind::WouldBlock);
        answer
    }
}

#[test]
fn frames_are_answered_as_spdm_emu_answers_them() {
    let mut peer = Peer::new(Silence::Empty);
    let mut stream = peer.connect();
    for (request, answer) in [
        (frame(0xDEAD, 2, HELLO), frame(0xDEAD, 2, HELLO_ANSWER)),
        (frame(1, 2, &[1, 2, 3, 4]), frame(1, 2, &[4, 3, 2, 1])),
        (frame(1, 2, &[0, 2, 3, 4]), frame(1, 2, &[])),
        (frame(2, 2, &[1, 2]), frame(1, 2, &[0xFE, 0xFD])),
        (frame(2, 2, &[]), frame(1, 2, &[])),
        (frame(0x8001, 2, &[0xFF, 0xFE, 1, 0]), frame(0x8001, 2, &[])),
        (frame(0x8001, 2, &[]), frame(0x8001, 2, &[])),
        (frame(0x8002, 2, &[]), frame(0x8002, 2, &[])),
        (frame(1, 1, &[1, 2]), frame(0xFFFF, 1, &[])),
        (frame(2, 1, &[1, 2]), frame(0xFFFF, 1, &[])),
        (frame(0x1234, 2, &[]), frame(0xFFFF, 2, &[])),
    ] {
        assert_eq!(peer.ask(&mut stream, &request), answer, "{request:02x?}");
    }
    assert_eq!((peer.mirror.renewed.as_slice(), peer.mirror.asked), (&[Some(0x0001_FEFF), None][..], 1));
    // Two at once, and one in pieces.
    let both = [frame(1, 2, &[1, 2]), frame(1, 2, &[3, 4])].concat();
    assert_eq!(peer.ask(&mut stream, &both), [frame(1, 2, &[2, 1]), frame(1, 2, &[4, 3])].concat());
    for byte in frame(1, 2, &[7, 8]).iter().take(13) {
        assert_eq!(peer.ask(&mut stream, &[*byte]), b"");
    }
    assert_eq!(peer.ask(&mut stream, &[8]), frame(1, 2, &[8, 7]));
    assert!(!peer.wishes.contains(&Wish::Shutdown));
}

#[test]
fn clients_follow_one_another() {
    let mut peer = Peer::new(Silence::Nothing);
    let mut first = peer.connect();
    peer.serve();
    let mut second = peer.connect();
    assert_eq!(peer.ask(&mut second, &frame(1, 2, &[1])), b"", "one at a time");
    assert_eq!(peer.ask(&mut first, &frame(1, 2, &[0])), b"", "silence");
    assert_eq!(peer.ask(&mut first, &frame(0xFFFD, 2, &[])), frame(0xFFFD, 2, &[]));
    peer.serve();
    assert_eq!(peer.ask(&mut second, &[]), frame(1, 2, &[1]));
    // A frame that is too long, and a client that vanishes in the middle of one.
    second.write_all(&frame(1, 2, &[])[..8]).unwrap();
    second.write_all(&[0xFF; 4]).unwrap();
    peer.serve();
    let mut third = peer.connect();
    third.write_all(&[0; 5]).unwrap();
    peer.serve();
    drop(third);
    peer.serve();
    let mut fourth = peer.connect();
    assert_eq!(peer.ask(&mut fourth, &frame(0xFFFE, 2, &[])), frame(0xFFFE, 2, &[]));
    assert_eq!(peer.wishes.last(), Some(&Wish::Shutdown));
}

#[test]
fn an_answer_waits_until_it_is_released() {
    let mut peer = Peer::new(Silence::Empty);
    let mut stream = peer.connect();
    peer.serve();
    peer.hold = true;
    let two = [frame(1, 2, &[1, 2]), frame(1, 2, &[3, 4])].concat();
    assert_eq!(peer.ask(&mut stream, &two), b"");
    assert!(peer.socket.holds_answer());
    assert_eq!(peer.ask(&mut stream, &frame(0xDEAD, 2, HELLO)), b"", "and nothing overtakes it");
    peer.socket.release();
    assert_eq!(peer.ask(&mut stream, &[]), frame(1, 2, &[2, 1]), "the next one is held again");
    peer.hold = false;
    peer.socket.release();
    assert_eq!(peer.ask(&mut stream, &[]), [frame(1, 2, &[4, 3]), frame(0xDEAD, 2, HELLO_ANSWER)].concat());
    // A client that leaves meanwhile holds nobody up.
    peer.hold = true;
    assert_eq!(peer.ask(&mut stream, &frame(1, 2, &[5])), b"");
    let mut next = peer.connect();
    drop(stream);
    peer.hold = false;
    peer.socket.release();
    peer.serve();
    assert_eq!(peer.ask(&mut next, &frame(1, 2, &[6])), frame(1, 2, &[6]));
}

/// Breaks off: the peer finds a reset instead of an end.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_client_that_breaks_off_while_its_answer_is_held_is_dropped_then() {
    let mut peer = Peer::new(Silence::Empty);
    let mut first = peer.connect();
    peer.serve();
    let mut second = peer.connect();
    peer.hold = true;
    assert_eq!(peer.ask(&mut first, &frame(1, 2, &[1, 2])), b"");
    assert!(peer.socket.holds_answer());
    reset(first);
    peer.serve();
    assert!(!peer.socket.holds_answer());
    assert_eq!(peer.socket.peer(), Some(second.local_addr().unwrap()), "who waited has the seat");
    // What was held is nobody's: the next client gets its own answers, and those alone.
    peer.socket.release();
    assert_eq!(peer.ask(&mut second, &frame(0xDEAD, 2, HELLO)), frame(0xDEAD, 2, HELLO_ANSWER));
    assert_eq!(peer.ask(&mut second, &frame(1, 2, &[3, 4])), b"");
    peer.socket.release();
    assert_eq!(peer.ask(&mut second, &[]), frame(1, 2, &[4, 3]));
    assert_eq!(peer.ask(&mut second, &frame(1, 2, &[5])), b"");
    reset(second);
    peer.serve();
    assert_eq!((peer.socket.holds_answer(), peer.socket.peer()), (false, None), "and nobody waits for it");
}

#[test]
fn a_client_that_only_stops_sending_gets_the_answer_that_is_held() {
    let mut peer = Peer::new(Silence::Empty);
    let mut stream = peer.connect();
    peer.serve();
    peer.hold = true;
    assert_eq!(peer.ask(&mut stream, &frame(1, 2, &[1, 2])), b"");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    peer.serve();
    assert!(peer.socket.holds_answer());
    peer.socket.release();
    peer.serve();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!((answer, peer.socket.peer()), (frame(1, 2, &[2, 1]), None));
}
