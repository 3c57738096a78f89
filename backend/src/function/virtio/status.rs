//! Device status and features: what a driver may say when (virtio 1.2 §2.1, §2.2, §3.1).

use bitfield_struct::bitfield;

/// `VIRTIO_F_*` of virtio 1.2 §6, by number.
pub(super) mod feature {
    /// Indirect descriptors.
    pub(in crate::function::virtio) const INDIRECT_DESC: u32 = 28;
    /// Notifications by index instead of flags.
    pub(in crate::function::virtio) const EVENT_IDX: u32 = 29;
    /// Not the legacy interface.
    pub(in crate::function::virtio) const VERSION_1: u32 = 32;
    /// Addresses are bus addresses, behind an IOMMU if there is one.
    pub(in crate::function::virtio) const ACCESS_PLATFORM: u32 = 33;
    /// Single queues can be reset.
    pub(in crate::function::virtio) const RING_RESET: u32 = 40;
}

/// What the transport offers, whatever the device type adds. No packed ring: the library that walks the rings has none.
pub(super) const TRANSPORT_FEATURES: u64 = 1 << feature::INDIRECT_DESC
    | 1 << feature::EVENT_IDX
    | 1 << feature::VERSION_1
    | 1 << feature::ACCESS_PLATFORM
    | 1 << feature::RING_RESET;

/// Without these the device does not work: it has no legacy interface, and its DMA passes whatever translates for its bus.
const REQUIRED: u64 = 1 << feature::VERSION_1 | 1 << feature::ACCESS_PLATFORM;

/// `device_status` (virtio 1.2 §2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub(super) struct Status {
    pub(super) acknowledge: bool,
    pub(super) driver: bool,
    pub(super) driver_ok: bool,
    pub(super) features_ok: bool,
    #[bits(2)]
    __: u8,
    pub(super) needs_reset: bool,
    pub(super) failed: bool,
}

/// The bits that mean something.
const DEFINED: u8 = 0xCF;

/// What a write to the status register has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anybody has to know.
    None,
    /// Back to the beginning.
    Reset,
    /// The driver's features are final.
    Negotiated,
    /// The driver is ready. Its features may have become final with the same write.
    Ready,
}

impl Status {
    /// Takes what a driver writes. A driver adds bits and never takes one back but all of them (§2.1.1); FEATURES_OK stays
    /// clear where `acceptable` says no (§2.2.2), and DRIVER_OK counts only behind it.
    pub(super) fn written(&mut self, value: u8, acceptable: impl FnOnce() -> bool) -> Change {
        if value == 0 {
            *self = Self::new();
            return Change::Reset;
        }
        let before = *self;
        let asked = Self::from_bits(value);
        let agreed = before.features_ok() || (asked.features_ok() && acceptable());
        *self = Self::from_bits((before.into_bits() | value) & DEFINED)
            .with_features_ok(agreed)
            .with_driver_ok(before.driver_ok() || (asked.driver_ok() && agreed))
            .with_needs_reset(before.needs_reset());
        match (self.driver_ok() != before.driver_ok(), self.features_ok() != before.features_ok()) {
            (true, _) => Change::Ready,
            (false, true) => Change::Negotiated,
            (false, false) => Change::None,
        }
    }

    /// Whether queues are to be served.
    pub(super) fn live(self) -> bool {
        self.driver_ok() && !self.needs_reset() && !self.failed()
    }
}

/// Whether a driver may go on with these features.
pub(super) const fn acceptable(offered: u64, wanted: u64) -> bool {
    wanted & !offered == 0 && wanted & REQUIRED == REQUIRED
}
