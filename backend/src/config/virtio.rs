//! What a `[[function]]` with `kind = "virtio-blk"` says beside its BARs: `[function.virtio]`, `[function.disk]` and
//! `[function.private_disk]`.

use std::path::Path;
use std::sync::Arc;

use mmio::BarSet;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Disk, Function, Kind, Mmio, TeeSource, within};
use crate::function::virtio::{Block, BlockDisks, Locked, MAX_QUEUE_SIZE, MAX_QUEUES, Policy, Unlocked};

/// `[function.virtio]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Virtio {
    /// With `mmio.tee = "alias"`: the half of each BAR that the virtio capabilities point at.
    pub window: VirtioWindow,
    /// Most descriptors of a queue, a power of two up to 1024.
    pub queue_size: u16,
    /// What becomes of requests in CONFIG_UNLOCKED.
    pub unlocked: WhileUnlocked,
    /// What becomes of requests in CONFIG_LOCKED. With the default BARs there are none: the registers are private, and LOCK clears
    /// them.
    pub locked: WhileLocked,
}

impl Default for Virtio {
    fn default() -> Self {
        Self {
            window: VirtioWindow::default(),
            queue_size: 256,
            unlocked: WhileUnlocked::default(),
            locked: WhileLocked::default(),
        }
    }
}

/// A half of an aliased BAR, by who reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtioWindow {
    /// That of T = 0: a driver that knows nothing works in CONFIG_UNLOCKED.
    #[default]
    Plain,
    /// That of T = 1: it works in RUN only.
    Tee,
}

/// What becomes of requests in CONFIG_UNLOCKED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhileUnlocked {
    /// They are carried out, with T = 0.
    #[default]
    Serve,
    /// They wait for RUN.
    Wait,
    /// They fail: IOERR.
    Fail,
}

/// What becomes of requests in CONFIG_LOCKED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhileLocked {
    /// They wait for RUN.
    #[default]
    Wait,
    /// The device says that it needs a reset.
    Break,
}

impl From<&Virtio> for Policy {
    fn from(virtio: &Virtio) -> Self {
        Self {
            unlocked: match virtio.unlocked {
                WhileUnlocked::Serve => Unlocked::Serve,
                WhileUnlocked::Wait => Unlocked::Wait,
                WhileUnlocked::Fail => Unlocked::Fail,
            },
            locked: match virtio.locked {
                WhileLocked::Wait => Locked::Wait,
                WhileLocked::Break => Locked::Break,
            },
        }
    }
}

impl Function {
    /// Request queues; none of a function that is no disk.
    pub(super) fn queues(&self) -> u16 {
        match self.kind {
            Kind::Test => 0,
            Kind::VirtioBlk => self.disk.as_ref().map_or(Disk::default().queues, |disk| disk.queues),
        }
    }

    /// The block device; `bars` are those of [`Function::layout`].
    ///
    /// # Errors
    /// The field that names what cannot be used.
    pub fn block(&self, number: usize, bars: BarSet) -> Result<Block, ConfigError> {
        let default = Disk::default();
        let plain = self.disk.as_ref().unwrap_or(&default).open(&format!("function[{number}].disk"))?;
        let private = self.private_disk.as_ref();
        let private =
            private.map(|disk| disk.open(&format!("function[{number}].private_disk"))).transpose()?;
        let disks = BlockDisks { plain: Arc::new(plain), private: private.map(Arc::new) };
        Block::new(bars, self.virtio.queue_size, disks, (&self.virtio).into()).ok_or_else(|| {
            let problem = "a virtio function needs a range of registers, within the first 4 GiB of its BAR";
            ConfigError::value(format!("function[{number}].bar"), problem)
        })
    }

    /// Has relative paths of disks start at `directory`.
    pub(super) fn locate_disks(&mut self, directory: &Path) {
        for disk in self.disk.iter_mut().chain(&mut self.private_disk) {
            disk.locate(directory);
        }
    }

    /// Limits that the types do not express.
    pub(super) fn check_virtio(&self, number: usize, mmio: &Mmio) -> Result<(), ConfigError> {
        let field = |name: &str| format!("function[{number}].{name}");
        if self.kind == Kind::Test {
            let stray = [
                ("virtio", self.virtio != Virtio::default()),
                ("disk", self.disk.is_some()),
                ("private_disk", self.private_disk.is_some()),
            ];
            return match stray.into_iter().find(|(_, there)| *there) {
                Some((name, _)) => Err(ConfigError::value(field(name), "only kind = \"virtio-blk\" has it")),
                None => Ok(()),
            };
        }
        let (size, name) = (self.virtio.queue_size, field("virtio.queue_size"));
        within(&name, size.into(), 2, MAX_QUEUE_SIZE.into())?;
        if !size.is_power_of_two() {
            return Err(ConfigError::value(name, format!("{size} is no power of two")));
        }
        if self.virtio.window == VirtioWindow::Tee && mmio.tee != TeeSource::Alias {
            let problem = "only mmio.tee = \"alias\" has two halves to choose from";
            return Err(ConfigError::value(field("virtio.window"), problem));
        }
        if self.updatable_pages > 0 {
            let problem = "it is about the test function's memory; a disk has none";
            return Err(ConfigError::value(field("updatable_pages"), problem));
        }
        for (name, disk) in [("disk", &self.disk), ("private_disk", &self.private_disk)] {
            let Some(disk) = disk else { continue };
            disk.check(&field(name))?;
            let vhost = [
                ("client_memory", disk.client_memory != Disk::default().client_memory),
                ("poll_us", disk.poll_us != 0),
            ];
            if let Some((what, _)) = vhost.into_iter().find(|(_, there)| *there) {
                let problem = "it is for --vhost-user, and goes into [disk]";
                return Err(ConfigError::value(format!("{}.{what}", field(name)), problem));
            }
        }
        let queues = self.queues();
        within(&field("disk.queues"), queues.into(), 1, MAX_QUEUES.into())?;
        if let Some(private) = self.private_disk.as_ref().filter(|private| private.queues != queues) {
            let problem = format!("{}; the function has the {queues} of its disk", private.queues);
            return Err(ConfigError::value(field("private_disk.queues"), problem));
        }
        Ok(())
    }
}
