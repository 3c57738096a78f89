//! What a function's configuration space is made of: identity, the capability chain and where each part lies.

use super::bars::BarDecoder;
use super::registers::{
    AriCapability, AtsCapability, AtsControl, Command, DeviceCapabilities, DeviceControl, ExtendedHeader,
    LinkCapabilities, LinkCapabilities2, LinkStatus, MsixControl, MsixLocation, PcieCapabilities,
    PmCapabilities, PmControl, Status, header,
};
use super::space::{ConfigSpace, Window};
use super::virtio::{VIRTIO, VirtioStructures};

/// Offset of the Power Management capability.
pub(super) const PM: u16 = 0x40;
/// Offset of the PCI Express capability, 0x3C bytes.
pub(super) const PCIE: u16 = 0x50;
/// Offset of the MSI-X capability, 12 bytes.
pub(super) const MSIX: u16 = 0x90;
/// Device Serial Number: the first extended capability, one that every client shows (QEMU turns a hidden first
/// capability into id 0).
const DSN: u16 = 0x100;
const DOE: u16 = 0x110;
/// ATS, 8 bytes.
pub(super) const ATS: u16 = 0x128;
/// ARI, 8 bytes.
pub(super) const ARI: u16 = 0x130;
/// IDE comes last: its length depends on the number of streams. It takes the place of ARI where there is none.
const IDE: u16 = 0x130;
const IDE_AFTER_ARI: u16 = 0x138;
/// DOE extended capability, all registers (PCIe 6.1 §7.9.24).
const DOE_BYTES: u16 = 0x18;

const CAP_PM: u8 = 0x01;
const CAP_PCIE: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;
const EXT_DSN: u16 = 0x0003;
pub(super) const EXT_ARI: u16 = 0x000E;
pub(super) const EXT_ATS: u16 = 0x000F;
const EXT_DOE: u16 = 0x002E;
const EXT_IDE: u16 = 0x0030;

/// Who the function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, 24 bit: base class, sub-class, interface.
    pub class: u32,
    /// Subsystem Vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Device Serial Number (EUI-64), the same in every function of a device.
    pub serial: u64,
}

/// MSI-X capability contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msix {
    /// Vectors, 1–2048.
    pub vectors: u16,
    /// BAR that holds the table, and the table's offset in it (8-byte aligned).
    pub table: (u8, u32),
    /// BAR that holds the PBA, and its offset.
    pub pba: (u8, u32),
}

/// Everything a configuration space is built from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// IDs.
    pub identity: Identity,
    /// More functions answer on this device (header type bit 7).
    pub multifunction: bool,
    /// Memory BARs.
    pub bars: Vec<BarDecoder>,
    /// MSI-X, or INTA# without it.
    pub msix: Option<Msix>,
    /// TEE-IO Supported in Device Capabilities.
    pub tee_io: bool,
    /// A DOE mailbox (function 0).
    pub doe: bool,
    /// Alternative Routing-ID Interpretation, with the number of the next function (0: this is the last).
    pub ari: Option<u8>,
    /// Address Translation Services.
    pub ats: bool,
    /// Length of the IDE capability's registers with its header, in bytes (function 0).
    pub ide_bytes: Option<u16>,
    /// The virtio structures behind the BARs, of a virtio function.
    pub virtio: Option<VirtioStructures>,
}

impl Plan {
    /// Lays the registers out; writable bits are marked so, all else is read-only.
    pub fn build(&self) -> ConfigSpace {
        let mut space = ConfigSpace::new();
        self.header(&mut space);
        power_management(&mut space, PCIE);
        let last = if self.virtio.is_some() { VIRTIO } else { 0 };
        self.pcie(&mut space, if self.msix.is_some() { MSIX } else { last });
        if let Some(msix) = &self.msix {
            msix_capability(&mut space, msix, last);
        }
        if let Some(virtio) = &self.virtio {
            virtio.place(&mut space);
        }
        self.extended(&mut space);
        space.seal();
        space
    }

    fn header(&self, space: &mut ConfigSpace) {
        let id = &self.identity;
        space.put16(header::VENDOR_ID, id.vendor);
        space.put16(header::DEVICE_ID, id.device);
        let command = Command::new()
            .with_memory_space(true)
            .with_bus_master(true)
            .with_parity_error_response(true)
            .with_serr_enable(true)
            .with_interrupt_disable(true);
        space.writable16(header::COMMAND, command.into_bits());
        space.put16(header::STATUS, Status::new().with_capabilities_list(true).into_bits());
        let errors = Status::new()
            .with_master_data_parity_error(true)
            .with_signaled_target_abort(true)
            .with_received_target_abort(true)
            .with_received_master_abort(true)
            .with_signaled_system_error(true)
            .with_detected_parity_error(true);
        space.clearable16(header::STATUS, errors.into_bits());
        space.put32(header::REVISION_ID, u32::from(id.revision) | id.class << 8);
        space.writable8(header::CACHE_LINE_SIZE, 0xFF);
        space.put8(header::HEADER_TYPE, if self.multifunction { 0x80 } else { 0 });
        for bar in &self.bars {
            space.add_bar(*bar);
        }
        space.put16(header::SUBSYSTEM_VENDOR_ID, id.subsystem_vendor);
        space.put16(header::SUBSYSTEM_ID, id.subsystem);
        space.put8(header::CAPABILITIES, PM as u8);
        space.writable8(header::INTERRUPT_LINE, 0xFF);
        space.put8(header::INTERRUPT_PIN, u8::from(self.msix.is_none()));
    }

    fn pcie(&self, space: &mut ConfigSpace, next: u16) {
        capability(space, PCIE, CAP_PCIE, next);
        space.put16(PCIE + 2, PcieCapabilities::new().with_version(2).into_bits());
        let capabilities = DeviceCapabilities::new()
            .with_max_payload_size(1)
            .with_extended_tag(true)
            .with_role_based_error_reporting(true)
            .with_function_level_reset(true)
            .with_tee_io(self.tee_io);
        space.put32(PCIE + 4, capabilities.into_bits());
        // Reset value and writable bits of Device Control; phantom functions and aux power do not exist here.
        space.put16(
            PCIE + 8,
            DeviceControl::new()
                .with_relaxed_ordering(true)
                .with_no_snoop(true)
                .with_max_read_request_size(2)
                .into_bits(),
        );
        let writable = DeviceControl::from_bits(0xFFFF)
            .with_phantom_functions(false)
            .with_aux_power(false)
            .with_initiate_flr(false);
        space.writable16(PCIE + 8, writable.into_bits());
        space.clearable16(PCIE + 0x0A, 0x000F);
        // A 32 GT/s x4 link, which is what TEE-IO hardware has; nothing here depends on it.
        let link = LinkCapabilities::new().with_max_speed(5).with_max_width(4).with_aspm_optionality(true);
        space.put32(PCIE + 0x0C, link.into_bits());
        space.writable16(PCIE + 0x10, 0x00C8); // read completion boundary, common clock, extended synch
        space.put16(PCIE + 0x12, LinkStatus::new().with_speed(5).with_width(4).into_bits());
        space.put32(PCIE + 0x24, 1 << 4); // completion timeout disable supported
        space.writable16(PCIE + 0x28, 1 << 4);
        space.put32(PCIE + 0x2C, LinkCapabilities2::new().with_supported_speeds(0x1F).into_bits());
        space.put16(PCIE + 0x30, 5); // target link speed
        space.writable16(PCIE + 0x30, 0x000F);
    }

    fn extended(&self, space: &mut ConfigSpace) {
        let ide = if self.ari.is_some() { IDE_AFTER_ARI } else { IDE };
        let chain = [
            (true, DSN, EXT_DSN, 1),
            (self.doe, DOE, EXT_DOE, 2),
            (self.ats, ATS, EXT_ATS, 1),
            (self.ari.is_some(), ARI, EXT_ARI, 1),
            (self.ide_bytes.is_some(), ide, EXT_IDE, 1),
        ];
        let mut next = 0;
        for (_, at, id, version) in chain.into_iter().rev().filter(|(present, ..)| *present) {
            extended(space, at, id, version, next);
            next = at;
        }
        space.put32(DSN + 4, self.identity.serial as u32);
        space.put32(DSN + 8, (self.identity.serial >> 32) as u32);
        if self.doe {
            space.add_window(Window::Doe, DOE + 4, DOE_BYTES - 4);
        }
        if self.ats {
            space.put16(ATS + 4, AtsCapability::new().with_page_aligned_request(true).into_bits());
            let writable = AtsControl::new().with_smallest_translation_unit(0x1F).with_enable(true);
            space.writable16(ATS + 6, writable.into_bits());
        }
        if let Some(next_function) = self.ari {
            space.put16(ARI + 4, AriCapability::new().with_next_function(next_function).into_bits());
        }
        if let Some(bytes) = self.ide_bytes {
            space.add_window(Window::Ide, ide + 4, bytes.saturating_sub(4));
        }
    }
}

pub(super) fn capability(space: &mut ConfigSpace, at: u16, id: u8, next: u16) {
    space.put8(at, id);
    space.put8(at + 1, next as u8);
}

fn extended(space: &mut ConfigSpace, at: u16, id: u16, version: u8, next: u16) {
    let header = ExtendedHeader::new().with_id(id).with_version(version).with_next(next);
    space.put32(at, header.into_bits());
}

fn power_management(space: &mut ConfigSpace, next: u16) {
    capability(space, PM, CAP_PM, next);
    space.put16(PM + 2, PmCapabilities::new().with_version(3).into_bits());
    space.put16(PM + 4, PmControl::new().with_no_soft_reset(true).into_bits());
    space.writable16(PM + 4, PmControl::new().with_power_state(3).into_bits());
}

fn msix_capability(space: &mut ConfigSpace, msix: &Msix, next: u16) {
    capability(space, MSIX, CAP_MSIX, next);
    let control = MsixControl::new().with_table_size(msix.vectors.saturating_sub(1) & 0x7FF);
    space.put16(MSIX + 2, control.into_bits());
    space.writable16(MSIX + 2, MsixControl::new().with_function_mask(true).with_enable(true).into_bits());
    for (at, (bar, offset)) in [(MSIX + 4, msix.table), (MSIX + 8, msix.pba)] {
        let location = MsixLocation::new().with_bar(bar & 7).with_offset_qwords(offset >> 3);
        space.put32(at, location.into_bits());
    }
}
