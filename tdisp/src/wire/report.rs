//! The TDI report: what the DSM tells the TVM about a locked interface (PCIe 6.1 §11.3.11).

use bitfield_struct::bitfield;
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reader::{DecodeError, Reader};

/// INTERFACE_INFO of a report.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct InterfaceInfo {
    /// No firmware update while the interface is locked.
    pub no_fw_update: bool,
    /// The interface generates DMA without a PASID.
    pub dma_without_pasid: bool,
    /// The interface generates DMA with a PASID.
    pub dma_with_pasid: bool,
    /// ATS is supported and enabled.
    pub ats: bool,
    /// PRS is supported and enabled.
    pub prs: bool,
    /// Reserved, zero.
    #[bits(11)]
    pub reserved: u16,
}

/// Attributes of one MMIO range.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct RangeAttributes {
    /// The range holds the MSI-X table; only reported when LOCK_MSIX was used.
    pub msix_table: bool,
    /// The range holds the MSI-X PBA; only reported when LOCK_MSIX was used.
    pub msix_pba: bool,
    /// IS_NON_TEE_MEM: shared, reachable with T = 0 always. Clear: private, reachable with T = 1 in RUN only.
    pub non_tee: bool,
    /// IS_MEM_ATTR_UPDATABLE: SET_MMIO_ATTRIBUTE may flip `non_tee`.
    pub updatable: bool,
    /// Reserved, zero.
    #[bits(12)]
    pub reserved: u16,
}

/// Length of one range record in bytes.
pub const MMIO_RANGE_LENGTH: usize = 16;

/// One MMIO range record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MmioRange {
    /// Number of the first 4 KiB page: (address + MMIO_REPORTING_OFFSET) / 4096. A page number, not an address.
    pub first_page: u64,
    /// Number of 4 KiB pages.
    pub pages: u32,
    /// What may be done with the range.
    pub attributes: RangeAttributes,
    /// Identifies or groups ranges; by convention the index of the BAR.
    pub range_id: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRange {
    first_page: U64,
    pages: U32,
    attributes: U16,
    range_id: U16,
}
const _: () = assert!(size_of::<RawRange>() == MMIO_RANGE_LENGTH);

impl MmioRange {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw: &RawRange = reader.structure("MMIO_RANGE")?;
        Ok(Self {
            first_page: raw.first_page.get(),
            pages: raw.pages.get(),
            attributes: RangeAttributes::from_bits(raw.attributes.get()),
            range_id: raw.range_id.get(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let raw = RawRange {
            first_page: self.first_page.into(),
            pages: self.pages.into(),
            attributes: self.attributes.into_bits().into(),
            range_id: self.range_id.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// A whole report.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InterfaceReport {
    /// INTERFACE_INFO.
    pub info: InterfaceInfo,
    /// MSI-X message control register; zero without MSI-X, or when it is not locked.
    pub msix_message_control: u16,
    /// LN requester control register; zero if absent.
    pub lnr_control: u16,
    /// TPH requester control register; zero if absent, or when its table lies in an MSI-X table that is not locked.
    pub tph_control: u32,
    /// Ranges by ascending BAR and address.
    pub ranges: Vec<MmioRange>,
    /// Opaque to all but the driver.
    pub device_info: Vec<u8>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawReportHead {
    info: U16,
    reserved: U16,
    msix_message_control: U16,
    lnr_control: U16,
    tph_control: U32,
    range_count: U32,
}
const _: () = assert!(size_of::<RawReportHead>() == 16);

/// A report is longer than GET_DEVICE_INTERFACE_REPORT can read: its offset and remainder have 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an interface report of {0} bytes is longer than 65535")]
pub struct ReportTooLong(pub usize);

impl InterfaceReport {
    /// Decodes a report that was put together from its portions.
    ///
    /// # Errors
    /// Bytes missing or left over. A range count that the bytes cannot hold is refused before anything is allocated.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let head: &RawReportHead = reader.structure("report")?;
        let count = usize::try_from(head.range_count.get()).unwrap_or(usize::MAX);
        let length = count.checked_mul(MMIO_RANGE_LENGTH).ok_or(DecodeError::Truncated("MMIO_RANGE"))?;
        let mut records = Reader::new(reader.bytes(length, "MMIO_RANGE")?);
        let ranges = (0..count).map(|_| MmioRange::read(&mut records)).collect::<Result<_, _>>()?;
        let info_length = reader.structure::<U32>("DEVICE_SPECIFIC_INFO_LEN")?.get();
        let info_length = usize::try_from(info_length).unwrap_or(usize::MAX);
        let device_info = reader.bytes(info_length, "DEVICE_SPECIFIC_INFO")?.to_vec();
        reader.finish()?;
        Ok(Self {
            info: InterfaceInfo::from_bits(head.info.get()),
            msix_message_control: head.msix_message_control.get(),
            lnr_control: head.lnr_control.get(),
            tph_control: head.tph_control.get(),
            ranges,
            device_info,
        })
    }

    /// The report's bytes.
    ///
    /// # Errors
    /// [`ReportTooLong`] if no requester could read it to its end.
    pub fn encode(&self) -> Result<Vec<u8>, ReportTooLong> {
        let mut out = Vec::new();
        let head = RawReportHead {
            info: self.info.into_bits().into(),
            reserved: 0.into(),
            msix_message_control: self.msix_message_control.into(),
            lnr_control: self.lnr_control.into(),
            tph_control: self.tph_control.into(),
            range_count: u32::try_from(self.ranges.len()).unwrap_or(u32::MAX).into(),
        };
        out.extend_from_slice(head.as_bytes());
        for range in &self.ranges {
            range.write(&mut out);
        }
        let length = u32::try_from(self.device_info.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.device_info);
        if out.len() > usize::from(u16::MAX) {
            return Err(ReportTooLong(out.len()));
        }
        Ok(out)
    }
}
