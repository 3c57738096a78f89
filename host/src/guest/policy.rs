//! What a guest wants of a device before it trusts it with anything: a TOML file.

use std::path::Path;

use serde::Deserialize;
use spdm::requester::RootPin;
use tdisp::wire::InterfaceInfo;

use crate::cli::parse_hex;
use crate::error::{Error, Result};
use crate::pci::bars::Half;
use crate::walk::{read_certificate, read_file};

/// The file, with every field that it can have. What it does not say is not looked at, but for `root`: without one nobody is who they
/// say they are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Certificates that the device's chain may begin with: files in DER or PEM, relative to this one, or `sha384:` and the
    /// certificate's digest (`sha256:`, `sha512:`).
    #[serde(rename = "root")]
    roots: Vec<String>,
    /// Measurements that the device must have.
    #[serde(default, rename = "measurement")]
    pub measurements: Vec<Wanted>,
    /// What the interface report may and must say.
    #[serde(default)]
    pub report: Report,
    /// Which half of each BAR has T = 1; none: the machine knows by itself.
    #[serde(default)]
    pub tee_half: Option<Half>,
    /// Memory that has to be private.
    #[serde(default, rename = "private")]
    pub private: Vec<Place>,
}

/// A measurement that has to be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its index.
    pub index: u8,
    /// Its value in hexadecimal: a digest, or the raw bytes.
    #[serde(rename = "value")]
    pub values: Vec<Hex>,
}

/// Bytes in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_hex(&text).map(Self).ok_or_else(|| format!("{text:?} is no even number of hexadecimal digits"))
    }
}

/// What INTERFACE_INFO may and must say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Flags that must be set.
    pub required: Vec<Flag>,
    /// Flags that may be set beside them.
    pub allowed: Vec<Flag>,
}

impl Default for Report {
    fn default() -> Self {
        Self { required: Vec::new(), allowed: vec![Flag::NoFwUpdate, Flag::DmaWithoutPasid] }
    }
}

/// A flag of INTERFACE_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// No firmware update while the interface is locked.
    NoFwUpdate,
    /// DMA without a PASID.
    DmaWithoutPasid,
    /// DMA with a PASID.
    DmaWithPasid,
    /// ATS.
    Ats,
    /// PRS.
    Prs,
}

impl Flag {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 5] =
        [Self::NoFwUpdate, Self::DmaWithoutPasid, Self::DmaWithPasid, Self::Ats, Self::Prs];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFwUpdate => "no-fw-update",
            Self::DmaWithoutPasid => "dma-without-pasid",
            Self::DmaWithPasid => "dma-with-pasid",
            Self::Ats => "ats",
            Self::Prs => "prs",
        }
    }

    /// Whether it is set.
    pub const fn of(self, info: InterfaceInfo) -> bool {
        match self {
            Self::NoFwUpdate => info.no_fw_update(),
            Self::DmaWithoutPasid => info.dma_without_pasid(),
            Self::DmaWithPasid => info.dma_with_pasid(),
            Self::Ats => info.ats(),
            Self::Prs => info.prs(),
        }
    }
}

/// Bytes of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Number of the BAR.
    pub bar: u8,
    /// First byte.
    #[serde(default)]
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Policy {
    /// Reads a policy and the certificates that it names.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the file, and the field or the line.
    pub fn read(path: &Path) -> Result<(Self, Vec<RootPin>)> {
        let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
        let text = String::from_utf8(read_file(path)?).map_err(|e| failed(e.to_string()))?;
        let policy = Self::parse(&text).map_err(failed)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let roots = policy.roots.iter().map(|root| pin(directory, root)).collect::<Result<_>>()?;
        Ok((policy, roots))
    }

    /// Reads a policy, without the files that it names.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        if policy.roots.is_empty() {
            return Err("root: there has to be one".into());
        }
        for (at, wanted) in policy.measurements.iter().enumerate() {
            if wanted.values.is_empty() {
                return Err(format!("measurement[{at}].value: there has to be one"));
            }
            if policy.measurements.iter().take(at).any(|other| other.index == wanted.index) {
                return Err(format!("measurement[{at}].index: {} is there twice", wanted.index));
            }
        }
        for (at, place) in policy.private.iter().enumerate() {
            if place.bar > 5 || place.size == 0 || place.offset.checked_add(place.size).is_none() {
                return Err(format!("private[{at}]: no bytes of a BAR"));
            }
        }
        Ok(policy)
    }
}

fn pin(directory: &Path, text: &str) -> Result<RootPin> {
    let digest = [("sha256:", 32), ("sha384:", 48), ("sha512:", 64)]
        .into_iter()
        .find_map(|(prefix, size)| Some((text.strip_prefix(prefix)?, size)));
    match digest {
        Some((digits, size)) => parse_hex(digits)
            .filter(|bytes| bytes.len() == size)
            .map(RootPin::Digest)
            .ok_or_else(|| Error::Usage(format!("root {text:?}: {size} bytes in hexadecimal are wanted"))),
        None => read_certificate(&directory.join(text)).map(RootPin::Certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_with_everything() {
        let policy = Policy::parse(
            "root = ['root.pem', 'sha256:00']\ntee_half = 'high'\n\
             [report]\nrequired = ['no-fw-update']\nallowed = ['ats']\n\
             [[measurement]]\nindex = 1\nvalue = ['00ff', '0x01']\n\
             [[private]]\nbar = 2\nsize = 0x8000\n",
        )
        .unwrap();
        assert_eq!(policy.measurements[0].values, [Hex(vec![0, 0xFF]), Hex(vec![1])]);
        assert_eq!(policy.report.required, [Flag::NoFwUpdate]);
        assert_eq!(policy.private, [Place { bar: 2, offset: 0, size: 0x8000 }]);
        assert_eq!(policy.tee_half, Some(Half::High));
        let least = Policy::parse("root = ['r']").unwrap();
        assert_eq!(least.report, Report::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, name) in [
            ("", "root"),
            ("root = []", "root"),
            ("root = ['r']\nmeasurements = 1", "measurements"),
            ("root = ['r']\n[[measurement]]\nindex = 1", "value"),
            ("root = ['r']\n[[measurement]]\nindex = 1\nvalue = []", "measurement[0].value"),
            ("root = ['r']\n[[measurement]]\nindex = 1\nvalue = ['0']", "hexadecimal"),
            ("root = ['r']\n[[measurement]]\nindex = 256\nvalue = ['00']", "256"),
            (
                "root = ['r']\n[[measurement]]\nindex = 1\nvalue = ['00']\n[[measurement]]\nindex = 1\nvalue = ['00']",
                "measurement[1].index",
            ),
            ("root = ['r']\n[report]\nallowed = ['fast']", "fast"),
            ("root = ['r']\n[[private]]\nbar = 6\nsize = 1", "private[0]"),
            ("root = ['r']\n[[private]]\nbar = 0\nsize = 0", "private[0]"),
            ("root = ['r']\n[[private]]\nbar = 0\nsize = 1\noffset = 1\nlast = 2", "last"),
            ("root = ['r']\ntee_half = 'left'", "left"),
        ] {
            let why = Policy::parse(text).unwrap_err();
            assert!(why.contains(name), "{text}: {why}");
        }
    }

    #[test]
    fn roots_are_files_or_digests() {
        let directory = tempfile::tempdir().unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(pin(directory.path(), &digest).unwrap(), RootPin::Digest(vec![0xAB; 32]));
        for text in ["sha256:ab", "sha384:zz", "missing.pem"] {
            assert!(matches!(pin(directory.path(), text), Err(Error::Usage(_))), "{text}");
        }
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, format!("root = ['{digest}']")).unwrap();
        assert_eq!(Policy::read(&path).unwrap().1, [RootPin::Digest(vec![0xAB; 32])]);
        std::fs::write(&path, "root = 1").unwrap();
        assert!(Policy::read(&path).unwrap_err().to_string().contains("policy.toml"));
    }
}
