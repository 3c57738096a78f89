//! A guest in the guest: the testbed's QEMU and kernel once more, run by the outer guest's KVM. The outer guest has them by 9p, and
//! hands out the inner one's command port by virtio-serial.
#![allow(clippy::panic, reason = "what fails here is the test")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_config::{Initramfs, Machine, Nested, Output};
use serde_json::json;

use super::{Prepared, Scene, Stage, or_fail};

/// Programs may take this long in there.
const LONG: Duration = Duration::from_secs(120);
/// Kernel modules of the outer guest: processor, files, and the assignment of devices.
const MODULES: [&str; 5] = ["kvm-amd", "9p", "9pnet_virtio", "vfio-pci", "vfio_iommu_type1"];
/// What the outer guest needs in MiB: the inner one's memory, QEMU, and what of its files the page cache keeps.
const MEMORY: u32 = 1280;

/// Scripts of the outer guest. `inner ARGUMENT…` starts the inner one, whose process id is in /run/inner.pid; its QMP takes lines from a
/// FIFO, and answers into a file. Mitigations against other guests' speculation are many exits to the outer kernel, and nobody is there.
const WORDS: &str = r#"
mount_inner() {
    mkdir -p /testbed /inner
    options=trans=virtio,version=9p2000.L,msize=512000
    mount -t 9p -o ro,cache=loose,$options testbed /testbed
    mount -t 9p -o $options inner /inner
}
inner() {
    mkfifo /run/qmp.in /run/qmp.out
    cat /run/qmp.out >/inner/qmp.log &
    TMPDIR=/run /testbed/bin/qemu-system-x86_64 -machine q35 -accel kvm -cpu host -m 256 \
        -display none -nodefaults -no-user-config -kernel /inner/vmlinuz -initrd /inner/initramfs \
        -append "console=ttyS0 loglevel=5 panic=0 no_timer_check mitigations=off tdispd.mark=MARK tdispd.idle=600" \
        -serial file:/inner/console.log -chardev pipe,id=shell,path=$(ls /dev/vport*) -serial chardev:shell \
        -chardev pipe,id=qmp,path=/run/qmp -mon chardev=qmp,mode=control \
        -device pcie-root-port,id=slot0,chassis=1,slot=1 -device pcie-root-port,id=slot1,chassis=2,slot=2 \
        "$@" </dev/null >/inner/qemu.log 2>&1 &
    echo $! >/run/inner.pid
}
"#;

/// An inner guest that takes commands.
pub struct Inner {
    nested: Nested,
    directory: PathBuf,
}

/// Modules and programs of the inner guest.
pub(super) struct InnerScene {
    modules: Vec<String>,
}

impl Scene {
    /// The guest can run another one in it, which has `tdispctl` and these kernel modules. Functions are plugged in later: the kernels'
    /// own virtio driver would take one that is there from the start, and wait for ever for a device that is not in RUN.
    #[must_use]
    pub fn nested(mut self, modules: &[&str]) -> Self {
        self.machine.processor = Some("EPYC-v4".to_owned());
        self.machine.memory = MEMORY;
        self.machine.iommu = true;
        self.modules.extend(MODULES.map(str::to_owned));
        self.nested = Some(InnerScene { modules: modules.iter().map(|&name| name.to_owned()).collect() });
        self
    }
}

impl InnerScene {
    /// What the outer guest gets to see of the host: the testbed, and a directory with the inner guest's kernel.
    pub(super) fn prepare(&self, prepared: &Prepared, directory: &Path, socket: &Path) -> Vec<OsString> {
        let share = directory.join("inner");
        or_fail(fs::create_dir_all(&share), "the inner guest's directory");
        let initramfs = Initramfs::new(&prepared.testbed).program("tdispctl", &prepared.programs.tdispctl);
        let initramfs = self.modules.iter().fold(initramfs, |initramfs, name| initramfs.module(name));
        let image = or_fail(initramfs.build(), "the inner guest's initramfs");
        or_fail(fs::write(share.join("initramfs"), image), "the inner guest's initramfs");
        or_fail(fs::copy(&prepared.testbed.kernel, share.join("vmlinuz")), "the inner guest's kernel");
        let testbed = prepared.testbed.tools.parent().unwrap_or(Path::new("/"));
        let export = |path: &Path, tag: &str, more: &str| {
            format!("local,path={},mount_tag={tag},security_model=none{more}", path.display())
        };
        let words = [
            "-virtfs".to_owned(),
            export(testbed, "testbed", ",readonly=on,multidevs=remap"),
            "-virtfs".to_owned(),
            export(&share, "inner", ""),
            "-chardev".to_owned(),
            format!("socket,id=inner,path={},server=on,wait=off", socket.display()),
            "-device".to_owned(),
            "virtio-serial-pci".to_owned(),
            "-device".to_owned(),
            "virtserialport,chardev=inner,name=inner".to_owned(),
        ];
        words.into_iter().map(OsString::from).collect()
    }
}

impl Stage {
    /// Boots the inner guest, with further arguments for its QEMU; `before` runs first in the outer one.
    pub fn start_inner(&mut self, arguments: &str) -> Inner {
        let directory = self.directory().join("inner");
        let console = directory.join("console.log");
        // Of an earlier run; a panic in it would be taken for one of this.
        let _ = fs::remove_file(&console);
        let socket = self.devices.sockets.path().join("inner");
        let mut nested = or_fail(Nested::connect(&socket, &console), "the inner guest's command port");
        let words = WORDS.replace("MARK", Nested::MARK);
        self.check(&format!("{words}\nset -e\nmount_inner\ninner {arguments}"));
        let ready = nested.wait_until_ready();
        // It needs them no more, and nobody else does.
        let _ = fs::remove_file(directory.join("initramfs"));
        let _ = fs::remove_file(directory.join("vmlinuz"));
        if let Err(error) = ready {
            let read = |name| fs::read_to_string(directory.join(name)).unwrap_or_default();
            self.fail(&format!("the inner guest: {error}\n{}\n{}", read("qemu.log"), read("console.log")));
        }
        Inner { nested, directory }
    }

    /// Plugs a function of the outer guest into a slot of the inner one, 0 or 1.
    pub fn assign(&mut self, inner: &mut Inner, function: &str, slot: usize) {
        // Asked for anew each time: the first is what QMP begins with, and the others are errors that nobody minds.
        let device = json!({ "execute": "device_add", "arguments": {
            "driver": "vfio-pci", "host": function, "bus": format!("slot{slot}"), "id": format!("assigned{slot}"),
        }});
        self.check(&format!(
            "cat >/run/qmp.in <<'END'\n{{\"execute\": \"qmp_capabilities\"}}\n{device}\nEND"
        ));
        let address = Machine::address(slot, 0);
        inner.check(&format!(
            "for i in $(seq 300); do [ -e /sys/bus/pci/devices/{address}/resource ] && exit 0; sleep 0.1; done; exit 1"
        ));
    }
}

impl Inner {
    /// Runs a script; any exit code is an answer.
    pub fn run(&mut self, script: &str) -> Output {
        or_fail(self.nested.run(script, LONG), "the inner guest")
    }

    /// Runs a script that has to succeed, and returns its standard output.
    pub fn check(&mut self, script: &str) -> String {
        let Output { code, stdout, stderr } = self.run(script);
        assert_eq!(code, 0, "in the inner guest, '{script}' ended with {code}\n{stdout}{stderr}");
        stdout
    }

    /// The kernel's log so far, raw; it stays with the others.
    pub fn kernel_log(&mut self) -> String {
        let log = self.check("dmesg -r");
        or_fail(fs::write(self.directory.join("kernel.log"), &log), "the inner guest's kernel log");
        log
    }
}
