//! Guest memory as the kernel wants it for vectored I/O. Everything unsafe about reading a file straight into guest
//! memory is here.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Most pieces of memory in one call (`UIO_MAXIOV`).
pub(crate) const MAX_PIECES: usize = 1024;

/// A piece of guest memory: `struct iovec`, with the pointer as a number so that it can go to another thread. It says
/// nothing about how long the memory is there: who calls the functions below holds on to it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Piece {
    base: usize,
    length: usize,
}

const _: () = assert!(size_of::<Piece>() == size_of::<libc::iovec>());
const _: () = assert!(align_of::<Piece>() == align_of::<libc::iovec>());
const _: () = assert!(std::mem::offset_of!(Piece, length) == std::mem::offset_of!(libc::iovec, iov_len));

impl Piece {
    pub(crate) fn new<B: BitmapSlice>(slice: &VolatileSlice<'_, B>) -> Self {
        Self { base: slice.ptr_guard_mut().as_ptr().expose_provenance(), length: slice.len() }
    }

    /// Bytes.
    pub(crate) fn length(self) -> usize {
        self.length
    }

    /// Whether address and length are multiples of `alignment`, a power of two.
    pub(crate) fn aligned(self, alignment: usize) -> bool {
        (self.base | self.length) & alignment.saturating_sub(1) == 0
    }
}

/// What is left of `pieces` without their first `done` bytes.
pub(crate) fn advance(pieces: &mut [Piece], mut done: usize) -> &mut [Piece] {
    let mut gone = 0;
    for piece in pieces.iter_mut() {
        if done < piece.length {
            piece.base = piece.base.wrapping_add(done);
            piece.length -= done;
            break;
        }
        done -= piece.length;
        gone += 1;
    }
    pieces.get_mut(gone..).unwrap_or_default()
}

/// The pieces as the kernel takes them, at most [`MAX_PIECES`] of them.
fn raw(pieces: &[Piece]) -> (*const libc::iovec, libc::c_int) {
    let count = pieces.len().min(MAX_PIECES);
    (pieces.as_ptr().cast(), libc::c_int::try_from(count).unwrap_or(0))
}

fn outcome(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// `preadv2(2)` into guest memory; fewer bytes than asked for are a success. `cached`: only what takes no wait
/// (`RWF_NOWAIT`), EAGAIN if that is nothing.
///
/// The memory behind `pieces` has to be mapped: whoever calls holds the guest memory they were made from.
///
/// # Errors
/// The kernel's.
pub(crate) fn read_at(
    file: BorrowedFd<'_>,
    pieces: &mut [Piece],
    offset: u64,
    cached: bool,
) -> io::Result<usize> {
    let (vector, count) = raw(pieces);
    let offset = position(offset)?;
    let flags = if cached { libc::RWF_NOWAIT } else { 0 };
    // SAFETY: `vector` points to `count` valid iovecs, which are only read. What they point to is guest memory that the caller
    // keeps mapped; nobody in this process has a reference to it, for the guest writes it whenever it likes. If it is
    // mapped read-only or not at all, the kernel answers EFAULT.
    outcome(unsafe { libc::preadv2(file.as_raw_fd(), vector, count, offset, flags) })
}

/// `pwritev2(2)` from guest memory; fewer bytes than asked for are a success. `stable`: they are on stable storage when it
/// returns (`RWF_DSYNC`).
///
/// As for [`read_at`], the memory has to be mapped.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_at(
    file: BorrowedFd<'_>,
    pieces: &mut [Piece],
    offset: u64,
    stable: bool,
) -> io::Result<usize> {
    let (vector, count) = raw(pieces);
    let offset = position(offset)?;
    let flags = if stable { libc::RWF_DSYNC } else { 0 };
    // SAFETY: as in `read_at`; the kernel only reads what the iovecs point to.
    outcome(unsafe { libc::pwritev2(file.as_raw_fd(), vector, count, offset, flags) })
}
