//! rust-vmm's vfio-user client, written by other people, against our server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vfio_user_support;

use std::os::fd::AsRawFd;

use rustix::fs::SealFlags;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_user_support::{
    BAR0_SIZE, BAR1_SIZE, Host, MSIX_VECTORS, WINDOW_OF_BAR1, memfd, new_eventfd, reg, signals,
};

#[test]
fn a_foreign_client_uses_the_whole_device() {
    let host = Host::start();
    let mut client = vfio_user::Client::new(&host.path).unwrap();

    assert_eq!(client.region(0).unwrap().size, BAR0_SIZE);
    let mappable = client.region(1).unwrap();
    assert_eq!((mappable.size, mappable.flags & VFIO_REGION_INFO_FLAG_MMAP != 0), (BAR1_SIZE, true));
    let areas: Vec<_> = mappable.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(0x2000, 0x1000), (0x4000, 0x2000)]);

    let window = client.region(WINDOW_OF_BAR1).unwrap();
    let areas: Vec<_> = window.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(0x2000, 0x1000), (0x4000, 0x2000)], "it skips what else is said of a window");

    let mut word = [0; 4];
    client.region_write(0, 0x40, b"abcd").unwrap();
    client.region_read(0, 0x40, &mut word).unwrap();
    assert_eq!(&word, b"abcd");

    let memory = memfd(0x2000, SealFlags::SHRINK);
    rustix::io::pwrite(&memory, b"from the guest", 0x1100).unwrap();
    client.dma_map(0x1000, 0x8000_0000, 0x1000, memory.as_raw_fd()).unwrap();
    client.region_write(0, reg::ADDRESS, &0x8000_0100u64.to_le_bytes()).unwrap();
    client.region_write(0, reg::READ, &14u32.to_le_bytes()).unwrap();
    let mut text = [0; 14];
    client.region_read(0, reg::DATA, &mut text).unwrap();
    assert_eq!(&text, b"from the guest");

    let info = client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).unwrap();
    assert_eq!((info.count, info.flags & VFIO_IRQ_INFO_EVENTFD), (MSIX_VECTORS, VFIO_IRQ_INFO_EVENTFD));
    let interrupt = new_eventfd();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 3, 1, &[interrupt.as_raw_fd()]).unwrap();
    client.region_write(0, reg::VECTOR, &3u32.to_le_bytes()).unwrap();
    assert_eq!(signals(&interrupt), 1);

    client.dma_unmap(0x8000_0000, 0x1000).unwrap();
    client.reset().unwrap();
    assert_eq!(host.events.lock().unwrap().resets, 1);
    client.shutdown().unwrap();
    host.wait_for("disconnect", |events| events.disconnected == 1);
}
