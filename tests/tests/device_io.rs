//! What the composed device does on its own: DMA and interrupts, in every state, seen by two clients: ours, and rust-vmm's,
//! which nobody here wrote.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tdispctl::pci::Width;
use tdispctl::transport::Transport;
use tests::host::Host;
use tests::rig::Rig;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;

/// Registers of the test function; backend/src/function/REGISTERS.md.
mod register {
    pub(super) const SOURCE: u64 = 0x100;
    pub(super) const DESTINATION: u64 = 0x108;
    pub(super) const LENGTH: u64 = 0x110;
    pub(super) const COMMAND: u64 = 0x120;
    pub(super) const START: u64 = 0x124;
    pub(super) const STATUS: u64 = 0x128;
    pub(super) const IRQ_TRIGGER: u64 = 0x200;
    pub(super) const IRQ_STATUS: u64 = 0x204;
}
const COPY: u32 = 1;
const DONE: u32 = 1 << 1;
const NOT_ALLOWED: u32 = 5;

/// Copies the first page of the host's memory to the second, and returns DMA_STATUS.
fn copy(host: &mut Host, text: &[u8]) -> (u32, Vec<u8>) {
    let mut memory = host.device.memory().unwrap();
    memory.write(0, text).unwrap();
    memory.write(1, &vec![0; text.len()]).unwrap();
    let (source, destination) = (memory.address(0).unwrap(), memory.address(1).unwrap());
    host.bar_write(0, register::SOURCE, &source.to_le_bytes());
    host.bar_write(0, register::DESTINATION, &destination.to_le_bytes());
    host.bar_write(0, register::LENGTH, &(text.len() as u64).to_le_bytes());
    host.bar_write(0, register::COMMAND, &COPY.to_le_bytes());
    host.bar_write(0, register::START, &1_u32.to_le_bytes());
    let patience = Instant::now();
    let status = loop {
        let status = u32::from_le_bytes(host.bar_read(0, register::STATUS));
        if status & DONE != 0 {
            break status;
        }
        assert!(patience.elapsed() < Duration::from_secs(10), "DMA never ends");
    };
    let mut copied = vec![0xA5; text.len()];
    memory.read(1, &mut copied).unwrap();
    (status, copied)
}

#[test]
fn dma_runs_where_the_state_and_bus_mastering_allow_it() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    let text = b"through the device and back";
    assert_eq!(copy(&mut host, text), (DONE, text.to_vec()), "CONFIG_UNLOCKED");
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    let refused = DONE | 1 << 2 | NOT_ALLOWED << 8;
    assert_eq!(copy(&mut host, text), (refused, vec![0; text.len()]), "Bus Master Enable is clear");
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE | BUS_MASTER);
    host.run();
    assert_eq!(copy(&mut host, text), (DONE, text.to_vec()), "RUN");
}

#[test]
fn memory_space_off_means_nobody_answers() {
    let rig = Rig::new();
    let mut host = Host::plug(rig.socket(0));
    host.config_write(COMMAND, Width::Word, BUS_MASTER);
    assert_eq!(host.bar_read::<4>(0, 0), [0xFF; 4]);
    host.config_write(COMMAND, Width::Word, MEMORY_SPACE);
    assert_eq!(&host.bar_read::<4>(0, 0), b"TDSP");
}

fn signalled(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let soon = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let ready = poll(&mut fds, Some(&soon)).unwrap() == 1;
    if ready {
        rustix::io::read(fd, &mut [0; 8]).unwrap();
    }
    ready
}

/// rust-vmm's client on function 0, with memory and bus mastering on.
fn foreign(rig: &Rig) -> vfio_user::Client {
    let mut client = vfio_user::Client::new(rig.socket(0)).unwrap();
    let command = (MEMORY_SPACE | BUS_MASTER) as u16;
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, COMMAND.into(), &command.to_le_bytes()).unwrap();
    client
}

#[test]
fn msix_vectors_arrive_unless_bus_mastering_is_off() {
    let rig = Rig::new();
    let mut client = foreign(&rig);
    assert_eq!(client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).unwrap().count, 4);
    assert_eq!(client.get_irq_info(VFIO_PCI_INTX_IRQ_INDEX).unwrap().count, 0);
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 2, 1, &[fd.as_raw_fd()]).unwrap();
    let trigger = |client: &mut vfio_user::Client, vector: u32| {
        client.region_write(0, register::IRQ_TRIGGER, &vector.to_le_bytes()).unwrap();
    };
    trigger(&mut client, 2);
    assert!(signalled(&fd));
    trigger(&mut client, 1);
    assert!(!signalled(&fd), "another vector");
    let memory_only = (MEMORY_SPACE as u16).to_le_bytes();
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, COMMAND.into(), &memory_only).unwrap();
    trigger(&mut client, 2);
    assert!(!signalled(&fd), "a message is a memory write");
}

#[test]
fn intx_is_a_level() {
    const STATUS: u64 = 0x06;
    let rig = Rig::with("[[function]]\nmsix = false\n", 1);
    let mut client = foreign(&rig);
    assert_eq!(client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).unwrap().count, 0);
    assert_eq!(client.get_irq_info(VFIO_PCI_INTX_IRQ_INDEX).unwrap().count, 1);
    let mut pin = [0];
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0x3D, &mut pin).unwrap();
    assert_eq!(pin, [1], "INTA#");
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(VFIO_PCI_INTX_IRQ_INDEX, flags, 0, 1, &[fd.as_raw_fd()]).unwrap();
    let unmask = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;

    client.region_write(0, register::IRQ_TRIGGER, &1_u32.to_le_bytes()).unwrap();
    assert!(signalled(&fd));
    let mut status = [0; 2];
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, STATUS, &mut status).unwrap();
    assert_eq!(status[0] & 1 << 3, 1 << 3, "Interrupt Status");
    client.set_irqs(VFIO_PCI_INTX_IRQ_INDEX, unmask, 0, 1, &[]).unwrap();
    assert!(signalled(&fd), "still asserted");
    client.region_write(0, register::IRQ_STATUS, &2_u32.to_le_bytes()).unwrap();
    client.set_irqs(VFIO_PCI_INTX_IRQ_INDEX, unmask, 0, 1, &[]).unwrap();
    assert!(!signalled(&fd));
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, STATUS, &mut status).unwrap();
    assert_eq!(status[0] & 1 << 3, 0);

    let disabled = (MEMORY_SPACE | BUS_MASTER | 1 << 10) as u16;
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, COMMAND.into(), &disabled.to_le_bytes()).unwrap();
    client.region_write(0, register::IRQ_TRIGGER, &1_u32.to_le_bytes()).unwrap();
    assert!(!signalled(&fd), "Interrupt Disable");
}

#[test]
fn only_shared_memory_is_offered_for_mapping() {
    const SHARED: u64 = 128 * 4096;
    let rig = Rig::new();
    let mut client = vfio_user::Client::new(rig.socket(0)).unwrap();
    let region = client.region(2).unwrap();
    let areas: Vec<_> = region.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(SHARED, 128 * 4096)]);
    // The descriptor outlives the connection it came over.
    let file = region.file_offset.as_ref().unwrap().file().try_clone().unwrap();
    let enabled = MEMORY_SPACE as u16;
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, COMMAND.into(), &enabled.to_le_bytes()).unwrap();
    client.region_write(2, SHARED, b"shared!!").unwrap();
    let look = || {
        let mut data = [0; 8];
        rustix::io::pread(&file, &mut data, SHARED).unwrap();
        data
    };
    assert_eq!(&look(), b"shared!!");
    drop(client);
    let mut host = Host::plug(rig.socket(0));
    host.bar_write(2, SHARED, b"another!");
    assert_ne!(&look(), b"another!", "the next client has a file of its own");
}
