//! `tdispd` as its user meets it: exit codes, messages, sockets, shutdown.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn tdispd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdispd"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tdispd().args(arguments).output().unwrap()
}

/// Exit code and standard error.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A running device whose sockets are there.
fn serve(sockets: &[&Path], more: &[&str]) -> Child {
    start(tdispd(), sockets, more)
}

fn start(mut command: Command, sockets: &[&Path], more: &[&str]) -> Child {
    for socket in sockets {
        command.arg("--socket").arg(socket);
    }
    let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting =
        lines.by_ref().map(Result::unwrap).filter(|line| line.contains("waiting on")).take(sockets.len());
    assert_eq!(waiting.count(), sockets.len(), "it says where it waits");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn end(mut child: Child, signal: &str) -> i32 {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap().code().unwrap()
}

#[test]
fn help_teaches_and_the_version_is_told() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for part in
        ["--socket", "--control", "--config", "--state-dir", "--print-config", "vfio-user-pci", "Exit codes"]
    {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("tdispd ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_printed_configuration_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("device.toml");
    let printed = run(&["--print-config"]);
    assert!(printed.status.success());
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = run(&["--print-config", "--config", file.to_str().unwrap()]);
    assert_eq!(again.stdout, printed.stdout);
    // A device that has only the SPDM socket offers more, and the file says so.
    let alone = run(&["--print-config", "--spdm-socket", "0"]);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text(&printed).contains("versions = [\"1.2\", \"1.3\", \"1.4\"]"), "{}", text(&printed));
    assert!(text(&alone).contains("versions = [\"1.0\""), "{}", text(&alone));
    std::fs::write(&file, &alone.stdout).unwrap();
    let again = run(&["--print-config", "--config", file.to_str().unwrap()]);
    assert_eq!(again.stdout, alone.stdout, "what is said has the last word");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (socket, file) = (path("f0"), path("device.toml"));
    assert_eq!(failure(&[]).0, 2);
    for (text, expected) in [
        ("[pci]\nvendro = 1\n", "line 2"),
        ("[spdm]\nversions = [\"1.9\"]\n", "\"1.9\" is none of"),
        ("[[function]]\n[[function]]\n", "--socket"),
        (
            "[[spdm.measurement]]\nindex = 240\nkind = \"immutable-rom\"\nvalue = \"x\"\n",
            "spdm.measurement[0].index",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, message) = failure(&["--socket", &socket, "--config", &file]);
        assert_eq!(code, 2, "{text}: {message}");
        assert!(message.contains(expected), "{text}: {message}");
    }
    let (code, message) = failure(&["--socket", &socket, "--config", &path("nothing.toml")]);
    assert_eq!((code, message.contains("nothing.toml")), (2, true), "{message}");
}

#[test]
fn a_host_that_fails_ends_with_1_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("f0");
    let name = socket.to_str().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let (code, message) = failure(&["--socket", name]);
    assert_eq!((code, message.contains(name)), (1, true), "somebody serves it: {message}");
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "a file").unwrap();
    let (code, message) = failure(&["--socket", name]);
    assert_eq!((code, message.contains(name)), (1, true), "not a socket: {message}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file", "and not removed");
    let (code, message) = failure(&["--socket", "/nowhere/f0"]);
    assert_eq!((code, message.contains("/nowhere/f0")), (1, true), "{message}");
}

#[test]
fn sockets_are_private_and_gone_after_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, control] = ["f0", "f1", "control"].map(|name| directory.path().join(name));
    for signal in ["-TERM", "-INT"] {
        let child = serve(&[&first, &second], &["--control", control.to_str().unwrap()]);
        for socket in [&first, &second, &control] {
            assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(end(child, signal), 0);
        assert!(!first.exists() && !second.exists() && !control.exists());
    }
}

#[test]
fn a_socket_left_by_a_crash_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("f0");
    let mut child = serve(&[&socket], &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(socket.exists());
    assert_eq!(end(serve(&[&socket], &[]), "-TERM"), 0);
}

#[test]
fn the_state_directory_keeps_the_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, state) = (directory.path().join("f0"), directory.path().join("state"));
    let chain = || std::fs::read_to_string(state.join("slot0.chain.pem")).unwrap();
    let arguments = ["--state-dir", state.to_str().unwrap()];
    assert_eq!(end(serve(&[&socket], &arguments), "-TERM"), 0);
    let first = chain();
    assert_eq!(end(serve(&[&socket], &arguments), "-TERM"), 0);
    assert_eq!(chain(), first);
    let config = directory.path().join("device.toml");
    std::fs::write(&config, "[pci]\nserial = 5\n").unwrap();
    let name = socket.to_str().unwrap();
    let (code, message) =
        failure(&["--socket", name, "--config", config.to_str().unwrap(), arguments[0], arguments[1]]);
    assert_eq!(code, 1);
    assert!(message.contains("another device") && message.contains("state/device"), "{message}");
    assert_eq!(chain(), first);
}

fn descriptors(child: &Child) -> Vec<usize> {
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Time on a processor so far, in ticks of 10 ms.
fn ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields.iter().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// VERSION 0.0 without data, and whether it is answered.
fn negotiates(stream: &mut UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = [1, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(&request).is_ok() && stream.read_exact(&mut [0; 20]).is_ok()
}

#[test]
fn clients_that_come_and_go_leave_no_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("f0");
    let child = serve(&[&socket], &[]);
    let before = descriptors(&child).len();
    let mut served = 0;
    // A test beside this one that starts a program holds copies of our sockets for a moment: whoever comes then is refused.
    for _ in 0..200 {
        served += usize::from(negotiates(&mut UnixStream::connect(&socket).unwrap()));
    }
    assert!(served >= 100, "{served}");
    // The last one may not have been missed yet: its socket, and its process.
    assert!(descriptors(&child).len() <= before + 2);
    assert_eq!(end(child, "-TERM"), 0);
}

#[test]
fn a_host_without_descriptors_costs_no_processor_time_and_the_client_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("f0"), directory.path().join("f1"));
    let child = serve(&[&first, &second], &[]);
    let idle = descriptors(&child);
    end(child, "-TERM");
    // One descriptor more than it needs: for one client. The limit is one of numbers, and whoever runs us may leave us high ones.
    let low = idle.iter().filter(|number| **number <= idle.len()).count();
    let mut limited = Command::new("sh");
    limited.env_remove("RUST_LOG").stdin(Stdio::null());
    let limit = format!("ulimit -n {}; exec \"$0\" \"$@\"", low + 1);
    limited.args(["-c", &limit, env!("CARGO_BIN_EXE_tdispd")]);
    let child = start(limited, &[&first, &second], &[]);
    let mut seated = UnixStream::connect(&first).unwrap();
    assert!(negotiates(&mut seated));
    let mut waits = UnixStream::connect(&second).unwrap();
    let before = ticks(&child);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(ticks(&child) - before < 20, "it spins");
    let (now, one_client) = (descriptors(&child).len(), idle.len() + 1);
    assert_eq!(now, one_client, "no room for a second client");
    drop(seated);
    assert!(negotiates(&mut waits), "its turn has come");
    assert_eq!(end(child, "-TERM"), 0);
}

#[test]
fn the_spdm_socket_answers_and_shutdown_ends_a_device_without_clients() {
    use std::io::{Read, Write};
    let mut child = tdispd().args(["--spdm-socket", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("waiting on")).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let address = line.rsplit(' ').next().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    // GET_VERSION in a data object, in a frame.
    let object = [1, 0, 1, 0, 3, 0, 0, 0, 0x10, 0x84, 0, 0];
    let header = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 12];
    stream.write_all(&[header, object].concat()).unwrap();
    let mut answer = [0; 12 + 8 + 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[20..22], [0x10, 0x04], "VERSION");
    let shutdown = [0, 0, 0xFF, 0xFE, 0, 0, 0, 2, 0, 0, 0, 0];
    stream.write_all(&shutdown).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest[rest.len() - 12..], shutdown);
    assert!(child.wait().unwrap().success());
}
