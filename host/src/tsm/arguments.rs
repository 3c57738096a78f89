//! The command line of `tdispctl tsm`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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

For a guest with an agent (tdispctl guest --help), whose VM is that of a machine's process:
  tdispctl tsm serve --guest-key key &
  tdispctl tsm relay 0000:01:00.0 --vm $(cat qemu.pid) --socket agent.sock
START is then the guest's alone, of just what it was told after LOCK. The key stands for the way between guest and TSM that the
host has no part in; there is no TEE here, so whoever is root on the host could read it.

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
    /// Bind a function to a machine's VM when its guest asks for that, and pass the guest's questions on
    #[command(after_help = EXAMPLES)]
    Relay(RelayArgs),
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
    /// Answer what guests ask under this key (32 bytes or more), and start only what they have judged
    #[arg(long, value_name = "FILE")]
    pub guest_key: Option<PathBuf>,
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

/// Whose guest asks, and where.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// The function, as the host has it, e.g. 0000:01:00.0
    pub function: Bdf,
    /// Process id of the machine, whose VM the function is bound to
    #[arg(long, value_name = "PID")]
    pub vm: u32,
    /// The socket behind the guest's port, on which the machine listens
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// The module's character device
    #[arg(long, value_name = "PATH", default_value = "/dev/tdispd-tsm")]
    pub file: PathBuf,
    /// The VM's name for the function, which the kernel passes on (default: its requester id)
    #[arg(long, value_name = "ID", value_parser = number::<u32>)]
    pub tdi_id: Option<u32>,
    /// Do what a host might try, to see it refused
    #[arg(long, value_enum, value_name = "HOW")]
    pub misbehave: Option<Misbehaviour>,
}

/// What a host might try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Misbehaviour {
    /// Answer every question for the report with the answer to the first.
    ReplayReport,
    /// Change a byte of every report.
    AlterReport,
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
