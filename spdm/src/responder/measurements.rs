//! GET_MEASUREMENTS, in a session or outside (DSP0274 1.3 "GET_MEASUREMENTS request and MEASUREMENTS response
//! messages").

use crate::slot::slot_of_field;
use crate::transcript::{SigningContext, sign};
use crate::wire::{
    Code, ContentChanged, EventDetail, GetMeasurements, KeyUsage, MeasurementOperation, MeasurementSet,
    Measurements, NONCE_SIZE, ResponderFlags,
};

use super::reject::{Handled, Next, Reject};
use super::sessions::Stage;
use super::state::{MeasurementTranscript, Request};
use super::{ConfigError, Core, MeasurementValue, Responder};

impl Responder {
    /// Gives a measurement another value. Who has subscribed to that is told (MeasurementChanged), and the next
    /// signature says so to everyone who has asked for measurements since the last. A measurement extension log that
    /// tells of it has one entry more. Sessions whose requester wants that end (DSP0274 1.3 "KEY_EXCHANGE",
    /// TerminationPolicy).
    ///
    /// # Errors
    /// [`ConfigError`] if there is no such measurement, or the value does not fit; nothing has changed then.
    pub fn change_measurement(&mut self, index: u8, value: &MeasurementValue) -> Result<(), ConfigError> {
        self.core.measured.change(self.core.provider.as_ref(), index, value)?;
        self.core.extend_log(index, value)?;
        self.core.sessions.end_outdated();
        let changed = MeasurementSet::from_iter([index]);
        self.core.sessions.notify(&EventDetail::MeasurementChanged(changed));
        Ok(())
    }

    /// Says what a measurement will be when an update takes effect, which [`Self::change_measurement`] does. Who has
    /// subscribed to that is told (MeasurementPreUpdate), and who asks for new measurements gets this value, from 1.3
    /// on.
    ///
    /// # Errors
    /// As [`Self::change_measurement`].
    pub fn announce_measurement(&mut self, index: u8, value: &MeasurementValue) -> Result<(), ConfigError> {
        self.core.measured.announce(self.core.provider.as_ref(), index, value)?;
        let announced = MeasurementSet::from_iter([index]);
        self.core.sessions.notify(&EventDetail::MeasurementPreUpdate(announced));
        Ok(())
    }
}

impl Core {
    /// L1/L2 goes on over unsigned requests, and begins again after a signature and after every error.
    pub(super) fn get_measurements(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let l1l2 = self.l1l2(request)?.take();
        let l1l2 = self.answer_measurements(request, l1l2, out)?;
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
    fn l1l2(&mut self, request: &Request<'_>) -> Result<&mut Option<MeasurementTranscript>, Reject> {
        let Some(index) = request.session else { return Ok(&mut self.connection.negotiated()?.l1l2) };
        match self.sessions.get_mut(index).map(|entry| &mut entry.stage) {
            Some(Stage::Application { l1l2, .. }) => Ok(l1l2),
            Some(Stage::Handshake { .. } | Stage::PskHandshake { .. }) | None => Err(Reject::UNEXPECTED),
        }
    }

    /// Returns what L1/L2 is now.
    fn answer_measurements(
        &mut self,
        request: &Request<'_>,
        l1l2: Option<MeasurementTranscript>,
        out: &mut Vec<u8>,
    ) -> Result<Option<MeasurementTranscript>, Reject> {
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
        let blocks = self.measured.record(&body, &mut self.payload).ok_or(Reject::INVALID)?;
        let mut l1l2 = match l1l2 {
            Some(begun) => begun,
            None => MeasurementTranscript {
                transcript: negotiated.basis(provider).l1l2()?,
                changes: self.measured.changes(),
            },
        };
        let changed = if l1l2.changes == self.measured.changes() {
            ContentChanged::Unchanged
        } else {
            ContentChanged::Changed
        };
        let mut nonce = [0; NONCE_SIZE];
        provider.random(&mut nonce)?;
        Measurements {
            version: body.version,
            total: if body.operation == MeasurementOperation::Count { self.measured.count() } else { 0 },
            slot: signer.map_or(0, |(number, _)| number),
            // Only a signature can vouch for that.
            changed: signer.map_or(ContentChanged::NotDetected, |_| changed),
            blocks,
            record: &self.payload,
            nonce,
            opaque: &[],
            context: body.context,
            signature: &[],
        }
        .encode(out)?;

        l1l2.transcript.append(message);
        l1l2.transcript.append(out);
        if let Some((_, key)) = signer {
            sign(key, suite.hash, SigningContext::Measurements, &l1l2.transcript, out)?;
            return Ok(None);
        }
        Ok(Some(l1l2))
    }
}
