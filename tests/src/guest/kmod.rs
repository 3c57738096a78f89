//! The kernel modules of `host/kmod`, for guests.
#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use qemu_config::kbuild;

use super::target_directory;

/// The modules for the testbed's kernel, or those in the directory that `TDISPD_KMOD` names, for the kernel that `KERNEL` does; `None` if
/// there are none for that one, which is said.
pub fn tsm_modules(test: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os("TDISPD_KMOD") {
        return Some(path.into());
    }
    if env::var_os("KERNEL").is_some() {
        // Not with eprintln!, whose text the test harness keeps to itself.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED guest test {test}: no TDISPD_KMOD=DIRECTORY with modules for this KERNEL"
        );
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/kmod");
    // Each test in a directory of its own: they may run at the same time.
    let module = kbuild::build("tdispd_tsm", &source, &target_directory().join("kmod").join(test)).unwrap();
    Some(module.parent().unwrap().to_owned())
}
