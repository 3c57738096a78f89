//! `[disk]`: the virtio block device, whatever it is plugged in through.

use std::path::{Path, PathBuf};

use disk::{Backing, BackingOptions, Geometry, GeometryError};
use serde::{Deserialize, Serialize};

use super::{ConfigError, size};

/// Size of a disk in memory of which the file does not say more.
const DEFAULT_SIZE: u64 = 64 << 20;

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// Raw file or block device with the disk's contents; without it, the disk is memory, all zeroes. Relative paths start
    /// where the configuration file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Size in bytes, a number or text such as "64M": a file is made that long if it is shorter or not there. Without it, the disk
    /// is as long as the file, and follows when that grows; one in memory has 64 MiB.
    #[serde(with = "size::optional", skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Logical block size in bytes: 512, 1024, 2048 or 4096.
    pub block_size: u32,
    /// Physical block size in bytes, which the guest aligns to.
    pub physical_block_size: u32,
    /// Request queues, 1–256, each with a thread of its own once it is used.
    pub queues: u16,
    /// Whether what the guest discards is given back to the host.
    pub discard: bool,
    /// Serial number that the guest sees: at most 20 characters of ASCII.
    pub serial: String,
    /// With `--vhost-user`: what memory of a client is mapped.
    pub client_memory: ClientMemory,
    /// How long a queue's thread goes on looking for requests before it sleeps, in microseconds, 0–1000000. It costs a CPU's time,
    /// and saves the client's notification.
    pub poll_us: u32,
}

/// What memory of a client is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientMemory {
    /// Memory that its owner cannot take away again: sealed memfds.
    #[default]
    Sealed,
    /// All memory. A client that truncates the file behind it, or has no huge page left, ends the process.
    Any,
}

impl Default for Disk {
    fn default() -> Self {
        let geometry = Geometry::default();
        Self {
            path: None,
            size: None,
            read_only: false,
            direct: false,
            block_size: geometry.block_size,
            physical_block_size: geometry.physical_block_size,
            queues: geometry.queues,
            discard: geometry.discard,
            serial: "tdispd".into(),
            client_memory: ClientMemory::default(),
            poll_us: 0,
        }
    }
}

impl Disk {
    /// Relative paths, seen from `directory`.
    pub(super) fn locate(&mut self, directory: &Path) {
        if let Some(path) = &mut self.path {
            *path = directory.join(&path);
        }
    }

    /// Limits that the types do not express. `table`: what the table is called.
    pub(super) fn check(&self, table: &str) -> Result<(), ConfigError> {
        let wrong = |field: &str, problem: &dyn std::fmt::Display| {
            Err(ConfigError::value(format!("{table}.{field}"), problem))
        };
        if let Err(error) = self.geometry().check() {
            return wrong(field_of(error), &error);
        }
        if let Some(size) =
            self.size.filter(|size| *size == 0 || !size.is_multiple_of(self.block_size.into()))
        {
            return wrong("size", &format!("{size} bytes are no whole blocks of {}", self.block_size));
        }
        if self.path.is_none() && self.direct {
            return wrong("direct", &"a disk in memory has no page cache to go past");
        }
        if self.poll_us > 1_000_000 {
            return wrong("poll_us", &format!("{} is outside 0–1000000", self.poll_us));
        }
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.block_size,
            physical_block_size: self.physical_block_size.max(self.block_size),
            optimal_io_size: 0,
            queues: self.queues,
            discard: self.discard,
            serial: self.serial.clone(),
        }
    }

    /// Opens the disk. `table`: what the table is called.
    ///
    /// # Errors
    /// The field that names what cannot be used.
    pub fn open(&self, table: &str) -> Result<disk::Disk, ConfigError> {
        let size = if self.path.is_none() { Some(self.size.unwrap_or(DEFAULT_SIZE)) } else { self.size };
        let options =
            BackingOptions { path: self.path.clone(), size, read_only: self.read_only, direct: self.direct };
        let name = |field: &str| format!("{table}.{field}");
        let backing = Backing::open(&options).map_err(|error| {
            use disk::OpenError as E;
            let (field, path) = match &error {
                E::Direct(_) => ("direct", true),
                E::NoSize => ("size", false),
                E::Size { .. } => ("size", true),
                E::Open(_) | E::Kind | E::InUse | E::State(_) => ("path", true),
            };
            match self.path.as_deref().filter(|_| path) {
                Some(path) => ConfigError::value(name(field), format!("{}: {error}", path.display())),
                None => ConfigError::value(name(field), error),
            }
        })?;
        if let Some(need) =
            backing.direct().map(|need| need.file).filter(|need| *need > self.block_size.into())
        {
            let problem = format!("direct I/O needs blocks of {need} bytes there, at least");
            return Err(ConfigError::value(name("block_size"), problem));
        }
        if backing.size() < self.block_size.into() {
            let problem = format!("{} bytes are not even one block; give it a size", backing.size());
            return Err(ConfigError::value(name("path"), problem));
        }
        disk::Disk::new(backing, self.geometry())
            .map_err(|error| ConfigError::value(name(field_of(error)), error))
    }
}

fn field_of(error: GeometryError) -> &'static str {
    match error {
        GeometryError::BlockSize(_) => "block_size",
        GeometryError::PhysicalBlockSize(_) | GeometryError::OptimalIoSize(_) => "physical_block_size",
        GeometryError::Queues(_) => "queues",
        GeometryError::Serial => "serial",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let check = |change: &dyn Fn(&mut Disk)| {
            let mut table = Disk::default();
            change(&mut table);
            table.locate(directory.path());
            table.check("disk").and_then(|()| table.open("disk").map(drop)).map_err(|error| error.to_string())
        };
        let error = |change: &dyn Fn(&mut Disk)| check(change).unwrap_err();
        assert_eq!(check(&|_| ()), Ok(()));
        assert!(error(&|it| it.block_size = 100).starts_with("disk.block_size: "));
        assert!(error(&|it| it.physical_block_size = 5000).starts_with("disk.physical_block_size: "));
        assert!(error(&|it| it.queues = 0).starts_with("disk.queues: "));
        assert!(error(&|it| it.serial = "x".repeat(21)).starts_with("disk.serial: "));
        assert!(error(&|it| it.size = Some(1000)).starts_with("disk.size: "));
        assert!(error(&|it| it.direct = true).starts_with("disk.direct: "));
        assert!(error(&|it| it.poll_us = 1_000_001).starts_with("disk.poll_us: "));
        let missing = error(&|it| it.path = Some("missing".into()));
        assert!(missing.starts_with("disk.path: ") && missing.contains("missing"), "{missing}");
        std::fs::write(directory.path().join("short"), [0; 511]).unwrap();
        assert!(error(&|it| it.path = Some("short".into())).starts_with("disk.path: "));
        let read_only = error(&|it| {
            (it.path, it.size, it.read_only) = (Some("short".into()), Some(1 << 20), true);
        });
        assert!(read_only.starts_with("disk.size: "), "{read_only}");
        assert_eq!(check(&|it| (it.path, it.size) = (Some("made".into()), Some(1 << 20))), Ok(()));
        assert_eq!(std::fs::metadata(directory.path().join("made")).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_file_is_written_by_one_process_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Disk { path: Some("d".into()), size: Some(4096), ..Disk::default() };
        table.locate(directory.path());
        let first = table.open("disk").unwrap();
        assert!(table.open("disk").unwrap_err().to_string().contains("another process"));
        let reader = Disk { read_only: true, ..table.clone() };
        assert!(reader.open("disk").is_err());
        drop(first);
        let readers = [reader.open("disk").unwrap(), reader.open("disk").unwrap()];
        assert!(table.open("disk").is_err());
        drop(readers);
        table.open("disk").unwrap();
    }
}
