//! Configuration of what a requester can read and change about slots, keys, the measurement log and the endpoint.

use crate::wire::{ResponderExtendedFlags, ResponderFlags};

use super::MeasurementValue;

/// Switches of provisioning and of several keys, off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provisioning {
    /// SET_CERTIFICATE, from 1.2 on. Slots of the alias model need [`Slot::alias`](crate::slot::Slot::alias).
    pub set_certificate: bool,
    /// GET_CSR, from 1.2 on; needs `set_certificate`.
    pub csr: bool,
    /// SLOT_MANAGEMENT, from 1.4 on: shows the slots of every algorithm, and writes them and asks for certificates where
    /// `set_certificate` and `csr` allow it.
    pub slot_management: bool,
    /// `CERT_INSTALL_RESET_CAP`: SET_CERTIFICATE and GET_CSR take effect at the next reset.
    pub at_reset: bool,
    /// Slots may be written outside sessions, slot 0 among them (DSP0274 1.3 "SET_CERTIFICATE").
    pub trusted_environment: bool,
    /// GET_KEY_PAIR_INFO, from 1.3 on.
    pub key_pair_info: bool,
    /// SET_KEY_PAIR_INFO, from 1.3 on; needs `key_pair_info`.
    pub set_key_pair_info: bool,
    /// Whether slots have keys of their own, from 1.3 on; anything but `No` needs `key_pair_info`.
    pub multiple_keys: MultipleKeys,
}

/// `MULTI_KEY_CAP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultipleKeys {
    /// Connections have one key.
    #[default]
    No,
    /// Connections have several keys, from 1.3 on.
    Always,
    /// The requester chooses.
    Negotiated,
}

/// `EP_INFO_CAP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointInfoSupport {
    /// No endpoint information.
    #[default]
    None,
    /// Endpoint information, never signed.
    Unsigned,
    /// Endpoint information, signed on request.
    Signed,
}

/// One entry of the measurement extension log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementLogItem {
    /// Index of the measurement that it extended, or is part of.
    pub index: u8,
    /// `DMTFSpecMeasurementValueType`, 0 to 127.
    pub kind: u8,
    /// The value; a bit stream is always reported as it is.
    pub value: MeasurementValue,
}

impl Provisioning {
    /// The flags to advertise.
    pub(super) fn flags(self) -> u32 {
        use ResponderFlags as F;
        let several = match self.multiple_keys {
            MultipleKeys::No => 0,
            MultipleKeys::Always => F::MULTI_KEY_ONLY,
            MultipleKeys::Negotiated => F::MULTI_KEY_NEGOTIATED,
        };
        let switches = [
            (self.set_certificate, F::SET_CERT),
            (self.csr, F::CSR),
            (self.at_reset, F::CERT_INSTALL_RESET),
            (self.key_pair_info, F::GET_KEY_PAIR_INFO),
            (self.set_key_pair_info, F::SET_KEY_PAIR_INFO),
        ];
        switches.iter().filter(|(on, _)| *on).fold(several, |flags, (_, bit)| flags | bit)
    }

    /// The extended flags to advertise.
    pub(super) const fn extended_flags(self) -> ResponderExtendedFlags {
        ResponderExtendedFlags(if self.slot_management { ResponderExtendedFlags::SLOT_MGMT } else { 0 })
    }

    /// The first field that does not go with the others.
    pub(super) const fn contradiction(self) -> Option<(&'static str, &'static str)> {
        let several = !matches!(self.multiple_keys, MultipleKeys::No);
        if self.csr && !self.set_certificate {
            Some(("csr", "off without set_certificate"))
        } else if self.at_reset && !self.set_certificate {
            Some(("at_reset", "off without set_certificate"))
        } else if self.set_key_pair_info && !self.key_pair_info {
            Some(("set_key_pair_info", "off without key_pair_info"))
        } else if several && !self.key_pair_info {
            Some(("multiple_keys", "no without key_pair_info"))
        } else {
            None
        }
    }
}

impl EndpointInfoSupport {
    /// The flags to advertise.
    pub(super) const fn flags(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Unsigned => ResponderFlags::EP_INFO_NO_SIG,
            Self::Signed => ResponderFlags::EP_INFO_SIG,
        }
    }
}
