//! GET_MEASUREMENTS, in a session or outside (DSP0274 1.3 "GET_MEASUREMENTS request and MEASUREMENTS response
//! messages").

use crate::slot::slot_of_field;
use crate::transcript::{SigningContext, Transcript, sign};
use crate::wire::{
    Code, ContentChanged, GetMeasurements, KeyUsage, MeasurementOperation, Measurements, NONCE_SIZE,
    ResponderFlags,
};

use super::Core;
use super::reject::{Handled, Next, Reject};
use super::sessions::Stage;
use super::state::{Request, continued};

impl Core {
    /// L1/L2 goes on over unsigned requests, and begins again after a signature and after every error.
    pub(super) fn get_measurements(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let mut l1l2 = self.l1l2(request)?.take();
        self.answer_measurements(request, &mut l1l2, out)?;
        self.fits(out)?;
        *self.l1l2(request)? = l1l2;
        Ok(Next::Stay)
    }

    /// DSP0274 1.3 "L1/L2": an ERROR to GET_MEASUREMENTS, whatever the reason, begins it anew. ResponseNotReady is none
    /// yet.
    pub(super) fn forget_measurements(&mut self, request: &Request<'_>) {
        if request.header.code == Code::GET_MEASUREMENTS
            && let Ok(l1l2) = self.l1l2(request)
        {
            *l1l2 = None;
        }
    }

    /// Every session has an L1/L2 of its own.
    fn l1l2(&mut self, request: &Request<'_>) -> Result<&mut Option<Transcript>, Reject> {
        let Some(index) = request.session else { return Ok(&mut self.connection.negotiated()?.l1l2) };
        match self.sessions.get_mut(index).map(|entry| &mut entry.stage) {
            Some(Stage::Application { l1l2, .. }) => Ok(l1l2),
            Some(Stage::Handshake { .. } | Stage::PskHandshake { .. }) | None => Err(Reject::UNEXPECTED),
        }
    }

    fn answer_measurements(
        &mut self,
        request: &Request<'_>,
        l1l2: &mut Option<Transcript>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let negotiated = self.connection.negotiated()?;
        let suite = negotiated.suite;
        suite.measurements.ok_or(Reject::UNEXPECTED)?;
        let (body, message) = request.parse(GetMeasurements::parse)?;
        let signer = match &body.signature {
            None => None,
            Some(_) if !self.flags.has(ResponderFlags::MEAS_SIG) => return Err(Reject::INVALID),
            Some(wanted) => {
                let number = slot_of_field(wanted.slot);
                let (key, _) = suite.identity(&self.chains, number, KeyUsage::MEASUREMENT)?;
                Some((wanted.slot, key))
            }
        };
        let provider = self.provider.as_ref();
        self.payload.clear();
        let blocks =
            self.measured.record(body.operation, body.raw, &mut self.payload).ok_or(Reject::INVALID)?;
        let mut nonce = [0; NONCE_SIZE];
        provider.random(&mut nonce)?;
        Measurements {
            version: body.version,
            total: if body.operation == MeasurementOperation::Count { self.measured.count() } else { 0 },
            slot: signer.map_or(0, |(number, _)| number),
            // Measurements are fixed for the life of a responder; only a signature can vouch for that.
            changed: signer.map_or(ContentChanged::NotDetected, |_| ContentChanged::Unchanged),
            blocks,
            record: &self.payload,
            nonce,
            opaque: &[],
            context: body.context,
            signature: &[],
        }
        .encode(out)?;

        let transcript = continued(l1l2, || negotiated.basis(provider).l1l2())?;
        transcript.append(message);
        transcript.append(out);
        if let Some((_, key)) = signer {
            sign(key, suite.hash, SigningContext::Measurements, transcript, out)?;
            *l1l2 = None;
        }
        Ok(Next::Stay)
    }
}
