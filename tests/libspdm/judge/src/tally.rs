//! Counts what passed and failed, per version, algorithms and role, for the closing table of `ci/interop`.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Case;

/// The results of one suite.
pub struct Tally {
    role: &'static str,
    suite: &'static str,
    rows: BTreeMap<(String, String), (usize, usize)>,
    failures: Vec<String>,
}

impl Tally {
    /// `role` is ours (`responder`, `requester`), or `alike` for answers compared with libspdm's.
    pub fn new(role: &'static str, suite: &'static str) -> Self {
        Self { role, suite, rows: BTreeMap::new(), failures: Vec::new() }
    }

    /// Runs one check, which fails by panicking, and goes on.
    pub fn check(&mut self, case: &Case, what: &str, check: impl FnOnce()) {
        let passed = catch_unwind(AssertUnwindSafe(check)).is_ok();
        let row = self.rows.entry((case.version.to_string(), case.to_string())).or_default();
        if passed {
            row.0 += 1;
        } else {
            row.1 += 1;
            eprintln!("FAILED: {} {} {what}: {case:?}", self.role, self.suite);
            self.failures.push(what.to_owned());
        }
    }

    /// Appends the counts to the file that `INTEROP_REPORT` names, if any; fails if a check did.
    pub fn finish(self) {
        let mut text = String::new();
        for ((version, algorithms), (passed, failed)) in &self.rows {
            text += &format!("{version} {algorithms} {} {} {passed} {failed}\n", self.role, self.suite);
        }
        if let Some(path) = std::env::var_os("INTEROP_REPORT") {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        assert!(self.failures.is_empty(), "{} failed: {:?}", self.failures.len(), self.failures);
    }
}

/// `INTEROP_CASE`: the number of the only case of a matrix to run.
pub fn only_case() -> Option<usize> {
    Some(std::env::var("INTEROP_CASE").ok()?.parse().expect("INTEROP_CASE is a number"))
}

/// `INTEROP_WALKS`: how many random walks to make, 60 if nothing says so.
pub fn walks() -> u64 {
    std::env::var("INTEROP_WALKS").map_or(60, |text| text.parse().expect("INTEROP_WALKS is a number"))
}
