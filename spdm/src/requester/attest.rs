//! CHALLENGE and GET_MEASUREMENTS: proofs by signature.

use super::command::{Challenged, Measurement, MeasurementQuery, MeasurementReport, Reply};
use super::encapsulated::{Conversation, Goal};
use super::error::{Misuse, RequesterError, Violation};
use super::evidence::Evidence;
use super::state::{Core, Flow, Message, Next, Request};
use crate::slot::PUBLIC_KEY_SLOT;
use crate::transcript::SigningContext;
use crate::wire::{
    Challenge, ChallengeAuth, GetMeasurements, MeasurementOperation, Measurements, Nonce, OpaqueElements,
    RequesterContext, ResponderFlags, SignatureRequest, SummaryType, Version,
};

/// Bytes of the summary hash that a responder adds to CHALLENGE_AUTH or KEY_EXCHANGE_RSP.
pub(super) fn summary_size(core: &Core, summary: SummaryType) -> Result<usize, Misuse> {
    let connection = core.connected()?;
    if summary == SummaryType::None {
        return Ok(0);
    }
    if connection.info.capabilities.any(ResponderFlags::MEAS_MASK) {
        Ok(connection.hash().size())
    } else {
        Err(Misuse::NotCapable("measurements"))
    }
}

/// `Some` random context where the version has one.
fn new_context(core: &Core, version: Version) -> Result<Option<RequesterContext>, RequesterError> {
    if version >= Version::V1_3 { core.random().map(Some) } else { Ok(None) }
}

/// What a summary hash was asked for, found.
pub(super) fn found(summary: &[u8]) -> Option<Vec<u8>> {
    (!summary.is_empty()).then(|| summary.to_vec())
}

/// Opaque data has to be in the general form, the only one that is offered. Before 1.2 its form is the responder's
/// own affair, except in a session's handshake, where the secured message version is looked for in it.
pub(super) fn check_opaque(
    message: &Message<'_>,
    version: Version,
    opaque: &[u8],
) -> Result<(), RequesterError> {
    if version < Version::V1_2 {
        return Ok(());
    }
    OpaqueElements::new(version, opaque)
        .and_then(|mut elements| elements.try_for_each(|element| element.map(|_| ())))
        .map_err(|error| message.malformed(error))
}

/// CHALLENGE on its way.
pub(super) struct PendingChallenge {
    slot: u8,
    summary_size: usize,
    context: Option<RequesterContext>,
}

impl PendingChallenge {
    /// CHALLENGE.
    pub(super) fn start(core: &Core, slot: u8, summary: SummaryType) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        if core.in_session() {
            return Err(Misuse::InSession.into());
        }
        if !connection.info.capabilities.has(ResponderFlags::CHAL) {
            return Err(Misuse::NotCapable("CHALLENGE").into());
        }
        connection.peer(slot)?;
        let version = connection.info.version;
        let summary_size = summary_size(core, summary)?;
        let context = new_context(core, version)?;
        let mut bytes = Vec::new();
        Challenge { version, slot, summary, nonce: core.random()?, context }.encode(&mut bytes);
        let flow = Flow::Challenge(Self { slot, summary_size, context });
        Ok(Next::Send(Request::clear(version, bytes, flow)))
    }

    /// CHALLENGE_AUTH.
    pub(super) fn authenticate(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let (hash_size, signature_size) =
            (connection.hash().size(), connection.signature()?.signature_size());
        let (response, exact) = message
            .parse(|reader| ChallengeAuth::parse(reader, hash_size, self.summary_size, signature_size))?;
        let peer = connection.peer(self.slot)?;
        let about_slot = match self.slot {
            PUBLIC_KEY_SLOT => response.slot() == 0xF && response.slot_mask == 0,
            slot => response.slot() == slot && response.slot_mask >> slot & 1 == 1,
        };
        message.require(about_slot, Violation::Slot)?;
        let mutual = response.asks_for_requester();
        let announced = connection.info.algorithms.requester_signature.is_some();
        message.require(announced || !mutual, Violation::NotAnnounced("mutual authentication"))?;
        message.require(response.chain_hash == peer.digest.as_ref(), Violation::Digest("chain"))?;
        message.require(response.context == self.context, Violation::Context)?;
        check_opaque(message, response.version, response.opaque)?;
        let signed = exact.get(..exact.len() - response.signature.len()).unwrap_or_default();
        let m1m2 = connection.identity_with(&*core.provider, [message.request, signed])?;
        let context = SigningContext::ChallengeAuth;
        let genuine = connection.verify(&*core.provider, peer, context, &m1m2, response.signature);
        message.require(genuine, Violation::Signature)?;
        let connection = core.connected_mut()?;
        connection.identity_log = None;
        connection.authenticated = true;
        let challenged = Challenged {
            slot: self.slot,
            summary: found(response.summary),
            opaque: response.opaque.to_vec(),
            authenticated_as: None,
        };
        if mutual {
            return Conversation::start(core, Goal::Challenged(challenged));
        }
        Ok(Next::Done(Reply::Challenged(challenged)))
    }
}

/// GET_MEASUREMENTS on its way.
pub(super) struct PendingMeasurements {
    query: MeasurementQuery,
    context: Option<RequesterContext>,
    /// Whether the messages themselves are wanted.
    evidence: bool,
}

impl PendingMeasurements {
    /// GET_MEASUREMENTS.
    pub(super) fn start(core: &Core, query: MeasurementQuery) -> Result<Next, RequesterError> {
        Self::ask(core, query, None)
    }

    /// GET_MEASUREMENTS of everything, signed, with somebody else's nonce.
    pub(super) fn start_evidence(core: &mut Core, slot: u8, nonce: Nonce) -> Result<Next, RequesterError> {
        if core.measurement_log()?.is_some() {
            // The signature would be over more than whoever has the nonce gets to see.
            return Err(Misuse::Unsigned.into());
        }
        let operation = MeasurementOperation::All;
        Self::ask(core, MeasurementQuery { operation, raw: false, signed_by: Some(slot) }, Some(nonce))
    }

    fn ask(core: &Core, query: MeasurementQuery, nonce: Option<Nonce>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let capabilities = connection.info.capabilities;
        if !capabilities.any(ResponderFlags::MEAS_MASK) {
            return Err(Misuse::NotCapable("measurements").into());
        }
        if matches!(query.operation, MeasurementOperation::One(0 | 0xff)) {
            return Err(Misuse::OutOfRange("measurement index").into());
        }
        let signature = match query.signed_by {
            None => None,
            Some(_) if !capabilities.has(ResponderFlags::MEAS_SIG) => {
                return Err(Misuse::NotCapable("signed measurements").into());
            }
            // 1.0 has no field for another.
            Some(1..) if connection.info.version < Version::V1_1 => {
                return Err(Misuse::OutOfRange("slot").into());
            }
            Some(slot) => {
                connection.peer(slot)?;
                Some(SignatureRequest { nonce: nonce.map_or_else(|| core.random(), Ok)?, slot })
            }
        };
        let version = connection.info.version;
        let context = new_context(core, version)?;
        let mut bytes = Vec::new();
        GetMeasurements {
            version,
            raw: query.raw,
            new: false,
            operation: query.operation,
            signature,
            context,
        }
        .encode(&mut bytes);
        let flow = Flow::Measurements(Self { query, context, evidence: nonce.is_some() });
        Ok(Next::Send(Request::new(core, version, bytes, flow)))
    }

    /// MEASUREMENTS.
    pub(super) fn report(self, core: &mut Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let signature_size = match self.query.signed_by {
            Some(_) => connection.signature()?.signature_size(),
            None => 0,
        };
        let (response, exact) = message.parse(|reader| Measurements::parse(reader, signature_size))?;
        message.require(response.context == self.context, Violation::Context)?;
        check_opaque(message, response.version, response.opaque)?;
        let measurements = self.blocks(message, &response)?;

        let signed = exact.get(..exact.len() - response.signature.len()).unwrap_or_default();
        let log = core.measurements_with([message.request, signed])?;
        let connection = core.connected()?;
        if let Some(slot) = self.query.signed_by {
            message.require(response.slot == slot & 0xF, Violation::Slot)?;
            let (peer, context) = (connection.peer(slot)?, SigningContext::Measurements);
            let genuine = connection.verify(&*core.provider, peer, context, &log, response.signature);
            message.require(genuine, Violation::Signature)?;
        }
        let evidence = if self.evidence {
            let signature = connection.signature()?;
            Some(Evidence {
                version: connection.info.version,
                hash: connection.hash(),
                signature,
                vca: connection.vca.as_ref().to_vec(),
                request: message.request.to_vec(),
                response: exact.to_vec(),
            })
        } else {
            None
        };
        *core.measurement_log()? = self.query.signed_by.is_none().then_some(log);
        if let Some(evidence) = evidence {
            return Ok(Next::Done(Reply::Evidence(evidence)));
        }
        let counted = self.query.operation == MeasurementOperation::Count;
        Ok(Next::Done(Reply::Measurements(MeasurementReport {
            total: counted.then_some(response.total),
            measurements,
            signed: self.query.signed_by.map(|_| response.changed),
            opaque: response.opaque.to_vec(),
        })))
    }

    /// The blocks, after comparing them with the request.
    fn blocks(
        &self,
        message: &Message<'_>,
        response: &Measurements<'_>,
    ) -> Result<Vec<Measurement>, RequesterError> {
        let broken = |what| message.violation(Violation::Measurements(what));
        let mut measurements: Vec<Measurement> = Vec::new();
        for block in response.iter() {
            let block = block.map_err(|error| message.malformed(error))?;
            if measurements.iter().any(|earlier| earlier.index == block.index) {
                return Err(broken("an index appears twice"));
            }
            measurements.push(Measurement {
                index: block.index,
                kind: block.kind,
                raw: block.raw,
                value: block.value.to_vec(),
            });
        }
        if measurements.len() != usize::from(response.blocks) {
            return Err(broken("the number of blocks"));
        }
        let fits = match self.query.operation {
            MeasurementOperation::Count => measurements.is_empty(),
            MeasurementOperation::One(index) => {
                matches!(measurements.as_slice(), [one] if one.index == index)
            }
            MeasurementOperation::All => !measurements.is_empty(),
        };
        if fits { Ok(measurements) } else { Err(broken("what was asked for")) }
    }
}
