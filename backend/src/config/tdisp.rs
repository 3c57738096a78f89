//! What the device security manager and its IDE capability are made of. Where the specification leaves room, the other reading
//! is a setting here; the defaults are those of `tdisp::DsmConfig`.

use serde::{Deserialize, Serialize};

use super::{ConfigError, within};

/// When a selective stream reads as secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureOn {
    /// When it is enabled and its six keys are in use, whichever comes last.
    #[default]
    Either,
    /// Only at the write that enables it, with its keys in use already: the order Linux expects.
    Enable,
    /// Only at the last K_SET_GO, with the stream enabled already: the order of some real devices.
    LastGo,
}

/// `[ide]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ide {
    /// Link streams, 0–8.
    pub link_streams: u8,
    /// Selective streams, 1–255.
    pub selective_streams: u8,
    /// Address association blocks in each of them, 0–15.
    pub address_blocks: u8,
    /// Offer flow-through streams.
    pub flow_through: bool,
    /// Offer partial header encryption.
    pub partial_header_encryption: bool,
    /// Offer aggregation.
    pub aggregation: bool,
    /// Offer PCRC.
    pub pcrc: bool,
    /// Offer TEE-limited streams.
    pub tee_limited: bool,
    /// Offer configuration requests through a selective stream.
    pub configuration_requests: bool,
    /// Answer IDE_KM. Without it no stream gets keys.
    pub key_management: bool,
    /// Highest port index that IDE_KM takes; 0 for a device that is plugged in, 7 for one that has only the SPDM socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_port_index: Option<u8>,
    /// When a stream reads as secure. Without any --socket this is not looked at: the keys alone decide.
    pub secure_on: SecureOn,
}

impl Default for Ide {
    fn default() -> Self {
        Self {
            link_streams: 0,
            selective_streams: 1,
            address_blocks: 1,
            flow_through: false,
            partial_header_encryption: false,
            aggregation: false,
            pcrc: false,
            tee_limited: true,
            configuration_requests: true,
            key_management: true,
            max_port_index: None,
            secure_on: SecureOn::default(),
        }
    }
}

/// Which keys of its IDE stream LOCK_INTERFACE wants in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeysAtLock {
    /// `in-use` for a device that is plugged in, `rehearsed` for one that has only the SPDM socket.
    #[default]
    Auto,
    /// All six, as the specification says.
    InUse,
    /// Or none, if the session has programmed keys, started and stopped every one of them, as spdm_requester_emu does
    /// before it locks.
    Rehearsed,
}

/// How FUNCTION_ID names a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionIds {
    /// `number` for a device that is plugged in, `any` for one that has only the SPDM socket.
    #[default]
    Auto,
    /// By the function number in it; vfio-user does not tell a device its bus.
    Number,
    /// Function 0 has the `requester_id` and `segment` of this table, the others follow.
    Pinned,
    /// Any id means function 0.
    Any,
}

/// Requests that a device need not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionalRequest {
    /// BIND_P2P_STREAM and UNBIND_P2P_STREAM.
    P2p,
    /// SET_MMIO_ATTRIBUTE.
    MmioAttribute,
    /// VDM of the vendor in `[pci]`.
    Vdm,
}

/// A flag that LOCK_INTERFACE may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockFlag {
    /// NO_FW_UPDATE.
    NoFwUpdate,
    /// SYSTEM_CACHE_LINE_SIZE: 128 bytes instead of 64.
    #[serde(rename = "cache-line-128")]
    CacheLine128,
    /// LOCK_MSIX.
    LockMsix,
    /// BIND_P2P.
    BindP2p,
    /// ALL_REQUEST_REDIRECT.
    AllRequestRedirect,
}

/// What to do about reserved fields that are not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservedFields {
    /// Nothing, as the specification says.
    #[default]
    Ignore,
    /// Refuse the request: finds requesters that do not write zero.
    Reject,
}

/// GET_DEVICE_INTERFACE_STATE from another session than the one that locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignState {
    /// Refused.
    #[default]
    Reject,
    /// Answered.
    Answer,
}

/// Whether LOCK_INTERFACE's stream must be marked as the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultStream {
    /// As the specification says.
    #[default]
    Required,
    /// Any selective stream will do.
    Any,
}

/// What the report says of MSI-X pages that are not locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlockedMsix {
    /// Nothing, as the specification says.
    #[default]
    Omit,
    /// They are shared pages like others.
    Plain,
}

/// What DMA that fails means to a TDI in RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmaFault {
    /// The function tells its driver, and goes on.
    #[default]
    Recover,
    /// An unsupported request or completion time-out beyond recovery: ERROR.
    Error,
}

/// `[tdisp]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tdisp {
    /// A locked TDI survives a cleared Memory Space or Bus Master Enable, as ordinary drivers do it.
    pub lenient_command: bool,
    /// Writing the value that a guarded register already has moves a locked TDI to ERROR, too.
    pub strict_same_value: bool,
    /// Address bits in CAPABILITIES.
    pub address_width: u8,
    /// DSM_CAPS in CAPABILITIES, all reserved in PCIe 6.1.
    pub dsm_caps: u32,
    /// NUM_REQ_THIS in CAPABILITIES.
    pub num_req_this: u8,
    /// NUM_REQ_ALL in CAPABILITIES.
    pub num_req_all: u8,
    /// Requests beyond the seven that are required.
    pub requests: Vec<OptionalRequest>,
    /// Flags that LOCK_INTERFACE may carry.
    pub lock_flags: Vec<LockFlag>,
    /// Which keys of its IDE stream LOCK wants in use.
    pub keys_at_lock: KeysAtLock,
    /// Whether LOCK's stream must be the default one.
    pub default_stream: DefaultStream,
    /// What the report says of MSI-X pages that are not locked.
    pub unlocked_msix: UnlockedMsix,
    /// Reserved fields of requests.
    pub reserved_fields: ReservedFields,
    /// State queries of other sessions.
    pub foreign_state: ForeignState,
    /// DMA that fails in RUN.
    pub dma_fault: DmaFault,
    /// SIGHUP is a firmware update: measured files are read again. At run time (true), TDIs and sessions live on, and
    /// subscribers are told; otherwise all of them end.
    pub runtime_update: bool,
    /// How FUNCTION_ID names a function.
    pub function_ids: FunctionIds,
    /// Requester id of function 0 (bus, device, function), if it is known: IDE_KM reports it, and `pinned` wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester_id: Option<u16>,
    /// Its segment.
    pub segment: u8,
}

impl Default for Tdisp {
    fn default() -> Self {
        Self {
            lenient_command: false,
            strict_same_value: false,
            address_width: 52,
            dsm_caps: 0,
            num_req_this: 1,
            num_req_all: 1,
            requests: Vec::new(),
            lock_flags: vec![LockFlag::NoFwUpdate, LockFlag::LockMsix],
            keys_at_lock: KeysAtLock::default(),
            default_stream: DefaultStream::default(),
            unlocked_msix: UnlockedMsix::default(),
            reserved_fields: ReservedFields::default(),
            foreign_state: ForeignState::default(),
            dma_fault: DmaFault::default(),
            runtime_update: false,
            function_ids: FunctionIds::default(),
            requester_id: None,
            segment: 0,
        }
    }
}

impl Ide {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("ide.link_streams", self.link_streams.into(), 0, 8)?;
        within("ide.selective_streams", self.selective_streams.into(), 1, 255)?;
        within("ide.address_blocks", self.address_blocks.into(), 0, 15)
    }
}

impl Tdisp {
    pub(super) fn check(&self, ats: bool) -> Result<(), ConfigError> {
        within("tdisp.address_width", self.address_width.into(), 32, 64)?;
        within("tdisp.num_req_this", self.num_req_this.into(), 1, 255)?;
        within("tdisp.num_req_all", self.num_req_all.into(), 1, 255)?;
        if self.function_ids == FunctionIds::Pinned && self.requester_id.is_none() {
            return Err(ConfigError::value("tdisp.requester_id", "function_ids = \"pinned\" wants it"));
        }
        if self.segment != 0 && self.requester_id.is_none() {
            return Err(ConfigError::value("tdisp.segment", "it means nothing without requester_id"));
        }
        if self.lock_flags.contains(&LockFlag::BindP2p) && !self.requests.contains(&OptionalRequest::P2p) {
            return Err(ConfigError::value(
                "tdisp.lock_flags",
                "\"bind-p2p\" wants \"p2p\" in tdisp.requests",
            ));
        }
        if self.requests.contains(&OptionalRequest::P2p) {
            if !self.lock_flags.contains(&LockFlag::BindP2p) {
                let missing = "no TDI can be locked for \"p2p\" without \"bind-p2p\"";
                return Err(ConfigError::value("tdisp.lock_flags", missing));
            }
            if !ats {
                return Err(ConfigError::value("pci.ats", "\"p2p\" in tdisp.requests wants ATS (true)"));
            }
        }
        Ok(())
    }
}
