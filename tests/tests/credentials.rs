//! tdispctl with secrets of its own, and the commands that manage a device's certificates and keys, over a real socket.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use spdm::crypto::AsymAlgorithm;
use spdm::identity::generate_requester;
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::transport::tcp::Tcp;
use tdispctl::walk::Walk;
use tdispd::config::Config;
use tests::rig::Rig;
use tests::spdm_socket::serve_kept;

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn contains(&self, word: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(word)
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One invocation: its exit code and its JSON lines. `@` stands for the directory.
fn tdispctl(address: SocketAddr, directory: &Path, line: &str) -> (u8, String) {
    tdispctl_into(Text::default(), address, directory, line)
}

/// The same, for somebody who reads along in `text`.
fn tdispctl_into(text: Text, address: SocketAddr, directory: &Path, line: &str) -> (u8, String) {
    let target = address.to_string();
    let line = line.replace('@', directory.to_str().unwrap());
    let arguments = ["tdispctl", "--tcp", &target].into_iter().chain(line.split(' '));
    let cli = Cli::try_parse_from(arguments).unwrap();
    let output = Output::json(Box::new(text.clone()));
    let transport = Tcp::connect(&target, false, Duration::from_secs(5)).unwrap();
    let code = match Walk::new(Box::new(transport), cli.options, output) {
        Ok(mut walk) => {
            let code = walk.command(&cli.command);
            walk.close();
            code
        }
        Err(error) => return (error.exit_code(), error.to_string()),
    };
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    (code, text)
}

/// A device that offers `toml`, until the stream is dropped.
fn device(directory: &Path, toml: &str) -> (SocketAddr, std::os::unix::net::UnixStream) {
    let path = directory.join("device.toml");
    std::fs::write(&path, toml).unwrap();
    serve_kept(Config::load(&path).unwrap(), None)
}

/// Certificates of a requester in `NAME.pem`, its root in `NAME.root.pem`, its key in `NAME.key`.
fn requester(directory: &Path, name: &str) {
    let material = generate_requester(name, AsymAlgorithm::EcdsaP384).unwrap();
    let write = |suffix: &str, text: &str| {
        std::fs::write(directory.join(format!("{name}{suffix}")), text).unwrap();
    };
    write(".pem", &tdispd::state_dir::chain_pem(material.certificates()));
    write(".root.pem", &tdispd::state_dir::chain_pem(&material.certificates()[..1]));
    write(".key", &material.key_pem());
}

#[test]
fn a_session_from_a_pre_shared_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("psk"), "TestPskData\0").unwrap();
    std::fs::write(path.join("other"), "TestPskData").unwrap();
    let toml = "[[spdm.psk]]\nhint = \"TestPskHint\\u0000\"\nfile = \"psk\"\n";
    let (address, _stop) = device(path, toml);
    for (line, code, expected) in [
        ("run --psk-file @/psk --psk-hint TestPskHint\\0", 0, "PSK_EXCHANGE, PSK_FINISH"),
        // Who names none gets the first.
        ("run --psk-file @/psk", 0, "PSK_EXCHANGE, PSK_FINISH"),
        ("--session @/session lock --psk-file @/psk", 0, "CONFIG_LOCKED"),
        ("--session @/session stop --psk-file @/psk", 0, "session ended"),
        ("run", 0, "KEY_EXCHANGE, FINISH"),
        ("run --psk-file @/psk --psk-hint TestPskHint", 4, "PSK_EXCHANGE"),
        ("run --psk-file @/other", 5, "PSK_EXCHANGE"),
        ("run --psk-file @/nothing", 2, "nothing"),
        ("run --psk-hint h", 2, "--psk-file"),
    ] {
        let (seen, text) = tdispctl(address, path, line);
        assert_eq!(seen, code, "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_device_without_certificates_needs_a_pre_shared_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("psk"), "secret").unwrap();
    let toml = "[spdm]\nversions = [\"1.3\"]\n\
                [spdm.capabilities]\npsk = \"with-context\"\nkey_exchange = false\nchallenge = false\n\
                measurements = \"unsigned\"\n[[spdm.slot]]\nempty = true\n[[spdm.psk]]\nhint = \"\"\nfile = \"psk\"\n";
    let (address, _stop) = device(path, toml);
    let (code, text) = tdispctl(address, path, "run --psk-file @/psk");
    assert_eq!(code, 0, "{text}");
    let (code, text) = tdispctl(address, path, "run");
    assert_ne!(code, 0, "{text}");
}

#[test]
fn events_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let firmware = path.join("firmware");
    std::fs::write(&firmware, "0").unwrap();
    let toml = format!(
        "[tdisp]\nruntime_update = true\n[spdm.capabilities]\nevents = true\n[[spdm.measurement]]\nindex = 2\nkind = \"mutable-firmware\"\nfile = {firmware:?}\n"
    );
    let (mut rig, address) = Rig::with_spdm_socket(&toml, 1);
    let (code, text) = tdispctl(address, path, "events");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("DMTF: EventLost, MeasurementChanged"), "{text}");
    let (code, text) = tdispctl(address, path, "--timeout 0.5 events --count 1");
    assert_eq!(code, 7, "nothing happens: {text}");

    let text = Text::default();
    let told = thread::scope(|scope| {
        let follower = scope.spawn(|| tdispctl_into(text.clone(), address, path, "events --count 1"));
        // What changes before the subscription is not told.
        while !text.contains("SUBSCRIBE_EVENT_TYPES") && !follower.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        std::fs::write(&firmware, "1").unwrap();
        rig.update_firmware();
        follower.join().unwrap()
    });
    assert_eq!(told.0, 0, "{}", told.1);
    let events: Vec<Value> = told.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = events.iter().filter(|event| event["type"] == "spdm-event").collect();
    assert!(!events.is_empty(), "{}", told.1);
    for (event, instance) in events.iter().zip(events[0]["instance"].as_u64().unwrap()..) {
        assert_eq!(event["instance"], instance);
        assert!(
            ["MeasurementChanged", "MeasurementPreUpdate"].contains(&event["event"].as_str().unwrap()),
            "{event}"
        );
        assert_eq!(event["says"]["measurements"], serde_json::json!([2]), "{event}");
    }
    let (code, text) = tdispctl(address, path, "--session @/session events");
    assert_eq!(code, 2, "{text}");
}

#[test]
fn the_host_says_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    requester(path, "host");
    requester(path, "stranger");
    const SAID: &str = "the host has said who it is";
    for session in ["encapsulated", "digests"] {
        let toml = format!("[spdm.mutual]\nsession = \"{session}\"\nroots = [\"host.root.pem\"]\n");
        let (address, _stop) = device(path, &toml);
        let host = "--identity-chain @/host.pem --identity-key @/host.key";
        let (code, text) = tdispctl(address, path, &format!("run {host}"));
        assert_eq!(code, 0, "{session}: {text}");
        assert!(text.contains(SAID), "{session}: {text}");
        let (code, text) =
            tdispctl(address, path, "run --identity-chain @/stranger.pem --identity-key @/stranger.key");
        assert_eq!(code, 4, "{session}: {text}");
        assert!(!text.contains(SAID), "{session}: {text}");
    }
    let (address, _stop) = device(path, "");
    for (line, expected) in [
        ("run --identity-chain @/host.pem", "go together"),
        ("run --identity-key @/host.key", "go together"),
        ("run --identity-chain @/host.pem --identity-key @/stranger.key", "does not belong"),
        ("run --identity-chain @/device.toml --identity-key @/host.key", "device.toml"),
        ("run --identity-chain @/nowhere --identity-key @/host.key", "nowhere"),
    ] {
        let (code, text) = tdispctl(address, path, line);
        assert_eq!(code, 2, "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn certificates_and_keys_are_managed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let toml = "[spdm.capabilities.provisioning]\nset_certificate = true\ncsr = true\nkey_pair_info = true\n\
                slot_management = true\n\
                set_key_pair_info = true\nmultiple_keys = \"negotiated\"\n\
                [[spdm.slot]]\n[[spdm.slot]]\nnumber = 3\nempty = true\n";
    let (address, _stop) = device(path, toml);
    // A chain that is not for the device's key, and one that is: its own.
    requester(path, "host");
    std::fs::write(path.join("own.pem"), own_chain(address)).unwrap();
    for (line, code, expected) in [
        ("csr @/device.csr", 0, "bytes in"),
        ("csr @/nowhere/device.csr", 3, "nowhere"),
        ("csr @/device.csr --info @/device.toml", 4, "INVALID_REQUEST"),
        ("certificate set 0 @/host.pem", 4, "UNSPECIFIED"),
        ("certificate set 0 @/device.toml", 2, "device.toml"),
        ("certificate set 0 @/own.pem", 0, "slot 0 has"),
        ("certificate set 5 @/own.pem", 4, "INVALID_REQUEST"),
        ("certificate erase 3", 0, "slot 3 is erased"),
        ("--session @/s certificate erase 3", 2, "--session"),
        ("--multiple-keys csr --key-pair 2 --model generic @/device.csr", 0, "bytes in"),
        ("--multiple-keys csr --key-pair 9 @/device.csr", 4, "INVALID_REQUEST"),
        ("--multiple-keys certificate erase 3 --key-pair 2", 0, "slot 3 is erased"),
        ("key-pair generate 2", 4, "OPERATION_FAILED"),
        ("key-pair change 2", 0, "key pair 2 changed"),
        ("key-pair erase 2", 0, "key pair 2 erased"),
        ("key-pair generate 2 --algorithm ed25519 --slots 3 --usage 2", 0, "key pair 2 generated"),
        ("identify", 0, "ed25519, slots 3, usage 0x0002"),
        ("identify", 0, "ecdsa-p384, slots 0"),
        // Slot 3 has a key of another Bank now, out of the connection's reach.
        ("identify", 0, "bank 0 slot 0"),
        ("csr --bank 0 @/device.csr", 0, "bytes in"),
        ("csr --bank 9 @/device.csr", 4, "INVALID_REQUEST"),
        ("certificate get 0 @/got.der", 0, "certificates in"),
        ("certificate get 0 @/got.der --bank 0", 0, "certificates in"),
        ("certificate get 0 @/got.der --bank 1", 4, "INVALID_REQUEST"),
        ("certificate get 0 @/nowhere/got.der --bank 0", 3, "nowhere"),
        ("certificate set 0 @/got.der --bank 0", 0, "slot 0 has"),
        ("certificate set 0 @/host.pem --bank 0", 4, "UNSPECIFIED"),
        ("certificate erase 3 --bank 0", 4, "INVALID_REQUEST"),
        ("bank configure 0 ecdsa-p256", 4, "UNSUPPORTED_REQUEST"),
        ("certificate erase 0 --bank 0", 0, "slot 0 is erased"),
    ] {
        let (seen, text) = tdispctl(address, path, line);
        assert_eq!(seen, code, "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
    let csr = std::fs::read(path.join("device.csr")).unwrap();
    assert_eq!(csr[0], 0x30, "DER");
}

/// The device's certificates as it shows them.
fn own_chain(address: SocketAddr) -> String {
    let mut client = tests::spdm_socket::Client::in_session(address);
    let found = client.driver().certificate(0).unwrap();
    client.end();
    tdispd::state_dir::chain_pem(&found.chain.certificates)
}

#[test]
fn what_a_device_tells_about_itself_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (address, _stop) = device(directory.path(), "");
    let (code, text) = tdispctl(address, directory.path(), "identify");
    assert_eq!(code, 0, "{text}");
    for expected in ["ENDPOINT_INFO", "MEASUREMENT_EXTENSION_LOG", "KEY_PAIR_INFO", "registry 3, vendor 3412"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (code, text) = tdispctl(address, directory.path(), "identify --spdm-version 1.2");
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("ENDPOINT_INFO"));
}
