//! The control socket of a device process: looking at it, watching it, and saying what its reports say.

mod arguments;
mod connection;
mod dmabuf;
mod report_file;
mod text;

use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tdispd_proto::control::{Command as Ask, Event, Happening, Hex, Report, State, TdiState};

pub use self::arguments::{DmabufArgs, ReportAction, ReportCommand, WatchArgs};
use self::connection::Connection;
use crate::cli::{Command, Options};
use crate::error::{Error, Result};
use crate::output::{Item, Output};

/// Carries out one command at the control socket `path`, tells its end, and returns the exit code. `input` is what it has for
/// standard input.
pub fn run(
    path: &Path,
    options: &Options,
    command: &Command,
    input: &mut dyn BufRead,
    mut output: Output,
) -> u8 {
    let result = carry_out(path, options, command, input, &mut output);
    output.finish(result)
}

fn carry_out(
    path: &Path,
    options: &Options,
    command: &Command,
    input: &mut dyn BufRead,
    output: &mut Output,
) -> Result<()> {
    let connect = || Connection::open(path, options.patience());
    match command {
        Command::State => {
            let (state, value) = typed::<State>(connect()?.ask(Ask::State {})?)?;
            output.tell(&Item::Told("state", &value, &text::state(&state)));
            Ok(())
        }
        Command::Watch(args) => {
            let until = options.timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
            watch(&mut connect()?, args, until, output)
        }
        Command::Dmabuf(args) => dmabuf::run(&mut connect()?, args, input, output),
        Command::Report(ReportCommand { action: Some(action), .. }) => {
            let ask = match action {
                ReportAction::Get { function, lock_flags, mmio_offset } => Ask::ReportGet {
                    function: *function,
                    lock_flags: Hex(*lock_flags),
                    mmio_reporting_offset: Hex(*mmio_offset),
                },
                ReportAction::Set { function, file } => {
                    Ask::ReportSet { function: *function, report: report_file::read(file, input)? }
                }
                ReportAction::Reset { function } => Ask::ReportReset { function: *function },
            };
            let (report, value) = typed::<Report>(connect()?.ask(ask)?)?;
            output.tell(&Item::Told("report", &value, &text::report(&report)));
            Ok(())
        }
        Command::Report(_) => {
            Err(Error::Usage("over a control socket: report get, report set or report reset".into()))
        }
        Command::Discover
        | Command::Identify
        | Command::Bank(_)
        | Command::Events(_)
        | Command::Csr(_)
        | Command::Certificate(_)
        | Command::KeyPair(_)
        | Command::Tsm(_)
        | Command::Vmm(_)
        | Command::Guest(_)
        | Command::Lock(_)
        | Command::Start
        | Command::Stop { .. }
        | Command::End
        | Command::Run(_)
        | Command::Shell
        | Command::Rekey
        | Command::P2p(_)
        | Command::Attribute(_)
        | Command::Vdm(_)
        | Command::Mmio(_)
        | Command::Config(_) => {
            Err(Error::Usage("over a control socket there are state, watch, dmabuf and report".into()))
        }
    }
}

/// Follows what happens until the end that was asked for, or for ever.
fn watch(
    connection: &mut Connection,
    args: &WatchArgs,
    until: Option<Instant>,
    output: &mut Output,
) -> Result<()> {
    connection.ask(Ask::Watch {})?;
    if let Some(wanted) = args.until_state {
        // Asked after the watch began, so that no transition can fall in between.
        let (state, _) = typed::<State>(connection.ask(Ask::State {})?)?;
        let found = state.tdis.iter().find(|tdi| concerns(args, tdi.function) && tdi.state == wanted);
        if let Some(tdi) = found {
            log::debug!("function {} is in {wanted} already", tdi.function);
            return Ok(());
        }
    }
    let begun = Instant::now();
    let mut left = args.count;
    loop {
        let Some((event, value)) = connection.event(until)? else {
            let waited_for = match (args.until_state, left) {
                (Some(state), _) => state.to_string(),
                (None, Some(left)) => format!("{left} more events"),
                (None, None) => return Ok(()),
            };
            return Err(Error::TimedOut { what: waited_for, after: begun.elapsed() });
        };
        output.tell(&Item::Told("event", &value, &text::event(&event, &value)));
        left = left.map(|left| left.saturating_sub(1));
        let there = args.until_state.is_some_and(|wanted| reaches(args, &event, wanted));
        if there || left == Some(0) || output.is_broken() {
            return if there || args.until_state.is_none() || output.is_broken() {
                Ok(())
            } else {
                Err(Error::Check(format!("{} events, and none led to the state", args.count.unwrap_or(0))))
            };
        }
    }
}

fn concerns(args: &WatchArgs, function: usize) -> bool {
    args.function.is_none_or(|wanted| wanted == function)
}

fn reaches(args: &WatchArgs, event: &Event, wanted: TdiState) -> bool {
    matches!(&event.what, Happening::Transition { function, to, .. } if *to == wanted && concerns(args, *function))
}

/// A result as it is understood, and as it came.
fn typed<T: DeserializeOwned>(value: Value) -> Result<(T, Value)> {
    serde_json::from_value(value.clone())
        .map(|typed| (typed, value))
        .map_err(|error| Error::Protocol(format!("control socket: a result that is none: {error}")))
}
