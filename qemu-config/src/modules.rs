//! Which files a kernel module needs loaded, and in what order: a reading of `modules.dep` and `modules.builtin`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// Why modules could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A list that every module directory has cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The list.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No such module, neither as a file nor built in.
    #[error("the kernel has no module '{0}'")]
    Unknown(String),
    /// `modules.dep` has a cycle.
    #[error("module '{0}' depends on itself")]
    Cycle(String),
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    /// Module name → its file and the files it needs, as `modules.dep` gives them.
    files: HashMap<String, (String, Vec<String>)>,
    builtin: HashSet<String>,
}

impl Modules {
    /// Reads the lists of a module directory (`/lib/modules/VERSION`).
    pub fn open(directory: &Path) -> Result<Self, ModuleError> {
        let dependencies = read(&directory.join("modules.dep"))?;
        // A kernel with everything built in still has it; hand-made directories may not.
        let builtin = read(&directory.join("modules.builtin")).unwrap_or_default();
        Ok(Self::parse(directory, &dependencies, &builtin))
    }

    fn parse(directory: &Path, dependencies: &str, builtin: &str) -> Self {
        let files = dependencies.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name(file), (file.to_owned(), needs)))
        });
        Self {
            directory: directory.to_owned(),
            files: files.collect(),
            builtin: builtin.lines().map(name).collect(),
        }
    }

    /// The files to load for these modules, dependencies first, each once; built-in modules need none.
    pub fn resolve<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<PathBuf>, ModuleError> {
        let mut order = Vec::new();
        for module in names {
            self.visit(&name(module), &mut Vec::new(), &mut order)?;
        }
        Ok(order.into_iter().map(|file: String| self.directory.join(file)).collect())
    }

    fn visit(
        &self,
        module: &str,
        path: &mut Vec<String>,
        order: &mut Vec<String>,
    ) -> Result<(), ModuleError> {
        let Some((file, needs)) = self.files.get(module) else {
            let known = self.builtin.contains(module);
            return if known { Ok(()) } else { Err(ModuleError::Unknown(module.to_owned())) };
        };
        if order.contains(file) {
            return Ok(());
        }
        if path.iter().any(|step| step == module) {
            return Err(ModuleError::Cycle(module.to_owned()));
        }
        path.push(module.to_owned());
        for need in needs {
            self.visit(&name(need), path, order)?;
        }
        path.pop();
        order.push(file.clone());
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, ModuleError> {
    std::fs::read_to_string(path).map_err(|source| ModuleError::Unreadable { path: path.to_owned(), source })
}

/// `kernel/drivers/uio/uio-pci.ko.xz` → `uio_pci`: the kernel's names have underscores, file names may not.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/a.ko.xz: kernel/b.ko.xz kernel/c-d.ko.xz\n\
        kernel/b.ko.xz: kernel/c-d.ko.xz\n\
        kernel/c-d.ko.xz:\n\
        kernel/loop1.ko: kernel/loop2.ko\n\
        kernel/loop2.ko: kernel/loop1.ko\n";

    fn modules() -> Modules {
        Modules::parse(Path::new("/m"), DEPENDENCIES, "kernel/net/inside.ko\n")
    }

    fn resolved(names: &[&str]) -> Vec<String> {
        let files = modules().resolve(names.iter().copied()).unwrap();
        files.iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        assert_eq!(resolved(&["a", "b"]), ["/m/kernel/c-d.ko.xz", "/m/kernel/b.ko.xz", "/m/kernel/a.ko.xz"]);
        assert_eq!(resolved(&["c_d", "c-d"]), ["/m/kernel/c-d.ko.xz"]);
    }

    #[test]
    fn a_built_in_module_needs_no_file() {
        assert_eq!(resolved(&["inside"]), [""; 0]);
    }

    #[test]
    fn unknown_modules_and_cycles_are_named() {
        assert_eq!(modules().resolve(["gone"]).unwrap_err().to_string(), "the kernel has no module 'gone'");
        assert_eq!(modules().resolve(["loop1"]).unwrap_err().to_string(), "module 'loop1' depends on itself");
    }
}
