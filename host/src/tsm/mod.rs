//! `tdispctl tsm`: the user-space half of a software TSM. The kernel module of `host/kmod` is the other half; it brings what the
//! kernel's PCI/TSM core asks for, and carries DOE objects through the kernel's own mailbox.

mod abi;
mod arguments;
mod channel;
mod firmware;
mod guest;
mod relay;
mod vm;

use std::io::BufRead;

pub(crate) use self::abi::MAX as MAX_REPORT;
pub use self::arguments::{Misbehaviour, RelayArgs, ServeArgs, TsmCommand, VmArgs};
pub(crate) use self::channel::Binder;
pub use self::channel::Server;
use crate::cli::Options;
use crate::output::Output;

/// The kernel says which function a request is about, and sessions live as long as it is connected.
const NO_TARGET: &str = "tsm takes no target and no --session: the kernel names functions";

/// Carries out `tsm`, tells its end, and returns the exit code. `input` is what it has for standard input; `output` makes one more
/// place for what is told.
pub fn run(
    command: &TsmCommand,
    options: &Options,
    input: &mut dyn BufRead,
    output: &dyn Fn() -> Output,
) -> u8 {
    let result = options.without_target(NO_TARGET).and_then(|()| match command {
        TsmCommand::Serve(args) => firmware::serve(args, options, output),
        TsmCommand::Vm(args) => vm::run(args, input, output()),
        TsmCommand::Relay(args) => relay::run(args, output()),
    });
    match result {
        Ok(exit_code) => exit_code,
        Err(error) => output().finish(Err(error)),
    }
}
