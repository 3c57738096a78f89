//! spdm-emu's framing over a real TCP connection, written after its sources and not after ours.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::hex;
use crate::reference::Objects;

/// Whole data objects.
pub(super) const NORMAL: u32 = 0x0001;
/// Start an encapsulated KEY_UPDATE in the session of the payload.
pub(super) const OOB_KEY_UPDATE: u32 = 0x8001;
/// The connection is over, and so is the responder.
pub(super) const SHUTDOWN: u32 = 0xFFFE;
/// "Client Hello!" and its answer.
pub(super) const TEST: u32 = 0xDEAD;
/// SOCKET_TRANSPORT_TYPE_PCI_DOE.
const PCI_DOE: u32 = 2;

/// A connection that libspdm and its user share.
#[derive(Clone, Debug)]
pub struct Socket(Rc<RefCell<Connection>>);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    log: Vec<String>,
}

impl Socket {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(Rc::new(RefCell::new(Connection { stream, log: Vec::new() })))
    }

    /// One frame and the one that answers it: command and payload.
    pub fn ask(&self, command: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        let mut connection = self.0.borrow_mut();
        let length = u32::try_from(payload.len()).unwrap();
        let mut frame: Vec<u8> =
            [command, PCI_DOE, length].iter().flat_map(|word| word.to_be_bytes()).collect();
        frame.extend_from_slice(payload);
        connection.log.push(format!("> {command:#06x} {}", hex(payload)));
        connection.stream.write_all(&frame).unwrap();
        let mut words = [[0; 4]; 3];
        connection.stream.read_exact(words.as_flattened_mut()).unwrap();
        let [command, transport, length] = words.map(u32::from_be_bytes);
        assert_eq!(transport, PCI_DOE);
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        connection.stream.read_exact(&mut answer).unwrap();
        connection.log.push(format!("< {command:#06x} {}", hex(&answer)));
        (command, answer)
    }
}

impl Objects for Socket {
    fn object(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let (command, answer) = self.ask(NORMAL, request);
        (command == NORMAL && !answer.is_empty()).then_some(answer)
    }

    fn recent(&self) -> String {
        let log = &self.0.borrow().log;
        log[log.len().saturating_sub(8)..].join("\n")
    }
}
