//! A function whose DOE mailbox the kernel drives: everything else through sysfs, objects through the module of a software TSM.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spdm::doe::{Object, VENDOR_PCI_SIG};

use super::sysfs::Sysfs;
use super::{BarAccess, HostMemory, ObjectExchange, Transport};
use crate::doe::discovery;
use crate::error::{Error, Result};
use crate::pci::bars::Bar;
use crate::pci::{Bdf, ConfigSpace};
use crate::tsm::Server;

/// A function in sysfs and the kernel's mailbox.
#[derive(Debug)]
pub struct Kernel {
    sysfs: Sysfs,
    server: Rc<Server>,
    request: Rc<Cell<u64>>,
}

impl Kernel {
    /// Objects go to the DSM of whatever request of the kernel's `request` names at that moment.
    pub fn new(sysfs: Sysfs, server: Rc<Server>, request: Rc<Cell<u64>>) -> Self {
        Self { sysfs, server, request }
    }
}

impl ObjectExchange for Kernel {
    /// The kernel has time limits of its own.
    fn exchange(&mut self, object: &[u8], _: Duration) -> Result<Vec<u8>> {
        let object = Object::parse(object).map_err(|e| Error::Protocol(format!("DOE object: {e}")))?;
        if object.vendor != VENDOR_PCI_SIG {
            return Err(Error::Usage("the kernel's mailbox takes objects of PCI-SIG's only".into()));
        }
        let answer = self.server.doe(self.request.get(), object.kind.0, object.payload)?;
        discovery::wrap(object.kind, &answer)
    }
}

impl Transport for Kernel {
    fn describe(&self) -> String {
        self.sysfs.describe()
    }

    fn address(&self) -> Option<Bdf> {
        self.sysfs.address()
    }

    fn port_above(&self) -> Option<Bdf> {
        self.sysfs.port_above()
    }

    fn config(&mut self) -> Option<&mut dyn ConfigSpace> {
        self.sysfs.config()
    }

    fn memory_bars(&self) -> &[Bar] {
        self.sysfs.memory_bars()
    }

    fn bars(&mut self) -> Option<&mut dyn BarAccess> {
        self.sysfs.bars()
    }

    fn objects(&mut self) -> Option<&mut dyn ObjectExchange> {
        Some(self)
    }

    fn memory(&mut self) -> Result<Box<dyn HostMemory>, String> {
        self.sysfs.memory()
    }
}
