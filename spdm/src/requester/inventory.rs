//! GET_MEASUREMENT_EXTENSION_LOG and GET_ENDPOINT_INFO: what the responder tells about itself beside measurements.

use super::command::{EndpointReport, MeasurementLogReport, Reply};
use super::error::{Misuse, RequesterError, Violation};
use super::state::{Core, Flow, Message, Next, Request};
use crate::slot::slot_of_field;
use crate::transcript::SigningContext;
use crate::wire::{
    DEVICE_CLASS_IDENTIFIER, DeviceClass, EndpointInfo, GetEndpointInfo, GetMeasurementLog, MeasurementLog,
    MeasurementLogPortion, ResponderFlags, Version,
};

/// Longest log that is fetched, in bytes.
const LONGEST_LOG: usize = 1 << 20;
/// Bytes of MEASUREMENT_EXTENSION_LOG before the portion.
const OVERHEAD: usize = 12;
/// A responder that sends less than the smallest transfer holds, and has more, wants to keep us busy.
const SMALLEST_PORTION: usize = 42 - OVERHEAD;

/// A measurement extension log on its way.
pub(super) struct FetchLog {
    log: Vec<u8>,
    /// Bytes asked for in the request under way.
    asked: u32,
}

impl FetchLog {
    /// The first GET_MEASUREMENT_EXTENSION_LOG.
    pub(super) fn start(core: &Core) -> Result<Next, RequesterError> {
        if !core.connected()?.info.algorithms.measurement_log {
            return Err(Misuse::NotCapable("the measurement extension log").into());
        }
        Self { log: Vec::new(), asked: 0 }.ask(core)
    }

    fn ask(mut self, core: &Core) -> Result<Next, RequesterError> {
        let version = core.connected()?.info.version;
        let room = core.config.data_transfer_size.saturating_sub(u32::try_from(OVERHEAD).unwrap_or(0));
        self.asked = room;
        let offset = u32::try_from(self.log.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        GetMeasurementLog { version, offset, length: room }.encode(&mut bytes);
        Ok(Next::Send(Request::new(core, version, bytes, Flow::MeasurementLog(self))))
    }

    /// MEASUREMENT_EXTENSION_LOG: the next portion, or the end. The log may grow meanwhile.
    pub(super) fn portion(mut self, core: &Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let (response, _) = message.parse(MeasurementLogPortion::parse)?;
        let length = response.portion.len();
        let remainder = usize::try_from(response.remainder).unwrap_or(usize::MAX);
        let enough = length >= SMALLEST_PORTION || remainder == 0;
        let asked_for = (1..=self.asked).contains(&u32::try_from(length).unwrap_or(u32::MAX));
        let total = self.log.len().saturating_add(length).saturating_add(remainder);
        message.require(asked_for && enough && total <= LONGEST_LOG, Violation::Portion)?;
        self.log.extend_from_slice(response.portion);
        if remainder != 0 {
            return self.ask(core);
        }
        let entries = MeasurementLog::parse(&self.log).map_err(|error| message.malformed(error))?;
        let entries = entries.iter().map(|&entry| entry.into()).collect();
        Ok(Next::Done(Reply::MeasurementLog(MeasurementLogReport { entries })))
    }
}

/// GET_ENDPOINT_INFO on its way.
pub(super) struct PendingEndpointInfo {
    signed_by: Option<u8>,
}

impl PendingEndpointInfo {
    /// GET_ENDPOINT_INFO.
    pub(super) fn start(core: &Core, signed_by: Option<u8>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let (version, flags) = (connection.info.version, connection.info.capabilities);
        if version < Version::V1_3 || !flags.any(ResponderFlags::EP_INFO_MASK) {
            return Err(Misuse::NotCapable("endpoint information").into());
        }
        let nonce = match signed_by {
            None => None,
            Some(_) if !flags.has(ResponderFlags::EP_INFO_SIG) => {
                return Err(Misuse::NotCapable("signed endpoint information").into());
            }
            Some(slot) => {
                connection.peer(slot_of_field(slot & 0xF))?;
                Some(core.random()?)
            }
        };
        let mut bytes = Vec::new();
        let slot = signed_by.unwrap_or(0);
        GetEndpointInfo { version, sub_code: DEVICE_CLASS_IDENTIFIER, slot, nonce }.encode(&mut bytes);
        Ok(Next::Send(Request::new(core, version, bytes, Flow::EndpointInfo(Self { signed_by }))))
    }

    /// ENDPOINT_INFO.
    pub(super) fn describe(self, core: &Core, message: &Message<'_>) -> Result<Next, RequesterError> {
        let connection = core.connected()?;
        let size = match self.signed_by {
            Some(_) => connection.signature()?.signature_size(),
            None => 0,
        };
        let (response, exact) = message.parse(|reader| EndpointInfo::parse(reader, size))?;
        if let Some(slot) = self.signed_by {
            message.require(response.slot == slot & 0xF, Violation::Slot)?;
            let peer = connection.peer(slot_of_field(slot & 0xF))?;
            let mut transcript = connection.basis(&*core.provider).endpoint_info()?;
            transcript.append(message.request);
            transcript.append(exact.get(..exact.len() - response.signature.len()).unwrap_or_default());
            let (context, signature) = (SigningContext::EndpointInfo, response.signature);
            let genuine = connection.verify(&*core.provider, peer, context, &transcript, signature);
            message.require(genuine, Violation::Signature)?;
        }
        let classes = DeviceClass::parse_list(response.info).map_err(|error| message.malformed(error))?;
        Ok(Next::Done(Reply::EndpointInfo(EndpointReport { classes, signed: self.signed_by.is_some() })))
    }
}
