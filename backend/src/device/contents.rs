//! What memory holds before anyone has written to it: files that the configuration names, read at the start and after each
//! reset for the host, and at START for the TVM.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mmio::{ByteSize, LoadError, Tee};

use super::bars::Bars;
use super::build::BuildError;
use crate::config::{ConfigError, Function};

/// One range and its file.
#[derive(Debug)]
struct Content {
    bar: u8,
    /// Position of the range in the BAR.
    range: usize,
    file: PathBuf,
    /// Name of the field that says so.
    field: String,
}

/// Everything of one function.
#[derive(Debug, Default)]
pub(super) struct Contents(Vec<Content>);

impl Contents {
    /// Of function `number`.
    pub(super) fn new(function: &Function, number: usize) -> Self {
        let of =
            |(bar, range, file, field): (_, _, &Path, _)| Content { bar, range, file: file.into(), field };
        Self(function.files(number).map(of).collect())
    }

    /// Reads every file into its range, as one side sees it; one that cannot be read leaves zeroes.
    ///
    /// # Errors
    /// The first failure; the other files were read nevertheless.
    pub(super) fn load(&self, bars: &mut Bars, side: Tee) -> Result<(), BuildError> {
        let results: Vec<_> = self.0.iter().map(|content| content.load(bars, side)).collect();
        results.into_iter().collect()
    }
}

impl Content {
    fn load(&self, bars: &mut Bars, side: Tee) -> Result<(), BuildError> {
        let wrong = |problem: &dyn core::fmt::Display| {
            BuildError::from(ConfigError::value(&self.field, format!("{}: {problem}", self.file.display())))
        };
        let Some(bar) = bars.get_mut(self.bar) else { return Ok(()) };
        let mut file = open(&self.file).map_err(|error| wrong(&error))?;
        bar.load(self.range, &mut file, side).map_err(|error| match error {
            LoadError::Memory(error) => error.into(),
            LoadError::TooLarge(size) => {
                // If it cannot be told, the sentence is the same without it.
                let length =
                    file.metadata().map(|known| format!(" ({} bytes)", known.len())).unwrap_or_default();
                wrong(&format!("the file{length} is larger than the range, which has {}", ByteSize(size)))
            }
            LoadError::Source(error) => wrong(&error),
            LoadError::NotMemory(_) => wrong(&error),
        })
    }
}

/// A regular file: opening a pipe would wait for whoever writes into it, and a device never ends.
fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use mmio::RegisterBlock;

    use super::super::bars::Requester;
    use super::*;
    use crate::config::{Config, Mmio};
    use crate::device::bars::BarRegion;

    /// BAR 3 of a function: a page of registers, and one of memory with this file.
    fn function(file: &Path) -> Function {
        let text = format!(
            "[[function]]\n[[function.bar]]\nindex = 3\n\
             [[function.bar.range]]\nkind = \"registers\"\nsize = \"4K\"\nside = \"private\"\n\
             [[function.bar.range]]\nkind = \"memory\"\nsize = \"4K\"\nside = \"private\"\nfile = {file:?}\n"
        );
        let config: Config = toml::from_str(&text).unwrap();
        config.check().unwrap();
        config.functions.into_iter().next().unwrap()
    }

    fn bars(function: &Function) -> Bars {
        Bars::new(function.layout(0).unwrap().bars(), &Mmio::default(), None).unwrap()
    }

    struct Nothing;

    impl RegisterBlock for Nothing {
        fn read(&mut self, _: mmio::Place, _: &mut [u8]) {}
        fn write(&mut self, _: mmio::Place, _: &[u8]) {}
    }

    fn memory(bars: &mut Bars) -> Vec<u8> {
        let region = BarRegion { bar: 3, window: false };
        let mut data = vec![0xA5; 4096];
        bars.read(Requester::Memory, region, mmio::TdiPhase::Unlocked, 4096, &mut data, &mut Nothing)
            .unwrap();
        data
    }

    #[test]
    fn a_file_is_read_again_each_time_and_padded_with_zeroes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rom.bin");
        let function = function(&file);
        let contents = Contents::new(&function, 0);
        let mut bars = bars(&function);
        for text in [&b"first, and longer"[..], b"second", b"", &[7; 4096]] {
            std::fs::write(&file, text).unwrap();
            contents.load(&mut bars, Tee::NonTee).unwrap();
            let mut expected = text.to_vec();
            expected.resize(4096, 0);
            assert_eq!(memory(&mut bars), expected);
        }
        assert_eq!(std::fs::read(&file).unwrap(), [7; 4096]);
    }

    #[test]
    fn what_is_no_contents_names_field_and_file_and_leaves_zeroes() {
        let directory = tempfile::tempdir().unwrap();
        let large = directory.path().join("large");
        std::fs::write(&large, [1; 4097]).unwrap();
        let cases = [
            (large.as_path(), "(4097 bytes) is larger than the range, which has 4K"),
            (directory.path(), "not a regular file"),
            (Path::new("/dev/zero"), "not a regular file"),
            (Path::new("/nowhere/rom"), "No such file"),
        ];
        for (file, expected) in cases {
            let function = function(file);
            let mut bars = bars(&function);
            bars.get_mut(3).unwrap().load(1, &mut &[5; 4096][..], Tee::NonTee).unwrap();
            let error = Contents::new(&function, 2).load(&mut bars, Tee::NonTee).unwrap_err();
            assert!(matches!(error, BuildError::Config(_)), "{error:?}");
            let text = error.to_string();
            let start = format!("function[2].bar[0].range[1].file: {}: ", file.display());
            assert!(text.starts_with(&start) && text.contains(expected), "{text}");
        }
    }
}
