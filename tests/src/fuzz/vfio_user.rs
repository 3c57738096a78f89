//! The byte stream of a vfio-user client, against the connection and a function that watches what it is asked.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here is the test")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tdispd::vfio_user::{
    Connection, Device, Errno, Fds, FileAccess, IrqKind, Mmap, MmapArea, Progress, Region, RegionType,
    WINDOW_REGION,
};
use tdispd_proto::vfio_user::{HEADER_SIZE, Header, MAX_MESSAGE_SIZE, MessageType};

/// Errors out of the device, to be seen by the client.
const BROKEN: u64 = 0xFC;

/// A function whose regions must only be touched where they are.
struct Watchful {
    regions: Vec<Region>,
    mapping: Mmap,
    connected: bool,
}

impl Watchful {
    fn new() -> Self {
        let file: Arc<OwnedFd> = Arc::new(memory(0x4000));
        let areas = vec![MmapArea { offset: 0x1000.into(), size: 0x1000.into() }];
        let mut regions = vec![Region::default(); 15];
        regions[0] = Region::trapped(0x1000);
        regions[2] = Region::trapped(0x4000);
        let mapping = Mmap { file, offset: 0, areas };
        regions[4] = Region { writable: false, ..Region::trapped(0x2000) };
        regions[6] = Region { readable: false, ..Region::trapped(0x800) };
        regions[7] = Region::trapped(0x1000);
        regions[9] = Region { kind: Some(RegionType::window(0x1234, 0)), ..Region::trapped(0x1000) };
        regions[11] = Region { kind: Some(RegionType::window(0x1234, 2)), ..Region::trapped(0x4000) };
        Self { regions, mapping, connected: false }
    }

    fn check(&self, region: u32, offset: u64, length: usize, allowed: impl Fn(&Region) -> bool) {
        assert!(self.connected, "an access before VERSION");
        let region = &self.regions[region as usize];
        assert!(allowed(region), "an access that the region does not allow");
        assert!(offset.checked_add(length as u64).unwrap() <= region.size, "an access outside its region");
    }
}

impl Device for Watchful {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn mapping(&mut self, region: u32) -> Option<Mmap> {
        [2, 11].contains(&region).then(|| self.mapping.clone())
    }

    fn irq_count(&self, kind: IrqKind) -> u32 {
        if kind == IrqKind::Msix { 4 } else { 1 }
    }

    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.check(region, offset, data.len(), |region| region.readable);
        assert!(data.iter().all(|byte| *byte == 0), "what another request left behind");
        data.fill(0x5A);
        if offset == BROKEN { Err(Errno::IO) } else { Ok(()) }
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.check(region, offset, data.len(), |region| region.writable);
        if offset == BROKEN { Err(Errno::IO) } else { Ok(()) }
    }

    fn reset(&mut self) {
        assert!(self.connected, "a reset before VERSION");
    }

    fn exports(&self) -> bool {
        true
    }

    fn export(&mut self, region: u32, ranges: &[(u64, u64)], _: FileAccess) -> Result<OwnedFd, Errno> {
        assert!(self.connected, "an export before VERSION");
        let bar = region.checked_sub(WINDOW_REGION).unwrap_or(region);
        assert!(bar < 6, "neither a BAR nor a window");
        assert!(!ranges.is_empty());
        let size = self.regions[region as usize].size;
        for (offset, length) in ranges {
            assert!(*length > 0 && (offset | length).is_multiple_of(0x1000), "a range of less than pages");
            assert!(offset.checked_add(*length).unwrap() <= size, "a range outside its region");
        }
        if size == 0x2000 { Err(Errno::BUSY) } else { Ok(memory(0x1000)) }
    }

    fn client_connected(&mut self) {
        assert!(!self.connected, "two clients");
        self.connected = true;
    }

    fn client_disconnected(&mut self) {
        assert!(self.connected);
        self.connected = false;
    }
}

/// Client memory, sealed or not is the client's choice.
fn memory(size: u64) -> OwnedFd {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

/// The bytes in pieces of `piece`; all that comes back, and the replies that were due.
fn converse(bytes: &[u8], piece: usize, descriptors: bool) -> Vec<u8> {
    let mut device = Watchful::new();
    let mut connection = Connection::default();
    let (mut out, mut accesses, mut closed) = (Vec::new(), 0, false);
    let mut left = bytes;
    while !left.is_empty() && !closed {
        let space = connection.space();
        let count = left.len().min(piece).min(space.len());
        assert!(count > 0, "no room for the rest of a message");
        space[..count].copy_from_slice(&left[..count]);
        left = &left[count..];
        let fds = if descriptors { vec![memory(0x4000)] } else { Vec::new() };
        connection.received(count, Fds { fds, truncated: false });
        loop {
            let progress = connection.handle_next(&mut device);
            let mut reply = Vec::new();
            while let Some(chunk) = connection.chunk() {
                reply.extend_from_slice(chunk.bytes);
                let count = chunk.bytes.len();
                connection.sent(count);
            }
            // A message, its reply or an access of ours behind it, and no more.
            assert!(reply.len() <= 3 * MAX_MESSAGE_SIZE as usize);
            out.extend_from_slice(&reply);
            match progress {
                Progress::Idle if reply.is_empty() => break,
                // An access of ours went first.
                Progress::Idle => {}
                Progress::Close => {
                    closed = true;
                    break;
                }
                Progress::Handled => {
                    assert!(connection.is_negotiated());
                    // The function does DMA all the while.
                    accesses += 1;
                    let address = 0x1000 * (accesses % 5);
                    match accesses % 2 {
                        0 => connection.dma_read(accesses, address, 24),
                        _ => connection.dma_write(accesses, address, vec![7; 24]),
                    }
                    while let Some(done) = connection.poll_dma() {
                        assert!(done.id <= accesses);
                        assert!(
                            done.result.is_err()
                                || done.result.is_ok_and(|data| [0, 24].contains(&data.len()))
                        );
                    }
                }
            }
        }
    }
    connection.disconnect(&mut device);
    assert!(!device.connected && connection.dma().is_empty() && !connection.is_negotiated());
    out
}

/// A client's stream: only what was negotiated reaches the device, only inside its regions; the replies are whole messages; and
/// it makes no difference in which pieces the stream arrives.
pub fn vfio_user_connection(bytes: &[u8]) {
    let out = converse(bytes, usize::MAX, false);
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        let header = Header::parse(rest).unwrap();
        assert!(matches!(header.message_type(), MessageType::Command | MessageType::Reply));
        let size = header.message_size.get() as usize;
        assert!((HEADER_SIZE..=rest.len()).contains(&size), "a message that is not whole");
        rest = &rest[size..];
    }
    assert!(out == converse(bytes, 7, false), "the pieces made a difference");
    converse(bytes, 64, true);
}
