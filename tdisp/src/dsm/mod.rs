//! The device security manager: one state machine per TDI (PCIe 6.1 §11.2), the messages that drive it, and
//! the cascades from sessions, streams, configuration writes and resets.
//!
//! What happens to a TDI, by its state; a test executes this table and checks that it is printed here. STOP from
//! another session is refused only while the session that locked is alive.
//!
//! | Event | CONFIG_UNLOCKED | CONFIG_LOCKED | RUN | ERROR |
//! |---|---|---|---|---|
//! | GET_TDISP_VERSION | stays | stays | stays | stays |
//! | GET_TDISP_CAPABILITIES | stays | stays | stays | stays |
//! | GET_DEVICE_INTERFACE_STATE | stays | stays | stays | stays |
//! | LOCK, every check passed | **CONFIG_LOCKED** | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE |
//! | LOCK, a check failed | INVALID_REQUEST | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE |
//! | GET_DEVICE_INTERFACE_REPORT | INVALID_INTERFACE_STATE | stays | stays | INVALID_INTERFACE_STATE |
//! | START, the nonce of LOCK | INVALID_INTERFACE_STATE | **RUN** | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE |
//! | START, another nonce | INVALID_INTERFACE_STATE | INVALID_NONCE | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE |
//! | STOP | stays | **CONFIG_UNLOCKED** | **CONFIG_UNLOCKED** | **CONFIG_UNLOCKED** |
//! | BIND_P2P_STREAM, where it is offered | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE | stays | INVALID_INTERFACE_STATE |
//! | UNBIND_P2P_STREAM, where it is offered | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE | stays | INVALID_INTERFACE_STATE |
//! | SET_MMIO_ATTRIBUTE, where it is offered | INVALID_INTERFACE_STATE | INVALID_INTERFACE_STATE | stays | INVALID_INTERFACE_STATE |
//! | VDM, where it is offered | stays | stays | stays | stays |
//! | a request that is not offered | UNSUPPORTED_REQUEST | UNSUPPORTED_REQUEST | UNSUPPORTED_REQUEST | UNSUPPORTED_REQUEST |
//! | STOP from another session | stays | INVALID_REQUEST | INVALID_REQUEST | INVALID_REQUEST |
//! | frozen register changed | stays | **ERROR** | **ERROR** | stays |
//! | frozen register rewritten as it was | stays | stays | stays | stays |
//! | bound stream insecure | stays | **ERROR** | **ERROR** | stays |
//! | session that locked ends | stays | **ERROR** | **ERROR** | stays |
//! | another session ends | stays | stays | stays | stays |
//! | function level reset | stays | **ERROR** | **ERROR** | stays |
//! | requester id changed | stays | **ERROR** | **ERROR** | stays |
//! | internal fault | stays | **ERROR** | **ERROR** | stays |
//! | conventional reset | stays | **CONFIG_UNLOCKED** | **CONFIG_UNLOCKED** | **CONFIG_UNLOCKED** |

mod adjust;
mod config;
mod dispatch;
mod effect;
mod events;
mod key_management;
mod lock;
mod observe;
mod refusal;
mod report;
mod report_override;
mod tdi;
mod vendor;
mod view;

pub use config::{
    CommandClear, ConfigError, DefaultStream, DsmConfig, ForeignStateQuery, FunctionMatch, KeysAtLock,
    OptionalRequests, PortConfig, ReservedFields, SameValueWrite, UnlockedMsix,
};
pub use effect::{Cause, Effect, Fault};
pub use refusal::Refusal;
pub use report_override::{RangeEdit, RangeStart, ReportEdit, ReportOverride};
pub use view::{BarView, ConfigWrite, FunctionView, Functions, LockedRegister, RangeView, RomView};

use std::collections::BTreeMap;

use crate::SessionId;
use crate::ide::{Ide, StreamIndex};
use crate::wire::{FunctionId, LockRequest, TdiState};
use tdi::{Binding, Tdi, Tdis};

/// Whether a message has an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// The response was appended.
    Respond,
    /// The message is discarded without a word.
    Silent,
}

/// What a locked or running TDI is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// Session that carried LOCK.
    pub session: SessionId,
    /// IDE stream.
    pub stream: StreamIndex,
    /// Whether the stream's keys were in use when it was locked.
    pub keys: KeysAtLock,
    /// LOCK's parameters: flags, stream id, reporting offset.
    pub lock: LockRequest,
    /// What LOCK called the function.
    pub function_id: FunctionId,
    /// P2P streams, in the order in which they were bound.
    pub p2p: Vec<StreamIndex>,
}

/// A memory request of a TDI, as far as the choice of its IDE stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P2pAccess {
    /// Address in it.
    pub address: u64,
    /// Bytes, at least one.
    pub length: u64,
    /// Whether the address was translated by ATS (AT = 10b).
    pub translated: bool,
}

/// The device security manager of one device.
pub struct Dsm {
    config: DsmConfig,
    ide: Ide,
    tdis: Tdis,
    /// The session that IDE_KM belongs to until it ends (QUERY or KEY_PROG claim it).
    key_manager: Option<SessionId>,
    /// A function number for each answer that the owner holds back.
    held: Vec<usize>,
    /// Requester id of function 0 and its segment, where they are known.
    address: Option<(u16, u8)>,
    /// By function.
    report_overrides: BTreeMap<usize, ReportOverride>,
}

impl Dsm {
    /// A DSM after a conventional reset.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration contradicts the protocol or itself.
    pub fn new(config: DsmConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let ide = Ide::new(config.ide.clone())?;
        let tdis = Tdis::new(config.functions);
        let address = config.ports.address;
        Ok(Self {
            config,
            ide,
            tdis,
            key_manager: None,
            held: Vec::new(),
            address,
            report_overrides: BTreeMap::new(),
        })
    }

    /// What it was built from.
    pub fn config(&self) -> &DsmConfig {
        &self.config
    }

    /// State of a TDI. A function that is not hosted is CONFIG_UNLOCKED.
    pub fn state(&self, function: usize) -> TdiState {
        self.tdis.get(function).map_or(TdiState::CONFIG_UNLOCKED, Tdi::state)
    }

    /// What a TDI is bound to, in CONFIG_LOCKED and RUN.
    pub fn binding(&self, function: usize) -> Option<BindingView> {
        self.tdis.get(function)?.binding().map(Binding::view)
    }

    /// The report that was fixed at LOCK, in CONFIG_LOCKED and RUN.
    pub fn report(&self, function: usize) -> Option<&[u8]> {
        Some(&self.tdis.get(function)?.binding()?.report)
    }

    /// The IDE capability, to look at.
    pub fn ide(&self) -> &Ide {
        &self.ide
    }

    /// The session that IDE_KM belongs to, if one claimed it.
    pub fn key_manager(&self) -> Option<SessionId> {
        self.key_manager
    }

    /// The FUNCTION_ID of a function: what LOCK called it while it is locked, else as far as the device knows its own
    /// address. It states a segment other than 0 only.
    pub fn function_id(&self, function: usize) -> FunctionId {
        if let Some(binding) = self.tdis.get(function).and_then(Tdi::binding) {
            return binding.function_id;
        }
        let (first, segment) = match self.config.function_match {
            FunctionMatch::Pinned { requester_id, segment } => (requester_id, segment),
            FunctionMatch::Number | FunctionMatch::Any => self.address.unwrap_or_default(),
        };
        let number = u16::try_from(function).unwrap_or(u16::MAX);
        FunctionId::new(first.wrapping_add(number), (segment != 0).then_some(segment))
    }

    /// The next effect. To be drained after every other call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.tdis.effects.pop_front()
    }

    /// The owner holds back an answer for `function`, because DMA is still being drained: until [`Dsm::release`] the
    /// request is outstanding, and counts for NUM_REQ_THIS and NUM_REQ_ALL.
    pub fn hold(&mut self, function: usize) {
        self.held.push(function);
    }

    /// A held answer left, or never will.
    pub fn release(&mut self, function: usize) {
        if let Some(place) = self.held.iter().position(|held| *held == function) {
            self.held.swap_remove(place);
        }
    }

    /// The requester id of function 0 and its segment became known, as QUERY_RESP shows them. Where they were known
    /// already and are others now, no TDI survives it that was locked under them (PCIe 6.1 §11.2).
    pub fn learn_address(&mut self, requester_id: u16, segment: u8) {
        let known = self.address.replace((requester_id, segment));
        if known.is_some_and(|known| known != (requester_id, segment)) {
            for function in 0..self.tdis.len() {
                let moved = |binding: &Binding| !is_at(binding.function_id, function, requester_id, segment);
                if self.tdis.get(function).and_then(Tdi::binding).is_some_and(moved) {
                    self.fault(function, Fault::RequesterIdChanged);
                }
            }
        }
    }
}

/// Whether `id` names function `number` of a device whose function 0 has that requester id, in that segment.
fn is_at(id: FunctionId, number: usize, first: u16, segment: u8) -> bool {
    let requester_id = u16::try_from(number).map(|number| first.wrapping_add(number));
    requester_id == Ok(id.requester_id()) && id.segment().is_none_or(|stated| stated == segment)
}

#[cfg(test)]
mod tests;
