//! Memory of BARs that is given away: to whom and when.

use mmio::{ExportError, Exported, FileAccess, Tee};
use tdisp::wire::TdiState;
use tdispd_proto::control::{ByteRange, FailureCode, Happening, Hex, Sequence};

use super::bars::BarRegion;
use super::{Device, words};
use crate::vfio_user::{Errno, Mmap};

/// Why there is no descriptor of a BAR's memory.
#[derive(Debug, thiserror::Error)]
pub enum NotExported {
    /// Not a function of the device.
    #[error("there is no function {function}; there are {functions}")]
    NoFunction {
        /// As asked for.
        function: usize,
        /// How many there are.
        functions: usize,
    },
    /// Not the region of a BAR or of its window.
    #[error("there is no such BAR")]
    NoBar,
    /// Memory Space Enable is clear, or the function is not in D0.
    #[error("the function does not answer memory requests")]
    Silent,
    /// The BAR, its pages, or the state of the TDI.
    #[error(transparent)]
    Pages(#[from] ExportError),
}

impl NotExported {
    /// As a vfio-user client is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoFunction { .. } | Self::Silent => Errno::NODEV,
            Self::NoBar => Errno::INVAL,
            Self::Pages(error) => errno(error),
        }
    }

    /// As a client of the control socket is told.
    pub(crate) fn code(&self) -> FailureCode {
        match self {
            Self::NoFunction { .. } => FailureCode::NoSuchFunction,
            Self::NoBar | Self::Silent | Self::Pages(_) => FailureCode::NotExported,
        }
    }
}

impl Device {
    /// What a region offers for mapping, with a descriptor of its own.
    pub fn mapping(&mut self, function: usize, region: u32) -> Option<Mmap> {
        let unit = self.units.get_mut(function)?;
        let mapping = unit.mapping(BarRegion::from_index(region)?).unwrap_or_else(|error| {
            log::error!("function {function}: {error}; nothing is offered for mapping");
            None
        });
        self.note_dropped(function);
        mapping
    }

    /// A descriptor of the memory of a BAR, T = 0, or of its window, T = 1: `ranges`, as offsets and lengths in bytes, one behind
    /// the other.
    ///
    /// # Errors
    /// Why not; it is told as an event, too.
    pub fn export(
        &mut self,
        function: usize,
        region: BarRegion,
        ranges: &[(u64, u64)],
        access: FileAccess,
    ) -> Result<Exported, NotExported> {
        let functions = self.functions();
        let state = self.tdi_state(function);
        let phase = self.phase(function);
        let unit = self.units.get_mut(function).ok_or(NotExported::NoFunction { function, functions })?;
        let exported = unit.export(region, phase, ranges, access);
        let BarRegion { bar, window: tee } = region;
        match exported {
            Ok(exported) => {
                let ranges = ranges.iter().map(|(offset, length)| byte_range(*offset, *length)).collect();
                let (state, file) = (words::state(state), words::file_kind(exported.kind).into());
                self.tell(Happening::ExportMade { function, bar, tee, ranges, state, file });
                self.note_dropped(function);
                self.note_export(function, bar);
                Ok(exported)
            }
            Err(error) => {
                self.tell(Happening::ExportRefused { function, bar, tee, text: error.to_string() });
                Err(error)
            }
        }
    }

    /// The client of `function` is gone, and has been followed by a reset: what it still holds is not the device's any more.
    pub fn change_host(&mut self, function: usize) {
        if let Some(unit) = self.units.get_mut(function) {
            unit.change_host();
        }
    }

    /// Tells what exports lost pages on the way to `state`.
    pub(super) fn note_revoked(&mut self, function: usize, state: TdiState) {
        let Some(unit) = self.units.get_mut(function) else { return };
        for (bar, revoked) in unit.take_revoked() {
            let tee = revoked.side == Tee::Tee;
            let ranges =
                revoked.ranges.iter().map(|range| byte_range(range.offset(), range.size())).collect();
            let how = words::revocation(revoked.how).into();
            self.tell(Happening::ExportRevoked { function, bar, tee, ranges, how, held: revoked.held });
            if !tee && revoked.held && state == TdiState::CONFIG_LOCKED {
                self.out_of_order(function, Sequence::SharedExportAtLock, format!("BAR {bar}"));
            }
        }
    }
}

fn byte_range(offset: u64, length: u64) -> ByteRange {
    ByteRange { offset: Hex(offset), length: Hex(length) }
}

fn errno(error: &ExportError) -> Errno {
    match error {
        ExportError::Overlap { .. } | ExportError::Mapped { .. } => Errno::BUSY,
        ExportError::Memory(_) => Errno::NOMEM,
        ExportError::TooMany { .. } | ExportError::Lingering { .. } => Errno::NOSPC,
        ExportError::Empty
        | ExportError::Unaligned { .. }
        | ExportError::Outside { .. }
        | ExportError::Twice { .. }
        | ExportError::NotMemory { .. }
        | ExportError::Mixed { .. }
        | ExportError::OtherSide { .. }
        | ExportError::Phase { .. }
        | ExportError::ReadOnly => Errno::INVAL,
    }
}
