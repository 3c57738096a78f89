//! The command line of `tdispctl vmm`, and what each architecture asks of a VMM.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::number;
use crate::pci::Bdf;
use crate::pci::bars::Half;

/// Long help: what happens, in which order.
pub(crate) const HELP: &str = "\
What a VMM does with a function that its guest wants to use as a TDI, each step checked. As root,
where the kernel has the PCI/TSM core (host/kmod), vfio-pci with an IOMMU, and KVM:
  modprobe vfio-pci; modprobe vfio_iommu_type1; insmod tdispd_tsm.ko; tdispctl tsm serve &
  cd /sys/bus/pci/devices/0000:01:00.0; echo tsm0 > tsm/connect
  echo vfio-pci > driver_override; echo 0000:01:00.0 > /sys/bus/pci/drivers_probe
  tdispctl vmm 0000:01:00.0 --arch cca --alias high

  1 vfio opens the device; all of its BARs are shared: a DMABUF (T = 0) and a memory slot for each
  2 the architecture's turn: what is unmapped before LOCK, and what the processor does meanwhile
  3 bind to this VM: CONFIG_LOCKED, and with it the interface report
  4 the report becomes the layout of the guest's address space: address, size, side
  5 DMABUFs and slots anew by the layout: shared pages with T = 0, private ones with T = 1
  6 START: RUN. The processor comes out of its fault, and works with both sides
  7 what is left of the shared mappings of private pages
  8 back: slots of private pages go, unbind, everything is shared and zeroed

--arch  before LOCK           after LOCK             what touches a private page with T = 0
  tdx   everything unmapped   shared pages mapped    a machine check; before RUN a strict device
                                                     takes it to ERROR
  cca   mapped, vCPU idle     slots replaced         reads ones; the old DMABUF is dead
  sev   mapped, vCPU idle     slots replaced         reads ones; the old DMABUF is good again
                                                     after the unbind

The guest is a few instructions on one real processor. It loads from memory that is away, and waits in
its fault from then on until RUN. T is one bit of the address (--alias, for a device with
[mmio] tee = \"alias\"); without --alias, for \"implicit\", both sides have the same addresses, and in RUN
everything counts as the guest's.

With --violate, a shared mapping is kept where it must not be, and touched in CONFIG_LOCKED; the walk
ends there, with what became of the interface.";

/// An architecture for confidential guests, as far as it concerns mappings of MMIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// Intel TDX: nothing may be mapped that turns private.
    Tdx,
    /// Arm CCA: old mappings are dead.
    Cca,
    /// AMD SEV-SNP: old mappings are refused while pages are private.
    Sev,
}

impl Arch {
    /// Whether shared mappings go before LOCK. Which pages turn private nobody knows before: all of them.
    pub(super) fn unmaps_first(self) -> bool {
        matches!(self, Self::Tdx)
    }

    /// Whether they are good again when the pages are shared again.
    pub(super) fn mapping_comes_back(self) -> bool {
        matches!(self, Self::Sev)
    }
}

/// `tdispctl vmm`
#[derive(Debug, Clone, Args)]
pub struct VmmArgs {
    /// The function, which vfio-pci holds and the kernel has connected, e.g. 0000:01:00.0
    pub function: Bdf,
    /// Whose rules to follow
    #[arg(long, value_enum, default_value_t = Arch::Cca)]
    pub arch: Arch,
    /// T is a bit of the address: this half of each BAR is T = 1
    #[arg(long, value_enum, value_name = "HALF")]
    pub alias: Option<Half>,
    /// The module's character device
    #[arg(long, value_name = "PATH", default_value = "/dev/tdispd-tsm")]
    pub file: PathBuf,
    /// MMIO_REPORTING_OFFSET of `tsm serve`
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = number::<u64>)]
    pub mmio_offset: u64,
    /// Have QEMU's edu device import every DMABUF, peer to peer (tests/vfio-export/importer)
    #[arg(long)]
    pub import: bool,
    /// Keep a shared mapping of a private page, touch it in CONFIG_LOCKED, and tell what became of the interface
    #[arg(long)]
    pub violate: bool,
    /// In RUN, wait for a line of standard input before the way back
    #[arg(long, conflicts_with = "violate")]
    pub hold: bool,
}
