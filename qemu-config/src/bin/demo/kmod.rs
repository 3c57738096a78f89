//! The same device under the kernel's own PCI/TSM core, by the module of `host/kmod` (its README.md says what is what).

use std::error::Error;
use std::path::{Path, PathBuf};

use qemu_config::{Guest, Initramfs, kbuild};

use crate::show::Show;

/// The processor: what KVM needs is emulated for this one.
pub(crate) const PROCESSOR: &str = "EPYC-v4";

/// What an administrator types, and what the file it is about has to say afterwards.
const CONNECTION: [(&str, &str, &str); 3] = [
    ("insmod /usr/local/bin/tdispd_tsm.ko && (tdispctl tsm serve >/run/serve.log 2>&1 &)", "tsm/connect", ""),
    ("echo tsm0 >$sysfs/tsm/connect", "authenticated", "tsm0"),
    ("echo tsm0 >$sysfs/tsm/disconnect", "authenticated", ""),
];

/// Builds the module, or finds the one that the environment names, and puts it into the guest's system.
pub(crate) fn add(initramfs: Initramfs, own_kernel: bool) -> Result<Initramfs, Box<dyn Error>> {
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kmod");
    let modules: PathBuf = kbuild::tsm_modules(&work, own_kernel)?
        .ok_or("--kmod with --kernel: KDIR=its build directory, or TDISPD_KMOD=directory of the modules")?;
    Ok(initramfs.module("kvm-amd").program("tdispd_tsm.ko", &modules.join("tdispd_tsm.ko")))
}

/// Connect, a VM that binds, reads the report, starts and unbinds, and disconnect: whether all of it went as it should.
pub(crate) fn walk(show: &mut Show, guest: &mut Guest, device: &str) -> Result<bool, Box<dyn Error>> {
    show.heading("The kernel's own walk: PCI/TSM core, tdispd_tsm.ko, tdispctl tsm serve");
    let sysfs = format!("/sys/bus/pci/devices/{device}");
    guest.check(&format!("setpci -s {device} COMMAND=6:6"))?;
    let mut good = true;
    for (number, (command, file, expected)) in CONNECTION.into_iter().enumerate() {
        show.aside(&format!("guest# {}", command.replace("$sysfs", &sysfs)));
        // Whoever serves is there when the module knows of it; the first step ends with that.
        let ready = "for i in $(seq 100); do grep -q serving /run/serve.log && break; sleep 0.1; done";
        let output = guest.run(&format!("sysfs={sysfs}; {command}; {ready}; cat {sysfs}/{file}"))?;
        let right = output.code == 0 && output.stdout.trim() == expected && output.stderr.is_empty();
        let said = if output.stderr.is_empty() { output.stdout.trim() } else { output.stderr.trim() };
        show.verdict(right, &format!("{file} says '{said}'"));
        good &= right;
        if number == 1 {
            good &= vm(show, guest, device)?;
        }
    }
    if !good {
        guest.check("cat /run/serve.log; dmesg | tail -n 20")?.lines().for_each(|line| show.quote(line));
    }
    Ok(good)
}

/// What a VMM asks for, for a VM of KVM's.
fn vm(show: &mut Show, guest: &mut Guest, device: &str) -> Result<bool, Box<dyn Error>> {
    let command = format!("printf 'bind\\nreport\\nstart\\nstate\\nunbind\\n' | tdispctl tsm vm {device}");
    show.aside(&format!("guest# {command}"));
    let colour = if show.coloured() { "CLICOLOR_FORCE=1" } else { "NO_COLOR=1" };
    let output = guest.run(&format!("export {colour}; {command}"))?;
    output.stdout.lines().chain(output.stderr.lines()).for_each(|line| show.quote(line));
    let running = output.stdout.lines().any(|line| line == "RUN");
    show.verdict(output.code == 0 && running, "bound to a VM, reported, started, unbound");
    Ok(output.code == 0 && running)
}
