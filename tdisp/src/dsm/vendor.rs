//! VDM_REQUEST (PCIe 6.1 §11.3.25): the vendor's own messages. What this device's vendor defines is one, so that a TSM's
//! way of carrying them can be tried: ECHO, data byte 0 = 0, is answered with its own bytes. Everything else that the vendor
//! gets is a VENDOR_SPECIFIC_ERROR whose data is the byte that was not understood.

use crate::wire::{RegistryId, Response, Vdm};

use super::refusal::Refusal;

/// First byte of the data: send everything back.
const ECHO: u8 = 0;

/// The answer to a vendor's message, if `vendor` defines it.
pub(super) fn answer<'a>(vendor: Option<u16>, message: &Vdm<'a>) -> Result<Response<'a>, Refusal> {
    let vendor = vendor.filter(|vendor| {
        message.registry == RegistryId::PCI_SIG && message.vendor_id() == vendor.to_le_bytes()
    });
    let vendor = vendor.ok_or(Refusal::Vendor)?;
    match message.data.first() {
        Some(&ECHO) => Ok(Response::Vdm(*message)),
        other => Err(Refusal::VendorMessage { vendor, message: other.copied().unwrap_or(0) }),
    }
}
