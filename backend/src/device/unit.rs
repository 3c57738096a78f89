//! One function of the device: its configuration space, its BARs behind the gate, and what it does.

use std::sync::Arc;

use mmio::{
    AddressWidth, Attribute, Bar, DmaBufMaker, Exported, FileAccess, Kind, MemoryError, MsixTable, Place,
    Range, RegisterBlock, Rejection, Revoked, TdiPhase, Tee,
};
use tdisp::dsm::{BarView, FunctionView, RangeView};
use tdispd_proto::control::Process;

use super::bars::{BarRegion, Bars, Requester, decoded};
use super::build::BuildError;
use super::contents::Contents;
use super::exports::NotExported;
use super::rules::Told;
use crate::config::{MixedDma, Mmio, TeeSource};
use crate::function::{DmaError, DmaId, Function, Work};
use crate::pci::{BarDecoder, ConfigSpace, Msix, Plan};
use crate::vfio_user::Mmap;

/// What has to become of DMA that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmaOrder {
    /// It may come to its end, and somebody waits for that.
    Drain,
    /// What has not happened must not happen, and somebody waits for the rest.
    Abandon,
}

/// A function with everything PCI around it.
pub(super) struct Unit {
    number: usize,
    pub(super) space: ConfigSpace,
    bars: Bars,
    function: Box<dyn Function>,
    msix: Option<MsixTable>,
    intx: bool,
    device_info: Vec<u8>,
    contents: Contents,
    order: Option<DmaOrder>,
    /// What a VMM did out of order since the TDI is in its state.
    pub(super) told: Told,
    /// Who is connected, or was so last.
    pub(super) client: Option<Process>,
    mixed_dma: MixedDma,
    /// Address of DMA with T = 1 that was asked for with T = 0.
    mixed: Option<u64>,
}

/// The parts of a [`Plan`] that follow from what the function is.
pub(super) fn pci_parts(function: &dyn Function, source: TeeSource) -> (Vec<BarDecoder>, Option<Msix>) {
    let bars = function
        .bars()
        .bars()
        .iter()
        .map(|bar| BarDecoder {
            index: bar.index(),
            size: decoded(bar.size(), source),
            wide: bar.width() == AddressWidth::Bits64,
            prefetchable: bar.prefetchable(),
        })
        .collect();
    let msix = function.bars().msix().map(|at| Msix {
        vectors: function.vectors(),
        table: (at.table_bar, at.table_offset as u32),
        pba: (at.pba_bar, at.pba_offset as u32),
    });
    (bars, msix)
}

impl Unit {
    pub(super) fn new(
        number: usize,
        plan: &Plan,
        function: Box<dyn Function>,
        config: &Mmio,
        maker: Option<&Arc<dyn DmaBufMaker>>,
        device_info: Vec<u8>,
    ) -> Result<Self, MemoryError> {
        let bars = Bars::new(function.bars().bars(), config, maker)?;
        let msix = plan.msix.map(|msix| MsixTable::new(msix.vectors));
        Ok(Self {
            number,
            space: plan.build(),
            bars,
            function,
            msix,
            intx: false,
            device_info,
            contents: Contents::default(),
            order: None,
            told: Told::default(),
            client: None,
            mixed_dma: config.mixed_dma,
            mixed: None,
        })
    }

    /// What memory holds now, and after every reset.
    ///
    /// # Errors
    /// A file that cannot be read, or is too large.
    pub(super) fn fill(&mut self, contents: Contents) -> Result<(), BuildError> {
        self.contents = contents;
        self.contents.load(&mut self.bars, Tee::NonTee)
    }

    pub(super) fn bars(&self) -> &Bars {
        &self.bars
    }

    pub(super) fn vectors(&self) -> u16 {
        if self.msix.is_some() { self.function.vectors() } else { 0 }
    }

    /// What the DSM has to know of the function at this moment.
    pub(super) fn view(&self) -> FunctionView {
        let ranges = |bar: &Bar| {
            bar.layout()
                .ranges()
                .iter()
                .map(|range| RangeView {
                    first_page: range.first_page,
                    pages: range.pages,
                    non_tee: !range.is_private(),
                    updatable: range.updatable,
                    msix_table: range.kind == Kind::MsixTable,
                    msix_pba: range.kind == Kind::MsixPba,
                    ..RangeView::default()
                })
                .collect()
        };
        let bars = self
            .space
            .bar_addresses()
            .zip(self.bars.iter())
            .map(|((decoder, address), bar)| BarView {
                index: decoder.index,
                // No system puts a device's memory at address 0: that is the reset value.
                address: (address != 0).then_some(address),
                size: bar.layout().size(),
                aliased: decoder.size > bar.layout().size(),
                size_supported: true,
                ranges: ranges(bar),
            })
            .collect();
        FunctionView {
            number: self.number,
            bars,
            phantom_functions: self.space.device_control().phantom_functions(),
            msix_message_control: self.space.msix_control().map(|control| control.into_bits()),
            interface_info: tdisp::wire::InterfaceInfo::new()
                .with_dma_without_pasid(true)
                .with_ats(self.space.ats_enabled()),
            device_info: self.device_info.clone(),
            ..FunctionView::default()
        }
    }

    /// Whether memory requests are answered at all (PCIe 6.1 §7.5.1.1.3, §5.3.1.4).
    fn decodes_memory(&self) -> bool {
        self.space.command().memory_space() && self.space.power_state() == 0
    }

    /// Returns what the gate refused.
    pub(super) fn bar_read(
        &mut self,
        region: BarRegion,
        phase: TdiPhase,
        offset: u64,
        data: &mut [u8],
    ) -> Vec<Rejection> {
        data.fill(0xFF);
        if !self.decodes_memory() {
            return Vec::new();
        }
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let done = self.bars.read(Requester::Memory, region, phase, offset, data, &mut registers);
        self.rejected("read", done)
    }

    /// Returns what the gate refused.
    pub(super) fn bar_write(
        &mut self,
        region: BarRegion,
        phase: TdiPhase,
        offset: u64,
        data: &[u8],
    ) -> Vec<Rejection> {
        if !self.decodes_memory() {
            return Vec::new();
        }
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let done = self.bars.write(Requester::Memory, region, phase, offset, data, &mut registers);
        self.rejected("write", done)
    }

    fn rejected(&self, what: &str, done: Result<Vec<Rejection>, MemoryError>) -> Vec<Rejection> {
        let rejections = done.unwrap_or_else(|error| {
            log::error!("function {}: {error}", self.number);
            Vec::new()
        });
        for rejection in &rejections {
            log::debug!(
                "function {}: {what} of {} bytes at BAR {} + {:#x} rejected: {:?} page, {:?} access, {:?}",
                self.number,
                rejection.length,
                rejection.bar,
                rejection.offset,
                rejection.cell.attribute,
                rejection.cell.tee,
                rejection.cell.phase
            );
        }
        rejections
    }

    /// What a region offers for mapping.
    pub(super) fn mapping(&mut self, region: BarRegion) -> Result<Option<Mmap>, MemoryError> {
        self.bars.mapping(region)
    }

    /// A descriptor of a BAR's memory.
    pub(super) fn export(
        &mut self,
        region: BarRegion,
        phase: TdiPhase,
        ranges: &[(u64, u64)],
        access: FileAccess,
    ) -> Result<Exported, NotExported> {
        if self.decodes_memory() {
            Ok(self.bars.export(region, phase, ranges, access)?)
        } else {
            Err(NotExported::Silent)
        }
    }

    /// Exports that lost pages since the last call, each with its BAR.
    pub(super) fn take_revoked(&mut self) -> Vec<(u8, Revoked)> {
        self.bars.take_revoked()
    }

    /// Takes back exports that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        if let Err(error) = self.bars.each(Bar::sweep) {
            self.give_up(&error);
        }
    }

    /// The BARs and sides of exports that were found to be held by nobody, since the last call.
    pub(super) fn take_dropped(&mut self) -> Vec<(u8, Tee)> {
        self.bars.take_dropped()
    }

    /// The TDI is in another state: private pages change hands.
    pub(super) fn enter(&mut self, from: TdiPhase, to: TdiPhase) {
        self.told = Told::default();
        self.mixed = None;
        let own_registers = |range: Range| range.kind == Kind::Registers && range.is_private();
        let entered = match (from, to) {
            (TdiPhase::Unlocked, TdiPhase::Locked) => {
                if self.bars.iter().flat_map(Bar::ranges).any(own_registers) {
                    self.function.scrub();
                }
                self.bars.each(Bar::lock)
            }
            (_, TdiPhase::Run) => self.bars.each(Bar::start),
            (_, TdiPhase::Error) => self.bars.each(Bar::fail),
            (_, TdiPhase::Unlocked) => self.bars.each(Bar::unlock),
            (_, TdiPhase::Locked) => Ok(()),
        };
        if let Err(error) = entered {
            self.give_up(&error);
        }
        self.function.enter(to);
        if to == TdiPhase::Run {
            self.refill(Tee::Tee);
        }
    }

    /// The client is gone: the next one gets memory that it cannot reach. Comes after a reset.
    pub(super) fn change_host(&mut self) {
        if let Err(error) = self.bars.each(Bar::change_host) {
            self.give_up(&error);
        }
        self.refill(Tee::NonTee);
    }

    pub(super) fn stop(&mut self) {
        self.function.stop();
        self.order_dma(DmaOrder::Abandon);
    }

    pub(super) fn drain(&mut self) {
        self.order_dma(DmaOrder::Drain);
    }

    fn order_dma(&mut self, order: DmaOrder) {
        self.order = self.order.max(Some(order));
    }

    /// What has to become of DMA that was handed out before, since the last call.
    pub(super) fn take_dma_order(&mut self) -> Option<DmaOrder> {
        self.order.take()
    }

    /// Pages change sides, until the next scrub.
    pub(super) fn set_attribute(&mut self, index: u8, first_page: u32, pages: u32, attribute: Attribute) {
        let Some(bar) = self.bars.get_mut(index) else { return };
        if let Err(error) = bar.set_attribute(first_page, pages, attribute) {
            self.give_up(&error);
        }
    }

    /// Only a broken host gets here; memory that could not be wiped must not be handed on.
    fn give_up(&self, error: &MemoryError) -> ! {
        log::error!("function {}: {error}; ending rather than showing a TVM's data", self.number);
        std::process::abort()
    }

    /// Wipes what a TVM may have left.
    pub(super) fn scrub(&mut self) {
        self.function.scrub();
        self.order_dma(DmaOrder::Abandon);
        let private = |range: Range| range.kind == Kind::MsixTable && range.is_private();
        let vectors_are_private = self.bars.iter().flat_map(Bar::ranges).any(private);
        if let Some(msix) = self.msix.as_mut().filter(|_| vectors_are_private) {
            msix.reset();
        }
        if let Err(error) = self.bars.each(Bar::scrub_private) {
            self.give_up(&error);
        }
    }

    /// Everything as after power-on, but for configuration space and the pages' attributes: a TDI that a function level reset
    /// takes to ERROR has its private pages until it is unlocked, and only then [`Self::scrub`] gives them back.
    pub(super) fn reset_function(&mut self) {
        self.function.scrub();
        self.order_dma(DmaOrder::Abandon);
        self.function.reset();
        self.intx = false;
        self.space.set_interrupt_status(false);
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        if let Err(error) = self.bars.each(Bar::scrub_all) {
            self.give_up(&error);
        }
        self.refill(Tee::NonTee);
    }

    /// Memory is as before anyone has written to it. Nobody waits to hear that it cannot be: zeroes have to do.
    fn refill(&mut self, side: Tee) {
        if let Err(error) = self.contents.load(&mut self.bars, side) {
            log::error!("function {}: memory stays empty: {error}", self.number);
        }
    }

    /// The next thing the function wants done: what Bus Master Enable allows, DMA in CONFIG_UNLOCKED and RUN, and messages
    /// anywhere but in ERROR (PCIe 6.1 §11.2).
    pub(super) fn poll_work(&mut self, phase: TdiPhase) -> Option<Work> {
        let master = self.is_master();
        let ats = self.space.ats_enabled();
        let allowed = |translated: bool| allows_dma(phase) && master && (!translated || ats);
        loop {
            match self.function.poll_work()? {
                Work::DmaRead { id, translated, .. } | Work::DmaWrite { id, translated, .. }
                    if !allowed(translated) =>
                {
                    self.function.dma_done(id, Err(DmaError::NotAllowed));
                }
                // A message is a memory write: no Bus Master Enable, no message (PCIe 6.1 §7.5.1.1.3); in D3Hot neither (§5.3.1.4).
                Work::Interrupt { .. } if !master || phase == TdiPhase::Error => {}
                Work::IntxLevel(level) => {
                    self.intx = level;
                    self.space.set_interrupt_status(level);
                }
                work @ (Work::DmaRead { id, address, asked, .. }
                | Work::DmaWrite { id, address, asked, .. }) => {
                    let mixes = phase == TdiPhase::Run && asked == Tee::NonTee;
                    if mixes {
                        self.mixed = Some(address);
                    }
                    if mixes && self.mixed_dma == MixedDma::Refuse {
                        self.function.dma_done(id, Err(DmaError::NotAllowed));
                    } else {
                        return Some(work);
                    }
                }
                work @ Work::Interrupt { .. } => return Some(work),
            }
        }
    }

    /// Whether it may make requests at all: Bus Master Enable, in D0 (PCIe 6.1 §7.5.1.1.3, §5.3.1.4).
    fn is_master(&self) -> bool {
        self.space.command().bus_master() && self.space.power_state() == 0
    }

    /// Address of DMA with T = 1 that was asked for with T = 0, if there was any since the last call.
    pub(super) fn take_mixed_dma(&mut self) -> Option<u64> {
        self.mixed.take()
    }

    pub(super) fn dma_done(&mut self, id: DmaId, result: Result<&[u8], DmaError>) {
        self.function.dma_done(id, result);
    }

    /// Whether INTA# is asserted: requested, not disabled, and in D0.
    pub(super) fn intx_asserted(&self) -> bool {
        self.intx && !self.space.command().interrupt_disable() && self.space.power_state() == 0
    }
}

/// Whether a TDI in this phase does DMA (PCIe 6.1 §11.2).
const fn allows_dma(phase: TdiPhase) -> bool {
    matches!(phase, TdiPhase::Unlocked | TdiPhase::Run)
}

/// What is behind a BAR besides memory.
struct Registers<'a> {
    function: &'a mut dyn Function,
    msix: Option<&'a mut MsixTable>,
}

impl RegisterBlock for Registers<'_> {
    fn read(&mut self, place: Place, data: &mut [u8]) {
        match (place.kind, &self.msix) {
            (Kind::MsixTable, Some(msix)) => msix.read_table(place.offset_in_range, data),
            (Kind::MsixPba, Some(msix)) => msix.read_pba(place.offset_in_range, data),
            (Kind::Registers | Kind::Doorbells, _) => self.function.read(place, data),
            (Kind::MsixTable | Kind::MsixPba | Kind::Memory | Kind::Reserved, _) => data.fill(0),
        }
    }

    fn write(&mut self, place: Place, data: &[u8]) {
        match (place.kind, &mut self.msix) {
            (Kind::MsixTable, Some(msix)) => msix.write_table(place.offset_in_range, data),
            (Kind::Registers | Kind::Doorbells, _) => self.function.write(place, data),
            (Kind::MsixTable | Kind::MsixPba | Kind::Memory | Kind::Reserved, _) => {}
        }
    }
}

mod in_memory;
#[cfg(test)]
mod tests;
