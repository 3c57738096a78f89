//! Wire formats: what TDISP (PCIe 6.1 §11.3) and IDE_KM (PCIe 6.1 §6.33.3) put into an SPDM vendor-defined
//! message, after the protocol-id byte. Stateless; used by the device and by the host's tools alike.
//!
//! Decoding is strict: an exact length, no trailing byte, known values only where the type says so. A code
//! that a peer may extend is an open newtype whose unknown values survive a round trip.

mod codes;
mod header;
pub mod ide_km;
mod lock;
mod reader;
mod report;
mod request;
mod response;

pub use codes::{ErrorCode, MessageCode, RegistryId, TdiState, VERSION_1_0};
pub use header::{FunctionId, HEADER_LENGTH, Header, InterfaceId};
pub use lock::{LockFlags, LockRequest, NONCE_LENGTH, Nonce};
pub(crate) use reader::Reader;
pub use reader::{DecodeError, FieldTooLong};
pub use report::{
    InterfaceInfo, InterfaceReport, MMIO_RANGE_LENGTH, MmioRange, RangeAttributes, ReportTooLong,
};
pub use request::{Request, RequestMessage, Vdm};
pub use response::{Capabilities, ExtendedError, RequestBitmap, Response, ResponseMessage};

#[cfg(test)]
mod tests;
