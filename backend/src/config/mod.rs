//! The configuration file: one TOML document, every field with a default, unknown fields are errors.
//!
//! This module knows names, defaults and limits; what the values *do* is with the part that each table is named
//! after.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::doe::Malformed;

mod bars;
mod disk;
mod mmio;
mod size;
mod spdm;
mod tdisp;
mod virtio;

pub use bars::{Bar, Range, RangeKind, Side, Width};
pub use disk::{ClientMemory, Disk};
pub use mmio::{AliasHalf, Arch, DmaBuf, MachineCheck, MixedDma, Mmio, PrivateEarly, Revoke, TeeSource};
pub use spdm::{Delay, Measurement, MeasurementKind, Mutual, ProviderKind, Psk, Slot, Spdm, Value};
pub use tdisp::{
    DefaultStream, DmaFault, ForeignState, FunctionIds, Ide, KeysAtLock, LockFlag, OptionalRequest,
    ReservedFields, SecureOn, Tdisp, UnlockedMsix,
};
pub use virtio::{Virtio, VirtioWindow, WhileLocked, WhileUnlocked};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Identity in configuration space, shared by all functions.
    pub pci: Pci,
    /// The DOE mailbox.
    pub doe: Doe,
    /// The SPDM responder.
    pub spdm: Spdm,
    /// The IDE capability and its streams.
    pub ide: Ide,
    /// The device security manager.
    pub tdisp: Tdisp,
    /// CXL's own protocols.
    pub cxl: Cxl,
    /// BARs: the gate, and what is given away of their memory.
    pub mmio: Mmio,
    /// The virtio block device.
    pub disk: Disk,
    /// One table per function; the n-th belongs to the n-th `--socket`.
    #[serde(rename = "function")]
    pub functions: Vec<Function>,
}

/// `[pci]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pci {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, 24 bit. 0x120000 is a processing accelerator, which no stock driver claims.
    pub class: u32,
    /// Subsystem Vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Device Serial Number, at most 2^63 − 1 in a TOML file. It is in the certificates, too.
    pub serial: u64,
    /// Alternative Routing-ID Interpretation: up to 256 functions. QEMU hides it and shows 8.
    pub ari: bool,
    /// Address Translation Services. The functions translate nothing, but can be told that an address is a translated one.
    pub ats: bool,
}

impl Default for Pci {
    fn default() -> Self {
        Self {
            vendor: 0x1234,
            device: 0x7D15,
            revision: 1,
            class: 0x12_00_00,
            subsystem_vendor: 0x1234,
            subsystem: 0x0001,
            serial: 0x027D_1500_0000_0001,
            ari: false,
            ats: false,
        }
    }
}

/// `[doe]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Doe {
    /// What an object whose length does not match gets: `silent` or `error`.
    pub malformed: Malformed,
}

/// `[cxl]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cxl {
    /// Who gets answers to CXL IDE_KM and TSP, which then say that there is no CXL link and no memory.
    pub respond: CxlRespond,
}

/// When CXL's protocols are answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CxlRespond {
    /// By a device that has only the SPDM socket; one that is plugged in refuses them as unsupported.
    #[default]
    Auto,
    /// By any device.
    Always,
    /// By none.
    Never,
}

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The test function: registers, a DMA engine, memory.
    #[default]
    Test,
    /// A virtio block device. Its identity in configuration space is virtio's own, whatever `[pci]` says, but for the serial number.
    #[serde(rename = "virtio-blk")]
    VirtioBlk,
}

/// `[[function]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Function {
    /// What the function does.
    pub kind: Kind,
    /// MSI-X (true) or INTA# (false). QEMU 11.1 aborts when a vfio-user device with MSI-X is unplugged. With BARs of the file's
    /// own, what counts is whether one has an MSI-X table.
    pub msix: bool,
    /// The last pages (4 KiB) of the default layout's private memory that SET_MMIO_ATTRIBUTE may share, 0–127.
    pub updatable_pages: u32,
    /// DEVICE_SPECIFIC_INFO of the interface report, in hexadecimal.
    pub device_info: String,
    /// A virtio function's own settings.
    #[serde(skip_serializing_if = "is_default")]
    pub virtio: Virtio,
    /// The disk of `kind = "virtio-blk"`, as in `[disk]`; without it, 64 MiB of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Another disk that is there in RUN instead, so that one can see in which world one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_disk: Option<Disk>,
    /// What the BARs consist of. None: the default layout.
    #[serde(rename = "bar", skip_serializing_if = "Vec::is_empty")]
    pub bars: Vec<Bar>,
}

impl Default for Function {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            msix: true,
            updatable_pages: 0,
            device_info: String::new(),
            virtio: Virtio::default(),
            disk: None,
            private_disk: None,
            bars: Vec::new(),
        }
    }
}

impl Function {
    /// DEVICE_SPECIFIC_INFO as bytes; `None` if it is not hexadecimal.
    pub fn device_info(&self) -> Option<Vec<u8>> {
        spdm::bytes(&self.device_info)
    }

    fn check(&self, number: usize) -> Result<(), ConfigError> {
        let field = format!("function[{number}].device_info");
        match self.device_info() {
            None => Err(ConfigError::value(field, "not an even number of hexadecimal digits")),
            Some(bytes) if bytes.len() > 32768 => {
                Err(ConfigError::value(field, format!("{} bytes; there can be 32768", bytes.len())))
            }
            Some(_) => Ok(()),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown field, or a value of the wrong type; the text names line and field.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        source: Box<toml::de::Error>,
    },
    /// A value outside its limits.
    #[error("{field}: {problem}")]
    Value {
        /// The field, as a path of names.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl ConfigError {
    /// A value that `field` cannot have.
    pub fn value(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Value { field: field.into(), problem: problem.to_string() }
    }
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        // Absolute, so that what is printed means the same wherever it is put.
        let here =
            std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let directory = here.parent().unwrap_or(Path::new("/"));
        config.spdm.locate(directory);
        config.disk.locate(directory);
        for function in &mut config.functions {
            function.locate_files(directory);
            function.locate_disks(directory);
        }
        config.check()?;
        Ok(config)
    }

    /// One `[[function]]` per socket: default test functions where the file has none at all.
    pub fn for_sockets(mut self, sockets: usize) -> Result<Self, ConfigError> {
        if self.functions.is_empty() {
            self.functions = vec![Function::default(); sockets];
        }
        if self.functions.len() != sockets {
            return Err(ConfigError::value(
                "function",
                format!(
                    "the file has {} [[function]] tables and the command line {sockets} --socket: each function \
                     needs its own socket",
                    self.functions.len()
                ),
            ));
        }
        Ok(self)
    }

    /// The configuration with everything in `[spdm]` said that depends on whether the device is `standalone` or plugged into
    /// a VMM. Elsewhere, "auto" stays "auto".
    #[must_use]
    pub fn effective(self, standalone: bool) -> Self {
        Self { spdm: self.spdm.effective(standalone), ..self }
    }

    /// The configuration as a file that can be loaded again; identifiers in hexadecimal.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        const HEX: &[&str] =
            &["vendor", "device", "class", "subsystem_vendor", "subsystem", "serial", "requester_id"];
        let mut out = String::new();
        for line in toml::to_string(self)?.lines() {
            match line.split_once(" = ") {
                Some((key, value)) if HEX.contains(&key) => match value.parse::<u64>() {
                    Ok(number) => out.push_str(&format!("{key} = {number:#06x}")),
                    Err(_) => out.push_str(line),
                },
                _ => out.push_str(line),
            }
            out.push('\n');
        }
        Ok(out)
    }

    /// Limits that the types do not express.
    pub fn check(&self) -> Result<(), ConfigError> {
        within("pci.class", self.pci.class.into(), 0, 0xFF_FFFF)?;
        // TOML integers are signed: a larger serial could be used but not printed.
        within("pci.serial", self.pci.serial, 0, i64::MAX as u64)?;
        self.ide.check()?;
        self.tdisp.check(self.pci.ats)?;
        self.mmio.check()?;
        self.disk.check("disk")?;
        let most = if self.pci.ari { 256 } else { 8 };
        if self.functions.len() > most {
            return Err(ConfigError::value(
                "function",
                format!("a device has at most {most} functions (256 with pci.ari = true)"),
            ));
        }
        let updates = self.tdisp.requests.contains(&OptionalRequest::MmioAttribute);
        for (number, function) in self.functions.iter().enumerate() {
            function.check(number)?;
            function.check_virtio(number, &self.mmio)?;
            function.check_bars(number, updates)?;
            function.check_revocation(number, &self.mmio)?;
        }
        self.spdm.check()
    }
}

fn within(field: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(field, format!("{value} is outside {low}–{high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn an_empty_file_is_the_default_device() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_printed_can_be_loaded() {
        let config = Config::default().for_sockets(2).unwrap();
        let text = config.to_toml().unwrap();
        assert!(text.contains("vendor = 0x1234"), "{text}");
        assert_eq!(load(&text).unwrap(), config);
    }

    #[test]
    fn mistakes_name_line_and_field() {
        for (text, expected) in [
            ("[pci]\nvendro = 1\n", &["line 2", "vendro"][..]),
            ("\n\n[pci]\nvendor = 70000\n", &["line 4", "vendor"]),
            ("[[function]]\nkind = \"disk\"\n", &["line 2", "disk", "test"]),
            ("[spdm]\nsessions = 0\n", &["spdm.sessions", "1–64"]),
            ("[ide]\nselective_streams = 0", &["ide.selective_streams", "1–255"]),
            ("[tdisp]\nrequests = [\"p2p\"]", &["tdisp.lock_flags", "bind-p2p"]),
            ("[tdisp]\nrequests = [\"p2p\"]\nlock_flags = [\"bind-p2p\"]", &["pci.ats"]),
            ("[tdisp]\nlock_flags = [\"bind-p2p\"]", &["tdisp.lock_flags", "tdisp.requests"]),
            ("[tdisp]\nsegment = 1", &["tdisp.segment", "requester_id"]),
            ("[[function]]\nupdatable_pages = 1", &["function[0].updatable_pages", "mmio-attribute"]),
            (
                "[mmio]\ndmabuf = \"udmabuf\"\nrevoke = \"sigbus\"",
                &["mmio.dmabuf", "sealed against shrinking", "revoke = \"sigbus\""],
            ),
            (
                "[mmio]\ndmabuf = \"udmabuf\"\narch = \"tdx\"",
                &["mmio.dmabuf", "the default of arch = \"tdx\""],
            ),
            (
                "[mmio]\ndmabuf = \"udmabuf\"\n[[function]]\nmsix = false\n[[function.bar]]\nindex = 2\n\
                 [[function.bar.range]]\nkind = \"memory\"\nsize = \"4K\"\nside = \"private\"\nrevoke = \"sigbus\"",
                &["function[0].bar[0].range[0].revoke", "mmio.dmabuf"],
            ),
            ("[mmio]\ndmabuf = \"dma-buf\"", &["line 2", "dma-buf", "`udmabuf`"]),
            ("[tdisp]\nfunction_ids = \"pinned\"", &["tdisp.requester_id"]),
            ("[[function]]\ndevice_info = \"0\"", &["function[0].device_info"]),
            ("[[function]]\nupdatable_pages = 128", &["function[0].updatable_pages", "0–127"]),
            (
                "[[spdm.measurement]]\nindex = 0\nkind = \"immutable-rom\"\nvalue = \"x\"",
                &["spdm.measurement[0].index"],
            ),
            ("[[spdm.measurement]]\nindex = 1\nvalue = \"x\"", &["line 1", "kind"]),
            ("[spdm]\nversions = [\"1.3\", \"1.9\"]", &["line 2", "1.9", "\"1.2\", \"1.3\""]),
            ("[spdm]\nhashes = [\"sha1\"]", &["line 2", "sha1", "sha384"]),
            ("[spdm]\nversions = []", &["spdm.versions"]),
            ("[spdm.mutual]\nslot = 8", &["spdm.mutual.slot", "0–7"]),
            (
                "[[spdm.delay]]\nrequest = \"HELLO\"\nexponent = 1\nwait = \"busy\"",
                &["spdm.delay[0].request", "CHALLENGE"],
            ),
            ("[[spdm.slot]]\nnumber = 8", &["spdm.slot[0].number", "0–7"]),
            ("[[spdm.slot]]\n[[spdm.slot]]\n", &["spdm.slot[1].number", "0 is there twice"]),
            ("[[spdm.slot]]\nchain = \"a.pem\"", &["spdm.slot[0].private_key", "together"]),
            (
                "[[spdm.slot]]\nauthority_key = \"a\"\nmodel = \"alias\"",
                &["spdm.slot[0].authority_key", "chain"],
            ),
            (
                "[[spdm.slot]]\nchain = \"c\"\nprivate_key = \"k\"\nauthority_key = \"a\"",
                &["spdm.slot[0].authority_key", "alias"],
            ),
            (
                "[[spdm.measurement]]\nindex = 1\nkind = \"immutable-rom\"\nhex = \"0\"",
                &["spdm.measurement[0].value", "exactly one"],
            ),
            (
                "[[spdm.measurement]]\nindex = 1\nkind = \"immutable-rom\"\nhex = \"00\"\nvalue = \"x\"",
                &["spdm.measurement[0].value", "exactly one"],
            ),
            (
                "[[spdm.measurement]]\nindex = 253\nkind = \"immutable-rom\"\nhex = \"00\"",
                &["spdm.measurement[0].index", "1–239"],
            ),
            ("[spdm.capabilities]\npsk = \"with-context\"", &["spdm.capabilities.psk", "[[spdm.psk]]"]),
            (
                "[spdm.capabilities]\nchunks = true\n[[spdm.psk]]\nhint = \"h\"\nfile = \"f\"",
                &["spdm.capabilities.psk", "with-context"],
            ),
            (
                "[spdm.capabilities]\nalias_certificates = true",
                &["spdm.capabilities.alias_certificates", "model"],
            ),
            (
                "[spdm]\nmeasurement = []\n[spdm.capabilities]\nmeasurement_log = true",
                &["spdm.capabilities.measurement_log", "[[spdm.measurement]]"],
            ),
            (
                "[spdm]\nheartbeat_seconds = 9\n[spdm.capabilities]\nheartbeat = false",
                &["spdm.capabilities.heartbeat", "heartbeat_seconds"],
            ),
            ("[cxl]\nrespond = \"maybe\"", &["line 2", "maybe", "`always`"]),
            ("[tdisp]\nkeys_at_lock = \"none\"", &["line 2", "none", "`in-use`", "`rehearsed`"]),
            ("[disk]\npth = \"a\"", &["line 2", "pth", "`path`"]),
            ("[disk]\nsize = \"1X\"", &["line 2", "1X"]),
            ("[disk]\nblock_size = 8", &["disk.block_size", "512"]),
            ("[disk]\ndirect = true", &["disk.direct", "memory"]),
            ("[[function]]\ndisk.size = \"1M\"", &["function[0].disk", "virtio-blk"]),
            ("[[function]]\nkind = \"virtio-blk\"\ndisk.queues = 300", &["function[0].disk.queues", "1"]),
            (
                "[[function]]\nkind = \"virtio-blk\"\nvirtio.queue_size = 3",
                &["function[0].virtio.queue_size", "power of two"],
            ),
            (
                "[[function]]\nkind = \"virtio-blk\"\nvirtio.window = \"tee\"",
                &["function[0].virtio.window", "alias"],
            ),
            (
                "[[function]]\nkind = \"virtio-blk\"\ndisk.queues = 2\nprivate_disk.size = \"1M\"",
                &["function[0].private_disk.queues", "2"],
            ),
            (
                "[[function]]\nkind = \"virtio-blk\"\ndisk.poll_us = 5",
                &["function[0].disk.poll_us", "--vhost-user"],
            ),
            ("[[function]]\nkind = \"virtio-blk\"\nvirtio.locked = \"open\"", &["line 3", "open", "`break`"]),
            ("nonsense", &["line 1"]),
        ] {
            let error = load(text).unwrap_err().to_string();
            for part in expected {
                assert!(error.contains(part), "{text:?}: {error}");
            }
        }
        assert!(
            Config::load(Path::new("/nowhere/t.toml")).unwrap_err().to_string().contains("/nowhere/t.toml")
        );
    }

    #[test]
    fn files_are_named_from_where_the_configuration_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device.toml");
        let text = "[[spdm.slot]]\nchain = \"c\"\nprivate_key = \"/k\"\n\
                    [[spdm.measurement]]\nindex = 253\nkind = \"manifest\"\nfile = \"m\"\n\
                    [[spdm.psk]]\nhint = \"h\"\nfile = \"p\"\n";
        std::fs::write(&path, text).unwrap();
        let spdm = Config::load(&path).unwrap().spdm;
        let here = |name: &str| directory.path().join(name);
        assert_eq!(spdm.slots[0].chain, Some(here("c")));
        assert_eq!(spdm.slots[0].private_key.as_deref(), Some(Path::new("/k")));
        assert_eq!(spdm.measurements[0].source(), Some(Value::File(here("m"))));
        assert_eq!(spdm.psk[0].file, here("p"));
    }

    #[test]
    fn what_is_offered_depends_on_the_profile_unless_it_is_said() {
        use ::spdm::wire::Version;
        let spdm = Config::default().spdm;
        assert_eq!(spdm.versions(true), Version::IMPLEMENTED);
        assert_eq!(spdm.versions(false).first(), Some(&Version::V1_2));
        let spdm = load("[spdm]\nversions = [\"1.1\"]").unwrap().spdm;
        assert_eq!((spdm.versions(true), spdm.versions(false)), (vec![Version::V1_1], vec![Version::V1_1]));
    }

    #[test]
    fn what_depends_on_the_profile_can_be_said_instead() {
        let texts = [
            "",
            "[spdm]\nmeasurement = []",
            "[[spdm.psk]]\nhint = \"h\"\nfile = \"/psk\"",
            "[spdm.capabilities]\nheartbeat = false",
            "[[spdm.slot]]\nmodel = \"alias\"",
        ];
        for (text, standalone) in texts.iter().flat_map(|text| [(text, false), (text, true)]) {
            let config = load(text).unwrap();
            let said = config.clone().effective(standalone);
            let printed = load(&said.to_toml().unwrap()).unwrap();
            assert_eq!(printed, said, "{text}");
            for other in [false, true] {
                assert_eq!(printed.spdm.versions(other), config.spdm.versions(standalone), "{text}");
                assert_eq!(printed.spdm.heartbeat(other), config.spdm.heartbeat(standalone), "{text}");
                assert_eq!(printed.spdm.capabilities(other), config.spdm.capabilities(standalone), "{text}");
            }
        }
    }

    #[test]
    fn every_function_has_a_socket() {
        let config = load("[[function]]\nmsix = false\n[[function]]\n").unwrap();
        assert!(config.clone().for_sockets(1).unwrap_err().to_string().contains("2 [[function]] tables"));
        let config = config.for_sockets(2).unwrap();
        assert_eq!((config.functions[0].msix, config.functions[1].msix), (false, true));
    }
}
