//! `tdispctl vmm` in a guest whose kernel has the TSM of `host/kmod`: a VMM with a real VM of KVM's, by the rules of each architecture,
//! against a device that is set to the same one. Beside it a process on the host holds memory of the device, as whoever runs QEMU could.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout};

use serde_json::{Value, json};
use tests::guest::{DEVICE, SYSFS, Scene, Stage, importer, kmod};

/// BAR 2 has two ranges of each side; with `alias` its upper half is the same memory with T = 1.
const CONFIG: &str = include_str!("../../qemu-config/examples/dmabuf.toml");
/// What the VMM leaves in the first page of BAR 2 before the bind, as it lies in memory.
const HOSTS: &str = "08005740";
const ONES: &str = "ffffffff";

/// The example's configuration for an architecture.
fn config(arch: &str, strict: bool) -> String {
    let line = format!("arch = \"{arch}\"\nstrict = {strict}");
    assert!(CONFIG.contains("arch = \"tdx\""));
    CONFIG.replace("arch = \"tdx\"", &line)
}

/// Once for each boot. A device that vfio-pci has and nobody uses stays awake, so that its memory can be exported on the host.
const ONCE: &str = r#"
set -e
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
echo Y >/sys/module/vfio_pci/parameters/disable_idle_d3
insmod /usr/local/bin/tdispd_tsm.ko
tdispctl --json tsm serve >/run/serve.log 2>&1 &
for i in $(seq 100); do grep -q serving /run/serve.log && exit; sleep 0.1; done
exit 1
"#;

/// Once for each device that is plugged in.
const PREPARE: &str = r#"
set -e
setpci -s $device COMMAND=6:6
echo tsm0 >$sysfs/tsm/connect
echo vfio-pci >$sysfs/driver_override
echo $device >/sys/bus/pci/drivers_probe
"#;

/// Starts a VMM, and comes back when it waits in RUN, or has ended.
const UNTIL_RUN: &str = r#"
rm -f /run/vmm.in /run/vmm.code
mkfifo /run/vmm.in
(tdispctl --json vmm $device $arguments --hold 0<>/run/vmm.in >/run/vmm.out 2>&1; echo $? >/run/vmm.code) &
for i in $(seq 600); do grep -q -e holding -e summary /run/vmm.out && exit; sleep 0.1; done
cat /run/vmm.out >&2
exit 1
"#;

/// Has it go on, and shows what it told when it has ended.
const TO_THE_END: &str = r#"
echo >/run/vmm.in
for i in $(seq 600); do [ -s /run/vmm.code ] && break; sleep 0.1; done
cat /run/vmm.out
exit $(cat /run/vmm.code)
"#;

fn scene() -> Option<Scene> {
    let modules = kmod("vmm")?;
    let scene = Scene::new("vmm")?.config(&config("tdx", true)).control().iommu();
    let scene = scene.processor("EPYC-v4").qemu(&["-device", "edu"]).module("kvm-amd");
    let scene = scene.module("vfio-pci").module("vfio_iommu_type1").module_file(importer("vmm")?);
    Some(scene.program("tdispd_tsm.ko", modules.join("tdispd_tsm.ko")))
}

/// A script in the guest, which has to succeed.
fn script(stage: &mut Stage, arguments: &str, text: &str) -> String {
    stage.check(&format!("device={DEVICE} sysfs={SYSFS} arguments='--import {arguments}'\n{text}"))
}

/// A VMM's steps, each of which has to hold, and which go into the table.
fn steps(table: &mut String, arguments: &str, text: &str) -> Vec<Value> {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for step in lines.iter().filter(|line| line["type"] == "step") {
        assert_eq!(step["ok"], true, "{arguments}: {step}");
        let [layer, what, seen] = ["layer", "step", "seen"].map(|name| step[name].as_str().unwrap());
        writeln!(table, "{arguments:<34} {layer:<6} {what:<35} {seen}").unwrap();
    }
    lines
}

/// What a step saw.
fn seen<'a>(lines: &'a [Value], step: &str) -> &'a str {
    let line = lines.iter().find(|line| line["type"] == "step" && line["step"] == step);
    line.unwrap_or_else(|| panic!("no step '{step}' in {lines:#?}"))["seen"].as_str().unwrap()
}

/// The TDI's state, as the device has it.
fn state(stage: &mut Stage) -> String {
    let (code, text) = stage.control("--json state", "");
    assert_eq!(code, Some(0), "{text}");
    let state: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    state["tdis"][0]["state"].as_str().unwrap().into()
}

/// A process on the host that has mapped the first page of BAR 2 as it is before a bind, and keeps it.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn new(stage: &Stage) -> Self {
        let mut child = stage.control_child("--json dmabuf 0 2 shared 0x0:0x1000");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut holder = Self { child, input, output };
        assert_eq!(holder.line().unwrap()["type"], "dmabuf");
        holder
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).ok()
    }

    /// The page's first bytes; `None` if the holder did not survive the look.
    fn look(&mut self) -> Option<String> {
        writeln!(self.input, "read 0x0 4").unwrap();
        Some(self.line()?["hex"].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_vmm_by_the_rules_of_each_architecture() {
    let Some(scene) = scene() else { return };
    let mut stage = scene.start();
    let mut table = String::new();
    script(&mut stage, "", ONCE);
    script(&mut stage, "", PREPARE);
    tdx(&mut stage, &mut table);
    for (arch, meanwhile, afterwards) in [("cca", HOSTS, HOSTS), ("sev", ONES, "efbeadde")] {
        stage.exchange(&config(arch, false));
        script(&mut stage, "", PREPARE);
        left_mapped(&mut stage, arch, meanwhile, afterwards, &mut table);
        violate(&mut stage, &format!("--alias high --arch {arch} --violate"), "CONFIG_LOCKED", &mut table);
    }
    stage.exchange(&config("cca", true).replace("\"alias\"", "\"implicit\""));
    script(&mut stage, "", PREPARE);
    one_address_for_both_sides(&mut stage, &mut table);
    println!("{table}");
    std::fs::write(stage.directory().join("summary.txt"), &table).unwrap();
    stage.finish();
}

/// A strict device: whoever keeps the order of things never sees ERROR, and whoever does not, does.
fn tdx(stage: &mut Stage, table: &mut String) {
    let arguments = "--alias high --arch tdx";
    script(stage, arguments, UNTIL_RUN);
    assert_eq!(state(stage), "RUN");
    let text = script(stage, arguments, TO_THE_END);
    let lines = steps(table, arguments, &text);
    assert_eq!(seen(&lines, "the guest loads meanwhile"), "a fault at 0xc0008000");
    assert_eq!(seen(&lines, "the fault is resolved"), "0x00000000");
    let layout = &lines.iter().find(|line| line["type"] == "layout").unwrap()["layout"];
    let row = |gpa: u64, size, private, bar, offset| json!({ "gpa": gpa, "size": size, "private": private, "bar": bar, "offset": offset });
    let expected = json!([
        row(0xc000_0000, 0x1000, true, 0, 0),
        row(0xc000_8000, 0x2000, true, 2, 0),
        row(0xc000_a000, 0x2000, false, 2, 0x2000),
        row(0xc000_c000, 0x2000, true, 2, 0x4000),
        row(0xc000_e000, 0x2000, false, 2, 0x6000),
    ]);
    assert_eq!(*layout, expected);
    assert!(!stage.device_log().contains("machine check"), "{}", stage.device_log());

    violate(stage, "--alias high --arch tdx --violate", "ERROR", table);
    assert!(stage.device_log().contains("machine check"), "{}", stage.device_log());

    // A VMM does everything right, and somebody else on the host has memory of its guest's device.
    script(stage, "", "setpci -s $device COMMAND=6:6");
    let mut holder = Holder::new(stage);
    let text =
        script(stage, "--alias high --arch tdx", "tdispctl --json vmm $device $arguments || [ $? = 3 ]");
    let bind = text.lines().find(|line| line.contains(r#""step":"bind""#)).unwrap();
    assert!(bind.contains("not permitted"), "in ERROR there is nothing to bind: {text}");
    assert_eq!(holder.look(), None);
    assert_eq!(holder.child.wait().unwrap().signal(), Some(7), "SIGBUS: the pages are gone");
}

/// A mapping that must not be is touched before RUN. It shows nothing; whether that is the end of the TDI is the device's choice.
fn violate(stage: &mut Stage, arguments: &str, state: &str, table: &mut String) {
    let text = script(stage, arguments, "tdispctl --json vmm $device $arguments");
    let lines = steps(table, arguments, &text);
    assert_eq!(seen(&lines, "touch private memory, T = 0"), "all ones");
    assert_eq!(seen(&lines, "what became of it"), state);
}

/// A device that takes every access in RUN for the guest's.
fn one_address_for_both_sides(stage: &mut Stage, table: &mut String) {
    let arguments = "--arch cca";
    let text = script(stage, arguments, "tdispctl --json vmm $device $arguments");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let skipped: Vec<_> =
        lines.iter().filter(|line| line["type"] == "step" && line["ok"].is_null()).collect();
    assert!(skipped.len() == 1 && skipped[0]["seen"] == "T is not in the address", "{skipped:?}");
    let others: Vec<_> = text.lines().filter(|line| !line.contains(r#""ok":null"#)).collect();
    let lines = steps(table, arguments, &others.join("\n"));
    assert_eq!(seen(&lines, "the guest stores, private"), "0x5ec2e700");
}

/// Mappings stay through the bind, on both sides of the emulated machine.
fn left_mapped(stage: &mut Stage, arch: &str, meanwhile: &str, afterwards: &str, table: &mut String) {
    let arguments = format!("--alias high --arch {arch}");
    let mut holder = Holder::new(stage);
    script(stage, &arguments, UNTIL_RUN);
    assert_eq!(state(stage), "RUN");
    assert_eq!(holder.look().as_deref(), Some(meanwhile), "{arch}: in RUN");
    let text = script(stage, &arguments, TO_THE_END);
    let lines = steps(table, &arguments, &text);
    assert_eq!(seen(&lines, "the host reads by its old mapping"), "all ones");
    assert_eq!(seen(&lines, "the guest loads what was private"), "0x00000000");
    assert_eq!(lines.iter().any(|line| line["seen"] == "given up: they are dead"), arch == "cca");

    // The page is the host's again. Whether it is the holder's, too, is the difference.
    let page = stage.bar(DEVICE, 2);
    stage.store(page, 0xdead_beef);
    assert_eq!(holder.look().as_deref(), Some(afterwards), "{arch}: after the unbind");
    drop(holder.input);
    assert!(holder.child.wait().unwrap().success());
}
