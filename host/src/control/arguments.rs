//! What can be asked of a control socket.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tdispd_proto::control::TdiState;

use crate::cli::{ReportArgs, number};

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
