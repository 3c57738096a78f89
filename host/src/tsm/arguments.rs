//! The command line of `tdispctl tsm`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{IdeOrder, LockArgs, number};
use crate::pci::Bdf;

const EXAMPLES: &str = "\
A stock kernel (7.3) and the module of host/kmod, as root:
  insmod tdispd_tsm.ko
  tdispctl tsm serve --root-cert root.der &
  echo tsm0 > /sys/bus/pci/devices/0000:01:00.0/tsm/connect      # SPDM session, keys, stream
  cat /sys/bus/pci/devices/0000:01:00.0/authenticated            # tsm0
  printf 'bind\\nreport\\nstart\\nstate\\nunbind\\n' | tdispctl tsm vm 0000:01:00.0
  echo tsm0 > /sys/bus/pci/devices/0000:01:00.0/tsm/disconnect   # the session ends

What the kernel asks for, and what it comes to:
  connect      certificates and measurements by the options of trust, SPDM session, six IDE keys in use
  bind         LOCK_INTERFACE
  guest        state and report, as they are; START_INTERFACE, if the request may change state
  unbind       STOP_INTERFACE
  disconnect   STOP_INTERFACE for what is still bound, END_SESSION

Lines for vm, of which the end unbinds, too:
  bind [FILE in place of the VM, to see it refused], state, report [BYTES of room for it], start, unbind, quit

What echo and vm get when it does not work:
  EKEYREJECTED  a signature, chain or digest         ENODEV     no session: connect (again)
  EPERM         refused by the device, or a check    ETIMEDOUT  no answer in time
  EPROTO        the device broke a rule              ENOTCONN   nobody serves, or nothing is bound";

/// Be the firmware of a TSM whose other half is a kernel module, or a VM that binds a function.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum TsmCommand {
    /// Carry out what the kernel's PCI/TSM core asks for, until killed
    #[command(after_help = EXAMPLES)]
    Serve(ServeArgs),
    /// Make a VM of KVM's, and carry out the lines of standard input for it: bind, state, report, start, unbind
    #[command(after_help = EXAMPLES)]
    Vm(VmArgs),
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The module's character device
    #[arg(long, value_name = "PATH", default_value = "/dev/tdispd-tsm")]
    pub file: PathBuf,
    /// When an IDE stream is enabled that the kernel has not set up: after its keys, or before them
    #[arg(long, value_enum, default_value_t = IdeOrder::KeysFirst)]
    pub ide_order: IdeOrder,
    /// MMIO_REPORTING_OFFSET of every LOCK: bytes added to reported addresses
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = number::<u64>)]
    pub mmio_offset: u64,
    /// Flags of every LOCK (bit 0 no firmware update, 1 cache line 128 B, 2 lock MSI-X, 3 P2P, 4 redirect)
    #[arg(long, value_name = "BITS", default_value = "0", value_parser = number::<u16>)]
    pub lock_flags: u16,
}

impl ServeArgs {
    /// The same for one function.
    pub(super) fn lock(&self, function_id: u32) -> LockArgs {
        LockArgs {
            ide_order: self.ide_order,
            stream_id: None,
            function_id: Some(function_id),
            mmio_offset: self.mmio_offset,
            lock_flags: self.lock_flags,
        }
    }
}

/// Which function the VM is for.
#[derive(Debug, Clone, Args)]
pub struct VmArgs {
    /// The function, e.g. 0000:01:00.0
    pub function: Bdf,
    /// The module's character device
    #[arg(long, value_name = "PATH", default_value = "/dev/tdispd-tsm")]
    pub file: PathBuf,
    /// The VM's name for the function, which the kernel passes on (default: its requester id)
    #[arg(long, value_name = "ID", value_parser = number::<u32>)]
    pub tdi_id: Option<u32>,
}
