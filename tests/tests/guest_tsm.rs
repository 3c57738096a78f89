//! The kernel's own PCI/TSM core with the device, through the module of `host/kmod` and `tdispctl tsm`: from connect to RUN and back,
//! and in the orders of somebody who does not wait.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use qemu_config::kbuild;
use serde_json::Value;
use tests::guest::{DEVICE, SYSFS, Scene, Stage, target_directory};

/// The root port above the device.
const PORT: &str = "0000:00:02.0";

/// What the scripts below are made of. A VM takes its lines from one FIFO and answers into another; it has both open in both
/// directions, so that neither ends between two lines.
const WORDS: &str = r#"
connect() { echo tsm0 >$sysfs/tsm/connect; }
disconnect() { echo tsm0 >$sysfs/tsm/disconnect; }
wait_for() { for i in $(seq 200); do eval "$1" && return; sleep 0.1; done; echo "no $1" >&2; exit 1; }
serve() {
    tdispctl --json tsm serve >/run/serve.log 2>&1 &
    echo $! >/run/serve.pid
    wait_for 'grep -q serving /run/serve.log'
}
end() { kill -$2 $(cat /run/$1.pid); wait_for '! [ -e /proc/$(cat /run/'$1'.pid)/exe ]'; }
vm() {
    rm -f /run/$1.in /run/$1.out
    mkfifo /run/$1.in /run/$1.out
    tdispctl --json tsm vm $device 0<>/run/$1.in 1<>/run/$1.out 2>/run/$1.log &
    echo $! >/run/$1.pid
    read -t 60 -r ready 0<>/run/$1.out || { cat /run/$1.log >&2; exit 1; }
}
ask() {
    echo "$2" 1<>/run/$1.in
    while read -t 60 -r line 0<>/run/$1.out; do
        echo "$line"
        case $line in *'"type":"summary"'*) return ;; esac
    done
    cat /run/$1.log >&2
    exit 1
}
"#;

/// Runs a script with those words; it has to succeed.
fn check(stage: &mut Stage, script: &str) -> String {
    stage.check(&format!("device={DEVICE} sysfs={SYSFS}\n{WORDS}\nset -e\n{script}"))
}

/// Runs one that has to fail, and returns what it says.
fn fails(stage: &mut Stage, script: &str) -> String {
    let output = stage.run(&format!("device={DEVICE} sysfs={SYSFS}\n{WORDS}\n{script}"));
    assert_ne!(output.code, 0, "'{script}' worked: {}", output.stdout);
    output.stderr
}

/// Has a VM carry out a line: what it told before the summary, or the error.
fn ask(stage: &mut Stage, vm: &str, line: &str) -> Result<Vec<Value>, String> {
    let text = check(stage, &format!("ask {vm} {line}"));
    let mut told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = told.pop().unwrap();
    if summary["ok"] == true { Ok(told) } else { Err(summary["error"]["message"].as_str().unwrap().into()) }
}

/// What the device knows: its TDI's state, its sessions, and the streams that are secure.
fn device(stage: &mut Stage) -> (String, usize, Vec<u64>) {
    let (code, text) = stage.control("--json state", "");
    assert_eq!(code, Some(0), "{text}");
    let state: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let streams = state["streams"].as_array().unwrap().iter().filter(|stream| stream["secure"] == true);
    let streams = streams.map(|stream| stream["stream_id"].as_u64().unwrap()).collect();
    (state["tdis"][0]["state"].as_str().unwrap().into(), state["sessions"].as_array().unwrap().len(), streams)
}

fn expect(stage: &mut Stage, when: &str, state: &str, sessions: usize, streams: &[u64]) {
    assert_eq!(device(stage), (state.to_owned(), sessions, streams.to_vec()), "{when}");
}

/// `authenticated`, `tsm/connect` and `tsm/bound` of the function.
fn sysfs(stage: &mut Stage) -> [String; 3] {
    ["authenticated", "tsm/connect", "tsm/bound"]
        .map(|file| check(stage, &format!("cat $sysfs/{file}")).trim().to_owned())
}

/// The modules for the testbed's kernel, or those in the directory that `TDISPD_KMOD` names, for the kernel that `KERNEL` does.
fn modules() -> Option<PathBuf> {
    if let Some(path) = env::var_os("TDISPD_KMOD") {
        return Some(path.into());
    }
    if env::var_os("KERNEL").is_some() {
        // Not with eprintln!, whose text the test harness keeps to itself.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED guest test tsm: no TDISPD_KMOD=DIRECTORY with modules for this KERNEL"
        );
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/kmod");
    let module = kbuild::build("tdispd_tsm", &source, &target_directory().join("kmod")).unwrap();
    Some(module.parent().unwrap().to_owned())
}

fn scene() -> Option<Scene> {
    let modules = modules()?;
    let scene = Scene::new("tsm")?.control().processor("EPYC-v4").module("kvm-amd");
    let file = |name| (name, modules.join(name));
    let [(tsm, tsm_file), (port, port_file)] = ["tdispd_tsm.ko", "ide_rootport.ko"].map(file);
    Some(scene.program(tsm, tsm_file).program(port, port_file))
}

#[test]
fn from_connect_to_run_and_back_in_every_order() {
    let Some(scene) = scene() else { return };
    let mut stage = scene.start();
    check(
        &mut stage,
        "insmod /usr/local/bin/tdispd_tsm.ko; [ -e /sys/class/tsm/tsm0 ]; setpci -s $device COMMAND=6:6",
    );
    without_a_stream(&mut stage);
    with_a_stream(&mut stage);
    stage.finish();
}

/// QEMU's root port has no IDE: the kernel sets up no stream, and the device's own registers are programmed.
fn without_a_stream(stage: &mut Stage) {
    fails(stage, "connect");
    assert_eq!(sysfs(stage), ["", "", ""]);
    check(stage, "serve; connect");
    assert_eq!(sysfs(stage), ["tsm0", "tsm0", ""]);
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[1]);
    check(stage, "dmesg | grep -q 'no IDE between'; disconnect");
    assert_eq!(sysfs(stage), ["", "", ""]);
    expect(stage, "disconnected", "CONFIG_UNLOCKED", 0, &[]);
}

fn with_a_stream(stage: &mut Stage) {
    let script = format!(
        "insmod /usr/local/bin/ide_rootport.ko port={PORT}; echo 1 >/sys/bus/pci/devices/{PORT}/remove; \
         echo 1 >/sys/bus/pci/rescan; setpci -s $device COMMAND=6:6; connect; [ -e /sys/devices/pci0000:00/stream0.0.0 ]"
    );
    check(stage, &script);
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[0]);
    check(stage, "vm a");
    println!("{:?}", ask(stage, "a", "bind"));
    println!("{:?}", device(stage));
    println!("{:?}", ask(stage, "a", "report"));
    println!("{:?}", ask(stage, "a", "start"));
    println!("{:?}", device(stage));
    println!("{:?}", ask(stage, "a", "unbind"));
    println!("{:?}", device(stage));
    println!("{}", check(stage, "cat /run/serve.log; dmesg | tail -30"));
}
