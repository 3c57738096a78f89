//! `vfio-export BDF`: opens a device that vfio-pci holds and does with it, and with dma-bufs of its BARs, what lines of standard
//! input say. Each line has one line of answer: `ok` and perhaps a result, the name of the kernel's error, or what is wrong with
//! the line. `help` names the commands.

mod command;
mod desk;

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use command::Command;
use desk::Desk;
use tdispctl::vmm::Device;

/// The longest line taken: the hexadecimal digits of a page, and the words before them.
const MAX_LINE: u64 = 2 * command::MAX_BYTES + 256;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address] = arguments.as_slice() else {
        eprintln!("usage: vfio-export DDDD:BB:DD.F <COMMANDS\n{}", command::HELP);
        return ExitCode::from(2);
    };
    let device = match Device::open(address) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("vfio-export: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(&mut Desk::new(device), &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio-export: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers lines until the input ends or says `quit`.
fn serve(desk: &mut Desk, input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<()> {
    answer(output, "ok")?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match Command::parse(&String::from_utf8_lossy(&line)) {
            Ok(Command::Quit) => return Ok(()),
            Ok(command) => match desk.obey(&command) {
                Ok(text) if text.is_empty() => answer(output, "ok")?,
                Ok(text) => answer(output, &format!("ok {text}"))?,
                Err(error) => answer(output, &error.to_string())?,
            },
            Err(error) => answer(output, &error.to_string())?,
        }
    }
}

/// Whoever asked reads before asking again.
fn answer(output: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(output, "{text}")?;
    output.flush()
}
