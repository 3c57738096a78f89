//! The command line: what can be asked for, and the help that teaches it.
//!
//! Nothing here does anything; the shell parses its lines with the same [`Command`].

mod adjust;
mod credentials;
mod provision;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use spdm::wire::Version;

use crate::control::{DmabufArgs, ReportCommand, WatchArgs};
use crate::error::{Error, Result};
use crate::guest::GuestCommand;
use crate::pci::Bdf;
use crate::tsm::TsmCommand;
use crate::vmm::VmmArgs;

pub use adjust::{AttributeArgs, P2pCommand, Side, VdmArgs};
pub use credentials::{Credentials, Hint};
pub use provision::{BankCommand, CertificateCommand, CsrArgs, KeyPairArgs, KeyPairCommand, Model, Place};

const EXAMPLES: &str = "\
Examples:
  # Everything, against a device process, without QEMU
  tdispctl --vfio-user /run/tdispd/f0 run

  # In a guest: the only TDISP-capable device is found by itself
  tdispctl discover
  tdispctl identify
  tdispctl run --json > walk.jsonl

  # In a guest, step by step, one SPDM session across commands
  tdispctl --session /run/s lock
  tdispctl --session /run/s report
  tdispctl --session /run/s start
  tdispctl mmio read 2 0x0 16
  tdispctl --session /run/s stop

  # What a TVM may change while it runs, where the device offers it
  tdispctl --session /run/s lock --lock-flags 8
  tdispctl --session /run/s start
  tdispctl --session /run/s rekey
  tdispctl --session /run/s attribute 2 0x7c000 4 shared
  tdispctl --session /run/s p2p key 9
  tdispctl --session /run/s p2p bind 9
  tdispctl --session /run/s vdm 00cafe

  # An SPDM responder behind spdm-emu's socket
  tdispctl --tcp 127.0.0.1:2323 identify --root-cert root.der

  # A session from a pre-shared key, and one in which the host says who it is
  tdispctl --tcp 127.0.0.1:2323 run --psk-file psk --psk-hint 'TestPskHint\\0'
  tdispctl --tcp 127.0.0.1:2323 run --identity-chain host.pem --identity-key host.key

  # A certificate for the device, and into its slot 0
  tdispctl --tcp 127.0.0.1:2323 csr device.csr
  tdispctl --tcp 127.0.0.1:2323 certificate set 0 chain.pem

  # The same for a slot of another algorithm than the connection's, by SLOT_MANAGEMENT
  tdispctl --tcp 127.0.0.1:2323 csr --bank 1 device.csr
  tdispctl --tcp 127.0.0.1:2323 certificate set 1 chain.pem --bank 1

  # A device process from the side: what it is in, what happens, and a report that lies from the next LOCK on
  tdispctl --control /run/tdispd/control state
  tdispctl --control /run/tdispd/control watch --until-state RUN --timeout 60
  tdispctl --control /run/tdispd/control report set 0 report.json

  # What a VMM would map of BAR 2: a shared page before LOCK, and the same with a program of your own
  echo 'read 0x0 16' | tdispctl --control /run/tdispd/control dmabuf 0 2 shared 0x0:0x1000
  tdispctl --control /run/tdispd/control dmabuf 0 2 shared 0x0:0x1000 -- ./vmm --dmabuf-fd-in-env

  # A stock kernel's PCI/TSM core on top of the device (host/kmod; tsm --help)
  tdispctl tsm serve

  # What a VMM does for its guest with DMABUFs, memory slots and a processor, step by step (vmm --help)
  tdispctl vmm 0000:01:00.0 --arch cca --alias high

  # Interactive, or from a pipe
  printf 'lock\\nreport\\nstart\\nstop\\n' | tdispctl --vfio-user /run/tdispd/f0 shell

Exit codes:
  0 all good                       4 protocol error, or refused by the device
  1 unexpected failure             5 verification failed (signature, chain, digest, HMAC)
  2 usage                          6 a check did not hold (state, registers, MMIO, DMA)
  3 no device, or no way to it     7 time-out";

/// Walks a TDISP-capable PCIe device from DOE discovery to RUN, and checks it on the way.
#[derive(Debug, Parser)]
#[command(name = "tdispctl", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// How to reach the device, and how to talk about it.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options every command understands.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// PCI function in sysfs, e.g. 0000:01:00.0 (default: the only TDISP-capable one)
    #[arg(long, global = true, value_name = "BDF", help_heading = "Target",
          conflicts_with_all = ["tcp", "vfio_user", "control"])]
    pub device: Option<Bdf>,
    /// SPDM responder behind a TCP socket that speaks spdm-emu's framing
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        help_heading = "Target",
        conflicts_with_all = ["vfio_user", "control"]
    )]
    pub tcp: Option<String>,
    /// Send spdm-emu's test greeting first (its own responder waits for one)
    #[arg(long, global = true, help_heading = "Target", requires = "tcp")]
    pub tcp_hello: bool,
    /// vfio-user socket of a device process; tdispctl plays firmware and VMM
    #[arg(long, global = true, value_name = "PATH", help_heading = "Target", conflicts_with = "control")]
    pub vfio_user: Option<PathBuf>,
    /// Control socket of a device process, for state, watch, dmabuf and report get, set and reset
    #[arg(long, global = true, value_name = "PATH", help_heading = "Target")]
    pub control: Option<PathBuf>,

    /// Keep the SPDM session (keys, counters, nonce; mode 0600) here between commands
    #[arg(long, global = true, value_name = "FILE")]
    pub session: Option<PathBuf>,
    /// Print JSON lines instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Trace DOE objects and messages on stderr, never secrets (-vv: with their bytes)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// SPDM version to offer, 1.0 to 1.4; repeat it for more. Without it, all that TDISP can be used with.
    #[arg(long = "spdm-version", global = true, value_name = "VERSION")]
    pub spdm_versions: Vec<Version>,

    /// Trust only chains whose root certificate equals this DER or PEM file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Trust", conflicts_with = "root_hash")]
    pub root_cert: Option<PathBuf>,
    /// Trust only chains whose root certificate has this SHA-256, SHA-384 or SHA-512 hash (hexadecimal)
    #[arg(long, global = true, value_name = "HEX", help_heading = "Trust")]
    pub root_hash: Option<String>,
    /// Certificate slot of the responder
    #[arg(long, global = true, value_name = "N", default_value_t = 0, help_heading = "Trust",
          value_parser = clap::value_parser!(u8).range(0..8))]
    pub slot: u8,

    /// Seconds to wait for an answer before giving up (default: 2; PCIe 6.1 §6.30 allows a DOE response one), and for the
    /// end of `watch` and `events` (default: for ever)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<f64>,

    /// What the host proves itself with.
    #[command(flatten)]
    pub credentials: Credentials,
}

impl Options {
    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.timeout.unwrap_or(2.0))
    }

    /// For a command that has another way to its device, or to none: an error that says `why` if a target or a session is named.
    pub(crate) fn without_target(&self, why: &str) -> Result<()> {
        let named =
            self.device.is_some() || self.tcp.is_some() || self.vfio_user.is_some() || self.control.is_some();
        if named || self.session.is_some() { Err(Error::Usage(why.into())) } else { Ok(()) }
    }
}

/// What tdispctl can be asked to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Find the DOE mailbox, IDE, BARs and what the mailbox speaks
    Discover,
    /// Fetch and verify certificates, challenge the device, read signed measurements and what else it tells about itself
    Identify,
    /// Get a certificate signing request for a key of the device
    Csr(CsrArgs),
    /// Fetch, write or erase a certificate slot of the device
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Configure a Bank of certificate slots of the device
    #[command(subcommand)]
    Bank(BankCommand),
    /// Change, generate or erase a key pair of the device
    #[command(subcommand)]
    KeyPair(KeyPairCommand),
    /// Show which SPDM events the device tells of; with --count, follow them
    Events(EventsArgs),
    /// Open a session, key an IDE stream and lock the interface
    Lock(LockArgs),
    /// Read the interface report and show which pages are private; with --control, what it says from the next LOCK on
    Report(ReportCommand),
    /// Start the locked interface with the nonce LOCK returned
    Start,
    /// Ask for the TDI state; with --control, show every TDI, IDE stream and SPDM session
    State,
    /// Follow what happens in the device (needs --control)
    Watch(WatchArgs),
    /// Map memory of a BAR, or give it to another program (needs --control)
    Dmabuf(DmabufArgs),
    /// Stop the interface, then close the session
    Stop {
        /// Leave the session open, so that `lock` can follow
        #[arg(long)]
        keep_session: bool,
    },
    /// End the session without stopping the interface (the device must fall to ERROR)
    End,
    /// The whole walk, with checks at every state
    Run(RunArgs),
    /// Read commands from stdin, one a line; the connection and session stay open
    Shell,
    /// Refresh the keys of the running interface's stream, on the key set that is not in use
    Rekey,
    /// Key a stream to a peer, and bind it to the running interface or unbind it
    #[command(subcommand)]
    P2p(P2pCommand),
    /// SET_MMIO_ATTRIBUTE: share pages of the running interface, or take them back
    Attribute(AttributeArgs),
    /// Send a vendor-defined TDISP message and show the answer
    Vdm(VdmArgs),
    /// Be the firmware of a software TSM for the kernel's PCI/TSM core (host/kmod), or a VM for it
    #[command(subcommand)]
    Tsm(TsmCommand),
    /// Be a VMM for a function that vfio-pci holds: DMABUFs, memory slots and a processor through bind, RUN and back
    #[command(after_help = crate::vmm::HELP)]
    Vmm(VmmArgs),
    /// Be the agent of a guest that has a function: judge it by a policy, and only then start it
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Read or write BAR memory
    #[command(subcommand)]
    Mmio(MmioCommand),
    /// Read or write configuration space
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// `tdispctl events`
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Subscribe to all of them, show them as they come, and end after this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// How to bind the interface.
#[derive(Debug, Clone, Args)]
pub struct LockArgs {
    /// When the IDE stream is enabled: after its keys (Linux) or before them (some devices need that)
    #[arg(long, value_enum, default_value_t = IdeOrder::KeysFirst)]
    pub ide_order: IdeOrder,
    /// IDE stream id to program (default: 1, or what the device has where there is no configuration space)
    #[arg(long, value_name = "ID", value_parser = number::<u8>)]
    pub stream_id: Option<u8>,
    /// TDISP FUNCTION_ID (default: the function's own address from sysfs, else 0)
    #[arg(long, value_name = "ID", value_parser = number::<u32>)]
    pub function_id: Option<u32>,
    /// MMIO_REPORTING_OFFSET: bytes added to reported addresses
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = number::<u64>)]
    pub mmio_offset: u64,
    /// LOCK flags (bit 0 no firmware update, 1 cache line 128 B, 2 lock MSI-X, 3 P2P, 4 redirect)
    #[arg(long, value_name = "BITS", default_value = "0", value_parser = number::<u16>)]
    pub lock_flags: u16,
}

/// How to read the report.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Bytes to ask for at a time
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub portion: u16,
}

/// What the whole walk does beyond the minimum.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// How to bind the interface.
    #[command(flatten)]
    pub lock: LockArgs,
    /// How to read the report.
    #[command(flatten)]
    pub report: ReportArgs,
    /// Only walk: leave MMIO and DMA alone
    #[arg(long)]
    pub no_use: bool,
    /// Then lock and start again, clear Bus Master Enable, and expect ERROR
    #[arg(long)]
    pub provoke_error: bool,
}

/// The two orders in which an IDE stream comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IdeOrder {
    /// KEY_PROG and K_SET_GO, then the enable bit; secure at the next read.
    KeysFirst,
    /// The enable bit, then KEY_PROG and K_SET_GO; secure after the last K_SET_GO.
    EnableFirst,
}

/// BAR accesses.
#[derive(Debug, Clone, Subcommand)]
pub enum MmioCommand {
    /// Read LEN bytes (default 4)
    Read {
        /// BAR number
        #[arg(value_parser = clap::value_parser!(u8).range(0..6))]
        bar: u8,
        /// Byte offset in the BAR
        #[arg(value_parser = number::<u64>)]
        offset: u64,
        /// Bytes
        #[arg(default_value = "4", value_parser = number::<u32>)]
        length: u32,
    },
    /// Write bytes, given in hexadecimal in memory order
    Write {
        /// BAR number
        #[arg(value_parser = clap::value_parser!(u8).range(0..6))]
        bar: u8,
        /// Byte offset in the BAR
        #[arg(value_parser = number::<u64>)]
        offset: u64,
        /// Bytes, e.g. deadbeef
        #[arg(value_parser = hex)]
        bytes: HexBytes,
    },
}

/// Configuration-space accesses.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Read a register
    Read {
        /// Byte offset, 0 to 0xfff
        #[arg(value_parser = number::<u16>)]
        offset: u16,
        /// Bytes: 1, 2 or 4
        #[arg(default_value = "4", value_parser = width)]
        width: u8,
    },
    /// Write a register
    Write {
        /// Byte offset, 0 to 0xfff
        #[arg(value_parser = number::<u16>)]
        offset: u16,
        /// Bytes: 1, 2 or 4
        #[arg(value_parser = width)]
        width: u8,
        /// Value
        #[arg(value_parser = number::<u32>)]
        value: u32,
    },
}

/// Bytes typed in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 3600.0 => Ok(value),
        _ => Err("not a number of seconds between 0 and 3600".into()),
    }
}

pub(crate) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let value = value.map_err(|e| format!("not a number: {e}"))?;
    T::try_from(value).map_err(|_| "too large".into())
}

fn width(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        "4" => Ok(4),
        _ => Err("1, 2 or 4".into()),
    }
}

pub(crate) fn hex(text: &str) -> Result<HexBytes, String> {
    parse_hex(text).map(HexBytes).ok_or_else(|| "an even number of hexadecimal digits".into())
}

/// Bytes from hexadecimal digits; `None` for an odd number, none at all or anything else.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tdispctl").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_work_on_either_side_of_the_command() {
        for line in ["--json --vfio-user /s run", "run --vfio-user /s --json"] {
            let cli = parse(line).unwrap();
            assert!(cli.options.json, "{line}");
            assert_eq!(cli.options.vfio_user, Some("/s".into()));
        }
    }

    #[test]
    fn targets_and_trust_exclude_each_other() {
        for line in [
            "--device 0000:01:00.0 --tcp a:1 run",
            "--device 0000:01:00.0 --vfio-user /s run",
            "--tcp a:1 --vfio-user /s run",
            "--root-cert f --root-hash 00 identify",
            "--tcp-hello run",
            "--control /c --vfio-user /s state",
            "--control /c --tcp a:1 state",
            "--device 0000:01:00.0 --control /c state",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn numbers_come_in_both_bases_and_are_checked() {
        let cli = parse("mmio read 2 0x1000 16").unwrap();
        assert!(matches!(
            cli.command,
            Command::Mmio(MmioCommand::Read { bar: 2, offset: 0x1000, length: 16 })
        ));
        for line in [
            "mmio read 6 0",
            "mmio read x 0",
            "config read 0x10000",
            "config read 0 3",
            "config write 0 8 0",
            "run --stream-id 256",
            "run --portion 0",
            "report --portion 0",
            "report --portion 8 get 0",
            "report get",
            "report set 0",
            "watch --count 0",
            "watch --until-state RUNNING",
            "watch --function 0",
            "--slot 8 identify",
            "--timeout 0 run",
            "--timeout nan run",
            "mmio write 0 0 abc",
            "mmio write 0 0 zz",
            "tsm",
            "tsm vm",
            "tsm vm 0000:01:00.8",
            "tsm serve --lock-flags 65536",
            "vmm",
            "vmm 0000:01:00.0 --arch x86",
            "vmm 0000:01:00.0 --alias both",
            "vmm 0000:01:00.0 --hold --violate",
            "tsm relay 0000:01:00.0 --vm 1",
            "tsm relay 0000:01:00.0 --vm 1 --socket s --misbehave often",
            "guest",
            "guest accept 0000:01:00.0 --key k",
            "guest state",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn hexadecimal_bytes() {
        assert_eq!(parse_hex("dead00"), Some(vec![0xde, 0xad, 0]));
        assert_eq!(parse_hex("0xBEEF"), Some(vec![0xbe, 0xef]));
        for bad in ["", "a", "0x", "gg", "é1", "+1"] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn run_has_the_documented_defaults() {
        let Command::Run(run) = parse("run").unwrap().command else { panic!("not run") };
        assert_eq!(run.lock.ide_order, IdeOrder::KeysFirst);
        assert_eq!((run.lock.mmio_offset, run.lock.lock_flags, run.report.portion), (0, 0, 64));
        assert!(!run.no_use && !run.provoke_error);
    }
}
