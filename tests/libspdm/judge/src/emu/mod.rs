//! spdm_requester_emu's default run over PCI DOE, played by libspdm's requester against the real program: the same steps in
//! the same order, each as far as both sides' capabilities say that it is there.

#![allow(unsafe_code)]

mod daemon;
mod messages;
mod socket;

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr::null;

use libspdm_sys as sys;
use spdm::wire::Version;

use crate::reference::Reference;
pub use daemon::Daemon;
pub use socket::Socket;
use socket::{NORMAL, OOB_KEY_UPDATE, SHUTDOWN, TEST};

/// spdm_requester_emu's capabilities, without those of SPDM 1.3 that libspdm 3.6 does not have itself (endpoint information)
/// and those of 1.4: CERT, CHAL, ENCRYPT, MAC, MUT_AUTH, KEY_EX, PSK, ENCAP, HBEAT, KEY_UPD, HANDSHAKE_IN_THE_CLEAR, CHUNK,
/// MULTI_KEY (negotiated).
const FLAGS: u32 = 0x0802_F7C6;
/// The sample PSK's name.
const HINT: &[u8] = b"TestPskHint\0";
/// All measurements in summaries.
const ALL: u8 = 0xFF;
/// Room for a log, a request for a certificate.
const ROOM: usize = 0x1000;

/// Bits of CAPABILITIES (DSP0274 1.3 "CAPABILITIES").
mod flag {
    pub(super) const CERT: u32 = 1 << 1;
    pub(super) const CHAL: u32 = 1 << 2;
    pub(super) const MEAS: u32 = 3 << 3;
    pub(super) const MUT_AUTH: u32 = 1 << 8;
    pub(super) const KEY_EX: u32 = 1 << 9;
    pub(super) const PSK: u32 = 3 << 10;
    pub(super) const ENCAP: u32 = 1 << 12;
    pub(super) const HBEAT: u32 = 1 << 13;
    pub(super) const KEY_UPD: u32 = 1 << 14;
    pub(super) const SET_CERT: u32 = 1 << 19;
    pub(super) const CSR: u32 = 1 << 20;
    pub(super) const MEL: u32 = 1 << 24;
    pub(super) const KEY_PAIR_INFO: u32 = 1 << 28;
}

/// Who keeps a session's messages secret.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Certificate(u8),
    Psk,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// Version that was negotiated.
    pub version: Version,
    /// Everything that was exercised, by name.
    pub steps: BTreeSet<&'static str>,
}

/// One run.
pub struct Run {
    reference: Reference,
    socket: Socket,
    state: sys::Negotiated,
    identity: *mut c_void,
    steps: BTreeSet<&'static str>,
    // libspdm keeps pointers to them.
    _roots: Vec<Vec<u8>>,
}

// Every `unsafe` call below: the context lives as long as `self`, and each pointer is to a buffer of the size that is passed
// with it.
impl Run {
    /// The whole run, against the responder at the socket. `version` 0 is every version there is; `sample` says that the
    /// responder has the sample keys, so that their chains can be written to it.
    pub fn whole(socket: Socket, version: u8, roots: Vec<Vec<u8>>, sample: bool) -> Found {
        assert_eq!(socket.ask(TEST, b"Client Hello!\0"), (TEST, b"Server Hello!\0".to_vec()));
        discover(&socket);
        let mut run = Self::connect(socket.clone(), version, roots);
        run.authenticate();
        run.measure(None);
        let version = run.state.version;
        if version >= 0x11 {
            if run.has(flag::KEY_EX) {
                run.session(Kind::Certificate(0), sample);
            }
            if run.has_any(flag::PSK) {
                run.session(Kind::Psk, sample);
            }
            if let Some(slot) = run.other_slot().filter(|_| run.has(flag::KEY_EX)) {
                run.session(Kind::Certificate(slot), sample);
            }
        }
        let (found, steps) = (Version(version), std::mem::take(&mut run.steps));
        assert_eq!(socket.ask(SHUTDOWN, &[]), (SHUTDOWN, Vec::new()));
        Found { version: found, steps }
    }

    fn connect(socket: Socket, version: u8, roots: Vec<Vec<u8>>) -> Self {
        let config = sys::Config {
            version,
            measurement_specification: 1,
            // OPAQUE_FMT_1, MULTI_KEY_CONN.
            other_params: 0x12,
            flags: FLAGS,
            // ECDSA P-384 and P-256; SHA-384 and SHA-256; P-384, P-256, FFDHE 3072 and 2048; AES-256-GCM and
            // ChaCha20-Poly1305; RSAPSS and RSASSA with 3072 and 2048 bits.
            base_asym: 1 << 7 | 1 << 4,
            base_hash: 3,
            dhe: 1 << 4 | 1 << 3 | 3,
            aead: 6,
            requester_asym: 0xF,
            key_schedule: 1,
            ..sys::Config::default()
        };
        let mut reference = Reference::new(&config, socket.clone(), &roots[0]);
        for root in &roots[1..] {
            // SAFETY: see above; the root lives in `_roots`.
            assert!(unsafe { sys::ref_trust(reference.context(), root.as_ptr(), root.len()) });
        }
        // SAFETY: see above.
        assert!(unsafe { sys::ref_offer_log(reference.context()) });
        reference.connect();
        let mut state = sys::Negotiated::default();
        // SAFETY: see above.
        unsafe { sys::ref_negotiated_state(reference.context(), &mut state) };
        let mut identity = std::ptr::null_mut();
        if state.requester_asym != 0 && state.flags & flag::MUT_AUTH != 0 {
            // SAFETY: see above.
            identity = unsafe { sys::ref_emu_identify(reference.context(), &state) };
            assert!(!identity.is_null(), "no sample identity for {state:?}");
        }
        Self { reference, socket, state, identity, steps: BTreeSet::new(), _roots: roots }
    }

    /// Whether the responder has all of these.
    fn has(&self, flags: u32) -> bool {
        self.state.flags & flags == flags
    }

    fn has_any(&self, flags: u32) -> bool {
        self.state.flags & flags != 0
    }

    fn done(&mut self, step: &'static str) {
        self.steps.insert(step);
    }

    /// The last other slot that has certificates.
    fn other_slot(&mut self) -> Option<u8> {
        let (mask, _) = self.reference.digests(None);
        (1..8).rev().find(|slot| mask & 1 << slot != 0)
    }

    fn authenticate(&mut self) {
        if self.has(flag::CERT) {
            let other = self.other_slot();
            self.reference.certificate(None, 0);
            if let Some(slot) = other {
                self.reference.certificate(None, slot);
                self.done("other slot");
            }
            self.done("certificates");
        }
        if self.has(flag::CHAL) {
            self.reference.challenge(0, if self.has_any(flag::MEAS) { ALL } else { 0 });
            self.done("challenge");
        }
        if self.has(flag::CERT) {
            self.reference.digests(None);
            self.reference.certificate(None, 0);
            self.reference.digests(None);
        }
    }

    /// Every measurement alone, the last one with a signature.
    fn measure(&mut self, session: Option<u32>) {
        if !self.has_any(flag::MEAS) {
            return;
        }
        let number = self.reference.measurements(session, 0, 0, 0).blocks;
        let mut received = 0;
        for index in 1..=0xFE {
            if received == number {
                break;
            }
            let signed = u8::from(received == number - 1);
            received += u8::from(self.reference.has_measurement(session, signed, index));
        }
        assert_eq!(received, number);
        self.done(if session.is_some() { "measurements in a session" } else { "measurements" });
    }

    fn session(&mut self, kind: Kind, sample: bool) {
        let summary = if self.has_any(flag::MEAS) { ALL } else { 0 };
        // TERMINATION_POLICY_RUNTIME_UPDATE.
        let (id, ..) = match kind {
            Kind::Certificate(slot) => self.reference.start_session(slot, summary, 1),
            Kind::Psk => self.reference.start_psk_session(HINT, summary, 1),
        };
        self.done(match kind {
            Kind::Certificate(0) => "session",
            Kind::Certificate(_) => "session of another slot",
            Kind::Psk => "PSK session",
        });
        self.pci_ide_km(id);
        self.tdisp_walk(id);
        self.cxl_ide_km(id);
        self.cxl_tsp(id);
        self.done("PCI and CXL");
        if self.has(flag::HBEAT) {
            self.reference.heartbeat(id);
            self.done("heartbeat");
        }
        if self.has(flag::KEY_UPD) {
            self.reference.key_update(id, false);
            self.done("key update");
            self.encapsulated_key_update(id);
        }
        self.measure(Some(id));
        self.newer(id);
        if self.has(flag::CERT) {
            self.reference.digests(Some(id));
            self.reference.certificate(Some(id), 0);
        }
        if self.state.version >= 0x12 {
            self.provision(id, sample);
        }
        // The negotiated state is to be cleared; spdm_requester_emu goes on with it nevertheless.
        self.reference.stop_session(id, 1);
    }

    /// What `--key_upd RSP` does: the responder is told past SPDM to update its keys, and asked for its request.
    fn encapsulated_key_update(&mut self, id: u32) {
        if !self.has(flag::ENCAP) || FLAGS & flag::ENCAP == 0 {
            return;
        }
        let (command, _) = self.socket.ask(OOB_KEY_UPDATE, &id.to_le_bytes());
        if command != OOB_KEY_UPDATE {
            return;
        }
        let context = self.reference.context();
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_send_receive_encap_request(context, &id) };
        self.reference.check("encapsulated key update", status);
        self.done("encapsulated key update");
    }

    /// The log and key pairs of SPDM 1.3.
    fn newer(&mut self, id: u32) {
        if self.state.version < 0x13 {
            return;
        }
        let context = self.reference.context();
        if self.has(flag::MEL) {
            let (mut log, mut size) = (vec![0; ROOM], ROOM);
            // SAFETY: see above.
            let status = unsafe {
                sys::libspdm_get_measurement_extension_log(context, &id, &mut size, log.as_mut_ptr().cast())
            };
            self.reference.check("measurement extension log", status);
            self.done("measurement extension log");
        }
        if self.has(flag::KEY_PAIR_INFO) {
            let (mut key, mut size) = (vec![0; ROOM], u16::try_from(ROOM).unwrap());
            let (mut pairs, mut capabilities, mut usages, mut usage) = (0, 0, 0, 0);
            let (mut algorithms, mut algorithm, mut slots) = (0, 0, 0);
            // SAFETY: see above.
            let status = unsafe {
                sys::libspdm_get_key_pair_info(
                    context,
                    &id,
                    1,
                    &mut pairs,
                    &mut capabilities,
                    &mut usages,
                    &mut usage,
                    &mut algorithms,
                    &mut algorithm,
                    &mut slots,
                    &mut size,
                    key.as_mut_ptr().cast(),
                )
            };
            self.reference.check("key pair info", status);
            assert!(pairs > 0);
            self.done("key pair info");
        }
    }

    /// GET_CSR and SET_CERTIFICATE of slot 0 outside of the session, SET_CERTIFICATE of the other slot inside.
    fn provision(&mut self, id: u32, sample: bool) {
        let (context, state) = (self.reference.context(), self.state);
        if self.has(flag::CSR) {
            let (mut csr, mut size) = (vec![0; ROOM], ROOM);
            // SAFETY: see above.
            let status = unsafe { sys::ref_get_csr(context, &state, csr.as_mut_ptr(), &mut size) };
            self.reference.check("CSR", status);
            self.done("CSR");
        }
        if self.has(flag::SET_CERT) && sample {
            // SAFETY: see above.
            let status = unsafe { sys::ref_set_sample_chain(context, null(), 0, &state) };
            self.reference.check("SET_CERTIFICATE", status);
            self.done("SET_CERTIFICATE");
            if let Some(slot) = self.other_slot() {
                // SAFETY: see above. Only a message on the console comes of a failure in spdm_requester_emu.
                let status = unsafe { sys::ref_set_sample_chain(context, &id, slot, &state) };
                self.reference.check("SET_CERTIFICATE in a session", status);
                self.done("SET_CERTIFICATE in a session");
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SAFETY: from `ref_emu_identify`, or null; libspdm does not look at it when its context goes.
        unsafe { sys::ref_emu_free_chain(self.identity) };
    }
}

/// DOE discovery until it says that there is nothing more: itself, SPDM, secured SPDM.
fn discover(socket: &Socket) {
    let (mut index, mut found) = (0, Vec::new());
    loop {
        let (command, answer) = socket.ask(NORMAL, &[1, 0, 0, 0, 3, 0, 0, 0, index, 0, 0, 0]);
        assert_eq!((command, &answer[..8]), (NORMAL, &[1, 0, 0, 0, 3, 0, 0, 0][..]));
        found.push((u16::from_le_bytes([answer[8], answer[9]]), answer[10]));
        index = answer[11];
        if index == 0 {
            break;
        }
    }
    assert_eq!(found, [(1, 0), (1, 1), (1, 2)]);
}
