//! A stock guest on the disk over vfio-user: Linux's own virtio drivers, with and without an IOMMU, and in RUN.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::FileExt;

use tests::guest::{DEVICE, Image, SYSFS, Stage, compare_lspci, disk_scene};

const MIB: u64 = 1 << 20;
/// The driver's way to the device.
const DRIVER: &str = "/sys/bus/pci/drivers/virtio-pci";

/// A file system with a file in it whose checksum holds past the page cache.
fn file_system_holds(stage: &mut Stage) {
    stage.check("mke2fs /dev/vda 16384 >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt");
    stage.check("dd if=/dev/urandom of=/mnt/a bs=64k count=64 2>/dev/null && sync");
    let sum = stage.check("sha256sum < /mnt/a");
    stage.check("echo 3 > /proc/sys/vm/drop_caches");
    assert_eq!(stage.check("sha256sum < /mnt/a"), sum);
}

#[test]
fn a_stock_driver_uses_the_disk() {
    let name = "disk";
    let Some(scene) = disk_scene(name) else { return };
    let image = Image::new(name, "disk.img", 32 * MIB);
    image.file.write_all_at(&[0xC3; 4096], 24 * MIB).unwrap();
    let config = "[[function]]\nkind = \"virtio-blk\"\ndisk.path = \"disk.img\"\ndisk.queues = 2\ndisk.serial = \"over-vfio\"\n";
    let mut stage = scene.config(config).start();
    compare_lspci(&mut stage, "virtio-");

    let queue = "/sys/block/vda/queue";
    let facts = stage.check(&format!(
        "cat /sys/block/vda/size /sys/block/vda/serial; echo; cat {queue}/logical_block_size {queue}/write_cache \
         /sys/block/vda/ro; ls {SYSFS}/msi_irqs | wc -l"
    ));
    let facts: Vec<&str> = facts.split_whitespace().collect();
    // A vector for the configuration and one for each queue that this machine's processor uses.
    assert_eq!(facts, ["65536", "over-vfio", "512", "write", "back", "0", "2"]);
    let of_pattern = stage.check("printf '\\303%.0s' $(seq 4096) | sha256sum");
    let pattern = "dd if=/dev/vda bs=4096 skip=6144 count=1 2>/dev/null | sha256sum";
    assert_eq!(stage.check(pattern), of_pattern);
    file_system_holds(&mut stage);

    // Space that is given back leaves the host's file.
    stage.check("rm /mnt/a; umount /mnt; blkdiscard -o 25165824 -l 4096 /dev/vda");
    let mut bytes = [1; 4096];
    image.file.read_exact_at(&mut bytes, 24 * MIB).unwrap();
    assert_eq!(bytes, [0; 4096]);

    // The disk grows under the guest.
    image.file.set_len(40 * MIB).unwrap();
    stage.check(
        "for i in $(seq 100); do [ $(cat /sys/block/vda/size) = 81920 ] && exit 0; sleep 0.1; done; exit 1",
    );

    // The driver lets go and takes the device again; what it wrote is there.
    stage.check("echo kept | dd of=/dev/vda bs=512 seek=81919 conv=sync,fsync 2>/dev/null");
    stage.check(&format!("echo {DEVICE} > {DRIVER}/unbind && echo {DEVICE} > {DRIVER}/bind"));
    assert!(stage.check("dd if=/dev/vda bs=512 skip=81919 2>/dev/null").starts_with("kept\n"));
    stage.finish();
}

#[test]
fn a_stock_driver_uses_the_disk_behind_an_iommu() {
    let Some(scene) = disk_scene("disk_iommu") else { return };
    let config = "[[function]]\nkind = \"virtio-blk\"\ndisk.size = \"32M\"\n";
    let mut stage = scene.config(config).iommu().start();
    assert_eq!(stage.check(&format!("cat {SYSFS}/iommu_group/type")).trim(), "DMA");
    file_system_holds(&mut stage);
    stage.check("umount /mnt");
    stage.finish();
}

#[test]
fn a_guest_mounts_its_private_disk_in_run_only() {
    let name = "disk_run";
    let Some(scene) = disk_scene(name) else { return };
    let image = Image::new(name, "private.img", 32 * MIB);
    let config = "[[function]]\nkind = \"virtio-blk\"\ndisk.size = \"1M\"\nprivate_disk.path = \"private.img\"\n\
                  [tdisp]\nlenient_command = true\n";
    let mut stage = scene.config(config).start();
    // A host's world: another disk.
    assert_eq!(stage.check("cat /sys/block/vda/size").trim(), "2048");
    stage.check(&format!("echo {DEVICE} > {DRIVER}/unbind"));
    stage.tdispctl("lock");
    // Linux would wait for ever for the reset that it asks for here: nobody reads anything but ones in CONFIG_LOCKED.
    let registers = stage.bar(DEVICE, 0);
    assert_eq!([0x14, 0x400].map(|offset| stage.load(registers + offset)), [u32::MAX; 2]);
    stage.tdispctl("start");
    stage.check(&format!("echo {DEVICE} > {DRIVER}/bind"));
    assert_eq!(stage.check("cat /sys/block/vda/size").trim(), "65536");
    assert!(stage.tdispctl("state").contains("RUN"));
    file_system_holds(&mut stage);
    stage.check("echo private > /mnt/b; umount /mnt");

    // STOP under the driver: its ring is dead, and the disk of the TVM out of sight.
    stage.tdispctl("stop");
    stage.check(&format!("echo {DEVICE} > {DRIVER}/unbind && echo {DEVICE} > {DRIVER}/bind"));
    assert_eq!(stage.check("cat /sys/block/vda/size").trim(), "2048");
    stage.check("dd if=/dev/vda bs=64k 2>/dev/null | grep -q private && exit 1 || true");
    let mut content = vec![0; 16 * MIB as usize];
    image.file.read_exact_at(&mut content, 0).unwrap();
    assert!(content.windows(8).any(|bytes| bytes == b"private\n"), "it is in the file of the private disk");
    drop(stage);
}
