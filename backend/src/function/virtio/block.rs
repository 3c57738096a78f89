//! The block device as a function: registers in front, rings and a disk behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::{Disk, Gate, GateState};
use mmio::{BarSet, Kind, Place, TdiPhase, Tee};

use super::place::NOTIFY_STRIDE;
use super::ring::Ring;
use super::status::{TRANSPORT_FEATURES, feature};
use super::{Event, Locked, MAX_QUEUES, Part, Policy, Structures, Transport};
use crate::function::{DmaError, DmaId, Function, MemoryWork, Work};
use crate::vfio_user::ClientMemory;

/// Requests of one queue in one turn. Each is 126 MiB at most, and a usual one 1 MiB.
const BUDGET: usize = 8;

/// The disks of a function.
#[derive(Debug)]
pub struct BlockDisks {
    /// What is there, unless the next one is.
    pub plain: Arc<Disk>,
    /// What is there in RUN instead. It has as many queues as the other.
    pub private: Option<Arc<Disk>>,
}

impl BlockDisks {
    fn in_phase(&self, phase: TdiPhase) -> &Arc<Disk> {
        match (&self.private, phase) {
            (Some(private), TdiPhase::Run) => private,
            (Some(_) | None, _) => &self.plain,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Disk>> {
        core::iter::once(&self.plain).chain(&self.private)
    }
}

/// A virtio block device (virtio 1.2 §5.2).
pub struct Block {
    bars: BarSet,
    structures: Structures,
    transport: Transport,
    rings: BTreeMap<u16, Ring>,
    disks: BlockDisks,
    gate: Arc<Gate>,
    policy: Policy,
    phase: TdiPhase,
}

impl Block {
    /// The function in its power-on state, in CONFIG_UNLOCKED. Its MSI-X vectors are one for each queue and one for configuration
    /// changes, as far as `bars` has room for them. `None`: `bars` has no place for its registers.
    #[must_use]
    pub fn new(bars: BarSet, max_queue_size: u16, disks: BlockDisks, policy: Policy) -> Option<Self> {
        let structures = Structures::new(&bars)?;
        let queues = disks.plain.geometry().queues.min(MAX_QUEUES);
        let vectors = bars.msix().map_or(0, |msix| msix.capacity.min(queues + 1));
        let phase = TdiPhase::Unlocked;
        let offered = TRANSPORT_FEATURES | disks.in_phase(phase).features();
        Some(Self {
            bars,
            structures,
            transport: Transport::new(offered, queues, max_queue_size, vectors),
            rings: BTreeMap::new(),
            gate: Arc::new(Gate::new(policy.gate(phase))),
            disks,
            policy,
            phase,
        })
    }

    /// Where its structures lie.
    #[must_use]
    pub fn structures(&self) -> &Structures {
        &self.structures
    }

    /// How many queues it has.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.transport.queues()
    }

    fn disk(&self) -> &Arc<Disk> {
        self.disks.in_phase(self.phase)
    }

    fn part_read(&mut self, part: Part, data: &mut [u8]) {
        match part {
            Part::Common(offset) => self.transport.read_common(offset, data),
            Part::Isr(_) => {
                data.fill(0);
                if let Some(byte) = data.first_mut() {
                    *byte = self.transport.read_isr();
                }
            }
            // Offsets are less than the structure's size.
            Part::Device(offset) => self.disk().read_config(offset as usize, data),
            Part::Notify(_) => data.fill(0),
        }
    }

    fn part_write(&mut self, part: Part, data: &[u8], tee: Tee) {
        match part {
            Part::Common(offset) => {
                for event in self.transport.write_common(offset, data) {
                    self.follow(event, tee);
                }
            }
            Part::Isr(_) => {}
            Part::Device(offset) => {
                if let Err(error) = self.disk().write_config(offset as usize, data) {
                    log::warn!("virtio: going over to write-through failed: {error}");
                }
            }
            Part::Notify(offset) => self.notified(offset, data.len(), tee),
        }
    }

    /// A driver wrote to notify addresses. The address says which queue it means; what it writes there says it again.
    fn notified(&mut self, offset: u64, length: usize, tee: Tee) {
        let stride = u64::from(NOTIFY_STRIDE);
        let end = offset.saturating_add(length as u64);
        let last = end.div_ceil(stride).min(self.queues().into());
        for queue in offset / stride..last {
            if let Ok(queue) = u16::try_from(queue) {
                self.ring(queue, tee);
            }
        }
    }

    fn ring(&mut self, queue: u16, tee: Tee) {
        if self.transport.live()
            && let Some(ring) = self.rings.get_mut(&queue)
        {
            ring.ring(tee);
        }
    }

    fn follow(&mut self, event: Event, tee: Tee) {
        match event {
            Event::Reset => self.forget_rings(),
            Event::Negotiated(features) => self.disk().negotiate(features),
            Event::Ready => {
                // What was put into a queue before this was no reason to look.
                for ring in self.rings.values_mut() {
                    ring.ring(tee);
                }
            }
            Event::Enabled(queue) => self.set_up(queue, tee),
            Event::QueueReset(queue) => {
                self.rings.remove(&queue);
            }
        }
    }

    fn set_up(&mut self, index: u16, tee: Tee) {
        let event_idx = self.transport.negotiated(feature::EVENT_IDX);
        let max_size = self.transport.max_queue_size();
        let queue = self.transport.queue(index).and_then(|registers| registers.build(max_size, event_idx));
        let Some(queue) = queue else {
            log::warn!("virtio: queue {index} is not aligned; the device needs a reset");
            self.transport.break_down();
            return;
        };
        let ring = Ring::new(queue, Arc::clone(self.disk()), Arc::clone(&self.gate));
        self.rings.insert(index, ring);
        self.ring(index, tee);
    }

    /// No queue is there, and nothing is negotiated.
    fn forget_rings(&mut self) {
        self.rings.clear();
        for disk in self.disks.all() {
            disk.reset();
        }
    }
}

impl Function for Block {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn bars(&self) -> &BarSet {
        &self.bars
    }

    fn vectors(&self) -> u16 {
        self.transport.vectors()
    }

    fn read(&mut self, place: Place, data: &mut [u8]) {
        for (place, bytes) in pieces(place, data.len()) {
            let Some(piece) = data.get_mut(bytes) else { return };
            match self.structures.locate(place) {
                Some(part) => self.part_read(part, piece),
                None => piece.fill(0),
            }
        }
    }

    fn write(&mut self, place: Place, data: &[u8]) {
        for (place, bytes) in pieces(place, data.len()) {
            let Some(piece) = data.get(bytes) else { return };
            if let Some(part) = self.structures.locate(place) {
                self.part_write(part, piece, place.tee);
            }
        }
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.transport.poll()
    }

    fn dma_done(&mut self, _id: DmaId, _result: Result<&[u8], DmaError>) {}

    fn memory_work(&self) -> Option<MemoryWork> {
        if !self.transport.live() || self.gate.state() == GateState::Hold {
            return None;
        }
        let asked = self.rings.values().filter_map(|ring| Some((ring.asked()?, ring.address())));
        // One queue with T = 0 is enough to count.
        asked
            .map(|(asked, address)| MemoryWork { asked, address })
            .max_by_key(|work| work.asked == Tee::NonTee)
    }

    fn refuse_memory_work(&mut self) {
        for ring in self.rings.values_mut().filter(|ring| ring.asked() == Some(Tee::NonTee)) {
            ring.refuse();
        }
    }

    fn do_memory_work(&mut self, memory: &Arc<ClientMemory>) {
        for (index, ring) in &mut self.rings {
            if ring.asked().is_none() {
                continue;
            }
            match ring.run(memory, BUDGET) {
                Ok(progress) => {
                    if progress.signal {
                        self.transport.signal_queue(*index);
                    }
                }
                Err(error) => {
                    log::warn!("virtio: queue {index} makes no sense, the device needs a reset: {error}");
                    self.transport.break_down();
                    return;
                }
            }
        }
    }

    fn enter(&mut self, phase: TdiPhase) {
        let before = Arc::clone(self.disk());
        self.phase = phase;
        self.gate.set(self.policy.gate(phase));
        if phase == TdiPhase::Locked && self.policy.locked == Locked::Break && self.transport.live() {
            self.transport.break_down();
        }
        if !Arc::ptr_eq(&before, self.disk()) {
            // Nobody goes on with a disk on what was agreed about another.
            if self.transport.touched() {
                self.transport.forget();
            }
            self.forget_rings();
            self.transport.offer(TRANSPORT_FEATURES | self.disk().features());
            self.transport.config_changed();
        }
    }

    /// Nothing is ever at work between two calls, so there is nothing to abandon: what has not been taken from a ring waits, or
    /// goes with the ring.
    fn stop(&mut self) {}

    fn scrub(&mut self) {
        self.transport.forget();
        self.forget_rings();
    }

    fn reset(&mut self) {
        self.transport.reset();
        self.forget_rings();
    }

    fn follow_backing(&mut self) -> bool {
        let mut follows = false;
        for disk in [&self.disks.plain].into_iter().chain(&self.disks.private) {
            follows |= disk.backing().resizable();
            match disk.refresh() {
                Ok(true) => {
                    log::info!("virtio: the disk has {} bytes now", disk.size());
                    if Arc::ptr_eq(disk, self.disks.in_phase(self.phase)) {
                        self.transport.config_changed();
                    }
                }
                Ok(false) => {}
                Err(error) => log::warn!("virtio: the disk's size cannot be read: {error}"),
            }
        }
        follows
    }
}

/// An access cut where structures meet, and which of its bytes each piece is.
fn pieces(place: Place, length: usize) -> impl Iterator<Item = (Place, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let offset_in_range = place.offset_in_range.saturating_add(done as u64);
        let boundary = match place.kind {
            Kind::Registers => Structures::next_boundary(offset_in_range),
            Kind::Doorbells | Kind::Memory | Kind::MsixTable | Kind::MsixPba | Kind::Reserved => None,
        };
        let room = boundary.map_or(usize::MAX, |end| {
            usize::try_from(end.saturating_sub(offset_in_range)).unwrap_or(usize::MAX)
        });
        let bytes = done..length.min(done.saturating_add(room));
        done = bytes.end;
        Some((Place { offset_in_range, ..place }, bytes))
    })
}

#[cfg(test)]
mod tests;
