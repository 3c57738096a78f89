//! One request: a chain of descriptors, from its header to its status byte (virtio 1.2 §5.2.6).

use std::io;
use std::ops::Deref;

use virtio_bindings::virtio_blk as abi;
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

use crate::backing::Bounce;
use crate::config::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::iovec::Piece;
use crate::{Disk, SECTOR, SEG_MAX, SIZE_MAX};

/// `struct virtio_blk_req` before its data: type, reserved, sector.
const HEADER: usize = 16;

/// Bytes of one segment of DISCARD or WRITE_ZEROES.
const RANGE: usize = 16;

/// Most data bytes in a request: what `seg_max` and `size_max` allow.
const MAX_DATA: u64 = SEG_MAX as u64 * SIZE_MAX as u64;

/// Most descriptors of a chain. A header may lie in as many pieces as it has bytes.
const MAX_DESCRIPTORS: usize = SEG_MAX as usize + HEADER + 16;

/// Bytes that go through a bounce buffer at once.
const BOUNCE: usize = 1 << 20;

/// A stretch of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    length: u32,
}

/// What taking requests apart needs, kept from one to the next so that none of them allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Data of the request, without header and status.
    data: Vec<Segment>,
    writable: Vec<Segment>,
    /// The data in our address space, once it was looked for.
    pub(crate) pieces: Vec<Piece>,
}

/// The status byte (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Ok = abi::VIRTIO_BLK_S_OK as u8,
    IoError = abi::VIRTIO_BLK_S_IOERR as u8,
    Unsupported = abi::VIRTIO_BLK_S_UNSUPP as u8,
}

/// Why a request fails.
enum Failure {
    /// It makes no sense, or the host failed: the status is the same.
    IoError,
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::IoError
    }
}

/// What a request's header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Other,
}

impl Kind {
    fn new(code: u32) -> Self {
        match code {
            abi::VIRTIO_BLK_T_IN => Self::Read,
            abi::VIRTIO_BLK_T_OUT => Self::Write,
            abi::VIRTIO_BLK_T_FLUSH => Self::Flush,
            abi::VIRTIO_BLK_T_GET_ID => Self::GetId,
            abi::VIRTIO_BLK_T_DISCARD => Self::Discard,
            abi::VIRTIO_BLK_T_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Other,
        }
    }
}

/// A chain that was taken apart; its data segments are in the [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    sector: u64,
    /// Data bytes.
    pub(crate) bytes: u64,
    status: GuestAddress,
    /// Writable bytes, status included.
    writable: u32,
}

/// What a chain is.
pub(crate) enum Chain {
    /// A request.
    Request(Request),
    /// No request, but with room for a status byte, here.
    Malformed(GuestAddress, u32),
    /// Nothing that could be answered.
    Hopeless,
}

/// Carries out one request, and returns how many bytes of the chain were written: the used length (virtio 1.2 §2.7.8).
///
/// Nothing that a guest puts into a chain makes this fail. A chain without room for a status byte is used with length 0. With a
/// status, all writable bytes count as written, for the status is the last of them.
pub fn process<M>(disk: &Disk, chain: DescriptorChain<M>, memory: &M::Target, scratch: &mut Scratch) -> u32
where
    M: Deref,
    M::Target: GuestMemory + Sized,
{
    carry_out(disk, chain, memory, scratch)
}

/// Carries out one request from its descriptors, and returns the used length.
pub(crate) fn carry_out<M: GuestMemory>(
    disk: &Disk,
    chain: impl Iterator<Item = Descriptor>,
    memory: &M,
    scratch: &mut Scratch,
) -> u32 {
    match parse(chain, memory, scratch) {
        Chain::Request(request) => {
            let status = execute(disk, &request, memory, scratch);
            finish(&request, memory, status)
        }
        Chain::Malformed(at, used) => fail(memory, at, used),
        Chain::Hopeless => 0,
    }
}

/// Fails one request without looking at its data.
pub(crate) fn refuse<M: GuestMemory>(
    chain: impl Iterator<Item = Descriptor>,
    memory: &M,
    scratch: &mut Scratch,
) -> u32 {
    match parse(chain, memory, scratch) {
        Chain::Request(request) => finish(&request, memory, Status::IoError),
        Chain::Malformed(at, used) => fail(memory, at, used),
        Chain::Hopeless => 0,
    }
}

/// Writes the status byte and returns the used length.
pub(crate) fn finish<M: GuestMemory>(request: &Request, memory: &M, status: Status) -> u32 {
    answer(memory, request.status, request.writable, status)
}

/// Fails a chain that is no request.
pub(crate) fn fail<M: GuestMemory>(memory: &M, at: GuestAddress, used: u32) -> u32 {
    answer(memory, at, used, Status::IoError)
}

fn answer<M: GuestMemory>(memory: &M, at: GuestAddress, used: u32, status: Status) -> u32 {
    match memory.write_obj(status as u8, at) {
        Ok(()) => used,
        // Not the guest's memory at all: there is nowhere to say so.
        Err(_) => 0,
    }
}

/// Takes a chain apart: a header of 16 bytes, data of one direction, and the status byte at the very end, however they are
/// spread over descriptors (virtio 1.2 §2.7.4.2: whatever the device reads comes first).
pub(crate) fn parse<M: GuestMemory>(
    chain: impl Iterator<Item = Descriptor>,
    memory: &M,
    scratch: &mut Scratch,
) -> Chain {
    let Scratch { data, writable, .. } = scratch;
    data.clear();
    writable.clear();
    let mut sound = true;
    let mut unfinished = false;
    let mut total: u64 = 0;
    for descriptor in chain {
        unfinished = descriptor.has_next();
        if data.len() + writable.len() >= MAX_DESCRIPTORS {
            sound = false;
            break;
        }
        total += u64::from(descriptor.len());
        let segment = Segment { address: descriptor.addr(), length: descriptor.len() };
        if descriptor.is_write_only() {
            writable.push(segment);
        } else {
            sound &= writable.is_empty();
            data.push(segment);
        }
    }
    // The iterator ends where an index, an indirect table or the total length makes no sense, as if the chain ended there.
    sound &= !unfinished && total <= MAX_DATA + (HEADER + 1) as u64;
    let writable_bytes = writable.iter().fold(0u32, |sum, segment| sum.saturating_add(segment.length));
    // Empty descriptors at the end hold no status byte.
    while writable.pop_if(|last| last.length == 0).is_some() {}
    let Some(last) = writable.last_mut() else { return Chain::Hopeless };
    let Some(status) = last.address.checked_add(u64::from(last.length) - 1) else { return Chain::Hopeless };
    last.length -= 1;
    if !sound {
        return Chain::Malformed(status, writable_bytes);
    }
    let Some(header) = take_header(data, memory) else { return Chain::Malformed(status, writable_bytes) };
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    let kind = Kind::new(u32::from_le_bytes([a, b, c, d]));
    let readable_bytes = data.iter().fold(0u64, |sum, segment| sum + u64::from(segment.length));
    let bytes = match kind {
        Kind::Read | Kind::GetId => {
            std::mem::swap(data, writable);
            // A read has nothing to read beside its header.
            sound &= readable_bytes == 0;
            u64::from(writable_bytes) - 1
        }
        Kind::Write | Kind::Flush | Kind::Discard | Kind::WriteZeroes => {
            sound &= writable_bytes == 1;
            readable_bytes
        }
        Kind::Other => 0,
    };
    if !sound {
        return Chain::Malformed(status, writable_bytes);
    }
    let sector = u64::from_le_bytes(sector);
    Chain::Request(Request { kind, sector, bytes, status, writable: writable_bytes })
}

/// Reads the header and leaves what is behind it.
fn take_header<M: GuestMemory>(data: &mut Vec<Segment>, memory: &M) -> Option<[u8; HEADER]> {
    let mut header = [0; HEADER];
    let mut missing = header.as_mut_slice();
    let mut whole = 0;
    for segment in data.iter_mut() {
        if missing.is_empty() {
            break;
        }
        let now = missing.len().min(segment.length as usize);
        let (here, later) = missing.split_at_mut_checked(now)?;
        memory.read_slice(here, segment.address).ok()?;
        missing = later;
        segment.address = segment.address.checked_add(now as u64)?;
        segment.length -= u32::try_from(now).ok()?;
        if segment.length == 0 {
            whole += 1;
        }
    }
    if !missing.is_empty() {
        return None;
    }
    data.drain(..whole.min(data.len()));
    Some(header)
}

/// Carries a request out on this thread.
pub(crate) fn execute<M: GuestMemory>(
    disk: &Disk,
    request: &Request,
    memory: &M,
    scratch: &mut Scratch,
) -> Status {
    match perform(disk, request, memory, scratch) {
        Ok(()) => Status::Ok,
        Err(Failure::IoError) => Status::IoError,
        Err(Failure::Unsupported) => Status::Unsupported,
    }
}

fn perform<M: GuestMemory>(
    disk: &Disk,
    request: &Request,
    memory: &M,
    scratch: &mut Scratch,
) -> Result<(), Failure> {
    let backing = disk.backing();
    match request.kind {
        Kind::Read | Kind::Write => {
            let write = request.kind == Kind::Write;
            let offset = place(disk, request)?;
            if !pieces(memory, scratch, write) {
                return Err(Failure::IoError);
            }
            if backing.misaligned(&scratch.pieces) {
                return bounce(disk, &scratch.data, memory, offset, write);
            }
            if write {
                backing.write_pieces(&mut scratch.pieces, offset, disk.write_through())?;
            } else {
                backing.read_pieces(&mut scratch.pieces, offset)?;
            }
            Ok(())
        }
        Kind::Flush => Ok(backing.flush()?),
        Kind::GetId => get_id(disk, &scratch.data, memory),
        Kind::Discard | Kind::WriteZeroes => ranges(disk, request, memory, &scratch.data),
        Kind::Other => Err(Failure::Unsupported),
    }
}

/// Where in the file a read or write begins, if all of it is on the disk and may be done.
pub(crate) fn place(disk: &Disk, request: &Request) -> Result<u64, NotThere> {
    if request.kind == Kind::Write && disk.backing().read_only() {
        return Err(NotThere);
    }
    let whole = request.bytes.is_multiple_of(SECTOR) && request.bytes <= MAX_DATA;
    let offset = request.sector.checked_mul(SECTOR).filter(|_| whole).ok_or(NotThere)?;
    let end = offset.checked_add(request.bytes).ok_or(NotThere)?;
    if end > disk.size() { Err(NotThere) } else { Ok(offset) }
}

/// A read or write that is not on the disk.
#[derive(Debug)]
pub(crate) struct NotThere;

impl From<NotThere> for Failure {
    fn from(_: NotThere) -> Self {
        Self::IoError
    }
}

/// Finds the data segments in guest memory. False: some of it is not there. They are good as long as `memory` is.
pub(crate) fn pieces<M: GuestMemory>(memory: &M, scratch: &mut Scratch, from_guest: bool) -> bool {
    let access = if from_guest { Permissions::Read } else { Permissions::Write };
    scratch.pieces.clear();
    for segment in &scratch.data {
        let Ok(slices) = memory.get_slices(segment.address, segment.length as usize, access) else {
            return false;
        };
        for slice in slices {
            let Ok(slice) = slice else { return false };
            scratch.pieces.push(Piece::new(&slice));
        }
    }
    true
}

/// A read or write through memory of our own, for direct I/O on guest memory that is not aligned.
fn bounce<M: GuestMemory>(
    disk: &Disk,
    data: &[Segment],
    memory: &M,
    mut offset: u64,
    write: bool,
) -> Result<(), Failure> {
    let backing = disk.backing();
    let mut left = data.iter().fold(0u64, |sum, segment| sum + u64::from(segment.length));
    let mut buffer = Bounce::new(BOUNCE, backing.direct());
    let mut cursor = Cursor::new(data);
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(BOUNCE).min(BOUNCE);
        let piece = buffer.bytes_mut().get_mut(..now).ok_or(Failure::IoError)?;
        if write {
            cursor.each(piece, |at, bytes| memory.read_slice(bytes, at).ok())?;
            backing.write(offset, piece)?;
        } else {
            backing.read(offset, piece)?;
            cursor.each(piece, |at, bytes| memory.write_slice(bytes, at).ok())?;
        }
        offset = offset.saturating_add(now as u64);
        left -= now as u64;
    }
    if write && disk.write_through() {
        backing.flush()?;
    }
    Ok(())
}

/// A place in a list of segments.
struct Cursor<'a> {
    rest: &'a [Segment],
    /// Bytes of the first one that are done.
    done: u32,
}

impl<'a> Cursor<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        Self { rest: segments, done: 0 }
    }

    /// Goes through as many bytes of the segments as `buffer` has, with the part of it that belongs to each.
    fn each(
        &mut self,
        mut buffer: &mut [u8],
        mut access: impl FnMut(GuestAddress, &mut [u8]) -> Option<()>,
    ) -> Result<(), Failure> {
        while !buffer.is_empty() {
            let (first, rest) = self.rest.split_first().ok_or(Failure::IoError)?;
            let left = first.length.saturating_sub(self.done);
            if left == 0 {
                (self.rest, self.done) = (rest, 0);
                continue;
            }
            let now = buffer.len().min(left as usize);
            let (here, later) = buffer.split_at_mut_checked(now).ok_or(Failure::IoError)?;
            let at = first.address.checked_add(u64::from(self.done)).ok_or(Failure::IoError)?;
            access(at, here).ok_or(Failure::IoError)?;
            self.done = self.done.saturating_add(u32::try_from(now).map_err(|_| Failure::IoError)?);
            buffer = later;
        }
        Ok(())
    }
}

/// GET_ID: 20 bytes, padded with zeroes (virtio 1.2 §5.2.6). A shorter buffer gets what it has room for.
fn get_id<M: GuestMemory>(disk: &Disk, data: &[Segment], memory: &M) -> Result<(), Failure> {
    let mut id = [0u8; abi::VIRTIO_BLK_ID_BYTES as usize];
    for (to, from) in id.iter_mut().zip(disk.geometry().serial.bytes()) {
        *to = from;
    }
    let room = data.iter().fold(0u64, |sum, segment| sum + u64::from(segment.length));
    let room = usize::try_from(room).unwrap_or(id.len()).min(id.len());
    let id = id.get_mut(..room).ok_or(Failure::IoError)?;
    Cursor::new(data).each(id, |at, bytes| memory.write_slice(bytes, at).ok())
}

/// DISCARD and WRITE_ZEROES (virtio 1.2 §5.2.6, `struct virtio_blk_discard_write_zeroes`). All segments are checked before
/// the first is done.
fn ranges<M: GuestMemory>(
    disk: &Disk,
    request: &Request,
    memory: &M,
    data: &[Segment],
) -> Result<(), Failure> {
    let zeroes = request.kind == Kind::WriteZeroes;
    let feature = if zeroes { abi::VIRTIO_BLK_F_WRITE_ZEROES } else { abi::VIRTIO_BLK_F_DISCARD };
    if !disk.negotiated(feature) {
        return Err(Failure::Unsupported);
    }
    let count = usize::try_from(request.bytes).map_err(|_| Failure::IoError)?;
    if count == 0 || !count.is_multiple_of(RANGE) || count / RANGE > MAX_RANGES as usize {
        return Err(Failure::IoError);
    }
    let mut raw = [0u8; RANGE * MAX_RANGES as usize];
    let raw = raw.get_mut(..count).ok_or(Failure::IoError)?;
    Cursor::new(data).each(raw, |at, bytes| memory.read_slice(bytes, at).ok())?;
    let (raw, _) = raw.as_chunks::<RANGE>();
    for range in raw {
        let (offset, length, unmap) = range_of(range, zeroes)?;
        if offset.checked_add(length).is_none_or(|end| end > disk.size()) {
            return Err(Failure::IoError);
        }
        if unmap && !disk.geometry().discard {
            return Err(Failure::Unsupported);
        }
    }
    for range in raw {
        let (offset, length, unmap) = range_of(range, zeroes)?;
        if zeroes {
            disk.backing().write_zeroes(offset, length, unmap)?;
        } else {
            disk.backing().discard(offset, length)?;
        }
    }
    if zeroes && disk.write_through() {
        disk.backing().flush()?;
    }
    Ok(())
}

/// Offset and length in bytes, and the unmap flag.
fn range_of(raw: &[u8; RANGE], zeroes: bool) -> Result<(u64, u64, bool), Failure> {
    let [sector @ .., a, b, c, d, e, f, g, h] = raw;
    let count = u32::from_le_bytes([*a, *b, *c, *d]);
    let flags = u32::from_le_bytes([*e, *f, *g, *h]);
    // Unknown flags, and unmap in a DISCARD, are UNSUPP (virtio 1.2 §5.2.6.2).
    if flags & !u32::from(zeroes) != 0 {
        return Err(Failure::Unsupported);
    }
    if count > MAX_RANGE_SECTORS {
        return Err(Failure::IoError);
    }
    let offset = u64::from_le_bytes(*sector).checked_mul(SECTOR).ok_or(Failure::IoError)?;
    Ok((offset, u64::from(count) * SECTOR, flags & 1 == 1))
}
