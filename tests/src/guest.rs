//! What guest tests share: a `tdispd` and a guest that has it plugged in, started by one line and gone at the test's end.
//!
//! The first test of a run fetches the testbed (network, about 170 MB) and builds the programs. `TDISPD_SKIP_GUESTS=1` skips
//! these tests, and says so.
#![allow(clippy::panic, reason = "test support: what fails here is the test")]

use qemu_config::testbed::Overrides;
use qemu_config::{Daemon, Guest, Initramfs, Machine, Output, Programs, Slot, Testbed};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

mod disk;
mod inner;
mod lspci;
mod modules;

pub use disk::{Image, disk_scene};
pub use inner::Inner;
pub use lspci::compare_lspci;
pub use modules::{importer, kmod};

/// Address of function 0 in the first slot.
pub const DEVICE: &str = "0000:01:00.0";
/// Its directory in sysfs.
pub const SYSFS: &str = "/sys/bus/pci/devices/0000:01:00.0";
/// Function 0 in the second slot.
const SPARE_DEVICE: &str = "0000:02:00.0";
/// Programs may take this long in a guest on a busy machine.
const LONG: Duration = Duration::from_secs(300);
/// A kernel that says one of these has a problem, whoever caused it.
const ALARMS: [&str; 6] =
    ["BUG:", "WARNING:", "Oops", "Call Trace", "general protection", "rcu_sched self-detected"];

/// What the kernel says, as a warning, of every reset that somebody asks for.
const ROUTINE: [&str; 2] = [": resetting", ": reset done"];

/// The layers that `tdispctl run` has steps of.
const LAYERS: [&str; 7] = ["PCI", "DOE", "SPDM", "IDE", "TDISP", "MMIO", "DMA"];

/// What every guest test needs, made once.
pub struct Prepared {
    /// QEMU, kernel, and what an initramfs is made of.
    pub testbed: Testbed,
    /// The programs under test.
    pub programs: Programs,
}

/// What a guest test needs; `None` if guests are to be skipped, which it says.
pub fn prepare(name: &str) -> Option<&'static Prepared> {
    if env::var_os("TDISPD_SKIP_GUESTS").is_some_and(|value| value == "1") {
        // Not with eprintln!, whose text the test harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED guest test {name}: TDISPD_SKIP_GUESTS=1");
        return None;
    }
    Some(prepared())
}

/// Where a guest test of this name leaves its logs.
pub fn logs(name: &str) -> PathBuf {
    target_directory().join("guests").join(name)
}

/// What a test wants to be there when it begins.
pub struct Scene {
    name: String,
    prepared: &'static Prepared,
    functions: usize,
    config: String,
    modules: Vec<String>,
    module_files: Vec<PathBuf>,
    further_programs: Vec<(String, PathBuf)>,
    machine: Machine,
    plugged: bool,
    spare_slot: bool,
    device_inside: bool,
    control: bool,
    nested: Option<inner::InnerScene>,
}

impl Scene {
    /// A device with one function and a guest that has it in its first slot; `None` if guests are to be skipped.
    pub fn new(name: &str) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            prepared: prepare(name)?,
            functions: 1,
            config: String::new(),
            modules: Vec::new(),
            module_files: Vec::new(),
            further_programs: Vec::new(),
            machine: Machine::default(),
            plugged: true,
            spare_slot: false,
            device_inside: false,
            control: false,
            nested: None,
        })
    }

    /// This many functions instead of one.
    #[must_use]
    pub fn functions(mut self, functions: usize) -> Self {
        self.functions = functions;
        self
    }

    /// A configuration file for `tdispd`.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = toml.to_owned();
        self
    }

    /// A kernel module for the guest.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// A kernel module of one's own, loaded after the others.
    #[must_use]
    pub fn module_file(mut self, path: PathBuf) -> Self {
        self.module_files.push(path);
        self
    }

    /// One more static program in the guest's PATH.
    #[must_use]
    pub fn program(mut self, name: &str, path: PathBuf) -> Self {
        self.further_programs.push((name.to_owned(), path));
        self
    }

    /// Another processor than the accelerator's best (`Machine::processor`).
    #[must_use]
    pub fn processor(mut self, name: &str) -> Self {
        self.machine.processor = Some(name.to_owned());
        self
    }

    /// One more word on the kernel's command line.
    #[must_use]
    pub fn kernel_argument(mut self, word: &str) -> Self {
        self.machine.kernel_arguments.push(word.to_owned());
        self
    }

    /// Further arguments for QEMU.
    #[must_use]
    pub fn qemu(mut self, arguments: &[&str]) -> Self {
        self.machine.qemu_arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// DMA through an emulated IOMMU, which translates unless the guest decides otherwise.
    #[must_use]
    pub fn iommu(mut self) -> Self {
        self.machine.iommu = true;
        self
    }

    /// An empty slot at first; the test plugs the device in.
    #[must_use]
    pub fn unplugged(mut self) -> Self {
        self.plugged = false;
        self
    }

    /// A second slot, which stays empty until [`Stage::plug_into_spare_slot`].
    #[must_use]
    pub fn spare_slot(mut self) -> Self {
        self.spare_slot = true;
        self
    }

    /// The guest finds `tdispd` beside `tdispctl`.
    #[must_use]
    pub fn device_inside(mut self) -> Self {
        self.device_inside = true;
        self
    }

    /// The device has a control socket, on the host.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Starts the device and boots the guest.
    pub fn start(self) -> Stage {
        let directory = logs(&self.name);
        let sockets =
            or_fail(tempfile::Builder::new().prefix("tdispd-test-").tempdir(), "a temporary directory");
        or_fail(fs::create_dir_all(&directory), "the directory for logs");
        let config = directory.join("device.toml");
        or_fail(fs::write(&config, &self.config), "the configuration file");
        let paths: Vec<_> = (0..self.functions).map(|n| sockets.path().join(format!("f{n}"))).collect();

        let mut initramfs =
            Initramfs::new(&self.prepared.testbed).program("tdispctl", &self.prepared.programs.tdispctl);
        if self.device_inside {
            initramfs = initramfs.program("tdispd", &self.prepared.programs.tdispd);
        }
        for (name, path) in &self.further_programs {
            initramfs = initramfs.program(name, path);
        }
        for module in &self.modules {
            initramfs = initramfs.module(module);
        }
        for path in &self.module_files {
            initramfs = initramfs.module_file(path);
        }
        let image = or_fail(initramfs.build(), "the initramfs");
        let functions = if self.plugged { paths.clone() } else { Vec::new() };
        let mut slots = vec![Slot { functions }];
        slots.extend(self.spare_slot.then(Slot::default));
        let mut machine = Machine { slots, ..self.machine };
        if let Some(inner) = &self.nested {
            let socket = sockets.path().join("inner");
            machine.qemu_arguments.extend(inner.prepare(self.prepared, &directory, &socket));
        }

        let mut devices = Devices { directory, config, sockets, paths, control: self.control, started: 0 };
        let daemon = devices.start(&self.prepared.programs.tdispd);
        let guest = Guest::start(&self.prepared.testbed, &image, &machine, &devices.directory);
        let guest = guest.unwrap_or_else(|error| panic!("{error}\n--- tdispd's log:\n{}", daemon.log()));
        Stage { guest, daemon: Some(daemon), devices, prepared: self.prepared }
    }
}

/// How the device is started, and started again.
struct Devices {
    directory: PathBuf,
    config: PathBuf,
    sockets: TempDir,
    paths: Vec<PathBuf>,
    control: bool,
    started: u32,
}

impl Devices {
    fn start(&mut self, program: &Path) -> Daemon {
        self.started += 1;
        let log = self.directory.join(format!("tdispd-{}.log", self.started));
        let state = self.sockets.path().join("state");
        let mut arguments =
            vec!["-v".into(), "--config".into(), self.config.clone(), "--state-dir".into(), state];
        if self.control {
            arguments.extend(["--control".into(), self.control_socket()]);
        }
        or_fail(Daemon::start(program, &self.paths, arguments, &log), "tdispd")
    }

    fn control_socket(&self) -> PathBuf {
        self.sockets.path().join("control")
    }
}

/// A running device and guest. Both end with it.
pub struct Stage {
    /// The guest.
    pub guest: Guest,
    daemon: Option<Daemon>,
    devices: Devices,
    prepared: &'static Prepared,
}

impl Stage {
    /// Runs a script in the guest; any exit code is an answer.
    pub fn run(&mut self, script: &str) -> Output {
        let result = self.guest.run_with(script, LONG, &mut |_| {});
        result.unwrap_or_else(|error| self.fail(&error.to_string()))
    }

    /// Runs a script in the guest that has to succeed, and returns its standard output.
    pub fn check(&mut self, script: &str) -> String {
        let output = self.run(script);
        if output.code != 0 {
            let Output { code, stdout, stderr } = output;
            self.fail(&format!("in the guest, '{script}' ended with {code}\n{stdout}{stderr}"));
        }
        output.stdout
    }

    /// The same for a script that prints JSON lines.
    pub fn check_json(&mut self, script: &str) -> Vec<serde_json::Value> {
        let text = self.check(script);
        let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
        lines.unwrap_or_else(|error| {
            self.fail(&format!("'{script}' printed no JSON lines ({error}):\n{text}"))
        })
    }

    /// The whole walk of function 0 by `tdispctl run`. Every step has to hold, on every layer, and none may be left out.
    pub fn walk(&mut self) {
        let records = self.check_json(&format!("tdispctl --device {DEVICE} --json run --provoke-error"));
        let field = |record: &serde_json::Value, name: &str| record.get(name).cloned().unwrap_or_default();
        let steps: Vec<_> = records.iter().filter(|record| field(record, "type") == "step").collect();
        for layer in LAYERS {
            if !steps.iter().any(|step| field(step, "layer") == layer) {
                self.fail(&format!("the walk has no step of layer {layer}: {records:#?}"));
            }
        }
        if let Some(step) = steps.iter().find(|step| field(step, "ok") != true) {
            self.fail(&format!("a step of the walk did not hold: {step:#}"));
        }
    }

    /// A `tdispctl` command on function 0 within the session in `/run/session`.
    pub fn tdispctl(&mut self, command: &str) -> String {
        self.check(&format!("tdispctl --device {DEVICE} --session /run/session {command}"))
    }

    /// `tdispctl` on the host, at the device's control socket: `words` are its command, `input` is what it reads. Returns its exit
    /// code and all that it printed.
    pub fn control(&mut self, words: &str, input: &str) -> (Option<i32>, String) {
        let mut child = self.control_child(words);
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever is refused does not read.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = or_fail(child.wait_with_output(), "tdispctl's end");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same, still running, with pipes.
    pub fn control_child(&self, words: &str) -> Child {
        let mut command = Command::new(&self.prepared.programs.tdispctl);
        command.arg("--control").arg(self.devices.control_socket()).args(words.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        or_fail(command.spawn(), "tdispctl")
    }

    /// The address of a function's BAR, with memory accesses and bus mastering switched on.
    pub fn bar(&mut self, device: &str, bar: usize) -> u64 {
        self.check(&format!("setpci -s {device} COMMAND=6:6"));
        let resources = self.check(&format!("cat /sys/bus/pci/devices/{device}/resource"));
        let start = resources.lines().nth(bar).and_then(|line| line.split_whitespace().next());
        let address = start.and_then(|start| u64::from_str_radix(start.trim_start_matches("0x"), 16).ok());
        address.unwrap_or_else(|| self.fail(&format!("no BAR {bar} in\n{resources}")))
    }

    /// A 32-bit load by the guest's processor.
    pub fn load(&mut self, address: u64) -> u32 {
        let text = self.check(&format!("devmem {address:#x} 32"));
        let value = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16);
        value.unwrap_or_else(|_| self.fail(&format!("devmem printed '{text}'")))
    }

    /// A 32-bit store by the guest's processor.
    pub fn store(&mut self, address: u64, value: u32) {
        self.check(&format!("devmem {address:#x} 32 {value:#x}"));
    }

    /// The device process goes away without a word, as in a crash.
    pub fn kill_daemon(&mut self) {
        self.daemon = None;
        // What a crash leaves behind would make the next start wait for sockets that are there already.
        for path in &self.devices.paths {
            let _ = fs::remove_file(path);
        }
    }

    /// Ends the device process in order.
    pub fn stop_daemon(&mut self) -> ExitStatus {
        match self.daemon.take().map(Daemon::stop) {
            Some(Ok(status)) => status,
            Some(Err(error)) => self.fail(&error.to_string()),
            None => self.fail("there is no device process"),
        }
    }

    /// Starts the device process again, on the same sockets and with the same state directory.
    pub fn start_daemon(&mut self) {
        self.daemon = Some(self.devices.start(&self.prepared.programs.tdispd));
    }

    /// Takes function 0 out and plugs in one with another configuration, by a process of its own.
    pub fn exchange(&mut self, config: &str) {
        self.unplug();
        self.stop_daemon();
        or_fail(fs::write(&self.devices.config, config), "the configuration file");
        self.start_daemon();
        self.plug();
    }

    /// Plugs function 0 into the first slot and waits until the guest's kernel has found it.
    pub fn plug(&mut self) {
        self.plug_into(0, DEVICE);
    }

    /// The same for the second slot.
    pub fn plug_into_spare_slot(&mut self) {
        self.plug_into(1, SPARE_DEVICE);
    }

    fn plug_into(&mut self, slot: usize, device: &str) {
        if let Some(path) = self.devices.paths.first()
            && let Err(error) = self.guest.plug(slot, path)
        {
            self.fail(&error.to_string());
        }
        self.check(&format!(
            "for i in $(seq 100); do [ -e /sys/bus/pci/devices/{device}/config ] && exit 0; sleep 0.1; done; exit 1"
        ));
    }

    /// Takes function 0 out.
    pub fn unplug(&mut self) {
        if let Err(error) = self.guest.unplug(0) {
            self.fail(&error.to_string());
        }
        self.check(&format!("for i in $(seq 100); do [ -e {SYSFS} ] || exit 0; sleep 0.1; done; exit 1"));
    }

    /// Versions and paths of the testbed.
    pub fn testbed(&self) -> &Testbed {
        &self.prepared.testbed
    }

    /// What the device process has logged since it was started.
    pub fn device_log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// The device's state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.devices.sockets.path().join("state")
    }

    /// The device's configuration file.
    pub fn configuration(&self) -> &Path {
        &self.devices.config
    }

    /// Where this test's logs are; for files that help with a failure.
    pub fn directory(&self) -> &Path {
        &self.devices.directory
    }

    /// The kernel's warnings and errors about the device, and its alarms about anything.
    pub fn complaints(&mut self) -> Vec<String> {
        let log = self.check("dmesg -r");
        let about = |line: &&&str| line.contains("0000:01:00") || is_alarm(line);
        let routine = |line: &&&str| ROUTINE.iter().any(|end| line.ends_with(end));
        warnings(&log)
            .iter()
            .filter(about)
            .filter(|line| !routine(line))
            .map(|line| (*line).to_owned())
            .collect()
    }

    /// The kernel's log so far, raw; it stays with the others.
    pub fn kernel_log(&mut self) -> String {
        let log = self.check("dmesg -r");
        or_fail(fs::write(self.directory().join("kernel.log"), &log), "the kernel's log");
        log
    }

    /// Ends both in order: QEMU first, then the device process, which must have survived.
    pub fn finish(mut self) {
        let complaints = self.complaints();
        if !complaints.is_empty() {
            self.fail(&format!("the guest's kernel complains:\n{}", complaints.join("\n")));
        }
        let status = self.stop();
        assert!(status.success(), "tdispd ended badly: {status}");
    }

    /// The same, whatever the guest's kernel has said.
    pub fn stop(self) -> ExitStatus {
        let Self { guest, daemon, .. } = self;
        or_fail(guest.quit(), "QEMU's end");
        let Some(mut daemon) = daemon else { panic!("there is no device process") };
        assert!(daemon.running(), "tdispd died during the test:\n{}", daemon.log());
        or_fail(daemon.stop(), "tdispd's end")
    }

    fn fail(&self, reason: &str) -> ! {
        let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(30).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        panic!(
            "{reason}\n--- tdispd's last lines:\n{}\n--- all logs: {}",
            last.join("\n"),
            self.devices.directory.display()
        )
    }
}

/// Warnings, errors and alarms of a kernel's raw log.
pub fn warnings(log: &str) -> Vec<&str> {
    // Raw lines begin with `<N>`: facility and level, of which 4 is a warning and less is worse.
    let warning = |line: &str| {
        let priority = line.strip_prefix('<').and_then(|line| line.split('>').next()?.parse::<u32>().ok());
        priority.is_some_and(|priority| priority & 7 <= 4)
    };
    log.lines().filter(|line| warning(line) || is_alarm(line)).collect()
}

fn is_alarm(line: &str) -> bool {
    ALARMS.iter().any(|alarm| line.contains(alarm))
}

fn prepared() -> &'static Prepared {
    static PREPARED: OnceLock<Prepared> = OnceLock::new();
    PREPARED.get_or_init(|| Prepared {
        testbed: or_fail(Testbed::prepare(&Overrides::default()), "the testbed"),
        programs: or_fail(Programs::build(), "the programs"),
    })
}

/// Where the build's products and the tests' logs are.
pub fn target_directory() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn or_fail<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
