//! `tdispctl vmm`: what a VMM does with a function that its guest is to use as a TDI. Begin with `sequence`; all else is what it
//! stands on.
//!
//! - `sequence`: the steps, in their order, each with its check
//! - `arguments`: what the architectures ask for, and the help
//! - `layout`: from the interface report to private and shared guest addresses
//! - `desk`: memory of a BAR where it is mapped: this process, the VM, a peer
//! - `kvm`, `vcpu`: the VM, its memory slots, and its one processor
//! - `vfio`, `importer`: the kernel's ioctls

mod arguments;
mod desk;
mod importer;
mod kvm;
mod layout;
mod sequence;
mod vcpu;
mod vfio;

use std::io::BufRead;

pub(crate) use self::arguments::HELP;
pub use self::arguments::{Arch, VmmArgs};
pub use self::importer::{Import, State};
pub(crate) use self::kvm::create_vm;
pub use self::vfio::{Device, OpenError, Range, Region, errno};
use crate::cli::Options;
use crate::output::Output;

/// Carries out `vmm`, tells its end, and returns the exit code. `input` is where `--hold` waits for a line.
pub fn run(args: &VmmArgs, options: &Options, input: &mut dyn BufRead, mut output: Output) -> u8 {
    // The TSM holds the session, and vfio the device.
    let alone = options.without_target("vmm takes its function as an argument, no target and no --session");
    let result = alone.and_then(|()| sequence::run(args, input, &mut output));
    output.finish(result)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_target_beside_the_function_and_a_function_that_is_not_there_are_refused() {
        for (line, code) in [
            ("tdispctl vmm ffff:ff:1f.7", 3),
            ("tdispctl --device 0000:01:00.0 vmm 0000:01:00.0", 2),
            ("tdispctl --control /c vmm 0000:01:00.0", 2),
            ("tdispctl --session /s vmm 0000:01:00.0", 2),
        ] {
            let cli = Cli::parse_from(line.split(' '));
            let Command::Vmm(args) = &cli.command else { panic!("{line}") };
            let output = Output::json(Box::new(std::io::sink()));
            assert_eq!(run(args, &cli.options, &mut std::io::empty(), output), code, "{line}");
        }
    }
}
