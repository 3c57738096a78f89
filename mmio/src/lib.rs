//! BARs without I/O to a peer: what a BAR consists of, who may touch which page when, and the memory behind it.
//!
//! An access enters at [`Bar::read`] or [`Bar::write`] with the TDI's phase and the origin of its T attribute. It is
//! cut where the ranges of the BAR meet, every piece passes the [`Gate`], and then reaches registers (somebody else's:
//! [`RegisterBlock`]) or memory (a memfd). The crate knows neither TDISP messages nor vfio-user: the device composes.
#![forbid(unsafe_code)]

mod bar;
mod gate;
mod layout;
mod memory;
mod msix;
mod pages;
mod registers;
mod sides;
mod size;

pub use bar::{
    Access, Bar, Cell, Completion, Counters, ExportError, Exporting, LoadError, Place, RegisterBlock,
    Rejection, SharedArea, SharedMapping,
};
pub use gate::{Attribute, Gate, GateRow, TdiPhase, Tee, TeeSource, Verdict};
pub use layout::{
    AddressWidth, BarLayout, BarSet, Kind, LayoutError, LayoutProblem, MsixLocation, Range, RangeLayout,
};
pub use memory::{DmaBufMaker, FileAccess, FileKind, MemoryError};
pub use msix::MsixTable;
pub use pages::PageRange;
pub use registers::{Register, RegisterHandler, RegisterMap, RegisterWidth};
pub use sides::{Exported, Revocation, Revoked};
pub use size::{ByteSize, NotASize};

/// Bytes in the page that TDISP reports and the gate count in: 4 KiB, whatever the host's own page size
/// (PCIe 6.1 §11.3.9, MMIO_RANGE).
pub const PAGE_SIZE: u64 = 4096;
