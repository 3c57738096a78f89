//! libspdm's requester managing slots and keys, and reading what a device tells about itself.

use std::ptr::null_mut;

use libspdm_sys as sys;

use super::{ROOM, Reference, pointer};

/// LIBSPDM_STATUS_RESET_REQUIRED_PEER.
pub const RESET_REQUIRED: sys::Status = 0x8001_0012;

/// What libspdm made of KEY_PAIR_INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPair {
    /// Number of key pairs.
    pub total: u8,
    /// `Capabilities`.
    pub capabilities: u16,
    /// `KeyUsageCapabilities`.
    pub usage_capabilities: u16,
    /// `CurrentKeyUsage`.
    pub usage: u16,
    /// `AsymAlgoCapabilities`.
    pub algorithms: u32,
    /// `CurrentAsymAlgo`.
    pub algorithm: u32,
    /// `AssocCertSlotMask`.
    pub slots: u8,
    /// `PublicKeyInfo`.
    pub info: Vec<u8>,
}

// Every `unsafe` call below: as in the parent.
impl Reference {
    /// SET_CERTIFICATE of a chain as on the wire, or none to erase; `attributes` are model and erase bit of 1.3.
    pub fn try_set_certificate(
        &mut self,
        session: Option<u32>,
        slot: u8,
        chain: Option<&[u8]>,
        attributes: u8,
        key_pair: u8,
    ) -> sys::Status {
        let mut chain = chain.map(<[u8]>::to_vec);
        let (bytes, size) = chain.as_mut().map_or((null_mut(), 0), |chain| (chain.as_mut_ptr(), chain.len()));
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        unsafe {
            sys::libspdm_set_certificate_ex(self.context, id, slot, bytes.cast(), size, attributes, key_pair)
        }
    }

    /// As [`Self::try_set_certificate`], which succeeds.
    pub fn set_certificate(
        &mut self,
        session: Option<u32>,
        slot: u8,
        chain: Option<&[u8]>,
        attributes: u8,
        key_pair: u8,
    ) {
        let status = self.try_set_certificate(session, slot, chain, attributes, key_pair);
        self.check("set certificate", status);
    }

    /// GET_CSR: status, `CSRTrackingTag` to come back with, and the request.
    pub fn try_csr(
        &mut self,
        session: Option<u32>,
        info: &[u8],
        attributes: u8,
        key_pair: u8,
    ) -> (sys::Status, u8, Vec<u8>) {
        let (mut info, mut csr, mut size, mut tag) = (info.to_vec(), vec![0; ROOM], ROOM, 0);
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_csr_ex(
                self.context,
                id,
                info.as_mut_ptr().cast(),
                u16::try_from(info.len()).unwrap(),
                null_mut(),
                0,
                csr.as_mut_ptr().cast(),
                &mut size,
                attributes,
                key_pair,
                &mut tag,
            )
        };
        csr.truncate(if status == 0 { size } else { 0 });
        (status, tag, csr)
    }

    /// GET_CSR that is answered.
    pub fn csr(&mut self, session: Option<u32>, info: &[u8], attributes: u8, key_pair: u8) -> Vec<u8> {
        let (status, _, csr) = self.try_csr(session, info, attributes, key_pair);
        self.check("csr", status);
        csr
    }

    /// GET_KEY_PAIR_INFO.
    pub fn key_pair(&mut self, session: Option<u32>, key_pair: u8) -> KeyPair {
        let mut found = KeyPair { info: vec![0; 256], ..KeyPair::default() };
        let mut size = 256;
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_key_pair_info(
                self.context,
                id,
                key_pair,
                &mut found.total,
                &mut found.capabilities,
                &mut found.usage_capabilities,
                &mut found.usage,
                &mut found.algorithms,
                &mut found.algorithm,
                &mut found.slots,
                &mut size,
                found.info.as_mut_ptr().cast(),
            )
        };
        self.check("key pair info", status);
        found.info.truncate(size.into());
        found
    }

    /// SET_KEY_PAIR_INFO.
    pub fn set_key_pair(
        &mut self,
        session: Option<u32>,
        key_pair: u8,
        operation: u8,
        usage: u16,
        algorithm: u32,
        slots: u8,
    ) {
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_set_key_pair_info(self.context, id, key_pair, operation, usage, algorithm, slots)
        };
        self.check("set key pair info", status);
    }

    /// GET_MEASUREMENT_EXTENSION_LOG.
    pub fn measurement_log(&mut self, session: Option<u32>) -> Vec<u8> {
        let (mut log, mut size) = (vec![0; 4 * ROOM], 4 * ROOM);
        let id = pointer(session.as_ref());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_measurement_extension_log(self.context, id, &mut size, log.as_mut_ptr().cast())
        };
        self.check("measurement extension log", status);
        log.truncate(size);
        log
    }
}
