//! What a step of the walk leaves behind, and the other things a command can print: plain data.

use std::time::Duration;

use serde::Serialize;

/// The layer a step belongs to, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Layer {
    /// Configuration space and BARs.
    #[serde(rename = "PCI")]
    Pci,
    /// The mailbox.
    #[serde(rename = "DOE")]
    Doe,
    /// Identity and session.
    #[serde(rename = "SPDM")]
    Spdm,
    /// The stream's registers and keys.
    #[serde(rename = "IDE")]
    Ide,
    /// The interface's life.
    #[serde(rename = "TDISP")]
    Tdisp,
    /// Accesses to BARs.
    #[serde(rename = "MMIO")]
    Mmio,
    /// The device's accesses to memory.
    #[serde(rename = "DMA")]
    Dma,
    /// What vfio gives a VMM.
    #[serde(rename = "VFIO")]
    Vfio,
    /// What KVM gives a guest.
    #[serde(rename = "KVM")]
    Kvm,
}

impl Layer {
    /// The layer's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pci => "PCI",
            Self::Doe => "DOE",
            Self::Spdm => "SPDM",
            Self::Ide => "IDE",
            Self::Tdisp => "TDISP",
            Self::Mmio => "MMIO",
            Self::Dma => "DMA",
            Self::Vfio => "VFIO",
            Self::Kvm => "KVM",
        }
    }
}

/// One step: what was done, what should have come of it and what did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Layer the step belongs to.
    pub layer: Layer,
    /// What was done.
    pub step: String,
    /// What should come of it.
    pub expected: String,
    /// What came of it.
    pub seen: String,
    /// Whether that is as it should be; `None` when it was left out, with the reason in `seen`.
    pub ok: Option<bool>,
    /// Time it took.
    #[serde(serialize_with = "micros", rename = "microseconds")]
    pub took: Duration,
}

fn micros<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
}

/// One line of a table of facts: name and value.
pub type Fact = (String, String);

/// One MMIO range of the interface report, resolved to the BAR it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RangeRow {
    /// Range id, by convention the BAR number.
    pub range_id: u16,
    /// The BAR the address lies in, if any.
    pub bar: Option<u8>,
    /// Offset in that BAR, bytes.
    pub offset: Option<u64>,
    /// Reported address, bytes.
    pub address: u64,
    /// 4 KiB pages.
    pub pages: u32,
    /// True if only TEE accesses reach it in RUN.
    pub private: bool,
    /// MSI-X table or PBA, updatable: spelt out.
    pub notes: Vec<&'static str>,
}
