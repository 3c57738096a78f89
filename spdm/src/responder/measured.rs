//! Measurements ready to be sent: blocks in both forms, records and summary hashes of them.

use crate::crypto::{CryptoError, Digest, HashAlgorithm, Provider, hash};
use crate::wire::{GetMeasurements, MeasurementBlock, MeasurementOperation, SummaryType};

use super::state::MeasurementForm;
use super::{ConfigError, Measurement, MeasurementValue};

#[derive(Debug)]
struct Blocks {
    index: u8,
    kind: u8,
    tcb: bool,
    current: Forms,
    /// What it will be when an update takes effect, where that is known.
    pending: Option<Forms>,
}

/// One block.
#[derive(Debug)]
struct Forms {
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
    changes: u64,
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
            let &Measurement { index, kind, tcb, ref value } = measurement;
            let current = encode(provider, index, kind, value, form)?;
            blocks.push(Blocks { index, kind, tcb, current, pending: None });
        }
        Ok(Self { blocks, form, changes: 0 })
    }

    /// Number of changes so far.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Another value, now.
    pub(super) fn change(
        &mut self,
        provider: &dyn Provider,
        index: u8,
        value: &MeasurementValue,
    ) -> Result<(), ConfigError> {
        let form = self.form;
        let block = self.find(index)?;
        block.current = encode(provider, index, block.kind, value, form)?;
        block.pending = None;
        self.changes += 1;
        Ok(())
    }

    /// Another value, some time.
    pub(super) fn announce(
        &mut self,
        provider: &dyn Provider,
        index: u8,
        value: &MeasurementValue,
    ) -> Result<(), ConfigError> {
        let form = self.form;
        let block = self.find(index)?;
        block.pending = Some(encode(provider, index, block.kind, value, form)?);
        Ok(())
    }

    fn find(&mut self, index: u8) -> Result<&mut Blocks, ConfigError> {
        const UNKNOWN: ConfigError = ConfigError::OutOfRange { field: "index", expected: "a measurement's" };
        self.blocks.iter_mut().find(|block| block.index == index).ok_or(UNKNOWN)
    }

    pub(super) const fn form(&self) -> MeasurementForm {
        self.form
    }

    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.blocks.len()).unwrap_or(u8::MAX)
    }

    /// Appends the blocks that a request asks for, as they will be after an update if it wants that; returns their
    /// number, or `None` if the index does not exist.
    pub(super) fn record(&self, request: &GetMeasurements, record: &mut Vec<u8>) -> Option<u8> {
        let operation = request.operation;
        let chosen = |block: &&Blocks| match operation {
            MeasurementOperation::Count => false,
            MeasurementOperation::One(index) => block.index == index,
            MeasurementOperation::All => true,
        };
        let mut count = 0;
        for block in self.blocks.iter().filter(chosen) {
            let pending = block.pending.as_ref().filter(|_| request.new);
            let forms = pending.unwrap_or(&block.current);
            record.extend_from_slice(if request.raw { &forms.raw } else { &forms.hashed });
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
            .for_each(|block| hasher.update(&block.current.hashed));
        Ok(Some(hasher.digest()))
    }
}

fn encode(
    provider: &dyn Provider,
    index: u8,
    kind: u8,
    value: &MeasurementValue,
    form: MeasurementForm,
) -> Result<Forms, ConfigError> {
    let block = |raw: bool, value: &[u8]| {
        let mut out = Vec::with_capacity(MeasurementBlock::OVERHEAD + value.len());
        MeasurementBlock { index, kind, raw, value }.encode(&mut out).map_err(|_| BAD_MEASUREMENTS)?;
        Ok::<_, ConfigError>(out)
    };
    let (hashed, raw) = match (value, form) {
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
    Ok(Forms { hashed, raw })
}
