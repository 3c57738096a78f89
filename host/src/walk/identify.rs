//! Who the device is: negotiation, certificates, proof of the key, signed measurements.

use spdm::identity::PciName;
use spdm::requester::{
    ConnectionInfo, Measurement, MeasurementQuery, MeasurementReport, PeerCertificate, Trust,
};
use spdm::wire::{ContentChanged, MeasurementOperation, ResponderFlags, SummaryType};
use x509_parser::parse_x509_certificate;

use super::link::failed;
use super::{Seen, Walk};
use crate::error::{Error, Result};
use crate::output::record::{Fact, Layer};
use crate::output::{Item, hex};
use crate::pci::ConfigSpace;
use crate::pci::capabilities::Inventory;

/// Subsystem Vendor ID and Subsystem ID of a type 0 header.
const SUBSYSTEM: u16 = 0x2c;

impl Walk {
    /// Negotiates and verifies the device's identity; `verbose` shows certificates and measurements.
    pub(super) fn identify(&mut self, verbose: bool) -> Result<()> {
        if self.requester.session().is_some() {
            return Err(Error::Usage(
                "identify negotiates anew, which would end the session; end it first".into(),
            ));
        }
        self.discover()?;
        let info = self.connect()?;
        if let Some(certificate) = self.authenticate(&info)? {
            if verbose {
                self.show_certificates(&certificate);
            }
            self.compare_name(&certificate)?;
        }
        self.challenge(&info)?;
        let report = self.measurements(&info)?;
        if verbose && let Some(report) = report {
            self.output.tell(&Item::Facts("measurements", &measurement_facts(&report.measurements)));
        }
        if verbose {
            self.show_inventory(&info)?;
        }
        Ok(())
    }

    /// The responder's certificate; `None` if it has none, and a pre-shared key stands for it.
    pub(super) fn authenticate(&mut self, info: &ConnectionInfo) -> Result<Option<PeerCertificate>> {
        if self.options.credentials.psk_file.is_some() && !info.capabilities.has(ResponderFlags::CERT) {
            return Ok(None);
        }
        self.certificate().map(Some)
    }

    /// VERSION, CAPABILITIES, ALGORITHMS.
    pub(super) fn connect(&mut self) -> Result<ConnectionInfo> {
        self.step(Layer::Spdm, "VERSION, CAPABILITIES, ALGORITHMS", "SPDM 1.2 to 1.4", |walk| {
            let info = walk.spdm()?.connect().map_err(failed)?;
            let mut text = format!("SPDM {}", info.version);
            if let Some(signature) = info.algorithms.signature {
                text.push_str(&format!(", {signature:?}"));
            }
            text.push_str(&format!(", {:?}", info.algorithms.hash));
            if let (Some(group), Some(aead)) = (info.algorithms.group, info.algorithms.aead) {
                let kind = if group.is_kem() { "" } else { "ECDHE " };
                text.push_str(&format!(", {kind}{group:?}, {aead:?}"));
            }
            Ok(Seen::good(info, text))
        })
    }

    /// DIGESTS and CERTIFICATE, with the chain verified.
    pub(super) fn certificate(&mut self) -> Result<PeerCertificate> {
        let slot = self.options.slot;
        self.step(Layer::Spdm, "DIGESTS", &format!("a digest for slot {slot}"), |walk| {
            let digests = walk.spdm()?.digests().map_err(failed)?;
            let slots: Vec<_> = digests.digests.iter().map(|(slot, _)| slot.to_string()).collect();
            let good = digests.digests.iter().any(|(found, _)| *found == slot);
            Ok(Seen::checked((), format!("slots {}", slots.join(" ")), good))
        })?;
        self.step(Layer::Spdm, "CERTIFICATE", "a chain that verifies up to a trusted root", |walk| {
            let found = walk.spdm()?.certificate(slot).map_err(failed)?;
            let trust = match found.trust {
                Trust::Pinned => "root is the one given",
                Trust::FirstUse => "root trusted on first use",
            };
            let text = format!("{} certificates, {trust}", found.chain.certificates.len());
            walk.chain = Some(found.clone());
            Ok(Seen::good(found, text))
        })
    }

    /// The leaf's PCIe subject alternative name against configuration space (PCIe 6.1 §6.31.3).
    fn compare_name(&mut self, certificate: &PeerCertificate) -> Result<()> {
        let Some(inventory) = self.found()?.inventory.clone() else { return Ok(()) };
        let Some(config) = self.transport.config() else { return Ok(()) };
        let expected = name_of(config, &inventory)?.to_string();
        let seen = certificate.chain.pci_name.clone();
        self.step(Layer::Spdm, "subject alternative name", &expected, |_| {
            Ok(match seen {
                Some(name) => {
                    let same = name == expected;
                    Seen::checked((), if same { "names this function".into() } else { name }, same)
                }
                None => Seen::skipped((), "the leaf names no PCIe function"),
            })
        })
    }

    fn challenge(&mut self, info: &ConnectionInfo) -> Result<()> {
        let slot = self.options.slot;
        let capable = info.capabilities.has(ResponderFlags::CHAL);
        self.step(Layer::Spdm, "CHALLENGE", "a signature by the leaf's key", |walk| {
            if !capable {
                return Ok(Seen::skipped((), "the responder does not offer it"));
            }
            let summary = if info.capabilities.any(ResponderFlags::MEAS_SIG | ResponderFlags::MEAS_NO_SIG) {
                SummaryType::All
            } else {
                SummaryType::None
            };
            walk.spdm()?.challenge(slot, summary).map_err(failed)?;
            Ok(Seen::good((), "signature verified"))
        })
    }

    fn measurements(&mut self, info: &ConnectionInfo) -> Result<Option<MeasurementReport>> {
        let signed_by = info.capabilities.has(ResponderFlags::MEAS_SIG).then_some(self.options.slot);
        let capable = info.capabilities.any(ResponderFlags::MEAS_SIG | ResponderFlags::MEAS_NO_SIG);
        self.step(Layer::Spdm, "MEASUREMENTS", "all of them, signed", |walk| {
            if !capable {
                return Ok(Seen::skipped(None, "the responder has none"));
            }
            let query = MeasurementQuery { operation: MeasurementOperation::All, raw: false, signed_by };
            let report = walk.spdm()?.measurements(query).map_err(failed)?;
            let count = report.measurements.len();
            let text = match report.signed {
                None => format!("{count}, not signed"),
                Some(ContentChanged::Changed) => format!("{count}, signature verified, changed meanwhile"),
                Some(ContentChanged::Unchanged | ContentChanged::NotDetected) => {
                    format!("{count}, signature verified")
                }
            };
            Ok(Seen::good(Some(report), text))
        })
    }

    fn show_certificates(&mut self, found: &PeerCertificate) {
        let facts = vec![
            ("chain digest".into(), hex(&found.chain_digest)),
            (format!("root hash ({} bits)", found.root_digest.len() * 8), hex(&found.root_digest)),
            (
                "trust".into(),
                match found.trust {
                    Trust::Pinned => "the root is the one given".into(),
                    Trust::FirstUse => "on first use: pin it with --root-hash".into(),
                },
            ),
        ];
        self.output.tell(&Item::Facts(&format!("certificate chain of slot {}", found.slot), &facts));
        for (index, der) in found.chain.certificates.iter().enumerate() {
            let mut facts = certificate_facts(der);
            if index + 1 == found.chain.certificates.len()
                && let Some(name) = &found.chain.pci_name
            {
                facts.push(("PCIe name".into(), name.clone()));
            }
            self.output.tell(&Item::Facts(&format!("certificate {index}"), &facts));
        }
    }
}

/// The name configuration space gives this function.
pub(crate) fn name_of(config: &mut dyn ConfigSpace, inventory: &Inventory) -> Result<PciName> {
    let [a, b, c, d] = config.read32(SUBSYSTEM)?.to_le_bytes();
    Ok(PciName {
        vendor: inventory.vendor,
        device: inventory.device,
        class: inventory.class,
        revision: inventory.revision,
        subsystem_vendor: u16::from_le_bytes([a, b]),
        subsystem: u16::from_le_bytes([c, d]),
        serial: inventory.serial,
    })
}

fn certificate_facts(der: &[u8]) -> Vec<Fact> {
    // It has been verified, so it parses; if it did not, its bytes still say something.
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return vec![("DER".into(), hex(der))];
    };
    let mut facts = vec![
        ("subject".into(), certificate.subject().to_string()),
        ("issuer".into(), certificate.issuer().to_string()),
        ("serial".into(), certificate.raw_serial_as_string()),
        ("not before".into(), certificate.validity().not_before.to_string()),
        ("not after".into(), certificate.validity().not_after.to_string()),
        ("key".into(), certificate.public_key().algorithm.algorithm.to_id_string()),
    ];
    if certificate.is_ca() {
        facts.push(("authority".into(), "yes".into()));
    }
    facts
}

fn measurement_facts(measurements: &[Measurement]) -> Vec<Fact> {
    measurements
        .iter()
        .map(|m| {
            let kind = match m.kind {
                0 => "immutable ROM",
                1 => "mutable firmware",
                2 => "hardware configuration",
                3 => "firmware configuration",
                4 => "measurement manifest",
                5 => "debug and device mode",
                6 => "firmware version",
                7 => "firmware security version",
                8 => "hash-extended measurement",
                9 => "informational",
                10 => "structured measurement manifest",
                _ => "other",
            };
            let form = if m.raw { "raw " } else { "" };
            (format!("{} {kind}", m.index), format!("{form}{}", hex(&m.value)))
        })
        .collect()
}
