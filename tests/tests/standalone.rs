//! The device behind the SPDM socket only: a requester that programs no registers reaches RUN, and what it may not do there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Parser;
use spdm::doe::{Object, ObjectType, VENDOR_PCI_SIG};
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::transport::tcp::Tcp;
use tdispctl::walk::Walk;
use tdispd::config::Config;
use tdispd::daemon::Daemon;
use tdispd::device::Device;
use tdispd::spdm_socket::{Silence, SpdmSocket};
use tdispd_proto::frame::{Command, Frame, Transport};

/// A device on a port of its own; it ends with the stream.
fn serve() -> (SocketAddr, UnixStream) {
    let config = Config::default().for_sockets(1).unwrap();
    let device = Device::standalone(&config, None).unwrap();
    let socket = SpdmSocket::bind(([127, 0, 0, 1], 0).into(), Silence::Empty).unwrap();
    let address = socket.address().unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let mut daemon = Daemon::new(device, Vec::new(), Some(socket), stopped.into()).unwrap();
    std::thread::spawn(move || daemon.run().unwrap());
    (address, stop)
}

fn ask(stream: &mut TcpStream, command: Command, payload: &[u8]) -> (Command, Vec<u8>) {
    let mut bytes = Vec::new();
    Frame { command, transport: Transport::PCI_DOE, payload }.encode(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut header = [0; 12];
    stream.read_exact(&mut header).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(header[8..].try_into().unwrap()) as usize];
    stream.read_exact(&mut answer).unwrap();
    (Command(u32::from_be_bytes(header[..4].try_into().unwrap())), answer)
}

#[test]
fn the_walk_needs_no_configuration_space() {
    let (address, _stop) = serve();
    let target = address.to_string();
    // Twice: the second client finds the device as the first left it.
    for _ in 0..2 {
        let cli = Cli::try_parse_from(["tdispctl", "--json", "--tcp", &target, "run"]).unwrap();
        let transport = Tcp::connect(&target, true, Duration::from_secs(5)).unwrap();
        let mut walk =
            Walk::new(Box::new(transport), cli.options.clone(), Output::json(Box::new(std::io::sink())))
                .unwrap();
        assert_eq!(walk.command(&cli.command), 0);
        walk.close();
    }
}

#[test]
fn silence_is_an_empty_frame_and_clear_tdisp_is_not_taken() {
    let (address, _stop) = serve();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut unknown = Vec::new();
    Object { vendor: VENDOR_PCI_SIG, kind: ObjectType(9), payload: &[0; 4] }.encode(&mut unknown).unwrap();
    for silent in [unknown.as_slice(), &[1, 2, 3], &[]] {
        assert_eq!(ask(&mut stream, Command::NORMAL, silent), (Command::NORMAL, vec![]));
    }
    // GET_DEVICE_INTERFACE_STATE and STOP as bare TDISP messages.
    for code in [0x85, 0x87] {
        let mut message = [0; 16];
        message[..2].copy_from_slice(&[0x10, code]);
        assert_eq!(ask(&mut stream, Command::TDISP, &message), (Command::UNKNOWN, vec![]));
    }
}
