//! What spdm-emu's requester uses of libspdm beyond a requester's ordinary life (`c/emu.c`).

use std::ffi::c_void;

use crate::Status;

/// What a connection has come to: `ref_negotiated` of the shim.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Negotiated {
    pub flags: u32,
    pub base_asym: u32,
    pub base_hash: u32,
    pub requester_asym: u16,
    pub version: u8,
    pub several_keys: u8,
}

unsafe extern "C" {
    pub fn ref_offer_log(spdm: *mut c_void) -> bool;
    pub fn ref_negotiated_state(spdm: *mut c_void, out: *mut Negotiated);
    pub fn ref_emu_identify(spdm: *mut c_void, state: *const Negotiated) -> *mut c_void;
    pub fn ref_emu_free_chain(chain: *mut c_void);
    pub fn ref_set_sample_chain(
        spdm: *mut c_void,
        session: *const u32,
        slot: u8,
        state: *const Negotiated,
    ) -> Status;
    pub fn ref_get_csr(spdm: *mut c_void, state: *const Negotiated, csr: *mut u8, size: *mut usize)
    -> Status;
}
