//! Shows a bug of the kernel in one command, for whoever mends it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use qemu_config::reproduce::{BUGS, find};
use qemu_config::testbed::Overrides;
use qemu_config::{Programs, Testbed};

/// Boots a guest with just what provokes a bug of the kernel's PCI core, and tells whether it is there.
///
/// Needs what the demo needs: Rust, gcc, apt and a Debian mirror; no root, no KVM, no hardware.
#[derive(Debug, Parser)]
#[command(name = "reproduce", version, max_term_width = 110, after_help = help())]
struct Arguments {
    /// The bug
    #[arg(value_parser = PossibleValuesParser::new(BUGS.map(|bug| bug.name)))]
    name: String,
    /// Boot this bzImage instead of the stock kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Use this QEMU instead of the testbed's
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

fn help() -> String {
    let bugs = BUGS.map(|bug| format!("  {}\n    {}\n", bug.name, bug.provoked_by)).concat();
    format!("Bugs:\n{bugs}\n{EXAMPLES}")
}

const EXAMPLES: &str = "\
Examples:
  qemu-config/reproduce ide-without-root-port
  qemu-config/reproduce ide-stream-id-leak --kernel ~/linux/arch/x86/boot/bzImage

Exit codes:
  0 the bug is there     2 usage
  1 the kernel is fine   3 it cannot be told; it says why";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("reproduce: {error}");
            ExitCode::from(3)
        }
    }
}

/// Whether the bug showed.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let bug = find(&arguments.name).ok_or("no such bug")?;
    println!("provoked by  {}", bug.provoked_by);
    let overrides =
        Overrides { qemu: arguments.qemu.clone(), kernel: arguments.kernel.clone(), modules: None };
    let testbed = Testbed::prepare(&overrides)?;
    println!("kernel       {}", testbed.kernel.display());
    let programs = Programs::build()?;
    let logs = tempfile::Builder::new().prefix("tdispd-reproduce-").tempdir()?;
    let outcome = match bug.reproduce(&testbed, &programs, logs.path()) {
        Ok(outcome) => outcome,
        Err(error) => return Err(format!("{error}\nThe logs are kept in {}", logs.keep().display()).into()),
    };
    for line in &outcome.evidence {
        println!("  │ {line}");
    }
    println!("expected     {}", bug.expected);
    println!("reason       {}", bug.reason);
    println!("{}", if outcome.showed { "The bug is there." } else { "The kernel is fine." });
    Ok(outcome.showed)
}
