//! Registers of the IDE extended capability as bit fields, and what of each software may write
//! (PCIe 6.1 §7.9.26). Nothing here knows where a register lies.

use bitfield_struct::bitfield;

/// IDE Capability Register (PCIe 6.1 §7.9.26.2). Read-only.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Capability {
    /// Link IDE streams are supported.
    pub link: bool,
    /// Selective IDE streams are supported.
    pub selective: bool,
    /// Flow-through IDE streams are supported.
    pub flow_through: bool,
    /// Partial header encryption is supported.
    pub partial_header_encryption: bool,
    /// Aggregation is supported.
    pub aggregation: bool,
    /// PCRC is supported.
    pub pcrc: bool,
    /// The IDE_KM protocol is supported.
    pub key_management: bool,
    /// Configuration requests may go through a selective stream.
    pub selective_for_configuration: bool,
    /// Supported algorithms: 0 = AES-GCM-256, 96-bit MAC.
    #[bits(5)]
    pub algorithms: u8,
    /// Number of traffic classes for link streams, minus one.
    #[bits(3)]
    pub link_tc_count: u8,
    /// Number of selective streams, minus one.
    pub selective_count: u8,
    /// TEE-limited streams are supported.
    pub tee_limited: bool,
    #[bits(7)]
    _reserved: u8,
}

/// IDE Control Register (PCIe 6.1 §7.9.26.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Control {
    #[bits(2)]
    _reserved_low: u8,
    /// Flow-through streams are enabled.
    pub flow_through_enable: bool,
    #[bits(29)]
    _reserved_high: u32,
}

impl Control {
    pub(super) fn writable(capability: Capability) -> u32 {
        Self::new().with_flow_through_enable(capability.flow_through()).into_bits()
    }
}

/// Link or Selective IDE Stream Control Register (PCIe 6.1 §7.9.26.4.1, §7.9.26.5.2). The fields that a link
/// stream does not have are never writable there.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StreamControl {
    /// The stream is enabled.
    pub enable: bool,
    #[bits(1)]
    _reserved_1: u8,
    /// Transmit aggregation, non-posted requests.
    #[bits(2)]
    pub aggregation_non_posted: u8,
    /// Transmit aggregation, posted requests.
    #[bits(2)]
    pub aggregation_posted: u8,
    /// Transmit aggregation, completions.
    #[bits(2)]
    pub aggregation_completion: u8,
    /// PCRC is enabled.
    pub pcrc_enable: bool,
    /// Configuration requests use this stream (selective only).
    pub configuration_requests: bool,
    /// Partial header encryption mode.
    #[bits(4)]
    pub partial_header_encryption: u8,
    /// Selected algorithm. There is only one, so the field is hardwired to 0.
    #[bits(5)]
    pub algorithm: u8,
    /// Traffic class of the stream.
    #[bits(3)]
    pub traffic_class: u8,
    /// All upstream traffic without a better match uses this stream (selective only).
    pub default_stream: bool,
    /// Only TEE traffic uses this stream (selective only).
    pub tee_limited: bool,
    /// Stream id.
    pub stream_id: u8,
}

impl StreamControl {
    pub(super) fn writable(capability: Capability, selective: bool) -> u32 {
        let two = if capability.aggregation() { 0b11 } else { 0 };
        Self::new()
            .with_enable(true)
            .with_aggregation_non_posted(two)
            .with_aggregation_posted(two)
            .with_aggregation_completion(two)
            .with_pcrc_enable(capability.pcrc())
            .with_configuration_requests(selective && capability.selective_for_configuration())
            .with_partial_header_encryption(if capability.partial_header_encryption() { 0xF } else { 0 })
            .with_traffic_class(0b111)
            .with_default_stream(selective)
            .with_tee_limited(selective && capability.tee_limited())
            .with_stream_id(0xFF)
            .into_bits()
    }
}

/// State field of a stream's status register.
pub const STATE_INSECURE: u8 = 0;
/// State field of a stream's status register.
pub const STATE_SECURE: u8 = 2;

/// Link or Selective IDE Stream Status Register (PCIe 6.1 §7.9.26.4.2, §7.9.26.5.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StreamStatus {
    /// [`STATE_INSECURE`] or [`STATE_SECURE`].
    #[bits(4)]
    pub state: u8,
    #[bits(27)]
    _reserved: u32,
    /// An Integrity Check Fail message was received. Written 1 to clear.
    pub integrity_check_fail: bool,
}

/// IDE RID Association Register 1 (PCIe 6.1 §7.9.26.5.4.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RidAssociation1 {
    _reserved_low: u8,
    /// Highest requester id.
    pub limit: u16,
    _reserved_high: u8,
}

impl RidAssociation1 {
    pub(super) const WRITABLE: u32 = 0x00FF_FF00;
}

/// IDE RID Association Register 2 (PCIe 6.1 §7.9.26.5.4.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RidAssociation2 {
    /// The association is valid.
    pub valid: bool,
    #[bits(7)]
    _reserved: u8,
    /// Lowest requester id.
    pub base: u16,
    /// Segment of the range.
    pub segment: u8,
}

impl RidAssociation2 {
    pub(super) const WRITABLE: u32 = 0xFFFF_FF01;
}

/// IDE Address Association Register 1 (PCIe 6.1 §7.9.26.5.5.1). Registers 2 and 3 are the upper halves of
/// limit and base, all bits writable.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AddressAssociation1 {
    /// The association is valid.
    pub valid: bool,
    #[bits(7)]
    _reserved: u8,
    /// Address bits 31:20 of the base.
    #[bits(12)]
    pub base_low: u16,
    /// Address bits 31:20 of the limit.
    #[bits(12)]
    pub limit_low: u16,
}

impl AddressAssociation1 {
    pub(super) const WRITABLE: u32 = 0xFFFF_FF01;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_has_them() {
        let all = Capability::new().with_selective(true).with_key_management(true).with_tee_limited(true);
        assert_eq!(all.with_selective_count(3).with_link_tc_count(5).into_bits(), 0x0103_A042);
        let control = StreamControl::new().with_enable(true).with_default_stream(true).with_stream_id(0xAB);
        assert_eq!(control.with_traffic_class(7).into_bits(), 0xAB78_0001);
        assert_eq!(control.with_tee_limited(true).with_configuration_requests(true).into_bits(), 0xABC0_0201);
        assert_eq!(
            StreamStatus::new().with_state(2).with_integrity_check_fail(true).into_bits(),
            0x8000_0002
        );
        assert_eq!(RidAssociation1::new().with_limit(0xBEEF).into_bits(), 0x00BE_EF00);
        let rid2 = RidAssociation2::new().with_valid(true).with_base(0xBEEF).with_segment(0x5A);
        assert_eq!(rid2.into_bits(), 0x5ABE_EF01);
        let address = AddressAssociation1::new().with_valid(true).with_base_low(0xFFF).with_limit_low(0x123);
        assert_eq!(address.into_bits(), 0x123F_FF01);
    }

    #[test]
    fn what_is_not_supported_is_not_writable() {
        let none = Capability::new();
        assert_eq!(StreamControl::writable(none, true), 0xFF78_0001);
        assert_eq!(StreamControl::writable(none, false), 0xFF38_0001);
        let all = Capability::from_bits(u32::MAX);
        assert_eq!(StreamControl::writable(all, true), 0xFFF8_3FFD);
        assert_eq!(StreamControl::writable(all, false), 0xFF38_3DFD);
        assert_eq!(Control::writable(none), 0);
        assert_eq!(Control::writable(all), 4);
    }
}
