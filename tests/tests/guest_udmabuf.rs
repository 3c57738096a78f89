//! The device where /dev/udmabuf is: in a guest with a stock kernel, with a VMM and another process that maps what it exports.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tests::guest::{Scene, Stage};

/// What the scripts have in common. `device` starts tdispd and plugs it in; `vmm` has the VMM do something, `mapper` a process with
/// an export mapped. A command is done when the line that it prints is there.
const PRELUDE: &str = r#"
set -e
cd $(mktemp -d /run/XXXXXX)
fail() { echo "$*" >&2; tail -n 30 *.log *.out >&2; exit 1; }
# until_so COMMAND: for 20 seconds at most
until_so() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "never: $*"; }
# Bytes that were read stand in lines that begin with their place.
reads() { grep -c '^0x' "$1" || true; }
more() { [ "$(reads "$1")" -gt "$2" ]; }
device() { # TOML
    printf "$1" >device.toml
    tdispd --socket f0 --control control --config device.toml >device.log 2>&1 &
    echo $! >device.pid
    until_so test -S f0
    mkfifo vmm.in
    tdispctl --vfio-user f0 shell <vmm.in >vmm.out 2>&1 &
    exec 6>vmm.in
    peek 0 >/dev/null
}
vmm() { # COMMAND STATE: until the TDI is there
    echo "$1" >&6
    tdispctl --control control watch --until-state "$2" --timeout 60 >/dev/null || fail "no $2 after $1"
}
# What the VMM reads and writes.
peek() {
    before=$(reads vmm.out)
    echo "mmio read 2 $1 1" >&6
    until_so more vmm.out "$before"
    grep '^0x' vmm.out | tail -n 1 | awk '{print $2}'
}
poke() { echo "mmio write 2 $1 $2" >&6; peek "$1" >/dev/null; }
mapper() { # NUMBER SIDE RANGE: its input is descriptor NUMBER
    mkfifo map$1.in
    tdispctl --control control dmabuf 0 2 "$2" "$3" <map$1.in >map$1.out 2>&1 &
    echo $! >map$1.pid
    eval "exec $1>map$1.in"
    until_so grep -q 'bytes of BAR 2' map$1.out
}
# Exports a range and drops it.
other() { tdispctl --control control dmabuf 0 2 shared "$1" </dev/null; }
see() { # NUMBER OFFSET: the byte that the mapper sees
    before=$(reads map$1.out)
    echo "read $2 1" >&$1
    until_so more map$1.out "$before"
    grep '^0x' map$1.out | tail -n 1 | awk '{print $2}'
}
put() { echo "write $2 $3" >&$1; see $1 $2 >/dev/null; }
expect() { [ "$1" = "$2" ] || fail "$3: $1 instead of $2"; }
"#;

/// One script after the prelude, which is too long to be sent with each of them.
fn run(stage: &mut Stage, script: &str) -> String {
    stage.check(&format!(". /run/prelude\n{script}"))
}

/// The private pages of BAR 2 that were exported with T = 0 before LOCK, and with T = 1 after it.
const LIFE: &str = r#"
device "[mmio]\nrevoke = \"$how\"\ndmabuf = \"udmabuf\"\n"
mapper 7 shared 0x0:0x2000
grep -q 'a udmabuf' map7.out || fail "no udmabuf"
grep -q 'exported in CONFIG_UNLOCKED as udmabuf' device.log || fail "not told"
put 7 0x10 11
# The kernel's word for it; there is a mapping and no descriptor.
grep -q '/dmabuf:' /proc/$(cat map7.pid)/maps || fail "no dma-buf is mapped"
grep -l 'exp_name:' /proc/$(cat map7.pid)/fdinfo/* && fail "the mapper has a descriptor"
expect "$(peek 0x10)" 11 "the device before LOCK"
vmm lock CONFIG_LOCKED
expect "$(see 7 0x10)" $locked "T = 0 after LOCK"
mapper 8 private 0x1000:0x1000
expect "$(see 8 0x20)" ff "T = 1 before START"
vmm start RUN
put 7 0x10 12
poke 0x10 33
expect "$(see 7 0x10)" 12 "T = 0 in RUN: the TVM's byte shows"
expect "$(peek 0x10)" 33 "the TVM: the hypervisor's byte shows"
expect "$(see 8 0x20)" 00 "T = 1 at START"
put 8 0x20 44
expect "$(peek 0x1020)" 44 "the device through T = 1"
vmm 'stop --keep-session' CONFIG_UNLOCKED
expect "$(see 8 0x20)" $dead "T = 1 after STOP"
expect "$(see 7 0x10)" $back "T = 0 after STOP"
put 7 0x10 55
expect "$(peek 0x10)" $again "the device after STOP"
# The pages are free for another once the last mapping is gone; an orphan's are so already.
[ "$how" = orphan ] || { other 0x1000:0x1000 && fail "mapped twice"; }
exec 7>&- 8>&-
until_so other 0x1000:0x1000
# So does a descriptor that nobody has mapped keep them.
tdispctl --control control dmabuf 0 2 shared 0x1000:0x1000 -- sh -c 'echo has it; exec sleep 1000' >has.out &
holder=$!
until_so grep -q has has.out
grep -l 'exp_name:.*udmabuf' /proc/$holder/fdinfo/* >/dev/null || fail "no dma-buf"
other 0x1000:0x2000 && fail "given twice"
kill $holder
until_so other 0x1000:0x2000
exec 6>&-
kill $(cat device.pid)
wait
"#;

/// The same with memfds that are cut: whoever touches a page then is ended by the kernel.
const CUT: &str = r#"
device '[mmio]\narch = "tdx"\n'
mapper 7 shared 0x0:0x2000
grep -q 'a memfd' map7.out || fail "no memfd"
put 7 0x10 11
vmm lock CONFIG_LOCKED
echo 'read 0x10 1' >&7
code=0; wait $(cat map7.pid) || code=$?
expect $code 135 "the holder's end (128 + SIGBUS)"
mapper 8 private 0x1000:0x1000
vmm start RUN
expect "$(see 8 0x20)" 00 "T = 1 at START"
vmm 'stop --keep-session' CONFIG_UNLOCKED
echo 'write 0x20 00' >&8
code=0; wait $(cat map8.pid) || code=$?
expect $code 135 "the holder's end (128 + SIGBUS)"
exec 6>&- 7>&- 8>&-
kill $(cat device.pid)
wait
"#;

#[test]
fn real_dma_bufs_are_orphaned_kept_or_cut() {
    let Some(scene) = Scene::new("udmabuf") else { return };
    let mut stage = scene.unplugged().device_inside().start();
    stage.check("[ -c /dev/udmabuf ]");
    stage.check(&format!("cat >/run/prelude <<'EOF'\n{PRELUDE}\nEOF"));
    for (how, variables) in
        [("orphan", "locked=11 dead=00 back=12 again=00"), ("keep", "locked=ff dead=ff back=00 again=55")]
    {
        run(&mut stage, &format!("how={how} {variables}\n{LIFE}"));
    }
    run(&mut stage, CUT);
    let both = stage.run("printf '[mmio]\\narch = \"tdx\"\\ndmabuf = \"udmabuf\"\\n' >/run/both.toml; tdispd --config /run/both.toml --socket /run/x");
    assert_eq!(both.code, 2);
    assert!(both.stderr.contains("mmio.dmabuf: udmabuf takes only memory that is sealed"), "{}", both.stderr);
    // More than the driver makes at once.
    run(&mut stage, LARGE);

    stage.check("rm /dev/udmabuf");
    let none = stage.run("printf '[mmio]\\ndmabuf = \"udmabuf\"\\n' >/run/none.toml; tdispd --config /run/none.toml --socket /run/x");
    assert_eq!(none.code, 1);
    assert!(
        none.stderr.contains("/dev/udmabuf: No such file or directory")
            && none.stderr.contains("load the module udmabuf"),
        "{}",
        none.stderr
    );
    run(&mut stage, MISSING);
    stage.finish();
}

const LARGE: &str = r#"
echo 4 >/sys/module/udmabuf/parameters/size_limit_mb
device '[[function]]\nmsix = false\n[[function.bar]]\nindex = 2\n[[function.bar.range]]\nkind = "memory"\nsize = "8M"\nside = "shared"\n'
until_so grep -q 'client connected' device.log
code=0; tdispctl --control control dmabuf 0 2 shared 0x0:0x800000 </dev/null >large.out 2>&1 || code=$?
expect $code 4 "too large"
grep -q 'size_limit_mb' large.out || fail "no advice: $(cat large.out)"
exec 6>&-
kill $(cat device.pid)
wait
"#;

/// Without the driver an export is a memfd, and is held by a mapping of it, too.
const MISSING: &str = r#"
device ''
grep -q 'exports of BAR memory are memfds: /dev/udmabuf: No such file' device.log || fail "not said"
mapper 7 shared 0x0:0x2000
grep -q 'a memfd' map7.out || fail "no memfd"
other 0x1000:0x1000 && fail "mapped twice"
exec 7>&-
until_so other 0x1000:0x1000
exec 6>&-
kill $(cat device.pid)
wait
"#;
