//! The registers, one by one and in the orders that drivers use them, and those that they do not.

use proptest::prelude::*;

use super::super::status::TRANSPORT_FEATURES;
use super::*;

const STATUS: u64 = 0x14;
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 0x40;
const FAILED: u8 = 0x80;
const MUST: u64 = 1 << 32 | 1 << 33;

fn transport() -> Transport {
    Transport::new(TRANSPORT_FEATURES | 1 << 9, 2, 256, 3)
}

fn read<const N: usize>(transport: &mut Transport, offset: u64) -> u64 {
    let mut data = [0xA5; N];
    transport.read_common(offset, &mut data);
    data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn status(transport: &mut Transport) -> u8 {
    read::<1>(transport, STATUS) as u8
}

fn accept(transport: &mut Transport, features: u64) {
    for (select, half) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
        transport.write_common(0x08, &select.to_le_bytes());
        transport.write_common(0x0C, &half.to_le_bytes());
    }
}

/// To where the driver is ready, with these features; what was to be done on the way.
fn ready(transport: &mut Transport, features: u64) -> Vec<Event> {
    let mut events = transport.write_common(STATUS, &[ACKNOWLEDGE | DRIVER]);
    accept(transport, features);
    events.extend(transport.write_common(STATUS, &[ACKNOWLEDGE | DRIVER | FEATURES_OK]));
    events.extend(transport.write_common(STATUS, &[ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK]));
    events
}

#[test]
fn registers_read_as_after_power_on() {
    let mut transport = transport();
    assert_eq!(read::<4>(&mut transport, 0x04), u64::from(TRANSPORT_FEATURES as u32 | 1 << 9));
    transport.write_common(0x00, &1_u32.to_le_bytes());
    assert_eq!(read::<4>(&mut transport, 0x04), TRANSPORT_FEATURES >> 32);
    transport.write_common(0x00, &2_u32.to_le_bytes());
    assert_eq!(read::<4>(&mut transport, 0x04), 0);
    let fixed = [(0x10, 0xFFFF), (0x12, 2), (0x16, 0), (0x18, 256), (0x1A, 0xFFFF), (0x1C, 0), (0x1E, 0)];
    for (offset, value) in fixed {
        assert_eq!(read::<2>(&mut transport, offset), value, "{offset:#x}");
    }
    for offset in [0x20, 0x28, 0x30] {
        assert_eq!(read::<8>(&mut transport, offset), 0, "{offset:#x}");
    }
    assert_eq!(read::<8>(&mut transport, 0x38), 0);
}

#[test]
fn the_usual_order_makes_a_driver_ready() {
    let mut transport = transport();
    assert_eq!(ready(&mut transport, MUST | 1 << 9), [Event::Negotiated(MUST | 1 << 9), Event::Ready]);
    assert!(transport.live() && transport.negotiated(9) && !transport.negotiated(29));
    assert_eq!(transport.write_common(STATUS, &[0]), [Event::Reset]);
    assert!(!transport.live() && !transport.touched() && !transport.negotiated(9));
}

#[test]
fn features_are_agreed_on_or_the_bit_stays_clear() {
    for (features, good) in [
        (MUST, true),
        (MUST | TRANSPORT_FEATURES | 1 << 9, true),
        (0, false),
        (1 << 32, false),
        (1 << 33, false),
        (MUST | 1 << 34, false), // packed rings
        (MUST | 1 << 10, false), // of the device, not offered
        (u64::MAX, false),
    ] {
        let mut transport = transport();
        let events = ready(&mut transport, features);
        assert_eq!(!events.is_empty(), good, "{features:#x}");
        assert_eq!(status(&mut transport) & (FEATURES_OK | DRIVER_OK) != 0, good, "{features:#x}");
        assert_eq!(transport.live(), good, "{features:#x}");
    }
}

/// Every status that can be, and every value written to it.
#[test]
fn a_status_gains_bits_and_loses_all_or_none() {
    for before in 0..=u8::MAX {
        for value in 0..=u8::MAX {
            let mut transport = transport();
            accept(&mut transport, MUST);
            // Not 0, which would forget the features.
            transport.write_common(STATUS, &[before | ACKNOWLEDGE]);
            let before = status(&mut transport);
            let events = transport.write_common(STATUS, &[value]);
            let after = status(&mut transport);
            if value == 0 {
                assert_eq!((after, events.as_slice()), (0, &[Event::Reset][..]));
                continue;
            }
            assert_eq!(after & before, before, "{before:#x} {value:#x}: bits stay");
            let agreed = (before | value) & FEATURES_OK != 0;
            let settable = ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED | if agreed { DRIVER_OK } else { 0 };
            assert_eq!(after, before | (value & settable), "{before:#x} {value:#x}");
            let negotiated = after & !before & FEATURES_OK != 0;
            assert_eq!(events.contains(&Event::Negotiated(MUST)), negotiated, "{before:#x} {value:#x}");
            let became_ready = after & !before & DRIVER_OK != 0;
            assert_eq!(events.contains(&Event::Ready), became_ready, "{before:#x} {value:#x}");
            assert_eq!(transport.live(), after & (DRIVER_OK | FAILED) == DRIVER_OK);
        }
    }
}

#[test]
fn features_are_final_once_they_are_agreed_on() {
    let mut transport = transport();
    ready(&mut transport, MUST);
    accept(&mut transport, MUST | 1 << 9);
    assert!(!transport.negotiated(9));
}

#[test]
fn a_queue_is_set_up_once_and_its_registers_are_then_fixed() {
    let mut transport = transport();
    let enable = |transport: &mut Transport| transport.write_common(0x1C, &[1, 0]);
    assert_eq!(enable(&mut transport), [], "nothing is negotiated");
    ready(&mut transport, MUST);
    transport.write_common(0x16, &[1, 0]);
    for wrong in [0_u16, 3, 257, 512, 0x8000, u16::MAX] {
        transport.write_common(0x18, &wrong.to_le_bytes());
        assert_eq!(read::<2>(&mut transport, 0x18), 256, "{wrong}");
    }
    let addresses = [0x1_0000_1000_u64, 0x1_0000_2000, 0x1_0000_3000].map(u64::to_le_bytes).concat();
    // In halves, as drivers do it.
    for (at, half) in addresses.chunks(4).enumerate() {
        transport.write_common(0x20 + 4 * at as u64, half);
    }
    transport.write_common(0x18, &64_u16.to_le_bytes());
    assert_eq!(transport.write_common(0x1C, &[0, 0]), [], "only 1 enables");
    assert_eq!(transport.write_common(0x1C, &[2, 0]), []);
    assert_eq!(enable(&mut transport), [Event::Enabled(1)]);
    assert_eq!(enable(&mut transport), [], "it is");
    let expected = QueueRegisters {
        size: 64,
        vector: NO_VECTOR,
        enabled: true,
        descriptors: 0x1_0000_1000,
        driver: 0x1_0000_2000,
        device: 0x1_0000_3000,
    };
    transport.write_common(0x18, &128_u16.to_le_bytes());
    transport.write_common(0x20, &[0xFF; 24]);
    transport.write_common(0x1C, &[0, 0]);
    assert_eq!(transport.queue(1), Some(&expected));
    assert_eq!(read::<2>(&mut transport, 0x1E), 1, "queue_notify_off");
    assert_eq!(transport.queue(0), Some(&QueueRegisters::new(256)), "the other one is as it was");
    transport.write_common(STATUS, &[0]);
    assert_eq!(transport.queue(1), Some(&QueueRegisters::new(256)));
}

#[test]
fn a_queue_that_there_is_not_reads_zero_and_takes_nothing() {
    let mut transport = transport();
    ready(&mut transport, MUST | 1 << 40);
    for queue in [2_u16, 256, u16::MAX] {
        transport.write_common(0x16, &queue.to_le_bytes());
        assert_eq!(transport.write_common(0x18, &[0x10; 0x24]), [], "{queue}");
        for offset in [0x18, 0x1C, 0x1E, 0x20, 0x28, 0x30, 0x38, 0x3A] {
            assert_eq!(read::<2>(&mut transport, offset), 0, "{queue} {offset:#x}");
        }
        assert_eq!(read::<2>(&mut transport, 0x1A), 0xFFFF, "{queue}");
    }
    assert_eq!([0, 1].map(|queue| *transport.queue(queue).unwrap()), [QueueRegisters::new(256); 2]);
}

#[test]
fn vectors_are_those_that_there_are() {
    let mut transport = transport();
    for (written, reads) in [(0_u16, 0), (2, 2), (3, 0xFFFF), (0x7FF, 0xFFFF), (0xFFFF, 0xFFFF)] {
        for offset in [0x10, 0x1A] {
            transport.write_common(offset, &written.to_le_bytes());
            assert_eq!(read::<2>(&mut transport, offset), reads, "{offset:#x} {written}");
        }
    }
    let mut by_pin = Transport::new(TRANSPORT_FEATURES, 1, 256, 0);
    by_pin.write_common(0x10, &[0, 0]);
    assert_eq!(read::<2>(&mut by_pin, 0x10), 0xFFFF, "no MSI-X, no vector");
}

#[test]
fn a_queue_reset_wants_the_feature_and_an_enabled_queue() {
    for (features, event) in [(MUST, None), (MUST | 1 << 40, Some(Event::QueueReset(0)))] {
        let mut transport = transport();
        ready(&mut transport, features);
        assert_eq!(transport.write_common(0x3A, &[1, 0]), [], "not enabled");
        transport.write_common(0x1C, &[1, 0]);
        assert_eq!(transport.write_common(0x3A, &[2, 0]), [], "only 1 resets");
        assert_eq!(transport.write_common(0x3A, &[1, 0]).first().copied(), event);
        let enabled = read::<2>(&mut transport, 0x1C);
        assert_eq!((enabled, read::<2>(&mut transport, 0x3A)), (u64::from(event.is_none()), 0));
        transport.write_common(0x1C, &[1, 0]);
        assert_eq!(read::<2>(&mut transport, 0x1C), 1, "it can be set up again");
    }
}

#[test]
fn a_driver_is_told_by_its_vectors_and_isr_status() {
    let mut transport = transport();
    transport.write_common(0x10, &[2, 0]);
    transport.write_common(0x1A, &[1, 0]);
    transport.config_changed();
    assert_eq!(transport.poll(), None, "no driver is ready");
    ready(&mut transport, MUST);
    transport.signal_queue(0);
    transport.signal_queue(0);
    transport.signal_queue(1);
    transport.signal_queue(2);
    assert_eq!((transport.poll(), transport.poll()), (Some(Work::Interrupt { vector: 1 }), None));
    assert_eq!(transport.read_isr(), 0, "with MSI-X it does not tell of queues");
    let generation = read::<1>(&mut transport, 0x15);
    transport.config_changed();
    assert_eq!(transport.poll(), Some(Work::Interrupt { vector: 2 }));
    assert_eq!([transport.read_isr(), transport.read_isr()], [2, 0]);
    assert_eq!(read::<1>(&mut transport, 0x15), generation + 1);
}

#[test]
fn intx_is_asserted_until_isr_status_is_read() {
    let mut transport = Transport::new(TRANSPORT_FEATURES, 1, 256, 0);
    ready(&mut transport, MUST);
    transport.signal_queue(0);
    assert_eq!((transport.poll(), transport.poll()), (Some(Work::IntxLevel(true)), None));
    transport.config_changed();
    assert_eq!(transport.read_isr(), 3);
    assert_eq!((transport.poll(), transport.poll()), (Some(Work::IntxLevel(false)), None));
    transport.signal_queue(0);
    transport.poll();
    transport.forget();
    assert_eq!(transport.poll(), Some(Work::IntxLevel(false)), "nobody could quiet it");
    assert_eq!(status(&mut transport), NEEDS_RESET);
}

#[test]
fn a_device_that_broke_down_says_so_until_it_is_reset() {
    let mut transport = transport();
    transport.write_common(0x10, &[0, 0]);
    ready(&mut transport, MUST);
    transport.break_down();
    transport.break_down();
    assert_eq!((transport.poll(), transport.poll()), (Some(Work::Interrupt { vector: 0 }), None));
    assert!(!transport.live() && status(&mut transport) & NEEDS_RESET != 0);
    transport.write_common(STATUS, &[0xFF]);
    assert!(!transport.live(), "no bit mends it");
    transport.write_common(STATUS, &[0]);
    ready(&mut transport, MUST);
    assert!(transport.live());
}

#[test]
fn what_is_forgotten_leaves_only_that_a_reset_is_needed() {
    let mut transport = transport();
    transport.write_common(0x10, &[1, 0]);
    ready(&mut transport, MUST);
    transport.write_common(0x20, &[0x10; 24]);
    transport.forget();
    assert_eq!(transport.poll(), Some(Work::Interrupt { vector: 1 }), "the driver hears of it");
    assert_eq!(status(&mut transport), NEEDS_RESET);
    assert_eq!(read::<8>(&mut transport, 0x20), 0);
    transport.write_common(STATUS, &[0]);
    transport.forget();
    assert_eq!((status(&mut transport), transport.poll()), (0, None), "nobody was at work");
}

proptest! {
    #[test]
    fn no_traffic_breaks_what_the_registers_promise(
        accesses in prop::collection::vec(
            (0_u64..0x48, prop::collection::vec(any::<u8>(), 0..0x48)), 0..64)
    ) {
        let mut transport = transport();
        for (offset, data) in accesses {
            let events = transport.write_common(offset, &data);
            prop_assert!(events.len() <= 4);
            for event in events {
                if let Event::Negotiated(features) = event {
                    prop_assert_eq!(features & !(TRANSPORT_FEATURES | 1 << 9), 0);
                }
            }
            let value = status(&mut transport);
            prop_assert!(value & DRIVER_OK == 0 || value & FEATURES_OK != 0);
            prop_assert_eq!(value & NEEDS_RESET, 0, "only the device says that");
            for index in 0..2 {
                let queue = transport.queue(index).unwrap();
                prop_assert!(queue.size.is_power_of_two() && queue.size <= 256);
                prop_assert!(queue.vector < 3 || queue.vector == NO_VECTOR);
            }
            prop_assert_eq!(transport.poll(), None, "no write of a driver's interrupts it");
        }
    }
}
