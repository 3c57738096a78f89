//! A device behind its SPDM socket, and a requester in front of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails here is the test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use spdm::crypto::DefaultProvider;
use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use spdm::requester::{Driver, Requester, RequesterConfig, Response, Transport as SpdmTransport};
use spdm::slot::Slots;
use spdm::wire::SummaryType;
use tdispd::config::Config;
use tdispd::daemon::Daemon;
use tdispd::device::Device;
use tdispd::spdm_socket::{Silence, SpdmSocket};
use tdispd_proto::frame::{Command, Frame, Transport};

/// The device of a configuration file's text, on a port of its own; it ends with the stream.
pub fn serve(toml: &str) -> (SocketAddr, UnixStream) {
    let config: Config = toml::from_str(toml).unwrap();
    serve_kept(config, None)
}

/// The same with a configuration that was loaded, and a state directory.
pub fn serve_kept(config: Config, state_dir: Option<&Path>) -> (SocketAddr, UnixStream) {
    config.check().unwrap();
    let config = config.for_sockets(1).unwrap();
    let device = Device::standalone(&config, state_dir).unwrap();
    let socket = SpdmSocket::bind(([127, 0, 0, 1], 0).into(), Silence::Empty).unwrap();
    let address = socket.address().unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let mut daemon = Daemon::new(device, Vec::new(), Some(socket), stopped.into()).unwrap();
    std::thread::spawn(move || daemon.run().unwrap());
    (address, stop)
}

/// One frame and the one that answers it.
pub fn ask(stream: &mut TcpStream, command: Command, payload: &[u8]) -> (Command, Vec<u8>) {
    let mut bytes = Vec::new();
    Frame { command, transport: Transport::PCI_DOE, payload }.encode(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut header = [0; 12];
    stream.read_exact(&mut header).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(header[8..].try_into().unwrap()) as usize];
    stream.read_exact(&mut answer).unwrap();
    (Command(u32::from_be_bytes(header[..4].try_into().unwrap())), answer)
}

/// A requester on the socket.
pub struct Client {
    /// The requester.
    pub requester: Requester,
    wire: Wire,
}

/// Carries SPDM messages in frames.
pub struct Wire(TcpStream);

impl SpdmTransport for &mut Wire {
    type Error = String;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, String> {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let mut object = Vec::new();
        Object { vendor: VENDOR_PCI_SIG, kind, payload: message }.encode(&mut object).unwrap();
        let (command, answer) = ask(&mut self.0, Command::NORMAL, &object);
        assert_eq!(command, Command::NORMAL);
        let answer = Object::parse(&answer).map_err(|error| error.to_string())?;
        Ok(Response { secured: answer.kind == ObjectType::SECURED_SPDM, bytes: answer.payload.to_vec() })
    }

    fn wait(&mut self, delay: Duration) {
        std::thread::sleep(delay);
    }
}

impl Client {
    /// A requester of these settings, on a connection of its own.
    pub fn new(address: SocketAddr, config: RequesterConfig) -> Self {
        Self::with_identity(address, config, Slots::default())
    }

    /// The same, of a requester that can say who it is.
    pub fn with_identity(address: SocketAddr, config: RequesterConfig, identity: Slots) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let requester = Requester::with_identity(config, Box::new(DefaultProvider::new()), identity).unwrap();
        Self { requester, wire: Wire(stream) }
    }

    /// A requester in a session.
    pub fn in_session(address: SocketAddr) -> Self {
        let mut client = Self::new(address, RequesterConfig::default());
        client.driver().connect().unwrap();
        client.driver().certificate(0).unwrap();
        client.start();
        client
    }

    /// Its commands.
    pub fn driver(&mut self) -> Driver<'_, &mut Wire> {
        Driver::new(&mut self.requester, &mut self.wire)
    }

    /// A frame beside what the requester sends, and the one that answers it.
    pub fn frame(&mut self, command: Command, payload: &[u8]) -> (Command, Vec<u8>) {
        ask(&mut self.wire.0, command, payload)
    }

    /// Starts a session with slot 0.
    pub fn start(&mut self) {
        self.driver().start_session(0, SummaryType::None, false).unwrap();
    }

    /// Ends the session.
    pub fn end(&mut self) {
        self.driver().end_session(false).unwrap();
    }
}
