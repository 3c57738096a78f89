//! The programs under test: the device, the host's side of it, and what plays user space for vfio-pci.
//!
//! They are static and optimised a little: in a guest they run from a bare initramfs, and every instruction is emulated. Tests on this
//! machine take the same ones, so that there is one build of what they are made of, and programs to copy to any machine.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Naming it on the command line keeps `RUSTFLAGS` away from build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo did not start.
    #[error("cannot run cargo: {0}")]
    NotRun(#[from] io::Error),
    /// The build failed; cargo has said why on standard error.
    #[error("building the programs failed ({0})")]
    Failed(ExitStatus),
    /// There is no program where one is expected.
    #[error("no program at {0}")]
    Missing(PathBuf),
}

/// The programs of this workspace.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The device.
    pub tdispd: PathBuf,
    /// The requester.
    pub tdispctl: PathBuf,
    /// Plays vfio-pci's user space in a guest.
    pub vfio_export: PathBuf,
}

impl Programs {
    /// Builds all of them in one go (nothing to do if they are up to date): what one of them asks of a common dependency is then no
    /// reason to compile that twice. `TDISPD`, `TDISPCTL` and `VFIO_EXPORT` in the environment name ready-made ones instead.
    pub fn build() -> Result<Self, BuildError> {
        let named = ["TDISPD", "TDISPCTL", "VFIO_EXPORT"].map(env::var_os);
        let built = if named.iter().all(Option::is_some) { PathBuf::new() } else { build()? };
        let [tdispd, tdispctl, vfio_export] = named;
        let program = |named: Option<OsString>, name| {
            let path = named.map_or_else(|| built.join(name), PathBuf::from);
            if path.is_file() { Ok(path) } else { Err(BuildError::Missing(path)) }
        };
        Ok(Self {
            tdispd: program(tdispd, "tdispd")?,
            tdispctl: program(tdispctl, "tdispctl")?,
            vfio_export: program(vfio_export, "vfio-export")?,
        })
    }
}

/// Builds the programs and returns the directory that they are in.
fn build() -> Result<PathBuf, BuildError> {
    // By its one name: another name for the same directory would make every build start over.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    // Absolute, because cargo starts in another directory.
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => std::path::absolute(directory)?,
        None => workspace.join("target"),
    };
    // A directory of its own: other flags in the same one would do that, too.
    let target = target.join("static");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test of itself is none of the programs' business: build scripts ask for these, and would start over.
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in env::vars_os().filter(|(name, _)| of_package(name)) {
        command.env_remove(name);
    }
    let status = command
        .current_dir(&workspace)
        .args(["build", "--quiet", "--locked", "--profile", "guest", "--target", TARGET])
        .args(["--package", "tdispd", "--package", "tdispctl", "--package", "vfio-export", "--bins"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()?;
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    Ok(target.join(TARGET).join("guest"))
}
