//! libspdm's two roles, safe to use: its requester with our device behind it, its responder as our requester's transport.
#![allow(unsafe_code)]

mod events;
mod mutual;
mod provision;

pub use events::Subscribed;
pub use mutual::{sample_key, sample_root};
pub use provision::{KeyPair, RESET_REQUIRED};

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libspdm_sys as sys;
use spdm::doe::{Object, ObjectType};
use spdm::requester::{Response, Transport};

use crate::{Device, hex};

/// Room for any answer: libspdm writes what its size arguments allow, or 8 digests, or one.
const ROOM: usize = 0x1200;

/// What libspdm made of MEASUREMENTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// DSP0274 "MEASUREMENTS" content changed field, or 0xEE if libspdm left it alone.
    pub changed: u8,
    /// Number of blocks.
    pub blocks: u8,
    /// The blocks.
    pub record: Vec<u8>,
}

/// What takes data objects: a device in this process, or a way to one.
pub trait Objects {
    /// One SPDM object in, the answer out, if there is one.
    fn object(&mut self, request: &[u8]) -> Option<Vec<u8>>;

    /// The last few objects, for a failure's message.
    fn recent(&self) -> String;

    /// The device, if it is in this process.
    fn device(&mut self) -> &mut Device {
        panic!("the device is somewhere else");
    }
}

impl Objects for Device {
    fn device(&mut self) -> &mut Device {
        self
    }

    fn object(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        Device::object(self, request)
    }

    fn recent(&self) -> String {
        Device::recent(self)
    }
}

/// libspdm's requester with a device behind it, ours unless something else is said.
pub struct Reference {
    peer: *mut sys::Peer,
    context: *mut c_void,
    device: *mut Box<dyn Objects>,
    // libspdm keeps pointers to both.
    _root: Vec<u8>,
    chain: *mut c_void,
    keys: [Vec<u8>; 2],
}

/// What libspdm calls to send a request object.
unsafe extern "C" fn exchange(
    user: *mut c_void,
    request: *const u8,
    size: usize,
    response: *mut u8,
    room: usize,
) -> usize {
    // SAFETY: `Reference::new` passed this pointer, and nobody else uses the device while libspdm runs.
    let device = unsafe { &mut *user.cast::<Box<dyn Objects>>() };
    // SAFETY: libspdm's message of that length.
    let request = unsafe { std::slice::from_raw_parts(request, size) };
    // A panic must not cross C; its message is already out, and the lack of an answer fails the check.
    match catch_unwind(AssertUnwindSafe(|| device.object(request))) {
        Ok(Some(object)) if object.len() <= room => {
            // SAFETY: `room` bytes are there, and the answer is no longer.
            unsafe { response.copy_from_nonoverlapping(object.as_ptr(), object.len()) };
            object.len()
        }
        _ => 0,
    }
}

fn pointer(session: Option<&u32>) -> *const u32 {
    session.map_or(null(), |id| &raw const *id)
}

// Every `unsafe` call below: the context lives as long as `self`, and each pointer is to a buffer of the size that is passed
// with it or that libspdm fills at most (8 digests of 64 bytes).
impl Reference {
    /// A requester that trusts `root`, a DER certificate.
    pub fn new(config: &sys::Config, device: impl Objects + 'static, root: &[u8]) -> Self {
        sys::initialise();
        let device: Box<dyn Objects> = Box::new(device);
        let (device, root) = (Box::into_raw(Box::new(device)), root.to_vec());
        // SAFETY: the device and the root outlive the peer, see `drop`.
        let peer = unsafe { sys::ref_requester(config, root.as_ptr(), root.len(), exchange, device.cast()) };
        assert!(!peer.is_null(), "libspdm refuses {config:?}");
        // SAFETY: a peer that was just made.
        let context = unsafe { sys::ref_context(peer) };
        Self { peer, context, device, _root: root, chain: null_mut(), keys: Default::default() }
    }

    /// libspdm's context, for what is not here.
    pub(crate) fn context(&mut self) -> *mut c_void {
        self.context
    }

    /// Fails unless libspdm succeeded.
    pub(crate) fn check(&self, what: &str, status: sys::Status) {
        if status != 0 {
            // SAFETY: libspdm is not running; only `exchange` uses the device otherwise.
            let device = unsafe { &*self.device };
            panic!("{what}: {status:#x}\n{}", device.recent());
        }
    }

    /// GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS.
    pub fn connect(&mut self) {
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_init_connection(self.context, false) };
        self.check("connect", status);
    }

    /// GET_DIGESTS: mask of slots, and digests one after another (512 bytes).
    pub fn digests(&mut self, session: Option<u32>) -> (u8, Vec<u8>) {
        let (mut mask, mut digests) = (0, vec![0; 512]);
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_get_digest(self.context, id, &mut mask, digests.as_mut_ptr()) };
        self.check("digests", status);
        (mask, digests)
    }

    /// GET_CERTIFICATE: the chain as on the wire.
    pub fn certificate(&mut self, session: Option<u32>, slot: u8) -> Vec<u8> {
        let (mut chain, mut size) = (vec![0; ROOM], ROOM);
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status =
            unsafe { sys::libspdm_get_certificate(self.context, id, slot, &mut size, chain.as_mut_ptr()) };
        self.check("certificate", status);
        chain.truncate(size);
        chain
    }

    /// CHALLENGE: mask of slots and measurement summary (64 bytes).
    pub fn challenge(&mut self, slot: u8, summary: u8) -> (u8, [u8; 64]) {
        let (mut mask, mut digest) = (0, [0; 64]);
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_challenge(self.context, null_mut(), slot, summary, digest.as_mut_ptr(), &mut mask)
        };
        self.check("challenge", status);
        (mask, digest)
    }

    /// GET_MEASUREMENTS; `attributes` bit 0 asks for a signature.
    pub fn measurements(
        &mut self,
        session: Option<u32>,
        attributes: u8,
        operation: u8,
        slot: u8,
    ) -> Measured {
        let mut measured = Measured { changed: 0xEE, blocks: 0, record: vec![0; ROOM] };
        let mut size = u32::try_from(ROOM).unwrap();
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_measurement(
                self.context,
                id,
                attributes,
                operation,
                slot,
                &mut measured.changed,
                &mut measured.blocks,
                &mut size,
                measured.record.as_mut_ptr(),
            )
        };
        self.check(&format!("measurements {attributes} {operation:#x}"), status);
        measured.record.truncate(usize::try_from(size).unwrap());
        measured
    }

    /// GET_MEASUREMENTS of one index by slot 0: whether it came.
    pub fn has_measurement(&mut self, session: Option<u32>, attributes: u8, index: u8) -> bool {
        let (mut changed, mut blocks) = (0, 0);
        let (mut record, mut size) = (vec![0; ROOM], u32::try_from(ROOM).unwrap());
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_measurement(
                self.context,
                id,
                attributes,
                index,
                0,
                &mut changed,
                &mut blocks,
                &mut size,
                record.as_mut_ptr(),
            )
        };
        status == 0 && blocks == 1
    }

    /// KEY_EXCHANGE and FINISH: id, heartbeat period and measurement summary (64 bytes).
    pub fn start_session(&mut self, slot: u8, summary: u8, policy: u8) -> (u32, u8, [u8; 64]) {
        let (mut id, mut heartbeat, mut digest) = (0, 0, [0; 64]);
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_start_session(
                self.context,
                false,
                null(),
                0,
                summary,
                slot,
                policy,
                &mut id,
                &mut heartbeat,
                digest.as_mut_ptr(),
            )
        };
        self.check("start session", status);
        (id, heartbeat, digest)
    }

    /// PSK_EXCHANGE with this hint, and PSK_FINISH if it takes that: id, heartbeat period and measurement summary (64 bytes).
    pub fn start_psk_session(&mut self, hint: &[u8], summary: u8, policy: u8) -> (u32, u8, [u8; 64]) {
        let (mut id, mut heartbeat, mut digest) = (0, 0, [0; 64]);
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_start_session(
                self.context,
                true,
                hint.as_ptr(),
                u16::try_from(hint.len()).unwrap(),
                summary,
                0,
                policy,
                &mut id,
                &mut heartbeat,
                digest.as_mut_ptr(),
            )
        };
        self.check("start PSK session", status);
        (id, heartbeat, digest)
    }

    /// END_SESSION.
    pub fn stop_session(&mut self, session: u32, attributes: u8) {
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_stop_session(self.context, session, attributes) };
        self.check("stop session", status);
    }

    /// HEARTBEAT.
    pub fn heartbeat(&mut self, session: u32) {
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_heartbeat(self.context, session) };
        self.check("heartbeat", status);
    }

    /// KEY_UPDATE of one direction or both, and its verification.
    pub fn key_update(&mut self, session: u32, single: bool) {
        // SAFETY: see above.
        let status = unsafe { sys::libspdm_key_update(self.context, session, single) };
        self.check("key update", status);
    }

    /// VENDOR_DEFINED_REQUEST under PCI-SIG's name: the payload of the answer.
    pub fn vendor(&mut self, session: Option<u32>, request: &[u8]) -> Vec<u8> {
        let (mut standard, mut id_length, mut vendor, mut size) =
            (0, 8, [0; 8], u16::try_from(ROOM).unwrap());
        let mut response = vec![0; ROOM];
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_vendor_send_request_receive_response(
                self.context,
                id,
                3,
                2,
                [1, 0].as_ptr(),
                u16::try_from(request.len()).unwrap(),
                request.as_ptr(),
                &mut standard,
                &mut id_length,
                vendor.as_mut_ptr(),
                &mut size,
                response.as_mut_ptr(),
            )
        };
        self.check("vendor", status);
        assert_eq!((standard, id_length, &vendor[..2]), (3, 2, &[1, 0][..]));
        response.truncate(size.into());
        response
    }

    /// A whole message, and the whole answer with whatever padding the transport left.
    pub fn message(&mut self, session: Option<u32>, request: &[u8]) -> Vec<u8> {
        let (mut response, mut size) = (vec![0; ROOM], ROOM);
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_send_receive_data(
                self.context,
                id,
                false,
                request.as_ptr(),
                request.len(),
                response.as_mut_ptr(),
                &mut size,
            )
        };
        self.check("message", status);
        response.truncate(size);
        response
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { sys::ref_free(self.peer) };
        // SAFETY: null or from `identify`; the peer that used it is gone.
        unsafe { sys::ref_forget(self.chain) };
        // SAFETY: from `Box::into_raw` in `new`; the peer that used it is gone.
        drop(unsafe { Box::from_raw(self.device) });
    }
}

/// Pre-shared keys of libspdm's samples for one run, which keep a global state: nobody else uses them meanwhile.
pub fn with_psk<T>(run: impl FnOnce() -> T) -> T {
    static LOCK: Mutex<()> = Mutex::new(());
    // A run that panicked leaves nothing behind that the next one does not reset.
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the lock is held, so that nobody uses what it resets.
    unsafe { sys::ref_reset_psk() };
    run()
}

/// libspdm's responder, with its sample keys and measurements, as a transport of our requester.
pub struct Peer {
    peer: *mut sys::Peer,
    log: Vec<String>,
    // libspdm keeps pointers to both.
    root: Vec<u8>,
    chain: Vec<u8>,
    keys: [Vec<u8>; 2],
}

impl Peer {
    /// A responder with one bit of `base_asym` and of `base_hash`.
    pub fn new(config: &sys::Config) -> Self {
        sys::initialise();
        // SAFETY: the configuration is copied.
        let peer = unsafe { sys::ref_responder(config) };
        assert!(!peer.is_null(), "libspdm refuses {config:?}");
        Self { peer, log: Vec::new(), root: Vec::new(), chain: Vec::new(), keys: Default::default() }
    }

    /// One object in, the answer into the buffer, without a log: its size, 0 if there is none.
    pub fn handle(&mut self, request: &[u8], response: &mut [u8]) -> usize {
        // SAFETY: both buffers have the sizes that go with them.
        unsafe {
            sys::ref_handle(self.peer, request.as_ptr(), request.len(), response.as_mut_ptr(), response.len())
        }
    }

    /// From now on: 0 answers, 1 BUSY, 2 RESPONSE_NOT_READY.
    pub fn state(&mut self, state: u32) {
        // SAFETY: the peer lives as long as `self`.
        unsafe { sys::ref_response_state(self.peer, state) };
    }

    /// The last few objects, for a failure's message.
    pub fn recent(&self) -> String {
        self.log[self.log.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { sys::ref_free(self.peer) };
    }
}

impl Transport for &mut Peer {
    type Error = &'static str;

    fn exchange(&mut self, secured: bool, message: &[u8]) -> Result<Response, Self::Error> {
        let kind = if secured { ObjectType::SECURED_SPDM } else { ObjectType::SPDM };
        let mut request = Vec::new();
        Object { vendor: 1, kind, payload: message }.encode(&mut request).unwrap();
        self.log.push(format!("> {kind:?} {}", hex(message)));
        let mut response = vec![0; 2 * ROOM];
        let size = self.handle(&request, &mut response);
        if size == 0 {
            self.log.push("< silence".into());
            return Err("no answer");
        }
        // libspdm's responder says RDTM 1 in RESPONSE_NOT_READY, which its requester (as ours) refuses.
        if response[8 + 1..8 + 3] == [0x7F, 0x42] {
            response[8 + 7] = 2;
        }
        let object = Object::parse(&response[..size]).unwrap();
        self.log.push(format!("< {:?} {}", object.kind, hex(object.payload)));
        Ok(Response { secured: object.kind == ObjectType::SECURED_SPDM, bytes: object.payload.to_vec() })
    }

    fn wait(&mut self, _delay: Duration) {
        self.state(0);
    }
}
