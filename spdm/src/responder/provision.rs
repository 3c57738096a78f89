//! SET_CERTIFICATE: slots get their chains from the requester, at once or at the next reset
//! (DSP0274 1.3 "SET_CERTIFICATE request and SET_CERTIFICATE_RSP response messages").

use crate::crypto::{AsymAlgorithm, HashAlgorithm, hash};
use crate::identity::{Policy, Purpose, verify_certificates};
use crate::slot::{SLOT_COUNT, Slot};
use crate::wire::{
    CertificateChain, CertificateModel, ErrorCode, EventDetail, SetCertificate, SetCertificateRsp,
    SlotAction, Version,
};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::state::{Request, Suite};

/// The chain a slot is to hold, or none to be erased.
#[derive(Debug)]
pub(super) struct Content {
    certificates: Vec<Vec<u8>>,
    model: CertificateModel,
}

/// Slots that change at the next reset.
pub(super) type Pending = [Option<Content>; SLOT_COUNT];

impl Core {
    pub(super) fn set_certificate(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let (body, _) = request.parse(SetCertificate::parse)?;
        let suite = self.connection.negotiated()?.suite;
        let slot = self.chains.slots().at(body.slot).ok_or(Reject::INVALID)?;
        self.check_trust(request, body.slot, &body.action)?;
        check_key_pair(&suite, slot, body.key_pair)?;
        self.place(&suite, suite.asym, body.version, body.slot, body.action)?;
        SetCertificateRsp { version: body.version, slot: body.slot }.encode(out);
        Ok(Next::Stay)
    }

    /// DSP0274 recommends a trusted environment for slot 0 and demands one, or a session, for the others. A chain for
    /// slot 0 has at least to be one for its key; erasing it takes nothing but the wish.
    pub(super) fn check_trust(
        &self,
        request: &Request<'_>,
        number: u8,
        action: &SlotAction<'_>,
    ) -> Result<(), Reject> {
        let trusted = self.config.capabilities.provisioning.trusted_environment;
        let guarded = number != 0 || matches!(action, SlotAction::Erase);
        if guarded && request.session.is_none() && !trusted { Err(Reject::UNEXPECTED) } else { Ok(()) }
    }

    /// Stores a chain for a key of algorithm `asym`, or erases the slot, at once or at the next reset.
    pub(super) fn place(
        &mut self,
        suite: &Suite,
        asym: Option<AsymAlgorithm>,
        version: Version,
        number: u8,
        action: SlotAction<'_>,
    ) -> Result<(), Reject> {
        let slot = self.chains.slots().at(number).ok_or(Reject::INVALID)?;
        let content = match action {
            SlotAction::Erase => Content { certificates: Vec::new(), model: slot.model },
            // There is nothing to certify: the key was taken from the slot.
            SlotAction::Store { .. } if slot.key_pair == 0 => {
                return Err(Reject::error(ErrorCode::OPERATION_FAILED));
            }
            SlotAction::Store { model, chain } => {
                let model = new_model(suite, number, slot, model)?;
                let asym = asym.ok_or(Reject::UNEXPECTED)?;
                let certificates = self.check_chain((suite.hash, asym), version, slot, model, chain)?;
                Content { certificates, model }
            }
        };
        if !self.config.capabilities.provisioning.at_reset {
            return self.write(number, content);
        }
        if let Some(pending) = self.pending.get_mut(usize::from(number)) {
            *pending = Some(content);
        }
        Err(Reject::error(ErrorCode::RESET_REQUIRED))
    }

    /// The certificates of a chain for this slot's key; one of the alias model goes on with the device's own. libspdm's
    /// responder, too, answers Unspecified if they do not hold; a chain that does not even have room for a root hash is an
    /// invalid request.
    fn check_chain(
        &self,
        (hash_algorithm, asym): (HashAlgorithm, AsymAlgorithm),
        version: Version,
        slot: &Slot,
        model: CertificateModel,
        chain: &[u8],
    ) -> Result<Vec<Vec<u8>>, Reject> {
        const UNUSABLE: Reject = Reject::error(ErrorCode::UNSPECIFIED);
        let view = CertificateChain::parse(chain, hash_algorithm.size())?;
        let policy = Policy {
            leaf_constraints_required: version >= Version::V1_3,
            purpose: Purpose::Responder,
            ..Policy::default()
        };
        let mut certificates = view.certificates.to_vec();
        if let (CertificateModel::Alias, Some(alias)) = (model, &slot.alias) {
            certificates.extend(alias.certificates.iter().flatten());
        }
        let verified = verify_certificates(&certificates, &policy).map_err(|error| {
            log::debug!("the chain for a slot is not usable: {error}");
            UNUSABLE
        })?;
        let root = hash(self.provider.as_ref(), hash_algorithm, &verified.root)?;
        let ours = verified.algorithm.serves(asym)
            && slot.algorithm() == asym
            && verified.public_key == slot.key.public_key();
        if root.as_ref() == view.root_hash && ours { Ok(verified.certificates) } else { Err(UNUSABLE) }
    }

    fn write(&mut self, number: u8, content: Content) -> Result<(), Reject> {
        let slot = self.chains.slots().at(number).ok_or(Reject::INVALID)?;
        let slot = Slot { certificates: content.certificates, model: content.model, ..slot.clone() };
        self.chains
            .replace(self.provider.as_ref(), number, slot)
            .map_err(|_| Reject::error(ErrorCode::OPERATION_FAILED))?;
        self.sessions.events.slot_changed(number);
        self.sessions.notify(&EventDetail::CertificateChanged(1 << number));
        Ok(())
    }

    /// What had to wait for a reset takes effect.
    pub(super) fn install(&mut self) {
        let pending = core::mem::take(&mut self.pending);
        for (number, content) in (0_u8..).zip(pending) {
            if let Some(content) = content
                && self.write(number, content).is_err()
            {
                log::warn!("the chain for slot {number} cannot be installed");
            }
        }
        if let Some(csr) = &mut self.pending_csr {
            csr.ready = true;
        }
    }

    /// Whether a slot changes at the next reset.
    pub(super) fn waits(&self, slot: u8) -> bool {
        self.pending.get(usize::from(slot)).is_some_and(Option::is_some)
    }

    /// A slot that waits for a reset is not shown before (`None`: any of them).
    pub(super) fn check_installed(&self, number: Option<u8>) -> Result<(), Reject> {
        let any = match number {
            Some(number) => self.waits(number),
            None => (0..8).any(|number| self.waits(number)),
        };
        if any { Err(Reject::error(ErrorCode::RESET_REQUIRED)) } else { Ok(()) }
    }
}

/// A request names the key pair that the slot has, where the connection has several keys.
pub(super) fn check_key_pair(suite: &Suite, slot: &Slot, named: u8) -> Result<(), Reject> {
    let key_pair = if suite.multiple_keys { slot.key_pair } else { 0 };
    if named != key_pair || suite.multiple_keys && key_pair == 0 { Err(Reject::INVALID) } else { Ok(()) }
}

/// The model of a chain to store: as the requester says where there are several keys, otherwise as it was. Slot 0 speaks for
/// the hardware.
fn new_model(
    suite: &Suite,
    number: u8,
    slot: &Slot,
    model: Option<CertificateModel>,
) -> Result<CertificateModel, Reject> {
    let model = match (suite.multiple_keys, model) {
        (false, None) => slot.model,
        (true, Some(CertificateModel::Generic)) if number == 0 => return Err(Reject::INVALID),
        (true, Some(model)) => model,
        (false, Some(_)) | (true, None) => return Err(Reject::INVALID),
    };
    if model == CertificateModel::Alias && slot.alias.is_none() {
        return Err(Reject::error(ErrorCode::OPERATION_FAILED));
    }
    Ok(model)
}
