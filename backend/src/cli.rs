//! The command line of `tdispd`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// A TDISP-capable PCIe device, as a process: plug it into QEMU with `-device vfio-user-pci`.
#[derive(Debug, Parser)]
#[command(name = "tdispd", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// Unix socket on which a function waits for its vfio-user client; repeat it for more functions, the n-th
    /// is function n−1. Created with mode 0600, removed at the end.
    #[arg(long = "socket", value_name = "PATH", required_unless_present_any = ["print_config", "spdm_socket", "vhost_user"])]
    pub sockets: Vec<PathBuf>,

    /// TCP address on which SPDM data objects are taken in spdm-emu's framing, as spdm_responder_emu does; a port alone
    /// means 127.0.0.1. Without any --socket the device is configured as firmware would leave it, and SHUTDOWN ends it.
    #[arg(long, value_name = "[IP:]PORT", value_parser = socket_address)]
    pub spdm_socket: Option<SocketAddr>,

    /// Unix socket on which the disk of the configuration waits for a vhost-user client, as QEMU's vhost-user-blk-pci: a plain
    /// virtio disk, with no TDISP around it. Created with mode 0600, removed at the end.
    #[arg(long, value_name = "PATH")]
    pub vhost_user: Option<PathBuf>,

    /// Unix socket for tdispctl --control: the state of every TDI, stream and session, everything that happens, and what
    /// interface reports say. Created with mode 0600, removed at the end.
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// What the device is and where it keeps what stays.
    #[command(flatten)]
    pub device: DeviceFiles,

    /// Print the configuration in effect as a file to start from, and exit. What a device offers over SPDM depends on
    /// whether it is plugged in: with --spdm-socket and no --socket, it is that of a device that is not. In other tables,
    /// "auto" stays "auto".
    #[arg(long)]
    pub print_config: bool,

    /// Log more: -v protocol steps, -vv every access. RUST_LOG overrides it.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Instead of running a device.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The files that make a device what it is.
#[derive(Debug, Args)]
pub struct DeviceFiles {
    /// TOML file that describes the device; without it, every socket is a test function with MSI-X.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory that keeps certificates and keys, so that the device is the same after a restart. Without it
    /// they are made anew at each start.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl DeviceFiles {
    /// The configuration: the file, or the defaults.
    ///
    /// # Errors
    /// What is wrong in the file.
    pub fn config(&self) -> Result<Config, ConfigError> {
        load(self.config.as_deref())
    }
}

fn load(config: Option<&Path>) -> Result<Config, ConfigError> {
    config.map_or_else(|| Ok(Config::default()), Config::load)
}

/// What tdispd does beside running a device.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show, export or check certificates.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Show what the BARs of every function consist of: which range is where, what stands there, and whose it is.
    Bars(BarsCommand),
}

/// `tdispd bars`
#[derive(Debug, Args)]
#[command(after_help = BARS)]
pub struct BarsCommand {
    /// TOML file that describes the device; without it, one function with the default BARs.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// As JSON, sizes and offsets in bytes.
    #[arg(long)]
    pub json: bool,
}

impl BarsCommand {
    /// The configuration: the file, or the defaults.
    ///
    /// # Errors
    /// What is wrong in the file.
    pub fn config(&self) -> Result<Config, ConfigError> {
        load(self.config.as_deref())
    }
}

/// `tdispd certs`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Show the certificates of every slot, with the digests that DIGESTS would report. With --state-dir they are made
    /// there if there are none.
    Show {
        /// The device.
        #[command(flatten)]
        device: DeviceFiles,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the chain of every slot (PEM and DER) and its root, for a requester to trust; never a private key.
    Export {
        /// The device.
        #[command(flatten)]
        device: DeviceFiles,
        /// Where to; it is made if it is not there.
        directory: PathBuf,
    },
    /// Check a chain as requesters of SPDM 1.3 do, and whether a key is its leaf's. Exit code 1 if something is wrong.
    Check {
        /// Certificates, root first or leaf first, as PEM or DER.
        chain: PathBuf,
        /// Private key of the leaf: PKCS#8, PKCS#1 or SEC1, as PEM or DER.
        key: Option<PathBuf>,
    },
}

const BARS: &str = "\
The table lists the ranges of each BAR, the picture draws them: a BAR has the same width whatever its size, its ranges are
to scale, and each has its number and as much of its kind as there is room for.

Sides:
  private  TEE memory: from LOCK on only the TVM reaches it, and only in RUN
  shared   reachable all the time
  \"updatable\" ranges can be given to the other side by SET_MMIO_ATTRIBUTE while the TDI runs.

A configuration with BARs of its own has tables such as these, and none of the default BARs:
  [[function]]
  [[function.bar]]
  index = 0                 # 0-5; a 64-bit BAR takes the next one, too
  width = 64                # or 32
  prefetchable = true
  [[function.bar.range]]
  kind = \"memory\"           # registers, memory, msix-table, msix-pba, doorbells, reserved
  size = \"64K\"              # whole pages of 4096 bytes; all ranges of a BAR make a power of two
  side = \"private\"          # or shared
  file = \"weights.bin\"      # what is in it after each reset

Examples:
  tdispd bars
  tdispd bars --config device.toml
  tdispd bars --json | jq '.[0].bars[] | {index, size}'

Exit code 2 if the configuration is wrong; the message names the field.";

const EXAMPLES: &str = "\
Examples:
  A device with one function, and QEMU with it (guest memory has to be shared):
    tdispd --socket /tmp/f0 &
    qemu-system-x86_64 -machine q35,memory-backend=m0 -m 2G \\
      -object memory-backend-memfd,id=m0,size=2G,share=on \\
      -device pcie-root-port,id=rp,chassis=1,slot=1 \\
      -device '{\"driver\":\"vfio-user-pci\",\"bus\":\"rp\",\"socket\":{\"type\":\"unix\",\"path\":\"/tmp/f0\"}}' ...

  The same device without QEMU: walk it to RUN and use it, as a host would:
    tdispctl --vfio-user /tmp/f0 run

  A device that can be watched:
    tdispd --socket /tmp/f0 --control /tmp/control &
    tdispctl --control /tmp/control watch

  A virtio disk that TDISP guards; disk.toml says: [[function]] and kind = \"virtio-blk\":
    tdispd --socket /tmp/f0 --config disk.toml &

  A virtio disk for QEMU, without TDISP:
    tdispd --vhost-user /tmp/disk --config disk.toml &
    qemu-system-x86_64 -machine q35,memory-backend=m0 -m 2G \\
      -object memory-backend-memfd,id=m0,size=2G,share=on \\
      -chardev socket,id=d0,path=/tmp/disk,reconnect-ms=500 -device vhost-user-blk-pci,chardev=d0 ...

  A responder for SPDM tools, and one of them:
    tdispd --spdm-socket 2323 &
    tdispctl --tcp 127.0.0.1:2323 run

  The certificates it shows, and their root for a requester to trust:
    tdispd certs show --state-dir state
    tdispd certs export --state-dir state certificates

  A configuration file to start from, and what the BARs are that a file describes:
    tdispd --print-config > device.toml
    tdispd bars --config device.toml

Signals:
  SIGHUP reads measured files again: a firmware update. It does not end the program.

Exit codes:
  0  ended by SIGTERM or SIGINT, or by SHUTDOWN where there is only --spdm-socket; sockets removed
  1  the host failed (a socket, memory), or a certificate is not usable; the message says where
  2  the command line or the configuration is wrong
  3  a T = 0 access met a private page of a bound TDI, with arch = \"tdx\" and machine_check = \"exit\"";

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "neither a port nor IP:PORT".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sockets_repeat_and_are_needed() {
        let parsed = Arguments::try_parse_from(["tdispd", "--socket", "a", "--socket", "b", "-vv"]).unwrap();
        assert_eq!((parsed.sockets.len(), parsed.verbose), (2, 2));
        assert!(Arguments::try_parse_from(["tdispd"]).is_err());
        assert!(Arguments::try_parse_from(["tdispd", "--print-config"]).is_ok());
        assert!(Arguments::try_parse_from(["tdispd", "certs", "show", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["tdispd", "--socket", "a", "certs", "show"]).is_err());
        assert!(Arguments::try_parse_from(["tdispd", "bars", "--config", "a", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["tdispd", "bars", "--state-dir", "a"]).is_err());
        let address = |text| {
            Some(Arguments::try_parse_from(["tdispd", "--spdm-socket", text]).ok()?.spdm_socket?.to_string())
        };
        assert_eq!(address("2323").as_deref(), Some("127.0.0.1:2323"));
        assert_eq!(address("[::1]:5").as_deref(), Some("[::1]:5"));
        assert_eq!(address("localhost:70000"), None);
    }
}
