//! From a configuration to a device.

use core::time::Duration;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mmio::{DmaBufMaker, MemoryError};
use tdisp::dsm::Dsm;
use tdisp::ide::{StreamControl, StreamIndex};

use super::bars::check_alias;
use super::contents::Contents;
use super::dsm_config::{Profile, dsm_config};
use super::firmware::Firmware;
use super::identity::identity;
use super::journal::Journal;
use super::keeper::Keeper;
use super::protocol::Protocol;
use super::responder::responder;
use super::unit::{Unit, pci_parts};
use super::{Device, unit_regions};
use crate::config::{
    AliasHalf, Arch, Config, ConfigError, CxlRespond, DmaBuf, Kind, TeeSource, VirtioWindow,
};
use crate::doe::Mailbox;
use crate::function::virtio::Block;
use crate::function::{Function, TestFunction};
use crate::pci::registers::{Command, header};
use crate::pci::{Identity, Plan, VirtioStructures};
use crate::state_dir::StateError;
use crate::udmabuf::{DEVICE, Udmabuf};

/// PCI vendor ID of virtio devices (virtio 1.2 §4.1.2).
const VIRTIO_VENDOR: u16 = 0x1AF4;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error("state directory: {0}")]
    State(#[from] StateError),
    /// The host gave no memory or descriptor.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The dma-bufs that were asked for cannot be made.
    #[error(
        "mmio.dmabuf = \"udmabuf\": {DEVICE}: {0}; load the module udmabuf and let this user read and write the device, or say \
         dmabuf = \"auto\""
    )]
    Udmabuf(io::Error),
}

impl Device {
    /// Builds the device that `config` describes, one function per `[[function]]`.
    ///
    /// # Errors
    /// A message that names the field, the file or the resource.
    pub fn new(config: &Config, state_dir: Option<&Path>) -> Result<Self, BuildError> {
        Self::build(config, state_dir, &Profile::PLUGGED, false)
    }

    /// The same device for requesters that have only the SPDM socket and program no registers: it is as firmware would leave
    /// it, its first IDE stream is enabled and the default one, the keys alone make it secure, LOCK takes keys that were only
    /// rehearsed, there are eight port indices, any FUNCTION_ID means function 0, and CXL's protocols are answered.
    ///
    /// # Errors
    /// As [`Device::new`].
    pub fn standalone(config: &Config, state_dir: Option<&Path>) -> Result<Self, BuildError> {
        let mut device = Self::build(config, state_dir, &Profile::STANDALONE, true)?;
        device.play_firmware();
        Ok(device)
    }

    fn build(
        config: &Config,
        state_dir: Option<&Path>,
        profile: &Profile,
        standalone: bool,
    ) -> Result<Self, BuildError> {
        let mut units = Vec::new();
        let dsm =
            Dsm::new(dsm_config(config, profile)).map_err(|error| ConfigError::value("tdisp", error))?;
        let maker = maker(config.mmio.dmabuf)?;
        for (number, function) in config.functions.iter().enumerate() {
            units.push(unit(config, number, function, dsm.config().ide.length(), maker.as_ref())?);
        }
        let (slots, generated) = identity(config, state_dir)?;
        let responder = responder(config, slots, standalone)?;
        let cxl = match config.cxl.respond {
            CxlRespond::Auto => standalone,
            CxlRespond::Always => true,
            CxlRespond::Never => false,
        };
        let regions = units
            .iter()
            .zip(&config.functions)
            .map(|(unit, function)| unit_regions(unit, identity_of(config, function.kind).vendor))
            .collect();
        Ok(Self {
            units,
            regions,
            mailbox: Mailbox::new(config.doe.malformed),
            protocol: Protocol::new(
                responder,
                dsm,
                cxl.then(tdisp::cxl::Target::new),
                Keeper::new(config, state_dir, generated),
            ),
            response: Vec::new(),
            held: None,
            draining: Vec::new(),
            dma_fault: config.tdisp.dma_fault,
            strict: config.mmio.strict,
            machine_checks: (config.mmio.arch == Arch::Tdx).then_some(config.mmio.machine_check),
            machine_check: None,
            refusals: 0,
            next_look: Duration::ZERO,
            next_follow: Some(Duration::ZERO),
            firmware: Firmware::new(config)?,
            journal: Journal::default(),
        })
    }
}

impl Device {
    /// BARs at addresses of their own, memory and bus mastering on, the first selective stream enabled and default.
    fn play_firmware(&mut self) {
        const LOW: u64 = 0xC000_0000;
        const HIGH: u64 = 0x80_0000_0000;
        let (mut low, mut high) = (LOW, HIGH);
        for unit in &mut self.units {
            let bars: Vec<_> = unit.space.bar_addresses().map(|(bar, _)| bar).collect();
            for bar in bars {
                let next = if bar.wide { &mut high } else { &mut low };
                let address = next.next_multiple_of(bar.size);
                *next = address + bar.size;
                let bytes = address.to_le_bytes();
                unit.space.write(bar.offset(), bytes.get(..usize::from(bar.length())).unwrap_or_default());
            }
            let command = Command::new().with_memory_space(true).with_bus_master(true);
            unit.space.write(header::COMMAND, &command.into_bits().to_le_bytes());
        }
        let control = self.protocol.dsm.config().ide.stream_control_offset(StreamIndex::Selective(0));
        if let Some(offset) = control {
            let enabled = StreamControl::new().with_enable(true).with_default_stream(true);
            self.protocol.dsm.ide_write(offset, &enabled.into_bits().to_le_bytes());
        }
    }
}

/// What exports are made with, and says so.
fn maker(dmabuf: DmaBuf) -> Result<Option<Arc<dyn DmaBufMaker>>, BuildError> {
    if dmabuf == DmaBuf::Memfd {
        return Ok(None);
    }
    match Udmabuf::open() {
        Ok(udmabuf) => {
            log::info!(
                "exports of BAR memory are dma-bufs of {DEVICE}, where nothing may take their pages away"
            );
            Ok(Some(Arc::new(udmabuf)))
        }
        Err(source) if dmabuf == DmaBuf::Udmabuf => Err(BuildError::Udmabuf(source)),
        Err(error) => {
            log::info!("exports of BAR memory are memfds: {DEVICE}: {error}");
            Ok(None)
        }
    }
}

/// Who a function of this kind says it is.
pub(super) fn identity_of(config: &Config, kind: Kind) -> Identity {
    let pci = &config.pci;
    match kind {
        Kind::Test => Identity {
            vendor: pci.vendor,
            device: pci.device,
            revision: pci.revision,
            class: pci.class,
            subsystem_vendor: pci.subsystem_vendor,
            subsystem: pci.subsystem,
            serial: pci.serial,
        },
        // Virtio 1.2 §4.1.2, §5.2.1: 0x1040 and the device type; a subsystem below 0x40 would be legacy.
        Kind::VirtioBlk => Identity {
            vendor: VIRTIO_VENDOR,
            device: 0x1042,
            revision: 1,
            class: 0x01_80_00,
            subsystem_vendor: VIRTIO_VENDOR,
            subsystem: 0x1100,
            serial: pci.serial,
        },
    }
}

/// What the virtio capabilities say.
fn virtio_structures(
    config: &Config,
    number: usize,
    function: &crate::config::Function,
    block: &Block,
) -> Result<VirtioStructures, BuildError> {
    // The upper half of an aliased BAR begins where its layout ends.
    let upper = config.mmio.tee == TeeSource::Alias
        && (function.virtio.window == VirtioWindow::Tee) == (config.mmio.alias_private == AliasHalf::High);
    let half = |bar| {
        let layout = block.bars().bars().iter().find(|layout| layout.index() == bar).filter(|_| upper);
        layout.map_or(0, |layout| layout.size())
    };
    Ok(block.structures().capabilities(block.queues(), half).ok_or_else(|| {
        let problem = "the virtio structures are beyond the 4 GiB that their capabilities can say";
        ConfigError::value(format!("function[{number}].bar"), problem)
    })?)
}

fn unit(
    config: &Config,
    number: usize,
    function: &crate::config::Function,
    ide_bytes: u16,
    maker: Option<&Arc<dyn DmaBufMaker>>,
) -> Result<Unit, BuildError> {
    let layout = function.layout(number)?;
    let mut virtio = None;
    let what: Box<dyn Function> = match function.kind {
        Kind::Test => Box::new(TestFunction::new(layout)),
        Kind::VirtioBlk => {
            let block = function.block(number, layout)?;
            virtio = Some(virtio_structures(config, number, function, &block)?);
            Box::new(block)
        }
    };
    check_alias(number, what.bars().bars(), config.mmio.tee)?;
    let (bars, msix) = pci_parts(what.as_ref(), config.mmio.tee);
    let plan = Plan {
        identity: identity_of(config, function.kind),
        multifunction: config.functions.len() > 1,
        bars,
        msix,
        tee_io: true,
        doe: number == 0,
        ari: config.pci.ari.then(|| {
            let next = number + 1;
            // 256 functions at most: the numbers of all but the first fit.
            if next < config.functions.len() { next as u8 } else { 0 }
        }),
        ats: config.pci.ats,
        ide_bytes: (number == 0).then_some(ide_bytes),
        virtio,
    };
    let device_info = function.device_info().unwrap_or_default();
    let mut unit = Unit::new(number, &plan, what, &config.mmio, maker, device_info)?;
    unit.fill(Contents::new(function, number))?;
    Ok(unit)
}
