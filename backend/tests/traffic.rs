//! Whatever a client writes, in whatever order: the composed device neither panics nor hangs, answers within its regions, and
//! keeps private what is private.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use tdisp::wire::TdiState;
use tdispd::config::Config;
use tdispd::device::Device;
use tdispd::function::Work;

/// One thing that a client, time or a client's memory does.
#[derive(Debug, Clone)]
enum Event {
    ConfigWrite(u16, Vec<u8>),
    ConfigRead(u16, usize),
    BarWrite(u8, u64, Vec<u8>),
    BarRead(u8, u64, usize),
    /// A whole data object, dword by dword, and GO.
    Object(u8, Vec<u8>),
    Reset,
    Time(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let bar = prop::sample::select(vec![0_u8, 1, 2, 4, 5, 9]);
    // Where something is: headers, capabilities, the mailbox, IDE; and anywhere.
    let config = prop_oneof![0_u16..0x40, 0x40_u16..0xA0, 0x100_u16..0x170, 0_u16..4096];
    let place = prop_oneof![0_u64..0x240, 0_u64..0x10_0000, any::<u64>()];
    prop_oneof![
        3 => (config.clone(), bytes(9)).prop_map(|(at, data)| Event::ConfigWrite(at, data)),
        1 => (config, 0_usize..64).prop_map(|(at, length)| Event::ConfigRead(at, length)),
        3 => (bar.clone(), place.clone(), bytes(17)).prop_map(|(bar, at, data)| Event::BarWrite(bar, at, data)),
        1 => (bar, place, 0_usize..64).prop_map(|(bar, at, length)| Event::BarRead(bar, at, length)),
        4 => (0_u8..4, bytes(200)).prop_map(|(kind, payload)| Event::Object(kind, payload)),
        1 => Just(Event::Reset),
        1 => any::<u16>().prop_map(Event::Time),
    ]
}

fn write_dword(device: &mut Device, at: u16, value: u32) {
    device.config_write(0, at, &value.to_le_bytes());
}

fn apply(device: &mut Device, function: usize, event: Event, now: &mut Duration) {
    match event {
        Event::ConfigWrite(at, data) => device.config_write(function, at, &data),
        Event::ConfigRead(at, length) => device.config_read(function, at, &mut vec![0xA5; length]),
        Event::BarWrite(bar, at, data) => device.bar_write(function, bar.into(), at, &data),
        Event::BarRead(bar, at, length) => device.bar_read(function, bar.into(), at, &mut vec![0xA5; length]),
        Event::Object(kind, mut payload) => {
            payload.resize(payload.len().next_multiple_of(4), 0);
            // Many objects begin like the ones the device knows.
            if let Some(first) = payload.first_mut() {
                *first = 0x10 | (*first & 3);
            }
            write_dword(device, 0x120, 1 | u32::from(kind) << 16);
            write_dword(device, 0x120, 2 + payload.len() as u32 / 4);
            for dword in payload.chunks_exact(4) {
                write_dword(device, 0x120, u32::from_le_bytes(dword.try_into().unwrap()));
            }
            write_dword(device, 0x118, 1 << 31);
        }
        Event::Reset => device.reset(function),
        Event::Time(milliseconds) => {
            *now += Duration::from_millis(milliseconds.into());
            device.tick(*now);
        }
    }
    device.run(*now);
    for turn in 0.. {
        assert!(turn < 10_000, "a function never runs out of work");
        match device.poll_work(function) {
            Some(Work::DmaRead { id, length, .. }) if turn % 3 != 0 => {
                device.dma_done(function, id, Ok(&vec![7; length]));
            }
            Some(Work::DmaWrite { id, .. }) if turn % 3 != 0 => device.dma_done(function, id, Ok(&[])),
            Some(Work::DmaRead { id, .. } | Work::DmaWrite { id, .. }) => {
                device.dma_done(function, id, Err(tdispd::function::DmaError::Fault));
            }
            Some(Work::Interrupt { vector }) => assert!(vector < device.vectors(function).max(4)),
            Some(Work::IntxLevel(_)) => {}
            None => break,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn is_survived(events in prop::collection::vec((0_usize..3, event()), 0..60)) {
        let config = Config::default().for_sockets(2).unwrap();
        let mut device = Device::new(&config, None).unwrap();
        let mut now = Duration::ZERO;
        for (function, event) in events {
            apply(&mut device, function, event, &mut now);
            // Nobody reaches a locked state without a session and keys.
            prop_assert_eq!(device.tdi_state(function), TdiState::CONFIG_UNLOCKED);
        }
        // What cannot be changed is what it was.
        let mut id = [0; 4];
        device.config_read(0, 0, &mut id);
        prop_assert_eq!(id, [0x34, 0x12, 0x15, 0x7D]);
    }
}
