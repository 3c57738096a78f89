//! Kernel modules of ours: built for the testbed's kernel, or named by the environment for the kernel that `KERNEL` names.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use qemu_config::kbuild;

use super::{or_fail, target_directory};

/// The directory of `host/kmod`'s modules (`TDISPD_KMOD`, or `KDIR`); `None`, which it says, if there are none for this kernel.
pub fn kmod(test: &str) -> Option<PathBuf> {
    let own_kernel = env::var_os("KERNEL").is_some();
    let modules =
        or_fail(kbuild::tsm_modules(&target_directory().join("kmod"), own_kernel), "kernel modules");
    if modules.is_none() {
        skipped(test, "TDISPD_KMOD=DIRECTORY or KDIR=DIRECTORY");
    }
    modules
}

/// The module that has QEMU's edu device import dma-bufs (`EDU_DMABUF`), likewise.
pub fn importer(test: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os("EDU_DMABUF") {
        return Some(path.into());
    }
    if env::var_os("KERNEL").is_some() {
        skipped(test, "EDU_DMABUF=edu_dmabuf.ko");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("vfio-export/importer");
    Some(or_fail(
        kbuild::build("edu_dmabuf", &source, &target_directory().join("edu_dmabuf")),
        "a kernel module",
    ))
}

fn skipped(test: &str, missing: &str) {
    // Not with eprintln!, whose text the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "SKIPPED guest test {test}: no {missing} for this KERNEL");
}
