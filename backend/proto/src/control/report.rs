//! The interface report as JSON, in both directions (PCIe 6.1 §11.3.11).

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::number::{Hex, HexBytes};

/// The report of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Function number.
    pub function: usize,
    /// Which report this is.
    pub source: ReportSource,
    /// What the next LOCK will say instead of what is so.
    pub report_override: Option<OverrideForm>,
    /// Its fields; `None` if its bytes are no report.
    pub report: Option<ReportFields>,
    /// Why its bytes are no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecodable: Option<String>,
    /// Its bytes.
    pub hex: HexBytes,
}

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportSource {
    /// The one that LOCK fixed.
    Locked,
    /// What a LOCK would fix now; whether it would be accepted is not looked at.
    NextLock,
}

/// How a report was overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverrideForm {
    /// By exact bytes.
    Exact,
    /// In some of its fields.
    Edited,
}

impl fmt::Display for OverrideForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact bytes",
            Self::Edited => "edited fields",
        })
    }
}

/// What a report is to say: `{"hex": "…"}`, or [`ReportFields`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ReportText {
    /// These bytes, whatever they are.
    Exact {
        /// At most 65535.
        hex: HexBytes,
    },
    /// The true report with these fields.
    Edited(ReportFields),
}

/// By hand instead of `untagged`, whose error would name no field.
impl<'de> Deserialize<'de> for ReportText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Exact {
            hex: HexBytes,
        }
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.get("hex").is_some() {
            let Exact { hex } = serde_json::from_value(value)
                .map_err(|error| D::Error::custom(format!("report with hex: {error}")))?;
            return Ok(Self::Exact { hex });
        }
        serde_json::from_value(value)
            .map(Self::Edited)
            .map_err(|error| D::Error::custom(format!("report: {error}")))
    }
}

/// Fields of a report; one that is not there is what is so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportFields {
    /// INTERFACE_INFO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_info: Option<Bits<InfoFlags>>,
    /// MSI-X message control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msix_message_control: Option<Hex<u16>>,
    /// LNR control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lnr_control: Option<Hex<u16>>,
    /// TPH control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tph_control: Option<Hex<u32>>,
    /// All MMIO ranges, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<RangeFields>>,
    /// Device-specific info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<HexBytes>,
}

/// A field of sixteen bits: by the names of those that have one, or as a number, with the reserved ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Bits<N> {
    /// As a number.
    Raw(Hex<u16>),
    /// By name; what is not named is clear.
    Named(N),
}

/// By hand instead of `untagged`, whose error would not say what is wrong.
impl<'de, N: serde::de::DeserializeOwned> Deserialize<'de> for Bits<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let bits = if value.is_object() {
            serde_json::from_value(value).map(Self::Named)
        } else {
            serde_json::from_value(value).map(Self::Raw)
        };
        bits.map_err(serde::de::Error::custom)
    }
}

/// The bits of INTERFACE_INFO that have names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfoFlags {
    /// No firmware update while the interface is locked.
    pub no_fw_update: bool,
    /// DMA without a PASID.
    pub dma_without_pasid: bool,
    /// DMA with a PASID.
    pub dma_with_pasid: bool,
    /// ATS is supported and enabled.
    pub ats: bool,
    /// PRS is supported and enabled.
    pub prs: bool,
}

/// One MMIO range: at a page of a BAR (`bar`, `first_page`), which then moves with the BAR's address and
/// MMIO_REPORTING_OFFSET, or at the page number to be reported (`page`); with its attributes by name, or all of them as one
/// number (`attributes`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeFields {
    /// Index of the BAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<u8>,
    /// 4 KiB page of the BAR, from 0; 0 if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_page: Option<u32>,
    /// Page number: an address divided by 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Hex<u64>>,
    /// Number of 4 KiB pages.
    pub pages: u32,
    /// All attributes as a number, the reserved ones with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Hex<u16>>,
    /// IS_NON_TEE_MEM: shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub non_tee: Option<bool>,
    /// IS_MEM_ATTR_UPDATABLE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updatable: Option<bool>,
    /// Holds the MSI-X table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msix_table: Option<bool>,
    /// Holds the MSI-X PBA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msix_pba: Option<bool>,
    /// RANGE_ID; the BAR's index if it is not there, 0 without a BAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_id: Option<u16>,
}

/// A field that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field, with its place.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ReportFields {
    /// Whether every range says where it begins, once, and has its attributes in one form.
    ///
    /// # Errors
    /// The first field that contradicts another.
    pub fn check(&self) -> Result<(), FieldError> {
        for (place, range) in self.ranges.iter().flatten().enumerate() {
            let fail = |field: &str, problem: &str| {
                Err(FieldError { field: format!("ranges[{place}].{field}"), problem: problem.to_owned() })
            };
            match (range.bar, range.page, range.first_page) {
                (None, None, _) => return fail("bar", "neither bar nor page says where the range begins"),
                (Some(_), Some(_), _) => return fail("page", "bar says already where the range begins"),
                (None, Some(_), Some(_)) => return fail("first_page", "belongs to bar, not to page"),
                (Some(_), None, _) | (None, Some(_), None) => {}
            }
            let named = [range.non_tee, range.updatable, range.msix_table, range.msix_pba];
            if range.attributes.is_some() && named.iter().any(Option::is_some) {
                return fail("attributes", "stands for all attributes; leave the named ones out");
            }
        }
        Ok(())
    }
}
