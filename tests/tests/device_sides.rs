//! BAR memory told apart: where T comes from, what is exported when, and what becomes of it, with a device behind its socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use tdisp::wire::{Nonce, TdiState};
use tdispctl::error::Error;
use tdispd_proto::control::{Happening, Sequence};
use tdispd_proto::vfio_user::{RegionType, WINDOW_REGION};
use tests::control::Client as Watcher;
use tests::host::Host;
use tests::rig::Rig;

const BAR: u32 = 2;
const WINDOW: u32 = WINDOW_REGION + BAR;
const PAGE: u64 = 4096;
/// BAR 2 of the default function: so much private memory, and as much shared.
const HALF: u64 = 0x8_0000;
const PRIVATE: [(u64, u64); 1] = [(PAGE, 2 * PAGE)];
const SHARED: [(u64, u64); 1] = [(HALF, PAGE)];
const ONES: u8 = 0xFF;
const EBUSY: u32 = 16;
const ENODEV: u32 = 19;
const EINVAL: u32 = 22;

fn rig(mmio: &str) -> Rig {
    Rig::with(&format!("[mmio]\n{mmio}"), 1)
}

fn read(host: &mut Host, region: u32, offset: u64) -> u8 {
    let mut data = [0xA5];
    host.device.region_read(region, offset, &mut data).unwrap();
    data[0]
}

fn write(host: &mut Host, region: u32, offset: u64, byte: u8) {
    host.device.region_write(region, offset, &[byte]).unwrap();
}

/// Whether a byte written there is there afterwards.
fn keeps(host: &mut Host, region: u32, offset: u64, byte: u8) -> bool {
    write(host, region, offset, byte);
    read(host, region, offset) == byte
}

fn export(host: &mut Host, region: u32, ranges: &[(u64, u64)]) -> Result<File, String> {
    host.device.dma_buf(region, ranges).map(File::from).map_err(|error| {
        let Error::Refused { reason, .. } = error else { panic!("{error}") };
        reason
    })
}

fn refused(host: &mut Host, region: u32, ranges: &[(u64, u64)], errno: u32) {
    let reason = export(host, region, ranges).map(|_| ()).unwrap_err();
    assert!(reason.contains(&format!("os error {errno})")), "region {region} {ranges:x?}: {reason}");
}

/// `None` where the file was cut.
fn seen(file: &File, page: u64) -> Option<u8> {
    let mut data = [0xA5];
    (file.read_at(&mut data, page * PAGE).unwrap() == 1).then_some(data[0])
}

fn set(file: &File, page: u64, byte: u8) {
    let _ = file.write_at(&[byte], page * PAGE);
}

fn lock(host: &mut Host) -> Nonce {
    host.session();
    host.secure_stream();
    host.lock(0)
}

/// Where T = 0 and T = 1 reach byte 0 of BAR 2's layout, for each source of T.
fn doors(source: &str) -> [(u32, u64); 2] {
    match source {
        "tee = \"region\"" => [(BAR, 0), (WINDOW, 0)],
        "tee = \"alias\"" => [(BAR, 0), (BAR, 2 * HALF)],
        "tee = \"alias\"\nalias_private = \"low\"" => [(BAR, 2 * HALF), (BAR, 0)],
        other => panic!("{other}"),
    }
}

const SOURCES: [&str; 3] =
    ["tee = \"region\"", "tee = \"alias\"", "tee = \"alias\"\nalias_private = \"low\""];

/// Every cell of the access rules: state × T × side of the page, whichever way T comes.
#[test]
fn every_cell_of_the_gate_holds_wherever_t_comes_from() {
    for source in SOURCES {
        let rig = rig(source);
        let mut host = Host::plug(rig.socket(0));
        let [plain, trusted] = doors(source);
        let mut byte = 0;
        let mut cells = |host: &mut Host, state: &str, expected: [bool; 4]| {
            let doors = [(plain, 0), (plain, HALF), (trusted, 0), (trusted, HALF)];
            let found = doors.map(|((region, base), side)| {
                byte += 1;
                keeps(host, region, base + side + 0x123, byte)
            });
            assert_eq!(found, expected, "{source}, {state}: T = 0 private, shared; T = 1 private, shared");
        };
        cells(&mut host, "CONFIG_UNLOCKED", [true, true, false, false]);
        let nonce = lock(&mut host);
        cells(&mut host, "CONFIG_LOCKED", [false, true, false, false]);
        host.start(0, nonce);
        cells(&mut host, "RUN", [false, true, true, true]);
        // Clearing Memory Space Enable and setting it again.
        let command = host.config_read(4, tdispctl::pci::Width::Word);
        host.config_write(4, tdispctl::pci::Width::Word, command & !2);
        host.config_write(4, tdispctl::pci::Width::Word, command);
        assert_eq!(host.state(0), TdiState::ERROR);
        cells(&mut host, "ERROR", [false, true, false, false]);
        host.stop(0);
        cells(&mut host, "after STOP", [true, true, false, false]);
    }
}

#[test]
fn one_access_may_meet_both_halves_of_an_alias() {
    let rig = rig("tee = \"alias\"");
    let mut host = Host::plug(rig.socket(0));
    write(&mut host, BAR, 2 * HALF - 1, 7);
    let mut both = [0xA5; 2];
    host.device.region_read(BAR, 2 * HALF - 1, &mut both).unwrap();
    assert_eq!(both, [7, ONES], "T = 1 is refused before RUN");
    host.run();
    write(&mut host, BAR, 2 * HALF, 9);
    host.device.region_read(BAR, 2 * HALF - 1, &mut both).unwrap();
    assert_eq!(both, [7, 9]);
    // The report describes the plain half.
    let report = host.report(0, 4096);
    let pages: u32 = report.ranges.iter().filter(|range| range.range_id == 2).map(|range| range.pages).sum();
    assert_eq!(u64::from(pages) * PAGE, 2 * HALF);
}

#[test]
fn windows_say_what_they_are() {
    let rig = rig("");
    let mut host = Host::plug(rig.socket(0));
    for (region, expected) in [(0, None), (9, Some(0)), (10, None), (11, Some(2)), (13, Some(4))] {
        let kind = host.device.region_type(region).unwrap();
        assert_eq!(kind, expected.map(|bar| RegionType::window(0x1234, bar)), "region {region}");
    }
}

/// The seed's sequence: shared exports go before the bind, private ones come after it.
#[test]
fn a_vmm_maps_shared_and_private_memory_apart() {
    let rig = rig("");
    let mut host = Host::plug(rig.socket(0));
    let whole = export(&mut host, BAR, &[(0, 2 * HALF)]).unwrap();
    set(&whole, 1, 5);
    assert_eq!(read(&mut host, BAR, PAGE), 5);
    refused(&mut host, WINDOW, &PRIVATE, EINVAL);
    drop(whole);

    let nonce = lock(&mut host);
    for (region, ranges) in [
        (BAR, &PRIVATE[..]),
        (BAR, &[(HALF - PAGE, 2 * PAGE)]),
        (BAR, &[PRIVATE[0], SHARED[0]]),
        (WINDOW, &SHARED),
        (WINDOW, &[(HALF - PAGE, 2 * PAGE)]),
        (0, &[(0, PAGE)]),
        (4, &[(0, PAGE)]),
    ] {
        refused(&mut host, region, ranges, EINVAL);
    }
    let shared = export(&mut host, BAR, &SHARED).unwrap();
    let private = export(&mut host, WINDOW, &PRIVATE).unwrap();
    assert_eq!(seen(&private, 0), Some(ONES));
    set(&private, 0, 3);

    host.start(0, nonce);
    assert_eq!((read(&mut host, BAR, PAGE), seen(&private, 0)), (0, Some(0)), "lost at START");
    set(&private, 1, 6);
    set(&shared, 0, 7);
    assert_eq!((read(&mut host, BAR, 2 * PAGE), read(&mut host, BAR, HALF)), (6, 7));
    write(&mut host, WINDOW, PAGE, 8);
    assert_eq!(seen(&private, 0), Some(8));
    refused(&mut host, WINDOW, &[(2 * PAGE, 2 * PAGE)], EBUSY);

    host.stop(0);
    assert_eq!((seen(&private, 0), seen(&private, 1)), (Some(0), Some(0)));
    set(&private, 0, 9);
    assert_eq!((read(&mut host, BAR, PAGE), read(&mut host, BAR, HALF)), (0, 7));
    host.config_write(4, tdispctl::pci::Width::Word, 0);
    refused(&mut host, BAR, &SHARED, ENODEV);
}

/// What a mapping that outlives its side comes to, by architecture: a T = 0 one at LOCK and after STOP, a T = 1 one in ERROR.
#[test]
fn each_architecture_treats_old_mappings_its_way() {
    for (arch, locked, stopped, failed) in [
        ("cca", Some(5), Some(5), Some(0)),
        ("tdx", None, None, None),
        ("sev", Some(ONES), Some(0), Some(ONES)),
    ] {
        let rig = rig(&format!("arch = \"{arch}\""));
        let mut host = Host::plug(rig.socket(0));
        let mut watcher = Watcher::watch(rig.control());
        let shared = export(&mut host, BAR, &PRIVATE).unwrap();
        set(&shared, 0, 5);
        let nonce = lock(&mut host);
        assert_eq!(seen(&shared, 0), locked, "{arch}");
        host.start(0, nonce);
        let private = export(&mut host, WINDOW, &PRIVATE).unwrap();
        set(&private, 0, 6);
        assert_eq!(read(&mut host, WINDOW, PAGE), 6);
        assert_ne!(seen(&shared, 0), Some(6), "{arch}");
        host.stop(0);
        assert_eq!((seen(&shared, 0), seen(&private, 0)), (stopped, failed), "{arch}");
        set(&private, 0, 7);
        assert_eq!(read(&mut host, BAR, PAGE), 0, "{arch}");

        let revoked = watcher.until(|what| matches!(what, Happening::ExportRevoked { tee: true, .. }));
        let told = |sequence| {
            revoked.iter().any(|what| matches!(what, Happening::OutOfOrder { rule, .. } if *rule == sequence))
        };
        assert!(
            told(Sequence::SharedExportAtLock) && told(Sequence::ExportWhileRunning),
            "{arch}: {revoked:?}"
        );
    }
}

#[test]
fn with_tdx_a_t0_access_to_a_bound_page_is_a_machine_check() {
    let rig = rig("tee = \"region\"\narch = \"tdx\"");
    let mut host = Host::plug(rig.socket(0));
    let mut watcher = Watcher::watch(rig.control());
    host.run();
    for _ in 0..3 {
        assert_eq!(read(&mut host, BAR, 0x1230), ONES);
    }
    host.stop(0);
    read(&mut host, BAR, 0x1230);
    let seen = watcher.until(|what| {
        matches!(what, Happening::Transition { to: tdispd_proto::control::TdiState::ConfigUnlocked, .. })
    });
    let checks: Vec<_> = seen.iter().filter(|what| matches!(what, Happening::MachineCheck { .. })).collect();
    assert_eq!(checks.len(), 1, "told once in a state: {checks:?}");
    assert!(checks[0].to_string().contains("BAR 2 + 0x1230"), "{}", checks[0]);
}

#[test]
fn a_strict_device_does_not_forgive() {
    let rig = rig("strict = true");
    let mut host = Host::plug(rig.socket(0));
    let held = export(&mut host, BAR, &PRIVATE).unwrap();
    lock(&mut host);
    assert_eq!(host.state(0), TdiState::ERROR, "a shared export was held at LOCK");
    drop(held);
    host.stop(0);
    host.lock(0);
    assert_eq!(host.state(0), TdiState::CONFIG_LOCKED);
    read(&mut host, BAR, 0);
    assert_eq!(host.state(0), TdiState::ERROR, "a private page was touched before RUN");
}

#[test]
fn a_private_export_may_come_early_where_that_is_allowed() {
    let rig = rig("private_early = \"allow\"");
    let mut host = Host::plug(rig.socket(0));
    let early = export(&mut host, WINDOW, &PRIVATE).unwrap();
    let nonce = lock(&mut host);
    assert_eq!(seen(&early, 0), Some(ONES));
    host.start(0, nonce);
    set(&early, 0, 4);
    assert_eq!(read(&mut host, BAR, PAGE), 4);
}

#[test]
fn another_client_does_not_meet_what_the_last_one_mapped() {
    let rig = rig("");
    let mut host = Host::plug(rig.socket(0));
    let mapped = export(&mut host, BAR, &SHARED).unwrap();
    set(&mapped, 0, 5);
    drop(host);
    let mut host = Host::plug(rig.socket(0));
    set(&mapped, 0, 6);
    assert_eq!(read(&mut host, BAR, HALF), 0);
    assert!(export(&mut host, BAR, &SHARED).is_ok());
}
