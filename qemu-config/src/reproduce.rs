//! Bugs of Linux that this device has brought to light, each as a guest with just what provokes it: for whoever mends them.

use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::DaemonError;
use crate::initramfs::InitramfsError;
use crate::programs::Programs;
use crate::testbed::Testbed;
use crate::{Daemon, Guest, GuestError, Initramfs, Machine};

/// The device behind a switch whose upstream port is on the root bus: no root port is above it.
const BEHIND_A_SWITCH: [&str; 2] =
    ["x3130-upstream,id=up,bus=pcie.0,addr=0x2", "xio3130-downstream,id=down,bus=up,chassis=1,slot=1"];
/// The device itself on the root bus, where QEMU makes an integrated endpoint of it.
const ON_THE_ROOT_BUS: [&str; 0] = [];
/// Its address there, to the guest's kernel.
const INTEGRATED: &str = "0000:00:02.0";

/// The first selective stream's control register (PCIe 6.1 §7.9.26.5.2): stream id 7, enabled. Without link streams its block follows
/// the two registers for all streams.
const ENABLE: &str = "setpci -s $device ECAP0030+10.L=07000001:ff000001";

/// A bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Its name on the command line.
    pub name: &'static str,
    /// What provokes it.
    pub provoked_by: &'static str,
    /// What should happen.
    pub expected: &'static str,
    /// Where the mistake is, and which.
    pub reason: &'static str,
    topology: &'static [&'static str],
    bus: &'static str,
    address: &'static str,
    check: fn(&mut Guest) -> Result<Outcome, GuestError>,
    /// What a kernel says that does not come up.
    panics_in: Option<&'static str>,
}

/// All of them.
pub const BUGS: [Bug; 2] = [
    Bug {
        name: "ide-without-root-port",
        provoked_by: "an endpoint with Selective IDE below a switch that is on the root bus",
        expected: "IDE is of no use without a root port that has it: the capability is ignored, as without IDE there",
        reason: "drivers/pci/ide.c:110 (7.3), pci_ide_init(): 'rp = pcie_find_root_port(pdev); if (!rp->ide_cap)' is for every \
                 PCI_EXP_TYPE_ENDPOINT, and pcie_find_root_port() returns NULL where no port above is a root port",
        topology: &BEHIND_A_SWITCH,
        bus: "down",
        address: "0.0",
        check: comes_up,
        panics_in: Some("pci_ide_init"),
    },
    Bug {
        name: "ide-stream-id-leak",
        provoked_by: "an IDE stream that is enabled while its device is found, twice: remove, rescan, remove, rescan",
        expected: "the stream id is free again once the device is gone, and the device has IDE each time",
        reason: "drivers/pci/ide.c:152 (7.3), pci_ide_init(): claim_stream() takes the id out of the host bridge's ide_stream_ids_ida, and \
                 pci_ide_destroy() gives back the device's own ide_stream_ida only; the next time it fails, and pci_ide_init() \
                 returns before it sets pdev->ide_cap",
        topology: &ON_THE_ROOT_BUS,
        bus: "pcie.0",
        address: "2.0",
        check: leaks,
        panics_in: None,
    },
];

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the bug showed.
    pub showed: bool,
    /// The kernel's lines, or what there is instead.
    pub evidence: Vec<String>,
}

/// Why it is not known whether the bug is there.
#[derive(Debug, thiserror::Error)]
pub enum ReproduceError {
    /// A directory for sockets, or a file of logs.
    #[error("temporary files: {0}")]
    Files(#[from] io::Error),
    /// The device did not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The guest's system could not be put together.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// The guest failed otherwise.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl Bug {
    /// Boots a guest and looks. `logs` receives its console's text and the device's log.
    ///
    /// # Errors
    /// Where the guest does not come far enough to tell.
    pub fn reproduce(
        &self,
        testbed: &Testbed,
        programs: &Programs,
        logs: &Path,
    ) -> Result<Outcome, ReproduceError> {
        let sockets = tempfile::Builder::new().prefix("tdispd-").tempdir()?;
        let socket = sockets.path().join("f0");
        let none: [PathBuf; 0] = [];
        let log = logs.join("tdispd.log");
        let _daemon = Daemon::start(&programs.tdispd, std::slice::from_ref(&socket), none, &log)?;
        let image = Initramfs::new(testbed).build()?;
        let device = Machine::device_on(self.bus, self.address, "tdispd", false, &socket).to_string();
        let devices = self.topology.iter().map(|port| (*port).to_owned()).chain([device]);
        let qemu_arguments =
            devices.flat_map(|device| ["-device".to_owned(), device]).map(Into::into).collect();
        let machine = Machine { qemu_arguments, ..Machine::default() };
        let mut guest = match Guest::start(testbed, &image, &machine, logs) {
            Ok(guest) => guest,
            Err(error) => {
                let console = std::fs::read_to_string(logs.join("console.log")).unwrap_or_default();
                return self.panicked(&console).ok_or(error.into());
            }
        };
        let outcome = (self.check)(&mut guest)?;
        guest.quit()?;
        Ok(outcome)
    }

    /// A panic that is this bug's.
    fn panicked(&self, console: &str) -> Option<Outcome> {
        let evidence = oops(console);
        let ours = self.panics_in.is_some_and(|function| {
            evidence.iter().any(|line| line.contains("RIP:") && line.contains(function))
        });
        ours.then_some(Outcome { showed: true, evidence })
    }
}

/// The lines of an oops that say what and where.
fn oops(console: &str) -> Vec<String> {
    let telling = ["BUG:", "Oops:", "RIP:", "CR2:", "Kernel panic"];
    let from = console.lines().skip_while(|line| !line.contains("BUG:"));
    let mut trace = false;
    let lines = from.filter(|line| {
        // The trace's lines have nothing in common but their place and a `+0x`.
        trace = line.contains("<TASK>") || trace && !line.contains("</TASK>");
        telling.iter().any(|word| line.contains(word)) || trace && line.contains("+0x")
    });
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// A kernel that gets this far is fine, if it has found the device.
fn comes_up(guest: &mut Guest) -> Result<Outcome, GuestError> {
    let found = guest.check("ls -d /sys/bus/pci/devices/*/doe_features && lspci -t")?;
    Ok(Outcome { showed: false, evidence: found.lines().map(str::to_owned).collect() })
}

fn leaks(guest: &mut Guest) -> Result<Outcome, GuestError> {
    let again = format!("{ENABLE}; echo 1 >/sys/bus/pci/devices/$device/remove; echo 1 >/sys/bus/pci/rescan");
    let script = format!(
        "set -e; device={INTEGRATED}; {again}; [ -e /sys/bus/pci/devices/$device ]; {again}; [ -e /sys/bus/pci/devices/$device ]
         dmesg | grep 'Stream ID'"
    );
    let evidence: Vec<_> = guest.check(&script)?.lines().map(str::to_owned).collect();
    Ok(Outcome { showed: claim_failed(&evidence), evidence })
}

fn claim_failed(lines: &[String]) -> bool {
    lines.iter().any(|line| line.contains("Failed to claim active Stream ID 7"))
}

/// The bug with this name.
pub fn find(name: &str) -> Option<&'static Bug> {
    BUGS.iter().find(|bug| bug.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[ 1.0] tsc: fine\n[ 2.0] BUG: kernel NULL pointer dereference, address: 0\n[ 2.0] Code: 50\n\
        [ 2.0] RIP: 0010:pci_ide_init+0x319/0x340\r\n[ 2.0] Call Trace:\n[ 2.0]  <TASK>\n[ 2.0]  pci_device_add+0x2/0x6\n\
        [ 2.0]  </TASK>\n[ 2.0] Modules linked in: x+0x1\n[ 2.1] Kernel panic - not syncing: no init\n";

    #[test]
    fn an_oops_is_told_by_what_and_where() {
        let lines = oops(CONSOLE);
        let ends = ["address: 0", "0x319/0x340", "pci_device_add+0x2/0x6", "no init"];
        assert_eq!(lines.len(), ends.len(), "{lines:#?}");
        assert!(lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{lines:#?}");
    }

    #[test]
    fn a_stream_that_is_claimed_each_time_is_no_leak() {
        let active = "[ 7.4]  pci0000:00: PCI/IDE: Stream ID 7 active at init".to_owned();
        assert!(!claim_failed(&[active.clone(), active.clone()]));
        assert!(claim_failed(&[active, "pci0000:00: PCI/IDE: Failed to claim active Stream ID 7".into()]));
    }

    #[test]
    fn a_panic_elsewhere_is_not_the_bug() {
        let bug = find("ide-without-root-port").unwrap();
        assert!(bug.panicked(CONSOLE).unwrap().showed);
        assert_eq!(bug.panicked(&CONSOLE.replace("pci_ide_init", "do_mount_root")), None);
        assert_eq!(bug.panicked("[ 1.0] all is well\n"), None);
        assert_eq!(find("ide-stream-id-leak").unwrap().panicked(CONSOLE), None, "that one does not panic");
        assert!(find("none").is_none());
    }
}
