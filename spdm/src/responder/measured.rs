//! Measurements ready to be sent: blocks in both forms, records and summary hashes of them.

use crate::crypto::{CryptoError, Digest, HashAlgorithm, Provider, hash};
use crate::wire::{MeasurementBlock, MeasurementOperation, SummaryType};

use super::state::MeasurementForm;
use super::{ConfigError, Measurement, MeasurementValue};

#[derive(Debug)]
struct Blocks {
    index: u8,
    tcb: bool,
    /// Encoded with a digest where there is one.
    hashed: Vec<u8>,
    /// Encoded with the bit stream where there is one.
    raw: Vec<u8>,
}

/// All measurements. The responder alone chooses their hash, so the blocks are encoded once.
#[derive(Debug)]
pub(super) struct Measured {
    blocks: Vec<Blocks>,
    form: MeasurementForm,
}

const BAD_MEASUREMENTS: ConfigError = ConfigError::OutOfRange {
    field: "measurements",
    expected: "ascending by index from 1 to 254, of a type below 128 and with values below 65,532 bytes",
};

impl Measured {
    pub(super) fn new(
        provider: &dyn Provider,
        measurements: &[Measurement],
        form: MeasurementForm,
    ) -> Result<Self, ConfigError> {
        let mut blocks = Vec::with_capacity(measurements.len());
        let mut previous = 0;
        for measurement in measurements {
            if measurement.index <= previous || measurement.index == 0xFF || measurement.kind > 0x7F {
                return Err(BAD_MEASUREMENTS);
            }
            previous = measurement.index;
            blocks.push(encode(provider, measurement, form)?);
        }
        Ok(Self { blocks, form })
    }

    pub(super) const fn form(&self) -> MeasurementForm {
        self.form
    }

    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.blocks.len()).unwrap_or(u8::MAX)
    }

    /// Appends the blocks an operation asks for; returns their number, or `None` if the index does not exist.
    pub(super) fn record(
        &self,
        operation: MeasurementOperation,
        raw: bool,
        record: &mut Vec<u8>,
    ) -> Option<u8> {
        let chosen = |block: &&Blocks| match operation {
            MeasurementOperation::Count => false,
            MeasurementOperation::One(index) => block.index == index,
            MeasurementOperation::All => true,
        };
        let mut count = 0;
        for block in self.blocks.iter().filter(chosen) {
            record.extend_from_slice(if raw { &block.raw } else { &block.hashed });
            count += 1;
        }
        match operation {
            MeasurementOperation::One(_) if count == 0 => None,
            MeasurementOperation::One(_) | MeasurementOperation::Count | MeasurementOperation::All => {
                Some(count)
            }
        }
    }

    /// `MeasurementSummaryHash`: over the blocks in ascending order of index; `None` if none is asked for.
    pub(super) fn summary(
        &self,
        provider: &dyn Provider,
        algorithm: HashAlgorithm,
        summary: SummaryType,
    ) -> Result<Option<Digest>, CryptoError> {
        let only_tcb = match summary {
            SummaryType::None => return Ok(None),
            SummaryType::Tcb => true,
            SummaryType::All => false,
        };
        let mut hasher = provider.hasher(algorithm)?;
        self.blocks
            .iter()
            .filter(|block| block.tcb || !only_tcb)
            .for_each(|block| hasher.update(&block.hashed));
        Ok(Some(hasher.digest()))
    }
}

fn encode(
    provider: &dyn Provider,
    measurement: &Measurement,
    form: MeasurementForm,
) -> Result<Blocks, ConfigError> {
    let block = |raw: bool, value: &[u8]| {
        let mut out = Vec::with_capacity(MeasurementBlock::OVERHEAD + value.len());
        MeasurementBlock { index: measurement.index, kind: measurement.kind, raw, value }
            .encode(&mut out)
            .map_err(|_| BAD_MEASUREMENTS)?;
        Ok::<_, ConfigError>(out)
    };
    let (hashed, raw) = match (&measurement.value, form) {
        (MeasurementValue::RawOnly(value), _) | (MeasurementValue::Raw(value), MeasurementForm::RawOnly) => {
            let raw = block(true, value)?;
            (raw.clone(), raw)
        }
        (MeasurementValue::Raw(value), MeasurementForm::Hashed(algorithm)) => {
            let digest =
                hash(provider, algorithm, value).map_err(|_| ConfigError::NoAlgorithm("measurement hash"))?;
            (block(false, digest.as_ref())?, block(true, value)?)
        }
        (MeasurementValue::Digest(value), MeasurementForm::Hashed(algorithm))
            if value.len() == algorithm.size() =>
        {
            let hashed = block(false, value)?;
            (hashed.clone(), hashed)
        }
        (MeasurementValue::Digest(_), _) => {
            return Err(ConfigError::OutOfRange {
                field: "measurements",
                expected: "digests of the most preferred measurement hash",
            });
        }
    };
    Ok(Blocks { index: measurement.index, tcb: measurement.tcb, hashed, raw })
}
