//! `tdispctl --control` against a device in this process: what it prints in both forms, when it ends and with which exit code.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use clap::Parser;
use serde_json::{Value, json};
use tdispctl::cli::Cli;
use tdispctl::control;
use tdispctl::output::Output;
use tests::host::Host;
use tests::rig::Rig;

#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Exit code and output of a command line.
fn run(socket: &Path, line: &str) -> (u8, String) {
    run_with(socket, line, "")
}

/// The same with something on standard input.
fn run_with(socket: &Path, line: &str, input: &str) -> (u8, String) {
    let words = ["tdispctl", "--control", socket.to_str().unwrap()].into_iter().chain(line.split(' '));
    let cli = Cli::try_parse_from(words).unwrap();
    let buffer = Buffer::default();
    let out = Box::new(buffer.clone());
    let output = if cli.options.json { Output::json(out) } else { Output::human(out, false) };
    let code = control::run(socket, &cli.options, &cli.command, &mut input.as_bytes(), output);
    let text = String::from_utf8(buffer.0.borrow().clone()).unwrap();
    (code, text)
}

/// Exit code and the lines of the JSON form.
fn run_json(socket: &Path, line: &str) -> (u8, Vec<Value>) {
    let (code, text) = run(socket, &format!("--json {line}"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["type"], "summary");
    assert_eq!(lines.last().unwrap()["exit_code"], code);
    (code, lines)
}

#[test]
fn state_is_shown_in_both_forms() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    let id = host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    host.start(0, nonce);
    let (code, text) = run(rig.control(), "state");
    assert_eq!(code, 0);
    for part in [
        "function 0: RUN, FUNCTION_ID 00:00.0",
        "START_INTERFACE_REQUEST with the right nonce (was CONFIG_LOCKED)",
        &format!("bound to session {id:#010x} and selective stream 0 (id 7), keys in use"),
        "selective stream 0, id 7: enabled, secure, default, TC 0; 6 keys, all of set 0 in use",
        &format!("session {id:#010x}: SPDM "),
        "slot 0, requester not authenticated",
        &format!("key management belongs to session {id:#010x}"),
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (code, lines) = run_json(rig.control(), "state");
    assert_eq!((code, &lines[0]["type"], &lines[0]["tdis"][0]["state"]), (0, &json!("state"), &json!("RUN")));
}

#[test]
fn watch_ends_as_it_was_told() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let watch = |line: &'static str, host: &mut Host| {
        let socket = rig.control().to_owned();
        let watcher = std::thread::spawn(move || run_json(&socket, line));
        // It says nowhere that it has begun: things happen until it has seen enough.
        while !watcher.is_finished() {
            let nonce = host.lock(0);
            host.start(0, nonce);
            host.stop(0);
        }
        watcher.join().unwrap()
    };
    let (code, lines) = watch("watch --count 5", &mut host);
    assert_eq!((code, lines.len()), (0, 6));
    for pair in lines[..5].windows(2) {
        assert_eq!(pair[0]["sequence"].as_u64().unwrap() + 1, pair[1]["sequence"].as_u64().unwrap());
    }
    assert!(lines[..5].iter().all(|line| line["type"] == "event" && line["event"] == "transition"));
    let (code, lines) = watch("watch --until-state RUN --function 0 --timeout 20", &mut host);
    // Nothing is told if it was in RUN at that very moment.
    let last = lines.iter().rev().nth(1);
    assert!(code == 0 && last.is_none_or(|last| last["to"] == "RUN"), "{lines:?}");
    let (code, _) = watch("watch --until-state ERROR --count 4", &mut host);
    assert_eq!(code, 6);

    assert_eq!(run(rig.control(), "watch --until-state CONFIG_UNLOCKED").0, 0, "it is already");
    assert_eq!(run(rig.control(), "watch --timeout 0.05").0, 0, "that long was asked for");
    for nothing in ["--until-state ERROR", "--count 1", "--until-state CONFIG_UNLOCKED --function 7"] {
        let (code, lines) = run_json(rig.control(), &format!("watch {nothing} --timeout 0.05"));
        assert_eq!((code, &lines[0]["error"]["kind"]), (7, &json!("time-out")), "{nothing}");
    }
    drop(host);
    let (_, text) = watch_text(&rig);
    assert!(text.contains(&format!("function 0, process {} (", std::process::id())), "{text}");
    assert!(text.contains("): client connected\n"), "{text}");
}

/// As many events as a client causes that comes and goes, for people.
fn watch_text(rig: &Rig) -> (u8, String) {
    let socket = rig.control().to_owned();
    let watcher = std::thread::spawn(move || run(&socket, "watch --count 4"));
    while !watcher.is_finished() {
        drop(Host::plug(rig.socket(0)));
    }
    watcher.join().unwrap()
}

#[test]
fn a_report_goes_out_and_comes_back_edited() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let name = file.to_str().unwrap();

    let (code, text) = run(rig.control(), "report get 0 --lock-flags 4");
    assert_eq!(code, 0);
    for part in ["as the next LOCK gives it", "BAR 2, page 128", "shared", "private", "MSI-X table"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (code, text) = run(rig.control(), "--json report get 0");
    assert_eq!(code, 0);
    std::fs::write(&file, text.replace("\"non_tee\":false", "\"non_tee\":true")).unwrap();
    let (code, text) = run(rig.control(), &format!("report set 0 {name}"));
    assert_eq!((code, text.contains("private")), (0, false), "{text}");
    assert!(text.contains("it lies: edited fields"), "{text}");
    host.lock(0);
    assert!(host.report(0, 64).ranges.iter().all(|range| range.attributes.non_tee()));
    let (_, text) = run(rig.control(), "report get 0");
    assert!(text.contains("fixed at LOCK"), "{text}");
    host.stop(0);

    std::fs::write(&file, r#"{"hex": "0011"}"#).unwrap();
    let (code, text) = run(rig.control(), &format!("report set 0 {name}"));
    assert_eq!((code, text.contains("no report")), (0, true), "{text}");
    assert!(run(rig.control(), "state").1.contains("its report lies: exact bytes"));
    let (code, text) = run(rig.control(), "report reset 0");
    assert_eq!((code, text.contains("lies")), (0, false), "{text}");

    for (line, expected) in [("report get 9", 4), ("report set 0 /nowhere", 2), ("report", 2), ("run", 2)] {
        assert_eq!(run(rig.control(), line).0, expected, "{line}");
    }
    assert_eq!(run(Path::new("/nowhere/control"), "state").0, 3);
}

#[test]
fn the_end_of_the_device_is_the_end_of_the_watch() {
    let rig = Rig::new();
    let socket = rig.control().to_owned();
    let watcher = std::thread::spawn(move || run(&socket, "watch --until-state RUN"));
    drop(rig);
    // Connected or not: the way to the device failed.
    assert_eq!(watcher.join().unwrap().0, 3);
}

#[test]
fn a_report_comes_from_standard_input_too() {
    let rig = Rig::new();
    let (code, text) = run_with(rig.control(), "report set 0 -", r#"{"hex": "00ff"}"#);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("from the next LOCK on it lies"), "{text}");
    let (code, text) = run_with(rig.control(), "report set 0 -", "");
    assert!(code == 2 && text.contains("empty"), "{text}");
}

/// Page 0x80 of BAR 2 is the first shared one of the default device.
#[test]
fn memory_is_mapped_as_the_side_sees_it() {
    let rig = Rig::new();
    let line = "dmabuf 0 2 shared 0x80000:0x1000 0x0:0x1000";
    let (code, text) = run(rig.control(), line);
    assert_eq!(code, 4, "nothing has switched the function on");
    assert!(text.contains("the function does not answer memory requests"), "{text}");

    let mut host = Host::plug(rig.socket(0));
    host.bar_write(2, 0x80000, b"shared");
    let (code, text) =
        run_with(rig.control(), line, "# its second page is private\nread 0 8\n\nwrite 0x1ffe 0a0b\n");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("0x2000 bytes of BAR 2") && text.contains("7368617265640000"), "{text}");
    assert_eq!(host.bar_read(2, 0xffe), [10, 11]);

    for (input, part) in [
        ("read 0x2000", "offset 0x2000 lies outside the mapping"),
        ("read 0 0x200000", "at most 1048576 are read at a time"),
        ("write 0x1fff 0000", "lies outside"),
        ("read", "line 1: "),
        ("# nothing\nread 0\nread x", "line 3: "),
        ("peek 0", "line 1: "),
    ] {
        let (code, text) = run_with(rig.control(), line, input);
        assert!((2..=3).contains(&code) && text.contains(part), "{input}: {code} {text}");
    }
    let read_only = "dmabuf --read-only 0 2 shared 0x80000:0x1000";
    assert_eq!(run_with(rig.control(), read_only, "read 0").0, 0);
    let (code, text) = run_with(rig.control(), read_only, "write 0 00");
    assert!(code == 2 && text.contains("--read-only"), "{text}");

    let (code, lines) = run_json(rig.control(), "dmabuf 0 2 shared 0x80000:0x1000");
    assert_eq!((code, &lines[0]["size"]), (0, &json!(0x1000)));
    for (line, part) in [
        ("dmabuf 0 3 shared 0:0x1000", "beyond the BAR"),
        ("dmabuf 7 2 shared 0:0x1000", "there is no function 7; there are 1"),
        ("dmabuf 0 2 shared 0:1", "not whole pages"),
        ("dmabuf 0 2 private 0:0x1000", "no T = 1 export in Unlocked"),
    ] {
        let (code, text) = run(rig.control(), line);
        assert!(code == 4 && text.contains(part), "{line}: {code} {text}");
    }
    assert_eq!(run(rig.control(), "dmabuf 0 2 shared 0:0x1000 --").0, 0);
}
