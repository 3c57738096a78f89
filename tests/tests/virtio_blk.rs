//! A disk behind vfio-user, in this process: requests in every state of its TDI, over resets, with rings that make no sense,
//! in every place that the BARs may give it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tdisp::wire::TdiState;
use tdispctl::pci::Width;
use tests::control::Client;
use tests::host::Host;
use tests::rig::Rig;
use tests::virtio::{Driver, FLUSH, MUST, NEEDS_RESET, PENDING, QUEUE_SIZE, request};

const DISK: &str = "[[function]]\nkind = \"virtio-blk\"\ndisk.size = \"1M\"\ndisk.serial = \"a disk\"\n";
const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const DEVICE_CONTROL: u16 = 0x58;
const FLR: u32 = 1 << 15;
const EVENT_IDX: u64 = 1 << 29;

fn plugged(toml: &str) -> (Rig, Host) {
    let rig = Rig::with(toml, 1);
    let host = Host::plug(rig.socket(0));
    (rig, host)
}

#[test]
fn it_says_that_it_is_a_virtio_disk() {
    let (_rig, mut host) = plugged(DISK);
    let mut dword = |offset| host.config_read(offset, Width::Dword);
    assert_eq!((dword(0x00), dword(0x08), dword(0x2C)), (0x1042_1AF4, 0x0180_0001, 0x1100_1AF4));
    let driver = Driver::find(&mut host);
    assert_eq!((driver.common, driver.notify), ((0, 0), (0, 0x4000)));
    assert_eq!(driver.capacity(&mut host), 2048);
}

#[test]
fn requests_are_served_before_lock_and_in_run_and_nowhere_else() {
    let (_rig, mut host) = plugged(DISK);
    let mut driver = Driver::new(&mut host, MUST | FLUSH | EVENT_IDX);
    assert_eq!(driver.write_disk(&mut host, 5, &[0x51; 1024]), 0);
    driver.submit(&mut host, request::FLUSH, 0, &[]);
    assert_eq!(driver.wait(), 0);
    assert_eq!(driver.read_disk(&mut host, 5), Ok([0x51; 1024]));
    driver.submit(&mut host, request::GET_ID, 0, &[0; 20]);
    assert_eq!((driver.wait(), &driver.get::<8>(0x2000)), (0, b"a disk\0\0"));
    assert_eq!(driver.read_disk::<512>(&mut host, 2048), Err(1), "behind the end");

    host.session();
    host.secure_stream();
    let nonce = host.lock(0);
    driver.submit(&mut host, request::IN, 5, &[0; 512]);
    assert_eq!((driver.settled(&mut host), driver.status(&mut host)), (PENDING, 0xFF), "CONFIG_LOCKED");
    host.start(0, nonce);
    assert_eq!(driver.status(&mut host), NEEDS_RESET, "what the host had set up is gone");
    driver.ring(&mut host);
    assert_eq!(driver.settled(&mut host), PENDING, "and stays so");

    driver.begin(&mut host, MUST | FLUSH);
    assert_eq!(driver.read_disk(&mut host, 5), Ok([0x51; 512]), "RUN");
    assert_eq!(driver.write_disk(&mut host, 5, &[0x52; 512]), 0);

    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    assert_eq!(host.state(0), TdiState::ERROR);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER);
    driver.submit(&mut host, request::IN, 5, &[0; 512]);
    assert_eq!((driver.settled(&mut host), driver.status(&mut host)), (PENDING, 0xFF), "ERROR");
    host.stop(0);
    assert_eq!(driver.status(&mut host) & !NEEDS_RESET, 0, "nothing of the TVM's registers is left");
    driver.ring(&mut host);
    assert_eq!(driver.settled(&mut host), PENDING, "CONFIG_UNLOCKED again, and no ring");
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 5), Ok([0x52; 512]));
}

#[test]
fn a_request_waits_for_bus_mastering() {
    let (_rig, mut host) = plugged(DISK);
    let mut driver = Driver::new(&mut host, MUST);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    driver.submit(&mut host, request::IN, 0, &[1; 512]);
    assert_eq!((driver.settled(&mut host), driver.used()), (PENDING, 0));
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER);
    assert_eq!((driver.wait(), driver.get::<512>(0x2000)), (0, [0; 512]));
}

#[test]
fn stop_in_run_needs_a_reset_and_says_so() {
    let (_rig, mut host) = plugged(DISK);
    host.run();
    let mut driver = Driver::new(&mut host, MUST);
    assert_eq!(driver.write_disk(&mut host, 0, &[9; 512]), 0);
    host.stop(0);
    assert_eq!(driver.status(&mut host), NEEDS_RESET);
    driver.submit(&mut host, request::IN, 0, &[0; 512]);
    assert_eq!(driver.settled(&mut host), PENDING);
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([9; 512]));
}

#[test]
fn a_function_level_reset_forgets_the_ring_and_keeps_the_disk() {
    let (_rig, mut host) = plugged(DISK);
    let mut driver = Driver::new(&mut host, MUST);
    assert_eq!(driver.write_disk(&mut host, 0, &[3; 512]), 0);
    // Bus mastering is off, so that the request is there when the reset comes.
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    driver.submit(&mut host, request::OUT, 0, &[4; 512]);
    host.config_write(DEVICE_CONTROL, Width::Word, FLR);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER);
    assert_eq!((driver.settled(&mut host), driver.status(&mut host)), (PENDING, 0));
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([3; 512]));
}

#[test]
fn rings_that_make_no_sense_break_the_device_until_its_driver_resets_it() {
    type Break = fn(&mut Driver);
    let ways: [(&str, Break); 4] = [
        ("an index too far ahead", |driver| driver.put(0x402, &(QUEUE_SIZE + 1).to_le_bytes())),
        ("a descriptor that there is not", |driver| driver.offer(0xFFFF)),
        ("the first one behind the last", |driver| driver.offer(QUEUE_SIZE)),
        ("an index that went back", |driver| driver.put(0x402, &[0xFF, 0xFF])),
    ];
    let (_rig, mut host) = plugged(DISK);
    for (what, break_it) in ways {
        let mut driver = Driver::new(&mut host, MUST);
        break_it(&mut driver);
        driver.ring(&mut host);
        driver.settled(&mut host);
        assert_eq!(driver.status(&mut host), 0x4F, "{what}");
        driver.submit(&mut host, request::IN, 0, &[0; 512]);
        assert_eq!(driver.settled(&mut host), PENDING, "{what}");
        driver.begin(&mut host, MUST);
        assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]), "{what}");
    }
}

#[test]
fn chains_that_make_no_sense_fail_alone() {
    let (_rig, mut host) = plugged(DISK);
    let mut driver = Driver::new(&mut host, MUST);
    // A circle; data that is nowhere; a header of one byte; a chain without room for a status.
    let chains: [&[(u64, u32, u16, u16)]; 4] = [
        &[(0x1000, 16, 1, 1), (0x2000, 512, 1, 0)],
        &[(0x1000, 16, 1, 1), (u64::MAX / 2, 512, 3, 2), (0x1010, 1, 2, 0)],
        &[(0x1000, 1, 1, 2), (0, 0, 0, 0), (0x1010, 1, 2, 0)],
        &[(0x1000, 16, 0, 0)],
    ];
    for chain in chains {
        driver.put(0x1000, &[0; 16]);
        for (index, (offset, length, flags, next)) in (0_u16..).zip(chain) {
            driver.descriptor(index, *offset, *length, *flags, *next);
        }
        driver.offer(0);
        driver.ring(&mut host);
        driver.wait();
        assert_eq!(driver.status(&mut host), 0x0F, "{chain:?}");
        assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]), "{chain:?}");
    }
}

#[test]
fn a_private_disk_shows_in_which_world_one_is() {
    let text = format!("{DISK}private_disk.size = \"2M\"\n");
    let (_rig, mut host) = plugged(&text);
    let mut driver = Driver::new(&mut host, MUST);
    assert_eq!(driver.write_disk(&mut host, 0, &[1; 512]), 0);
    assert_eq!(driver.capacity(&mut host), 2048);
    host.run();
    assert_eq!(driver.capacity(&mut host), 4096);
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]));
    assert_eq!(driver.write_disk(&mut host, 0, &[2; 512]), 0);
    host.stop(0);
    assert_eq!(driver.capacity(&mut host), 2048);
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([1; 512]));
}

/// A device whose registers are shared: what the host set up is there in RUN, too.
fn shared_registers(rest: &str) -> String {
    let range =
        |kind: &str| format!("[[function.bar.range]]\nkind = \"{kind}\"\nsize = \"4K\"\nside = \"shared\"\n");
    let bars = format!("[[function.bar]]\nindex = 1\n{}{}", range("registers"), range("doorbells"));
    format!("{DISK}msix = false\n{rest}\n{bars}")
}

#[test]
fn with_shared_registers_a_request_waits_through_lock_and_is_mixed_dma_in_run() {
    for (mixed, served) in [("allow", true), ("refuse", false)] {
        let text = format!("{}[mmio]\nmixed_dma = \"{mixed}\"\n", shared_registers(""));
        let (rig, mut host) = plugged(&text);
        let mut watcher = Client::watch(rig.control());
        let mut driver = Driver::new(&mut host, MUST);
        assert_eq!(driver.write_disk(&mut host, 7, &[6; 512]), 0);
        host.session();
        host.secure_stream();
        let nonce = host.lock(0);
        assert_eq!(driver.status(&mut host), 0x0F, "nobody took it away");
        driver.submit(&mut host, request::IN, 7, &[0; 512]);
        assert_eq!(driver.settled(&mut host), PENDING, "CONFIG_LOCKED");
        host.start(0, nonce);
        let status = if served { driver.wait() } else { driver.settled(&mut host) };
        assert_eq!(status, if served { 0 } else { PENDING }, "{mixed}");
        let story = watcher.story("out-of-order");
        assert!(story.iter().any(|line| line.contains("MixedDma")), "{mixed}: {story:?}");
    }
}

#[test]
fn the_configuration_says_what_becomes_of_requests_outside_run() {
    let (_rig, mut host) = plugged(&format!("{DISK}virtio.unlocked = \"fail\"\n"));
    let mut driver = Driver::new(&mut host, MUST);
    assert_eq!(driver.read_disk::<512>(&mut host, 0), Err(1));
    host.run();
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]));

    let (_rig, mut host) = plugged(&format!("{DISK}virtio.unlocked = \"wait\"\n"));
    let mut driver = Driver::new(&mut host, MUST);
    driver.submit(&mut host, request::IN, 0, &[0; 512]);
    assert_eq!(driver.settled(&mut host), PENDING);
    host.run();
    driver.begin(&mut host, MUST);
    assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]));

    let (_rig, mut host) = plugged(&shared_registers("virtio.locked = \"break\""));
    let driver = Driver::new(&mut host, MUST);
    host.session();
    host.secure_stream();
    host.lock(0);
    assert_eq!(driver.status(&mut host), 0x4F);
}

#[test]
fn the_capabilities_point_at_the_half_that_the_configuration_wants() {
    for (window, private, high) in
        [("plain", "high", false), ("tee", "high", true), ("plain", "low", true), ("tee", "low", false)]
    {
        let text = format!(
            "{DISK}virtio.window = \"{window}\"\n[mmio]\ntee = \"alias\"\nalias_private = \"{private}\"\n"
        );
        let (_rig, mut host) = plugged(&text);
        let mut driver = Driver::find(&mut host);
        let half = if high { 0x8000 } else { 0 };
        assert_eq!([driver.common, driver.notify], [(0, half), (0, half + 0x4000)], "{window} {private}");
        let tee = window == "tee";
        assert_eq!(driver.status(&mut host), if tee { 0xFF } else { 0 }, "CONFIG_UNLOCKED: {window}");
        host.run();
        assert_eq!(driver.status(&mut host), if tee { 0 } else { 0xFF }, "RUN: {window}");
        if tee {
            driver.begin(&mut host, MUST);
            assert_eq!(driver.read_disk(&mut host, 0), Ok([0; 512]));
        }
    }
}

#[test]
fn configuration_space_is_a_way_to_the_registers_that_has_t_0() {
    let (_rig, mut host) = plugged(DISK);
    let driver = Driver::find(&mut host);
    let access = |host: &mut Host, offset: u32, length: u32| {
        host.config_write(driver.pci_cfg + 4, Width::Byte, 0);
        host.config_write(driver.pci_cfg + 8, Width::Dword, offset);
        host.config_write(driver.pci_cfg + 12, Width::Dword, length);
    };
    let data = driver.pci_cfg + 16;
    access(&mut host, 0x400, 4);
    assert_eq!(host.config_read(data, Width::Dword), 2048, "capacity");
    access(&mut host, 0x14, 1);
    host.config_write(data, Width::Byte, 3);
    assert_eq!((driver.status(&mut host), host.config_read(data, Width::Byte)), (3, 3));
    access(&mut host, 0x16, 2);
    host.config_write(data, Width::Word, 5);
    assert_eq!(driver.read(&mut host, 0x16), [5, 0]);
    for (offset, length) in [(0x15, 2), (0x14, 3), (0x8000, 4), (0xFFFF_FFFC, 4), (0, 0)] {
        access(&mut host, offset, length);
        host.config_write(data, Width::Dword, 0);
        assert_eq!(host.config_read(data, Width::Dword), 0, "{offset:#x} {length}");
    }
    assert_eq!(driver.status(&mut host), 3, "and nothing was written");
    host.run();
    access(&mut host, 0x14, 1);
    assert_eq!(host.config_read(data, Width::Byte), 0xFF, "no TVM makes configuration requests");
    host.config_write(data, Width::Byte, 1);
    assert_eq!(driver.status(&mut host), NEEDS_RESET & driver.status(&mut host));
}

#[test]
fn a_disk_and_the_test_function_are_one_device() {
    let rig = Rig::with(&format!("[[function]]\n{DISK}"), 2);
    let mut first = Host::plug(rig.socket(0));
    let mut second = Host::plug(rig.socket(1));
    assert_eq!(&first.bar_read::<4>(0, 0), b"TDSP");
    let mut driver = Driver::new(&mut second, MUST);
    assert_eq!(driver.write_disk(&mut second, 1, &[8; 512]), 0);
    first.session();
    first.secure_stream();
    let nonce = first.lock(1);
    assert_eq!((driver.status(&mut second), &first.bar_read::<4>(0, 0)), (0xFF, b"TDSP"));
    first.start(1, nonce);
    driver.begin(&mut second, MUST);
    assert_eq!(driver.read_disk(&mut second, 1), Ok([8; 512]));
    first.stop(1);
    assert_eq!(driver.status(&mut second), NEEDS_RESET);
}

#[test]
fn dma_that_fails_in_run_may_cost_the_state() {
    for (setting, state) in [("recover", TdiState::RUN), ("error", TdiState::ERROR)] {
        let (_rig, mut host) = plugged(&format!("{DISK}[tdisp]\ndma_fault = \"{setting}\"\n"));
        host.run();
        let mut driver = Driver::new(&mut host, MUST);
        driver.put(0x1000, &[0; 16]);
        driver.descriptor(0, 0x1000, 16, 1, 1);
        driver.descriptor(1, 1 << 40, 512, 3, 2);
        driver.descriptor(2, 0x1010, 1, 2, 0);
        driver.offer(0);
        driver.ring(&mut host);
        driver.settled(&mut host);
        assert_eq!(host.state(0), state, "{setting}");
    }
}

#[test]
fn the_next_client_finds_a_fresh_device_and_the_same_disk() {
    let rig = Rig::with(DISK, 1);
    for round in 0..3_u8 {
        let mut host = Host::plug(rig.socket(0));
        let mut driver = Driver::find(&mut host);
        assert_eq!(driver.status(&mut host), 0);
        driver.begin(&mut host, MUST);
        assert_eq!(driver.read_disk(&mut host, 0), Ok([round; 512]));
        assert_eq!(driver.write_disk(&mut host, 0, &[round + 1; 512]), 0);
        // With a request left behind.
        host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
        driver.submit(&mut host, request::OUT, 0, &[0xEE; 512]);
    }
}
