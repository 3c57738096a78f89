//! What the DSM asks of the device around it: pages that change sides, configuration writes judged register by register, the
//! optional requests, firmware updates, and more functions than a slot has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use tdisp::wire::{
    ErrorCode, LockFlags, MmioRange, RangeAttributes, RegistryId, Request, Response, TdiState, Vdm,
};
use tdispctl::pci::Width;
use tests::host::Host;
use tests::rig::Rig;

const COMMAND: u16 = 0x04;
const MEMORY_BAR: u8 = 2;
const ONES: [u8; 8] = [0xFF; 8];
const PATTERN: [u8; 8] = *b"tdispd!?";

#[test]
fn locked_msix_is_private_and_reported_and_otherwise_neither() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let entry = |host: &mut Host| host.bar_read::<4>(4, 0x0C);
    let msix = |host: &mut Host| {
        let report = host.report(0, 4096);
        let mine = report.ranges.into_iter().filter(|range| range.range_id == 4);
        mine.map(|range| range.attributes.into_bits()).collect::<Vec<_>>()
    };
    assert_eq!(entry(&mut host), [1, 0, 0, 0], "masked, and anyone may see it");
    host.lock(0);
    assert_eq!((entry(&mut host), msix(&mut host)), ([1, 0, 0, 0], vec![]));
    host.stop(0);
    let nonce = host.try_lock(0, LockFlags::new().with_lock_msix(true), 0).unwrap();
    assert_eq!((entry(&mut host), msix(&mut host)), ([0xFF; 4], vec![1, 2]), "CONFIG_LOCKED");
    host.start(0, nonce);
    assert_eq!(entry(&mut host), [1, 0, 0, 0], "the TVM's accesses in RUN");
    host.bar_write(4, 0, &0xFEE0_1000_u64.to_le_bytes());
    host.bar_write(4, 8, &0x4321_u64.to_le_bytes());
    assert_eq!(host.bar_read::<8>(4, 0), 0xFEE0_1000_u64.to_le_bytes());
    host.config_write(COMMAND, Width::Word, 0x2);
    assert_eq!((host.state(0), entry(&mut host)), (TdiState::ERROR, [0xFF; 4]));
    host.stop(0);
    assert_eq!(entry(&mut host), [1, 0, 0, 0], "anyone's again");
    assert_eq!(host.bar_read::<12>(4, 0), [0; 12], "and the TVM's vectors are gone");
}

const EVERYTHING: &str = "[pci]\nats = true\n\
    [ide]\nselective_streams = 2\n\
    [tdisp]\nrequests = [\"p2p\", \"mmio-attribute\", \"vdm\"]\nlock_flags = [\"bind-p2p\"]\n\
    [[function]]\nupdatable_pages = 8\n";

#[test]
fn attributes_move_pages_until_stop() {
    const PAGE: u64 = 124 * 4096;
    let rig = Rig::with(EVERYTHING, 1);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    host.start(0, nonce);
    let range = host.report(0, 4096).ranges.into_iter().find(|range| range.attributes.updatable()).unwrap();
    assert_eq!((range.pages, range.attributes.into_bits()), (8, 0b1000));
    let set = |host: &mut Host, non_tee| {
        let attributes = RangeAttributes::new().with_non_tee(non_tee);
        // BAR 2 page 124 is the fifth of the eight.
        let range = MmioRange { first_page: range.first_page + 4, pages: 1, attributes, ..range };
        host.ask(0, Request::SetMmioAttribute(range))
    };
    host.bar_write(MEMORY_BAR, PAGE, &PATTERN);
    host.bar_write(MEMORY_BAR, PAGE - 4096, &PATTERN);
    assert_eq!(set(&mut host, true), Ok(()));
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE), [0; 8], "it changed hands");
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE - 4096), PATTERN, "its neighbour did not");
    host.bar_write(MEMORY_BAR, PAGE, &PATTERN);
    host.config_write(COMMAND, Width::Word, 0x2);
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE), PATTERN, "shared in ERROR, too");
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE - 4096), ONES);
    assert_eq!(set(&mut host, false), Err(ErrorCode::INVALID_INTERFACE_STATE));
    host.stop(0);
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE), [0; 8]);
    host.config_write(COMMAND, Width::Word, 0x6);
    host.lock(0);
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE), ONES, "private again, as the layout has it");
}

/// PCIe 6.1 §11.2: ERROR keeps what LOCK and the TVM made private from the host, whatever was reset meanwhile.
#[test]
fn a_function_level_reset_gives_no_page_back_before_stop() {
    const PAGE: u64 = 124 * 4096;
    const DEVICE_CONTROL: u16 = 0x58;
    let rig = Rig::with(
        "[tdisp]\nrequests = [\"mmio-attribute\"]\nlock_flags = [\"lock-msix\"]\n[[function]]\nupdatable_pages = 8\n",
        1,
    );
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    let nonce = host.try_lock(0, LockFlags::new().with_lock_msix(true), 0).unwrap();
    host.start(0, nonce);
    let range = host.report(0, 4096).ranges.into_iter().find(|range| range.attributes.updatable()).unwrap();
    let attributes = RangeAttributes::new().with_non_tee(true);
    let shared = MmioRange { first_page: range.first_page + 4, pages: 1, attributes, ..range };
    assert_eq!(host.ask(0, Request::SetMmioAttribute(shared)), Ok(()));
    host.bar_write(MEMORY_BAR, PAGE, &PATTERN);
    let control = host.config_read(DEVICE_CONTROL, Width::Word);
    host.config_write(DEVICE_CONTROL, Width::Word, control | 1 << 15);
    host.config_write(COMMAND, Width::Word, 0x6);
    assert_eq!(host.state(0), TdiState::ERROR);
    assert_eq!(host.bar_read::<4>(4, 0x0C), [0xFF; 4], "LOCK made MSI-X private");
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, 0), ONES);
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, PAGE), [0; 8], "shared by the TVM, and wiped");
    host.bar_write(4, 0, &PATTERN);
    host.stop(0);
    assert_eq!(host.bar_read::<12>(4, 0), [0; 12], "writes in ERROR went nowhere");
    assert_eq!(host.bar_read::<4>(4, 0x0C), [1, 0, 0, 0], "masked");
}

#[test]
fn a_peer_stream_is_bound_once_ats_is_on() {
    const PEER: u8 = 9;
    const ATS_CONTROL: u16 = 0x12E;
    /// Control register of the second selective stream.
    const CONTROL: u16 = 0x160;
    let rig = Rig::with(EVERYTHING, 1);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    host.config_write(CONTROL, Width::Dword, u32::from(PEER) << 24);
    host.key_stream(PEER);
    host.config_write(CONTROL, Width::Dword, u32::from(PEER) << 24 | 1);
    let nonce = host.try_lock(0, LockFlags::new().with_bind_p2p(true), 0).unwrap();
    host.start(0, nonce);
    assert_eq!(host.ask(0, Request::BindP2p(PEER)), Err(ErrorCode::INVALID_REQUEST), "ATS is off");
    host.config_write(ATS_CONTROL, Width::Word, 0x8000);
    assert_eq!(host.ask(0, Request::BindP2p(PEER)), Ok(()));
    assert_eq!(host.ask(0, Request::UnbindP2p(PEER)), Ok(()));
    assert_eq!(host.ask(0, Request::UnbindP2p(PEER)), Err(ErrorCode::INVALID_REQUEST));
    assert_eq!(host.ask(0, Request::BindP2p(PEER)), Ok(()));
    let state = tests::control::Client::connect(rig.control()).ask("state", serde_json::json!({}));
    let binding = &state["tdis"][0]["binding"];
    assert_eq!(binding["p2p_streams"], serde_json::json!([{"kind": "selective", "index": 1}]));
    host.config_write(CONTROL, Width::Dword, u32::from(PEER) << 24);
    assert_eq!(host.state(0), TdiState::ERROR, "a bound stream was disabled");
}

#[test]
fn the_vendors_messages_come_back() {
    let rig = Rig::with(EVERYTHING, 1);
    let mut host = Host::plug(rig.socket(0));
    host.session();
    let vdm = |data| Vdm::new(RegistryId::PCI_SIG, &[0x34, 0x12], data).unwrap();
    host.tdisp(0, Request::Vdm(vdm(&[0, 1, 2, 3])), |answer| {
        assert_eq!(answer, Response::Vdm(vdm(&[0, 1, 2, 3])));
    });
    host.tdisp(0, Request::Vdm(vdm(&[9])), |answer| {
        let extended = Some(vdm(&[9]));
        assert_eq!(answer, Response::Error { code: ErrorCode::VENDOR_SPECIFIC_ERROR, data: 5, extended });
    });
}

/// PCIe 6.1 Table 11-2, register by register, as far as this device has them: where, what is written over what the device
/// shows, and whether a locked TDI survives it. With `strict_same_value` the writes that change nothing count, too.
#[test]
fn every_register_is_judged_as_the_specification_has_it() {
    use TdiState as S;
    const CHANGE: u32 = u32::MAX;
    // Name, offset, width, bits that are flipped, state after it, state after flipping nothing under strict rules.
    let table: &[(&str, u16, Width, u32, S, S)] = &[
        ("Command: Memory Space Enable", 0x04, Width::Word, 1 << 1, S::ERROR, S::CONFIG_LOCKED),
        ("Command: Bus Master Enable", 0x04, Width::Word, 1 << 2, S::ERROR, S::CONFIG_LOCKED),
        ("Command: parity, SERR#, INTx", 0x04, Width::Word, 0x0540, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Status", 0x06, Width::Word, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Cache Line Size", 0x0C, Width::Byte, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Latency Timer", 0x0D, Width::Byte, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("BIST", 0x0F, Width::Byte, CHANGE, S::CONFIG_LOCKED, S::ERROR),
        ("BAR 0", 0x10, Width::Dword, CHANGE, S::ERROR, S::ERROR),
        ("BAR 2, upper half", 0x1C, Width::Dword, CHANGE, S::ERROR, S::ERROR),
        ("Expansion ROM", 0x30, Width::Dword, CHANGE, S::CONFIG_LOCKED, S::ERROR),
        ("Interrupt Line", 0x3C, Width::Byte, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Power Management", 0x44, Width::Word, 3, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Device Control: error reporting, MPS, MRRS", 0x58, Width::Word, 0x70FF, S::CONFIG_LOCKED, S::ERROR),
        ("Device Control: extended tag", 0x58, Width::Word, 1 << 8, S::ERROR, S::ERROR),
        ("Device Control: no snoop", 0x58, Width::Word, 1 << 11, S::ERROR, S::ERROR),
        ("Device Control: FLR", 0x58, Width::Word, 1 << 15, S::ERROR, S::ERROR),
        ("Device Status", 0x5A, Width::Word, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("Link Control", 0x60, Width::Word, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        (
            "Device Control 2: completion timeout",
            0x78,
            Width::Word,
            CHANGE,
            S::CONFIG_LOCKED,
            S::CONFIG_LOCKED,
        ),
        ("Link Control 2", 0x80, Width::Word, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("MSI-X, which is not locked", 0x92, Width::Word, 0xC000, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("DOE: abort", 0x118, Width::Dword, 1, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("ATS Control", 0x12E, Width::Word, 0x8000, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("ARI Control", 0x136, Width::Word, CHANGE, S::CONFIG_LOCKED, S::ERROR),
        ("IDE Control", 0x140, Width::Dword, CHANGE, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
        ("bound IDE stream: enable", 0x148, Width::Dword, 1, S::ERROR, S::ERROR),
        ("bound IDE stream: RID association", 0x150, Width::Dword, 0x100, S::ERROR, S::ERROR),
        ("bound IDE stream: address association", 0x158, Width::Dword, CHANGE, S::ERROR, S::ERROR),
        ("other IDE stream", 0x168, Width::Dword, 0x0100_0000, S::CONFIG_LOCKED, S::CONFIG_LOCKED),
    ];
    for strict in [false, true] {
        let text = format!(
            "[pci]\nari = true\nats = true\n[ide]\nselective_streams = 2\n[tdisp]\nstrict_same_value = {strict}\n"
        );
        for (name, offset, width, flip, changed, same) in table {
            let rig = Rig::with(&text, 1);
            let mut host = Host::plug(rig.socket(0));
            host.session();
            host.secure_stream();
            host.lock(0);
            let now = host.config_read(*offset, *width);
            let (value, expected) = if strict { (now, *same) } else { (now ^ flip, *changed) };
            host.config_write(*offset, *width, value);
            assert_eq!(host.state(0), expected, "{name}, strict: {strict}");
        }
    }
}

#[test]
fn sixteen_functions_with_ari_have_states_of_their_own() {
    const FUNCTIONS: usize = 16;
    let rig = Rig::with("[pci]\nari = true\n", FUNCTIONS);
    let mut host = Host::plug(rig.socket(0));
    let others: Vec<Host> = (1..FUNCTIONS).map(|number| Host::plug(rig.socket(number))).collect();
    host.session();
    host.secure_stream();
    for function in (0..FUNCTIONS as u16).step_by(3) {
        let nonce = host.lock(function);
        if function % 2 == 0 {
            host.start(function, nonce);
        }
    }
    for function in 0..FUNCTIONS as u16 {
        let expected = match function {
            function if function % 3 != 0 => TdiState::CONFIG_UNLOCKED,
            function if function % 2 == 0 => TdiState::RUN,
            _ => TdiState::CONFIG_LOCKED,
        };
        assert_eq!(host.state(function), expected, "function {function}");
    }
    assert_eq!(others.len(), FUNCTIONS - 1);
}

#[test]
fn a_version_query_in_the_clear_ends_the_session_and_what_it_locked() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.run();
    let query = [1, 0, 1, 0, 3, 0, 0, 0, 0x10, 0x84, 0, 0];
    let version = host.object(&query).unwrap();
    assert_eq!(version[9], 0x04, "VERSION");
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, 0), ONES, "ERROR: private pages are closed");
    host.session();
    assert_eq!(host.state(0), TdiState::ERROR);
    host.stop(0);
}

#[test]
fn dma_that_fails_is_the_functions_to_tell_or_the_end_of_run() {
    for (setting, expected) in [("recover", TdiState::RUN), ("error", TdiState::ERROR)] {
        let rig = Rig::with(&format!("[tdisp]\ndma_fault = \"{setting}\"\n"), 1);
        let mut host = Host::plug(rig.socket(0));
        host.run();
        // DMA_SOURCE where no memory is, DMA_LENGTH, CHECK, start.
        host.bar_write(0, 0x100, &0xDEAD_0000_0000_u64.to_le_bytes());
        host.bar_write(0, 0x110, &64_u64.to_le_bytes());
        host.bar_write(0, 0x120, &3_u32.to_le_bytes());
        host.bar_write(0, 0x124, &1_u32.to_le_bytes());
        // DMA_STATUS: done, or the page is closed.
        while host.bar_read::<4>(0, 0x128)[0] & 0b10 == 0 {
            std::thread::yield_now();
        }
        assert_eq!(host.state(0), expected, "{setting}");
    }
}

#[test]
fn a_firmware_update_is_forbidden_survived_or_the_end() {
    use tdispd_proto::control::Happening;
    let file = tempfile::NamedTempFile::new().unwrap();
    let flags = LockFlags::new().with_no_fw_update(true);
    for (flags, at_run_time, expected) in [
        (flags, false, TdiState::RUN),
        (LockFlags::new(), true, TdiState::RUN),
        (LockFlags::new(), false, TdiState::ERROR),
    ] {
        std::fs::write(file.path(), "old").unwrap();
        let mut rig = Rig::with(
            &format!(
                "[tdisp]\nruntime_update = {at_run_time}\n\
                 [[spdm.measurement]]\nindex = 2\nkind = \"mutable-firmware\"\nfile = {:?}\n",
                file.path().to_str().unwrap()
            ),
            1,
        );
        let mut host = Host::plug(rig.socket(0));
        let mut watcher = tests::control::Client::watch(rig.control());
        host.session();
        host.secure_stream();
        let nonce = host.try_lock(0, flags, 0).unwrap();
        host.start(0, nonce);
        // Nothing has changed: that is no update.
        rig.update_firmware();
        assert_eq!(host.state(0), TdiState::RUN);
        std::fs::write(file.path(), "new").unwrap();
        rig.update_firmware();
        let forbidden = flags != LockFlags::new();
        let happened = loop {
            let what = watcher.event().what;
            if let Happening::FirmwareUpdated { measurements } = &what {
                assert_eq!(measurements, &[2]);
                break true;
            }
            if matches!(what, Happening::FirmwareUpdateForbidden { function: 0 }) {
                break false;
            }
        };
        assert_eq!(happened, !forbidden);
        if expected == TdiState::RUN {
            assert_eq!(host.state(0), expected);
            continue;
        }
        // The session is gone, and the responder wants to be asked for its versions again.
        assert_eq!(host.bar_read::<8>(MEMORY_BAR, 0), ONES);
        let capabilities = [1, 0, 1, 0, 3, 0, 0, 0, 0x12, 0xE1, 0, 0];
        let answer = host.object(&capabilities).unwrap();
        assert_eq!((answer[9], answer[10]), (0x7F, 0x43), "RequestResynch");
        host.session();
        assert_eq!(host.state(0), expected);
    }
}

/// PCIe 6.1 §11.4.2, and TerminationPolicy of DSP0274 1.2 "KEY_EXCHANGE". The sessions of the other tests have its bit set,
/// and `a_firmware_update_is_forbidden_survived_or_the_end` sees one live on.
#[test]
fn an_update_at_run_time_ends_a_session_that_asked_for_it_and_what_it_locked() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let mut rig = Rig::with(
        &format!(
            "[tdisp]\nruntime_update = true\n\
             [[spdm.measurement]]\nindex = 2\nkind = \"mutable-firmware\"\nfile = {:?}\n",
            file.path().to_str().unwrap()
        ),
        3,
    );
    let mut host = Host::plug(rig.socket(0));
    // LOCK wants addresses in its BARs.
    let _other = Host::plug(rig.socket(1));
    host.session_that(true);
    host.secure_stream();
    let nonce = host.lock(0);
    host.start(0, nonce);
    host.lock(1);
    let mut watcher = tests::control::Client::watch(rig.control());
    std::fs::write(file.path(), "new").unwrap();
    rig.update_firmware();
    assert_eq!(
        watcher.story("firmware-updated"),
        [
            "session-ended firmware-updated",
            "0: RUN ERROR session-ended",
            "1: CONFIG_LOCKED ERROR session-ended",
            "stream-insecure session-ended",
            "firmware-updated [2]",
        ]
    );
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, 0), ONES, "ERROR: private pages are closed");
    // Whoever comes next finds what was left behind, and may stop it.
    host.session();
    let states = [0, 1, 2].map(|function| host.state(function));
    assert_eq!(states, [TdiState::ERROR, TdiState::ERROR, TdiState::CONFIG_UNLOCKED]);
    host.stop(0);
    host.stop(1);
    assert_eq!(host.bar_read::<8>(MEMORY_BAR, 0), [0; 8], "scrubbed");
}
