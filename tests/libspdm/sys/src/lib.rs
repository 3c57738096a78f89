//! Bindings to libspdm 3.6 as the reference in tests: one requester or responder over PCI DOE (see `c/shim.c`). Functions
//! named `libspdm_*` are libspdm's own, documented in its headers; the context they take is that of [`ref_context`].
#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc)]

// For the linker: libspdm's cryptography is OpenSSL's.
use openssl_sys as _;

use std::ffi::{c_char, c_void};

pub mod crypto;
mod emu;

pub use emu::*;

/// What a peer offers: `ref_config` of the shim, bit for bit as on the wire.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Config {
    pub version: u8,
    pub ct_exponent: u8,
    pub measurement_specification: u8,
    pub other_params: u8,
    pub flags: u32,
    pub measurement_hash: u32,
    pub base_asym: u32,
    pub base_hash: u32,
    pub dhe: u16,
    pub aead: u16,
    pub requester_asym: u16,
    pub key_schedule: u16,
    pub heartbeat_period: u8,
    pub secured_version: u8,
    pub data_transfer_size: u32,
    pub max_message_size: u32,
    pub mel_specification: u8,
}

/// One requester or responder.
#[repr(C)]
pub struct Peer([u8; 0]);

/// Carries a request object to the responder and puts its answer into the buffer; 0 if there is none.
pub type Exchange = unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, usize) -> usize;
/// 0 is success.
pub type Status = u32;

unsafe extern "C" {
    pub fn ref_set_keys(directory: *const c_char);
    pub fn ref_requester(
        config: *const Config,
        root: *const u8,
        root_size: usize,
        exchange: Exchange,
        user: *mut c_void,
    ) -> *mut Peer;
    pub fn ref_responder(config: *const Config) -> *mut Peer;
    pub fn ref_context(peer: *mut Peer) -> *mut c_void;
    pub fn ref_free(peer: *mut Peer);
    pub fn ref_handle(
        peer: *mut Peer,
        request: *const u8,
        request_size: usize,
        response: *mut u8,
        response_size: usize,
    ) -> usize;

    pub fn ref_response_state(peer: *mut Peer, state: u32);
    pub fn ref_reset_psk();
    pub fn ref_ask_requester(
        spdm: *mut c_void,
        basic: bool,
        session: u8,
        slot: u8,
        chain: *mut u8,
        chain_size: usize,
    ) -> bool;
    pub fn ref_trust(spdm: *mut c_void, root: *const u8, root_size: usize) -> bool;
    pub fn ref_identify(spdm: *mut c_void, hash: u32, asym: u16, slot: u8) -> *mut c_void;
    pub fn ref_know_keys(
        spdm: *mut c_void,
        own: *const u8,
        own_size: usize,
        other: *const u8,
        other_size: usize,
    ) -> bool;
    pub fn ref_forget(chain: *mut c_void);
    pub fn libspdm_init_key_update_encap_state(spdm: *mut c_void);
    pub fn libspdm_send_receive_encap_request(spdm: *mut c_void, session: *const u32) -> Status;

    pub fn ref_tell_events(spdm: *mut c_void);
    pub fn ref_take_subscription(out: *mut u8, size: usize);
    pub fn ref_listen(spdm: *mut c_void);
    pub fn ref_take_event(out: *mut u8, size: usize) -> usize;
    pub fn libspdm_get_event_types(
        spdm: *mut c_void,
        session: u32,
        count: *mut u8,
        list_size: *mut u32,
        list: *mut c_void,
    ) -> Status;
    pub fn libspdm_subscribe_event_types(
        spdm: *mut c_void,
        session: u32,
        count: u8,
        list_size: u32,
        list: *mut c_void,
    ) -> Status;

    pub fn libspdm_init_connection(spdm: *mut c_void, get_version_only: bool) -> Status;
    pub fn libspdm_get_digest(
        spdm: *mut c_void,
        session: *const u32,
        slot_mask: *mut u8,
        digests: *mut u8,
    ) -> Status;
    pub fn libspdm_get_certificate(
        spdm: *mut c_void,
        session: *const u32,
        slot: u8,
        chain_size: *mut usize,
        chain: *mut u8,
    ) -> Status;
    pub fn libspdm_challenge(
        spdm: *mut c_void,
        reserved: *mut c_void,
        slot: u8,
        summary_type: u8,
        summary: *mut u8,
        slot_mask: *mut u8,
    ) -> Status;
    pub fn libspdm_get_measurement(
        spdm: *mut c_void,
        session: *const u32,
        attributes: u8,
        operation: u8,
        slot: u8,
        content_changed: *mut u8,
        blocks: *mut u8,
        record_size: *mut u32,
        record: *mut u8,
    ) -> Status;
    pub fn libspdm_start_session(
        spdm: *mut c_void,
        psk: bool,
        hint: *const u8,
        hint_size: u16,
        summary_type: u8,
        slot: u8,
        policy: u8,
        session: *mut u32,
        heartbeat: *mut u8,
        summary: *mut u8,
    ) -> Status;
    pub fn libspdm_stop_session(spdm: *mut c_void, session: u32, attributes: u8) -> Status;
    pub fn libspdm_heartbeat(spdm: *mut c_void, session: u32) -> Status;
    pub fn libspdm_key_update(spdm: *mut c_void, session: u32, single_direction: bool) -> Status;
    pub fn libspdm_send_receive_data(
        spdm: *mut c_void,
        session: *const u32,
        application: bool,
        request: *const u8,
        request_size: usize,
        response: *mut u8,
        response_size: *mut usize,
    ) -> Status;
    pub fn libspdm_set_certificate_ex(
        spdm: *mut c_void,
        session: *const u32,
        slot: u8,
        chain: *mut c_void,
        chain_size: usize,
        attributes: u8,
        key_pair: u8,
    ) -> Status;
    pub fn libspdm_get_csr_ex(
        spdm: *mut c_void,
        session: *const u32,
        requester_info: *mut c_void,
        requester_info_size: u16,
        opaque: *mut c_void,
        opaque_size: u16,
        csr: *mut c_void,
        csr_size: *mut usize,
        attributes: u8,
        key_pair: u8,
        tag: *mut u8,
    ) -> Status;
    pub fn libspdm_get_key_pair_info(
        spdm: *mut c_void,
        session: *const u32,
        key_pair: u8,
        total: *mut u8,
        capabilities: *mut u16,
        usage_capabilities: *mut u16,
        usage: *mut u16,
        algorithms: *mut u32,
        algorithm: *mut u32,
        slots: *mut u8,
        info_size: *mut u16,
        info: *mut c_void,
    ) -> Status;
    pub fn libspdm_set_key_pair_info(
        spdm: *mut c_void,
        session: *const u32,
        key_pair: u8,
        operation: u8,
        usage: u16,
        algorithm: u32,
        slots: u8,
    ) -> Status;
    pub fn libspdm_get_measurement_extension_log(
        spdm: *mut c_void,
        session: *const u32,
        size: *mut usize,
        log: *mut c_void,
    ) -> Status;
    pub fn libspdm_vendor_send_request_receive_response(
        spdm: *mut c_void,
        session: *const u32,
        standard_id: u16,
        vendor_id_length: u8,
        vendor_id: *const u8,
        request_size: u16,
        request: *const u8,
        response_standard_id: *mut u16,
        response_vendor_id_length: *mut u8,
        response_vendor_id: *mut u8,
        response_size: *mut u16,
        response: *mut u8,
    ) -> Status;
}

/// Where libspdm's samples have their keys and certificates.
pub const KEYS: &str = env!("LIBSPDM_KEYS");

/// Tells libspdm's samples where their keys are; call before anything else.
pub fn initialise() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let keys = concat!(env!("LIBSPDM_KEYS"), "\0");
        // SAFETY: the string ends in a NUL and is copied.
        unsafe { ref_set_keys(keys.as_ptr().cast()) };
    });
}
