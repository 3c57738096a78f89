//! `tdispd` as its user meets it: exit codes, messages, sockets, shutdown.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
    let mut command = tdispd();
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
    for part in ["--socket", "--config", "--state-dir", "--print-config", "vfio-user-pci", "Exit codes"] {
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
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (socket, file) = (path("f0"), path("device.toml"));
    assert_eq!(failure(&[]).0, 2);
    for (text, expected) in [
        ("[pci]\nvendro = 1\n", "line 2"),
        ("[spdm]\nversions = [\"1.9\"]\n", "spdm.versions[0]"),
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
    let (first, second) = (directory.path().join("f0"), directory.path().join("f1"));
    for signal in ["-TERM", "-INT"] {
        let child = serve(&[&first, &second], &[]);
        for socket in [&first, &second] {
            assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(end(child, signal), 0);
        assert!(!first.exists() && !second.exists());
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
    assert!(message.contains("another device") && message.contains("slot0"), "{message}");
    assert_eq!(chain(), first);
}
