//! The default function: a register of every kind, a DMA engine, interrupts, private and shared memory.
//!
//! `REGISTERS.md` is the contract with software in the guest; a test compares it with this file.

use mmio::{BarSet, Kind, Place, Range, Register, RegisterHandler, RegisterMap, RegisterWidth, Tee};

use super::dma_engine::{Command, DmaEngine, Failure, LIMIT, Operation};
use super::doorbells::Doorbells;
use super::{DmaError, DmaId, Function, Work};

/// Interrupt vectors: MSI-X messages, or causes of INTx.
pub(super) const VECTORS: u16 = 4;
/// "TDSP" as it lies in memory.
const MAGIC: u32 = u32::from_le_bytes(*b"TDSP");
const VERSION: u32 = 0x0001_0001;
const NO_MISMATCH: u64 = u64::MAX;

const COMMAND_OPERATION: u32 = 0xff;
const COMMAND_INTERRUPT: u32 = 1 << 8;
const COMMAND_TRANSLATED: u32 = 1 << 9;
const COMMAND_VECTOR_SHIFT: u32 = 16;
const COMMAND_DEFINED: u32 =
    COMMAND_OPERATION | COMMAND_INTERRUPT | COMMAND_TRANSLATED | 0xffff << COMMAND_VECTOR_SHIFT;
const START: u64 = 1 << 0;
const ABORT: u64 = 1 << 1;
const STATUS_BUSY: u32 = 1 << 0;
const STATUS_DONE: u32 = 1 << 1;
const STATUS_ERROR: u32 = 1 << 2;
const STATUS_CODE_SHIFT: u32 = 8;
const CODE_BAD_COMMAND: u32 = 1;

/// Every register, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Magic,
    Version,
    Vectors,
    Scratch0,
    Scratch1,
    Scratch2,
    Scratch3,
    DmaSource,
    DmaDestination,
    DmaLength,
    DmaPattern,
    DmaCommand,
    DmaStart,
    DmaStatus,
    DmaLimit,
    DmaProgress,
    DmaMismatch,
    IrqTrigger,
    IrqStatus,
}

const MAP: RegisterMap<Name> = {
    use Name::*;
    use RegisterWidth::{Bits32, Bits64};
    const fn at(offset: u64, width: RegisterWidth, id: Name) -> Register<Name> {
        Register { offset, width, id }
    }
    RegisterMap::new(&[
        at(0x000, Bits32, Magic),
        at(0x004, Bits32, Version),
        at(0x008, Bits32, Vectors),
        at(0x010, Bits64, Scratch0),
        at(0x018, Bits64, Scratch1),
        at(0x020, Bits64, Scratch2),
        at(0x028, Bits64, Scratch3),
        at(0x100, Bits64, DmaSource),
        at(0x108, Bits64, DmaDestination),
        at(0x110, Bits64, DmaLength),
        at(0x118, Bits64, DmaPattern),
        at(0x120, Bits32, DmaCommand),
        at(0x124, Bits32, DmaStart),
        at(0x128, Bits32, DmaStatus),
        at(0x12c, Bits32, DmaLimit),
        at(0x130, Bits64, DmaProgress),
        at(0x138, Bits64, DmaMismatch),
        at(0x200, Bits32, IrqTrigger),
        at(0x204, Bits32, IrqStatus),
    ])
};

/// The default function of the device: something of every kind to try TDISP with.
///
#[doc = include_str!("REGISTERS.md")]
#[derive(Debug)]
pub struct TestFunction {
    bars: BarSet,
    registers: Registers,
    doorbells: Doorbells,
    interrupts: Interrupts,
}

impl TestFunction {
    /// The function in its power-on state, with its registers and doorbells wherever `bars` has such ranges, and without
    /// them where it has none. It uses MSI-X if there is a table for it, and INTx otherwise.
    #[must_use]
    pub fn new(bars: BarSet) -> Self {
        let msix = bars.msix().is_some();
        Self {
            bars,
            registers: Registers::new(),
            doorbells: Doorbells::default(),
            interrupts: Interrupts { msix, ..Interrupts::default() },
        }
    }
}

impl Function for TestFunction {
    fn name(&self) -> &'static str {
        "test"
    }

    fn bars(&self) -> &BarSet {
        &self.bars
    }

    fn vectors(&self) -> u16 {
        if self.interrupts.msix { VECTORS } else { 0 }
    }

    fn read(&mut self, place: Place, data: &mut [u8]) {
        match place.kind {
            Kind::Registers => MAP.read(place.offset_in_range, data, &mut self.handler()),
            Kind::Doorbells => self.doorbells.read(place.offset_in_range, data),
            Kind::Memory | Kind::MsixTable | Kind::MsixPba | Kind::Reserved => data.fill(0),
        }
    }

    fn write(&mut self, place: Place, data: &[u8]) {
        match place.kind {
            Kind::Registers => {
                self.registers.asked = place.tee;
                MAP.write(place.offset_in_range, data, &mut self.handler());
            }
            Kind::Doorbells => {
                let Self { doorbells, interrupts, .. } = self;
                doorbells.write(place.offset_in_range, data, &mut |vector| interrupts.raise(vector));
            }
            Kind::Memory | Kind::MsixTable | Kind::MsixPba | Kind::Reserved => {}
        }
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.interrupts.poll().or_else(|| self.registers.engine.poll())
    }

    fn dma_done(&mut self, id: DmaId, result: Result<&[u8], DmaError>) {
        if let Some(outcome) = self.registers.engine.done(id, result) {
            self.handler().command_ended(outcome);
        }
    }

    fn stop(&mut self) {
        if self.registers.engine.busy() {
            self.registers.engine.abort();
            self.registers.end(Err(Failure::Aborted));
        }
        self.interrupts.messages = 0;
    }

    fn scrub(&mut self) {
        self.registers.reset();
        self.interrupts.reset();
        if self.bars.find(Kind::Doorbells).is_some_and(Range::is_private) {
            self.doorbells.reset();
        }
    }

    fn reset(&mut self) {
        self.scrub();
        self.doorbells.reset();
    }
}

impl TestFunction {
    fn handler(&mut self) -> Handler<'_> {
        Handler { registers: &mut self.registers, interrupts: &mut self.interrupts }
    }
}

/// What software has written, and how its last command ended.
#[derive(Debug)]
struct Registers {
    scratch: [u64; 4],
    source: u64,
    destination: u64,
    length: u64,
    pattern: u64,
    command: u32,
    /// Done, error and code; busy is the engine's to say.
    status: u32,
    mismatch: u64,
    /// Vector to raise when the command under way ends.
    completion_vector: Option<u32>,
    /// The T attribute of the last write.
    asked: Tee,
    engine: DmaEngine,
}

impl Registers {
    const fn new() -> Self {
        Self::with_engine(DmaEngine::new())
    }

    const fn with_engine(engine: DmaEngine) -> Self {
        Self {
            scratch: [0; 4],
            source: 0,
            destination: 0,
            length: 0,
            pattern: 0,
            command: 0,
            status: 0,
            mismatch: NO_MISMATCH,
            completion_vector: None,
            asked: Tee::NonTee,
            engine,
        }
    }

    fn reset(&mut self) {
        let mut engine = core::mem::replace(&mut self.engine, DmaEngine::new());
        engine.reset();
        *self = Self::with_engine(engine);
    }

    /// Puts down how a command ended.
    fn end(&mut self, outcome: Result<(), Failure>) {
        self.status = STATUS_DONE;
        if let Err(failure) = outcome {
            self.status |= STATUS_ERROR | code(failure) << STATUS_CODE_SHIFT;
            if let Failure::Mismatch(offset) = failure {
                self.mismatch = offset;
            }
        }
    }
}

/// The error codes of the table.
const fn code(failure: Failure) -> u32 {
    match failure {
        Failure::BadLength => 2,
        Failure::BadAddress => 3,
        Failure::Overlap => 4,
        Failure::NotAllowed => 5,
        Failure::Fault => 6,
        Failure::Mismatch(_) => 7,
        Failure::Aborted => 8,
    }
}

/// Interrupts raised and not yet seen, one bit per vector.
#[derive(Debug, Default)]
struct Interrupts {
    msix: bool,
    /// IRQ_STATUS.
    status: u32,
    /// MSI-X messages to send.
    messages: u32,
    /// What the device was last told about INTx.
    asserted: bool,
}

impl Interrupts {
    fn raise(&mut self, vector: u32) {
        if vector < u32::from(VECTORS) {
            self.status |= 1 << vector;
            if self.msix {
                self.messages |= 1 << vector;
            }
        }
    }

    /// Nothing raised. What the device was told about INTx stays, so that it is told of a change.
    fn reset(&mut self) {
        self.status = 0;
        self.messages = 0;
    }

    fn poll(&mut self) -> Option<Work> {
        if self.messages != 0 {
            let vector = self.messages.trailing_zeros() as u16;
            self.messages &= self.messages - 1;
            return Some(Work::Interrupt { vector });
        }
        let level = !self.msix && self.status != 0;
        (level != self.asserted).then(|| {
            self.asserted = level;
            Work::IntxLevel(level)
        })
    }
}

/// Registers and what they act on, for one access.
struct Handler<'a> {
    registers: &'a mut Registers,
    interrupts: &'a mut Interrupts,
}

impl Handler<'_> {
    fn start(&mut self) {
        let registers = &mut *self.registers;
        if registers.engine.busy() {
            return;
        }
        registers.engine.reset();
        registers.status = 0;
        registers.mismatch = NO_MISMATCH;
        let vector = registers.command >> COMMAND_VECTOR_SHIFT;
        registers.completion_vector = (registers.command & COMMAND_INTERRUPT != 0).then_some(vector);
        let operation = match registers.command & COMMAND_OPERATION {
            1 => Some(Operation::Copy),
            2 => Some(Operation::Fill),
            3 => Some(Operation::Check),
            _ => None,
        };
        let good_vector = registers.completion_vector.is_none_or(|vector| vector < u32::from(VECTORS));
        let Some(operation) = operation.filter(|_| good_vector) else {
            registers.status = STATUS_DONE | STATUS_ERROR | CODE_BAD_COMMAND << STATUS_CODE_SHIFT;
            self.raise_completion();
            return;
        };
        let started = registers.engine.start(Command {
            operation,
            source: registers.source,
            destination: registers.destination,
            length: registers.length,
            pattern: registers.pattern.to_le_bytes(),
            translated: registers.command & COMMAND_TRANSLATED != 0,
            asked: registers.asked,
        });
        if started.is_err() {
            self.command_ended(started);
        }
    }

    fn abort(&mut self) {
        if self.registers.engine.busy() {
            self.registers.engine.abort();
            self.command_ended(Err(Failure::Aborted));
        }
    }

    fn command_ended(&mut self, outcome: Result<(), Failure>) {
        self.registers.end(outcome);
        self.raise_completion();
    }

    fn raise_completion(&mut self) {
        if let Some(vector) = self.registers.completion_vector.take() {
            self.interrupts.raise(vector);
        }
    }
}

impl RegisterHandler for Handler<'_> {
    type Id = Name;

    fn read(&mut self, name: Name) -> u64 {
        let registers = &*self.registers;
        let [scratch0, scratch1, scratch2, scratch3] = registers.scratch;
        match name {
            Name::Magic => MAGIC.into(),
            Name::Version => VERSION.into(),
            Name::Vectors => VECTORS.into(),
            Name::Scratch0 => scratch0,
            Name::Scratch1 => scratch1,
            Name::Scratch2 => scratch2,
            Name::Scratch3 => scratch3,
            Name::DmaSource => registers.source,
            Name::DmaDestination => registers.destination,
            Name::DmaLength => registers.length,
            Name::DmaPattern => registers.pattern,
            Name::DmaCommand => registers.command.into(),
            Name::DmaStart | Name::IrqTrigger => 0,
            Name::DmaStatus if registers.engine.busy() => STATUS_BUSY.into(),
            Name::DmaStatus => registers.status.into(),
            Name::DmaLimit => LIMIT,
            Name::DmaProgress => registers.engine.progress(),
            Name::DmaMismatch => registers.mismatch,
            Name::IrqStatus => self.interrupts.status.into(),
        }
    }

    fn untouched(&self, name: Name) -> u64 {
        let registers = &*self.registers;
        let [scratch0, scratch1, scratch2, scratch3] = registers.scratch;
        match name {
            Name::Scratch0 => scratch0,
            Name::Scratch1 => scratch1,
            Name::Scratch2 => scratch2,
            Name::Scratch3 => scratch3,
            Name::DmaSource => registers.source,
            Name::DmaDestination => registers.destination,
            Name::DmaLength => registers.length,
            Name::DmaPattern => registers.pattern,
            Name::DmaCommand => registers.command.into(),
            // Read-only, or set bits act.
            Name::Magic
            | Name::Version
            | Name::Vectors
            | Name::DmaStart
            | Name::DmaStatus
            | Name::DmaLimit
            | Name::DmaProgress
            | Name::DmaMismatch
            | Name::IrqTrigger
            | Name::IrqStatus => 0,
        }
    }

    fn write(&mut self, name: Name, value: u64) {
        // A 32-bit register's value has no higher bits.
        let low = value as u32;
        let registers = &mut *self.registers;
        let [scratch0, scratch1, scratch2, scratch3] = &mut registers.scratch;
        match name {
            Name::Scratch0 => *scratch0 = value,
            Name::Scratch1 => *scratch1 = value,
            Name::Scratch2 => *scratch2 = value,
            Name::Scratch3 => *scratch3 = value,
            Name::DmaSource => registers.source = value,
            Name::DmaDestination => registers.destination = value,
            Name::DmaLength => registers.length = value,
            Name::DmaPattern => registers.pattern = value,
            Name::DmaCommand => registers.command = low & COMMAND_DEFINED,
            Name::DmaStart => {
                if value & ABORT != 0 {
                    self.abort();
                }
                if value & START != 0 {
                    self.start();
                }
            }
            Name::IrqTrigger => self.interrupts.raise(low),
            Name::IrqStatus => self.interrupts.status &= !low,
            Name::Magic
            | Name::Version
            | Name::Vectors
            | Name::DmaStatus
            | Name::DmaLimit
            | Name::DmaProgress
            | Name::DmaMismatch => {}
        }
    }
}

#[cfg(test)]
mod tests;
