//! What the function has to tell its driver: messages not sent yet, and the ISR status (virtio 1.2 §4.1.4.5, §4.1.5).

use std::collections::BTreeSet;

use crate::function::Work;

/// No vector at all (`VIRTIO_MSI_NO_VECTOR`).
pub(super) const NO_VECTOR: u16 = 0xFFFF;
/// ISR status: a queue has used buffers.
const QUEUE: u8 = 1;
/// ISR status: the configuration changed.
const CONFIG: u8 = 1 << 1;

#[derive(Debug)]
pub(super) struct Interrupts {
    /// MSI-X vectors there are; none: INTx.
    vectors: u16,
    isr: u8,
    messages: BTreeSet<u16>,
    /// What the device was last told about INTx.
    asserted: bool,
}

impl Interrupts {
    pub(super) const fn new(vectors: u16) -> Self {
        Self { vectors, isr: 0, messages: BTreeSet::new(), asserted: false }
    }

    pub(super) const fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The vector as a register takes it: one that there is, or none (virtio 1.2 §4.1.5.1.2).
    pub(super) const fn vector(&self, asked: u16) -> u16 {
        if asked < self.vectors { asked } else { NO_VECTOR }
    }

    /// A queue has used buffers. ISR status says so only where there is no MSI-X.
    pub(super) fn queue(&mut self, vector: u16) {
        if self.vectors == 0 {
            self.isr |= QUEUE;
        }
        self.send(vector);
    }

    /// The configuration changed, or the device needs a reset. ISR status says so in any case (virtio 1.2 §4.1.4.5.1).
    pub(super) fn config(&mut self, vector: u16) {
        self.isr |= CONFIG;
        self.send(vector);
    }

    fn send(&mut self, vector: u16) {
        if vector < self.vectors {
            self.messages.insert(vector);
        }
    }

    /// Reading ISR status clears it, and with it INTx.
    pub(super) fn take_isr(&mut self) -> u8 {
        core::mem::take(&mut self.isr)
    }

    /// ISR status as after a reset; messages that were to be sent still are.
    pub(super) fn quiet(&mut self) {
        self.isr = 0;
    }

    /// Nothing to tell. What the device was told about INTx stays, so that it is told of a change.
    pub(super) fn reset(&mut self) {
        self.isr = 0;
        self.messages.clear();
    }

    pub(super) fn poll(&mut self) -> Option<Work> {
        if let Some(vector) = self.messages.pop_first() {
            return Some(Work::Interrupt { vector });
        }
        let level = self.vectors == 0 && self.isr != 0;
        (level != self.asserted).then(|| {
            self.asserted = level;
            Work::IntxLevel(level)
        })
    }
}
