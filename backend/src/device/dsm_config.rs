//! From `[tdisp]`, `[ide]` and `[pci]` to the configuration of the DSM.

use tdisp::LockFlags;
use tdisp::dsm::{
    CommandClear, DefaultStream, DsmConfig, ForeignStateQuery, FunctionMatch, KeysAtLock, OptionalRequests,
    PortConfig, ReservedFields, SameValueWrite, UnlockedMsix,
};
use tdisp::ide::{IdeConfig, SecureOrder};

use crate::config::{self, Config, FunctionIds, LockFlag, OptionalRequest, SecureOn};

/// What the settings called `auto` mean, and what no setting is for.
pub(super) struct Profile {
    pub(super) keys_at_lock: KeysAtLock,
    pub(super) function_match: FunctionMatch,
    pub(super) max_port_index: u8,
    /// Instead of what `secure_on` says.
    pub(super) secure_order: Option<SecureOrder>,
}

impl Profile {
    /// Plugged into a VMM.
    pub(super) const PLUGGED: Self = Self {
        keys_at_lock: KeysAtLock::InUse,
        function_match: FunctionMatch::Number,
        max_port_index: 0,
        secure_order: None,
    };

    /// Reached through the SPDM socket only: no register is ever programmed, ids are made up, keys rehearsed.
    pub(super) const STANDALONE: Self = Self {
        keys_at_lock: KeysAtLock::Rehearsed,
        function_match: FunctionMatch::Any,
        max_port_index: 7,
        secure_order: Some(SecureOrder::WithoutEnable),
    };
}

/// The DSM of the device that `config` describes.
pub(super) fn dsm_config(config: &Config, profile: &Profile) -> DsmConfig {
    let tdisp = &config.tdisp;
    let offered = |request| tdisp.requests.contains(&request);
    DsmConfig {
        functions: config.functions.len(),
        function_match: function_match(tdisp, profile),
        dsm_caps: tdisp.dsm_caps,
        optional: OptionalRequests {
            p2p: offered(OptionalRequest::P2p),
            mmio_attribute: offered(OptionalRequest::MmioAttribute),
            vdm: offered(OptionalRequest::Vdm).then_some(config.pci.vendor),
        },
        lock_flags: lock_flags(&tdisp.lock_flags),
        dev_addr_width: tdisp.address_width,
        num_req_this: tdisp.num_req_this,
        num_req_all: tdisp.num_req_all,
        // One SPDM message has to hold a portion with its headers.
        max_report_portion: u16::try_from(config.spdm.transfer_size.saturating_sub(128)).unwrap_or(u16::MAX),
        reserved_fields: match tdisp.reserved_fields {
            config::ReservedFields::Ignore => ReservedFields::Ignore,
            config::ReservedFields::Reject => ReservedFields::Reject,
        },
        foreign_state_query: match tdisp.foreign_state {
            config::ForeignState::Reject => ForeignStateQuery::Reject,
            config::ForeignState::Answer => ForeignStateQuery::Answer,
        },
        same_value_write: if tdisp.strict_same_value {
            SameValueWrite::Error
        } else {
            SameValueWrite::Ignore
        },
        command_clear: if tdisp.lenient_command { CommandClear::Lenient } else { CommandClear::Error },
        keys_at_lock: match tdisp.keys_at_lock {
            config::KeysAtLock::Auto => profile.keys_at_lock,
            config::KeysAtLock::InUse => KeysAtLock::InUse,
            config::KeysAtLock::Rehearsed => KeysAtLock::Rehearsed,
        },
        default_stream: match tdisp.default_stream {
            config::DefaultStream::Required => DefaultStream::Required,
            config::DefaultStream::Any => DefaultStream::Any,
        },
        unlocked_msix: match tdisp.unlocked_msix {
            config::UnlockedMsix::Omit => UnlockedMsix::Omit,
            config::UnlockedMsix::Plain => UnlockedMsix::Plain,
        },
        bars_must_be_assigned: true,
        ide: ide_config(&config.ide, profile),
        ports: PortConfig {
            max_port_index: config.ide.max_port_index.unwrap_or(profile.max_port_index),
            address: tdisp.requester_id.map(|id| (id, tdisp.segment)),
        },
    }
}

fn function_match(tdisp: &config::Tdisp, profile: &Profile) -> FunctionMatch {
    match tdisp.function_ids {
        FunctionIds::Auto => profile.function_match,
        FunctionIds::Number => FunctionMatch::Number,
        FunctionIds::Pinned => FunctionMatch::Pinned {
            requester_id: tdisp.requester_id.unwrap_or_default(),
            segment: tdisp.segment,
        },
        FunctionIds::Any => FunctionMatch::Any,
    }
}

fn lock_flags(offered: &[LockFlag]) -> LockFlags {
    offered.iter().fold(LockFlags::new(), |flags, flag| match flag {
        LockFlag::NoFwUpdate => flags.with_no_fw_update(true),
        LockFlag::CacheLine128 => flags.with_system_cache_line_size(true),
        LockFlag::LockMsix => flags.with_lock_msix(true),
        LockFlag::BindP2p => flags.with_bind_p2p(true),
        LockFlag::AllRequestRedirect => flags.with_all_request_redirect(true),
    })
}

fn ide_config(ide: &config::Ide, profile: &Profile) -> IdeConfig {
    IdeConfig {
        link_streams: ide.link_streams,
        selective_streams: ide.selective_streams,
        address_blocks: ide.address_blocks,
        flow_through: ide.flow_through,
        partial_header_encryption: ide.partial_header_encryption,
        aggregation: ide.aggregation,
        pcrc: ide.pcrc,
        key_management: ide.key_management,
        selective_for_configuration: ide.configuration_requests,
        tee_limited: ide.tee_limited,
        secure_order: profile.secure_order.unwrap_or(match ide.secure_on {
            SecureOn::Either => SecureOrder::Either,
            SecureOn::Enable => SecureOrder::AtEnable,
            SecureOn::LastGo => SecureOrder::AtLastGo,
        }),
    }
}
