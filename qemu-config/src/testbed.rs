//! The testbed as seen from Rust: runs the `testbed` script, which fetches what is missing, and names the parts it found.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Parts that replace the testbed's own. What is `None` falls back to `QEMU`, `KERNEL` and `MODULES` of the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The `qemu-system-x86_64` to run.
    pub qemu: Option<PathBuf>,
    /// The bzImage to boot. No modules are loaded with it unless they are given too.
    pub kernel: Option<PathBuf>,
    /// The kernel's module directory, the one with `modules.dep`.
    pub modules: Option<PathBuf>,
}

/// Why there is no testbed.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    /// The script did not start.
    #[error("cannot run {path}: {source}")]
    NotRun {
        /// The script.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The script failed; it has said why on standard error, and its exit code (`testbed --help`) says which kind.
    #[error("the testbed is not ready (exit code {})", .0.map_or_else(|| "none, killed by a signal".to_owned(), |code| code.to_string()))]
    Failed(Option<i32>),
    /// The script's answer does not parse.
    #[error("unexpected answer of the testbed: {0}")]
    Answer(#[from] serde_json::Error),
    /// The list of versions cannot be read.
    #[error("cannot read {path}: {source}")]
    Versions {
        /// The list.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where everything a guest is made of lies.
#[derive(Debug, Clone)]
pub struct Testbed {
    /// The QEMU to run.
    pub qemu: PathBuf,
    /// The bzImage to boot.
    pub kernel: PathBuf,
    /// The kernel's modules; `None` if it was given without any.
    pub modules: Option<PathBuf>,
    /// The unpacked packages: busybox, lspci and their libraries are in it.
    pub root: PathBuf,
    /// The directory of `qemu-img`, `qemu-io` and `qemu-storage-daemon`, which find libblkio.
    pub tools: PathBuf,
    /// Package name → version, of everything under `root`.
    pub versions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Answer {
    qemu: PathBuf,
    kernel: PathBuf,
    modules: PathBuf,
    root: PathBuf,
    tools: PathBuf,
    versions: PathBuf,
}

impl Testbed {
    /// Finds the testbed, fetching it first (from the network, with progress on standard error) if it is not there.
    pub fn prepare(overrides: &Overrides) -> Result<Self, TestbedError> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed");
        let mut command = Command::new(&path);
        command.arg("--json").stdin(Stdio::null()).stderr(Stdio::inherit());
        let options =
            [("--qemu", &overrides.qemu), ("--kernel", &overrides.kernel), ("--modules", &overrides.modules)];
        for (option, value) in options {
            if let Some(value) = value {
                command.arg(option).arg(value);
            }
        }
        let output = command.output().map_err(|source| TestbedError::NotRun { path, source })?;
        if !output.status.success() {
            return Err(TestbedError::Failed(output.status.code()));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)?;
        let versions = std::fs::read_to_string(&answer.versions)
            .map_err(|source| TestbedError::Versions { path: answer.versions.clone(), source })?;
        Ok(Self {
            qemu: answer.qemu,
            kernel: answer.kernel,
            modules: Some(answer.modules).filter(|path| !path.as_os_str().is_empty()),
            root: answer.root,
            tools: answer.tools,
            versions: parse_versions(&versions),
        })
    }

    /// The version of an unpacked package, without the epoch and the Debian revision: `3.13.0` for pciutils `1:3.13.0-2`.
    pub fn upstream_version(&self, package: &str) -> Option<&str> {
        let version = self.versions.get(package)?;
        let version = version.split_once(':').map_or(version.as_str(), |(_, rest)| rest);
        Some(version.rsplit_once('-').map_or(version, |(upstream, _)| upstream))
    }
}

fn parse_versions(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(package, version)| (package.to_owned(), version.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_lose_epoch_and_revision() {
        let testbed = Testbed {
            qemu: PathBuf::new(),
            kernel: PathBuf::new(),
            modules: None,
            root: PathBuf::new(),
            tools: PathBuf::new(),
            versions: parse_versions("pciutils=1:3.13.0-2\nlinux=7.3.4-1~bpo13+1\nplain=5\n\nnoise\n"),
        };
        assert_eq!(testbed.upstream_version("pciutils"), Some("3.13.0"));
        assert_eq!(testbed.upstream_version("linux"), Some("7.3.4"));
        assert_eq!(testbed.upstream_version("plain"), Some("5"));
        assert_eq!(testbed.upstream_version("noise"), None);
    }
}
