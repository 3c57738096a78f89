//! Finding out what there is: configuration space, BARs, mailboxes and what they speak, the IDE capability.

use spdm::doe::ObjectType;

use super::link::{Link, Way};
use super::{Seen, Walk};
use crate::clock::SystemClock;
use crate::doe::{Mailbox, discovery};
use crate::error::{Error, Result};
use crate::output::Item;
use crate::output::record::{Fact, Layer};
use crate::pci::bars::Bar;
use crate::pci::capabilities::{self, DoeCapability, Inventory};
use crate::pci::ide::selective_streams;
use crate::transport::Transport;

/// What discovery found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Configuration space, where there is one.
    pub(super) inventory: Option<Inventory>,
    /// Where SPDM goes.
    pub(super) way: Way,
}

/// Both kinds of SPDM object are needed for a session.
const NEEDED: [ObjectType; 2] = [ObjectType::SPDM, ObjectType::SECURED_SPDM];

impl Walk {
    /// What discovery found, if it has been made.
    pub(super) fn found(&self) -> Result<&Found> {
        self.found.as_ref().ok_or_else(|| Error::Usage("the device has not been discovered yet".into()))
    }

    /// Takes stock, tells every step, and remembers the result.
    pub(super) fn discover(&mut self) -> Result<()> {
        let found = match self.take_inventory()? {
            Some(inventory) => {
                let way = match self.mailbox_of_others() {
                    Some(way) => way,
                    None => Way::Mailbox(self.find_mailbox(&inventory)?),
                };
                self.look_at_ide(&inventory)?;
                Found { inventory: Some(inventory), way }
            }
            None => {
                let way = Way::Socket(self.timeout());
                self.step(Layer::Doe, "discovery", "SPDM and secured SPDM", |walk| {
                    let mut link = Link::new(&mut *walk.transport, way);
                    let protocols = discovery::discover(2, |object| link.object(object))?;
                    Ok(Seen::checked((), list(&protocols), speaks_spdm(&protocols)))
                })?;
                Found { inventory: None, way }
            }
        };
        self.found = Some(found);
        Ok(())
    }

    /// The way past a mailbox whose registers somebody else drives, who has made discovery as well.
    fn mailbox_of_others(&mut self) -> Option<Way> {
        let timeout = self.timeout();
        self.transport.objects().map(|_| Way::Socket(timeout))
    }

    fn take_inventory(&mut self) -> Result<Option<Inventory>> {
        if self.transport.config().is_none() {
            return Ok(None);
        }
        let inventory =
            self.step(Layer::Pci, "configuration space", "a TEE-IO device with a DOE mailbox", |walk| {
                let Some(config) = walk.transport.config() else { return Err(nothing()) };
                let inventory = capabilities::read(config)?;
                let text = format!(
                    "{:04x}:{:04x} revision {:02x}, class {:06x}{}",
                    inventory.vendor,
                    inventory.device,
                    inventory.revision,
                    inventory.class,
                    if inventory.tee_io { ", TEE-IO" } else { ", no TEE-IO" }
                );
                let good = inventory.tee_io && !inventory.doe.is_empty();
                Ok(Seen::checked(inventory, text, good))
            })?;
        let bars: Vec<_> = self.transport.memory_bars().iter().map(describe_bar).collect();
        self.step(Layer::Pci, "BARs", "memory BARs with addresses", |walk| {
            let placed = walk.transport.memory_bars().iter().all(|bar| bar.address != 0);
            Ok(Seen::checked((), bars.join(", "), placed && !bars.is_empty()))
        })?;
        let facts = facts_of(&*self.transport, &inventory);
        self.output.tell(&Item::Facts("device", &facts));
        Ok(Some(inventory))
    }

    /// Asks every mailbox what it speaks; takes the first that speaks what a session needs.
    fn find_mailbox(&mut self, inventory: &Inventory) -> Result<Mailbox> {
        let timeout = self.timeout();
        let mut chosen = None;
        for capability in &inventory.doe {
            let mailbox = Mailbox { capability: *capability, timeout };
            let DoeCapability { offset, version } = *capability;
            let protocols = self.step(
                Layer::Doe,
                &format!("mailbox at {offset:#05x}, version {version}"),
                "an answer to every discovery index",
                |walk| {
                    let clock = SystemClock::new();
                    let config = walk.transport.config().ok_or_else(nothing)?;
                    mailbox.abort(config, &clock)?;
                    let mut link = Link::new(&mut *walk.transport, Way::Mailbox(mailbox));
                    let protocols = discovery::discover(version, |object| link.object(object))?;
                    Ok(Seen::good(protocols.clone(), list(&protocols)))
                },
            )?;
            if chosen.is_none() && speaks_spdm(&protocols) {
                chosen = Some(mailbox);
            }
        }
        chosen.ok_or_else(|| Error::NoDevice("no DOE mailbox speaks both SPDM and secured SPDM".into()))
    }

    fn look_at_ide(&mut self, inventory: &Inventory) -> Result<()> {
        let Some(offset) = inventory.ide else {
            return self.step(Layer::Ide, "capability", "selective streams", |_| {
                Ok(Seen::skipped((), "there is none"))
            });
        };
        self.step(Layer::Ide, &format!("capability at {offset:#05x}"), "selective streams", |walk| {
            let config = walk.transport.config().ok_or_else(nothing)?;
            let streams = selective_streams(config, offset)?;
            let blocks: Vec<_> = streams.iter().map(|s| s.address_blocks.to_string()).collect();
            let text = format!("{} selective, address blocks {}", streams.len(), blocks.join("/"));
            Ok(Seen::good((), text))
        })
    }

    /// Discovers quietly if nobody has yet: commands that go on with a session need only the way to the mailbox.
    pub(super) fn ensure_found(&mut self) -> Result<()> {
        if self.found.is_some() {
            return Ok(());
        }
        if self.transport.config().is_none() {
            self.found = Some(Found { inventory: None, way: Way::Socket(self.timeout()) });
            return Ok(());
        }
        let timeout = self.timeout();
        let config = self.transport.config().ok_or_else(nothing)?;
        let inventory = capabilities::read(config)?;
        if let Some(way) = self.mailbox_of_others() {
            self.found = Some(Found { inventory: Some(inventory), way });
            return Ok(());
        }
        for capability in &inventory.doe {
            let way = Way::Mailbox(Mailbox { capability: *capability, timeout });
            let mut link = Link::new(&mut *self.transport, way);
            if speaks_spdm(&discovery::discover(capability.version, |object| link.object(object))?) {
                self.found = Some(Found { inventory: Some(inventory), way });
                return Ok(());
            }
        }
        Err(Error::NoDevice("no DOE mailbox speaks both SPDM and secured SPDM".into()))
    }
}

fn nothing() -> Error {
    Error::NoDevice("this target has no configuration space".into())
}

fn speaks_spdm(protocols: &[(u16, ObjectType)]) -> bool {
    NEEDED.iter().all(|kind| protocols.contains(&(spdm::doe::VENDOR_PCI_SIG, *kind)))
}

fn list(protocols: &[(u16, ObjectType)]) -> String {
    let names: Vec<_> =
        protocols.iter().map(|(vendor, kind)| format!("{vendor:04x}:{:02x}", kind.0)).collect();
    names.join(" ")
}

fn describe_bar(bar: &Bar) -> String {
    format!("BAR{} {} at {:#x}", bar.index, size(bar.size), bar.address)
}

fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}

fn facts_of(transport: &dyn Transport, inventory: &Inventory) -> Vec<Fact> {
    let hex8 = |value: Option<u8>| value.map_or("none".into(), |v| format!("{v:#04x}"));
    let hex16 = |value: Option<u16>| value.map_or("none".into(), |v| format!("{v:#05x}"));
    let mut facts = vec![
        ("target".into(), transport.describe()),
        ("PCI Express capability".into(), hex8(inventory.express)),
        ("TEE-IO".into(), if inventory.tee_io { "yes".into() } else { "no".into() }),
        ("IDE capability".into(), hex16(inventory.ide)),
        ("serial number".into(), inventory.serial.map_or("none".into(), |s| format!("{s:016x}"))),
    ];
    if let Some((table, pba)) = inventory.msix_bars {
        facts.push(("MSI-X".into(), format!("table in BAR{table}, PBA in BAR{pba}")));
    }
    facts
}
