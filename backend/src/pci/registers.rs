//! Registers as bit fields, with their offsets. Names follow the specification (PCIe 6.1 chapter 7).

use bitfield_struct::bitfield;

/// Offsets of the type 0 header (PCIe 6.1 §7.5.1).
pub mod header {
    /// Vendor ID, 16 bit.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bit.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bit.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bit.
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bit; the class code follows in the upper 24 bits of this dword.
    pub const REVISION_ID: u16 = 0x08;
    /// Cache Line Size, 8 bit.
    pub const CACHE_LINE_SIZE: u16 = 0x0C;
    /// Header Type, 8 bit; bit 7 says multi-function.
    pub const HEADER_TYPE: u16 = 0x0E;
    /// BIST, 8 bit.
    pub const BIST: u16 = 0x0F;
    /// First of six Base Address registers, 32 bit each.
    pub const BAR0: u16 = 0x10;
    /// Subsystem Vendor ID, 16 bit.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2C;
    /// Subsystem ID, 16 bit.
    pub const SUBSYSTEM_ID: u16 = 0x2E;
    /// Expansion ROM Base Address, 32 bit.
    pub const ROM: u16 = 0x30;
    /// Capabilities Pointer, 8 bit.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt Line, 8 bit.
    pub const INTERRUPT_LINE: u16 = 0x3C;
    /// Interrupt Pin, 8 bit.
    pub const INTERRUPT_PIN: u16 = 0x3D;
}

/// Command register (PCIe 6.1 §7.5.1.1.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Command {
    pub io_space: bool,
    pub memory_space: bool,
    pub bus_master: bool,
    #[bits(3)]
    __: u8,
    pub parity_error_response: bool,
    __: bool,
    pub serr_enable: bool,
    __: bool,
    pub interrupt_disable: bool,
    #[bits(5)]
    __: u8,
}

/// Status register (PCIe 6.1 §7.5.1.1.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    #[bits(3)]
    __: u8,
    pub interrupt_status: bool,
    pub capabilities_list: bool,
    #[bits(3)]
    __: u8,
    pub master_data_parity_error: bool,
    #[bits(2)]
    __: u8,
    pub signaled_target_abort: bool,
    pub received_target_abort: bool,
    pub received_master_abort: bool,
    pub signaled_system_error: bool,
    pub detected_parity_error: bool,
}

/// Power Management Capabilities (PCIe 6.1 §7.5.2.1), the upper half of the capability's first dword.
#[bitfield(u16)]
pub struct PmCapabilities {
    #[bits(3)]
    pub version: u8,
    pub pme_clock: bool,
    pub immediate_readiness_on_return_to_d0: bool,
    pub device_specific_initialization: bool,
    #[bits(3)]
    pub aux_current: u8,
    pub d1_support: bool,
    pub d2_support: bool,
    #[bits(5)]
    pub pme_support: u8,
}

/// Power Management Control/Status (PCIe 6.1 §7.5.2.2), the lower half.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PmControl {
    /// 0 = D0, 3 = D3Hot.
    #[bits(2)]
    pub power_state: u8,
    __: bool,
    /// The function keeps its state over D3Hot → D0.
    pub no_soft_reset: bool,
    #[bits(4)]
    __: u8,
    pub pme_enable: bool,
    #[bits(6)]
    __: u8,
    pub pme_status: bool,
}

/// PCI Express Capabilities (PCIe 6.1 §7.5.3.2).
#[bitfield(u16)]
pub struct PcieCapabilities {
    #[bits(4)]
    pub version: u8,
    /// 0 = PCI Express Endpoint.
    #[bits(4)]
    pub device_type: u8,
    pub slot_implemented: bool,
    #[bits(5)]
    pub interrupt_message_number: u8,
    #[bits(2)]
    __: u8,
}

/// Device Capabilities (PCIe 6.1 §7.5.3.3).
#[bitfield(u32)]
pub struct DeviceCapabilities {
    /// 128 B << n.
    #[bits(3)]
    pub max_payload_size: u8,
    #[bits(2)]
    pub phantom_functions: u8,
    pub extended_tag: bool,
    #[bits(3)]
    pub l0s_latency: u8,
    #[bits(3)]
    pub l1_latency: u8,
    #[bits(3)]
    __: u8,
    pub role_based_error_reporting: bool,
    #[bits(2)]
    __: u8,
    #[bits(8)]
    pub slot_power_limit: u8,
    #[bits(2)]
    pub slot_power_scale: u8,
    pub function_level_reset: bool,
    pub mixed_mps: bool,
    /// TEE-IO Supported: the function implements TDISP.
    pub tee_io: bool,
    __: bool,
}

/// Device Control (PCIe 6.1 §7.5.3.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct DeviceControl {
    pub correctable_error_reporting: bool,
    pub non_fatal_error_reporting: bool,
    pub fatal_error_reporting: bool,
    pub unsupported_request_reporting: bool,
    pub relaxed_ordering: bool,
    #[bits(3)]
    pub max_payload_size: u8,
    pub extended_tag: bool,
    pub phantom_functions: bool,
    pub aux_power: bool,
    pub no_snoop: bool,
    #[bits(3)]
    pub max_read_request_size: u8,
    /// Writing 1 starts a Function Level Reset; reads 0.
    pub initiate_flr: bool,
}

/// Link Capabilities (PCIe 6.1 §7.5.3.6).
#[bitfield(u32)]
pub struct LinkCapabilities {
    #[bits(4)]
    pub max_speed: u8,
    #[bits(6)]
    pub max_width: u8,
    #[bits(2)]
    pub aspm: u8,
    #[bits(3)]
    pub l0s_exit_latency: u8,
    #[bits(3)]
    pub l1_exit_latency: u8,
    #[bits(4)]
    __: u8,
    pub aspm_optionality: bool,
    __: bool,
    #[bits(8)]
    pub port_number: u8,
}

/// Link Status (PCIe 6.1 §7.5.3.8).
#[bitfield(u16)]
pub struct LinkStatus {
    #[bits(4)]
    pub speed: u8,
    #[bits(6)]
    pub width: u8,
    #[bits(6)]
    __: u8,
}

/// Link Capabilities 2 (PCIe 6.1 §7.5.3.18).
#[bitfield(u32)]
pub struct LinkCapabilities2 {
    __: bool,
    /// Bit 0 = 2.5 GT/s, bit 4 = 32 GT/s.
    #[bits(7)]
    pub supported_speeds: u8,
    #[bits(24)]
    __: u32,
}

/// MSI-X Message Control (PCIe 6.1 §7.7.2.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct MsixControl {
    /// Vectors − 1.
    #[bits(11)]
    pub table_size: u16,
    #[bits(3)]
    __: u8,
    pub function_mask: bool,
    pub enable: bool,
}

/// Table or PBA location in the MSI-X capability (PCIe 6.1 §7.7.2.3): BAR indicator and 8-byte aligned offset.
#[bitfield(u32)]
pub struct MsixLocation {
    #[bits(3)]
    pub bar: u8,
    #[bits(29)]
    pub offset_qwords: u32,
}

/// ARI Capability (PCIe 6.1 §7.8.8.2).
#[bitfield(u16)]
pub struct AriCapability {
    pub mfvc_function_groups: bool,
    pub acs_function_groups: bool,
    #[bits(6)]
    __: u8,
    /// Number of the next function, 0 in the last.
    pub next_function: u8,
}

/// ATS Capability (PCIe 6.1 §10.5.1.2).
#[bitfield(u16)]
pub struct AtsCapability {
    /// Invalidate requests that can be taken without back pressure; 0 means 32.
    #[bits(5)]
    pub invalidate_queue_depth: u8,
    /// Untranslated addresses are always page-aligned.
    pub page_aligned_request: bool,
    #[bits(10)]
    __: u16,
}

/// ATS Control (PCIe 6.1 §10.5.1.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct AtsControl {
    /// Smallest translation unit, 4 KiB << n.
    #[bits(5)]
    pub smallest_translation_unit: u8,
    #[bits(10)]
    __: u16,
    pub enable: bool,
}

/// First dword of an extended capability (PCIe 6.1 §7.6.3).
#[bitfield(u32)]
pub struct ExtendedHeader {
    pub id: u16,
    #[bits(4)]
    pub version: u8,
    #[bits(12)]
    pub next: u16,
}
