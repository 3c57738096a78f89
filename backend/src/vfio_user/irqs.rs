//! Interrupts of one function: eventfds a client armed, masks, and the level of the interrupt pin.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ReadWriteFlags;
use tdispd_proto::vfio_user::{IrqAction, IrqData, IrqKind, IrqSet};

use super::device::Errno;

/// One interrupt.
#[derive(Debug, Default)]
struct Vector {
    trigger: Option<OwnedFd>,
    masked: bool,
    /// Raised while masked. The pin has a level instead.
    pending: bool,
}

/// All interrupts of one function.
#[derive(Debug, Default)]
pub struct Irqs {
    vectors: [Vec<Vector>; IrqKind::ALL.len()],
    /// KVM writes to it when the guest acknowledges a level interrupt.
    intx_unmask: Option<Arc<OwnedFd>>,
    intx_level: bool,
}

impl Irqs {
    /// Raises a message interrupt, or ERR or REQ. Without an eventfd nothing happens; while masked it is kept.
    pub fn trigger(&mut self, kind: IrqKind, vector: u16) {
        if let Some(vector) = self.of(kind).get_mut(usize::from(vector)) {
            if vector.masked {
                vector.pending = true;
            } else {
                vector.signal();
            }
        }
    }

    /// Asserts or deasserts the interrupt pin. An assertion signals once and masks itself until the client unmasks;
    /// if the pin is still asserted then, it signals again.
    pub fn set_intx_level(&mut self, asserted: bool) {
        self.intx_level = asserted;
        self.deliver_intx();
    }

    /// Whether a client armed this interrupt.
    #[must_use]
    pub fn is_armed(&self, kind: IrqKind, vector: u16) -> bool {
        self.vectors
            .get(kind.index() as usize)
            .and_then(|vectors| vectors.get(usize::from(vector)))
            .is_some_and(|vector| vector.trigger.is_some())
    }

    /// The descriptor that unmasks INTx when it becomes readable; to be watched by the event loop.
    pub(super) fn intx_unmask_fd(&self) -> Option<&Arc<OwnedFd>> {
        self.intx_unmask.as_ref()
    }

    /// Unmasks INTx if the descriptor of [`Self::intx_unmask_fd`] was signalled.
    pub(super) fn poll_intx_unmask(&mut self) {
        let Some(fd) = &self.intx_unmask else { return };
        // The descriptor may be a blocking one, and its counter is the client's to take back at any moment.
        let mut counter = [0; 8];
        let whole = &mut [IoSliceMut::new(&mut counter)];
        if rustix::io::preadv2(fd, whole, u64::MAX, ReadWriteFlags::NOWAIT) != Err(Errno::AGAIN) {
            self.unmask(IrqKind::Intx, 0);
        }
    }

    /// Forgets everything a client set up. The level of the pin is the device's and stays.
    pub(super) fn clear(&mut self) {
        *self = Self { intx_level: self.intx_level, ..Self::default() };
    }

    /// Does what a DEVICE_SET_IRQS asks for; `available` is the number of interrupts of its type.
    ///
    /// # Errors
    /// EINVAL for a range the type does not have, descriptors that do not match, or an action the type does not know.
    /// Nothing has changed then.
    pub(super) fn set(&mut self, set: &IrqSet<'_>, available: u32, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let end = set.start.checked_add(set.count).filter(|end| *end <= available).ok_or(Errno::INVAL)?;
        if set.data != IrqData::Eventfd && !fds.is_empty() {
            return Err(Errno::INVAL);
        }
        let maskable = !matches!(set.kind, IrqKind::Err | IrqKind::Req);
        if set.action != IrqAction::Trigger && !maskable {
            return Err(Errno::INVAL);
        }
        if set.count == 0 {
            self.of(set.kind).clear();
            if set.kind == IrqKind::Intx {
                self.intx_unmask = None;
            }
            return Ok(());
        }
        if set.data == IrqData::Eventfd {
            return self.set_eventfds(set, end, fds);
        }
        self.grow(set.kind, end);
        for (position, vector) in (set.start..end).enumerate() {
            let chosen = match set.data {
                IrqData::None | IrqData::Eventfd => true,
                IrqData::Bool(bytes) => bytes.get(position).is_some_and(|byte| *byte != 0),
            };
            let Some(slot) = self.of(set.kind).get_mut(vector as usize).filter(|_| chosen) else { continue };
            match set.action {
                IrqAction::Mask => slot.masked = true,
                IrqAction::Unmask => self.unmask(set.kind, vector),
                // The client asks to see its own interrupt: masks do not matter.
                IrqAction::Trigger => slot.signal(),
            }
        }
        Ok(())
    }

    fn set_eventfds(&mut self, set: &IrqSet<'_>, end: u32, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        if !(fds.is_empty() || fds.len() == set.count as usize) || !fds.iter().all(is_eventfd) {
            return Err(Errno::INVAL);
        }
        match set.action {
            IrqAction::Trigger => {
                self.grow(set.kind, end);
                let mut fds = fds.into_iter();
                for slot in self.of(set.kind).iter_mut().skip(set.start as usize).take(set.count as usize) {
                    slot.trigger = fds.next();
                }
                if set.kind == IrqKind::Intx {
                    self.deliver_intx();
                }
                Ok(())
            }
            // With KVM, QEMU lets the kernel acknowledge level interrupts through a descriptor of its own.
            IrqAction::Unmask if set.kind == IrqKind::Intx => {
                self.intx_unmask = fds.into_iter().next().map(Arc::new);
                Ok(())
            }
            IrqAction::Mask | IrqAction::Unmask => Err(Errno::INVAL),
        }
    }

    fn unmask(&mut self, kind: IrqKind, vector: u32) {
        if let Some(slot) = self.of(kind).get_mut(vector as usize) {
            slot.masked = false;
            if core::mem::take(&mut slot.pending) {
                slot.signal();
            }
        }
        if kind == IrqKind::Intx {
            self.deliver_intx();
        }
    }

    fn deliver_intx(&mut self) {
        let asserted = self.intx_level;
        if let Some(pin) = self.of(IrqKind::Intx).first_mut()
            && asserted
            && !pin.masked
            && pin.trigger.is_some()
        {
            pin.masked = true;
            pin.signal();
        }
    }

    fn of(&mut self, kind: IrqKind) -> &mut Vec<Vector> {
        let [intx, msi, msix, err, req] = &mut self.vectors;
        match kind {
            IrqKind::Intx => intx,
            IrqKind::Msi => msi,
            IrqKind::Msix => msix,
            IrqKind::Err => err,
            IrqKind::Req => req,
        }
    }

    /// `end` is at most the device's own count, so a client cannot make this large.
    fn grow(&mut self, kind: IrqKind, end: u32) {
        let vectors = self.of(kind);
        if vectors.len() < end as usize {
            vectors.resize_with(end as usize, Vector::default);
        }
    }
}

impl Vector {
    fn signal(&self) {
        if let Some(fd) = &self.trigger {
            // A descriptor whose counter is full would block us, and is signalled already.
            if is_ready(fd.as_fd(), PollFlags::OUT) {
                let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
            }
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().intersects(events))
}

/// The kernel refuses anything else, and so do we: writing to somebody's file is no interrupt.
fn is_eventfd(fd: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
        .is_ok_and(|target| target.to_bytes() == b"anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests;
