//! libspdm's responder asking who the requester is, and its requester answering.

use std::ffi::c_void;

use libspdm_sys as sys;
use spdm::SessionId;
use spdm::crypto::{AsymAlgorithm, HashAlgorithm};

use super::{Peer, ROOM, Reference, pointer};

fn sample(asym: AsymAlgorithm, name: &str) -> Vec<u8> {
    let directory = if asym == AsymAlgorithm::EcdsaP256 { "ecp256" } else { "ecp384" };
    std::fs::read(format!("{}/{directory}/{name}", sys::KEYS)).unwrap()
}

/// The root of libspdm's sample certificates, in DER.
pub fn sample_root(asym: AsymAlgorithm) -> Vec<u8> {
    sample(asym, "ca.cert.der")
}

/// The public key of libspdm's sample responder or requester, in DER.
pub fn sample_key(asym: AsymAlgorithm, responder: bool) -> Vec<u8> {
    sample(asym, if responder { "end_responder.key.pub.der" } else { "end_requester.key.pub.der" })
}

/// Both sides' public keys. `keys` keeps them for libspdm.
fn know_keys(context: *mut c_void, keys: &[Vec<u8>; 2]) {
    let [own, other] = keys;
    // SAFETY: the context is a live peer's, which the keys outlive.
    let good = unsafe { sys::ref_know_keys(context, own.as_ptr(), own.len(), other.as_ptr(), other.len()) };
    assert!(good);
}

// Every `unsafe` call below: as in the parent.
impl Reference {
    /// From now on, and once only, the requester is the samples', in slot 0 and in `slot`.
    pub fn identify(&mut self, hash: HashAlgorithm, asym: AsymAlgorithm, slot: u8) {
        assert!(self.chain.is_null(), "identified once");
        // SAFETY: see above.
        let chain = unsafe { sys::ref_identify(self.context, hash.bit(), asym.requester_bit(), slot) };
        assert!(!chain.is_null());
        self.chain = chain;
    }

    /// The samples' public key without a certificate, and ours.
    pub fn know_keys(&mut self, asym: AsymAlgorithm, ours: &[u8]) {
        self.keys = [sample_key(asym, false), ours.to_vec()];
        know_keys(self.context, &self.keys);
    }

    /// GET_ENCAPSULATED_REQUEST, and answers to what the responder asks.
    pub fn serve(&mut self, session: SessionId) {
        // SAFETY: see above.
        let status =
            unsafe { sys::libspdm_send_receive_encap_request(self.context, pointer(Some(&session))) };
        self.check("encapsulated request", status);
    }

    /// Our device, between two requests.
    pub fn device(&mut self) -> &mut crate::Device {
        // SAFETY: libspdm is not running; only `exchange` uses the device otherwise.
        unsafe { &mut *self.device }.device()
    }
}

impl Peer {
    /// From now on the responder asks after CHALLENGE, if `basic`, and in KEY_EXCHANGE_RSP as `session` says. It believes
    /// in `root`.
    pub fn ask(&mut self, basic: bool, session: u8, slot: u8, root: &[u8]) {
        // SAFETY: the peer lives as long as `self`.
        let context = unsafe { sys::ref_context(self.peer) };
        if self.root.is_empty() {
            self.root = root.to_vec();
            self.chain = vec![0; ROOM];
            // SAFETY: the root outlives the peer.
            assert!(unsafe { sys::ref_trust(context, self.root.as_ptr(), self.root.len()) });
        }
        let chain = &mut self.chain;
        // SAFETY: the buffer outlives the peer, and nobody else uses it.
        let good =
            unsafe { sys::ref_ask_requester(context, basic, session, slot, chain.as_mut_ptr(), chain.len()) };
        assert!(good);
    }

    /// The samples' public key without a certificate, and ours.
    pub fn know_keys(&mut self, asym: AsymAlgorithm, ours: &[u8]) {
        self.keys = [sample_key(asym, true), ours.to_vec()];
        // SAFETY: the peer lives as long as `self`.
        know_keys(unsafe { sys::ref_context(self.peer) }, &self.keys);
    }

    /// The responder wants a new key for what it sends in the session the requester serves it in next.
    pub fn renew_key(&mut self) {
        // SAFETY: the peer lives as long as `self`.
        let context = unsafe { sys::ref_context(self.peer) };
        // SAFETY: a context that was just asked for.
        unsafe { sys::libspdm_init_key_update_encap_state(context) };
    }
}
