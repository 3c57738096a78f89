//! The virtual machine as QEMU's command line describes it: memory, root ports, devices over vfio-user, a vIOMMU if wanted.

use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The first root port's device number on the root bus; lower ones belong to QEMU's own devices.
const FIRST_PORT: usize = 2;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// QEMU's own translator: works everywhere.
    #[default]
    Tcg,
    /// The machine's KVM: needs `/dev/kvm`.
    Kvm,
}

/// A PCIe root port and what is plugged into it.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// The vfio-user sockets of functions 0, 1, …; none leaves the slot empty for hot-plug.
    pub functions: Vec<PathBuf>,
}

/// A guest's hardware and kernel command line. Root ports are created in the order of `slots`.
#[derive(Debug, Clone)]
pub struct Machine {
    /// TCG unless KVM is asked for.
    pub accelerator: Accelerator,
    /// QEMU's name of a processor; without one the most that the accelerator has. Linux lets devices reach each other's BARs only
    /// with processors that it knows to pass that on: with `EPYC`, not with TCG's `max`.
    pub processor: Option<String>,
    /// Guest memory in MiB; shared with the device processes.
    pub memory: u32,
    /// The root ports.
    pub slots: Vec<Slot>,
    /// Whether DMA goes through an emulated Intel IOMMU.
    pub iommu: bool,
    /// Seconds without a command after which the guest powers itself off; 0 for never.
    pub idle: u32,
    /// Further words for the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// Further arguments for QEMU.
    pub qemu_arguments: Vec<OsString>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            processor: None,
            memory: 512,
            slots: Vec::new(),
            iommu: false,
            idle: 900,
            kernel_arguments: Vec::new(),
            qemu_arguments: Vec::new(),
        }
    }
}

/// The files and sockets of one run.
#[derive(Debug)]
pub(crate) struct RunFiles<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) shell: &'a Path,
    pub(crate) qmp: &'a Path,
    /// Tells the shell's answers from everything else a program prints.
    pub(crate) mark: &'a str,
}

impl Machine {
    /// One slot with one device in it, whose functions these sockets are.
    pub fn with_device(functions: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { slots: vec![Slot { functions: functions.into_iter().collect() }], ..Self::default() }
    }

    /// The guest's address of a function in a slot: firmware numbers the root ports' buses in their order.
    pub fn address(slot: usize, function: usize) -> String {
        format!("0000:{:02x}:00.{function:x}", slot + 1)
    }

    /// What `device_add` takes to plug in a function; also what goes behind `-device`.
    pub fn device(slot: usize, function: usize, multifunction: bool, socket: &Path) -> Value {
        let (id, bus) = (format!("slot{slot}-function{function}"), format!("slot{slot}"));
        Self::device_on(&bus, &format!("0.{function:x}"), &id, multifunction, socket)
    }

    /// The same on any bus.
    pub(crate) fn device_on(bus: &str, address: &str, id: &str, multifunction: bool, socket: &Path) -> Value {
        json!({
            "driver": "vfio-user-pci",
            "id": id,
            "bus": bus,
            "addr": address,
            "multifunction": multifunction,
            "socket": { "type": "unix", "path": socket },
        })
    }

    /// QEMU's arguments for this machine.
    pub(crate) fn arguments(&self, run: &RunFiles<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| arguments.extend([OsString::from(option), value]);
        let (accelerator, most) = match self.accelerator {
            Accelerator::Tcg => ("tcg", "max"),
            Accelerator::Kvm => ("kvm", "host"),
        };
        let processor = self.processor.as_deref().unwrap_or(most);
        add("-machine", "q35,memory-backend=memory".into());
        add("-accel", accelerator.into());
        add("-cpu", processor.into());
        add("-m", format!("{}M", self.memory).into());
        // The device process reads and writes guest memory through this file.
        add("-object", format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory).into());
        add("-display", "none".into());
        add("-chardev", "stdio,id=console,signal=off".into());
        add("-serial", "chardev:console".into());
        // Both listen without holding up the start.
        add("-serial", format!("unix:{},server=on,wait=off", in_option(run.shell)).into());
        add("-qmp", format!("unix:{},server=on,wait=off", in_option(run.qmp)).into());
        if self.iommu {
            // Before the devices it translates for.
            add("-device", "intel-iommu,caching-mode=on,intremap=off".into());
        }
        for (slot, content) in self.slots.iter().enumerate() {
            let address = FIRST_PORT + slot;
            let chassis = slot + 1;
            let port = format!(
                "pcie-root-port,id=slot{slot},bus=pcie.0,addr={address:#x},chassis={chassis},slot={chassis}"
            );
            add("-device", port.into());
            for (function, path) in content.functions.iter().enumerate() {
                let multifunction = function == 0 && content.functions.len() > 1;
                let device = Self::device(slot, function, multifunction, path);
                add("-device", device.to_string().into());
            }
        }
        add("-kernel", run.kernel.into());
        add("-initrd", run.initramfs.into());
        add("-append", self.command_line(run.mark).into());
        arguments.extend(["-nodefaults".into(), "-no-user-config".into()]);
        arguments.extend(self.qemu_arguments.iter().cloned());
        arguments
    }

    fn command_line(&self, mark: &str) -> String {
        // Only warnings reach the serial console: it is slow, and dmesg has the rest.
        // Without a check of the timer: it counts ticks against the processor's speed, and where the machine is busy with other things
        // too few of them come, which the kernel takes for a reason to panic.
        let mut line = format!(
            "console=ttyS0 loglevel=5 panic=0 no_timer_check tdispd.mark={mark} tdispd.idle={}",
            self.idle
        );
        if self.iommu {
            line.push_str(" intel_iommu=on");
        }
        for argument in &self.kernel_arguments {
            line.push(' ');
            line.push_str(argument);
        }
        line
    }
}

/// A path as part of one of QEMU's options, where a comma is doubled.
fn in_option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine) -> String {
        let run = RunFiles {
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            shell: Path::new("/s,1"),
            qmp: Path::new("/q"),
            mark: "MARK",
        };
        let words: Vec<_> =
            machine.arguments(&run).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn two_functions_share_a_slot_and_only_the_first_says_so() {
        let line = line(&Machine::with_device(["/f0".into(), "/f1".into()]));
        assert!(
            line.contains("-device pcie-root-port,id=slot0,bus=pcie.0,addr=0x2,chassis=1,slot=1 -device {")
        );
        assert!(line.contains(r#""addr":"0.0","bus":"slot0","driver":"vfio-user-pci","id":"slot0-function0","multifunction":true"#));
        assert!(line.contains(r#""addr":"0.1","bus":"slot0","driver":"vfio-user-pci","id":"slot0-function1","multifunction":false"#));
        assert!(line.contains("-serial unix:/s,,1,server"));
        assert!(!line.contains("iommu"));
        assert!(line.contains("-accel tcg -cpu max "));
        assert_eq!(Machine::address(0, 1), "0000:01:00.1");
    }

    #[test]
    fn the_iommu_comes_before_the_ports_and_the_kernel_uses_it() {
        let machine = Machine {
            iommu: true,
            processor: Some("EPYC".to_owned()),
            slots: vec![Slot::default()],
            ..Machine::default()
        };
        let line = line(&machine);
        assert!(line.contains("-accel tcg -cpu EPYC "));
        assert!(line.find("intel-iommu").unwrap() < line.find("pcie-root-port").unwrap());
        assert!(line.contains("intel_iommu=on"));
    }
}
