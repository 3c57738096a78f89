//! Puts an initramfs together: busybox, pciutils, kernel modules, the programs under test, and the init that obeys the host.

use crate::cpio::{Archive, TooLarge};
use crate::modules::{ModuleError, Modules};
use crate::testbed::Testbed;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const INIT: &[u8] = include_bytes!("../guest/init");
const DIRECTORIES: [&str; 11] = [
    "bin",
    "etc",
    "lib64",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/local",
    "usr/local/bin",
    "usr/share",
    "usr/share/misc",
];

/// Why no initramfs could be built.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file that belongs into it cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A kernel module cannot be found.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Modules were asked for, but the kernel was given without a module directory.
    #[error(
        "module '{0}' is wanted, but the kernel was given without its modules (MODULES=DIR, or --modules)"
    )]
    NoModules(String),
    /// A program of the testbed does not say which libraries it needs.
    #[error("cannot find the libraries of {program}: {reason}")]
    Libraries {
        /// The program.
        program: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file is too large for the archive.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// What goes into an initramfs, beside busybox, pciutils and init.
#[derive(Debug, Clone)]
pub struct Initramfs {
    testbed: Testbed,
    programs: Vec<(String, PathBuf)>,
    modules: Vec<String>,
    module_files: Vec<PathBuf>,
}

impl Initramfs {
    /// An initramfs with nothing but the basic system.
    pub fn new(testbed: &Testbed) -> Self {
        Self { testbed: testbed.clone(), programs: Vec::new(), modules: Vec::new(), module_files: Vec::new() }
    }

    /// Adds a statically linked program, which the guest finds by this name in its PATH.
    #[must_use]
    pub fn program(mut self, name: &str, path: &Path) -> Self {
        self.programs.push((name.to_owned(), path.to_owned()));
        self
    }

    /// Adds a kernel module with all it depends on; init loads it.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Adds a kernel module of one's own, which `kbuild` has built; init loads it after all others.
    #[must_use]
    pub fn module_file(mut self, path: &Path) -> Self {
        self.module_files.push(path.to_owned());
        self
    }

    /// Reads every part and returns the archive, uncompressed.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        let root = &self.testbed.root;
        let mut archive = Archive::new();
        for directory in DIRECTORIES {
            archive.directory(directory, 0o755)?;
        }
        archive.file("init", 0o755, INIT)?;
        archive.file("bin/busybox", 0o755, &read(&root.join("usr/bin/busybox"))?)?;
        self.add_pciutils(&mut archive)?;
        for (name, path) in &self.programs {
            archive.file(&format!("usr/local/bin/{name}"), 0o755, &read(path)?)?;
        }
        self.add_modules(&mut archive)?;
        Ok(archive.finish()?)
    }

    /// lspci and setpci are linked dynamically: their libraries go where the loader looks without any configuration.
    fn add_pciutils(&self, archive: &mut Archive) -> Result<(), InitramfsError> {
        let root = &self.testbed.root;
        let mut needed = BTreeSet::new();
        for name in ["lspci", "setpci"] {
            let program = root.join("usr/bin").join(name);
            archive.file(&format!("usr/bin/{name}"), 0o755, &read(&program)?)?;
            needed.extend(libraries(root, &program)?);
        }
        archive.file("lib64/ld-linux-x86-64.so.2", 0o755, &read(&loader(root))?)?;
        for library in needed {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("usr/lib/x86_64-linux-gnu/{name}"), 0o644, &read(&library)?)?;
        }
        archive.file("usr/share/misc/pci.ids", 0o644, &read(&root.join("usr/share/misc/pci.ids"))?)?;
        Ok(())
    }

    fn add_modules(&self, archive: &mut Archive) -> Result<(), InitramfsError> {
        let mut files = Vec::new();
        if let Some(first) = self.modules.first() {
            let directory =
                self.testbed.modules.as_ref().ok_or_else(|| InitramfsError::NoModules(first.clone()))?;
            files = Modules::open(directory)?.resolve(self.modules.iter().map(String::as_str))?;
        }
        files.extend_from_slice(&self.module_files);
        let mut list = String::new();
        archive.directory("modules", 0o755)?;
        for (index, file) in files.iter().enumerate() {
            // Numbered: two modules of one kernel may share a file name.
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let path = format!("modules/{index}-{name}");
            archive.file(&path, 0o644, &read(file)?)?;
            list.push_str(&format!("/{path}\n"));
        }
        archive.file("etc/modules", 0o644, list.as_bytes())?;
        Ok(())
    }
}

fn loader(root: &Path) -> PathBuf {
    root.join("usr/lib64/ld-linux-x86-64.so.2")
}

/// The shared libraries a program of the testbed loads, as its own loader lists them.
fn libraries(root: &Path, program: &Path) -> Result<BTreeSet<PathBuf>, InitramfsError> {
    let failed = |reason| InitramfsError::Libraries { program: program.to_owned(), reason };
    let output = Command::new(loader(root))
        .arg("--library-path")
        .arg(root.join("usr/lib/x86_64-linux-gnu"))
        .arg("--list")
        .arg(program)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(parse_libraries(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `NAME => PATH (ADDRESS)`; the vdso and the loader itself have no arrow.
fn parse_libraries(list: &str) -> BTreeSet<PathBuf> {
    let paths = list.lines().filter_map(|line| line.split_once(" => ")?.1.split(" (").next());
    paths.map(PathBuf::from).filter(|path| !path.ends_with("ld-linux-x86-64.so.2")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    std::fs::read(path).map_err(|source| InitramfsError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_understood() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibpci.so.3 => /r/a b/libpci.so.3 (0x00007f)\n\
            \tlibc.so.6 => /r/libc.so.6 (0x7f)\n\t/r/ld-linux-x86-64.so.2 (0x7f)\n\
            \t/lib64/ld-linux-x86-64.so.2 => /r/ld-linux-x86-64.so.2 (0x7f)\n";
        let expected = ["/r/a b/libpci.so.3", "/r/libc.so.6"].map(PathBuf::from);
        assert_eq!(parse_libraries(list), BTreeSet::from(expected));
    }
}
