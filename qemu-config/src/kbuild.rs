//! Kernel modules of one's own for the testbed's kernel: copies their source beside the build's other products, and has
//! `build-module` compile it there.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub enum KbuildError {
    /// A file cannot be read or written.
    #[error("cannot copy or lock {path}: {source}")]
    File {
        /// The file, or the directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The script, or make, did not start.
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
    let _one_at_a_time = lock(work)?;
    copy(source, work)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build-module");
    run(Command::new(script).arg(work).arg("--silent"), name, work)?;
    Ok(work.join(name).with_extension("ko"))
}

/// Runs what builds a module in a directory, and returns the directory.
fn run(command: &mut Command, name: &str, work: &Path) -> Result<PathBuf, KbuildError> {
    // Make is talkative; its errors go to standard error.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let path = PathBuf::from(command.get_program());
    let status = status.map_err(|source| KbuildError::NotRun { path, source })?;
    if !status.success() {
        return Err(KbuildError::Failed { name: name.to_owned(), status });
    }
    let module = work.join(name).with_extension("ko");
    if module.is_file() { Ok(work.to_owned()) } else { Err(KbuildError::Missing(module)) }
}

/// The directory of `host/kmod`'s modules: what `TDISPD_KMOD` names, those built for the kernel whose build directory `KDIR` names, with
/// this machine's compiler, or those for the testbed's kernel, built in `work`. `None` where the kernel is an `own_kernel` and nobody
/// says which.
///
/// # Errors
/// As [`build`].
pub fn tsm_modules(work: &Path, own_kernel: bool) -> Result<Option<PathBuf>, KbuildError> {
    if let Some(path) = env::var_os("TDISPD_KMOD") {
        return Ok(Some(path.into()));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/kmod");
    if let Some(kernel) = env::var_os("KDIR") {
        return build_against(&kernel, &source, &work.with_extension("own")).map(Some);
    }
    if own_kernel {
        return Ok(None);
    }
    build("tdispd_tsm", &source, work)?;
    Ok(Some(work.to_owned()))
}

/// Builds the modules with this machine's compiler, and returns the directory.
fn build_against(kernel: &OsStr, source: &Path, work: &Path) -> Result<PathBuf, KbuildError> {
    let _one_at_a_time = lock(work)?;
    copy(source, work)?;
    let mut variable = OsString::from("KDIR=");
    variable.push(kernel);
    run(Command::new("make").arg("--silent").arg("-C").arg(work).arg(variable), "tdispd_tsm", work)
}

/// Two tests may want the same module: one builds it, the other waits, and finds it up to date.
fn lock(work: &Path) -> Result<File, KbuildError> {
    let path = work.join("lock");
    let failed = |source| KbuildError::File { path: path.clone(), source };
    fs::create_dir_all(work).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
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

    /// Stands for a kernel's build directory; make does the rest as for a real one.
    #[test]
    fn a_kernels_own_build_directory_is_asked_for_the_modules() {
        let directory = tempfile::tempdir().unwrap();
        let (kernel, work) = (directory.path().join("kernel"), directory.path().join("work"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/kmod");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("Makefile"), "modules:\n\ttest -r $(M)/link.c\n").unwrap();
        let built = build_against(kernel.as_os_str(), &source, &work);
        assert!(matches!(built, Err(KbuildError::Missing(_))), "{built:?}");
        fs::write(kernel.join("Makefile"), "modules:\n\tcp $(M)/link.c $(M)/tdispd_tsm.ko\n").unwrap();
        assert_eq!(build_against(kernel.as_os_str(), &source, &work).unwrap(), work);
        let failed = build_against(OsStr::new("/nonexistent"), &source, &work);
        assert!(matches!(failed, Err(KbuildError::Failed { .. })), "{failed:?}");
    }

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
