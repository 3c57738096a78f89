//! `tdispctl tsm vm`: what a VMM does for its guest, one line at a time. The VM is a real one of KVM's, since the core wants one.

use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::AsRawFd;

use serde_json::json;

use super::VmArgs;
use super::abi::MAX;
use super::channel::Binder;
use crate::cli::number;
use crate::error::{Error, Result};
use crate::output::{Item, Output};
use crate::vmm::create_vm;
use crate::walk::report_facts;

/// Longest line taken.
const MAX_LINE: u64 = 4096;

/// Carries out lines until the end of input or `quit`; the binding ends with it. Returns the first failure's exit code.
pub(super) fn run(args: &VmArgs, input: &mut dyn BufRead, mut output: Output) -> Result<u8> {
    let binder = Binder::open(&args.file)?;
    let vm = create_vm()?;
    output.tell(&Item::Told(
        "ready",
        &json!({ "function": args.function.to_string() }),
        "a VM, without processors",
    ));
    let mut first = 0;
    loop {
        let mut line = Vec::new();
        let read = input.take(MAX_LINE).read_until(b'\n', &mut line).map_err(Error::io("reading a line"))?;
        let line = String::from_utf8_lossy(&line);
        output.begin();
        let result = match line.trim() {
            _ if read == 0 => return Ok(first),
            "quit" => return Ok(first),
            "" => continue,
            "bind" => bind(&binder, &vm, args),
            "unbind" => binder.unbind(),
            "state" => state(&binder, &mut output),
            "report" => report(&binder, MAX, &mut output),
            "start" => binder.start(),
            other => match other.split_once(' ') {
                Some(("bind", path)) => {
                    File::open(path).map_err(Error::io(path)).and_then(|file| bind(&binder, &file, args))
                }
                Some(("report", room)) => number(room)
                    .map_err(|why| Error::Usage(format!("report [BYTES]: {why}")))
                    .and_then(|room| report(&binder, room, &mut output)),
                Some(_) | None => Err(Error::Usage(format!(
                    "'{other}' is none of bind, state, report, start, unbind and quit"
                ))),
            },
        };
        let code = output.finish(result);
        if first == 0 {
            first = code;
        }
    }
}

fn bind(binder: &Binder, vm: &impl AsRawFd, args: &VmArgs) -> Result<()> {
    let id = args.tdi_id.unwrap_or_else(|| args.function.requester_id().into());
    binder.bind(vm, args.function, id)
}

fn state(binder: &Binder, output: &mut Output) -> Result<()> {
    let state = binder.state()?.to_string();
    output.tell(&Item::Told("tdi", &json!({ "state": state }), &state));
    Ok(())
}

fn report(binder: &Binder, room: usize, output: &mut Output) -> Result<()> {
    let (report, bytes) = binder.report(room)?;
    output.tell(&Item::Value("report", 0, &bytes));
    let mut facts = report_facts(&report);
    for range in &report.ranges {
        let side = if range.attributes.non_tee() { "shared" } else { "private" };
        facts.push((format!("page {:#x}", range.first_page), format!("{} pages, {side}", range.pages)));
    }
    output.tell(&Item::Facts("interface report", &facts));
    Ok(())
}
