//! The VM: a real one of KVM's, whose memory is slots that come and go.

use std::cell::Cell;
use std::rc::Rc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::error::{Error, Result};
use crate::mapping::Mapping;

/// A VM without processors and memory. It needs neither to be one that a function can be bound to.
pub(crate) fn create_vm() -> Result<VmFd> {
    let kvm = Kvm::new().map_err(failed("/dev/kvm"))?;
    kvm.create_vm().map_err(failed("KVM_CREATE_VM"))
}

/// An error of KVM's, while doing `what`.
pub(super) fn failed(what: &str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |errno| Error::io(what)(errno.into())
}

/// A VM.
pub(super) struct Machine {
    vm: Rc<VmFd>,
    next: Cell<u32>,
}

impl Machine {
    /// One without anything in it.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { vm: Rc::new(create_vm()?), next: Cell::new(0) })
    }

    /// For whoever needs its descriptor.
    pub(super) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Its processor.
    pub(super) fn processor(&self) -> Result<VcpuFd> {
        self.vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))
    }

    /// Puts memory at a guest-physical address: `size` bytes of a mapping, from `offset` on.
    pub(super) fn map(&self, gpa: u64, size: u64, mapping: &Rc<Mapping>, offset: u64) -> Result<Slot> {
        let id = self.next.get();
        let address = mapping
            .holds(offset, size)
            .ok_or_else(|| Error::Usage(format!("{size:#x} bytes at {offset:#x} are not in the mapping")))?;
        let slot = Slot { vm: Rc::clone(&self.vm), id, gpa, _memory: Rc::clone(mapping), there: true };
        slot.set(size, address)?;
        self.next.set(id + 1);
        Ok(slot)
    }
}

/// Memory of the VM, until it is dropped.
pub(super) struct Slot {
    vm: Rc<VmFd>,
    id: u32,
    gpa: u64,
    /// What the guest reaches has to stay mapped here as long.
    _memory: Rc<Mapping>,
    there: bool,
}

impl Slot {
    /// Takes it away. When this returns, no processor reaches it any more: KVM has told all of them.
    pub(super) fn remove(mut self) -> Result<()> {
        self.there = false;
        self.set(0, 0)
    }

    fn set(&self, size: u64, address: u64) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: self.id,
            flags: 0,
            guest_phys_addr: self.gpa,
            memory_size: size,
            userspace_addr: address,
        };
        // SAFETY: with a size of 0 it takes a slot away. Otherwise the address is that of a mapping which the slot owns with others,
        // and which has that many bytes there; nobody in this program has references into a mapping.
        #[allow(unsafe_code)]
        let set = unsafe { self.vm.set_user_memory_region(region) };
        set.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.there
            && let Err(error) = self.set(0, 0)
        {
            log::debug!("taking a memory slot away: {error}");
        }
    }
}
