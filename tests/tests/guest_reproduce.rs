//! Every bug of `qemu-config/reproduce` shows on the testbed's kernel. One that does not any more has been mended, and its reproducer
//! has done its work.
#![allow(clippy::unwrap_used)]

use qemu_config::reproduce::BUGS;
use tests::guest::{logs, prepare};

#[test]
fn every_bug_shows_on_the_stock_kernel() {
    for bug in BUGS {
        let Some(prepared) = prepare(bug.name) else { return };
        if std::env::var_os("KERNEL").is_some() {
            // Not with eprintln!, whose text the test harness keeps to itself.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED {}: this KERNEL may be fine", bug.name);
            return;
        }
        let logs = logs(&format!("reproduce-{}", bug.name));
        std::fs::create_dir_all(&logs).unwrap();
        let outcome = bug.reproduce(&prepared.testbed, &prepared.programs, &logs).unwrap();
        assert!(outcome.showed, "{}: {:#?}", bug.name, outcome.evidence);
    }
}
