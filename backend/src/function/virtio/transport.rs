//! The common configuration structure (virtio 1.2 §4.1.4.3) as a driver meets it, and what follows from its writes.

use mmio::{Register, RegisterHandler, RegisterMap, RegisterWidth};

use super::interrupts::{Interrupts, NO_VECTOR};
use super::place::COMMON_BYTES;
use super::queue::QueueRegisters;
use super::status::{Change, Status, acceptable, feature};
use crate::function::Work;

/// Every register, in the order of the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
    QueueNotifyData,
    QueueReset,
}

const MAP: RegisterMap<Name> = {
    use Name::*;
    use RegisterWidth::{Bits8, Bits16, Bits32, Bits64};
    const fn at(offset: u64, width: RegisterWidth, id: Name) -> Register<Name> {
        Register { offset, width, id }
    }
    RegisterMap::new(&[
        at(0x00, Bits32, DeviceFeatureSelect),
        at(0x04, Bits32, DeviceFeature),
        at(0x08, Bits32, DriverFeatureSelect),
        at(0x0C, Bits32, DriverFeature),
        at(0x10, Bits16, ConfigVector),
        at(0x12, Bits16, NumQueues),
        at(0x14, Bits8, DeviceStatus),
        at(0x15, Bits8, ConfigGeneration),
        at(0x16, Bits16, QueueSelect),
        at(0x18, Bits16, QueueSize),
        at(0x1A, Bits16, QueueVector),
        at(0x1C, Bits16, QueueEnable),
        at(0x1E, Bits16, QueueNotifyOff),
        at(0x20, Bits64, QueueDesc),
        at(0x28, Bits64, QueueDriver),
        at(0x30, Bits64, QueueDevice),
        at(0x38, Bits16, QueueNotifyData),
        at(0x3A, Bits16, QueueReset),
    ])
};
const _: () = assert!(COMMON_BYTES == 0x3A + 2);

/// What the owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The driver started over: nothing is negotiated, no queue is there.
    Reset,
    /// These are the features from now on.
    Negotiated(u64),
    /// The driver is ready: queues that are enabled are to be served.
    Ready,
    /// This queue is set up.
    Enabled(u16),
    /// This queue is gone until it is set up again.
    QueueReset(u16),
}

/// The registers.
#[derive(Debug)]
pub(super) struct Transport {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: Status,
    generation: u8,
    config_vector: u16,
    selected: u16,
    max_queue_size: u16,
    queues: Vec<QueueRegisters>,
    interrupts: Interrupts,
    events: Vec<Event>,
}

impl Transport {
    /// In its power-on state. `vectors`: MSI-X vectors, 0 for INTx.
    pub(super) fn new(offered: u64, queues: u16, max_queue_size: u16, vectors: u16) -> Self {
        Self {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: Status::new(),
            generation: 0,
            config_vector: NO_VECTOR,
            selected: 0,
            max_queue_size,
            queues: vec![QueueRegisters::new(max_queue_size); queues.into()],
            interrupts: Interrupts::new(vectors),
            events: Vec::new(),
        }
    }

    pub(super) fn read_common(&mut self, offset: u64, data: &mut [u8]) {
        MAP.read(offset, data, self);
    }

    /// Returns what the owner has to do, in order.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) -> Vec<Event> {
        MAP.write(offset, data, self);
        core::mem::take(&mut self.events)
    }

    /// The ISR status structure: reading it clears it.
    pub(super) fn read_isr(&mut self) -> u8 {
        self.interrupts.take_isr()
    }

    /// Whether queues are to be served.
    pub(super) fn live(&self) -> bool {
        self.status.live()
    }

    /// Whether a driver has done anything since the last reset.
    pub(super) fn touched(&self) -> bool {
        self.status != Status::new()
    }

    pub(super) fn queues(&self) -> u16 {
        // There are MAX_QUEUES at most.
        self.queues.len() as u16
    }

    pub(super) fn vectors(&self) -> u16 {
        self.interrupts.vectors()
    }

    pub(super) const fn max_queue_size(&self) -> u16 {
        self.max_queue_size
    }

    pub(super) fn queue(&self, index: u16) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(index))
    }

    pub(super) const fn negotiated(&self, bit: u32) -> bool {
        self.status.features_ok() && self.driver_features >> bit & 1 == 1
    }

    /// Other features are offered from now on. Not while a driver is at work.
    pub(super) fn offer(&mut self, features: u64) {
        self.offered = features;
    }

    /// A queue has used buffers, and the driver wants to know.
    pub(super) fn signal_queue(&mut self, index: u16) {
        if let Some(vector) = self.queue(index).map(|queue| queue.vector) {
            self.interrupts.queue(vector);
        }
    }

    /// Device configuration changed (virtio 1.2 §4.1.5.4).
    pub(super) fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.status.driver_ok() {
            self.interrupts.config(self.config_vector);
        }
    }

    /// The device cannot go on until the driver resets it (virtio 1.2 §2.1.2).
    pub(super) fn break_down(&mut self) {
        if !self.status.needs_reset() {
            self.status.set_needs_reset(true);
            if self.status.driver_ok() {
                self.interrupts.config(self.config_vector);
            }
        }
    }

    /// Forgets all that a driver has written. One that was at work finds that it has to start over, and with MSI-X is told
    /// so; INTx stays quiet, for the register that would end it may be out of reach.
    pub(super) fn forget(&mut self) {
        let was_live = self.status.driver_ok();
        if was_live && self.vectors() > 0 {
            self.interrupts.config(self.config_vector);
        }
        self.clear();
        self.interrupts.quiet();
        self.status.set_needs_reset(was_live);
    }

    /// Power-on state.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.interrupts.reset();
    }

    /// All that a driver has written, but for messages that are under way. The generation goes on: who reads configuration
    /// over a reset sees a change.
    fn clear(&mut self) {
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.status = Status::new();
        self.config_vector = NO_VECTOR;
        self.selected = 0;
        self.queues.fill(QueueRegisters::new(self.max_queue_size));
        self.events.clear();
    }

    /// The next thing to tell the driver.
    pub(super) fn poll(&mut self) -> Option<Work> {
        self.interrupts.poll()
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queue(self.selected)
    }

    /// The selected queue, if the driver may still set it up.
    fn open(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::from(self.selected)).filter(|queue| !queue.enabled)
    }

    fn of_selected(&self, get: impl Fn(&QueueRegisters) -> u64) -> u64 {
        self.selected().map_or(0, get)
    }

    fn write_status(&mut self, value: u8) {
        let (offered, wanted) = (self.offered, self.driver_features);
        let agreed = self.status.features_ok();
        let change = self.status.written(value, || acceptable(offered, wanted));
        match change {
            Change::None => {}
            Change::Reset => {
                self.reset();
                self.events.push(Event::Reset);
            }
            Change::Negotiated => self.events.push(Event::Negotiated(wanted)),
            Change::Ready => {
                if !agreed {
                    self.events.push(Event::Negotiated(wanted));
                }
                self.events.push(Event::Ready);
            }
        }
    }

    fn reset_queue(&mut self) {
        let (index, fresh) = (self.selected, QueueRegisters::new(self.max_queue_size));
        if !self.negotiated(feature::RING_RESET) {
            return;
        }
        if let Some(queue) = self.queues.get_mut(usize::from(index)).filter(|queue| queue.enabled) {
            // Done before anyone can look: queue_reset never reads 1 (virtio 1.2 §2.6.1).
            *queue = fresh;
            self.events.push(Event::QueueReset(index));
        }
    }
}

/// Half of a feature set.
const fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

impl RegisterHandler for Transport {
    type Id = Name;

    fn read(&mut self, name: Name) -> u64 {
        match name {
            Name::DeviceFeatureSelect => self.device_feature_select.into(),
            Name::DeviceFeature => half(self.offered, self.device_feature_select).into(),
            Name::DriverFeatureSelect => self.driver_feature_select.into(),
            Name::DriverFeature => half(self.driver_features, self.driver_feature_select).into(),
            Name::ConfigVector => self.config_vector.into(),
            Name::NumQueues => self.queues().into(),
            Name::DeviceStatus => self.status.into_bits().into(),
            Name::ConfigGeneration => self.generation.into(),
            Name::QueueSelect => self.selected.into(),
            Name::QueueSize => self.of_selected(|queue| queue.size.into()),
            Name::QueueVector => self.selected().map_or(NO_VECTOR, |queue| queue.vector).into(),
            Name::QueueEnable => self.of_selected(|queue| queue.enabled.into()),
            Name::QueueNotifyOff => self.of_selected(|_| self.selected.into()),
            Name::QueueDesc => self.of_selected(|queue| queue.descriptors),
            Name::QueueDriver => self.of_selected(|queue| queue.driver),
            Name::QueueDevice => self.of_selected(|queue| queue.device),
            // NOTIF_CONFIG_DATA is not offered, and a reset is over at once.
            Name::QueueNotifyData | Name::QueueReset => 0,
        }
    }

    fn untouched(&self, name: Name) -> u64 {
        match name {
            Name::DeviceFeatureSelect => self.device_feature_select.into(),
            Name::DriverFeatureSelect => self.driver_feature_select.into(),
            Name::DriverFeature => half(self.driver_features, self.driver_feature_select).into(),
            Name::ConfigVector => self.config_vector.into(),
            Name::QueueSelect => self.selected.into(),
            Name::QueueSize => self.of_selected(|queue| queue.size.into()),
            Name::QueueVector => self.selected().map_or(NO_VECTOR, |queue| queue.vector).into(),
            Name::QueueDesc => self.of_selected(|queue| queue.descriptors),
            Name::QueueDriver => self.of_selected(|queue| queue.driver),
            Name::QueueDevice => self.of_selected(|queue| queue.device),
            // Read-only, of one byte, or acts when it is written.
            Name::DeviceFeature
            | Name::NumQueues
            | Name::DeviceStatus
            | Name::ConfigGeneration
            | Name::QueueEnable
            | Name::QueueNotifyOff
            | Name::QueueNotifyData
            | Name::QueueReset => 0,
        }
    }

    fn write(&mut self, name: Name, value: u64) {
        // A register's value has no bits beyond its width.
        let (long, short) = (value as u32, value as u16);
        match name {
            Name::DeviceFeatureSelect => self.device_feature_select = long,
            Name::DriverFeatureSelect => self.driver_feature_select = long,
            Name::DriverFeature => {
                // Final once FEATURES_OK is set (virtio 1.2 §3.1.1).
                let shift = match self.driver_feature_select {
                    0 => 0,
                    1 => 32,
                    _ => return,
                };
                if !self.status.features_ok() {
                    let kept = self.driver_features & !(u64::from(u32::MAX) << shift);
                    self.driver_features = kept | u64::from(long) << shift;
                }
            }
            Name::ConfigVector => self.config_vector = self.interrupts.vector(short),
            Name::DeviceStatus => self.write_status(value as u8),
            Name::QueueSelect => self.selected = short,
            Name::QueueSize => {
                let fits = short.is_power_of_two() && short <= self.max_queue_size;
                if let Some(queue) = self.open().filter(|_| fits) {
                    queue.size = short;
                }
            }
            Name::QueueVector => {
                let vector = self.interrupts.vector(short);
                if let Some(queue) = self.queues.get_mut(usize::from(self.selected)) {
                    queue.vector = vector;
                }
            }
            Name::QueueEnable => {
                let agreed = self.status.features_ok();
                if let Some(queue) = self.open().filter(|_| short == 1 && agreed) {
                    queue.enabled = true;
                    self.events.push(Event::Enabled(self.selected));
                }
            }
            Name::QueueDesc => {
                if let Some(queue) = self.open() {
                    queue.descriptors = value;
                }
            }
            Name::QueueDriver => {
                if let Some(queue) = self.open() {
                    queue.driver = value;
                }
            }
            Name::QueueDevice => {
                if let Some(queue) = self.open() {
                    queue.device = value;
                }
            }
            Name::QueueReset => {
                if short == 1 {
                    self.reset_queue();
                }
            }
            Name::DeviceFeature
            | Name::NumQueues
            | Name::ConfigGeneration
            | Name::QueueNotifyOff
            | Name::QueueNotifyData => {}
        }
    }
}

#[cfg(test)]
mod tests;
