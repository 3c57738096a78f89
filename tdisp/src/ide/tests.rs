//! The register image by offset, and the ways into and out of secure.

use proptest::prelude::*;

use super::registers::{STATE_INSECURE, STATE_SECURE};
use super::*;
use crate::wire::ide_km::KeySet;

const SESSION: SessionId = 7;
const STREAM: StreamIndex = StreamIndex::Selective(0);

fn ide(config: IdeConfig) -> Ide {
    Ide::new(config).unwrap()
}

fn read(ide: &Ide, offset: u16) -> u32 {
    let mut bytes = [0xA5; 4];
    ide.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn write(ide: &mut Ide, offset: u16, value: u32) -> Vec<IdeEvent> {
    let mut events = Vec::new();
    ide.write(offset, &value.to_le_bytes(), &mut events);
    events
}

fn program(ide: &mut Ide, set: KeySet) -> Vec<IdeEvent> {
    let mut events = Vec::new();
    for slot in KeySlot::of_set(set) {
        assert!(ide.program(STREAM, slot, KeyMaterial::new([1; 32]), SESSION, &mut events));
    }
    events
}

fn go(ide: &mut Ide, set: KeySet) -> Vec<IdeEvent> {
    let mut events = Vec::new();
    for slot in KeySlot::of_set(set) {
        assert!(ide.go(STREAM, slot, &mut events));
    }
    events
}

/// Control values as Linux writes them: id 5, default, configuration requests, TEE-limited; then enable.
const SET_UP: u32 = 0x05C0_0200;
const ENABLED: u32 = SET_UP | 1;
const CONTROL: u16 = 0x10;
const STATUS: u16 = 0x14;
const BECAME_SECURE: IdeEvent = IdeEvent::Secure { stream: STREAM, stream_id: 5 };

fn insecure(cause: InsecureCause) -> IdeEvent {
    IdeEvent::Insecure { stream: STREAM, stream_id: 5, cause }
}

const fn written(changed: bool) -> IdeEvent {
    IdeEvent::Written { stream: STREAM, changed }
}

fn state(ide: &Ide) -> u8 {
    StreamStatus::from_bits(read(ide, STATUS)).state()
}

fn secure_ide() -> Ide {
    let mut ide = ide(IdeConfig::default());
    write(&mut ide, CONTROL, SET_UP);
    program(&mut ide, KeySet::Zero);
    go(&mut ide, KeySet::Zero);
    write(&mut ide, CONTROL, ENABLED);
    assert_eq!(state(&ide), STATE_SECURE);
    ide
}

#[test]
fn the_default_image() {
    let ide = ide(IdeConfig::default());
    assert_eq!(ide.length(), 0x2C);
    let mut golden = vec![0; 0x28];
    golden[0] = 0xC2; // selective, IDE_KM, configuration requests
    golden[3] = 0x01; // TEE-limited
    golden[8] = 0x01; // one address association block
    assert_eq!(ide.image(), golden);
    assert_eq!(read(&ide, 0), 0, "the header is not IDE's");
    assert_eq!(read(&ide, 0x2C), 0, "beyond the end");
    assert_eq!(read(&ide, 0xFFFE), 0);
}

#[test]
fn link_blocks_come_before_selective_blocks() {
    let config =
        IdeConfig { link_streams: 2, selective_streams: 3, address_blocks: 2, ..IdeConfig::default() };
    let mut ide = ide(config.clone());
    assert_eq!(ide.length(), 12 + 2 * 8 + 3 * (20 + 24));
    assert_eq!(read(&ide, 4), 0x0102_20C3);
    assert_eq!(config.stream_control_offset(StreamIndex::Link(1)), Some(0x14));
    assert_eq!(config.stream_control_offset(StreamIndex::Selective(0)), Some(0x20));
    assert_eq!(config.stream_control_offset(StreamIndex::Selective(2)), Some(0x20 + 88));
    assert_eq!(config.stream_control_offset(StreamIndex::Selective(3)), None);
    for (mark, stream) in (1_u8..).zip(ide.streams().map(|view| view.index).collect::<Vec<_>>()) {
        let offset = config.stream_control_offset(stream).unwrap();
        write(&mut ide, offset, u32::from(mark) << 24);
        assert_eq!(ide.view(stream).unwrap().control.stream_id(), mark);
    }
    for index in 0..3_u16 {
        assert_eq!(read(&ide, 0x1C + 44 * index), 2, "every selective stream has the same number of blocks");
    }
}

#[test]
fn write_masks() {
    let mut ide = ide(IdeConfig::default());
    for offset in (0..0x40).step_by(4) {
        write(&mut ide, offset, u32::MAX);
    }
    let expected = [
        (0x04, 0x0100_00C2),
        (0x08, 0),
        (0x0C, 1),
        (0x10, 0xFFF8_0201),
        (0x14, 0),
        (0x18, 0x00FF_FF00),
        (0x1C, 0xFFFF_FF01),
        (0x20, 0xFFFF_FF01),
        (0x24, u32::MAX),
        (0x28, u32::MAX),
        (0x2C, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(read(&ide, offset), value, "{offset:#x}");
    }
}

#[test]
fn writes_of_any_width_at_any_offset() {
    let mut ide = ide(IdeConfig::default());
    let mut events = Vec::new();
    ide.write(0x24, &[0x11], &mut events);
    ide.write(0x26, &[0x33, 0x44], &mut events);
    assert_eq!(read(&ide, 0x24), 0x4433_0011);
    ide.write(0x26, &[1, 2, 3, 4, 5], &mut events);
    assert_eq!((read(&ide, 0x24), read(&ide, 0x28)), (0x0201_0011, 0x0005_0403));
    let mut odd = [0; 3];
    ide.read(0x27, &mut odd);
    assert_eq!(odd, [2, 3, 4]);
    ide.write(0xFFFF, &[1, 2, 3], &mut events);
}

#[test]
fn the_kernels_order_is_secure_at_the_very_next_read() {
    let mut ide = ide(IdeConfig::default());
    assert_eq!(write(&mut ide, CONTROL, SET_UP), [written(true)]);
    assert_eq!(program(&mut ide, KeySet::Zero), []);
    assert_eq!(go(&mut ide, KeySet::Zero), []);
    assert_eq!(state(&ide), STATE_INSECURE);
    assert_eq!(write(&mut ide, CONTROL, ENABLED), [written(true), BECAME_SECURE]);
    assert_eq!(state(&ide), STATE_SECURE);
    assert_eq!(write(&mut ide, CONTROL, ENABLED), [written(false)]);
    assert_eq!(write(&mut ide, CONTROL, 0), [insecure(InsecureCause::Disabled), written(true)]);
    assert_eq!(state(&ide), STATE_INSECURE);
}

#[test]
fn enable_first_is_secure_with_the_last_go() {
    let mut ide = ide(IdeConfig::default());
    write(&mut ide, CONTROL, ENABLED);
    program(&mut ide, KeySet::One);
    assert_eq!(go(&mut ide, KeySet::One), [BECAME_SECURE]);
}

#[test]
fn the_orders_can_be_told_apart() {
    // (order, secure after enable last, secure after GO last, secure without enable)
    let table = [
        (SecureOrder::Either, true, true, false),
        (SecureOrder::AtEnable, true, false, false),
        (SecureOrder::AtLastGo, false, true, false),
        (SecureOrder::WithoutEnable, true, true, true),
    ];
    for (order, enable_last, go_last, without) in table {
        let fresh = || ide(IdeConfig { secure_order: order, ..IdeConfig::default() });
        let mut ide = fresh();
        program(&mut ide, KeySet::Zero);
        go(&mut ide, KeySet::Zero);
        assert_eq!(state(&ide) == STATE_SECURE, without, "{order:?} without enable");
        write(&mut ide, CONTROL, 1);
        assert_eq!(state(&ide) == STATE_SECURE, enable_last, "{order:?} enable last");
        let mut ide = fresh();
        write(&mut ide, CONTROL, 1);
        program(&mut ide, KeySet::Zero);
        go(&mut ide, KeySet::Zero);
        assert_eq!(state(&ide) == STATE_SECURE, go_last, "{order:?} GO last");
    }
}

#[test]
fn a_key_refresh_never_leaves_secure() {
    let mut ide = secure_ide();
    assert_eq!(program(&mut ide, KeySet::One), []);
    assert_eq!(go(&mut ide, KeySet::One), []);
    let view = ide.view(STREAM).unwrap();
    assert_eq!((view.secure, view.keys), (true, KeyState::Complete(KeySet::One)));
    let mut events = Vec::new();
    for slot in KeySlot::of_set(KeySet::Zero) {
        ide.stop(STREAM, slot, &mut events);
    }
    assert_eq!(events, [], "the old set is not in use any more");
}

#[test]
fn whatever_ends_secure_takes_the_keys_along() {
    type End = fn(&mut Ide, &mut Vec<IdeEvent>);
    let ends: [(End, InsecureCause, usize); 8] = [
        (|ide, events| ide.write(CONTROL, &SET_UP.to_le_bytes(), events), InsecureCause::Disabled, 0),
        (|ide, events| ide.write(CONTROL + 3, &[6], events), InsecureCause::Disabled, 0),
        (
            |ide, events| {
                let slot = KeySlot::of_set(KeySet::Zero).next().unwrap();
                assert!(ide.stop(STREAM, slot, events));
            },
            InsecureCause::KeyStopped,
            0,
        ),
        (
            |ide, events| {
                let slot = KeySlot::of_set(KeySet::Zero).next().unwrap();
                assert!(ide.program(STREAM, slot, KeyMaterial::new([2; 32]), SESSION, events));
            },
            InsecureCause::KeyReplaced,
            1,
        ),
        (|ide, events| ide.session_ended(SESSION, events), InsecureCause::SessionEnded, 0),
        (
            |ide, events| ide.fail(STREAM, InsecureCause::IntegrityFailure, events),
            InsecureCause::IntegrityFailure,
            0,
        ),
        (|ide, events| ide.fail(STREAM, InsecureCause::LinkDown, events), InsecureCause::LinkDown, 0),
        (|ide, events| ide.reset(events), InsecureCause::Reset, 0),
    ];
    for (end, cause, left) in ends {
        let mut ide = secure_ide();
        let mut events = Vec::new();
        end(&mut ide, &mut events);
        assert_eq!(events.first(), Some(&insecure(cause)));
        let view = ide.view(STREAM).unwrap();
        assert_eq!((view.secure, view.programmed), (false, left), "{cause:?}");
    }
}

#[test]
fn another_sessions_end_changes_nothing() {
    let mut ide = secure_ide();
    let mut events = Vec::new();
    ide.session_ended(SESSION + 1, &mut events);
    assert_eq!((events, state(&ide)), (vec![], STATE_SECURE));
}

#[test]
fn a_stream_can_be_keyed_again_after_every_key_was_replaced() {
    let mut ide = secure_ide();
    assert_eq!(program(&mut ide, KeySet::Zero), [insecure(InsecureCause::KeyReplaced)]);
    assert_eq!(go(&mut ide, KeySet::Zero), [BECAME_SECURE]);
}

#[test]
fn an_integrity_failure_shows_until_it_is_cleared() {
    let mut ide = secure_ide();
    ide.fail(STREAM, InsecureCause::IntegrityFailure, &mut Vec::new());
    assert_eq!(read(&ide, STATUS), 0x8000_0000);
    write(&mut ide, STATUS, 0x7FFF_FFFF);
    assert_eq!(read(&ide, STATUS), 0x8000_0000, "written 1 to clear");
    write(&mut ide, STATUS, 0x8000_0000);
    assert_eq!(read(&ide, STATUS), 0);
}

#[test]
fn reset_puts_every_register_back() {
    let mut ide = secure_ide();
    let fresh = Ide::new(IdeConfig::default()).unwrap();
    write(&mut ide, 0x18, u32::MAX);
    ide.reset(&mut Vec::new());
    assert_eq!(ide.image(), fresh.image());
}

#[test]
fn a_renamed_stream_has_no_keys() {
    let mut ide = ide(IdeConfig::default());
    write(&mut ide, CONTROL, 1 << 24);
    program(&mut ide, KeySet::Zero);
    write(&mut ide, CONTROL, 2 << 24);
    assert_eq!(ide.view(STREAM).unwrap().programmed, 0);
}

#[test]
fn a_stream_id_finds_the_stream_that_uses_it() {
    let mut ide = ide(IdeConfig { link_streams: 1, selective_streams: 3, ..IdeConfig::default() });
    let offset = |index| ide.config().stream_control_offset(StreamIndex::Selective(index)).unwrap();
    let (second, third) = (offset(1), offset(2));
    assert_eq!(ide.find(0), Some(STREAM), "selective before link, lowest index");
    assert_eq!(ide.find(9), None);
    write(&mut ide, second, 0x0040_0000);
    assert_eq!(ide.find(0), Some(StreamIndex::Selective(1)), "one that was set up");
    write(&mut ide, third, 0x0000_0001);
    assert_eq!(ide.find(0), Some(StreamIndex::Selective(2)), "one that is enabled");
}

#[test]
fn configurations_that_no_capability_can_have() {
    let base = IdeConfig::default;
    let none = IdeConfig { selective_streams: 0, ..base() };
    assert_eq!(Ide::new(none).err(), Some(IdeConfigError::NoStream));
    let links = IdeConfig { link_streams: 9, ..base() };
    assert_eq!(Ide::new(links).err(), Some(IdeConfigError::LinkStreams(9)));
    let blocks = IdeConfig { address_blocks: 16, ..base() };
    assert_eq!(Ide::new(blocks).err(), Some(IdeConfigError::AddressBlocks(16)));
    let long = IdeConfig { selective_streams: 255, address_blocks: 15, ..base() };
    assert_eq!(Ide::new(long).err(), Some(IdeConfigError::TooLong(12 + 255 * 200)));
    let fits = IdeConfig { selective_streams: 119, ..base() };
    assert!(Ide::new(fits).is_ok());
}

proptest! {
    #[test]
    fn any_write_leaves_the_read_only_registers_alone(
        writes in proptest::collection::vec((0..0x80_u16, proptest::collection::vec(any::<u8>(), 0..9)), 0..20),
    ) {
        let mut ide = ide(IdeConfig { selective_streams: 2, ..IdeConfig::default() });
        let (capability, first, second) = (read(&ide, 4), read(&ide, 0x0C), read(&ide, 0x2C));
        for (offset, data) in writes {
            ide.write(offset, &data, &mut Vec::new());
        }
        prop_assert_eq!((read(&ide, 4), read(&ide, 0x0C), read(&ide, 0x2C)), (capability, first, second));
        prop_assert!(ide.streams().all(|view| !view.secure), "no write secures a stream without keys");
    }
}
