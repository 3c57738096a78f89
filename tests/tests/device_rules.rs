//! What a VMM should not do, or not then, and how a device with each setting takes it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::wildcard_enum_match_arm)]

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use qemu_config::Programs;
use serde_json::json;
use tdisp::wire::TdiState;
use tdispctl::transport::Transport;
use tdispd::daemon::End;
use tdispd_proto::control::{Happening, Peer, Sequence, State};
use tdispd_proto::vfio_user::WINDOW_REGION;
use tests::control::Client as Watcher;
use tests::host::Host;
use tests::rig::Rig;

const BAR: u32 = 2;
const WINDOW: u32 = WINDOW_REGION + BAR;
const PAGE: u64 = 4096;
/// BAR 2 of the default function: so much private memory, and as much shared.
const HALF: u64 = 0x8_0000;
const SIGBUS: i32 = 7;

fn rig(mmio: &str) -> Rig {
    Rig::with(&format!("[mmio]\n{mmio}"), 1)
}

fn export(host: &mut Host, region: u32, ranges: &[(u64, u64)]) -> File {
    host.device.dma_buf(region, ranges).map(File::from).unwrap()
}

/// The rules broken up to here, with their places.
fn broken(watcher: &mut Watcher, last: impl Fn(&Happening) -> bool) -> Vec<(Sequence, String)> {
    let rule = |what| match what {
        Happening::OutOfOrder { rule, place, .. } => Some((rule, place)),
        _ => None,
    };
    watcher.until(last).into_iter().filter_map(rule).collect()
}

fn breaks(rule: Sequence) -> impl Fn(&Happening) -> bool {
    move |what| matches!(what, Happening::OutOfOrder { rule: found, .. } if *found == rule)
}

fn stopped(what: &Happening) -> bool {
    matches!(what, Happening::Transition { to: tdispd_proto::control::TdiState::ConfigUnlocked, .. })
}

#[test]
fn an_export_that_is_dropped_in_run_is_missed_and_one_dropped_elsewhere_is_not() {
    let rig = rig("");
    let mut watcher = Watcher::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    drop(export(&mut host, BAR, &[(0, PAGE)]));
    host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    drop(export(&mut host, WINDOW, &[(PAGE, PAGE)]));
    let kept = export(&mut host, WINDOW, &[(0, HALF)]);
    host.start(0, nonce);
    drop(kept);
    let told = broken(&mut watcher, breaks(Sequence::DropWhileRunning));
    assert_eq!(told, [(Sequence::DropWhileRunning, "BAR 2, T = 1".into())]);
    host.stop(0);
    drop(host);
    let told = broken(&mut watcher, |what| matches!(what, Happening::ClientDisconnected { .. }));
    assert_eq!(told, []);
}

#[test]
fn what_is_mapped_at_start_is_all_that_the_report_has() {
    let rig = rig("");
    let mut watcher = Watcher::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    for (ranges, missing) in [
        (vec![], None),
        (vec![(0, HALF)], None),
        (vec![(PAGE, HALF - PAGE), (0, PAGE)], None),
        (
            vec![(0, PAGE), (2 * PAGE, HALF - 2 * PAGE)],
            Some("BAR 2 + 0x1000 is private in the report, and not exported"),
        ),
        (vec![(0, HALF - PAGE)], Some("BAR 2 + 0x7f000 is private in the report, and not exported")),
    ] {
        let nonce = host.lock(0);
        let exports: Vec<_> = ranges.iter().map(|range| export(&mut host, WINDOW, &[*range])).collect();
        host.start(0, nonce);
        host.stop(0);
        drop(exports);
        let expected: Vec<_> =
            missing.map(|place| (Sequence::MappingUnlikeReport, place.to_owned())).into_iter().collect();
        assert_eq!(broken(&mut watcher, stopped), expected, "{ranges:x?}");
    }
}

/// A VMM that believes the report can find out that it lies.
#[test]
fn an_export_that_the_report_gives_the_other_side_is_told() {
    let rig = rig("");
    let mut control = Watcher::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    let ranges =
        json!([{"bar": 2, "pages": 128, "non_tee": true}, {"bar": 2, "first_page": 128, "pages": 128}]);
    control.ask("report-set", json!({"function": 0, "report": {"ranges": ranges}}));
    host.session();
    host.secure_stream();
    for (region, offset, place) in [
        (WINDOW, PAGE, "BAR 2 + 0x1000 is exported with T = 1, and shared in the report"),
        (BAR, HALF, "BAR 2 + 0x80000 is exported with T = 0, and private in the report"),
    ] {
        host.lock(0);
        let held = export(&mut host, region, &[(offset, PAGE)]);
        host.stop(0);
        drop(held);
        assert_eq!(broken(&mut control, stopped), [(Sequence::MappingUnlikeReport, place.into())]);
    }
}

/// The function's registers in a shared page: a host starts the TVM's DMA.
fn with_shared_registers(mmio: &str) -> Rig {
    let bar = "[[function]]\nmsix = false\n[[function.bar]]\nindex = 0\n[[function.bar.range]]\nkind = \"registers\"\n\
               size = 4096\nside = \"shared\"\n";
    Rig::with(&format!("[mmio]\n{mmio}\n{bar}"), 1)
}

/// FILL of 64 bytes; returns DMA_STATUS once it is done.
fn fill(host: &mut Host, region: u32) -> u32 {
    let mut memory = host.device.memory().unwrap();
    let address = memory.address(0).unwrap();
    host.device.region_write(region, 0x108, &address.to_le_bytes()).unwrap();
    host.device.region_write(region, 0x110, &64_u64.to_le_bytes()).unwrap();
    host.device.region_write(region, 0x120, &2_u32.to_le_bytes()).unwrap();
    host.device.region_write(region, 0x124, &1_u32.to_le_bytes()).unwrap();
    loop {
        let mut status = [0; 4];
        host.device.region_read(region, 0x128, &mut status).unwrap();
        let status = u32::from_le_bytes(status);
        if status & 2 != 0 {
            return status;
        }
    }
}

#[test]
fn dma_that_the_wrong_side_asked_for_is_told_and_can_be_refused() {
    const DONE: u32 = 2;
    const NOT_ALLOWED: u32 = 0x0506;
    for (mmio, by_host, by_tvm) in [
        ("tee = \"region\"", DONE, DONE),
        ("tee = \"region\"\nmixed_dma = \"refuse\"", NOT_ALLOWED, DONE),
        ("mixed_dma = \"refuse\"", NOT_ALLOWED, DONE),
    ] {
        let rig = with_shared_registers(mmio);
        let mut watcher = Watcher::watch(rig.control());
        let mut host = Host::plug(rig.socket(0));
        assert_eq!(fill(&mut host, 0), DONE, "T = 0 all along, {mmio}");
        host.run();
        assert_eq!(fill(&mut host, 0), by_host, "{mmio}");
        assert_eq!(fill(&mut host, WINDOW_REGION), by_tvm, "{mmio}");
        assert_eq!(fill(&mut host, 0), by_host, "{mmio}");
        host.stop(0);
        let told = broken(&mut watcher, stopped);
        assert!(
            matches!(&told[..], [(Sequence::MixedDma, place)] if place.starts_with("address 0x")),
            "{told:?}"
        );
    }
    let rig = with_shared_registers("strict = true");
    let mut host = Host::plug(rig.socket(0));
    host.run();
    assert_ne!(fill(&mut host, 0) & 4, 0, "aborted");
    assert_eq!(host.state(0), TdiState::ERROR);
}

#[test]
fn who_meets_a_machine_check_is_named() {
    let rig = rig("tee = \"region\"\narch = \"tdx\"\nmachine_check = \"exit\"");
    let mut watcher = Watcher::watch(rig.control());
    let mut host = Host::plug(rig.socket(0));
    host.run();
    let connected = watcher.until(|what| matches!(what, Happening::ClientConnected { .. })).pop();
    let Some(Happening::ClientConnected { peer: Peer::VfioUser { process: Some(process), .. } }) = connected
    else {
        panic!("{connected:?}")
    };
    assert_eq!(process.pid, std::process::id().cast_signed());
    // Its answer may still come, or not: the device ends.
    let _ = host.device.region_write(BAR, 0x40, &[1]);
    assert_eq!(rig.wait(), End::MachineCheck);
    let last =
        watcher.until(|what| matches!(what, Happening::MachineCheck { .. })).pop().unwrap().to_string();
    let name =
        format!("process {} ({}) wrote 1 bytes of the private BAR 2 + 0x40", process.pid, process.name);
    assert!(last.contains(&name), "{last}");
}

#[test]
fn a_machine_check_can_end_the_process_that_made_it_and_nothing_else() {
    let programs = Programs::build().unwrap();
    let rig = rig("tee = \"region\"\narch = \"tdx\"\nmachine_check = \"sigbus\"");
    let mut watcher = Watcher::watch(rig.control());
    let mut child = Command::new(&programs.tdispctl)
        .arg("--vfio-user")
        .arg(rig.socket(0))
        .arg("shell")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The first SIGBUS only takes away the handler that every Rust program has for its stack's guard page. The device takes longer
    // for what follows the second than the signal.
    input
        .write_all(b"lock\nmmio read 2 0x40 4\nstop\nlock\nmmio read 2 0x40 4\nstop\nlock\nstop\nlock\n")
        .unwrap();
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(SIGBUS), "{}", String::from_utf8_lossy(&ended.stdout));
    let told = watcher.until(|what| matches!(what, Happening::ClientDisconnected { .. }));
    let by = told.iter().find_map(|what| match what {
        Happening::MachineCheck { by, .. } => by.clone(),
        _ => None,
    });
    assert_eq!(by.map(|process| process.name), Some("tdispctl".into()));
    let mut host = Host::plug(rig.socket(0));
    assert_eq!(host.bar_read::<1>(2, 0x40), [0], "the device goes on");
}

#[test]
fn the_gate_counts_by_cell() {
    let rig = rig("tee = \"region\"");
    let mut host = Host::plug(rig.socket(0));
    let mut control = Watcher::connect(rig.control());
    let mut byte = [0];
    host.device.region_read(BAR, 0, &mut byte).unwrap();
    host.run();
    for _ in 0..3 {
        host.device.region_read(BAR, 0, &mut byte).unwrap();
    }
    host.device.region_write(WINDOW, 0, &[1]).unwrap();
    host.device.region_write(WINDOW, HALF, &[1]).unwrap();
    host.device.region_write(BAR, HALF, &[1]).unwrap();
    let state: State = serde_json::from_value(control.ask("state", json!({}))).unwrap();
    let cells: Vec<_> = state.tdis[0]
        .gate_cells
        .iter()
        .map(|cell| {
            let counts = [cell.reads, cell.writes, cell.rejected_reads, cell.rejected_writes];
            (cell.state.to_string(), cell.tee, cell.private, counts)
        })
        .collect();
    assert_eq!(
        cells,
        [
            ("CONFIG_UNLOCKED".into(), false, true, [1, 0, 0, 0]),
            ("RUN".into(), false, true, [0, 0, 3, 0]),
            ("RUN".into(), false, false, [0, 1, 0, 0]),
            ("RUN".into(), true, true, [0, 1, 0, 0]),
            ("RUN".into(), true, false, [0, 1, 0, 0]),
        ]
    );
}
