//! A stock guest's disk in the middle of things: a function reset, LOCK and START, and the end of the server while writes are under way; and
//! a gigabyte of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::FileExt;

use tests::guest::{Image, SYSFS, Stage, disk_scene};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// Every one of these blocks has what the writer wrote.
fn has(image: &Image, blocks: &[u64]) {
    for &number in blocks {
        let mut block = [0; BLOCK];
        image.file.read_exact_at(&mut block, number * BLOCK as u64).unwrap();
        let text = format!("{number:<BLOCK$}");
        assert!(block == text.as_bytes(), "block {number}, whose write was acknowledged, is another");
    }
}

/// Starts a program in the guest that writes one numbered block after the other, each past the page cache and with a flush, and notes the
/// number once both are acknowledged.
fn start_writer(stage: &mut Stage) {
    let writer = "i=0; while [ ! -e /run/stop ]; do printf '%-4096d' $i | dd of=/dev/vda bs=4096 seek=$i iflag=fullblock \
                  oflag=direct conv=notrunc,fsync 2>>/run/dd && echo $i >>/run/acknowledged || break; i=$((i + 1)); done";
    stage.check(&format!("touch /run/acknowledged; ({writer}) >/dev/null 2>&1 & echo $! >/run/writer"));
    wait_for_writes(stage, 0, 20);
}

/// The numbers of the blocks whose writes were acknowledged.
fn acknowledged(stage: &mut Stage) -> Vec<u64> {
    stage.check("cat /run/acknowledged").lines().map(|line| line.parse().unwrap()).collect()
}

/// Waits until `more` blocks than `before` are acknowledged; how many there are then.
fn wait_for_writes(stage: &mut Stage, before: usize, more: usize) -> usize {
    stage.check(&format!(
        "for i in $(seq 300); do [ $(wc -l </run/acknowledged) -ge {} ] && exit 0; sleep 0.1; done; cat /run/dd; exit 1",
        before + more
    ));
    acknowledged(stage).len()
}

/// Ends the writer, which must have met no error.
fn stop_writer(stage: &mut Stage) -> Vec<u64> {
    stage.check("touch /run/stop; while kill -0 $(cat /run/writer) 2>/dev/null; do sleep 0.1; done");
    let blocks = acknowledged(stage);
    let said = stage.check("cat /run/dd");
    assert_eq!(said.matches("1+0 records out").count(), blocks.len(), "{said}");
    blocks
}

#[test]
fn function_resets_under_load_lose_nothing() {
    let name = "disk_flr";
    let Some(scene) = disk_scene(name) else { return };
    let image = Image::new(name, "disk.img", 64 * MIB);
    let mut stage = scene.config("[[function]]\nkind = \"virtio-blk\"\ndisk.path = \"disk.img\"\n").start();
    start_writer(&mut stage);
    let mut written = 0;
    for _ in 0..3 {
        stage.check(&format!("echo flr > {SYSFS}/reset_method && echo 1 > {SYSFS}/reset"));
        written = wait_for_writes(&mut stage, written, 5);
    }
    has(&image, &stop_writer(&mut stage));
    assert!(stage.device_log().matches("reset").count() >= 3, "{}", stage.device_log());
    stage.finish();
}

/// With registers and doorbells on shared pages, what the host set up stays over LOCK.
#[test]
fn writes_wait_through_lock_and_go_on_in_run() {
    let name = "disk_lock";
    let Some(scene) = disk_scene(name) else { return };
    let image = Image::new(name, "disk.img", 64 * MIB);
    let range =
        |kind: &str| format!("[[function.bar.range]]\nkind = \"{kind}\"\nsize = \"4K\"\nside = \"shared\"\n");
    let config = format!(
        "[[function]]\nkind = \"virtio-blk\"\nmsix = false\ndisk.path = \"disk.img\"\n[[function.bar]]\nindex = 1\n{}{}",
        range("registers"),
        range("doorbells")
    );
    let mut stage = scene.config(&config).start();
    start_writer(&mut stage);
    stage.tdispctl("lock");
    let waiting = acknowledged(&mut stage).len();
    stage.check("sleep 1");
    assert_eq!(acknowledged(&mut stage).len(), waiting, "no DMA in CONFIG_LOCKED");
    stage.tdispctl("start");
    wait_for_writes(&mut stage, waiting, 20);
    assert!(stage.tdispctl("state").contains("RUN"));
    has(&image, &stop_writer(&mut stage));
    stage.finish();
}

#[test]
fn no_acknowledged_write_is_lost_when_the_server_is_killed_and_another_plugged_in() {
    let name = "disk_killed";
    let Some(scene) = disk_scene(name) else { return };
    let image = Image::new(name, "disk.img", 64 * MIB);
    let config = "[[function]]\nkind = \"virtio-blk\"\nmsix = false\ndisk.path = \"disk.img\"\n";
    let mut stage = scene.config(config).spare_slot().start();
    start_writer(&mut stage);
    stage.kill_daemon();
    let blocks = acknowledged(&mut stage);
    has(&image, &blocks);
    // Linux waits for ever for what is under way on a disk that is gone, and so does whoever would take it out.
    stage.start_daemon();
    stage.plug_into_spare_slot();
    stage.check("for i in $(seq 100); do [ -b /dev/vdb ] && exit 0; sleep 0.1; done; exit 1");
    let last = *blocks.last().unwrap();
    let block = stage.check(&format!("dd if=/dev/vdb bs=4096 skip={last} count=1 2>/dev/null"));
    assert_eq!(block, format!("{last:<BLOCK$}"));
    stage.check("echo fresh | dd of=/dev/vdb bs=512 seek=1024 conv=sync,fsync 2>/dev/null");
    let mut fresh = [0; 6];
    image.file.read_exact_at(&mut fresh, 1024 * 512).unwrap();
    assert_eq!(&fresh, b"fresh\n");
    stage.finish();
}

/// The host's own file decides, in which one partition becomes the other; then a file system in one of them.
#[test]
fn a_gigabyte_goes_through_a_guest_from_partition_to_partition() {
    let name = "disk_gigabyte";
    let Some(scene) = disk_scene(name) else { return };
    let (start, size) = (MIB, 1024 * MIB);
    let image = Image::new(name, "disk.img", start + 2 * size);
    let entry = |start: u64, size: u64| {
        let [start, size] = [start, size].map(|bytes| u32::try_from(bytes / 512).unwrap().to_le_bytes());
        [&[0, 0xFE, 0xFF, 0xFF, 0x83, 0xFE, 0xFF, 0xFF][..], &start, &size].concat()
    };
    image.file.write_all_at(&[entry(start, size), entry(start + size, size)].concat(), 446).unwrap();
    image.file.write_all_at(&[0x55, 0xAA], 510).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut part = vec![0; MIB as usize];
    for n in 0..size / MIB {
        for word in part.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        image.file.write_all_at(&part, start + n * MIB).unwrap();
    }

    let config = "[[function]]\nkind = \"virtio-blk\"\ndisk.path = \"disk.img\"\ndisk.queues = 2\n";
    let mut stage = scene.config(config).start();
    stage.check("dd if=/dev/vda1 of=/dev/vda2 bs=1M iflag=direct oflag=direct conv=fsync 2>/dev/null");
    let mut copy = part.clone();
    for n in 0..size / MIB {
        image.file.read_exact_at(&mut part, start + n * MIB).unwrap();
        image.file.read_exact_at(&mut copy, start + size + n * MIB).unwrap();
        assert!(part == copy, "megabyte {n}");
    }
    stage.check("mke2fs /dev/vda2 16384 >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/vda2 /mnt");
    stage.check(
        "dd if=/dev/vda1 of=/mnt/a bs=1M count=8 2>/dev/null && sync && echo 3 > /proc/sys/vm/drop_caches",
    );
    stage.check("dd if=/dev/vda1 bs=1M count=8 2>/dev/null | cmp - /mnt/a && umount /mnt");
    stage.finish();
}
