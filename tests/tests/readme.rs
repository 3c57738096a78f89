//! The README tells the truth: every command of its `sh` blocks is run, and its QEMU command line starts QEMU.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};

use qemu_config::Programs;
use qemu_config::testbed::{Overrides, Testbed};

const README: &str = include_str!("../../README.md");

/// Lines that something else runs: `ci/test` itself, and its steps.
const ELSEWHERE: &[&str] = &["./ci/test", "./qemu-config/demo", "cargo build --release"];

/// The contents of the fenced blocks with this language tag.
fn blocks(tag: &str) -> Vec<&'static str> {
    // Between fences, every second piece is a block; its first line is the tag.
    let pieces = README.split("\n```").skip(1).step_by(2);
    pieces
        .filter_map(|piece| piece.split_once('\n'))
        .filter(|(found, _)| *found == tag)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn every_command_works() {
    let programs = Programs::build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut script = String::from("set -euxo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n");
    let mut commands = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        if ELSEWHERE.contains(&line) {
            continue;
        }
        commands += 1;
        let line = line
            .replace("target/release/tdispd ", &format!("{} ", programs.tdispd.display()))
            .replace("target/release/tdispctl", &programs.tdispctl.display().to_string())
            .replace("/tmp/tdispd-", &format!("{}/", directory.path().display()))
            .replace("2323", &free);
        script.push_str(&line);
        if line.ends_with('&') {
            // A person is slower than a script.
            let ready = if line.contains("--spdm-socket") {
                format!("(: </dev/tcp/127.0.0.1/{free}) 2>&-")
            } else {
                "test -S $socket".into()
            };
            script.push_str(&format!("\nfor _ in $(seq 100); do {ready} && break; sleep 0.1; done"));
        }
        script.push('\n');
    }
    assert!(commands >= 6, "the README has lost its commands:\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("socket", directory.path().join("f0"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn its_configuration_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.toml");
    let examples = blocks("toml");
    assert!(!examples.is_empty());
    for example in examples {
        std::fs::write(&path, example).unwrap();
        tdispd::config::Config::load(&path).unwrap();
    }
}

#[test]
fn its_policies_are_some() {
    let examples = blocks("policy");
    assert!(!examples.is_empty());
    for example in examples {
        tdispctl::guest::policy::Policy::parse(example).unwrap();
    }
}

#[test]
fn the_qemu_command_line_plugs_the_device_in() {
    if std::env::var_os("TDISPD_SKIP_GUESTS").is_some_and(|value| value == "1") {
        eprintln!("SKIPPED the README's QEMU command line: TDISPD_SKIP_GUESTS=1");
        return;
    }
    let testbed = Testbed::prepare(&Overrides::default()).unwrap();
    let programs = Programs::build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("f0");
    let log = directory.path().join("log");
    let none: [&str; 0] = [];
    let daemon =
        qemu_config::Daemon::start(&programs.tdispd, std::slice::from_ref(&socket), none, &log).unwrap();
    let line = *blocks("").iter().find(|block| block.starts_with("qemu-system-x86_64")).unwrap();
    let script = line
        .replace("qemu-system-x86_64", &testbed.qemu.display().to_string())
        .replace("/tmp/tdispd-f0", &socket.display().to_string())
        .replace("...", "-accel tcg -display none -S -monitor stdio");
    let output = run_with_input(&script, directory.path(), "info qtree\nquit\n");
    assert!(output.contains("dev: vfio-user-pci"), "{output}");
    assert!(daemon.log().contains("client connected"), "{}", daemon.log());
}

fn run_with_input(script: &str, directory: &Path, input: &str) -> String {
    let file = directory.join("input");
    std::fs::write(&file, input).unwrap();
    let output = Command::new("bash")
        .args(["-c", &format!("exec {script}")])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}
