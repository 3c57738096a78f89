//! A function of a device, asked directly: what its configured BARs do in each phase and after a reset.
use super::*;
use crate::config::Config;
use crate::device::Device;
use crate::pci::registers::{Command, header};

const PHASES: [TdiPhase; 4] = [TdiPhase::Unlocked, TdiPhase::Locked, TdiPhase::Run, TdiPhase::Error];

/// A device whose BARs are these: BAR 1 with shared registers, shared doorbells, and 8K reserved, BAR 3 with MSI-X, BAR 4 with
/// private and shared memory whose contents are those of `file`.
fn device(file: &std::path::Path) -> Device {
    let range = |kind: &str, size: &str, rest: &str| {
        format!("[[function.bar.range]]\nkind = \"{kind}\"\nsize = \"{size}\"\n{rest}\n")
    };
    let (private, shared) = ("side = \"private\"", "side = \"shared\"");
    let with_file = |side: &str| format!("{side}\nfile = {file:?}");
    let text = [
        "[[function]]\n[[function.bar]]\nindex = 1\n".into(),
        range("registers", "4K", shared),
        range("doorbells", "4K", shared),
        range("reserved", "8K", shared),
        "[[function.bar]]\nindex = 3\n".into(),
        range("msix-table", "4K", shared),
        range("msix-pba", "4K", shared),
        "[[function.bar]]\nindex = 4\nwidth = 64\n".into(),
        range("memory", "4K", &with_file(private)),
        range("memory", "4K", &with_file(shared)),
    ]
    .concat();
    let config: Config = toml::from_str(&text).unwrap();
    config.check().unwrap();
    let mut device = Device::new(&config, None).unwrap();
    let command = Command::new().with_memory_space(true).with_bus_master(true);
    device.units[0].space.write(header::COMMAND, &command.into_bits().to_le_bytes());
    device
}

fn with_file(text: &[u8]) -> (tempfile::NamedTempFile, Device) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let device = device(file.path());
    (file, device)
}

const fn plain(bar: u8) -> BarRegion {
    BarRegion { bar, window: false }
}

fn read<const N: usize>(unit: &mut Unit, bar: u8, offset: u64) -> [u8; N] {
    let mut data = [0xA5; N];
    unit.bar_read(plain(bar), TdiPhase::Unlocked, offset, &mut data);
    data
}

#[test]
fn everything_answers_where_the_configuration_puts_it() {
    let (_file, mut device) = with_file(b"contents");
    let unit = &mut device.units[0];
    assert_eq!(&read(unit, 1, 0), b"TDSP");
    unit.bar_write(plain(1), TdiPhase::Unlocked, 0x2000, &[0xFF; 8]);
    assert_eq!((read(unit, 1, 0x1FFC), read(unit, 1, 0x2000)), ([0; 4], [0; 8]), "reserved");
    assert_eq!(read(unit, 3, 12), [1, 0, 0, 0], "the first vector is masked");
    assert_eq!((&read(unit, 4, 0), &read(unit, 4, 0x1000)), (b"contents", b"contents"));
    assert_eq!(read(unit, 0, 0), [0xFF; 4], "there is no BAR 0");
    let view = unit.view();
    let ranges: Vec<_> = view.bars.iter().map(|bar| (bar.index, bar.ranges.len(), bar.size)).collect();
    assert_eq!(ranges, [(1, 3, 0x4000), (3, 2, 0x2000), (4, 2, 0x2000)]);
}

#[test]
fn a_shared_doorbell_rings_until_error() {
    let (_file, mut device) = with_file(b"");
    let unit = &mut device.units[0];
    for phase in PHASES {
        unit.bar_write(plain(1), phase, 0x1000 + 8, &[1]);
        let expected = (phase != TdiPhase::Error).then_some(Work::Interrupt { vector: 2 });
        assert_eq!((unit.poll_work(phase), unit.poll_work(phase)), (expected, None), "{phase:?}");
    }
    assert_eq!(read(unit, 1, 0x1008), 4_u32.to_le_bytes(), "the count is not a message");
    unit.scrub();
    assert_eq!(read(unit, 1, 0x1008), 4_u32.to_le_bytes());
    unit.reset_function();
    assert_eq!(read(unit, 1, 0x1008), [0; 4]);
}

#[test]
fn a_reset_brings_the_file_back_and_a_scrub_does_not() {
    let (file, mut device) = with_file(b"contents");
    let unit = &mut device.units[0];
    unit.bar_write(plain(4), TdiPhase::Unlocked, 0, b"written!");
    unit.bar_write(plain(4), TdiPhase::Unlocked, 0x1000, b"written!");
    unit.scrub();
    assert_eq!((read(unit, 4, 0), &read(unit, 4, 0x1000)), ([0; 8], b"written!"));
    unit.reset_function();
    assert_eq!((&read(unit, 4, 0), &read(unit, 4, 0x1000)), (b"contents", b"contents"));

    std::fs::write(file.path(), b"another").unwrap();
    unit.reset_function();
    assert_eq!((&read(unit, 4, 0), &read(unit, 4, 0x1000)), (b"another\0", b"another\0"));

    for make_unusable in [
        |path: &std::path::Path| std::fs::write(path, [1; 4097]).unwrap(),
        |path: &std::path::Path| std::fs::remove_file(path).unwrap(),
    ] {
        make_unusable(file.path());
        unit.reset_function();
        assert_eq!((read(unit, 4, 0), read(unit, 4, 0x1000)), ([0; 8], [0; 8]), "it goes on with zeroes");
    }
    assert_eq!(&read(unit, 1, 0), b"TDSP");
}

#[test]
fn a_tvm_finds_the_file_at_start_and_not_what_the_host_wrote() {
    let (file, mut device) = with_file(b"contents");
    let unit = &mut device.units[0];
    unit.bar_write(plain(4), TdiPhase::Unlocked, 0, b"written!");
    unit.enter(TdiPhase::Unlocked, TdiPhase::Locked);
    std::fs::write(file.path(), b"for TVMs").unwrap();
    unit.enter(TdiPhase::Locked, TdiPhase::Run);
    let mut data = [0xA5; 8];
    unit.bar_read(plain(4), TdiPhase::Run, 0, &mut data);
    assert_eq!(&data, b"for TVMs");
    unit.bar_read(plain(4), TdiPhase::Run, 0x1000, &mut data);
    assert_eq!(&data, b"contents", "shared pages go on as they were");
}
