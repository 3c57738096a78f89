//! The programs under test: builds `tdispd`, and a static `tdispctl` that runs in a bare initramfs.
//!
//! What is optimised is static, the device too: one build of what both are made of, and programs to copy to any machine.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Naming it on the command line keeps `RUSTFLAGS` away from build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the device is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As `cargo build` does.
    Dev,
    /// Optimised and statically linked: they run in guests, too.
    Guest,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo did not start.
    #[error("cannot run cargo: {0}")]
    NotRun(#[from] io::Error),
    /// The build failed; cargo has said why on standard error.
    #[error("building {package} failed ({status})")]
    Failed {
        /// The package.
        package: &'static str,
        /// How cargo ended.
        status: ExitStatus,
    },
    /// The build succeeded but left no program where it is expected.
    #[error("no program at {0} after the build")]
    Missing(PathBuf),
}

/// The programs of this workspace.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The device.
    pub tdispd: PathBuf,
    /// The requester, statically linked.
    pub tdispctl: PathBuf,
}

impl Programs {
    /// Builds both (nothing to do if they are up to date). `TDISPD` and `TDISPCTL` in the environment name ready-made ones instead.
    pub fn build(profile: Profile) -> Result<Self, BuildError> {
        let tdispd = match env::var_os("TDISPD") {
            Some(path) => existing(path.into())?,
            None => build("tdispd", profile)?,
        };
        let tdispctl = match env::var_os("TDISPCTL") {
            Some(path) => existing(path.into())?,
            // Always optimised: in the guest every instruction is emulated.
            None => build("tdispctl", Profile::Guest)?,
        };
        Ok(Self { tdispd, tdispctl })
    }
}

/// Builds `vfio-export`, statically linked, which plays vfio-pci's user space in a guest. `VFIO_EXPORT` in the environment names a
/// ready-made one instead.
pub fn vfio_export() -> Result<PathBuf, BuildError> {
    match env::var_os("VFIO_EXPORT") {
        Some(path) => existing(path.into()),
        None => build("vfio-export", Profile::Guest),
    }
}

/// Builds the program of the same name as its package.
fn build(package: &'static str, profile: Profile) -> Result<PathBuf, BuildError> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Absolute, because cargo starts in another directory.
    let mut target = match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => std::path::absolute(directory)?,
        None => workspace.join("target"),
    };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        package,
        "--bin",
        package,
    ]);
    let place = match profile {
        Profile::Dev => PathBuf::from("debug"),
        Profile::Guest => {
            // A directory of its own: other flags in the same one would make every build start over.
            target.push("static");
            command
                .args(["--profile", "guest", "--target", TARGET])
                .env("RUSTFLAGS", "-C target-feature=+crt-static");
            command.env_remove("CARGO_ENCODED_RUSTFLAGS");
            Path::new(TARGET).join("guest")
        }
    };
    let status = command.arg("--target-dir").arg(&target).status()?;
    if !status.success() {
        return Err(BuildError::Failed { package, status });
    }
    existing(target.join(place).join(package))
}

fn existing(path: PathBuf) -> Result<PathBuf, BuildError> {
    if path.is_file() { Ok(path) } else { Err(BuildError::Missing(path)) }
}
