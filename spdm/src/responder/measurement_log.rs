//! GET_MEASUREMENT_EXTENSION_LOG (DSP0274 1.3 "GET_MEASUREMENT_EXTENSION_LOG request and MEASUREMENT_EXTENSION_LOG
//! response messages").

use crate::wire::{GetMeasurementLog, LogEntry, MeasurementLog, MeasurementLogPortion};

use super::reject::{Handled, Next, Reject};
use super::state::Request;
use super::{ConfigError, Core, MeasurementLogItem, MeasurementValue};

/// Bytes of MEASUREMENT_EXTENSION_LOG before the portion.
const OVERHEAD: usize = 12;

impl Core {
    /// As much of what was asked for as fits into one response.
    pub(super) fn get_measurement_log(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Handled {
        let room = self.longest_response().saturating_sub(OVERHEAD);
        if !self.connection.negotiated()?.suite.measurement_log {
            return Err(Reject::UNEXPECTED);
        }
        let (body, _) = request.parse(GetMeasurementLog::parse)?;
        let offset = usize::try_from(body.offset).unwrap_or(usize::MAX);
        let rest =
            self.measurement_log.get(offset..).filter(|rest| !rest.is_empty()).ok_or(Reject::INVALID)?;
        let length = usize::try_from(body.length).unwrap_or(usize::MAX);
        let length = length.min(room).min(rest.len());
        let (portion, remainder) = rest.split_at_checked(length).ok_or(Reject::INVALID)?;
        let remainder = u32::try_from(remainder.len()).map_err(|_| Reject::INVALID)?;
        MeasurementLogPortion { version: body.version, portion, remainder }.encode(out)?;
        Ok(Next::Stay)
    }

    /// A measurement that the log tells of has a new value: one entry more.
    pub(super) fn extend_log(&mut self, index: u8, value: &MeasurementValue) -> Result<(), ConfigError> {
        let log = &mut self.config.measurement_log;
        if let Some(kind) = log.iter().rev().find(|item| item.index == index).map(|item| item.kind) {
            log.push(MeasurementLogItem { index, kind, value: value.clone() });
            self.measurement_log = encode(log)?;
        }
        Ok(())
    }
}

/// The log as it is transferred.
pub(super) fn encode(items: &[MeasurementLogItem]) -> Result<Vec<u8>, ConfigError> {
    const BAD: ConfigError = ConfigError::OutOfRange {
        field: "measurement_log",
        expected: "of indexes from 1 to 254, types below 128 and values below 65,536 bytes",
    };
    let mut entries = Vec::with_capacity(items.len());
    for (number, item) in (1_u32..).zip(items) {
        if matches!(item.index, 0 | 0xFF) || item.kind > 0x7F {
            return Err(BAD);
        }
        let (raw, value) = match &item.value {
            MeasurementValue::Raw(value) | MeasurementValue::RawOnly(value) => (true, value),
            MeasurementValue::Digest(value) => (false, value),
        };
        entries.push(LogEntry { number, index: item.index, kind: item.kind, raw, value });
    }
    let mut log = Vec::new();
    MeasurementLog::encode(&entries, &mut log).map_err(|_| BAD)?;
    Ok(log)
}
