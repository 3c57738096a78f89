//! Memory of a device's BAR, exported by the device process: mapped here, or given to another program.

use std::io::{BufRead, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;

use clap::Parser;
use rustix::io::FdFlags;
use tdispd_proto::control::{Command as Ask, Dmabuf};

use super::arguments::{Access, DmabufArgs};
use super::connection::Connection;
use super::typed;
use crate::cli::Side;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::output::{Item, Output};

/// Where a program finds the number of its descriptor.
const VARIABLE: &str = "TDISPD_DMABUF_FD";
/// Longest line taken, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Most bytes that one line reads.
const MAX_READ: u32 = 1024 * 1024;

/// Asks for the memory, and has the lines of `input` carried out on it or another program have it.
pub(super) fn run(
    connection: &mut Connection,
    args: &DmabufArgs,
    input: &mut dyn BufRead,
    output: &mut Output,
) -> Result<()> {
    let result = connection.ask(Ask::Dmabuf {
        function: args.function,
        bar: args.bar,
        tee: matches!(args.side, Side::Private),
        ranges: args.ranges.clone(),
        read_only: args.read_only,
    })?;
    let fd = connection
        .take_descriptor()
        .ok_or_else(|| Error::Protocol("control socket: no descriptor came with the result".into()))?;
    let (Dmabuf { size, file }, value) = typed(result)?;
    if !args.command.is_empty() {
        return Err(become_program(args, fd));
    }
    output.tell(&Item::Told("dmabuf", &value, &format!("{size:#x} bytes of BAR {}, a {file}", args.bar)));
    let length =
        usize::try_from(size).map_err(|_| Error::Usage(format!("{size:#x} bytes cannot be mapped")))?;
    // The mapping keeps the memory by itself.
    let mapping = Mapping::of_file(fd, length, !args.read_only, "mapping the export")?;
    for number in 1.. {
        let mut line = String::new();
        let taken =
            Read::take(&mut *input, MAX_LINE).read_line(&mut line).map_err(Error::io("standard input"))?;
        if taken == 0 || output.is_broken() {
            return Ok(());
        }
        let words: Vec<_> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let access = Access::try_parse_from(words)
            .map_err(|error| Error::Usage(format!("line {number}: {}", error.to_string().trim_end())))?;
        carry_out(&access, &mapping, args, output)?;
    }
    Ok(())
}

fn carry_out(access: &Access, mapping: &Mapping, args: &DmabufArgs, output: &mut Output) -> Result<()> {
    match access {
        Access::Read { length, .. } if *length > MAX_READ => {
            Err(Error::Usage(format!("{length} bytes: at most {MAX_READ} are read at a time")))
        }
        Access::Read { offset, length } => {
            let mut data = vec![0; *length as usize];
            mapping.read(*offset, &mut data)?;
            output.tell(&Item::Value("dmabuf", *offset, &data));
            Ok(())
        }
        Access::Write { .. } if args.read_only => {
            Err(Error::Usage("write: the memory is mapped --read-only".into()))
        }
        Access::Write { offset, bytes } => mapping.write(*offset, &bytes.0),
    }
}

/// Runs the program in this one's place; returns only if that cannot be done.
fn become_program(args: &DmabufArgs, fd: OwnedFd) -> Error {
    let Some((program, arguments)) = args.command.split_first() else {
        return Error::Usage("there is no program".into());
    };
    // It is to have the descriptor.
    if let Err(errno) = rustix::io::fcntl_setfd(&fd, FdFlags::empty()) {
        return Error::io("the descriptor")(errno.into());
    }
    let failure =
        std::process::Command::new(program).args(arguments).env(VARIABLE, fd.as_raw_fd().to_string()).exec();
    Error::io(program.display().to_string())(failure)
}
