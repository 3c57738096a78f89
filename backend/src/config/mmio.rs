//! `[mmio]`: where T comes from, and what becomes of memory that was given away.

use mmio::Revocation;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Why there is no `dmabuf = "udmabuf"` where something is revoked by `sigbus`.
pub(super) const NOT_BOTH: &str = "udmabuf takes only memory that is sealed against shrinking, and revoke = \"sigbus\" (the default of \
                                   arch = \"tdx\") shrinks it: say dmabuf = \"auto\" or another revoke";

/// `[mmio]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mmio {
    /// Source of the T attribute of accesses to BARs.
    pub tee: TeeSource,
    /// With `tee = "alias"`: which half of a BAR is T = 1.
    pub alias_private: AliasHalf,
    /// What a hypervisor's mapping of a page that becomes TEE memory comes to on this architecture: it says what `revoke` is
    /// by default, and what an access with T = 0 to a private page counts as.
    pub arch: Arch,
    /// What becomes of exports whose pages go to the other side. By default as `arch` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke: Option<Revoke>,
    /// What exports are.
    pub dmabuf: DmaBuf,
    /// Whether private exports may be made in CONFIG_UNLOCKED already.
    pub private_early: PrivateEarly,
    /// With `arch = "tdx"`: what a T = 0 access to a private page of a bound TDI does, besides being told as an event.
    pub machine_check: MachineCheck,
    /// What becomes of DMA with T = 1 that an access with T = 0 asked for.
    pub mixed_dma: MixedDma,
    /// Whether what a VMM does in a wrong order takes the TDI to ERROR, instead of being told only.
    pub strict: bool,
}

impl Mmio {
    /// Limits that the types do not express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.dmabuf == DmaBuf::Udmabuf && self.revocation() == Revoke::Sigbus {
            return Err(ConfigError::value("mmio.dmabuf", NOT_BOTH));
        }
        if self.machine_check != MachineCheck::Event && self.arch != Arch::Tdx {
            let problem = "only arch = \"tdx\" has machine checks";
            return Err(ConfigError::value("mmio.machine_check", problem));
        }
        Ok(())
    }

    /// What becomes of exports whose pages go to the other side.
    pub fn revocation(&self) -> Revoke {
        self.revoke.unwrap_or(match self.arch {
            Arch::Cca => Revoke::Orphan,
            Arch::Tdx => Revoke::Sigbus,
            Arch::Sev => Revoke::Keep,
        })
    }
}

/// What an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmaBuf {
    /// A dma-buf where /dev/udmabuf can be used and the export is not one that `sigbus` would cut; a memfd otherwise.
    #[default]
    Auto,
    /// A dma-buf of /dev/udmabuf.
    Udmabuf,
    /// A memfd.
    Memfd,
}

/// What a machine check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineCheck {
    /// Nothing more.
    #[default]
    Event,
    /// tdispd ends, with an exit code of its own.
    Exit,
    /// The process that made the access gets SIGBUS.
    Sigbus,
}

/// What becomes of DMA with T = 1 that an access with T = 0 asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedDma {
    /// It is done.
    #[default]
    Allow,
    /// It fails as DMA that is not allowed.
    Refuse,
}

/// Where an access's T attribute comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeeSource {
    /// In RUN, accesses to private pages count as T = 1; everything else is T = 0.
    #[default]
    Implicit,
    /// From the address: each BAR is twice as large as its layout, one half is T = 1 and the other T = 0.
    Alias,
    /// From the vfio-user region: those of the BARs are T = 0, and T = 1 is regions 9 to 14, one for each BAR.
    Region,
}

/// A half of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AliasHalf {
    /// The upper one, as with SEV's C-bit: what the report says has T = 0.
    #[default]
    High,
    /// The lower one, as with TDX's shared bit: what the report says has T = 1.
    Low,
}

/// A confidential computing architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Arm CCA: the old mapping is unusable.
    #[default]
    Cca,
    /// Intel TDX: touching it is a machine check.
    Tdx,
    /// AMD SEV: it is still there, but refused.
    Sev,
}

/// What becomes of an export whose pages go to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoke {
    /// The holder keeps dead pages.
    Orphan,
    /// The pages are taken away: touching a mapping of them raises SIGBUS.
    Sigbus,
    /// The mapping stays and reads as ones; a shared one is good again when the pages come back.
    Keep,
}

impl From<Revoke> for Revocation {
    fn from(revoke: Revoke) -> Self {
        match revoke {
            Revoke::Orphan => Self::Orphan,
            Revoke::Sigbus => Self::Sigbus,
            Revoke::Keep => Self::Keep,
        }
    }
}

/// Whether private exports may be made in CONFIG_UNLOCKED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrivateEarly {
    /// They wait for LOCK.
    #[default]
    Deny,
    /// They may; they show ones until RUN.
    Allow,
}
