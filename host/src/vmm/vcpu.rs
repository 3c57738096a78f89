//! The VM's processor, on a thread of its own as in every VMM, and the few instructions that its guest consists of.
//!
//! The guest asks for an address, loads from there and says what it got. While it asks it is idle; where nothing is mapped it faults,
//! and stays in the fault until somebody resolves it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::kvm::{Machine, Slot, failed};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::transport::PAGE;

/// Where the program lies.
const PROGRAM_AT: u32 = 0x1000;

/// 32-bit code, flat. Ports instead of interrupts: each access to one is an exit to the VMM.
const PROGRAM: [u8; 20] = [
    0xe5, ADDRESS, // next: in eax, ADDRESS
    0x89, 0xc3, // mov ebx, eax
    0xe5, STORES, // in eax, STORES
    0x85, 0xc0, // test eax, eax
    0x74, 0x04, // jz load
    0xe5, VALUE, // in eax, VALUE
    0x89, 0x03, // mov [ebx], eax
    0x8b, 0x03, // load: mov eax, [ebx]
    0xe7, RESULT, // out RESULT, eax
    0xeb, 0xec, // jmp next
];
const ADDRESS: u8 = 0x10;
const STORES: u8 = 0x14;
const VALUE: u8 = 0x18;
const RESULT: u8 = 0x1c;

/// An access takes microseconds, and many times that where everything is emulated.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The load's result.
    Value(u32),
    /// There was nothing at this guest-physical address; the processor waits in its fault.
    Fault(u64),
}

/// What the processor is told.
enum Order {
    Access {
        address: u32,
        store: Option<u32>,
    },
    /// Leave the fault.
    Resume,
}

/// A running processor. It ends with its owner, whatever it waits for.
pub(super) struct Vcpu {
    // Dropped first: that is what ends the thread.
    orders: Option<Sender<Order>>,
    events: Receiver<Result<Seen>>,
    thread: Option<JoinHandle<()>>,
    stuck: Cell<bool>,
    _program: Slot,
}

impl Vcpu {
    /// Starts the processor; it is idle.
    pub(super) fn start(machine: &Machine) -> Result<Self> {
        let memory = Rc::new(Mapping::anonymous(PAGE)?);
        memory.write(0, &PROGRAM)?;
        let program = machine.map(PROGRAM_AT.into(), PAGE as u64, &memory, 0)?;
        let mut vcpu = machine.processor()?;
        enter(&vcpu)?;
        let (orders, to_obey) = mpsc::channel();
        let (to_tell, events) = mpsc::channel();
        let run = move || {
            if let Err(error) = serve(&mut vcpu, &to_obey, &to_tell) {
                // Nobody waits for it if the owner has gone.
                let _ = to_tell.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("vcpu0".into()).spawn(run);
        let thread = thread.map_err(Error::io("the processor's thread"))?;
        Ok(Self {
            orders: Some(orders),
            events,
            thread: Some(thread),
            stuck: Cell::new(false),
            _program: program,
        })
    }

    /// Has the guest load 32 bits.
    pub(super) fn load(&self, gpa: u64) -> Result<Seen> {
        self.order(Order::Access { address: low(gpa)?, store: None })
    }

    /// Has it store 32 bits, and load them.
    pub(super) fn store(&self, gpa: u64, value: u32) -> Result<Seen> {
        self.order(Order::Access { address: low(gpa)?, store: Some(value) })
    }

    /// Ends a fault. A VMM of a confidential guest would just enter it again, and the instruction be executed again; KVM wants an
    /// answer for emulated MMIO, so it gets ones, and the guest does it all once more.
    pub(super) fn resume(&self) -> Result<Seen> {
        self.order(Order::Resume)
    }

    fn order(&self, order: Order) -> Result<Seen> {
        let gone = || Error::NoDevice("the processor has stopped".into());
        self.orders.as_ref().and_then(|orders| orders.send(order).ok()).ok_or_else(gone)?;
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.set(true);
                Err(Error::TimedOut { what: "the processor".into(), after: PATIENCE })
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.orders = None;
        // One that does not come out of the guest does not hear of it; it goes with the process.
        if !self.stuck.get()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::debug!("the processor's thread panicked");
        }
    }
}

fn low(gpa: u64) -> Result<u32> {
    u32::try_from(gpa).map_err(|_| Error::Usage(format!("{gpa:#x} is beyond the guest's 4 GiB")))
}

/// Runs the guest until its owner is gone.
fn serve(vcpu: &mut VcpuFd, orders: &Receiver<Order>, events: &Sender<Result<Seen>>) -> Result<()> {
    let (mut address, mut store) = (0, None);
    let mut faulted = false;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) if port == u16::from(ADDRESS) => {
                // After a fault the guest does it again.
                if !std::mem::take(&mut faulted) {
                    (address, store) = loop {
                        match orders.recv() {
                            Ok(Order::Access { address, store }) => break (address, store),
                            Ok(Order::Resume) => {
                                let idle = Error::Usage("the processor is in no fault".into());
                                let _ = events.send(Err(idle));
                            }
                            Err(_) => return Ok(()),
                        }
                    };
                }
                answer(data, address);
            }
            Ok(VcpuExit::IoIn(port, data)) if port == u16::from(STORES) => {
                answer(data, store.is_some().into());
            }
            Ok(VcpuExit::IoIn(port, data)) if port == u16::from(VALUE) => {
                answer(data, store.unwrap_or_default());
            }
            Ok(VcpuExit::IoOut(port, data)) if port == u16::from(RESULT) => {
                let value = data.try_into().map(u32::from_le_bytes);
                let value = value.map_err(|_| Error::Protocol("the guest says something else".into()))?;
                if !faulted && events.send(Ok(Seen::Value(value))).is_err() {
                    return Ok(());
                }
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                faulted = true;
                data.fill(0xff);
                if !wait_in_fault(gpa, orders, events) {
                    return Ok(());
                }
            }
            Ok(VcpuExit::MmioWrite(gpa, _)) => {
                faulted = true;
                if !wait_in_fault(gpa, orders, events) {
                    return Ok(());
                }
            }
            Ok(other) => return Err(Error::Protocol(format!("the guest leaves with {other:?}"))),
            Err(error) if error.errno() == nix::libc::EINTR => {}
            Err(error) => return Err(failed("KVM_RUN")(error)),
        }
    }
}

/// Tells of a fault and stays in it until told to leave; whether the owner is still there.
fn wait_in_fault(gpa: u64, orders: &Receiver<Order>, events: &Sender<Result<Seen>>) -> bool {
    let mut event = Ok(Seen::Fault(gpa));
    loop {
        if events.send(event).is_err() {
            return false;
        }
        match orders.recv() {
            Ok(Order::Resume) => return true,
            Ok(Order::Access { .. }) => event = Err(Error::Usage("the processor is in a fault".into())),
            Err(_) => return false,
        }
    }
}

fn answer(data: &mut [u8], value: u32) {
    for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
}

/// 32-bit protected mode without paging, at the program's first instruction.
#[cfg(target_arch = "x86_64")]
fn enter(vcpu: &VcpuFd) -> Result<()> {
    use kvm_bindings::{kvm_regs, kvm_segment};

    /// CR0: protection.
    const PE: u64 = 1;
    let flat = |selector, code| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        // Accessed; writable data, or readable code.
        type_: if code { 0xb } else { 0x3 },
        present: 1,
        // 32-bit code and stack, the limit in pages, no system segment.
        db: 1,
        g: 1,
        s: 1,
        ..Default::default()
    };
    let mut special = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    special.cr0 |= PE;
    special.cs = flat(0x8, true);
    for segment in [&mut special.ds, &mut special.es, &mut special.ss] {
        *segment = flat(0x10, false);
    }
    vcpu.set_sregs(&special).map_err(failed("KVM_SET_SREGS"))?;
    let general = kvm_regs { rip: PROGRAM_AT.into(), rflags: 2, ..Default::default() };
    vcpu.set_regs(&general).map_err(failed("KVM_SET_REGS"))
}

/// The guest's program is one for x86.
#[cfg(not(target_arch = "x86_64"))]
fn enter(_: &VcpuFd) -> Result<()> {
    Err(Error::Usage("the guest's program is for x86-64 only".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_where_they_should() {
        let target = |at: usize| (at + 2).wrapping_add_signed(isize::from(PROGRAM[at + 1].cast_signed()));
        assert_eq!((PROGRAM[8], target(8)), (0x74, 14), "jz to the load");
        assert_eq!(PROGRAM[14..16], [0x8b, 0x03]);
        assert_eq!((PROGRAM[18], target(18)), (0xeb, 0), "and from the beginning");
    }
}
