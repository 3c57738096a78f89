//! A TCP socket with spdm-emu's framing: DOE objects only, one at a time.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tdispd_proto::frame::{Command, Frame, Transport as Binding};

use super::{HostMemory, ObjectExchange, Transport, socket_error};
use crate::error::{Error, Result};

const HELLO: &[u8] = b"Client Hello!\0";
const HELLO_ANSWER: &[u8] = b"Server Hello!\0";
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to an SPDM responder.
#[derive(Debug)]
pub struct Tcp {
    target: String,
    stream: TcpStream,
    received: Vec<u8>,
    /// An answer is outstanding that nobody waits for: what comes next would answer the wrong request.
    out_of_step: bool,
}

impl Tcp {
    /// Connects, and greets the responder if `hello` is set.
    ///
    /// # Errors
    /// [`Error::Transport`] if nobody listens, [`Error::Protocol`] for another answer to the greeting.
    pub fn connect(target: &str, hello: bool, timeout: Duration) -> Result<Self> {
        let failed = |source| Error::Transport { what: format!("connecting to {target}"), source };
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in target.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    // Frames are written whole, so nothing is gained by waiting for more.
                    stream.set_nodelay(true).map_err(failed)?;
                    let mut tcp =
                        Self { target: target.into(), stream, received: Vec::new(), out_of_step: false };
                    if hello {
                        tcp.greet(timeout)?;
                    }
                    return Ok(tcp);
                }
                Err(e) => last = e,
            }
        }
        Err(failed(last))
    }

    fn greet(&mut self, timeout: Duration) -> Result<()> {
        let (command, answer) = self.frame(Command::TEST, HELLO, timeout)?;
        if command == Command::TEST && answer == HELLO_ANSWER {
            Ok(())
        } else {
            Err(Error::Protocol(format!("the greeting was answered with command {:#06x}", command.0)))
        }
    }

    fn frame(&mut self, command: Command, payload: &[u8], timeout: Duration) -> Result<(Command, Vec<u8>)> {
        if self.out_of_step {
            return Err(Error::Protocol("the connection is out of step after an earlier failure".into()));
        }
        self.out_of_step = true;
        let answer = self.request(command, payload, timeout)?;
        self.out_of_step = false;
        Ok(answer)
    }

    fn request(&mut self, command: Command, payload: &[u8], timeout: Duration) -> Result<(Command, Vec<u8>)> {
        let mut out = Vec::new();
        Frame { command, transport: Binding::PCI_DOE, payload }
            .encode(&mut out)
            .map_err(|e| Error::Protocol(format!("request: {e}")))?;
        let deadline = Instant::now() + timeout;
        self.stream.set_write_timeout(Some(timeout)).map_err(Error::io("socket"))?;
        self.stream.write_all(&out).map_err(|e| socket_error("sending a request", timeout, e))?;
        loop {
            if let Some((frame, taken)) =
                Frame::parse(&self.received).map_err(|e| Error::Protocol(format!("answer: {e}")))?
            {
                if frame.transport != Binding::PCI_DOE {
                    return Err(Error::Protocol(format!(
                        "the responder speaks transport {}, not PCI DOE (2)",
                        frame.transport.0
                    )));
                }
                let answer = (frame.command, frame.payload.to_vec());
                self.received.drain(..taken);
                return Ok(answer);
            }
            self.receive(deadline, timeout)?;
        }
    }

    fn receive(&mut self, deadline: Instant, timeout: Duration) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::TimedOut { what: "the responder's answer".into(), after: timeout });
        }
        self.stream.set_read_timeout(Some(left)).map_err(Error::io("socket"))?;
        let mut buffer = [0; 4096];
        let n =
            self.stream.read(&mut buffer).map_err(|e| socket_error("the responder's answer", timeout, e))?;
        if n == 0 {
            return Err(Error::Transport {
                what: "the responder hung up".into(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            });
        }
        self.received.extend(buffer.iter().take(n));
        Ok(())
    }
}

impl ObjectExchange for Tcp {
    fn exchange(&mut self, object: &[u8], timeout: Duration) -> Result<Vec<u8>> {
        match self.frame(Command::NORMAL, object, timeout)? {
            (Command::NORMAL, answer) if answer.is_empty() => {
                Err(Error::Protocol("the responder answered with nothing".into()))
            }
            (Command::NORMAL, answer) => Ok(answer),
            (Command::UNKNOWN, _) => Err(Error::Protocol("the responder does not take SPDM messages".into())),
            (other, _) => {
                Err(Error::Protocol(format!("the responder answered with command {:#06x}", other.0)))
            }
        }
    }
}

impl Transport for Tcp {
    fn describe(&self) -> String {
        format!("tcp {}", self.target)
    }

    fn objects(&mut self) -> Option<&mut dyn ObjectExchange> {
        Some(self)
    }

    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String> {
        Err("a TCP socket carries no DMA".into())
    }

    fn close(&mut self) {
        // CONTINUE asks the responder to keep its sessions; SHUTDOWN would end the process.
        if let Err(e) = self.frame(Command::CONTINUE, &[], Duration::from_millis(500)) {
            log::debug!("taking leave: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const SECOND: Duration = Duration::from_secs(1);

    fn header(command: u32, transport: u32, length: u32) -> Vec<u8> {
        [command, transport, length].iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    /// Serves one connection: for each answer, reads one whole frame and writes the answer in the given pieces.
    fn serve(answers: Vec<Vec<Vec<u8>>>) -> (String, JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut seen = vec![];
            for pieces in answers {
                let mut head = [0; 12];
                stream.read_exact(&mut head).unwrap();
                let length = u32::from_be_bytes(head[8..].try_into().unwrap());
                let mut request = head.to_vec();
                request.resize(12 + length as usize, 0);
                stream.read_exact(&mut request[12..]).unwrap();
                seen.push(request);
                for piece in pieces {
                    stream.write_all(&piece).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            }
            // Stay until the client has gone, or taken leave.
            let mut rest = vec![];
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let _ = stream.read_to_end(&mut rest);
            seen.push(rest);
            seen
        });
        (address, server)
    }

    fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.chunks(3).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn greets_exchanges_and_takes_leave() {
        let hello = [header(0xdead, 2, 14), HELLO_ANSWER.to_vec()].concat();
        let answer = [header(1, 2, 8), vec![7; 8]].concat();
        let (address, server) = serve(vec![split(&hello), split(&answer), vec![header(0xfffd, 2, 0)]]);
        let mut tcp = Tcp::connect(&address, true, SECOND).unwrap();
        assert_eq!(tcp.exchange(&[1, 2, 3, 4], SECOND).unwrap(), [7; 8]);
        tcp.close();
        drop(tcp);
        let seen = server.join().unwrap();
        assert_eq!(seen[0], [header(0xdead, 2, 14), HELLO.to_vec()].concat());
        assert_eq!(seen[1], [header(1, 2, 4), vec![1, 2, 3, 4]].concat());
        assert_eq!(seen[2], header(0xfffd, 2, 0));
    }

    #[test]
    fn wrong_answers_are_protocol_errors() {
        for answer in [
            header(1, 1, 0),
            header(1, 2, 0),
            header(0xffff, 2, 0),
            header(2, 2, 0),
            header(1, 2, u32::MAX),
            header(1, 2, 0x1201),
        ] {
            let (address, server) = serve(vec![vec![answer.clone()]]);
            let mut tcp = Tcp::connect(&address, false, SECOND).unwrap();
            let result = tcp.exchange(&[0; 8], SECOND);
            assert!(matches!(result, Err(Error::Protocol(_))), "{answer:?}: {result:?}");
            drop(tcp);
            server.join().unwrap();
        }
        let (address, server) = serve(vec![vec![[header(0xdead, 2, 2), vec![1, 2]].concat()]]);
        assert!(matches!(Tcp::connect(&address, true, SECOND), Err(Error::Protocol(_))));
        server.join().unwrap();
    }

    #[test]
    fn silence_and_half_an_answer_time_out() {
        for answer in [vec![], header(1, 2, 8)[..11].to_vec(), header(1, 2, 8)] {
            let (address, server) = serve(vec![vec![answer]]);
            let mut tcp = Tcp::connect(&address, false, SECOND).unwrap();
            let result = tcp.exchange(&[0; 8], Duration::from_millis(100));
            assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
            drop(tcp);
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_there_is_a_transport_error() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        for target in [unused.as_str(), "not an address", "127.0.0.1"] {
            let result = Tcp::connect(target, false, SECOND);
            assert!(matches!(result, Err(Error::Transport { .. })), "{target}: {result:?}");
        }
    }
}
