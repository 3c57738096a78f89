//! The IDE extended capability as software sees it, and the stream and key state behind it.
//!
//! One image serves configuration space and IDE_KM's QUERY_RESP. What moves a stream between secure and
//! insecure is reported as [`IdeEvent`]s; who is bound to the stream is the DSM's business, not this module's.

mod associations;
mod keys;
mod layout;
pub mod registers;
mod rehearsal;
mod streams;

pub use keys::KeyState;
pub use layout::{CAPABILITY_ID, IdeConfig, IdeConfigError, SecureOrder, StreamIndex};
pub use registers::StreamControl;

use crate::SessionId;
use crate::wire::ide_km::{KeyMaterial, KeySlot};
use layout::{AddressWord, Register};
use registers::{AddressAssociation1, Control, RidAssociation1, RidAssociation2, StreamStatus};
use streams::{SelectiveRegisters, Stream, Trigger};

/// Why a secure stream is not secure any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InsecureCause {
    /// Enable was cleared, or the stream got another id, by a configuration write.
    Disabled,
    /// K_SET_STOP took a key in use away.
    KeyStopped,
    /// KEY_PROG replaced a key in use.
    KeyReplaced,
    /// The SPDM session that programmed the keys is over.
    SessionEnded,
    /// An integrity check failed, or the peer reported one.
    IntegrityFailure,
    /// The link went down.
    LinkDown,
    /// A register of a stream that a locked or running TDI is bound to was rewritten.
    RegisterWritten,
    /// Conventional reset.
    Reset,
    /// The device's firmware was updated.
    FirmwareUpdated,
}

/// Something happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdeEvent {
    /// The stream became secure.
    Secure {
        /// The stream.
        stream: StreamIndex,
        /// Its id.
        stream_id: u8,
    },
    /// The stream was secure and is not any more; its keys are gone.
    Insecure {
        /// The stream.
        stream: StreamIndex,
        /// The id it had while it was secure.
        stream_id: u8,
        /// Why.
        cause: InsecureCause,
    },
    /// Software wrote the stream's control or association registers.
    Written {
        /// The stream.
        stream: StreamIndex,
        /// Whether any bit is different now.
        changed: bool,
    },
}

/// What can be said of a stream without giving a key away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// Which one.
    pub index: StreamIndex,
    /// Its control register.
    pub control: StreamControl,
    /// Whether its status is secure.
    pub secure: bool,
    /// Its keys in use, as a whole.
    pub keys: KeyState,
    /// How many of its twelve slots hold a key.
    pub programmed: usize,
}

/// The IDE capability of one device.
pub struct Ide {
    config: IdeConfig,
    control: Control,
    links: Vec<Stream>,
    selective: Vec<(Stream, SelectiveRegisters)>,
}

impl Ide {
    /// A capability in its reset state.
    ///
    /// # Errors
    /// [`IdeConfigError`] if no capability can look like that.
    pub fn new(config: IdeConfig) -> Result<Self, IdeConfigError> {
        config.check()?;
        let mut ide = Self { config, control: Control::new(), links: Vec::new(), selective: Vec::new() };
        ide.set_defaults();
        Ok(ide)
    }

    /// What it was built from.
    pub fn config(&self) -> &IdeConfig {
        &self.config
    }

    /// Length of the capability in bytes, its 4-byte header included.
    pub fn length(&self) -> u16 {
        self.config.length()
    }

    /// Reads registers. `offset` counts from the start of the capability; its 4-byte header, which belongs to
    /// the chain of capabilities and not to IDE, and whatever lies beyond the end read as zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (position, byte) in (u32::from(offset)..).zip(data.iter_mut()) {
            let word = u16::try_from(position & !3).map(|word| self.read_word(word)).unwrap_or(0);
            *byte = (word >> (8 * (position & 3))) as u8;
        }
    }

    /// Writes registers, of any width at any offset. A doubleword that is written in part keeps its other bytes,
    /// and is judged once, as a whole. What happens to streams is appended to `events`.
    pub fn write(&mut self, offset: u16, data: &[u8], events: &mut Vec<IdeEvent>) {
        let mut position = u32::from(offset);
        let mut rest = data;
        while !rest.is_empty() {
            let lane = (position & 3) as usize;
            let count = rest.len().min(4 - lane);
            let (now, later) = rest.split_at(count);
            let Ok(word) = u16::try_from(position - (position & 3)) else { return };
            let mut value = 0;
            let mut mask = 0;
            for (byte, shift) in now.iter().zip((lane..).map(|lane| 8 * lane)) {
                value |= u32::from(*byte) << shift;
                mask |= 0xFF_u32 << shift;
            }
            self.write_word(word, value, mask, events);
            rest = later;
            position += count as u32;
        }
    }

    /// The registers from the capability register to the end: what QUERY_RESP carries.
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; usize::from(self.length().saturating_sub(4))];
        self.read(4, &mut image);
        image
    }

    /// The stream with this id. Among several, one that is enabled wins, then one that was ever given a
    /// control value, then selective before link, then the lowest index.
    pub fn find(&self, stream_id: u8) -> Option<StreamIndex> {
        self.streams()
            .filter(|view| view.control.stream_id() == stream_id)
            .min_by_key(|view| {
                let link = matches!(view.index, StreamIndex::Link(_));
                (!view.control.enable(), view.control.into_bits() == 0, link, view.index)
            })
            .map(|view| view.index)
    }

    /// What can be said of one stream.
    pub fn view(&self, index: StreamIndex) -> Option<StreamView> {
        self.stream(index).map(|stream| stream.view(index))
    }

    /// All streams, link streams first.
    pub fn streams(&self) -> impl Iterator<Item = StreamView> + '_ {
        let links = (0..).map(StreamIndex::Link).zip(self.links.iter());
        let selective =
            (0..).map(StreamIndex::Selective).zip(self.selective.iter().map(|(stream, _)| stream));
        links.chain(selective).map(|(index, stream)| stream.view(index))
    }

    /// The key in a slot, for a model of the link. It does not belong into any log.
    pub fn key(&self, index: StreamIndex, slot: KeySlot) -> Option<&KeyMaterial> {
        self.stream(index)?.keys.material(slot)
    }

    /// Whether every key in use of the stream came through `session`.
    pub fn keys_from(&self, index: StreamIndex, session: SessionId) -> bool {
        self.stream(index).is_some_and(|stream| stream.keys.all_from(session))
    }

    /// Whether `session` programmed at least one key of the stream, started and stopped every one that it did, and none is
    /// left: it has shown that it can handle keys, and keeps none.
    pub fn rehearsed(&self, index: StreamIndex, session: SessionId) -> bool {
        self.stream(index)
            .is_some_and(|stream| stream.rehearsal.complete(session) && stream.keys.programmed() == 0)
    }

    /// Another selective stream whose valid RID or address associations meet those of this one.
    pub fn overlap(&self, index: StreamIndex) -> Option<StreamIndex> {
        let StreamIndex::Selective(index) = index else { return None };
        let own = self.associations(index)?;
        (0..)
            .zip(&self.selective)
            .find(|(other, (_, registers))| *other != index && own.overlap(registers))
            .map(|(other, _)| StreamIndex::Selective(other))
    }

    /// Whether all of `length` bytes at `address` belong to one address association of the stream.
    pub fn associated(&self, index: StreamIndex, address: u64, length: u64) -> bool {
        match index {
            StreamIndex::Selective(index) => {
                self.associations(index).is_some_and(|registers| registers.has(address, length))
            }
            StreamIndex::Link(_) => false,
        }
    }

    /// KEY_PROG: puts a key into its slot. False if there is no such stream.
    pub fn program(
        &mut self,
        index: StreamIndex,
        slot: KeySlot,
        material: KeyMaterial,
        session: SessionId,
        events: &mut Vec<IdeEvent>,
    ) -> bool {
        let Some(stream) = self.stream_mut(index) else { return false };
        if stream.keys.program(slot, material.clone(), session)
            && stream.fall(index, InsecureCause::KeyReplaced, events)
        {
            // Falling wiped every slot, the new key's included.
            stream.keys.program(slot, material, session);
        }
        stream.rehearsal.programmed(slot, session);
        true
    }

    /// K_SET_GO: puts a programmed key to use. False if there is no such stream or no key in the slot.
    pub fn go(&mut self, index: StreamIndex, slot: KeySlot, events: &mut Vec<IdeEvent>) -> bool {
        let order = self.config.secure_order;
        let Some(stream) = self.stream_mut(index) else { return false };
        if !stream.keys.go(slot) {
            return false;
        }
        stream.rehearsal.started(slot);
        stream.rise(index, Trigger::Go, order, events);
        true
    }

    /// K_SET_STOP: takes a key away. False if there is no such stream; an empty slot is stopped already.
    pub fn stop(&mut self, index: StreamIndex, slot: KeySlot, events: &mut Vec<IdeEvent>) -> bool {
        let Some(stream) = self.stream_mut(index) else { return false };
        stream.rehearsal.stopped(slot);
        if stream.keys.stop(slot) {
            stream.fall(index, InsecureCause::KeyStopped, events);
        }
        true
    }

    /// Wipes every key that `session` programmed.
    pub fn session_ended(&mut self, session: SessionId, events: &mut Vec<IdeEvent>) {
        self.for_each(|index, stream| {
            stream.rehearsal.forget(session);
            if stream.keys.forget(session) {
                stream.fall(index, InsecureCause::SessionEnded, events);
            }
        });
    }

    /// Makes a stream insecure for a reason outside the registers. An integrity failure also sets the
    /// "Integrity Check Fail message received" status bit.
    pub fn fail(&mut self, index: StreamIndex, cause: InsecureCause, events: &mut Vec<IdeEvent>) {
        if let Some(stream) = self.stream_mut(index) {
            stream.integrity_check_fail |= cause == InsecureCause::IntegrityFailure;
            stream.fall(index, cause, events);
        }
    }

    /// Conventional reset: every register at its default, every key gone.
    pub fn reset(&mut self, events: &mut Vec<IdeEvent>) {
        self.for_each(|index, stream| {
            stream.fall(index, InsecureCause::Reset, events);
        });
        self.set_defaults();
    }

    fn set_defaults(&mut self) {
        self.control = Control::new();
        self.links = (0..self.config.link_streams).map(|_| Stream::default()).collect();
        let blocks = usize::from(self.config.address_blocks);
        self.selective = (0..self.config.selective_streams)
            .map(|_| (Stream::default(), SelectiveRegisters::new(blocks)))
            .collect();
    }

    fn for_each(&mut self, mut action: impl FnMut(StreamIndex, &mut Stream)) {
        for (index, stream) in (0..).map(StreamIndex::Link).zip(self.links.iter_mut()) {
            action(index, stream);
        }
        for (index, (stream, _)) in (0..).map(StreamIndex::Selective).zip(self.selective.iter_mut()) {
            action(index, stream);
        }
    }

    fn stream(&self, index: StreamIndex) -> Option<&Stream> {
        match index {
            StreamIndex::Link(index) => self.links.get(usize::from(index)),
            StreamIndex::Selective(index) => self.selective.get(usize::from(index)).map(|(stream, _)| stream),
        }
    }

    fn stream_mut(&mut self, index: StreamIndex) -> Option<&mut Stream> {
        match index {
            StreamIndex::Link(index) => self.links.get_mut(usize::from(index)),
            StreamIndex::Selective(index) => {
                self.selective.get_mut(usize::from(index)).map(|(stream, _)| stream)
            }
        }
    }

    fn associations(&self, index: u8) -> Option<&SelectiveRegisters> {
        self.selective.get(usize::from(index)).map(|(_, registers)| registers)
    }

    fn read_word(&self, offset: u16) -> u32 {
        let Some(register) = self.config.register_at(offset) else { return 0 };
        match register {
            Register::Capability => self.config.capability().into_bits(),
            Register::Control => self.control.into_bits(),
            Register::StreamControl(index) => {
                self.stream(index).map(|stream| stream.control.into_bits()).unwrap_or(0)
            }
            Register::StreamStatus(index) => {
                self.stream(index).map(|stream| stream.status().into_bits()).unwrap_or(0)
            }
            Register::SelectiveCapability => u32::from(self.config.address_blocks),
            Register::Rid1(index) => self.associations(index).map(|set| set.rid_1).unwrap_or(0),
            Register::Rid2(index) => self.associations(index).map(|set| set.rid_2).unwrap_or(0),
            Register::Address { stream, block, word } => self
                .associations(stream)
                .and_then(|set| set.addresses.get(usize::from(block)))
                .map(|address| match word {
                    AddressWord::One => address.one,
                    AddressWord::LimitUpper => address.limit_upper,
                    AddressWord::BaseUpper => address.base_upper,
                })
                .unwrap_or(0),
        }
    }

    fn write_word(&mut self, offset: u16, value: u32, mask: u32, events: &mut Vec<IdeEvent>) {
        let Some(register) = self.config.register_at(offset) else { return };
        let capability = self.config.capability();
        let merge = |old: u32, writable: u32| (old & !(mask & writable)) | (value & mask & writable);
        match register {
            Register::Capability | Register::SelectiveCapability => {}
            Register::Control => {
                let writable = Control::writable(capability);
                self.control = Control::from_bits(merge(self.control.into_bits(), writable));
            }
            Register::StreamControl(index) => {
                let selective = matches!(index, StreamIndex::Selective(_));
                let writable = StreamControl::writable(capability, selective);
                let order = self.config.secure_order;
                let Some(stream) = self.stream_mut(index) else { return };
                let value = StreamControl::from_bits(merge(stream.control.into_bits(), writable));
                stream.set_control(index, value, order, events);
            }
            Register::StreamStatus(index) => {
                let Some(stream) = self.stream_mut(index) else { return };
                if StreamStatus::from_bits(value & mask).integrity_check_fail() {
                    stream.integrity_check_fail = false;
                }
            }
            Register::Rid1(index) => self.write_association(index, events, |set| {
                let value = merge(set.rid_1, RidAssociation1::WRITABLE);
                core::mem::replace(&mut set.rid_1, value) != value
            }),
            Register::Rid2(index) => self.write_association(index, events, |set| {
                let value = merge(set.rid_2, RidAssociation2::WRITABLE);
                core::mem::replace(&mut set.rid_2, value) != value
            }),
            Register::Address { stream, block, word } => self.write_association(stream, events, |set| {
                let Some(address) = set.addresses.get_mut(usize::from(block)) else { return false };
                let (place, writable) = match word {
                    AddressWord::One => (&mut address.one, AddressAssociation1::WRITABLE),
                    AddressWord::LimitUpper => (&mut address.limit_upper, u32::MAX),
                    AddressWord::BaseUpper => (&mut address.base_upper, u32::MAX),
                };
                let value = merge(*place, writable);
                core::mem::replace(place, value) != value
            }),
        }
    }

    fn write_association(
        &mut self,
        index: u8,
        events: &mut Vec<IdeEvent>,
        write: impl FnOnce(&mut SelectiveRegisters) -> bool,
    ) {
        let Some((_, registers)) = self.selective.get_mut(usize::from(index)) else { return };
        let changed = write(registers);
        events.push(IdeEvent::Written { stream: StreamIndex::Selective(index), changed });
    }
}

#[cfg(test)]
mod tests;
