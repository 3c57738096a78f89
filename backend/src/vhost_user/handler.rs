//! What a client's messages do (vhost-user protocol, "Front-end message types").

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use disk::{Disk, Gate};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::Settings;
use super::inflight::{Inflight, QueueLedger};
use super::memory::{MAX_REGIONS, MemoryError, Regions};
use super::worker::{Setup, Worker, place};
use crate::config::ClientMemory;

/// Most descriptors of a queue.
const MAX_QUEUE_SIZE: u16 = 1024;

/// Feature bits of the transport, beside those of the disk.
const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// A ring as the client described it, and who serves it.
#[derive(Default)]
struct Slot {
    size: u16,
    /// Descriptor table, available ring, used ring, in the client's address space.
    addresses: Option<[u64; 3]>,
    base: u16,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
    worker: Option<Worker>,
}

/// One client.
pub(super) struct Handler {
    disk: Arc<Disk>,
    gate: Arc<Gate>,
    policy: ClientMemory,
    poll: Duration,
    features: u64,
    memory: Regions,
    slots: Vec<Slot>,
    inflight: Option<Inflight>,
}

fn host(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

impl Handler {
    pub(super) fn new(disk: Arc<Disk>, gate: Arc<Gate>, settings: Settings) -> Self {
        let Settings { client_memory: policy, poll } = settings;
        let slots =
            (0..disk.geometry().queues).map(|_| Slot { size: MAX_QUEUE_SIZE, ..Slot::default() }).collect();
        disk.reset();
        Self { disk, gate, policy, poll, features: 0, memory: Regions::default(), slots, inflight: None }
    }

    fn slot(&mut self, index: u32) -> Result<&mut Slot> {
        usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index)).ok_or(Error::InvalidParam)
    }

    fn accepted(&self, bit: u32) -> bool {
        self.features >> bit & 1 == 1
    }

    /// Goes on with other memory. Workers are told one after the other; what they do until then is in the old one.
    fn set_memory(&mut self, memory: Regions) -> Result<()> {
        self.memory = memory;
        for slot in &mut self.slots {
            let Some(worker) = &slot.worker else { continue };
            let (map, places) = (self.memory.map(), places(&self.memory, slot.addresses));
            let places = places.ok();
            worker.with(move |ring| ring.move_to(map, places));
        }
        Ok(())
    }

    fn region_failed(error: &MemoryError) -> Error {
        log::warn!("vhost-user: a region of memory is refused: {error}");
        host(error.to_string())
    }

    fn start(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        let event_idx = self.accepted(VIRTIO_RING_F_EVENT_IDX);
        // Without protocol features, rings are enabled from the start.
        let enabled = self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        let (disk, gate, poll, map) =
            (Arc::clone(&self.disk), Arc::clone(&self.gate), self.poll, self.memory.map());
        let inflight = self.inflight.clone();
        let memory = self.memory.clone();
        let slot = self.slot(index.into())?;
        if let Some(worker) = slot.worker.take() {
            slot.base = worker.stop();
        }
        let mut queue = Queue::new(MAX_QUEUE_SIZE).map_err(|error| host(error.to_string()))?;
        queue.try_set_size(slot.size).map_err(|_| Error::InvalidParam)?;
        place(&mut queue, places(&memory, slot.addresses)?).ok_or(Error::InvalidParam)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if !queue.is_valid(map.as_ref()) {
            return Err(Error::InvalidParam);
        }
        let used = used_index(&queue, &map)?;
        queue.set_next_used(used);
        queue.set_next_avail(slot.base);
        let mut open = Vec::new();
        let ledger: Option<QueueLedger> =
            inflight.and_then(|region| region.queue(index.into(), slot.size)).map(|mut ledger| {
                open = ledger.recover(used);
                ledger
            });
        if ledger.is_some() {
            // The base may be older than what was taken since.
            let taken = u16::try_from(open.len()).unwrap_or(u16::MAX);
            queue.set_next_avail(used.wrapping_add(taken));
        }
        slot.enabled |= enabled;
        let worker = Worker::start(Setup {
            index: index.into(),
            queue,
            memory: map,
            disk,
            gate,
            kick,
            call: slot.call.as_ref().map(File::try_clone).transpose().map_err(host)?,
            error: slot.error.as_ref().map(File::try_clone).transpose().map_err(host)?,
            // Not before what was left behind is done.
            enabled: false,
            poll,
        })
        .map_err(host)?;
        let enabled = slot.enabled;
        worker.with(move |ring| {
            if let Some(ledger) = ledger {
                ring.runner.set_ledger(Some(Box::new(ledger)));
            }
            if !open.is_empty() {
                log::info!("vhost-user: {} requests of an earlier server are carried out again", open.len());
                ring.resume(&open);
            }
            ring.enabled = enabled;
        });
        slot.worker = Some(worker);
        Ok(())
    }

    fn stop_all(&mut self) {
        for slot in &mut self.slots {
            if let Some(worker) = slot.worker.take() {
                slot.base = worker.stop();
            }
        }
    }
}

/// Ring addresses in guest memory.
fn places(memory: &Regions, addresses: Option<[u64; 3]>) -> Result<[u64; 3]> {
    let [table, available, used] = addresses.ok_or(Error::InvalidParam)?;
    let place = |address| memory.translate(address).ok_or(Error::InvalidParam);
    Ok([place(table)?, place(available)?, place(used)?])
}

fn used_index(queue: &Queue, memory: &GuestMemoryMmap) -> Result<u16> {
    let index = queue.used_idx(memory, std::sync::atomic::Ordering::Acquire);
    index.map(|index| index.0).map_err(|_| Error::InvalidParam)
}

impl VhostUserBackendReqHandlerMut for Handler {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        for slot in &mut self.slots {
            *slot = Slot { size: MAX_QUEUE_SIZE, ..Slot::default() };
        }
        self.features = 0;
        self.disk.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.disk.features() | TRANSPORT_FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !(self.disk.features() | TRANSPORT_FEATURES) != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        self.disk.negotiate(features);
        let event_idx = self.accepted(VIRTIO_RING_F_EVENT_IDX);
        for worker in self.slots.iter().filter_map(|slot| slot.worker.as_ref()) {
            worker.with(move |ring| ring.queue.set_event_idx(event_idx));
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if postcopy.is_some() {
            return Err(Error::InvalidOperation("no postcopy"));
        }
        let memory =
            Regions::new(regions, files, self.policy).map_err(|error| Self::region_failed(&error))?;
        self.set_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let size = u16::try_from(size).map_err(|_| Error::InvalidParam)?;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(Error::InvalidParam);
        }
        let slot = self.slot(index)?;
        if slot.worker.is_some() {
            return Err(Error::InvalidOperation("the ring is running"));
        }
        slot.size = size;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = [descriptor, available, used];
        let places = places(&self.memory, Some(addresses))?;
        let slot = self.slot(index)?;
        slot.addresses = Some(addresses);
        if let Some(worker) = &slot.worker {
            // A running ring may be told again where it is, as when logging is turned on.
            let placed = worker.with(move |ring| place(&mut ring.queue, places)).flatten();
            placed.ok_or(Error::InvalidParam)?;
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        let slot = self.slot(index)?;
        if slot.worker.is_some() {
            return Err(Error::InvalidOperation("the ring is running"));
        }
        slot.base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let slot = self.slot(index)?;
        if let Some(worker) = slot.worker.take() {
            slot.base = worker.stop();
        }
        slot.call = None;
        Ok(VhostUserVringState::new(index, slot.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.start(index, file)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        if let Some(file) = &file {
            nonblocking(file)?;
        }
        let slot = self.slot(index.into())?;
        slot.call = file;
        if let Some(worker) = &slot.worker {
            let call = slot.call.as_ref().map(File::try_clone).transpose().map_err(host)?;
            worker.with(move |ring| ring.call = call);
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        if let Some(file) = &file {
            nonblocking(file)?;
        }
        let slot = self.slot(index.into())?;
        slot.error = file;
        if let Some(worker) = &slot.worker {
            let error = slot.error.as_ref().map(File::try_clone).transpose().map_err(host)?;
            worker.with(move |ring| ring.error = error);
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        // The library keeps them, and refuses messages of those that were not accepted.
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.slots.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let slot = self.slot(index)?;
        slot.enabled = enable;
        if let Some(worker) = &slot.worker {
            worker.with(move |ring| ring.enable(enable));
        }
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        // The library has checked both: at most 256 bytes.
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Error::InvalidParam)?];
        self.disk.read_config(usize::try_from(offset).map_err(|_| Error::InvalidParam)?, &mut bytes);
        Ok(bytes)
    }

    fn set_config(&mut self, offset: u32, data: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        let offset = usize::try_from(offset).map_err(|_| Error::InvalidParam)?;
        self.disk.write_config(offset, data).map_err(Error::ReqHandlerError)
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a GPU"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("no shared objects"))
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (wanted.num_queues, wanted.queue_size);
        if usize::from(queues) > self.slots.len() || size > MAX_QUEUE_SIZE {
            return Err(Error::InvalidParam);
        }
        let (region, file) = Inflight::new(queues, size).map_err(Error::ReqHandlerError)?;
        self.inflight = Some(region);
        let bytes = Inflight::bytes(queues, size) as u64;
        Ok((VhostUserInflight::new(bytes, 0, queues, size), file))
    }

    fn set_inflight_fd(&mut self, kept: &VhostUserInflight, file: File) -> Result<()> {
        let (queues, size) = (kept.num_queues, kept.queue_size);
        if usize::from(queues) > self.slots.len()
            || size > MAX_QUEUE_SIZE
            || kept.mmap_size < Inflight::bytes(queues, size) as u64
        {
            return Err(Error::InvalidParam);
        }
        let file = super::memory::safe(file, self.policy).map_err(|error| Self::region_failed(&error))?;
        let region = Inflight::from_file(file, kept.mmap_offset, queues, size);
        self.inflight = Some(region.map_err(Error::ReqHandlerError)?);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if postcopy.is_some() {
            return Err(Error::InvalidOperation("no postcopy"));
        }
        let memory =
            self.memory.with(region, file, self.policy).map_err(|error| Self::region_failed(&error))?;
        self.set_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.without(region).map_err(|error| Self::region_failed(&error))?;
        self.set_memory(memory)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("no device state"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("no device state"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("no shared memory regions"))
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(Error::InvalidOperation("no dirty log"))
    }

    fn set_backend_req_fd(&mut self, _backend: Backend) {
        // The library's channel cannot say that configuration space changed; see `backchannel`.
    }
}

/// A descriptor that writing to does not wait for.
fn nonblocking(file: &File) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(file).map_err(host)?;
    rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::NONBLOCK).map_err(host)
}
