//! `dmabuf` of the control socket: what vfio-user's DEVICE_FEATURE gives, for VMMs that do not ask for it there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::FileExt;
use std::process::Command;

use qemu_config::Programs;
use serde_json::{Value, json};
use tdispd_proto::control::{FailureCode, Happening};
use tests::control::Client;
use tests::host::Host;
use tests::rig::Rig;

const PAGE: u64 = 4096;
/// The first shared page of BAR 2 of the default device.
const SHARED: u64 = 0x8_0000;

fn ask(tee: bool, ranges: &[(u64, u64)]) -> Value {
    let ranges: Vec<_> =
        ranges.iter().map(|(offset, length)| json!({"offset": offset, "length": length})).collect();
    json!({"function": 0, "bar": 2, "tee": tee, "ranges": ranges})
}

fn byte(file: &std::fs::File, offset: u64) -> u8 {
    let mut data = [0xA5];
    file.read_exact_at(&mut data, offset).unwrap();
    data[0]
}

#[test]
fn the_two_sides_come_as_two_files() {
    let rig = Rig::with("[mmio]\ntee = \"region\"", 1);
    let mut watcher = Client::watch(rig.control());
    let mut client = Client::connect(rig.control());
    let silent = client.dmabuf(ask(false, &[(SHARED, PAGE)])).unwrap_err();
    assert_eq!(silent, (FailureCode::NotExported, "the function does not answer memory requests".into()));

    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    let shared = client.dmabuf(ask(false, &[(SHARED + PAGE, PAGE), (SHARED, PAGE)])).unwrap();
    let private = client.dmabuf(ask(true, &[(0, 2 * PAGE)])).unwrap();
    assert_eq!(byte(&private, 0), 0xFF);
    let (code, text) = client.dmabuf(ask(false, &[(SHARED - PAGE, 2 * PAGE)])).unwrap_err();
    assert!(
        code == FailureCode::NotExported && text.contains("private and shared pages in one export"),
        "{text}"
    );
    host.start(0, nonce);
    shared.write_at(&[7], PAGE).unwrap();
    assert_eq!(host.bar_read(2, SHARED), [7]);
    private.write_at(&[9], 5).unwrap();
    assert_eq!(host.bar_read(2, 5), [0xFF], "that is T = 0");
    host.stop(0);
    assert_eq!(byte(&private, 5), 0, "dead");
    watcher.until(|what| matches!(what, Happening::ExportRevoked { tee: true, held: true, .. }));
}

#[test]
fn nonsense_is_refused_by_name_and_brings_no_descriptor() {
    let rig = Rig::new();
    let _host = Host::plug(rig.socket(0));
    let mut client = Client::connect(rig.control());
    let range = json!([{"offset": SHARED, "length": PAGE}]);
    for (request, code, part) in [
        (
            json!({"function": 1, "bar": 2, "ranges": range}),
            FailureCode::NoSuchFunction,
            "there is no function 1",
        ),
        (json!({"function": 0, "bar": 6, "ranges": range}), FailureCode::NotExported, "no such BAR"),
        (json!({"function": 0, "bar": 11, "ranges": range}), FailureCode::NotExported, "no such BAR"),
        (json!({"function": 0, "bar": 1, "ranges": range}), FailureCode::NotExported, "beyond the BAR"),
        (
            json!({"function": 0, "bar": 0, "ranges": [{"offset": 0, "length": PAGE}]}),
            FailureCode::NotExported,
            "registers",
        ),
        (json!({"function": 0, "bar": 2, "ranges": []}), FailureCode::NotExported, "no ranges"),
        (json!({"function": 0, "bar": 2}), FailureCode::BadRequest, "ranges"),
        (json!({"function": 0, "bar": 256, "ranges": range}), FailureCode::BadRequest, "256"),
        (json!({"function": 0, "bar": 2, "ranges": range, "side": 1}), FailureCode::BadRequest, "side"),
    ] {
        let (found, text) = client.dmabuf(request.clone()).unwrap_err();
        assert!(found == code && text.contains(part), "{request}: {found:?} {text}");
    }
    let read_only =
        client.dmabuf(json!({"function": 0, "bar": 2, "ranges": range, "read_only": true})).unwrap();
    assert!(read_only.write_at(&[1], 0).is_err());
}

/// A client that goes away takes its descriptor with it, read or not.
#[test]
fn a_client_may_leave_without_its_descriptor() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.bar_write(2, SHARED, &[3]);
    let mut gone = Client::connect(rig.control());
    let request = ask(false, &[(SHARED, PAGE)]).to_string().replacen('{', "{\"command\":\"dmabuf\",", 1);
    gone.send(format!("{request}\n{{\"command\":\"state\"}}\n").as_bytes());
    drop(gone);
    let mut client = Client::connect(rig.control());
    // The same pages in another way, as soon as nobody holds them any more.
    let file = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        client.dmabuf(ask(false, &[(SHARED, 2 * PAGE)])).ok()
    });
    assert_eq!(byte(&file.unwrap(), 0), 3);
}

#[test]
fn a_program_finds_the_descriptor() {
    let programs = Programs::build().unwrap();
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.bar_write(2, SHARED, b"for a program");
    let output = Command::new(&programs.tdispctl)
        .arg("--control")
        .arg(rig.control())
        .args(["dmabuf", "0", "2", "shared", "0x80000:0x1000", "--"])
        .args(["bash", "-c", "head -c 13 <&$TDISPD_DMABUF_FD; exit 9"])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"for a program"[..]));
    let output = Command::new(&programs.tdispctl)
        .arg("--control")
        .arg(rig.control())
        .args(["dmabuf", "0", "2", "shared", "0x80000:0x1000", "--", "/nonexistent/vmm"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/nonexistent/vmm"));
}
