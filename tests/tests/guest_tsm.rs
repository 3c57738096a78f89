//! The kernel's own PCI/TSM core with the device, through the module of `host/kmod` and `tdispctl tsm`: from connect to RUN and back,
//! and in the orders of somebody who does not wait.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use tests::guest::{DEVICE, SYSFS, Scene, Stage, tsm_modules};

/// The root port above the device.
const PORT: &str = "0000:00:02.0";
/// The kernel's name of the first IDE stream.
const STREAM: &str = "/sys/devices/pci0000:00/stream0.0.0";
/// What the module can be told.
const PARAMETERS: &str = "/sys/module/tdispd_tsm/parameters";

/// What the scripts below are made of. A VM takes its lines from one FIFO and answers into another; it has both open in both
/// directions, so that neither ends between two lines.
const WORDS: &str = r#"
connect() { echo tsm0 >$sysfs/tsm/connect; }
disconnect() { echo tsm0 >$sysfs/tsm/disconnect; }
wait_for() { for i in $(seq 200); do eval "$1" && return; sleep 0.1; done; echo "no $1" >&2; exit 1; }
serve() {
    tdispctl --json tsm serve "$@" >/run/serve.log 2>&1 &
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
    let text = check(stage, "cd $sysfs; cat authenticated tsm/connect tsm/bound");
    text.lines().map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
}

fn scene() -> Option<Scene> {
    let modules = tsm_modules("tsm")?;
    let scene = Scene::new("tsm")?.functions(2).control().processor("EPYC-v4").module("kvm-amd");
    let file = |name| (name, modules.join(name));
    let [(tsm, tsm_file), (port, port_file)] = ["tdispd_tsm.ko", "ide_rootport.ko"].map(file);
    Some(scene.program(tsm, tsm_file).program(port, port_file))
}

#[test]
fn from_connect_to_run_and_back_in_every_order() {
    let Some(scene) = scene() else { return };
    let mut stage = scene.start();
    without_a_stream(&mut stage);
    with_a_stream(&mut stage);
    orders_of_a_vm(&mut stage);
    a_second_function(&mut stage);
    resets(&mut stage);
    unplugged(&mut stage);
    wrong_certificates(&mut stage);
    without_an_answer(&mut stage);
    without_user_space(&mut stage);
    without_the_module(&mut stage);
    let complaints = stage.complaints();
    assert!(complaints.is_empty(), "the guest's kernel complains:\n{}", complaints.join("\n"));
    without_the_device(stage);
}

/// QEMU's root port has no IDE: the kernel sets up no stream, and the device's own registers are programmed.
fn without_a_stream(stage: &mut Stage) {
    check(
        stage,
        "insmod /usr/local/bin/tdispd_tsm.ko; [ -e /sys/class/tsm/tsm0 ]; setpci -s $device COMMAND=6:6",
    );
    assert!(fails(stage, "connect").contains("not connected"), "nobody serves");
    assert_eq!(sysfs(stage), ["", "", ""]);
    check(stage, "serve");
    assert!(fails(stage, "disconnect").contains("No such device or address"));
    check(stage, "connect");
    assert_eq!(sysfs(stage), ["tsm0", "tsm0", ""]);
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[1]);
    check(stage, "dmesg | grep -q 'no IDE between'; disconnect");
    assert_eq!(sysfs(stage), ["", "", ""]);
    expect(stage, "disconnected", "CONFIG_UNLOCKED", 0, &[]);
}

/// The whole way, with a stream that the kernel's own helpers set up.
fn with_a_stream(stage: &mut Stage) {
    let script = format!(
        "insmod /usr/local/bin/ide_rootport.ko port={PORT}; echo 1 >/sys/bus/pci/devices/{PORT}/remove
         echo 1 >/sys/bus/pci/rescan; setpci -s $device COMMAND=6:6; connect; [ -e {STREAM} ]; vm a"
    );
    check(stage, &script);
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[0]);
    check(stage, "touch /run/kvm-vm");
    for file in ["/run/kvm-vm", "/dev/kvm", "/dev/null"] {
        assert!(
            ask(stage, "a", &format!("'bind {file}'")).unwrap_err().contains("Invalid argument"),
            "{file}"
        );
    }
    ask(stage, "a", "bind").unwrap();
    assert_eq!(sysfs(stage), ["tsm0"; 3]);
    expect(stage, "bound", "CONFIG_LOCKED", 1, &[0]);
    let report = ask(stage, "a", "report").unwrap();
    let text = stage.control("--json report get 0", "").1;
    assert!(text.contains(report[0]["hex"].as_str().unwrap()), "the device's own bytes: {report:?}\n{text}");
    assert!(ask(stage, "a", "'report 8'").unwrap_err().contains("too long"), "not even a part of it");
    assert_eq!(ask(stage, "a", "state").unwrap()[0]["state"], "CONFIG_LOCKED");
    ask(stage, "a", "start").unwrap();
    expect(stage, "started", "RUN", 1, &[0]);
    assert_eq!(ask(stage, "a", "state").unwrap()[0]["state"], "RUN");
    assert!(ask(stage, "a", "start").unwrap_err().contains("Invalid argument"), "there is no nonce any more");
    ask(stage, "a", "unbind").unwrap();
    assert_eq!(sysfs(stage), ["tsm0", "tsm0", ""]);
    expect(stage, "unbound", "CONFIG_UNLOCKED", 1, &[0]);
}

fn orders_of_a_vm(stage: &mut Stage) {
    assert!(fails(stage, "connect").contains("busy"), "connected already");
    assert!(ask(stage, "a", "unbind").unwrap_err().contains("not connected"), "nothing is bound");
    assert!(ask(stage, "a", "report").unwrap_err().contains("not connected"), "nothing is bound");
    assert!(fails(stage, "rmmod tdispd_tsm").contains("unavailable"), "files are open");
    assert!(fails(stage, "tdispctl tsm serve >&2").contains("somebody serves"));
    for nonsense in
        ["echo nonsense >/dev/tdispd-tsm", "head -c 64 /dev/zero >/dev/tdispd-tsm", "cat /dev/tdispd-tsm"]
    {
        fails(stage, nonsense);
    }
    ask(stage, "a", "bind").unwrap();
    assert!(ask(stage, "a", "bind").unwrap_err().contains("busy"), "bound already");
    check(stage, "vm b");
    assert!(ask(stage, "b", "bind").unwrap_err().contains("busy"), "bound to another VM");
    assert!(ask(stage, "b", "start").unwrap_err().contains("not connected"), "not its TDI");

    // A disconnect takes the binding with it, on both sides.
    ask(stage, "a", "start").unwrap();
    check(stage, &format!("disconnect; [ ! -e {STREAM} ]; echo Y >{PARAMETERS}/enable_first"));
    assert_eq!(sysfs(stage), ["", "", ""]);
    expect(stage, "disconnected while bound", "CONFIG_UNLOCKED", 0, &[]);
    assert!(ask(stage, "a", "unbind").unwrap_err().contains("not connected"));
    assert!(ask(stage, "b", "bind").unwrap_err().contains("Invalid argument"), "there is no connection");

    // The end of a VM is the end of its binding.
    check(stage, "connect");
    ask(stage, "b", "bind").unwrap();
    expect(stage, "bound to b, with the other order of keys and enable", "CONFIG_LOCKED", 1, &[0]);
    check(stage, "end b KILL; wait_for '! grep -q tsm0 $sysfs/tsm/bound'");
    expect(stage, "b has gone", "CONFIG_UNLOCKED", 1, &[0]);
}

/// Each function is a TDI of its own, in the one session.
fn a_second_function(stage: &mut Stage) {
    check(stage, "setpci -s 01:00.1 COMMAND=6:6; device=0000:01:00.1; vm c");
    assert_eq!(check(stage, "cat $sysfs/../0000:01:00.1/tsm/dsm").trim(), DEVICE);
    ask(stage, "a", "bind").unwrap();
    ask(stage, "c", "bind").unwrap();
    let [first, second] = ["a", "c"].map(|vm| ask(stage, vm, "report").unwrap());
    assert_ne!(first[0]["hex"], second[0]["hex"], "of the function that was asked about");
    ask(stage, "a", "start").unwrap();
    assert_eq!(
        ["a", "c"].map(|vm| ask(stage, vm, "state").unwrap()[0]["state"].clone()),
        ["RUN", "CONFIG_LOCKED"]
    );
    ask(stage, "c", "start").unwrap();
    ask(stage, "a", "unbind").unwrap();
    assert_eq!(ask(stage, "c", "state").unwrap()[0]["state"], "RUN");
    check(stage, "disconnect");
    assert!(ask(stage, "c", "state").unwrap_err().contains("not connected"));
    expect(stage, "disconnected", "CONFIG_UNLOCKED", 0, &[]);
    check(stage, "end c TERM; connect");
}

/// The core has no hook for resets. A function level reset leaves session and stream alone, and a bound TDI in ERROR.
fn resets(stage: &mut Stage) {
    check(stage, "echo 1 >$sysfs/reset");
    assert_eq!(sysfs(stage), ["tsm0", "tsm0", ""]);
    ask(stage, "a", "bind").unwrap();
    ask(stage, "a", "start").unwrap();
    check(stage, "echo 1 >$sysfs/reset");
    assert_eq!(sysfs(stage), ["tsm0"; 3]);
    assert_eq!(ask(stage, "a", "state").unwrap()[0]["state"], "ERROR");
    expect(stage, "reset in RUN", "ERROR", 1, &[0]);
    ask(stage, "a", "unbind").unwrap();
    ask(stage, "a", "bind").unwrap();
    expect(stage, "bound after a reset", "CONFIG_LOCKED", 1, &[0]);
    ask(stage, "a", "unbind").unwrap();
    check(stage, "disconnect");
}

/// The device is removed while it is bound, with all that the core does then.
fn unplugged(stage: &mut Stage) {
    check(stage, "connect");
    ask(stage, "a", "bind").unwrap();
    ask(stage, "a", "start").unwrap();
    check(stage, &format!("echo 1 >$sysfs/remove; [ ! -e {STREAM} ]"));
    expect(stage, "removed", "CONFIG_UNLOCKED", 0, &[]);
    assert!(ask(stage, "a", "unbind").unwrap_err().contains("not connected"));
    assert!(ask(stage, "a", "bind").unwrap_err().contains("No such device"));
    check(stage, "echo 1 >/sys/bus/pci/rescan; setpci -s $device COMMAND=6:6; connect");
    ask(stage, "a", "bind").unwrap();
    check(stage, "disconnect");
}

/// A device that cannot prove who it is gets neither session nor keys.
fn wrong_certificates(stage: &mut Stage) {
    let other = "00".repeat(48);
    check(stage, &format!("end serve TERM; serve --root-hash {other}"));
    let said = fails(stage, "connect");
    assert!(said.contains("Key was rejected") || said.contains("error 129"), "{said}");
    expect(stage, "refused", "CONFIG_UNLOCKED", 0, &[]);
    check(stage, "end serve TERM; serve");
}

/// The kernel does not wait for ever, and whoever waits for the kernel may be killed.
fn without_an_answer(stage: &mut Stage) {
    // In the midst of it: there are more messages than time.
    check(stage, &format!("echo 50 >{PARAMETERS}/timeout_ms"));
    assert!(fails(stage, "connect").contains("timed out"));
    assert_eq!(sysfs(stage), ["", "", ""]);
    // Before it begins.
    check(stage, "kill -STOP $(cat /run/serve.pid)");
    assert!(fails(stage, "connect").contains("timed out"));
    check(stage, &format!("echo 30000 >{PARAMETERS}/timeout_ms; kill -CONT $(cat /run/serve.pid); connect"));
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[0]);

    // What cannot be killed ends, too, and what could not be said is made up for.
    ask(stage, "a", "bind").unwrap();
    check(stage, &format!("echo 50 >{PARAMETERS}/teardown_timeout_ms; kill -STOP $(cat /run/serve.pid)"));
    ask(stage, "a", "unbind").unwrap();
    assert_eq!(sysfs(stage), ["tsm0", "tsm0", ""]);
    expect(stage, "unbound by the kernel alone", "CONFIG_LOCKED", 1, &[0]);
    check(stage, &format!("echo 10000 >{PARAMETERS}/teardown_timeout_ms; kill -CONT $(cat /run/serve.pid)"));
    ask(stage, "a", "bind").unwrap();
    expect(stage, "bound again", "CONFIG_LOCKED", 1, &[0]);
    ask(stage, "a", "unbind").unwrap();
    check(stage, "disconnect");
    expect(stage, "disconnected", "CONFIG_UNLOCKED", 0, &[]);

    check(
        stage,
        "kill -STOP $(cat /run/serve.pid)
         sh -c 'echo $$ >/run/connect.pid; exec tee $1 <<.
tsm0
.' sh $sysfs/tsm/connect >/dev/null 2>&1 &
         wait_for '[ -s /run/connect.pid ]'; sleep 0.3; end connect KILL; kill -CONT $(cat /run/serve.pid)",
    );
    assert_eq!(sysfs(stage), ["", "", ""]);
}

/// The program that serves dies, at every step.
fn without_user_space(stage: &mut Stage) {
    let said = fails(
        stage,
        "kill -STOP $(cat /run/serve.pid); (sleep 0.5; end serve KILL) & connect; code=$?; wait; exit $code",
    );
    assert!(said.contains("not connected"), "killed during connect: {said}");
    assert_eq!(sysfs(stage), ["", "", ""]);

    check(stage, "serve; connect");
    ask(stage, "a", "bind").unwrap();
    ask(stage, "a", "start").unwrap();
    check(stage, "end serve KILL");
    ask(stage, "a", "state").unwrap_err();
    ask(stage, "a", "unbind").unwrap();
    expect(stage, "unbound without anybody", "RUN", 1, &[0]);

    // A new one knows of no session.
    check(stage, "serve");
    assert!(ask(stage, "a", "bind").unwrap_err().contains("No such device"));
    check(stage, "disconnect; connect");
    ask(stage, "a", "bind").unwrap();
    expect(stage, "bound by the new one", "CONFIG_LOCKED", 1, &[0]);
}

/// The module goes while the device is connected, and nobody serves.
fn without_the_module(stage: &mut Stage) {
    check(
        stage,
        &format!("end a TERM; end serve TERM; rmmod tdispd_tsm; [ ! -e {STREAM} ]; [ ! -e $sysfs/tsm ]"),
    );
    check(stage, "insmod /usr/local/bin/tdispd_tsm.ko; serve; connect");
    expect(stage, "connected", "CONFIG_UNLOCKED", 1, &[0]);
    check(stage, "disconnect; end serve TERM; rmmod tdispd_tsm");
    expect(stage, "disconnected", "CONFIG_UNLOCKED", 0, &[]);
}

/// The device dies while it is bound. Everything comes to an end, and the kernel complains of nothing but the mailbox.
fn without_the_device(mut stage: Stage) {
    check(&mut stage, "insmod /usr/local/bin/tdispd_tsm.ko; serve; connect; vm a");
    ask(&mut stage, "a", "bind").unwrap();
    ask(&mut stage, "a", "start").unwrap();
    stage.kill_daemon();
    ask(&mut stage, "a", "state").unwrap_err();
    ask(&mut stage, "a", "unbind").unwrap();
    check(&mut stage, "disconnect");
    assert_eq!(sysfs(&mut stage), ["", "", ""]);
    assert!(!fails(&mut stage, "connect").is_empty());
    check(&mut stage, "end a TERM; end serve TERM; rmmod tdispd_tsm");
    let complaints = stage.complaints();
    assert!(complaints.iter().all(|line| line.contains(": DOE: [")), "{}", complaints.join("\n"));
}
