//! GET_KEY_PAIR_INFO and SET_KEY_PAIR_INFO: the keys behind the slots (DSP0274 1.3, sections of these names).

use crate::crypto::AsymAlgorithm;
use crate::crypto::public_key::key_identifier;
use crate::slot::{KeyPair, Slot, Slots};
use crate::wire::{
    ErrorCode, EventDetail, GetKeyPairInfo, KeyPairAlgorithms, KeyPairCapabilities, KeyPairInfo,
    KeyPairOperation, KeyPairParameters, KeyUsage, ResponderFlags, SetKeyPairInfo, SetKeyPairInfoAck,
};

use super::reject::{Handled, Next, Reject};
use super::state::Request;
use super::{ConfigError, Core};

const FAILED: Reject = Reject::error(ErrorCode::OPERATION_FAILED);

impl Core {
    pub(super) fn get_key_pair_info(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, _) = request.parse(GetKeyPairInfo::parse)?;
        let slots = self.chains.slots();
        let pair = find(slots, body.key_pair).ok_or(Reject::INVALID)?;
        let mut public_key_info = Vec::new();
        if let Some(key) = &pair.key {
            public_key_info = key_identifier(key.algorithm());
        }
        let algorithm = |algorithm: &AsymAlgorithm| KeyPairAlgorithms::of(*algorithm);
        let settable = self.flags.has(ResponderFlags::SET_KEY_PAIR_INFO);
        KeyPairInfo {
            version: body.version,
            total: u8::try_from(slots.key_pairs.len()).unwrap_or(u8::MAX),
            key_pair: body.key_pair,
            capabilities: if settable { pair.capabilities } else { KeyPairCapabilities::default() },
            usage_capabilities: pair.usage_capabilities,
            usage: pair.usage,
            algorithm_capabilities: capable(pair),
            algorithm: pair.key.as_ref().map_or_else(Default::default, |key| algorithm(&key.algorithm())),
            slots: slots.associated(body.key_pair),
            public_key_info: &public_key_info,
        }
        .encode(out)?;
        Ok(Next::Stay)
    }

    /// Nothing has changed unless everything has.
    pub(super) fn set_key_pair_info(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, _) = request.parse(SetKeyPairInfo::parse)?;
        let id = body.key_pair;
        let pair = find(self.chains.slots(), id).ok_or(Reject::INVALID)?;
        let (usage, slots) = (pair.usage, self.chains.slots().associated(id));
        match &body.operation {
            KeyPairOperation::Change(parameters) => {
                check(pair, parameters, self.chains.slots().associated(id))?;
                check_algorithm(pair, parameters)?;
                self.check_slots(id, parameters, pair.key.is_some())?;
                self.change(id, parameters);
            }
            KeyPairOperation::Erase => {
                self.check_idle(id, KeyPairCapabilities::ERASE)?;
                let pair = find_mut(self.chains.slots_mut(), id).ok_or(Reject::INVALID)?;
                pair.key = None;
            }
            KeyPairOperation::Generate(parameters) => {
                check(pair, parameters, self.chains.slots().associated(id))?;
                self.check_idle(id, KeyPairCapabilities::GENERATE)?;
                self.check_slots(id, parameters, true)?;
                self.generate(id, parameters)?;
                self.change(id, parameters);
            }
        }
        self.sessions.events.key_pair_changed(id);
        self.notify_of_key_pair(id, usage, slots);
        SetKeyPairInfoAck { version: body.version }.encode(out);
        Ok(Next::Stay)
    }

    /// GET_DIGESTS tells key pair and usage of a slot: which slots it tells something else of than before.
    fn notify_of_key_pair(&mut self, id: u8, usage: KeyUsage, slots: u8) {
        let now = self.chains.slots().associated(id);
        let reused = find(self.chains.slots(), id).is_some_and(|pair| pair.usage != usage);
        let changed = slots ^ now | if reused { now } else { 0 };
        if changed != 0 {
            self.sessions.notify(&EventDetail::CertificateChanged(changed));
        }
    }

    /// A key that slots rely on is neither erased nor replaced.
    fn check_idle(&self, id: u8, capability: KeyPairCapabilities) -> Result<(), Reject> {
        let slots = self.chains.slots();
        let pair = find(slots, id).ok_or(Reject::INVALID)?;
        if !pair.capabilities.has(capability) {
            return Err(Reject::INVALID);
        }
        if slots.associated(id) == 0 { Ok(()) } else { Err(FAILED) }
    }

    fn generate(&mut self, id: u8, parameters: &KeyPairParameters) -> Result<(), Reject> {
        let slots = self.chains.slots_mut();
        let pair = find(slots, id).ok_or(Reject::INVALID)?;
        let wanted = |algorithm: &&AsymAlgorithm| {
            parameters.algorithm.count() == 0 || KeyPairAlgorithms::of(**algorithm) == parameters.algorithm
        };
        let algorithm = *pair.algorithms.iter().find(wanted).ok_or(Reject::INVALID)?;
        let generator = slots.generator.clone().ok_or(FAILED)?;
        let key = generator.generate(id, algorithm).map_err(|_| FAILED)?;
        find_mut(slots, id).ok_or(Reject::INVALID)?.key = Some(key);
        Ok(())
    }

    /// Slots that hold a chain, or will at the next reset, keep their key, and no slot gets a key that is not there.
    fn check_slots(&self, id: u8, parameters: &KeyPairParameters, has_key: bool) -> Result<(), Reject> {
        let slots = self.chains.slots();
        let wanted = wanted_slots(slots, id, parameters);
        let existing = slots.existing().fold(0, |mask, (number, _)| mask | 1 << number);
        if wanted & !existing != 0 {
            return Err(Reject::INVALID);
        }
        let stays = |(number, slot): (u8, &Slot)| {
            let moves = (wanted >> number & 1 == 1) != (slot.key_pair == id);
            !moves || !slot.is_provisioned() && !self.waits(number) && has_key
        };
        if slots.existing().all(stays) { Ok(()) } else { Err(FAILED) }
    }

    /// What has been checked.
    fn change(&mut self, id: u8, parameters: &KeyPairParameters) {
        let slots = self.chains.slots_mut();
        let wanted = wanted_slots(slots, id, parameters);
        let Some(pair) = find_mut(slots, id) else { return };
        if parameters.usage.0 != 0 {
            pair.usage = parameters.usage;
        }
        let (key, usage) = (pair.key.clone(), pair.usage);
        for (number, slot) in (0_u8..).zip(&mut slots.slots) {
            match (slot, &key) {
                (Some(slot), Some(key)) if wanted >> number & 1 == 1 => {
                    slot.key_pair = id;
                    slot.key = key.clone();
                    slot.usage = usage;
                }
                (Some(slot), _) if slot.key_pair == id => slot.key_pair = 0,
                (Some(_) | None, _) => {}
            }
        }
    }
}

/// The slots a key pair is to have: those it has, if that cannot be changed.
fn wanted_slots(slots: &Slots, id: u8, parameters: &KeyPairParameters) -> u8 {
    match find(slots, id) {
        Some(pair) if pair.capabilities.has(KeyPairCapabilities::ASSOCIATE) => parameters.slots,
        Some(_) | None => slots.associated(id),
    }
}

fn find(slots: &Slots, id: u8) -> Option<&KeyPair> {
    slots.key_pairs.get(usize::from(id).checked_sub(1)?)
}

fn find_mut(slots: &mut Slots, id: u8) -> Option<&mut KeyPair> {
    slots.key_pairs.get_mut(usize::from(id).checked_sub(1)?)
}

fn capable(pair: &KeyPair) -> KeyPairAlgorithms {
    pair.algorithms
        .iter()
        .fold(KeyPairAlgorithms::default(), |all, &one| all.union(KeyPairAlgorithms::of(one)))
}

/// What a key pair's capabilities allow; `slots` are those it has. The codes are those of libspdm's responder.
fn check(pair: &KeyPair, wanted: &KeyPairParameters, slots: u8) -> Result<(), Reject> {
    use KeyPairCapabilities as C;
    const UNSUPPORTED: Reject = Reject::unsupported(crate::wire::Code::SET_KEY_PAIR_INFO);
    let can = |capability| pair.capabilities.has(capability);
    let same_slots = wanted.slots == 0 || wanted.slots == slots;
    let usage = wanted.usage.0 == 0 || can(C::USAGE) && pair.usage_capabilities.has(wanted.usage);
    let algorithm = wanted.algorithm.count() == 0 || can(C::ALGORITHM) && wanted.algorithm.count() == 1;
    if !(can(C::ASSOCIATE) || same_slots) || !usage || !algorithm {
        return Err(Reject::INVALID);
    }
    if !capable(pair).has(wanted.algorithm) || !can(C::SHARE) && wanted.slots.count_ones() > 1 {
        return Err(UNSUPPORTED);
    }
    Ok(())
}

/// A key keeps its algorithm: to have another, a new key is generated.
fn check_algorithm(pair: &KeyPair, wanted: &KeyPairParameters) -> Result<(), Reject> {
    let current = pair.key.as_ref().map(|key| KeyPairAlgorithms::of(key.algorithm()));
    let same = wanted.algorithm.count() == 0 || current == Some(wanted.algorithm);
    if same { Ok(()) } else { Err(FAILED) }
}

/// Gives slots without a list of key pairs one, and checks the list of those that have one.
pub(super) fn numbered(mut slots: Slots) -> Result<Slots, ConfigError> {
    let bad = |expected| ConfigError::OutOfRange { field: "key pairs", expected };
    let last = slots.existing().map(|(_, slot)| slot.key_pair).max().unwrap_or(0);
    if slots.key_pairs.is_empty() {
        for id in 1..=last {
            let slot = slots.existing().find(|(_, slot)| slot.key_pair == id);
            let (_, slot) = slot.ok_or(bad("numbered from 1 without gaps"))?;
            let pair = KeyPair::fixed(slot.key.clone(), slot.usage);
            slots.key_pairs.push(pair);
        }
    }
    if slots.key_pairs.len() > usize::from(u8::MAX) {
        return Err(bad("at most 255"));
    }
    let matches = slots.existing().filter(|(_, slot)| slot.key_pair != 0).all(|(_, slot)| {
        let key = find(&slots, slot.key_pair).and_then(|pair| pair.key.as_ref());
        key.is_some_and(|key| key.public_key() == slot.key.public_key())
    });
    if matches { Ok(slots) } else { Err(bad("those of the slots")) }
}
