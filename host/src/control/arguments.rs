//! What can be asked of a control socket.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tdispd_proto::control::{ByteRange, Hex, TdiState};

use crate::cli::{HexBytes, ReportArgs, Side, hex, number};

/// `tdispctl watch`
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End once a TDI is in this state (RUN, ERROR, CONFIG_LOCKED, CONFIG_UNLOCKED), at once if one is already
    #[arg(long, value_name = "STATE")]
    pub until_state: Option<TdiState>,
    /// The TDI that --until-state is about (default: any)
    #[arg(long, value_name = "FUNCTION", requires = "until_state")]
    pub function: Option<usize>,
}

/// `tdispctl dmabuf`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without COMMAND, the memory is mapped and lines of standard input are carried out: read OFFSET [BYTES], write \
                        OFFSET HEX, with offsets from its start. It stays mapped until the input ends. With COMMAND, that runs in tdispctl's \
                        place, and finds the descriptor's number in TDISPD_DMABUF_FD."
)]
pub struct DmabufArgs {
    /// Function number
    pub function: usize,
    /// BAR number
    #[arg(value_parser = clap::value_parser!(u8).range(0..6))]
    pub bar: u8,
    /// As the host sees it (T = 0), or as the TVM does (T = 1)
    #[arg(value_enum)]
    pub side: Side,
    /// Whole pages, as OFFSET:BYTES; of several, one is behind the other
    #[arg(value_name = "RANGE", required = true, value_parser = range)]
    pub ranges: Vec<ByteRange>,
    /// Only for reading
    #[arg(long)]
    pub read_only: bool,
    /// Program to run with the descriptor
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What a line of standard input can ask for.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
pub(super) enum Access {
    /// Read BYTES (default 4)
    Read {
        #[arg(value_parser = number::<u64>)]
        offset: u64,
        #[arg(default_value = "4", value_parser = number::<u32>)]
        length: u32,
    },
    /// Write bytes, given in hexadecimal in memory order
    Write {
        #[arg(value_parser = number::<u64>)]
        offset: u64,
        #[arg(value_parser = hex)]
        bytes: HexBytes,
    },
}

fn range(text: &str) -> Result<ByteRange, String> {
    let (offset, length) = text.split_once(':').ok_or("a range is OFFSET:BYTES, such as 0x1000:0x2000")?;
    Ok(ByteRange { offset: Hex(number(offset)?), length: Hex(number(length)?) })
}

/// `tdispctl report`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReportCommand {
    /// How to read it.
    #[command(flatten)]
    pub read: ReportArgs,
    /// With --control: look at it, or say what it is to say.
    #[command(subcommand)]
    pub action: Option<ReportAction>,
}

/// What the control socket can do about reports.
#[derive(Debug, Clone, Subcommand)]
pub enum ReportAction {
    /// Show the report that LOCK fixed, or what LOCK would fix now; --json prints what `set` takes (needs --control)
    Get {
        /// Function number
        function: usize,
        /// LOCK flags to assume while it is not locked
        #[arg(long, value_name = "BITS", default_value = "0", value_parser = number::<u16>)]
        lock_flags: u16,
        /// MMIO_REPORTING_OFFSET to assume while it is not locked
        #[arg(long, value_name = "BYTES", default_value = "0", value_parser = number::<u64>)]
        mmio_offset: u64,
    },
    /// From the next LOCK on the report says this; only the report, not the device, changes (needs --control)
    Set {
        /// Function number
        function: usize,
        /// JSON, - for standard input: {"hex": "…"} for exact bytes, fields of the report for an edit of these, or what
        /// `--json report get` printed, of which the fields count
        file: PathBuf,
    },
    /// From the next LOCK on the report says what is so (needs --control)
    Reset {
        /// Function number
        function: usize,
    },
}
