//! A confidential guest's whole way, nested: an L1 with the software TSM assigns the disk to an L2 by vfio-pci; L2's agent judges the
//! device and starts it, Linux's own driver uses it; and then L1 tries what a host might try. Each attempt has to be stopped, and by
//! whom it was is part of the test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use qemu_config::Daemon;
use serde_json::Value;
use tests::guest::{DEVICE, Image, Inner, Scene, Stage, kmod, logs, prepare, warnings};

const NAME: &str = "l2";
const MIB: u64 = 1 << 20;
/// The driver's way to the device, in L2.
const DRIVER: &str = "/sys/bus/pci/drivers/virtio-pci";
/// Another device, which is the same but for its firmware. Both have the same address in L1 and in L2.
const IMPOSTOR: &str = "0000:02:00.0";
/// Measurement 1, by the two devices' configuration.
const FIRMWARE: u8 = 0x11;
const OTHER_FIRMWARE: u8 = 0x22;
/// What the guest and its TSM share.
const KEY: &str = "what the guest and its TSM share, and nobody else";
/// What the guest keeps in private memory of the device.
const SECRET: u32 = 0x005e_c2e7;
/// Where the T = 1 half of BAR 2 begins.
const TEE: u64 = 0x1_0000;
/// Warnings of kernels that are no sign of anything wrong, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("tsc: ", "an emulated clock has no steady pace"),
    ("APIC calibration not consistent", "nor has an emulated timer"),
    ("clocksource: ", "nor has either on a busy machine"),
    ("hrtimer: interrupt took", "a busy machine"),
    ("workqueue: ", "a busy machine"),
    ("override to edge(!), high(!)", "QEMU's ACPI tables, at every boot"),
    ("Unhandled WRMSR(0xc0010007)", "L2 looks whether there is a performance counter"),
    ("loading out-of-tree module taints kernel", "the software TSM"),
    ("module verification failed", "the software TSM"),
    (": resetting", "vfio-pci, for a device that QEMU opens or lets go"),
    (": reset done", "the same"),
    ("supports timestamps until 2038", "a small file system has small inodes"),
];

/// Private registers, doorbells and memory, and memory that is everybody's.
fn config(firmware: u8, private_disk: &str) -> String {
    let digest = format!("{firmware:02x}").repeat(48);
    format!(
        r#"[mmio]
tee = "alias"
[[spdm.measurement]]
index = 1
kind = "mutable-firmware"
digest = "{digest}"
[[function]]
kind = "virtio-blk"
disk.size = "1M"
{private_disk}
virtio.window = "tee"
[[function.bar]]
index = 0
range = [
    {{ kind = "registers", size = "16K", side = "private" }},
    {{ kind = "doorbells", size = "16K", side = "private" }},
]
[[function.bar]]
index = 2
width = 64
prefetchable = true
range = [
    {{ kind = "memory", size = "32K", side = "private" }},
    {{ kind = "memory", size = "32K", side = "shared" }},
]
[[function.bar]]
index = 4
range = [
    {{ kind = "msix-table", size = "4K", side = "shared" }},
    {{ kind = "msix-pba", size = "4K", side = "shared" }},
]
"#
    )
}

/// L1's words. A relay is for one function; there is one at a time, as there is one port.
const WORDS: &str = r#"
wait_for() { for i in $(seq 300); do eval "$1" && return; sleep 0.1; done; echo "no $1" >&2; exit 1; }
end() { kill -$2 $(cat /run/$1.pid); wait_for '! [ -e /proc/$(cat /run/'$1'.pid)/exe ]'; }
serve() {
    tdispctl --json tsm serve --guest-key /run/key >>/run/serve.log 2>&1 &
    echo $! >/run/serve.pid
    wait_for 'grep -q serving /run/serve.log'
}
connect() { echo tsm0 >/sys/bus/pci/devices/$1/tsm/connect; }
disconnect() { echo tsm0 >/sys/bus/pci/devices/$1/tsm/disconnect; }
assign() {
    echo vfio-pci >/sys/bus/pci/devices/$1/driver_override
    echo $1 >/sys/bus/pci/drivers/vfio-pci/bind
}
relay() {
    rm -f /run/relay.log
    tdispctl --json tsm relay "$@" --vm $(cat /run/inner.pid) --socket /run/agent.sock >/run/relay.log 2>&1 &
    echo $! >/run/relay.pid
    wait_for 'grep -q ready /run/relay.log'
}
"#;

/// A line of the table that the test ends with.
struct Row {
    phase: &'static str,
    expected: &'static str,
    caught_by: &'static str,
    took: Duration,
}

/// Everybody in it.
struct Story {
    l1: Stage,
    l2: Inner,
    _impostor: Daemon,
    /// Where L1 has BAR 0 and BAR 2 of the device, and L2 BAR 2.
    bars: [u64; 3],
    /// All that the agent has said.
    agent_log: File,
    table: Vec<Row>,
}

fn l1(stage: &mut Stage, script: &str) -> String {
    stage.check(&format!("{WORDS}\nset -e\n{script}"))
}

impl Story {
    fn l1(&mut self, script: &str) -> String {
        l1(&mut self.l1, script)
    }

    /// Another relay, with the other words of its command line.
    fn relay(&mut self, words: &str) {
        self.l1(&format!("end relay TERM; relay {words}"));
    }

    /// A phase, with what has to come of it and who sees to that, both of which it has asserted when it returns.
    fn phase(
        &mut self,
        phase: &'static str,
        expected: &'static str,
        caught_by: &'static str,
        play: impl FnOnce(&mut Self),
    ) {
        let start = Instant::now();
        play(self);
        let row = Row { phase, expected, caught_by, took: start.elapsed() };
        // Not with eprintln!, whose text the test harness keeps to itself.
        let _ = writeln!(io::stderr(), "L2: {phase}: {:.1} s", row.took.as_secs_f64());
        self.table.push(row);
    }

    /// What the device itself says of its TDI.
    fn device(&mut self) -> Value {
        let (code, text) = self.l1.control("--json state", "");
        assert_eq!(code, Some(0), "{text}");
        let state: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        state["tdis"][0].clone()
    }

    fn state(&mut self) -> String {
        self.device()["state"].as_str().unwrap().to_owned()
    }

    /// L2's agent; its exit code and what it says at the end, if that is an error.
    fn agent(&mut self, words: &str) -> (i32, String) {
        let output = self.l2.run(&format!("tdispctl --json guest {words} --key /run/key"));
        let _ = writeln!(self.agent_log, "{words}\n{}{}", output.stdout, output.stderr);
        let last = output.stdout.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(last)
            .unwrap_or_else(|_| panic!("the agent says {}{}", output.stdout, output.stderr));
        (output.code, summary["error"]["message"].as_str().unwrap_or_default().to_owned())
    }

    fn accept(&mut self, function: &str) -> (i32, String) {
        self.agent(&format!("accept {function} --policy /run/policy.toml"))
    }

    /// The device runs for L2 again, whatever was before.
    fn run(&mut self) {
        assert_eq!(self.accept(DEVICE), (0, String::new()));
        assert_eq!(self.state(), "RUN");
    }

    /// What L2 keeps in the device, written or looked at.
    fn keep(&mut self) {
        let at = self.bars[2] + TEE;
        self.l2.check(&format!("devmem {at:#x} 32 {SECRET:#x}; [ $(($(devmem {at:#x} 32))) = {SECRET} ]"));
    }

    /// What L1 sees of private pages: registers and memory, in both halves of each BAR.
    fn l1_sees(&mut self) -> [u32; 4] {
        let [registers, memory, _] = self.bars;
        [registers, registers + 0x8000, memory, memory + TEE].map(|at| self.l1.load(at))
    }

    /// The device has ended RUN by itself, for this reason, and there is nothing to be seen for L1, in neither half.
    fn expect_error(&mut self, cause: &str) {
        assert_eq!(self.state(), "ERROR");
        assert_eq!(self.l1_sees(), [u32::MAX; 4]);
        let why = self.device()["last_transition"]["text"].as_str().unwrap().to_owned();
        assert!(why.contains(cause), "{why}, not {cause}");
    }

    /// L2 can see it as well.
    fn sees_error(&mut self) {
        let (code, why) = self.agent("state");
        assert!(code == 6 && why.contains("ERROR"), "{code}: {why}");
    }

    /// STOP, and nothing of L2's is left.
    fn release(&mut self) {
        assert_eq!(self.agent("release").0, 0);
        assert_eq!(self.state(), "CONFIG_UNLOCKED");
        let [_, _, memory, _] = self.l1_sees();
        assert_ne!(memory, SECRET);
    }

    /// The agent says no, and why, and the device is nobody's.
    fn refused(&mut self, function: &str, code: i32, reason: &str) {
        let (found, why) = self.accept(function);
        assert!(found == code && why.contains(reason), "{found}: {why}");
        if function == DEVICE {
            assert_eq!(self.state(), "CONFIG_UNLOCKED");
        }
    }
}

/// Puts a small text into a file of a guest, whatever is in it.
fn put(path: &str, text: &str) -> String {
    format!("cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE\n")
}

/// The SHA-384 of the root of the certificates that a device has made for itself, as whoever sells it would publish it.
fn root(tdispd: &Path, stage: &Stage) -> String {
    let mut command = Command::new(tdispd);
    command.args(["certs", "show", "--config"]).arg(stage.configuration());
    let output = command.arg("--state-dir").arg(stage.state_directory()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let digests = text.lines().skip_while(|line| !line.trim().starts_with("sha384"));
    let root = digests.into_iter().find_map(|line| line.trim().strip_prefix("root"));
    root.unwrap_or_else(|| panic!("no root in {text}")).trim().to_owned()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_directory(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Both devices in L1, with sessions of the TSM's, and L2 with them in its slots.
fn prologue() -> Option<Story> {
    let modules = kmod(NAME)?;
    let prepared = prepare(NAME)?;
    let mut table = Vec::new();
    let mut row = |phase, start: Instant| {
        let took = start.elapsed();
        let _ = writeln!(io::stderr(), "L2: {phase}: {:.1} s", took.as_secs_f64());
        table.push(Row { phase, expected: "it works", caught_by: "", took });
    };

    let start = Instant::now();
    let scene = Scene::new(NAME)?.nested(&["virtio_blk", "ext4"]).unplugged().spare_slot().control();
    // L1 is to see what a driver of its own could see.
    let scene = scene
        .kernel_argument("iomem=relaxed")
        .kernel_argument("mitigations=off")
        .program("tdispd_tsm.ko", modules.join("tdispd_tsm.ko"));
    let mut stage = scene.config(&config(FIRMWARE, "private_disk.path = \"private.img\"")).start();
    let directory = logs(NAME);
    let [state, socket] =
        ["impostor-state", "impostor"].map(|name| stage.state_directory().with_file_name(name));
    copy_directory(&stage.state_directory(), &state);
    let other = directory.join("impostor.toml");
    fs::write(&other, config(OTHER_FIRMWARE, "")).unwrap();
    let arguments = ["--config".into(), other.into_os_string(), "--state-dir".into(), state.into_os_string()];
    let log = directory.join("impostor.log");
    let impostor =
        Daemon::start(&prepared.programs.tdispd, std::slice::from_ref(&socket), arguments, &log).unwrap();
    row("L1 boots", start);

    let start = Instant::now();
    l1(&mut stage, "echo 0 >/sys/bus/pci/drivers_autoprobe");
    stage.plug();
    stage.guest.plug(1, &socket).unwrap();
    l1(
        &mut stage,
        &format!(
            "wait_for '[ -e /sys/bus/pci/devices/{IMPOSTOR}/resource ]'
             echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
             insmod /usr/local/bin/tdispd_tsm.ko; {}
             assign {DEVICE}; assign {IMPOSTOR}; serve; connect {DEVICE}; connect {IMPOSTOR}",
            put("/run/key", KEY)
        ),
    );
    row("the TSM connects", start);

    let start = Instant::now();
    let port = "-chardev socket,id=agent,path=/run/agent.sock,server=on,wait=off -device virtio-serial-pci \
                -device virtserialport,chardev=agent,name=tdispd.guest";
    let mut inner = stage.start_inner(port);
    inner.check(&format!("echo 0 >/sys/bus/pci/drivers_autoprobe; {}", put("/run/key", KEY)));
    inner.check(&put("/run/policy.toml", &policy(&root(&prepared.programs.tdispd, &stage))));
    row("L2 boots", start);

    let start = Instant::now();
    stage.assign(&mut inner, DEVICE, 0);
    stage.assign(&mut inner, IMPOSTOR, 1);
    inner.check(&format!("for f in {DEVICE} {IMPOSTOR}; do echo 1 >/sys/bus/pci/devices/$f/enable; done"));
    l1(&mut stage, &format!("relay {DEVICE}"));
    let bar = |text: String| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap();
    let script = |number| format!("sed -n '{}s/ .*//p' /sys/bus/pci/devices/{DEVICE}/resource", number + 1);
    let bars = [bar(stage.check(&script(0))), bar(stage.check(&script(2))), bar(inner.check(&script(2)))];
    row("L2 gets the devices", start);
    let agent_log = File::create(directory.join("agent.log")).unwrap();
    Some(Story { l1: stage, l2: inner, _impostor: impostor, bars, agent_log, table })
}

fn policy(root: &str) -> String {
    let firmware = format!("{FIRMWARE:02x}").repeat(48);
    format!(
        "root = [\"sha384:{root}\"]\ntee_half = \"high\"\n[[measurement]]\nindex = 1\nvalue = [\"{firmware}\"]\n\
         [[private]]\nbar = 2\nsize = 0x8000"
    )
}

#[test]
fn a_guest_judges_its_device_and_its_host_tries_everything() {
    let image = Image::new(NAME, "private.img", 32 * MIB);
    image.file.write_all_at(&[0xC3; 4096], 24 * MIB).unwrap();
    let Some(mut story) = prologue() else { return };
    let s = &mut story;

    s.phase("the host starts it by itself", "EPERM", "TSM: START is the guest's", host_starts);
    s.phase("the agent accepts", "RUN", "", Story::run);
    s.phase("Linux's driver uses the disk", "the private disk", "", driver_uses_the_disk);
    s.phase("L1 reads private pages, T = 0", "all ones", "device: the gate", reads_private_pages);
    s.phase("L1 moves a BAR", "ERROR", "device: BAR written", |s| {
        let [registers, ..] = s.bars;
        s.l1(&format!("setpci -s {DEVICE} BASE_ADDRESS_0={:#x}", registers ^ 0x10_0000));
        assert_eq!(s.state(), "ERROR");
        s.l1(&format!("setpci -s {DEVICE} BASE_ADDRESS_0={registers:#x}"));
        s.expect_error("BAR 0 written while locked");
        s.sees_error();
        s.release();
    });
    s.phase("L1 clears bus mastering", "ERROR", "device: Bus Master Enable", |s| {
        s.run();
        s.keep();
        s.l1(&format!("setpci -s {DEVICE} COMMAND=0:4"));
        s.expect_error("Bus Master Enable = 0 written while locked");
        s.l1(&format!("setpci -s {DEVICE} COMMAND=4:4"));
        s.sees_error();
        s.release();
    });
    s.phase("L1 kills the session", "ERROR", "device: the session's end", |s| {
        s.run();
        s.keep();
        // GET_VERSION is anybody's to send.
        s.l1(&format!("tdispctl --device {DEVICE} identify >/dev/null"));
        s.expect_error("the SPDM session that holds the stream's keys ended");
        // Without a session the TSM knows nothing of the device, and says so.
        assert_ne!(s.agent("state").0, 0);
        s.l1(&format!("disconnect {DEVICE}; connect {DEVICE}"));
        // Nobody has said STOP; the next LOCK does.
        assert_eq!((s.state().as_str(), s.l1_sees()), ("ERROR", [u32::MAX; 4]));
    });
    s.phase("the host replays a report", "refused", "agent: HMAC over the nonce", |s| {
        s.relay(&format!("{DEVICE} --misbehave replay-report"));
        s.run();
        s.release();
        s.refused(DEVICE, 5, "GET_DEVICE_INTERFACE_REPORT: not the TSM's answer to this question");
    });
    s.phase("the host alters a report", "refused", "agent: HMAC", |s| {
        s.relay(&format!("{DEVICE} --misbehave alter-report"));
        s.refused(DEVICE, 5, "GET_DEVICE_INTERFACE_REPORT: not the TSM's answer to this question");
    });
    s.phase("a device's report says shared", "refused", "agent: virtio's structures", |s| {
        s.relay(DEVICE);
        let (code, report) = s.l1.control("--json report get 0", "");
        assert_eq!(code, Some(0), "{report}");
        let lie = report.lines().next().unwrap().replace("\"non_tee\":false", "\"non_tee\":true");
        let set = s.l1.control("report set 0 -", &lie);
        assert_eq!(set.0, Some(0), "{}", set.1);
        s.refused(DEVICE, 6, "in shared memory");
        assert_eq!(s.l1.control("report reset 0", "").0, Some(0));
    });
    s.phase("another device, other firmware", "refused", "agent: measurement 1", |s| {
        s.relay(IMPOSTOR);
        s.refused(IMPOSTOR, 6, "measurement 1 is 2222");
    });
    s.phase("and again as at first", "RUN", "", |s| {
        s.relay(DEVICE);
        s.run();
        let at = s.bars[2] + TEE;
        assert_eq!(s.l2.check(&format!("devmem {at:#x} 32")).trim(), "0x00000000", "nobody's memory is left");
        s.keep();
        s.l2.check(&format!(
            "echo {DEVICE} >{DRIVER}/bind; mount -t ext4 /dev/vda /mnt; cd /mnt; sha256sum -c sum"
        ));
    });
    assert_eq!(unexplained(&s.l2.kernel_log()), [""; 0], "L2's kernel complains");
    s.phase("L2 ends without a word", "CONFIG_UNLOCKED", "relay: its VM's port", |s| {
        s.l1("end inner KILL; wait_for '! [ -e /proc/$(cat /run/relay.pid)/exe ]'");
        assert_eq!(s.state(), "CONFIG_UNLOCKED");
        assert!(!s.l1_sees().contains(&SECRET));
    });
    epilogue(story);
}

fn host_starts(s: &mut Story) {
    let lines =
        s.l1(&format!("printf 'bind\\nstart\\nstate\\nunbind\\n' | tdispctl --json tsm vm {DEVICE} || true"));
    assert!(lines.contains("guest request (result 4): Operation not permitted"), "{lines}");
    assert!(lines.contains("CONFIG_LOCKED") && !lines.contains("RUN"), "{lines}");
    let log = s.l1("cat /run/serve.log");
    assert!(log.contains("only the guest may ask for it, under its key"), "{log}");
}

fn driver_uses_the_disk(s: &mut Story) {
    s.l2.check(&format!("echo {DEVICE} >{DRIVER}/bind; [ $(cat /sys/block/vda/size) = 65536 ]"));
    let pattern = s.l2.check("dd if=/dev/vda bs=4096 skip=6144 count=1 2>/dev/null | sha256sum");
    assert_eq!(s.l2.check("printf '\\303%.0s' $(seq 4096) | sha256sum"), pattern, "what the host's file has");
    s.l2.check(
        "mke2fs /dev/vda 16384 >/dev/null; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt; cd /mnt
         dd if=/dev/urandom of=data bs=64k count=16 2>/dev/null; sha256sum data >sum; sync
         echo 3 >/proc/sys/vm/drop_caches; sha256sum -c sum; cd /; umount /mnt",
    );
    // What comes next would leave a driver that is at work with a dead device. RUN does not end with this: L2 has the function enabled.
    s.l2.check(&format!("echo {DEVICE} >{DRIVER}/unbind"));
    assert_eq!(s.state(), "RUN");
    s.keep();
}

fn reads_private_pages(s: &mut Story) {
    let refused = |s: &mut Story| s.device()["gate"]["rejected_reads"].as_u64().unwrap();
    let before = refused(s);
    // The other half is T = 1. Only a processor can say that L1 must not have that; here is none.
    let [registers, _, memory, _] = s.l1_sees();
    assert_eq!([registers, memory], [u32::MAX; 2]);
    assert!(refused(s) >= before + 2);
    assert_eq!(s.state(), "RUN");
    let at = s.bars[2] + TEE;
    s.l2.check(&format!("[ $(($(devmem {at:#x} 32))) = {SECRET} ]"));
}

fn unexplained(log: &str) -> Vec<&str> {
    let explained = |line: &&str| EXPLAINED.iter().any(|(text, _)| line.contains(text));
    warnings(log).into_iter().filter(|line| !explained(line)).collect()
}

fn epilogue(mut story: Story) {
    assert_eq!(unexplained(&story.l1.kernel_log()), [""; 0], "L1's kernel complains");
    let mut text = format!("{:34} {:18} {:28} {:>7}\n", "phase", "expected", "caught by", "seconds");
    for Row { phase, expected, caught_by, took } in &story.table {
        writeln!(text, "{phase:34} {expected:18} {caught_by:28} {:7.1}", took.as_secs_f64()).unwrap();
    }
    let total: Duration = story.table.iter().map(|row| row.took).sum();
    writeln!(text, "{:82} {:7.1}", "all", total.as_secs_f64()).unwrap();
    fs::write(logs(NAME).join("summary.txt"), &text).unwrap();
    let _ = io::stderr().write_all(text.as_bytes());
    assert!(story.l1.stop().success(), "tdispd ended badly");
}
