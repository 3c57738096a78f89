//! The demo: brings up a stock Linux guest with a tdispd device, walks the device from DOE discovery to I/O in RUN, and shows every layer.

mod kmod;
mod pages;
mod show;
mod tally;

use clap::Parser;
use pages::{Behaviour, Look, Pages, bar_address};
use qemu_config::Programs;
use qemu_config::testbed::{Overrides, Testbed};
use qemu_config::{Accelerator, Daemon, Guest, Initramfs, Machine};
use show::Show;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tally::Tally;

const WALK_TIMEOUT: Duration = Duration::from_secs(300);
/// The test function's memory.
const MEMORY_BAR: usize = 2;

/// Boots a stock Linux guest in QEMU with a tdispd device and walks the device from DOE discovery to I/O in RUN.
///
/// Builds tdispd and tdispctl, fetches QEMU and a kernel if they are not there (see qemu-config/testbed --help), and needs
/// neither root nor KVM. Ends with 0 only if everything it set out to show has happened.
#[derive(Debug, Clone, Parser)]
#[command(name = "demo", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    /// Boot this bzImage instead of the stock kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its modules: the directory with modules.dep
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Also have the kernel's PCI/TSM core walk the device, by the module of host/kmod (an own kernel's: KDIR or TDISPD_KMOD)
    #[arg(long, conflicts_with = "kvm")]
    kmod: bool,
    /// Use this QEMU instead of the testbed's
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Run the guest with KVM instead of QEMU's translator
    #[arg(long)]
    kvm: bool,
    /// Keep the guest afterwards and run lines from standard input in its shell
    #[arg(long)]
    keep: bool,
    /// Show every configuration line, tdispctl's trace and the device's log
    #[arg(short, long)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  qemu-config/demo
  qemu-config/demo --kernel ~/linux/arch/x86/boot/bzImage --keep
  qemu-config/demo --kmod
  KDIR=~/linux qemu-config/demo --kmod --kernel ~/linux/arch/x86/boot/bzImage --modules ~/root/lib/modules/7.4.0

Exit codes:
  0 everything happened as it should   2 usage
  1 something did not; it says what    101 a bug in the demo";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut show = Show::new();
    let logs = match tempfile::Builder::new().prefix("tdispd-demo-").tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("demo: no temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments, &mut show, logs.path()) {
        Ok(true) => ExitCode::SUCCESS,
        outcome => {
            if let Err(error) = outcome {
                show.verdict(false, &error.to_string());
            }
            show.fact(&format!("The logs are kept in {}", logs.keep().display()));
            ExitCode::FAILURE
        }
    }
}

/// Whether everything the demo asserts was seen; an error if it could not get that far.
fn run(arguments: &Arguments, show: &mut Show, logs: &Path) -> Result<bool, Box<dyn Error>> {
    let start = Instant::now();
    show.heading("Build tdispd (the device) and tdispctl (the host's side)");
    let programs = Programs::build()?;
    show.fact(&format!("device  {}", programs.tdispd.display()));
    show.fact(&format!("host    {}", programs.tdispctl.display()));

    show.heading("Testbed: QEMU, Linux, busybox, lspci");
    let Arguments { qemu, kernel, modules, .. } = arguments.clone();
    let overrides = Overrides { qemu, kernel, modules };
    let testbed = Testbed::prepare(&overrides)?;
    show.fact(&format!("qemu    {}", testbed.qemu.display()));
    show.fact(&format!("kernel  {}", testbed.kernel.display()));

    show.heading("Start the device, boot the guest");
    let sockets = tempfile::Builder::new().prefix("tdispd-").tempdir()?;
    let socket = sockets.path().join("f0");
    let verbosity = arguments.verbose.then_some("-v");
    let daemon =
        Daemon::start(&programs.tdispd, std::slice::from_ref(&socket), verbosity, &logs.join("tdispd.log"))?;
    show.fact(&format!("tdispd --socket {} (process {})", socket.display(), daemon.id()));
    let mut initramfs = Initramfs::new(&testbed).program("tdispctl", &programs.tdispctl);
    if arguments.kmod {
        initramfs = kmod::add(initramfs, arguments.kernel.is_some())?;
    }
    let initramfs = initramfs.build()?;
    let machine = Machine {
        processor: arguments.kmod.then(|| kmod::PROCESSOR.to_owned()),
        accelerator: if arguments.kvm { Accelerator::Kvm } else { Accelerator::Tcg },
        idle: if arguments.keep { 0 } else { Machine::default().idle },
        ..Machine::with_device([socket])
    };
    let boot = Instant::now();
    let mut guest = Guest::start(&testbed, &initramfs, &machine, logs)?;
    let kernel = guest.check("uname -sr")?;
    show.fact(&format!("{} up after {:.1} s", kernel.trim(), boot.elapsed().as_secs_f64()));

    let device = Machine::address(0, 0);
    let mut good = kernels_view(show, &mut guest, &device, arguments.verbose)?;
    good &= walk(show, &mut guest, &device, arguments.verbose)?;
    good &= pages_by_hand(show, &mut guest, &device)?;
    if arguments.kmod {
        good &= kmod::walk(show, &mut guest, &device)?;
    }

    show.heading("Result");
    show.verdict(
        good,
        if good {
            "everything happened as it should"
        } else {
            "not everything happened as it should; see above"
        },
    );
    show.aside(&format!("{:.1} s in all", start.elapsed().as_secs_f64()));
    if arguments.verbose {
        show.fact("tdispd said:");
        daemon.log().lines().for_each(|line| show.quote(line));
    }
    if arguments.keep {
        interact(show, &mut guest, logs)?;
    }
    guest.quit()?;
    let ended = daemon.stop()?;
    if !ended.success() {
        show.verdict(false, &format!("tdispd ended badly: {ended}"));
    }
    Ok(good && ended.success())
}

/// What the guest's own kernel makes of the device, before anyone talks to it.
fn kernels_view(
    show: &mut Show,
    guest: &mut Guest,
    device: &str,
    verbose: bool,
) -> Result<bool, Box<dyn Error>> {
    show.heading("What the guest's kernel sees");
    let listing = guest.check(&format!("lspci -vvv -s {device} 2>/dev/null"))?;
    const TELLING: [&str; 8] =
        ["Region", "Express", "TEE-IO", "FLReset", "MSI-X", "Data Object", "Integrity", "Serial Number"];
    for (index, line) in listing.lines().enumerate() {
        if verbose || index == 0 || TELLING.iter().any(|word| line.contains(word)) {
            show.quote(&line.replace('\t', "  "));
        }
    }
    let features = guest.check(&format!("ls /sys/bus/pci/devices/{device}/doe_features"))?;
    let features: Vec<_> = features.split_whitespace().collect();
    show.quote(&format!("doe_features: {}", features.join(" ")));
    let complete = ["doe_discovery", "0001:01", "0001:02"].iter().all(|feature| features.contains(feature));
    show.verdict(complete, "the kernel found the mailbox, with discovery, SPDM and secured SPDM");
    Ok(complete)
}

/// The whole walk by `tdispctl`, which verifies each step and whose exit code says whether all held.
fn walk(show: &mut Show, guest: &mut Guest, device: &str, verbose: bool) -> Result<bool, Box<dyn Error>> {
    show.heading("The walk: DOE, SPDM, IDE, TDISP, and use of the device in RUN");
    // In the guest it prints to a terminal, whatever is at this end.
    let colour = if show.coloured() { "CLICOLOR_FORCE=1 " } else { "NO_COLOR=1 " };
    let trace = if verbose { " -v" } else { "" };
    let command = format!("tdispctl --device {device}{trace} run --provoke-error");
    show.fact(&format!("guest# {command}"));
    let start = Instant::now();
    let output = guest.run_with(&format!("{colour}{command}"), WALK_TIMEOUT, &mut |line| show.quote(line))?;
    output.stderr.lines().for_each(|line| show.quote(line));
    let held = output.code == 0;
    show.verdict(held, &format!("exit code {} after {:.1} s", output.code, start.elapsed().as_secs_f64()));
    // What cannot be done in a guest is left out of the walk without failing it; here it has to be in. A second walk, for
    // programs to read, also shows that the first has left nothing behind.
    let command = format!("tdispctl --device {device} --json run --provoke-error");
    show.fact(&format!("guest# {command}"));
    let output = guest.run_with(&command, WALK_TIMEOUT, &mut |_| {})?;
    let tally = Tally::of(&output.stdout)?;
    let complete = output.code == 0 && tally.complete();
    show.verdict(complete, &format!("once more: {tally}"));
    Ok(held && complete)
}

/// Locks, starts, breaks and stops the interface step by step, and looks at its pages with plain loads and stores in every state.
fn pages_by_hand(show: &mut Show, guest: &mut Guest, device: &str) -> Result<bool, Box<dyn Error>> {
    show.heading("Seen by plain loads and stores of the guest (devmem)");
    let bar = bar_address(guest, device, MEMORY_BAR)?.ok_or("the kernel gave BAR 2 no address")?;
    guest.check(&format!("setpci -s {device} COMMAND=6:6"))?;
    let tdispctl = |command: &str| format!("tdispctl --device {device} --session /run/session {command}");
    // The first and the last page of the BAR: the report shown above says that it starts private and ends shared.
    let size = guest.check(&format!("stat -c %s /sys/bus/pci/devices/{device}/resource{MEMORY_BAR}"))?;
    let size: u64 = size.trim().parse()?;
    let pages = Pages { private: bar, shared: bar + size - 4096 };
    show.fact(&format!("private page at {:#x}, shared page at {:#x}", pages.private, pages.shared));

    use Behaviour::{Refuses, Works};
    let steps = [
        ("CONFIG_UNLOCKED", None, Works),
        ("CONFIG_LOCKED", Some(tdispctl("lock")), Refuses),
        ("RUN", Some(tdispctl("start")), Works),
        ("ERROR", Some(format!("setpci -s {device} COMMAND=0:4")), Refuses),
        ("CONFIG_UNLOCKED", Some(tdispctl("stop")), Works),
    ];
    let mut good = true;
    let last = steps.len();
    for (number, (state, step, expected)) in (1..).zip(steps) {
        if let Some(step) = &step {
            guest.check(step)?;
        }
        let Look { private_before, private, shared } = pages.look(guest, number)?;
        let mut right = private == expected && shared == Works;
        let mut text =
            format!("{state:15} private {:22} shared {:22}", private.describe(), shared.describe());
        if usize::from(number) == last {
            right &= private_before == 0;
            text.push_str(&format!(" private was {private_before:#010x} after STOP"));
        }
        if let Some(step) = step {
            show.aside(&format!("guest# {step}"));
        }
        show.verdict(right, text.trim_end());
        good &= right;
    }
    Ok(good)
}

/// Runs what the user types in the guest until the end of input.
fn interact(show: &Show, guest: &mut Guest, logs: &Path) -> Result<(), Box<dyn Error>> {
    show.fact(&format!(
        "The guest is still there, its logs in {}. End of input (Ctrl-D) ends it.",
        logs.display()
    ));
    let mut line = String::new();
    loop {
        print!("guest# ");
        io::stdout().flush()?;
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            println!();
            return Ok(());
        }
        let output = guest.run_with(&line, WALK_TIMEOUT, &mut |line| println!("{line}"))?;
        eprint!("{}", output.stderr);
        if output.code != 0 {
            println!("exit code {}", output.code);
        }
    }
}
