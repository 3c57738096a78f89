//! The vendor-specific capabilities that say where a virtio function's structures lie (virtio 1.2 §4.1.4), and the one that
//! reaches them through configuration space.

use super::capabilities::capability;
use super::space::{ConfigSpace, Window};

/// Offset of the first of five capabilities, which lie one behind the other up to 0xF8.
pub(super) const VIRTIO: u16 = 0xA0;
const CAP_VENDOR: u8 = 0x09;

/// `cfg_type` (virtio 1.2 §4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Bytes of `struct virtio_pci_cap`; two of the capabilities have a dword more.
const CAP_BYTES: u16 = 16;
const LONG_CAP_BYTES: u16 = CAP_BYTES + 4;

/// Fields of `struct virtio_pci_cap`.
const CAP_LENGTH: u16 = 2;
const CFG_TYPE: u16 = 3;
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
/// `notify_off_multiplier`, and `pci_cfg_data`.
const BEHIND: u16 = 16;

/// The capability of PCI configuration access: the last.
const PCI_CFG_AT: u16 = VIRTIO + 3 * CAP_BYTES + LONG_CAP_BYTES;
const _: () = assert!(PCI_CFG_AT + LONG_CAP_BYTES <= 0x100);

/// Where a structure lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioLocation {
    /// Number of the BAR.
    pub bar: u8,
    /// First byte in the BAR.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// Where all of them lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioStructures {
    /// Common configuration (§4.1.4.3).
    pub common: VirtioLocation,
    /// Notify addresses (§4.1.4.4).
    pub notify: VirtioLocation,
    /// Bytes from one queue's notify address to the next.
    pub notify_stride: u32,
    /// ISR status (§4.1.4.5).
    pub isr: VirtioLocation,
    /// Device configuration (§4.1.4.6).
    pub device: VirtioLocation,
}

/// An access to a BAR that the capability of PCI configuration access is set up for (virtio 1.2 §4.1.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigAccess {
    /// Number of the BAR, whatever the driver wrote.
    pub bar: u8,
    /// First byte in it, a multiple of `length`.
    pub offset: u64,
    /// Bytes: 1, 2 or 4.
    pub length: usize,
}

impl VirtioStructures {
    /// Writes the capabilities, the last of the chain.
    pub(super) fn place(&self, space: &mut ConfigSpace) {
        let nowhere = VirtioLocation { bar: 0, offset: 0, length: 0 };
        let mut at = VIRTIO;
        for (kind, location, bytes) in [
            (COMMON_CFG, self.common, CAP_BYTES),
            (ISR_CFG, self.isr, CAP_BYTES),
            (DEVICE_CFG, self.device, CAP_BYTES),
            (NOTIFY_CFG, self.notify, LONG_CAP_BYTES),
            (PCI_CFG, nowhere, LONG_CAP_BYTES),
        ] {
            let next = if kind == PCI_CFG { 0 } else { at + bytes };
            capability(space, at, CAP_VENDOR, next);
            // Both lengths are small.
            space.put8(at + CAP_LENGTH, bytes as u8);
            space.put8(at + CFG_TYPE, kind);
            space.put8(at + BAR, location.bar);
            space.put32(at + OFFSET, location.offset);
            space.put32(at + LENGTH, location.length);
            match kind {
                NOTIFY_CFG => space.put32(at + BEHIND, self.notify_stride),
                PCI_CFG => {
                    space.writable8(at + BAR, 0xFF);
                    space.writable32(at + OFFSET, u32::MAX);
                    space.writable32(at + LENGTH, u32::MAX);
                    space.writable32(at + BEHIND, u32::MAX);
                    space.add_window(Window::VirtioData, at + BEHIND, 4);
                }
                _ => {}
            }
            at += bytes;
        }
    }
}

impl ConfigSpace {
    /// What an access of `pci_cfg_data` is to do; `None`: nothing, for its fields are not as virtio 1.2 §4.1.4.9.2 asks for.
    pub fn config_access(&self) -> Option<ConfigAccess> {
        if !self.has_window(Window::VirtioData) {
            return None;
        }
        let [bar, ..] = self.get32(PCI_CFG_AT + BAR).to_le_bytes();
        let (offset, length) = (self.get32(PCI_CFG_AT + OFFSET), self.get32(PCI_CFG_AT + LENGTH));
        let sound = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        sound.then_some(ConfigAccess { bar, offset: offset.into(), length: length as usize })
    }

    /// What was written to `pci_cfg_data` last.
    pub fn config_data(&self) -> [u8; 4] {
        self.get32(PCI_CFG_AT + BEHIND).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Msix, Plan};
    use super::*;

    const STRUCTURES: VirtioStructures = VirtioStructures {
        common: VirtioLocation { bar: 0, offset: 0, length: 0x3C },
        notify: VirtioLocation { bar: 2, offset: 0x4000, length: 8 },
        notify_stride: 4,
        isr: VirtioLocation { bar: 0, offset: 0x200, length: 1 },
        device: VirtioLocation { bar: 0, offset: 0x400, length: 0x100 },
    };

    fn space() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1AF4,
            device: 0x1042,
            revision: 1,
            class: 0x01_80_00,
            subsystem_vendor: 0x1AF4,
            subsystem: 0x1100,
            serial: 1,
        };
        Plan {
            identity,
            multifunction: false,
            bars: Vec::new(),
            msix: Some(Msix { vectors: 2, table: (4, 0), pba: (4, 0x1000) }),
            tee_io: true,
            doe: false,
            ari: None,
            ats: false,
            ide_bytes: None,
            virtio: Some(STRUCTURES),
        }
        .build()
    }

    fn bytes<const N: usize>(space: &ConfigSpace, at: u16) -> [u8; N] {
        let mut bytes = [0xA5; N];
        space.read(at, &mut bytes);
        bytes
    }

    #[test]
    fn the_chain_has_a_capability_for_each_structure() {
        let space = space();
        let mut found = Vec::new();
        let [mut at] = bytes(&space, 0x34);
        while at != 0 {
            let head: [u8; 4] = bytes(&space, at.into());
            if head[0] == CAP_VENDOR {
                let place: [u8; 16] = bytes(&space, at.into());
                let long = |from: usize| u32::from_le_bytes(place[from..from + 4].try_into().unwrap());
                found.push((head[3], head[2], place[4], long(8), long(12)));
            }
            at = head[1];
        }
        let expected = [
            (COMMON_CFG, 16, 0, 0, 0x3C),
            (ISR_CFG, 16, 0, 0x200, 1),
            (DEVICE_CFG, 16, 0, 0x400, 0x100),
            (NOTIFY_CFG, 20, 2, 0x4000, 8),
            (PCI_CFG, 20, 0, 0, 0),
        ];
        assert_eq!(found, expected);
        assert_eq!(bytes(&space, VIRTIO + 3 * 16 + BEHIND), [4, 0, 0, 0], "notify_off_multiplier");
    }

    #[test]
    fn an_access_through_configuration_space_is_aligned_and_of_a_register_s_size() {
        let mut space = space();
        assert_eq!(space.config_access(), None, "as built");
        let mut set = |bar: u8, offset: u32, length: u32| {
            space.write(PCI_CFG_AT + BAR, &[bar]);
            space.write(PCI_CFG_AT + OFFSET, &offset.to_le_bytes());
            space.write(PCI_CFG_AT + LENGTH, &length.to_le_bytes());
            space.config_access()
        };
        for length in [1, 2, 4] {
            let access = ConfigAccess { bar: 7, offset: 0xFFFF_FFFC, length: length as usize };
            assert_eq!(set(7, 0xFFFF_FFFC, length), Some(access));
        }
        for (offset, length) in [(0, 0), (0, 3), (0, 8), (0, u32::MAX), (2, 4), (1, 2)] {
            assert_eq!(set(0, offset, length), None, "{offset} {length}");
        }
        space.write(PCI_CFG_AT + BEHIND, &[1, 2, 3, 4]);
        assert_eq!(space.config_data(), [1, 2, 3, 4]);
        space.function_reset();
        assert_eq!((space.config_access(), space.config_data()), (None, [0; 4]));
    }
}
