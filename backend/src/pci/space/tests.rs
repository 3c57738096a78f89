//! Properties of the image that hold for every layout.

use super::super::{BarDecoder, ConfigSpace, Identity, Msix, Plan, Window, WriteEffect};
use super::*;
use proptest::prelude::*;

fn plan() -> Plan {
    Plan {
        identity: Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 2,
            class: 0x12_00_00,
            subsystem_vendor: 0x9ABC,
            subsystem: 0xDEF0,
            serial: 0x0011_2233_4455_6677,
        },
        multifunction: false,
        bars: vec![
            BarDecoder { index: 0, size: 0x4000, wide: false, prefetchable: false },
            BarDecoder { index: 2, size: 0x1_0000, wide: true, prefetchable: true },
        ],
        msix: Some(Msix { vectors: 4, table: (4, 0), pba: (4, 0x1000) }),
        tee_io: true,
        doe: true,
        ari: None,
        ats: false,
        ide_bytes: Some(0x2C),
        virtio: None,
    }
}

fn read32(space: &ConfigSpace, at: u16) -> u32 {
    let mut bytes = [0xA5; 4];
    space.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Id, version and place of every extended capability.
fn extended(space: &ConfigSpace) -> Vec<(u16, u32, u16)> {
    let mut found = Vec::new();
    let mut at = 0x100;
    while at != 0 {
        let dword = read32(space, at);
        found.push((dword as u16, dword >> 16 & 0xF, at));
        at = (dword >> 20) as u16;
    }
    found
}

#[test]
fn ats_and_ari_have_their_places() {
    let mut space = Plan { ari: Some(1), ats: true, ..plan() }.build();
    let expected = [(3, 1, 0x100), (0x2E, 2, 0x110), (0xF, 1, 0x128), (0xE, 1, 0x130), (0x30, 1, 0x138)];
    assert_eq!(extended(&space), expected);
    assert_eq!(space.window(0x13C), Some((Window::Ide, 0)));
    assert_eq!(read32(&space, 0x134), 0x0100, "the next function is 1");
    assert_eq!(space.write(0x136, &[0xFF; 2]), [WriteEffect::Ari]);
    assert_eq!(read32(&space, 0x134), 0x0100);
    assert!(!space.ats_enabled());
    assert_eq!(space.write(0x12E, &[0xFF; 2]), []);
    assert_eq!(read32(&space, 0x12C), 0x801F_0020);
    assert!(space.ats_enabled());
    space.function_reset();
    assert!(!space.ats_enabled());
    // Functions other than 0 have neither mailbox nor IDE.
    let other = Plan { ari: Some(0), ats: true, doe: false, ide_bytes: None, ..plan() }.build();
    assert_eq!(extended(&other), [(3, 1, 0x100), (0xF, 1, 0x128), (0xE, 1, 0x130)]);
    assert!(!plan().build().ats_enabled());
}

#[test]
fn header_and_chain_read_back() {
    let space = plan().build();
    assert_eq!(read32(&space, 0x00), 0x5678_1234);
    assert_eq!(read32(&space, 0x08), 0x1200_0002);
    assert_eq!(read32(&space, 0x2C), 0xDEF0_9ABC);
    let mut ids = Vec::new();
    let mut at = read32(&space, 0x34) as u16 & 0xFF;
    while at != 0 {
        let dword = read32(&space, at);
        ids.push(dword as u8);
        at = (dword >> 8) as u16 & 0xFF;
    }
    assert_eq!(ids, [0x01, 0x10, 0x11]);
    assert_eq!(extended(&space), [(3, 1, 0x100), (0x2E, 2, 0x110), (0x30, 1, 0x130)]);
    assert_ne!(read32(&space, PCIE + 4) & (1 << 30), 0, "TEE-IO");
    assert_ne!(read32(&space, PCIE + 4) & (1 << 28), 0, "FLR");
}

#[test]
fn bars_size_and_hold_addresses() {
    let mut space = plan().build();
    space.write(0x10, &[0xFF; 4]);
    assert_eq!(read32(&space, 0x10), 0xFFFF_C000);
    space.write(0x18, &[0xFF; 8]);
    assert_eq!((read32(&space, 0x18), read32(&space, 0x1C)), (0xFFFF_000C, 0xFFFF_FFFF));
    space.write(0x14, &[0xFF; 4]);
    assert_eq!(read32(&space, 0x14), 0, "no BAR there");
    space.write(0x18, &0x0000_0008_4001_2345_u64.to_le_bytes());
    let addresses: Vec<u64> = space.bar_addresses().map(|(_, address)| address).collect();
    assert_eq!(addresses, [0xFFFF_C000, 0x0000_0008_4001_0000]);
}

#[test]
fn writes_say_what_they_touched() {
    let mut space = plan().build();
    let effects = space.write(0x04, &[0x06]);
    let WriteEffect::Command { before, after } = effects[0] else { panic!("{effects:?}") };
    assert_eq!((before.memory_space(), after.memory_space(), after.bus_master()), (false, true, true));
    assert_eq!(space.write(0x12, &[0xFF]), [WriteEffect::Bar { index: 0, changed: true }]);
    assert_eq!(space.write(0x12, &[0xFF]), [WriteEffect::Bar { index: 0, changed: false }]);
    assert_eq!(space.write(0x30, &[0xFF; 4]), [WriteEffect::Rom]);
    assert_eq!(read32(&space, 0x30), 0);
    assert!(space.write(PCIE + 8, &[0x10, 0xA8]).contains(&WriteEffect::Flr));
    assert!(!space.device_control().initiate_flr(), "reads 0");
    assert!(!space.write(PCIE + 8, &[0xFF]).contains(&WriteEffect::Flr), "only the upper byte has the bit");
    assert!(space.write(PCIE + 9, &[0x80]).contains(&WriteEffect::Flr));
    assert!(
        matches!(space.write(MSIX + 2, &[0, 0x80])[..], [WriteEffect::Msix { after, .. }] if after.enable())
    );
    assert!(matches!(space.write(PM + 4, &[3])[..], [WriteEffect::Power { .. }]));
    assert_eq!(space.power_state(), 3);
}

#[test]
fn a_function_reset_keeps_the_addresses_and_nothing_else() {
    let mut space = plan().build();
    space.write(0x10, &0x8000_0000_u32.to_le_bytes());
    space.write(0x04, &[0x06, 0x04]);
    space.function_reset();
    assert_eq!(space.command(), Command::new());
    assert_eq!(space.bar_addresses().next().unwrap().1, 0x8000_0000);
    space.reset();
    assert_eq!(space.bar_addresses().next().unwrap().1, 0);
}

#[test]
fn windows_are_found_by_dword() {
    let space = plan().build();
    assert_eq!(space.window(0x110), None, "headers stay in the image");
    assert_eq!(space.window(0x114), Some((Window::Doe, 0)));
    assert_eq!(space.window(0x124), Some((Window::Doe, 0x10)));
    assert_eq!(space.window(0x128), None);
    assert_eq!(space.window(0x134), Some((Window::Ide, 0)));
    assert_eq!(space.window(0x158), Some((Window::Ide, 0x24)));
    assert_eq!(space.window(0x15C), None);
}

proptest! {
    #[test]
    fn read_only_bits_never_move(writes in prop::collection::vec(
        (0_u16..4096, prop::collection::vec(any::<u8>(), 0..16)), 0..64)) {
        let built = plan().build();
        let mut space = built.clone();
        for (offset, data) in writes {
            space.write(offset, &data);
        }
        for at in 0..SPACE_BYTES {
            let fixed = !(built.writable[at] | built.clearable[at]);
            prop_assert_eq!(space.image[at] & fixed, built.image[at] & fixed, "byte {:#x}", at);
        }
        space.reset();
        prop_assert_eq!(space.image, built.image);
    }

    #[test]
    fn reads_stay_inside(offset in any::<u16>(), length in 0_usize..5000) {
        let mut data = vec![0xA5; length];
        plan().build().read(offset, &mut data);
    }
}
