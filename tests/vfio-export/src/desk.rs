//! Carries commands out, and keeps the dma-bufs that they name.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use tdispctl::vmm::{Device, Import};

use crate::command::Command;

/// The most dma-bufs at once.
const MAX_EXPORTS: usize = 64;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// By the kernel: the error's name is the answer.
    #[error("{0:?}")]
    Kernel(#[from] Errno),
    #[error("usage: no dma-buf '{0}'")]
    Unknown(String),
    #[error("usage: '{0}' is not attached")]
    NotAttached(String),
    #[error("usage: the device was left")]
    Left,
    #[error("usage: there is a dma-buf '{0}' already, or too many others")]
    Taken(String),
}

/// A dma-buf, and the edu device's import of it.
#[derive(Debug)]
struct Export {
    // Dropped in this order, as a driver would.
    import: Option<Import>,
    dmabuf: OwnedFd,
    length: usize,
}

/// An open device and its dma-bufs.
#[derive(Debug)]
pub(crate) struct Desk {
    exports: BTreeMap<String, Export>,
    /// Until it is left.
    device: Option<Device>,
}

impl Desk {
    pub(crate) fn new(device: Device) -> Self {
        Self { exports: BTreeMap::new(), device: Some(device) }
    }

    /// Carries a command out; the text is its result, if it has one.
    pub(crate) fn obey(&mut self, command: &Command) -> Result<String, Refused> {
        let done = |()| String::new();
        Ok(match command {
            Command::Probe => self.device()?.probe().map(done)?,
            Command::Export { name, region, flags, open_flags, ranges } => {
                if self.exports.contains_key(name) || self.exports.len() >= MAX_EXPORTS {
                    return Err(Refused::Taken(name.clone()));
                }
                let dmabuf = self.device()?.export(*region, *open_flags, *flags, ranges)?;
                let length = rustix::fs::seek(&dmabuf, rustix::fs::SeekFrom::End(0)).map_err(kernel)?;
                let length = usize::try_from(length).map_err(|_| Errno::EOVERFLOW)?;
                self.exports.insert(name.clone(), Export { import: None, dmabuf, length });
                format!("{length:#x}")
            }
            Command::Mmap { name } => try_mmap(self.export(name)?).map(done)?,
            Command::Attach { name } => {
                let import = Import::attach(self.export(name)?.dmabuf.as_fd())?;
                if let Some(export) = self.exports.get_mut(name) {
                    export.import = Some(import);
                }
                String::new()
            }
            Command::Map { name } => self.import(name)?.map().map(done)?,
            Command::Unmap { name } => self.import(name)?.unmap().map(done)?,
            Command::State { name } => {
                let state = self.import(name)?.state()?;
                format!(
                    "address={:#x} length={:#x} segments={} invalidations={}",
                    state.address, state.length, state.segments, state.invalidations
                )
            }
            Command::Get { name, offset, length } => {
                let mut bytes = buffer(*length)?;
                self.import(name)?.read(*offset, &mut bytes)?;
                hex(&bytes)
            }
            Command::Put { name, offset, bytes } => self.import(name)?.write(*offset, bytes).map(done)?,
            Command::Close { name } => {
                self.exports.remove(name).map(drop).map(done).ok_or_else(|| Refused::Unknown(name.clone()))?
            }
            Command::Read { region, offset, length } => {
                let mut bytes = buffer(*length)?;
                self.device()?.read(*region, *offset, &mut bytes)?;
                hex(&bytes)
            }
            Command::Write { region, offset, bytes } => {
                self.device()?.write(*region, *offset, bytes).map(done)?
            }
            Command::Reset => self.device()?.reset().map(done)?,
            Command::Leave => {
                self.device = None;
                String::new()
            }
            // The loop around this one leaves by itself.
            Command::Quit => String::new(),
        })
    }

    fn device(&self) -> Result<&Device, Refused> {
        self.device.as_ref().ok_or(Refused::Left)
    }

    fn export(&self, name: &str) -> Result<&Export, Refused> {
        self.exports.get(name).ok_or_else(|| Refused::Unknown(name.to_owned()))
    }

    fn import(&self, name: &str) -> Result<&Import, Refused> {
        self.export(name)?.import.as_ref().ok_or_else(|| Refused::NotAttached(name.to_owned()))
    }
}

/// Maps a dma-buf and, should that work, unmaps it.
fn try_mmap(export: &Export) -> Result<(), Errno> {
    let (protection, dmabuf) = (ProtFlags::READ | ProtFlags::WRITE, &export.dmabuf);
    // SAFETY: a null hint lets the kernel choose, so no mapping of ours is replaced; nothing is accessed through the new one.
    #[allow(unsafe_code)]
    let start =
        unsafe { rustix::mm::mmap(ptr::null_mut(), export.length, protection, MapFlags::SHARED, dmabuf, 0) };
    let start = start.map_err(kernel)?;
    // SAFETY: start and length are those of the mapping above, which nobody has a pointer into.
    #[allow(unsafe_code)]
    unsafe { rustix::mm::munmap(start, export.length) }.map_err(kernel)
}

fn buffer(length: u64) -> Result<Vec<u8>, Errno> {
    usize::try_from(length).map(|length| vec![0; length]).map_err(|_| Errno::EOVERFLOW)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kernel(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
