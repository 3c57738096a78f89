//! GET_CSR: a request for a certificate of one of the keys, made at once or at the next reset
//! (DSP0274 1.3 "GET_CSR request and CSR response messages").

use std::sync::Arc;

use crate::crypto::Signer;
use crate::identity::{CsrWishes, certificate_signing_request, issuer_name, subject_name};
use crate::slot::Slot;
use crate::wire::{CertificateModel, Csr, ErrorCode, GetCsr, KeyPairAlgorithms, Version};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, Suite};

/// A GET_CSR that has to wait for a reset.
#[derive(Debug)]
pub(super) struct PendingCsr {
    /// `CSRTrackingTag` by which the requester asks for the result, from 1.3 on.
    tag: u8,
    /// The request, by which it is known before 1.3.
    message: Vec<u8>,
    /// The reset has come.
    pub(super) ready: bool,
}

/// A key to be certified.
struct Subject {
    key: Arc<dyn Signer>,
    /// The name it has in certificates already, in DER.
    name: Option<Vec<u8>>,
}

/// `CSRTrackingTag` goes from 1 to this.
const LAST_TAG: u8 = 7;

impl Core {
    pub(super) fn get_csr(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, message) = request.parse(GetCsr::parse)?;
        let csr = self.csr(&body, message, None)?;
        Csr { version: body.version, csr: &csr }.encode(out)?;
        self.fits(out)?;
        self.pending_csr = None;
        Ok(Next::Stay)
    }

    /// What `message` asks for, for a key of this Bank, or else for one of the connection's. It can be asked for again
    /// until the pending request is forgotten.
    pub(super) fn csr(
        &mut self,
        body: &GetCsr<'_>,
        message: &[u8],
        bank: Option<KeyPairAlgorithms>,
    ) -> Result<Vec<u8>, Reject> {
        const FAILED: Reject = Reject::error(ErrorCode::OPERATION_FAILED);
        let suite = self.connection.negotiated()?.suite;
        suite.check_opaque(body.version, body.opaque)?;
        let Subject { key, name } = self.key_to_certify(&suite, body, bank)?;
        let wishes = CsrWishes::parse(body.requester_info).ok_or(Reject::INVALID)?;
        if self.config.capabilities.provisioning.at_reset {
            self.wait_for_reset(body, message)?;
        } else if body.tracking_tag != 0 {
            return Err(Reject::INVALID);
        }
        // A key of another Bank need not go with the connection's hash.
        let mut hashes = core::iter::once(&suite.hash).chain(&self.config.hashes);
        let hash = hashes.find(|hash| key.supports(**hash)).ok_or(FAILED)?;
        certificate_signing_request(key.as_ref(), *hash, wishes, name.as_deref()).map_err(|_| FAILED)
    }

    /// The key pair asked for, or the key of the Bank or the connection. For the alias model it is that of the device
    /// certificate authority above the key, with the name by which that issues.
    fn key_to_certify(
        &self,
        suite: &Suite,
        body: &GetCsr<'_>,
        bank: Option<KeyPairAlgorithms>,
    ) -> Result<Subject, Reject> {
        const FAILED: Reject = Reject::error(ErrorCode::OPERATION_FAILED);
        let slots = self.chains.slots();
        let in_bank = |algorithm| bank.is_none_or(|bank| KeyPairAlgorithms::of(algorithm) == bank);
        let of_alias = |slot: &Slot| {
            let alias = slot.alias.as_ref().ok_or(FAILED)?;
            let issued = alias.certificates.first().ok_or(FAILED)?;
            Ok(Subject { key: Arc::clone(&alias.authority), name: issuer_name(issued) })
        };
        let key = match (suite.multiple_keys, body.key_pair, body.model) {
            (true, id, Some(CertificateModel::Alias)) => {
                let slot = slots.existing().find(|(_, slot)| slot.key_pair == id && slot.alias.is_some());
                let (_, slot) = slot.ok_or(FAILED)?;
                return if in_bank(slot.algorithm()) { of_alias(slot) } else { Err(Reject::INVALID) };
            }
            (true, id, Some(_)) => {
                let index = usize::from(id).checked_sub(1).ok_or(Reject::INVALID)?;
                slots.key_pairs.get(index).ok_or(Reject::INVALID)?.key.clone()
            }
            (false, 0, None) => {
                let asym = if bank.is_none() { Some(suite.asym()?) } else { None };
                let fits = |algorithm| in_bank(algorithm) && asym.is_none_or(|asym| asym == algorithm);
                let slot = slots.existing().find(|(_, slot)| slot.key_pair != 0 && fits(slot.algorithm()));
                let (_, slot) = slot.ok_or(FAILED)?;
                if slot.model == CertificateModel::Alias {
                    return of_alias(slot);
                }
                Some(slot.key.clone())
            }
            _ => return Err(Reject::INVALID),
        };
        let key = key.ok_or(FAILED)?;
        if !in_bank(key.algorithm()) {
            return Err(Reject::INVALID);
        }
        let certified = slots.iter().find(|(_, slot)| Arc::ptr_eq(&slot.key, &key));
        let name = certified.and_then(|(_, slot)| subject_name(slot.certificates.last()?));
        Ok(Subject { key, name })
    }

    /// Returns when the request waited long enough. One request waits at a time.
    fn wait_for_reset(&mut self, body: &GetCsr<'_>, message: &[u8]) -> Result<(), Reject> {
        const BUSY: Reject = Reject::error(ErrorCode::BUSY);
        let tags = body.version >= Version::V1_3;
        let waiting = self.pending_csr.as_ref();
        let same =
            waiting.filter(|csr| if tags { csr.tag == body.tracking_tag } else { csr.message == message });
        match (body.tracking_tag, same, waiting) {
            (_, Some(csr), _) if csr.ready => return Ok(()),
            (1.., Some(_), _) => return Err(BUSY),
            (1.., None, _) => return Err(Reject::UNEXPECTED),
            (0, None, Some(csr)) if tags && !csr.ready && !body.overwrite => return Err(BUSY),
            (0, _, _) => {}
        }
        let tag = match waiting.map_or(0, |csr| csr.tag) {
            last @ 1..LAST_TAG => last + 1,
            _ => 1,
        };
        self.pending_csr = Some(PendingCsr { tag, message: message.to_vec(), ready: false });
        let data = if tags { tag } else { 0 };
        Err(Reject::Error { code: ErrorCode::RESET_REQUIRED, data })
    }
}
