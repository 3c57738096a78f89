//! One function of the device: its configuration space, its BARs behind the gate, and what it does.

use mmio::{
    Access, AddressWidth, Attribute, Bar, Gate, Kind, MemoryError, MsixTable, Place, Range, RegisterBlock,
    TdiPhase, TeeSource,
};
use tdisp::dsm::{BarView, FunctionView, RangeView};

use super::build::BuildError;
use super::contents::Contents;
use crate::function::{DmaError, DmaId, Function, Work};
use crate::pci::{BarDecoder, ConfigSpace, Msix, Plan};

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
    bars: Vec<Bar>,
    function: Box<dyn Function>,
    msix: Option<MsixTable>,
    tee: TeeSource,
    intx: bool,
    device_info: Vec<u8>,
    contents: Contents,
    order: Option<DmaOrder>,
}

/// The parts of a [`Plan`] that follow from what the function is.
pub(super) fn pci_parts(function: &dyn Function) -> (Vec<BarDecoder>, Option<Msix>) {
    let bars = function
        .bars()
        .bars()
        .iter()
        .map(|bar| BarDecoder {
            index: bar.index(),
            size: bar.size(),
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
        tee: TeeSource,
        device_info: Vec<u8>,
    ) -> Result<Self, MemoryError> {
        let bars = function
            .bars()
            .bars()
            .iter()
            .map(|layout| Bar::new(layout.clone(), Gate::default()))
            .collect::<Result<_, _>>()?;
        let msix = plan.msix.map(|msix| MsixTable::new(msix.vectors));
        Ok(Self {
            number,
            space: plan.build(),
            bars,
            function,
            msix,
            tee,
            intx: false,
            device_info,
            contents: Contents::default(),
            order: None,
        })
    }

    /// What memory holds now, and after every reset.
    ///
    /// # Errors
    /// A file that cannot be read, or is too large.
    pub(super) fn fill(&mut self, contents: Contents) -> Result<(), BuildError> {
        self.contents = contents;
        self.contents.load(&mut self.bars)
    }

    pub(super) fn bars(&self) -> &[Bar] {
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
            .zip(&self.bars)
            .map(|((decoder, address), bar)| BarView {
                index: decoder.index,
                // No system puts a device's memory at address 0: that is the reset value.
                address: (address != 0).then_some(address),
                size: decoder.size,
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

    pub(super) fn bar_read(&mut self, index: u8, phase: TdiPhase, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if !self.decodes_memory() {
            return;
        }
        let access = Access { phase, tee: self.tee };
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let Some(bar) = self.bars.iter_mut().find(|bar| bar.layout().index() == index) else { return };
        match bar.read(access, offset, data, &mut registers) {
            Ok(done) => log_rejection(self.number, "read", &done),
            Err(error) => log::error!("function {}: {error}", self.number),
        }
    }

    pub(super) fn bar_write(&mut self, index: u8, phase: TdiPhase, offset: u64, data: &[u8]) {
        if !self.decodes_memory() {
            return;
        }
        let access = Access { phase, tee: self.tee };
        let mut registers = Registers { function: self.function.as_mut(), msix: self.msix.as_mut() };
        let Some(bar) = self.bars.iter_mut().find(|bar| bar.layout().index() == index) else { return };
        match bar.write(access, offset, data, &mut registers) {
            Ok(done) => log_rejection(self.number, "write", &done),
            Err(error) => log::error!("function {}: {error}", self.number),
        }
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
        let Some(bar) = self.bars.iter_mut().find(|bar| bar.layout().index() == index) else { return };
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
        let scrubbed = self.bars.iter_mut().try_for_each(Bar::scrub_private);
        if let Err(error) = scrubbed {
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
        let wiped = self.bars.iter_mut().try_for_each(Bar::scrub_all);
        if let Err(error) = wiped {
            self.give_up(&error);
        }
        // Nobody waits for an answer to a reset: zeroes have to do.
        if let Err(error) = self.contents.load(&mut self.bars) {
            log::error!("function {}: memory stays empty: {error}", self.number);
        }
    }

    /// The next thing the function wants done: what Bus Master Enable allows, DMA in CONFIG_UNLOCKED and RUN, and messages
    /// anywhere but in ERROR (PCIe 6.1 §11.2).
    pub(super) fn poll_work(&mut self, phase: TdiPhase) -> Option<Work> {
        let dma_allowed = matches!(phase, TdiPhase::Unlocked | TdiPhase::Run);
        let master = self.space.command().bus_master() && self.space.power_state() == 0;
        let ats = self.space.ats_enabled();
        let allowed = |translated: bool| dma_allowed && master && (!translated || ats);
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
                work @ (Work::DmaRead { .. } | Work::DmaWrite { .. } | Work::Interrupt { .. }) => {
                    return Some(work);
                }
            }
        }
    }

    pub(super) fn dma_done(&mut self, id: DmaId, result: Result<&[u8], DmaError>) {
        self.function.dma_done(id, result);
    }

    /// Whether INTA# is asserted: requested, not disabled, and in D0.
    pub(super) fn intx_asserted(&self) -> bool {
        self.intx && !self.space.command().interrupt_disable() && self.space.power_state() == 0
    }
}

fn log_rejection(number: usize, what: &str, done: &mmio::Completion) {
    if let Some(rejection) = &done.rejected {
        log::debug!(
            "function {number}: {what} of {} bytes at BAR {} + {:#x} rejected: {:?} page, {:?} access, {:?}",
            rejection.length,
            rejection.bar,
            rejection.offset,
            rejection.attribute,
            rejection.tee,
            rejection.phase
        );
    }
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

#[cfg(test)]
mod tests;
