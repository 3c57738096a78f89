//! Kernel modules of one's own for the testbed's kernel: copies their source beside the build's other products, and has
//! `build-module` compile it there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub enum KbuildError {
    /// A file cannot be read or written.
    #[error("cannot copy {path}: {source}")]
    File {
        /// The file, or the directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The script did not start.
    #[error("cannot run {path}: {source}")]
    NotRun {
        /// The script.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The build failed; the script or the compiler has said why on standard error.
    #[error(
        "building the kernel module {name} failed ({status}; build-module --help says what the exit codes mean)"
    )]
    Failed {
        /// The module.
        name: String,
        /// How the script ended.
        status: ExitStatus,
    },
    /// The build succeeded but left no module where it is expected.
    #[error("no module at {0} after the build")]
    Missing(PathBuf),
}

/// Builds the module `name` from the files in `source`, in the directory `work`, and returns its `.ko`. What is unchanged is not
/// built again. The first build of a testbed fetches headers and a compiler (network, about 90 MB).
///
/// # Errors
/// A file cannot be copied, or there is no module after the build.
pub fn build(name: &str, source: &Path, work: &Path) -> Result<PathBuf, KbuildError> {
    copy(source, work)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build-module");
    // Make is talkative; its errors go to standard error.
    let status = Command::new(&script)
        .arg(work)
        .arg("--silent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|source| KbuildError::NotRun { path: script, source })?;
    if !status.success() {
        return Err(KbuildError::Failed { name: name.to_owned(), status });
    }
    let module = work.join(name).with_extension("ko");
    if module.is_file() { Ok(module) } else { Err(KbuildError::Missing(module)) }
}

/// Copies the files that differ: make goes by their times.
fn copy(source: &Path, work: &Path) -> Result<(), KbuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KbuildError::File { path, source }
    };
    fs::create_dir_all(work).map_err(failed(work))?;
    for entry in fs::read_dir(source).map_err(failed(source))? {
        let path = entry.map_err(failed(source))?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        let text = fs::read(&path).map_err(failed(&path))?;
        let to = work.join(name);
        if fs::read(&to).ok().as_ref() != Some(&text) {
            fs::write(&to, &text).map_err(failed(&to))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (source, work) = (directory.path().join("source"), directory.path().join("work"));
        fs::create_dir_all(source.join("not copied")).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        fs::write(source.join("b"), "two").unwrap();
        copy(&source, &work).unwrap();
        let time = |name: &str| fs::metadata(work.join(name)).unwrap().modified().unwrap();
        let before = (time("a"), time("b"));
        fs::write(source.join("b"), "three").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        copy(&source, &work).unwrap();
        assert_eq!(time("a"), before.0);
        assert!(time("b") > before.1);
        assert_eq!(fs::read(work.join("b")).unwrap(), b"three");
        assert!(!work.join("not copied").exists());
        assert!(matches!(copy(&directory.path().join("none"), &work), Err(KbuildError::File { .. })));
    }
}
