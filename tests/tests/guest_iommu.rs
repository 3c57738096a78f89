//! vfio-pci in a guest exports the shared and the private ranges of a BAR as two dma-bufs, and a peer behind the same emulated
//! IOMMU imports them: before the bind, in every state after it, and when they are taken back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use qemu_config::Programs;
use tests::guest::{DEVICE, SYSFS, Scene, Stage, importer};

/// BAR 2 has two ranges of each side, so that an export of a side has a hole. With `alias` its upper half is the same memory with
/// T = 1: in the guest's physical addresses the side is one bit, as on machines that have one.
const CONFIG: &str = include_str!("../../qemu-config/examples/dmabuf.toml");

/// Where T = 1 begins in BAR 2.
const TEE: u64 = 0x8000;

/// The dma-bufs, one for each range: the importer's IOMMU cannot have more in one (`all_ranges_of_a_side_in_one`).
const NAMES: [&str; 4] = ["private0", "private1", "shared0", "shared1"];

const ONES: &str = "ok ffffffffffffffff";
const ZEROES: &str = "ok 0000000000000000";

/// vfio-pci's user space runs in the guest and takes its commands from one FIFO, and answers into another. It has both open in both
/// directions, so that neither ends between two commands.
const EXPORTER: &str = r#"
set -e
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
echo vfio-pci >$sysfs/driver_override
echo $device >/sys/bus/pci/drivers_probe
mkfifo /run/in /run/out
vfio-export $device 0<>/run/in 1<>/run/out 2>/run/vfio-export.log &
read -t 60 -r answer 0<>/run/out || { cat /run/vfio-export.log >&2; exit 1; }
[ "$answer" = ok ]
"#;

/// Has `vfio-export` carry out lines, one after the other; each has a line of answer.
fn ask_all(stage: &mut Stage, lines: &[&str]) -> Vec<String> {
    let mut script = String::from(
        "ask() { echo \"$1\" 1<>/run/in; read -t 60 -r answer 0<>/run/out && echo \"$answer\" && return; \
         cat /run/vfio-export.log >&2; exit 1; }\n",
    );
    for line in lines {
        script.push_str(&format!("ask '{line}'\n"));
    }
    let answers: Vec<_> = stage.check(&script).lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), lines.len(), "{lines:?}: {answers:?}");
    answers
}

/// Lines and the answers they must have, compared all at once: what follows the first wrong one tells why.
fn expect(stage: &mut Stage, when: &str, table: &[(&str, &str)]) {
    let (lines, expected): (Vec<_>, Vec<_>) = table.iter().copied().unzip();
    let answers = ask_all(stage, &lines);
    let found: Vec<_> = lines.iter().copied().zip(answers.iter().map(String::as_str)).collect();
    assert_eq!(found, lines.into_iter().zip(expected).collect::<Vec<_>>(), "{when}");
}

/// How often the exporter took each mapping back, and whether the peer has one now.
fn fates(stage: &mut Stage) -> Vec<(u32, bool)> {
    let lines = NAMES.map(|name| format!("state {name}"));
    let answers = ask_all(stage, &lines.each_ref().map(String::as_str));
    let fate = |answer: &String| {
        let field = |key| answer.split(' ').find_map(|word| word.strip_prefix(key)).unwrap().parse().unwrap();
        (field("invalidations="), field("segments=") > 0)
    };
    answers.iter().map(fate).collect()
}

/// The ranges of BAR 2 by side, private ones first, as `export` takes them: the report cut in two.
fn cut(stage: &mut Stage) -> [Vec<String>; 2] {
    let lines = stage.check_json(&format!("tdispctl --device {DEVICE} --session /run/session --json report"));
    let ranges = lines.iter().find_map(|line| line.get("ranges")?.as_array()).unwrap();
    [(true, TEE), (false, 0)].map(|(private, start)| {
        let ranges = ranges.iter().filter(|range| range["bar"] == 2 && range["private"] == private);
        let ranges = ranges.map(|range| {
            let (offset, pages) = (range["offset"].as_u64().unwrap(), range["pages"].as_u64().unwrap());
            format!("{:#x}:{:#x}", start + offset, pages * 4096)
        });
        ranges.collect()
    })
}

fn scene() -> Option<Scene> {
    let scene = Scene::new("iommu_dmabuf")?;
    let scene = scene.config(CONFIG).control().iommu().processor("EPYC").qemu(&["-device", "edu"]);
    let scene = scene.module("vfio-pci").module("vfio_iommu_type1").module_file(importer("iommu_dmabuf")?);
    Some(scene.program("vfio-export", Programs::build().unwrap().vfio_export))
}

#[test]
fn two_dma_bufs_of_one_bar_through_a_bind_and_back() {
    let Some(scene) = scene() else { return };
    let mut stage = scene.start();
    stage.check(&format!("device={DEVICE} sysfs={SYSFS}\n{EXPORTER}"));
    what_the_kernel_refuses(&mut stage);

    // What a VMM has before the bind: all of the BAR, shared.
    let before = [
        ("export old 2 0:0x8000", "ok 0x8000"),
        ("attach old", "ok"),
        ("map old", "ok"),
        ("put old 0 0123456789abcdef", "ok"),
        ("read 2 0 8", "ok 0123456789abcdef"),
        ("get old 0 8", "ok 0123456789abcdef"),
        ("put old 0x2000 5a5a5a5a5a5a5a5a", "ok"),
        ("mmap old", "EINVAL"),
    ];
    expect(&mut stage, "before the bind", &before);
    expect(&mut stage, "unmap", &[("unmap old", "ok"), ("get old 0 8", "ENODEV"), ("close old", "ok")]);

    bind(&mut stage);
    let [private, shared] = cut(&mut stage);
    assert_eq!(private, ["0x8000:0x2000", "0xc000:0x2000"]);
    assert_eq!(shared, ["0x2000:0x2000", "0x6000:0x2000"]);
    all_ranges_of_a_side_in_one(&mut stage, &private);
    export(&mut stage, &private, &shared);
    let locked = [
        ("get private0 0 8", ONES),
        ("put private0 0 0123456789abcdef", "ok"),
        // What was there before the bind still is: shared pages stay whose they were.
        ("get shared0 0 8", "ok 5a5a5a5a5a5a5a5a"),
    ];
    expect(&mut stage, "locked", &locked);
    stage.tdispctl("start");
    let run = [
        // Neither what the host wrote before the bind nor what was written too early.
        ("get private0 0 8", ZEROES),
        ("put private0 0 1111111111111111", "ok"),
        ("put private1 0xff8 2222222222222222", "ok"),
        ("put shared1 0x1ff8 3333333333333333", "ok"),
        ("get private0 0 8", "ok 1111111111111111"),
        ("read 2 0x8000 8", "ok 1111111111111111"),
        ("read 2 0xcff8 8", "ok 2222222222222222"),
        ("read 2 0x7ff8 8", "ok 3333333333333333"),
    ];
    expect(&mut stage, "in RUN", &run);
    the_device_refuses_what_the_kernel_mixes(&mut stage);
    the_host_exports_the_same_memory(&mut stage);

    // Unbinding tells vfio-pci nothing: the peer keeps its mapping, of pages that nobody is behind.
    stage.tdispctl("stop");
    let stopped = [
        ("get private0 0 8", ONES),
        ("put private0 0 4444444444444444", "ok"),
        ("read 2 0 8", ZEROES),
        ("get shared1 0x1ff8 8", "ok 3333333333333333"),
    ];
    expect(&mut stage, "after the unbind", &stopped);
    assert_eq!(fates(&mut stage), [(0, true); 4]);
    let lines = NAMES.map(|name| format!("close {name}"));
    expect(&mut stage, "unmap", &lines.each_ref().map(|line| (line.as_str(), "ok")));
    revocation(&mut stage, &private, &shared);
    stage.finish();
}

fn bind(stage: &mut Stage) {
    stage.check("rm -f /run/session");
    stage.tdispctl("lock");
}

/// A dma-buf for each range, mapped for the peer.
fn export(stage: &mut Stage, private: &[String], shared: &[String]) {
    let named = NAMES.iter().zip(private.iter().chain(shared));
    let lines = named.flat_map(|(name, range)| {
        [
            (format!("export {name} 2 {range}"), "ok 0x2000"),
            (format!("attach {name}"), "ok"),
            (format!("map {name}"), "ok"),
        ]
    });
    let lines: Vec<_> = lines.collect();
    let table: Vec<_> = lines.iter().map(|(line, answer)| (line.as_str(), *answer)).collect();
    expect(stage, "exporting", &table);
}

/// Linux up to 7.3 puts every range of a dma-buf at the start of its bus addresses (`dma_buf_phys_vec_to_sgt`), so that behind an
/// IOMMU only one can be mapped. Where that is mended, the ranges have to follow each other.
fn all_ranges_of_a_side_in_one(stage: &mut Stage, ranges: &[String]) {
    let lines = [format!("export all 2 {}", ranges.join(",")), "attach all".to_owned(), "map all".to_owned()];
    let answers = ask_all(stage, &lines.each_ref().map(String::as_str));
    match &*answers[2] {
        "ok" => assert_eq!(ask_all(stage, &["state all"])[0].split(' ').nth(2), Some("length=0x4000")),
        refused => assert_eq!(refused, "EADDRINUSE"),
    }
    expect(stage, "the export itself", &[("close all", "ok")]);
}

/// The kernel checks arguments; it knows no sides.
fn what_the_kernel_refuses(stage: &mut Stage) {
    let refused = [
        ("probe", "ok"),
        ("export x 2 -", "EINVAL"),
        ("export x 2 0:0x1000 flags=1", "EINVAL"),
        ("export x 2 0:0", "EINVAL"),
        ("export x 2 0x800:0x1000", "EINVAL"),
        ("export x 2 0:0x1800", "EINVAL"),
        ("export x 2 0:0x1000,0x1000:0x800", "EINVAL"),
        ("export x 2 0xf000:0x2000", "EINVAL"),
        ("export x 2 0x10000:0x1000", "EINVAL"),
        ("export x 2 0xfffffffffffff000:0x1000", "EOVERFLOW"),
        ("export x 1 0:0x1000", "ENODEV"),
        ("export x 1 0x800:0", "ENODEV"),
        ("export x 1 -", "EINVAL"),
        ("export x 6 0:0x1000", "ENODEV"),
        ("export x 7 0:0x1000", "ENODEV"),
        ("export x 11 0:0x1000", "ENODEV"),
        // A page twice, and both sides of one page: for the kernel these are just ranges.
        ("export x 2 0:0x1000,0:0x1000,0x8000:0x1000", "ok 0x3000"),
        ("close x", "ok"),
    ];
    expect(stage, "what the kernel refuses", &refused);
}

/// An export of both sides that no kernel refuses before somebody has taught it the report.
fn the_device_refuses_what_the_kernel_mixes(stage: &mut Stage) {
    assert!(!stage.device_log().contains("machine check"), "{}", stage.device_log());
    let mixed = [
        ("export mixed 2 0:0x8000", "ok 0x8000"),
        ("attach mixed", "ok"),
        ("map mixed", "ok"),
        ("get mixed 0 8", ONES),
        ("put mixed 0 4444444444444444", "ok"),
        ("read 2 0x8000 8", "ok 1111111111111111"),
        ("get mixed 0x7ff8 8", "ok 3333333333333333"),
        ("close mixed", "ok"),
    ];
    expect(stage, "both sides in one dma-buf, with T = 0", &mixed);
    let log = stage.device_log();
    assert!(log.contains("bytes of the private BAR 2 + 0x0 with T = 0"), "{log}");
}

/// Exports of the device's own, for a VMM that asks it: it knows the sides, and says why it refuses.
fn the_host_exports_the_same_memory(stage: &mut Stage) {
    let seen = stage.control("dmabuf 0 2 private 0x0:0x2000", "read 0x0 8\n");
    assert!(seen.0 == Some(0) && seen.1.contains("1111111111111111"), "the peer's bytes: {seen:?}");
    for (range, why) in [
        ("private 0x1000:0x2000", "private and shared pages in one export"),
        ("private 0x2800:0x1000", "not whole pages"),
        ("shared 0x2800:0x1000", "not whole pages"),
        ("shared 0x7000:0x2000", "beyond the BAR"),
        // QEMU has mapped what never becomes private.
        ("shared 0x2000:0x1000", "it cannot be in another file as well"),
    ] {
        let refused = stage.control(&format!("dmabuf 0 2 {range}"), "");
        assert!(refused.0 == Some(4) && refused.1.contains(why), "{range}: {refused:?}");
    }
}

/// What takes dma-bufs back is what vfio-pci knows of: memory decoding, a reset, and the end of the device file. It takes all of them.
fn revocation(stage: &mut Stage, private: &[String], shared: &[String]) {
    // This time nobody thinks of what was mapped before the bind.
    let forgotten = [("export old 2 0:0x8000", "ok 0x8000"), ("attach old", "ok"), ("map old", "ok")];
    expect(stage, "before the bind", &forgotten);
    bind(stage);
    export(stage, private, shared);
    stage.tdispctl("start");
    let off = [
        ("put private0 0 1111111111111111", "ok"),
        ("get old 0 8", ONES),
        ("put shared0 0 5555555555555555", "ok"),
        ("write 7 4 0000", "ok"),
    ];
    expect(stage, "memory decoding goes off", &off);
    assert_eq!(fates(stage), [(1, false); 4]);
    let without = [
        ("get private0 0 8", "ENODEV"),
        ("map private0", "ENODEV"),
        ("read 2 0 8", "EIO"),
        ("export late 2 0:0x1000", "ok 0x1000"),
        ("attach late", "ENODEV"),
        ("close late", "ok"),
        ("write 7 4 0600", "ok"),
    ];
    expect(stage, "without memory decoding", &without);

    // The device took that for what it is in RUN: the TDI is in ERROR. vfio-pci lets the peer map everything again.
    assert!(fates(stage).iter().all(|(_, mapped)| !mapped));
    let back = [
        ("map private0", "ok"),
        ("get private0 0 8", ONES),
        ("map shared0", "ok"),
        ("get shared0 0 8", "ok 5555555555555555"),
        // A BAR that is moved is moved for the eyes of vfio's user only.
        ("write 7 0x18 00000000", "ok"),
        ("get shared0 0 8", "ok 5555555555555555"),
    ];
    expect(stage, "memory decoding is back", &back);
    let state = stage.tdispctl("--json state");
    assert!(state.contains("ERROR"), "{state}");

    let before = fates(stage);
    expect(stage, "reset", &[("reset", "ok")]);
    let taken = |before: &[(u32, bool)], after: &[(u32, bool)]| {
        before.iter().zip(after).all(|(before, after)| after.0 > before.0 && !after.1)
    };
    let after = fates(stage);
    assert!(taken(&before, &after), "{before:?} {after:?}");
    let reset = [
        // The reset has zeroed what is shared; what is private belongs to nobody before STOP.
        ("map shared0", "ok"),
        ("get shared0 0 8", ZEROES),
        ("map private0", "ok"),
        ("get private0 0 8", ONES),
        ("leave", "ok"),
    ];
    expect(stage, "after a reset", &reset);
    let last = fates(stage);
    assert!(taken(&after, &last), "{after:?} {last:?}");
    let left = [("map shared0", "ENODEV"), ("get shared0 0 8", "ENODEV"), ("attach private0", "ENODEV")];
    expect(stage, "without the device file", &left);
    stage.tdispctl("stop");
}
