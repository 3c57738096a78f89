//! LOCK_INTERFACE_REQUEST's parameters, its flags, and the nonce that LOCK hands out (PCIe 6.1 §11.3.8, §11.3.9).

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::reader::{DecodeError, Reader};

/// FLAGS of LOCK_INTERFACE_REQUEST, and LOCK_INTERFACE_FLAGS_SUPPORTED of TDISP_CAPABILITIES.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct LockFlags {
    /// The device refuses firmware updates while the TDI is locked or running.
    pub no_fw_update: bool,
    /// The host's cache line is 128 bytes instead of 64.
    pub system_cache_line_size: bool,
    /// MSI-X table and PBA are part of what is locked.
    pub lock_msix: bool,
    /// A peer-to-peer stream may be bound later.
    pub bind_p2p: bool,
    /// ATS-translated requests go upstream too.
    pub all_request_redirect: bool,
    /// Reserved, zero.
    #[bits(11)]
    pub reserved: u16,
}

impl LockFlags {
    /// Flags that are set here and not in `supported`.
    pub const fn beyond(self, supported: Self) -> Self {
        Self::from_bits(self.into_bits() & !supported.into_bits())
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.into_bits() == 0
    }
}

/// What LOCK_INTERFACE_REQUEST asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockRequest {
    /// FLAGS.
    pub flags: LockFlags,
    /// Stream id of the IDE stream the TDI is to be bound to.
    pub default_stream_id: u8,
    /// The reserved byte; zero from a conforming peer.
    pub reserved: u8,
    /// MMIO_REPORTING_OFFSET, bytes, added modulo 2^64 to every reported address.
    pub mmio_reporting_offset: u64,
    /// BIND_P2P_ADDRESS_MASK, meaningful with the BIND_P2P flag.
    pub bind_p2p_address_mask: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLock {
    flags: U16,
    default_stream_id: u8,
    reserved: u8,
    mmio_reporting_offset: U64,
    bind_p2p_address_mask: U64,
}
const _: () = assert!(size_of::<RawLock>() == 20);

impl LockRequest {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw: &RawLock = reader.structure("LOCK_INTERFACE_REQUEST")?;
        Ok(Self {
            flags: LockFlags::from_bits(raw.flags.get()),
            default_stream_id: raw.default_stream_id,
            reserved: raw.reserved,
            mmio_reporting_offset: raw.mmio_reporting_offset.get(),
            bind_p2p_address_mask: raw.bind_p2p_address_mask.get(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let raw = RawLock {
            flags: self.flags.into_bits().into(),
            default_stream_id: self.default_stream_id,
            reserved: self.reserved,
            mmio_reporting_offset: self.mmio_reporting_offset.into(),
            bind_p2p_address_mask: self.bind_p2p_address_mask.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// Length of START_INTERFACE_NONCE in bytes.
pub const NONCE_LENGTH: usize = 32;

/// START_INTERFACE_NONCE. Wiped when dropped, never printed, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// A nonce from its bytes.
    pub const fn new(bytes: [u8; NONCE_LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the wire and for a host that stores it.
    pub const fn as_bytes(&self) -> &[u8; NONCE_LENGTH] {
        &self.0
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(*reader.structure("START_INTERFACE_NONCE")?))
    }
}

impl PartialEq for Nonce {
    /// Every byte is looked at, so that the time taken says nothing about where two nonces differ.
    fn eq(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(other.0.iter()).fold(0, |sum, (a, b)| sum | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

impl Eq for Nonce {}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_compare_by_every_byte_and_never_print() {
        let nonce = Nonce::new([7; NONCE_LENGTH]);
        assert_eq!(nonce, nonce.clone());
        for index in 0..NONCE_LENGTH {
            let mut other = [7; NONCE_LENGTH];
            other[index] ^= 0x80;
            assert_ne!(nonce, Nonce::new(other));
        }
        assert_eq!(format!("{nonce:?}"), "Nonce(..)");
    }

    #[test]
    fn flags_beyond_the_supported_ones() {
        let supported = LockFlags::new().with_no_fw_update(true).with_lock_msix(true);
        assert!(supported.beyond(supported).is_empty());
        let asked = supported.with_bind_p2p(true).with_reserved(1);
        assert_eq!(asked.beyond(supported).into_bits(), 0b10_1000);
    }
}
