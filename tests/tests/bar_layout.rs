//! BARs as a configuration file has them, in a device that runs: the example's, from its file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use tdisp::wire::TdiState;
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::transport::vfio_user::VfioUser;
use tdispctl::walk::Walk;
use tdispd::config::Config;
use tests::host::Host;
use tests::rig::Rig;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-config/examples/accelerator.toml");
/// Shared memory in BAR 2, which begins with a file.
const SHARED: u64 = 15 << 20;
const ONES: [u8; 8] = [0xFF; 8];

fn example() -> Config {
    Config::load(Path::new(EXAMPLE)).unwrap()
}

#[test]
fn the_example_works_from_end_to_end() {
    const DOORBELL_1: u64 = 0x1004;
    let rig = Rig::of(example());
    let mut host = Host::plug(rig.socket(0));
    let contents = std::fs::read(Path::new(EXAMPLE).with_extension("rom")).unwrap();
    let begins: [u8; 8] = contents[..8].try_into().unwrap();
    assert_eq!(&host.bar_read::<4>(0, 0), b"TDSP");
    assert_eq!(host.bar_read::<8>(2, SHARED), begins);
    host.bar_write(2, 0, b"the host");
    host.run();
    assert_eq!(host.bar_read::<8>(2, 0), [0; 8], "what the host wrote is not for a TVM");
    host.bar_write(2, 0, b"private!");
    assert_eq!(&host.bar_read::<8>(2, 0), b"private!");
    host.bar_write(0, DOORBELL_1, &[0; 4]);
    assert_eq!(host.bar_read::<4>(0, DOORBELL_1), [1, 0, 0, 0]);
    assert_eq!(host.bar_read::<4>(0, 0x204), [2, 0, 0, 0], "IRQ_STATUS");
    host.bar_write(2, SHARED, b"not ours");
    host.stop(0);
    assert_eq!((host.state(0), host.bar_read::<8>(2, 0)), (TdiState::CONFIG_UNLOCKED, [0; 8]));
    assert_eq!(host.bar_read::<4>(0, DOORBELL_1), [1, 0, 0, 0], "shared pages are not scrubbed");
    assert_eq!(&host.bar_read::<8>(2, SHARED), b"not ours");

    drop(host);
    let mut host = Host::plug(rig.socket(0));
    assert_eq!(host.bar_read::<8>(2, SHARED), begins, "the client has gone: a reset");
    assert_eq!(host.bar_read::<4>(0, DOORBELL_1), [0; 4]);
}

#[test]
fn its_report_covers_every_page_that_is_not_msix() {
    let rig = Rig::of(example());
    let mut host = Host::plug(rig.socket(0));
    host.session();
    host.secure_stream();
    host.lock(0);
    let ranges: Vec<_> = host
        .report(0, 4096)
        .ranges
        .into_iter()
        .map(|range| (range.range_id, range.pages, range.attributes.non_tee(), range.attributes.updatable()))
        .collect();
    let expected = [
        (0, 1, false, false),
        (0, 1, true, false),
        (0, 2, true, false),
        (2, 2048, false, false),
        (2, 1024, false, true),
        (2, 768, false, false),
        (2, 256, true, false),
    ];
    assert_eq!(ranges, expected);
    assert_eq!(host.bar_read::<8>(0, 0), ONES, "private registers");
    assert_eq!(host.bar_read::<8>(0, 0x2000), [0; 8], "reserved, and shared");
}

#[test]
fn tdispctl_finds_its_way() {
    let rig = Rig::of(example());
    let socket = rig.socket(0).to_str().unwrap();
    let cli = Cli::parse_from(["tdispctl", "--vfio-user", socket, "run", "--provoke-error"]);
    let transport = VfioUser::open(rig.socket(0), Duration::from_secs(2)).unwrap();
    let output = Output::human(Box::new(std::io::stdout()), false);
    let mut walk = Walk::new(Box::new(transport), cli.options, output).unwrap();
    let code = walk.command(&cli.command);
    walk.close();
    assert_eq!(code, 0);
}
