//! What can be chosen about a DSM. Every default is what a conforming device would do, by the best reading
//! of the specification; where its text leaves room, the other reading is here as a setting.

use thiserror::Error;

use crate::ide::{IdeConfig, IdeConfigError};
use crate::wire::{LockFlags, MessageCode, RequestBitmap};

/// Configuration of a DSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DsmConfig {
    /// Number of functions hosted, 1 to 256; their numbers are 0, 1, 2 and so on.
    pub functions: usize,
    /// How FUNCTION_ID names a function.
    pub function_match: FunctionMatch,
    /// DSM_CAPS. All bits are reserved in PCIe 6.1; later revisions give them a meaning.
    pub dsm_caps: u32,
    /// Which of the optional requests are answered, and so stand in REQ_MSGS_SUPPORTED.
    pub optional: OptionalRequests,
    /// LOCK_INTERFACE_FLAGS_SUPPORTED.
    pub lock_flags: LockFlags,
    /// DEV_ADDR_WIDTH, bits.
    pub dev_addr_width: u8,
    /// NUM_REQ_THIS, at least 1.
    pub num_req_this: u8,
    /// NUM_REQ_ALL, at least 1.
    pub num_req_all: u8,
    /// Most bytes of a report in one DEVICE_INTERFACE_REPORT, at least 1.
    pub max_report_portion: u16,
    /// Reserved fields of requests that are not zero.
    pub reserved_fields: ReservedFields,
    /// GET_DEVICE_INTERFACE_STATE from another session than the one that locked.
    pub foreign_state_query: ForeignStateQuery,
    /// Writes that change nothing, to registers that LOCK froze.
    pub same_value_write: SameValueWrite,
    /// Clearing Memory Space Enable or Bus Master Enable while locked or running.
    pub command_clear: CommandClear,
    /// Which keys of its stream LOCK wants in use.
    pub keys_at_lock: KeysAtLock,
    /// Whether the stream that LOCK names must be marked as the default one.
    pub default_stream: DefaultStream,
    /// What the report says of an MSI-X table and PBA that are not locked.
    pub unlocked_msix: UnlockedMsix,
    /// Whether LOCK wants an address in every BAR. Only for transports without configuration space should it not.
    pub bars_must_be_assigned: bool,
    /// The IDE capability.
    pub ide: IdeConfig,
    /// What IDE_KM says of the device's ports.
    pub ports: PortConfig,
}

impl Default for DsmConfig {
    fn default() -> Self {
        Self {
            functions: 1,
            function_match: FunctionMatch::default(),
            dsm_caps: 0,
            optional: OptionalRequests::default(),
            lock_flags: LockFlags::new().with_no_fw_update(true).with_lock_msix(true),
            dev_addr_width: 52,
            num_req_this: 1,
            num_req_all: 1,
            max_report_portion: 4096,
            reserved_fields: ReservedFields::default(),
            foreign_state_query: ForeignStateQuery::default(),
            same_value_write: SameValueWrite::default(),
            command_clear: CommandClear::default(),
            keys_at_lock: KeysAtLock::default(),
            default_stream: DefaultStream::default(),
            unlocked_msix: UnlockedMsix::default(),
            bars_must_be_assigned: true,
            ide: IdeConfig::default(),
            ports: PortConfig::default(),
        }
    }
}

/// How FUNCTION_ID names a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FunctionMatch {
    /// By the function number in bits 2:0, or in bits 7:0 when more than eight functions are hosted; bus, device and
    /// segment are not looked at, because a device knows them only from what it is told. While a TDI is locked, it
    /// answers only to the FUNCTION_ID that LOCK was sent with.
    #[default]
    Number,
    /// Function 0 has exactly this requester id, the others follow it.
    Pinned {
        /// Requester id of function 0.
        requester_id: u16,
        /// Its segment. A FUNCTION_ID that states a segment must state this one.
        segment: u8,
    },
    /// Any id means function 0: for requesters that make one up.
    Any,
}

/// The requests that a DSM may leave out (PCIe 6.1 §11.3.1). One that is left out is UNSUPPORTED_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OptionalRequests {
    /// BIND_P2P_STREAM_REQUEST and UNBIND_P2P_STREAM_REQUEST.
    pub p2p: bool,
    /// SET_MMIO_ATTRIBUTE_REQUEST.
    pub mmio_attribute: bool,
    /// VDM_REQUEST, for messages of this PCI-SIG vendor id.
    pub vdm: Option<u16>,
}

impl OptionalRequests {
    /// REQ_MSGS_SUPPORTED: the seven required requests and these.
    pub(super) fn bitmap(self) -> RequestBitmap {
        let optional = [
            (self.p2p, MessageCode::BIND_P2P_STREAM_REQUEST),
            (self.p2p, MessageCode::UNBIND_P2P_STREAM_REQUEST),
            (self.mmio_attribute, MessageCode::SET_MMIO_ATTRIBUTE_REQUEST),
            (self.vdm.is_some(), MessageCode::VDM_REQUEST),
        ];
        let offered = optional.into_iter().filter(|(offered, _)| *offered);
        offered.fold(RequestBitmap::REQUIRED, |bitmap, (_, code)| bitmap.with(code))
    }
}

/// What to do about a reserved field that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReservedFields {
    /// Nothing: they are "ignored when read" (PCIe 6.1 §11.3.3). LOCK's reserved flags are refused nevertheless: they
    /// are flags that are not supported.
    #[default]
    Ignore,
    /// Refuse the request: finds requesters that do not write zero.
    Reject,
}

/// Whether LOCK's stream has to be the one whose control register says "default stream" (PCIe 6.1 §11.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DefaultStream {
    /// As the specification asks.
    #[default]
    Required,
    /// Any selective stream will do, for software that leaves the bit alone.
    Any,
}

/// What the report says of MSI-X table and PBA pages that are not locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnlockedMsix {
    /// Nothing: "they must not be reported" (PCIe 6.1 §11.3.8).
    #[default]
    Omit,
    /// They are shared pages like others, without the attributes of table and PBA, so that a report covers whole BARs.
    Plain,
}

/// Whether any session may ask for a TDI's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForeignStateQuery {
    /// Only the session that locked, while it lives.
    #[default]
    Reject,
    /// Any.
    Answer,
}

/// What a write that changes nothing means to a frozen register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SameValueWrite {
    /// Nothing.
    #[default]
    Ignore,
    /// The same as one that changes something.
    Error,
}

/// What clearing Memory Space Enable or Bus Master Enable means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CommandClear {
    /// The TDI goes to ERROR.
    #[default]
    Error,
    /// Nothing: lets an ordinary driver reset its device.
    Lenient,
}

/// Which keys of its stream LOCK wants in use (PCIe 6.1 §11.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeysAtLock {
    /// All six of one set, programmed through the session that carries LOCK.
    #[default]
    InUse,
    /// These, or none at all if the session has programmed keys for the stream, and started and stopped every one of them:
    /// it has shown that it can handle keys, and keeps none. For requesters that go through the messages without a link to
    /// protect; what such a TDI does is protected by nothing.
    Rehearsed,
}

/// What QUERY_RESP says of the device's port, apart from the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PortConfig {
    /// Highest port index that is accepted. An endpoint has port 0; further ones are names for the same port.
    pub max_port_index: u8,
    /// Requester id of function 0 and its segment, if they are told. Otherwise QUERY_RESP has zeros until LOCK tells them
    /// by its FUNCTION_ID ([`FunctionMatch::Number`]).
    pub address: Option<(u16, u8)>,
}

/// A configuration that no DSM can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No function, or more than a device can have.
    #[error("{0} functions; there must be 1 to 256")]
    Functions(usize),
    /// A count that the protocol wants to be at least 1.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Reserved flags are set.
    #[error("reserved LOCK flags are offered: {0:#06x}")]
    LockFlags(u16),
    /// The IDE capability.
    #[error(transparent)]
    Ide(#[from] IdeConfigError),
}

impl DsmConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.functions == 0 || self.functions > 256 {
            return Err(ConfigError::Functions(self.functions));
        }
        for (name, value) in [
            ("NUM_REQ_THIS", u16::from(self.num_req_this)),
            ("NUM_REQ_ALL", u16::from(self.num_req_all)),
            ("the report portion", self.max_report_portion),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        if self.lock_flags.reserved() != 0 {
            return Err(ConfigError::LockFlags(self.lock_flags.into_bits()));
        }
        Ok(())
    }
}
