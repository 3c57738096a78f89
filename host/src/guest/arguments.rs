//! The command line of `tdispctl guest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::pci::Bdf;

const EXAMPLES: &str = "\
In a guest that has the function, without a driver, as root:
  echo 0 > /sys/bus/pci/drivers_autoprobe                            # before it is plugged in
  tdispctl guest accept 0000:01:00.0 --key key --policy policy.toml  # LOCK, every check, START
  echo 0000:01:00.0 > /sys/bus/pci/drivers/virtio-pci/bind

On its host, for the guest's machine with this process id, and for the TSM:
  tdispctl tsm serve --guest-key key &
  tdispctl tsm relay 0000:01:00.0 --vm PID --socket /run/agent.sock &
where /run/agent.sock is the machine's end of the guest's port:
  -chardev socket,id=agent,path=/run/agent.sock,server=on,wait=off
  -device virtio-serial-pci -device virtserialport,chardev=agent,name=tdispd.guest

A policy (paths are relative to it):
  root = [\"vendor.pem\", \"sha384:5d0c...\"]   # the chain's root is one of these
  tee_half = \"high\"                         # mmio.tee = \"alias\": the half of each BAR with T = 1
  [[measurement]]
  index = 1
  value = [\"9af1...\"]                       # one of these, in hexadecimal
  [report]
  required = [\"no-fw-update\"]               # flags of INTERFACE_INFO; dma-with-pasid, ats, prs
  allowed = [\"dma-without-pasid\"]
  [[private]]                               # memory that has to be private, beside virtio's structures
  bar = 2
  size = 0x8000

Exit codes: 5 if what was told is not the TSM's or the device's word (HMAC, signature, chain), 6 if it is, and the policy or the
guest's own view refuses it, 3 if the host does not do its part; others as in tdispctl --help.";

/// Be the agent of a guest that has a function: have it locked, judge it, and only then start it.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum GuestCommand {
    /// Have the function locked, check certificates, measurements and report, and start it; or say why not, and give it back
    #[command(after_help = EXAMPLES)]
    Accept(AcceptArgs),
    /// Ask the TSM for the TDI's state; exit code 6 if it is not RUN
    State(GuestArgs),
    /// Have the function unlocked: it is no longer the guest's
    Release(GuestArgs),
}

/// How to reach the TSM.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// The key that guest and TSM share, 32 bytes or more
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The port to the host (default: the virtio-serial port with the name tdispd.guest)
    #[arg(long, value_name = "PATH")]
    pub port: Option<PathBuf>,
}

/// What to accept.
#[derive(Debug, Clone, Args)]
pub struct AcceptArgs {
    /// The function, as the guest has it, e.g. 0000:01:00.0
    pub function: Bdf,
    /// What the device has to be
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// How to reach the TSM.
    #[command(flatten)]
    pub guest: GuestArgs,
}
